use model::Country;
use model::region::{Addresses, Capacity, Coordinates, Region};

use super::*;
use model::radius::Weighed;

use crate::{HealthTracker, classes, facts, moves};

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn regions() -> Regions {
    let address: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
    let region = |name: &str, country: &str, features: &[&str]| Region {
        id: id(name),
        name: name.to_owned(),
        primary: name == "us-east",
        api: String::new(),
        storage: String::new(),
        capacity: Capacity { min_instances: 1, max_instances: 9, per_instance_rps: 100 },
        features: features.iter().map(|name| Feature::new(name).unwrap()).collect(),
        coordinates: Coordinates { latitude: 0.0, longitude: 0.0 },
        country: Country::new(country).unwrap(),
        jurisdiction: Country::new(country).unwrap(),
        addresses: Addresses {
            gateway: address,
            admin: address,
            peer: address,
            dns: address,
            public: vec![address.ip()],
        },
        data_dir: "data".into(),
        peers: BTreeSet::new(),
    };
    let all = [
        region("us-east", "US", &["websockets"]),
        region("eu-west", "IE", &["websockets"]),
        region("ap-southeast", "SG", &[]),
    ];
    let by_id = all.into_iter().map(|region| (region.id.clone(), region)).collect();
    Regions { by_id, primary: id("us-east"), operators: Vec::new() }
}

fn ranking(names: &[&str]) -> Ranking {
    Ranking { regions: names.iter().map(|name| id(name)).collect() }
}

fn germany() -> ClientClass {
    ClientClass { country: Some(Country::new("DE").unwrap()) }
}

fn plan() -> RoutingPlan {
    let by_class = BTreeMap::from([(germany(), ranking(&["eu-west", "us-east", "ap-southeast"]))]);
    RoutingPlan { default: ranking(&["us-east", "ap-southeast", "eu-west"]), by_class, dns: DnsPlan::default() }
}

fn up(down: &[&str]) -> BTreeMap<RegionId, RegionState> {
    let state = |name: &RegionId| if down.contains(&name.as_str()) { RegionState::Down } else { RegionState::Ready };
    regions().by_id.keys().map(|name| (name.clone(), state(name))).collect()
}

#[test]
fn a_region_that_is_down_is_never_chosen() {
    let none = BTreeSet::new();
    let chosen = choose(&plan(), germany(), &up(&["eu-west"]), &none, &regions(), None);
    assert_eq!(chosen, [id("us-east"), id("ap-southeast")]);
    assert!(choose(&plan(), germany(), &BTreeMap::new(), &none, &regions(), None).is_empty());
}

#[test]
fn when_every_lawful_region_is_down_nobody_else_is_chosen() {
    let lawful = BTreeSet::from([id("eu-west")]);
    assert!(choose(&plan(), germany(), &up(&["eu-west"]), &BTreeSet::new(), &regions(), Some(&lawful)).is_empty());
    let chosen = choose(&plan(), germany(), &up(&[]), &BTreeSet::new(), &regions(), Some(&lawful));
    assert_eq!(chosen, [id("eu-west")]);
}

#[test]
fn a_degraded_region_is_chosen_only_when_nobody_else_serves() {
    let none = BTreeSet::new();
    let mut states = up(&[]);
    states.insert(id("eu-west"), RegionState::Degraded);
    let chosen = choose(&plan(), germany(), &states, &none, &regions(), None);
    assert_eq!(chosen, [id("us-east"), id("ap-southeast")]);
    let lawful = BTreeSet::from([id("eu-west")]);
    assert_eq!(choose(&plan(), germany(), &states, &none, &regions(), Some(&lawful)), [id("eu-west")]);
}

#[test]
fn when_every_region_seems_down_the_nearest_is_still_tried_and_the_law_still_holds() {
    let (none, all) = (BTreeSet::new(), up(&["us-east", "eu-west", "ap-southeast"]));
    let chosen = choose(&plan(), germany(), &all, &none, &regions(), None);
    assert_eq!(chosen, [id("eu-west"), id("us-east"), id("ap-southeast")]);
    let lawful = BTreeSet::from([id("ap-southeast")]);
    assert_eq!(choose(&plan(), germany(), &all, &none, &regions(), Some(&lawful)), [id("ap-southeast")]);
    let unheard = regions().by_id.keys().map(|name| (name.clone(), RegionState::Joining)).collect();
    assert!(choose(&plan(), germany(), &unheard, &none, &regions(), None).is_empty());
}

