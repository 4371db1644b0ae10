//! `GET /v1/watch/{namespace}`: what changes, as server-sent events.
//!
//! An event names a key and what is under it now, read as any reader reads it: by the policies in force in this region at
//! that moment, with the winner among concurrent writes, opened. So keys that were written several times are told once, and
//! nothing is told that a read would not show. The id of an event is how far this client is in every log, so that it can go
//! on behind it (`Last-Event-ID`) in any region.
//!
//! The stream ends with an `end` event that says why. A client that does not read is waited for, with
//! [`limits::WATCH_EVENTS`] events in memory, and then sent away; it goes on where it was.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use data::vault::VaultError;
use data::{DataError, DataPlane, View, Watching};
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use model::record::Address;
use model::version::PositionVector;
use model::{Key, Namespace};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::quoted;
use super::{Gateway, claims, parameters, set};
use crate::limits;
use crate::problem::Problem;
use crate::serve::{Body, BodyError};
use crate::token::Scope;

impl Gateway {
    /// Answers a request below `/v1/watch`.
    pub(super) async fn watch(&self, request: &Request<Incoming>) -> Result<Response<Body>, Problem> {
        let grant = self.verifier.check(request.headers(), Scope::DataRead)?;
        let namespace = request.uri().path().strip_prefix("/v1/watch/").unwrap_or_default();
        let namespace = Namespace::new(namespace).map_err(|error| Problem::field("namespace", error.to_string()))?;
        let (mut prefix, mut values) = (String::new(), false);
        for (name, value) in parameters(request.uri().query())? {
            match (name.as_str(), value.as_str()) {
                ("prefix", _) => prefix = value,
                ("values", "yes" | "no") => values = value == "yes",
                ("values", _) => return Err(Problem::field("values", "use yes or no")),
                _ => return Err(Problem::field("query", "the parameters are prefix and values")),
            }
        }
        let resumed = position(request.headers())?;
        let Ok(permit) = self.watchers.clone().try_acquire_owned() else {
            let detail = format!("{} clients watch here already", limits::WATCHERS);
            return Err(Problem::unavailable("too-many-watchers", detail).with("limit", limits::WATCHERS));
        };
        let data = self.region.data().clone();
        // From before the position is taken: nothing falls between.
        let watching = data.watch();
        let at = resumed.clone().unwrap_or_else(|| data.vector());
        let (events, waiting) = mpsc::channel(limits::WATCH_EVENTS);
        let last = Arc::new(Mutex::new(None));
        let watcher = Watcher {
            data,
            namespace,
            prefix,
            values,
            context_key: self.context_key().clone(),
            region: self.region.id().to_string(),
            at,
            told: None,
            events,
            last: last.clone(),
            until: Instant::now() + grant.remains(),
            shutdown: self.shutdown.clone(),
            _permit: permit,
        };
        tokio::spawn(watcher.run(watching, resumed.is_some()));
        let mut response = Response::new(body(waiting, last));
        let headers = response.headers_mut();
        set(headers, "content-type", "text/event-stream", true);
        set(headers, "cache-control", "private, no-store", true);
        set(headers, "x-content-type-options", "nosniff", true);
        // Proxies that gather answers would hold events back.
        set(headers, "x-accel-buffering", "no", true);
        Ok(response)
    }
}

