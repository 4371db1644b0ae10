//! Copies of a whole store, space by space, and a store made of one.
//!
//! The common log of the regions is in no copy: a region that came back with an older one would vote twice. It is given
//! that anew, as a region with a new disk is.

use std::ops::Bound;
use std::path::Path;

use crate::engine::{Batch, Durability, Engine, Fjall, Space};
use crate::{RowVisitor, Snapshot, StoreError};

/// The spaces of a copy.
pub const COPIED: [&str; 5] = ["rows", "log", "ledger", "meta", "losses"];
/// Bytes that are written at once while a store is made of a copy.
const AT_ONCE: usize = 1024 * 1024;

fn space(name: &str) -> Result<Space, StoreError> {
    Ok(match name {
        "rows" => Space::Rows,
        "log" => Space::Log,
        "ledger" => Space::Ledger,
        "meta" => Space::Meta,
        "losses" => Space::Losses,
        other => return Err(StoreError::Missing { place: format!("the space {other:?}") }),
    })
}

impl Snapshot {
    /// Visits every pair of one of [`COPIED`], as stored, in key order.
    ///
    /// # Errors
    /// Those of the disk and of the visitor, and [`StoreError::Missing`] where there is no such space.
    pub fn each_pair(&self, name: &str, visit: &mut RowVisitor<'_>) -> Result<(), StoreError> {
        for pair in self.at.range(space(name)?, (Bound::Unbounded, Bound::Unbounded)) {
            let (key, value) = pair?;
            visit(&key, &value)?;
        }
        Ok(())
    }
}

/// A store that is being made of a copy.
pub struct Restoring {
    engine: Fjall,
    batch: Batch,
    bytes: usize,
}

impl Restoring {
    /// Begins one in `dir`, which holds none.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn begin(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { engine: Fjall::open(dir)?, batch: Batch::default(), bytes: 0 })
    }

    /// Takes in a pair of a space.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Missing`] where there is no such space.
    pub fn put(&mut self, name: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.batch.insert(space(name)?, key, value);
        self.bytes += key.len() + value.len();
        if self.bytes >= AT_ONCE { self.flush(Durability::Buffered) } else { Ok(()) }
    }

    fn flush(&mut self, durability: Durability) -> Result<(), StoreError> {
        self.bytes = 0;
        self.engine.apply(std::mem::take(&mut self.batch), durability)
    }

    /// All of it is on disk when this returns. Opening it begins a new incarnation, as every opening does.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn finish(mut self) -> Result<(), StoreError> {
        // A last pair that says nothing, so that there is something to sync.
        self.batch.insert(Space::Meta, "restored", []);
        self.flush(Durability::Synced)
    }
}
