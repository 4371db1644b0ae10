//! What operators rely on, shown on a real Varnish: `make tools` installs it.

mod support;

use std::time::Duration;

use support::varnishd::{self, Varnish, text_of};
use support::{Answer, Regions, Script, ask, form, script};

/// A Varnish before regions of its own, or nothing where the tool is missing.
fn edge() -> Option<(Varnish, Regions)> {
    if !varnishd::is_there() {
        return None;
    }
    let mut form = form();
    let regions = Regions::start(&form);
    form.origins.clone_from(&regions.origins);
    Some((Varnish::start(&form), regions))
}

fn get(varnish: &Varnish, target: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ask(varnish.address, "GET", target, "www.example.org", &headers)
}

/// Asks until an answer came about as wanted.
fn until(varnish: &Varnish, target: &str, came: &str) -> Answer {
    let asked = || Some(get(varnish, target, &[])).filter(|answer| answer.came() == came);
    support::until(asked, || format!("{target} never came as {came}"))
}

fn purge(varnish: &Varnish, headers: &[(&str, &str)], target: &str) -> Answer {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ask(varnish.address, "PURGE", target, "www.example.org", &headers)
}

#[test]
fn an_answer_is_fetched_once_and_given_again_with_its_age_and_status() {
    let Some((varnish, regions)) = edge() else { return };
    let first = get(&varnish, "/pages/a?b=2&a=1&utm_source=mail", &[]);
    assert_eq!((first.status, first.came()), (200, "miss"), "{first:?}");
    assert_eq!(first.header("cache-status"), "repomind; fwd=uri-miss; stored; ttl=60");
    let second = get(&varnish, "/pages/a?a=1&b=2", &[]);
    assert_eq!((second.came(), regions.count()), ("hit", 1), "{second:?}");
    assert!(second.header("cache-status").starts_with("repomind; hit; ttl="), "{second:?}");
    assert_eq!(second.header("x-content-type-options"), "nosniff");
    for hidden in ["xkey", "via", "x-varnish", "rm-kept", "rm-region", "rm-revision", "cdn-cache-control"] {
        assert_eq!(second.header(hidden), "", "{hidden} is nobody's business");
    }
    let seen = regions.seen.lock().unwrap();
    let ours: Vec<&String> = seen[0].headers.keys().filter(|name| name.starts_with("rm-")).collect();
    assert!(ours.is_empty(), "the regions see {ours:?}");
}

#[test]
fn a_stale_answer_is_given_at_once_while_a_fresh_one_is_fetched() {
    let Some((varnish, regions)) = edge() else { return };
    get(&varnish, "/short/swr", &[]);
    until(&varnish, "/short/swr", "stale");
    support::until(|| (regions.count() >= 2).then_some(()), || "no fresh answer was fetched".to_owned());
    until(&varnish, "/short/swr", "hit");
}

#[test]
fn where_no_region_answers_the_stale_answer_is_given_again_and_again() {
    let Some((varnish, regions)) = edge() else { return };
    get(&varnish, "/brief/sie", &[]);
    let all = || ["us-east", "eu-west", "ap-southeast"].map(str::to_owned).to_vec();
    regions.answer(Script { unwell: all(), ..Script::default() });
    let stale = until(&varnish, "/brief/sie", "stale-error");
    assert_eq!((stale.status, stale.header("repomind-test-kept")), (200, "brief"));
    assert!(stale.body.starts_with("from "), "{stale:?}");
    for _ in 0..3 {
        assert_eq!(get(&varnish, "/brief/sie", &[]).came(), "stale-error", "an error has lost the stale answer");
    }
    regions.answer(Script { down: all(), ..Script::default() });
    assert_eq!(get(&varnish, "/brief/sie", &[]).came(), "stale-error");
    let other = get(&varnish, "/brief/other", &[]);
    assert_eq!((other.status, other.came()), (503, "edge"), "{other:?}");
    regions.answer(Script::default());
    assert_eq!(until(&varnish, "/brief/sie", "miss").header("cache-status"), "repomind; fwd=stale; stored; ttl=1");
}

