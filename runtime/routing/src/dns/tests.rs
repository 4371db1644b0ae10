//! Queries written by hand, answers read by another implementation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use domain::base::iana::{Class, OptRcode, Rtype};
use domain::base::opt::{AllOptData, ClientSubnet};
use domain::base::{Message, Name, ToName, Ttl};
use domain::rdata::AllRecordData;
use model::names::DnsName;
use model::region::{Addresses, Capacity, Coordinates, Region, Regions};
use model::routing::*;
use model::{Country, RegionId, UnixMillis};

use super::*;
use crate::CountryTable;

pub(super) static COUNTRIES: LazyLock<CountryTable> = LazyLock::new(CountryTable::bundled);
pub(super) const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
pub(super) const GERMAN: &str = "141.20.1.1";

pub(super) fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn name(text: &str) -> DnsName {
    DnsName::new(text).unwrap()
}

pub(super) fn regions() -> Regions {
    let region = |name: &str, public: &[&str]| {
        let gateway: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
        let public = public.iter().map(|address| address.parse().unwrap()).collect();
        Region {
            id: id(name),
            name: name.to_owned(),
            primary: name == "us-east",
            api: String::new(),
            storage: String::new(),
            capacity: Capacity { min_instances: 1, max_instances: 9, per_instance_rps: 100 },
            features: BTreeSet::new(),
            coordinates: Coordinates { latitude: 0.0, longitude: 0.0 },
            country: Country::new("IE").unwrap(),
            jurisdiction: Country::new("IE").unwrap(),
            addresses: Addresses { gateway, admin: gateway, peer: gateway, dns: gateway, public },
            data_dir: "data".into(),
            peers: BTreeSet::new(),
        }
    };
    let all = [
        region("us-east", &["192.0.2.1", "2001:db8::1"]),
        region("eu-west", &["192.0.2.2", "2001:db8::2"]),
        region("ap-southeast", &["192.0.2.3"]),
    ];
    let by_id = all.into_iter().map(|region| (region.id.clone(), region)).collect();
    Regions { by_id, primary: id("us-east"), operators: Vec::new() }
}

pub(super) fn ranking(names: &[&str]) -> Ranking {
    Ranking { regions: names.iter().map(|name| id(name)).collect() }
}

pub(super) fn class(code: &str) -> ClientClass {
    ClientClass { country: Some(Country::new(code).unwrap()) }
}

/// One zone: `api` and `www` are routed, two addresses each, 30 to 60 seconds; Germans get eu-west first.
pub(super) fn plan() -> RoutingPlan {
    let record = |at: &str, data| StaticRecord { name: name(at), data };
    let zone = Zone {
        apex: name("repomind.io"),
        contact: name("hostmaster.repomind.io"),
        times: SoaTimes::default(),
        ttl: 3600,
        ns: vec![
            NameServer { name: name("ns1.repomind.io"), region: Some(id("eu-west")) },
            NameServer { name: name("ns2.repomind.io"), region: None },
            NameServer { name: name("ns.example.net"), region: None },
        ],
        routed: BTreeSet::from([name("repomind.io"), name("api.repomind.io"), name("www.repomind.io")]),
        records: vec![
            record("repomind.io", RecordData::Txt("v=spf1 -all".into())),
            record("repomind.io", RecordData::Caa { critical: false, tag: "issue".into(), value: "ca.example".into() }),
            record("docs.repomind.io", RecordData::Cname(name("www.repomind.io"))),
            record("gone.repomind.io", RecordData::Cname(name("nothing.repomind.io"))),
            record("away.repomind.io", RecordData::Cname(name("pages.example.net"))),
            record("a.b.repomind.io", RecordData::A([192, 0, 2, 99].into())),
            record("large.repomind.io", RecordData::Txt("x".repeat(1000))),
        ],
    };
    let shape = AnswerShape::new(2, 30, 60);
    let shapes = zone.routed.iter().map(|name| {
        let shapes = NameShapes { default: shape.clone(), by_class: BTreeMap::new() };
        (name.clone(), shapes)
    });
    RoutingPlan {
        default: ranking(&["us-east", "ap-southeast", "eu-west"]),
        by_class: BTreeMap::from([
            (class("DE"), ranking(&["eu-west", "us-east", "ap-southeast"])),
            (class("SG"), ranking(&["ap-southeast", "us-east", "eu-west"])),
        ]),
        dns: DnsPlan { shapes: shapes.collect(), zones: BTreeMap::from([(zone.apex.clone(), zone)]) },
    }
}

