//! The residency plan: the whole space of cases, ruled on once for each generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::RegionId;
use model::question::{CaseAnswer, Rulings};
use model::record::{Basis, DataClass, Purpose};
use model::residency::{CaseRuling, Law, RegionPolicy, ResidencyCase, ResidencyPlan};

/// Every case that a record can fall under: class × law × basis × purpose, 7,560 in all.
pub fn cases() -> Vec<ResidencyCase> {
    let laws = Law::all();
    let mut cases = Vec::new();
    for &class in DataClass::ALL {
        for &law in &laws {
            for &basis in Basis::ALL {
                cases.extend(Purpose::ALL.iter().map(|&purpose| ResidencyCase { class, law, basis, purpose }));
            }
        }
    }
    cases
}

/// The rulings of a plan, as they are asked for and sent: the inverse of [`plan_from`].
pub fn rulings_of(plan: &ResidencyPlan) -> Rulings {
    let mut rulings = Rulings::default();
    let mut known = BTreeMap::new();
    for case in cases() {
        let at = plan.cases().get(&case).map(|ruling| {
            *known.entry(Arc::as_ptr(ruling)).or_insert_with(|| {
                let CaseRuling { hold, transfer } = CaseRuling::clone(ruling);
                rulings.distinct.push(CaseAnswer { hold, transfer });
                rulings.distinct.len() as u32 - 1
            })
        });
        rulings.of_case.push(at.unwrap_or(u32::MAX));
    }
    rulings
}

/// The plan of what was answered. A case without an answer is denied; an answer without a case is dropped. Cases with
/// the same ruling share its memory.
pub fn plan_from(
    cases: Vec<ResidencyCase>,
    rulings: Rulings,
    region_policies: BTreeMap<RegionId, RegionPolicy>,
) -> ResidencyPlan {
    let shared: Vec<Arc<CaseRuling>> = rulings
        .distinct
        .into_iter()
        .map(|CaseAnswer { hold, transfer }| Arc::new(CaseRuling { hold, transfer }))
        .collect();
    let ruled = cases.into_iter().zip(rulings.of_case);
    let ruled = ruled.filter_map(|(case, at)| Some((case, shared.get(at as usize)?.clone())));
    ResidencyPlan::new(ruled.collect(), region_policies)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::record::Labels;
    use model::residency::Verdict;
    use model::{Country, RuleId, UnixMillis};

    use super::*;

    #[test]
    fn the_cases_are_the_whole_space_and_none_is_asked_twice() {
        let cases = cases();
        assert_eq!(cases.len(), 12 * 18 * 7 * 5);
        assert_eq!(cases.iter().collect::<BTreeSet<_>>().len(), cases.len());
    }

    #[test]
    fn a_case_without_an_answer_is_denied() {
        let eu = RegionId::new("eu-west").unwrap();
        let policy = RegionPolicy {
            region: eu.clone(),
            jurisdiction: Country::new("IE").unwrap(),
            accepts: DataClass::ALL.iter().copied().collect(),
            requires: BTreeSet::new(),
        };
        let allow = Verdict::Allow {
            rule: RuleId::new("anywhere").unwrap(),
            obligations: BTreeSet::new(),
            valid_from: UnixMillis(0),
            valid_until: UnixMillis::MAX,
        };
        let answer = CaseAnswer { hold: BTreeMap::from([(eu.clone(), allow)]), transfer: BTreeMap::new() };
        let ruled = |cases| Rulings { distinct: vec![answer.clone()], of_case: vec![0; cases] };
        let all = cases();
        let policies = BTreeMap::from([(eu.clone(), policy)]);
        let labels = Labels::of_class(DataClass::Children, UnixMillis(0));
        let full = plan_from(all.clone(), ruled(all.len()), policies.clone());
        assert_eq!(plan_from(all.clone(), rulings_of(&full), policies.clone()).digest(), full.digest());
        assert!(full.permit(&labels, &eu, UnixMillis(1)).is_ok());
        let short = plan_from(all.clone(), ruled(10), policies.clone());
        assert!(short.permit(&labels, &eu, UnixMillis(1)).is_err());
        let astray = Rulings { of_case: vec![1; all.len()], ..ruled(0) };
        assert!(plan_from(all, astray, policies).permit(&labels, &eu, UnixMillis(1)).is_err());
    }
}
