//! One region's durable state: rows, the logs of all origins, and small facts.
//!
//! Every change is a [`Commit`]: rows, log entries, leaves of the ledger and
//! facts together, on disk before [`Store::commit`] returns, or not at all.
//! Nothing that fails its checksum is ever returned as data. What the bytes of a
//! leaf mean is not known here; a [`Snapshot`] shows all of them as stored.
//!
//! A log does not grow for ever: [`Store::trim`] forgets what the caller says that
//! nobody needs any more, and remembers up to where.
//!
//! The engine is fjall, a log-structured merge tree, or a [`memory::Disk`] for simulators; this crate is
//! the only one that knows. Start with [`Store::open`].

mod control;
pub mod copies;
mod engine;
mod ledger;
mod log;
mod losses;
pub mod memory;
pub mod objects;
mod rows;
mod snapshot;

use std::path::Path;
use std::sync::{Arc, Mutex};

use model::UnixMillis;
use model::codec::{self, CodecError};
use model::record::Shipment;
use model::version::{Incarnation, LogPosition, PositionVector};

use engine::{Batch, Durability, Engine, Fjall, Space};
use log::Reach;

pub use control::{ControlBatch, ControlPair, ControlSpace};
pub use ledger::{ImagePass, IndexedBytes, StoredLeaf};
pub use losses::{Bounds, LOSS_BOUNDS, LossChange, LossCount, StoredLoss, loss_key};
pub use rows::{StoredRow, row_key};
pub use snapshot::Snapshot;

/// Before the names of the facts that callers keep.
const FACT: &str = "fact/";
/// The fact that says which life of the log this is.
const INCARNATION: &str = "incarnation";

/// Why the store could not do what was asked. Nothing is half done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine or the disk under it failed.
    #[error("the store failed: {0}")]
    Engine(#[from] fjall::Error),
    /// Stored bytes are damaged; they are not served.
    #[error("{place} is damaged: {reason}")]
    Corrupt {
        /// Which row or entry.
        place: String,
        /// What was found.
        reason: CodecError,
    },
    /// A stored key that this version did not write.
    #[error("{place} has a key that cannot be read")]
    Key {
        /// Where.
        place: String,
    },
    /// A log entry that does not follow the one before it.
    #[error("log position {found} does not follow offset {last}")]
    Gap {
        /// The position offered.
        found: LogPosition,
        /// The last offset of that log.
        last: u64,
    },
    /// The incarnations are used up, or the clock says so.
    #[error("no incarnation follows {before} at {now} ms since 1970: a log has at most 2^32 lives, the last in 2106")]
    Lives {
        /// The incarnation stored.
        before: u32,
        /// What the caller's clock said.
        now: UnixMillis,
    },
    /// Something that must be there is not.
    #[error("{place} is missing")]
    Missing {
        /// What.
        place: String,
    },
    /// Whoever visits the rows asked to stop.
    #[error("the visit was stopped: {0}")]
    Visitor(String),
}

/// Takes a stored key and its envelope.
pub type RowVisitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Changes that reach the disk together.
#[derive(Debug, Default)]
pub struct Commit {
    /// Rows, replacing what was there.
    pub rows: Vec<StoredRow>,
    /// Stored keys of rows that go.
    pub removed: Vec<Vec<u8>>,
    /// Stored keys of rows that go off the list of [`Store::dead_rows`], because something is alive in them again.
    pub unlisted: Vec<Vec<u8>>,
    /// Log entries, in order, each the next of its origin's log.
    pub log: Vec<Shipment>,
    /// Logs that were taken over by other means than their entries, up to here; after those of `log`.
    pub adopted: PositionVector,
    /// Leaves of the ledger, each at the next index.
    pub leaves: Vec<StoredLeaf>,
    /// Small facts by name.
    pub meta: Vec<(String, Vec<u8>)>,
    /// Names of facts that go.
    pub forgotten: Vec<String>,
    /// Changes of the conflict log, in order.
    pub losses: Vec<LossChange>,
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
    incarnation: Incarnation,
    /// How far each log reaches on disk. Never held across a write to it.
    reach: Arc<Mutex<Reach>>,
    /// What the conflict log has.
    shelf: Arc<Mutex<losses::Shelf>>,
    /// Orders commits.
    commits: Arc<Mutex<()>>,
}

/// The stored name of a fact that callers keep.
fn fact(name: &str) -> String {
    format!("{FACT}{name}")
}

