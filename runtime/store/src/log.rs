//! The logs of all origins, each from its floor to its end.
//!
//! ```text
//! entry   origin || 0 || incarnation, 4 bytes big-endian || offset, 8 bytes big-endian
//! ```
//!
//! The *floor* of a log is the offset up to which its entries are not here any more, or never were: everybody has
//! them, or they were taken over as rows. Its *end* is the last offset taken over. Both are known without a look at
//! the entries, since there may be none.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use model::codec;
use model::record::Shipment;
use model::version::{Incarnation, LogPosition, PositionVector};
use model::{ByteCount, RegionId, UnixMillis};

use crate::engine::{Batch, Durability, Engine, Space, Span};
use crate::rows::SEPARATOR;
use crate::{Store, StoreError};

/// The fact that says up to where each log is not here.
const FLOORS: &str = "log/floors";
/// Entries that are removed in one batch.
const REMOVED: usize = 1024;
/// How finely the sizes of logs are known.
const MARK_BYTES: u64 = 256 * 1024;

/// One life of one region's log.
pub(crate) type Life = (RegionId, Incarnation);

/// How far the logs reach, in both directions.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    pub(crate) ends: PositionVector,
    pub(crate) floors: PositionVector,
    /// Up to where entries were really removed since this start.
    removed: PositionVector,
    sizes: BTreeMap<Life, Sizes>,
}

/// Bytes of a log by offset, in steps of [`MARK_BYTES`].
#[derive(Debug, Default)]
struct Sizes {
    /// Whether what was there at the start is among the marks.
    measured: bool,
    /// Offsets from which marks are kept as entries are added.
    from: u64,
    marks: VecDeque<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    upto: u64,
    bytes: u64,
}

fn add(marks: &mut VecDeque<Mark>, offset: u64, bytes: u64) {
    match marks.back_mut() {
        Some(last) if last.bytes + bytes <= MARK_BYTES => {
            last.upto = offset;
            last.bytes += bytes;
        }
        _ => marks.push_back(Mark { upto: offset, bytes }),
    }
}

impl Reach {
    /// Notes what a commit has added.
    pub(crate) fn added(&mut self, position: &LogPosition, bytes: usize) {
        let before = self.ends.offset(&position.origin, position.incarnation);
        let fresh = || Sizes { measured: before == 0, from: before, marks: VecDeque::new() };
        let sizes = self.sizes.entry((position.origin.clone(), position.incarnation)).or_insert_with(fresh);
        add(&mut sizes.marks, position.offset, bytes as u64);
        self.ends.advance(position);
    }
}

fn log_prefix(origin: &RegionId, incarnation: Incarnation) -> Vec<u8> {
    [origin.as_str().as_bytes(), &[SEPARATOR], &incarnation.0.to_be_bytes()].concat()
}

pub(crate) fn log_key(position: &LogPosition) -> Vec<u8> {
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

/// The entries after one offset, up to and including another.
fn entries(origin: &RegionId, incarnation: Incarnation, after: u64, upto: u64) -> Span {
    let at = |offset| log_key(&LogPosition { origin: origin.clone(), incarnation, offset });
    (Bound::Excluded(at(after)), Bound::Included(at(upto)))
}

fn decode(position: &dyn Fn() -> String, bytes: &[u8]) -> Result<Vec<Shipment>, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: position(), reason })
}

/// Puts the floors on disk, among other things.
pub(crate) fn keep_floors(batch: &mut Batch, floors: &PositionVector) {
    batch.insert(Space::Meta, crate::fact(FLOORS), codec::encode(floors));
}

