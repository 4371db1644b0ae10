//! One region's durable state: rows, the logs of all origins, and small facts.
//!
//! Every change is a [`Commit`]: rows, log entries, leaves of the ledger and
//! facts together, on disk before [`Store::commit`] returns, or not at all.
//! Nothing that fails its checksum is ever returned as data. What the bytes of a
//! leaf mean is not known here; a [`Snapshot`] shows all of them as stored.
//!
//! The engine is fjall, a log-structured merge tree; this crate is the only
//! one that knows. Start with [`Store::open`].

mod ledger;
mod snapshot;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use model::codec::{self, CodecError};
use model::record::{Address, Row, Shipment};
use model::version::{Incarnation, LogPosition, PositionVector};
use model::{Key, Namespace, RegionId, UnixMillis};

pub use ledger::StoredLeaf;
pub use snapshot::Snapshot;

/// Between a namespace and its key: no namespace contains it, so prefixes do not collide.
const SEPARATOR: u8 = 0;
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

/// A row as it lies on disk, so that whoever commits it can hash the very bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The stored key.
    pub key: Vec<u8>,
    /// The envelope.
    pub envelope: Vec<u8>,
}

impl StoredRow {
    /// The row of a key.
    pub fn of(address: &Address, row: &Row) -> Self {
        Self { key: row_key(address), envelope: codec::encode(row) }
    }
}

/// Changes that reach the disk together.
#[derive(Debug, Default)]
pub struct Commit {
    /// Rows, replacing what was there.
    pub rows: Vec<StoredRow>,
    /// Log entries, in order, each the next of its origin's log.
    pub log: Vec<Shipment>,
    /// Leaves of the ledger, each at the next index.
    pub leaves: Vec<StoredLeaf>,
    /// Small facts by name.
    pub meta: Vec<(String, Vec<u8>)>,
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {
    database: Database,
    rows: Keyspace,
    log: Keyspace,
    ledger: Keyspace,
    meta: Keyspace,
    incarnation: Incarnation,
    /// How far each log reaches on disk. Never held across a write to it.
    vector: Arc<Mutex<PositionVector>>,
    /// Orders commits.
    commits: Arc<Mutex<()>>,
}

fn row_key(address: &Address) -> Vec<u8> {
    [address.namespace.as_str().as_bytes(), &[SEPARATOR], address.key.as_str().as_bytes()].concat()
}

fn parse_row_key(bytes: &[u8]) -> Option<Address> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (namespace, key) = text.split_once(char::from(SEPARATOR))?;
    Some(Address { namespace: Namespace::new(namespace).ok()?, key: Key::new(key).ok()? })
}

fn log_prefix(origin: &RegionId, incarnation: Incarnation) -> Vec<u8> {
    [origin.as_str().as_bytes(), &[SEPARATOR], &incarnation.0.to_be_bytes()].concat()
}

fn log_key(position: &LogPosition) -> Vec<u8> {
    let mut key = log_prefix(&position.origin, position.incarnation);
    key.extend_from_slice(&position.offset.to_be_bytes());
    key
}

fn parse_log_key(bytes: &[u8]) -> Option<LogPosition> {
    let at = bytes.iter().position(|&byte| byte == SEPARATOR)?;
    let origin = RegionId::new(std::str::from_utf8(&bytes[..at]).ok()?).ok()?;
    let numbers: [u8; 12] = bytes.get(at + 1..)?.try_into().ok()?;
    let (incarnation, offset) = numbers.split_at(4);
    let incarnation = Incarnation(u32::from_be_bytes(incarnation.try_into().ok()?));
    Some(LogPosition { origin, incarnation, offset: u64::from_be_bytes(offset.try_into().ok()?) })
}