pub(super) fn states(not_ready: &[(&str, RegionState)]) -> BTreeMap<RegionId, RegionState> {
    let mut states: BTreeMap<_, _> = regions().by_id.into_keys().map(|id| (id, RegionState::Ready)).collect();
    states.extend(not_ready.iter().map(|(name, state)| (id(name), *state)));
    states
}

pub(super) fn table(not_ready: &[(&str, RegionState)]) -> Table {
    Table::new(&plan(), 7, &regions(), &states(not_ready))
}

/// A query under construction.
pub(super) struct Ask {
    head: [u8; 4],
    question: Vec<u8>,
    counts: [u16; 4],
    options: Option<Vec<u8>>,
    payload: u16,
    version: u8,
    from: IpAddr,
    transport: Transport,
}

pub(super) fn ask(text: &str, rtype: u16) -> Ask {
    let mut question = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.push(0);
    question.extend_from_slice(&rtype.to_be_bytes());
    question.extend_from_slice(&[0, 1]);
    Ask {
        head: [0xAB, 0xCD, 0x01, 0x00],
        question,
        counts: [1, 0, 0, 0],
        options: None,
        payload: 1232,
        version: 0,
        from: "198.51.100.1".parse().unwrap(),
        transport: Transport::Udp,
    }
}

impl Ask {
    pub(super) fn option(mut self, code: u16, value: &[u8]) -> Self {
        let options = self.options.get_or_insert_default();
        options.extend_from_slice(&code.to_be_bytes());
        options.extend_from_slice(&(value.len() as u16).to_be_bytes());
        options.extend_from_slice(value);
        self
    }

    pub(super) fn subnet(self, address: &str, source: u8) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let (family, bytes) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (2, address.octets().to_vec()),
        };
        let mut value = vec![0, family, source, 0];
        value.extend_from_slice(&bytes[..usize::from(source).div_ceil(8)]);
        if !source.is_multiple_of(8) {
            *value.last_mut().unwrap() &= 0xFF << (8 - source % 8);
        }
        self.option(8, &value)
    }

    pub(super) fn packet(&self) -> Vec<u8> {
        let mut packet = self.head.to_vec();
        let extra = u16::from(self.options.is_some());
        for count in [self.counts[0], self.counts[1], self.counts[2], self.counts[3] + extra] {
            packet.extend_from_slice(&count.to_be_bytes());
        }
        packet.extend_from_slice(&self.question);
        if let Some(options) = &self.options {
            packet.extend_from_slice(&[0, 0, 41]);
            packet.extend_from_slice(&self.payload.to_be_bytes());
            packet.extend_from_slice(&[0, self.version, 0x80, 0]);
            packet.extend_from_slice(&(options.len() as u16).to_be_bytes());
            packet.extend_from_slice(options);
        }
        packet
    }

    pub(super) fn of(&self, table: &Table) -> Option<(Outcome, Vec<u8>)> {
        send(table, &self.packet(), self.from, self.transport)
    }

    fn seen(&self, table: &Table) -> Seen {
        let (outcome, packet) = self.of(table).expect("an answer");
        Seen::read(outcome, packet)
    }
}

