//! What a region does with the log that the regions agree on: hands generations in, takes up what was agreed on, and
//! without a quorum tightens by itself.

use std::time::{Instant, SystemTime};

use control::Unagreed;
use control::state::{Command, Outcome, Proposed as Ordered};
use model::RegionId;
use model::bundle::{Bundle, Proposal, SignedBundle};
use model::routing::Facts;
use model::signing::SignedBy;

use super::recording::CAME;
use super::{Candidate, Generations, Live, Moment, Proposed, RefusedGeneration, Role, took, unix};

impl Generations {
    /// Takes a tree that tightens residency and does nothing else, in this region alone: there is no quorum.
    ///
    /// # Errors
    /// [`RefusedGeneration::Loosens`] for any other tree, and those of [`Generations::publish`].
    pub async fn publish_alone(&self, proposal: Proposal, moment: &Moment) -> Result<Proposed, RefusedGeneration> {
        let _one = self.changing.lock().await;
        let ours = self.hash();
        if proposal.parent != ours {
            return Err(RefusedGeneration::Stale { parent: proposal.parent, ours });
        }
        let Some(live) = self.live.load_full() else {
            return Err(RefusedGeneration::Loosens(vec!["nothing is in force yet, so anything is a loosening".into()]));
        };
        if proposal.tree.hash() == live.hash {
            return Ok(Proposed::Unchanged);
        }
        self.need_operator(proposal.endorsement.as_ref())?;
        if self.is_ahead(&live) {
            let already = "this region has tightened once already; that waits for a quorum to agree on it";
            return Err(RefusedGeneration::Loosens(vec![already.into()]));
        }
        let Proposal { because, tree, endorsement, .. } = proposal;
        let (bundle, signature) = self.bundle(tree, because, endorsement, moment)?;
        let candidate = self.examine(&bundle, &moment.facts, Role::Alone).await?;
        self.only_tightens(&live, &candidate, moment).await?;
        let signed = self.sign(&bundle, signature)?;
        let facts = moment.facts.clone();
        let number = self.install(bundle, signed, (candidate, facts), moment.now, CAME).await;
        tracing::warn!(generation = number, "tightened in this region alone, until a quorum agrees");
        Ok(Proposed::InForce(number))
    }

    async fn only_tightens(
        &self,
        live: &Live,
        candidate: &Candidate,
        moment: &Moment,
    ) -> Result<(), RefusedGeneration> {
        let beyond = self.dry_run(live, candidate, moment).await?.beyond_tightening();
        if beyond.is_empty() { Ok(()) } else { Err(RefusedGeneration::Loosens(beyond)) }
    }

    /// Has the regions agree on a generation. What comes back is on the disks of a majority.
    pub(super) async fn agree(&self, bundle: &Bundle, signed: &SignedBundle) -> Result<(), RefusedGeneration> {
        let (began, hash) = (Instant::now(), bundle.tree.hash());
        let next = Ordered { number: bundle.generation, parent: bundle.parent, hash, bundle: signed.clone() };
        let outcome = self.control.log.propose(Command::Generation(next)).await?;
        took("agreed", began);
        match outcome {
            Outcome::Stale { hash, .. } => {
                let parent = bundle.parent.map_or_else(|| "-".to_owned(), |parent| parent.to_string());
                Err(RefusedGeneration::Stale { parent, ours: hash.to_string() })
            }
            // The last one is no answer to a generation.
            Outcome::Done | Outcome::Nothing | Outcome::OrdersChanged { .. } => Ok(()),
        }
    }

    /// Whether what is in force here is more than what the regions agreed on: it was tightened without a quorum, or
    /// comes from before there was a log.
    fn is_ahead(&self, live: &Live) -> bool {
        match self.control.decided() {
            None => true,
            Some(decided) => live.bundle.generation == decided.number + 1 && live.bundle.parent == Some(decided.hash),
        }
    }

    /// Whether this region has tightened by itself and nobody agreed to it yet.
    pub fn tightened_alone(&self) -> bool {
        let live = self.live.load_full();
        self.control.decided().is_some() && live.is_some_and(|live| self.is_ahead(&live))
    }

