//! Damaged rows: found, kept aside, and given again by the other regions.
//!
//! A row whose checksum does not match is never served. Whoever comes upon it, a reader or the slow look at all rows
//! ([`DataPlane::scrub`]), has it taken out of the rows in one commit with a *wound*: the key, how far this region was in
//! each log, and the damaged bytes, which stay for an operator. Until the wound is healed,
//!
//! - the key is neither read nor written here, and a list that would contain it is refused;
//! - this region's silence about a key says nothing to anybody: what it gives of its rows names all logs as partial;
//! - what others give of the key is taken although this region was further than it, since it has forgotten what it knew.
//!
//! First what the logs here still have of the key is merged. Then every other region states what it holds of it, and how
//! far it is. A wound heals when each has done so and was as far as this region had been in its own logs. So whatever was
//! written elsewhere is known from where it was written, and what was written here from the logs here or from whoever has
//! it. What a single region says is not enough, because it may be behind, and bring back what was replaced or deleted: a
//! value that another one has taken over and does not hold is not taken from it. No more is one whose owner was erased.
//! Until then this region gives no rows of a span with the key, since whoever was given all takes over logs by that.
//!
//! Where nothing came, no other region may hold the record, or it was deleted: the wound stays and is reported, the key
//! is not read, and a write to it ends the wound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use model::record::{Address, Row, Shipment, Sibling};
use model::snapshot::{Given, Statement};
use model::version::{CausalContext, Dot, PositionVector};
use model::wound::Wound;
use model::{RegionId, codec};
use store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::faults::Fault;
use crate::group::{Change, Group};
use crate::hearing::{Logs, Span};
use crate::plane::DataPlane;
use crate::types::DataError;
use crate::writer::Writer;

/// Before the names of the facts that are wounds; a zero byte parts namespace and key.
const WOUND: &str = "wound/";
/// Before the names of the facts that keep damaged bytes.
const ASIDE: &str = "damaged/";
/// Bytes of rows that one step of a scrub reads.
pub const SCRUB_BYTES: usize = 1 << 20;
/// Keys that one statement is asked about, at most.
pub const STATED: usize = 256;

/// What is known of damage, in memory.
#[derive(Debug, Default)]
pub(crate) struct Wounds {
    /// By key.
    pub(crate) open: BTreeMap<Address, Wound>,
    /// How many damaged rows lie aside.
    pub(crate) aside: usize,
    /// How far each region was that has stated what it holds of a wounded key in this life, and which logs it does not
    /// hold whole.
    said: BTreeMap<Address, BTreeMap<RegionId, (PositionVector, Logs)>>,
}

/// What there is of damage in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Keys that wait for other regions.
    pub waiting: usize,
    /// Keys of which no other region has anything.
    pub without_copy: usize,
    /// Keys whose damaged bytes lie aside.
    pub aside: usize,
}

fn name(kind: &str, address: &Address) -> String {
    format!("{kind}{}\0{}", address.namespace, address.key)
}

/// Reads all wounds; most regions never have one.
pub(crate) fn read_wounds(store: &Store) -> Result<Wounds, StoreError> {
    let mut wounds = Wounds { aside: store.facts(ASIDE)?.len(), ..Wounds::default() };
    for (name, bytes) in store.facts(WOUND)? {
        let address = name.strip_prefix(WOUND).and_then(|key| Store::address_of(key.as_bytes()));
        let address = address.ok_or_else(|| StoreError::Key { place: "the wounds".into() })?;
        let mut wound: Wound =
            codec::decode(&bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })?;
        if !wound.without_copy {
            // How far they were is known no more: they are asked again.
            wound.heard.clear();
        }
        wounds.open.insert(address, wound);
    }
    Ok(wounds)
}

