//! Ships this region's commits to one peer, for as long as the process runs.
//!
//! On each connection the peer first says how far it is; shipping starts there, or where its last
//! answer was, so that no refusal is taken for a copy because an answer was lost.
//! Up to [`limits::SHIP_WINDOW`] batches are in flight, in order. An answer that
//! falls short of what was shipped (the peer stopped at a gap, or refused for
//! now) lets the window run dry and starts again from what the peer has.
//!
//! Ahead of what is encrypted goes its key, encrypted for the peer ([`DataPlane::keys_for`]).
//!
//! Where entries do not bring the peer any further, or not safely, it is given rows instead
//! ([`DataPlane::must_give_rows`]), part by part; a connection that breaks meanwhile is taken up where it was, as
//! long as the peer is the same process.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use data::{DataError, DataPlane, Giving, Received};
use futures_util::future::BoxFuture;
use http::StatusCode;
use model::record::Shipment;
use model::sealing::{DataKeyId, KeyParcel, RegionPublicKey};
use model::version::{Incarnation, PositionVector};
use tokio_util::sync::CancellationToken;

use super::client::{PeerClient, PeerError, back_off};
use crate::limits;

/// Why one connection's worth of shipping ended.
enum Ended {
    Shutdown,
    Peer(PeerError),
    Local(String),
}

/// Ships to `client`'s peer until `shutdown`. Failures are logged and retried with a jittered pause.
pub async fn run_link(data: DataPlane, client: Arc<PeerClient>, shutdown: CancellationToken) {
    let peer = client.peer().clone();
    let mut failures = 0_u32;
    let mut giving = None;
    loop {
        let mut progressed = false;
        match ship_until_failure(&data, &client, &shutdown, (&mut giving, &mut progressed)).await {
            Ended::Shutdown => return,
            Ended::Peer(error) => tracing::debug!(%peer, %error, "shipping paused"),
            Ended::Local(error) => tracing::error!(%peer, %error, "cannot read what is to be shipped"),
        }
        metrics::counter!("repomind_ship_interruptions_total", "peer" => peer.to_string()).increment(1);
        failures = if progressed { 1 } else { failures.saturating_add(1) };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(back_off(failures)) => {}
        }
    }
}

/// A batch under way: how far the peer must be once it has taken it.
struct InFlight {
    expected: PositionVector,
    answer: BoxFuture<'static, Result<Received, PeerError>>,
}

