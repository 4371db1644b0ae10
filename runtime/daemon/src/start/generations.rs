//! Takes policy generations through their life: loaded, compiled to plans, in force.
//!
//! ```text
//!   edited tree ──propose──▶ the gate ──▶ signed ──▶ agreed on ──▶ in force
//!                               │ beyond the bounds of a change
//!                               └──▶ waiting ──confirm──▶ the gate once more ──▶ signed ──▶ …
//!   bundle from the log ──decided──▶ verified ──▶ the gate ──▶ in force
//!                                          └── any failure: the last good generation stays
//! ```
//!
//! What the gate looks at is in [`super::gate`]. A candidate that waits is kept in
//! memory: after a restart, the same files are examined again and wait again. It
//! is dropped by whatever comes after it, a newer save or another generation in force.
//!
//! Generations are ordered by the log that the regions agree on (`control`): the primary hands in what passed its
//! gate, and every region takes up what was agreed on. What grew from other files than those in force by then is
//! refused there. A region without a quorum takes nothing but what makes residency stricter, and is *ahead* of the log
//! then; the primary takes that over once they meet again, unless something else was agreed on meanwhile.

mod ordering;
mod proposing;
mod recording;
mod rehearsing;
mod signing;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use control::Unagreed;
use data::DataPlane;
use data::plans::Plans;
use model::bundle::{Because, Bundle, GenerationInfo, PolicyTree, SignedBundle, TreeHash};
use model::orders::Pin;
use model::question::Question;
use model::radius::{ChangeBounds, Waiting};
use model::region::Regions;
use model::routing::{Facts, RoutingPlan};
use model::signing::SignedBy;
use model::{Finding, RegionId, UnixMillis};
use net::pki::{PolicyKeys, SigningKey};
use net::{DnsAnswers, PolicyInForce};
use policy::{Generation, PolicyHost};

use self::recording::{CHANGED, RESTARTED};
use super::control::Control;
use super::gate::{self, Candidate, Moment};
use super::history::History;
use super::proofs::Proofs;
use crate::decisions::Kind;
use crate::decisions::recorder::{Loaded, Recorder};

/// How many kept generations are tried after a restart before a region waits for the primary.
const RESUMED: usize = 3;

/// A generation in force: its child process, and what it was made from.
struct Live {
    child: Generation,
    /// What its answers follow from.
    loaded: Arc<Loaded>,
    bundle: Bundle,
    hash: TreeHash,
    signed: Arc<SignedBundle>,
    signed_by: SignedBy,
    /// Since when it is in force here.
    since: UnixMillis,
    /// The resolvers that it defines.
    resolvers: Vec<String>,
    /// What a save may change without a second look.
    bounds: ChangeBounds,
}

/// What a region has to do with a generation: whoever proposes it proves it too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Has the others load it meanwhile.
    Proposer,
    /// Proposes it to nobody, or not before an operator has signed it.
    Alone,
    Receiver,
}

/// A candidate that waits for a word, and its files.
struct Held {
    waiting: Waiting,
    tree: PolicyTree,
}

