//! What an audit came to, and how much it looked at.

use std::collections::BTreeMap;

use model::{RegionId, UnixMillis};
use serde::Serialize;

use super::checks::{Check, NOT_PERFORMED, Severity};
use super::evidence::{Inputs, Revision};
use super::processing::Activity;
use super::tree::{Hash, hex, sha256};

/// Fewer regions than this were not an audit of a multi-region deployment.
pub const LEAST_REGIONS: usize = 3;
/// So many findings are described; more are counted.
pub const FINDING_LIMIT: usize = 10_000;
/// A record is named by so many bytes of its hash.
const RECORD_BYTES: usize = 8;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// How grave it is.
    pub severity: Severity,
    /// Where.
    pub region: RegionId,
    /// The record, as the beginning of the keyed hash of its key, in hexadecimal; none where it is about no record.
    pub record: Option<String>,
    /// SHA-256 of the bytes that were judged, in hexadecimal.
    pub evidence: String,
    /// The rule that was broken, or what was wrong with the bytes.
    pub rule: String,
    /// The policy generation in force when the record was written, where it says so.
    pub generation: Option<u64>,
    /// What to do.
    pub remedy: &'static str,
}

/// What an audit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every check ran everywhere and found nothing.
    Pass,
    /// Something is wrong.
    Violations,
    /// Too little was read to say: no records, fewer than [`LEAST_REGIONS`] regions, or a check that did not run.
    Incomplete,
}

impl Outcome {
    /// The exit code: 0, 1, 2.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Violations => 1,
            Self::Incomplete => 2,
        }
    }
}

/// Where a check did not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotRun {
    /// In this region.
    pub region: RegionId,
    /// Why.
    pub reason: String,
}

/// How much a check looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckRun {
    /// The check.
    pub check: Check,
    /// What it makes sure of.
    pub title: &'static str,
    /// How grave its findings are.
    pub severity: Severity,
    /// It looked at so many.
    pub examined: u64,
    /// Of these.
    pub unit: &'static str,
    /// And found so much wrong.
    pub findings: u64,
    /// What it could not see where it ran.
    pub limits: Vec<String>,
    /// Where it did not run.
    pub not_run: Vec<NotRun>,
}

/// What was read of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegionSummary {
    /// The region.
    pub region: RegionId,
    /// Why it was not reached; none where it was.
    pub unreached: Option<String>,
    /// Rows read.
    pub records: u64,
    /// Leaves of its ledger.
    pub leaves: u64,
    /// The size of its checkpoint, where one was read and verified.
    pub checkpoint: Option<u64>,
    /// The regions whose cosignatures on that were verified.
    pub witnesses: Vec<RegionId>,
    /// Findings there.
    pub findings: u64,
}

/// A check of the catalogue that is not performed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotPerformed {
    /// Its name.
    pub check: &'static str,
    /// What it would make sure of.
    pub title: &'static str,
}

/// An audit's report. Its JSON is made by [`super::render::json`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this form.
    pub schema: &'static str,
    /// What it came to.
    pub outcome: Outcome,
    /// When, by the auditor's clock.
    pub at: UnixMillis,
    /// Whether the data was made up for the audit: then it says nothing of what anybody stores.
    pub synthetic: bool,
    /// The policies that it judged by.
    pub revision: Revision,
    /// What was read, by region.
    pub regions: Vec<RegionSummary>,
    /// How far each check went.
    pub checks: Vec<CheckRun>,
    /// What is wrong, the gravest first.
    pub findings: Vec<Finding>,
    /// Findings beyond [`FINDING_LIMIT`], counted only.
    pub findings_left_out: u64,
    /// Checks of the catalogue that this audit does not perform.
    pub not_performed: Vec<NotPerformed>,
    /// The record of processing activities as it was observed (GDPR Art. 30).
    pub processing: Vec<Activity>,
}

/// Collects while checks run.
pub(super) struct Tally {
    report: Report,
    runs: BTreeMap<Check, CheckRun>,
    record_key: Hash,
    /// Values in a country about which no adequacy decision is encoded, by region.
    abroad: BTreeMap<RegionId, u64>,
}