#[test]
fn a_websocket_never_goes_to_a_region_without_them() {
    let needs = BTreeSet::from([Feature::new("websockets").unwrap()]);
    let chosen = choose(&plan(), ClientClass { country: None }, &up(&[]), &needs, &regions(), None);
    assert_eq!(chosen, [id("us-east"), id("eu-west")]);
}

#[test]
fn a_ranking_that_is_missing_empty_double_or_unknown_makes_no_table() {
    let tracker = HealthTracker::new(BTreeSet::new());
    let facts = facts(&regions(), &id("eu-west"), &tracker, &[germany()]);
    let good = ranking(&["us-east", "eu-west"]);
    for (bad, says) in [
        (vec![good.clone()], "1 rankings; 2 were asked for"),
        (vec![good.clone(), ranking(&[])], "name no region for clients in DE"),
        (vec![good.clone(), ranking(&["us-east", "us-east"])], "twice for clients in DE"),
        (vec![ranking(&["sa-east"]), good.clone()], "no such region"),
    ] {
        let refused = plan_from(&facts, Routes { rankings: bad, dns: DnsPlan::default() }).unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
    let routes = Routes { rankings: vec![good.clone(), good], dns: DnsPlan::default() };
    let plan = plan_from(&facts, routes).unwrap();
    assert!(plan.by_class.is_empty(), "a row like the default is not kept");
}

#[test]
fn policies_are_told_round_trips_both_ways_and_where_clients_are() {
    let (me, peer) = (id("eu-west"), id("us-east"));
    let mut tracker = HealthTracker::new(BTreeSet::from([peer.clone()]));
    tracker.handle_probe(&peer, Some(model::Micros(70_300)), model::Mono(0));
    let facts = facts(&regions(), &me, &tracker, &classes());
    let of = |name: &RegionId| facts.regions.iter().find(|region| region.id == *name).unwrap();
    assert_eq!(of(&me).round_trips.get(&peer), Some(&model::Micros(70_000)));
    assert_eq!(of(&peer).round_trips.get(&me), Some(&model::Micros(70_000)));
    assert_eq!(of(&me).state, RegionState::Ready);
    assert_eq!(of(&peer).state, RegionState::CatchingUp);
    assert_eq!(facts.clients.len(), 250);
    assert!(facts.clients.iter().all(|client| client.continent.is_some() && client.coordinates.is_some()));
}

#[test]
fn a_change_that_moves_half_of_the_traffic_is_not_taken_for_one_class_of_many() {
    let mut after = plan();
    after.by_class.insert(germany(), ranking(&["us-east", "eu-west", "ap-southeast"]));
    let unknown = ClientClass { country: None };
    let weights = BTreeMap::from([(germany(), 30.0), (unknown, 30.0)]);
    let seen = moves(&plan(), &after, &regions(), &up(&[]), &weights);
    assert_eq!((seen.weighed, seen.percent), (Weighed::Requests(60), 50.0));
    let [only] = seen.moves.as_slice() else { panic!("{seen:?}") };
    assert_eq!((only.from.clone(), only.to.clone()), (Some(id("eu-west")), Some(id("us-east"))));
    assert_eq!((only.classes, only.clients.as_slice()), (1, &[germany()][..]));
    // The same change when nobody was seen: one class of all that there are.
    let unseen = moves(&plan(), &after, &regions(), &up(&[]), &BTreeMap::new());
    assert_eq!(unseen.weighed, Weighed::Classes(251));
    assert!((unseen.percent - 100.0 / 251.0).abs() < 1e-9, "{unseen:?}");
}

#[test]
fn a_change_that_an_outage_hides_is_still_a_change() {
    let mut after = plan();
    after.by_class.insert(germany(), ranking(&["us-east", "eu-west", "ap-southeast"]));
    let hidden = moves(&plan(), &after, &regions(), &up(&["eu-west"]), &BTreeMap::from([(germany(), 1.0)]));
    assert_eq!(hidden.percent, 100.0);
    assert!(hidden.moves[0].once_all_serve, "{hidden:?}");
    // Behind the first region only the order differs: nobody moves.
    after.by_class.insert(germany(), ranking(&["eu-west", "ap-southeast", "us-east"]));
    let behind = moves(&plan(), &after, &regions(), &up(&[]), &BTreeMap::from([(germany(), 1.0)]));
    assert_eq!((behind.percent, behind.moves.len(), behind.reordered), (0.0, 0, 1));
    let same = moves(&plan(), &plan(), &regions(), &up(&[]), &BTreeMap::new());
    assert_eq!((same.percent, same.moves.len(), same.reordered), (0.0, 0, 0));
}
