//! The local certificate authority and the keys of a deployment.
//!
//! Everything lies in one directory as PEM: `ca.pem` and `ca.key`, a
//! certificate and key for each region (`us-east.pem`, `us-east.key`), the key
//! pair that signs bearer tokens (`token.key`, `token.pub`), the one that signs
//! policy bundles (`bundle.key`, `bundle.pub`), the key of the digests that
//! regions compare (`digest.key`) and `token`, a development token.
//! Private files have mode 0600. Nothing that exists is ever replaced.
//!
//! Begin with [`ensure`] to make them and [`load`] to read them.

mod secrets;

pub use secrets::{BundleSigner, BundleVerifier, Secrets, bundle_bytes, bundle_from_bytes, load};

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::RegionId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};

use crate::token;

/// What follows the region's name in the DNS name of its certificate.
pub const DOMAIN: &str = ".repomind.internal";

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_DAYS: u32 = 3650;
const NODE_DAYS: u32 = 365;
const TOKEN_DAYS: u32 = 365;

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
    /// A certificate could not be made.
    #[error("cannot make a certificate for {name}: {source}")]
    Certificate {
        /// Whom it is for.
        name: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// A file does not hold what its name says.
    #[error("{path} does not hold a usable {what}: {reason}; remove it to have it made again")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> PkiError + '_ {
    move |source| PkiError::File { path: path.to_owned(), source }
}

fn certificate_error(name: &str) -> impl Fn(rcgen::Error) -> PkiError + '_ {
    move |source| PkiError::Certificate { name: name.to_owned(), source }
}

pub(crate) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(file_error(path))
}

/// Makes whatever is missing in `dir` for these regions: authority, node
/// certificates, token keys, bundle keys and a development token. Processes that
/// start at the same time wait for each other.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn ensure<'a>(dir: &Path, regions: impl IntoIterator<Item = &'a RegionId>) -> Result<(), PkiError> {
    fs::create_dir_all(dir).map_err(file_error(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(file_error(dir))?;
    let lock_path = dir.join(".lock");
    let lock = File::create(&lock_path).map_err(file_error(&lock_path))?;
    lock.lock().map_err(file_error(&lock_path))?;
    if !dir.join("ca.pem").exists() {
        create_ca(dir)?;
    }
    for region in regions {
        if !dir.join(format!("{region}.pem")).exists() {
            issue_node(dir, region)?;
        }
    }
    for name in ["token", "bundle"] {
        if !dir.join(format!("{name}.pub")).exists() {
            create_signing_key(dir, name)?;
        }
    }
    let digest_path = dir.join("digest.key");
    if !digest_path.exists() {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|error| PkiError::Content {
            path: digest_path.clone(),
            what: "random key",
            reason: error.to_string(),
        })?;
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&digest_path, &text)?;
    }
    let token_path = dir.join("token");
    if !token_path.exists() {
        let text = issue_token(dir, "developer", token::ALL_SCOPES, TOKEN_DAYS)?;
        write_private(&token_path, &text)?;
    }
    Ok(())
}

/// Makes `ca.pem` and `ca.key`, valid for ten years.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn create_ca(dir: &Path) -> Result<(), PkiError> {
    let name = "the certificate authority";
    let wrong = certificate_error(name);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&wrong)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "RepoMind region authority");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last(&mut params, CA_DAYS);
    let certificate = params.self_signed(&key).map_err(&wrong)?;
    write_private(&dir.join("ca.key"), &key.serialize_pem())?;
    write_public(&dir.join("ca.pem"), &certificate.pem())
}

/// Makes `REGION.pem` and `REGION.key`, signed by the authority in `dir`, valid for a year.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn issue_node(dir: &Path, region: &RegionId) -> Result<(), PkiError> {
    let wrong = certificate_error(region.as_str());
    let ca_key = KeyPair::from_pem(&read(&dir.join("ca.key"))?).map_err(&wrong)?;
    let issuer = Issuer::from_ca_cert_pem(&read(&dir.join("ca.pem"))?, ca_key).map_err(&wrong)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&wrong)?;
    let mut params = CertificateParams::new(vec![format!("{region}{DOMAIN}")]).map_err(&wrong)?;
    params.distinguished_name.push(DnType::CommonName, region.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    last(&mut params, NODE_DAYS);
    let certificate = params.signed_by(&key, &issuer).map_err(&wrong)?;
    write_private(&dir.join(format!("{region}.key")), &key.serialize_pem())?;
    write_public(&dir.join(format!("{region}.pem")), &certificate.pem())
}

/// Makes `NAME.key` and `NAME.pub`, an Ed25519 pair.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn create_signing_key(dir: &Path, name: &str) -> Result<(), PkiError> {
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(certificate_error(name))?;
    write_private(&dir.join(format!("{name}.key")), &key.serialize_pem())?;
    write_public(&dir.join(format!("{name}.pub")), &key.public_key_pem())
}

/// A bearer token for `subject` with these scopes (separated by spaces), signed
/// with `token.key`, valid for `days` days.
///
/// # Errors
/// [`PkiError`], when the key is missing or is not an Ed25519 key.
pub fn issue_token(dir: &Path, subject: &str, scopes: &str, days: u32) -> Result<String, PkiError> {
    let path = dir.join("token.key");
    let pem = read(&path)?;
    token::sign(pem.as_bytes(), subject, scopes, DAY * days).map_err(|error| PkiError::Content {
        path,
        what: "Ed25519 key",
        reason: error.to_string(),
    })
}

fn last(params: &mut CertificateParams, days: u32) {
    // A day back, so that a clock that runs a little behind still accepts it.
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + DAY * days).into();
}

fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o600)
}

fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o644)
}

/// Writes beside `path` and renames, so that a crash never leaves half a key.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let attempt = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    attempt().map_err(file_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_private_and_nothing_that_exists_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let region = RegionId::new("us-east").unwrap();
        ensure(dir.path(), [&region]).unwrap();
        for name in ["ca.key", "us-east.key", "token.key", "bundle.key", "digest.key", "token"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let before = read(&dir.path().join("us-east.pem")).unwrap();
        ensure(dir.path(), [&region]).unwrap();
        assert_eq!(before, read(&dir.path().join("us-east.pem")).unwrap());
    }
}
