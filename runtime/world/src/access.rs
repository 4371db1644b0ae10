//! The way from a client to the first exchange: wires, radio, queues.
//!
//! Half of the clients are on fixed lines and half on mobile networks, with the
//! worldwide medians that Ookla published for the first quarter of 2023: 9 and
//! 28 ms. Medians are all that was published: how far clients lie apart is an
//! assumption, a log-normal spread of 0.4 (its 95th percentile is 1.9 times the
//! median), and so is the half.

use crate::random::Random;

/// What the way to the first exchange adds to each round trip.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Access {
    /// Median round trip over fixed lines, in ms.
    pub fixed_ms: f64,
    /// Median round trip over mobile networks, in ms.
    pub mobile_ms: f64,
    /// The share of clients on mobile networks, 0 to 1.
    pub mobile: f64,
    /// The deviation of the logarithm around either median.
    pub spread: f64,
}

impl Default for Access {
    fn default() -> Self {
        Self { fixed_ms: 9.0, mobile_ms: 28.0, mobile: 0.5, spread: 0.4 }
    }
}

impl Access {
    /// One client's, in ms.
    pub(crate) fn draw(&self, random: &mut Random) -> f64 {
        let median = if random.unit() < self.mobile { self.mobile_ms } else { self.fixed_ms };
        median * (self.spread * random.normal()).exp()
    }

    /// The share of clients for whom it is below `limit` ms.
    pub(crate) fn below(&self, limit: f64) -> f64 {
        if limit <= 0.0 {
            return 0.0;
        }
        let share = |median: f64| normal_below((limit / median).ln() / self.spread);
        self.mobile * share(self.mobile_ms) + (1.0 - self.mobile) * share(self.fixed_ms)
    }
}

/// The standard normal distribution up to `x`, to 1e-7 (Abramowitz and Stegun, 26.2.17).
fn normal_below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    let above = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum;
    if x >= 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_has_the_shares_that_are_claimed() {
        let (access, mut random) = (Access::default(), Random::new(1));
        let drawn: Vec<f64> = (0..100_000).map(|_| access.draw(&mut random)).collect();
        for limit in [5.0, 9.0, 15.0, 28.0, 60.0, 100.0] {
            let share = drawn.iter().filter(|ms| **ms < limit).count() as f64 / drawn.len() as f64;
            assert!((share - access.below(limit)).abs() < 0.005, "{limit}: {share} and {}", access.below(limit));
        }
        assert_eq!(access.below(0.0), 0.0);
    }
}
