//! Region to region: which pairs answer each other in time, and which never can.

use serde::Serialize;

use crate::data::{measured, measured_again, place, places};
use crate::path::FIBRE_KM_PER_MS;

/// How a pair of regions stands to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairVerdict {
    /// It was measured below the limit.
    Meets,
    /// Light in glass along the great circle would meet it; the cables there are do not.
    CablesMiss,
    /// No cable could: light in glass takes longer along the great circle.
    PhysicsForbids,
}

/// Two regions, what was measured between them, and what light in glass would take.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// One, by the provider's name.
    pub one: &'static str,
    /// The other.
    pub other: &'static str,
    /// The great circle between them.
    pub km: f64,
    /// Twice that, at the speed of light in glass: the least round trip that any cable can have.
    pub light_ms: f64,
    /// As measured.
    pub measured_ms: f64,
    /// As measured again by another provider at the 95th percentile, where it was.
    pub again_p95_ms: Option<f64>,
    /// How it stands to the limit.
    pub verdict: PairVerdict,
}

/// The least round trip, in ms, that any cable over so many kilometres can have: light in glass, there and back.
pub fn light_ms(kilometres: f64) -> f64 {
    2.0 * kilometres / FIBRE_KM_PER_MS
}

/// Whether the round trip between two places was measured.
pub fn is_measured(one: &str, other: &str) -> bool {
    let listed = place(one).zip(place(other));
    listed.is_some_and(|(one, other)| measured().contains_key(&(one.name, other.name)))
}

/// Judges every pair of places that was measured, the shortest round trip first.
pub fn judge_pairs(limit_ms: f64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (at, one) in places().iter().enumerate() {
        for other in &places()[at + 1..] {
            let Some(&measured_ms) = measured().get(&(one.name, other.name)) else { continue };
            let km = one.coordinates.kilometres_to(other.coordinates);
            let light_ms = light_ms(km);
            let verdict = match () {
                () if measured_ms < limit_ms => PairVerdict::Meets,
                () if light_ms < limit_ms => PairVerdict::CablesMiss,
                () => PairVerdict::PhysicsForbids,
            };
            let again_p95_ms = measured_again().get(&(one.name, other.name)).copied();
            let (one, other) = (one.name, other.name);
            pairs.push(Pair { one, other, km, light_ms, measured_ms, again_p95_ms, verdict });
        }
    }
    pairs.sort_by(|a, b| a.measured_ms.total_cmp(&b.measured_ms));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measured_pair_is_judged_and_none_beats_light() {
        let pairs = judge_pairs(100.0);
        assert_eq!(pairs.len(), 21 * 20 / 2);
        assert!(pairs.iter().all(|pair| pair.measured_ms > pair.light_ms), "the coordinates or the table are wrong");
        let find = |one: &str, other: &str| pairs.iter().find(|pair| pair.one == one && pair.other == other).unwrap();
        // The reader may do the sums: 5,440 km, and 15,500 km.
        assert_eq!(find("eu-west-1", "us-east-1").verdict, PairVerdict::Meets);
        assert_eq!(find("ap-southeast-1", "us-east-1").verdict, PairVerdict::PhysicsForbids);
        assert!(find("ap-southeast-1", "us-east-1").light_ms > 150.0);
        let counts = |verdict| pairs.iter().filter(|pair| pair.verdict == verdict).count();
        assert!(counts(PairVerdict::PhysicsForbids) > 20 && counts(PairVerdict::CablesMiss) > 20);
    }
}
