use crate::{Ran, ask, files, run, run_with};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn picture(name: &str) -> String {
    data("oracle/family/images").join(name).display().to_string()
}

/// A tiny Phi-3-vision with a tokenizer of single letters.
fn model() -> TempDir {
    model_of("phi-3-vision-6")
}

/// A tiny vision model with that tokenizer.
fn model_of(name: &str) -> TempDir {
    let folder = files::folder();
    let weights = data("oracle/family/checkpoints").join(name);
    let copy = |from: PathBuf| fs::copy(&from, folder.path().join(from.file_name().unwrap())).expect("a copy");
    for file in ["config.json", "generation_config.json", "preprocessor_config.json", "model.safetensors"] {
        copy(weights.join(file));
    }
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        copy(data("tokenizer/tiny").join(file));
    }
    folder
}

fn images(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().filter_map(|line| line.strip_prefix("image    ")).collect()
}

#[test]
fn a_question_about_two_pictures() {
    let (model, out) = (model(), files::folder());
    let (first, second) = (picture("rgb.png"), picture("exif-6.jpg"));
    let grid = out.path().join("grid.png").display().to_string();
    let more = ["-n", "4", "--image", &first, "--image", &second, "--explain-image", &grid];
    let both = ask(model.path(), "compare", &more).ok();
    assert_eq!(
        images(&both),
        [
            format!("{first}: 44 x 27 pixels, 2 x 3 crops, 73 tokens"),
            format!("{second}: 27 x 44 pixels, 3 x 2 crops, 76 tokens")
        ]
    );
    // <s>, tags and line breaks around "compare"
    assert_eq!(both.prompt_tokens(), 73 + 76 + 18);
    for name in ["grid-1.png", "grid-2.png"] {
        assert!(fs::read(out.path().join(name)).unwrap().starts_with(b"\x89PNG"), "{name}");
    }
    assert!(!out.path().join("grid.png").exists());
    // fewer crops, and the orientation in the file ignored
    let few = ask(model.path(), "compare", &["-n", "1", "--image", &second, "--max-crops", "1", "--no-exif"]).ok();
    assert_eq!(images(&few), [format!("{second}: 44 x 27 pixels, 1 x 1 crops, 25 tokens")]);
    // in a text without tags, they are added at the front
    let generate = |prompt: &str| {
        let model = model.path().display().to_string();
        let args = ["generate", "-m", &model, "--device", "cpu", "--greedy", "-n", "5", "--json", "--image", &first];
        let json = run(&[&args[..], &["--prompt", prompt]].concat()).ok().stdout;
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["ids"].clone()
    };
    assert_eq!(generate("who?"), generate("<|image_1|>\nwho?"));
}

#[test]
fn a_picture_in_a_chat() {
    let model = model();
    let first = picture("rgb.png");
    let folder = model.path().display().to_string();
    let typed = format!("/image {first}\nwho?\nwhy?\n/image nowhere.png\n");
    // one set of rope factors for both questions, so that the cache is not computed again between them
    let args = ["chat", "-m", &folder, "--device", "cpu", "--greedy", "-n", "3", "--longrope", "long"];
    let ran = run_with(&args, Some(typed.as_bytes()));
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.lines().last().unwrap().contains("nowhere.png"), "{}", ran.stderr);
    assert_eq!(images(&ran).len(), 1);
    let prompts: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("prompt ")).collect();
    assert_eq!(prompts.len(), 2, "{}", ran.stderr);
    // the picture is not computed again
    assert!(prompts[0].contains("tokens,") && prompts[1].contains("from the cache"), "{prompts:?}");
}

#[test]
fn pictures_that_cannot_be_read() {
    let model = model();
    ask(model.path(), "who?", &["--image", &picture("cut.png")]).error(&["cut.png", "hint: "]);
    ask(model.path(), "who?", &["--image", "nowhere.png"]).error(&["nowhere.png", "hint: "]);
    ask(model.path(), "<|image_2|> who?", &["--image", &picture("rgb.png")]).error(&["from 1 to 1", "found 2"]);
    ask(model.path(), "<|image_1|> who?", &[]).error(&["no picture", "hint: "]);
    let blind = files::demo();
    ask(blind.path(), "who?", &["--image", &picture("rgb.png")]).error(&["a model with a vision tower", "hint: "]);
}

/// A model that takes pictures whole, and whose tags have no numbers.
#[test]
fn whole_pictures() {
    let (model, out) = (model_of("phi-4-reasoning-vision"), files::folder());
    let (first, second) = (picture("rgb.png"), picture("exif-6.jpg"));
    let grid = out.path().join("grid.png").display().to_string();
    let both =
        ask(model.path(), "compare", &["-n", "4", "--image", &first, "--image", &second, "--explain-image", &grid]);
    let both = both.ok();
    assert_eq!(
        images(&both),
        [
            format!("{first}: 44 x 27 pixels, 5 x 8 patches, 40 tokens"),
            format!("{second}: 27 x 44 pixels, 8 x 5 patches, 40 tokens")
        ]
    );
    // <s>, and line breaks around "compare"
    assert_eq!(both.prompt_tokens(), 40 + 40 + 16);
    assert!(fs::read(out.path().join("grid-2.png")).unwrap().starts_with(b"\x89PNG"));
    ask(model.path(), "who?", &["--image", &first, "--max-crops", "4"]).error(&["--max-crops", "takes them whole"]);
    ask(model.path(), "<image><image> who?", &["--image", &first]).error(&["picture (1)", "found 2", "hint: "]);
    ask(model.path(), "<image> who?", &["-n", "1"]).ok();

    // each picture of a chat is in the question that shows it; a second one does not compute the first again
    let folder = model.path().display().to_string();
    let typed = format!("/image {first}\nwho?\n/image {second}\n<image> and this?\nwhy?\n");
    let ran = run_with(&["chat", "-m", &folder, "--device", "cpu", "--greedy", "-n", "3"], Some(typed.as_bytes())).ok();
    assert_eq!(images(&ran).len(), 2);
    let prompts: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("prompt ")).collect();
    assert_eq!(prompts.len(), 3, "{}", ran.stderr);
    assert!(prompts[1..].iter().all(|prompt| prompt.contains("from the cache")), "{prompts:?}");
}
