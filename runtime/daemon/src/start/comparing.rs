//! Compares what this region holds with what each peer holds, again and again, and has what is wrong here mended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::RegionId;
use model::record::Address;
use net::PeerClient;
use tokio_util::sync::CancellationToken;

use super::mending::jittered;
use super::running::RunningRegion;

/// Pages that are compared in one round, at most; each is some 4 MiB of rows.
const PAGES: usize = 1000;
/// Between two pages.
const PACE: Duration = Duration::from_millis(200);
/// Keys that are checked against the ledger in one go.
const CHECKED: usize = 256;

/// Compares with `peer` about every `every`, until `stop`.
pub async fn keep(region: Arc<RunningRegion>, peer: PeerClient, every: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(jittered(every))).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(round(&region, &peer)).await {
            tracing::debug!(peer = %peer.peer(), %error, "not compared");
        }
    }
}

/// Says what one round came to. A round in which one of both was not at rest says nothing.
async fn round(region: &RunningRegion, peer: &PeerClient) -> anyhow::Result<()> {
    let Some(theirs) = peer.account().await? else { return Ok(()) };
    let data = region.data.clone();
    let Some(ours) = tokio::task::spawn_blocking(move || data.account()).await?? else { return Ok(()) };
    if !(ours.vector.includes(&theirs.vector) && theirs.vector.includes(&ours.vector)) {
        return Ok(());
    }
    let both = |regions: &BTreeSet<RegionId>| regions.contains(&region.me) && regions.contains(peer.peer());
    let of = |account: &data::Account| -> BTreeMap<String, String> {
        let common = account.scopes.iter().filter(|(_, summary)| both(&summary.regions));
        common.map(|(scope, summary)| (scope.clone(), summary.digest.clone())).collect()
    };
    let (ours, theirs) = (of(&ours), of(&theirs));
    let scopes: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differ: Vec<String> =
        scopes.iter().filter(|scope| ours.get(**scope) != theirs.get(**scope)).map(|scope| (**scope).clone()).collect();
    let now = data::clock::Clock::wall(&data::clock::SystemClock::new());
    {
        let mut agreement = region.agreement.lock().expect("nothing panics while it holds the lock");
        let known = agreement.entry(peer.peer().clone()).or_default();
        known.compared_at = now;
        known.differ = differ.iter().cloned().collect();
        let equal = scopes.iter().filter(|scope| !known.differ.contains(**scope)).map(|scope| ((**scope).clone(), now));
        let equal: Vec<_> = equal.collect();
        known.equal_at.extend(equal);
    }
    let name = peer.peer().to_string();
    metrics::counter!("repomind_comparisons_total", "peer" => name.clone()).increment(1);
    metrics::gauge!("repomind_scopes_differing", "peer" => name.clone()).set(differ.len() as f64);
    if differ.is_empty() {
        return Ok(());
    }
    tracing::warn!(peer = %peer.peer(), scopes = differ.len(), "regions that have taken over the same do not hold the same");
    let (found, astray) = find(region, peer).await?;
    metrics::gauge!("repomind_rows_differing", "peer" => name).set(found as f64);
    tracing::warn!(peer = %peer.peer(), rows = found, wrong_here = astray, "rows that differ were checked against the ledger");
    Ok(())
}

/// Walks through what both may hold, and has the keys that differ checked. Gives how many there were, and how many of
/// them were wrong here.
async fn find(region: &RunningRegion, peer: &PeerClient) -> anyhow::Result<(u64, u64)> {
    let (mut after, mut found, mut astray) = (None::<Address>, 0, 0);
    for _ in 0..PAGES {
        let (data, there, from) = (region.data.clone(), peer.peer().clone(), after.clone());
        let ours = tokio::task::spawn_blocking(move || data.page(&there, from.as_ref(), None)).await??;
        let theirs = peer.page(after.as_ref(), ours.upto.as_ref()).await?;
        // A page that the peer cut short is compared as far as it goes.
        let upto = theirs.upto.or(ours.upto);
        let inside = |address: &&Address| upto.as_ref().is_none_or(|upto| *address <= upto);
        let keys: BTreeSet<&Address> = ours.rows.keys().chain(theirs.rows.keys()).filter(inside).collect();
        let differ: Vec<Address> =
            keys.into_iter().filter(|key| ours.rows.get(*key) != theirs.rows.get(*key)).cloned().collect();
        found += differ.len() as u64;
        for some in differ.chunks(CHECKED) {
            astray += region.data.check_against_ledger(some.to_vec()).await?;
        }
        match upto {
            Some(upto) => after = Some(upto),
            None => break,
        }
        tokio::time::sleep(PACE).await;
    }
    Ok((found, astray))
}
