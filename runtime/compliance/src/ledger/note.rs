//! Signed notes: text with Ed25519 signatures below it.
//!
//! The format is C2SP signed-note (<https://c2sp.org/signed-note>), so that
//! `sumdb/note`, sigsum and the public witnesses read it too:
//!
//! ```text
//! text, ending in a newline
//! (an empty line)
//! — <key name> base64(4 bytes of key id || signature)
//! key id = first 4 bytes of SHA-256(name || 0A || kind || public key)
//! ```
//!
//! No private key comes here: what signs is behind [`Signer`].

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle;

/// Notes longer than this are refused. A checkpoint with 16 Ed25519 signatures has under 4 KiB.
pub const NOTE_LIMIT: usize = 64 * 1024;
/// Notes with more signatures than this are refused; the specification asks for at least 16.
pub const SIGNATURE_LIMIT: usize = 64;

/// What a key's signatures mean, and their type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// 0x01: Ed25519 over the text. A log signs its checkpoints so.
    Log,
    /// 0x04: a timestamped cosignature (<https://c2sp.org/tlog-cosignature>). A witness signs so.
    Witness,
}

impl KeyKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }
}

/// Signs with one Ed25519 key. The implementor keeps the key; a log and its region's witness use different ones.
pub trait Signer {
    /// The key's name, as in its [`VerifierKey`].
    fn name(&self) -> &str;
    /// The public key, by RFC 8032.
    fn public_key(&self) -> [u8; 32];
    /// Ed25519 (RFC 8032) over `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A public key with its name and kind. Its text form is the `vkey` of the specification.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public: [u8; 32],
}

/// Why a note or key was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not laid out as a note.
    #[error("this is no signed note: {0}")]
    Layout(&'static str),
    /// It is not laid out as a verifier key.
    #[error("this is no verifier key: {0}")]
    Key(&'static str),
    /// No signature of the key that is needed.
    #[error("the note is not signed by {name}")]
    Unsigned {
        /// The key's name.
        name: String,
    },
    /// A signature that names a known key and is not its.
    #[error("a signature in the name of {name} does not verify: the note was changed or forged")]
    Forged {
        /// The key's name.
        name: String,
    },
}

impl VerifierKey {
    /// A key of this name.
    ///
    /// # Errors
    /// A name that is empty or has spaces, control characters or `+`.
    pub fn new(name: impl Into<String>, kind: KeyKind, public: [u8; 32]) -> Result<Self, NoteError> {
        let name = name.into();
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.chars().any(bad) {
            return Err(NoteError::Key("the name must not be empty nor have spaces or +"));
        }
        Ok(Self { name, kind, public })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its signatures mean.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The 32 bytes of the key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// Tells keys of one name apart; no proof of anything.
    pub fn id(&self) -> [u8; 4] {
        let whole = merkle::content_hash(&[self.name.as_bytes(), &[b'\n', self.kind.byte()], &self.public].concat());
        *whole.0.first_chunk().expect("a hash has 32 bytes")
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[self.kind.byte()], self.public.as_slice()].concat();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), STANDARD.encode(bytes))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("it has fewer than three parts"));
        };
        let bytes = STANDARD.decode(key).map_err(|_| NoteError::Key("its last part is not base64"))?;
        let (&kind, public) = bytes.split_first().ok_or(NoteError::Key("its last part is empty"))?;
        let kind = match kind {
            0x01 => KeyKind::Log,
            0x04 => KeyKind::Witness,
            _ => return Err(NoteError::Key("it is of another kind than Ed25519")),
        };
        let public = public.try_into().map_err(|_| NoteError::Key("an Ed25519 key has 32 bytes"))?;
        let parsed = Self::new(name, kind, public)?;
        if format!("{:08x}", u32::from_be_bytes(parsed.id())) != id {
            return Err(NoteError::Key("its id does not match"));
        }
        Ok(parsed)
    }
}

/// A note that was taken apart and not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SignatureLine {
    name: String,
    id: [u8; 4],
    signature: Vec<u8>,
}

/// The line of a signature, with its newline.
pub(super) fn signature_line(name: &str, id: [u8; 4], signature: &[u8]) -> String {
    format!("\u{2014} {name} {}\n", STANDARD.encode([id.as_slice(), signature].concat()))
}

impl Note {
    /// Takes a note apart.
    ///
    /// # Errors
    /// [`NoteError::Layout`].
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_LIMIT {
            return Err(NoteError::Layout("it is too long"));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::Layout("it has control characters"));
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Layout("no empty line stands before the signatures"))?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Layout("it does not end with a signature line"))?;
        let signatures = lines.split('\n').map(Self::signature).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURE_LIMIT {
            return Err(NoteError::Layout("it has too many signatures"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    fn signature(line: &str) -> Result<SignatureLine, NoteError> {
        let rest = line.strip_prefix("\u{2014} ").ok_or(NoteError::Layout("a signature line has no em dash"))?;
        let (name, bytes) = rest.split_once(' ').ok_or(NoteError::Layout("a signature line has no signature"))?;
        let bytes = STANDARD.decode(bytes).map_err(|_| NoteError::Layout("a signature is not base64"))?;
        let (id, signature) = bytes.split_first_chunk().ok_or(NoteError::Layout("a signature is too short"))?;
        if name.is_empty() || signature.is_empty() {
            return Err(NoteError::Layout("a signature line is not whole"));
        }
        Ok(SignatureLine { name: name.to_owned(), id: *id, signature: signature.to_vec() })
    }

    /// The text, to be believed only after [`Note::verify`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first signature that names `key`. Lines of unknown keys are ignored, as the specification says.
    pub(super) fn signature_of(&self, key: &VerifierKey) -> Option<&[u8]> {
        let (name, id) = (key.name(), key.id());
        let line = self.signatures.iter().find(|line| line.name == name && line.id == id)?;
        Some(&line.signature)
    }

    /// Whether the text is signed with `key`, a key of kind [`KeyKind::Log`].
    ///
    /// # Errors
    /// [`NoteError::Unsigned`], [`NoteError::Forged`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let name = || key.name().to_owned();
        let signature = self.signature_of(key).ok_or_else(|| NoteError::Unsigned { name: name() })?;
        if key.kind() == KeyKind::Log && key.verifies(self.text.as_bytes(), signature) {
            Ok(())
        } else {
            Err(NoteError::Forged { name: name() })
        }
    }
}

/// Signs `text`, which ends in a newline, as a log signs.
///
/// # Errors
/// A name that no key may have.
pub fn sign(text: &str, signer: &dyn Signer) -> Result<String, NoteError> {
    if !text.ends_with('\n') || text.chars().any(|c| c < ' ' && c != '\n') {
        return Err(NoteError::Layout("the text must end in a newline and have no control characters"));
    }
    let key = VerifierKey::new(signer.name(), KeyKind::Log, signer.public_key())?;
    let line = signature_line(key.name(), key.id(), &signer.sign(text.as_bytes()));
    Ok(format!("{text}\n{line}"))
}
