//! The requests of the corpus: what origins may answer, crossed with rules, and what clients may ask, by hand.

pub mod random;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::support::Script;

/// One request, and what the regions answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What it is there for; equal in requests that belong together.
    #[serde(skip)]
    pub about: String,
    pub method: String,
    pub host: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub country: Option<String>,
    pub script: Script,
}

fn get(about: &str, target: &str, headers: &[(&str, &str)]) -> Case {
    Case {
        about: about.to_owned(),
        method: "GET".to_owned(),
        host: "www.example.org".to_owned(),
        target: target.to_owned(),
        headers: pairs(headers),
        country: None,
        script: Script::default(),
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn answering(status: u16, headers: &[(&str, &str)]) -> Script {
    Script { status, headers: pairs(headers), ..Script::default() }
}

/// All requests, in the order in which they are sent.
pub fn all(tokens: &BTreeMap<String, String>) -> Vec<Case> {
    let mut all = Vec::new();
    answers(&mut all);
    queries_and_hosts(&mut all);
    headers_and_cookies(&mut all);
    languages(&mut all);
    countries(&mut all);
    residency(&mut all);
    members(&mut all, tokens);
    limits(&mut all);
    regions(&mut all);
    devious(&mut all);
    all
}

/// What an origin may answer, under every kind of rule; each asked for twice.
fn answers(all: &mut Vec<Case>) {
    let scripts: [(&str, Script); 22] = [
        ("plain", Script::default()),
        ("max-age", answering(200, &[("cache-control", "public, max-age=5")])),
        ("long-max-age", answering(200, &[("cache-control", "max-age=999999")])),
        ("s-maxage", answering(200, &[("cache-control", "max-age=3, s-maxage=\"7\"")])),
        ("no-store", answering(200, &[("cache-control", "no-store")])),
        ("private", answering(200, &[("cache-control", "private, max-age=60")])),
        ("no-cache", answering(200, &[("cache-control", "No-Cache")])),
        ("zero", answering(200, &[("cache-control", "max-age=0")])),
        ("cdn-first", answering(200, &[("cdn-cache-control", "max-age=9"), ("cache-control", "no-store")])),
        ("cdn-never", answering(200, &[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60")])),
        ("cookie", answering(200, &[("set-cookie", "a=b")])),
        ("vary-all", answering(200, &[("vary", "*")])),
        ("vary-language", answering(200, &[("vary", "Accept-Encoding, Accept-Language")])),
        ("vary-encoding", answering(200, &[("vary", "accept-encoding")])),
        ("aged", answering(200, &[("age", "10"), ("cache-control", "max-age=25")])),
        ("too-old", answering(200, &[("age", "90000"), ("cache-control", "max-age=25")])),
        ("strict", answering(200, &[("cache-control", "max-age=20, must-revalidate")])),
        ("picture", answering(200, &[("content-type", "Image/PNG")])),
        ("missing", answering(404, &[])),
        ("moved", answering(301, &[("location", "/elsewhere")])),
        ("broken", answering(500, &[])),
        ("tagged", answering(200, &[("cache-tag", "first, second,third")])),
    ];
    let paths =
        ["/pages/", "/docs/", "/static/a.js?v=", "/shop/", "/tenants/", "/profiles/", "/pinned/", "/v1/", "/none/"];
    for (path, (name, script)) in paths.iter().flat_map(|path| scripts.iter().map(move |script| (path, script))) {
        let case = match path.strip_suffix("?v=") {
            Some(file) => get(&format!("answers {name}"), &file.replace("a.js", &format!("{name}.js?v=1")), &[]),
            None => get(&format!("answers {name}"), &format!("{path}{name}"), &[]),
        };
        let case = Case { script: script.clone(), ..case };
        all.extend([case.clone(), case]);
    }
}

fn queries_and_hosts(all: &mut Vec<Case>) {
    for query in [
        "",
        "?",
        "?b=2&a=1",
        "?a=1&b=2",
        "?a=1&&b=2&",
        "?utm_source=x&a=1&b=2",
        "?a=1&gclid=y&b=2",
        "?utm_source=x",
        "?utm_sources=x",
        "?b",
        "?b=",
        "?A=1",
        "?a=1;b=2",
        "?a=%20x",
        "?a=1&a=2",
        "?a=2&a=1",
    ] {
        all.push(get("queries", &format!("/pages/query{query}"), &[]));
    }
    for query in [
        "?page=1",
        "?page=1&sort=up",
        "?sort=up&page=1",
        "?sort=up&page=1&x=9",
        "?page=1&page=2",
        "?page",
        "?x=1",
        "?pages=1",
    ] {
        all.push(get("queries", &format!("/shop/query{query}"), &[]));
    }
    for host in ["www.example.org", "WWW.Example.ORG", "www.example.org:443", "other.example.org"] {
        all.push(Case { host: host.to_owned(), ..get("hosts", "/pages/host", &[]) });
    }
    all.extend([
        get("paths", "/static/x.css", &[]),
        get("paths", "/static/x.png", &[]),
        get("paths", "/static/x.css?y", &[]),
    ]);
}

fn headers_and_cookies(all: &mut Vec<Case>) {
    for method in ["HEAD", "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        all.push(Case { method: method.to_owned(), ..get("methods", "/pages/method", &[]) });
    }
    let cookies = [
        "session=1",
        "a=b; session=2",
        "sessions=1",
        "xsession=1",
        "currency=EUR",
        "currency=USD; a=1",
        "a=1;currency=EUR",
        "a=1; currency = EUR",
        "currency=a b",
        "currency=a%20b",
        "currency=",
    ];
    for cookie in cookies {
        all.push(get("cookies", "/shop/cookie", &[("cookie", cookie)]));
        all.push(get("cookies", "/pages/cookie", &[("cookie", cookie)]));
    }
    for tenant in ["acme", "Acme", "a b", "a%20b", "a%b", "x=y", ""] {
        all.push(get("tenants", "/tenants/x", &[("x-tenant", tenant)]));
    }
    all.push(get("tenants", "/tenants/x", &[]));
    for (name, value) in [
        ("x-preview", "yes"),
        ("x-preview", "no"),
        ("authorization", "Bearer x"),
        ("range", "bytes=0-1"),
        ("cache-control", "no-cache"),
        ("pragma", "no-cache"),
    ] {
        all.push(get("headers", "/pages/header", &[(name, value)]));
    }
}

fn languages(all: &mut Vec<Case>) {
    for language in [
        "",
        "de",
        "DE",
        "de-AT",
        "de-AT,de;q=0.9,en;q=0.1",
        "fr;q=0.9, de",
        "fr",
        "fr;q=0",
        "de;q=0, fr",
        "de;q=0.0,fr;q=0.1",
        "es",
        "*",
        "english",
        "en-GB;q=1",
        "den",
        "fr;q=0.5;x=1",
        "x-de",
        " de ,fr",
    ] {
        all.push(get("languages", "/docs/language", &[("accept-language", language)]));
    }
    all.push(get("languages", "/docs/language", &[]));
}

fn countries(all: &mut Vec<Case>) {
    for country in ["DE", "US", "SG", "BR", "ZA", "AU", "IN", "JP", "GB", "CA"] {
        for path in ["/local/x", "/docs/country"] {
            let path = if path == "/local/x" { path.to_owned() } else { format!("{path}-{country}") };
            all.push(Case { country: Some(country.to_owned()), ..get("countries", &path, &[]) });
        }
    }
    all.extend([get("countries", "/local/x", &[]), get("countries", "/local/x", &[])]);
}

fn residency(all: &mut Vec<Case>) {
    for class in [
        "public",
        "Operational",
        "source-code",
        "credentials",
        "personal",
        "health",
        "public, personal",
        "unheard-of",
        "",
    ] {
        for country in ["", "DE", "DE, FR", "SG", "US", "RU", "DE,RU", "ZZ"] {
            let headers = [("repomind-class", class), ("repomind-jurisdiction", country)];
            let headers = if country.is_empty() { &headers[..1] } else { &headers[..] };
            let name: String = format!("{class}-{country}").chars().filter(|c| c.is_ascii_alphanumeric()).collect();
            let case = Case { script: answering(200, headers), ..get("residency", &format!("/profiles/{name}"), &[]) };
            all.extend([case.clone(), case]);
        }
    }
}

fn members(all: &mut Vec<Case>, tokens: &BTreeMap<String, String>) {
    for (name, token) in tokens {
        all.push(get(&format!("members {name}"), "/members/x", &[("authorization", &format!("Bearer {token}"))]));
    }
    all.push(get("members without", "/members/x", &[]));
    all.push(get("members otherwise", "/members/x", &[("authorization", "Basic eDp5")]));
    all.push(Case { method: "POST".to_owned(), ..get("members without", "/members/x", &[]) });
    all.extend([get("members open", "/members/open/x", &[]), get("members open", "/members/open/x", &[])]);
}

fn limits(all: &mut Vec<Case>) {
    for client in ["a", "b"] {
        for number in 0..7 {
            all.push(get(&format!("limits {number}"), "/limited/x", &[("x-client", client)]));
        }
    }
}

fn regions(all: &mut Vec<Case>) {
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let groups: [&[&str]; 4] =
        [&["ap-southeast"], &["us-east"], &["ap-southeast", "us-east"], &["ap-southeast", "us-east", "eu-west"]];
    for (number, (group, path)) in
        groups.iter().flat_map(|group| ["/pinned/r", "/once/r", "/pages/r"].map(|path| (group, path))).enumerate()
    {
        for (kind, script) in [
            ("down", Script { down: named(group), ..Script::default() }),
            ("unwell", Script { unwell: named(group), ..Script::default() }),
        ] {
            for method in ["GET", "POST"] {
                let target = format!("{path}-{kind}-{number}");
                all.push(Case { method: method.to_owned(), script: script.clone(), ..get("regions", &target, &[]) });
            }
        }
    }
}

fn devious(all: &mut Vec<Case>) {
    for path in [
        "/pages/%2e%2e%2fv1/x",
        "/pages/a%2fb",
        "/pages/a%2Fb",
        "/pages//b",
        "/pages/a%5Cb",
        "/pages/a%00b",
        "/pages/a%20b",
        "/%70ages/a",
        "/pages/%4A",
        "/pages/%5a%7A%39",
        "/pages/%5Bx%5d%60%7B%2d%3a%40",
        "/pages/%C3%A9?a=%61",
        "/pages/50%",
    ] {
        all.push(get("devious", path, &[]));
    }
    all.push(get("devious", &format!("/pages/{}", "x".repeat(8300)), &[]));
}
