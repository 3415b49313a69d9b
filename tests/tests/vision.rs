//! Pictures: vision towers against their goldens on every backend, and prompts with pictures.

use crate::machines::{data, machines, machines_and_tiers, on};
use phi3_image::Picture;
use phi3_model::{Checkpoint, Crops, Error, Input, ModelSpec};
use phi3_runner::text::Message;
use phi3_runner::verify::{Golden, VerifyOptions, logits, verify};
use phi3_runner::{Device, DeviceOptions, Engine, GenerateOptions, Image, Orientation, RopePolicy, SamplerOptions};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Checkpoints with a vision tower; the first has six crops.
fn checkpoints() -> [PathBuf; 2] {
    ["phi-3-vision-6", "phi-3-vision-16"].map(|name| data("oracle/family/checkpoints").join(name))
}

fn check(device_options: &DeviceOptions, folder: &Path, chunk: usize) {
    let tolerance = if device_options.device == Device::Cpu { 1e-4 } else { 2e-4 };
    let mut loaded = device_options.load(&Checkpoint::open(folder).unwrap(), &mut |_| {}).unwrap();
    let golden = Golden::read(folder).unwrap();
    let report = verify(&mut *loaded.model, &golden, VerifyOptions { tolerance, chunk }).unwrap();
    for part in ["hd_rgb", "clip_features", "projected", "two_images logits", "one_image greedy"] {
        assert!(report.checks.iter().any(|check| check.name.ends_with(part)), "{part}: {report}");
    }
    println!("{} on {}, chunk {chunk}\n{report}", folder.display(), loaded.reason);
    assert!(report.ok(), "{} on {}, chunk {chunk}\n{report}", folder.display(), loaded.reason);
}

#[test]
fn goldens_of_pictures() {
    for device_options in machines_and_tiers() {
        for folder in checkpoints() {
            [usize::MAX, 7].into_iter().for_each(|chunk| check(&device_options, &folder, chunk));
        }
    }
}

/// A checkpoint with a tokenizer of single letters.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: PathBuf| std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    for file in ["config.json", "generation_config.json", "preprocessor_config.json", "model.safetensors"] {
        copy(checkpoints()[0].join(file));
    }
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        copy(data("tokenizer/tiny").join(file));
    }
    folder
}

fn engine(folder: &TempDir, device_options: &DeviceOptions) -> Engine {
    Engine::builder().model(folder.path()).device_options(device_options.clone()).build().unwrap()
}

fn image(engine: &Engine, name: &str) -> Image {
    engine.image_reader().unwrap().read(&data("oracle/family/images").join(name)).unwrap()
}

fn options(max_tokens: usize) -> GenerateOptions {
    let sampler = Some(SamplerOptions::default());
    GenerateOptions { max_tokens: Some(max_tokens), sampler, ignore_eos: true, ..GenerateOptions::default() }
}

fn ids(engine: &mut Engine, messages: &[Message], images: &[Image]) -> (Vec<u32>, usize, usize) {
    let completion = engine.chat_with_images(messages, images, &options(6)).unwrap().collect_all().unwrap();
    (completion.ids, completion.summary.usage.prompt_tokens, completion.summary.usage.cached_tokens)
}

