//! Shows every region as it sees itself and the others.
//!
//! Exit code 0 when all regions answer and serve, 1 when one does not, 2 when
//! none answers. Where `deploy` recorded nothing, as on machines of their own,
//! the addresses of the tree are asked. Whoever answers must take the token of
//! this state directory: else it is another deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Attribute, Cell, Color, Table, presets};
use model::RegionId;
use model::control::ControlRole;
use model::eviction::EvictionStatus;
use model::status::{ClusterStatus, Cut, DamageStatus, EdgeStatus, EdgesStatus, RegionStatus};

use crate::args::{FINDING, NOT_RUN, Place, StatusArgs};
use crate::client::Client;
use crate::deploy::BadConfiguration;
use crate::deploy::processes::{Deployment, Role};

/// `repomind-run status`.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let (deployment, recorded) = look(&args.place)?;
    let client = Client::new(&args.place.state)?;
    let mut status = gather(&client, &deployment.admins(), &deployment.primary).await;
    if !recorded {
        say_unrecorded(&args.place);
        if !client.has_token() && !status.regions.is_empty() {
            eprintln!("there are no keys here to compare with: what answers may be of another deployment");
        }
    }
    // Also where something is recorded: after a crash of all of it, another deployment may have taken the addresses.
    status.strangers = strangers(&client, status.regions.iter().map(|region| (&region.id, region.admin))).await;
    status.regions.retain(|region| !status.strangers.contains(&region.id));
    status.edges = edges(&args.place.state, &deployment);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        println!("{}", table(&status));
        let signed =
            status.regions.iter().filter_map(|region| Some((region.generation, region.policy_signed_by.as_ref()?)));
        let signed: BTreeSet<String> =
            signed.map(|(generation, by)| format!("generation {generation} is signed by {by}")).collect();
        signed.iter().for_each(|line| println!("{line}"));
        notes(&status).iter().for_each(|note| println!("{note}"));
        for region in &status.regions {
            if let Some(reason) = &region.not_ready {
                println!("{}: not ready: {reason}", region.id);
            }
            if let Some(error) = &region.countries.error {
                println!("{}: countries are still those of {}: {error}", region.id, region.countries.from);
            }
            for error in &region.policy_errors {
                println!("{}: policies on disk are not in force: {error}", region.id);
            }
        }
        for said in status.regions.iter().filter_map(|region| region.policy_proving.as_ref()) {
            println!("\nproving before the saved files come into force: {said}");
        }
        for waiting in status.regions.iter().filter_map(|region| region.policy_waiting.as_ref()) {
            println!("\nA change waits for a word:");
            crate::policy::account(waiting).iter().for_each(|line| println!("{line}"));
        }
        match (status.regions.is_empty(), status.strangers.is_empty()) {
            (true, true) => println!("no region answers; start them with `repomind-run deploy`"),
            (true, false) => println!("{}", other_deployment(&status.strangers, &args.place)),
            _ => {}
        }
    }
    let code = if status.regions.is_empty() {
        ExitCode::from(NOT_RUN)
    } else if !status.unreachable.is_empty()
        || !status.strangers.is_empty()
        || status.regions.iter().any(|region| !region.state.serves())
        || status.edges.iter().flat_map(|edges| &edges.edges).any(|edge| !edge.up || edge.error.is_some())
    {
        ExitCode::from(FINDING)
    } else {
        ExitCode::SUCCESS
    };
    Ok(code)
}

/// What the edges that `deploy` started are at; none where it started none.
pub fn edges(state: &Path, deployment: &Deployment) -> Option<EdgesStatus> {
    let process = deployment.started.iter().find(|process| process.role == Role::Edge)?;
    let mut edges = crate::edge::live::status(state).unwrap_or_default();
    if !process.runs() {
        edges.follows = None;
        for edge in &mut edges.edges {
            edge.up = false;
            edge.error = Some(format!("`edge run` has ended; {} says why", process.log.display()));
        }
    }
    Some(edges)
}

