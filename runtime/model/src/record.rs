//! What is stored, and what is shipped.
//!
//! A [`Record`] is a value with its labels. A [`Row`] holds every sibling of one
//! key: the writes that no other write known here supersedes. An [`Entry`] is
//! one write in its origin's log; a [`Shipment`] is what a peer receives in its
//! place. These types *are* the disk and wire formats, inside the envelope of
//! [`crate::codec`]: change them by adding a format version, never in place.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::names::{Country, Key, Namespace, RegionId, RuleId, Subject};
use crate::object::Manifest;
use crate::residency::ScopeId;
use crate::sealing::DataKeyId;
use crate::units::UnixMillis;
use crate::version::{CausalContext, LogPosition, Version};

macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The name in headers, policies and reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            /// Reads the name, in any case.
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|v| v.as_str().eq_ignore_ascii_case(text.trim())).ok_or_else(|| UnknownWord {
                    what: $what,
                    found: text.chars().take(64).collect(),
                    known: Self::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

/// A word outside a fixed vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a {what}; the known ones are {known}")]
pub struct UnknownWord {
    /// The vocabulary's name.
    pub what: &'static str,
    /// The word found, shortened.
    pub found: String,
    /// The words known.
    pub known: String,
}

vocabulary!(
    /// What kind of data a record holds. `docs/compliance.md` describes each.
    DataClass, "data class" {
        /// May be shown to anyone.
        Public = "public",
        /// The service's own working data, about nobody.
        Operational = "operational",
        /// Customers' source code and what was derived from it.
        SourceCode = "source-code",
        /// Secrets: keys, tokens, password hashes.
        Credentials = "credentials",
        /// Data about a person, GDPR Art. 4(1).
        Personal = "personal",
        /// GDPR Art. 9 categories that have no name of their own here.
        Sensitive = "sensitive",
        /// Data about health.
        Health = "health",
        /// Accounts, payments, credit.
        Financial = "financial",
        /// Fingerprints, faces, voices used to identify.
        Biometric = "biometric",
        /// Genomic data.
        Genomic = "genomic",
        /// Precise location of a person or device.
        Geolocation = "geolocation",
        /// Data about a child.
        Children = "children",
    }
);

impl DataClass {
    /// Whether data of this class is about a person.
    pub const fn is_personal(self) -> bool {
        !matches!(self, Self::Public | Self::Operational | Self::SourceCode | Self::Credentials)
    }
}

vocabulary!(
    /// Why the law allows the data to be processed, after GDPR Art. 6(1).
    Basis, "legal basis" {
        /// None was stated.
        Unstated = "unstated",
        /// The person agreed.
        Consent = "consent",
        /// Needed for a contract with the person.
        Contract = "contract",
        /// The law demands it.
        LegalObligation = "legal-obligation",
        /// To protect a life.
        VitalInterests = "vital-interests",
        /// A task in the public interest.
        PublicTask = "public-task",
        /// A legitimate interest that outweighs the person's.
        LegitimateInterests = "legitimate-interests",
    }
);

vocabulary!(
    /// What the data is used for.
    Purpose, "purpose" {
        /// To provide the service itself.
        Service = "service",
        /// To keep it secure.
        Security = "security",
        /// To help a user.
        Support = "support",
        /// To understand use.
        Analytics = "analytics",
        /// To sell.
        Marketing = "marketing",
    }
);

/// A key within its namespace: the address of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The group of keys.
    pub namespace: Namespace,
    /// The key.
    pub key: Key,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.key)
    }
}

/// What is known about a record besides its value. Residency is decided from this alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The person that it is about, as a pseudonym.
    pub subject: Option<Subject>,
    /// The countries whose law applies; the strictest wins. Empty: no country's law was claimed.
    pub jurisdictions: BTreeSet<Country>,
    /// What kinds of data it holds. Never empty; the strictest wins.
    pub classes: BTreeSet<DataClass>,
    /// What it is for.
    pub purpose: Purpose,
    /// Why the law allows that.
    pub basis: Basis,
    /// When it was collected.
    pub collected_at: UnixMillis,
    /// When it must be gone, if ever.
    pub retain_until: Option<UnixMillis>,
    /// Legal holds that keep it, by name.
    pub holds: BTreeSet<String>,
}

impl Labels {
    /// Whether it is about a person.
    pub fn is_personal(&self) -> bool {
        self.classes.iter().any(|class| class.is_personal())
    }

