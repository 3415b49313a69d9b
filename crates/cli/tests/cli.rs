//! The program's output, errors and exit codes.

#[path = "cli/logprobs.rs"]
mod logprobs;
#[path = "cli/parallel.rs"]
mod parallel;
#[cfg(feature = "server")]
#[path = "cli/serve.rs"]
mod serve;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn phi3_run(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3-run"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    phi3_run(args).output().expect("the binary starts")
}

fn with_input(args: &[&str], input: &[u8]) -> Output {
    let mut command = phi3_run(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    child.stdin.take().expect("piped").write_all(input).expect("the binary reads");
    child.wait_with_output().expect("the binary ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text is UTF-8")
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn checkpoint(name: &str) -> String {
    data("oracle/checkpoints").join(name).display().to_string()
}

/// Asserts exit code 2, no standard output, and a last line that begins with "error:" and has all `words` and a hint.
fn assert_error(output: &Output, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty());
    let error = text.lines().last().unwrap_or("");
    assert!(error.starts_with("error: ") && !text.contains("panicked"), "{text}");
    assert!(error.contains("hint: ") || error.contains("expected"), "{text}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {text}");
    }
}

const WHO: &str = "I am a tiny Phi-3 model with about 4 million parameters. I can tell little stories, do small sums \
                   and answer simple questions.\n";

#[test]
fn a_question_is_answered_on_stdout_and_the_rest_goes_to_stderr() {
    let output = output(&["--device", "cpu", "--greedy", "Who are you?"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), WHO));
    let notes = stderr(&output);
    for word in ["device   CPU", "prompt   7 tokens", "decode   34 tokens", "tokens/s"] {
        assert!(notes.contains(word), "{notes}");
    }
}

#[test]
fn several_words_files_and_standard_input_are_prompts_too() {
    let args = ["--device", "cpu", "--greedy", "--quiet"];
    let words = output(&[&args[..], &["Who", "are", "you?"]].concat());
    assert_eq!((stdout(&words).as_str(), stderr(&words).as_str()), (WHO, ""));
    assert_eq!(stdout(&with_input(&args, b"Who are you?\n")), WHO);
    assert_eq!(stdout(&with_input(&[&args[..], &["-"]].concat(), b"Who are you?")), WHO);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Who are you?\r\n").unwrap();
    assert_eq!(stdout(&output(&[&args[..], &["-f", &file.path().display().to_string()]].concat())), WHO);
}

#[test]
fn a_seed_is_printed_and_repeats_the_answer() {
    let ask = |seed: &str| output(&["--device", "cpu", "--seed", seed, "-n", "30", "Tell me a story."]);
    let (first, second) = (ask("11"), ask("11"));
    assert!(stderr(&first).contains("seed     11"));
    assert_eq!(first.stdout, second.stdout);
    assert_ne!(first.stdout, ask("12").stdout);
}

#[test]
fn generate_prints_one_json_object() {
    let model = checkpoint("phi-3-mini-4k");
    let args = ["generate", "--model", &model, "--device", "cpu", "--ids", "5, 7 11", "--max-tokens", "6", "--greedy"];
    let output = output(&[&args[..], &["--ignore-eos", "--json"]].concat());
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["ids"].as_array().unwrap().len(), 6);
    assert_eq!((&object["finish_reason"], &object["text"]), (&"length".into(), &serde_json::Value::Null));
    assert_eq!(object["usage"]["prompt_tokens"], 3);
    assert_eq!(object["usage"]["completion_tokens"], 6);
    assert!(object["timings"]["decode_per_second"].as_f64().unwrap() > 0.0);
    assert!(object["device"].as_str().unwrap().contains("CPU"));
}

