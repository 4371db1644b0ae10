//! The REPL, as somebody types into it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cluster::{BINARY, Cluster, text};

/// What a session says to lines from a pipe.
fn typed(cluster: &Cluster, lines: &str) -> String {
    session(cluster, &mut Command::new(BINARY), &["repl"], lines)
}

/// What a session on a terminal says; nothing where `script` (util-linux) is missing, outside of CI.
fn on_a_terminal(cluster: &Cluster, keys: &str) -> Option<String> {
    if Command::new("script").arg("--version").output().is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "`script` of util-linux is missing");
        return None;
    }
    // All keys are there before the terminal is in raw mode: control characters would be the terminal's, not ours.
    let words = ["120", "script", "-qec", &format!("{BINARY} repl"), "/dev/null"];
    Some(session(cluster, Command::new("timeout").env("TERM", "xterm"), &words, keys))
}

fn session(cluster: &Cluster, command: &mut Command, words: &[&str], keys: &str) -> String {
    command.args(words).env("REPOMIND_TREE", cluster.file("")).env("REPOMIND_STATE", cluster.state(""));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut session = command.spawn().unwrap();
    session.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
    text(&session.wait_with_output().unwrap())
}

#[test]
fn what_changes_something_is_asked_about_and_what_is_known_is_told() {
    let cluster = Cluster::deployed();
    let pin = "(pin! 'ap-southeast '(JP) \"1h\" \"a fair\")";
    let no = typed(&cluster, &format!("{pin}\nn\n(orders)\n"));
    assert!(no.contains("pin clients in JP to ap-southeast? [y/N]") && no.contains("nothing was changed"), "{no}");
    assert!(no.contains("\n()"), "{no}");
    let yes = typed(&cluster, &format!("{pin}\ny\n"));
    assert!(yes.contains("done: order 1"), "{yes}");
    let told = typed(&cluster, "(orders)\n(list (restore! 'ap-southeast))\n(drain! us-east)\n,doc drain!\n,doc lag\n");
    assert!(told.contains("clients in JP are pinned to ap-southeast"), "{told}");
    assert!(told.contains("type (restore! …) by itself"), "{told}");
    assert!(told.contains("write (drain! 'REGION"), "{told}");
    assert!(told.contains("asks before it acts") && told.contains("backlog towards each peer"), "{told}");
    let lags = typed(&cluster, "(lag 'us-east 'eu-west)\n(lag 'eu-west 'us-east)\n");
    assert!(lags.contains("lag-ms") && lags.contains("start the REPL with --region"), "{lags}");
    let eval = cluster.run(&["repl", "--eval", "(restore! 'ap-southeast)"]);
    assert_eq!(eval.status.code(), Some(1), "done without a yes: {}", text(&eval));

    let Some(shown) = on_a_terminal(&cluster, "(if #t 'a \"b\")\n(define (twice x)\n  (* x 2))\n(twice 21)\n,quit\n")
    else {
        return;
    };
    for part in ["\u{1b}[1mif\u{1b}[0m", "\u{1b}[36m'a\u{1b}[0m", "\u{1b}[32m\"b\"", "42"] {
        assert!(shown.contains(part), "no {part:?} in {shown:?}");
    }
    let history = std::fs::read_to_string(cluster.state("repl-history")).unwrap();
    assert!(history.contains("(twice 21)") && history.contains("(orders)"), "{history}");
}
