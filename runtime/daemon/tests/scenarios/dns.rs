//! DNS of whole daemons: what a resolver would see.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::cluster::{Cluster, text, until};
use crate::{REGIONS, SOON};

/// A network of Deutsche Telekom.
const GERMAN: [u8; 3] = [217, 0, 0];
const A: u16 = 1;

/// What a server answered, as far as these tests look.
#[derive(Debug, PartialEq)]
struct Reply {
    rcode: u8,
    authoritative: bool,
    addresses: Vec<Ipv4Addr>,
    seconds: Vec<u32>,
    /// Whether a SOA record says for how long the answer's absence holds.
    soa: bool,
    scope: Option<u8>,
}

/// A query with the client's /24.
fn query(name: &str, kind: u16, subnet: [u8; 3]) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.bytes());
    }
    packet.extend([0]);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
    packet.extend(subnet);
    packet
}

fn pair(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn skip_name(packet: &[u8], mut at: usize) -> usize {
    loop {
        match packet[at] {
            0 => return at + 1,
            0xC0.. => return at + 2,
            length => at += usize::from(length) + 1,
        }
    }
}

fn read(packet: &[u8]) -> Reply {
    assert_eq!(&packet[..2], [0x12, 0x34]);
    let mut reply = Reply {
        rcode: packet[3] & 0xF,
        authoritative: packet[2] & 4 != 0,
        addresses: Vec::new(),
        seconds: Vec::new(),
        soa: false,
        scope: None,
    };
    let mut at = skip_name(packet, 12) + 4;
    for _ in 0..pair(packet, 6) + pair(packet, 8) + pair(packet, 10) {
        at = skip_name(packet, at);
        let (kind, length) = (pair(packet, at), usize::from(pair(packet, at + 8)));
        let data = &packet[at + 10..at + 10 + length];
        match kind {
            A => {
                reply.addresses.push(Ipv4Addr::new(data[0], data[1], data[2], data[3]));
                reply.seconds.push(u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap()));
            }
            6 => reply.soa = true,
            // The client subnet is the only option that was asked for.
            41 => reply.scope = data.get(7).copied(),
            _ => {}
        }
        at += 10 + length;
    }
    assert_eq!(at, packet.len(), "bytes are left over");
    reply
}

fn ask(server: SocketAddr, name: &str, kind: u16, subnet: [u8; 3]) -> Option<Reply> {
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    socket.send(&query(name, kind, subnet)).ok()?;
    let mut packet = [0; 1500];
    let length = socket.recv(&mut packet).ok()?;
    Some(read(&packet[..length]))
}

fn ask_tcp(server: SocketAddr, name: &str, kind: u16, subnet: [u8; 3]) -> Reply {
    let mut stream = TcpStream::connect(server).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let packet = query(name, kind, subnet);
    stream.write_all(&[&(packet.len() as u16).to_be_bytes()[..], &packet].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut packet = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut packet).unwrap();
    read(&packet)
}

/// The addresses that a German resolver is given for the service's name.
pub fn given(cluster: &Cluster, region: &str) -> Option<Vec<Ipv4Addr>> {
    Some(ask(cluster.dns(region), "api.repomind.io", A, GERMAN)?.addresses)
}

/// Waits until a German resolver is answered so in `region`.
fn until_german(cluster: &Cluster, region: &str, what: &str, holds: impl Fn(&Reply) -> bool) -> Reply {
    until(&format!("{what}, answered by {region}"), SOON, || {
        ask(cluster.dns(region), "api.repomind.io", A, GERMAN).filter(|reply| holds(reply))
    })
}

/// The output of `dig`, where it is installed; it has to be where tests are run for everybody.
fn dig(server: SocketAddr, words: &[&str]) -> Option<String> {
    let run = Command::new("dig")
        .args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+time=5", "+tries=1"])
        .args(words)
        .output();
    match run {
        Ok(output) => {
            assert!(output.status.success(), "dig {words:?}: {}", text(&output));
            Some(text(&output))
        }
        Err(error) => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "dig is missing: {error}");
            None
        }
    }
}

#[test]
fn resolvers_are_sent_on_when_a_region_dies_and_back_when_it_returns() {
    let cluster = Cluster::deployed();
    let address = |region: &str| cluster.address(region);
    for region in REGIONS {
        let shown = cluster.status(region).expect("a status")["dns"].clone();
        assert_eq!(shown, cluster.dns(region).to_string());
        let well = until_german(&cluster, region, "the near region first, for a minute", |reply| {
            reply.addresses.first() == Some(&address("eu-west")) && reply.seconds.iter().all(|time| *time == 60)
        });
        assert_eq!((well.rcode, well.authoritative, well.addresses.len()), (0, true, 2), "{well:?}");
        assert!(well.scope.is_some_and(|scope| scope > 0 && scope <= 32), "{well:?}");
        assert_eq!(ask_tcp(cluster.dns(region), "api.repomind.io", A, GERMAN), well);
    }

    cluster.kill("eu-west");
    for region in ["us-east", "ap-southeast"] {
        let without = until_german(&cluster, region, "the dead region left out", |reply| {
            !reply.addresses.contains(&address("eu-west"))
        });
        assert!(without.addresses.len() == 2 && without.seconds.iter().all(|time| *time <= 30), "{without:?}");
    }
    let again = cluster.run(&["deploy", "--wan", "none"]);
    assert!(again.status.success(), "{}", text(&again));
    for region in REGIONS {
        until_german(&cluster, region, "the near region back", |reply| {
            reply.addresses.first() == Some(&address("eu-west")) && reply.seconds.iter().all(|time| *time == 60)
        });
    }
}

