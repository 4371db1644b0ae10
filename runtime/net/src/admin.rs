//! HTTP for operators: health, metrics, status, and what `verify` and `audit` read.
//!
//! `/healthz`, `/readyz`, `/metrics` and `/status` are open to whoever reaches
//! the address; they name no record. Everything else needs a token with the
//! scope `admin`.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use data::DataError;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use model::RegionId;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::evidence::{FrameWriter, LedgerHead};
use crate::gateway::problem_of;
use crate::problem::Problem;
use crate::serve::{Body, BodyError, collect, full, json_response, serve};
use crate::token::Scope;
use crate::wan::{LinkShape, WanChange, WanError};
use crate::{Region, TokenVerifier, limits, policies};

/// Bytes of rows that are sent as one piece.
const ROWS_PIECE: usize = 64 * 1024;

/// The largest body of an admin request.
const BODY: usize = 64 * 1024;

/// Prints what was counted since the process started.
pub type MetricsHandle = PrometheusHandle;

/// Why counting could not begin.
#[derive(Debug, thiserror::Error)]
#[error("metrics are already recorded elsewhere in this process: {0}")]
pub struct MetricsError(String);

/// Begins to count, once a process.
///
/// # Errors
/// [`MetricsError`] when something else records metrics already.
pub fn install_metrics() -> Result<MetricsHandle, MetricsError> {
    let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    PrometheusBuilder::new()
        .set_buckets(&seconds)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| MetricsError(error.to_string()))
}

struct Admin {
    region: Arc<dyn Region>,
    verifier: TokenVerifier,
    metrics: MetricsHandle,
}

