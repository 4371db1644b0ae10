//! Units as types, so that a bare integer never crosses a public boundary.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);
            /// The largest value; used as "no bound".
            pub const MAX: Self = Self(u64::MAX);

            /// The difference, or zero when `other` is larger.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        }
    };
}

unit!(
    /// A span of time in milliseconds.
    Millis, " ms"
);
unit!(
    /// A span of time in microseconds: round trips and lags.
    Micros, " µs"
);
unit!(
    /// A number of bytes.
    ByteCount, " B"
);
unit!(
    /// Wall-clock time: milliseconds since 1970-01-01 UTC. It may jump; never measure spans with it.
    UnixMillis, ""
);
unit!(
    /// Monotonic time: milliseconds since some start. The only clock that cores measure with.
    Mono, ""
);

impl Millis {
    /// The span in whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }
    /// The span as the standard library writes it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl Micros {
    /// The span in milliseconds, with a fraction.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }
    /// The span of `duration`, at most [`Micros::MAX`].
    pub fn from_duration(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
    /// The span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1000)
    }
}

impl Add<Millis> for Mono {
    type Output = Mono;
    fn add(self, span: Millis) -> Mono {
        Mono(self.0.saturating_add(span.0))
    }
}

impl Sub<Mono> for Mono {
    type Output = Millis;
    /// The span since `earlier`, zero if it lies ahead.
    fn sub(self, earlier: Mono) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for UnixMillis {
    type Output = UnixMillis;
    fn add(self, span: Millis) -> UnixMillis {
        UnixMillis(self.0.saturating_add(span.0))
    }
}

impl Sub<UnixMillis> for UnixMillis {
    type Output = Millis;
    /// The span since `earlier`, zero if it lies ahead.
    fn sub(self, earlier: UnixMillis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}
