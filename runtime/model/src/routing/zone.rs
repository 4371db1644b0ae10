//! What is answered over DNS: the zones that policies declare, and how the
//! names in them that are routed by region are to be answered.
//!
//! Start with [`Zone`]; [`Zone::check`] says what no zone may have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::ClientClass;
use crate::names::{DnsName, RegionId};

/// The most names that are routed by region, over all zones: each is asked about once for each ranking.
pub const MOST_ROUTED_NAMES: usize = 500;
/// The most records of its own that a zone may have.
pub const MOST_RECORDS: usize = 1000;
/// The longest time that a record may be kept, in seconds: a week.
pub const LONGEST_RECORD_TTL: u32 = 604_800;
/// The longest time that an answer routed by region may be kept, in seconds: a day.
pub const LONGEST_ANSWER_TTL: u32 = 86_400;
/// The longest text of a TXT or CAA record, in bytes; larger ones are refused by resolvers over UDP anyway.
pub const LONGEST_TEXT: usize = 1024;
/// CNAME records that one answer follows; longer chains are refused when they are declared.
pub const LONGEST_CHAIN: usize = 8;

/// The times of a SOA record (RFC 1035, section 3.3.13), in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoaTimes {
    /// How often secondaries look for a new serial.
    pub refresh: u32,
    /// How soon they look again when they could not.
    pub retry: u32,
    /// When they stop to answer.
    pub expire: u32,
    /// How long resolvers remember that a name or type is not there (RFC 2308).
    pub negative: u32,
}

impl Default for SoaTimes {
    /// RIPE-203's recommendation, except that absence is forgotten after a minute so that a new name is seen soon.
    fn default() -> Self {
        Self { refresh: 86_400, retry: 7200, expire: 3_600_000, negative: 60 }
    }
}

/// A server that the zone is delegated to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameServer {
    /// Its name.
    pub name: DnsName,
    /// The region whose addresses it has. Without one, a name inside the zone that has no addresses of its own
    /// stands for every region, because each of them answers.
    pub region: Option<RegionId>,
}

/// What a record of a fixed content says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordData {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Text, at most [`LONGEST_TEXT`] bytes.
    Txt(String),
    /// Who may issue certificates (RFC 8659).
    Caa {
        /// Whether an issuer that does not know the tag must refuse.
        critical: bool,
        /// `issue`, `issuewild`, `iodef`.
        tag: String,
        /// The issuer or address.
        value: String,
    },
    /// Another name for the same thing.
    Cname(DnsName),
}

/// A record of a fixed content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRecord {
    /// The whole name that it belongs to.
    pub name: DnsName,
    /// What it says.
    pub data: RecordData,
}

/// A zone as declared, every default filled in. All names are whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its highest name, such as `repomind.io`.
    pub apex: DnsName,
    /// Where to write to, with the `@` as a dot (RFC 1035, section 3.3.13).
    pub contact: DnsName,
    /// The SOA times.
    pub times: SoaTimes,
    /// How long NS, SOA and fixed records may be kept, in seconds.
    pub ttl: u32,
    /// The servers, at least one; the first is the SOA's primary.
    pub ns: Vec<NameServer>,
    /// The names that are routed by region.
    pub routed: BTreeSet<DnsName>,
    /// Everything else.
    pub records: Vec<StaticRecord>,
}

/// Why a zone cannot be. The message names the culprit in backticks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ZoneFault {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

fn fault<T>(message: String, help: &'static str) -> Result<T, ZoneFault> {
    Err(ZoneFault { message, help })
}

