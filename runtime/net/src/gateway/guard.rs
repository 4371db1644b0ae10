//! Guards of `define-edge-auth`, kept here as well: who reaches a gateway past the edge is not let in for that.
//!
//! The first guard about a request decides, as at the edge, and by the same code that edges are held to. Keys of
//! issuers are fetched when a token needs them, kept for [`KEEP`], and fetched anew, no more often than
//! [`limits::JWKS_PAUSE`], where a token is signed with one that is not known. Without keys nobody is let in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use edge::evaluate::token::{Denied, Keys, status, verify};
use edge::evaluate::{Asked, guards, is_devious};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::JwkSet;
use model::edge::{EdgeAuth, Proof, Request as _};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::problem::Problem;
use crate::{Region, limits};

/// How long an issuer's keys are used before they are fetched anew.
const KEEP: Duration = Duration::from_secs(600);
/// How long they are used at most where the issuer does not answer any more.
const OLDEST: Duration = Duration::from_secs(3600);
/// The most issuers whose keys are kept.
const MOST_ISSUERS: usize = 64;

/// The keys of issuers, by the URL that a guard names.
#[derive(Default)]
pub(super) struct Guards {
    known: Mutex<BTreeMap<String, Set>>,
    /// One fetch at a time: who waits finds what the one before has fetched.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Set {
    keys: Arc<JwkSet>,
    fetched: Instant,
    /// When it was last tried to fetch them.
    tried: Instant,
}

impl Guards {
    /// Lets a request pass that shows what its guard asks for, or that no guard is about. Where a `service` answers it,
    /// whose reading of paths is not known, paths that can be read in two ways are refused.
    pub(super) async fn check<B>(
        &self,
        region: &dyn Region,
        request: &Request<B>,
        (client, service): (IpAddr, bool),
    ) -> Result<(), Problem> {
        let plans = region.plans();
        if plans.edge.auth.is_empty() {
            return Ok(());
        }
        let asked = asked(request, client);
        if service && is_devious(asked.path()) {
            let detail = "this path means another one to some; write it without dots, doubled and encoded slashes";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "path", detail));
        }
        // A service may take `/%61` for `/a`, and so that is what a guard is about, too.
        let plain = Asked { target: plain(&asked.target), ..asked.clone() };
        let about = |auth: &&EdgeAuth| guards(auth, &asked) || guards(auth, &plain);
        let Some(auth) = plans.edge.auth.iter().find(about) else { return Ok(()) };
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let denied = match &auth.proof {
            Proof::SignedUrl { secret, .. } => {
                let known = region.secret(secret).ok_or_else(|| {
                    tracing::error!(guard = %auth.name, %secret, "this region holds no such secret, so that nobody is let in");
                    unverifiable(auth, "what this request shows cannot be verified here")
                })?;
                let keys = Keys { secrets: BTreeMap::from([(secret.clone(), known)]), ..Keys::default() };
                verify(auth, &asked, &keys, now)
            }
            Proof::Token { jwks, .. } => self.token(auth, jwks, &asked, now).await?,
        };
        denied.map_err(|denied| refusal(auth, denied))
    }

    async fn token(&self, auth: &EdgeAuth, url: &str, asked: &Asked, now: u64) -> Result<Result<(), Denied>, Problem> {
        if verify(auth, asked, &Keys::default(), now) == Err(Denied::Missing) {
            return Ok(Err(Denied::Missing));
        }
        let known = self.keys(url, |set| set.fetched.elapsed() < KEEP).await;
        let known = known.map_err(|why| {
            tracing::error!(guard = %auth.name, %url, %why, "the keys of an issuer cannot be had, so that nobody is let in");
            unverifiable(auth, "the keys that this request is verified with cannot be had")
        })?;
        let with =
            |set: &Set| Keys { jwks: BTreeMap::from([(url.to_owned(), JwkSet::clone(&set.keys))]), ..Keys::default() };
        let first = verify(auth, asked, &with(&known), now);
        if first != Err(Denied::Invalid) {
            return Ok(first);
        }
        // Signed with a key that came since, perhaps.
        match self.keys(url, |set| set.tried.elapsed() < limits::JWKS_PAUSE).await {
            Ok(newer) if newer.fetched > known.fetched => Ok(verify(auth, asked, &with(&newer), now)),
            _ => Ok(first),
        }
    }

    /// The keys at `url`, fetched unless those known are `good`.
    async fn keys(&self, url: &str, good: impl Fn(&Set) -> bool) -> Result<Set, String> {
        let look = || self.known.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
        if let Some(set) = look().filter(&good) {
            return Ok(set);
        }
        let _one = self.fetching.lock().await;
        let old = look();
        if let Some(set) = old.clone().filter(&good) {
            return Ok(set);
        }
        let tried = Instant::now();
        let set = match fetch(url).await {
            Ok(keys) => Set { keys: Arc::new(keys), fetched: tried, tried },
            Err(why) => match old.filter(|set| set.fetched.elapsed() < OLDEST) {
                Some(old) => {
                    tracing::warn!(%url, %why, "the keys of an issuer are those of some time ago");
                    Set { tried, ..old }
                }
                None => return Err(why),
            },
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_ISSUERS && !known.contains_key(url) {
            known.clear();
        }
        known.insert(url.to_owned(), set.clone());
        Ok(set)
    }
}

