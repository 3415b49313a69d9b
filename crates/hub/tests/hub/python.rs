//! Python's `huggingface_hub` and this crate on one cache. Skipped where `python3` cannot import it.

use crate::server::Repo;
use crate::{Place, assert_whole, named};
use phi3_hub::Wanted;
use std::process::Command;

/// Runs a script with the cache and the hub of `place`; `None`, with a note, without a suitable Python.
fn python(place: &Place, script: &str) -> Option<String> {
    // PHI3_PYTHON selects another interpreter, such as that of a virtual environment
    let program = std::env::var("PHI3_PYTHON").unwrap_or_else(|_| "python3".into());
    let version = Command::new(&program).args(["-c", "import huggingface_hub as h; print(h.__version__)"]).output();
    match version {
        Ok(output) if output.status.success() => {
            println!("huggingface_hub {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or("").to_owned();
            println!("skipped: {program} cannot import huggingface_hub: {reason}");
            return None;
        }
        Err(error) => {
            println!("skipped: {program} does not start: {error}");
            return None;
        }
    }
    let mut command = Command::new(&program);
    command.args(["-c", script]).env("HF_HUB_CACHE", place.cache.path()).env("HF_ENDPOINT", &place.server.url);
    command.env("HF_HOME", place.cache.path().join("home")).env("HF_HUB_DISABLE_XET", "1");
    command.env("HF_HUB_DISABLE_PROGRESS_BARS", "1").env_remove("HF_TOKEN");
    let output = command.output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("UTF-8").replace('\r', ""))
}

const FIND: &str = "
from huggingface_hub import snapshot_download, try_to_load_from_cache, scan_cache_dir, _CACHED_NO_EXIST
print(snapshot_download('a/b', local_files_only=True))
print(try_to_load_from_cache('a/b', 'config.json'))
print(try_to_load_from_cache('a/b', 'added_tokens.json') is _CACHED_NO_EXIST)
print(try_to_load_from_cache('a/b', 'README.md'))
info = scan_cache_dir()
repo, = info.repos
print(repo.repo_id, repo.size_on_disk, [len(r.files) for r in repo.revisions], len(info.warnings))
";

#[test]
fn python_finds_what_this_crate_fetched() {
    let repo = Repo::published("a/b", 20_000);
    let mut place = Place::new(vec![repo.clone()]);
    for symlinks in [true, false] {
        place.settings.symlinks = symlinks;
        let local = place.get("a/b").unwrap();
        place.server.requests();
        let Some(found) = python(&place, FIND) else { return };
        let path = local.path.display();
        let bytes: usize = local.files.iter().map(|file| repo.file(file.as_str()).content.len()).sum();
        let expected = format!("{path}\n{}\nTrue\nNone\na/b {bytes} [7] 0\n", local.path.join("config.json").display());
        assert_eq!(found, expected);
        assert!(place.server.requests().is_empty());
        place.hub().remove(&named("a/b")).unwrap();
    }
}

#[test]
fn this_crate_finds_what_python_fetched() {
    let repo = Repo::published("a/b", 20_000);
    let place = Place::new(vec![repo.clone()]);
    let script = "from huggingface_hub import snapshot_download\nprint(snapshot_download('a/b'))";
    let Some(path) = python(&place, script) else { return };
    place.server.requests();
    let local = place.get("a/b").unwrap();
    assert_whole(&local, &repo);
    assert_eq!(local.path.display().to_string(), path.trim());
    assert_eq!(local.files.len(), 7);
    assert_eq!(place.hub().cached(&named("a/b"), Wanted::Text).unwrap().unwrap().files.len(), 4);
    // Python stored the listing, so no request is needed
    assert!(place.server.requests().is_empty());
    let listed = place.hub().repositories().unwrap();
    assert_eq!((listed.len(), listed[0].revisions[0].files.len()), (1, repo.files.len()));
}

#[test]
fn each_goes_on_with_what_the_other_left() {
    let repo = Repo::published("a/b", 20_000);
    let place = Place::new(vec![repo.clone()]);
    let some = "from huggingface_hub import snapshot_download\nsnapshot_download('a/b', allow_patterns=['*.json'])";
    if python(&place, some).is_none() {
        return;
    }
    place.server.requests();
    assert_whole(&place.get("a/b").unwrap(), &repo);
    let stored = place.server.requests().iter().filter(|request| request.at_store).count();
    assert_eq!(stored, 2);
    let all = "from huggingface_hub import snapshot_download\nprint(snapshot_download('a/b'))";
    python(&place, all).unwrap();
    let stored: Vec<_> = place.server.requests().into_iter().filter(|request| request.at_store).collect();
    assert!(stored.len() == 1 && stored[0].path.contains(&repo.file("pytorch_model.bin").etag()), "{stored:?}");
}
