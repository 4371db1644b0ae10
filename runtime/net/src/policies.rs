//! Policy generations over the admin interface: list, show, publish.

use std::sync::Arc;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use model::bundle::Proposal;
use serde_json::json;

use crate::problem::Problem;
use crate::serve::{Body, collect, json_response};
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
    let generation = query.and_then(|query| query.strip_prefix("generation=")?.parse().ok());
    let generation = generation.ok_or_else(|| Problem::field("generation", "state a number from the history"))?;
    let tree = tokio::task::spawn_blocking(move || region.policy_tree(generation))
        .await
        .map_err(|_| Problem::unavailable("storage", "the generation could not be read"))?
        .map_err(Problem::not_found)?;
    Ok(json_response(&tree))
}

/// `POST /policy/publish` with a [`Proposal`]. All findings of a tree that is refused stand in `findings`.
pub(crate) async fn publish(region: Arc<dyn Region>, body: Incoming) -> Result<Response<Body>, Problem> {
    let body = collect(body, limits::BUNDLE_BYTES).await?;
    let proposal: Proposal =
        serde_json::from_slice(&body).map_err(|error| Problem::field("body", error.to_string()))?;
    match region.publish(proposal).await {
        Ok(generation) => Ok(json_response(&json!({ "generation": generation }))),
        Err(findings) => {
            let detail = findings.first().map_or_else(String::new, ToString::to_string);
            let findings = serde_json::to_value(&findings).unwrap_or_default();
            Err(Problem::new(StatusCode::CONFLICT, "policy-refused", detail).with("findings", findings))
        }
    }
}
