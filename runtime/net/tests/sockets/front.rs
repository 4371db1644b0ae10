//! What comes before a request: TLS, proxies, and shapes that two servers could take for two requests.

use std::sync::{Mutex, PoisonError};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use net::{Certificate, GatewayConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::*;

/// A service that notes the heads of the requests that reach it.
async fn noting() -> (Uri, Arc<Mutex<Vec<String>>>) {
    let (listener, address) = bind().await;
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let noted = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = noted.clone();
            tokio::spawn(async move {
                let mut piece = vec![0; 65_536];
                while let Ok(length @ 1..) = stream.read(&mut piece).await {
                    let text = String::from_utf8_lossy(&piece[..length]).to_lowercase();
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
                }
            });
        }
    });
    (format!("http://{address}").parse().unwrap(), heads)
}

async fn with_config(config: GatewayConfig) -> (SocketAddr, Arc<Mutex<Vec<String>>>, tempfile::TempDir) {
    let (uri, heads) = noting().await;
    let dir = keys();
    let (listener, address) = bind().await;
    let verifier = TokenVerifier::load(dir.path()).unwrap();
    let served = fixture(dir.path(), "us-east", BTreeMap::from([(id("us-east"), uri)]));
    tokio::spawn(net::serve_gateway(listener, served, verifier, config, CancellationToken::new()));
    (address, heads, dir)
}

/// Sends bytes as they are, and gives all that comes back until the connection ends.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may end the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut answer))
        .await
        .expect("the connection ends");
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_ever_hides_another_one_from_a_proxy_in_front() {
    let (address, heads, _dir) = with_config(GatewayConfig::default()).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = hidden.len();
    let post = "POST /ask HTTP/1.1\r\nHost: x\r\n";
    for shape in [
        // Two lengths, in both orders, and one that is none (RFC 9112, section 6.3).
        format!("{post}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 0, {length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: +{length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 0x0\r\n\r\n{hidden}"),
        // Encodings that one server knows and another does not.
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("POST /ask HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        // Chunks that do not say how long they are.
        format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{hidden}"),
        // Lines that are folded, or are none.
        format!("{post}X: y\r\n Content-Length: {length}\r\n\r\n{hidden}"),
        format!("{post}: empty\r\n\r\n{hidden}"),
        format!("{post}X\0: y\r\n\r\n{hidden}"),
        // No host, two of them.
        "POST /ask HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "POST /ask HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ] {
        // Where the connection goes on, this request ends it.
        let last = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = raw(address, format!("{shape}{last}").as_bytes()).await;
        let answers = answer.matches("http/1.1 ").count() + answer.matches("http/1.0 ").count();
        assert!(answers <= 2, "{shape:?} was answered as {answers} requests: {answer}");
        let heads = heads.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!heads.iter().any(|head| head.contains("/hidden")), "{shape:?}: {heads:?}");
    }
    // What is sound still goes through, one after the other.
    let two = format!("{post}Content-Length: 2\r\n\r\nhi{}", hidden.replace("Host: x", "Host: x\r\nConnection: close"));
    assert_eq!(raw(address, two.as_bytes()).await.matches("http/1.1 200").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_never_believed_to_be_a_proxy() {
    let told = |heads: &Arc<Mutex<Vec<String>>>| {
        let head = heads.lock().unwrap_or_else(PoisonError::into_inner).pop().expect("a request");
        head.lines().find_map(|line| line.strip_prefix("x-forwarded-for: ")).map(str::to_owned)
    };
    let get = "GET /ask HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.5, 10.0.0.7\r\n\r\n";
    let proxies = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    let config = GatewayConfig { proxies: proxies.clone(), ..GatewayConfig::default() };
    let (address, heads, _dir) = with_config(config).await;
    assert!(raw(address, get.as_bytes()).await.starts_with("http/1.1 200"));
    assert_eq!(told(&heads).as_deref(), Some("203.0.113.5"), "the proxy behind the proxy was taken for the client");

    let config = GatewayConfig { proxies, proxy_protocol: true, ..GatewayConfig::default() };
    let (address, heads, _dir) = with_config(config).await;
    let plain = "GET /ask HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n";
    let v1 = |head: &str| format!("{head}{plain}").into_bytes();
    let v2 =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x7f\0\0\x01\x10\0\0P"[..], plain.as_bytes()].concat();
    for (bytes, client) in [
        (v1("PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n"), "198.51.100.7"),
        (v1("PROXY TCP6 2001:db8::7 ::1 1 2\r\n"), "2001:db8::7"),
        (v2, "198.51.100.7"),
    ] {
        assert!(raw(address, &bytes).await.starts_with("http/1.1 200"));
        // The client is no proxy, so what it says of others is not believed.
        assert_eq!(told(&heads).as_deref(), Some(client));
    }
    for bad in ["", "PROXY TCP4 nobody 127.0.0.1 1 2\r\n", "PROXY TCP4\r\n", &"PROXY TCP4 1".repeat(20)] {
        assert_eq!(raw(address, &v1(bad)).await, "", "{bad:?} was answered");
    }
    assert!(heads.lock().unwrap_or_else(PoisonError::into_inner).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_one_name_that_the_service_hears_too() {
    let config = GatewayConfig { access_log: true, ..GatewayConfig::default() };
    let (address, heads, _dir) = with_config(config).await;
    let name = |text: &str| text.lines().find_map(|line| line.strip_prefix("x-request-id: ")).map(str::to_owned);
    let mut seen = BTreeSet::new();
    for stated in ["", "X-Request-Id: trace-7.b_2\r\n", "X-Request-Id: a b\r\n", "X-Request-Id: <script>\r\n"] {
        let answer =
            raw(address, format!("GET /ask HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{stated}\r\n").as_bytes()).await;
        let named = name(&answer).expect("a name");
        let head = heads.lock().unwrap_or_else(PoisonError::into_inner).pop().expect("a request");
        assert_eq!(name(&head).as_ref(), Some(&named));
        assert_eq!(named == "trace-7.b_2", stated.contains("trace"), "{named}");
        assert!(seen.insert(named));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_bad_one_never() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["api.repomind.io".to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&chain, made.cert.pem()).unwrap();
    };
    renew();
    let certificate = Arc::new(Certificate::open(chain.clone(), key.clone()).unwrap());
    tokio::spawn(certificate.clone().follow(CancellationToken::new()));
    let config = GatewayConfig { certificate: Some(certificate), ..GatewayConfig::default() };
    let (address, _heads, _dir) = with_config(config).await;
    let ask = async || {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&chain).ok()?).ok()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("api.repomind.io").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.ok()?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://api.repomind.io/ask").body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = send.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Some(response.into_body().collect().await.unwrap().to_bytes())
    };
    assert_eq!(ask().await.as_deref(), Some(&b"hi"[..]));
    let shown = std::fs::read(&chain).unwrap();
    std::fs::write(&chain, "no certificate").unwrap();
    let begun = std::time::Instant::now();
    // Longer than it takes to look at the files.
    while begun.elapsed() < net::limits::CERTIFICATE_LOOK * 2 {
        let client = TcpStream::connect(address).await;
        assert!(client.is_ok());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    std::fs::write(&chain, shown).unwrap();
    assert_eq!(ask().await.as_deref(), Some(&b"hi"[..]), "a bad file took the place of a good one");
    renew();
    until("the new certificate", || async { ask().await.is_some() }).await;
}
