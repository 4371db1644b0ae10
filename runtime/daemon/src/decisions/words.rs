//! Questions and answers in words, for a line of the log and for `explain decision`.

use std::collections::BTreeMap;

use model::RegionId;
use model::question::{Answer, CaseAnswer, Declarations, Question, Resolution, Rulings};
use model::record::Sibling;
use model::residency::{ResidencyCase, Verdict};
use model::routing::{ClientClass, Facts, Observation, Ranking, Routes};

/// The most lines that are given of one answer.
pub const MOST_LINES: usize = 60;
/// The most names in a line.
const MOST_NAMES: usize = 12;

/// A text without what a terminal would obey: a log may come from anywhere.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What came of a question, in a sentence.
pub fn summary(answer: &Answer) -> String {
    match answer {
        Answer::Loaded(declarations) => declared(declarations),
        Answer::Routes(routes) => routed(routes),
        Answer::Residency(Rulings { distinct, of_case }) => {
            format!("{} cases, {} rulings that differ", of_case.len(), distinct.len())
        }
        Answer::Unwell(unwell) => (if *unwell { "unwell" } else { "steady" }).to_owned(),
        Answer::Failover(plan) => {
            let promote = plan.promote.as_ref().map_or("nobody", RegionId::as_str);
            format!("drain ({}), shift {} %, promote {promote}", ids(&plan.drain), plan.shift)
        }
        Answer::Resolved(resolution) => settled(resolution),
        Answer::Trace(trace) => format!("candidates {}; ranked {}", ids(&trace.candidates), ids(&trace.ranked)),
        Answer::Refused(findings) => {
            format!("nothing of use: {}", findings.first().map(ToString::to_string).unwrap_or_default())
        }
        Answer::ResolvedMany(_)
        | Answer::Samples(_)
        | Answer::Proof(_)
        | Answer::Tested(_)
        | Answer::Value(_)
        | Answer::Verdicts(_) => "an answer of another kind".to_owned(),
    }
}

/// A conflict, with nothing in it that names a person.
pub fn conflict(namespace: &str, siblings: &[Sibling]) -> String {
    let classes = siblings.iter().filter_map(|sibling| match &sibling.content {
        model::record::Content::Live(record) => Some(&record.labels.classes),
        model::record::Content::Tombstone { labels } => Some(&labels.classes),
        model::record::Content::Evicted { .. } => None,
    });
    let classes: std::collections::BTreeSet<String> = classes.flatten().map(ToString::to_string).collect();
    let classes = classes.into_iter().collect::<Vec<_>>().join(" and ");
    format!("{} concurrent writes of a key in `{namespace}`, class {classes}", siblings.len())
}

/// Question and answer in full, a line each, at most [`MOST_LINES`].
pub fn account(question: &Question, facts: Option<&Facts>, answer: &Answer) -> Vec<String> {
    let mut lines = asked(question, facts);
    lines.extend(answered(question, facts, answer));
    let more = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    lines
}

fn asked(question: &Question, facts: Option<&Facts>) -> Vec<String> {
    let mut lines = Vec::new();
    let states = |facts: &Facts| {
        let all = facts.regions.iter().map(|region| format!("{} {}", region.id, region.state.name()));
        format!("told: {}", all.collect::<Vec<_>>().join(", "))
    };
    lines.extend(facts.map(states));
    match question {
        Question::Health { observations } => {
            lines.extend(observations.iter().map(|seen| format!("told: an observer lost {}", losses(*seen))));
        }
        Question::Failover { regions } => {
            lines.push(states(&Facts { regions: regions.clone(), clients: Vec::new() }));
        }
        Question::Resolve { resolver, siblings, .. } => {
            lines.push(format!("told: resolver `{resolver}`, {} writes in dot order", siblings.len()));
        }
        Question::Trace { client, name, .. } => {
            let name = name.as_ref().map_or_else(String::new, |name| format!(", asking for {name}"));
            lines.push(format!("told: a client in {}{name}", country(client.class)));
        }
        _ => {}
    }
    lines
}

fn losses(seen: Observation) -> String {
    format!("{} of {} probes, {} in a row", seen.losses, seen.probes, seen.losses_in_a_row)
}

