//! Whatever an operator saves or types, every region goes on serving by the last good generation.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::REGIONS;
use crate::cluster::{Cluster, everywhere, generation, text, until};

/// An endless loop is ended after 3 s of processor time, twice, once more to find its place.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two rounds of clients.
const PACE: Duration = Duration::from_millis(10);
const FILE: &str = "traffic-routing/failover.scm";

/// Forms that must cost their child and nothing else.
const ATTACKS: &[&str] = &[
    "(define (spin) (spin)) (spin)",
    "(let loop ([all '()]) (loop (cons 1 all)))",
    "(let loop ([text \"double\"]) (loop (string-append text text)))",
    "(define (deep n) (+ 1 (deep (+ n 1)))) (deep 0)",
    "(define (deep x) (transduce (list x) (mapping deep) (into-list))) (deep 1)",
    "(define-syntax bomb (syntax-rules () [(_ a) (begin (bomb (a a)) (bomb (a a)))])) (bomb 1)",
    "(expt 7 100000000)",
    "(make-vector 1000000000000 0)",
    "(range 0 1000000000)",
    "(command \"id\" '())",
    "(#%module-get% 'nothing)",
    "(eval '(+ 1 2))",
    "(require \"/etc/passwd\")",
    "(require-builtin steel/process)",
    "(define half-written (list 1 2",
    "\"a text that nobody closed",
    "#| a comment that nobody closed",
    ")",
];

/// What clients saw.
#[derive(Default)]
struct Clients {
    stop: AtomicBool,
    times: Mutex<Vec<Duration>>,
    failures: Mutex<Vec<String>>,
}

impl Clients {
    /// Asks every region for a page and for a record, again and again.
    fn ask(&self, cluster: &Cluster) {
        let mut round = 0_u32;
        while !self.stop.load(Ordering::Relaxed) {
            round += 1;
            for region in REGIONS {
                let began = Instant::now();
                let page = cluster.ask(region, "GET", "/hello", &[("x-forwarded-for", "217.0.0.1")], "");
                let took = began.elapsed();
                let key = format!("/v1/data/notes/cage-{region}-{}", round % 50);
                let written = cluster.ask(region, "PUT", &key, &[], "still here");
                for (what, answer) in [("GET", page), ("PUT", written)] {
                    let failure = match answer {
                        Ok(answer) if answer.status / 100 == 2 => continue,
                        Ok(answer) => format!("{what} at {region}: {} {}", answer.status, answer.body),
                        Err(error) => format!("{what} at {region}: {error}"),
                    };
                    self.failures.lock().unwrap().push(failure);
                }
                self.times.lock().unwrap().push(took);
            }
            std::thread::park_timeout(PACE);
        }
    }

    /// The times of pages since this was asked last: how many, half of them, and 99 in a hundred.
    fn so_far(&self) -> String {
        let mut times = std::mem::take(&mut *self.times.lock().unwrap());
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        format!("{} pages, p50 {:.1?}, p99 {:.1?}", times.len(), at(50), at(99))
    }
}

/// What `status` says of the files, once all of it is about this one, at a line that was not named before.
fn refusal(cluster: &Cluster, what: &str, file: &str) -> String {
    until(what, PATIENCE, || {
        let status = cluster.status("us-east")?;
        let errors: Vec<&str> = status["policy_errors"].as_array()?.iter().filter_map(|error| error.as_str()).collect();
        errors.iter().find(|error| error.contains(file)).map(|error| (*error).to_owned())
    })
}

fn settled(cluster: &Cluster, what: &str) {
    until(what, PATIENCE, || cluster.status("us-east")?["policy_errors"].as_array()?.is_empty().then_some(()));
}

fn forms_that_run_away(cluster: &Cluster, clients: &Clients) {
    let path = cluster.file(FILE);
    let good = std::fs::read_to_string(&path).unwrap();
    let above = good.lines().count();
    let deep = format!("{}1{}", "(list ".repeat(20_000), ")".repeat(20_000));
    for form in ATTACKS.iter().copied().chain([deep.as_str()]) {
        let shown: String = form.chars().take(60).collect();
        std::fs::write(&path, format!("{good}\n{form}\n")).unwrap();
        let said = refusal(cluster, &format!("{shown} is refused"), FILE);
        println!("{shown}\n  {said}\n  {}", clients.so_far());
        let line = said.split_once(".scm:").and_then(|(_, at)| at.split(':').next()?.parse::<usize>().ok());
        assert!(line.is_some_and(|line| line > above), "{shown}: another place than line {}: {said}", above + 2);
        std::fs::write(&path, &good).unwrap();
        settled(cluster, &format!("all is well after {shown}"));
        assert!(REGIONS.iter().all(|region| generation(cluster, region) == Some(1)), "{shown} came into force");
    }
}

