//! Routing: the experts of each row, and their weights.

use crate::checks::RoutesShape;

/// Selection of a row's experts by its scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Router {
    /// Two experts, by `sparsemixer` of Phi-3.5-MoE (Liu et al. 2023, arXiv 2310.00811) at inference: of the scores s that are
    /// near the best, `(best - s) / max(|s|, best) <= 2 * jitter`, the best one's share of a softmax is its weight; then the same
    /// without it. The weights do not sum to one.
    SparseMixer {
        /// Half the largest relative distance of a score from the best.
        jitter: f32,
    },
}

/// Number of experts of a row.
pub const TOP_EXPERTS: usize = 2;

/// An expert of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route {
    /// The expert.
    pub expert: usize,
    /// Factor of its output.
    pub weight: f32,
}

impl Router {
    /// The experts of a row with these scores, the best first; of equal scores the first counts. At least one score is expected.
    pub fn select(self, scores: &[f32]) -> [Route; TOP_EXPERTS] {
        let Router::SparseMixer { jitter } = self;
        let first = mix(scores, jitter, None);
        [first, mix(scores, jitter, Some(first.expert))]
    }
}

/// The best expert but `without`, and its share of a softmax over the scores near its own.
fn mix(scores: &[f32], jitter: f32, without: Option<usize>) -> Route {
    let left = || scores.iter().copied().enumerate().filter(|(expert, _)| Some(*expert) != without);
    let best = left().reduce(|best, other| if other.1 > best.1 { other } else { best });
    let Some((expert, best)) = best else { return Route { expert: 0, weight: 0.0 } };
    let near = left().filter(|(_, score)| (best - score) / score.abs().max(best) <= 2.0 * jitter || *score == best);
    let sum: f32 = near.map(|(_, score)| (score - best).exp()).sum();
    // the term of the best expert is one
    Route { expert, weight: 1.0 / sum }
}

/// The routes of a pass on the host, by expert.
#[derive(Debug, Default)]
pub struct Routes {
    /// Number of experts.
    pub(crate) experts: usize,
    /// Capacity in rows.
    pub(crate) capacity: usize,
    /// Row and route, grouped by expert.
    pub(crate) pairs: Vec<(usize, Route)>,
    /// Ends of the experts' pairs.
    ends: Vec<usize>,
}

impl Routes {
    pub(crate) fn new(rows: usize, experts: usize) -> Self {
        Self { experts, capacity: rows, pairs: Vec::with_capacity(rows * TOP_EXPERTS), ends: vec![0; experts] }
    }

    pub(crate) fn shape(&self) -> RoutesShape {
        let routed = self.pairs.len() / TOP_EXPERTS;
        RoutesShape { capacity: self.capacity, experts: self.experts, routed }
    }

    /// Routes rows by their scores, `[rows, experts]`.
    pub(crate) fn route(&mut self, scores: &[f32], router: Router) {
        self.pairs.clear();
        for (row, scores) in scores.chunks_exact(self.experts.max(1)).enumerate() {
            self.pairs.extend(router.select(scores).map(|route| (row, route)));
        }
        // a stable sort keeps the order of rows
        self.pairs.sort_by_key(|(_, route)| route.expert);
        for (expert, end) in self.ends.iter_mut().enumerate() {
            *end = self.pairs.partition_point(|(_, route)| route.expert <= expert);
        }
    }

    /// Experts that have rows, and the ranges of their pairs.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end);
        ranges.enumerate().filter(|(_, range)| !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    const ROUTER: Router = Router::SparseMixer { jitter: 0.01 };

    #[test]
    fn rows_are_routed_as_the_reference_routes_them() {
        let file = std::fs::read("../../tests/data/oracle/ops/ops.safetensors").unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        let floats = |name: &str| -> Vec<f32> { bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data()) };
        let (scores, weights) = (floats("sparsemixer.scores"), floats("sparsemixer.weights"));
        let experts: Vec<u32> = bytemuck::pod_collect_to_vec(file.tensor("sparsemixer.experts").unwrap().data());
        let count = file.tensor("sparsemixer.scores").unwrap().shape()[1];
        for (row, scores) in scores.chunks_exact(count).enumerate() {
            for (i, route) in ROUTER.select(scores).into_iter().enumerate() {
                assert_eq!(route.expert, experts[2 * row + i] as usize, "row {row}");
                assert!((route.weight - weights[2 * row + i]).abs() < 1e-6, "row {row}: {route:?}");
            }
        }
    }

    #[test]
    fn of_equal_scores_the_first_counts() {
        let routes = ROUTER.select(&[1.0, 3.0, 3.0, -2.0]);
        assert_eq!(routes, [Route { expert: 1, weight: 0.5 }, Route { expert: 2, weight: 1.0 }]);
        assert_eq!(ROUTER.select(&[0.0, 0.0]).map(|route| route.expert), [0, 1]);
        assert_eq!(ROUTER.select(&[-1.0])[1], Route { expert: 0, weight: 0.0 });
    }

    #[test]
    fn pairs_stand_by_expert() {
        let mut routes = Routes::new(3, 4);
        routes.route(&[0.0, 9.0, 5.0, 1.0, 9.0, 0.0, 5.0, 1.0, 0.0, 1.0, 9.0, 5.0], ROUTER);
        let rows: Vec<usize> = routes.pairs.iter().map(|(row, _)| *row).collect();
        let groups: Vec<_> = routes.groups().collect();
        assert_eq!(groups, [(0, 0..1), (1, 1..2), (2, 2..5), (3, 5..6)]);
        assert_eq!(rows, [1, 0, 0, 1, 2, 2]);
    }
}
