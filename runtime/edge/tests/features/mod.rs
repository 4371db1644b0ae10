//! The table of what each kind of edge does names tests; they exist, and every row says something of every kind.

use std::collections::BTreeSet;
use std::path::Path;

/// Where the tests that the table may name are written.
const FOLDERS: [&str; 3] =
    ["runtime/edge/tests", "runtime/daemon/tests/scenarios", "edge-deployment/cloudflare-workers/test"];

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of tests in the files of a folder and those below it: functions of Rust, sentences of JavaScript.
fn names(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of tests").flatten() {
        let path = entry.path();
        if path.is_dir() {
            names(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        match path.extension().and_then(|end| end.to_str()) {
            Some("rs") => {
                let tests = text.split("#[test]\n").skip(1);
                found.extend(tests.filter_map(|test| Some(test.split_once("fn ")?.1.split_once('(')?.0.to_owned())));
            }
            Some("mjs") => {
                let tests = text.split("\ntest(\"").skip(1);
                found.extend(tests.filter_map(|test| Some(test.split_once('"')?.0.to_owned())));
            }
            _ => {}
        }
    }
}

#[test]
fn every_feature_names_a_test_that_there_is_or_says_why_not() {
    let mut known = BTreeSet::new();
    FOLDERS.iter().for_each(|folder| names(&root().join(folder), &mut known));
    let text = std::fs::read_to_string(root().join("docs/edge-features.md")).expect("the table");
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| feature")).collect();
    assert!(rows.len() >= 25, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        for cell in &cells[1..] {
            let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            if named.is_empty() && !cell.starts_with("no: ") {
                wrong.push(format!("{}: {cell:?} is neither a test nor a reason", cells[0]));
            }
            let unknown = named.into_iter().filter(|name| !known.contains(*name));
            wrong.extend(unknown.map(|name| format!("{}: there is no test {name:?}", cells[0])));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
