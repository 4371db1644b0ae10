//! What operators order about the traffic of regions, and that every region obeys.

use std::time::Duration;

use serde_json::Value;

use crate::REGIONS;
use crate::cluster::{Cluster, generation, text, until};

const SOON: Duration = Duration::from_secs(60);

fn run(cluster: &Cluster, words: &[&str], code: i32) -> String {
    let output = cluster.run(words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
    text(&output)
}

fn json(cluster: &Cluster, words: &[&str], code: i32) -> Value {
    let words: Vec<&str> = words.iter().chain(&["--json"]).copied().collect();
    let output = cluster.run(&words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {}", text(&output)))
}

fn shows(cluster: &Cluster, region: &str, of: &str) -> Option<String> {
    let status = cluster.status(region)?;
    let state = if region == of { &status["state"] } else { &status["sees"][of] };
    state.as_str().map(str::to_owned)
}

/// Waits until each of these regions shows `of` in a state.
fn seen(cluster: &Cluster, by: &[&str], of: &str, state: &str) {
    for region in by {
        until(&format!("{of} {state} in {region}"), SOON, || (shows(cluster, region, of)? == state).then_some(()));
    }
}

/// Where a request of a German client that comes to `region` is answered.
fn served(cluster: &Cluster, region: &str) -> Option<String> {
    let answer = cluster.ask(region, "GET", "/hello", &[("x-forwarded-for", "217.0.0.1")], "").ok()?;
    serde_json::from_str::<Value>(&answer.body).ok()?["region"].as_str().map(str::to_owned)
}

fn primary(cluster: &Cluster) -> Option<String> {
    let status: Value = serde_json::from_slice(&cluster.run(&["status", "--json"]).stdout).ok()?;
    status["primary"].as_str().map(str::to_owned)
}

fn leads(cluster: &Cluster, region: &str) {
    until(&format!("{region} is the primary"), SOON, || (primary(cluster)? == region).then_some(()));
}

fn ready(cluster: &Cluster) {
    for of in REGIONS {
        seen(cluster, &REGIONS, of, "ready");
    }
}

#[test]
fn a_drained_region_takes_nobody_new_until_it_is_restored_also_after_restarts() {
    let cluster = Cluster::deployed();
    ready(&cluster);
    // It is the only home of some records, which is said with what would follow; nothing is done.
    let refused = run(&cluster, &["drain", "eu-west", "--reason", "new kernel"], 1);
    assert!(
        refused.contains("only eu-west may hold") && refused.contains("personal") && refused.contains("under law eea"),
        "{refused}"
    );
    assert!(refused.contains("refused without --force"), "{refused}");
    let plan = json(&cluster, &["drain", "eu-west", "--force", "--dry-run"], 0);
    let moves = plan["plan"]["moves"]["moves"].as_array().unwrap();
    assert!(!moves.is_empty() && moves.iter().all(|one| one["from"] == "eu-west"), "{plan}");
    assert_eq!((&plan["revision"], shows(&cluster, "us-east", "eu-west").as_deref()), (&Value::Null, Some("ready")));

    let done = run(&cluster, &["drain", "eu-west", "--force", "--yes", "--reason", "new kernel"], 0);
    assert!(done.contains("done: order 1"), "{done}");
    seen(&cluster, &REGIONS, "eu-west", "draining");
    for region in REGIONS {
        until(&format!("no client sent to eu-west by DNS of {region}"), SOON, || {
            (!crate::dns::given(&cluster, region)?.contains(&cluster.address("eu-west"))).then_some(())
        });
    }
    assert_ne!(served(&cluster, "us-east").as_deref(), Some("eu-west"), "a gateway sends somebody there");
    assert_eq!(served(&cluster, "eu-west").as_deref(), Some("eu-west"), "what arrives all the same is not served");
    let written = cluster.ask("us-east", "PUT", "/v1/data/notes/kept", &[("repomind-ack", "regions:3")], "x").unwrap();
    assert_eq!(written.status / 100, 2, "a drained region does not replicate: {}", written.body);
    let status = text(&cluster.run(&["status"]));
    assert!(status.contains("eu-west is draining since") && status.contains("new kernel"), "{status}");

    // All of them end without a warning.
    REGIONS.iter().for_each(|region| cluster.kill(region));
    run(&cluster, &["deploy", "--wan", "lan"], 0);
    seen(&cluster, &REGIONS, "eu-west", "draining");
    let orders = json(&cluster, &["orders"], 0);
    assert_eq!(
        (&orders["past"][0]["wish"], &orders["past"][0]["word"]["why"]),
        (&"drain".into(), &"new kernel".into())
    );
    run(&cluster, &["ledger", "verify"], 0);

    // The region that is drained is down when it is restored.
    cluster.kill("eu-west");
    seen(&cluster, &["us-east", "ap-southeast"], "eu-west", "down");
    let restored = run(&cluster, &["restore", "eu-west", "--yes", "--reason", "kernel is in"], 0);
    assert!(restored.contains("it gets traffic once it serves"), "{restored}");
    run(&cluster, &["deploy", "--wan", "lan"], 0);
    seen(&cluster, &REGIONS, "eu-west", "ready");
    until("German requests back in eu-west", SOON, || (served(&cluster, "us-east")? == "eu-west").then_some(()));
    let nothing = run(&cluster, &["restore", "eu-west", "--yes"], 1);
    assert!(nothing.contains("nothing is ordered about eu-west"), "{nothing}");
}

#[test]
fn the_last_region_is_never_taken_out_and_an_order_for_a_time_ends_by_itself() {
    let cluster = Cluster::deployed();
    ready(&cluster);
    for region in ["us-east", "ap-southeast"] {
        run(&cluster, &["drain", region, "--force", "--yes", "--reason", "a test"], 0);
        seen(&cluster, &REGIONS, region, "draining");
    }
    let last = run(&cluster, &["drain", "eu-west", "--force", "--yes"], 1);
    assert!(last.contains("eu-west is the last one") && !last.contains("done"), "{last}");
    let never = run(&cluster, &["evacuate", "eu-west", "--force", "--yes"], 1);
    assert!(never.contains("refused: no other region serves"), "{never}");
    for region in ["us-east", "ap-southeast"] {
        run(&cluster, &["restore", region, "--yes", "--reason", "a test"], 0);
    }
    ready(&cluster);

    // The primary of the deployment is emptied: another one takes its place, and hands it back.
    let plan = json(&cluster, &["evacuate", "us-east", "--force", "--dry-run"], 0);
    assert!(plan["plan"]["notes"].to_string().contains("it hands that place over"), "{plan}");
    let done = run(&cluster, &["evacuate", "us-east", "--force", "--yes", "--reason", "move the racks"], 0);
    assert!(done.contains("it can be switched off"), "{done}");
    seen(&cluster, &REGIONS, "us-east", "evacuated");
    until("another primary", SOON, || primary(&cluster).filter(|primary| primary != "us-east"));
    assert_ne!(served(&cluster, "us-east").as_deref(), Some("us-east"), "an evacuated region serves what arrives");
    run(&cluster, &["restore", "us-east", "--yes"], 0);
    leads(&cluster, "us-east");

    // Germans go to Singapore, for a while.
    let endless = cluster.run(&["pin", "ap-southeast", "--clients", "DE"]);
    assert_eq!(endless.status.code(), Some(64), "{}", text(&endless));
    let unknown = run(&cluster, &["pin", "ap-southeast", "--clients", "ZZ", "--for", "1h", "--yes"], 1);
    assert!(unknown.contains("ZZ is the code of no country"), "{unknown}");
    run(
        &cluster,
        &["pin", "ap-southeast", "--clients", "DE", "--for", "20s", "--yes", "--force", "--reason", "a test"],
        0,
    );
    let pinned = cluster.address("ap-southeast");
    for region in REGIONS {
        until(&format!("Germans sent to Singapore by {region}"), SOON, || {
            (crate::dns::given(&cluster, region)?.first() == Some(&pinned)).then_some(())
        });
    }
    until("Germans at home again", SOON, || (served(&cluster, "us-east")? == "eu-west").then_some(()));
    run(&cluster, &["drain", "ap-southeast", "--for", "2s", "--force", "--yes", "--reason", "a test"], 0);
    until("the end of the order in the log", SOON, || {
        let log = std::fs::read_to_string(cluster.state("us-east/daemon.log")).ok()?;
        log.contains("an order about a region has ended region=ap-southeast").then_some(())
    });
    seen(&cluster, &REGIONS, "ap-southeast", "ready");
}

#[test]
fn the_place_of_the_primary_goes_where_an_operator_says_and_back_once_that_ends() {
    let cluster = Cluster::deployed();
    ready(&cluster);
    leads(&cluster, "us-east");
    let plan = run(&cluster, &["failover", "--to", "eu-west", "--dry-run"], 0);
    assert!(plan.contains("us-east hands its place over"), "{plan}");
    let done = run(&cluster, &["failover", "--to", "eu-west", "--yes", "--reason", "work on the line"], 0);
    assert!(done.contains("eu-west is the primary, "), "{done}");
    let status = text(&cluster.run(&["status"]));
    assert!(status.contains("eu-west is to be the primary since") && status.contains("work on the line"), "{status}");
    let already = run(&cluster, &["failover", "--to", "eu-west", "--dry-run"], 0);
    assert!(already.contains("eu-west is the primary already"), "{already}");

    // It is still meant once the region was away; another one stands in for it meanwhile.
    cluster.kill("eu-west");
    until("another primary", SOON, || primary(&cluster).filter(|primary| primary != "eu-west"));
    let down = run(&cluster, &["failover", "--to", "eu-west", "--yes"], 1);
    assert!(down.contains("refused: eu-west does not answer") || down.contains("refused: eu-west is down"), "{down}");
    run(&cluster, &["deploy", "--wan", "lan"], 0);
    leads(&cluster, "eu-west");
    let saved = cluster.file("traffic-routing/geo-dns.scm");
    let words = std::fs::read_to_string(&saved).unwrap() + "\n;; saved while another region is the primary\n";
    std::fs::write(&saved, words).unwrap();
    for region in REGIONS {
        until(&format!("the saved file in {region}"), SOON, || (generation(&cluster, region)? == 2).then_some(()));
    }
    let restored = run(&cluster, &["restore", "eu-west", "--yes"], 0);
    assert!(restored.contains("us-east is the primary again once it is ready"), "{restored}");
    leads(&cluster, "us-east");
}
