//! A hub on the loopback interface, with a store of large files on another port and injected faults.

use sha1::Digest;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A fault of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another status, with these headers and no content.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after this many bytes of content.
    Cut(usize),
    /// The connection stalls after this many bytes of content.
    Stall(usize),
    /// The content is sent in pieces of this many bytes, with pauses between.
    Slow(usize, Duration),
    /// The header `Range` is ignored.
    IgnoreRange,
    /// `Content-Range` begins at another offset than requested.
    WrongRange,
    /// One byte of the content is changed.
    Flip,
    /// Four bytes are appended to the content.
    Longer,
    /// The content is compressed.
    Gzip,
    /// The content has no length; it ends with the connection.
    NoLength,
    /// A header is missing.
    Without(&'static str),
    /// A header has another value.
    With(&'static str, String),
}

/// A request received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Headers by lower-case name.
    pub(crate) headers: HashMap<String, String>,
    /// Whether the request was to the store, not to the hub.
    pub(crate) at_store: bool,
}

impl Request {
    /// First byte of the range; 0 without one.
    pub(crate) fn from(&self) -> u64 {
        let range = self.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

/// A file of a repository.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) content: Vec<u8>,
    /// Whether it is in the store.
    pub(crate) is_large: bool,
}

/// A repository at a commit.
#[derive(Clone, Debug)]
pub(crate) struct Repo {
    pub(crate) name: String,
    pub(crate) commit: String,
    pub(crate) files: Vec<File>,
}

#[derive(Default)]
struct State {
    repos: Mutex<Vec<Repo>>,
    /// Renamed repositories: old name to new name.
    renamed: Mutex<HashMap<String, String>>,
    requests: Mutex<Vec<Request>>,
    /// Substring of `METHOD path`, remaining count, and the fault.
    faults: Mutex<Vec<(String, usize, Fault)>>,
    ended: AtomicBool,
}

/// The hub; it stops when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    store: String,
    state: Arc<State>,
}

pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&sha2::Sha256::digest(content))
}

/// The git blob hash of a file.
pub(crate) fn git_id(content: &[u8]) -> String {
    let mut sha1 = sha1::Sha1::new();
    sha1.update(format!("blob {}\0", content.len()));
    sha1.update(content);
    hex(&sha1.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pseudorandom bytes by seed.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(|| next().to_le_bytes()).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

impl File {
    pub(crate) fn small(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), content: content.into(), is_large: false }
    }

    pub(crate) fn large(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), content: content.into(), is_large: true }
    }

    pub(crate) fn etag(&self) -> String {
        if self.is_large { sha256(&self.content) } else { git_id(&self.content) }
    }
}

impl Repo {
    /// A repository whose commit hash is computed from its files.
    pub(crate) fn new(name: &str, files: Vec<File>) -> Self {
        let all: String = files.iter().map(|file| format!("{} {}\n", file.path, git_id(&file.content))).collect();
        Self { name: name.into(), commit: git_id(all.as_bytes()), files }
    }

