//! Who would go where if one routing table took the place of another.

use std::collections::{BTreeMap, BTreeSet};

use model::RegionId;
use model::names::DnsName;
use model::radius::{Difference, MOST_SHOWN, Move, Moves, Weighed};
use model::region::Regions;
use model::routing::{AnswerShape, ClientClass, DnsPlan, NameShapes, RegionState, RoutingPlan, Zone};

use crate::facts::classes;
use crate::table::choose;

/// What is compared.
struct Route {
    first: Option<RegionId>,
    order: Vec<RegionId>,
}

/// Compares two tables, for every client class. `weights` is the recent traffic by class; where there is none at
/// all, each class counts the same.
///
/// A class moves when its requests would go to another region first as health is in `states`, or as it will be once
/// every region serves: what an outage hides is part of a change too.
pub fn moves(
    before: &RoutingPlan,
    after: &RoutingPlan,
    regions: &Regions,
    states: &BTreeMap<RegionId, RegionState>,
    weights: &BTreeMap<ClientClass, f64>,
) -> Moves {
    let all_serve: BTreeMap<RegionId, RegionState> =
        regions.by_id.keys().map(|id| (id.clone(), RegionState::Ready)).collect();
    let mut classes: BTreeSet<ClientClass> = classes().into_iter().chain([ClientClass { country: None }]).collect();
    let total: f64 = weights.values().sum();
    let weighed = if total > 0.0 {
        classes.extend(weights.keys());
        Weighed::Requests(total.round().max(1.0) as u64)
    } else {
        Weighed::Classes(classes.len() as u32)
    };
    let (mut grouped, mut reordered) = (BTreeMap::<_, Vec<(f64, ClientClass)>>::new(), 0);
    for class in classes {
        let weight = match weighed {
            Weighed::Requests(_) => weights.get(&class).copied().unwrap_or(0.0) / total,
            Weighed::Classes(count) => 1.0 / f64::from(count),
        };
        let route = |plan, states| route(plan, class, states, regions);
        let (now, then) = (route(before, states), route(after, states));
        let (now_all, then_all) = (route(before, &all_serve), route(after, &all_serve));
        if now.first != then.first {
            grouped.entry((now.first, then.first, false)).or_default().push((weight, class));
        } else if now_all.first != then_all.first {
            grouped.entry((now_all.first, then_all.first, true)).or_default().push((weight, class));
        } else if now_all.order != then_all.order {
            reordered += 1;
        }
    }
    let mut moves: Vec<Move> = grouped
        .into_iter()
        .map(|((from, to, once_all_serve), mut clients)| {
            clients.sort_by(|(a, class), (b, other)| b.total_cmp(a).then(class.cmp(other)));
            let percent = 100.0 * clients.iter().map(|(weight, _)| weight).sum::<f64>();
            let classes = clients.len() as u32;
            let clients = clients.into_iter().take(MOST_SHOWN).map(|(_, class)| class).collect();
            Move { from, to, once_all_serve, percent, classes, clients }
        })
        .collect();
    moves.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    let percent = moves.iter().map(|one| one.percent).sum::<f64>().min(100.0);
    moves.truncate(MOST_SHOWN);
    Moves { weighed, percent, moves, reordered }
}

fn route(plan: &RoutingPlan, class: ClientClass, states: &BTreeMap<RegionId, RegionState>, regions: &Regions) -> Route {
    let order = choose(plan, class, states, &BTreeSet::new(), regions, None);
    Route { first: order.first().cloned(), order }
}

/// What would be answered otherwise over DNS, apart from the order of the regions.
pub fn dns_differences(before: &DnsPlan, after: &DnsPlan) -> Vec<Difference> {
    let mut differences = Vec::new();
    let apexes: BTreeSet<&DnsName> = before.zones.keys().chain(after.zones.keys()).collect();
    for apex in apexes {
        let (old, new) = (before.zones.get(apex), after.zones.get(apex));
        let names = |zone: Option<&Zone>, other: Option<&Zone>| {
            let zone = zone?;
            let only = zone.routed.iter().filter(|name| other.is_none_or(|other| !other.routed.contains(*name)));
            let only: Vec<&str> = only.map(DnsName::as_str).collect();
            (!only.is_empty()).then(|| only.join(" "))
        };
        differences.extend(Difference::between(format!("names routed in {apex}"), names(old, new), names(new, old)));
        let fixed = |zone: Option<&Zone>| {
            zone.map(|zone| format!("{} records, {} servers, kept {} s", zone.records.len(), zone.ns.len(), zone.ttl))
        };
        let same = old.map(|zone| (&zone.records, &zone.ns, zone.ttl, zone.times, &zone.contact))
            == new.map(|zone| (&zone.records, &zone.ns, zone.ttl, zone.times, &zone.contact));
        if !same {
            let (was, becomes) = (fixed(old), fixed(new));
            // Where the figures agree, it is the content that differs.
            let becomes = if was == becomes { Some("other content".to_owned()) } else { becomes };
            differences.push(Difference { what: format!("fixed records of {apex}"), was, becomes });
        }
    }
    for (name, old) in &before.shapes {
        if let Some(new) = after.shapes.get(name).filter(|new| *new != old) {
            let what = format!("DNS answers for {name}");
            differences.push(Difference { what, was: Some(shapes(old)), becomes: Some(shapes(new)) });
        }
    }
    differences
}

fn shapes(shapes: &NameShapes) -> String {
    let AnswerShape { count, ttl_min, ttl_max, shares } = &shapes.default;
    let shares: Vec<String> = shares.iter().map(|share| format!("{} {}", share.region, share.weight)).collect();
    let shares = if shares.is_empty() { String::new() } else { format!(", shared {}", shares.join(" : ")) };
    let others = match shapes.by_class.len() {
        0 => String::new(),
        count => format!(", another shape for {count} classes"),
    };
    format!("{count} regions for {ttl_max} s ({ttl_min} s while unwell){shares}{others}")
}
