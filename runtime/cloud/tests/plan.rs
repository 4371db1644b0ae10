//! What a plan comes to, case by case, without a socket.

use cloud::cloudflare::desired::{Desired, Kind, desired};
use cloud::cloudflare::observed::{Deployment, Foreign, Live, LiveWorker, Observed, Version};
use cloud::cloudflare::plan::{Drifted, WORKER, adopted, worker_kept};
use cloud::cloudflare::{Plan, Step, limits, plan};
use cloud::journal::{State, Unfinished};
use edge::Form;
use serde_json::json;

const CODE: &str = "export class Bucket {} export class Shared {}";

fn form() -> Form {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/tests/corpus/cloudflare-workers/policy.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the form of the corpus")).expect("a form")
}

fn settings() -> config::cloudflare::Cloudflare {
    let text = "cloudflare:\n  account: \"0123456789abcdef0123456789abcdef\"\n  zone: \"fedcba9876543210fedcba9876543210\"\n  \
                routes: [www.example.org/*]\n  origins: {us-east: https://us.example.org}\n  \
                secrets: {OPERATOR_TOKEN: {env: X}}\n";
    config::cloudflare::load_from(text).expect("settings")
}

fn wanted() -> Desired {
    desired(&form(), &settings(), CODE)
}

/// Everything is as `wanted` has it, but the worker, whose versions are tagged so; the shares are in their order.
fn observed(wanted: &Desired, versions: &[&str], shares: &[f64]) -> Observed {
    let live = wanted.resources.iter().enumerate().map(|(at, resource)| Live {
        kind: resource.kind,
        key: resource.key.clone(),
        id: format!("id-{at}"),
        body: resource.body.clone(),
    });
    let versions = versions.iter().map(|tag| Version { id: format!("v-{tag}"), tag: Some((*tag).to_owned()) });
    let versions: Vec<Version> = versions.collect();
    let shares = versions.iter().map(|version| version.id.clone()).zip(shares.iter().copied()).collect();
    let deployment = Deployment { id: "d".to_owned(), shares, author: "us".to_owned() };
    let worker = LiveWorker { migration: Some("v1".to_owned()), versions, deployment: Some(deployment) };
    Observed {
        zone_name: "example.org".to_owned(),
        zone_plan: "free".to_owned(),
        zone_active: true,
        live: live.collect(),
        ruleset: Some("rs".to_owned()),
        foreign: Foreign::default(),
        worker: Some(worker),
        ..Observed::default()
    }
}

fn names(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(Step::name).collect()
}

const CANARY: [&str; 3] = ["deploy the version to 10 %", "probe the version", "deploy the version to 100 %"];

#[test]
fn nobody_gets_a_version_that_was_not_asked_while_another_one_serves() {
    let wanted = wanted();
    let tag = wanted.upload.tag.clone();
    let left = State::default();
    let steps = |versions: &[&str], shares: &[f64]| names(&plan(&wanted, &observed(&wanted, versions, shares), &left));
    assert_eq!(steps(&["old"], &[100.0]), [&["upload a version"], &CANARY[..]].concat());
    // Uploaded by a run that ended, or by one that went back: not uploaded again, and asked again.
    assert_eq!(steps(&["old", &tag], &[100.0]), CANARY);
    assert_eq!(steps(&["old", &tag], &[90.0, 10.0]), CANARY[1..]);
    assert_eq!(steps(&["old", &tag], &[50.0, 50.0]), CANARY);
    assert_eq!(steps(&["old", &tag], &[0.0, 100.0]), Vec::<String>::new());
}

#[test]
fn where_nobody_is_led_to_the_worker_it_serves_at_once_and_is_asked_once_the_routes_are_there() {
    let wanted = wanted();
    let mut there = observed(&wanted, &["old"], &[100.0]);
    there.live.retain(|live| live.kind != Kind::Route);
    let steps = names(&plan(&wanted, &there, &State::default()));
    let expected =
        ["upload a version", "deploy the version to 100 %", "create route/www.example.org/*", "probe the version"];
    assert_eq!(steps, expected);
    // A run that ended between the last two of these still owes the last one.
    let serving = observed(&wanted, &[&wanted.upload.tag], &[100.0]);
    let planned = expected.map(str::to_owned).to_vec();
    let unfinished = Unfinished { done: planned[..3].to_vec(), planned, ..Unfinished::default() };
    let left = State { unfinished: Some(unfinished), ..State::default() };
    assert_eq!(names(&plan(&wanted, &serving, &left)), ["probe the version"]);
}

