//! What a save may change by itself, and what waits for an operator's word.

use std::time::Duration;

use serde_json::Value;

use crate::REGIONS;
use crate::cluster::{Cluster, everywhere, generation, text, until};

const SOON: Duration = Duration::from_secs(30);
/// A client in Germany, as a trusted proxy would name it.
const GERMAN: [(&str, &str); 1] = [("x-forwarded-for", "217.0.0.1")];
/// Personal data under British law.
const PERSONAL: [(&str, &str); 3] =
    [("repomind-class", "personal"), ("repomind-jurisdiction", "GB"), ("repomind-basis", "contract")];

/// The region that answers a German client at a gateway.
fn serving(cluster: &Cluster, gateway: &str) -> Option<String> {
    let answer = cluster.ask(gateway, "GET", "/hello", &GERMAN, "").ok()?;
    let body: Value = serde_json::from_str(&answer.body).ok().filter(|_| answer.status == 200)?;
    Some(body["region"].as_str()?.to_owned())
}

fn waiting(cluster: &Cluster, what: &str) -> Value {
    until(what, SOON, || {
        let waiting = cluster.status("us-east")?["policy_waiting"].clone();
        waiting.is_object().then_some(waiting)
    })
}

/// Changes a file by one replacement, without its own tests, which would refuse what is meant here.
fn edit(cluster: &Cluster, file: &str, from: &str, to: &str) {
    let path = cluster.file(file);
    let source = std::fs::read_to_string(&path).unwrap();
    let judged = source.split_once("(test-module").map_or(source.as_str(), |(judged, _)| judged);
    let changed = judged.replace(from, to);
    assert_ne!(changed, judged, "{file} no longer has {from}");
    std::fs::write(path, changed).unwrap();
}

#[test]
fn a_save_that_moves_most_of_the_traffic_waits_for_a_word_also_after_a_restart() {
    let cluster = Cluster::deployed();
    // Seen by another region than the one that holds the gate: it tells of its traffic.
    for _ in 0..40 {
        assert_eq!(serving(&cluster, "eu-west").as_deref(), Some("eu-west"));
    }
    let (file, first) = ("region-config/region-mapping.scm", "(list (if (complete? region) 0 1)");
    edit(&cluster, "traffic-routing/latency-routing.scm", "(define near-equal 1.10)", "(define near-equal 1000)");
    edit(&cluster, file, first, "(list (if (region-primary? region) 0 1)");
    until("the traffic of eu-west known to the primary", SOON, || {
        let diff: Value = serde_json::from_slice(&cluster.run(&["policy", "diff", "1", "--json"]).stdout).ok()?;
        (diff["radius"]["traffic"]["weighed"]["requests"].as_u64()? >= 30).then_some(())
    });
    // Saved once more, so that it is weighed by that traffic.
    let source = std::fs::read_to_string(cluster.file(file)).unwrap();
    std::fs::write(cluster.file(file), format!("{source};; The last word.\n")).unwrap();
    let seen = until("the change weighed by traffic", SOON, || {
        let waiting = cluster.status("us-east")?["policy_waiting"].clone();
        waiting["radius"]["traffic"]["weighed"]["requests"].is_u64().then_some(waiting)
    });
    assert!(seen["radius"]["traffic"]["percent"].as_f64().unwrap() > 90.0, "{seen}");
    let german = &seen["radius"]["traffic"]["moves"][0];
    assert_eq!((&german["from"], &german["to"]), (&"eu-west".into(), &"us-east".into()), "{seen}");
    assert_eq!(german["clients"][0]["country"], "DE", "{seen}");
    assert!(REGIONS.iter().all(|region| generation(&cluster, region) == Some(1)), "it did not wait");
    assert_eq!(serving(&cluster, "eu-west").as_deref(), Some("eu-west"), "a client moved before anybody said so");
    let shown = text(&cluster.run(&["status"]));
    assert!(shown.contains("policy confirm") && shown.contains("eu-west → us-east"), "{shown}");
    let metrics = cluster.admin("us-east", "GET", "/metrics", "").unwrap().body;
    assert!(metrics.contains("repomind_policy_waiting 1"), "{metrics}");
    let diff = text(&cluster.run(&["policy", "diff", "1"]));
    assert!(diff.contains("eu-west → us-east"), "{diff}");

    // A restart forgets nothing that matters: the files are examined again, and wait again.
    cluster.kill("us-east");
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    let hash = waiting(&cluster, "the same files waiting after a restart")["hash"].as_str().unwrap().to_owned();
    assert_eq!(Value::from(hash.clone()), seen["hash"]);
    assert_eq!(generation(&cluster, "us-east"), Some(1));

    let other = cluster.run(&["policy", "confirm", "000000000000"]);
    assert_eq!(other.status.code(), Some(1), "a word for other files was taken:\n{}", text(&other));
    let confirmed = cluster.run(&["policy", "confirm", &hash]);
    assert!(confirmed.status.success(), "{}", text(&confirmed));
    everywhere(&cluster, 2);
    until("German clients served in us-east", SOON, || (serving(&cluster, "eu-west")? == "us-east").then_some(()));
    assert!(cluster.status("us-east").unwrap()["policy_waiting"].is_null());
    let history = text(&cluster.run(&["policy", "history"]));
    assert!(history.contains("confirmed by"), "{history}");
}

