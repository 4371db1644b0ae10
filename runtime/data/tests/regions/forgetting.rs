//! What regions forget, and that nothing is lost or comes back by it.

use std::collections::BTreeSet;

use data::Tended;
use model::record::DataClass;
use model::{Millis, RegionId};
use store::Store;

use crate::harness::*;
use crate::two_regions::copy_files;

const ALL: [&str; 3] = [EU, US, AP];

/// A restart of a region that keeps nothing for absent peers, `later` than now.
async fn forgetful(site: Site, later: u64) -> Site {
    let Site { id, data, dir } = site;
    data.close().await;
    drop(data);
    let data = open_forgetful(Millis::from_secs(later), id, &ALL, dir.path());
    Site { id, data, dir }
}

/// The same region with an empty disk.
pub async fn without_disk(site: Site, later: u64) -> Site {
    let Site { id, data, dir } = site;
    data.close().await;
    drop((data, dir));
    let dir = tempfile::tempdir().unwrap();
    Site { id, data: open_forgetful(Millis::from_secs(later), id, &ALL, dir.path()), dir }
}

pub async fn put(site: &Site, key: &str, class: DataClass) {
    site.data.write(write(key, &format!("{key} of {}", site.id), class)).await.unwrap();
}

/// What one call finds goes at the next.
pub async fn tend(site: &Site) -> Tended {
    let one = site.data.tend().await.unwrap();
    let two = site.data.tend().await.unwrap();
    Tended { trimmed: one.trimmed + two.trimmed, buried: one.buried + two.buried, lists: one.lists + two.lists }
}

