//! What `/status` of a region answers and `repomind-run status` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::control::ControlStatus;
use crate::eviction::EvictionStatus;
use crate::judgement::FailoverPlan;
use crate::names::RegionId;
use crate::orders::Orders;
use crate::radius::Waiting;
use crate::routing::RegionState;
use crate::signing::SignedBy;
use crate::units::UnixMillis;

/// What an edge has to know, as a region tells it: `/edge` of its admin address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeOrder {
    /// The region that says so.
    pub region: RegionId,
    /// The generation in force there.
    pub generation: u64,
    /// Names this order: equal orders have equal tags.
    pub tag: String,
    /// The form, as `edge build` writes it.
    pub form: String,
    /// The regions that no request is to be sent to now. Never all of them.
    pub down: Vec<RegionId>,
}

/// An edge that `edge run` keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeStatus {
    /// The kind of edge.
    pub backend: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it answers by some policy.
    pub up: bool,
    /// The revision of the form in force there, empty before the first.
    pub revision: String,
    /// The generation that it came from.
    pub generation: u64,
    /// The regions that it passes over because the region that it follows says so.
    pub down: Vec<RegionId>,
    /// The order that it goes by; empty before the first.
    #[serde(default)]
    pub tag: String,
    /// Why it is behind the region that it follows, or is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What `edge run` says of itself, in a file of the state directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgesStatus {
    /// The region whose word it takes; none where none answers.
    pub follows: Option<RegionId>,
    /// The newest order from there; an edge that goes by another one is on its way to it, or says why not.
    #[serde(default)]
    pub told: String,
    /// The edges.
    pub edges: Vec<EdgeStatus>,
}

/// One region as it sees itself and its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// The region.
    pub id: RegionId,
    /// The provider's name for it.
    pub name: String,
    /// Its health by its own account.
    pub state: RegionState,
    /// The HTTP address for users.
    pub gateway: SocketAddr,
    /// The admin address.
    pub admin: SocketAddr,
    /// The UDP and TCP address for DNS.
    pub dns: SocketAddr,
    /// The policy generation in force.
    pub generation: u64,
    /// The hash of that generation's files.
    pub policy_hash: String,
    /// Whose key signed it; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_signed_by: Option<SignedBy>,
    /// Why `/readyz` says no; absent where it says yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Why the files on disk are not in force, one line a finding; empty when they are.
    pub policy_errors: Vec<String>,
    /// What is being proved of files that were saved, and how far that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_proving: Option<String>,
    /// Files that are good and change so much that they wait for `policy confirm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_waiting: Option<Waiting>,
    /// Which region it takes for the primary; none where nobody is known to lead.
    pub primary: Option<RegionId>,
    /// The log that the regions agree on, as this one sees it.
    pub control: ControlStatus,
    /// How it sees each other region.
    pub sees: BTreeMap<RegionId, RegionState>,
    /// Measured round trips in milliseconds.
    pub rtt_ms: BTreeMap<RegionId, f64>,
    /// Replication to each peer.
    pub replication: Vec<LinkStatus>,
    /// What `failover-plan` last said. Drains are carried out within the runtime's bounds; the rest is advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<FailoverPlan>,
    /// How far it is with records that its policies let it hold no more, or again.
    #[serde(default)]
    pub eviction: EvictionStatus,
    /// Rows that were damaged on its disk; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<DamageStatus>,
    /// By peer: whether both hold the same, as last compared while both were at rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agreement: BTreeMap<RegionId, AgreementStatus>,
    /// Where it knows countries by address from.
    #[serde(default)]
    pub countries: CountrySource,
    /// What operators ordered about the traffic of regions, as far as it holds.
    #[serde(default)]
    pub orders: Orders,
    /// What is made up about the links to peers; its members stand beside the others.
    #[serde(flatten)]
    pub emulated: Emulated,
}

