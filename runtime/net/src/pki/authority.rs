//! Makes keys and certificates: what is done where `ca.key` and `token.key` are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::RegionId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};

use super::files::{self, beside, file_error, publish, read, stage, write_private, write_public};
use super::machines::{key_of, not_after};
use super::{AUTHORITY_DAYS, DOMAIN, NODE_DAYS, PkiError, SigningKey, TOKEN_LONGEST, check_name, content};
use crate::token;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn certificate_error(name: &str) -> impl Fn(rcgen::Error) -> PkiError + '_ {
    move |source| PkiError::Certificate { name: name.to_owned(), source }
}

/// Makes `ca.pem` and `ca.key`, valid for [`AUTHORITY_DAYS`].
///
/// # Errors
/// [`PkiError`], naming the file; [`PkiError::Exists`] when there is an authority already.
pub fn create_authority(dir: &Path) -> Result<(), PkiError> {
    let _lock = files::lock(dir)?;
    make_authority(dir)
}

pub(super) fn make_authority(dir: &Path) -> Result<(), PkiError> {
    let (key_path, path) = (dir.join("ca.key"), dir.join("ca.pem"));
    let remedy =
        "every certificate hangs on it: restore what is missing beside it from a copy, or use another directory";
    if path.exists() {
        return Err(PkiError::Exists { path, remedy });
    }
    if key_path.exists() {
        finish(&key_path, &path)?;
        return if path.exists() { Ok(()) } else { Err(PkiError::Exists { path: key_path, remedy }) };
    }
    let name = "the certificate authority";
    let wrong = certificate_error(name);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&wrong)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "RepoMind region authority");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last(&mut params, AUTHORITY_DAYS);
    let certificate = params.self_signed(&key).map_err(&wrong)?;
    stage(&key_path, &key.serialize_pem(), 0o600)?;
    stage(&path, &certificate.pem(), 0o644)?;
    publish(&key_path)?;
    publish(&path)
}

/// Makes `REGION.pem` and `REGION.key`, signed by the authority in `dir`, valid
/// for `days` from 1 to [`AUTHORITY_DAYS`], and not longer than the authority.
///
/// # Errors
/// [`PkiError`], naming the file; [`PkiError::Exists`] when the region has a certificate already.
pub fn issue_node(dir: &Path, region: &RegionId, days: u32) -> Result<(), PkiError> {
    check_name(region)?;
    let _lock = files::lock(dir)?;
    let path = dir.join(format!("{region}.pem"));
    if path.exists() {
        let remedy = "rotate it to replace it by a new one";
        return Err(PkiError::Exists { path, remedy });
    }
    make_node(dir, region, Some(days))
}

/// The places of a region's key and certificate.
fn node_paths(dir: &Path, region: &RegionId) -> (PathBuf, PathBuf) {
    (dir.join(format!("{region}.key")), dir.join(format!("{region}.pem")))
}

/// Without `days`, as long as is usual and the authority permits.
pub(super) fn make_node(dir: &Path, region: &RegionId, days: Option<u32>) -> Result<(), PkiError> {
    stage_node(dir, region, days)?;
    let (key, certificate) = node_paths(dir, region);
    publish(&key)?;
    publish(&certificate)
}

/// Writes a new key and certificate beside the places where they are to be.
fn stage_node(dir: &Path, region: &RegionId, days: Option<u32>) -> Result<(), PkiError> {
    let wrong = certificate_error(region.as_str());
    let ca_key_path = dir.join("ca.key");
    let ca_key = KeyPair::from_pem(&read(&ca_key_path)?)
        .map_err(|error| content(&ca_key_path, "key of the authority", error))?;
    let ca_path = dir.join("ca.pem");
    let ca_pem = read(&ca_path)?;
    if key_of(&ca_path, &ca_pem)? != ca_key.public_key_raw() {
        return Err(content(&ca_key_path, "key of the authority", "it is not the key of ca.pem"));
    }
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(&wrong)?;
    let days = days_granted(region, days, not_after(&ca_path, &ca_pem)?)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&wrong)?;
    let mut params = CertificateParams::new(vec![format!("{region}{DOMAIN}")]).map_err(&wrong)?;
    params.distinguished_name.push(DnType::CommonName, region.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    last(&mut params, days);
    let certificate = params.signed_by(&key, &issuer).map_err(&wrong)?;
    let (key_path, path) = node_paths(dir, region);
    stage(&key_path, &key.serialize_pem(), 0o600)?;
    stage(&path, &certificate.pem(), 0o644)
}

fn days_granted(region: &RegionId, asked: Option<u32>, authority_ends: SystemTime) -> Result<u32, PkiError> {
    let refused = |reason| PkiError::Refused { name: format!("the region {region}"), reason };
    let left = authority_ends.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / DAY.as_secs();
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    match asked {
        _ if left == 0 => {
            Err(refused("the authority in ca.pem has expired; make a new one in another directory".into()))
        }
        None => Ok(NODE_DAYS.min(left)),
        Some(days) if (1..=left.min(AUTHORITY_DAYS)).contains(&days) => Ok(days),
        Some(days) => Err(refused(format!(
            "{days} days were asked for; ask for 1 to {}, for which the authority is still valid",
            left.min(AUTHORITY_DAYS)
        ))),
    }
}

