//! Downloads with faults.

use crate::server::{Fault, File, Repo, noise};
use crate::{Place, assert_whole, message, named};
use phi3_hub::{Error, Event, Settings, Token, Wanted, Watch};
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A repository of one large file.
fn one(size: usize) -> Repo {
    Repo::new("a/b", vec![File::small("README.md", "x"), File::large("b-Q4_K_M.gguf", noise(size, 7))])
}

/// Partial downloads in the cache.
fn partial(place: &Place) -> Vec<u64> {
    let Ok(blobs) = fs::read_dir(place.folder("a/b").join("blobs")) else { return Vec::new() };
    let partial =
        blobs.map(|entry| entry.unwrap()).filter(|entry| entry.file_name().to_string_lossy().contains("incomplete"));
    partial.map(|entry| entry.metadata().unwrap().len()).collect()
}

fn ranges(place: &Place) -> Vec<u64> {
    place.server.requests().iter().filter(|request| request.at_store).map(|request| request.from()).collect()
}

#[test]
fn a_broken_connection_goes_on_where_it_ended() {
    let repo = one(500_000);
    for fault in [Fault::Cut(100_000), Fault::Stall(100_000)] {
        let mut place = Place::new(vec![repo.clone()]);
        place.settings.download_timeout = Duration::from_millis(300);
        place.server.fault("/store/", 2, fault);
        let (local, events) = place.watched(|hub, watch| hub.get(&named("a/b"), Wanted::Model, watch));
        assert_whole(&local.unwrap(), &repo);
        assert_eq!(ranges(&place), [0, 100_000, 200_000]);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Retrying { .. })).count(), 2, "{events:?}");
    }
}

#[test]
fn what_has_arrived_is_kept_when_it_is_given_up_and_the_next_try_goes_on() {
    let repo = one(500_000);
    let place = Place::new(vec![repo.clone()]);
    // four pieces, and then four more requests without a new byte
    place.server.fault("/store/", 4, Fault::Cut(50_000));
    place.server.fault("/store/", 100, Fault::Cut(0));
    let error = place.get("a/b").unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert!(error.to_string().contains("received bytes are kept") && !error.to_string().contains("secret"), "{error}");
    assert_eq!(partial(&place), [200_000]);
    assert_eq!(ranges(&place), [0, 50_000, 100_000, 150_000, 200_000, 200_000, 200_000, 200_000]);
    place.server.heal();
    let (local, events) = place.watched(|hub, watch| hub.get(&named("a/b"), Wanted::Model, watch));
    assert_whole(&local.unwrap(), &repo);
    assert_eq!(ranges(&place), [200_000]);
    let started = Event::Started { file: "b-Q4_K_M.gguf".into(), size: Some(500_000), from: 200_000 };
    assert!(events.contains(&started), "{events:?}");
    assert_eq!(partial(&place), [0u64; 0]);
}

#[test]
fn a_server_that_ignores_ranges_begins_anew_and_comes_to_an_end() {
    let repo = one(300_000);
    for fault in [Fault::IgnoreRange, Fault::WrongRange] {
        let place = Place::new(vec![repo.clone()]);
        place.server.fault("/store/", 1, Fault::Cut(100_000));
        place.server.fault("/store/", 1, fault);
        assert_whole(&place.get("a/b").unwrap(), &repo);
        assert_eq!(ranges(&place), [0, 100_000, 0]);
    }
    // a server that also breaks the connection every time
    let place = Place::new(vec![repo]);
    for _ in 0..20 {
        place.server.fault("/store/", 1, Fault::Cut(100_000));
        place.server.fault("/store/", 1, Fault::IgnoreRange);
    }
    assert!(matches!(place.get("a/b"), Err(Error::Broken { .. })));
    assert!(ranges(&place).len() <= 6);
}

