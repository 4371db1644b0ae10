//! `define-zone`: what a policy file declares for DNS.
//!
//! Owners of records are names inside the zone, whole (`api.repomind.io`) or
//! without the zone (`api`, and `@` for the zone itself). What a record points
//! at may lie anywhere: with a dot in it, it is whole; without one, it is
//! inside the zone.

use std::collections::{BTreeMap, BTreeSet};

use model::RegionId;
use model::names::DnsName;
use model::routing::{
    LONGEST_RECORD_TTL, MOST_ROUTED_NAMES, NameServer, RecordData, SoaTimes, StaticRecord, Zone, ZoneFault,
};
use steel::rvals::SteelVal;

use super::declare::{Ledger, Misfit, known_regions};
use super::values::{Alist, Scheme, count, fault, items, name, region_id, shown};

const KEYS: &[&str] = &["names", "ns", "soa", "ttl", "a", "aaaa", "txt", "caa", "cname"];
const SOA_KEYS: &[&str] = &["contact", "refresh", "retry", "expire", "negative-ttl"];
/// The most zones of one tree.
const MOST_ZONES: usize = 100;
/// How long NS, SOA and fixed records may be kept unless the zone says otherwise: an hour.
const RECORD_TTL: u32 = 3600;

/// `(define-zone "repomind.io" '((names …) (ns …) …))`.
pub fn define(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    let apex = dns_name(name(&given[0])?)?;
    let zone = read(apex.clone(), &given[1])?;
    zone.check().map_err(|ZoneFault { message, help }| fault(format!("{message}; {help}")))?;
    if ledger.zones.contains_key(&apex) || ledger.zones.len() == MOST_ZONES {
        return Err(fault(format!("the zone `{apex}` is already defined; remove one of the two")));
    }
    let routed: usize = ledger.zones.values().map(|(_, zone)| zone.routed.len()).sum::<usize>() + zone.routed.len();
    if routed > MOST_ROUTED_NAMES {
        return Err(fault(format!("{routed} names are routed by region; at most {MOST_ROUTED_NAMES} can be")));
    }
    ledger.zones.insert(apex, (ledger.file.clone(), zone));
    Ok(())
}

fn read(apex: DnsName, value: &SteelVal) -> Scheme<Zone> {
    let keys = Alist::read(value, KEYS)?;
    let owner = |value: &SteelVal| inside(&apex, name(value)?);
    let soa = keys.entries("soa", |value| Ok(value.clone()))?.map(super::values::list);
    let soa = soa.map(|entries| Alist::read(&entries, SOA_KEYS)).transpose()?;
    let soa_time = |key: &str| match &soa {
        Some(soa) => soa.one(key, seconds),
        None => Ok(None),
    };
    let contact = match &soa {
        Some(soa) => soa.one("contact", |value| dns_name(&name(value)?.replacen('@', ".", 1)))?,
        None => None,
    };
    let usual = SoaTimes::default();
    let times = SoaTimes {
        refresh: soa_time("refresh")?.unwrap_or(usual.refresh),
        retry: soa_time("retry")?.unwrap_or(usual.retry),
        expire: soa_time("expire")?.unwrap_or(usual.expire),
        negative: soa_time("negative-ttl")?.unwrap_or(usual.negative),
    };
    let names = keys.many("names", owner)?.unwrap_or_default();
    let routed: BTreeSet<DnsName> = names.iter().cloned().collect();
    if routed.len() != names.len() {
        return Err(fault("`names`: a name stands twice"));
    }
    Ok(Zone {
        contact: match contact {
            Some(contact) => contact,
            None => inside(&apex, "hostmaster")?,
        },
        times,
        ttl: keys.one("ttl", seconds)?.unwrap_or(RECORD_TTL),
        ns: keys.entries("ns", |value| server(&apex, value))?.unwrap_or_default(),
        routed,
        records: records(&apex, &keys)?,
        apex,
    })
}

fn records(apex: &DnsName, keys: &Alist) -> Scheme<Vec<StaticRecord>> {
    let mut all = Vec::new();
    for kind in ["a", "aaaa", "txt", "caa", "cname"] {
        let read = |entry: &SteelVal| {
            let parts = parts(entry)?;
            let (owner, rest) = parts.split_first().ok_or_else(|| fault("an empty record"))?;
            let data = rest.iter().map(name).collect::<Scheme<Vec<&str>>>()?;
            Ok(StaticRecord { name: inside(apex, name(owner)?)?, data: data_of(apex, kind, &data)? })
        };
        all.extend(keys.entries(kind, read)?.unwrap_or_default());
    }
    Ok(all)
}

