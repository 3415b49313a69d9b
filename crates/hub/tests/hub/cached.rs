//! The cache: offline use, snapshots of other programs, links, and removal.

use crate::server::{Fault, File, Repo, noise};
use crate::{Place, assert_whole, message, named};
use phi3_hub::{Error, Event, Hub, Wanted};
use std::fs;
use std::path::Path;

#[test]
fn without_a_network_the_cache_is_enough() {
    let repo = Repo::published("a/b", 1000);
    let mut place = Place::new(vec![repo.clone()]);
    let local = place.get("a/b").unwrap();
    place.settings.offline = true;
    place.server.requests();
    for name in ["a/b".to_owned(), "a/b@main".into(), format!("a/b@{}", repo.commit)] {
        assert_eq!(place.get(&name).unwrap(), local, "{name}");
    }
    let error = message(place.get("a/other"));
    assert!(error.contains("a/other") && error.contains("switched off") && error.contains("HF_HUB_OFFLINE"), "{error}");
    assert!(matches!(place.pull("a/b"), Err(Error::Offline { .. })));
    assert!(matches!(place.get("a/b@other"), Err(Error::Offline { .. })));
    assert!(place.server.requests().is_empty());
}

/// The snapshot of a program that stores no listing and fetches only some files.
fn by_another_program(place: &Place, repo: &Repo, files: &[&str]) {
    let folder = place.folder(&repo.name);
    let snapshot = folder.join("snapshots").join(&repo.commit);
    for part in ["refs", "blobs"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    fs::write(folder.join("refs/main"), &repo.commit).unwrap();
    for path in files {
        let (file, pointer) = (repo.file(path), snapshot.join(path));
        fs::create_dir_all(pointer.parent().unwrap()).unwrap();
        fs::write(folder.join("blobs").join(file.etag()), &file.content).unwrap();
        fs::write(pointer, &file.content).unwrap();
    }
}

#[test]
fn what_another_program_fetched_is_used_and_completed() {
    let repo = Repo::published("a/b", 1000);
    let place = Place::new(vec![repo.clone()]);
    let weights =
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"];
    by_another_program(
        &place,
        &repo,
        &[&weights[..], &["config.json", "tokenizer.json", "tokenizer_config.json"]].concat(),
    );
    // the listing is requested, and the missing file fetched
    let local = place.get("a/b").unwrap();
    assert_whole(&local, &repo);
    assert_eq!(local.files.len(), 7);
    let asked: Vec<String> = place.server.requests().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert!(asked.len() == 3 && asked[2].contains("generation_config.json"), "{asked:?}");

    // without an answer, the cached files are used
    let place = Place::new(vec![repo.clone()]);
    by_another_program(
        &place,
        &repo,
        &[&weights[..], &["config.json", "tokenizer.json", "tokenizer_config.json"]].concat(),
    );
    place.server.fault("/api/", 100, Fault::Status(503, Vec::new()));
    let (local, events) = place.watched(|hub, watch| hub.get(&named("a/b"), Wanted::Model, watch));
    assert_eq!(local.unwrap().files.len(), 6);
    assert!(events.iter().any(|event| matches!(event, Event::Unreachable { .. })), "{events:?}");

    // a missing shard is an error
    let mut place = Place::new(vec![repo.clone()]);
    by_another_program(&place, &repo, &["config.json", "tokenizer.json", weights[0], weights[2]]);
    place.settings.offline = true;
    assert!(matches!(place.get("a/b"), Err(Error::Offline { .. })));
    let text = place.watched(|hub, watch| hub.get(&named("a/b"), Wanted::Text, watch)).0;
    assert_eq!(text.unwrap().files.len(), 2);
}

#[test]
fn a_file_is_named_or_the_listing_is_known_before_a_gguf_file_is_taken_from_the_cache() {
    let repo =
        Repo::new("a/b", vec![File::large("b-Q8_0.gguf", noise(10, 1)), File::large("b-Q4_K_M.gguf", noise(20, 2))]);
    let place = Place::new(vec![repo.clone()]);
    by_another_program(&place, &repo, &["b-Q8_0.gguf"]);
    assert_whole(&place.get("a/b:q8_0").unwrap(), &repo);
    assert!(place.server.requests().is_empty());
    // the only cached file is not the repository's default
    assert!(place.get("a/b").unwrap().path.ends_with("b-Q4_K_M.gguf"));
    place.server.requests();
    assert!(place.get("a/b").unwrap().path.ends_with("b-Q4_K_M.gguf"));
    assert!(place.server.requests().is_empty());
}

#[test]
fn a_file_that_was_cut_short_is_fetched_again() {
    let repo = Repo::published("a/b", 1000);
    let place = Place::new(vec![repo.clone()]);
    let local = place.get("a/b").unwrap();
    let etag = repo.file("model-00001-of-00002.safetensors").etag();
    fs::write(place.folder("a/b").join("blobs").join(etag), "short").unwrap();
    assert_eq!(place.hub().cached(&named("a/b"), Wanted::Model).unwrap(), None);
    assert_whole(&place.get("a/b").unwrap(), &repo);
    fs::remove_file(local.path.join("config.json")).unwrap();
    assert_whole(&place.get("a/b").unwrap(), &repo);
}

#[test]
fn without_links_snapshots_hold_files() {
    let repo = Repo::published("a/b", 1000);
    let mut place = Place::new(vec![repo.clone()]);
    place.settings.symlinks = false;
    let local = place.get("a/b").unwrap();
    assert_whole(&local, &repo);
    let is_link = |path: &Path| fs::symlink_metadata(path).unwrap().is_symlink();
    assert!(local.files.iter().all(|file| !is_link(&local.path.join(file.as_str()))));
    place.server.requests();
    assert_eq!(place.get("a/b").unwrap(), local);
    assert_eq!(place.pull("a/b").unwrap(), local);
    assert_eq!(place.server.requests().len(), 1);
    let removed = place.hub().remove(&named("a/b@main")).unwrap();
    let bytes: usize = local.files.iter().map(|file| repo.file(file.as_str()).content.len()).sum();
    assert_eq!((removed.files, removed.bytes), (7, bytes as u64));
    assert!(!place.folder("a/b").exists());
}

/// A cache without write permission. As root the test proves nothing, and says so.
#[cfg(unix)]
#[test]
fn a_read_only_cache_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let repo = Repo::published("a/b", 1000);
    let place = Place::new(vec![repo.clone()]);
    let local = place.get("a/b").unwrap();
    let folders =
        [place.cache.path().to_owned(), place.folder("a/b"), local.path.clone(), place.folder("a/b").join("blobs")];
    let set = |mode| {
        for folder in &folders {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    let may_write = fs::write(place.cache.path().join("x"), "x").is_ok();
    let (used, failed) = (place.get("a/b"), place.pull("a/other"));
    set(0o755);
    assert_eq!(used.unwrap(), local);
    assert!(failed.is_err());
    if may_write {
        println!("skipped: this user may write everywhere");
    }
}

/// A store shared by several repositories: `blobs/<etag>` is a link into it.
#[cfg(unix)]
#[test]
fn a_blob_in_a_shared_store_is_used_and_never_removed() {
    let repo = Repo::published("a/b", 1000);
    let place = Place::new(vec![repo.clone()]);
    let local = place.get("a/b").unwrap();
    let etag = repo.file("model-00001-of-00002.safetensors").etag();
    let (blob, store) = (place.folder("a/b").join("blobs").join(&etag), place.cache.path().join("blobs/ab/abcd"));
    fs::create_dir_all(store.parent().unwrap()).unwrap();
    fs::rename(&blob, &store).unwrap();
    std::os::unix::fs::symlink("../../blobs/ab/abcd", &blob).unwrap();
    place.server.requests();
    assert_eq!(place.get("a/b").unwrap(), local);
    assert_whole(&local, &repo);
    assert!(place.server.requests().is_empty());
    let listed = place.hub().repositories().unwrap();
    let bytes: usize = local.files.iter().map(|file| repo.file(file.as_str()).content.len()).sum();
    assert_eq!((listed.len(), listed[0].bytes), (1, bytes as u64));
    for name in ["a/b@main", "a/b"] {
        let removed = place.hub().remove(&named(name)).unwrap();
        assert_eq!((removed.files, removed.bytes), (7, bytes as u64 - 1000), "{name}");
        assert!(store.exists() && !place.folder("a/b").exists());
        let again = place.get("a/b").unwrap();
        assert_whole(&again, &repo);
        fs::remove_file(&blob).unwrap();
        std::os::unix::fs::symlink("../../blobs/ab/abcd", &blob).unwrap();
    }
}

#[test]
fn the_cache_is_listed() {
    let (model, gguf) =
        (Repo::published("a/b", 1000), Repo::new("c/d", vec![File::large("d-Q8_0.gguf", noise(10, 1))]));
    let place = Place::new(vec![model.clone(), gguf]);
    assert!(place.hub().repositories().unwrap().is_empty());
    place.get("a/b").unwrap();
    place.get("c/d").unwrap();
    fs::create_dir_all(place.cache.path().join("datasets--x--y")).unwrap();
    fs::write(place.cache.path().join("version.txt"), "1").unwrap();
    fs::write(place.folder("c/d").join("blobs/abc.incomplete"), "12345").unwrap();
    let repos = place.hub().repositories().unwrap();
    let names: Vec<&str> = repos.iter().map(|repo| repo.repo.as_str()).collect();
    assert_eq!(names, ["a/b", "c/d"]);
    let [revision] = repos[0].revisions.as_slice() else { panic!("{repos:?}") };
    assert_eq!((&revision.commit, &revision.refs, revision.files.len()), (&model.commit, &vec!["main".to_owned()], 7));
    assert_eq!((revision.bytes(), repos[0].partial.len()), (repos[0].bytes, 0));
    assert_eq!((repos[1].bytes, repos[1].partial[0].1), (15, 5));
    assert!(repos[0].modified.is_some());
}

#[test]
fn a_revision_is_removed_and_what_others_use_stays() {
    let old = Repo::published("a/b", 1000);
    let place = Place::new(vec![old.clone()]);
    place.get("a/b").unwrap();
    let mut files = old.files.clone();
    files.iter_mut().find(|file| file.path == "config.json").unwrap().content = b"{\"other\":1}".to_vec();
    let new = Repo::new("a/b", files);
    place.server.publish(new.clone());
    place.pull("a/b").unwrap();
    let hub = place.hub();
    let size = |repo: &Repo| repo.file("config.json").content.len() as u64;
    let removed = hub.remove(&named(&format!("a/b@{}", old.commit))).unwrap();
    assert_eq!((removed.files, removed.bytes), (7, size(&old)));
    assert_whole(&place.get("a/b").unwrap(), &new);
    assert!(matches!(hub.remove(&named(&format!("a/b@{}", old.commit))), Err(Error::NotCached { .. })));
    for rest in ["snapshots", ".no_exist"] {
        assert!(!place.folder("a/b").join(rest).join(&old.commit).exists());
    }
    let removed = hub.remove(&named("a/b@main")).unwrap();
    assert_eq!(removed.files, 7);
    assert!(!place.folder("a/b").exists() && hub.repositories().unwrap().is_empty());
    let error = message(hub.remove(&named("a/b")));
    assert!(error.contains("a/b") && error.contains("hint: "), "{error}");
}

#[test]
fn a_gguf_file_is_removed_alone() {
    let repo =
        Repo::new("a/b", vec![File::large("x/b-Q8_0.gguf", noise(10, 1)), File::large("b-Q4_K_M.gguf", noise(20, 2))]);
    let place = Place::new(vec![repo]);
    place.get("a/b:q8_0").unwrap();
    place.get("a/b:q4_k_m").unwrap();
    let hub = Hub::new(place.settings.clone());
    let error = message(hub.remove(&named("a/b:q2_k")));
    assert!(error.contains("main (b-Q4_K_M.gguf, x/b-Q8_0.gguf)"), "{error}");
    let removed = hub.remove(&named("a/b:q8_0")).unwrap();
    assert_eq!((removed.files, removed.bytes), (1, 10));
    assert!(hub.cached(&named("a/b:q4_k_m"), Wanted::Model).unwrap().is_some());
    assert!(hub.cached(&named("a/b:q8_0"), Wanted::Model).unwrap().is_none());
    assert_eq!(hub.remove(&named("a/b:b-Q4_K_M.gguf")).unwrap().bytes, 20);
    assert!(!place.folder("a/b").exists());
}

#[test]
fn what_is_being_fetched_is_not_removed() {
    let place = Place::new(vec![Repo::new("a/b", vec![File::large("b-Q4_K_M.gguf", noise(200_000, 1))])]);
    place.server.fault("/store/", 1, Fault::Slow(10_000, std::time::Duration::from_millis(20)));
    let mut refused = None;
    let hub = place.hub();
    let (result, _) = place.watched(|pulling, watch| {
        let mut tell = |event: Event| {
            if matches!(event, Event::Progress { .. }) && refused.is_none() {
                refused = Some(hub.remove(&named("a/b")));
            }
        };
        pulling.get(&named("a/b"), Wanted::Model, &mut phi3_hub::Watch { stop: watch.stop, tell: &mut tell })
    });
    result.unwrap();
    assert!(matches!(refused, Some(Err(Error::InUse { .. }))), "{refused:?}");
    hub.remove(&named("a/b")).unwrap();
}
