use crate::files::demo;
use crate::input::thinking;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A program in a pseudoterminal.
struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Terminal {
    fn open(args: &[&str]) -> Self {
        // SAFETY: the descriptor is new, and `File` becomes its only owner.
        let master = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
            assert!(master >= 0 && libc::grantpt(master) == 0 && libc::unlockpt(master) == 0);
            File::from_raw_fd(master)
        };
        // SAFETY: the descriptor is open, and the name is copied before another call could change it.
        let name = unsafe { CStr::from_ptr(libc::ptsname(master.as_raw_fd())) }.to_str().expect("a path").to_owned();
        let slave = File::options().read(true).write(true).open(name).expect("the other end");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_phi3-run"));
        command.args(args).env("TERM", "xterm").env_remove("NO_COLOR").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the program starts");
        drop((slave, command));
        let mut output = master.try_clone().expect("a descriptor");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keys: master, screen, shown: String::new() }
    }

    fn take(&mut self, most: Duration) {
        if let Ok(bytes) = self.screen.recv_timeout(most) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Waits until `text` was printed `times` times.
    fn until(&mut self, text: &str, times: usize) {
        let since = Instant::now();
        while self.shown.matches(text).count() < times {
            assert!(since.elapsed() < PATIENCE, "{text:?} was not shown {times} times: {}", self.shown);
            self.take(Duration::from_millis(100));
        }
        // the prompt follows
        let quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(400) {
            self.take(Duration::from_millis(50));
        }
    }

    fn send(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    fn end(mut self) -> (Option<i32>, String) {
        let since = Instant::now();
        loop {
            self.take(Duration::from_millis(50));
            if let Some(status) = self.child.try_wait().expect("the program's state") {
                return (status.code(), self.shown);
            }
            assert!(since.elapsed() < PATIENCE, "the program goes on: {}", self.shown);
        }
    }
}

/// A chat with further input between two questions.
fn talk(between: &[&str]) -> String {
    let folder = demo();
    let model = folder.path().display().to_string();
    let mut terminal = Terminal::open(&["chat", "-m", &model, "--device", "cpu", "--greedy"]);
    terminal.until("Ctrl-D", 1);
    terminal.send("Hi, I am Tom.\r");
    terminal.until("decode", 1);
    for keys in between {
        terminal.send(keys);
        terminal.until("", 0);
    }
    terminal.send("What is my name?\r");
    terminal.until("decode", 2);
    terminal.send("\u{4}");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.matches("decode").count(), 2, "{shown}");
    shown
}

#[test]
fn ctrl_c_at_the_prompt_throws_the_message_away_and_the_talk_goes_on() {
    for between in
        [&["\u{3}"][..], &["wait, no", "\u{3}"], &["a long\\\r", "mess", "\u{3}"], &["a\\\r", "\u{3}", "\u{3}"]]
    {
        let shown = talk(between);
        assert!(shown.to_lowercase().contains("your name is tom"), "{between:?}: {shown}");
    }
}

#[test]
fn thinking_is_dimmed_in_a_terminal() {
    let folder = thinking();
    let model = folder.path().display().to_string();
    let shown = |more: &[&str], last: &str| {
        let args = ["-m", &model, "--device", "cpu", "--greedy", "-q"];
        let mut terminal = Terminal::open(&[&args[..], more, &["Hi, I am Tom."]].concat());
        terminal.until(last, 1);
        let (code, shown) = terminal.end();
        assert_eq!(code, Some(0), "{shown}");
        shown
    };
    assert!(shown(&[], "you!").contains("\u{1b}[2m<think> Tom</think>\u{1b}[22m nice to meet you!"));
    // the answer ends inside the thinking
    assert!(shown(&["-n", "2"], "Tom").contains("\u{1b}[2m<think> Tom\u{1b}[22m"));
    assert!(shown(&["--hide-thinking"], "you!").trim_start().starts_with("nice to meet you!"));
}
