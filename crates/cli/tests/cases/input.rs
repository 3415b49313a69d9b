use crate::files::{demo, edit};
use crate::{ask, run, run_with};

const DEMO: [&str; 4] = ["--device", "cpu", "--greedy", "-n"];

/// Number of prompt tokens, with text piped in.
fn prompt(args: &[&str], input: Option<&str>) -> usize {
    run_with(&[&DEMO[..], &["2"], args].concat(), input.map(str::as_bytes)).ok().prompt_tokens()
}

#[test]
fn piped_text_stands_before_a_question() {
    let text = "The password is swordfish. ".repeat(20);
    let alone = prompt(&["What", "is", "it?"], None);
    let both = prompt(&["What", "is", "it?"], Some(&text));
    assert!(both > alone + 80, "{both}");
    assert_eq!(both, prompt(&[&format!("{}\n\nWhat is it?", text)], None));
    for words in [["What is it?", "-"], ["-", "What is it?"]] {
        assert_eq!(prompt(&words, Some(&text)), both);
    }
    for nothing in ["", "\n"] {
        assert_eq!(prompt(&["What is it?"], Some(nothing)), alone);
    }
    assert_eq!(prompt(&["what", "is", "5", "-", "3"], None), prompt(&["what is 5 - 3"], None));
    assert_eq!(prompt(&[], Some(&text)), prompt(&[text.trim_end_matches('\n')], None));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("question.txt");
    let units = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for bytes in [b"What is it?\n".to_vec(), b"\xEF\xBB\xBFWhat is it?\r\n".to_vec(), units("\u{feff}What is it?\r\n")]
    {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(prompt(&["-f", &file.display().to_string()], Some(&text)), both);
    }
}

#[test]
fn piped_text_stands_before_a_text_to_continue() {
    let of = |args: &[&str], input: Option<&str>| {
        let command = ["generate", "--device", "cpu", "--greedy", "-n", "2"];
        run_with(&[&command[..], args].concat(), input.map(str::as_bytes)).ok().prompt_tokens()
    };
    assert_eq!(
        of(&["--prompt", "and then"], Some("Once upon a time\n")),
        of(&["--prompt", "Once upon a time\nand then"], None)
    );
    assert_eq!(of(&["--prompt", "and then"], Some("")), of(&["--prompt", "and then"], None));
    assert!(run_with(&["--device", "cpu", "-n", "1", "Hi"], Some(b"\xff\xfd\xfc")).error(&["UTF-8"]).contains("input"));
}

#[test]
fn minus_one_means_what_it_means_elsewhere() {
    let answer = |more: &[&str]| run(&[&["--device", "cpu"], more, &["Hi"]].concat());
    let greedy = answer(&["--greedy"]).ok();
    assert_eq!(answer(&["--greedy", "-n", "-1"]).ok().stdout, greedy.stdout);
    assert!(answer(&["-n", "2", "--seed", "-1"]).ok().stderr.contains("seed     "));
    let all = ["-n", "8", "--seed", "5", "--temperature", "1.5"];
    let of = |k: &str| answer(&[&all[..], &["--top-k", k]].concat()).ok().stdout;
    assert_eq!(of("-1"), of("0"));
    for (args, words) in [
        (&["--temperature", "-0.5"][..], &["temperature", "-0.5"][..]),
        (&["--top-p", "-1"], &["top_p", "-1"]),
        (&["--min-p", "-1"], &["min_p", "-1"]),
        (&["--repetition-penalty", "-1"], &["repetition_penalty", "-1"]),
        (&["--chunk", "-1"], &["--chunk", "from 1 to"]),
        (&["--threads", "-1"], &["--threads", "from 1 to"]),
        (&["--seed", "-2"], &["--seed", "-1"]),
        (&["-n", "-2"], &["--max-tokens", "-1"]),
        (&["--max-binding", "-1"], &["--max-binding", "bytes"]),
    ] {
        answer(args).error(words);
    }
    run(&["bench", "-p", "-1", "--device", "cpu"]).error(&["whole numbers"]);
    run(&["plan", "--context", "-1"]).error(&["--context", "from 1 to"]);
    run(&["perplexity", "--window", "-1", "x"]).error(&["--window"]);
    run(&["verify", "--tolerance", "-1", "-m", "x", "--golden", "x"]).error(&["tolerance"]);
}

