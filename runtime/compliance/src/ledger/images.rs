//! What a group commit wrote, as hashes: one image a row, one root a commit.
//!
//! ```text
//! record  = BLAKE3 of the stored row key, keyed (32 bytes; the key is the deployment's, see RowKeyHasher)
//! content = SHA-256 of the row's envelope as stored; 32 zero bytes where the row was removed from the disk
//! image   = SHA-256(00 || record || content)          a leaf of RFC 6962
//! root    = Merkle root (RFC 6962) over the images, in ascending order of record
//! ```
//!
//! A commit that writes a row twice has one image of it, the one that stays. The
//! list of pairs (record, content) is stored beside the ledger, under the
//! commit's leaf index, so that the audit can compute the root anew.
//!
//! Where a row was stored in plain text, someone who guesses the whole row could
//! confirm the guess by its content hash; the list is therefore as confidential
//! as the rows. The leaf itself shows only the root.

use std::collections::BTreeMap;
use std::fmt;

use model::codec::Format;
use serde::{Deserialize, Serialize};

use super::LedgerEvent;
use super::merkle::{self, Digest};

/// Hashes row keys, so that a record can be named without saying its key.
#[derive(Clone)]
pub struct RowKeyHasher([u8; 32]);

impl RowKeyHasher {
    /// From a secret that all regions of the deployment share and that is at least 32 random bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key("repomind record ids v1", secret))
    }

    /// The hash of a stored row key.
    pub fn record(&self, row_key: &[u8]) -> Digest {
        Digest(*blake3::keyed_hash(&self.0, row_key).as_bytes())
    }
}

impl fmt::Debug for RowKeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowKeyHasher(secret)")
    }
}

/// One row as a commit left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowImage {
    /// Which row: [`RowKeyHasher::record`] of its key.
    pub record: Digest,
    /// Its content, or [`RowImage::REMOVED`].
    pub content: Digest,
}

impl RowImage {
    /// The content of a row that was removed from the disk.
    pub const REMOVED: Digest = Digest([0; 32]);

    /// The image's leaf hash.
    pub fn hash(&self) -> Digest {
        merkle::leaf_hash(&[self.record.0, self.content.0].concat())
    }
}

/// The images of one group commit, each row once, in ascending order of record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitImages(pub Vec<RowImage>);

impl Format for CommitImages {
    const KIND: u8 = 0x11;
    const VERSION: u8 = 1;
    const NAME: &'static str = "list of row images";
}

impl CommitImages {
    /// The images of a commit that writes these rows (stored key, envelope as stored), or removes them (no envelope).
    /// The last mention of a row counts.
    pub fn of<'r>(hasher: &RowKeyHasher, rows: impl IntoIterator<Item = (&'r [u8], Option<&'r [u8]>)>) -> Self {
        let last: BTreeMap<Digest, Digest> = rows
            .into_iter()
            .map(|(key, envelope)| (hasher.record(key), envelope.map_or(RowImage::REMOVED, merkle::content_hash)))
            .collect();
        Self(last.into_iter().map(|(record, content)| RowImage { record, content }).collect())
    }

    /// The Merkle root over the images.
    pub fn root(&self) -> Digest {
        merkle::root_of(self.0.iter().map(RowImage::hash))
    }

    /// The event that stands for them in the ledger.
    ///
    /// # Panics
    /// A commit of 2³² rows or more, which no group commit reaches.
    pub fn event(&self) -> LedgerEvent {
        let entries = u32::try_from(self.0.len()).expect("a group commit has fewer than 2³² rows");
        LedgerEvent::Committed { entries, root: self.root() }
    }
}
