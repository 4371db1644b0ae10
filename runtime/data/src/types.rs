//! What callers hand in and get back.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;

use bytes::Bytes;
use model::names::Subject;
use model::question::Resolution;
use model::record::{Address, Basis, Content, DataClass, Labels, Purpose, Record, Row, Sibling};
use model::replication::{AckLevel, LabelName, Strategy};
use model::residency::Barred;
use model::version::{CausalContext, Dot, Incarnation, LogPosition, PositionVector, Version};
use model::{Country, Millis, Namespace, RegionId, RuleId, UnixMillis};
use store::StoreError;
use store::objects::ObjectError;

use crate::ledger::LedgerError;
use crate::vault::VaultError;

/// Names one state of a key: equal tags mean the same set of live writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// The tag of a row.
    pub fn of(row: &Row) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("repomind etag v1");
        for sibling in &row.siblings {
            hash.update(sibling.version.dot.to_string().as_bytes());
            hash.update(b"\n");
        }
        Self(hash.finalize().to_hex()[..20].to_owned())
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ETag {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let right = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if right { Ok(Self(text.to_owned())) } else { Err("an entity tag here has 20 hexadecimal digits") }
    }
}

/// The state that a key must be in for a write to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// There is a record.
    Any,
    /// There is a record, and its tag is one of these.
    OneOf(Vec<ETag>),
}

impl Match {
    /// Whether the state of a key is what was asked for.
    pub fn is_met(&self, live: bool, row: Option<&Row>) -> bool {
        match self {
            Self::Any => live,
            Self::OneOf(tags) => live && row.map(ETag::of).is_some_and(|tag| tags.contains(&tag)),
        }
    }
}

impl From<ETag> for Match {
    fn from(tag: ETag) -> Self {
        Self::OneOf(vec![tag])
    }
}

/// What a writer may claim of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The classes; all where nothing is stated.
    pub classes: Option<BTreeSet<DataClass>>,
    /// The countries; all where nothing is stated.
    pub jurisdictions: Option<BTreeSet<Country>>,
    /// Whether it may give a record labels by which it can be in more regions than before.
    pub relabel: bool,
}

impl Default for Authority {
    fn default() -> Self {
        Self { classes: None, jurisdictions: None, relabel: true }
    }
}

impl Authority {
    /// Whether a record with these labels may be written.
    pub(crate) fn permits(&self, labels: &Labels) -> Result<(), DataError> {
        let class = labels.classes.iter().find(|class| self.classes.as_ref().is_some_and(|may| !may.contains(class)));
        if let Some(class) = class {
            return Err(DataError::NotClaimable { field: "Repomind-Class", claimed: class.to_string() });
        }
        let may = |country: &&Country| self.jurisdictions.as_ref().is_some_and(|may| !may.contains(*country));
        match labels.jurisdictions.iter().find(may) {
            Some(country) => {
                Err(DataError::NotClaimable { field: "Repomind-Jurisdiction", claimed: country.to_string() })
            }
            None if labels.jurisdictions.is_empty() && labels.is_personal() && self.jurisdictions.is_some() => {
                Err(DataError::NotClaimable { field: "Repomind-Jurisdiction", claimed: "none".to_owned() })
            }
            None => Ok(()),
        }
    }
}

/// What a client says of its record. What it leaves out comes from the strategy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelClaims {
    /// The person that it is about, as a pseudonym.
    pub subject: Option<Subject>,
    /// The countries whose law applies.
    pub jurisdictions: Option<BTreeSet<Country>>,
    /// What kinds of data it holds.
    pub classes: Option<BTreeSet<DataClass>>,
    /// What it is for.
    pub purpose: Option<Purpose>,
    /// Why the law allows that.
    pub basis: Option<Basis>,
    /// When it was collected; now, unless stated.
    pub collected_at: Option<UnixMillis>,
    /// When it must be gone.
    pub retain_until: Option<UnixMillis>,
    /// Legal holds, by name.
    pub holds: BTreeSet<String>,
    /// What the writer may claim at all.
    pub authority: Authority,
}

