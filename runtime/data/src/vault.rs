//! The data keys of a region, and the values that they encrypt.
//!
//! Every owner, a person or else a single record, has a data key for each set of regions that may hold its values.
//! A value is encrypted once, where it is written; what is shipped, given and compared is the ciphertext. The key goes
//! to every region that may hold the value, encrypted for that region alone ([`model::sealing::KeyParcel`]), and each
//! keeps it under its own region key ([`ring`]) in a file that is overwritten in place ([`slots`]). The store holds only
//! whose each key is, which is no secret.
//!
//! Facts in the store, committed at the latest with the first value that needs them:
//!
//! ```text
//! keys-of/OWNER/KEY     KeyFacts
//! gone/KEY              the key was destroyed, or belongs to an owner that was erased before it came
//! erased/OWNER/ORDER    the owner was erased by this order
//! ```
//!
//! A region that has no vault stores what it is given; that is for simulators.

mod error;
mod going;
mod objects;
mod parcels;
pub mod ring;
mod slots;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use model::record::{Address, Payload, Record};
use model::residency::{PermittedRegions, ScopeId};
use model::sealing::{DataKeyId, KeyFacts, OrderId, Owner, RegionPublicKey, bound};
use model::{RegionId, UnixMillis, codec};
use store::{Store, StoreError};

pub use error::VaultError;
pub(crate) use objects::{decrypt_piece, encrypt_piece, object_key};
use ring::{DataKey, RegionKeyId, RegionKeys, decrypt, encrypt, random};
use slots::SlotFile;

/// Before the names of the facts about keys.
const KEYS_OF: &str = "keys-of/";
/// Before the names of keys that are gone.
const GONE: &str = "gone/";
/// Before the names of keys that went from here because policies did not let their values stay.
const DROPPED: &str = "dropped/";
/// Before the names of owners that were erased.
const ERASED: &str = "erased/";
/// Keys that are made ahead, so that a write need not wait for the disk twice.
const SPARES: usize = 256;
/// Owners whose keys are remembered; more are looked up in the store.
const REMEMBERED: usize = 64 * 1024;
/// Keys that are wrapped anew in one go.
const REWRAPPED: usize = 1024;

/// Where the keys of a region are.
#[derive(Clone)]
pub struct KeyPlace {
    /// Its region keys.
    pub ring: Arc<dyn RegionKeys>,
    /// The file of its data keys.
    pub slots: PathBuf,
}

impl KeyPlace {
    /// Both in files of `dir`, which is made if need be.
    ///
    /// # Errors
    /// [`VaultError::File`], [`VaultError::Content`].
    pub fn in_files(dir: &Path, now: UnixMillis) -> Result<Self, VaultError> {
        std::fs::create_dir_all(dir).map_err(|source| VaultError::File { path: dir.to_owned(), source })?;
        let ring = Arc::new(ring::FileRing::open(&dir.join(Self::REGION_KEYS), now)?);
        Ok(Self { ring, slots: dir.join(Self::DATA_KEYS) })
    }

    /// The name of the file of region keys.
    pub const REGION_KEYS: &'static str = "region.keys";
    /// The name of the file of data keys.
    pub const DATA_KEYS: &'static str = "data.keys";
}

/// A key that a peer needs.
pub(crate) struct Wanted {
    pub(crate) id: DataKeyId,
    pub(crate) owner: Owner,
    /// Whether this region has made what it opens.
    pub(crate) ours: bool,
}

/// 16 random bytes, for a name that is made once.
///
/// # Errors
/// [`VaultError::Crypto`].
pub fn random_name() -> Result<[u8; 16], VaultError> {
    random()
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Here,
    Gone,
    Unknown,
}

/// A key whose facts are not known to be on disk.
struct Fresh {
    facts: KeyFacts,
    /// Whether a commit is under way that has them.
    taken: bool,
}

#[derive(Default)]
struct Table {
    /// The slot of each key.
    held: HashMap<DataKeyId, u32>,
    /// Those of them that nothing was encrypted with.
    spare: Vec<DataKeyId>,
    /// What is encrypted with, by owner and scope.
    writing: HashMap<(Owner, ScopeId), DataKeyId>,
    fresh: HashMap<DataKeyId, Fresh>,
    gone: HashSet<DataKeyId>,
    /// Keys that went because their values did.
    dropped: HashSet<DataKeyId>,
    /// Keys that are about to go: nothing that needs them is let in.
    barred: HashSet<DataKeyId>,
    /// Facts about what is gone that are not on disk.
    unkept: Vec<(String, Vec<u8>)>,
    erased: HashMap<Owner, BTreeSet<OrderId>>,
}

