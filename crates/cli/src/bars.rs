//! The progress of downloads on standard error: bars in a terminal, else a line for each file.

use crate::output::{note, size};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use phi3_hub::Event;
use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Name, progress, rate and remaining time.
const BAR: &str = "{msg:32!} {bar:20} {decimal_bytes:>10}/{decimal_total_bytes:10} {prefix}";

/// The time over which a rate is measured.
const SPAN: Duration = Duration::from_secs(8);

/// Display of downloads.
pub(super) struct Bars {
    how: How,
    files: HashMap<String, File>,
    /// Bytes of finished files.
    complete: u64,
}

/// A file that is being downloaded.
struct File {
    bar: Bar,
    done: u64,
}

enum How {
    Nothing,
    Lines,
    Terminal {
        bars: MultiProgress,
        /// Of all files together.
        all: Option<Bar>,
    },
}

/// Progress bar whose rate excludes bytes from earlier downloads.
struct Bar {
    bar: ProgressBar,
    /// Bytes at points in time, the newest last.
    past: VecDeque<(Instant, u64)>,
}

impl Bar {
    fn new(bar: ProgressBar, text: String, from: u64) -> Self {
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style);
        bar.set_message(text);
        let mut new = Self { bar, past: VecDeque::new() };
        new.begin_at(from);
        new
    }

    /// Restarts the rate at `done` bytes.
    fn begin_at(&mut self, done: u64) {
        self.past = VecDeque::from([(Instant::now(), done)]);
        self.bar.set_position(done);
    }

    fn set(&mut self, done: u64) {
        let now = Instant::now();
        self.past.push_back((now, done));
        while self.past.len() > 2 && now - self.past[0].0 > SPAN {
            self.past.pop_front();
        }
        let (since, before) = self.past[0];
        let rate = done.saturating_sub(before) as f64 / (now - since).as_secs_f64().max(0.1);
        self.bar.set_prefix(speed(rate, self.bar.length().unwrap_or(0).saturating_sub(done)));
        self.bar.set_position(done);
    }
}

/// Rate in bytes per second, and the time for `left` bytes at this rate.
fn speed(rate: f64, left: u64) -> String {
    let seconds = (left as f64 / rate).ceil();
    let time = match seconds as u64 {
        // no progress, or about a week and more
        _ if !seconds.is_finite() || seconds > 6e5 => "-".to_owned(),
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    };
    format!("{:>10}/s {time:>7}", size(rate as u64))
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        let how = if quiet {
            How::Nothing
        } else if std::io::stderr().is_terminal() {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            How::Terminal { bars: MultiProgress::with_draw_target(target), all: None }
        } else {
            How::Lines
        };
        Self { how, files: HashMap::new(), complete: 0 }
    }

    /// Shows an event.
    pub(super) fn tell(&mut self, event: Event) {
        match event {
            Event::Planned { files, bytes } => self.planned(files, bytes),
            Event::Started { file, size, from } => self.started(file, size, from),
            Event::Progress { file, done } => {
                if let Some(file) = self.files.get_mut(&file) {
                    file.done = done;
                    file.bar.set(done);
                }
                self.all();
            }
            Event::Finished { file, size } => self.finished(&file, size),
            Event::Waiting { file } => self.note(&format!("waiting  another process fetches {file}")),
            Event::Retrying { what, reason, pause } => {
                self.note(&format!("retry    {what} in {:.0} s: {reason}", pause.as_secs_f64().ceil()));
            }
            Event::Unreachable { reason } => self.note(&format!("cache    used without an update: {reason}")),
            _ => {}
        }
    }

    fn planned(&mut self, files: usize, bytes: u64) {
        // the index was fetched before and is not part of the plan
        self.complete = 0;
        match &mut self.how {
            How::Terminal { bars, all } if files > 1 => {
                *all = Some(Bar::new(bars.add(ProgressBar::new(bytes)), format!("{files} files"), 0));
            }
            How::Terminal { .. } | How::Nothing => {}
            How::Lines => note(&format!("fetching {files} files, {}", size(bytes))),
        }
    }

    fn started(&mut self, file: String, bytes: Option<u64>, from: u64) {
        let bar = match &self.how {
            How::Terminal { bars, all } => {
                let bar = ProgressBar::new(bytes.unwrap_or(0));
                match all {
                    Some(all) => bars.insert_before(&all.bar, bar),
                    None => bars.add(bar),
                }
            }
            How::Nothing | How::Lines => ProgressBar::hidden(),
        };
        let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
        self.files.insert(file.clone(), File { bar: Bar::new(bar, name, from), done: from });
        if from > 0 {
            self.note(&format!("resuming {file} at {}", size(from)));
            let done = self.done();
            if let How::Terminal { all: Some(all), .. } = &mut self.how {
                all.begin_at(done);
            }
        }
    }

    fn finished(&mut self, file: &str, bytes: u64) {
        self.complete += bytes;
        // only linked, because another revision has it
        let Some(shown) = self.files.remove(file) else { return self.all() };
        shown.bar.bar.finish_and_clear();
        if matches!(self.how, How::Lines) {
            note(&format!("fetched  {file}: {}", size(bytes)));
        }
        self.all();
    }

    /// Bytes of all files so far.
    fn done(&self) -> u64 {
        self.complete + self.files.values().map(|file| file.done).sum::<u64>()
    }

    /// Updates the bar of all files.
    fn all(&mut self) {
        let done = self.done();
        if let How::Terminal { all: Some(all), .. } = &mut self.how {
            all.set(done);
        }
    }

    fn note(&self, text: &str) {
        match &self.how {
            How::Nothing => {}
            How::Lines => note(text),
            How::Terminal { bars, .. } => bars.suspend(|| note(text)),
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let How::Terminal { bars, .. } = &self.how {
            // a failure to clear the terminal is ignored
            let _ = bars.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times() {
        let shown = |rate, left| speed(rate, left).split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(2e6, 10_000_000), "2000.0 kB/s 5s");
        assert_eq!(shown(50e6, 15_000_000_000), "50.0 MB/s 5m00s");
        assert_eq!(shown(1e6, 15_000_000_000), "1000.0 kB/s 4h10m");
        assert_eq!(shown(0.0, 5), "0 B/s -");
        assert_eq!(shown(0.0, 0), "0 B/s -");
        assert_eq!(shown(1.0, 1 << 40), "1 B/s -");
    }

    #[test]
    fn what_was_there_before_came_at_no_rate() {
        let mut bar = Bar::new(ProgressBar::hidden(), "file".into(), 1_000_000_000);
        bar.set(1_000_001_000);
        assert_eq!(bar.past.iter().map(|(_, done)| *done).collect::<Vec<_>>(), [1_000_000_000, 1_000_001_000]);
        bar.begin_at(2_000_000_000);
        assert_eq!(bar.past.len(), 1);
    }
}
