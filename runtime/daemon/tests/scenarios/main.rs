//! Whole daemons, real sockets: what an operator would be alarmed to see fail.

mod api;
mod assets;
mod attacks;
mod audit;
mod backups;
mod cage;
mod cloudflare;
mod cluster;
mod commands;
mod conflicts;
mod control;
mod decisions;
mod dns;
mod drills;
mod edge;
mod edges;
mod evicting;
mod explain;
mod faults;
mod gate;
mod generations;
mod guards;
mod judgement;
mod labels;
mod machines;
mod objects;
mod orders;
mod repl;
mod replication;
mod signing;
mod simulate;
mod subjects;
mod ten_minutes;
mod watching;

use std::time::Duration;

use cluster::{Cluster, text, until};

const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-southeast"];
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_write_crosses_to_every_region_and_outlives_a_kill() {
    let cluster = Cluster::deployed();
    let written =
        cluster.ask("us-east", "PUT", "/v1/data/notes/hello", &[("repomind-ack", "regions:2")], "world").unwrap();
    assert_eq!(written.status / 100, 2, "{}", written.body);
    let copies: usize = written.headers["repomind-copies"].parse().unwrap();
    assert!(copies >= 2, "acknowledged with {copies} copies");
    for region in REGIONS {
        until(&format!("the note in {region}"), SOON, || {
            let read = cluster.ask(region, "GET", "/v1/data/notes/hello", &[], "").ok()?;
            (read.status == 200 && read.body == "world").then_some(())
        });
    }

    // Killed in the middle of writes: every acknowledged one is there after a restart, and in the others too.
    let mut acknowledged = Vec::new();
    for number in 0..200 {
        let path = format!("/v1/data/notes/key-{number}");
        let written = cluster.ask("eu-west", "PUT", &path, &[], &format!("value {number}")).unwrap();
        if written.status / 100 == 2 {
            acknowledged.push((path, format!("value {number}")));
        }
    }
    assert_eq!(acknowledged.len(), 200, "writes to a healthy region were refused");
    cluster.kill("eu-west");
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    for (path, value) in &acknowledged {
        for region in REGIONS {
            until(&format!("{path} in {region} after the kill"), SOON, || {
                let read = cluster.ask(region, "GET", path, &[], "").ok()?;
                (read.status == 200 && read.body == *value).then_some(())
            });
        }
    }
}

#[test]
fn a_saved_policy_takes_effect_everywhere_and_a_bad_one_nowhere() {
    let cluster = Cluster::deployed();
    let generation = |region: &str| cluster.status(region).and_then(|status| status["generation"].as_u64());
    let before = generation("us-east").expect("a generation");
    assert!(REGIONS.iter().all(|region| generation(region) == Some(before)));

    let file = cluster.file("traffic-routing/failover.scm");
    let good = std::fs::read_to_string(&file).unwrap();
    for (name, bad) in [
        ("an open bracket", format!("{good}\n(define (broken")),
        ("an endless loop", format!("{good}\n(let loop () (loop))\n")),
        ("a memory bomb", format!("{good}\n(define bomb (make-vector 1000000000000 0))\n")),
        ("a call of what is not there", format!("{good}\n(no-such-function 1)\n")),
    ] {
        std::fs::write(&file, bad).unwrap();
        let errors = until(&format!("{name} in the status"), SOON, || {
            let status = cluster.status("us-east")?;
            let errors = status["policy_errors"].as_array()?.clone();
            (!errors.is_empty()).then_some(errors)
        });
        let placed = errors[0].as_str().unwrap().split_once("failover.scm:").map(|(_, place)| place.to_owned());
        let line = placed.and_then(|place| place.split_once(':')?.0.parse::<u32>().ok());
        assert!(line.is_some_and(|line| line > 0), "{name} has no line: {errors:?}");
        assert!(REGIONS.iter().all(|region| generation(region) == Some(before)), "{name} changed the generation");
        let served = cluster.ask("eu-west", "GET", "/hello", &[], "").unwrap();
        assert_eq!(served.status, 200, "{name} was felt by a request");
        std::fs::write(&file, &good).unwrap();
        until("the errors gone", SOON, || {
            cluster.status("us-east")?["policy_errors"].as_array()?.is_empty().then_some(())
        });
    }

    std::fs::write(&file, format!("{good}\n;; A comment is a new generation too.\n")).unwrap();
    for region in REGIONS {
        until(&format!("the new generation in {region}"), SOON, || (generation(region)? > before).then_some(()));
    }

    // A tree may be made of links into another; no event tells of a change there.
    let elsewhere = cluster.file("../linked.scm");
    std::fs::write(&elsewhere, &good).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    let linked = until("the link in force", SOON, || generation("us-east").filter(|now| *now > before + 1));
    std::fs::write(&elsewhere, format!("{good}\n;; Saved where no event comes from.\n")).unwrap();
    until("what the link leads to in force", SOON, || (generation("us-east")? > linked).then_some(()));
}

