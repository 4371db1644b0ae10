//! What leaves for the peers, and what comes in from them.
//!
//! The sender gives each peer what the entry's origin decided: the entry, a
//! marker, or a skip. A region that passes on another's log knows no more than
//! it holds, so it stops where it would have to guess. The receiver decides
//! again from the labels alone.

use std::collections::HashSet;

use model::record::{Address, Content, Entry, Record, Shipment, Sibling};
use model::sealing::{DataKeyId, KeyParcel, RegionPublicKey};
use model::version::{Incarnation, LogPosition, PositionVector};
use model::{RegionId, RuleId, UnixMillis};
use tokio::sync::{oneshot, watch};

use crate::faults::{Fault, Faults};
use crate::group::{Arrival, Arrivals, Change};
use crate::plane::DataPlane;
use crate::plans::Plans;
use crate::types::{DataError, Received};
use crate::vault::{Fate, VaultError, Wanted};

/// The rule by which a marker is refused that points to this very region.
const MARKER_IN_SCOPE: &str = "marker-inside-its-scope";

/// The rule by which a value is refused whose owner was erased.
pub(crate) fn erased_rule() -> RuleId {
    RuleId::new("subject-erased").expect("a fixed rule name")
}

impl DataPlane {
    /// Takes over what `from` shipped, up to the first gap, and says how far this region now is, durably.
    ///
    /// A record that this region may not hold is not stored: its position becomes a durable refusal,
    /// which the answer names.
    ///
    /// Entries of this region's own earlier lives are taken like any others: that is how a replaced disk
    /// gets them back.
    ///
    /// # Errors
    /// Those of the disk, and [`DataError::OwnLog`]; nothing of the batch is taken over then.
    pub async fn receive(&self, from: &RegionId, batch: Vec<Shipment>) -> Result<Received, DataError> {
        self.receive_in_life(from, None, batch).await
    }

    /// [`DataPlane::receive`] from a sender that says in which life it is. What an earlier life of it still had
    /// under way is refused: others rest on it that such a log has come to its end.
    ///
    /// # Errors
    /// Those of [`DataPlane::receive`], and [`DataError::EndedLife`].
    pub async fn receive_in_life(
        &self,
        from: &RegionId,
        life: Option<Incarnation>,
        batch: Vec<Shipment>,
    ) -> Result<Received, DataError> {
        self.not_of_an_ended_life(from, life)?;
        let plans = self.shared.plans.load_full();
        if plans.generation == 0 {
            // Without a policy everything would be refused for ever; the sender tries again.
            return Ok(Received { vector: self.vector(), refused: Vec::new() });
        }
        let (me, present) = (&self.shared.me, self.shared.store.incarnation());
        let forged = |position: &&LogPosition| position.origin == *me && position.incarnation >= present;
        if let Some(position) = batch.iter().map(Shipment::position).find(forged) {
            tracing::error!(%from, %position, "a peer ships an entry of the log that this region is writing");
            return Err(DataError::OwnLog { from: from.clone(), position: position.clone() });
        }
        let now = self.shared.clock.wall();
        let mut batch = batch;
        if let Some(at) = batch.iter().position(|shipment| self.waits_for_key(shipment)) {
            // What cannot be opened is no copy. Whoever ships it gives the key first.
            batch.truncate(at);
        }
        // Neither is what lacks chunks. Kept until the rows that name them are on disk.
        let _chunks = self.up_to_missing_chunks(from, life, &mut batch).await?;
        let plans = self.shared.plans.load_full();
        let all = batch.into_iter().map(|shipment| self.gate(from, &plans, shipment, now)).collect();
        let (answer, durable) = oneshot::channel();
        self.enqueue(Change::Receive(from.clone(), Arrivals { by: plans.stamp(), all }, answer)).await?;
        let received = durable.await.map_err(|_| DataError::Closed)?;
        let mut received = self.suspecting(received)?;
        // Also before the first entry of this life: by it the sender tells this process from another one.
        received.vector.begin(me, present);
        Ok(received)
    }