impl Zone {
    /// Whether a name lies in the zone.
    pub fn holds(&self, name: &DnsName) -> bool {
        let rest = name.as_str().strip_suffix(self.apex.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Checks what no zone may have: names that are none, records outside, names that are two things at once,
    /// circles of CNAME records, and what is beyond the bounds of this module.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), ZoneFault> {
        if self.ns.is_empty() {
            return fault(format!("the zone `{}` names no server", self.apex), "add (ns . (\"ns1\"))");
        }
        if self.records.len() > MOST_RECORDS {
            let message = format!("the zone `{}` has {} records of its own", self.apex, self.records.len());
            return fault(message, "a zone has at most 1000; serve the rest elsewhere");
        }
        for seconds in [self.ttl, self.times.refresh, self.times.retry, self.times.negative] {
            if seconds == 0 || seconds > LONGEST_RECORD_TTL {
                return fault(format!("{seconds} seconds is no time to keep a record for"), "use 1 to 604800 seconds");
            }
        }
        let servers = self.ns.iter().map(|server| &server.name);
        for name in [&self.apex, &self.contact].into_iter().chain(servers) {
            check_name(name)?;
        }
        for name in self.routed.iter().chain(self.records.iter().map(|record| &record.name)) {
            check_name(name)?;
            if !self.holds(name) {
                return fault(format!("`{name}` does not lie in the zone {}", self.apex), "declare it in its own zone");
            }
        }
        self.check_records()?;
        self.check_chains()
    }

    fn check_records(&self) -> Result<(), ZoneFault> {
        let mut seen: BTreeSet<(&DnsName, &RecordData)> = BTreeSet::new();
        for record in &self.records {
            let name = &record.name;
            if !seen.insert((name, &record.data)) {
                return fault(format!("`{name}` has the same record twice"), "keep one of the two");
            }
            match &record.data {
                RecordData::A(_) | RecordData::Aaaa(_) if self.routed.contains(name) => {
                    let message = format!("`{name}` is routed by region and has an address of its own");
                    return fault(message, "take it out of `names`, or take the address away");
                }
                RecordData::Txt(text) if text.len() > LONGEST_TEXT => {
                    let message = format!("the text of `{name}` has {} bytes", text.len());
                    return fault(message, "shorten it to 1024 bytes");
                }
                RecordData::Caa { tag, value, .. } => check_caa(name, tag, value)?,
                RecordData::Cname(target) => {
                    check_name(target)?;
                    let others = self.records.iter().filter(|other| other.name == *name).count() > 1;
                    let server = self.ns.iter().any(|server| server.name == *name);
                    if others || server || *name == self.apex || self.routed.contains(name) {
                        let message = format!("`{name}` is an alias and something else too");
                        return fault(
                            message,
                            "a name with a CNAME record can have no other (RFC 1034, section 3.6.2)",
                        );
                    }
                }
                RecordData::A(_) | RecordData::Aaaa(_) | RecordData::Txt(_) => {}
            }
        }
        Ok(())
    }

    fn check_chains(&self) -> Result<(), ZoneFault> {
        let aliases: BTreeMap<&DnsName, &DnsName> = self
            .records
            .iter()
            .filter_map(|record| match &record.data {
                RecordData::Cname(target) => Some((&record.name, target)),
                _ => None,
            })
            .collect();
        for start in aliases.keys() {
            let (mut at, mut steps) = (*start, 0);
            while let Some(next) = aliases.get(at) {
                (at, steps) = (*next, steps + 1);
                if steps > LONGEST_CHAIN {
                    let message = format!("the alias `{start}` leads on to more than {LONGEST_CHAIN} others");
                    return fault(message, "point it at the name that has the addresses");
                }
            }
        }
        Ok(())
    }
}

/// Whether the labels of a name fit into a packet (RFC 1035, section 2.3.4). Wildcards are not offered.
///
/// # Errors
/// The fault.
pub fn check_name(name: &DnsName) -> Result<(), ZoneFault> {
    let text = name.as_str();
    if text.contains('*') {
        return fault(format!("`{text}` is a wildcard"), "wildcards are not offered; declare each name");
    }
    match text.split('.').find(|label| label.is_empty() || label.len() > 63) {
        Some("") => fault(format!("`{text}` has an empty label"), "write it without a dot at either end"),
        Some(_) => fault(format!("`{text}` has a label of more than 63 letters"), "shorten it"),
        None => Ok(()),
    }
}

fn check_caa(name: &DnsName, tag: &str, value: &str) -> Result<(), ZoneFault> {
    let sound = (1..=15).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !sound || value.len() > LONGEST_TEXT {
        let message = format!("the CAA record of `{name}` has no usable tag and value");
        return fault(message, "write it as (\"@\" \"issue\" \"ca.example.net\")");
    }
    Ok(())
}

/// A region's part of a name's clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Share {
    /// The region.
    pub region: RegionId,
    /// Beside the weights of the others; with 0, it has no clients of its own.
    pub weight: u16,
}

