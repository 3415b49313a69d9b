//! Fairness between keys: virtual token counters (Sheng et al. 2024, arXiv 2401.00588).

use std::collections::HashMap;

/// Rows that a key without requests keeps in hand, so that one that asks seldom is answered soon.
const CREDIT: u64 = 512;

/// Rows that each key was given. The key with the least is served first.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<Box<str>, Usage>);

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    served: u64,
    /// Requests that have not ended.
    requests: usize,
}

impl Keys {
    /// Counts a request of a key. A key without other requests is raised to the least served of those that have some, but for the
    /// credit: absence gains no more.
    pub(super) fn enter(&mut self, key: &str) {
        let least = self.least().saturating_sub(CREDIT);
        let usage = self.0.entry(key.into()).or_default();
        if usage.requests == 0 {
            usage.served = usage.served.max(least);
        }
        usage.requests += 1;
    }

    /// Counts the end of a request.
    pub(super) fn leave(&mut self, key: &str) {
        let Some(usage) = self.0.get_mut(key) else { return };
        usage.requests = usage.requests.saturating_sub(1);
        if usage.requests == 0 {
            let least = self.least().saturating_sub(CREDIT);
            // without requests of others, nobody is owed anything
            let idle = self.0.values().all(|usage| usage.requests == 0);
            self.0.retain(|_, usage| usage.requests > 0 || (!idle && usage.served > least));
        }
    }

    /// Counts computed rows.
    pub(super) fn charge(&mut self, key: &str, rows: usize) {
        if let Some(usage) = self.0.get_mut(key) {
            usage.served += rows as u64;
        }
    }

    /// Rows computed for a key.
    pub(super) fn served(&self, key: &str) -> u64 {
        self.0.get(key).map_or(0, |usage| usage.served)
    }

    fn least(&self) -> u64 {
        self.0.values().filter(|usage| usage.requests > 0).map(|usage| usage.served).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_gains_a_credit_and_forgets_no_debt() {
        let mut keys = Keys::default();
        keys.enter("a");
        keys.charge("a", 1000);
        keys.enter("b");
        assert_eq!(keys.served("b"), 1000 - CREDIT);
        keys.charge("b", 600);
        keys.leave("b");
        keys.enter("b");
        assert_eq!(keys.served("b"), 1600 - CREDIT);
        keys.leave("b");
        keys.charge("a", 1000);
        keys.enter("b");
        assert_eq!(keys.served("b"), 2000 - CREDIT);
        keys.leave("b");
        keys.leave("a");
        assert!(keys.0.is_empty());
    }
}