/// Where a client was, as it hands that back; nothing where it begins.
fn position(headers: &HeaderMap) -> Result<Option<PositionVector>, Problem> {
    let name = "last-event-id";
    let Some(text) = claims::text(headers, name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = || Problem::field(name, "send it back exactly as an event gave it, or leave it out");
    if text.len() > limits::WATCH_POSITION_BYTES {
        return Err(wrong());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    match postcard::take_from_bytes(&bytes) {
        Ok((at, [])) => Ok(Some(at)),
        _ => Err(wrong()),
    }
}

fn position_text(at: &PositionVector) -> String {
    URL_SAFE_NO_PAD.encode(postcard::to_stdvec(at).unwrap_or_default())
}

/// Events as they come, and the last words behind them, for which there is always room.
fn body(waiting: mpsc::Receiver<Bytes>, last: Arc<Mutex<Option<Bytes>>>) -> Body {
    let frames = stream::unfold((waiting, last), |(mut waiting, last)| async move {
        let next = match waiting.recv().await {
            Some(event) => Some(event),
            None => last.lock().expect("nothing panics while it holds the lock").take(),
        };
        Some((Ok::<_, BodyError>(Frame::data(next?)), (waiting, last)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Why a stream ends.
#[derive(Clone, Copy)]
enum End {
    /// The client has not read for too long.
    TooSlow,
    /// The token has come to its end.
    TokenExpired,
    /// This region shuts down.
    Closing,
    /// Something that is stored could not be read.
    Storage,
    /// The client has left.
    Gone,
}

impl End {
    const fn reason(self) -> &'static str {
        match self {
            Self::TooSlow => "too-slow",
            Self::TokenExpired => "token-expired",
            Self::Closing => "closing",
            Self::Storage => "storage",
            Self::Gone => "gone",
        }
    }
}

/// What serves one client.
struct Watcher {
    data: DataPlane,
    namespace: Namespace,
    prefix: String,
    values: bool,
    context_key: data::ContextKey,
    region: String,
    /// How far it has looked.
    at: PositionVector,
    /// The position that the client was told last.
    told: Option<PositionVector>,
    events: mpsc::Sender<Bytes>,
    last: Arc<Mutex<Option<Bytes>>>,
    /// When the token is over.
    until: Instant,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn run(mut self, watching: Watching, resumed: bool) {
        metrics::gauge!("repomind_watchers").increment(1.0);
        let Err(end) = self.follow(watching, resumed).await;
        metrics::gauge!("repomind_watchers").decrement(1.0);
        metrics::counter!("repomind_watches_ended_total", "reason" => end.reason()).increment(1);
        // Without a position: the client goes on behind the last event that it has read.
        let words = event("end", None, &json!({ "reason": end.reason() }));
        *self.last.lock().expect("nothing panics while it holds the lock") = Some(words);
    }

    async fn follow(&mut self, mut watching: Watching, resumed: bool) -> Result<std::convert::Infallible, End> {
        let start = Bytes::from_static(b"retry: 1000\n\n");
        self.send(start).await?;
        if !resumed {
            self.told = Some(self.at.clone());
        }
        let id = self.told.as_ref().map(position_text);
        self.send(event("ready", id.as_deref(), &json!({ "region": self.region, "resumed": resumed }))).await?;
        loop {
            watching.commits.borrow_and_update();
            while self.look().await? {}
            let idle = Instant::now() + limits::WATCH_IDLE;
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(End::Closing),
                () = sleep_until(self.until) => return Err(End::TokenExpired),
                () = self.events.closed() => return Err(End::Gone),
                changed = watching.commits.changed() => changed.map_err(|_| End::Closing)?,
                unlogged = watching.unlogged.recv() => match unlogged {
                    Ok(addresses) => {
                        let ours = |at: &&Address| at.namespace == self.namespace && at.key.as_str().starts_with(&self.prefix);
                        let keys: Vec<Key> = addresses.iter().filter(ours).map(|at| at.key.clone()).collect();
                        self.tell(keys, None).await?;
                    }
                    Err(RecvError::Lagged(_)) => self.reset("fell-behind", None).await?,
                    Err(RecvError::Closed) => return Err(End::Closing),
                },
                () = sleep_until(idle) => {
                    // Also where it is, so that it does not come back with a position that has long been cut.
                    let id = (self.told.as_ref() != Some(&self.at)).then(|| position_text(&self.at));
                    self.told = Some(self.at.clone());
                    let line = id.map_or_else(|| ":\n\n".to_owned(), |id| format!("id: {id}\n\n"));
                    self.send(line.into()).await?;
                }
            }
        }
    }

    /// Tells of what lies behind the position, and says whether there is more.
    async fn look(&mut self) -> Result<bool, End> {
        if Instant::now() >= self.until {
            // However much is left to tell.
            return Err(End::TokenExpired);
        }
        let (data, namespace, prefix, at) =
            (self.data.clone(), self.namespace.clone(), self.prefix.clone(), self.at.clone());
        let looked = tokio::task::spawn_blocking(move || data.changes_after(&namespace, &prefix, &at)).await;
        let changes = match looked {
            Ok(Ok(changes)) => changes,
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(_) => return Err(End::Closing),
        };
        if changes.cut {
            self.reset("cut", Some(&changes.upto)).await?;
        }
        let more = changes.more;
        self.tell(changes.keys, Some(&changes.upto)).await?;
        self.at = changes.upto;
        Ok(more)
    }

    /// The client has to list the namespace: what happened before cannot be told any more.
    async fn reset(&mut self, why: &str, at: Option<&PositionVector>) -> Result<(), End> {
        self.send(event("reset", at.map(position_text).as_deref(), &json!({ "reason": why }))).await
    }

    /// One event a key; the last of them says how far the client is then.
    async fn tell(&mut self, keys: Vec<Key>, upto: Option<&PositionVector>) -> Result<(), End> {
        let mut waiting: Option<(&str, Value)> = None;
        for key in keys {
            let address = Address { namespace: self.namespace.clone(), key };
            let Some(said) = self.state_of(&address).await? else { continue };
            if let Some((kind, before)) = waiting.replace(said) {
                self.send(event(kind, None, &before)).await?;
            }
        }
        let Some((kind, said)) = waiting else { return Ok(()) };
        if let Some(upto) = upto {
            self.told = Some(upto.clone());
        }
        self.send(event(kind, upto.map(position_text).as_deref(), &said)).await
    }

    /// What a reader would be shown; nothing of what it would not be.
    async fn state_of(&self, address: &Address) -> Result<Option<(&'static str, Value)>, End> {
        let key = address.key.as_str();
        match self.data.read(address).await {
            Ok(Some(view)) => Ok(Some(("put", self.put(key, &view)))),
            Ok(None) | Err(DataError::Vault(VaultError::Erased)) => Ok(Some(("delete", json!({ "key": key })))),
            Err(DataError::Elsewhere { regions, .. }) => {
                let lawful: Vec<&str> = regions.iter().map(|region| region.as_str()).collect();
                Ok(Some(("moved", json!({ "key": key, "lawful_regions": lawful }))))
            }
            Err(DataError::Barred(_)) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn put(&self, key: &str, view: &View) -> Value {
        let value = view.record.payload.bytes();
        let mut said = json!({
            "key": key,
            "etag": quoted(&view.etag),
            "content_type": view.record.content_type,
            "bytes": view.record.payload.value_len(),
            "classes": view.record.labels.classes.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
            "siblings": view.siblings,
            "resolved_by": view.resolved_by,
            "context": claims::context_text(&view.context, &self.context_key),
        });
        if self.values && view.record.payload.value_len() <= limits::WATCH_VALUE_BYTES as u64 {
            said["value_base64"] = json!(STANDARD.encode(value));
        }
        said
    }

    fn failed(&self, error: &DataError) -> End {
        if matches!(error, DataError::Closed) {
            return End::Closing;
        }
        tracing::warn!(%error, "a client that watches was sent away: something could not be read");
        End::Storage
    }

    /// Hands an event on, and waits for the client to leave room for it.
    async fn send(&self, event: Bytes) -> Result<(), End> {
        let patience =
            limits::WATCH_SLOW.min(self.until.saturating_duration_since(Instant::now()) + Duration::from_secs(1));
        tokio::select! {
            () = self.shutdown.cancelled() => Err(End::Closing),
            sent = self.events.send_timeout(event, patience) => match sent {
                Ok(()) => Ok(()),
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(End::TooSlow),
                Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End::Gone),
            },
        }
    }
}

/// An event as it goes over the wire (HTML, 9.2.6). JSON has no line ends in it.
fn event(kind: &str, id: Option<&str>, data: &Value) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Bytes::from(format!("event: {kind}\n{id}data: {data}\n\n"))
}