impl LabelClaims {
    /// The labels in full, with what the namespace says where nothing was claimed.
    pub(crate) fn labels(&self, strategy: &Strategy, now: UnixMillis) -> Labels {
        let stated = self.classes.clone().filter(|classes| !classes.is_empty());
        let classes = stated.unwrap_or_else(|| BTreeSet::from([strategy.default_class]));
        let rules = &strategy.labels;
        Labels {
            subject: self.subject.clone(),
            jurisdictions: self.jurisdictions.clone().unwrap_or_else(|| rules.jurisdictions.clone()),
            classes,
            purpose: self.purpose.or(rules.purpose).unwrap_or(Purpose::Service),
            basis: self.basis.or(rules.basis).unwrap_or(Basis::Unstated),
            collected_at: self.collected_at.unwrap_or(now),
            retain_until: self.retain_until,
            holds: self.holds.clone(),
        }
    }

    /// Whether nothing was claimed.
    pub(crate) fn is_empty(&self) -> bool {
        Self { authority: Authority::default(), ..self.clone() } == Self::default()
    }

    /// The first of these labels that was not stated.
    pub(crate) fn lacks(&self, required: &BTreeSet<LabelName>) -> Option<LabelName> {
        let states = |label: &LabelName| match label {
            LabelName::Class => self.classes.as_ref().is_some_and(|classes| !classes.is_empty()),
            LabelName::Jurisdiction => self.jurisdictions.as_ref().is_some_and(|countries| !countries.is_empty()),
            LabelName::Subject => self.subject.is_some(),
            LabelName::Basis => self.basis.is_some(),
            LabelName::Purpose => self.purpose.is_some(),
            LabelName::RetainUntil => self.retain_until.is_some(),
        };
        required.iter().copied().find(|label| !states(label))
    }
}

/// A write that was asked for.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub address: Address,
    /// The value; `None` deletes.
    pub value: Option<Bytes>,
    /// Its media type; empty where none was sent.
    pub content_type: String,
    /// What the client says of it.
    pub labels: LabelClaims,
    /// Only if the key's state is this.
    pub if_match: Option<Match>,
    /// Only if there is no record.
    pub if_none_match: bool,
    /// What the client has seen; a blind write takes what this region has seen.
    pub context: Option<CausalContext>,
    /// How many copies to wait for; the strategy's level unless stated.
    pub ack: Option<AckLevel>,
}

/// What became of a write. It is durable in this region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The tag of the key's new state.
    pub etag: ETag,
    /// What to hand back in order to read this write, in any region.
    pub context: CausalContext,
    /// In how many regions it is known to be durable.
    pub copies: usize,
    /// Whether that is as many as were asked for. If not, the further copies are *unknown*, not failed,
    /// but for those of [`Written::refused_by`].
    pub reached: bool,
    /// The regions that refused their copy, as far as is known.
    pub refused_by: BTreeSet<RegionId>,
}

/// Why writes that were to be made together were not, none of them.
#[derive(Debug, thiserror::Error)]
#[error("none of the writes was made: {error}")]
pub struct NotAll {
    /// Which of them was refused; none where it was no fault of any.
    pub at: Option<usize>,
    /// Why.
    pub error: DataError,
}

/// What a receiver answers to a batch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Received {
    /// How far it has durably taken over each log.
    pub vector: PositionVector,
    /// The positions of the batch, in the sender's own log, that it refused, now or earlier: taken over, and
    /// no copies. At most [`Received::MOST_REFUSED`]; the vector ends before the first that found no room.
    pub refused: Vec<LogPosition>,
}

impl Received {
    /// The most refusals in one answer: some 300 KiB, and more than a batch of 256 KiB has entries.
    pub const MOST_REFUSED: usize = 16 * 1024;
}

