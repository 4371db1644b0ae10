//! What a region gives to one that lacks more than the log still has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::record::{Address, Sibling};
use crate::version::{CausalContext, Incarnation, PositionVector};

/// A write as it is given away, with the regions that may hold it by its origin's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The write; a marker where the receiver may not hold it, and has written to its key or held what it replaced. A
    /// marker of a write that the receiver may hold says that the sender does not have it: it may be lost.
    pub sibling: Sibling,
    /// The regions of its scope.
    pub permitted: BTreeSet<RegionId>,
}

/// The rows of a span of keys, as far as the receiver may hold them.
///
/// A key of the span that is not among `rows` has nothing that the receiver may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// How far the sender had taken over each log when the first part was read: how far the receiver is after the
    /// last one, as far as the sender can speak for a log.
    pub began: PositionVector,
    /// The same just before this part was read.
    pub vector: PositionVector,
    /// Logs of which the sender has refused entries: that it does not hold one of those says nothing.
    pub partial: BTreeSet<(RegionId, Incarnation)>,
    /// The key after which the span begins; from the first key on where there is none.
    pub after: Option<Address>,
    /// The last key of the span; to the last key of all where there is none, and then it is the last part.
    pub upto: Option<Address>,
    /// Keys in stored order, each with at least one write.
    pub rows: Vec<(Address, Vec<Given>)>,
}

/// What a region says of some keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// How far it had taken over each log before it read them.
    pub vector: PositionVector,
    /// Logs that it does not hold whole: that it does not hold one of those says nothing.
    pub partial: BTreeSet<(RegionId, Incarnation)>,
    /// The keys whose rows it can read, each with what the receiver may hold of that; nothing, where that is nothing.
    pub rows: Vec<(Address, Vec<Given>)>,
}

/// Writes that took a record away from regions which may not hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// What they replaced, and they.
    pub replaced: CausalContext,
    /// The regions that have to be told.
    pub regions: BTreeSet<RegionId>,
}
