//! `serve`.

use crate::{assert_error, output, phi3_run};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Stdio};

/// A server that is ended when dropped.
struct Serving {
    child: Child,
    address: String,
    errors: BufReader<ChildStderr>,
}

impl Serving {
    fn start(options: &[&str]) -> Self {
        let args = [&["serve", "--device", "cpu", "--port", "0"], options].concat();
        let mut child = phi3_run(&args).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(errors.read_line(&mut line).expect("text"), 0, "the server ended");
            if let Some((_, address)) = line.trim().split_once("serving  http://") {
                break address.to_owned();
            }
        };
        Self { child, address, errors }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the server answers");
        answer
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const MODELS: &str = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";

#[test]
fn serves_the_demo_model() {
    let serving = Serving::start(&["--served-model-name", "story"]);
    let answer = serving.ask(&format!("{MODELS}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"id\":\"story\""), "{answer}");
    let body = r#"{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}"#;
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    let answer = serving.ask(&format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    assert!(answer.contains("\"completion_tokens\":3"), "{answer}");
}

#[test]
fn keys_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.txt");
    std::fs::write(&file, "# mine\nsecret\n").unwrap();
    let serving = Serving::start(&["--api-key-file", file.to_str().unwrap()]);
    assert!(serving.ask(&format!("{MODELS}\r\n")).starts_with("HTTP/1.1 401"));
    assert!(serving.ask(&format!("{MODELS}authorization: Bearer secret\r\n\r\n")).starts_with("HTTP/1.1 200"));
    std::fs::write(&file, "# none\n").unwrap();
    let keys = ["serve", "--port", "0", "--api-key-file", file.to_str().unwrap()];
    assert_error(&output(&keys), &["keys.txt", "expected API keys, found none"]);
}

/// SIGTERM completes open requests, and the exit code is 0.
#[cfg(unix)]
#[test]
fn a_signal_ends_the_server() {
    let mut serving = Serving::start(&[]);
    let pid = libc::pid_t::try_from(serving.child.id()).unwrap();
    // SAFETY: the process is a child that was not waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    let status = serving.child.wait().unwrap();
    let mut rest = String::new();
    serving.errors.read_to_string(&mut rest).unwrap();
    assert_eq!(status.code(), Some(0), "{rest}");
    assert!(rest.contains("all requests were answered"), "{rest}");
}

#[test]
fn faults_end_it_with_a_message() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_error(&output(&["serve", "--port", &port]), &["cannot listen on 127.0.0.1", "another port"]);
    assert_error(&output(&["serve", "--port", "0", "--model", "no/such/folder"]), &["no/such/folder"]);
    assert_error(&output(&["serve", "--port", "0", "--allow-origin", "localhost"]), &["allowed origin", "localhost"]);
    assert_error(&output(&["serve", "--port", "70000"]), &["--port"]);
    assert_error(&output(&["serve", "--max-stall", "0.5"]), &["--max-stall", "at least 1"]);
    assert_error(&output(&["serve", "--write-timeout", "0"]), &["--write-timeout", "seconds"]);
}
