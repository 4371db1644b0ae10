//! Records that a change of policies bars from where they are, and what must not get lost over it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data::plans::Plans;
use data::vault::KeyPlace;
use data::{DataError, DataPlane, Opening, Placed};
use model::RegionId;
use model::eviction::{Holding, HoldingQuestion, ReturnQuestion};
use model::record::{Content, DataClass};
use model::residency::ResidencyPlan;
use model::version::Dot;
use store::Store;

use crate::harness::*;
use crate::sealing::keys;

/// Three regions with keys whose plans the test changes.
struct Changing {
    sites: [Site; 3],
    plans: [Arc<ArcSwap<Plans>>; 3],
}

/// The tests' plan, by which `without` takes in no records of `class`.
fn plan(generation: u64, without: &[(&str, DataClass)]) -> Plans {
    let mut plans = plans(&[EU, US, AP]);
    let mut policies = plans.residency.region_policies().clone();
    for (id, class) in without {
        policies.get_mut(&region(id)).unwrap().accepts.remove(class);
    }
    plans.residency = ResidencyPlan::new(plans.residency.cases().clone(), policies);
    plans.generation = generation;
    demanding(&mut plans);
    plans
}

/// Everything is encrypted.
fn demanding(plans: &mut Plans) {
    crate::sealing::demand_encryption(plans);
}

impl Changing {
    fn new() -> Self {
        let plans = [(); 3].map(|()| Arc::new(ArcSwap::from_pointee(plan(1, &[]))));
        let mut at = 0;
        let sites = [EU, US, AP].map(|id| {
            let dir = tempfile::tempdir().unwrap();
            let data = open(id, dir.path(), plans[at].clone());
            at += 1;
            Site { id, data, dir }
        });
        Self { sites, plans }
    }

    /// Puts a plan in force, in all regions.
    fn follow(&self, plan: &Plans) {
        self.plans.iter().for_each(|plans| plans.store(Arc::new(plan.clone())));
    }

    fn site(&self, id: &str) -> &Site {
        self.sites.iter().find(|site| site.id == id).unwrap()
    }

    async fn settle(&self) {
        link_all(&self.sites.iter().collect::<Vec<_>>()).await;
    }

    /// What a region has of a write by what it says to another that follows the same plan as `asker`.
    async fn said(&self, asker: &str, of: &str, placed: &Placed) -> Vec<Holding> {
        let plan = self.site(asker).data.plan_stamp();
        let about = vec![(placed.address.clone(), placed.dot.clone())];
        self.site(of).data.holdings(HoldingQuestion { plan, about }).await.unwrap().holdings
    }

    /// Does for one region what a daemon does after a change, with these others reachable. Gives how many values stay.
    async fn sweep(&self, id: &str, reachable: &[&str]) -> usize {
        let here = &self.site(id).data;
        here.settle_queue().await.unwrap();
        let looked = here.look_after(None).unwrap();
        assert!(looked.next.is_none());
        let mut stays = 0;
        for placed in looked.unlawful {
            let which = (placed.address.clone(), placed.dot.clone());
            let mut said = Vec::new();
            for other in reachable.iter().filter(|other| placed.regions.contains(&region(other))) {
                let mut holdings = self.said(id, other, &placed).await;
                if holdings == [Holding::Absent] {
                    let there = &self.site(other).data;
                    let key = there.vault().map(|vault| vault.public_key());
                    let coming = here.homecoming(&region(other), key, std::slice::from_ref(&which)).unwrap();
                    there.come_home(&region(id), coming).await.unwrap();
                    holdings = self.said(id, other, &placed).await;
                }
                said.extend(holdings);
            }
            let safe = !said.is_empty() && !said.contains(&Holding::Absent);
            let evicted = match safe {
                true => here.evict_barred(here.plan_stamp(), vec![which]).await.unwrap(),
                false => 0,
            };
            stays += usize::from(evicted == 0);
        }
        for placed in looked.away {
            for other in reachable.iter().filter(|other| placed.regions.contains(&region(other))) {
                let region_key = here.vault().map(|vault| vault.public_key());
                let about = vec![(placed.address.clone(), placed.dot.clone())];
                let coming = self.site(other).data.give_back(&region(id), &ReturnQuestion { about, region_key });
                here.come_home(&region(other), coming.unwrap()).await.unwrap();
            }
        }
        here.drop_barred_keys().await.unwrap();
        stays
    }
}

