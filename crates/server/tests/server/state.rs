//! Loading, ending, metrics, models and tokens.

use crate::running::{Running, demo, lines};
use phi3_server::{Error, ServerOptions};
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

fn long() -> Value {
    json!({"messages": [{"role": "user", "content": "Tell me everything"}], "ignore_eos": true, "max_tokens": 200, "stream": true})
}

#[test]
fn a_server_answers_while_it_loads() {
    let (go, wait) = mpsc::channel::<()>();
    let running = Running::loading(Running::options(), move || {
        let _ = wait.recv();
        demo().build()
    });
    let health = running.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (503, &"loading".into()));
    for (path, body) in [(CHAT, long()), ("/tokenize", json!({"prompt": "x"}))] {
        let refused = running.post(path, &body);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &"loading".into()));
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!([running.get("/v1/models").status, running.get("/metrics").status], [503, 200]);
    go.send(()).unwrap();
    running.wait_until(|running| running.get("/health").status == 200);
}

#[test]
fn a_failure_to_load_ends_the_server() {
    let running = Running::loading(Running::options(), || demo().model("no/such/folder").build());
    running.wait_for_end();
    assert!(matches!(running.end(), Err(Error::Model(_))));
}

/// After the signal, open answers are completed and new requests refused.
#[test]
fn open_answers_are_completed_at_the_end() {
    let mut running = Running::start();
    let mut answer = lines(running.raw(CHAT, &long()));
    assert!(answer.next().unwrap().starts_with("HTTP/1.1 200"));
    running.signal();
    running.wait_until(|running| running.get("/health").status == 503);
    let refused = running.post(CHAT, &long());
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &"draining".into()));
    let rest: Vec<String> = answer.filter(|line| line.starts_with("data: ")).collect();
    assert_eq!(rest.last().unwrap(), "data: [DONE]");
    assert!(rest.iter().any(|line| line.contains("\"finish_reason\":\"length\"")));
    running.end().unwrap();
}

#[test]
fn an_end_has_a_time() {
    let options = ServerOptions { drain_time: Duration::from_millis(50), ..Running::options() };
    let running = Running::with(options, || demo().build());
    let mut body = long();
    body["n"] = 16.into();
    body["max_tokens"] = (-1).into();
    let answer = running.raw(CHAT, &body);
    running.wait_until(|running| running.metric("vllm:num_requests_running") > 0.0);
    assert!(matches!(running.end(), Err(Error::Undrained(1))));
    drop(answer);
}

#[test]
fn metrics_count() {
    let running = Running::start();
    let body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, "ignore_eos": true, "n": 2});
    let usage = running.post(CHAT, &body).json()["usage"].clone();
    assert_eq!(usage["completion_tokens"], 10);
    running.wait_until_idle();
    let label = "{model_name=\"demo\"}";
    let metric = |name: &str| running.metric(&format!("vllm:{name}{label}"));
    assert_eq!(metric("generation_tokens_total"), 10.0);
    assert_eq!(metric("prompt_tokens_total"), 2.0 * usage["prompt_tokens"].as_f64().unwrap());
    assert_eq!(running.metric("vllm:request_success_total{finished_reason=\"length\""), 2.0);
    assert_eq!([metric("time_to_first_token_seconds_count"), metric("inter_token_latency_seconds_count")], [2.0, 8.0]);
    assert!(metric("prefix_cache_queries_total") > 0.0);
    let text = running.get("/metrics").text;
    for name in [
        "num_requests_waiting",
        "num_requests_running",
        "kv_cache_usage_perc",
        "e2e_request_latency_seconds_bucket",
        "request_queue_time_seconds_sum",
        "cache_config_info{block_size=\"16\",num_gpu_blocks=\"",
        "num_preemptions_total",
    ] {
        assert!(text.contains(&format!("vllm:{name}")), "{name}: {text}");
    }
    assert!(text.contains("# TYPE vllm:prompt_tokens_total counter"));
}

#[test]
fn models_and_tokens() {
    let running = Running::start();
    let models = running.get("/v1/models").json();
    assert_eq!(
        (&models["object"], &models["data"][0]["id"], &models["data"][1]["id"]),
        (&"list".into(), &"demo".into(), &"phi".into())
    );
    assert!(models["data"][0]["max_model_len"].as_u64().unwrap() > 0);
    assert_eq!(running.get("/v1/models/phi").json()["id"], "phi");
    let unknown = running.get("/v1/models/owner/other");
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &"model_not_found".into()));

    for text in ["The brave fox", "naïve 🦊 ", "<|end|>"] {
        let tokens = running
            .post("/tokenize", &json!({"prompt": text, "return_token_strs": true, "add_special_tokens": false}))
            .json();
        assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
        assert_eq!(tokens["token_strs"].as_array().unwrap().len(), tokens["tokens"].as_array().unwrap().len());
        let back = running.post("/detokenize", &json!({"tokens": tokens["tokens"]})).json();
        assert_eq!(back["prompt"].as_str().unwrap().trim_start(), text);
        let same = running.post("/tokenize", &json!({"content": text, "add_special_tokens": false})).json();
        assert_eq!(same["tokens"], tokens["tokens"]);
    }
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let chat = running.post("/tokenize", &json!({"messages": messages})).json();
    let answer = running.post(CHAT, &json!({"messages": messages, "max_tokens": 1})).json();
    assert_eq!(answer["usage"]["prompt_tokens"], chat["count"]);
    let info = running.get("/tokenizer_info").json();
    assert!(info["eos_token"].is_string() && info["chat_template"].as_str().unwrap().contains("messages"), "{info}");
    assert!(running.get("/version").json()["version"].is_string());
    assert_eq!(running.get_with("/version", &[("x-request-id", "mine")]).header("x-request-id"), "mine");
    assert!(running.get("/version").header("x-request-id").starts_with("req-"));
}
