//! The way to services that fail, and bodies that are larger than what is kept of them.

use super::*;

/// A service that answers with how many bytes a request's body had, as fast as it comes.
async fn counting(status: &'static str) -> Uri {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                let length: usize = length.map_or(0, |length| length.parse().unwrap());
                let (mut got, mut part) = (0, vec![0; 64 * 1024]);
                while got < length {
                    match stream.read(&mut part).await {
                        Ok(0) | Err(_) => return,
                        Ok(more) => got += more,
                    }
                }
                let body = format!("{got} bytes");
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("http://{address}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_goes_through_as_it_comes_and_to_one_region_only() {
    let (whole, second) = (counting("200 OK").await, counting("200 OK").await);
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), whole), (id("eu-west"), second.clone())])).await;
    let large = "x".repeat(20 * 1024 * 1024);
    let answer = ask(address, "PUT /repositories/all HTTP/1.1", &large).await;
    assert!(answer.starts_with("http/1.1 200") && answer.ends_with(&format!("{} bytes", large.len())), "{answer}");

    let unwell = counting("503 Unwell").await;
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), unwell), (id("eu-west"), second)])).await;
    let small = ask(address, "PUT /repositories/all HTTP/1.1", "x").await;
    assert!(small.starts_with("http/1.1 200") && small.contains("repomind-region: eu-west"), "{small}");
    let once = ask(address, "PUT /repositories/all HTTP/1.1", &large).await;
    assert!(once.starts_with("http/1.1 503") && once.contains("repomind-region: us-east"), "{once}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_inside_a_large_body_is_no_failure_of_the_service() {
    let (whole, second) = (counting("200 OK").await, counting("200 OK").await);
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), whole), (id("eu-west"), second)])).await;
    for _ in 0..8 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "PUT /repositories/all HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 2_000_000]).await.unwrap();
    }
    let after = ask(address, "GET /ask HTTP/1.1", "").await;
    assert!(after.starts_with("http/1.1 200") && after.contains("repomind-region: us-east"), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_keeps_failing_is_passed_over_until_it_answers_again() {
    let (gone, dead) = bind().await;
    drop(gone);
    let alive = counting("200 OK").await;
    let service: Uri = format!("http://{dead}").parse().unwrap();
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), service), (id("eu-west"), alive)])).await;
    for _ in 0..5 {
        let answer = ask(address, "GET /ask HTTP/1.1", "").await;
        assert!(answer.contains("repomind-region: eu-west"), "{answer}");
    }
    let listener = TcpListener::bind(dead).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    until("the service is tried again", || async {
        ask(address, "GET /ask HTTP/1.1", "").await.contains("repomind-region: us-east")
    })
    .await;
    let settled = ask(address, "GET /ask HTTP/1.1", "").await;
    assert!(settled.contains("repomind-region: us-east"), "{settled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_edge_holds_at_the_gateway_for_each_client_and_says_what_is_left() {
    let dir = keys();
    let (listener, address) = bind().await;
    let mut plans = plans();
    plans.edge.limits = vec![model::edge::RateLimit {
        name: RuleId::new("asking").unwrap(),
        when: RequestMatch { paths: vec!["/ask".into()], ..RequestMatch::default() },
        key: model::edge::LimitKey::Client,
        rate: 3,
        per_seconds: 3600,
        burst: 3,
        scope: model::edge::LimitScope::Coarse,
    }];
    let apis = BTreeMap::from([(id("us-east"), counting("200 OK").await)]);
    let (served, verifier) =
        (fixture_with(dir.path(), "us-east", apis, plans), TokenVerifier::load(dir.path()).unwrap());
    tokio::spawn(net::serve_gateway(listener, served, verifier, GatewayConfig::default(), CancellationToken::new()));
    let ask_as = |path: &str, client: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nx-forwarded-for: {client}");
        async move { ask(address, &head, "").await }
    };
    for left in [2, 1, 0] {
        let answer = ask_as("/ask", "203.0.113.9").await;
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("ratelimit: \"asking\";r={left};t=")), "{answer}");
        assert!(answer.contains("ratelimit-policy: \"asking\";q=3;w=3600"), "{answer}");
    }
    let refused = ask_as("/ask?more", "203.0.113.9").await;
    assert!(refused.starts_with("http/1.1 429") && refused.contains("\"rule\":\"asking\""), "{refused}");
    assert!(refused.contains("retry-after: ") && refused.contains("ratelimit: \"asking\";r=0;t="), "{refused}");
    for (path, client) in [("/ask", "203.0.113.10"), ("/other", "203.0.113.9"), ("/ask", "127.0.0.1")] {
        let answer = ask_as(path, client).await;
        assert!(answer.starts_with("http/1.1 200"), "{path} {client}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_change_of_protocol_that_was_not_granted_nothing_more_is_heard() {
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), counting("200 OK").await)])).await;
    let refused = ask(address, "CONNECT other.example:443 HTTP/1.1", "").await;
    assert!(refused.starts_with("http/1.1 405"), "{refused}");
    for protocol in ["websocket", "h2c"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let first = format!("GET /chat HTTP/1.1\r\nhost: x\r\nupgrade: {protocol}\r\nconnection: upgrade\r\n\r\n");
        let behind = "GET /behind HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.9\r\n\r\n";
        stream.write_all((first + behind).as_bytes()).await.unwrap();
        let mut answers = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answers)).await;
        assert!(read.is_ok(), "{protocol}: the connection stays open: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{protocol}: {answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_region_has_is_no_failure_of_a_region() {
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), counting("200 OK").await)])).await;
    let answer = ask(address, "GET /ask HTTP/1.1\r\nrepomind-needs: time-travel", "").await;
    assert!(answer.starts_with("http/1.1 501") && answer.contains("time-travel"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_in_a_line_of_its_own_is_seen_by_rules_as_one_among_others() {
    let dir = keys();
    let (listener, address) = bind().await;
    let mut plans = plans();
    let session = model::edge::Named { name: "session".into(), value: None };
    let bypass = CacheRule {
        name: RuleId::new("signed-in").unwrap(),
        when: RequestMatch { cookies: vec![session], ..RequestMatch::default() },
        bypass: true,
        ..plans.edge.rules[0].clone()
    };
    plans.edge.rules.insert(0, bypass);
    let apis = BTreeMap::from([(id("us-east"), counting("200 OK").await)]);
    let (served, verifier) =
        (fixture_with(dir.path(), "us-east", apis, plans), TokenVerifier::load(dir.path()).unwrap());
    tokio::spawn(net::serve_gateway(listener, served, verifier, GatewayConfig::default(), CancellationToken::new()));
    // HTTP/2 sends cookies so (RFC 9113, section 8.2.3).
    for (cookies, control) in [
        ("cookie: a=1\r\ncookie: session=2", "cdn-cache-control: no-store"),
        ("cookie: a=1; session=2", "cdn-cache-control: no-store"),
        ("cookie: a=1\r\ncookie: b=2", "cdn-cache-control: max-age=60"),
    ] {
        let answer = ask(address, &format!("GET /assets/a HTTP/1.1\r\n{cookies}"), "").await;
        assert!(answer.contains(control), "{cookies}: {answer}");
    }
}