/// The keys of one region.
pub struct Vault {
    me: RegionId,
    ring: Arc<dyn RegionKeys>,
    owner_key: [u8; 32],
    store: Store,
    /// Locked before the table where both are.
    slots: Mutex<SlotFile>,
    reader: File,
    table: RwLock<Table>,
}

/// What wraps a key in a region.
fn context(region: &RegionId, id: DataKeyId) -> Vec<u8> {
    format!("repomind data key 1\n{region}\n{id}").into_bytes()
}

/// The fact that a key went from here and is not gone.
pub(crate) fn dropped_fact(id: DataKeyId) -> String {
    format!("{DROPPED}{id}")
}

pub(crate) fn key_fact(owner: Owner, id: DataKeyId) -> String {
    format!("{KEYS_OF}{owner}/{id}")
}

fn damaged(name: &str) -> StoreError {
    StoreError::Key { place: format!("fact {name}") }
}

fn last_word<T: std::str::FromStr>(name: &str) -> Result<T, StoreError> {
    name.rsplit('/').next().and_then(|word| word.parse().ok()).ok_or_else(|| damaged(name))
}

impl Vault {
    /// Opens the keys of `me`, whose store this is. `secret` is shared by all regions.
    pub(crate) fn open(me: &RegionId, place: &KeyPlace, secret: &[u8], store: &Store) -> Result<Self, VaultError> {
        let (slots, held) = SlotFile::open(&place.slots)?;
        let reader = slots.reader()?;
        let mut table = Table { held: held.into_iter().collect(), ..Table::default() };
        for (name, _) in store.facts(GONE)? {
            table.gone.insert(last_word(&name)?);
        }
        for (name, _) in store.facts(DROPPED)? {
            table.dropped.insert(last_word(&name)?);
        }
        for (name, _) in store.facts(ERASED)? {
            let owner = name.strip_prefix(ERASED).and_then(|rest| rest.split('/').next()?.parse().ok());
            let owner = owner.ok_or_else(|| damaged(&name))?;
            table.erased.entry(owner).or_default().insert(last_word(&name)?);
        }
        let vault = Self {
            me: me.clone(),
            ring: place.ring.clone(),
            owner_key: Owner::key(secret),
            store: store.clone(),
            slots: Mutex::new(slots),
            reader,
            table: RwLock::new(table),
        };
        vault.wipe_again()?;
        // A rotation that was interrupted.
        if vault.ring.made().len() > 1 {
            vault.rewrap()?;
        }
        Ok(vault)
    }

