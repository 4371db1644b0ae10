//! Which copies a write may be told of.

use std::collections::BTreeSet;

use data::{DataPlane, Write, Written};
use model::record::{DataClass, Shipment};
use model::replication::AckLevel;
use tempfile::TempDir;

use crate::harness::{AP, EU, US, committed, deliver, open_among, open_with, plans, region, write};

/// `eu-west`, and `us-east` under a plan by which it may hold nothing.
fn eu_and_a_us_that_refuses() -> ([TempDir; 2], DataPlane, DataPlane) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let eu = open_among(EU, &[EU, US], dirs[0].path());
    let us = open_with(US, &[EU, US], dirs[1].path(), plans(&[EU]));
    (dirs, eu, us)
}

/// Asks for `level` copies and returns once the write is durable in `data`, with what will become of it.
async fn begin(data: &DataPlane, key: &str, level: u8) -> tokio::task::JoinHandle<Written> {
    let before = *data.commits().borrow();
    let (asking, write) = (data.clone(), write(key, "x", DataClass::Public));
    let write = Write { ack: Some(AckLevel::Regions(level)), ..write };
    let outcome = tokio::spawn(async move { asking.write(write).await.unwrap() });
    committed(data, before).await;
    outcome
}

#[tokio::test]
async fn a_region_that_refused_a_record_is_not_counted_as_a_copy() {
    let (_dirs, eu, us) = eu_and_a_us_that_refuses();
    let outcome = begin(&eu, "k", 2).await;
    let mut sent = eu.resume(&region(US), &us.vector());
    let answer = deliver((&eu, EU), (&us, US), &mut sent).await;
    assert_eq!(answer.refused.len(), 1);
    assert!(answer.vector.covers(&answer.refused[0]), "a refusal must not stop the log");
    let written = outcome.await.unwrap();
    assert_eq!((written.copies, written.reached), (1, false));
    assert_eq!(written.refused_by, BTreeSet::from([region(US)]));
}

#[tokio::test]
async fn a_refusal_whose_answer_was_lost_is_not_taken_for_a_copy_afterwards() {
    let (dirs, eu, us) = eu_and_a_us_that_refuses();
    let outcome = begin(&eu, "k", 2).await;
    let batch = eu.outgoing(&region(US), &us.vector(), 100_000).unwrap();
    let lost = us.receive(&region(EU), batch).await.unwrap();
    // The peer says by other ways that it is past the position, also after a restart.
    us.close().await;
    drop(us);
    let us = open_with(US, &[EU, US], dirs[1].path(), plans(&[EU]));
    eu.acked(&region(US), &us.vector());
    let mut sent = eu.resume(&region(US), &us.vector());
    assert_eq!(deliver((&eu, EU), (&us, US), &mut sent).await.refused, lost.refused);
    assert_eq!(outcome.await.unwrap().refused_by, BTreeSet::from([region(US)]));
}

#[tokio::test]
async fn a_record_refused_among_rows_is_not_taken_for_a_copy() {
    let (_dirs, eu, us) = eu_and_a_us_that_refuses();
    let outcome = begin(&eu, "k", 2).await;
    // A region that is met for the first time is given rows; its log never sees the entry.
    let mut giving = eu.begin_giving(&region(US));
    loop {
        let part = eu.part(&giving, 100_000).unwrap();
        let answer = us.take_part(&region(EU), part.clone()).await.unwrap();
        if eu.part_taken(&mut giving, &part, &answer) {
            break;
        }
    }
    let mut sent = eu.resume(&region(US), &us.vector());
    let answer = deliver((&eu, EU), (&us, US), &mut sent).await;
    assert_eq!(answer.refused.len(), 1);
    let written = outcome.await.unwrap();
    assert_eq!((written.copies, written.reached), (1, false));
    assert_eq!(written.refused_by, BTreeSet::from([region(US)]));
}

#[tokio::test]
async fn a_refusal_given_to_the_region_that_passed_the_record_on_is_not_taken_for_a_copy() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let eu = open_among(EU, &[EU, US, AP], dirs[0].path());
    let us = open_with(US, &[EU, US, AP], dirs[1].path(), plans(&[EU, AP]));
    let ap = open_among(AP, &[EU, US, AP], dirs[2].path());
    let outcome = begin(&eu, "k", 3).await;
    let mut to_us = eu.resume(&region(US), &us.vector());
    let mut to_ap = eu.resume(&region(AP), &ap.vector());
    deliver((&eu, EU), (&ap, AP), &mut to_ap).await;
    let mut relayed = ap.resume(&region(US), &us.vector());
    deliver((&ap, AP), (&us, US), &mut relayed).await;
    deliver((&eu, EU), (&us, US), &mut to_us).await;
    let written = outcome.await.unwrap();
    assert_eq!((written.copies, written.reached), (2, false));
    assert_eq!(written.refused_by, BTreeSet::from([region(US)]));
}

#[tokio::test]
async fn a_region_that_keeps_a_record_is_counted_as_a_copy() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (eu, us) = (open_among(EU, &[EU, US], dirs[0].path()), open_among(US, &[EU, US], dirs[1].path()));
    let outcome = begin(&eu, "k", 2).await;
    let mut sent = eu.resume(&region(US), &us.vector());
    deliver((&eu, EU), (&us, US), &mut sent).await;
    let written = outcome.await.unwrap();
    assert_eq!((written.copies, written.reached), (2, true));
}

#[tokio::test]
async fn a_refusal_is_never_passed_on_as_if_it_were_the_origins_word() {
    let (_dirs, eu, us) = eu_and_a_us_that_refuses();
    eu.write(write("k", "x", DataClass::Public)).await.unwrap();
    let mut sent = eu.resume(&region(US), &us.vector());
    let refused = deliver((&eu, EU), (&us, US), &mut sent).await.refused;
    assert!(us.outgoing(&region(AP), &Default::default(), 100_000).unwrap().is_empty());
    // And where one is sent all the same, it is a position passed over and nothing else.
    let rule = model::RuleId::new("someones").unwrap();
    let position = refused[0].clone();
    let foreign = Shipment::Refused { position, committed_at: model::UnixMillis(1), rule };
    let third = tempfile::tempdir().unwrap();
    let ap = open_among(AP, &[EU, US, AP], third.path());
    assert!(ap.receive(&region(US), vec![foreign]).await.unwrap().refused.is_empty());
}
