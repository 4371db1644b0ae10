//! What an operator must be able to rely on at the command line.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::cluster::{BINARY, Cluster, text, until};
use crate::{REGIONS, SOON, files_below};

#[test]
fn bad_policies_are_refused_with_the_line_before_anything_starts() {
    let cluster = Cluster::tree();
    let file = cluster.file("traffic-routing/failover.scm");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}\n(no-such-function 1)\n")).unwrap();
    let refused = cluster.run(&["deploy", "--wan", "lan"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(
        text(&refused).contains("failover.scm:") && text(&refused).contains("no-such-function"),
        "{}",
        text(&refused)
    );
    std::fs::remove_file(&file).unwrap();
    let refused = cluster.run(&["deploy", "--wan", "lan"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let said = text(&refused);
    assert!(said.contains("this policy file is missing") && said.contains("traffic-routing/failover.scm"), "{said}");
    assert!(!cluster.state("").exists(), "a deployment that was refused left a state directory");
}

/// The processes whose command line names an address of this cluster.
fn processes_of(cluster: &Cluster) -> Vec<String> {
    let [first, second, ..] = cluster.address("us-east").octets();
    let block = format!("{first}.{second}.");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let words = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let words = words.map(|words| String::from_utf8_lossy(&words).replace('\0', " "));
    words.filter(|words| words.contains(&block)).collect()
}

#[test]
fn a_report_that_nobody_reads_takes_away_all_that_it_started() {
    let cluster = Cluster::tree();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut report = Command::new(BINARY)
        .args(["verify", "replication", "--seconds", "60"])
        .env("REPOMIND_TREE", cluster.file(""))
        .env("REPOMIND_STATE", cluster.state(""))
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader).lines();
    until("daemons of its own", SOON, || {
        lines.next();
        (processes_of(&cluster).len() == 6).then_some(())
    });
    drop(lines);
    assert_eq!(report.wait().unwrap().code(), Some(141));
    until("nothing is left of it", SOON, || processes_of(&cluster).is_empty().then_some(()));
}

#[test]
fn a_command_whose_reader_goes_away_ends_without_a_word() {
    let mut command = Command::new(BINARY);
    let mut running =
        command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(running.stdout.take());
    let mut said = String::new();
    running.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((running.wait().unwrap().code(), said.as_str()), (Some(141), ""));
}

/// What a session of the REPL says to what was typed.
fn typed(cluster: &Cluster, lines: &str) -> String {
    let mut command = Command::new(BINARY);
    command.args(["repl"]).env("REPOMIND_TREE", cluster.file("")).env("REPOMIND_STATE", cluster.state(""));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut session = command.spawn().unwrap();
    session.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    text(&session.wait_with_output().unwrap())
}

#[test]
fn a_deployment_is_private_is_told_from_others_and_keeps_nothing_of_a_test() {
    let cluster = Cluster::deployed();
    for path in files_below(&cluster.state("")).into_iter().chain([cluster.state(""), cluster.state("us-east/data")]) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let public = path.extension().is_some_and(|ending| ending == "pem" || ending == "pub");
        assert!(public || mode & 0o077 == 0, "others may read {}: {mode:o}", path.display());
    }

    let tested = cluster.run(&["load-test", "--rate", "20", "--seconds", "1"]);
    assert!(text(&tested).contains("records that this run had written were deleted"), "{}", text(&tested));
    for region in REGIONS {
        let left = cluster.ask(region, "GET", "/v1/data/load", &[], "").unwrap();
        assert!(left.status == 200 && left.body.contains("\"records\":[]"), "{region}: {}", left.body);
    }

    let refused = cluster.run(&["policy", "diff", "1", "99"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("generation 99 is not kept; there are 1 "), "{}", text(&refused));
    let refused = cluster.run(&["policy", "publish", ".", "--reason", " "]);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
    let refused = cluster.run(&["deploy", "--wan", "lan", "--first-port", "20000"]);
    assert!(text(&refused).contains("at other addresses: ap-southeast runs at 127."), "{}", text(&refused));
    let mut twice = Command::new(BINARY);
    twice.args(["start", "--region", "eu-west", "--first-port", "23000"]);
    let used = twice.arg("--tree").arg(cluster.file("")).arg("--state").arg(cluster.state("")).output().unwrap();
    assert!(text(&used).contains("eu-west/data is in use by process"), "{}", text(&used));

    let whole = cluster.run(&["repl", "--eval", "(make-string 5000 #\\a)"]);
    assert!(text(&whole).contains(&"a".repeat(5000)), "an answer was cut: {}", text(&whole));
    let session = typed(&cluster, "(define half 21)\n(define (twice x) (* x 2))\n(twice half)\n(route \"nowhere\")\n");
    assert!(session.contains("42"), "a definition was forgotten: {session}");
    assert!(session.contains("input:1:") && !session.contains("snapshot/"), "{session}");

    // From a folder of its own, with keys of its own, at the same addresses.
    let elsewhere = tempfile::tempdir().unwrap();
    let keys = elsewhere.path().join("pki");
    let run = |words: &[&str]| {
        let mut command = Command::new(BINARY);
        let command =
            command.args(words).env("REPOMIND_TREE", cluster.file("")).env("REPOMIND_STATE", elsewhere.path());
        command.output().unwrap()
    };
    let made = run(&["pki", "init", "--dir", keys.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made));
    for words in [&["status"][..], &["ledger", "verify"]] {
        let shown = run(words);
        assert_eq!(shown.status.code(), Some(2), "{words:?} took it for its own: {}", text(&shown));
        assert!(text(&shown).contains("no deployment is recorded in"), "{}", text(&shown));
        assert!(text(&shown).contains("another deployment"), "{}", text(&shown));
    }
}
