//! What the reduced configuration does on a real nginx: it caches, it protects, and it fails over.

mod support;

use support::{Answer, Script, ask, nginxd, script};

#[test]
fn nginx_caches_what_it_may_and_protects_what_it_must() {
    let Some((nginx, regions)) = nginxd::start(support::form()) else { return };
    let get =
        |target: &str, headers: &[(String, String)]| ask(nginx.address, "GET", target, "www.example.org", headers);
    let came = |answer: &Answer| answer.header("cache-status").to_owned();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());

    get("/pages/a", &[]);
    assert_eq!(came(&get("/pages/a", &[])), "repomind; detail=HIT");
    assert_eq!(regions.count(), 1);
    // What is for one user is neither given from the cache nor kept.
    for header in [pair("authorization", "Bearer x"), pair("cookie", "session=1"), pair("range", "bytes=0-1")] {
        assert_eq!(came(&get("/pages/a", &[header])), "repomind; detail=BYPASS");
    }
    // One language is one entry, however it is asked for.
    get("/docs/a", &[pair("accept-language", "de-AT,de;q=0.9")]);
    assert_eq!(came(&get("/docs/a", &[pair("accept-language", "de")])), "repomind; detail=HIT");
    assert_eq!(came(&get("/docs/a", &[pair("accept-language", "fr")])), "repomind; detail=MISS");
    // Data that is bound to regions, and answers that set a cookie, are not kept.
    for (name, value) in [("repomind-class", "personal"), ("set-cookie", "a=b"), ("cache-control", "no-store")] {
        let told = script(&Script { headers: vec![pair(name, value)], ..Script::default() });
        let target = format!("/profiles/{name}");
        get(&target, std::slice::from_ref(&told));
        assert_eq!(came(&get(&target, &[told])), "repomind; detail=MISS", "{name}: {value}");
    }
    let limited: Vec<u16> = (0..7).map(|_| get("/limited/x", &[pair("x-client", "a")]).status).collect();
    assert_eq!(limited, [200, 200, 200, 200, 200, 429, 429]);
    let down = script(&Script { unwell: vec!["us-east".into()], ..Script::default() });
    let elsewhere = get("/pages/down", &[down]);
    assert_eq!((elsewhere.status, elsewhere.header("x-region") == "us-east"), (200, false), "{elsewhere:?}");
}
