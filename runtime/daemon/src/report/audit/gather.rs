//! Collects what an audit is given, in the order in which honest regions cannot look guilty: first the checkpoints that
//! each region cosigned for others, then each region's evidence out of one snapshot.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use compliance::audit::{
    ActivityName, DecisionEvidence, Evidence, HeldKey, Inputs, KeyEvidence, LedgerEvidence, PolicyEvidence, RawRow,
    RegionEvidence, RegionKeys, Revision,
};
use data::vault::KeyPlace;
use http::Method;
use model::bundle::{Bundle, PolicyTree};
use model::region::{Addresses, Regions};
use model::replication::ReplicationPlan;
use model::residency::ResidencyPlan;
use model::{Millis, RegionId, UnixMillis};
use net::evidence::Dump;
use net::pki::{PolicyKeys, PublicKeys};

use super::remembered;
use crate::client::Client;
use crate::decisions::Digest;
use crate::decisions::disk::Log;
use crate::decisions::replay::{Under, replay};
use crate::deploy::processes::Deployment;

/// So many of a region's last decisions are asked again.
const DECISIONS: usize = 100;

/// So long after a generation came into force all answers are its own.
const SETTLED: Millis = Millis::from_secs(10);

/// The size in a checkpoint's note, not verified.
pub fn size_of(note: &str) -> Option<u64> {
    note.split('\n').nth(1)?.parse().ok()
}

/// What all regions gave.
pub struct Gathered {
    /// By region, reached or not.
    pub regions: Vec<RegionEvidence>,
    /// The newest bundle whose signature holds.
    pub newest: Option<Bundle>,
    /// The deployment's public keys.
    pub keys: PublicKeys,
    state: std::path::PathBuf,
}

/// Asks every region; `rows` says whether rows are wanted, or the ledgers alone.
///
/// # Errors
/// Where the deployment's keys or its region files cannot be read.
pub async fn gather(client: &Client, deployment: &Deployment, state: &Path, rows: bool) -> anyhow::Result<Gathered> {
    let pki = state.join("pki");
    let keys = PublicKeys::load(&pki).context("an audit verifies with the deployment's own keys")?;
    let mut cosigned = BTreeMap::new();
    for (region, addresses) in &deployment.regions {
        if let Ok(head) = client.ledger(addresses.admin).await {
            cosigned.insert(region.clone(), head.cosigned);
        }
    }
    let (mut regions, mut newest) = (Vec::new(), None::<Bundle>);
    // Where a region keeps its files; beside the state directory's own where its YAML does not say otherwise.
    let tree = config::load(&deployment.tree).map_err(crate::deploy::BadConfiguration)?;
    let policy_keys = PolicyKeys::new(&tree.operators, keys.policy.clone());
    let folders: BTreeMap<RegionId, PathBuf> =
        tree.by_id.into_iter().map(|(id, region)| (id, region.data_dir)).collect();
    for (region, addresses) in &deployment.regions {
        let evidence = match client.evidence(addresses.admin, rows).await {
            Err(error) => Err(format!("{error:#}")),
            Ok(dump) => {
                let attested = attested(&pki, region, addresses, deployment).await;
                let (policy, bundle) = policy(&dump, &policy_keys, &deployment.regions);
                let signed = bundle.clone().zip(policy.as_ref().map(|policy| policy.since));
                newest = [newest, bundle].into_iter().flatten().max_by_key(|bundle| bundle.generation);
                let witnessed = cosigned.remove(region).unwrap_or_default();
                let keys = keys_of(&dump, state, region, folders.get(region));
                let (decisions, told, probes, answers) = match rows {
                    true => (
                        decided(client, addresses.admin, signed).await,
                        told(client, addresses, state, region).await,
                        probes(client, addresses).await,
                        answers(client, addresses, &dump.rows).await,
                    ),
                    false => Default::default(),
                };
                Ok(Evidence { keys, decisions, told, probes, answers, ..evidence(dump, attested, policy, witnessed) })
            }
        };
        regions.push(RegionEvidence { region: region.clone(), evidence });
    }
    Ok(Gathered { regions, newest, keys, state: state.to_owned() })
}

