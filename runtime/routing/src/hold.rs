//! How long a region that was taken out must be steady before it serves again: longer each time that it flaps.

use model::{Millis, Mono};

/// The bounds of a hold. The defaults are those that operators are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    /// So long a region must be steady...
    pub first: Millis,
    /// ...twice as long each time that it is taken out again within [`HoldLimits::flapping`] of its return, up to this.
    pub most: Millis,
    /// How soon after its return a region that is taken out again flaps.
    pub flapping: Millis,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self { first: Millis::from_secs(5), most: Millis::from_secs(60), flapping: Millis::from_secs(300) }
    }
}

/// The hold of one region; none before it is taken out for the first time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    time: Millis,
    came_back: Option<Mono>,
}

impl Hold {
    pub(crate) const NONE: Self = Self { time: Millis(0), came_back: None };

    /// The region is taken out.
    pub(crate) fn begin(&mut self, limits: &HoldLimits, now: Mono) {
        let flaps = self.came_back.is_some_and(|back| now - back < limits.flapping);
        self.time = if flaps { Millis(self.time.0 * 2).clamp(limits.first, limits.most) } else { limits.first };
    }

    /// Whether a region that has been steady `since` then has been so for long enough.
    pub(crate) fn is_over(&self, since: Option<Mono>, now: Mono) -> bool {
        since.is_some_and(|since| now - since >= self.time)
    }

    /// The region serves again.
    pub(crate) fn end(&mut self, now: Mono) {
        self.came_back = Some(now);
    }
}
