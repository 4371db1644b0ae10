//! Who has durably taken over what, and how far behind the peers are.
//!
//! A peer's backlog is the distance between the ends of this region's logs and
//! the peer's vector; its lag is the age of the first entry in between, looked
//! up in the log when it is first asked for. Both are 0 when nothing is owed.
//! The vectors are kept as facts, written with the next commit, so that a
//! restart does not forget who lacks what. A vector that is kept may be older
//! than the truth: then the backlog reads too high until the peer is heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use model::codec;
use model::replication::{LagAction, LagBands};
use model::status::LinkStatus;
use model::version::{Incarnation, LogPosition, PositionVector};
use model::{Millis, RegionId, UnixMillis};
use store::{Store, StoreError};
use tokio::sync::watch;

use crate::graves::Burials;
use crate::types::Received;

/// Before the names of the facts that keep the peers' vectors.
const FACT: &str = "peer/";
/// Before the names of the facts that say which peers are owed rows, not entries alone.
const OWED: &str = "owed/";

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
    /// Nothing is owed of lives before this one: spares the look at each.
    owed_from: Incarnation,
    /// The oldest entry owed, and when it was committed.
    oldest: Option<(LogPosition, UnixMillis)>,
    /// Whether `reached` has changed since it was last handed out to be kept.
    changed: bool,
    /// What was handed out last: what the disk says of `reached` once the commit under way is made.
    kept: PositionVector,
    /// Whether it has ever said how far it is.
    met: bool,
    /// It went back behind what others rest on, or has never been met: rows first.
    owed_rows: bool,
    /// How far it is by the rows that it was given in its present life.
    given: Option<PositionVector>,
    /// How far it is with its tombstones, as it last said.
    burials: Burials,
}

/// What a vector says of the life in which its region is.
enum Life {
    /// The one that is known, or none was stated.
    Same,
    /// Another process with that disk, or with another one.
    New,
    /// One that has ended.
    Ended,
}

impl Peer {
    fn life(&self, peer: &RegionId, vector: &PositionVector) -> Life {
        match (self.reached.newest(peer), vector.newest(peer)) {
            (Some(known), Some(said)) if said < known => Life::Ended,
            (Some(known), Some(said)) if said == known => Life::Same,
            (_, Some(_)) => Life::New,
            (_, None) => Life::Same,
        }
    }

    /// The peer is in another life: what it says replaces what was known.
    fn begins(&mut self, vector: &PositionVector, ours: &PositionVector) {
        self.owed_rows |= !vector.includes(if self.met { &self.reached } else { ours });
        self.met = true;
        self.given = None;
        self.burials = Burials::default();
        self.reached = vector.clone();
        self.changed = true;
    }

    fn holds(&self, offset: u64) -> bool {
        self.forgotten < offset && offset <= self.answered && !self.refused.contains(&offset)
    }
}

#[derive(Default)]
struct State {
    peers: BTreeMap<RegionId, Peer>,
    /// The end of this region's log in each of its lives.
    own: BTreeMap<Incarnation, u64>,
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
    store: Store,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// What every region has taken over, as far as the disk here says so.
    stable: Mutex<Arc<PositionVector>>,
}

impl Acks {
    /// Begins with what the store has kept of `peers`.
    pub(crate) fn open(me: RegionId, peers: BTreeSet<RegionId>, store: Store) -> Result<Self, StoreError> {
        let mut state = State::default();
        for peer in peers {
            let kept = store.meta(&format!("{FACT}{peer}"))?;
            let met = kept.is_some();
            let reached: PositionVector = match kept {
                Some(bytes) => codec::decode(&bytes)
                    .map_err(|reason| StoreError::Corrupt { place: format!("fact {FACT}{peer}"), reason })?,
                None => PositionVector::new(),
            };
            let owed_rows = store.meta(&format!("{OWED}{peer}"))?.is_some_and(|value| !value.is_empty());
            let kept = reached.clone();
            state.peers.insert(peer, Peer { reached, kept, met, owed_rows, ..Peer::default() });
        }
        let ends = store.vector();
        let own = ends.iter().filter(|(origin, ..)| **origin == me);
        state.own = own.map(|(_, incarnation, offset)| (incarnation, offset)).collect();
        let incarnation = store.incarnation();
        let stable = Mutex::new(Arc::new(stable(&state, ends)));
        Ok(Self { me, incarnation, store, state: Mutex::new(state), changed: watch::Sender::new(0), stable })
    }

