//! Makes objects out of nothing, for the tests that policy files carry.
//!
//! The arguments are positional and all but the first may be left out;
//! `scm/repomind/testing.scm` gives them keywords and defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::names::Feature;
use model::record::{Basis, DataClass, Purpose};
use model::region::Coordinates;
use model::residency::{Law, ResidencyCase};
use model::routing::{ClientClass, ClientFacts, Observation, RegionFacts, RegionState};
use model::{Country, Micros, Millis, RegionId};
use steel::SteelVal;

use super::natives::Natives;
use super::values::{
    ClientObject, LinkObject, ObservationObject, RecordObject, RegionObject, Scheme, SiblingObject, count, fault,
    items, law, list, name, number, object, region_id, shown, symbol, wrap,
};

/// Defines the sample makers.
pub fn define(module: &mut Natives) {
    module.define("make-sample-region", 1..=10, |given| region(&Given(given)));
    module.define("make-sample-client", 0..=4, |given| client(&Given(given)));
    module.define("make-sample-record", 0..=4, |given| record(&Given(given)));
    module.define("make-sample-link", 1..=1, |given| Ok(wrap(LinkObject(Millis(count(&given[0])?)))));
    module.define("make-sample-observation", 0..=3, |given| observation(&Given(given)));
    module.define("make-sample-sibling", 0..=5, |given| sibling(&Given(given)));
    let mut words = |called, words: Vec<String>| {
        module.define(called, 0..=0, move |_| Ok(list(words.iter().map(|word| symbol(word)))));
    };
    words("all-classes", DataClass::ALL.iter().map(ToString::to_string).collect());
    words("all-laws", Law::all().iter().map(ToString::to_string).collect());
    words("all-bases", Basis::ALL.iter().map(ToString::to_string).collect());
    words("all-purposes", Purpose::ALL.iter().map(ToString::to_string).collect());
    words("all-states", RegionState::ALL.iter().map(|state| state.name().to_owned()).collect());
}

/// The value as the form that makes it, for a person to paste: objects as the samples that they could be.
pub fn form(value: &SteelVal) -> String {
    if let Ok(region) = object::<RegionObject>(value) {
        return region_form(&region.0);
    }
    if let Ok(client) = object::<ClientObject>(value) {
        return client_form(&client.facts);
    }
    if let Ok(record) = object::<RecordObject>(value) {
        let ResidencyCase { class, law, basis, purpose } = record.case;
        return format!("(sample-record #:class '{class} #:law '{law} #:basis '{basis} #:purpose '{purpose})");
    }
    if let Ok(LinkObject(lag)) = object::<LinkObject>(value) {
        return format!("(sample-link #:lag {})", lag.0);
    }
    if let Ok(ObservationObject(Observation { probes, losses, losses_in_a_row })) = object(value) {
        let run = losses_in_a_row;
        return format!("(sample-observation #:probes {probes} #:losses {losses} #:losses-in-a-row {run})");
    }
    if let Ok(sibling) = object::<SiblingObject>(value) {
        return super::laws::sample(&sibling);
    }
    match value {
        SteelVal::ListV(_) => match items(value) {
            Ok(items) if items.is_empty() => "'()".to_owned(),
            Ok(items) => format!("(list {})", items.iter().map(form).collect::<Vec<_>>().join(" ")),
            Err(_) => shown(value),
        },
        SteelVal::SymbolV(_) => format!("'{}", shown(value)),
        SteelVal::StringV(text) => format!("{:?}", text.as_str()),
        SteelVal::BoolV(truth) => if *truth { "#t" } else { "#f" }.to_owned(),
        other => shown(other),
    }
}

fn region_form(region: &RegionFacts) -> String {
    let RegionFacts { id, country, jurisdiction, coordinates, features, primary, max_instances, state, round_trips } =
        region;
    let features: Vec<&str> = features.iter().map(Feature::as_str).collect();
    let mut text = format!("(sample-region '{id} #:country \"{country}\"");
    if jurisdiction != country {
        text += &format!(" #:jurisdiction \"{jurisdiction}\"");
    }
    text += &format!(" #:state '{} #:primary {}", state.name(), if *primary { "#t" } else { "#f" });
    text += &format!(" #:features '({}) #:max-instances {max_instances}", features.join(" "));
    text += &format!(" #:latitude {:?} #:longitude {:?}", coordinates.latitude, coordinates.longitude);
    if !round_trips.is_empty() {
        let trips = round_trips.iter().map(|(to, trip)| format!("({to} . {:?})", trip.as_millis_f64()));
        text += &format!(" #:rtts '({})", trips.collect::<Vec<_>>().join(" "));
    }
    text + ")"
}

fn client_form(client: &ClientFacts) -> String {
    let mut text = "(sample-client".to_owned();
    if let Some(country) = client.class.country {
        text += &format!(" #:country \"{country}\"");
    }
    if let Some(continent) = &client.continent {
        text += &format!(" #:continent \"{continent}\"");
    }
    if let Some(Coordinates { latitude, longitude }) = client.coordinates {
        text += &format!(" #:latitude {latitude:?} #:longitude {longitude:?}");
    }
    text + ")"
}

/// Arguments, of which the last may be missing. `#f` counts as missing.
struct Given<'a>(&'a [SteelVal]);

