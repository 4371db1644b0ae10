//! What has changed in a namespace since somebody looked last.
//!
//! Whoever watches remembers how far it is in every log, as a position vector: that holds in any region, and after a
//! restart. What it is given are the *keys* that entries behind that position wrote; what is under them it reads as anybody
//! does, so that nothing is shown which a read would not show, and what was written twice meanwhile is told once.
//!
//! Some rows change without an entry of a log: values leave because of a stricter policy, or come with the rows of a peer.
//! The writer names those to whoever watches at that moment ([`Watching::unlogged`]). What is no longer in a log, because
//! it was cut or was never here, cannot be told: [`Changes::cut`] says so, and the watcher has to list the namespace.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use model::record::{Address, Row, Shipment};
use model::version::PositionVector;
use model::{Key, Namespace};
use tokio::sync::{broadcast, watch};

use crate::plane::DataPlane;
use crate::types::DataError;
use crate::writer::Writer;

/// The bytes of a log that are looked through in one go.
const LOOKED: usize = 256 * 1024;

/// Tells when it is worth looking again.
pub struct Watching {
    /// Changes with every commit.
    pub commits: watch::Receiver<u64>,
    /// Keys that changed without an entry in a log.
    pub unlogged: broadcast::Receiver<Arc<[Address]>>,
}

/// What was found behind a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The keys, in the order of the last entry that wrote each, log by log.
    pub keys: Vec<Key>,
    /// Up to where the logs were looked through.
    pub upto: PositionVector,
    /// Whether something between is not in the logs any more.
    pub cut: bool,
    /// Whether there is more behind that.
    pub more: bool,
}

impl DataPlane {
    /// Begins to watch. What is committed from now on is seen by the receivers.
    pub fn watch(&self) -> Watching {
        Watching { commits: self.commits(), unlogged: self.shared.unlogged.subscribe() }
    }

    /// The keys of a namespace that begin with `prefix` and were written behind `after`; about 256 KiB of a log are
    /// looked through, and the next call goes on behind [`Changes::upto`]. Reads from disk.
    ///
    /// # Errors
    /// Those of the disk, and damaged entries.
    pub fn changes_after(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: &PositionVector,
    ) -> Result<Changes, DataError> {
        let store = &self.shared.store;
        let mut changes = Changes { upto: after.clone(), ..Changes::default() };
        let (ends, floors) = (store.vector(), store.floors());
        for (origin, life, end) in ends.iter() {
            let (from, floor) = (after.offset(origin, life), floors.offset(origin, life));
            let mut reached = model::version::LogPosition { origin: origin.clone(), incarnation: life, offset: from };
            if from < floor {
                changes.cut = true;
                reached.offset = end;
            } else if from < end {
                for shipment in store.shipments(origin, life, from, LOOKED)? {
                    reached.offset = shipment.position().offset;
                    let Shipment::Entry(entry) = shipment else { continue };
                    let Address { namespace: within, key } = entry.address;
                    if within == *namespace && key.as_str().starts_with(prefix) {
                        changes.keys.push(key);
                    }
                }
                // Cut since the floors were read: the next look says so.
                changes.more |= reached.offset < end;
            }
            changes.upto.advance(&reached);
        }
        let mut seen = HashSet::new();
        changes.keys.reverse();
        changes.keys.retain(|key| seen.insert(key.clone()));
        changes.keys.reverse();
        Ok(changes)
    }
}

impl Writer {
    /// The keys of rows that a group changes without an entry of a log, where somebody watches. Tombstones that are
    /// buried are none: what was gone before is gone still.
    pub(crate) fn unlogged(&self, rows: &BTreeMap<Address, Option<Row>>, log: &[Shipment]) -> Vec<Address> {
        if self.unlogged.receiver_count() == 0 {
            return Vec::new();
        }
        let logged: BTreeSet<&Address> = log
            .iter()
            .filter_map(|shipment| match shipment {
                Shipment::Entry(entry) => Some(&entry.address),
                Shipment::Skip { .. } | Shipment::Refused { .. } => None,
            })
            .collect();
        let buried = |address: &Address, row: &Option<Row>| {
            row.is_none() && matches!(self.store.row(address), Ok(before) if before.as_ref().is_none_or(Row::is_dead))
        };
        let changed = rows.iter().filter(|(address, row)| !logged.contains(address) && !buried(address, row));
        changed.map(|(address, _)| address.clone()).collect()
    }
}
