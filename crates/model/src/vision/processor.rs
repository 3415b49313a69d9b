//! `preprocessor_config.json`: into how many crops pictures are cut, and how they are normalised.

use crate::json::Object;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// The fields of `preprocessor_config.json` that are followed. Absent fields are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageProcessor {
    /// Most crops of a picture, the global view not counted.
    pub num_crops: Option<usize>,
    /// Mean of red, green and blue.
    pub image_mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue.
    pub image_std: Option<[f32; 3]>,
}

impl ImageProcessor {
    /// Reads the file; where there is none, every field is absent.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] and [`Error::Field`] where it is no such file, [`Error::Read`] where it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        if path.symlink_metadata().is_err() {
            return Ok(Self::default());
        }
        let json = Object::read(path, "the file is optional")?;
        let colors = |field| -> Result<Option<[f32; 3]>> {
            let Some(list) = json.get(field) else { return Ok(None) };
            let numbers = list.as_array().map(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
            match numbers.flatten().as_deref() {
                Some(&[red, green, blue]) => Ok(Some([red as f32, green as f32, blue as f32])),
                _ => Err(wrong(&json, field)),
            }
        };
        Ok(Self {
            num_crops: json.integer("num_crops", 1..=MOST_CROPS)?,
            image_mean: colors("image_mean")?,
            image_std: colors("image_std")?,
        })
    }
}

/// More crops than any picture is worth.
const MOST_CROPS: usize = 1 << 16;

fn wrong(json: &Object, field: &str) -> Error {
    json.bad(field, "three numbers", "compare the file with the published one")
}