/// Not 503: anybody can show something that cannot be verified, and an edge would pass the region over for everybody.
fn unverifiable(auth: &EdgeAuth, detail: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "guard", detail).with("rule", auth.name.as_str())
}

fn refusal(auth: &EdgeAuth, denied: Denied) -> Problem {
    let status = StatusCode::from_u16(status(auth)).unwrap_or(StatusCode::FORBIDDEN);
    metrics::counter!("repomind_guard_refusals_total", "guard" => auth.name.to_string(), "why" => denied.name())
        .increment(1);
    let detail = match denied {
        Denied::Missing => "what this path asks for is not shown",
        Denied::Invalid => "what is shown is not valid here",
        Denied::Expired => "what is shown was valid once, and is no more",
    };
    Problem::new(status, "guard", detail).with("rule", auth.name.as_str())
}

/// The request as edges see it.
pub(super) fn asked<B>(request: &Request<B>, client: IpAddr) -> Asked {
    let text =
        |name: &http::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let headers = request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    Asked {
        method: request.method().as_str().to_owned(),
        host: text(&header::HOST).to_owned(),
        target: request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: headers.collect(),
        country: None,
        client: client.to_string(),
    }
}

/// The target with every encoded octet of its path written out.
fn plain(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octet = (first == b'%')
            .then(|| tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(octet.unwrap_or(first));
        rest = if octet.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Fetches a set of keys.
async fn fetch(url: &str) -> Result<JwkSet, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
    let text = timeout(limits::JWKS_TIME, read(&uri)).await;
    let text = text.map_err(|_| format!("no answer within {} s", limits::JWKS_TIME.as_secs()))??;
    serde_json::from_slice(&text).map_err(|error| format!("what is there is no set of keys: {error}"))
}

async fn read(uri: &Uri) -> Result<bytes::Bytes, String> {
    let authority = uri.authority().ok_or("the URL names no host")?;
    let secure = uri.scheme_str() == Some("https");
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| format!("{authority}: {error}"))?;
    if !secure {
        return exchange(TokioIo::new(stream), uri).await;
    }
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(tls()?);
    let stream = connector.connect(name, stream).await.map_err(|error| format!("{authority}: {error}"))?;
    exchange(TokioIo::new(stream), uri).await
}

async fn exchange<S>(stream: S, uri: &Uri) -> Result<bytes::Bytes, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let running = tokio::spawn(connection);
    let request = http::Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::ACCEPT, "application/json")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), limits::JWKS_BYTES).collect().await;
    running.abort();
    if status != StatusCode::OK {
        return Err(format!("it answers {status}"));
    }
    body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}

/// Trust in the certificates that the system trusts.
fn tls() -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("the system trusts no certificates (ca-certificates, or SSL_CERT_FILE)".to_owned());
    }
    Ok(Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