pub fn agree(sites: &[&Site]) {
    for one in sites {
        for other in sites {
            let (ours, theirs) = (one.data.digests().unwrap(), other.data.digests().unwrap());
            for (scope, summary) in ours.iter().filter(|(_, scope)| scope.regions.contains(&region(other.id))) {
                assert_eq!(theirs.get(scope), Some(summary), "{} and {} differ", one.id, other.id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_cut_when_every_peer_has_it_and_not_before() {
    let [eu, us, ap] = Site::three();
    link_all(&[&eu, &us, &ap]).await;
    for number in 0..20 {
        put(&eu, &format!("key-{number}"), DataClass::Public).await;
    }
    link(&eu, &us).await;
    assert_eq!(tend(&eu).await.trimmed, 0, "ap-southeast has none of it yet");
    link(&eu, &ap).await;
    assert_eq!(tend(&eu).await.trimmed, 20);
    // It goes on where it was, also after a restart that finds no entry.
    let eu = forgetful(eu, 10).await;
    put(&eu, "after", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    assert_eq!(value(&ap.data, "after").await.as_deref(), Some("after of eu-west"));
    assert_eq!(tend(&us).await.trimmed, 21, "what is passed on for others is cut as well");
    agree(&[&eu, &us, &ap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_away_for_too_long_is_given_rows_and_agrees() {
    let [eu, us, ap] = Site::three();
    let (eu, us) = (forgetful(eu, 10).await, forgetful(us, 10).await);
    for number in 0..30 {
        put(&eu, &format!("key-{number}"), DataClass::Public).await;
    }
    put(&ap, "written-there", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    // ap-southeast is away: half is deleted, some is changed in both places, and the log goes.
    for number in 0..15 {
        eu.data.write(delete(&format!("key-{number}"), DataClass::Public)).await.unwrap();
    }
    put(&eu, "key-20", DataClass::Public).await;
    put(&ap, "key-20", DataClass::Public).await;
    put(&ap, "key-3", DataClass::Public).await;
    put(&us, "new-in-us", DataClass::Public).await;
    link_all(&[&eu, &us]).await;
    assert!(tend(&eu).await.trimmed > 0);
    assert!(tend(&us).await.trimmed > 0);
    assert!(link(&eu, &ap).await, "the log has not what it lacks, and no rows were given");
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    for number in (0..15).filter(|number| *number != 3) {
        assert_eq!(value(&ap.data, &format!("key-{number}")).await, None, "a deleted record came back");
    }
    // Written there while it was away: that is no old value that comes back.
    let siblings = row(&ap.data, "key-20").unwrap().siblings.len();
    assert_eq!(siblings, 2, "a concurrent write was lost");
    for site in [&eu, &us, &ap] {
        for (key, from) in [("new-in-us", US), ("written-there", AP), ("key-16", EU)] {
            assert_eq!(value(&site.data, key).await, Some(format!("{key} of {from}")), "{}", site.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_lost_its_disk_gets_everything_back_from_rows() {
    let [eu, us, ap] = Site::three();
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        for number in 0..10 {
            put(site, &format!("{}-{number}", site.id), DataClass::Public).await;
        }
    }
    put(&eu, "code", DataClass::SourceCode).await;
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        assert!(tend(site).await.trimmed >= 31, "{}", site.id);
    }
    let eu = without_disk(eu, 20).await;
    put(&eu, "in-the-new-life", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    for id in ALL {
        assert_eq!(value(&eu.data, &format!("{id}-7")).await, Some(format!("{id}-7 of {id}")));
    }
    assert_eq!(value(&eu.data, "code").await.as_deref(), Some("code of eu-west"));
    assert_eq!(value(&us.data, "in-the-new-life").await.as_deref(), Some("in-the-new-life of eu-west"));
    // Nothing is owed: the old life's log was taken over from those that have it.
    for site in [&eu, &us, &ap] {
        assert!(eu.data.vector().includes(&site.data.vector()), "{} is further than eu-west", site.id);
        assert!(!us.data.must_give_rows(&region(EU), &eu.data.vector()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_region_does_not_stick_when_an_origin_lost_its_disk() {
    let [eu, us, ap] = Site::three();
    // us-east may not hold the first entry, and is the only one that has passed it.
    put(&eu, "code", DataClass::SourceCode).await;
    put(&eu, "public", DataClass::Public).await;
    link(&eu, &us).await;
    let old_life = eu.data.life();
    let eu = without_disk(eu, 10).await;
    for _ in 0..2 {
        link_all(&[&us, &ap, &eu]).await;
        tend(&ap).await;
        tend(&eu).await;
    }
    for site in [&eu, &ap] {
        assert_eq!(value(&site.data, "public").await.as_deref(), Some("public of eu-west"), "{} is stuck", site.id);
        assert_eq!(site.data.vector().offset(&region(EU), old_life), 2, "{} is stuck", site.id);
    }
    agree(&[&eu, &us, &ap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_one_region_still_has_is_not_passed_over_as_lost() {
    let [eu, us, ap] = Site::three();
    put(&eu, "code", DataClass::SourceCode).await;
    put(&eu, "public", DataClass::Public).await;
    link(&eu, &us).await;
    link(&eu, &ap).await;
    let eu = without_disk(eu, 10).await;
    // ap-southeast has the record and is not heard of: the log may not be closed without it.
    link(&us, &eu).await;
    link(&eu, &us).await;
    tend(&eu).await;
    assert_eq!(value(&eu.data, "code").await, None);
    link_all(&[&eu, &us, &ap]).await;
    assert_eq!(value(&eu.data, "code").await.as_deref(), Some("code of eu-west"), "an acknowledged write is lost");
    agree(&[&eu, &us, &ap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_ended_process_still_had_under_way_is_refused() {
    let [eu, us, _ap] = Site::three();
    put(&eu, "late", DataClass::Public).await;
    let batch = eu.data.outgoing(&region(US), &us.data.vector(), 1000).unwrap();
    let ended = eu.data.life();
    let eu = without_disk(eu, 10).await;
    us.data.acked(&region(EU), &eu.data.vector());
    let refused = us.data.receive_in_life(&region(EU), Some(ended), batch).await;
    assert!(matches!(refused, Err(data::DataError::EndedLife { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_go_when_every_region_has_them_and_a_backup_does_not_bring_the_record_back() {
    let [eu, us, ap] = Site::three();
    put(&eu, "gone", DataClass::Public).await;
    put(&ap, "stays", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    let Site { id, data, dir } = us;
    data.close().await;
    drop(data);
    let backup = tempfile::tempdir().unwrap();
    copy_files(dir.path(), backup.path());
    let us = Site { id, data: open_later(Millis::from_secs(10), id, &ALL, dir.path()), dir };

    eu.data.write(delete("gone", DataClass::Public)).await.unwrap();
    link(&eu, &us).await;
    assert_eq!(tend(&eu).await.buried, 0, "ap-southeast has not seen the delete");
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        let buried = tend(site).await.buried + tend(site).await.buried;
        assert_eq!(buried, 1, "{}", site.id);
        assert_eq!(row(&site.data, "gone"), None, "{}", site.id);
        tend(site).await;
    }
    us.data.close().await;
    drop(us);
    let us = Site { id, data: open_later(Millis::from_secs(20), id, &ALL, backup.path()), dir: backup };
    assert_eq!(value(&us.data, "gone").await.as_deref(), Some("gone of eu-west"), "the backup was to have it");
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        assert_eq!(value(&site.data, "gone").await, None, "a deleted record came back in {}", site.id);
        assert_eq!(value(&site.data, "stays").await.as_deref(), Some("stays of ap-southeast"));
    }
    agree(&[&eu, &us, &ap]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_stays_while_a_write_that_knew_nothing_of_it_may_be_under_way() {
    let [eu, us, ap] = Site::three();
    put(&eu, "k", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    // Written in ap-southeast before it hears of the delete, and on its way for long.
    put(&ap, "k", DataClass::Public).await;
    eu.data.write(delete("k", DataClass::Public)).await.unwrap();
    for to in [&us, &ap] {
        link(&eu, to).await;
    }
    link(&us, &eu).await;
    eu.data.acked(&region(AP), &ap.data.vector());
    us.data.acked(&region(AP), &ap.data.vector());
    for site in [&eu, &us] {
        let buried = tend(site).await.buried + tend(site).await.buried;
        assert_eq!(buried, 0, "{} forgot a delete that a write under way has to meet", site.id);
    }
    link_all(&[&eu, &us, &ap]).await;
    agree(&[&eu, &us, &ap]);
    let rows = [&eu, &us, &ap].map(|site| row(&site.data, "k").unwrap().siblings.len());
    assert_eq!(rows, [2; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_do_not_grow_with_every_life_of_a_region() {
    let [mut eu, us, ap] = Site::three();
    for life in 1..=6 {
        put(&eu, "hot", DataClass::Public).await;
        link_all(&[&eu, &us, &ap]).await;
        // Puts on disk how far the peers are.
        tend(&eu).await;
        eu = forgetful(eu, life * 10).await;
    }
    let siblings = row(&eu.data, "hot").unwrap().siblings;
    let actors = siblings[0].version.context.iter().count();
    assert!(actors <= 2, "after six lives the context names {actors} of them");
    put(&us, "hot", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        assert_eq!(value(&site.data, "hot").await.as_deref(), Some("hot of us-east"));
        assert_eq!(row(&site.data, "hot").unwrap().siblings.len(), 1, "an old value came back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_region_may_not_hold_are_not_given_to_it() {
    let [eu, us, ap] = Site::three();
    put(&eu, "secret-key", DataClass::Personal).await;
    put(&eu, "code", DataClass::SourceCode).await;
    put(&eu, "public", DataClass::Public).await;
    let us = without_disk(us, 10).await;
    let ap = without_disk(ap, 10).await;
    let eu = forgetful(eu, 10).await;
    eu.data.tend().await.unwrap();
    eu.data.tend().await.unwrap();
    assert!(link(&eu, &us).await && link(&eu, &ap).await);
    for secret in ["secret-key", "code"] {
        assert!(!rows_contain(&us.data, secret), "us-east was given {secret}");
    }
    assert!(!rows_contain(&ap.data, "secret-key") && rows_contain(&ap.data, "code of eu-west"));
    assert_eq!(value(&us.data, "public").await.as_deref(), Some("public of eu-west"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_row_images_go_when_every_row_of_them_was_written_again() {
    let dirs = [(); 1].map(|()| tempfile::tempdir().unwrap());
    let eu = Site { id: EU, data: open_among(EU, &ALL, dirs[0].path()), dir: tempfile::tempdir().unwrap() };
    for _ in 0..5 {
        put(&eu, "hot", DataClass::Public).await;
    }
    put(&eu, "cold", DataClass::Public).await;
    assert_eq!(tend(&eu).await.lists, 4, "of five lists the last one counts");
    assert_eq!(tend(&eu).await.lists, 0);
    put(&eu, "hot", DataClass::Public).await;
    assert_eq!(tend(&eu).await.lists, 1);
    let lists = crate::ledger::images(&eu.data);
    assert_eq!(lists, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_reads_its_ends_where_no_entry_is_left() {
    let [eu, us, ap] = Site::three();
    put(&eu, "k", DataClass::Public).await;
    link_all(&[&eu, &us, &ap]).await;
    tend(&eu).await;
    let vector = eu.data.vector();
    eu.data.close().await;
    drop(eu.data);
    let store = Store::open(eu.dir.path(), wall_clock()).unwrap();
    let mut origins = BTreeSet::<RegionId>::new();
    for (origin, life, end) in vector.iter().filter(|(.., end)| *end > 0) {
        assert_eq!(store.vector().offset(origin, life), end);
        assert!(store.shipments(origin, life, 0, 1000).unwrap().is_empty());
        origins.insert(origin.clone());
    }
    assert_eq!(origins.len(), 1);
}
