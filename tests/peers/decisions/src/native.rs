//! The same plans, made by Rust alone: what a decision would cost had there never been a policy file.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::question::{CaseAnswer, Rulings};
use model::record::DataClass;
use model::residency::{Law, RegionPolicy, ResidencyCase, ResidencyPlan, Verdict};
use model::routing::{ClientFacts, Facts, Ranking, RegionFacts, RoutingPlan};
use model::{Country, RegionId, UnixMillis};

use crate::{Exam, rego::continent};

fn law(code: &str) -> Law {
    Law::of(Country::new(code).expect("a country"))
}

/// The rule, whether a region under a law may hold it, and whether it is sealed there.
fn rule(case: &ResidencyCase, there: Law) -> (&'static str, bool, bool) {
    let localised = [law("RU"), law("CN")];
    let home = there == case.law && there != Law::Other;
    match (case.class, case.law) {
        (DataClass::Public | DataClass::Operational | DataClass::SourceCode, _) => {
            ("not-personal-goes-anywhere", true, false)
        }
        (DataClass::Credentials, _) => ("credentials-avoid-localising-states", !localised.contains(&there), true),
        (_, Law::None) => ("personal-must-state-jurisdiction", false, false),
        (_, Law::Eea) => ("eea-personal-stays-in-eea", home, true),
        (_, own) if localised.contains(&own) => ("localised-personal-stays-home", home, true),
        _ => {
            let adequate = ["DE", "GB", "CH", "CA", "JP", "KR", "BR", "US"].map(law);
            ("personal-home-or-adequate", home || adequate.contains(&there), true)
        }
    }
}

fn verdict(rule: &str, allowed: bool, sealed: bool) -> Verdict {
    let rule = rule.parse().expect("a name");
    match allowed {
        false => Verdict::Deny { rule },
        true => Verdict::Allow {
            rule,
            obligations: sealed.then(|| "encrypt-at-rest".parse().expect("a name")).into_iter().collect(),
            valid_from: UnixMillis(0),
            valid_until: UnixMillis::MAX,
        },
    }
}

/// The residency plan of the default rules.
pub fn residency(facts: &Facts, policies: BTreeMap<RegionId, RegionPolicy>) -> ResidencyPlan {
    let mut rulings = Rulings::default();
    for case in compliance::cases() {
        let of = |region: &RegionFacts| {
            let (rule, allowed, sealed) = rule(&case, Law::of(region.jurisdiction));
            (region.id.clone(), verdict(rule, allowed, sealed))
        };
        let hold: BTreeMap<RegionId, Verdict> = facts.regions.iter().map(of).collect();
        let may: Vec<_> = hold.iter().filter(|(_, verdict)| verdict.allows(UnixMillis(1))).collect();
        let pairs = may.iter().flat_map(|from| may.iter().map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from.0 != to.0);
        let transfer = pairs.map(|(from, to)| ((from.0.clone(), to.0.clone()), to.1.clone())).collect();
        let ruling = CaseAnswer { hold, transfer };
        let at = rulings.distinct.iter().position(|other| *other == ruling).unwrap_or_else(|| {
            rulings.distinct.push(ruling);
            rulings.distinct.len() - 1
        });
        rulings.of_case.push(at as u32);
    }
    compliance::plan_from(compliance::cases(), rulings, policies)
}

fn ranking(facts: &Facts, client: Option<&ClientFacts>) -> Ranking {
    let key = |region: &&RegionFacts| {
        let place = client.and_then(|client| client.coordinates);
        let near = client.and_then(|client| client.continent.as_deref()) == Some(continent(region.country.as_str()));
        let complete = ["full-api", "websockets"]
            .iter()
            .all(|feature| region.features.contains(&model::names::Feature::new(feature).expect("a feature")));
        let distance = place.map_or(20_038, |place| region.coordinates.kilometres_to(place).round() as u64);
        (!complete, !near, distance, !region.primary, Reverse(region.max_instances))
    };
    let mut regions: Vec<&RegionFacts> = facts.regions.iter().collect();
    regions.sort_by_key(key);
    Ranking { regions: regions.into_iter().map(|region| region.id.clone()).collect() }
}

/// The routing table of the default mapping, without names: those of another table are taken over.
pub fn routing(exam: &Exam, named: &RoutingPlan) -> RoutingPlan {
    let rankings = std::iter::once(None).chain(exam.facts.clients.iter().map(Some));
    let rankings = rankings.map(|client| ranking(&exam.facts, client)).collect();
    let routes = model::routing::Routes { rankings, dns: named.dns.clone() };
    routing::plan_from(&exam.facts, routes).expect("a table")
}
