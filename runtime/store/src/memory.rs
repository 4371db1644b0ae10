//! A disk in memory, for simulators: it keeps what was synced, and has the faults of a disk on demand.
//!
//! Like the engine on disk, it applies a batch whole or not at all, keeps batches in order, and takes none after one
//! that failed until it is opened again. [`Disk`] outlives the stores that are opened on it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use fjall::Slice;

use crate::StoreError;
use crate::engine::{Batch, Durability, Engine, Pairs, Space, Span, View};

type Map = BTreeMap<(Space, Vec<u8>), Slice>;

#[derive(Default)]
struct State {
    /// As those see it who read: with what is not synced yet.
    now: Arc<Map>,
    /// As it is after a power cut.
    synced: Arc<Map>,
    /// Batches that may be applied until the disk is full; without a bound, normally.
    room: Option<usize>,
    /// Says that it has synced, and has not.
    lies: bool,
    /// A batch failed: nothing more is taken before the next opening.
    failed: bool,
    /// Counts openings, so that a store of before a crash reaches nothing.
    opening: u64,
}

/// What survives a crash of the process that uses it. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }

    /// The power fails: what was not synced is gone. A batch that was being written is torn, and so is none at all.
    pub fn cut_power(&self) {
        let mut state = self.state();
        state.now = state.synced.clone();
        state.opening += 1;
    }

    /// The process dies; what it handed to the system stays.
    pub fn kill(&self) {
        self.state().opening += 1;
    }

    /// No further batch after this many finds room; `None` gives room again.
    pub fn set_room(&self, batches: Option<usize>) {
        self.state().room = batches;
    }

    /// A disk that says it has synced and has not, or one that is honest again.
    pub fn set_lies(&self, lies: bool) {
        self.state().lies = lies;
    }

    /// A copy of what is there, such as a backup.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state();
        let (now, synced) = (state.now.clone(), state.now.clone());
        Self(Arc::new(Mutex::new(State { now, synced, ..State::default() })))
    }

    /// Flips one bit of one stored row, both chosen by `choice`. `false` where there is no row.
    pub fn flip_bit_of_a_row(&self, choice: u64) -> bool {
        let mut state = self.state();
        let rows = state.now.keys().filter(|(space, _)| *space == Space::Rows).count() as u64;
        if rows == 0 {
            return false;
        }
        let mut changed = Map::clone(&state.now);
        let row = changed.iter_mut().filter(|((space, _), _)| *space == Space::Rows).nth((choice % rows) as usize);
        if let Some((_, value)) = row {
            let mut bytes = value.to_vec();
            let bit = (choice / rows) as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            *value = Slice::from(bytes);
        }
        state.now = Arc::new(changed);
        state.synced = state.now.clone();
        true
    }

    /// Every stored value, to search it for what must not be there.
    pub fn each_value(&self, visit: &mut dyn FnMut(&[u8])) {
        let now = self.state().now.clone();
        now.values().for_each(|value| visit(value));
    }

    pub(crate) fn engine(&self) -> Memory {
        let mut state = self.state();
        state.opening += 1;
        state.failed = false;
        Memory { disk: self.clone(), opening: state.opening }
    }
}

/// A store's way to a [`Disk`].
pub(crate) struct Memory {
    disk: Disk,
    opening: u64,
}

impl Memory {
    fn failure(reason: &str) -> StoreError {
        fjall::Error::Io(std::io::Error::other(reason.to_owned())).into()
    }

    fn now(&self) -> Arc<Map> {
        self.disk.state().now.clone()
    }
}

fn get(map: &Map, space: Space, key: &[u8]) -> Option<Slice> {
    map.get(&(space, key.to_vec())).cloned()
}

fn range(map: &Map, space: Space, (from, to): Span) -> Pairs {
    let after = match from {
        Bound::Unbounded => Bound::Included((space, Vec::new())),
        bound => bound.map(|key| (space, key)),
    };
    let inside = map.range((after, Bound::Unbounded)).take_while(|((of, key), _)| {
        *of == space
            && match &to {
                Bound::Unbounded => true,
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
            }
    });
    let found: Vec<_> = inside.map(|((_, key), value)| Ok((Slice::from(key.clone()), value.clone()))).collect();
    Box::new(found.into_iter())
}

impl Engine for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        Ok(get(&self.now(), space, key))
    }

    fn range(&self, space: Space, span: Span) -> Pairs {
        range(&self.now(), space, span)
    }

    fn snapshot(&self) -> Box<dyn View> {
        Box::new(MemoryView(self.now()))
    }

    fn apply(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut state = self.disk.state();
        if state.opening != self.opening {
            return Err(Self::failure("the process that used this disk has ended"));
        }
        if state.failed {
            return Err(Self::failure("an earlier batch failed"));
        }
        match &mut state.room {
            Some(0) => {
                state.failed = true;
                return Err(Self::failure("no space left on device"));
            }
            Some(room) => *room -= 1,
            None => {}
        }
        let State { now, synced, lies, .. } = &mut *state;
        let sync = durability == Durability::Synced && !*lies;
        if sync {
            // Whatever was buffered before is synced with it. The copies are shared again afterwards.
            *synced = Arc::default();
        }
        let map = Arc::make_mut(now);
        for (space, key, value) in batch.0 {
            match value {
                Some(value) => drop(map.insert((space, key), Slice::from(value))),
                None => drop(map.remove(&(space, key))),
            }
        }
        if sync {
            *synced = now.clone();
        }
        Ok(())
    }
}

struct MemoryView(Arc<Map>);

impl View for MemoryView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        Ok(get(&self.0, space, key))
    }

    fn range(&self, space: Space, span: Span) -> Pairs {
        range(&self.0, space, span)
    }
}
