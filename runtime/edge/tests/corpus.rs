//! The same answer everywhere: requests through the reference, through a real Varnish, and (by
//! `cloudflare-workers/test/corpus.test.mjs`, from what is written here) through the worker.
//!
//! `decisions.json` has every request with what the reference decides for a worldwide network and, where that differs,
//! for a Varnish in eu-west. It is written anew with UPDATE_CORPUS=1; a test proves it fresh.

mod features;
mod requests;
mod support;

use std::collections::BTreeMap;

use edge::evaluate::answer::Head;
use edge::evaluate::edge::{Answered, Came, Edge};
use edge::evaluate::token::Keys;
use edge::evaluate::{Asked, Place};
use edge::form::Form;
use requests::Case;
use serde::{Deserialize, Serialize};
use support::varnishd::{self, Varnish};
use support::{Answer, Regions, Script, ask, form, id, script};

/// When the corpus takes place, in unix milliseconds.
const NOW: u64 = 1_764_000_000_000;

/// What is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Decision {
    status: u16,
    came: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    rule: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    /// The rule that gave times and tags, where something is stored.
    #[serde(skip_serializing_if = "String::is_empty")]
    kept: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ttl: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tags: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    region: String,
}

/// A request and its decisions.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    about: String,
    asked: Case,
    cloudflare: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    varnish: Option<Decision>,
}

fn tokens() -> serde_json::Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/tokens.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("tokens")).expect("JSON")
}

fn cases() -> Vec<Case> {
    let tokens: BTreeMap<String, String> = serde_json::from_value(tokens()["tokens"].clone()).expect("tokens");
    requests::all(&tokens)
}

fn decide(edge: &mut Edge<'_>, case: &Case) -> Decision {
    let asked = Asked {
        method: case.method.clone(),
        host: case.host.clone(),
        target: case.target.clone(),
        headers: case.headers.clone(),
        country: case.country.as_ref().map(|code| code.parse().expect("a country")),
        client: "192.0.2.1".to_owned(),
    };
    let answered = edge.handle(&asked, NOW, |region| give(&case.script, region.as_str()));
    decision(answered)
}

/// What a region of the tests answers to a script.
fn give(script: &Script, region: &str) -> Option<Head> {
    let is = |all: &[String]| all.iter().any(|one| one == region);
    if is(&script.down) {
        return None;
    }
    if is(&script.unwell) {
        return Some(Head { status: 503, headers: Vec::new() });
    }
    Some(Head { status: script.status.max(200), headers: script.headers.clone() })
}

fn decision(answered: Answered) -> Decision {
    let text = |text: Option<String>| text.unwrap_or_default();
    let edge = answered.came == Came::Edge;
    Decision {
        status: answered.status,
        came: answered.came.name().to_owned(),
        rule: text(answered.rule.filter(|_| !edge).map(|rule| rule.to_string())),
        key: text(answered.key.filter(|_| !edge)),
        kept: text(answered.kept.as_ref().map(|kept| kept.rule.to_string())),
        ttl: text(answered.kept.as_ref().map(|kept| kept.ttl.to_string())),
        tags: text(answered.kept.as_ref().map(|kept| kept.tags.join(" "))),
        region: text(answered.region.map(|region| region.to_string())),
    }
}

fn lines(form: &Form) -> Vec<Line> {
    decided(form, cases())
}

fn decided(form: &Form, cases: Vec<Case>) -> Vec<Line> {
    let jwks = serde_json::from_value(tokens()["jwks"].clone()).expect("keys");
    let keys = Keys { jwks: [("http://127.0.0.1:9/jwks.json".to_owned(), jwks)].into(), ..Keys::default() };
    let mut cloudflare = Edge::new(form, Place::worldwide(), keys.clone());
    let mut varnish = Edge::new(form, Place::in_memory(id("eu-west")), keys).leaving_tokens_to_the_origin();
    let line = |case: Case| {
        let (here, there) = (decide(&mut cloudflare, &case), decide(&mut varnish, &case));
        let differs = (here != there).then_some(there);
        Line { about: case.about.clone(), asked: case, cloudflare: here, varnish: differs }
    };
    cases.into_iter().map(line).collect()
}

