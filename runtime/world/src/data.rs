//! The bundled tables. `data/README.md` has their sources.
//!
//! They are part of the program: a row that cannot be read is a broken build,
//! and a test reads them all.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use model::Country;
use model::region::Coordinates;

/// Round trips between provider regions as CSV, `from,to,rtt_ms`, by the provider's names.
pub const ROUND_TRIPS: &str = include_str!("../data/rtt-aws.csv");
/// A second measurement at the 95th percentile, between other machines in or near the same cities.
const SECOND: &str = include_str!("../data/rtt-azure-p95.csv");
const LAND: &str = include_str!("../data/land.txt");

/// Where a provider has, or says that it has, a region.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The provider's name, `eu-west-1`.
    pub name: &'static str,
    /// What the region's file would be called, `eu-west`.
    pub id: &'static str,
    /// The city.
    pub city: &'static str,
    /// The country.
    pub country: Country,
    /// Where the city is.
    pub coordinates: Coordinates,
}

/// The towns of one country within a cell of two degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settlement {
    /// The country.
    pub country: Country,
    /// The middle of the towns, by inhabitants.
    pub coordinates: Coordinates,
    /// Thousands of inhabitants.
    pub thousands: f64,
}

/// The fields of each row but the head.
fn rows(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.skip(1).map(|line| line.split(',').collect())
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("the bundled figure {text:?} is a number"))
}

fn country(code: &str) -> Country {
    Country::new(code).unwrap_or_else(|_| panic!("the bundled code {code:?} is a country"))
}

/// Every place where a region could be, by name.
pub fn places() -> &'static [Place] {
    static PLACES: LazyLock<Vec<Place>> = LazyLock::new(|| {
        let read = |row: Vec<&'static str>| Place {
            name: row[0],
            id: row[1],
            city: row[2],
            country: country(row[3]),
            coordinates: Coordinates { latitude: number(row[4]), longitude: number(row[5]) },
        };
        rows(include_str!("../data/places.csv")).map(read).collect()
    });
    &PLACES
}

/// The place of this name, if it is listed.
pub fn place(name: &str) -> Option<&'static Place> {
    places().iter().find(|place| place.name == name)
}

/// Where people live, by country.
pub fn settlements() -> &'static [Settlement] {
    static SETTLEMENTS: LazyLock<Vec<Settlement>> = LazyLock::new(|| {
        let read = |row: Vec<&'static str>| Settlement {
            country: country(row[0]),
            coordinates: Coordinates { latitude: number(row[1]), longitude: number(row[2]) },
            thousands: number(row[3]),
        };
        rows(include_str!("../data/settlements.csv")).map(read).collect()
    });
    &SETTLEMENTS
}

/// How many people use the internet, by country.
pub fn users() -> &'static BTreeMap<Country, f64> {
    static USERS: LazyLock<BTreeMap<Country, f64>> = LazyLock::new(|| {
        rows(include_str!("../data/users.csv")).map(|row| (country(row[0]), number(row[1]))).collect()
    });
    &USERS
}

/// Measured round trips in milliseconds by the provider's names, in both directions; the mean of the two.
pub(crate) fn measured() -> &'static BTreeMap<(&'static str, &'static str), f64> {
    static MEASURED: LazyLock<BTreeMap<(&'static str, &'static str), f64>> = LazyLock::new(|| {
        let once: BTreeMap<_, _> = rows(ROUND_TRIPS).map(|row| ((row[0], row[1]), number(row[2]))).collect();
        let both = |(&(from, to), &rtt): (&(&'static str, &'static str), &f64)| {
            let back = once.get(&(to, from)).copied().unwrap_or(rtt);
            (from != to).then_some(((from, to), (rtt + back) / 2.0))
        };
        once.iter().filter_map(both).collect()
    });
    &MEASURED
}

/// The second measurement, by the names of the nearest places of the first.
pub(crate) fn measured_again() -> &'static BTreeMap<(&'static str, &'static str), f64> {
    static AGAIN: LazyLock<BTreeMap<(&'static str, &'static str), f64>> =
        LazyLock::new(|| rows(SECOND).map(|row| ((row[3], row[4]), number(row[2]))).collect());
    &AGAIN
}

/// Outlines of land as rings of longitude and latitude in degrees.
pub(crate) fn land() -> Vec<Vec<(f64, f64)>> {
    let point = |pair: &str| {
        let (x, y) = pair.split_once(',').unwrap_or_else(|| panic!("the bundled point {pair:?} has two numbers"));
        (number(x) / 10.0, number(y) / 10.0)
    };
    LAND.lines().map(|line| line.split(' ').map(point).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_the_globe(at: Coordinates) -> bool {
        at.latitude.abs() <= 90.0 && at.longitude.abs() <= 180.0
    }

    #[test]
    fn every_row_of_every_bundled_table_can_be_read_and_is_on_the_globe() {
        assert!(places().len() > 30);
        assert!(places().iter().all(|place| on_the_globe(place.coordinates)));
        assert!(settlements().iter().all(|one| on_the_globe(one.coordinates) && one.thousands > 0.0));
        assert!(land().iter().flatten().all(|(x, y)| x.abs() <= 180.0 && y.abs() <= 90.0));
        assert_eq!(measured().len(), 21 * 20);
        assert_eq!(measured_again().len(), 15 * 14);
        assert_eq!(measured()[&("us-east-1", "ap-southeast-1")], measured()[&("ap-southeast-1", "us-east-1")]);
    }

    #[test]
    fn everybody_who_uses_the_internet_lives_somewhere() {
        let homes: std::collections::BTreeSet<Country> = settlements().iter().map(|one| one.country).collect();
        assert!(users().keys().all(|country| homes.contains(country)));
        let all: f64 = users().values().sum();
        // ITU estimated 4.9 thousand million users for 2021 and 5.3 for 2022.
        assert!((4.8e9..5.4e9).contains(&all), "{all} users");
    }

    #[test]
    fn places_differ_in_name_and_id_and_every_measured_one_is_listed() {
        let ids: std::collections::BTreeSet<_> = places().iter().map(|place| place.id).collect();
        let names: std::collections::BTreeSet<_> = places().iter().map(|place| place.name).collect();
        assert_eq!((ids.len(), names.len()), (places().len(), places().len()));
        assert!(measured().keys().all(|(from, _)| names.contains(from)));
    }
}
