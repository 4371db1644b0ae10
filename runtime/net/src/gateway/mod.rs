//! HTTP for users: the data API, and the way to the service behind it.
//!
//! `/openapi.json`, `/v1/data`, `/v1/batch`, `/v1/subjects` and `/v1/watch` are answered here, and `/assets/` where the region has an object store. Everything else goes to the
//! service of a region that the routing plan names, best first.

mod api;
mod assets;
mod batch;
mod breaker;
mod claims;
mod front;
mod guard;
mod limit;
mod objects;
mod openapi;
mod outgoing;
mod proxy;
mod routes;
mod siblings;
mod upgrade;
mod watch;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use data::DataError;
use data::vault::VaultError;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;
use crate::serve::{Body, serve};
use crate::{Region, TokenVerifier, limits};

/// The largest causal context that is accepted in a header, in bytes of base64url.
pub(crate) const CONTEXT_BYTES: usize = 16 * 1024;

pub use front::{Certificate, GatewayConfig, Network};

/// What all requests of a gateway share.
struct Gateway {
    config: GatewayConfig,
    region: Arc<dyn Region>,
    verifier: TokenVerifier,
    upstream: proxy::Upstream,
    guards: guard::Guards,
    limits: limit::Limits,
    breakers: breaker::Breakers,
    upgraded: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Serves users until `shutdown`, then drains.
pub async fn serve_gateway(
    listener: TcpListener,
    region: Arc<dyn Region>,
    verifier: TokenVerifier,
    config: GatewayConfig,
    shutdown: CancellationToken,
) {
    let gateway = Arc::new(Gateway {
        config,
        region,
        verifier,
        upstream: proxy::upstream(),
        guards: guard::Guards::default(),
        limits: limit::Limits::default(),
        breakers: breaker::Breakers::default(),
        upgraded: Arc::new(Semaphore::new(limits::UPGRADED_CONNECTIONS)),
        watchers: Arc::new(Semaphore::new(limits::WATCHERS)),
        downloads: Arc::new(Semaphore::new(limits::DOWNLOADS)),
        shutdown: shutdown.clone(),
    });
    serve("gateway", listener, limits::GATEWAY_CONNECTIONS, shutdown, move |stream, from: SocketAddr| {
        let gateway = gateway.clone();
        async move {
            let (stream, client) = match gateway.config.greet(stream, from).await {
                Ok(greeted) => greeted,
                Err(error) => {
                    metrics::counter!("repomind_gateway_refused_total").increment(1);
                    tracing::debug!(%error, "a connection did not come to a request");
                    return None;
                }
            };
            let service = service_fn(move |request| {
                let gateway = gateway.clone();
                async move { Ok::<_, Infallible>(gateway.answer(request, client).await) }
            });
            Some((stream, service))
        }
    })
    .await;
}

impl Gateway {
    async fn answer(&self, mut request: Request<Incoming>, from: IpAddr) -> Response<Body> {
        let begun = Instant::now();
        let id = request_id(request.headers());
        request.headers_mut().insert(REQUEST_ID, id.clone());
        // Methods of somebody's own could say anything.
        let method = request.method().clone();
        let method = if method.as_str().len() <= 7 { method.as_str().to_owned() } else { "other".to_owned() };
        let client = proxy::client_address(request.headers(), from, &self.config);
        let path = request.uri().path();
        let asset = path.starts_with(assets::PREFIX);
        let route = routes::name_of(path).unwrap_or(if asset { "assets" } else { "proxy" });
        let long = route == "proxy" || route == "data" && objects::is_long(&request);
        let counted = self.limits.count(&*self.region, &request, client);
        let upgrade =
            request.version() < http::Version::HTTP_2 && request.headers().contains_key(http::header::UPGRADE);
        let deadline = tokio::time::Instant::now() + limits::REQUEST_TIME;
        let admitted = async {
            // RFC 9112, 3.2: what HTTP/1.1 requires, lest two servers in a row take a request to mean two hosts.
            if request.version() == http::Version::HTTP_11
                && request.headers().get_all(http::header::HOST).iter().count() != 1
            {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "host", "send one Host header"));
            }
            if request.method() == http::Method::CONNECT {
                // Granted, it would be a way to speak on past everything here.
                return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this is no proxy for other hosts"));
            }
            counted.refusal().map_or(Ok(()), Err)?;
            self.guards.check(&*self.region, &request, (client, matches!(route, "proxy" | "assets"))).await?;
            routes::has_method(request.uri().path(), request.method())
        };
        let slow = |_| Problem::new(StatusCode::GATEWAY_TIMEOUT, "slow", "the request took too long here");
        let admitted = timeout_at(deadline, admitted).await.map_err(slow).flatten();
        let work = async {
            admitted?;
            match route {
                "openapi" => Ok(self.openapi()),
                "batch" => self.batch(request).await,
                "data" => self.data(request).await,
                "subjects" => crate::subjects::answer(self.region.clone(), &self.verifier, request).await,
                "watch" => self.watch(&request).await,
                "assets" => match self.asset(&request).await {
                    Some(answer) => answer,
                    None => self.proxy(request, client).await,
                },
                _ => self.proxy(request, client).await,
            }
        };
        let outcome = match long {
            // A body may take long to go through; each step there has a limit of its own.
            true => work.await,
            false => timeout_at(deadline, work).await.map_err(slow).flatten(),
        };
        let mut response = outcome.unwrap_or_else(|problem| problem.response());
        let generation = HeaderValue::from(self.region.plans().generation);
        let status = response.status().as_u16();
        let headers = response.headers_mut();
        if self.config.access_log {
            let country = self.region.country(client).map_or_else(|| "-".to_owned(), |country| country.to_string());
            let served = headers.get("repomind-region").and_then(|region| region.to_str().ok());
            let served = served.unwrap_or(self.region.id().as_str());
            let (id, ms) = (id.to_str().unwrap_or("-"), begun.elapsed().as_millis() as u64);
            tracing::info!(target: "access", id, method, route, status, ms, country, served);
        }
        headers.insert(REQUEST_ID, id);
        if upgrade && status != 101 {
            // A cache in front of us may have joined this connection to the client's: it speaks of nothing else.
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        counted.tell(headers);
        set(headers, "repomind-region", self.region.id().as_str(), false);
        headers.insert("repomind-generation", generation);
        metrics::counter!("repomind_requests_total", "route" => route, "status" => status.to_string()).increment(1);
        metrics::histogram!("repomind_request_seconds", "route" => route).record(begun.elapsed().as_secs_f64());
        response
    }
}