#[test]
fn the_decisions_on_disk_are_those_of_the_reference() {
    let lines = lines(&form());
    assert!(lines.len() >= 300, "only {} requests", lines.len());
    let text: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).expect("plain data")).collect();
    let text = format!("[\n{}\n]\n", text.join(",\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/decisions.json");
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        std::fs::write(path, &text).expect("the corpus is written");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == text, "decisions.json is not what the reference decides: UPDATE_CORPUS=1 writes it anew");
}

#[test]
fn backends_differ_only_where_the_documentation_says_why() {
    // docs/edge.md has a line for each of these.
    const JUSTIFIED: [&str; 2] = ["residency", "members"];
    let lines = lines(&form());
    let differing: Vec<&Line> = lines.iter().filter(|line| line.varnish.is_some()).collect();
    assert!(!differing.is_empty(), "nothing differs, so the places are not told apart");
    for line in differing {
        let known = JUSTIFIED.iter().any(|word| line.about.starts_with(word));
        assert!(known, "{}: {:?} and {:?}", line.about, line.cloudflare, line.varnish);
    }
}

#[test]
fn varnish_decides_as_the_reference_does() {
    if !varnishd::is_there() {
        return;
    }
    let form = form();
    differs_nowhere(&lines(&form), form);
}

/// Requests by a seed: EDGE_SEED and EDGE_PAIRS choose others, and more. EDGE_LINES names a file that they are written to
/// with what the reference decides, for the worker: `EDGE_LINES=FILE npm test -- corpus` in cloudflare-workers.
#[test]
fn varnish_decides_as_the_reference_does_what_nobody_would_ask() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let (seed, pairs) = (number("EDGE_SEED", 1), number("EDGE_PAIRS", 500));
    let form = form();
    let lines = decided(&form, requests::random::pairs(seed, pairs as usize));
    if let Some(file) = std::env::var_os("EDGE_LINES") {
        std::fs::write(file, serde_json::to_string(&lines).expect("plain data")).expect("lines are written");
    }
    println!("EDGE_SEED={seed} EDGE_PAIRS={pairs}");
    if varnishd::is_there() {
        differs_nowhere(&lines, form);
    }
}

fn differs_nowhere(lines: &[Line], mut form: Form) {
    let regions = Regions::start(&form);
    form.origins.clone_from(&regions.origins);
    let varnish = Varnish::start(&form);
    let mut wrong = Vec::new();
    for line in lines {
        let case = &line.asked;
        let mut headers = case.headers.clone();
        headers.push(script(&case.script));
        headers.extend(case.country.iter().map(|country| ("repomind-country".to_owned(), country.clone())));
        let found = observed(&ask(varnish.address, &case.method, &case.target, &case.host, &headers));
        let wanted = line.varnish.as_ref().unwrap_or(&line.cloudflare);
        if found != *wanted {
            wrong.push(format!(
                "{}: {} {}\n  by {:?}\n  to {:?}\n  found  {found:?}\n  wanted {wanted:?}",
                line.about, case.method, case.target, case.script.headers, case.headers
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} decisions differ:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

fn observed(answer: &Answer) -> Decision {
    let edge = answer.came() == "edge";
    let text = |name: &str| answer.header(&format!("repomind-test-{name}")).to_owned();
    let unless_edge = |name: &str| if edge { String::new() } else { text(name) };
    let kept = text("kept");
    let if_kept = |name: &str| if kept.is_empty() { String::new() } else { text(name) };
    Decision {
        status: answer.status,
        came: answer.came().to_owned(),
        rule: unless_edge("rule"),
        key: unless_edge("key"),
        ttl: if_kept("ttl"),
        tags: if_kept("tags"),
        region: text("region"),
        kept,
    }
}