/// Holds the generation in force and moves to the next.
pub struct Generations {
    me: RegionId,
    regions: Arc<Regions>,
    host: PolicyHost,
    /// Signs what this region proposes, in development.
    signer: Option<SigningKey>,
    /// Who may sign.
    keys: PolicyKeys,
    /// The generations that were in force here; the newest is taken up after a restart.
    history: History,
    plans: Arc<ArcSwap<Plans>>,
    /// The routing table as the policies gave it: the one in force has pins carried out.
    bare: ArcSwap<RoutingPlan>,
    pins: ArcSwap<Vec<Pin>>,
    /// Told of every change of plans.
    dns: Arc<DnsAnswers>,
    /// Where the ledger is.
    data: DataPlane,
    /// Orders generations.
    control: Arc<Control>,
    live: ArcSwapOption<Live>,
    waiting: ArcSwapOption<Held>,
    findings: ArcSwap<Vec<Finding>>,
    proofs: Proofs,
    /// Writes down what policies decide.
    recorder: Arc<Recorder>,
    /// What is loaded before it is agreed on.
    rehearsed: tokio::sync::Mutex<Option<rehearsing::Rehearsed>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

/// Why a generation was not taken. The one before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum RefusedGeneration {
    /// The files are not good.
    #[error("{} finding(s) in the policy files; the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Findings(Vec<Finding>),
    /// The bundle is not what it claims to be.
    #[error("the policy bundle from {from} was refused: {reason}")]
    Bundle {
        /// Who sent it.
        from: RegionId,
        /// Why.
        reason: String,
    },
    /// Somebody else changed the policies meanwhile.
    #[error("{ours} is in force by now, and the proposal grew from {parent}; look at what changed and publish again")]
    Stale {
        /// What the proposer saw.
        parent: String,
        /// What is in force.
        ours: String,
    },
    /// The regions did not agree on it, or nobody knows whether they did.
    #[error("{0}")]
    Unagreed(#[from] Unagreed),
    /// It does more than tighten, and there is no quorum that could agree on it.
    #[error("without a quorum only a change that tightens residency and does nothing else is taken: {}", .0.join("; "))]
    Loosens(Vec<String>),
    /// The word was for something that does not wait, or not any more.
    #[error("{asked} does not wait for a word; {}", .waits.as_ref().map_or_else(|| "nothing does".to_owned(), |hash| format!("{hash} does")))]
    NotWaiting {
        /// What the word was for.
        asked: String,
        /// What waits.
        waits: Option<String>,
    },
    /// A side of a comparison cannot be had.
    #[error("{0}")]
    Side(String),
    /// Nobody signed it who may.
    #[error("{0}")]
    Signature(String),
    /// The host gave no usable answer.
    #[error("the policy host did not compile the plan: {0}")]
    Host(String),
}

/// What [`Generations::propose`] came to.
pub enum Proposed {
    /// The files are those in force.
    Unchanged,
    /// They are in force now, as this generation.
    InForce(u64),
    /// They are good, change more than the bounds allow, and wait for a word.
    Waiting(Box<Waiting>),
}

impl Generations {
    /// Nothing is in force yet: `plans` denies everything until a generation is taken.
    pub fn new(
        me: RegionId,
        regions: Arc<Regions>,
        host: PolicyHost,
        (signer, keys): (Option<SigningKey>, PolicyKeys),
        (history, proofs): (History, Proofs),
        (plans, dns): (Arc<ArcSwap<Plans>>, Arc<DnsAnswers>),
        (data, control, recorder): (DataPlane, Arc<Control>, Arc<Recorder>),
    ) -> Self {
        Self {
            me,
            regions,
            host,
            signer,
            keys,
            history,
            bare: ArcSwap::from_pointee(plans.load().routing.clone()),
            pins: ArcSwap::default(),
            plans,
            dns,
            data,
            control,
            live: ArcSwapOption::empty(),
            waiting: ArcSwapOption::empty(),
            findings: ArcSwap::from_pointee(Vec::new()),
            proofs,
            recorder,
            rehearsed: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    /// The number in force; 0 before the first.
    pub fn number(&self) -> u64 {
        self.live.load().as_ref().map_or(0, |live| live.bundle.generation)
    }

    /// The hash of the files in force, or `-`.
    pub fn hash(&self) -> String {
        self.live.load().as_ref().map_or_else(|| "-".into(), |live| live.hash.to_string())
    }

    /// Whose key signed what is in force.
    pub fn signed_by(&self) -> Option<SignedBy> {
        self.live.load().as_ref().map(|live| live.signed_by.clone())
    }

    /// Why the files on disk are not in force; empty when they are.
    pub fn findings(&self) -> Arc<Vec<Finding>> {
        self.findings.load_full()
    }

    /// The bundle in force, to be sent to a region that lacks it.
    pub fn signed(&self) -> Option<Arc<SignedBundle>> {
        self.live.load().as_ref().map(|live| live.signed.clone())
    }

    /// The generation in force, as an auditor is shown it.
    pub fn in_force(&self) -> Option<PolicyInForce> {
        self.live.load().as_ref().map(|live| PolicyInForce {
            generation: live.bundle.generation,
            tree: live.hash,
            since: live.since,
            bundle: SignedBundle::clone(&live.signed),
        })
    }

    /// The child in force, to put a question to, and what its answers follow from.
    pub fn asked(&self) -> Option<(Generation, Arc<Loaded>)> {
        self.live.load().as_ref().map(|live| (live.child.clone(), live.loaded.clone()))
    }

    /// Evaluates `source` beside the files in force and some modules more, in a child that dies afterwards.
    ///
    /// # Errors
    /// The findings, placed in the source.
    pub async fn evaluate(
        &self,
        source: (Vec<String>, String),
        beside: Vec<(&str, String)>,
        facts: Facts,
    ) -> Result<String, Vec<Finding>> {
        let mut tree = self.live.load().as_ref().map(|live| live.bundle.tree.clone()).unwrap_or_default();
        if !tree.0.is_empty() {
            tree.0.extend(beside.into_iter().map(|(file, text)| (file.to_owned(), text)));
        }
        self.host.scratch_eval(tree, facts, source).await
    }

    /// Says so where `tree`, as it stands on disk, is what somebody has published another in place of, or saved in
    /// another region's tree: a restart, or a change to some other file, must not undo what that person did. A tree that
    /// was edited since is new.
    pub fn superseded(&self, tree: &PolicyTree) -> Option<Finding> {
        let live = self.live.load_full()?;
        let kept = |generation: u64| Some(self.keys.verify_known(&self.history.load(generation).ok()?).ok()?.0);
        let (hash, mut published) = (tree.hash(), live.bundle.clone());
        // Several may have been published one after the other.
        while !published.because.is_saved_by(&self.me) {
            let parent = published.parent?;
            if parent == hash {
                let Because { author, reason } = &live.bundle.because;
                let message = format!(
                    "the files on disk are those of generation {}; generation {}, which {author} published \
                     ({reason}), is in force",
                    published.generation - 1,
                    live.bundle.generation
                );
                let help = "edit and save them, or publish them, to put them in force again";
                return Some(Finding::error("", "", (0, 0), message, help).warning());
            }
            published = kept(published.generation - 1)?;
        }
        None
    }

    /// Shows a finding that refuses nothing.
    pub fn note(&self, finding: Finding) {
        if self.findings.load().as_slice() != [finding.clone()] {
            tracing::warn!(help = %finding.help, "{}", finding.message);
            self.findings.store(Arc::new(vec![finding]));
        }
    }

    /// Forgets what was found about the files on disk: they are another region's to judge now.
    pub fn nothing_to_report(&self) {
        if !self.findings.load().is_empty() && self.number() > 0 {
            self.findings.store(Arc::default());
        }
        metrics::gauge!("repomind_policy_refused").set(0.0);
        self.hold(None);
    }

    /// Takes up the newest generation kept from before a restart that still loads.
    pub async fn resume(&self, facts: Facts) -> Option<u64> {
        let _one = self.changing.lock().await;
        let kept = self.history.generations();
        // Where operators were named since, what a region had signed stays until one of them signs; not so what a region
        // signed after one of them had.
        let once_signed = kept.iter().any(|generation| {
            self.history
                .load(*generation)
                .is_ok_and(|signed| matches!(self.keys.verify(&signed), Ok((_, SignedBy::Operator(_)))))
        });
        for generation in kept.into_iter().rev().take(RESUMED) {
            let resumed = async {
                let signed = self.history.load(generation)?;
                let (bundle, by) = match once_signed {
                    true => self.keys.verify(&signed)?,
                    false => self.keys.verify_known(&signed)?,
                };
                if let (SignedBy::Region(_), true) = (&by, self.keys.production()) {
                    tracing::warn!(generation, %by, "in force until an operator signs: run `repomind-run policy publish`");
                }
                // It has been in force since it was kept, also where the region was down meanwhile.
                let since = unix(self.history.kept_at(generation).unwrap_or(SystemTime::UNIX_EPOCH));
                let candidate = self.compile(&bundle, &facts).await.map_err(|error| error.to_string())?;
                let facts = facts.clone();
                Ok::<_, String>(self.install(bundle, (signed, by), (candidate, facts), since, RESTARTED).await)
            };
            match resumed.await {
                Ok(number) => return Some(number),
                Err(reason) => tracing::error!(generation, %reason, "a kept generation could not be taken up"),
            }
        }
        None
    }

    /// The generations kept here, oldest first. Those that cannot be read are left out.
    pub fn history(&self) -> Vec<GenerationInfo> {
        let in_force = self.number();
        let info = |generation| {
            let signed = self.history.load(generation).ok()?;
            let known = self.keys.verify_known(&signed).ok();
            let (bundle, signed_by) = match known {
                Some((bundle, by)) => (bundle, Some(by)),
                None => (net::pki::bundle_from_bytes(&signed.bundle).ok()?, None),
            };
            Some(GenerationInfo {
                generation,
                hash: bundle.tree.hash().to_string(),
                parent: bundle.parent.map(|parent| parent.to_string()),
                proposer: bundle.proposer,
                proposed_at: bundle.proposed_at,
                because: bundle.because,
                signed_by,
                in_force: generation == in_force,
            })
        };
        self.history.generations().into_iter().filter_map(info).collect()
    }

    /// The files of a generation.
    ///
    /// # Errors
    /// A sentence: it is not kept here, damaged, or its signature does not match.
    pub fn tree(&self, generation: u64) -> Result<PolicyTree, String> {
        Ok(self.keys.verify_known(&self.history.load(generation)?)?.0.tree)
    }

    /// A generation as it was signed.
    ///
    /// # Errors
    /// A sentence: it is not kept here, or damaged.
    pub fn bundle_of(&self, generation: u64) -> Result<SignedBundle, String> {
        self.history.load(generation)
    }

    /// What is being proved of a candidate, and how far that is.
    pub fn proving(&self) -> Option<String> {
        self.proofs.under_way()
    }

    /// The candidate that waits for a word.
    pub fn waiting(&self) -> Option<Waiting> {
        self.waiting.load().as_ref().map(|held| held.waiting.clone())
    }

    async fn compile(&self, bundle: &Bundle, facts: &Facts) -> Result<Candidate, RefusedGeneration> {
        gate::compile(&self.host, &bundle.tree, bundle.generation, (&self.regions, facts)).await
    }

    /// Puts a candidate in force, which was loaded with these facts, and gives its number. `why` stands in the log of
    /// decisions.
    async fn install(
        &self,
        bundle: Bundle,
        (signed, signed_by): (SignedBundle, SignedBy),
        (candidate, facts): (Candidate, Facts),
        since: UnixMillis,
        why: &str,
    ) -> u64 {
        let Candidate { child, plans, resolvers, bounds, asked, .. } = candidate;
        let (number, hash) = (bundle.generation, bundle.tree.hash());
        self.keep(number, &signed);
        let signed = Arc::new(signed);
        let loaded = Arc::new(Loaded::new(number, bundle.tree.clone(), facts));
        let live = Live { child, loaded: loaded.clone(), bundle, hash, signed, signed_by, since, resolvers, bounds };
        let old = self.live.swap(Some(Arc::new(live)));
        self.put_in_force(plans);
        self.write_all_down(&loaded, asked, why);
        if let Err(error) = self.data.in_force(number, hash).await {
            tracing::error!(generation = number, %error, "the ledger does not tell of the generation");
        }
        self.findings.store(Arc::default());
        self.hold(None);
        metrics::gauge!("repomind_policy_generation").set(number as f64);
        metrics::gauge!("repomind_policy_refused").set(0.0);
        let by = self.signed_by().map(|by| by.to_string());
        tracing::info!(generation = number, %hash, by, "policy generation in force");
        drop(old);
        number
    }

    /// Swaps the plans, and the answers over DNS that follow from them.
    fn put_in_force(&self, plans: Plans) {
        let pinned = routing::pinned(&plans.routing, &self.pins.load());
        self.bare.store(Arc::new(plans.routing.clone()));
        let plans = Arc::new(Plans { routing: pinned, ..plans });
        self.plans.store(plans.clone());
        self.dns.plans_changed(plans);
    }

    /// The routing table as the policies gave it.
    pub fn bare_routing(&self) -> RoutingPlan {
        RoutingPlan::clone(&self.bare.load())
    }

    /// Carries out other pins than before.
    pub fn pin(&self, pins: Vec<Pin>) {
        self.pins.store(Arc::new(pins));
        if self.number() > 0 {
            let current = Plans::clone(&self.plans.load());
            self.put_in_force(Plans { routing: self.bare_routing(), ..current });
        }
    }

    /// Makes refusals seen: in the log, in `status` and in the metrics.
    pub fn report(&self, findings: &[Finding]) {
        for finding in findings {
            tracing::error!(at = %format!("{finding:.0}"), help = %finding.help, in_force = self.number(), "{}", finding.message);
        }
        metrics::counter!("repomind_policy_refusals_total").increment(1);
        metrics::gauge!("repomind_policy_refused").set(1.0);
        self.findings.store(Arc::new(findings.to_vec()));
    }

    /// Ranks the regions anew by fresh facts; everything else stays as it is.
    ///
    /// # Errors
    /// Where the host gave no usable ranking; the table in force stays (routing fails static).
    pub async fn reroute(&self, facts: &Facts) -> Result<(), RefusedGeneration> {
        let Ok(_one) = self.changing.try_lock() else { return Ok(()) };
        let Some(live) = self.live.load_full() else { return Ok(()) };
        let question = Question::Route { facts: facts.clone() };
        let answer = gate::ask(&live.child, question.clone()).await?;
        let routing = gate::routing_of(answer.clone(), facts)?;
        let current = self.plans.load();
        if **self.bare.load() != routing {
            self.write_down(&live.loaded, Kind::Route, (question, answer), CHANGED);
            self.put_in_force(Plans { routing, ..Plans::clone(&current) });
            metrics::counter!("repomind_routing_tables_total").increment(1);
        }
        Ok(())
    }

    fn keep(&self, generation: u64, signed: &SignedBundle) {
        if let Err(error) = self.history.keep(generation, signed) {
            tracing::error!(generation, %error, "the generation could not be kept for a restart");
        }
    }
}

/// Tells how long a step of the gate took.
fn took(step: &'static str, began: Instant) {
    metrics::histogram!("repomind_policy_gate_seconds", "step" => step).record(began.elapsed().as_secs_f64());
    tracing::debug!(step, ms = began.elapsed().as_millis(), "a step of the gate is done");
}

fn unix(time: SystemTime) -> UnixMillis {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
