//! RES-02, RES-04.

use super::*;

/// The plan of all tests, with personal data under the law of Russia in any region, and `eu-west` in `country`.
fn plan_with(country: &str, transfer: impl Fn(&str, &str) -> bool) -> ResidencyPlan {
    let base = plan();
    let mut cases = base.cases().clone();
    let case =
        |law| ResidencyCase { class: DataClass::Personal, law, basis: Basis::Unstated, purpose: Purpose::Service };
    let allowed = cases[&case(Law::Eea)].hold[&region("eu-west")].clone();
    let mut ruling = CaseRuling::default();
    for from in REGIONS {
        ruling.hold.insert(region(from), allowed.clone());
        for to in REGIONS {
            let verdict = match transfer(from, to) {
                true => allowed.clone(),
                false => Verdict::Deny { rule: RuleId::new("no-way-there").unwrap() },
            };
            ruling.transfer.insert((region(from), region(to)), verdict);
        }
    }
    cases.insert(case(Law::of(Country::new("RU").unwrap())), Arc::new(ruling));
    let mut policies = base.region_policies().clone();
    policies.get_mut(&region("eu-west")).unwrap().jurisdiction = Country::new(country).unwrap();
    ResidencyPlan::new(cases, policies)
}

/// A row about somebody in Russia, written in `eu-west`; `live` says whether its value is there, or was deleted.
fn russian(key: &[u8], live: bool) -> Vec<u8> {
    let envelope = keys::sealed(key, DataClass::Personal, "x");
    let mut row: Row = codec::decode(&envelope).unwrap();
    for sibling in &mut row.siblings {
        let labels = match &mut sibling.content {
            Content::Live(record) => &mut record.labels,
            Content::Tombstone { labels } => labels,
            Content::Evicted { .. } => continue,
        };
        labels.jurisdictions = BTreeSet::from([Country::new("RU").unwrap()]);
        labels.holds.clear();
    }
    row.siblings.remove(usize::from(live));
    codec::encode(&row)
}

const KEY: &[u8] = b"people\0ivan";

/// What RES-02 and RES-04 find where these regions have such rows.
fn judged(plan: &ResidencyPlan, rows: &[(&'static str, bool)], unreached: Option<usize>) -> Vec<(Check, String)> {
    let mut deployment = Deployment::honest();
    for (id, live) in rows {
        deployment.at(id).commit(&[(KEY, Some(russian(KEY, *live)))]);
    }
    deployment.cosign();
    let mut evidence = deployment.evidence();
    if let Some(unreached) = unreached {
        evidence[unreached].evidence = Err("connection refused".into());
    }
    let report = audit(&inputs(plan, evidence));
    let ours = report.findings.iter().filter(|found| matches!(found.check, Check::Res02 | Check::Res04));
    ours.map(|found| (found.check, format!("{}: {}", found.region, found.rule))).collect()
}

#[test]
fn a_record_that_a_law_wants_at_home_and_is_only_abroad_is_found() {
    let anywhere = |_: &str, _: &str| true;
    let lacks = |rule: &str| vec![(Check::Res02, format!("us-east: the law of RU wants a copy there, and {rule}"))];
    let home = plan_with("RU", anywhere);
    assert_eq!(judged(&home, &[("us-east", true)], None), lacks("no region there has one"));
    assert_eq!(judged(&home, &[("us-east", true), ("eu-west", true)], None), []);
    // Deleted at home, and on its way.
    assert_eq!(judged(&home, &[("us-east", true), ("eu-west", false)], None), []);
    assert_eq!(judged(&home, &[("us-east", false)], None), [], "what is deleted is nowhere");
    // Whether a region has it that was not reached is not known.
    assert_eq!(judged(&home, &[("us-east", true)], Some(1)), []);
    let nowhere = plan_with("IE", anywhere);
    assert_eq!(judged(&nowhere, &[("us-east", true)], None), lacks("no region is there"));
}

#[test]
fn a_value_that_came_by_a_way_that_no_rule_opens_is_found() {
    let rows = [("us-east", true), ("eu-west", true)];
    let barred = plan_with("RU", |_, to| to != "us-east");
    let rule = "us-east: it came from eu-west, from where no way leads here: no-way-there".to_owned();
    assert_eq!(judged(&barred, &rows, None), [(Check::Res04, rule)]);
    // By way of the third region.
    let relayed = plan_with("RU", |from, to| (from, to) != ("eu-west", "us-east"));
    assert_eq!(judged(&relayed, &rows, None), []);
    let other_way = plan_with("RU", |from, to| (from, to) != ("us-east", "eu-west"));
    assert_eq!(judged(&other_way, &rows, None), []);
    // Where its origin may not hold it, it came home.
    let mut policies = barred.region_policies().clone();
    policies.get_mut(&region("eu-west")).unwrap().accepts = BTreeSet::from([DataClass::Public]);
    let home = ResidencyPlan::new(barred.cases().clone(), policies);
    assert_eq!(
        judged(&home, &rows[..1], None),
        [(Check::Res02, "us-east: the law of RU wants a copy there, and no region there has one".to_owned())]
    );
}
