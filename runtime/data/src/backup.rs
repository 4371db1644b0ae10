//! Backups of a region, in its own object store: all of its store as of one moment, and the chunks that its rows name.
//!
//! A store is cut into parts at keys that their hash chooses, so that a change touches a part or two and the next backup
//! writes no other. A part is stored once, under the hash of its bytes:
//!
//! ```text
//! backups/lists/ID        the list of a backup (envelope of `model::codec`)
//! backups/parts/AB/HASH   pairs of a space, compressed
//! backups/chunks/AB/HASH  chunks of large values: copies, which outlive the rows here
//! ```
//!
//! No key is in a backup. What is about people is ciphertext in it, as on the disk; whose key is destroyed is destroyed
//! for all backups. A region that is put back is one whose disk was put back from a copy: it begins a new incarnation,
//! is given what it lacks by the others, and opens nothing before it has heard of all erasures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use model::backup::{BackupId, BackupList, Part};
use model::codec::{self, CodecError};
use model::object::ChunkId;
use model::record::Row;
use model::version::Dot;
use model::{Hlc, RegionId};
use store::copies::{COPIED, Restoring};
use store::objects::{ObjectError, ObjectStore};
use store::{Snapshot, Store, StoreError};

use crate::objects::name_of;
use crate::plane::DataPlane;
use crate::types::DataError;

const LISTS: &str = "backups/lists";
const PARTS: &str = "backups/parts";
const COPIES: &str = "backups/chunks";
/// What a part begins with.
const HEAD: &[u8] = b"repomind backup part 1\n";
/// A part is cut behind a key that its hash chooses once it has so many bytes,
const LEAST: usize = 512 * 1024;
/// and behind any once it has so many.
const MOST: usize = 8 * 1024 * 1024;
/// One key in so many is chosen.
const ONE_IN: u8 = 32;
/// Compression of parts.
const LEVEL: i32 = 1;

/// Why a backup could not be made, read or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something that the list names is missing or is not what it names.
    #[error("{name} is {what}: this backup cannot be put back whole")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The backup of another region.
    #[error("this is a backup of {of}; what may lie there may not lie in {here}")]
    AnotherRegion {
        /// Whose it is.
        of: RegionId,
        /// Where it was to be put back.
        here: RegionId,
    },
    /// There is no such backup.
    #[error("there is no backup {0} in this object store")]
    None(BackupId),
}

/// What became of making a backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupMade {
    /// Its name.
    pub id: String,
    /// Rows that it has.
    pub rows: u64,
    /// Bytes of parts and chunks that it names, before compression.
    pub bytes: u64,
    /// Those of them that no earlier backup had.
    pub new_bytes: u64,
    /// Parts and chunks that it names.
    pub pieces: u64,
    /// Those of them that no earlier backup had.
    pub new_pieces: u64,
}

/// What a backup was found to hold, or put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupContent {
    /// Rows.
    pub rows: u64,
    /// Chunks of large values.
    pub chunks: u64,
    /// Bytes of both and of all else.
    pub bytes: u64,
}

/// How a region is with its backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupState {
    /// How many were begun since the process started.
    pub begun: u64,
    /// Whether the last of them is being made.
    pub running: bool,
    /// What became of the last one that was made.
    pub made: Option<BackupMade>,
    /// Why the last one was not made.
    pub failed: Option<String>,
}

fn hashed(folder: &str, hash: &[u8; 32]) -> String {
    let hash = ChunkId(*hash).to_string();
    format!("{folder}/{}/{hash}", &hash[..2])
}

fn damaged(name: &str, what: impl ToString) -> BackupError {
    BackupError::Damaged { name: name.to_owned(), what: what.to_string() }
}

/// Cuts the pairs of a space, and stores the parts that are not stored yet.
struct Cutter<'a> {
    store: &'a dyn ObjectStore,
    part: Vec<u8>,
    pairs: u64,
    parts: Vec<Part>,
    new: &'a mut BTreeSet<[u8; 32]>,
}

