//! A second evaluation of the plan, as simple as can be and sharing no code
//! with the first: it reads the source table by itself, ranks, masks, and
//! compares addresses, order, time and scope for thousands of clients.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use model::routing::{AnswerShape, NameShapes, RegionState, RoutingPlan};
use model::{Country, RegionId};

use super::tests::{COUNTRIES, ask, class, plan, ranking, regions, states};
use super::*;

/// A seeded sequence (Steele and others, SplitMix64, OOPSLA 2014).
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// A plan with six rankings and names that differ in count and time, one of them by country.
fn varied() -> RoutingPlan {
    let mut plan = plan();
    let orders = [
        ["us-east", "eu-west", "ap-southeast"],
        ["us-east", "ap-southeast", "eu-west"],
        ["eu-west", "us-east", "ap-southeast"],
        ["eu-west", "ap-southeast", "us-east"],
        ["ap-southeast", "us-east", "eu-west"],
        ["ap-southeast", "eu-west", "us-east"],
    ];
    plan.by_class =
        crate::countries().enumerate().map(|(at, code)| (class(code.as_str()), ranking(&orders[at % 6]))).collect();
    let counts = [1, 2, 3];
    for ((name, shapes), count) in plan.dns.shapes.iter_mut().zip(counts) {
        let shape = |more: u16| AnswerShape { count: count + more, ttl_min: 20, ttl_max: 100 + u32::from(count) };
        let by_class = match name.as_str() {
            "api.repomind.io" => crate::countries().step_by(5).map(|code| (class(code.as_str()), shape(1))).collect(),
            _ => BTreeMap::new(),
        };
        *shapes = NameShapes { default: shape(0), by_class };
    }
    plan
}

fn country(address: Ipv4Addr) -> Option<Country> {
    COUNTRIES.country(address.into())
}

/// What must be answered: addresses in order and seconds.
fn expected(
    plan: &RoutingPlan,
    name: &str,
    from: Option<Country>,
    states: &BTreeMap<RegionId, RegionState>,
) -> (Vec<IpAddr>, u32) {
    let class = model::routing::ClientClass { country: from };
    let order = plan.by_class.get(&class).unwrap_or(&plan.default).regions.clone();
    let shapes = &plan.dns.shapes[name];
    let shape = shapes.by_class.get(&class).unwrap_or(&shapes.default);
    let well = |id: &RegionId| matches!(states[id], RegionState::Ready | RegionState::Suspect);
    let first = |ids: Vec<RegionId>| ids.into_iter().take(shape.count.into()).collect::<Vec<_>>();
    let wanted = first(order.clone());
    let mut given = first(order.iter().filter(|id| well(id)).cloned().collect());
    if given.is_empty() {
        given = wanted.clone();
    }
    let calm = wanted.iter().chain(&given).all(|id| states[id] == RegionState::Ready);
    let regions = regions();
    let addresses = given.iter().map(|id| regions.by_id[id].addresses.public[0]).collect();
    (addresses, if calm { shape.ttl_max } else { shape.ttl_min })
}

/// Addresses, seconds and scope as they stand in the packet, read by hand.
fn read(packet: &[u8]) -> (Vec<IpAddr>, Vec<u32>, u8) {
    let mut at = 12;
    while packet[at] != 0 {
        at += usize::from(packet[at]) + 1;
    }
    at += 5;
    let (mut addresses, mut times) = (Vec::new(), Vec::new());
    for _ in 0..u16::from_be_bytes([packet[6], packet[7]]) {
        assert_eq!(&packet[at..at + 6], [0xC0, 12, 0, 1, 0, 1]);
        times.push(u32::from_be_bytes(packet[at + 6..at + 10].try_into().unwrap()));
        let bytes: [u8; 4] = packet[at + 12..at + 16].try_into().unwrap();
        addresses.push(IpAddr::from(bytes));
        at += 16;
    }
    // The OPT record: eleven bytes, then the only option, whose scope is its eighth byte.
    assert_eq!(&packet[at + 11..at + 13], [0, 8]);
    (addresses, times, packet[at + 18])
}

#[test]
fn two_thousand_subnets_are_answered_as_a_naive_evaluation_would() {
    let plan = varied();
    let names = ["repomind.io", "api.repomind.io", "www.repomind.io"];
    let mut sequence = Sequence(20_260_101);
    let (mut answers, mut scopes) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for round in 0..8_u64 {
        let state = |bits: u64| match bits % 4 {
            0 => RegionState::Down,
            1 => RegionState::Suspect,
            _ => RegionState::Ready,
        };
        let health: Vec<_> = ["us-east", "eu-west", "ap-southeast"].map(|id| (id, state(sequence.next() >> 40))).into();
        let states = if round == 0 { states(&[]) } else { states(&health) };
        let table = Table::new(&plan, 3, &regions(), &states);
        for _ in 0..250 {
            let subnet = Ipv4Addr::from_bits((sequence.next() as u32) & 0xFFFF_FF00);
            let name = names[(sequence.next() % 3) as usize];
            let (outcome, packet) = ask(name, 1).subnet(&subnet.to_string(), 24).of(&table).unwrap();
            assert_eq!(outcome.rcode, Rcode::NoError);
            let (addresses, times, scope) = read(&packet);
            let (wanted, seconds) = expected(&plan, name, country(subnet), &states);
            assert_eq!(addresses, wanted, "{subnet} {name}");
            assert!(times.iter().all(|time| *time == seconds), "{subnet} {name}: {times:?}");
            // Whoever shares the scope shares the answer.
            let size = 1_u64 << (32 - u32::from(scope));
            let first = u64::from(subnet.to_bits()) & !(size - 1);
            for _ in 0..4 {
                let other = Ipv4Addr::from_bits((first + sequence.next() % size) as u32);
                assert_eq!(country(other), country(subnet), "{other} is within {subnet}/{scope}");
            }
            answers.insert((name, addresses));
            scopes.insert(scope);
        }
    }
    assert!(answers.len() > 15 && scopes.len() > 8, "the clients tried are all alike: {} {scopes:?}", answers.len());
}
