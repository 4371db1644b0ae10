//! Takes part in the log that the regions agree on, and acts on what it says.
//!
//! ```text
//!   probes ──reports──▶ found the log · take regions in and out ─┐
//!   probes ──losses───▶ call an election                         ├─▶ the log ──▶ follow: generations come into force
//!   the gate ─────────▶ hand in the next generation ─────────────┘
//! ```
//!
//! What to do is decided in [`control::rules`], which know no clock; here is what they are told and what is carried
//! out. The detector of [`super::probes`] finds a dead primary sooner than the log's own patience does.
//!
//! Nothing that serves requests waits for any of this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use control::rules::{self, Calling, Founding, Reports, Return};
use control::{ControlLog, NotPrimary, Transport, View};
use futures_util::future::BoxFuture;
use model::bundle::TreeHash;
use model::control::{ControlReport, ControlRole, ControlStatus};
use model::routing::RegionState;
use model::{Finding, Millis, Mono, RegionId};
use net::PeerClient;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::generations::RefusedGeneration;
use super::running::RunningRegion;

/// How often it is looked whether the leader is lost.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is looked whether the connections to the other logs stand.
const CONNECT: Duration = Duration::from_millis(250);
/// How often the leader looks whether members change or its place is to be handed over.
const LEAD: Duration = Duration::from_millis(250);
/// How long an election may take before a region that is asked to order something calls itself alone.
const SETTLES: Duration = Duration::from_millis(2500);
/// A report that is older says nothing any more.
const REPORT_LASTS: Millis = Millis(2000);
/// How long a generation that was agreed on and does not load here is left alone.
const TAKE_AGAIN: Duration = Duration::from_secs(5);