impl Cutter<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackupError> {
        if self.part.is_empty() {
            self.part.extend_from_slice(HEAD);
        }
        for bytes in [key, value] {
            self.part.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            self.part.extend_from_slice(bytes);
        }
        self.pairs += 1;
        let chosen = || blake3::hash(key).as_bytes()[0].is_multiple_of(ONE_IN);
        if self.part.len() >= MOST || self.part.len() >= LEAST && chosen() { self.cut() } else { Ok(()) }
    }

    fn cut(&mut self) -> Result<(), BackupError> {
        if self.part.is_empty() {
            return Ok(());
        }
        let hash = *blake3::hash(&self.part).as_bytes();
        let name = hashed(PARTS, &hash);
        if self.store.about(&name)?.is_none() {
            let packed = zstd::bulk::compress(&self.part, LEVEL).map_err(|error| damaged(&name, error))?;
            self.store.put(&name, &packed)?;
            self.new.insert(hash);
        }
        self.parts.push(Part { hash, pairs: self.pairs, bytes: self.part.len() as u64 });
        (self.part, self.pairs) = (Vec::new(), 0);
        Ok(())
    }
}

/// The pairs of a part, verified.
fn pairs(store: &dyn ObjectStore, part: &Part, visit: &mut PairVisitor<'_>) -> Result<(), BackupError> {
    let name = hashed(PARTS, &part.hash);
    let packed = store.get(&name)?.ok_or_else(|| damaged(&name, "missing"))?;
    let room = usize::try_from(part.bytes).unwrap_or(usize::MAX).min(1 << 30);
    let plain = zstd::bulk::decompress(&packed, room).map_err(|error| damaged(&name, error))?;
    if *blake3::hash(&plain).as_bytes() != part.hash {
        return Err(damaged(&name, "not what its name says"));
    }
    let mut rest = plain.strip_prefix(HEAD).ok_or_else(|| damaged(&name, "no part of a backup"))?;
    let mut found = 0;
    while !rest.is_empty() {
        let mut next = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (bytes, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = after;
            Some(bytes)
        };
        let (Some(key), Some(value)) = (next(), next()) else { return Err(damaged(&name, "cut short")) };
        visit(key, value)?;
        found += 1;
    }
    if found == part.pairs { Ok(()) } else { Err(damaged(&name, "not as long as its list says")) }
}

type PairVisitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), BackupError> + 'a;

/// The chunks that a stored row names, whether each is encrypted, and by which write.
fn chunks_of(row: &[u8]) -> Result<Vec<(ChunkId, bool, Dot)>, CodecError> {
    let row: Row = codec::decode(row)?;
    let mut named = Vec::new();
    for sibling in &row.siblings {
        if let Some(manifest) = sibling.content.record().and_then(|record| record.payload.object()) {
            let sealed = manifest.sealed.is_some();
            named.extend(manifest.chunks.iter().map(|chunk| (*chunk, sealed, sibling.version.dot.clone())));
        }
    }
    Ok(named)
}

impl DataPlane {
    /// Begins to make a backup, where none is being made, and says how that stands.
    pub fn begin_backup(&self) -> BackupState {
        let mut state = self.shared.backing_up.lock().expect("nothing panics while it holds the lock");
        if !state.running {
            (state.begun, state.running) = (state.begun + 1, true);
            let data = self.clone();
            tokio::spawn(async move {
                let outcome = data.back_up().await;
                let mut state = data.shared.backing_up.lock().expect("nothing panics while it holds the lock");
                state.running = false;
                (state.made, state.failed) = match outcome {
                    Ok(made) => (Some(made), None),
                    Err(error) => {
                        tracing::error!(%error, "no backup was made");
                        (None, Some(error.to_string()))
                    }
                };
            });
        }
        state.clone()
    }

    /// How this region is with its backups.
    pub fn backup_state(&self) -> BackupState {
        self.shared.backing_up.lock().expect("nothing panics while it holds the lock").clone()
    }