#[test]
fn samplers_are_ordered_and_their_values_checked() {
    let answer = |more: &[&str]| run(&[&["--device", "cpu", "-n", "8", "--seed", "5"], more, &["Hi"]].concat());
    let plain = answer(&["--temperature", "1.5"]).ok().stdout;
    let off = [
        "--temperature",
        "1.5",
        "--typical-p",
        "1",
        "--top-n-sigma",
        "-1",
        "--xtc-probability",
        "0",
        "--mirostat",
        "0",
    ];
    assert_eq!(answer(&off).ok().stdout, plain);
    let default =
        ["--temperature", "1.5", "--samplers", "penalties;dry;temperature;top_n_sigma;top_k;top_p;min_p;typ_p;xtc"];
    assert_eq!(answer(&default).ok().stdout, plain);
    let all = "--presence-penalty 0.5 --frequency-penalty -0.1 -l 5+1 --logit-bias 6-inf --typical-p 0.9 --top-n-sigma 2 \
        --xtc-probability 0.5 --xtc-threshold 0.2 --dry-multiplier 0.8 --dry-base 1.5 --dry-allowed-length 1 --dry-penalty-last-n 64 \
        --dry-sequence-breaker \\n --dynatemp-range 0.2 --dynatemp-exp 1.5 --samplers dry;xtc;penalties;temperature;typ_p";
    let all: Vec<&str> = all.split_whitespace().collect();
    assert_eq!(answer(&all).ok().stdout, answer(&all).ok().stdout);
    let mirostat = ["--mirostat", "2", "--mirostat-ent", "3", "--mirostat-lr", "0.2"];
    assert_eq!(answer(&mirostat).ok().stdout, answer(&mirostat).ok().stdout);
    for (args, words) in [
        (&["--presence-penalty", "inf"][..], &["presence_penalty", "finite", "hint"][..]),
        (&["--frequency-penalty", "nan"], &["frequency_penalty", "finite", "hint"]),
        (&["--logit-bias", "5"], &["--logit-bias", "15043+1"]),
        (&["--logit-bias", "99999999+1"], &["logit_bias", "99999999", "hint"]),
        (&["--typical-p", "0"], &["typical_p", "more than 0", "hint"]),
        (&["--top-n-sigma", "-2"], &["--top-n-sigma", "-1"]),
        (&["--xtc-probability", "2"], &["xtc_probability", "from 0 to 1"]),
        (&["--xtc-threshold", "-1"], &["xtc_threshold", "from 0 to 1"]),
        (&["--dry-multiplier", "-1"], &["dry_multiplier", "0 or more"]),
        (&["--dry-base", "0.5"], &["dry_base", "1 or more"]),
        (&["--dry-penalty-last-n", "-2"], &["--dry-penalty-last-n", "-1"]),
        (&["--dry-sequence-breaker", ""], &["--dry-sequence-breaker", "none"]),
        (&["--dynatemp-range", "-1"], &["dynatemp_range", "0 or more"]),
        (&["--dynatemp-exp", "-1"], &["dynatemp_exponent", "0 or more"]),
        (&["--mirostat", "1"], &["--mirostat", "0 or 2"]),
        (&["--mirostat", "2", "--mirostat-ent", "-1"], &["mirostat_tau", "0 or more"]),
        (&["--mirostat-lr", "0.1"], &["--mirostat"]),
        (&["--samplers", "top_k;infill"], &["infill", "penalties", "hint"]),
        (&["--samplers", "top_k;top_k"], &["once", "top_k", "hint"]),
    ] {
        answer(args).error(words);
    }
}

