//! `--logprobs`.

use super::{assert_error, checkpoint, output, stderr, stdout};

#[test]
fn log_probabilities_are_a_field_of_the_object_or_lines_of_standard_error() {
    let base = ["generate", "--device", "cpu", "--greedy", "-q", "--prompt", "Once upon a time", "-n", "4"];
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&output(&[&base[..], &["--json"], more].concat()).stdout).unwrap()
    };
    assert!(json(&[]).get("logprobs").is_none());
    let object = json(&["--logprobs", "2"]);
    let tokens = object["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), 4);
    for (token, id) in tokens.iter().zip(object["ids"].as_array().unwrap()) {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((&token["id"], top.len()), (id, 2));
        // greedy decoding takes the likeliest token
        assert_eq!(["id", "token", "bytes", "logprob"].map(|field| &token[field]), {
            ["id", "token", "bytes", "logprob"].map(|field| &top[0][field])
        });
        let logprob = |token: &serde_json::Value| token["logprob"].as_f64().unwrap();
        assert!(logprob(token) <= 0.0 && logprob(&top[1]) <= logprob(token));
        let bytes = token["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
        assert_eq!(token["token"], String::from_utf8(bytes).unwrap());
    }
    let texts: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(texts.trim_start(), object["text"].as_str().unwrap().trim_start());

    let lines = output(&[&base[..], &["--logprobs", "0"]].concat());
    assert_eq!(stdout(&lines).trim_end(), object["text"].as_str().unwrap().trim_end());
    assert_eq!(stderr(&lines).lines().filter(|line| line.starts_with("logprob  ")).count(), 4);
    assert_eq!(stderr(&lines).lines().count(), 4, "{}", stderr(&lines));
    let ask = output(&["--device", "cpu", "--greedy", "-q", "-n", "1", "--logprobs", "1", "Who are you?"]);
    assert!(stderr(&ask).starts_with("logprob ") && stderr(&ask).contains("   of  \""), "{}", stderr(&ask));
    assert_error(&output(&["--logprobs", "256", "Hi"]), &["--logprobs", "256"]);

    let model = checkpoint("phi-3-mini-4k");
    let args =
        ["generate", "--model", &model, "--device", "cpu", "--ids", "5 7", "-n", "2", "--logprobs", "1", "--json"];
    let object: serde_json::Value = serde_json::from_slice(&output(&args).stdout).unwrap();
    let first = &object["logprobs"][0];
    assert!(first["token"].is_null() && first["bytes"].is_null() && first["logprob"].is_f64(), "{object}");
}