/// Milliseconds of a clock that is never set and goes on while the machine is suspended.
pub fn boot_time() -> Mono {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    Mono(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

/// The way to the logs of the other regions.
pub struct Peers(BTreeMap<RegionId, Way>);

/// The way to one of them.
struct Way {
    client: Arc<PeerClient>,
    room: Arc<Semaphore>,
}

impl Peers {
    /// Nothing is connected yet.
    pub fn new(clients: impl IntoIterator<Item = Arc<PeerClient>>) -> Self {
        let room = || Arc::new(Semaphore::new(net::limits::CONTROL_UNDER_WAY));
        Self(clients.into_iter().map(|client| (client.peer().clone(), Way { client, room: room() })).collect())
    }
}

impl Transport for Peers {
    fn ask(&self, to: &RegionId, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let Some(Way { client, room }) = self.0.get(to) else {
            let unknown = format!("{to} is not configured here");
            return Box::pin(async move { Err(unknown) });
        };
        let (client, permit) = (client.clone(), room.clone().try_acquire_owned());
        Box::pin(async move {
            let permit = permit.map_err(|_| "too many requests are under way".to_owned())?;
            // In a task of its own: whoever gives up waiting must not take with it a connection that is being made.
            let asked = tokio::spawn(async move {
                let answer = client.control(request).await;
                drop(permit);
                answer.map(Vec::from).map_err(|error| error.to_string())
            });
            asked.await.map_err(|error| error.to_string())?
        })
    }

    fn now(&self) -> Mono {
        boot_time()
    }
}

/// What a peer said with its last answer to a probe.
#[derive(Clone, Copy)]
struct Heard {
    at: Mono,
    report: ControlReport,
    generation: u64,
}

/// A generation that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Its number.
    pub number: u64,
    /// Its files.
    pub hash: TreeHash,
}

/// The common log, and what the peers report about their side of it.
pub struct Control {
    me: RegionId,
    /// The log.
    pub log: Arc<dyn ControlLog>,
    /// The connections that the log uses.
    pub clients: Vec<Arc<PeerClient>>,
    heard: Mutex<BTreeMap<RegionId, Heard>>,
    /// Woken by every report.
    reported: tokio::sync::Notify,
}

impl Control {
    /// Nothing was heard yet.
    pub fn new(me: RegionId, log: Arc<dyn ControlLog>, clients: Vec<Arc<PeerClient>>) -> Self {
        Self { me, log, clients, heard: Mutex::default(), reported: tokio::sync::Notify::new() }
    }

    /// Takes in what a peer said of itself.
    pub fn heard(&self, peer: &RegionId, report: ControlReport, generation: u64) {
        let heard = Heard { at: boot_time(), report, generation };
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.clone(), heard);
        self.reported.notify_waiters();
    }

    fn fresh(&self) -> Vec<(RegionId, Heard)> {
        let now = boot_time();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = heard.iter().filter(|(_, heard)| now - heard.at < REPORT_LASTS);
        fresh.map(|(peer, heard)| (peer.clone(), *heard)).collect()
    }

    /// What the regions that answer report, this one included.
    fn reports(&self) -> Reports {
        let mut reports: Reports = self.fresh().into_iter().map(|(peer, heard)| (peer, heard.report)).collect();
        reports.insert(self.me.clone(), self.log.report());
        reports
    }

    /// The generation that the regions agreed on last.
    pub fn decided(&self) -> Option<Agreed> {
        let states = self.log.states();
        let state = states.borrow();
        state
            .generation
            .as_ref()
            .map(|decided| Agreed { number: decided.generation.number, hash: decided.generation.hash })
    }

    /// Returns once every region that answers has this generation in force, or after `limit`.
    pub async fn taken_over(&self, number: u64, limit: Duration) {
        let all = async {
            loop {
                let reported = self.reported.notified();
                if self.fresh().iter().all(|(_, heard)| heard.generation >= number) {
                    return;
                }
                reported.await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(generation = number, "not every region that answers has taken over the generation");
        }
    }

    /// The region that may answer for the primary, as far as this one knows.
    pub fn primary(&self, view: &View, states: &BTreeMap<RegionId, RegionState>) -> Option<RegionId> {
        match view.role {
            ControlRole::Primary => Some(self.me.clone()),
            ControlRole::LeaderWithoutLease | ControlRole::Failed => None,
            _ => {
                let leader = view.leader_region().filter(|leader| **leader != self.me)?;
                (states.get(leader) != Some(&RegionState::Down)).then(|| leader.clone())
            }
        }
    }

    /// Whether this region may answer for the primary, once that is settled: where nobody leads, an election may be
    /// under way, and it is waited for [`SETTLES`]. A leader that is down is nobody.
    ///
    /// # Errors
    /// [`NotPrimary`]; [`NotPrimary::Nobody`] and [`NotPrimary::LeaseLost`] mean that there is no quorum.
    pub async fn settled(&self, states: &ArcSwap<BTreeMap<RegionId, RegionState>>) -> Result<(), NotPrimary> {
        let deadline = tokio::time::Instant::now() + SETTLES;
        let mut changes = self.log.changes();
        loop {
            changes.borrow_and_update();
            let answer = match self.log.confirm().await {
                Err(NotPrimary::Elsewhere { primary, .. })
                    if states.load().get(&primary) == Some(&RegionState::Down) =>
                {
                    NotPrimary::Nobody
                }
                Ok(_) => return Ok(()),
                Err(answer) => answer,
            };
            if !matches!(answer, NotPrimary::Nobody | NotPrimary::LeaseLost) {
                return Err(answer);
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(answer);
            }
        }
    }

    /// Why a region could not be the primary at this moment.
    pub fn cannot_lead(&self, id: &RegionId, states: &BTreeMap<RegionId, RegionState>) -> Option<String> {
        let (view, reports) = (self.log.view(), self.reports());
        let state = states.get(id).map_or("not heard of", |state| state.name());
        match reports.get(id) {
            None => Some(format!("{id} does not answer")),
            Some(_) if states.get(id) != Some(&RegionState::Ready) => Some(format!("{id} is {state}, not ready")),
            Some(report) if !view.members.voters.contains_key(&report.node) => Some(format!("{id} has no vote yet")),
            Some(report) if !report.may_lead => Some(format!("{id} has no key to sign generations with")),
            Some(_) => None,
        }
    }

    /// What is said of the log in the region's status.
    pub fn status(&self, region: &RunningRegion, view: &View, primary: Option<&RegionId>) -> ControlStatus {
        let names = |side: &BTreeMap<_, RegionId>| side.values().cloned().collect::<BTreeSet<RegionId>>();
        let voters = names(&view.members.voters);
        let limits = match (view.role, primary) {
            (ControlRole::Failed, _) => Some(
                "the common log cannot be written or read here: this region no longer votes, and takes no new \
                 policies; data and routing go on. Look at its disk and restart it"
                    .to_owned(),
            ),
            (_, Some(_)) => None,
            _ if voters.is_empty() => Some(NotPrimary::Unfounded.to_string()),
            _ => {
                let answering = self.reports().into_keys().filter(|region| voters.contains(region)).collect();
                Some(rules::without_quorum(&voters, &answering))
            }
        };
        ControlStatus {
            node: self.log.report().node,
            role: view.role,
            term: view.term,
            voters,
            learners: names(&view.members.learners),
            limits,
            tightened_alone: region.generations.tightened_alone(),
        }
    }
}

/// Keeps a connection to a peer's log open, until `stop`: in an election every round trip counts.
pub async fn keep_connected(client: Arc<PeerClient>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(CONNECT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A peer that cannot be reached is for the prober to report.
        let _ = stop.run_until_cancelled(client.ready_for_control()).await;
    }
}

/// Founds the log where that is this region's to do, and asks for votes when the leader is lost, until `stop`.
pub async fn keep_leader(region: Arc<RunningRegion>, stop: CancellationToken) {
    let (mut founding, mut calling) = (Founding::default(), Calling::default());
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beat = true;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (log, now) = (&region.control.log, boot_time());
        // Every other time: a lease of 500 ms must outlast the way there and back, and one that is lost.
        beat = !beat;
        if beat {
            log.beat().await;
        }
        if log.report().fresh {
            found(&region, &mut founding, now).await;
            continue;
        }
        let view = log.view();
        let lost = match view.role {
            ControlRole::Follower | ControlRole::Candidate => {
                let leader = view.leader_region().filter(|leader| **leader != region.me);
                leader.is_none_or(|leader| region.states.load().get(leader) == Some(&RegionState::Down))
            }
            _ => false,
        };
        let line = place_in_line(&region, &view);
        if calling.due(lost && line.is_some(), line.unwrap_or_default(), now) {
            tracing::info!(term = view.term, "the primary is lost: asking the other regions for their votes");
            metrics::counter!("repomind_control_elections_total").increment(1);
            log.call_election().await;
        }
    }
    region.control.log.close().await;
}

