//! Reads a query off the wire.
//!
//! Written out rather than taken from a library: an authoritative server reads
//! one question and one OPT record, and has to tell a query that it must refuse
//! (RFC 6891, 7871 and 7873 say FORMERR for many a detail) from one that it
//! may answer. Nothing here allocates, follows a compression pointer, or reads
//! beyond the packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a header.
pub(super) const HEADER: usize = 12;
/// The longest name on the wire (RFC 1035, section 2.3.4).
pub(super) const LONGEST_NAME: usize = 255;

/// Record types that are treated in a way of their own; numbers of the IANA registry.
pub(super) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const RRSIG: u16 = 46;
    pub(crate) const NSEC: u16 = 47;
    pub(crate) const DNSKEY: u16 = 48;
    pub(crate) const CDS: u16 = 59;
    pub(crate) const CDNSKEY: u16 = 60;
    pub(crate) const TKEY: u16 = 249;
    pub(crate) const TSIG: u16 = 250;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const MAILB: u16 = 253;
    pub(crate) const MAILA: u16 = 254;
    pub(crate) const ANY: u16 = 255;
    pub(crate) const CAA: u16 = 257;
}

/// The class of the internet, the only one served.
pub(super) const CLASS_IN: u16 = 1;

/// Codes of EDNS options.
pub(super) mod option {
    pub(crate) const NSID: u16 = 3;
    pub(crate) const CLIENT_SUBNET: u16 = 8;
    pub(crate) const COOKIE: u16 = 10;
}

/// What came of a query: the response code, with the extended ones of EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rcode {
    /// Answered, or there is no record of that type.
    NoError,
    /// The query is not well formed.
    FormErr,
    /// No plan is in force yet.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// An operation that is not offered.
    NotImp,
    /// A name or class that is not served here.
    Refused,
    /// A version of EDNS that is not known.
    BadVers,
}

impl Rcode {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::NoError, Self::FormErr, Self::ServFail, Self::NxDomain, Self::NotImp, Self::Refused, Self::BadVers];

    /// The number on the wire: 4 bits in the header and, above them, 8 in the OPT record.
    pub const fn number(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }

    /// The name in metrics, as `dig` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::BadVers => "BADVERS",
        }
    }
}

/// The question: where it stands and what it asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// One past its last byte.
    pub(super) end: usize,
    /// Bytes of its name, which begins behind the header.
    pub(super) name: usize,
    pub(super) rtype: u16,
    pub(super) class: u16,
}

/// The client subnet of RFC 7871 as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    /// 0 where a client with nothing to say sent none.
    pub(super) family: u16,
    pub(super) source: u8,
    pub(super) address: IpAddr,
}

/// A cookie of RFC 7873: the client's half, and the server's where there is one of our length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookie {
    pub(super) client: [u8; 8],
    pub(super) server: Option<[u8; 16]>,
}

/// The OPT record of a query.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edns {
    pub(super) payload: u16,
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
    pub(super) subnet: Option<Subnet>,
    pub(super) cookie: Option<Cookie>,
    pub(super) nsid: bool,
}

/// A query, read as far as it can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    /// Id, opcode and flags as they were sent.
    pub(super) head: [u8; 4],
    pub(super) question: Option<Question>,
    pub(super) edns: Option<Edns>,
    /// Set where it must be refused without a look at the question.
    pub(super) fault: Option<Rcode>,
}

/// Walks through a packet.
struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.packet.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// The length of an uncompressed name. There is nothing before the question that it could point to.
    fn plain_name(&mut self) -> Option<usize> {
        let start = self.at;
        loop {
            let length = usize::from(self.take(1)?[0]);
            if length > 63 {
                return None;
            }
            self.take(length)?;
            if self.at - start > LONGEST_NAME {
                return None;
            }
            if length == 0 {
                return Some(self.at - start);
            }
        }
    }

    /// Steps over the name of a record; says whether it is the root.
    fn skip_name(&mut self) -> Option<bool> {
        let start = self.at;
        loop {
            let length = self.take(1)?[0];
            match length {
                0 => return Some(self.at - start == 1),
                1..=63 => drop(self.take(usize::from(length))?),
                0xC0..=0xFF => {
                    self.take(1)?;
                    return Some(false);
                }
                _ => return None,
            }
            if self.at - start > LONGEST_NAME {
                return None;
            }
        }
    }
}

/// Reads a packet. Nothing comes back for what must not be answered at all: less than a header, and responses,
/// which two servers would otherwise send each other for ever.
pub(super) fn read(packet: &[u8]) -> Option<Query> {
    let header: &[u8; HEADER] = packet.first_chunk()?;
    if header[2] & 0x80 != 0 {
        return None;
    }
    let mut query =
        Query { head: [header[0], header[1], header[2], header[3]], question: None, edns: None, fault: None };
    if (header[2] >> 3) & 0xF != 0 {
        // What follows the header of another operation need not be a question.
        query.fault = Some(Rcode::NotImp);
        return Some(query);
    }
    let mut reader = Reader { packet, at: HEADER };
    if read_sections(&mut query, &mut reader, header).is_none() {
        query.fault = Some(Rcode::FormErr);
    } else if query.edns.is_some_and(|edns| edns.version > 0) {
        query.fault = Some(Rcode::BadVers);
    }
    Some(query)
}

