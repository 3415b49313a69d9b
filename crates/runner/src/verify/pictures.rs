//! Pictures of a golden: image preprocessing, vision tower and projection.

use super::{Check, Golden, Report, VerifyOptions, compare, compare_hidden, file_error};
use crate::vision::image_settings;
use crate::{Error, Result};
use phi3_image::{Picture, Preparation};
use phi3_model::{Features, Input, Model, TowerInput};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of a golden's prepared pictures: padded to crops, or resized to patches.
const SEEN: [&str; 2] = ["hd_rgb", "resized_rgb"];

/// Features of a tower, by the name of the model's probe and that of goldens of CLIP.
const FEATURES: (&str, &str) = ("tower_features", "clip_features");

/// Allowed difference of normalized pixels, if the prepared pictures are equal.
const PIXELS: f64 = 1e-5;

/// Allowed difference of normalized pixels, if levels of the prepared pictures differ by one.
const PIXELS_OFF: f64 = 2e-2;

/// Features of every picture by its name.
pub(super) type AllFeatures = BTreeMap<String, Arc<Features>>;

impl Golden {
    /// Returns the inputs of a prompt. The tokens of picture k become the rows of its features, in order.
    pub(super) fn inputs(&self, name: &str, features: &AllFeatures) -> Result<Vec<Input>> {
        let key = format!("prompt.{name}.input_ids");
        let Some(ids) = self.pictured.get(&key) else {
            return Ok(self.prompt(name)?.iter().map(Input::from).collect());
        };
        let names = self.pictures.get(name).map_or(&[][..], Vec::as_slice);
        let mut inputs = Vec::with_capacity(ids.len());
        for run in ids.chunk_by(|a, b| a == b || (*a >= 0 && *b >= 0)) {
            if run[0] >= 0 {
                inputs.extend(run.iter().map(|&id| Input::Token(id as u32)));
                continue;
            }
            let picture = names.get(run[0].unsigned_abs() as usize - 1).and_then(|name| features.get(name));
            let picture = picture.filter(|picture| run.len() == picture.tokens());
            let picture = picture
                .ok_or_else(|| file_error(&self.path, format!("{key}: expected a picture's id, found {}", run[0])))?;
            inputs.extend(picture.inputs());
        }
        Ok(inputs)
    }

    /// Names of the pictures.
    fn picture_names(&self) -> Vec<&str> {
        self.bytes.keys().filter_map(|key| key.strip_prefix("image.")?.strip_suffix(".rgb")).collect()
    }

    fn picture(&self, key: &str) -> Result<Option<Picture>> {
        let Some((shape, rgb)) = self.bytes.get(key) else { return Ok(None) };
        let wrong = |message: String| file_error(&self.path, format!("{key}: {message}"));
        let &[height, width, 3] = shape.as_slice() else { return Err(wrong(format!("shape {shape:?}"))) };
        let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
            return Err(wrong(format!("shape {shape:?}")));
        };
        Picture::new(width, height, rgb.clone()).map(Some).map_err(|error| wrong(error.to_string()))
    }
}

/// Compares preprocessing, tower and projection of every picture with the golden; returns the features.
pub(super) fn verify_pictures(
    model: &mut dyn Model,
    golden: &Golden,
    options: VerifyOptions,
    report: &mut Report,
) -> Result<AllFeatures> {
    let mut all = BTreeMap::new();
    let names = golden.picture_names();
    let Some(vision) = model.spec().vision.clone().filter(|_| !names.is_empty()) else { return Ok(all) };
    let folder = golden.path.parent().unwrap_or(&golden.path);
    let preparation = image_settings(&vision, &folder.join("preprocessor_config.json"))?;
    for name in names {
        let Some(picture) = golden.picture(&format!("image.{name}.rgb"))? else { continue };
        let wrong = |error: phi3_image::Error| file_error(&golden.path, format!("image.{name}.rgb: {error}"));
        let levels = verify_seen(&preparation, golden, name, &picture, report)?;
        let pixels = preparation.pixels(&picture).map_err(wrong)?;
        if let Some(want) = golden.rows(&format!("image.{name}.pixel_values")) {
            // crops of zeros follow the real ones
            let (want, rest) = want.split_at(pixels.values.len().min(want.len()));
            let allowed = if levels == 0 { PIXELS } else { PIXELS_OFF };
            let mut check =
                compare(&format!("{name} pixel_values"), want, &pixels.values, vision.patch_values(), allowed);
            check.ok &= rest.iter().all(|value| *value == 0.0);
            report.checks.push(check);
        }
        let mut probed = Vec::new();
        let mut probe = |stage: &str, rows: &[f32]| probed.push((stage.to_owned(), rows.to_vec()));
        let input = TowerInput { values: &pixels.values, grid: pixels.grid };
        let features = model.encode_image(&input, Some(&mut probe))?;
        for (stage, got) in &probed {
            let golden_of = |stage: &str| golden.rows(&format!("image.{name}.{stage}"));
            let want = golden_of(stage).or_else(|| golden_of(FEATURES.1).filter(|_| stage == FEATURES.0));
            if let Some(want) = want {
                let width = if stage == "projected" { features.width() } else { vision.hidden_size };
                let rows = want.len() / width.max(1);
                report.checks.push(compare_hidden(&format!("{name} {stage}"), want, got, rows, options.tolerance));
            }
        }
        all.insert(name.to_owned(), features);
    }
    Ok(all)
}

/// Compares the prepared picture with the golden's; returns their largest difference in levels.
fn verify_seen(
    preparation: &Preparation,
    golden: &Golden,
    name: &str,
    picture: &Picture,
    report: &mut Report,
) -> Result<u8> {
    let mut most = 0;
    for stage in SEEN {
        let key = format!("image.{name}.{stage}");
        let Some(want) = golden.picture(&key)? else { continue };
        let got = preparation.seen(picture);
        let got = got.map_err(|error| -> Error { file_error(&golden.path, format!("{key}: {error}")) })?;
        let same_size = (want.width(), want.height()) == (got.width(), got.height());
        let levels = match same_size {
            true => want.rgb().iter().zip(got.rgb()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0),
            false => u8::MAX,
        };
        report.checks.push(Check {
            name: format!("{name} {stage}"),
            difference: Some(f64::from(levels)),
            place: format!("{} x {} pixels", got.width(), got.height()),
            ok: levels <= 1,
        });
        most = most.max(levels);
    }
    Ok(most)
}
