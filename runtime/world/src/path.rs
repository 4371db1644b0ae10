//! How long a packet travels from one place to another and back, without the
//! way from a client to the first exchange.
//!
//! Two steps, both calibrated on the bundled round trips between provider
//! regions. A line through distance and round trip says what a distance costs.
//! Then the pairs measured near either end say by how much the cables there
//! make it longer or shorter: the logarithms of measured over line, weighted by
//! how near the measured places are to the two ends. So a client in Argentina
//! reaches Asia by way of the north, as São Paulo does.
//!
//! [`PathModel::check`] says how wrong this is, by leaving each place out once
//! and predicting its round trips as if it were a client.

use std::sync::LazyLock;

use model::region::Coordinates;
use serde::Serialize;

use crate::data::{measured, place, places};

/// Kilometres that light goes in a millisecond in glass of refractive index 1.468 (G.652 fibre at 1550 nm).
pub(crate) const FIBRE_KM_PER_MS: f64 = 299.792_458 / 1.468;
/// At this distance, in km, what was measured counts for exp(-1) of what it does on the spot.
const NEAR_KM: f64 = 1500.0;
/// How much evidence makes half a correction: with little nearby, the line stands.
const DOUBT: f64 = 0.3;
/// Evidence below this is passed over.
const FAINT: f64 = 0.01;

/// The model; see above.
#[derive(Clone, Debug)]
pub struct PathModel {
    /// Round trip over no distance, in ms.
    pub fixed_ms: f64,
    /// Round trip a thousand kilometres, in ms.
    pub per_1000_km_ms: f64,
    anchors: Vec<Coordinates>,
    /// Logarithm of measured over line by the numbers of two anchors; none where it was not measured.
    ratios: Vec<Vec<Option<f64>>>,
}

/// How wrong the model is, by leaving each place out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FitError {
    /// Predictions compared: every ordered pair.
    pub pairs: usize,
    /// Mean absolute error of the line alone, in ms.
    pub line_ms: f64,
    /// Mean absolute error, in ms.
    pub mean_ms: f64,
    /// Median of the error relative to what was measured.
    pub median_share: f64,
    /// 90 of 100 relative errors are below this.
    pub p90_share: f64,
    /// Mean of predicted less measured, in ms.
    pub bias_ms: f64,
    /// Deviation of the logarithm of measured over predicted, by quartiles: what the model cannot know of one path.
    pub log_spread: f64,
}