/// The ends and floors as the disk has them: the last offset of each log is found by one backward look.
pub(crate) fn read_reach(engine: &dyn Engine) -> Result<Reach, StoreError> {
    let floors: PositionVector = match engine.get(Space::Meta, crate::fact(FLOORS).as_bytes())? {
        Some(bytes) => {
            codec::decode(&bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {FLOORS}"), reason })?
        }
        None => PositionVector::new(),
    };
    let mut ends = floors.clone();
    let mut before: Bound<Vec<u8>> = Bound::Unbounded;
    while let Some(pair) = engine.range(Space::Log, (Bound::Unbounded, before)).next_back() {
        let (key, _) = pair?;
        let position = parse_log_key(&key).ok_or_else(|| StoreError::Key { place: "the log".into() })?;
        before = Bound::Excluded(log_prefix(&position.origin, position.incarnation));
        ends.advance(&position);
    }
    Ok(Reach { ends, floors, ..Reach::default() })
}

impl Store {
    fn reach(&self) -> std::sync::MutexGuard<'_, Reach> {
        self.reach.lock().expect("nothing panics while it holds the lock")
    }

    /// How far each origin's log reaches on this disk.
    pub fn vector(&self) -> PositionVector {
        self.reach().ends.clone()
    }

    /// Up to where the entries of each log are not here, though taken over.
    pub fn floors(&self) -> PositionVector {
        self.reach().floors.clone()
    }

    /// The entries of a log after offset `after`, up to about `max_bytes` of them and at least one if there is one.
    /// None where `after` lies below the log's floor: what follows it is not here.
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
        let (mut found, mut bytes) = (Vec::new(), 0);
        if after < self.reach().floors.offset(origin, incarnation) {
            return Ok(found);
        }
        for pair in self.engine.range(Space::Log, entries(origin, incarnation, after, u64::MAX)) {
            let (key, value) = pair?;
            if bytes > 0 && bytes + value.len() > max_bytes {
                break;
            }
            bytes += value.len();
            let place = || parse_log_key(&key).map_or_else(|| "a log entry".into(), |position| position.to_string());
            found.extend(decode(&place, &value)?);
        }
        // Entries may have been removed since the floor was read.
        let next = LogPosition { origin: origin.clone(), incarnation, offset: after.saturating_add(1) };
        match found.first() {
            Some(first) if *first.position() != next => Ok(Vec::new()),
            _ => Ok(found),
        }
    }

    /// What is stored at a position of a log.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where its bytes are damaged.
    pub fn shipment(&self, position: &LogPosition) -> Result<Option<Shipment>, StoreError> {
        let Some(bytes) = self.engine.get(Space::Log, &log_key(position))? else { return Ok(None) };
        Ok(decode(&|| position.to_string(), &bytes)?.pop())
    }

    /// Up to where a log holds nothing that was committed at `since` or later, by its origin's clock.
    ///
    /// # Errors
    /// Those of the disk, and damaged entries.
    pub fn offset_before(
        &self,
        origin: &RegionId,
        incarnation: Incarnation,
        since: UnixMillis,
    ) -> Result<u64, StoreError> {
        let (mut low, mut high) = {
            let reach = self.reach();
            (reach.floors.offset(origin, incarnation), reach.ends.offset(origin, incarnation))
        };
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let position = LogPosition { origin: origin.clone(), incarnation, offset: middle };
            match self.shipment(&position)? {
                // The clock of an origin may go back: then a little more stays than must.
                Some(shipment) if shipment.committed_at() >= since => high = middle - 1,
                _ => low = middle,
            }
        }
        Ok(low)
    }

    /// Up to where each log must be cut so that all of them together hold at most `limit`. The oldest lives go first,
    /// and of the newest lives alike much of each.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn offsets_beyond(&self, limit: ByteCount) -> Result<PositionVector, StoreError> {
        self.measure()?;
        let reach = self.reach();
        let mut total: u64 = reach.sizes.values().flat_map(|sizes| &sizes.marks).map(|mark| mark.bytes).sum();
        let mut cut = PositionVector::new();
        let mut logs: Vec<_> = reach.sizes.iter().collect();
        logs.sort_by_key(|((origin, incarnation), _)| {
            let newest = reach.ends.newest(origin) == Some(*incarnation);
            (newest, *incarnation)
        });
        let mut left: Vec<_> = logs.iter().map(|(life, sizes)| (*life, sizes.marks.iter())).collect();
        while total > limit.0 && !left.is_empty() {
            for ((origin, incarnation), marks) in &mut left {
                if total <= limit.0 {
                    break;
                }
                if let Some(mark) = marks.next() {
                    total -= mark.bytes;
                    cut.advance(&LogPosition { origin: origin.clone(), incarnation: *incarnation, offset: mark.upto });
                }
            }
            left.retain(|(_, marks)| marks.len() > 0);
        }
        Ok(cut)
    }

    /// Reads the sizes of what was in the logs when the store was opened, once.
    fn measure(&self) -> Result<(), StoreError> {
        let logs: Vec<_> = self.vector().iter().map(|(origin, life, end)| (origin.clone(), life, end)).collect();
        for (origin, incarnation, end) in logs {
            let life = (origin.clone(), incarnation);
            let (after, upto) = {
                let mut reach = self.reach();
                let floor = reach.floors.offset(&origin, incarnation);
                let fresh = || Sizes { measured: false, from: end, marks: VecDeque::new() };
                let sizes = reach.sizes.entry(life.clone()).or_insert_with(fresh);
                if sizes.measured {
                    continue;
                }
                (floor, sizes.from)
            };
            let mut marks = VecDeque::new();
            for pair in self.engine.range(Space::Log, entries(&origin, incarnation, after, upto.max(after))) {
                let (key, value) = pair?;
                let offset = parse_log_key(&key).map_or(upto, |position| position.offset);
                add(&mut marks, offset, value.len() as u64);
            }
            if let Some(sizes) = self.reach().sizes.get_mut(&life) {
                marks.extend(sizes.marks.drain(..));
                sizes.marks = marks;
                sizes.measured = true;
            }
        }
        Ok(())
    }

    /// Forgets log entries: up to `floors`, as far as they were taken over. Gives how many.
    ///
    /// The new floors are on disk before the first entry goes. Entries that a crash leaves are removed next time.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn trim(&self, floors: &PositionVector) -> Result<u64, StoreError> {
        {
            let _turn = self.commits.lock().expect("no commit panics");
            let mut raised = self.floors();
            raised.join(&floors.meet(&self.vector()));
            if raised != self.floors() {
                let mut batch = Batch::default();
                keep_floors(&mut batch, &raised);
                self.engine.apply(batch, Durability::Synced)?;
                self.reach().floors = raised;
            }
        }
        let logs: Vec<_> = self.floors().iter().map(|(origin, life, floor)| (origin.clone(), life, floor)).collect();
        let mut gone = 0;
        for (origin, incarnation, floor) in logs {
            gone += self.remove(&origin, incarnation, floor)?;
        }
        Ok(gone)
    }

    fn remove(&self, origin: &RegionId, incarnation: Incarnation, floor: u64) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            let after = self.reach().removed.offset(origin, incarnation);
            if after >= floor {
                return Ok(gone);
            }
            let mut keys = Vec::new();
            for pair in self.engine.range(Space::Log, entries(origin, incarnation, after, floor)).take(REMOVED) {
                keys.push(pair?.0.to_vec());
            }
            let last = keys.last().filter(|_| keys.len() == REMOVED).and_then(|key| parse_log_key(key));
            let upto = last.map_or(floor, |position| position.offset);
            gone += keys.len() as u64;
            if !keys.is_empty() {
                let mut batch = Batch::default();
                keys.into_iter().for_each(|key| batch.remove(Space::Log, key));
                self.engine.apply(batch, Durability::Buffered)?;
            }
            let mut reach = self.reach();
            reach.removed.advance(&LogPosition { origin: origin.clone(), incarnation, offset: upto });
            if let Some(sizes) = reach.sizes.get_mut(&(origin.clone(), incarnation)) {
                while sizes.marks.front().is_some_and(|mark| mark.upto <= upto) {
                    sizes.marks.pop_front();
                }
            }
        }
    }
}
