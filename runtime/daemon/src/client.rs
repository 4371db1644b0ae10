//! The HTTP client of the operator's commands: data API and admin of a region.
//!
//! One pool for all regions, HTTP/1, a deadline on every request and a limit
//! on every body. Nothing here retries: callers measure, and a hidden retry
//! would falsify what they measure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use model::judgement::Decision;
use model::status::RegionStatus;
use model::{Namespace, RegionId};
use net::evidence::{Dump, LedgerHead};
use net::wan::LinkShape;
use serde::de::DeserializeOwned;

/// The largest body taken, apart from evidence.
const BODY: usize = 16 << 20;
/// The most evidence taken from one region.
const EVIDENCE: usize = 1 << 30;
/// How long it may take.
const EVIDENCE_TIME: Duration = Duration::from_secs(120);
/// How long an admin question may take.
const ADMIN: Duration = Duration::from_secs(3);

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A header's text, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text for a message, at most 300 characters.
    pub fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }
}

/// A pool of connections and the token that goes with every request. Clones share the pool.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

impl Default for Client {
    /// A client without a token.
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_max_idle_per_host(256)
            .retry_canceled_requests(false)
            .build(connector);
        Self { pool, authorization: None }
    }
}

impl Client {
    /// A client with the development token of `state/pki/token`, if there is one.
    pub fn new(state: &Path) -> anyhow::Result<Self> {
        let path = state.join("pki").join("token");
        let authorization = match std::fs::read_to_string(&path) {
            Ok(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                    .with_context(|| format!("{} does not hold a token", path.display()))?;
                value.set_sensitive(true);
                Some(value)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { authorization, ..Self::default() })
    }

    /// Sends one request and reads the whole answer, within `deadline`.
    pub async fn send(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        deadline: Duration,
    ) -> anyhow::Result<Reply> {
        self.exchange(method, address, path, headers, body, deadline, BODY).await
    }

    #[expect(clippy::too_many_arguments, reason = "one request has that many parts, and there is one caller above")]
    async fn exchange(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        deadline: Duration,
        limit: usize,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let response = self.pool.request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, limit)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
            anyhow::Ok(Reply { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(reply) => reply.with_context(|| format!("{address}{path}")),
            Err(_) => bail!("{address}{path}: no answer within {} ms", deadline.as_millis()),
        }
    }

    /// Any admin question that is answered in JSON.
    pub async fn get_admin<T: DeserializeOwned>(&self, admin: SocketAddr, path: &str) -> anyhow::Result<T> {
        self.admin(admin, path).await
    }

    async fn admin<T: DeserializeOwned>(&self, admin: SocketAddr, path: &str) -> anyhow::Result<T> {
        let reply = self.send(Method::GET, admin, path, &[], Bytes::new(), ADMIN).await?;
        if !reply.status.is_success() {
            bail!("{admin}{path} answered {}: {}", reply.status.as_u16(), reason(&reply));
        }
        serde_json::from_slice(&reply.body).with_context(|| format!("{admin}{path} did not answer as expected"))
    }

    /// Posts a body to an admin address and reads the answer, or the findings of a refusal.
    pub async fn post<T: DeserializeOwned>(
        &self,
        admin: SocketAddr,
        path: &str,
        body: &impl serde::Serialize,
        patience: Duration,
    ) -> anyhow::Result<Result<T, Vec<model::Finding>>> {
        let (body, headers) = (serde_json::to_vec(body)?, [("content-type", "application/json")]);
        let reply = self.send(Method::POST, admin, path, &headers, Bytes::from(body), patience).await?;
        if reply.status.is_success() {
            let read = serde_json::from_slice(&reply.body);
            return read.map(Ok).with_context(|| format!("{admin}{path} did not answer as expected"));
        }
        let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        match serde_json::from_value::<Vec<model::Finding>>(answer["findings"].clone()) {
            Ok(findings) if !findings.is_empty() => Ok(Err(findings)),
            _ => bail!("{admin}{path} answered {}: {}", reply.status.as_u16(), reason(&reply)),
        }
    }

    /// `/readyz`: nothing when ready, else why not.
    pub async fn ready(&self, admin: SocketAddr) -> Result<(), String> {
        match self.send(Method::GET, admin, "/readyz", &[], Bytes::new(), ADMIN).await {
            Ok(reply) if reply.status == StatusCode::OK => Ok(()),
            Ok(reply) => Err(reason(&reply)),
            Err(_) => Err("not listening yet".into()),
        }
    }

    /// Whether the region at `admin` is of another deployment: it answers, and the token that was made with our keys is
    /// not valid there. Nothing where that cannot be told: without an answer, or without a token to show.
    pub async fn is_stranger(&self, admin: SocketAddr) -> Option<bool> {
        self.authorization.as_ref()?;
        let reply = self.send(Method::GET, admin, "/ledger", &[], Bytes::new(), ADMIN).await.ok()?;
        // A token of ours that has expired is refused as well, and says so.
        Some(reply.status == StatusCode::UNAUTHORIZED && !reason(&reply).contains("expired"))
    }

    /// Whether there is a token to show.
    pub const fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// `/status`.
    pub async fn status(&self, admin: SocketAddr) -> anyhow::Result<RegionStatus> {
        self.admin(admin, "/status").await
    }

    /// `/decisions`: the last ones about the health of regions, oldest first.
    pub async fn decisions(&self, admin: SocketAddr) -> anyhow::Result<Vec<Decision>> {
        self.admin(admin, "/decisions").await
    }

    /// `/decision-log`: all of it, as it lies on disk.
    pub async fn decision_log(&self, admin: SocketAddr) -> anyhow::Result<Bytes> {
        let path = "/decision-log";
        let reply = self.exchange(Method::GET, admin, path, &[], Bytes::new(), EVIDENCE_TIME, EVIDENCE).await?;
        if !reply.status.is_success() {
            bail!("{admin}{path} answered {}: {}", reply.status.as_u16(), reason(&reply));
        }
        Ok(reply.body)
    }

    /// `/digests`: by scope.
    pub async fn digests(&self, admin: SocketAddr) -> anyhow::Result<BTreeMap<String, ScopeDigest>> {
        self.admin(admin, "/digests").await
    }

    /// `/ledger`: the ends of the ledgers that a region knows.
    pub async fn ledger(&self, admin: SocketAddr) -> anyhow::Result<LedgerHead> {
        self.admin(admin, "/ledger").await
    }

    /// `/evidence`: all that an auditor needs, with or without the stored rows.
    pub async fn evidence(&self, admin: SocketAddr, rows: bool) -> anyhow::Result<Dump> {
        let path = if rows { "/evidence" } else { "/evidence?rows=no" };
        let reply = self.exchange(Method::GET, admin, path, &[], Bytes::new(), EVIDENCE_TIME, EVIDENCE).await?;
        if !reply.status.is_success() {
            bail!("{admin}{path} answered {}: {}", reply.status.as_u16(), reason(&reply));
        }
        net::evidence::read(&reply.body).map_err(|reason| anyhow::anyhow!("{admin}{path}: {reason}"))
    }

    /// Cuts or restores the link from the region at `admin` to `peer`; its delay stays.
    pub async fn cut(&self, admin: SocketAddr, peer: &RegionId, cut: bool) -> anyhow::Result<()> {
        self.set_link(admin, &serde_json::json!({ "peer": peer, "cut": cut })).await
    }

    /// The emulated links of a region, by peer; empty without emulation.
    pub async fn links(&self, admin: SocketAddr) -> anyhow::Result<BTreeMap<RegionId, LinkShape>> {
        self.admin(admin, "/wan").await
    }

    /// Changes a link, as `PUT /wan` takes it.
    pub async fn set_link(&self, admin: SocketAddr, change: &serde_json::Value) -> anyhow::Result<()> {
        let headers = [("content-type", "application/json")];
        let body = Bytes::from(change.to_string());
        let reply = self.send(Method::PUT, admin, "/wan", &headers, body, ADMIN).await?;
        if reply.status.is_success() {
            Ok(())
        } else {
            bail!("{admin}/wan answered {}: {}", reply.status.as_u16(), reason(&reply))
        }
    }

    /// Writes one operational record; `ack` as the `Repomind-Ack` header spells it.
    pub async fn put(
        &self,
        gateway: SocketAddr,
        namespace: &Namespace,
        key: &str,
        value: Bytes,
        ack: &str,
        deadline: Duration,
    ) -> anyhow::Result<Reply> {
        let headers =
            [("repomind-ack", ack), ("repomind-class", "operational"), ("content-type", "application/octet-stream")];
        self.send(Method::PUT, gateway, &format!("/v1/data/{namespace}/{key}"), &headers, value, deadline).await
    }

    /// Reads one record.
    pub async fn get(
        &self,
        gateway: SocketAddr,
        namespace: &Namespace,
        key: &str,
        deadline: Duration,
    ) -> anyhow::Result<Reply> {
        self.send(Method::GET, gateway, &format!("/v1/data/{namespace}/{key}"), &[], Bytes::new(), deadline).await
    }
}

/// Asks the service behind a gateway whether it lives.
pub struct ServiceProbe {
    pool: Pool<HttpConnector, Full<Bytes>>,
    uri: http::Uri,
}

impl ServiceProbe {
    /// A probe of `GET /healthz` at the service's base address.
    ///
    /// # Errors
    /// Where the address cannot be joined with the path.
    pub fn new(base: &http::Uri) -> anyhow::Result<Self> {
        let uri = format!("{}/healthz", base.to_string().trim_end_matches('/')).parse()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self { pool: Pool::builder(TokioExecutor::new()).build(connector), uri })
    }

