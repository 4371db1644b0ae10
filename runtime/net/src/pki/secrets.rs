//! What one daemon reads from the key directory.

use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use model::RegionId;
use model::bundle::Bundle;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::{PkiError, read};
use crate::identity::Identity;

/// Length of an Ed25519 public key, which ends its SubjectPublicKeyInfo (RFC 8410, section 4).
const PUBLIC_BYTES: usize = 32;

/// All keys that a region needs. Has no `Debug` output worth printing, on purpose.
pub struct Secrets {
    /// Its certificate and key for the other regions.
    pub identity: Identity,
    /// Signs policy bundles; absent where `bundle.key` is not on this machine.
    pub bundle_signer: Option<BundleSigner>,
    /// Verifies policy bundles.
    pub bundle_verifier: BundleVerifier,
    /// The public key of bearer tokens, PEM, for [`crate::TokenVerifier::new`].
    pub token_key: Vec<u8>,
    /// The key of the digests by which regions compare what they hold; the same in all of them.
    pub digest_key: [u8; 32],
}

/// Reads what `region` needs from `dir`, which [`super::ensure`] has filled.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn load(dir: &Path, region: &RegionId) -> Result<Secrets, PkiError> {
    let signer_path = dir.join("bundle.key");
    Ok(Secrets {
        identity: Identity::load(dir, region)?,
        bundle_signer: if signer_path.exists() { Some(BundleSigner::load(&signer_path)?) } else { None },
        bundle_verifier: BundleVerifier::load(&dir.join("bundle.pub"))?,
        token_key: read(&dir.join("token.pub"))?.into_bytes(),
        digest_key: digest_key(&dir.join("digest.key"))?,
    })
}

fn digest_key(path: &Path) -> Result<[u8; 32], PkiError> {
    let text = read(path)?;
    let wrong = |reason: &str| content(path, "key of 64 hexadecimal digits", reason);
    let text = text.trim();
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong("it has another length"));
    }
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong("it has other characters"))?;
    }
    Ok(key)
}

fn content(path: &Path, what: &'static str, reason: impl ToString) -> PkiError {
    PkiError::Content { path: path.to_owned(), what, reason: reason.to_string() }
}

/// Signs policy bundles with Ed25519.
pub struct BundleSigner(Ed25519KeyPair);

impl BundleSigner {
    /// Reads a PKCS#8 key in PEM.
    ///
    /// # Errors
    /// [`PkiError`], naming the file.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let pem = read(path)?;
        let what = "Ed25519 key";
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| content(path, what, error))?;
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|error| content(path, what, error))?;
        Ok(Self(pair))
    }

    /// The signature over `bytes`, 64 bytes.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }
}

/// Verifies policy bundles.
#[derive(Clone)]
pub struct BundleVerifier([u8; PUBLIC_BYTES]);

impl BundleVerifier {
    /// Reads an Ed25519 public key in PEM.
    ///
    /// # Errors
    /// [`PkiError`], naming the file.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let pem = read(path)?;
        let what = "Ed25519 public key";
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|error| content(path, what, error))?;
        match der.as_ref().last_chunk::<PUBLIC_BYTES>() {
            Some(key) if der.as_ref().len() == PUBLIC_BYTES + 12 => Ok(Self(*key)),
            _ => Err(content(path, what, "it has another length")),
        }
    }

    /// Whether `signature` was made over `bytes` with the matching key.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, signature).is_ok()
    }
}

/// The bytes of a bundle that are signed and shipped.
pub fn bundle_bytes(bundle: &Bundle) -> Vec<u8> {
    postcard::to_stdvec(bundle).expect("plain data always encodes into memory")
}

/// The bundle of [`bundle_bytes`].
///
/// # Errors
/// The decoder's words.
pub fn bundle_from_bytes(bytes: &[u8]) -> Result<Bundle, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((bundle, [])) => Ok(bundle),
        Ok((_, rest)) => Err(format!("{} bytes are left over", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_was_changed_after_it_was_signed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let region = RegionId::new("us-east").unwrap();
        super::super::ensure(dir.path(), [&region]).unwrap();
        let secrets = load(dir.path(), &region).unwrap();
        let signature = secrets.bundle_signer.unwrap().sign(b"as proposed");
        assert!(secrets.bundle_verifier.verify(b"as proposed", &signature));
        assert!(!secrets.bundle_verifier.verify(b"as changed", &signature));
        assert_ne!(secrets.digest_key, [0; 32]);
    }
}
