//! Every answer that can be given, ready for the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use model::names::DnsName;
use model::region::Regions;
use model::routing::{
    AnswerShape, ClientClass, NameShapes, Ranking, RecordData, RegionState, RoutingPlan, Share, StaticRecord, Zone,
};
use model::{Country, RegionId};

use super::denial::SignedZone;
use super::sign::Signing;
use super::wire::{CLASS_IN, encode_name, parent, rtype};
use crate::shares::{ClientNet, Lot, draw};

/// The owner of a record as a pointer to the name of the question, which begins behind the header.
const TO_QUESTION: [u8; 2] = [0xC0, 0x0C];

/// Records of one owner and type as they go on the wire, their owner a pointer to the question's name.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordSet {
    pub(super) count: u16,
    pub(super) bytes: Vec<u8>,
    /// The signatures over them, once somebody asked.
    pub(super) signed: OnceLock<Box<RecordSet>>,
}

impl RecordSet {
    pub(super) fn push(&mut self, rtype: u16, ttl: u32, data: &[u8]) {
        self.count += 1;
        self.bytes.extend_from_slice(&TO_QUESTION);
        self.bytes.extend_from_slice(&rtype.to_be_bytes());
        self.bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.bytes.extend_from_slice(&ttl.to_be_bytes());
        self.bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(data);
    }

    pub(super) fn one(rtype: u16, ttl: u32, data: &[u8]) -> Self {
        let mut set = Self::default();
        set.push(rtype, ttl, data);
        set
    }

    /// The records without their owners.
    pub(super) fn bare(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (_owner, record) = rest.split_at_checked(TO_QUESTION.len())?;
            let length = usize::from(u16::from_be_bytes([*record.get(8)?, *record.get(9)?]));
            let (record, after) = record.split_at_checked(10 + length)?;
            rest = after;
            Some(record)
        })
    }
}

/// The addresses of one answer that is routed by region, by family.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    pub(super) v4: RecordSet,
    pub(super) v6: RecordSet,
}

/// Which answers the clients of some countries get.
#[derive(Clone, Debug)]
struct Kind {
    /// One, or one for each lot.
    answers: Vec<Addresses>,
    /// Where regions share the clients.
    lots: Vec<Lot>,
}

/// Which answer a client gets.
#[derive(Clone, Debug)]
pub(super) struct Steering {
    kinds: Vec<Kind>,
    /// Kind 0 is for those that are not here. Names whose shapes do not depend on the client share the map.
    by_country: Arc<BTreeMap<Country, u16>>,
}

impl Steering {
    /// The answer for a client of a country, and how many bits of its address that depends on by its share.
    pub(super) fn answer(&self, country: Option<Country>, net: ClientNet) -> (&Addresses, u8) {
        let at = country.and_then(|country| self.by_country.get(&country)).copied().unwrap_or(0);
        let kind = &self.kinds[usize::from(at)];
        match draw(net, kind.lots.iter()) {
            Some(drawn) => (&kind.answers[drawn], net.bits),
            None => (&kind.answers[0], 0),
        }
    }

    /// Every answer.
    pub(super) fn all(&self) -> impl Iterator<Item = &Addresses> {
        self.kinds.iter().flat_map(|kind| &kind.answers)
    }

    /// Whether it matters where a client is.
    pub(super) fn tells_apart(&self) -> bool {
        self.kinds.len() > 1
    }
}

/// What is known of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// By type; those of A and AAAA are here where the name is not routed by region.
    pub(super) sets: Vec<(u16, RecordSet)>,
    /// The alias, and where it points.
    pub(super) alias: Option<(RecordSet, Box<[u8]>)>,
    pub(super) steering: Option<Steering>,
    /// Whether another of our zones begins here, and this entry stands in the one above: it answers for DS alone.
    pub(super) is_cut: bool,
}

impl Entry {
    fn add(&mut self, rtype: u16, ttl: u32, data: &[u8]) {
        match self.sets.iter_mut().find(|(other, _)| *other == rtype) {
            Some((_, set)) => set.push(rtype, ttl, data),
            None => self.sets.push((rtype, RecordSet::one(rtype, ttl, data))),
        }
    }

