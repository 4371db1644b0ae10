//! One page for a data protection officer: no script, no style sheet, no font
//! and no picture from elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::report::{Outcome, Report};
use super::{escaped, extent, verdict};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;width:100%;margin:1rem 0}\
th,td{border:1px solid #bbb;padding:.3rem .6rem;text-align:left;vertical-align:top}th{background:#f2f2f2}\
.verdict{padding:1rem;border-left:.5rem solid}.pass{border-color:#2a7d2a}.violations{border-color:#b3261e}\
.incomplete{border-color:#b87700}code{font-size:.85em;overflow-wrap:anywhere}";

/// The report as a page of HTML.
pub fn html(report: &Report) -> String {
    let class = match report.outcome {
        Outcome::Pass => "pass",
        Outcome::Violations => "violations",
        Outcome::Incomplete => "incomplete",
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Data residency audit, {}</title><style>{STYLE}</style></head><body>\n\
         <h1>Data residency audit</h1>\n<p class=\"verdict {class}\"><strong>{}</strong></p>\n",
        report.at.rfc3339(),
        escaped(&verdict(report)),
    );
    out.push_str(
        "<p>This report compares stored data with rules that were written down for a computer. It says nothing about \
         rules that were not written down, nor about checks listed below as not performed, and it is no legal \
         advice.</p>\n",
    );
    regions(&mut out, report);
    checks(&mut out, report);
    by_rule(&mut out, report);
    findings(&mut out, report);
    processing(&mut out, report);
    unchecked(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn table(out: &mut String, heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let cells = |tag: &str, cells: Vec<String>| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
    };
    let heads = cells("th", heads.iter().map(|head| (*head).to_owned()).collect());
    let _ = writeln!(out, "<table><thead><tr>{heads}</tr></thead><tbody>");
    for row in rows {
        let _ = writeln!(out, "<tr>{}</tr>", cells("td", row));
    }
    out.push_str("</tbody></table>\n");
}

fn regions(out: &mut String, report: &Report) {
    out.push_str("<h2>By region</h2>\n");
    let rows = report.regions.iter().map(|region| {
        let witnesses: Vec<String> = region.witnesses.iter().map(ToString::to_string).collect();
        vec![
            region.region.to_string(),
            region.unreached.as_ref().map_or("yes".to_owned(), |reason| format!("no: {reason}")),
            region.records.to_string(),
            region.leaves.to_string(),
            region.checkpoint.map_or("none".to_owned(), |size| format!("over {size} leaves")),
            if witnesses.is_empty() { "none".to_owned() } else { witnesses.join(", ") },
            region.findings.to_string(),
        ]
    });
    let heads = ["Region", "Reached", "Records read", "Ledger leaves", "Checkpoint", "Witnessed by", "Findings"];
    table(out, &heads, rows);
}

fn checks(out: &mut String, report: &Report) {
    out.push_str("<h2>By check</h2>\n");
    let rows = report.checks.iter().map(|run| {
        vec![
            run.check.to_string(),
            run.title.to_owned(),
            extent(run),
            run.severity.to_string(),
            run.findings.to_string(),
        ]
    });
    table(out, &["Check", "It makes sure that", "Extent", "Severity", "Findings"], rows);
}

fn by_rule(out: &mut String, report: &Report) {
    let mut rules: BTreeMap<(String, &str), (u64, Vec<String>)> = BTreeMap::new();
    for finding in &report.findings {
        let (count, regions) = rules.entry((finding.check.to_string(), &finding.rule)).or_default();
        *count += 1;
        if !regions.contains(&finding.region.to_string()) {
            regions.push(finding.region.to_string());
        }
    }
    if rules.is_empty() {
        return;
    }
    out.push_str("<h2>By rule</h2>\n");
    let rows = rules
        .into_iter()
        .map(|((check, rule), (count, regions))| vec![rule.to_owned(), check, count.to_string(), regions.join(", ")]);
    table(out, &["Rule broken", "Check", "Findings", "Regions"], rows);
}

fn findings(out: &mut String, report: &Report) {
    out.push_str("<h2>Findings</h2>\n");
    if report.findings.is_empty() {
        out.push_str("<p>None in what was checked.</p>\n");
        return;
    }
    let rows = report.findings.iter().map(|finding| {
        vec![
            format!("{} ({})", finding.check, finding.severity),
            finding.region.to_string(),
            finding.record.clone().unwrap_or_else(|| "\u{2013}".to_owned()),
            finding.rule.clone(),
            finding.generation.map_or("unknown".to_owned(), |number| number.to_string()),
            finding.remedy.to_owned(),
            finding.evidence.clone(),
        ]
    });
    table(out, &["Check", "Region", "Record (hash)", "What", "Generation", "Remedy", "Evidence (SHA-256)"], rows);
    if report.findings_left_out > 0 {
        let _ = writeln!(out, "<p>{} more are counted and not described.</p>", report.findings_left_out);
    }
}

fn processing(out: &mut String, report: &Report) {
    out.push_str("<h2>Processing activities observed (for the record under Article 30)</h2>\n");
    if report.processing.is_empty() {
        out.push_str("<p>No value about a person was seen.</p>\n");
        return;
    }
    out.push_str(
        "<p>What stored bytes show. Who the controller is, whom the data is shown to and how it is protected beyond \
         encryption at rest has to be added.</p>\n",
    );
    let rows = report.processing.iter().map(|activity| {
        let name = &activity.name;
        let from: Vec<&str> = activity.from.iter().map(String::as_str).collect();
        vec![
            name.namespace.clone(),
            name.class.clone(),
            name.jurisdiction.clone(),
            name.purpose.clone(),
            name.basis.clone(),
            match &activity.country {
                Some(country) => format!("{} ({country})", name.region),
                None => name.region.to_string(),
            },
            if from.is_empty() { "nowhere else".to_owned() } else { from.join(", ") },
            activity.values.to_string(),
            format!("{} of {}", activity.encrypted, activity.values),
            format!("{} of {}", activity.until_stated, activity.values),
        ]
    });
    let heads = [
        "Namespace",
        "Class",
        "Law",
        "Purpose",
        "Basis",
        "Held in",
        "Came from",
        "Values",
        "Encrypted",
        "State an end",
    ];
    table(out, &heads, rows);
}

fn unchecked(out: &mut String, report: &Report) {
    out.push_str("<h2>What was not checked</h2>\n<ul>\n");
    for run in &report.checks {
        for missed in &run.not_run {
            let text = format!("{} did not run in {}: {}", run.check, missed.region, missed.reason);
            let _ = writeln!(out, "<li>{}</li>", escaped(&text));
        }
        for limit in &run.limits {
            let _ = writeln!(out, "<li>{}</li>", escaped(&format!("{}: {limit}", run.check)));
        }
    }
    out.push_str("</ul>\n<p>This audit does not perform these checks at all:</p>\n");
    let rows = report.not_performed.iter().map(|check| vec![check.check.to_owned(), check.title.to_owned()]);
    table(out, &["Check", "It would make sure that"], rows);
}