/// Gives the region a new key and certificate, valid for [`NODE_DAYS`] or as long
/// as the authority. What they replace is kept as `REGION.key.old` and
/// `REGION.pem.old` until the next rotation.
///
/// The old certificate stays valid until it expires: regions that run with it and
/// regions that run with the new one accept each other. A running region takes up
/// the new one when it is started again.
///
/// # Errors
/// [`PkiError`], naming the file; the old pair is in force then. A crash between
/// the two renames is repaired by the next rotation or by [`super::ensure`].
pub fn rotate_node(dir: &Path, region: &RegionId) -> Result<(), PkiError> {
    check_name(region)?;
    let _lock = files::lock(dir)?;
    finish_rotation(dir, region)?;
    let (key, certificate) = node_paths(dir, region);
    let (old_key, old_certificate) = (read(&key)?, read(&certificate)?);
    stage_node(dir, region, None)?;
    write_private(&beside(&key, ".old"), &old_key)?;
    write_public(&beside(&certificate, ".old"), &old_certificate)?;
    publish(&key)?;
    publish(&certificate)
}

/// Repairs what a crash left of making or rotating the region's pair. Does nothing where all is well.
pub(super) fn finish_rotation(dir: &Path, region: &RegionId) -> Result<(), PkiError> {
    let (key, certificate) = node_paths(dir, region);
    finish(&key, &certificate)
}

/// Puts a staged certificate in its place if its key is there already, and takes staged files away if not.
fn finish(key: &Path, certificate: &Path) -> Result<(), PkiError> {
    let staged = beside(certificate, ".new");
    let belongs = || {
        let pair = KeyPair::from_pem(&fs::read_to_string(key).ok()?).ok()?;
        Some(key_of(&staged, &fs::read_to_string(&staged).ok()?).ok()? == pair.public_key_raw())
    };
    if belongs() == Some(true) {
        return publish(certificate);
    }
    for left_over in [staged, beside(key, ".new")] {
        if left_over.exists() {
            fs::remove_file(&left_over).map_err(file_error(&left_over))?;
        }
    }
    Ok(())
}

/// Makes an operator's private key in `path`, readable by its owner alone, and gives the public one.
///
/// # Errors
/// [`PkiError::Exists`] where the file exists, [`PkiError::File`] where it cannot be written.
pub fn make_operator_key(path: &Path) -> Result<[u8; 32], PkiError> {
    if path.exists() {
        let remedy = "name another file, or move that key away";
        return Err(PkiError::Exists { path: path.to_owned(), remedy });
    }
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(certificate_error("an operator"))?;
    write_private(path, &key.serialize_pem())?;
    Ok(*SigningKey::load(path)?.verifying_key().bytes())
}

/// Makes `NAME.key` and `NAME.pub`, an Ed25519 pair, unless they are there. A
/// missing public key is computed from its private one, never made anew.
pub(super) fn make_pair(dir: &Path, name: &str) -> Result<(), PkiError> {
    let (private, public) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pub")));
    if public.exists() {
        return Ok(());
    }
    let key = if private.exists() {
        KeyPair::from_pem(&read(&private)?).map_err(|error| content(&private, "Ed25519 key", error))?
    } else {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(certificate_error(name))?;
        write_private(&private, &key.serialize_pem())?;
        key
    };
    write_public(&public, &key.public_key_pem())
}

/// A bearer token for `subject` with these scopes (separated by spaces), signed
/// with `token.key`, valid for `ttl` from a second to [`TOKEN_LONGEST`].
///
/// # Errors
/// [`PkiError`], when the key is missing or is not an Ed25519 key, or what was
/// asked for is no token.
pub fn issue_token(dir: &Path, subject: &str, scopes: &str, ttl: Duration) -> Result<String, PkiError> {
    let refused = |reason: String| PkiError::Refused { name: format!("{subject:?}"), reason };
    if subject.trim().is_empty() {
        return Err(refused("a token names its subject; state one".into()));
    }
    if scopes.trim().is_empty() {
        return Err(refused(format!("a token without a scope permits nothing; state some of: {}", token::ALL_SCOPES)));
    }
    if let Some(unknown) = scopes.split_ascii_whitespace().find(|scope| !token::is_known(scope)) {
        return Err(refused(format!(
            "there is no scope {unknown:?}; state some of: {}, class:CLASS, jurisdiction:COUNTRY",
            token::ALL_SCOPES
        )));
    }
    if ttl < Duration::from_secs(1) || ttl > TOKEN_LONGEST {
        let most = TOKEN_LONGEST.as_secs();
        return Err(refused(format!("its life of {} s is not between 1 s and {most} s", ttl.as_secs_f64())));
    }
    let path = dir.join("token.key");
    let pem = read(&path)?;
    token::sign(pem.as_bytes(), subject, scopes, ttl).map_err(|error| content(&path, "Ed25519 key", error))
}

fn last(params: &mut CertificateParams, days: u32) {
    // A day back, so that a clock that runs a little behind still accepts it.
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + DAY * days).into();
}
