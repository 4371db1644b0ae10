//! Policy generations over the admin interface: list, show, compare, publish, confirm.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use model::Finding;
use model::bundle::Proposal;
use model::explain::About;
use model::orders::OrderRequest;
use model::radius::{Comparison, Confirmation, Published};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::problem::Problem;
use crate::serve::{Body, collect, full, json_response};
use crate::{Region, limits};

/// `GET /policy/history`.
pub(crate) async fn history(region: Arc<dyn Region>) -> Result<Response<Body>, Problem> {
    let all = tokio::task::spawn_blocking(move || region.policy_history())
        .await
        .map_err(|_| Problem::unavailable("storage", "the history could not be read"))?;
    Ok(json_response(&all))
}

/// `GET /policy/tree?generation=N`: the files by path.
pub(crate) async fn tree(region: Arc<dyn Region>, query: Option<&str>) -> Result<Response<Body>, Problem> {
    let generation = number(query)?;
    let tree = tokio::task::spawn_blocking(move || region.policy_tree(generation))
        .await
        .map_err(|_| Problem::unavailable("storage", "the generation could not be read"))?
        .map_err(Problem::not_found)?;
    Ok(json_response(&tree))
}

/// `GET /decision?id=N`, or `?last`: one decision of the log.
pub(crate) async fn decision(region: Arc<dyn Region>, query: Option<&str>) -> Result<Response<Body>, Problem> {
    let wrong = || Problem::field("id", "state `id=` and the number of a decision, or `last`");
    let id = match query {
        Some("last") => None,
        query => Some(query.and_then(|query| query.strip_prefix("id=")?.parse().ok()).ok_or_else(wrong)?),
    };
    let decision = tokio::task::spawn_blocking(move || region.decision(id))
        .await
        .map_err(|_| Problem::unavailable("storage", "the log of decisions could not be read"))?
        .map_err(Problem::not_found)?;
    Ok(json_response(&decision))
}

/// `GET /decision-log`: all of it, as it lies on disk.
pub(crate) async fn decision_log(region: Arc<dyn Region>) -> Result<Response<Body>, Problem> {
    let unread =
        |error: String| Problem::unavailable("storage", format!("the log of decisions cannot be read: {error}"));
    let log =
        tokio::task::spawn_blocking(move || region.decision_log()).await.map_err(|error| unread(error.to_string()))?;
    let mut response = Response::new(full(log.map_err(|error| unread(error.to_string()))?));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// `GET /policy/bundle?generation=N`: the generation as it was signed.
pub(crate) async fn bundle(region: Arc<dyn Region>, query: Option<&str>) -> Result<Response<Body>, Problem> {
    let generation = number(query)?;
    let bundle = tokio::task::spawn_blocking(move || region.policy_bundle(generation))
        .await
        .map_err(|_| Problem::unavailable("storage", "the generation could not be read"))?
        .map_err(Problem::not_found)?;
    Ok(json_response(&bundle))
}

fn number(query: Option<&str>) -> Result<u64, Problem> {
    let generation = query.and_then(|query| query.strip_prefix("generation=")?.parse().ok());
    generation.ok_or_else(|| Problem::field("generation", "state a number from the history"))
}

/// `POST /policy/publish` with a [`Proposal`]: 200 with `generation`, or 202 with what is `waiting` for
/// `/policy/confirm`. All findings of a tree that is refused stand in `findings`.
pub(crate) async fn publish(region: Arc<dyn Region>, body: Incoming) -> Result<Response<Body>, Problem> {
    let proposal: Proposal = read(body).await?;
    let published = region.publish(proposal).await.map_err(refused)?;
    let mut response = json_response(&published);
    if matches!(published, Published::Waiting(_)) {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(response)
}

/// `GET /orders`: what operators ordered about the traffic of regions.
pub(crate) fn orders(region: &dyn Region) -> Response<Body> {
    json_response(&region.orders())
}

/// `POST /orders` with an [`OrderRequest`].
pub(crate) async fn order(region: Arc<dyn Region>, body: Incoming) -> Result<Response<Body>, Problem> {
    let request: OrderRequest = read(body).await?;
    Ok(json_response(&region.order(request).await.map_err(refused)?))
}

/// `GET /policy/waiting`: the candidate that waits, or null.
pub(crate) fn waiting(region: &dyn Region) -> Response<Body> {
    json_response(&region.waiting())
}

/// `POST /policy/confirm` with a [`Confirmation`].
pub(crate) async fn confirm(region: Arc<dyn Region>, body: Incoming) -> Result<Response<Body>, Problem> {
    let word: Confirmation = read(body).await?;
    let generation = region.confirm(word).await.map_err(refused)?;
    Ok(json_response(&json!({ "generation": generation })))
}

/// `POST /policy/compare` with a [`Comparison`]: what would be otherwise, on the facts of this moment.
pub(crate) async fn compare(region: Arc<dyn Region>, body: Incoming) -> Result<Response<Body>, Problem> {
    let trees: Comparison = read(body).await?;
    Ok(json_response(&region.compare(trees).await.map_err(refused)?))
}

/// `POST /explain` with an [`About`].
pub(crate) async fn explain(region: Arc<dyn Region>, body: Incoming) -> Result<Response<Body>, Problem> {
    let about: About = read(body).await?;
    Ok(json_response(&region.explain(about).await.map_err(refused)?))
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Problem> {
    let body = collect(body, limits::BUNDLE_BYTES).await?;
    serde_json::from_slice(&body).map_err(|error| Problem::field("body", error.to_string()))
}

fn refused(findings: Vec<Finding>) -> Problem {
    let detail = findings.first().map_or_else(String::new, ToString::to_string);
    let findings = serde_json::to_value(&findings).unwrap_or_default();
    Problem::new(StatusCode::CONFLICT, "policy-refused", detail).with("findings", findings)
}
