//! The two clocks that the data plane reads. A simulator brings its own.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use model::{Mono, UnixMillis};

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The wall clock, which may jump.
    fn wall(&self) -> UnixMillis;
    /// A clock that cannot be set.
    fn monotonic(&self) -> Mono;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    since: Instant,
}

impl SystemClock {
    /// Begins to measure.
    pub fn new() -> Self {
        Self { since: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Mono {
        Mono(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