impl DataPlane {
    /// Looks at rows after `after`, some [`SCRUB_BYTES`] of them, and keeps the damaged ones aside. Gives the key after
    /// which the next look begins; nothing after the last one. Reads and writes the disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn scrub(&self, after: Option<&Address>) -> Result<Option<Address>, DataError> {
        let (damaged, next) = self.shared.store.damaged_rows(after, SCRUB_BYTES)?;
        for address in damaged {
            self.take_aside(&address).await?;
        }
        Ok(next)
    }

    /// Takes a damaged row out of the rows.
    pub(crate) async fn take_aside(&self, address: &Address) -> Result<(), DataError> {
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::Wound(address.clone(), answer)).await?;
        done.await.map_err(|_| DataError::Closed)?
    }

    /// The row of a key that is served; an error where it is damaged.
    pub(crate) async fn whole_row(&self, address: &Address) -> Result<Option<Row>, DataError> {
        if self.is_wounded(address) {
            return Err(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER });
        }
        match self.shared.store.row(address) {
            Err(error @ StoreError::Corrupt { .. }) => Err(self.found_damaged(address, &error).await?),
            // Somebody else has come upon it meanwhile.
            Ok(_) if self.is_wounded(address) => Err(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER }),
            other => Ok(other?),
        }
    }

    /// Takes a row aside that was found damaged, and gives what its reader is told.
    pub(crate) async fn found_damaged(&self, address: &Address, error: &StoreError) -> Result<DataError, DataError> {
        tracing::error!(%error, "a damaged row was come upon; it is kept aside and asked of the other regions");
        self.take_aside(address).await?;
        Ok(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER })
    }

    /// Passes an outcome on. Where it is damage in some row or other, all rows are looked at soon.
    pub(crate) fn suspecting<T>(&self, outcome: Result<T, DataError>) -> Result<T, DataError> {
        if matches!(outcome, Err(DataError::Store(StoreError::Corrupt { .. }))) {
            self.shared.suspicion.notify_one();
        }
        outcome
    }

    /// Returns once somebody has come upon damage and could not say in which row.
    pub async fn suspects_damage(&self) {
        self.shared.suspicion.notified().await;
    }

    /// Refuses a write to a key that other regions may still give.
    pub(crate) fn may_be_written_over(&self, address: &Address) -> Result<(), DataError> {
        match self.wounds().open.get(address).is_none_or(|wound| wound.without_copy) {
            true => Ok(()),
            false => Err(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER }),
        }
    }

    pub(crate) fn is_wounded(&self, address: &Address) -> bool {
        self.wounds().open.contains_key(address)
    }

    /// Refuses what a list of these keys would leave out while other regions are being asked. What no region has any
    /// more is in no list, and in the status until somebody writes it anew.
    pub(crate) fn none_wounded(&self, namespace: &model::Namespace, prefix: &str) -> Result<(), DataError> {
        let inside = |address: &Address| address.namespace == *namespace && address.key.as_str().starts_with(prefix);
        match self.wounds().open.iter().any(|(address, wound)| !wound.without_copy && inside(address)) {
            true => Err(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER }),
            false => Ok(()),
        }
    }

    /// The keys that other regions are being asked for.
    pub(crate) fn waiting(&self) -> Vec<Address> {
        let wounds = self.wounds();
        let waiting = wounds.open.iter().filter(|(_, wound)| !wound.without_copy);
        waiting.map(|(address, _)| address.clone()).collect()
    }

    /// What there is of damage.
    pub fn damage(&self) -> Damage {
        let wounds = self.wounds();
        let without_copy = wounds.open.values().filter(|wound| wound.without_copy).count();
        Damage { waiting: wounds.open.len() - without_copy, without_copy, aside: wounds.aside }
    }

    pub(crate) fn wounds(&self) -> RwLockReadGuard<'_, Wounds> {
        self.shared.wounds.read().expect("nothing panics while it holds the lock")
    }

    /// The keys of which `peer` has not said what it holds.
    pub fn to_be_asked(&self, peer: &RegionId) -> Vec<Address> {
        let wounds = self.wounds();
        let open = wounds.open.iter().filter(|(_, wound)| !wound.heard.contains(peer) && !wound.without_copy);
        open.map(|(address, _)| address.clone()).take(STATED).collect()
    }

    /// What this region holds of some keys that `peer` may hold, and how far it is. It leaves out those whose rows it
    /// cannot read. Of a key of which it has forgotten what it held it states what its logs have, and its silence says
    /// nothing: two regions that have lost the same row must not wait for each other.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn state(&self, peer: &RegionId, keys: &[Address]) -> Result<Statement, DataError> {
        let mut statement = Statement { vector: self.vector(), partial: self.partial_by_now(), rows: Vec::new() };
        let mut rows = Vec::new();
        let graves: BTreeMap<Address, Row> = self.graves()?.into_iter().collect();
        for address in keys.iter().take(STATED) {
            let row = match self.shared.store.row(address) {
                Err(StoreError::Corrupt { .. }) => continue,
                other => other?,
            };
            let row = self.with_grave(row, graves.get(address));
            let given = self.given(peer, address, row.into_iter().flat_map(|row| row.siblings))?;
            rows.push((address.clone(), given));
        }
        // Also where it has become so meanwhile.
        statement.partial.extend(self.partial_by_now());
        Ok(Statement { rows, ..statement })
    }

    /// Takes what `from` states.
    ///
    /// # Errors
    /// Those of [`DataPlane::take_part`].
    pub async fn mend(&self, from: &RegionId, statement: Statement) -> Result<(), DataError> {
        self.not_of_an_ended_life(from, statement.vector.newest(from))?;
        let Statement { vector, partial, rows } = statement;
        let asked: BTreeSet<Address> = rows.iter().map(|(address, _)| address.clone()).collect();
        let plans = self.shared.plans.load_full();
        let (rows, refused) = self.gate_rows(&plans, from, rows)?;
        let span = Span {
            by: plans.stamp(),
            from: from.clone(),
            began: vector.clone(),
            vector,
            partial,
            after: None,
            upto: None,
            rows,
            refused,
        };
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::Mend(Box::new((span, asked)), answer)).await?;
        done.await.map_err(|_| DataError::Closed)?
    }
}

