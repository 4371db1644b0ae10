//! Takes answers out of the caches: by the worker, which knows at once in every location what was purged, and out of the
//! zone's storage, where they would lie until they are forgotten.

use std::time::Duration;

use bytes::Bytes;
use cloud::cloudflare::bundle::OPERATOR;
use cloud::cloudflare::request::Calls;
use http::{HeaderValue, Method, Uri, header};
use serde_json::json;

use super::api::Api;
use super::apply::parts;
use super::secrets::Secrets;
use crate::https::{NoAnswer, check};

/// How long the worker may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Tags in one command to the worker, which takes 64 KiB.
const TAGS: usize = 50;

/// What came of a purge.
#[derive(Debug, Default)]
pub struct Purged {
    /// Whether the worker knows: answers are not given any more.
    pub known: bool,
    /// What went wrong.
    pub warnings: Vec<String>,
}

/// Purges by tag. A soft purge leaves answers as stale ones, and so leaves the zone's storage alone.
pub async fn purge(api: &Api, calls: &Calls, secrets: &Secrets, url: &str, tags: &[String], soft: bool) -> Purged {
    let mut purged = Purged { known: true, warnings: Vec::new() };
    for tags in tags.chunks(TAGS) {
        if let Err(why) = tell(api, secrets, url, tags, soft).await {
            purged.known = false;
            purged.warnings.push(format!("the worker was not told to purge {}: {why}", tags.join(", ")));
        }
    }
    for tags in parts(tags).filter(|_| !soft) {
        if let Err(error) = api.call(&calls.purge(tags)).await {
            purged.warnings.push(format!("the zone's storage was not purged of {}: {error}", tags.join(", ")));
        }
    }
    purged
}

async fn tell(api: &Api, secrets: &Secrets, url: &str, tags: &[String], soft: bool) -> Result<(), String> {
    let url: Uri = format!("{url}/.repomind/purge").parse().map_err(|error| format!("{url}: {error}"))?;
    check(&url).map_err(|error| error.to_string())?;
    let token = secrets.values().get(OPERATOR).ok_or_else(|| format!("{OPERATOR} is not among its secrets"))?;
    let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "the token cannot be sent")?;
    authorization.set_sensitive(true);
    let headers =
        [(header::AUTHORIZATION, authorization), (header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let body = Bytes::from(json!({"tags": tags, "soft": soft}).to_string());
    match api.https().send(Method::POST, &url, &headers, body, ANSWER).await {
        Ok(reply) if reply.status.is_success() => Ok(()),
        Ok(reply) => Err(format!("it answered {}", reply.status.as_u16())),
        Err(NoAnswer::Unsent(why) | NoAnswer::Unclear(why)) => Err(why),
    }
}
