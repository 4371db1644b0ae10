//! The envelope around everything that reaches a disk or a wire.
//!
//! ```text
//! byte 0      kind (what is inside)
//! byte 1      format version of that kind, from 1
//! bytes 2..n  postcard (https://postcard.jamesmunns.com/wire-format)
//! last 4      CRC-32 (ISO-HDLC) of all bytes before, little-endian
//! ```
//!
//! A reader refuses a kind it did not ask for, a version it does not know, a
//! checksum that does not match, and bytes left over. Files written by version
//! 1 are kept in `tests/formats` and must be read for ever.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::{Entry, Row, Shipment};

/// What an envelope holds.
pub trait Format: Serialize + DeserializeOwned {
    /// The first byte.
    const KIND: u8;
    /// The version written today.
    const VERSION: u8;
    /// What to call it in an error.
    const NAME: &'static str;
}

macro_rules! format {
    ($type:ty, $kind:literal, $version:literal, $name:literal) => {
        impl Format for $type {
            const KIND: u8 = $kind;
            const VERSION: u8 = $version;
            const NAME: &'static str = $name;
        }
    };
}

format!(Row, 0x01, 1, "row");
format!(Entry, 0x02, 1, "log entry");
format!(Vec<Shipment>, 0x03, 1, "batch");
format!(crate::bundle::SignedBundle, 0x04, 1, "policy bundle");

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes than an envelope has.
    #[error("a {what} has at least 6 bytes; {found} were found")]
    TooShort {
        /// What was expected.
        what: &'static str,
        /// How many bytes there were.
        found: usize,
    },
    /// Another kind.
    #[error("expected a {what} (kind {expected:#04x}), found kind {found:#04x}")]
    Kind {
        /// What was expected.
        what: &'static str,
        /// Its kind.
        expected: u8,
        /// The kind found.
        found: u8,
    },
    /// A version from the future.
    #[error("this {what} has format {found}; this runtime reads formats up to {newest}")]
    Version {
        /// What was expected.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The newest version known.
        newest: u8,
    },
    /// Damaged bytes.
    #[error("the checksum of this {what} does not match: the bytes are damaged")]
    Checksum {
        /// What was expected.
        what: &'static str,
    },
    /// Bytes that are whole but do not hold what they should.
    #[error("this {what} cannot be decoded: {reason}")]
    Body {
        /// What was expected.
        what: &'static str,
        /// The decoder's words.
        reason: String,
    },
}

/// Wraps `value` in its envelope.
pub fn encode<T: Format>(value: &T) -> Vec<u8> {
    let mut bytes = postcard::to_extend(value, vec![T::KIND, T::VERSION])
        .expect("plain data always encodes into memory");
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Opens an envelope. See [`CodecError`] for what is refused.
pub fn decode<T: Format>(bytes: &[u8]) -> Result<T, CodecError> {
    let what = T::NAME;
    if bytes.len() < 6 {
        return Err(CodecError::TooShort { what, found: bytes.len() });
    }
    if bytes[0] != T::KIND {
        return Err(CodecError::Kind { what, expected: T::KIND, found: bytes[0] });
    }
    let (whole, checksum) = bytes.split_at(bytes.len() - 4);
    if crc32fast::hash(whole).to_le_bytes() != checksum {
        return Err(CodecError::Checksum { what });
    }
    if bytes[1] == 0 || bytes[1] > T::VERSION {
        return Err(CodecError::Version { what, found: bytes[1], newest: T::VERSION });
    }
    let (value, rest) = postcard::take_from_bytes(&whole[2..])
        .map_err(|error| CodecError::Body { what, reason: error.to_string() })?;
    if !rest.is_empty() {
        let reason = std::format!("{} bytes are left over", rest.len());
        return Err(CodecError::Body { what, reason });
    }
    Ok(value)
}
