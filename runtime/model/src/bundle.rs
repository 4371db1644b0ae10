//! A generation of policies as it travels between regions.

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::signing::{Endorsement, SignedBy};
use crate::units::UnixMillis;

pub use crate::tree::{POLICY_FILES, PolicyTree, TreeHash};

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
