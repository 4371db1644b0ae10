//! Merkle trees by RFC 6962, section 2.1, with SHA-256.
//!
//! ```text
//! leaf = SHA-256(00 || bytes)     node = SHA-256(01 || left || right)     empty tree = SHA-256()
//! ```
//!
//! Proofs are made here by recursion over subtrees and verified by the loops of
//! RFC 9162 (sections 2.1.3.2 and 2.1.4.2), which walk the bits of the sizes: an
//! error in the one does not hide in the other. The audit has a third way.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    Digest(hash.finalize().into())
}

/// The hash of `bytes` without a prefix.
pub fn content_hash(bytes: &[u8]) -> Digest {
    sha256(&[bytes])
}

/// The hash of a leaf.
pub fn leaf_hash(bytes: &[u8]) -> Digest {
    sha256(&[&[0], bytes])
}

fn node_hash(left: Digest, right: Digest) -> Digest {
    sha256(&[&[1], &left.0, &right.0])
}

/// The right edge of a tree: the roots of its complete subtrees, the largest first. At most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

impl Frontier {
    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash. Gives the interior nodes that it completed, by (level, position), lowest first; leaves
    /// are level 0.
    pub fn push(&mut self, leaf: Digest) -> Vec<((u8, u64), Digest)> {
        let mut completed = Vec::new();
        let mut node = leaf;
        let (mut level, mut position) = (0_u8, self.size);
        while position & 1 == 1 {
            let left = self.peaks.pop().expect("a tree has a peak for every bit of its size");
            node = node_hash(left, node);
            (level, position) = (level + 1, position >> 1);
            completed.push(((level, position), node));
        }
        self.peaks.push(node);
        self.size += 1;
        completed
    }

    /// The root of the tree.
    pub fn root(&self) -> Digest {
        let mut from_right = self.peaks.iter().rev().copied();
        match from_right.next() {
            None => sha256(&[]),
            Some(last) => from_right.fold(last, |right, left| node_hash(left, right)),
        }
    }
}

impl Frontier {
    /// The right edge of the tree of the first `size` leaves, read from where they are stored. With stored nodes this
    /// reads one hash for every bit of `size`.
    ///
    /// # Errors
    /// A leaf cannot be read.
    pub fn read<T: LeafHashes + ?Sized>(tree: &T, size: u64) -> Result<Self, T::Error> {
        let (mut peaks, mut from) = (Vec::new(), 0);
        for bit in (0..64).rev().map(|level| 1_u64 << level).filter(|bit| size & bit != 0) {
            peaks.push(subtree(tree, from, from + bit)?);
            from += bit;
        }
        Ok(Self { size, peaks })
    }
}

/// The root over a list of leaf hashes.
pub fn root_of(leaves: impl IntoIterator<Item = Digest>) -> Digest {
    let mut frontier = Frontier::default();
    leaves.into_iter().for_each(|leaf| drop(frontier.push(leaf)));
    frontier.root()
}

/// Where proofs read hashes from: the store, or a list in a test.
pub trait LeafHashes {
    /// What may go wrong when reading.
    type Error;

    /// The hash of the leaf at `index`: [`leaf_hash`] of its stored bytes.
    ///
    /// # Errors
    /// The leaf cannot be read.
    fn leaf(&self, index: u64) -> Result<Digest, Self::Error>;

    /// The interior node at (level, position), where it was stored ([`super::LeafRecord::completed`]). Without it,
    /// leaves are read instead.
    ///
    /// # Errors
    /// The store failed.
    fn node(&self, level: u8, position: u64) -> Result<Option<Digest>, Self::Error> {
        let _ = (level, position);
        Ok(None)
    }
}

impl LeafHashes for [Digest] {
    type Error = ();
    fn leaf(&self, index: u64) -> Result<Digest, ()> {
        usize::try_from(index).ok().and_then(|index| self.get(index)).copied().ok_or(())
    }
}

