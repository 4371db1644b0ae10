//! Checks the region files against each other and puts the last defaults in.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use model::region::{Addresses, Region, Regions};
use model::signing::Operator;
use model::{Finding, RegionId};

use crate::file::{DOORS, Door, Draft, Host, Peers};
use crate::yaml::{Place, Source, nearest};

/// Hosts by turn are 127.0.N.1, which ends here.
const MOST_REGIONS: usize = 254;

/// Checks all drafts, `drafts[i]` of `sources[i]`. Nothing comes back if any is incomplete. `unread` are files
/// that could not be read at all.
pub(crate) fn together(
    sources: &[Source<'_>],
    drafts: Vec<Draft>,
    unread: &[String],
    findings: &mut Vec<Finding>,
) -> Option<Regions> {
    if sources.len() > MOST_REGIONS {
        let message = format!("the tree has {} regions; at most {MOST_REGIONS} are supported", sources.len());
        findings.push(crate::nowhere(crate::FOLDER, message, "move some of them to region-config/available/"));
        return None;
    }
    if sources.is_empty() && unread.is_empty() {
        let help = "copy one from region-config/available/, and set `primary: true` in one file";
        findings.push(crate::nowhere(crate::FOLDER, "the tree has no region", help));
        return None;
    }
    let complete = unread.is_empty() && drafts.iter().all(|draft| draft.primary.is_some());
    let primary = one_primary(sources, &drafts, complete, findings);
    names_differ(sources, &drafts);
    folders_differ(sources, &drafts);
    let turns = turns(&drafts, primary);
    let doors = doors(sources, &drafts, &turns, complete && primary.is_some());
    doors_differ(sources, &doors);
    let known = peers_exist(sources, &drafts, unread);
    publicly_reached(sources, &drafts, &turns);
    let operators = same_operators(sources, &drafts);

    let primary = drafts.get(primary?)?.id.clone()?;
    let mut by_id = std::collections::BTreeMap::new();
    for (draft, turn) in drafts.into_iter().zip(turns) {
        let region = finish(draft, turn, &known)?;
        by_id.insert(region.id.clone(), region);
    }
    Some(Regions { by_id, primary, operators: operators? })
}

/// The index of the primary, if there is exactly one.
fn one_primary(sources: &[Source<'_>], drafts: &[Draft], complete: bool, findings: &mut Vec<Finding>) -> Option<usize> {
    let said: Vec<_> = drafts
        .iter()
        .enumerate()
        .filter_map(|(i, draft)| Some((i, draft.primary.as_ref().filter(|primary| primary.value)?)))
        .collect();
    match said.split_first() {
        // A file that cannot be read may be the primary's.
        None if !complete => None,
        None => {
            let message = "no region is the primary";
            findings.push(crate::nowhere(crate::FOLDER, message, "set `primary: true` in one of its files"));
            None
        }
        Some((&(first, _), [])) => Some(first),
        Some((&(first, already), others)) => {
            for &(i, primary) in others {
                let place = format!("{}:{}", sources[first].file, already.at.line);
                let help = format!("set `primary: false` here or in {place}");
                sources[i].refuse(primary.at, format!("a second primary region; {place} has the first"), help);
            }
            None
        }
    }
}

fn names_differ(sources: &[Source<'_>], drafts: &[Draft]) {
    for (i, draft) in drafts.iter().enumerate() {
        let Some(name) = &draft.name else { continue };
        let earlier = drafts[..i].iter().zip(sources).find_map(|(other, source)| {
            let other = other.name.as_ref().filter(|other| other.value == name.value)?;
            Some(format!("{}:{}", source.file, other.at.line))
        });
        if let Some(place) = earlier {
            let message = format!("`{}` is the name of another region already, in {place}", name.value);
            sources[i].refuse(name.at, message, "give one of the two its own name");
        }
    }
}

fn folders_differ(sources: &[Source<'_>], drafts: &[Draft]) {
    for (i, draft) in drafts.iter().enumerate() {
        let Some(folder) = &draft.data_dir else { continue };
        let earlier = drafts[..i].iter().zip(sources).find(|(other, _)| {
            other.data_dir.as_ref().is_some_and(|other| other.value.components().eq(folder.value.components()))
        });
        if let Some((_, source)) = earlier {
            let message = format!("{} keeps its data in `{}` already", source.file, folder.value.display());
            sources[i].refuse(folder.at, message, "set a `data_dir` of its own in one of the two");
        }
    }
}

/// Each region's turn from 1: the primary first, then by id.
fn turns(drafts: &[Draft], primary: Option<usize>) -> Vec<u8> {
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|&i| (Some(i) != primary, drafts[i].id.clone()));
    let mut turns = vec![0; drafts.len()];
    // The order first: it ends before a turn past 255 is asked for.
    for (i, turn) in order.into_iter().zip(1..) {
        turns[i] = turn;
    }
    turns
}

fn host(host: &Host, turn: u8) -> IpAddr {
    match host {
        Host::Given(host) => *host,
        Host::ByTurn => Ipv4Addr::new(127, 0, turn, 1).into(),
    }
}

/// The address of a door, if it is known.
fn address(draft: &Draft, door: usize, turn: u8) -> Option<(SocketAddr, Place)> {
    match draft.doors[door].as_ref()? {
        Door::Full(address) => Some((address.value, address.at)),
        Door::Port(port) => Some((SocketAddr::new(host(draft.host.as_ref()?, turn), port.value), port.at)),
    }
}

struct Open {
    region: usize,
    door: usize,
    address: SocketAddr,
    at: Place,
}

/// Every door whose address is certain. Turns are not, unless every file could be read.
fn doors(sources: &[Source<'_>], drafts: &[Draft], turns: &[u8], certain: bool) -> Vec<Open> {
    let mut doors = Vec::new();
    for region in 0..sources.len() {
        for door in 0..DOORS.len() {
            let by_turn = matches!(
                (&drafts[region].host, &drafts[region].doors[door]),
                (Some(Host::ByTurn), Some(Door::Port(_)))
            );
            if let Some((address, at)) = address(&drafts[region], door, turns[region])
                && (certain || !by_turn)
            {
                doors.push(Open { region, door, address, at });
            }
        }
    }
    doors
}

fn doors_differ(sources: &[Source<'_>], doors: &[Open]) {
    for (i, later) in doors.iter().enumerate() {
        let Some(earlier) = doors[..i].iter().find(|earlier| clash(earlier.address, later.address)) else { continue };
        let holder = match earlier.region == later.region {
            true => format!("its own `{}`", DOORS[earlier.door].0),
            false => format!("`{}` of {}:{}", DOORS[earlier.door].0, sources[earlier.region].file, earlier.at.line),
        };
        let door = DOORS[later.door].0;
        let message = format!("`{door}` would listen on {}, as {holder} does already", later.address);
        let help = match earlier.region == later.region {
            true => format!("set another port for `{door}` under `addresses`"),
            false => format!("set another `host`, or another port for `{door}`, under `addresses` in one of the two"),
        };
        sources[later.region].refuse(later.at, message, help);
    }
}

/// Whether both cannot be listened on. An unspecified address takes the port everywhere.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Reports gateways that listen on every address of their machine and do not say which of them users know.
fn publicly_reached(sources: &[Source<'_>], drafts: &[Draft], turns: &[u8]) {
    for ((source, draft), turn) in sources.iter().zip(drafts).zip(turns) {
        if let (Some((gateway, at)), Some([])) = (address(draft, 0, *turn), draft.public.as_deref())
            && gateway.ip().is_unspecified()
        {
            let message = format!("`gateway` listens on {gateway}, which is no address that DNS could answer with");
            source.refuse(at, message, "add `public: [192.0.2.10]`, with the addresses that users reach it under");
        }
    }
}

/// The operators, which all files must name alike: a file that lacks them would be one that trusts the regions.
fn same_operators(sources: &[Source<'_>], drafts: &[Draft]) -> Option<Vec<Operator>> {
    let stated = || drafts.iter().zip(sources).filter_map(|(draft, source)| Some((draft.operators.as_ref()?, source)));
    let (first, said) = stated().find(|(operators, _)| !operators.value.is_empty()).or_else(|| stated().next())?;
    let place = format!("{}:{}", said.file, first.at.line);
    for (operators, source) in stated().filter(|(operators, _)| operators.value != first.value) {
        let message = match operators.value.is_empty() {
            true => format!("no operators are named, as they are in {place}"),
            false => format!("other operators than in {place}"),
        };
        source.refuse(operators.at, message, "write the same `policies` into every region file");
    }
    Some(first.value.clone())
}

/// Reports peers that have no file. Returns all regions that have one.
fn peers_exist(sources: &[Source<'_>], drafts: &[Draft], unread: &[String]) -> BTreeSet<RegionId> {
    let stems = unread.iter().filter_map(|file| file.rsplit('/').next()?.strip_suffix(".yml"));
    let known: BTreeSet<RegionId> = drafts
        .iter()
        .filter_map(|draft| draft.id.clone())
        .chain(stems.filter_map(|stem| RegionId::new(stem).ok()))
        .collect();
    for (source, draft) in sources.iter().zip(drafts) {
        let Some(Peers::These(peers)) = &draft.peers else { continue };
        for peer in peers.iter().filter(|peer| !known.contains(&peer.value)) {
            let help = match nearest(peer.value.as_str(), known.iter().map(RegionId::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add {}/{}.yml, or take it off the list", crate::FOLDER, peer.value),
            };
            source.refuse(peer.at, format!("no region is called `{}`", peer.value), help);
        }
    }
    known
}

fn finish(draft: Draft, turn: u8, known: &BTreeSet<RegionId>) -> Option<Region> {
    let door = |door| address(&draft, door, turn).map(|(address, _)| address);
    let (gateway, mut public) = (door(0)?, draft.public.clone()?);
    if public.is_empty() {
        public.push(gateway.ip());
    }
    let addresses = Addresses { gateway, admin: door(1)?, peer: door(2)?, dns: door(3)?, public };
    let id = draft.id?;
    let peers = match draft.peers? {
        Peers::All => known.iter().filter(|peer| **peer != id).cloned().collect(),
        Peers::These(peers) => peers.into_iter().map(|peer| peer.value).collect(),
    };
    Some(Region {
        id,
        name: draft.name?.value,
        primary: draft.primary?.value,
        api: draft.api?,
        storage: draft.storage?,
        capacity: draft.capacity?,
        features: draft.features?.into_iter().collect(),
        coordinates: draft.coordinates?,
        country: draft.country?,
        jurisdiction: draft.jurisdiction?,
        addresses,
        data_dir: draft.data_dir?.value,
        peers,
    })
}
