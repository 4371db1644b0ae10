//! What goes to which machine, and until when it is valid.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::RegionId;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{self, file_error};
use super::{LEDGER, POLICY, PkiError, WITNESS, check_name, content, ledger, policy, read, witness};

/// The files that the machine of `region` needs, to be copied with their modes;
/// all of them exist. `ca.key` and `token.key` are never among them: they stay
/// where the authority was made. Any region may become the primary, so each gets its own key for policies, unless they
/// are signed by operators (`production`).
///
/// # Errors
/// [`PkiError::Missing`] for the first that does not exist, [`PkiError::File`]
/// when the directory cannot be read.
pub fn bundle_for(dir: &Path, region: &RegionId, production: bool) -> Result<Vec<PathBuf>, PkiError> {
    check_name(region)?;
    let (ledger, witness, policy) = (ledger(region), witness(region), policy(region));
    let own = [format!("{region}.pem"), format!("{region}.key"), format!("{ledger}.key"), format!("{witness}.key")];
    let shared = ["ca.pem", "token.pub", "digest.key"].map(str::to_owned);
    let mut files: Vec<PathBuf> = own.iter().chain(&shared).map(|name| dir.join(name)).collect();
    if !production {
        files.push(dir.join(format!("{policy}.key")));
    }
    files.extend([ledger, witness, policy].map(|name| dir.join(format!("{name}.pub"))));
    for ending in [LEDGER, WITNESS, POLICY] {
        files.extend(public_keys(dir, ending)?.into_iter().map(|(_, path)| path));
    }
    files.extend(super::dns::all_files(dir)?);
    files.sort();
    files.dedup();
    for file in &files {
        // Read, not only looked for: what cannot be read cannot be copied.
        read(file)?;
    }
    Ok(files)
}

/// The public keys in `dir` whose names have this ending, [`LEDGER`] or [`WITNESS`], by region.
pub(super) fn public_keys(dir: &Path, ending: &str) -> Result<Vec<(RegionId, PathBuf)>, PkiError> {
    let regions = names(dir)?.into_iter().filter_map(|name| {
        let region = RegionId::new(name.strip_suffix(".pub")?.strip_suffix(ending)?).ok()?;
        Some((region, dir.join(name)))
    });
    Ok(regions.collect())
}

/// The names of the files in `dir` that are text, sorted.
fn names(dir: &Path) -> Result<Vec<String>, PkiError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(file_error(dir))? {
        let entry = entry.map_err(file_error(dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// How long one certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The certificate's file.
    pub path: PathBuf,
    /// The second until which it is valid.
    pub not_after: SystemTime,
}

/// When the authority's certificate and those of the regions in `dir` expire, the
/// first one first. Certificates that were rotated out are not listed.
///
/// # Errors
/// [`PkiError`], naming the file that cannot be read.
pub fn expiries(dir: &Path) -> Result<Vec<Expiry>, PkiError> {
    let mut all = Vec::new();
    for name in names(dir)?.into_iter().filter(|name| name.ends_with(".pem")) {
        let path = dir.join(name);
        let not_after = not_after(&path, &files::read(&path)?)?;
        all.push(Expiry { path, not_after });
    }
    all.sort_by(|a, b| (a.not_after, &a.path).cmp(&(b.not_after, &b.path)));
    Ok(all)
}

/// When the certificate in `pem`, read from `path`, expires.
pub(crate) fn not_after(path: &Path, pem: &str) -> Result<SystemTime, PkiError> {
    with_certificate(path, pem, |certificate| {
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        UNIX_EPOCH + Duration::from_secs(seconds)
    })
}

/// The raw public key of the certificate in `pem`, read from `path`.
pub(super) fn key_of(path: &Path, pem: &str) -> Result<Vec<u8>, PkiError> {
    with_certificate(path, pem, |certificate| certificate.public_key().subject_public_key.data.to_vec())
}

fn with_certificate<T>(path: &Path, pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, PkiError> {
    let wrong = |reason: &dyn std::fmt::Display| content(path, "certificate", reason);
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(&error))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| wrong(&error))?;
    Ok(look(&certificate))
}
