//! What an auditor must see of whole daemons, and what must not escape it.

use std::path::Path;

use model::record::Address;
use model::{Key, Namespace, UnixMillis};
use serde_json::Value;
use store::{Commit, Store, StoredRow};

use crate::cluster::{Cluster, text, until};
use crate::{REGIONS, SOON};

/// The labels of personal data from Germany.
const GERMAN: [(&str, &str); 3] =
    [("repomind-class", "personal"), ("repomind-jurisdiction", "DE"), ("repomind-basis", "contract")];

/// Waits until every leaf of every region is under a checkpoint that both others have cosigned.
fn cosigned(cluster: &Cluster, regions: &[&str]) {
    for region in regions {
        until(&format!("the ledger of {region} cosigned"), SOON, || {
            let head = cluster.admin(region, "GET", "/ledger", "").ok()?;
            let head: Value = serde_json::from_str(&head.body).ok()?;
            let size: u64 = head["witnessed"].as_str()?.lines().nth(1)?.parse().ok()?;
            (size == head["leaves"].as_u64()?).then_some(())
        });
    }
}

/// The exit code and the report.
fn audit(cluster: &Cluster) -> (Option<i32>, Value) {
    let output = cluster.run(&["audit", "--json"]);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {}", text(&output)));
    (output.status.code(), report)
}

/// `CHECK in REGION` of every finding.
fn found(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings");
    let word = |finding: &Value, member: &str| finding[member].as_str().unwrap_or_default().to_owned();
    findings.iter().map(|finding| format!("{} in {}", word(finding, "check"), word(finding, "region"))).collect()
}

fn put(cluster: &Cluster, region: &str, key: &str, headers: &[(&str, &str)], value: &str) {
    let written = cluster.ask(region, "PUT", &format!("/v1/data/{key}"), headers, value).unwrap();
    assert_eq!(written.status / 100, 2, "{}", written.body);
}

fn deploy(cluster: &Cluster) {
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}\n{}", text(&again), cluster.logs());
}

fn store(cluster: &Cluster, region: &str) -> Store {
    // The incarnation is that of the daemon's next start, which is later.
    Store::open(&cluster.state(region).join("data"), UnixMillis(0)).expect("the daemon is down")
}

