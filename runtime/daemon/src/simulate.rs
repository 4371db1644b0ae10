//! `repomind-run simulate`: what regions and policies mean for the whole world.
//!
//! The policies are asked as a region would ask them, in their cage, for every
//! country; what they say is masked and held to the law by the code that serves
//! requests. Clients, distances and drawings are of the room `world`. Nothing is
//! started and nothing is changed. `docs/simulate.md` says what the figures are
//! worth.

pub mod planner;
mod report;
mod search;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use model::region::Regions;
use model::routing::RegionState;
use model::{Finding, RegionId};
use world::draw::{Curve, Marker};
use world::{Access, Crowd, Outcome, PathModel};

use self::planner::{Planner, Table};
use self::report::{Lost, Report, Row};
use crate::args::{FINDING, SimulateArgs, USAGE};
use crate::deploy::BadConfiguration;

/// The round trip that is asked for, between regions and to users.
const LIMIT_MS: f64 = 100.0;

/// Runs the simulation.
///
/// # Errors
/// Where the policy host cannot be started, gives no usable answer, or a file cannot be written.
pub async fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let used = config::load(&args.tree).map_err(BadConfiguration)?;
    let more: Vec<String> = args.with.iter().filter(|id| !used.by_id.contains_key(id.as_str())).cloned().collect();
    if let Some(unknown) = more.iter().find(|id| !config::available(&args.tree).contains(id)) {
        eprintln!("error: there is no region-config/available/{unknown}.yml");
        return Ok(ExitCode::from(USAGE));
    }
    let regions = config::load_with(&args.tree, &more).map_err(BadConfiguration)?;
    if let Some(unknown) = args.seen_from.as_ref().filter(|id| !regions.by_id.contains_key(*id)) {
        eprintln!("error: no region is called {unknown}");
        return Ok(ExitCode::from(USAGE));
    }
    let planner = match Planner::load(&args.tree, &regions, args.seen_from.clone()).await? {
        Ok(planner) => planner,
        Err(findings) => return Ok(refused(&findings)),
    };
    let access = Access { mobile: args.mobile, ..Access::default() };
    let crowd = Crowd::draw(args.seed, args.clients, access);
    let table = planner.table(regions.clone()).await?;
    let now = table.meet(&crowd, &table.ready(), None);
    let lost = losses(&planner, &table, &crowd, &now);
    let mut report = Report::of(&args, access, &regions, (&table, &now));
    report.personal_refused = planner.refused_by_law(&table, &table.ready());
    report.if_lost = lost.iter().map(|(row, _)| row.clone()).collect();
    let found = if args.no_search { None } else { Some(search::run(&planner, &table, &crowd, access).await?) };
    planner.shutdown();
    if let Some(found) = &found {
        report.add_next = found.next.clone();
        report.smallest = found.smallest.clone();
        report.growing = found.growing.clone();
    }
    if let Some(folder) = &args.out {
        let imagined = found.as_ref().map_or(&[][..], |found| &found.outcomes);
        write(folder, &report, (&table, &now), &Imagined { lost: &lost, sets: imagined })?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
        if let Some(folder) = &args.out {
            println!("drawn: {0}/map.svg and {0}/cdf.svg; {0}/report.json has all figures", folder.display());
        }
    }
    let missed = args.require_p95.filter(|limit| report.all.p95 >= *limit || now.refused > 0);
    if let Some(limit) = missed {
        eprintln!("95 of 100 clients wait less than {:.1} ms, and not less than {limit:.1} ms", report.all.p95);
    }
    Ok(if missed.is_some() { ExitCode::from(FINDING) } else { ExitCode::SUCCESS })
}

fn refused(findings: &[Finding]) -> ExitCode {
    findings.iter().for_each(|finding| eprintln!("{}\n", finding.render(false)));
    ExitCode::from(FINDING)
}

