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
