//! Calls of Cloudflare's API: the token, the envelope, retries with limits, and pages.
//!
//! What the API was too busy for (429) or failed at (5xx) is asked again where asking twice does the same as asking once.
//! Where it may not, and nobody knows whether it was done, the caller is told so and looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloud::cloudflare::request::Call;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use serde_json::Value;

use super::secrets::Secrets;
use crate::client::Reply;
use crate::https::{Https, NoAnswer, check};

/// How often a call is made before it is given up.
const ATTEMPTS: u32 = 6;
/// The wait after the first failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait that the API may ask for at once, and all waits of a command together, in milliseconds.
const LONGEST_WAIT: Duration = Duration::from_secs(320);
const ALL_WAITS_MS: u64 = 15 * 60 * 1000;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(30);
/// How long an upload may take.
const UPLOAD: Duration = Duration::from_secs(120);
/// The most pages of a list that are read, and how long one is.
const PAGES: u64 = 200;
const PAGE: u64 = 50;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API said no: nothing was done.
    #[error("{call}: refused with {status}: {why}")]
    Refused {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The codes of its errors.
        codes: Vec<i64>,
        /// Its words.
        why: String,
    },
    /// Nobody knows whether it was done.
    #[error("{call}: {why}")]
    Unclear {
        /// Method and path.
        call: String,
        /// What happened.
        why: String,
        /// How long to wait before looking, or asking again.
        wait: Duration,
    },
}

impl ApiError {
    /// Whether there is nothing of that name.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// The API, with a token.
pub struct Api {
    https: Https,
    base: String,
    authorization: HeaderValue,
    waited_ms: AtomicU64,
}

/// What is sent with a call.
pub enum Sent {
    /// What the call itself says.
    Json,
    /// A form, with its media type.
    Form(String, Vec<u8>),
}

impl Api {
    /// The API at `base`.
    ///
    /// # Errors
    /// The token would travel in the open.
    pub fn new(base: &Uri, secrets: &Secrets) -> anyhow::Result<Self> {
        check(base)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", secrets.token()))?;
        authorization.set_sensitive(true);
        let base = base.to_string().trim_end_matches('/').to_owned();
        Ok(Self { https: Https::new()?, base, authorization, waited_ms: AtomicU64::new(0) })
    }

    /// What requests are made with.
    pub const fn https(&self) -> &Https {
        &self.https
    }

    /// Makes a call and gives the `result` of its answer.
    ///
    /// # Errors
    /// Where the API refuses, or does not answer after as many attempts as there may be.
    pub async fn call(&self, call: &Call) -> Result<Value, ApiError> {
        Ok(self.send(call, &Sent::Json).await?["result"].take())
    }

    /// The same for an upload.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn upload(&self, call: &Call, media_type: String, body: Vec<u8>) -> Result<Value, ApiError> {
        Ok(self.send(call, &Sent::Form(media_type, body)).await?["result"].take())
    }

