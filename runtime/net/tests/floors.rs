//! The house keeps its floors: see `runtime/ARCHITECTURE.md`.

use std::collections::BTreeMap;

/// Every room and its floor. A room may use rooms on lower floors only,
/// and those on its own floor that are named beside it.
const HOUSE: &[(&str, u8, &[&str])] = &[
    ("model", 0, &[]),
    ("config", 1, &[]),
    ("replication", 1, &[]),
    ("routing", 1, &[]),
    ("compliance", 1, &[]),
    ("edge", 1, &[]),
    ("world", 1, &[]),
    ("store", 1, &[]),
    // Its log lies in the store.
    ("control", 1, &["store"]),
    ("policy", 1, &[]),
    ("data", 2, &[]),
    ("net", 3, &[]),
    ("cloud", 3, &[]),
    // The simulator of tests/sim: it drives a data plane without sockets.
    ("sim", 3, &[]),
    ("repomind-run", 4, &[]),
];

fn rooms() -> BTreeMap<String, cargo_metadata::Package> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo describes the workspace");
    metadata.packages.into_iter().map(|package| (package.name.to_string(), package)).collect()
}

#[test]
fn no_room_stands_on_a_room_above_or_beside_it() {
    let rooms = rooms();
    let floor: BTreeMap<_, _> = HOUSE.iter().map(|(name, floor, beside)| (*name, (*floor, *beside))).collect();
    let mut edges = 0;
    for (name, package) in &rooms {
        let (own, beside) = floor.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no floor in HOUSE"));
        for dependency in package.dependencies.iter().filter(|dependency| rooms.contains_key(&dependency.name)) {
            if dependency.kind != cargo_metadata::DependencyKind::Normal {
                continue;
            }
            edges += 1;
            let (other, _) = floor[dependency.name.as_str()];
            let stands_below = other < *own || beside.contains(&dependency.name.as_str());
            assert!(stands_below, "{name} (floor {own}) uses {} (floor {other})", dependency.name);
        }
    }
    assert_eq!(rooms.len(), HOUSE.len(), "HOUSE names a room that is not there");
    assert!(edges > HOUSE.len(), "only {edges} edges were seen: the test reads the wrong graph");
}

#[test]
fn steel_is_touched_in_no_room_but_policy() {
    let users: Vec<_> = rooms()
        .into_iter()
        .filter(|(_, package)| package.dependencies.iter().any(|dependency| dependency.name.starts_with("steel")))
        .map(|(name, _)| name)
        .collect();
    assert!(users.iter().all(|user| user == "policy"), "{users:?} touch Steel");
}

#[test]
fn the_model_and_the_cores_know_no_runtime() {
    let rooms = rooms();
    for core in ["model", "config", "replication", "routing", "compliance", "edge", "world", "cloud"] {
        for dependency in &rooms[core].dependencies {
            assert!(!["tokio", "hyper", "rand"].contains(&dependency.name.as_str()), "{core} uses {}", dependency.name);
        }
    }
}

/// The cells of the tables in one section of a document, without heads.
fn rows_of(document: &str, section: &str) -> Vec<Vec<String>> {
    let begin = document.find(section).unwrap_or_else(|| panic!("no section {section}"));
    let text = document[begin + section.len()..].split("\n## ").next().unwrap_or_default();
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The names of all functions below `folder` that are marked as tests.
fn tests_below(folder: &std::path::Path, names: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let mut marked = false;
            for line in text.lines().map(str::trim_start) {
                marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let name =
                    line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
                if let Some(name) = name.filter(|_| std::mem::take(&mut marked)) {
                    names.insert(name.to_owned());
                }
            }
        }
    }
}

#[test]
fn every_path_that_data_can_take_names_code_and_a_test_that_are_there() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let document = std::fs::read_to_string(root.join("docs/compliance.md")).expect("docs/compliance.md");
    let mut tests = std::collections::BTreeSet::new();
    for folder in ["runtime", "tests"] {
        tests_below(&root.join(folder), &mut tests);
    }
    assert!(tests.len() > 500, "only {} tests were seen", tests.len());
    for (section, least) in [("## Where it is enforced", 25), ("## What is tried against it", 16)] {
        let rows = rows_of(&document, section);
        assert!(rows.len() >= least, "{section}: only {} rows", rows.len());
        for row in &rows {
            let [path, how, code, shown] = &row[..] else { panic!("{section}: {row:?} has not four cells") };
            let (code, shown) = (quoted(code), quoted(shown));
            assert!(!code.is_empty(), "{path}: no code is named");
            assert!(!shown.is_empty() || how.starts_with("**not**"), "{path}: no test is named");
            for file in code {
                assert!(root.join(file).is_file(), "{path}: there is no {file}");
            }
            for test in shown {
                assert!(tests.contains(test), "{path}: there is no test {test}");
            }
        }
    }
}
