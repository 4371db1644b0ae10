//! Measures the policy host on this machine and prints medians:
//! `cargo run --release -p policy --example host_bench`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use model::question::{Answer, Question};
use model::{ByteCount, Millis};
use policy::{HostError, HostLimits, PolicyHost};

const LIMITS: HostLimits = HostLimits { load: Millis(10_000), question: Millis(5_000), memory: ByteCount(512 << 20) };
/// Saves in a row.
const RELOADS: usize = 1000;
/// A resolver that never answers when its key says so.
const STUCK: &str = "(define-conflict-resolver 'stuck (lambda (key siblings)
  (if (equal? key \"now\") (let loop () (loop)) (latest-sibling siblings))))";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "policy-host") {
        policy::child_main(&arguments[1..]);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

fn row(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let median = times[times.len() / 2];
    println!("{what:<58} {median:>12.1?}   (of {}, worst {:.1?})", times.len(), times[times.len() - 1]);
    median
}

async fn measure() {
    let executable = std::env::current_exe().expect("this file");
    let mut starts = Vec::new();
    for _ in 0..7 {
        let began = Instant::now();
        let host = PolicyHost::start(&executable, support::library(), LIMITS).expect("a host");
        host.scratch_eval(Default::default(), support::facts(), (Vec::new(), "1".to_owned())).await.expect("1");
        starts.push(began.elapsed());
        host.shutdown();
    }
    row("engine start: exec, engine, cage, one form", starts);

    let host = PolicyHost::start(&executable, support::library(), LIMITS).expect("a host");
    let tree = support::tree_with("data-replication/conflict-resolution.scm", STUCK);
    let mut loads = Vec::new();
    for _ in 0..9 {
        // Long enough for the spare to stand ready, as it does between two saves.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let began = Instant::now();
        host.load(tree.clone(), support::facts()).await.expect("a good tree");
        loads.push(began.elapsed());
    }
    row("load of the ten files, their tests and the law checks", loads);

    let (generation, _) = host.load(tree, support::facts_of(5, 10)).await.expect("a good tree");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let ask = async |question: Question| {
        let began = Instant::now();
        let answer = generation.ask(question).await.expect("an answer");
        assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
        began.elapsed()
    };
    let repeat = async |question: Question, times: usize| {
        let mut all = Vec::new();
        for _ in 0..times {
            all.push(ask(question.clone()).await);
        }
        all
    };
    let health = Question::Health {
        observations: vec![model::routing::Observation { probes: 10, losses: 2, losses_in_a_row: 1 }; 2],
    };
    row("one health question, round trip", repeat(health, 2000).await);
    row(
        "one table: 250 client classes, 5 regions",
        repeat(Question::Route { facts: support::facts_of(5, 250) }, 30).await,
    );
    let cases = support::cases();
    let name = format!("the residency space: {} cases, 5 regions", cases.len());
    row(&name, repeat(Question::Residency { cases }, 30).await);

    let value = "a line of a setting\n".repeat(50);
    let conflict =
        vec![support::sibling("us-east", 1, &value), support::sibling("eu-west", 2, &format!("{value}more\n"))];
    for resolver in ["prefer-longest", "union-of-lines"] {
        let single = Question::Resolve {
            resolver: resolver.to_owned(),
            address: support::address("k"),
            siblings: conflict.clone(),
        };
        let median = row(&format!("one conflict of 2 × 1 KiB by {resolver}"), repeat(single, 1000).await);
        println!("{:<58} {:>12.0} a second", "  singly", 1.0 / median.as_secs_f64());
        let many = Question::ResolveMany {
            resolver: resolver.to_owned(),
            conflicts: vec![(support::address("k"), conflict.clone()); 64],
        };
        let median = row(&format!("64 conflicts in one question by {resolver}"), repeat(many, 100).await);
        println!("{:<58} {:>12.0} a second", "  in batches", 64.0 / median.as_secs_f64());
    }

    reloads(&executable).await;

    let limits = HostLimits { question: Millis(500), ..LIMITS };
    let host = PolicyHost::start(&executable, support::library(), limits).expect("a host");
    let tree = support::tree_with("data-replication/conflict-resolution.scm", STUCK);
    let (generation, _) = host.load(tree, support::facts()).await.expect("a good tree");
    let stuck = |key| Question::Resolve {
        resolver: "stuck".to_owned(),
        address: support::address(key),
        siblings: conflict.clone(),
    };
    let (mut lost, mut first, mut placed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..7 {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let began = Instant::now();
        match generation.ask(stuck("now")).await {
            Err(HostError::Deadline(finding)) => placed += usize::from(finding.line > 0),
            other => panic!("{other:?}"),
        }
        lost.push(began.elapsed());
        let began = Instant::now();
        generation.ask(stuck("later")).await.expect("an answer");
        first.push(began.elapsed());
    }
    row("a stuck question, until it is given up (limit 500 ms)", lost);
    row("first answer after that, from the standby", first);
    println!("{:<58} {placed:>12} of 7", "  loops named with file and line");
}

/// Whether many saves in a row leave anything behind in this process.
async fn reloads(executable: &std::path::Path) {
    let host = PolicyHost::start(executable, support::library(), LIMITS).expect("a host");
    let mut kept = None;
    for number in 0..RELOADS {
        if number == RELOADS / 10 {
            println!("{:<58} {}", format!("  after {number} reloads"), holdings());
        }
        let tree = support::tree_with("data-replication/conflict-resolution.scm", &format!(";; Save {number}."));
        kept = Some(host.load(tree, support::facts()).await.expect("a good tree"));
    }
    println!("{:<58} {}", format!("  after {RELOADS} reloads"), holdings());
    drop(kept);
}

/// Resident memory, descriptors and children of this process.
fn holdings() -> String {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let own = std::process::id().to_string();
    let parent = |stat: String| stat.rsplit_once(')')?.1.split_whitespace().nth(1).map(str::to_owned);
    let children = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok();
        stat.and_then(parent).is_some_and(|parent| parent == own)
    });
    let (memory, children) = (pages * rustix::param::page_size() / 1024, children.count());
    format!("{memory} KiB resident, {descriptors} descriptors, {children} children")
}
