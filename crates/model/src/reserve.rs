//! Memory of the KV cache.

use crate::{Error, Result};
use phi3_tensor::Error as DeviceError;

/// Reserves pages `0 .. needed` by `reserve`, where `has` of them were reserved before. If there is no memory for them, as many as there
/// is memory for are reserved, for the requests that can do with these.
///
/// # Errors
///
/// [`Error::CacheMemory`], and other errors of the device.
pub(crate) fn reserve_pages(
    has: &mut usize,
    needed: usize,
    mut reserve: impl FnMut(usize) -> phi3_tensor::Result<()>,
) -> Result<()> {
    let error = match reserve(needed) {
        Ok(()) => {
            *has = needed.max(*has);
            return Ok(());
        }
        Err(error @ DeviceError::OutOfMemory { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    let mut lacking = needed;
    while lacking.saturating_sub(*has) > 1 {
        let middle = has.midpoint(lacking);
        match reserve(middle) {
            Ok(()) => *has = middle,
            Err(DeviceError::OutOfMemory { .. }) => lacking = middle,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::CacheMemory { needed, found: *has, source: error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_to_its_end() {
        let full = || DeviceError::OutOfMemory { device: "a".into(), what: "b".into(), bytes: 1, detail: "".into() };
        for (memory, before, needed) in [(10, 0, 10), (10, 4, 11), (10, 4, 100), (0, 0, 5), (7, 7, 8), (9, 8, 3)] {
            let mut has = before;
            let result = reserve_pages(&mut has, needed, |pages| if pages <= memory { Ok(()) } else { Err(full()) });
            match result {
                Ok(()) => assert!(needed <= memory && has == needed.max(before)),
                Err(Error::CacheMemory { needed: wanted, found, .. }) => {
                    assert!(needed > memory && (wanted, found, has) == (needed, memory, memory));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_lost_device_is_not_asked_again() {
        let mut asked = 0;
        let result = reserve_pages(&mut 0, 9, |_| {
            asked += 1;
            Err(DeviceError::Lost { device: "a".into(), message: "b".into() })
        });
        assert!(matches!(result, Err(Error::Device(DeviceError::Lost { .. }))) && asked == 1);
    }
}