#[test]
fn a_save_that_lets_personal_data_out_waits_and_one_that_keeps_it_in_does_not() {
    let cluster = Cluster::deployed();
    let file = "compliance/data-residency.scm";
    let strict = std::fs::read_to_string(cluster.file(file)).unwrap();
    let denied = |what: &str| {
        let refused = cluster.ask("ap-southeast", "PUT", "/v1/data/profiles/p1", &PERSONAL, "x").unwrap();
        assert_eq!(refused.status, 451, "{what}: {}", refused.body);
    };
    edit(&cluster, file, "'(eea GB CH CA JP KR BR)", "'(eea GB CH CA JP KR BR SG)");
    let waits = waiting(&cluster, "the looser rule waiting");
    assert!(waits["beyond"][0].as_str().unwrap().contains("more permissive"), "{waits}");
    let flip = &waits["radius"]["residency"]["shown"][0];
    assert_eq!((&flip["turn"], &flip["region"]), (&"more-permissive".into(), &"ap-southeast".into()), "{waits}");
    denied("while the looser rule waits");

    // A newer save takes its place: nobody can confirm what is no longer on disk.
    let old = waits["hash"].as_str().unwrap().to_owned();
    std::fs::write(cluster.file(file), strict.replace("(define us-framework? #t)", "(define us-framework? #f)"))
        .unwrap();
    let refused = until("the stricter rule refused by its own tests, or in force", SOON, || {
        let status = cluster.status("us-east")?;
        let settled = status["generation"] == 2 || !status["policy_errors"].as_array()?.is_empty();
        settled.then_some(status)
    });
    assert!(refused["policy_waiting"].is_null(), "{refused}");
    assert_eq!(refused["generation"], 1, "the file's own tests know that the US counts as adequate");
    std::fs::write(cluster.file(file), &strict).unwrap();
    edit(&cluster, file, "(define us-framework? #t)", "(define us-framework? #f)");
    everywhere(&cluster, 2);
    let late = cluster.run(&["policy", "confirm", &old]);
    assert_eq!(late.status.code(), Some(1), "{}", text(&late));
    denied("after a word for what was replaced");

    // Back again is more permissive, and waits, unless the one who brings it back says so at once.
    let back = cluster.run(&["policy", "rollback", "1", "--reason", "the framework stands"]);
    assert_eq!(back.status.code(), Some(1), "{}", text(&back));
    assert!(text(&back).contains("more permissive"), "{}", text(&back));
    let back = cluster.run(&["policy", "rollback", "1", "--reason", "the framework stands", "--confirm"]);
    assert!(back.status.success(), "{}", text(&back));
    everywhere(&cluster, 3);
}

#[test]
fn the_tests_of_the_policy_files_are_run_and_one_that_fails_says_what_came() {
    let tree = Cluster::tree();
    let good = tree.run(&["test", "--json"]);
    assert!(good.status.success(), "{}", text(&good));
    let report: Value = serde_json::from_slice(&good.stdout).expect("JSON");
    let files: std::collections::BTreeSet<_> =
        report["tests"].as_array().unwrap().iter().map(|test| test["file"].to_string()).collect();
    assert_eq!(files.len(), 10, "{files:?}");

    edit(&tree, "data-replication/replication-lag.scm", "(define target 5000)", "(define target 6000)");
    let file = tree.file("data-replication/replication-lag.scm");
    let source = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{source}(test-module \"lag\" (check-equal? \"in time\" target 5000))\n")).unwrap();
    let junit = tree.file("junit.xml");
    let bad = tree.run(&["test", "in time", "--junit", junit.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad));
    let said = text(&bad);
    assert!(said.contains("FAILED") && said.contains("expected 5000") && said.contains("found    6000"), "{said}");
    assert!(said.contains("no test reaches") && said.contains("throttle-from"), "{said}");
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(
        xml.contains("failures=\"1\"") && xml.contains("<failure message=\"expected 5000, found 6000\"/>"),
        "{xml}"
    );
}

#[test]
fn a_save_that_breaks_an_invariant_is_refused_with_the_facts_that_show_it() {
    let cluster = Cluster::deployed();
    let proved = cluster.run(&["prove", "--json"]);
    assert!(proved.status.success(), "{}", text(&proved));
    let report: Value = serde_json::from_slice(&proved.stdout).expect("JSON");
    let cases = |proof: &Value| proof["cases"].as_u64().unwrap();
    assert!(report["proofs"].as_array().is_some_and(|all| all.len() >= 7 && all.iter().all(|one| cases(one) > 0)));

    // A region that nobody is ever sent to: with the others down, nobody is served.
    edit(
        &cluster,
        "region-config/region-mapping.scm",
        "(region-ids (sort-on (how-far-from-ideal client) regions))",
        "(filter (lambda (id) (not (equal? id 'ap-southeast))) (region-ids (sort-on (how-far-from-ideal client) regions)))",
    );
    let errors = until("the broken invariant in the status", SOON, || {
        let errors = cluster.status("us-east")?["policy_errors"].as_array()?.clone();
        (!errors.is_empty()).then_some(errors)
    });
    let said = errors[0].as_str().unwrap();
    assert!(said.starts_with("traffic-routing/latency-routing.scm:"), "{said}");
    assert!(
        said.contains("an invariant does not hold") && said.contains("(define outage (list (sample-region"),
        "{said}"
    );
    assert!(REGIONS.iter().all(|region| generation(&cluster, region) == Some(1)));
    let shown = cluster.run(&["prove", "client is served"]);
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown));
    // What is shown can be pasted: it says of the same facts that nobody is served.
    let said = text(&shown);
    let outage =
        said.lines().find_map(|line| line.trim().trim_start_matches("= help:").trim().strip_prefix("(define outage "));
    let outage = outage.unwrap_or_else(|| panic!("no outage in {said}")).trim_end_matches(')').to_owned() + "))";
    assert_eq!(outage.matches("#:state 'down").count(), 2, "{outage}");
    let form = format!("(map region-state {outage})");
    let pasted = text(&cluster.run(&["repl", "--eval", &form]));
    assert!(pasted.contains("down") && pasted.contains("ready"), "{pasted}");
}
