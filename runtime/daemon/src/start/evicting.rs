//! Takes values out of this region that its policies let it hold no more, and gets back what they let it hold again.
//!
//! A round looks through all rows by the plan in force, whenever that changes, a ruling begins or ends to hold, or
//! something was left over; after a restart too, so that a process that was killed half way is followed by one that goes
//! on. How it is done without losing anything is in `data/src/evicting.rs`; here is who is asked, how fast, and
//! what is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::{DataError, DataPlane, Placed};
use model::RegionId;
use model::eviction::{EvictionStatus, Holding, HoldingAnswer, HoldingQuestion, PlanStamp, ReturnQuestion};
use model::record::Address;
use model::version::Dot;
use net::{PeerClient, PeerError};
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// How often it is looked whether there is something to do.
const EVERY: Duration = Duration::from_millis(100);
/// The pause between two spans of rows: bounds how much a round reads.
const BETWEEN_SPANS: Duration = Duration::from_millis(5);
/// The pause after each question to the other regions: with [`HoldingQuestion::MOST`], some 5,000 values a second.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(50);
/// The pause before a round that goes on with what was left over.
const BEFORE_NEXT: Duration = Duration::from_secs(2);
/// The longest such pause, where one round after the other comes no further.
const LONGEST: Duration = Duration::from_secs(30);
/// How often values are brought to the same region for one question.
const HOMECOMINGS: usize = 64;

/// How far it is.
#[derive(Default)]
pub struct Evicting(Mutex<EvictionStatus>);

impl Evicting {
    /// What `/status` shows.
    pub fn status(&self) -> EvictionStatus {
        self.0.lock().expect("nothing panics while it holds the lock").clone()
    }

    fn change(&self, change: impl FnOnce(&mut EvictionStatus)) {
        let status = {
            let mut status = self.0.lock().expect("nothing panics while it holds the lock");
            change(&mut status);
            status.clone()
        };
        metrics::gauge!("repomind_evictions_waiting").set(status.waiting as f64);
        metrics::gauge!("repomind_evictions_stuck").set(status.stuck as f64);
        metrics::counter!("repomind_evicted_total").absolute(status.evicted);
        metrics::counter!("repomind_brought_home_total").absolute(status.brought_home);
    }
}

/// What a round left over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    waiting: u64,
    stuck: u64,
    deletes: u64,
    /// Other plans were in force before it ended.
    overtaken: bool,
}

impl Left {
    fn is_nothing(self) -> bool {
        self.waiting == 0 && self.deletes == 0 && !self.overtaken
    }
}

/// One round by one plan.
struct Round<'r> {
    region: &'r RunningRegion,
    peers: &'r BTreeMap<RegionId, PeerClient>,
    by: PlanStamp,
    left: Left,
    /// Regions that did not answer in this round.
    silent: BTreeSet<RegionId>,
}

/// Looks and evicts until `stop`.
pub async fn keep(region: Arc<RunningRegion>, peers: Vec<PeerClient>, stop: CancellationToken) {
    let peers: BTreeMap<RegionId, PeerClient> =
        peers.into_iter().map(|client| (client.peer().clone(), client)).collect();
    let (mut finished, mut until) = (PlanStamp::default(), None);
    let (mut pause, mut wait, mut before) = (EVERY, BEFORE_NEXT, Left::default());
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = EVERY;
        let by = region.data.plan_stamp();
        let expired = until.is_some_and(|until| region.wall_clock() >= until);
        if by.generation == 0 || (by == finished && !expired) {
            continue;
        }
        let mut round = Round { region: &region, peers: &peers, by, left: Left::default(), silent: BTreeSet::new() };
        let Some(outcome) = stop.run_until_cancelled(round.run()).await else { return };
        let left = round.left;
        match outcome {
            Ok(()) if left.is_nothing() && round.silent.is_empty() => {
                (finished, until) = (by, region.plans.load().residency.next_change(region.wall_clock()));
            }
            Ok(()) if left.overtaken => {}
            Ok(()) => {
                // As long as nothing changes, less and less often.
                wait = if left == before { (wait * 2).min(LONGEST) } else { BEFORE_NEXT };
                (pause, before) = (wait, left);
            }
            Err(DataError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "records that may not be here any more could not be looked for");
                pause = BEFORE_NEXT;
            }
        }
    }
}

