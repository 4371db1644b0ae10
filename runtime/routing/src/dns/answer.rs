//! From a packet to a packet.

use std::net::IpAddr;

use model::routing::LONGEST_CHAIN;
use model::{Country, UnixMillis};

use super::cookie::CookieKey;
use super::table::{Addresses, RecordSet, Steering, Table, ZoneTable};
use super::wire::{
    self, CLASS_IN, Edns, HEADER, LONGEST_NAME, Query, Question, Rcode, Subnet, lower, option, parent, rtype,
};
use crate::CountryTable;
use crate::shares::ClientNet;

/// The largest packet that is sent over UDP: what crosses the internet unfragmented (DNS Flag Day 2020).
pub const UDP_PAYLOAD: u16 = 1232;
/// The largest packet over UDP to those who do not speak EDNS (RFC 1035, section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;
/// Bits of the third byte of a header.
const RESPONSE: u8 = 0x80;
const AUTHORITATIVE: u8 = 0x04;
const TRUNCATED: u8 = 0x02;
/// What a response repeats of a query: opcode and RD in the third byte, CD in the fourth.
const REPEATED: [u8; 2] = [0x79, 0x10];

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram, whose sender may be forged.
    Udp,
    /// Over a connection.
    Tcp,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The address that the query came from: a resolver's, as a rule.
    pub address: IpAddr,
    /// How it came.
    pub transport: Transport,
}

/// What does not change while a region runs.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Countries by address.
    pub countries: &'a CountryTable,
    /// The secret behind cookies.
    pub cookies: &'a CookieKey,
    /// What those are told who ask which server answers: the region's name.
    pub nsid: &'a [u8],
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The response code.
    pub rcode: Rcode,
    /// Whether it did not fit and the client was told to come over TCP.
    pub truncated: bool,
    /// Whether the client showed by a cookie that its address is its own.
    pub known_client: bool,
    /// One past the question in the answer.
    pub question_end: usize,
    /// Where the client was taken to be, if the answer was routed by region.
    pub routed_for: Option<Option<Country>>,
}

/// Answers one packet into `out`, which is cleared first. Nothing comes back, and `out` is empty, for packets that
/// must not be answered: fragments of a header, and responses.
pub fn answer(
    table: &Table,
    server: &Server<'_>,
    packet: &[u8],
    client: Client,
    now: UnixMillis,
    out: &mut Vec<u8>,
) -> Option<Outcome> {
    out.clear();
    let query = wire::read(packet)?;
    let cookie = query.edns.and_then(|edns| edns.cookie);
    let known_client = cookie.is_some_and(|cookie| server.cookies.knows(&cookie, client.address, now));
    out.extend_from_slice(&[0; HEADER]);
    let question = query.question;
    if let Some(question) = question {
        out.extend_from_slice(&packet[HEADER..question.end]);
    }
    let question_end = out.len();
    let options = Options { server, client, now, edns: query.edns };
    let most = match (client.transport, query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.payload.clamp(PLAIN_PAYLOAD, UDP_PAYLOAD),
        (Transport::Udp, None) => PLAIN_PAYLOAD,
    };
    let room = usize::from(most) - options.length();
    let mut reply = Reply {
        out,
        room,
        counts: [0; 3],
        dnssec: query.edns.is_some_and(|edns| edns.dnssec_ok),
        overflow: false,
        unsigned: false,
        scope: 0,
        routed_for: None,
    };
    let mut rcode = match (query.fault, question) {
        (Some(fault), _) => fault,
        (None, Some(question)) => resolve(&mut reply, table, server, packet, &query, question, client),
        // A question about nothing but a cookie.
        (None, None) => Rcode::NoError,
    };
    if reply.unsigned {
        rcode = Rcode::ServFail;
    }
    let authoritative = matches!(rcode, Rcode::NoError | Rcode::NxDomain) && question.is_some();
    if reply.overflow || reply.unsigned {
        reply.out.truncate(question_end);
        reply.counts = [0; 3];
    }
    let (truncated, scope, routed_for) = (reply.overflow && !reply.unsigned, reply.scope, reply.routed_for);
    if let Some(edns) = query.edns {
        reply.counts[Section::Additional as usize] += 1;
        options.write(reply.out, edns, rcode, scope);
    }
    let third = RESPONSE
        | (query.head[2] & REPEATED[0])
        | if authoritative { AUTHORITATIVE } else { 0 }
        | if truncated { TRUNCATED } else { 0 };
    let fourth = (query.head[3] & REPEATED[1]) | (rcode.number() & 0xF) as u8;
    let [answers, authorities, additionals] = reply.counts;
    let counts = [u16::from(question.is_some()), answers, authorities, additionals];
    out[..4].copy_from_slice(&[query.head[0], query.head[1], third, fourth]);
    for (at, count) in counts.into_iter().enumerate() {
        out[4 + 2 * at..6 + 2 * at].copy_from_slice(&count.to_be_bytes());
    }
    Some(Outcome { rcode, truncated, known_client, question_end, routed_for })
}

