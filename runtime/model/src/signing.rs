//! Who may sign policies, and who did.
//!
//! A deployment whose region files name operators is in *production*: only what one of them signed comes into force,
//! and no daemon holds their keys. One that names none is in *development*: the region that proposes a generation signs
//! it with its own key. Here are names and public keys alone; `net::pki` verifies.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::units::UnixMillis;

/// The most operators of a deployment: every signature is tried with the key of each.
pub const MOST_OPERATORS: usize = 16;

/// What an operator's key begins with, where it is written down.
const KIND: &str = "ed25519:";
const KEY_BYTES: usize = 32;
const LONGEST_NAME: usize = 64;

/// Somebody who may sign policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Operator {
    /// A name for people: 1 to 64 letters, digits, hyphens, underscores, dots and at signs.
    pub name: String,
    /// The Ed25519 public key, as RFC 8032 encodes it.
    pub key: [u8; KEY_BYTES],
}

/// Why a text names no operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOperator {
    /// It has not two words.
    #[error("it has other words than a key and a name")]
    Words,
    /// The key is of another kind.
    #[error("its key does not begin with `ed25519:`")]
    Kind,
    /// The key is not written as 64 hexadecimal digits.
    #[error("its key has not 64 hexadecimal digits after `ed25519:`")]
    Digits,
    /// The name is none.
    #[error("its name has other characters than letters, digits, `-`, `_`, `.` and `@`, or more than 64")]
    Name,
}

impl Operator {
    /// Checks the name.
    ///
    /// # Errors
    /// [`NoOperator::Name`].
    pub fn new(name: &str, key: [u8; KEY_BYTES]) -> Result<Self, NoOperator> {
        let permitted = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(permitted) {
            return Err(NoOperator::Name);
        }
        Ok(Self { name: name.to_owned(), key })
    }
}

impl FromStr for Operator {
    type Err = NoOperator;

    fn from_str(text: &str) -> Result<Self, NoOperator> {
        let mut words = text.split_whitespace();
        let (Some(key), Some(name), None) = (words.next(), words.next(), words.next()) else {
            return Err(NoOperator::Words);
        };
        let digits = key.strip_prefix(KIND).ok_or(NoOperator::Kind)?;
        if digits.len() != 2 * KEY_BYTES || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoOperator::Digits);
        }
        let mut bytes = [0; KEY_BYTES];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| NoOperator::Digits)?;
        }
        Self::new(name, bytes)
    }
}

impl fmt::Display for Operator {
    /// As it is written in region files: the key, then the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KIND)?;
        self.key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, " {}", self.name)
    }
}

/// Whose key signed a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignedBy {
    /// An operator's, by name.
    Operator(String),
    /// That of the region which proposed it.
    Region(RegionId),
}

impl fmt::Display for SignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(name) => write!(f, "operator {name}"),
            Self::Region(region) => write!(f, "region {region} (development)"),
        }
    }
}

/// What an operator has to know to sign the generation that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextGeneration {
    /// Its number.
    pub generation: u64,
    /// The hash of the tree that it grows from; none for the first.
    pub parent: Option<crate::tree::TreeHash>,
    /// The region that is asked, which proposes it.
    pub proposer: RegionId,
    /// Who may sign it, by name; nobody in development, where the region signs.
    pub operators: Vec<String>,
}

/// An operator's signature under the generation that follows; number and parent are those of [`NextGeneration`], files
/// and reason are stated beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endorsement {
    /// The number of the generation.
    pub generation: u64,
    /// The region that proposes it.
    pub proposer: RegionId,
    /// When, by the operator's clock.
    pub signed_at: UnixMillis,
    /// Ed25519 over the bundle's bytes.
    pub signature: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_read_back_from_what_is_written() {
        let alice = Operator::new("alice@example", [7; 32]).unwrap();
        assert_eq!(alice.to_string().parse(), Ok(alice));
    }

    #[test]
    fn what_names_no_operator_says_why() {
        let key = format!("ed25519:{}", "0a".repeat(32));
        let refused = |text: &str| text.parse::<Operator>().unwrap_err();
        assert_eq!(refused(&key), NoOperator::Words);
        assert_eq!(refused(&format!("{key} a b")), NoOperator::Words);
        assert_eq!(refused(&format!("{} alice", &key[8..])), NoOperator::Kind);
        assert_eq!(refused(&format!("{key}0 alice")), NoOperator::Digits);
        assert_eq!(refused(&format!("ed25519:{} alice", "+1".repeat(32))), NoOperator::Digits);
        assert_eq!(refused(&format!("{key} al/ice")), NoOperator::Name);
        assert_eq!(refused(&format!("{key} {}", "a".repeat(65))), NoOperator::Name);
    }
}
