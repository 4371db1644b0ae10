//! The log on disk, for `openraft`: entries, the vote, how far it is agreed on.
//!
//! Every value sits in an envelope with a checksum. Entries and votes are on disk before
//! anything is acknowledged; that an entry was agreed on is only noted, because the next
//! leader tells it again.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use model::codec::{self, Format};
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::{Deserialize, Serialize};
use store::{ControlBatch, ControlSpace, StoreError};

use crate::types::Types;

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const NODE: &[u8] = b"node";
const ENTRIES: &[u8] = b"e/";
const ENTRIES_END: &[u8] = b"e0";

/// Wraps what `openraft` defines, so that it gets an envelope.
macro_rules! stored {
    ($name:ident, $type:ty, $kind:literal, $what:literal) => {
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) $type);
        impl Format for $name {
            const KIND: u8 = $kind;
            const VERSION: u8 = 1;
            const NAME: &'static str = $what;
        }
    };
}
stored!(StoredEntry, EntryOf<Types>, 0x31, "entry of the common log");
stored!(StoredVote, VoteOf<Types>, 0x32, "vote");
stored!(StoredLogId, Option<LogIdOf<Types>>, 0x33, "position in the common log");
stored!(StoredNode, u64, 0x34, "number of a voter");

/// The log of one region.
#[derive(Clone)]
pub(crate) struct Disk {
    space: ControlSpace,
}

fn failed(error: StoreError) -> io::Error {
    io::Error::other(error.to_string())
}

/// Opens an envelope that lies at `place`.
pub(crate) fn open<T: Format>(bytes: &[u8], place: &str) -> io::Result<T> {
    codec::decode(bytes).map_err(|error| {
        let message = format!("the common log is damaged at {place}: {error}");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn entry_key(index: u64) -> Vec<u8> {
    [ENTRIES, &index.to_be_bytes()].concat()
}

/// Runs what waits for the disk off the threads that serve sockets.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Disk {
    pub(crate) fn new(space: ControlSpace) -> Self {
        Self { space }
    }

    pub(crate) fn space(&self) -> &ControlSpace {
        &self.space
    }

    /// The number under which this disk votes; `fresh` from the first opening on.
    pub(crate) fn node(&self, fresh: u64) -> io::Result<u64> {
        if let Some(StoredNode(node)) = self.read(NODE)? {
            return Ok(node);
        }
        let mut batch = ControlBatch::default();
        batch.put(NODE, codec::encode(&StoredNode(fresh)));
        self.space.commit(batch).map_err(failed)?;
        Ok(fresh)
    }

    fn read<T: Format>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let bytes = self.space.get(key).map_err(failed)?;
        bytes.map(|bytes| open(&bytes, &String::from_utf8_lossy(key))).transpose()
    }

    fn entries(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<EntryOf<Types>>> {
        let pairs = self.space.range(from, to).map_err(failed)?;
        let read = |(key, bytes): (Vec<u8>, Vec<u8>)| {
            let index = key.get(ENTRIES.len()..).and_then(|index| index.try_into().ok()).map_or(0, u64::from_be_bytes);
            let StoredEntry(entry) = open(&bytes, &format!("entry {index}"))?;
            Ok(entry)
        };
        pairs.into_iter().map(read).collect()
    }

    async fn commit(&self, batch: ControlBatch) -> io::Result<()> {
        let space = self.space.clone();
        on_disk(move || space.commit(batch).map_err(failed)).await
    }

    /// Takes entries away from `from` on, or before it.
    async fn remove(&self, mut batch: ControlBatch, from: &[u8], to: &[u8]) -> io::Result<()> {
        for (key, _) in self.space.range(from, to).map_err(failed)? {
            batch.remove(key);
        }
        self.commit(batch).await
    }
}

impl RaftLogReader<Types> for Disk {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<EntryOf<Types>>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(at) => entry_key(*at),
            Bound::Excluded(at) => entry_key(at.saturating_add(1)),
            Bound::Unbounded => ENTRIES.to_vec(),
        };
        let to = match range.end_bound() {
            Bound::Included(at) => at.checked_add(1).map_or_else(|| ENTRIES_END.to_vec(), entry_key),
            Bound::Excluded(at) => entry_key(*at),
            Bound::Unbounded => ENTRIES_END.to_vec(),
        };
        self.entries(&from, &to)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(self.read::<StoredVote>(VOTE)?.map(|StoredVote(vote)| vote))
    }
}

