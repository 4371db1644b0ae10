//! The certificate authority and the keys of a deployment.
//!
//! Everything lies in one directory as PEM:
//!
//! | file | what it is | who needs it |
//! |---|---|---|
//! | `ca.pem`, `ca.key` | the authority | all; nobody that runs |
//! | `REGION.pem`, `REGION.key` | a region's certificate and key for the other regions | that region |
//! | `REGION-ledger.pub`, `REGION-ledger.key` | the pair that signs a region's ledger | all; that region |
//! | `REGION-witness.pub`, `REGION-witness.key` | the pair that cosigns the ledgers of others | all; that region |
//! | `token.pub`, `token.key` | the pair that signs bearer tokens | all; nobody that runs |
//! | `REGION-policy.pub`, `REGION-policy.key` | the pair that signs policies in development | all; that region, if it may be the primary |
//! | `KZONE.+013+TAG.key`, `.private` | a pair that signs a DNS zone ([`dns`]) | all |
//! | `digest.key` | the key of the digests that regions compare | all |
//! | `token` | a development token | whoever operates |
//!
//! What signs policies in production is not here: [`make_operator_key`] makes it where an operator works.
//!
//! Private files have mode 0600. Nothing that exists is ever replaced, but by
//! [`rotate_node`], which keeps what it replaces as `.old`.
//!
//! On one machine, begin with [`ensure`] to make all of them and [`load`] to read
//! them. For machines of their own, make them where the authority is to stay
//! ([`create_authority`], [`issue_node`], [`ensure`]) and copy what [`bundle_for`]
//! lists to each; watch [`expiries`].

mod authority;
pub mod dns;
mod files;
mod keys;
mod machines;
mod policies;
mod secrets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::RegionId;

pub use authority::{create_authority, issue_node, issue_token, make_operator_key, rotate_node};
pub use keys::{SigningKey, VerifyingKey};
pub use machines::{Expiry, bundle_for, expiries};
pub use policies::{PolicyKeys, bundle_bytes, bundle_from_bytes, load_operator_key, no_operator_key};
pub use secrets::{PublicKeys, Secrets, load};

pub(crate) use files::read;
pub(crate) use machines::not_after;

use crate::token;

/// What follows the region's name in the DNS name of its certificate.
pub const DOMAIN: &str = ".repomind.internal";

/// How long a node's certificate is valid where nothing else is asked for, in days.
pub const NODE_DAYS: u32 = 365;

/// How long the authority is valid, in days.
pub const AUTHORITY_DAYS: u32 = 3650;

/// The longest life of a bearer token: a year.
pub const TOKEN_LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why keys or certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("cannot use {path}: {source}; check that the directory exists and is yours")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is needed is not there.
    #[error("there is no {path}; {remedy}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A file would have to be replaced.
    #[error("{path} exists and is not replaced; {remedy}")]
    Exists {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {name}: {source}")]
    Certificate {
        /// Whom it is for.
        name: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// What was asked for is not issued.
    #[error("nothing was issued for {name}: {reason}")]
    Refused {
        /// Whom it would have been for.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A file does not hold what its name says.
    #[error("{path} does not hold a usable {what}: {reason}; {remedy}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
}

pub(crate) fn content(path: &Path, what: &'static str, reason: impl ToString) -> PkiError {
    PkiError::Content {
        path: path.to_owned(),
        what,
        reason: reason.to_string(),
        remedy: "restore it from a copy, or move it away and have it made again",
    }
}

/// Makes whatever is missing in `dir` for these regions: authority, node
/// certificates, keys for ledger, witness and policies, token keys and a development token.
/// Finishes a rotation that was interrupted. Processes that start at the same
/// time wait for each other.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn ensure<'a>(dir: &Path, regions: impl IntoIterator<Item = &'a RegionId>) -> Result<(), PkiError> {
    let _lock = files::lock(dir)?;
    if !dir.join("ca.pem").exists() {
        authority::make_authority(dir)?;
    }
    for region in regions {
        check_name(region)?;
        authority::finish_rotation(dir, region)?;
        if !dir.join(format!("{region}.pem")).exists() {
            authority::make_node(dir, region, None)?;
        }
        authority::make_pair(dir, &ledger(region))?;
        authority::make_pair(dir, &witness(region))?;
        authority::make_pair(dir, &policy(region))?;
    }
    authority::make_pair(dir, "token")?;
    let digest = dir.join("digest.key");
    if !digest.exists() {
        files::write_private(&digest, &keys::random_hex(&digest)?)?;
    }
    let development = dir.join("token");
    if !development.exists() {
        let text = issue_token(dir, "developer", token::ALL_SCOPES, TOKEN_LONGEST)?;
        files::write_private(&development, &text)?;
    }
    Ok(())
}

/// What the files of a region's ledger keys begin with.
fn ledger(region: &RegionId) -> String {
    format!("{region}{LEDGER}")
}

const LEDGER: &str = "-ledger";

/// What the files of the keys with which a region cosigns begin with.
fn witness(region: &RegionId) -> String {
    format!("{region}{WITNESS}")
}

const WITNESS: &str = "-witness";

/// What the files of the keys with which a region signs policies in development begin with.
fn policy(region: &RegionId) -> String {
    format!("{region}{POLICY}")
}

const POLICY: &str = "-policy";

/// Refuses names whose files would be another key's.
fn check_name(region: &RegionId) -> Result<(), PkiError> {
    let name = region.as_str();
    let endings = [LEDGER, WITNESS, POLICY];
    if ["ca", "token", "digest"].contains(&name) || endings.iter().any(|ending| name.ends_with(ending)) {
        let reason = "its files would bear the names of other keys; give the region another name".into();
        return Err(PkiError::Refused { name: format!("the region {name}"), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