/// The region in the certificate of the node, asked with the identity of any other region that is on this machine;
/// none where there is no such identity or no certificate was shown.
async fn attested(pki: &Path, region: &RegionId, addresses: &Addresses, deployment: &Deployment) -> Option<String> {
    let others = deployment.regions.keys().filter(|other| *other != region);
    let identity = others.filter_map(|other| net::Identity::load(pki, other).ok()).next()?;
    net::attest(&identity, addresses.peer).await.ok().map(|region| region.to_string())
}

/// The policies that a region says it follows, and the bundle where its signature holds. Number and hash are read from
/// the bundle, not believed.
fn policy(
    dump: &Dump,
    keys: &PolicyKeys,
    regions: &BTreeMap<RegionId, Addresses>,
) -> (Option<PolicyEvidence>, Option<Bundle>) {
    let Some((generation, tree, since)) = dump.header.policy else { return (None, None) };
    let signed = || {
        let signed = dump.bundle.as_ref().ok_or("it shows no bundle")?;
        let (bundle, _) = keys.verify(signed)?;
        if !regions.contains_key(&bundle.proposer) {
            return Err(format!("{} proposed it, which is no region of this deployment", bundle.proposer));
        }
        if (bundle.generation, bundle.tree.hash()) != (generation, tree) {
            return Err(format!("the bundle is generation {} with tree {}", bundle.generation, bundle.tree.hash()));
        }
        Ok(bundle)
    };
    let signed = signed();
    let signature = signed.as_ref().map(drop).map_err(Clone::clone);
    (Some(PolicyEvidence { generation, tree, since, signature }), signed.ok())
}

/// So many bytes of a log are read, from its end.
const LOG_BYTES: u64 = 16 << 20;
/// How long a region may take to answer one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// The write that shows no token.
const UNSIGNED: &str = "without a token";
/// The key of the writes that must not be taken.
const PROBE: &str = "/v1/data/audit-probe/probe";

/// What a region tells: its metrics, and its log where that is on this machine.
async fn told(client: &Client, addresses: &Addresses, state: &Path, region: &RegionId) -> Vec<(String, Vec<u8>)> {
    let mut told = Vec::new();
    if let Ok(reply) = client.send(Method::GET, addresses.admin, "/metrics", &[], Bytes::new(), DEADLINE).await
        && reply.status.is_success()
    {
        told.push(("metrics".to_owned(), reply.body.to_vec()));
    }
    told.extend(end_of(&state.join(region.as_str()).join("daemon.log")).map(|log| ("log".to_owned(), log)));
    told
}

fn end_of(path: &Path) -> Option<Vec<u8>> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// So many values about persons are asked for in each region.
const ASKED: usize = 8;

/// The headers with which a region's gateway answers questions for values about persons; none where it does not answer.
async fn answers(
    client: &Client,
    addresses: &Addresses,
    rows: &[(Vec<u8>, Vec<u8>)],
) -> Option<Vec<Vec<(String, String)>>> {
    let mut answers = Vec::new();
    for target in rows.iter().filter_map(about_a_person).take(ASKED) {
        let reply = client.send(Method::GET, addresses.gateway, &target, &[], Bytes::new(), DEADLINE).await.ok()?;
        if !reply.status.is_success() {
            continue;
        }
        let headers = reply.headers.iter();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        answers.push(headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect());
    }
    Some(answers)
}

