//! Which residency verdicts change if one plan takes the place of another.
//!
//! Every case of the space is compared, for every region that could hold the
//! record and every pair that it could travel between, with what the regions
//! accept and require. A change of the class that unlabelled records are taken
//! as is a change of verdicts too, and is counted as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::radius::{Flip, Flips, MOST_SHOWN, Turn};
use model::record::{Basis, DataClass, Purpose};
use model::replication::ReplicationPlan;
use model::residency::{CaseRuling, Law, Obligation, ResidencyCase, ResidencyPlan, Verdict};
use model::{RegionId, RuleId, UnixMillis};

/// A yes with its duties and its time, or the rule that says no.
type Permission = Result<(BTreeSet<Obligation>, UnixMillis, UnixMillis), RuleId>;

/// A verdict that changes for one case.
#[derive(Clone)]
struct Turned {
    turn: Turn,
    region: RegionId,
    from: Option<RegionId>,
    was: String,
    becomes: String,
}

/// What is added up: the same change for several bases and purposes is one flip of so many cases.
#[derive(Default)]
struct Sum {
    flips: BTreeMap<Flip, u32>,
    more_permissive: u32,
    stricter: u32,
}

impl Sum {
    fn add(&mut self, turned: &Turned, case: &ResidencyCase, unlabelled_in: Option<&str>) {
        let count = match turned.turn {
            Turn::MorePermissive => &mut self.more_permissive,
            Turn::Stricter => &mut self.stricter,
        };
        *count = count.saturating_add(1);
        let Turned { turn, region, from, was, becomes } = turned.clone();
        let (law, unlabelled_in) = (case.law.name().to_owned(), unlabelled_in.map(str::to_owned));
        let flip = Flip { turn, class: case.class, law, region, from, was, becomes, cases: 0, unlabelled_in };
        *self.flips.entry(flip).or_default() += 1;
    }

    fn finish(self) -> Flips {
        // The key's order puts the more permissive ones first.
        let shown = self.flips.into_iter().take(MOST_SHOWN).map(|(flip, cases)| Flip { cases, ..flip });
        Flips { more_permissive: self.more_permissive, stricter: self.stricter, shown: shown.collect() }
    }
}

/// Compares two plans, and the classes that records without one are taken as by each of two strategies.
pub fn flips(
    (before, defaults): (&ResidencyPlan, &ReplicationPlan),
    (after, new_defaults): (&ResidencyPlan, &ReplicationPlan),
) -> Flips {
    let mut sum = Sum::default();
    let cases: BTreeSet<&ResidencyCase> = before.cases().keys().chain(after.cases().keys()).collect();
    // Cases share their rulings, and few pairs of rulings are distinct.
    let mut known: BTreeMap<(usize, usize, DataClass), Vec<Turned>> = BTreeMap::new();
    let at = |plan: &ResidencyPlan, case| plan.cases().get(case).map_or(0, |ruling| Arc::as_ptr(ruling) as usize);
    for case in cases {
        let pair = (at(before, case), at(after, case), case.class);
        let turned = known.entry(pair).or_insert_with(|| compare((before, case), (after, case)));
        turned.iter().for_each(|turned| sum.add(turned, case, None));
    }
    for (namespace, old, new) in defaults_changed(defaults, new_defaults) {
        for law in Law::all() {
            for &basis in Basis::ALL {
                for &purpose in Purpose::ALL {
                    let case = |class| ResidencyCase { class, law, basis, purpose };
                    let turned = compare((before, &case(old)), (after, &case(new)));
                    turned.iter().for_each(|turned| sum.add(turned, &case(new), Some(namespace.as_str())));
                }
            }
        }
    }
    sum.finish()
}

/// The namespaces in which records without a class are taken as another one than before.
fn defaults_changed(before: &ReplicationPlan, after: &ReplicationPlan) -> Vec<(String, DataClass, DataClass)> {
    let named: BTreeSet<_> = before.namespaces.keys().chain(after.namespaces.keys()).collect();
    let named = named.into_iter().map(|name| {
        let class = |plan: &ReplicationPlan| plan.strategy(name).default_class;
        (name.to_string(), class(before), class(after))
    });
    let others = ("any other namespace".to_owned(), before.default.default_class, after.default.default_class);
    named.chain([others]).filter(|(_, old, new)| old != new).collect()
}