#[test]
fn two_pictures_and_a_longer_chat() {
    let folder = folder();
    for device_options in machines() {
        let mut engine = engine(&folder, &device_options);
        let (first, second) = (image(&engine, "rgb.png"), image(&engine, "exif-6.jpg"));
        assert_eq!((first.tokens(), first.grid()), (73, (2, 3)));
        let compare = [Message::user("compare them")];
        let (both, prompt, cached) = ids(&mut engine, &compare, &[first.clone(), second.clone()]);
        // "<s><|user|>\n", "<s>\n" and "<s>\ncompare them<|end|>\n<|assistant|>\n" of single letters
        let text = 3 + 2 + 18;
        assert_eq!((prompt, cached), (first.tokens() + second.tokens() + text, 0));
        // explicit tags in the text give the same result
        let own = [Message::user("<|image_1|>\n<|image_2|>\ncompare them")];
        assert_eq!(ids(&mut engine, &own, &[first.clone(), second.clone()]), (both.clone(), prompt, prompt - 1));
        // pictures in another order give another answer, and the first picture is not taken from the cache
        let (swapped, _, cached) = ids(&mut engine, &compare, &[second.clone(), first.clone()]);
        assert!(swapped != both && cached < 10, "{cached}");
        // the next question does not compute the pictures again
        let (answer, _, _) = ids(&mut engine, &compare, &[first.clone(), second.clone()]);
        let text = engine.tokenizer().unwrap().decode(&answer, true).unwrap();
        let longer = [own[0].clone(), Message::assistant(text), Message::user("why?")];
        let (more, longer_prompt, cached) = ids(&mut engine, &longer, &[first.clone(), second.clone()]);
        assert!(cached >= prompt && longer_prompt > cached, "{cached} of {longer_prompt}");
        assert_eq!(more.len(), 6);
    }
}

#[test]
fn a_turned_picture_is_the_upright_one() {
    let folder = folder();
    let engine = engine(&folder, &on(Device::Cpu));
    let stored = data("oracle/family/images/no-exif.jpg");
    let reader = engine.image_reader().unwrap();
    let flat = reader.picture(&stored).unwrap();
    let (width, height) = (flat.width() as usize, flat.height() as usize);
    // a quarter turn to the right: the left edge moves to the top
    let pixels = (0..width).flat_map(|y| (0..height).map(move |x| (height - 1 - x) * width + y));
    let rgb = pixels.flat_map(|at| flat.rgb()[3 * at..][..3].to_vec()).collect();
    let upright = Picture::new(height as u32, width as u32, rgb).unwrap();
    let upright = reader.prepare("upright", &upright).unwrap();
    assert_eq!(image(&engine, "exif-6.jpg").id(), upright.id());
    let mut as_stored = reader.clone();
    as_stored.orientation = Orientation::Ignore;
    let turned = as_stored.read(&data("oracle/family/images/exif-6.jpg")).unwrap();
    assert_eq!(turned.id(), reader.read(&stored).unwrap().id());
    assert_ne!(turned.id(), upright.id());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let folder = folder();
    let mut engine = engine(&folder, &on(Device::Cpu));
    let reader = engine.image_reader().unwrap().clone();
    let broken = reader.read(&data("oracle/family/images/cut.png")).unwrap_err().to_string();
    assert!(broken.contains("cut.png") && broken.contains("hint: "), "{broken}");
    let missing = reader.read("nowhere.png".as_ref()).unwrap_err().to_string();
    assert!(missing.contains("nowhere.png"), "{missing}");
    let picture = image(&engine, "rgb.png");
    let question = [Message::user("<|image_2|> who?")];
    let mut refused = |messages: &[Message], images: &[Image]| match engine.chat_with_images(
        messages,
        images,
        &GenerateOptions::default(),
    ) {
        Ok(_) => panic!("no error"),
        Err(error) => error.to_string(),
    };
    assert!(refused(&question, std::slice::from_ref(&picture)).contains("expected every number from 1 to 1, found 2"));
    assert!(refused(&question, &[]).contains("there is no picture, found 2"));
    // 28 pictures of 73 tokens are more than the context
    let many = vec![picture.clone(); 28];
    assert!(refused(&[Message::user("who?")], &many).contains("prompt too long"));

    let mut text = Engine::builder().device(Device::Cpu).build().unwrap();
    let error = text.chat_with_images(&[Message::user("who?")], &[picture], &GenerateOptions::default());
    assert!(error.err().unwrap().to_string().contains("reads no pictures"));
    // without pictures a tag is text
    assert!(text.chat(&question, &GenerateOptions::default()).is_ok());

    let crops = Crops { values: &[0.0; 12], grid: (1, 1) };
    for (model, words) in [(engine.model(), "crops of a picture"), (text.model(), "reads text only")] {
        let error = model.encode_image(&crops, None).unwrap_err();
        assert!(matches!(error, Error::Request { .. }) && error.to_string().contains(words), "{error}");
    }
}

