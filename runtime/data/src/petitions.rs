//! Orders about a person, as this region carries them out.
//!
//! **Erasure** destroys the person's data keys, durably and before anything else; from then on what they encrypted is
//! noise, and neither a late entry nor a row of a peer brings a key or a value back: keys say which erasures their maker
//! knew of. Then every record about the person is deleted by a delete that names nobody, as a client would, so that
//! regions come to agree as ever. What may not be deleted here, because policies do not let this region hold it any
//! more, loses its value all the same.
//!
//! **A hold** beats an erasure and every delete: while one stands, records about the person are neither deleted nor
//! written over, and an erasure waits.
//!
//! Whether a region has carried an order out is a fact of its own disk: one that is put back from before an erasure carries
//! it out again, whatever it had acknowledged. Until it has heard of all orders, see [`DataPlane::fence`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use compliance::ledger::{LedgerEvent, RowKeyHasher};
use model::codec;
use model::names::Subject;
use model::petition::{Demand, Order, Petition};
use model::record::{Address, Content, Labels, Record, Row, Sibling};
use model::sealing::{OrderId, Owner};
use model::version::{Dot, LogPosition};
use store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::group::{Change, Group};
use crate::plane::DataPlane;
use crate::types::{DataError, LabelClaims, Write};
use crate::writer::Writer;

/// Before the names of the facts that are petitions.
pub(crate) const PETITION: &str = "petition/";
/// Before the names of the facts that say which orders were carried out here.
const DONE: &str = "order-done/";
/// Before the names of the facts that say who is held.
const HELD: &str = "held/";
/// How often records are looked for that came in while others were being deleted.
const ROUNDS: usize = 3;

/// What this region has done about an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarriedOut {
    /// Data keys destroyed.
    pub keys: u64,
    /// The records that it concerned, as the beginning of the keyed hash of each.
    pub records: Vec<[u8; 8]>,
}

/// What this region has about a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Every live value, opened.
    pub records: Vec<(Address, Record)>,
    /// Every value that lost against a concurrent write and is kept in the conflict log, opened.
    pub lost: Vec<(Address, Record)>,
    /// Values that could not be opened, with the reason.
    pub closed: Vec<(Address, String)>,
}

impl DataPlane {
    /// The owner that stands for a person.
    pub fn owner_of(&self, subject: &Subject) -> Owner {
        Owner::of_subject(&Owner::key(&self.shared.digest_key), subject)
    }

