//! What is declared for the edge, compiled: the files in the repository are fresh, and what cannot be is refused.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::REGIONS;
use crate::cluster::{Cluster, generation, text, until};

/// A gate, and where the machine has much to do another primary.
const PATIENCE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_repomind-run")).args(words).output().expect("the binary runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The repository's tree with another edge policy.
pub(super) fn tree(edge: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for file in model::bundle::POLICY_FILES {
        copy(&root().join(file), &dir.path().join(file));
    }
    for region in ["us-east", "eu-west", "ap-southeast"] {
        let file = format!("region-config/{region}.yml");
        copy(&root().join(&file), &dir.path().join(&file));
    }
    std::fs::write(dir.path().join("edge-deployment/edge-cache.scm"), edge).expect("a file");
    dir
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    std::fs::copy(from, to).expect("a file");
}

pub(super) fn policy() -> String {
    std::fs::read_to_string(root().join("edge-deployment/edge-cache.scm")).expect("the policy")
}

#[test]
fn the_edge_programs_in_the_repository_are_what_the_policies_give() {
    let tree = root();
    let tree = tree.to_str().expect("a path");
    let checked =
        run(&["edge", "build", "--check", "--reduced", "--backend", "varnish", "--backend", "nginx", "--tree", tree]);
    assert!(checked.status.success(), "{}", said(&checked));
    let schema = run(&["edge", "schema"]);
    let kept = std::fs::read(root().join("edge-deployment/edge-form.schema.json")).unwrap_or_default();
    assert!(schema.stdout == kept, "edge-deployment/edge-form.schema.json: `repomind-run edge schema` writes it");
}