#[test]
fn a_clean_deployment_passes_and_one_that_lacks_a_region_is_incomplete() {
    let cluster = Cluster::deployed();
    let (code, report) = audit(&cluster);
    assert_eq!(code, Some(2), "nothing is stored yet, and that passed: {report}");
    put(&cluster, "eu-west", "profiles/p1", &GERMAN, "dark");
    put(&cluster, "us-east", "notes/n1", &[], "for all");
    cosigned(&cluster, &REGIONS);
    let (code, report) = audit(&cluster);
    assert_eq!(code, Some(0), "{report:#}");
    for region in report["regions"].as_array().unwrap() {
        assert_eq!(region["witnesses"].as_array().unwrap().len(), 2, "{region}");
        assert!(cluster.state(&format!("audit/remembered/{}.note", region["region"].as_str().unwrap())).exists());
    }
    let checks = report["checks"].as_array().unwrap();
    // Nobody has demanded anything yet, nothing is about nobody in particular, and no write has lost to another.
    let idle = ["RES-02", "RES-05", "RES-07", "LBL-02", "ERA-01", "ERA-02", "ERA-03", "RET-01", "RET-02", "DSR-02"];
    for check in checks.iter().filter(|check| !idle.contains(&check["check"].as_str().unwrap_or_default())) {
        assert!(check["examined"].as_u64() > Some(0), "a check that looked at nothing passed: {check}");
    }
    let verified = cluster.run(&["ledger", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    for (form, begins) in [("sarif", "{"), ("junit", "<?xml"), ("html", "<!")] {
        let file = cluster.state(&format!("report.{form}"));
        let written = cluster.run(&["audit", "--format", form, "--output", file.to_str().unwrap()]);
        assert_eq!(written.status.code(), Some(0), "{}", text(&written));
        assert!(text(&written).starts_with("PASS"), "{}", text(&written));
        assert!(std::fs::read_to_string(&file).unwrap().trim_start().to_lowercase().starts_with(begins), "{form}");
    }

    cluster.kill("ap-southeast");
    let (code, report) = audit(&cluster);
    assert_eq!(code, Some(2), "{report:#}");
    assert_eq!(found(&report), [""; 0]);
    let verified = cluster.run(&["ledger", "verify", "--region", "ap-southeast"]);
    assert_eq!(verified.status.code(), Some(2), "{}", text(&verified));

    // With the others stopped as well, their data is there and is not judged: nothing made up takes its place.
    cluster.run(&["destroy"]);
    let output = cluster.run(&["audit", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(output.stdout.is_empty() && text(&output).contains("--synthetic"), "{}", text(&output));
}

#[test]
fn an_audit_without_a_deployment_starts_one_with_made_up_data_and_passes() {
    let cluster = Cluster::tree();
    let output = cluster.run(&["audit"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("PASS: Verified against encoded rules, revision 1"), "{said}");
    assert!(said.contains("made-up records stored") && said.contains("The data was made up for this audit"), "{said}");
    assert!(!cluster.state("deploy.json").exists(), "the audit's own deployment was left behind");
}

#[test]
fn a_record_that_was_planted_on_a_disk_is_found() {
    let cluster = Cluster::deployed();
    put(&cluster, "eu-west", "profiles/p1", &GERMAN, "dark");
    put(&cluster, "us-east", "notes/n1", &[], "for all");
    cosigned(&cluster, &REGIONS);
    let address = Address { namespace: Namespace::new("profiles").unwrap(), key: Key::new("p1").unwrap() };
    cluster.kill("eu-west");
    cluster.kill("us-east");
    let row = store(&cluster, "eu-west").row(&address).unwrap().expect("the record is at home");
    let planted = Commit { rows: vec![StoredRow::of(&address, &row)], ..Commit::default() };
    store(&cluster, "us-east").commit(planted).unwrap();
    deploy(&cluster);
    cosigned(&cluster, &REGIONS);
    let (code, report) = audit(&cluster);
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(found(&report), ["RES-01 in us-east", "LBL-03 in us-east", "AUD-03 in us-east"], "{report:#}");
    assert!(!report.to_string().contains("p1"), "a finding names a key: {report:#}");
}

#[test]
fn a_ledger_that_was_put_back_to_an_older_state_is_found() {
    let cluster = Cluster::deployed();
    put(&cluster, "eu-west", "notes/n1", &[], "one");
    cosigned(&cluster, &REGIONS);
    let (disk, copy) = (cluster.state("eu-west").join("data"), cluster.state("copy"));
    cluster.kill("eu-west");
    copy_folder(&disk, &copy);
    deploy(&cluster);
    for number in 0..20 {
        put(&cluster, "eu-west", &format!("notes/more-{number}"), &[], "more");
    }
    cosigned(&cluster, &REGIONS);
    let (code, report) = audit(&cluster);
    assert_eq!(code, Some(0), "{report:#}");

    cluster.kill("eu-west");
    std::fs::remove_dir_all(&disk).unwrap();
    copy_folder(&copy, &disk);
    deploy(&cluster);
    let (code, report) = audit(&cluster);
    assert_eq!(code, Some(1), "{report:#}");
    assert!(found(&report).contains(&"AUD-01 in eu-west".to_owned()), "{report:#}");
    let verified = cluster.run(&["ledger", "verify", "--region", "eu-west"]);
    assert_eq!(verified.status.code(), Some(1), "{}", text(&verified));
    // The other regions say so themselves, without an audit.
    until("the fork counted by a witness", SOON, || {
        let metrics = cluster.admin("us-east", "GET", "/metrics", "").ok()?;
        metrics.body.contains("repomind_ledger_forks_total{ledger=\"eu-west\"}").then_some(())
    });
    let log = std::fs::read_to_string(cluster.state("us-east").join("daemon.log")).unwrap();
    assert!(log.contains("a ledger shows another history than was cosigned here"), "{log}");
}

#[test]
fn a_value_about_a_person_lies_on_no_disk_and_rotated_keys_open_it() {
    let cluster = Cluster::deployed();
    for number in 0..5 {
        put(&cluster, "eu-west", &format!("profiles/p{number}"), &GERMAN, &format!("canary-of-{number}"));
    }
    put(&cluster, "us-east", "notes/n1", &[], "canary-for-all");
    cosigned(&cluster, &REGIONS);
    let rotated = cluster.run(&["keys", "rotate", "--json"]);
    assert_eq!(rotated.status.code(), Some(0), "{}", text(&rotated));
    let rotated: Value = serde_json::from_slice(&rotated.stdout).unwrap();
    assert!(rotated["eu-west"]["data_keys"].as_u64() >= Some(6), "{rotated}");
    for (region, key, value) in
        [("eu-west", "profiles/p3", "canary-of-3"), ("ap-southeast", "notes/n1", "canary-for-all")]
    {
        until("a value read after the rotation", SOON, || {
            let read = cluster.ask(region, "GET", &format!("/v1/data/{key}"), &[], "").ok()?;
            (read.status == 200 && read.body == value).then_some(())
        });
    }
    let (code, report) = audit(&cluster);
    assert_eq!(code, Some(0), "{report:#}");
    let limits = |check: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|run| run["check"] == check).unwrap()["limits"].clone()
    };
    assert_eq!(limits("LBL-03"), Value::Array(Vec::new()), "the audit did not open what it has the keys of");
    for region in REGIONS {
        cluster.kill(region);
    }
    for file in crate::files_below(&cluster.state("")) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|seven| seven == b"canary-"), "a value lies in {}", file.display());
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
