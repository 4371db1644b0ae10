//! The listening side of peer connections.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use compliance::ledger::CosignRequest;
use data::{DataError, DataPlane};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use model::eviction::{Homecoming, ImpactQuestion, ReturnQuestion};
use model::object::{ChunkAnswer, ChunkQuestion};
use model::record::{Address, Shipment};
use model::sealing::KeyParcel;
use model::snapshot::SnapshotPart;
use model::version::Incarnation;
use model::{Millis, RegionId};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    ACCOUNT, BACK, BUNDLE, CHUNK, CONTROL, COSIGN, HOLDINGS, HOME, IMPACT, KEYS, LIFE, PAGE, PETITIONS, PROBE,
    PeerReport, REHEARSE, ROWS, SHIP, STATE, TRAFFIC, pack, unpack,
};
use crate::Region;
use crate::identity::{self, Identity, IdentityError};
use crate::limits;
use crate::problem::Problem;
use crate::serve::{Body, collect, full, serve};

/// Serves the other regions until `shutdown`, then drains.
///
/// # Errors
/// [`IdentityError`] when the identity cannot be used; nothing is accepted then.
pub async fn serve_peer(
    listener: TcpListener,
    identity: Identity,
    region: Arc<dyn Region>,
    shutdown: CancellationToken,
) -> Result<(), IdentityError> {
    let tls = TlsAcceptor::from(identity.server()?);
    serve("peer", listener, limits::PEER_CONNECTIONS, shutdown, move |stream, address| {
        let (tls, region) = (tls.clone(), region.clone());
        async move {
            match greet(&tls, stream, &*region).await {
                Ok((stream, from)) => {
                    let session = Arc::new(Session {
                        from,
                        region,
                        last: Mutex::new(None),
                        chunks: Semaphore::new(limits::CHUNKS_GIVEN),
                    });
                    let service = service_fn(move |request| {
                        let turn = session.take_turn(&request);
                        let session = session.clone();
                        async move { Ok::<_, Infallible>(session.answer(request, turn).await) }
                    });
                    Some((stream, service))
                }
                Err(reason) => {
                    metrics::counter!("repomind_peer_refused_total").increment(1);
                    tracing::warn!(%address, reason, "peer connection refused");
                    None
                }
            }
        }
    })
    .await;
    Ok(())
}

async fn greet(
    tls: &TlsAcceptor,
    stream: TcpStream,
    region: &dyn Region,
) -> Result<(TlsStream<TcpStream>, RegionId), String> {
    let stream = timeout(limits::HANDSHAKE_TIME, tls.accept(stream))
        .await
        .map_err(|_| "the TLS handshake took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let first = chain.first().ok_or("no certificate was shown")?;
    let from = identity::region_of(first).map_err(|error| error.to_string())?;
    if !region.regions().by_id.contains_key(&from) {
        return Err(format!("{from} is not a region of this deployment"));
    }
    if from == *region.id() {
        return Err(format!("{from} is this region itself"));
    }
    Ok((stream, from))
}

/// One connection of one peer.
struct Session {
    from: RegionId,
    region: Arc<dyn Region>,
    /// Fires when the batch that was announced last has been dealt with.
    last: Mutex<Option<oneshot::Receiver<()>>>,
    /// Chunks that are read for it at once.
    chunks: Semaphore,
}

/// A batch's place in the order in which batches were announced on the connection.
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    /// Dropped when the batch has been dealt with, in whatever way.
    _done: oneshot::Sender<()>,
}

impl Session {
    /// Batches overtake each other while their bodies arrive; logs have no gaps. So each
    /// waits for the one announced before it.
    fn take_turn(&self, request: &Request<Incoming>) -> Option<Turn> {
        if ![SHIP, KEYS].contains(&request.uri().path()) {
            return None;
        }
        let (done, next) = oneshot::channel();
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(next);
        Some(Turn { before, _done: done })
    }

