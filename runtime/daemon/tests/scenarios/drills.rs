//! Drills: what `make test-failover` does, on regions that run, and that nothing stays broken after one.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::{Cluster, text, until};
use crate::{REGIONS, SOON};

/// Generous, for a machine that others load: what is judged here is what happens, not how fast.
const WITHIN: &str = "20";

fn no_link_is_cut_or_slow(cluster: &Cluster) {
    for region in REGIONS {
        until(&format!("the links of {region}"), SOON, || {
            let links: Value = serde_json::from_str(&cluster.admin(region, "GET", "/wan", "").ok()?.body).ok()?;
            let whole = |link: &Value| link["cut"] == "none" && link["delay_ms"].as_f64().is_some_and(|ms| ms < 200.0);
            links.as_object()?.values().all(whole).then_some(())
        });
    }
}

#[test]
fn a_primary_that_hears_nobody_and_one_that_stands_still_are_replaced_and_come_back() {
    let cluster = Cluster::deployed();
    let out = cluster.state("drills");
    let folder = out.to_str().unwrap();
    let words = [
        "drill",
        "failover",
        "--fault",
        "asymmetric,pause",
        "--within",
        WITHIN,
        "--before",
        "2",
        "--json",
        "--out",
        folder,
    ];
    let drilled = cluster.run(&words);
    let said = String::from_utf8_lossy(&drilled.stdout);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{}", text(&drilled)));
    assert!(drilled.status.success(), "{}", text(&drilled));
    let measured = report["measured"].as_array().unwrap();
    assert_eq!(measured.len(), 2);
    for one in measured {
        assert_eq!(one["region"], "us-east", "the primary of the tree");
        for time in ["detected_ms", "promoted_ms", "rerouted_ms", "dns_ms", "recovered_ms"] {
            assert!(one[time].is_u64(), "{time} of {}", one["fault"]);
        }
        assert!(one["writes_acknowledged"].as_u64() > Some(0));
        assert_eq!(one["second_primaries"], serde_json::json!([]));
        let downs = one["timeline"].as_array().unwrap().iter().filter(|moment| moment["is"] == "down");
        assert!(downs.count() >= 2, "both other regions called it down");
    }
    for picture in ["01-deaf.svg", "02-pause.svg"] {
        let drawn = std::fs::read_to_string(out.join(picture)).unwrap();
        assert!(drawn.starts_with("<svg") && REGIONS.iter().all(|region| drawn.contains(region)), "{picture}");
    }
    no_link_is_cut_or_slow(&cluster);
    let status = cluster.run(&["status"]);
    assert!(status.status.success(), "{}", text(&status));
}

#[test]
fn a_slow_and_a_flapping_region_lose_no_request_and_leave_service_once_at_most() {
    let cluster = Cluster::deployed();
    let words = ["drill", "failover", "--fault", "slow,flapping", "--region", "ap-southeast", "--within", WITHIN];
    let drilled = cluster.run(&words);
    assert!(drilled.status.success(), "{}", text(&drilled));
    no_link_is_cut_or_slow(&cluster);
}

#[test]
fn a_drill_is_refused_while_a_region_is_out_and_one_that_is_broken_off_leaves_nothing_broken() {
    let cluster = Cluster::deployed();
    let plan = cluster.run(&["drill", "partition", "--way", "out", "--dry-run"]);
    assert!(plan.status.success() && text(&plan).contains("it may be done now; nothing was"), "{}", text(&plan));

    let order = ["drain", "eu-west", "--yes", "--reason", "work on the line", "--force"];
    let drained = cluster.run(&order);
    assert!(drained.status.success(), "{}", text(&drained));
    let refused = cluster.run(&["drill", "partition", "--before", "1", "--outage", "1"]);
    assert!(!refused.status.success() && text(&refused).contains("eu-west"), "{}", text(&refused));
    assert!(text(&refused).contains("not safe"), "{}", text(&refused));
    let restored = cluster.run(&["restore", "eu-west", "--yes"]);
    assert!(restored.status.success(), "{}", text(&restored));

    // In the midst of a fault, as with the keys Ctrl and C.
    let words = ["drill", "latency", "--add", "400", "--region", "ap-southeast", "--outage", "600"];
    let mut drill = Command::new(env!("CARGO_BIN_EXE_repomind-run"))
        .args(words)
        .env("REPOMIND_TREE", cluster.file(""))
        .env("REPOMIND_STATE", cluster.state(""))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until("the drill makes the region slow", Duration::from_secs(60), || {
        let links: Value = serde_json::from_str(&cluster.admin("ap-southeast", "GET", "/wan", "").ok()?.body).ok()?;
        links["us-east"]["delay_ms"].as_f64().filter(|ms| *ms >= 400.0)
    });
    kill_process(Pid::from_child(&drill), Signal::INT).unwrap();
    assert!(!drill.wait().unwrap().success());
    no_link_is_cut_or_slow(&cluster);
}
