//! JUnit XML, for build servers: one test case a check. A check that did not run
//! everywhere and found nothing is skipped, never passed.

use std::fmt::Write as _;

use super::super::report::{CheckRun, Report};
use super::{escaped, extent, verdict};

/// The report as JUnit XML. Checks that this audit does not perform are skipped cases.
pub fn junit(report: &Report) -> String {
    let cases: Vec<String> = report.checks.iter().map(|run| case(report, run)).collect();
    let failures = report.checks.iter().filter(|run| run.findings > 0).count();
    let skipped =
        report.checks.iter().filter(|run| run.findings == 0 && !whole(run)).count() + report.not_performed.len();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let tests = report.checks.len() + report.not_performed.len();
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let at = report.at.rfc3339();
    let _ = writeln!(out, "<testsuites name=\"repomind audit\" {counts}>");
    // The schema wants local time without a zone.
    let _ =
        writeln!(out, "  <testsuite name=\"audit\" {counts} timestamp=\"{}\" time=\"0\">", at.trim_end_matches('Z'));
    let synthetic = report.synthetic;
    let _ = writeln!(out, "    <properties><property name=\"synthetic\" value=\"{synthetic}\"/></properties>");
    cases.iter().for_each(|case| out.push_str(case));
    for check in &report.not_performed {
        let name = escaped(&format!("{}: {}", check.check, check.title));
        let skip = "<skipped message=\"this audit does not perform the check\"/>";
        let _ = writeln!(out, "    <testcase classname=\"audit\" name=\"{name}\" time=\"0\">{skip}</testcase>");
    }
    let _ = writeln!(out, "    <system-out>{}</system-out>", escaped(&verdict(report)));
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn whole(run: &CheckRun) -> bool {
    run.not_run.is_empty()
}

fn case(report: &Report, run: &CheckRun) -> String {
    let name = escaped(&format!("{}: {}", run.check, run.title));
    let mut out = format!("    <testcase classname=\"audit\" name=\"{name}\" time=\"0\">\n");
    if run.findings > 0 {
        let message = escaped(&format!("{} findings, {}", run.findings, run.severity));
        let _ = write!(out, "      <failure type=\"{}\" message=\"{message}\">", run.check);
        for finding in report.findings.iter().filter(|finding| finding.check == run.check) {
            let record = finding.record.as_deref().unwrap_or("-");
            let line = format!("{} {record}: {}; {}", finding.region, finding.rule, finding.remedy);
            let _ = writeln!(out, "{}", escaped(&line));
        }
        out.push_str("</failure>\n");
    } else if !whole(run) {
        let missed: Vec<String> =
            run.not_run.iter().map(|missed| format!("{}: {}", missed.region, missed.reason)).collect();
        let _ = writeln!(out, "      <skipped message=\"{}\"/>", escaped(&missed.join("; ")));
    }
    let missed = run.not_run.iter().map(|missed| format!("not run in {}: {}", missed.region, missed.reason));
    let seen: Vec<String> = std::iter::once(extent(run)).chain(run.limits.iter().cloned()).chain(missed).collect();
    let _ = writeln!(out, "      <system-out>{}</system-out>\n    </testcase>", escaped(&seen.join("\n")));
    out
}
