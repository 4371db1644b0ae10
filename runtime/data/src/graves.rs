//! Tombstones that were buried here, until every region has buried them.
//!
//! Regions bury at different times. One that has forgotten a tombstone altogether would write a record anew without a
//! word of it; where the tombstone still lies, the two would stand beside each other for ever. So a buried row is kept
//! out of sight, and a write to its key says that it has seen what was in it, until no region has it among its rows.
//!
//! A grave goes in three steps, because regions do not take them at the same moment:
//!
//! 1. While some region may have the tombstone among its rows, a write that arrives and knows nothing of it brings it
//!    back here, since it stands beside that write there. A tombstone beside something alive is not buried, and its
//!    region says so, see [`Writer::has_buried`].
//! 2. Once every region has buried it, it is *quiet*: it is not brought back and not given away. What is written here
//!    still names it.
//! 3. Once it is quiet in every region, nobody would bring it back, and it is forgotten.
//!
//! Without the second step, the first region to forget it would write to the key without a word of it, and the others
//! would bring it back beside that write.
//!
//! A tombstone that goes because a region which gave rows does not have it any more, by what its silence says, is *laid
//! to rest*: that region has seen it superseded, or every region has buried it. It is not brought back here either,
//! since it would stand beside an arriving write here and not there. What is written here names it all the same, for
//! the sake of a third region that has not heard what superseded it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::record::{Address, Row, Sibling};
use model::version::{CausalContext, Dot, Incarnation, PositionVector};
use model::{RegionId, codec};
use store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::faults::Fault;
use crate::group::{Change, Group};
use crate::plane::DataPlane;
use crate::types::DataError;
use crate::writer::Writer;

/// Before the names of the facts that keep buried rows; a zero byte parts namespace and key.
pub(crate) const GRAVE: &str = "grave/";
/// Before the names of the facts that keep rows laid to rest.
const AT_REST: &str = "rest/";
/// The fact that says up to where everything was buried.
const BURIED: &str = "buried";
/// The fact that says up to where every region has buried.
const QUIET: &str = "quiet";

/// How far a region is with its tombstones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burials {
    /// Up to here no tombstone is among its rows.
    pub buried: PositionVector,
    /// Up to here it knows that of every region, and brings none back.
    pub quiet: PositionVector,
}

/// The first tombstone of each log that could not be buried.
pub(crate) type Standing = BTreeMap<(RegionId, Incarnation), u64>;

fn name(kind: &str, address: &Address) -> String {
    format!("{kind}{}\0{}", address.namespace, address.key)
}

/// Reads how far this region is with its tombstones.
pub(crate) fn read_burials(store: &Store) -> Result<Burials, StoreError> {
    let read = |name: &str| match store.meta(name)? {
        Some(bytes) => {
            codec::decode(&bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })
        }
        None => Ok(PositionVector::new()),
    };
    Ok(Burials { buried: read(BURIED)?, quiet: read(QUIET)? })
}

/// What is buried under the name of a fact.
pub(crate) fn read_grave(name: &str, bytes: &[u8]) -> Result<Row, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })
}

impl DataPlane {
    /// Forgets what is quiet in every region, and notes what every region has buried.
    pub(crate) async fn forget_graves(&self) -> Result<(), DataError> {
        let ours = self.shared.burials.load_full();
        let peers = self.shared.acks.burials();
        let buried = peers.iter().fold(ours.buried.clone(), |all, peer| all.meet(&peer.buried));
        if !ours.quiet.includes(&buried) {
            let (answer, done) = oneshot::channel();
            self.wait_in_line(Change::Quiet(buried, answer)).await?;
            done.await.map_err(|_| DataError::Closed)??;
        }
        let quiet = peers.iter().fold(ours.quiet.clone(), |all, peer| all.meet(&peer.quiet));
        let mut gone = Vec::new();
        for kind in [GRAVE, AT_REST] {
            for (name, bytes) in self.shared.store.facts(kind)? {
                let grave = read_grave(&name, &bytes)?;
                if grave.siblings.iter().all(|sibling| quiet.covers_dot(&sibling.version.dot)) {
                    gone.push((name, bytes));
                }
            }
        }
        if !gone.is_empty() {
            let (answer, done) = oneshot::channel();
            self.wait_in_line(Change::Forget(gone, answer)).await?;
            done.await.map_err(|_| DataError::Closed)??;
        }
        Ok(())
    }

