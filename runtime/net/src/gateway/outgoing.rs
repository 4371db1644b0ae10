//! The body of a request on its way to a service: kept whole where it is short, so that another region may be asked
//! with it, and handed on as it comes where it is not.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use crate::limits;
use crate::problem::Problem;
use crate::serve::{self, Body, BodyError};

/// What is sent to a service.
pub(super) enum Outgoing {
    /// All of it is here.
    Whole(Bytes),
    /// The beginning is here, the rest comes.
    Coming(Box<Streamed>),
    /// It was handed on.
    Gone,
}

impl Outgoing {
    /// Reads what may be sent more than once: up to [`limits::BODY_BYTES`], as far as it comes within
    /// [`limits::REPEATABLE_TIME`].
    ///
    /// # Errors
    /// The body says that it is too large, or breaks off.
    pub(super) async fn read(mut rest: Incoming) -> Result<Self, Problem> {
        if rest.size_hint().lower() > limits::STREAM_BYTES {
            return Err(too_large());
        }
        let mut first = BytesMut::new();
        let all = async {
            while first.len() <= limits::BODY_BYTES {
                match rest.frame().await {
                    None => return Ok(true),
                    Some(Ok(frame)) => first.extend(frame.into_data().ok()),
                    Some(Err(error)) => {
                        let detail = format!("the body broke off: {error}");
                        return Err(Problem::new(StatusCode::BAD_REQUEST, "body", detail));
                    }
                }
            }
            Ok(false)
        };
        let whole = timeout(limits::REPEATABLE_TIME, all).await.unwrap_or(Ok(false))?;
        let first = first.freeze();
        if whole {
            return Ok(Self::Whole(first));
        }
        let left = limits::STREAM_BYTES.saturating_sub(first.len() as u64);
        Ok(Self::Coming(Box::new(Streamed { first, rest, left, moved: Moved::new() })))
    }
}

fn too_large() -> Problem {
    let limit = limits::STREAM_BYTES;
    let detail = format!("a body has at most {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail).with("limit", limit)
}

/// When a body that is handed on moved last.
#[derive(Clone)]
pub(super) struct Moved {
    begun: Instant,
    millis: Arc<AtomicU64>,
}

impl Moved {
    fn new() -> Self {
        Self { begun: Instant::now(), millis: Arc::default() }
    }

    fn now(&self) {
        self.millis.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns once it has not moved for so long.
    pub(super) async fn stands_still(&self, limit: std::time::Duration) {
        loop {
            let moved = std::time::Duration::from_millis(self.millis.load(Ordering::Relaxed));
            let still = self.begun.elapsed().saturating_sub(moved);
            if still >= limit {
                return;
            }
            tokio::time::sleep(limit - still).await;
        }
    }
}

/// A body that is handed on as it comes.
pub(super) struct Streamed {
    first: Bytes,
    rest: Incoming,
    /// So many bytes may still come.
    left: u64,
    moved: Moved,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.moved.now();
        if self.first.has_remaining() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(context);
        Poll::Ready(match std::task::ready!(polled) {
            None => None,
            Some(Err(error)) => Some(Err(error.into())),
            Some(Ok(frame)) => {
                self.moved.now();
                let came = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(came) {
                    Some(left) => {
                        self.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err("the body is too large".into())),
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (first, rest) = (self.first.len() as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(first + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(first + upper);
        }
        hint
    }
}

impl Outgoing {
    /// When it moved last, where it is handed on as it comes.
    pub(super) fn moved(&self) -> Option<Moved> {
        match self {
            Self::Whole(_) | Self::Gone => None,
            Self::Coming(streamed) => Some(streamed.moved.clone()),
        }
    }

    /// The body for one attempt. There is no other of one that is handed on.
    pub(super) fn take(&mut self) -> Option<Body> {
        match self {
            Self::Whole(bytes) => Some(serve::full(bytes.clone())),
            Self::Gone => None,
            Self::Coming(_) => match std::mem::replace(self, Self::Gone) {
                Self::Coming(streamed) => Some(streamed.boxed_unsync()),
                _ => None,
            },
        }
    }
}
