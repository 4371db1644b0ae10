use super::*;

#[test]
fn a_log_that_names_a_person_or_holds_an_address_is_found_and_nothing_of_it_is_repeated() {
    let told = |text: &str| {
        let mut deployment = Deployment::honest();
        let mut row = row_of(DataClass::Personal, Payload::Plain(b"x".to_vec().into()));
        for sibling in &mut row.siblings {
            if let Content::Live(record) = &mut sibling.content {
                record.labels.subject = Some("s-77c1".parse().unwrap());
            }
        }
        deployment.at("eu-west").commit(&[(b"people\0account-815", Some(codec::encode(&row)))]);
        deployment.cosign();
        let mut evidence = deployment.evidence();
        of(&mut evidence, "us-east").told = vec![("log".into(), text.as_bytes().to_vec())];
        let report = audit_of(evidence);
        let found = report.findings.iter().filter(|found| found.check == Check::Log01);
        found.map(|found| format!("{}: {}", found.region, found.rule)).collect::<Vec<_>>()
    };
    assert_eq!(told("INFO a write to eu-west was refused rule=eea-personal-stays-in-eea took=4111ms\n"), [""; 0]);
    assert_eq!(
        told("INFO wrote key=\"account-815\"\n"),
        ["us-east: its log names 1 times a person or a record about one"]
    );
    assert_eq!(told("read(s-77c1) s-77c1\n"), ["us-east: its log names 2 times a person or a record about one"]);
    assert_eq!(told("panicked at ada@example.org\n"), ["us-east: its log holds what looks like an e-mail address"]);
}

#[test]
fn a_write_that_has_to_be_refused_and_is_taken_is_found() {
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "eu-west").probes = vec![("without a token".into(), 401), ("of a class".into(), 204)];
    let report = audit_of(evidence);
    assert_red(&report, "eu-west", &[Check::Pol05]);
    assert_eq!(report.findings[0].rule, "a write of a class was answered with 204");

    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "eu-west").probes.clear();
    of(&mut evidence, "eu-west").told.clear();
    let report = audit_of(evidence);
    assert_eq!(report.outcome, Outcome::Incomplete, "what was not asked passed");
}

#[test]
fn an_answer_about_a_person_that_shared_caches_may_keep_is_found() {
    for (name, value, rule) in [
        ("cache-control", "public, max-age=60", "came with cache-control: public, max-age=60"),
        ("cdn-cache-control", "max-age=60", "came with cdn-cache-control: max-age=60"),
        ("etag", "\"x\"", "came without cache-control"),
    ] {
        let mut evidence = Deployment::honest().evidence();
        let answers = of(&mut evidence, "us-east").answers.as_mut().unwrap();
        if name != "cdn-cache-control" {
            answers[0].clear();
        }
        answers[0].push((name.to_owned(), value.to_owned()));
        let report = audit_of(evidence);
        assert_red(&report, "us-east", &[Check::Cac01]);
        assert!(report.findings[0].rule.ends_with(rule), "{}", report.findings[0].rule);
    }
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "us-east").answers = None;
    let report = audit_of(evidence);
    let run = report.checks.iter().find(|run| run.check == Check::Cac01).unwrap();
    assert_eq!((run.not_run.len(), report.outcome), (1, Outcome::Incomplete));
}
