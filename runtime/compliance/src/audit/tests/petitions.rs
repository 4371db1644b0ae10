//! Orders about people, in the sample deployment and broken.

use model::names::Subject;
use model::petition::{DEADLINE, Demand, Done, Order, Petition, Signed, to_bytes};
use model::sealing::{OrderId, Owner};

use super::*;
use crate::ledger::Signer as _;

const ERASED: OrderId = OrderId([11; 16]);
const HELD: OrderId = OrderId([12; 16]);
const EXPORTED: OrderId = OrderId([13; 16]);
const RELEASED: OrderId = OrderId([14; 16]);

fn owner(subject: &str) -> Owner {
    Owner::of_subject(&Owner::key(&SECRET), &Subject::new(subject).unwrap())
}

fn signed(id: &str, what: &str, bytes: Vec<u8>) -> Signed {
    let signature = TestSigner::log(&region(id)).sign(&Signed::message(what, &bytes)).to_vec();
    Signed { bytes, signature }
}

fn order(id: OrderId, subject: &str, demand: Demand, at: UnixMillis) -> Petition {
    let order = Order { id, owner: owner(subject), demand, by: region("us-east"), at };
    Petition { order: signed("us-east", Signed::ORDER, to_bytes(&order)), done: BTreeMap::new() }
}

fn done(mut petition: Petition, by: &[&str], records: &[[u8; 8]]) -> Petition {
    let order: Order = petition.order.read().unwrap();
    for id in by {
        let records = if *id == "eu-west" { records.to_vec() } else { Vec::new() };
        let done = Done { order: order.id, region: region(id), at: order.at, keys: 1, records };
        petition.done.insert(region(id), signed(id, Signed::DONE, to_bytes(&done)));
    }
    petition
}

fn record(row_key: &[u8]) -> [u8; 8] {
    RowKeyHasher::new(&SECRET).record(row_key).0[..8].try_into().unwrap()
}

fn all() -> [Petition; 3] {
    [
        done(order(ERASED, "s-erased", Demand::Erase, THEN), &REGIONS, &[]),
        done(order(HELD, "s-held", Demand::Hold { name: "case-7".into() }, THEN), &REGIONS, &[record(b"people\0p")]),
        done(order(EXPORTED, "s-held", Demand::Export, THEN), &REGIONS, &[record(b"people\0p")]),
    ]
}

/// What every region of an honest deployment keeps.
pub(super) fn honest() -> Vec<Vec<u8>> {
    all().iter().map(codec::encode).collect()
}

/// An honest deployment in which every region keeps these.
fn with(petitions: &[Petition]) -> Vec<RegionEvidence> {
    let mut evidence = Deployment::honest().evidence();
    for id in REGIONS {
        of(&mut evidence, id).petitions = petitions.iter().map(codec::encode).collect();
    }
    evidence
}

fn key_of(subject: &str, after: Vec<[u8; 16]>) -> HeldKey {
    HeldKey { name: [55; 16], by: keys::region_key("eu-west"), owner: owner(subject).0, after }
}

#[test]
fn a_key_of_an_erased_person_is_found_and_one_made_since_is_not() {
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "eu-west").keys.as_mut().unwrap().held.push(key_of("s-erased", Vec::new()));
    assert_red(&audit_of(evidence), "eu-west", &[Check::Era01]);
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "eu-west").keys.as_mut().unwrap().held.push(key_of("s-erased", vec![ERASED.0]));
    assert_eq!(found(&audit_of(evidence)), []);
}

#[test]
fn an_erasure_or_an_export_that_lacks_a_region_past_its_deadline_is_found() {
    let old = UnixMillis(NOW.0 - DEADLINE.0 - 1);
    let two = &["eu-west", "us-east"];
    for (demand, check) in [(Demand::Erase, Check::Era02), (Demand::Export, Check::Dsr02)] {
        let late = done(order(OrderId([20; 16]), "s-1", demand.clone(), old), two, &[]);
        assert_red(&audit_of(with(&[late])), "ap-southeast", &[check]);
        let in_time = done(order(OrderId([20; 16]), "s-1", demand, THEN), two, &[]);
        assert_eq!(found(&audit_of(with(&[in_time]))), []);
    }
}

#[test]
fn a_forged_acknowledgement_counts_for_nothing() {
    let mut forged = done(order(OrderId([20; 16]), "s-1", Demand::Erase, THEN), &REGIONS, &[]);
    let stolen = forged.done[&region("eu-west")].clone();
    forged.done.insert(region("ap-southeast"), Signed { signature: stolen.signature, ..stolen });
    forged.done.get_mut(&region("ap-southeast")).unwrap().bytes[17] ^= 1;
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "ap-southeast").petitions.push(codec::encode(&forged));
    assert_red(&audit_of(evidence), "ap-southeast", &[Check::Era02]);
}

/// An honest deployment in which `eu-west` has a value about `subject`.
fn about(subject: &str) -> Report {
    let mut row = row_of(DataClass::Personal, Payload::Plain(b"x".to_vec().into()));
    row.siblings.truncate(1);
    if let Content::Live(record) = &mut row.siblings[0].content {
        record.labels.subject = Some(Subject::new(subject).unwrap());
    }
    let mut deployment = Deployment::honest();
    deployment.at("eu-west").commit(&[(b"people\0q", Some(codec::encode(&row)))]);
    deployment.cosign();
    deployment.audit()
}

#[test]
fn a_value_about_an_erased_person_is_found() {
    let checks = |report: &Report| report.findings.iter().map(|found| found.check).collect::<BTreeSet<_>>();
    // In plain text, which is wrong as well.
    assert_eq!(checks(&about("s-erased")), BTreeSet::from([Check::Key02, Check::Era03]));
    assert_eq!(checks(&about("s-other")), BTreeSet::from([Check::Key02]));
}

#[test]
fn a_record_that_was_deleted_under_a_hold_is_found_and_not_one_after_it() {
    let without = || {
        let mut deployment = Deployment::honest();
        deployment.at("eu-west").commit(&[(b"people\0p", None)]);
        deployment.cosign();
        deployment.evidence()
    };
    assert_red(&audit_of(without()), "eu-west", &[Check::Ret02]);
    let mut evidence = without();
    let released = done(order(RELEASED, "s-held", Demand::Release { hold: HELD }, THEN), &REGIONS, &[]);
    of(&mut evidence, "us-east").petitions.push(codec::encode(&released));
    let report = audit_of(evidence);
    assert!(found(&report).iter().all(|(check, ..)| *check != Check::Ret02), "{:#?}", found(&report));
}
