//! Where the ledger lies: leaves by index, interior nodes by level and position, and the list of row images of each
//! commit by the index of its leaf.
//!
//! ```text
//! leaf    'l' || index, 8 bytes big-endian
//! images  'i' || index of the commit's leaf
//! node    'n' || level || position, 8 bytes big-endian
//! ```

use fjall::{Keyspace, OwnedWriteBatch};

use crate::{Store, StoreError};

pub(crate) const LEAF: u8 = b'l';
pub(crate) const IMAGES: u8 = b'i';
const NODE: u8 = b'n';

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
    pub(crate) fn put(self, batch: &mut OwnedWriteBatch, ledger: &Keyspace) {
        batch.insert(ledger, indexed(LEAF, self.index), self.bytes);
        for ((level, position), hash) in self.nodes {
            batch.insert(ledger, node_key(level, position), hash);
        }
        if let Some(images) = self.images {
            batch.insert(ledger, indexed(IMAGES, self.index), images);
        }
    }
}

impl Store {
    /// How many leaves there are, by the index of the last.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Key`].
    pub fn leaf_count(&self) -> Result<u64, StoreError> {
        let Some(last) = self.ledger.prefix([LEAF]).next_back() else { return Ok(0) };
        let index = index_of(&last.key()?).ok_or_else(|| StoreError::Key { place: "the ledger".into() })?;
        Ok(index.saturating_add(1))
    }

    /// The bytes of a leaf.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn leaf(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.ledger.get(indexed(LEAF, index))?.map(|bytes| bytes.to_vec()))
    }

    /// An interior node, where it was stored whole.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn node(&self, level: u8, position: u64) -> Result<Option<[u8; 32]>, StoreError> {
        Ok(self.ledger.get(node_key(level, position))?.and_then(|bytes| bytes.as_ref().try_into().ok()))
    }
}
