//! Sampling by sorting, in double precision.

use crate::ops::Sample;
use crate::reference::Reference;
use crate::{Batch, Sampling};

impl Sample for Reference {}

impl Sampling {
    /// The token in double precision; [`Batch::NO_TOKEN`] where a logit is not finite.
    pub fn reference(self, logits: &[f32]) -> u32 {
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Batch::NO_TOKEN;
        }
        // by falling logit, of equals the first one first
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(&b)));
        let Sampling::Random { temperature, top_k, top_p, min_p, draw } = self else { return order[0] as u32 };
        let largest = f64::from(logits[order[0]]);
        let weight = |token: usize| ((f64::from(logits[token]) - largest) / f64::from(temperature)).exp();

        if let Some(least) = (top_k as usize).checked_sub(1).and_then(|k| order.get(k)) {
            let least = logits[*least];
            order.retain(|&token| logits[token] >= least);
        }
        // weights that are equal in single precision count as equal
        order.sort_by(|&a, &b| (weight(b) as f32).total_cmp(&(weight(a) as f32)).then(a.cmp(&b)));
        let mut budget = (1.0 - f64::from(top_p)) * order.iter().map(|&token| weight(token)).sum::<f64>();
        while let Some(&last) = order.last()
            && top_p < 1.0
            && weight(last) <= budget
            && order.len() > 1
        {
            budget -= weight(last);
            order.pop();
        }
        order.retain(|&token| weight(token) >= f64::from(min_p));
        order.sort_unstable();
        let mut left = f64::from(draw) / 4_294_967_296.0 * order.iter().map(|&token| weight(token)).sum::<f64>();
        let sampled = order.iter().find(|&&token| {
            left -= weight(token);
            left < 0.0
        });
        *sampled.or(order.last()).unwrap_or(&0) as u32
    }
}
