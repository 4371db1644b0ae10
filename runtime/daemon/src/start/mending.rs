//! Looks for damaged rows, slowly and all the time, and asks the other regions for them.

use std::sync::Arc;
use std::time::Duration;

use net::PeerClient;
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// Between two steps of a look at all rows, each of [`data::SCRUB_BYTES`]: some 1 MiB/s.
const STEP: Duration = Duration::from_secs(1);
/// Between two looks at all rows; the first begins with the process.
const REST: Duration = Duration::from_secs(600);
/// After a look at all rows because of a suspicion, the next suspicion waits so long.
const QUIET: Duration = Duration::from_secs(10);
/// How often a peer is asked about keys that are damaged here, where there are any.
const ASK: Duration = Duration::from_secs(1);

/// Between half and the whole of a span, so that regions do not keep step.
pub fn jittered(span: Duration) -> Duration {
    let byte = data::vault::random_name().map_or(128, |name| name[0]);
    span.mul_f64(0.5 + f64::from(byte) / 510.0)
}

/// Looks at all rows, again and again, until `stop`.
pub async fn scrub(region: Arc<RunningRegion>, stop: CancellationToken) {
    let runtime = tokio::runtime::Handle::current();
    let (mut after, mut suspected) = (None, false);
    let mut quiet_until = tokio::time::Instant::now();
    loop {
        let (data, runtime, at) = (region.data.clone(), runtime.clone(), after.clone());
        let next = tokio::task::spawn_blocking(move || runtime.block_on(data.scrub(at.as_ref()))).await;
        let pause = match next {
            Ok(Ok(next)) => {
                if next.is_none() && suspected {
                    quiet_until = tokio::time::Instant::now() + QUIET;
                }
                suspected &= next.is_some();
                let pause = match (&next, suspected) {
                    (Some(_), true) => Duration::ZERO,
                    (Some(_), false) => STEP,
                    (None, _) => REST,
                };
                after = next;
                pause
            }
            Ok(Err(data::DataError::Closed)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::error!(%error, "rows could not be looked at");
                STEP
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jittered(pause)) => {}
            // From the first row on, and without a pause: replication waits for it.
            () = suspected_after(&region, quiet_until) => (after, suspected) = (None, true),
        }
    }
}

/// Returns once damage was suspected, and not before `quiet_until`.
async fn suspected_after(region: &RunningRegion, quiet_until: tokio::time::Instant) {
    tokio::time::sleep_until(quiet_until).await;
    region.data.suspects_damage().await;
}

/// Asks `peer` for what is damaged here, until `stop`.
pub async fn ask(region: Arc<RunningRegion>, peer: PeerClient, stop: CancellationToken) {
    let mut most = data::STATED;
    while stop.run_until_cancelled(tokio::time::sleep(jittered(ASK))).await.is_some() {
        let mut keys = region.data.to_be_asked(peer.peer());
        keys.truncate(most);
        if keys.is_empty() {
            continue;
        }
        let stated = match stop.run_until_cancelled(peer.state(&keys)).await {
            Some(Ok(stated)) => stated,
            Some(Err(error)) => {
                tracing::debug!(peer = %peer.peer(), %error, "a peer did not say what it holds of damaged keys");
                most = (most / 2).max(1);
                continue;
            }
            None => return,
        };
        most = data::STATED;
        if let Err(error) = region.data.mend(peer.peer(), stated).await {
            tracing::warn!(peer = %peer.peer(), %error, "what a peer holds of damaged keys was not taken");
        }
    }
}
