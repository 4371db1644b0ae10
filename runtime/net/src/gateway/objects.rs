//! Large values, both ways, with a chunk or two of them in memory at any time.
//!
//! What is declared as at most [`limits::BODY_BYTES`] is read whole and becomes a record as ever; what is more, or proves
//! to be, is handed on as it comes. Ranges are answered for records of any size (RFC 9110, 14).

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use data::{DataError, ObjectReader, View, Write, Written};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use model::record::Address;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::assets::{Range, range};
use super::{Gateway, problem_of, set};
use crate::limits;
use crate::problem::Problem;
use crate::serve::{Body, BodyError, collect, empty, full};

/// Bytes of an object that are handed to a connection at once.
const PIECE: usize = 256 * 1024;

/// Whether a request may bring or take more than fits into the time of an ordinary one.
pub(super) fn is_long(request: &Request<Incoming>) -> bool {
    let declared = declared(request.headers());
    request.method() == Method::PUT && declared.is_none_or(|length| length > limits::BODY_BYTES as u64)
}

/// How long the body is said to be.
fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body that has to keep a pace: it may stand still for a while, and not for ever.
struct Paced {
    body: Incoming,
    begun: Instant,
    received: u64,
}

impl Paced {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "body-time", "the body took too long to arrive");
        loop {
            let earned = Duration::from_secs(self.received / limits::OBJECT_PACE);
            let left = (limits::OBJECT_STALL + earned).checked_sub(self.begun.elapsed()).ok_or_else(slow)?;
            let frame = timeout(left.min(limits::OBJECT_STALL), self.body.frame()).await.map_err(|_| slow())?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| {
                Problem::new(StatusCode::BAD_REQUEST, "body", format!("the body broke off: {error}"))
            })?;
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                self.received += bytes.len() as u64;
                return Ok(Some(bytes));
            }
        }
    }
}

impl Gateway {
    /// Writes the value that a body brings, of whatever size.
    pub(super) async fn write_body(
        &self,
        mut write: Write,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Written, Problem> {
        let declared = declared(headers);
        if declared.is_some_and(|length| length <= limits::BODY_BYTES as u64) {
            write.value = Some(collect(body, limits::BODY_BYTES).await?);
            return self.written(write).await;
        }
        let mut body = Paced { body, begun: Instant::now(), received: 0 };
        let mut first = BytesMut::new();
        if declared.is_none() {
            while first.len() <= limits::BODY_BYTES {
                match body.next().await? {
                    Some(bytes) => first.extend_from_slice(&bytes),
                    None => {
                        write.value = Some(first.freeze());
                        return self.written(write).await;
                    }
                }
            }
        }
        write.value = None;
        let refused = |error: DataError| problem_of(&error);
        let mut upload = self.region.data().begin_object(write, declared).await.map_err(refused)?;
        upload.push(first.freeze()).await.map_err(refused)?;
        while let Some(bytes) = body.next().await? {
            upload.push(bytes).await.map_err(refused)?;
        }
        super::api::acknowledged(upload.finish().await.map_err(refused)?)
    }

    /// Puts the value of a record, or the part of it that was asked for, into an answer that has all else.
    pub(super) async fn give_value(
        &self,
        address: &Address,
        view: &View,
        (method, asked): (&Method, &HeaderMap),
        response: &mut Response<Body>,
    ) -> Result<(), Problem> {
        let object = self.region.data().open_object(address, view).map_err(|error| problem_of(&error))?;
        let length = object.as_ref().map_or(view.record.payload.bytes().len() as u64, ObjectReader::length);
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let wanted = if *method == Method::GET { range(asked, &tag, length) } else { Range::Whole };
        let (from, to) = match wanted {
            Range::Whole => (0, length),
            Range::Part(from, to) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let line = format!("bytes {from}-{}/{length}", to - 1);
                set(response.headers_mut(), "content-range", &line, true);
                (from, to)
            }
            Range::Beyond => {
                let detail = "the record has fewer bytes than the range begins with";
                let mut refused =
                    Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", detail).with("length", length).response();
                set(refused.headers_mut(), "content-range", &format!("bytes */{length}"), true);
                *response = refused;
                return Ok(());
            }
        };
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
        *response.body_mut() = match object {
            _ if *method == Method::HEAD || from == to => empty(),
            Some(object) => self.stream(object, from, to).await?,
            None => full(view.record.payload.bytes().slice(from as usize..to as usize)),
        };
        Ok(())
    }

    /// The bytes of an object from one place up to another. The first of them have been read and verified by then.
    async fn stream(&self, object: ObjectReader, from: u64, to: u64) -> Result<Body, Problem> {
        let busy = |_| {
            let detail = "this region is giving as many large values as it can at once";
            Problem::unavailable("busy", detail).retry_after(Duration::from_secs(1))
        };
        let turn = self.downloads.clone().try_acquire_owned().map_err(busy)?;
        let first = object.from(from).await.map_err(|error| problem_of(&error))?;
        let (out, pieces) = mpsc::channel(1);
        tokio::spawn(give(object, (from, to), first, out, turn));
        let frames = stream::unfold(pieces, |mut pieces| async move {
            let piece: Result<Bytes, BodyError> = pieces.recv().await?;
            Some((piece.map(Frame::data), pieces))
        });
        Ok(StreamBody::new(frames).boxed_unsync())
    }
}

/// Hands pieces on, each when the one before was taken. Who takes none for [`limits::OBJECT_STALL`] is left: the answer
/// is shorter than it said then, so that nobody takes it for whole.
async fn give(
    object: ObjectReader,
    (mut at, to): (u64, u64),
    mut have: Bytes,
    out: mpsc::Sender<Result<Bytes, BodyError>>,
    _turn: OwnedSemaphorePermit,
) {
    while at < to {
        if have.is_empty() {
            have = match object.from(at).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "a large value broke off");
                    let _ = timeout(limits::OBJECT_STALL, out.send(Err(error.into()))).await;
                    return;
                }
            };
        }
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(PIECE).min(have.len());
        let piece = have.split_to(wanted);
        at += wanted as u64;
        if !matches!(timeout(limits::OBJECT_STALL, out.send(Ok(piece))).await, Ok(Ok(()))) {
            return;
        }
    }
}
