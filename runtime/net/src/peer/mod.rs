//! How regions speak with each other: HTTP/2 over mutual TLS.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /peer/v1/probe` | | [`PeerReport`] in postcard |
//! | `POST /peer/v1/ship` | a batch envelope, zstd level 1 | [`data::Received`] in postcard |
//! | `POST /peer/v1/keys` | data keys of what is shipped next, each encrypted for the receiver | nothing |
//! | `POST /peer/v1/rows` | a part of the sender's rows, zstd level 1 | [`data::Received`] in postcard |
//! | `GET /peer/v1/account` | | the receiver's digests, by scope, in postcard; nothing where it is not at rest |
//! | `POST /peer/v1/page` | a span of keys, in postcard | hashes of what both may hold of them, in postcard |
//! | `POST /peer/v1/state` | keys that the sender asks about, in postcard | what the receiver holds of them, zstd |
//! | `POST /peer/v1/petitions` | the orders about people that the sender has, in postcard | those that it lacks, zstd |
//! | `POST /peer/v1/holdings` | writes that the sender wants to evict, in postcard | what is here of each, in postcard |
//! | `POST /peer/v1/chunk` | a [`model::object::ChunkQuestion`] in postcard | the chunk as it is stored; 404, 410 where its write was replaced, 424 where it is damaged |
//! | `POST /peer/v1/home` | records that may be here, with their keys, zstd | how many were taken, in postcard |
//! | `POST /peer/v1/back` | writes that the sender may hold again, in postcard | records, with their keys, zstd |
//! | `POST /peer/v1/impact` | rulings, zstd | what is stored here and would be unlawful by them, in postcard |
//! | `GET /peer/v1/bundle` | | the bundle envelope in force, zstd |
//! | `POST /peer/v1/rehearse` | a candidate that the primary examines, a [`Rehearsal`] in postcard, zstd level 1 | nothing |
//! | `GET /peer/v1/traffic` | | recent traffic by client class, in postcard |
//! | `POST /peer/v1/control` | a request of the common log, see `control` | its answer |
//! | `POST /peer/v1/cosign` | the body of C2SP tlog-witness `add-checkpoint` | the signature line; 409 with the size to prove from |
//!
//! The sender is the region that its certificate names. Probes, shipping and the common log use
//! separate connections, so that a full window never looks like a dead peer or a leader that is gone.
//! Chunks of large values have a connection of their own, too: what a region fetches holds up no entry of a log.
//! Keys and batches are dealt with in the order in which they were sent, so that keys may be sent ahead.
//! A batch carries the header `repomind-life`: the incarnation in which its sender is.

mod chunks;
mod client;
mod cosign;
mod link;
mod server;

pub use chunks::PeerChunks;
pub use client::{PeerClient, PeerError};
pub use cosign::{CosignAnswer, CosignRefusal};
pub use link::run_link;
pub use server::serve_peer;

use std::collections::BTreeMap;

use model::RegionId;
use model::bundle::PolicyTree;
use model::codec::{self, Format};
use model::control::ControlReport;
use model::routing::{Facts, Observation, RegionState};
use model::sealing::RegionPublicKey;
use model::version::PositionVector;
use serde::{Deserialize, Serialize};

const PROBE: &str = "/peer/v1/probe";
const SHIP: &str = "/peer/v1/ship";
const KEYS: &str = "/peer/v1/keys";
const PETITIONS: &str = "/peer/v1/petitions";
const HOLDINGS: &str = "/peer/v1/holdings";
const CHUNK: &str = "/peer/v1/chunk";
const HOME: &str = "/peer/v1/home";
const BACK: &str = "/peer/v1/back";
const IMPACT: &str = "/peer/v1/impact";
const ACCOUNT: &str = "/peer/v1/account";
const PAGE: &str = "/peer/v1/page";
const STATE: &str = "/peer/v1/state";
const ROWS: &str = "/peer/v1/rows";
const BUNDLE: &str = "/peer/v1/bundle";
const REHEARSE: &str = "/peer/v1/rehearse";
const CONTROL: &str = "/peer/v1/control";
const TRAFFIC: &str = "/peer/v1/traffic";
const COSIGN: &str = "/peer/v1/cosign";

/// The header that says in which life of its log the sender of a batch is.
const LIFE: &str = "repomind-life";

/// Compression of everything that regions exchange: level 1 is faster than the links.
const LEVEL: i32 = 1;

/// What a region tells a peer that probes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// How far it has durably taken over each log.
    pub vector: PositionVector,
    /// Up to where it has buried tombstones.
    pub buried: PositionVector,
    /// Up to where it knows that every region has.
    pub quiet: PositionVector,
    /// The policy generation in force there.
    pub generation: u64,
    /// How it takes part in the common log.
    pub control: ControlReport,
    /// Whether it considers itself able to serve.
    pub api_ok: bool,
    /// Its state by its own account.
    pub state: RegionState,
    /// What data keys for it are encrypted with; none where it has no keys.
    pub region_key: Option<RegionPublicKey>,
    /// What it sees of every other region. Whoever is asked about passes over regions that it does not know.
    pub sees: BTreeMap<RegionId, Observation>,
}

/// A candidate that the primary still examines, for the others to load meanwhile. It comes into force, if at all, as
/// the log says, with a signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Its number.
    pub generation: u64,
    /// Its files.
    pub tree: PolicyTree,
    /// What the primary asked it about.
    pub facts: Facts,
    /// BLAKE3 of what it declared and answered there, in two processes alike.
    pub answers: [u8; 32],
}

/// Envelopes and compresses.
fn pack<T: Format>(value: &T) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(&codec::encode(value), LEVEL)
}

/// Decompresses to at most `limit` bytes and opens the envelope.
fn unpack<T: Format>(bytes: &[u8], limit: usize) -> Result<T, String> {
    let plain = zstd::bulk::decompress(bytes, limit)
        .map_err(|error| format!("cannot be decompressed to at most {limit} bytes: {error}"))?;
    codec::decode(&plain).map_err(|error| error.to_string())
}
