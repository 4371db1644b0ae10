//! What `simulate` says of the world by the policies of the tree, and what the documents claim of it.

use serde_json::Value;

use crate::cluster::{Cluster, text};

/// Regions that lie ready which, with the three of the tree, bring 95 of 100 users within 100 ms: docs/simulate.md.
const ENOUGH: &str = "sa-east,ap-south,af-south,il-central,eu-north,ap-east";

fn simulated(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value) {
    let common = ["simulate", "--clients", "20000", "--no-search", "--json"];
    let output = cluster.run(&common.iter().chain(words).copied().collect::<Vec<_>>());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    (output.status.code(), report)
}

#[test]
fn the_regions_that_lie_ready_bring_the_world_within_100_ms_and_three_alone_do_not() {
    let cluster = Cluster::tree();
    let (code, three) = simulated(&cluster, &["--require-p95", "100"]);
    assert_eq!(code, Some(1), "{}", three["all"]);
    let (code, enough) = simulated(&cluster, &["--require-p95", "100", "--with", ENOUGH]);
    assert_eq!(code, Some(0), "{}", enough["all"]);
    assert!(enough["all"]["below_100"].as_f64() > Some(0.95), "{}", enough["all"]);
    let fewer = ENOUGH.rsplit_once(',').expect("several").0;
    let (_, fewer) = simulated(&cluster, &["--with", fewer]);
    assert!(fewer["all"]["p95"].as_f64() > enough["all"]["p95"].as_f64(), "a region makes no difference");
}

#[test]
fn a_report_says_who_loses_what_and_equal_seeds_give_equal_reports() {
    let cluster = Cluster::tree();
    let (code, report) = simulated(&cluster, &["--seed", "5"]);
    assert_eq!(code, Some(0));
    assert_eq!(simulated(&cluster, &["--seed", "5"]).1, report);
    assert_ne!(simulated(&cluster, &["--seed", "6"]).1["all"], report["all"]);
    let lost = report["if_lost"].as_array().unwrap();
    let without = |id: &str| lost.iter().find(|lost| lost["region"] == id).unwrap();
    // All of the EEA's personal data lies in eu-west alone: without it, the law refuses, and never sends it abroad.
    let refused = |lost: &Value| lost["personal_refused"].to_string().contains("\"DE\"");
    assert!(refused(without("eu-west")) && !refused(without("us-east")), "{report}");
    assert!(without("ap-southeast")["moved"].as_f64() > Some(0.3));
    let pair = |one: &str, other: &str| {
        let pairs = report["pairs"].as_array().unwrap();
        pairs.iter().find(|pair| pair["one"] == one && pair["other"] == other).unwrap()["verdict"].clone()
    };
    assert_eq!(pair("ap-southeast-1", "us-east-1"), "physics-forbids");
    assert_eq!(pair("eu-west-1", "us-east-1"), "meets");
}

#[test]
fn pictures_are_drawn_and_an_unknown_region_is_refused() {
    let cluster = Cluster::tree();
    let out = cluster.state("pictures");
    let (code, _) = simulated(&cluster, &["--out", out.to_str().unwrap()]);
    assert_eq!(code, Some(0));
    for picture in ["map.svg", "cdf.svg"] {
        let drawn = std::fs::read_to_string(out.join(picture)).unwrap();
        assert!(drawn.starts_with("<svg ") && drawn.contains("3 regions"), "{picture}");
    }
    let refused = cluster.run(&["simulate", "--with", "atlantis"]);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
}

#[test]
fn a_mistake_in_a_file_that_lies_ready_is_found_by_check() {
    let cluster = Cluster::tree();
    let good = cluster.run(&["check"]);
    assert!(good.status.success() && text(&good).contains("that lie ready"), "{}", text(&good));
    let file = cluster.file("region-config/available/sa-east.yml");
    let bad = std::fs::read_to_string(&file).unwrap().replace("capacity:", "capacty:");
    std::fs::write(&file, bad).unwrap();
    let refused = cluster.run(&["check"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("region-config/available/sa-east.yml:"), "{}", text(&refused));
}
