//! What may come in, what of a scope is still lawful, and until when that stays so.

use std::collections::BTreeSet;

use super::{ResidencyPlan, ScopeId, Verdict, fixed_rule};
use crate::names::{RegionId, RuleId};
use crate::record::Labels;
use crate::units::UnixMillis;

impl ResidencyPlan {
    /// Whether `to` may take over a record that was written in `from`: both have to allow it. What `from` may hold no
    /// more, and `to` may, comes home: to leave it only where it must not be would serve no rule.
    ///
    /// # Errors
    /// The rule that stops it.
    pub fn permit_arrival(
        &self,
        labels: &Labels,
        from: &RegionId,
        to: &RegionId,
        now: UnixMillis,
    ) -> Result<(), RuleId> {
        let rulings = self.rulings(&Self::cases_of(labels));
        let hold = |region: &RegionId| match self.regions.get(region) {
            Some(policy) => self.rule_on(region, policy, labels, &rulings, now).map(drop),
            None => Err(fixed_rule("unknown-region")),
        };
        hold(to)?;
        let travels = self.may_travel(&rulings, from, to, now);
        if travels.is_err() && self.regions.contains_key(from) && hold(from).is_err() {
            return Ok(());
        }
        travels
    }

    /// The regions of a scope that may hold a record with these labels now, and the name of what is left of the scope:
    /// its own name where all may.
    pub fn within(
        &self,
        (scope, regions): (ScopeId, &BTreeSet<RegionId>),
        labels: &Labels,
        now: UnixMillis,
    ) -> (ScopeId, BTreeSet<RegionId>) {
        let lawful: BTreeSet<RegionId> =
            regions.iter().filter(|region| self.permit_in(labels, region, now).is_ok()).cloned().collect();
        let name = if lawful == *regions { scope } else { ScopeId::of(&lawful, &BTreeSet::new()) };
        (name, lawful)
    }

    /// When a ruling begins or ends to hold next after `now`, if ever.
    pub fn next_change(&self, now: UnixMillis) -> Option<UnixMillis> {
        let mut known = std::collections::HashSet::new();
        let fresh = self.cases.values().filter(|ruling| known.insert(std::sync::Arc::as_ptr(ruling)));
        let verdicts = fresh.flat_map(|ruling| ruling.hold.values().chain(ruling.transfer.values()));
        let times = verdicts.flat_map(|verdict| match verdict {
            Verdict::Allow { valid_from, valid_until, .. } => vec![*valid_from, *valid_until],
            Verdict::Deny { .. } => Vec::new(),
        });
        times.filter(|time| *time > now && *time != UnixMillis::MAX).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::Country;
    use crate::record::DataClass;
    use crate::residency::{CaseRuling, RegionPolicy};

    fn region(id: &str) -> RegionId {
        RegionId::new(id).unwrap()
    }

    /// Personal data may be in these regions and travels between them only.
    fn plan(homes: &[&str]) -> ResidencyPlan {
        let all = ["eu-west", "us-east"];
        let verdict = |allowed: bool, rule: &str| match allowed {
            true => Verdict::Allow {
                rule: fixed_rule(rule),
                obligations: BTreeSet::new(),
                valid_from: UnixMillis(10),
                valid_until: UnixMillis(100),
            },
            false => Verdict::Deny { rule: fixed_rule(rule) },
        };
        let mut ruling = CaseRuling::default();
        for from in all {
            ruling.hold.insert(region(from), verdict(homes.contains(&from), "home"));
            for to in all.iter().filter(|to| **to != from) {
                let both = homes.contains(&from) && homes.contains(to);
                ruling.transfer.insert((region(from), region(to)), verdict(both, "at-home"));
            }
        }
        let labels = Labels::of_class(DataClass::Personal, UnixMillis(0));
        let cases = ResidencyPlan::cases_of(&labels).into_iter().map(|case| (case, Arc::new(ruling.clone())));
        let policy = |id: &str| RegionPolicy {
            region: region(id),
            jurisdiction: Country::new("IE").unwrap(),
            accepts: DataClass::ALL.iter().copied().collect(),
            requires: BTreeSet::new(),
        };
        ResidencyPlan::new(cases.collect(), all.map(|id| (region(id), policy(id))).into())
    }

    #[test]
    fn what_may_be_here_and_not_where_it_was_written_comes_home_and_never_leaves() {
        let (labels, now) = (Labels::of_class(DataClass::Personal, UnixMillis(0)), UnixMillis(50));
        let arrives = |plan: &ResidencyPlan, from: &str, to: &str| {
            plan.permit_arrival(&labels, &region(from), &region(to), now).map_err(|rule| rule.to_string())
        };
        let strict = plan(&["eu-west"]);
        assert_eq!(arrives(&strict, "us-east", "eu-west"), Ok(()));
        assert_eq!(arrives(&strict, "eu-west", "us-east"), Err("home".into()));
        assert_eq!(
            arrives(&strict, "moon", "eu-west"),
            Err("no-ruling".into()),
            "a region that nobody knows is no home"
        );
        assert_eq!(arrives(&plan(&["eu-west", "us-east"]), "us-east", "eu-west"), Ok(()));
        assert!(arrives(&plan(&[]), "us-east", "eu-west").is_err());
    }

    #[test]
    fn a_plan_is_named_by_its_rulings_and_says_when_they_change() {
        let (one, other) = (plan(&["eu-west"]), plan(&["eu-west", "us-east"]));
        assert_eq!(one.digest(), plan(&["eu-west"]).digest());
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.next_change(UnixMillis(0)), Some(UnixMillis(10)));
        assert_eq!(one.next_change(UnixMillis(10)), Some(UnixMillis(100)));
        assert_eq!(one.next_change(UnixMillis(100)), None);
        let regions = BTreeSet::from([region("eu-west"), region("us-east")]);
        let scope = ScopeId::of(&regions, &BTreeSet::new());
        let labels = Labels::of_class(DataClass::Personal, UnixMillis(0));
        assert_eq!(other.within((scope, &regions), &labels, UnixMillis(50)), (scope, regions.clone()));
        let (left, lawful) = one.within((scope, &regions), &labels, UnixMillis(50));
        assert_eq!((left == scope, lawful), (false, BTreeSet::from([region("eu-west")])));
    }
}