#[test]
fn a_resolver_is_told_what_is_not_there_and_nothing_of_others() {
    let cluster = Cluster::deployed();
    let server = cluster.dns("us-east");
    until_german(&cluster, "us-east", "an answer", |reply| reply.addresses.len() == 2);
    let absent = ask(server, "nothing.repomind.io", A, GERMAN).unwrap();
    assert_eq!((absent.rcode, absent.soa, absent.authoritative, absent.scope), (3, true, true, Some(0)));
    let no_text = ask(server, "api.repomind.io", 16, GERMAN).unwrap();
    assert_eq!((no_text.rcode, no_text.soa, no_text.addresses.len()), (0, true, 0));
    let other = ask(server, "example.net", A, GERMAN).unwrap();
    assert_eq!((other.rcode, other.soa, other.authoritative), (5, false, false));

    if let Some(short) = dig(server, &["api.repomind.io", "A", "+short", "+subnet=217.0.0.0/24"]) {
        let expected: Vec<String> =
            ask(server, "api.repomind.io", A, GERMAN).unwrap().addresses.iter().map(ToString::to_string).collect();
        assert_eq!(short.lines().collect::<Vec<_>>(), expected);
        let soa = dig(server, &["repomind.io", "SOA", "+tcp", "+nsid"]).expect("dig is there");
        for part in ["status: NOERROR", "flags: qr aa", "hostmaster.repomind.io.", "us-east", "COOKIE:"] {
            assert!(soa.contains(part), "{part} is missing:\n{soa}");
        }
        let future = dig(server, &["api.repomind.io", "A", "+edns=1", "+noednsnegotiation"]).expect("dig is there");
        assert!(future.contains("status: BADVERS"), "{future}");
        let warned = [&soa, &future].into_iter().find(|output| output.contains(";; Warning"));
        assert_eq!(warned, None);
    }
    let metrics = cluster.admin("us-east", "GET", "/metrics", "").unwrap().body;
    for rcode in ["NOERROR", "NXDOMAIN", "REFUSED"] {
        let counter = format!("repomind_dns_queries_total{{rcode=\"{rcode}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&counter)?.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 0), "{rcode} was not counted:\n{metrics}");
    }
}

#[test]
fn the_gateway_and_dns_never_disagree_on_the_region_of_a_client() {
    let cluster = Cluster::deployed();
    let server = cluster.dns("us-east");
    let address = |region: &str| cluster.address(region);
    until("every region ready", SOON, || {
        let sees = cluster.status("us-east")?["sees"].clone();
        (sees["eu-west"] == "ready" && sees["ap-southeast"] == "ready").then_some(())
    });
    let mut regions = std::collections::BTreeSet::new();
    // Every other /8 of the public internet, somewhere in the middle.
    for first in (1..224_u8).step_by(2).filter(|first| ![10, 127].contains(first)) {
        let subnet = [first, first.wrapping_mul(37), 64];
        let from = format!("{}.{}.{}.0", subnet[0], subnet[1], subnet[2]);
        let served = cluster.ask("us-east", "GET", "/hello", &[("x-forwarded-for", &from)], "").unwrap();
        let region = served.headers["repomind-region"].clone();
        let answered = ask(server, "api.repomind.io", A, subnet).unwrap();
        assert_eq!(answered.addresses.first(), Some(&address(&region)), "{from} is served by {region}");
        regions.insert(region);
    }
    assert_eq!(regions.len(), REGIONS.len(), "all the clients tried are served by {regions:?}");
}

#[test]
fn a_saved_zone_is_answered_everywhere_and_a_bad_one_nowhere() {
    let cluster = Cluster::deployed();
    let file = cluster.file("traffic-routing/geo-dns.scm");
    let good = std::fs::read_to_string(&file).unwrap();
    let named = "(names . (\"@\" \"api\"";
    assert!(good.contains(named), "the default zone has changed");
    let new = |region: &str| ask(cluster.dns(region), "new.repomind.io", A, GERMAN);
    assert_eq!(new("us-east").unwrap().rcode, 3);

    std::fs::write(&file, good.replace(named, "(names . (\"@\" \"@\" \"new\"")).unwrap();
    let errors = until("the bad zone in the status", SOON, || {
        let errors = cluster.status("us-east")?["policy_errors"].as_array()?.clone();
        (!errors.is_empty()).then_some(errors)
    });
    let first = errors[0].as_str().unwrap();
    assert!(first.contains("geo-dns.scm:") && first.contains("a name stands twice"), "{first}");
    assert_eq!(new("us-east").unwrap().rcode, 3, "a refused zone was answered");
    assert_eq!(ask(cluster.dns("us-east"), "api.repomind.io", A, GERMAN).unwrap().addresses.len(), 2);

    std::fs::write(&file, good.replace(named, "(names . (\"@\" \"new\" \"api\"")).unwrap();
    for region in REGIONS {
        until(&format!("the new name, answered by {region}"), SOON, || {
            new(region).filter(|reply| reply.rcode == 0 && reply.addresses.len() == 2)
        });
    }
}