/// Takes everything but the question out of an answer and marks it as truncated, so that the client comes again over
/// TCP, where its address cannot be forged.
pub fn shorten(packet: &mut Vec<u8>, outcome: &Outcome) {
    packet.truncate(outcome.question_end);
    packet[2] |= TRUNCATED;
    packet[6..HEADER].fill(0);
}

/// An answer in the making.
struct Reply<'o> {
    out: &'o mut Vec<u8>,
    /// How long it may get before the OPT record.
    room: usize,
    /// Records by section.
    counts: [u16; 3],
    /// Whether the client understands signatures (RFC 3225).
    dnssec: bool,
    /// Set when something that belongs into it did not fit.
    overflow: bool,
    /// Set when a signature could not be made: an answer without it would be taken for a forgery.
    unsigned: bool,
    /// The prefix that the answer holds for, if the client's subnet mattered.
    scope: u8,
    /// Where the client was taken to be, if that was looked at.
    routed_for: Option<Option<Country>>,
}

/// A section of the answer.
#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// Whose records they are.
#[derive(Clone, Copy)]
enum Owner<'n> {
    /// The question's.
    Question,
    /// A name that ends the question's, at this place of the packet.
    Within(usize),
    /// Another.
    Name(&'n [u8]),
}

impl Reply<'_> {
    /// Adds records whole, or says that there is no room.
    fn push(&mut self, set: &RecordSet, owner: Owner<'_>) -> bool {
        let start = self.out.len();
        match owner {
            Owner::Question => self.out.extend_from_slice(&set.bytes),
            Owner::Within(at) => {
                for record in set.bare() {
                    self.out.extend_from_slice(&(0xC000 | at as u16).to_be_bytes());
                    self.out.extend_from_slice(record);
                }
            }
            Owner::Name(name) => {
                for record in set.bare() {
                    self.out.extend_from_slice(name);
                    self.out.extend_from_slice(record);
                }
            }
        }
        let fits = self.out.len() <= self.room;
        if !fits {
            self.out.truncate(start);
        }
        fits
    }

    fn add(&mut self, section: Section, set: &RecordSet, owner: Owner<'_>) -> bool {
        let fits = self.push(set, owner);
        if fits {
            self.counts[section as usize] += set.count;
        }
        fits
    }

    /// Adds the records of a name, in lower case, and their signatures for those who want them. Says whether all fit.
    fn try_records(
        &mut self,
        section: Section,
        zone: &ZoneTable,
        name: &[u8],
        set: &RecordSet,
        owner: Owner<'_>,
    ) -> bool {
        if !self.add(section, set, owner) {
            return false;
        }
        let Some(signed) = zone.signed.as_ref().filter(|_| self.dnssec) else { return true };
        match signed.signatures(name, set) {
            Some(signatures) => self.add(section, signatures, owner),
            None => {
                self.unsigned = true;
                true
            }
        }
    }

    fn records(&mut self, section: Section, zone: &ZoneTable, name: &[u8], set: &RecordSet, owner: Owner<'_>) {
        if !self.try_records(section, zone, name, set, owner) {
            self.overflow = true;
        }
    }

    /// The SOA record of a negative answer.
    fn negative(&mut self, (apex, zone): (&[u8], &ZoneTable), owner: Owner<'_>) {
        self.records(Section::Authority, zone, apex, &zone.negative, owner);
    }

    /// Says that a name has no records of a type. `given` is the client's answer where the name is routed.
    fn no_type(&mut self, zone: (&[u8], &ZoneTable), name: &[u8], given: Option<&Addresses>, soa: Owner<'_>) {
        self.negative(zone, soa);
        if let Some(signed) = zone.1.signed.as_ref().filter(|_| self.dnssec)
            && let Some((owner, set)) = signed.no_type(name, given)
        {
            self.records(Section::Authority, zone.1, owner, set, Owner::Name(owner));
        }
    }

    /// Says that there is no such name.
    fn no_name(&mut self, zone: (&[u8], &ZoneTable), name: &[u8], soa: Owner<'_>) {
        self.negative(zone, soa);
        let Some(signed) = zone.1.signed.as_ref().filter(|_| self.dnssec) else { return };
        let mut above = std::iter::successors(parent(name), |at| parent(at));
        let encloser = above.find(|at| zone.1.names.contains_key(*at)).unwrap_or(zone.0);
        for (owner, set) in signed.no_name(name, encloser) {
            self.records(Section::Authority, zone.1, owner, set, Owner::Name(owner));
        }
    }

    /// Addresses of servers: useful, and left out where there is no room.
    fn glue(&mut self, zone: &ZoneTable) {
        for name in &zone.glue {
            let Some(entry) = zone.names.get(name) else { continue };
            for kind in [rtype::A, rtype::AAAA] {
                let Some(set) = entry.set(kind) else { continue };
                let (length, counts) = (self.out.len(), self.counts);
                if !self.try_records(Section::Additional, zone, name, set, Owner::Name(name)) {
                    self.out.truncate(length);
                    self.counts = counts;
                }
            }
        }
    }
}