    async fn answer(&self, request: Request<Incoming>, turn: Option<Turn>) -> Response<Body> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let work = async {
            match (method, path.as_str()) {
                (Method::GET, PROBE) => self.probe(),
                (Method::POST, SHIP) => self.ship(request, turn).await,
                (Method::POST, KEYS) => self.take_keys(request.into_body(), turn).await,
                (Method::POST, PETITIONS) => self.petitions(request.into_body()).await,
                (Method::POST, HOLDINGS) => self.holdings(request.into_body()).await,
                (Method::POST, CHUNK) => self.give_chunk(request.into_body()).await,
                (Method::POST, HOME) => self.take_home(request.into_body()).await,
                (Method::POST, BACK) => self.give_back(request.into_body()).await,
                (Method::POST, IMPACT) => self.impact(request.into_body()).await,
                (Method::GET, ACCOUNT) => self.account().await,
                (Method::POST, PAGE) => self.page(request.into_body()).await,
                (Method::POST, STATE) => self.state(request.into_body()).await,
                (Method::POST, ROWS) => self.take_part(request.into_body()).await,
                (Method::POST, CONTROL) => self.control(request.into_body()).await,
                (Method::POST, REHEARSE) => self.rehearse(request.into_body()).await,
                (Method::GET, BUNDLE) => self.give_bundle(),
                (Method::GET, TRAFFIC) => postcard_response(&self.region.recent_traffic()),
                (Method::POST, COSIGN) => self.cosign(request.into_body()).await,
                _ => Err(Problem::not_found("no such peer request")),
            }
        };
        match timeout(limits::SHIP_TIME, work).await {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => problem.response(),
            Err(_) => Problem::unavailable("slow", "the request took too long here").response(),
        }
    }

    fn probe(&self) -> Result<Response<Body>, Problem> {
        let data::Burials { buried, quiet } = self.region.data().burials();
        let report = PeerReport {
            vector: self.region.data().vector(),
            buried,
            quiet,
            generation: self.region.plans().generation,
            control: self.region.control_report(),
            api_ok: self.region.api_ok(),
            state: self.region.own_state(),
            region_key: self.region.data().vault().map(|vault| vault.public_key()),
            sees: self.region.observations(),
        };
        postcard_response(&report)
    }

    async fn take_part(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::BATCH_BYTES_ACCEPTED).await?;
        let part: SnapshotPart = unpack(&bytes, limits::BATCH_BYTES_ACCEPTED).map_err(bad_request)?;
        let received = self.region.data().take_part(&self.from, part).await.map_err(|error| {
            tracing::warn!(from = %self.from, %error, "rows were not taken over");
            crate::gateway::problem_of(&error)
        })?;
        postcard_response(&received)
    }

    async fn account(&self) -> Result<Response<Body>, Problem> {
        let data = self.region.data().clone();
        let account = tokio::task::spawn_blocking(move || data.account()).await;
        let account = account.map_err(|_| Problem::unavailable("storage", "the rows could not be read"))?;
        postcard_response(&account.map_err(|error| crate::gateway::problem_of(&error))?)
    }

    async fn page(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::REPORT_BYTES).await?;
        let (after, upto): (Option<Address>, Option<Address>) =
            postcard::from_bytes(&bytes).map_err(|error| bad_request(error.to_string()))?;
        let (data, from) = (self.region.data().clone(), self.from.clone());
        let page = tokio::task::spawn_blocking(move || data.page(&from, after.as_ref(), upto.as_ref())).await;
        let page = page.map_err(|_| Problem::unavailable("storage", "the rows could not be read"))?;
        postcard_response(&page.map_err(|error| crate::gateway::problem_of(&error))?)
    }

    async fn state(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::REPORT_BYTES).await?;
        let keys: Vec<Address> = postcard::from_bytes(&bytes).map_err(|error| bad_request(error.to_string()))?;
        let (data, from) = (self.region.data().clone(), self.from.clone());
        let stated = tokio::task::spawn_blocking(move || data.state(&from, &keys)).await;
        let stated = stated.map_err(|_| Problem::unavailable("storage", "the rows could not be read"))?;
        let stated = stated.map_err(|error| crate::gateway::problem_of(&error))?;
        let packed = pack(&stated).map_err(|error| Problem::unavailable("encoding", error.to_string()))?;
        Ok(Response::new(full(Bytes::from(packed))))
    }

    async fn petitions(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::BUNDLE_BYTES).await?;
        let known = postcard::from_bytes(&bytes).map_err(|error| bad_request(error.to_string()))?;
        let mut lacking = self.region.petitions(&known);
        // The rest with the next round.
        lacking.truncate(limits::PETITIONS);
        let packed = pack(&lacking).map_err(|error| Problem::unavailable("encoding", error.to_string()))?;
        Ok(Response::new(full(Bytes::from(packed))))
    }

    async fn holdings(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::REPORT_BYTES).await?;
        let question = postcard::from_bytes(&bytes).map_err(|error| bad_request(error.to_string()))?;
        let answer = self.region.data().holdings(question).await.map_err(|error| crate::gateway::problem_of(&error))?;
        postcard_response(&answer)
    }

    async fn give_chunk(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::REPORT_BYTES).await?;
        let question: ChunkQuestion = postcard::from_bytes(&bytes).map_err(|error| bad_request(error.to_string()))?;
        let _turn =
            self.chunks.acquire().await.map_err(|_| Problem::unavailable("closing", "this region is closing"))?;
        let from = self.from.clone();
        // Nothing of what this region may have and the asking one may not is said by the answer.
        match self.on_disk(move |data| data.give_chunk(&from, &question)).await? {
            ChunkAnswer::Here(stored) => Ok(Response::new(full(stored))),
            ChunkAnswer::Absent => Err(Problem::not_found("there is no such chunk for this region")),
            ChunkAnswer::Replaced => Err(Problem::new(StatusCode::GONE, "replaced", "the write was replaced")),
            ChunkAnswer::Lost => {
                Err(Problem::new(StatusCode::FAILED_DEPENDENCY, "lost", "the chunk is not whole here"))
            }
        }
    }

    async fn take_home(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::BATCH_BYTES_ACCEPTED).await?;
        let coming: Homecoming = unpack(&bytes, limits::BATCH_BYTES_ACCEPTED).map_err(bad_request)?;
        let taken = self.region.data().come_home(&self.from, coming).await.map_err(|error| {
            tracing::warn!(from = %self.from, %error, "records that may be here were not taken over");
            crate::gateway::problem_of(&error)
        })?;
        postcard_response(&taken)
    }

    async fn give_back(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::REPORT_BYTES).await?;
        let question: ReturnQuestion = postcard::from_bytes(&bytes).map_err(|error| bad_request(error.to_string()))?;
        let from = self.from.clone();
        let homecoming = self.on_disk(move |data| data.give_back(&from, &question)).await?;
        let packed = pack(&homecoming).map_err(|error| Problem::unavailable("encoding", error.to_string()))?;
        Ok(Response::new(full(Bytes::from(packed))))
    }

    async fn impact(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::BUNDLE_BYTES).await?;
        let ImpactQuestion { rulings, regions, within_ms } =
            unpack(&bytes, limits::BUNDLE_BYTES).map_err(bad_request)?;
        let regions = regions.into_iter().map(|policy| (policy.region.clone(), policy)).collect();
        let within = Millis(within_ms.min(limits::IMPACT_TIME.as_millis() as u64));
        let impact = self
            .on_disk(move |data| data.impact(&compliance::plan_from(compliance::cases(), rulings, regions), within))
            .await?;
        postcard_response(&impact)
    }

    /// Runs what reads the disk off the threads that serve sockets.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DataPlane) -> Result<T, DataError> + Send + 'static,
    ) -> Result<T, Problem> {
        let data = self.region.data().clone();
        let done = tokio::task::spawn_blocking(move || work(&data)).await;
        let done = done.map_err(|_| Problem::unavailable("storage", "the records could not be read"))?;
        done.map_err(|error| crate::gateway::problem_of(&error))
    }

    async fn take_keys(&self, body: Incoming, mut turn: Option<Turn>) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::BATCH_BYTES_ACCEPTED).await?;
        let parcel: KeyParcel = unpack(&bytes, limits::BATCH_BYTES_ACCEPTED).map_err(bad_request)?;
        if let Some(earlier) = turn.as_mut().and_then(|turn| turn.before.take()) {
            let _ = earlier.await;
        }
        let data = self.region.data().clone();
        // Writes to disk: not on the threads that serve sockets.
        let taken = tokio::task::spawn_blocking(move || data.take_keys(&parcel)).await;
        let taken = taken.map_err(|_| Problem::unavailable("storage", "the keys could not be taken over"))?;
        taken.map_err(|error| {
            tracing::warn!(from = %self.from, %error, "data keys were not taken over");
            crate::gateway::problem_of(&error)
        })?;
        postcard_response(&())
    }

    async fn ship(&self, request: Request<Incoming>, turn: Option<Turn>) -> Result<Response<Body>, Problem> {
        let life = match request.headers().get(LIFE) {
            Some(value) => {
                let number = value.to_str().ok().and_then(|text| text.parse().ok());
                Some(Incarnation(number.ok_or_else(|| bad_request(format!("{LIFE} is no number")))?))
            }
            None => None,
        };
        let bytes = collect(request.into_body(), limits::BATCH_BYTES_ACCEPTED).await?;
        let batch: Vec<Shipment> = unpack(&bytes, limits::BATCH_BYTES_ACCEPTED).map_err(bad_request)?;
        // The turn itself is held until this function returns.
        let mut turn = turn;
        if let Some(earlier) = turn.as_mut().and_then(|turn| turn.before.take()) {
            let _ = earlier.await;
        }
        self.receive(life, batch).await
    }

    async fn receive(&self, life: Option<Incarnation>, batch: Vec<Shipment>) -> Result<Response<Body>, Problem> {
        let count = batch.len() as u64;
        let received = self.region.data().receive_in_life(&self.from, life, batch).await.map_err(|error| {
            tracing::warn!(from = %self.from, %error, "a batch was not taken over");
            crate::gateway::problem_of(&error)
        })?;
        metrics::counter!("repomind_received_shipments_total", "from" => self.from.to_string()).increment(count);
        postcard_response(&received)
    }

    async fn control(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let request = collect(body, limits::CONTROL_BYTES).await?;
        match self.region.control(self.from.clone(), request.to_vec()).await {
            Ok(answer) => Ok(Response::new(full(answer))),
            Err(reason) => Err(Problem::new(StatusCode::CONFLICT, "control", reason)),
        }
    }

    async fn cosign(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::COSIGN_BYTES).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| bad_request("the request is no text".into()))?;
        let request = CosignRequest::parse(text).map_err(|error| bad_request(error.to_string()))?;
        match self.region.clone().cosign(self.from.clone(), request).await {
            Ok(line) => Ok(Response::new(full(line))),
            Err(refusal) => Ok(refusal.response()),
        }
    }

    async fn rehearse(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let bytes = collect(body, limits::BUNDLE_BYTES).await?;
        let plain =
            zstd::bulk::decompress(&bytes, limits::BUNDLE_BYTES).map_err(|error| bad_request(error.to_string()))?;
        let rehearsal = postcard::from_bytes(&plain).map_err(|error| bad_request(error.to_string()))?;
        match self.region.clone().rehearse(self.from.clone(), rehearsal).await {
            Ok(()) => postcard_response(&()),
            Err(reason) => Err(Problem::new(StatusCode::CONFLICT, "rehearsal", reason)),
        }
    }

    fn give_bundle(&self) -> Result<Response<Body>, Problem> {
        let bundle = self.region.bundle().ok_or_else(|| Problem::not_found("no generation is in force yet"))?;
        let packed = pack(&bundle).map_err(|error| Problem::unavailable("encoding", error.to_string()))?;
        Ok(Response::new(full(Bytes::from(packed))))
    }
}

fn bad_request(reason: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "body", reason)
}

fn postcard_response(value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let bytes = postcard::to_stdvec(value)
        .map_err(|error| Problem::unavailable("encoding", error.to_string()).retry_after(Duration::from_secs(1)))?;
    Ok(Response::new(full(bytes)))
}
