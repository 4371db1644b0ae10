//! A second reader of stored rows, from the description of format 1:
//!
//! ```text
//! 01 01 | body | CRC-32 (ISO-HDLC, little-endian) of everything before
//! body      = list of siblings
//! sibling   = dot, stamp, context, 16 bytes of scope, content
//! dot       = region text, node, incarnation, counter
//! context   = list of (region text, node, incarnation, counter)
//! content   = 0 record | 1 labels (a delete) | 2 and 16 bytes (moved away)
//! record    = payload, media type text, labels, generation
//! payload   = 0 bytes | 1 sealed | 2 length, [32 bytes of hash], sealed?  (an object: its chunks lie beside the rows)
//! sealed    = key text, 12 bytes, bytes
//! labels    = subject?, [country text], [class], purpose, basis, collected, retained until?, [hold text]
//! ```
//!
//! An entry of the conflict log has the key `e`, the stored key, 0xFF and a name, and holds:
//!
//! ```text
//! 0C 01 | namespace text, key text, sibling, kept (0 or 1), … | CRC-32
//! ```
//!
//! Integers are LEB128; lists and text carry their length before them; `?` is
//! 0, or 1 and the value; classes, purposes and bases are numbered as below.

const CLASSES: &[&str] = &[
    "public",
    "operational",
    "source-code",
    "credentials",
    "personal",
    "sensitive",
    "health",
    "financial",
    "biometric",
    "genomic",
    "geolocation",
    "children",
];
const BASES: &[&str] =
    &["unstated", "consent", "contract", "legal-obligation", "vital-interests", "public-task", "legitimate-interests"];
const PURPOSES: &[&str] = &["service", "security", "support", "analytics", "marketing"];

/// The labels of a sibling, as words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Country codes as stored.
    pub jurisdictions: Vec<String>,
    /// Class names.
    pub classes: Vec<&'static str>,
    /// The purpose.
    pub purpose: &'static str,
    /// The basis.
    pub basis: &'static str,
    /// The person that it is about.
    pub subject: Option<String>,
    /// When it was collected, in ms since 1970.
    pub collected_at: u64,
    /// When it must be gone, in ms since 1970.
    pub retain_until: Option<u64>,
    /// Legal holds, by name.
    pub holds: Vec<String>,
}

/// A value as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'b> {
    /// In plain text.
    Plain(&'b [u8]),
    /// Encrypted.
    Sealed(Sealed<'b>),
    /// None: a delete, or a record that moved away.
    Gone,
}

/// An encrypted value as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'b> {
    /// The name of the data key.
    pub key: &'b str,
    /// The nonce.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub ciphertext: &'b [u8],
    /// What follows it up to the end of the record, to which it is bound.
    pub rest: &'b [u8],
}

/// What the audit needs of a sibling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling<'b> {
    /// The region that it was written in.
    pub origin: &'b str,
    /// Its labels; none where the record moved away.
    pub labels: Option<Labels>,
    /// The generation that it was written under; deletes do not say.
    pub generation: Option<u64>,
    /// Its value.
    pub value: Value<'b>,
}

/// Reads a stored row.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub fn row(envelope: &[u8]) -> Read<Vec<Sibling<'_>>> {
    let mut reader = Reader(opened(envelope, [1, 1], "row")?);
    let siblings = reader.list(Reader::sibling)?;
    reader.end()?;
    Ok(siblings)
}

/// Reads an entry of the conflict log: the key of its record as stored, what lost, and whether its value is there.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub fn loss(envelope: &[u8]) -> Read<(Vec<u8>, Sibling<'_>, bool)> {
    let mut reader = Reader(opened(envelope, [0x0C, 1], "entry of the conflict log")?);
    let key = [reader.text()?.as_bytes(), b"\0", reader.text()?.as_bytes()].concat();
    let (sibling, kept) = (reader.sibling()?, reader.integer()? == 1);
    Ok((key, sibling, kept))
}

/// The body of an envelope of this kind and version, its checksum verified.
pub(super) fn opened<'b>(envelope: &'b [u8], head: [u8; 2], what: &str) -> Read<&'b [u8]> {
    let (whole, checksum) = envelope.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32(whole) != u32::from_le_bytes(*checksum) {
        return Err("its checksum does not match".into());
    }
    whole.strip_prefix(&head).ok_or_else(|| format!("it is no {what} of format {}", head[1]))
}

/// Bit by bit, with the reversed polynomial 0xEDB88320.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// What is left to be read.
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

