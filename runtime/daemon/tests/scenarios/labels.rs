//! What labels may say, who may say it, and how long what they are on is kept.

use std::net::SocketAddr;

use serde_json::Value;

use crate::cluster::{Answer, Cluster, exchange, text, until};
use crate::{REGIONS, SOON};

const FILE: &str = "data-replication/eventual-consistency.scm";

fn put(cluster: &Cluster, path: &str, headers: &[(&str, &str)], body: &str) -> (Answer, Value) {
    let answer = cluster.ask("eu-west", "PUT", &format!("/v1/data/{path}"), headers, body).unwrap();
    let problem = serde_json::from_str(&answer.body).unwrap_or_default();
    (answer, problem)
}

/// Writes with a token of these scopes.
fn put_with(cluster: &Cluster, scopes: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let keys = cluster.state("pki");
    let made =
        cluster.run(&["pki", "token", "--subject", "writer", "--scopes", scopes, "--dir", keys.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made));
    let authorization = format!("Bearer {}", String::from_utf8_lossy(&made.stdout).trim());
    let mut all = vec![("authorization", authorization.as_str())];
    all.extend_from_slice(headers);
    let address = SocketAddr::new(cluster.address("eu-west").into(), 8080);
    let answer = exchange(address, "PUT", &format!("/v1/data/{path}"), &all, body).unwrap();
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
}

#[test]
fn personal_data_in_what_is_called_public_or_in_a_key_name_is_refused_without_being_repeated() {
    let cluster = Cluster::deployed();
    for (path, body, place, detector) in [
        ("notes/n1", "write to ada@example.org", "body", "an e-mail address"),
        ("notes/n1", "{\"card\":\"4111 1111 1111 1111\"}", "body", "a payment card number"),
        ("notes/n1", "DE89370400440532013000", "body", "an IBAN"),
        ("notes/n1", "call +49 30 901820", "body", "a telephone number"),
        ("notes/n1", "ssn 123-45-6789", "body", "a US social security number"),
        ("notes/ada@example.org", "harmless", "key", "an e-mail address"),
    ] {
        let (answer, problem) = put(&cluster, path, &[], body);
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        let said =
            [&problem["field"], &problem["place"], &problem["detector"]].map(|word| word.as_str().unwrap().to_owned());
        assert_eq!(said, ["Repomind-Class", place, detector], "{}", answer.body);
        assert!(!answer.body.contains("ada@") && !answer.body.contains("4111"), "{}", answer.body);
    }
    assert_eq!(cluster.ask("eu-west", "GET", "/v1/data/notes/n1", &[], "").unwrap().status, 404);
    // Called what it is, it is taken.
    let labels = [("repomind-class", "personal"), ("repomind-jurisdiction", "el")];
    let (answer, _) = put(&cluster, "notes/n1", &labels, "write to ada@example.org");
    assert_eq!(answer.status / 100, 2, "{}", answer.body);
    let read = cluster.ask("eu-west", "GET", "/v1/data/notes/n1", &[], "").unwrap();
    assert_eq!(read.headers["repomind-jurisdiction"], "GR");
    for unknown in ["XX", "EU", "Germany"] {
        let (answer, problem) = put(&cluster, "notes/n2", &[("repomind-jurisdiction", unknown)], "x");
        assert_eq!((answer.status, &problem["field"]), (422, &"repomind-jurisdiction".into()), "{}", answer.body);
    }
    for region in REGIONS {
        let log = std::fs::read_to_string(cluster.state(region).join("daemon.log")).unwrap();
        let metrics = cluster.admin(region, "GET", "/metrics", "").unwrap().body;
        for shown in [log, metrics] {
            assert!(!shown.contains("ada@example") && !shown.contains("4111"), "{region} shows what was refused");
        }
    }
}