#[test]
fn another_policy_code_or_secret_is_another_version() {
    let tag =
        |form: &Form, settings: &config::cloudflare::Cloudflare, code: &str| desired(form, settings, code).upload.tag;
    let (same, again) = (tag(&form(), &settings(), CODE), tag(&form(), &settings(), CODE));
    assert_eq!(same, again);
    assert!(same.len() <= 25, "Cloudflare takes 25 bytes");
    let mut other = form();
    other.revision = "another".to_owned();
    assert_ne!(tag(&other, &settings(), CODE), same);
    assert_ne!(tag(&form(), &settings(), "other code"), same);
    let mut renewed = settings();
    renewed.secrets.get_mut("OPERATOR_TOKEN").expect("a secret").revision = 2;
    assert_ne!(tag(&form(), &renewed, CODE), same);
}

#[test]
fn what_a_rule_no_longer_allows_is_purged_until_that_is_written_down() {
    let wanted = wanted();
    let serving = observed(&wanted, &[&wanted.upload.tag], &[100.0]);
    let (name, _) = wanted.rules.iter().find(|(_, rule)| !rule.bypass && rule.times[0] > 0).expect("a rule that keeps");
    let mut before = wanted.clone();
    before.rules.get_mut(name).expect("it is there").times[0] += 60;
    let version = format!("v-{}", wanted.upload.tag);
    let mut left = State::default();
    let keep = |left: &mut State, kept: cloud::journal::Kept| drop(left.kept.insert(kept.address.clone(), kept));
    keep(&mut left, worker_kept(&before, &version, None));
    let purge = vec![format!("purge rule:{name}")];
    assert_eq!(names(&plan(&wanted, &serving, &left)), purge);
    // The new version serves and is written down; the purge is not done yet, and is not forgotten.
    for kept in adopted(&wanted, &serving, &left) {
        keep(&mut left, kept);
    }
    assert_eq!(left.kept[WORKER].body["tag"], json!(wanted.upload.tag));
    assert_eq!(names(&plan(&wanted, &serving, &left)), purge);
    keep(&mut left, worker_kept(&wanted, &version, None));
    let settled = plan(&wanted, &serving, &left);
    assert!(settled.steps.is_empty() && settled.drift.is_empty(), "{settled:?}");
    // Longer times take nothing back.
    before.rules.get_mut(name).expect("it is there").times[0] = 0;
    keep(&mut left, worker_kept(&before, &version, None));
    assert!(plan(&wanted, &serving, &left).steps.is_empty());
}

#[test]
fn what_others_changed_is_told_from_what_we_left() {
    let wanted = wanted();
    let mut there = observed(&wanted, &[&wanted.upload.tag], &[100.0]);
    let mut left = State::default();
    for kept in adopted(&wanted, &there, &left) {
        left.kept.insert(kept.address.clone(), kept);
    }
    assert!(plan(&wanted, &there, &left).drift.is_empty());
    there.live.iter_mut().find(|live| live.kind == Kind::CacheRule).expect("a rule").body["enabled"] = json!(false);
    there.live.retain(|live| live.kind != Kind::Route);
    let drift = plan(&wanted, &there, &left).drift;
    assert_eq!(drift.len(), 2, "{drift:?}");
    assert!(drift.iter().any(|one| one.address == "route/www.example.org/*" && one.how == Drifted::Gone));
    let Drifted::Changed(fields) = &drift[0].how else { panic!("{drift:?}") };
    assert_eq!((fields[0].field.as_str(), &fields[0].from, &fields[0].to), ("enabled", &json!(true), &json!(false)));
}

#[test]
fn a_worker_is_measured_as_it_is_sent_compressed() {
    let sized = |code: &str| limits::of_wish(&form(), &desired(&form(), &settings(), code));
    let large = |found: &[limits::Refusal]| found.iter().any(|one| one.message.contains("bytes"));
    let same = "x".repeat(11 << 20);
    assert!(!large(&sized(&same)), "11 MiB that compress to little are taken");
    // As good as random, in an alphabet of 64 letters: compressed it has three quarters of its size.
    let mut state = 1_u64;
    let letter = |bits: u64| char::from(b'0' + u8::try_from(bits & 63).expect("six bits"));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        letter(state >> 58)
    };
    let noise: String = (0..(15 << 20)).map(|_| next()).collect();
    assert!(large(&sized(&noise)), "15 MiB of noise are refused");
    assert!(large(&sized(&"x".repeat(65 << 20))), "no worker has 65 MiB");
}
