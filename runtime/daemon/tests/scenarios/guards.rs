//! What `define-edge-auth` guards is guarded at the gateway as well, for those who come past the edge.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster, everywhere, exchange, until};

const SOON: Duration = Duration::from_secs(30);

/// An issuer of tokens: a key, and its name in the set.
struct Issuer {
    key: rcgen::KeyPair,
    name: &'static str,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        Self { key: rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), name }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key_raw());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.name, "use": "sig", "alg": "EdDSA", "x": x })
    }

    fn token(&self, issuer: &str, audience: &str, seconds: i64) -> String {
        self.token_with(issuer, audience, seconds, |_| ())
    }

    fn token_with(
        &self,
        issuer: &str,
        audience: &str,
        seconds: i64,
        change: impl FnOnce(&mut jsonwebtoken::Header),
    ) -> String {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        header.kid = Some(self.name.to_owned());
        change(&mut header);
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let claims = json!({ "iss": issuer, "aud": audience, "exp": now + seconds });
        let key = jsonwebtoken::EncodingKey::from_ed_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}

/// Serves a set of keys that can be changed, and counts how often it is fetched.
struct KeyServer {
    at: SocketAddr,
    keys: Arc<Mutex<Vec<Value>>>,
    fetched: Arc<Mutex<u32>>,
}

impl KeyServer {
    fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            Self { at: listener.local_addr().unwrap(), keys: Arc::new(Mutex::new(keys)), fetched: Arc::default() };
        let (keys, fetched) = (server.keys.clone(), server.fetched.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer);
                *fetched.lock().unwrap() += 1;
                let body = json!({ "keys": *keys.lock().unwrap() }).to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        server
    }
}

fn asked(cluster: &Cluster, target: &str, token: Option<&str>) -> Answer {
    let at: SocketAddr = (cluster.address("us-east"), 8080).into();
    let line = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = line.iter().map(|line| ("authorization", line.as_str())).collect();
    exchange(at, "GET", target, &headers, "").expect("the gateway answers")
}

#[test]
fn who_comes_past_the_edge_is_not_let_in_where_a_guard_stands() {
    let (first, second, stranger) = (Issuer::new("first"), Issuer::new("second"), Issuer::new("first"));
    let server = KeyServer::start(vec![first.jwk()]);
    let cluster = Cluster::tree();
    let file = cluster.file("edge-deployment/edge-cache.scm");
    let policy = std::fs::read_to_string(&file).unwrap();
    let real = "https://id.repomind.io/.well-known/jwks.json";
    assert!(policy.contains(real));
    let policy = policy.replace(real, &format!("http://{}/jwks.json", server.at)).replace(
        "(define-edge-backends",
        "(define-edge-auth 'shares '((path . \"/shares/\") (signed-urls . ((secret . \"share-key\")))))\n(define-edge-backends",
    );
    let policy = policy.replace("'cloudflare 'varnish 'nginx-reduced", "'cloudflare");
    std::fs::write(&file, policy).unwrap();
    let deployed = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(deployed.status.success(), "{}", crate::cluster::text(&deployed));
    everywhere(&cluster, 1);

    let (issuer, audience) = ("https://id.repomind.io", "repomind");
    let good = first.token(issuer, audience, 600);
    let parts: Vec<&str> = good.split('.').collect();
    let headed = |header: Value| URL_SAFE_NO_PAD.encode(header.to_string());
    let none = format!("{}.{}.{}", headed(json!({ "alg": "none", "kid": "first" })), parts[1], parts[2]);
    let unknown = format!("{}.{}.{}", headed(json!({ "alg": "XX999", "kid": "first" })), parts[1], parts[2]);
    let secret = jsonwebtoken::EncodingKey::from_secret(first.key.public_key_raw());
    let mut symmetric = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    symmetric.kid = Some("first".to_owned());
    let claims = json!({ "iss": issuer, "aud": audience, "exp": u32::MAX });
    let by_secret = jsonwebtoken::encode(&symmetric, &claims, &secret).unwrap();
    let critical = first.token_with(issuer, audience, 600, |header| header.crit = Some(vec!["exp".to_owned()]));
    let elsewhere =
        stranger.token_with(issuer, audience, 600, |header| header.jku = Some(format!("http://{}", server.at)));
    let huge = first.token(issuer, &"x".repeat(9000), 600);
    for (token, status, why) in [
        (None, 401, "nothing is shown"),
        (Some("not.a.token"), 401, "no token at all"),
        (Some(stranger.token(issuer, audience, 600).as_str()), 401, "another key of the same name"),
        (Some(first.token("https://evil.example", audience, 600).as_str()), 401, "another issuer"),
        (Some(first.token(issuer, "elsewhere", 600).as_str()), 401, "another audience"),
        (Some(first.token(issuer, audience, -600).as_str()), 401, "past its time"),
        (Some(none.as_str()), 401, "no algorithm"),
        (Some(unknown.as_str()), 401, "an algorithm nobody knows"),
        (Some(by_secret.as_str()), 401, "the public key as a secret"),
        (Some(critical.as_str()), 401, "an extension that must be understood"),
        (Some(elsewhere.as_str()), 401, "keys that it names itself"),
        (Some(huge.as_str()), 401, "a huge one"),
        (Some(good.as_str()), 200, "a good one"),
    ] {
        let answer = asked(&cluster, "/reports/1", token);
        assert_eq!(answer.status, status, "{why}: {}", answer.body);
        assert!(status == 200 || answer.body.contains("\"rule\":\"reports\""), "{}", answer.body);
        assert!(status == 200 || answer.headers.contains_key("www-authenticate"), "{why}");
    }
    assert_eq!(asked(&cluster, "/hello", None).status, 200, "what no guard is about is open");
    // Ways to write the path that a service may take for the same.
    for target in ["/%72eports/1", "/%52eports/../reports/1", "//reports/1", "/x/../reports/1", "/reports%2f1"] {
        let answer = asked(&cluster, target, None);
        assert!(matches!(answer.status, 400 | 401), "{target}: {} {}", answer.status, answer.body);
    }

    // Another key is taken as soon as the set has it, and strangers do not have it fetched over and over.
    let before = *server.fetched.lock().unwrap();
    for _ in 0..20 {
        assert_eq!(asked(&cluster, "/reports/1", Some(&second.token(issuer, audience, 600))).status, 401);
    }
    assert!(*server.fetched.lock().unwrap() <= before + 1, "an unknown key has the set fetched each time");
    *server.keys.lock().unwrap() = vec![second.jwk()];
    until("the new key is taken", SOON, || {
        (asked(&cluster, "/reports/1", Some(&second.token(issuer, audience, 600))).status == 200).then_some(())
    });
    assert_eq!(asked(&cluster, "/reports/1", Some(&good)).status, 401, "a key that was taken back is still believed");

    // A signed URL needs the secret, and without it nobody is let in.
    let until_when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let signature = edge::evaluate::token::sign_url(b"hush", "/shares/a", "exp", until_when);
    let target = format!("/shares/a?exp={until_when}&sig={signature}");
    assert_eq!(asked(&cluster, &target, None).status, 500, "it was let in without a secret");
    std::fs::create_dir_all(cluster.state("secrets")).unwrap();
    std::fs::write(cluster.state("secrets/share-key"), "hush\n").unwrap();
    assert_eq!(asked(&cluster, &target, None).status, 200);
    assert_eq!(asked(&cluster, "/shares/a", None).status, 403);
    assert_eq!(asked(&cluster, &target.replace("/shares/a", "/shares/b"), None).status, 403, "for another path");
}
