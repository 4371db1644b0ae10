//! Large values on their way in: cut, encrypted where they must be, and on disk before the row that names them.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use model::object::{CHUNK_BYTES, ChunkId, MOST_CHUNKS, Manifest};
use model::record::DataClass;
use tokio::sync::OwnedSemaphorePermit;

use super::{Objects, Pins};
use crate::plane::{DataPlane, RETRY_AFTER};
use crate::screening::screen;
use crate::types::{DataError, Write, Written};
use crate::vault::ring::DataKey;
use crate::vault::{encrypt_piece, object_key};
use crate::writing::Reason;

/// Bytes of a piece that are looked at again with the next one, lest something be hidden in the cut.
const OVERLAP: usize = 256;
/// Printable text of this length is searched in what is no text as a whole. Shorter runs are there by chance: some in
/// every megabyte of compressed data.
const RUN: usize = 24;

/// An object whose chunks are on disk and which no row names yet.
pub(crate) struct Cut {
    pub(crate) manifest: Manifest,
    /// By which its chunks are encrypted; none where they are not.
    pub(crate) key: Option<DataKey>,
    /// Whether it was searched for personal data.
    pub(crate) screened: bool,
}

/// A large value that is being taken in. Dropped before its end, nothing of it stays.
pub struct Upload {
    data: DataPlane,
    write: Write,
    cut: Cut,
    most: u64,
    buffer: BytesMut,
    /// The end of the piece before.
    tail: Bytes,
    classes: BTreeSet<DataClass>,
    pins: Option<Pins>,
    _turn: OwnedSemaphorePermit,
}

impl DataPlane {
    /// Begins to take in a large value, of which nothing has been read yet: refuses what would be refused in the end.
    ///
    /// `declared` is how many bytes it is said to have.
    ///
    /// # Errors
    /// Those of [`DataPlane::write`], [`DataError::TooLarge`], [`DataError::NoObjects`], and [`DataError::Busy`] where
    /// too many are being taken in.
    pub async fn begin_object(&self, write: Write, declared: Option<u64>) -> Result<Upload, DataError> {
        let objects = self.objects().ok_or(DataError::NoObjects)?;
        let plans = self.shared.plans.load_full();
        let quota = plans.replication.strategy(&write.address.namespace).quota;
        let most = quota.object_bytes.map_or(super::OBJECT_DEFAULT, |bytes| bytes.0);
        let most = most.min(MOST_CHUNKS as u64 * CHUNK_BYTES as u64);
        let largest = quota.bytes.map_or(most, |bytes| bytes.0.min(most));
        if declared.is_some_and(|declared| declared > largest) {
            return Err(DataError::TooLarge { most: largest });
        }
        let turn = objects.uploads.clone().try_acquire_owned();
        let turn = turn.map_err(|_| DataError::Busy { retry_after: RETRY_AFTER })?;
        let (labels, encrypted) = self.passed(&write, &plans)?;
        let cut = Cut {
            manifest: Manifest { length: 0, chunks: Vec::new(), sealed: None },
            key: if encrypted { Some(object_key()?) } else { None },
            screened: is_about_nobody(&labels.classes),
        };
        Ok(Upload {
            data: self.clone(),
            write,
            cut,
            most: largest,
            buffer: BytesMut::new(),
            tail: Bytes::new(),
            classes: labels.classes,
            pins: Some(objects.pin(&[])),
            _turn: turn,
        })
    }
}

/// The classes whose values are searched for personal data.
pub(crate) fn is_about_nobody(classes: &BTreeSet<DataClass>) -> bool {
    classes.iter().all(|class| matches!(class, DataClass::Public | DataClass::Operational))
}