async fn ship_until_failure(
    data: &DataPlane,
    client: &PeerClient,
    shutdown: &CancellationToken,
    (giving, progressed): (&mut Option<(Incarnation, Giving)>, &mut bool),
) -> Ended {
    let (report, ended) = tokio::select! {
        () = shutdown.cancelled() => return Ended::Shutdown,
        report = client.shipping_report() => match report {
            Ok(report) => report,
            Err(error) => return Ended::Peer(error),
        },
    };
    let mut has = report.vector.clone();
    let life = has.newest(client.peer()).unwrap_or_default();
    let mut sent = data.resume(client.peer(), &has);
    let mut commits = data.commits();
    let mut window: VecDeque<InFlight> = VecDeque::new();
    let mut told = HashSet::new();
    let mut short = false;
    loop {
        commits.borrow_and_update();
        if window.is_empty() {
            match must_give_rows(data, client, &sent).await {
                Err(reason) => return Ended::Local(reason),
                Ok(false) => {}
                Ok(true) => {
                    let now = giving.take().filter(|(of, _)| *of == life).map(|(_, giving)| giving);
                    let now = now.unwrap_or_else(|| data.begin_giving(client.peer()));
                    let (_, now) = giving.insert((life, now));
                    let given = tokio::select! {
                        () = shutdown.cancelled() => return Ended::Shutdown,
                        () = ended.cancelled() => return Ended::Peer(client.broken("it ended")),
                        given = give_rows(data, client, report.region_key, now, progressed) => given,
                    };
                    match given {
                        Ok(vector) if vector.newest(client.peer()).unwrap_or_default() != life => {
                            return Ended::Peer(client.broken("another process answers"));
                        }
                        Ok(vector) => has.join(&vector),
                        Err(ended) => {
                            // Where it only cannot take more for now, it goes on where it was.
                            let refused = |status| status != StatusCode::SERVICE_UNAVAILABLE.as_u16();
                            if matches!(&ended, Ended::Peer(PeerError::Refused { status, .. }) if refused(*status)) {
                                *giving = None;
                            }
                            return ended;
                        }
                    }
                    *giving = None;
                    sent = data.resume(client.peer(), &has);
                }
            }
        }
        while !short && window.len() < limits::SHIP_WINDOW {
            let batch = match outgoing(data, client, &sent).await {
                Ok(batch) => batch,
                Err(reason) => return Ended::Local(reason),
            };
            if batch.is_empty() {
                break;
            }
            batch.iter().for_each(|shipment| sent.advance(shipment.position()));
            let keys = match keys_of_batch(data, client, report.region_key, &batch, &mut told).await {
                Ok(keys) => keys,
                Err(reason) => return Ended::Local(reason),
            };
            let mut before = Vec::new();
            for parcel in &keys {
                match client.send_keys(parcel).await {
                    Ok(answer) => before.push(answer),
                    Err(error) => return Ended::Peer(error),
                }
            }
            match client.ship_soon(Some(data.life()), batch).await {
                Ok(answer) => {
                    let answer = async move {
                        for keys in before {
                            keys.await?;
                        }
                        answer.await
                    };
                    window.push_back(InFlight { expected: sent.clone(), answer: Box::pin(answer) });
                }
                Err(error) => return Ended::Peer(error),
            }
        }
        let answered = async {
            match window.front_mut() {
                Some(first) => (&mut first.answer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ended::Shutdown,
            // Noticed also while nothing is under way: what the peer said may not hold for whoever answers next.
            () = ended.cancelled() => return Ended::Peer(client.broken("it ended")),
            changed = commits.changed(), if !short => {
                if changed.is_err() {
                    return Ended::Shutdown;
                }
            }
            answer = answered => match answer {
                Ok(answer) => {
                    if answer.vector.newest(client.peer()).unwrap_or_default() != life {
                        return Ended::Peer(client.broken("another process answers"));
                    }
                    let expected = window.pop_front().map(|first| first.expected).unwrap_or_default();
                    *progressed |= !has.includes(&answer.vector);
                    short |= !answer.vector.includes(&expected);
                    has.join(&answer.vector);
                    data.shipped(client.peer(), &expected, &answer);
                }
                Err(error) => return Ended::Peer(error),
            }
        }
        if short && window.is_empty() {
            metrics::counter!("repomind_ship_short_total", "peer" => client.peer().to_string()).increment(1);
            tokio::time::sleep(back_off(3)).await;
            sent = data.resume(client.peer(), &has);
            told.clear();
            short = false;
        }
    }
}

/// The keys that the peer needs for a batch and was not given on this connection.
async fn keys_of_batch(
    data: &DataPlane,
    client: &PeerClient,
    to: Option<RegionPublicKey>,
    batch: &[Shipment],
    told: &mut HashSet<DataKeyId>,
) -> Result<Vec<KeyParcel>, String> {
    let entries = batch.iter().filter_map(|shipment| match shipment {
        Shipment::Entry(entry) => Some((&entry.address, &entry.sibling)),
        _ => None,
    });
    // A few microseconds a key, out of the cache.
    data.keys_for(client.peer(), to, entries, told).map_err(|error| error.to_string())
}

/// Gives all rows, part by part, and says how far the peer is then.
async fn give_rows(
    data: &DataPlane,
    client: &PeerClient,
    to: Option<RegionPublicKey>,
    giving: &mut Giving,
    progressed: &mut bool,
) -> Result<PositionVector, Ended> {
    let mut told = HashSet::new();
    loop {
        let (reader, at) = (data.clone(), giving.clone());
        let part = on_disk(move || reader.part(&at, limits::PART_BYTES)).await.map_err(Ended::Local)?;
        let rows =
            part.rows.iter().flat_map(|(address, given)| given.iter().map(move |given| (address, &given.sibling)));
        let keys =
            data.keys_for(client.peer(), to, rows, &mut told).map_err(|error| Ended::Local(error.to_string()))?;
        for parcel in &keys {
            client.send_keys(parcel).await.map_err(Ended::Peer)?.await.map_err(Ended::Peer)?;
        }
        let answer = client.give(&part).await.map_err(Ended::Peer)?;
        *progressed = true;
        if data.part_taken(giving, &part, &answer) {
            return Ok(answer.vector);
        }
    }
}

async fn must_give_rows(data: &DataPlane, client: &PeerClient, sent: &PositionVector) -> Result<bool, String> {
    let (data, peer, sent) = (data.clone(), client.peer().clone(), sent.clone());
    on_disk(move || data.must_give_rows(&peer, &sent)).await
}

/// Runs what reads the disk off the threads that serve sockets.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, DataError> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Reads the next batch from disk, off the threads that serve sockets.
async fn outgoing(data: &DataPlane, client: &PeerClient, sent: &PositionVector) -> Result<Vec<Shipment>, String> {
    let (data, peer, sent) = (data.clone(), client.peer().clone(), sent.clone());
    on_disk(move || data.outgoing(&peer, &sent, limits::BATCH_BYTES)).await
}
