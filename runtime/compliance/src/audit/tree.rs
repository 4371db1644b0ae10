//! The Merkle root, a second time: the recursive definition of RFC 6962,
//! section 2.1, word for word, with another SHA-256 than the ledger's. Slow and
//! plain; it shares nothing with [`crate::ledger::merkle`] that could be wrong
//! in both.
//!
//! ```text
//! MTH({})   = SHA-256()
//! MTH({d0}) = SHA-256(00 || d0)
//! MTH(D[n]) = SHA-256(01 || MTH(D[0:k]) || MTH(D[k:n])),  k the largest power of two smaller than n
//! ```

use aws_lc_rs::digest::{SHA256, digest};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The hash of a leaf.
pub fn leaf(bytes: &[u8]) -> Hash {
    sha256(&[&[0], bytes].concat())
}

/// The root that a path proves for the leaf at `index` of `size`, by RFC 9162, section 2.1.3.2; nothing where the path has
/// another length than it must.
pub fn root_from(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let node = |left: &Hash, right: &Hash| sha256(&[&[1], left.as_slice(), right].concat());
    let (mut at, mut last, mut root) = (index, size - 1, leaf);
    for hash in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            root = node(hash, &root);
            while at % 2 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            root = node(&root, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(root)
}

/// The root over leaves by their hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [only] => *only,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            let (left, right) = leaves.split_at(k);
            sha256(&[&[1], root(left).as_slice(), &root(right)].concat())
        }
    }
}

/// A hash in hexadecimal.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::merkle::{Digest, leaf_hash, root_of};

    #[test]
    fn the_root_is_that_of_the_published_vectors() {
        let leaves: [&[u8]; 8] =
            [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"];
        let hashes: Vec<Hash> = leaves.iter().map(|bytes| leaf(bytes)).collect();
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (size, expected) in roots.iter().enumerate() {
            assert_eq!(hex(&root(&hashes[..size])), *expected, "{size} leaves");
        }
    }

    #[test]
    fn both_trees_have_the_same_root_at_every_size() {
        let bytes: Vec<[u8; 8]> = (0..300_u64).map(u64::to_be_bytes).collect();
        for size in 0..=bytes.len() {
            let theirs = root_of(bytes[..size].iter().map(|bytes| leaf_hash(bytes)));
            let ours: Vec<Hash> = bytes[..size].iter().map(|bytes| leaf(bytes)).collect();
            assert_eq!(Digest(root(&ours)), theirs, "{size} leaves");
        }
    }
}
