//! Chunks between regions: a row comes into force where its chunks are, and a chunk goes where its record may be.
//!
//! Whoever takes over a row fetches what it lacks of the object from the region that gives the row, a few chunks at a
//! time, each durable when it has come: what is interrupted goes on where it was. A region gives a chunk to one that
//! names a write which has it and which that region may hold, by the policies in force; knowing a hash is not enough.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::RegionId;
use model::object::{ChunkAnswer, ChunkId, ChunkQuestion, Manifest};
use model::record::{Address, Record, Shipment, Sibling};
use model::snapshot::Given;
use model::version::{Dot, Incarnation};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Objects, Pins};
use crate::plane::{DataPlane, RETRY_AFTER};
use crate::types::DataError;

/// How long a region may take to give one chunk: four at once come through at 140 KB/s.
const ONE_CHUNK: Duration = Duration::from_secs(120);
/// How often it is looked whether somebody else's fetching of a chunk has come to its end.
const LOOK: Duration = Duration::from_millis(50);
/// How long whoever takes over rows waits for their chunks, before it stops there and is shipped the rest again.
const CHUNKS_WAIT: Duration = Duration::from_secs(12);

/// The way to the other regions.
pub trait ChunkSource: Send + Sync {
    /// Asks a region for a chunk. An error says why it could not be asked.
    fn ask(
        &self,
        region: &RegionId,
        question: ChunkQuestion,
    ) -> Pin<Box<dyn Future<Output = Result<ChunkAnswer, String>> + Send>>;
}

/// An object that comes in with a row.
struct Coming {
    address: Address,
    dot: Dot,
    manifest: Manifest,
    permitted: BTreeSet<RegionId>,
}

impl Coming {
    /// None where the write has no object.
    fn of(address: &Address, sibling: &Sibling, permitted: &BTreeSet<RegionId>) -> Option<Self> {
        let manifest = sibling.content.record()?.payload.object()?.clone();
        Some(Self {
            address: address.clone(),
            dot: sibling.version.dot.clone(),
            manifest,
            permitted: permitted.clone(),
        })
    }
}

/// What one chunk came to.
enum Came {
    Here,
    /// Nobody needs it any more, or nobody has it.
    Never,
    NotNow,
}

/// A chunk that is being fetched, once.
struct OnTheWay<'o>(&'o Objects, ChunkId);

impl<'o> OnTheWay<'o> {
    /// Waits until nobody else fetches it. `None` where that takes too long.
    async fn begin(objects: &'o Objects, chunk: ChunkId) -> Option<Self> {
        let until = Instant::now() + ONE_CHUNK;
        while !objects.on_the_way().insert(chunk) {
            if Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
        Some(Self(objects, chunk))
    }
}

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        self.0.on_the_way().remove(&self.1);
    }
}

impl DataPlane {
    /// From here on chunks are asked of other regions by this way.
    pub fn fetch_chunks_by(&self, source: Arc<dyn ChunkSource>) {
        if let Some(objects) = self.objects() {
            // Once a process.
            let _ = objects.source.set(source);
        }
    }