/// Reads what follows the header; none where it is not well formed.
fn read_sections(query: &mut Query, reader: &mut Reader<'_>, header: &[u8; HEADER]) -> Option<()> {
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (questions, answers, authorities, additionals) = (count(4), count(6), count(8), count(10));
    if questions > 1 || answers > 0 || authorities > 0 {
        return None;
    }
    if questions == 1 {
        let name = reader.plain_name()?;
        let (rtype, class) = (reader.u16()?, reader.u16()?);
        query.question = Some(Question { end: reader.at, name, rtype, class });
    }
    let mut malformed = false;
    for _ in 0..additionals {
        let root = reader.skip_name()?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        let ttl = reader.take(4)?;
        let length = usize::from(reader.u16()?);
        let data = reader.take(length)?;
        if kind != rtype::OPT {
            continue;
        }
        if !root || query.edns.is_some() {
            return None;
        }
        let mut edns = Edns { payload: class, version: ttl[1], dnssec_ok: ttl[2] & 0x80 != 0, ..Edns::default() };
        // Options of a later version may look different.
        malformed = ttl[1] == 0 && read_options(&mut edns, data).is_none();
        query.edns = Some(edns);
    }
    let whole = reader.at == reader.packet.len();
    // RFC 7873, section 5.4: without a question one may still ask for a cookie.
    let asks = query.question.is_some() || query.edns.is_some_and(|edns| edns.version > 0 || edns.cookie.is_some());
    (whole && asks && !malformed).then_some(())
}

fn read_options(edns: &mut Edns, data: &[u8]) -> Option<()> {
    let mut reader = Reader { packet: data, at: 0 };
    while reader.at < data.len() {
        let (code, length) = (reader.u16()?, reader.u16()?);
        let value = reader.take(usize::from(length))?;
        match code {
            option::NSID => edns.nsid = true,
            // RFC 7871 and 7873 know one of each; of two, the first counts.
            option::CLIENT_SUBNET if edns.subnet.is_none() => edns.subnet = Some(read_subnet(value)?),
            option::COOKIE if edns.cookie.is_none() => edns.cookie = Some(read_cookie(value)?),
            _ => {}
        }
    }
    Some(())
}

/// RFC 7871, section 6: as many bytes as the prefix needs, no bit set beyond it, and no scope in a query.
fn read_subnet(value: &[u8]) -> Option<Subnet> {
    let (&[family_high, family_low, source, scope], address) = value.split_first_chunk::<4>()?;
    let family = u16::from_be_bytes([family_high, family_low]);
    let longest = match family {
        0 => 0,
        1 => 32,
        2 => 128,
        _ => return None,
    };
    if scope != 0 || source > longest || address.len() != usize::from(source).div_ceil(8) {
        return None;
    }
    let mut bytes = [0; 16];
    bytes[..address.len()].copy_from_slice(address);
    let bits = u128::from_be_bytes(bytes);
    if bits.checked_shl(u32::from(source)).unwrap_or(0) != 0 {
        return None;
    }
    let address = match family {
        2 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        _ => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
    };
    Some(Subnet { family, source, address })
}

/// RFC 7873, section 4: 8 bytes, or 16 to 40.
fn read_cookie(value: &[u8]) -> Option<Cookie> {
    let (client, server) = value.split_first_chunk::<8>()?;
    if !matches!(server.len(), 0 | 8..=32) {
        return None;
    }
    Some(Cookie { client: *client, server: server.try_into().ok() })
}

/// A name in the form in which it is looked up: lower case, in a buffer of the caller's.
pub(super) fn lower<'b>(name: &[u8], buffer: &'b mut [u8; LONGEST_NAME]) -> &'b [u8] {
    let lower = &mut buffer[..name.len()];
    lower.copy_from_slice(name);
    // Lengths of labels are at most 63 and `A` is 65, so only letters change.
    lower.make_ascii_lowercase();
    lower
}

/// A checked name on the wire.
pub(super) fn encode_name(text: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// The name without its first label; none for the root.
pub(super) fn parent(name: &[u8]) -> Option<&[u8]> {
    match name.first() {
        None | Some(0) => None,
        Some(&length) => name.get(usize::from(length) + 1..),
    }
}

/// How many labels a name has, without the root.
pub(super) fn labels(name: &[u8]) -> u8 {
    std::iter::successors(Some(name), |at| parent(at))
        .take_while(|at| at.first().is_some_and(|&length| length > 0))
        .count() as u8
}
