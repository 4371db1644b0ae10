//! Where the ledger lies: leaves by index, interior nodes by level and position, and the list of row images of each
//! commit by the index of its leaf.
//!
//! ```text
//! leaf    'l' || index, 8 bytes big-endian
//! images  'i' || index of the commit's leaf
//! node    'n' || level || position, 8 bytes big-endian
//! owner   'r' || record, 32 bytes    the index of the last list that has it
//! live    'c' || index               how many records that list is the last of, 4 bytes big-endian
//! ```
//!
//! Owners and counts tell which lists say nothing any more that a later one does not say. They are kept by an
//! [`ImagePass`], well after the commits, and may be lost with the power: then the pass is made again.

use crate::engine::{Batch, Durability, Space, prefixed};
use crate::{Store, StoreError};

pub(crate) const LEAF: u8 = b'l';
pub(crate) const IMAGES: u8 = b'i';
const NODE: u8 = b'n';
const OWNER: u8 = b'r';
const LIVE: u8 = b'c';
/// The fact that says from which leaf on the lists have not been looked at yet.
const PASSED: &str = "ledger/images-passed";

/// The key of a leaf or a list of images.
pub(crate) fn indexed(kind: u8, index: u64) -> Vec<u8> {
    [&[kind], index.to_be_bytes().as_slice()].concat()
}

/// The index in such a key.
pub(crate) fn index_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

fn node_key(level: u8, position: u64) -> Vec<u8> {
    [&[NODE, level], position.to_be_bytes().as_slice()].concat()
}

/// One leaf, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLeaf {
    /// Its index, from 0.
    pub index: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The interior nodes that it completed, by level and position.
    pub nodes: Vec<((u8, u64), [u8; 32])>,
    /// The list of row images, where it stands for a commit.
    pub images: Option<Vec<u8>>,
}

impl StoredLeaf {
    pub(crate) fn put(self, batch: &mut Batch) {
        batch.insert(Space::Ledger, indexed(LEAF, self.index), self.bytes);
        for ((level, position), hash) in self.nodes {
            batch.insert(Space::Ledger, node_key(level, position), hash);
        }
        if let Some(images) = self.images {
            batch.insert(Space::Ledger, indexed(IMAGES, self.index), images);
        }
    }
}

impl Store {
    /// How many leaves there are, by the index of the last.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Key`].
    pub fn leaf_count(&self) -> Result<u64, StoreError> {
        let Some(last) = self.engine.range(Space::Ledger, prefixed(&[LEAF])).next_back() else { return Ok(0) };
        let index = index_of(&last?.0).ok_or_else(|| StoreError::Key { place: "the ledger".into() })?;
        Ok(index.saturating_add(1))
    }

    /// The bytes of a leaf.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn leaf(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine.get(Space::Ledger, &indexed(LEAF, index))?.map(|bytes| bytes.to_vec()))
    }

    /// An interior node, where it was stored whole.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn node(&self, level: u8, position: u64) -> Result<Option<[u8; 32]>, StoreError> {
        Ok(self.engine.get(Space::Ledger, &node_key(level, position))?.and_then(|bytes| bytes.as_ref().try_into().ok()))
    }

    /// The list of row images of the leaf with this index.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn images(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine.get(Space::Ledger, &indexed(IMAGES, index))?.map(|bytes| bytes.to_vec()))
    }

    /// From which leaf on lists have not been looked at yet, and up to `limit` of them from there.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Key`].
    pub fn images_to_pass(&self, limit: usize) -> Result<(u64, IndexedBytes), StoreError> {
        let passed = self.meta(PASSED)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        let (_, to) = prefixed(&[IMAGES]);
        let from = std::ops::Bound::Included(indexed(IMAGES, passed));
        let mut found = Vec::new();
        for pair in self.engine.range(Space::Ledger, (from, to)).take(limit) {
            let (key, value) = pair?;
            let index = index_of(&key).ok_or_else(|| StoreError::Key { place: "the ledger".into() })?;
            found.push((index, value.to_vec()));
        }
        Ok((passed, found))
    }

    /// The last list that was passed and has this record.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn owner_of(&self, record: &[u8; 32]) -> Result<Option<u64>, StoreError> {
        let stored = self.engine.get(Space::Ledger, &owner_key(record))?;
        Ok(stored.and_then(|bytes| bytes.as_ref().try_into().ok()).map(u64::from_be_bytes))
    }

    /// Of how many records a list is the last.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn live_images(&self, index: u64) -> Result<u32, StoreError> {
        let stored = self.engine.get(Space::Ledger, &indexed(LIVE, index))?;
        Ok(stored.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u32::from_be_bytes))
    }

    /// Puts down what a look at the lists found, and removes those of which nothing is live. Gives how many went.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn pass_images(&self, pass: ImagePass) -> Result<u64, StoreError> {
        let mut batch = Batch::default();
        batch.insert(Space::Meta, crate::fact(PASSED), pass.passed.to_be_bytes());
        for (record, index) in pass.owners {
            batch.insert(Space::Ledger, owner_key(&record), index.to_be_bytes());
        }
        let mut gone = 0;
        for (index, live) in pass.live {
            if live == 0 {
                batch.remove(Space::Ledger, indexed(LIVE, index));
                batch.remove(Space::Ledger, indexed(IMAGES, index));
                gone += 1;
            } else {
                batch.insert(Space::Ledger, indexed(LIVE, index), live.to_be_bytes());
            }
        }
        self.engine.apply(batch, Durability::Buffered)?;
        Ok(gone)
    }
}

/// Bytes by index.
pub type IndexedBytes = Vec<(u64, Vec<u8>)>;

/// What a look at some lists of row images found.
#[derive(Debug, Default)]
pub struct ImagePass {
    /// Everything before this leaf has been looked at.
    pub passed: u64,
    /// The last list of each record that was in them.
    pub owners: Vec<([u8; 32], u64)>,
    /// Of how many records the lists that changed are the last; a list with none goes.
    pub live: Vec<(u64, u32)>,
}

fn owner_key(record: &[u8; 32]) -> Vec<u8> {
    [&[OWNER], record.as_slice()].concat()
}
