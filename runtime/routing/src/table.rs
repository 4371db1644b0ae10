//! The routing table: made from what policies answered, read for each request.

use std::collections::{BTreeMap, BTreeSet};

use model::RegionId;
use model::names::Feature;
use model::region::Regions;
use model::routing::{ClientClass, DnsPlan, Facts, Ranking, RegionState, Routes, RoutingPlan};

/// Makes the table of a generation. `routes` are the answer to `Question::Route` about these `facts`. Rankings equal
/// to the default take no row of their own.
///
/// # Errors
/// A sentence, when a ranking is missing or left over, names no region or an unknown one, or names one twice; when a
/// zone cannot be, or a name that it routes has no shape or one out of bounds. The caller keeps the table that it has.
pub fn plan_from(facts: &Facts, routes: Routes) -> Result<RoutingPlan, String> {
    let Routes { rankings: answers, dns } = routes;
    let known: BTreeSet<&RegionId> = facts.regions.iter().map(|region| &region.id).collect();
    check_dns(&dns, &known)?;
    let expected = facts.clients.len() + 1;
    if answers.len() != expected {
        return Err(format!("the routing policies gave {} rankings; {expected} were asked for", answers.len()));
    }
    let mut answers = answers.into_iter();
    let default = answers.next().ok_or("the routing policies gave no ranking")?;
    check(&default, &known, "clients of no known country")?;
    let mut by_class = BTreeMap::new();
    for (client, ranking) in facts.clients.iter().zip(answers) {
        let whom = client.class.country.map_or_else(String::new, |country| format!("clients in {country}"));
        check(&ranking, &known, &whom)?;
        if ranking != default {
            by_class.insert(client.class, ranking);
        }
    }
    Ok(RoutingPlan { default, by_class, dns })
}

fn check_dns(dns: &DnsPlan, known: &BTreeSet<&RegionId>) -> Result<(), String> {
    for (apex, zone) in &dns.zones {
        zone.check().map_err(|fault| fault.to_string())?;
        if *apex != zone.apex {
            return Err(format!("the zone {} stands under {apex}", zone.apex));
        }
        for name in &zone.routed {
            let shapes = dns.shapes.get(name).ok_or_else(|| format!("nothing says how {name} is answered"))?;
            for shape in std::iter::once(&shapes.default).chain(shapes.by_class.values()) {
                if !shape.is_sound() {
                    return Err(format!("the answers for {name} are out of bounds"));
                }
                if let Some(stray) = shape.shares.iter().find(|share| !known.contains(&share.region)) {
                    return Err(format!("{name} is shared with {}, and there is no such region", stray.region));
                }
            }
        }
    }
    Ok(())
}

fn check(ranking: &Ranking, known: &BTreeSet<&RegionId>, whom: &str) -> Result<(), String> {
    if ranking.regions.is_empty() {
        return Err(format!("the routing policies name no region for {whom}"));
    }
    let mut seen = BTreeSet::new();
    for region in &ranking.regions {
        if !known.contains(region) {
            return Err(format!("the routing policies name {region} for {whom}, and there is no such region"));
        }
        if !seen.insert(region) {
            return Err(format!("the routing policies name {region} twice for {whom}"));
        }
    }
    Ok(())
}

/// The regions that may take a request now, best first: those of the ranking that serve, offer all that it `needs`,
/// and are `lawful` where that is a question. No region that the policy or the law left out is ever put in instead.
///
/// Where none of them serves, those that are degraded, draining or evacuated do: they answer. Where none does and most regions are out, the
/// detector is distrusted, and all that were ever heard of are tried, nearest first. Otherwise the list is empty.
/// A region whose state is not in `up` does not serve.
pub fn choose(
    plan: &RoutingPlan,
    class: ClientClass,
    up: &BTreeMap<RegionId, RegionState>,
    needs: &BTreeSet<Feature>,
    regions: &Regions,
    lawful: Option<&BTreeSet<RegionId>>,
) -> Vec<RegionId> {
    let fit = |id: &&RegionId| {
        regions.by_id.get(*id).is_some_and(|region| needs.is_subset(&region.features))
            && lawful.is_none_or(|lawful| lawful.contains(*id))
    };
    let ranked = || plan.ranking(class).regions.iter().filter(fit);
    let which = |wanted: &dyn Fn(RegionState) -> bool| -> Vec<RegionId> {
        ranked().filter(|id| up.get(*id).is_some_and(|state| wanted(*state))).cloned().collect()
    };
    let serving = which(&RegionState::serves);
    if !serving.is_empty() {
        return serving;
    }
    let degraded = which(&RegionState::serves_in_need);
    let out = up.values().filter(|state| !state.serves()).count();
    if degraded.is_empty() && out * 2 > regions.by_id.len() {
        return which(&|state| state != RegionState::Joining);
    }
    degraded
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
