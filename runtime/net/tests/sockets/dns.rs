//! DNS over real sockets on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use data::plans::Plans;
use model::RegionId;
use model::names::DnsName;
use model::region::Regions;
use model::routing::{AnswerShape, DnsPlan, NameServer, NameShapes, Ranking, RegionState, RoutingPlan, SoaTimes, Zone};
use net::{DnsAnswers, DnsConfig};
use routing::CountryTable;
use routing::dns::CookieKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{id, region};

/// Longer than any answer takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn regions() -> Arc<Regions> {
    let region = |name: &str, public: Ipv4Addr| {
        let mut region = region(name);
        region.addresses.public = vec![public.into()];
        (region.id.clone(), region)
    };
    let by_id = BTreeMap::from([region("us-east", FIRST), region("eu-west", SECOND)]);
    Arc::new(Regions { by_id, primary: id("us-east"), operators: Vec::new() })
}

/// `api.repomind.io` is answered with one region, us-east before eu-west.
fn plans(order: [&str; 2]) -> Arc<Plans> {
    let (apex, api) = (DnsName::new("repomind.io").unwrap(), DnsName::new("api.repomind.io").unwrap());
    let zone = Zone {
        apex: apex.clone(),
        contact: apex.clone(),
        times: SoaTimes::default(),
        ttl: 60,
        ns: vec![NameServer { name: DnsName::new("ns1.repomind.io").unwrap(), region: None }],
        routed: BTreeSet::from([api.clone()]),
        records: Vec::new(),
    };
    let default = AnswerShape::new(1, 1, 2);
    let shapes = BTreeMap::from([(api, NameShapes { default, by_class: BTreeMap::new() })]);
    let routing = RoutingPlan {
        default: Ranking { regions: order.map(id).into() },
        by_class: BTreeMap::new(),
        dns: DnsPlan { zones: BTreeMap::from([(apex, zone)]), shapes },
    };
    Arc::new(Plans { generation: 1, routing, ..Plans::deny_all() })
}

fn states(us_east: RegionState) -> Arc<BTreeMap<RegionId, RegionState>> {
    Arc::new(BTreeMap::from([(id("us-east"), us_east), (id("eu-west"), RegionState::Ready)]))
}

struct Running {
    answers: Arc<DnsAnswers>,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn serving(answers_a_second: u32) -> Running {
    let answers = Arc::new(DnsAnswers::new(regions()));
    answers.plans_changed(plans(["us-east", "eu-west"]));
    answers.states_changed(states(RegionState::Ready));
    let cookies = CookieKey::derived_from(&[3; 32]);
    let config = DnsConfig {
        answers: answers_a_second,
        limit_loopback: true,
        ..DnsConfig::new(id("us-east"), cookies, Arc::new(ArcSwap::from_pointee(CountryTable::bundled())))
    };
    let sockets = net::bind_dns(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = sockets.address().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(net::serve_dns(sockets, answers.clone(), config, stop.clone()));
    Running { answers, address, stop, task }
}

/// A query for the address of `api.repomind.io`, with this cookie if there is one.
fn query(number: u16, cookie: &[u8]) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!cookie.is_empty())]);
    packet.extend(b"\x03api\x08repomind\x02io\x00\x00\x01\x00\x01");
    if !cookie.is_empty() {
        packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, cookie.len() as u8 + 4, 0, 10, 0, cookie.len() as u8]);
        packet.extend(cookie);
    }
    packet
}

/// The number, whether it was cut down, and the address.
fn read(packet: &[u8]) -> (u16, bool, Option<Ipv4Addr>) {
    let shortened = packet[2] & 2 != 0;
    let end = query(0, &[]).len();
    let address = (packet[7] == 1).then(|| <[u8; 4]>::try_from(&packet[end + 12..end + 16]).unwrap().into());
    (u16::from_be_bytes([packet[0], packet[1]]), shortened, address)
}

async fn client(running: &Running) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(running.address).await.unwrap();
    socket
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut packet = vec![0; 1500];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut packet)).await.expect("an answer in time").unwrap();
    packet.truncate(length);
    packet
}

