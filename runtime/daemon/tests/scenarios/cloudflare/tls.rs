//! The API over TLS: the certificate counts, and nothing goes out without it.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::fake::read_request;
use super::{Site, TOKEN, said};

#[test]
fn a_token_is_shown_to_an_api_with_a_good_certificate_and_to_no_other() {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("https://{}/client/v4", listener.local_addr().expect("an address"));
    let (config, seen) = (Arc::new(config), Arc::new(Mutex::new(Vec::new())));
    let noted = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = rustls::StreamOwned::new(connection, stream);
            if let Some(request) = read_request(&mut stream) {
                noted.lock().expect("the notes").push(request.headers["authorization"].clone());
            }
        }
    });

    let site = Site::new();
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("trusted.pem");
    std::fs::write(&file, certified.cert.pem()).expect("a file");
    let plan = |trusted: &std::path::Path| {
        let mut command = site.command_to(&base, &["plan"]);
        command.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR").output().expect("the binary runs")
    };
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let other = folder.path().join("other.pem");
    std::fs::write(&other, stranger.cert.pem()).expect("a file");
    let refused = plan(&other);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("no encrypted connection"), "{}", said(&refused));
    assert!(seen.lock().expect("the notes").is_empty(), "a token was shown to a stranger");
    let heard = plan(&file);
    assert_eq!(heard.status.code(), Some(2), "it does not answer: {}", said(&heard));
    assert!(seen.lock().expect("the notes").iter().all(|shown| *shown == format!("Bearer {TOKEN}")));
    assert!(!seen.lock().expect("the notes").is_empty(), "a good certificate was refused");
}
