//! One region's append-only log of what it committed, refused and put into force.
//!
//! The log is a Merkle tree by RFC 6962 (section 2.1): a short signed
//! [`Checkpoint`] fixes every leaf before it, and the other regions cosign it
//! only when it continues the one they saw last ([`Witness`]). So a region
//! cannot quietly take back, change or reorder a leaf, nor show two histories
//! to two readers, unless the other regions lie with it.
//!
//! A leaf holds no personal data: no key, value or subject. What a commit wrote
//! is there as one hash, the root over its row images ([`images`]).
//!
//! Nothing here touches a disk, a socket, a clock or a private key: leaves are
//! handed out to be stored ([`LeafRecord`]) and read back through [`LeafHashes`],
//! keys sign behind [`Signer`]. Start with [`Ledger`].
//!
//! ```text
//! stored leaf = 10 01 | region text, sequence, at, generation, event | CRC-32     (model::codec)
//! event       = 0 incarnation | 1 entries, 32 bytes | 2 rule text, count | 3 number, 32 bytes | 4 count
//!             | 5 16 bytes, word text, count | 6 rule text, count
//! ```

pub mod checkpoint;
pub mod images;
pub mod merkle;
pub mod note;
pub mod witness;

use model::bundle::TreeHash;
use model::codec::{self, CodecError, Format};
use model::sealing::OrderId;
use model::version::Incarnation;
use model::{RegionId, RuleId, UnixMillis};
use serde::{Deserialize, Serialize};

pub use checkpoint::{Checkpoint, CheckpointError, origin, witness_name};
pub use images::{CommitImages, RowImage, RowKeyHasher};
pub use merkle::{Digest, Frontier, LeafHashes, ProofError, consistency_proof, inclusion_proof};
pub use note::{KeyKind, NoteError, Signer, VerifierKey};
pub use witness::{CosignRequest, Cosigned, Witness, WitnessError};

/// What happened. Counts and hashes only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerEvent {
    /// The region started, in this incarnation of its log.
    Began {
        /// Grows on every restore and unclean start.
        incarnation: Incarnation,
    },
    /// A group commit reached the disk.
    Committed {
        /// How many row images it wrote.
        entries: u32,
        /// [`CommitImages::root`] of them.
        root: Digest,
    },
    /// Writes or shipments were refused.
    Refused {
        /// By this rule.
        rule: RuleId,
        /// So many since the last such leaf.
        count: u32,
    },
    /// A policy generation came into force.
    Generation {
        /// Its number.
        number: u64,
        /// The hash of its files.
        tree: TreeHash,
    },
    /// Records left this region's scope and their values were dropped.
    Evicted {
        /// So many.
        count: u32,
    },
    /// An order about a person was carried out here, whom the leaf does not name.
    Petition {
        /// The order.
        order: OrderId,
        /// What was done: `erase`, `hold`, `release` or `export`.
        word: String,
        /// How many records that concerned.
        count: u32,
    },
    /// Records were deleted because their time was over.
    Expired {
        /// By this rule.
        rule: RuleId,
        /// So many.
        count: u32,
    },
    /// An operator's order about the traffic of a region was taken up; who gave it and why stands in the common log.
    Ordered {
        /// Counts the orders of the deployment.
        revision: u64,
        /// The hash of its words.
        order: Digest,
    },
}

/// One leaf, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Whose ledger.
    pub region: RegionId,
    /// Its index, from 0; it does not start anew with an incarnation.
    pub sequence: u64,
    /// When, by the region's clock. Provenance only: clocks may be set back, indexes may not.
    pub at: UnixMillis,
    /// The policy generation in force.
    pub generation: u64,
    /// What happened.
    pub event: LedgerEvent,
}

impl Format for Leaf {
    const KIND: u8 = 0x10;
    const VERSION: u8 = 1;
    const NAME: &'static str = "ledger leaf";
}

/// A leaf that was appended, and what must be stored in the same commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRecord {
    /// Its index: the key to store it under.
    pub index: u64,
    /// Its envelope: the value. [`merkle::leaf_hash`] of it is the leaf's hash.
    pub bytes: Vec<u8>,
    /// Interior nodes that this leaf completed, by (level, position), lowest first; on average one. Storing them is
    /// optional: they make proofs cost O(log² n) reads where leaves alone cost O(n).
    pub completed: Vec<((u8, u64), Digest)>,
}

