//! How a tree becomes the next generation where generations are ordered: from a save, from somebody's hands, or on a
//! word for what waits; and what would be otherwise under one than under another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data::plans::Plans;
use model::Millis;
use model::bundle::{Because, Bundle, PolicyTree, Proposal};
use model::eviction::ImpactQuestion;
use model::radius::{BlastRadius, Comparison, Confirmation, RegionImpact, Side, Waiting};
use model::residency::ResidencyPlan;
use model::routing::Facts;
use model::signing::Endorsement;
use net::PeerClient;

use super::recording::CAME;
use super::signing::{self, Signature};
use super::{Candidate, Generations, Held, Live, Moment, Proposed, RefusedGeneration, Role, gate, took};
use crate::start::edges;

/// How long a change that loosens something waits for the other regions to have it first. One that does not take it
/// over by then is down, or refuses it.
const RECEIVERS_FIRST: Duration = Duration::from_secs(2);
/// How long each region looks through its records for a comparison that somebody asked for.
const IMPACT: Duration = Duration::from_secs(5);
/// The same for a save, which comes into force afterwards: what a look of this length does not see is evicted all the same.
const IMPACT_OF_SAVE: Duration = Duration::from_millis(100);
/// What an answer may take on its way.
const IMPACT_ROUND_TRIP: Duration = Duration::from_millis(500);

/// What somebody wants in force.
struct Wish {
    tree: PolicyTree,
    because: Because,
    /// Also beyond the bounds of a change.
    confirmed: bool,
    endorsement: Option<Endorsement>,
}

impl Generations {
    /// Makes `tree` the next generation, if it differs from the one in force.
    ///
    /// # Errors
    /// [`RefusedGeneration`]; the generation in force stays, and [`Generations::findings`] says why.
    pub async fn propose(
        &self,
        tree: PolicyTree,
        because: Because,
        moment: &Moment,
    ) -> Result<Proposed, RefusedGeneration> {
        let _one = self.changing.lock().await;
        self.propose_next(Wish { tree, because, confirmed: false, endorsement: None }, moment).await
    }

    /// Makes a tree that somebody handed in the next generation.
    ///
    /// # Errors
    /// [`RefusedGeneration::Stale`] where other files are in force than the proposer saw, and all of
    /// [`Generations::propose`].
    pub async fn publish(&self, proposal: Proposal, moment: &Moment) -> Result<Proposed, RefusedGeneration> {
        let _one = self.changing.lock().await;
        let ours = self.hash();
        if proposal.parent != ours {
            return Err(RefusedGeneration::Stale { parent: proposal.parent, ours });
        }
        let Proposal { because, tree, confirmed, endorsement, .. } = proposal;
        self.need_operator(endorsement.as_ref())?;
        self.propose_next(Wish { tree, because, confirmed, endorsement }, moment).await
    }

    /// Puts the candidate that waits in force, on somebody's word. It passes the gate once more: the facts may be
    /// others by now.
    ///
    /// # Errors
    /// [`RefusedGeneration::NotWaiting`] where another candidate waits or none, and all of [`Generations::propose`].
    pub async fn confirm(&self, word: Confirmation, moment: &Moment) -> Result<u64, RefusedGeneration> {
        let _one = self.changing.lock().await;
        let held = self.waiting.load_full();
        let Some(held) = held.as_ref().filter(|held| held.waiting.hash == word.hash) else {
            let waits = held.as_ref().map(|held| held.waiting.hash.clone());
            return Err(RefusedGeneration::NotWaiting { asked: word.hash, waits });
        };
        self.need_operator(word.endorsement.as_ref())?;
        let because = held.waiting.because.clone().confirmed_by(&word.author);
        let wish = Wish { tree: held.tree.clone(), because, confirmed: true, endorsement: word.endorsement };
        match self.propose_next(wish, moment).await? {
            Proposed::InForce(number) => Ok(number),
            Proposed::Unchanged | Proposed::Waiting(_) => Ok(self.number()),
        }
    }

    /// What would be otherwise under one tree than under another.
    ///
    /// # Errors
    /// Where one of them cannot be had or is not good. What is in force stays as it is in any case.
    pub async fn compare(&self, trees: Comparison, moment: &Moment) -> Result<BlastRadius, RefusedGeneration> {
        let tree = |side: Side| match side {
            Side::Tree(tree) => Ok(tree),
            Side::Generation(number) => self.tree(number).map_err(RefusedGeneration::Side),
        };
        let (from, to) = (tree(trees.from)?, tree(trees.to)?);
        let around = (&*self.regions, &moment.facts);
        let before = gate::compile(&self.host, &from, 0, around).await?;
        let after = gate::compile_twice(&self.host, &to, (0, true), around).await?;
        let before = (&before.child, &before.plans, before.resolvers.as_slice(), before.bounds);
        let mut radius = gate::dry_run(before, &after, (&self.regions, moment)).await?;
        self.look_at_stored(&mut radius, &after.plans.residency, IMPACT).await;
        Ok(radius)
    }

