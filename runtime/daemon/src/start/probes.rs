//! Watches the other regions and the service behind this gateway, and brings
//! the routing table up to date when what is seen changes.
//!
//! Every [`EVERY`] each peer is probed over its own connection. The answer says
//! how far that peer has taken over data, which generation it runs, and whether
//! its service answers; a peer that is behind the primary's generation is sent
//! it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::routing::RegionState;
use model::version::PositionVector;
use model::{Micros, RegionId};
use net::PeerClient;
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;
use crate::client::ServiceProbe;

/// How often a peer is probed.
const EVERY: Duration = Duration::from_millis(200);
/// A probe that takes longer is lost: four times the longest round trip between continents.
const PATIENCE: Duration = Duration::from_millis(1000);
/// How often measured round trips may bring a new routing table.
const REROUTE_EVERY: Duration = Duration::from_secs(2);

/// Probes `peer` until `stop`.
pub async fn probe_peer(region: Arc<RunningRegion>, peer: RegionId, client: Arc<PeerClient>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut offered, mut goal) = (0, None);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = region.new_generation.notified() => {}
            _ = ticks.tick() => {}
        }
        let sent = Instant::now();
        let report = match tokio::time::timeout(PATIENCE, client.probe()).await {
            Ok(Ok(report)) => Some((report, Micros::from_duration(sent.elapsed()))),
            Ok(Err(_)) | Err(_) => None,
        };
        observe(&region, &peer, report.as_ref(), &mut goal);
        if let Some((report, _)) = &report {
            offer_generation(&region, &peer, &client, report.generation, &mut offered).await;
        }
    }
}

/// Takes in one probe. A region that comes back is caught up once it has all that this one had when it was first
/// heard of again (`goal`): what is written meanwhile is ordinary lag, and under load there is always some.
fn observe(
    region: &RunningRegion,
    peer: &RegionId,
    report: Option<&(net::PeerReport, Micros)>,
    goal: &mut Option<PositionVector>,
) {
    let serving = report.filter(|(report, _)| report.state.serves() && report.api_ok);
    {
        let mut health = region.health.lock().expect("no probe panics while it holds the lock");
        health.handle_probe(peer, serving.map(|(_, round_trip)| *round_trip), region.now());
        match (serving, health.state(peer)) {
            (Some((report, _)), RegionState::CatchingUp) => {
                let goal = goal.get_or_insert_with(|| region.data.vector());
                health.caught_up(peer, report.vector.includes(goal));
            }
            (Some(_), _) => *goal = None,
            (None, RegionState::Down) => *goal = None,
            (None, _) => {}
        }
    }
    publish(region);
}

/// Makes the health that was just learnt visible to the gateway and in the answers over DNS.
pub fn publish(region: &RunningRegion) {
    // Held to the end, so that of two probes the later one is seen last, in both places.
    let health = region.health.lock().expect("no probe panics while it holds the lock");
    let mut states: BTreeMap<_, _> =
        region.peers().into_iter().map(|peer| (peer.clone(), health.state(&peer))).collect();
    states.insert(region.me.clone(), region.own_state());
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

async fn offer_generation(
    region: &RunningRegion,
    peer: &RegionId,
    client: &PeerClient,
    theirs: u64,
    offered: &mut u64,
) {
    let ours = region.generations.number();
    if region.me != region.regions.primary || theirs >= ours {
        return;
    }
    let Some(bundle) = region.generations.signed() else { return };
    match client.send_bundle(&bundle).await {
        Ok(generation) => tracing::info!(%peer, generation, "a region took over the policy generation"),
        // Said once a generation: the offer is repeated with every probe.
        Err(error) if *offered != ours => {
            tracing::warn!(%peer, generation = ours, %error, "a region did not take the generation")
        }
        Err(_) => {}
    }
    *offered = ours;
}

/// Checks the service behind this gateway until `stop`.
pub async fn probe_service(region: Arc<RunningRegion>, stop: CancellationToken) {
    let Some(probe) = region.apis.get(&region.me).and_then(|uri| ServiceProbe::new(uri).ok()) else { return };
    let mut ticks = tokio::time::interval(EVERY);
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
