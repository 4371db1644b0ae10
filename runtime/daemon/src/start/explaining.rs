//! Says why a client is sent where it is, and why a record may be where it may.
//!
//! What is shown is what requests are answered from: the plans in force, with the health of this moment. For a route
//! the policies are asked once more, step by step, so that each file's part shows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::bundle::PolicyTree;
use model::explain::{About, Candidate, Explanation, RouteTrace, Step};
use model::names::DnsName;
use model::question::{Answer, Question};
use model::record::Labels;
use model::residency::{ResidencyPlan, Verdict};
use model::routing::{ClientClass, ClientFacts, Facts};
use model::{Finding, RegionId, RuleId};
use net::Region;

use super::gate;
use super::generations::RefusedGeneration;
use super::running::RunningRegion;
use crate::decisions::Kind;
use crate::decisions::recorder::Note;

const MAPPING: &str = "region-config/region-mapping.scm";
const LATENCY: &str = "traffic-routing/latency-routing.scm";
const DNS: &str = "traffic-routing/geo-dns.scm";
const RESIDENCY: &str = "compliance/data-residency.scm";
const POLICIES: &str = "compliance/region-policies.scm";

/// Explains a decision as it would be made now.
///
/// # Errors
/// A finding: nothing is in force, the name is not routed, or a policy gave no answer.
pub async fn explain(region: &RunningRegion, about: About) -> Result<Explanation, Vec<Finding>> {
    let facts = region.facts();
    let explanation = Explanation {
        by: region.me.clone(),
        at: region.wall_clock(),
        generation: region.generations.number(),
        policy_hash: region.generations.hash(),
        facts: facts.hash(),
        about: String::new(),
        steps: Vec::new(),
        candidates: Vec::new(),
        outcome: String::new(),
    };
    if explanation.generation == 0 {
        return Err(finding("no policies are in force here yet".to_owned()));
    }
    match about {
        About::Route { client, name } => route(region, explanation, (client, name), facts).await,
        About::Residency { labels, region: origin } => {
            let tree = region.generations.tree(explanation.generation).unwrap_or_default();
            let plans = region.plans.load();
            Ok(residency(&plans.residency, &tree, explanation, (&labels, origin.as_ref())))
        }
    }
}

fn finding(message: String) -> Vec<Finding> {
    vec![Finding::error("", "", (0, 0), message, "")]
}