impl Upload {
    /// Takes in what has come of the value. Whole chunks are on disk when this returns.
    ///
    /// # Errors
    /// [`DataError::TooLarge`], [`DataError::Contradicted`], and those of the disk.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<(), DataError> {
        self.cut.manifest.length += bytes.len() as u64;
        if self.cut.manifest.length > self.most {
            return Err(DataError::TooLarge { most: self.most });
        }
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.buffer.len();
            let part = bytes.split_to(room.min(bytes.len()));
            self.buffer.extend_from_slice(&part);
            if self.buffer.len() == CHUNK_BYTES {
                self.store_piece().await?;
            }
        }
        Ok(())
    }

    async fn store_piece(&mut self) -> Result<(), DataError> {
        let piece = std::mem::take(&mut self.buffer).freeze();
        let (key, index) = (self.cut.key, self.cut.manifest.chunks.len());
        let searched = self.cut.screened.then(|| [&self.tail[..], &piece].concat());
        self.tail = piece.slice(piece.len().saturating_sub(OVERLAP)..);
        let mut pins = self.pins.take().ok_or(DataError::Closed)?;
        let stored = self.data.with_objects(move |objects| {
            if let Some(found) = searched.as_deref().and_then(search) {
                return Ok((pins, Err(found)));
            }
            let stored = match &key {
                Some(key) => Bytes::from(encrypt_piece(key, index, &piece)?),
                None => piece,
            };
            pins.add(ChunkId::of(&stored));
            Ok((pins, Ok(objects.put(&stored, key.is_some())?)))
        });
        let (pins, chunk) = stored.await?;
        self.pins = Some(pins);
        match chunk {
            Ok(chunk) => self.cut.manifest.chunks.push(chunk),
            Err(found) => {
                metrics::counter!("repomind_labels_contradicted_total", "place" => "body").increment(1);
                let classes: Vec<&str> = self.classes.iter().map(|class| class.as_str()).collect();
                return Err(DataError::Contradicted { place: "body", found, classes: classes.join(", ") });
            }
        }
        Ok(())
    }

    /// Writes the row, once all of the value has come, and waits for the copies that were asked for.
    ///
    /// # Errors
    /// Those of [`DataPlane::write`]; nothing is stored then.
    pub async fn finish(mut self) -> Result<Written, DataError> {
        if !self.buffer.is_empty() {
            self.store_piece().await?;
        }
        let (data, write) = (self.data.clone(), self.write.clone());
        let written = data.write_because(write, Some(&self.cut), Reason::Asked).await?;
        // Its row names them from here on.
        self.cut.manifest.chunks.clear();
        metrics::counter!("repomind_objects_written_total").increment(1);
        Ok(written)
    }
}

impl Drop for Upload {
    /// What was encrypted for an object that did not come about is of no use to anybody. What is in plain text may
    /// belong to others, and is left to the sweep.
    fn drop(&mut self) {
        drop(self.pins.take());
        let chunks = std::mem::take(&mut self.cut.manifest.chunks);
        if let (false, true, Some(objects)) = (chunks.is_empty(), self.cut.key.is_some(), self.data.objects()) {
            let objects = objects.clone();
            let work = move || drop(objects.drop_sealed(&chunks));
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(work)),
                Err(_) => work(),
            }
        }
    }
}

impl Objects {
    /// Takes encrypted chunks away that no row names and nobody is at.
    fn drop_sealed(&self, chunks: &[ChunkId]) -> Result<(), DataError> {
        for chunk in chunks {
            let pins = self.pins();
            if !pins.held.contains_key(chunk) {
                self.store.delete(&super::name_of(*chunk, true))?;
            }
        }
        Ok(())
    }
}

/// Personal data in a piece: all of it is searched where it is text, else the runs of printable text in it.
fn search(piece: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(piece).map_or_else(
        // Cut in the middle of a character, at either end.
        |error| error.error_len().is_none() && error.valid_up_to() + 4 > piece.len(),
        |_| true,
    );
    if text {
        return screen(piece).map(|found| found.name());
    }
    let printable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    let runs = piece.split(|byte| !printable(byte)).filter(|run| run.len() >= RUN);
    runs.filter_map(screen).map(|found| found.name()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_binary_data_is_searched_and_noise_is_not_taken_for_an_address() {
        assert!(search("write to ada@example.com".as_bytes()).is_some());
        let hidden = [&[0xFF, 0, 3][..], b"please write to ada@example.com soon", &[0xFE, 1]].concat();
        assert!(search(&hidden).is_some());
        let cut = "grüße an ada@example.com ü".as_bytes();
        assert!(search(&cut[..cut.len() - 1]).is_some());
        let mut seed = 7_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u8
        })
        .take(8 << 20)
        .collect();
        assert_eq!(search(&noise), None);
    }
}