/// What the loss of each region would mean.
fn losses(planner: &Planner, table: &Table, crowd: &Crowd, now: &Outcome) -> Vec<(Lost, Outcome)> {
    let lose = |id: &RegionId| {
        let mut states = table.ready();
        states.insert(id.clone(), RegionState::Down);
        let outcome = table.meet(crowd, &states, None);
        let moved = now
            .countries
            .iter()
            .filter(|(country, (before, _))| outcome.countries.get(*country).is_some_and(|(after, _)| before != after));
        let moved: u64 = moved.map(|(_, (_, spread))| spread.count()).sum();
        let lost = Lost {
            region: id.clone(),
            moved: moved as f64 / crowd.len() as f64,
            refused: outcome.refused as f64 / crowd.len() as f64,
            personal_refused: planner.refused_by_law(table, &states),
            all: outcome.all.summary(),
            regions: report::regions(table, &outcome, crowd.len()),
        };
        (lost, outcome)
    };
    if table.regions.by_id.len() < 2 {
        return Vec::new();
    }
    table.ids.iter().map(lose).collect()
}

/// What is not, and is drawn beside what is.
struct Imagined<'a> {
    /// Each region lost.
    lost: &'a [(Lost, Outcome)],
    /// Other sets of regions, each with its name.
    sets: &'a [(String, Outcome)],
}

fn write(
    folder: &Path,
    report: &Report,
    (table, now): (&Table, &Outcome),
    imagined: &Imagined<'_>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let markers = table.ids.iter().zip(&table.places);
    let markers: Vec<_> = markers.map(|(id, at)| Marker { name: id.to_string(), at: *at, serves: true }).collect();
    let title = format!(
        "{} regions: half of all users within {:.0} ms, 95 % within {:.0} ms",
        table.ids.len(),
        report.all.p50,
        report.all.p95
    );
    let map = world::draw::map(&title, &now.homes, &markers);
    let mut curves = vec![curve(format!("these {} regions", table.ids.len()), now, false)];
    curves.extend(imagined.sets.iter().map(|(name, outcome)| curve(name.clone(), outcome, false)));
    curves.extend(
        imagined.lost.iter().take(4).map(|(lost, outcome)| curve(format!("without {}", lost.region), outcome, true)),
    );
    let cdf = world::draw::cdf("How many users wait no longer", &curves);
    let json = serde_json::to_string_pretty(report)? + "\n";
    for (name, text) in [("map.svg", &map), ("cdf.svg", &cdf), ("report.json", &json)] {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

fn curve(name: String, outcome: &Outcome, dashed: bool) -> Curve<'_> {
    Curve { name, spread: &outcome.all, refused: outcome.refused, dashed }
}

/// The load of each region against what it can take, at so many requests a second from all clients.
fn loads(regions: &Regions, rows: &mut [Row], rate: u32) {
    let capacity: BTreeMap<&str, (f64, u32)> = regions
        .by_id
        .iter()
        .map(|(id, region)| (id.as_str(), (f64::from(region.capacity.per_instance_rps), region.capacity.max_instances)))
        .collect();
    for row in rows {
        let (each, most) = capacity[row.name.as_str()];
        let load = row.share * f64::from(rate);
        row.instances = Some((load / each).ceil() as u32);
        row.max_instances = Some(most);
        row.load = Some(load / (each * f64::from(most)));
    }
}

/// Region to region: the pairs of the tree, as measured or modelled.
fn tree_pairs(table: &Table) -> Vec<report::TreePair> {
    let model = PathModel::bundled();
    let mut pairs = Vec::new();
    let all: Vec<_> = table.regions.by_id.values().collect();
    for (at, one) in all.iter().enumerate() {
        for other in &all[at + 1..] {
            let km = one.coordinates.kilometres_to(other.coordinates);
            pairs.push(report::TreePair {
                one: one.id.clone(),
                other: other.id.clone(),
                light_ms: world::light_ms(km),
                round_trip_ms: model.between((&one.name, one.coordinates), (&other.name, other.coordinates)),
                measured: world::is_measured(&one.name, &other.name),
            });
        }
    }
    pairs
}
