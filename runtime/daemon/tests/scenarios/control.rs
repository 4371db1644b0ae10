//! Which region is the primary, and what works while none is.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::REGIONS;
use crate::cluster::{Answer, Cluster, everywhere, generation, text, until};

/// Elections take about a second; a machine with too much to do needs longer.
const SOON: Duration = Duration::from_secs(60);
const FILE: &str = "traffic-routing/failover.scm";

/// Who says of itself that it may answer for the primary, and in which term.
fn claim(cluster: &Cluster, region: &str) -> Option<u64> {
    let status = cluster.status(region)?;
    (status["control"]["role"] == "primary").then(|| status["control"]["term"].as_u64())?
}

fn primary(cluster: &Cluster, among: &[&'static str]) -> Option<(&'static str, u64)> {
    among.iter().find_map(|region| Some((*region, claim(cluster, region)?)))
}

/// Reads who claims to be the primary, over and over. A claim that was read later never has an older term.
struct Claims {
    newest: u64,
}

impl Claims {
    fn read(&mut self, cluster: &Cluster) -> Option<&'static str> {
        let mut found = None;
        for region in REGIONS {
            if let Some(term) = claim(cluster, region) {
                assert!(term >= self.newest, "{region} answers for term {term} after one answered for {}", self.newest);
                (self.newest, found) = (term, Some(region));
            }
        }
        found
    }
}

fn save(cluster: &Cluster, comment: &str) {
    let file = cluster.file(FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n;; {comment}\n")).unwrap();
}

/// A proposal that grows from what is in force in `region`, with a file changed.
fn proposal(cluster: &Cluster, region: &str, file: &str, change: impl Fn(&str) -> String) -> String {
    let status = cluster.status(region).expect("a region that answers");
    let number = status["generation"].as_u64().unwrap();
    let tree = cluster.admin(region, "GET", &format!("/policy/tree?generation={number}"), "").unwrap();
    let mut tree: Value = serde_json::from_str(&tree.body).expect("a tree");
    let changed = change(tree[file].as_str().unwrap());
    assert_ne!(tree[file].as_str().unwrap(), changed);
    tree[file] = changed.into();
    json!({"parent": status["policy_hash"], "because": {"author": "a test", "reason": "to see"}, "tree": tree})
        .to_string()
}

fn publish(cluster: &Cluster, region: &str, proposal: &str) -> Answer {
    cluster.admin(region, "POST", "/policy/publish", proposal).expect("the admin address answers")
}

/// Cuts all links of a region, or makes them whole again.
fn isolate(cluster: &Cluster, region: &str, cut: bool) {
    for other in REGIONS.iter().filter(|other| **other != region) {
        for (here, there) in [(region, *other), (*other, region)] {
            let body = json!({"peer": there, "cut": cut}).to_string();
            assert_eq!(cluster.admin(here, "PUT", "/wan", &body).unwrap().status, 200);
        }
    }
}

#[test]
fn a_killed_primary_is_replaced_and_is_no_second_one_when_it_returns() {
    let cluster = Cluster::deployed();
    let mut claims = Claims { newest: 0 };
    until("us-east the primary", SOON, || (claims.read(&cluster)? == "us-east").then_some(()));
    let before = generation(&cluster, "us-east").unwrap();

    cluster.kill("us-east");
    let killed = Instant::now();
    // Saved while there is no primary: whoever becomes it takes the file up.
    save(&cluster, "Saved right after the primary was killed.");
    let (next, _) = until("another primary", SOON, || primary(&cluster, &["eu-west", "ap-southeast"]));
    println!("another region could answer for the primary {} ms after the kill", killed.elapsed().as_millis());
    for region in ["eu-west", "ap-southeast"] {
        until("the saved file in force", SOON, || (generation(&cluster, region)? == before + 1).then_some(()));
    }
    println!("the saved file was in force {} ms after the kill", killed.elapsed().as_millis());
    let status = text(&cluster.run(&["status"]));
    assert!(status.contains(&format!("{next} (primary)")), "{status}");
    let back = cluster.run(&["policy", "rollback", &before.to_string(), "--reason", "to see that it works"]);
    assert!(back.status.success(), "{}", text(&back));

    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    until("the preferred primary again", SOON, || (claims.read(&cluster)? == "us-east").then_some(()));
    everywhere(&cluster, before + 2);
    let json: Value = serde_json::from_slice(&cluster.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["primary"], "us-east");
    assert_eq!(json["term"], claims.newest);
    // The file on disk is that of the generation that was rolled back in another region: nobody saved it here since.
    until("status tells of the files on disk", SOON, || {
        text(&cluster.run(&["status"])).contains("the files on disk are those of generation").then_some(())
    });
    save(&cluster, "Saved when all was well again.");
    everywhere(&cluster, before + 3);
}

#[test]
fn a_primary_that_was_paused_past_its_lease_answers_for_nothing_when_it_wakes() {
    use rustix::process::{Pid, Signal, kill_process};
    let cluster = Cluster::deployed();
    let (_, term) = until("us-east the primary", SOON, || primary(&cluster, &["us-east"]));
    let before = generation(&cluster, "us-east").unwrap();
    let comment = |text: &str| format!("{text}\n;; Published to one that slept.\n");
    let stale = proposal(&cluster, "us-east", FILE, comment);
    let daemon = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"start")
    };
    let pid = cluster.processes("us-east").into_iter().find(daemon).and_then(Pid::from_raw).expect("its daemon");
    kill_process(pid, Signal::STOP).unwrap();
    // It lies in the sleeper's socket when it wakes: the first thing that it does is to answer.
    let (asked, cluster) = (std::sync::mpsc::channel(), &cluster);
    std::thread::scope(|scope| {
        let (stale, tell) = (&stale, asked.0);
        scope.spawn(move || tell.send(publish(cluster, "us-east", stale)));
        until("another primary", SOON, || {
            primary(cluster, &["eu-west", "ap-southeast"]).filter(|(_, later)| *later > term)
        });
        kill_process(pid, Signal::CONT).unwrap();
        let refused: Answer = asked.1.recv_timeout(SOON).expect("an answer");
        assert_eq!(refused.status, 409, "a primary that slept took a generation: {}", refused.body);
    });
    assert!(claim(cluster, "us-east").is_none_or(|claimed| claimed > term), "it answers for the term before its sleep");
    assert!(REGIONS.iter().all(|region| generation(cluster, region).is_none_or(|now| now == before)));
    let mut claims = Claims { newest: term + 1 };
    until("the preferred primary again", SOON, || (claims.read(cluster)? == "us-east").then_some(()));
    let taken = publish(cluster, "us-east", &stale);
    assert_eq!(taken.status, 200, "{}", taken.body);
    everywhere(cluster, before + 1);
}

