//! What a region takes of a namespace with a quota.

use std::path::Path;

use data::{DataError, DataPlane};
use model::ByteCount;
use model::record::DataClass;
use model::replication::{Quota, Strategy};

use crate::harness::*;

fn open(id: &str, dir: &Path, bytes: Option<u64>, records: Option<u64>) -> DataPlane {
    let mut plans = plans(&[EU, US]);
    let quota = Quota { bytes: bytes.map(ByteCount), records, object_bytes: None };
    let strategy = Strategy { quota, ..plans.replication.default.clone() };
    plans.replication.namespaces.insert(address("k").namespace, strategy);
    open_with(id, &[EU, US], dir, plans)
}

async fn put(data: &DataPlane, key: &str, value: &str) -> Result<(), DataError> {
    data.write(write(key, value, DataClass::Public)).await.map(|_| ())
}

/// What was refused, and how much there was of it.
fn over(outcome: Result<(), DataError>) -> (&'static str, u64, u64) {
    match outcome {
        Err(DataError::OverQuota { what, used, limit, .. }) => (what, used, limit),
        other => panic!("not refused for its quota: {other:?}"),
    }
}

#[tokio::test]
async fn a_namespace_grows_up_to_its_quota_and_what_shrinks_it_is_never_refused() {
    let dir = tempfile::tempdir().unwrap();
    let eu = open(EU, dir.path(), Some(10), Some(2));
    put(&eu, "a", "12345").await.unwrap();
    assert_eq!(over(put(&eu, "b", "123456").await), ("bytes", 5, 10));
    put(&eu, "b", "12345").await.unwrap();
    assert_eq!(over(put(&eu, "c", "").await), ("records", 2, 2));
    assert_eq!(over(put(&eu, "a", "123456").await), ("bytes", 10, 10));
    put(&eu, "a", "54321").await.unwrap();
    put(&eu, "a", "1").await.unwrap();
    // All of a batch or nothing of it.
    let two = vec![write("a", "12345", DataClass::Public), write("b", "123456", DataClass::Public)];
    let refused = eu.write_all(two).await.unwrap_err();
    assert!(matches!(refused, data::NotAll { at: Some(1), error: DataError::OverQuota { .. } }), "{refused:?}");
    assert_eq!(value(&eu, "a").await.as_deref(), Some("1"));
    eu.write(delete("b", DataClass::Public)).await.unwrap();
    put(&eu, "c", "12345").await.unwrap();
    // Other namespaces have none.
    let mut other = write("k", "a value that is longer than all of them", DataClass::Public);
    other.address.namespace = model::Namespace::new("answers").unwrap();
    eu.write(other).await.unwrap();

    // It is known after a restart, and counted where it is new.
    eu.close().await;
    drop(eu);
    let eu = open(EU, dir.path(), Some(10), Some(2));
    assert_eq!(over(put(&eu, "d", "").await), ("records", 2, 2));
    eu.close().await;
    drop(eu);
    let eu = open(EU, dir.path(), None, None);
    put(&eu, "d", "123").await.unwrap();
    eu.tend().await.unwrap();
    put(&eu, "e", "123").await.unwrap();
    eu.close().await;
    drop(eu);
    let eu = open(EU, dir.path(), None, Some(4));
    assert_eq!(over(put(&eu, "f", "").await), ("records", 4, 4));
}

#[tokio::test]
async fn what_other_regions_have_taken_counts_and_is_never_refused() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (eu, us) = (open(EU, dirs[0].path(), None, Some(2)), open(US, dirs[1].path(), None, Some(2)));
    // Cut off from each other, each takes as much as the quota says.
    for (data, keys) in [(&eu, ["a", "b"]), (&us, ["c", "d"])] {
        for key in keys {
            put(data, key, key).await.unwrap();
        }
        assert_eq!(over(put(data, "x", "x").await), ("records", 2, 2));
    }
    ship((&us, US), (&eu, EU)).await;
    ship((&eu, EU), (&us, US)).await;
    for data in [&eu, &us] {
        assert_eq!(data.list(&address("k").namespace, "", None, 10).unwrap().len(), 4);
        assert_eq!(over(put(data, "x", "x").await), ("records", 4, 2));
    }
    for key in ["a", "b", "c"] {
        us.write(delete(key, DataClass::Public)).await.unwrap();
    }
    ship((&us, US), (&eu, EU)).await;
    put(&eu, "x", "x").await.unwrap();
    assert_eq!(over(put(&eu, "y", "y").await), ("records", 2, 2));
}
