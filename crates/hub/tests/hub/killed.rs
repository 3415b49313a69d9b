//! Processes killed during a download.

use crate::server::{Fault, File, Repo, noise};
use crate::{Place, assert_whole, named};
use phi3_hub::{Hub, Settings, Wanted, Watch};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const ENDPOINT: &str = "PHI3_HUB_TEST_ENDPOINT";
const CACHE: &str = "PHI3_HUB_TEST_CACHE";

/// Not a test of its own: the process to be killed.
#[test]
#[ignore = "run by another test"]
fn child() {
    let (Ok(endpoint), Ok(cache)) = (std::env::var(ENDPOINT), std::env::var(CACHE)) else { return };
    let mut settings = Settings::new(cache);
    settings.endpoint = endpoint;
    settings.pause = Duration::from_millis(1);
    let stop = AtomicBool::new(false);
    let pulled = Hub::new(settings).pull(&named("a/b"), Wanted::Model, &mut Watch { stop: &stop, tell: &mut |_| {} });
    pulled.expect("a download");
}

fn start(place: &Place) -> std::process::Child {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["--ignored", "--exact", "killed::child"]).stdout(Stdio::null()).stderr(Stdio::null());
    child.env(ENDPOINT, &place.server.url).env(CACHE, place.cache.path());
    child.spawn().expect("this program starts")
}

#[test]
fn twenty_kills_end_with_the_right_bytes_and_no_byte_is_fetched_twice() {
    let files = vec![
        File::large("b-Q4_K_M-00001-of-00002.gguf", noise(6_000_000, 1)),
        File::large("b-Q4_K_M-00002-of-00002.gguf", noise(5_000_000, 2)),
    ];
    let repo = Repo::new("a/b", files);
    let place = Place::new(vec![repo.clone()]);
    // 30 kB every 10 ms: about two seconds per file
    place.server.fault("/store/", usize::MAX, Fault::Slow(30_000, Duration::from_millis(10)));
    for random in noise(20, u64::from(std::process::id())) {
        let before = place.server.count_at_store();
        let mut child = start(&place);
        while place.server.count_at_store() == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(u64::from(random) * 400));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.server.heal();
    assert!(start(&place).wait().unwrap().success());
    assert_whole(&place.get("a/b").unwrap(), &repo);
    // each request starts at or after the offset of the one before, and only the first ones at 0
    let requests = place.server.requests();
    for file in &repo.files {
        let offsets: Vec<u64> =
            requests.iter().filter(|r| r.at_store && r.path.contains(&file.etag())).map(|r| r.from()).collect();
        let begun = offsets.iter().position(|offset| *offset > 0).unwrap_or(offsets.len());
        println!("{}: {offsets:?}", file.path);
        // a process killed before the first byte leaves nothing to resume
        assert!(offsets[begun..].iter().all(|offset| *offset > 0), "{offsets:?}");
        assert!(offsets.is_sorted(), "{offsets:?}");
        assert!(offsets.len() > 5 && begun < offsets.len(), "{offsets:?}");
    }
}

#[test]
fn a_second_process_waits_for_the_first_and_finds_what_it_fetched() {
    let repo = Repo::new("a/b", vec![File::large("b-Q4_K_M.gguf", noise(1_000_000, 1))]);
    let place = Place::new(vec![repo.clone()]);
    place.server.fault("/store/", 100, Fault::Slow(50_000, Duration::from_millis(20)));
    let mut children = [start(&place), start(&place), start(&place)];
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    assert_eq!(place.server.requests().iter().filter(|request| request.at_store).count(), 1);
    assert_whole(&place.get("a/b").unwrap(), &repo);
}
