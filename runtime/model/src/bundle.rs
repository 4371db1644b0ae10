//! A generation of policies as it travels between regions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::signing::{Endorsement, SignedBy};
use crate::units::UnixMillis;

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

/// A generation: a tree, its number, and what it grew from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// From 1, one higher than the parent's.
    pub generation: u64,
    /// The hash of the tree that it was made from; none for the first.
    pub parent: Option<TreeHash>,
    /// The region that proposed it.
    pub proposer: RegionId,
    /// When, by the proposer's clock.
    pub proposed_at: UnixMillis,
    /// Who wanted it, and why.
    pub because: Because,
    /// The files.
    pub tree: PolicyTree,
}

/// Who wanted a generation, and why, in their own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// Who: a person's or a tool's name.
    pub author: String,
    /// Why.
    pub reason: String,
}

impl Because {
    /// Files were saved in the tree that `region` watches.
    pub fn saved(region: &RegionId) -> Self {
        Self { author: format!("{SAVED_BY}{region}"), reason: "saved files".to_owned() }
    }

    /// The same, put in force on somebody's word.
    pub fn confirmed_by(self, author: &str) -> Self {
        Self { reason: format!("{} (confirmed by {author})", self.reason), ..self }
    }

    /// Whether the files came from the tree that `region` watches, and not from another, or from somebody who published
    /// them.
    pub fn is_saved_by(&self, region: &RegionId) -> bool {
        self.author.strip_prefix(SAVED_BY) == Some(region.as_str())
    }
}

/// How the author of a generation that came from a watched tree begins.
const SAVED_BY: &str = "the tree of ";

/// One generation in a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationInfo {
    /// Its number.
    pub generation: u64,
    /// The hash of its files.
    pub hash: String,
    /// The hash of the files that it grew from.
    pub parent: Option<String>,
    /// The region that proposed it.
    pub proposer: RegionId,
    /// When, by the proposer's clock.
    pub proposed_at: UnixMillis,
    /// Who wanted it, and why.
    pub because: Because,
    /// Whose key signed it; nothing where no key that is known here did.
    #[serde(default)]
    pub signed_by: Option<SignedBy>,
    /// Whether it is in force.
    pub in_force: bool,
}

/// A tree that somebody wants in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The hash of the files that the proposer saw in force: another one by now refuses the proposal as stale.
    pub parent: String,
    /// Who wants it, and why.
    pub because: Because,
    /// The files.
    pub tree: PolicyTree,
    /// Whether they are to come into force also where they change more than the bounds of a change allow.
    #[serde(default)]
    pub confirmed: bool,
    /// The operator's signature; needed in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsement: Option<Endorsement>,
}

/// A bundle's bytes and the signature over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBundle {
    /// A [`Bundle`] in postcard.
    pub bundle: Vec<u8>,
    /// Ed25519 over [`SignedBundle::bundle`].
    pub signature: Vec<u8>,
}
