//! What loses in a conflict is known in every region, can be settled by hand, and lies nowhere where it may not.

use serde_json::Value;

use crate::cluster::{Answer, Cluster, text, until};
use crate::{REGIONS, SOON};

/// The label of what anybody may hold.
const PUBLIC: [(&str, &str); 1] = [("repomind-class", "public")];

fn put(cluster: &Cluster, region: &str, path: &str, headers: &[(&str, &str)], value: &str) {
    let written = cluster.ask(region, "PUT", &format!("/v1/data/{path}"), headers, value).unwrap();
    assert_eq!(written.status / 100, 2, "{} {}", written.status, written.body);
}

fn get(cluster: &Cluster, region: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    cluster.ask(region, "GET", &format!("/v1/data/{path}"), headers, "").unwrap()
}

/// Every link, in both directions.
fn cut(cluster: &Cluster, cut: bool) {
    for here in REGIONS {
        for there in REGIONS.into_iter().filter(|there| *there != here) {
            let answer = cluster.admin(here, "PUT", "/wan", &format!(r#"{{"peer":"{there}","cut":{cut}}}"#)).unwrap();
            assert_eq!(answer.status / 100, 2, "{}", answer.body);
        }
    }
}

fn explained(cluster: &Cluster, record: &str, more: &[&str]) -> Value {
    let words = [&["explain", "conflict", record, "--json"], more].concat();
    let output = cluster.run(&words);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The conflict of a record, once every region has noted it.
fn conflict(cluster: &Cluster, record: &str) -> Value {
    until(&format!("the conflict of {record} in every log"), SOON, || {
        let report = explained(cluster, record, &["--values"]);
        let all = report["conflicts"].as_array()?.clone();
        let noted = all.first()?["noted"].as_array()?.len();
        (all.len() == 1 && noted == REGIONS.len()).then(|| all[0].clone())
    })
}

#[test]
fn what_lost_while_regions_were_cut_off_is_in_every_log_and_siblings_can_be_settled_by_hand() {
    let cluster = Cluster::deployed();
    cut(&cluster, true);
    for region in ["us-east", "eu-west"] {
        // The last write wins, a resolver prefers the longest, and all siblings are kept.
        put(&cluster, region, "notes/both", &[], &format!("note of {region}"));
        let length = if region == "us-east" { 40 } else { 20 };
        put(&cluster, region, "drafts/both", &PUBLIC, &format!("{region:length$}"));
        put(&cluster, region, "profiles/both", &PUBLIC, &format!("profile of {region}"));
    }
    cut(&cluster, false);
    let lost = conflict(&cluster, "notes/both");
    assert_eq!((lost["by"].as_str(), lost["cause"].as_str()), (Some("last-write-wins"), Some("strategy")), "{lost}");
    let loser = lost["lost"]["region"].as_str().unwrap();
    let winner = lost["to"]["region"].as_str().unwrap();
    assert!(loser != winner && REGIONS.contains(&loser) && REGIONS.contains(&winner), "{lost}");
    let hash = cluster.status("us-east").unwrap()["policy_hash"].clone();
    for noted in lost["noted"].as_array().unwrap() {
        assert_eq!(noted["value"]["text"].as_str(), Some(&*format!("note of {loser}")), "{noted}");
        assert_eq!((&noted["generation"], &noted["policy"]), (&1.into(), &hash), "{noted}");
    }
    for region in REGIONS {
        assert_eq!(get(&cluster, region, "notes/both", &[]).body, format!("note of {winner}"), "{region}");
    }
    // The resolver is asked in every region, whether or not anybody reads there.
    let drafts = until("what the resolver decided in every log", SOON, || {
        Some(conflict(&cluster, "drafts/both")).filter(|lost| lost["cause"] == "resolver")
    });
    assert_eq!((drafts["by"].as_str(), drafts["lost"]["region"].as_str()), (Some("prefer-longest"), Some("eu-west")));
    let told = text(&cluster.run(&["explain", "conflict", "notes/both"]));
    assert!(told.contains("by last-write-wins (the strategy shows the other one)"), "{told}");
    assert!(!told.contains("note of"), "a value was shown that nobody asked for: {told}");
    let asked = text(&cluster.run(&["repl", "--eval", "(conflicts 5)"]));
    assert!(asked.contains("notes/both: ") && asked.contains(" lost to "), "{asked}");

    // Settled in a third region, from what it was shown there.
    let all = until("both profiles in ap-southeast", SOON, || {
        let all = get(&cluster, "ap-southeast", "profiles/both", &[("repomind-siblings", "all")]);
        (all.status == 300).then_some(all)
    });
    let boundary = all.headers["content-type"].strip_prefix("multipart/mixed; boundary=").unwrap();
    let parts: Vec<&str> = all.body.split(&format!("--{boundary}")).collect();
    assert_eq!((parts.len(), parts[3]), (4, "--\r\n"), "{}", all.body);
    for (part, region) in parts[1..3].iter().zip(["eu-west", "us-east"]) {
        let (head, value) = part.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("repomind-origin: {region}")), "{head}");
        assert_eq!(value, format!("profile of {region}\r\n"));
    }
    let context = all.headers["repomind-context"].clone();
    let headers = [PUBLIC[0], ("repomind-context", context.as_str())];
    put(&cluster, "ap-southeast", "profiles/both", &headers, "settled");
    for region in REGIONS {
        until(&format!("the settled profile in {region}"), SOON, || {
            let read = get(&cluster, region, "profiles/both", &[("repomind-siblings", "all")]);
            (read.status == 200 && read.body == "settled" && read.headers["repomind-siblings"] == "1").then_some(())
        });
    }
    let report = explained(&cluster, "profiles/both", &[]);
    let settled = report["conflicts"].as_array().unwrap();
    assert!(settled.len() == 2 && settled.iter().all(|one| one["cause"] == "settled"), "{report}");
    assert_eq!(get(&cluster, "us-east", "profiles/both", &[("repomind-siblings", "2")]).status, 422);
}

#[test]
fn a_lost_value_about_a_person_is_encrypted_on_disk_and_gone_from_every_log_after_an_erasure() {
    let cluster = Cluster::deployed();
    let labels = [
        ("repomind-class", "personal"),
        ("repomind-jurisdiction", "SG"),
        ("repomind-basis", "contract"),
        ("repomind-subject", "s-1"),
    ];
    cut(&cluster, true);
    for region in ["us-east", "eu-west"] {
        put(&cluster, region, "people/p1", &labels, &format!("canary-{region}"));
    }
    cut(&cluster, false);
    let lost = conflict(&cluster, "people/p1");
    let loser = lost["lost"]["region"].as_str().unwrap();
    for noted in lost["noted"].as_array().unwrap() {
        assert_eq!(noted["value"]["text"].as_str(), Some(&*format!("canary-{loser}")), "{noted}");
    }
    for region in REGIONS {
        let evidence = cluster.admin(region, "GET", "/evidence", "").unwrap();
        assert!(evidence.status == 200 && !evidence.body.contains("canary"), "a lost value lies in plain text");
    }
    let audit = |checks: &[&str]| {
        let output = cluster.run(&["audit", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let of = |check: &&str| report["checks"].as_array().unwrap().iter().find(|run| run["check"] == *check).cloned();
        (output.status.code(), checks.iter().map(|check| of(check).unwrap()).collect::<Vec<_>>())
    };
    until("an audit that finds nothing and has seen the log", SOON * 2, || {
        let (code, runs) = audit(&["RES-07"]);
        assert_ne!(code, Some(1), "{runs:?}");
        (code == Some(0) && runs[0]["examined"].as_u64() >= Some(3)).then_some(())
    });

    let erased = cluster.run(&["subject", "erase", "s-1", "--within", "120"]);
    assert!(erased.status.success(), "{}", text(&erased));
    for region in REGIONS {
        until(&format!("nothing of the person in the log of {region}"), SOON, || {
            let log: Value =
                serde_json::from_str(&cluster.admin(region, "GET", "/conflicts", "").ok()?.body).expect("JSON");
            log["conflicts"].as_array()?.is_empty().then_some(())
        });
    }
}