fn resolve(
    reply: &mut Reply<'_>,
    table: &Table,
    server: &Server<'_>,
    packet: &[u8],
    query: &Query,
    question: Question,
    client: Client,
) -> Rcode {
    match question.rtype {
        rtype::OPT => return Rcode::FormErr,
        rtype::TKEY | rtype::TSIG | rtype::MAILA | rtype::MAILB => return Rcode::NotImp,
        rtype::AXFR | rtype::IXFR => return Rcode::Refused,
        _ => {}
    }
    if question.class != CLASS_IN {
        return Rcode::Refused;
    }
    if !table.is_ready() {
        return Rcode::ServFail;
    }
    let mut buffer = [0; LONGEST_NAME];
    let asked = lower(&packet[HEADER..HEADER + question.name], &mut buffer);
    let (mut name, mut owner) = (asked, Owner::Question);
    for _ in 0..=LONGEST_CHAIN {
        let Some((apex, zone)) = table.zone_for(name, question.rtype) else {
            // An alias that leads out of our zones is a whole answer; the resolver goes on from there.
            return if reply.counts[Section::Answer as usize] > 0 { Rcode::NoError } else { Rcode::Refused };
        };
        let soa = match owner {
            Owner::Question => Owner::Within(HEADER + name.len() - apex.len()),
            _ => Owner::Name(apex),
        };
        let Some(entry) = zone.names.get(name) else {
            reply.no_name((apex, zone), name, soa);
            return Rcode::NxDomain;
        };
        let chained = zone.signed.as_ref().and_then(|signed| Some((signed, signed.link(name)?)));
        match (question.rtype, chained) {
            // One set of those that are there is enough (RFC 8482, section 4.1), and this one is signed anyway.
            (rtype::ANY, Some((_, (_, link)))) if reply.dnssec => {
                reply.records(Section::Answer, zone, name, link, owner);
                return Rcode::NoError;
            }
            (rtype::ANY, _) => {
                reply.overflow |= !reply.add(Section::Answer, &zone.minimal, owner);
                return Rcode::NoError;
            }
            (rtype::NSEC, Some((_, (_, link)))) => {
                reply.records(Section::Answer, zone, name, link, owner);
                return Rcode::NoError;
            }
            (rtype::RRSIG, Some((signed, (_, link)))) => {
                match signed.signatures(name, link) {
                    Some(signatures) => reply.overflow |= !reply.add(Section::Answer, signatures, owner),
                    None => reply.unsigned = true,
                }
                return Rcode::NoError;
            }
            _ => {}
        }
        if let Some((alias, target)) = &entry.alias {
            reply.records(Section::Answer, zone, name, alias, owner);
            if question.rtype == rtype::CNAME {
                return Rcode::NoError;
            }
            (name, owner) = (target, Owner::Name(target));
            continue;
        }
        let steered = match (&entry.steering, question.rtype) {
            (Some(steering), rtype::A | rtype::AAAA) => Some(steer(reply, server, query, client, steering)),
            _ => None,
        };
        let set = match (steered, question.rtype) {
            (Some(given), rtype::A) => Some(&given.v4),
            (Some(given), _) => Some(&given.v6),
            (None, rtype) => entry.set(rtype),
        };
        match set.filter(|set| set.count > 0) {
            Some(set) => {
                reply.records(Section::Answer, zone, name, set, owner);
                if question.rtype == rtype::NS && name == apex {
                    reply.glue(zone);
                }
            }
            None => reply.no_type((apex, zone), name, steered, soa),
        }
        return Rcode::NoError;
    }
    // Longer chains lead through several zones and perhaps in a circle: what was found so far is true.
    Rcode::NoError
}

