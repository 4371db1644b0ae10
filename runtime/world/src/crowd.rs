//! Clients, drawn from a seed, and what a setting of regions means to them.

use std::collections::BTreeMap;

use model::Country;
use model::region::Coordinates;

use crate::access::Access;
use crate::data::{settlements, users};
use crate::path::PathModel;
use crate::random::Random;
use crate::spread::Spread;

/// Clients, each of whom lives in a settlement and has an access of its own.
pub struct Crowd {
    seed: u64,
    homes: Vec<Home>,
    clients: Vec<Client>,
    spread: f64,
}

/// A settlement whose people use the internet.
struct Home {
    country: Country,
    coordinates: Coordinates,
    evidence: Vec<(usize, f64)>,
    /// Its part of all users, 0 to 1.
    share: f64,
}

#[derive(Clone, Copy)]
struct Client {
    home: u32,
    access_ms: f32,
}

/// Regions by number, where each stands, and which one serves a country; none where it is served nowhere.
pub struct Setting<'a> {
    /// Where the regions are.
    pub regions: &'a [Coordinates],
    /// Which of them serves a country.
    pub serves: &'a dyn Fn(Country) -> Option<usize>,
}

/// What a setting means to a crowd.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All clients that are served.
    pub all: Spread,
    /// By country.
    pub countries: BTreeMap<Country, (Option<usize>, Spread)>,
    /// By region, in the order of the setting.
    pub regions: Vec<Spread>,
    /// Clients that no region serves.
    pub refused: u64,
    /// By settlement: its place, its part of all users, the median round trip of its clients; for the map.
    pub homes: Vec<(Coordinates, f64, Option<f64>)>,
}

