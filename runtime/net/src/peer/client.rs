//! The dialing side: one client a peer, which reconnects by itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use compliance::ledger::CosignRequest;
use data::Received;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::bundle::SignedBundle;
use model::eviction::{HoldingAnswer, HoldingQuestion, Homecoming, Impact, ImpactQuestion, ReturnQuestion};
use model::object::{ChunkAnswer, ChunkQuestion};
use model::petition::Petition;
use model::record::{Address, Shipment};
use model::routing::ClientClass;
use model::sealing::{KeyParcel, OrderId};
use model::snapshot::{SnapshotPart, Statement};
use model::version::Incarnation;
use model::{Micros, RegionId};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{
    ACCOUNT, BACK, BUNDLE, CHUNK, CONTROL, COSIGN, CosignAnswer, HOLDINGS, HOME, IMPACT, KEYS, LIFE, PAGE, PETITIONS,
    PROBE, PeerReport, REHEARSE, ROWS, Rehearsal, SHIP, STATE, TRAFFIC, pack, unpack,
};
use crate::identity::{self, Identity, IdentityError};
use crate::limits;
use crate::pki::DOMAIN;
use crate::serve::collect;
use crate::wan::Wan;

type Sender = http2::SendRequest<Full<Bytes>>;

/// Why a peer did not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The last attempts failed; the next one is allowed after a pause.
    #[error("{peer} was not reachable just now; trying again in {pause_ms} ms")]
    BackingOff {
        /// The peer.
        peer: RegionId,
        /// How long until the next attempt.
        pause_ms: u64,
    },
    /// No connection could be made.
    #[error("cannot connect to {peer}: {reason}")]
    Connect {
        /// The peer.
        peer: RegionId,
        /// What failed.
        reason: String,
    },
    /// The peer took too long.
    #[error("{peer} did not answer within {limit_ms} ms")]
    Slow {
        /// The peer.
        peer: RegionId,
        /// The limit.
        limit_ms: u64,
    },
    /// The connection broke while a request was under way.
    #[error("the connection to {peer} broke: {reason}")]
    Broken {
        /// The peer.
        peer: RegionId,
        /// What the transport said.
        reason: String,
    },
    /// The peer answered with an error.
    #[error("{peer} refused with status {status}: {detail}")]
    Refused {
        /// The peer.
        peer: RegionId,
        /// The HTTP status.
        status: u16,
        /// The start of its words.
        detail: String,
    },
    /// The answer could not be read.
    #[error("the answer of {peer} cannot be read: {reason}")]
    Answer {
        /// The peer.
        peer: RegionId,
        /// What is wrong with it.
        reason: String,
    },
}

/// Connections that carry probes in turn. A lost packet holds up what its connection carries behind it: on one alone,
/// each such stall would look like a region that is gone.
const PROBE_LANES: usize = 3;

/// Speaks with one peer. Share it in an [`Arc`].
pub struct PeerClient {
    peer: RegionId,
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
    wan: Wan,
    probing: [Lane; PROBE_LANES],
    probes: AtomicUsize,
    /// For policies and checkpoints, so that a probe never waits behind a bundle.
    control: Lane,
    shipping: Lane,
    /// For the common log.
    agreeing: Lane,
    /// For chunks of large values.
    bulk: Lane,
}

/// One connection, made when it is first needed and again when it has broken.
#[derive(Default)]
struct Lane {
    sender: tokio::sync::Mutex<Option<Sender>>,
    /// Cancelled when the connection that was made last has ended.
    ended: Mutex<CancellationToken>,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    in_a_row: u32,
    not_before: Option<Instant>,
}

impl PeerClient {
    /// A client for `peer` at `address`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`IdentityError`] when the identity's PEM cannot be used.
    pub fn new(peer: RegionId, address: SocketAddr, identity: &Identity, wan: Wan) -> Result<Self, IdentityError> {
        Ok(Self {
            name: identity::server_name(&peer)?,
            tls: TlsConnector::from(identity.client()? as Arc<ClientConfig>),
            peer,
            address,
            wan,
            probing: Default::default(),
            probes: AtomicUsize::new(0),
            control: Lane::default(),
            shipping: Lane::default(),
            agreeing: Lane::default(),
            bulk: Lane::default(),
        })
    }

