//! What operators' orders make of a routing table, and what regions would have to carry then.

use std::collections::{BTreeMap, BTreeSet};

use model::RegionId;
use model::orders::Pin;
use model::region::Regions;
use model::routing::{ClientClass, Ranking, RegionState, RoutingPlan};

use crate::table::choose;
use crate::traffic::HALF_LIFE;

/// The table with the pins carried out: a later one goes before an earlier one. A region that the policies leave out for
/// a class stays left out: no pin sends a client where no policy would.
pub fn pinned(plan: &RoutingPlan, pins: &[Pin]) -> RoutingPlan {
    let mut pinned = plan.clone();
    for pin in pins {
        let first = |ranking: &mut Ranking| {
            if let Some(at) = ranking.regions.iter().position(|region| *region == pin.region) {
                ranking.regions[..=at].rotate_right(1);
            }
        };
        if pin.clients.is_empty() {
            first(&mut pinned.default);
            pinned.by_class.values_mut().for_each(first);
        } else {
            for country in &pin.clients {
                let class = ClientClass { country: Some(*country) };
                let ranking = pinned.ranking(class).clone();
                first(pinned.by_class.entry(class).or_insert(ranking));
            }
        }
    }
    pinned
}

/// The table as it would be if no policy named this region.
pub fn without(plan: &RoutingPlan, region: &RegionId) -> RoutingPlan {
    let mut left = plan.clone();
    left.default.regions.retain(|other| other != region);
    left.by_class.values_mut().for_each(|ranking| ranking.regions.retain(|other| other != region));
    left
}

/// Requests and answers a second that go to each region first. `weights` are recent traffic by class, which halves every
/// [`HALF_LIFE`]: what comes steadily adds up to its rate times that, over the logarithm of 2.
pub fn loads(
    plan: &RoutingPlan,
    regions: &Regions,
    states: &BTreeMap<RegionId, RegionState>,
    weights: &BTreeMap<ClientClass, f64>,
) -> BTreeMap<RegionId, f64> {
    let mut loads: BTreeMap<RegionId, f64> = regions.by_id.keys().map(|id| (id.clone(), 0.0)).collect();
    let unit = std::f64::consts::LN_2 * 1000.0 / HALF_LIFE.0 as f64;
    for (class, weight) in weights {
        let order = choose(plan, *class, states, &BTreeSet::new(), regions, None);
        if let Some(load) = order.first().and_then(|first| loads.get_mut(first)) {
            *load += weight * unit;
        }
    }
    loads
}

#[cfg(test)]
mod tests {
    use model::orders::Word;
    use model::{Country, UnixMillis};

    use super::*;

    fn ranking(ids: &[&str]) -> Ranking {
        Ranking { regions: ids.iter().map(|id| RegionId::new(id).unwrap()).collect() }
    }

    fn class(code: &str) -> ClientClass {
        ClientClass { country: Country::new(code).ok() }
    }

    fn pin(region: &str, clients: &[&str]) -> Pin {
        let word = Word { by: "ops".into(), why: "a test".into(), at: UnixMillis(0), until: None };
        let clients = clients.iter().map(|code| Country::new(code).unwrap()).collect();
        Pin { region: RegionId::new(region).unwrap(), clients, word }
    }

    #[test]
    fn a_pin_puts_a_region_first_and_names_none_that_the_policies_leave_out() {
        let plan = RoutingPlan {
            default: ranking(&["us", "eu", "ap"]),
            by_class: BTreeMap::from([(class("DE"), ranking(&["eu", "us"]))]),
            dns: model::routing::DnsPlan::default(),
        };
        let all = pinned(&plan, &[pin("ap", &[])]);
        assert_eq!(all.default, ranking(&["ap", "us", "eu"]));
        assert_eq!(*all.ranking(class("DE")), ranking(&["eu", "us"]), "sent where no policy would");
        let some = pinned(&plan, &[pin("us", &["DE"]), pin("eu", &["FR"])]);
        assert_eq!(*some.ranking(class("DE")), ranking(&["us", "eu"]));
        assert_eq!(*some.ranking(class("FR")), ranking(&["eu", "us", "ap"]));
        assert_eq!(*some.ranking(class("JP")), plan.default);
        let left = without(&plan, &RegionId::new("us").unwrap());
        assert_eq!(
            (left.default.clone(), left.ranking(class("DE")).clone()),
            (ranking(&["eu", "ap"]), ranking(&["eu"]))
        );
    }
}