#[test]
fn the_corpus_is_made_from_its_policy() {
    let corpus = root().join("runtime/edge/tests/corpus");
    let dir = tree(&std::fs::read_to_string(corpus.join("edge-cache.scm")).expect("the policy of the corpus"));
    let (tree, out) = (dir.path().to_str().expect("a path"), corpus.to_str().expect("a path"));
    let checked = run(&["edge", "build", "--check", "--backend", "cloudflare", "--tree", tree, "--out", out]);
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn what_a_backend_cannot_do_is_refused_at_its_line_and_nothing_is_written() {
    let limit = "(rate . 600) (per . 60)))";
    for (from, to, backend, line, why) in [
        (
            limit,
            "(rate . 600) (per . 60) (scope . exact)))",
            "varnish",
            "(scope . exact)",
            "each instance counts by itself",
        ),
        (limit, "(rate . 600) (per . 61)))", "cloudflare", "(per . 61)", "windows of 10 or 60 seconds"),
        ("(where . edge-or-origin)", "(where . edge)", "varnish", "(where . edge)", "verifies no signatures"),
        (
            "'(tags . (\"pages\"))",
            "'(tags . (\"pages\")) '(class . personal)",
            "cloudflare",
            "default-short",
            "every country",
        ),
        (
            "(status . (404 410))",
            "(status . (404 410)) (content-type . (\"text/\"))",
            "nginx",
            "content-type",
            "no times by content type",
        ),
    ] {
        let text = policy();
        assert!(text.contains(from), "{from}");
        let text = text.replace(from, to);
        let dir = tree(&text);
        let refused = run(&["edge", "build", "--backend", backend, "--tree", dir.path().to_str().expect("a path")]);
        let shown = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{shown}");
        let at = text.lines().position(|found| found.contains(line)).expect("the line") + 1;
        let found = shown.contains(&format!("edge-cache.scm:{at}:")) || line == "default-short";
        assert!(found && shown.contains(why) && shown.contains(backend), "line {at}: {shown}");
        assert!(!dir.path().join("edge-deployment/cdn-config").exists(), "something was written");
    }
}

/// What `check` says of the repository's tree after `from` became `to`.
fn checked(from: &str, to: &str) -> String {
    let text = policy();
    assert!(text.contains(from), "{from}");
    let dir = tree(&text.replace(from, to));
    let refused = run(&["check", "--tree", dir.path().to_str().expect("a path")]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    String::from_utf8_lossy(&refused.stderr).into_owned()
}

#[test]
fn what_a_kind_of_edge_in_use_cannot_do_is_a_finding_of_check() {
    let limit = "(rate . 600) (per . 60)))";
    insta::assert_snapshot!(
        "an_exact_limit_while_varnish_is_in_use",
        checked(limit, "(rate . 600) (per . 60) (scope . exact)))")
    );
    insta::assert_snapshot!("a_guard_that_varnish_cannot_keep", checked("(where . edge-or-origin)", "(where . edge)"));
    insta::assert_snapshot!(
        "personal_pages_while_cloudflare_is_in_use",
        checked("'(tags . (\"pages\"))", "'(tags . (\"pages\")) '(class . personal)")
    );
    insta::assert_snapshot!("a_full_nginx_that_cannot_do_it_all", checked("'nginx-reduced", "'nginx"));
    // A kind that is not in use refuses nothing.
    let dir = tree(
        &policy()
            .replace("'cloudflare 'varnish 'nginx-reduced", "'cloudflare")
            .replace(limit, "(rate . 600) (per . 60) (scope . exact)))"),
    );
    let good = run(&["check", "--tree", dir.path().to_str().expect("a path")]);
    assert!(good.status.success(), "{}", said(&good));
}

#[test]
fn a_saved_rule_that_an_edge_in_use_cannot_do_is_refused_at_its_line_and_nothing_changes() {
    let cluster = Cluster::deployed();
    let file = cluster.file("edge-deployment/edge-cache.scm");
    let good = std::fs::read_to_string(&file).unwrap();
    let bad = good.replace("(rate . 600) (per . 60)))", "(rate . 600) (per . 60) (scope . exact)))");
    let line = bad.lines().position(|line| line.contains("(scope . exact)")).unwrap() + 1;
    std::fs::write(&file, &bad).unwrap();
    let error = until("the refusal in the status", PATIENCE, || {
        let status = cluster.status("us-east")?;
        Some(status["policy_errors"].as_array()?.first()?.as_str()?.to_owned())
    });
    assert!(error.contains(&format!("edge-cache.scm:{line}:")) && error.contains("varnish cannot do"), "{error}");
    assert!(REGIONS.iter().all(|region| generation(&cluster, region) == Some(1)), "it came into force");

    // A change of rules is named by what it does; one of residency by the answers that it makes edges give up.
    std::fs::write(&file, good.replace("(edge-ttl . 10)", "(edge-ttl . 20)")).unwrap();
    until("the better rule in force", PATIENCE, || (generation(&cluster, "us-east")? == 2).then_some(()));
    let diff = text(&cluster.run(&["policy", "diff", "1"]));
    assert!(diff.contains("cache rule `not-there`") && diff.contains("edge 20 s"), "{diff}");
    assert!(diff.contains("what the edges keep by the cache rule `default-short`"), "{diff}");
    let logs =
        REGIONS.map(|region| std::fs::read_to_string(cluster.state(region).join("daemon.log")).unwrap_or_default());
    let named = logs.iter().any(|log| log.contains("this change: ") && log.contains("`not-there`"));
    assert!(named, "no log names the rule that changed");
}

#[test]
fn data_that_may_lie_nowhere_is_not_cached_anywhere() {
    let dir = tree(&policy().replace("'(tags . (\"pages\"))", "'(tags . (\"pages\")) '(class . personal)"));
    let explained = run(&[
        "explain",
        "edge",
        "--url",
        "https://www.example.org/x",
        "--backend",
        "varnish",
        "--region",
        "eu-west",
        "--json",
        "--answer-header",
        "repomind-jurisdiction: RU",
        "--tree",
        dir.path().to_str().expect("a path"),
    ]);
    let report: serde_json::Value =
        serde_json::from_slice(&explained.stdout).unwrap_or_else(|_| panic!("{}", said(&explained)));
    assert_eq!(report["answer"]["kept"], false, "{report}");
    assert_eq!(report["answer"]["why"], "residency", "{report}");
}

#[test]
fn an_explanation_names_rule_key_times_tags_guard_limits_and_regions() {
    let tree = root();
    let tree = tree.to_str().expect("a path");
    let explained = run(&[
        "explain",
        "edge",
        "--tree",
        tree,
        "--url",
        "https://www.example.org/assets/a.css?x=1",
        "--country",
        "DE",
    ]);
    let shown = said(&explained);
    for part in [
        "rule     assets-long",
        "key      host=www.example.org path=/assets/a.css\n",
        "kept     2592000 s by assets-long",
        "rule:assets-long, assets",
        "regions  eu-west",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let explained =
        run(&["explain", "edge", "--tree", tree, "--url", "https://www.example.org/reports/1", "--backend", "varnish"]);
    assert!(
        said(&explained).contains("guard    reports: a bearer token of https://id.repomind.io, verified by the origin")
    );
    let explained = run(&["explain", "edge", "--tree", tree, "--url", "https://www.example.org/v1/data/x"]);
    let shown = said(&explained);
    assert!(shown.contains("limit    data-per-client") && shown.contains("not looked up: rule"), "{shown}");
}