#[test]
fn a_purge_by_tag_takes_what_has_the_tag_and_nothing_else() {
    let Some((varnish, _regions)) = edge() else { return };
    let own = script(&Script { headers: vec![("cache-tag".into(), "one, two".into())], ..Script::default() });
    ask(varnish.address, "GET", "/pages/tagged", "www.example.org", &[own]);
    get(&varnish, "/pages/plain", &[]);
    get(&varnish, "/docs/plain", &[]);
    assert_eq!(purge(&varnish, &[("repomind-purge", "two")], "/").body, "1");
    assert_eq!(get(&varnish, "/pages/tagged", &[]).came(), "miss");
    assert_eq!(get(&varnish, "/pages/plain", &[]).came(), "hit");
    purge(&varnish, &[("repomind-purge", "rule:pages")], "/");
    assert_eq!(get(&varnish, "/pages/plain", &[]).came(), "miss");
    assert_eq!(get(&varnish, "/docs/plain", &[]).came(), "hit");
    purge(&varnish, &[], "/docs/plain");
    assert_eq!(get(&varnish, "/docs/plain", &[]).came(), "miss", "a purge by URL takes every variant of it");
}

#[test]
fn a_soft_purge_leaves_a_stale_answer_for_when_no_region_answers() {
    let Some((varnish, regions)) = edge() else { return };
    get(&varnish, "/brief/soft", &[]);
    get(&varnish, "/docs/soft", &[]);
    purge(&varnish, &[("repomind-purge", "docs rule:brief"), ("repomind-purge-soft", "1")], "/");
    let all = ["us-east", "eu-west", "ap-southeast"].map(str::to_owned).to_vec();
    regions.answer(Script { down: all, ..Script::default() });
    assert_eq!(get(&varnish, "/docs/soft", &[]).came(), "stale");
    assert_eq!(get(&varnish, "/brief/soft", &[]).came(), "stale-error");
}

#[test]
fn a_client_over_its_rate_is_told_when_to_come_again() {
    let Some((varnish, regions)) = edge() else { return };
    let asked: Vec<Answer> = (0..8).map(|_| get(&varnish, "/limited/x", &[("x-client", "a")])).collect();
    let passed = asked.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(passed, 5, "{asked:?}");
    let refused = asked.last().expect("eight");
    assert_eq!((refused.status, refused.header("retry-after")), (429, "12"), "{refused:?}");
    assert_eq!(refused.header("ratelimit"), "\"few\";r=0;t=12");
    assert_eq!(refused.header("ratelimit-policy"), "\"few\";q=5;w=60");
    assert_eq!(get(&varnish, "/limited/x", &[("x-client", "b")]).status, 200, "others have a bucket of their own");
    assert_eq!(regions.count(), 1);
}

#[test]
fn a_request_goes_to_the_next_region_when_one_does_not_answer() {
    let Some((varnish, regions)) = edge() else { return };
    let down = script(&Script { down: vec!["ap-southeast".into()], ..Script::default() });
    let answer = ask(varnish.address, "GET", "/pinned/a", "www.example.org", &[down]);
    assert_eq!((answer.status, answer.header("repomind-edge-region")), (200, "us-east"), "{answer:?}");
    let unwell = script(&Script { unwell: vec!["ap-southeast".into()], ..Script::default() });
    let answer = ask(varnish.address, "GET", "/pinned/b", "www.example.org", std::slice::from_ref(&unwell));
    assert_eq!((answer.status, answer.header("repomind-edge-region")), (200, "us-east"), "{answer:?}");
    let before = regions.count();
    let posted = ask(varnish.address, "POST", "/pinned/c", "www.example.org", &[unwell]);
    assert_eq!((posted.status, regions.count() - before), (503, 1), "what changes something is sent once: {posted:?}");
}

#[test]
fn a_region_that_fails_in_a_row_is_passed_over_for_a_while() {
    if !varnishd::is_there() {
        return;
    }
    let mut form = form();
    let regions = Regions::start(&form);
    form.origins.clone_from(&regions.origins);
    form.routes.iter_mut().for_each(|route| (route.break_after, route.break_seconds) = (3, 600));
    let varnish = Varnish::start(&form);
    let down = script(&Script { down: vec!["ap-southeast".into()], ..Script::default() });
    for number in 0..6 {
        let target = format!("/pinned/breaker-{number}");
        let answer = ask(varnish.address, "GET", &target, "www.example.org", std::slice::from_ref(&down));
        assert_eq!((answer.status, answer.header("repomind-edge-region")), (200, "us-east"), "{answer:?}");
    }
    let asked = regions.seen.lock().unwrap().iter().filter(|seen| seen.region == "ap-southeast").count();
    assert_eq!(asked, 3, "a region that failed three times is asked on");
}