    fn add_address(&mut self, ttl: u32, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.add(rtype::A, ttl, &address.octets()),
            IpAddr::V6(address) => self.add(rtype::AAAA, ttl, &address.octets()),
        }
    }

    /// Whether there is nothing at the name but others below it.
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.alias.is_none() && self.steering.is_none()
    }

    pub(super) fn set(&self, rtype: u16) -> Option<&RecordSet> {
        self.sets.iter().find(|(other, _)| *other == rtype).map(|(_, set)| set)
    }
}

/// One zone.
#[derive(Clone, Debug)]
pub(super) struct ZoneTable {
    /// The SOA record for negative answers, with the time of RFC 2308, section 3.
    pub(super) negative: RecordSet,
    /// What ANY is answered with (RFC 8482, section 4.2).
    pub(super) minimal: RecordSet,
    /// The servers inside the zone.
    pub(super) glue: Vec<Box<[u8]>>,
    /// By whole name in lower case; names that only have others below them are there too, with nothing in them.
    pub(super) names: BTreeMap<Box<[u8]>, Entry>,
    /// For records of a fixed content and for negative answers.
    ttl: u32,
    ttl_negative: u32,
    /// Where the zone has keys.
    pub(super) signed: Option<SignedZone>,
}

/// Every answer of one plan at one state of health. Immutable: a change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Table {
    generation: u64,
    /// By apex in lower case.
    zones: BTreeMap<Box<[u8]>, ZoneTable>,
}

impl Table {
    /// Makes the table of a plan. `generation` is the plan's, and the serial of every zone; with 0, there is no plan
    /// yet and every query is answered with SERVFAIL. A region whose state is not in `states` does not serve.
    pub fn new(
        plan: &RoutingPlan,
        generation: u64,
        regions: &Regions,
        states: &BTreeMap<RegionId, RegionState>,
    ) -> Self {
        let rankings = Rankings::of(plan);
        let maker = Maker { plan, rankings, generation, regions, states };
        let zones = plan.dns.zones.values().map(|zone| (encode_name(zone.apex.as_str()).into(), maker.zone(zone)));
        Self { generation, zones: zones.collect() }
    }

    /// The table with the zones that have keys signed. Nothing is signed yet: queries do that, or
    /// [`Table::sign_ahead`].
    #[must_use]
    pub fn signed(mut self, signing: &Arc<Signing>) -> Self {
        let apexes: Vec<Box<[u8]>> =
            signing.apexes().filter(|apex| self.zones.contains_key(*apex)).map(Box::from).collect();
        for apex in &apexes {
            let above = parent(apex).and_then(|above| self.zone(above)).map(|(above, _)| Box::<[u8]>::from(above));
            if let Some(zone) = self.zones.get_mut(apex)
                && let Some(entry) = zone.names.get_mut(apex)
            {
                signing.apex_records(apex).iter().for_each(|(rtype, data)| entry.add(*rtype, zone.ttl, data));
            }
            if let Some(zone) = above.and_then(|above| self.zones.get_mut(&above))
                && let Some(entry) = zone.names.get_mut(apex)
            {
                signing.ds(apex).iter().for_each(|data| entry.add(rtype::DS, zone.ttl, data));
            }
        }
        for apex in &apexes {
            if let Some(zone) = self.zones.get_mut(apex) {
                zone.signed = Some(SignedZone::new(apex, signing.clone(), &zone.names, zone.ttl_negative));
            }
        }
        self
    }

    /// Signs all that can be asked for, so that no query has to, for as long as `go_on` says so. Gives the number of
    /// sets.
    pub fn sign_ahead(&self, go_on: impl Fn() -> bool) -> usize {
        let mut sets = 0;
        for (apex, zone) in &self.zones {
            let Some(signed) = &zone.signed else { continue };
            let negative = std::iter::once((&**apex, &zone.negative));
            for (owner, set) in zone.all().chain(signed.all()).chain(negative).filter(|(_, set)| set.count > 0) {
                if !go_on() {
                    return sets;
                }
                signed.signatures(owner, set);
                sets += 1;
            }
        }
        sets
    }

