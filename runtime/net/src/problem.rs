//! Errors as RFC 9457 problem details.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::serve::{Body, full};

/// An error that a client is told: what happened, by which rule, and what to do.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    more: Map<String, Value>,
    retry_after: Option<u64>,
    allow: Option<&'static str>,
}

impl Problem {
    /// A problem of this status and kind. The kind is a stable word that programs may match.
    pub(crate) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), more: Map::new(), retry_after: None, allow: None }
    }

    /// One more member.
    pub(crate) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.more.insert(member.to_owned(), value.into());
        self
    }

    /// Tells the client to come back, rounded up to a whole second.
    pub(crate) fn retry_after(mut self, span: std::time::Duration) -> Self {
        self.retry_after = Some(span.as_millis().div_ceil(1000).clamp(1, 3600) as u64);
        self
    }

    /// Names the methods that there are (RFC 9110, 10.2.1).
    pub(crate) fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// A header or parameter that cannot be used.
    pub(crate) fn field(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-field", detail).with("field", field)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(crate) fn unavailable(kind: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail).retry_after(std::time::Duration::from_secs(1))
    }

    /// The problem as a JSON object.
    pub(crate) fn json(&self) -> Value {
        let mut object = self.more.clone();
        object.insert("type".into(), json!(format!("urn:repomind:problem:{}", self.kind)));
        object.insert("title".into(), json!(self.status.canonical_reason().unwrap_or("Error")));
        object.insert("status".into(), json!(self.status.as_u16()));
        object.insert("detail".into(), json!(self.detail));
        Value::Object(object)
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::new(full(self.json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"repomind\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<crate::token::Refusal> for Problem {
    fn from(refusal: crate::token::Refusal) -> Self {
        use crate::token::Refusal;
        match refusal {
            Refusal::Scope(scope) => {
                Self::new(StatusCode::FORBIDDEN, "scope", refusal.to_string()).with("scope", scope.name())
            }
            Refusal::Missing | Refusal::Invalid | Refusal::Expired => {
                Self::new(StatusCode::UNAUTHORIZED, "token", refusal.to_string())
            }
        }
    }
}
