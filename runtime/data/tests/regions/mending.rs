//! Rows that were damaged on disk: never served, never silently gone, given again by the others.

use std::sync::Arc;

use arc_swap::ArcSwap;
use data::{Damage, DataError, LabelClaims, Opening, Retention, Write};
use model::petition::{Demand, Order};
use model::record::DataClass;
use model::sealing::OrderId;
use model::{ByteCount, Country, Millis, UnixMillis};
use store::Store;
use store::memory::Disk;

use crate::harness::*;

/// Three regions on disks in memory, which keep of their logs only what others lack.
fn sites() -> [(Site, Disk); 3] {
    [EU, US, AP].map(|id| {
        let disk = Disk::new();
        let store = Store::open_in_memory(&disk, wall_clock()).unwrap();
        let peers = [EU, US, AP].into_iter().filter(|peer| *peer != id).map(region).collect();
        let plans = Arc::new(ArcSwap::from_pointee(plans(&[EU, US, AP])));
        let mut opening = Opening::new(region(id), peers, plans, Arc::new(NoResolver), [7; 32]);
        opening.keep = Retention { age: Millis(0), bytes: ByteCount::MAX, watched: Millis(0) };
        let data = data::DataPlane::start(store, opening).unwrap();
        (Site { id, data, dir: tempfile::tempdir().unwrap() }, disk)
    })
}

/// One region states what another asks it about.
async fn mend(from: &Site, to: &Site) {
    let keys = to.data.to_be_asked(&region(from.id));
    if !keys.is_empty() {
        let stated = from.data.state(&region(to.id), &keys).unwrap();
        to.data.mend(&region(from.id), stated).await.unwrap();
    }
}