    /// Whether a plan is in force.
    pub(super) fn is_ready(&self) -> bool {
        self.generation > 0
    }

    /// The zone that answers for a type of a name in lower case, with its apex: what the parent says of a zone is the
    /// parent's to answer (RFC 4035, section 3.1.4.1).
    pub(super) fn zone_for(&self, name: &[u8], rtype: u16) -> Option<(&[u8], &ZoneTable)> {
        let found = self.zone(name)?;
        if rtype == rtype::DS && found.0 == name {
            return parent(name).and_then(|above| self.zone(above)).or(Some(found));
        }
        Some(found)
    }

    /// The zone that a name in lower case lies in, the deepest if there are several, with its apex.
    pub(super) fn zone(&self, name: &[u8]) -> Option<(&[u8], &ZoneTable)> {
        let mut suffix = Some(name);
        while let Some(at) = suffix {
            if let Some((apex, zone)) = self.zones.get_key_value(at) {
                return Some((apex, zone));
            }
            suffix = parent(at);
        }
        None
    }
}

/// The rankings of a plan, each once, and which one each country has: number 0 where it is not named.
struct Rankings<'a> {
    all: Vec<&'a Ranking>,
    by_country: Arc<BTreeMap<Country, u16>>,
}

impl<'a> Rankings<'a> {
    fn of(plan: &'a RoutingPlan) -> Self {
        let (mut all, mut numbers) = (vec![&plan.default], BTreeMap::from([(&plan.default, 0)]));
        let mut by_country = BTreeMap::new();
        for (class, ranking) in &plan.by_class {
            let Some(country) = class.country else { continue };
            let number = *numbers.entry(ranking).or_insert_with(|| {
                all.push(ranking);
                (all.len() - 1) as u16
            });
            if number > 0 {
                by_country.insert(country, number);
            }
        }
        Self { all, by_country: Arc::new(by_country) }
    }
}

impl ZoneTable {
    /// Every set that is answered from the zone, with its owner.
    fn all(&self) -> impl Iterator<Item = (&[u8], &RecordSet)> {
        self.names.iter().flat_map(|(name, entry)| {
            // Of a zone below, only what is said of its keys is this one's.
            let sets = entry.sets.iter().filter(|(rtype, _)| !entry.is_cut || *rtype == rtype::DS);
            let sets = sets.map(|(_, set)| set).chain(entry.alias.iter().map(|(set, _)| set));
            let steered = entry.steering.iter().flat_map(Steering::all);
            sets.chain(steered.flat_map(|answer| [&answer.v4, &answer.v6])).map(|set| (&**name, set))
        })
    }
}

struct Maker<'a> {
    plan: &'a RoutingPlan,
    rankings: Rankings<'a>,
    generation: u64,
    regions: &'a Regions,
    states: &'a BTreeMap<RegionId, RegionState>,
}

