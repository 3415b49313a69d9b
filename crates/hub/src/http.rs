//! HTTP requests: connections, redirects, the scope of the token, and errors.

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::tls;
use crate::url::{Origin, join, shown};
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::{Agent, Body, Proxy, Timeout};

const MOST_REDIRECTS: usize = 10;

const USER_AGENT: &str = concat!("phi3-run/", env!("CARGO_PKG_VERSION"), "; rust");

/// Hosts of the public hub; a mirror may redirect there.
const HUBS: [&str; 2] = ["huggingface.co", "hf.co"];

/// Connections for one pull, opened at the first request.
pub(crate) struct Client<'a> {
    settings: &'a Settings,
    agents: Mutex<Agents>,
}

#[derive(Default)]
struct Agents {
    /// Agents by (TLS, proxy).
    made: Vec<((bool, bool), Agent)>,
    stopped: bool,
}

/// An answer, and the address that it came from.
pub(crate) struct Answer {
    pub(crate) uri: Uri,
    pub(crate) response: Response<Body>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        text(self.response.headers(), name)
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Target of a redirect; `None` for any other status.
    pub(crate) fn redirect(&self) -> Result<Option<Uri>> {
        if !matches!(self.status(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let odd = |message: String| Error::NotAHub { url: shown(&self.uri), message };
        let location = self.header("location").ok_or_else(|| odd("a redirect without an address".into()))?;
        let target =
            join(&self.uri, location).ok_or_else(|| odd("a redirect to an address other than http or https".into()))?;
        if self.uri.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
            return Err(odd(format!("it redirects from https to {}, which is not secure", shown(&target))));
        }
        Ok(Some(target))
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

impl<'a> Client<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self { settings, agents: Mutex::default() }
    }

    pub(crate) fn settings(&self) -> &'a Settings {
        self.settings
    }

    /// An address below the endpoint.
    pub(crate) fn address(&self, path: &str) -> Result<Uri> {
        let text = format!("{}/{path}", self.settings.endpoint);
        text.parse().map_err(|_| Error::NotAHub { url: text, message: "not a valid address".into() })
    }

    /// Metadata of a file. Redirects within the hub (renamed repositories) are followed. A redirect to another host is not:
    /// that answer carries the metadata.
    pub(crate) fn head(&self, uri: Uri) -> Result<Answer> {
        self.follow(Method::HEAD, uri, None, |client, target| client.is_hub(target))
    }

    /// Content from byte offset `from`.
    pub(crate) fn get(&self, uri: Uri, from: Option<u64>) -> Result<Answer> {
        self.follow(Method::GET, uri, from, |_, _| true)
    }

    fn follow(&self, method: Method, uri: Uri, from: Option<u64>, may: impl Fn(&Self, &Uri) -> bool) -> Result<Answer> {
        let first = shown(&uri);
        let mut uri = uri;
        for _ in 0..MOST_REDIRECTS {
            let response = self.send(method.clone(), &uri, from)?;
            let answer = Answer { uri, response };
            match answer.redirect()? {
                Some(target) if may(self, &target) => uri = target,
                _ => return Ok(answer),
            }
        }
        Err(Error::NotAHub { url: first, message: format!("more than {MOST_REDIRECTS} redirects") })
    }

    /// Sends one request; an answer of any status is `Ok`.
    fn send(&self, method: Method, uri: &Uri, from: Option<u64>) -> Result<Response<Body>> {
        let patience = match method {
            Method::HEAD => self.settings.etag_timeout,
            _ => self.settings.download_timeout,
        };
        let mut request = Request::builder().method(method).uri(uri.clone());
        if let Some(token) = &self.settings.token
            && self.is_trusted(uri)
        {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        if let Some(from) = from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let request = request.body(()).map_err(|error| failure(uri, ureq::Error::Http(error)))?;
        let agent = self.agent(uri)?;
        let request = agent
            .configure_request(request)
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .build();
        agent.run(request).map_err(|error| failure(uri, error))
    }

    /// Whether the token may be sent to an address: only to the endpoint's origin.
    pub(crate) fn is_trusted(&self, uri: &Uri) -> bool {
        let endpoint = self.settings.endpoint.parse().ok();
        match (endpoint.and_then(|endpoint| Origin::of(&endpoint)), Origin::of(uri)) {
            (Some(endpoint), Some(origin)) => endpoint.trusts(&origin),
            _ => false,
        }
    }

    /// Whether an address is the endpoint's or the public hub's.
    fn is_hub(&self, uri: &Uri) -> bool {
        let secure_hub = |origin: Origin| origin.is_secure() && origin.port() == 443 && HUBS.contains(&origin.host());
        self.is_trusted(uri) || Origin::of(uri).is_some_and(secure_hub)
    }

    /// The agent for an address, created on first use.
    fn agent(&self, uri: &Uri) -> Result<Agent> {
        let origin = Origin::of(uri).ok_or_else(|| failure(uri, ureq::Error::BadUri(shown(uri))))?;
        let proxy = self.settings.proxies.of(&origin);
        let key = (origin.is_secure(), proxy.is_some());
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if agents.stopped {
            return Err(Error::Stopped);
        }
        if let Some((_, agent)) = agents.made.iter().find(|(made, _)| *made == key) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(USER_AGENT)
            // compressed files have other lengths and cannot be resumed
            .accept_encoding("identity")
            .max_idle_connections_per_host(self.settings.connections.max(1));
        let proxy = match proxy {
            Some(address) => Some(Proxy::new(address).map_err(|_| Error::Setting {
                variable: if origin.is_secure() { "HTTPS_PROXY (or ALL_PROXY)" } else { "HTTP_PROXY (or ALL_PROXY)" },
                expected: "the address of a proxy, such as http://proxy:3128 or socks5://127.0.0.1:1080",
                // the address may hold a password
                found: format!("an invalid value of {} characters", address.chars().count()),
            })?),
            None => None,
        };
        let proxy_is_secure = proxy.as_ref().is_some_and(|proxy| proxy.protocol() == ureq::ProxyProtocol::Https);
        if origin.is_secure() || proxy_is_secure {
            config = config.tls_config(tls::config(self.settings)?);
        }
        let agent = config.proxy(proxy).build().new_agent();
        agents.made.push((key, agent.clone()));
        Ok(agent)
    }

    /// Aborts every running request, and refuses later ones.
    pub(crate) fn stop(&self) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.stopped = true;
        for (_, agent) in agents.made.drain(..) {
            agent.shutdown();
        }
    }
}

