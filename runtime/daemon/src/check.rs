//! `repomind-run check`: everything that could be wrong in a tree, without starting it.

use std::path::Path;
use std::process::ExitCode;

use data::plans::Plans;
use model::Finding;
use model::bundle::PolicyTree;
use model::question::Declarations;
use model::region::Regions;
use model::routing::Facts;
use policy::Generation;

use crate::args::{CheckArgs, FINDING, USAGE};
use crate::aside::now;
use crate::start::generations::RefusedGeneration;
use crate::start::{edges, gate};

/// Checks regions and policies of the tree, the policies' own tests included.
///
/// # Errors
/// Where the policy host cannot be started.
pub async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    let regions = config::load(&args.tree).map_err(|found| findings.extend(found)).ok();
    let (mut tests, mut warnings) = (0, Vec::new());
    match &regions {
        Some(regions) => match policies(&args.tree, regions).await? {
            Ok(declarations) => (tests, warnings) = (declarations.tests_passed, declarations.warnings),
            Err(found) => findings.extend(found),
        },
        // The policies cannot be loaded without regions, but a file that is not there can be named.
        None => findings.extend(crate::start::watch::read_tree(&args.tree).err().unwrap_or_default()),
    }
    let regions = regions.map_or(0, |regions| regions.by_id.len());
    // What lies ready is checked as if all of it were in use: then any of it can be.
    let ready = if regions > 0 { config::available(&args.tree) } else { Vec::new() };
    findings.extend(config::load_with(&args.tree, &ready).err().unwrap_or_default());
    findings.dedup();
    if args.json {
        let report = serde_json::json!({
            "good": findings.is_empty(), "regions": regions, "available": ready, "policy_tests_passed": tests, "findings": findings,
            "warnings": warnings,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say(&findings, &warnings, (regions, ready.len()), tests);
    }
    Ok(match (findings.is_empty(), regions) {
        (true, _) => ExitCode::SUCCESS,
        // The region files themselves are bad: what `start` would refuse with the same code.
        (false, 0) => ExitCode::from(USAGE),
        (false, _) => ExitCode::from(FINDING),
    })
}

/// Loads the policies of a tree, their own tests included: what they declare, or all that is wrong with them.
///
/// # Errors
/// Where the policy host cannot be started.
pub async fn policies(tree: &Path, regions: &Regions) -> anyhow::Result<Result<Declarations, Vec<Finding>>> {
    let tree = match crate::start::watch::read_tree(tree) {
        Ok(tree) => tree,
        Err(findings) => return Ok(Err(findings)),
    };
    let host = crate::aside::host(crate::aside::LOAD, crate::aside::QUESTION)?;
    let facts = crate::aside::facts(regions);
    let loaded = host.load(tree.clone(), facts.clone()).await;
    let checked = match loaded {
        Ok((child, declarations)) => edge(&child, &declarations, (&tree, regions, &facts)).await.map(|()| declarations),
        Err(findings) => Err(RefusedGeneration::Findings(findings)),
    };
    host.shutdown();
    match checked {
        Ok(declarations) => Ok(Ok(declarations)),
        Err(RefusedGeneration::Findings(findings)) => Ok(Err(findings)),
        Err(error) => Err(error.into()),
    }
}

/// Compiles what is declared for the edge, with the plans that it is joined with.
async fn edge(
    child: &Generation,
    declarations: &Declarations,
    (tree, regions, facts): (&PolicyTree, &Regions, &Facts),
) -> Result<(), RefusedGeneration> {
    let residency = gate::residency(child, declarations, regions).await?;
    let routing = gate::route(child, facts).await?;
    let plans = Plans { residency, routing, edge: declarations.edge.clone(), ..Plans::deny_all() };
    edges::examined(&plans, tree, regions, now())
}

fn say(findings: &[Finding], warnings: &[Finding], (regions, ready): (usize, usize), tests: u32) {
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    for finding in findings.iter().chain(warnings) {
        eprintln!("{}\n", finding.render(colour));
    }
    if findings.is_empty() {
        let more = if ready > 0 { format!(" and {ready} that lie ready") } else { String::new() };
        println!("good: {regions} regions{more}, {tests} policy tests passed");
    } else {
        eprintln!("{} finding(s)", findings.len());
    }
}
