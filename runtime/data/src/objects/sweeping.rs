//! Chunks that no row names any more go, and those that rows name are looked at.
//!
//! A chunk goes only if it was written a while ago, if no row names it as of a moment after the sweep began, and if nobody
//! has been about to name it, or has been reading it, since then. While a row is damaged nothing goes: it may have named
//! anything.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use model::codec;
use model::object::ChunkId;
use model::record::{Address, Row};
use model::version::Dot;
use store::objects::Listed;
use store::{Store, StoreError};

use super::{CHUNKS, Objects, QUARANTINE, name_of};
use crate::plane::DataPlane;
use crate::types::DataError;

/// How old a chunk is at least that goes.
pub const SWEEP_GRACE: Duration = Duration::from_secs(60);
/// How long damaged chunks lie aside.
const ASIDE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bytes of chunks that are looked at in one sweep.
const LOOKED_AT: u64 = 256 * 1024 * 1024;
/// Chunks that are asked of other regions in one sweep.
const MENDED: usize = 64;

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Chunks that rows name.
    pub named: u64,
    /// Their bytes as they are stored.
    pub bytes: u64,
    /// Chunks that went.
    pub gone: u64,
    /// Chunks that were damaged or missing, and have come from another region.
    pub mended: u64,
    /// Chunks that are damaged or missing.
    pub lost: u64,
}

/// A chunk that a row names: of which write, and whether it is encrypted.
struct Named {
    address: Address,
    dot: Dot,
    sealed: bool,
}

