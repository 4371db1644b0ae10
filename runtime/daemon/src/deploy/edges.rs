//! The edges before the regions of this machine: one process keeps them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use clap::ValueEnum;
use model::RegionId;
use model::region::{Region, Regions};
use model::status::EdgeStatus;

use super::processes::{Deployment, Role};
use super::text;
use crate::args::{LocalEdge, Place};

/// How far beyond the primary's gateway the worker listens; its block has room there.
const WORKER_PORT: u16 = 40;
/// The same for Varnish.
const VARNISH_PORT: u16 = 41;

/// The process that keeps the edges, where there are to be some.
pub fn plan<'a>(
    place: &Place,
    regions: &'a Regions,
    wanted: &BTreeSet<LocalEdge>,
) -> anyhow::Result<Option<(Role, &'a Region, Vec<String>)>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let primary = &regions.by_id[&regions.primary];
    let (tree, state) = (text(&place.tree)?, text(&place.state)?);
    let words = [&text(&executable)?, "edge", "run", "--tree", &tree, "--state", &state];
    let mut command = words.map(str::to_owned).to_vec();
    for (_, flag, at) in places(primary).into_iter().filter(|(edge, _, _)| wanted.contains(edge)) {
        command.extend([flag.to_owned(), at.to_string()]);
    }
    Ok(Some((Role::Edge, primary, command)))
}

/// Where each edge listens, and the flag of `edge run` that says so.
pub fn places(primary: &Region) -> [(LocalEdge, &'static str, SocketAddr); 2] {
    let gateway = primary.addresses.gateway;
    let at = |further| SocketAddr::new(gateway.ip(), gateway.port().saturating_add(further));
    [(LocalEdge::Worker, "--worker", at(WORKER_PORT)), (LocalEdge::Varnish, "--varnish", at(VARNISH_PORT))]
}

/// Refuses to have other edges than those that run; a deployment that asks for none leaves them alone.
pub fn same(running: &Deployment, regions: &Regions, wanted: &BTreeSet<LocalEdge>, state: &Path) -> anyhow::Result<()> {
    let Some(process) = running.running(Role::Edge, &regions.primary) else { return Ok(()) };
    let all = places(&regions.by_id[&regions.primary]);
    let run: BTreeSet<LocalEdge> = all
        .into_iter()
        .filter(|(_, flag, _)| process.command.iter().any(|word| word == flag))
        .map(|(edge, ..)| edge)
        .collect();
    if wanted.is_empty() || *wanted == run {
        return Ok(());
    }
    let words = |edges: &BTreeSet<LocalEdge>| {
        let names: Vec<String> =
            edges.iter().filter_map(|edge| Some(edge.to_possible_value()?.get_name().to_owned())).collect();
        names.join(",")
    };
    bail!(
        "{} holds a running deployment with --with-edge={}, not {}; deploy it as it was started, or run `repomind-run \
         destroy` first",
        state.display(),
        words(&run),
        words(wanted)
    )
}

/// Why the edges are waited for, where there are some.
pub fn wait_for(state: &Path, deployment: &Deployment) -> Option<String> {
    let edges = crate::status::edges(state, deployment)?;
    if edges.edges.is_empty() {
        return Some("the edges have not begun".to_owned());
    }
    // While regions join, one order follows the other; the first is no sign that all is well.
    let behind = |edge: &&EdgeStatus| !edge.up || edge.tag != edges.told || !edge.down.is_empty();
    edges.edges.iter().find(behind).map(|edge| {
        let down: Vec<&str> = edge.down.iter().map(RegionId::as_str).collect();
        let why = match &edge.error {
            Some(error) => error.clone(),
            None if !edge.up => "comes up".to_owned(),
            None if down.is_empty() => "has to follow what is in force".to_owned(),
            None => format!("passes over {}", down.join(", ")),
        };
        format!("the edge {}: {why}", edge.backend)
    })
}
