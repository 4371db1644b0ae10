//! Applies what was agreed on, and keeps a snapshot of the state so that the log can be cut.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use model::codec::{self, Format};
use model::control::{ControlNode, Fence};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};
use store::{ControlBatch, ControlSpace};
use tokio::sync::watch;

use crate::disk::{on_disk, open};
use crate::state::ControlState;
use crate::types::Types;

const SNAPSHOT: &[u8] = b"snapshot";

/// A snapshot on disk.
#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMetaOf<Types>,
    state: Vec<u8>,
}

impl Format for StoredSnapshot {
    const KIND: u8 = 0x35;
    const VERSION: u8 = 1;
    const NAME: &'static str = "snapshot of the common log";
}

/// The state that was agreed on.
pub(crate) struct Machine {
    space: ControlSpace,
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    state: Arc<ControlState>,
    published: watch::Sender<Arc<ControlState>>,
}

/// Makes a snapshot of the state as it was when this was made.
pub(crate) struct Builder {
    space: ControlSpace,
    meta: SnapshotMetaOf<Types>,
    state: Arc<ControlState>,
}

fn read_state(bytes: &[u8], place: &str) -> io::Result<ControlState> {
    ControlState::read(bytes).map_err(|error| {
        let message = format!("the common log is damaged at {place}: {error}");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn read_snapshot(space: &ControlSpace) -> io::Result<Option<StoredSnapshot>> {
    let bytes = space.get(SNAPSHOT).map_err(|error| io::Error::other(error.to_string()))?;
    bytes.map(|bytes| open(&bytes, "its snapshot")).transpose()
}

async fn write_snapshot(space: &ControlSpace, snapshot: StoredSnapshot) -> io::Result<()> {
    let space = space.clone();
    on_disk(move || {
        let mut batch = ControlBatch::default();
        batch.put(SNAPSHOT, codec::encode(&snapshot));
        space.commit(batch).map_err(|error| io::Error::other(error.to_string()))
    })
    .await
}

/// The fence under which an entry was written.
pub(crate) fn fence_of(id: &LogIdOf<Types>) -> Fence {
    let leader = id.committed_leader_id();
    Fence { term: leader.term, node: ControlNode(leader.node_id) }
}

impl Machine {
    /// The state of the newest snapshot; what came after it is applied again from the log.
    pub(crate) fn open(space: ControlSpace) -> io::Result<(Self, watch::Receiver<Arc<ControlState>>)> {
        let (mut applied, mut membership) = (None, StoredMembershipOf::<Types>::default());
        let mut state = Arc::<ControlState>::default();
        if let Some(StoredSnapshot { meta, state: bytes }) = read_snapshot(&space)? {
            (applied, membership) = (meta.last_log_id, meta.last_membership);
            state = Arc::new(read_state(&bytes, "the state in its snapshot")?);
        }
        let (published, seen) = watch::channel(state.clone());
        Ok((Self { space, applied, membership, state, published }, seen))
    }

    fn meta(&self) -> SnapshotMetaOf<Types> {
        SnapshotMetaOf::<Types> { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Vec<u8>>, io::Error> {
        let state = codec::encode(&*self.state);
        write_snapshot(&self.space, StoredSnapshot { meta: self.meta.clone(), state: state.clone() }).await?;
        Ok(SnapshotOf::<Types, Vec<u8>> { meta: self.meta.clone(), snapshot: state })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            let command = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(command) => Some(command),
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), members);
                    None
                }
            };
            let outcome = Arc::make_mut(&mut self.state).apply(fence_of(&entry.log_id), command);
            // Before whoever waits for the answer looks at the state.
            self.published.send_replace(self.state.clone());
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { space: self.space.clone(), meta: self.meta(), state: self.state.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let state = read_state(&snapshot, "the state that another region sent")?;
        write_snapshot(&self.space, StoredSnapshot { meta: meta.clone(), state: snapshot }).await?;
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        self.state = Arc::new(state);
        self.published.send_replace(self.state.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, Vec<u8>>>, io::Error> {
        let stored = read_snapshot(&self.space)?;
        Ok(stored.map(|stored| SnapshotOf::<Types, Vec<u8>> { meta: stored.meta, snapshot: stored.state }))
    }
}

#[cfg(test)]
mod tests {
    use model::UnixMillis;
    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};

    use super::*;
    use crate::disk::Disk;

    /// Makes a log and a machine on a disk of their own.
    struct Fresh;

    impl StoreBuilder<Types, Disk, Machine, store::memory::Disk> for Fresh {
        async fn build(&self) -> Result<(store::memory::Disk, Disk, Machine), StorageError<Types>> {
            let disk = store::memory::Disk::new();
            let space = store::Store::open_in_memory(&disk, UnixMillis(1)).unwrap().control();
            let machine = Machine::open(space.clone()).unwrap().0;
            Ok((disk, Disk::new(space), machine))
        }
    }

    #[tokio::test]
    async fn the_log_and_the_machine_keep_what_consensus_asks_of_them() {
        Suite::test_all(Fresh).await.unwrap();
    }

    #[tokio::test]
    async fn a_snapshot_survives_a_power_cut_and_a_damaged_one_is_not_taken() {
        let memory = store::memory::Disk::new();
        let open = || store::Store::open_in_memory(&memory, UnixMillis(1)).unwrap().control();
        let mut machine = Machine::open(open()).unwrap().0;
        let fence = Fence { term: 4, node: ControlNode(7) };
        Arc::make_mut(&mut machine.state).apply(fence, None);
        let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        memory.cut_power();
        let mut after = Machine::open(open()).unwrap().0;
        assert_eq!(after.state.fence, Some(fence));
        let mut damaged = built.snapshot;
        damaged[3] ^= 1;
        assert!(after.install_snapshot(&built.meta, damaged).await.is_err());
        assert_eq!(after.state.fence, Some(fence));
    }
}
