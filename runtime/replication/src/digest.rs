//! Whether two regions hold the same, without showing what.

use std::collections::BTreeMap;

use model::record::{Address, Row, Sibling};
use model::residency::ScopeId;

/// A keyed hash over every sibling of one scope, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeDigest {
    /// How many siblings went in.
    pub siblings: u64,
    /// 32 bytes in hexadecimal. Equal digests mean equal content; a region without the key learns nothing.
    pub digest: String,
}

/// Digests of all scopes, built by feeding rows in key order.
///
/// Markers of writes that live elsewhere go into no digest. A marker stands only in regions outside
/// the scope that it points to, and only in those that knew the key; the write that it stands for is
/// in the digests of that scope's own regions. What the marker has superseded is gone on both sides.
///
/// A tombstone counts only beside a live write of its scope, over which it may win. A key with nothing but
/// tombstones is as good as one that was never written, and regions forget it when each of them can tell.
pub struct ScopeDigests {
    key: [u8; 32],
    scopes: BTreeMap<ScopeId, (u64, blake3::Hasher)>,
}

impl ScopeDigests {
    /// Empty digests under `key`, which all regions of a deployment share.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key, scopes: BTreeMap::new() }
    }

    /// Adds a row. Rows come in key order. `lives_in` names the scope that a sibling belongs to: that in which it was
    /// written, or what policies have left of that.
    pub fn add(&mut self, address: &Address, row: &Row, lives_in: &mut dyn FnMut(&Sibling) -> ScopeId) {
        let live = |scope| row.siblings.iter().any(|other| other.scope == scope && other.content.record().is_some());
        for sibling in row.siblings.iter().filter(|sibling| !sibling.is_marker() && live(sibling.scope)) {
            let (count, hash) =
                self.scopes.entry(lives_in(sibling)).or_insert_with(|| (0, blake3::Hasher::new_keyed(&self.key)));
            *count += 1;
            let body = model::codec::encode(&Row { siblings: vec![sibling.clone()] });
            for part in [address.namespace.as_str().as_bytes(), address.key.as_str().as_bytes(), &body] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
    }

    /// The digests, by scope.
    pub fn finish(self) -> BTreeMap<ScopeId, ScopeDigest> {
        let digest = |(siblings, hash): (u64, blake3::Hasher)| ScopeDigest {
            siblings,
            digest: hash.finalize().to_hex().to_string(),
        };
        self.scopes.into_iter().map(|(scope, state)| (scope, digest(state))).collect()
    }
}
