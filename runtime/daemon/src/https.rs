//! One request over a connection of its own, `https://` or, to this machine only, `http://`: the calls of a provider's
//! API, and the probes of what was deployed. Nothing here retries.
//!
//! Certificates are checked against those that the system trusts, or that `SSL_CERT_FILE` names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::Reply;

/// The largest answer taken.
const BODY: usize = 32 << 20;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nothing was sent: sending it again cannot do it twice.
    Unsent(String),
    /// It was sent, wholly or in part, and nobody knows what became of it.
    Unclear(String),
}

/// Makes requests.
#[derive(Clone)]
pub struct Https {
    tls: TlsConnector,
}

/// Refuses URLs over which a token would travel in the open.
///
/// # Errors
/// It is neither `https://` nor `http://` to this machine, or has no host.
pub fn check(url: &Uri) -> anyhow::Result<()> {
    let host = url.host().with_context(|| format!("{url} has no host"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if here => Ok(()),
        Some("http") => bail!("{url} is not encrypted: only this machine may be asked over http://"),
        _ => bail!("{url} needs https://"),
    }
}

impl Https {
    /// With the certificates that the system trusts.
    ///
    /// # Errors
    /// It trusts none.
    pub fn new() -> anyhow::Result<Self> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
            eprintln!("warning: this system trusts no certificate ({why}): https:// will fail");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends one request and reads the whole answer within `deadline`.
    ///
    /// # Errors
    /// [`NoAnswer`] says whether it may have been heard.
    pub async fn send(
        &self,
        method: Method,
        url: &Uri,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        deadline: Duration,
    ) -> Result<Reply, NoAnswer> {
        check(url).map_err(|error| NoAnswer::Unsent(error.to_string()))?;
        let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(address(url))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(NoAnswer::Unsent(format!("no connection: {error}"))),
            Err(_) => return Err(NoAnswer::Unsent(format!("no connection within {} s", CONNECT.as_secs()))),
        };
        let _ = stream.set_nodelay(true);
        let request = request(method, url, headers, body).map_err(|error| NoAnswer::Unsent(error.to_string()))?;
        if url.scheme_str() != Some("https") {
            return within(deadline, exchange(stream, request)).await;
        }
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = rustls::pki_types::ServerName::try_from(host);
        let name = name.map_err(|error| NoAnswer::Unsent(format!("{url}: {error}")))?;
        let stream = match tokio::time::timeout(CONNECT, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(NoAnswer::Unsent(format!("no encrypted connection: {error}"))),
            Err(_) => return Err(NoAnswer::Unsent("no encrypted connection in time".to_owned())),
        };
        within(deadline, exchange(stream, request)).await
    }
}

fn address(url: &Uri) -> String {
    let standard = if url.scheme_str() == Some("https") { 443 } else { 80 };
    format!("{}:{}", url.host().unwrap_or_default(), url.port_u16().unwrap_or(standard))
}

fn request(
    method: Method,
    url: &Uri,
    headers: &[(HeaderName, HeaderValue)],
    body: Bytes,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut all = HeaderMap::new();
    all.insert(header::HOST, HeaderValue::try_from(url.authority().map_or("", |all| all.as_str()))?);
    all.insert(header::USER_AGENT, HeaderValue::from_static(concat!("repomind-run/", env!("CARGO_PKG_VERSION"))));
    all.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in headers {
        all.insert(name.clone(), value.clone());
    }
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(method).uri(target).body(Full::new(body))?;
    *request.headers_mut() = all;
    Ok(request)
}

async fn within(deadline: Duration, work: impl Future<Output = Result<Reply, NoAnswer>>) -> Result<Reply, NoAnswer> {
    let late = || NoAnswer::Unclear(format!("no answer within {} s", deadline.as_secs()));
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(late()))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Reply, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let unclear = |error: &dyn std::fmt::Display| NoAnswer::Unclear(format!("the connection broke: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unclear(&error))?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| unclear(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, BODY).collect().await;
        let body = body.map_err(|error| NoAnswer::Unclear(format!("the answer broke off: {error}")))?.to_bytes();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }
    .await;
    driver.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_travels_in_the_open() {
        for good in ["https://api.example.org/x", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"] {
            assert!(check(&good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in ["http://api.example.org", "http://10.0.0.1", "http://127.0.0.1.example.org", "ftp://127.0.0.1"] {
            assert!(check(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}
