//! Disks that are replaced, and backups that are put back.

use data::{DataError, DataPlane};
use model::record::{DataClass, Shipment};
use model::version::PositionVector;
use model::{Hlc, Millis, RegionId, UnixMillis};
use store::{Commit, Store};

use crate::harness::{
    EU, US, address, open_among, open_in_memory, open_later, region, row, ship, value, wall_clock, write,
};
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

/// Where the clock of stamps stood, as a restart finds it, and the stamp of the first write afterwards.
async fn stamps_around_a_restart(ahead_of_the_wall_clock: i64) -> (Hlc, Hlc) {
    let dir = tempfile::tempdir().unwrap();
    let stood = wall_clock().0.checked_add_signed(ahead_of_the_wall_clock).unwrap();
    let before = Hlc::new(UnixMillis(stood), 7);
    {
        let store = Store::open(dir.path(), wall_clock()).unwrap();
        let meta = vec![("hlc".to_owned(), before.bits().to_le_bytes().to_vec())];
        store.commit(Commit { meta, ..Commit::default() }).unwrap();
    }
    let eu = open_among(EU, &BOTH, dir.path());
    put(&eu, "k").await;
    (before, row(&eu, "k").unwrap().siblings[0].version.hlc)
}

#[tokio::test]
async fn no_stamp_after_a_restart_lies_before_one_of_before() {
    const HOUR: i64 = 3_600_000;
    let (before, after) = stamps_around_a_restart(HOUR).await;
    assert_eq!(after, before.next(), "the wall clock went back by an hour, and the stamps with it");
    // A stop of some hours does not hold the stamps back; a clock that went ahead by a month does not take them along.
    let (before, after) = stamps_around_a_restart(-5 * HOUR).await;
    assert!(after.wall() - before.wall() >= Millis(5 * HOUR as u64));
    let (before, after) = stamps_around_a_restart(-30 * 24 * HOUR).await;
    assert!(after > before && after.wall() - before.wall() < Millis(25 * HOUR as u64));
}

#[tokio::test]
async fn what_peers_lack_is_known_after_a_restart() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let us = open_among(US, &BOTH, dirs[1].path());
    let eu = open_among(EU, &BOTH, dirs[0].path());
    put(&eu, "a").await;
    ship((&eu, EU), (&us, US)).await;
    put(&eu, "b").await;
    put(&eu, "c").await;
    eu.close().await;
    drop(eu);
    let eu = open_among(EU, &BOTH, dirs[0].path());
    assert_eq!(eu.backlog(&region(US)), 2);
    put(&eu, "d").await;
    assert_eq!(eu.backlog(&region(US)), 3);
    ship((&eu, EU), (&us, US)).await;
    assert_eq!((eu.backlog(&region(US)), eu.links()[0].lag_ms), (0, 0));
}

#[tokio::test]
async fn a_region_whose_disk_is_full_says_so_loses_nothing_and_serves_again_once_reopened() {
    let disk = store::memory::Disk::new();
    let us = open_in_memory(US, &[US, EU], &disk);
    us.write(write("k", "before", DataClass::Public)).await.unwrap();
    assert_eq!(us.failed(), None);

    disk.set_room(Some(0));
    let refused = us.write(write("k", "no room", DataClass::Public)).await;
    assert!(matches!(refused, Err(DataError::Failed { .. })), "{refused:?}");
    assert!(us.failed().is_some(), "whoever asks whether it is ready must hear of it");
    assert_eq!(us.read(&address("k")).await.unwrap().map(|view| view.siblings), Some(1), "reads go on");

    // Room alone does not help: the engine takes no commit after one that failed.
    disk.set_room(None);
    assert!(us.write(write("k", "still not", DataClass::Public)).await.is_err());
    us.close().await;
    drop(us);
    let us = open_in_memory(US, &[US, EU], &disk);
    assert_eq!(us.failed(), None);
    let view = us.read(&address("k")).await.unwrap().expect("what was acknowledged");
    assert_eq!(view.record.payload.bytes(), &b"before"[..]);
    us.write(write("k", "after", DataClass::Public)).await.unwrap();
}
