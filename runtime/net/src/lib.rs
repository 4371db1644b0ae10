//! The sockets: gateway for users, DNS for resolvers, admin for operators, mutual TLS between regions.
//!
//! A daemon implements [`Region`] once and hands it to [`serve_gateway`],
//! [`serve_admin`] and [`serve_peer`]; it runs one [`run_link`] a peer, which
//! ships commits over a [`PeerClient`]. [`serve_dns`] needs only [`DnsAnswers`]. Nothing here decides where data may be
//! or where a request goes: it asks the current plans. Every bound is in
//! [`limits`]. Logs name regions and errors, never keys, subjects or tokens.

mod admin;
mod attest;
mod conflicts;
mod dns;
pub mod evidence;
mod gateway;
pub mod identity;
mod keys;
pub mod limits;
mod peer;
pub mod pki;
mod policies;
mod problem;
mod serve;
mod subjects;
pub mod token;
pub mod wan;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use compliance::ledger::CosignRequest;
use data::DataPlane;
use data::plans::Plans;
use futures_util::future::BoxFuture;
use http::Uri;
use model::bundle::{GenerationInfo, PolicyTree, Proposal, SignedBundle, TreeHash};
use model::control::ControlReport;
use model::explain::{About, Explanation};
use model::judgement::Decision;
use model::names::Subject;
use model::orders::{OrderAnswer, OrderRequest, Orders};
use model::petition::Petition;
use model::radius::{BlastRadius, Comparison, Confirmation, Published, Waiting};
use model::region::Regions;
use model::routing::{ClientClass, Observation, RegionState};
use model::sealing::OrderId;
use model::signing::NextGeneration;
use model::status::{EdgeOrder, RegionStatus};
use model::{Country, Finding, RegionId, UnixMillis};
use routing::TrafficCounts;

pub use admin::{MetricsError, MetricsHandle, install_metrics, serve_admin};
pub use attest::{AttestError, attest};
pub use dns::{DnsAnswers, DnsConfig, DnsSockets, bind_dns, serve_dns};
pub use gateway::{Certificate, GatewayConfig, Network, serve_gateway};
pub use identity::Identity;
pub use keys::{KeyHead, Rotated};
pub use peer::{
    CosignAnswer, CosignRefusal, PeerChunks, PeerClient, PeerError, PeerReport, Rehearsal, run_link, serve_peer,
};
pub use subjects::{DemandRefused, Wanted};
pub use token::TokenVerifier;
pub use wan::Wan;

/// The policies that a region follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInForce {
    /// The generation.
    pub generation: u64,
    /// The hash of its files.
    pub tree: TreeHash,
    /// Since when it is in force here.
    pub since: UnixMillis,
    /// The bundle as it was signed.
    pub bundle: SignedBundle,
}

