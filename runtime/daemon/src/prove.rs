//! `repomind-run prove`: what policy files say must never happen, for every case.
//!
//! Exit code 0 when all of it holds, 1 when something does not, was not proved in
//! time, or the tree is not good.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use model::Finding;
use model::question::Invariant;

use crate::args::{FINDING, ProveArgs};
use crate::deploy::BadConfiguration;
use crate::start::generations::RefusedGeneration;
use crate::start::proofs::{Outcome, prove_one, unfinished};

/// Proves the invariants of a tree.
///
/// # Errors
/// Where the policy host cannot be started, or the tree has no such invariant.
pub async fn run(args: &ProveArgs) -> anyhow::Result<ExitCode> {
    let regions = config::load(&args.tree).map_err(BadConfiguration)?;
    let tree = crate::start::watch::read_tree(&args.tree).map_err(BadConfiguration)?;
    let host = crate::aside::host(crate::aside::LOAD, crate::aside::QUESTION)?;
    let facts = crate::aside::facts(&regions);
    let (child, declarations) = match host.load(tree, facts.clone()).await {
        Ok(loaded) => loaded,
        Err(findings) => return Ok(refused(&findings, args.json)),
    };
    let only = args.only.as_deref();
    let chosen = |invariant: &Invariant| {
        only.is_none_or(|word| [&invariant.file, &invariant.sentence].iter().any(|text| text.contains(word)))
    };
    let mut proofs = Vec::new();
    for (number, invariant) in declarations.invariants.iter().enumerate().filter(|(_, one)| chosen(one)) {
        let begun = Instant::now();
        let until = begun + Duration::from_secs(args.seconds);
        let finding = match prove_one(&child, (number, invariant), &facts, until, |_| ()).await {
            Ok(Outcome::Proved) => None,
            Ok(Outcome::Refuted(finding)) => Some(finding),
            Ok(Outcome::Unfinished(checked)) => Some(unfinished(invariant, checked)),
            Err(RefusedGeneration::Findings(findings)) => findings.into_iter().next(),
            Err(error) => bail!("{error}"),
        };
        proofs.push((invariant, begun.elapsed(), finding));
        if !args.json {
            say(&proofs[proofs.len() - 1]);
        }
    }
    host.shutdown();
    if proofs.is_empty() {
        bail!("no invariant has {:?} in its file or sentence", only.unwrap_or(""));
    }
    let failed = proofs.iter().filter(|(.., finding)| finding.is_some()).count();
    if args.json {
        let all: Vec<_> = proofs.iter().map(json).collect();
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "good": failed == 0, "proofs": all }))?);
    } else {
        println!("{} invariants, {failed} not proved", proofs.len());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

type Proof<'a> = (&'a Invariant, Duration, Option<Finding>);

fn say((invariant, took, finding): &Proof<'_>) {
    let Invariant { sentence, space, cases, .. } = invariant;
    let mark = if finding.is_some() { "FAILED" } else { "proved" };
    println!("{mark} {:>9.1} ms  {sentence}: {cases} cases ({space})", took.as_secs_f64() * 1000.0);
    if let Some(finding) = finding {
        println!("{}\n", finding.render(std::io::stdout().is_terminal()));
    }
}

fn json((invariant, took, finding): &Proof<'_>) -> serde_json::Value {
    serde_json::json!({
        "file": invariant.file, "line": invariant.line, "sentence": invariant.sentence, "space": invariant.space,
        "cases": invariant.cases, "took_us": took.as_micros() as u64, "finding": finding,
    })
}

fn refused(findings: &[Finding], json: bool) -> ExitCode {
    if json {
        println!("{}", serde_json::json!({ "good": false, "proofs": [], "findings": findings }));
    }
    findings.iter().for_each(|finding| eprintln!("{}\n", finding.render(std::io::stderr().is_terminal())));
    eprintln!("the tree is not good, so nothing was proved");
    ExitCode::from(FINDING)
}
