//! Reads one region file, version 1, as far as it can be read alone.
//!
//! A field that is `None` was wrong and has been reported; a default is put in
//! as soon as it is known, and what depends on the other files is left to
//! [`crate::check`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use model::names::Feature;
use model::region::{Capacity, Coordinates};
use model::signing::{MOST_OPERATORS, Operator};
use model::{Country, RegionId};

use crate::cloud;
use crate::yaml::{Entry, Located, Place, Source, Table, nearest};

const FILE_KEYS: &[&str] = &["version", "region"];
const REGION_KEYS: &[&str] = &[
    "name",
    "primary",
    "services",
    "capacity",
    "features",
    "coordinates",
    "country",
    "jurisdiction",
    "addresses",
    "data_dir",
    "peers",
    "policies",
];
const POLICY_KEYS: &[&str] = &["operators"];
const SERVICE_KEYS: &[&str] = &["api", "storage"];
const CAPACITY_KEYS: &[&str] = &["min_instances", "max_instances", "per_instance_rps"];
const COORDINATE_KEYS: &[&str] = &["latitude", "longitude"];
const ADDRESS_KEYS: &[&str] = &["host", "gateway", "admin", "peer", "dns", "public"];

/// The doors of a region and their default ports, in the order of [`Draft::doors`].
pub(crate) const DOORS: [(&str, u16); 4] = [("gateway", 8080), ("admin", 9090), ("peer", 7443), ("dns", 5300)];

/// Requests a second that one instance is taken to serve, unless the file says otherwise.
const REQUESTS_PER_INSTANCE: u32 = 100;
/// Addresses under which users reach one region; an answer over DNS has to fit into a packet.
const MOST_PUBLIC: usize = 16;
const MOST_INSTANCES: u32 = 1_000_000;
const MOST_REQUESTS: u32 = 10_000_000;

/// Where a door of a region is, as the file has it.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// On this port of the region's host.
    Port(Located<u16>),
    /// On another host.
    Full(Located<SocketAddr>),
}

/// The host that a region listens on.
#[derive(Clone, Debug)]
pub(crate) enum Host {
    /// Not in the file: it follows from the region's turn.
    ByTurn,
    /// In the file.
    Given(IpAddr),
}

/// Who a region exchanges data with.
#[derive(Clone, Debug)]
pub(crate) enum Peers {
    /// Not in the file.
    All,
    /// In the file; their existence is not checked yet.
    These(Vec<Located<RegionId>>),
}

/// One region file, read alone. A field that is `None` has been reported.
pub(crate) struct Draft {
    pub(crate) id: Option<RegionId>,
    /// Where the key `region` stands, or the file's top.
    pub(crate) at: Place,
    pub(crate) name: Option<Located<String>>,
    pub(crate) primary: Option<Located<bool>>,
    pub(crate) api: Option<String>,
    pub(crate) storage: Option<String>,
    pub(crate) capacity: Option<Capacity>,
    pub(crate) features: Option<Vec<Feature>>,
    pub(crate) coordinates: Option<Coordinates>,
    pub(crate) country: Option<Country>,
    pub(crate) jurisdiction: Option<Country>,
    pub(crate) host: Option<Host>,
    pub(crate) doors: [Option<Door>; 4],
    /// Empty where the file has none: the gateway's address then.
    pub(crate) public: Option<Vec<IpAddr>>,
    pub(crate) data_dir: Option<Located<PathBuf>>,
    pub(crate) peers: Option<Peers>,
    /// Who may sign policies, sorted by name, and where that stands.
    pub(crate) operators: Option<Located<Vec<Operator>>>,
}

impl Draft {
    fn unread(id: Option<RegionId>) -> Self {
        Self {
            id,
            at: Place::TOP,
            name: None,
            primary: None,
            api: None,
            storage: None,
            capacity: None,
            features: None,
            coordinates: None,
            country: None,
            jurisdiction: None,
            host: None,
            doors: [const { None }; 4],
            public: None,
            data_dir: None,
            peers: None,
            operators: None,
        }
    }
}

