//! Follows what regions say to edges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use model::RegionId;
use model::status::EdgeOrder;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Report;
use crate::client::{Client, reason};

/// How long a region may take to answer: it waits a second for news itself.
const ANSWER: Duration = Duration::from_millis(2_500);
/// How long until regions are asked again where none answered.
const PAUSE: Duration = Duration::from_millis(250);
/// How often the nearest region is tried while another one is followed.
const BACK: Duration = Duration::from_secs(10);

/// Asks the nearest region, or the next one that answers, and hands on what is new, until `stop`.
pub async fn follow(
    client: Client,
    (near, admins): (RegionId, BTreeMap<RegionId, SocketAddr>),
    give: watch::Sender<Option<Arc<EdgeOrder>>>,
    report: Arc<Report>,
    stop: CancellationToken,
) {
    let mut regions: Vec<(&RegionId, SocketAddr)> = admins.iter().map(|(id, at)| (id, *at)).collect();
    regions.sort_by_key(|(id, _)| **id != near);
    let (mut at, mut failed, mut tried_near) = (0, 0, Instant::now());
    let mut follows: Option<RegionId> = None;
    // What each region was last not followed for, so that the log says it once.
    let mut why: BTreeMap<&RegionId, String> = BTreeMap::new();
    while !stop.is_cancelled() {
        if at != 0 && tried_near.elapsed() >= BACK {
            at = 0;
        }
        if at == 0 {
            tried_near = Instant::now();
        }
        let (region, admin) = regions[at];
        let last = give.borrow().clone();
        // Tags are compared as texts, so that what another region said before is no news from this one.
        let after = last.as_ref().map(|order| order.tag.clone());
        let asked = stop.run_until_cancelled(ask(&client, admin, after.as_deref()));
        let Some(answer) = asked.await else { return };
        let newest = last.as_ref().map_or(0, |order| order.generation);
        let answer = answer.and_then(|order| match order.generation {
            // It is behind: what was forbidden since must not be given again.
            older if older < newest => Err(format!("it has generation {older}, and {newest} is in force here")),
            _ => Ok(order),
        });
        match answer {
            Ok(order) => {
                failed = 0;
                why.remove(region);
                if follows.as_ref() != Some(region) {
                    tracing::info!(%region, "followed from now on");
                    follows = Some(region.clone());
                    report.change(|status| status.follows.clone_from(&follows));
                }
                if after.as_ref() != Some(&order.tag) {
                    report.change(|status| status.told.clone_from(&order.tag));
                    give.send_replace(Some(Arc::new(order)));
                }
            }
            Err(error) => {
                if why.get(region) != Some(&error) {
                    tracing::warn!(%region, %error, "not followed");
                    why.insert(region, error);
                }
                at = (at + 1) % regions.len();
                failed += 1;
                if failed >= regions.len() {
                    if follows.take().is_some() {
                        report.change(|status| status.follows = None);
                    }
                    failed = 0;
                    stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
    }
}

async fn ask(client: &Client, admin: SocketAddr, after: Option<&str>) -> Result<EdgeOrder, String> {
    let path = after.map_or_else(|| "/edge".to_owned(), |tag| format!("/edge?after={tag}"));
    let reply = client.send(Method::GET, admin, &path, &[], Bytes::new(), ANSWER).await;
    let reply = reply.map_err(|error| format!("{error:#}"))?;
    if !reply.status.is_success() {
        return Err(reason(&reply));
    }
    serde_json::from_slice(&reply.body).map_err(|error| format!("it does not answer as expected: {error}"))
}
