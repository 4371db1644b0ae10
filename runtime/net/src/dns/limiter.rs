//! Bounds how much one network is answered over UDP, so that this server is no
//! use for flooding somebody whose address was forged.
//!
//! Each client prefix (a /24 of IPv4, a /56 of IPv6) has a bucket of answers
//! that fills by the second. Beyond it, every second answer is cut down to an
//! invitation to come over TCP, where addresses are not forged, and the others
//! are dropped: a real client among the forged ones gets through. The table has
//! a fixed size; of two prefixes in one place, the one heard of last stays.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use model::Mono;

use crate::limits;

/// Places that a prefix may take.
const WAYS: usize = 4;

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    Shorten,
    Drop,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// 0 where the place is free.
    prefix: u64,
    /// Thousandths of an answer that are left.
    left: u64,
    heard: Mono,
    /// Answers withheld, to take turns.
    withheld: u32,
}

const FREE: Bucket = Bucket { prefix: 0, left: 0, heard: Mono(0), withheld: 0 };

/// The buckets of one socket.
pub(super) struct Limiter {
    buckets: Vec<Bucket>,
    /// Secret, so that nobody can choose prefixes that drive out others.
    hash: RandomState,
    /// Answers a second, and the most that a bucket holds.
    rate: u64,
}

impl Limiter {
    /// Lets `rate` answers a second through to each prefix.
    pub(super) fn new(rate: u32) -> Self {
        Self { buckets: vec![FREE; limits::DNS_PREFIXES], hash: RandomState::new(), rate: u64::from(rate.max(1)) }
    }

    /// Takes one answer to `address` into account.
    pub(super) fn admit(&mut self, address: IpAddr, now: Mono) -> Verdict {
        let full = self.rate * 1000;
        let prefix = prefix_of(address);
        let sets = self.buckets.len() / WAYS;
        let set = (self.hash.hash_one(prefix) as usize % sets) * WAYS;
        let ways = &mut self.buckets[set..set + WAYS];
        let at = ways.iter().position(|bucket| bucket.prefix == prefix).unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|&way| (ways[way].prefix != 0, ways[way].heard)).unwrap_or(0);
            ways[oldest] = Bucket { prefix, left: full, heard: now, withheld: 0 };
            oldest
        });
        let bucket = &mut ways[at];
        // A bucket gains `rate` thousandths a millisecond.
        bucket.left = (bucket.left + (now - bucket.heard).0.saturating_mul(self.rate)).min(full);
        bucket.heard = bucket.heard.max(now);
        if let Some(left) = bucket.left.checked_sub(1000) {
            bucket.left = left;
            return Verdict::Send;
        }
        bucket.withheld = bucket.withheld.wrapping_add(1);
        if bucket.withheld % 2 == 1 { Verdict::Shorten } else { Verdict::Drop }
    }
}

/// A number for the network of an address; never 0.
fn prefix_of(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 1 << 63 | u64::from(address.to_bits() >> 8),
        // A prefix of 56 bits and one more bit, so that it is never 0 and never an IPv4 one.
        IpAddr::V6(address) => 1 << 62 | (address.to_bits() >> 72) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_forged_network_never_gets_more_than_its_rate_and_a_real_client_in_it_gets_through() {
        let mut limiter = Limiter::new(100);
        let mut sent = 0;
        let (mut shortened, mut dropped) = (0, 0);
        for query in 0..10_000_u64 {
            // Ten seconds at a thousand a second, from all over one /24.
            match limiter.admit(address(&format!("192.0.2.{}", query % 256)), Mono(query)) {
                Verdict::Send => sent += 1,
                Verdict::Shorten => shortened += 1,
                Verdict::Drop => dropped += 1,
            }
        }
        assert!((1000..=1100).contains(&sent), "{sent} answers in ten seconds at 100 a second");
        assert!(shortened - dropped <= 1 && dropped > 4000, "{shortened} {dropped}");
        assert_eq!(limiter.admit(address("192.0.3.1"), Mono(10_000)), Verdict::Send, "the neighbour pays for it");
        assert_eq!(limiter.admit(address("192.0.2.1"), Mono(12_000)), Verdict::Send, "it is never forgiven");
    }

    #[test]
    fn a_flood_of_networks_never_makes_the_table_grow_or_frees_the_one_that_floods() {
        let mut limiter = Limiter::new(10);
        let size = limiter.buckets.len();
        let mut sent = 0;
        for query in 0..200_000_u32 {
            limiter.admit(IpAddr::from(query.wrapping_mul(2_654_435_769).to_be_bytes()), Mono(1));
            if query % 10 == 0 && limiter.admit(address("2001:db8::1"), Mono(1)) == Verdict::Send {
                sent += 1;
            }
        }
        assert_eq!(limiter.buckets.len(), size);
        assert!(sent < 2000, "{sent} of 20000 answers to one network although 10 a second were allowed");
    }

    #[test]
    fn networks_are_told_apart_by_their_prefix_alone() {
        for (a, b, same) in [
            ("192.0.2.1", "192.0.2.200", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("::ffff:192.0.2.1", "192.0.2.9", true),
            ("2001:db8:0:aa01::1", "2001:db8:0:aaff::2", true),
            ("2001:db8:0:aa01::1", "2001:db8:0:ab01::1", false),
            ("::", "0.0.0.0", false),
        ] {
            assert_eq!(prefix_of(address(a)) == prefix_of(address(b)), same, "{a} {b}");
            assert_ne!(prefix_of(address(a)), 0);
        }
    }
}