/// Reads a region file; its mistakes are left in `source`.
pub(crate) fn read(source: &Source<'_>) -> Draft {
    let stem = source.stem();
    let id = RegionId::new(stem);
    if let Err(error) = &id {
        source.refuse_file(
            format!("the file's name is no region's: {error}"),
            "rename the file to the region's id, such as eu-west.yml",
        );
    }
    let mut draft = Draft::unread(id.ok());
    let Some(document) = source.document() else { return draft };
    let top = Place::TOP;
    let Some(file) = Table::new(source, "", top, &document, FILE_KEYS) else {
        source.refuse(source.place(&document), "a region file is a mapping", "begin it with `region:`");
        return draft;
    };
    if let Some(version) = file.get("version").and_then(|entry| entry.whole(0, u32::MAX))
        && version.value != 1
    {
        let message = format!("the file is written for version {}; this runtime reads version 1", version.value);
        source.refuse(version.at, message, "write `version: 1`, or run the runtime that it was written for");
        return draft;
    }
    let Some(entry) = file.need("region", "write `region:` and indent the region's keys below it") else {
        return draft;
    };
    draft.at = entry.key_at;
    if let Some(region) = entry.table(REGION_KEYS) {
        fill(&mut draft, &region);
    }
    draft
}

fn fill(draft: &mut Draft, region: &Table<'_>) {
    let name = region.need("name", "write the provider's name for it, such as `name: eu-west-1`");
    draft.name = name.and_then(|entry| name_of(region.source, &entry));
    draft.primary = match region.get("primary") {
        Some(entry) => entry.truth(),
        None => Some(Located { value: false, at: draft.at }),
    };
    if let Some(services) = region
        .need("services", "write `services:` with `api` and `storage` below it")
        .and_then(|e| e.table(SERVICE_KEYS))
    {
        draft.api = url(&services, "api", "https://api.example.org", crate::url::api);
        draft.storage = url(&services, "storage", "s3://bucket", crate::url::storage);
    }
    if let Some(capacity) = region
        .need("capacity", "write `capacity:` with `min_instances` and `max_instances` below it")
        .and_then(|entry| entry.table(CAPACITY_KEYS))
    {
        draft.capacity = capacity_of(&capacity);
    }
    draft.features = match region.get("features") {
        Some(entry) => features_of(region.source, &entry),
        None => Some(Vec::new()),
    };
    place_of(draft, region);
    addresses_of(draft, region);
    draft.data_dir = match region.get("data_dir") {
        Some(entry) => data_dir_of(region.source, &entry),
        None => draft.id.as_ref().map(|id| Located { value: PathBuf::from(id.as_str()), at: draft.at }),
    };
    draft.peers = match region.get("peers") {
        Some(entry) => peers_of(draft.id.as_ref(), region.source, &entry),
        None => Some(Peers::All),
    };
    draft.operators = match region.get("policies") {
        Some(entry) => entry.table(POLICY_KEYS).and_then(|table| operators_of(&table)),
        None => Some(Located { value: Vec::new(), at: draft.at }),
    };
}

fn name_of(source: &Source<'_>, entry: &Entry<'_>) -> Option<Located<String>> {
    let name = entry.text("eu-west-1")?;
    let permitted = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(permitted) {
        let help = "use 1 to 64 letters, digits, hyphens, underscores and dots, such as eu-west-1";
        source.refuse(name.at, format!("{:?} is no provider's name for a region", name.value), help);
        return None;
    }
    Some(name)
}

fn url(services: &Table<'_>, key: &str, example: &str, check: fn(&str) -> Result<String, String>) -> Option<String> {
    let help = format!("write it as `{key}: {example}`");
    let found = services.need(key, &help)?.text(example)?;
    match check(&found.value) {
        Ok(url) => Some(url),
        Err(why) => {
            services.source.refuse(found.at, format!("`{key}` is no usable URL: {why}"), help);
            None
        }
    }
}

fn capacity_of(table: &Table<'_>) -> Option<Capacity> {
    let instances = |key, example| {
        let help = format!("write how many, such as `{key}: {example}`");
        table.need(key, &help)?.whole(1, MOST_INSTANCES)
    };
    let (min, max) = (instances("min_instances", 2), instances("max_instances", 20));
    let rps = match table.get("per_instance_rps") {
        Some(entry) => entry.whole(1, MOST_REQUESTS).map(|found| found.value),
        None => Some(REQUESTS_PER_INSTANCE),
    };
    let (min, max) = (min?, max?);
    if min.value > max.value {
        let message = format!("`min_instances` is {}, more than `max_instances`, which is {}", min.value, max.value);
        table.source.refuse(min.at, message, format!("lower it to {} or less, or raise `max_instances`", max.value));
        return None;
    }
    Some(Capacity { min_instances: min.value, max_instances: max.value, per_instance_rps: rps? })
}

