//! A region as witness of the ledgers of others.
//!
//! A witness keeps, of each ledger, the size and root that it cosigned last. It
//! signs a new checkpoint only with a proof that this continues that one, and
//! never a smaller one after a larger. Two histories of one ledger can then not
//! both be cosigned by an honest witness.
//!
//! Requests are the body of `add-checkpoint` in C2SP tlog-witness
//! (<https://c2sp.org/tlog-witness>), cosignatures are C2SP tlog-cosignature v1
//! (<https://c2sp.org/tlog-cosignature>): Ed25519 over
//! `cosignature/v1\ntime <seconds>\n<checkpoint text>`, the time before the signature
//! as 8 bytes, big-endian.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::UnixMillis;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::merkle::{self, Digest};
use super::note::{self, KeyKind, Note, NoteError, Signer, VerifierKey};

/// A consistency proof has at most this many hashes (C2SP tlog-witness).
pub const PROOF_LIMIT: usize = 63;

/// What a log sends to its witnesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignRequest {
    /// The size from which the proof leads: the last one that this witness has cosigned, or 0.
    pub old_size: u64,
    /// [`merkle::consistency_proof`] from there to the checkpoint's size.
    pub proof: Vec<Digest>,
    /// The signed checkpoint.
    pub note: String,
}

/// Why a witness does not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// The request or the checkpoint in it is no such thing, or not signed by its log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A ledger that this witness does not know.
    #[error("no key is known for the ledger {origin}")]
    UnknownLedger {
        /// The ledger.
        origin: String,
    },
    /// The proof leads from another size than the one cosigned last. Ask again, from `ours`.
    #[error("{origin} was last cosigned at size {ours}, the proof leads from {offered}; send one from {ours}")]
    OldSize {
        /// The ledger.
        origin: String,
        /// The size cosigned last.
        ours: u64,
        /// The size that the proof leads from.
        offered: u64,
    },
    /// Leaves were taken back.
    #[error("{origin} has shrunk: {offered} leaves are offered, {seen} were cosigned; leaves were taken back")]
    Shrunk {
        /// The ledger.
        origin: String,
        /// The size cosigned last.
        seen: u64,
        /// The size offered.
        offered: u64,
    },
    /// A history that does not continue the one cosigned.
    #[error("{origin} has forked: its history of {offered} leaves does not continue the {seen} that were cosigned")]
    Forked {
        /// The ledger.
        origin: String,
        /// The size cosigned last.
        seen: u64,
        /// The size offered.
        offered: u64,
    },
}

/// What a witness gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The head now cosigned. It must be durable before the line is sent.
    pub checkpoint: Checkpoint,
    /// The signature line, to be put at the end of the note.
    pub line: String,
}

impl CosignRequest {
    /// The body that travels.
    pub fn to_text(&self) -> String {
        let proof: String = self.proof.iter().map(|step| STANDARD.encode(step.0) + "\n").collect();
        format!("old {}\n{proof}\n{}", self.old_size, self.note)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`CheckpointError::Layout`].
    pub fn parse(body: &str) -> Result<Self, CheckpointError> {
        let (head, note) = body.split_once("\n\n").ok_or(CheckpointError::Layout("the request has no checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old_size = old.and_then(|size| size.parse::<u64>().ok().filter(|number| number.to_string() == size));
        let old_size = old_size.ok_or(CheckpointError::Layout("the request does not say the old size"))?;
        let step = |line| STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok()).map(Digest);
        let proof: Option<Vec<Digest>> = lines.take(PROOF_LIMIT + 1).map(step).collect();
        let proof = proof.filter(|proof| proof.len() <= PROOF_LIMIT);
        let proof = proof.ok_or(CheckpointError::Layout("the request has no readable proof"))?;
        Ok(Self { old_size, proof, note: note.to_owned() })
    }
}

/// What one region knows of the ledgers of others.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    keys: BTreeMap<String, VerifierKey>,
    seen: BTreeMap<String, Checkpoint>,
}