/// What a reader is shown of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The record.
    pub record: Record,
    /// The write that left it.
    pub dot: Dot,
    /// The tag of the key's state.
    pub etag: ETag,
    /// What the reader has now seen.
    pub context: CausalContext,
    /// How many concurrent writes there are; 1 where nobody conflicts.
    pub siblings: usize,
    /// What chose among them: `none`, `last-write-wins`, `priority-regions`, `siblings` or a resolver's
    /// name, with `pending:` before it while the resolver has not answered.
    pub resolved_by: String,
}

impl View {
    pub(crate) fn of(row: &Row, at: usize, resolved_by: &str) -> Option<Self> {
        let shown = row.siblings.get(at)?;
        Some(Self {
            record: shown.content.record()?.clone(),
            dot: shown.version.dot.clone(),
            etag: ETag::of(row),
            context: row.context(),
            siblings: row.siblings.iter().filter(|sibling| matches!(sibling.content, Content::Live(_))).count(),
            resolved_by: resolved_by.to_owned(),
        })
    }
}

/// All that lies concurrently under a key, for whoever settles it by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Siblings {
    /// Those that are here, in dot order; a delete has no record.
    pub here: Vec<(Version, Option<Record>)>,
    /// How many live in other regions.
    pub elsewhere: usize,
    /// The tag of the key's state.
    pub etag: ETag,
    /// What a write hands back that is to replace all of them.
    pub context: CausalContext,
}

/// One scope as this region holds it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ScopeSummary {
    /// The regions that hold it.
    pub regions: BTreeSet<RegionId>,
    /// How many live writes and markers it has.
    pub rows: u64,
    /// Equal digests mean equal content.
    pub digest: String,
}

/// Settles concurrent writes by a policy's resolver.
pub trait Resolver: Send + Sync {
    /// The settlement, or `None` where the resolver gave none: the siblings stay.
    fn resolve(
        &self,
        resolver: &str,
        address: &Address,
        siblings: &[Sibling],
    ) -> Pin<Box<dyn Future<Output = Option<Resolution>> + Send + 'static>>;
}