fn open(id: &str, dir: &std::path::Path, plans: Arc<ArcSwap<Plans>>) -> DataPlane {
    let peers = [EU, US, AP].iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
    let mut opening = Opening::new(region(id), peers, plans, Arc::new(NoResolver), [7; 32]);
    opening.keys = Some(KeyPlace::in_files(&dir.join("keys"), wall_clock()).unwrap());
    DataPlane::start(Store::open(&dir.join("data"), wall_clock()).unwrap(), opening).unwrap()
}

fn dot(data: &DataPlane, key: &str) -> Dot {
    row(data, key).unwrap().siblings[0].version.dot.clone()
}

fn placed(data: &DataPlane, key: &str) -> Placed {
    Placed { address: address(key), dot: dot(data, key), regions: BTreeSet::new() }
}

fn is_marker(data: &DataPlane, key: &str) -> bool {
    row(data, key).is_some_and(|row| row.siblings.iter().all(|s| matches!(s.content, Content::Evicted { .. })))
}

#[tokio::test]
async fn a_value_leaves_a_region_that_may_hold_it_no_more_with_its_key_and_comes_back_when_it_may_again() {
    let world = Changing::new();
    let [eu, us, ap] = &world.sites;
    us.data.write(write("code", "canary", DataClass::Public)).await.unwrap();
    us.data.write(write("other", "stays", DataClass::Operational)).await.unwrap();
    world.settle().await;
    assert_eq!((keys(eu), keys(us), keys(ap)), (2, 2, 2));
    let before = us.data.digests().unwrap();

    world.follow(&plan(2, &[(US, DataClass::Public)]));
    assert!(matches!(us.data.read(&address("code")).await, Err(DataError::Barred(_))), "shown against the policies");
    assert_eq!(world.sweep(US, &[EU, AP]).await, 0);
    assert!(is_marker(&us.data, "code"));
    match us.data.read(&address("code")).await {
        Err(DataError::Elsewhere { regions, .. }) => assert_eq!(regions, [region(AP), region(EU)].into()),
        other => panic!("not said to live elsewhere: {other:?}"),
    }
    assert_eq!((keys(eu), keys(us), keys(ap)), (2, 1, 2), "the key of what left is still there");
    for site in [eu, ap] {
        assert_eq!(value(&site.data, "code").await.as_deref(), Some("canary"), "{}", site.id);
        assert_eq!(world.sweep(site.id, &[EU, US, AP]).await, 0);
    }
    assert_eq!(value(&us.data, "other").await.as_deref(), Some("stays"));
    world.settle().await;
    // What both may hold is equal; what only the others may is not compared with us-east.
    let (here, there) = (us.data.digests().unwrap(), eu.data.digests().unwrap());
    let both: Vec<_> = there.values().filter(|scope| scope.regions.contains(&region(US))).collect();
    assert_eq!(here.values().collect::<Vec<_>>(), both);
    assert_eq!(there, ap.data.digests().unwrap());
    assert!(is_marker(&us.data, "code"), "a link brought it back");

    world.follow(&plan(3, &[]));
    assert_eq!(world.sweep(US, &[EU, AP]).await, 0);
    assert_eq!(value(&us.data, "code").await.as_deref(), Some("canary"));
    assert_eq!(keys(us), 2);
    assert_eq!(us.data.digests().unwrap(), before);
    // It is a record like any other again.
    us.data.write(write("code", "newer", DataClass::Public)).await.unwrap();
    world.settle().await;
    for site in &world.sites {
        assert_eq!(value(&site.data, "code").await.as_deref(), Some("newer"), "{}", site.id);
    }
}

