//! The log of what policies decided: written down, explained, and asked again.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, text, until};

const SOON: Duration = Duration::from_secs(60);
const RESIDENCY: &str = "compliance/data-residency.scm";
const MAPPING: &str = "region-config/region-mapping.scm";

fn json(cluster: &Cluster, words: &[&str], code: i32) -> Value {
    let words: Vec<&str> = words.iter().chain(&["--json"]).copied().collect();
    let output = cluster.run(&words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {}", text(&output)))
}

/// Without the file's own tests, which know the rule that is changed.
fn judged(text: &str) -> String {
    text.split_once("(test-module").map_or(text, |(judged, _)| judged).to_owned()
}

#[test]
fn what_policies_decided_outlives_a_kill_and_comes_out_the_same_when_it_is_asked_again() {
    let cluster = Cluster::deployed();
    let route = cluster.run(&["explain", "route", "--client", "217.0.0.1"]);
    assert!(route.status.success(), "{}", text(&route));
    let asked = until("the explanation in the log", SOON, || {
        let last = json(&cluster, &["explain", "decision", "--last"], 0);
        (last["kind"] == "explanation").then_some(last)
    });
    assert_eq!(asked["about"], "a client in 217.0.0.0/24");
    assert!(!asked.to_string().contains("217.0.0.1"), "a whole address is kept: {asked}");
    assert!(asked["decided_by"].as_array().unwrap().iter().all(|place| place["line"].as_u64() > Some(0)), "{asked}");

    // A region that dies is judged, and other regions serve.
    cluster.kill("ap-southeast");
    let kinds = until("the loss in the log", SOON, || {
        let replayed = json(&cluster, &["policy", "replay", "--log", "us-east"], 0);
        let decisions = text(&cluster.run(&["repl", "--region", "us-east", "--eval", "(decisions 100)"]));
        (decisions.contains("failover of the regions that serve: eu-west us-east")).then_some((replayed, decisions))
    });
    let (replayed, decisions) = kinds;
    for kind in ["declarations of", "residency of", "route of", "failover of", "explanation of"] {
        assert!(decisions.contains(kind), "no {kind} in {decisions}");
    }
    assert!(replayed["same"].as_u64() > Some(5) && replayed["differ"] == 0, "{replayed}");
    assert_eq!(replayed["not_asked"], serde_json::json!({}), "{replayed}");

    // The process ends without a warning: the log is whole, and goes on where it was.
    let before = json(&cluster, &["explain", "decision", "--last"], 0)["id"].as_u64().unwrap();
    cluster.kill("us-east");
    let state = cluster.state("us-east");
    let from_disk = json(&cluster, &["policy", "replay", "--log", state.to_str().unwrap()], 0);
    assert!(
        from_disk["decisions"].as_u64() >= Some(before) && from_disk["damage"] == serde_json::json!([]),
        "{from_disk}"
    );
    let newest = std::fs::read_dir(state.join("decisions")).unwrap().flatten().map(|entry| entry.path()).max().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &whole[..whole.len() - 3]).unwrap();
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    let after = until("decisions after the restart", SOON, || {
        let after = json(&cluster, &["explain", "decision", "--last"], 0);
        (after["id"].as_u64()? >= before).then_some(after)
    });
    let all = json(&cluster, &["policy", "replay", "--log", "us-east"], 0);
    assert_eq!((all["decisions"].as_u64(), &all["damage"]), (after["id"].as_u64(), &serde_json::json!([])), "{all}");
    let missing = cluster.run(&["explain", "decision", "999999"]);
    assert!(text(&missing).contains("decision 999999 is not kept"), "{}", text(&missing));
}

