//! Sessions write, read and delete at all regions while processes are killed and paused and links are cut: what was
//! acknowledged is there in the end, what was deleted is not, and no session ever sees its past.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::REGIONS;
use crate::cluster::{Cluster, text, until};

const SESSIONS: usize = 4;
/// Between two rounds of a session.
const PACE: Duration = Duration::from_millis(40);
/// A fault lasts until so many more operations have been acknowledged.
const UNDER_FAULT: usize = 60;
/// The size of a disk that is filled, in MiB.
const DISK: u32 = 96;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the sessions and the one who breaks things share.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
}

/// One client, which goes to another region when one fails it, and hands its context on.
struct Session<'a> {
    cluster: &'a Cluster,
    progress: &'a Progress,
    number: usize,
    at: usize,
    context: Option<String>,
    /// Of the key that it writes again and again: the newest value that was acknowledged or read.
    newest: usize,
    /// What was acknowledged, by key; `None` where that was a delete.
    kept: BTreeMap<String, Option<String>>,
    /// Operations whose end is not known, so that both outcomes are right.
    unknown: usize,
    wrong: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(cluster: &'a Cluster, progress: &'a Progress, number: usize) -> Self {
        let kept = BTreeMap::new();
        Self { cluster, progress, number, at: number, context: None, newest: 0, kept, unknown: 0, wrong: Vec::new() }
    }

    fn region(&self) -> &'static str {
        REGIONS[self.at % REGIONS.len()]
    }

    /// The answer, if it says that all is well; otherwise the session goes elsewhere.
    fn ask(&mut self, method: &str, key: &str, ack: &str, body: &str) -> Option<(u16, String)> {
        let mut headers = vec![("repomind-ack", ack)];
        let context = self.context.clone();
        headers.extend(context.as_deref().map(|context| ("repomind-context", context)));
        let answer = self.cluster.ask(self.region(), method, &format!("/v1/data/notes/{key}"), &headers, body);
        match answer {
            Ok(answer) if answer.status / 100 == 2 || (method == "GET" && answer.status == 404) => {
                self.context = answer.headers.get("repomind-context").cloned().or(context);
                self.progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some((answer.status, answer.body))
            }
            _ => {
                self.unknown += 1;
                self.at += 1;
                None
            }
        }
    }

    fn run(mut self) -> Self {
        let mut round = 0;
        while !self.progress.stop.load(Ordering::Relaxed) {
            round += 1;
            self.write_once(round);
            self.write_again(round);
            self.read();
            std::thread::park_timeout(PACE);
        }
        self
    }

    /// A key of its own in every round; some are deleted in the next.
    fn write_once(&mut self, round: usize) {
        let (key, value) = (format!("once-{}-{round}", self.number), format!("value {round} of {}", self.number));
        let ack = if round.is_multiple_of(2) { "local" } else { "regions:2" };
        if self.ask("PUT", &key, ack, &value).is_some() {
            self.kept.insert(key.clone(), Some(value));
            if round.is_multiple_of(5) {
                self.kept.remove(&key);
                if self.ask("DELETE", &key, "local", "").is_some() {
                    self.kept.insert(key, None);
                }
            }
        }
    }

    fn write_again(&mut self, round: usize) {
        let key = format!("again-{}", self.number);
        if self.ask("PUT", &key, "local", &round.to_string()).is_some() {
            self.newest = round;
        }
    }

    /// What it reads is never older than what it wrote or read before, in whichever region it is by now.
    fn read(&mut self) {
        let (key, before, region) = (format!("again-{}", self.number), self.newest, self.region());
        match self.ask("GET", &key, "local", "") {
            Some((200, body)) => match body.parse() {
                Ok(found) if found >= before => self.newest = found,
                _ => self.wrong.push(format!("{key} was {before} and then {body:?} in {region}")),
            },
            Some((status, body)) if before > 0 => {
                self.wrong.push(format!("{key} was {before} and then {status} in {region}: {body}"));
            }
            _ => {}
        }
    }
}

fn signal(cluster: &Cluster, region: &str, signal: Signal) {
    for pid in cluster.processes(region) {
        kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("the process is there");
    }
}

fn change(cluster: &Cluster, region: &str, link: &str) {
    let answer = cluster.admin(region, "PUT", "/wan", link).expect("the admin address answers");
    assert_eq!(answer.status / 100, 2, "{}", answer.body);
}