async fn route(
    region: &RunningRegion,
    mut explanation: Explanation,
    (client, name): (IpAddr, Option<DnsName>),
    facts: Facts,
) -> Result<Explanation, Vec<Finding>> {
    let class = ClientClass { country: region.countries.table.load().country(client) };
    let known = facts.clients.iter().find(|client| client.class == class).cloned();
    let known = known.unwrap_or(ClientFacts { class, continent: None, coordinates: None });
    let plans = region.plans.load_full();
    if let Some(name) = name.as_ref().filter(|name| !plans.routing.dns.shapes.contains_key(*name)) {
        let routed = plans.routing.dns.shapes.keys().map(DnsName::as_str).collect::<Vec<_>>().join(", ");
        return Err(finding(format!("{name} is not routed by region; {routed} are")));
    }
    explanation.about = match &name {
        Some(name) => format!("a client in {}, asking for {name}", prefix(client)),
        None => format!("a client in {}", prefix(client)),
    };
    let place = class.country.map_or_else(|| "no known country".to_owned(), |country| country.to_string());
    let continent = known.continent.clone().unwrap_or_else(|| "unknown".to_owned());
    explanation.steps.push(own(
        &format!("countries by {}", region.countries.source().from),
        format!("{place}, continent {continent}"),
    ));
    let asked = region.generations.asked();
    let (child, by) = asked.ok_or_else(|| finding("no policies are in force here yet".to_owned()))?;
    let question = Question::Trace { client: known, name: name.clone(), facts };
    let trace = match gate::ask(&child, question.clone()).await {
        Ok(Answer::Trace(trace)) => {
            let (about, answer) = (explanation.about.clone(), Answer::Trace(trace.clone()));
            let why = "an operator asked `explain route`".to_owned();
            region.recorder.note(Kind::Explanation, || Note {
                by,
                why,
                about,
                question,
                answer,
                gave: None,
                withheld: None,
            });
            *trace
        }
        Ok(other) => return Err(finding(gate::unexpected("a trace", other).to_string())),
        Err(RefusedGeneration::Findings(findings)) => return Err(findings),
        Err(error) => return Err(finding(error.to_string())),
    };
    explanation.steps.extend(steps_of(&trace, name.as_ref()));
    let ranking = &plans.routing.ranking(class).regions;
    if *ranking != trace.ranked {
        let gave = format!("{}, made of facts that were a moment older or newer", ids(ranking));
        explanation.steps.push(own("the table in force", gave));
    }
    let states = region.states();
    let order = routing::choose(&plans.routing, class, &states, &BTreeSet::new(), &region.regions, None);
    let chosen = order.first();
    explanation.steps.push(own(
        "health now",
        states.iter().map(|(id, state)| format!("{id} {}", state.name())).collect::<Vec<_>>().join(", "),
    ));
    for id in region.regions.by_id.keys() {
        let state = states.get(id).map_or("not heard of", |state| state.name());
        let rank = ranking.iter().position(|other| other == id);
        let why = match (rank, chosen) {
            (Some(rank), Some(first)) if first == id => format!("number {} of the ranking, and {state}", rank + 1),
            (Some(rank), Some(first)) if order.contains(id) => format!("number {}, behind {first}", rank + 1),
            (Some(rank), _) => format!("number {}, passed over because it is {state}", rank + 1),
            (None, _) if trace.candidates.contains(id) => "left out by rank-regions".to_owned(),
            (None, _) => "left out by region-candidates".to_owned(),
        };
        let (file, line) = match rank {
            Some(_) => (LATENCY.to_owned(), trace.ranked_line),
            None if trace.candidates.contains(id) => (LATENCY.to_owned(), trace.ranked_line),
            None => (MAPPING.to_owned(), trace.candidates_line),
        };
        let taken = chosen == Some(id);
        explanation.candidates.push(Candidate { region: id.clone(), taken, why, rule: None, file, line });
    }
    explanation.outcome = match chosen {
        Some(id) => format!("served in {id}"),
        None => "refused: no region serves".to_owned(),
    };
    Ok(explanation)
}

fn steps_of(trace: &RouteTrace, name: Option<&DnsName>) -> Vec<Step> {
    let step =
        |file: &str, line, asked: &str, gave| Step { file: file.to_owned(), line, asked: asked.to_owned(), gave };
    let mut steps = vec![
        step(MAPPING, trace.candidates_line, "region-candidates", ids(&trace.candidates)),
        step(LATENCY, trace.ranked_line, "rank-regions", ids(&trace.ranked)),
    ];
    if let (Some(shape), Some(name)) = (&trace.shape, name) {
        let shares: Vec<String> =
            shape.shares.iter().map(|share| format!("{} {}", share.region, share.weight)).collect();
        let shares = if shares.is_empty() { String::new() } else { format!(", shared {}", shares.join(" : ")) };
        let (count, most, least) = (shape.count, shape.ttl_max, shape.ttl_min);
        let gave = format!("{count} regions, for {most} s ({least} s while one is unwell){shares}");
        steps.push(step(DNS, trace.shape_line, &format!("dns-answer for {name}"), gave));
    }
    steps
}

fn own(asked: &str, gave: String) -> Step {
    Step { file: String::new(), line: 0, asked: asked.to_owned(), gave }
}

fn ids(regions: &[RegionId]) -> String {
    regions.iter().map(RegionId::as_str).collect::<Vec<_>>().join(" ")
}

