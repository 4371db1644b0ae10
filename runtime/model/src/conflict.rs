//! What lost against a concurrent write of the same key: the entries of a region's conflict log.
//!
//! Where two regions write to a key without having heard of each other, the strategy of the namespace shows one of the
//! writes and hides the other, and the next write replaces both. Nobody asked for the other to go. So each region
//! notes it, in the commit by which it comes to hold both: what lost, with its value, to what, and why.

use serde::{Deserialize, Serialize};

use crate::bundle::TreeHash;
use crate::record::{Address, Content, Payload, Sibling};
use crate::units::UnixMillis;
use crate::version::Dot;
use crate::{Hlc, RegionId};

/// Why a write lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossCause {
    /// The strategy of its namespace shows another one.
    Strategy,
    /// A resolver is to be asked; the last write is shown until it has answered.
    Pending,
    /// A resolver chose another one.
    Resolver,
    /// A resolver made a value of its own from all of them.
    Merged,
    /// All siblings were kept, and a later write replaced them.
    Settled,
}

impl LossCause {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strategy => "strategy",
            Self::Pending => "pending",
            Self::Resolver => "resolver",
            Self::Merged => "merged",
            Self::Settled => "settled",
        }
    }
}

/// The write that another one lost to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Winner {
    /// Its name.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
}

impl Winner {
    /// A sibling as what won.
    pub fn of(sibling: &Sibling) -> Self {
        Self { dot: sibling.version.dot.clone(), hlc: sibling.version.hlc }
    }
}

/// One write that lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The key.
    pub address: Address,
    /// The write, with its labels; its value is empty where it is not kept.
    pub lost: Sibling,
    /// Whether the value is kept. Not where it was larger than [`Loss::VALUE`], or the record has left the region since.
    pub kept: bool,
    /// Bytes of the value, also where it is not kept.
    pub bytes: u64,
    /// A keyed hash of the value as stored, by which two regions compare what they have.
    pub digest: [u8; 32],
    /// What it lost to.
    pub to: Winner,
    /// The strategy of the namespace, or its resolver, by name.
    pub by: String,
    /// Why.
    pub cause: LossCause,
    /// The policy generation that decided.
    pub generation: u64,
    /// The hash of its files, the resolvers among them; none before the first.
    pub policy: Option<TreeHash>,
    /// When this region noted it, by its clock.
    pub at: UnixMillis,
}

impl Loss {
    /// The largest value that is kept, in bytes.
    pub const VALUE: usize = 64 * 1024;

    /// The region that made the write.
    pub fn origin(&self) -> &RegionId {
        &self.lost.version.dot.actor.region
    }

    /// Whether it was a delete.
    pub fn is_delete(&self) -> bool {
        matches!(self.lost.content, Content::Tombstone { .. })
    }

    /// Takes the value out.
    pub fn strip(&mut self) {
        if let Content::Live(record) = &mut self.lost.content {
            record.payload = Payload::Plain(bytes::Bytes::new());
        }
        self.kept = false;
    }
}