    /// Makes a backup of this region in its object store, while reading and writing go on.
    ///
    /// # Errors
    /// [`DataError::NoObjects`], [`DataError::Damaged`] where a row or a chunk is and no other region has given it, and
    /// those of the disk.
    pub async fn back_up(&self) -> Result<BackupMade, DataError> {
        let data = self.clone();
        let (mut list, mut new, wanted) = self.with_objects(move |objects| data.copy_store(objects.store())).await?;
        let rows = list.spaces["rows"].iter().map(|part| part.pairs).sum();
        let mut bytes: u64 = list.spaces.values().flatten().map(|part| part.bytes).sum();
        let mut new_bytes: u64 =
            list.spaces.values().flatten().filter(|part| new.contains(&part.hash)).map(|part| part.bytes).sum();
        for (chunk, (sealed, address, dot)) in wanted {
            let copy = move |objects: &Arc<crate::objects::Objects>| Ok(copy_chunk(objects, chunk, sealed)?);
            let (length, is_new) = match self.with_objects(copy).await? {
                Some(copied) => copied,
                None => {
                    self.repair_chunk(&address, &dot, chunk, sealed).await?;
                    let again = self.with_objects(copy).await?;
                    again.ok_or(DataError::Damaged { retry_after: crate::plane::RETRY_AFTER })?
                }
            };
            bytes += length;
            if is_new {
                new.insert(chunk.0);
                new_bytes += length;
            }
            list.chunks.insert(chunk, sealed);
        }
        let pieces = (list.spaces.values().map(Vec::len).sum::<usize>() + list.chunks.len()) as u64;
        let stored = codec::encode(&list);
        let id = BackupId::of(list.made_at, &stored);
        let name = format!("{LISTS}/{id}");
        self.with_objects(move |objects| Ok(objects.store().put(&name, &stored)?)).await?;
        metrics::counter!("repomind_backups_made_total").increment(1);
        Ok(BackupMade { id: id.to_string(), rows, bytes, new_bytes, pieces, new_pieces: new.len() as u64 })
    }

