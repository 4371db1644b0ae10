//! What somebody tries who wants others to get what they did not ask for, or nothing at all: on a real Varnish and nginx.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use model::edge::{KeyPart, LimitKey};
use support::varnishd::{self, Varnish, text_of};
use support::{Regions, Script, Seen, ask, form, id, nginxd, script, until};

/// A Varnish before regions of its own, or nothing where the tool is missing.
fn edge(change: impl FnOnce(&mut edge::Form)) -> Option<(Varnish, Regions)> {
    if !varnishd::is_there() {
        return None;
    }
    let mut form = form();
    change(&mut form);
    let regions = Regions::start(&form);
    form.origins.clone_from(&regions.origins);
    Some((Varnish::start(&form), regions))
}

/// Sends bytes as they are and reads until the other end closes, or nothing comes for a second.
fn send(to: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("a timeout");
    stream.write_all(bytes.as_bytes()).expect("taken");
    let (mut found, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        found.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&found).into_owned()
}

/// Everything by which an attacker would have a say in what others get for this target.
fn poisoned(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: www.example.org:1337\r\nConnection: close\r\nX-Forwarded-Host: evil.example\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Port: 1\r\nForwarded: host=evil.example\r\nX-Original-URL: /admin\r\n\
         X-Rewrite-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\nX-Forwarded-For: 203.0.113.9\r\n\
         Cookie: evil=1; currency=EUR\r\nX-Tenant: a\r\nContent-Length: 6\r\n\r\nevil=1"
    )
}

/// What a region may have seen of such a request: the target and the host of the key, and nothing else of it.
fn is_clean(seen: &Seen, target: &str, host: Option<&str>) {
    assert_eq!(seen.target, target, "{seen:?}");
    let found = seen.headers.get("host").map_or("", String::as_str);
    match host {
        Some(host) => assert_eq!(found, host, "{seen:?}"),
        None => assert!(!found.contains("example"), "{seen:?}"),
    }
    for (name, value) in &seen.headers {
        assert!(!value.contains("evil") && !value.contains("admin") && !value.contains("1337"), "{name}: {value}");
        assert!(!["content-length", "x-http-method-override", "x-forwarded-port"].contains(&name.as_str()), "{name}");
    }
    assert_eq!(seen.headers.get("x-forwarded-proto").map(String::as_str), Some("https"), "{seen:?}");
}

const SHARED: [(&str, &str, Option<&str>); 4] = [
    ("/pages/p?utm_source=evil&b=2&a=1&gclid=evil", "/pages/p?a=1&b=2", Some("www.example.org")),
    ("/shop/p?evil=1&sort=up&page=1&page=evil", "/shop/p?page=1&sort=up", Some("www.example.org")),
    ("/static/p.js?evil", "/static/p.js", Some("www.example.org")),
    ("/tenants/p?a=1", "/tenants/p?a=1", None),
];

#[test]
fn what_is_shared_is_fetched_by_what_is_in_its_key_and_nothing_else() {
    let Some((varnish, regions)) = edge(|_| ()) else { return };
    for (asked, target, host) in SHARED {
        assert!(send(varnish.address, &poisoned(asked)).starts_with("HTTP/1.1 200"), "{asked}");
        let seen = regions.seen.lock().unwrap().last().cloned().expect("it was fetched");
        is_clean(&seen, target, host);
        let cookie = seen.headers.get("cookie").map(String::as_str);
        assert_eq!(cookie, target.starts_with("/shop/").then_some("currency=EUR"), "{seen:?}");
        let tenant = [("x-tenant".to_owned(), "a".to_owned()), ("cookie".to_owned(), "currency=EUR".to_owned())];
        let again = ask(varnish.address, "GET", target, "www.example.org", &tenant);
        assert_eq!(again.came(), "hit", "{asked} is not what was asked for: {again:?}");
    }
    // What is not shared is the client's own.
    let own = poisoned("/pages/p?utm_source=mine").replace("X-Tenant", "Authorization");
    send(varnish.address, &own);
    let seen = regions.seen.lock().unwrap().last().cloned().expect("it was fetched");
    assert_eq!(
        (seen.target.as_str(), seen.headers["host"].as_str()),
        ("/pages/p?utm_source=mine", "www.example.org:1337")
    );
}

#[test]
fn nginx_fetches_what_is_shared_by_its_key_and_nothing_else() {
    let Some((nginx, regions)) = nginxd::start(form()) else { return };
    for (asked, target, host) in SHARED {
        let wanted = match target {
            // It leaves no parameter out and sorts none: all of the query is in its key.
            "/pages/p?a=1&b=2" => asked,
            target => target,
        };
        let bodiless =
            poisoned(asked).replace("Content-Length: 6\r\n\r\nevil=1", "\r\n").replace("Cookie: evil=1; ", "Cookie: ");
        assert!(send(nginx.address, &bodiless).starts_with("HTTP/1.1 200"), "{asked}");
        let seen = regions.seen.lock().unwrap().last().cloned().expect("it was fetched");
        assert_eq!(seen.target, wanted, "{seen:?}");
        assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1", "{seen:?}");
        if wanted == target {
            is_clean(&seen, target, host);
        }
        // What has a body is for who sent it.
        send(nginx.address, &poisoned(asked));
        let before = regions.count();
        send(nginx.address, &poisoned(asked));
        assert_eq!(regions.count(), before + 1, "{asked} with a body was given again");
    }
}