#[test]
fn a_token_bounds_what_may_be_claimed_and_looser_labels_need_a_right_of_their_own() {
    let cluster = Cluster::deployed();
    let german = [("repomind-class", "personal"), ("repomind-jurisdiction", "DE")];
    let american = [("repomind-class", "personal"), ("repomind-jurisdiction", "US")];
    let of_germans = "data:write class:personal jurisdiction:DE";
    let (status, problem) = put_with(&cluster, of_germans, "profiles/p", &american, "x");
    assert_eq!((status, &problem["field"]), (403, &"Repomind-Jurisdiction".into()), "{problem}");
    let (status, problem) = put_with(&cluster, of_germans, "profiles/p", &[("repomind-class", "public")], "x");
    assert_eq!((status, &problem["field"]), (403, &"Repomind-Class".into()), "{problem}");
    let (status, problem) = put_with(&cluster, of_germans, "profiles/p", &[("repomind-class", "personal")], "x");
    assert_eq!((status, &problem["field"]), (403, &"Repomind-Jurisdiction".into()), "no law at all: {problem}");
    assert_eq!(put_with(&cluster, of_germans, "profiles/p", &german, "of a German").0, 204);

    // Of a German by one who may claim everything, but may not loosen: not as an American's, not as nobody's.
    for looser in [american.as_slice(), &[("repomind-class", "public")]] {
        let (status, problem) = put_with(&cluster, "data:write", "profiles/p", looser, "of a German");
        assert_eq!((status, problem["type"].as_str().map(|t| t.ends_with("relabel"))), (403, Some(true)), "{problem}");
    }
    assert_eq!(put_with(&cluster, "data:write", "profiles/p", &german, "of the same").0, 204);
    assert_eq!(
        put_with(&cluster, "data:write relabel", "profiles/p", &[("repomind-class", "public")], "of none").0,
        204
    );
    let unknown = cluster.run(&["pki", "token", "--subject", "x", "--scopes", "class:secret"]);
    assert!(!unknown.status.success() && text(&unknown).contains("class:CLASS"), "{}", text(&unknown));
}

#[test]
fn a_namespace_demands_labels_supplies_them_and_keeps_records_no_longer_than_it_says() {
    let cluster = Cluster::deployed();
    let path = cluster.file(FILE);
    let source = std::fs::read_to_string(&path).unwrap();
    let stricter = source.replace(
        "(define-replication-strategy 'notes '((default-class . operational)))",
        "(define-replication-strategy 'notes '((default-class . personal) (default-jurisdiction . (DE)) (default-basis . contract)\n  \
         (requires . (subject retain-until)) (keep-days . ((personal . 30)))))",
    );
    assert_ne!(stricter, source);
    std::fs::write(&path, stricter).unwrap();
    for region in REGIONS {
        // Whoever is the primary by then takes the save up.
        until("the stricter namespace in force", SOON * 6, || {
            (cluster.status(region)?["generation"].as_u64()? >= 2).then_some(())
        });
    }
    let (answer, problem) = put(&cluster, "notes/n", &[], "x");
    assert_eq!((answer.status, &problem["field"]), (422, &"Repomind-Subject".into()), "{}", answer.body);
    let (answer, problem) =
        put(&cluster, "notes/n", &[("repomind-subject", "s-1"), ("repomind-retain-until", "5")], "x");
    assert_eq!((answer.status, &problem["field"]), (422, &"Repomind-Retain-Until".into()), "{}", answer.body);

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let soon = (now + 4_000).to_string();
    let late = (now + 3_600_000).to_string();
    let labels = |until| [("repomind-subject", "s-1"), ("repomind-retain-until", until)];
    assert_eq!(put(&cluster, "notes/short", &labels(soon.as_str()), "gone soon").0.status, 204);
    assert_eq!(put(&cluster, "notes/long", &labels(late.as_str()), "stays").0.status, 204);
    let read = cluster.ask("eu-west", "GET", "/v1/data/notes/long", &[], "").unwrap();
    assert_eq!(
        (read.headers["repomind-class"].as_str(), read.headers["repomind-jurisdiction"].as_str()),
        ("personal", "DE")
    );
    // Of another person, whom a hold keeps.
    let held = [("repomind-subject", "s-2"), ("repomind-retain-until", soon.as_str())];
    assert_eq!(put(&cluster, "notes/held", &held, "kept").0.status, 204);
    let hold = cluster.run(&["subject", "hold", "s-2", "--name", "case-7"]);
    assert!(hold.status.success(), "{}", text(&hold));

    let status =
        |key: &str| Some(cluster.ask("eu-west", "GET", &format!("/v1/data/notes/{key}"), &[], "").ok()?.status);
    until("what is over gone", SOON * 2, || (status("short")? == 404).then_some(()));
    assert_eq!((status("long"), status("held")), (Some(200), Some(200)));
    until("the deletion counted by its rule", SOON, || {
        let metrics = cluster.admin("eu-west", "GET", "/metrics", "").ok()?.body;
        metrics.contains("repomind_expired_total{rule=\"retain-until\"} 1").then_some(())
    });
    until("an audit that finds nothing", SOON * 2, || {
        let output = cluster.run(&["audit", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).ok()?;
        let judged = report["checks"].as_array()?.iter().find(|run| run["check"] == "RET-01")?["examined"].as_u64()?;
        (output.status.code() == Some(0) && judged >= 2).then_some(())
    });
}