    /// The region at the other end.
    pub fn peer(&self) -> &RegionId {
        &self.peer
    }

    /// Asks how the peer is, over the next probing connection, within [`limits::PROBE_TIME`], and measures the round
    /// trip from when the connection stood.
    ///
    /// # Errors
    /// [`PeerError`]; each is a lost probe.
    pub async fn probe(&self) -> Result<(PeerReport, Micros), PeerError> {
        self.report(&self.probing[self.probes.fetch_add(1, Ordering::Relaxed) % PROBE_LANES]).await
    }

    /// The same question over the shipping connection, which it opens where needed, and what is cancelled when that
    /// connection ends: the peer may then be another than the one that gave the report, such as one whose disk was
    /// put back from a copy.
    pub(super) async fn shipping_report(&self) -> Result<(PeerReport, CancellationToken), PeerError> {
        let report = self.report(&self.shipping).await?.0;
        let ended = self.shipping.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((report, ended))
    }

    async fn report(&self, lane: &Lane) -> Result<(PeerReport, Micros), PeerError> {
        let limit = limits::PROBE_TIME;
        let work = async {
            let answer = self.send(lane, Method::GET, PROBE, Bytes::new(), limit).await?;
            let sent = Instant::now();
            Ok((answer.await?, Micros::from_duration(sent.elapsed())))
        };
        let (bytes, round_trip) = timeout(limit, work).await.map_err(|_| self.slow(limit))??;
        Ok((self.read(&bytes)?, round_trip))
    }

    /// Ships a batch and waits until the peer has made it durable. The answer says what it refused.
    ///
    /// # Errors
    /// [`PeerError`]; the batch may or may not have arrived, and shipping it again is harmless.
    pub async fn ship(&self, batch: Vec<Shipment>) -> Result<Received, PeerError> {
        self.ship_soon(None, batch).await?.await
    }

    /// Hands a batch to the connection, in the order of calls, and gives the answer to wait for. `life` is the one in
    /// which this region is.
    pub(super) async fn ship_soon(
        &self,
        life: Option<Incarnation>,
        batch: Vec<Shipment>,
    ) -> Result<impl Future<Output = Result<Received, PeerError>> + use<>, PeerError> {
        let body = pack(&batch).map_err(|error| self.answer(error.to_string()))?;
        metrics::counter!("repomind_ship_bytes_total", "peer" => self.peer.to_string()).increment(body.len() as u64);
        let answer = self.send_in(life, &self.shipping, (Method::POST, SHIP), body.into(), limits::SHIP_TIME).await?;
        let peer = self.peer.clone();
        Ok(async move { read(&peer, &answer.await?) })
    }