pub(super) fn send(table: &Table, packet: &[u8], from: IpAddr, transport: Transport) -> Option<(Outcome, Vec<u8>)> {
    let cookies = CookieKey::derived_from(&[1; 32]);
    let server = Server { countries: &COUNTRIES, cookies: &cookies, nsid: b"eu-west" };
    let mut out = vec![0xEE; 3];
    let outcome = answer(table, &server, packet, Client { address: from, transport }, NOW, &mut out);
    assert_eq!(outcome.is_none(), out.is_empty());
    outcome.map(|outcome| (outcome, out))
}

/// An answer as `domain` reads it.
pub(super) struct Seen {
    outcome: Outcome,
    packet: Vec<u8>,
    /// Section (1 to 3), owner, type, seconds, content.
    records: Vec<(u8, String, Rtype, u32, String)>,
    rcode: u16,
    scope: Option<u8>,
}

impl Seen {
    pub(super) fn read(outcome: Outcome, packet: Vec<u8>) -> Self {
        let message = Message::from_octets(packet.as_slice()).expect("a message");
        let (mut records, mut scope) = (Vec::new(), None);
        let mut all = 0;
        let (_, answer, authority, additional) = message.sections().expect("sections");
        for (number, section) in [(1, answer), (2, authority), (3, additional)] {
            for record in section {
                let record = record.expect("a record");
                all += 1;
                if record.rtype() == Rtype::OPT {
                    continue;
                }
                assert_eq!(record.class(), Class::IN);
                let owner: Name<Vec<u8>> = record.owner().to_name();
                let (rtype, ttl): (Rtype, Ttl) = (record.rtype(), record.ttl());
                let data = record.to_any_record::<AllRecordData<_, _>>().expect("known data").data().to_string();
                records.push((number, owner.to_string(), rtype, ttl.as_secs(), data));
            }
        }
        let counts = message.header_counts();
        assert_eq!(all, counts.ancount() + counts.nscount() + counts.arcount(), "the counts are wrong");
        let opt = message.opt();
        if let Some(opt) = &opt {
            for option in opt.opt().iter::<AllOptData<_, _>>() {
                if let AllOptData::ClientSubnet(subnet) = option.expect("an option") {
                    scope = Some(ClientSubnet::scope_prefix_len(&subnet));
                }
            }
        }
        let rcode = opt.map_or(OptRcode::from_rcode(message.header().rcode()), |opt| opt.rcode(message.header()));
        Self { outcome, rcode: rcode.to_int(), packet: packet.clone(), records, scope }
    }

    /// The contents of a section, in order.
    fn section(&self, number: u8) -> Vec<&str> {
        self.records.iter().filter(|record| record.0 == number).map(|record| record.4.as_str()).collect()
    }

    fn ttls(&self) -> BTreeSet<u32> {
        self.records.iter().map(|record| record.3).collect()
    }
}

const DOWN: RegionState = RegionState::Down;

#[test]
fn a_german_subnet_gets_its_region_first_wherever_its_resolver_is() {
    let seen = ask("api.repomind.io", 1).subnet(GERMAN, 24).seen(&table(&[]));
    assert_eq!((seen.rcode, seen.section(1)), (0, vec!["192.0.2.2", "192.0.2.1"]));
    assert_eq!(seen.scope, Some(COUNTRIES.matched(GERMAN.parse().unwrap()).prefix));
    assert_eq!(seen.ttls(), [60].into());
    let plain = Ask { from: GERMAN.parse().unwrap(), ..ask("api.repomind.io", 1) }.seen(&table(&[]));
    assert_eq!((plain.section(1), plain.scope), (vec!["192.0.2.2", "192.0.2.1"], None));
    let elsewhere = ask("api.repomind.io", 1).seen(&table(&[]));
    assert_eq!(elsewhere.section(1), ["192.0.2.1", "192.0.2.3"]);
    let v6 = ask("api.repomind.io", 28).subnet("2001:638::", 48).seen(&table(&[]));
    assert_eq!(v6.section(1), ["2001:db8::2", "2001:db8::1"]);
    assert!(v6.scope.is_some_and(|scope| scope > 0 && scope <= 48));
    // The steering is that of the name: without an address of the family there is none, and no other region's.
    let none = ask("api.repomind.io", 28).subnet("8.8.8.0", 24).seen(&table(&[("us-east", DOWN), ("eu-west", DOWN)]));
    assert_eq!((none.rcode, none.section(1).len(), none.section(2).len()), (0, 0, 1));
}

