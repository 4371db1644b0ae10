use super::*;
use crate::facts::{ADEQUACY, Adequacy, Day};

/// The tests' plan, by which `us-east` is in this country and personal data may be anywhere.
fn open_plan(country: &str) -> ResidencyPlan {
    let plan = plan();
    let anywhere = plan.cases().iter().map(|(case, ruling)| {
        let mut ruling = CaseRuling::clone(ruling);
        let allowed = ruling.hold[&region("eu-west")].clone();
        ruling.hold.values_mut().for_each(|verdict| *verdict = allowed.clone());
        (*case, Arc::new(ruling))
    });
    let mut policies = plan.region_policies().clone();
    policies.get_mut(&region("us-east")).unwrap().jurisdiction = Country::new(country).unwrap();
    ResidencyPlan::new(anywhere.collect(), policies)
}

/// What is found about facts where personal data from Germany lies in `us-east`, which is in `country`.
fn judged(country: &str, adequacy: &[Adequacy], now: UnixMillis) -> (Report, Vec<(Check, String)>) {
    let mut deployment = Deployment::honest();
    let row = row_of(DataClass::Personal, Payload::Plain(b"x".to_vec().into()));
    deployment.at("us-east").commit(&[(b"people\0ada", Some(codec::encode(&row)))]);
    deployment.cosign();
    let report = audit(&Inputs { adequacy, now, ..inputs(&open_plan(country), deployment.evidence()) });
    let facts = |check| matches!(check, Check::Res05 | Check::Fct01);
    let found = report.findings.iter().filter(|found| facts(found.check));
    let found = found.map(|found| (found.check, format!("{}: {}", found.region, found.rule))).collect();
    (report, found)
}

fn about(country: &str) -> Adequacy {
    *ADEQUACY.iter().find(|fact| fact.country == country).unwrap()
}

#[test]
fn data_abroad_by_a_decision_that_expired_or_was_suspended_is_found() {
    let (report, found) = judged("US", ADEQUACY, NOW);
    assert_eq!(found, []);
    let run = report.checks.iter().find(|run| run.check == Check::Res05).unwrap();
    assert_eq!(run.examined, 1, "only what lies abroad is asked about");
    let annulled = Adequacy { suspended: true, ..about("US") };
    let rule = "us-east: the adequacy decision about US is suspended".to_owned();
    assert_eq!(judged("US", &[annulled], NOW).1, [(Check::Res05, rule)]);
    let expired = Adequacy { until: Some(Day(2025, 12, 31)), ..about("GB") };
    let rule = "us-east: the adequacy decision about GB held until 2025-12-31".to_owned();
    assert_eq!(judged("GB", &[expired], NOW).1, [(Check::Res05, rule)]);
    // At home there is nothing to rely on; where no decision is encoded, the report says that it does not know.
    assert_eq!(judged("SE", &[annulled], NOW).1, []);
    let (report, found) = judged("IN", ADEQUACY, NOW);
    let run = report.checks.iter().find(|run| run.check == Check::Res05).unwrap();
    assert!(found.is_empty() && run.limits[0].contains("us-east: of 1 values"), "{run:?}");
}

#[test]
fn a_fact_that_nobody_has_looked_at_in_time_is_found() {
    let late = Adequacy { review_by: Day(2025, 12, 31), ..about("US") };
    let (_, found) = judged("US", &[late], NOW);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0 == Check::Fct01 && found[0].1.contains("looked at again by 2025-12-31"), "{found:?}");
    assert_eq!(judged("CA", &[late], NOW).1, [], "nobody relies on it");
}