fn compare(
    (before, case): (&ResidencyPlan, &ResidencyCase),
    (after, new_case): (&ResidencyPlan, &ResidencyCase),
) -> Vec<Turned> {
    let mut turned = Vec::new();
    let regions: BTreeSet<&RegionId> = before.region_policies().keys().chain(after.region_policies().keys()).collect();
    let mut both = Vec::new();
    for region in regions {
        let (was, becomes) = (hold(before, case, region), hold(after, new_case, region));
        if was.is_ok() && becomes.is_ok() {
            both.push(region);
        }
        turned.extend(turn(&was, &becomes, region, None));
    }
    // Where a region comes or goes altogether, that says enough; travel is compared between those that stay.
    for from in &both {
        for to in both.iter().filter(|to| *to != from) {
            let pair = ((*from).clone(), (*to).clone());
            let (was, becomes) = (travel(before, case, &pair), travel(after, new_case, &pair));
            turned.extend(turn(&was, &becomes, to, Some(from)));
        }
    }
    turned
}

fn rule(name: &str) -> RuleId {
    RuleId::new(name).expect("a fixed rule name")
}

fn ruling<'a>(plan: &'a ResidencyPlan, case: &ResidencyCase) -> Option<&'a CaseRuling> {
    plan.cases().get(case).map(AsRef::as_ref)
}

fn permission(verdict: Option<&Verdict>, requires: &BTreeSet<Obligation>) -> Permission {
    match verdict {
        None => Err(rule("no-ruling")),
        Some(Verdict::Deny { rule }) => Err(rule.clone()),
        Some(Verdict::Allow { obligations, valid_from, valid_until, .. }) => {
            Ok((obligations.union(requires).cloned().collect(), *valid_from, *valid_until))
        }
    }
}

fn hold(plan: &ResidencyPlan, case: &ResidencyCase, region: &RegionId) -> Permission {
    match plan.region_policies().get(region) {
        None => Err(rule("region-without-policy")),
        Some(policy) if !policy.accepts.contains(&case.class) => Err(rule("region-does-not-accept-class")),
        Some(policy) => permission(ruling(plan, case).and_then(|ruling| ruling.hold.get(region)), &policy.requires),
    }
}

fn travel(plan: &ResidencyPlan, case: &ResidencyCase, pair: &(RegionId, RegionId)) -> Permission {
    permission(ruling(plan, case).and_then(|ruling| ruling.transfer.get(pair)), &BTreeSet::new())
}

/// In which direction a permission changes, if it does. What asks for one duty less and one more is taken as the
/// looser kind.
fn turn(was: &Permission, becomes: &Permission, region: &RegionId, from: Option<&RegionId>) -> Option<Turned> {
    let turn = match (was, becomes) {
        (Err(_), Err(_)) => return None,
        (Err(_), Ok(_)) => Turn::MorePermissive,
        (Ok(_), Err(_)) => Turn::Stricter,
        (Ok(old), Ok(new)) if old == new => return None,
        (Ok((old, since, until)), Ok((new, new_since, new_until))) => {
            let looser = !old.is_subset(new) || new_since < since || new_until > until;
            if looser { Turn::MorePermissive } else { Turn::Stricter }
        }
    };
    let (was, becomes) = (words(was), words(becomes));
    Some(Turned { turn, region: region.clone(), from: from.cloned(), was, becomes })
}

fn words(permission: &Permission) -> String {
    match permission {
        Err(rule) => format!("denied ({rule})"),
        Ok((duties, _, until)) => {
            let duties = match duties.len() {
                0 => String::new(),
                _ => format!(" with {}", duties.iter().map(Obligation::as_str).collect::<Vec<_>>().join(", ")),
            };
            let until = if *until == UnixMillis::MAX { String::new() } else { format!(" until {until}") };
            format!("allowed{duties}{until}")
        }
    }
}

#[cfg(test)]
mod tests {
    use model::replication::{AckLevel, ConflictResolution, Strategy};
    use model::residency::RegionPolicy;
    use model::{Country, Millis, Namespace};

    use super::*;

    fn id(name: &str) -> RegionId {
        RegionId::new(name).unwrap()
    }

    fn allow(duties: &[&str]) -> Verdict {
        Verdict::Allow {
            rule: rule("may"),
            obligations: duties.iter().map(|duty| rule(duty)).collect(),
            valid_from: UnixMillis(0),
            valid_until: UnixMillis::MAX,
        }
    }

