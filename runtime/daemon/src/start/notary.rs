//! Signs the checkpoints of this region's ledger, and cosigns those of the others.
//!
//! Every second, if the ledger grew, the durable end of it is signed and shown to
//! every other region. Each cosigns only what continues the checkpoint that it
//! saw last, and has that on disk before it answers. What could not be cosigned
//! is tried again with the next second; there is nothing else to lose.
//!
//! A region that sees another history than it cosigned before says so: an error
//! in both logs, and `repomind_ledger_forks_total`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use compliance::audit::WITNESS_QUORUM;
use compliance::ledger::note::Note;
use compliance::ledger::witness::verify_cosignature;
use compliance::ledger::{
    Checkpoint, CosignRequest, KeyKind, Signer, VerifierKey, Witness, WitnessError, origin, witness_name,
};
use data::{CheckpointNotes, DataPlane};
use futures_util::future::join_all;
use model::petition::Signed;
use model::{RegionId, UnixMillis};
use net::pki::{SigningKey, VerifyingKey};
use net::{CosignAnswer, CosignRefusal, PeerClient, PeerError};
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// How often a checkpoint is signed, at most.
const EVERY: Duration = Duration::from_secs(1);
/// What a peer answers that has seen another history (C2SP tlog-witness).
const OTHER_HISTORY: u16 = 422;

/// A key under its name in notes.
struct NamedKey {
    name: String,
    key: SigningKey,
}

impl Signer for NamedKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn public_key(&self) -> [u8; 32] {
        *self.key.verifying_key().bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// The keys that a notary needs, as [`net::pki::load`] gives them.
pub struct NotaryKeys {
    /// Signs this region's ledger.
    pub ledger: SigningKey,
    /// Cosigns those of others.
    pub witness: SigningKey,
    /// Verify the ledgers of all regions.
    pub ledgers: BTreeMap<RegionId, VerifyingKey>,
    /// Verify their cosignatures.
    pub witnesses: BTreeMap<RegionId, VerifyingKey>,
}

/// One region's signer and witness.
pub struct Notary {
    ledger: NamedKey,
    cosigner: NamedKey,
    /// The keys with which others cosign.
    witnesses: BTreeMap<RegionId, VerifierKey>,
    /// The keys with which regions sign their ledgers, and orders.
    ledgers: BTreeMap<RegionId, VerifyingKey>,
    /// What this region has cosigned. Held until it is on disk.
    witness: tokio::sync::Mutex<Witness>,
    /// Regions whose ledgers show another history, so that it is said once.
    accused: Mutex<BTreeSet<RegionId>>,
}

fn named(
    keys: &BTreeMap<RegionId, VerifyingKey>,
    kind: KeyKind,
    name: impl Fn(&RegionId) -> String,
) -> anyhow::Result<BTreeMap<RegionId, VerifierKey>> {
    let one = |(region, key): (&RegionId, &VerifyingKey)| {
        Ok((region.clone(), VerifierKey::new(name(region), kind, *key.bytes())?))
    };
    keys.iter().map(one).collect()
}

impl Notary {
    /// Signs an order or an acknowledgement.
    pub fn signed(&self, what: &str, bytes: Vec<u8>) -> Signed {
        let signature = self.ledger.key.sign(&Signed::message(what, &bytes));
        Signed { bytes, signature }
    }

    /// Whether `region` has signed that.
    pub fn verifies(&self, region: &RegionId, what: &str, signed: &Signed) -> bool {
        let message = Signed::message(what, &signed.bytes);
        self.ledgers.get(region).is_some_and(|key| key.verify(&message, &signed.signature))
    }

