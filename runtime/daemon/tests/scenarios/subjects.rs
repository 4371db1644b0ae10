//! What a person may demand, and what must not be able to undo it.

use std::path::Path;

use serde_json::Value;

use crate::cluster::{Answer, Cluster, text, until};
use crate::{REGIONS, SOON};

/// The labels of personal data about `subject` that any of the three regions may hold.
fn everywhere(subject: &str) -> [(&str, &str); 4] {
    [
        ("repomind-class", "personal"),
        ("repomind-jurisdiction", "SG"),
        ("repomind-basis", "contract"),
        ("repomind-subject", subject),
    ]
}

fn put(cluster: &Cluster, region: &str, key: &str, subject: &str, value: &str) -> Answer {
    cluster.ask(region, "PUT", &format!("/v1/data/profiles/{key}"), &everywhere(subject), value).unwrap()
}

fn read(cluster: &Cluster, region: &str, key: &str) -> Option<Answer> {
    cluster.ask(region, "GET", &format!("/v1/data/profiles/{key}"), &[], "").ok()
}

fn stored(cluster: &Cluster, region: &str, key: &str, value: &str) {
    until(&format!("{key} in {region}"), SOON, || {
        read(cluster, region, key).is_some_and(|read| read.status == 200 && read.body == value).then_some(())
    });
}

/// Waits until the record is gone, and panics where its value is shown once more after it was.
fn gone(cluster: &Cluster, region: &str, key: &str) {
    until(&format!("{key} gone from {region}"), SOON, || {
        read(cluster, region, key).is_some_and(|read| [404, 410].contains(&read.status)).then_some(())
    });
}

fn cut(cluster: &Cluster, one: &str, others: &[&str], cut: bool) {
    for other in others {
        for (here, there) in [(one, *other), (*other, one)] {
            let body = format!("{{\"peer\":\"{there}\",\"cut\":{cut}}}");
            assert_eq!(cluster.admin(here, "PUT", "/wan", &body).unwrap().status / 100, 2);
        }
    }
}