#[tokio::test]
async fn the_key_of_a_lost_value_that_may_stay_is_not_dropped_with_another_value_of_the_person() {
    let world = Changing::new();
    let [eu, us, _] = &world.sites;
    let about = |key: &str, value: &str, class| {
        let write = write(key, value, class);
        let labels = data::LabelClaims { subject: Some("s-1".parse().unwrap()), ..write.labels };
        data::Write { labels, ..write }
    };
    // What loses and what has to leave have one key, which `eu-west` made; what wins has another.
    eu.data.write(about("settings", "lost", DataClass::Operational)).await.unwrap();
    us.data.write(about("settings", "won", DataClass::Operational)).await.unwrap();
    eu.data.write(about("code", "leaves", DataClass::Public)).await.unwrap();
    world.settle().await;
    let lost = || {
        let shown = us.data.losses(Some(&address("settings")), None, 10, true).unwrap().losses;
        shown.into_iter().map(|shown| shown.value.map(|record| record.payload.bytes().to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(lost(), [Ok(b"lost".to_vec())]);

    world.follow(&plan(2, &[(US, DataClass::Public)]));
    assert_eq!(world.sweep(US, &[EU, AP]).await, 0);
    assert!(is_marker(&us.data, "code"));
    assert_eq!(lost(), [Ok(b"lost".to_vec())], "a lost value that may stay does not open any more");
    // Once that may not stay either, nothing needs the key.
    world.follow(&plan(3, &[(US, DataClass::Public), (US, DataClass::Operational)]));
    assert_eq!(world.sweep(US, &[EU, AP]).await, 0);
    assert_eq!(keys(us), 0, "a key of what left is still there");
}

#[tokio::test]
async fn nothing_leaves_before_a_region_that_may_hold_it_has_said_by_the_same_plan_that_it_does() {
    let world = Changing::new();
    let [eu, us, ap] = &world.sites;
    us.data.write(write("k", "canary", DataClass::Public)).await.unwrap();
    let plan = plan(2, &[(US, DataClass::Public), (AP, DataClass::Public)]);
    world.plans[1].store(Arc::new(plan.clone()));
    let written = placed(&us.data, "k");
    // The others follow the plan of before, and have it not either.
    assert_eq!(world.said(US, EU, &written).await, []);
    assert_eq!(world.sweep(US, &[EU, AP]).await, 1, "it left though nobody vouched for it");

    world.follow(&plan);
    assert_eq!(world.said(US, EU, &written).await, [Holding::Absent]);
    assert_eq!(world.sweep(US, &[]).await, 1, "it left while nobody could be asked");
    assert!(rows_contain(&us.data, "k"));
    // Then it is brought home first, though no log has carried it.
    assert_eq!(world.sweep(US, &[EU]).await, 0);
    assert!(is_marker(&us.data, "k") && row(&ap.data, "k").is_none());
    assert_eq!(value(&eu.data, "k").await.as_deref(), Some("canary"));
    world.settle().await;
    assert_eq!(value(&eu.data, "k").await.as_deref(), Some("canary"));
    assert!(row(&ap.data, "k").is_none(), "a region learned the name of a key that it may not hold");
}

#[tokio::test]
async fn two_regions_that_the_same_change_turns_against_each_other_do_not_both_let_go() {
    let world = Changing::new();
    let [eu, us, _] = &world.sites;
    us.data.write(write("k", "canary", DataClass::Public)).await.unwrap();
    world.settle().await;
    let there = placed(&us.data, "k");
    let (one, other) = (
        plan(2, &[(US, DataClass::Public), (AP, DataClass::Public)]),
        plan(3, &[(EU, DataClass::Public), (AP, DataClass::Public)]),
    );
    world.follow(&one);
    let by = us.data.plan_stamp();
    assert_eq!(world.said(US, EU, &there).await, [Holding::Here]);
    // Before us-east acts on that, eu-west is to let go of it by the next plan, and asks.
    world.plans[0].store(Arc::new(other.clone()));
    assert_eq!(world.said(EU, US, &there).await, [], "us-east does not follow that plan yet");
    world.plans[1].store(Arc::new(other));
    assert_eq!(world.said(EU, US, &there).await, [Holding::Here]);
    assert_eq!(us.data.evict_barred(by, vec![(there.address.clone(), there.dot.clone())]).await.unwrap(), 0);
    assert_eq!(world.sweep(EU, &[US]).await, 0);
    assert_eq!(value(&us.data, "k").await.as_deref(), Some("canary"));
    assert!(is_marker(&eu.data, "k"));
}

#[tokio::test]
async fn what_was_under_way_when_policies_became_stricter_is_kept_out_comes_home_and_is_not_lost_later() {
    let world = Changing::new();
    let [eu, us, ap] = &world.sites;
    for number in 0..3 {
        us.data.write(write(&format!("k{number}"), "canary", DataClass::Public)).await.unwrap();
    }
    carry(us, eu).await;
    let batch = us.data.outgoing(&region(AP), &ap.data.vector(), 100_000).unwrap();
    give_keys(&us.data, (&ap.data, AP), &batch);
    // us-east and ap-southeast may hold it no more; the batch was sent before.
    let strict = plan(2, &[(US, DataClass::Public), (AP, DataClass::Public)]);
    world.plans[0].store(Arc::new(strict.clone()));
    world.plans[1].store(Arc::new(strict.clone()));
    world.plans[2].store(Arc::new(strict.clone()));
    ap.data.receive(&region(US), batch).await.unwrap();
    assert!((0..3).all(|number| row(&ap.data, &format!("k{number}")).is_none()));
    // A sender that knows sends no value at all, also to one that does not know.
    let sent = eu.data.outgoing(&region(AP), &Default::default(), 100_000).unwrap();
    let values = sent.iter().any(|shipment| match shipment {
        model::record::Shipment::Entry(entry) => entry.sibling.content.record().is_some(),
        _ => false,
    });
    assert!(!values, "{sent:?}");
    assert_eq!(world.sweep(US, &[EU]).await, 0);
    world.settle().await;

    // Allowed again: ap-southeast refused it durably, and us-east has a marker.
    world.follow(&plan(3, &[]));
    assert_eq!(world.sweep(US, &[EU, AP]).await, 0);
    for offered in eu.data.look_after(None).unwrap().lawful {
        if world.said(EU, AP, &offered).await == [Holding::Absent] {
            let key = ap.data.vault().map(|vault| vault.public_key());
            let coming = eu.data.homecoming(&region(AP), key, &[(offered.address, offered.dot)]).unwrap();
            assert_eq!(ap.data.come_home(&region(EU), coming).await.unwrap(), 1);
        }
    }
    world.settle().await;
    for site in &world.sites {
        for number in 0..3 {
            assert_eq!(value(&site.data, &format!("k{number}")).await.as_deref(), Some("canary"), "{}", site.id);
        }
        assert_eq!(site.data.digests().unwrap(), eu.data.digests().unwrap(), "{}", site.id);
    }
}

#[tokio::test]
async fn a_write_let_in_by_an_old_plan_is_decided_on_by_the_one_in_force_when_it_is_stored() {
    let world = Changing::new();
    let us = &world.site(US).data;
    // Many writes race the change; each is either refused or found by the look that follows the change.
    let writes = (0..200).map(|number| {
        let (us, number) = (us.clone(), number);
        tokio::spawn(async move { us.write(write(&format!("k{number}"), "x", DataClass::Public)).await.is_ok() })
    });
    let writes: Vec<_> = writes.collect();
    world.follow(&plan(2, &[(US, DataClass::Public)]));
    us.settle_queue().await.unwrap();
    let seen = us.look_after(None).unwrap().unlawful.len();
    let mut stored = 0;
    for write in writes {
        stored += usize::from(write.await.unwrap());
    }
    assert_eq!(us.look_after(None).unwrap().unlawful.len(), stored);
    assert_eq!(seen, stored, "something was stored by the old plan after the look");
}

#[tokio::test]
async fn a_dry_run_counts_what_would_have_to_leave_and_what_has_no_place() {
    let world = Changing::new();
    let us = &world.site(US).data;
    for number in 0..7 {
        us.write(write(&format!("k{number}"), "x", DataClass::Public)).await.unwrap();
    }
    us.write(write("o", "x", DataClass::Operational)).await.unwrap();
    let strict = plan(2, &[(US, DataClass::Public)]);
    let impact = us.impact(&strict.residency, model::Millis(60_000)).unwrap();
    assert_eq!((impact.looked_at, impact.complete, impact.records(), impact.groups.len()), (8, true, 7, 1));
    let group = &impact.groups[0];
    let lawful: BTreeSet<RegionId> = [region(AP), region(EU)].into();
    assert_eq!((group.records, group.some.len(), &group.lawful), (7, 5, &lawful));
    assert_eq!(group.rule, "region-does-not-accept-class");
    assert!(!format!("{impact:?}").contains("k1"), "a key is shown: {impact:?}");
    let nowhere = plan(2, &[(US, DataClass::Public), (EU, DataClass::Public), (AP, DataClass::Public)]);
    assert!(us.impact(&nowhere.residency, model::Millis(60_000)).unwrap().groups[0].lawful.is_empty());
    assert_eq!(us.impact(&plan(2, &[]).residency, model::Millis(60_000)).unwrap().records(), 0);
    world.follow(&nowhere);
    assert_eq!(world.sweep(US, &[EU, AP]).await, 7, "what no region may hold was destroyed");
    assert!(matches!(us.read(&address("k1")).await, Err(DataError::Barred(_))));
}