/// The ledger is not the one that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// Leaves are missing at the end.
    #[error("the ledger has {found} leaves, but a checkpoint over {signed} was signed; restore the missing leaves")]
    Shrunk {
        /// Leaves on disk.
        found: u64,
        /// Leaves under the checkpoint.
        signed: u64,
    },
    /// Leaves are others than those that were signed.
    #[error(
        "the first {signed} leaves of the ledger are not those that its checkpoint signs; they were changed on disk"
    )]
    Changed {
        /// Leaves under the checkpoint.
        signed: u64,
    },
}

/// Why a ledger could not be taken up from its stored hashes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError<E> {
    /// It is not the one that was signed.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// A hash could not be read.
    #[error("a leaf of the ledger could not be read")]
    Unread(E),
}

/// The end of a region's ledger: all that is needed to append, in O(log n) memory.
///
/// [`Ledger::append`] moves it before the leaf is durable. Append to a clone and
/// put that in its place once the commit has returned; drop it if the commit fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    region: RegionId,
    frontier: Frontier,
}

impl Ledger {
    /// An empty ledger of `region`.
    pub fn new(region: RegionId) -> Self {
        Self { region, frontier: Frontier::default() }
    }

    /// Rebuilds the end of a ledger from its stored leaves, in order from index 0. With the last checkpoint that the
    /// region signed, a ledger that lost or changed leaves meanwhile is refused, so that it is never signed anew.
    ///
    /// # Errors
    /// [`ResumeError`]. A region that gets one must not append: it would fork its own history.
    pub fn resume<B: AsRef<[u8]>>(
        region: RegionId,
        leaves: impl IntoIterator<Item = B>,
        signed: Option<&Checkpoint>,
    ) -> Result<Self, ResumeError> {
        let mut ledger = Self::new(region);
        let signed = signed.filter(|checkpoint| checkpoint.size > 0);
        let mut agrees = signed.is_none();
        for leaf in leaves {
            ledger.frontier.push(merkle::leaf_hash(leaf.as_ref()));
            if let Some(checkpoint) = signed.filter(|checkpoint| checkpoint.size == ledger.size()) {
                if ledger.root() != checkpoint.root {
                    return Err(ResumeError::Changed { signed: checkpoint.size });
                }
                agrees = true;
            }
        }
        match signed {
            Some(checkpoint) if !agrees => Err(ResumeError::Shrunk { found: ledger.size(), signed: checkpoint.size }),
            _ => Ok(ledger),
        }
    }

    /// Like [`Ledger::resume`], from the stored hashes of `size` leaves: with stored nodes it reads O(log n) of them,
    /// where `resume` reads every leaf. A leaf that was changed without its nodes is not noticed here, but by the audit.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load<T: LeafHashes + ?Sized>(
        region: RegionId,
        size: u64,
        tree: &T,
        signed: Option<&Checkpoint>,
    ) -> Result<Self, LoadError<T::Error>> {
        if let Some(checkpoint) = signed {
            let signed = checkpoint.size;
            if signed > size {
                return Err(ResumeError::Shrunk { found: size, signed }.into());
            }
            if Frontier::read(tree, signed).map_err(LoadError::Unread)?.root() != checkpoint.root {
                return Err(ResumeError::Changed { signed }.into());
            }
        }
        Ok(Self { region, frontier: Frontier::read(tree, size).map_err(LoadError::Unread)? })
    }

    /// Whose it is.
    pub fn region(&self) -> &RegionId {
        &self.region
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over all its leaves.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// What to sign now.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: origin(&self.region), size: self.size(), root: self.root() }
    }

    /// Appends an event. The record must become durable together with what it speaks of.
    pub fn append(&mut self, at: UnixMillis, generation: u64, event: LedgerEvent) -> LeafRecord {
        let index = self.size();
        let leaf = Leaf { region: self.region.clone(), sequence: index, at, generation, event };
        let bytes = codec::encode(&leaf);
        let completed = self.frontier.push(merkle::leaf_hash(&bytes));
        LeafRecord { index, bytes, completed }
    }
}

/// Reads a stored leaf.
///
/// # Errors
/// What is wrong with the bytes.
pub fn read_leaf(bytes: &[u8]) -> Result<Leaf, CodecError> {
    codec::decode(bytes)
}

#[cfg(test)]
mod tests;
