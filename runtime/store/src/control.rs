//! A space of keys for the log that the regions agree on, beside the data and in the same journal.
//!
//! What the bytes mean is the caller's business. A batch is on disk whole or not at all; the caller says whether it
//! waits for that.

use std::sync::Arc;

use crate::StoreError;
use crate::engine::{Batch, Durability, Engine, Space};

/// Keys and values of the common log. Clones share it.
#[derive(Clone)]
pub struct ControlSpace {
    engine: Arc<dyn Engine>,
}

/// A key and its value.
pub type ControlPair = (Vec<u8>, Vec<u8>);

/// Changes that are made together.
#[derive(Debug, Default)]
pub struct ControlBatch(Batch);

impl ControlBatch {
    /// Puts a value at a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.insert(Space::Control, key, value);
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.0.remove(Space::Control, key);
    }
}

impl ControlSpace {
    pub(crate) fn of(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    /// The value at a key.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine.get(Space::Control, key)?.map(|bytes| bytes.to_vec()))
    }

    /// Keys and values from `from` up to `to`, that one left out, in order.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Result<Vec<ControlPair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let span = (std::ops::Bound::Included(from.to_vec()), std::ops::Bound::Excluded(to.to_vec()));
        let pairs = self.engine.range(Space::Control, span);
        pairs.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
    }

    /// The last key from `from` up to `to`, that one left out, with its value.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<ControlPair>, StoreError> {
        let span = (std::ops::Bound::Included(from.to_vec()), std::ops::Bound::Excluded(to.to_vec()));
        let last = self.engine.range(Space::Control, span).next_back().transpose()?;
        Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    /// Makes the changes, and returns once they are on disk.
    ///
    /// # Errors
    /// Those of the disk; nothing is changed then.
    pub fn commit(&self, batch: ControlBatch) -> Result<(), StoreError> {
        self.engine.apply(batch.0, Durability::Synced)
    }

    /// Makes changes that may be lost with the power, because what they say can be learnt again.
    ///
    /// # Errors
    /// Those of the disk; nothing is changed then.
    pub fn note(&self, batch: ControlBatch) -> Result<(), StoreError> {
        self.engine.apply(batch.0, Durability::Buffered)
    }
}

#[cfg(test)]
mod tests {
    use model::UnixMillis;

    use super::*;
    use crate::Store;

    #[test]
    fn what_was_committed_is_there_after_a_power_cut_and_what_was_noted_may_not_be() {
        let disk = crate::memory::Disk::new();
        let space = Store::open_in_memory(&disk, UnixMillis(1)).unwrap().control();
        let batch = |key: &str| {
            let mut batch = ControlBatch::default();
            batch.put(key, "v");
            batch
        };
        space.commit(batch("a")).unwrap();
        space.note(batch("b")).unwrap();
        assert_eq!(space.range(b"a", b"c").unwrap().len(), 2);
        disk.cut_power();
        let space = Store::open_in_memory(&disk, UnixMillis(1)).unwrap().control();
        assert_eq!(space.get(b"a").unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(space.get(b"b").unwrap(), None);
        assert_eq!(space.last(b"", b"z").unwrap().unwrap().0, b"a");
    }
}