fn damaged<T: std::fmt::Debug>(outcome: Result<T, DataError>) {
    assert!(matches!(outcome, Err(DataError::Damaged { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_damaged_row_is_not_served_and_is_given_again_by_the_others() {
    let [(eu, _), (us, disk), (ap, _)] = sites();
    for key in ["k", "l"] {
        eu.data.write(write(key, "good", DataClass::Public)).await.unwrap();
    }
    link_all(&[&eu, &us, &ap]).await;
    assert!(disk.flip_bit_of_a_row(2));
    let namespace = address("k").namespace;
    // Whichever of the two it was.
    let read = us.data.read(&address("k")).await;
    let (hurt, whole) = if read.is_err() { ("k", "l") } else { ("l", "k") };
    damaged(us.data.read(&address(hurt)).await);
    damaged(us.data.siblings(&address(hurt), None).await);
    damaged(us.data.write(write(hurt, "over it", DataClass::Public)).await);
    damaged(us.data.list(&namespace, "", None, 10));
    assert_eq!(value(&us.data, whole).await.as_deref(), Some("good"), "the others suffer from it");
    assert_eq!(us.data.damage(), Damage { waiting: 1, without_copy: 0, aside: 1 });

    mend(&eu, &us).await;
    damaged(us.data.read(&address(hurt)).await);
    mend(&ap, &us).await;
    assert_eq!(value(&us.data, hurt).await.as_deref(), Some("good"));
    assert_eq!(us.data.damage(), Damage { waiting: 0, without_copy: 0, aside: 1 }, "the bytes stay aside");
    assert_eq!(us.data.list(&namespace, "", None, 10).unwrap().len(), 2);
    assert_eq!(us.data.digests().unwrap(), eu.data.digests().unwrap());
}

#[tokio::test]
async fn a_look_at_all_rows_finds_what_nobody_reads() {
    let [(eu, _), (us, disk), (ap, _)] = sites();
    for number in 0..50 {
        eu.data.write(write(&format!("key-{number}"), "good", DataClass::Public)).await.unwrap();
    }
    link_all(&[&eu, &us, &ap]).await;
    assert!(disk.flip_bit_of_a_row(23 + 50 * 100));
    assert!(us.data.digests().is_err(), "damage is not hashed");
    assert_eq!(us.data.scrub(None).await.unwrap(), None);
    assert_eq!(us.data.damage().waiting, 1);
    // What is asked meanwhile is answered out of the logs, and with the word that silence says nothing.
    let keys: Vec<_> = (0..50).map(|number| address(&format!("key-{number}"))).collect();
    let stated = us.data.state(&region(EU), &keys).unwrap();
    assert_eq!(stated.rows.len(), 50, "who has lost the same row waits for this region");
    assert!(stated.vector.iter().all(|(origin, life, _)| stated.partial.contains(&(origin.clone(), life))));
    let giving = us.data.begin_giving(&region(EU));
    damaged(us.data.part(&giving, 1 << 20));
    for number in 0..50 {
        assert_eq!(value(&eu.data, &format!("key-{number}")).await.as_deref(), Some("good"), "{number}");
    }
    mend(&eu, &us).await;
    mend(&ap, &us).await;
    assert_eq!(us.data.digests().unwrap(), eu.data.digests().unwrap());
}

#[tokio::test]
async fn a_region_that_is_behind_brings_back_nothing_that_was_replaced_or_deleted() {
    for delete_it in [false, true] {
        let [(eu, _), (us, disk), (ap, _)] = sites();
        eu.data.write(write("k", "old", DataClass::Public)).await.unwrap();
        link_all(&[&eu, &us, &ap]).await;
        // Nobody else has heard of it.
        let newer = if delete_it { delete("k", DataClass::Public) } else { write("k", "new", DataClass::Public) };
        us.data.write(newer).await.unwrap();
        assert!(disk.flip_bit_of_a_row(1));
        us.data.scrub(None).await.unwrap();
        damaged(us.data.read(&address("k")).await);
        let expected = (!delete_it).then_some("new");
        mend(&eu, &us).await;
        damaged(us.data.read(&address("k")).await);
        // From its own log, which the others lack.
        mend(&ap, &us).await;
        assert_eq!(value(&us.data, "k").await.as_deref(), expected, "what was replaced is back: {delete_it}");
        link_all(&[&eu, &us, &ap]).await;
        for site in [&eu, &us, &ap] {
            assert_eq!(value(&site.data, "k").await.as_deref(), expected, "{} {delete_it}", site.id);
        }
        assert_eq!(us.data.damage().waiting, 0);
    }
}

/// A record that no region but the one in the US may hold.
fn at_home() -> Write {
    let labels = LabelClaims {
        jurisdictions: Some([Country::new("US").unwrap()].into()),
        ..write("k", "", DataClass::Personal).labels
    };
    Write { labels, ..write("k", "at home", DataClass::Personal) }
}

/// Three regions, of which the one in the US found its only row of `k` damaged: no other has anything of it.
async fn damaged_at_home() -> [Site; 3] {
    let [(eu, _), (us, disk), (ap, _)] = sites();
    us.data.write(at_home()).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    // Everybody has passed it, so it goes from the log.
    us.data.tend().await.unwrap();
    us.data.tend().await.unwrap();
    assert!(disk.flip_bit_of_a_row(9));
    us.data.scrub(None).await.unwrap();
    mend(&eu, &us).await;
    mend(&ap, &us).await;
    assert_eq!(us.data.damage(), Damage { waiting: 0, without_copy: 1, aside: 1 });
    [eu, us, ap]
}

#[tokio::test]
async fn what_no_other_region_may_hold_is_reported_and_can_be_written_anew() {
    let [eu, us, ap] = damaged_at_home().await;
    damaged(us.data.read(&address("k")).await);
    for site in [&eu, &ap] {
        assert!(row(&site.data, "k").is_none(), "mending widened a scope: {}", site.id);
    }
    us.data.write(at_home()).await.unwrap();
    assert_eq!(value(&us.data, "k").await.as_deref(), Some("at home"));
    assert_eq!(us.data.damage(), Damage { waiting: 0, without_copy: 0, aside: 1 });
    // The bytes that lie aside may be about anybody.
    let owner = us.data.owner_of(&"s-1".parse().unwrap());
    let order = Order { id: OrderId([3; 16]), owner, demand: Demand::Erase, by: region(US), at: UnixMillis(9) };
    us.data.carry_out(&order).await.unwrap();
    assert_eq!(us.data.damage().aside, 0);
}

#[tokio::test]
async fn what_comes_with_rows_ends_a_wound_of_which_nobody_had_anything() {
    let [eu, us, _ap] = damaged_at_home().await;
    eu.data.write(write("k", "anew", DataClass::Public)).await.unwrap();
    let giving = eu.data.begin_giving(&region(US));
    us.data.take_part(&region(EU), eu.data.part(&giving, 1 << 20).unwrap()).await.unwrap();
    assert_eq!(value(&us.data, "k").await.as_deref(), Some("anew"));
    assert_eq!(us.data.damage(), Damage { waiting: 0, without_copy: 0, aside: 1 });
}

#[tokio::test]
async fn regions_that_have_lost_the_same_row_do_not_wait_for_each_other() {
    let [(eu, _), (us, disk), (ap, other)] = sites();
    eu.data.write(write("k", "good", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    assert!(disk.flip_bit_of_a_row(1) && other.flip_bit_of_a_row(3));
    for site in [&us, &ap] {
        site.data.scrub(None).await.unwrap();
        damaged(site.data.read(&address("k")).await);
    }
    // What the other one has forgotten says nothing, and not that there is nothing.
    mend(&ap, &us).await;
    damaged(us.data.read(&address("k")).await);
    mend(&eu, &us).await;
    mend(&us, &ap).await;
    mend(&eu, &ap).await;
    for site in [&us, &ap] {
        assert_eq!(value(&site.data, "k").await.as_deref(), Some("good"), "in {}", site.id);
        assert_eq!(site.data.damage().waiting, 0, "in {}", site.id);
    }
}

#[tokio::test]
async fn a_wound_that_the_disk_does_not_know_to_be_healed_is_open() {
    let [(eu, _), (us, disk), (ap, _)] = sites();
    eu.data.write(write("k", "good", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    assert!(disk.flip_bit_of_a_row(1));
    us.data.scrub(None).await.unwrap();
    mend(&eu, &us).await;
    disk.set_room(Some(0));
    let stated = ap.data.state(&region(US), &[address("k")]).unwrap();
    us.data.mend(&region(AP), stated).await.unwrap_err();
    assert_eq!(us.data.damage().waiting, 1, "it says that it is whole, and its disk is not");
    assert_eq!(us.data.to_be_asked(&region(AP)), [address("k")]);
    disk.set_room(None);
    let us = Site { id: US, data: open_in_memory(US, &[EU, US, AP], &disk), dir: us.dir };
    damaged(us.data.read(&address("k")).await);
    mend(&eu, &us).await;
    mend(&ap, &us).await;
    assert_eq!(value(&us.data, "k").await.as_deref(), Some("good"));
}

#[tokio::test]
async fn a_wound_outlives_a_restart() {
    let [(eu, _), (us, disk), (ap, _)] = sites();
    eu.data.write(write("k", "good", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    disk.flip_bit_of_a_row(5);
    us.data.scrub(None).await.unwrap();
    us.data.close().await;
    let later = wall_clock() + Millis(5_000);
    let store = Store::open_in_memory(&disk, later).unwrap();
    let peers = [EU, AP].map(region).into();
    let plans = Arc::new(ArcSwap::from_pointee(plans(&[EU, US, AP])));
    let data =
        data::DataPlane::start(store, Opening::new(region(US), peers, plans, Arc::new(NoResolver), [7; 32])).unwrap();
    let us = Site { id: US, data, dir: us.dir };
    damaged(us.data.read(&address("k")).await);
    for from in [&eu, &ap] {
        link(from, &us).await;
        link(&us, from).await;
        mend(from, &us).await;
    }
    assert_eq!(value(&us.data, "k").await.as_deref(), Some("good"));
}

/// Two regions compare all rows, and each checks against its ledger what differs. How many keys differed, and how many
/// rows each found wrong.
async fn compare(one: &Site, other: &Site) -> (usize, u64, u64) {
    let (here, there) = (region(one.id), region(other.id));
    let ours = one.data.page(&there, None, None).unwrap();
    let theirs = other.data.page(&here, None, None).unwrap();
    let keys: std::collections::BTreeSet<_> = ours.rows.keys().chain(theirs.rows.keys()).cloned().collect();
    let differ: Vec<_> = keys.into_iter().filter(|key| ours.rows.get(key) != theirs.rows.get(key)).collect();
    let wrong = one.data.check_against_ledger(differ.clone()).await.unwrap();
    (differ.len(), wrong, other.data.check_against_ledger(differ).await.unwrap())
}

/// Changes rows of a store behind the back of its region, which has closed it.
fn plant(disk: &Disk, change: impl FnOnce(&Store) -> store::Commit) {
    let store = Store::open_in_memory(disk, wall_clock()).unwrap();
    store.commit(change(&store)).unwrap();
}

fn reopened(id: &'static str, disk: &Disk) -> Site {
    let data = open_in_memory(id, &[EU, US, AP], disk);
    Site { id, data, dir: tempfile::tempdir().unwrap() }
}

#[tokio::test]
async fn a_row_that_is_missing_or_planted_is_found_by_comparing_and_the_region_that_is_wrong_mends_it() {
    let [(eu, _), (us, disk), (ap, _)] = sites();
    for key in ["gone", "changed", "good", "dead"] {
        eu.data.write(write(key, "as written", DataClass::Public)).await.unwrap();
    }
    link_all(&[&eu, &us, &ap]).await;
    let old = row(&us.data, "dead").unwrap();
    us.data.write(delete("dead", DataClass::Public)).await.unwrap();
    us.data.write(write("changed", "anew", DataClass::Public)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    let before = us.data.digests().unwrap();
    us.data.close().await;
    // A row goes, another one is what it was once, and a deleted one is back.
    plant(&disk, |_| {
        let back = |key: &str| store::StoredRow::of(&address(key), &old);
        let removed = vec![store::row_key(&address("gone"))];
        store::Commit { rows: vec![back("dead"), back("changed")], removed, ..store::Commit::default() }
    });
    let us = reopened(US, &disk);
    link_all(&[&eu, &us, &ap]).await;
    let (here, there) = (us.data.vector(), eu.data.vector());
    assert!(here.includes(&there) && there.includes(&here), "the vectors do not say that all is well");
    assert_ne!(us.data.digests().unwrap(), before);
    assert_eq!(compare(&us, &eu).await, (3, 3, 0), "the region that was tampered with is not the one that is wrong");
    damaged(us.data.read(&address("gone")).await);
    assert_eq!(us.data.account().unwrap(), None, "a region speaks for what it has forgotten");
    for peer in [&eu, &ap] {
        mend(peer, &us).await;
    }
    assert_eq!(value(&us.data, "gone").await.as_deref(), Some("as written"));
    assert_eq!(value(&us.data, "changed").await.as_deref(), Some("anew"));
    for site in [&eu, &us, &ap] {
        assert!(site.data.read(&address("dead")).await.ok().flatten().is_none(), "a delete was undone in {}", site.id);
    }
    assert_eq!(compare(&us, &eu).await, (0, 0, 0));
    assert_eq!(us.data.digests().unwrap(), before);
}
