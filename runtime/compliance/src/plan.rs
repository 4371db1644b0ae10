//! The residency plan: the whole space of cases, ruled on once for each generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::RegionId;
use model::question::CaseAnswer;
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

/// The plan of what was answered, the answers in the order of the cases. A case without an answer is denied; an answer
/// without a case is dropped. Equal rulings next to each other share their memory.
pub fn plan_from(
    cases: Vec<ResidencyCase>,
    answers: Vec<CaseAnswer>,
    region_policies: BTreeMap<RegionId, RegionPolicy>,
) -> ResidencyPlan {
    let mut last: Option<Arc<CaseRuling>> = None;
    let mut rulings = BTreeMap::new();
    for (case, CaseAnswer { hold, transfer }) in cases.into_iter().zip(answers) {
        let ruling = CaseRuling { hold, transfer };
        let shared = match &last {
            Some(before) if **before == ruling => before.clone(),
            _ => Arc::new(ruling),
        };
        last = Some(shared.clone());
        rulings.insert(case, shared);
    }
    ResidencyPlan::new(rulings, region_policies)
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
        let all = cases();
        let policies = BTreeMap::from([(eu.clone(), policy)]);
        let labels = Labels::of_class(DataClass::Children, UnixMillis(0));
        let full = plan_from(all.clone(), vec![answer.clone(); all.len()], policies.clone());
        assert!(full.permit(&labels, &eu, UnixMillis(1)).is_ok());
        let short = plan_from(all, vec![answer; 10], policies);
        assert!(short.permit(&labels, &eu, UnixMillis(1)).is_err());
    }
}
