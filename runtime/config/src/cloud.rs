//! The bundled table of cloud regions: where they are, in which country.

use model::Country;
use model::region::Coordinates;

const TABLE: &str = include_str!("../data/regions.csv");

/// Where a cloud region stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) country: Country,
    pub(crate) coordinates: Coordinates,
}

/// The names in the table, in its order.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.lines().skip(1).filter_map(|line| line.split(',').next())
}

/// Where the region called `name` stands, if the table has it.
pub(crate) fn place(name: &str) -> Option<Place> {
    TABLE.lines().skip(1).find(|line| line.split(',').next() == Some(name)).and_then(row)
}

/// `region,city,country,lat,lon`
fn row(line: &str) -> Option<Place> {
    let mut fields = line.split(',').skip(2);
    let country = Country::new(fields.next()?).ok()?;
    let latitude = fields.next()?.parse().ok()?;
    let longitude = fields.next()?.parse().ok()?;
    Some(Place { country, coordinates: Coordinates { latitude, longitude } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_readable_and_on_the_globe() {
        assert_eq!(names().count(), 21);
        for name in names() {
            let place = place(name).unwrap_or_else(|| panic!("{name} cannot be read"));
            assert!(place.coordinates.latitude.abs() <= 90.0 && place.coordinates.longitude.abs() <= 180.0, "{name}");
        }
        assert_eq!(place("eu-west-1").unwrap().country.as_str(), "IE");
        assert_eq!(place("mars-north-1"), None);
    }
}
