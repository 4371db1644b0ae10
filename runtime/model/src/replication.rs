//! How each namespace is replicated: what `define-replication-strategy` and
//! `lag-action` come to once they are plain data.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::{Country, Namespace, RegionId, RuleId};
use crate::record::{Basis, DataClass, Labels, Purpose};
use crate::units::{ByteCount, Millis, UnixMillis};

/// Who wins between concurrent writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConflictResolution {
    /// The later stamp, then the greater dot.
    LastWriteWins,
    /// The write of the region that stands first in `priority-regions`, then the later stamp.
    PriorityRegions,
    /// Nobody: all siblings are shown and a later write settles them.
    KeepSiblings,
    /// A `define-conflict-resolver` of this name; last-write-wins is shown until it has answered.
    Custom(String),
}

impl ConflictResolution {
    /// The name in policies, headers and reports.
    pub fn name(&self) -> &str {
        match self {
            Self::LastWriteWins => "last-write-wins",
            Self::PriorityRegions => "priority-regions",
            Self::KeepSiblings => "keep-siblings",
            Self::Custom(resolver) => resolver,
        }
    }
}

/// How many regions must have fsynced a write before it is acknowledged, the accepting one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckLevel {
    /// `local` is `regions:1`: survives a crash of process or power, not the loss of the region.
    Regions(u8),
    /// More than half of the regions that may hold the record.
    Majority,
}

impl AckLevel {
    /// Acknowledged by the accepting region alone.
    pub const LOCAL: Self = Self::Regions(1);

    /// How many regions that is when `in_scope` may hold the record.
    pub const fn copies(self, in_scope: usize) -> usize {
        match self {
            Self::Regions(k) => k as usize,
            Self::Majority => in_scope / 2 + 1,
        }
    }

    /// Reads `local`, `regions:k` (k from 1 to 255) or `majority`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "local" => Some(Self::LOCAL),
            "majority" => Some(Self::Majority),
            other => match other.strip_prefix("regions:")?.parse() {
                Ok(0) | Err(_) => None,
                Ok(k) => Some(Self::Regions(k)),
            },
        }
    }
}

impl std::fmt::Display for AckLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Regions(1) => f.write_str("local"),
            Self::Regions(k) => write!(f, "regions:{k}"),
            Self::Majority => f.write_str("majority"),
        }
    }
}

/// One strategy, as `define-replication-strategy` gave it with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    /// The lag that operators want to stay below.
    pub lag_target: Millis,
    /// Who wins.
    pub conflict_resolution: ConflictResolution,
    /// Regions in order of preference: lanes, and winners under [`ConflictResolution::PriorityRegions`].
    pub priority_regions: Vec<RegionId>,
    /// The level for writes that name none.
    pub ack: AckLevel,
    /// The class of records that name none.
    pub default_class: DataClass,
    /// What else writers leave out, and what they may not.
    pub labels: LabelRules,
    /// How much of it a region takes.
    pub quota: Quota,
}

/// How much of a namespace a region holds before it takes no more of its own clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of values, as they are stored.
    pub bytes: Option<ByteCount>,
    /// Keys with a record.
    pub records: Option<u64>,
    /// Bytes of one value; 1 GiB unless said.
    pub object_bytes: Option<ByteCount>,
}

impl Quota {
    /// Whether nothing is bounded.
    pub const fn is_none(self) -> bool {
        !self.counts() && self.object_bytes.is_none()
    }

    /// Whether what is held of the namespace has to be counted.
    pub const fn counts(self) -> bool {
        self.bytes.is_some() || self.records.is_some()
    }
}

/// A label that a namespace may demand of its writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LabelName {
    /// `Repomind-Class`.
    Class,
    /// `Repomind-Jurisdiction`.
    Jurisdiction,
    /// `Repomind-Subject`.
    Subject,
    /// `Repomind-Basis`.
    Basis,
    /// `Repomind-Purpose`.
    Purpose,
    /// `Repomind-Retain-Until`.
    RetainUntil,
}

impl LabelName {
    /// All of them, by their names in policies.
    pub const ALL: [(&'static str, Self); 6] = [
        ("class", Self::Class),
        ("jurisdiction", Self::Jurisdiction),
        ("subject", Self::Subject),
        ("basis", Self::Basis),
        ("purpose", Self::Purpose),
        ("retain-until", Self::RetainUntil),
    ];

    /// The header that carries it.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Class => "Repomind-Class",
            Self::Jurisdiction => "Repomind-Jurisdiction",
            Self::Subject => "Repomind-Subject",
            Self::Basis => "Repomind-Basis",
            Self::Purpose => "Repomind-Purpose",
            Self::RetainUntil => "Repomind-Retain-Until",
        }
    }

    /// The name in policies.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, label)| *label == self).map_or("", |(name, _)| name)
    }
}

/// What a namespace supplies of labels that a writer leaves out, demands of every writer, and how long it keeps records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRules {
    /// The countries of records that name none.
    pub jurisdictions: BTreeSet<Country>,
    /// The purpose of records that name none; `service` where there is none here either.
    pub purpose: Option<Purpose>,
    /// The basis of records that name none; `unstated` where there is none here either.
    pub basis: Option<Basis>,
    /// What every write has to state.
    pub required: BTreeSet<LabelName>,
    /// How long records of a class are kept after they were collected, at most.
    pub retention: BTreeMap<DataClass, Millis>,
}

impl LabelRules {
    /// When a record must be gone and by which rule, by its own label or by that of its classes, whichever comes first.
    pub fn expiry(&self, labels: &Labels) -> Option<(UnixMillis, RuleId)> {
        let rule = |name: &str| RuleId::new(name).expect("a fixed rule name");
        let own = labels.retain_until.map(|until| (until, rule("retain-until")));
        let classes = labels.classes.iter().filter_map(|class| {
            let kept = self.retention.get(class)?;
            Some((labels.collected_at + *kept, rule(&format!("retention-of-{class}"))))
        });
        own.into_iter().chain(classes).min()
    }
}

/// Strategies by namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationPlan {
    /// For every namespace that has none of its own.
    pub default: Strategy,
    /// The namespaces that differ.
    pub namespaces: BTreeMap<Namespace, Strategy>,
}

impl ReplicationPlan {
    /// The strategy of a namespace.
    pub fn strategy(&self, namespace: &Namespace) -> &Strategy {
        self.namespaces.get(namespace).unwrap_or(&self.default)
    }
}

/// What Rust does at a certain lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LagAction {
    /// Nothing.
    Ok,
    /// Tell the operator.
    Alert,
    /// Refuse writes with 429 and Retry-After.
    Throttle,
    /// Refuse writes with 503 and report not ready.
    Unready,
}

impl LagAction {
    /// The name in policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Alert => "alert",
            Self::Throttle => "throttle",
            Self::Unready => "unready",
        }
    }
}

/// The bands that `(lag-action link)` gave: each action holds from its lag upward. Sorted, the first from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LagBands(pub Vec<(Millis, LagAction)>);

impl LagBands {
    /// The action at `lag`.
    pub fn at(&self, lag: Millis) -> LagAction {
        self.0.iter().rev().find(|(from, _)| *from <= lag).map_or(LagAction::Ok, |&(_, action)| action)
    }
}