#[test]
fn nginx_tells_cookies_parameters_and_paths_apart_as_others_do() {
    let mut form = form();
    for rule in &mut form.rules {
        if rule.rule.name.as_str() == "shop" {
            rule.rule.key = vec![
                KeyPart::Path,
                KeyPart::QueryOnly(vec!["page-size".to_owned(), "x.y".to_owned()]),
                KeyPart::Cookie("my-currency".to_owned()),
            ];
        }
    }
    let Some((nginx, regions)) = nginxd::start(form) else { return };
    let asked = |target: &str, cookie: &str| {
        let before = regions.count();
        let cookie = [("cookie".to_owned(), format!("a=b; my-currency={cookie}"))];
        let answer = ask(nginx.address, "GET", target, "www.example.org", &cookie);
        (answer.status, regions.count() - before)
    };
    assert_eq!(asked("/shop/a?page-size=1", "EUR"), (200, 1));
    assert_eq!(asked("/shop/a?page-size=1", "EUR"), (200, 0));
    assert_eq!(asked("/shop/a?page-size=1", "USD"), (200, 1), "one got the answer for another's cookie");
    assert_eq!(asked("/shop/a?page-size=2", "EUR"), (200, 1), "one got the answer for another parameter");
    assert_eq!(asked("/shop/a?PAGE-SIZE=1", "EUR"), (200, 1), "one got the answer for another parameter");
    assert_eq!(asked("/shop/a?page-size=1&x.y=2", "EUR"), (200, 1), "one got the answer for another parameter");
    for devious in ["/shop/b/../a", "/shop//a", "/shop/%61", "/shop/%2e%2e/a", "/shop/a%2fb", "/shop/.", "/shop/a%5Cb"]
    {
        assert_eq!(asked(devious, "EUR"), (400, 0), "{devious}");
    }
    assert_eq!(asked("/shop/a%20b", "EUR"), (200, 1));
    // Answers of a status that no rule is about are not kept, whatever the origin says.
    let teapot =
        Script { status: 203, headers: vec![("cache-control".into(), "max-age=60".into())], ..Script::default() };
    for _ in 0..2 {
        let before = regions.count();
        ask(nginx.address, "GET", "/pages/203", "www.example.org", &[script(&teapot)]);
        assert_eq!(regions.count(), before + 1, "an answer was kept that no rule is about");
    }
}

#[test]
fn behind_an_upgrade_nobody_speaks_to_a_region_past_the_edge() {
    let Some((varnish, regions)) = edge(|_| ()) else { return };
    for protocol in ["h2c", "anything", "tls/1.0, http/1.1"] {
        send(
            varnish.address,
            &format!(
                "GET /v1/x HTTP/1.1\r\nHost: www.example.org\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n\
                 GET /behind HTTP/1.1\r\nHost: www.example.org\r\nx-request-id: mine\r\nConnection: close\r\n\r\n"
            ),
        );
        let seen = regions.seen.lock().unwrap().last().cloned().expect("a request");
        assert_eq!(seen.target, "/behind");
        assert_ne!(seen.headers["x-request-id"], "mine", "{protocol}: it came past the edge: {seen:?}");
        assert!(seen.headers.contains_key("x-forwarded-for"), "{protocol}: it came past the edge: {seen:?}");
    }
    send(
        varnish.address,
        "GET /v1/x HTTP/1.1\r\nHost: www.example.org\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n",
    );
    for method in ["CONNECT", "PRI"] {
        assert_eq!(ask(varnish.address, method, "/v1/x", "www.example.org", &[]).status, 405, "{method}");
    }
    let seen = regions.seen.lock().unwrap().last().cloned().expect("a request");
    assert_eq!(seen.headers.get("upgrade").map(String::as_str), Some("WebSocket"), "what may change protocol cannot");
}

#[test]
fn a_client_that_breaks_off_keeps_nobody_from_a_region() {
    let Some((varnish, _regions)) = edge(|form| form.routes.iter_mut().for_each(|route| route.break_after = 2)) else {
        return;
    };
    let first = ask(varnish.address, "GET", "/v1/a", "www.example.org", &[]).header("repomind-edge-region").to_owned();
    for _ in 0..4 {
        let broken = "POST /v1/a HTTP/1.1\r\nHost: www.example.org\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n";
        send(varnish.address, broken);
    }
    let after = ask(varnish.address, "GET", "/v1/a", "www.example.org", &[]);
    assert_eq!(after.header("repomind-edge-region"), first, "{after:?}");
}