    /// Destroys keys that are gone by what the store says and lie here all the same: their file was put back.
    fn wipe_again(&self) -> Result<(), VaultError> {
        let mut slots = self.slots();
        let mut table = self.table_mut();
        let back: Vec<(DataKeyId, u32)> =
            table.gone.iter().filter_map(|id| Some((*id, *table.held.get(id)?))).collect();
        slots.wipe(&back.iter().map(|(_, place)| *place).collect::<Vec<_>>())?;
        for (id, _) in back {
            table.held.remove(&id);
        }
        Ok(())
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().expect("nothing panics while it holds the lock")
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().expect("nothing panics while it holds the lock")
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, SlotFile> {
        self.slots.lock().expect("nothing panics while it holds the lock")
    }

    /// Whose the record is.
    pub(crate) fn owner_of(&self, address: &Address, labels: &model::record::Labels) -> Owner {
        Owner::of_record(&self.owner_key, address, labels)
    }

    /// The owner that stands for a person.
    pub fn owner_of_subject(&self, subject: &model::names::Subject) -> Owner {
        Owner::of_subject(&self.owner_key, subject)
    }

    /// Encrypts the value of a record that `regions` may hold.
    pub(crate) fn seal(
        &self,
        address: &Address,
        mut record: Record,
        regions: &PermittedRegions,
    ) -> Result<Record, VaultError> {
        let Payload::Plain(value) = &record.payload else { return Ok(record) };
        let id = self.key_for(self.owner_of(address, &record.labels), regions)?;
        let nonce = random()?;
        let ciphertext = encrypt(&self.data_key(id)?, nonce, &bound(address, &record), value)?;
        record.payload = Payload::Sealed { key_ref: id.to_string(), nonce, ciphertext: ciphertext.into() };
        Ok(record)
    }

    /// The record with its value in plain text.
    pub(crate) fn opened(&self, address: &Address, record: &Record) -> Result<Record, VaultError> {
        if record.payload.object().is_some() {
            // Its value is read chunk by chunk; here only whether it can be.
            return self.object_key_of(address, record).map(|_| record.clone());
        }
        let Payload::Sealed { nonce, ciphertext, .. } = &record.payload else { return Ok(record.clone()) };
        let id = record.payload.data_key().ok_or(VaultError::NotBound)?;
        let value = decrypt(&self.data_key(id)?, *nonce, &bound(address, record), ciphertext);
        let payload = Payload::Plain(Bytes::from(value.ok_or(VaultError::NotBound)?));
        Ok(Record { payload, ..record.clone() })
    }

    fn data_key(&self, id: DataKeyId) -> Result<DataKey, VaultError> {
        let place = {
            let table = self.table();
            match table.held.get(&id) {
                Some(place) => *place,
                None if table.gone.contains(&id) => return Err(VaultError::Erased),
                None => return Err(VaultError::NoKey(id)),
            }
        };
        let read = slots::at(&self.reader, place);
        let read = read.map_err(|source| VaultError::File { path: "the file of data keys".into(), source })?;
        // Destroyed, and its slot used again, since it was looked up.
        let wrapped = read.filter(|(there, _)| *there == id).ok_or(VaultError::Erased)?.1;
        self.ring.unwrap(&wrapped, &context(&self.me, id))
    }

    /// What became of a key.
    pub(crate) fn fate(&self, id: DataKeyId) -> Fate {
        let table = self.table();
        match (table.held.contains_key(&id) && !table.barred.contains(&id), table.gone.contains(&id)) {
            (_, true) => Fate::Gone,
            (true, _) => Fate::Here,
            (false, false) => Fate::Unknown,
        }
    }

    /// The fate of the key of a record; [`Fate::Here`] where it has none.
    pub(crate) fn fate_of(&self, record: &Record) -> Fate {
        match record.payload.is_sealed() {
            false => Fate::Here,
            // A name that is none: nothing ever opens it.
            true => record.payload.data_key().map_or(Fate::Gone, |id| self.fate(id)),
        }
    }

    fn key_for(&self, owner: Owner, regions: &PermittedRegions) -> Result<DataKeyId, VaultError> {
        let place = (owner, regions.scope());
        if let Some(id) = self.table().writing.get(&place) {
            return Ok(*id);
        }
        let known = self.find_key(owner, regions)?;
        if self.table().spare.is_empty() && known.is_none() {
            self.make_spares()?;
        }
        let mut table = self.table_mut();
        if let Some(id) = table.writing.get(&place) {
            return Ok(*id);
        }
        let id = match known {
            Some(id) => id,
            None => {
                let id = table.spare.pop().ok_or(VaultError::Crypto("making a data key"))?;
                let after = table.erased.get(&owner).cloned().unwrap_or_default();
                let facts = KeyFacts { owner, regions: regions.regions().clone(), after };
                table.fresh.insert(id, Fresh { facts, taken: false });
                id
            }
        };
        if table.writing.len() >= REMEMBERED {
            table.writing.clear();
        }
        table.writing.insert(place, id);
        Ok(id)
    }

    /// A key of the owner for these very regions that is here.
    fn find_key(&self, owner: Owner, regions: &PermittedRegions) -> Result<Option<DataKeyId>, VaultError> {
        for (name, bytes) in self.store.facts(&format!("{KEYS_OF}{owner}/"))? {
            let id = last_word(&name)?;
            if self.fate(id) == Fate::Here && read_facts(&name, &bytes)?.regions == *regions.regions() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Makes keys ahead before they run out, where that makes no request wait.
    pub(crate) fn stock(&self) {
        if self.table().spare.len() < SPARES / 4
            && let Err(error) = self.make_spares()
        {
            tracing::error!(%error, "no data keys could be made ahead");
        }
    }

    /// Makes keys ahead, durably.
    fn make_spares(&self) -> Result<(), VaultError> {
        let mut slots = self.slots();
        if self.table().spare.len() >= SPARES / 4 {
            return Ok(());
        }
        let mut keys = Vec::with_capacity(SPARES);
        for _ in 0..SPARES {
            let id = DataKeyId(random()?);
            keys.push((id, self.ring.wrap(&random()?, &context(&self.me, id))?));
        }
        let places = slots.put(&keys)?;
        let mut table = self.table_mut();
        for ((id, _), place) in keys.into_iter().zip(places) {
            table.held.insert(id, place);
            table.spare.push(id);
        }
        Ok(())
    }

    /// Facts that the next commit has to keep.
    pub(crate) fn unkept(&self) -> Vec<(String, Vec<u8>)> {
        if self.table().fresh.is_empty() && self.table().unkept.is_empty() {
            return Vec::new();
        }
        let mut table = self.table_mut();
        let mut facts = std::mem::take(&mut table.unkept);
        for (id, fresh) in table.fresh.iter_mut().filter(|(_, fresh)| !fresh.taken) {
            fresh.taken = true;
            facts.push((key_fact(fresh.facts.owner, *id), codec::encode(&fresh.facts)));
        }
        facts
    }

    /// What [`Vault::unkept`] gave last is on disk.
    pub(crate) fn kept(&self) {
        if !self.table().fresh.is_empty() {
            self.table_mut().fresh.retain(|_, fresh| !fresh.taken);
        }
    }

    /// The key by which other regions give this one data keys.
    pub fn public_key(&self) -> RegionPublicKey {
        self.ring.public()
    }

    /// The region keys and when each was made, the newest last.
    pub fn region_keys(&self) -> Vec<(RegionKeyId, UnixMillis)> {
        self.ring.made()
    }

    /// Makes a new region key, wraps every data key with it, and destroys the old one. Gives how many data keys that was.
    ///
    /// # Errors
    /// Those of the files; what was done until then stays, and the next call goes on.
    pub fn rotate(&self, now: UnixMillis) -> Result<u64, VaultError> {
        {
            // Whoever wraps a key holds the slots: nothing is wrapped with the old one any more after this.
            let _slots = self.slots();
            self.ring.renew(now)?;
        }
        self.rewrap()
    }

    fn rewrap(&self) -> Result<u64, VaultError> {
        let all: Vec<DataKeyId> = self.table().held.keys().copied().collect();
        let mut done = 0;
        for some in all.chunks(REWRAPPED) {
            let mut slots = self.slots();
            let mut wrapped = Vec::with_capacity(some.len());
            for id in some {
                // Destroyed meanwhile, or made since with the new key.
                let Some(place) = self.table().held.get(id).copied() else { continue };
                let data_key = self.data_key(*id)?;
                wrapped.push((*id, place, self.ring.wrap(&data_key, &context(&self.me, *id))?));
            }
            slots.replace(&wrapped)?;
            done += wrapped.len() as u64;
        }
        self.ring.retire()?;
        Ok(done)
    }

    /// The region is closing: keys that nothing was encrypted with go.
    pub(crate) fn close(&self) {
        let mut slots = self.slots();
        let mut table = self.table_mut();
        let spare = std::mem::take(&mut table.spare);
        let places: Vec<u32> = spare.iter().filter_map(|id| table.held.remove(id)).collect();
        if let Err(error) = slots.wipe(&places) {
            tracing::warn!(%error, "unused data keys stay in their file");
        }
    }

    /// Every key that is here, with the region key that wraps it and what is known of it: what an audit is shown, which
    /// is no secret.
    ///
    /// # Errors
    /// Those of the file and of the store.
    pub fn each_key(
        &self,
        visit: &mut dyn FnMut(DataKeyId, RegionKeyId, Option<&KeyFacts>) -> bool,
    ) -> Result<(), VaultError> {
        let mut facts = HashMap::new();
        for (name, bytes) in self.store.facts(KEYS_OF)? {
            facts.insert(last_word::<DataKeyId>(&name)?, read_facts(&name, &bytes)?);
        }
        let places: Vec<u32> = {
            let table = self.table();
            let spare: HashSet<DataKeyId> = table.spare.iter().copied().collect();
            table.held.iter().filter(|(id, _)| !spare.contains(*id)).map(|(_, place)| *place).collect()
        };
        for place in places {
            let read = slots::at(&self.reader, place);
            let read = read.map_err(|source| VaultError::File { path: "the file of data keys".into(), source })?;
            if let Some((id, wrapped)) = read
                && !visit(id, wrapped.by, facts.get(&id))
            {
                break;
            }
        }
        Ok(())
    }
}

fn read_facts(name: &str, bytes: &[u8]) -> Result<KeyFacts, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })
}
