//! Downloads without faults.

use crate::server::{File, Repo, noise};
use crate::{Place, assert_whole, message, named, snapshot};
use phi3_hub::{Error, Event, Token, Wanted};
use std::collections::BTreeSet;
use std::fs;

#[test]
fn a_published_checkpoint_is_fetched_with_what_it_needs_and_nothing_else() {
    let repo = Repo::published("a/b", 300_000);
    let mut place = Place::new(vec![repo.clone()]);
    place.settings.token = Token::new("hf_secret", "HF_TOKEN").unwrap();
    let (local, events) = place.watched(|hub, watch| hub.get(&named("a/b"), Wanted::Model, watch));
    let local = local.unwrap();
    assert_whole(&local, &repo);
    let names: BTreeSet<&str> = local.files.iter().map(|file| file.as_str()).collect();
    let expected = [
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert!(names.iter().eq(&expected), "{names:?}");
    assert_eq!(local.path, place.folder("a/b").join("snapshots").join(&repo.commit));

    // Python's layout
    let folder = place.folder("a/b");
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), repo.commit);
    let shard = "model-00001-of-00002.safetensors";
    assert!(folder.join("blobs").join(repo.file(shard).etag()).is_file());
    #[cfg(unix)]
    {
        let link = fs::read_link(local.path.join(shard)).unwrap();
        assert_eq!(link.display().to_string(), format!("../../blobs/{}", repo.file(shard).etag()));
    }
    assert!(folder.join(".no_exist").join(&repo.commit).join("added_tokens.json").is_file());
    assert!(place.cache.path().join("CACHEDIR.TAG").is_file());
    let lock = format!(".locks/models--a--b/{}.lock", repo.file(shard).etag());
    assert!(place.cache.path().join(lock).is_file());
    assert!(fs::read_dir(folder.join("blobs")).unwrap().all(|entry| entry.unwrap().path().extension().is_none()));

    // the token was sent to the hub only, not to the store
    let requests = place.server.requests();
    let token = |at_store| {
        requests.iter().filter(move |request| request.at_store == at_store).map(|r| r.headers.get("authorization"))
    };
    assert!(
        token(false).count() > 5 && token(false).all(|token| token.is_some_and(|token| token == "Bearer hf_secret"))
    );
    assert!(token(true).count() == 3 && token(true).all(|token| token.is_none()));
    assert!(requests.iter().all(|request| request.headers["accept-encoding"] == "identity"));
    assert!(requests.iter().all(|request| !request.path.contains("pytorch_model") && !request.path.contains("README")));

    // the events are consistent
    let Some(Event::Planned { files, bytes }) = events.iter().find(|event| matches!(event, Event::Planned { .. }))
    else {
        panic!("no plan in {events:?}");
    };
    // the index was fetched before
    assert_eq!(*files, 6);
    let planned =
        expected.iter().filter(|name| !name.contains("index")).map(|name| repo.file(name).content.len() as u64);
    assert_eq!(*bytes, planned.sum::<u64>());
    for name in expected {
        let size = repo.file(name).content.len() as u64;
        assert!(
            events.contains(&Event::Started { file: name.into(), size: Some(size), from: 0 }),
            "{name}: {events:?}"
        );
        assert!(events.contains(&Event::Finished { file: name.into(), size }), "{name}: {events:?}");
    }

    // no further requests
    assert_eq!(place.get("a/b").unwrap(), local);
    assert_eq!(place.hub().cached(&named("a/b"), Wanted::Model).unwrap(), Some(local.clone()));
    assert_eq!(place.get(&format!("a/b@{}", repo.commit)).unwrap(), local);
    assert_eq!(place.pull(&format!("a/b@{}", repo.commit)).unwrap(), local);
    assert!(place.server.requests().is_empty());
    // except for a pull of the newest commit
    assert_eq!(place.pull("a/b").unwrap(), local);
    assert_eq!(place.server.requests().len(), 1);
}