    /// All petitions that are kept here.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn petitions(&self) -> Result<Vec<Petition>, DataError> {
        let read = |(name, bytes): (String, Vec<u8>)| {
            codec::decode(&bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })
        };
        Ok(self.shared.store.facts(PETITION)?.into_iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Keeps the state of petitions; returns once it is on disk.
    ///
    /// # Errors
    /// [`DataError::Closed`].
    pub async fn keep_petitions(&self, petitions: &[(OrderId, Petition)]) -> Result<(), DataError> {
        let fact = |(id, petition): &(OrderId, Petition)| (format!("{PETITION}{id}"), codec::encode(petition));
        self.keep_facts(petitions.iter().map(fact).collect()).await
    }

    pub(crate) async fn keep_facts(&self, facts: Vec<(String, Vec<u8>)>) -> Result<(), DataError> {
        let (answer, durable) = oneshot::channel();
        self.wait_in_line(Change::Keep(facts, answer)).await?;
        durable.await.map_err(|_| DataError::Closed)?
    }

    /// Whether this region has carried an order out, by its own disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn has_carried_out(&self, order: OrderId) -> Result<bool, DataError> {
        Ok(self.shared.store.meta(&format!("{DONE}{order}"))?.is_some())
    }

    /// While it is fenced, a region opens no value: it may not have heard yet of an erasure that others have carried out,
    /// such as after it was put back from a copy with its keys.
    pub fn fence(&self, fenced: bool) {
        self.shared.fenced.store(fenced, Ordering::Release);
    }

    /// The holds that stand on a person, by the name of each.
    pub fn holds_on(&self, owner: Owner) -> Vec<String> {
        let held = self.shared.held.read().expect("nothing panics while it holds the lock");
        held.get(&owner).map(|holds| holds.values().cloned().collect()).unwrap_or_default()
    }

    /// Whether a hold keeps a record with these labels.
    pub fn is_held(&self, labels: &Labels) -> bool {
        let held = self.shared.held.read().expect("nothing panics while it holds the lock");
        !labels.holds.is_empty()
            || !held.is_empty()
                && labels.subject.as_ref().is_some_and(|subject| held.contains_key(&self.owner_of(subject)))
    }

    /// Refuses a write to a key with something that a hold keeps.
    pub(crate) fn not_held(&self, address: &Address) -> Result<(), DataError> {
        if self.shared.held.read().expect("nothing panics while it holds the lock").is_empty() {
            return Ok(());
        }
        let row = self.shared.store.row(address)?;
        let held = row.iter().flat_map(|row| &row.siblings).filter_map(|sibling| sibling.content.record());
        match held.into_iter().any(|record| self.is_held(&record.labels)) {
            true => Err(DataError::Held),
            false => Ok(()),
        }
    }

    /// Carries an order out here, durably, and says what that came to. Reads all rows.
    ///
    /// # Errors
    /// [`DataError::Held`] where a hold keeps what is to be erased; those of disk and store. An order that failed half way
    /// is carried out again, which changes nothing more.
    pub async fn carry_out(&self, order: &Order) -> Result<CarriedOut, DataError> {
        let done = match &order.demand {
            Demand::Erase => self.erase(order).await?,
            Demand::Hold { name } => {
                self.hold(order, name).await?;
                CarriedOut {
                    keys: 0,
                    records: self.records_of(order.owner).await?.into_iter().map(|(id, _)| id).collect(),
                }
            }
            Demand::Release { hold } => {
                self.release(order.owner, *hold).await?;
                CarriedOut::default()
            }
            Demand::Export => {
                let records = self.records_of(order.owner).await?;
                let alive = records.into_iter().filter(|(_, (_, row))| live(row));
                CarriedOut { keys: 0, records: alive.map(|(id, _)| id).collect() }
            }
        };
        let event = LedgerEvent::Petition {
            order: order.id,
            word: order.demand.name().to_owned(),
            count: u32::try_from(done.records.len()).unwrap_or(u32::MAX),
        };
        let (answer, durable) = oneshot::channel();
        self.wait_in_line(Change::Event(event, answer)).await?;
        durable.await.map_err(|_| DataError::Closed)??;
        self.keep_facts(vec![(format!("{DONE}{}", order.id), Vec::new())]).await?;
        Ok(done)
    }

    async fn hold(&self, order: &Order, name: &str) -> Result<(), DataError> {
        {
            let mut held = self.shared.held.write().expect("nothing panics while it holds the lock");
            held.entry(order.owner).or_default().insert(order.id, name.to_owned());
        }
        self.keep_facts(vec![(format!("{HELD}{}/{}", order.owner, order.id), name.as_bytes().to_vec())]).await
    }

    async fn release(&self, owner: Owner, hold: OrderId) -> Result<(), DataError> {
        let (answer, done) = oneshot::channel();
        let name = format!("{HELD}{owner}/{hold}");
        let Some(held) = self.shared.store.meta(&name)? else { return Ok(()) };
        self.wait_in_line(Change::Forget(vec![(name, held)], answer)).await?;
        done.await.map_err(|_| DataError::Closed)??;
        let mut held = self.shared.held.write().expect("nothing panics while it holds the lock");
        if let Some(holds) = held.get_mut(&owner) {
            holds.remove(&hold);
            if holds.is_empty() {
                held.remove(&owner);
            }
        }
        Ok(())
    }

    async fn erase(&self, order: &Order) -> Result<CarriedOut, DataError> {
        let marked: Vec<String> = self.holds_on(order.owner);
        let records = self.records_of(order.owner).await?;
        let labelled = |row: &Row| row.siblings.iter().any(|s| s.content.labels().is_some_and(|l| !l.holds.is_empty()));
        if !marked.is_empty() || records.iter().any(|(_, (_, row))| labelled(row)) {
            return Err(DataError::Held);
        }
        let keys = match &self.shared.vault {
            Some(vault) => vault.erase(order.owner, order.id)?.len() as u64,
            None => 0,
        };
        // What was decided by resolvers holds values.
        self.shared.settled.lock().expect("nothing panics while it holds the lock").clear();
        // Whatever was queued before this has either reached its row by then or is refused for its key.
        self.keep_facts(Vec::new()).await?;
        let mut gone = BTreeSet::new();
        // Before the rows: what an order is about is looked for until nothing of it is left.
        self.erase_losses(order.owner).await?;
        for _ in 0..ROUNDS {
            let rest: Vec<_> = self
                .records_of(order.owner)
                .await?
                .into_iter()
                .filter(|(_, (_, row))| self.is_before(row, order))
                .collect();
            if rest.is_empty() {
                break;
            }
            for (id, (address, row)) in rest {
                gone.insert(id);
                self.delete_for_good(&address, &row, order).await?;
            }
        }
        // Damaged bytes may be about anybody.
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::DropAside(answer)).await?;
        done.await.map_err(|_| DataError::Closed)??;
        // Also what lost meanwhile.
        self.erase_losses(order.owner).await?;
        // Without the key they are noise; what there was of the person goes all the same.
        self.sweep_soon().await?;
        let left = self.records_of(order.owner).await?.into_iter().any(|(_, (_, row))| self.is_before(&row, order));
        if left {
            return Err(DataError::Unready { retry_after: crate::plane::RETRY_AFTER });
        }
        Ok(CarriedOut { keys, records: gone.into_iter().collect() })
    }

    /// Whether the row has something about the person that is not of after the order.
    fn is_before(&self, row: &Row, order: &Order) -> bool {
        row.siblings.iter().any(|sibling| self.concerns(sibling, order.owner) && !self.is_after(sibling))
    }

    /// Whether a value was written after its owner was erased: then its key is here.
    fn is_after(&self, sibling: &Sibling) -> bool {
        let Some(record) = sibling.content.record() else { return false };
        record.payload.is_sealed()
            && self.shared.vault.as_ref().is_some_and(|vault| vault.fate_of(record) == crate::vault::Fate::Here)
    }

    pub(crate) fn concerns(&self, sibling: &Sibling, owner: Owner) -> bool {
        let subject = sibling.content.labels().and_then(|labels| labels.subject.as_ref());
        subject.is_some_and(|subject| self.owner_of(subject) == owner)
    }

    async fn delete_for_good(&self, address: &Address, row: &Row, order: &Order) -> Result<(), DataError> {
        let about = row.siblings.iter().filter(|sibling| self.concerns(sibling, order.owner));
        let Some(labels) = about.filter_map(|sibling| sibling.content.labels()).next() else { return Ok(()) };
        let claims = LabelClaims {
            subject: None,
            jurisdictions: Some(labels.jurisdictions.clone()),
            classes: Some(labels.classes.clone()),
            purpose: Some(labels.purpose),
            basis: Some(labels.basis),
            collected_at: Some(labels.collected_at),
            ..LabelClaims::default()
        };
        let delete = Write {
            address: address.clone(),
            value: None,
            content_type: String::new(),
            labels: claims,
            if_match: None,
            if_none_match: false,
            context: None,
            ack: Some(model::replication::AckLevel::LOCAL),
        };
        match self.write(delete).await {
            Ok(_) => Ok(()),
            // Where policies do not let this region hold it any more, or part of the row lives elsewhere.
            Err(DataError::Barred(_) | DataError::Elsewhere { .. } | DataError::PreconditionFailed) => {
                let (answer, done) = oneshot::channel();
                let which = about_owner(self, row, order.owner);
                self.wait_in_line(Change::Evict(address.clone(), which, answer)).await?;
                done.await.map_err(|_| DataError::Closed)?
            }
            Err(error) => Err(error),
        }
    }

    /// Every record with something about the person: its id, and its row. On a thread of its own.
    async fn records_of(&self, owner: Owner) -> Result<Vec<([u8; 8], (Address, Row))>, DataError> {
        let data = self.clone();
        let look = move || {
            let hasher = RowKeyHasher::new(&data.shared.digest_key);
            let mut found = Vec::new();
            data.shared.store.each_row(&mut |key, bytes| {
                let address = Store::address_of(key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
                let row: Row = codec::decode(bytes)
                    .map_err(|reason| StoreError::Corrupt { place: format!("row {address}"), reason })?;
                if row.siblings.iter().any(|sibling| data.concerns(sibling, owner)) {
                    let id: [u8; 8] = hasher.record(key).0[..8].try_into().expect("a hash has 32 bytes");
                    found.push((id, (address, row)));
                }
                Ok(())
            })?;
            Ok(found)
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(look).await.map_err(|_| DataError::Closed)?,
            Err(_) => look(),
        }
    }

    /// What this region has about a person, opened.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn held_about(&self, subject: &Subject) -> Result<Held, DataError> {
        let owner = self.owner_of(subject);
        let mut held = Held::default();
        for (_, (address, row)) in self.records_of(owner).await? {
            for sibling in row.siblings.iter().filter(|sibling| self.concerns(sibling, owner)) {
                let Some(record) = sibling.content.record() else { continue };
                match self.opened(&address, record) {
                    Ok(record) => held.records.push((address.clone(), record)),
                    Err(error) => held.closed.push((address.clone(), error.to_string())),
                }
            }
        }
        for loss in self.lost_of(owner)? {
            let Some(record) = loss.lost.content.record() else { continue };
            match self.opened(&loss.address, record) {
                Ok(record) => held.lost.push((loss.address.clone(), record)),
                Err(error) => held.closed.push((loss.address.clone(), error.to_string())),
            }
        }
        Ok(held)
    }
}

