//! What can go wrong with keys.

use std::path::PathBuf;

use model::RegionId;
use model::sealing::DataKeyId;
use store::StoreError;

use super::ring::{RegionKeyId, hex};

/// Why something could not be encrypted or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A file of keys could not be used.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of keys does not hold any.
    #[error(
        "{path} holds no keys as this version writes them: {reason}; put it back from where it was moved, or move all of its directory and the data away together: the region is given both again"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The value's owner was erased.
    #[error("what this was about has been erased")]
    Erased,
    /// The key is not here.
    #[error("the data key {0} is not in this region")]
    NoKey(DataKeyId),
    /// The region key is not here.
    #[error("the region key {} is not in this region any more", hex(.0))]
    NoRegionKey(RegionKeyId),
    /// The ciphertext, its labels or its place were changed.
    #[error("a value does not open: its bytes, its labels or its place are not those that were encrypted")]
    NotBound,
    /// A key that this region may not have.
    #[error("a data key was given that is not for {0}")]
    NotForUs(RegionId),
    /// There is no vault.
    #[error("this region has no keys, and the value is encrypted")]
    NoVault,
    /// No slot is free.
    #[error("the file of data keys has reached its largest size")]
    Full,
    /// Something in the library failed.
    #[error("{0} failed")]
    Crypto(&'static str),
    /// The facts about keys could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