#[test]
fn other_content_than_the_hub_says_is_an_error_and_is_removed() {
    let repo = one(100_000);
    let place = Place::new(vec![repo.clone()]);
    place.server.fault("/store/", 1, Fault::Flip);
    let error = place.get("a/b").unwrap_err();
    assert!(matches!(error, Error::Checksum { kind: "SHA-256", .. }), "{error}");
    assert!(error.to_string().contains(&repo.file("b-Q4_K_M.gguf").etag()), "{error}");
    assert_eq!(partial(&place), [0u64; 0]);
    assert_eq!(place.hub().cached(&named("a/b"), Wanted::Model).unwrap(), None);

    place.server.fault("/store/", 1, Fault::Longer);
    let error = place.get("a/b").unwrap_err();
    assert!(matches!(error, Error::Length { expected: 100_000, found: 100_004, .. }), "{error}");
    assert_eq!(partial(&place), [0u64; 0]);
    assert_whole(&place.get("a/b").unwrap(), &repo);

    // small files are checked against git blob hashes
    let place = Place::new(vec![Repo::published("a/b", 1000)]);
    place.server.fault("GET /a/b/resolve/", 1, Fault::Flip);
    let error = place.get("a/b").unwrap_err();
    assert!(matches!(error, Error::Checksum { kind: "SHA-1 of the git blob", .. }), "{error}");
}

#[test]
fn a_damaged_rest_of_an_earlier_try_is_fetched_again_from_the_beginning() {
    let repo = one(100_000);
    for damaged in [vec![0; 60_000], vec![0; 100_000], vec![0; 100_001]] {
        let place = Place::new(vec![repo.clone()]);
        let blobs = place.folder("a/b").join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        let etag = repo.file("b-Q4_K_M.gguf").etag();
        fs::write(blobs.join(format!("{etag}.phi3-run.incomplete")), &damaged).unwrap();
        assert_whole(&place.get("a/b").unwrap(), &repo);
        let expected = if damaged.len() == 60_000 { vec![60_000, 0] } else { vec![0] };
        assert_eq!(ranges(&place), expected);
    }
    // a complete partial download needs no request for content
    let place = Place::new(vec![repo.clone()]);
    let blobs = place.folder("a/b").join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let file = repo.file("b-Q4_K_M.gguf");
    fs::write(blobs.join(format!("{}.phi3-run.incomplete", file.etag())), &file.content).unwrap();
    assert_whole(&place.get("a/b").unwrap(), &repo);
    assert_eq!(ranges(&place), [0u64; 0]);
}

