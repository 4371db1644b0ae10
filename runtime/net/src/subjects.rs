//! `/v1/subjects`: what is demanded for a person, for tokens with the scope `subjects`.
//!
//! | request | does | answer |
//! |---|---|---|
//! | `GET /v1/subjects/ID` | | what is stored here, which holds stand, which orders there are and how far |
//! | `POST /v1/subjects/ID/erase` | orders the erasure in every region | the order; 409 while a hold stands |
//! | `POST /v1/subjects/ID/export` | orders an export | the order, by which every region is asked |
//! | `GET /v1/subjects/ID/export?order=ORDER` | | all that this region has, and the regions that have to be asked too |
//! | `PUT`, `DELETE /v1/subjects/ID/holds/NAME` | begins or ends a legal hold in every region | the order |

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use model::names::Subject;
use model::petition::HOLD_NAME;
use model::sealing::OrderId;

use crate::problem::Problem;
use crate::serve::{Body, json_response};
use crate::token::Scope;
use crate::{Region, TokenVerifier};

/// What is wanted for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What there is.
    Report,
    /// That everything goes.
    Erase,
    /// An order by which regions are asked for what they have.
    Export,
    /// What this region has, by an order.
    Give(OrderId),
    /// That nothing goes, by this name.
    Hold(String),
    /// That the hold of this name ends.
    Release(String),
}

/// Why a demand was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandRefused {
    /// Holds stand.
    #[error("a legal hold stands: {}; release it first", .0.join(", "))]
    Held(Vec<String>),
    /// There is no such hold or order.
    #[error("there is no {0}")]
    Unknown(&'static str),
    /// Something failed here.
    #[error("{0}")]
    Failed(String),
}

impl From<DemandRefused> for Problem {
    fn from(refused: DemandRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            DemandRefused::Held(names) => Problem::new(StatusCode::CONFLICT, "held", detail).with("holds", names),
            DemandRefused::Unknown(_) => Problem::not_found(detail),
            DemandRefused::Failed(_) => Problem::unavailable("subjects", detail),
        }
    }
}

/// Answers a request below `/v1/subjects`.
pub(crate) async fn answer(
    region: Arc<dyn Region>,
    verifier: &TokenVerifier,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    verifier.check(request.headers(), Scope::Subjects)?;
    let path = request.uri().path().strip_prefix("/v1/subjects/").unwrap_or_default();
    let words: Vec<&str> = path.split('/').collect();
    let wanted = match (request.method(), &words[1..]) {
        (&Method::GET, []) => Wanted::Report,
        (&Method::POST, ["erase"]) => Wanted::Erase,
        (&Method::POST, ["export"]) => Wanted::Export,
        (&Method::GET, ["export"]) => {
            let order = request.uri().query().and_then(|query| query.strip_prefix("order="));
            let wrong = || Problem::field("order", "state the order that POST …/export gave");
            Wanted::Give(order.and_then(|order| order.parse().ok()).ok_or_else(wrong)?)
        }
        (&Method::PUT, ["holds", name]) => Wanted::Hold(hold_name(name)?),
        (&Method::DELETE, ["holds", name]) => Wanted::Release(hold_name(name)?),
        _ => return Err(Problem::not_found("there is no such request about a person")),
    };
    let subject = Subject::new(words[0]).map_err(|error| Problem::field("subject", error.to_string()))?;
    let value = region.demand(subject, wanted).await?;
    Ok(json_response(&value))
}

fn hold_name(name: &str) -> Result<String, Problem> {
    let fits = !name.is_empty() && name.len() <= HOLD_NAME;
    match fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        true => Ok(name.to_owned()),
        false => Err(Problem::field("hold", format!("use up to {HOLD_NAME} letters, digits, and - _ ."))),
    }
}