    /// Whether it answers within `deadline` with anything but a server's error. A service that knows no
    /// `/healthz` answers 404 and lives.
    pub async fn answers(&self, deadline: Duration) -> bool {
        let exchange = async {
            let response = self.pool.get(self.uri.clone()).await.ok()?;
            let status = response.status();
            // Read to the end, so that the connection can be used again.
            Limited::new(response.into_body(), BODY).collect().await.ok()?;
            (!status.is_server_error()).then_some(())
        };
        matches!(tokio::time::timeout(deadline, exchange).await, Ok(Some(())))
    }
}

/// One scope's content in one region, as `/digests` gives it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct ScopeDigest {
    /// The regions that may hold it.
    pub regions: std::collections::BTreeSet<RegionId>,
    /// How many rows there are.
    pub rows: u64,
    /// The keyed hash, in whatever form the region writes it.
    pub digest: serde_json::Value,
}

/// The `detail` of a problem document (RFC 9457), else the first line, else the status.
pub fn reason(reply: &Reply) -> String {
    let detail = serde_json::from_slice::<serde_json::Value>(&reply.body).ok();
    let detail = detail.and_then(|problem| problem.get("detail")?.as_str().map(str::to_owned));
    let line = || reply.excerpt().lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    detail.or_else(line).unwrap_or_else(|| format!("answered {}", reply.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_region_is_not_ready_is_said_in_its_own_words() {
        let reply = |body: &'static str| Reply {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: http::HeaderMap::new(),
            body: Bytes::from(body),
        };
        assert_eq!(reason(&reply(r#"{"title":"not ready","detail":"no policies yet"}"#)), "no policies yet");
        assert_eq!(reason(&reply("\nwarming up\n")), "warming up");
        assert_eq!(reason(&reply("")), "answered 503 Service Unavailable");
    }
}
