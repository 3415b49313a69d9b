//! Decoding, resizing, grids and crops compared with the goldens of the reference (tests/data/oracle/family/images and ops).

use std::fs;
use std::path::PathBuf;

use phi3_image::{Error, Filter, Hd, Naflex, Orientation, Picture, decode, global_view, resize};
use safetensors::SafeTensors;
use serde_json::Value;

fn oracle(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/oracle/family").join(name)
}

fn read(name: &str) -> Vec<u8> {
    let path = oracle(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&read(name)).unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count")) as usize
}

/// A tensor [height, width, 3] of u8.
fn picture(tensors: &SafeTensors<'_>, name: &str) -> Picture {
    let tensor = tensors.tensor(name).unwrap();
    let [height, width, 3] = *tensor.shape() else { panic!("{name}: {:?}", tensor.shape()) };
    Picture::new(width as u32, height as u32, tensor.data().to_vec()).unwrap()
}

/// A tensor of f32 and its shape.
fn floats(tensors: &SafeTensors<'_>, name: &str) -> (Vec<f32>, Vec<usize>) {
    let tensor = tensors.tensor(name).unwrap();
    let values = tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    (values.collect(), tensor.shape().to_vec())
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The difference between `found` and `expected`, if it is too large.
fn fault(found: &Picture, expected: &Picture, case: &Value) -> Option<String> {
    if (found.width(), found.height()) != (expected.width(), expected.height()) {
        return Some(format!("size {} x {}", found.width(), found.height()));
    }
    let differences = found.rgb().iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b));
    let count = expected.rgb().len() as f64;
    let most = differences.clone().max().unwrap_or(0);
    let share = differences.clone().filter(|&difference| difference > 0).count() as f64 / count;
    let mean = differences.map(f64::from).sum::<f64>() / count;
    let bound = |name: &str| case[name].as_f64().unwrap_or(f64::INFINITY);
    let near = f64::from(most) <= bound("max") && share <= bound("share") && mean <= bound("mean");
    (!near).then(|| format!("differs by at most {most}, in {share:.3} of the samples, by {mean:.3} on average"))
}

#[test]
fn every_file() {
    let (expected, bytes) = (json("images/expected.json"), read("images/expected.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut faults = Vec::new();
    for (name, case) in expected.as_object().unwrap() {
        let found = decode(&read(&format!("images/{name}")), Orientation::Apply);
        if case["expect"] == "error" {
            match found {
                Ok(_) => faults.push(format!("{name}: read")),
                Err(error) => {
                    let text = error.to_string();
                    let whole = ["expected", "found", "hint: "].iter().all(|word| text.contains(word));
                    faults.extend((!whole).then(|| format!("{name}: {text}")));
                }
            }
            continue;
        }
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                faults.push(format!("{name}: {error}"));
                continue;
            }
        };
        assert_eq!(number(&case["width"]), found.width() as usize, "{name}");
        assert_eq!(number(&case["height"]), found.height() as usize, "{name}");
        // `decode` scales 16-bit gray, Pillow clips it
        let golden = if name == "gray16.png" { format!("{name}.scaled") } else { format!("{name}.rgb") };
        faults.extend(fault(&found, &picture(&tensors, &golden), case).map(|fault| format!("{name}: {fault}")));
        for (crops, tokens) in case["num_img_tokens"].as_object().unwrap() {
            let hd = Hd { max_crops: crops.parse().unwrap(), ..Hd::default() };
            let layout = hd.layout(found.width(), found.height()).unwrap();
            assert_eq!(layout.tokens, number(tokens), "{name}, {crops} crops");
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(expected.as_object().unwrap().len() >= 43);
}

/// Files written by libwebp (tests/data/image/lossless) compared with the same pictures as PNG.
#[test]
fn lossless_webp() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/image/lossless");
    let mut compared = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "webp") {
            let read = |path: &PathBuf| decode(&fs::read(path).unwrap(), Orientation::Apply).unwrap();
            assert!(read(&path) == read(&path.with_extension("").with_extension("png")), "{}", path.display());
            compared += 1;
        }
    }
    assert_eq!(compared, 16);
}