/// Serves operators until `shutdown`, then drains.
pub async fn serve_admin(
    listener: TcpListener,
    region: Arc<dyn Region>,
    verifier: TokenVerifier,
    metrics: MetricsHandle,
    shutdown: CancellationToken,
) {
    let admin = Arc::new(Admin { region, verifier, metrics });
    let upkeep = admin.metrics.clone();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(std::time::Duration::from_secs(5));
        // Folds samples into buckets, so that memory stays bounded between scrapes.
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            upkeep.run_upkeep();
        }
    });
    serve("admin", listener, limits::ADMIN_CONNECTIONS, shutdown, move |stream, _| {
        let admin = admin.clone();
        let service = service_fn(move |request| {
            let admin = admin.clone();
            async move { Ok::<_, Infallible>(admin.answer(request).await) }
        });
        async move { Some((stream, service)) }
    })
    .await;
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match timeout(limits::REQUEST_TIME, self.route(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => problem.response(),
            Err(_) => Problem::unavailable("slow", "the request took too long here").response(),
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = request.uri().query().map(str::to_owned);
        let with_rows = query.as_deref() != Some("rows=no");
        let known = match path.as_str() {
            "/healthz" | "/readyz" | "/metrics" | "/status" | "/decisions" | "/decision" | "/decision-log"
            | "/digests" | "/conflicts" | "/rows" | "/ledger" | "/evidence" | "/keys" | "/policy/history"
            | "/policy/tree" | "/policy/waiting" | "/policy/bundle" | "/policy/next" => Method::GET,
            "/policy/publish" | "/policy/confirm" | "/policy/compare" | "/explain" | "/keys/rotate" => Method::POST,
            "/edge" => Method::GET,
            "/backups" if method == Method::POST => Method::POST,
            "/backups" => Method::GET,
            "/orders" if method == Method::POST => Method::POST,
            "/orders" => Method::GET,
            "/wan" => {
                if method == Method::GET {
                    Method::GET
                } else {
                    Method::PUT
                }
            }
            _ => return Err(Problem::not_found("no such admin request")),
        };
        if method != known && !(method == Method::HEAD && known == Method::GET) {
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", format!("use {known}")));
        }
        match path.as_str() {
            "/healthz" => return Ok(text("ok\n".into())),
            "/readyz" => {
                return match self.region.ready() {
                    Ok(()) => Ok(text("ready\n".into())),
                    Err(reason) => Err(Problem::unavailable("not-ready", reason)),
                };
            }
            "/metrics" => return Ok(text(self.metrics.render())),
            "/status" => return Ok(json_response(&self.region.status())),
            _ => {}
        }
        self.verifier.check(request.headers(), Scope::Admin)?;
        match path.as_str() {
            "/decisions" => Ok(json_response(&self.region.decisions())),
            "/decision" => policies::decision(self.region.clone(), request.uri().query()).await,
            "/decision-log" => policies::decision_log(self.region.clone()).await,
            "/digests" => self.digests().await,
            "/conflicts" => {
                let (id, data) = (self.region.id().clone(), self.region.data().clone());
                crate::conflicts::list(id, data, query.as_deref()).await
            }
            "/rows" => Ok(self.rows()),
            "/policy/history" => policies::history(self.region.clone()).await,
            "/policy/tree" => policies::tree(self.region.clone(), request.uri().query()).await,
            "/policy/bundle" => policies::bundle(self.region.clone(), request.uri().query()).await,
            "/policy/next" => Ok(json_response(&self.region.next_generation())),
            "/explain" => policies::explain(self.region.clone(), request.into_body()).await,
            "/orders" if method == Method::POST => policies::order(self.region.clone(), request.into_body()).await,
            "/orders" => Ok(policies::orders(&*self.region)),
            "/policy/waiting" => Ok(policies::waiting(&*self.region)),
            "/policy/confirm" => policies::confirm(self.region.clone(), request.into_body()).await,
            "/policy/compare" => policies::compare(self.region.clone(), request.into_body()).await,
            "/policy/publish" => policies::publish(self.region.clone(), request.into_body()).await,
            "/keys" => crate::keys::list(self.region.data()),
            "/keys/rotate" => crate::keys::rotate(self.region.data().clone()).await,
            "/backups" if method == Method::POST => Ok(json_response(&self.region.data().begin_backup())),
            "/backups" => Ok(json_response(&self.region.data().backup_state())),
            "/edge" => self.edge(request.uri().query()).await,
            "/ledger" => self.ledger().await,
            "/evidence" => Ok(self.evidence(with_rows)),
            _ if known == Method::GET => Ok(json_response(&self.region.wan().shapes())),
            _ => self.set_wan(request.into_body()).await,
        }
    }

    /// What an edge has to know. With `after=TAG`, once that is something else, or after [`limits::EDGE_WAIT`].
    async fn edge(&self, query: Option<&str>) -> Result<Response<Body>, Problem> {
        let after = query.and_then(|query| query.strip_prefix("after="));
        let give_up = tokio::time::Instant::now() + limits::EDGE_WAIT;
        loop {
            let order = self.region.edge().map_err(|reason| Problem::unavailable("edge", reason))?;
            if after != Some(order.tag.as_str()) || tokio::time::Instant::now() >= give_up {
                return Ok(json_response(&*order));
            }
            tokio::time::sleep(limits::EDGE_LOOK).await;
        }
    }

    async fn digests(&self) -> Result<Response<Body>, Problem> {
        let data = self.region.data().clone();
        let scopes = tokio::task::spawn_blocking(move || data.digests())
            .await
            .map_err(|_| Problem::unavailable("storage", "the digests could not be read"))?
            .map_err(|error| problem_of(&error))?;
        Ok(json_response(&scopes))
    }

    /// Every stored row as it lies on disk: length of the key (u32, big-endian), key, length, envelope.
    fn rows(&self) -> Response<Body> {
        let data = self.region.data().clone();
        streamed(move |send| {
            let mut piece = BytesMut::with_capacity(ROWS_PIECE * 2);
            data.each_row(&mut |key, row| {
                for part in [key, row] {
                    piece.put_u32(part.len() as u32);
                    piece.put_slice(part);
                }
                piece.len() < ROWS_PIECE || send(piece.split().freeze())
            })?;
            send(piece.freeze());
            Ok(())
        })
    }

    async fn ledger(&self) -> Result<Response<Body>, Problem> {
        let (data, region) = (self.region.data().clone(), self.region.id().clone());
        let head = tokio::task::spawn_blocking(move || {
            let notes = data.notes()?;
            let (leaves, cosigned) = (data.ledger().size(), data.cosigned()?);
            Ok::<_, DataError>(LedgerHead {
                region,
                leaves,
                signed: notes.signed,
                witnessed: notes.witnessed,
                cosigned,
            })
        });
        let head = head.await.map_err(|_| Problem::unavailable("storage", "the ledger could not be read"))?;
        Ok(json_response(&head.map_err(|error| problem_of(&error))?))
    }

    /// Everything that an auditor needs; see [`crate::evidence`].
    fn evidence(&self, rows: bool) -> Response<Body> {
        let (data, region, policy) = (self.region.data().clone(), self.region.id().clone(), self.region.policy());
        streamed(move |send| {
            let mut frames = FrameWriter::new(ROWS_PIECE * 2);
            frames.begin(&region, policy.as_ref(), data.vault().map(|vault| vault.region_keys()));
            let mut heard = true;
            data.evidence(rows, &mut |part| {
                frames.part(part);
                heard = frames.buffer.len() < ROWS_PIECE || send(frames.buffer.split().freeze());
                heard
            })?;
            if heard {
                frames.end();
                send(frames.buffer.freeze());
            }
            Ok(())
        })
    }

    async fn set_wan(&self, body: Incoming) -> Result<Response<Body>, Problem> {
        let body = collect(body, BODY).await?;
        let wrong = |error: WanError| Problem::field(error.field(), error.to_string());
        let change = WanChange::from_json(&body).map_err(wrong)?;
        if change.peer == *self.region.id() || !self.region.regions().by_id.contains_key(&change.peer) {
            return Err(Problem::field("peer", format!("{} is not a peer of {}", change.peer, self.region.id())));
        }
        let shape = self.region.wan().set(&change).map_err(wrong)?;
        tracing::info!(peer = %change.peer, ?shape, "an emulated link was changed");
        Ok(json_response(&Changed { peer: change.peer, shape }))
    }
}

/// A body that `produce` writes piece by piece, on a thread of its own. It is told `false` when the reader has gone; an
/// error breaks the stream off, so that no reader takes it for whole.
fn streamed<P>(produce: P) -> Response<Body>
where
    P: FnOnce(&mut dyn FnMut(Bytes) -> bool) -> Result<(), DataError> + Send + 'static,
{
    let (send, receive) = mpsc::channel::<Result<Bytes, BodyError>>(4);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = produce(&mut |piece| send.blocking_send(Ok(piece)).is_ok()) {
            tracing::error!(%error, "what the auditor asked for could not be read");
            let _ = send.blocking_send(Err(error.to_string().into()));
        }
    });
    let frames = stream::unfold(receive, |mut receive| async move {
        let piece = receive.recv().await?;
        Some((piece.map(Frame::data), receive))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let binary = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, binary);
    response
}

/// The answer to `PUT /wan`: the whole link as it is by then.
#[derive(Serialize)]
struct Changed {
    peer: RegionId,
    #[serde(flatten)]
    shape: LinkShape,
}

fn text(text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