#[test]
fn generate_continues_text_and_stops() {
    let args = [
        "generate",
        "--device",
        "cpu",
        "--greedy",
        "--json",
        "--prompt",
        "<|user|>\nWho are you?<|end|>\n<|assistant|>\n",
    ];
    let object: serde_json::Value = serde_json::from_slice(&output(&args).stdout).unwrap();
    assert_eq!(format!("{}\n", object["text"].as_str().unwrap()), WHO);
    assert_eq!(object["finish_reason"], "stop");
    assert_eq!(object["ids"].as_array().unwrap().last().unwrap(), 2087);
    let raw = output(&[&args[..4], &["--raw", "--quiet"], &args[5..]].concat());
    assert!(stdout(&raw).ends_with("<|end|>\n"), "{}", stdout(&raw));
    let none = output(&[&args[..], &["--max-tokens", "0"]].concat());
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&none.stdout).unwrap()["finish_reason"], "length");
}

#[test]
fn the_memory_of_the_cache_is_a_limit() {
    let ask = |memory: &str| {
        output(&["--device", "cpu", "--greedy", "-n", "40", "--cache-memory", memory, "Tell me a story."])
    };
    assert_eq!(ask("64M").status.code(), Some(0));
    let long = "word ".repeat(100);
    let refused = output(&["--device", "cpu", "--cache-memory", "1K", &long]);
    assert_error(&refused, &["pages of the KV cache", "(--cache-memory gives the cache more)"]);
    assert_error(&ask("much"), &["--cache-memory", "128M"]);
}

#[test]
fn logits_are_written_as_the_oracle_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.safetensors").display().to_string();
    let model = checkpoint("phi-4-mini");
    let args = ["logits", "--model", &model, "--device", "cpu", "--ids", "1 2 3 4 5", "--hidden", "--out", &file];
    for chunk in [&[][..], &["--chunk", "2"]] {
        assert_eq!(output(&[&args[..], chunk].concat()).status.code(), Some(0));
        let bytes = std::fs::read(&file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("logits").unwrap().shape(), [5, 512]);
        for name in ["hidden.0", "hidden.1", "hidden.2", "hidden.3", "hidden.norm"] {
            assert_eq!(tensors.tensor(name).unwrap().shape(), [5, 96]);
        }
    }
}

#[test]
fn verify_passes_and_fails_with_exit_codes() {
    let (model, other) = (checkpoint("phi-3-medium-4k"), checkpoint("phi-3-mini-4k"));
    let good = output(&["verify", "--model", &model, "--device", "cpu", "--chunk", "7"]);
    assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
    assert!(stdout(&good).contains("all 24 ids agree") && stdout(&good).contains("all checks passed"));
    let bad = output(&["verify", "--model", &model, "--golden", &other, "--device", "cpu"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(stdout(&bad).contains("FAILED") && stdout(&bad).contains("first that differs: mid hidden.0"));
}

#[test]
fn tokenize_and_render_need_the_tokenizer_only() {
    let model = data("tokenizer/phi-3").display().to_string();
    assert_eq!(stdout(&output(&["tokenize", "--model", &model, "Hello, world!"])), "15043 29892 3186 29991\n");
    let json = with_input(&["tokenize", "--model", &model, "--json"], "Grüße".as_bytes());
    let object: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(object["decoded"], "Grüße");
    let lines = with_input(&["tokenize", "--model", &model, "--jsonl"], b"\"a\\nb\"\n\"<|end|> x\"\n\"\"\n");
    let decoded: Vec<String> = stdout(&lines)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["decoded"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(decoded, ["a\nb", "<|end|> x", ""]);
    let messages = br#"[{"role": "user", "content": "Hi"}]"#;
    let render = with_input(&["render", "--model", &model, "-"], messages);
    assert_eq!(stdout(&render), "<|user|>\nHi<|end|>\n<|assistant|>\n");
    let without = with_input(&["render", "--model", &model, "--no-generation-prompt", "-"], messages);
    assert_eq!(stdout(&without), "<|user|>\nHi<|end|>\n<|endoftext|>");
}

#[test]
fn a_chat_has_turns_and_commands() {
    let script = b"My name is Ada.\nWhat is my name?\n/undo\n/nonsense\n/reset\nWhat is 47 + 38?\n/quit\n";
    let output = with_input(&["chat", "--device", "cpu", "--greedy"], script);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].contains("Ada") && lines[2] == "47 + 38 = 85.", "{lines:?}");
    let notes = stderr(&output);
    assert!(notes.contains("from the cache") && notes.contains("/nonsense is not a command"), "{notes}");
}

#[test]
fn a_plan_counts_every_byte() {
    let plan = |more: &[&str]| -> serde_json::Value {
        let output = output(&[&["plan", "--device", "cpu", "--context", "1000", "--json"], more].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)))
    };
    let own = plan(&[]);
    // the demo: 3,943,168 values in bf16, of which 11 norms of 256 are widened to f32
    assert_eq!(own["weights"], 2 * (3_943_168 - 11 * 256) + 4 * 11 * 256);
    assert_eq!(own["mapped"], 2 * (3_943_168 - 11 * 256));
    assert_eq!(own["cache_per_token"], 5 * 2 * 2 * 32 * 2);
    assert_eq!(own["cache"], 1008 * 5 * 2 * 2 * 32 * 2);
    assert_eq!(own["fits"], true);
    let small = plan(&["--quant", "q8_0", "--kv", "f32"]);
    assert_eq!((&small["mapped"], &small["cache_per_token"]), (&0.into(), &(5 * 2 * 2 * 32 * 4).into()));
    assert!(small["weights"].as_u64() < own["weights"].as_u64());
    let shown = output(&["plan", &checkpoint("phi-4"), "--device", "cpu"]);
    assert!(stdout(&shown).contains("weights") && stdout(&shown).contains("cache"), "{}", stderr(&shown));
    assert_error(&output(&["plan", "--context", "5000"]), &["5000", "4096"]);
}

