//! A server that runs for a test.

use phi3_runner::{Device, Engine, EngineBuilder};
use phi3_server::{Result, Server, ServerOptions};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use ureq::Agent;
use ureq::http::Response;

/// Most time of anything in a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server; it ends when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    agent: Agent,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// An answer with its header.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The chunks of a stream, which has to end with `[DONE]`.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        assert!(self.header("content-type").starts_with("text/event-stream"), "{}", self.text);
        let mut lines: Vec<&str> = self.text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(lines.pop(), Some("[DONE]"), "{}", self.text);
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub(crate) fn demo<'a>() -> EngineBuilder<'a> {
    Engine::builder().device(Device::Cpu).threads(1)
}

impl Running {
    /// Options for a test: a free port.
    pub(crate) fn options() -> ServerOptions {
        ServerOptions { port: 0, model_names: vec!["demo".into(), "phi".into()], ..ServerOptions::default() }
    }

    pub(crate) fn start() -> Self {
        Self::with(Self::options(), || demo().build())
    }

    /// Starts a server, and waits until the model is loaded.
    pub(crate) fn with(
        options: ServerOptions,
        load: impl FnOnce() -> phi3_runner::Result<Engine> + Send + 'static,
    ) -> Self {
        let running = Self::loading(options, load);
        running.wait_until(|running| running.get("/health").status == 200);
        running
    }

    /// Starts a server.
    pub(crate) fn loading(
        options: ServerOptions,
        load: impl FnOnce() -> phi3_runner::Result<Engine> + Send + 'static,
    ) -> Self {
        let server = Server::bind(options).unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            server.run_until(load, async {
                let _ = stopped.await;
            })
        });
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        Self { address, agent: config.build().into(), stop: Some(stop), thread: Some(thread) }
    }

    /// Signals the server to end.
    pub(crate) fn signal(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn wait_for_end(&self) {
        self.wait_until(|running| running.thread.as_ref().is_some_and(JoinHandle::is_finished));
    }

    /// Ends the server, and returns its result.
    pub(crate) fn end(mut self) -> Result<()> {
        self.signal();
        self.thread.take().unwrap().join().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request =
            headers.iter().fold(self.agent.get(self.url(path)), |request, (name, value)| request.header(*name, *value));
        answer(request.call().unwrap())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &body.to_string(), &[("content-type", "application/json")])
    }

    pub(crate) fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers
            .iter()
            .fold(self.agent.post(self.url(path)), |request, (name, value)| request.header(*name, *value));
        answer(request.send(body).unwrap())
    }

    /// A value of the metrics; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text;
        let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    pub(crate) fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "it did not come to pass");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until no request runs or waits.
    pub(crate) fn wait_until_idle(&self) {
        let gauges = ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"];
        self.wait_until(|running| gauges.iter().all(|gauge| running.metric(gauge) == 0.0));
    }

    /// A connection of its own, on which a request was sent.
    pub(crate) fn raw(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream = self.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}

/// The lines of a stream.
pub(crate) fn lines(stream: TcpStream) -> impl Iterator<Item = String> {
    BufReader::new(stream).lines().map_while(std::result::Result::ok)
}

fn answer(response: Response<ureq::Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let mut text = String::new();
    body.into_reader().read_to_string(&mut text).unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, text }
}