/// A line for each edge.
pub fn edge_lines(edges: &EdgesStatus) -> Vec<String> {
    let follows = edges.follows.as_ref().map_or("no region".to_owned(), ToString::to_string);
    let one = |edge: &EdgeStatus| {
        let state = if edge.up { "up" } else { "not up" };
        let mut line = format!(
            "edge {}: http://{} {state}, generation {} (revision {:.8}), follows {follows}",
            edge.backend, edge.address, edge.generation, edge.revision
        );
        if !edge.down.is_empty() {
            let down: Vec<&str> = edge.down.iter().map(RegionId::as_str).collect();
            line += &format!(", passes over {}", down.join(", "));
        }
        if edge.error.is_none() && edge.tag != edges.told {
            line += ", takes over another order";
        }
        line + &edge.error.as_ref().map_or_else(String::new, |error| format!("\n  stays as it is: {error}"))
    };
    edges.edges.iter().map(one).collect()
}

/// The recorded deployment, else the addresses that the tree gives; says which on standard error.
pub fn at(place: &Place) -> anyhow::Result<Deployment> {
    let (deployment, recorded) = look(place)?;
    if !recorded {
        say_unrecorded(place);
    }
    Ok(deployment)
}

/// The recorded deployment and true, else the addresses that the tree gives and false.
pub fn look(place: &Place) -> anyhow::Result<(Deployment, bool)> {
    match Deployment::read(&place.state)? {
        Some(deployment) => Ok((deployment, true)),
        None => Ok((Deployment::new(place.tree.clone(), &config::load(&place.tree).map_err(BadConfiguration)?), false)),
    }
}

fn say_unrecorded(place: &Place) {
    eprintln!(
        "no deployment is recorded in {}: asking the addresses of {}",
        place.state.display(),
        place.tree.join("region-config").display()
    );
}

/// The regions at whose addresses another deployment answers.
pub async fn strangers(client: &Client, admins: impl Iterator<Item = (&RegionId, SocketAddr)>) -> Vec<RegionId> {
    let mut found = Vec::new();
    for (region, admin) in admins {
        if client.is_stranger(admin).await == Some(true) {
            found.push(region.clone());
        }
    }
    found
}

/// What to say of another deployment at the addresses that were asked.
pub fn other_deployment(strangers: &[RegionId], place: &Place) -> String {
    let all: Vec<String> = strangers.iter().map(ToString::to_string).collect();
    format!(
        "what answers at the addresses of {} is another deployment: it does not take the token in {}",
        all.join(", "),
        place.state.join("pki").display()
    )
}

/// What a table has no room for: regions that another one does not see well, drains, and everything made up.
pub fn notes(status: &ClusterStatus) -> Vec<String> {
    let mut notes: Vec<String> = status.edges.iter().flat_map(edge_lines).collect();
    // All regions hold the same ones but for a moment.
    let newest = status.regions.iter().map(|region| &region.orders).max_by_key(|orders| orders.revision);
    notes.extend(newest.into_iter().flat_map(crate::orders::lines));
    for region in &status.regions {
        let id = &region.id;
        notes.extend(region.control.limits.as_ref().map(|limits| format!("{id}: {limits}")));
        if region.control.tightened_alone {
            let what = "tightened by itself, for want of a quorum; the regions have yet to agree";
            notes.push(format!("{id}: its policies were {what}"));
        }
        notes.extend(eviction(region));
        let unwell = region.sees.iter().filter(|(_, state)| !state.serves() && !state.is_ordered());
        notes.extend(unwell.map(|(other, state)| format!("{id} sees {other} as {}", state.name())));
        if let Some(plan) = region.plan.as_ref().filter(|plan| !plan.drain.is_empty()) {
            let drain: Vec<String> = plan.drain.iter().map(ToString::to_string).collect();
            notes.push(format!("{id}: failover-plan drains {}", drain.join(", ")));
        }
        for (peer, cut) in &region.emulated.cut {
            let what = match cut {
                Cut::None => continue,
                Cut::Out => "nothing that it sends arrives",
                Cut::In => "nothing arrives from there",
                Cut::Both => "nothing passes",
            };
            notes.push(format!("{id} to {peer}: the link is cut (emulated): {what}"));
        }
        notes.extend(region.damage.as_ref().map(|damage| format!("{id}: {}", damaged(damage))));
        notes.extend(delays(region));
    }
    notes
}