    /// A notary of `me`, which remembers what is kept in `data`.
    ///
    /// # Errors
    /// A note that was kept is not what was signed: it was changed on disk.
    pub fn open(me: &RegionId, keys: NotaryKeys, data: &DataPlane) -> anyhow::Result<Self> {
        let ledgers = named(&keys.ledgers, KeyKind::Log, origin)?;
        let changed = |what: &str| {
            format!(
                "{what} was changed on disk or signed with another key; put a whole copy of the data directory back"
            )
        };
        if let Some(note) = data.notes()?.signed {
            let key = ledgers.get(me).with_context(|| format!("no ledger key of {me}"))?;
            Checkpoint::open(&note, key).with_context(|| changed("the last checkpoint of this ledger"))?;
        }
        let mut seen = Vec::new();
        for (region, note) in data.cosigned()? {
            let Some(key) = ledgers.get(&region) else {
                tracing::warn!(%region, "a ledger was cosigned here whose key is gone; it is not cosigned any more");
                continue;
            };
            let what = format!("the checkpoint of {region} that was cosigned here last");
            seen.push(Checkpoint::open(&note, key).with_context(|| changed(&what))?.0);
        }
        let others = ledgers.into_iter().filter(|(region, _)| region != me).map(|(_, key)| key);
        Ok(Self {
            ledger: NamedKey { name: origin(me), key: keys.ledger },
            cosigner: NamedKey { name: witness_name(me), key: keys.witness },
            ledgers: keys.ledgers,
            witnesses: named(&keys.witnesses, KeyKind::Witness, witness_name)?,
            witness: tokio::sync::Mutex::new(Witness::new(others, seen)),
            accused: Mutex::default(),
        })
    }

    /// Cosigns the ledger of `from` and gives the line, once what was cosigned is on disk.
    ///
    /// # Errors
    /// [`CosignRefusal`]; nothing is remembered then.
    pub async fn cosign(
        &self,
        data: &DataPlane,
        from: &RegionId,
        request: &CosignRequest,
        now: UnixMillis,
    ) -> Result<String, CosignRefusal> {
        let shown = request.note.split('\n').next().unwrap_or_default();
        if shown != origin(from) {
            return Err(CosignRefusal::OtherLedger { from: from.clone(), origin: shown.chars().take(80).collect() });
        }
        let mut witness = self.witness.lock().await;
        let mut next = witness.clone();
        let cosigned = next.cosign(request, &self.cosigner, now).inspect_err(|error| self.accuse(from, error))?;
        let note = format!("{}{}", request.note, cosigned.line);
        data.keep_cosigned(from, note).await.map_err(|error| CosignRefusal::NotKept(error.to_string()))?;
        *witness = next;
        self.accused.lock().expect("nothing panics while it holds the lock").remove(from);
        Ok(cosigned.line)
    }

    /// Counts a history that was not cosigned, and says so the first time.
    fn accuse(&self, from: &RegionId, error: &WitnessError) {
        if !matches!(error, WitnessError::Forked { .. } | WitnessError::Shrunk { .. }) {
            return;
        }
        metrics::counter!("repomind_ledger_forks_total", "ledger" => from.to_string()).increment(1);
        if self.accused.lock().expect("nothing panics while it holds the lock").insert(from.clone()) {
            tracing::error!(ledger = %from, %error, "a ledger shows another history than was cosigned here");
        }
    }
}

/// Why a peer did not cosign.
enum NotCosigned {
    /// It has seen another history.
    Forked(String),
    /// Not now.
    Later(String),
}

impl From<PeerError> for NotCosigned {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Refused { status: OTHER_HISTORY, .. } => Self::Forked(error.to_string()),
            _ => Self::Later(error.to_string()),
        }
    }
}

/// The newest checkpoint, and who has cosigned it.
#[derive(Default)]
struct Newest {
    size: u64,
    /// The note with this region's signature alone.
    note: String,
    lines: BTreeMap<RegionId, String>,
    /// What each peer cosigned last: where its next proof leads from.
    from: BTreeMap<RegionId, u64>,
    /// Peers that see a fork, so that it is said once.
    forked: BTreeSet<RegionId>,
    /// The newest that enough others have cosigned.
    witnessed: Option<String>,
}

/// Signs and shows checkpoints until `stop`.
pub async fn keep_checkpoints(region: Arc<RunningRegion>, peers: Vec<PeerClient>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut newest = Newest::default();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(advance(&region, &peers, &mut newest)).await {
            Some(Err(error)) => tracing::error!(%error, "the ledger has no new checkpoint"),
            Some(Ok(())) => {}
            None => return,
        }
    }
}