    /// Sends data keys ahead of what they open. They are sent when this returns; the future that it gives says whether the
    /// peer has them on disk.
    pub(super) async fn send_keys(
        &self,
        parcel: &KeyParcel,
    ) -> Result<impl Future<Output = Result<(), PeerError>> + use<>, PeerError> {
        let body = pack(parcel).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.shipping, Method::POST, KEYS, body.into(), limits::SHIP_TIME).await?;
        Ok(async move { answer.await.map(drop) })
    }

    /// Gives a part of this region's rows, and waits until the peer has made it durable.
    ///
    /// # Errors
    /// [`PeerError`]; the part may or may not have arrived, and giving it again is harmless.
    pub async fn give(&self, part: &SnapshotPart) -> Result<Received, PeerError> {
        let body = pack(part).map_err(|error| self.answer(error.to_string()))?;
        metrics::counter!("repomind_ship_bytes_total", "peer" => self.peer.to_string()).increment(body.len() as u64);
        let answer = self.send(&self.shipping, Method::POST, ROWS, body.into(), limits::SHIP_TIME).await?;
        self.read(&answer.await?)
    }

    /// Asks the peer's side of the common log, within [`limits::CONTROL_TIME`].
    ///
    /// # Errors
    /// [`PeerError`]; the request may or may not have arrived.
    pub async fn control(&self, request: Vec<u8>) -> Result<Bytes, PeerError> {
        self.send(&self.agreeing, Method::POST, CONTROL, request.into(), limits::CONTROL_TIME).await?.await
    }

    /// Makes the connection for the common log where there is none: a vote must not wait for four round trips.
    ///
    /// # Errors
    /// [`PeerError`] where none can be made.
    pub async fn ready_for_control(&self) -> Result<(), PeerError> {
        let mut place = self.agreeing.sender.lock().await;
        if place.as_ref().is_none_or(Sender::is_closed) {
            *place = None;
            *place = Some(self.connect(&self.agreeing).await?);
        }
        Ok(())
    }

    /// The bundle in force at the peer, if it has one.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn fetch_bundle(&self) -> Result<Option<SignedBundle>, PeerError> {
        let answer = self.send(&self.control, Method::GET, BUNDLE, Bytes::new(), limits::SHIP_TIME).await?;
        match answer.await {
            Ok(bytes) => unpack(&bytes, limits::BUNDLE_BYTES).map(Some).map_err(|reason| self.answer(reason)),
            Err(PeerError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the peer load a candidate before it is agreed on. Returns once it is loaded there.
    ///
    /// # Errors
    /// [`PeerError`]; the peer loads it when it is agreed on, then.
    pub async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), PeerError> {
        let plain = postcard::to_stdvec(rehearsal).map_err(|error| self.answer(error.to_string()))?;
        let body = zstd::bulk::compress(&plain, super::LEVEL).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, REHEARSE, body.into(), limits::SHIP_TIME).await?;
        self.read(&answer.await?)
    }

    /// The petitions that this region lacks, which has these orders and so many acknowledgements of each.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn petitions(&self, known: &BTreeMap<OrderId, u32>) -> Result<Vec<Petition>, PeerError> {
        let body = postcard::to_stdvec(known).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, PETITIONS, body.into(), limits::SHIP_TIME).await?;
        unpack(&answer.await?, limits::BUNDLE_BYTES).map_err(|reason| self.answer(reason))
    }

    /// What the peer has of some writes.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn holdings(&self, question: &HoldingQuestion) -> Result<HoldingAnswer, PeerError> {
        let body = postcard::to_stdvec(question).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, HOLDINGS, body.into(), limits::SHIP_TIME).await?;
        self.read(&answer.await?)
    }

    /// Brings the peer records that it may hold, and gives how many it took; those are on its disk then.
    ///
    /// # Errors
    /// [`PeerError`]; bringing them again is harmless.
    pub async fn bring_home(&self, coming: &Homecoming) -> Result<u64, PeerError> {
        let body = pack(coming).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, HOME, body.into(), limits::SHIP_TIME).await?;
        self.read(&answer.await?)
    }

    /// Asks the peer for records that this region may hold again.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn ask_back(&self, question: &ReturnQuestion) -> Result<Homecoming, PeerError> {
        let body = postcard::to_stdvec(question).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, BACK, body.into(), limits::SHIP_TIME).await?;
        unpack(&answer.await?, limits::BATCH_BYTES_ACCEPTED).map_err(|reason| self.answer(reason))
    }

    /// What the peer holds that it could hold no more by other rulings.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn impact(&self, question: &ImpactQuestion) -> Result<Impact, PeerError> {
        let body = pack(question).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, IMPACT, body.into(), limits::SHIP_TIME).await?;
        self.read(&answer.await?)
    }

    /// What the peer holds, by scope; nothing where it is not at rest.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn account(&self) -> Result<Option<data::Account>, PeerError> {
        let answer = self.send(&self.control, Method::GET, ACCOUNT, Bytes::new(), limits::SHIP_TIME).await?;
        self.read(&answer.await?)
    }

    /// What the peer and this region may both hold, from after one key up to another.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn page(&self, after: Option<&Address>, upto: Option<&Address>) -> Result<data::Page, PeerError> {
        let body = postcard::to_stdvec(&(after, upto)).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, PAGE, body.into(), limits::SHIP_TIME).await?;
        self.read(&answer.await?)
    }

    /// What the peer holds of some keys.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn state(&self, keys: &[Address]) -> Result<Statement, PeerError> {
        let body = postcard::to_stdvec(keys).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.control, Method::POST, STATE, body.into(), limits::SHIP_TIME).await?;
        unpack(&answer.await?, limits::STATEMENT_BYTES).map_err(|reason| self.answer(reason))
    }

    /// Asks the peer for a chunk of a large value.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn chunk(&self, question: &ChunkQuestion) -> Result<ChunkAnswer, PeerError> {
        let body = postcard::to_stdvec(question).map_err(|error| self.answer(error.to_string()))?;
        let answer = self.send(&self.bulk, Method::POST, CHUNK, body.into(), limits::CHUNK_TIME).await?;
        match answer.await {
            Ok(stored) => Ok(ChunkAnswer::Here(stored)),
            Err(PeerError::Refused { status: 404, .. }) => Ok(ChunkAnswer::Absent),
            Err(PeerError::Refused { status: 410, .. }) => Ok(ChunkAnswer::Replaced),
            Err(PeerError::Refused { status: 424, .. }) => Ok(ChunkAnswer::Lost),
            Err(error) => Err(error),
        }
    }

    /// What the peer routed lately, by client class, within [`limits::PROBE_TIME`].
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn traffic(&self) -> Result<BTreeMap<ClientClass, f64>, PeerError> {
        let limit = limits::PROBE_TIME;
        let work = async { self.send(&self.control, Method::GET, TRAFFIC, Bytes::new(), limit).await?.await };
        self.read(&timeout(limit, work).await.map_err(|_| self.slow(limit))??)
    }

    /// Asks the peer to cosign a checkpoint, within [`limits::COSIGN_TIME`].
    ///
    /// # Errors
    /// [`PeerError`]; [`PeerError::Refused`] with status 422 means that the peer has seen another history.
    pub async fn cosign(&self, request: &CosignRequest) -> Result<CosignAnswer, PeerError> {
        let body = request.to_text().into();
        let answer = self.send(&self.control, Method::POST, COSIGN, body, limits::COSIGN_TIME).await?;
        match answer.await {
            Ok(line) => String::from_utf8(line.to_vec())
                .map(CosignAnswer::Line)
                .map_err(|_| self.answer("the signature line is no text".into())),
            Err(PeerError::Refused { status: 409, detail, .. }) => detail
                .trim()
                .parse()
                .map(CosignAnswer::From)
                .map_err(|_| self.answer(format!("a conflict without a size: {detail}"))),
            Err(error) => Err(error),
        }
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, PeerError> {
        read(&self.peer, bytes)
    }

    fn answer(&self, reason: String) -> PeerError {
        PeerError::Answer { peer: self.peer.clone(), reason }
    }

    pub(super) fn broken(&self, reason: &str) -> PeerError {
        PeerError::Broken { peer: self.peer.clone(), reason: reason.to_owned() }
    }

    fn slow(&self, limit: Duration) -> PeerError {
        PeerError::Slow { peer: self.peer.clone(), limit_ms: limit.as_millis() as u64 }
    }

    /// Queues a request on the lane's connection, in the order of calls.
    async fn send(
        &self,
        lane: &Lane,
        method: Method,
        path: &'static str,
        body: Bytes,
        limit: Duration,
    ) -> Result<impl Future<Output = Result<Bytes, PeerError>> + use<>, PeerError> {
        self.send_in(None, lane, (method, path), body, limit).await
    }

    async fn send_in(
        &self,
        life: Option<Incarnation>,
        lane: &Lane,
        (method, path): (Method, &'static str),
        body: Bytes,
        limit: Duration,
    ) -> Result<impl Future<Output = Result<Bytes, PeerError>> + use<>, PeerError> {
        let mut request = Request::builder().method(method).uri(format!("https://{}{DOMAIN}{path}", self.peer));
        if let Some(Incarnation(life)) = life {
            request = request.header(LIFE, life);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.answer(error.to_string()))?;
        let mut place = lane.sender.lock().await;
        let alive = match place.take() {
            Some(mut sender) => match timeout(limit, sender.ready()).await {
                Ok(Ok(())) => Some(sender),
                Ok(Err(_)) => None,
                Err(_) => return Err(self.slow(limit)),
            },
            None => None,
        };
        let mut sender = match alive {
            Some(sender) => sender,
            None => self.connect(lane).await?,
        };
        let pending = sender.send_request(request);
        *place = Some(sender);
        drop(place);
        let peer = self.peer.clone();
        Ok(async move {
            timeout(limit, receive(peer.clone(), pending))
                .await
                .unwrap_or_else(|_| Err(PeerError::Slow { peer, limit_ms: limit.as_millis() as u64 }))
        })
    }

    async fn connect(&self, lane: &Lane) -> Result<Sender, PeerError> {
        if let Some(pause) = lane.pause() {
            let pause_ms = pause.as_millis() as u64;
            return Err(PeerError::BackingOff { peer: self.peer.clone(), pause_ms });
        }
        // Counted before the attempt, because a caller that gives up drops this future.
        lane.failed();
        let outcome = timeout(limits::CONNECT_TIME, self.open()).await;
        let reason = match outcome {
            Ok(Ok((sender, ended))) => {
                lane.succeeded();
                *lane.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended;
                return Ok(sender);
            }
            Ok(Err(reason)) => reason,
            Err(_) => format!("no connection within {} ms", limits::CONNECT_TIME.as_millis()),
        };
        lane.failed_again();
        Err(PeerError::Connect { peer: self.peer.clone(), reason })
    }

    async fn open(&self) -> Result<(Sender, CancellationToken), String> {
        let stream = self.wan.dial(&self.peer, self.address).await.map_err(|error| error.to_string())?;
        let tls = self.tls.connect(self.name.clone(), stream).await.map_err(|error| error.to_string())?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(6))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            .max_header_list_size(limits::HEAD_BYTES as u32)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|error| error.to_string())?;
        let peer = self.peer.clone();
        let ended = CancellationToken::new();
        let tell = ended.clone().drop_guard();
        // Ends when the client is dropped or keep-alive finds the peer gone.
        tokio::spawn(async move {
            let _tell = tell;
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "peer connection ended");
            }
        });
        Ok((sender, ended))
    }
}