    /// A published checkpoint in two shards, with some unneeded files.
    pub(crate) fn published(name: &str, size: usize) -> Self {
        let index = r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
        Self::new(
            name,
            vec![
                File::small(".gitattributes", "*.safetensors filter=lfs"),
                File::small("README.md", "# a model"),
                File::small("config.json", r#"{"model_type":"phi3"}"#),
                File::small("generation_config.json", "{}"),
                File::small("model.safetensors.index.json", index),
                File::small("tokenizer_config.json", r#"{"chat_template":""}"#),
                File::large("model-00001-of-00002.safetensors", noise(size, 1)),
                File::large("model-00002-of-00002.safetensors", noise(size / 2, 2)),
                File::large("pytorch_model.bin", noise(size, 3)),
                File::large("tokenizer.json", noise(5000, 4)),
            ],
        )
    }

    pub(crate) fn file(&self, path: &str) -> &File {
        self.files.iter().find(|file| file.path == path).expect("a file of the repository")
    }

    fn listing(&self) -> String {
        let files: Vec<serde_json::Value> = self
            .files
            .iter()
            .map(|file| {
                let (size, path) = (file.content.len(), &file.path);
                let mut entry = serde_json::json!({ "rfilename": path, "size": size, "blobId": git_id(&file.content) });
                if file.is_large {
                    entry["lfs"] = serde_json::json!({ "sha256": file.etag(), "size": size, "pointerSize": 134 });
                }
                entry
            })
            .collect();
        serde_json::json!({ "id": self.name, "modelId": self.name, "sha": self.commit, "siblings": files }).to_string()
    }

    fn tree(&self) -> String {
        let entry = |file: &File| {
            let (size, path) = (file.content.len(), &file.path);
            let mut entry =
                serde_json::json!({ "type": "file", "path": path, "size": size, "oid": git_id(&file.content) });
            if file.is_large {
                entry["lfs"] = serde_json::json!({ "oid": file.etag(), "size": size, "pointerSize": 134 });
            }
            entry
        };
        serde_json::Value::Array(self.files.iter().map(entry).collect()).to_string()
    }
}

/// An answer before a fault is applied.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    content: Vec<u8>,
}

impl Answer {
    fn new(status: u16, headers: &[(&str, &str)], content: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { status, headers, content: content.into() }
    }

    fn refusal(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, &[("X-Error-Code", code), ("X-Error-Message", message)], "")
    }
}

impl Server {
    /// Starts the hub; with a TLS configuration, as `https://localhost`.
    pub(crate) fn new(repos: Vec<Repo>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let state = Arc::new(State { repos: Mutex::new(repos), ..State::default() });
        let [hub, store] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let (scheme, host) = if tls.is_some() { ("https", "localhost") } else { ("http", "127.0.0.1") };
        let url = format!("{scheme}://{host}:{}", port(&hub));
        // another name of the same host: secrets must not be sent to the store
        let address = format!("{scheme}://localhost:{}", port(&store));
        for (listener, at_store) in [(hub, false), (store, true)] {
            let (state, store, tls) = (state.clone(), address.clone(), tls.clone());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if state.ended.load(Ordering::Relaxed) {
                        break;
                    }
                    let (state, store, tls) = (state.clone(), store.clone(), tls.clone());
                    thread::spawn(move || {
                        let Ok(stream) = stream else { return };
                        let _ = stream.set_nodelay(true);
                        match tls.map(rustls::ServerConnection::new) {
                            Some(Ok(tls)) => serve(&state, rustls::StreamOwned::new(tls, stream), at_store, &store),
                            Some(Err(_)) => {}
                            None => serve(&state, stream, at_store, &store),
                        }
                    });
                }
            });
        }
        Self { url, store: address, state }
    }

    /// Injects a fault into the next `times` answers to requests whose `METHOD path` contains `part`.
    pub(crate) fn fault(&self, part: &str, times: usize, fault: Fault) {
        self.state.faults.lock().unwrap().push((part.into(), times, fault));
    }

    /// Removes all faults.
    pub(crate) fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    /// Publishes a new commit of a repository.
    pub(crate) fn publish(&self, repo: Repo) {
        let mut repos = self.state.repos.lock().unwrap();
        // old commits stay available, as with git
        repos.insert(0, repo);
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        self.state.renamed.lock().unwrap().insert(from.into(), to.into());
    }

    /// Number of requests to the store so far.
    pub(crate) fn count_at_store(&self) -> usize {
        self.state.requests.lock().unwrap().iter().filter(|request| request.at_store).count()
    }

    /// Takes all requests recorded so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        for url in [&self.url, &self.store] {
            // wakes the listener
            let address = url.split("://").last().unwrap_or_default();
            let _ = TcpStream::connect(address);
        }
    }
}