#[test]
fn many_who_ask_for_one_answer_make_one_request() {
    let Some((varnish, regions)) = edge() else { return };
    *regions.delay.lock().unwrap() = Duration::from_millis(300);
    let address = varnish.address;
    let clients: Vec<_> = (0..20)
        .map(|_| std::thread::spawn(move || ask(address, "GET", "/pages/rush", "www.example.org", &[])))
        .collect();
    let answers: Vec<Answer> = clients.into_iter().map(|client| client.join().expect("an answer")).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(regions.count(), 1);
}

#[test]
fn an_answer_past_its_time_is_revalidated_and_not_fetched_whole() {
    let Some((varnish, regions)) = edge() else { return };
    regions.answer(Script { headers: vec![("etag".into(), "\"v1\"".into())], ..Script::default() });
    let first = get(&varnish, "/brief/etag", &[]);
    let second = until(&varnish, "/brief/etag", "miss");
    assert_eq!(first.body, second.body);
    let seen = regions.seen.lock().unwrap();
    let last = seen.last().expect("a request");
    assert_eq!(last.headers.get("if-none-match").map(String::as_str), Some("\"v1\""), "{last:?}");
}

#[test]
fn a_bad_program_is_refused_and_the_old_one_goes_on() {
    let Some((varnish, regions)) = edge() else { return };
    get(&varnish, "/pages/live", &[]);
    let refused = varnish.take("bad", "vcl 4.1;\nsub vcl_recv { set req.nothing = 1; }\n").unwrap_err();
    assert!(refused.contains("req.nothing"), "{refused}");
    assert_eq!(get(&varnish, "/pages/live", &[]).came(), "hit");
    let mut form = form();
    form.origins.clone_from(&regions.origins);
    // A good one: other rules for one path, with another revision; what was stored under the old ones is not given.
    let rule = form.rules.iter_mut().find(|rule| rule.rule.name.as_str() == "pages").expect("a rule");
    "0000000000000000".clone_into(&mut rule.revision);
    varnish.take("good", &text_of(&form)).expect("a good program");
    assert_eq!(get(&varnish, "/pages/live", &[]).came(), "miss", "an answer outlived its rule");
    assert_eq!(get(&varnish, "/pages/live", &[]).came(), "hit");
    varnish.admin(&["vcl.use", "boot"]).expect("the one before is still there");
    assert_eq!(get(&varnish, "/docs/live", &[]).came(), "miss");
}

#[test]
fn strangers_purge_nothing_and_say_nothing_about_countries() {
    if !varnishd::is_there() {
        return;
    }
    let mut form = form();
    let regions = Regions::start(&form);
    form.origins.clone_from(&regions.origins);
    let options = edge::backend::varnish::Options {
        region: support::id("eu-west"),
        operators: vec!["\"192.0.2.1\"".to_owned()],
        observe: true,
    };
    let varnish = Varnish::start_with(&edge::backend::varnish::program(&form, &options));
    get(&varnish, "/pages/mine", &[]);
    assert_eq!(purge(&varnish, &[("repomind-purge", "pages")], "/").status, 405);
    assert_eq!(get(&varnish, "/pages/mine", &[]).came(), "hit");
    let answer = get(&varnish, "/local/x", &[("repomind-country", "DE")]);
    assert_eq!(answer.header("repomind-test-key"), "path=/local/x country=XX");
}

#[test]
fn personal_data_is_kept_only_in_its_regions() {
    let Some((varnish, _regions)) = edge() else { return };
    let stated = |class: &str, country: &str| {
        let headers = vec![("repomind-class".into(), class.into()), ("repomind-jurisdiction".into(), country.into())];
        script(&Script { headers, ..Script::default() })
    };
    for (class, country, kept) in [
        ("personal", "DE", true),
        ("personal", "SG", true),
        ("personal", "RU", false),
        ("nonsense", "DE", false),
        ("public,personal", "DE,RU", false),
    ] {
        let target = format!("/profiles/{class}-{country}");
        let header = stated(class, country);
        ask(varnish.address, "GET", &target, "www.example.org", std::slice::from_ref(&header));
        let again = ask(varnish.address, "GET", &target, "www.example.org", &[header]);
        assert_eq!(again.came() == "hit", kept, "{class} of {country} in eu-west: {again:?}");
    }
}

