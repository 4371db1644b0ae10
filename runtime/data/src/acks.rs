//! Who has durably taken over what, and how far behind the peers are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use model::replication::{LagAction, LagBands};
use model::status::LinkStatus;
use model::version::{LogPosition, PositionVector};
use model::{Millis, RegionId, UnixMillis};
use tokio::sync::watch;

/// Own entries remembered for the measurement of lag; older ones count as old as the oldest remembered.
const REMEMBERED: usize = 100_000;

struct Sent {
    position: LogPosition,
    committed_at: UnixMillis,
}

#[derive(Default)]
struct State {
    /// The durable vector of each peer, as it last said.
    peers: BTreeMap<RegionId, PositionVector>,
    /// Own entries that not every peer has taken over, oldest first.
    waiting: VecDeque<Sent>,
}

/// Bookkeeping of acknowledgements.
pub(crate) struct Acks {
    peers: BTreeSet<RegionId>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Acks {
    pub(crate) fn new(peers: BTreeSet<RegionId>) -> Self {
        let state = State {
            peers: peers.iter().map(|peer| (peer.clone(), PositionVector::new())).collect(),
            ..State::default()
        };
        Self { peers, state: Mutex::new(state), changed: watch::Sender::new(0) }
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
        {
            let mut state = self.state();
            let Some(known) = state.peers.get_mut(peer) else { return };
            known.join(vector);
            let State { peers, waiting } = &mut *state;
            while waiting.front().is_some_and(|sent| peers.values().all(|vector| vector.covers(&sent.position))) {
                waiting.pop_front();
            }
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether a peer has durably taken over `position`.
    pub(crate) fn copies(&self, position: &LogPosition, among: &BTreeSet<RegionId>) -> usize {
        let state = self.state();
        1 + state.peers.iter().filter(|(peer, vector)| among.contains(*peer) && vector.covers(position)).count()
    }

    /// Wakes whenever a peer acknowledges.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Lag and backlog towards each peer.
    pub(crate) fn links(&self, now: UnixMillis) -> Vec<LinkStatus> {
        let state = self.state();
        let link = |peer: &RegionId| {
            let vector = &state.peers[peer];
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