async fn found(region: &RunningRegion, founding: &mut Founding, now: Mono) {
    if region.me != region.regions.primary {
        return;
    }
    // A deployment from before there was a log: the newest generation is taken over first.
    let newest = region.control.fresh().iter().map(|(_, heard)| heard.generation).max().unwrap_or(0);
    if newest > region.generations.number() {
        return;
    }
    let regions = region.regions.by_id.keys().cloned().collect();
    let Some(members) = founding.members(&regions, &region.control.reports(), now) else { return };
    let names: Vec<String> = members.values().map(ToString::to_string).collect();
    match region.control.log.found(members).await {
        Ok(()) => tracing::info!(members = names.join(" "), "the regions have a common log from now on"),
        Err(error) => tracing::warn!(%error, "the common log could not be begun"),
    }
}

/// This region's place among the voters that could lead, and are not known to be down.
fn place_in_line(region: &RunningRegion, view: &View) -> Option<usize> {
    let (reports, states) = (region.control.reports(), region.states.load());
    let could = |voter: &&RegionId| {
        reports.get(*voter).is_some_and(|report| report.may_lead)
            && states.get(*voter) != Some(&RegionState::Down)
            && !region.orders.evacuated(voter)
    };
    let could_lead: BTreeSet<RegionId> = view.members.voters.values().filter(could).cloned().collect();
    let advised = region.judging.plan().and_then(|plan| plan.promote);
    rules::line(&region.me, &could_lead, &to_lead(region).0, advised.as_ref())
}

