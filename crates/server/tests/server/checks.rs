//! Requests that are refused, and who may ask.

use crate::running::{Running, demo};
use phi3_server::{ApiKeys, Error, Server, ServerOptions};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Every refusal has OpenAI's form, and names the field.
#[test]
fn faults_name_their_field() {
    let running = Running::start();
    let user = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (CHAT, body)
    };
    let text = |body: Value| (TEXT, body);
    let long = "word ".repeat(40_000);
    let requests = [
        ((CHAT, json!({})), "messages"),
        (user(json!({"messages": []})), "messages"),
        (user(json!({"messages": "hi"})), "messages"),
        (user(json!({"messages": [3]})), "messages[0]"),
        (user(json!({"messages": [{"content": "hi"}]})), "messages[0].role"),
        (user(json!({"messages": [{"role": "user"}]})), "messages[0].content"),
        (
            user(json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]})),
            "messages[0].content[0].type",
        ),
        (user(json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]})), "messages[0].content[0].text"),
        (user(json!({"messages": [{"role": "user", "content": long}]})), "messages"),
        (user(json!({"n": 0})), "n"),
        (user(json!({"n": 1000000})), "n"),
        (user(json!({"n": 1.5})), "n"),
        (user(json!({"temperature": -1})), "temperature"),
        (user(json!({"temperature": "hot"})), "temperature"),
        (user(json!({"top_p": 1.5})), "top_p"),
        (user(json!({"min_p": -0.1})), "min_p"),
        (user(json!({"top_k": -2})), "top_k"),
        (user(json!({"max_tokens": -2})), "max_tokens"),
        (user(json!({"max_completion_tokens": "all"})), "max_completion_tokens"),
        (user(json!({"presence_penalty": 1e39})), "presence_penalty"),
        (user(json!({"stream": "yes"})), "stream"),
        (user(json!({"stream_options": {"include_usage": 1}})), "stream_options.include_usage"),
        (user(json!({"stop": 3})), "stop"),
        (user(json!({"stop": ["a", 3]})), "stop"),
        (user(json!({"stop": ""})), "stop"),
        (user(json!({"seed": 1.5})), "seed"),
        (user(json!({"seed": 1e30})), "seed"),
        (user(json!({"logit_bias": {"x": 1}})), "logit_bias"),
        (user(json!({"logit_bias": {"99999999": 1}})), "logit_bias"),
        (user(json!({"stop": "x".repeat(20_000)})), "stop"),
        (user(json!({"logit_bias": {"1": "x"}})), "logit_bias"),
        (user(json!({"top_logprobs": 3})), "top_logprobs"),
        (user(json!({"logprobs": true, "top_logprobs": 21})), "top_logprobs"),
        (user(json!({"tools": [{"type": "function"}]})), "tools"),
        (user(json!({"functions": [{}]})), "functions"),
        (user(json!({"modalities": ["text", "audio"]})), "modalities"),
        (user(json!({"model": "gpt-4"})), "model"),
        (user(json!({"model": 4})), "model"),
        (user(json!({"response_format": "json"})), "response_format"),
        (text(json!({})), "prompt"),
        (text(json!({"prompt": []})), "prompt"),
        (text(json!({"prompt": [[1], "x", 3]})), "prompt"),
        (text(json!({"prompt": [-1]})), "prompt"),
        (text(json!({"prompt": [99999999]})), "prompt"),
        (text(json!({"prompt": {"x": 1}})), "prompt"),
        (text(json!({"prompt": [[]]})), "prompt"),
        (text(json!({"prompt": vec!["x"; 200]})), "prompt"),
        (text(json!({"prompt": "x", "best_of": 3})), "best_of"),
        (text(json!({"prompt": "x", "suffix": "y"})), "suffix"),
        (text(json!({"prompt": "x", "logprobs": true})), "logprobs"),
        (("/tokenize", json!({})), "prompt"),
        (("/tokenize", json!({"prompt": 3})), "prompt"),
        (("/tokenize", json!({"prompt": "word ".repeat(1 << 19)})), "prompt"),
        (("/tokenize", json!({"messages": [{"role": "user"}]})), "messages[0].content"),
        (("/detokenize", json!({"tokens": vec![1; (1 << 20) + 1]})), "tokens"),
        (("/detokenize", json!({"tokens": [99999999]})), "tokens"),
        (("/detokenize", json!({"tokens": "1 2"})), "tokens"),
    ];
    for ((path, body), field) in requests {
        for stream in [false, true] {
            let mut body = body.clone();
            if stream && body.get("stream").is_none() {
                body["stream"] = true.into();
            }
            let answer = running.post(path, &body);
            let error = &answer.json()["error"];
            let status = if field == "model" && body["model"] == "gpt-4" { 404 } else { 400 };
            assert_eq!(
                (answer.status, error["param"].as_str()),
                (status, Some(field)),
                "{:.300}: {}",
                body.to_string(),
                answer.text
            );
            assert!(!error["message"].as_str().unwrap().is_empty() && error["type"].is_string(), "{}", answer.text);
        }
    }
    let too_long = running.post(CHAT, &user(json!({"messages": [{"role": "user", "content": long}]})).1).json();
    assert_eq!(too_long["error"]["code"], "context_length_exceeded");
    let picture = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]);
    let refused = running.post(CHAT, &user(json!({"messages": picture})).1);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &"invalid_image".into()), "{}", refused.text);
    running.wait_until_idle();
}

