//! Stamps for new writes: hybrid logical time that a bad clock cannot poison.

use model::{Hlc, Millis, UnixMillis};

/// A wall clock, ours or a peer's, that runs ahead of the stamps by more than this is not believed at once.
pub const MAX_JUMP: Millis = Millis(500);

/// Issues stamps that never go back.
///
/// A reading that jumps forward by more than [`MAX_JUMP`] within one step is
/// *quarantined*: stamps go on from the last one plus [`MAX_JUMP`] until the
/// clock is believed, so that one wrong reading cannot make every later write
/// lose. The write itself is never refused.
#[derive(Clone, Debug)]
pub struct HlcClock {
    last: Hlc,
    quarantined: bool,
}

impl HlcClock {
    /// A clock that has issued everything up to `last`.
    pub fn resume(last: Hlc) -> Self {
        Self { last, quarantined: false }
    }

    /// The stamp of a write made at `now`, greater than every stamp before it and than `above`.
    ///
    /// `elapsed` is the time since the previous call by a clock that cannot be set:
    /// a jump of the wall clock beyond it is what is not believed.
    pub fn stamp(&mut self, now: UnixMillis, elapsed: Millis, above: Hlc) -> Hlc {
        let floor = self.last.max(above);
        let believable = self.last.wall() + Millis(elapsed.0.saturating_add(MAX_JUMP.0));
        self.quarantined = self.last > Hlc::ZERO && now > believable;
        let wall = if self.quarantined { believable } else { now };
        let stamp = Hlc::new(wall, 0).max(floor.next());
        // A stamp that was only needed to exceed a peer's does not drag our own clock forward.
        self.last = Hlc::new(wall, 0).max(self.last.next());
        stamp
    }

    /// Where the clock stands: what [`HlcClock::resume`] must be given after a restart. Stamps that had to
    /// exceed a peer's may lie above it.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// Whether the last reading was not believed.
    pub fn is_quarantined(&self) -> bool {
        self.quarantined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_while_the_wall_clock_stands_still_or_goes_back() {
        let mut clock = HlcClock::resume(Hlc::ZERO);
        let first = clock.stamp(UnixMillis(1_000), Millis(0), Hlc::ZERO);
        let second = clock.stamp(UnixMillis(1_000), Millis(0), Hlc::ZERO);
        let third = clock.stamp(UnixMillis(400), Millis(1), Hlc::ZERO);
        assert!(first < second && second < third);
    }

    #[test]
    fn a_clock_that_jumps_a_year_ahead_does_not_take_the_stamps_with_it() {
        let mut clock = HlcClock::resume(Hlc::ZERO);
        clock.stamp(UnixMillis(1_000), Millis(0), Hlc::ZERO);
        let jumped = clock.stamp(UnixMillis(31_536_000_000), Millis(10), Hlc::ZERO);
        assert!(clock.is_quarantined());
        assert_eq!(jumped.wall(), UnixMillis(1_510));
        let later = clock.stamp(UnixMillis(1_600), Millis(90), Hlc::ZERO);
        assert!(!clock.is_quarantined() && later > jumped);
    }

    #[test]
    fn an_overwrite_is_stamped_above_what_it_overwrites() {
        let mut clock = HlcClock::resume(Hlc::ZERO);
        let seen = Hlc::new(UnixMillis(9_000), 0);
        assert!(clock.stamp(UnixMillis(1_000), Millis(0), seen) > seen);
    }
}