#[test]
fn quantized_files_are_written_inspected_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("demo.gguf").display().to_string();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/model").display().to_string();
    let written = output(&["quantize", &demo, &file, "--type", "q8_0"]);
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    let shown = stdout(&output(&["inspect", &file]));
    for word in ["general.architecture", "Q8_0", "blk.4.ffn_down.weight", "bits a value"] {
        assert!(shown.contains(word), "{shown}");
    }
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["general.architecture", "phi3"])), "{shown}");
    let json: serde_json::Value = serde_json::from_slice(&output(&["inspect", &file, "--json"]).stdout).unwrap();
    let metadata = &json["metadata"];
    assert_eq!((&metadata["general.architecture"], &metadata["general.file_type"]), (&"phi3".into(), &7.into()));
    assert_eq!(metadata["phi3.attention.layer_norm_rms_epsilon"], 1e-5);
    let tokens = &metadata["tokenizer.ggml.tokens"];
    assert_eq!((&tokens["type"], &tokens["length"]), (&"string".into(), &2112.into()));
    assert_eq!(tokens["first"].as_array().map(Vec::len), Some(16));
    let answer = output(&["--model", &file, "--device", "cpu", "--greedy", "-q", "Who are you?"]);
    assert_eq!(stdout(&answer), WHO);
    let heldout = Path::new(&demo).join("heldout.txt").display().to_string();
    let score = output(&[
        "perplexity",
        "--device",
        "cpu",
        "--activations",
        "f32",
        "-q",
        "--against",
        &file,
        "--json",
        &heldout,
    ]);
    let score: serde_json::Value = serde_json::from_slice(&score.stdout).unwrap();
    assert!((score["score"]["perplexity"].as_f64().unwrap() - 1.471665).abs() < 5e-5, "{score}");
    assert!(score["against"]["kl_mean"].as_f64().unwrap() < 1e-4, "{score}");
    assert_error(&output(&["quantize", &demo, &file, "--type", "q9"]), &["q9"]);
}