#[test]
fn a_region_that_is_down_is_never_answered_while_another_serves() {
    let german = || ask("api.repomind.io", 1).subnet(GERMAN, 24);
    let seen = german().seen(&table(&[("eu-west", DOWN)]));
    assert_eq!((seen.section(1), seen.ttls()), (vec!["192.0.2.1", "192.0.2.3"], [30].into()));
    let catching_up = german().seen(&table(&[("eu-west", RegionState::CatchingUp)]));
    assert_eq!(catching_up.section(1), ["192.0.2.1", "192.0.2.3"]);
    let suspect = german().seen(&table(&[("us-east", RegionState::Suspect)]));
    assert_eq!((suspect.section(1), suspect.ttls()), (vec!["192.0.2.2", "192.0.2.1"], [30].into()));
    // Nobody sends Germans to ap-southeast while the other two are well: its state does not shorten the time.
    assert_eq!(german().seen(&table(&[("ap-southeast", DOWN)])).ttls(), [60].into());
}

#[test]
fn when_all_are_down_the_ranking_stands_for_the_shortest_time_and_nothing_is_invented() {
    let dead = table(&[("eu-west", DOWN), ("us-east", DOWN), ("ap-southeast", DOWN)]);
    let seen = ask("api.repomind.io", 1).subnet(GERMAN, 24).seen(&dead);
    assert_eq!((seen.section(1), seen.ttls()), (vec!["192.0.2.2", "192.0.2.1"], [30].into()));
    let unknown = Table::new(&plan(), 7, &regions(), &BTreeMap::new());
    assert_eq!(ask("www.repomind.io", 1).seen(&unknown).section(1), ["192.0.2.1", "192.0.2.3"]);
}

#[test]
fn regions_behind_one_address_never_make_a_record_stand_twice() {
    let mut regions = regions();
    let public = regions.by_id["us-east"].addresses.public.clone();
    regions.by_id.values_mut().for_each(|region| region.addresses.public.clone_from(&public));
    let table = Table::new(&plan(), 7, &regions, &states(&[]));
    assert_eq!(ask("api.repomind.io", 1).seen(&table).section(1), ["192.0.2.1"]);
    assert_eq!(ask("ns2.repomind.io", 28).seen(&table).section(1), ["2001:db8::1"]);
}

#[test]
fn absence_is_told_apart_and_carries_the_soa_for_a_minute() {
    for (text, rtype, rcode) in [
        ("no.repomind.io", 1, 3),
        ("x.api.repomind.io", 1, 3),
        ("api.repomind.io", 16, 0),
        ("b.repomind.io", 1, 0),
        ("ns1.repomind.io", 28, 0),
    ] {
        let seen = ask(text, rtype).seen(&Table::new(&plan(), 7, &regions(), &states(&[])));
        if text == "ns1.repomind.io" {
            assert_eq!(seen.section(1), ["2001:db8::2"]);
            continue;
        }
        assert_eq!((seen.rcode, seen.section(1).len()), (rcode, 0), "{text}");
        let [(2, owner, Rtype::SOA, 60, data)] = seen.records.as_slice() else { panic!("{text}: {:?}", seen.records) };
        assert_eq!(owner, "repomind.io");
        assert!(data.starts_with("ns1.repomind.io. hostmaster.repomind.io. 7 "), "{data}");
        assert_ne!(seen.packet[2] & 4, 0, "{text}: the answer is not authoritative");
    }
}

