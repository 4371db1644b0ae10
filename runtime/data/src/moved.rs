//! Writes that took a record away from other regions before this one knew what they know.
//!
//! A region that is given rows takes over the giver's log without its entries, and with it the markers that were among
//! them. What the giver has taken over and does not hold is known to be replaced. But a giver that was itself given a
//! record as a row has not taken over the log that the record comes from: then its silence says nothing, and the
//! record would stay where it may not be any more, or show an old value. So such a write leaves a note here of the
//! regions that had what it replaced; they are given a marker with the rows, until silence says enough.

use std::collections::{BTreeMap, BTreeSet};

use model::record::Address;
use model::snapshot::Moved;
use model::version::Version;
use model::{RegionId, codec};
use store::{Store, StoreError};
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
    /// All notes, which are few: only a region that is catching up makes any.
    pub(crate) fn moved(&self) -> Result<BTreeMap<Address, Moved>, DataError> {
        let mut moved = BTreeMap::new();
        for (name, bytes) in self.shared.store.facts(MOVED)? {
            let address = name.strip_prefix(MOVED).and_then(|key| Store::address_of(key.as_bytes()));
            let address = address.ok_or_else(|| StoreError::Key { place: "the notes of what has moved".into() })?;
            moved.insert(address, read(&name, &bytes)?);
        }
        Ok(moved)
    }

    /// Drops the notes of which this region has taken over everything by now.
    pub(crate) async fn forget_moved(&self) -> Result<(), DataError> {
        let vector = self.shared.store.vector();
        let moved = self.moved()?;
        let names: Vec<String> = moved
            .iter()
            .filter(|(_, moved)| vector.has_passed(&moved.replaced))
            .map(|(address, _)| name(address))
            .collect();
        if !names.is_empty() {
            let (answer, done) = oneshot::channel();
            self.wait_in_line(Change::Forget(names, answer)).await?;
            done.await.map_err(|_| DataError::Closed)??;
        }
        Ok(())
    }
}

impl Writer {
    /// Notes a write that takes a record away from the regions in `evicted`, where this region has not taken over all
    /// that it replaces.
    pub(crate) fn note_moved(
        &self,
        group: &mut Group,
        address: &Address,
        version: &Version,
        evicted: &BTreeSet<RegionId>,
    ) -> Result<(), DataError> {
        if evicted.is_empty() || group.vector.has_passed(&version.context) {
            return Ok(());
        }
        let name = name(address);
        let before = match group.facts.iter().rev().find(|(fact, _)| *fact == name) {
            Some((_, bytes)) => Some(read(&name, bytes)?),
            None => self.store.meta(&name)?.map(|bytes| read(&name, &bytes)).transpose()?,
        };
        let mut moved = before.unwrap_or_default();
        moved.replaced.join(&version.context);
        moved.regions.extend(evicted.iter().cloned());
        group.facts.push((name, codec::encode(&moved)));
        Ok(())
    }
}
