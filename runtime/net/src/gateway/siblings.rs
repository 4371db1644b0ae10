//! `Repomind-Siblings: all`: every concurrent write of a record, for whoever settles them by hand.
//!
//! The answer is 300 (RFC 9110, 15.4.1) with a part of `multipart/mixed` (RFC 2046, 5.1.3) for each: its value with its
//! labels, or none and `Repomind-Deleted`. A write that hands the context of that answer back replaces all of them.
//! Where nothing lies beside anything, the answer is that of an ordinary read.

use bytes::Bytes;
use data::Siblings;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use model::record::{Address, Record};
use model::version::Version;

use super::api::quoted;
use super::{Gateway, claims, problem_of, set};
use crate::problem::Problem;
use crate::serve::{Body, BodyError};

/// Asks for all siblings, in a request.
const HEADER: &str = "repomind-siblings";

/// Whether a request asks for all siblings.
pub(super) fn wanted(headers: &HeaderMap) -> Result<bool, Problem> {
    match claims::text(headers, HEADER)? {
        None => Ok(false),
        Some("all") => Ok(true),
        Some(_) => Err(Problem::field(HEADER, "send all, or leave it out")),
    }
}

impl Gateway {
    /// All siblings of a record; nothing where it has not several.
    pub(super) async fn siblings(
        &self,
        address: &Address,
        headers: &HeaderMap,
    ) -> Result<Option<Response<Body>>, Problem> {
        let after = claims::context(headers, self.context_key())?;
        let found = self.region.data().siblings(address, after.as_ref()).await.map_err(|error| problem_of(&error))?;
        let Some(found) = found.filter(|found| found.here.len() > 1) else { return Ok(None) };
        let boundary = boundary()?;
        let mut response = Response::new(body(&boundary, &found));
        *response.status_mut() = StatusCode::MULTIPLE_CHOICES;
        let out = response.headers_mut();
        set(out, "content-type", &format!("multipart/mixed; boundary={boundary}"), true);
        set(out, "etag", &quoted(&found.etag), true);
        set(out, "repomind-context", &claims::context_text(&found.context, self.context_key()), true);
        set(out, "cache-control", "private, no-store", true);
        set(out, "x-content-type-options", "nosniff", true);
        out.insert(HEADER, HeaderValue::from(found.here.len()));
        if found.elsewhere > 0 {
            out.insert("repomind-siblings-elsewhere", HeaderValue::from(found.elsewhere));
        }
        Ok(Some(response))
    }
}

/// 128 random bits: no value that a client has chosen contains it.
fn boundary() -> Result<String, Problem> {
    let name = data::vault::random_name().map_err(|error| Problem::unavailable("random", error.to_string()))?;
    Ok(name.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The parts, values uncopied.
fn body(boundary: &str, siblings: &Siblings) -> Body {
    let mut pieces = Vec::with_capacity(siblings.here.len() * 2 + 1);
    for (version, record) in &siblings.here {
        let before = if pieces.is_empty() { "" } else { "\r\n" };
        pieces.push(Bytes::from(format!("{before}--{boundary}\r\n{}\r\n", head(version, record.as_ref()))));
        pieces.extend(record.as_ref().map(|record| record.payload.bytes().clone()));
    }
    pieces.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let frames = pieces.into_iter().map(|piece| Ok::<_, BodyError>(Frame::data(piece)));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// The head of a part, each line with its end.
fn head(version: &Version, record: Option<&Record>) -> String {
    let mut lines = vec![
        ("repomind-write", version.dot.to_string()),
        ("repomind-stamp", version.hlc.to_string()),
        ("repomind-origin", version.dot.actor.region.to_string()),
    ];
    match record {
        None => lines.extend([("repomind-deleted", "yes".to_owned()), ("content-length", "0".to_owned())]),
        Some(record) => {
            let kind = if record.content_type.is_empty() { "application/octet-stream" } else { &record.content_type };
            lines.push(("content-type", kind.to_owned()));
            lines.push(("content-length", record.payload.bytes().len().to_string()));
            // Read alone, once it is settled.
            let object = record.payload.object().map(|object| ("repomind-object-bytes", object.length.to_string()));
            lines.extend(object);
            lines.extend(super::api::labels_of(&record.labels));
        }
    }
    lines.into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}