    /// Labels of one class with nothing else stated.
    pub fn of_class(class: DataClass, collected_at: UnixMillis) -> Self {
        Self {
            subject: None,
            jurisdictions: BTreeSet::new(),
            classes: BTreeSet::from([class]),
            purpose: Purpose::Service,
            basis: Basis::Unstated,
            collected_at,
            retain_until: None,
            holds: BTreeSet::new(),
        }
    }
}

/// The bytes of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// As the client sent them.
    Plain(Bytes),
    /// Encrypted once at the origin, with the labels as associated data.
    Sealed {
        /// Which key: a [`DataKeyId`] as text.
        key_ref: String,
        /// 96 random bits.
        nonce: [u8; 12],
        /// Ciphertext and tag.
        ciphertext: Bytes,
    },
    /// Too large for a row: chunks in the region's object store, of which this is the list.
    Object(Manifest),
}

/// The bytes of a row that holds none: those of an object lie in chunks.
static ELSEWHERE: Bytes = Bytes::new();

impl Payload {
    /// The bytes as stored in the row: none of an object. Whoever wants the value has it opened first.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Plain(bytes) | Self::Sealed { ciphertext: bytes, .. } => bytes,
            Self::Object(_) => &ELSEWHERE,
        }
    }

    /// How many bytes the value has.
    pub fn value_len(&self) -> u64 {
        match self {
            Self::Plain(bytes) => bytes.len() as u64,
            Self::Sealed { ciphertext, .. } => ciphertext.len().saturating_sub(Self::TAG) as u64,
            Self::Object(manifest) => manifest.length,
        }
    }

    /// How many bytes it takes as it is stored, chunks included.
    pub fn stored_len(&self) -> u64 {
        match self {
            Self::Plain(_) | Self::Sealed { .. } => self.bytes().len() as u64,
            Self::Object(manifest) => manifest.stored_len(),
        }
    }

    /// The list of chunks of an object.
    pub fn object(&self) -> Option<&Manifest> {
        match self {
            Self::Object(manifest) => Some(manifest),
            Self::Plain(_) | Self::Sealed { .. } => None,
        }
    }

    /// The name of the key that opens it; none where it is plain.
    fn key_ref(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed { key_ref, .. } => Some(key_ref),
            Self::Object(manifest) => manifest.sealed.as_ref().map(|sealed| sealed.key_ref.as_str()),
        }
    }

    /// The key that opens it; none where it is plain or names a key that was never made.
    pub fn data_key(&self) -> Option<DataKeyId> {
        self.key_ref()?.parse().ok()
    }

    /// Whether it is encrypted.
    pub fn is_sealed(&self) -> bool {
        self.key_ref().is_some()
    }

    /// By how much a ciphertext is longer than its value.
    pub const TAG: usize = 16;
}

/// A value with its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The value.
    pub payload: Payload,
    /// Its media type; empty where none was sent.
    pub content_type: String,
    /// What is known about it.
    pub labels: Labels,
    /// The policy generation in force when it was written: provenance only.
    pub generation: u64,
}

/// What a write left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A value.
    Live(Record),
    /// The key was deleted. The labels stay so that the marker obeys the same residency.
    Tombstone {
        /// The labels of the write that was deleted, or those that the delete stated.
        labels: Labels,
    },
    /// A write that this region may not see superseded what it held; no value and no labels are kept here.
    ///
    /// Carries the version of that write, so that it supersedes here what it supersedes there.
    Evicted {
        /// The scope that it moved to.
        scope: ScopeId,
    },
}

impl Content {
    /// The record, if there is one.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Live(record) => Some(record),
            Self::Tombstone { .. } | Self::Evicted { .. } => None,
        }
    }
    /// The labels, if any are kept.
    pub fn labels(&self) -> Option<&Labels> {
        match self {
            Self::Live(record) => Some(&record.labels),
            Self::Tombstone { labels } => Some(labels),
            Self::Evicted { .. } => None,
        }
    }
}

/// One write of a key that nothing known here supersedes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// Its place in causality and time.
    pub version: Version,
    /// The scope that it was written into.
    pub scope: ScopeId,
    /// What it left.
    pub content: Content,
}

impl Sibling {
    /// The write as a region outside its scope keeps it.
    #[must_use]
    pub fn marker(&self) -> Self {
        let content = Content::Evicted { scope: self.scope };
        Self { version: self.version.clone(), scope: self.scope, content }
    }