impl Tally {
    pub(super) fn new(inputs: &Inputs) -> Self {
        let run = |check: Check| CheckRun {
            check,
            title: check.title(),
            severity: check.severity(),
            examined: 0,
            unit: check.unit(),
            findings: 0,
            limits: Vec::new(),
            not_run: Vec::new(),
        };
        let summary = |region: &RegionId| RegionSummary {
            region: region.clone(),
            unreached: None,
            records: 0,
            leaves: 0,
            checkpoint: None,
            witnesses: Vec::new(),
            findings: 0,
        };
        let report = Report {
            schema: "repomind-audit/1",
            outcome: Outcome::Incomplete,
            at: inputs.now,
            synthetic: false,
            revision: inputs.revision.clone(),
            regions: inputs.regions.iter().map(|evidence| summary(&evidence.region)).collect(),
            checks: Vec::new(),
            findings: Vec::new(),
            findings_left_out: 0,
            not_performed: NOT_PERFORMED.iter().map(|&(check, title)| NotPerformed { check, title }).collect(),
            processing: Vec::new(),
        };
        Self {
            report,
            runs: Check::ALL.into_iter().map(|check| (check, run(check))).collect(),
            record_key: blake3::derive_key("repomind record ids v1", &inputs.record_secret),
            abroad: BTreeMap::new(),
        }
    }

    /// The id of a record.
    pub(super) fn record(&self, row_key: &[u8]) -> Hash {
        *blake3::keyed_hash(&self.record_key, row_key).as_bytes()
    }

    pub(super) fn summary(&mut self, region: &RegionId) -> &mut RegionSummary {
        let mut regions = self.report.regions.iter_mut();
        regions.find(|summary| summary.region == *region).expect("every region has a summary from the start")
    }

    fn run(&mut self, check: Check) -> &mut CheckRun {
        self.runs.get_mut(&check).expect("every check has a run from the start")
    }

    pub(super) fn examined(&mut self, check: Check, count: usize) {
        self.run(check).examined += count as u64;
    }

    pub(super) fn limit(&mut self, check: Check, limit: String) {
        self.run(check).limits.push(limit);
    }

    pub(super) fn not_run(&mut self, check: Check, region: &RegionId, reason: impl Into<String>) {
        self.run(check).not_run.push(NotRun { region: region.clone(), reason: reason.into() });
    }

    /// [`Tally::not_run`], unless it was said already.
    pub(super) fn not_run_once(&mut self, check: Check, region: &RegionId, reason: &str) {
        if self.run(check).not_run.iter().all(|missed| missed.region != *region) {
            self.not_run(check, region, reason);
        }
    }

    pub(super) fn unreached(&mut self, region: &RegionId, reason: &str) {
        self.summary(region).unreached = Some(reason.to_owned());
        for check in Check::ALL {
            self.not_run(check, region, "the region was not reached");
        }
    }

    /// Notes a finding about `bytes`.
    pub(super) fn find(
        &mut self,
        check: Check,
        region: &RegionId,
        bytes: &[u8],
        rule: impl Into<String>,
        remedy: &'static str,
    ) {
        self.find_record(check, region, None, bytes, None, rule, remedy);
    }

    /// Notes a finding about a record.
    #[expect(clippy::too_many_arguments, reason = "a finding has that many columns")]
    pub(super) fn find_record(
        &mut self,
        check: Check,
        region: &RegionId,
        record: Option<&Hash>,
        bytes: &[u8],
        generation: Option<u64>,
        rule: impl Into<String>,
        remedy: &'static str,
    ) {
        self.run(check).findings += 1;
        self.summary(region).findings += 1;
        if self.report.findings.len() == FINDING_LIMIT {
            self.report.findings_left_out += 1;
            return;
        }
        self.report.findings.push(Finding {
            check,
            severity: check.severity(),
            region: region.clone(),
            record: record.map(|record| hex(&record[..RECORD_BYTES])),
            evidence: hex(&sha256(bytes)),
            rule: rule.into(),
            generation,
            remedy,
        });
    }

    /// Counts a value that lies abroad by something other than an adequacy decision.
    pub(super) fn abroad(&mut self, region: &RegionId) {
        *self.abroad.entry(region.clone()).or_default() += 1;
    }

    pub(super) fn finish(mut self) -> Report {
        for (region, count) in std::mem::take(&mut self.abroad) {
            let text = format!("{region}: of {count} values it is not encoded by which means they may be abroad");
            self.limit(Check::Res05, text);
        }
        let report = &mut self.report;
        report.checks = self.runs.into_values().collect();
        report.findings.sort_by(|a, b| {
            let key = |f: &Finding| (std::cmp::Reverse(f.severity), f.check, f.region.clone(), f.record.clone());
            key(a).cmp(&key(b)).then_with(|| a.rule.cmp(&b.rule))
        });
        let records: u64 = report.regions.iter().map(|region| region.records).sum();
        let reached = report.regions.iter().filter(|region| region.unreached.is_none()).count();
        let ran_everywhere = report.checks.iter().all(|run| run.not_run.is_empty());
        report.outcome = if !report.findings.is_empty() {
            Outcome::Violations
        } else if records == 0 || reached < LEAST_REGIONS || !ran_everywhere {
            Outcome::Incomplete
        } else {
            Outcome::Pass
        };
        self.report
    }
}
