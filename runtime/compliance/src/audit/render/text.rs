//! For a terminal.

use std::fmt::Write as _;

use super::super::report::{Outcome, Report};
use super::{extent, verdict};

/// The report as text, without colours.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let word = match report.outcome {
        Outcome::Pass => "PASS",
        Outcome::Violations => "VIOLATIONS",
        Outcome::Incomplete => "INCOMPLETE",
    };
    write(&mut out, report, word).expect("text is written to memory");
    out
}

fn write(out: &mut String, report: &Report, word: &str) -> std::fmt::Result {
    writeln!(out, "{word}: {}\n\nregions", verdict(report))?;
    for region in &report.regions {
        match &region.unreached {
            Some(reason) => writeln!(out, "  {:<16} not reached: {reason}", region.region)?,
            None => {
                let checkpoint =
                    region.checkpoint.map_or("no checkpoint".to_owned(), |size| format!("checkpoint at {size}"));
                writeln!(
                    out,
                    "  {:<16} {} records, {} leaves, {checkpoint}, {} witnesses, {} findings",
                    region.region,
                    region.records,
                    region.leaves,
                    region.witnesses.len(),
                    region.findings
                )?;
            }
        }
    }
    writeln!(out, "\nchecks")?;
    for run in &report.checks {
        writeln!(out, "  {}  {:<4} {}: {}", run.check, run.findings, run.title, extent(run))?;
        for limit in &run.limits {
            writeln!(out, "               unseen: {limit}")?;
        }
        for missed in &run.not_run {
            writeln!(out, "               not run in {}: {}", missed.region, missed.reason)?;
        }
    }
    if !report.findings.is_empty() {
        writeln!(out, "\nfindings")?;
    }
    for finding in &report.findings {
        let record = finding.record.as_ref().map_or(String::new(), |record| format!(" record {record}"));
        let generation = finding.generation.map_or(String::new(), |number| format!(" (generation {number})"));
        let (severity, check, region) = (finding.severity, finding.check, &finding.region);
        writeln!(out, "  {severity:<8} {check} {region}{record}: {}{generation}", finding.rule)?;
        writeln!(out, "           remedy: {}", finding.remedy)?;
        writeln!(out, "           evidence: sha256 {}", finding.evidence)?;
    }
    if report.findings_left_out > 0 {
        writeln!(out, "  and {} more", report.findings_left_out)?;
    }
    let ids: Vec<&str> = report.not_performed.iter().map(|check| check.check).collect();
    writeln!(out, "\nnot performed by this audit: {}", ids.join(", "))
}