fn features_of(source: &Source<'_>, entry: &Entry<'_>) -> Option<Vec<Feature>> {
    let mut features = Vec::new();
    let mut sound = true;
    for text in entry.texts("full-api, websockets")? {
        match Feature::new(&text.value) {
            Ok(feature) if features.contains(&feature) => {
                source.refuse(text.at, format!("`{feature}` stands twice in `features`"), "keep one of the two");
                sound = false;
            }
            Ok(feature) => features.push(feature),
            Err(error) => {
                source.refuse(text.at, error.to_string(), "write a word such as `batch-processing`");
                sound = false;
            }
        }
    }
    sound.then_some(features)
}

/// Coordinates, country and jurisdiction, from the file or else from the table of cloud regions.
fn place_of(draft: &mut Draft, region: &Table<'_>) {
    let known = draft.name.as_ref().and_then(|name| cloud::place(&name.value));
    let country = |entry: Entry<'_>| {
        let text = entry.text("IE")?;
        match Country::new(&text.value) {
            Ok(country) => Some(country),
            Err(_) => {
                let message = format!("{:?} is no country code", text.value);
                region.source.refuse(text.at, message, "write two letters of ISO 3166-1, such as IE");
                None
            }
        }
    };
    let (coordinates, home) = (region.get("coordinates"), region.get("country"));
    if let (Some(name), None) = (&draft.name, known) {
        let missing: Vec<_> = [("coordinates", coordinates.is_none()), ("country", home.is_none())]
            .into_iter()
            .filter(|&(_, missing)| missing)
            .map(|(key, _)| format!("`{key}`"))
            .collect();
        if !missing.is_empty() {
            let (missing, is) = (missing.join(" and "), if missing.len() == 1 { "is" } else { "are" });
            let state =
                format!("state {missing}, as in `coordinates: {{latitude: 53.35, longitude: -6.26}}`, `country: IE`");
            let help = match nearest(&name.value, cloud::names()) {
                Some(near) => format!("did you mean `{near}`? otherwise {state}"),
                None => state,
            };
            let message = format!("`{}` is not in the table of cloud regions, and {missing} {is} missing", name.value);
            region.source.refuse(name.at, message, help);
        }
    }
    draft.coordinates = match coordinates {
        Some(entry) => entry.table(COORDINATE_KEYS).and_then(|table| {
            let degrees = |key, limit| table.need(key, "write degrees, such as 53.35")?.degrees(limit);
            let (latitude, longitude) = (degrees("latitude", 90.0), degrees("longitude", 180.0));
            Some(Coordinates { latitude: latitude?, longitude: longitude? })
        }),
        None => known.map(|place| place.coordinates),
    };
    draft.country = match home {
        Some(entry) => country(entry),
        None => known.map(|place| place.country),
    };
    draft.jurisdiction = match region.get("jurisdiction") {
        Some(entry) => country(entry),
        None => draft.country,
    };
}

fn addresses_of(draft: &mut Draft, region: &Table<'_>) {
    let at = draft.at;
    let by_default = |port| Some(Door::Port(Located { value: port, at }));
    let Some(entry) = region.get("addresses") else {
        draft.host = Some(Host::ByTurn);
        draft.doors = DOORS.map(|(_, port)| by_default(port));
        draft.public = Some(Vec::new());
        return;
    };
    let Some(table) = entry.table(ADDRESS_KEYS) else { return };
    draft.host = match table.get("host") {
        Some(entry) => host_of(region.source, &entry).map(Host::Given),
        None => Some(Host::ByTurn),
    };
    draft.doors = DOORS.map(|(key, port)| match table.get(key) {
        Some(entry) => door_of(region.source, &entry, port),
        None => {
            let at = table.get("host").map_or(table.at, |host| host.at());
            Some(Door::Port(Located { value: port, at }))
        }
    });
    draft.public = match table.get("public") {
        Some(entry) => public_of(region.source, &entry),
        None => Some(Vec::new()),
    };
}

/// Addresses of the internet or of a test network, none twice.
fn public_of(source: &Source<'_>, entry: &Entry<'_>) -> Option<Vec<IpAddr>> {
    let example = "192.0.2.10, \"2001:db8::10\"";
    let texts = entry.texts(example)?;
    let help = format!("write addresses that users can reach, such as `public: [{example}]`");
    if texts.is_empty() || texts.len() > MOST_PUBLIC {
        let message = format!("`public` has {} addresses; 1 to {MOST_PUBLIC} can be answered", texts.len());
        source.refuse(entry.at(), message, help);
        return None;
    }
    let (mut addresses, mut sound) = (Vec::new(), true);
    for text in texts {
        match text.value.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => {
                source.refuse(text.at, format!("users cannot reach {address}"), help.as_str());
                sound = false;
            }
            Ok(address) if addresses.contains(&address) => {
                source.refuse(text.at, format!("{address} stands twice in `public`"), "keep one of the two");
                sound = false;
            }
            Ok(address) => addresses.push(address),
            Err(_) => {
                source.refuse(text.at, format!("{:?} is no IP address", text.value), help.as_str());
                sound = false;
            }
        }
    }
    sound.then_some(addresses)
}