impl Maker<'_> {
    fn zone(&self, zone: &Zone) -> ZoneTable {
        let mut names: BTreeMap<Box<[u8]>, Entry> = BTreeMap::new();
        let key = |name: &DnsName| -> Box<[u8]> { encode_name(name.as_str()).into() };
        let soa = self.soa(zone);
        let apex = names.entry(key(&zone.apex)).or_default();
        apex.add(rtype::SOA, zone.ttl, &soa);
        for server in &zone.ns {
            apex.add(rtype::NS, zone.ttl, &encode_name(server.name.as_str()));
        }
        for record in &zone.records {
            add_static(names.entry(key(&record.name)).or_default(), zone.ttl, record);
        }
        for name in &zone.routed {
            if let Some(shapes) = self.plan.dns.shapes.get(name) {
                names.entry(key(name)).or_default().steering = Some(self.steering(shapes));
            }
        }
        let glue = self.servers(zone, &mut names);
        for below in self.plan.dns.zones.values().filter(|below| below.apex != zone.apex && zone.holds(&below.apex)) {
            // A zone further down is its own parent's matter. Nothing else that stands there is ever answered.
            let mut between =
                self.plan.dns.zones.values().filter(|other| other.apex != below.apex && other.apex != zone.apex);
            if !between.any(|other| zone.holds(&other.apex) && other.holds(&below.apex)) {
                let mut cut = Entry { is_cut: true, ..Entry::default() };
                below.ns.iter().for_each(|server| cut.add(rtype::NS, below.ttl, &encode_name(server.name.as_str())));
                names.insert(key(&below.apex), cut);
            }
        }
        add_empty(&mut names, &encode_name(zone.apex.as_str()));
        ZoneTable {
            negative: RecordSet::one(rtype::SOA, zone.ttl.min(zone.times.negative), &soa),
            minimal: RecordSet::one(rtype::HINFO, zone.ttl, b"\x07RFC8482\x00"),
            glue,
            names,
            ttl: zone.ttl,
            ttl_negative: zone.ttl.min(zone.times.negative),
            signed: None,
        }
    }

    fn soa(&self, zone: &Zone) -> Vec<u8> {
        let primary = zone.ns.first().map_or(&zone.apex, |server| &server.name);
        let mut data = encode_name(primary.as_str());
        data.extend(encode_name(zone.contact.as_str()));
        let times = zone.times;
        // Serials wrap, as RFC 1982 has it.
        let serial = self.generation as u32;
        for number in [serial, times.refresh, times.retry, times.expire, times.negative] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        data
    }

    /// Gives servers inside the zone that have no addresses those of their region, or of every region.
    fn servers(&self, zone: &Zone, names: &mut BTreeMap<Box<[u8]>, Entry>) -> Vec<Box<[u8]>> {
        let mut glue: Vec<Box<[u8]>> = Vec::new();
        let inside: BTreeSet<&DnsName> =
            zone.ns.iter().map(|server| &server.name).filter(|name| zone.holds(name)).collect();
        for name in inside {
            let key: Box<[u8]> = encode_name(name.as_str()).into();
            let entry = names.entry(key.clone()).or_default();
            glue.push(key);
            if entry.steering.is_some() || entry.set(rtype::A).is_some() || entry.set(rtype::AAAA).is_some() {
                continue;
            }
            let mut given: BTreeSet<IpAddr> = BTreeSet::new();
            for server in zone.ns.iter().filter(|server| server.name == *name) {
                let regions = self.regions.by_id.values();
                for region in regions.filter(|region| server.region.as_ref().is_none_or(|id| *id == region.id)) {
                    given.extend(&region.addresses.public);
                }
            }
            given.into_iter().for_each(|address| entry.add_address(zone.ttl, address));
        }
        glue
    }

    fn steering(&self, shapes: &NameShapes) -> Steering {
        let Rankings { all, by_country: numbers } = &self.rankings;
        if shapes.by_class.is_empty() {
            let kinds = all.iter().map(|ranking| self.kind(ranking, &shapes.default)).collect();
            return Steering { kinds, by_country: numbers.clone() };
        }
        let mut kinds: Vec<(u16, &AnswerShape)> = vec![(0, &shapes.default)];
        let mut by_country = BTreeMap::new();
        let apart = shapes.by_class.keys().filter_map(|class| class.country);
        let countries: BTreeSet<Country> = apart.chain(numbers.keys().copied()).collect();
        for country in countries {
            let shape = shapes.shape(ClientClass { country: Some(country) });
            let kind = (numbers.get(&country).copied().unwrap_or(0), shape);
            let at = kinds.iter().position(|other| *other == kind).unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            });
            if at > 0 {
                by_country.insert(country, at as u16);
            }
        }
        let kinds = kinds.into_iter().map(|(number, shape)| self.kind(all[usize::from(number)], shape));
        Steering { kinds: kinds.collect(), by_country: Arc::new(by_country) }
    }

    fn state(&self, id: &RegionId) -> RegionState {
        self.states.get(id).copied().unwrap_or(RegionState::Joining)
    }

    /// The answers of one shape to clients with one ranking, at the present state of health.
    fn kind(&self, ranking: &Ranking, shape: &AnswerShape) -> Kind {
        // A region that the ranking leaves out is never put in by a share.
        let shares = shape.shares.iter().filter(|share| share.weight > 0 && ranking.regions.contains(&share.region));
        let shares: Vec<&Share> = shares.collect();
        let serving: Vec<&&Share> = shares.iter().filter(|share| self.state(&share.region).serves()).collect();
        let sharing: Vec<&RegionId> = shares.iter().map(|share| &share.region).collect();
        if serving.is_empty() {
            let order = ranking.regions.iter().collect();
            return Kind { answers: vec![self.addresses(order, shape, &sharing)], lots: Vec::new() };
        }
        let lots = serving.iter().map(|share| Lot::new(share)).collect();
        let answers = serving.iter().map(|share| {
            let others = ranking.regions.iter().filter(|id| **id != share.region);
            self.addresses(std::iter::once(&share.region).chain(others).collect(), shape, &sharing)
        });
        Kind { answers: answers.collect(), lots }
    }

    /// The answer that names regions in this order. It is kept for a short time only while one of them, or of those
    /// that share the clients, is not well.
    fn addresses(&self, order: Vec<&RegionId>, shape: &AnswerShape, sharing: &[&RegionId]) -> Addresses {
        let count = usize::from(shape.count);
        let wanted: Vec<&RegionId> = order.iter().copied().take(count).collect();
        let serving: Vec<&RegionId> = order.iter().copied().filter(|id| self.state(id).serves()).take(count).collect();
        let given = if serving.is_empty() { &wanted } else { &serving };
        // A region that is only missing may be back soon: the answer without it must not be kept for long either.
        let settled = wanted.iter().chain(given).chain(sharing).all(|id| self.state(id) == RegionState::Ready);
        let ttl = if settled { shape.ttl_max } else { shape.ttl_min };
        let mut addresses = Addresses { v4: RecordSet::default(), v6: RecordSet::default() };
        // Regions behind one address are told apart by nobody, and no record may stand twice (RFC 2181, section 5).
        let mut named = BTreeSet::new();
        let public =
            given.iter().filter_map(|id| self.regions.by_id.get(*id)).flat_map(|region| &region.addresses.public);
        for address in public.filter(|address| named.insert(**address)) {
            match address {
                IpAddr::V4(address) => addresses.v4.push(rtype::A, ttl, &address.octets()),
                IpAddr::V6(address) => addresses.v6.push(rtype::AAAA, ttl, &address.octets()),
            }
        }
        addresses
    }
}

