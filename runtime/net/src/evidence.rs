//! What a region hands to an auditor, as it travels.
//!
//! `GET /ledger` gives [`LedgerHead`] in JSON. `GET /evidence` gives everything out of one snapshot of the store, as
//! frames; with `?rows=no` neither rows nor row images:
//!
//! ```text
//! frame = kind, 1 byte | length of the content, u32 big-endian | content
//! h  who and which policies         JSON
//! b  the policy bundle as signed    its envelope
//! c  the note of the checkpoint     text
//! l  a leaf                         index, u64 big-endian | bytes
//! i  the row images of a leaf       index, u64 big-endian | bytes
//! k  the name of a data key         16 bytes | 8 that name the region key that wraps it | 16 that name its owner (zeros
//!                                   where that is not known) | 16 for each erasure of the owner that its maker knew of
//! o  a petition                     its envelope
//! r  a row                          length of the key, u32 big-endian | key | envelope
//! x  an entry of the conflict log   the same
//! e  the end                        number of frames before, u64 big-endian
//! ```
//!
//! Without its end, a stream is broken and nothing of it counts.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use data::EvidencePart;
use model::bundle::{SignedBundle, TreeHash};
use model::{RegionId, UnixMillis, codec};
use serde::{Deserialize, Serialize};

use crate::PolicyInForce;

/// The ends of the ledgers that a region knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHead {
    /// The region.
    pub region: RegionId,
    /// Durable leaves of its own ledger.
    pub leaves: u64,
    /// The note of the newest checkpoint that it has signed.
    pub signed: Option<String>,
    /// The note of the newest one that enough other regions have cosigned.
    pub witnessed: Option<String>,
    /// The notes of other regions' checkpoints that it cosigned last.
    pub cosigned: BTreeMap<RegionId, String>,
}

/// Who a region says that it is, and which policies it says that it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The region.
    pub region: RegionId,
    /// The generation, the hash of its files, and since when; none before the first.
    pub policy: Option<(u64, TreeHash, UnixMillis)>,
    /// The names of its region keys and when each was made, the newest last; none where it has no keys.
    pub region_keys: Option<Vec<([u8; 8], UnixMillis)>>,
}

/// Everything that a region handed over. None of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Its own account.
    pub header: Header,
    /// The policy bundle.
    pub bundle: Option<SignedBundle>,
    /// The note of its checkpoint.
    pub checkpoint: Option<String>,
    /// Leaves, in order.
    pub leaves: Vec<Vec<u8>>,
    /// Lists of row images by the index of their leaf.
    pub images: BTreeMap<u64, Vec<u8>>,
    /// Rows: key and envelope.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// The data keys that it has, and the region key that wraps each.
    pub keys: Vec<DumpedKey>,
    /// Petitions, as stored.
    pub petitions: Vec<Vec<u8>>,
    /// Entries of the conflict log: key and envelope.
    pub losses: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A data key by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedKey {
    /// Its name.
    pub name: [u8; 16],
    /// The region key that wraps it.
    pub by: [u8; 8],
    /// Whose it is; zeros where that is not known.
    pub owner: [u8; 16],
    /// The erasures of the owner that its maker knew of.
    pub after: Vec<[u8; 16]>,
}

/// Writes frames.
pub(crate) struct FrameWriter {
    pub(crate) buffer: BytesMut,
    frames: u64,
}

impl FrameWriter {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(capacity), frames: 0 }
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.buffer.put_u8(kind);
        self.buffer.put_u32(u32::try_from(length).expect("no stored value has 4 GiB"));
        parts.iter().for_each(|part| self.buffer.put_slice(part));
        self.frames += 1;
    }

    pub(crate) fn begin(
        &mut self,
        region: &RegionId,
        policy: Option<&PolicyInForce>,
        region_keys: Option<Vec<([u8; 8], UnixMillis)>>,
    ) {
        let in_force = policy.map(|policy| (policy.generation, policy.tree, policy.since));
        let header = Header { region: region.clone(), policy: in_force, region_keys };
        let header = serde_json::to_vec(&header).expect("plain data always becomes JSON");
        self.frame(b'h', &[&header]);
        if let Some(policy) = policy {
            self.frame(b'b', &[&codec::encode(&policy.bundle)]);
        }
    }

    pub(crate) fn part(&mut self, part: EvidencePart<'_>) {
        match part {
            EvidencePart::Checkpoint(note) => self.frame(b'c', &[note]),
            EvidencePart::Leaf(index, bytes) => self.frame(b'l', &[&index.to_be_bytes(), bytes]),
            EvidencePart::Key(id, by, facts) => {
                let owner = facts.map(|facts| facts.owner.0).unwrap_or_default();
                let after: Vec<u8> = facts.iter().flat_map(|facts| &facts.after).flat_map(|order| order.0).collect();
                self.frame(b'k', &[id, by, &owner, &after]);
            }
            EvidencePart::Petition(bytes) => self.frame(b'o', &[bytes]),
            EvidencePart::Images(index, bytes) => self.frame(b'i', &[&index.to_be_bytes(), bytes]),
            EvidencePart::Row(key, envelope) => self.pair(b'r', key, envelope),
            EvidencePart::Loss(key, envelope) => self.pair(b'x', key, envelope),
        }
    }

    fn pair(&mut self, kind: u8, key: &[u8], envelope: &[u8]) {
        let length = u32::try_from(key.len()).expect("keys are short");
        self.frame(kind, &[&length.to_be_bytes(), key, envelope]);
    }

    pub(crate) fn end(&mut self) {
        let frames = self.frames;
        self.frame(b'e', &[&frames.to_be_bytes()]);
    }
}