/// How many regions an answer names, and for how long, in seconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AnswerShape {
    /// How many regions, at least 1.
    pub count: u16,
    /// While one of them is not well, at least 1.
    pub ttl_min: u32,
    /// While all are, at least `ttl_min` and at most [`LONGEST_ANSWER_TTL`].
    pub ttl_max: u32,
    /// Which regions share the clients, and how; a client has the region of its share first and the others by their
    /// rank. Empty where all clients have the first of the ranking.
    pub shares: Vec<Share>,
}

impl AnswerShape {
    /// A shape without shares.
    pub const fn new(count: u16, ttl_min: u32, ttl_max: u32) -> Self {
        Self { count, ttl_min, ttl_max, shares: Vec::new() }
    }

    /// Whether it keeps the bounds of its fields: no region has two shares, and one of the shares has a weight.
    pub fn is_sound(&self) -> bool {
        let regions: BTreeSet<&RegionId> = self.shares.iter().map(|share| &share.region).collect();
        let shared = self.shares.is_empty() || self.shares.iter().any(|share| share.weight > 0);
        let bounded =
            self.count > 0 && self.ttl_min > 0 && self.ttl_min <= self.ttl_max && self.ttl_max <= LONGEST_ANSWER_TTL;
        bounded && shared && regions.len() == self.shares.len()
    }
}

/// The shapes of one name's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameShapes {
    /// For clients of no known country, and every class that has none of its own.
    pub default: AnswerShape,
    /// Where it differs.
    pub by_class: BTreeMap<ClientClass, AnswerShape>,
}

impl NameShapes {
    /// The shape for a class.
    pub fn shape(&self, class: ClientClass) -> &AnswerShape {
        self.by_class.get(&class).unwrap_or(&self.default)
    }
}

/// What is answered over DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPlan {
    /// The zones by apex.
    pub zones: BTreeMap<DnsName, Zone>,
    /// The shapes by name: one for each name that a zone routes.
    pub shapes: BTreeMap<DnsName, NameShapes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsName {
        DnsName::new(text).unwrap()
    }

    fn zone(records: Vec<(&str, RecordData)>) -> Zone {
        Zone {
            apex: name("repomind.io"),
            contact: name("hostmaster.repomind.io"),
            times: SoaTimes::default(),
            ttl: 3600,
            ns: vec![NameServer { name: name("ns1.repomind.io"), region: None }],
            routed: BTreeSet::from([name("api.repomind.io")]),
            records: records.into_iter().map(|(at, data)| StaticRecord { name: name(at), data }).collect(),
        }
    }

    #[test]
    fn what_would_break_resolvers_is_never_taken_for_a_zone() {
        let address = || RecordData::A(Ipv4Addr::LOCALHOST);
        let alias = |to: &str| RecordData::Cname(name(to));
        let issue = |tag: &str| RecordData::Caa { critical: false, tag: tag.into(), value: "ca.example".into() };
        for (records, says) in [
            (vec![("api.repomind.io", address())], "routed by region and has an address"),
            (vec![("api.repomind.io", alias("x.example"))], "an alias and something else"),
            (vec![("repomind.io", alias("x.example"))], "an alias and something else"),
            (vec![("ns1.repomind.io", alias("x.example"))], "an alias and something else"),
            (vec![("a.repomind.io", alias("x.example")), ("a.repomind.io", address())], "an alias and something else"),
            (vec![("a.repomind.io", alias("b.repomind.io")), ("b.repomind.io", alias("a.repomind.io"))], "leads on"),
            (vec![("notrepomind.io", address())], "does not lie in the zone"),
            (vec![("a..repomind.io", address())], "empty label"),
            (vec![("*.repomind.io", address())], "wildcard"),
            (vec![("a.repomind.io", address()), ("a.repomind.io", address())], "twice"),
            (vec![("a.repomind.io", RecordData::Txt("x".repeat(2000)))], "2000 bytes"),
            (vec![("repomind.io", issue("is sue"))], "no usable tag"),
        ] {
            let refused = zone(records).check().unwrap_err();
            assert!(refused.message.contains(says), "{refused}");
        }
        let good = vec![("docs.repomind.io", alias("api.repomind.io")), ("repomind.io", issue("issue"))];
        assert_eq!(zone(good).check(), Ok(()));
        assert!(Zone { ns: Vec::new(), ..zone(Vec::new()) }.check().is_err());
        assert!(Zone { ttl: 0, ..zone(Vec::new()) }.check().is_err());
    }
}
