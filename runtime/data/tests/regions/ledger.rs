//! The ledger tells of every change on disk, and a region does not go on with another one than it signed.

use std::collections::BTreeMap;
use std::path::Path;

use compliance::audit::{self, Check, Evidence, Inputs, LedgerEvidence, RawRow, RegionEvidence, Report, Revision};
use compliance::ledger::{Checkpoint, LedgerEvent, origin, read_leaf};
use data::{CheckpointNotes, DataError, DataPlane, EvidencePart, LedgerError};
use model::bundle::PolicyTree;
use model::record::DataClass;
use model::{RuleId, UnixMillis};
use store::{Commit, Store, StoredRow};

use crate::harness::*;

/// Everything that an auditor is shown of a region.
fn evidence(data: &DataPlane) -> Evidence {
    let (mut rows, mut losses, mut ledger) = (Vec::new(), Vec::new(), LedgerEvidence::default());
    data.evidence(true, &mut |part| {
        match part {
            EvidencePart::Row(key, envelope) => {
                rows.push(RawRow { key: key.to_vec(), envelope: envelope.to_vec() });
            }
            EvidencePart::Loss(key, envelope) => {
                losses.push(RawRow { key: key.to_vec(), envelope: envelope.to_vec() });
            }
            EvidencePart::Leaf(index, bytes) => {
                assert_eq!(index, ledger.leaves.len() as u64);
                ledger.leaves.push(bytes.to_vec());
            }
            EvidencePart::Images(index, bytes) => drop(ledger.images.insert(index, bytes.to_vec())),
            EvidencePart::Key(..) | EvidencePart::Petition(_) => {}
            EvidencePart::Checkpoint(note) => ledger.checkpoint = Some(String::from_utf8(note.to_vec()).unwrap()),
        }
        true
    })
    .unwrap();
    Evidence { rows, losses, ledger: Some(ledger), ..Evidence::default() }
}

/// How many lists of row images there are.
pub fn images(data: &DataPlane) -> usize {
    evidence(data).ledger.unwrap().images.len()
}

fn audited(sites: [&Site; 3]) -> Report {
    let plan = plans(&[EU, US, AP]).residency;
    let region = |site: &Site| RegionEvidence { region: region(site.id), evidence: Ok(evidence(&site.data)) };
    audit::audit(&Inputs {
        plan: &plan,
        keeps: None,
        adequacy: compliance::facts::ADEQUACY,
        localised: compliance::facts::LOCALISED,
        declared: None,
        revision: Revision { generation: 1, tree: String::new() },
        now: wall_clock(),
        record_secret: vec![7; 32],
        keys: BTreeMap::new(),
        remembered: BTreeMap::new(),
        regions: sites.into_iter().map(region).collect(),
    })
}

/// What was found, but for what regions without keys have in plain text.
fn found(report: &Report) -> Vec<(Check, &str, &str)> {
    let findings = report.findings.iter().filter(|found| found.check != Check::Key02);
    findings.map(|found| (found.check, found.region.as_str(), found.rule.as_str())).collect()
}

/// The same disk in its next life, after `meanwhile`.
async fn reopened(site: Site, meanwhile: impl FnOnce(&Path)) -> Site {
    let Site { id, data, dir } = site;
    data.close().await;
    drop(data);
    meanwhile(dir.path());
    Site { id, data: open_among(id, &[EU, US, AP], dir.path()), dir }
}

