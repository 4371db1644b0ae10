//! The way to the service: by the routing plan, with bounded retries. A body that is short and comes at once may be
//! sent again to another region; any other is handed on as it comes, to one region.
//!
//! Only `http://` services are reached: they stand beside the gateway. A region
//! whose service is behind TLS is answered with 502 and the reason.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::RegionId;
use model::names::Feature;
use model::routing::ClientClass;
use tokio::time::timeout;

use super::outgoing::{Moved, Outgoing};
use super::{Gateway, GatewayConfig, Seen, set};
use crate::limits;
use crate::problem::Problem;
use crate::serve::Body;

/// Connections to services, kept alive.
pub(super) type Upstream = Client<HttpConnector, Body>;

/// How many gateways a request may pass: a service address that leads back here must not loop.
const HOPS: u32 = 3;

/// Names the features that a request needs, separated by commas.
const NEEDS: &str = "repomind-needs";

const HOP_COUNT: &str = "repomind-hops";

/// RFC 9110, section 7.6.1, and what older clients still send.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn upstream() -> Upstream {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(limits::PROXY_CONNECT_TIME));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(64).build(connector)
}

/// Why one attempt failed, and whether another region may be asked.
struct Failed {
    problem: Problem,
    elsewhere: bool,
}

impl Gateway {
    /// Passes a request to the best region's service, and to the next one where that is safe.
    pub(super) async fn proxy(
        &self,
        mut request: Request<Incoming>,
        client: IpAddr,
    ) -> Result<Response<Body>, Problem> {
        let hops = hops(request.headers())?;
        let needs = needs(&request)?;
        let candidates = self.candidates(client, &needs, host(&request));
        if candidates.is_empty() {
            let named: Vec<&str> = needs.iter().map(Feature::as_str).collect();
            if !self.region.regions().by_id.values().any(|region| needs.is_subset(&region.features)) {
                // Not 503: an edge would take it for a failure of this region, and keep others from it.
                let detail = "no region has what this request needs";
                return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "needs", detail).with("needs", named));
            }
            let detail = "no region that serves now has what this request needs";
            return Err(Problem::unavailable("no-region", detail).with("needs", named));
        }
        let upgrade = is_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let authorised = head.headers.contains_key(header::AUTHORIZATION);
        let mut body = Outgoing::read(body).await?;
        let moved = body.moved();
        prepare(&mut head.headers, client, hops, upgrade.is_some());
        let repeatable = is_idempotent(&head.method) && upgrade.is_none() && moved.is_none();
        let mut last = None;
        for region in candidates.iter().take(limits::PROXY_ATTEMPTS) {
            let Some(body) = body.take() else { break };
            match self.attempt(region, &head, (body, moved.as_ref()), repeatable).await {
                Ok(response) => {
                    let mut response = match upgrade {
                        Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                            self.join_upgrade(client, response)?
                        }
                        _ => strip_answer(response),
                    };
                    set(response.headers_mut(), "repomind-region", region.as_str(), true);
                    if matches!(head.method, Method::GET | Method::HEAD) {
                        self.cache_rules(&head, authorised, &mut response);
                    }
                    return Ok(response);
                }
                Err(Failed { problem, elsewhere }) => {
                    metrics::counter!("repomind_proxy_failures_total", "region" => region.to_string()).increment(1);
                    last = Some(problem);
                    if !elsewhere {
                        break;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| Problem::unavailable("no-region", "no region could be asked")))
    }

    fn candidates(&self, client: IpAddr, needs: &BTreeSet<Feature>, host: &str) -> Vec<RegionId> {
        let (plans, states) = (self.region.plans(), self.region.states());
        let class = ClientClass { country: self.region.country(client) };
        self.region.traffic().count(class.country);
        let mut order = routing::choose(&plans.routing, class, &states, needs, &self.region.regions(), None);
        routing::lean(&plans.routing, (class, client), host, &states, &mut order);
        self.breakers.order(&mut order, Instant::now());
        order
    }

    async fn attempt(
        &self,
        region: &RegionId,
        head: &http::request::Parts,
        (body, moved): (Body, Option<&Moved>),
        repeatable: bool,
    ) -> Result<Response<Incoming>, Failed> {
        let gateway =
            |kind, detail: String| Problem::new(StatusCode::BAD_GATEWAY, kind, detail).with("region", region.as_str());
        let base = self.region.api_of(region);
        let uri = base
            .ok_or_else(|| format!("no service address is known for {region}"))
            .and_then(|base| join(&base, &head.uri))
            .map_err(|detail| Failed { problem: gateway("service-address", detail), elsewhere: true })?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = head.headers.clone();
        let asked = self.upstream.request(request);
        let answered = match moved {
            None => timeout(limits::PROXY_HEAD_TIME, asked).await.ok(),
            Some(moved) => tokio::select! {
                answered = asked => Some(answered),
                () = moved.stands_still(limits::PROXY_HEAD_TIME) => None,
            },
        };
        match answered {
            Some(Ok(response)) => {
                let unwell = matches!(response.status().as_u16(), 502..=504);
                match unwell {
                    true => self.breakers.failed(region, Instant::now()),
                    false => self.breakers.succeeded(region),
                }
                if unwell && repeatable {
                    let detail = format!("the service of {region} answered {}", response.status());
                    return Err(Failed { problem: gateway("service", detail), elsewhere: true });
                }
                Ok(response)
            }
            Some(Err(error)) => {
                let why: &dyn std::error::Error = std::error::Error::source(&error).unwrap_or(&error);
                tracing::debug!(%region, %error, why, "the service did not answer");
                // A client that breaks off says nothing of the service.
                if moved.is_none() || error.is_connect() {
                    self.breakers.failed(region, Instant::now());
                }
                // A request that was never sent may always be sent elsewhere.
                let elsewhere = repeatable || error.is_connect();
                let problem = gateway("service", format!("the service of {region} did not answer"));
                Err(Failed { problem, elsewhere })
            }
            None => {
                self.breakers.failed(region, Instant::now());
                let detail = format!("the service of {region} took too long");
                let problem =
                    Problem::new(StatusCode::GATEWAY_TIMEOUT, "service", detail).with("region", region.as_str());
                Err(Failed { problem, elsewhere: repeatable })
            }
        }
    }

    /// Adds the edge plan's cache rule where the service said nothing about caching.
    fn cache_rules(&self, asked: &http::request::Parts, authorised: bool, response: &mut Response<Body>) {
        let headers = response.headers();
        let silent = !headers.contains_key(header::CACHE_CONTROL) && !headers.contains_key(header::SET_COOKIE);
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let plans = self.region.plans();
        let rule = plans.edge.rule_for(
            &Seen { method: &asked.method, uri: &asked.uri, headers: &asked.headers },
            response.status().as_u16(),
            content_type,
        );
        let Some(rule) = rule.filter(|_| silent) else { return };
        let age = |seconds: u32, never: &str| match seconds {
            0 => never.to_owned(),
            seconds => format!("max-age={seconds}"),
        };
        let (browser, edge) = if authorised {
            (format!("private, {}", age(rule.browser_ttl_seconds, "no-cache")), "no-store".to_owned())
        } else {
            let edge = if rule.bypass { 0 } else { rule.edge_ttl_seconds };
            (age(rule.browser_ttl_seconds, "no-cache"), age(edge, "no-store"))
        };
        set(response.headers_mut(), "cache-control", &browser, true);
        set(response.headers_mut(), "cdn-cache-control", &edge, true);
        set(response.headers_mut(), "repomind-cache-rule", rule.name.as_str(), true);
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// The host that a request is for, perhaps with a port: HTTP/2 names it in the target.
fn host(request: &Request<Incoming>) -> &str {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    authority.or_else(|| request.headers().get(header::HOST)?.to_str().ok()).unwrap_or("")
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("websocket")))
}

