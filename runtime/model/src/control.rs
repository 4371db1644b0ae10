//! What regions tell each other and operators about the log that they agree on.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;

/// Names a voter of the common log. A region whose disk was lost comes back under another number: what the lost one
/// promised must not be promised again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ControlNode(pub u64);

impl fmt::Display for ControlNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The fence: which term of the common log, and whose. Two leaders may have the same term, never the same fence, and
/// of two fences the greater one is the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    /// The term.
    pub term: u64,
    /// Its leader.
    pub node: ControlNode,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} of {}", self.term, self.node)
    }
}

/// What a region tells of itself with the answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReport {
    /// Under which number it votes.
    pub node: ControlNode,
    /// Whether its log is empty: nobody made it a member yet.
    pub fresh: bool,
    /// Whether it could be the primary: it has the key to sign generations with.
    pub may_lead: bool,
}

/// What a region says about the common log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Under which number it votes.
    pub node: ControlNode,
    /// What it is at this moment.
    pub role: ControlRole,
    /// The newest term that it knows of.
    pub term: u64,
    /// The regions that vote.
    pub voters: BTreeSet<RegionId>,
    /// The regions that take part without a vote yet.
    pub learners: BTreeSet<RegionId>,
    /// What works and what does not, where that is not everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// Whether policies are in force here that this region tightened by itself, for want of a quorum.
    #[serde(default)]
    pub tightened_alone: bool,
}

/// What a region is in the common log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlRole {
    /// Not a member yet.
    Outside,
    /// Takes the log over without a vote.
    Learner,
    /// Votes, and follows the primary.
    Follower,
    /// Asks for votes.
    Candidate,
    /// It leads, and may answer for the primary at this moment.
    Primary,
    /// It leads as far as it knows, and may not answer: its lease has run out, or it has not heard a quorum yet.
    LeaderWithoutLease,
    /// Its log cannot be written or read any more.
    Failed,
}