impl Writer {
    /// Takes a row out that is damaged, with what the logs here have of its key in its place.
    pub(crate) fn wound(&mut self, group: &mut Group, address: Address) -> Result<(), DataError> {
        let Some(bytes) = self.store.raw_row(&address)? else { return Ok(()) };
        if group.rows.contains_key(&address) || codec::decode::<Row>(&bytes).is_ok() {
            return Ok(());
        }
        self.wound_with(group, address, bytes)
    }

    /// Takes a row out whose bytes are these, none where it is missing.
    pub(crate) fn wound_with(&mut self, group: &mut Group, address: Address, bytes: Vec<u8>) -> Result<(), DataError> {
        metrics::counter!("repomind_rows_damaged_total").increment(1);
        let mut row = None;
        if !self.faults.makes(Fault::MendFromAny) {
            for sibling in self.logged(&address)? {
                if !self.is_erased(&sibling) {
                    row = Some(replication::merge(row, sibling));
                }
            }
        }
        if let Some(row) = &row {
            self.note_losses(group, &address, None, row)?;
        }
        let wound = Wound { vector: group.vector.clone(), heard: BTreeSet::new(), without_copy: false };
        let aside = name(ASIDE, &address);
        if self.fact(group, &aside)?.is_none() {
            group.aside = Some(group.aside.unwrap_or(self.wounds().aside) + 1);
        }
        group.keep_fact(aside, bytes);
        self.count_again(group, &address.namespace);
        group.rows.insert(address.clone(), row);
        Self::keep_wound(group, address, wound);
        Ok(())
    }

    fn keep_wound(group: &mut Group, address: Address, wound: Wound) {
        group.keep_fact(name(WOUND, &address), codec::encode(&wound));
        group.wounds.insert(address, Some(wound));
    }