/// What may not be in a region any more and is still there.
fn eviction(region: &RegionStatus) -> Option<String> {
    let EvictionStatus { generation, waiting, stuck, deletes, looked_at, done, .. } = region.eviction;
    let mut parts = Vec::new();
    if waiting > 0 {
        parts.push(format!("{waiting} wait for a region that may hold them to answer"));
    }
    if stuck > 0 {
        parts.push(format!("{stuck} may be nowhere: they stay and are shown to nobody"));
    }
    if deletes > 0 {
        parts.push(format!("{deletes} deletes go once every region has them"));
    }
    if parts.is_empty() {
        let busy = generation > 0 && !done;
        return busy.then(|| format!("{}: held against generation {generation}: {looked_at} rows so far", region.id));
    }
    Some(format!("{}: by generation {generation}, of its records {}", region.id, parts.join(", ")))
}

/// Damage on a region's disk, in words.
fn damaged(damage: &DamageStatus) -> String {
    let DamageStatus { waiting, without_copy, aside } = damage;
    let rows = |count: &usize| if *count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
    let was = if *aside == 1 { "was" } else { "were" };
    let mut text =
        format!("{} {was} damaged on disk, and the bytes lie aside; look at the disk (`journalctl -k`)", rows(aside));
    if *waiting > 0 {
        text += &format!("; {} not served until every other region has said what it holds", rows(waiting));
    }
    if *without_copy > 0 {
        text +=
            &format!("; of {} no other region has a copy: restore a backup, or write them anew", rows(without_copy));
    }
    text
}

/// The delay, variation and loss that a region makes up, in one line.
fn delays(region: &RegionStatus) -> Option<String> {
    let emulated = &region.emulated;
    let peers: BTreeSet<&RegionId> = [emulated.delay_ms.keys(), emulated.jitter_ms.keys()]
        .into_iter()
        .flatten()
        .chain(emulated.loss.keys())
        .collect();
    let one = |peer: &RegionId| {
        let mut words = vec![peer.to_string()];
        words.extend(emulated.delay_ms.get(peer).map(|ms| format!("{ms:.1} ms one way")));
        words.extend(emulated.jitter_ms.get(peer).map(|ms| format!("± {ms:.1} ms")));
        words.extend(emulated.loss.get(peer).map(|share| format!("{:.1} % lost", share * 100.0)));
        words.join(" ")
    };
    let all: Vec<String> = peers.into_iter().map(one).collect();
    (!all.is_empty()).then(|| format!("{}: emulated delay to {}", region.id, all.join(", ")))
}

/// Asks all regions at the same time.
pub async fn gather(client: &Client, admins: &BTreeMap<RegionId, SocketAddr>, preferred: &RegionId) -> ClusterStatus {
    let mut asked = Vec::new();
    for (id, admin) in admins {
        let (client, admin) = (client.clone(), *admin);
        asked.push((id.clone(), tokio::spawn(async move { client.status(admin).await })));
    }
    let (mut regions, mut unreachable): (Vec<RegionStatus>, Vec<RegionId>) = Default::default();
    for (id, answer) in asked {
        match answer.await {
            Ok(Ok(status)) => regions.push(status),
            _ => unreachable.push(id),
        }
    }
    regions.sort_by_key(|region| (region.id != *preferred, region.id.clone()));
    // Only a region whose lease holds says so of itself. Should two answers overlap, the later term is right.
    let leads = regions.iter().filter(|region| region.control.role == ControlRole::Primary);
    let primary = leads.max_by_key(|region| region.control.term);
    let newest = regions.iter().map(|region| region.control.term).max().unwrap_or(0);
    let (primary, term) = primary.map_or((None, newest), |leads| (Some(leads.id.clone()), leads.control.term));
    ClusterStatus {
        generation: regions.iter().map(|region| region.generation).max().unwrap_or(0),
        primary,
        term,
        regions,
        unreachable,
        strangers: Vec::new(),
        edges: None,
    }
}

