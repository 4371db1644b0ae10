//! Where a request goes: the facts that policies rank regions by, and the
//! table that requests are answered from, over HTTP and over DNS.

mod zone;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::{Country, Feature, RegionId};
use crate::region::Coordinates;
use crate::units::Micros;

pub use zone::*;

/// A group of clients that are routed alike: those of one country, or those of no known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientClass {
    /// The country, where it is known.
    pub country: Option<Country>,
}

/// A region's health as the detector sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegionState {
    /// Not yet heard from since this process started.
    Joining,
    /// Serving.
    Ready,
    /// Some probes are lost; still serving.
    Suspect,
    /// Not serving.
    Down,
    /// Reachable again, and still taking over what it missed.
    CatchingUp,
    /// Judged unwell by policy, or not yet steady for long enough after it was lost: it answers, and serves nobody new while
    /// another region serves.
    Degraded,
    /// An operator wants nobody to be sent there: it serves what arrives all the same.
    Draining,
    /// An operator wants it to serve nobody while another region serves.
    Evacuated,
}

impl RegionState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Joining,
        Self::Ready,
        Self::Suspect,
        Self::Down,
        Self::CatchingUp,
        Self::Degraded,
        Self::Draining,
        Self::Evacuated,
    ];

    /// Whether requests may be sent there.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Suspect)
    }
    /// Whether it answers, although nobody is to be sent there while another region serves.
    pub const fn serves_in_need(self) -> bool {
        matches!(self, Self::Degraded | Self::Draining | Self::Evacuated)
    }
    /// Whether an operator wants it so.
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Draining | Self::Evacuated)
    }
    /// The name in status, metrics and policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::CatchingUp => "catching-up",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Evacuated => "evacuated",
        }
    }
}

/// What policies know of a region when they rank it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionFacts {
    /// The region.
    pub id: RegionId,
    /// Where its machines stand.
    pub country: Country,
    /// Whose law governs it.
    pub jurisdiction: Country,
    /// Its place on the globe.
    pub coordinates: Coordinates,
    /// What it offers.
    pub features: BTreeSet<Feature>,
    /// Whether it is the preferred primary.
    pub primary: bool,
    /// Instances that it can grow to.
    pub max_instances: u32,
    /// Its health.
    pub state: RegionState,
    /// Measured round trips from here to each region; itself is absent.
    pub round_trips: BTreeMap<RegionId, Micros>,
}

/// What policies know of a client class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientFacts {
    /// The class.
    pub class: ClientClass,
    /// `AF AN AS EU NA OC SA`, where the country is known.
    pub continent: Option<String>,
    /// The middle of the country, where it is known.
    pub coordinates: Option<Coordinates>,
}

/// One epoch of facts: everything that a routing policy may look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The regions, in order of id.
    pub regions: Vec<RegionFacts>,
    /// The client classes to rank for.
    pub clients: Vec<ClientFacts>,
}

impl Facts {
    /// Names these facts: equal facts have equal names everywhere.
    pub fn hash(&self) -> String {
        // Every part is ordered, so that equal facts are equal bytes.
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        blake3::hash(&bytes).to_hex()[..12].to_owned()
    }
}

/// Regions for one client class, best first, each with its share of a tie.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ranking {
    /// All regions that the policy named, best first: Rust masks those that are down.
    pub regions: Vec<RegionId>,
}

/// The routing table of one generation and epoch of facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingPlan {
    /// For clients whose class has no ranking of its own.
    pub default: Ranking,
    /// By class.
    pub by_class: BTreeMap<ClientClass, Ranking>,
    /// What is answered over DNS by these rankings.
    pub dns: DnsPlan,
}

/// What the routing policies answered, not yet checked against the facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// For clients of no known country first, then one for each client of the facts, in their order.
    pub rankings: Vec<Ranking>,
    /// The zones, and the shapes of the answers.
    pub dns: DnsPlan,
}

impl RoutingPlan {
    /// The ranking for a class.
    pub fn ranking(&self, class: ClientClass) -> &Ranking {
        self.by_class.get(&class).unwrap_or(&self.default)
    }
}

/// Probe results of one region, as `region-verdict` sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Probes sent in the window.
    pub probes: u32,
    /// Of those, unanswered.
    pub losses: u32,
    /// Unanswered in a row, up to now.
    pub losses_in_a_row: u32,
}
