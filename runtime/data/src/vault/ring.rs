//! The keys of one region: what wraps its data keys, and what opens those that other regions give it.
//!
//! They never leave the region. [`FileRing`] keeps them in a file of their own; a key management service takes its
//! place by implementing [`RegionKeys`]: `wrap` and `unwrap` are its encrypt and decrypt, `agree` is its key agreement
//! (`DeriveSharedSecret` in AWS KMS, a transit key in Vault).
//!
//! The file has a line a key, the newest last:
//!
//! ```text
//! repomind region keys 1
//! ID (16 hex digits) MADE (ms since 1970) WRAPPING KEY (64 hex digits) X25519 PRIVATE KEY (64 hex digits)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::rand;
use model::UnixMillis;
use model::sealing::RegionPublicKey;

use super::VaultError;

/// Names a region key.
pub type RegionKeyId = [u8; 8];
/// A data key.
pub type DataKey = [u8; 32];
/// A data key and its tag.
pub(crate) const WRAPPED: usize = 48;

/// A data key as this region keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// The region key that opens it.
    pub by: RegionKeyId,
    /// 96 random bits.
    pub nonce: [u8; 12],
    /// The key and its tag.
    pub bytes: [u8; WRAPPED],
}

/// The keys of a region, wherever they are kept.
pub trait RegionKeys: Send + Sync {
    /// Wraps a data key with the newest region key. `context` has to be given again to unwrap it.
    ///
    /// # Errors
    /// [`VaultError::Crypto`].
    fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<Wrapped, VaultError>;

    /// Unwraps a data key.
    ///
    /// # Errors
    /// [`VaultError::NoRegionKey`], [`VaultError::Crypto`].
    fn unwrap(&self, wrapped: &Wrapped, context: &[u8]) -> Result<DataKey, VaultError>;

    /// What others encrypt data keys with that are for this region.
    fn public(&self) -> RegionPublicKey;

    /// The secret that this region shares with the maker of `ephemeral` (X25519, RFC 7748).
    ///
    /// # Errors
    /// [`VaultError::NoRegionKey`], [`VaultError::Crypto`].
    fn agree(&self, with: RegionKeyId, ephemeral: &[u8; 32]) -> Result<[u8; 32], VaultError>;

    /// The public half of the named key.
    fn public_of(&self, id: RegionKeyId) -> Option<RegionPublicKey>;

    /// Makes a new key, which is the newest from then on, and keeps the others.
    ///
    /// # Errors
    /// Those of the place where keys are kept.
    fn renew(&self, now: UnixMillis) -> Result<RegionKeyId, VaultError>;

    /// Destroys all keys but the newest.
    ///
    /// # Errors
    /// Those of the place where keys are kept.
    fn retire(&self) -> Result<(), VaultError>;

    /// All keys, the newest last, and when each was made.
    fn made(&self) -> Vec<(RegionKeyId, UnixMillis)>;
}

struct RegionKey {
    id: RegionKeyId,
    made: UnixMillis,
    wrapping: [u8; 32],
    private: [u8; 32],
    agreeing: PrivateKey,
    public: [u8; 32],
}

impl RegionKey {
    fn of(id: RegionKeyId, made: UnixMillis, wrapping: [u8; 32], private: [u8; 32]) -> Result<Self, VaultError> {
        let agreeing =
            PrivateKey::from_private_key(&X25519, &private).map_err(|_| VaultError::Crypto("a region key"))?;
        let public = agreeing.compute_public_key().map_err(|_| VaultError::Crypto("a region key"))?;
        let public = public.as_ref().try_into().map_err(|_| VaultError::Crypto("a region key"))?;
        Ok(Self { id, made, wrapping, private, agreeing, public })
    }

    fn make(now: UnixMillis) -> Result<Self, VaultError> {
        Self::of(random()?, now, random()?, random()?)
    }