/// A value, or what is wrong with the bytes.
pub(super) type Read<T> = Result<T, String>;

impl<'b> Reader<'b> {
    fn bytes(&mut self, count: usize) -> Read<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn hash(&mut self) -> Read<[u8; 32]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn eight(&mut self) -> Read<[u8; 8]> {
        self.bytes(8)?.try_into().map_err(|_| "it ends too early".into())
    }

    /// Bytes with their length before them.
    pub(super) fn blob(&mut self) -> Read<&'b [u8]> {
        let length = self.length()?;
        self.bytes(length)
    }

    pub(super) fn order(&mut self) -> Read<[u8; 16]> {
        self.bytes(16)?.try_into().map_err(|_| "it ends too early".into())
    }

    pub(super) fn end(&self) -> Read<()> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes are left over", self.0.len())) }
    }

    pub(super) fn integer(&mut self) -> Read<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("an integer has more than 64 bits".into())
    }

    fn length(&mut self) -> Read<usize> {
        usize::try_from(self.integer()?).map_err(|_| "a length is too large".into())
    }

    pub(super) fn text(&mut self) -> Read<&'b str> {
        let length = self.length()?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| "text is not UTF-8".into())
    }

    pub(super) fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        for _ in 0..self.length()? {
            items.push(one(self)?);
        }
        Ok(items)
    }

    fn maybe<T>(&mut self, one: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.integer()? {
            0 => Ok(None),
            1 => one(self).map(Some),
            other => Err(format!("an optional value is marked {other}")),
        }
    }

    fn word(&mut self, what: &str, words: &[&'static str]) -> Read<&'static str> {
        let number = self.length()?;
        words.get(number).copied().ok_or_else(|| format!("{what} {number} is not known"))
    }

    /// A dot; gives its region.
    fn dot(&mut self) -> Read<&'b str> {
        let region = self.text()?;
        (0..3).try_for_each(|_| self.integer().map(drop))?;
        Ok(region)
    }

    fn sibling(&mut self) -> Read<Sibling<'b>> {
        let origin = self.dot()?;
        self.integer()?;
        self.list(Self::dot)?;
        self.bytes(16)?;
        match self.integer()? {
            0 => {
                let mut value = self.payload()?;
                let after = self.0;
                self.text()?;
                let labels = self.labels()?;
                let generation = self.integer()?;
                if let Value::Sealed(sealed) = &mut value {
                    sealed.rest = &after[..after.len() - self.0.len()];
                }
                Ok(Sibling { origin, labels: Some(labels), generation: Some(generation), value })
            }
            1 => Ok(Sibling { origin, labels: Some(self.labels()?), generation: None, value: Value::Gone }),
            2 => self.bytes(16).map(|_| Sibling { origin, labels: None, generation: None, value: Value::Gone }),
            other => Err(format!("content {other} is not known")),
        }
    }

    fn payload(&mut self) -> Read<Value<'b>> {
        match self.integer()? {
            0 => Ok(Value::Plain(self.blob()?)),
            1 => Ok(Value::Sealed(self.sealed()?)),
            2 => {
                self.integer()?;
                self.list(Self::hash)?;
                // Of an object in plain text nothing lies here; that it is in plain text is what counts.
                Ok(self.maybe(Self::sealed)?.map_or(Value::Plain(&[]), Value::Sealed))
            }
            other => Err(format!("payload {other} is not known")),
        }
    }

    fn sealed(&mut self) -> Read<Sealed<'b>> {
        let (key, nonce) = (self.text()?, self.bytes(12)?.try_into().map_err(|_| "a nonce is too short")?);
        Ok(Sealed { key, nonce, ciphertext: self.blob()?, rest: &[] })
    }

    fn labels(&mut self) -> Read<Labels> {
        let subject = self.maybe(Self::text)?.map(str::to_owned);
        let jurisdictions = self.list(Self::text)?.into_iter().map(str::to_owned).collect();
        let classes = self.list(|reader| reader.word("class", CLASSES))?;
        let purpose = self.word("purpose", PURPOSES)?;
        let basis = self.word("basis", BASES)?;
        let collected_at = self.integer()?;
        let retain_until = self.maybe(Self::integer)?;
        let holds = self.list(Self::text)?.into_iter().map(str::to_owned).collect();
        Ok(Labels { jurisdictions, classes, purpose, basis, subject, collected_at, retain_until, holds })
    }
}
