//! What is forgotten, and when.
//!
//! [`DataPlane::tend`] is called every [`TEND_EVERY`]. It cuts the logs, buries tombstones, and drops lists of row
//! images that later ones have overtaken.
//!
//! **Logs.** An entry goes once every peer has durably taken it over, and it is older than [`Retention::watched`]; and, whoever lacks it, once the log is older or
//! larger than [`Retention`] allows. A peer that lacks it then is given rows when it is back ([`crate::giving`]).
//! What is found at one call goes at the next: a batch whose answer was lost is shipped again meanwhile, and its
//! answer names refusals out of the log.
//!
//! **Tombstones.** One round notes what every region has taken over, *and* everything that any region had taken over
//! by then. When this region has all of the latter, every write that knew nothing of the tombstone has arrived here;
//! if the row then still has nothing alive, no region will ever see anything alive that the tombstone would have to
//! remove. The row goes into its grave ([`crate::graves`]), and is forgotten when every region has buried as far.

use std::sync::Arc;
use std::time::Duration;

use compliance::ledger::CommitImages;
use model::version::{LogPosition, PositionVector};
use model::{ByteCount, Millis, codec};
use store::{ImagePass, StoreError};
use tokio::sync::oneshot;

use crate::faults::Fault;
use crate::group::Change;
use crate::plane::DataPlane;
use crate::types::DataError;

/// How often a region is tended: longer than a writer waits for copies.
pub const TEND_EVERY: Duration = Duration::from_secs(10);
/// Rows that are buried in one group.
const BURIED: usize = 256;
/// Lists of row images that are looked at in one go.
const LISTS: usize = 256;

/// How much of the logs is kept for peers that are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries that were committed longer ago go.
    pub age: Millis,
    /// All logs together hold about this much at most.
    pub bytes: ByteCount,
    /// Entries that every region has stay for so long, if the other bounds let them, for clients that watch and come back.
    pub watched: Millis,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Millis::from_secs(24 * 3600), bytes: ByteCount(1 << 30), watched: Millis(0) }
    }
}

/// What one call has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Log entries that went.
    pub trimmed: u64,
    /// Keys whose tombstones went.
    pub buried: u64,
    /// Lists of row images that went.
    pub lists: u64,
}

/// A round for tombstones.
struct Round {
    /// What every region had taken over when it began.
    stable: Arc<PositionVector>,
    /// What any region had.
    any: PositionVector,
}

/// What is carried from one call to the next.
#[derive(Default)]
pub(crate) struct Tending {
    floors: PositionVector,
    round: Option<Round>,
}