/// A request as the rules of the edge plan are matched against it.
struct Seen<'a> {
    method: &'a http::Method,
    uri: &'a http::Uri,
    headers: &'a HeaderMap,
}

impl<'a> Seen<'a> {
    fn of<B>(request: &'a Request<B>) -> Self {
        Self { method: request.method(), uri: request.uri(), headers: request.headers() }
    }
}

impl model::edge::Request for Seen<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }
    fn path(&self) -> &str {
        self.uri.path()
    }
    fn header(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        (!lines.is_empty()).then(|| lines.join(edge::evaluate::between(name)))
    }
}

const REQUEST_ID: &str = "x-request-id";

/// The name of a request in logs: the client's, where it is one, else one of our own.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sound = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        !bytes.is_empty() && bytes.len() <= limits::REQUEST_ID_BYTES && bytes.iter().all(named)
    };
    headers.get(REQUEST_ID).filter(sound).cloned().unwrap_or_else(|| {
        let mut number = [0; 16];
        // Without randomness all have the same name, which is no reason to refuse a request.
        let _ = aws_lc_rs::rand::fill(&mut number);
        let text = format!("{:032x}", u128::from_le_bytes(number));
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}

/// Sets a header from text that is known to be printable; keeps one that is there unless told to replace it.
fn set(headers: &mut HeaderMap, name: &'static str, value: &str, replace: bool) {
    if !replace && headers.contains_key(name) {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What a client is told when the data plane refuses.
pub(crate) fn problem_of(error: &DataError) -> Problem {
    let detail = error.to_string();
    match error {
        DataError::Barred(barred) => {
            let elsewhere: Vec<&str> = barred.elsewhere.iter().map(|region| region.as_str()).collect();
            Problem::new(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "barred", detail)
                .with("rule", barred.rule.as_str())
                .with("region", barred.region.as_str())
                .with("lawful_regions", elsewhere)
        }
        DataError::Elsewhere { region, rule, regions } => {
            let lawful: Vec<&str> = regions.iter().map(|region| region.as_str()).collect();
            Problem::new(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "elsewhere", detail)
                .with("rule", rule.as_str())
                .with("region", region.as_str())
                .with("lawful_regions", lawful)
        }
        DataError::Behind { retry_after } => {
            Problem::unavailable("behind", detail).with("field", "Repomind-Context").retry_after(retry_after.duration())
        }
        DataError::PreconditionFailed => Problem::new(StatusCode::PRECONDITION_FAILED, "precondition", detail),
        DataError::Throttled { retry_after } => Problem::new(StatusCode::TOO_MANY_REQUESTS, "replication-lag", detail)
            .with("rule", "lag-action")
            .retry_after(retry_after.duration()),
        DataError::Unready { retry_after } => Problem::unavailable("replication-lag", detail)
            .with("rule", "lag-action")
            .retry_after(retry_after.duration()),
        DataError::OverQuota { namespace, what, limit, used } => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "over-quota", detail)
                .with("rule", "quota")
                .with("namespace", namespace.as_str())
                .with("what", *what)
                .with("limit", *limit)
                .with("used", *used)
        }
        DataError::TooLarge { most } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail).with("limit", *most)
        }
        DataError::NoObjects => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail).with("limit", limits::BODY_BYTES)
        }
        DataError::Busy { retry_after } => {
            Problem::unavailable("busy", detail).with("rule", "uploads").retry_after(retry_after.duration())
        }
        DataError::TooManyCopies { asked, in_scope } => {
            Problem::field("Repomind-Ack", detail).with("asked", *asked).with("in_scope", *in_scope)
        }
        DataError::Contradicted { place, found, .. } => {
            Problem::field("Repomind-Class", detail.clone()).with("place", *place).with("detector", found.as_str())
        }
        DataError::NotClaimable { field, .. } => {
            Problem::new(StatusCode::FORBIDDEN, "label-not-granted", detail).with("field", *field)
        }
        DataError::Loosened { region } => Problem::new(StatusCode::FORBIDDEN, "relabel", detail)
            .with("field", "Repomind-Class")
            .with("region", region.as_str()),
        DataError::Overtaken { retry_after } => {
            Problem::unavailable("policies-changed", detail).retry_after(retry_after.duration())
        }
        DataError::Damaged { retry_after } => Problem::unavailable("damaged", detail)
            .with("rule", "never-serve-damage")
            .retry_after(retry_after.duration()),
        DataError::TooManySiblings { most } => {
            Problem::new(StatusCode::CONFLICT, "too-many-siblings", detail).with("most", *most)
        }
        DataError::Held => Problem::new(StatusCode::LOCKED, "held", detail).with("rule", "legal-hold"),
        DataError::BadLabel { field, .. } => Problem::field(field, detail),
        DataError::OwnLog { .. } => Problem::new(StatusCode::CONFLICT, "own-log", detail),
        DataError::EndedLife { .. } => Problem::new(StatusCode::CONFLICT, "ended-life", detail),
        DataError::BadPart { .. } => Problem::new(StatusCode::BAD_REQUEST, "rows", detail),
        DataError::Vault(VaultError::Erased) => {
            Problem::new(StatusCode::GONE, "erased", detail).with("rule", "subject-erased")
        }
        DataError::Vault(VaultError::NoRegionKey(_)) => Problem::new(StatusCode::CONFLICT, "region-key", detail),
        DataError::Failed { .. } => Problem::unavailable("storage", detail).retry_after(Duration::from_secs(5)),
        DataError::Closed => Problem::unavailable("closing", detail).retry_after(Duration::from_secs(5)),
        _ => {
            tracing::error!(%error, "the data plane failed");
            Problem::unavailable("storage", "the record store failed; the operator's log says why")
        }
    }
}