/// A prompt with a picture longer than LongRoPE's original context: cached rows are computed again with the other factors.
#[test]
fn pictures_survive_the_rope_switch() {
    for device_options in machines() {
        let mut loaded = device_options.load(&Checkpoint::open(&checkpoints()[0]).unwrap(), &mut |_| {}).unwrap();
        let model = &mut *loaded.model;
        let values: Vec<f32> = (0..7 * 3 * 42 * 42).map(|i| (i % 97) as f32 / 50.0 - 0.9).collect();
        let features = model.encode_image(&Crops { values: &values, grid: (2, 3) }, None).unwrap();
        let mut inputs: Vec<Input> = [1u32, 5, 9].iter().map(Input::from).collect();
        inputs.extend(features.inputs());
        assert_eq!(inputs.len(), 76);
        let tokens: Vec<u32> = (0..30).map(|i| (i * 7 + 3) % 96).collect();
        inputs.extend(tokens.iter().map(Input::from));
        // all at once with the long factors, compared with token by token across the limit of 96
        let want = logits(model, &inputs, usize::MAX, RopePolicy::Exact, None).unwrap();
        let want = &want[want.len() - 96..];
        let mut sequence = model.sequence();
        let mut row = Vec::new();
        let settings = phi3_model::PrefillOptions {
            chunk: 40,
            policy: RopePolicy::Exact,
            budget: 0,
            outputs: phi3_model::Outputs::Last,
        };
        for part in [&inputs[..80], &inputs[80..95], &inputs[95..100], &inputs[100..]] {
            let watch = &mut |_| std::ops::ControlFlow::Continue(());
            phi3_model::prefill(model, &mut sequence, part, settings, &mut row, None, watch).unwrap();
        }
        assert_eq!(sequence.inputs(), inputs);
        let most = want.iter().zip(&row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 2e-4, "{most}");
    }
}

/// The published configuration, which does not state the sizes of the vision tower.
#[test]
fn the_published_configuration_and_what_is_refused() {
    let path = data("tokenizer/phi-3-vision/config.json");
    let published: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let read = |json: &serde_json::Value| ModelSpec::parse(&path, json.to_string().as_bytes());
    let spec = read(&published).unwrap();
    let vision = spec.vision.unwrap();
    assert_eq!((vision.layers, vision.hidden_size, vision.inner, vision.positions()), (23, 1024, 4096, 577));
    assert_eq!((vision.heads.head_dim, vision.heads.rotary_dim, vision.side()), (64, 0, 12));
    assert_eq!([(2, 2), (4, 4), (3, 4), (3, 5)].map(|(r, c)| vision.tokens(r, c)), [757, 2509, 1921, 2353]);
    assert_eq!((spec.hidden_size, spec.rope.scaling().is_some()), (3072, true));

    let clip = serde_json::json!({
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 7,
    });
    let with_clip = |field: &str, value: serde_json::Value| {
        let mut json = published.clone();
        let mut clip = clip.clone();
        clip[field] = value;
        json["img_processor"] = serde_json::json!({"name": "clip_vision_model", "clip_config": clip});
        json
    };
    assert_eq!(read(&with_clip("patch_size", 7.into())).unwrap().vision.unwrap().tokens(1, 1), 13);
    for (field, value) in [
        ("patch_size", 28.into()),
        ("num_attention_heads", 3.into()),
        ("num_hidden_layers", 1.into()),
        ("image_size", 5000.into()),
        ("hidden_act", "relu".into()),
        ("num_channels", 1.into()),
        ("layer_norm_eps", 0.into()),
    ] {
        let error = read(&with_clip(field, value)).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains("hint: "), "{error}");
    }
    for (object, field, value) in [
        ("img_processor", "name", "siglip".into()),
        ("img_processor", "image_dim_out", 1025.into()),
        ("img_processor", "layer_idx", (-1).into()),
        ("embd_layer", "hd_transform_order", "glb_sub".into()),
        ("embd_layer", "use_hd_transform", false.into()),
    ] {
        let mut json = published.clone();
        json[object][field] = value;
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(&format!("{object}.{field}")), "{error}");
    }
}
