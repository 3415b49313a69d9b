//! Routes of rows to experts, on the device.

use super::device::{Buffer, Device, STORAGE};
use super::grid::is_few;
use crate::checks::RoutesShape;
use crate::{Result, TOP_EXPERTS};
use phi3_shaders::Product;

const _: () = assert!(TOP_EXPERTS == phi3_shaders::TOP_EXPERTS as usize);

/// Routes of a pass, in the layout of route.wgsl.
pub struct Routes {
    /// Capacity in rows.
    pub(crate) capacity: usize,
    pub(crate) experts: usize,
    /// Rows of the last routing.
    pub(crate) routed: usize,
    pub(crate) buffer: Buffer,
}

impl Routes {
    pub(super) fn new(device: &mut Device, rows: usize, experts: usize) -> Result<Self> {
        let few = (1..=rows).rev().find(|rows| is_few(*rows)).unwrap_or(0);
        let words = Tiles::of(rows, experts).words().max(Tiles::of(few, experts).words());
        let buffer = device.buffer("routes to experts", (words * size_of::<u32>()) as u64, STORAGE)?;
        Ok(Self { capacity: rows, experts, routed: 0, buffer })
    }

    pub(crate) fn shape(&self) -> RoutesShape {
        RoutesShape { capacity: self.capacity, experts: self.experts, routed: self.routed }
    }
}

/// The tiles of a pass's routes.
pub(crate) struct Tiles {
    pub(crate) product: Product,
    /// Routes of a tile.
    pub(crate) size: usize,
    /// Largest possible number of tiles.
    pub(crate) count: usize,
    /// Start of the tiles in the list.
    pub(crate) at: usize,
}

impl Tiles {
    pub(crate) fn of(rows: usize, experts: usize) -> Self {
        let product = if is_few(rows) { Product::Matvec } else { Product::Matmul };
        let (size, routes) = (product.tile().0 as usize, TOP_EXPERTS * rows);
        // each expert that has routes may have a tile that is not full
        Self { product, size, count: routes / size + experts.min(routes), at: 2 * routes }
    }

    fn words(&self) -> usize {
        self.at + self.count * (self.size + 1)
    }
}
