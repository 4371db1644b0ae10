//! All of a store as of one moment.

use std::ops::Bound;

use crate::engine::{Space, View, prefixed};
use crate::ledger::{IMAGES, LEAF, index_of};
use crate::{RowVisitor, Store, StoreError};

/// Takes an index and the bytes stored under it.
pub type IndexVisitor<'a> = dyn FnMut(u64, &[u8]) -> Result<(), StoreError> + 'a;

/// All rows, leaves and facts between two commits. Writing goes on meanwhile; what it replaces stays on disk until the
/// snapshot is dropped.
pub struct Snapshot {
    pub(crate) at: Box<dyn View>,
}

impl Snapshot {
    pub(crate) fn of(store: &Store) -> Self {
        Self { at: store.engine.snapshot() }
    }

    /// Visits every row as stored, key and envelope, in key order.
    ///
    /// # Errors
    /// Those of the disk and of the visitor.
    pub fn each_row(&self, visit: &mut RowVisitor<'_>) -> Result<(), StoreError> {
        for pair in self.at.range(Space::Rows, (Bound::Unbounded, Bound::Unbounded)) {
            let (key, value) = pair?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    /// Visits the bytes of every leaf in order of their indexes.
    ///
    /// # Errors
    /// Those of the disk and of the visitor, and [`StoreError::Key`].
    pub fn each_leaf(&self, visit: &mut IndexVisitor<'_>) -> Result<(), StoreError> {
        self.each_indexed(LEAF, visit)
    }

    /// Visits every list of row images in order of their leaves.
    ///
    /// # Errors
    /// Those of the disk and of the visitor, and [`StoreError::Key`].
    pub fn each_images(&self, visit: &mut IndexVisitor<'_>) -> Result<(), StoreError> {
        self.each_indexed(IMAGES, visit)
    }

    fn each_indexed(&self, kind: u8, visit: &mut IndexVisitor<'_>) -> Result<(), StoreError> {
        for pair in self.at.range(Space::Ledger, prefixed(&[kind])) {
            let (key, value) = pair?;
            let index = index_of(&key).ok_or_else(|| StoreError::Key { place: "the ledger".into() })?;
            visit(index, &value)?;
        }
        Ok(())
    }

    /// Visits every entry of the conflict log as stored, key and envelope.
    ///
    /// # Errors
    /// Those of the disk and of the visitor.
    pub fn each_loss(&self, visit: &mut RowVisitor<'_>) -> Result<(), StoreError> {
        for pair in self.at.range(Space::Losses, prefixed(&[crate::losses::ENTRY])) {
            let (key, value) = pair?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    /// A small fact.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.at.get(Space::Meta, crate::fact(name).as_bytes())?.map(|bytes| bytes.to_vec()))
    }
}