#[test]
fn compressed_answers_and_answers_without_a_length_are_read() {
    let repo = Repo::published("a/b", 70_000);
    let place = Place::new(vec![repo.clone()]);
    place.server.fault("GET /a/b/resolve/", 3, Fault::Gzip);
    place.server.fault("GET /api/", 1, Fault::Gzip);
    place.server.fault("/store/", 2, Fault::Gzip);
    place.server.fault("/store/", 1, Fault::NoLength);
    assert_whole(&place.get("a/b").unwrap(), &repo);
    // a compressed download cannot be resumed
    let repo = one(100_000);
    let place = Place::new(vec![repo.clone()]);
    place.server.fault("/store/", 1, Fault::Cut(50_000));
    place.server.fault("/store/", 1, Fault::Gzip);
    assert_whole(&place.get("a/b").unwrap(), &repo);
    // without X-Linked-Size, the listing's length is used
    let mut place = Place::new(vec![Repo::published("a/b", 1000)]);
    place.settings.tries = 1;
    place.server.fault("HEAD", 100, Fault::Without("X-Linked-Size"));
    assert_whole(&place.get("a/b").unwrap(), &Repo::published("a/b", 1000));
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new(vec![Repo::published("a/b", 1000)]);
    let refused = |status: u16, code: &str, text: &str| {
        let headers = vec![("X-Error-Code", code.to_owned()), ("X-Error-Message", text.to_owned())];
        let headers = headers.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Fault::Status(status, headers)
    };
    for (at, fault, kind, words) in [
        ("/api/", refused(401, "", "Invalid credentials in Authorization header"), "Refused", ["token", "expired"]),
        ("/api/", refused(401, "", "Invalid username or password."), "RepoNotFound", ["a/b", "private"]),
        ("/api/", refused(404, "", ""), "RepoNotFound", ["a/b", "HF_TOKEN"]),
        ("/api/", refused(403, "GatedRepo", "ask first"), "Gated", ["ask first", "/a/b"]),
        ("HEAD", refused(401, "GatedRepo", "Access is restricted"), "Gated", ["Access is restricted", "HF_TOKEN"]),
        ("HEAD", refused(403, "", "no rights"), "Refused", ["no rights", "HF_TOKEN"]),
        ("HEAD", refused(404, "", ""), "FileNotFound", ["model.safetensors.index.json", "files are listed"]),
        ("/api/", refused(418, "", "tea"), "Status", ["418", "tea"]),
    ] {
        place.server.heal();
        place.server.fault(at, 100, fault);
        let error = place.get("a/b").unwrap_err();
        assert!(format!("{error:?}").starts_with(kind), "{kind}: {error:?}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)) && text.contains("hint: "), "{text}");
    }
    place.server.heal();
    let none = place.get("a/none").unwrap_err();
    assert!(matches!(none, Error::RepoNotFound { .. }), "{none}");
    let none = place.get("a/b@v9").unwrap_err();
    assert!(matches!(&none, Error::RevisionNotFound { revision, .. } if revision == "v9"), "{none}");
    let none = place.watched(|hub, watch| {
        let file = phi3_hub::FilePath::new("none.json").unwrap();
        hub.metadata(named("a/b").repo(), "main", &file, watch)
    });
    assert!(matches!(&none.0, Err(Error::FileNotFound { file, .. }) if file == "none.json"), "{:?}", none.0);
}

#[test]
fn busy_and_broken_hubs_are_asked_again() {
    let repo = Repo::published("a/b", 1000);
    let place = Place::new(vec![repo.clone()]);
    let limited = |wait: &str| Fault::Status(429, vec![("RateLimit", format!("\"api\";r=0;t={wait}"))]);
    place.server.fault("/api/", 1, limited("1"));
    place.server.fault("HEAD", 2, Fault::Status(503, Vec::new()));
    place.server.fault("/store/", 1, Fault::Status(429, vec![("Retry-After", "0".into())]));
    place.server.fault("/store/", 1, Fault::Status(500, Vec::new()));
    place.server.fault("GET /a/b/resolve", 1, Fault::Status(408, Vec::new()));
    let start = Instant::now();
    let (local, events) = place.watched(|hub, watch| hub.get(&named("a/b"), Wanted::Model, watch));
    assert_whole(&local.unwrap(), &repo);
    assert!(start.elapsed() >= Duration::from_secs(1));
    let pauses = events.iter().filter(|event| matches!(event, Event::Retrying { .. })).count();
    assert_eq!(pauses, 6, "{events:?}");

    let other = Place::new(vec![repo]);
    other.server.fault("/api/", 100, Fault::Status(502, Vec::new()));
    let error = other.get("a/b").unwrap_err();
    assert!(matches!(error, Error::Status { status: 502, .. }), "{error}");
    assert_eq!(other.server.requests().len(), 5);
    // a wait of an hour is refused
    other.server.heal();
    other.server.fault("/api/", 1, limited("3600"));
    let error = other.get("a/b").unwrap_err();
    assert!(error.to_string().contains("3600 seconds"), "{error}");
}

#[test]
fn an_expired_address_of_the_store_is_asked_for_anew() {
    let repo = one(1000);
    let place = Place::new(vec![repo.clone()]);
    place.server.fault("/store/", 2, Fault::Status(403, Vec::new()));
    assert_whole(&place.get("a/b").unwrap(), &repo);
    let asked = place.server.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/resolve/")).count();
    assert_eq!(asked, 3);
}

#[test]
fn what_is_no_hub_is_recognised() {
    let repo = one(1000);
    let place = Place::new(vec![repo]);
    for (at, fault, word) in [
        ("HEAD", Fault::Without("X-Repo-Commit"), "X-Repo-Commit"),
        ("HEAD", Fault::With("X-Repo-Commit", "0a".repeat(20)), "another commit"),
        ("HEAD", Fault::With("X-Repo-Commit", "main".into()), "not a commit"),
        ("HEAD", Fault::Without("X-Linked-Etag"), "ETag"),
        ("HEAD", Fault::With("X-Linked-Etag", "\"../../x\"".into()), "ETag"),
        ("HEAD", Fault::With("X-Linked-Etag", format!("\"{}\"", "0a".repeat(32))), "SHA-256"),
        ("HEAD", Fault::With("X-Linked-Size", "999".into()), "999"),
        ("HEAD", Fault::With("X-Linked-Size", "many".into()), "size"),
        ("HEAD", Fault::With("Location", "ftp://x/y".into()), "redirect"),
        ("HEAD", Fault::Without("Location"), "redirect"),
        ("/api/", Fault::Status(200, Vec::new()), "JSON"),
    ] {
        place.server.heal();
        place.server.fault(at, 100, fault.clone());
        let error = place.get("a/b").unwrap_err();
        assert!(matches!(error, Error::NotAHub { .. }), "{fault:?}: {error}");
        assert!(error.to_string().contains(word) && error.to_string().contains("HF_ENDPOINT"), "{fault:?}: {error}");
    }
    place.server.heal();
    let circle = format!("{}/api/models/a/b/revision/main", place.server.url);
    place.server.fault("/api/", 100, Fault::Status(302, vec![("Location", circle)]));
    assert!(message(place.get("a/b")).contains("redirects"));
}

#[test]
fn the_token_is_not_told_to_another_port_host_or_place_of_the_store() {
    let repo = one(1000);
    let elsewhere = Place::new(vec![repo.clone()]);
    let mut place = Place::new(vec![repo]);
    place.settings.token = Token::new("hf_secret", "HF_TOKEN").unwrap();
    let target = format!("{}/api/models/a/b/revision/main", elsewhere.server.url);
    place.server.fault("/api/", 1, Fault::Status(302, vec![("Location", target)]));
    place.get("a/b").unwrap();
    let asked = elsewhere.server.requests();
    assert!(asked.len() == 1 && !asked[0].headers.contains_key("authorization"), "{asked:?}");
    let requests = place.server.requests();
    assert!(requests.iter().all(|request| request.at_store != request.headers.contains_key("authorization")));
}

#[test]
fn a_stop_ends_soon_and_keeps_what_has_arrived() {
    let repo = one(500_000);
    let place = Place::new(vec![repo.clone()]);
    place.server.fault("/store/", 1, Fault::Stall(200_000));
    stopped(&place, Duration::from_millis(300));
    let kept = partial(&place);
    assert!(kept.len() == 1 && kept[0] > 0, "{kept:?}");
    assert_whole(&place.get("a/b").unwrap(), &repo);
    assert_eq!(ranges(&place), [0, kept[0]]);
    // a stop while the hub does not answer
    place.server.fault("/api/", 1, Fault::Stall(0));
    stopped(&place, Duration::from_millis(200));
}

/// Stops a pull after a while.
fn stopped(place: &Place, after: Duration) {
    let (stop, start) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(after);
            stop.store(true, Ordering::Relaxed);
        });
        let result = place.hub().pull(&named("a/b"), Wanted::Model, &mut Watch { stop: &stop, tell: &mut |_| {} });
        assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
    });
    // far below the read timeout of ten seconds
    assert!(start.elapsed() < after + Duration::from_secs(2));
}

