//! Shows every region as it sees itself and the others.
//!
//! Exit code 0 when all regions answer and serve, 1 when one does not, 2 when
//! none answers.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;

use comfy_table::{Attribute, Cell, Color, Table, presets};
use model::RegionId;
use model::status::{ClusterStatus, RegionStatus};

use crate::cli::{FINDING, NOT_RUN, Place, StatusArgs};
use crate::client::Client;
use crate::deploy::BadConfiguration;
use crate::deploy::processes::Deployment;

/// `repomind-run status`.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let deployment = at(&args.place)?;
    let client = Client::new(&args.place.state)?;
    let status = gather(&client, &deployment.admins(), &deployment.primary).await;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        println!("{}", table(&status));
        for region in &status.regions {
            for error in &region.policy_errors {
                println!("{}: policies on disk are not in force: {error}", region.id);
            }
        }
        for said in status.regions.iter().filter_map(|region| region.policy_proving.as_ref()) {
            println!("\nproving before the saved files come into force: {said}");
        }
        for waiting in status.regions.iter().filter_map(|region| region.policy_waiting.as_ref()) {
            println!("\nA change goes beyond the bounds of a change and waits for a word:");
            crate::policy::account(waiting).iter().for_each(|line| println!("{line}"));
        }
        if status.regions.is_empty() {
            println!("no region answers; start them with `repomind-run deploy`");
        }
    }
    let code = if status.regions.is_empty() {
        ExitCode::from(NOT_RUN)
    } else if !status.unreachable.is_empty() || status.regions.iter().any(|region| !region.state.serves()) {
        ExitCode::from(FINDING)
    } else {
        ExitCode::SUCCESS
    };
    Ok(code)
}

/// The recorded deployment, else the addresses that the tree gives.
pub fn at(place: &Place) -> anyhow::Result<Deployment> {
    match Deployment::read(&place.state)? {
        Some(deployment) => Ok(deployment),
        None => Ok(Deployment::new(place.tree.clone(), &config::load(&place.tree).map_err(BadConfiguration)?)),
    }
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
    let first = regions.first().map(|region| region.primary.clone());
    let primary = first.filter(|primary| regions.iter().all(|region| region.primary == *primary));
    ClusterStatus {
        generation: regions.iter().map(|region| region.generation).max().unwrap_or(0),
        primary,
        regions,
        unreachable,
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
    for id in &status.unreachable {
        let gone = Cell::new("no answer");
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
        let status = ClusterStatus { generation: 0, primary: None, regions: vec![], unreachable: vec![missing] };
        let drawn = table(&status).to_string();
        assert!(drawn.contains("eu-west") && drawn.contains("no answer"), "{drawn}");
    }
}
