//! Services that keep failing are asked last for a while, so that requests do not wait for them one after another.
//!
//! ```text
//!   closed ──FAILURES in a row──▶ open ──its pause is over──▶ one request tries
//!      ▲                           ▲                            │        │
//!      │                           └──── twice the pause ◀──fails        │
//!      └────────────────────────────────────────────────────────succeeds─┘
//! ```
//!
//! Probes say whether a region lives; this is about the service that stands behind it, and about this gateway's way to
//! it. Nothing is refused for it: where every service is open, they are asked in their order all the same.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::RegionId;

/// So many failures in a row open it.
const FAILURES: u32 = 5;
/// The first pause; each failed trial doubles it.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    pause: Duration,
    /// Whether a request tries it. Those that were under way when it opened say nothing new.
    tried: bool,
}

/// The breakers of all services that have failed lately.
#[derive(Debug, Default)]
pub(super) struct Breakers(Mutex<BTreeMap<RegionId, Breaker>>);

impl Breakers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RegionId, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts those last that are open. One whose pause is over and that would be asked first is tried by this request;
    /// the others pass it over meanwhile.
    pub(super) fn order(&self, regions: &mut [RegionId], now: Instant) {
        let mut all = self.all();
        if all.values().all(|breaker| breaker.open.is_none()) {
            return;
        }
        if let Some(open) = regions.first().and_then(|first| all.get_mut(first)?.open.as_mut())
            && open.until <= now
        {
            // Whoever tries may never come back to say what came of it.
            open.until = now + open.pause;
            open.tried = true;
            return;
        }
        regions.sort_by_key(|region| all.get(region).is_some_and(|breaker| breaker.open.is_some()));
    }

    /// A service answered.
    pub(super) fn succeeded(&self, region: &RegionId) {
        let mut all = self.all();
        if all.remove(region).is_some_and(|breaker| breaker.open.is_some()) {
            tracing::info!(%region, "the service answers again");
            metrics::gauge!("repomind_service_open", "region" => region.to_string()).set(0.0);
        }
    }

    /// A service did not answer, or that it cannot.
    pub(super) fn failed(&self, region: &RegionId, now: Instant) {
        let mut all = self.all();
        let breaker = all.entry(region.clone()).or_default();
        match &mut breaker.open {
            Some(open) if open.tried => {
                let pause = (open.pause * 2).min(LONGEST);
                *open = Open { until: now + pause, pause, tried: false };
            }
            Some(_) => {}
            None => breaker.failures += 1,
        }
        if breaker.open.is_none() && breaker.failures >= FAILURES {
            breaker.open = Some(Open { until: now + PAUSE, pause: PAUSE, tried: false });
            tracing::warn!(%region, "the service failed {FAILURES} times in a row and is asked last for a while");
            metrics::gauge!("repomind_service_open", "region" => region.to_string()).set(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_keeps_failing_is_asked_last_and_tried_again_after_ever_longer_pauses() {
        let [a, b] = ["a", "b"].map(|name| RegionId::new(name).unwrap());
        let (breakers, start) = (Breakers::default(), Instant::now());
        let first = |ms: u64| {
            let mut order = [a.clone(), b.clone()];
            breakers.order(&mut order, start + Duration::from_millis(ms));
            order[0].as_str().to_owned()
        };
        for _ in 0..4 {
            breakers.failed(&a, start);
        }
        breakers.succeeded(&a);
        for _ in 0..4 {
            breakers.failed(&a, start);
        }
        assert_eq!(first(0), "a", "it has not failed often enough in a row");
        for _ in 0..100 {
            breakers.failed(&a, start);
        }
        assert_eq!((first(0).as_str(), first(999).as_str()), ("b", "b"));
        // One request tries, and fails.
        assert_eq!((first(1000).as_str(), first(1000).as_str()), ("a", "b"));
        breakers.failed(&a, start + Duration::from_millis(1000));
        breakers.failed(&a, start + Duration::from_millis(1000));
        assert_eq!((first(2999).as_str(), first(3000).as_str(), first(3001).as_str()), ("b", "a", "b"));
        // One that never says what came of it does not keep others from trying later.
        assert_eq!(first(5000), "a");
        breakers.succeeded(&a);
        assert_eq!((first(5000).as_str(), first(5000).as_str()), ("a", "a"));
    }

    #[test]
    fn where_all_are_open_they_keep_their_order() {
        let [a, b] = ["a", "b"].map(|name| RegionId::new(name).unwrap());
        let (breakers, now) = (Breakers::default(), Instant::now());
        for region in [&a, &b, &a, &b, &a, &b, &a, &b, &a, &b] {
            breakers.failed(region, now);
        }
        let mut order = [b.clone(), a.clone()];
        breakers.order(&mut order, now);
        assert_eq!(order, [b, a]);
    }
}
