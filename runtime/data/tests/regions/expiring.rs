//! Records whose time is over, in several regions.

use data::{LabelClaims, Write};
use model::Millis;
use model::record::DataClass;

use crate::harness::*;

/// A write of a record that is over after so many seconds.
fn short(clock: &TestClock, value: &str, seconds: u64) -> Write {
    let write = write("k", value, DataClass::Public);
    let until = data::clock::Clock::wall(clock) + Millis::from_secs(seconds);
    Write { labels: LabelClaims { retain_until: Some(until), ..write.labels.clone() }, ..write }
}

async fn expire(site: &Site) -> u64 {
    let found = site.data.expired_after(None).unwrap();
    site.data.expire(found.expired).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_over_is_shown_nowhere_also_before_anybody_deletes_it() {
    let clock = TestClock::new();
    let [eu, us, ap] = three_by(&clock);
    eu.data.write(short(&clock, "short", 10)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    assert_eq!(value(&ap.data, "k").await.as_deref(), Some("short"));
    clock.pass(Millis::from_secs(11));
    for site in [&eu, &us, &ap] {
        assert_eq!(value(&site.data, "k").await, None, "{} shows what is over", site.id);
        assert!(site.data.list(&address("k").namespace, "", None, 10).unwrap().is_empty());
        assert!(site.data.siblings(&address("k"), None).await.unwrap().is_none());
    }
    // There is no record, though its row is still here.
    let stale = row(&us.data, "k").map(|row| data::ETag::of(&row)).unwrap();
    let matched = Write { if_match: Some(stale.into()), ..write("k", "matched", DataClass::Public) };
    assert!(matches!(us.data.write(matched).await, Err(data::DataError::PreconditionFailed)));
    let fresh = Write { if_none_match: true, ..write("k", "new", DataClass::Public) };
    us.data.write(fresh).await.unwrap();
    // The region that wrote it deletes it, not having heard of that.
    assert_eq!(expire(&eu).await, 1);
    link_all(&[&eu, &us, &ap]).await;
    for site in [&eu, &us, &ap] {
        assert_eq!(value(&site.data, "k").await.as_deref(), Some("new"), "{}", site.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_region_wrote_before_a_record_was_over_outlives_its_deletion() {
    let clock = TestClock::new();
    let [eu, us, ap] = three_by(&clock);
    eu.data.write(short(&clock, "short", 10)).await.unwrap();
    link_all(&[&eu, &us, &ap]).await;
    // Prolonged while it lives, in a region that is then cut off.
    clock.pass(Millis::from_secs(9));
    us.data.write(short(&clock, "prolonged", 1000)).await.unwrap();
    clock.pass(Millis::from_secs(5));
    assert_eq!(expire(&eu).await, 1);
    link_all(&[&eu, &us, &ap]).await;
    let shown: Vec<_> = [value(&eu.data, "k").await, value(&us.data, "k").await, value(&ap.data, "k").await].into();
    assert_eq!(shown, vec![Some("prolonged".to_owned()); 3]);
    clock.pass(Millis::from_secs(1000));
    assert_eq!(value(&ap.data, "k").await, None);
    assert_eq!(expire(&us).await, 1);
    link_all(&[&eu, &us, &ap]).await;
    let rows = [&eu, &us, &ap].map(|site| row(&site.data, "k").expect("a tombstone"));
    assert!(rows.iter().all(|found| *found == rows[0] && found.is_dead()), "{rows:?}");
}
