//! Asks recorded questions again, under the files that were recorded or under others.
//!
//! A child is loaded for each pair of files and facts that answered at the time, and asked every question of theirs that
//! differs from the others. Under the recorded files the answers have to be equal byte for byte; under others, what
//! would have come out otherwise is told. Nothing that runs is touched.

mod compare;
pub mod queries;

use std::collections::BTreeMap;

use model::Finding;
use model::bundle::PolicyTree;
use model::question::{Answer, Declarations, Question};
use model::routing::Facts;
use policy::{Generation, PolicyHost};
use serde::Serialize;

use super::disk::Log;
use super::{Digest, Entry, Kind, recordable, whole};

/// The most differences that are told one by one.
const MOST_TOLD: usize = 200;
/// Files that do not load, and questions to one tree without an answer, are tried up to this many: each may take all of
/// its time.
const MOST_FAILURES: usize = 10;

/// By which files questions are asked again.
pub enum Under {
    /// By those that answered.
    Recorded,
    /// By these.
    Files(PolicyTree),
    /// By those that answered, with this one in the place of one of them.
    OneFile(String, String),
}

impl Under {
    /// The files, where these were recorded.
    pub fn files(&self, recorded: &PolicyTree) -> PolicyTree {
        match self {
            Self::Recorded => recorded.clone(),
            Self::Files(tree) => tree.clone(),
            Self::OneFile(path, text) => {
                let mut tree = recorded.clone();
                tree.0.insert(path.clone(), text.clone());
                tree
            }
        }
    }
}

/// One thing that comes out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Changed {
    /// The kind of decision.
    pub kind: Kind,
    /// Whom or what it is about: client classes, a class of data and a law, a region, a namespace.
    pub what: String,
    /// What was decided.
    pub from: String,
    /// What would have been.
    pub to: String,
    /// In how many decisions.
    pub decisions: u64,
    /// One of them.
    pub example: u64,
}

/// What came of a replay.
#[derive(Debug, Default, Serialize)]
pub struct Replay {
    /// How many decisions the log has.
    pub decisions: u64,
    /// How many of them were asked again and came out the same.
    pub same: u64,
    /// How many came out otherwise.
    pub differ: u64,
    /// How many could not be asked again, by reason.
    pub not_asked: BTreeMap<String, u64>,
    /// What differs, the most frequent first.
    pub changed: Vec<Changed>,
    /// How many more differences there are.
    pub more: u64,
    /// What could not be read of the log; the first few.
    pub damage: Vec<String>,
    /// How many more places could not be read.
    pub more_damage: u64,
    /// Why the files could not be asked at all, if so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Finding>,
}

/// Asks everything in `log` again, as far as `wanted` says so.
pub async fn replay(host: &PolicyHost, log: &Log, under: &Under, wanted: impl Fn(&Entry) -> bool) -> Replay {
    let mut replay = Replay { damage: log.damage.clone(), more_damage: log.more_damage, ..Replay::default() };
    let mut failures = 0;
    let mut groups: BTreeMap<(&Digest, &Digest), Vec<&Entry>> = BTreeMap::new();
    for entry in log.entries.iter().filter(|entry| wanted(entry)) {
        replay.decisions += 1;
        match &entry.withheld {
            Some(why) => *replay.not_asked.entry(why.clone()).or_default() += 1,
            None => groups.entry((&entry.tree, &entry.loaded_with)).or_default().push(entry),
        }
    }
    let mut changed = BTreeMap::new();
    for ((tree, facts), entries) in groups {
        let recorded = (log.get::<PolicyTree>(Some(tree)), log.get::<Facts>(Some(facts)));
        let (Some(recorded), Some(facts)) = recorded else {
            replay.pass(&entries, "the files or facts of that time are not in the log, or another build wrote them");
            continue;
        };
        if failures >= MOST_FAILURES {
            replay.pass(&entries, "too many files of this log did not load");
            continue;
        }
        let files = under.files(&recorded);
        match host.load(files.clone(), facts).await {
            Ok(loaded) => again(&mut replay, &mut changed, (log, &files), entries, &loaded).await,
            Err(findings) => {
                failures += 1;
                replay.pass(&entries, "the files do not load");
                if replay.refused.is_empty() {
                    replay.refused = findings;
                }
            }
        }
    }
    let mut all: Vec<Changed> = changed.into_values().collect();
    all.sort_by(|one, other| other.decisions.cmp(&one.decisions).then_with(|| one.cmp(other)));
    replay.more = all.len().saturating_sub(MOST_TOLD) as u64;
    all.truncate(MOST_TOLD);
    replay.changed = all;
    replay
}

impl Replay {
    fn pass(&mut self, entries: &[&Entry], why: &str) {
        *self.not_asked.entry(why.to_owned()).or_default() += entries.len() as u64;
    }
}

/// Asks one child all questions that were put to its like.
async fn again(
    replay: &mut Replay,
    changed: &mut BTreeMap<(Kind, String, String, String), Changed>,
    (log, files): (&Log, &PolicyTree),
    entries: Vec<&Entry>,
    (child, declarations): &(Generation, Declarations),
) {
    let mut distinct: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        distinct.entry((entry.kind, &entry.question, &entry.facts, &entry.answer)).or_default().push(entry);
    }
    let mut failures = 0;
    for ((kind, question, facts, answer), entries) in distinct {
        if failures >= MOST_FAILURES {
            replay.pass(&entries, "too many questions to these files had no answer");
            continue;
        }
        let kept = (log.get::<Question>(question.as_ref()), log.get::<Answer>(answer.as_ref()));
        let facts = log.get::<Facts>(facts.as_ref());
        let (Some(question), Some(was)) = kept else {
            replay.pass(&entries, "question or answer are not in the log, or another build wrote them");
            continue;
        };
        if !recordable(&question) {
            replay.pass(&entries, "no region records a question of this kind");
            continue;
        }
        let question = whole(question, files, facts.clone().unwrap_or_default());
        let now = match &question {
            // It was answered when the files were loaded.
            Question::Load { .. } => Ok(Answer::Loaded(Box::new(super::declared(declarations)))),
            _ => child.ask(question.clone()).await.map_err(|error| error.to_string()),
        };
        failures += usize::from(now.is_err());
        let same = now.as_ref().is_ok_and(|now| model::codec::plain(now).ok() == model::codec::plain(&was).ok());
        if same {
            replay.same += entries.len() as u64;
            continue;
        }
        replay.differ += entries.len() as u64;
        let about = &entries[0].about;
        let differences = match &now {
            Ok(now) => compare::differences((about, &question, facts.as_ref()), &was, now),
            Err(error) => vec![(about.clone(), super::words::summary(&was), format!("no answer: {error}"))],
        };
        for (what, from, to) in differences {
            let example = entries[0].id;
            let fresh = Changed { kind, what: what.clone(), from: from.clone(), to: to.clone(), decisions: 0, example };
            let one = changed.entry((kind, what, from, to)).or_insert(fresh);
            one.decisions += entries.len() as u64;
        }
    }
}