#[test]
fn gguf_files_are_fetched_by_quantization_by_name_and_in_parts() {
    let repo = Repo::new(
        "a/b-GGUF",
        vec![
            File::small("README.md", "x"),
            File::large("b-Q4_K_M.gguf", noise(1000, 1)),
            File::large("b-Q8_0.gguf", noise(2000, 2)),
            File::large("b-f16/b-f16-00001-of-00002.gguf", noise(3000, 3)),
            File::large("b-f16/b-f16-00002-of-00002.gguf", noise(4000, 4)),
        ],
    );
    let place = Place::new(vec![repo.clone()]);
    for (name, path, files) in [
        ("a/b-GGUF:q8_0", "b-Q8_0.gguf", 1),
        ("a/b-GGUF@refs/pr/1:b-Q8_0.gguf", "b-Q8_0.gguf", 1),
        ("a/b-GGUF:f16", "b-f16/b-f16-00001-of-00002.gguf", 2),
        ("a/b-GGUF", "b-Q4_K_M.gguf", 1),
    ] {
        let local = place.get(name).unwrap();
        assert_whole(&local, &repo);
        assert_eq!((local.path.clone(), local.files.len()), (snapshot(&local).join(path), files), "{name}");
        assert_eq!(place.hub().cached(&named(name), Wanted::Text).unwrap(), Some(local));
    }
    assert_eq!(
        fs::read_to_string(place.folder("a/b").with_file_name("models--a--b-GGUF").join("refs/refs/pr/1")).unwrap(),
        repo.commit
    );
    // the file under the second revision was only linked
    let stored = place.server.requests().iter().filter(|request| request.at_store).count();
    assert_eq!(stored, 4);
    let error = message(place.get("a/b-GGUF:q5_k_m"));
    assert!(error.contains("b-Q4_K_M.gguf, b-Q8_0.gguf, b-f16/"), "{error}");
}

#[test]
fn text_alone_needs_no_weights_and_they_are_added_later() {
    let repo = Repo::published("a/b", 10_000);
    let place = Place::new(vec![repo.clone()]);
    let text = place.watched(|hub, watch| hub.get(&named("a/b"), Wanted::Text, watch)).0.unwrap();
    assert_whole(&text, &repo);
    assert_eq!(text.files.len(), 4);
    assert!(place.server.requests().iter().all(|request| !request.path.contains("safetensors")));
    assert_eq!(place.hub().cached(&named("a/b"), Wanted::Model).unwrap(), None);
    let whole = place.get("a/b").unwrap();
    assert_whole(&whole, &repo);
    let again: Vec<String> = place.server.requests().into_iter().map(|request| request.path).collect();
    assert!(again.iter().all(|path| !path.contains("tokenizer")), "{again:?}");
}

#[test]
fn a_new_commit_brings_only_what_is_new() {
    let old = Repo::published("a/b", 10_000);
    let place = Place::new(vec![old.clone()]);
    let first = place.get("a/b").unwrap();
    let mut files = old.files.clone();
    files.iter_mut().find(|file| file.path == "config.json").unwrap().content =
        b"{\"model_type\":\"phi3\",\"new\":1}".to_vec();
    let new = Repo::new("a/b", files);
    place.server.publish(new.clone());
    place.server.requests();
    // a cached branch is not requested again
    assert_eq!(place.get("a/b").unwrap(), first);
    assert!(place.server.requests().is_empty());
    let second = place.pull("a/b").unwrap();
    assert_whole(&second, &new);
    let asked: Vec<String> = place.server.requests().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_whole(&place.get(&format!("a/b@{}", old.commit)).unwrap(), &old);
    assert_whole(&place.get("a/b").unwrap(), &new);
}

#[test]
fn a_renamed_repository_is_followed() {
    let repo = Repo::published("new/name", 10_000);
    let mut place = Place::new(vec![repo.clone()]);
    place.settings.token = Token::new("hf_secret", "HF_TOKEN").unwrap();
    place.server.rename("old/name", "new/name");
    assert_whole(&place.get("old/name").unwrap(), &repo);
    assert!(place.folder("old/name").join("refs/main").is_file());
    // the redirect stays within the hub, so the token is sent
    let requests = place.server.requests();
    let moved = requests.iter().filter(|request| request.path.contains("new/name"));
    assert!(moved.clone().count() > 5 && moved.clone().all(|request| request.headers.contains_key("authorization")));
}