/// Reads what `GET /evidence` gave.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(bytes: &[u8]) -> Result<Dump, String> {
    let (mut rest, mut frames) = (bytes, 0_u64);
    let mut dump: Option<Dump> = None;
    loop {
        let broken = || format!("the evidence breaks off after {frames} parts");
        let (&kind, after) = rest.split_first().ok_or_else(broken)?;
        let (length, after) = after.split_first_chunk().ok_or_else(broken)?;
        let (content, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(broken)?;
        rest = after;
        match (kind, &mut dump) {
            (b'h', None) => {
                let header = serde_json::from_slice(content).map_err(|error| format!("its header: {error}"))?;
                let (leaves, images, rows, keys, petitions, losses) = Default::default();
                let (bundle, checkpoint) = (None, None);
                dump = Some(Dump { header, bundle, checkpoint, leaves, images, rows, keys, petitions, losses });
            }
            (b'e', Some(_)) => {
                let whole = content == frames.to_be_bytes() && rest.is_empty();
                return dump
                    .filter(|_| whole)
                    .ok_or_else(|| "the evidence does not have the parts that it should".into());
            }
            (_, Some(dump)) => dump.take(kind, content)?,
            (_, None) => return Err("the evidence does not begin with its header".into()),
        }
        frames += 1;
    }
}

impl Dump {
    fn take(&mut self, kind: u8, content: &[u8]) -> Result<(), String> {
        let short = "a part of the evidence is too short";
        let indexed = || content.split_first_chunk().map(|(index, bytes)| (u64::from_be_bytes(*index), bytes));
        match kind {
            b'b' => self.bundle = Some(codec::decode(content).map_err(|error| error.to_string())?),
            b'c' => {
                let note = std::str::from_utf8(content).map_err(|_| "its checkpoint is no text")?;
                self.checkpoint = Some(note.to_owned());
            }
            // A leaf that is missing in between shows in those after it, which say where they belong.
            b'l' => self.leaves.push(indexed().ok_or(short)?.1.to_vec()),
            b'i' => {
                let (index, bytes) = indexed().ok_or(short)?;
                self.images.insert(index, bytes.to_vec());
            }
            b'k' => {
                let (name, rest) = content.split_first_chunk().ok_or(short)?;
                let (by, rest) = rest.split_first_chunk().ok_or(short)?;
                let (owner, rest) = rest.split_first_chunk().ok_or(short)?;
                let after = rest.chunks(16).map(TryInto::try_into).collect::<Result<_, _>>().map_err(|_| short)?;
                self.keys.push(DumpedKey { name: *name, by: *by, owner: *owner, after });
            }
            b'o' => self.petitions.push(content.to_vec()),
            b'r' | b'x' => {
                let (length, bytes) = content.split_first_chunk().ok_or(short)?;
                let (key, envelope) = bytes.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(short)?;
                let pairs = if kind == b'r' { &mut self.rows } else { &mut self.losses };
                pairs.push((key.to_vec(), envelope.to_vec()));
            }
            other => return Err(format!("the evidence has a part of kind {other:#04x}, which is not known")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_that_breaks_off_anywhere_counts_for_nothing() {
        let mut writer = FrameWriter::new(0);
        writer.begin(&RegionId::new("eu-west").unwrap(), None, None);
        writer.part(EvidencePart::Checkpoint(b"note"));
        writer.part(EvidencePart::Leaf(0, b"leaf"));
        writer.part(EvidencePart::Images(0, b"images"));
        writer.part(EvidencePart::Row(b"notes\0a", b"envelope"));
        writer.part(EvidencePart::Loss(b"enotes\0a\xff1", b"entry"));
        writer.end();
        let bytes = writer.buffer.freeze();
        let dump = read(&bytes).unwrap();
        assert_eq!(dump.rows, [(b"notes\0a".to_vec(), b"envelope".to_vec())]);
        assert_eq!(dump.losses, [(b"enotes\0a\xff1".to_vec(), b"entry".to_vec())]);
        assert_eq!((dump.leaves.len(), dump.images.len()), (1, 1));
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end} of {} bytes were taken for all", bytes.len());
        }
        assert!(read(&[&bytes[..], b"x"].concat()).is_err());
    }
}