impl Round<'_> {
    fn data(&self) -> &DataPlane {
        &self.region.data
    }

    async fn run(&mut self) -> Result<(), DataError> {
        // What was let in by another plan is in its row by then.
        self.data().settle_queue().await?;
        let mut offers = BTreeSet::new();
        for peer in self.peers.keys() {
            if !self.data().has_offered(peer, self.by.rulings)? {
                offers.insert(peer.clone());
            }
        }
        let (generation, mut after) = (self.by.generation, None);
        self.region.evicting.change(|status| {
            (status.generation, status.looked_at, status.done) = (generation, 0, false);
        });
        loop {
            let (data, from) = (self.data().clone(), after.take());
            let looked = tokio::task::spawn_blocking(move || data.look_after(from.as_ref())).await;
            let looked = looked.map_err(|_| DataError::Closed)??;
            if self.data().plan_stamp() != self.by {
                self.left.overtaken = true;
                return Ok(());
            }
            self.left.deletes += looked.deletes;
            self.region.evicting.change(|status| status.looked_at += looked.rows);
            self.evict(looked.unlawful).await?;
            self.fetch(looked.away).await?;
            self.offer(looked.lawful, &offers).await?;
            after = looked.next;
            if after.is_none() {
                break;
            }
            tokio::time::sleep(BETWEEN_SPANS).await;
        }
        offers.retain(|peer| !self.silent.contains(peer));
        self.data().offered(&offers, self.by.rulings).await?;
        self.finish().await
    }

    async fn finish(&mut self) -> Result<(), DataError> {
        let (data, runtime) = (self.data().clone(), tokio::runtime::Handle::current());
        let dropped = tokio::task::spawn_blocking(move || runtime.block_on(data.drop_barred_keys())).await;
        let dropped = dropped.map_err(|_| DataError::Closed)??;
        let Left { waiting, stuck, deletes, .. } = self.left;
        let done = self.left.is_nothing();
        let before = self.region.evicting.status();
        self.region.evicting.change(|status| {
            (status.waiting, status.stuck, status.deletes, status.done) = (waiting, stuck, deletes, done);
        });
        if dropped > 0 || (before.waiting, before.stuck) != (waiting, stuck) {
            let generation = self.by.generation;
            tracing::info!(
                generation,
                waiting,
                stuck,
                keys = dropped,
                "records were held against the policies in force"
            );
        }
        Ok(())
    }

    /// Evicts what a region that may hold it has, after bringing it to those that lack it.
    async fn evict(&mut self, unlawful: Vec<Placed>) -> Result<(), DataError> {
        let (stuck, movable): (Vec<Placed>, Vec<Placed>) =
            unlawful.into_iter().partition(|placed| placed.regions.is_empty());
        self.left.stuck += stuck.len() as u64;
        for some in movable.chunks(HoldingQuestion::MOST) {
            let said = self.said_of(some, true).await?;
            let safe = |(_, said): &(&Placed, &Vec<Holding>)| !said.is_empty() && !said.contains(&Holding::Absent);
            let which: Vec<(Address, Dot)> = some
                .iter()
                .zip(&said)
                .filter(safe)
                .map(|(placed, _)| (placed.address.clone(), placed.dot.clone()))
                .collect();
            let (count, asked) = (which.len() as u64, some.len() as u64);
            let evicted = if which.is_empty() { 0 } else { self.data().evict_barred(self.by, which).await? };
            self.region.evicting.change(|status| status.evicted += evicted);
            self.left.waiting += asked - count;
            // What another plan kept from going is looked at by that one.
            self.left.overtaken |= evicted < count && self.data().plan_stamp() != self.by;
            tokio::time::sleep(BETWEEN_QUESTIONS).await;
        }
        Ok(())
    }

    /// What each region that answers has of each write; where `bring`, those that have it not are given it first.
    async fn said_of(&mut self, some: &[Placed], bring: bool) -> Result<Vec<Vec<Holding>>, DataError> {
        let mut said = vec![Vec::new(); some.len()];
        let (asked, peers): (BTreeSet<&RegionId>, _) =
            (some.iter().flat_map(|placed| &placed.regions).collect(), self.peers);
        for (region, client) in asked.into_iter().filter_map(|region| Some((region, peers.get(region)?))) {
            if self.silent.contains(region) {
                continue;
            }
            let mut open: Vec<usize> = (0..some.len()).filter(|at| some[*at].regions.contains(region)).collect();
            let mut holdings = BTreeMap::new();
            for _ in 0..HOMECOMINGS {
                let about = |at: &usize| (some[*at].address.clone(), some[*at].dot.clone());
                let about: Vec<(Address, Dot)> = open.iter().map(about).collect();
                let question = HoldingQuestion { plan: self.by, about: about.clone() };
                let Some(answer) = answered(region, client.holdings(&question).await) else {
                    self.silent.insert(region.clone());
                    break;
                };
                if answer.holdings.len() != open.len() {
                    // It follows another plan at this moment.
                    self.silent.insert(region.clone());
                    break;
                }
                let absent: Vec<usize> = (0..open.len()).filter(|at| answer.holdings[*at] == Holding::Absent).collect();
                holdings.extend(open.iter().copied().zip(answer.holdings.iter().copied()));
                let lacking: Vec<(Address, Dot)> = absent.iter().map(|at| about[*at].clone()).collect();
                if absent.is_empty() || !bring || !self.bring(client, &answer, lacking).await? {
                    break;
                }
                open = absent.into_iter().map(|at| open[at]).collect();
            }
            holdings.into_iter().for_each(|(at, holding)| said[at].push(holding));
        }
        Ok(said)
    }

    /// Brings writes to a region that lacks them; whether it took any.
    async fn bring(
        &mut self,
        client: &PeerClient,
        answer: &HoldingAnswer,
        lacking: Vec<(Address, Dot)>,
    ) -> Result<bool, DataError> {
        let (data, to, key) = (self.data().clone(), client.peer().clone(), answer.region_key);
        let coming = tokio::task::spawn_blocking(move || data.homecoming(&to, key, &lacking)).await;
        let coming = coming.map_err(|_| DataError::Closed)??;
        if coming.rows.is_empty() {
            return Ok(false);
        }
        let taken = answered(client.peer(), client.bring_home(&coming).await).unwrap_or(0);
        self.region.evicting.change(|status| status.brought_home += taken);
        Ok(taken > 0)
    }

    /// Asks for values of which only a marker is here, and that may be here again.
    async fn fetch(&mut self, away: Vec<Placed>) -> Result<(), DataError> {
        let mut open: Vec<&Placed> = away.iter().collect();
        for (region, client) in self.peers {
            let here: Vec<&Placed> = open.iter().copied().filter(|placed| placed.regions.contains(region)).collect();
            for some in here.chunks(HoldingQuestion::MOST) {
                let mut about: Vec<(Address, Dot)> =
                    some.iter().map(|placed| (placed.address.clone(), placed.dot.clone())).collect();
                // Large values come a few at a time.
                for _ in 0..HOMECOMINGS {
                    let region_key = self.data().vault().map(|vault| vault.public_key());
                    let question = ReturnQuestion { about: about.clone(), region_key };
                    let Some(coming) = answered(region, client.ask_back(&question).await) else {
                        // Nobody knows what it would have given.
                        self.left.waiting += u64::from(!about.is_empty());
                        break;
                    };
                    if coming.rows.is_empty() {
                        break;
                    }
                    let given: BTreeSet<(Address, Dot)> = coming
                        .rows
                        .iter()
                        .map(|(address, given)| (address.clone(), given.sibling.version.dot.clone()))
                        .collect();
                    self.data().come_home(client.peer(), coming).await?;
                    about.retain(|one| !given.contains(one));
                    open.retain(|placed| !given.contains(&(placed.address.clone(), placed.dot.clone())));
                    if about.is_empty() {
                        break;
                    }
                }
                tokio::time::sleep(BETWEEN_QUESTIONS).await;
            }
        }
        Ok(())
    }

    /// Brings what is here to those that may hold it and have refused it by an earlier plan.
    async fn offer(&mut self, mut lawful: Vec<Placed>, to: &BTreeSet<RegionId>) -> Result<(), DataError> {
        lawful
            .iter_mut()
            .for_each(|placed| placed.regions.retain(|peer| to.contains(peer) && !self.silent.contains(peer)));
        let elsewhere: Vec<Placed> = lawful.into_iter().filter(|placed| !placed.regions.is_empty()).collect();
        for some in elsewhere.chunks(HoldingQuestion::MOST) {
            self.said_of(some, true).await?;
            tokio::time::sleep(BETWEEN_SPANS).await;
        }
        Ok(())
    }
}

/// What a peer answered; one that does not is asked again with the next round.
fn answered<T>(region: &RegionId, answer: Result<T, PeerError>) -> Option<T> {
    answer.inspect_err(|error| tracing::debug!(%region, %error, "a region did not answer about records")).ok()
}
