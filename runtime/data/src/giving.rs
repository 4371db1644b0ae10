//! Rows for a peer that lacks more than the log still has.
//!
//! A peer is given rows when its disk went back behind what it had acknowledged, when it is met for the first time,
//! when what it lacks has been cut from this region's own log, or when it lacks entries of a log that its origin has
//! lost and that this region cannot give whole. Rows are read and sent in parts of bounded size while writing goes
//! on: each part says how far this region was when it was read.

use std::collections::BTreeMap;

use model::record::{Address, Row, Shipment, Sibling};
use model::snapshot::{Given, SnapshotPart};
use model::version::PositionVector;
use model::{RegionId, version::Incarnation};
use replication::merge;

use crate::faults::Fault;
use crate::graves::only_markers;
use crate::hearing::Logs;
use crate::plane::DataPlane;
use crate::types::{DataError, Received};

/// Rows that are looked at for one part.
const ROWS: usize = 4096;

/// How far the rows for one peer have been given.
#[derive(Clone, Debug)]
pub struct Giving {
    peer: RegionId,
    began: PositionVector,
    after: Option<Address>,
}

impl Giving {
    /// The last key that the peer has.
    pub fn after(&self) -> Option<&Address> {
        self.after.as_ref()
    }
}

impl DataPlane {
    /// Whether entries alone do not bring `peer` any further, or not safely.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn must_give_rows(&self, peer: &RegionId, has: &PositionVector) -> Result<bool, DataError> {
        if self.shared.faults.makes(Fault::TrimUnacked) {
            return Ok(false);
        }
        let (owed, given) = self.shared.acks.owed_rows(peer);
        if owed {
            return Ok(true);
        }
        let ours = self.shared.store.vector();
        let floors = self.shared.store.floors();
        let reached = self.shared.acks.reached();
        for (origin, incarnation, end) in ours.beyond(has).iter() {
            let after = has.offset(origin, incarnation);
            if *origin == self.shared.me {
                if after < floors.offset(origin, incarnation) {
                    return Ok(true);
                }
                continue;
            }
            let told = given.as_ref().is_some_and(|given| given.offset(origin, incarnation) >= end);
            if told || !lost(origin, incarnation, end, peer, has, &reached) {
                continue;
            }
            let next = self.shared.store.shipments(origin, incarnation, after, 1)?.into_iter().next();
            if next.and_then(|shipment: Shipment| self.outbound(peer, shipment)).is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Begins to give rows to `peer`.
    pub fn begin_giving(&self, peer: &RegionId) -> Giving {
        tracing::info!(%peer, "rows are given, because the log does not have all that it lacks");
        metrics::counter!("repomind_rows_given_total", "peer" => peer.to_string()).increment(1);
        Giving { peer: peer.clone(), began: self.vector(), after: None }
    }

    /// The next part, of about `max_bytes` at most where one row is not larger.
    ///
    /// # Errors
    /// Those of the disk, damaged rows, and [`DataError::Damaged`] while other regions are asked for a key of the part.
    pub fn part(&self, giving: &Giving, max_bytes: usize) -> Result<SnapshotPart, DataError> {
        let (vector, mut partial, waiting) = (self.vector(), self.partial_by_now(), self.waiting());
        let rows = self.shared.store.rows_between(giving.after.as_ref(), None, ROWS, max_bytes);
        let (rows, more) = self.suspecting(rows.map_err(DataError::from))?;
        let upto = rows.last().filter(|_| more).map(|(address, _)| address.clone());
        // Also where it has become so meanwhile.
        partial.extend(self.partial_by_now());
        let mut part = SnapshotPart {
            began: giving.began.clone(),
            vector,
            partial,
            after: giving.after.clone(),
            upto,
            rows: Vec::new(),
        };
        let inside = |address: &Address| {
            part.after.as_ref().is_none_or(|after| address > after)
                && part.upto.as_ref().is_none_or(|upto| address <= upto)
        };
        // After the last part the peer takes over logs by what it was given.
        if waiting.iter().chain(&self.waiting()).any(inside) {
            return Err(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER });
        }
        let mut rows: BTreeMap<Address, Row> = rows.into_iter().collect();
        // What is buried here may not be there yet.
        for (address, row) in self.graves()? {
            let before = part.after.as_ref().is_some_and(|after| address <= *after);
            let beyond = part.upto.as_ref().is_some_and(|upto| address > *upto);
            if !before && !beyond {
                let here = rows.remove(&address);
                rows.extend(self.with_grave(here, Some(&row)).map(|row| (address, row)));
            }
        }
        for (address, row) in rows {
            let given = self.given(&giving.peer, &address, row.siblings.into_iter())?;
            if !given.is_empty() {
                part.rows.push((address, given));
            }
        }
        Ok(part)
    }