fn data_of(apex: &DnsName, kind: &str, data: &[&str]) -> Scheme<RecordData> {
    let unusual = || fault(format!("{data:?} is no content of such a record"));
    Ok(match (kind, data) {
        ("a", [address]) => RecordData::A(address.parse().map_err(|_| unusual())?),
        ("aaaa", [address]) => RecordData::Aaaa(address.parse().map_err(|_| unusual())?),
        ("txt", [text]) => RecordData::Txt((*text).to_owned()),
        ("caa", [tag, value]) => RecordData::Caa { critical: false, tag: (*tag).into(), value: (*value).into() },
        ("caa", [tag, value, "critical"]) => {
            RecordData::Caa { critical: true, tag: (*tag).into(), value: (*value).into() }
        }
        ("cname", [target]) => RecordData::Cname(anywhere(apex, target)?),
        _ => return Err(unusual()),
    })
}

/// The parts of `("www" "text")` and of `("www" . "text")` alike.
fn parts(entry: &SteelVal) -> Scheme<Vec<SteelVal>> {
    match entry {
        SteelVal::Pair(pair) => Ok(vec![pair.car(), pair.cdr()]),
        SteelVal::ListV(_) => items(entry),
        other => Err(fault(format!("expected (name content), found {}", shown(other)))),
    }
}

fn server(apex: &DnsName, value: &SteelVal) -> Scheme<NameServer> {
    if let Ok(bare) = name(value) {
        return Ok(NameServer { name: anywhere(apex, bare)?, region: None });
    }
    match parts(value)?.as_slice() {
        // `(ns ("ns1" "ns2"))` is one list of two names, and looks like a name with its region.
        [SteelVal::StringV(_), SteelVal::StringV(_)] | [] => {
            Err(fault("write the servers as (ns . (\"ns1\" \"ns2\")), and a server's region as (\"ns1\" . us-east)"))
        }
        [called, region] => {
            let server = NameServer { name: anywhere(apex, name(called)?)?, region: Some(region_id(region)?) };
            let within = format!(".{apex}");
            if !server.name.as_str().ends_with(&within) {
                return Err(fault(format!("`{}` lies outside {apex}, where its addresses are not ours", server.name)));
            }
            Ok(server)
        }
        _ => Err(fault(format!("expected a name or (name . region), found {}", shown(value)))),
    }
}

fn seconds(value: &SteelVal) -> Scheme<u32> {
    let whole = count(value)?;
    // The longest SOA expiry in use is 1000 hours; all other times are bounded more tightly by the zone's check.
    let longest = u64::from(LONGEST_RECORD_TTL) * 10;
    u32::try_from(whole)
        .ok()
        .filter(|&whole| u64::from(whole) <= longest)
        .ok_or_else(|| fault(format!("{whole} seconds is too long")))
}

fn dns_name(text: &str) -> Scheme<DnsName> {
    DnsName::new(text.to_ascii_lowercase().trim_end_matches('.')).map_err(|error| fault(error.to_string()))
}

/// The owner of a record: inside the zone, whole or without it.
fn inside(apex: &DnsName, text: &str) -> Scheme<DnsName> {
    if text == "@" {
        return Ok(apex.clone());
    }
    let given = dns_name(text)?;
    let whole = given == *apex || given.as_str().ends_with(&format!(".{apex}"));
    if whole { Ok(given) } else { dns_name(&format!("{given}.{apex}")) }
}

/// What a record points at: whole if there is a dot in it.
fn anywhere(apex: &DnsName, text: &str) -> Scheme<DnsName> {
    if text.contains('.') { dns_name(text) } else { inside(apex, text) }
}

impl Ledger {
    /// The zones declared.
    ///
    /// # Errors
    /// Servers in regions that do not exist.
    pub fn zones(&self, regions: &BTreeSet<RegionId>) -> Result<BTreeMap<DnsName, Zone>, Vec<Misfit>> {
        let misfits: Vec<Misfit> = self
            .zones
            .values()
            .flat_map(|(file, zone)| zone.ns.iter().filter_map(move |server| Some((file, server.region.as_ref()?))))
            .filter(|(_, region)| !regions.contains(*region))
            .map(|(file, region)| Misfit {
                file: file.clone(),
                form: "define-zone",
                message: format!("there is no region `{region}`"),
                help: known_regions(regions),
            })
            .collect();
        if !misfits.is_empty() {
            return Err(misfits);
        }
        Ok(self.zones.iter().map(|(apex, (_, zone))| (apex.clone(), zone.clone())).collect())
    }
}

#[cfg(test)]
#[path = "zones_tests.rs"]
mod tests;