    fn line(&self) -> String {
        format!("{} {} {} {}\n", hex(&self.id), self.made.0, hex(&self.wrapping), hex(&self.private))
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, made) = (unhex(words.next()?)?, words.next()?.parse().ok()?);
        let key = Self::of(id, UnixMillis(made), unhex(words.next()?)?, unhex(words.next()?)?).ok()?;
        words.next().is_none().then_some(key)
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| VaultError::Crypto("the system's randomness"))?;
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// AES-256-GCM with a key that is at hand.
pub(crate) fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, VaultError> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| VaultError::Crypto("a key"))?;
    Ok(LessSafeKey::new(key))
}

pub(crate) fn encrypt(key: &[u8; 32], nonce: [u8; 12], bound: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
    let mut bytes = Vec::with_capacity(plain.len() + 16);
    bytes.extend_from_slice(plain);
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut bytes)
        .map_err(|_| VaultError::Crypto("encryption"))?;
    Ok(bytes)
}

/// Nothing where the ciphertext was changed, or what it is bound to.
pub(crate) fn decrypt(key: &[u8; 32], nonce: [u8; 12], bound: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let opened = cipher(key).ok()?.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut bytes);
    let length = opened.ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

const HEAD: &str = "repomind region keys 1";
/// More than a region ever has: one, and two while they are rotated.
const MOST: usize = 64;

/// Region keys in a file.
pub struct FileRing {
    path: PathBuf,
    /// Never empty; the newest last.
    keys: RwLock<Vec<RegionKey>>,
}