async fn asked(socket: &UdpSocket) -> Option<Ipv4Addr> {
    socket.send(&query(7, &[])).await.unwrap();
    read(&receive(socket).await).2
}

async fn receive_tcp(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut packet = vec![0; length.into()];
        stream.read_exact(&mut packet).await.unwrap();
        packet
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time")
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u16).to_be_bytes(), packet].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_query_sees_a_change_of_health_and_of_plan() {
    let running = serving(u32::MAX).await;
    let socket = client(&running).await;
    assert_eq!(asked(&socket).await, Some(FIRST));
    for _ in 0..20 {
        running.answers.states_changed(states(RegionState::Down));
        assert_eq!(asked(&socket).await, Some(SECOND), "a region that is down was answered");
        running.answers.states_changed(states(RegionState::Ready));
        assert_eq!(asked(&socket).await, Some(FIRST));
        running.answers.plans_changed(plans(["eu-west", "us-east"]));
        assert_eq!(asked(&socket).await, Some(SECOND), "an old plan was answered from");
        running.answers.plans_changed(plans(["us-east", "eu-west"]));
        assert_eq!(asked(&socket).await, Some(FIRST));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_datagram_stops_the_server_and_stopping_ends_it() {
    let running = serving(u32::MAX).await;
    let socket = client(&running).await;
    let whole = query(9, &[1; 8]);
    for length in 0..whole.len() {
        socket.send(&whole[..length]).await.unwrap();
    }
    socket.send(&[0xFF; 60_000]).await.unwrap();
    socket.send(&query(4242, &[])).await.unwrap();
    while read_number(&receive(&socket).await) != 4242 {}
    running.stop.cancel();
    tokio::time::timeout(PATIENCE, running.task).await.expect("the server stops").unwrap();
}

fn read_number(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[0], packet[1]])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_answers_many_queries_in_order_however_they_are_cut() {
    let running = serving(1).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let all: Vec<u8> = (0..300).flat_map(|number| framed(&query(number, &[]))).collect();
    // The answer to the first query must not wait for the rest of the second.
    stream.write_all(&all[..40]).await.unwrap();
    assert_eq!(read(&receive_tcp(&mut stream).await), (0, false, Some(FIRST)));
    for piece in all[40..].chunks(997) {
        stream.write_all(piece).await.unwrap();
    }
    for number in 1..300 {
        assert_eq!(read(&receive_tcp(&mut stream).await), (number, false, Some(FIRST)));
    }
    stream.write_all(&framed(&[0; 3])).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "what is no query ends the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_never_holds_all_connections() {
    let running = serving(1).await;
    let mut held = Vec::new();
    for _ in 0..net::limits::DNS_CONNECTIONS_EACH {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&framed(&query(1, &[]))).await.unwrap();
        receive_tcp(&mut stream).await;
        held.push(stream);
    }
    let mut one_more = TcpStream::connect(running.address).await.unwrap();
    let refused = tokio::time::timeout(PATIENCE, one_more.read(&mut [0; 1])).await.expect("it is closed");
    assert!(!matches!(refused, Ok(1..)), "it was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_down_and_a_client_with_a_cookie_is_not() {
    let running = serving(1).await;
    let socket = client(&running).await;
    socket.send(&query(1, &[5; 8])).await.unwrap();
    let first = receive(&socket).await;
    let at = first.windows(8).position(|bytes| bytes == [5; 8]).expect("our cookie");
    let cookie = first[at..at + 24].to_vec();
    for number in 100..200 {
        socket.send(&query(number, &[])).await.unwrap();
    }
    socket.send(&query(500, &cookie)).await.unwrap();
    let (mut whole, mut shortened) = (0, 0);
    loop {
        match read(&receive(&socket).await) {
            (500, false, Some(FIRST)) => break,
            (_, true, None) => shortened += 1,
            (_, false, Some(_)) => whole += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(whole < 60 && shortened > 0 && whole + shortened < 100, "{whole} whole, {shortened} cut down");
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for number in 0..50 {
        stream.write_all(&framed(&query(number, &[]))).await.unwrap();
        assert_eq!(read(&receive_tcp(&mut stream).await), (number, false, Some(FIRST)));
    }
}