    pub(crate) fn not_of_an_ended_life(&self, from: &RegionId, life: Option<Incarnation>) -> Result<(), DataError> {
        match (life, self.shared.acks.life_of(from)) {
            (Some(life), Some(known)) if life < known => Err(DataError::EndedLife { from: from.clone(), life, known }),
            _ => Ok(()),
        }
    }

    fn gate(&self, from: &RegionId, plans: &Plans, shipment: Shipment, now: UnixMillis) -> Arrival {
        let entry = match shipment {
            Shipment::Entry(entry) => entry,
            // Another's refusal is no reason of ours.
            Shipment::Skip { position, committed_at } | Shipment::Refused { position, committed_at, .. } => {
                return Arrival::Take(Shipment::Skip { position, committed_at });
            }
        };
        let me = &self.shared.me;
        let refused = match &entry.sibling.content {
            // The writer takes it only where the key is known.
            Content::Evicted { scope } if *scope == entry.sibling.scope && !entry.permitted.contains(me) => None,
            Content::Evicted { .. } => Some(RuleId::new(MARKER_IN_SCOPE).expect("a fixed rule name")),
            _ if self.shared.faults.makes(Fault::IgnoreScope) => None,
            Content::Live(Record { labels, .. }) | Content::Tombstone { labels } => {
                let barred = plans.residency.permit_arrival(labels, &entry.position.origin, me, now).err();
                barred.or_else(|| self.erased(&entry.sibling))
            }
        };
        match refused {
            None => Arrival::Take(Shipment::Entry(entry)),
            Some(rule) => {
                tracing::warn!(%from, position = %entry.position, %rule, "a record was refused on arrival");
                metrics::counter!("repomind_shipments_refused_total", "rule" => rule.to_string()).increment(1);
                Arrival::Refuse(entry, rule)
            }
        }
    }

    /// The rule by which a value is refused whose key is gone.
    fn erased(&self, sibling: &Sibling) -> Option<RuleId> {
        let fate = self.shared.vault.as_ref()?.fate_of(sibling.content.record()?);
        (fate == Fate::Gone).then(erased_rule)
    }

    /// Whether the key has not come of a value that may be here.
    fn waits_for_key(&self, shipment: &Shipment) -> bool {
        let (Some(vault), Shipment::Entry(entry)) = (&self.shared.vault, shipment) else { return false };
        let (me, now) = (&self.shared.me, self.shared.clock.wall());
        let record = entry.sibling.content.record().filter(|_| entry.permitted.contains(me));
        let unknown = record.filter(|record| vault.fate_of(record) == Fate::Unknown);
        // What may not be here needs no key.
        let residency = &self.shared.plans.load().residency;
        unknown.is_some_and(|record| residency.permit_arrival(&record.labels, &entry.position.origin, me, now).is_ok())
    }