fn events(data: &DataPlane) -> Vec<LedgerEvent> {
    evidence(data).ledger.unwrap().leaves.iter().map(|leaf| read_leaf(leaf).unwrap().event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_that_reaches_a_disk_is_in_the_ledger_of_its_region() {
    let [eu, us, ap] = Site::three();
    for site in [&eu, &us, &ap] {
        for number in 0..5 {
            let key = format!("key-{number}");
            site.data.write(write(&key, site.id, DataClass::Public)).await.unwrap();
        }
    }
    eu.data.write(write("moves", "everywhere", DataClass::Operational)).await.unwrap();
    for (from, to) in [(&eu, &us), (&eu, &ap), (&us, &eu), (&us, &ap), (&ap, &eu), (&ap, &us)] {
        carry(from, to).await;
    }
    eu.data.write(write("moves", "home", DataClass::Personal)).await.unwrap();
    eu.data.write(delete("key-0", DataClass::Public)).await.unwrap();
    carry(&eu, &us).await;
    // A second life goes on where the first ended.
    let leaves = us.data.ledger().size();
    let us = reopened(us, |_| ()).await;
    assert_eq!(us.data.ledger().size(), leaves + 1);
    us.data.write(write("key-1", "again", DataClass::Public)).await.unwrap();

    let report = audited([&eu, &us, &ap]);
    assert_eq!(found(&report), []);
    let rows = report.checks.iter().find(|run| run.check == Check::Aud03).unwrap().examined;
    assert_eq!(rows, 18, "the audit looked at other rows than were written");
    let began = events(&us.data).iter().filter(|event| matches!(event, LedgerEvent::Began { .. })).count();
    assert_eq!(began, 2);
    let left = events(&us.data).into_iter().find(|event| matches!(event, LedgerEvent::Evicted { .. }));
    assert_eq!(left, Some(LedgerEvent::Evicted { count: 1 }), "a value left the region and the ledger says nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planted_or_put_back_on_disk_is_found() {
    let [eu, us, ap] = Site::three();
    eu.data.write(write("secret", "of the EEA", DataClass::Personal)).await.unwrap();
    us.data.write(write("note", "old", DataClass::Public)).await.unwrap();
    let (secret, old) = (row(&eu.data, "secret").unwrap(), row(&us.data, "note").unwrap());
    us.data.write(write("note", "new", DataClass::Public)).await.unwrap();
    assert_eq!(found(&audited([&eu, &us, &ap])), []);
    let us = reopened(us, |dir| {
        let store = Store::open(dir, wall_clock()).unwrap();
        let rows = [("secret", &secret), ("note", &old)];
        let rows = rows.map(|(key, row)| StoredRow::of(&address(key), row)).to_vec();
        store.commit(Commit { rows, ..Commit::default() }).unwrap();
    })
    .await;
    let report = audited([&eu, &us, &ap]);
    let mut all = found(&report);
    all.sort();
    assert_eq!(
        all,
        [
            (Check::Res01, US, "stays-home"),
            (Check::Aud03, US, "no leaf of the ledger covers the row"),
            (Check::Aud03, US, "the row is in the state of leaf 1; a later commit left another"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_generations_are_told_with_the_next_commit() {
    let [eu, us, _] = Site::three();
    for _ in 0..3 {
        let refused = us.data.write(write("p", "personal", DataClass::Personal)).await;
        assert!(matches!(refused, Err(DataError::Barred(_))));
    }
    assert_eq!(events(&us.data).len(), 1, "a refusal alone costs no commit");
    let tree = PolicyTree::default().hash();
    us.data.in_force(4, tree).await.unwrap();
    let rule = RuleId::new("stays-home").unwrap();
    let told = [LedgerEvent::Generation { number: 4, tree }, LedgerEvent::Refused { rule: rule.clone(), count: 3 }];
    assert_eq!(events(&us.data)[1..], told);
    // A refusal that nothing follows is told at the latest when the region closes.
    assert!(us.data.write(write("p", "personal", DataClass::Personal)).await.is_err());
    us.data.close().await;
    let last = events(&us.data).pop();
    assert_eq!(last, Some(LedgerEvent::Refused { rule, count: 1 }));
    assert_eq!(events(&eu.data).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_does_not_open_with_another_ledger_than_it_signed() {
    let [eu, ..] = Site::three();
    for number in 0..4 {
        eu.data.write(write(&format!("key-{number}"), "x", DataClass::Public)).await.unwrap();
    }
    let honest = eu.data.ledger().checkpoint();
    assert_eq!(honest.size, 5);
    let signed = |checkpoint: &Checkpoint| CheckpointNotes {
        signed: Some(format!("{}\n\u{2014} {} AAAAAAA=\n", checkpoint.text(), origin(&region(EU)))),
        witnessed: None,
    };
    let dir = eu.dir.path();
    let mut data = eu.data;
    let longer = Checkpoint { size: 40, ..honest.clone() };
    let other = Checkpoint { size: 3, ..honest.clone() };
    for (checkpoint, said) in [(&longer, "restore the missing leaves"), (&other, "changed on disk")] {
        data.keep_notes(&signed(checkpoint)).await.unwrap();
        data.close().await;
        drop(data);
        let Err(refused) = try_open(EU, &[EU, US, AP], dir) else { panic!("it opened with another ledger") };
        assert!(matches!(refused, DataError::Ledger(LedgerError::Resume(_))), "{refused}");
        assert!(refused.to_string().contains(said), "{refused}");
        // As after a copy was put back.
        let store = Store::open(dir, UnixMillis(0)).unwrap();
        let note = signed(&honest).signed.unwrap().into_bytes();
        let meta = vec![("ledger/signed".to_owned(), note)];
        store.commit(Commit { meta, ..Commit::default() }).unwrap();
        drop(store);
        data = open_among(EU, &[EU, US, AP], dir);
    }
    assert_eq!(value(&data, "key-3").await.as_deref(), Some("x"));
}
