//! A small seeded generator for what links lose and by how much they waver.
//!
//! It decides nothing that must be hard to guess. The same seed, peer, number
//! of the connection and direction give the same numbers in every run.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(super) struct Random(u64);

impl Random {
    /// The numbers of one direction of one connection.
    pub(super) fn new(seed: u64, peer: &str, connection: u64, direction: u64) -> Self {
        let bytes = peer.bytes().map(u64::from);
        Self(bytes.chain([connection, direction]).fold(seed, |state, part| mixed(state.wrapping_add(GAP) ^ part)))
    }

    /// A number from 0 to below 1, in steps of 2^-53.
    pub(super) fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(GAP);
        (mixed(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in this share of calls: never at 0, always at 1.
    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.share() < share
    }
}

/// A seed that the system's randomness makes up.
pub(super) fn any_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// 2^64 divided by the golden ratio, made odd.
const GAP: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(mut random: Random) -> Vec<f64> {
        (0..100).map(|_| random.share()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_losses_again_and_every_direction_its_own() {
        let first = numbers(Random::new(7, "eu-west", 0, 0));
        assert_eq!(first, numbers(Random::new(7, "eu-west", 0, 0)));
        let others = [(8, "eu-west", 0, 0), (7, "us-east", 0, 0), (7, "eu-west", 1, 0), (7, "eu-west", 0, 1)];
        for (seed, peer, connection, direction) in others {
            assert_ne!(first, numbers(Random::new(seed, peer, connection, direction)));
        }
    }

    #[test]
    fn the_share_that_was_asked_for_is_lost() {
        let mut random = Random::new(7, "eu-west", 0, 0);
        let mut lost = |share| (0..100_000).filter(|_| random.chance(share)).count();
        assert_eq!(lost(0.0), 0);
        assert_eq!(lost(1.0), 100_000);
        // Within five standard deviations of 2,000; the seed is fixed, so this cannot flicker.
        let two_in_a_hundred = lost(0.02);
        assert!((1_780..=2_220).contains(&two_in_a_hundred), "{two_in_a_hundred}");
    }
}