/// The target of a question for a stored row, where it has a value about a person.
fn about_a_person((key, envelope): &(Vec<u8>, Vec<u8>)) -> Option<String> {
    let nobody = ["public", "operational", "source-code", "credentials"];
    let siblings = compliance::audit::raw::row(envelope).ok()?;
    let mut labels =
        siblings.iter().filter(|sibling| sibling.generation.is_some()).filter_map(|one| one.labels.as_ref());
    labels.find(|labels| labels.classes.iter().any(|class| !nobody.contains(class)))?;
    let (namespace, key) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    let mut target = format!("/v1/data/{namespace}/");
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => target.push(byte.into()),
            _ => target += &format!("%{byte:02X}"),
        }
    }
    Some(target)
}

/// Tries writes that every region has to refuse, whatever its policies say, and takes back what one takes.
async fn probes(client: &Client, addresses: &Addresses) -> Vec<(String, u16)> {
    let tried: [(&str, &[(&str, &str)]); 5] = [
        (UNSIGNED, &[("repomind-class", "public")]),
        ("of a class that nobody knows", &[("repomind-class", "whatever")]),
        ("under the law of a country that there is not", &[("repomind-jurisdiction", "XX")]),
        ("with a label that nobody knows", &[("repomind-secret", "yes")]),
        ("that is over before it is made", &[("repomind-class", "public"), ("repomind-retain-until", "1")]),
    ];
    let unsigned = Client::default();
    let mut answers = Vec::new();
    for (what, headers) in tried {
        let by = if what == UNSIGNED { &unsigned } else { client };
        let body = Bytes::from_static(b"an audit's probe");
        let Ok(reply) = by.send(Method::PUT, addresses.gateway, PROBE, headers, body, DEADLINE).await else { continue };
        answers.push((what.to_owned(), reply.status.as_u16()));
        if reply.status.is_success() {
            let _ = client.send(Method::DELETE, addresses.gateway, PROBE, &[], Bytes::new(), DEADLINE).await;
        }
    }
    answers
}

fn evidence(
    dump: Dump,
    attested: Option<String>,
    policy: Option<PolicyEvidence>,
    witnessed: BTreeMap<RegionId, String>,
) -> Evidence {
    let rows = dump.rows.into_iter().map(|(key, envelope)| RawRow { key, envelope }).collect();
    let losses = dump.losses.into_iter().map(|(key, envelope)| RawRow { key, envelope }).collect();
    let ledger = LedgerEvidence { leaves: dump.leaves, images: dump.images, checkpoint: dump.checkpoint };
    let (ledger, petitions) = (Some(ledger), dump.petitions);
    Evidence { attested, rows, losses, policy, ledger, petitions, witnessed, ..Evidence::default() }
}

/// Asks the last decisions of a region again, by the files that it says gave them; where those are of the generation
/// that it shows a signed bundle of, they must be the signed ones.
async fn decided(client: &Client, admin: SocketAddr, signed: Option<(Bundle, UnixMillis)>) -> Option<DecisionEvidence> {
    let mut log = Log::default();
    log.take("its log", &client.decision_log(admin).await.ok()?);
    let last = log.entries.len().saturating_sub(DECISIONS);
    log.entries.drain(..last);
    if log.entries.is_empty() {
        return None;
    }
    let mut differ = Vec::new();
    if let Some((signed, since)) = &signed {
        let files = model::codec::plain(&signed.tree).map(|bytes| Digest::of(&bytes)).ok()?;
        // What was asked just before another tree took its place under the same number may be answered after.
        let settled = since.0.saturating_add(SETTLED.0);
        let others = log.entries.iter().filter(|one| one.at.0 >= settled);
        let others = others.filter(|one| one.generation == signed.generation && one.tree != files);
        differ.extend(others.map(|one| {
            format!("decision {}: it names other files than those signed as generation {}", one.id, one.generation)
        }));
    }
    let host = crate::aside::host(crate::aside::LOAD, crate::aside::QUESTION).ok()?;
    let outcome = replay(&host, &log, &Under::Recorded, |_| true).await;
    host.shutdown();
    let changed = outcome.changed.iter();
    differ.extend(
        changed.map(|one| {
            format!("decision {}: {}: {}: {} → {}", one.example, one.kind.name(), one.what, one.from, one.to)
        }),
    );
    let mut not_asked = outcome.not_asked;
    if !outcome.damage.is_empty() {
        not_asked.insert(outcome.damage[0].clone(), outcome.damage.len() as u64);
    }
    Some(DecisionEvidence { same: outcome.same, not_asked, differ })
}

