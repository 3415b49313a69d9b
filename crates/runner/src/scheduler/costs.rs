//! Estimated times of passes: of one with decode rows only, and of each prompt row more.

use std::time::Duration;

/// Prompt rows beside decode rows where nothing is measured.
const UNMEASURED_ROWS: usize = 64;

/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;

/// Passes after which decode rows are measured again.
const MEASURE_AFTER: usize = 32;

/// Most growth of an estimate from one measurement to the next. A measurement errs by the time that the system gives to others, so
/// the least of several is nearest to the truth.
const GROWTH: f64 = 1.1;

/// Ratio to the measurement before from which another one is needed.
const SURPRISE: f64 = 1.5;

/// Prompt rows beside decode rows that measure the first time.
const PROBE: usize = 4;

/// Fewest prompt rows beside decode rows while the time of many is not known.
const FEWEST: usize = 8;

/// Fewest rows of a pass whose time measures prompt rows alone.
const BULK: usize = 16;

/// Estimates of times.
///
/// A pass of decode rows only measures these, and is planned now and then, and when their number has changed by half. In a pass of both
/// kinds the weights are read twice, once for each kind, so that few prompt rows take as long as many.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Seconds of a pass with decode rows only.
    decode: Option<f64>,
    /// Number of decode rows that `decode` was measured with.
    measured_with: usize,
    /// Whether `decode` needs no second measurement.
    is_sure: bool,
    /// Passes of decode and prompt rows since then.
    since: usize,
    /// Seconds of a prompt row beside decode rows, with its share of reading the weights.
    row: Option<f64>,
    /// Seconds of a prompt row among many.
    bulk: Option<f64>,
}

impl Costs {
    /// Corrects the estimates by the time of a pass.
    pub(super) fn observe(&mut self, decodes: usize, rows: usize, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        match (decodes, rows) {
            (0, ..BULK) => {}
            (0, _) => self.bulk = Some(least(self.bulk, elapsed / rows as f64)),
            (_, 0) => {
                let is_other = self.is_other(decodes);
                // a time far from the one before may be that of a pass that was held up
                self.is_sure = !is_other || self.decode.is_some_and(|before| elapsed < SURPRISE * before);
                self.decode = Some(least(self.decode.filter(|_| !is_other), elapsed));
                (self.measured_with, self.since) = (decodes, 0);
            }
            _ => {
                self.since += 1;
                if let Some(decode) = self.decode.filter(|_| !self.is_other(decodes)) {
                    let row = ((elapsed - decode) / rows as f64).max(decode / 4096.0);
                    self.row = Some(self.row.map_or(row, |before| before + WEIGHT * (row - before)));
                }
            }
        }
    }

    /// Prompt rows for a pass with decode rows: as many as make it `factor` times as long as without them. At least half of their time is
    /// their own, and not that of reading the weights, which may make the pass three times as long. 0 where the decode rows have to be
    /// measured.
    pub(super) fn rows_beside(&self, decodes: usize, factor: f64) -> usize {
        let Some(decode) = self.decode else {
            return if self.bulk.is_none() && self.since == 0 { UNMEASURED_ROWS } else { 0 };
        };
        if self.is_other(decodes) {
            // numbers that change from pass to pass must not keep prompts waiting
            return if self.since == 0 { PROBE } else { 0 };
        }
        if !self.is_sure || self.since >= MEASURE_AFTER {
            return 0;
        }
        let within = |time: f64, row: f64| (time / row.max(f64::MIN_POSITIVE)) as usize;
        let Some(row) = self.row.or(self.bulk) else { return PROBE };
        let budget = factor - 1.0;
        let worthwhile = match self.bulk {
            Some(bulk) => within(budget.min(1.0) * decode, bulk),
            None => within(2.0 * budget.min(1.0) * decode, row).max(FEWEST),
        };
        within(budget * decode, row).max(worthwhile).max(2)
    }

    /// Time of prompt rows; `None` before anything is measured.
    pub(super) fn time_of(&self, rows: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.bulk.or(self.row)? * rows as f64).ok()
    }

    /// Whether the estimate was measured with another number of decode rows.
    fn is_other(&self, decodes: usize) -> bool {
        let (less, more) = (decodes.min(self.measured_with), decodes.max(self.measured_with));
        2 * more > 3 * less
    }
}

/// The least measurement; an estimate grows slowly.
fn least(before: Option<f64>, now: f64) -> f64 {
    before.map_or(now, |before| now.min(before * GROWTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECODE: f64 = 0.070;
    const ROW: f64 = 0.011;

    /// Time of a pass: the weights are read once for each kind of rows.
    fn pass(decodes: usize, rows: usize) -> Duration {
        let kinds = usize::from(decodes > 0) + usize::from(rows > 0);
        Duration::from_secs_f64(DECODE * kinds as f64 + ROW * rows as f64)
    }

    #[test]
    fn estimates_approach_the_costs() {
        let mut costs = Costs::default();
        assert_eq!(costs.rows_beside(1, 2.0), 64);
        costs.observe(0, 200, pass(0, 200));
        assert_eq!(costs.rows_beside(1, 2.0), 0, "decode rows have to be measured first");
        costs.observe(1, 0, pass(1, 0));
        for _ in 0..20 {
            let rows = costs.rows_beside(1, 2.0);
            assert!(pass(1, rows) <= 3 * pass(1, 0));
            costs.observe(1, rows, pass(1, rows));
        }
        assert_eq!(costs.rows_beside(1, 2.0), 6);
        let mut patient = Costs::default();
        for _ in 0..60 {
            let rows = patient.rows_beside(1, 8.0);
            patient.observe(1, rows, pass(1, rows));
        }
        assert_eq!(patient.rows_beside(1, 8.0), 38);
        assert_eq!(costs.rows_beside(2, 2.0), 0, "twice as many decode rows are measured anew");
        assert!((costs.time_of(100).unwrap().as_secs_f64() - 1.1).abs() < 0.1);
    }

    /// One pass that the system held up makes no later pass long.
    #[test]
    fn a_single_measurement_misleads_little() {
        for held_up in 0..8 {
            let mut costs = Costs::default();
            costs.observe(0, 200, pass(0, 200));
            for number in 0..200 {
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
        let mut costs = Costs::default();
        let mut rows = 0;
        for decodes in [1, 10, 2, 20, 3].into_iter().cycle().take(100) {
            let now = costs.rows_beside(decodes, 2.0);
            rows += now;
            costs.observe(decodes, now, pass(decodes, now));
        }
        assert!(rows >= 40 * PROBE, "{rows}");
    }
}
