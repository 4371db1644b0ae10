//! How much traffic each client class brought lately.
//!
//! Counting is one relaxed addition, so that it may stand on the path of every
//! request and DNS answer. What was counted is folded into weights that halve
//! every [`HALF_LIFE`], when somebody asks or once a second: memory stays what
//! it is from the start, one number for each pair of letters that a country
//! code can have.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use model::routing::ClientClass;
use model::{Country, Millis, Mono};

/// After this time a request counts half.
pub const HALF_LIFE: Millis = Millis(15 * 60 * 1000);
/// Two letters, and no known country.
const PLACES: usize = 26 * 26 + 1;
/// What weighs less has no part in anything.
const FORGOTTEN: f64 = 0.01;

/// Requests and answers by client class, decaying.
#[derive(Debug)]
pub struct TrafficCounts {
    /// Since they were last folded.
    fresh: Box<[AtomicU64]>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    at: Mono,
    weights: Vec<f64>,
}

impl Default for TrafficCounts {
    fn default() -> Self {
        let fresh = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { fresh, kept: Mutex::new(Kept { at: Mono(0), weights: vec![0.0; PLACES] }) }
    }
}

impl TrafficCounts {
    /// Counts a request or an answer that was routed for a client of this country.
    pub fn count(&self, country: Option<Country>) {
        self.fresh[place(country)].fetch_add(1, Ordering::Relaxed);
    }

    /// The weight of each class that brought any traffic, as of `now`.
    pub fn recent(&self, now: Mono) -> BTreeMap<ClientClass, f64> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.0.saturating_sub(kept.at.0) as f64;
        let left = (-passed / HALF_LIFE.0 as f64).exp2();
        kept.at = now;
        let mut recent = BTreeMap::new();
        for (at, (weight, fresh)) in kept.weights.iter_mut().zip(&self.fresh).enumerate() {
            *weight = *weight * left + fresh.swap(0, Ordering::Relaxed) as f64;
            if *weight < FORGOTTEN {
                *weight = 0.0;
            } else {
                recent.insert(class(at), *weight);
            }
        }
        recent
    }
}

/// Adds what another region saw.
pub fn add_traffic(sum: &mut BTreeMap<ClientClass, f64>, other: &BTreeMap<ClientClass, f64>) {
    for (class, weight) in other.iter().filter(|(_, weight)| weight.is_finite() && **weight > 0.0) {
        *sum.entry(*class).or_default() += weight;
    }
}

fn place(country: Option<Country>) -> usize {
    let Some(country) = country else { return PLACES - 1 };
    let letters = country.as_str().bytes().map(|letter| usize::from(letter.saturating_sub(b'A')));
    letters.fold(0, |place, letter| place * 26 + letter).min(PLACES - 2)
}

fn class(place: usize) -> ClientClass {
    let letter = |at: usize| char::from(b'A' + at as u8);
    let country = (place < PLACES - 1).then(|| [letter(place / 26), letter(place % 26)].iter().collect::<String>());
    ClientClass { country: country.and_then(|code| Country::new(&code).ok()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> ClientClass {
        ClientClass { country: Country::new(code).ok() }
    }

    #[test]
    fn every_country_is_counted_under_its_own_name() {
        let counts = TrafficCounts::default();
        let all: Vec<Country> = crate::countries().collect();
        all.iter().for_each(|country| counts.count(Some(*country)));
        counts.count(None);
        let recent = counts.recent(Mono(0));
        assert_eq!(recent.len(), all.len() + 1);
        assert!(recent.values().all(|weight| *weight == 1.0), "{recent:?}");
        assert!(all.iter().all(|country| recent.contains_key(&ClientClass { country: Some(*country) })));
    }

    #[test]
    fn old_traffic_counts_less_and_is_forgotten_in_the_end() {
        let counts = TrafficCounts::default();
        (0..100).for_each(|_| counts.count(Country::new("DE").ok()));
        assert_eq!(counts.recent(Mono(0))[&of("DE")], 100.0);
        counts.count(Country::new("US").ok());
        let later = counts.recent(Mono(HALF_LIFE.0));
        assert!((later[&of("DE")] - 50.0).abs() < 1e-9 && later[&of("US")] == 1.0, "{later:?}");
        assert!(counts.recent(Mono(HALF_LIFE.0 * 30)).is_empty());
    }
}