#[test]
fn fixed_records_come_as_declared_and_servers_with_their_addresses() {
    let table = table(&[]);
    assert_eq!(ask("repomind.io", 16).seen(&table).section(1), ["\"v=spf1 -all\""]);
    assert_eq!(ask("repomind.io", 257).seen(&table).section(1), ["0 issue \"ca.example\""]);
    assert_eq!(ask("a.b.repomind.io", 1).seen(&table).section(1), ["192.0.2.99"]);
    assert!(ask("repomind.io", 6).seen(&table).section(1)[0].contains(" 7 86400 7200 3600000 60"));
    let servers = ask("repomind.io", 2).option(3, b"").seen(&table);
    assert_eq!(servers.section(1), ["ns1.repomind.io.", "ns2.repomind.io.", "ns.example.net."]);
    let ns2 = |rtype| servers.records.iter().filter(move |r| r.1 == "ns2.repomind.io" && r.2 == rtype).count();
    assert_eq!((servers.section(3).len(), ns2(Rtype::A), ns2(Rtype::AAAA)), (7, 3, 2), "{:?}", servers.records);
    let any = ask("api.repomind.io", 255).seen(&table);
    assert_eq!((any.records.len(), any.records[0].2), (1, Rtype::HINFO));
    assert_eq!(ask("no.repomind.io", 255).seen(&table).rcode, 3);
}

#[test]
fn aliases_are_followed_within_our_zones_and_no_further() {
    let table = table(&[]);
    let seen = ask("docs.repomind.io", 1).subnet(GERMAN, 24).seen(&table);
    assert_eq!(seen.section(1), ["www.repomind.io.", "192.0.2.2", "192.0.2.1"]);
    assert_eq!((seen.records[0].1.as_str(), seen.records[1].1.as_str()), ("docs.repomind.io", "www.repomind.io"));
    assert!(seen.scope.is_some_and(|scope| scope > 0));
    assert_eq!(ask("docs.repomind.io", 5).seen(&table).section(1), ["www.repomind.io."]);
    assert_eq!(ask("away.repomind.io", 1).seen(&table).section(1), ["pages.example.net."]);
    let gone = ask("gone.repomind.io", 1).seen(&table);
    assert_eq!((gone.rcode, gone.section(1).len(), gone.section(2).len()), (3, 1, 1));
}

#[test]
fn what_is_not_ours_or_not_offered_is_refused_and_never_answered() {
    let table = table(&[]);
    let refused = |ask: Ask| {
        let seen = ask.seen(&table);
        assert!(seen.records.is_empty(), "{:?}", seen.records);
        assert_eq!(seen.packet[2] & 4, 0, "a refusal is no authoritative answer");
        seen.rcode
    };
    assert_eq!(refused(ask("example.net", 1)), 5);
    assert_eq!(refused(ask("notrepomind.io", 1)), 5);
    assert_eq!(refused(ask("", 2)), 5);
    assert_eq!(refused(ask("repomind.io", 252)), 5);
    assert_eq!(refused(ask("repomind.io", 251)), 5);
    assert_eq!(refused(ask("repomind.io", 249)), 4);
    assert_eq!(refused(ask("repomind.io", 41)), 1);
    let mut chaos = ask("version.bind", 16);
    *chaos.question.last_mut().unwrap() = 3;
    assert_eq!(refused(chaos), 5);
    for opcode in [1_u8, 2, 4, 5, 15] {
        assert_eq!(refused(Ask { head: [0, 9, opcode << 3, 0], ..ask("api.repomind.io", 1) }), 4);
    }
    assert_eq!(ask("api.repomind.io", 1).seen(&Table::default()).rcode, 2, "without a plan nothing is known");
}