/// The region that is to be the primary, and whether an operator ordered it.
fn to_lead(region: &RunningRegion) -> (RegionId, bool) {
    match &region.orders.holding().lead {
        Some(lead) => (lead.region.clone(), true),
        None => (region.regions.primary.clone(), false),
    }
}

/// Does what falls to the leader, until `stop`: hands in what was not agreed on yet, takes regions in and out, gives
/// the preferred primary its place back.
pub async fn keep_members(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut back = Return::default();
    let mut changes = region.control.log.changes();
    let mut was_primary = false;
    loop {
        let woken = async {
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(LEAD) => {}
            }
        };
        if stop.run_until_cancelled(woken).await.is_none() {
            return;
        }
        let view = region.control.log.view();
        let primary = view.role == ControlRole::Primary;
        if std::mem::replace(&mut was_primary, primary) != primary {
            tracing::info!(term = view.term, primary, "this region's part in the common log changed");
            metrics::gauge!("repomind_control_primary").set(f64::from(u8::from(primary)));
            // The watcher of files looks whose turn it is.
            region.adopted.notify_one();
        }
        metrics::gauge!("repomind_control_term").set(view.term as f64);
        if primary && stop.run_until_cancelled(lead(&region, &view, &mut back)).await.is_none() {
            return;
        }
    }
}

async fn lead(region: &RunningRegion, view: &View, back: &mut Return) {
    if let Err(error) = region.generations.hand_in().await {
        tracing::warn!(%error, "what is in force here was not agreed on");
    }
    let (reports, log) = (region.control.reports(), &region.control.log);
    let regions = region.regions.by_id.keys().cloned().collect();
    if let Some(step) = rules::change(&view.members, &view.caught_up, &regions, &reports) {
        tracing::info!(?step, "the members of the common log change");
        if let Err(error) = log.change(step).await {
            tracing::warn!(%error, "the members of the common log could not be changed; it is tried again");
        }
        return;
    }
    let states = region.states.load();
    let able = |id: &RegionId| {
        let report = reports.get(id).filter(|report| report.may_lead)?;
        let has_all = view.caught_up.contains(&report.node) && view.members.voters.contains_key(&report.node);
        (has_all && states.get(id) == Some(&RegionState::Ready)).then_some(report.node)
    };
    let (preferred, ordered) = to_lead(region);
    let mut to = Some(&preferred).filter(|preferred| **preferred != region.me).and_then(able);
    if !back.due(to.map(|_| &preferred), ordered, boot_time()) {
        to = None;
    }
    if to.is_none() && (!log.report().may_lead || region.orders.evacuated(&region.me)) {
        to = region.regions.by_id.keys().filter(|id| **id != region.me).find_map(able);
    }
    let Some(to) = to else { return };
    tracing::info!(to = %view.members.voters[&to], "handing the place of the primary over");
    if let Err(error) = log.hand_over(to).await {
        tracing::warn!(%error, "the place of the primary could not be handed over");
    }
}

/// Puts in force what the regions agree on, until `stop`.
pub async fn follow(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut states = region.control.log.states();
    loop {
        let next = states.borrow_and_update().generation.as_ref().map(|decided| decided.generation.clone());
        let mut again = Duration::MAX;
        if let Some(next) = next {
            let before = region.generations.number();
            match region.generations.decided(&next, region.facts()).await {
                Ok(number) if number != before => {
                    tracing::info!(generation = number, "took over a generation that the regions agreed on");
                    region.adopted.notify_one();
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(generation = next.number, %error, "what the regions agreed on is not in force here");
                    if let RefusedGeneration::Bundle { .. } = &error {
                        let help = "find out who proposed it; the generation before stays in force here until an operator \
                                    publishes again";
                        let message = format!("generation {} is not taken: {error}", next.number);
                        region.generations.report(&[Finding::error("", "", (0, 0), message, help)]);
                    }
                    again = TAKE_AGAIN;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(again) => {}
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}