/// The requests of a connection.
fn serve(state: &State, stream: impl Read + Write, at_store: bool, store: &str) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, at_store) {
        state.requests.lock().unwrap().push(request.clone());
        let fault = take_fault(state, &request);
        let ranged = match fault {
            Some(Fault::IgnoreRange) => Request { headers: HashMap::new(), ..request.clone() },
            _ => request.clone(),
        };
        let answer = answer(state, &ranged, store);
        if send(state, stream.get_mut(), &request, answer, fault).is_none() {
            return;
        }
    }
}

fn take_fault(state: &State, request: &Request) -> Option<Fault> {
    let line = format!("{} {}", request.method, request.path);
    let mut faults = state.faults.lock().unwrap();
    let (_, times, fault) = faults.iter_mut().find(|(part, times, _)| *times > 0 && line.contains(part.as_str()))?;
    *times -= 1;
    Some(fault.clone())
}

fn read(input: &mut impl BufRead, at_store: bool) -> Option<Request> {
    let mut line = String::new();
    if input.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    input.read_exact(&mut vec![0; length]).ok()?;
    Some(Request { method, path, headers, at_store })
}

fn answer(state: &State, request: &Request, store: &str) -> Answer {
    let path = request.path.split('?').next().unwrap_or("");
    let parts: Vec<String> = path.split('/').skip(1).map(unescaped).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let repos = state.repos.lock().unwrap();
    if request.at_store {
        let content = repos.iter().flat_map(|repo| &repo.files).find(|file| parts == ["store", &file.etag()]);
        return content.map_or_else(|| Answer::new(403, &[], "expired"), |file| part_of(request, &file.content, &[]));
    }
    let (owner, name) = match parts.as_slice() {
        ["api", "models", owner, name, ..] | [owner, name, ..] => (*owner, *name),
        _ => return Answer::new(404, &[], ""),
    };
    let full = format!("{owner}/{name}");
    if let Some(new) = state.renamed.lock().unwrap().get(&full) {
        return Answer::new(307, &[("Location", &request.path.replace(&full, new))], "moved");
    }
    let known: Vec<&Repo> = repos.iter().filter(|repo| repo.name == full).collect();
    let Some(newest) = known.first() else { return Answer::refusal(401, "RepoNotFound", "Repository not found") };
    let at = |revision: &str| match revision {
        "main" | "refs/pr/1" => Some(*newest),
        commit => known.iter().find(|repo| repo.commit == commit).copied(),
    };
    let no_revision = || Answer::refusal(404, "RevisionNotFound", "Invalid rev id");
    match parts.as_slice() {
        ["api", "models", _, _, kind @ ("revision" | "tree"), revision] => {
            let text = |repo: &Repo| if *kind == "tree" { repo.tree() } else { repo.listing() };
            at(revision)
                .map_or_else(no_revision, |repo| Answer::new(200, &[("Content-Type", "application/json")], text(repo)))
        }
        [_, _, "resolve", revision, file @ ..] => {
            let Some(repo) = at(revision) else { return no_revision() };
            let commit = ("X-Repo-Commit", repo.commit.as_str());
            let Some(file) = repo.files.iter().find(|known| known.path == file.join("/")) else {
                let mut answer = Answer::refusal(404, "EntryNotFound", "Entry not found");
                answer.headers.push((commit.0.into(), commit.1.into()));
                return answer;
            };
            let (etag, size) = (format!("\"{}\"", file.etag()), file.content.len().to_string());
            if file.is_large {
                let location = format!("{store}/store/{}?Signature=secret", file.etag());
                let headers = [commit, ("X-Linked-Etag", &etag), ("X-Linked-Size", &size), ("Location", &location)];
                return Answer::new(302, &headers, "Found. Redirecting");
            }
            part_of(request, &file.content, &[commit, ("ETag", &etag)])
        }
        _ => Answer::new(404, &[], ""),
    }
}