/// Why a proof could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E> {
    /// There is no such leaf or tree.
    #[error("there is no proof from {from} to {size}: the first must be within the second")]
    Range {
        /// The leaf's index or the smaller size.
        from: u64,
        /// The tree's size.
        size: u64,
    },
    /// A leaf could not be read.
    #[error("a leaf of the ledger could not be read")]
    Unread(E),
}

/// The largest power of two smaller than `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The root over the leaves `from..to`; at least one.
fn subtree<T: LeafHashes + ?Sized>(tree: &T, from: u64, to: u64) -> Result<Digest, T::Error> {
    let size = to - from;
    if size == 1 {
        return tree.leaf(from);
    }
    if size.is_power_of_two() && from.is_multiple_of(size) {
        let level = size.trailing_zeros();
        if let Some(node) = tree.node(u8::try_from(level).expect("at most 63"), from >> level)? {
            return Ok(node);
        }
    }
    let middle = from + split(size);
    Ok(node_hash(subtree(tree, from, middle)?, subtree(tree, middle, to)?))
}

/// The proof that the leaf at `index` is in the tree of the first `size` leaves: PATH of RFC 6962, section 2.1.1.
///
/// # Errors
/// [`ProofError`].
pub fn inclusion_proof<T: LeafHashes + ?Sized>(
    tree: &T,
    index: u64,
    size: u64,
) -> Result<Vec<Digest>, ProofError<T::Error>> {
    if index >= size {
        return Err(ProofError::Range { from: index, size });
    }
    let (mut proof, mut from, mut to) = (Vec::new(), 0, size);
    while to - from > 1 {
        let middle = from + split(to - from);
        let beside = if index < middle { (middle, to) } else { (from, middle) };
        proof.push(subtree(tree, beside.0, beside.1).map_err(ProofError::Unread)?);
        if index < middle { to = middle } else { from = middle }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of the first `old` leaves is a beginning of that of the first `size`: PROOF of RFC 6962,
/// section 2.1.2. Empty where `old` is 0 or `size`.
///
/// # Errors
/// [`ProofError`].
pub fn consistency_proof<T: LeafHashes + ?Sized>(
    tree: &T,
    old: u64,
    size: u64,
) -> Result<Vec<Digest>, ProofError<T::Error>> {
    if old > size {
        return Err(ProofError::Range { from: old, size });
    }
    if old == 0 || old == size {
        return Ok(Vec::new());
    }
    let (mut proof, mut from, mut to) = (Vec::new(), 0, size);
    while to != old {
        let middle = from + split(to - from);
        let beside = if old <= middle { (middle, to) } else { (from, middle) };
        proof.push(subtree(tree, beside.0, beside.1).map_err(ProofError::Unread)?);
        if old <= middle { to = middle } else { from = middle }
    }
    if from > 0 {
        proof.push(subtree(tree, from, to).map_err(ProofError::Unread)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that `leaf` stands at `index` in the tree of `size` leaves with this root. RFC 9162, section
/// 2.1.3.2.
pub fn verify_inclusion(leaf: Digest, index: u64, size: u64, proof: &[Digest], root: Digest) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for &step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(hash, step);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == root
}

/// Whether `proof` shows that the tree of `old` leaves with `old_root` is a beginning of that of `size` leaves with
/// `root`. Every tree begins with the empty one. RFC 9162, section 2.1.4.2.
pub fn verify_consistency(old: u64, old_root: Digest, size: u64, root: Digest, proof: &[Digest]) -> bool {
    if old > size || old == 0 || old == size {
        let empty = old != 0 || old_root == sha256(&[]);
        return old <= size && proof.is_empty() && empty && (old != size || old_root == root);
    }
    let mut steps = proof.iter().copied();
    let first = if old.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut before, mut after) = (first, first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            before = node_hash(step, before);
            after = node_hash(step, after);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            after = node_hash(after, step);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && before == old_root && after == root
}
