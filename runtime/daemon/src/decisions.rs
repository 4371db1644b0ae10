//! The log of what policies decided: what was asked and why, what came of it, and all that it takes to ask again.
//!
//! ```text
//!   an answer takes effect ──note, bounded──▶ a thread of its own ──▶ STATE/REGION/decisions/*.log
//!                                                 │ the last ones, in memory ──▶ explain decision, (decisions 10)
//! ```
//!
//! Facts, questions, answers and policy files are kept once, by hash, in each file of the log; so every file can be
//! read by itself. What is about a person is reduced to the class of its data and the prefix of an address before it
//! gets here; of a conflict between personal records neither key nor value is kept, and it cannot be asked again.
//!
//! A policy answers by its files, the facts that it was loaded with and the question. [`replay`] asks again, under the
//! same files or others. Begin with [`Entry`] for what is kept, [`disk`] for how, [`recorder`] for who writes it.

pub mod disk;
pub mod recorder;
pub mod replay;
mod told;
pub mod words;

pub use told::Told;

use std::fmt;

use model::bundle::PolicyTree;
use model::question::{Declarations, Question};
use model::record::{Content, DataClass, Sibling};
use model::routing::Facts;
use model::{RegionId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Names bytes of the log: half of a BLAKE3 hash in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex()[..32].to_owned())
    }
}

impl fmt::Display for Digest {
    /// As facts are named elsewhere: the first twelve digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.get(..12).unwrap_or(&self.0))
    }
}

/// What kind of decision it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What a generation declares: strategies, lag actions, cache rules.
    Declarations,
    /// Where records may be, for the whole space of cases.
    Residency,
    /// The routing table.
    Route,
    /// Whether a region is unwell.
    Health,
    /// What follows from the regions that serve.
    Failover,
    /// How concurrent writes are settled.
    Conflict,
    /// What policies said when an operator asked why.
    Explanation,
}

impl Kind {
    /// The name in output and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Declarations => "declarations",
            Self::Residency => "residency",
            Self::Route => "route",
            Self::Health => "health",
            Self::Failover => "failover",
            Self::Conflict => "conflict",
            Self::Explanation => "explanation",
        }
    }

    /// The policy file that is asked, and the function in it; empty where it is more than one.
    pub const fn asks(self) -> (&'static str, &'static str) {
        match self {
            Self::Declarations => ("", ""),
            Self::Residency => ("compliance/data-residency.scm", "residency"),
            Self::Route => ("traffic-routing/latency-routing.scm", "rank-regions"),
            Self::Health => ("traffic-routing/failover.scm", "region-verdict"),
            Self::Failover => ("traffic-routing/failover.scm", "failover-plan"),
            Self::Conflict => ("data-replication/conflict-resolution.scm", "define-conflict-resolver"),
            Self::Explanation => ("traffic-routing/latency-routing.scm", "rank-regions"),
        }
    }
}

/// One decision. What it refers to by [`Digest`] stands in the same file of the log, ahead of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts the decisions of the region, from 1, over restarts.
    pub id: u64,
    /// When the answer came, by the region's clock.
    pub at: UnixMillis,
    /// The region.
    pub region: RegionId,
    /// The generation that answered.
    pub generation: u64,
    /// Its files.
    pub tree: Digest,
    /// The facts that it was loaded with.
    pub loaded_with: Digest,
    /// What kind of decision.
    pub kind: Kind,
    /// Why it was asked.
    pub why: String,
    /// What was asked, in words, with nothing in them that names a person.
    pub about: String,
    /// What came of it, in words.
    pub gave: String,
    /// The facts of the question, where it has its own.
    pub facts: Option<Digest>,
    /// The question, without its facts.
    pub question: Option<Digest>,
    /// The answer.
    pub answer: Option<Digest>,
    /// Why question and answer are not kept, where they are not.
    pub withheld: Option<String>,
    /// How many decisions of this kind just before it were not written down, because they came too fast.
    pub skipped: u64,
}

/// A piece of the log.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Piece {
    /// Bytes by their name.
    Bytes(Digest, Vec<u8>),
    /// A decision.
    Entry(Box<Entry>),
}

impl model::codec::Format for Piece {
    const KIND: u8 = 0x50;
    const VERSION: u8 = 1;
    const NAME: &'static str = "piece of the decision log";
}

/// What files declare, without what their examination found, which not every load of them goes through.
pub fn declared(declarations: &Declarations) -> Declarations {
    Declarations { tests_passed: 0, tests: Vec::new(), warnings: Vec::new(), ..declarations.clone() }
}

/// Whether a region records such questions: a log that came from elsewhere may hold any.
pub fn recordable(question: &Question) -> bool {
    matches!(
        question,
        Question::Load { .. }
            | Question::Residency { .. }
            | Question::Route { .. }
            | Question::Health { .. }
            | Question::Failover { .. }
            | Question::Resolve { .. }
            | Question::Trace { .. }
    )
}

/// Takes the facts and the files out of a question: they are kept by themselves.
pub fn bare(question: Question) -> (Question, Option<Facts>) {
    match question {
        Question::Load { facts, examine, .. } => {
            (Question::Load { tree: PolicyTree::default(), facts: Facts::default(), examine }, Some(facts))
        }
        Question::Route { facts } => (Question::Route { facts: Facts::default() }, Some(facts)),
        Question::Trace { client, name, facts } => {
            (Question::Trace { client, name, facts: Facts::default() }, Some(facts))
        }
        other => (other, None),
    }
}

/// Puts facts and files back; the opposite of [`bare`].
pub fn whole(question: Question, files: &PolicyTree, facts: Facts) -> Question {
    match question {
        Question::Load { examine, .. } => Question::Load { tree: files.clone(), facts, examine },
        Question::Route { .. } => Question::Route { facts },
        Question::Trace { client, name, .. } => Question::Trace { client, name, facts },
        other => other,
    }
}

/// Why the writes of a conflict may not stand in a log, if so. Only what is public or operational may: anything else is
/// about somebody, or is encrypted where it is stored.
pub fn barred(siblings: &[Sibling]) -> Option<String> {
    let mut classes = siblings.iter().map(|sibling| match &sibling.content {
        Content::Live(record) => Some(&record.labels),
        Content::Tombstone { labels } => Some(labels),
        Content::Evicted { .. } => None,
    });
    let open = classes.all(|labels| {
        labels.is_some_and(|labels| {
            labels.subject.is_none()
                && labels.classes.iter().all(|class| matches!(class, DataClass::Public | DataClass::Operational))
        })
    });
    (!open).then(|| "its records are not public, so neither key nor values are kept".to_owned())
}

/// Milliseconds since 1970, by this machine.
pub fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
