//! Estimated times of passes: of one with decode rows only, and of each prompt row more.

use std::collections::VecDeque;
use std::time::Duration;

/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;

/// Passes after which decode rows are measured again.
const MEASURE_AFTER: usize = 32;

/// Measurements whose median is an estimate: some err by the time that the system gives to others.
const RECENT: usize = 5;

/// Ratio to the measurements before from which a larger one is more than noise.
const SURPRISE: f64 = 1.5;

/// Prompt rows beside decode rows that measure the first time, and the fewest while the time of many is not known.
const PROBE: usize = 4;

/// Fewest rows of a pass whose time measures prompt rows alone.
const BULK: usize = 16;

/// Estimates of times.
///
/// A pass of decode rows only measures these, and is planned now and then, and when their number has changed by half.
#[derive(Debug)]
pub(super) struct Costs {
    /// Whether a pass of both kinds reads the weights twice, so that few prompt rows take as long as many.
    phases_differ: bool,
    /// Seconds of a pass with decode rows only.
    decode: Median,
    /// Number of decode rows that `decode` was measured with.
    measured_with: usize,
    /// Whether `decode` needs no second measurement.
    is_sure: bool,
    /// Passes of decode and prompt rows since then.
    since: usize,
    /// Seconds of a prompt row beside decode rows, with its share of reading the weights.
    row: Mean,
    /// Seconds of a prompt row among many.
    bulk: Median,
    /// Seconds of prompt rows beside decode rows that do not depend on their number.
    fixed: Mean,
    /// Most prompt rows beside decode rows so far.
    most: usize,
}

impl Costs {
    pub(super) fn new(phases_differ: bool) -> Self {
        Self {
            phases_differ,
            decode: Median::default(),
            measured_with: 0,
            is_sure: false,
            since: 0,
            row: Mean::default(),
            bulk: Median::default(),
            fixed: Mean::default(),
            most: 0,
        }
    }

    /// Corrects the estimates by the time of a pass.
    pub(super) fn observe(&mut self, decodes: usize, rows: usize, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        match (decodes, rows) {
            (0, ..BULK) => {}
            (0, _) => self.bulk.push(elapsed / rows as f64),
            (_, 0) => {
                let is_other = self.is_other(decodes);
                // a time far from the one before may be that of a pass that was held up
                self.is_sure = !is_other || self.decode.get().is_some_and(|before| elapsed < SURPRISE * before);
                if is_other {
                    self.decode = Median::default();
                }
                self.decode.push(elapsed);
                (self.measured_with, self.since) = (decodes, 0);
            }
            _ => {
                self.since += 1;
                if let Some(decode) = self.decode.get().filter(|_| !self.is_other(decodes)) {
                    self.row.push(((elapsed - decode) / rows as f64).max(decode / 4096.0));
                    if let Some(bulk) = self.bulk.get() {
                        self.fixed.push((elapsed - decode - rows as f64 * bulk).max(0.0));
                    }
                    self.most = self.most.max(rows);
                }
            }
        }
    }

    /// Prompt rows for a pass with decode rows: as many as make it `factor` times as long as without them. Where the phases differ, at
    /// least half of their time depends on their number, which may make the pass three times as long. 0 where the decode rows have to be
    /// measured.
    pub(super) fn rows_beside(&self, decodes: usize, factor: f64) -> usize {
        let Some(decode) = self.decode.get().filter(|_| !self.is_other(decodes)) else {
            // numbers that change from pass to pass must not keep prompts waiting
            return if self.since == 0 { PROBE } else { 0 };
        };
        if !self.is_sure || self.since >= MEASURE_AFTER {
            return 0;
        }
        let within = |time: f64, row: f64| (time / row.max(f64::MIN_POSITIVE)) as usize;
        let Some(row) = self.row.0 else { return PROBE };
        let budget = (factor - 1.0) * decode;
        let worthwhile = match (self.bulk.get(), self.fixed.0) {
            _ if !self.phases_differ => 0,
            (Some(bulk), Some(fixed)) => within(fixed.min(budget).min(decode), bulk),
            _ => PROBE,
        };
        // the time of many rows does not follow from that of few
        within(budget, row).max(worthwhile).clamp(2, (2 * self.most).max(PROBE))
    }

    /// Time of prompt rows; `None` before anything is measured.
    pub(super) fn time_of(&self, rows: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.bulk.get().or(self.row.0)? * rows as f64).ok()
    }

    /// Whether the estimate was measured with another number of decode rows.
    fn is_other(&self, decodes: usize) -> bool {
        let (less, more) = (decodes.min(self.measured_with), decodes.max(self.measured_with));
        2 * more > 3 * less
    }
}

/// The mean of all values, the newest with [`WEIGHT`]; a far larger one is taken as it is.
#[derive(Debug, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn push(&mut self, value: f64) {
        let before = self.0.filter(|before| value < SURPRISE * before).unwrap_or(value);
        self.0 = Some(before + WEIGHT * (value - before));
    }
}

/// The median of the last [`RECENT`] values.
#[derive(Debug, Default)]
struct Median(VecDeque<f64>);

