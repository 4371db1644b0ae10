//! What loses against a concurrent write is in the conflict log of every region that has seen both.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use data::plans::Plans;
use data::{DataError, DataPlane, LabelClaims, Resolver, ShownLoss, Write};
use model::conflict::{Loss, LossCause};
use model::petition::{Demand, Order};
use model::question::Resolution;
use model::record::{Address, DataClass, Sibling};
use model::replication::ConflictResolution;
use model::sealing::OrderId;
use model::{Country, RegionId, UnixMillis};
use store::{Commit, LossChange, Store, loss_key};

use crate::harness::*;
use crate::sealing::demand_encryption;

fn losses(data: &DataPlane, key: &str) -> Vec<ShownLoss> {
    data.losses(Some(&address(key)), None, 100, true).unwrap().losses
}

fn values(data: &DataPlane, key: &str) -> Vec<String> {
    let text = |shown: &ShownLoss| match &shown.value {
        Ok(record) => String::from_utf8_lossy(record.payload.bytes()).into_owned(),
        Err(reason) => format!("({reason})"),
    };
    losses(data, key).iter().map(text).collect()
}

/// What all regions have to say alike.
fn common(data: &DataPlane, key: &str) -> Vec<(String, String, String, LossCause, u64, [u8; 32])> {
    let of = |Loss { lost, to, by, cause, bytes, digest, .. }: Loss| {
        (lost.version.dot.to_string(), to.dot.to_string(), by, cause, bytes, digest)
    };
    let mut all: Vec<_> = losses(data, key).into_iter().map(|shown| of(shown.loss)).collect();
    all.sort_by(|left, right| left.0.cmp(&right.0));
    all
}

/// Three regions, each as `change` has its plans, whose resolver decides `resolution`.
fn three(change: fn(&mut Plans), resolution: Option<Resolution>) -> [Site; 3] {
    [EU, US, AP].map(|id| {
        let dir = tempfile::tempdir().unwrap();
        Site { id, data: open_sealed(id, dir.path(), change, Arc::new(Decides(resolution.clone()))), dir }
    })
}

struct Decides(Option<Resolution>);