impl Given<'_> {
    fn at<T>(&self, at: usize, read: impl FnOnce(&SteelVal) -> Scheme<T>) -> Scheme<Option<T>> {
        match self.0.get(at) {
            None | Some(SteelVal::BoolV(false)) => Ok(None),
            Some(value) => read(value).map(Some),
        }
    }

    fn small(&self, at: usize) -> Scheme<Option<u32>> {
        self.at(at, |value| u32::try_from(count(value)?).map_err(|_| fault("this number is too large")))
    }

    fn place(&self, at: usize) -> Scheme<Option<Coordinates>> {
        let (latitude, longitude) = (self.at(at, number)?, self.at(at + 1, number)?);
        Ok(latitude.zip(longitude).map(|(latitude, longitude)| Coordinates { latitude, longitude }))
    }
}

fn country(value: &SteelVal) -> Scheme<Country> {
    Country::new(name(value)?).map_err(|error| fault(error.to_string()))
}

/// id country jurisdiction state primary features max-instances latitude longitude round-trips
fn region(given: &Given<'_>) -> Scheme<SteelVal> {
    let id = region_id(&given.0[0])?;
    let stands_in = given.at(1, country)?.unwrap_or_else(|| Country::new("US").expect("a country code"));
    let features = given.at(5, |value| {
        let feature = |item: &SteelVal| Feature::new(name(item)?).map_err(|error| fault(error.to_string()));
        items(value)?.iter().map(feature).collect::<Scheme<BTreeSet<_>>>()
    })?;
    Ok(wrap(RegionObject(Arc::new(RegionFacts {
        id,
        country: stands_in,
        jurisdiction: given.at(2, country)?.unwrap_or(stands_in),
        coordinates: given.place(7)?.unwrap_or(Coordinates { latitude: 0.0, longitude: 0.0 }),
        features: features.unwrap_or_default(),
        primary: given.0.get(4).is_some_and(|value| !matches!(value, SteelVal::BoolV(false))),
        max_instances: given.small(6)?.unwrap_or(1),
        state: given.at(3, state)?.unwrap_or(RegionState::Ready),
        round_trips: given.at(9, round_trips)?.unwrap_or_default(),
    }))))
}

fn state(value: &SteelVal) -> Scheme<RegionState> {
    let (called, states) = (name(value)?, RegionState::ALL);
    states.into_iter().find(|state| state.name() == called).ok_or_else(|| {
        fault(format!("\"{called}\" is not a state; the states are {}", states.map(RegionState::name).join(", ")))
    })
}

/// `((us-east . 70.0))`, in milliseconds.
fn round_trips(value: &SteelVal) -> Scheme<BTreeMap<RegionId, Micros>> {
    let entry = |entry: &SteelVal| {
        let (to, trip) = match entry {
            SteelVal::Pair(pair) => (pair.car(), pair.cdr()),
            SteelVal::ListV(parts) if parts.len() == 2 => (parts[0].clone(), parts[1].clone()),
            other => return Err(fault(format!("expected (region . milliseconds), found {}", shown(other)))),
        };
        Ok((region_id(&to)?, Micros((number(&trip)?.max(0.0) * 1000.0) as u64)))
    };
    items(value)?.iter().map(entry).collect()
}

/// country continent latitude longitude
fn client(given: &Given<'_>) -> Scheme<SteelVal> {
    Ok(wrap(ClientObject::new(ClientFacts {
        class: ClientClass { country: given.at(0, country)? },
        continent: given.at(1, |value| name(value).map(str::to_owned))?,
        coordinates: given.place(2)?,
    })))
}

/// class law basis purpose
fn record(given: &Given<'_>) -> Scheme<SteelVal> {
    fn word<T: std::str::FromStr>(value: &SteelVal) -> Scheme<T>
    where
        T::Err: std::fmt::Display,
    {
        name(value)?.parse().map_err(|error: T::Err| fault(error.to_string()))
    }
    Ok(wrap(RecordObject::new(ResidencyCase {
        class: given.at(0, word)?.unwrap_or(DataClass::Operational),
        law: given.at(1, |value| law(name(value)?))?.unwrap_or(Law::None),
        basis: given.at(2, word)?.unwrap_or(Basis::Unstated),
        purpose: given.at(3, word)?.unwrap_or(Purpose::Service),
    })))
}

/// probes losses losses-in-a-row
fn observation(given: &Given<'_>) -> Scheme<SteelVal> {
    Ok(wrap(ObservationObject(Observation {
        probes: given.small(0)?.unwrap_or(0),
        losses: given.small(1)?.unwrap_or(0),
        losses_in_a_row: given.small(2)?.unwrap_or(0),
    })))
}

/// region time value deleted? index
fn sibling(given: &Given<'_>) -> Scheme<SteelVal> {
    Ok(wrap(SiblingObject {
        region: given.at(0, region_id)?.map_or_else(|| "us-east".to_owned(), String::from),
        time: given.at(1, count)?.unwrap_or(0),
        value: given.at(2, |value| name(value).map(Arc::from))?.unwrap_or_else(|| "".into()),
        deleted: given.0.get(3).is_some_and(|value| !matches!(value, SteelVal::BoolV(false))),
        index: given.small(4)?.unwrap_or(0),
    }))
}