fn put(path: &Path, how: &str) {
    match how {
        "a pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "a folder" => std::fs::create_dir(path).unwrap(),
        "a device without an end" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        "a link to nowhere" => std::os::unix::fs::symlink("nowhere.scm", path).unwrap(),
        "a link to itself" => std::os::unix::fs::symlink(path, path).unwrap(),
        "bytes that are no text" => std::fs::write(path, b"(define a \xff\xfe)").unwrap(),
        "a file that is too large" => std::fs::write(path, "; ".repeat(200_000)).unwrap(),
        other => panic!("nothing known of {other}"),
    }
}

fn things_that_are_no_policy(cluster: &Cluster, clients: &Clients) {
    let kinds = [
        "a pipe",
        "a folder",
        "a device without an end",
        "a link to nowhere",
        "a link to itself",
        "bytes that are no text",
        "a file that is too large",
    ];
    for kind in kinds {
        let path = cluster.file("traffic-routing/odd.scm");
        put(&path, kind);
        let said = refusal(cluster, &format!("{kind} is refused"), "traffic-routing/odd.scm");
        println!("{kind}\n  {said}\n  {}", clients.so_far());
        if kind == "a folder" {
            std::fs::remove_dir(&path).unwrap()
        } else {
            std::fs::remove_file(&path).unwrap()
        }
        settled(cluster, &format!("all is well after {kind}"));
    }
    for kind in ["an empty file", "no file"] {
        let (path, aside) = (cluster.file(FILE), cluster.file("traffic-routing/aside"));
        std::fs::rename(&path, &aside).unwrap();
        if kind == "an empty file" {
            std::fs::write(&path, "").unwrap();
        }
        println!("{kind}\n  {}", refusal(cluster, &format!("{kind} is refused"), FILE));
        std::fs::rename(&aside, &path).unwrap();
        settled(cluster, &format!("all is well after {kind}"));
    }
}

#[test]
fn nothing_that_is_saved_or_typed_keeps_a_region_from_serving() {
    let cluster = Cluster::deployed();
    let clients = Clients::default();
    std::thread::scope(|scope| {
        scope.spawn(|| clients.ask(&cluster));
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("some answers", PATIENCE, || (clients.times.lock().unwrap().len() > 300).then_some(()));
            println!("before: {}", clients.so_far());
            things_that_are_no_policy(&cluster, &clients);
            forms_that_run_away(&cluster, &clients);
            for form in ["(let loop () (loop))", "(make-vector 1000000000000 0)", "(command \"id\" '())", "(car '())"] {
                let typed = cluster.run(&["repl", "--eval", form]);
                assert_eq!(typed.status.code(), Some(1), "{form}: {}", text(&typed));
                assert!(text(&typed).contains("--> input:1:"), "{form} has no place: {}", text(&typed));
                println!("typed {form}\n  {}\n  {}", text(&typed).trim(), clients.so_far());
            }
            // A good save is taken up as ever.
            let good = std::fs::read_to_string(cluster.file(FILE)).unwrap();
            std::fs::write(cluster.file(FILE), format!("{good}\n;; Good.\n")).unwrap();
            everywhere(&cluster, 2);
        }));
        clients.stop.store(true, Ordering::Relaxed);
        broken.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(*clients.failures.lock().unwrap(), Vec::<String>::new());
}

const MAPPING: &str = "region-config/region-mapping.scm";

/// The mapping with another region first, which is beyond the bounds, and a note.
fn mapping_with(good: &str, first: &str, note: &str) -> String {
    let judged = good.split_once("(test-module").map_or(good, |(judged, _)| judged);
    let from = "(list (if (complete? region) 0 1)";
    assert!(judged.contains(from), "{MAPPING} no longer has {from}");
    let to = format!("(list (if (equal? (region-id region) '{first}) 0 1)");
    format!("{};; {note}\n", judged.replace(from, &to))
}