#[test]
fn nobody_at_home_is_told_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cache = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(cache.path());
    settings.pause = Duration::from_secs(60);
    for endpoint in [format!("http://127.0.0.1:{port}"), "http://no-such-host.invalid".into()] {
        settings.endpoint = endpoint.clone();
        let hub = phi3_hub::Hub::new(settings.clone());
        let stop = AtomicBool::new(false);
        let error = hub.get(&named("a/b"), Wanted::Model, &mut Watch { stop: &stop, tell: &mut |_| {} }).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }) && error.is_unreachable(), "{error}");
        assert!(error.to_string().contains(&endpoint), "{error}");
    }
    // an address without a proxy
    settings.proxies.http = Some(format!("http://127.0.0.1:{port}"));
    let hub = phi3_hub::Hub::new(settings.clone());
    let stop = AtomicBool::new(false);
    let error = hub.get(&named("a/b"), Wanted::Model, &mut Watch { stop: &stop, tell: &mut |_| {} }).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    settings.proxies.http = Some("nonsense://secret:password@x".into());
    let hub = phi3_hub::Hub::new(settings);
    let error = hub.get(&named("a/b"), Wanted::Model, &mut Watch { stop: &stop, tell: &mut |_| {} }).unwrap_err();
    assert!(error.to_string().contains("HTTP_PROXY") && !error.to_string().contains("password"), "{error}");
}