/// Where a region knows countries by address from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountrySource {
    /// `the bundled table`, or a file's path.
    pub from: String,
    /// How many spans of IPv4 addresses it tells apart.
    pub v4_spans: usize,
    /// The same for IPv6.
    pub v6_spans: usize,
    /// Why the file that is there now is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a region makes up about its links, by peer. Whatever is not listed is as the network has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Emulated {
    /// Delay added to every byte, one way, in milliseconds.
    #[serde(rename = "emulated_delay_ms", default)]
    pub delay_ms: BTreeMap<RegionId, f64>,
    /// Where those delays come from.
    #[serde(rename = "emulated_delay_from", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub delay_from: BTreeMap<RegionId, DelayOrigin>,
    /// By how much delays vary to either side, in milliseconds.
    #[serde(rename = "emulated_jitter_ms", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jitter_ms: BTreeMap<RegionId, f64>,
    /// The share of pieces that are lost and sent again, above 0 and up to 1.
    #[serde(rename = "emulated_loss", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loss: BTreeMap<RegionId, f64>,
    /// Links that pass nothing in one direction or in both.
    #[serde(rename = "emulated_cut", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cut: BTreeMap<RegionId, Cut>,
}

/// In which direction a link passes nothing, seen from the region that dialled it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "CutText")]
pub enum Cut {
    /// In neither: the link is whole.
    #[default]
    None,
    /// What this region sends does not arrive.
    Out,
    /// What the peer sends does not arrive.
    In,
    /// In both.
    Both,
}

/// The words for [`Cut`], and the truth values that stand for `both` and `none`.
#[derive(Deserialize)]
#[serde(untagged)]
enum CutText {
    Truth(bool),
    Word(String),
}

impl TryFrom<CutText> for Cut {
    type Error = &'static str;
    fn try_from(text: CutText) -> Result<Self, Self::Error> {
        match text {
            CutText::Truth(true) => Ok(Self::Both),
            CutText::Truth(false) => Ok(Self::None),
            CutText::Word(word) => match word.as_str() {
                "none" => Ok(Self::None),
                "out" => Ok(Self::Out),
                "in" => Ok(Self::In),
                "both" => Ok(Self::Both),
                _ => Err("it is not one of `none`, `out`, `in`, `both`"),
            },
        }
    }
}

/// Where the delay of an emulated link comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DelayOrigin {
    /// Half of a round trip that was measured between the two provider regions.
    Measured,
    /// Computed from the distance, because the table of round trips lacks the pair.
    Estimated,
    /// Set by an operator while the region ran.
    Operator,
}

/// Replication from this region to one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The peer.
    pub peer: RegionId,
    /// Age of the oldest entry that the peer has not durably acknowledged; 0 when there is none.
    pub lag_ms: u64,
    /// How many entries that is.
    pub backlog: u64,
}

/// All regions: what `repomind-run status --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The newest generation that any region has in force.
    pub generation: u64,
    /// The region that may answer for the primary at this moment.
    pub primary: Option<RegionId>,
    /// The term in which it leads; the newest known where nobody does.
    pub term: u64,
    /// The regions that answered.
    pub regions: Vec<RegionStatus>,
    /// The regions that did not.
    pub unreachable: Vec<RegionId>,
    /// Regions at whose addresses another deployment answers: it takes no token made with the keys of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strangers: Vec<RegionId>,
    /// The edges of this machine, where `deploy` started some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<EdgesStatus>,
}

/// Rows that were damaged on a region's disk. They are not served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageStatus {
    /// Keys that wait for what the other regions have of them.
    pub waiting: usize,
    /// Keys of which no other region has anything.
    pub without_copy: usize,
    /// Damaged rows that are kept aside, healed or not.
    pub aside: usize,
}

/// Whether two regions that have taken over the same hold the same, scope by scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementStatus {
    /// When that was last compared.
    pub compared_at: UnixMillis,
    /// The scopes that differed then.
    pub differ: BTreeSet<String>,
    /// When each scope was last found equal.
    pub equal_at: BTreeMap<String, UnixMillis>,
}
