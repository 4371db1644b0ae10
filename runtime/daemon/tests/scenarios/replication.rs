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

#[test]
fn a_row_that_was_damaged_on_disk_is_never_served_is_reported_and_comes_back_from_the_others() {
    let cluster = Cluster::deployed();
    for key in ["whole", "hurt"] {
        put(&cluster, "us-east", key, "good");
    }
    for region in REGIONS {
        until(&format!("the notes in {region}"), SOON, || read(&cluster, region, "hurt"));
    }
    cluster.kill("eu-west");
    {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = model::UnixMillis(u64::try_from(now.as_millis()).unwrap());
        let store =
            store::Store::open(&cluster.state("eu-west/data"), now).expect("the store of a region that is down");
        let address = model::record::Address { namespace: "notes".parse().unwrap(), key: "hurt".parse().unwrap() };
        let mut envelope = store.raw_row(&address).unwrap().expect("the row");
        envelope[9] ^= 4;
        let row = store::StoredRow { key: store::row_key(&address), envelope, dead: false };
        store.commit(store::Commit { rows: vec![row], ..store::Commit::default() }).unwrap();
    }
    deploy(&cluster);
    let mut refused = 0;
    until("the record again", SOON * 3, || {
        let answer = cluster.ask("eu-west", "GET", "/v1/data/notes/hurt", &[], "").ok()?;
        match (answer.status, answer.body.as_str()) {
            (200, "good") => return Some(()),
            (503, body) if body.contains("problem:damaged") && answer.headers.contains_key("retry-after") => {
                refused += 1
            }
            (503, _) => {}
            (status, body) => panic!("a damaged record is answered with {status} {body}"),
        }
        None
    });
    println!("refused {refused} times before it was mended");
    let status = cluster.status("eu-west").unwrap();
    assert_eq!((&status["damage"]["waiting"], &status["damage"]["aside"]), (&0.into(), &1.into()), "{status}");
    let told = text(&cluster.run(&["status"]));
    assert!(told.contains("eu-west: 1 row was damaged on disk"), "{told}");
    assert_eq!(read(&cluster, "eu-west", "whole").as_deref(), Some("good"));
    equal_digests(&cluster);
    assert!(counted(&cluster, "eu-west", "repomind_rows_damaged_total").unwrap() >= 1.0);
    assert!(counted(&cluster, "eu-west", "repomind_rows_mended_total").unwrap() >= 1.0);
}

#[test]
fn a_row_that_is_missing_in_one_region_while_the_vectors_are_equal_is_found_and_given_again() {
    let cluster = Cluster::deployed_with(&[("REPOMIND_COMPARE_SECONDS", "1")]);
    for key in ["whole", "gone"] {
        put(&cluster, "us-east", key, "good");
    }
    for region in REGIONS {
        until(&format!("the notes in {region}"), SOON, || read(&cluster, region, "gone"));
    }
    let equal = |region: &str, peer: &str| {
        let agreement = cluster.status(region)?["agreement"][peer].clone();
        let equal = agreement["equal_at"].as_object()?.len();
        (equal > 0 && agreement["differ"].as_array()?.is_empty()).then_some(())
    };
    until("the regions found equal", SOON * 3, || equal("us-east", "eu-west"));
    cluster.kill("eu-west");
    {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = model::UnixMillis(u64::try_from(now.as_millis()).unwrap());
        let store =
            store::Store::open(&cluster.state("eu-west/data"), now).expect("the store of a region that is down");
        let address = model::record::Address { namespace: "notes".parse().unwrap(), key: "gone".parse().unwrap() };
        let removed = vec![store::row_key(&address)];
        store.commit(store::Commit { removed, ..store::Commit::default() }).unwrap();
    }
    deploy(&cluster);
    until("the missing record again", SOON * 6, || read(&cluster, "eu-west", "gone").filter(|value| value == "good"));
    equal_digests(&cluster);
    assert_eq!(read(&cluster, "us-east", "gone").as_deref(), Some("good"), "the others lost it, too");
    until("the regions found equal again", SOON * 3, || equal("eu-west", "us-east"));
    assert!(counted(&cluster, "eu-west", "repomind_rows_mended_total").unwrap() >= 1.0);
}