#[test]
fn what_is_not_well_formed_gets_formerr_and_responses_get_silence() {
    let table = table(&[]);
    let formerr = |ask: Ask| {
        let seen = ask.seen(&table);
        assert_eq!((seen.rcode, seen.records.len()), (1, 0));
    };
    formerr(Ask { counts: [2, 0, 0, 0], ..ask("api.repomind.io", 1) });
    formerr(Ask { counts: [1, 1, 0, 0], ..ask("api.repomind.io", 1) });
    formerr(Ask { counts: [0, 0, 0, 0], question: Vec::new(), ..ask("", 1) });
    formerr(Ask { counts: [1, 0, 0, 1], ..ask("api.repomind.io", 1) });
    formerr(Ask { question: [vec![0xC0, 12], vec![0, 1, 0, 1]].concat(), ..ask("", 1) });
    formerr(Ask { question: [ask("api.repomind.io", 1).question, vec![0]].concat(), ..ask("", 1) });
    formerr(ask("api.repomind.io", 1).option(10, &[1; 7]));
    formerr(ask("api.repomind.io", 1).option(10, &[1; 12]));
    formerr(ask("api.repomind.io", 1).option(10, &[1; 41]));
    for subnet in [
        &[0, 1, 24, 0, 141, 20][..],   // too short
        &[0, 1, 24, 0, 141, 20, 1, 1], // too long
        &[0, 1, 23, 0, 141, 20, 1],    // a bit beyond the prefix
        &[0, 1, 33, 0, 1, 1, 1, 1, 1], // a prefix longer than an address
        &[0, 1, 24, 8, 141, 20, 1],    // a scope in a query
        &[0, 3, 8, 0, 1],              // no such family
        &[0, 0, 8, 0, 1],              // nobody's address
        &[0, 1, 24],                   // cut off
    ] {
        formerr(ask("api.repomind.io", 1).option(8, subnet));
    }
    let mut two = ask("api.repomind.io", 1).option(3, b"").packet();
    two[11] = 2;
    two.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    assert_eq!(send(&table, &two, GERMAN.parse().unwrap(), Transport::Udp).unwrap().0.rcode, Rcode::FormErr);
    assert!(Ask { head: [1, 2, 0x80, 0], ..ask("api.repomind.io", 1) }.of(&table).is_none());
    assert!(send(&table, &[0; 11], GERMAN.parse().unwrap(), Transport::Udp).is_none());
}

#[test]
fn a_later_edns_gets_badvers_and_our_version() {
    let seen = Ask { version: 1, ..ask("api.repomind.io", 1).option(8, &[9]) }.seen(&table(&[]));
    assert_eq!((seen.rcode, seen.records.len()), (16, 0));
    let opt = Message::from_octets(seen.packet.as_slice()).unwrap().opt().unwrap();
    assert_eq!((opt.version(), opt.udp_payload_size(), opt.dnssec_ok()), (0, 1232, true));
}

#[test]
fn a_scope_is_never_claimed_where_the_place_of_the_client_did_not_matter() {
    let table = table(&[]);
    assert_eq!(ask("repomind.io", 16).subnet(GERMAN, 24).seen(&table).scope, Some(0));
    assert_eq!(ask("no.repomind.io", 1).subnet(GERMAN, 24).seen(&table).scope, Some(0));
    assert_eq!(ask("example.net", 1).subnet(GERMAN, 24).seen(&table).scope, None);
    // A prefix of no bits hides the clients: the resolver's own place counts, and nothing is promised for others.
    let hidden = Ask { from: GERMAN.parse().unwrap(), ..ask("api.repomind.io", 1).subnet("0.0.0.0", 0) };
    assert_eq!((hidden.seen(&table).scope, hidden.seen(&table).section(1)[0]), (Some(0), "192.0.2.2"));
    // Family 0 of a client with nothing to say; `domain` cannot read it.
    let (empty, packet) = ask("api.repomind.io", 1).option(8, &[0, 0, 0, 0]).of(&table).unwrap();
    assert!(empty.rcode == Rcode::NoError && packet.ends_with(&[0, 8, 0, 4, 0, 0, 0, 0]));
    let mut alike = plan();
    alike.by_class.clear();
    let alike = Table::new(&alike, 7, &regions(), &states(&[]));
    assert_eq!(ask("api.repomind.io", 1).subnet(GERMAN, 24).seen(&alike).scope, Some(0));
}

