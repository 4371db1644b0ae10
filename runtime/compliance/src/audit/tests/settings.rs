use super::*;

#[test]
fn a_region_under_another_regions_certificate_is_found() {
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "eu-west").attested = Some("us-east".into());
    let report = audit_of(evidence);
    assert_red(&report, "eu-west", &[Check::Res03]);
    assert_eq!(report.findings[0].rule, "its certificate is that of us-east");
}

fn tree_of(text: &str) -> model::bundle::TreeHash {
    PolicyTree(BTreeMap::from([("compliance/data-residency.scm".to_owned(), text.to_owned())])).hash()
}

#[test]
fn a_region_that_stays_on_an_old_generation_is_found_and_one_that_just_lags_is_not() {
    let mut evidence = Deployment::honest().evidence();
    for id in ["ap-southeast", "us-east"] {
        let policy = of(&mut evidence, id).policy.as_mut().unwrap();
        (policy.generation, policy.tree) = (8, tree_of("new"));
    }
    let lagging = audit_of(evidence);
    assert_red(&lagging, "eu-west", &[Check::Pol01]);
    assert_eq!(lagging.findings[0].rule, "it follows generation 7, others follow 8 since 100000 ms");

    let mut evidence = Deployment::honest().evidence();
    let policy = of(&mut evidence, "us-east").policy.as_mut().unwrap();
    (policy.generation, policy.tree, policy.since) = (8, tree_of("new"), UnixMillis(NOW.0 - 500));
    let report = audit_of(evidence);
    assert_eq!(found(&report), []);
    let run = report.checks.iter().find(|run| run.check == Check::Pol01).unwrap();
    assert_eq!(run.limits.len(), 2, "a lag within the grace must still be said: {:?}", run.limits);
}

#[test]
fn one_number_for_two_trees_is_found() {
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "us-east").policy.as_mut().unwrap().tree = tree_of("another");
    let report = audit_of(evidence);
    let seen: Vec<_> = report.findings.iter().map(|found| (found.check, found.region.as_str())).collect();
    assert_eq!(seen, REGIONS.map(|id| (Check::Pol01, id)));
}

#[test]
fn a_policy_bundle_without_a_good_signature_is_found() {
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "us-east").policy.as_mut().unwrap().signature = Err("it was made with another key".into());
    let report = audit_of(evidence);
    assert_red(&report, "us-east", &[Check::Pol02]);
    assert!(report.findings[0].rule.contains("made with another key"));
}

#[test]
fn a_decision_that_comes_out_otherwise_is_found_and_one_that_cannot_be_asked_is_said() {
    let mut evidence = Deployment::honest().evidence();
    let what = "decision 4: residency: personal data, law eea, in us-east: allowed (x) → denied (stays)";
    of(&mut evidence, "eu-west").decisions.as_mut().unwrap().differ.push(what.into());
    of(&mut evidence, "us-east").decisions.as_mut().unwrap().not_asked.insert("they are not public".into(), 3);
    let report = audit_of(evidence);
    assert_red(&report, "eu-west", &[Check::Pol04]);
    assert_eq!(report.findings[0].rule, what);
    let run = report.checks.iter().find(|run| run.check == Check::Pol04).unwrap();
    assert_eq!(run.limits, ["us-east: 3 decisions were not asked again: they are not public"]);
}

#[test]
fn a_region_whose_decisions_cannot_be_read_is_no_pass() {
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "eu-west").decisions = None;
    assert_eq!(audit_of(evidence).outcome, crate::audit::Outcome::Incomplete);
}
