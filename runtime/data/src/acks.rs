//! Who has durably taken over what, and how far behind the peers are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use model::replication::{LagAction, LagBands};
use model::status::LinkStatus;
use model::version::{Incarnation, LogPosition, PositionVector};
use model::{Millis, RegionId, UnixMillis};
use tokio::sync::watch;

use crate::types::Received;

/// Own entries remembered for the measurement of lag; older ones count as old as the oldest remembered.
const REMEMBERED: usize = 100_000;

struct Sent {
    position: LogPosition,
    committed_at: UnixMillis,
}

/// Refusals remembered of each peer, for the writes that wait; it is sure of no copy before the oldest.
const REFUSALS: usize = 4096;

/// What is known of a peer. Offsets are those of this region's log in its present incarnation.
#[derive(Default)]
struct Peer {
    /// Its durable vector, as it last said. A position in it was taken over or refused.
    reached: PositionVector,
    /// Up to here its answers said what was refused.
    answered: u64,
    /// What was refused.
    refused: BTreeSet<u64>,
    /// Up to here refusals have been forgotten.
    forgotten: u64,
}

impl Peer {
    fn holds(&self, offset: u64) -> bool {
        self.forgotten < offset && offset <= self.answered && !self.refused.contains(&offset)
    }
}

#[derive(Default)]
struct State {
    peers: BTreeMap<RegionId, Peer>,
    /// Own entries that not every peer has taken over, oldest first.
    waiting: VecDeque<Sent>,
}

/// The copies of one entry, this region's included.
pub(crate) struct Copies {
    /// How many there are for sure.
    pub(crate) made: usize,
    /// How many there can be.
    pub(crate) possible: usize,
    /// The regions that refused theirs.
    pub(crate) refused_by: BTreeSet<RegionId>,
}

/// Bookkeeping of acknowledgements.
pub(crate) struct Acks {
    me: RegionId,
    incarnation: Incarnation,
    peers: BTreeSet<RegionId>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Acks {
    pub(crate) fn new(me: RegionId, incarnation: Incarnation, peers: BTreeSet<RegionId>) -> Self {
        let state =
            State { peers: peers.iter().map(|peer| (peer.clone(), Peer::default())).collect(), ..State::default() };
        Self { me, incarnation, peers, state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// An own entry is durable here.
    pub(crate) fn committed(&self, position: LogPosition, committed_at: UnixMillis) {
        let mut state = self.state();
        if state.waiting.len() < REMEMBERED {
            state.waiting.push_back(Sent { position, committed_at });
        }
    }

    /// A peer has said how far it is.
    pub(crate) fn acked(&self, peer: &RegionId, vector: &PositionVector) {
        self.update(peer, |known| known.reached.join(vector));
    }

    /// A connection to a peer begins; gives where to ship from.
    pub(crate) fn resume(&self, peer: &RegionId, vector: &PositionVector) -> PositionVector {
        let mut from = vector.clone();
        self.update(peer, |known| {
            // A peer that lost its disk is behind what it once had.
            known.reached = vector.clone();
            known.answered = known.answered.min(vector.offset(&self.me, self.incarnation));
            from.limit(&self.me, self.incarnation, known.answered);
        });
        from
    }

    /// A peer has answered a batch.
    pub(crate) fn shipped(&self, peer: &RegionId, upto: &PositionVector, answer: &Received) {
        let own = |vector: &PositionVector| vector.offset(&self.me, self.incarnation);
        self.update(peer, |known| {
            known.reached.join(&answer.vector);
            // What reached the peer over other regions was answered to them.
            known.answered = known.answered.max(own(&answer.vector).min(own(upto)));
            let ours = |position: &&LogPosition| position.origin == self.me && position.incarnation == self.incarnation;
            known.refused.extend(answer.refused.iter().filter(ours).map(|position| position.offset));
            while known.refused.len() > REFUSALS {
                known.forgotten = known.refused.pop_first().unwrap_or(known.forgotten);
            }
        });
    }

    fn update(&self, peer: &RegionId, change: impl FnOnce(&mut Peer)) {
        {
            let mut state = self.state();
            let Some(known) = state.peers.get_mut(peer) else { return };
            change(known);
            let State { peers, waiting } = &mut *state;
            while waiting.front().is_some_and(|sent| peers.values().all(|peer| peer.reached.covers(&sent.position))) {
                waiting.pop_front();
            }
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// What is known of the copies of an own entry that was written since this start.
    pub(crate) fn copies(&self, position: &LogPosition, among: &BTreeSet<RegionId>) -> Copies {
        let state = self.state();
        let peers = || state.peers.iter().filter(|(peer, _)| among.contains(*peer));
        let refused_by: BTreeSet<RegionId> = peers()
            .filter(|(_, known)| known.refused.contains(&position.offset))
            .map(|(peer, _)| peer.clone())
            .collect();
        let made = 1 + peers().filter(|(_, known)| known.holds(position.offset)).count();
        Copies { made, possible: 1 + peers().count() - refused_by.len(), refused_by }
    }

    /// Wakes whenever a peer acknowledges.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Lag and backlog towards each peer.
    pub(crate) fn links(&self, now: UnixMillis) -> Vec<LinkStatus> {
        let state = self.state();
        let link = |peer: &RegionId| {
            let vector = &state.peers[peer].reached;
            let mut behind = state.waiting.iter().filter(|sent| !vector.covers(&sent.position));
            let oldest = behind.next();
            LinkStatus {
                peer: peer.clone(),
                lag_ms: oldest.map_or(0, |sent| (now - sent.committed_at).0),
                backlog: oldest.map_or(0, |_| 1 + behind.count() as u64),
            }
        };
        self.peers.iter().map(link).collect()
    }

    /// What the nearest peer's lag asks for. One peer that keeps up is enough to go on:
    /// a region that is down must not stop the writes of the others.
    pub(crate) fn action(&self, bands: &LagBands, now: UnixMillis) -> LagAction {
        self.links(now).iter().map(|link| bands.at(Millis(link.lag_ms))).min().unwrap_or(LagAction::Ok)
    }
}