impl Store {
    /// Opens the store in `dir`, making it if need be. Every opening begins a new incarnation.
    ///
    /// It is greater than the stored one and at least `now` in seconds. So neither an empty disk nor a
    /// backup that is put back writes again under an incarnation that peers know, as long as the clock
    /// does not stand before the last opening, and no restore follows within a second of it. `now` is a
    /// floor and is not read as a time later.
    ///
    /// # Errors
    /// [`StoreError::Engine`] where the disk or another process is in the way, [`StoreError::Lives`]
    /// where `now` is past 2106.
    pub fn open(dir: &Path, now: UnixMillis) -> Result<Self, StoreError> {
        Self::begin(Arc::new(Fjall::open(dir)?), now)
    }

    /// Opens the store on a disk in memory; see [`Store::open`].
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open_in_memory(disk: &memory::Disk, now: UnixMillis) -> Result<Self, StoreError> {
        Self::begin(Arc::new(disk.engine()), now)
    }

    /// [`Store::open_in_memory`] in an incarnation that was used before: the mistake that incarnations are there
    /// to prevent. Only a simulator makes it, to see whether its checkers notice.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    #[cfg(feature = "faults")]
    pub fn open_in_memory_as(disk: &memory::Disk, incarnation: Incarnation) -> Result<Self, StoreError> {
        let engine = Arc::new(disk.engine());
        let reach = Arc::new(Mutex::new(log::read_reach(&*engine)?));
        let shelf = Arc::new(Mutex::new(losses::Shelf::read(&*engine)?));
        Ok(Self { engine, incarnation, reach, shelf, commits: Arc::default() })
    }

    fn begin(engine: Arc<dyn Engine>, now: UnixMillis) -> Result<Self, StoreError> {
        let before = match engine.get(Space::Meta, INCARNATION.as_bytes())? {
            Some(bytes) => {
                let number = bytes.as_ref().try_into().map_err(|_| StoreError::Key { place: INCARNATION.into() })?;
                u32::from_be_bytes(number)
            }
            None => 0,
        };
        let floor = u32::try_from(now.0 / 1000).ok();
        let next = before.checked_add(1).zip(floor).map(|(next, floor)| next.max(floor));
        let incarnation = next.map(Incarnation).ok_or(StoreError::Lives { before, now })?;
        let mut batch = Batch::default();
        batch.insert(Space::Meta, INCARNATION, incarnation.0.to_be_bytes());
        engine.apply(batch, Durability::Synced)?;
        let reach = Arc::new(Mutex::new(log::read_reach(&*engine)?));
        let shelf = Arc::new(Mutex::new(losses::Shelf::read(&*engine)?));
        Ok(Self { engine, incarnation, reach, shelf, commits: Arc::default() })
    }

    /// Which life of this region's log is being written.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Where the regions' common log lies: a space of its own, which commits of data never touch.
    pub fn control(&self) -> ControlSpace {
        ControlSpace::of(self.engine.clone())
    }

    /// Everything as of this moment, while writing goes on.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }

    /// Visits every row as stored, key and envelope, in key order, as of one moment.
    ///
    /// # Errors
    /// Those of the disk and of the visitor.
    pub fn each_row(&self, visit: &mut RowVisitor<'_>) -> Result<(), StoreError> {
        self.snapshot().each_row(visit)
    }