/// Why a write, read or shipment was not done.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The record may not be here.
    #[error(transparent)]
    Barred(#[from] Barred),
    /// The record lives in regions that do not include this one.
    #[error("this record lives in other regions than {region}: {}", ask(.regions))]
    Elsewhere {
        /// This region.
        region: RegionId,
        /// What keeps it away from here.
        rule: RuleId,
        /// Where it lives.
        regions: BTreeSet<RegionId>,
    },
    /// The context names writes that have not arrived here.
    #[error("what the causal context names has not arrived in this region yet; without it, what is here is replaced")]
    Behind {
        /// When to try again.
        retry_after: Millis,
    },
    /// `If-Match` or `If-None-Match` did not hold, or the context is older than what must be seen first.
    #[error("the record is not in the state that the request names")]
    PreconditionFailed,
    /// The namespace would grow beyond what this region holds of it.
    #[error(
        "this region holds {used} {what} of `{namespace}`, of at most {limit}: delete something, or ask the operator for more"
    )]
    OverQuota {
        /// The namespace.
        namespace: Namespace,
        /// `bytes` or `records`.
        what: &'static str,
        /// How much may be.
        limit: u64,
        /// How much is.
        used: u64,
    },
    /// The value is larger than one of its namespace may be.
    #[error("a value here has at most {most} bytes")]
    TooLarge {
        /// How many.
        most: u64,
    },
    /// Too many large values are being taken in.
    #[error("this region is taking in as many large values as it can at once")]
    Busy {
        /// When to try again.
        retry_after: Millis,
    },
    /// There is no place for large values.
    #[error("this region has no object store, and so takes no value over 1 MiB")]
    NoObjects,
    /// Replication lag asks writers to slow down.
    #[error("replication lag has reached the bound at which writes are slowed")]
    Throttled {
        /// When to try again.
        retry_after: Millis,
    },
    /// Replication lag has passed the bound at which writes are refused, or too many wait.
    #[error("this region takes no writes at the moment")]
    Unready {
        /// When to try again.
        retry_after: Millis,
    },
    /// More copies asked for than regions may hold the record.
    #[error("{asked} copies were asked for and {in_scope} regions may hold this record")]
    TooManyCopies {
        /// How many.
        asked: usize,
        /// How many regions may.
        in_scope: usize,
    },
    /// What is stored of a key was damaged on this region's disk, and is asked of the other regions.
    #[error("what is stored of this here was damaged on disk, and is being asked of the other regions")]
    Damaged {
        /// When to try again.
        retry_after: Millis,
    },
    /// Too many writes of the key lie beside each other, and this one would replace none of them.
    #[error(
        "this record has {most} concurrent writes, and this one would stand beside them: read them all, and settle them"
    )]
    TooManySiblings {
        /// As many as there may be.
        most: usize,
    },
    /// A label that cannot be taken.
    #[error("label {field}: {reason}")]
    BadLabel {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// What was written is not what its labels say.
    #[error(
        "its {place} holds {found}, and it is labelled as about nobody ({classes}): label it as what it is, or take that out"
    )]
    Contradicted {
        /// `key` or `body`.
        place: &'static str,
        /// What was found there, in words.
        found: String,
        /// The classes that it was labelled with.
        classes: String,
    },
    /// Its writer may not claim that.
    #[error("the token may not write records with {claimed} as {field}")]
    NotClaimable {
        /// The header.
        field: &'static str,
        /// What was claimed, or left out.
        claimed: String,
    },
    /// The labels are looser than those of the record that it replaces.
    #[error(
        "by these labels the record could be in {region}, and by those that it has it may not: the token lacks the scope relabel"
    )]
    Loosened {
        /// A region in which it could be.
        region: RegionId,
    },
    /// Policies have changed while it was written.
    #[error("the policies changed while this was being written, and nothing was stored; try again")]
    Overtaken {
        /// When to try again.
        retry_after: Millis,
    },
    /// A legal hold keeps what would go.
    #[error("a legal hold keeps what is stored under this key")]
    Held,
    /// A peer shipped what it takes for an entry of the log that this region is writing itself.
    #[error("{from} shipped {position}, which only this region can write: two disks claim the same incarnation")]
    OwnLog {
        /// The peer.
        from: RegionId,
        /// The position.
        position: LogPosition,
    },
    /// A process that has ended, and whose successor has been heard of, has left something under way.
    #[error("{from} ships from its life {}, and is in life {} by now", .life.0, .known.0)]
    EndedLife {
        /// The peer.
        from: RegionId,
        /// The life that it claims.
        life: Incarnation,
        /// The latest that is known.
        known: Incarnation,
    },
    /// Rows that no region would give.
    #[error("the rows that {from} gives cannot be taken: {reason}")]
    BadPart {
        /// The peer.
        from: RegionId,
        /// What is wrong.
        reason: &'static str,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] crate::backup::BackupError),
    /// The ledger is not the one that this region has signed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A value could not be encrypted or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store took no commit, and takes none until it is opened again.
    #[error("this region's store takes no writes any more: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
    /// The region is shutting down.
    #[error("this region is shutting down")]
    Closed,
}

impl DataError {
    /// A record that lives in `regions`, asked for in `region`.
    pub(crate) fn elsewhere(region: &RegionId, mut regions: BTreeSet<RegionId>) -> Self {
        // A region that refused a record may stand in the scope that the record's origin gave it.
        regions.remove(region);
        let rule = RuleId::new("record-moved").expect("a fixed rule name");
        Self::Elsewhere { region: region.clone(), rule, regions }
    }
}

fn ask(regions: &BTreeSet<RegionId>) -> String {
    let names: Vec<&str> = regions.iter().map(RegionId::as_str).collect();
    match names.as_slice() {
        [] => "none of them is known here".to_owned(),
        [one] => format!("ask {one}"),
        several => format!("ask one of {}", several.join(", ")),
    }
}