#[test]
fn orientation_is_ignored_where_asked() {
    let bytes = read("images/expected.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let unturned = decode(&read("images/exif-6.png"), Orientation::Ignore).unwrap();
    assert_eq!(unturned, picture(&tensors, "exif-6.png.unturned"));
    let plain = decode(&read("images/no-exif.jpg"), Orientation::Apply).unwrap();
    for orientation in 1..=8 {
        let file = read(&format!("images/exif-{orientation}.jpg"));
        assert_eq!(decode(&file, Orientation::Ignore).unwrap(), plain, "{orientation}");
        assert_eq!(decode(&file, Orientation::Apply).unwrap() == plain, orientation == 1, "{orientation}");
    }
}

#[test]
fn resizing_is_pillows() {
    let (cases, bytes) = (json("ops/images.json"), read("ops/images.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for name in cases.as_object().unwrap().keys().filter(|name| name.starts_with("resize_")) {
        let source = picture(&tensors, &format!("{name}.x"));
        for (filter, kind) in
            [(Filter::Bilinear, "bilinear"), (Filter::Bicubic, "bicubic"), (Filter::Lanczos, "lanczos")]
        {
            let expected = picture(&tensors, &format!("{name}.{kind}"));
            let found = resize(&source, expected.width(), expected.height(), filter).unwrap();
            assert_eq!(found, expected, "{name}, {kind}");
            compared += 1;
        }
    }
    assert_eq!(compared, 18);
}

#[test]
fn global_view_is_torchs() {
    let (cases, bytes) = (json("ops/images.json"), read("ops/images.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let names: Vec<_> = cases.as_object().unwrap().keys().filter(|name| name.starts_with("global_view_")).collect();
    assert_eq!(names.len(), 3);
    for name in names {
        let (values, shape) = floats(&tensors, &format!("{name}.x"));
        let (expected, _) = floats(&tensors, &format!("{name}.out"));
        let found = global_view(&values, [shape[1], shape[2]], number(&cases[name]["crop"])).unwrap();
        let difference = largest_difference(&found, &expected);
        assert!(difference <= 1e-5, "{name}: {difference}");
    }
}

#[test]
fn grids() {
    let pair = |value: &Value| (number(&value[0]), number(&value[1]));
    let (family, first) = (json("ops/images.json"), json("../ops/ops.json"));
    let cases = [&family["hd_image_sizes"], &first["hd_image_sizes"]].map(|cases| cases.as_array().unwrap());
    assert!(cases[0].len() >= 40 && cases[1].len() >= 10);
    for case in cases.into_iter().flatten() {
        let hd = Hd { max_crops: number(&case["num_crops"]), ..Hd::default() };
        let layout = hd.layout(number(&case["width"]) as u32, number(&case["height"]) as u32).unwrap();
        let (resized, padded) = (layout.resized, layout.padded);
        assert_eq!((resized.width as usize, resized.height as usize), pair(&case["resized"]), "{case}");
        assert_eq!((padded.width as usize, padded.height as usize), pair(&case["padded"]), "{case}");
        assert_eq!(layout.tokens, number(&case["num_img_tokens"]), "{case}");
        if let Some(grid) = case.get("grid") {
            assert_eq!((layout.grid.1, layout.grid.0), pair(grid), "{case}");
        }
    }
    let refused = family["hd_image_sizes_height_0"].as_array().unwrap();
    assert_eq!(refused.len(), 11);
    for case in refused {
        let hd = Hd { max_crops: number(&case[2]), ..Hd::default() };
        let layout = hd.layout(number(&case[0]) as u32, number(&case[1]) as u32);
        assert!(matches!(layout, Err(Error::TooThin { .. })), "{case}: {layout:?}");
    }
}

#[test]
fn pictures_of_the_checkpoints() {
    let (cases, bytes) = (json("images/vision.json"), read("images/vision.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let name = format!("{}.{}", case["checkpoint"].as_str().unwrap(), case["picture"].as_str().unwrap());
        let [crop, patch, max_crops] = ["crop", "patch", "num_crops"].map(|field| number(&case[field]));
        let hd = Hd { crop, patch, max_crops, ..Hd::default() };
        let source = picture(&tensors, &format!("{name}.rgb"));
        let padded = hd.padded(&source).unwrap();
        assert_eq!(padded, picture(&tensors, &format!("{name}.hd_rgb")), "{name}");

        let pixels = hd.pixels(&source).unwrap();
        assert_eq!(pixels.tokens, number(&case["num_img_tokens"]), "{name}");
        assert_eq!(pixels.size, [number(&case["image_size"][0]), number(&case["image_size"][1])], "{name}");
        assert_eq!(pixels.values.len(), (1 + pixels.grid.0 * pixels.grid.1) * 3 * crop * crop, "{name}");
        if let Ok(tensor) = tensors.tensor(&format!("{name}.pixel_values")) {
            assert_eq!(tensor.shape(), [1 + max_crops, 3, crop, crop], "{name}");
            let (expected, _) = floats(&tensors, &format!("{name}.pixel_values"));
            let (real, zeros) = expected.split_at(pixels.values.len());
            let difference = largest_difference(&pixels.values, real);
            assert!(difference <= 1e-5, "{name}: {difference}");
            assert!(zeros.iter().all(|value| *value == 0.0), "{name}");
            compared += 1;
        }
    }
    assert_eq!((cases.as_array().unwrap().len(), compared), (10, 2));
}

#[test]
fn explained_picture() {
    let bytes = read("images/vision.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let hd = Hd { crop: 28, patch: 7, ..Hd::default() };
    let source = picture(&tensors, "phi-3-vision-16.grid_5x3.rgb");
    let (padded, png) = (hd.padded(&source).unwrap(), hd.explain(&source).unwrap());
    let found = decode(&png, Orientation::Apply).unwrap();
    assert_eq!((found.width(), found.height()), (padded.width(), padded.height()));
    for (at, (found, padded)) in found.rgb().chunks(3).zip(padded.rgb().chunks(3)).enumerate() {
        let (x, y) = (at % 140 % 28, at / 140 % 28);
        let line = [0, 27].contains(&x) || [0, 27].contains(&y);
        assert_eq!(found, if line { &[255, 0, 0] } else { padded }, "{x} {y}");
    }
}

#[test]
fn sizes_of_naflex() {
    let cases = json("ops/naflex_sizes.json");
    for case in cases.as_array().unwrap() {
        let [patch, min_patches, max_patches] =
            ["patch_size", "min_num_patches", "max_num_patches"].map(|field| number(&case[field]));
        let naflex = Naflex { patch, min_patches, max_patches, ..Naflex::default() };
        let [[width, height], resized] =
            ["size", "resized"].map(|field| [0, 1].map(|i| number(&case[field][i]) as u32));
        let layout = naflex.layout(width, height).unwrap();
        assert_eq!([layout.resized.width, layout.resized.height], resized, "{case}");
        assert_eq!(layout.tokens, number(&case["tokens"]), "{case}");
        assert_eq!(layout.grid, (resized[1] as usize / patch, resized[0] as usize / patch), "{case}");
    }
    assert!(cases.as_array().unwrap().len() >= 60);
}

/// Pictures of Phi-4-reasoning-vision: levels and normalised values, bit for bit.
#[test]
fn pictures_of_naflex() {
    let bytes = read("checkpoints/phi-4-reasoning-vision/golden.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let naflex = Naflex { patch: 4, min_patches: 12, max_patches: 40, ..Naflex::default() };
    let names = ["within", "small", "large", "flat", "tall"];
    for name in names {
        let source = picture(&tensors, &format!("image.{name}.rgb"));
        let resized = naflex.resized(&source).unwrap();
        assert!(resized == picture(&tensors, &format!("image.{name}.resized_rgb")), "{name}");
        let pixels = naflex.pixels(&source).unwrap();
        let (expected, shape) = floats(&tensors, &format!("image.{name}.pixel_values"));
        assert_eq!((pixels.tokens, pixels.grid.0 * pixels.grid.1), (shape[0], shape[0]), "{name}");
        assert!(pixels.values == expected, "{name}");

        let found = decode(&naflex.explain(&source).unwrap(), Orientation::Apply).unwrap();
        let width = resized.width() as usize;
        for (at, (found, resized)) in found.rgb().chunks(3).zip(resized.rgb().chunks(3)).enumerate() {
            let line = (at % width).is_multiple_of(4) || (at / width).is_multiple_of(4);
            assert_eq!(found, if line { &[255, 0, 0] } else { resized }, "{name} {at}");
        }
    }
}