impl DataPlane {
    /// Has what was just taken out of its rows go now. Where that cannot be, a later sweep does it: nothing opens it.
    pub(crate) async fn sweep_soon(&self) -> Result<(), DataError> {
        match self.sweep_objects(Duration::ZERO).await {
            Err(DataError::Closed) => Err(DataError::Closed),
            Err(error) => {
                tracing::warn!(%error, "chunks of what is gone stay until the next sweep");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Takes away what no row names and what was written at least `grace` ago, and looks at some of the rest. Encrypted
    /// chunks belong to one object; with no grace for them they go as soon as nothing names them. Reads all rows.
    ///
    /// # Errors
    /// Those of the disk; [`DataError::Damaged`] where a row is.
    pub async fn sweep_objects(&self, grace: Duration) -> Result<Swept, DataError> {
        if self.objects().is_none() {
            return Ok(Swept::default());
        }
        let data = self.clone();
        let (mut swept, wrong) = self.with_objects(move |objects| data.sweep(objects, grace)).await?;
        for (chunk, Named { address, dot, sealed }) in wrong {
            match self.repair_chunk(&address, &dot, chunk, sealed).await {
                Ok(_) => swept.mended += 1,
                Err(error) => {
                    tracing::warn!(%chunk, %error, "a chunk of a large value is damaged or missing, and no other region gave it");
                    swept.lost += 1;
                }
            }
        }
        metrics::gauge!("repomind_chunks").set(swept.named as f64);
        metrics::gauge!("repomind_chunk_bytes").set(swept.bytes as f64);
        metrics::gauge!("repomind_chunks_lost").set(swept.lost as f64);
        Ok(swept)
    }

    fn sweep(&self, objects: &Objects, grace: Duration) -> Result<(Swept, Vec<(ChunkId, Named)>), DataError> {
        let _alone = objects.sweeping.lock().expect("nothing panics while it holds the lock");
        let _watched = Watched::begin(objects);
        let listed = objects.store.list(CHUNKS)?;
        // What is taken out of the rows to be mended is named by none of them.
        if !self.wounds().open.is_empty() {
            return Err(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER });
        }
        let named = self.named_chunks()?;
        let (mut swept, mut here) = (Swept { named: named.len() as u64, ..Swept::default() }, HashSet::new());
        for one in listed {
            let Some(chunk) = one.name.rsplit('/').next().and_then(|name| name.parse::<ChunkId>().ok()) else {
                continue;
            };
            let sealed = one.name == name_of(chunk, true);
            match named.get(&chunk).filter(|by| by.sealed == sealed) {
                Some(_) => {
                    swept.bytes += one.bytes;
                    here.insert(chunk);
                }
                None => swept.gone += u64::from(objects.take_away(chunk, &one, sealed, grace)?),
            }
        }
        metrics::counter!("repomind_chunks_swept_total").increment(swept.gone);
        for old in objects.store.list(QUARANTINE)?.into_iter().filter(|old| old.age > ASIDE) {
            objects.store.delete(&old.name)?;
        }
        let mut wrong: Vec<ChunkId> = named.keys().filter(|chunk| !here.contains(chunk)).copied().collect();
        wrong.extend(objects.look_at(&named, &here)?);
        swept.lost = wrong.len().saturating_sub(MENDED) as u64;
        wrong.truncate(MENDED);
        let mut named = named;
        Ok((swept, wrong.into_iter().filter_map(|chunk| Some((chunk, named.remove(&chunk)?))).collect()))
    }

    fn named_chunks(&self) -> Result<BTreeMap<ChunkId, Named>, DataError> {
        let mut named = BTreeMap::new();
        let read = self.shared.store.each_row(&mut |key, bytes| {
            let address = Store::address_of(key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
            let row: Row = codec::decode(bytes)
                .map_err(|reason| StoreError::Corrupt { place: format!("row {address}"), reason })?;
            for sibling in row.siblings {
                let Some(manifest) = sibling.content.record().and_then(|record| record.payload.object()) else {
                    continue;
                };
                let sealed = manifest.sealed.is_some();
                for chunk in &manifest.chunks {
                    let (address, dot) = (address.clone(), sibling.version.dot.clone());
                    named.insert(*chunk, Named { address, dot, sealed });
                }
            }
            Ok(())
        });
        self.suspecting(read.map_err(DataError::from))?;
        Ok(named)
    }
}

/// Has it noted which chunks are held, for as long as a sweep is under way.
struct Watched<'o>(&'o Objects);

impl<'o> Watched<'o> {
    fn begin(objects: &'o Objects) -> Self {
        let mut pins = objects.pins();
        pins.since = Some(pins.held.keys().copied().collect());
        Self(objects)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.pins().since = None;
    }
}

impl Objects {
    /// Takes a chunk away, unless somebody is at it or it was written anew.
    fn take_away(&self, chunk: ChunkId, listed: &Listed, sealed: bool, grace: Duration) -> Result<bool, DataError> {
        let grace = if sealed { grace } else { grace.max(SWEEP_GRACE) };
        if listed.age < grace {
            return Ok(false);
        }
        // Whoever is about to name it holds it before it looks whether it is here.
        let pins = self.pins();
        if pins.keeps(&chunk) || self.store.about(&listed.name)?.is_none_or(|now| now.age < grace) {
            return Ok(false);
        }
        Ok(self.store.delete(&listed.name)?)
    }

    /// Looks at some chunks, after those that the sweep before looked at, and gives those that were damaged.
    fn look_at(&self, named: &BTreeMap<ChunkId, Named>, here: &HashSet<ChunkId>) -> Result<Vec<ChunkId>, DataError> {
        let mut looked_at = self.looked_at.lock().expect("nothing panics while it holds the lock");
        let (mut bytes, mut wrong) = (0, Vec::new());
        let after = looked_at.take();
        for (chunk, by) in named.iter().filter(|(chunk, _)| after.is_none_or(|after| **chunk > after)) {
            if bytes >= LOOKED_AT {
                return Ok(wrong);
            }
            *looked_at = Some(*chunk);
            if here.contains(chunk) {
                match self.get(*chunk, by.sealed)? {
                    Some(stored) => bytes += stored.len() as u64,
                    None => wrong.push(*chunk),
                }
            }
        }
        *looked_at = None;
        Ok(wrong)
    }
}
