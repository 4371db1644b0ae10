//! Figures that are read rather than counted, for `/metrics`, once a second.

use std::sync::Arc;
use std::time::Duration;

use model::routing::RegionState;
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// How often they are set.
const EVERY: Duration = Duration::from_secs(1);

/// Says what each metric means, once a process.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("repomind_region_state", "1 for the state that this region sees another one in, else 0");
    describe_gauge!("repomind_round_trip_seconds", Unit::Seconds, "smoothed round trip to a peer");
    describe_gauge!(
        "repomind_replication_lag_seconds",
        Unit::Seconds,
        "age of the oldest entry that a peer has not durably taken over; 0 when nothing is owed"
    );
    describe_gauge!("repomind_replication_backlog", Unit::Count, "entries that a peer has not durably taken over");
    describe_gauge!("repomind_policy_generation", "number of the policy generation in force");
    describe_gauge!("repomind_policy_refused", "1 while the files on disk are not in force because of findings");
    describe_gauge!("repomind_policy_waiting", "1 while a change waits for `policy confirm`");
    describe_counter!("repomind_policy_refusals_total", "saves that were refused");
    describe_counter!("repomind_routing_tables_total", "routing tables published because facts had changed");
    describe_counter!("repomind_region_transitions_total", "changes of a region's state, as this region sees it");
    describe_counter!("repomind_judgement_changes_total", "regions taken out, and back, by judgement of failover.scm");
    describe_counter!(
        "repomind_judgement_held_total",
        "times that a bound held back what failover.scm wanted, by bound"
    );
    describe_counter!("repomind_decisions_total", "decisions of policies written down, by kind");
    describe_counter!(
        "repomind_decisions_not_kept_total",
        "decisions that were not written down: they came too fast (rate, queue), or the disk took nothing (disk)"
    );
    describe_gauge!("repomind_decision_log_bytes", Unit::Bytes, "size of the log of decisions on disk");
    describe_counter!("repomind_proofs_total", "invariants that a save had to meet: proved, or known from before");
    describe_counter!("repomind_orders_total", "operators' orders about the traffic of regions, as learnt here");
    describe_gauge!("repomind_orders_holding", Unit::Count, "regions that are out by an order, and pins");
    describe_gauge!("repomind_control_primary", "1 while this region may answer for the primary");
    describe_gauge!("repomind_control_term", "the newest term of the common log that this region knows of");
    describe_counter!(
        "repomind_control_elections_total",
        "times that this region asked for votes because it lost the primary"
    );
    describe_counter!("repomind_requests_total", "requests answered by the gateway, by route and status");
    describe_histogram!("repomind_request_seconds", Unit::Seconds, "time to answer a request, by route");
    describe_counter!("repomind_writes_total", "writes made durable here");
    describe_histogram!("repomind_commit_seconds", Unit::Seconds, "one group commit, to the disk's word");
    describe_counter!("repomind_ship_bytes_total", Unit::Bytes, "bytes of batches sent to a peer, compressed");
    describe_counter!("repomind_ship_interruptions_total", "times that shipping to a peer broke off");
    describe_gauge!("repomind_watchers", Unit::Count, "clients that watch a namespace");
    describe_counter!("repomind_watches_ended_total", "clients that no longer watch, by reason");
    describe_gauge!("repomind_namespace_bytes", Unit::Bytes, "bytes of values held of a namespace with a quota");
    describe_gauge!("repomind_namespace_records", Unit::Count, "records held of a namespace with a quota");
    describe_counter!("repomind_quota_refused_total", "writes refused because a namespace had reached its quota");
    describe_gauge!("repomind_ledger_leaves", Unit::Count, "durable leaves of this region's ledger");
    describe_gauge!(
        "repomind_ledger_checkpoint",
        Unit::Count,
        "leaves under the newest checkpoint with enough cosignatures"
    );
    describe_gauge!("repomind_ledger_witnesses", Unit::Count, "regions that have cosigned the newest checkpoint");
    describe_counter!("repomind_ledger_forks_total", "times that a ledger showed another history than was cosigned");
    describe_counter!("repomind_shipments_refused_total", "records refused on arrival, by rule");
    describe_gauge!("repomind_evictions_waiting", "values that leave once a region that may hold them answers");
    describe_gauge!("repomind_evictions_stuck", "values that no region may hold: they stay and are shown to nobody");
    describe_counter!("repomind_evicted_total", "values that left because policies changed");
    describe_counter!("repomind_brought_home_total", "values brought to a region that may hold them and had them not");
    describe_counter!("repomind_came_back_total", "values that came back because policies changed");
    describe_counter!("repomind_comparisons_total", "times that all rows were compared with a peer's");
    describe_gauge!("repomind_scopes_differing", "scopes that differed from a peer's when last compared at rest");
    describe_gauge!("repomind_rows_differing", "rows that differed from a peer's when last looked for");
    describe_counter!("repomind_rows_damaged_total", "rows found damaged on disk, and kept aside");
    describe_counter!("repomind_rows_mended_total", "damaged rows that were given again by the other regions");
    describe_gauge!("repomind_rows_wounded", "keys whose rows were damaged, by whether other regions have a copy");
    describe_counter!("repomind_conflicts_total", "writes that lost against a concurrent one, by what decided");
    describe_gauge!("repomind_conflict_entries", Unit::Count, "entries of the conflict log");
    describe_gauge!("repomind_conflict_bytes", Unit::Bytes, "bytes of the conflict log");
    describe_gauge!(
        "repomind_conflict_entries_crowded_out",
        Unit::Count,
        "entries of the conflict log that went since the start because there were too many"
    );
    describe_counter!("repomind_conflict_entries_damaged_total", "entries of the conflict log found damaged");
    describe_counter!("repomind_expired_total", "records deleted because their time was over, by rule");
    describe_counter!("repomind_labels_contradicted_total", "writes refused because they held personal data, by place");
    describe_counter!("repomind_proxy_failures_total", "attempts at a region's service that failed");
}

