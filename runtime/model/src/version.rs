//! What happened before what: dots, causal contexts, log positions.
//!
//! A *dot* names one write. A *causal context* names a set of writes, as the
//! highest counter seen from each actor (dotted version vectors, Preguiça et
//! al., 2010). A *log position* is something else: where in an origin's log an
//! entry stands. Moving or relabelling a record makes a new entry at a new
//! position and keeps the version.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::names::{NodeId, RegionId};

/// Which life of a node's log it is: greater at every opening of its store, whatever came before.
///
/// A store takes at least the unix time in seconds, so that one that has lost its memory does not
/// begin at an old number; that is a floor and not the time of anything. It holds until 2106.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u32);

/// Who may assign counters: a node of a region in one of its incarnations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    /// The region that the node belongs to.
    pub region: RegionId,
    /// The node within the region.
    pub node: NodeId,
    /// Which life of the node's log.
    pub incarnation: Incarnation,
}

/// One write, named for ever. Counters begin at 1.
///
/// A write's counter is also the offset of its entry in its actor's log, so that a
/// region's [`PositionVector`] tells whether the entry has come by ([`PositionVector::has_passed`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote.
    pub actor: Actor,
    /// The how-manieth write of this actor.
    pub counter: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Actor { region, node, incarnation } = &self.actor;
        write!(f, "{region}.{}.{}.{}", node.0, incarnation.0, self.counter)
    }
}

/// A set of writes, closed downwards per actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CausalContext(BTreeMap<Actor, u64>);

impl CausalContext {
    /// The context that has seen nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether `dot` is among the writes seen.
    pub fn covers(&self, dot: &Dot) -> bool {
        self.0.get(&dot.actor).is_some_and(|&seen| seen >= dot.counter)
    }

    /// Adds `dot` and everything before it from the same actor.
    pub fn observe(&mut self, dot: &Dot) {
        let seen = self.0.entry(dot.actor.clone()).or_insert(0);
        *seen = (*seen).max(dot.counter);
    }

    /// Adds every write of `other`.
    pub fn join(&mut self, other: &CausalContext) {
        for (actor, &counter) in &other.0 {
            let seen = self.0.entry(actor.clone()).or_insert(0);
            *seen = (*seen).max(counter);
        }
    }

    /// The writes that are in both.
    #[must_use]
    pub fn meet(&self, other: &CausalContext) -> CausalContext {
        let both = self.0.iter().filter_map(|(actor, &seen)| Some((actor.clone(), seen.min(*other.0.get(actor)?))));
        Self(both.collect())
    }

    /// Whether every write of `other` is in this context too.
    pub fn includes(&self, other: &CausalContext) -> bool {
        other.0.iter().all(|(actor, counter)| self.0.get(actor).is_some_and(|seen| seen >= counter))
    }

    /// The highest counter of each actor, in order of actors.
    pub fn iter(&self) -> impl Iterator<Item = (&Actor, u64)> {
        self.0.iter().map(|(actor, &counter)| (actor, counter))
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A write's place in causality and in time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The name of the write.
    pub dot: Dot,
    /// Its stamp; greater than the stamp of everything in `context`, and no smaller where the write is the delete of a record
    /// whose time was over.
    pub hlc: Hlc,
    /// What the writer had seen of this key, its own dot not included.
    pub context: CausalContext,
}

impl Version {
    /// Whether this write knew of `other`, and so replaces it.
    pub fn supersedes(&self, other: &Version) -> bool {
        self.context.covers(&other.dot)
    }

    /// The order of last-write-wins: stamp, then dot, so that no two differ only in arrival.
    pub fn lww_order(&self) -> (Hlc, &Dot) {
        (self.hlc, &self.dot)
    }
}

/// Where an entry stands in its origin's log. Offsets begin at 1 and have no gaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// The region whose log it is.
    pub origin: RegionId,
    /// Which life of that log.
    pub incarnation: Incarnation,
    /// The place within it.
    pub offset: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.origin, self.incarnation.0, self.offset)
    }
}

/// How far each log has been taken over without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PositionVector(BTreeMap<(RegionId, Incarnation), u64>);

impl PositionVector {
    /// The vector that has taken over nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The last offset taken over from this log; 0 before the first.
    pub fn offset(&self, origin: &RegionId, incarnation: Incarnation) -> u64 {
        self.0.get(&(origin.clone(), incarnation)).copied().unwrap_or(0)
    }

    /// Whether `position` has been taken over.
    pub fn covers(&self, position: &LogPosition) -> bool {
        self.offset(&position.origin, position.incarnation) >= position.offset
    }

