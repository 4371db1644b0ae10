//! What the runtime takes for the law, with where that is from and when somebody last looked.
//!
//! These are facts that the bundled policies rest on; an audit says which of them are past their review, and which
//! expired or suspended ones are relied upon. They are encoded facts, not legal advice: have them checked, and change
//! them here with the date of the look.

use model::UnixMillis;

/// How sure a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Read in the source itself.
    Verified,
    /// Read in what others write about the source.
    Secondary,
}

/// An adequacy decision of the European Commission (GDPR Art. 45).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adequacy {
    /// The country that it is about.
    pub country: &'static str,
    /// Whom it covers.
    pub covers: &'static str,
    /// The year in which it was made.
    pub since: u16,
    /// The last day on which it holds; none where it has no end.
    pub until: Option<Day>,
    /// Whether it is suspended or annulled.
    pub suspended: bool,
    /// Where that is from.
    pub source: &'static str,
    /// How sure that is.
    pub status: Status,
    /// When somebody last looked.
    pub verified_on: Day,
    /// By when somebody has to look again.
    pub review_by: Day,
}

/// A law that wants what is about its people to have a copy at home, wherever else it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Localisation {
    /// The country.
    pub country: &'static str,
    /// The law, and whom it covers.
    pub covers: &'static str,
    /// The first day on which it holds.
    pub since: Day,
    /// Where that is from.
    pub source: &'static str,
    /// How sure that is.
    pub status: Status,
    /// When somebody last looked.
    pub verified_on: Day,
    /// By when somebody has to look again.
    pub review_by: Day,
}

/// The laws that localise personal data. Those that localise by sector or by order only (IN, SA, VN, ID) are not here:
/// no label says whom their orders name.
pub const LOCALISED: &[Localisation] = &[
    Localisation {
        country: "RU",
        covers: "242-FZ, everyone; since 2025-07-01 also no collection into a database abroad",
        since: Day(2015, 9, 1),
        source: "DLA Piper, Data Protection Laws of the World",
        status: Status::Secondary,
        verified_on: Day(2026, 6, 30),
        review_by: Day(2027, 12, 31),
    },
    Localisation {
        country: "CN",
        covers: "PIPL, critical operators and those above thresholds; taken for everyone, as no record shows either",
        since: Day(2021, 11, 1),
        source: "DLA Piper, Data Protection Laws of the World",
        status: Status::Secondary,
        verified_on: Day(2026, 6, 30),
        review_by: Day(2027, 12, 31),
    },
];

/// A day: year, month, day of the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u16, pub u8, pub u8);

impl Day {
    /// When it is over, UTC (days from civil, Howard Hinnant, "chrono-compatible low-level date algorithms").
    pub const fn end(self) -> UnixMillis {
        let Day(year, month, day) = self;
        let (year, month) = (if month <= 2 { year as i64 - 1 } else { year as i64 }, month as i64);
        let (era, of_era) = (year / 400, year % 400);
        let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day as i64 - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        UnixMillis((days + 1) as u64 * 86_400_000)
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0, self.1, self.2)
    }
}

/// Names the state of these facts in reports.
pub const REVISION: &str = "2026-06";

const COMMISSION: &str = "European Commission, adequacy decisions; EUR-Lex C/2025/6610";

const fn adequate(country: &'static str, since: u16, covers: &'static str) -> Adequacy {
    Adequacy {
        country,
        covers,
        since,
        until: None,
        suspended: false,
        source: COMMISSION,
        status: Status::Secondary,
        verified_on: Day(2026, 6, 30),
        review_by: Day(2028, 6, 30),
    }
}

/// The adequacy decisions. That of the European Patent Organisation is about no country.
pub const ADEQUACY: &[Adequacy] = &[
    adequate("CH", 2000, "everyone"),
    adequate("CA", 2001, "recipients under PIPEDA"),
    adequate("AR", 2003, "everyone"),
    adequate("GG", 2003, "everyone"),
    adequate("IM", 2004, "everyone"),
    adequate("JE", 2008, "everyone"),
    adequate("AD", 2010, "everyone"),
    adequate("FO", 2010, "everyone"),
    adequate("IL", 2011, "everyone"),
    adequate("NZ", 2012, "everyone"),
    adequate("UY", 2012, "everyone"),
    adequate("JP", 2019, "private recipients under APPI"),
    Adequacy { until: Some(Day(2031, 12, 27)), ..adequate("GB", 2021, "everyone; renewed on 2025-12-19") },
    adequate("KR", 2021, "recipients under PIPA"),
    // Upheld on 2025-09-03; the appeal C-703/25 P was pending: looked at more often.
    Adequacy {
        review_by: Day(2027, 12, 31),
        ..adequate("US", 2023, "recipients certified under the Data Privacy Framework; C-703/25 P pending")
    },
    adequate("BR", 2026, "everyone; made on 2026-01-26, one day uncertain"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc_and_every_fact_says_when_it_was_looked_at() {
        assert_eq!(Day(1970, 1, 1).end(), UnixMillis(86_400_000));
        assert_eq!(Day(2024, 2, 29).end(), UnixMillis(1_709_251_200_000));
        assert_eq!(Day(2031, 12, 27).end(), UnixMillis(1_956_182_400_000));
        for fact in ADEQUACY {
            assert!(fact.verified_on < fact.review_by && !fact.source.is_empty(), "{fact:?}");
            assert!(
                model::Country::new(fact.country).is_ok_and(|country| country.as_str() == fact.country),
                "{fact:?}"
            );
        }
        for fact in LOCALISED {
            assert!(fact.verified_on < fact.review_by && !fact.source.is_empty(), "{fact:?}");
            let law = model::residency::Law::of(model::Country::new(fact.country).unwrap());
            assert_eq!(law.name(), fact.country, "policies cannot tell this law from others");
        }
        let mut countries: Vec<_> = ADEQUACY.iter().map(|fact| fact.country).collect();
        countries.sort_unstable();
        countries.dedup();
        assert_eq!(countries.len(), ADEQUACY.len());
    }
}
