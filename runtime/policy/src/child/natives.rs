//! What Scheme can ask of the host: the module `repomind/host`.
//!
//! Accessors here, sample makers in `samples`, declarations and tests in
//! `declare`. The modules in `scm/repomind` hand them on under the same names.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use model::Country;
use model::names::Feature;
use model::residency::Law;
use steel::SteelVal;
use steel::steel_vm::builtin::BuiltInModule;

use super::declare::{self, Ledger, lock};
use super::values::{
    ClientObject, LinkObject, Object, ObservationObject, RecordObject, RegionObject, Scheme, SiblingObject, all_items,
    fault, integer, items, list, name, object, symbol, text,
};
use super::{invariants, property, samples};
use super::{memo, values};
use crate::wire::{self, Report};

/// The module `repomind/host`, which reports to `ledger`.
pub fn module(ledger: &Arc<Mutex<Ledger>>) -> BuiltInModule {
    let mut module = Natives(BuiltInModule::new("repomind/host"));
    regions(&mut module, ledger);
    marks(&mut module, ledger);
    clients_and_links(&mut module);
    lists(&mut module);
    texts(&mut module);
    records(&mut module);
    siblings(&mut module);
    samples::define(&mut module);
    declare::define(&mut module, ledger);
    property::define(&mut module, ledger);
    invariants::define(&mut module, ledger);
    module.0
}

/// Natives in the making.
pub struct Natives(BuiltInModule);

impl Natives {
    /// Defines a function of so many arguments.
    pub fn define(
        &mut self,
        called: &'static str,
        arity: RangeInclusive<usize>,
        run: impl Fn(&[SteelVal]) -> Scheme<SteelVal> + Send + Sync + 'static,
    ) {
        let checked = move |arguments: &[SteelVal]| {
            if !arity.contains(&arguments.len()) {
                let (least, most) = (arity.start(), arity.end());
                let wanted = match (least, most) {
                    (1, 1) => "1 argument".to_owned(),
                    (least, most) if least == most => format!("{least} arguments"),
                    _ => format!("{least} to {most} arguments"),
                };
                let message = format!("{called}: expected {wanted}, found {}", arguments.len());
                return Err(fault(format!("{message}; give as many arguments as the function takes")));
            }
            run(arguments).map_err(|mut error| {
                error.prepend_message(&format!("{called}: "));
                error
            })
        };
        self.0.register_value(called, SteelVal::anonymous_boxed_function(Arc::new(checked)));
    }

    /// Defines an accessor of one kind of object.
    fn field<T: Object>(&mut self, called: &'static str, get: impl Fn(&T) -> SteelVal + Send + Sync + 'static) {
        self.define(called, 1..=1, move |arguments| object::<T>(&arguments[0]).map(|object| get(&object)));
    }
}