    /// What every region of the deployment has taken over, durably, by what is on disk here.
    pub(crate) fn stable(&self) -> Arc<PositionVector> {
        self.stable.lock().expect("nothing panics while it holds the lock").clone()
    }

    /// [`Acks::stable`], with what this region has taken over since.
    pub(crate) fn stable_by_now(&self) -> Arc<PositionVector> {
        let now = Arc::new(stable(&self.state(), self.store.vector()));
        *self.stable.lock().expect("nothing panics while it holds the lock") = now.clone();
        now
    }

    /// How far each peer is, as far as the disk here says so.
    pub(crate) fn kept(&self) -> Vec<PositionVector> {
        self.state().peers.values().map(|known| known.kept.clone()).collect()
    }

    /// `peer` has said how far it is with its tombstones.
    pub(crate) fn has_buried(&self, peer: &RegionId, vector: &PositionVector, burials: &Burials) {
        if let Some(known) = self.state().peers.get_mut(peer)
            && known.reached.newest(peer) == vector.newest(peer)
        {
            known.burials = burials.clone();
        }
    }

    /// How far each peer is with its tombstones.
    pub(crate) fn burials(&self) -> Vec<Burials> {
        self.state().peers.values().map(|known| known.burials.clone()).collect()
    }

    /// The latest life of a peer that is known.
    pub(crate) fn life_of(&self, peer: &RegionId) -> Option<Incarnation> {
        self.state().peers.get(peer)?.reached.newest(peer)
    }

    /// How far each peer is, as it last said.
    pub(crate) fn reached(&self) -> BTreeMap<RegionId, PositionVector> {
        self.state().peers.iter().map(|(peer, known)| (peer.clone(), known.reached.clone())).collect()
    }

    /// Whether `peer` is owed rows before entries, and how far it is by those that it was given.
    pub(crate) fn owed_rows(&self, peer: &RegionId) -> (bool, Option<PositionVector>) {
        let state = self.state();
        state.peers.get(peer).map_or((false, None), |known| (known.owed_rows, known.given.clone()))
    }

    /// No log tells of some rows here: every peer is given them.
    pub(crate) fn owe_rows_to_all(&self) {
        for known in self.state().peers.values_mut() {
            known.owed_rows = true;
            known.changed = true;
        }
    }

