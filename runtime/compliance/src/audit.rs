//! Reads the bytes that a region stores, and judges where they lie.
//!
//! The decoder in [`raw`] is written from the format's description and shares
//! no code with the one that wrote the bytes, so that a mistake in the writer
//! cannot hide itself here. A finding never shows a key or a value: records are
//! named by a hash.

pub mod raw;

use std::collections::{BTreeMap, BTreeSet};

use model::record::{Basis, DataClass, Purpose};
use model::residency::{Law, ResidencyCase, ResidencyPlan};
use model::{RegionId, RuleId, UnixMillis};
use serde::Serialize;

/// Fewer regions than this were not an audit of a multi-region deployment.
pub const LEAST_REGIONS: usize = 3;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be mended soon.
    High,
    /// A breach.
    Critical,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditFinding {
    /// The check, such as `RES-01`.
    pub check: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// Where.
    pub region: RegionId,
    /// The record, as a hash of its key.
    pub record: String,
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
    /// Everything that was read is where it may be.
    Pass,
    /// Something is not.
    Violations,
    /// Too little was read to say: no records, or fewer than [`LEAST_REGIONS`] regions.
    Incomplete,
}

/// Judges rows as they are fed in; memory grows with the findings alone.
pub struct Audit<'p> {
    plan: &'p ResidencyPlan,
    now: UnixMillis,
    records: BTreeMap<RegionId, u64>,
    findings: Vec<AuditFinding>,
}

impl<'p> Audit<'p> {
    /// An audit by the rulings of `plan` as they are valid at `now`.
    pub fn new(plan: &'p ResidencyPlan, now: UnixMillis) -> Self {
        Self { plan, now, records: BTreeMap::new(), findings: Vec::new() }
    }

    /// `region` was reached, whether or not it holds anything.
    pub fn reached(&mut self, region: &RegionId) {
        self.records.entry(region.clone()).or_insert(0);
    }

    /// Judges one stored row: its raw key and its envelope.
    pub fn row(&mut self, region: &RegionId, key: &[u8], envelope: &[u8]) {
        let record = blake3::hash(key).to_hex()[..16].to_owned();
        let (plan, now) = (self.plan, self.now);
        let mut find = |check, severity, rule: String, generation, remedy| {
            let (region, record) = (region.clone(), record.clone());
            self.findings.push(AuditFinding { check, severity, region, record, rule, generation, remedy });
        };
        *self.records.entry(region.clone()).or_insert(0) += 1;
        let siblings = match raw::row(envelope) {
            Ok(siblings) => siblings,
            Err(reason) => {
                let remedy = "restore the record from a region that holds it whole";
                find("LBL-03", Severity::Critical, format!("unreadable: {reason}"), None, remedy);
                return;
            }
        };
        for raw::Sibling { labels, generation } in siblings {
            let Some(labels) = labels else { continue };
            let cases = match cases_of(&labels) {
                Ok(cases) => cases,
                Err(reason) => {
                    let remedy = "label the record anew, or erase it";
                    find("LBL-01", Severity::Critical, reason, generation, remedy);
                    continue;
                }
            };
            if let Err(rule) = plan_allows(plan, now, region, &labels, &cases) {
                let remedy = "evict the record from this region, and find out which path let it in";
                find("RES-01", Severity::Critical, rule, generation, remedy);
            }
        }
    }

    /// The findings and the outcome.
    pub fn finish(self) -> (Outcome, Vec<AuditFinding>) {
        let total: u64 = self.records.values().sum();
        let outcome = if !self.findings.is_empty() {
            Outcome::Violations
        } else if total == 0 || self.records.len() < LEAST_REGIONS {
            Outcome::Incomplete
        } else {
            Outcome::Pass
        };
        (outcome, self.findings)
    }
}

/// Whether `region` may hold a record of these cases; if not, by which rule.
fn plan_allows(
    plan: &ResidencyPlan,
    now: UnixMillis,
    region: &RegionId,
    labels: &raw::Labels,
    cases: &[ResidencyCase],
) -> Result<(), String> {
    let Some(policy) = plan.region_policies().get(region) else {
        return Err("the region has no define-region-policy".into());
    };
    for class in &labels.classes {
        if !policy.accepts.iter().any(|accepted| accepted.as_str() == *class) {
            return Err(format!("the region does not accept {class}"));
        }
    }
    for case in cases {
        let ruling = plan.cases().get(case).and_then(|ruling| ruling.hold.get(region));
        match ruling {
            Some(verdict) if verdict.allows(now) => {}
            Some(verdict) => return Err(RuleId::as_str(verdict.rule()).to_owned()),
            None => return Err("nothing was ruled on this case".into()),
        }
    }
    Ok(())
}

/// The cases that raw labels fall under, or what is wrong with them.
fn cases_of(labels: &raw::Labels) -> Result<Vec<ResidencyCase>, String> {
    let known = |what: &str, found: &str| format!("unknown {what} {found}");
    let basis: Basis = labels.basis.parse().map_err(|_| known("basis", labels.basis))?;
    let purpose: Purpose = labels.purpose.parse().map_err(|_| known("purpose", labels.purpose))?;
    let mut laws = BTreeSet::new();
    for country in &labels.jurisdictions {
        let upper = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
        let parsed = model::Country::new(country).ok().filter(|_| upper);
        laws.insert(Law::of(parsed.ok_or_else(|| known("jurisdiction", country))?));
    }
    if laws.is_empty() {
        laws.insert(Law::None);
    }
    if labels.classes.is_empty() {
        return Err("no class".into());
    }
    let mut cases = Vec::new();
    for class in &labels.classes {
        let class: DataClass = class.parse().map_err(|_| known("class", class))?;
        cases.extend(laws.iter().map(|&law| ResidencyCase { class, law, basis, purpose }));
    }
    Ok(cases)
}

#[cfg(test)]
mod tests;