    /// The chunk that `to` asks for, if it may hold the write that it names, and that write has it. Reads the disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn give_chunk(&self, to: &RegionId, question: &ChunkQuestion) -> Result<ChunkAnswer, DataError> {
        let Some(objects) = self.objects() else { return Ok(ChunkAnswer::Absent) };
        let ChunkQuestion { address, dot, chunk } = question;
        let row = self.shared.store.row(address)?;
        let sibling = row.as_ref().and_then(|row| row.siblings.iter().find(|sibling| sibling.version.dot == *dot));
        let Some(sibling) = sibling.filter(|sibling| sibling.content.record().is_some()) else {
            let replaced = self.was_shipped_to(to, address, dot)?;
            return Ok(if replaced { ChunkAnswer::Replaced } else { ChunkAnswer::Absent });
        };
        let Some(record) = sibling.content.record().filter(|record| self.may_have(to, sibling, record)) else {
            metrics::counter!("repomind_chunks_refused_total").increment(1);
            return Ok(ChunkAnswer::Absent);
        };
        let Some(manifest) = record.payload.object().filter(|manifest| manifest.chunks.contains(chunk)) else {
            return Ok(ChunkAnswer::Absent);
        };
        let _pins = objects.pin(&[*chunk]);
        Ok(objects.get(*chunk, manifest.sealed.is_some())?.map_or(ChunkAnswer::Lost, ChunkAnswer::Here))
    }

    /// Whether a region may hold a record by its scope and by the policies in force; also where this one must give the
    /// record up and brings it home.
    fn may_have(&self, to: &RegionId, sibling: &Sibling, record: &Record) -> bool {
        let (plans, now) = (self.shared.plans.load(), self.shared.clock.wall());
        let origin = &sibling.version.dot.actor.region;
        let travels = plans.residency.permit_arrival(&record.labels, origin, to, now).is_ok();
        let home = || {
            plans.residency.permit_in(&record.labels, &self.shared.me, now).is_err()
                && plans.residency.permit_in(&record.labels, to, now).is_ok()
        };
        self.shared.scopes.regions(sibling.scope).is_some_and(|regions| regions.contains(to)) && (travels || home())
    }

    /// Whether the log has the write as one that `to` may hold. A write's counter is its place in its region's log.
    fn was_shipped_to(&self, to: &RegionId, address: &Address, dot: &Dot) -> Result<bool, DataError> {
        let (origin, life) = (&dot.actor.region, dot.actor.incarnation);
        let before = dot.counter.saturating_sub(1);
        if before < self.shared.store.floors().offset(origin, life) {
            return Ok(false);
        }
        let logged = self.shared.store.shipments(origin, life, before, 1)?;
        Ok(logged.first().is_some_and(|shipment| match shipment {
            Shipment::Entry(entry) => {
                entry.address == *address && entry.sibling.version.dot == *dot && entry.permitted.contains(to)
            }
            _ => false,
        }))
    }

    /// Fetches what is missing here of the objects among these writes, which may all be here, and keeps their chunks
    /// until the pins are dropped. `None` where that took too long: what has come stays for the next time.
    async fn with_chunks(
        &self,
        from: &RegionId,
        writes: Vec<Coming>,
        until: Instant,
    ) -> Result<Option<Vec<Pins>>, DataError> {
        let Some(objects) = self.objects() else { return Ok(Some(Vec::new())) };
        let mut all = Vec::new();
        for Coming { address, dot, manifest, permitted } in writes {
            let sealed = manifest.sealed.is_some();
            all.push(objects.pin(&manifest.chunks));
            let missing = self.with_objects(move |objects| Ok(objects.missing(&manifest)?)).await?;
            let regions: Vec<RegionId> = std::iter::once(from)
                .chain(permitted.iter().filter(|region| *region != from && **region != self.shared.me))
                .cloned()
                .collect();
            let mut fetching = JoinSet::new();
            for chunk in missing {
                let question = ChunkQuestion { address: address.clone(), dot: dot.clone(), chunk };
                let (data, regions) = (self.clone(), regions.clone());
                fetching.spawn(async move { data.fetch(&regions, question, sealed).await });
            }
            loop {
                match tokio::time::timeout_at(until, fetching.join_next()).await {
                    Ok(None) => break,
                    Ok(Some(Ok(Ok(Came::Here | Came::Never)))) => {}
                    // What is on its way arrives all the same.
                    Ok(Some(Ok(Ok(Came::NotNow)))) | Err(_) => {
                        fetching.detach_all();
                        return Ok(None);
                    }
                    Ok(Some(Ok(Err(error)))) => return Err(error),
                    Ok(Some(Err(_))) => return Err(DataError::Closed),
                }
            }
        }
        Ok(Some(all))
    }

    /// Fetches one chunk from the first of these regions that gives it, and stores it.
    async fn fetch(&self, regions: &[RegionId], question: ChunkQuestion, sealed: bool) -> Result<Came, DataError> {
        let objects = self.objects().cloned().ok_or(DataError::NoObjects)?;
        let _turn = objects.fetches.clone().acquire_owned().await.map_err(|_| DataError::Closed)?;
        let chunk = question.chunk;
        let Some(_alone) = OnTheWay::begin(&objects, chunk).await else { return Ok(Came::NotNow) };
        if self.with_objects(move |objects| Ok(objects.has(chunk, sealed)?)).await? {
            return Ok(Came::Here);
        }
        let Some(source) = objects.source.get() else { return Ok(Came::NotNow) };
        let (mut asked_all, mut given_up) = (true, false);
        for (at, region) in regions.iter().enumerate() {
            let answer = match timeout(ONE_CHUNK, source.ask(region, question.clone())).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(reason)) => {
                    tracing::debug!(%region, reason, "a chunk could not be asked for");
                    asked_all = false;
                    continue;
                }
                Err(_) => {
                    asked_all = false;
                    continue;
                }
            };
            match answer {
                ChunkAnswer::Here(stored) if ChunkId::of(&stored) == chunk => {
                    self.store_fetched(stored, sealed).await?;
                    return Ok(Came::Here);
                }
                ChunkAnswer::Here(_) => {
                    tracing::warn!(%region, %chunk, "a chunk arrived that is not the one that was asked for");
                    asked_all = false;
                }
                ChunkAnswer::Replaced => return Ok(Came::Never),
                ChunkAnswer::Lost => given_up = true,
                // Whoever gives the row ought to know; the others need not have it yet.
                ChunkAnswer::Absent => given_up |= at == 0,
            }
        }
        if !(given_up && asked_all) {
            return Ok(Came::NotNow);
        }
        metrics::counter!("repomind_chunks_without_copy_total").increment(1);
        tracing::error!(%chunk, "no region has a chunk of a large value: its record is taken over and cannot be read");
        Ok(Came::Never)
    }

    async fn store_fetched(&self, stored: Bytes, sealed: bool) -> Result<(), DataError> {
        metrics::counter!("repomind_chunks_fetched_total").increment(1);
        self.with_objects(move |objects| Ok(objects.put(&stored, sealed).map(drop)?)).await
    }

    /// Has another region give a chunk that is damaged or missing here.
    pub(crate) async fn repair_chunk(
        &self,
        address: &Address,
        dot: &Dot,
        chunk: ChunkId,
        sealed: bool,
    ) -> Result<Bytes, DataError> {
        let damaged = || DataError::Damaged { retry_after: RETRY_AFTER };
        let row = self.shared.store.row(address)?;
        let sibling = row.iter().flat_map(|row| &row.siblings).find(|sibling| sibling.version.dot == *dot);
        let scope = sibling.map(|sibling| sibling.scope).ok_or_else(damaged)?;
        let mut regions = self.shared.scopes.regions(scope).unwrap_or_default();
        regions.remove(&self.shared.me);
        let regions: Vec<RegionId> = regions.into_iter().collect();
        let question = ChunkQuestion { address: address.clone(), dot: dot.clone(), chunk };
        match self.fetch(&regions, question, sealed).await? {
            Came::Here => {
                metrics::counter!("repomind_chunks_mended_total").increment(1);
                let stored = self.with_objects(move |objects| Ok(objects.get(chunk, sealed)?)).await?;
                stored.ok_or_else(damaged)
            }
            Came::Never | Came::NotNow => Err(damaged()),
        }
    }

    /// Up to where a batch can be taken over: what has all its chunks here, which the pins keep.
    pub(crate) async fn up_to_missing_chunks(
        &self,
        from: &RegionId,
        life: Option<Incarnation>,
        batch: &mut Vec<Shipment>,
    ) -> Result<Vec<Pins>, DataError> {
        let mut kept = Vec::new();
        let has_object = |shipment: &Shipment| matches!(shipment, Shipment::Entry(entry) if self.may_arrive(entry));
        if self.objects().is_none() || !batch.iter().any(has_object) {
            return Ok(kept);
        }
        let until = Instant::now() + CHUNKS_WAIT;
        let mut vector = self.shared.store.vector();
        for at in 0..batch.len() {
            let position = batch[at].position().clone();
            if !vector.covers(&position) {
                if !vector.is_next(&position) {
                    // Behind a gap: it is not taken over this time.
                    batch.truncate(at);
                    break;
                }
                vector.advance(&position);
                let wanted = match &batch[at] {
                    Shipment::Entry(entry) if self.may_arrive(entry) => {
                        Coming::of(&entry.address, &entry.sibling, &entry.permitted)
                    }
                    _ => None,
                };
                if let Some(coming) = wanted {
                    match self.with_chunks(from, vec![coming], until).await? {
                        Some(pins) => kept.extend(pins),
                        None => {
                            batch.truncate(at);
                            break;
                        }
                    }
                }
            }
        }
        self.not_of_an_ended_life(from, life)?;
        Ok(kept)
    }

    /// Fetches the chunks of rows that are given, which may all be here.
    pub(crate) async fn chunks_of_given(
        &self,
        from: &RegionId,
        rows: &BTreeMap<Address, Vec<Given>>,
    ) -> Result<Vec<Pins>, DataError> {
        let of = |address, given: &Given| Coming::of(address, &given.sibling, &given.permitted);
        let all = rows.iter().flat_map(|(address, given)| given.iter().filter_map(move |given| of(address, given)));
        let all = all.collect();
        let kept = self.with_chunks(from, all, Instant::now() + CHUNKS_WAIT).await?;
        // What has come stays for the next time.
        kept.ok_or(DataError::Unready { retry_after: RETRY_AFTER })
    }

    /// Fetches the chunks of records that come home, and leaves out those that may not be here or whose chunks did not
    /// come.
    pub(crate) async fn chunks_of_homecoming(
        &self,
        from: &RegionId,
        rows: &mut Vec<(Address, Given)>,
    ) -> Result<Vec<Pins>, DataError> {
        let (mut kept, until) = (Vec::new(), Instant::now() + CHUNKS_WAIT);
        let plans = self.shared.plans.load_full();
        for (address, given) in std::mem::take(rows) {
            let Some(coming) = Coming::of(&address, &given.sibling, &given.permitted) else {
                rows.push((address, given));
                continue;
            };
            let (me, now) = (&self.shared.me, self.shared.clock.wall());
            let lawful = |labels| plans.residency.permit_in(labels, me, now).is_ok();
            if !given.permitted.contains(me) || !given.sibling.content.labels().is_some_and(lawful) {
                continue;
            }
            if let Some(pins) = self.with_chunks(from, vec![coming], until).await? {
                kept.extend(pins);
                rows.push((address, given));
            }
        }
        Ok(kept)
    }

    /// Whether all chunks of the writes in a question are here, for those that are objects.
    pub(crate) async fn has_chunks(&self, about: Vec<(Address, Dot)>) -> Result<Vec<bool>, DataError> {
        let data = self.clone();
        let look = move |objects: &Arc<Objects>| {
            let whole = |(address, dot): &(Address, Dot)| {
                let row = data.shared.store.row(address)?;
                let sibling = row.iter().flat_map(|row| &row.siblings).find(|sibling| sibling.version.dot == *dot);
                match sibling.and_then(|sibling| sibling.content.record()?.payload.object()) {
                    Some(manifest) => Ok(objects.missing(manifest)?.is_empty()),
                    None => Ok(true),
                }
            };
            about.iter().map(whole).collect()
        };
        match self.objects() {
            Some(_) => self.with_objects(look).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether an entry has an object that may be here by the plan in force.
    fn may_arrive(&self, entry: &model::record::Entry) -> bool {
        let (plans, now) = (self.shared.plans.load(), self.shared.clock.wall());
        let record = entry.sibling.content.record().filter(|record| record.payload.object().is_some());
        let lawful = |record: &Record| {
            plans.residency.permit_arrival(&record.labels, &entry.position.origin, &self.shared.me, now).is_ok()
        };
        entry.permitted.contains(&self.shared.me) && record.is_some_and(lawful)
    }
}
