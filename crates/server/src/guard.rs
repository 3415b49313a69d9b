//! Checks in front of all paths: who asks, and from where.

use crate::error::{ApiError, ApiResult, Kind};
use crate::options::KeyNumber;
use crate::protocol::new_id;
use crate::state::App;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who asks. Callers share the device equally.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Key(KeyNumber),
    Address(Option<IpAddr>),
}

impl Caller {
    /// The name for the scheduler.
    pub(crate) fn key(&self) -> Option<String> {
        match self {
            Self::Key(KeyNumber(number)) => Some(format!("key {number}")),
            Self::Address(address) => address.map(|address| address.to_string()),
        }
    }
}

/// Names the request, and writes a line about it where wanted.
pub(crate) async fn log(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let is_plain = |id: &&HeaderValue| id.len() <= 128 && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let given = request.headers().get(&REQUEST_ID).filter(is_plain).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&new_id("req-")).ok());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get::<Peer>().copied();
    let mut response = next.run(request).await;
    if let Some(id) = &id {
        response.headers_mut().insert(REQUEST_ID, id.clone());
    }
    if app.options().log {
        let peer = peer.map_or("-".into(), |Peer(address)| address.to_string());
        let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("-");
        let line = format!("{peer} {method} {path:?} {} {:.1?} {id}", response.status().as_u16(), start.elapsed());
        // ignored if standard error is closed
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    response
}

/// Refuses requests of web pages that may not ask, and those by a foreign name of this machine.
pub(crate) async fn place(State(app): State<App>, request: Request, next: Next) -> Response {
    match check_place(&app, request.headers(), request.uri(), request.method()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_place(app: &App, headers: &HeaderMap, uri: &Uri, method: &Method) -> ApiResult<()> {
    let refused =
        |message: String, code| Err(ApiError::new(StatusCode::FORBIDDEN, Kind::Permission, message).code(code));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(uri.authority().map(|a| a.as_str()));
    let options = app.options();
    let name = host.map(host_name).unwrap_or_default();
    // a page of another site can have its own name point to this machine, so that it counts as the page's own origin
    let is_known = is_loopback(name) || options.allowed_hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is_loopback(&options.host) && !is_known {
        return refused(format!("host: expected localhost or an allowed host, found {name:?}"), "forbidden_host");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own =
        origin.split_once("://").is_some_and(|(_, place)| host.is_some_and(|host| place.eq_ignore_ascii_case(host)));
    let allowed = options.allowed_origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin));
    match own || allowed {
        true => Ok(()),
        // errors to such a question are not shown to the page
        false => refused(format!("origin: expected an allowed one, found {origin:?} ({method})"), "forbidden_origin"),
    }
}

/// The name in `name:port`, without brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether a name or address is this machine for itself.
pub(crate) fn is_loopback(name: &str) -> bool {
    let name = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Asks for an API key, if there are any.
pub(crate) async fn key(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let keys = &app.options().api_keys;
    let caller = if keys.is_empty() {
        Caller::Address(request.extensions().get::<Peer>().map(|Peer(address)| address.ip()))
    } else {
        let given = bearer(request.headers());
        match given.and_then(|given| keys.find(given)) {
            Some(number) => Caller::Key(number),
            None => {
                let found = if given.is_some() { "another one" } else { "none" };
                let message = format!("authorization: expected Bearer with a known API key, found {found}");
                let error = ApiError::new(StatusCode::UNAUTHORIZED, Kind::Authentication, message);
                return error.code("invalid_api_key").into_response();
            }
        }
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The key in `Authorization: Bearer KEY`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        let hosts = ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "[::1]", "LOCALHOST", "127.8.8.8"];
        assert!(hosts.iter().all(|host| is_loopback(host_name(host))));
        let others = ["example.org", "localhost.example.org:80", "10.0.0.1", "", "0.0.0.0", "[::]:1"];
        assert!(others.iter().all(|host| !is_loopback(host_name(host))));
    }
}
