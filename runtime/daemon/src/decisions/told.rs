//! A decision as an operator is shown it: with the question, the answer, and where it stands in the policy files.

use std::collections::BTreeSet;

use model::bundle::PolicyTree;
use model::codec;
use model::question::{Answer, Question};
use model::residency::Verdict;
use model::routing::Facts;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::disk::Log;
use super::{Digest, Entry, Kind, words};

/// A place in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The function or rule.
    pub name: String,
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where that is not known.
    pub line: u32,
}

/// A decision with all that is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The decision.
    #[serde(flatten)]
    pub entry: Entry,
    /// Who decided: the functions and rules, and where they stand.
    pub decided_by: Vec<Place>,
    /// Question and answer, a line each.
    pub account: Vec<String>,
}

impl Log {
    /// Reads what `name` refers to; nothing where that is not there, or cannot be read by this build.
    pub fn get<T: DeserializeOwned>(&self, name: Option<&Digest>) -> Option<T> {
        codec::from_plain(self.bytes.get(name?)?).ok()
    }
}

impl Told {
    /// An entry of this log, told.
    pub fn of(entry: Entry, log: &Log) -> Self {
        let tree: PolicyTree = log.get(Some(&entry.tree)).unwrap_or_default();
        let question: Option<Question> = log.get(entry.question.as_ref());
        let (facts, answer): (Option<Facts>, Option<Answer>) =
            (log.get(entry.facts.as_ref()), log.get(entry.answer.as_ref()));
        let account = match (&question, &answer, &entry.withheld) {
            (Some(question), Some(answer), _) => words::account(question, facts.as_ref(), answer),
            (_, _, Some(why)) => vec![format!("question and answer are not kept: {why}")],
            _ => vec!["question and answer cannot be read: another build of the runtime wrote them".to_owned()],
        };
        Self { decided_by: places(&entry, &tree, question.as_ref(), answer.as_ref()), account, entry }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let Entry { id, at, region, generation, tree, kind, why, about, gave, facts, loaded_with, skipped, .. } =
            &self.entry;
        let mut lines = vec![format!("decision {id} of {region} ({}): {about}", kind.name()), format!("  {gave}")];
        lines.push(format!(
            "  at {}, generation {generation} ({tree}), facts {}",
            crate::explain::day_and_time(*at),
            facts.as_ref().unwrap_or(loaded_with)
        ));
        lines.push(format!("  asked because {why}"));
        if *skipped > 0 {
            lines.push(format!("  {skipped} decisions of this kind just before it came too fast to be written down"));
        }
        for Place { name, file, line } in &self.decided_by {
            lines.push(if *line > 0 { format!("  {file}:{line}  {name}") } else { format!("  {file}  {name}") });
        }
        lines.extend(self.account.iter().map(|line| format!("  {line}")));
        lines.iter().map(|line| words::printable(line) + "\n").collect()
    }
}

fn places(entry: &Entry, tree: &PolicyTree, question: Option<&Question>, answer: Option<&Answer>) -> Vec<Place> {
    let defines = |file: &str, name: &str| {
        let begins = [format!("(define ({name} "), format!("(define ({name})"), format!("(define {name} ")];
        let text = tree.0.get(file).map_or("", String::as_str);
        let line = text.lines().position(|line| begins.iter().any(|begin| line.starts_with(begin.as_str())));
        Place { name: name.to_owned(), file: file.to_owned(), line: line.map_or(0, |at| at as u32 + 1) }
    };
    match (entry.kind, question, answer) {
        (Kind::Route | Kind::Explanation, ..) => vec![
            defines("region-config/region-mapping.scm", "region-candidates"),
            defines("traffic-routing/latency-routing.scm", "rank-regions"),
            defines("traffic-routing/geo-dns.scm", "dns-answer"),
        ],
        (Kind::Residency, _, Some(Answer::Residency(rulings))) => {
            let verdicts =
                rulings.distinct.iter().flat_map(|ruling| ruling.hold.values().chain(ruling.transfer.values()));
            let rules: BTreeSet<&str> = verdicts.map(Verdict::rule).map(|rule| rule.as_str()).collect();
            let place = |rule: &str| {
                let (file, line) = crate::start::explaining::place(tree, "compliance/data-residency.scm", rule);
                Place { name: rule.to_owned(), file, line }
            };
            rules.into_iter().map(place).filter(|place| place.line > 0).collect()
        }
        (Kind::Conflict, Some(Question::Resolve { resolver, .. }), _) => {
            let file = "data-replication/conflict-resolution.scm";
            let text = tree.0.get(file).map_or("", String::as_str);
            let line = text.lines().position(|line| line.contains(&format!("(define-conflict-resolver '{resolver}")));
            let line = line.map_or(0, |at| at as u32 + 1);
            vec![Place { name: resolver.clone(), file: file.to_owned(), line }]
        }
        (Kind::Health | Kind::Failover, ..) => {
            let (file, function) = entry.kind.asks();
            vec![defines(file, function)]
        }
        _ => Vec::new(),
    }
}
