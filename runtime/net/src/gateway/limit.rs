//! Rate limits of `define-rate-limit`, kept here as well: who reaches a gateway past the edge is held to them, too.
//!
//! Buckets are those of the edge (`edge::evaluate::limit`), one for each limit and whoever shares it, counted by this
//! gateway alone. A client with an IPv6 address is all of its /64. Requests that programs on this machine send, and in
//! which no proxy tells of a client, are not counted: an operator's tools, and sidecars.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use edge::evaluate::limit::Bucket;
use edge::evaluate::limit_key;
use http::{HeaderMap, Request, StatusCode};
use model::RuleId;
use model::edge::RateLimit;

use super::set;
use crate::Region;
use crate::problem::Problem;

/// The most buckets that are kept: less than 10 MB. A full one is as good as none.
const MOST: usize = 100_000;
/// How often full buckets are looked for, where there is no room for another.
const SWEEP: u64 = 1_000;

#[derive(Default)]
struct Buckets {
    /// By the limit, and a hash of who shares the bucket, with a key of this process: a header may be long.
    by_key: HashMap<(RuleId, u64), Bucket>,
    hash: RandomState,
    /// When full buckets were thrown away last, in unix milliseconds.
    swept: u64,
}

/// The buckets of this gateway.
#[derive(Default)]
pub(super) struct Limits(Mutex<Buckets>);

/// What the limits say of a request that may pass, or not.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// The limit with the least left, how much that is, and how many seconds until there is one more.
    tightest: Option<(RateLimit, u32, u32)>,
    refused: bool,
}

impl Limits {
    /// Counts a request in every limit that is about it, up to the first that is used up.
    pub(super) fn count<B>(&self, region: &dyn Region, request: &Request<B>, client: IpAddr) -> Counted {
        let plans = region.plans();
        let mut counted = Counted::default();
        if client.is_loopback() || !plans.edge.limits.iter().any(|limit| limit.when.holds(&super::Seen::of(request))) {
            return counted;
        }
        let mut asked = super::guard::asked(request, client);
        asked.country = region.country(client);
        let now = UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_millis() as u64;
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for limit in plans.edge.limits.iter().filter(|limit| limit.when.holds(&asked)) {
            let who = limit_key(limit, &asked);
            let Some(bucket) = buckets.of((&limit.name, &who), &plans.edge.limits, now) else { continue };
            let taken = bucket.take(limit, now);
            if counted.tightest.as_ref().is_none_or(|(_, left, _)| taken.left < *left) || !taken.passes {
                counted.tightest = Some((limit.clone(), taken.left, taken.retry_after));
            }
            if !taken.passes {
                counted.refused = true;
                metrics::counter!("repomind_limited_total", "limit" => limit.name.to_string()).increment(1);
                break;
            }
        }
        counted
    }
}

impl Buckets {
    /// A bucket, unless there is no room for it: then a request is not counted, rather than refused for what others do.
    fn of(&mut self, (name, who): (&RuleId, &str), limits: &[RateLimit], now: u64) -> Option<&mut Bucket> {
        let key = (name.clone(), self.hash.hash_one(who));
        if self.by_key.len() >= MOST && !self.by_key.contains_key(&key) {
            if now < self.swept.saturating_add(SWEEP) {
                metrics::counter!("repomind_limits_uncounted_total").increment(1);
                return None;
            }
            self.swept = now;
            let known = |name: &RuleId| limits.iter().find(|limit| limit.name == *name);
            self.by_key.retain(|(name, _), bucket| known(name).is_some_and(|limit| !bucket.is_full(limit, now)));
            if self.by_key.len() >= MOST {
                metrics::counter!("repomind_limits_uncounted_total").increment(1);
                return None;
            }
        }
        Some(self.by_key.entry(key).or_default())
    }
}

impl Counted {
    /// Why a request is refused, if it is.
    pub(super) fn refusal(&self) -> Option<Problem> {
        let (limit, _, wait) = self.tightest.as_ref().filter(|_| self.refused)?;
        let detail = format!("{} requests in {} s are granted here", limit.rate, limit.per_seconds);
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limit", detail);
        Some(problem.with("rule", limit.name.as_str()).retry_after(Duration::from_secs(u64::from(*wait))))
    }

    /// Tells the client what is left (draft-ietf-httpapi-ratelimit-headers-10).
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let Some((limit, left, wait)) = &self.tightest else { return };
        let RateLimit { name, burst, per_seconds, rate, .. } = limit;
        let window = (u64::from(*burst) * u64::from(*per_seconds)).div_ceil(u64::from(*rate));
        // A service may have limits of its own, and says more of them.
        set(headers, "ratelimit-policy", &format!("\"{name}\";q={burst};w={window}"), false);
        set(headers, "ratelimit", &format!("\"{name}\";r={left};t={wait}"), false);
    }
}

#[cfg(test)]
mod tests {
    use model::edge::{LimitKey, LimitScope, RequestMatch};

    use super::*;

    fn limit(name: &str) -> RateLimit {
        RateLimit {
            name: RuleId::new(name).unwrap(),
            when: RequestMatch::default(),
            key: LimitKey::Client,
            rate: 10,
            per_seconds: 60,
            burst: 5,
            scope: LimitScope::Coarse,
        }
    }

    #[test]
    fn many_clients_neither_fill_the_memory_nor_lock_others_out() {
        let (limits, mut buckets) = ([limit("a")], Buckets::default());
        let name = RuleId::new("a").unwrap();
        let mut of = |number: usize, now: u64| {
            let bucket = buckets.of((&name, &number.to_string()), &limits, now);
            let counted = bucket.map(|bucket| bucket.take(&limits[0], now)).is_some();
            (counted, buckets.by_key.len())
        };
        for number in 0..MOST {
            assert!(of(number, 10_000).0);
        }
        assert_eq!(of(MOST, 10_000), (false, MOST), "it is kept although there is no room");
        assert_eq!(of(7, 10_000), (true, MOST), "one that is known is not counted any more");
        assert_eq!(of(MOST, 10_999), (false, MOST));
        // A minute later all of them are full again.
        assert_eq!(of(MOST, 70_000), (true, 1));
    }
}
