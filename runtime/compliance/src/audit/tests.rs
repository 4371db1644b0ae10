//! An honest deployment of three regions, which tests then break.

mod facts;
mod keys;
mod ledger;
mod petitions;
mod processing;
mod rows;
mod settings;
mod told;
mod travel;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::bundle::PolicyTree;
use model::conflict::{Loss, LossCause, Winner};
use model::record::{Address, Basis, Content, DataClass, Labels, Payload, Purpose, Record, Row, Sibling};
use model::residency::{CaseRuling, Law, RegionPolicy, ResidencyCase, ResidencyPlan, Verdict};
use model::version::{Actor, CausalContext, Dot, Incarnation, Version};
use model::{Country, Hlc, NodeId, RegionId, RuleId, UnixMillis, codec};

use super::*;
use crate::ledger::merkle::leaf_hash;
use crate::ledger::{
    CommitImages, CosignRequest, Digest, Ledger, LedgerEvent, RowKeyHasher, Signer, Witness, consistency_proof, origin,
};
use crate::testing::{TestSigner, region};

pub(super) const REGIONS: [&str; 3] = ["ap-southeast", "eu-west", "us-east"];
const SECRET: [u8; 32] = [7; 32];
/// 2026-01-01.
const THEN: UnixMillis = UnixMillis(1_767_225_600_000);
const NOW: UnixMillis = UnixMillis(THEN.0 + 100_000);