#[test]
fn personal_data_of_the_eea_is_never_stored_outside_it() {
    let cluster = Cluster::deployed();
    let labels = [("repomind-class", "personal"), ("repomind-jurisdiction", "DE"), ("repomind-basis", "contract")];
    let secret = "canary-4f1c";
    let refused = cluster.ask("us-east", "PUT", "/v1/data/profiles/p1", &labels, secret).unwrap();
    assert_eq!(refused.status, 451, "{}", refused.body);
    assert!(refused.body.contains("rule"), "{}", refused.body);

    let kept = cluster.ask("eu-west", "PUT", "/v1/data/profiles/p1", &labels, secret).unwrap();
    assert_eq!(kept.status / 100, 2, "{}", kept.body);
    // A public record written afterwards shows that replication has passed that place in the log.
    let after =
        cluster.ask("eu-west", "PUT", "/v1/data/notes/after", &[("repomind-ack", "regions:3")], "public").unwrap();
    assert_eq!(after.status / 100, 2, "{}", after.body);
    for region in ["us-east", "ap-southeast"] {
        until("the public record", SOON, || {
            (cluster.ask(region, "GET", "/v1/data/notes/after", &[], "").ok()?.status == 200).then_some(())
        });
        let rows = cluster.admin(region, "GET", "/rows", "").unwrap();
        assert_eq!(rows.status, 200);
        assert!(!rows.body.contains(secret), "{region} stores what it may not hold");
        for file in files_below(&cluster.state(region)) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds what {region} may not", file.display());
        }
    }
    assert_eq!(cluster.ask("eu-west", "GET", "/v1/data/profiles/p1", &[], "").unwrap().body, secret);
}

pub(crate) fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(files_below(&entry.path()));
        } else if entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files
}

#[test]
fn a_killed_region_is_routed_around_and_comes_back() {
    let cluster = Cluster::deployed();
    // A client in Germany, as a trusted proxy would name it.
    let german = [("x-forwarded-for", "217.0.0.1")];
    let serving = || {
        let answer = cluster.ask("us-east", "GET", "/hello", &german, "").ok()?;
        (answer.status == 200).then(|| {
            serde_json::from_str::<serde_json::Value>(&answer.body).ok()?["region"].as_str().map(str::to_owned)
        })?
    };
    until("a German request answered from eu-west", SOON, || (serving()? == "eu-west").then_some(()));
    cluster.kill("eu-west");
    // Idempotent requests are retried elsewhere: not one of them may fail.
    for _ in 0..100 {
        assert!(serving().is_some_and(|region| region != "eu-west"), "a request failed while eu-west was down");
    }
    until("eu-west seen as down", SOON, || (cluster.status("us-east")?["sees"]["eu-west"] == "down").then_some(()));
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    until("German requests back in eu-west", SOON, || (serving()? == "eu-west").then_some(()));
}

#[test]
fn a_cut_link_heals_to_equal_digests() {
    let cluster = Cluster::deployed();
    for (here, there) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        let cut = cluster.admin(here, "PUT", "/wan", &format!("{{\"peer\":\"{there}\",\"cut\":true}}")).unwrap();
        assert_eq!(cut.status / 100, 2, "{}", cut.body);
    }
    for region in ["us-east", "eu-west"] {
        let written = cluster.ask(region, "PUT", "/v1/data/notes/both", &[], region).unwrap();
        assert_eq!(written.status / 100, 2, "a write was refused during a partition: {}", written.body);
    }
    for (here, there) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        cluster.admin(here, "PUT", "/wan", &format!("{{\"peer\":\"{there}\",\"cut\":false}}")).unwrap();
    }
    until("equal digests", SOON, || {
        let digests: Vec<_> =
            REGIONS.iter().filter_map(|region| Some(cluster.admin(region, "GET", "/digests", "").ok()?.body)).collect();
        (digests.len() == 3 && digests[0].len() > 10 && digests.iter().all(|digest| *digest == digests[0]))
            .then_some(())
    });
    let values: Vec<_> =
        REGIONS.iter().map(|region| cluster.ask(region, "GET", "/v1/data/notes/both", &[], "").unwrap().body).collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
}

#[test]
fn a_bad_region_file_is_refused_before_anything_starts() {
    let cluster = Cluster::tree();
    let file = cluster.file("region-config/eu-west.yml");
    let bad = std::fs::read_to_string(&file).unwrap().replace("capacity:", "capacty:");
    std::fs::write(&file, bad).unwrap();
    let output = cluster.run(&["deploy", "--wan", "lan"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("eu-west.yml:") && said.contains("capacty") && said.contains("help"), "{said}");
    assert!(!cluster.state("deploy.json").exists());
}

#[test]
fn a_second_deploy_changes_nothing_and_destroy_leaves_nothing_running() {
    let cluster = Cluster::deployed();
    let before = cluster.processes("us-east");
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(cluster.processes("us-east"), before, "{}", text(&again));
    let everyone: Vec<_> = REGIONS.iter().flat_map(|region| cluster.processes(region)).collect();
    let destroyed = cluster.run(&["destroy"]);
    assert!(destroyed.status.success(), "{}", text(&destroyed));
    for pid in everyone {
        assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "process {pid} still runs");
    }
}
