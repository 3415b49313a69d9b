//! Programs with a time limit and their output in files.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Result of a step.
pub(super) struct Step {
    pub(super) name: String,
    /// The command.
    pub(super) command: String,
    /// `ok`, or the error.
    pub(super) outcome: String,
    pub(super) time: Duration,
}

impl Step {
    pub(super) fn ok(&self) -> bool {
        self.outcome == "ok"
    }
}

pub(super) fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Runs a program; standard output goes to `file`, standard error to a file beside it. At the time limit, the program and its
/// children are killed.
pub(super) fn run(name: &str, command: &mut Command, file: &Path, limit: Duration) -> Step {
    let start = Instant::now();
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = std::iter::once(program).chain(words).collect();
    let outcome = outcome(command, file, limit).unwrap_or_else(|reason| reason);
    Step { name: name.to_owned(), command: words.join(" "), outcome, time: start.elapsed() }
}

fn outcome(command: &mut Command, file: &Path, limit: Duration) -> Result<String, String> {
    let create = |path: &Path| File::create(path).map_err(|error| format!("{}: {error}", path.display()));
    let log = file.with_extension("log");
    command.stdin(Stdio::null()).stdout(create(file)?).stderr(create(&log)?);
    alone(command);
    let mut child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if start.elapsed() > limit => {
                end(&mut child);
                return Err(format!("ended after its limit of {} min", limit.as_secs() / 60));
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    if status.success() {
        if std::fs::metadata(&log).is_ok_and(|data| data.len() == 0) {
            // an empty log is removed
            let _ = std::fs::remove_file(&log);
        }
        return Ok("ok".into());
    }
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{status}: {last}"))
}

/// Puts the program into a process group of its own, so that its children can be killed too.
#[cfg(unix)]
fn alone(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn alone(_: &mut Command) {}

fn end(child: &mut Child) {
    let id = child.id();
    let mut command = match cfg!(windows) {
        true => Command::new("taskkill"),
        false => Command::new("kill"),
    };
    match cfg!(windows) {
        true => command.args(["/T", "/F", "/PID", &id.to_string()]),
        false => command.args(["-KILL", "--", &format!("-{id}")]),
    };
    // without that program, only the step itself is killed
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_done_failed_or_ended() {
        let file = std::env::temp_dir().join(format!("phi3-step-{}.txt", std::process::id()));
        let step = |script: &str, limit| run("step", Command::new("sh").args(["-c", script]), &file, limit);
        assert!(step("echo 1", minutes(1)).ok());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1\n");
        let failed = step("echo why >&2; exit 3", minutes(1));
        assert!(failed.outcome.contains('3') && failed.outcome.ends_with(": why"), "{}", failed.outcome);
        let ended = step("sleep 60 & wait", Duration::from_millis(200));
        assert!(ended.outcome.starts_with("ended after") && ended.time < minutes(1), "{}", ended.outcome);
        for ending in ["txt", "log"] {
            let _ = std::fs::remove_file(file.with_extension(ending));
        }
    }
}