    /// The keys of what is about to be shipped that are not among those `told`, to which they are added; for the region
    /// key `to` of `peer`. Nothing where it needs none.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keys_for<'s>(
        &self,
        peer: &RegionId,
        to: Option<RegionPublicKey>,
        shipped: impl Iterator<Item = (&'s Address, &'s Sibling)>,
        told: &mut HashSet<DataKeyId>,
    ) -> Result<Vec<KeyParcel>, DataError> {
        let (Some(vault), Some(to)) = (&self.shared.vault, to) else { return Ok(Vec::new()) };
        let mut wanted = Vec::new();
        for (address, sibling) in shipped {
            let Some(record) = sibling.content.record() else { continue };
            let Some(id) = record.payload.data_key().filter(|id| !told.contains(id)) else { continue };
            told.insert(id);
            let ours = sibling.version.dot.actor.region == self.shared.me;
            wanted.push(Wanted { id, owner: vault.owner_of(address, &record.labels), ours });
        }
        Ok(wanted.chunks(KeyParcel::MOST).map(|some| vault.parcel(peer, to, some)).collect::<Result<_, _>>()?)
    }

    /// Takes in keys that a peer gives ahead of what they open; they are on disk when this returns.
    ///
    /// # Errors
    /// [`DataError::Vault`]; nothing of the parcel is taken then.
    pub fn take_keys(&self, parcel: &KeyParcel) -> Result<(), DataError> {
        Ok(self.shared.vault.as_ref().ok_or(VaultError::NoVault)?.take(parcel)?)
    }

    /// What `peer` lacks after `has`: our own log first, then what we hold of other origins' logs.
    ///
    /// Its own earlier lives are among them, which it may have lost; the present one it knows best.
    ///
    /// # Errors
    /// [`DataError::Store`] where the log is damaged.
    pub fn outgoing(
        &self,
        peer: &RegionId,
        has: &PositionVector,
        max_bytes: usize,
    ) -> Result<Vec<Shipment>, DataError> {
        let me = &self.shared.me;
        let ours = self.shared.store.vector();
        let mut behind: Vec<_> = ours
            .iter()
            .filter(|(origin, incarnation, _)| {
                *origin != peer || has.newest(peer).is_some_and(|now| *incarnation < now)
            })
            .filter(|(origin, incarnation, offset)| has.offset(origin, *incarnation) < *offset)
            .collect();
        behind.sort_by_key(|(origin, incarnation, _)| (*origin != me, *incarnation));
        for (origin, incarnation, _) in behind {
            let after = has.offset(origin, incarnation);
            let found = self.shared.store.shipments(origin, incarnation, after, max_bytes)?;
            let outbound = |shipment| self.outbound(peer, shipment);
            let batch: Vec<Shipment> = found.into_iter().map_while(outbound).collect();
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
        Ok(Vec::new())
    }

    /// The shipment as `peer` may see it by its origin's plan and by the one in force here; `None` where this region does
    /// not hold what the peer is owed.
    pub(crate) fn outbound(&self, peer: &RegionId, shipment: Shipment) -> Option<Shipment> {
        let outbound = outbound(peer, shipment, self.shared.faults)?;
        let Shipment::Entry(entry) = &outbound else { return Some(outbound) };
        let may = |labels| {
            let (plans, now) = (self.shared.plans.load(), self.shared.clock.wall());
            // Before the first generation nobody receives anything either.
            plans.generation == 0 || plans.residency.permit_arrival(labels, &entry.position.origin, peer, now).is_ok()
        };
        let barred = entry.sibling.content.labels().is_some_and(|labels| !may(labels));
        Some(match barred && !self.shared.faults.makes(Fault::IgnoreScope) {
            // Which the peer refuses: it learns that there was a write, and that it is no copy.
            true => Shipment::Entry(Box::new(entry.marker())),
            false => outbound,
        })
    }

    /// Wakes whenever something was committed here.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// `peer` has durably taken over everything in `vector`, by its own account. This counts for lag and
    /// backlog, and not for copies: a refusal is taken over as well.
    pub fn acked(&self, peer: &RegionId, vector: &PositionVector) {
        self.shared.acks.acked(peer, vector);
    }

    /// A connection to `peer` begins, which says how far it is. Gives where to ship from: what was taken
    /// over while its answer got lost is shipped again, so that the answer says what was refused.
    pub fn resume(&self, peer: &RegionId, vector: &PositionVector) -> PositionVector {
        self.shared.acks.resume(peer, vector)
    }

    /// `peer` has answered a batch after which everything up to `upto` had been shipped to it.
    pub fn shipped(&self, peer: &RegionId, upto: &PositionVector, answer: &Received) {
        self.shared.acks.shipped(peer, upto, answer);
    }
}

/// The shipment as `peer` may see it; `None` where this region does not hold what the peer is owed.
///
/// A skip that is stored here says nothing about what the peer may hold: only the origin, or a
/// region that has the entry, can say that. A marker that is stored here says who may hold the
/// entry, and those wait for a region that has it.
pub(crate) fn outbound(peer: &RegionId, shipment: Shipment, faults: Faults) -> Option<Shipment> {
    let Shipment::Entry(entry) = shipment else { return None };
    if entry.permitted.contains(peer) || faults.makes(Fault::IgnoreScope) {
        return (!entry.sibling.is_marker()).then_some(Shipment::Entry(entry));
    }
    if entry.evicted.contains(peer) {
        return Some(Shipment::Entry(Box::new(entry.marker())));
    }
    let Entry { position, committed_at, .. } = *entry;
    Some(Shipment::Skip { position, committed_at })
}
