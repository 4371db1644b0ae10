//! Deletes records whose time is over, whenever one is due.

use std::sync::Arc;
use std::time::Duration;

use data::DataError;
use model::UnixMillis;
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// How often it is looked whether a record is due.
const EVERY: Duration = Duration::from_secs(1);
/// The pause between two spans of rows.
const BETWEEN_SPANS: Duration = Duration::from_millis(5);
/// Deletes in one go, and the pause after them: some 500 a second.
const AT_ONCE: usize = 50;
const BETWEEN_DELETES: Duration = Duration::from_millis(100);
/// How often it is noted how far time is.
const NOTED: u32 = 60;

/// Deletes until `stop`.
pub async fn keep(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0_u32;
    let mut generation = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        count = count.wrapping_add(1);
        let now = region.data.plan_stamp().generation;
        if now == 0 {
            continue;
        }
        if now != generation {
            // Namespaces may keep records for another time than before.
            generation = now;
            region.data.look_again_at(UnixMillis(0));
        }
        let work = async {
            if region.data.begin_expiring() {
                round(&region).await?;
            }
            if count.is_multiple_of(NOTED) { region.data.keep_retention_clock().await } else { Ok(()) }
        };
        match stop.run_until_cancelled(work).await {
            None | Some(Err(DataError::Closed)) => return,
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "records whose time is over could not be deleted; it is tried again");
                region.data.look_again_at(UnixMillis(0));
            }
        }
    }
}

async fn round(region: &RunningRegion) -> Result<(), DataError> {
    let (mut after, mut deleted) = (None, 0);
    loop {
        let (data, from) = (region.data.clone(), after.take());
        let looked = tokio::task::spawn_blocking(move || data.expired_after(from.as_ref())).await;
        let looked = looked.map_err(|_| DataError::Closed)??;
        if let Some(soonest) = looked.soonest {
            region.data.look_again_at(soonest);
        }
        for some in looked.expired.chunks(AT_ONCE) {
            let gone = region.data.expire(some.to_vec()).await?;
            deleted += gone;
            if gone < some.len() as u64 {
                region.data.look_again_at(region.data.retention_now() + model::Millis::from_secs(60));
            }
            tokio::time::sleep(BETWEEN_DELETES).await;
        }
        after = looked.next;
        if after.is_none() {
            break;
        }
        tokio::time::sleep(BETWEEN_SPANS).await;
    }
    if deleted > 0 {
        tracing::info!(deleted, "records were deleted because their time was over");
    }
    Ok(())
}