/// Runs `subject …`, and gives the exit code and what was printed as JSON.
fn subject(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value) {
    let output = cluster.run(&[&["subject"], words].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", text(&output)));
    (output.status.code(), value)
}

fn audit(cluster: &Cluster) -> (Option<i32>, Value) {
    let output = cluster.run(&["audit", "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output))))
}

#[test]
fn an_erasure_waits_for_a_region_that_is_cut_off_and_no_late_write_undoes_it() {
    let cluster = Cluster::deployed();
    put(&cluster, "us-east", "p1", "s-1", "canary-one");
    put(&cluster, "us-east", "p2", "s-2", "of another");
    for region in REGIONS {
        stored(&cluster, region, "p1", "canary-one");
        stored(&cluster, region, "p2", "of another");
    }
    cut(&cluster, "ap-southeast", &["us-east", "eu-west"], true);
    let (code, pending) = subject(&cluster, &["erase", "s-1", "--within", "2"]);
    assert_eq!((code, &pending["missing"]), (Some(1), &serde_json::json!(["ap-southeast"])), "{pending}");
    gone(&cluster, "us-east", "p1");
    gone(&cluster, "eu-west", "p1");
    // The region that has not heard of it goes on, with the old key.
    assert_eq!(put(&cluster, "ap-southeast", "p1", "s-1", "canary-late").status / 100, 2);
    assert_eq!(put(&cluster, "ap-southeast", "p9", "s-1", "canary-new").status / 100, 2);

    cut(&cluster, "ap-southeast", &["us-east", "eu-west"], false);
    let (code, certificate) = subject(&cluster, &["erase", "s-1", "--within", "120"]);
    assert_eq!(code, Some(0), "{certificate}");
    for region in REGIONS {
        assert!(certificate["ledgers"][region]["proof"].is_array(), "{certificate}");
        gone(&cluster, region, "p1");
        gone(&cluster, region, "p9");
        stored(&cluster, region, "p2", "of another");
    }
    // Erased is not banned: who comes back is a new beginning.
    assert_eq!(put(&cluster, "eu-west", "p1", "s-1", "back again").status / 100, 2);
    for region in REGIONS {
        stored(&cluster, region, "p1", "back again");
    }
    let report = until("an audit that finds nothing", SOON * 2, || {
        let (code, report) = audit(&cluster);
        (code == Some(0)).then_some(report)
    });
    let erasures = report["checks"].as_array().unwrap().iter().find(|run| run["check"] == "ERA-01").unwrap();
    assert!(erasures["examined"].as_u64() >= Some(3), "{erasures}");
}

#[test]
fn a_region_that_is_put_back_from_before_an_erasure_with_its_keys_shows_nothing_of_it() {
    let cluster = Cluster::deployed();
    put(&cluster, "eu-west", "p1", "s-1", "canary-one");
    for region in REGIONS {
        stored(&cluster, region, "p1", "canary-one");
    }
    cluster.kill("eu-west");
    let (disk, copy) = (cluster.state("eu-west"), cluster.state("copy"));
    copy_folder(&disk, &copy);
    deploy(&cluster);
    let (code, certificate) = subject(&cluster, &["erase", "s-1"]);
    assert_eq!(code, Some(0), "{certificate}");
    cluster.kill("eu-west");
    for folder in ["data", "keys"] {
        std::fs::remove_dir_all(disk.join(folder)).unwrap();
        copy_folder(&copy.join(folder), &disk.join(folder));
    }
    deploy(&cluster);
    until("the erased record gone from the region that was put back", SOON, || {
        let read = read(&cluster, "eu-west", "p1")?;
        assert_ne!(read.status, 200, "an erased value came back with a copy of the disk");
        [404, 410].contains(&read.status).then_some(())
    });
    let (code, report) = audit(&cluster);
    let eras: Vec<_> = report["findings"].as_array().unwrap().iter().map(|found| found["check"].clone()).collect();
    assert!(code.is_some() && !eras.iter().any(|check| check.as_str().unwrap().starts_with("ERA")), "{eras:?}");
}

#[test]
fn a_hold_beats_an_erasure_and_every_delete_until_it_ends() {
    let cluster = Cluster::deployed();
    put(&cluster, "us-east", "p1", "s-1", "evidence");
    for region in REGIONS {
        stored(&cluster, region, "p1", "evidence");
    }
    let (code, held) = subject(&cluster, &["hold", "s-1", "--name", "case-7"]);
    assert_eq!(code, Some(0), "{held}");
    until("the hold in every region", SOON, || {
        let (_, report) = subject(&cluster, &["report", "s-1"]);
        REGIONS.iter().all(|region| report["regions"][region]["holds"][0] == "case-7").then_some(())
    });
    let refused = cluster.run(&["subject", "erase", "s-1"]);
    assert!(refused.status.code() == Some(2) && text(&refused).contains("case-7"), "{}", text(&refused));
    for (method, region) in [("DELETE", "eu-west"), ("PUT", "ap-southeast")] {
        let answer = cluster.ask(region, method, "/v1/data/profiles/p1", &everywhere("s-1"), "").unwrap();
        assert_eq!(answer.status, 423, "{method} in {region}: {}", answer.body);
    }
    stored(&cluster, "eu-west", "p1", "evidence");
    let (code, _) = subject(&cluster, &["hold", "s-1", "--name", "case-7", "--release"]);
    assert_eq!(code, Some(0));
    let (code, certificate) = subject(&cluster, &["erase", "s-1"]);
    assert_eq!(code, Some(0), "{certificate}");
    gone(&cluster, "eu-west", "p1");
}

#[test]
fn an_export_has_what_every_region_holds_or_says_which_is_missing() {
    let cluster = Cluster::deployed();
    put(&cluster, "us-east", "p1", "s-1", "in-all");
    let german = [
        ("repomind-class", "personal"),
        ("repomind-jurisdiction", "DE"),
        ("repomind-basis", "contract"),
        ("repomind-subject", "s-1"),
    ];
    assert_eq!(cluster.ask("eu-west", "PUT", "/v1/data/profiles/p2", &german, "at-home").unwrap().status / 100, 2);
    stored(&cluster, "eu-west", "p1", "in-all");
    let (code, export) = subject(&cluster, &["export", "s-1"]);
    assert_eq!((code, &export["complete"]), (Some(0), &Value::Bool(true)), "{export}");
    assert!(export["regions"]["eu-west"].to_string().contains("at-home"), "{export}");
    assert!(!export["regions"]["us-east"].to_string().contains("at-home"), "data of the EEA left it: {export}");
    cluster.kill("eu-west");
    let (code, export) = subject(&cluster, &["export", "s-1"]);
    assert_eq!((code, &export["complete"]), (Some(1), &Value::Bool(false)));
    assert!(export["missing"]["eu-west"].is_string() && !export.to_string().contains("at-home"), "{export}");
}

#[test]
fn a_token_without_the_right_demands_nothing_for_a_person() {
    let cluster = Cluster::deployed();
    let keys = cluster.state("pki");
    let words = ["pki", "token", "--subject", "x", "--scopes", "data:read data:write admin", "--dir"];
    let token = cluster.run(&[&words[..], &[keys.to_str().unwrap()]].concat());
    let authorization = format!("Bearer {}", String::from_utf8_lossy(&token.stdout).trim());
    let address = format!("{}:8080", cluster.address("us-east")).parse().unwrap();
    let headers = [("authorization", authorization.as_str())];
    for (method, path) in [("POST", "/v1/subjects/s-1/erase"), ("GET", "/v1/subjects/s-1")] {
        let answer = crate::cluster::exchange(address, method, path, &headers, "").unwrap();
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
    }
}

fn deploy(cluster: &Cluster) {
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}\n{}", text(&again), cluster.logs());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_folder(&entry.path(), &target),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), target).unwrap()),
            // The socket of the REPL.
            _ => {}
        }
    }
}
