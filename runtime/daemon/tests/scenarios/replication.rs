//! Regions that were away for longer than the log is kept, and regions that lost their disks.

use serde_json::Value;

use crate::cluster::{Cluster, text, until};
use crate::{REGIONS, SOON};

/// The log is kept for this long at most.
const KEPT: [(&str, &str); 1] = [("REPOMIND_KEEP_LOG_SECONDS", "2")];

fn put(cluster: &Cluster, region: &str, key: &str, value: &str) {
    let written = cluster.ask(region, "PUT", &format!("/v1/data/notes/{key}"), &[], value).unwrap();
    assert_eq!(written.status / 100, 2, "{}", written.body);
}

fn read(cluster: &Cluster, region: &str, key: &str) -> Option<String> {
    let read = cluster.ask(region, "GET", &format!("/v1/data/notes/{key}"), &[], "").ok()?;
    (read.status == 200).then_some(read.body)
}

/// The sum of a counter over its labels.
fn counted(cluster: &Cluster, region: &str, name: &str) -> Option<f64> {
    let metrics = cluster.admin(region, "GET", "/metrics", "").ok()?;
    let lines = metrics.body.lines().filter(|line| line.starts_with(name));
    Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn equal_digests(cluster: &Cluster) {
    until("equal digests", SOON, || {
        let digests = REGIONS.map(|region| {
            let answer = cluster.admin(region, "GET", "/digests", "").ok()?;
            serde_json::from_str::<Value>(&answer.body).ok()
        });
        let first = digests[0].as_ref()?;
        let some = first.as_object()?.values().any(|scope| scope["rows"].as_u64() > Some(0));
        (some && digests.iter().all(|digest| digest.as_ref() == Some(first))).then_some(())
    });
}

fn deploy(cluster: &Cluster) {
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}\n{}", text(&again), cluster.logs());
}

#[test]
fn a_region_that_was_away_for_longer_than_the_log_is_kept_comes_back_to_equal_digests() {
    let cluster = Cluster::deployed_with(&KEPT);
    for number in 0..40 {
        put(&cluster, "us-east", &format!("key-{number}"), "before");
    }
    until("the last key in ap-southeast", SOON, || read(&cluster, "ap-southeast", "key-39"));
    cluster.kill("ap-southeast");
    for number in 0..20 {
        let deleted = cluster.ask("us-east", "DELETE", &format!("/v1/data/notes/key-{number}"), &[], "").unwrap();
        assert_eq!(deleted.status / 100, 2, "{}", deleted.body);
        put(&cluster, "eu-west", &format!("new-{number}"), "meanwhile");
    }
    // Everything that ap-southeast lacks has gone from the logs of both.
    for region in ["us-east", "eu-west"] {
        until(&format!("the log of {region} cut"), SOON, || {
            (counted(&cluster, region, "repomind_log_entries_trimmed_total")? >= 60.0).then_some(())
        });
    }
    deploy(&cluster);
    equal_digests(&cluster);
    for region in ["us-east", "eu-west"] {
        assert!(counted(&cluster, region, "repomind_rows_given_total").unwrap() >= 1.0, "{region} gave no rows");
    }
    for region in REGIONS {
        assert_eq!(read(&cluster, region, "key-7"), None, "a deleted record came back in {region}");
        assert_eq!(read(&cluster, region, "key-30").as_deref(), Some("before"), "{region}");
        assert_eq!(read(&cluster, region, "new-19").as_deref(), Some("meanwhile"), "{region}");
    }
    put(&cluster, "ap-southeast", "after", "it goes on");
    until("a new write of ap-southeast in us-east", SOON, || read(&cluster, "us-east", "after"));
}

#[test]
fn a_region_that_lost_its_disk_gets_everything_back_while_it_serves() {
    let cluster = Cluster::deployed_with(&KEPT);
    for number in 0..30 {
        put(&cluster, "eu-west", &format!("key-{number}"), "kept");
    }
    let labels = [("repomind-class", "personal"), ("repomind-jurisdiction", "DE"), ("repomind-basis", "contract")];
    let refused = cluster.ask("us-east", "PUT", "/v1/data/profiles/p", &labels, "dark").unwrap();
    assert_eq!(refused.status, 451, "{}", refused.body);
    for region in REGIONS {
        until(&format!("the last key in {region}"), SOON, || read(&cluster, region, "key-29"));
        until(&format!("the log of {region} cut"), SOON, || {
            (counted(&cluster, region, "repomind_log_entries_trimmed_total")? >= 30.0).then_some(())
        });
    }
    cluster.kill("eu-west");
    std::fs::remove_dir_all(cluster.state("eu-west").join("data")).unwrap();
    deploy(&cluster);
    put(&cluster, "eu-west", "new-life", "written at once");
    equal_digests(&cluster);
    for region in REGIONS {
        assert_eq!(read(&cluster, region, "key-13").as_deref(), Some("kept"), "{region}");
        assert_eq!(read(&cluster, region, "new-life").as_deref(), Some("written at once"), "{region}");
    }
}
