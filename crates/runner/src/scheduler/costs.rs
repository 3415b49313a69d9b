//! Estimated times of passes: of one with decode rows only, and of each prompt row more.

use std::time::Duration;

/// Prompt rows beside decode rows before anything is measured.
const UNMEASURED_ROWS: usize = 64;

/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;

/// Passes after which decode rows are measured again.
const MEASURE_AFTER: usize = 32;

/// Estimates by exponential smoothing.
///
/// A pass of decode rows and at most one prompt row measures the decode rows; a pass of more prompt rows measures these, given the
/// first estimate. Such a pass is therefore planned now and then, and when the number of decode rows has changed by half.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Seconds of a pass with decode rows only.
    decode: Option<f64>,
    /// Number of decode rows that `decode` was measured with.
    measured_with: usize,
    /// Passes of decode and prompt rows since then.
    since: usize,
    /// Seconds of a prompt row.
    row: Option<f64>,
}

impl Costs {
    /// Corrects the estimates by the time of a pass.
    pub(super) fn observe(&mut self, decodes: usize, rows: usize, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        match (decodes, rows) {
            (0, 0) => {}
            // the weights are read once for all rows, so that this is an upper bound
            (0, _) => {
                let bound = elapsed / rows as f64;
                if self.row.is_none_or(|row| bound < row) {
                    self.row = Some(smooth(self.row, bound));
                }
            }
            (_, ..=1) => {
                let before = self.decode.filter(|_| !self.is_other(decodes));
                let row = self.row.unwrap_or(0.0) * rows as f64;
                self.decode = Some(smooth(before, (elapsed - row).max(elapsed / 2.0)));
                (self.measured_with, self.since) = (decodes, 0);
            }
            _ => {
                self.since += 1;
                if let Some(decode) = self.decode.filter(|_| !self.is_other(decodes)) {
                    let row = ((elapsed - decode) / rows as f64).max(decode / 4096.0);
                    self.row = Some(smooth(self.row, row));
                }
            }
        }
    }

    /// Prompt rows that make a pass at most `factor` times as long as its decode rows alone; at least 1.
    pub(super) fn rows_beside(&self, decodes: usize, factor: f64) -> usize {
        match (self.decode, self.row) {
            (None, None) => UNMEASURED_ROWS,
            (Some(decode), Some(row)) if self.since < MEASURE_AFTER && !self.is_other(decodes) => {
                // a bound alone, of which one row is the most, would never be corrected by passes of one row
                (((factor - 1.0) * decode / row.max(f64::MIN_POSITIVE)) as usize).max(2)
            }
            _ => 1,
        }
    }

    /// Time of prompt rows; `None` before anything is measured.
    pub(super) fn time_of(&self, rows: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.row? * rows as f64).ok()
    }

    /// Whether the estimate was measured with another number of decode rows.
    fn is_other(&self, decodes: usize) -> bool {
        let (less, more) = (decodes.min(self.measured_with), decodes.max(self.measured_with));
        2 * more > 3 * less
    }
}

fn smooth(before: Option<f64>, now: f64) -> f64 {
    before.map_or(now, |before| before + WEIGHT * (now - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_approach_the_costs() {
        let (decode, row) = (0.070, 0.011);
        let mut costs = Costs::default();
        assert_eq!(costs.rows_beside(1, 2.0), 64);
        let pass = |decodes: usize, rows: usize| {
            Duration::from_secs_f64(if decodes > 0 { decode } else { 0.05 } + row * rows as f64)
        };
        costs.observe(0, 20, pass(0, 20));
        assert_eq!(costs.rows_beside(1, 2.0), 1, "decode rows have to be measured first");
        costs.observe(1, 0, pass(1, 0));
        for _ in 0..20 {
            let rows = costs.rows_beside(1, 2.0);
            assert!(pass(1, rows) <= 3 * pass(1, 0));
            costs.observe(1, rows, pass(1, rows));
        }
        assert_eq!(costs.rows_beside(1, 2.0), 6);
        assert_eq!(costs.rows_beside(1, 8.0), 44);
        assert_eq!(costs.rows_beside(2, 2.0), 1, "twice as many decode rows are measured anew");
        assert!((costs.time_of(100).unwrap().as_secs_f64() - 1.1).abs() < 0.05);
    }
}