/// Finds the answer for where the client is, and how far around it that holds.
fn steer<'t>(
    reply: &mut Reply<'_>,
    server: &Server<'_>,
    query: &Query,
    client: Client,
    steering: &'t Steering,
) -> &'t Addresses {
    // Who sends a prefix of no bits wants nothing to follow from where its clients are (RFC 7871, section 7.1.2).
    let subnet = query.edns.and_then(|edns| edns.subnet).filter(|subnet| subnet.source > 0);
    let (address, known) = subnet.map_or((client.address, u8::MAX), |Subnet { address, source, .. }| (address, source));
    let matched = server.countries.matched(address);
    let (answer, bits) = steering.answer(matched.country, ClientNet::of(address, known));
    if subnet.is_some() {
        // The answer holds for the longer of the two prefixes that it followed from.
        reply.scope = bits.max(if steering.tells_apart() { matched.prefix } else { 0 });
    }
    reply.routed_for = Some(matched.country);
    answer
}

/// Writes the OPT record.
struct Options<'a> {
    server: &'a Server<'a>,
    client: Client,
    now: UnixMillis,
    edns: Option<Edns>,
}

impl Options<'_> {
    /// The most bytes that the OPT record takes.
    fn length(&self) -> usize {
        let Some(edns) = self.edns else { return 0 };
        let cookie = edns.cookie.map_or(0, |_| 4 + 8 + 16);
        let subnet = edns.subnet.map_or(0, |subnet| 4 + 4 + usize::from(subnet.source).div_ceil(8));
        let nsid = if edns.nsid { 4 + self.server.nsid.len() } else { 0 };
        11 + cookie + subnet + nsid
    }

    fn write(&self, out: &mut Vec<u8>, edns: Edns, rcode: Rcode, scope: u8) {
        out.push(0);
        out.extend_from_slice(&rtype::OPT.to_be_bytes());
        out.extend_from_slice(&UDP_PAYLOAD.to_be_bytes());
        out.extend_from_slice(&[(rcode.number() >> 4) as u8, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
        let length_at = out.len();
        out.extend_from_slice(&[0, 0]);
        let mut put = |code: u16, parts: &[&[u8]]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&(length as u16).to_be_bytes());
            parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        if let Some(cookie) = edns.cookie {
            let half = self.server.cookies.server_half(cookie.client, self.client.address, self.now);
            put(option::COOKIE, &[&cookie.client, &half]);
        }
        if let Some(subnet) = edns.subnet
            && matches!(rcode, Rcode::NoError | Rcode::NxDomain)
        {
            let [high, low] = subnet.family.to_be_bytes();
            let bytes = match subnet.address {
                IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
                IpAddr::V6(address) => address.to_bits(),
            };
            let sent = &bytes.to_be_bytes()[..usize::from(subnet.source).div_ceil(8)];
            put(option::CLIENT_SUBNET, &[&[high, low, subnet.source, scope], sent]);
        }
        if edns.nsid {
            put(option::NSID, &[self.server.nsid]);
        }
        let length = (out.len() - length_at - 2) as u16;
        out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }
}
