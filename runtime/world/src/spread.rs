//! How far apart values lie, in bins: a million values cost what a hundred do.

use serde::Serialize;

/// Bins a millisecond.
const FINE: f64 = 4.0;
/// What is longer falls into the last bin.
const LONGEST_MS: usize = 1000;
const BINS: usize = LONGEST_MS * FINE as usize;

/// Round trips, counted in bins of a quarter millisecond.
#[derive(Clone, Debug)]
pub struct Spread {
    bins: Vec<u32>,
    count: u64,
    sum: f64,
}

/// What is told of a [`Spread`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub clients: u64,
    /// The median, in ms.
    pub p50: f64,
    /// 95 of 100 are below this, in ms.
    pub p95: f64,
    /// 99 of 100 are below this, in ms.
    pub p99: f64,
    /// The mean, in ms.
    pub mean: f64,
    /// The share below 100 ms, 0 to 1.
    pub below_100: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { bins: vec![0; BINS], count: 0, sum: 0.0 }
    }
}

impl Spread {
    /// Counts one.
    pub(crate) fn add(&mut self, ms: f64) {
        self.bins[((ms * FINE) as usize).min(BINS - 1)] += 1;
        self.count += 1;
        self.sum += ms;
    }

    /// Counts all of another.
    pub(crate) fn join(&mut self, other: &Self) {
        self.bins.iter_mut().zip(&other.bins).for_each(|(bin, more)| *bin += more);
        self.count += other.count;
        self.sum += other.sum;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The value that this share of all is below, to a quarter millisecond; 0 where nothing was counted.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil() as u64;
        let mut passed = 0;
        let at = self.bins.iter().position(|bin| {
            passed += u64::from(*bin);
            passed >= wanted && passed > 0
        });
        at.map_or(0.0, |at| (at + 1) as f64 / FINE)
    }

    /// The share below so many milliseconds.
    pub fn below(&self, ms: f64) -> f64 {
        let end = ((ms * FINE) as usize).min(BINS);
        let passed: u64 = self.bins[..end].iter().map(|bin| u64::from(*bin)).sum();
        passed as f64 / self.count.max(1) as f64
    }

    /// The figures.
    pub fn summary(&self) -> Summary {
        Summary {
            clients: self.count,
            p50: self.quantile(0.5),
            p95: self.quantile(0.95),
            p99: self.quantile(0.99),
            mean: (self.sum / self.count.max(1) as f64 * 10.0).round() / 10.0,
            below_100: self.below(100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_values_to_a_bin() {
        let mut spread = Spread::default();
        let values: Vec<f64> = (0..1000).map(|at| f64::from(at * 7919 % 1000) / 3.0).collect();
        values.iter().for_each(|ms| spread.add(*ms));
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        for share in [0.01, 0.5, 0.95, 0.99, 1.0] {
            let exact = sorted[(share * 1000.0) as usize - 1];
            assert!((0.0..=0.26).contains(&(spread.quantile(share) - exact)), "{share}");
        }
        assert!((spread.below(100.0) - 0.3).abs() < 0.002);
        assert_eq!(Spread::default().quantile(0.95), 0.0);
        assert_eq!(Spread::default().below(100.0), 0.0);
    }
}