impl Resolver for Decides {
    fn resolve(
        &self,
        _: &str,
        _: &Address,
        _: &[Sibling],
    ) -> Pin<Box<dyn Future<Output = Option<Resolution>> + Send + 'static>> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

fn resolved_by(plans: &mut Plans, how: ConflictResolution) {
    plans.replication.default.conflict_resolution = how;
}

#[tokio::test]
async fn regions_that_wrote_at_once_have_the_same_entries_about_what_lost() {
    let sites = three(|_| {}, None);
    let [eu, us, ap] = &sites;
    for (site, value) in [(eu, "first"), (us, "second"), (ap, "third")] {
        site.data.write(write("k", value, DataClass::Public)).await.unwrap();
    }
    link_all(&[eu, us, ap]).await;
    let shown = value(&eu.data, "k").await.unwrap();
    for site in &sites {
        let entries = common(&site.data, "k");
        assert_eq!(entries, common(&eu.data, "k"), "{}", site.id);
        assert_eq!(entries.len(), 2, "{}", site.id);
        assert!(entries.iter().all(|entry| (entry.2.as_str(), entry.3) == ("last-write-wins", LossCause::Strategy)));
        let mut lost: Vec<String> = values(&site.data, "k");
        assert!(!lost.contains(&shown));
        lost.push(shown.clone());
        assert_eq!(lost.into_iter().collect::<BTreeSet<_>>(), ["first", "second", "third"].map(str::to_owned).into());
    }
    // They stay when a later write has replaced all of them, and a delete may lose as well.
    us.data.write(write("k", "later", DataClass::Public)).await.unwrap();
    link_all(&[eu, us, ap]).await;
    assert_eq!(common(&ap.data, "k").len(), 2);
    eu.data.write(delete("k", DataClass::Public)).await.unwrap();
    us.data.write(write("k", "after", DataClass::Public)).await.unwrap();
    link_all(&[eu, us, ap]).await;
    assert_eq!(common(&ap.data, "k").len(), 3);
    assert_eq!(common(&ap.data, "k"), common(&eu.data, "k"));
    // Nothing of it in a region that starts again is other than before.
    let before = common(&us.data, "k");
    let [_, us, _] = sites;
    assert_eq!(common(&us.reopened().await.data, "k"), before);
}

#[tokio::test]
async fn siblings_that_a_later_write_settles_are_in_the_log_and_can_be_read_before() {
    let sites = three(|plans| resolved_by(plans, ConflictResolution::KeepSiblings), None);
    let [eu, us, ap] = &sites;
    eu.data.write(write("k", "one", DataClass::Public)).await.unwrap();
    us.data.write(write("k", "two", DataClass::Public)).await.unwrap();
    link_all(&[eu, us, ap]).await;
    assert_eq!(common(&ap.data, "k"), [], "nothing is lost while all are shown");
    let all = ap.data.siblings(&address("k"), None).await.unwrap().unwrap();
    let of = |record: &Option<model::record::Record>| record.as_ref().unwrap().payload.bytes().clone();
    assert_eq!(all.here.iter().map(|(_, record)| of(record)).collect::<Vec<_>>(), ["one", "two"]);
    let settle = Write { context: Some(all.context), ..write("k", "both", DataClass::Public) };
    ap.data.write(settle).await.unwrap();
    link_all(&[eu, us, ap]).await;
    for site in &sites {
        assert_eq!(value(&site.data, "k").await.as_deref(), Some("both"));
        assert_eq!(site.data.siblings(&address("k"), None).await.unwrap().unwrap().here.len(), 1);
        let entries = common(&site.data, "k");
        assert_eq!(entries.len(), 2, "{}", site.id);
        assert!(entries.iter().all(|entry| entry.3 == LossCause::Settled));
        assert_eq!(entries, common(&ap.data, "k"));
    }
}

#[tokio::test]
async fn what_a_resolver_decides_is_in_the_log() {
    for (resolution, cause, lost) in [
        (Some(Resolution::Winner(0)), LossCause::Resolver, vec!["two"]),
        (Some(Resolution::Merged(b"both".to_vec())), LossCause::Merged, vec!["one", "two"]),
        (Some(Resolution::Keep), LossCause::Resolver, vec![]),
        (None, LossCause::Pending, vec!["one"]),
    ] {
        let sites = three(|plans| resolved_by(plans, ConflictResolution::Custom("mine".into())), resolution.clone());
        let [eu, us, ap] = &sites;
        eu.data.write(write("k", "one", DataClass::Public)).await.unwrap();
        us.data.write(write("k", "two", DataClass::Public)).await.unwrap();
        link_all(&[eu, us, ap]).await;
        let resolving = tokio::spawn({
            let data = ap.data.clone();
            async move { data.keep_resolving().await }
        });
        let found = loop {
            let found = losses(&ap.data, "k");
            if found.iter().all(|shown| shown.loss.cause == cause) && found.len() == lost.len() {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert!(found.iter().all(|shown| shown.loss.by == "mine"), "{resolution:?}");
        assert_eq!(
            values(&ap.data, "k").into_iter().collect::<BTreeSet<_>>(),
            lost.iter().map(|s| (*s).to_owned()).collect()
        );
        resolving.abort();
    }
}

/// A write that all regions may hold, about a person.
fn about(subject: &str, key: &str, value: &str) -> Write {
    let write = write(key, value, DataClass::Public);
    let labels = LabelClaims { subject: Some(subject.parse().unwrap()), ..write.labels };
    Write { labels, ..write }
}

#[tokio::test]
async fn a_lost_value_stays_encrypted_is_handed_out_with_its_person_and_goes_with_an_erasure() {
    let sites = three(demand_encryption, None);
    let [eu, us, ap] = &sites;
    for person in ["s-1", "s-2"] {
        eu.data.write(about(person, person, "canary-one")).await.unwrap();
        us.data.write(about(person, person, "canary-two")).await.unwrap();
    }
    link_all(&[eu, us, ap]).await;
    for site in &sites {
        assert_eq!(values(&site.data, "s-1"), ["canary-one"], "{}", site.id);
        let mut found = false;
        site.data
            .evidence(true, &mut |part| {
                if let data::EvidencePart::Loss(key, entry) = part {
                    found = true;
                    let has = |needle: &str| entry.windows(needle.len()).any(|window| window == needle.as_bytes());
                    assert!(key.starts_with(b"enotes\0s-") && !has("canary"), "a lost value lies in plain text");
                }
                true
            })
            .unwrap();
        assert!(found);
    }
    let held = ap.data.held_about(&"s-1".parse().unwrap()).await.unwrap();
    assert_eq!((held.records.len(), held.lost.len(), held.closed.len()), (2, 1, 0));

    let owner = eu.data.owner_of(&"s-1".parse().unwrap());
    let order =
        Order { id: OrderId([3; 16]), owner, demand: Demand::Erase, by: RegionId::new(EU).unwrap(), at: UnixMillis(9) };
    for site in &sites {
        site.data.carry_out(&order).await.unwrap();
    }
    link_all(&[eu, us, ap]).await;
    for site in &sites {
        assert_eq!(losses(&site.data, "s-1"), [], "an erased person is in the log of {}", site.id);
        assert_eq!(values(&site.data, "s-2"), ["canary-one"], "{}", site.id);
        assert!(site.data.held_about(&"s-1".parse().unwrap()).await.unwrap().lost.is_empty());
    }
}

#[tokio::test]
async fn where_a_record_has_left_its_lost_values_go_too_and_a_region_outside_gets_none() {
    let sites = three(|_| {}, None);
    let [eu, us, ap] = &sites;
    eu.data.write(write("k", "public-one", DataClass::Public)).await.unwrap();
    us.data.write(write("k", "public-two", DataClass::Public)).await.unwrap();
    link_all(&[eu, us, ap]).await;
    assert_eq!(values(&us.data, "k").len(), 1);
    // It becomes somebody's, in `eu-west` alone.
    let german = LabelClaims {
        classes: Some(BTreeSet::from([DataClass::Personal])),
        jurisdictions: Some(BTreeSet::from([Country::new("DE").unwrap()])),
        ..LabelClaims::default()
    };
    let moved = |value: &str| Write { labels: german.clone(), ..write("k", value, DataClass::Personal) };
    eu.data.write(moved("personal")).await.unwrap();
    link_all(&[eu, us, ap]).await;
    for site in [us, ap] {
        let entries = losses(&site.data, "k");
        assert_eq!(entries.len(), 1, "what was lost is known");
        assert!(!entries[0].loss.kept && entries[0].value.is_err(), "{}", site.id);
    }
    // A conflict between personal values is none of the others' business.
    let all = eu.data.siblings(&address("k"), None).await.unwrap().unwrap();
    let stale = Write { context: Some(model::version::CausalContext::new()), ..moved("beside") };
    eu.data.write(stale).await.unwrap();
    link_all(&[eu, us, ap]).await;
    assert_eq!(all.here.len(), 1);
    assert!(values(&eu.data, "k").contains(&"personal".to_owned()));
    for site in [us, ap] {
        assert!(values(&site.data, "k").iter().all(|value| value.starts_with('(')), "{}", site.id);
    }
}

#[tokio::test]
async fn a_damaged_entry_is_passed_over_and_counted_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data"), UnixMillis(5_000)).unwrap();
    let garbage = LossChange { key: loss_key(&address("k"), "eu-west.0.1.1"), envelope: Some(b"\x0c\x01no".to_vec()) };
    store.commit(Commit { losses: vec![garbage], ..Commit::default() }).unwrap();
    drop(store);
    let data = open_sealed(EU, dir.path(), |_| {}, Arc::new(NoResolver));
    data.write(write("k", "one", DataClass::Public)).await.unwrap();
    let beside = Write { context: Some(model::version::CausalContext::new()), ..write("k", "two", DataClass::Public) };
    data.write(beside).await.unwrap();
    let shown = data.losses(Some(&address("k")), None, 10, true).unwrap();
    assert_eq!((shown.losses.len(), shown.damaged), (1, 1));
    assert_eq!(data.losses(None, None, 10, false).unwrap().damaged, 1);
    data.tend().await.unwrap();
    // An erasure takes what cannot be read along: whom it is about cannot be told.
    let owner = data.owner_of(&"s-1".parse().unwrap());
    let order =
        Order { id: OrderId([3; 16]), owner, demand: Demand::Erase, by: RegionId::new(EU).unwrap(), at: UnixMillis(9) };
    data.carry_out(&order).await.unwrap();
    let shown = data.losses(None, None, 10, true).unwrap();
    assert_eq!((shown.losses.len(), shown.damaged), (1, 0));
}

#[tokio::test]
async fn a_client_that_never_says_what_it_has_seen_cannot_pile_up_siblings_without_end() {
    let [eu, ..] = three(|plans| resolved_by(plans, ConflictResolution::KeepSiblings), None);
    let beside = || Write { context: Some(model::version::CausalContext::new()), ..write("k", "x", DataClass::Public) };
    let mut made = 0;
    let refused = loop {
        match eu.data.write(beside()).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1000, "siblings without end");
    };
    let DataError::TooManySiblings { most } = refused else { panic!("{refused}") };
    assert_eq!(eu.data.siblings(&address("k"), None).await.unwrap().unwrap().here.len(), most);
    // What replaces them is taken.
    eu.data.write(write("k", "settled", DataClass::Public)).await.unwrap();
    assert_eq!(eu.data.siblings(&address("k"), None).await.unwrap().unwrap().here.len(), 1);
}