#[test]
fn two_that_fetch_the_same_share_the_work() {
    let repo = Repo::published("a/b", 400_000);
    let place = Place::new(vec![repo.clone()]);
    place.server.fault("/store/", 100, crate::server::Fault::Slow(40_000, std::time::Duration::from_millis(15)));
    let results = std::thread::scope(|scope| {
        let pull = || place.watched(|hub, watch| hub.pull(&named("a/b"), Wanted::Model, watch));
        let both = [scope.spawn(pull), scope.spawn(pull)];
        both.map(|thread| thread.join().unwrap())
    });
    let mut waited = 0;
    for (local, events) in results {
        assert_whole(&local.unwrap(), &repo);
        waited += events.iter().filter(|event| matches!(event, Event::Waiting { .. })).count();
    }
    let mut stored: Vec<String> = place.server.requests().into_iter().filter(|r| r.at_store).map(|r| r.path).collect();
    let all = stored.len();
    stored.sort();
    stored.dedup();
    assert_eq!((all, stored.len()), (3, 3));
    assert!(waited > 0);
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let weights = || File::large("model.safetensors", noise(100, 1));
    for (path, name) in [
        ("../../../x-Q4_K_M.gguf", "a/b:q4_k_m"),
        ("/tmp/x-Q4_K_M.gguf", "a/b:q4_k_m"),
        ("..\\x-Q4_K_M.gguf", "a/b"),
        ("C:\\x-Q4_K_M.gguf", "a/b"),
        ("a/../../x-Q4_K_M.gguf", "a/b:q4_k_m"),
        ("aux-1/CON/x-Q4_K_M.gguf", "a/b:q4_k_m"),
        ("../evil.tiktoken", "a/b"),
    ] {
        // tokenizers are taken from the model's folder only
        let files = match path.ends_with("tiktoken") {
            true => vec![File::small("config.json", "{}"), weights(), File::small(path, "x")],
            false => vec![File::large(path, noise(100, 1))],
        };
        let is_model = path.ends_with("tiktoken");
        let place = Place::new(vec![Repo::new("a/b", files)]);
        let result = place.get(name);
        assert_eq!(result.is_ok(), is_model, "{path}: {result:?}");
        assert!(is_model || matches!(result, Err(Error::UnsafePath { .. })), "{path}: {result:?}");
        let outside: Vec<_> =
            fs::read_dir(place.cache.path().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(outside.iter().all(|name| !name.to_string_lossy().contains("Q4_K_M")), "{outside:?}");
    }
    for target in ["../../../evil.safetensors", "/evil.safetensors", "..\\evil.safetensors", "NUL"] {
        let index = serde_json::json!({ "weight_map": { "a": target } }).to_string();
        let files = vec![
            File::small("config.json", "{}"),
            File::small("model.safetensors.index.json", index),
            File::large(target, noise(100, 1)),
        ];
        let place = Place::new(vec![Repo::new("a/b", files)]);
        let error = message(place.get("a/b"));
        assert!(error.contains("evil") || error.contains("NUL"), "{error}");
    }
}

#[test]
fn an_index_that_names_what_is_not_there_is_an_error() {
    let index = r#"{"weight_map":{"a":"model-00001-of-00002.safetensors"}}"#;
    let files = vec![File::small("config.json", "{}"), File::small("model.safetensors.index.json", index)];
    let place = Place::new(vec![Repo::new("a/b", files)]);
    let error = message(place.get("a/b"));
    assert!(error.contains("model-00001-of-00002.safetensors") && error.contains("a/b"), "{error}");
    assert!(matches!(place.get("a/b"), Err(Error::Index { .. })));
    assert_eq!(place.hub().cached(&named("a/b"), Wanted::Model).unwrap(), None);
}

#[test]
fn lists_and_metadata_can_be_asked_for_alone() {
    let repo = Repo::published("a/b", 1000);
    let place = Place::new(vec![repo.clone()]);
    let b = named("a/b");
    let listing = place.watched(|hub, watch| hub.list(b.repo(), "main", watch)).0.unwrap();
    assert_eq!((listing.commit.as_str(), listing.files.len()), (repo.commit.as_str(), repo.files.len()));
    for file in &listing.files {
        let known = repo.file(&file.path);
        assert_eq!(file.size, Some(known.content.len() as u64));
        assert_eq!(file.sha256.as_deref().or(file.blob_id.as_deref()), Some(known.etag().as_str()));
        let path = phi3_hub::FilePath::new(&file.path).unwrap();
        let metadata = place.watched(|hub, watch| hub.metadata(b.repo(), "main", &path, watch)).0.unwrap();
        assert_eq!((metadata.commit, metadata.etag, metadata.size), (repo.commit.clone(), known.etag(), file.size));
    }
    assert!(fs::read_dir(place.cache.path()).unwrap().next().is_none());
}