/// A VCL as somebody would write it who needs no more than the pages of the corpus.
const BY_HAND: &str = r#"
vcl 4.1;
import std;
backend default { .host = "127.0.0.1"; .port = "PORT"; }
sub vcl_recv {
  if (req.method != "GET" && req.method != "HEAD") { return (pass); }
  if (req.http.Authorization || req.http.Range || req.http.Cookie ~ "session=") { return (pass); }
  unset req.http.Cookie;
  set req.url = regsuball(req.url, "([?&])(utm_source|gclid)=[^&]*", "\1");
  set req.url = regsub(std.querysort(req.url), "[?&]+$", "");
  return (hash);
}
sub vcl_backend_response { set beresp.ttl = 60s; set beresp.grace = 300s; return (deliver); }
sub vcl_deliver {
  set resp.http.x-hits = obj.hits;
  set resp.http.Cache-Status = "mine; hit; ttl=" + obj.ttl;
  set resp.http.x-content-type-options = "nosniff";
  set resp.http.x-frame-options = "SAMEORIGIN";
  set resp.http.referrer-policy = "strict-origin-when-cross-origin";
  set resp.http.strict-transport-security = "max-age=31536000; includeSubDomains";
}
"#;

/// `cargo test --workspace --test varnish -- --ignored --nocapture`: hit ratio and processor time a hit, generated beside
/// written by hand.
#[test]
#[ignore = "a measurement: it takes a while, and means nothing on a machine that does other things"]
fn the_generated_program_costs_about_what_one_written_by_hand_does() {
    if !varnishd::is_there() {
        return;
    }
    let mut form = form();
    let regions = Regions::start(&form);
    form.origins.clone_from(&regions.origins);
    // As much policy as the program by hand has: one rule for pages, one for those who are signed in.
    form.rules.retain(|rule| ["signed-in", "pages"].contains(&rule.rule.name.as_str()));
    (form.limits, form.auth) = (Vec::new(), Vec::new());
    form.ranking.orders.clear();
    form.ranking.countries.clear();
    form.routes.retain(|route| route.name.as_str() == "rest");
    let options = edge::backend::varnish::Options {
        region: support::id("eu-west"),
        operators: vec!["\"127.0.0.0\"/8".to_owned()],
        observe: false,
    };
    let ours = Varnish::start_with(&edge::backend::varnish::program(&form, &options));
    let port = regions.origins[&support::id("us-east")].rsplit(':').next().expect("a port").to_owned();
    let theirs = Varnish::start_with(&BY_HAND.replace("PORT", &port));
    let mut found = Vec::new();
    for _ in 0..7 {
        for varnish in [&ours, &theirs] {
            let before = varnish.processor_ms();
            let hits = traffic(varnish.address);
            found.push((hits, varnish.processor_ms() - before));
        }
    }
    for (name, at) in [("generated", 0), ("by hand", 1)] {
        let mut each: Vec<f64> =
            found.iter().skip(at).step_by(2).map(|&(_, ms)| ms * 1000.0 / f64::from(ASKED)).collect();
        each.sort_by(f64::total_cmp);
        let hits: u32 = found.iter().skip(at).step_by(2).map(|&(hits, _)| hits).sum();
        let ratio = f64::from(hits) / f64::from(ASKED) / 7.0;
        println!("{name}: hit ratio {ratio:.4}, {:.1} us of processor a request (median of 7)", each[3]);
    }
}

/// Requests of one round.
const ASKED: u32 = 20_000;

/// Sends a round on one connection, popular pages more often, in whatever order parameters come; gives the hits.
fn traffic(to: std::net::SocketAddr) -> u32 {
    use std::io::{BufRead, BufReader, Read, Write};
    let mut stream = std::net::TcpStream::connect(to).expect("it listens");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let (mut seed, mut hits) = (7_u64, 0);
    for _ in 0..ASKED {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = (seed >> 33) as f64 / f64::from(u32::MAX >> 1);
        let page = (500.0 * draw * draw * draw) as u32;
        let query = if seed & 1 << 20 == 0 { "a=1&b=2" } else { "b=2&utm_source=mail&a=1" };
        let request = format!("GET /pages/{page}?{query} HTTP/1.1\r\nHost: www.example.org\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("taken");
        let (mut length, mut hit) = (0, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            hit |= line.starts_with("cache-status: repomind; hit")
                || line.strip_prefix("x-hits: ").is_some_and(|hits| hits != "0");
            length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().expect("a length"));
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).expect("a body");
        hits += u32::from(hit);
    }
    hits
}
