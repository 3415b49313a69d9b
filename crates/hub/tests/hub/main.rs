//! Tests against a hub on the loopback interface.

mod cached;
mod faults;
mod killed;
mod pulls;
mod python;
mod secure;
mod server;

use phi3_hub::{Error, Event, Hub, Local, ModelName, Settings, Wanted, Watch};
use server::{Repo, Server};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

/// A hub, an empty cache, and settings for both.
struct Place {
    server: Server,
    cache: TempDir,
    settings: Settings,
}

impl Place {
    fn new(repos: Vec<Repo>) -> Self {
        Self::of(Server::new(repos, None))
    }

    fn of(server: Server) -> Self {
        let cache = tempfile::tempdir().expect("a folder");
        let mut settings = Settings::new(cache.path());
        settings.endpoint = server.url.clone();
        settings.pause = Duration::from_millis(1);
        Self { server, cache, settings }
    }

    fn hub(&self) -> Hub {
        Hub::new(self.settings.clone())
    }

    fn pull(&self, name: &str) -> Result<Local, Error> {
        self.watched(|hub, watch| hub.pull(&named(name), Wanted::Model, watch)).0
    }

    fn get(&self, name: &str) -> Result<Local, Error> {
        self.watched(|hub, watch| hub.get(&named(name), Wanted::Model, watch)).0
    }

    /// The result of a call and its events.
    fn watched<T>(&self, call: impl FnOnce(&Hub, &mut Watch<'_>) -> T) -> (T, Vec<Event>) {
        let (stop, mut events) = (AtomicBool::new(false), Vec::new());
        let result = call(&self.hub(), &mut Watch { stop: &stop, tell: &mut |event| events.push(event) });
        (result, events)
    }

    /// The folder of a repository in the cache.
    fn folder(&self, name: &str) -> std::path::PathBuf {
        self.cache.path().join(named(name).repo().folder())
    }
}

fn named(name: &str) -> ModelName {
    name.parse().expect("a name")
}

/// Asserts that every requested file exists with the repository's content.
fn assert_whole(local: &Local, repo: &Repo) {
    let snapshot = snapshot(local);
    assert_eq!(local.commit, repo.commit);
    assert!(!local.files.is_empty());
    for file in &local.files {
        let content = std::fs::read(snapshot.join(file.as_str())).expect("a file");
        assert!(content == repo.file(file.as_str()).content, "{file} differs");
    }
}

/// The snapshot folder of a model.
fn snapshot(local: &Local) -> &Path {
    let is_commit = |path: &&Path| path.file_name().is_some_and(|name| name == local.commit.as_str());
    local.path.ancestors().find(is_commit).expect("a folder of the commit")
}

fn message<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.to_string(),
    }
}