#[test]
fn what_the_origin_takes_back_is_not_given_when_it_fails() {
    let Some((varnish, regions)) = edge(|_| ()) else { return };
    let all = || ["us-east", "eu-west", "ap-southeast"].map(str::to_owned).to_vec();
    for (name, taken_back) in [
        ("private", Script { headers: vec![("cache-control".into(), "private".into())], ..Script::default() }),
        ("forbidden", Script { status: 403, ..Script::default() }),
        ("cookie", Script { headers: vec![("set-cookie".into(), "a=b".into())], ..Script::default() }),
    ] {
        let target = format!("/brief/{name}");
        let asked = |given: &Script| ask(varnish.address, "GET", &target, "www.example.org", &[script(given)]);
        assert_eq!(asked(&Script::default()).came(), "miss");
        until(|| (asked(&taken_back).came() == "miss").then_some(()), || "it is never past its time".to_owned());
        let failed = asked(&Script { down: all(), ..Script::default() });
        assert_eq!(failed.status, 503, "{name}: what was taken back is given: {failed:?}");
    }
    drop(regions);
}

#[test]
fn a_client_with_many_ipv6_addresses_is_one() {
    let Some((varnish, _regions)) = edge(|form| form.limits[0].key = LimitKey::Client) else { return };
    let asked = |client: &str| {
        let request = "GET /limited/x HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n";
        let family = if client.contains(':') { "TCP6" } else { "TCP4" };
        let other = if client.contains(':') { "2001:db8::" } else { "192.0.2.1" };
        let answer = send(varnish.proxied, &format!("PROXY {family} {client} {other} 1000 80\r\n{request}"));
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    // Ways to write addresses of one /64: zeros in front, in the middle, and none.
    for network in [
        [
            "2001:db8::1",
            "2001:db8:0:0:5::1",
            "2001:db8::1:2:3:4",
            "2001:db8:0:0:1:0:0:1",
            "2001:db8::ffff:1",
            "2001:db8::",
        ],
        [
            "2001:db8:1:2::1",
            "2001:db8:1:2:3:4:5:6",
            "2001:db8:1:2::",
            "2001:db8:1:2:0:0:0:9",
            "2001:db8:1:2:8::",
            "2001:db8:1:2::7",
        ],
        [
            "2001:0:0:7::1",
            "2001:0:0:7:1::",
            "2001::7:1:2:3:4",
            "2001::7:0:0:0:4",
            "2001:0:0:7:9:9:9:9",
            "2001::7:9:0:0:4",
        ],
    ] {
        let statuses: Vec<String> = network.iter().map(|client| asked(client)).collect();
        assert_eq!(statuses, ["200", "200", "200", "200", "200", "429"], "{network:?}");
    }
    assert_eq!(asked("2001:db8:0:1::1"), "200", "a neighbour pays for another's requests");
    assert_eq!(asked("203.0.113.1"), "200");
}

#[test]
fn a_limit_counts_those_who_do_not_say_who_they_are() {
    let Some((nginx, _regions)) = nginxd::start(form()) else { return };
    let statuses: Vec<u16> =
        (0..7).map(|_| ask(nginx.address, "GET", "/limited/x", "www.example.org", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429], "who leaves the header out is not limited");
}

#[test]
fn words_in_rules_are_words_in_programs() {
    // Whatever a policy may have in its texts (`runtime/policy/src/child/edge.rs`) stands in programs as it is.
    let odd = "/a(b|c)*[d]{2}$host^+;'`<>~!@";
    let change = |form: &mut edge::Form| {
        for rule in form.rules.iter_mut().filter(|rule| ["pages", "docs"].contains(&rule.rule.name.as_str())) {
            rule.rule.when.paths = vec![odd.to_owned()];
        }
    };
    if let Some((varnish, regions)) = edge(change) {
        assert_eq!(ask(varnish.address, "GET", &format!("{odd}x"), "www.example.org", &[]).came(), "miss");
        assert_eq!(ask(varnish.address, "GET", &format!("{odd}x"), "www.example.org", &[]).came(), "hit");
        assert_eq!(ask(varnish.address, "GET", "/ab", "www.example.org", &[]).came(), "bypass");
        drop(regions);
    }
    let mut form = form();
    change(&mut form);
    let _ = text_of(&form);
    if let Some((nginx, regions)) = nginxd::start(form) {
        for (target, fetched) in [(format!("{odd}x"), 1), ("/ab".to_owned(), 2)] {
            for _ in 0..2 {
                ask(nginx.address, "GET", &target, "www.example.org", &[]);
            }
            let seen = regions.seen.lock().unwrap().iter().filter(|seen| seen.target == target).count();
            assert_eq!(seen, fetched, "{target}");
        }
    }
    let _ = id("eu-west");
}