fn decode_row(address: &Address, bytes: &[u8]) -> Result<Row, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: format!("row {address}"), reason })
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
        let database = Database::builder(dir).open()?;
        let keyspace = |name: &str| database.keyspace(name, KeyspaceCreateOptions::default);
        let (rows, log, meta) = (keyspace("rows")?, keyspace("log")?, keyspace("meta")?);
        let ledger = keyspace("ledger")?;
        let before = match meta.get(INCARNATION)? {
            Some(bytes) => {
                let number = bytes.as_ref().try_into().map_err(|_| StoreError::Key { place: INCARNATION.into() })?;
                u32::from_be_bytes(number)
            }
            None => 0,
        };
        let floor = u32::try_from(now.0 / 1000).ok();
        let next = before.checked_add(1).zip(floor).map(|(next, floor)| next.max(floor));
        let incarnation = next.map(Incarnation).ok_or(StoreError::Lives { before, now })?;
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, INCARNATION, incarnation.0.to_be_bytes());
        batch.commit()?;
        let vector = Arc::new(Mutex::new(read_vector(&log)?));
        Ok(Self { database, rows, log, ledger, meta, incarnation, vector, commits: Arc::default() })
    }

    /// Which life of this region's log is being written.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How far each origin's log reaches on this disk.
    pub fn vector(&self) -> PositionVector {
        self.vector.lock().expect("no commit panics").clone()
    }

    /// The stored row of a key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where its bytes are damaged.
    pub fn row(&self, address: &Address) -> Result<Option<Row>, StoreError> {
        self.rows.get(row_key(address))?.map(|bytes| decode_row(address, &bytes)).transpose()
    }

    /// Up to `limit` rows of a namespace in key order, of keys that begin with `prefix` and come after `after`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first damaged row.
    pub fn scan(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        let start = [namespace.as_str().as_bytes(), &[SEPARATOR], prefix.as_bytes()].concat();
        let from = match after {
            Some(key) => {
                let address = Address { namespace: namespace.clone(), key: key.clone() };
                row_key(&address).into_iter().chain([0]).collect::<Vec<u8>>().max(start.clone())
            }
            None => start.clone(),
        };
        let mut found = Vec::new();
        for guard in self.rows.range(from..) {
            let (key, value) = guard.into_inner()?;
            if !key.starts_with(&start) || found.len() >= limit {
                break;
            }
            let address =
                parse_row_key(&key).ok_or_else(|| StoreError::Key { place: format!("namespace {namespace}") })?;
            let row = decode_row(&address, &value)?;
            found.push((address.key, row));
        }
        Ok(found)
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

    /// Reads a key as [`Store::each_row`] shows it.
    pub fn address_of(raw: &[u8]) -> Option<Address> {
        parse_row_key(raw)
    }

    /// The entries of a log after offset `after`, up to about `max_bytes` of them and at least one if there is one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first damaged entry.
    pub fn shipments(
        &self,
        origin: &RegionId,
        incarnation: Incarnation,
        after: u64,
        max_bytes: usize,
    ) -> Result<Vec<Shipment>, StoreError> {
        let at = |offset| LogPosition { origin: origin.clone(), incarnation, offset };
        let (mut found, mut bytes) = (Vec::new(), 0);
        for guard in self.log.range(log_key(&at(after.saturating_add(1)))..=log_key(&at(u64::MAX))) {
            let (key, value) = guard.into_inner()?;
            if bytes > 0 && bytes + value.len() > max_bytes {
                break;
            }
            bytes += value.len();
            let place = || parse_log_key(&key).map_or_else(|| "a log entry".into(), |position| position.to_string());
            let batch: Vec<Shipment> =
                codec::decode(&value).map_err(|reason| StoreError::Corrupt { place: place(), reason })?;
            found.extend(batch);
        }
        Ok(found)
    }

    /// What is stored at a position of a log.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where its bytes are damaged.
    pub fn shipment(&self, position: &LogPosition) -> Result<Option<Shipment>, StoreError> {
        let Some(bytes) = self.log.get(log_key(position))? else { return Ok(None) };
        let mut batch: Vec<Shipment> =
            codec::decode(&bytes).map_err(|reason| StoreError::Corrupt { place: position.to_string(), reason })?;
        Ok(batch.pop())
    }

    /// A small fact.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.meta.get(format!("{FACT}{name}"))?.map(|bytes| bytes.to_vec()))
    }

    /// All small facts whose names begin with `prefix`, in order of names.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Key`] where a name cannot be read.
    pub fn facts(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for guard in self.meta.prefix(format!("{FACT}{prefix}")) {
            let (key, value) = guard.into_inner()?;
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
        let _turn = self.commits.lock().expect("no commit panics");
        let mut reached = self.vector();
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for shipment in commit.log {
            let position = shipment.position().clone();
            if !reached.is_next(&position) {
                let last = reached.offset(&position.origin, position.incarnation);
                return Err(StoreError::Gap { found: position, last });
            }
            reached.advance(&position);
            batch.insert(&self.log, log_key(&position), codec::encode(&vec![shipment]));
        }
        for StoredRow { key, envelope } in commit.rows {
            batch.insert(&self.rows, key, envelope);
        }
        for leaf in commit.leaves {
            leaf.put(&mut batch, &self.ledger);
        }
        for (name, value) in commit.meta {
            batch.insert(&self.meta, format!("{FACT}{name}"), value);
        }
        batch.commit()?;
        *self.vector.lock().expect("no commit panics") = reached;
        Ok(())
    }
}

/// The last offset of each log, found by one backward look per log.
fn read_vector(log: &Keyspace) -> Result<PositionVector, StoreError> {
    let mut lasts: BTreeMap<(RegionId, Incarnation), LogPosition> = BTreeMap::new();
    let mut before: Option<Vec<u8>> = None;
    loop {
        let last = match &before {
            None => log.last_key_value(),
            Some(bound) => log.range(..bound.clone()).next_back(),
        };
        let Some(guard) = last else { break };
        let key = guard.key()?;
        let position = parse_log_key(&key).ok_or_else(|| StoreError::Key { place: "the log".into() })?;
        before = Some(log_prefix(&position.origin, position.incarnation));
        lasts.insert((position.origin.clone(), position.incarnation), position);
    }
    let mut vector = PositionVector::new();
    lasts.values().for_each(|position| vector.advance(position));
    Ok(vector)
}

#[cfg(test)]
mod tests {
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
        store.rows.insert(row_key(&address), b"\x01\x01 not what was written").unwrap();
        assert!(matches!(store.row(&address), Err(StoreError::Corrupt { .. })));
        assert!(store.scan(&address.namespace, "", None, 10).is_err());
    }
}
