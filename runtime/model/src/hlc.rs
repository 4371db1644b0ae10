//! Hybrid logical time: 48 bits of wall-clock milliseconds and a 16-bit counter.
//!
//! After Kulkarni et al., "Logical Physical Clocks" (2014). A stamp is never
//! smaller than any stamp seen before it, and stays within the clocks' error of
//! true time. The clock that advances it (with its quarantine for jumps) is in
//! `replication`; this is the value alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::UnixMillis;

/// One stamp. Ordered by time, then by counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(u64);

impl Hlc {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// A stamp from its parts. Times past the year 10889 keep their low 48 bits.
    pub const fn new(wall: UnixMillis, counter: u16) -> Self {
        Self(((wall.0 & 0xFFFF_FFFF_FFFF) << 16) | counter as u64)
    }

    /// The wall-clock part.
    pub const fn wall(self) -> UnixMillis {
        UnixMillis(self.0 >> 16)
    }

    /// The counter within the millisecond.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }

    /// The least stamp above this one; the counter carries into the time.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The stamp as one integer, in order.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The stamp of [`Hlc::bits`].
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall().0, self.counter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_counter_carries_into_the_millisecond() {
        let stamp = Hlc::new(UnixMillis(7), u16::MAX);
        assert_eq!(stamp.next(), Hlc::new(UnixMillis(8), 0));
        assert!(stamp < stamp.next());
    }
}