fn regions(module: &mut Natives, ledger: &Arc<Mutex<Ledger>>) {
    let kept = ledger.clone();
    module.define("all-regions", 0..=0, move |_| Ok(list(lock(&kept).regions.iter().cloned())));
    module.field("region-id", |r: &RegionObject| symbol(r.0.id.as_str()));
    module.field("region-country", |r: &RegionObject| text(r.0.country.as_str()));
    module.field("region-jurisdiction", |r: &RegionObject| text(r.0.jurisdiction.as_str()));
    module.field("region-law", |r: &RegionObject| symbol(Law::of(r.0.jurisdiction).name()));
    module.field("region-state", |r: &RegionObject| symbol(r.0.state.name()));
    module.field("region-primary?", |r: &RegionObject| SteelVal::BoolV(r.0.primary));
    module.field("region-max-instances", |r: &RegionObject| integer(u64::from(r.0.max_instances)));
    module.define("region-has-feature?", 2..=2, |arguments| {
        let region = object::<RegionObject>(&arguments[0])?;
        let feature = Feature::new(name(&arguments[1])?).map_err(|error| fault(error.to_string()))?;
        Ok(SteelVal::BoolV(region.0.features.contains(&feature)))
    });
    module.define("region-has-features?", 2..=2, |arguments| {
        let region = object::<RegionObject>(&arguments[0])?;
        let mut all = true;
        for wanted in items(&arguments[1])? {
            let feature = Feature::new(name(&wanted)?).map_err(|error| fault(error.to_string()))?;
            all &= region.0.features.contains(&feature);
        }
        Ok(SteelVal::BoolV(all))
    });
    module.define("nearest-region", 2..=2, |arguments| {
        let client = object::<ClientObject>(&arguments[0])?;
        let mut nearest: Option<(f64, SteelVal)> = None;
        for value in items(&arguments[1])? {
            let region = object::<RegionObject>(&value)?;
            let Some(place) = client.look().coordinates else { break };
            let distance = region.0.coordinates.kilometres_to(place).round();
            if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                nearest = Some((distance, value));
            }
        }
        Ok(nearest.map_or(SteelVal::BoolV(false), |(_, region)| region))
    });
    module.define("region-rtt", 2..=2, |arguments| {
        let (from, to) = (object::<RegionObject>(&arguments[0])?, object::<RegionObject>(&arguments[1])?);
        if from.0.id == to.0.id {
            return Ok(SteelVal::NumV(0.0));
        }
        // A round trip is the same both ways; either end may have measured it.
        let measured = from.0.round_trips.get(&to.0.id).or_else(|| to.0.round_trips.get(&from.0.id));
        Ok(measured.map_or(SteelVal::BoolV(false), |trip| SteelVal::NumV(trip.as_millis_f64())))
    });
    module.define("region-distance", 2..=2, |arguments| {
        let (region, client) = (object::<RegionObject>(&arguments[0])?, object::<ClientObject>(&arguments[1])?);
        let kilometres = client.look().coordinates.map(|place| region.0.coordinates.kilometres_to(place));
        Ok(kilometres.map_or(SteelVal::BoolV(false), |distance| SteelVal::IntV(distance.round() as isize)))
    });
}

fn marks(module: &mut Natives, ledger: &Arc<Mutex<Ledger>>) {
    let kept = ledger.clone();
    module.define("form-begins!", 2..=2, move |arguments| {
        let place = |at: usize| values::count(&arguments[at]).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let report = Report::AtForm(place(0)?, place(1)?);
        if let Some(socket) = &lock(&kept).marks {
            // A parent that is gone is noticed when the answer is written.
            let _ = wire::write(&mut &**socket, &report);
        }
        Ok(SteelVal::Void)
    });
}

fn clients_and_links(module: &mut Natives) {
    let or_false = |value: Option<&str>| value.map_or(SteelVal::BoolV(false), text);
    module.field("client-country", move |c: &ClientObject| {
        or_false(c.look().class.country.as_ref().map(Country::as_str))
    });
    module.field("client-law", |c: &ClientObject| symbol(c.look().class.country.map_or(Law::None, Law::of).name()));
    module.field("client-continent", move |c: &ClientObject| or_false(c.look().continent.as_deref()));
    module.field("link-lag", |l: &LinkObject| integer(l.0.0));
    module.field("observation-probes", |o: &ObservationObject| integer(u64::from(o.0.probes)));
    module.field("observation-losses", |o: &ObservationObject| integer(u64::from(o.0.losses)));
    module.field("observation-losses-in-a-row", |o: &ObservationObject| integer(u64::from(o.0.losses_in_a_row)));
}

