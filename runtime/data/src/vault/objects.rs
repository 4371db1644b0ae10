//! The keys of objects: each has one of its own, sealed in its row like a value.

use model::object::{Manifest, SealedKey};
use model::record::{Address, Payload, Record};
use model::residency::PermittedRegions;
use model::sealing::bound;

use super::ring::{DataKey, decrypt, encrypt, random};
use super::{Vault, VaultError};

/// What a piece is bound to: its place in its object.
fn place(index: usize) -> ([u8; 12], Vec<u8>) {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
    (nonce, format!("repomind chunk 1\n{index}").into_bytes())
}

/// A key for one object.
///
/// # Errors
/// [`VaultError::Crypto`].
pub(crate) fn object_key() -> Result<DataKey, VaultError> {
    random()
}

/// Encrypts a piece of an object. The key is used for no other object, so places are nonces.
pub(crate) fn encrypt_piece(key: &DataKey, index: usize, piece: &[u8]) -> Result<Vec<u8>, VaultError> {
    let (nonce, bound) = place(index);
    encrypt(key, nonce, &bound, piece)
}

/// Decrypts a piece of an object.
pub(crate) fn decrypt_piece(key: &DataKey, index: usize, stored: &[u8]) -> Result<Vec<u8>, VaultError> {
    let (nonce, bound) = place(index);
    decrypt(key, nonce, &bound, stored).ok_or(VaultError::NotBound)
}

impl Vault {
    /// Seals the key of an object into its record, which `regions` may hold.
    pub(crate) fn seal_object(
        &self,
        address: &Address,
        mut record: Record,
        key: &DataKey,
        regions: &PermittedRegions,
    ) -> Result<Record, VaultError> {
        let Payload::Object(manifest) = &record.payload else { return Ok(record) };
        let id = self.key_for(self.owner_of(address, &record.labels), regions)?;
        let (nonce, plain) = (random()?, [key.as_slice(), &manifest.digest()].concat());
        let ciphertext = encrypt(&self.data_key(id)?, nonce, &bound(address, &record), &plain)?;
        let sealed = SealedKey { key_ref: id.to_string(), nonce, ciphertext: ciphertext.into() };
        record.payload = Payload::Object(Manifest { sealed: Some(sealed), ..manifest.clone() });
        Ok(record)
    }

    /// The key of an object; none where it lies in plain text.
    pub(crate) fn object_key_of(&self, address: &Address, record: &Record) -> Result<Option<DataKey>, VaultError> {
        let Payload::Object(manifest) = &record.payload else { return Ok(None) };
        let Some(sealed) = &manifest.sealed else { return Ok(None) };
        let id = record.payload.data_key().ok_or(VaultError::NotBound)?;
        let plain = decrypt(&self.data_key(id)?, sealed.nonce, &bound(address, record), &sealed.ciphertext);
        let plain = plain.ok_or(VaultError::NotBound)?;
        let (key, digest) = plain.split_first_chunk::<32>().ok_or(VaultError::NotBound)?;
        if digest == manifest.digest() { Ok(Some(*key)) } else { Err(VaultError::NotBound) }
    }
}