#[test]
fn a_word_that_meets_a_save_is_for_what_it_names_or_for_nothing() {
    let cluster = Cluster::deployed();
    let latency = cluster.file("traffic-routing/latency-routing.scm");
    let by_distance = std::fs::read_to_string(&latency).unwrap();
    let by_distance = by_distance.split_once("(test-module").unwrap().0.to_owned();
    std::fs::write(&latency, by_distance.replace("(define near-equal 1.10)", "(define near-equal 1000)")).unwrap();
    let path = cluster.file(MAPPING);
    let good = std::fs::read_to_string(&path).unwrap();
    let waiting = |what: &str, not: &str| {
        until(what, PATIENCE, || {
            let hash = cluster.status("us-east")?["policy_waiting"]["hash"].as_str()?.to_owned();
            (hash != not).then_some(hash)
        })
    };
    let (mut last, mut taken, mut leads) = (String::new(), 0, "");
    for round in 0..6 {
        // Two changes that nobody may make without a word: one waits, the other is saved while its word is given.
        let mut others = REGIONS.into_iter().filter(|region| *region != leads);
        let (one, other) = (others.next().unwrap(), others.next().unwrap());
        std::fs::write(&path, mapping_with(&good, one, &format!("round {round}, first"))).unwrap();
        let first = waiting("the first change waiting", &last);
        let before = cluster.status("us-east").unwrap()["policy_hash"].clone();
        let word = std::thread::scope(|scope| {
            let word = scope.spawn(|| cluster.run(&["policy", "confirm", &first]));
            std::thread::park_timeout(Duration::from_millis(40 * round));
            std::fs::write(&path, mapping_with(&good, other, &format!("round {round}, second"))).unwrap();
            word.join().unwrap()
        });
        let said = text(&word);
        let confirmed = word.status.success();
        assert!(confirmed || (word.status.code() == Some(1) && said.contains("does not wait")), "{said}");
        if confirmed {
            (taken, leads) = (taken + 1, one);
        }
        // Whatever came of the word, the second change has none.
        let second = waiting("the second change waiting", &first);
        let status = cluster.status("us-east").unwrap();
        assert_ne!(status["policy_hash"].as_str(), Some(second.as_str()), "in force without a word: {status}");
        let in_force = if confirmed { first.clone().into() } else { before };
        assert_eq!(status["policy_hash"], in_force, "the word was {said}");
        last = second;
    }
    println!("{taken} of 6 words came before the save");
}

#[test]
fn of_operators_who_change_policies_at_once_all_get_an_answer_and_the_regions_agree() {
    let cluster = Cluster::deployed();
    let path = cluster.file(FILE);
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}\n;; The second.\n")).unwrap();
    everywhere(&cluster, 2);
    for round in 0..3 {
        std::thread::scope(|scope| {
            let back = |number: &'static str| cluster.run(&["policy", "rollback", number, "--reason", "a race"]);
            let racing: Vec<_> = ["1", "2", "1", "2"].map(|number| scope.spawn(move || back(number))).into();
            std::fs::write(&path, format!("{good}\n;; Saved in round {round}.\n")).unwrap();
            for one in racing {
                let ended = one.join().unwrap();
                let said = text(&ended);
                let answered = ended.status.success() || (ended.status.code() == Some(1) && said.contains("grew from"));
                assert!(answered, "{:?} {said}", ended.status);
            }
        });
        let agreed = until("all regions at the same generation, and nothing left to do", PATIENCE, || {
            let seen: Vec<_> = REGIONS.iter().filter_map(|region| cluster.status(region)).collect();
            let same = seen.len() == REGIONS.len()
                && seen.iter().all(|one| one["generation"] == seen[0]["generation"])
                && seen.iter().all(|one| one["policy_hash"] == seen[0]["policy_hash"]);
            same.then(|| seen[0]["generation"].as_u64())?
        });
        let history: serde_json::Value =
            serde_json::from_slice(&cluster.run(&["policy", "history", "--json"]).stdout).expect("JSON");
        let numbers: Vec<u64> =
            history.as_array().unwrap().iter().filter_map(|one| one["generation"].as_u64()).collect();
        let whole = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]) && numbers.last() >= Some(&agreed);
        assert!(whole, "{numbers:?}, and {agreed} was in force");
    }
}
