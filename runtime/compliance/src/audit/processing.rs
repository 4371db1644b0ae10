//! The record of processing activities (GDPR Art. 30) as it follows from what is stored: ROP-01.
//!
//! An activity is what one namespace holds of one class of personal data under one law, for one purpose on one basis, in
//! one region. What a regulator asks for beyond that, such as who the controller is, no stored byte shows.

use std::collections::{BTreeMap, BTreeSet};

use model::RegionId;
use serde::{Deserialize, Serialize};

use super::checks::Check;
use super::evidence::Inputs;
use super::raw::{Labels, Sibling, Value};
use super::report::Tally;
use super::rows::ABOUT_NOBODY;

/// So many activities are described; values of more are counted.
pub const ACTIVITY_LIMIT: usize = 10_000;

/// What makes an activity another than the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActivityName {
    /// The namespace.
    pub namespace: String,
    /// The class of the data.
    pub class: String,
    /// The country whose law applies; `none` where none was claimed.
    pub jurisdiction: String,
    /// The purpose.
    pub purpose: String,
    /// The legal basis.
    pub basis: String,
    /// The region that holds it.
    pub region: RegionId,
}

/// An activity as it was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// What it is.
    #[serde(flatten)]
    pub name: ActivityName,
    /// The country in which the region is, by its policy.
    pub country: Option<String>,
    /// The other regions that such values came from.
    pub from: BTreeSet<String>,
    /// So many values.
    pub values: u64,
    /// Of these, so many are encrypted.
    pub encrypted: u64,
    /// Of these, so many state when they must be gone.
    pub until_stated: u64,
}

/// The activities seen so far.
#[derive(Default)]
pub(super) struct Activities {
    seen: BTreeMap<ActivityName, Activity>,
    left_out: BTreeMap<RegionId, u64>,
}

impl Activities {
    /// Notes a value.
    pub(super) fn note(
        &mut self,
        inputs: &Inputs<'_>,
        region: &RegionId,
        key: &[u8],
        (sibling, labels): (&Sibling<'_>, &Labels),
    ) {
        if sibling.value == Value::Gone {
            return;
        }
        let namespace = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let none = ["none".to_owned()];
        let laws = if labels.jurisdictions.is_empty() { &none[..] } else { &labels.jurisdictions };
        for class in labels.classes.iter().filter(|class| !ABOUT_NOBODY.contains(class)) {
            for law in laws {
                let name = ActivityName {
                    namespace: String::from_utf8_lossy(namespace).into_owned(),
                    class: (*class).to_owned(),
                    jurisdiction: law.clone(),
                    purpose: labels.purpose.to_owned(),
                    basis: labels.basis.to_owned(),
                    region: region.clone(),
                };
                if self.seen.len() >= ACTIVITY_LIMIT && !self.seen.contains_key(&name) {
                    *self.left_out.entry(region.clone()).or_default() += 1;
                    continue;
                }
                let policy = inputs.plan.region_policies().get(region);
                let activity = self.seen.entry(name.clone()).or_insert_with(|| Activity {
                    name,
                    country: policy.map(|policy| policy.jurisdiction.as_str().to_owned()),
                    from: BTreeSet::new(),
                    values: 0,
                    encrypted: 0,
                    until_stated: 0,
                });
                activity.values += 1;
                activity.encrypted += u64::from(matches!(sibling.value, Value::Sealed(_)));
                activity.until_stated += u64::from(labels.retain_until.is_some());
                if sibling.origin != region.as_str()
                    && !activity.from.contains(sibling.origin)
                    && RegionId::new(sibling.origin).is_ok()
                {
                    activity.from.insert(sibling.origin.to_owned());
                }
            }
        }
    }

    /// ROP-01: what was observed against what was declared; gives the record.
    pub(super) fn judge(self, tally: &mut Tally, inputs: &Inputs<'_>) -> Vec<Activity> {
        tally.examined(Check::Rop01, self.seen.len());
        for (region, count) in &self.left_out {
            let text = format!("{region}: {count} values belong to more than {ACTIVITY_LIMIT} activities");
            tally.limit(Check::Rop01, text);
        }
        let Some(declared) = inputs.declared else {
            let text = "no record was given to compare with; what was observed is in this report".to_owned();
            tally.limit(Check::Rop01, text);
            return self.seen.into_values().collect();
        };
        let declared: BTreeSet<&ActivityName> = declared.iter().collect();
        for (name, activity) in self.seen.iter().filter(|(name, _)| !declared.contains(name)) {
            let ActivityName { namespace, class, jurisdiction, purpose, basis, region } = name;
            let rule = format!(
                "{} values of class {class} under the law of {jurisdiction}, for {purpose} on the basis {basis}, lie in \
                 namespace {namespace}: the record of processing activities does not say so",
                activity.values
            );
            let remedy = "put the activity into the record, or find out who began it and end it";
            tally.find(Check::Rop01, region, rule.clone().as_bytes(), rule, remedy);
        }
        let unseen = declared.iter().filter(|name| !self.seen.contains_key(**name)).count();
        if unseen > 0 {
            tally.limit(Check::Rop01, format!("{unseen} activities of the record were not observed"));
        }
        self.seen.into_values().collect()
    }
}
