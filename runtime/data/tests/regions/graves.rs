//! Regions bury and forget deletes at different times, and agree all the same.

use data::DataError;
use model::record::DataClass;

use crate::forgetting::{agree, put, tend, without_disk};
use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_by_the_first_region_that_forgot_a_delete_does_not_bring_the_delete_back_elsewhere() {
    let [eu, us, ap] = Site::three();
    put(&eu, "k", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    eu.data.write(delete("k", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us] {
        assert_eq!(tend(site).await.buried + tend(site).await.buried, 1, "{}", site.id);
    }
    // ap-southeast hears of that before it buries too, and the others do not hear of it yet.
    link(&eu, &ap).await;
    link(&us, &ap).await;
    assert_eq!(tend(&ap).await.buried + tend(&ap).await.buried, 1);
    tend(&ap).await;
    put(&ap, "k", DataClass::Public).await;
    link(&ap, &eu).await;
    link(&ap, &us).await;
    for site in [&eu, &us, &ap] {
        let siblings = row(&site.data, "k").unwrap().siblings.len();
        assert_eq!(siblings, 1, "{} has brought the delete back", site.id);
    }
    agree(&[&eu, &us, &ap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_stands_beside_a_write_is_forgotten_by_no_region_that_may_not_hold_the_write() {
    let [eu, us, ap] = Site::three();
    put(&eu, "k", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    // Neither knows of the other; us-east may not hold the one, and its row is as good as empty.
    put(&eu, "k", DataClass::SourceCode).await;
    us.data.write(delete("k", DataClass::Public)).await.unwrap();
    for _ in 0..4 {
        link_all(&[&eu, &us, &ap]).await;
        for site in [&eu, &us, &ap] {
            tend(site).await;
        }
    }
    assert_eq!(row(&eu.data, "k").unwrap().siblings.len(), 2, "the delete and the write were to stand side by side");
    // Only us-east is there to tell a region with an empty disk of the delete.
    let ap = without_disk(ap, 10).await;
    link(&us, &ap).await;
    put(&ap, "k", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    for site in [&eu, &us, &ap] {
        let row = row(&site.data, "k").unwrap();
        assert_eq!(row.tombstones().count(), 0, "{} still has the delete beside a later write", site.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_given_rows_hears_that_a_record_moved_away_though_the_giver_was_given_it_too() {
    let [eu, us, ap] = Site::three();
    put(&ap, "k", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    tend(&us).await;
    // eu-west has the record back from us-east, and nothing of the log that it comes from.
    let eu = without_disk(eu, 10).await;
    assert!(link(&us, &eu).await, "no rows were given");
    assert!(!eu.data.vector().covers_dot(&row(&eu.data, "k").unwrap().siblings[0].version.dot));
    put(&eu, "k", DataClass::Personal).await;
    put(&eu, "hidden", DataClass::Personal).await;
    // The log keeps nothing for absent peers once the clock has moved on.
    let written = wall_clock();
    while wall_clock() <= written {
        tokio::task::yield_now().await;
    }
    assert!(tend(&eu).await.trimmed >= 2);
    assert!(link(&eu, &us).await, "the log was to be cut, and no rows were given");
    let read = us.data.read(&address("k")).await;
    assert!(matches!(read, Err(DataError::Elsewhere { .. })), "us-east shows what was replaced: {read:?}");
    assert!(!rows_contain(&us.data, "hidden"), "us-east knows a key that it never held");
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    // Nobody needs the note any more.
    tend(&eu).await;
    assert_eq!(value(&eu.data, "k").await.as_deref(), Some("k of eu-west"));
}