    /// Copies the store as of this moment, and gives what its rows name.
    fn copy_store(&self, store: &dyn ObjectStore) -> Result<(BackupList, BTreeSet<[u8; 32]>, Wanted), DataError> {
        let made_at = self.shared.clock.wall();
        // Before the snapshot: what it holds is at least this far.
        let vector = self.shared.store.vector();
        let snapshot: Snapshot = self.shared.store.snapshot();
        let stamp = snapshot.meta("hlc")?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let mut list = BackupList {
            region: self.shared.me.clone(),
            made_at,
            stamp: Hlc::from_bits(stamp),
            vector,
            generation: self.shared.plans.load().generation,
            spaces: BTreeMap::new(),
            chunks: BTreeMap::new(),
        };
        let (mut new, mut wanted) = (BTreeSet::new(), BTreeMap::new());
        for space in COPIED {
            let mut cutter = Cutter { store, part: Vec::new(), pairs: 0, parts: Vec::new(), new: &mut new };
            let mut failed = None;
            let visited = snapshot.each_pair(space, &mut |key, value| {
                if space == "rows" {
                    let address = Store::address_of(key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
                    let named = chunks_of(value)
                        .map_err(|reason| StoreError::Corrupt { place: format!("row {address}"), reason })?;
                    for (chunk, sealed, dot) in named {
                        wanted.insert(chunk, (sealed, address.clone(), dot));
                    }
                }
                cutter.add(key, value).map_err(|error| {
                    let stopped = StoreError::Visitor(error.to_string());
                    failed = Some(error);
                    stopped
                })
            });
            if let Some(error) = failed {
                return Err(error.into());
            }
            self.suspecting(visited.map_err(DataError::from))?;
            cutter.cut()?;
            list.spaces.insert(space.to_owned(), cutter.parts);
        }
        Ok((list, new, wanted))
    }
}

/// Chunks that a backup needs, and where they are to be asked for if they are damaged.
type Wanted = BTreeMap<ChunkId, (bool, model::record::Address, Dot)>;

/// Copies a chunk into the backups, and gives its length and whether it was not there. `None` where it is damaged.
fn copy_chunk(
    objects: &crate::objects::Objects,
    chunk: ChunkId,
    sealed: bool,
) -> Result<Option<(u64, bool)>, ObjectError> {
    let name = hashed(COPIES, &chunk.0);
    if let Some(there) = objects.store().about(&name)? {
        return Ok(Some((there.bytes, false)));
    }
    let Some(stored) = objects.get(chunk, sealed)? else { return Ok(None) };
    objects.store().put(&name, &stored)?;
    Ok(Some((stored.len() as u64, true)))
}

/// The backups in an object store, oldest first.
///
/// # Errors
/// Those of the object store.
pub fn list(store: &dyn ObjectStore) -> Result<Vec<BackupId>, BackupError> {
    let listed = store.list(LISTS)?;
    let mut ids: Vec<BackupId> = listed.iter().filter_map(|one| one.name.rsplit('/').next()?.parse().ok()).collect();
    ids.sort();
    Ok(ids)
}

/// The list of a backup, verified by its name.
///
/// # Errors
/// [`BackupError::None`], [`BackupError::Damaged`], and those of the object store.
pub fn read(store: &dyn ObjectStore, id: &BackupId) -> Result<BackupList, BackupError> {
    let name = format!("{LISTS}/{id}");
    let stored = store.get(&name)?.ok_or_else(|| BackupError::None(id.clone()))?;
    let list: BackupList = codec::decode(&stored).map_err(|error| damaged(&name, error))?;
    if BackupId::of(list.made_at, &stored) == *id { Ok(list) } else { Err(damaged(&name, "not what its name says")) }
}

/// Makes a store of a backup in `dir`, which is empty, and puts back chunks that are not in `chunks` any more; none
/// where that is not given.
///
/// # Errors
/// [`BackupError::AnotherRegion`], [`BackupError::Damaged`], and those of the disks. What is in `dir` is of no use then.
pub fn put_back(
    store: &dyn ObjectStore,
    list: &BackupList,
    here: &RegionId,
    dir: &Path,
    chunks: Option<&dyn ObjectStore>,
) -> Result<BackupContent, BackupError> {
    if list.region != *here {
        return Err(BackupError::AnotherRegion { of: list.region.clone(), here: here.clone() });
    }
    let mut content = BackupContent::default();
    let mut restoring = Restoring::begin(dir)?;
    let mut named = BTreeSet::new();
    for (space, parts) in &list.spaces {
        for part in parts {
            content.bytes += part.bytes;
            pairs(store, part, &mut |key, value| {
                if space == "rows" {
                    content.rows += 1;
                    let all = chunks_of(value).map_err(|error| damaged(&hashed(PARTS, &part.hash), error))?;
                    named.extend(all.into_iter().map(|(chunk, ..)| chunk));
                }
                Ok(restoring.put(space, key, value)?)
            })?;
        }
    }
    restoring.finish()?;
    if let Some(chunk) = named.iter().find(|chunk| !list.chunks.contains_key(chunk)) {
        return Err(damaged(&hashed(COPIES, &chunk.0), "named by a row and not by the list"));
    }
    for (chunk, sealed) in &list.chunks {
        let name = hashed(COPIES, &chunk.0);
        let stored = store.get(&name)?.ok_or_else(|| damaged(&name, "missing"))?;
        if ChunkId::of(&stored) != *chunk {
            return Err(damaged(&name, "not what its name says"));
        }
        content.chunks += 1;
        content.bytes += stored.len() as u64;
        if let Some(chunks) = chunks {
            chunks.put(&name_of(*chunk, *sealed), &stored)?;
        }
    }
    Ok(content)
}

/// Puts a backup of `here` back in `scratch`, which is empty, and compares what comes of it with its list.
///
/// # Errors
/// Those of [`put_back`]; [`BackupError::Damaged`] where the store that came of it is another one.
pub fn verify(
    store: &dyn ObjectStore,
    id: &BackupId,
    here: &RegionId,
    scratch: &Path,
) -> Result<BackupContent, BackupError> {
    let list = read(store, id)?;
    let content = put_back(store, &list, here, scratch, None)?;
    let opened = Store::open(scratch, list.made_at)?;
    let mut rows = 0;
    opened.each_row(&mut |_, _| {
        rows += 1;
        Ok(())
    })?;
    let name = format!("{LISTS}/{id}");
    if rows != content.rows {
        return Err(damaged(&name, format!("a store of {rows} rows, and of {} by its list", content.rows)));
    }
    if !opened.vector().includes(&list.vector) {
        return Err(damaged(&name, "a store that is not as far as its list says"));
    }
    Ok(content)
}
