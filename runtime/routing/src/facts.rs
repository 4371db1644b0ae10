//! What routing policies are told.

use std::collections::BTreeMap;

use model::RegionId;
use model::region::Regions;
use model::routing::{ClientClass, ClientFacts, Facts, RegionFacts, RegionState};

use crate::geography::{centre, continent, countries};
use crate::health::HealthTracker;

/// The client classes that a routing table has a row for: one a country. Clients of no known country take the default.
pub fn classes() -> Vec<ClientClass> {
    countries().map(|country| ClientClass { country: Some(country) }).collect()
}

/// The facts as `me` sees them. A round trip is known between `me` and each other region, and taken as the same in
/// both directions; between two other regions it is not known here. `me` itself counts as ready: who asks, serves.
pub fn facts(regions: &Regions, me: &RegionId, tracker: &HealthTracker, classes: &[ClientClass]) -> Facts {
    let measured: BTreeMap<_, _> = regions
        .by_id
        .keys()
        .filter(|id| *id != me)
        .filter_map(|id| Some((id.clone(), tracker.steady_round_trip(id)?)))
        .collect();
    let regions = regions.by_id.values().map(|region| {
        let mine = region.id == *me;
        let round_trips = if mine {
            measured.clone()
        } else {
            measured.get(&region.id).map(|&round_trip| (me.clone(), round_trip)).into_iter().collect()
        };
        RegionFacts {
            id: region.id.clone(),
            country: region.country,
            jurisdiction: region.jurisdiction,
            coordinates: region.coordinates,
            features: region.features.clone(),
            primary: region.primary,
            max_instances: region.capacity.max_instances,
            state: if mine { RegionState::Ready } else { tracker.state(&region.id) },
            round_trips,
        }
    });
    let clients = classes.iter().map(|&class| ClientFacts {
        class,
        continent: class.country.and_then(continent).map(str::to_owned),
        coordinates: class.country.and_then(centre),
    });
    Facts { regions: regions.collect(), clients: clients.collect() }
}