impl DataPlane {
    /// Forgets what nobody needs any more. Reads and writes the disk, also where there is nothing to forget.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn tend(&self) -> Result<Tended, DataError> {
        // One at a time: the next begins where this one ended.
        let mut tending = self.shared.tending.lock().await;
        let floors = std::mem::replace(&mut tending.floors, self.floors_to_be()?);
        let trimmed = self.shared.store.trim(&floors)?;
        let buried = self.bury(&mut tending).await?;
        let lists = self.pass_images()?;
        self.forget_losses().await?;
        let (answer, done) = oneshot::channel();
        // Also keeps what peers said last, which the next round rests on.
        self.wait_in_line(Change::Tend(answer)).await?;
        done.await.map_err(|_| DataError::Closed)??;
        metrics::counter!("repomind_log_entries_trimmed_total").increment(trimmed);
        metrics::counter!("repomind_tombstones_buried_total").increment(buried);
        Ok(Tended { trimmed, buried, lists })
    }

    /// Up to where each log may be cut.
    fn floors_to_be(&self) -> Result<PositionVector, DataError> {
        let (store, keep) = (&self.shared.store, self.shared.keep);
        let ends = store.vector();
        let peers: Vec<PositionVector> = self.shared.acks.reached().into_values().collect();
        let since = self.shared.clock.wall();
        let since = model::UnixMillis(since.0.saturating_sub(keep.age.0));
        let watched = model::UnixMillis(self.shared.clock.wall().0.saturating_sub(keep.watched.min(keep.age).0));
        let mut floors = store.offsets_beyond(keep.bytes)?;
        for (origin, incarnation, end) in ends.iter() {
            let acked = peers.iter().map(|peer| peer.offset(origin, incarnation)).min().unwrap_or(end).min(end);
            let acked = if self.shared.faults.makes(Fault::TrimUnacked) { end } else { acked };
            let offset = match acked < end {
                true => acked.max(store.offset_before(origin, incarnation, since)?),
                false => acked,
            };
            let offset = match keep.watched {
                Millis(0) => offset,
                _ => offset.min(store.offset_before(origin, incarnation, watched)?),
            };
            floors.advance(&LogPosition { origin: origin.clone(), incarnation, offset });
        }
        Ok(floors)
    }

    async fn bury(&self, tending: &mut Tending) -> Result<u64, DataError> {
        let ours = self.shared.store.vector();
        let at_once = self.shared.faults.makes(Fault::DropTombstone);
        let ready = tending.round.take_if(|round| ours.includes(&round.any));
        let mut buried = 0;
        if ready.is_some() || at_once {
            let stable = match ready {
                Some(round) if !at_once => round.stable,
                _ => Arc::new(ours.clone()),
            };
            buried = self.bury_all(&stable).await?;
            let (answer, done) = oneshot::channel();
            self.wait_in_line(Change::Buried(stable, answer)).await?;
            done.await.map_err(|_| DataError::Closed)??;
        }
        self.forget_graves().await?;
        self.forget_moved().await?;
        // What a region had and has lost since with its disk will never arrive: then another round begins.
        let reached = self.shared.acks.reached();
        let there = |any: &PositionVector| {
            let mut now = ours.clone();
            reached.values().for_each(|vector| now.join(vector));
            now.includes(any)
        };
        tending.round.take_if(|round| !there(&round.any));
        if tending.round.is_none() {
            let (stable, mut any) = (self.shared.acks.stable_by_now(), ours);
            self.shared.acks.kept().iter().for_each(|kept| any.join(kept));
            tending.round = Some(Round { stable, any });
        }
        Ok(buried)
    }

    async fn bury_all(&self, stable: &Arc<PositionVector>) -> Result<u64, DataError> {
        let (store, mut after, mut buried) = (&self.shared.store, None, 0);
        loop {
            let listed = store.dead_rows(after.as_ref(), BURIED)?;
            let Some(last) = listed.last().cloned() else { return Ok(buried) };
            let (answer, done) = oneshot::channel();
            self.wait_in_line(Change::Bury(listed, stable.clone(), answer)).await?;
            buried += done.await.map_err(|_| DataError::Closed)??;
            after = Some(last);
        }
    }

    /// Drops the lists of row images in which nothing is the last image of its row.
    fn pass_images(&self) -> Result<u64, DataError> {
        let (store, mut gone) = (&self.shared.store, 0);
        loop {
            let (_, lists) = store.images_to_pass(LISTS)?;
            let Some((last, _)) = lists.last() else { return Ok(gone) };
            let mut pass = ImagePass { passed: last + 1, ..ImagePass::default() };
            let mut owners = std::collections::BTreeMap::new();
            let mut live = std::collections::BTreeMap::new();
            for (index, bytes) in &lists {
                let images: CommitImages = codec::decode(bytes).map_err(|reason| StoreError::Corrupt {
                    place: format!("the row images of leaf {index}"),
                    reason,
                })?;
                for image in &images.0 {
                    let before = match owners.insert(image.record.0, *index) {
                        Some(before) => Some(before),
                        None => store.owner_of(&image.record.0)?,
                    };
                    // A pass that a power cut took back is made again.
                    if let Some(before) = before.filter(|before| before < index) {
                        let count = live.entry(before).or_insert(store.live_images(before)?);
                        *count = count.saturating_sub(1);
                    }
                }
                live.insert(*index, u32::try_from(images.0.len()).unwrap_or(u32::MAX));
            }
            pass.owners = owners.into_iter().collect();
            pass.live = live.into_iter().collect();
            gone += store.pass_images(pass)?;
        }
    }
}
