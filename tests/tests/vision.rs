//! Pictures: vision towers against their goldens on every backend, and prompts with pictures.

use crate::machines::{data, machines, machines_and_tiers, on};
use phi3_image::Picture;
use phi3_model::{Checkpoint, Error, ImageTag, Input, ModelSpec, PictureSpec, TowerInput};
use phi3_runner::text::Message;
use phi3_runner::verify::{Golden, VerifyOptions, logits, verify};
use phi3_runner::{Device, DeviceOptions, Engine, GenerateOptions, Image, Orientation, RopePolicy, SamplerOptions};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const CROPS: &str = "phi-3-vision-6";
const PATCHES: &str = "phi-4-reasoning-vision";

fn checkpoint(name: &str) -> PathBuf {
    data("oracle/family/checkpoints").join(name)
}

/// Checkpoints with a vision tower, and the comparisons of a picture in their goldens.
const CHECKPOINTS: [(&str, &[&str]); 3] = [
    (CROPS, &["hd_rgb", "tower_features"]),
    ("phi-3-vision-16", &["hd_rgb", "tower_features"]),
    (
        PATCHES,
        &["resized_rgb", "pixel_values", "positions", "tower_features", "beside logits", "one_image hidden.norm"],
    ),
];

fn check(device_options: &DeviceOptions, folder: &Path, parts: &[&str], chunk: usize) {
    let tolerance = if device_options.device == Device::Cpu { 1e-4 } else { 2e-4 };
    let mut loaded = device_options.load(&Checkpoint::open(folder).unwrap(), &mut |_| {}).unwrap();
    let golden = Golden::read(folder).unwrap();
    let report = verify(&mut *loaded.model, &golden, VerifyOptions { tolerance, chunk }).unwrap();
    for part in [parts, &["projected", "two_images logits", "one_image greedy"]].concat() {
        assert!(report.checks.iter().any(|check| check.name.ends_with(part)), "{part}: {report}");
    }
    println!("{} on {}, chunk {chunk}\n{report}", folder.display(), loaded.reason);
    assert!(report.ok(), "{} on {}, chunk {chunk}\n{report}", folder.display(), loaded.reason);
}

#[test]
fn goldens_of_pictures() {
    for device_options in machines_and_tiers() {
        for (name, parts) in CHECKPOINTS {
            [usize::MAX, 7].into_iter().for_each(|chunk| check(&device_options, &checkpoint(name), parts, chunk));
        }
    }
}

