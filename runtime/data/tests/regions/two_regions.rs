//! Two regions.

use std::collections::BTreeSet;

use data::{DataError, DataPlane, Write};
use model::record::DataClass;
use model::replication::AckLevel;

use crate::harness::{EU, US, address, open_among, region, ship, value, write};

fn open(id: &str, dir: &std::path::Path) -> DataPlane {
    open_among(id, &[EU, US], dir)
}

#[tokio::test]
async fn regions_that_wrote_apart_agree_once_they_have_shipped() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let eu = open("eu-west", here.path());
    let us = open("us-east", there.path());
    for number in 0..20 {
        eu.write(write(&format!("eu-{number}"), "from eu", DataClass::Public)).await.unwrap();
        us.write(write(&format!("us-{number}"), "from us", DataClass::Public)).await.unwrap();
        eu.write(write("both", &format!("eu {number}"), DataClass::Public)).await.unwrap();
        us.write(write("both", &format!("us {number}"), DataClass::Public)).await.unwrap();
    }
    assert_ne!(eu.digests().unwrap(), us.digests().unwrap());
    ship((&eu, "eu-west"), (&us, "us-east")).await;
    ship((&us, "us-east"), (&eu, "eu-west")).await;
    assert_eq!(eu.digests().unwrap(), us.digests().unwrap());
    assert_eq!(value(&eu, "both").await, value(&us, "both").await);
    assert_eq!(eu.read(&address("both")).await.unwrap().unwrap().siblings, 2);
    assert!(eu.links().iter().chain(&us.links()).all(|link| link.backlog == 0 && link.lag_ms == 0));

    // A write that has seen both settles them, everywhere.
    eu.write(write("both", "settled", DataClass::Public)).await.unwrap();
    ship((&eu, "eu-west"), (&us, "us-east")).await;
    assert_eq!(us.read(&address("both")).await.unwrap().unwrap().siblings, 1);
    assert_eq!(value(&us, "both").await.as_deref(), Some("settled"));
}

#[tokio::test]
async fn a_record_barred_from_a_region_is_neither_taken_nor_sent_there() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let eu = open("eu-west", here.path());
    let us = open("us-east", there.path());
    let refused = us.write(write("profile", "x", DataClass::Personal)).await;
    let Err(DataError::Barred(barred)) = refused else { panic!("taken: {refused:?}") };
    assert_eq!(barred.rule.as_str(), "stays-home");
    assert_eq!(barred.elsewhere, BTreeSet::from([region("eu-west")]));

    eu.write(write("profile", "canary", DataClass::Personal)).await.unwrap();
    eu.write(write("note", "public", DataClass::Public)).await.unwrap();
    ship((&eu, "eu-west"), (&us, "us-east")).await;
    assert_eq!(value(&us, "note").await.as_deref(), Some("public"));
    assert_eq!(value(&us, "profile").await, None);
    us.each_row(&mut |_, row| {
        assert!(!row.windows(6).any(|window| window == b"canary"));
        true
    })
    .unwrap();

    // A sender that ships it all the same is refused on arrival, and the log does not stall behind it.
    let raw = eu.outgoing(&region("eu-west-2"), &Default::default(), 10_000).unwrap();
    assert!(raw.iter().all(|shipment| matches!(shipment, model::record::Shipment::Skip { .. })));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_stop_without_warning() {
    let here = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let first = {
        let eu = open("eu-west", here.path());
        let first = eu.vector().newest(&region(EU)).unwrap();
        for number in 0..50 {
            eu.write(write(&format!("key-{number}"), "kept", DataClass::Public)).await.unwrap();
        }
        // What a power cut would leave: the files as they are now, while the store is open.
        copy_files(here.path(), copy.path());
        eu.close().await;
        first
    };
    let again = open("eu-west", copy.path());
    for number in 0..50 {
        assert_eq!(value(&again, &format!("key-{number}")).await.as_deref(), Some("kept"), "key-{number}");
    }
    let after = again.write(write("after", "x", DataClass::Public)).await.unwrap();
    assert!(after.context.iter().all(|(actor, _)| actor.incarnation > first), "a counter could be used twice");
}

pub fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_files(&entry.path(), &target)
        } else {
            let _bytes = std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn preconditions_copies_and_deletes_are_held_to() {
    let here = tempfile::tempdir().unwrap();
    let eu = open("eu-west", here.path());
    let first = eu.write(write("k", "1", DataClass::Public)).await.unwrap();
    let again = Write { if_none_match: true, ..write("k", "2", DataClass::Public) };
    assert!(matches!(eu.write(again).await, Err(DataError::PreconditionFailed)));
    let matched = Write { if_match: Some(first.etag.clone().into()), ..write("k", "2", DataClass::Public) };
    eu.write(matched).await.unwrap();
    let stale = Write { if_match: Some(first.etag.into()), ..write("k", "3", DataClass::Public) };
    assert!(matches!(eu.write(stale).await, Err(DataError::PreconditionFailed)));

    let many = Write { ack: Some(AckLevel::Regions(3)), ..write("k", "3", DataClass::Public) };
    assert!(matches!(eu.write(many).await, Err(DataError::TooManyCopies { asked: 3, in_scope: 2 })));

    eu.write(Write { value: None, ..write("k", "", DataClass::Public) }).await.unwrap();
    assert_eq!(value(&eu, "k").await, None);
    assert!(eu.list(&address("k").namespace, "", None, 10).unwrap().is_empty());
    eu.close().await;
    assert!(matches!(eu.write(write("k", "4", DataClass::Public)).await, Err(DataError::Closed)));
}