impl crate::settings::Proxies {
    /// The proxy for an origin.
    fn of(&self, origin: &Origin) -> Option<&str> {
        let own = if origin.is_secure() { &self.https } else { &self.http };
        let proxy = own.as_deref().or(self.all.as_deref())?;
        let host = origin.host().trim_matches(['[', ']']);
        let direct = self.none.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            let entry = entry.to_ascii_lowercase();
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() && !name.ends_with(':') => (name, port.parse().ok()),
                _ => (entry.as_str(), None),
            };
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            let below = host.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'));
            (name == "*" || below) && port.is_none_or(|port: u16| port == origin.port())
        });
        (!direct).then_some(proxy)
    }
}

/// Converts an error of `ureq`.
pub(crate) fn failure(uri: &Uri, error: ureq::Error) -> Error {
    let url = shown(uri);
    let unreachable = |message: String| Error::Unreachable { url: url.clone(), message };
    let broken = |message: String| Error::Broken { url: url.clone(), message };
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => unreachable("timeout: no connection".into()),
        ureq::Error::Timeout(_) => broken("timeout: no data".into()),
        ureq::Error::HostNotFound => unreachable("unknown host".into()),
        ureq::Error::ConnectionFailed => unreachable("no connection".into()),
        ureq::Error::ConnectProxyFailed(message) => unreachable(format!("the proxy refused: {message}")),
        ureq::Error::Rustls(error) => Error::Handshake { url, message: error.to_string() },
        ureq::Error::Tls(message) => Error::Handshake { url, message: message.into() },
        ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => Error::Handshake { url, message: inner.to_string() },
            None => match error.kind() {
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::InvalidData => broken(error.to_string()),
                // an unknown host name has no error kind of its own
                _ => unreachable(error.to_string()),
            },
        },
        other => broken(other.to_string()),
    }
}

/// Pause requested by the hub: `Retry-After`, or `RateLimit: "api";r=0;t=55`.
pub(crate) fn wanted_pause(headers: &HeaderMap) -> Option<Duration> {
    let limit = text(headers, "ratelimit").filter(|limit| parameter(limit, "r") == Some(0));
    let seconds = match text(headers, "retry-after").and_then(|text| text.parse().ok()) {
        Some(seconds) => Some(seconds),
        None => limit.and_then(|limit| parameter(limit, "t")),
    };
    seconds.map(Duration::from_secs)
}

fn parameter(limit: &str, name: &str) -> Option<u64> {
    limit.split([';', ',']).find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Proxies;

    #[test]
    fn pauses_that_the_hub_asks_for() {
        let wait = |pairs: &[(&'static str, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            wanted_pause(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(&[("retry-after", "7")]), Some(7));
        assert_eq!(wait(&[("ratelimit", "\"api\";r=0;t=55")]), Some(55));
        assert_eq!(wait(&[("ratelimit", "\"api\"; r=0; t=55"), ("retry-after", "3")]), Some(3));
        assert_eq!(wait(&[("ratelimit", "\"api\";r=12;t=55")]), None);
        assert_eq!(wait(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]), None);
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn proxies_by_scheme_and_host() {
        let proxies = Proxies {
            https: Some("s".into()),
            http: None,
            all: Some("a".into()),
            none: "example.com, .local,10.0.0.1:81,*.x.org".into(),
        };
        let of = |uri: &str| proxies.of(&Origin::of(&uri.parse().unwrap()).unwrap()).map(str::to_owned);
        assert_eq!(of("https://hf.co/").as_deref(), Some("s"));
        assert_eq!(of("http://hf.co/").as_deref(), Some("a"));
        assert_eq!(of("http://10.0.0.1:80/").as_deref(), Some("a"));
        assert_eq!(of("http://notexample.com/").as_deref(), Some("a"));
        for direct in [
            "https://EXAMPLE.com/",
            "http://a.example.com/",
            "http://b.local/",
            "http://10.0.0.1:81/",
            "https://y.x.org/",
        ] {
            assert_eq!(of(direct), None, "{direct}");
        }
        let all = Proxies { none: "*".into(), ..proxies.clone() };
        assert_eq!(all.of(&Origin::of(&"https://hf.co/".parse().unwrap()).unwrap()), None);
    }
}
