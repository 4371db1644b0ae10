//! A second evaluation of the plan, as simple as can be and sharing no code
//! with the first: it reads the source table by itself, ranks, masks, and
//! compares addresses, order, time and scope for thousands of clients.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use model::routing::{AnswerShape, NameShapes, RegionState, RoutingPlan, Share};
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
        let shape = |more: u16| AnswerShape::new(count + more, 20, 100 + u32::from(count));
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
fn sixty_thousand_subnets_are_answered_as_a_naive_evaluation_would() {
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
        for _ in 0..7500 {
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

#[test]
fn a_shared_name_is_never_answered_otherwise_than_the_gateway_serves_it() {
    let mut plan = plan();
    let share = |region: &str, weight| Share { region: super::tests::id(region), weight };
    let shapes = plan.dns.shapes.get_mut("api.repomind.io").unwrap();
    shapes.default.shares = vec![share("us-east", 70), share("ap-southeast", 30), share("eu-west", 0)];
    let well = states(&[]);
    let table = Table::new(&plan, 3, &regions(), &well);
    let ap_down = states(&[("ap-southeast", RegionState::Down)]);
    let without = Table::new(&plan, 3, &regions(), &ap_down);
    let mut sequence = Sequence(7);
    let (mut counts, nets) = (BTreeMap::<IpAddr, u32>::new(), 20_000);
    for _ in 0..nets {
        let subnet = Ipv4Addr::from_bits((sequence.next() as u32) & 0xFFFF_FF00);
        let asked = |table: &Table, source| {
            let (_, packet) = ask("api.repomind.io", 1).subnet(&subnet.to_string(), source).of(table).unwrap();
            read(&packet)
        };
        let (addresses, times, scope) = asked(&table, 24);
        let prefix = COUNTRIES.matched(subnet.into()).prefix;
        assert_eq!(scope, prefix.max(24), "{subnet}: another network may have another share");
        assert_eq!(times, [60, 60]);
        let class = model::routing::ClientClass { country: country(subnet) };
        let client: IpAddr = Ipv4Addr::from_bits(subnet.to_bits() | 77).into();
        let served = |states: &BTreeMap<RegionId, RegionState>| {
            let mut order = crate::choose(&plan, class, states, &[].into(), &regions(), None);
            crate::lean(&plan, (class, client), "API.repomind.io:443", states, &mut order);
            regions().by_id[&order[0]].addresses.public[0]
        };
        assert_eq!(addresses[0], served(&well), "{subnet}");
        *counts.entry(addresses[0]).or_default() += 1;
        // The loss of a region that shares moves its clients alone, and no answer is kept for long meanwhile.
        let (others, times, _) = asked(&without, 24);
        assert_eq!(others[0], served(&ap_down), "{subnet}");
        let lost: IpAddr = "192.0.2.3".parse().unwrap();
        assert!(addresses[0] == lost || others[0] == addresses[0], "{subnet} was moved by the loss of another region");
        assert!(others[0] != lost && times.iter().all(|time| *time == 30), "{subnet}: {others:?} {times:?}");
    }
    let of = |address: &str| {
        f64::from(counts.get(&address.parse::<IpAddr>().unwrap()).copied().unwrap_or(0)) / f64::from(nets)
    };
    let [us, ap, eu] = ["192.0.2.1", "192.0.2.3", "192.0.2.2"].map(of);
    assert!((us - 0.7).abs() < 0.01 && (ap - 0.3).abs() < 0.01 && eu == 0.0, "{us} {ap} {eu}");
    let down = states(&[("ap-southeast", RegionState::Down), ("us-east", RegionState::Down)]);
    let table = Table::new(&plan, 3, &regions(), &down);
    let (_, packet) = ask("api.repomind.io", 1).subnet("198.51.100.0", 24).of(&table).unwrap();
    assert_eq!(read(&packet).0, ["192.0.2.2".parse::<IpAddr>().unwrap()], "the others of the ranking stand in");
}
