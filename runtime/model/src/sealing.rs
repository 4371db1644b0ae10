//! What is said of encrypted values and of the keys that open them. No key is in here.
//!
//! A value is encrypted once, where it was written, under a data key of its
//! owner: the person that it is about or, where it is about nobody, its own
//! address. What is bound to the ciphertext ([`bound`]) is where it lies and
//! everything that its labels say, so that a relabelled or moved ciphertext
//! does not open.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{RegionId, Subject};
use crate::record::{Address, Labels, Record};

macro_rules! sixteen {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            /// 32 hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = &'static str;
            /// Reads 32 hexadecimal digits.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wrong = "32 hexadecimal digits are expected";
                if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(wrong);
                }
                let mut bytes = [0; 16];
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

sixteen!(
    /// Names a data key: 16 random bytes, in `key_ref` of a sealed value.
    DataKeyId
);
sixteen!(
    /// Whose a data key is: a keyed hash of a subject, or of an address where there is no subject.
    Owner
);
sixteen!(
    /// Names an order about a subject, such as an erasure: 16 random bytes.
    OrderId
);

impl Owner {
    /// The owner that stands for a person. `key` is [`Owner::key`] of the deployment's secret.
    pub fn of_subject(key: &[u8; 32], subject: &Subject) -> Self {
        Self::of(key, b's', &[subject.as_str()])
    }

    /// The owner that stands for a record about nobody.
    pub fn of_address(key: &[u8; 32], address: &Address) -> Self {
        Self::of(key, b'a', &[address.namespace.as_str(), address.key.as_str()])
    }

    /// Whose a record at `address` is.
    pub fn of_record(key: &[u8; 32], address: &Address, labels: &Labels) -> Self {
        match &labels.subject {
            Some(subject) => Self::of_subject(key, subject),
            None => Self::of_address(key, address),
        }
    }

    /// The key under which owners are hashed, from a secret that all regions share.
    pub fn key(secret: &[u8]) -> [u8; 32] {
        blake3::derive_key("repomind owners of data keys v1", secret)
    }

    fn of(key: &[u8; 32], kind: u8, parts: &[&str]) -> Self {
        let mut hash = blake3::Hasher::new_keyed(key);
        hash.update(&[kind]);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self(id)
    }
}

/// What is known of a data key, apart from the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// Whose it is.
    pub owner: Owner,
    /// The regions that may have it: those that may hold what it opens.
    pub regions: BTreeSet<RegionId>,
    /// The erasures of its owner that its maker knew of. A key that does not name one was made before it.
    pub after: BTreeSet<OrderId>,
}

/// A data key as one region gives it to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenKey {
    /// Which.
    pub id: DataKeyId,
    /// What is known of it.
    pub facts: KeyFacts,
    /// The key, encrypted for the receiver; none where the giver has destroyed it.
    pub wrapped: Option<Vec<u8>>,
}

/// Data keys for one region, which only the private half of its region key opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParcel {
    /// The region key that it is for.
    pub region_key: [u8; 8],
    /// The public half of a key pair made for this parcel alone (X25519).
    pub ephemeral: [u8; 32],
    /// The keys, at most [`KeyParcel::MOST`].
    pub keys: Vec<GivenKey>,
}

impl KeyParcel {
    /// The most keys in one parcel.
    pub const MOST: usize = 4096;
}

/// The public half of a region's key, by which others give it data keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionPublicKey {
    /// Names the pair.
    pub id: [u8; 8],
    /// X25519, RFC 7748.
    pub key: [u8; 32],
}

/// What a ciphertext is bound to, as associated data:
///
/// ```text
/// "repomind sealed record 1\n" | length of the stored row key, u32 big-endian | namespace, 00, key
///                              | media type text, labels, generation: as they lie in the row
/// ```
pub fn bound(address: &Address, record: &Record) -> Vec<u8> {
    let mut bytes = b"repomind sealed record 1\n".to_vec();
    let (namespace, key) = (address.namespace.as_str(), address.key.as_str());
    let length = u32::try_from(namespace.len() + 1 + key.len()).expect("names are short");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.as_bytes());
    let rest = (&record.content_type, &record.labels, record.generation);
    postcard::to_extend(&rest, bytes).expect("plain data always encodes into memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{DataClass, Payload};
    use crate::{Key, Namespace, UnixMillis};

    fn address(key: &str) -> Address {
        Address { namespace: Namespace::new("notes").unwrap(), key: Key::new(key).unwrap() }
    }

    #[test]
    fn what_a_ciphertext_is_bound_to_changes_with_every_label_and_with_its_place() {
        let record = |change: fn(&mut Record)| {
            let mut record = Record {
                payload: Payload::Plain(bytes::Bytes::new()),
                content_type: "text/plain".into(),
                labels: Labels::of_class(DataClass::Personal, UnixMillis(1)),
                generation: 4,
            };
            change(&mut record);
            bound(&address("a"), &record)
        };
        let all = [
            record(|_| {}),
            bound(&address("b"), &Record { ..plain() }),
            record(|record| record.content_type = "text/html".into()),
            record(|record| record.generation = 5),
            record(|record| record.labels.subject = Some(Subject::new("s-1").unwrap())),
            record(|record| record.labels.jurisdictions = BTreeSet::from([crate::Country::new("DE").unwrap()])),
            record(|record| record.labels.classes = BTreeSet::from([DataClass::Public])),
            record(|record| record.labels.basis = crate::record::Basis::Consent),
            record(|record| record.labels.purpose = crate::record::Purpose::Marketing),
            record(|record| record.labels.collected_at = UnixMillis(2)),
            record(|record| record.labels.retain_until = Some(UnixMillis(9))),
            record(|record| record.labels.holds = BTreeSet::from(["case-7".to_owned()])),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "two of them are bound to the same");
    }

    fn plain() -> Record {
        Record {
            payload: Payload::Plain(bytes::Bytes::new()),
            content_type: "text/plain".into(),
            labels: Labels::of_class(DataClass::Personal, UnixMillis(1)),
            generation: 4,
        }
    }

    #[test]
    fn a_person_and_a_record_of_the_same_name_have_different_owners() {
        let key = Owner::key(&[7; 32]);
        let person = Owner::of_subject(&key, &Subject::new("notes").unwrap());
        assert_ne!(person, Owner::of_address(&key, &address("notes")));
        assert_ne!(Owner::of_address(&key, &address("a")), Owner::of_address(&key, &address("b")));
        assert_eq!(person.to_string().parse(), Ok(person));
    }
}