fn hops(headers: &HeaderMap) -> Result<u32, Problem> {
    let hops = headers.get(HOP_COUNT).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0_u32);
    if hops < HOPS {
        return Ok(hops);
    }
    let detail = "the address of a service leads back to a gateway; see services.api in the region's file";
    Err(Problem::new(StatusCode::LOOP_DETECTED, "loop", detail))
}

/// The features that a region must have for this request.
fn needs(request: &Request<Incoming>) -> Result<BTreeSet<Feature>, Problem> {
    let mut names: Vec<String> = Vec::new();
    if is_websocket(request.headers()) {
        names.push("websockets".into());
    }
    let path = request.uri().path();
    if path == "/batch" || path.starts_with("/batch/") {
        names.push("batch-processing".into());
    }
    if let Some(stated) = super::claims::text(request.headers(), NEEDS)? {
        names.extend(stated.split(',').take(16).map(|name| name.trim().to_owned()));
    }
    names.iter().map(|name| Feature::new(name).map_err(|error| Problem::field(NEEDS, error.to_string()))).collect()
}

/// The client's address: the last one that a proxy which is believed tells of, and that is no such proxy itself.
pub(super) fn client_address(headers: &HeaderMap, peer: IpAddr, config: &GatewayConfig) -> IpAddr {
    let told = headers.get_all("x-forwarded-for").iter().rev().filter_map(|value| value.to_str().ok());
    let mut client = peer;
    for address in told.flat_map(|value| value.rsplit(',')) {
        if !config.trusts(client) {
            return client;
        }
        // What is no address was not written by a proxy that is to be believed.
        let Ok(address) = address.trim().parse::<IpAddr>() else { return client };
        client = address.to_canonical();
    }
    client
}

