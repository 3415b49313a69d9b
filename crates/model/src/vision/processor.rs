//! `preprocessor_config.json`: number of crops, and normalization of pictures.

use super::{PictureSpec, VisionSpec};
use crate::json::Object;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// The fields of `preprocessor_config.json` that are followed. Absent fields are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageProcessor {
    /// Largest number of crops of a picture, the global view not counted.
    pub num_crops: Option<usize>,
    /// Mean of red, green and blue.
    pub image_mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue.
    pub image_std: Option<[f32; 3]>,
}

impl ImageProcessor {
    /// Reads the file for a tower. Without the file, every field is absent.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the file cannot be read, [`Error::Json`] or [`Error::Foreign`] if it is not a JSON object,
    /// [`Error::Field`] if a field has a wrong value, another step than the published preprocessing, or other patches than the
    /// tower.
    pub fn read(path: &Path, vision: &VisionSpec) -> Result<Self> {
        if path.symlink_metadata().is_err() {
            return Ok(Self::default());
        }
        let json = Object::read(path, "the file is optional")?;
        check_steps(&json)?;
        if let PictureSpec::Whole { min_patches, max_patches, .. } = vision.picture {
            let same =
                [("patch_size", vision.patch_size), ("min_num_patches", min_patches), ("max_num_patches", max_patches)];
            for (field, value) in same {
                if json.integer(field, 0..=usize::MAX)?.is_some_and(|found| found != value) {
                    let hint = "config.json and preprocessor_config.json may be of different models";
                    return Err(json.bad(field, format!("{value}, as in config.json"), hint));
                }
            }
        }
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

/// Largest accepted number of crops.
const MOST_CROPS: usize = 1 << 16;

const HINT: &str = "compare the file with the published one";

/// Returns an error if a step of preprocessing is disabled, or differs from that of published models.
fn check_steps(json: &Object) -> Result<()> {
    for field in ["do_resize", "do_rescale", "do_normalize"] {
        if json.boolean(field)? == Some(false) {
            return Err(json.bad(field, "true", HINT));
        }
    }
    if json.get("resample").is_some_and(|filter| filter.as_u64() != Some(2)) {
        return Err(json.bad("resample", "2 (bilinear)", HINT));
    }
    let is_byte = |factor: f64| (factor * 255.0 - 1.0).abs() < 1e-6;
    if json.number("rescale_factor")?.is_some_and(|factor| !is_byte(factor)) {
        return Err(json.bad("rescale_factor", "1 / 255", HINT));
    }
    Ok(())
}

fn wrong(json: &Object, field: &str) -> Error {
    json.bad(field, "three numbers", HINT)
}