#[test]
fn the_case_of_a_question_comes_back_unchanged() {
    let seen = ask("aPi.RePoMiNd.Io", 1).subnet(GERMAN, 24).seen(&table(&[]));
    assert_eq!(seen.section(1), ["192.0.2.2", "192.0.2.1"]);
    assert!(seen.records.iter().all(|record| record.1 == "aPi.RePoMiNd.Io"), "{:?}", seen.records);
    let negative = ask("nO.rEPOMIND.io", 1).seen(&table(&[]));
    assert_eq!((negative.rcode, negative.records[0].1.as_str()), (3, "rEPOMIND.io"));
    assert_eq!(negative.packet[..4], [0xAB, 0xCD, 0x85, 0x03]);
}

#[test]
fn an_answer_over_udp_never_exceeds_what_the_client_can_take() {
    let table = table(&[]);
    let plain = ask("large.repomind.io", 16).seen(&table);
    assert!(
        plain.outcome.truncated && plain.packet.len() <= 512 && plain.packet[2] & 2 != 0 && plain.records.is_empty()
    );
    let small = Ask { payload: 100, ..ask("large.repomind.io", 16).option(3, b"") }.seen(&table);
    assert!(small.outcome.truncated && small.packet.len() <= 512);
    let large = Ask { payload: 4096, ..ask("large.repomind.io", 16).option(3, b"") }.seen(&table);
    assert!(!large.outcome.truncated && large.packet.len() <= 1232);
    let tcp = Ask { transport: Transport::Tcp, ..ask("large.repomind.io", 16) }.seen(&table);
    assert!(!tcp.outcome.truncated && tcp.section(1).len() == 1);
    let (outcome, mut packet) = ask("api.repomind.io", 1).of(&table).unwrap();
    shorten(&mut packet, &outcome);
    let short = Seen::read(outcome, packet);
    assert!(short.records.is_empty() && short.packet[2] & 2 != 0 && short.packet.len() == outcome.question_end);
}

#[test]
fn a_client_is_known_by_the_cookie_that_it_was_given_and_the_server_by_its_name() {
    let table = table(&[]);
    let first = ask("api.repomind.io", 1).option(10, &[5; 8]).option(3, b"").seen(&table);
    assert!(!first.outcome.known_client);
    let message = Message::from_octets(first.packet.as_slice()).unwrap();
    let opt = message.opt().unwrap();
    assert_eq!(opt.opt().nsid().unwrap().as_slice(), b"eu-west");
    let cookie = opt.opt().cookie().unwrap();
    let server = cookie.server().unwrap().try_to_standard().unwrap();
    assert_eq!((server.version(), server.timestamp().into_int()), (1, (NOW.0 / 1000) as u32));
    let at = first.packet.windows(8).position(|bytes| bytes == [5; 8]).unwrap();
    let whole = first.packet[at..at + 24].to_vec();
    assert!(ask("api.repomind.io", 1).option(10, &whole).seen(&table).outcome.known_client);
    let stolen = Ask { from: GERMAN.parse().unwrap(), ..ask("api.repomind.io", 1).option(10, &whole) };
    assert!(!stolen.seen(&table).outcome.known_client);
    // RFC 7873, section 5.4: a cookie may be asked for alone.
    let alone = Ask { counts: [0; 4], question: Vec::new(), ..ask("", 1).option(10, &[5; 8]) }.seen(&table);
    assert_eq!((alone.rcode, alone.packet.len()), (0, 12 + 11 + 28));
}
