//! Values that are encrypted at their origin, and where their keys are.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use data::vault::VaultError;
use data::{DataError, LabelClaims, Resolver, Write};
use model::Country;
use model::question::Resolution;
use model::record::{Address, Content, DataClass, Payload, Row, Sibling};
use model::replication::ConflictResolution;
use store::{Commit, Store, StoredRow};

use crate::harness::*;

/// About a person of the United States or, in the tests' plan, of anywhere else: `eu-west`.
fn personal(key: &str, value: &str, country: &str) -> Write {
    let mut write = write(key, value, DataClass::Personal);
    write.labels.jurisdictions = Some([Country::new(country).unwrap()].into());
    write
}

fn about(subject: &str, write: Write) -> Write {
    let labels = LabelClaims { subject: Some(subject.parse().unwrap()), ..write.labels };
    Write { labels, ..write }
}

pub fn keys(site: &Site) -> usize {
    let mut count = 0;
    site.data
        .vault()
        .unwrap()
        .each_key(&mut |_, _, _| {
            count += 1;
            true
        })
        .unwrap();
    count
}

fn files_of(site: &Site) -> Vec<u8> {
    let mut all = Vec::new();
    for folder in ["data", "keys"] {
        for entry in walk(&site.dir.path().join(folder)) {
            all.extend(std::fs::read(entry).unwrap());
        }
    }
    all
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            files.extend(walk(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

#[tokio::test]
async fn a_value_about_a_person_is_nowhere_on_a_disk_and_is_read_where_it_may_be() {
    let sites = Site::three_sealed();
    let [eu, us, ap] = &sites;
    eu.data.write(personal("ada", "canary-of-ada", "DE")).await.unwrap();
    // Source code needs no key by its class, and the tests' plan demands nothing.
    eu.data.write(write("code", "fn-main", DataClass::SourceCode)).await.unwrap();
    for away in [us, ap] {
        carry(eu, away).await;
    }
    assert_eq!(value(&eu.data, "ada").await.as_deref(), Some("canary-of-ada"));
    assert_eq!(value(&ap.data, "code").await.as_deref(), Some("fn-main"));
    assert!(rows_contain(&eu.data, "fn-main") && !rows_contain(&eu.data, "canary-of-ada"));
    assert_eq!((keys(eu), keys(us), keys(ap)), (1, 0, 0), "a key went where its values may not be");
    let [eu, us, ap] = sites;
    for site in [eu, us, ap] {
        site.data.close().await;
        let files = files_of(&site);
        assert!(!files.windows(13).any(|bytes| bytes == b"canary-of-ada"), "{}", site.id);
    }
}

#[tokio::test]
async fn what_was_encrypted_in_one_region_is_opened_in_another_and_after_a_restart() {
    let [eu, us, ap] = Site::three_sealed();
    let change = |plans: &mut data::plans::Plans| demand_encryption(plans);
    let sites = [eu, us, ap].map(|site| {
        let Site { id, data, dir } = site;
        drop(data);
        Site { id, data: open_sealed(id, dir.path(), change, Arc::new(NoResolver)), dir }
    });
    let [eu, us, ap] = &sites;
    eu.data.write(write("note", "for-all-regions", DataClass::Public)).await.unwrap();
    carry(eu, us).await;
    // Passed on by one that did not make it.
    ship((&us.data, US), (&ap.data, AP)).await;
    for site in [eu, us, ap] {
        assert!(!rows_contain(&site.data, "for-all-regions"), "{}", site.id);
        assert_eq!(value(&site.data, "note").await.as_deref(), Some("for-all-regions"), "{}", site.id);
        assert_eq!(site.data.digests().unwrap(), eu.data.digests().unwrap());
        assert_eq!(keys(site), 1);
    }
    let [_, us, _] = sites;
    let us = us.reopened().await;
    assert_eq!(value(&us.data, "note").await.as_deref(), Some("for-all-regions"));
}

pub fn demand_encryption(plans: &mut data::plans::Plans) {
    let mut policies = plans.residency.region_policies().clone();
    for policy in policies.values_mut() {
        policy.requires.insert(model::RuleId::new("encrypt-at-rest").unwrap());
    }
    plans.residency = model::residency::ResidencyPlan::new(plans.residency.cases().clone(), policies);
}

#[tokio::test]
async fn rows_that_are_given_bring_their_keys() {
    let [eu, us, ap] = Site::three_sealed();
    let give = |site: Site| {
        let Site { id, data, dir } = site;
        drop(data);
        Site { id, data: open_sealed(id, dir.path(), demand_encryption, Arc::new(NoResolver)), dir }
    };
    let (eu, us) = (give(eu), give(us));
    for number in 0..20 {
        let key = format!("note-{number}");
        eu.data.write(write(&key, "value", DataClass::Public)).await.unwrap();
    }
    // As for a region that was never met before.
    let mut giving = eu.data.begin_giving(&region(US));
    loop {
        let part = eu.data.part(&giving, 400).unwrap();
        assert!(
            matches!(us.data.take_part(&region(EU), part.clone()).await, Err(DataError::BadPart { .. })),
            "rows were taken whose keys had not come"
        );
        let rows = part.rows.iter().flat_map(|(at, given)| given.iter().map(move |given| (at, &given.sibling)));
        let key = us.data.vault().map(|vault| vault.public_key());
        for parcel in eu.data.keys_for(&region(US), key, rows, &mut Default::default()).unwrap() {
            us.data.take_keys(&parcel).unwrap();
        }
        let answer = us.data.take_part(&region(EU), part.clone()).await.unwrap();
        if eu.data.part_taken(&mut giving, &part, &answer) {
            break;
        }
    }
    assert_eq!(value(&us.data, "note-7").await.as_deref(), Some("value"));
    drop(ap);
}

#[tokio::test]
async fn an_entry_whose_key_has_not_come_is_no_copy() {
    let [eu, us, _] = Site::three_sealed();
    us.data.write(personal("ada", "x", "US")).await.unwrap();
    us.data.write(write("note", "plain", DataClass::Public)).await.unwrap();
    let batch = us.data.outgoing(&region(EU), &eu.data.vector(), 100_000).unwrap();
    // What may not be there needs no key.
    let answer = eu.data.receive(&region(US), batch).await.unwrap();
    assert!(answer.vector.includes(&us.data.vector().meet(&answer.vector)));
    assert_eq!(value(&eu.data, "note").await.as_deref(), Some("plain"));

    let [eu, us] = [eu, us].map(|site| {
        let Site { id, data, dir } = site;
        drop(data);
        Site { id, data: open_sealed(id, dir.path(), demand_encryption, Arc::new(NoResolver)), dir }
    });
    us.data.write(write("later", "sealed", DataClass::Public)).await.unwrap();
    let before = eu.data.vector();
    let batch = us.data.outgoing(&region(EU), &before, 100_000).unwrap();
    let answer = eu.data.receive(&region(US), batch.clone()).await.unwrap();
    let missed = batch.last().unwrap().position();
    assert!(!answer.vector.covers(missed), "it was taken over without its key");
    give_keys(&us.data, (&eu.data, EU), &batch);
    let answer = eu.data.receive(&region(US), batch.clone()).await.unwrap();
    assert!(answer.vector.covers(missed));
    assert_eq!(value(&eu.data, "later").await.as_deref(), Some("sealed"));
}

#[tokio::test]
async fn one_person_has_one_key_and_another_has_another() {
    let [eu, ..] = Site::three_sealed();
    for (key, subject) in [("a", "s-1"), ("b", "s-1"), ("c", "s-2")] {
        eu.data.write(about(subject, personal(key, "x", "DE"))).await.unwrap();
    }
    assert_eq!(keys(&eu), 2);
    let eu = eu.reopened().await;
    eu.data.write(about("s-1", personal("d", "x", "DE"))).await.unwrap();
    assert_eq!(keys(&eu), 2, "a key was made anew after a restart");
    assert_eq!(value(&eu.data, "d").await.as_deref(), Some("x"));
}

/// Changes the stored row of `key` behind the back of a region that is down.
fn tamper(site: &Site, key: &str, change: impl FnOnce(&mut Row)) {
    let store = Store::open(&site.dir.path().join("data"), wall_clock()).unwrap();
    let mut row = store.row(&address(key)).unwrap().unwrap();
    change(&mut row);
    store.commit(Commit { rows: vec![StoredRow::of(&address(key), &row)], ..Commit::default() }).unwrap();
}

#[tokio::test]
async fn a_relabelled_ciphertext_does_not_open() {
    let [eu, ..] = Site::three_sealed();
    eu.data.write(personal("ada", "canary", "DE")).await.unwrap();
    eu.data.close().await;
    let Site { id, data, dir } = eu;
    drop(data);
    let closed = Site { id, data: open_among(EU, &[EU], tempfile::tempdir().unwrap().path()), dir };
    tamper(&closed, "ada", |row| {
        let Content::Live(record) = &mut row.siblings[0].content else { panic!("no record") };
        assert!(record.payload.is_sealed());
        record.labels.classes = [DataClass::Public].into();
    });
    let eu = closed.reopened().await;
    let read = eu.data.read(&address("ada")).await;
    assert!(matches!(read, Err(DataError::Vault(VaultError::NotBound))), "{read:?}");
}

#[tokio::test]
async fn a_rotated_region_key_opens_everything_and_the_old_one_nothing() {
    let [eu, ..] = Site::three_sealed();
    for number in 0..5 {
        eu.data.write(personal(&format!("p-{number}"), "x", "DE")).await.unwrap();
    }
    let ring = std::fs::read(eu.dir.path().join("keys/region.keys")).unwrap();
    assert!(eu.data.rotate_keys().unwrap() >= 5);
    assert_eq!(value(&eu.data, "p-3").await.as_deref(), Some("x"));
    eu.data.write(personal("p-9", "new", "DE")).await.unwrap();
    let eu = eu.reopened().await;
    assert_eq!(value(&eu.data, "p-0").await.as_deref(), Some("x"));
    assert_eq!(value(&eu.data, "p-9").await.as_deref(), Some("new"));

    // With the ring of before, not one data key is of any use.
    eu.data.close().await;
    let Site { id, data, dir } = eu;
    drop(data);
    std::fs::write(dir.path().join("keys/region.keys"), ring).unwrap();
    let eu = Site { id, data: open_sealed(id, dir.path(), |_| {}, Arc::new(NoResolver)), dir };
    let read = eu.data.read(&address("p-3")).await;
    assert!(matches!(read, Err(DataError::Vault(VaultError::NoRegionKey(_)))), "{read:?}");
}

#[tokio::test]
async fn a_parcel_for_one_region_is_of_no_use_to_another() {
    let [eu, us, ap] = Site::three_sealed();
    us.data.write(personal("bob", "x", "US")).await.unwrap();
    let batch = us.data.outgoing(&region(EU), &eu.data.vector(), 100_000).unwrap();
    let row = row(&us.data, "bob").unwrap();
    let key = eu.data.vault().unwrap().public_key();
    let at = address("bob");
    let shipped = row.siblings.iter().map(|sibling| (&at, sibling));
    let parcels = us.data.keys_for(&region(EU), Some(key), shipped, &mut Default::default()).unwrap();
    assert!(parcels[0].keys.is_empty(), "a key was given to a region that may not have it");
    assert!(matches!(ap.data.take_keys(&parcels[0]), Err(DataError::Vault(VaultError::NoRegionKey(_)))));
    drop(batch);
}

/// Joins the values of all siblings.
struct Joining;

impl Resolver for Joining {
    fn resolve(
        &self,
        _: &str,
        _: &Address,
        siblings: &[Sibling],
    ) -> Pin<Box<dyn Future<Output = Option<Resolution>> + Send + 'static>> {
        let values: Vec<Vec<u8>> = siblings
            .iter()
            .filter_map(|sibling| match &sibling.content.record()?.payload {
                Payload::Plain(bytes) => Some(bytes.to_vec()),
                Payload::Sealed { .. } | Payload::Object(_) => None,
            })
            .collect();
        Box::pin(std::future::ready(Some(Resolution::Merged(values.join(&b'+')))))
    }
}

#[tokio::test]
async fn a_resolver_is_shown_values_and_never_ciphertext() {
    let change = |plans: &mut data::plans::Plans| {
        demand_encryption(plans);
        plans.replication.default.conflict_resolution = ConflictResolution::Custom("joining".into());
    };
    let sites = [EU, US].map(|id| {
        let dir = tempfile::tempdir().unwrap();
        Site { id, data: open_sealed(id, dir.path(), change, Arc::new(Joining)), dir }
    });
    let [eu, us] = &sites;
    eu.data.write(write("both", "left", DataClass::Public)).await.unwrap();
    us.data.write(write("both", "right", DataClass::Public)).await.unwrap();
    carry(eu, us).await;
    carry(us, eu).await;
    for site in [eu, us] {
        assert_eq!(value(&site.data, "both").await.as_deref(), Some("left+right"), "{}", site.id);
        assert!(!rows_contain(&site.data, "left"));
    }
}