/// The keys that a region names, and its files of keys where they are on this machine: by them it is seen whether values
/// are bound to their labels. They are read after the region has answered, so that no key of its rows is missing.
fn keys_of(dump: &Dump, state: &Path, region: &RegionId, folder: Option<&PathBuf>) -> Option<KeyEvidence> {
    let region_keys = dump.header.region_keys.clone()?;
    let folder = state.join(folder.cloned().unwrap_or_else(|| region.as_str().into())).join("keys");
    let file = |name: &str| std::fs::read(folder.join(name)).ok();
    let files = file(KeyPlace::REGION_KEYS).zip(file(KeyPlace::DATA_KEYS));
    let held =
        dump.keys.iter().map(|key| HeldKey { name: key.name, by: key.by, owner: key.owner, after: key.after.clone() });
    Some(KeyEvidence { held: held.collect(), region_keys, files })
}

impl Gathered {
    /// What the audit judges, by `plan`.
    pub fn inputs<'p>(
        self,
        plan: &'p ResidencyPlan,
        keeps: Option<ReplicationPlan>,
        revision: Revision,
        declared: Option<&'p [ActivityName]>,
    ) -> Inputs<'p> {
        let both = |(region, ledger): (&RegionId, &net::pki::VerifyingKey)| {
            let witness = *self.keys.witness.get(region)?.bytes();
            Some((region.clone(), RegionKeys { ledger: *ledger.bytes(), witness }))
        };
        Inputs {
            plan,
            keeps,
            adequacy: compliance::facts::ADEQUACY,
            localised: compliance::facts::LOCALISED,
            declared,
            revision,
            now: now(),
            record_secret: self.keys.digest_key.to_vec(),
            keys: self.keys.ledger.iter().filter_map(both).collect(),
            remembered: remembered::read(&self.state, self.regions.iter().map(|region| &region.region)),
            regions: self.regions,
        }
    }

    /// Where records may be, and how long: by the newest bundle whose signature holds, else by the files of the tree.
    ///
    /// # Errors
    /// Where those policies cannot be loaded here.
    pub async fn plan(&self, tree: &Path) -> anyhow::Result<(ResidencyPlan, ReplicationPlan, Revision)> {
        let regions = config::load(tree).map_err(crate::deploy::BadConfiguration)?;
        let (generation, policies) = match &self.newest {
            Some(bundle) => (bundle.generation, bundle.tree.clone()),
            None => (0, crate::start::watch::read_tree(tree).map_err(crate::deploy::BadConfiguration)?),
        };
        let revision = Revision { generation, tree: policies.hash().to_string() };
        let (residency, replication) = compile(policies, &regions).await?;
        Ok((residency, replication, revision))
    }
}

async fn compile(policies: PolicyTree, regions: &Regions) -> anyhow::Result<(ResidencyPlan, ReplicationPlan)> {
    let host = crate::aside::host(crate::aside::LOAD, crate::aside::QUESTION)?;
    let facts = crate::aside::facts(regions);
    let plan = match host.load(policies, facts).await {
        Ok((child, declarations)) => crate::start::gate::residency(&child, &declarations, regions)
            .await
            .map(|residency| (residency, declarations.replication.clone()))
            .map_err(|error| anyhow!("the residency policies gave no plan: {error}")),
        Err(findings) => Err(crate::deploy::BadConfiguration(findings).into()),
    };
    host.shutdown();
    plan
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