/// The request's path and query at the service's address.
fn join(base: &Uri, asked: &Uri) -> Result<Uri, String> {
    if base.scheme_str() != Some("http") {
        return Err(format!("services are reached over http://; {base} is something else"));
    }
    let authority = base.authority().ok_or_else(|| format!("{base} names no host"))?;
    let asked = asked.path_and_query().map_or("/", |path| path.as_str());
    let path = format!("{}{asked}", base.path().trim_end_matches('/'));
    Uri::builder()
        .scheme("http")
        .authority(authority.clone())
        .path_and_query(path)
        .build()
        .map_err(|error| error.to_string())
}

/// Removes what belongs to one connection only.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn prepare(headers: &mut HeaderMap, client: IpAddr, hops: u32, upgrade: bool) {
    let upgrade = upgrade.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    strip(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(host) = headers.remove(header::HOST) {
        headers.insert("x-forwarded-host", host);
    }
    // Where the length of the body is known, it is stated anew.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    headers.remove(NEEDS);
    headers.insert(HOP_COUNT, HeaderValue::from(hops + 1));
    set(headers, "x-forwarded-for", &client.to_string(), true);
}

fn strip_answer(response: Response<Incoming>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    strip(&mut head.headers);
    head.version = Version::HTTP_11;
    Response::from_parts(head, body.map_err(Into::into).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_cannot_choose_the_country_that_it_is_routed_for() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "198.51.100.7, 203.0.113.9".parse().unwrap());
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(client_address(&headers, stranger, &GatewayConfig::default()), stranger);
        let here = client_address(&headers, [127, 0, 0, 1].into(), &GatewayConfig::default());
        assert_eq!(here, IpAddr::from([203, 0, 113, 9]));
    }

    #[test]
    fn headers_of_one_connection_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("host", "api.example"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        prepare(&mut headers, [192, 0, 2, 1].into(), 0, false);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "repomind-hops", "x-forwarded-for", "x-forwarded-host"]);
    }

    #[test]
    fn a_service_address_keeps_its_path_and_must_be_http() {
        let asked: Uri = "/v2/ask?q=1".parse().unwrap();
        let joined = join(&"http://127.0.0.1:9000/base/".parse().unwrap(), &asked).unwrap();
        assert_eq!(joined, "http://127.0.0.1:9000/base/v2/ask?q=1");
        assert!(join(&"https://127.0.0.1:9000".parse().unwrap(), &asked).is_err());
    }
}