#[test]
fn a_minority_takes_nothing_but_a_tightening_and_says_what_still_works() {
    const RESIDENCY: &str = "compliance/data-residency.scm";
    let cluster = Cluster::deployed();
    until("us-east the primary", SOON, || claim(&cluster, "us-east"));
    let before = generation(&cluster, "us-east").unwrap();
    isolate(&cluster, "us-east", true);
    let limits = until("us-east without a primary", SOON, || {
        let status = cluster.status("us-east")?;
        let limits = status["control"]["limits"].as_str()?.to_owned();
        (status["primary"].is_null() && limits.contains("1 of 3 voting regions answer")).then_some(limits)
    });
    assert!(limits.contains("ap-southeast, eu-west") && limits.contains("only tighten"), "{limits}");
    until("a primary among the others", SOON, || primary(&cluster, &["eu-west", "ap-southeast"]));
    let written = cluster.ask("us-east", "PUT", "/v1/data/notes/alone", &[], "still").unwrap();
    assert_eq!(written.status / 100, 2, "data does not wait for a quorum: {}", written.body);

    // Without the file's own tests, which know the rule that is changed here.
    let judged = |text: &str| text.split_once("(test-module").map_or(text, |(judged, _)| judged).to_owned();
    let looser = |text: &str| judged(text).replace("'(eea GB CH CA JP KR BR)", "'(eea GB CH CA JP KR BR SG)");
    let refused = publish(&cluster, "us-east", &proposal(&cluster, "us-east", RESIDENCY, looser));
    assert_eq!(refused.status, 409, "a minority loosened a rule: {}", refused.body);
    assert!(refused.body.contains("more permissive"), "{}", refused.body);
    let neither = proposal(&cluster, "us-east", FILE, |text| format!("{text}\n;; Neither looser nor stricter.\n"));
    assert_eq!(publish(&cluster, "us-east", &neither).status, 409);
    let stricter = |text: &str| judged(text).replace("(define us-framework? #t)", "(define us-framework? #f)");
    let stricter = proposal(&cluster, "us-east", RESIDENCY, stricter);
    let taken = publish(&cluster, "us-east", &stricter);
    assert_eq!(taken.status, 200, "{}", taken.body);
    let alone = cluster.status("us-east").unwrap();
    assert_eq!((&alone["generation"], &alone["control"]["tightened_alone"]), (&json!(before + 1), &json!(true)));
    assert_eq!(generation(&cluster, "eu-west"), Some(before));

    // They meet again: the others take over what is stricter.
    isolate(&cluster, "us-east", false);
    let hash = alone["policy_hash"].clone();
    for region in REGIONS {
        until("the stricter rule agreed on", SOON, || {
            let status = cluster.status(region)?;
            (status["policy_hash"] == hash && status["control"]["tightened_alone"] == false).then_some(())
        });
    }
    assert!(REGIONS.iter().all(|region| generation(&cluster, region) == Some(before + 1)));
}

#[test]
fn a_region_that_lost_its_disk_votes_again_under_another_number() {
    let cluster = Cluster::deployed();
    let (leader, _) = until("a primary", SOON, || primary(&cluster, &REGIONS));
    let node = |region: &str| cluster.status(region).and_then(|status| status["control"]["node"].as_u64());
    let voters = |region: &str| Some(cluster.status(region)?["control"]["voters"].as_array()?.len());
    until("three voters", SOON, || (voters(leader)? == 3).then_some(()));
    let old = node("ap-southeast").expect("a number");
    cluster.kill("ap-southeast");
    std::fs::remove_dir_all(cluster.state("ap-southeast")).unwrap();
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    let fresh = until("a number", SOON, || node("ap-southeast"));
    assert_ne!(old, fresh, "what a lost disk promised is promised again");
    until("a voter again", SOON, || {
        let status = cluster.status("ap-southeast")?;
        let all = status["control"]["voters"].as_array()?.len() == 3 && status["control"]["learners"] == json!([]);
        (all && status["control"]["role"] != "learner").then_some(())
    });
    // The other two alone would be a quorum, too: this one must count.
    cluster.kill("eu-west");
    save(&cluster, "Agreed on with the vote of the new disk.");
    until("a generation by two votes", SOON, || (generation(&cluster, "ap-southeast")? == 2).then_some(()));
}
