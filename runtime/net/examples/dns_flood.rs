//! How many DNS queries one core answers: `dns_flood [QUERIES]`.
//!
//! Starts a server with a hundred names on one thread, on a loopback address of
//! its own, and asks it a bounded number of questions with client subnets from
//! all over the address space, a window of them at a time. Prints answers a
//! second, the processor time of the server's thread for each, most of which is
//! the kernel's, and how long a new table takes when health changes. Nothing but this machine is asked; run it with `--release`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use data::plans::Plans;
use model::names::DnsName;
use model::region::{Addresses, Capacity, Coordinates, Region, Regions};
use model::routing::{
    AnswerShape, ClientClass, DnsPlan, NameServer, NameShapes, Ranking, RegionState, RoutingPlan, SoaTimes, Zone,
};
use model::{Country, RegionId};
use net::{DnsAnswers, DnsConfig};
use routing::CountryTable;
use routing::dns::CookieKey;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// Queries that are asked unless the command line says otherwise, and at most.
const QUERIES: usize = 1_000_000;
const MOST_QUERIES: usize = 100_000_000;
/// Different queries.
const DISTINCT: usize = 60_000;
/// Queries under way at once.
const WINDOW: usize = 64;
/// A window that is not answered so long has lost a packet.
const LOST: Duration = Duration::from_millis(200);
const NAMES: usize = 100;
const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-southeast"];

fn main() {
    let asked = std::env::args().nth(1).map_or(QUERIES, |text| text.parse().expect("a number of queries"));
    let asked = asked.min(MOST_QUERIES);
    let stop = CancellationToken::new();
    let (started, address) = std::sync::mpsc::channel();
    let server = std::thread::spawn({
        let stop = stop.clone();
        move || serve(&started, stop)
    });
    let address = address.recv().expect("the server binds a loopback address");
    let begun = Instant::now();
    let (answered, lost) = flood(address, asked);
    let elapsed = begun.elapsed();
    stop.cancel();
    let busy = server.join().expect("the server ends");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / answered.max(1) as f64;
    println!(
        "{answered} answers, {lost} lost, {:.0} a second; server thread {:.2} µs each",
        answered as f64 / elapsed.as_secs_f64(),
        each(busy)
    );
}

/// Serves until told to stop; gives the processor time that this thread took for it.
fn serve(started: &std::sync::mpsc::Sender<SocketAddr>, stop: CancellationToken) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let answers = Arc::new(DnsAnswers::new(Arc::new(regions())));
        answers.plans_changed(Arc::new(plans()));
        let begun = Instant::now();
        answers.states_changed(Arc::new(REGIONS.into_iter().map(|name| (id(name), RegionState::Ready)).collect()));
        println!("a table of {NAMES} names for {} countries in {:?}", routing::countries().count(), begun.elapsed());
        let sockets = net::bind_dns(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a loopback address");
        let cookies = CookieKey::derived_from(&[0; 32]);
        let config = DnsConfig::new(id("us-east"), cookies, Arc::new(ArcSwap::from_pointee(CountryTable::bundled())));
        started.send(sockets.address().expect("an address")).expect("someone waits for it");
        let before = processor_time();
        net::serve_dns(sockets, answers, config, stop).await;
        processor_time() - before
    })
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Asks, a window at a time; gives answers and losses.
fn flood(address: SocketAddr, asked: usize) -> (usize, usize) {
    assert!(address.ip().is_loopback(), "only this machine is ever flooded");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(address).expect("a loopback address");
    socket.set_read_timeout(Some(LOST)).expect("a time limit");
    let queries: Vec<Vec<u8>> = (0..DISTINCT as u32).map(query).collect();
    let (mut sent, mut answered, mut lost) = (0, 0, 0);
    let mut packet = [0; 1500];
    while answered + lost < asked {
        while sent - answered - lost < WINDOW && sent < asked {
            socket.send(&queries[sent % DISTINCT]).expect("a loopback address takes packets");
            sent += 1;
        }
        match socket.recv(&mut packet) {
            Ok(length) => {
                assert!(length > 12 && packet[3] & 0xF == 0 && packet[7] == 2, "not an answer of two addresses");
                answered += 1;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                lost = sent - answered;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (answered, lost)
}

/// A query for one of the names, with a /24 of somewhere.
fn query(number: u32) -> Vec<u8> {
    let mut packet = (number as u16).to_be_bytes().to_vec();
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    let label = format!("name-{:03}", number as usize % NAMES);
    packet.push(label.len() as u8);
    packet.extend(label.bytes());
    packet.extend(b"\x08repomind\x02io\x00\x00\x01\x00\x01");
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
    // Fibonacci hashing spreads the networks evenly.
    packet.extend(&number.wrapping_mul(2_654_435_769).to_be_bytes()[..3]);
    packet
}

fn id(name: &str) -> RegionId {
    RegionId::new(name).expect("a region name")
}

fn dns_name(text: &str) -> DnsName {
    DnsName::new(text).expect("a DNS name")
}

fn regions() -> Regions {
    let country = Country::new("IE").expect("a country");
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let region = |(number, name): (u8, &str)| Region {
        id: id(name),
        name: name.into(),
        primary: number == 0,
        api: String::new(),
        storage: String::new(),
        capacity: Capacity { min_instances: 1, max_instances: 1, per_instance_rps: 100 },
        features: BTreeSet::new(),
        coordinates: Coordinates { latitude: 0.0, longitude: 0.0 },
        country,
        jurisdiction: country,
        addresses: Addresses {
            gateway: anywhere,
            admin: anywhere,
            peer: anywhere,
            dns: anywhere,
            public: vec![Ipv4Addr::new(192, 0, 2, number).into()],
        },
        data_dir: "data".into(),
        peers: BTreeSet::new(),
    };
    let by_id = (0..).zip(REGIONS).map(region).map(|region| (region.id.clone(), region)).collect();
    Regions { by_id, primary: id(REGIONS[0]), operators: Vec::new() }
}

/// Every country has one of three rankings; every answer names two regions.
fn plans() -> Plans {
    let apex = dns_name("repomind.io");
    let routed: BTreeSet<DnsName> =
        (0..NAMES).map(|number| dns_name(&format!("name-{number:03}.repomind.io"))).collect();
    let default = AnswerShape::new(2, 30, 60);
    let shapes = routed
        .iter()
        .map(|name| (name.clone(), NameShapes { default: default.clone(), by_class: BTreeMap::new() }))
        .collect();
    let zone = Zone {
        apex: apex.clone(),
        contact: apex.clone(),
        times: SoaTimes::default(),
        ttl: 3600,
        ns: vec![NameServer { name: dns_name("ns1.repomind.io"), region: None }],
        routed,
        records: Vec::new(),
    };
    let ranking = |first: usize| Ranking { regions: (0..3).map(|at| id(REGIONS[(first + at) % 3])).collect() };
    let by_class = routing::countries()
        .enumerate()
        .map(|(at, country)| (ClientClass { country: Some(country) }, ranking(at % 3)))
        .collect();
    let dns = DnsPlan { zones: BTreeMap::from([(apex, zone)]), shapes };
    Plans { generation: 1, routing: RoutingPlan { default: ranking(0), by_class, dns }, ..Plans::deny_all() }
}
