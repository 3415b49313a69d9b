//! Clients that leave, fall silent, send too much, or are too many.

use crate::running::{Running, demo, lines};
use phi3_server::ServerOptions;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";

/// A request whose answer takes a while, with large events.
fn endless() -> Value {
    json!({
        "messages": [{"role": "user", "content": "Tell me everything"}], "ignore_eos": true, "n": 8, "temperature": 1.5, "logprobs": true,
        "top_logprobs": 20, "stream": true,
    })
}

#[test]
fn clients_that_leave_cancel_their_requests() {
    let running = Running::start();
    for (number, stream) in [true, false].into_iter().cycle().take(12).enumerate() {
        let mut body = endless();
        body["stream"] = stream.into();
        let mut connection = running.raw(CHAT, &body);
        if number % 3 == 1 {
            running.wait_until(|running| running.metric("vllm:num_requests_running") > 0.0);
        }
        if stream && number % 3 == 2 {
            let _ = connection.read(&mut [0; 2000]).unwrap();
        }
        drop(connection);
        running.wait_until_idle();
    }
    assert!(running.metric("vllm:request_success_total{finished_reason=\"abort\"") > 0.0);
}

#[test]
fn clients_that_do_not_read_are_let_go() {
    let options = ServerOptions { write_time: Duration::from_millis(300), ..Running::options() };
    let running = Running::with(options, || demo().build());
    let silent: Vec<_> = (0..4).map(|_| running.raw(CHAT, &endless())).collect();
    running.wait_until(|running| running.metric("vllm:num_requests_running") > 0.0);
    running.wait_until_idle();
    drop(silent);
    // a slow one that reads gets all of its answer
    let mut body = endless();
    body["n"] = 1.into();
    body["max_tokens"] = 40.into();
    let mut ended = false;
    for line in lines(running.raw(CHAT, &body)) {
        ended |= line == "data: [DONE]";
        if ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(ended);
}

#[test]
fn clients_that_do_not_send_are_let_go() {
    let short = Duration::from_millis(200);
    let options = ServerOptions { header_time: short, body_time: short, ..Running::options() };
    let running = Running::with(options, || demo().build());
    let start = Instant::now();
    let heads = ["", "POST /v1/completions HTTP/1.1\r\n", "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nx: "];
    for head in heads {
        let mut stream = running.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&text));
    }
    let mut stream = running.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("timeout_error"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn bodies_have_a_limit() {
    let running = Running::with(ServerOptions { max_body: 1000, ..Running::options() }, || demo().build());
    let body = json!({"prompt": "x".repeat(2000)});
    let answer = running.post("/v1/completions", &body);
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (413, &"request_too_large".into()));
    assert_eq!(running.get("/health").status, 200);
}

#[test]
fn answers_have_a_time() {
    let running =
        Running::with(ServerOptions { request_time: Duration::from_millis(100), ..Running::options() }, || {
            demo().build()
        });
    let mut body = endless();
    let events = running.post(CHAT, &body).chunks();
    assert_eq!(events.last().unwrap()["error"]["type"], "timeout_error");
    body["stream"] = false.into();
    let whole = running.post(CHAT, &body);
    assert_eq!((whole.status, whole.header("x-should-retry")), (504, "false"));
    running.wait_until_idle();
}

/// A full queue refuses at once, and says when to try again.
#[test]
fn too_many_requests_are_refused() {
    let load = || demo().scheduling(|options| (options.max_running, options.max_queued_requests) = (1, 2)).build();
    let running = Running::with(Running::options(), load);
    let mut body = endless();
    body["n"] = 1.into();
    let waiting = |running: &Running| running.metric("vllm:num_requests_waiting");
    let held: Vec<_> = (0..3)
        .map(|number| {
            let connection = running.raw(CHAT, &body);
            running.wait_until(|running| {
                running.metric("vllm:num_requests_running") + waiting(running) > f64::from(number)
            });
            connection
        })
        .collect();
    let start = Instant::now();
    let refused = running.post(CHAT, &body);
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    drop(held);
    running.wait_until_idle();
    // n counts as n requests; those that were taken before the refusal end
    body["n"] = 100.into();
    assert_eq!(running.post(CHAT, &body).status, 429);
    running.wait_until_idle();
}

#[test]
fn connections_have_a_limit() {
    let running = Running::with(ServerOptions { max_connections: 2, ..Running::options() }, || demo().build());
    let address = running.address;
    // the connection of the health check is one
    let held = running.connect();
    std::thread::sleep(Duration::from_millis(50));
    let waiting = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished());
    drop(held);
    assert!(waiting.join().unwrap().starts_with("HTTP/1.1 200"));
}
