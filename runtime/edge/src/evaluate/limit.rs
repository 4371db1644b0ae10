//! Token buckets in whole numbers: the generic cell rate algorithm (ITU-T I.371), which needs one number a bucket.

use model::edge::RateLimit;

/// A bucket: when it will be full again, in units of 1/rate milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(u128);

/// What a bucket answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether the request may pass.
    pub passes: bool,
    /// How many more may pass now.
    pub left: u32,
    /// Seconds until one more may pass, rounded up; 0 where one may now.
    pub retry_after: u32,
}

impl Bucket {
    /// Whether as many may pass at `now` as ever: such a bucket need not be kept.
    pub fn is_full(&self, limit: &RateLimit, now: u64) -> bool {
        self.0 <= u128::from(now) * u128::from(limit.rate)
    }

    /// Takes one request out of the bucket at `now`, in unix milliseconds.
    pub fn take(&mut self, limit: &RateLimit, now: u64) -> Taken {
        // One request costs `cost`; a full bucket lies `burst` requests in the past.
        let rate = u128::from(limit.rate);
        let cost = u128::from(limit.per_seconds) * 1000;
        let now = u128::from(now) * rate;
        let (busy, room) = (self.0.max(now), cost * u128::from(limit.burst));
        let passes = busy + cost <= now + room;
        if passes {
            self.0 = busy + cost;
        }
        let used = self.0.saturating_sub(now);
        let left = (room.saturating_sub(used) / cost) as u32;
        let wait = (used + cost).saturating_sub(room);
        Taken { passes, left, retry_after: wait.div_ceil(rate * 1000) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use model::edge::{LimitKey, LimitScope, RequestMatch};

    use super::*;

    fn limit(rate: u32, per_seconds: u32, burst: u32) -> RateLimit {
        RateLimit {
            name: model::RuleId::new("test").unwrap(),
            when: RequestMatch::default(),
            key: LimitKey::Client,
            rate,
            per_seconds,
            burst,
            scope: LimitScope::Coarse,
        }
    }

    #[test]
    fn no_more_pass_than_the_burst_and_what_came_back_meanwhile() {
        let (limit, mut bucket) = (limit(7, 60, 3), Bucket::default());
        let mut passed = 0;
        for now in (0..600_000).step_by(100) {
            passed += u32::from(bucket.take(&limit, 1_000_000 + now).passes);
        }
        // 3 at once, then 7 a minute for ten minutes less one step.
        assert_eq!(passed, 3 + 69);
    }

    #[test]
    fn a_client_that_waits_as_told_is_let_in() {
        let (limit, mut bucket) = (limit(2, 10, 2), Bucket::default());
        let start = 1_764_000_000_000;
        assert_eq!(bucket.take(&limit, start), Taken { passes: true, left: 1, retry_after: 0 });
        assert_eq!(bucket.take(&limit, start), Taken { passes: true, left: 0, retry_after: 5 });
        assert_eq!(bucket.take(&limit, start), Taken { passes: false, left: 0, retry_after: 5 });
        assert!(!bucket.take(&limit, start + 4_999).passes);
        assert!(bucket.take(&limit, start + 5_000).passes);
    }
}