/// The status as a table for a person.
pub fn table(status: &ClusterStatus) -> Table {
    let colour = std::io::stdout().is_terminal();
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["region", "state", "gateway", "dns", "round trips (ms)", "lag (ms)", "generation"]);
    for region in &status.regions {
        let state = Cell::new(region.state.name());
        let state = match colour {
            true if region.state.serves() => state.fg(Color::Green),
            true => state.fg(Color::Red),
            false => state,
        };
        let name = if status.primary.as_ref() == Some(&region.id) {
            format!("{} (primary)", region.id)
        } else {
            region.id.to_string()
        };
        let trips = region.rtt_ms.iter().map(|(to, ms)| format!("{to} {ms:.1}")).collect::<Vec<_>>().join("\n");
        let lags = region.replication.iter().map(|link| match link.backlog {
            0 => format!("{} {}", link.peer, link.lag_ms),
            backlog => format!("{} {} ({backlog} waiting)", link.peer, link.lag_ms),
        });
        let mark = match (region.policy_errors.is_empty(), &region.policy_waiting) {
            (false, _) => " !",
            (true, Some(_)) => " ?",
            (true, None) => "",
        };
        table.add_row([
            Cell::new(name),
            state,
            Cell::new(format!("http://{}", region.gateway)),
            Cell::new(region.dns),
            Cell::new(trips),
            Cell::new(lags.collect::<Vec<_>>().join("\n")),
            Cell::new(format!("{} ({}){mark}", region.generation, region.policy_hash)),
        ]);
    }
    let others = status.strangers.iter().map(|id| (id, "another deployment"));
    let gone = status.unreachable.iter().filter(|id| !status.strangers.contains(id)).map(|id| (id, "no answer"));
    for (id, what) in others.chain(gone) {
        let gone = Cell::new(what);
        let gone = if colour { gone.fg(Color::Red).add_attribute(Attribute::Bold) } else { gone };
        table.add_row([Cell::new(id), gone, Cell::new(""), Cell::new(""), Cell::new(""), Cell::new(""), Cell::new("")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_does_not_answer_is_shown_as_such() {
        let missing = RegionId::new("eu-west").unwrap();
        let status = ClusterStatus {
            generation: 0,
            primary: None,
            term: 0,
            regions: vec![],
            unreachable: vec![missing],
            strangers: vec![],
            edges: None,
        };
        let drawn = table(&status).to_string();
        assert!(drawn.contains("eu-west") && drawn.contains("no answer"), "{drawn}");
    }

    #[test]
    fn a_cut_link_a_drain_and_every_made_up_delay_are_said_under_the_table() {
        let region: RegionStatus = serde_json::from_value(serde_json::json!({
            "id": "us-east", "name": "us-east-1", "state": "ready", "gateway": "127.0.1.1:8080",
            "admin": "127.0.1.1:9090", "dns": "127.0.1.1:5300", "generation": 1, "policy_hash": "abc",
            "policy_errors": [], "primary": null, "sees": {"eu-west": "down", "ap-southeast": "ready"},
            "rtt_ms": {}, "replication": [], "plan": {"drain": ["ap-southeast"], "shift": 100, "promote": null},
            "emulated_delay_ms": {"eu-west": 34.0}, "emulated_loss": {"eu-west": 0.05},
            "emulated_cut": {"eu-west": "both"},
            "control": {"node": 1, "role": "follower", "term": 3, "voters": [], "learners": [], "limits": "no primary"},
        }))
        .unwrap();
        let status = ClusterStatus {
            generation: 1,
            primary: None,
            term: 0,
            regions: vec![region],
            unreachable: vec![],
            strangers: vec![RegionId::new("eu-west").unwrap()],
            edges: None,
        };
        let expected = [
            "us-east: no primary",
            "us-east sees eu-west as down",
            "us-east: failover-plan drains ap-southeast",
            "us-east to eu-west: the link is cut (emulated): nothing passes",
            "us-east: emulated delay to eu-west 34.0 ms one way 5.0 % lost",
        ];
        assert_eq!(notes(&status), expected);
        let drawn = table(&status).to_string();
        assert!(drawn.contains("another deployment"), "{drawn}");
    }
}