impl Witness {
    /// A witness of the ledgers with these keys (of kind [`KeyKind::Log`]), that has cosigned `seen` so far.
    pub fn new(keys: impl IntoIterator<Item = VerifierKey>, seen: impl IntoIterator<Item = Checkpoint>) -> Self {
        Self {
            keys: keys.into_iter().map(|key| (key.name().to_owned(), key)).collect(),
            seen: seen.into_iter().map(|checkpoint| (checkpoint.origin.clone(), checkpoint)).collect(),
        }
    }

    /// The head of a ledger that was cosigned last.
    pub fn seen(&self, origin: &str) -> Option<&Checkpoint> {
        self.seen.get(origin)
    }

    /// Cosigns a checkpoint that continues what was seen, and remembers it. `signer` is the witness key, not the key
    /// of the region's own ledger.
    ///
    /// # Errors
    /// [`WitnessError`]; nothing is remembered then. On [`WitnessError::Forked`] keep the note: it is signed with the
    /// ledger's own key, and beside the one cosigned before it shows the fork to anyone who has the leaves.
    /// [`WitnessError::Shrunk`] may also be an honest request that was overtaken by a later one.
    pub fn cosign(
        &mut self,
        request: &CosignRequest,
        signer: &dyn Signer,
        now: UnixMillis,
    ) -> Result<Cosigned, WitnessError> {
        let note = Note::parse(&request.note).map_err(CheckpointError::from)?;
        let origin = note.text().split('\n').next().unwrap_or_default().to_owned();
        let key = self.keys.get(&origin).ok_or(WitnessError::UnknownLedger { origin })?;
        let (checkpoint, note) = Checkpoint::open(&request.note, key)?;
        self.continues(&checkpoint, request)?;
        let line = cosignature_line(note.text(), signer, now).map_err(CheckpointError::from)?;
        self.seen.insert(checkpoint.origin.clone(), checkpoint.clone());
        Ok(Cosigned { checkpoint, line })
    }

    fn continues(&self, offered: &Checkpoint, request: &CosignRequest) -> Result<(), WitnessError> {
        let empty = Checkpoint { origin: offered.origin.clone(), size: 0, root: merkle::root_of([]) };
        let seen = self.seen.get(&offered.origin).unwrap_or(&empty);
        let origin = offered.origin.clone();
        if offered.size < seen.size {
            return Err(WitnessError::Shrunk { origin, seen: seen.size, offered: offered.size });
        }
        if offered.size == seen.size && offered.root != seen.root {
            return Err(WitnessError::Forked { origin, seen: seen.size, offered: offered.size });
        }
        if request.old_size != seen.size {
            return Err(WitnessError::OldSize { origin, ours: seen.size, offered: request.old_size });
        }
        if !merkle::verify_consistency(seen.size, seen.root, offered.size, offered.root, &request.proof) {
            return Err(WitnessError::Forked { origin, seen: seen.size, offered: offered.size });
        }
        Ok(())
    }
}

fn cosigned_message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// The signature line of a cosignature over a checkpoint's text.
fn cosignature_line(text: &str, signer: &dyn Signer, now: UnixMillis) -> Result<String, NoteError> {
    let key = VerifierKey::new(signer.name(), KeyKind::Witness, signer.public_key())?;
    let seconds = now.0 / 1000;
    let signature = signer.sign(cosigned_message(text, seconds).as_bytes());
    let stamped = [seconds.to_be_bytes().as_slice(), &signature].concat();
    Ok(note::signature_line(key.name(), key.id(), &stamped))
}

/// When `key`, of kind [`KeyKind::Witness`], cosigned the checkpoint in `note`.
///
/// # Errors
/// [`NoteError::Unsigned`], [`NoteError::Forged`].
pub fn verify_cosignature(note: &Note, key: &VerifierKey) -> Result<UnixMillis, NoteError> {
    let name = || key.name().to_owned();
    let stamped = note.signature_of(key).ok_or_else(|| NoteError::Unsigned { name: name() })?;
    let forged = || NoteError::Forged { name: name() };
    let (seconds, signature) = stamped.split_first_chunk().ok_or_else(forged)?;
    let seconds = u64::from_be_bytes(*seconds);
    let verifies =
        key.kind() == KeyKind::Witness && key.verifies(cosigned_message(note.text(), seconds).as_bytes(), signature);
    if verifies { Ok(UnixMillis(seconds.saturating_mul(1000))) } else { Err(forged()) }
}