/// Sets the gauges until `stop`.
pub async fn keep(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        set(&region);
    }
}

fn set(region: &RunningRegion) {
    // Folds what was counted, so that it ages also while nobody asks for it.
    region.traffic.here.recent(region.now());
    for (id, seen) in region.states.load().iter() {
        // Every state that a region can be in, so that the one it left reads 0.
        for state in RegionState::ALL {
            let labels = [("region", id.to_string()), ("state", state.name().to_owned())];
            metrics::gauge!("repomind_region_state", &labels).set(f64::from(u8::from(*seen == state)));
        }
    }
    for peer in region.peers() {
        let trip = region.health.lock().expect("no probe panics while it holds the lock").round_trip(&peer);
        if let Some(trip) = trip {
            let seconds = trip.as_millis_f64() / 1000.0;
            metrics::gauge!("repomind_round_trip_seconds", "peer" => peer.to_string()).set(seconds);
        }
    }
    let damage = region.data.damage();
    metrics::gauge!("repomind_rows_wounded", "copy" => "asked-for").set(damage.waiting as f64);
    metrics::gauge!("repomind_rows_wounded", "copy" => "none").set(damage.without_copy as f64);
    let losses = region.data.loss_count();
    metrics::gauge!("repomind_conflict_entries").set(losses.entries as f64);
    metrics::gauge!("repomind_conflict_bytes").set(losses.bytes as f64);
    metrics::gauge!("repomind_conflict_entries_crowded_out").set(losses.crowded_out as f64);
    for link in region.data.links() {
        let peer = link.peer.to_string();
        let lag = link.lag_ms as f64 / 1000.0;
        metrics::gauge!("repomind_replication_lag_seconds", "peer" => peer.clone()).set(lag);
        metrics::gauge!("repomind_replication_backlog", "peer" => peer).set(link.backlog as f64);
    }
}
