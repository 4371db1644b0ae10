//! The conflict log: what lost against a concurrent write, by key, and bounded.
//!
//! ```text
//! entry   'e' || stored key || 0xFF || name     an envelope; no key contains 0xFF, which is not in UTF-8
//! order   'o' || number, 8 bytes big-endian     size of the entry, 4 bytes big-endian, and its key
//! ```
//!
//! Entries lie in the order in which they were first noted; changing one does not move it. Beyond a bound the oldest
//! go: of a key beyond [`Bounds::of_a_key`], of all beyond [`Bounds::entries`] and [`Bounds::bytes`]. That is decided
//! in the commit that adds too many.

use std::collections::BTreeMap;

use model::record::Address;

use crate::engine::{Batch, Engine, Space, prefixed};
use crate::{Store, StoreError, row_key};

pub(crate) const ENTRY: u8 = b'e';
const ORDER: u8 = b'o';
/// Between the stored key and the name of an entry.
const END_OF_KEY: u8 = 0xFF;

/// How much of the conflict log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries of all keys.
    pub entries: usize,
    /// Bytes of all entries.
    pub bytes: u64,
    /// Entries of one key.
    pub of_a_key: usize,
}

/// The bounds of every region.
pub const LOSS_BOUNDS: Bounds = Bounds { entries: 20_000, bytes: 64 << 20, of_a_key: 64 };

/// A change of the conflict log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossChange {
    /// The entry's key: [`loss_key`].
    pub key: Vec<u8>,
    /// Its envelope; none where it goes.
    pub envelope: Option<Vec<u8>>,
}

/// An entry: its number, its key, and its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLoss {
    /// The greater, the later it was noted.
    pub number: u64,
    /// See [`loss_key`].
    pub key: Vec<u8>,
    /// As it lies on disk.
    pub envelope: Vec<u8>,
}

/// Where an entry lies: below its record's key, by a name.
pub fn loss_key(address: &Address, name: &str) -> Vec<u8> {
    [&below(address), name.as_bytes()].concat()
}

fn below(address: &Address) -> Vec<u8> {
    [&[ENTRY], row_key(address).as_slice(), &[END_OF_KEY]].concat()
}

fn order_key(number: u64) -> Vec<u8> {
    [&[ORDER], number.to_be_bytes().as_slice()].concat()
}

/// What is in the log, without the entries themselves.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    by_key: BTreeMap<Vec<u8>, (u64, u32)>,
    by_number: BTreeMap<u64, Vec<u8>>,
    bytes: u64,
    next: u64,
    crowded_out: u64,
}

/// How large the conflict log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCount {
    /// Entries.
    pub entries: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// How many have gone since the store was opened, because there were too many.
    pub crowded_out: u64,
}

impl Shelf {
    pub(crate) fn read(engine: &dyn Engine) -> Result<Self, StoreError> {
        let mut shelf = Self::default();
        for pair in engine.range(Space::Losses, prefixed(&[ORDER])) {
            let (key, value) = pair?;
            let number = key.get(1..).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
            let size = value.split_first_chunk().map(|(size, key)| (u32::from_be_bytes(*size), key.to_vec()));
            // What cannot be read is passed over: the entry is found no more, and nothing stops for it.
            if let (Some(number), Some((size, key))) = (number, size) {
                shelf.put(number, key, size);
            }
        }
        Ok(shelf)
    }

    fn put(&mut self, number: u64, key: Vec<u8>, size: u32) {
        self.next = self.next.max(number + 1);
        self.bytes += u64::from(size);
        self.by_number.insert(number, key.clone());
        if let Some((before, size)) = self.by_key.insert(key, (number, size)) {
            self.bytes -= u64::from(size);
            if before != number {
                self.by_number.remove(&before);
            }
        }
    }

    fn remove(&mut self, batch: &mut Batch, key: &[u8]) -> bool {
        let Some((number, size)) = self.by_key.remove(key) else { return false };
        self.bytes -= u64::from(size);
        self.by_number.remove(&number);
        batch.remove(Space::Losses, order_key(number));
        batch.remove(Space::Losses, key);
        true
    }

    /// Puts changes into the batch that makes them.
    pub(crate) fn change(&mut self, batch: &mut Batch, changes: Vec<LossChange>, bounds: Bounds) {
        for LossChange { key, envelope } in changes {
            let Some(envelope) = envelope else {
                self.remove(batch, &key);
                continue;
            };
            let number = self.by_key.get(&key).map_or(self.next, |(number, _)| *number);
            let size = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
            batch.insert(Space::Losses, order_key(number), [size.to_be_bytes().as_slice(), &key].concat());
            batch.insert(Space::Losses, key.clone(), envelope);
            self.put(number, key.clone(), size);
            let end = key.iter().position(|byte| *byte == END_OF_KEY).map_or(key.len(), |at| at + 1);
            let siblings =
                self.by_key.range(key[..end].to_vec()..).take_while(|(other, _)| other[..].starts_with(&key[..end]));
            let siblings: Vec<(u64, Vec<u8>)> = siblings.map(|(key, (number, _))| (*number, key.clone())).collect();
            if siblings.len() > bounds.of_a_key
                && let Some((_, oldest)) = siblings.into_iter().min()
            {
                self.crowded_out += u64::from(self.remove(batch, &oldest));
            }
        }
        while self.by_key.len() > bounds.entries || self.bytes > bounds.bytes {
            let Some(oldest) = self.by_number.values().next().cloned() else { break };
            self.crowded_out += u64::from(self.remove(batch, &oldest));
        }
    }
}