/// A checkpoint with a tokenizer of single letters.
fn folder(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: PathBuf| std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    for file in ["config.json", "generation_config.json", "preprocessor_config.json", "model.safetensors"] {
        copy(checkpoint(name).join(file));
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

fn ids(engine: &Engine, messages: &[Message], images: &[Image]) -> (Vec<u32>, usize, usize) {
    let completion = engine.chat_with_images(messages, images, &options(6)).unwrap().collect_all().unwrap();
    (completion.ids, completion.summary.usage.prompt_tokens, completion.summary.usage.cached_tokens)
}

#[test]
fn two_pictures_and_a_longer_chat() {
    let folder = folder(CROPS);
    for device_options in machines() {
        let engine = engine(&folder, &device_options);
        let (first, second) = (image(&engine, "rgb.png"), image(&engine, "exif-6.jpg"));
        assert_eq!((first.tokens(), first.grid()), (73, (2, 3)));
        let compare = [Message::user("compare them")];
        let (both, prompt, cached) = ids(&engine, &compare, &[first.clone(), second.clone()]);
        // "<s><|user|>\n", "<s>\n" and "<s>\ncompare them<|end|>\n<|assistant|>\n" of single letters
        let text = 3 + 2 + 18;
        assert_eq!((prompt, cached), (first.tokens() + second.tokens() + text, 0));
        // explicit tags in the text give the same result
        let own = [Message::user("<|image_1|>\n<|image_2|>\ncompare them")];
        assert_eq!(ids(&engine, &own, &[first.clone(), second.clone()]), (both.clone(), prompt, prompt - 1));
        // pictures in another order give another answer, and the first picture is not taken from the cache
        let (swapped, _, cached) = ids(&engine, &compare, &[second.clone(), first.clone()]);
        assert!(swapped != both && cached < 10, "{cached}");
        // the next question does not compute the pictures again
        let (answer, _, _) = ids(&engine, &compare, &[first.clone(), second.clone()]);
        let text = engine.tokenizer().unwrap().decode(&answer, true).unwrap();
        let longer = [own[0].clone(), Message::assistant(text), Message::user("why?")];
        let (more, longer_prompt, cached) = ids(&engine, &longer, &[first.clone(), second.clone()]);
        assert!(cached >= prompt && longer_prompt > cached, "{cached} of {longer_prompt}");
        assert_eq!(more.len(), 6);
    }
}

/// Two pictures and a longer chat, for a model whose tags have no numbers.
#[test]
fn two_whole_pictures_and_a_longer_chat() {
    let folder = folder(PATCHES);
    for device_options in machines() {
        let engine = engine(&folder, &device_options);
        assert_eq!(engine.image_reader().unwrap().tag(), ImageTag::InOrder);
        let (first, second) = (image(&engine, "rgb.png"), image(&engine, "exif-6.jpg"));
        assert_eq!([first.grid(), second.grid()], [(5, 8), (8, 5)]);
        let compare = [Message::user("compare them")];
        let (both, prompt, cached) = ids(&engine, &compare, &[first.clone(), second.clone()]);
        // "<s><|user|>\n", "\n" and "\ncompare them<|end|>\n<|assistant|>\n" of single letters
        let text = 3 + 1 + 17;
        assert_eq!((prompt, cached), (first.tokens() + second.tokens() + text, 0));
        let own = [Message::user("<image>\n<image>\ncompare them")];
        assert_eq!(ids(&engine, &own, &[first.clone(), second.clone()]), (both.clone(), prompt, prompt - 1));
        let (swapped, _, cached) = ids(&engine, &compare, &[second.clone(), first.clone()]);
        assert!(swapped != both && cached < 10, "{cached}");
        // one picture more with the next question: it alone is computed
        let (answer, _, _) = ids(&engine, &compare, &[first.clone(), second.clone()]);
        let text = engine.tokenizer().unwrap().decode(&answer, true).unwrap();
        let longer = [own[0].clone(), Message::assistant(text), Message::user("<image> and this?")];
        let third = image(&engine, "gray.png");
        let (_, longer_prompt, cached) = ids(&engine, &longer, &[first.clone(), second.clone(), third.clone()]);
        assert!(cached >= prompt && longer_prompt > cached + third.tokens(), "{cached} of {longer_prompt}");
        // a tag in an answer is text, and so are tags without pictures
        let svg = [own[0].clone(), Message::assistant("<image>"), Message::user("why?")];
        let (_, with_text, _) = ids(&engine, &svg, &[first.clone(), second.clone()]);
        assert!(with_text > prompt);
        let (_, alone, _) = ids(&engine, &own, &[]);
        assert!(alone < first.tokens() + second.tokens());
        let error = engine.chat_with_images(&own, std::slice::from_ref(&first), &options(1)).err().unwrap();
        assert!(
            error.to_string().contains("<image> of the text: expected one for each picture (1), found 2"),
            "{error}"
        );
    }
}

/// Pictures of all shapes go through the tower: the smallest, the longest, large ones.
#[test]
fn whole_pictures_of_any_shape() {
    let folder = folder(PATCHES);
    let engine = engine(&folder, &on(Device::Cpu));
    let reader = engine.image_reader().unwrap().clone();
    for (width, height, grid) in [
        (1, 1, (3, 3)),
        (1, 5000, (12, 1)),
        (5000, 1, (1, 12)),
        (2, 3, (4, 3)),
        (40, 16, (4, 10)),
        (2000, 1000, (4, 8)),
        (17, 900, (40, 1)),
    ] {
        let rgb = (0..width * height * 3).map(|at: u32| (at * 7 % 251) as u8).collect();
        let picture = Picture::new(width, height, rgb).unwrap();
        let image = reader.prepare("made", &picture).unwrap();
        assert_eq!((image.grid(), image.tokens()), (grid, grid.0 * grid.1), "{width} x {height}");
        assert_eq!(ids(&engine, &[Message::user("who?")], &[image]).0.len(), 6);
    }
}

#[test]
fn a_turned_picture_is_the_upright_one() {
    let folder = folder(CROPS);
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
    let folder = folder(CROPS);
    let engine = engine(&folder, &on(Device::Cpu));
    let reader = engine.image_reader().unwrap().clone();
    let broken = reader.read(&data("oracle/family/images/cut.png")).unwrap_err().to_string();
    assert!(broken.contains("cut.png") && broken.contains("hint: "), "{broken}");
    let missing = reader.read("nowhere.png".as_ref()).unwrap_err().to_string();
    assert!(missing.contains("nowhere.png"), "{missing}");
    let picture = image(&engine, "rgb.png");
    let question = [Message::user("<|image_2|> who?")];
    let refused = |messages: &[Message], images: &[Image]| match engine.chat_with_images(
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

    let text = Engine::builder().device(Device::Cpu).build().unwrap();
    let error = text.chat_with_images(&[Message::user("who?")], &[picture], &GenerateOptions::default());
    assert!(error.err().unwrap().to_string().contains("a model with a vision tower"));
    // without pictures a tag is text
    assert!(text.chat(&question, &GenerateOptions::default()).is_ok());

    for (engine, words) in [(engine, "values of a picture"), (text, "reads text only")] {
        let encoded =
            engine.with_model(|model| model.encode_image(&TowerInput { values: &[0.0; 12], grid: (1, 1) }, None));
        let error = encoded.unwrap().unwrap_err();
        assert!(matches!(error, Error::Request { .. }) && error.to_string().contains(words), "{error}");
    }
}

/// A prompt with a picture longer than LongRoPE's original context: cached rows are computed again with the other factors.
#[test]
fn pictures_survive_the_rope_switch() {
    for device_options in machines() {
        let mut loaded = device_options.load(&Checkpoint::open(&checkpoint(CROPS)).unwrap(), &mut |_| {}).unwrap();
        let model = &mut *loaded.model;
        let values: Vec<f32> = (0..7 * 3 * 42 * 42).map(|i| (i % 97) as f32 / 50.0 - 0.9).collect();
        let features = model.encode_image(&TowerInput { values: &values, grid: (2, 3) }, None).unwrap();
        let mut inputs: Vec<Input> = [1u32, 5, 9].iter().map(Input::from).collect();
        inputs.extend(features.inputs());
        assert_eq!(inputs.len(), 76);
        let tokens: Vec<u32> = (0..30).map(|i| (i * 7 + 3) % 96).collect();
        inputs.extend(tokens.iter().map(Input::from));
        // all at once with the long factors, compared with token by token across the limit of 96
        let want = logits(model, &inputs, usize::MAX, RopePolicy::Exact, None).unwrap();
        let want = &want[want.len() - 96..];
        let mut session = phi3_model::Session::new(model);
        let mut sequence = session.sequence();
        let mut row = Vec::new();
        let settings = phi3_model::PrefillOptions {
            chunk: 40,
            policy: RopePolicy::Exact,
            budget: 0,
            outputs: phi3_model::Outputs::Last,
        };
        for part in [&inputs[..80], &inputs[80..95], &inputs[95..100], &inputs[100..]] {
            let watch = &mut |_| std::ops::ControlFlow::Continue(());
            session.prefill(&mut sequence, part, settings, &mut row, None, watch).unwrap();
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
    assert_eq!((vision.heads.head_dim, vision.heads.rotary_dim, vision.token_width()), (64, 0, 4096));
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

/// Phi-4-reasoning-vision: fields that published files leave out, and values that are refused.
#[test]
fn the_configuration_of_a_whole_picture_s_tower() {
    let path = checkpoint(PATCHES).join("config.json");
    let small: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let read = |json: &serde_json::Value| ModelSpec::parse(&path, json.to_string().as_bytes());
    let vision = read(&small).unwrap().vision.unwrap();
    assert_eq!((vision.layers, vision.positions(), vision.tokens(3, 7), vision.pooling_head), (3, 25, 21, true));
    let mut bare = small.clone();
    bare["vision_config"] = serde_json::json!({"hidden_size": 24, "num_attention_heads": 2});
    let vision = read(&bare).unwrap().vision.unwrap();
    assert_eq!((vision.patch_size, vision.positions(), vision.layers, vision.inner), (16, 256, 11, 3072));
    bare["mm_vision_tower"] = "google/siglip2-so400m-patch14-naflex".into();
    for field in ["min_num_patches", "max_num_patches", "mm_projector_type", "mm_hidden_size"] {
        bare.as_object_mut().unwrap().remove(field);
    }
    let vision = read(&bare).unwrap().vision.unwrap();
    let published = PictureSpec::Whole { min_patches: 256, max_patches: 3600, table: 16 };
    assert_eq!((vision.patch_size, vision.picture), (14, published));
    for (field, value) in [
        ("hidden_size", 25.into()),
        ("hidden_act", "relu".into()),
        ("num_channels", 1.into()),
        ("num_patches", 24.into()),
        ("num_hidden_layers", 1.into()),
        ("patch_size", 0.into()),
        ("layer_norm_eps", 0.into()),
        ("model_type", "siglip_vision_model".into()),
        ("vision_use_head", 1.into()),
    ] {
        let mut json = small.clone();
        json["vision_config"][field] = value;
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains("vision_config.") && error.contains("hint: "), "{field}: {error}");
    }
    for (field, value) in [
        ("mm_vision_tower", "google/siglip-so400m-patch14-384".into()),
        ("mm_vision_tower", serde_json::Value::Null),
        ("mm_projector_type", "linear".into()),
        ("mm_hidden_size", 25.into()),
        ("mm_vision_select_layer", (-1).into()),
        ("min_num_patches", 41.into()),
        ("max_num_patches", 0.into()),
        ("max_num_patches", (1u64 << 40).into()),
        ("use_s2", true.into()),
        ("vision_config", 3.into()),
        ("vision_config", serde_json::Value::Null),
        ("architectures", serde_json::json!(["Phi3ForCausalLM"])),
    ] {
        let mut json = small.clone();
        json[field] = value;
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains("hint: "), "{field}: {error}");
    }
}

/// `preprocessor_config.json` beside the weights: steps and sizes that are not the model's are refused.
#[test]
fn preparation_that_is_not_the_model_s() {
    let folder = folder(PATCHES);
    let path = folder.path().join("preprocessor_config.json");
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let build = || Engine::builder().model(folder.path()).device(Device::Cpu).build();
    for (field, value) in [
        ("patch_size", 8.into()),
        ("max_num_patches", 41.into()),
        ("min_num_patches", "12".into()),
        ("resample", 3.into()),
        ("do_resize", false.into()),
        ("do_normalize", false.into()),
        ("rescale_factor", 1.0.into()),
        ("image_mean", serde_json::json!([0.5, 0.5])),
    ] {
        let mut json = good.clone();
        json[field] = value;
        std::fs::write(&path, json.to_string()).unwrap();
        let error = build().err().unwrap().to_string();
        assert!(error.contains(field) && error.contains("preprocessor_config.json"), "{field}: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    let engine = build().unwrap();
    assert_eq!(image(&engine, "rgb.png").grid(), (5, 8));
    let unused = engine.notes().iter().filter(|note| note.contains("last layer but one")).count();
    assert_eq!(unused, 1);
}

/// Values and grids that do not fit the tower are refused.
#[test]
fn values_of_other_pictures() {
    let mut loaded = on(Device::Cpu).load(&Checkpoint::open(&checkpoint(PATCHES)).unwrap(), &mut |_| {}).unwrap();
    let values = vec![0.0; 41 * 48];
    for (count, grid) in
        [(48 * 6, (2, 4)), (0, (0, 4)), (48 * 41, (41, 1)), (48, (usize::MAX, 2)), (48 * 4, (usize::MAX, 0))]
    {
        let error = loaded.model.encode_image(&TowerInput { values: &values[..count], grid }, None).unwrap_err();
        assert!(error.to_string().contains("at most 40 patches"), "{grid:?}: {error}");
    }
    assert_eq!(
        loaded.model.encode_image(&TowerInput { values: &values[..48 * 40], grid: (40, 1) }, None).unwrap().tokens(),
        40
    );
}

/// A weight file that lacks a tensor of the tower, or has one of another shape, is refused.
#[test]
fn tensors_that_are_not_the_tower_s() {
    let folder = checkpoint(PATCHES);
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tower = "model.vision_tower.vision_tower.vision_model.";
    for (name, shape) in [
        (format!("{tower}embeddings.patch_embedding.weight"), None),
        (format!("{tower}embeddings.patch_embedding.bias"), Some(vec![12, 2])),
        (format!("{tower}embeddings.patch_embedding.weight"), Some(vec![24, 3, 4, 4])),
        (format!("{tower}embeddings.position_embedding.weight"), Some(vec![24, 25])),
        (format!("{tower}encoder.layers.2.layer_norm2.bias"), None),
        (format!("{tower}encoder.layers.1.self_attn.k_proj.weight"), None),
        ("model.mm_projector.0.weight".into(), Some(vec![24, 32])),
        ("model.mm_projector.2.bias".into(), None),
    ] {
        let views = tensors.iter().filter_map(|(found, view)| match (found == name, &shape) {
            (false, _) => Some((found, view)),
            (true, None) => None,
            (true, Some(shape)) => {
                let view = safetensors::tensor::TensorView::new(view.dtype(), shape.clone(), view.data());
                Some((found, view.unwrap()))
            }
        });
        let changed = safetensors::serialize(views, None).unwrap();
        let loaded = Checkpoint::from_memory("changed", &config, changed)
            .map_err(Into::into)
            .and_then(|checkpoint| on(Device::Cpu).load(&checkpoint, &mut |_| {}));
        let error = loaded.err().unwrap_or_else(|| panic!("{name} {shape:?}: loaded")).to_string();
        assert!(error.contains(&name) && error.contains("expected"), "{name}: {error}");
    }
    // a file without the unused tensors loads
    let used =
        |name: &str| !name.contains(".layers.3.") && !name.contains(".head.") && !name.contains("post_layernorm");
    let used = safetensors::serialize(tensors.iter().filter(|(name, _)| used(name)), None).unwrap();
    let checkpoint = Checkpoint::from_memory("used", &config, used).unwrap();
    assert_eq!(checkpoint.notes(), [] as [&str; 0]);
    assert!(on(Device::Cpu).load(&checkpoint, &mut |_| {}).is_ok());
}