impl FileRing {
    /// Reads the keys in `path`; makes the first one where there is no such file.
    ///
    /// # Errors
    /// [`VaultError::File`], [`VaultError::Content`].
    pub fn open(path: &Path, now: UnixMillis) -> Result<Self, VaultError> {
        let new = beside(path, "new");
        if !path.exists() && new.exists() && beside(path, "old").exists() {
            // A rotation was interrupted between its two renames.
            fs::rename(&new, path).map_err(|source| VaultError::File { path: path.to_owned(), source })?;
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let ring = Self { path: path.to_owned(), keys: RwLock::new(vec![RegionKey::make(now)?]) };
                ring.keep(&ring.keys())?;
                return Ok(ring);
            }
            Err(source) => return Err(VaultError::File { path: path.to_owned(), source }),
        };
        let wrong = |reason: &str| VaultError::Content { path: path.to_owned(), reason: reason.to_owned() };
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(wrong("it does not begin as one"));
        }
        let keys: Option<Vec<RegionKey>> = lines.map(RegionKey::read).collect();
        let keys = keys.filter(|keys| !keys.is_empty() && keys.len() <= MOST);
        let keys = keys.ok_or_else(|| wrong("a line of it is no region key, or there is none"))?;
        let ring = Self { path: path.to_owned(), keys: RwLock::new(keys) };
        ring.forget_old()?;
        Ok(ring)
    }

    fn keys(&self) -> std::sync::RwLockReadGuard<'_, Vec<RegionKey>> {
        self.keys.read().expect("nothing panics while it holds the lock")
    }

    /// Writes the keys to a new file, puts it in the place of the old one, and overwrites that.
    fn keep(&self, keys: &[RegionKey]) -> Result<(), VaultError> {
        let attempt = || {
            let new = beside(&self.path, "new");
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            let lines: String = keys.iter().map(RegionKey::line).collect();
            file.write_all(format!("{HEAD}\n{lines}").as_bytes())?;
            file.sync_all()?;
            if self.path.exists() {
                fs::rename(&self.path, beside(&self.path, "old"))?;
            }
            fs::rename(&new, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        attempt().map_err(|source| VaultError::File { path: self.path.clone(), source })?;
        self.forget_old()
    }

    /// Overwrites what a rotation has replaced, and removes it.
    fn forget_old(&self) -> Result<(), VaultError> {
        let old = beside(&self.path, "old");
        let attempt = || {
            let mut file = match OpenOptions::new().write(true).open(&old) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
            file.write_all(&vec![b'-'; length])?;
            file.sync_all()?;
            fs::remove_file(&old)
        };
        attempt().map_err(|source| VaultError::File { path: old.clone(), source })
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

impl RegionKeys for FileRing {
    fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<Wrapped, VaultError> {
        let keys = self.keys();
        let newest = keys.last().expect("a ring is never empty");
        let nonce = random()?;
        let bytes = encrypt(&newest.wrapping, nonce, context, key)?;
        Ok(Wrapped { by: newest.id, nonce, bytes: bytes.try_into().map_err(|_| VaultError::Crypto("wrapping"))? })
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &[u8]) -> Result<DataKey, VaultError> {
        let keys = self.keys();
        let by = keys.iter().find(|key| key.id == wrapped.by).ok_or(VaultError::NoRegionKey(wrapped.by))?;
        let key = decrypt(&by.wrapping, wrapped.nonce, context, &wrapped.bytes);
        key.and_then(|key| key.try_into().ok()).ok_or(VaultError::Crypto("a wrapped data key"))
    }

    fn public(&self) -> RegionPublicKey {
        let keys = self.keys();
        let newest = keys.last().expect("a ring is never empty");
        RegionPublicKey { id: newest.id, key: newest.public }
    }

    fn public_of(&self, id: RegionKeyId) -> Option<RegionPublicKey> {
        self.keys().iter().find(|key| key.id == id).map(|key| RegionPublicKey { id, key: key.public })
    }

    fn agree(&self, with: RegionKeyId, ephemeral: &[u8; 32]) -> Result<[u8; 32], VaultError> {
        let keys = self.keys();
        let key = keys.iter().find(|key| key.id == with).ok_or(VaultError::NoRegionKey(with))?;
        let wrong = VaultError::Crypto("a key agreement");
        agreement::agree(&key.agreeing, UnparsedPublicKey::new(&X25519, ephemeral), wrong, |secret| {
            secret.try_into().map_err(|_| VaultError::Crypto("a key agreement"))
        })
    }

    fn renew(&self, now: UnixMillis) -> Result<RegionKeyId, VaultError> {
        let mut keys = self.keys.write().expect("nothing panics while it holds the lock");
        let new = RegionKey::make(now)?;
        let id = new.id;
        keys.push(new);
        self.keep(&keys).inspect_err(|_| drop(keys.pop()))?;
        Ok(id)
    }

    fn retire(&self) -> Result<(), VaultError> {
        let mut keys = self.keys.write().expect("nothing panics while it holds the lock");
        if keys.len() == 1 {
            return Ok(());
        }
        let newest = keys.len() - 1;
        self.keep(&keys[newest..])?;
        keys.drain(..newest);
        Ok(())
    }

    fn made(&self) -> Vec<(RegionKeyId, UnixMillis)> {
        self.keys().iter().map(|key| (key.id, key.made)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_key_survives_a_restart_and_nothing_of_a_retired_one_is_left_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("region.keys");
        let ring = FileRing::open(&path, UnixMillis(5)).unwrap();
        let wrapped = ring.wrap(&[9; 32], b"here").unwrap();
        let ring = FileRing::open(&path, UnixMillis(6)).unwrap();
        assert_eq!(ring.unwrap(&wrapped, b"here").unwrap(), [9; 32]);
        assert!(ring.unwrap(&wrapped, b"there").is_err());
        let first = fs::read_to_string(&path).unwrap();
        let secret = first.trim().rsplit(' ').next().unwrap().to_owned();

        ring.renew(UnixMillis(7)).unwrap();
        assert_eq!(ring.unwrap(&wrapped, b"here").unwrap(), [9; 32]);
        ring.retire().unwrap();
        assert!(matches!(ring.unwrap(&wrapped, b"here"), Err(VaultError::NoRegionKey(_))));
        assert_eq!(ring.made().len(), 1);
        for entry in fs::read_dir(dir.path()).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains(&secret), "a retired region key is still there");
        }
        assert_eq!(FileRing::open(&path, UnixMillis(8)).unwrap().public(), ring.public());
    }

    #[test]
    fn a_damaged_ring_is_refused_and_never_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("region.keys");
        drop(FileRing::open(&path, UnixMillis(5)).unwrap());
        let good = fs::read_to_string(&path).unwrap();
        for bad in [String::new(), HEAD.to_owned(), good.replace(' ', "x"), format!("{good}more\n")] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(FileRing::open(&path, UnixMillis(6)), Err(VaultError::Content { .. })));
        }
    }
}