/// Decodes `%XX` in a path segment; no `+` for blanks.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// The parameters of a query string, decoded; `+` is a blank.
pub(crate) fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>, Problem> {
    query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(&text.replace('+', " "));
            decode(name).zip(decode(value)).ok_or_else(|| Problem::field("query", "the query string is not valid"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_escape_is_refused_and_a_whole_one_is_decoded() {
        assert_eq!(percent_decode("a%2Fb%C3%A9"), Some("a/bé".into()));
        for broken in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(percent_decode(broken), None, "{broken}");
        }
        let read = parameters(Some("prefix=a+b%26&limit=3&&x")).unwrap();
        assert_eq!(read, [("prefix", "a b&"), ("limit", "3"), ("x", "")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn who_asks_for_a_record_that_moved_is_told_where_to_ask() {
        let region = |id: &str| model::RegionId::new(id).unwrap();
        let problem = problem_of(&DataError::Elsewhere {
            region: region("us-east"),
            rule: model::RuleId::new("record-moved").unwrap(),
            regions: [region("ap-southeast"), region("eu-west")].into(),
        })
        .json();
        assert_eq!(problem["status"], 451);
        assert_eq!(problem["rule"], "record-moved");
        assert_eq!(problem["lawful_regions"], serde_json::json!(["ap-southeast", "eu-west"]));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.ends_with("ask one of ap-southeast, eu-west"), "{detail}");
    }
}
