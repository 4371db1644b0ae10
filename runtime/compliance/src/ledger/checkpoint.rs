//! Checkpoints: one short signed text that fixes every leaf before it.
//!
//! The format is C2SP tlog-checkpoint (<https://c2sp.org/tlog-checkpoint>):
//!
//! ```text
//! repomind/eu-west                                   the origin: whose ledger
//! 42                                                 its size
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=       its root
//!
//! — repomind/eu-west Az3grl…                         the region's signature
//! — repomind/us-east/witness jWbPPw…                 cosignatures of other regions
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::RegionId;

use super::merkle::Digest;
use super::note::{self, Note, NoteError, Signer, VerifierKey};

/// The origin line of a region's ledger, and the name of the key that signs it.
pub fn origin(region: &RegionId) -> String {
    format!("repomind/{region}")
}

/// The name of the key with which a region cosigns the ledgers of others.
pub fn witness_name(region: &RegionId) -> String {
    format!("repomind/{region}/witness")
}

/// The head of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose ledger: [`origin`].
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

/// Why a checkpoint was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not a checkpoint.
    #[error("this is no checkpoint: {0}")]
    Layout(&'static str),
    /// It speaks of another ledger than its key.
    #[error("the checkpoint is of {found}, but {expected} was asked for")]
    Origin {
        /// The origin found.
        found: String,
        /// The key's.
        expected: String,
    },
}

impl Checkpoint {
    /// The three lines that are signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))
    }

    /// Reads the lines. Extension lines, which no region writes, are passed over.
    ///
    /// # Errors
    /// [`CheckpointError::Layout`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Layout("it does not end in a newline"))?;
        let lines: Vec<&str> = body.split('\n').collect();
        let [origin, size, root, ..] = lines.as_slice() else {
            return Err(CheckpointError::Layout("it has fewer than three lines"));
        };
        if lines.iter().any(|line| line.is_empty()) {
            return Err(CheckpointError::Layout("it has an empty line"));
        }
        let number: u64 = size.parse().map_err(|_| CheckpointError::Layout("its size is no number"))?;
        if number.to_string() != *size {
            return Err(CheckpointError::Layout("its size has a sign or leading zeroes"));
        }
        let root = STANDARD.decode(root).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let root = Digest(root.ok_or(CheckpointError::Layout("its root is not 32 bytes in base64"))?);
        Ok(Self { origin: (*origin).to_owned(), size: number, root })
    }

    /// The signed note.
    ///
    /// # Errors
    /// The signer has another name than the origin, or one that no key may have.
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, CheckpointError> {
        if signer.name() != self.origin {
            return Err(CheckpointError::Origin { found: self.origin.clone(), expected: signer.name().to_owned() });
        }
        Ok(note::sign(&self.text(), signer)?)
    }

    /// The checkpoint in a note that `key`, the key of its origin, has signed.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(note: &str, key: &VerifierKey) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let checkpoint = Self::parse(note.text())?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin { found: checkpoint.origin, expected: key.name().to_owned() });
        }
        Ok((checkpoint, note))
    }
}
