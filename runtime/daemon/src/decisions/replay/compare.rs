//! What differs between two answers to one question: whom or what it is about, what was, what would be.

use std::collections::{BTreeMap, BTreeSet};

use model::RegionId;
use model::question::{Answer, CaseAnswer, Declarations, Question, Rulings};
use model::residency::{Law, ResidencyCase, Verdict};
use model::routing::{ClientClass, Facts, Ranking, Routes};

use super::super::words;

/// Whom or what, from, to.
pub type Difference = (String, String, String);

/// What differs. There is at least one difference where the answers differ at all.
pub fn differences(
    (about, question, facts): (&str, &Question, Option<&Facts>),
    was: &Answer,
    now: &Answer,
) -> Vec<Difference> {
    let mut all = match (was, now, question) {
        (Answer::Routes(was), Answer::Routes(now), _) => routes(facts, was, now),
        (Answer::Residency(was), Answer::Residency(now), Question::Residency { cases }) => rulings(cases, was, now),
        (Answer::Loaded(was), Answer::Loaded(now), _) => declarations(was, now),
        _ => Vec::new(),
    };
    if all.is_empty() {
        let (from, to) = (words::summary(was), words::summary(now));
        let to = if from == to { format!("{to}, otherwise in detail") } else { to };
        all.push((about.to_owned(), from, to));
    }
    all
}

fn routes(facts: Option<&Facts>, was: &Routes, now: &Routes) -> Vec<Difference> {
    let clients = facts.map(|facts| facts.clients.as_slice()).unwrap_or_default();
    let classes = std::iter::once(ClientClass { country: None }).chain(clients.iter().map(|client| client.class));
    let mut moved: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for ((class, was), now) in classes.zip(&was.rankings).zip(&now.rankings) {
        if was != now {
            moved.entry(moves(was, now)).or_default().push(words::country(class));
        }
    }
    let moved = moved.into_iter().map(|((from, to), clients)| {
        (format!("{} client classes: {}", clients.len(), words::some(&clients)), from, to)
    });
    let text = |side: Option<String>| side.unwrap_or_else(|| "nothing".to_owned());
    let dns = routing::dns_differences(&was.dns, &now.dns);
    moved.chain(dns.into_iter().map(|one| (one.what, text(one.was), text(one.becomes)))).collect()
}

/// The first regions where they differ, else the whole order.
fn moves(was: &Ranking, now: &Ranking) -> (String, String) {
    match (was.regions.first(), now.regions.first()) {
        (Some(from), Some(to)) if from != to => (from.to_string(), to.to_string()),
        _ => (words::ids(&was.regions), words::ids(&now.regions)),
    }
}

fn rulings(cases: &[ResidencyCase], was: &Rulings, now: &Rulings) -> Vec<Difference> {
    let none = CaseAnswer { hold: BTreeMap::new(), transfer: BTreeMap::new() };
    let ruling = |side: &Rulings, at: usize| -> CaseAnswer {
        let at = side.of_case.get(at).and_then(|at| side.distinct.get(*at as usize));
        at.cloned().unwrap_or_else(|| none.clone())
    };
    // A change is the same for many cases: grouped by class and region.
    let mut grouped: BTreeMap<Difference, (u32, BTreeSet<Law>)> = BTreeMap::new();
    for (at, case) in cases.iter().enumerate() {
        let (was, now) = (ruling(was, at), ruling(now, at));
        if was == now {
            continue;
        }
        let about = format!("{} data", case.class);
        for region in was.hold.keys().chain(now.hold.keys()).collect::<BTreeSet<_>>() {
            let place = format!("{about}, in {region}");
            changed(&mut grouped, (place, case.law), was.hold.get(region), now.hold.get(region));
        }
        for pair in was.transfer.keys().chain(now.transfer.keys()).collect::<BTreeSet<&(RegionId, RegionId)>>() {
            let place = format!("{about}, {} → {}", pair.0, pair.1);
            changed(&mut grouped, (place, case.law), was.transfer.get(pair), now.transfer.get(pair));
        }
    }
    let told = grouped.into_iter().map(|((what, from, to), (cases, laws))| {
        let laws = laws.iter().map(Law::name).collect::<Vec<_>>().join(" ");
        (format!("{what}, law {laws} ({cases} cases)"), from, to)
    });
    told.collect()
}

fn changed(
    grouped: &mut BTreeMap<Difference, (u32, BTreeSet<Law>)>,
    (place, law): (String, Law),
    was: Option<&Verdict>,
    now: Option<&Verdict>,
) {
    if was != now {
        let (cases, laws) = grouped.entry((place, verdict(was), verdict(now))).or_default();
        *cases += 1;
        laws.insert(law);
    }
}

fn verdict(verdict: Option<&Verdict>) -> String {
    match verdict {
        None => "denied (no ruling)".to_owned(),
        Some(Verdict::Deny { rule }) => format!("denied ({rule})"),
        Some(Verdict::Allow { rule, obligations, .. }) if obligations.is_empty() => format!("allowed ({rule})"),
        Some(Verdict::Allow { rule, obligations, .. }) => {
            let duties = obligations.iter().map(|duty| duty.as_str()).collect::<Vec<_>>().join(", ");
            format!("allowed ({rule}) with {duties}")
        }
    }
}

fn declarations(was: &Declarations, now: &Declarations) -> Vec<Difference> {
    let text = |side: Option<String>| side.unwrap_or_else(|| "nothing".to_owned());
    let declared =
        model::radius::declared((&was.replication, &was.lag, &was.edge), (&now.replication, &now.lag, &now.edge));
    let mut all: Vec<Difference> =
        declared.into_iter().map(|one| (one.what, text(one.was), text(one.becomes))).collect();
    let mut add = |what: String, from: String, to: String| {
        if from != to {
            all.push((what, from, to));
        }
    };
    add("the bounds of a change".to_owned(), was.bounds.to_string(), now.bounds.to_string());
    add("the resolvers".to_owned(), was.resolvers.join(" "), now.resolvers.join(" "));
    let names = was.region_policies.keys().chain(now.region_policies.keys()).collect::<BTreeSet<_>>();
    for region in names {
        let policy = |side: &Declarations| {
            side.region_policies.get(region).map_or_else(
                || "nothing".to_owned(),
                |policy| {
                    let accepts = policy.accepts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                    let duties = policy.requires.iter().map(|duty| duty.as_str()).collect::<Vec<_>>().join(" ");
                    format!("accepts {accepts}; requires {duties}")
                },
            )
        };
        add(format!("the policy of {region}"), policy(was), policy(now));
    }
    all
}
