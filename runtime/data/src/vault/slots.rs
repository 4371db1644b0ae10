//! The file of data keys: slots of one size that are overwritten in place.
//!
//! A log-structured store would keep a deleted key until it compacts, and a backup of it for as long as the backup
//! lasts. So keys lie here, wrapped, and this file is in no backup of the data. What overwriting in place means to the
//! device under it is beyond this program: a drive that remaps blocks may keep the old one, under the region key.
//!
//! ```text
//! slot, 128 bytes = state (0 free, 1 held) | data key id, 16 | region key id, 8 | nonce, 12 | wrapped key, 48 | zeros
//!                 | CRC-32 of all before, little-endian
//! ```
//!
//! The first slot holds the name of the format.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::sealing::DataKeyId;

use super::VaultError;
use super::ring::{WRAPPED, Wrapped};

pub(crate) const SLOT: usize = 128;
const HEAD: &[u8] = b"repomind data keys 1\n";
const SUM: usize = SLOT - 4;

/// The file, and which of its slots are free.
pub(crate) struct SlotFile {
    path: PathBuf,
    file: File,
    free: Vec<u32>,
    /// The number of slots, the first included.
    slots: u32,
}

fn bytes_of(id: DataKeyId, wrapped: &Wrapped) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[0] = 1;
    slot[1..17].copy_from_slice(&id.0);
    slot[17..25].copy_from_slice(&wrapped.by);
    slot[25..37].copy_from_slice(&wrapped.nonce);
    slot[37..37 + WRAPPED].copy_from_slice(&wrapped.bytes);
    let sum = crc32fast::hash(&slot[..SUM]).to_le_bytes();
    slot[SUM..].copy_from_slice(&sum);
    slot
}

/// What a slot holds; nothing where it is free or was being written when the power failed.
fn read(slot: &[u8; SLOT]) -> Option<(DataKeyId, Wrapped)> {
    let whole = crc32fast::hash(&slot[..SUM]).to_le_bytes() == slot[SUM..];
    if slot[0] != 1 || !whole {
        return None;
    }
    let part = |from: usize, to: usize| &slot[from..to];
    let id = DataKeyId(part(1, 17).try_into().ok()?);
    let by = part(17, 25).try_into().ok()?;
    let (nonce, bytes) = (part(25, 37).try_into().ok()?, part(37, 37 + WRAPPED).try_into().ok()?);
    Some((id, Wrapped { by, nonce, bytes }))
}

/// What a slot holds now; nothing where it is free.
pub(crate) fn at(file: &File, place: u32) -> std::io::Result<Option<(DataKeyId, Wrapped)>> {
    let mut slot = [0; SLOT];
    file.read_exact_at(&mut slot, u64::from(place) * SLOT as u64)?;
    Ok(read(&slot))
}

impl SlotFile {
    /// Opens the file, making it if need be, and gives all keys in it with their slots.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<(DataKeyId, u32)>), VaultError> {
        let failed = |source| VaultError::File { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut head = [0; SLOT];
        head[..HEAD.len()].copy_from_slice(HEAD);
        let mut this = Self { path: path.to_owned(), file, free: Vec::new(), slots: 1 };
        if length < SLOT as u64 {
            this.write(&[(0, head)])?;
            return Ok((this, Vec::new()));
        }
        let mut slot = [0; SLOT];
        this.file.read_exact_at(&mut slot, 0).map_err(failed)?;
        if slot != head {
            return Err(VaultError::Content { path: path.to_owned(), reason: "it does not begin as one".into() });
        }
        this.slots = u32::try_from(length / SLOT as u64).map_err(|_| VaultError::Full)?;
        let mut held = Vec::new();
        let mut pages = vec![0; SLOT * 1024];
        for first in (1..this.slots).step_by(1024) {
            let count = (this.slots - first).min(1024);
            let page = &mut pages[..count as usize * SLOT];
            this.file.read_exact_at(page, u64::from(first) * SLOT as u64).map_err(failed)?;
            for (at, slot) in (first..).zip(page.chunks_exact(SLOT)) {
                match read(slot.try_into().expect("chunks of a slot's size")) {
                    Some((id, _)) => held.push((id, at)),
                    None => this.free.push(at),
                }
            }
        }
        Ok((this, held))
    }