    /// Whether a peer may hold a write by the plan in force here.
    fn may_give(&self, peer: &RegionId, sibling: &Sibling) -> bool {
        let (plans, now) = (self.shared.plans.load(), self.shared.clock.wall());
        let origin = &sibling.version.dot.actor.region;
        let may = |labels| plans.residency.permit_arrival(labels, origin, peer, now).is_ok();
        plans.generation == 0 || sibling.content.labels().is_none_or(may)
    }

    /// The logs of which this region's silence says nothing. Where it has forgotten what it held of a key, that is all.
    pub(crate) fn partial_by_now(&self) -> Logs {
        let mut partial = self.shared.partial.read().expect("nothing panics while it holds the lock").clone();
        if !self.wounds().open.is_empty() {
            partial.extend(self.vector().iter().map(|(origin, incarnation, _)| (origin.clone(), incarnation)));
        }
        partial
    }

    /// A row with what is buried under its key, where nothing lies over it.
    pub(crate) fn with_grave(&self, row: Option<Row>, grave: Option<&Row>) -> Option<Row> {
        match row.as_ref().is_none_or(only_markers) {
            true => grave
                .into_iter()
                .flat_map(|grave| &grave.siblings)
                .fold(row, |row, dead| Some(merge(row, dead.clone()))),
            false => row,
        }
    }

    /// What of a row `peer` is given.
    pub(crate) fn given(
        &self,
        peer: &RegionId,
        address: &Address,
        siblings: impl Iterator<Item = Sibling>,
    ) -> Result<Vec<Given>, DataError> {
        let mut given = Vec::new();
        for sibling in siblings {
            let Some(permitted) = self.shared.scopes.regions(sibling.scope) else { continue };
            // A marker of a write that the peer may hold says no more than that there was one. It may be lost; what it
            // replaced is replaced all the same.
            let lawful = permitted.contains(peer) && self.may_give(peer, &sibling);
            if permitted.contains(peer) || self.has_to_know(peer, address, &sibling)? {
                let whole = lawful && !sibling.is_marker();
                let sibling = if whole { sibling } else { sibling.marker() };
                given.push(Given { sibling, permitted });
            }
        }
        Ok(given)
    }

    /// Whether a peer that may not hold a write knows its key, since it has written to it or has held what the write
    /// replaced: then it has to know that the record has moved.
    fn has_to_know(&self, peer: &RegionId, address: &Address, sibling: &Sibling) -> Result<bool, DataError> {
        let wrote = sibling.version.context.iter().any(|(actor, _)| actor.region == *peer);
        Ok(wrote || self.moved(address)?.is_some_and(|moved| moved.regions.contains(peer)))
    }

    /// `peer` has durably taken a part. `true` after the last one.
    pub fn part_taken(&self, giving: &mut Giving, part: &SnapshotPart, answer: &Received) -> bool {
        if let Some(upto) = &part.upto {
            giving.after = Some(upto.clone());
            return false;
        }
        self.shared.acks.gave_rows(&giving.peer, &giving.began, &answer.vector);
        true
    }
}

/// Whether a log will not come from its origin any more: it is the peer's own and the peer has lost it, its origin is
/// in a later life without all of it, or its origin is no region of the deployment.
fn lost(
    origin: &RegionId,
    incarnation: Incarnation,
    end: u64,
    peer: &RegionId,
    has: &PositionVector,
    reached: &std::collections::BTreeMap<RegionId, PositionVector>,
) -> bool {
    let later = |vector: &PositionVector| vector.newest(origin).is_some_and(|life| life > incarnation);
    if origin == peer {
        return later(has);
    }
    reached.get(origin).is_none_or(|vector| later(vector) && vector.offset(origin, incarnation) < end)
}
