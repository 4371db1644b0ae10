//! A second reader of ledger leaves, of the image lists beside them, and of
//! checkpoints, from their descriptions in [`crate::ledger`].

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::raw::{Read, Reader, opened};
use super::tree::{Hash, sha256};

/// What the audit needs of a leaf's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A group commit of so many images with this root.
    Committed { entries: u64, root: Hash },
    /// Anything else that is known.
    Other,
}

/// What the audit needs of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf<'b> {
    pub(super) region: &'b str,
    pub(super) sequence: u64,
    /// Milliseconds, by the region's clock.
    pub(super) at: u64,
    pub(super) event: Event,
}

/// Reads a stored leaf.
pub(super) fn leaf(envelope: &[u8]) -> Read<Leaf<'_>> {
    let mut reader = Reader(opened(envelope, [0x10, 1], "ledger leaf")?);
    let (region, sequence, at) = (reader.text()?, reader.integer()?, reader.integer()?);
    reader.integer()?;
    let event = match reader.integer()? {
        0 | 4 => reader.integer().map(|_| Event::Other)?,
        1 => Event::Committed { entries: reader.integer()?, root: reader.hash()? },
        2 | 6 => {
            reader.text()?;
            reader.integer().map(|_| Event::Other)?
        }
        3 => {
            reader.integer()?;
            reader.hash().map(|_| Event::Other)?
        }
        5 => {
            reader.order()?;
            reader.text()?;
            reader.integer().map(|_| Event::Other)?
        }
        7 => {
            reader.integer()?;
            reader.hash().map(|_| Event::Other)?
        }
        other => return Err(format!("event {other} is not known")),
    };
    reader.end()?;
    Ok(Leaf { region, sequence, at, event })
}

/// Reads a list of row images: pairs of record and content.
pub(super) fn images(envelope: &[u8]) -> Read<Vec<(Hash, Hash)>> {
    let mut reader = Reader(opened(envelope, [0x11, 1], "list of row images")?);
    let images = reader.list(|reader| Ok((reader.hash()?, reader.hash()?)))?;
    reader.end()?;
    Ok(images)
}

/// A checkpoint, taken apart and not yet believed.
#[derive(Debug)]
pub(super) struct Checkpoint<'n> {
    text: &'n str,
    lines: Vec<(&'n str, Vec<u8>)>,
    pub(super) size: u64,
    pub(super) root: Hash,
}

/// What became of one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    Good,
    Absent,
    Bad,
}

/// Reads a checkpoint note of the ledger named `origin`.
pub(super) fn checkpoint<'n>(note: &'n str, origin: &str) -> Read<Checkpoint<'n>> {
    let end = note.rfind("\n\n").ok_or("the checkpoint has no signatures")?;
    let text = &note[..=end];
    let mut lines = Vec::new();
    for line in note[end + 2..].lines() {
        let (name, blob) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or("a signature line of the checkpoint cannot be read")?;
        lines.push((name, STANDARD.decode(blob).map_err(|_| "a signature of the checkpoint is not base64")?));
    }
    let mut body = text.lines();
    if body.next() != Some(origin) {
        return Err(format!("the checkpoint is not one of {origin}"));
    }
    let size = body.next().and_then(|size| size.parse().ok()).ok_or("the checkpoint has no size")?;
    let root = body.next().and_then(|root| STANDARD.decode(root).ok()).and_then(|root| root.try_into().ok());
    Ok(Checkpoint { text, lines, size, root: root.ok_or("the checkpoint has no root")? })
}

impl Checkpoint<'_> {
    fn blob(&self, name: &str, kind: u8, public: &Hash) -> Option<&[u8]> {
        let id = sha256(&[name.as_bytes(), b"\n", &[kind], public].concat());
        self.lines.iter().filter(|(other, _)| *other == name).find_map(|(_, blob)| blob.strip_prefix(&id[..4]))
    }

    fn judge(signature: Option<&[u8]>, public: &Hash, message: &[u8]) -> Signature {
        let verify = |signature| UnparsedPublicKey::new(&ED25519, public).verify(message, signature);
        match signature.map(verify) {
            Some(Ok(())) => Signature::Good,
            Some(Err(_)) => Signature::Bad,
            None => Signature::Absent,
        }
    }

    /// The signature of the ledger's own region, over the text.
    pub(super) fn signed(&self, name: &str, public: &Hash) -> Signature {
        Self::judge(self.blob(name, 1, public), public, self.text.as_bytes())
    }

    /// The cosignature of another region, over its time and the text.
    pub(super) fn cosigned(&self, name: &str, public: &Hash) -> Signature {
        let Some(blob) = self.blob(name, 4, public) else { return Signature::Absent };
        let Some((seconds, signature)) = blob.split_first_chunk() else { return Signature::Bad };
        let message = format!("cosignature/v1\ntime {}\n{}", u64::from_be_bytes(*seconds), self.text);
        Self::judge(Some(signature), public, message.as_bytes())
    }
}