impl Crowd {
    /// Draws `count` clients: as many from each settlement as its part of all users comes to, spread evenly, so that
    /// chance is left only in what each client's access and path add.
    pub fn draw(seed: u64, count: u32, access: Access) -> Self {
        let mut random = Random::new(seed);
        let homes = homes();
        let mut clients = Vec::with_capacity(count as usize);
        let (mut passed, mut drawn) = (0.0, 0_u32);
        for (number, home) in (0_u32..).zip(&homes) {
            passed += home.share;
            let until = (passed * f64::from(count)).round() as u32;
            for _ in drawn..until.min(count) {
                clients.push(Client { home: number, access_ms: access.draw(&mut random) as f32 });
            }
            drawn = drawn.max(until.min(count));
        }
        Self { seed, homes, clients, spread: PathModel::check().log_spread }
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Sends every client where the setting says.
    pub fn meet(&self, setting: &Setting<'_>) -> Outcome {
        let model = PathModel::bundled();
        let evidence: Vec<_> = setting.regions.iter().map(|at| model.evidence(*at)).collect();
        let mut outcome = Outcome {
            all: Spread::default(),
            countries: BTreeMap::new(),
            regions: vec![Spread::default(); setting.regions.len()],
            refused: 0,
            homes: Vec::with_capacity(self.homes.len()),
        };
        let mut rest = self.clients.as_slice();
        for (number, home) in (0_u32..).zip(&self.homes) {
            let count = rest.iter().take_while(|client| client.home == number).count();
            let (clients, others) = rest.split_at(count);
            rest = others;
            let chosen = (setting.serves)(home.country);
            let country = outcome.countries.entry(home.country).or_insert_with(|| (chosen, Spread::default()));
            let Some(region) = chosen else {
                outcome.refused += count as u64;
                outcome.homes.push((home.coordinates, home.share, None));
                continue;
            };
            let at = setting.regions[region];
            let trip = model.trip(home.coordinates.kilometres_to(at), &home.evidence, &evidence[region]);
            let trip = trip * self.luck(number, at);
            let mut spread = Spread::default();
            clients.iter().for_each(|client| spread.add(trip + f64::from(client.access_ms)));
            // Few clients live in small places, and their median would be chance alone.
            outcome.homes.push((home.coordinates, home.share, Some(trip)));
            country.1.join(&spread);
            outcome.regions[region].join(&spread);
            outcome.all.join(&spread);
        }
        outcome
    }

    /// What this path is better or worse by than the model can know: as far as the model's own errors lie apart.
    fn luck(&self, home: u32, region: Coordinates) -> f64 {
        let place = region.latitude.to_bits() ^ region.longitude.to_bits().rotate_left(32);
        let mut random = Random::new(self.seed ^ u64::from(home).wrapping_mul(0x9E37_79B9) ^ place);
        (self.spread * random.normal()).exp()
    }

    /// For each country and region, the share of all users who live in the country and would be served by the region
    /// in less than `limit` ms, as the model expects it. What [`crate::Reach`] is made of; a row
    /// a country, in the order of [`users`].
    pub fn reach(access: &Access, limit: f64, regions: &[Coordinates]) -> Vec<Vec<f64>> {
        let model = PathModel::bundled();
        let evidence: Vec<_> = regions.iter().map(|at| model.evidence(*at)).collect();
        let mut rows: BTreeMap<Country, Vec<f64>> = BTreeMap::new();
        for home in homes() {
            let row = rows.entry(home.country).or_insert_with(|| vec![0.0; regions.len()]);
            for ((share, at), evidence) in row.iter_mut().zip(regions).zip(&evidence) {
                let trip = model.trip(home.coordinates.kilometres_to(*at), &home.evidence, evidence);
                *share += home.share * access.below(limit - trip);
            }
        }
        rows.into_values().collect()
    }
}

impl Outcome {
    /// The share of all clients that are served in less than so many ms.
    pub fn below(&self, ms: f64) -> f64 {
        let all = (self.all.count() + self.refused).max(1) as f64;
        self.all.below(ms) * self.all.count() as f64 / all
    }
}

/// The settlements of countries that have users.
fn homes() -> Vec<Home> {
    let model = PathModel::bundled();
    let mut people: BTreeMap<Country, f64> = BTreeMap::new();
    settlements().iter().for_each(|one| *people.entry(one.country).or_default() += one.thousands);
    let everybody: f64 = users().values().sum();
    let home = |one: &crate::data::Settlement| {
        let users = users().get(&one.country)?;
        Some(Home {
            country: one.country,
            coordinates: one.coordinates,
            evidence: model.evidence(one.coordinates),
            share: users * one.thousands / people[&one.country] / everybody,
        })
    };
    settlements().iter().filter_map(home).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUBLIN: Coordinates = Coordinates { latitude: 53.35, longitude: -6.26 };
    const SINGAPORE: Coordinates = Coordinates { latitude: 1.35, longitude: 103.82 };

    fn country(code: &str) -> Country {
        Country::new(code).unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_crowd_again_and_another_seed_another() {
        let setting = Setting { regions: &[DUBLIN], serves: &|_| Some(0) };
        let meet = |seed| Crowd::draw(seed, 20_000, Access::default()).meet(&setting).all.summary();
        assert_eq!(meet(1), meet(1));
        assert_ne!(meet(1), meet(2));
        assert!((meet(1).p50 - meet(2).p50).abs() < 10.0, "chance rules");
    }

    #[test]
    fn everybody_is_counted_once_and_as_many_as_live_there() {
        let crowd = Crowd::draw(7, 50_000, Access::default());
        let setting = Setting {
            regions: &[DUBLIN, SINGAPORE],
            serves: &|of| match of.as_str() {
                "CN" => None,
                "IN" | "ID" => Some(1),
                _ => Some(0),
            },
        };
        let outcome = crowd.meet(&setting);
        assert_eq!(crowd.len(), 50_000);
        assert_eq!(outcome.all.count() + outcome.refused, 50_000);
        let everybody: f64 = users().values().sum();
        let share = outcome.refused as f64 / 50_000.0;
        assert!((share - users()[&country("CN")] / everybody).abs() < 0.001, "{share}");
        let there = outcome.countries[&country("IN")].1.count() + outcome.countries[&country("ID")].1.count();
        assert_eq!(outcome.regions[1].count(), there);
        assert!(outcome.below(100.0) < outcome.all.below(100.0));
    }

    #[test]
    fn the_near_are_served_sooner_than_the_far() {
        let crowd = Crowd::draw(3, 50_000, Access::default());
        let outcome = crowd.meet(&Setting { regions: &[DUBLIN], serves: &|_| Some(0) });
        let median = |code| outcome.countries[&country(code)].1.quantile(0.5);
        assert!(median("IE") < median("DE") && median("DE") < median("US") && median("US") < median("AU"));
        assert!((150.0..400.0).contains(&median("AU")), "{}", median("AU"));
    }
}