/// The content, or the requested range of it.
fn part_of(request: &Request, content: &[u8], headers: &[(&str, &str)]) -> Answer {
    if !request.headers.contains_key("range") {
        return Answer::new(200, headers, content);
    }
    let (from, size) = (request.from() as usize, content.len());
    if from >= size {
        return Answer::new(416, &[("Content-Range", &format!("bytes */{size}"))], "");
    }
    let range = format!("bytes {from}-{}/{size}", size - 1);
    Answer::new(206, &[headers, &[("Content-Range", &range)]].concat(), &content[from..])
}

fn unescaped(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().map_or(0, |digit| (digit as char).to_digit(16).unwrap_or(0) as u8);
        bytes.push(if byte == b'%' { 16 * digit() + digit() } else { byte });
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Sends an answer; `None` if the connection ends with it.
fn send(
    state: &State,
    out: &mut impl Write,
    request: &Request,
    mut answer: Answer,
    fault: Option<Fault>,
) -> Option<()> {
    let mut end = answer.content.len();
    let mut ends_early = false;
    let mut pace = (usize::MAX, Duration::ZERO);
    let mut has_length = true;
    match fault {
        Some(Fault::Status(status, headers)) => {
            let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            answer = Answer { status, headers, content: Vec::new() };
            end = 0;
        }
        Some(Fault::Cut(at)) => (end, ends_early) = (at.min(end), true),
        Some(Fault::Stall(at)) => (end, ends_early, pace.1) = (at.min(end), true, Duration::from_secs(30)),
        Some(Fault::Slow(piece, pause)) => pace = (piece, pause),
        Some(Fault::Flip) => {
            if let Some(byte) = answer.content.last_mut() {
                *byte ^= 1;
            }
        }
        Some(Fault::Longer) => {
            answer.content.extend(b"more");
            end += 4;
        }
        Some(Fault::WrongRange) => {
            let moved = |value: &str| value.replacen(&request.from().to_string(), &(request.from() / 2).to_string(), 1);
            for (name, value) in &mut answer.headers {
                if name == "Content-Range" {
                    *value = moved(value);
                }
            }
        }
        Some(Fault::Gzip) => {
            answer.content = gzip(&answer.content);
            answer.headers.push(("Content-Encoding".into(), "gzip".into()));
            end = answer.content.len();
        }
        Some(Fault::NoLength) => has_length = false,
        Some(Fault::Without(name)) => answer.headers.retain(|(known, _)| known != name),
        Some(Fault::With(name, value)) => {
            answer.headers.retain(|(known, _)| known != name);
            answer.headers.push((name.into(), value));
        }
        Some(Fault::IgnoreRange) | None => {}
    }
    let mut head = format!("HTTP/1.1 {} -\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if has_length {
        head += &format!("Content-Length: {}\r\n", answer.content.len());
    } else {
        head += "Connection: close\r\n";
    }
    out.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method == "HEAD" {
        return Some(());
    }
    out.flush().ok()?;
    for piece in answer.content[..end].chunks(pace.0.min(1 << 16)) {
        out.write_all(piece).ok()?;
        if pace.0 < usize::MAX {
            out.flush().ok()?;
            thread::sleep(pace.1);
        }
    }
    out.flush().ok()?;
    if ends_early {
        let mut left = pace.1;
        while left > Duration::ZERO && !state.ended.load(Ordering::Relaxed) {
            let step = Duration::from_millis(20).min(left);
            thread::sleep(step);
            left -= step;
        }
        return None;
    }
    has_length.then_some(())
}

/// Content in the gzip format, stored without compression.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut pieces = content.chunks(0xffff).peekable();
    if pieces.peek().is_none() {
        out.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(piece) = pieces.next() {
        let length = piece.len() as u16;
        out.push(u8::from(pieces.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(piece);
    }
    let crc = content.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (!(crc & 1)).wrapping_add(1)))
    });
    out.extend((!crc).to_le_bytes());
    out.extend((content.len() as u32).to_le_bytes());
    out
}