    /// A small fact.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine.get(Space::Meta, fact(name).as_bytes())?.map(|bytes| bytes.to_vec()))
    }

    /// All small facts whose names begin with `prefix`, in order of names.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Key`] where a name cannot be read.
    pub fn facts(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for pair in self.engine.range(Space::Meta, engine::prefixed(fact(prefix).as_bytes())) {
            let (key, value) = pair?;
            let name = std::str::from_utf8(&key).ok().and_then(|key| key.strip_prefix(FACT));
            let name = name.ok_or_else(|| StoreError::Key { place: "the facts".into() })?;
            found.push((name.to_owned(), value.to_vec()));
        }
        Ok(found)
    }

    /// Writes everything in `commit` and returns once it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Gap`] where an entry is not the next of its log; nothing is written then.
    pub fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.apply(commit, Durability::Synced)
    }

    /// [`Store::commit`] without waiting for the disk: wrong wherever something was promised. Only a simulator does
    /// it, to see whether its checkers notice.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    #[cfg(feature = "faults")]
    pub fn commit_without_sync(&self, commit: Commit) -> Result<(), StoreError> {
        self.apply(commit, Durability::Buffered)
    }

    fn apply(&self, commit: Commit, durability: Durability) -> Result<(), StoreError> {
        let _turn = self.commits.lock().expect("no commit panics");
        let (mut reached, mut floors) = (self.vector(), self.floors());
        let mut added = Vec::with_capacity(commit.log.len());
        let mut batch = Batch::default();
        for shipment in commit.log {
            let position = shipment.position().clone();
            if !reached.is_next(&position) {
                let last = reached.offset(&position.origin, position.incarnation);
                return Err(StoreError::Gap { found: position, last });
            }
            reached.advance(&position);
            let bytes = codec::encode(&vec![shipment]);
            added.push((position.clone(), bytes.len()));
            batch.insert(Space::Log, log::log_key(&position), bytes);
        }
        let ahead = commit.adopted.beyond(&reached);
        if !ahead.is_empty() {
            floors.join(&ahead);
            log::keep_floors(&mut batch, &floors);
        }
        commit.unlisted.iter().for_each(|key| batch.remove(Space::Meta, rows::dead_key(key)));
        for key in commit.removed {
            batch.remove(Space::Meta, rows::dead_key(&key));
            batch.remove(Space::Rows, key);
        }
        for StoredRow { key, envelope, dead } in commit.rows {
            if dead {
                batch.insert(Space::Meta, rows::dead_key(&key), []);
            }
            batch.insert(Space::Rows, key, envelope);
        }
        commit.leaves.into_iter().for_each(|leaf| leaf.put(&mut batch));
        commit.forgotten.iter().for_each(|name| batch.remove(Space::Meta, fact(name)));
        for (name, value) in commit.meta {
            batch.insert(Space::Meta, fact(&name), value);
        }
        if !commit.losses.is_empty() {
            // An engine that fails takes no commit afterwards, so that this cannot say what is not on disk.
            let mut shelf = self.shelf.lock().expect("nothing panics while it holds the lock");
            shelf.change(&mut batch, commit.losses, LOSS_BOUNDS);
        }
        self.engine.apply(batch, durability)?;
        let mut reach = self.reach.lock().expect("nothing panics while it holds the lock");
        added.iter().for_each(|(position, bytes)| reach.added(position, *bytes));
        reach.ends.join(&ahead);
        reach.floors.join(&floors);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::record::Address;
    use model::{Key, Namespace, RegionId};

    use super::*;

    fn skip(offset: u64) -> Shipment {
        let origin = RegionId::new("us-east").unwrap();
        let position = LogPosition { origin, incarnation: Incarnation(1), offset };
        Shipment::Skip { position, committed_at: UnixMillis(5) }
    }

    /// Some time in 2026.
    const NOW: UnixMillis = UnixMillis(1_770_000_000_999);

    #[test]
    fn no_two_openings_write_under_the_same_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        let opened = |dir: &Path, now| {
            let store = Store::open(dir, now).unwrap();
            (store.incarnation().0, store.vector())
        };
        {
            let store = Store::open(dir.path(), NOW).unwrap();
            assert_eq!(store.incarnation(), Incarnation(1_770_000_000));
            store.commit(Commit { log: vec![skip(1), skip(2)], ..Commit::default() }).unwrap();
        }
        // Within the same second, by a clock that went back, and later.
        let (again, vector) = opened(dir.path(), NOW);
        assert_eq!(again, 1_770_000_001);
        assert!(vector.covers(skip(2).position()));
        assert_eq!(opened(dir.path(), UnixMillis(0)).0, 1_770_000_002);
        assert_eq!(opened(dir.path(), UnixMillis(1_780_000_000_000)).0, 1_780_000_000);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(opened(empty.path(), UnixMillis(1_790_000_000_000)).0, 1_790_000_000);
        assert!(matches!(Store::open(empty.path(), UnixMillis::MAX), Err(StoreError::Lives { .. })));
    }

    #[test]
    fn a_gap_in_a_log_is_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), NOW).unwrap();
        let refused = store.commit(Commit { log: vec![skip(1), skip(3)], ..Commit::default() });
        assert!(matches!(refused, Err(StoreError::Gap { last: 1, .. })));
        assert_eq!(store.vector(), PositionVector::new());
        let origin = RegionId::new("us-east").unwrap();
        assert!(store.shipments(&origin, Incarnation(1), 0, 1000).unwrap().is_empty());
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_data() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), NOW).unwrap();
        let address = Address { namespace: Namespace::new("notes").unwrap(), key: Key::new("a").unwrap() };
        let row =
            StoredRow { key: row_key(&address), envelope: b"\x01\x01 not what was written".to_vec(), dead: false };
        store.commit(Commit { rows: vec![row], ..Commit::default() }).unwrap();
        assert!(matches!(store.row(&address), Err(StoreError::Corrupt { .. })));
        assert!(store.scan(&address.namespace, "", None, 10).is_err());
    }
}