impl RaftLogStorage<Types> for Disk {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let purged = self.read::<StoredLogId>(PURGED)?.and_then(|StoredLogId(id)| id);
        let last = self.space.last(ENTRIES, ENTRIES_END).map_err(failed)?;
        let last = match last {
            Some((_, bytes)) => {
                let StoredEntry(entry) = open(&bytes, "its last entry")?;
                Some(entry.log_id())
            }
            None => purged,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        let mut batch = ControlBatch::default();
        batch.put(VOTE, codec::encode(&StoredVote(*vote)));
        self.commit(batch).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        let mut batch = ControlBatch::default();
        batch.put(COMMITTED, codec::encode(&StoredLogId(committed)));
        self.space.note(batch).map_err(failed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<Types>>, io::Error> {
        Ok(self.read::<StoredLogId>(COMMITTED)?.and_then(|StoredLogId(id)| id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut batch = ControlBatch::default();
        for entry in entries {
            batch.put(entry_key(entry.log_id().index), codec::encode(&StoredEntry(entry)));
        }
        self.commit(batch).await?;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        let from = last.map_or_else(|| ENTRIES.to_vec(), |last| entry_key(last.index.saturating_add(1)));
        self.remove(ControlBatch::default(), &from, ENTRIES_END).await
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> Result<(), io::Error> {
        let mut batch = ControlBatch::default();
        batch.put(PURGED, codec::encode(&StoredLogId(Some(upto))));
        self.remove(batch, ENTRIES, &entry_key(upto.index.saturating_add(1))).await
    }
}

#[cfg(test)]
mod tests {
    use model::UnixMillis;
    use store::Store;

    use super::*;

    fn space(disk: &store::memory::Disk) -> ControlSpace {
        Store::open_in_memory(disk, UnixMillis(1)).unwrap().control()
    }

    #[test]
    fn a_disk_keeps_its_number_and_a_lost_disk_gets_another() {
        let disk = store::memory::Disk::new();
        assert_eq!(Disk::new(space(&disk)).node(5).unwrap(), 5);
        disk.cut_power();
        assert_eq!(Disk::new(space(&disk)).node(6).unwrap(), 5);
        assert_eq!(Disk::new(space(&store::memory::Disk::new())).node(6).unwrap(), 6);
    }

    #[tokio::test]
    async fn a_vote_that_was_given_survives_a_power_cut() {
        let disk = store::memory::Disk::new();
        let vote = openraft::Vote::new(3, 9);
        Disk::new(space(&disk)).save_vote(&vote).await.unwrap();
        disk.cut_power();
        assert_eq!(Disk::new(space(&disk)).read_vote().await.unwrap(), Some(vote));
    }

    #[tokio::test]
    async fn a_damaged_entry_is_an_error_and_never_an_entry() {
        let memory = store::memory::Disk::new();
        let mut disk = Disk::new(space(&memory));
        let entry = EntryOf::<Types>::new_blank(openraft::LogId::new(
            openraft::Vote::<openraft::impls::leader_id_adv::LeaderId<u64, u64>>::new(1, 1).leader_id,
            1,
        ));
        disk.append([entry], IOFlushed::noop()).await.unwrap();
        assert_eq!(disk.try_get_log_entries(1..2).await.unwrap().len(), 1);
        let mut bytes = disk.space.get(&entry_key(1)).unwrap().unwrap();
        bytes[4] ^= 1;
        let mut batch = ControlBatch::default();
        batch.put(entry_key(1), bytes);
        disk.space.commit(batch).unwrap();
        let error = disk.try_get_log_entries(1..2).await.unwrap_err();
        assert!(error.to_string().contains("entry 1"), "{error}");
        assert!(disk.get_log_state().await.is_err());
    }
}
