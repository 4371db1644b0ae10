//! Ed25519 keys that sign policy bundles and ledgers, and the key of digests.

use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::{PkiError, content, read};

/// Length of an Ed25519 public key, which ends its SubjectPublicKeyInfo (RFC 8410, section 4).
const PUBLIC_BYTES: usize = 32;

/// What a SubjectPublicKeyInfo of Ed25519 has before the key.
const PREFIX_BYTES: usize = 12;

/// Signs with Ed25519. Has no `Debug` output worth printing, on purpose.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
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

    /// The key that verifies what this one signs.
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut key = [0; PUBLIC_BYTES];
        key.copy_from_slice(self.0.public_key().as_ref());
        VerifyingKey(key)
    }
}

/// Verifies what a [`SigningKey`] signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey([u8; PUBLIC_BYTES]);

impl VerifyingKey {
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
            Some(key) if der.as_ref().len() == PUBLIC_BYTES + PREFIX_BYTES => Ok(Self(*key)),
            _ => Err(content(path, what, "it has another length")),
        }
    }

    /// A key as RFC 8032 encodes it. One that is no point of the curve verifies nothing.
    pub const fn from_bytes(key: [u8; PUBLIC_BYTES]) -> Self {
        Self(key)
    }

    /// The key as RFC 8032 encodes it.
    pub fn bytes(&self) -> &[u8; PUBLIC_BYTES] {
        &self.0
    }

    /// Whether `signature` was made over `bytes` with the matching key.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, signature).is_ok()
    }
}

/// 32 random bytes in hexadecimal, to be kept in `path`.
pub(super) fn random_hex(path: &Path) -> Result<String, PkiError> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|error| content(path, "random key", error))?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads what [`random_hex`] made.
pub(super) fn digest_key(path: &Path) -> Result<[u8; 32], PkiError> {
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