#[test]
fn devices_are_listed() {
    let output = output(&["devices"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("cpu    CPU ("));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = phi3_run(&["--device", "cpu", "-n", "200", "--ignore-eos", "Tell me a story about a fox."])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("error"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_cleanly_with_statistics() {
    use std::io::{BufRead, BufReader, Read};
    let mut child = phi3_run(&["generate", "--device", "cpu", "--ignore-eos", "--prompt", "Once upon a time"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    notes.read_line(&mut line).unwrap();
    let mut first = [0u8; 20];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    notes.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(line.contains("ended    interrupted") && line.contains("decode   "), "{line}");
}

#[test]
fn bad_input_is_one_line_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    assert_error(&output(&["--model", &path("nowhere"), "Hi"]), &["config.json", "nowhere"]);

    let bad = |case: &str| data("oracle/bad/safetensors").join(case).display().to_string();
    let generate = |model: &str, more: &[&str]| {
        output(
            &[&["generate", "--model", model, "--device", "cpu", "--ids", "1 2", "--max-tokens", "2"], more].concat(),
        )
    };
    assert_error(&generate(&bad("truncated"), &[]), &["model.safetensors"]);
    assert_error(&generate(&bad("nan"), &[]), &["model.layers.0.mlp.down_proj.weight"]);
    assert_error(&generate(&bad("config-hidden-act-unknown"), &[]), &["config.json", "hidden_act", "relu6"]);
    assert_error(&generate(&bad("no-weights"), &[]), &["model.safetensors"]);
    let out = path("nan.safetensors");
    let logits = output(&["logits", "--model", &bad("nan"), "--device", "cpu", "--ids", "1", "--out", &out]);
    assert_error(&logits, &["model.layers.0.mlp.down_proj.weight"]);

    let model = checkpoint("phi-3.5-mini");
    let long = vec!["5"; 1025].join(" ");
    let ids = |ids: &str| output(&["generate", "--model", &model, "--device", "cpu", "--ids", ids]);
    assert_error(&ids(&long), &["1025 tokens", "1024"]);
    assert_error(&ids("1 384"), &["384", "vocab_size"]);
    assert_error(&ids("1 x"), &["--ids", "x"]);
    assert_error(&ids(" "), &["empty"]);
    let text = output(&["generate", "--model", &model, "--device", "cpu", "--prompt", "Hi"]);
    assert_error(&text, &["tokenizer.json"]);

    assert_error(&output(&["--device", "cpu", ""]), &["prompt is empty"]);
    assert_error(&with_input(&["--device", "cpu"], b" \n"), &["prompt is empty"]);
    assert_error(&with_input(&["--device", "cpu"], b"caf\xe9"), &["UTF-8"]);
    std::fs::write(path("latin1"), b"caf\xe9").unwrap();
    assert_error(&output(&["--device", "cpu", "-f", &path("latin1")]), &["latin1", "UTF-8"]);
    assert_error(&output(&["--device", "cpu", "-f", &path("missing")]), &["missing"]);
    assert_error(&output(&["--device", "cpu", "--top-p", "7", "Hi"]), &["top_p"]);
    assert_error(&output(&["--device", "gpu:99", "Hi"]), &["99", "(--device takes cpu"]);
    assert_error(&output(&["--device", "no such card", "Hi"]), &["no such card"]);
    assert_error(&output(&["verify", "--model", &bad("base"), "--device", "cpu"]), &["golden"]);
    assert_error(&output(&["tokenize", "--model", &bad("base"), "x"]), &["tokenizer.json"]);
    std::fs::write(path("messages.json"), "{}").unwrap();
    assert_error(&output(&["render", &path("messages.json")]), &["messages.json"]);
    std::fs::write(path("messages.json"), r#"[{"role": "user", "content": "Hi"}]"#).unwrap();
    let hostile = ["{{ '%999999999999d'|format(5) }}".into(), format!("{{{{ {}1 }}}}", "-".repeat(100_000))];
    for template in hostile {
        let config = serde_json::json!({ "chat_template": template }).to_string();
        std::fs::write(path("tokenizer_config.json"), config).unwrap();
        let render = output(&["render", "--model", &folder.path().display().to_string(), &path("messages.json")]);
        assert!(render.status.code().is_some_and(|code| code == 0 || code == 2), "{}", stderr(&render));
        assert!(!stderr(&render).contains("panicked"), "{}", stderr(&render));
    }
    assert_error(&output(&["--threads", "0", "Hi"]), &["--threads"]);
    assert_error(&output(&["-f", "x", "Hi"]), &["--file"]);
    assert_error(&output(&["verify", "--model", &model, "--longrope", "long"]), &["--longrope"]);
    let nowhere = path("no/such/folder/out.safetensors");
    assert_error(&output(&["logits", "--device", "cpu", "--ids", "1", "--out", &nowhere]), &["out.safetensors"]);
}

/// A Vulkan loader without a driver, as on a machine without a GPU.
#[cfg(target_os = "linux")]
#[test]
fn no_adapter_is_an_error_for_gpu_and_the_cpu_for_auto() {
    let without = |args: &[&str]| {
        phi3_run(args).env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent").output().unwrap()
    };
    assert_error(&without(&["--device", "gpu", "Hi"]), &["no GPU adapter"]);
    let auto = without(&["--greedy", "Who are you?"]);
    assert_eq!(stdout(&auto), WHO);
    assert!(stderr(&auto).contains("no real GPU"), "{}", stderr(&auto));
}

#[test]
fn unknown_flags_are_usage_errors() {
    let output = output(&["--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
    assert_error(&output, &["--no-such-flag"]);
    // options before a command
    let before = self::output(&["--device", "cpu", "-q", "generate", "--prompt", "Once upon a time", "-n", "3"]);
    assert_eq!(before.status.code(), Some(0), "{}", stderr(&before));
    assert!(before.stdout.len() < 60);
    // options before a command of two words
    let two = self::output(&["--device", "nowhere", "bench", "kernels", "--rows", "1"]);
    assert_error(&two, &["nowhere"]);
    assert_error(&self::output(&["--device", "cpu", "devices"]), &["--device"]);
    let tier = self::output(&["--device", "cpu", "--tier", "coop", "Hi"]);
    assert_error(&tier, &["tier: expected a GPU", "coop", "(phi3-run --help describes --tier)"]);
    assert_error(&self::output(&["plan", "--device", "cpu", "--tier", "base"]), &["--tier", "base"]);
    assert_eq!(self::output(&["--help"]).status.code(), Some(0));
    assert_eq!(self::output(&["--version"]).status.code(), Some(0));
}

/// On the CPU, and on a GPU if there is one.
#[test]
fn a_profile_is_a_table_an_object_and_a_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let svg = folder.path().join("flame.svg").display().to_string();
    for device in ["cpu", "gpu"] {
        let size = ["--device", device, "-p", "9", "-n", "2"];
        let table = output(&[&["profile", "--svg", &svg][..], &size].concat());
        if device == "gpu" && stderr(&table).contains("no GPU adapter") {
            println!("skipped on the GPU: {}", stderr(&table));
            continue;
        }
        assert_eq!(table.status.code(), Some(0), "{}", stderr(&table));
        let text = stdout(&table);
        for words in [
            "limits: ",
            "prompt: tokens 9, passes 1",
            "decode: tokens 2, passes 2",
            "\nmlp.down_proj ",
            "\nattention ",
            "\nlm_head ",
        ] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
        let picture = std::fs::read_to_string(&svg).expect("a picture");
        assert!(picture.starts_with("<svg ") && picture.contains("<title>layer 4: ") && picture.ends_with("</svg>\n"));

        let object = output(&[&["profile", "--json"][..], &size].concat());
        let object: serde_json::Value = serde_json::from_str(&stdout(&object)).expect("JSON");
        let parts = object["decode"]["parts"].as_array().expect("parts");
        // five operations a layer, the embedding and the head
        assert_eq!(parts.len(), 5 * 5 + 2);
        assert!(parts.iter().all(|part| part["calls"] == 2 && part["seconds"].as_f64().is_some_and(|s| s >= 0.0)));
    }
    let nowhere = folder.path().join("no/such.svg").display().to_string();
    let error = output(&["profile", "--device", "cpu", "-p", "2", "-n", "0", "--svg", &nowhere]);
    assert_error(&error, &["no/such.svg"]);
    assert_error(&output(&["profile", "--device", "cpu", "-p", "999999"]), &["prompt too long"]);
}

fn kernels(args: &[&str]) -> Output {
    let tiny = checkpoint("phi-3-mini-4k");
    output(&[&["bench", "kernels", "-m", &tiny, "--rows", "1,3", "--context", "40", "-r", "2"], args].concat())
}

/// On the CPU, and on a GPU if there is one.
#[test]
fn bench_kernels_has_a_row_for_every_operation_type_and_number_of_rows() {
    let with_weights = ["embed", "qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"];
    for device in ["cpu", "gpu"] {
        let output = kernels(&["--device", device, "--type", "f16,q4_0", "-o", "json"]);
        if device == "gpu" && stderr(&output).contains("no GPU adapter") {
            println!("skipped on the GPU: {}", stderr(&output));
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        let has = |op: &str, kind: &str, count: u64| {
            rows.iter().filter(|row| row["op"] == op && row["type"] == kind && row["rows"] == count).count() == 1
        };
        for count in [1, 3] {
            for op in with_weights {
                assert!(has(op, "f16", count) && has(op, "q4_0", count), "{op}, {count} rows");
            }
            assert!(has("norm", "f32", count) && has("attention", "f16", count));
        }
        // tokens are sampled from one row
        assert_eq!(rows.len(), 2 * (2 * with_weights.len() + 2) + 2);
        for row in &rows {
            let positive = |name: &str| row[name].as_f64().is_some_and(|value| value > 0.0 && value.is_finite());
            let numbers = ["us", "bytes", "gb_per_s", "percent_of_bandwidth", "limit_gb_per_s", "limit_gflop_per_s"];
            assert!(numbers.into_iter().all(positive), "{row:#}");
            // operations without products have no rate
            let multiplies = !["embed", "argmax", "sample"].iter().any(|op| row["op"] == *op);
            assert_eq!(multiplies, positive("percent_of_rate"), "{row:#}");
            assert!(row["error"].is_null() && row["clock"].is_string() && !row["bound"].is_null(), "{row:#}");
        }
    }
}

#[test]
fn bench_kernels_takes_a_model_s_own_types_and_says_what_it_cannot_measure() {
    // rows of 192 values are not whole blocks of 256
    let table = stdout(&kernels(&["--device", "cpu", "--type", "q4_k"]));
    assert!(table.contains("limits: ") && table.contains("| o_proj       | [192, 192]"), "{table}");
    assert_eq!(table.matches("not measured: tensor ").count(), 10, "{table}");
    let own = stdout(&kernels(&["--device", "cpu", "-o", "csv"]));
    assert_eq!(own.lines().count(), 1 + 2 * 8 + 2, "{own}");
    assert_eq!(own.matches("\"bf16\"").count(), 2 * 6, "{own}");
    // columns have number types although the first row has no numbers
    let sql = stdout(&kernels(&["--device", "cpu", "--type", "q4_k", "-o", "sql"]));
    for words in ["  us REAL,", "  percent_of_rate REAL,", "  runs INTEGER,", "  bound TEXT,", "NULL"] {
        assert!(sql.contains(words), "{words:?} is not in {sql}");
    }
    assert!(!sql.contains("''"), "{sql}");
    assert_error(&output(&["bench", "kernels", "--variant", "phi-9"]), &["phi-9", "phi-4-mini"]);
    assert_error(&output(&["bench", "kernels", "--type", "q9"]), &["q9", "q8_0"]);
}

#[test]
fn a_bench_test_that_fails_does_not_lose_the_others() {
    let size = ["bench", "--device", "cpu", "-p", "4", "-n", "0", "-r", "1", "-o", "json"];
    let deep = output(&[&size[..], &["-d", "0,99999,8"]].concat());
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&deep.stdout).expect("JSON");
    assert_eq!(rows.iter().map(|row| row["n_depth"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(8)]);
    assert_eq!(deep.status.code(), Some(2));
    assert!(stderr(&deep).contains("pp4 @ d99999") && stderr(&deep).contains("prompt too long"), "{}", stderr(&deep));
    let model = checkpoint("phi-3-mini-4k");
    let missing = output(&[&size[..], &["-m", "no/such/model", "-m", &model]].concat());
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&missing.stdout).expect("JSON");
    assert!(rows.len() == 1 && rows[0]["model_filename"] == model.as_str());
    assert!(missing.status.code() == Some(2) && stderr(&missing).contains("no/such/model"), "{}", stderr(&missing));
}

#[test]
fn bench_takes_llama_bench_s_command_lines() {
    let size = ["bench", "--device", "cpu", "-p", "0", "-n", "0", "-r", "1", "--no-warmup", "-o", "json"];
    let run = |more: &[&str]| output(&[&size[..], more].concat());
    let rows = |more: &[&str]| -> Vec<serde_json::Value> {
        let output = run(more);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)))
    };
    let both = rows(&["-pg", "0,2", "-ctk", "f16", "-ctv", "f16"]);
    let [row] = both.as_slice() else { panic!("one row: {both:?}") };
    assert_eq!((&row["type_k"], &row["type_v"]), (&"f16".into(), &"f16".into()));
    assert_eq!((&row["n_prompt"], &row["n_gen"]), (&0.into(), &2.into()));
    let lists = rows(&["-p", "2-6+2", "-ub", "2,3"]);
    let of = |name: &str| lists.iter().map(|row| row[name].as_u64().unwrap_or(0)).collect::<Vec<_>>();
    assert_eq!((of("n_prompt"), of("n_ubatch")), (vec![2, 4, 6, 2, 4, 6], vec![2, 2, 2, 3, 3, 3]));
    let help = stdout(&output(&["bench", "--help"]));
    assert!(help.contains("also -ctk") && help.contains("also -ctv"), "{help}");

    assert_error(&run(&["-ctk", "f16", "-ctv", "q8_0"]), &["keys and values have one type", "f16 and q8_0"]);
    assert_error(&run(&["-ngl", "99"]), &["--n-gpu-layers", "--device gpu"]);
    assert_error(&run(&["-ub", "99999999999"]), &["99999999999", "from 1 to 1048576"]);
    assert_error(&run(&["-m", "x", "model.gguf"]), &["model.gguf", "each model has its own -m"]);
    assert_error(&run(&["-p", "8-4"]), &["8-4", "4-16+4"]);
    assert_error(&run(&["-pg", "0,0"]), &["0,0"]);
}

#[test]
fn bench_names_types_as_llama_cpp_does_and_counts_weights_as_they_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("demo.gguf").display().to_string();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/model").display().to_string();
    let written = output(&["quantize", &demo, &file, "-t", "q4_k_m", "-q"]);
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    for (model, quant, kind) in [
        (&demo, "", "phi3 4M BF16"),
        (&demo, "q4_k_m", "phi3 4M Q4_K - Medium"),
        (&demo, "q4_k", "phi3 4M Q4_K"),
        (&file, "", "phi3 4M Q4_K - Medium"),
        (&file, "q8_0", "phi3 4M Q4_K - Medium"),
    ] {
        let mut machine = vec!["--device", "cpu", "-m", model];
        if !quant.is_empty() {
            machine.extend(["--quant", quant]);
        }
        let object = |args: &[&str]| -> serde_json::Value {
            let output = output(&[args, &machine[..]].concat());
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)))
        };
        let row = object(&["bench", "-p", "2", "-n", "0", "-r", "1", "--no-warmup", "-o", "jsonl"]);
        let plan = object(&["plan", "--json"]);
        assert_eq!((&row["model_type"], &row["model_size"]), (&kind.into(), &plan["weights"]), "{model} {quant}");
    }
}

/// Ctrl-C during a prompt of many passes, and during a depth: no row for it, and complete rows before it.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_bench_between_two_passes() {
    use std::io::{BufRead, BufReader, Read};
    let long: &[&[&str]] = &[&["-p", "1,4000", "-ub", "1"], &["-p", "1", "-d", "0,4000", "-ub", "1"]];
    for more in long {
        let args = ["bench", "--device", "cpu", "-n", "0", "-r", "100", "-o", "jsonl"];
        let mut child = phi3_run(&[&args[..], more].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut rows = String::new();
        out.read_line(&mut rows).unwrap();
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let since = std::time::Instant::now();
        out.read_to_string(&mut rows).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        // one repetition takes much longer
        assert!(since.elapsed().as_secs() < 10, "{:?}", since.elapsed());
        let rows: Vec<serde_json::Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["samples_ns"].as_array().unwrap().len(), 100);
    }
}