    /// As the primary: hands in what is in force here and not agreed on yet.
    ///
    /// # Errors
    /// Those of [`Generations::publish`].
    pub async fn hand_in(&self) -> Result<(), RefusedGeneration> {
        let _one = self.changing.lock().await;
        match self.live.load_full().filter(|live| self.is_ahead(live)) {
            Some(live) => self.agree(&live.bundle, &live.signed).await,
            None => Ok(()),
        }
    }

    /// Takes up a generation that another region has and this one has not: as the primary, what that region tightened
    /// by itself; without a log, whatever is newer.
    ///
    /// # Errors
    /// Where it is not good, or does more than tighten.
    pub async fn take_over(
        &self,
        from: &RegionId,
        signed: SignedBundle,
        moment: &Moment,
    ) -> Result<u64, RefusedGeneration> {
        let (bundle, by) = self.verified(from, &signed)?;
        let _one = self.changing.lock().await;
        let live = self.live.load_full();
        if live.as_ref().is_some_and(|live| bundle.generation <= live.bundle.generation) {
            return Ok(self.number());
        }
        if self.control.decided().is_none() {
            let candidate = self.examine(&bundle, &moment.facts, Role::Receiver).await?;
            let facts = moment.facts.clone();
            return Ok(self.install(bundle, (signed, by), (candidate, facts), moment.now, CAME).await);
        }
        let Some(live) = live.filter(|live| bundle.parent == Some(live.hash)) else {
            let parent = bundle.parent.map_or_else(|| "-".to_owned(), |parent| parent.to_string());
            return Err(RefusedGeneration::Stale { parent, ours: self.hash() });
        };
        self.control.log.confirm().await.map_err(Unagreed::from)?;
        let candidate = self.examine(&bundle, &moment.facts, Role::Proposer).await?;
        self.only_tightens(&live, &candidate, moment).await?;
        self.agree(&bundle, &signed).await?;
        Ok(self.install(bundle, (signed, by), (candidate, moment.facts.clone()), moment.now, CAME).await)
    }

    /// Takes up a generation that the regions agreed on.
    ///
    /// # Errors
    /// [`RefusedGeneration`]; the generation in force stays.
    pub async fn decided(&self, next: &Ordered, facts: Facts) -> Result<u64, RefusedGeneration> {
        let _one = self.changing.lock().await;
        if let Some(live) = self.live.load_full() {
            let same = live.bundle.generation == next.number && live.hash == next.hash;
            if same || (live.bundle.generation == next.number + 1 && live.bundle.parent == Some(next.hash)) {
                return Ok(self.number());
            }
            if live.bundle.generation >= next.number {
                let (ours, why) = (live.bundle.generation, &live.bundle.because.reason);
                tracing::warn!(
                    ours, files = %live.hash, agreed = next.number,
                    "what was in force here ({why}) was not agreed on, and something else was: it gives way"
                );
            }
        }
        let (bundle, by) = self.verified(&self.me, &next.bundle)?;
        // What was signed once must not come back as something else.
        if (bundle.generation, bundle.parent, bundle.tree.hash()) != (next.number, next.parent, next.hash) {
            let parent = bundle.parent.map_or_else(|| "nothing".to_owned(), |parent| parent.to_string());
            let reason = format!("it is generation {} ({} after {parent})", bundle.generation, bundle.tree.hash());
            return Err(RefusedGeneration::Bundle { from: bundle.proposer, reason });
        }
        let (candidate, facts) = match self.rehearsed(&bundle).await {
            Some(ready) => ready,
            None => (self.examine(&bundle, &facts, Role::Receiver).await?, facts),
        };
        let since = unix(SystemTime::now());
        Ok(self.install(bundle, (next.bundle.clone(), by), (candidate, facts), since, CAME).await)
    }

    fn verified(&self, from: &RegionId, signed: &SignedBundle) -> Result<(Bundle, SignedBy), RefusedGeneration> {
        let refuse = |reason: String| RefusedGeneration::Bundle { from: from.clone(), reason };
        let (bundle, by) = self.keys.verify(signed).map_err(refuse)?;
        if !self.regions.by_id.contains_key(&bundle.proposer) {
            return Err(refuse(format!("{} proposed it, which is no region of this deployment", bundle.proposer)));
        }
        Ok((bundle, by))
    }
}