    /// All buried rows that some region may still have among its rows, a few at any time.
    pub(crate) fn graves(&self) -> Result<Vec<(Address, Row)>, DataError> {
        let mut graves = Vec::new();
        for (name, bytes) in self.shared.store.facts(GRAVE)? {
            let address = name.strip_prefix(GRAVE).and_then(|key| Store::address_of(key.as_bytes()));
            let address = address.ok_or_else(|| StoreError::Key { place: "the graves".into() })?;
            let grave = loud(read_grave(&name, &bytes)?, &self.shared.burials.load().quiet);
            graves.extend(grave.map(|grave| (address, grave)));
        }
        Ok(graves)
    }
}

/// Whether a grave may lie under a key that has this row: what is alive elsewhere is no part of it.
pub(crate) fn only_markers(row: &Row) -> bool {
    row.siblings.iter().all(Sibling::is_marker)
}

/// What of a grave is not quiet.
fn loud(mut grave: Row, quiet: &PositionVector) -> Option<Row> {
    grave.siblings.retain(|sibling| !quiet.covers_dot(&sibling.version.dot));
    (!grave.siblings.is_empty()).then_some(grave)
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
            let row = self.row(group, &address)?.filter(|row| row.tombstones().next().is_some());
            let Some(row) = row else {
                group.unlisted.push(store::row_key(&address));
                continue;
            };
            if row.is_dead() && row.tombstones().all(|sibling| stable.covers_dot(&sibling.version.dot)) {
                let (dead, markers) = row.part_markers();
                if !self.faults.makes(Fault::DropTombstone) {
                    group.keep_fact(name(GRAVE, &address), codec::encode(&dead));
                }
                group.unlisted.push(store::row_key(&address));
                group.rows.insert(address, (!markers.siblings.is_empty()).then_some(markers));
                buried += 1;
                continue;
            }
            for Dot { actor, counter } in row.tombstones().map(|sibling| &sibling.version.dot) {
                let first = self.standing.entry((actor.region.clone(), actor.incarnation)).or_insert(*counter);
                *first = (*first).min(*counter);
            }
        }
        Ok(buried)
    }

    /// Everything up to `stable` is buried, as far as nothing stood in the way since the last call: where a tombstone
    /// stands beside something alive, other regions, which may not hold that, may have buried it, and must not forget
    /// it. This may go back, since a tombstone may be brought back. While other regions are asked for a damaged row, there
    /// may have been a tombstone in it that comes back with what they say.
    pub(crate) fn has_buried(&mut self, group: &mut Group, stable: &Arc<PositionVector>) {
        let mut burials = self.burials_of(group);
        let standing = std::mem::take(&mut self.standing);
        if !self.waits_for_rows(group) {
            burials.buried.join(stable);
        }
        for ((region, life), first) in standing {
            burials.buried.limit(&region, life, first - 1);
        }
        group.facts.push((BURIED.to_owned(), codec::encode(&burials.buried)));
        group.burials = Some(burials);
    }

    /// Every region has buried up to here.
    pub(crate) fn is_quiet(&mut self, group: &mut Group, everywhere: &PositionVector) {
        let mut burials = self.burials_of(group);
        burials.quiet.join(everywhere);
        group.facts.push((QUIET.to_owned(), codec::encode(&burials.quiet)));
        group.burials = Some(burials);
    }

    /// How far this region is with its tombstones, with this group.
    fn burials_of(&self, group: &Group) -> Burials {
        group.burials.clone().unwrap_or_else(|| Burials::clone(&self.burials.load()))
    }

    /// Lays a row to rest that nothing alive is in, and that goes because a peer does not have it any more.
    pub(crate) fn lay(&self, group: &mut Group, address: &Address, row: &Row) -> Result<(), DataError> {
        match row.is_dead() {
            true => self.lay_to_rest(group, address, row.tombstones().cloned().collect()),
            false => Ok(()),
        }
    }

    fn lay_to_rest(&self, group: &mut Group, address: &Address, dead: Vec<Sibling>) -> Result<(), DataError> {
        let before = self.buried_as(AT_REST, group, address)?;
        let rest = dead.into_iter().fold(before, |row, dead| Some(replication::merge(row, dead)));
        if let Some(rest) = rest {
            group.keep_fact(name(AT_REST, address), codec::encode(&rest));
        }
        Ok(())
    }

    /// Lays to rest what is buried under a key and that a peer, as `gone` says, does not have any more.
    pub(crate) fn quieten(
        &self,
        group: &mut Group,
        address: &Address,
        gone: &dyn Fn(&Group, &Sibling) -> bool,
    ) -> Result<(), DataError> {
        let Some(grave) = self.buried_as(GRAVE, group, address)? else { return Ok(()) };
        let (dead, kept): (Vec<Sibling>, Vec<Sibling>) = grave.siblings.into_iter().partition(|dead| gone(group, dead));
        if dead.is_empty() {
            return Ok(());
        }
        Self::keep_grave(group, name(GRAVE, address), Row { siblings: kept });
        self.lay_to_rest(group, address, dead)
    }

    fn keep_grave(group: &mut Group, name: String, grave: Row) {
        match grave.siblings.is_empty() {
            true => group.forget_fact(name),
            false => group.keep_fact(name, codec::encode(&grave)),
        }
    }

    /// The keys of a span under which something is buried.
    pub(crate) fn buried_between(
        &self,
        group: &Group,
        after: Option<&Address>,
        upto: Option<&Address>,
    ) -> Result<Vec<Address>, DataError> {
        let mut found = self.store.addresses_of_facts(GRAVE, after, upto)?;
        let fresh = group.facts.iter().filter_map(|(name, _)| Store::address_of(name.strip_prefix(GRAVE)?.as_bytes()));
        found
            .extend(fresh.filter(|address| {
                after.is_none_or(|after| address > after) && upto.is_none_or(|upto| address <= upto)
            }));
        Ok(found)
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
        let row = self.row(group, address)?;
        if row.as_ref().is_some_and(|row| !only_markers(row)) {
            return Ok(row);
        }
        let quiet = self.burials_of(group).quiet;
        let grave = self.buried_as(GRAVE, group, address)?.and_then(|grave| loud(grave, &quiet));
        Ok(match grave {
            Some(grave) => {
                let dead = grave.siblings.into_iter().filter(|dead| !self.is_replaced_by_lost(address, &dead.version));
                dead.fold(row, |row, tombstone| Some(replication::merge(row, tombstone)))
            }
            None => row,
        })
    }

    /// Takes out of a key's grave what a row that came to lie over it supersedes, and what has come back with it. It
    /// must not be brought back after that: later writes need not name it any more.
    pub(crate) fn close_grave(
        &self,
        group: &mut Group,
        address: &Address,
        before: Option<&Row>,
        after: &Row,
    ) -> Result<(), DataError> {
        if before.is_some_and(|row| !only_markers(row)) {
            return Ok(());
        }
        for kind in [GRAVE, AT_REST] {
            let Some(mut grave) = self.buried_as(kind, group, address)? else { continue };
            let count = grave.siblings.len();
            let superseded = |dead: &Sibling| after.siblings.iter().any(|by| by.version.supersedes(&dead.version));
            let back = |dead: &Sibling| after.siblings.iter().any(|sibling| sibling.version.dot == dead.version.dot);
            grave.siblings.retain(|dead| !superseded(dead) && !back(dead));
            if grave.siblings.len() < count {
                Self::keep_grave(group, name(kind, address), grave);
            }
        }
        Ok(())
    }

    /// What lies buried under a key, and what was laid to rest.
    pub(crate) fn graves_of(&self, group: &Group, address: &Address) -> Result<Option<Row>, DataError> {
        let at_rest = self.buried_as(AT_REST, group, address)?;
        let rows = self.buried_as(GRAVE, group, address)?.into_iter().chain(at_rest);
        Ok(rows.flat_map(|row| row.siblings).fold(None, |row, dead| Some(replication::merge(row, dead))))
    }

    fn buried_as(&self, kind: &str, group: &Group, address: &Address) -> Result<Option<Row>, DataError> {
        let name = name(kind, address);
        Ok(self.fact(group, &name)?.map(|bytes| read_grave(&name, &bytes)).transpose()?)
    }

    /// The tombstones of a row: a later write in a region that has them is later than these, whatever its client has
    /// seen. Else one could stand beside a tombstone that other regions have buried by then. One that cannot be named
    /// without naming a write beside it stays.
    pub(crate) fn tombstones(&self, group: &Group, row: &Row, seen: &CausalContext) -> CausalContext {
        let mut tombstones = CausalContext::new();
        for sibling in row.tombstones() {
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
