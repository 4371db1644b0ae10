//! What the tests and measurements of this crate share: the tree as it stands in
//! the repository, facts to go with it, and hosts of the test's own executable.
// Each binary uses a part.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use model::bundle::{POLICY_FILES, PolicyTree};
use model::record::{Address, Basis, Content, DataClass, Labels, Payload, Purpose, Record, Sibling};
use model::region::Coordinates;
use model::residency::{Law, ResidencyCase, ScopeId};
use model::routing::{ClientClass, ClientFacts, Facts, RegionFacts, RegionState};
use model::version::{Actor, CausalContext, Dot, Incarnation, Version};
use model::{Country, Finding, Hlc, Micros, Namespace, NodeId, RegionId, UnixMillis};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Scheme library of the repository.
pub fn library() -> BTreeMap<String, String> {
    library_in(&root())
}

/// The Scheme library of a tree.
pub fn library_in(root: &Path) -> BTreeMap<String, String> {
    let modules = std::fs::read_dir(root.join("scm/repomind")).into_iter().flatten().flatten();
    modules
        .filter_map(|entry| {
            let name = format!("repomind/{}", entry.file_name().to_str()?);
            Some((name, std::fs::read_to_string(entry.path()).ok()?))
        })
        .collect()
}

/// The ten policy files of the repository.
pub fn tree() -> PolicyTree {
    tree_in(&root())
}

/// The policy files that a tree has.
pub fn tree_in(root: &Path) -> PolicyTree {
    let read = |file: &&str| Some(((*file).to_owned(), std::fs::read_to_string(root.join(file)).ok()?));
    PolicyTree(POLICY_FILES.iter().filter_map(read).collect())
}

/// The tree with `text` at the end of `file`.
pub fn tree_with(file: &str, text: &str) -> PolicyTree {
    let mut tree = tree();
    let body = tree.0.entry(file.to_owned()).or_default();
    body.push_str(text);
    body.push('\n');
    tree
}

/// The tree after each `(from, to)` was replaced in `file`. Panics where there is nothing to replace.
pub fn tree_replacing(file: &str, edits: &[(&str, &str)]) -> PolicyTree {
    let mut tree = tree();
    let body = tree.0.get_mut(file).expect("a policy file");
    for (from, to) in edits {
        assert!(body.contains(from), "{file} has no {from:?}");
        *body = body.replacen(from, to, 1);
    }
    tree
}

/// A region's id.
pub fn id(name: &str) -> RegionId {
    RegionId::new(name).expect("a name")
}

fn country(code: &str) -> Country {
    Country::new(code).expect("a country")
}

const REGIONS: &[(&str, &str, f64, f64)] = &[
    ("ap-southeast", "SG", 1.3, 103.8),
    ("eu-west", "IE", 53.3, -6.3),
    ("us-east", "US", 38.9, -77.4),
    ("eu-central", "DE", 50.1, 8.7),
    ("ap-northeast", "JP", 35.7, 139.7),
];

/// Facts of the first `regions` regions (at most five) and clients of so many countries that do not exist.
pub fn facts_of(regions: usize, clients: usize) -> Facts {
    let chosen = &REGIONS[..regions];
    let region = |&(name, code, latitude, longitude): &(&str, &str, f64, f64)| RegionFacts {
        id: id(name),
        country: country(code),
        jurisdiction: country(code),
        coordinates: Coordinates { latitude, longitude },
        features: ["full-api", "websockets"].map(|name| name.parse().expect("a feature")).into_iter().collect(),
        primary: name == "us-east",
        max_instances: 50,
        state: RegionState::Ready,
        round_trips: chosen
            .iter()
            .filter(|other| other.0 != name)
            .map(|other| (id(other.0), Micros::from_millis((70 + (latitude - other.2).abs() as u64) * 2)))
            .collect(),
    };
    let client = |number: usize| {
        let letter = |at: usize| char::from(b'A' + (at % 26) as u8);
        let code: String = [letter(number / 26), letter(number)].into_iter().collect();
        ClientFacts {
            class: ClientClass { country: Some(country(&code)) },
            continent: Some(["EU", "NA", "AS", "SA", "AF"][number % 5].to_owned()),
            coordinates: Some(Coordinates {
                latitude: (number * 37 % 140) as f64 - 70.0,
                longitude: (number * 83 % 360) as f64 - 180.0,
            }),
        }
    };
    Facts { regions: chosen.iter().map(region).collect(), clients: (0..clients).map(client).collect() }
}

/// The three regions of the default tree and a few clients.
pub fn facts() -> Facts {
    facts_of(3, 5)
}

/// Every residency case.
pub fn cases() -> Vec<ResidencyCase> {
    let mut cases = BTreeSet::new();
    for (&class, law) in DataClass::ALL.iter().flat_map(|class| Law::all().into_iter().map(move |law| (class, law))) {
        for (&basis, &purpose) in
            Basis::ALL.iter().flat_map(|basis| Purpose::ALL.iter().map(move |purpose| (basis, purpose)))
        {
            cases.insert(ResidencyCase { class, law, basis, purpose });
        }
    }
    cases.into_iter().collect()
}

/// A key.
pub fn address(key: &str) -> Address {
    Address { namespace: Namespace::new("settings").expect("a name"), key: key.parse().expect("a key") }
}

/// The scope of sixteen zeros: resolvers do not see it.
fn nowhere() -> ScopeId {
    postcard::from_bytes(&[0; 16]).expect("sixteen bytes")
}

/// A write of `value` in a region, at a time in ms.
pub fn sibling(region: &str, time: u64, value: &str) -> Sibling {
    let actor = Actor { region: id(region), node: NodeId(1), incarnation: Incarnation(1) };
    let version = Version {
        dot: Dot { actor, counter: time },
        hlc: Hlc::new(UnixMillis(time), 0),
        context: CausalContext::new(),
    };
    let record = Record {
        payload: Payload::Plain(value.as_bytes().to_vec().into()),
        content_type: "text/plain".to_owned(),
        labels: Labels::of_class(DataClass::Operational, UnixMillis(time)),
        generation: 1,
    };
    Sibling { version, scope: nowhere(), content: Content::Live(record) }
}

/// The findings, drawn, with an empty line between them.
pub fn drawn(findings: &[Finding]) -> String {
    findings.iter().map(|finding| finding.render(false)).collect::<Vec<_>>().join("\n\n")
}