    /// Health data may be in `eu-west`, with the given duties, and in `us-east` where `abroad`; public data anywhere.
    fn plan(abroad: bool, duties: &[&str], accepted_abroad: &[DataClass]) -> ResidencyPlan {
        let mut cases = BTreeMap::new();
        for case in crate::cases() {
            let mut ruling = CaseRuling::default();
            let personal = case.class == DataClass::Health;
            ruling.hold.insert(id("eu-west"), allow(if personal { duties } else { &[] }));
            let us = if personal && !abroad { Verdict::Deny { rule: rule("stays") } } else { allow(&[]) };
            ruling.hold.insert(id("us-east"), us);
            ruling.transfer.insert((id("eu-west"), id("us-east")), allow(&[]));
            cases.insert(case, Arc::new(ruling));
        }
        let policy = |name: &str, accepts: &[DataClass]| RegionPolicy {
            region: id(name),
            jurisdiction: Country::new("IE").unwrap(),
            accepts: accepts.iter().copied().collect(),
            requires: BTreeSet::new(),
        };
        let regions = [policy("eu-west", DataClass::ALL), policy("us-east", accepted_abroad)];
        ResidencyPlan::new(cases, regions.into_iter().map(|policy| (policy.region.clone(), policy)).collect())
    }

    fn defaults(class: DataClass) -> ReplicationPlan {
        let default = Strategy {
            lag_target: Millis(1),
            conflict_resolution: ConflictResolution::LastWriteWins,
            priority_regions: Vec::new(),
            ack: AckLevel::LOCAL,
            default_class: DataClass::Public,
            labels: model::replication::LabelRules::default(),
            quota: Default::default(),
        };
        let notes = Strategy { default_class: class, ..default.clone() };
        ReplicationPlan { default, namespaces: BTreeMap::from([(Namespace::new("notes").unwrap(), notes)]) }
    }

    /// Basis × purpose × law.
    const EACH: u32 = 7 * 5 * 18;

    #[test]
    fn a_verdict_that_opens_a_region_is_counted_as_more_permissive_for_every_case() {
        let (home, all, same) =
            (plan(false, &[], DataClass::ALL), plan(true, &[], DataClass::ALL), &defaults(DataClass::Public));
        let opened = flips((&home, same), (&all, same));
        assert_eq!((opened.more_permissive, opened.stricter), (EACH, 0), "{opened:?}");
        let first = &opened.shown[0];
        assert_eq!((first.class, first.region.as_str(), first.cases), (DataClass::Health, "us-east", 35));
        assert_eq!((first.was.as_str(), first.becomes.as_str()), ("denied (stays)", "allowed"));
        let closed = flips((&all, same), (&home, same));
        assert_eq!((closed.more_permissive, closed.stricter), (0, EACH), "{closed:?}");
        assert_eq!(flips((&home, same), (&home, same)), Flips::default());
    }

    #[test]
    fn a_duty_that_goes_away_is_more_permissive_and_what_a_region_accepts_counts() {
        let same = &defaults(DataClass::Public);
        let (sealed, bare) = (plan(false, &["encrypt"], DataClass::ALL), plan(false, &[], DataClass::ALL));
        assert_eq!(flips((&sealed, same), (&bare, same)).more_permissive, EACH);
        assert_eq!(flips((&bare, same), (&sealed, same)).stricter, EACH);
        let public_only = plan(true, &[], &[DataClass::Public]);
        let opened = flips((&public_only, same), (&plan(true, &[], &[DataClass::Public, DataClass::Health]), same));
        assert_eq!((opened.more_permissive, opened.stricter), (EACH, 0));
        assert!(opened.shown[0].was.contains("region-does-not-accept-class"), "{opened:?}");
    }

    #[test]
    fn records_without_a_class_that_are_taken_as_a_looser_one_are_not_overlooked() {
        let plan = plan(false, &[], DataClass::ALL);
        let found = flips((&plan, &defaults(DataClass::Health)), (&plan, &defaults(DataClass::Public)));
        assert_eq!((found.more_permissive, found.stricter), (EACH, 0), "{found:?}");
        assert_eq!(found.shown[0].unlabelled_in.as_deref(), Some("notes"));
        let back = flips((&plan, &defaults(DataClass::Public)), (&plan, &defaults(DataClass::Health)));
        assert_eq!((back.more_permissive, back.stricter), (0, EACH));
    }
}
