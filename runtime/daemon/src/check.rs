//! `repomind-run check`: everything that could be wrong in a tree, without starting it.

use std::process::ExitCode;

use model::{ByteCount, Finding, Millis};
use policy::{HostLimits, PolicyHost};

use crate::cli::{FINDING, Place};

/// Checks regions and policies of the tree, the policies' own tests included.
///
/// # Errors
/// Where the policy host cannot be started.
pub async fn run(place: &Place) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    let regions = config::load(&place.tree).map_err(|found| findings.extend(found)).ok();
    let tree = crate::start::watch::read_tree(&place.tree).map_err(|found| findings.extend(found)).ok();
    let mut tests = 0;
    if let (Some(regions), Some(tree)) = (&regions, tree) {
        let host = PolicyHost::start(
            &std::env::current_exe()?,
            crate::embedded::library(),
            HostLimits { load: Millis(10_000), question: Millis(2_000), memory: ByteCount(512 << 20) },
        )?;
        let tracker = routing::HealthTracker::new(regions.by_id.keys().cloned().collect());
        let facts = routing::facts(regions, &regions.primary, &tracker, &routing::classes());
        match host.load(tree, facts).await {
            Ok((_, declarations)) => tests = declarations.tests_passed,
            Err(found) => findings.extend(found),
        }
        host.shutdown();
    }
    Ok(report(&findings, regions.map_or(0, |regions| regions.by_id.len()), tests))
}

fn report(findings: &[Finding], regions: usize, tests: u32) -> ExitCode {
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    for finding in findings {
        eprintln!("{}\n", finding.render(colour));
    }
    if findings.is_empty() {
        println!("good: {regions} regions, {tests} policy tests passed");
        ExitCode::SUCCESS
    } else {
        eprintln!("{} finding(s)", findings.len());
        ExitCode::from(FINDING)
    }
}
