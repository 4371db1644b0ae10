//! Values that are too large for a row: chunks in a region's object store, and the list of them in the row.
//!
//! A value is cut into pieces of [`CHUNK_BYTES`]; each is stored under the BLAKE3 hash of the bytes that are stored, so
//! that whoever reads a chunk can tell whether it is the one. Where the record must be encrypted, each piece is
//! (AES-256-GCM) under a key that was made for this one object: chunks of two objects are never equal, and so nothing
//! is told by sharing them. That key lies in the row, sealed like a value, with a hash of the list beside it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::record::{Address, Payload};
use crate::version::Dot;

/// Bytes of a value in one chunk; the last one has fewer.
pub const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// The most chunks of an object: 16 GiB. The list of them then takes 128 KiB of the row.
pub const MOST_CHUNKS: usize = 4096;

/// Names a chunk: the BLAKE3 hash of its bytes as they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The name of these stored bytes.
    pub fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }
}

impl fmt::Display for ChunkId {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChunkId {
    type Err = &'static str;
    /// Reads 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| "64 hexadecimal digits are expected")?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// The key of one object, sealed like a value of its record: 32 bytes of key and [`Manifest::digest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// Which data key: a [`crate::sealing::DataKeyId`] as text.
    pub key_ref: String,
    /// 96 random bits.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub ciphertext: Bytes,
}

/// What a row holds of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Bytes of the value.
    pub length: u64,
    /// Its chunks, in order: as many as the length needs.
    pub chunks: Vec<ChunkId>,
    /// Its key; none where it is stored in plain text.
    pub sealed: Option<SealedKey>,
}

impl Manifest {
    /// Bytes of the chunks as they are stored.
    pub fn stored_len(&self) -> u64 {
        let tags = if self.sealed.is_some() { self.chunks.len() * Payload::TAG } else { 0 };
        self.length + tags as u64
    }

    /// Whether it has as many chunks as its length needs, and not too many.
    pub fn is_sound(&self) -> bool {
        let needed = self.length.div_ceil(CHUNK_BYTES as u64);
        (1..=MOST_CHUNKS as u64).contains(&needed) && needed == self.chunks.len() as u64
    }

    /// What its key is bound to: length and list.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_derive_key("repomind list of chunks v1");
        hash.update(&self.length.to_le_bytes());
        for chunk in &self.chunks {
            hash.update(&chunk.0);
        }
        *hash.finalize().as_bytes()
    }
}

/// A chunk that one region asks another for, and by which write it may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkQuestion {
    /// The key of the record.
    pub address: Address,
    /// The write that has the chunk.
    pub dot: Dot,
    /// The chunk.
    pub chunk: ChunkId,
}

/// What a region says to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkAnswer {
    /// The chunk as it is stored.
    Here(Bytes),
    /// The write was replaced here: nobody needs its chunks any more.
    Replaced,
    /// The write is here and its chunk is not, or was damaged.
    Lost,
    /// Nothing that whoever asks may have.
    Absent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_does_not_fit_its_length_is_not_sound_and_another_list_has_another_digest() {
        let list = |length, count: u8| Manifest {
            length,
            chunks: (0..count).map(|n| ChunkId([n; 32])).collect(),
            sealed: None,
        };
        let most = CHUNK_BYTES as u64;
        assert!(list(most, 1).is_sound() && list(most + 1, 2).is_sound());
        for (length, count) in [(0, 0), (0, 1), (most, 2), (most + 1, 1), (u64::MAX, 1)] {
            assert!(!list(length, count).is_sound(), "{length} bytes in {count} chunks");
        }
        let mut turned = list(2 * most, 2);
        turned.chunks.reverse();
        let all = [list(2 * most, 2).digest(), turned.digest(), list(2 * most - 1, 2).digest(), list(most, 1).digest()];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        assert_eq!(ChunkId([7; 32]).to_string().parse(), Ok(ChunkId([7; 32])));
    }
}
