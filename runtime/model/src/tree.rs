//! The files that operators edit, and the name of their content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The files of a policy tree by path relative to its root, with forward slashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyTree(pub BTreeMap<String, String>);

/// The ten files that a tree must have.
pub const POLICY_FILES: &[&str] = &[
    "region-config/region-mapping.scm",
    "data-replication/eventual-consistency.scm",
    "data-replication/conflict-resolution.scm",
    "data-replication/replication-lag.scm",
    "traffic-routing/geo-dns.scm",
    "traffic-routing/latency-routing.scm",
    "traffic-routing/failover.scm",
    "edge-deployment/edge-cache.scm",
    "compliance/data-residency.scm",
    "compliance/region-policies.scm",
];

/// Names the content of a tree: equal trees have equal hashes everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TreeHash([u8; 32]);

impl PolicyTree {
    /// The hash of all paths and contents.
    pub fn hash(&self) -> TreeHash {
        let mut hash = blake3::Hasher::new_derive_key("repomind policy tree v1");
        for (path, text) in &self.0 {
            for part in [path, text] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        TreeHash(*hash.finalize().as_bytes())
    }
}

impl std::fmt::Display for TreeHash {
    /// The first six bytes in hexadecimal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
