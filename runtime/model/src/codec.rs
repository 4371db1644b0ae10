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

use crate::record::{Entry, Row, ScopeRegions, Shipment};
use crate::version::PositionVector;

/// What an envelope holds.
pub trait Format: Serialize + DeserializeOwned {
    /// The first byte.
    const KIND: u8;
    /// The version written today.
    const VERSION: u8;
    /// What to call it in an error.
    const NAME: &'static str;
}

macro_rules! envelopes {
    ($($type:ty, $kind:literal, $version:literal, $name:literal;)+) => {
        $(impl Format for $type {
            const KIND: u8 = $kind;
            const VERSION: u8 = $version;
            const NAME: &'static str = $name;
        })+

        /// Every kind that is declared here. Other rooms have kinds of their own: the ledger from 0x10, control from 0x30.
        pub const KINDS: &[u8] = &[$($kind,)+];
    };
}

envelopes! {
    Row, 0x01, 1, "row";
    Entry, 0x02, 1, "log entry";
    Vec<Shipment>, 0x03, 1, "batch";
    crate::bundle::SignedBundle, 0x04, 1, "policy bundle";
    ScopeRegions, 0x05, 1, "scope";
    PositionVector, 0x06, 1, "position vector";
    crate::snapshot::SnapshotPart, 0x07, 1, "part of a snapshot";
    std::collections::BTreeSet<(crate::RegionId, crate::version::Incarnation)>, 0x08, 1, "list of logs";
    crate::snapshot::Moved, 0x09, 1, "note of what has moved";
    crate::eviction::Homecoming, 0x0a, 1, "homecoming of records";
    crate::eviction::ImpactQuestion, 0x0b, 1, "question about stored records";
    crate::conflict::Loss, 0x0c, 1, "entry of the conflict log";
    crate::wound::Wound, 0x0d, 1, "wound";
    crate::snapshot::Statement, 0x0e, 1, "statement about keys";
    crate::backup::BackupList, 0x0f, 1, "list of a backup";
    crate::sealing::KeyFacts, 0x20, 1, "note of a data key";
    crate::sealing::KeyParcel, 0x21, 1, "parcel of data keys";
    crate::petition::Petition, 0x22, 1, "petition";
    Vec<crate::petition::Petition>, 0x23, 1, "list of petitions";
}

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
    let mut bytes =
        postcard::to_extend(value, vec![T::KIND, T::VERSION]).expect("plain data always encodes into memory");
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The bytes of plain data that goes into an envelope of something else.
///
/// # Errors
/// Where the value's own serialisation fails.
pub fn plain(value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    postcard::to_stdvec(value).map_err(|error| CodecError::Body { what: "value", reason: error.to_string() })
}

/// Reads what [`plain`] wrote.
///
/// # Errors
/// Where the bytes hold something else.
pub fn from_plain<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    postcard::from_bytes(bytes).map_err(|error| CodecError::Body { what: "value", reason: error.to_string() })
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
    let (value, rest) =
        postcard::take_from_bytes(&whole[2..]).map_err(|error| CodecError::Body { what, reason: error.to_string() })?;
    if !rest.is_empty() {
        let reason = format!("{} bytes are left over", rest.len());
        return Err(CodecError::Body { what, reason });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Content, Labels, Record, Sibling};
    use crate::{Hlc, NodeId, RegionId, UnixMillis};

    fn row() -> Row {
        let region = RegionId::new("eu-west").unwrap();
        let actor = crate::version::Actor { region, node: NodeId(0), incarnation: crate::version::Incarnation(2) };
        let mut context = crate::version::CausalContext::new();
        context.observe(&crate::version::Dot { actor: actor.clone(), counter: 6 });
        let version = crate::version::Version {
            dot: crate::version::Dot { actor, counter: 7 },
            hlc: Hlc::new(UnixMillis(1_767_225_600_000), 3),
            context,
        };
        let mut labels = Labels::of_class(crate::record::DataClass::Personal, UnixMillis(1_767_225_600_000));
        labels.jurisdictions.insert(crate::Country::new("DE").unwrap());
        let record = Record {
            payload: crate::record::Payload::Plain(bytes::Bytes::from_static(b"a value")),
            content_type: "text/plain".into(),
            labels,
            generation: 4,
        };
        let regions = std::collections::BTreeSet::from([RegionId::new("eu-west").unwrap()]);
        let scope = crate::residency::ScopeId::of(&regions, &std::collections::BTreeSet::new());
        Row { siblings: vec![Sibling { version, scope, content: Content::Live(record) }] }
    }

    /// `row()` as format 1 wrote it, in hexadecimal. Never regenerate: stored rows look like this.
    const ROW_V1: &str = include_str!("../tests/formats/row-v1.hex");

    fn from_hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn a_row_written_by_format_1_is_read_and_written_alike() {
        let bytes: String = encode(&row()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(decode::<Row>(&from_hex(ROW_V1)), Ok(row()), "today's bytes would be {bytes}");
        assert_eq!(encode(&row()), from_hex(ROW_V1));
    }

    #[test]
    fn no_flipped_bit_is_taken_for_data() {
        let good = encode(&row());
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(decode::<Row>(&bad).is_err(), "bit {at} was flipped unnoticed");
        }
        assert!(decode::<Row>(&good[..good.len() - 1]).is_err());
        assert!(matches!(decode::<Row>(&[]), Err(CodecError::TooShort { .. })));
    }
}
