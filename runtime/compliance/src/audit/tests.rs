use std::sync::Arc;

use model::codec;
use model::record::{Content, Labels, Payload, Record, Row, Sibling};
use model::residency::{CaseRuling, RegionPolicy, Verdict};
use model::version::{Actor, CausalContext, Dot, Incarnation, Version};
use model::{Country, Hlc, NodeId};

use super::*;

fn region(id: &str) -> RegionId {
    RegionId::new(id).unwrap()
}

const REGIONS: [&str; 3] = ["ap-southeast", "eu-west", "us-east"];

/// Personal data may be in `eu-west` alone, public data anywhere.
fn plan() -> ResidencyPlan {
    let mut cases = BTreeMap::new();
    for class in [DataClass::Public, DataClass::Personal] {
        for law in [Law::None, Law::Eea] {
            let mut ruling = CaseRuling::default();
            for id in REGIONS {
                let verdict = if class == DataClass::Public || id == "eu-west" {
                    Verdict::Allow {
                        rule: RuleId::new("may-be-here").unwrap(),
                        obligations: BTreeSet::new(),
                        valid_from: UnixMillis(0),
                        valid_until: UnixMillis::MAX,
                    }
                } else {
                    Verdict::Deny { rule: RuleId::new("stays-in-the-eea").unwrap() }
                };
                ruling.hold.insert(region(id), verdict);
            }
            let case = ResidencyCase { class, law, basis: Basis::Unstated, purpose: Purpose::Service };
            cases.insert(case, Arc::new(ruling));
        }
    }
    let policy = |id: &str| RegionPolicy {
        region: region(id),
        jurisdiction: Country::new("IE").unwrap(),
        accepts: BTreeSet::from([DataClass::Public, DataClass::Personal]),
        requires: BTreeSet::new(),
    };
    ResidencyPlan::new(cases, REGIONS.iter().map(|id| (region(id), policy(id))).collect())
}

fn stored(class: DataClass) -> Vec<u8> {
    let mut labels = Labels::of_class(class, UnixMillis(1_767_225_600_000));
    labels.jurisdictions.insert(Country::new("DE").unwrap());
    labels.retain_until = Some(UnixMillis(1_900_000_000_000));
    labels.holds.insert("case-7".into());
    let scope = plan().permit(&labels, &region("eu-west"), UnixMillis(1)).unwrap().scope();
    let actor = Actor { region: region("eu-west"), node: NodeId(0), incarnation: Incarnation(3) };
    let mut context = CausalContext::new();
    context.observe(&Dot { actor: actor.clone(), counter: 300 });
    let version = Version { dot: Dot { actor, counter: 301 }, hlc: Hlc::new(UnixMillis(9), 1), context };
    let record = Record {
        payload: Payload::Sealed { key_ref: "k1".into(), nonce: [7; 12], ciphertext: vec![0; 300].into() },
        content_type: "text/plain".into(),
        labels: labels.clone(),
        generation: 12,
    };
    let live = Sibling { version: version.clone(), scope, content: Content::Live(record) };
    let gone = Sibling { version, scope, content: Content::Tombstone { labels } };
    codec::encode(&Row { siblings: vec![live, gone] })
}

fn audit(rows: &[(&str, Vec<u8>)]) -> (Outcome, Vec<AuditFinding>) {
    let plan = plan();
    let mut audit = Audit::new(&plan, UnixMillis(1_767_225_700_000));
    rows.iter().for_each(|(at, row)| audit.row(&region(at), b"notes\0k", row));
    audit.finish()
}

fn clean() -> Vec<(&'static str, Vec<u8>)> {
    REGIONS.iter().map(|&id| (id, stored(DataClass::Public))).collect()
}

#[test]
fn both_readers_read_the_same_labels() {
    let siblings = raw::row(&stored(DataClass::Personal)).unwrap();
    let expected = raw::Labels {
        jurisdictions: vec!["DE".into()],
        classes: vec!["personal"],
        purpose: "service",
        basis: "unstated",
    };
    let seen: Vec<_> = siblings.into_iter().map(|sibling| (sibling.labels, sibling.generation)).collect();
    assert_eq!(seen, [(Some(expected.clone()), Some(12)), (Some(expected), None)]);
}

#[test]
fn data_where_it_may_be_passes() {
    let mut rows = clean();
    rows.push(("eu-west", stored(DataClass::Personal)));
    assert_eq!(audit(&rows), (Outcome::Pass, vec![]));
}

#[test]
fn personal_data_planted_abroad_is_found() {
    let mut rows = clean();
    rows.push(("us-east", stored(DataClass::Personal)));
    let (outcome, findings) = audit(&rows);
    assert_eq!(outcome, Outcome::Violations);
    let seen: Vec<_> = findings.iter().map(|f| (f.check, f.region.as_str(), f.rule.as_str(), f.generation)).collect();
    // The record and the delete that keeps its labels.
    assert_eq!(
        seen,
        [("RES-01", "us-east", "stays-in-the-eea", Some(12)), ("RES-01", "us-east", "stays-in-the-eea", None)]
    );
    assert!(!findings[0].record.contains("notes"));
}

#[test]
fn a_missing_label_is_found() {
    let mut row: Row = codec::decode(&stored(DataClass::Public)).unwrap();
    if let Content::Tombstone { labels } = &mut row.siblings[1].content {
        labels.classes.clear();
    }
    let mut rows = clean();
    rows.push(("eu-west", codec::encode(&row)));
    let (outcome, findings) = audit(&rows);
    assert_eq!((outcome, findings[0].check), (Outcome::Violations, "LBL-01"));
}

#[test]
fn damaged_bytes_are_found_and_too_little_is_never_a_pass() {
    let mut damaged = stored(DataClass::Public);
    damaged[20] ^= 1;
    let mut rows = clean();
    rows.push(("eu-west", damaged));
    assert_eq!(audit(&rows).1[0].check, "LBL-03");
    assert_eq!(audit(&clean()[..2]).0, Outcome::Incomplete);
    assert_eq!(audit(&[]).0, Outcome::Incomplete);
}
