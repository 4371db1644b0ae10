//! Writes that this region may hold, does not, and knows of by a marker that came with another's rows.
//!
//! Such a write may still be on its way, or lost with every disk that had it. Either way it was made, and what it
//! replaced is replaced: a region that comes back after a long time must not show it again to somebody who has seen
//! what followed. So it is kept here, out of sight, until everything that it replaced has been taken over; what arrives
//! meanwhile and was replaced by it is passed over. A later write here says that it has seen it, so that the markers go.

use std::collections::BTreeMap;

use model::codec;
use model::record::{Address, Row, Sibling};
use model::snapshot::Given;
use model::version::Version;
use store::{Store, StoreError};

use crate::group::Group;
use crate::types::DataError;
use crate::writer::Writer;

/// Before the names of the facts that keep them; a zero byte parts namespace and key.
const LOST: &str = "lost/";

/// By key.
pub(crate) type Lost = BTreeMap<Address, Row>;

fn name(address: &Address) -> String {
    format!("{LOST}{}\0{}", address.namespace, address.key)
}

/// Reads them all; few regions ever have any.
pub(crate) fn read_lost(store: &Store) -> Result<Lost, StoreError> {
    let mut lost = Lost::new();
    for (name, bytes) in store.facts(LOST)? {
        let address = name.strip_prefix(LOST).and_then(|key| Store::address_of(key.as_bytes()));
        let address = address.ok_or_else(|| StoreError::Key { place: "the notes of lost writes".into() })?;
        let row =
            codec::decode(&bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })?;
        lost.insert(address, row);
    }
    Ok(lost)
}

impl Writer {
    /// Takes out of what a peer gave of a key the markers of writes that may be here, and keeps those by which something
    /// that has yet to arrive is replaced. Gives the rest.
    pub(crate) fn part_lost(
        &mut self,
        group: &mut Group,
        address: &Address,
        given: &[Given],
        ours: Option<&Row>,
    ) -> Result<Vec<Given>, DataError> {
        let (lost, rest): (Vec<&Given>, Vec<&Given>) =
            given.iter().partition(|given| given.sibling.is_marker() && given.permitted.contains(&self.me));
        let before = self.lost.get(address).cloned();
        let mut kept = before.clone();
        for Given { sibling, .. } in lost {
            let here = ours.is_some_and(|row| row.siblings.iter().any(|s| s.version.dot == sibling.version.dot));
            if !here {
                kept = Some(replication::merge(kept, sibling.clone()));
            }
        }
        if let Some(row) = kept.filter(|row| before.as_ref() != Some(row)) {
            group.keep_fact(name(address), codec::encode(&row));
            self.lost.insert(address.clone(), row);
        }
        Ok(rest.into_iter().cloned().collect())
    }

    /// Whether a write of this key that is not here is known to have replaced this one.
    pub(crate) fn is_replaced_by_lost(&self, address: &Address, version: &Version) -> bool {
        let replaces = |by: &Sibling| by.version.supersedes(version);
        self.lost.get(address).is_some_and(|lost| lost.siblings.iter().any(replaces))
    }

    /// What is left of a row beside the writes of its key that are not here.
    pub(crate) fn without_replaced_by_lost(&self, address: &Address, row: Row) -> Row {
        let lost = self.lost.get(address).into_iter().flat_map(|lost| &lost.siblings);
        lost.fold(row, |row, by| replication::without_superseded(&row, &by.version))
    }

    /// The writes of this key that were made, and that will not arrive any more.
    pub(crate) fn lost(&self, group: &Group, address: &Address) -> Option<Row> {
        let mut lost = self.lost.get(address)?.clone();
        lost.siblings.retain(|sibling| group.vector.covers_dot(&sibling.version.dot));
        (!lost.siblings.is_empty()).then_some(lost)
    }

    /// Forgets those that are replaced themselves, and those of which everything that they replaced has been taken over.
    pub(crate) fn forget_lost(&mut self, group: &mut Group) {
        let passed = |lost: &Row| {
            lost.siblings.iter().all(|sibling| {
                group.vector.covers_dot(&sibling.version.dot) && group.vector.has_passed(&sibling.version.context)
            })
        };
        let gone: Vec<Address> =
            self.lost.iter().filter(|(_, lost)| passed(lost)).map(|(address, _)| address.clone()).collect();
        for address in gone {
            group.forget_fact(name(&address));
            self.lost.remove(&address);
        }
    }
}
