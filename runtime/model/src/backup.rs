//! What a backup of a region consists of, by hash. The bytes lie beside it in the region's object store.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::names::RegionId;
use crate::object::ChunkId;
use crate::units::UnixMillis;
use crate::version::PositionVector;

/// A stretch of pairs of one space, in key order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The BLAKE3 hash of its bytes before compression.
    pub hash: [u8; 32],
    /// How many pairs it has.
    pub pairs: u64,
    /// Bytes before compression.
    pub bytes: u64,
}

/// The list of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupList {
    /// Whose it is.
    pub region: RegionId,
    /// When the snapshot was made, by that region's clock.
    pub made_at: UnixMillis,
    /// The last stamp that the region had given.
    pub stamp: Hlc,
    /// How far it had taken over each log.
    pub vector: PositionVector,
    /// The policy generation in force: provenance only.
    pub generation: u64,
    /// The parts of each space, in order.
    pub spaces: BTreeMap<String, Vec<Part>>,
    /// Chunks of large values that its rows name, and whether each is encrypted.
    pub chunks: BTreeMap<ChunkId, bool>,
}

/// Names a backup: when it was made, and a hash of its list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupId(String);

impl BackupId {
    /// The name of the backup with this list, as it is stored.
    pub fn of(made_at: UnixMillis, stored: &[u8]) -> Self {
        Self(format!("{:013}-{}", made_at.0, &blake3::hash(stored).to_hex()[..16]))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for BackupId {
    type Err = &'static str;
    /// Reads `1767225600000-0123456789abcdef`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a backup is named like 1767225600000-0123456789abcdef; `backup list` shows them";
        let (time, hash) = text.split_once('-').ok_or(wrong)?;
        let time = time.len() >= 13 && time.len() <= 20 && time.bytes().all(|byte| byte.is_ascii_digit());
        let hash = hash.len() == 16 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if time && hash { Ok(Self(text.to_owned())) } else { Err(wrong) }
    }
}
