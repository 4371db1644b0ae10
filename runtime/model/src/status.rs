//! What `/status` of a region answers and `repomind-run status` reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::routing::RegionState;

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
    /// Why the files on disk are not in force, one line a finding; empty when they are.
    pub policy_errors: Vec<String>,
    /// Which region it takes for the primary.
    pub primary: RegionId,
    /// How it sees each other region.
    pub sees: BTreeMap<RegionId, RegionState>,
    /// Measured round trips in milliseconds.
    pub rtt_ms: BTreeMap<RegionId, f64>,
    /// Replication to each peer.
    pub replication: Vec<LinkStatus>,
    /// Delay added to peer links in milliseconds, one way; empty when nothing is emulated.
    pub emulated_delay_ms: BTreeMap<RegionId, f64>,
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
    /// The primary, where the regions agree.
    pub primary: Option<RegionId>,
    /// The regions that answered.
    pub regions: Vec<RegionStatus>,
    /// The regions that did not.
    pub unreachable: Vec<RegionId>,
}
