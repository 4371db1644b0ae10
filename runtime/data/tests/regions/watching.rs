//! What those are told of who watch a namespace.

use data::{Changes, DataPlane};
use model::Namespace;
use model::record::DataClass;
use model::version::PositionVector;

use crate::forgetting::{put, tend};
use crate::harness::*;

fn changes(data: &DataPlane, prefix: &str, at: &mut PositionVector) -> Changes {
    let found = data.changes_after(&Namespace::new("notes").unwrap(), prefix, at).unwrap();
    *at = found.upto.clone();
    found
}

fn keys(found: &Changes) -> Vec<&str> {
    found.keys.iter().map(|key| key.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_holds_in_every_region_and_skips_what_was_told() {
    let [eu, us, ap] = Site::three();
    // Regions that have never met are given rows, which no position knows.
    put(&us, "first", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    let mut at = eu.data.vector();
    for key in ["a/1", "b/1", "a/2", "a/1"] {
        put(&eu, key, DataClass::Public).await;
    }
    let found = changes(&eu.data, "a/", &mut at);
    assert_eq!((keys(&found), found.cut, found.more), (vec!["a/2", "a/1"], false, false));
    put(&us, "a/3", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    // Goes on in another region, which has all of it by another way.
    let found = changes(&ap.data, "a/", &mut at);
    assert_eq!((keys(&found), found.cut), (vec!["a/3"], false));
    assert_eq!(keys(&changes(&eu.data, "a/", &mut at)), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_logs_any_more_is_said_to_be_missing() {
    let [eu, us, ap] = Site::three();
    let mut at = PositionVector::new();
    put(&eu, "gone", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    assert_eq!(tend(&eu).await.trimmed, 1);
    let found = changes(&eu.data, "", &mut at);
    assert!(found.cut && found.keys.is_empty(), "{found:?}");
    put(&eu, "next", DataClass::Public).await;
    let found = changes(&eu.data, "", &mut at);
    assert_eq!((keys(&found), found.cut), (vec!["next"], false));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_without_a_log_are_named_to_whoever_watches_and_burials_are_not() {
    let [eu, us, ap] = Site::three();
    put(&us, "k", DataClass::Public).await;
    put(&us, "dead", DataClass::Public).await;
    us.data.write(delete("dead", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    // us-east cuts its log; ap-southeast loses its disk and is given rows.
    tend(&us).await;
    let ap = crate::forgetting::without_disk(ap, 10).await;
    let mut watching = ap.data.watch();
    assert!(link(&us, &ap).await, "no rows were given");
    let mut named = Vec::new();
    while let Ok(addresses) = watching.unlogged.try_recv() {
        named.extend(addresses.iter().map(|address| address.key.as_str().to_owned()));
    }
    assert!(named.contains(&"k".to_owned()), "{named:?}");
    let mut watching = us.data.watch();
    for _ in 0..4 {
        link_all(&[&eu, &us, &ap]).await;
        for site in [&eu, &us, &ap] {
            tend(site).await;
        }
    }
    assert_eq!(row(&us.data, "dead"), None, "the tombstone was never buried");
    let told = watching.unlogged.try_recv();
    assert!(told.is_err(), "told of {told:?}, which changed for nobody");
}
