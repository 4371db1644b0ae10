//! Erasures and holds, where regions hear of them at different times.

use std::sync::Arc;

use data::plans::Plans;
use data::{DataError, LabelClaims, Write};
use model::petition::{Demand, Order};
use model::record::DataClass;
use model::sealing::OrderId;
use model::{RegionId, UnixMillis};

use crate::harness::*;
use crate::sealing::{demand_encryption, keys};

fn sites() -> [Site; 3] {
    [EU, US, AP].map(|id| {
        let dir = tempfile::tempdir().unwrap();
        let change: fn(&mut Plans) = demand_encryption;
        Site { id, data: open_sealed(id, dir.path(), change, Arc::new(NoResolver)), dir }
    })
}

/// A write that all regions may hold, about a person.
fn about(subject: &str, key: &str, value: &str) -> Write {
    let write = write(key, value, DataClass::Public);
    let labels = LabelClaims { subject: Some(subject.parse().unwrap()), ..write.labels };
    Write { labels, ..write }
}

fn order(site: &Site, number: u8, subject: &str, demand: Demand) -> Order {
    let owner = site.data.owner_of(&subject.parse().unwrap());
    Order { id: OrderId([number; 16]), owner, demand, by: RegionId::new(EU).unwrap(), at: UnixMillis(9) }
}

#[tokio::test]
async fn what_was_written_with_an_old_key_is_refused_wherever_the_erasure_is_known() {
    let sites = sites();
    let [eu, us, ap] = &sites;
    eu.data.write(about("s-1", "first", "canary-one")).await.unwrap();
    eu.data.write(about("s-2", "other", "stays")).await.unwrap();
    carry(eu, us).await;
    carry(eu, ap).await;
    // The old key, in a region that has not heard; and a key of its own for a record that no other knows.
    ap.data.write(about("s-1", "first", "canary-two")).await.unwrap();
    ap.data.write(about("s-1", "second", "canary-three")).await.unwrap();
    let erase = order(eu, 1, "s-1", Demand::Erase);
    for site in [eu, us] {
        let done = site.data.carry_out(&erase).await.unwrap();
        assert_eq!((done.keys, done.records.len()), (1, 1), "{}", site.id);
        assert_eq!(value(&site.data, "first").await, None, "{}", site.id);
        assert!(site.data.has_carried_out(erase.id).unwrap());
    }
    carry(ap, us).await;
    carry(ap, eu).await;
    for site in [eu, us] {
        assert!(!matches!(value_of(site, "first").await.as_deref(), Some("canary-two")));
        assert!(row(&site.data, "second").is_none(), "a record of an erased person came in: {}", site.id);
        assert_eq!(keys(site), 1, "the other person's key alone");
    }
    ap.data.carry_out(&erase).await.unwrap();
    for _ in 0..2 {
        for from in &sites {
            for to in sites.iter().filter(|to| to.id != from.id) {
                carry(from, to).await;
            }
        }
    }
    for site in &sites {
        for key in ["first", "second"] {
            assert_eq!(value_of(site, key).await, None, "{key} in {}", site.id);
        }
        assert_eq!(value(&site.data, "other").await.as_deref(), Some("stays"));
        assert!(!rows_contain(&site.data, "s-1"), "the pseudonym is still in {}", site.id);
        assert_eq!(keys(site), 1, "{}", site.id);
    }
    // A new beginning, with a new key.
    us.data.write(about("s-1", "first", "anew")).await.unwrap();
    carry(us, eu).await;
    assert_eq!(value(&eu.data, "first").await.as_deref(), Some("anew"));
    // Carried out again, as after a restart in between, it takes nothing that came since.
    eu.data.carry_out(&erase).await.unwrap();
    assert_eq!(value(&eu.data, "first").await.as_deref(), Some("anew"));
}

/// The value, or nothing also where the record is said to live elsewhere.
async fn value_of(site: &Site, key: &str) -> Option<String> {
    match site.data.read(&address(key)).await {
        Ok(view) => view.map(|view| String::from_utf8_lossy(view.record.payload.bytes()).into_owned()),
        Err(DataError::Elsewhere { .. } | DataError::Vault(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn keys_that_are_put_back_are_destroyed_again_at_the_next_start() {
    let [eu, ..] = sites();
    eu.data.write(about("s-1", "first", "canary")).await.unwrap();
    let file = eu.dir.path().join("keys/data.keys");
    let before = std::fs::read(&file).unwrap();
    eu.data.carry_out(&order(&eu, 1, "s-1", Demand::Erase)).await.unwrap();
    eu.data.close().await;
    let Site { id, data, dir } = eu;
    drop(data);
    std::fs::write(&file, before).unwrap();
    let eu = Site { id, data: open_sealed(id, dir.path(), demand_encryption, Arc::new(NoResolver)), dir };
    let id = eu.data.owner_of(&"s-1".parse().unwrap());
    let mut left = 0;
    eu.data
        .vault()
        .unwrap()
        .each_key(&mut |_, _, facts| {
            left += usize::from(facts.is_some_and(|facts| facts.owner == id));
            true
        })
        .unwrap();
    assert_eq!(left, 0, "a key of an erased person came back with its file");
}

#[tokio::test]
async fn a_hold_keeps_records_until_it_is_released() {
    let [eu, ..] = sites();
    eu.data.write(about("s-1", "first", "evidence")).await.unwrap();
    eu.data.write(about("s-2", "other", "free")).await.unwrap();
    let hold = order(&eu, 1, "s-1", Demand::Hold { name: "case-7".into() });
    assert_eq!(eu.data.carry_out(&hold).await.unwrap().records.len(), 1);
    let erase = order(&eu, 2, "s-1", Demand::Erase);
    assert!(matches!(eu.data.carry_out(&erase).await, Err(DataError::Held)));
    assert!(matches!(eu.data.write(delete("first", DataClass::Public)).await, Err(DataError::Held)));
    assert!(matches!(eu.data.write(about("s-3", "first", "over it")).await, Err(DataError::Held)));
    eu.data.write(delete("other", DataClass::Public)).await.unwrap();
    assert_eq!(value(&eu.data, "first").await.as_deref(), Some("evidence"));
    eu.data.carry_out(&order(&eu, 3, "s-1", Demand::Release { hold: hold.id })).await.unwrap();
    eu.data.carry_out(&erase).await.unwrap();
    assert_eq!(value(&eu.data, "first").await, None);
}
