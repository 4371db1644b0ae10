//! Disks that are lost at the worst moment: what was replaced stays replaced, and regions agree.

use std::collections::BTreeSet;

use data::{DataError, Write};
use model::Country;
use model::record::DataClass;

use crate::forgetting::{agree, put, tend, without_disk};
use crate::harness::*;

/// A value that may be in `us-east` alone.
fn american(key: &str) -> Write {
    let mut write = write(key, "American", DataClass::Personal);
    write.labels.jurisdictions = Some(BTreeSet::from([Country::new("US").unwrap()]));
    write
}

/// `to` hears how far `from` is, as by a probe.
fn hear(from: &Site, to: &Site) {
    to.data.heard(&region(from.id), &from.data.vector(), &from.data.burials());
}

fn siblings(site: &Site, key: &str) -> usize {
    row(&site.data, key).map_or(0, |row| row.siblings.iter().filter(|sibling| !sibling.is_marker()).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_was_replaced_elsewhere_does_not_come_back_beside_a_later_write() {
    let [eu, us, ap] = Site::three();
    us.data.write(delete("k", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    // us-east has no more than a marker of what replaced the delete, and eu-west nothing.
    put(&ap, "k", DataClass::SourceCode).await;
    link(&ap, &us).await;
    let ap = without_disk(ap, 10).await;
    hear(&ap, &us);
    hear(&ap, &eu);
    assert!(link(&us, &eu).await, "no rows were given");
    put(&ap, "k", DataClass::Public).await;
    link(&ap, &eu).await;
    assert_eq!(siblings(&eu, "k"), 1, "eu-west has brought the delete back");
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_with_an_empty_disk_remembers_what_moved_away_before_an_old_value_is_given_to_it() {
    let [eu, us, ap] = Site::three();
    link_all(&[&eu, &us, &ap]).await;
    put(&eu, "k", DataClass::SourceCode).await;
    link(&eu, &ap).await;
    put(&eu, "k", DataClass::Public).await;
    link(&eu, &us).await;
    us.data.write(american("k")).await.unwrap();
    let eu = without_disk(eu, 10).await;
    assert!(link(&us, &eu).await, "no rows were given");
    hear(&eu, &ap);
    assert!(link(&ap, &eu).await, "no rows were given");
    let read = eu.data.read(&address("k")).await;
    assert!(matches!(read, Err(DataError::Elsewhere { .. })), "eu-west shows what was replaced twice: {read:?}");
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    assert_eq!(siblings(&eu, "k") + siblings(&ap, "k"), 0, "an old value is left where it may not be any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_record_moved_away_is_told_by_whoever_knows_it() {
    let [eu, us, ap] = Site::three();
    link_all(&[&eu, &us, &ap]).await;
    put(&eu, "k", DataClass::Public).await;
    link(&eu, &us).await;
    // What comes before it in the log is none of the others' business, so that they cannot pass the log on.
    us.data.write(american("other")).await.unwrap();
    us.data.write(american("k")).await.unwrap();
    link(&us, &ap).await;
    // Nobody has the record any more, and ap-southeast alone knows that it replaced another.
    let us = without_disk(us, 10).await;
    hear(&us, &ap);
    hear(&us, &eu);
    link(&ap, &eu).await;
    let read = eu.data.read(&address("k")).await;
    assert!(matches!(read, Err(DataError::Elsewhere { .. })), "eu-west has not heard of it: {read:?}");
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    assert_eq!(value(&us.data, "k").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_write_had_replaced_is_not_shown_again() {
    let [eu, us, ap] = Site::three();
    link_all(&[&eu, &us, &ap]).await;
    put(&eu, "k", DataClass::SourceCode).await;
    link(&eu, &ap).await;
    put(&eu, "k", DataClass::Public).await;
    link(&eu, &us).await;
    eu.data.write(delete("k", DataClass::Personal)).await.unwrap();
    link(&eu, &us).await;
    // The delete might be in eu-west alone, and is lost; ap-southeast was away and has the first value.
    let eu = without_disk(eu, 10).await;
    assert!(link(&us, &eu).await, "no rows were given");
    hear(&eu, &ap);
    assert!(link(&ap, &eu).await, "no rows were given");
    assert_eq!(value(&eu.data, "k").await, None, "eu-west shows what was replaced twice");
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    // A write there replaces what is left of the lost one, so that no region points to it any more.
    put(&eu, "k", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        assert_eq!(value(&site.data, "k").await.as_deref(), Some("k of eu-west"), "in {}", site.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_over_a_buried_delete_is_told_where_the_delete_is_not_buried_yet() {
    let [eu, us, ap] = Site::three();
    ap.data.write(delete("k", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    assert_eq!(tend(&ap).await.buried + tend(&ap).await.buried, 1);
    put(&ap, "k", DataClass::SourceCode).await;
    link(&ap, &eu).await;
    link(&ap, &us).await;
    assert!(row(&us.data, "k").is_none_or(|row| row.tombstones().count() == 0), "us-east was told nothing");
    let ap = without_disk(ap, 10).await;
    put(&ap, "k", DataClass::Public).await;
    link(&ap, &eu).await;
    link(&ap, &us).await;
    assert_eq!(siblings(&us, "k"), 1, "the delete stands beside the write in us-east alone");
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_in_no_log_any_more_is_given_to_every_region() {
    let [eu, us, ap] = Site::three();
    link_all(&[&eu, &us, &ap]).await;
    let giving = eu.data.begin_giving(&region(AP));
    // After what the rows are said to reach to, and among them all the same.
    put(&eu, "k", DataClass::Public).await;
    let part = eu.data.part(&giving, 1 << 20).unwrap();
    ap.data.take_part(&region(EU), part).await.unwrap();
    assert!(value(&ap.data, "k").await.is_some());
    let eu = without_disk(eu, 10).await;
    hear(&eu, &us);
    hear(&eu, &ap);
    tend(&ap).await;
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        assert_eq!(value(&site.data, "k").await.as_deref(), Some("k of eu-west"), "in {}", site.id);
    }
    agree(&[&eu, &us, &ap]);
}
