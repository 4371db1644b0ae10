//! Watches the other regions and the service behind this gateway, and brings
//! the routing table up to date when what is seen changes.
//!
//! Every [`EVERY`] each peer is probed over connections of their own, whether or
//! not earlier probes were answered: a region that swallows packets is noticed
//! as fast as one that is gone. The answer says how far that peer has taken over
//! data, which generation it runs, how it takes part in the common log, and whether
//! its service answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::routing::RegionState;
use model::version::PositionVector;
use model::{Micros, RegionId};
use net::PeerClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;
use crate::client::ServiceProbe;

/// How often a peer is probed.
const EVERY: Duration = Duration::from_millis(50);
/// How often the own service is.
const SERVICE_EVERY: Duration = Duration::from_millis(100);
/// A probe of the own service that takes longer is lost; a service that needs so long serves nobody.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Probes under way to one peer; one more counts as lost without being sent.
const UNDER_WAY: usize = 32;
/// How long a newer generation of a peer that was not good here is left alone.
const ADOPT_AGAIN: Duration = Duration::from_secs(5);
/// How often measured round trips may bring a new routing table.
const REROUTE_EVERY: Duration = Duration::from_secs(2);

/// What came of one probe.
enum Outcome {
    Answered(Box<net::PeerReport>, Micros),
    Lost,
    /// It had counted as lost when the answer came.
    Late(Box<net::PeerReport>),
}

impl Outcome {
    fn report(&self) -> Option<&net::PeerReport> {
        match self {
            Self::Answered(report, _) | Self::Late(report) => Some(report),
            Self::Lost => None,
        }
    }
}

/// Probes `peer` until `stop`.
pub async fn probe_peer(region: Arc<RunningRegion>, peer: RegionId, client: Arc<PeerClient>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (outcomes, mut seen) = mpsc::channel::<Outcome>(UNDER_WAY);
    let (mut under_way, mut adopting) = (JoinSet::new(), JoinSet::new());
    let mut goal = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                while under_way.try_join_next().is_some() {}
                if under_way.len() < UNDER_WAY {
                    under_way.spawn(probe(client.clone(), patience(&region, &peer), outcomes.clone()));
                } else {
                    observe(&region, &peer, &Outcome::Lost, &mut goal);
                }
            }
            Some(outcome) = seen.recv() => {
                observe(&region, &peer, &outcome, &mut goal);
                let (ours, theirs) = (region.generations.number(), outcome.report().map(|report| report.generation));
                if theirs.is_some_and(|theirs| theirs > ours) && adopting.is_empty() && may_adopt(&region) {
                    adopting.spawn(adopt(region.clone(), peer.clone(), client.clone()));
                }
            }
            Some(_) = adopting.join_next() => {}
        }
    }
}

/// How long the answer to a probe may take before it counts as lost.
fn patience(region: &RunningRegion, peer: &RegionId) -> Duration {
    let health = region.health.lock().expect("no probe panics while it holds the lock");
    Duration::from_micros(health.patience(peer).0)
}

async fn probe(client: Arc<PeerClient>, patience: Duration, outcomes: mpsc::Sender<Outcome>) {
    let mut answer = std::pin::pin!(client.probe());
    match tokio::time::timeout(patience, &mut answer).await {
        Ok(Ok((report, round_trip))) => {
            let _ = outcomes.send(Outcome::Answered(Box::new(report), round_trip)).await;
        }
        Ok(Err(_)) => {
            let _ = outcomes.send(Outcome::Lost).await;
        }
        Err(_) => {
            let _ = outcomes.send(Outcome::Lost).await;
            // Waited for all the same: the connection that it may be making is for those that follow, and an answer
            // that comes late says that the region lives.
            if let Ok((report, _)) = answer.await {
                let _ = outcomes.send(Outcome::Late(Box::new(report))).await;
            }
        }
    }
}

