//! What an audit is given, and how it is to be gathered.
//!
//! The order matters, or an honest deployment that goes on writing looks
//! guilty: first [`Evidence::witnessed`] of every region, then of each region the rows,
//! the leaves, the images and the checkpoint *out of one snapshot of its store*.

use std::collections::BTreeMap;

use model::bundle::TreeHash;
use model::replication::ReplicationPlan;
use model::residency::ResidencyPlan;
use model::{Millis, RegionId, UnixMillis};
use serde::Serialize;

use super::processing::ActivityName;
use super::tree::Hash;
use crate::facts::{Adequacy, Localisation};

/// A checkpoint needs cosignatures of so many other regions. With three regions, that is both others.
pub const WITNESS_QUORUM: usize = 2;
/// A region may lag behind a new policy generation for so long.
pub const GENERATION_GRACE: Millis = Millis::from_secs(60);
/// A record may outlive its time for so long: until every region has taken over the delete.
pub const RETENTION_GRACE: Millis = Millis::from_secs(2 * 3600);
/// Leaves may wait so long, by the region's clock, until a checkpoint covers them.
pub const UNWITNESSED_GRACE: Millis = Millis::from_secs(600);

/// Everything that an audit looks at.
#[derive(Debug)]
pub struct Inputs<'p> {
    /// The rulings to judge by.
    pub plan: &'p ResidencyPlan,
    /// How long namespaces keep records, by the same policies; none where only the records' own labels are judged.
    pub keeps: Option<ReplicationPlan>,
    /// The adequacy decisions that are taken to hold: [`crate::facts::ADEQUACY`].
    pub adequacy: &'p [Adequacy],
    /// The laws that want a copy at home: [`crate::facts::LOCALISED`].
    pub localised: &'p [Localisation],
    /// The record of processing activities that somebody answers for; none where none was given.
    pub declared: Option<&'p [ActivityName]>,
    /// Where the rulings come from.
    pub revision: Revision,
    /// The time, by the auditor's clock.
    pub now: UnixMillis,
    /// The secret from which record ids are made: the one that [`crate::ledger::RowKeyHasher`] was given.
    pub record_secret: Vec<u8>,
    /// The keys of all regions of the deployment, from its own public key directory, not from the regions asked.
    pub keys: BTreeMap<RegionId, RegionKeys>,
    /// The checkpoint notes that the auditor kept from its last audit, by region; empty at the first.
    pub remembered: BTreeMap<RegionId, String>,
    /// One for every region of the deployment, reached or not.
    pub regions: Vec<RegionEvidence>,
}

/// The policies that an audit judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// The generation.
    pub generation: u64,
    /// The hash of its files, as text.
    pub tree: String,
}

/// The Ed25519 keys of a region. Their names are `repomind/<region>` and `repomind/<region>/witness`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionKeys {
    /// Signs the region's own checkpoints.
    pub ledger: Hash,
    /// Cosigns those of others.
    pub witness: Hash,
}

/// What one region gave.
#[derive(Debug)]
pub struct RegionEvidence {
    /// The region that was asked, as the deployment declares it.
    pub region: RegionId,
    /// Its evidence, or why it was not reached.
    pub evidence: Result<Evidence, String>,
}

/// The evidence of a region that was reached.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The region in the certificate that the node showed; none where no certificate was asked for.
    pub attested: Option<String>,
    /// Every stored row.
    pub rows: Vec<RawRow>,
    /// Every entry of its conflict log.
    pub losses: Vec<RawRow>,
    /// The policies that it follows; none where it did not say.
    pub policy: Option<PolicyEvidence>,
    /// Its ledger; none where it gave none.
    pub ledger: Option<LedgerEvidence>,
    /// Its keys; none where it did not say.
    pub keys: Option<KeyEvidence>,
    /// What came of asking its policies again what they decided; none where that could not be done.
    pub decisions: Option<DecisionEvidence>,
    /// What it keeps of orders about people, as stored.
    pub petitions: Vec<Vec<u8>>,
    /// What it tells: the end of its log and its metrics, by name, as far as they were seen.
    pub told: Vec<(String, Vec<u8>)>,
    /// Writes that no region may take, in words, and the status with which each was answered.
    pub probes: Vec<(String, u16)>,
    /// The headers of answers to questions for values about persons, as (name in small letters, value); none where its
    /// gateway was not asked.
    pub answers: Option<Vec<Vec<(String, String)>>>,
    /// The notes of other regions' checkpoints that this region, as their witness, cosigned last.
    pub witnessed: BTreeMap<RegionId, String>,
}

/// A row as it lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRow {
    /// The stored key.
    pub key: Vec<u8>,
    /// The envelope.
    pub envelope: Vec<u8>,
}

/// The keys of a region, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyEvidence {
    /// The data keys that it has.
    pub held: Vec<HeldKey>,
    /// Its region keys and when each was made, the newest last.
    pub region_keys: Vec<([u8; 8], UnixMillis)>,
    /// Its files of region keys and of data keys, where they are on the auditor's machine.
    pub files: Option<(Vec<u8>, Vec<u8>)>,
}

/// A data key by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldKey {
    /// Its name.
    pub name: [u8; 16],
    /// The region key that wraps it.
    pub by: [u8; 8],
    /// Whose it is; zeros where that is not known.
    pub owner: [u8; 16],
    /// The erasures of the owner that its maker knew of.
    pub after: Vec<[u8; 16]>,
}

/// The policies that a region follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEvidence {
    /// The generation in force.
    pub generation: u64,
    /// The hash of its files.
    pub tree: TreeHash,
    /// Since when it is in force there.
    pub since: UnixMillis,
    /// Whether the signature over its bundle verifies with the deployment's key; if not, why.
    pub signature: Result<(), String>,
}

/// What came of asking policies again what they decided. The newest decisions were asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionEvidence {
    /// How many came out the same.
    pub same: u64,
    /// How many could not be asked again, by reason.
    pub not_asked: BTreeMap<String, u64>,
    /// Those that came out otherwise: what and how, in words.
    pub differ: Vec<String>,
}

/// A region's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerEvidence {
    /// The stored leaves, from index 0.
    pub leaves: Vec<Vec<u8>>,
    /// The stored lists of row images ([`crate::ledger::CommitImages`]) by the index of their commit's leaf. A list may
    /// be missing once later commits have written every row in it again.
    pub images: BTreeMap<u64, Vec<u8>>,
    /// The last signed checkpoint with its cosignatures.
    pub checkpoint: Option<String>,
}
