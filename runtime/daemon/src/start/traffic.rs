//! Recent traffic by client class, here and in the other regions.
//!
//! The region that proposes a change wants to know whom it moves, and clients
//! of another continent rarely come to its own gateway. So it asks the others
//! every few seconds what they routed. A region that does not answer keeps the
//! weight that it had, and loses it with time as all traffic does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::routing::ClientClass;
use model::{Mono, RegionId};
use net::PeerClient;
use routing::{HALF_LIFE, TrafficCounts, add_traffic};
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// How often a peer is asked.
const EVERY: Duration = Duration::from_secs(5);
/// The most classes that are taken from a peer: more than there are countries.
const MOST_CLASSES: usize = 1000;

/// What was counted here, and what peers told.
#[derive(Default)]
pub struct Traffic {
    /// This region's own counts.
    pub here: Arc<TrafficCounts>,
    told: Mutex<BTreeMap<RegionId, Told>>,
}

/// What a peer told, and when.
struct Told {
    at: Mono,
    weights: BTreeMap<ClientClass, f64>,
}

impl Traffic {
    /// The weight of each client class over all regions.
    pub fn everywhere(&self, now: Mono) -> BTreeMap<ClientClass, f64> {
        let mut sum = self.here.recent(now);
        for Told { at, weights } in self.told.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let left = (-(now.0.saturating_sub(at.0) as f64) / HALF_LIFE.0 as f64).exp2();
            let weights = weights.iter().map(|(class, weight)| (*class, weight * left)).collect();
            add_traffic(&mut sum, &weights);
        }
        sum
    }

    fn tell(&self, peer: &RegionId, now: Mono, weights: BTreeMap<ClientClass, f64>) {
        let weights = weights.into_iter().take(MOST_CLASSES).collect();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.clone(), Told { at: now, weights });
    }
}

/// Asks `peer` what it routed, until `stop`.
pub async fn keep(region: Arc<RunningRegion>, peer: RegionId, client: Arc<PeerClient>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A peer that does not answer is for the prober to report.
        if let Some(Ok(weights)) = stop.run_until_cancelled(client.traffic()).await {
            region.traffic.tell(&peer, region.now(), weights);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Country;

    use super::*;

    #[test]
    fn traffic_of_other_regions_counts_and_that_of_a_silent_one_fades() {
        let traffic = Traffic::default();
        let of = |code: &str| ClientClass { country: Country::new(code).ok() };
        traffic.here.count(Country::new("US").ok());
        traffic.tell(&RegionId::new("eu-west").unwrap(), Mono(0), BTreeMap::from([(of("DE"), 8.0), (of("US"), 1.0)]));
        let now = traffic.everywhere(Mono(0));
        assert_eq!((now[&of("DE")], now[&of("US")]), (8.0, 2.0));
        let later = traffic.everywhere(Mono(2 * HALF_LIFE.0));
        assert!((later[&of("DE")] - 2.0).abs() < 1e-9, "{later:?}");
    }
}