fn live(row: &Row) -> bool {
    row.siblings.iter().any(|sibling| matches!(sibling.content, Content::Live(_)))
}

fn about_owner(data: &DataPlane, row: &Row, owner: Owner) -> Vec<Dot> {
    let about = row.siblings.iter().filter(|sibling| data.concerns(sibling, owner));
    about.map(|sibling| sibling.version.dot.clone()).collect()
}

/// The holds of the store, by whom they keep.
pub(crate) fn read_holds(store: &Store) -> Result<BTreeMap<Owner, BTreeMap<OrderId, String>>, StoreError> {
    let mut held = BTreeMap::<Owner, BTreeMap<OrderId, String>>::new();
    for (name, bytes) in store.facts(HELD)? {
        let wrong = || StoreError::Key { place: format!("fact {name}") };
        let (owner, order) = name.strip_prefix(HELD).and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        let (owner, order) = owner.parse().ok().zip(order.parse().ok()).ok_or_else(wrong)?;
        held.entry(owner).or_default().insert(order, String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(held)
}

impl Writer {
    /// Takes the values of these writes out of their row, and leaves markers. This region does not hold their logs whole from
    /// then on: that it has not got them any more says to no other region that they were replaced.
    pub(crate) fn evict(&mut self, group: &mut Group, address: &Address, which: &[Dot]) -> Result<(), DataError> {
        let Some(mut row) = self.row(group, address)? else { return Ok(()) };
        for sibling in row.siblings.iter_mut().filter(|sibling| which.contains(&sibling.version.dot)) {
            let Dot { actor, counter } = &sibling.version.dot;
            let (origin, incarnation) = (actor.region.clone(), actor.incarnation);
            self.is_partial(group, &LogPosition { origin, incarnation, offset: *counter });
            if !sibling.is_marker() {
                *sibling = sibling.marker();
                group.left += 1;
            }
        }
        self.strip_losses(group, address)?;
        group.rows.insert(address.clone(), Some(row));
        Ok(())
    }
}