impl PathModel {
    /// The model of all that is bundled.
    pub fn bundled() -> &'static Self {
        static BUNDLED: LazyLock<PathModel> = LazyLock::new(|| PathModel::without(None));
        &BUNDLED
    }

    /// Calibrated on all measured places but one.
    fn without(left_out: Option<&str>) -> Self {
        let listed = places().iter().filter(|place| measured().keys().any(|(from, _)| *from == place.name));
        let anchors: Vec<_> = listed.filter(|place| Some(place.name) != left_out).collect();
        let mut pairs = Vec::new();
        for (at, from) in anchors.iter().enumerate() {
            for (beyond, to) in anchors.iter().enumerate().skip(at + 1) {
                if let Some(rtt) = measured().get(&(from.name, to.name)) {
                    pairs.push((at, beyond, from.coordinates.kilometres_to(to.coordinates), *rtt));
                }
            }
        }
        let (fixed_ms, per_km) = line(pairs.iter().map(|&(_, _, km, rtt)| (km, rtt)));
        let mut ratios = vec![vec![None; anchors.len()]; anchors.len()];
        for (at, beyond, km, rtt) in pairs {
            let ratio = Some((rtt / (fixed_ms + per_km * km)).ln());
            ratios[at][beyond] = ratio;
            ratios[beyond][at] = ratio;
        }
        let anchors = anchors.iter().map(|place| place.coordinates).collect();
        Self { fixed_ms, per_1000_km_ms: per_km * 1000.0, anchors, ratios }
    }

    /// How much the measurements around a place say about it, by anchor.
    pub(crate) fn evidence(&self, at: Coordinates) -> Vec<(usize, f64)> {
        let near = |anchor: &Coordinates| (-at.kilometres_to(*anchor) / NEAR_KM).exp();
        self.anchors.iter().map(near).enumerate().filter(|(_, weight)| *weight >= FAINT).collect()
    }

    fn line(&self, kilometres: f64) -> f64 {
        self.fixed_ms + self.per_1000_km_ms * kilometres / 1000.0
    }

    /// The round trip between two places in ms.
    pub fn round_trip(&self, from: Coordinates, to: Coordinates) -> f64 {
        self.trip(from.kilometres_to(to), &self.evidence(from), &self.evidence(to))
    }

    /// As [`Self::round_trip`], where the evidence around both ends is at hand.
    pub(crate) fn trip(&self, kilometres: f64, from: &[(usize, f64)], to: &[(usize, f64)]) -> f64 {
        let (mut sum, mut weight) = (0.0, 0.0);
        for &(here, near) in from {
            for &(there, nearby) in to {
                if let Some(ratio) = self.ratios[here][there] {
                    sum += near * nearby * ratio;
                    weight += near * nearby;
                }
            }
        }
        let corrected = self.line(kilometres) * (sum / (weight + DOUBT)).exp();
        corrected.max(2.0 * kilometres / FIBRE_KM_PER_MS)
    }

    /// The round trip between two places in ms: as measured where both are listed, else as modelled.
    pub fn between(&self, (one, at): (&str, Coordinates), (other, there): (&str, Coordinates)) -> f64 {
        let known = place(one).zip(place(other)).and_then(|(one, other)| measured().get(&(one.name, other.name)));
        known.copied().unwrap_or_else(|| self.round_trip(at, there))
    }

    /// How wrong the model is.
    pub fn check() -> FitError {
        let (mut line, mut whole, mut logs) = (Vec::new(), Vec::new(), Vec::new());
        for client in places() {
            let model = Self::without(Some(client.name));
            for region in places() {
                let Some(rtt) = measured().get(&(client.name, region.name)) else { continue };
                let km = client.coordinates.kilometres_to(region.coordinates);
                let predicted = model.round_trip(client.coordinates, region.coordinates);
                line.push((model.line(km) - rtt).abs());
                whole.push((predicted - rtt, (predicted - rtt).abs() / rtt));
                logs.push((rtt / predicted).ln());
            }
        }
        let count = whole.len() as f64;
        let shares: Vec<f64> = whole.iter().map(|(_, share)| *share).collect();
        FitError {
            pairs: whole.len(),
            line_ms: line.iter().sum::<f64>() / count,
            mean_ms: whole.iter().map(|(ms, _)| ms.abs()).sum::<f64>() / count,
            median_share: quantile(&shares, 0.5),
            p90_share: quantile(&shares, 0.9),
            bias_ms: whole.iter().map(|(ms, _)| ms).sum::<f64>() / count,
            // Half of a normal distribution lies within 0.6745 deviations of its middle.
            log_spread: (quantile(&logs, 0.75) - quantile(&logs, 0.25)) / 2.0 / 0.6745,
        }
    }
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The line through (km, ms) with the least squares of ms, each divided by its km: near pairs tell as much as far ones.
fn line(pairs: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let (mut weight, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (km, ms) in pairs {
        let each = 1.0 / km.max(1.0);
        weight += each;
        x += each * km;
        y += each * ms;
        xx += each * km * km;
        xy += each * km * ms;
    }
    let slope = (weight * xy - x * y) / (weight * xx - x * x);
    ((y - slope * x) / weight, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str) -> Coordinates {
        place(name).unwrap().coordinates
    }

    #[test]
    fn a_line_is_found_again() {
        let (fixed, slope) = line([100.0, 900.0, 5000.0].into_iter().map(|km| (km, 4.0 + 0.02 * km)));
        assert!((fixed - 4.0).abs() < 1e-9 && (slope - 0.02).abs() < 1e-12);
    }

    #[test]
    fn no_packet_is_faster_than_light_in_glass() {
        let model = PathModel::bundled();
        for one in places() {
            for other in places() {
                let km = one.coordinates.kilometres_to(other.coordinates);
                assert!(model.round_trip(one.coordinates, other.coordinates) >= 2.0 * km / FIBRE_KM_PER_MS);
            }
        }
    }

    #[test]
    fn places_that_were_left_out_are_predicted_better_by_their_neighbours_than_by_the_line() {
        let error = PathModel::check();
        assert_eq!(error.pairs, 420);
        // The figures stand in docs/simulate.md.
        assert!(error.mean_ms < 0.65 * error.line_ms, "{error:?}");
        assert!(error.median_share < 0.10 && error.p90_share < 0.30 && error.bias_ms.abs() < 4.0, "{error:?}");
    }

    #[test]
    fn a_detour_that_was_measured_is_taken_by_the_neighbours_too() {
        let model = PathModel::bundled();
        let buenos_aires = Coordinates { latitude: -34.6, longitude: -58.4 };
        let africa = at("af-south-1");
        let km = buenos_aires.kilometres_to(africa);
        assert!(model.round_trip(buenos_aires, africa) > 1.5 * model.line(km), "São Paulo has no cable to Cape Town");
        assert_eq!(
            model.between(("us-east-1", at("us-east-1")), ("eu-west-1", at("eu-west-1"))),
            measured()[&("us-east-1", "eu-west-1")]
        );
    }
}