    /// The scope in which it lives: another than that in which it was written where policies have changed since.
    pub fn lives_in(&self) -> ScopeId {
        match self.content {
            Content::Evicted { scope } => scope,
            Content::Live(_) | Content::Tombstone { .. } => self.scope,
        }
    }

    /// Whether this is a marker: the write itself lives elsewhere.
    pub fn is_marker(&self) -> bool {
        matches!(self.content, Content::Evicted { .. })
    }
}

/// The stored state of one key: its siblings, in dot order, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The siblings. `replication` keeps the order and removes what is superseded.
    pub siblings: Vec<Sibling>,
}

impl Row {
    /// Whether tombstones are here and nothing alive: but for markers, the key is as good as one that was never written.
    pub fn is_dead(&self) -> bool {
        let tombstone = |sibling: &Sibling| matches!(sibling.content, Content::Tombstone { .. });
        self.siblings.iter().any(tombstone) && self.siblings.iter().all(|s| tombstone(s) || s.is_marker())
    }

    /// The tombstones of the row, beside whatever is alive.
    pub fn tombstones(&self) -> impl Iterator<Item = &Sibling> {
        self.siblings.iter().filter(|sibling| matches!(sibling.content, Content::Tombstone { .. }))
    }

    /// The row without its markers, and the markers.
    pub fn part_markers(self) -> (Row, Row) {
        let (markers, rest) = self.siblings.into_iter().partition(Sibling::is_marker);
        (Row { siblings: rest }, Row { siblings: markers })
    }

    /// Everything that this row has seen: what a reader must hand back to overwrite it knowingly.
    pub fn context(&self) -> CausalContext {
        let mut context = CausalContext::new();
        for sibling in &self.siblings {
            context.join(&sibling.version.context);
            context.observe(&sibling.version.dot);
        }
        context
    }
}

/// How urgently an entry is shipped. Lower goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LanePriority(pub u8);

/// One write in its origin's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub position: LogPosition,
    /// What it wrote.
    pub address: Address,
    /// The write.
    pub sibling: Sibling,
    /// The regions that the origin's plan permitted, for the senders to filter by.
    /// Receivers decide again from the labels and do not trust it.
    pub permitted: BTreeSet<RegionId>,
    /// The regions outside `permitted` that may hold a version which this write supersedes.
    /// They get [`Entry::marker`] in its place. Never meets `permitted`.
    pub evicted: BTreeSet<RegionId>,
    /// Which lane it takes.
    pub priority: LanePriority,
    /// When the origin committed it, by its clock: lag is measured from here.
    pub committed_at: UnixMillis,
}

impl Entry {
    /// What a region outside the scope gets in its place: the same version, without value and labels.
    #[must_use]
    pub fn marker(&self) -> Self {
        Self { sibling: self.sibling.marker(), ..self.clone() }
    }
}

/// Which regions a scope consists of. Every region keeps those of the scopes that it has seen,
/// because the plan that made them may have changed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeRegions {
    /// The scope.
    pub scope: ScopeId,
    /// Its regions.
    pub regions: BTreeSet<RegionId>,
}

/// What a peer receives at one log position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shipment {
    /// The entry itself.
    Entry(Box<Entry>),
    /// Nothing for this region here: the scope leaves it out. Keeps the vector contiguous.
    Skip {
        /// The position passed over.
        position: LogPosition,
        /// When the origin committed what was passed over.
        committed_at: UnixMillis,
    },
    /// What the receiver keeps in place of an entry that it may not hold. It is never sent on:
    /// it says something about the region that stored it and about no other.
    Refused {
        /// The position refused.
        position: LogPosition,
        /// When the origin committed what was refused.
        committed_at: UnixMillis,
        /// The rule that decided.
        rule: RuleId,
    },
}

impl Shipment {
    /// The log position that it settles.
    pub fn position(&self) -> &LogPosition {
        match self {
            Self::Entry(entry) => &entry.position,
            Self::Skip { position, .. } | Self::Refused { position, .. } => position,
        }
    }
    /// When its origin committed it.
    pub fn committed_at(&self) -> UnixMillis {
        match self {
            Self::Entry(entry) => entry.committed_at,
            Self::Skip { committed_at, .. } | Self::Refused { committed_at, .. } => *committed_at,
        }
    }
}