impl Store {
    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().expect("nothing panics while it holds the lock")
    }

    /// How large the conflict log is.
    pub fn loss_count(&self) -> LossCount {
        let Shelf { by_key, bytes, crowded_out, .. } = &*self.shelf();
        LossCount { entries: by_key.len(), bytes: *bytes, crowded_out: *crowded_out }
    }

    /// The entry of this key, as stored.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn loss(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine.get(Space::Losses, key)?.map(|bytes| bytes.to_vec()))
    }

    /// All entries of a record, the oldest first.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn losses_of(&self, address: &Address) -> Result<Vec<StoredLoss>, StoreError> {
        let prefix = below(address);
        let mut found: Vec<(u64, Vec<u8>)> = {
            let shelf = self.shelf();
            let own = shelf.by_key.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            own.map(|(key, (number, _))| (*number, key.clone())).collect()
        };
        found.sort_unstable();
        self.read_losses(found)
    }

    /// Up to `limit` entries that were noted before the one with this number, the newest first.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn losses_before(&self, number: Option<u64>, limit: usize) -> Result<Vec<StoredLoss>, StoreError> {
        let found: Vec<(u64, Vec<u8>)> = {
            let shelf = self.shelf();
            let earlier = shelf.by_number.range(..number.unwrap_or(u64::MAX)).rev().take(limit);
            earlier.map(|(number, key)| (*number, key.clone())).collect()
        };
        self.read_losses(found)
    }

    /// The oldest entries, up to `limit`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn first_losses(&self, limit: usize) -> Result<Vec<StoredLoss>, StoreError> {
        let found = self.shelf().by_number.iter().take(limit).map(|(number, key)| (*number, key.clone())).collect();
        self.read_losses(found)
    }

    fn read_losses(&self, found: Vec<(u64, Vec<u8>)>) -> Result<Vec<StoredLoss>, StoreError> {
        let mut losses = Vec::with_capacity(found.len());
        for (number, key) in found {
            if let Some(envelope) = self.loss(&key)? {
                losses.push(StoredLoss { number, key, envelope });
            }
        }
        Ok(losses)
    }
}

#[cfg(test)]
mod tests {
    use model::{Key, Namespace, UnixMillis};

    use super::*;
    use crate::{Commit, memory::Disk};

    fn address(key: &str) -> Address {
        Address { namespace: Namespace::new("notes").unwrap(), key: Key::new(key).unwrap() }
    }

    fn keep(store: &Store, key: &str, name: &str, bytes: usize) {
        let change = LossChange { key: loss_key(&address(key), name), envelope: Some(vec![7; bytes]) };
        store.commit(Commit { losses: vec![change], ..Commit::default() }).unwrap();
    }

    #[test]
    fn the_log_of_conflicts_is_bounded_by_key_in_number_and_in_bytes_and_the_oldest_go() {
        let disk = Disk::new();
        let store = Store::open_in_memory(&disk, UnixMillis(1)).unwrap();
        for number in 0..LOSS_BOUNDS.of_a_key + 3 {
            keep(&store, "a", &format!("{number:04}"), 10);
        }
        keep(&store, "ab", "0000", 10);
        let names = |key: &str| -> Vec<String> {
            let losses = store.losses_of(&address(key)).unwrap();
            let name = |loss: StoredLoss| {
                String::from_utf8_lossy(loss.key.rsplit(|b| *b == END_OF_KEY).next().unwrap()).into_owned()
            };
            losses.into_iter().map(name).collect()
        };
        assert_eq!(names("a").len(), LOSS_BOUNDS.of_a_key);
        assert_eq!(names("a")[0], "0003");
        assert_eq!(names("ab"), ["0000"]);

        // Changing an entry does not make it younger.
        keep(&store, "a", "0003", 20);
        assert_eq!(names("a")[0], "0003");
        let (entries, bytes) = (LOSS_BOUNDS.of_a_key + 1, 10 * LOSS_BOUNDS.of_a_key as u64 + 20);
        assert_eq!(store.loss_count(), LossCount { entries, bytes, crowded_out: 3 });

        let large = usize::try_from(LOSS_BOUNDS.bytes).unwrap() / 4;
        for key in ["p", "q", "r", "s"] {
            keep(&store, key, "0000", large);
        }
        assert!(store.loss_count().bytes <= LOSS_BOUNDS.bytes);
        assert_eq!((names("a").len(), names("s").len()), (0, 1));

        // As it is found again.
        let before = store.loss_count();
        let store = Store::open_in_memory(&disk, UnixMillis(1)).unwrap();
        assert_eq!(store.loss_count(), LossCount { crowded_out: 0, ..before });
        let newest = store.losses_before(None, 2).unwrap();
        assert_eq!(newest[0].key, loss_key(&address("s"), "0000"));
        assert_eq!(store.losses_before(Some(newest[1].number), 9).unwrap().len(), before.entries - 2);
    }
}
