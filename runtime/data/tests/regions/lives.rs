//! Disks that are replaced, and backups that are put back.

use data::{DataError, DataPlane};
use model::record::{DataClass, Shipment};
use model::version::PositionVector;
use model::{Millis, RegionId};

use crate::harness::{EU, US, open_among, open_later, region, ship, value, write};
use crate::two_regions::copy_files;

const BOTH: [&str; 2] = [EU, US];

async fn put(data: &DataPlane, key: &str) {
    data.write(write(key, key, DataClass::Public)).await.unwrap();
}

/// Ships both ways, and wants every key in both regions.
async fn agree_on(eu: &DataPlane, us: &DataPlane, keys: &[&str]) {
    ship((eu, EU), (us, US)).await;
    ship((us, US), (eu, EU)).await;
    for key in keys {
        assert_eq!(value(eu, key).await.as_deref(), Some(*key), "eu-west lost an acknowledged write");
        assert_eq!(value(us, key).await.as_deref(), Some(*key), "us-east lost an acknowledged write");
    }
    assert_eq!(eu.digests().unwrap(), us.digests().unwrap());
}

#[tokio::test]
async fn the_writes_of_a_region_with_an_empty_new_disk_are_not_taken_for_known_ones() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let us = open_among(US, &BOTH, dirs[1].path());
    let eu = open_among(EU, &BOTH, dirs[0].path());
    put(&eu, "old-1").await;
    put(&eu, "old-2").await;
    ship((&eu, EU), (&us, US)).await;
    eu.close().await;
    drop(eu);
    let eu = open_later(Millis::from_secs(10), EU, &BOTH, dirs[2].path());
    // Before its first write already, it gets its own earlier life back.
    ship((&us, US), (&eu, EU)).await;
    assert_eq!(value(&eu, "old-1").await.as_deref(), Some("old-1"));
    put(&eu, "new-1").await;
    agree_on(&eu, &us, &["old-1", "old-2", "new-1"]).await;
}

#[tokio::test]
async fn a_backup_that_is_put_back_uses_no_counter_twice() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let us = open_among(US, &BOTH, dirs[1].path());
    let eu = open_among(EU, &BOTH, dirs[0].path());
    put(&eu, "before").await;
    eu.close().await;
    drop(eu);
    copy_files(dirs[0].path(), dirs[2].path());
    let eu = open_among(EU, &BOTH, dirs[0].path());
    put(&eu, "after").await;
    ship((&eu, EU), (&us, US)).await;
    eu.close().await;
    drop(eu);
    let eu = open_later(Millis::from_secs(10), EU, &BOTH, dirs[2].path());
    put(&eu, "restored").await;
    agree_on(&eu, &us, &["before", "after", "restored"]).await;
}

#[tokio::test]
async fn nobody_else_writes_into_the_log_of_this_life() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let us = open_among(US, &BOTH, dirs[1].path());
    let eu = open_among(EU, &BOTH, dirs[0].path());
    put(&eu, "k").await;
    let own = eu.outgoing(&region(US), &PositionVector::new(), 100_000).unwrap();
    let mut ahead = own[0].position().clone();
    ahead.incarnation.0 += 1;
    let skip = |position| Shipment::Skip { position, committed_at: model::UnixMillis(1) };
    for shipment in [own[0].clone(), skip(ahead)] {
        let before = eu.vector();
        let refused = eu.receive(&region(US), vec![shipment.clone()]).await;
        let Err(DataError::OwnLog { position, .. }) = refused else { panic!("taken: {refused:?}") };
        assert_eq!(&position, shipment.position());
        assert_eq!(eu.vector(), before);
    }
    // What a peer holds of it is not sent back either.
    ship((&eu, EU), (&us, US)).await;
    let behind = eu.vector();
    put(&eu, "k-2").await;
    ship((&eu, EU), (&us, US)).await;
    let sent: Vec<RegionId> =
        us.outgoing(&region(EU), &behind, 100_000).unwrap().iter().map(|s| s.position().origin.clone()).collect();
    assert!(sent.is_empty(), "{sent:?}");
}