async fn receive(
    peer: RegionId,
    pending: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
) -> Result<Bytes, PeerError> {
    let response =
        pending.await.map_err(|error| PeerError::Broken { peer: peer.clone(), reason: error.to_string() })?;
    let status = response.status();
    let limit = limits::REPORT_BYTES.max(limits::BUNDLE_BYTES);
    let bytes = collect(response.into_body(), limit)
        .await
        .map_err(|problem| PeerError::Answer { peer: peer.clone(), reason: problem.json().to_string() })?;
    if status == StatusCode::OK {
        return Ok(bytes);
    }
    let detail = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
    Err(PeerError::Refused { peer, status: status.as_u16(), detail })
}

fn read<T: DeserializeOwned>(peer: &RegionId, bytes: &[u8]) -> Result<T, PeerError> {
    postcard::from_bytes(bytes).map_err(|error| PeerError::Answer { peer: peer.clone(), reason: error.to_string() })
}

impl Lane {
    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long no attempt may be made yet.
    fn pause(&self) -> Option<Duration> {
        let pause = self.failures().not_before?.saturating_duration_since(Instant::now());
        (!pause.is_zero()).then_some(pause)
    }

    fn failed(&self) {
        let mut failures = self.failures();
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        failures.not_before = Some(Instant::now() + back_off(failures.in_a_row));
    }

    /// Moves the end of the pause to after the failure, which may have taken long itself.
    fn failed_again(&self) {
        let mut failures = self.failures();
        failures.not_before = Some(Instant::now() + back_off(failures.in_a_row));
    }

    fn succeeded(&self) {
        *self.failures() = Failures::default();
    }
}

/// Between half and the whole of a span that doubles with each failure in a row.
pub(super) fn back_off(failures_in_a_row: u32) -> Duration {
    let doubled = limits::BACK_OFF_LEAST.saturating_mul(1 << failures_in_a_row.saturating_sub(1).min(10));
    jittered(doubled.min(limits::BACK_OFF_MOST))
}

/// Between half and the whole of `span`, so that regions do not retry in step.
pub(super) fn jittered(span: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness the pause is merely regular.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    span.mul_f64(0.5 + f64::from(byte[0]) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_each_failure_and_never_past_its_limit() {
        assert!(back_off(1) <= limits::BACK_OFF_LEAST);
        for failures in [6, 20, u32::MAX] {
            let pause = back_off(failures);
            assert!(pause <= limits::BACK_OFF_MOST && pause >= limits::BACK_OFF_MOST / 3, "{pause:?}");
        }
    }
}
