//! SARIF 2.1.0 (OASIS), for tools that collect findings.

use serde_json::{Value, json};

use super::super::report::{CheckRun, Finding, Outcome, Report};
use super::{canonical, extent, verdict};

/// The report as a SARIF log with one run. Where a check did not run is a tool notification; a check that this audit
/// does not perform is no rule of it.
pub fn sarif(report: &Report) -> String {
    let rules: Vec<Value> = report.checks.iter().map(rule).collect();
    let results: Vec<Value> = report.findings.iter().map(|finding| result(report, finding)).collect();
    let mut notifications: Vec<Value> = Vec::new();
    for run in &report.checks {
        let missed = run.not_run.iter().map(|missed| format!("not run in {}: {}", missed.region, missed.reason));
        notifications.extend(missed.map(|text| notification(run, "error", &text)));
        notifications.extend(run.limits.iter().map(|limit| notification(run, "note", limit)));
    }
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "repomind-run audit",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "invocations": [{
                "executionSuccessful": report.outcome != Outcome::Incomplete,
                "exitCode": report.outcome.exit_code(),
                "endTimeUtc": report.at.rfc3339(),
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
            "properties": {
                "outcome": report.outcome,
                "verdict": verdict(report),
                "synthetic": report.synthetic,
                "revision": report.revision,
                "regions": report.regions,
                "findingsLeftOut": report.findings_left_out,
                "notPerformed": report.not_performed,
            },
        }],
    });
    canonical(&log)
}

fn rule(run: &CheckRun) -> Value {
    json!({
        "id": run.check,
        "shortDescription": { "text": run.title },
        "defaultConfiguration": { "level": "error" },
        "properties": { "severity": run.severity, "extent": extent(run), "findings": run.findings },
    })
}

fn notification(run: &CheckRun, level: &str, text: &str) -> Value {
    json!({ "level": level, "message": { "text": text }, "associatedRule": { "id": run.check } })
}

fn result(report: &Report, finding: &Finding) -> Value {
    let index = report.checks.iter().position(|run| run.check == finding.check);
    let record = finding.record.as_deref();
    let name = record.map_or(finding.region.to_string(), |record| format!("{}/{record}", finding.region));
    json!({
        "ruleId": finding.check,
        "ruleIndex": index,
        "level": "error",
        "message": { "text": format!("{}. Remedy: {}.", finding.rule, finding.remedy) },
        "locations": [{ "logicalLocations": [{
            "name": record.unwrap_or(finding.region.as_str()),
            "fullyQualifiedName": name,
            "kind": if record.is_some() { "record" } else { "region" },
        }] }],
        "partialFingerprints": { "evidence/v1": format!("{}/{name}/{}", finding.check, finding.evidence) },
        "properties": { "severity": finding.severity, "policyGeneration": finding.generation },
    })
}
