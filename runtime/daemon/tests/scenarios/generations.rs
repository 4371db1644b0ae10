//! Policy generations through an operator's hands.

use std::time::Duration;

use crate::REGIONS;
use crate::cluster::{Cluster, everywhere, generation, text, until};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_generation_is_brought_back_and_outlives_a_lost_disk_of_the_primary() {
    let cluster = Cluster::deployed();
    let file = cluster.file("traffic-routing/failover.scm");
    let first = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{first}\n;; The second generation.\n")).unwrap();
    everywhere(&cluster, 2);

    let shown = cluster.run(&["policy", "diff", "1", "2"]);
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown));
    assert!(text(&shown).contains(";; The second generation."), "{}", text(&shown));
    let back = cluster.run(&["policy", "rollback", "1", "--reason", "the second was a mistake"]);
    assert!(back.status.success(), "{}", text(&back));
    everywhere(&cluster, 3);
    let same = cluster.run(&["policy", "diff", "1", "3"]);
    assert!(same.status.success(), "generation 3 differs from 1:\n{}", text(&same));
    let history = text(&cluster.run(&["policy", "history"]));
    assert!(history.contains("3 (in force)") && history.contains("the second was a mistake"), "{history}");

    // Another file changes: the tree on disk is still that of the second generation, which was undone.
    std::fs::write(cluster.file("traffic-routing/notes.txt"), "not a policy").unwrap();
    until("status tells of the files on disk", SOON, || {
        text(&cluster.run(&["status"])).contains("the files on disk are those of generation 2").then_some(())
    });
    assert_eq!(generation(&cluster, "us-east"), Some(3), "a rollback was undone by a file that is no policy");

    // The primary loses its disk; the others still know generation 3, and a new save must come after it.
    cluster.kill("us-east");
    std::fs::remove_dir_all(cluster.state("us-east")).unwrap();
    std::fs::write(&file, format!("{first}\n;; Saved while the primary was away.\n")).unwrap();
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    everywhere(&cluster, 4);
    let served = cluster.run(&["policy", "diff", "4"]);
    assert!(served.status.success(), "what is on disk is not in force:\n{}", text(&served));
}

