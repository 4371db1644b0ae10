//! Tombstones that were buried here, until every region has buried them.
//!
//! Regions bury at different times. One that has forgotten a tombstone altogether would write a record anew without a
//! word of it; where the tombstone still lies, the two would stand beside each other for ever. So a buried row is kept
//! out of sight, and a write to its key says that it has seen what was in it, until no region has it among its rows.

use std::sync::Arc;

use model::codec;
use model::record::{Address, Content, Row, Sibling};
use model::version::{CausalContext, PositionVector};
use store::{Store, StoreError};

use crate::group::Group;
use crate::plane::DataPlane;
use crate::types::DataError;
use crate::writer::Writer;

/// Before the names of the facts that keep buried rows; a zero byte parts namespace and key.
pub(crate) const GRAVE: &str = "grave/";
/// The fact that says up to where everything was buried that could be.
const BURIED: &str = "buried";

fn name(address: &Address) -> String {
    format!("{GRAVE}{}\0{}", address.namespace, address.key)
}

/// Reads up to where this region has buried.
pub(crate) fn read_buried(store: &Store) -> Result<PositionVector, StoreError> {
    match store.meta(BURIED)? {
        Some(bytes) => {
            codec::decode(&bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {BURIED}"), reason })
        }
        None => Ok(PositionVector::new()),
    }
}

/// What is buried under the name of a fact.
pub(crate) fn read_grave(name: &str, bytes: &[u8]) -> Result<Row, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })
}

impl DataPlane {
    /// All buried rows, a few at any time.
    pub(crate) fn graves(&self) -> Result<Vec<(Address, Row)>, DataError> {
        let mut graves = Vec::new();
        for (name, bytes) in self.shared.store.facts(GRAVE)? {
            let address = name.strip_prefix(GRAVE).and_then(|key| Store::address_of(key.as_bytes()));
            let address = address.ok_or_else(|| StoreError::Key { place: "the graves".into() })?;
            graves.push((address, read_grave(&name, &bytes)?));
        }
        Ok(graves)
    }
}

impl Writer {
    /// Removes rows in which nothing is alive and of which every region has everything. Gives how many.
    pub(crate) fn bury(
        &mut self,
        group: &mut Group,
        rows: Vec<Address>,
        stable: &PositionVector,
    ) -> Result<u64, DataError> {
        let mut buried = 0;
        for address in rows {
            match self.row(group, &address)? {
                Some(row) if row.is_dead() => {
                    let (dead, markers) = row.part_markers();
                    if dead.siblings.iter().all(|sibling| stable.covers_dot(&sibling.version.dot)) {
                        group.facts.push((name(&address), codec::encode(&dead)));
                        group.unlisted.push(store::row_key(&address));
                        group.rows.insert(address, (!markers.siblings.is_empty()).then_some(markers));
                        buried += 1;
                    }
                }
                _ => group.unlisted.push(store::row_key(&address)),
            }
        }
        Ok(buried)
    }

    /// Everything up to `stable` is buried that could be.
    pub(crate) fn has_buried(&mut self, group: &mut Group, stable: &Arc<PositionVector>) {
        let mut buried = PositionVector::clone(&self.buried.load());
        buried.join(stable);
        group.facts.push((BURIED.to_owned(), codec::encode(&buried)));
        self.buried.store(Arc::new(buried));
    }

    /// Lays a row into its grave that nothing alive is in, and that goes because a peer has buried it.
    pub(crate) fn lay(group: &mut Group, address: &Address, row: &Row) {
        if row.is_dead() {
            let (dead, _) = row.clone().part_markers();
            group.facts.push((name(address), codec::encode(&dead)));
        }
    }

    /// What a write that replaces this row has seen.
    pub(crate) fn seen(&self, group: &Group, row: &Row) -> CausalContext {
        replication::seen(row, &self.acks.stable(), &|sibling| self.all_hold(group, sibling))
    }

    /// Whether every region of the deployment may hold a write.
    pub(crate) fn all_hold(&self, group: &Group, sibling: &Sibling) -> bool {
        let regions = self.regions_of(group, sibling.scope);
        self.acks.reached().keys().all(|peer| regions.contains(peer)) && regions.contains(&self.me)
    }

    /// A row as what arrives has to find it. A region that lost its disk may have written to the key while it knew
    /// nothing of the tombstone; it stands beside that write there, and so does it here.
    pub(crate) fn row_or_grave(&self, group: &Group, address: &Address) -> Result<Option<Row>, DataError> {
        match self.row(group, address)? {
            Some(row) => Ok(Some(row)),
            None => self.grave(group, address),
        }
    }

    /// What lies buried under a key.
    pub(crate) fn grave(&self, group: &Group, address: &Address) -> Result<Option<Row>, DataError> {
        let name = name(address);
        if let Some((_, bytes)) = group.facts.iter().rev().find(|(fact, _)| *fact == name) {
            return Ok(Some(read_grave(&name, bytes)?));
        }
        Ok(self.store.meta(&name)?.map(|bytes| read_grave(&name, &bytes)).transpose()?)
    }

    /// The tombstones of a row: a later write in a region that has them is later than these, whatever its client has
    /// seen. Else one could stand beside a tombstone that other regions have buried by then. One that cannot be named
    /// without naming a write beside it stays.
    pub(crate) fn tombstones(&self, group: &Group, row: &Row, seen: &CausalContext) -> CausalContext {
        let mut tombstones = CausalContext::new();
        for sibling in row.siblings.iter().filter(|sibling| matches!(sibling.content, Content::Tombstone { .. })) {
            // With what it replaced: some of that may still be on its way.
            let with = self.seen(group, &Row { siblings: vec![sibling.clone()] });
            let beside = row.siblings.iter().any(|other| {
                let dot = &other.version.dot;
                other.content.record().is_some() && with.covers(dot) && !seen.covers(dot)
            });
            if !beside {
                tombstones.join(&with);
            }
        }
        tombstones
    }
}