/// Operators with names and keys of their own.
fn operators_of(table: &Table<'_>) -> Option<Located<Vec<Operator>>> {
    let help = "write what `repomind-run pki operator-key` printed, such as `operators: [ed25519:64 digits alice]`";
    let (entry, source) = (table.need("operators", help)?, table.source);
    let texts = entry.texts("ed25519:0123… alice")?;
    if texts.is_empty() || texts.len() > MOST_OPERATORS {
        let message = format!("`operators` has {} keys; 1 to {MOST_OPERATORS} may sign policies", texts.len());
        source.refuse(entry.at(), message, "name them, or take `policies` away: the regions sign by themselves then");
        return None;
    }
    let (mut operators, mut sound) = (Vec::<Operator>::new(), true);
    for text in texts {
        let refused = match text.value.parse::<Operator>() {
            Err(error) => (format!("{:?} names no operator: {error}", text.value), help),
            Ok(new) if operators.iter().any(|other| other.name == new.name) => {
                (format!("an operator is called `{}` already", new.name), "give one of the two another name")
            }
            Ok(new) if operators.iter().any(|other| other.key == new.key) => {
                (format!("`{}` has the key of another operator", new.name), "keep one of the two")
            }
            Ok(new) => {
                operators.push(new);
                continue;
            }
        };
        source.refuse(text.at, refused.0, refused.1);
        sound = false;
    }
    operators.sort();
    sound.then_some(Located { value: operators, at: entry.key_at })
}

fn host_of(source: &Source<'_>, entry: &Entry<'_>) -> Option<IpAddr> {
    let text = entry.text("127.0.1.1")?;
    let host = text.value.parse().ok();
    if host.is_none() {
        let help = "write an address of this machine, such as 127.0.1.1 or \"::1\"; names are not resolved";
        source.refuse(text.at, format!("{:?} is no IP address", text.value), help);
    }
    host
}

fn door_of(source: &Source<'_>, entry: &Entry<'_>, usual: u16) -> Option<Door> {
    if entry.is_number() {
        let port = entry.whole(1, u32::from(u16::MAX))?;
        return Some(Door::Port(Located { value: port.value as u16, at: port.at }));
    }
    let text = entry.text(&usual.to_string())?;
    match text.value.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Some(Door::Full(Located { value: address, at: text.at })),
        _ => {
            let help = format!("write a port such as {usual}, or address and port such as \"127.0.1.1:{usual}\"");
            source.refuse(text.at, format!("`{}` is neither a port nor address and port", entry.key), help);
            None
        }
    }
}

fn data_dir_of(source: &Source<'_>, entry: &Entry<'_>) -> Option<Located<PathBuf>> {
    let text = entry.text("eu-west")?;
    let path = PathBuf::from(&text.value);
    if text.value.trim().is_empty() || path.components().any(|part| part == std::path::Component::ParentDir) {
        let help = "write an absolute path, or one below the state directory without `..`";
        source.refuse(text.at, format!("{:?} is no folder for data", text.value), help);
        return None;
    }
    Some(Located { value: path, at: text.at })
}

fn peers_of(id: Option<&RegionId>, source: &Source<'_>, entry: &Entry<'_>) -> Option<Peers> {
    let mut peers: Vec<Located<RegionId>> = Vec::new();
    for text in entry.texts("us-east, eu-west")? {
        match RegionId::new(&text.value) {
            Ok(peer) if Some(&peer) == id => {
                source.refuse(text.at, format!("`{peer}` names itself as a peer"), "take it off the list");
            }
            Ok(peer) if peers.iter().any(|known| known.value == peer) => {
                source.refuse(text.at, format!("`{peer}` stands twice in `peers`"), "keep one of the two");
            }
            Ok(peer) => peers.push(Located { value: peer, at: text.at }),
            Err(error) => {
                source.refuse(text.at, error.to_string(), "write the stem of a region's file, such as eu-west")
            }
        }
    }
    Some(Peers::These(peers))
}
