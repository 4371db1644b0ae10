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

const DAY_MS: u64 = 86_400_000;

impl UnixMillis {
    /// Year, month and day in UTC, after Hinnant, "chrono-compatible low-level date algorithms" (`civil_from_days`).
    pub const fn date(self) -> (u64, u64, u64) {
        let shifted = self.0 / DAY_MS + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (era * 400 + year + (month <= 2) as u64, month, day)
    }

    /// Hour, minute and second in UTC.
    pub const fn time_of_day(self) -> (u64, u64, u64) {
        let seconds = self.0 / 1000;
        (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }

    /// The first moment of a day, the inverse of [`UnixMillis::date`]; none for what is no date since 1970.
    pub fn of_date(year: u64, month: u64, day: u64) -> Option<Self> {
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let shifted = year - u64::from(month <= 2);
        let (era, of_era) = (shifted / 400, shifted % 400);
        let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        let at = days.checked_sub(719_468).map(|days| Self(days * DAY_MS))?;
        (at.date() == (year, month, day)).then_some(at)
    }

    /// The time in UTC by RFC 3339, to the second.
    pub fn rfc3339(self) -> String {
        let ((year, month, day), (hour, minute, second)) = (self.date(), self.time_of_day());
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar_there_and_back() {
        for (days, date) in
            [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (20_453, (2025, 12, 31)), (20_513, (2026, 3, 1))]
        {
            assert_eq!(UnixMillis(days * DAY_MS + 1).date(), date);
        }
        let mut before = (1969, 12, 31);
        for days in 0..400 * 366 {
            let at = UnixMillis(days * DAY_MS);
            let (year, month, day) = at.date();
            assert!((year, month, day) > before);
            assert_eq!(UnixMillis::of_date(year, month, day), Some(at));
            before = (year, month, day);
        }
        for (year, month, day) in
            [(2025, 2, 29), (2100, 2, 29), (2026, 4, 31), (2026, 13, 1), (2026, 0, 1), (1969, 12, 31)]
        {
            assert_eq!(UnixMillis::of_date(year, month, day), None, "{year}-{month}-{day}");
        }
        assert_eq!(UnixMillis(1_767_225_599_999).rfc3339(), "2025-12-31T23:59:59Z");
        assert_eq!(UnixMillis(4_107_542_400_000).rfc3339(), "2100-03-01T00:00:00Z");
        assert!(UnixMillis::MAX.date().0 > 9999);
    }
}