/// Breaks one thing after the other, each until clients have done more.
fn break_things(cluster: &Cluster, progress: &Progress) {
    let more = |what: &str| {
        let goal = progress.acknowledged.load(Ordering::Relaxed) + UNDER_FAULT;
        until(what, PATIENCE, || (progress.acknowledged.load(Ordering::Relaxed) >= goal).then_some(()));
    };
    more("work without a fault");
    for region in REGIONS {
        cluster.kill(region);
        more("work while a region is dead");
        let again = cluster.run(&["deploy", "--wan", "lan"]);
        assert!(again.status.success(), "{}", text(&again));
        more("work after it came back");
    }
    signal(cluster, "eu-west", Signal::STOP);
    more("work while a region is paused");
    signal(cluster, "eu-west", Signal::CONT);
    more("work after the pause");
    for cut in ["out", "in", "both"] {
        change(cluster, "us-east", &format!(r#"{{"peer":"ap-southeast","cut":"{cut}"}}"#));
        more("work while a link is cut");
        change(cluster, "us-east", r#"{"peer":"ap-southeast","cut":"none","loss":0.1}"#);
        more("work while a link loses");
        change(cluster, "us-east", r#"{"peer":"ap-southeast","loss":0}"#);
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_no_session_sees_its_past_while_regions_die_pause_and_part() {
    let cluster = Cluster::deployed();
    let progress = Progress::default();
    let sessions: Vec<Session<'_>> = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let session = Session::new(&cluster, &progress, number);
                scope.spawn(move || session.run())
            })
            .collect();
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| break_things(&cluster, &progress)));
        progress.stop.store(true, Ordering::Relaxed);
        let sessions = sessions.into_iter().map(|session| session.join().expect("a session")).collect();
        broken.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sessions
    });

    until("equal digests", PATIENCE, || {
        let digests: Vec<_> =
            REGIONS.iter().filter_map(|region| Some(cluster.admin(region, "GET", "/digests", "").ok()?.body)).collect();
        (digests.len() == 3 && digests[0].len() > 10 && digests.iter().all(|digest| *digest == digests[0]))
            .then_some(())
    });
    let (mut kept, mut deleted, mut unknown) = (0, 0, 0);
    for session in &sessions {
        assert_eq!(session.wrong, Vec::<String>::new());
        unknown += session.unknown;
        for (key, value) in &session.kept {
            let found = cluster.ask("us-east", "GET", &format!("/v1/data/notes/{key}"), &[], "").expect("an answer");
            match value {
                Some(value) => {
                    assert_eq!((found.status, &found.body), (200, value), "an acknowledged write of {key} is lost");
                    kept += 1;
                }
                None => {
                    assert_eq!(found.status, 404, "a deleted record came back: {key} {}", found.body);
                    deleted += 1;
                }
            }
        }
    }
    println!("{kept} writes kept, {deleted} deletes stayed, {unknown} operations with an unknown end");
    assert!(kept > 100 && deleted > 10, "too little was done: {kept} writes, {deleted} deletes");
}

/// A small disk of its own, taken away with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, mebibytes: u32) -> Self {
        std::fs::create_dir_all(&at).expect("a folder");
        let disk = Self(at);
        disk.command(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "tmpfs"]);
        disk
    }

    fn grow(&self, mebibytes: u32) {
        self.command(&["-o", &format!("remount,size={mebibytes}m")]);
    }

    fn command(&self, words: &[&str]) {
        let output = Command::new("mount").args(words).arg(&self.0).output().expect("mount runs");
        assert!(output.status.success(), "mount {words:?}: {}", text(&output));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_region_whose_disk_is_full_says_so_keeps_what_it_acknowledged_and_serves_again_once_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "mounting a small disk needs root");
        eprintln!("not run: mounting a small disk needs root");
        return;
    }
    // Declared first, so that it goes last: the log of the region is on it.
    let disk;
    let cluster = Cluster::tree();
    disk = SmallDisk::mount(cluster.state("eu-west"), DISK);
    let deployed = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(deployed.status.success(), "{}\n{}", text(&deployed), cluster.logs());

    let value = "x".repeat(900_000);
    let mut kept = Vec::new();
    let refused = (0..4 * DISK).find_map(|number| {
        let path = format!("/v1/data/notes/large-{number}");
        let answer = cluster.ask("eu-west", "PUT", &path, &[], &format!("{number} {value}")).expect("an answer");
        if answer.status / 100 == 2 {
            kept.push((path, number));
        }
        (answer.status / 100 != 2).then_some(answer)
    });
    let refused = refused.expect("the disk fills");
    assert!(matches!(refused.status, 503 | 507), "{} {}", refused.status, refused.body);
    assert!(!kept.is_empty());
    until("the reason in the status", PATIENCE, || {
        let said = text(&cluster.run(&["status"]));
        let room = said.lines().find(|line| line.starts_with("eu-west: not ready"))?.split_once(", where ")?.1;
        let free: u32 = room.split_once(" MiB are free")?.0.parse().ok()?;
        (free < DISK / 2).then_some(())
    });
    until("seen as down by the others", PATIENCE, || {
        (cluster.status("us-east")?["sees"]["eu-west"] == "down").then_some(())
    });
    let served = cluster.ask("us-east", "GET", "/hello", &[("x-forwarded-for", "217.0.0.1")], "").unwrap();
    assert_eq!(served.status, 200, "a German request is served elsewhere: {}", served.body);

    disk.grow(4 * DISK);
    cluster.kill("eu-west");
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}\n{}", text(&again), cluster.logs());
    for (path, number) in &kept {
        let read = until("the record after the restart", PATIENCE, || {
            cluster.ask("eu-west", "GET", path, &[], "").ok().filter(|read| read.status != 503)
        });
        assert_eq!(read.status, 200, "{path}, which was acknowledged, is lost");
        assert!(read.body == format!("{number} {value}"), "{path} has other bytes");
    }
}