    /// Adds to a dry run what each region would have to give up, where verdicts become stricter.
    async fn look_at_stored(&self, radius: &mut BlastRadius, plan: &ResidencyPlan, within: Duration) {
        if radius.residency.stricter == 0 {
            return;
        }
        let question = ImpactQuestion {
            rulings: compliance::rulings_of(plan),
            regions: plan.region_policies().values().cloned().collect(),
            within_ms: within.as_millis() as u64,
        };
        let (data, own) = (self.data.clone(), plan.clone());
        let here = tokio::task::spawn_blocking(move || data.impact(&own, Millis(within.as_millis() as u64)));
        let ask = async |client: &PeerClient| {
            let asked = tokio::time::timeout(within + IMPACT_ROUND_TRIP, client.impact(&question)).await;
            let found = match asked {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err("it did not answer in time".to_owned()),
            };
            RegionImpact { region: client.peer().clone(), found }
        };
        let others = futures_util::future::join_all(self.control.clients.iter().map(|client| ask(client))).await;
        let found = match here.await {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        radius.stored = others;
        radius.stored.push(RegionImpact { region: self.me.clone(), found });
        radius.stored.sort_by(|one, other| one.region.cmp(&other.region));
    }

    async fn propose_next(&self, wish: Wish, moment: &Moment) -> Result<Proposed, RefusedGeneration> {
        let Wish { tree, because, confirmed, endorsement } = wish;
        let live = self.live.load_full();
        let (bundle, signature) = self.bundle(tree, because, endorsement, moment)?;
        // Whatever waited was proposed before this.
        self.hold(None);
        // The same files are signed anew where another operator's key is to take the place of the one that signed them.
        let anew = |live: &Live| matches!(&signature, Signature::Given(_, by) if *by != live.signed_by);
        if live.as_ref().is_some_and(|live| live.hash == bundle.tree.hash() && !anew(live)) {
            self.findings.store(Arc::default());
            return Ok(Proposed::Unchanged);
        }
        let lacking = matches!(signature, Signature::Lacking);
        let role = if lacking { Role::Alone } else { Role::Proposer };
        let candidate = self.examine(&bundle, &moment.facts, role).await?;
        let mut loosens = false;
        if let Some(live) = &live {
            let began = Instant::now();
            let radius = self.dry_run(live, &candidate, moment).await?;
            took("compared", began);
            let beyond = radius.beyond(live.bounds);
            if lacking || (!confirmed && !beyond.is_empty()) {
                return Ok(Proposed::Waiting(Box::new(self.let_wait(bundle, beyond, radius, lacking))));
            }
            for line in radius.lines() {
                tracing::info!(generation = bundle.generation, "this change: {line}");
            }
            loosens = radius.residency.more_permissive > 0;
        } else if lacking {
            return Ok(Proposed::Waiting(Box::new(self.let_wait(bundle, Vec::new(), signing::first(), true))));
        }
        let signed = self.sign(&bundle, signature)?;
        self.agree(&bundle, &signed.0).await?;
        if loosens {
            // A record that is allowed here must not meet regions that do not know yet that it is.
            self.control.taken_over(bundle.generation, RECEIVERS_FIRST).await;
        }
        let facts = moment.facts.clone();
        Ok(Proposed::InForce(self.install(bundle, signed, (candidate, facts), moment.now, CAME).await))
    }

    pub(super) async fn dry_run(
        &self,
        live: &Live,
        candidate: &Candidate,
        moment: &Moment,
    ) -> Result<BlastRadius, RefusedGeneration> {
        // Pins are no part of a generation.
        let plans = Plans { routing: self.bare_routing(), ..Plans::clone(&self.plans.load()) };
        let before = (&live.child, &plans, live.resolvers.as_slice(), live.bounds);
        let mut radius = gate::dry_run(before, candidate, (&self.regions, moment)).await?;
        self.look_at_stored(&mut radius, &candidate.plans.residency, IMPACT_OF_SAVE).await;
        Ok(radius)
    }

    /// Keeps a candidate until somebody gives a word for it.
    fn let_wait(&self, bundle: Bundle, beyond: Vec<String>, radius: BlastRadius, unsigned: bool) -> Waiting {
        let parent = bundle.parent.map_or_else(|| "-".to_owned(), |parent| parent.to_string());
        let (hash, since, because) = (bundle.tree.hash().to_string(), bundle.proposed_at, bundle.because);
        let waiting = Waiting { hash, parent, since, because, beyond, radius, unsigned };
        let who = if unsigned { "an operator's signature" } else { "`policy confirm`" };
        for line in waiting.beyond.iter().cloned().chain(waiting.radius.lines()) {
            tracing::warn!(files = %waiting.hash, "a change waits for {who}: {line}");
        }
        self.findings.store(Arc::default());
        metrics::gauge!("repomind_policy_refused").set(0.0);
        self.hold(Some(Held { waiting: waiting.clone(), tree: bundle.tree }));
        waiting
    }

    pub(super) fn hold(&self, held: Option<Held>) {
        metrics::gauge!("repomind_policy_waiting").set(f64::from(u8::from(held.is_some())));
        self.waiting.store(held.map(Arc::new));
    }

    /// The gate up to the dry run.
    pub(super) async fn examine(
        &self,
        bundle: &Bundle,
        facts: &Facts,
        role: Role,
    ) -> Result<Candidate, RefusedGeneration> {
        let examined = async {
            let (began, around) = (Instant::now(), (&*self.regions, facts));
            let which = (bundle.generation, role != Role::Receiver);
            let candidate = gate::compile_twice(&self.host, &bundle.tree, which, around).await?;
            took("compiled", began);
            if role == Role::Proposer {
                self.have_rehearsed(bundle, &candidate, facts);
            }
            if role != Role::Receiver {
                let began = Instant::now();
                edges::examined(&candidate.plans, &bundle.tree, &self.regions, bundle.proposed_at)?;
                self.proofs.prove(&candidate.child, &candidate.invariants, facts).await?;
                took("proved", began);
            }
            Ok(candidate)
        };
        examined.await.inspect_err(|refused| {
            if let RefusedGeneration::Findings(findings) = refused {
                self.report(findings);
            }
        })
    }
}