    /// Another handle on the file, to read single slots by [`at`].
    pub(crate) fn reader(&self) -> Result<File, VaultError> {
        self.file.try_clone().map_err(|source| VaultError::File { path: self.path.clone(), source })
    }

    /// Writes keys into free slots; they are on disk when this returns.
    pub(crate) fn put(&mut self, keys: &[(DataKeyId, Wrapped)]) -> Result<Vec<u32>, VaultError> {
        let mut places = Vec::with_capacity(keys.len());
        for _ in keys {
            let place = match self.free.pop() {
                Some(place) => place,
                None => {
                    self.slots = self.slots.checked_add(1).ok_or(VaultError::Full)?;
                    self.slots - 1
                }
            };
            places.push(place);
        }
        let slots =
            places.iter().zip(keys).map(|(&at, (id, wrapped))| (at, bytes_of(*id, wrapped))).collect::<Vec<_>>();
        self.write(&slots).inspect_err(|_| self.free.extend(&places))?;
        Ok(places)
    }

    /// Overwrites keys with others.
    pub(crate) fn replace(&mut self, keys: &[(DataKeyId, u32, Wrapped)]) -> Result<(), VaultError> {
        let slots: Vec<_> = keys.iter().map(|(id, at, wrapped)| (*at, bytes_of(*id, wrapped))).collect();
        self.write(&slots)
    }

    /// Overwrites slots; nothing of their keys is in the file when this returns.
    pub(crate) fn wipe(&mut self, places: &[u32]) -> Result<(), VaultError> {
        let slots: Vec<_> = places.iter().map(|&at| (at, [0; SLOT])).collect();
        self.write(&slots)?;
        self.free.extend(places);
        Ok(())
    }

    fn write(&mut self, slots: &[(u32, [u8; SLOT])]) -> Result<(), VaultError> {
        let attempt = || {
            for (at, slot) in slots {
                self.file.write_all_at(slot, u64::from(*at) * SLOT as u64)?;
            }
            self.file.sync_data()
        };
        attempt().map_err(|source| VaultError::File { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> (DataKeyId, Wrapped) {
        (DataKeyId([number; 16]), Wrapped { by: [1; 8], nonce: [2; 12], bytes: [number; WRAPPED] })
    }

    #[test]
    fn a_wiped_key_is_not_in_the_file_and_its_slot_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("subject.keys");
        let (mut slots, held) = SlotFile::open(&path).unwrap();
        assert!(held.is_empty());
        let places = slots.put(&[key(21), key(22), key(23)]).unwrap();
        let has = |number: u8| std::fs::read(&path).unwrap().windows(WRAPPED).any(|bytes| bytes == [number; WRAPPED]);
        assert!(has(22));
        slots.wipe(&places[1..2]).unwrap();
        assert!(!has(22) && has(21) && has(23));
        assert_eq!(slots.put(&[key(24)]).unwrap(), places[1..2]);

        let (_, mut held) = SlotFile::open(&path).unwrap();
        held.sort_by_key(|(id, ..)| *id);
        assert_eq!(held.iter().map(|(id, ..)| id.0[0]).collect::<Vec<_>>(), [21, 23, 24]);
    }

    #[test]
    fn a_torn_slot_is_free_and_a_file_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("subject.keys");
        let (mut slots, _) = SlotFile::open(&path).unwrap();
        slots.put(&[key(21), key(22)]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT + 40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(SlotFile::open(&path).unwrap().1.len(), 1);
        bytes[0] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(SlotFile::open(&path), Err(VaultError::Content { .. })));
    }
}
