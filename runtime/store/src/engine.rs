//! What the store needs of whatever keeps its bytes: ordered spaces of keys, atomic batches, snapshots.
//!
//! [`Fjall`] keeps them on disk. [`crate::memory`] keeps them in memory, with the faults of a disk on demand, so that a
//! simulator runs the same store.

use std::ops::Bound;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Slice};

use crate::StoreError;

/// An ordered space of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    Rows,
    Log,
    Ledger,
    Meta,
    Control,
    Losses,
}

impl Space {
    pub(crate) const ALL: [Self; 6] = [Self::Rows, Self::Log, Self::Ledger, Self::Meta, Self::Control, Self::Losses];

    const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Log => "log",
            Self::Ledger => "ledger",
            Self::Meta => "meta",
            Self::Control => "control",
            Self::Losses => "losses",
        }
    }
}

/// From where to where.
pub(crate) type Span = (Bound<Vec<u8>>, Bound<Vec<u8>>);
/// Keys and values in order, from either end.
pub(crate) type Pairs = Box<dyn DoubleEndedIterator<Item = Result<(Slice, Slice), StoreError>>>;

/// The span of all keys that begin with `prefix`.
pub(crate) fn prefixed(prefix: &[u8]) -> Span {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

/// Reads as of some moment.
pub(crate) trait View: Send {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError>;
    fn range(&self, space: Space, span: Span) -> Pairs;
}

/// Changes that are made together.
#[derive(Debug, Default)]
pub(crate) struct Batch(pub(crate) Vec<(Space, Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    pub(crate) fn insert(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push((space, key.into(), Some(value.into())));
    }

    pub(crate) fn remove(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.0.push((space, key.into(), None));
    }
}

/// How sure a batch is once it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On disk.
    Synced,
    /// It may be lost with the power, and everything after it with it.
    Buffered,
}

/// Keeps the bytes.
pub(crate) trait Engine: Send + Sync {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError>;
    fn range(&self, space: Space, span: Span) -> Pairs;
    fn snapshot(&self) -> Box<dyn View>;
    /// All of the batch or nothing, also where the power fails meanwhile.
    fn apply(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;
}

/// The log-structured merge tree on disk.
pub(crate) struct Fjall {
    database: Database,
    spaces: [Keyspace; 6],
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(dir).open()?;
        let open = |space: Space| database.keyspace(space.name(), KeyspaceCreateOptions::default);
        let [rows, log, ledger, meta, control, losses] = Space::ALL;
        let spaces = [open(rows)?, open(log)?, open(ledger)?, open(meta)?, open(control)?, open(losses)?];
        Ok(Self { database, spaces })
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }
}

fn pairs(iter: fjall::Iter) -> Pairs {
    Box::new(iter.map(|guard| Ok(guard.into_inner()?)))
}

impl Engine for Fjall {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        Ok(self.space(space).get(key)?)
    }

    fn range(&self, space: Space, span: Span) -> Pairs {
        pairs(self.space(space).range(span))
    }

    fn snapshot(&self) -> Box<dyn View> {
        Box::new(FjallView { at: self.database.snapshot(), spaces: self.spaces.clone() })
    }

    fn apply(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mode = match durability {
            Durability::Synced => PersistMode::SyncAll,
            Durability::Buffered => PersistMode::Buffer,
        };
        let mut all = self.database.batch().durability(Some(mode));
        for (space, key, value) in batch.0 {
            match value {
                Some(value) => all.insert(self.space(space), key, value),
                None => all.remove(self.space(space), key),
            }
        }
        Ok(all.commit()?)
    }
}

struct FjallView {
    at: fjall::Snapshot,
    spaces: [Keyspace; 6],
}

impl View for FjallView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        Ok(self.at.get(&self.spaces[space as usize], key)?)
    }

    fn range(&self, space: Space, span: Span) -> Pairs {
        pairs(self.at.range(&self.spaces[space as usize], span))
    }
}