async fn advance(region: &RunningRegion, peers: &[PeerClient], newest: &mut Newest) -> anyhow::Result<()> {
    let checkpoint = region.data.ledger().checkpoint();
    let grew = checkpoint.size > newest.size;
    if grew {
        newest.note = checkpoint.sign(&region.notary.ledger)?;
        newest.size = checkpoint.size;
        newest.lines.clear();
    }
    let missing: Vec<&PeerClient> = peers.iter().filter(|peer| !newest.lines.contains_key(peer.peer())).collect();
    let asked = missing.iter().map(|peer| ask(region, peer, newest)).collect::<Vec<_>>();
    let answers = join_all(asked).await;
    let mut changed = grew;
    for (peer, answer) in missing.into_iter().map(PeerClient::peer).zip(answers) {
        match answer {
            Ok(line) => {
                changed = true;
                newest.from.insert(peer.clone(), newest.size);
                newest.forked.remove(peer);
                newest.lines.insert(peer.clone(), line);
            }
            Err(NotCosigned::Later(reason)) => tracing::debug!(%peer, reason, "a checkpoint was not cosigned yet"),
            Err(NotCosigned::Forked(reason)) => {
                metrics::counter!("repomind_ledger_forks_total", "ledger" => region.me.to_string()).increment(1);
                if newest.forked.insert(peer.clone()) {
                    tracing::error!(
                        %peer, reason,
                        "another region has cosigned another history of this ledger than this disk has; keep the disk \
                         as evidence and run `repomind-run audit`"
                    );
                }
            }
        }
    }
    if !changed {
        return Ok(());
    }
    metrics::gauge!("repomind_ledger_witnesses").set(newest.lines.len() as f64);
    let note = newest.lines.values().fold(newest.note.clone(), |note, line| note + line);
    if newest.lines.len() >= WITNESS_QUORUM.min(peers.len()) && !peers.is_empty() {
        newest.witnessed = Some(note.clone());
        metrics::gauge!("repomind_ledger_checkpoint").set(newest.size as f64);
    }
    let notes = CheckpointNotes { signed: Some(note), witnessed: newest.witnessed.clone() };
    region.data.keep_notes(&notes).await.context("the checkpoint could not be kept")
}

/// Asks one peer; a second time where it says from which size the proof must lead.
async fn ask(region: &RunningRegion, client: &PeerClient, newest: &Newest) -> Result<String, NotCosigned> {
    let (peer, size) = (client.peer(), newest.size);
    let later = |reason: &dyn std::fmt::Display| NotCosigned::Later(reason.to_string());
    let mut old_size = newest.from.get(peer).copied().unwrap_or(0);
    for _ in 0..2 {
        let data = region.data.clone();
        let proof = tokio::task::spawn_blocking(move || data.consistency_proof(old_size, size)).await;
        let proof = proof.map_err(|error| later(&error))?.map_err(|error| later(&error))?;
        let seen = match client.cosign(&CosignRequest { old_size, proof, note: newest.note.clone() }).await? {
            CosignAnswer::Line(line) => return verified(region, peer, newest, line),
            CosignAnswer::From(seen) => seen,
        };
        if seen > size {
            return Err(NotCosigned::Forked(format!("it has cosigned {seen} leaves, and here are {size}")));
        }
        if seen == old_size {
            return Err(NotCosigned::Forked(format!("it has cosigned another tree of {seen} leaves")));
        }
        old_size = seen;
    }
    Err(later(&"it names another size each time"))
}

fn verified(region: &RunningRegion, peer: &RegionId, newest: &Newest, line: String) -> Result<String, NotCosigned> {
    let later = |reason: String| NotCosigned::Later(reason);
    let key = region.notary.witnesses.get(peer).ok_or_else(|| later("its witness key is not here".into()))?;
    let note = Note::parse(&format!("{}{line}", newest.note)).map_err(|error| later(error.to_string()))?;
    verify_cosignature(&note, key).map_err(|error| later(error.to_string()))?;
    Ok(line)
}
