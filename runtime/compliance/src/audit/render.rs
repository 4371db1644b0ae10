//! A report as people and tools read it.
//!
//! Every form says the same: what was found, how much each check looked at, and
//! what was not checked. None says that a law is complied with: an audit sees
//! encoded rules and stored bytes, not lawfulness.

mod html;
mod junit;
mod sarif;
mod text;

pub use html::html;
pub use junit::junit;
pub use sarif::sarif;
pub use text::text;

use serde_json::Value;

use super::report::{CheckRun, Outcome, Report};

/// The report in JSON with sorted keys and no white space (RFC 8785; there are no fractions in it), so that equal
/// reports are equal bytes.
pub fn json(report: &Report) -> String {
    canonical(&serde_json::to_value(report).expect("plain data always becomes JSON"))
}

/// JSON with sorted keys and no white space. All keys here are ASCII, where the order by bytes is that of RFC 8785.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members.iter().map(|(name, value)| format!("{}:{}", quoted(name), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Text inside XML and HTML, in elements and quoted attributes. Characters that XML 1.0 forbids become U+FFFD.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            '\0'..='\u{1F}' | '\u{7F}'..='\u{9F}' | '\u{FFFE}' | '\u{FFFF}' => safe.push('\u{FFFD}'),
            _ => safe.push(c),
        }
    }
    safe
}

/// By what and when: `encoded rules, revision 7 (tree 0102…), 2026-01-01T00:00:00Z`.
fn by_what(report: &Report) -> String {
    let revision = &report.revision;
    format!("encoded rules, revision {} (tree {}), date {}", revision.generation, revision.tree, report.at.rfc3339())
}

/// The outcome in one sentence, and a second one where the data was made up.
fn verdict(report: &Report) -> String {
    let mut verdict = outcome(report);
    if report.synthetic {
        verdict.push_str(" The data was made up for this audit: nothing that anybody stores was looked at.");
    }
    verdict
}

fn outcome(report: &Report) -> String {
    let by = by_what(report);
    let count = report.findings.len() as u64 + report.findings_left_out;
    match report.outcome {
        Outcome::Pass => format!("Verified against {by}: no violation was found in what was checked."),
        Outcome::Violations if count == 1 => format!("Checked against {by}: 1 violation was found."),
        Outcome::Violations => format!("Checked against {by}: {count} violations were found."),
        Outcome::Incomplete => {
            format!("Checked in part against {by}: no violation was found, but too little was checked to conclude.")
        }
    }
}

/// How far a check went, in words.
fn extent(run: &CheckRun) -> String {
    let ran = format!("ran on {} {}", run.examined, run.unit);
    match (run.examined, run.not_run.is_empty()) {
        (0, false) => "not run".to_owned(),
        (_, false) => format!("{ran}, and not everywhere"),
        (_, true) => ran,
    }
}

#[cfg(test)]
mod tests;