#[test]
fn a_tree_that_is_not_good_is_not_published() {
    let cluster = Cluster::deployed();
    let other = cluster.file("../other");
    crate::cluster::copy_tree(&other, |text| text.replace("(define policy-api 1)", "(define policy-api 99)"));
    let refused = cluster.run(&["policy", "publish", other.to_str().unwrap(), "--reason", "from elsewhere"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("policy API 99"), "{}", text(&refused));
    // Good in itself, and another answer in every process: regions would never agree.
    crate::cluster::copy_tree(&other, |text| {
        text.replace("(if (slow? name) 300 while-well)", "(+ 300 by-chance)").replace(
            "(define addresses 2)",
            "(define addresses 2)\n\
             (define many (foldl (lambda (at all) (hash-insert all at #t)) (hash) (range 0 64)))\n\
             (define by-chance (foldl (lambda (at sum) (modulo (+ at (* 31 sum)) 80021)) 7 (hash-keys->list many)))",
        )
    });
    let file = other.join("traffic-routing/geo-dns.scm");
    let source = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, source.split_once("(test-module").expect("tests").0).unwrap();
    let refused = cluster.run(&["policy", "publish", other.to_str().unwrap(), "--reason", "let us see"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("in a second process"), "{}", text(&refused));
    assert!(REGIONS.iter().all(|region| generation(&cluster, region) == Some(1)));
}

#[test]
fn a_candidate_that_answers_otherwise_elsewhere_is_loaded_there_once_more_and_comes_into_force() {
    let cluster = Cluster::deployed();
    // What us-east cannot know and the other two measure: the round trip between them.
    until("the round trip between the others", SOON, || {
        let asked = "(region-rtt (cadr (all-regions)) (car (all-regions)))";
        let seen = text(&cluster.run(&["repl", "--region", "eu-west", "--eval", asked]));
        seen.trim().parse::<f64>().is_ok().then_some(())
    });
    let before = cluster.run(&["repl", "--eval", "(region-rtt (cadr (all-regions)) (car (all-regions)))"]);
    assert_eq!(text(&before).trim(), "#false", "us-east knows what it cannot measure");
    let file = cluster.file("data-replication/eventual-consistency.scm");
    let good = std::fs::read_to_string(&file).unwrap();
    let odd = "(require \"repomind/regions.scm\" \"repomind/routing.scm\")\n\
               (define measured? (region-rtt (cadr (all-regions)) (car (all-regions))))\n\
               (define-replication-strategy 'odd (list (cons 'lag-target (if measured? 6000 5000))))\n";
    std::fs::write(&file, format!("{good}\n{odd}")).unwrap();
    everywhere(&cluster, 2);
    for region in ["eu-west", "ap-southeast"] {
        let log = std::fs::read_to_string(cluster.state(region).join("daemon.log")).unwrap();
        assert!(log.contains("a candidate answers otherwise here than where it is proposed"), "{region}: {log}");
    }
    // One that answers alike is not told of.
    std::fs::write(&file, format!("{good}\n;; Alike.\n")).unwrap();
    everywhere(&cluster, 3);
    for region in ["eu-west", "ap-southeast"] {
        let log = std::fs::read_to_string(cluster.state(region).join("daemon.log")).unwrap();
        assert_eq!(log.matches("a candidate answers otherwise here").count(), 1, "{region}: {log}");
    }
}

/// What a daemon holds: memory in KiB, descriptors, and the processes below it.
#[derive(Debug)]
struct Holdings {
    resident: u64,
    descriptors: usize,
    processes: usize,
}

fn holdings(daemon: i32) -> Option<Holdings> {
    let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let descriptors = std::fs::read_dir(format!("/proc/{daemon}/fd")).ok()?.count();
    let parent = |stat: String| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok();
    let processes = std::fs::read_dir("/proc").ok()?.flatten().filter(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok();
        stat.and_then(parent) == Some(daemon)
    });
    let resident = resident.trim().trim_end_matches(" kB").parse().ok()?;
    Some(Holdings { resident, descriptors, processes: processes.count() })
}

/// `REPOMIND_SAVES=1000` saves as often as that; memory is judged then, too.
#[test]
fn saves_leave_no_process_and_no_descriptor_behind() {
    let cluster = Cluster::deployed();
    let daemon = *cluster.processes("us-east").iter().find(|pid| runs_a_daemon(**pid)).expect("a daemon");
    let saves: u64 = std::env::var("REPOMIND_SAVES").map_or(12, |text| text.parse().expect("a number"));
    let file = cluster.file("traffic-routing/failover.scm");
    let first = std::fs::read_to_string(&file).unwrap();
    let save = |number: u64| {
        std::fs::write(&file, format!("{first}\n;; Save number {number}.\n")).unwrap();
        everywhere(&cluster, number);
    };
    let warm = saves / 4;
    (2..warm + 2).for_each(&save);
    let settled = |before: Option<&Holdings>| {
        until("as many processes and descriptors as before", SOON, || {
            let now = holdings(daemon)?;
            // A zygote, the child in force, the one beside it and two spares; connections come and go.
            let as_before = before.is_none_or(|before| now.descriptors <= before.descriptors + 8);
            (now.processes == 5 && as_before).then_some(now)
        })
    };
    let before = settled(None);
    (warm + 2..saves + 2).for_each(&save);
    let after = settled(Some(&before));
    println!("after {warm} saves {before:?}, after {saves} {after:?}");
    // The others had most of them loaded before they were agreed on.
    let metrics = cluster.admin("eu-west", "GET", "/metrics", "").unwrap().body;
    let ahead = metrics.lines().find(|line| line.contains("gate_seconds_count{step=\"rehearsed\""));
    let ahead = ahead.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(ahead.is_some_and(|ahead| ahead >= 1.0), "no candidate was loaded ahead: {metrics}");
    if saves >= 1000 {
        assert!(after.resident <= before.resident + before.resident / 20, "{before:?} became {after:?}");
    }
}

fn runs_a_daemon(pid: i32) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == b"start")
}