/// Personal data may be in `eu-west` alone, public data anywhere.
pub(super) fn plan() -> ResidencyPlan {
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
            // What may be held in two regions may travel between them.
            for (from, to) in REGIONS.iter().flat_map(|from| REGIONS.map(|to| (from, to))) {
                let strictest = [from, to].map(|id| &ruling.hold[&region(id)]);
                let verdict = strictest.into_iter().find(|verdict| matches!(verdict, Verdict::Deny { .. }));
                let verdict = verdict.unwrap_or(strictest[0]).clone();
                ruling.transfer.insert((region(from), region(to)), verdict);
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

/// A row with a value of this class, and a delete of the same class beside it.
pub(super) fn row_of(class: DataClass, payload: Payload) -> Row {
    let mut labels = Labels::of_class(class, THEN);
    labels.jurisdictions.insert(Country::new("DE").unwrap());
    labels.retain_until = Some(UnixMillis(1_900_000_000_000));
    labels.holds.insert("case-7".into());
    let scope = plan().permit(&labels, &region("eu-west"), UnixMillis(1)).unwrap().scope();
    let actor = Actor { region: region("eu-west"), node: NodeId(0), incarnation: Incarnation(3) };
    let mut context = CausalContext::new();
    context.observe(&Dot { actor: actor.clone(), counter: 300 });
    let version = Version { dot: Dot { actor, counter: 301 }, hlc: Hlc::new(UnixMillis(9), 1), context };
    let record = Record { payload, content_type: "text/plain".into(), labels: labels.clone(), generation: 12 };
    let live = Sibling { version: version.clone(), scope, content: Content::Live(record) };
    let gone = Sibling { version, scope, content: Content::Tombstone { labels } };
    Row { siblings: vec![live, gone] }
}

pub(super) fn stored(class: DataClass, value: &str) -> Vec<u8> {
    codec::encode(&row_of(class, Payload::Plain(value.as_bytes().to_vec().into())))
}

/// An entry of the conflict log about this key.
pub(super) fn lost(key: &[u8], class: DataClass, payload: Payload, kept: bool) -> RawRow {
    let text = std::str::from_utf8(key).unwrap();
    let (namespace, name) = text.split_once('\0').unwrap();
    let lost = row_of(class, payload).siblings.remove(0);
    let to = Winner { dot: Dot { counter: 9, ..lost.version.dot.clone() }, hlc: Hlc::new(UnixMillis(10), 0) };
    let address = Address { namespace: namespace.parse().unwrap(), key: name.parse().unwrap() };
    let loss = Loss {
        address,
        lost,
        kept,
        bytes: 4,
        digest: [3; 32],
        to,
        by: "last-write-wins".into(),
        cause: LossCause::Strategy,
        generation: 7,
        policy: Some(PolicyTree::default().hash()),
        at: THEN,
    };
    RawRow { key: [b"e", key, b"\xff1"].concat(), envelope: codec::encode(&loss) }
}

/// One region as it would run.
#[derive(Clone)]
pub(super) struct Region {
    ledger: Ledger,
    leaves: Vec<Vec<u8>>,
    images: BTreeMap<u64, Vec<u8>>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    note: Option<String>,
    witness: Witness,
    witnessed: BTreeMap<RegionId, String>,
}

impl Region {
    fn new(id: &str) -> Self {
        let others = REGIONS.iter().filter(|other| **other != id);
        let mut made = Self {
            ledger: Ledger::new(region(id)),
            leaves: Vec::new(),
            images: BTreeMap::new(),
            rows: BTreeMap::new(),
            note: None,
            witness: Witness::new(others.map(|other| TestSigner::log(&region(other)).key()), []),
            witnessed: BTreeMap::new(),
        };
        made.append(LedgerEvent::Began { incarnation: Incarnation(1) });
        made.append(LedgerEvent::Generation { number: 7, tree: PolicyTree::default().hash() });
        made
    }

    fn append(&mut self, event: LedgerEvent) -> u64 {
        let record = self.ledger.append(THEN, 7, event);
        self.leaves.push(record.bytes);
        record.index
    }

    /// A group commit that writes or removes rows.
    fn commit(&mut self, rows: &[(&[u8], Option<Vec<u8>>)]) -> u64 {
        let hasher = RowKeyHasher::new(&SECRET);
        let images = CommitImages::of(&hasher, rows.iter().map(|(key, row)| (*key, row.as_deref())));
        let index = self.append(images.event());
        self.images.insert(index, codec::encode(&images));
        for (key, row) in rows {
            match row {
                Some(row) => drop(self.rows.insert(key.to_vec(), row.clone())),
                None => drop(self.rows.remove(*key)),
            }
        }
        index
    }

    fn sign(&self) -> String {
        self.ledger.checkpoint().sign(&TestSigner::log(self.ledger.region())).unwrap()
    }

    fn request(&self, old_size: u64) -> CosignRequest {
        let hashes: Vec<Digest> = self.leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let proof = consistency_proof(hashes.as_slice(), old_size, self.ledger.size()).unwrap();
        CosignRequest { old_size, proof, note: self.sign() }
    }
}

/// Three regions.
#[derive(Clone)]
pub(super) struct Deployment(BTreeMap<&'static str, Region>);

impl Deployment {
    /// Every region has written a few rows, and every checkpoint is witnessed twice.
    pub(super) fn honest() -> Self {
        let mut deployment = Self(REGIONS.iter().map(|id| (*id, Region::new(id))).collect());
        for region in deployment.0.values_mut() {
            region.commit(&[
                (b"notes\0a", Some(stored(DataClass::Public, "first"))),
                (b"notes\0b", Some(stored(DataClass::Public, "second"))),
            ]);
            region.commit(&[(b"notes\0a", Some(stored(DataClass::Public, "third")))]);
            region.append(LedgerEvent::Refused { rule: RuleId::new("stays-in-the-eea").unwrap(), count: 2 });
            region.commit(&[(b"notes\0c", Some(stored(DataClass::Public, "fourth")))]);
            region.commit(&[(b"notes\0c", None)]);
        }
        let eu = deployment.0.get_mut("eu-west").unwrap();
        eu.commit(&[(b"people\0p", Some(keys::sealed(b"people\0p", DataClass::Personal, "ada@example.com")))]);
        deployment.cosign();
        deployment
    }

    pub(super) fn at(&mut self, id: &str) -> &mut Region {
        self.0.get_mut(id).unwrap()
    }

    /// Every region signs its head and has it cosigned.
    pub(super) fn cosign(&mut self) {
        for id in REGIONS {
            let signing = self.0[id].clone();
            let mut note = signing.sign();
            for other in REGIONS.iter().filter(|other| **other != id) {
                let signer = TestSigner::witness(&region(other));
                let other = self.at(other);
                let seen = other.witness.seen(&origin(&region(id))).map_or(0, |checkpoint| checkpoint.size);
                note += &other.witness.cosign(&signing.request(seen), &signer, NOW).unwrap().line;
                other.witnessed.insert(region(id), signing.sign());
            }
            self.at(id).note = Some(note);
        }
    }

    /// The evidence, as it would be gathered.
    pub(super) fn evidence(&self) -> Vec<RegionEvidence> {
        let gathered = |(id, region): (&&str, &Region)| Evidence {
            attested: Some((*id).to_owned()),
            rows: region.rows.iter().map(|(key, row)| RawRow { key: key.clone(), envelope: row.clone() }).collect(),
            policy: Some(PolicyEvidence {
                generation: 7,
                tree: PolicyTree::default().hash(),
                since: THEN,
                signature: Ok(()),
            }),
            ledger: Some(LedgerEvidence {
                leaves: region.leaves.clone(),
                images: region.images.clone(),
                checkpoint: region.note.clone(),
            }),
            keys: Some(keys::evidence(id, if *id == "eu-west" { &[keys::HOME] } else { &[] })),
            decisions: Some(crate::audit::DecisionEvidence { same: 5, ..Default::default() }),
            petitions: petitions::honest(),
            losses: vec![lost(b"notes\0a", DataClass::Public, Payload::Plain(b"lost".to_vec().into()), true)],
            told: vec![("log".to_owned(), b"INFO the region is up\n".to_vec())],
            probes: vec![("without a token".to_owned(), 401)],
            answers: Some(vec![vec![("cache-control".to_owned(), "Private, no-cache".to_owned())]]),
            witnessed: region.witnessed.clone(),
        };
        let of =
            |entry: (&&'static str, &Region)| RegionEvidence { region: region(entry.0), evidence: Ok(gathered(entry)) };
        self.0.iter().map(of).collect()
    }

    pub(super) fn audit(&self) -> Report {
        audit_of(self.evidence())
    }
}

pub(super) fn keys() -> BTreeMap<RegionId, RegionKeys> {
    let of = |id: &str| RegionKeys {
        ledger: TestSigner::log(&region(id)).public_key(),
        witness: TestSigner::witness(&region(id)).public_key(),
    };
    REGIONS.iter().map(|id| (region(id), of(id))).collect()
}

pub(super) fn audit_of(regions: Vec<RegionEvidence>) -> Report {
    audit_with(regions, BTreeMap::new())
}

pub(super) fn audit_with(regions: Vec<RegionEvidence>, remembered: BTreeMap<RegionId, String>) -> Report {
    audit(&Inputs { remembered, ..inputs(&plan(), regions) })
}

/// What an audit is given by default.
pub(super) fn inputs(plan: &ResidencyPlan, regions: Vec<RegionEvidence>) -> Inputs<'_> {
    Inputs {
        plan,
        keeps: None,
        adequacy: crate::facts::ADEQUACY,
        localised: crate::facts::LOCALISED,
        declared: None,
        revision: Revision { generation: 7, tree: PolicyTree::default().hash().to_string() },
        now: NOW,
        record_secret: SECRET.to_vec(),
        keys: keys(),
        remembered: BTreeMap::new(),
        regions,
    }
}

/// The evidence of `id`, to be broken.
pub(super) fn of<'e>(evidence: &'e mut [RegionEvidence], id: &str) -> &'e mut Evidence {
    let found = evidence.iter_mut().find(|evidence| evidence.region.as_str() == id).unwrap();
    found.evidence.as_mut().unwrap()
}

/// The findings, as (check, region, rule).
pub(super) fn found(report: &Report) -> Vec<(Check, &str, &str)> {
    report.findings.iter().map(|found| (found.check, found.region.as_str(), found.rule.as_str())).collect()
}

/// Asserts that exactly these checks are red, in this region alone.
pub(super) fn assert_red(report: &Report, id: &str, checks: &[Check]) {
    let red: BTreeSet<Check> = report.findings.iter().map(|found| found.check).collect();
    assert_eq!(red, checks.iter().copied().collect(), "{:#?}", found(report));
    assert!(report.findings.iter().all(|found| found.region.as_str() == id), "{:#?}", found(report));
    assert_eq!((report.outcome, report.outcome.exit_code()), (Outcome::Violations, 1));
}

#[test]
fn an_honest_deployment_is_green_in_every_check() {
    let report = Deployment::honest().audit();
    assert_eq!((found(&report), report.outcome, report.outcome.exit_code()), (vec![], Outcome::Pass, 0));
    for run in &report.checks {
        // In an honest deployment nothing is left of who was erased, and here nothing is abroad or of a law that localises.
        assert!(
            (run.examined > 0 || [Check::Era03, Check::Res02, Check::Res05].contains(&run.check))
                && run.not_run.is_empty(),
            "{} claims to have run on nothing",
            run.check
        );
    }
    assert_eq!(report.checks.iter().map(|run| run.check).collect::<Vec<_>>(), Check::ALL);
    for summary in &report.regions {
        assert_eq!((summary.witnesses.len(), summary.checkpoint), (2, Some(summary.leaves)), "{}", summary.region);
    }
}

#[test]
fn too_little_is_never_a_pass() {
    let incomplete = |regions: Vec<RegionEvidence>| {
        let report = audit_of(regions);
        assert_eq!((report.outcome, report.outcome.exit_code()), (Outcome::Incomplete, 2), "{:#?}", found(&report));
        report
    };
    incomplete(Vec::new());
    let mut evidence = Deployment::honest().evidence();
    evidence.pop();
    incomplete(evidence);

    let mut evidence = Deployment::honest().evidence();
    evidence[2].evidence = Err("connection refused".into());
    let report = incomplete(evidence);
    assert!(report.checks.iter().all(|run| run.not_run.len() == 1), "every check must say that it missed a region");
    assert_eq!(report.regions[2].unreached.as_deref(), Some("connection refused"));

    let mut empty = Deployment(REGIONS.iter().map(|id| (*id, Region::new(id))).collect());
    empty.cosign();
    let mut evidence = empty.evidence();
    // Nor does anybody keep anything.
    REGIONS.iter().for_each(|id| of(&mut evidence, id).petitions.clear());
    incomplete(evidence);

    type Removal = fn(&mut Evidence);
    let removals: [(Removal, &[Check]); 4] = [
        (|evidence| evidence.attested = None, &[Check::Res03]),
        (|evidence| evidence.policy = None, &[Check::Pol01, Check::Pol02]),
        (|evidence| evidence.keys = None, &[Check::Key01, Check::Key03, Check::Era01]),
        (|evidence| evidence.ledger = None, &[Check::Aud01, Check::Aud02, Check::Aud03]),
    ];
    for (remove, checks) in removals {
        let mut evidence = Deployment::honest().evidence();
        remove(of(&mut evidence, "us-east"));
        let report = incomplete(evidence);
        let missed: Vec<Check> =
            report.checks.iter().filter(|run| !run.not_run.is_empty()).map(|run| run.check).collect();
        assert_eq!(missed, checks);
    }
}

/// Reports for the tests of their forms.
pub(super) mod samples {
    use super::*;

    /// Nothing is wrong.
    pub(in crate::audit) fn honest() -> Report {
        Deployment::honest().audit()
    }

    /// Personal data lies in `us-east`, which is under another certificate.
    pub(in crate::audit) fn broken() -> Report {
        let mut deployment = Deployment::honest();
        deployment.at("us-east").commit(&[(b"people\0ada", Some(stored(DataClass::Personal, "x")))]);
        deployment.cosign();
        let mut evidence = deployment.evidence();
        of(&mut evidence, "us-east").attested = Some("eu-west".into());
        audit_of(evidence)
    }

    /// `us-east` was not reached.
    pub(in crate::audit) fn part() -> Report {
        let mut evidence = Deployment::honest().evidence();
        evidence[2].evidence = Err("connection refused".into());
        audit_of(evidence)
    }
}