fn lists(module: &mut Natives) {
    module.define("sort-by-keys", 2..=2, |arguments| {
        let keys = items(&arguments[0])?.iter().map(numbers).collect::<Scheme<Vec<_>>>()?;
        let values = as_many(keys.len(), &arguments[1])?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        // Numbers only (`numbers`), so that every two of them compare.
        order.sort_by(|&a, &b| keys[a].partial_cmp(&keys[b]).unwrap_or(std::cmp::Ordering::Equal));
        Ok(list(order.into_iter().map(|at| values[at].clone())))
    });
    module.define("sort-within-keys", 3..=3, |arguments| {
        let factor = number(&arguments[0])?;
        let keys = numbers(&arguments[1])?;
        let values = as_many(keys.len(), &arguments[2])?;
        let mut left: Vec<usize> = (0..keys.len()).collect();
        let mut order = Vec::with_capacity(keys.len());
        while let Some(least) = left.iter().map(|&at| keys[at]).reduce(f64::min) {
            let bound = (least * factor).max(least);
            // There is one: the least itself is within the bound.
            let chosen = left.iter().position(|&at| keys[at] <= bound).unwrap_or_default();
            order.push(left.remove(chosen));
        }
        Ok(list(order.into_iter().map(|at| values[at].clone())))
    });
}

fn texts(module: &mut Natives) {
    module.define("lines", 1..=1, |arguments| {
        Ok(list(name(&arguments[0])?.split('\n').filter(|line| !line.is_empty()).map(text)))
    });
    module.define("join-lines", 1..=1, |arguments| {
        let mut all = String::new();
        for line in &all_items(&arguments[0])? {
            all.push_str(name(line)?);
            all.push('\n');
        }
        Ok(text(&all))
    });
    module.define("union-lines", 1..=1, |arguments| {
        let texts = all_items(&arguments[0])?;
        let mut all = Vec::new();
        for text in &texts {
            all.extend(name(text)?.split('\n').filter(|line| !line.is_empty()));
        }
        all.sort_unstable();
        all.dedup();
        let mut union = String::with_capacity(all.iter().map(|line| line.len() + 1).sum());
        for line in all {
            union.push_str(line);
            union.push('\n');
        }
        Ok(text(&union))
    });
    module.define("sorted-union", 1..=1, |arguments| {
        let lists = all_items(&arguments[0])?.iter().map(all_items).collect::<Scheme<Vec<_>>>()?;
        let all = lists.iter().flatten().map(name).collect::<Scheme<BTreeSet<&str>>>()?;
        Ok(list(all.into_iter().map(text)))
    });
}

fn as_many(keys: usize, values: &SteelVal) -> Scheme<Vec<SteelVal>> {
    let values = items(values)?;
    if keys == values.len() {
        return Ok(values);
    }
    Err(fault(format!("{keys} keys for {} items; give one key for each item", values.len())))
}

/// A number that is not NaN.
fn number(value: &SteelVal) -> Scheme<f64> {
    match value {
        SteelVal::IntV(whole) => Ok(*whole as f64),
        SteelVal::NumV(number) if !number.is_nan() => Ok(*number),
        other => Err(fault(format!("expected a number to sort by, found {}", values::shown(other)))),
    }
}

fn numbers(key: &SteelVal) -> Scheme<Vec<f64>> {
    items(key)?.iter().map(number).collect()
}

fn records(module: &mut Natives) {
    let mut field = |called, bit, get: fn(&RecordObject) -> SteelVal| {
        module.field(called, move |record: &RecordObject| {
            record.note(bit);
            get(record)
        });
    };
    field("record-class", memo::CLASS, |r| symbol(r.case.class.as_str()));
    field("record-law", memo::LAW, |r| symbol(r.case.law.name()));
    field("record-basis", memo::BASIS, |r| symbol(r.case.basis.as_str()));
    field("record-purpose", memo::PURPOSE, |r| symbol(r.case.purpose.as_str()));
}

fn siblings(module: &mut Natives) {
    module.field("sibling-region", |s: &SiblingObject| symbol(&s.region));
    module.field("sibling-time", |s: &SiblingObject| integer(s.time));
    module.field("sibling-value", |s: &SiblingObject| values::text(&s.value));
    module.field("sibling-deleted?", |s: &SiblingObject| SteelVal::BoolV(s.deleted));
    module.field("sibling-index", |s: &SiblingObject| integer(u64::from(s.index)));
}