impl Median {
    fn push(&mut self, value: f64) {
        self.0.truncate(RECENT - 1);
        self.0.push_front(value);
    }

    /// The lower one of two in the middle; `None` without values.
    fn get(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECODE: f64 = 0.070;
    const DECODE_TIME: Duration = Duration::from_millis(70);
    const ROW: f64 = 0.011;

    /// Time of a pass: the weights are read once for each kind of rows.
    fn pass(decodes: usize, rows: usize) -> Duration {
        let kinds = usize::from(decodes > 0) + usize::from(rows > 0);
        Duration::from_secs_f64(DECODE * kinds as f64 + ROW * rows as f64)
    }

    #[test]
    fn estimates_approach_the_costs() {
        let mut costs = Costs::new(true);
        assert_eq!(costs.rows_beside(1, 2.0), PROBE);
        costs.observe(0, 200, pass(0, 200));
        costs.observe(1, PROBE, pass(1, PROBE));
        assert_eq!(costs.rows_beside(1, 2.0), 0, "decode rows have to be measured first");
        costs.observe(1, 0, pass(1, 0));
        for _ in 0..20 {
            let rows = costs.rows_beside(1, 2.0);
            assert!(pass(1, rows) <= 3 * pass(1, 0));
            costs.observe(1, rows, pass(1, rows));
        }
        assert_eq!(costs.rows_beside(1, 2.0), 5);
        let mut patient = Costs::new(true);
        for _ in 0..60 {
            let rows = patient.rows_beside(1, 8.0);
            patient.observe(1, rows, pass(1, rows));
        }
        assert_eq!(patient.rows_beside(1, 8.0), 38);
        assert_eq!(costs.rows_beside(2, 2.0), 0, "twice as many decode rows are measured anew");
        assert!((costs.time_of(100).unwrap().as_secs_f64() - 1.1).abs() < 0.1);
    }

    /// Where a kernel takes rows of both kinds, the weights are read once.
    #[test]
    fn rows_with_a_common_kernel_take_the_budget() {
        let pass = |decodes: usize, rows: usize| {
            // ten rows take no longer than one
            let rows = (decodes + rows) as f64;
            Duration::from_secs_f64(DECODE + ROW * (rows - 10.0).max(0.0))
        };
        for bulk in [None, Some(pass(0, 200))] {
            let mut costs = Costs::new(true);
            if let Some(bulk) = bulk {
                costs.observe(0, 200, bulk);
            }
            let mut most = 0;
            for _ in 0..200 {
                let rows = costs.rows_beside(1, 2.0);
                assert!(rows <= 2 * most || rows <= PROBE, "{rows} rows after {most}");
                assert!(pass(1, rows) <= 5 * DECODE_TIME / 2, "{rows} rows");
                most = most.max(rows);
                costs.observe(1, rows, pass(1, rows));
            }
            assert!(most >= 14, "{most}");
        }
    }

    /// Later rows of a long prompt take longer: they see more positions.
    #[test]
    fn rows_that_grow_dearer_become_fewer() {
        let pass = |computed: usize, rows: usize| {
            DECODE_TIME + Duration::from_secs_f64(DECODE * rows as f64 * (0.15 + computed as f64 / 5000.0))
        };
        for bulk in [None, Some(pass(0, 200))] {
            let mut costs = Costs::new(false);
            if let Some(bulk) = bulk {
                costs.observe(0, 200, bulk);
            }
            let mut computed = 0;
            while computed < 1500 {
                let rows = costs.rows_beside(1, 2.0);
                let time = pass(computed, rows);
                assert!(time <= DECODE_TIME * 9 / 4, "{time:?} for {rows} rows after {computed}");
                costs.observe(1, rows, time);
                computed += rows;
            }
            assert_eq!(costs.rows_beside(1, 2.0), 2);
        }
    }

    /// One pass that the system held up makes no later pass long.
    #[test]
    fn a_single_measurement_misleads_little() {
        for held_up in 0..8 {
            let mut costs = Costs::new(true);
            costs.observe(0, 200, pass(0, 200));
            // ends between two passes that measure decode rows
            for number in 0..210 {
                let rows = costs.rows_beside(1, 2.0);
                let time = pass(1, rows);
                assert!(time <= pass(1, 0) * 7 / 2, "{held_up}: pass {number} has {rows} rows");
                costs.observe(1, rows, if number == held_up { time * 40 } else { time });
            }
            assert!(costs.rows_beside(1, 2.0) >= 4);
        }
    }

    /// Prompts go on beside decode rows whose number never stays.
    #[test]
    fn changing_numbers_keep_no_prompt_waiting() {
        let mut costs = Costs::new(true);
        let mut rows = 0;
        for decodes in [1, 10, 2, 20, 3].into_iter().cycle().take(100) {
            let now = costs.rows_beside(decodes, 2.0);
            rows += now;
            costs.observe(decodes, now, pass(decodes, now));
        }
        assert!(rows >= 40 * PROBE, "{rows}");
    }
}