#[test]
fn what_clients_and_routers_add_is_tolerated() {
    let running = Running::start();
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": null, "user": "me", "metadata": {"a": "b"},
        "store": false, "tools": [], "tool_choice": "none", "parallel_tool_calls": true, "reasoning_effort": "low", "modalities": ["text"],
        "service_tier": "auto", "echo": false, "no_stop_trim": false, "return_hidden_states": false, "prompt_cache_key": "k", "häh": 1,
        "top_p": 0, "top_k": -1, "stop": null, "n": null, "logit_bias": {"5": -100, "7": 3.5}, "seed": 18014398509481984i64,
    });
    let answer = running.post(CHAT, &body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let ignored: Vec<&str> = answer.header("x-ignored-fields").split(", ").collect();
    assert!(ignored.contains(&"user") && ignored.contains(&"return_hidden_states"), "{ignored:?}");
    assert!(!ignored.contains(&"top_p") && !ignored.contains(&"temperature"));
    let plain = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    assert_eq!(running.post(CHAT, &plain).header("x-ignored-fields"), "");
    let tools =
        json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "tools": [{}], "tool_choice": "none"});
    assert_eq!(running.post(CHAT, &tools).status, 200);
}

#[test]
fn bodies_and_paths() {
    let running = Running::start();
    let json_type = [("content-type", "application/json; charset=utf-8")];
    let good = r#"{"prompt": "x", "max_tokens": 1}"#;
    assert_eq!(running.post_with(TEXT, good, &json_type).status, 200);
    for body in ["", "{", "[]", "null", "{\"prompt\": \"x\",}", &"[".repeat(5000)] {
        let answer = running.post_with(TEXT, body, &json_type);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &"invalid_json".into()), "{body:.20}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "", "jsonish"] {
        assert_eq!(running.post_with(TEXT, good, &[("content-type", kind)]).status, 415, "{kind}");
    }
    let unknown = running.get("/v2/models");
    assert_eq!((unknown.status, unknown.json()["error"]["type"].as_str()), (404, Some("not_found_error")));
    let method = running.get(CHAT);
    assert_eq!((method.status, method.header("allow")), (405, "POST"));
    assert!(method.json()["error"]["message"].is_string());
    // a line of rubbish ends its connection, not the server
    for rubbish in
        ["\0\x01\x02\r\n\r\n", "GET\r\n\r\n", "TRACE /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"]
    {
        let mut stream = running.connect();
        stream.write_all(rubbish.as_bytes()).unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        assert!(text.starts_with(b"HTTP/1.1 40") || text.is_empty(), "{}", String::from_utf8_lossy(&text));
    }
    assert_eq!(running.get("/health").status, 200);
}

#[test]
fn keys_are_asked_for() {
    let keys = ApiKeys::parse(Path::new("keys"), "first-key\nsecond-key\n").unwrap();
    let running = Running::with(ServerOptions { api_keys: keys, ..Running::options() }, || demo().build());
    let get = |key: &str| running.get_with("/v1/models", &[("authorization", key)]);
    assert_eq!([get("Bearer first-key").status, get("bearer second-key").status], [200, 200]);
    for key in ["", "Bearer", "Bearer ", "Bearer third-key", "Basic first-key", "first-key", "Bearer first-key2"] {
        let refused = get(key);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{key}");
        assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    }
    // the body of a refused request is not read
    assert_eq!(running.post_with(CHAT, "{", &[("content-type", "application/json")]).status, 401);
    assert_eq!([running.get("/health").status, running.get("/metrics").status], [200, 200]);
    assert_eq!(running.get("/v1/nothing").status, 404);
}

#[test]
fn pages_of_other_sites_may_not_ask() {
    let running = Running::start();
    let address = running.address.to_string();
    let get = |headers: &[(&str, &str)]| running.get_with("/v1/models", headers);
    assert_eq!(get(&[("host", "evil.example")]).json()["error"]["code"], "forbidden_host");
    assert_eq!([get(&[("host", "localhost:1")]).status, get(&[("host", "[::1]:8080")]).status], [200, 200]);
    assert_eq!(get(&[("origin", "https://evil.example")]).json()["error"]["code"], "forbidden_origin");
    assert_eq!(get(&[("origin", "null")]).status, 403);
    assert_eq!(get(&[("origin", &format!("http://{address}")), ("host", &address)]).status, 200);
    assert_eq!(get(&[]).header("access-control-allow-origin"), "");

    let allowed_origins = vec!["http://localhost:3000".into()];
    let options = ServerOptions { allowed_origins, allowed_hosts: vec!["phi.test".into()], ..Running::options() };
    let running = Running::with(options, || demo().build());
    let allowed = running.get_with("/v1/models", &[("origin", "http://localhost:3000"), ("host", "phi.test:80")]);
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, "http://localhost:3000"));
    assert_eq!(running.get_with("/v1/models", &[("origin", "http://localhost:3001")]).status, 403);
    let mut stream = running.connect();
    let question = "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost:3000\r\n\
        access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\nconnection: close\r\n\r\n";
    stream.write_all(question.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("access-control-allow-methods"), "{text}");
}

#[test]
fn options_that_cannot_be() {
    let options = |origin: &str| ServerOptions { allowed_origins: vec![origin.into()], ..Running::options() };
    for origin in ["localhost", "http://", "http://a/b"] {
        assert!(matches!(Server::bind(options(origin)), Err(Error::Origin { .. })), "{origin}");
    }
    let taken = Server::bind(Running::options()).unwrap();
    let again = ServerOptions { port: taken.address().port(), ..Running::options() };
    let error = Server::bind(again).err().unwrap().to_string();
    assert!(error.contains("cannot listen on 127.0.0.1") && error.contains("hint"), "{error}");
    let nowhere = ServerOptions { host: "no such host".into(), ..Running::options() };
    assert!(matches!(Server::bind(nowhere), Err(Error::Bind { .. })));
}