/// What the servers need from the daemon. Every method answers at once from memory.
pub trait Region: Send + Sync + 'static {
    /// This region.
    fn id(&self) -> &RegionId;
    /// All regions of the deployment.
    fn regions(&self) -> Arc<Regions>;
    /// Where records are kept.
    fn data(&self) -> &DataPlane;
    /// The plans in force.
    fn plans(&self) -> Arc<Plans>;
    /// The health of every region, this one included.
    fn states(&self) -> BTreeMap<RegionId, RegionState>;
    /// What `/status` shows.
    fn status(&self) -> RegionStatus;
    /// The country of a client's address, where it is known.
    fn country(&self, address: IpAddr) -> Option<Country>;
    /// The base URL of the service behind a region's gateway.
    fn api_of(&self, region: &RegionId) -> Option<Uri>;
    /// How this region takes part in the common log, as peers are told.
    fn control_report(&self) -> ControlReport;
    /// Answers a request that the common log of `from` makes.
    fn control(&self, from: RegionId, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>>;
    /// The policy generations kept here, oldest first. Reads files.
    fn policy_history(&self) -> Vec<GenerationInfo>;
    /// The files of a generation, or why they cannot be had. Reads a file.
    fn policy_tree(&self, generation: u64) -> Result<PolicyTree, String>;
    /// A generation as it was signed, or why it cannot be had. Reads a file.
    fn policy_bundle(&self, generation: u64) -> Result<SignedBundle, String>;
    /// Loads a candidate that `from` examines, so that it comes into force sooner if it is agreed on, or says why not.
    fn rehearse(self: Arc<Self>, _from: RegionId, _rehearsal: Rehearsal) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Err("this region rehearses nothing".to_owned()) })
    }
    /// What an operator has to know to sign the next generation.
    fn next_generation(&self) -> NextGeneration;
    /// Makes a tree the next generation everywhere, or lets it wait for a word, or gives all findings.
    fn publish(self: Arc<Self>, proposal: Proposal) -> BoxFuture<'static, Result<Published, Vec<Finding>>>;
    /// Carries out an operator's order about the traffic of a region, or says what would follow from it.
    fn order(self: Arc<Self>, _request: OrderRequest) -> BoxFuture<'static, Result<OrderAnswer, Vec<Finding>>> {
        Box::pin(async { Err(Vec::new()) })
    }
    /// All such orders that were agreed on.
    fn orders(&self) -> Orders {
        Orders::default()
    }
    /// The candidate that waits for a word.
    fn waiting(&self) -> Option<Waiting>;
    /// Gives that word, and the number of the generation that is in force then, or all findings.
    fn confirm(self: Arc<Self>, word: Confirmation) -> BoxFuture<'static, Result<u64, Vec<Finding>>>;
    /// What would be otherwise under one tree than under another, on the facts of this moment.
    fn compare(self: Arc<Self>, trees: Comparison) -> BoxFuture<'static, Result<BlastRadius, Vec<Finding>>>;
    /// Why something is decided as it is, at this moment.
    fn explain(self: Arc<Self>, about: About) -> BoxFuture<'static, Result<Explanation, Vec<Finding>>>;
    /// Where requests that are routed are counted, by the client's country.
    fn traffic(&self) -> &TrafficCounts;
    /// What this region counted lately, as peers are told.
    fn recent_traffic(&self) -> BTreeMap<ClientClass, f64>;
    /// Cosigns the ledger of `from`, and gives the signature line, which is on disk by then.
    fn cosign(
        self: Arc<Self>,
        from: RegionId,
        request: CosignRequest,
    ) -> BoxFuture<'static, Result<String, CosignRefusal>>;
    /// The policies in force, read at once.
    fn policy(&self) -> Option<PolicyInForce>;
    /// The petitions that a peer lacks, which names the orders that it has and how many acknowledgements of each. From
    /// memory.
    fn petitions(&self, _known: &BTreeMap<OrderId, u32>) -> Vec<Petition> {
        Vec::new()
    }
    /// Takes in what is demanded for a person, and gives what came of it, as JSON.
    fn demand(
        self: Arc<Self>,
        _subject: Subject,
        _wanted: Wanted,
    ) -> BoxFuture<'static, Result<serde_json::Value, DemandRefused>> {
        Box::pin(async { Err(DemandRefused::Failed("this region takes no demands".into())) })
    }
    /// Why this region should get no traffic, if so.
    fn ready(&self) -> Result<(), String>;
    /// The bundle in force.
    fn bundle(&self) -> Option<SignedBundle>;
    /// This region's health by its own account, as peers are told.
    fn own_state(&self) -> RegionState;
    /// What this region sees of every other, as peers are told.
    fn observations(&self) -> BTreeMap<RegionId, Observation>;
    /// The last decisions about the health of regions, oldest first; a bounded number.
    fn decisions(&self) -> Vec<Decision>;
    /// What an edge has to know at this moment, or why that cannot be said. Compiles where something changed.
    fn edge(&self) -> Result<Arc<EdgeOrder>, String> {
        Err("this region tells edges nothing".to_owned())
    }
    /// The object store that `/assets/` is answered from, where files were published in it.
    fn assets(&self) -> Option<std::path::PathBuf> {
        None
    }
    /// A secret of the guards, by the name that policies have for it.
    fn secret(&self, _name: &str) -> Option<Vec<u8>> {
        None
    }
    /// One decision of the log of decisions by its number, or the last one, as JSON; a sentence where it is not kept.
    /// Reads files.
    fn decision(&self, _id: Option<u64>) -> Result<serde_json::Value, String> {
        Err("this region keeps no log of decisions".to_owned())
    }
    /// All of that log, as it lies on disk. Reads files.
    fn decision_log(&self) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
    /// The emulated links of this region.
    fn wan(&self) -> &Wan;
    /// Whether requests can be answered here, as peers are told.
    fn api_ok(&self) -> bool {
        self.ready().is_ok()
    }
}
