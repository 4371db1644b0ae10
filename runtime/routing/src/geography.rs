//! Continents and middles of countries.
//!
//! Good to a few hundred kilometres, which is all that choosing between
//! continents takes. `data/README.md` says how far to trust the figures.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use model::Country;
use model::region::Coordinates;

struct Place {
    continent: &'static str,
    centre: Coordinates,
}

static PLACES: LazyLock<BTreeMap<Country, Place>> = LazyLock::new(|| {
    let lines = include_str!("../data/countries.csv").lines().skip(1);
    lines.map(|line| place(line).unwrap_or_else(|| panic!("the bundled line {line:?} is well formed"))).collect()
});

fn place(line: &'static str) -> Option<(Country, Place)> {
    let mut parts = line.split(',');
    let country = Country::new(parts.next()?).ok()?;
    let continent = parts.next()?;
    let (latitude, longitude) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((country, Place { continent, centre: Coordinates { latitude, longitude } }))
}

/// The continent of a country: `AF AN AS EU NA OC SA`; none for codes that ISO 3166-1 does not assign.
pub fn continent(country: Country) -> Option<&'static str> {
    PLACES.get(&country).map(|place| place.continent)
}

/// The middle of a country, roughly; none for codes that ISO 3166-1 does not assign.
pub fn centre(country: Country) -> Option<Coordinates> {
    PLACES.get(&country).map(|place| place.centre)
}

/// Every country known, in order of code: ISO 3166-1, and `XK` as address registries use it.
pub fn countries() -> impl Iterator<Item = Country> {
    PLACES.keys().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_has_a_continent_and_a_place_on_the_globe() {
        assert_eq!(countries().count(), 250, "249 of ISO 3166-1, and XK");
        for country in countries() {
            let Coordinates { latitude, longitude } = centre(country).unwrap();
            assert!(latitude.abs() <= 90.0 && longitude.abs() <= 180.0, "{country}");
            assert!(["AF", "AN", "AS", "EU", "NA", "OC", "SA"].contains(&continent(country).unwrap()), "{country}");
        }
        assert_eq!(continent(Country::new("DE").unwrap()), Some("EU"));
        assert_eq!(centre(Country::new("ZZ").unwrap()), None);
    }

    #[test]
    fn all_countries_whose_law_is_known_by_name_have_a_place() {
        for code in model::residency::EEA.iter().chain(model::residency::NAMED_LAWS) {
            assert!(centre(Country::new(code).unwrap()).is_some(), "{code}");
        }
    }
}
