//! Large values: cut into chunks in the region's object store, with the list of them in the row.
//!
//! A chunk is on disk before the row that names it is ([`uploading`]), here and in every region that the row comes to
//! ([`fetching`]). Chunks are verified by their hash whenever they are read ([`reading`]); what was damaged is set aside
//! and asked of the other regions. What no row names goes ([`sweeping`]).
//!
//! ```text
//! chunks/sealed/AB/HASH   encrypted, of one object
//! chunks/plain/AB/HASH    in plain text; objects of equal content share it
//! quarantine/HASH         was damaged
//! ```

mod fetching;
mod reading;
mod sweeping;
mod uploading;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use model::object::{ChunkId, Manifest};
use store::objects::{ObjectError, ObjectStore};
use tokio::sync::Semaphore;

use crate::plane::DataPlane;
use crate::types::DataError;

pub use fetching::ChunkSource;
pub use reading::ObjectReader;
pub use sweeping::{SWEEP_GRACE, Swept};
pub use uploading::Upload;
pub(crate) use uploading::{Cut, is_about_nobody};

/// The largest object where the namespace does not say: 1 GiB.
pub const OBJECT_DEFAULT: u64 = 1 << 30;
/// Objects that are taken in at once; each holds a chunk or two in memory.
pub const UPLOADS: usize = 16;
/// Chunks that are fetched from other regions at once.
const FETCHES: usize = 4;

/// Where chunks lie.
const CHUNKS: &str = "chunks";
/// Where damaged ones lie.
const QUARANTINE: &str = "quarantine";

/// The objects of one region.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    pins: Mutex<PinTable>,
    /// One sweep at a time.
    sweeping: Mutex<()>,
    uploads: Arc<Semaphore>,
    fetches: Arc<Semaphore>,
    /// Chunks that are being fetched.
    on_the_way: Mutex<HashSet<ChunkId>>,
    /// The other regions, once there is a way to them.
    source: OnceLock<Arc<dyn ChunkSource>>,
    /// The last chunk that was looked at.
    looked_at: Mutex<Option<ChunkId>>,
}

/// Which chunks stay, whether or not a row names them.
#[derive(Default)]
struct PinTable {
    /// Those that somebody is about to name in a row, or is reading, and by how many.
    held: HashMap<ChunkId, usize>,
    /// While a sweep is under way: those that were held at any time since it began. Whoever has a row name a chunk holds
    /// it until that is on disk; so what is not among these was named before the sweep began, or is not named.
    since: Option<HashSet<ChunkId>>,
}

impl PinTable {
    fn keeps(&self, chunk: &ChunkId) -> bool {
        self.held.contains_key(chunk) || self.since.as_ref().is_some_and(|since| since.contains(chunk))
    }
}

/// Keeps chunks where they are until it is dropped.
pub(crate) struct Pins {
    objects: Arc<Objects>,
    chunks: Vec<ChunkId>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = self.objects.pins();
        for chunk in &self.chunks {
            match pins.held.get_mut(chunk) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(pins.held.remove(chunk)),
            }
        }
    }
}

impl Pins {
    fn add(&mut self, chunk: ChunkId) {
        let mut pins = self.objects.pins();
        *pins.held.entry(chunk).or_default() += 1;
        if let Some(since) = &mut pins.since {
            since.insert(chunk);
        }
        drop(pins);
        self.chunks.push(chunk);
    }
}

/// The name of a chunk in the object store.
pub(crate) fn name_of(chunk: ChunkId, sealed: bool) -> String {
    let (kind, hash) = (if sealed { "sealed" } else { "plain" }, chunk.to_string());
    format!("{CHUNKS}/{kind}/{}/{hash}", &hash[..2])
}

impl Objects {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            pins: Mutex::default(),
            sweeping: Mutex::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            on_the_way: Mutex::default(),
            source: OnceLock::new(),
            looked_at: Mutex::default(),
        })
    }

    /// Where everything lies.
    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, PinTable> {
        self.pins.lock().expect("nothing panics while it holds the lock")
    }

    fn on_the_way(&self) -> std::sync::MutexGuard<'_, HashSet<ChunkId>> {
        self.on_the_way.lock().expect("nothing panics while it holds the lock")
    }

    /// Keeps these chunks from being swept away, whether or not they are here yet.
    pub(crate) fn pin(self: &Arc<Self>, chunks: &[ChunkId]) -> Pins {
        let mut pins = Pins { objects: self.clone(), chunks: Vec::with_capacity(chunks.len()) };
        chunks.iter().for_each(|chunk| pins.add(*chunk));
        pins
    }

    /// Whether a chunk is on disk, whole or not.
    fn has(&self, chunk: ChunkId, sealed: bool) -> Result<bool, ObjectError> {
        Ok(self.store.about(&name_of(chunk, sealed))?.is_some())
    }

    /// The chunks of an object that are not on disk.
    fn missing(&self, manifest: &Manifest) -> Result<Vec<ChunkId>, ObjectError> {
        let mut missing = Vec::new();
        for chunk in &manifest.chunks {
            if !self.has(*chunk, manifest.sealed.is_some())? {
                missing.push(*chunk);
            }
        }
        Ok(missing)
    }

    /// Stores a chunk, durably, and gives its name. Also where it is there: that it was takes as long, and renews it.
    fn put(&self, stored: &[u8], sealed: bool) -> Result<ChunkId, ObjectError> {
        let chunk = ChunkId::of(stored);
        self.store.put(&name_of(chunk, sealed), stored)?;
        metrics::counter!("repomind_chunks_stored_total").increment(1);
        Ok(chunk)
    }

    /// A chunk as it is stored. One that is not what its name says is set aside, and is none.
    pub(crate) fn get(&self, chunk: ChunkId, sealed: bool) -> Result<Option<Bytes>, ObjectError> {
        let name = name_of(chunk, sealed);
        let Some(stored) = self.store.get(&name)? else { return Ok(None) };
        if ChunkId::of(&stored) == chunk {
            return Ok(Some(stored.into()));
        }
        metrics::counter!("repomind_chunks_damaged_total").increment(1);
        tracing::error!(%chunk, "a chunk of a large value is damaged on disk: it is set aside, and asked of other regions");
        self.store.copy(&name, &format!("{QUARANTINE}/{chunk}"))?;
        self.store.delete(&name)?;
        Ok(None)
    }
}

impl DataPlane {
    /// The objects of this region, where it has a place for them.
    pub(crate) fn objects(&self) -> Option<&Arc<Objects>> {
        self.shared.objects.as_ref()
    }

    /// The object store of this region, where it has one.
    pub fn object_store(&self) -> Option<Arc<dyn ObjectStore>> {
        Some(self.objects()?.store.clone())
    }

    /// Runs what reads or writes objects off the threads that serve sockets.
    pub(crate) async fn with_objects<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Objects>) -> Result<T, DataError> + Send + 'static,
    ) -> Result<T, DataError> {
        let objects = self.objects().cloned().ok_or(DataError::NoObjects)?;
        tokio::task::spawn_blocking(move || work(&objects)).await.map_err(|_| DataError::Closed)?
    }
}
