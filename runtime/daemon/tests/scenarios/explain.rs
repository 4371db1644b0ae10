//! Why a decision came out as it did, asked of a running region.

use serde_json::Value;
use std::time::Duration;

use crate::cluster::{Cluster, text, until};

fn explained(cluster: &Cluster, words: &[&str]) -> Value {
    let words: Vec<&str> = ["explain"].iter().chain(words).chain(&["--json"]).copied().collect();
    let output = cluster.run(&words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn candidate<'a>(explanation: &'a Value, region: &str) -> &'a Value {
    let all = explanation["candidates"].as_array().expect("candidates");
    all.iter().find(|one| one["region"] == region).unwrap_or_else(|| panic!("no {region} in {explanation}"))
}

/// The line of a policy file that an explanation points at.
fn line(cluster: &Cluster, place: &Value) -> String {
    let source = std::fs::read_to_string(cluster.file(place["file"].as_str().unwrap())).unwrap();
    let number = place["line"].as_u64().unwrap() as usize;
    source.lines().nth(number - 1).unwrap_or_else(|| panic!("no such line: {place}")).to_owned()
}

#[test]
fn an_explanation_names_the_file_the_line_and_why_the_others_were_not_chosen() {
    let cluster = Cluster::deployed();
    let ask = ["route", "--client", "217.0.0.1", "--name", "api.repomind.io"];
    let route = explained(&cluster, &ask);
    assert_eq!((&route["generation"], &route["outcome"]), (&1.into(), &"served in eu-west".into()), "{route}");
    assert_eq!(route["about"], "a client in 217.0.0.0/24, asking for api.repomind.io");
    assert!(!route.to_string().contains("217.0.0.1"), "the whole address is shown: {route}");
    assert_eq!(route["policy_hash"], cluster.status("us-east").unwrap()["policy_hash"]);
    let steps: Vec<&Value> =
        route["steps"].as_array().unwrap().iter().filter(|step| step["file"].as_str() != Some("")).collect();
    for (step, function) in steps.iter().zip(["region-candidates", "rank-regions", "dns-answer"]) {
        assert!(step["asked"].as_str().unwrap().starts_with(function), "{route}");
        assert!(line(&cluster, step).starts_with(&format!("(define ({function} ")), "{step}");
    }
    assert_eq!(steps.len(), 3, "{route}");
    assert!(candidate(&route, "eu-west")["taken"] == true && candidate(&route, "us-east")["taken"] == false);

    // With that region down, the same question has another answer, and says what hides the first.
    cluster.kill("eu-west");
    let why = until("eu-west passed over because it is down", Duration::from_secs(20), || {
        let route = explained(&cluster, &ask);
        let why = candidate(&route, "eu-west")["why"].as_str()?.to_owned();
        (route["outcome"] != "served in eu-west" && why.ends_with("because it is down")).then_some(why)
    });
    assert!(why.starts_with("number 1,"), "{why}");

    let record = explained(&cluster, &["residency", "--class", "health", "--jurisdiction", "DE", "--in", "us-east"]);
    let barred = candidate(&record, "us-east");
    assert_eq!((&barred["taken"], &barred["rule"]), (&false.into(), &"eea-personal-stays-in-eea".into()), "{record}");
    assert!(line(&cluster, barred).contains("'eea-personal-stays-in-eea"), "{barred}");
    assert!(candidate(&record, "eu-west")["taken"] == true, "{record}");
    assert!(record["outcome"].as_str().unwrap().starts_with("us-east refuses it (451)"), "{record}");
    let labels = [("repomind-class", "health"), ("repomind-jurisdiction", "DE")];
    let written = cluster.ask("us-east", "PUT", "/v1/data/profiles/p1", &labels, "x").unwrap();
    assert_eq!(written.status, 451, "the region does otherwise than it explains: {}", written.body);

    let unknown = cluster.run(&["explain", "route", "--client", "217.0.0.1", "--name", "nobody.repomind.io"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", text(&unknown));
    assert!(text(&unknown).contains("api.repomind.io"), "{}", text(&unknown));
    let facts = text(&cluster.run(&["repl", "--eval", "(list (assoc 'hash (facts)) (decisions 2))"]));
    assert!(facts.contains("hash . \""), "{facts}");
}