    /// `peer`, which says now that it is as far as `vector`, was given all rows as of `began`.
    pub(crate) fn gave_rows(&self, peer: &RegionId, began: &PositionVector, vector: &PositionVector) {
        self.acked(peer, vector);
        self.update(peer, |known| {
            // A process took them that has ended since: the one of now may have another disk.
            if known.reached.newest(peer) != vector.newest(peer) {
                return;
            }
            known.owed_rows = false;
            known.given = Some(began.clone());
            known.changed = true;
        });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// An entry of this region, of this life or an earlier one, is durable here.
    pub(crate) fn committed(&self, position: &LogPosition, committed_at: UnixMillis) {
        let mut state = self.state();
        let State { peers, own } = &mut *state;
        let end = own.entry(position.incarnation).or_insert(0);
        *end = (*end).max(position.offset);
        for known in peers.values_mut().filter(|known| !known.reached.covers(position)) {
            known.owed_from = known.owed_from.min(position.incarnation);
            // Spares the look-up where nothing was owed before.
            if known.oldest.is_none() && known.reached.is_next(position) {
                known.oldest = Some((position.clone(), committed_at));
            }
        }
    }

    /// The peers' vectors that have changed since the last call, as facts to be kept.
    pub(crate) fn facts(&self) -> Vec<(String, Vec<u8>)> {
        let mut state = self.state();
        let mut facts = Vec::new();
        for (peer, known) in state.peers.iter_mut().filter(|(_, known)| known.changed) {
            known.changed = false;
            known.kept = known.reached.clone();
            facts.push((format!("{FACT}{peer}"), codec::encode(&known.reached)));
            facts.push((format!("{OWED}{peer}"), if known.owed_rows { vec![1] } else { Vec::new() }));
        }
        if !facts.is_empty() {
            *self.stable.lock().expect("nothing panics while it holds the lock") =
                Arc::new(stable(&state, self.store.vector()));
        }
        facts
    }

    /// A peer has said how far it is.
    pub(crate) fn acked(&self, peer: &RegionId, vector: &PositionVector) {
        let ours = self.store.vector();
        self.update(peer, |known| match known.life(peer, vector) {
            Life::Ended => {}
            Life::New => self.restart(known, vector, &ours),
            Life::Same => {
                known.changed |= !known.reached.includes(vector);
                known.reached.join(vector);
            }
        });
    }

    /// A connection to a peer begins; gives where to ship from.
    pub(crate) fn resume(&self, peer: &RegionId, vector: &PositionVector) -> PositionVector {
        let (mut from, ours) = (vector.clone(), self.store.vector());
        let floor = self.store.floors().offset(&self.me, self.incarnation);
        self.update(peer, |known| {
            match known.life(peer, vector) {
                Life::Ended => {}
                Life::Same if vector.newest(peer).is_some() => {
                    known.changed |= !known.reached.includes(vector);
                    known.reached.join(vector);
                }
                Life::Same | Life::New => self.restart(known, vector, &ours),
            }
            known.owed_from = Incarnation::default();
            known.answered = known.answered.min(vector.offset(&self.me, self.incarnation));
            known.refused.split_off(&(known.answered + 1));
            // What is gone here was answered so long ago that nobody waits for it any more.
            from.limit(&self.me, self.incarnation, known.answered.max(floor));
        });
        from
    }

    /// A peer that lost its disk is behind what it once had.
    fn restart(&self, known: &mut Peer, vector: &PositionVector, ours: &PositionVector) {
        known.begins(vector, ours);
        known.owed_from = Incarnation::default();
        known.oldest = None;
        known.answered = known.answered.min(vector.offset(&self.me, self.incarnation));
        known.refused.split_off(&(known.answered + 1));
    }

    /// A peer has answered a batch.
    pub(crate) fn shipped(&self, peer: &RegionId, upto: &PositionVector, answer: &Received) {
        let own = |vector: &PositionVector| vector.offset(&self.me, self.incarnation);
        let here = self.store.vector();
        self.update(peer, |known| {
            match known.life(peer, &answer.vector) {
                // What a process said before it ended may have been on a disk that is gone since.
                Life::Ended => return,
                Life::New => self.restart(known, &answer.vector, &here),
                Life::Same => {}
            }
            known.changed |= !known.reached.includes(&answer.vector);
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
        let mut state = self.state();
        let State { peers, own } = &mut *state;
        let links = peers.iter_mut().map(|(peer, known)| {
            let (backlog, oldest) = self.owed(known, own);
            let committed_at = oldest.map(|oldest| self.committed_at(known, oldest, now));
            LinkStatus { peer: peer.clone(), lag_ms: committed_at.map_or(0, |at| (now - at).0), backlog }
        });
        links.collect()
    }

    /// How many entries a peer is owed, and which is the oldest.
    fn owed(&self, known: &mut Peer, own: &BTreeMap<Incarnation, u64>) -> (u64, Option<LogPosition>) {
        let (mut backlog, mut oldest) = (0, None);
        for (&incarnation, &end) in own.range(known.owed_from..) {
            let has = known.reached.offset(&self.me, incarnation);
            backlog += end.saturating_sub(has);
            if has < end && oldest.is_none() {
                oldest = Some(LogPosition { origin: self.me.clone(), incarnation, offset: has + 1 });
                known.owed_from = incarnation;
            }
        }
        if oldest.is_none() {
            known.oldest = None;
            known.owed_from = own.keys().next_back().copied().unwrap_or_default();
        }
        (backlog, oldest)
    }

    /// When the oldest entry owed was committed: looked up once.
    fn committed_at(&self, known: &mut Peer, oldest: LogPosition, now: UnixMillis) -> UnixMillis {
        if let Some((position, at)) = &known.oldest
            && *position == oldest
        {
            return *at;
        }
        let at = match self.store.shipment(&oldest) {
            Ok(Some(shipment)) => shipment.committed_at(),
            // Its age counts from here on, so that the lag grows all the same.
            Ok(None) => now,
            Err(error) => {
                tracing::error!(%error, position = %oldest, "the age of an entry that a peer lacks cannot be read");
                now
            }
        };
        known.oldest = Some((oldest, at));
        at
    }

    /// What the nearest peer's lag asks for. One peer that keeps up is enough to go on:
    /// a region that is down must not stop the writes of the others.
    pub(crate) fn action(&self, bands: &LagBands, now: UnixMillis) -> LagAction {
        self.links(now).iter().map(|link| bands.at(Millis(link.lag_ms))).min().unwrap_or(LagAction::Ok)
    }
}

fn stable(state: &State, ours: PositionVector) -> PositionVector {
    state.peers.values().fold(ours, |all, known| all.meet(&known.kept))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::record::Shipment;
    use store::Commit;

    use super::*;

    fn region(id: &str) -> RegionId {
        RegionId::new(id).unwrap()
    }

    /// The store of `eu-west` and what it knows of its only peer, `us-east`.
    fn open(dir: &Path) -> (Store, Acks) {
        let store = Store::open(dir, UnixMillis(0)).unwrap();
        let acks = Acks::open(region("eu-west"), BTreeSet::from([region("us-east")]), store.clone()).unwrap();
        (store, acks)
    }

    /// Commits the entry at `offset` of the present life at `offset` seconds, and gives its position.
    fn commit(store: &Store, acks: &Acks, offset: u64) -> LogPosition {
        let position = LogPosition { origin: region("eu-west"), incarnation: store.incarnation(), offset };
        let committed_at = UnixMillis(offset * 1000);
        let log = vec![Shipment::Skip { position: position.clone(), committed_at }];
        store.commit(Commit { log, meta: acks.facts(), ..Commit::default() }).unwrap();
        acks.committed(&position, committed_at);
        position
    }

    fn upto(position: &LogPosition) -> PositionVector {
        let mut vector = PositionVector::new();
        vector.advance(position);
        vector
    }

    /// Lag and backlog at 10 seconds.
    fn owed(acks: &Acks) -> (u64, u64) {
        let link = &acks.links(UnixMillis(10_000))[0];
        (link.lag_ms, link.backlog)
    }

    #[test]
    fn a_restart_does_not_forget_what_a_peer_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let last = {
            let (store, acks) = open(dir.path());
            assert_eq!(owed(&acks), (0, 0));
            let positions: Vec<_> = (1..=5).map(|offset| commit(&store, &acks, offset)).collect();
            assert_eq!(owed(&acks), (9000, 5));
            acks.acked(&region("us-east"), &upto(&positions[1]));
            assert_eq!(owed(&acks), (7000, 3));
            store.commit(Commit { meta: acks.facts(), ..Commit::default() }).unwrap();
            positions[4].clone()
        };
        let (store, acks) = open(dir.path());
        assert_eq!(owed(&acks), (7000, 3));
        commit(&store, &acks, 1);
        assert_eq!(owed(&acks), (7000, 4));
        acks.acked(&region("us-east"), &upto(&last));
        assert_eq!(owed(&acks), (9000, 1));
    }

    #[test]
    fn nothing_is_owed_to_a_peer_that_has_everything_and_all_to_one_that_lost_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (store, acks) = open(dir.path());
        let last = (1..=4).map(|offset| commit(&store, &acks, offset)).last().unwrap();
        acks.acked(&region("us-east"), &upto(&last));
        assert_eq!(owed(&acks), (0, 0));
        // What it said earlier and is heard late changes nothing.
        acks.acked(&region("us-east"), &PositionVector::new());
        assert_eq!(owed(&acks), (0, 0));
        acks.resume(&region("us-east"), &PositionVector::new());
        assert_eq!(owed(&acks), (9000, 4));
    }

    #[test]
    fn what_a_process_answered_before_it_ended_says_nothing_of_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let (store, acks) = open(dir.path());
        let last = (1..=4).map(|offset| commit(&store, &acks, offset)).last().unwrap();
        let in_life = |mut vector: PositionVector, life| {
            vector.begin(&region("us-east"), Incarnation(life));
            vector
        };
        acks.acked(&region("us-east"), &in_life(PositionVector::new(), 2));
        let answer = Received { vector: in_life(upto(&last), 1), refused: Vec::new() };
        acks.shipped(&region("us-east"), &upto(&last), &answer);
        acks.gave_rows(&region("us-east"), &upto(&last), &answer.vector);
        assert_eq!(owed(&acks), (9000, 4), "a disk that is gone counts as one that has them");
        assert!(acks.owed_rows(&region("us-east")).0, "the new disk was to be given rows");
        let copies = acks.copies(&last, &BTreeSet::from([region("us-east")]));
        assert_eq!(copies.made, 1);
    }
}