/// Takes in one probe. A region that comes back is caught up once it has all that this one had when it was first
/// heard of again (`goal`): what is written meanwhile is ordinary lag, and under load there is always some.
fn observe(region: &RunningRegion, peer: &RegionId, outcome: &Outcome, goal: &mut Option<PositionVector>) {
    let report = outcome.report();
    if let Some(report) = report {
        // Also what it has of others' logs, which no batch of ours would tell.
        let burials = data::Burials { buried: report.buried.clone(), quiet: report.quiet.clone() };
        region.data.heard(peer, &report.vector, &burials);
        region.control.heard(peer, report.control, report.generation);
    }
    {
        let (mut health, now) = (region.health.lock().expect("no probe panics while it holds the lock"), region.now());
        if let Some(report) = report {
            health.handle_word(peer, &report.sees, now);
        }
        match outcome {
            Outcome::Answered(report, round_trip) if serving(report) => {
                health.handle_probe(peer, Some(*round_trip), now);
                if health.state(peer) == RegionState::CatchingUp {
                    let goal = goal.get_or_insert_with(|| region.data.vector());
                    health.caught_up(peer, report.vector.includes(goal));
                } else {
                    *goal = None;
                }
            }
            Outcome::Late(report) if serving(report) => health.handle_late(peer, now),
            // It has counted as lost.
            Outcome::Late(_) => {}
            Outcome::Answered(..) | Outcome::Lost => {
                health.handle_probe(peer, None, now);
                if health.state(peer) == RegionState::Down {
                    *goal = None;
                }
            }
        }
        let heard = report.map(|report| (peer, &report.sees));
        region.judging.told(&region.me, &health.observations(), heard, now);
    }
    publish(region);
}

fn serving(report: &net::PeerReport) -> bool {
    report.state.serves() && report.api_ok
}

/// What the native rule says now, of this region too.
pub fn native(region: &RunningRegion) -> routing::Native {
    native_of(region, &region.health.lock().expect("no probe panics while it holds the lock"))
}

fn native_of(region: &RunningRegion, health: &routing::HealthTracker) -> routing::Native {
    let mut states = health.states();
    states.insert(region.me.clone(), region.own_state());
    region.orders.holding().lay_over(&mut states);
    routing::Native { states, recovered: health.recovered() }
}

/// Makes the health that was just learnt visible to the gateway and in the answers over DNS.
pub fn publish(region: &RunningRegion) {
    // Held to the end, so that of two probes the later one is seen last, in both places.
    let health = region.health.lock().expect("no probe panics while it holds the lock");
    let states = region.judging.states(&native_of(region, &health));
    let before = region.states.load();
    if **before == states {
        return;
    }
    for (id, state) in &states {
        let was = before.get(id).copied().unwrap_or(RegionState::Joining);
        if was != *state {
            tracing::info!(region = %id, was = was.name(), now = state.name(), "a region's health changed");
            metrics::counter!("repomind_region_transitions_total", "region" => id.to_string(), "to" => state.name())
                .increment(1);
        }
    }
    let states = Arc::new(states);
    region.states.store(states.clone());
    region.dns.states_changed(states);
}

/// Whether a generation that a peer has and this region has not is this region's to look at: as the primary, because
/// the peer tightened something by itself; without a log, because there is nobody else to have it from.
fn may_adopt(region: &RunningRegion) -> bool {
    region.control.decided().is_none() || region.control.log.check().is_ok()
}

/// Takes over a newer generation than ours from a peer. Its signature is checked, and all that the gate checks.
async fn adopt(region: Arc<RunningRegion>, peer: RegionId, client: Arc<PeerClient>) {
    let bundle = match client.fetch_bundle().await {
        Ok(Some(bundle)) => bundle,
        Ok(None) | Err(_) => return,
    };
    match region.generations.take_over(&peer, bundle, &region.moment()).await {
        Ok(generation) => {
            tracing::info!(%peer, generation, "took over a newer policy generation");
            // The watcher looks at its tree again: what is saved there may differ.
            region.adopted.notify_one();
        }
        Err(error) => {
            tracing::warn!(%peer, %error, "a newer policy generation was not taken over");
            // It is offered again with every probe; a bundle that does not load takes a while to find out.
            tokio::time::sleep(ADOPT_AGAIN).await;
        }
    }
}

/// Checks the service behind this gateway until `stop`.
pub async fn probe_service(region: Arc<RunningRegion>, stop: CancellationToken) {
    let Some(probe) = region.apis.get(&region.me).and_then(|uri| ServiceProbe::new(uri).ok()) else { return };
    let mut ticks = tokio::time::interval(SERVICE_EVERY);
    let mut lost = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        lost = if probe.answers(PATIENCE).await { 0 } else { lost.saturating_add(1) };
        // Two in a row, so that one lost packet on the loopback of a busy machine moves nobody.
        region.api_ok.store(lost < 2, Ordering::Relaxed);
        publish(&region);
    }
}

/// Ranks the regions anew as round trips are measured, until `stop`.
pub async fn keep_routing(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(REROUTE_EVERY);
    let mut ranked = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let facts = region.facts();
        if ranked.as_ref() == Some(&facts) {
            continue;
        }
        match region.generations.reroute(&facts).await {
            Ok(()) => ranked = Some(facts),
            Err(error) => tracing::warn!(%error, "the routing table stays as it is"),
        }
    }
}
