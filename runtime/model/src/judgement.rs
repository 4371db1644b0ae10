//! What regions saw of each other, what a policy made of it, and what came of that.
//!
//! A policy's verdict is a wish. Whether it is carried out is decided by bounds that
//! no policy can lift ([`Bound`]); each [`Decision`] says which one held it back.

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::routing::{Observation, RegionState};
use crate::units::{Millis, UnixMillis};

/// What `failover-plan` answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverPlan {
    /// Regions that should serve nobody new.
    pub drain: Vec<RegionId>,
    /// How much of the traffic should be moved at a time, in per cent, 1 to 100.
    pub shift: u8,
    /// The region that should become primary: it asks for votes before the others do. The regions' log decides.
    pub promote: Option<RegionId>,
}

/// What one observer saw of the region that is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who saw it.
    pub observer: RegionId,
    /// What it saw.
    pub seen: Observation,
    /// How old that is.
    pub age: Millis,
    /// Why it does not count, if so.
    pub lost: Option<VoteLost>,
}

/// Why what an observer saw does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VoteLost {
    /// The observer has not been heard for too long.
    Unheard,
    /// The observer loses probes to most regions: its own link is the likelier cause.
    SelfDoubt,
}

impl VoteLost {
    /// Why, in words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unheard => "not heard for too long",
            Self::SelfDoubt => "loses probes to most regions itself",
        }
    }
}

/// What the policy said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// `region-verdict`: `'steady`.
    Steady,
    /// `region-verdict`: `'unwell`.
    Unwell,
    /// `failover-plan` drains the region.
    Drain,
    /// `failover-plan` drains it no more.
    NoDrain,
    /// Nothing of use, and why.
    Nothing(String),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It stays among those that serve.
    StaysIn,
    /// It is taken out.
    Out,
    /// It stays out.
    StaysOut,
    /// It serves again.
    Back,
    /// It serves again because this bound wants it.
    Released(Bound),
    /// This bound kept the wish from being carried out.
    Held(Bound),
    /// The native rule has it out already.
    OutNatively,
}

/// What no policy can lift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The last region that serves is never taken out.
    LastServing,
    /// At most one region is out by judgement.
    OneAtATime,
    /// At most one judged change per so many seconds.
    Pace,
    /// Most regions seem unwell: the detector is distrusted.
    Panic,
    /// Too few observers had a vote that counts.
    TooFewVotes,
    /// A region must be steady for a while, and answer by the native rule, before it serves again.
    Recovery,
    /// No verdict came for so long that the last one is forgotten: the native rule alone decides.
    Stale,
}

impl Bound {
    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LastServing => "last-serving",
            Self::OneAtATime => "one-at-a-time",
            Self::Pace => "pace",
            Self::Panic => "panic",
            Self::TooFewVotes => "too-few-votes",
            Self::Recovery => "recovery",
            Self::Stale => "stale",
        }
    }
}

/// One decision about one region, with everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was taken first.
    pub at: UnixMillis,
    /// When it was taken last: the same decision in a row is one entry.
    pub until: UnixMillis,
    /// How often it was taken in a row.
    pub times: u64,
    /// The region judged.
    pub region: RegionId,
    /// Its state by the native rule.
    pub native: RegionState,
    /// The policy generation that was asked.
    pub generation: u64,
    /// Who saw what; the newest, where the decision was taken more than once. Empty for plans.
    pub votes: Vec<Vote>,
    /// What the policy said.
    pub said: Said,
    /// What came of it.
    pub outcome: Outcome,
}

impl Decision {
    /// Whether `other` decides the same about the same region in the same way.
    pub fn repeats(&self, other: &Self) -> bool {
        let counted =
            |decision: &Self| decision.votes.iter().map(|vote| (vote.observer.clone(), vote.lost)).collect::<Vec<_>>();
        self.region == other.region
            && self.generation == other.generation
            && self.said == other.said
            && self.outcome == other.outcome
            && counted(self) == counted(other)
    }
}
