//! What regions say to each other when a policy lets one of them hold a record no more, or again.
//!
//! A region that may not hold a record any more takes its value out of its row only after a region that may has
//! said, by the same plan, that it has it on disk ([`HoldingQuestion`]); where it has not, it is given it
//! first ([`Homecoming`]). What was evicted is given back the same way when policies allow it again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::question::Rulings;
use crate::record::{Address, DataClass};
use crate::residency::{PlanDigest, RegionPolicy};
use crate::sealing::{KeyParcel, RegionPublicKey};
use crate::snapshot::Given;
use crate::version::Dot;

/// By which rulings somebody decides. A region's number never goes back, so equal stamps are one span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanStamp {
    /// The generation.
    pub generation: u64,
    /// Its rulings.
    pub rulings: PlanDigest,
}

/// Asks which of these writes a region has, and may have by this plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingQuestion {
    /// The plan that the asker follows.
    pub plan: PlanStamp,
    /// The writes; at most [`HoldingQuestion::MOST`].
    pub about: Vec<(Address, Dot)>,
}

impl HoldingQuestion {
    /// The most writes in one question.
    pub const MOST: usize = 256;
}

/// What a region has of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// Its value, durably and with its key; and it keeps that as long as it follows this plan.
    Here,
    /// It has taken it over, and something has replaced it.
    Replaced,
    /// Nothing that would stand for it.
    Absent,
}

/// The answer to a [`HoldingQuestion`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingAnswer {
    /// One for each write, in order; empty where the region follows another plan.
    pub holdings: Vec<Holding>,
    /// For which of its region keys data keys are to be encrypted.
    pub region_key: Option<RegionPublicKey>,
}

/// Asks for writes that policies allow here again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnQuestion {
    /// The writes; at most [`HoldingQuestion::MOST`].
    pub about: Vec<(Address, Dot)>,
    /// For which region key data keys are to be encrypted.
    pub region_key: Option<RegionPublicKey>,
}

/// Writes for a region that may hold them, outside any log, with the keys that open them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Homecoming {
    /// The keys.
    pub keys: Vec<KeyParcel>,
    /// The writes.
    pub rows: Vec<(Address, Given)>,
}

/// Asks what a region holds that it could hold no more under these rulings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImpactQuestion {
    /// The rulings, for the cases in the order of the residency space.
    pub rulings: Rulings,
    /// What each region takes in.
    pub regions: Vec<RegionPolicy>,
    /// How long it may look, in milliseconds.
    pub within_ms: u64,
}

/// Records of one region that become unlawful where they are, alike in class, law and rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImpactGroup {
    /// The class that the rule is about; of several the first.
    pub class: DataClass,
    /// The law that applies, by its name in policies; of several the first.
    pub law: String,
    /// The rule that bars them.
    pub rule: String,
    /// The regions that could hold them; where there is none, they stay and are shown to nobody.
    pub lawful: BTreeSet<RegionId>,
    /// How many there are.
    pub records: u64,
    /// Some of them, as the beginning of the keyed hash by which the audit names records.
    pub some: Vec<String>,
}

/// What one region holds that it could hold no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// So many rows were looked at.
    pub looked_at: u64,
    /// Whether those were all.
    pub complete: bool,
    /// What was found, the largest groups first; at most [`Impact::MOST_GROUPS`].
    pub groups: Vec<ImpactGroup>,
    /// Records in further groups.
    pub further: u64,
}

impl Impact {
    /// The most groups of one region.
    pub const MOST_GROUPS: usize = 16;
    /// The most records that a group names.
    pub const MOST_NAMED: usize = 5;

    /// How many records it would have to give up.
    pub fn records(&self) -> u64 {
        self.groups.iter().map(|group| group.records).sum::<u64>() + self.further
    }
}

/// How far a region is with what its policies let it hold no more, or again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionStatus {
    /// The generation by which it looks.
    pub generation: u64,
    /// Rows looked at in the present round.
    pub looked_at: u64,
    /// Values evicted since the process started.
    pub evicted: u64,
    /// Values brought to a region that may hold them first, since the process started.
    pub brought_home: u64,
    /// Values that came back since the process started.
    pub came_back: u64,
    /// Values that wait for a region to answer, as of the last round.
    pub waiting: u64,
    /// Values that no region may hold: they stay, and are shown to nobody.
    pub stuck: u64,
    /// Deletes that go once every region has them.
    pub deletes: u64,
    /// Whether the last round left nothing to be done by this generation.
    pub done: bool,
}