#[test]
fn answers_match_a_schema_a_pattern_or_a_grammar() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let answer = |more: &[&str]| run(&[&["--device", "cpu", "--seed", "5", "-n", "60"], more, &["Hi"]].concat());
    let text = r#"{"type": "object", "properties": {"a": {"enum": [1, "x"]}}, "required": ["a"], "additionalProperties": false}"#;
    let schema = file("schema.json", &format!("\u{FEFF}{text}"));
    for place in [text, &schema] {
        let said = answer(&["--json-schema", place]).ok().stdout;
        assert!([r#"{"a": 1}"#, r#"{"a": "x"}"#].contains(&said.trim_end()), "{said}");
    }
    assert!(["yes", "no"].contains(&answer(&["--regex", "yes|no"]).ok().stdout.trim_end()));
    let lark = file("answer.lark", "start: \"<\" /[0-9]/ \">\"\n");
    let said = answer(&["--grammar", &lark]).ok().stdout;
    assert!(said.starts_with('<') && said.trim_end().len() == 3, "{said}");
    let said = run(&["generate", "--device", "cpu", "--regex", "[a-c]{3}", "-p", "Hi"]).ok().stdout;
    assert!(said.contains(|c: char| "abc".contains(c)), "{said}");
    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    for (args, words) in [
        (&["--json-schema", missing][..], &["--json-schema", "cannot read", "begins with {"][..]),
        (&["--json-schema", "{\"type\": }"], &["--json-schema", "not JSON"]),
        (&["--json-schema", &lark], &["answer.lark", "not JSON"]),
        (&["--json-schema", r#"{"uniqueItems": true}"#], &["JSON schema", "uniqueItems", "hint"]),
        (&["--regex", "a("], &["regular expression", "hint"]),
        (&["--grammar", missing], &["--grammar", "cannot read"]),
        (&["--grammar", &schema], &["Lark grammar", "hint"]),
        (&["--regex", "a", "--grammar", &lark], &["--regex", "cannot be used with"]),
        (&["--regex", "a", "--ignore-eos"], &["--regex", "--ignore-eos"]),
    ] {
        answer(args).error(words);
    }
}

#[test]
fn a_stop_text_ends_the_answer_and_is_no_part_of_it() {
    let of = |stops: &[&str]| {
        let stops: Vec<&str> = stops.iter().flat_map(|stop| ["--stop", stop]).collect();
        run(&[&["--device", "cpu", "--greedy"], &stops[..], &["Who are you?"]].concat()).ok()
    };
    let whole = of(&[]);
    let text = whole.stdout.trim_end();
    for stop in ["Phi-3", "tiny P", "iny", "4 million", ". I can", "s"] {
        let cut = of(&[stop]);
        assert_eq!(cut.stdout.trim_end_matches('\n'), text.split(stop).next().unwrap(), "{stop}");
        assert!(cut.new_tokens() < whole.new_tokens() && !cut.stderr.contains("limit"), "{}", cut.stderr);
    }
    assert_eq!(of(&["never said", "Phi-3"]).stdout, of(&["Phi-3"]).stdout);
    assert_eq!(of(&["never said"]).stdout, whole.stdout);
    // a special token by name, although it is not part of the text
    let ended = ["--ignore-eos", "-n", "60", "--stop", "<|end|>"];
    let ended = run(&[&["--device", "cpu", "--greedy"], &ended[..], &["Who are you?"]].concat()).ok();
    assert_eq!((ended.stdout.as_str(), ended.new_tokens()), (whole.stdout.as_str(), whole.new_tokens()));
    run(&["--device", "cpu", "--stop", "", "Hi"]).error(&["--stop"]);

    let json = ["generate", "--device", "cpu", "--greedy", "--prompt", "Once upon", "--json", "--stop", "time"];
    let json: serde_json::Value = serde_json::from_str(&run(&json).ok().stdout).unwrap();
    assert_eq!(json["finish_reason"], "stop");
    assert!(!json["text"].as_str().unwrap().contains("time"), "{json}");
}

/// A stop text that holds back the whole answer: Ctrl-C prints the text so far.
#[cfg(unix)]
#[test]
fn ctrl_c_gives_out_what_a_stop_text_holds_back() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let args = ["generate", "--device", "cpu", "--greedy", "--ignore-eos", "--prompt", "Once upon", "-n", "3000"];
    let whole = run(&args).ok().stdout;
    let stop = format!("{whole}~");
    for wait in [200, 500, 1000] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_phi3-run"))
            .args(args)
            .args(["--stop", &stop])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut notes = BufReader::new(child.stderr.take().unwrap());
        // the line of the device is printed when the model is loaded
        notes.read_line(&mut String::new()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let (mut rest, code) = (String::new(), child.wait().unwrap().code());
        notes.read_to_string(&mut rest).unwrap();
        assert!(whole.starts_with(text.trim_end()), "{text:?}");
        // without a token yet, on a slow machine, the next run waits longer
        if code == Some(130) && !text.trim().is_empty() {
            assert!(rest.contains("ended    interrupted"), "{rest}");
            return;
        }
    }
    panic!("no answer was interrupted");
}

#[test]
fn marks_and_minus_signs_of_piped_text() {
    let base = ["--device", "cpu", "--greedy", "-n", "2"];
    let file = run_with(&[&base[..], &["-f", "-"]].concat(), Some(b"Who are you?\n")).ok();
    assert_eq!(file.stdout, run(&[&base[..], &["Who are you?"]].concat()).ok().stdout);
    let chat = run_with(&[&["chat"], &base[..]].concat(), Some(b"\xEF\xBB\xBF/help\r\n")).ok();
    assert!(chat.stderr.contains("/reset") && chat.stdout.is_empty(), "{}{}", chat.stderr, chat.stdout);
}

/// The demo model with thinking tags in place of the first word and the comma of its greeting.
pub(crate) fn thinking() -> tempfile::TempDir {
    let folder = demo();
    edit(folder.path().join("tokenizer.json"), |tokenizer| {
        let Some(decoders) = tokenizer["decoder"]["decoders"].as_array_mut() else { panic!("a chain of decoders") };
        for (from, to) in [("\u{2581}Hello", "\u{2581}<think>"), (",", "</think>")] {
            decoders.insert(0, serde_json::json!({"type": "Replace", "pattern": {"String": from}, "content": to}));
        }
    });
    folder
}

#[test]
fn thinking_is_unchanged_in_a_pipe_and_left_out_on_request() {
    let folder = thinking();
    let of = |more: &[&str]| ask(folder.path(), "Hi, I am Tom.", more).ok().stdout;
    assert_eq!(of(&[]), "<think> Tom</think> nice to meet you!\n");
    assert_eq!(of(&["--hide-thinking"]), "nice to meet you!\n");
    assert_eq!(of(&["--hide-thinking", "-n", "2"]), "\n");
}

#[test]
fn an_answer_without_thinking_is_the_same_where_thinking_is_hidden() {
    let answer = |more: &[&str]| run(&[&DEMO[..], &["8"], more, &["Hi"]].concat()).ok().stdout;
    let plain = answer(&[]);
    assert!(plain.trim().len() > 1 && !plain.contains('\x1b'), "{plain:?}");
    assert_eq!(answer(&["--hide-thinking"]), plain);
    run(&["generate", "--prompt", "Hi", "--hide-thinking"]).error(&["--hide-thinking"]);
}