    fn wounds(&self) -> RwLockReadGuard<'_, Wounds> {
        self.wounds.read().expect("nothing panics while it holds the lock")
    }

    fn wounds_mut(&self) -> RwLockWriteGuard<'_, Wounds> {
        self.wounds.write().expect("nothing panics while it holds the lock")
    }

    /// A group is about to be committed that takes damaged rows out: from now on nobody takes them for missing.
    pub(crate) fn hurt(&self, changed: &BTreeMap<Address, Option<Wound>>) {
        if changed.values().all(Option::is_none) {
            return;
        }
        let mut wounds = self.wounds_mut();
        for (address, wound) in changed.iter().filter_map(|(address, wound)| Some((address, wound.as_ref()?))) {
            wounds.open.entry(address.clone()).or_insert_with(|| wound.clone());
        }
    }

    /// What a group has changed about wounds is on disk. A wound is healed no sooner, since one that seems healed and is
    /// not would be asked about no more.
    pub(crate) fn wounded(&self, changed: BTreeMap<Address, Option<Wound>>, aside: Option<usize>) {
        if changed.is_empty() && aside.is_none() {
            return;
        }
        let mut wounds = self.wounds_mut();
        wounds.aside = aside.unwrap_or(wounds.aside);
        for (address, wound) in changed {
            match wound {
                Some(wound) => drop(wounds.open.insert(address, wound)),
                None => {
                    wounds.open.remove(&address);
                    wounds.said.remove(&address);
                }
            }
        }
    }

    /// What is known of the damage to a key.
    fn wound_of(&self, group: &Group, address: &Address) -> Option<Wound> {
        match group.wounds.get(address) {
            Some(changed) => changed.clone(),
            None => self.wounds().open.get(address).cloned(),
        }
    }

    /// Whether other regions are being asked for a row.
    pub(crate) fn waits_for_rows(&self, group: &Group) -> bool {
        let waits = |wound: &Wound| !wound.without_copy;
        group.wounds.values().flatten().any(waits)
            || self.wounds().open.iter().any(|(address, wound)| !group.wounds.contains_key(address) && waits(wound))
    }

    /// Every write of a key that the logs on this disk have. Reads all of them.
    fn logged(&self, address: &Address) -> Result<Vec<Sibling>, DataError> {
        let (floors, mut found) = (self.store.floors(), Vec::new());
        for (origin, incarnation, end) in self.store.vector().iter() {
            let mut after = floors.offset(origin, incarnation);
            while after < end {
                let entries = self.store.shipments(origin, incarnation, after, SCRUB_BYTES)?;
                let Some(last) = entries.last() else { break };
                after = last.position().offset;
                for shipment in entries {
                    if let Shipment::Entry(entry) = shipment
                        && entry.address == *address
                    {
                        found.push(entry.sibling);
                    }
                }
            }
        }
        Ok(found)
    }

    pub(crate) fn is_wounded(&self, group: &Group, address: &Address) -> bool {
        self.wound_of(group, address).is_some()
    }

    /// Compares what a peer states of wounded keys, and heals those of which all have spoken.
    pub(crate) fn mend(
        &mut self,
        group: &mut Group,
        (mut span, asked): (Span, BTreeSet<Address>),
    ) -> Result<(), DataError> {
        if self.plans.load().stamp() != span.by {
            return Err(DataError::Overtaken { retry_after: crate::plane::RETRY_AFTER });
        }
        self.refuse_erased(&mut span);
        self.is_ahead(group, &span.vector);
        let refused = std::mem::take(&mut span.refused);
        for (address, given, rule) in refused {
            self.supersede(group, &address, &given.sibling, &given.permitted)?;
            group.refusals.add(&rule, 1);
        }
        for address in asked {
            if !self.is_wounded(group, &address) {
                continue;
            }
            self.hear_of(group, &span, address.clone())?;
            // Which may have ended the wound.
            let Some(mut wound) = self.wound_of(group, &address) else { continue };
            let said = (span.vector.clone(), span.partial.clone());
            self.wounds_mut().said.entry(address.clone()).or_default().insert(span.from.clone(), said);
            let enough = is_whole(&span, &wound);
            if enough || self.faults.makes(Fault::MendFromAny) {
                wound.heard.insert(span.from.clone());
            }
            let peers = self.acks.reached();
            let all = peers.keys().all(|peer| wound.heard.contains(peer)) || self.faults.makes(Fault::MendFromAny);
            let empty = self.row(group, &address)?.is_none();
            wound.without_copy = all && empty;
            if all && !empty && (enough || self.faults.makes(Fault::MendFromAny)) {
                self.heal(group, &address);
            } else {
                Self::keep_wound(group, address, wound);
            }
        }
        Ok(())
    }

    /// Whether another region has stated of a wounded key that it does not hold this write any more.
    pub(crate) fn is_said_gone(&self, address: &Address, given: &Given, from: &RegionId) -> bool {
        let Dot { actor, .. } = &given.sibling.version.dot;
        let log = (actor.region.clone(), actor.incarnation);
        let wounds = self.wounds();
        let mut said = wounds.said.get(address).into_iter().flatten().filter(|(peer, _)| *peer != from);
        said.any(|(peer, (vector, partial))| {
            given.permitted.contains(peer) && vector.covers_dot(&given.sibling.version.dot) && !partial.contains(&log)
        })
    }

    /// Something has come under a key of which no region had anything: it stands for itself, and ends the wound.
    pub(crate) fn heal_without_copy(&self, group: &mut Group, address: &Address) {
        if self.wound_of(group, address).is_some_and(|wound| wound.without_copy) {
            self.heal(group, address);
        }
    }

    /// Ends a wound. The damaged bytes stay aside.
    pub(crate) fn heal(&self, group: &mut Group, address: &Address) {
        metrics::counter!("repomind_rows_mended_total").increment(1);
        group.forget_fact(name(WOUND, address));
        group.wounds.insert(address.clone(), None);
    }

    /// What a write has seen that ends a wound without a copy. What was lost was written here, since no other region
    /// may hold it; so it has seen all that was.
    pub(crate) fn over_wound(&self, group: &Group, address: &Address) -> Result<Option<CausalContext>, DataError> {
        let Some(wound) = self.wound_of(group, address) else { return Ok(None) };
        if !wound.without_copy {
            return Err(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER });
        }
        let mut seen = CausalContext::new();
        for (region, incarnation, counter) in wound.vector.iter().filter(|(region, ..)| **region == self.me) {
            let actor = model::version::Actor { region: region.clone(), node: model::NodeId(0), incarnation };
            seen.observe(&Dot { actor, counter });
        }
        Ok(Some(seen))
    }

    /// Damaged bytes may be about anybody: they go with any erasure.
    pub(crate) fn drop_aside(&self, group: &mut Group) -> Result<(), DataError> {
        for (name, _) in self.store.facts(ASIDE)? {
            group.forget_fact(name);
        }
        group.aside = Some(0);
        Ok(())
    }
}

/// Whether who states is as far in its own logs as this region had been, but for those that it has lost with its disk.
fn is_whole(span: &Span, wound: &Wound) -> bool {
    let life = span.vector.newest(&span.from);
    wound.vector.iter().all(|(origin, incarnation, end)| {
        *origin != span.from || span.vector.offset(origin, incarnation) >= end || life > Some(incarnation)
    })
}