fn add_static(entry: &mut Entry, ttl: u32, record: &StaticRecord) {
    match &record.data {
        RecordData::A(address) => entry.add_address(ttl, (*address).into()),
        RecordData::Aaaa(address) => entry.add_address(ttl, (*address).into()),
        RecordData::Txt(text) => {
            let mut data = Vec::new();
            // An empty text still has one string (RFC 1035, section 3.3.14).
            let bytes = text.as_bytes();
            let strings: Vec<&[u8]> = if bytes.is_empty() { vec![b""] } else { bytes.chunks(255).collect() };
            for string in strings {
                data.push(string.len() as u8);
                data.extend_from_slice(string);
            }
            entry.add(rtype::TXT, ttl, &data);
        }
        RecordData::Caa { critical, tag, value } => {
            let mut data = vec![if *critical { 0x80 } else { 0 }, tag.len() as u8];
            data.extend_from_slice(tag.as_bytes());
            data.extend_from_slice(value.as_bytes());
            entry.add(rtype::CAA, ttl, &data);
        }
        RecordData::Cname(target) => {
            let target = encode_name(target.as_str());
            entry.alias = Some((RecordSet::one(rtype::CNAME, ttl, &target), target.into()));
        }
    }
}

/// Adds the names that only have others below them: they exist, and have no records (RFC 8020).
fn add_empty(names: &mut BTreeMap<Box<[u8]>, Entry>, apex: &[u8]) {
    let mut between: BTreeSet<Box<[u8]>> = BTreeSet::new();
    for name in names.keys() {
        let mut above = parent(name);
        while let Some(at) = above.filter(|at| at.len() > apex.len()) {
            between.insert(at.into());
            above = parent(at);
        }
    }
    for name in between {
        names.entry(name).or_default();
    }
}
