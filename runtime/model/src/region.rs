//! A region as its YAML file describes it, every default filled in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::{Country, Feature, RegionId};
use crate::signing::Operator;

/// A point on the globe, in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coordinates {
    /// North positive, -90 to 90.
    pub latitude: f64,
    /// East positive, -180 to 180.
    pub longitude: f64,
}

impl Coordinates {
    /// Great-circle distance in kilometres on a sphere of radius 6371 km (haversine).
    pub fn kilometres_to(self, other: Coordinates) -> f64 {
        let (lat1, lat2) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_lat = (lat2 - lat1) / 2.0;
        let half_lon = (other.longitude - self.longitude).to_radians() / 2.0;
        let h = half_lat.sin().powi(2) + lat1.cos() * lat2.cos() * half_lon.sin().powi(2);
        2.0 * 6371.0 * h.sqrt().min(1.0).asin()
    }
}

/// Where a region listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP for users: data API and proxied service.
    pub gateway: SocketAddr,
    /// Health, metrics, status and operations.
    pub admin: SocketAddr,
    /// Mutual TLS for the other regions.
    pub peer: SocketAddr,
    /// UDP and TCP port for authoritative DNS.
    pub dns: SocketAddr,
    /// Under which users reach the gateway, as DNS answers have it; at least one, and none is unspecified.
    pub public: Vec<IpAddr>,
}

/// How much a region can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Instances that always run, at least 1.
    pub min_instances: u32,
    /// Instances that it can grow to, at least `min_instances`.
    pub max_instances: u32,
    /// Requests a second that one instance serves.
    pub per_instance_rps: u32,
}

/// One region, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// The file's stem, `us-east`.
    pub id: RegionId,
    /// The provider's name for it, `us-east-1`.
    pub name: String,
    /// Whether it is the preferred primary.
    pub primary: bool,
    /// Base URL of the service that stands behind the gateway, without a final slash.
    pub api: String,
    /// Object store URL, `s3://…` or `file://…`.
    pub storage: String,
    /// How much it can take.
    pub capacity: Capacity,
    /// What it offers, such as `websockets`.
    pub features: BTreeSet<Feature>,
    /// Where it is on the globe.
    pub coordinates: Coordinates,
    /// The country where it stands.
    pub country: Country,
    /// The country whose law governs it; the same unless the file says otherwise.
    pub jurisdiction: Country,
    /// Where it listens.
    pub addresses: Addresses,
    /// Where its data lives; relative paths are taken from the state directory.
    pub data_dir: PathBuf,
    /// The regions that it exchanges data with; all others by default.
    pub peers: BTreeSet<RegionId>,
}

/// All regions of a tree, by id, with exactly one primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regions {
    /// The regions.
    pub by_id: BTreeMap<RegionId, Region>,
    /// The one whose file says `primary: true`.
    pub primary: RegionId,
    /// Who may sign policies, by name; nobody in development, where the region that proposes them does.
    #[serde(default)]
    pub operators: Vec<Operator>,
}