/// The network that an address lies in, as far as it may be kept: /24, or /48 of IPv6.
pub fn prefix(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

fn residency(
    plan: &ResidencyPlan,
    tree: &PolicyTree,
    mut explanation: Explanation,
    (labels, origin): (&Labels, Option<&RegionId>),
) -> Explanation {
    let cases = ResidencyPlan::cases_of(labels);
    let classes = labels.classes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let countries = labels.jurisdictions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let law =
        if countries.is_empty() { "no stated jurisdiction".to_owned() } else { format!("jurisdiction {countries}") };
    explanation.about = format!("{classes} data, {law}, basis {}, purpose {}", labels.basis, labels.purpose);
    for case in &cases {
        let ruling = plan.cases().get(case);
        let rules: BTreeSet<&RuleId> =
            ruling.iter().flat_map(|ruling| ruling.hold.values().map(Verdict::rule)).collect();
        let rule = rules.first().map_or_else(|| "no ruling".to_owned(), ToString::to_string);
        let (file, line) = place(tree, RESIDENCY, &rule);
        let allowed: Vec<RegionId> = ruling
            .iter()
            .flat_map(|ruling| &ruling.hold)
            .filter(|(_, verdict)| verdict.allows(explanation.at))
            .map(|(id, _)| id.clone())
            .collect();
        let gave = if allowed.is_empty() { format!("{rule}: nowhere") } else { format!("{rule}: {}", ids(&allowed)) };
        let asked = format!("residency of {} under {}, {}, {}", case.class, case.law, case.basis, case.purpose);
        explanation.steps.push(Step { file, line, asked, gave });
    }
    if cases.len() > 1 {
        explanation
            .steps
            .push(own("several labels", "the strictest wins: only where each of them allows it".to_owned()));
    }
    let mut homes = Vec::new();
    for id in plan.region_policies().keys() {
        let candidate = match plan.permit(labels, id, explanation.at) {
            Ok(permitted) => {
                let duties = permitted.obligations().iter().map(RuleId::as_str).collect::<Vec<_>>().join(", ");
                let why =
                    if duties.is_empty() { "may hold it".to_owned() } else { format!("may hold it, with {duties}") };
                homes.push(id.clone());
                let rule = permitted.rules().first().cloned();
                candidate(tree, id, true, (why, rule))
            }
            Err(barred) => candidate(tree, id, false, ("may not hold it".to_owned(), Some(barred.rule))),
        };
        explanation.candidates.push(candidate);
    }
    explanation.outcome = match origin {
        None if homes.is_empty() => "may be nowhere".to_owned(),
        None => format!("may be in {}", ids(&homes)),
        Some(origin) => match plan.permit(labels, origin, explanation.at) {
            Ok(permitted) => {
                let copies: Vec<RegionId> = permitted.regions().iter().cloned().collect();
                format!("{origin} takes it in; copies go to {}", ids(&copies))
            }
            Err(barred) => format!("{origin} refuses it (451), by rule {}; ask {}", barred.rule, ids(&homes)),
        },
    };
    explanation
}

fn candidate(tree: &PolicyTree, region: &RegionId, taken: bool, (why, rule): (String, Option<RuleId>)) -> Candidate {
    let (file, line) = match &rule {
        Some(rule) if rule.as_str() == "region-does-not-accept-class" => place(tree, POLICIES, region.as_str()),
        Some(rule) => place(tree, RESIDENCY, rule.as_str()),
        None => (String::new(), 0),
    };
    Candidate { region: region.clone(), taken, why, rule, file, line }
}

/// Where a name stands quoted: in the file where it is expected, else anywhere in the tree.
pub fn place(tree: &PolicyTree, expected: &str, name: &str) -> (String, u32) {
    let quoted = format!("'{name}");
    let stands = |text: &str| {
        text.lines().position(|line| {
            line.match_indices(&quoted).any(|(at, _)| {
                let after = line[at + quoted.len()..].chars().next();
                after.is_none_or(|c| c.is_whitespace() || c == ')' || c == ']')
            })
        })
    };
    let first = tree.0.get_key_value(expected).into_iter().chain(tree.0.iter());
    let found = first.filter_map(|(file, text)| Some((file.clone(), stands(text)? as u32 + 1))).next();
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_whole_address_is_shown() {
        assert_eq!(prefix("217.0.0.1".parse().unwrap()), "217.0.0.0/24");
        assert_eq!(prefix("::ffff:217.0.0.1".parse().unwrap()), "217.0.0.0/24");
        assert_eq!(prefix("2001:db8:1:2::7".parse().unwrap()), "2001:db8:1::/48");
    }

    #[test]
    fn a_rule_is_found_on_its_line_and_not_inside_a_longer_name() {
        let text = "(define x 'stays-home-always)\n(deny 'stays-home)\n";
        let tree = PolicyTree([("compliance/other.scm".to_owned(), text.to_owned())].into());
        assert_eq!(place(&tree, RESIDENCY, "stays-home"), ("compliance/other.scm".to_owned(), 2));
        assert_eq!(place(&tree, RESIDENCY, "nothing"), (String::new(), 0));
    }
}