fn answered(question: &Question, facts: Option<&Facts>, answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Routes(routes) => facts.map(|facts| rankings(facts, routes)).unwrap_or_default(),
        Answer::Residency(rulings) => match question {
            Question::Residency { cases } => ruled(cases, rulings),
            _ => Vec::new(),
        },
        Answer::Loaded(declarations) => {
            let mut lines = vec![format!("gave: {}", declared(declarations))];
            let bands = declarations.lag.0.iter().map(|(from, action)| format!("{} from {from}", action.name()));
            lines.push(format!("gave: lag actions {}", bands.collect::<Vec<_>>().join(", ")));
            lines.push(format!("gave: bounds of a change {}", declarations.bounds));
            lines
        }
        other => vec![format!("gave: {}", summary(other))],
    }
}

/// The rankings, a line each, with the countries that have it.
fn rankings(facts: &Facts, routes: &Routes) -> Vec<String> {
    let mut grouped: BTreeMap<&Ranking, Vec<String>> = BTreeMap::new();
    let nobody = ClientClass { country: None };
    let classes = std::iter::once(nobody).chain(facts.clients.iter().map(|client| client.class));
    for (class, ranking) in classes.zip(&routes.rankings) {
        grouped.entry(ranking).or_default().push(country(class));
    }
    let mut lines: Vec<(usize, String)> = grouped
        .into_iter()
        .map(|(ranking, clients)| {
            (clients.len(), format!("gave: {} for clients in {}", ids(&ranking.regions), some(&clients)))
        })
        .collect();
    lines.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    let shapes = routes.dns.shapes.iter().map(|(name, shapes)| {
        let shape = &shapes.default;
        format!("gave: {name}: {} regions, kept {} to {} s", shape.count, shape.ttl_min, shape.ttl_max)
    });
    lines.into_iter().map(|(_, line)| line).chain(shapes).collect()
}

/// The rulings, a line each, with a case that has it.
fn ruled(cases: &[ResidencyCase], Rulings { distinct, of_case }: &Rulings) -> Vec<String> {
    let mut grouped: BTreeMap<u32, (usize, Option<ResidencyCase>)> = BTreeMap::new();
    for (case, at) in cases.iter().zip(of_case) {
        let (count, first) = grouped.entry(*at).or_default();
        *count += 1;
        first.get_or_insert(*case);
    }
    let mut lines = Vec::new();
    for (at, (count, first)) in grouped {
        let (Some(ruling), Some(case)) = (distinct.get(at as usize), first) else { continue };
        let ResidencyCase { class, law, basis, purpose } = case;
        lines.push(format!("gave: {count} cases, such as {class}, law {law}, {basis}, {purpose}: {}", holds(ruling)));
    }
    lines
}

/// Which regions may hold a case, and by which rule.
pub fn holds(ruling: &CaseAnswer) -> String {
    let one = |(id, verdict): (&RegionId, &Verdict)| match verdict {
        Verdict::Allow { rule, .. } => format!("{id} yes ({rule})"),
        Verdict::Deny { rule } => format!("{id} no ({rule})"),
    };
    ruling.hold.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn declared(declarations: &Declarations) -> String {
    format!(
        "{} resolvers, {} cache rules, {} invariants",
        declarations.resolvers.len(),
        declarations.edge.rules.len(),
        declarations.invariants.len()
    )
}

fn routed(routes: &Routes) -> String {
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for ranking in &routes.rankings {
        *first.entry(ranking.regions.first().map_or_else(|| "nowhere".into(), ToString::to_string)).or_default() += 1;
    }
    let all: Vec<String> = first.into_iter().map(|(id, count)| format!("{id} first for {count}")).collect();
    format!("{} client classes: {}", routes.rankings.len(), all.join(", "))
}

/// A settlement in words.
pub fn settled(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Winner(at) => format!("write number {at} wins"),
        Resolution::Keep => "all are kept".to_owned(),
        Resolution::Merged(bytes) => format!("merged to {} bytes", bytes.len()),
    }
}

/// Region ids with spaces between them.
pub fn ids(regions: &[RegionId]) -> String {
    regions.iter().map(RegionId::as_str).collect::<Vec<_>>().join(" ")
}

/// The country of a class, in words.
pub fn country(class: ClientClass) -> String {
    class.country.map_or_else(|| "no known country".to_owned(), |country| country.to_string())
}

/// The first few of many names.
pub fn some(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(" ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
