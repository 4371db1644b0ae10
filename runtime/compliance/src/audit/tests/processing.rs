//! ROP-01, and the record of processing activities.

use super::*;
use crate::audit::ActivityName;

fn judged(declared: Option<&[ActivityName]>) -> Report {
    audit(&Inputs { declared, ..inputs(&plan(), Deployment::honest().evidence()) })
}

#[test]
fn an_activity_that_the_record_does_not_name_is_found() {
    let observed = judged(None);
    let run = |report: &Report| report.checks.iter().find(|run| run.check == Check::Rop01).unwrap().clone();
    assert!(run(&observed).limits[0].contains("no record was given"), "{observed:?}");
    let [activity] = &observed.processing[..] else { panic!("{:?}", observed.processing) };
    assert_eq!((activity.values, activity.encrypted, activity.until_stated), (1, 1, 1));
    assert_eq!(activity.country.as_deref(), Some("IE"));
    let name = &activity.name;
    assert_eq!((name.namespace.as_str(), name.class.as_str(), name.region.as_str()), ("people", "personal", "eu-west"));

    // What a person was shown as JSON is taken back as it is.
    let shown = serde_json::to_string(&observed.processing).unwrap();
    let declared: Vec<ActivityName> = serde_json::from_str(&shown).unwrap();
    assert_eq!(judged(Some(&declared)).outcome, Outcome::Pass);

    let other = ActivityName { basis: "consent".into(), ..name.clone() };
    let report = judged(Some(&[other]));
    assert_red(&report, "eu-west", &[Check::Rop01]);
    assert!(report.findings[0].rule.contains("the record of processing activities does not say so"));
    assert!(run(&report).limits[0].starts_with("1 activities"), "{:?}", run(&report));
}