    /// Whether `position` is the next one to take over.
    pub fn is_next(&self, position: &LogPosition) -> bool {
        self.offset(&position.origin, position.incarnation) + 1 == position.offset
    }

    /// Records that everything up to `position` has been taken over. Never goes back.
    pub fn advance(&mut self, position: &LogPosition) {
        let at = self.0.entry((position.origin.clone(), position.incarnation)).or_insert(0);
        *at = (*at).max(position.offset);
    }

    /// Notes that there is this log, of which nothing has been taken over yet.
    pub fn begin(&mut self, origin: &RegionId, incarnation: Incarnation) {
        self.0.entry((origin.clone(), incarnation)).or_insert(0);
    }

    /// The newest incarnation of a region's log that is known.
    pub fn newest(&self, origin: &RegionId) -> Option<Incarnation> {
        self.0.keys().filter(|(region, _)| region == origin).map(|(_, incarnation)| *incarnation).max()
    }

    /// Goes back to `offset` at one log, if it is further.
    pub fn limit(&mut self, origin: &RegionId, incarnation: Incarnation, offset: u64) {
        if let Some(at) = self.0.get_mut(&(origin.clone(), incarnation)) {
            *at = (*at).min(offset);
        }
    }

    /// Takes the further of both at every log.
    pub fn join(&mut self, other: &PositionVector) {
        for (log, &offset) in &other.0 {
            let at = self.0.entry(log.clone()).or_insert(0);
            *at = (*at).max(offset);
        }
    }

    /// The nearer of both at every log that both know.
    #[must_use]
    pub fn meet(&self, other: &PositionVector) -> PositionVector {
        let both = self.0.iter().filter_map(|(log, &offset)| Some((log.clone(), offset.min(*other.0.get(log)?))));
        Self(both.collect())
    }

    /// The logs at which this vector is further than `other`, as far as it is there.
    #[must_use]
    pub fn beyond(&self, other: &PositionVector) -> PositionVector {
        let ahead = self.0.iter().filter(|(log, offset)| other.0.get(*log).copied().unwrap_or(0) < **offset);
        Self(ahead.map(|(log, &offset)| (log.clone(), offset)).collect())
    }

    /// Whether no log is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the entry of this write has come by.
    pub fn covers_dot(&self, dot: &Dot) -> bool {
        self.offset(&dot.actor.region, dot.actor.incarnation) >= dot.counter
    }

    /// Whether this vector is as far as `other` at every log.
    pub fn includes(&self, other: &PositionVector) -> bool {
        other.0.iter().all(|(log, &offset)| self.0.get(log).copied().unwrap_or(0) >= offset)
    }

    /// Whether the entries of all writes in `context` have come by.
    pub fn has_passed(&self, context: &CausalContext) -> bool {
        context.iter().all(|(actor, counter)| self.offset(&actor.region, actor.incarnation) >= counter)
    }

    /// Every log and the last offset taken over from it.
    pub fn iter(&self) -> impl Iterator<Item = (&RegionId, Incarnation, u64)> {
        self.0.iter().map(|((origin, incarnation), &offset)| (origin, *incarnation, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(region: &str, counter: u64) -> Dot {
        let region = RegionId::new(region).unwrap();
        Dot { actor: Actor { region, node: NodeId(0), incarnation: Incarnation(1) }, counter }
    }

    #[test]
    fn a_write_that_saw_another_supersedes_it_and_a_blind_one_does_not() {
        let first = Version { dot: dot("us-east", 1), hlc: Hlc::ZERO.next(), context: CausalContext::new() };
        let mut context = CausalContext::new();
        context.observe(&first.dot);
        let second = Version { dot: dot("eu-west", 1), hlc: Hlc::ZERO.next().next(), context };
        let blind = Version { dot: dot("ap-southeast", 1), hlc: Hlc::ZERO, context: CausalContext::new() };
        assert!(second.supersedes(&first));
        assert!(!first.supersedes(&second));
        assert!(!blind.supersedes(&second) && !second.supersedes(&blind));
    }

    #[test]
    fn a_position_vector_never_goes_back() {
        let origin = RegionId::new("us-east").unwrap();
        let at = |offset| LogPosition { origin: origin.clone(), incarnation: Incarnation(1), offset };
        let mut vector = PositionVector::new();
        vector.advance(&at(5));
        vector.advance(&at(3));
        assert!(vector.covers(&at(5)) && vector.is_next(&at(6)) && !vector.covers(&at(6)));
    }
}
