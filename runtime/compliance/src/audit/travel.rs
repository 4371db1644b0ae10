//! How values came to where they are, and whether those that a law wants at home are there: RES-02, RES-04.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use model::residency::{ResidencyCase, Verdict};
use model::{Country, RegionId};

use super::checks::Check;
use super::evidence::{Inputs, RawRow};
use super::raw::{self, Labels, Sibling, Value};
use super::report::Tally;
use super::rows::{ABOUT_NOBODY, plan_allows};
use super::tree::Hash;

/// What is known of copies at home, and of values whose way was not seen.
#[derive(Default)]
pub(super) struct Journeys {
    /// Records with a row in a region of the country whose law wants it there.
    at_home: HashSet<(&'static str, [u8; 8])>,
    /// Regions that hold such values of other countries.
    abroad: BTreeSet<RegionId>,
    /// Values from regions that the policies do not name, by where they lie.
    strangers: BTreeMap<RegionId, u64>,
}

fn short(record: &Hash) -> [u8; 8] {
    *record.first_chunk().expect("a hash has 32 bytes")
}

fn country_of(inputs: &Inputs<'_>, region: &RegionId) -> Option<Country> {
    Some(inputs.plan.region_policies().get(region)?.jurisdiction)
}

/// The laws that want this record at home.
fn homes<'i>(inputs: &'i Inputs<'_>, labels: &'i Labels) -> impl Iterator<Item = &'static str> + 'i {
    let personal = labels.classes.iter().any(|class| !ABOUT_NOBODY.contains(class));
    let holds = inputs.localised.iter().filter(move |fact| personal && fact.since.end() <= inputs.now);
    holds.map(|fact| fact.country).filter(|country| labels.jurisdictions.iter().any(|law| law == country))
}

/// Whether a value of these cases may go from one region straight to another; if not, by which rule.
fn step(
    inputs: &Inputs<'_>,
    labels: &Labels,
    cases: &[ResidencyCase],
    from: &RegionId,
    to: &RegionId,
) -> Result<(), String> {
    let pair = (from.clone(), to.clone());
    let refused = cases.iter().find_map(|case| {
        let ruling = inputs.plan.cases().get(case).and_then(|ruling| ruling.transfer.get(&pair));
        match ruling {
            Some(verdict) if verdict.allows(inputs.now) => None,
            Some(verdict @ Verdict::Deny { .. }) => Some(verdict.rule().to_string()),
            Some(verdict) => Some(format!("{}, which does not hold now", verdict.rule())),
            None => Some("nothing was ruled on it".to_owned()),
        }
    });
    let holds = |region| plan_allows(inputs.plan, inputs.now, region, labels, cases).is_ok();
    match refused {
        // What may not stay where it is may go home, although nothing else may leave there.
        Some(rule) if holds(from) || !holds(to) => Err(rule),
        _ => Ok(()),
    }
}

/// Whether steps lead from `origin` to `region`: a region that took a value over may pass it on.
fn leads(inputs: &Inputs<'_>, labels: &Labels, cases: &[ResidencyCase], origin: &RegionId, region: &RegionId) -> bool {
    let (mut reached, mut next) = (BTreeSet::from([origin]), vec![origin]);
    while let Some(from) = next.pop() {
        for to in inputs.plan.region_policies().keys() {
            if !reached.contains(to) && step(inputs, labels, cases, from, to).is_ok() {
                reached.insert(to);
                next.push(to);
            }
        }
    }
    reached.contains(region)
}

impl Journeys {
    /// Notes where a value lies, or was deleted.
    pub(super) fn note(
        &mut self,
        tally: &mut Tally,
        inputs: &Inputs<'_>,
        region: &RegionId,
        record: &Hash,
        (sibling, labels): (&Sibling<'_>, &Labels),
    ) {
        let here = country_of(inputs, region);
        for home in homes(inputs, labels) {
            if here.is_some_and(|here| here.as_str() == home) {
                self.at_home.insert((home, short(record)));
            } else if sibling.value != Value::Gone {
                self.abroad.insert(region.clone());
            }
            tally.examined(Check::Res02, usize::from(sibling.value != Value::Gone));
        }
    }

    /// RES-04 of a value that may be here: whether it may have come here from where it was written.
    pub(super) fn arrived(
        &mut self,
        tally: &mut Tally,
        inputs: &Inputs<'_>,
        region: &RegionId,
        (row, record): (&RawRow, &Hash),
        (sibling, labels): (&Sibling<'_>, &Labels),
        cases: &[ResidencyCase],
    ) {
        if sibling.value == Value::Gone || sibling.origin == region.as_str() {
            return;
        }
        let origin = RegionId::new(sibling.origin).ok();
        let origin = origin.filter(|origin| inputs.plan.region_policies().contains_key(origin));
        let Some(origin) = origin else {
            *self.strangers.entry(region.clone()).or_default() += 1;
            return;
        };
        tally.examined(Check::Res04, 1);
        let Err(rule) = step(inputs, labels, cases, &origin, region) else { return };
        if leads(inputs, labels, cases, &origin, region) {
            return;
        }
        let rule = format!("it came from {origin}, from where no way leads here: {rule}");
        let remedy = "find out which path brought it here; write it again where it may be written, or erase it";
        tally.find_record(Check::Res04, region, Some(record), &row.envelope, sibling.generation, rule, remedy);
    }

    /// RES-02, once every region was read.
    pub(super) fn judge(self, tally: &mut Tally, inputs: &Inputs<'_>) {
        for (region, count) in &self.strangers {
            let text = format!("{region}: {count} values were written in regions that the policies do not name");
            tally.limit(Check::Res04, text);
        }
        let reached = inputs.regions.iter().filter_map(|region| Some((&region.region, region.evidence.as_ref().ok()?)));
        for (region, evidence) in reached.filter(|(region, _)| self.abroad.contains(*region)) {
            for row in &evidence.rows {
                // What cannot be read is a finding of LBL-03 already.
                let Ok(siblings) = raw::row(&row.envelope) else { continue };
                self.judge_row(tally, inputs, region, row, &siblings);
            }
        }
    }

    fn judge_row(
        &self,
        tally: &mut Tally,
        inputs: &Inputs<'_>,
        region: &RegionId,
        row: &RawRow,
        siblings: &[Sibling<'_>],
    ) {
        let record = tally.record(&row.key);
        let here = country_of(inputs, region);
        let mut missing = BTreeMap::new();
        for sibling in siblings.iter().filter(|sibling| sibling.value != Value::Gone) {
            let Some(labels) = &sibling.labels else { continue };
            let abroad = homes(inputs, labels).filter(|home| here.is_none_or(|here| here.as_str() != *home));
            let lacking = abroad.filter(|home| !self.at_home.contains(&(*home, short(&record))));
            missing.extend(lacking.map(|home| (home, sibling.generation)));
        }
        for (home, generation) in missing {
            let at_home = |other: &&super::RegionEvidence| {
                country_of(inputs, &other.region).is_some_and(|country| country.as_str() == home)
            };
            // A region that was not reached may hold it; that it was not is said of every check.
            if inputs.regions.iter().filter(at_home).any(|other| other.evidence.is_err()) {
                continue;
            }
            let rule = match inputs.regions.iter().any(|other| at_home(&other)) {
                true => format!("the law of {home} wants a copy there, and no region there has one"),
                false => format!("the law of {home} wants a copy there, and no region is there"),
            };
            let remedy = "write the record in a region of that country, and let it come from there; or erase it";
            tally.find_record(Check::Res02, region, Some(&record), &row.envelope, generation, rule, remedy);
        }
    }
}