    /// All of a list, over its pages; `field` is where the list is in the result, if it is not the result itself.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn list(&self, call: &Call, field: Option<&str>) -> Result<Vec<Value>, ApiError> {
        let mut all = Vec::new();
        for page in 1..=PAGES {
            let sign = if call.path.contains('?') { '&' } else { '?' };
            let path = format!("{}{sign}page={page}&per_page={PAGE}", call.path);
            let mut answer = self.send(&Call { path, ..call.clone() }, &Sent::Json).await?;
            let items = match field {
                Some(field) => answer["result"][field].take(),
                None => answer["result"].take(),
            };
            let Value::Array(items) = items else { return Ok(all) };
            let last = answer.pointer("/result_info/total_pages").and_then(Value::as_u64).unwrap_or(1);
            all.extend(items);
            if page >= last {
                return Ok(all);
            }
        }
        let why = format!("the list has more than {} entries", PAGES * PAGE);
        Err(ApiError::Unclear { call: words(call), why, wait: FIRST_WAIT })
    }

    async fn send(&self, call: &Call, sent: &Sent) -> Result<Value, ApiError> {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let (why, may_repeat, asked_for) = match self.once(call, sent).await {
                Ok(reply) if reply.status.as_u16() == 429 => {
                    ("the API takes no more calls now (429)".to_owned(), true, retry_after(&reply))
                }
                Ok(reply) if reply.status.is_server_error() => (
                    format!("the API failed with {}: {}", reply.status.as_u16(), errors(&reply).1),
                    call.is_idempotent(),
                    retry_after(&reply),
                ),
                Ok(reply) => return envelope(call, &reply),
                Err(NoAnswer::Unsent(why)) => (why, true, None),
                Err(NoAnswer::Unclear(why)) => (why, call.is_idempotent(), None),
            };
            let pause = asked_for.unwrap_or(wait).min(LONGEST_WAIT);
            let spent =
                self.waited_ms.fetch_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            if !may_repeat || attempt >= ATTEMPTS || spent > ALL_WAITS_MS {
                let why = if attempt > 1 { format!("{why}, after {attempt} attempts") } else { why };
                return Err(ApiError::Unclear { call: words(call), why, wait: pause });
            }
            tracing::info!(call = words(call), why, "asked again");
            tokio::time::sleep(pause).await;
            wait *= 2;
        }
        unreachable!("attempts are counted")
    }

    async fn once(&self, call: &Call, sent: &Sent) -> Result<Reply, NoAnswer> {
        let url = format!("{}{}", self.base, call.path);
        let url: Uri = url.parse().map_err(|error| NoAnswer::Unsent(format!("{url} is no URL: {error}")))?;
        let method = Method::from_bytes(call.method.as_bytes()).expect("a method");
        let mut headers: Vec<(HeaderName, HeaderValue)> = vec![(header::AUTHORIZATION, self.authorization.clone())];
        let (media_type, body, deadline) = match (sent, &call.body) {
            (Sent::Form(media_type, body), _) => (Some(media_type.clone()), Bytes::copy_from_slice(body), UPLOAD),
            (Sent::Json, Some(body)) => (Some("application/json".to_owned()), Bytes::from(body.to_string()), CALL),
            (Sent::Json, None) => (None, Bytes::new(), CALL),
        };
        if let Some(media_type) = media_type {
            headers.push((header::CONTENT_TYPE, HeaderValue::try_from(media_type).expect("a media type")));
        }
        self.https.send(method, &url, &headers, body, deadline).await
    }
}

fn words(call: &Call) -> String {
    format!("{} {}", call.method, call.path)
}

/// The answer, where it says that it is one of success.
fn envelope(call: &Call, reply: &Reply) -> Result<Value, ApiError> {
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if reply.status.is_success() && answer["success"] == true {
        return Ok(answer);
    }
    // A success without an envelope is one that nobody can be sure of.
    if reply.status.is_success() && answer["success"].is_null() {
        let why = "the answer is none of the API's".to_owned();
        return Err(ApiError::Unclear { call: words(call), why, wait: FIRST_WAIT });
    }
    let (codes, mut why) = errors(reply);
    if matches!(reply.status.as_u16(), 401 | 403) {
        why += " (docs/cloudflare.md lists the permissions that the token needs)";
    }
    Err(ApiError::Refused { call: words(call), status: reply.status.as_u16(), codes, why })
}

fn errors(reply: &Reply) -> (Vec<i64>, String) {
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let all = answer["errors"].as_array().cloned().unwrap_or_default();
    let codes = all.iter().filter_map(|error| error["code"].as_i64()).collect();
    let one = |error: &Value| {
        let place = error.pointer("/source/pointer").and_then(Value::as_str);
        let place = place.map_or_else(String::new, |place| format!(" at {place}"));
        format!("{} (code {}){place}", error["message"].as_str().unwrap_or("no reason"), error["code"])
    };
    match all.as_slice() {
        [] => (codes, "it gave no reason".to_owned()),
        all => (codes, all.iter().map(one).collect::<Vec<_>>().join("; ")),
    }
}

/// The seconds that the API asks to wait. It gives no dates here.
fn retry_after(reply: &Reply) -> Option<Duration> {
    reply.header("retry-after").trim().parse().ok().map(Duration::from_secs)
}
