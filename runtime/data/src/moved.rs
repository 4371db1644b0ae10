//! Writes that took a record away from other regions before this one knew what they know.
//!
//! A region that is given rows takes over the giver's log without its entries, and with it the markers that were among
//! them. What the giver has taken over and does not hold is known to be replaced. But a giver that was itself given a
//! record as a row has not taken over the log that the record comes from: then its silence says nothing, and the
//! record would stay where it may not be any more, or show an old value. So such a write leaves a note, here and
//! wherever it arrives, also as a marker, of the regions that had what it replaced; they are given a marker with the
//! rows, until every region has taken the write over. The region that wrote it may have lost its disk by then.

use std::collections::BTreeSet;

use model::record::{Address, Row, Sibling};
use model::snapshot::Moved;
use model::version::Version;
use model::{RegionId, codec};
use store::StoreError;
use tokio::sync::oneshot;

use crate::group::{Change, Group};
use crate::plane::DataPlane;
use crate::types::DataError;
use crate::writer::Writer;

/// Before the names of the notes; a zero byte parts namespace and key.
const MOVED: &str = "moved/";

fn name(address: &Address) -> String {
    format!("{MOVED}{}\0{}", address.namespace, address.key)
}

fn read(name: &str, bytes: &[u8]) -> Result<Moved, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })
}

impl DataPlane {
    /// The note of a key.
    pub(crate) fn moved(&self, address: &Address) -> Result<Option<Moved>, DataError> {
        let name = name(address);
        Ok(self.shared.store.meta(&name)?.map(|bytes| read(&name, &bytes)).transpose()?)
    }

    /// Drops the notes of which every region has taken over everything by now.
    pub(crate) async fn forget_moved(&self) -> Result<(), DataError> {
        let stable = self.shared.acks.stable();
        let mut names = Vec::new();
        for (name, bytes) in self.shared.store.facts(MOVED)? {
            if stable.has_passed(&read(&name, &bytes)?.replaced) {
                names.push((name, bytes));
            }
        }
        if !names.is_empty() {
            let (answer, done) = oneshot::channel();
            self.wait_in_line(Change::Forget(names, answer)).await?;
            done.await.map_err(|_| DataError::Closed)??;
        }
        Ok(())
    }
}

impl Writer {
    /// Notes an arriving write that takes a record away from regions which hold what it replaces here, or of which its
    /// origin has said so in `evicted`.
    pub(crate) fn note_arrival(
        &self,
        group: &mut Group,
        address: &Address,
        before: Option<&Row>,
        (arrived, evicted): (&Sibling, &BTreeSet<RegionId>),
    ) -> Result<(), DataError> {
        let replaced = before.into_iter().flat_map(|row| &row.siblings);
        let replaced = replaced.filter(|sibling| arrived.version.supersedes(&sibling.version));
        let mut regions: BTreeSet<RegionId> =
            replaced.flat_map(|sibling| self.regions_of(group, sibling.scope)).collect();
        if !regions.is_empty() {
            let scope = self.regions_of(group, arrived.scope);
            regions.retain(|region| !scope.contains(region));
        }
        regions.extend(evicted.iter().cloned());
        self.note_moved(group, address, &arrived.version, &regions)
    }

    /// Notes a write that takes a record away from the regions in `evicted`.
    pub(crate) fn note_moved(
        &self,
        group: &mut Group,
        address: &Address,
        version: &Version,
        evicted: &BTreeSet<RegionId>,
    ) -> Result<(), DataError> {
        if evicted.iter().all(|region| *region == self.me) {
            return Ok(());
        }
        let name = name(address);
        let before = self.fact(group, &name)?.map(|bytes| read(&name, &bytes)).transpose()?;
        let mut moved = before.unwrap_or_default();
        moved.replaced.join(&version.context);
        moved.replaced.observe(&version.dot);
        moved.regions.extend(evicted.iter().filter(|region| **region != self.me).cloned());
        group.keep_fact(name, codec::encode(&moved));
        Ok(())
    }
}