#[test]
fn a_log_that_was_damaged_or_forged_is_told_of_and_replayed_as_far_as_it_goes() {
    let cluster = Cluster::deployed();
    let elsewhere = tempfile::tempdir().unwrap();
    let log = elsewhere.path().join("1.log");
    let kept = until("some decisions on disk", SOON, || {
        let folder = cluster.state("us-east").join("decisions");
        let newest = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).max()?;
        std::fs::copy(newest, &log).ok().filter(|bytes| *bytes > 10_000)?;
        let replayed = cluster.run(&["policy", "replay", "--log", log.to_str().unwrap(), "--json"]);
        let replayed: Value = serde_json::from_slice(&replayed.stdout).ok()?;
        (replayed["same"].as_u64() > Some(2)).then_some(std::fs::read(&log).unwrap())
    });
    let replay = |what: &str, bytes: &[u8], code: i32, says: &str| {
        std::fs::write(&log, bytes).unwrap();
        let ended = cluster.run(&["policy", "replay", "--log", log.to_str().unwrap()]);
        let said = text(&ended);
        assert_eq!(ended.status.code(), Some(code), "{what}: {said}");
        assert!(said.contains(says) && !said.contains('\u{1b}') && !said.contains("panicked"), "{what}: {said}");
        said
    };
    replay("whole", &kept, 0, "come out the same");
    replay("torn", &kept[..kept.len() - 3], 0, "it breaks off after");
    replay("nothing", b"", 2, "0 decisions");
    replay("a line of JSON", b"{\"kind\": \"route\", \"region\": \"mars\"}\n", 2, "this is no decision log");
    replay("a huge line", &vec![b'x'; 8 << 20], 2, "this is no decision log");
    replay("an archive", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 2, "1.log");
    // A piece of the middle, bit by bit: what follows it is read all the same, and nothing else is believed.
    let length = u32::from_le_bytes(kept[..4].try_into().unwrap()) as usize;
    let mut damaged = kept.clone();
    damaged[4 + length / 2] ^= 0x10;
    let said = replay("a flipped bit", &damaged, 2, "1.log, byte 0: the checksum");
    assert!(said.contains("are not in the log"), "{said}");
    for odd in ["/dev/zero", elsewhere.path().join("nowhere.log").to_str().unwrap()] {
        let ended = cluster.run(&["policy", "replay", "--log", odd]);
        assert_eq!(ended.status.code(), Some(2), "{odd}: {}", text(&ended));
        assert!(text(&ended).contains(odd), "{}", text(&ended));
    }
    let queries = elsewhere.path().join("queries");
    std::fs::write(&queries, vec![0xff; 1 << 20]).unwrap();
    let draft = cluster.file(MAPPING);
    let words = ["policy", "replay", draft.to_str().unwrap(), "--queries", queries.to_str().unwrap()];
    for odd in [queries.as_path(), std::path::Path::new("/dev/zero")] {
        let words = [words[0], words[1], words[2], words[3], odd.to_str().unwrap()];
        let ended = cluster.run(&words);
        assert_eq!(ended.status.code(), Some(2), "{}", text(&ended));
        assert!(text(&ended).contains("line 1: it has no name behind the address"), "{}", text(&ended));
    }
    assert!(cluster.status("us-east").is_some(), "{}", cluster.logs());
}

#[test]
fn a_replay_under_other_files_says_what_would_have_come_out_otherwise() {
    let cluster = Cluster::deployed();
    let before = cluster.status("us-east").unwrap()["generation"].clone();
    let elsewhere = tempfile::tempdir().unwrap();
    let residency = elsewhere.path().join("data-residency.scm");
    let good = std::fs::read_to_string(cluster.file(RESIDENCY)).unwrap();
    let stricter = judged(&good).replace("(define us-framework? #t)", "(define us-framework? #f)");
    assert_ne!(stricter, judged(&good));
    std::fs::write(&residency, &stricter).unwrap();
    let words = ["policy", "replay", residency.to_str().unwrap(), "--log", "us-east", "--kind", "residency"];
    let differs = json(&cluster, &words, 1);
    let first = &differs["changed"][0];
    assert!(first["from"].as_str().unwrap().starts_with("allowed"), "{differs}");
    assert!(first["to"].as_str().unwrap().starts_with("denied"), "{differs}");
    assert!(first["what"].as_str().unwrap().contains("law "), "{differs}");
    assert_eq!(cluster.status("us-east").unwrap()["generation"], before, "a replay changed what is in force");

    // The same file, and a file that does not load.
    std::fs::write(&residency, &good).unwrap();
    json(&cluster, &words, 0);
    std::fs::write(&residency, format!("{good}\n(no-such-function 1)\n")).unwrap();
    let refused = cluster.run(&words);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("data-residency.scm:"), "{}", text(&refused));
    let nowhere = cluster.run(&["policy", "replay", "--log", "mars"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere));

    // Queries of a server, under a mapping that turns the order round.
    let log = elsewhere.path().join("queries");
    std::fs::write(&log, "217.0.0.1 api.repomind.io\n8.8.8.8#53 api.repomind.io.\n192.0.2.1 nobody.example\n").unwrap();
    let mapping = elsewhere.path().join("region-mapping.scm");
    let text_of = std::fs::read_to_string(cluster.file(MAPPING)).unwrap();
    std::fs::write(&mapping, &text_of).unwrap();
    let ask = ["policy", "replay", mapping.to_str().unwrap(), "--queries", log.to_str().unwrap()];
    let same = json(&cluster, &ask, 0);
    assert_eq!((&same["queries"], &same["moved"], &same["not_routed"]), (&3.into(), &0.into(), &1.into()), "{same}");
    let turned = judged(&text_of).replace("(define (region-candidates ", "(define (region-candidates-before ");
    let only = turned + "\n(define (region-candidates client regions) (list 'ap-southeast))\n";
    std::fs::write(&mapping, only).unwrap();
    let moved = json(&cluster, &ask, 1);
    assert_eq!(moved["moved"], 2, "{moved}");
    assert!(moved["moves"].as_array().unwrap().iter().all(|one| one["to"] == "ap-southeast"), "{moved}");
    assert!(!moved.to_string().contains("217.0.0.1"), "{moved}");
}
