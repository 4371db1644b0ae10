//! What somebody tries who wants data where it may not be, or wants it gone.

use crate::cluster::{Cluster, text, until};
use crate::{REGIONS, SOON};

const GERMAN: [(&str, &str); 3] =
    [("repomind-class", "personal"), ("repomind-jurisdiction", "DE"), ("repomind-basis", "contract")];

fn status(cluster: &Cluster, region: &str, path: &str) -> Option<u16> {
    Some(cluster.ask(region, "GET", &format!("/v1/data/{path}"), &[], "").ok()?.status)
}

#[test]
fn with_every_region_of_the_eea_down_nothing_about_its_people_is_taken_or_shown_elsewhere() {
    let cluster = Cluster::deployed();
    let written = cluster.ask("eu-west", "PUT", "/v1/data/profiles/p1", &GERMAN, "canary-eea").unwrap();
    assert_eq!(written.status / 100, 2, "{}", written.body);
    cluster.kill("eu-west");
    until("eu-west seen as down", SOON, || (cluster.status("us-east")?["sees"]["eu-west"] == "down").then_some(()));
    // In two countries, in small letters, by other names of the same country: the strictest counts.
    let claims = ["DE", "de", "US,DE", "el", "GR", "fr,us"];
    for region in ["us-east", "ap-southeast"] {
        for country in claims {
            let labels =
                [("repomind-class", "personal"), ("repomind-jurisdiction", country), ("repomind-basis", "contract")];
            let refused = cluster.ask(region, "PUT", "/v1/data/profiles/p2", &labels, "canary-eea").unwrap();
            assert!([451, 503].contains(&refused.status), "{region} took data of {country}: {}", refused.body);
            assert!(refused.body.contains("rule"), "{}", refused.body);
        }
        for key in ["p1", "p2"] {
            let read = cluster.ask(region, "GET", &format!("/v1/data/profiles/{key}"), &[], "").unwrap();
            assert!(read.status >= 400 && !read.body.contains("canary"), "{region}: {}", read.body);
        }
        for file in crate::files_below(&cluster.state(region)) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            assert!(!bytes.windows(10).any(|window| window == b"canary-eea"), "{}", file.display());
        }
    }
}

#[test]
fn a_residency_policy_that_is_gone_cut_says_yes_or_throws_changes_nothing_and_is_said() {
    let cluster = Cluster::deployed();
    let kept = cluster.ask("eu-west", "PUT", "/v1/data/profiles/p1", &GERMAN, "canary").unwrap();
    assert_eq!(kept.status / 100, 2, "{}", kept.body);
    let note = cluster.ask("us-east", "PUT", "/v1/data/notes/n1", &[], "for all").unwrap();
    assert_eq!(note.status / 100, 2, "{}", note.body);
    for region in REGIONS {
        until("the note everywhere", SOON, || (status(&cluster, region, "notes/n1")? == 200).then_some(()));
    }
    let file = cluster.file("compliance/data-residency.scm");
    let good = std::fs::read_to_string(&file).unwrap();
    let answering = |answer: &str| {
        format!(
            "(provide policy-api residency transfer)\n(define policy-api 1)\n\
             (define (residency record) {answer})\n(define (transfer record from to) {answer})\n"
        )
    };
    let saves = [
        ("gone", None, "missing"),
        ("cut", Some(good[..good.len() / 2].to_owned()), ""),
        ("yes", Some(answering("'yes")), "returned yes"),
        ("throws", Some(answering("(error \"no idea\")")), "no idea"),
    ];
    for (what, text, says) in saves {
        match text {
            None => std::fs::remove_file(&file).unwrap(),
            Some(text) => std::fs::write(&file, text).unwrap(),
        }
        until(&format!("{what}: refused, and why"), SOON * 2, || {
            let status = cluster.status("us-east")?;
            let errors = status["policy_errors"].as_array()?;
            let said = errors.iter().any(|error| error.to_string().contains(says));
            (said && status["generation"] == 1).then_some(())
        });
        for region in REGIONS {
            assert_eq!(status(&cluster, region, "notes/n1"), Some(200), "{what}: {region}");
        }
        let abroad = cluster.ask("us-east", "PUT", "/v1/data/profiles/p2", &GERMAN, "canary").unwrap();
        assert_eq!(abroad.status, 451, "{what}: {}", abroad.body);
        assert_eq!(cluster.ask("eu-west", "GET", "/v1/data/profiles/p1", &[], "").unwrap().body, "canary", "{what}");
    }
    std::fs::write(&file, good).unwrap();
    until("no mistake any more", SOON * 2, || {
        let status = cluster.status("us-east")?;
        (status["policy_errors"].as_array()?.is_empty() && status["generation"] == 1).then_some(())
    });
}

#[test]
fn a_batch_that_is_spread_over_regions_brings_nothing_past_the_rules() {
    const ITEMS: usize = 250;
    let cluster = Cluster::deployed();
    let item = |region: &str, number: usize| {
        // Every fifth may be anywhere.
        let (namespace, headers) = match number % 5 {
            0 => ("notes", serde_json::json!({})),
            _ => ("profiles", serde_json::json!(GERMAN.into_iter().collect::<std::collections::BTreeMap<_, _>>())),
        };
        let (key, value) = (format!("{region}-{number}"), "canary-batch");
        serde_json::json!({"namespace": namespace, "key": key, "op": "put", "value": value, "headers": headers})
    };
    for region in ["us-east", "ap-southeast"] {
        let items: Vec<_> = (0..ITEMS).map(|number| item(region, number)).collect();
        let body = serde_json::json!({ "items": items }).to_string();
        let answer = cluster.ask(region, "POST", "/v1/batch", &[], &body).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), ITEMS);
        for (number, result) in results.iter().enumerate() {
            let expected = if number % 5 == 0 { 204 } else { 451 };
            assert_eq!(result["status"], expected, "item {number} in {region}: {result}");
        }
    }
    // A batch larger than the limit is not taken at all, in any region.
    let many: Vec<_> = (0..1000).map(|number| item("eu-west", number)).collect();
    let body = serde_json::json!({ "items": many }).to_string();
    for region in REGIONS {
        assert_eq!(cluster.ask(region, "POST", "/v1/batch", &[], &body).unwrap().status, 422, "{region}");
    }
    for region in REGIONS {
        let listed = cluster.ask(region, "GET", "/v1/data/profiles?limit=1000", &[], "").unwrap();
        assert!(!listed.body.contains("us-east-") && !listed.body.contains("eu-west-"), "{region}: {}", listed.body);
        let read = cluster.ask(region, "GET", "/v1/data/profiles/us-east-1", &[], "").unwrap();
        assert_eq!(read.status, 404, "{region}: {}", read.body);
    }
}

#[test]
fn what_a_request_says_about_a_person_reaches_no_log_and_no_metric() {
    let cluster = Cluster::deployed();
    let canaries = ["canary71-path", "canary72-subject", "canary73-body", "canary74-query", "canary75-header"];
    let [path, subject, body, query, header] = canaries;
    let personal: Vec<_> = GERMAN.into_iter().chain([("repomind-subject", subject)]).collect();
    let target = format!("/v1/data/profiles/{path}");
    for region in REGIONS {
        // Taken in one region and refused in the others.
        let _ = cluster.ask(region, "PUT", &target, &personal, body).unwrap();
        let _ = cluster.ask(region, "GET", &format!("{target}?{query}=1"), &[], "").unwrap();
        // Refused for what they say.
        for (name, value) in [("repomind-class", header), ("repomind-basis", header), ("repomind-retain-until", header)]
        {
            let refused = cluster.ask(region, "PUT", &target, &[(name, value)], body).unwrap();
            assert_eq!(refused.status, 422, "{region}: {name}: {}", refused.body);
        }
        let _ =
            cluster.ask(region, "GET", &format!("/v1/data/profiles?prefix={path}&cursor={query}"), &[], "").unwrap();
        let _ = cluster.ask(region, "POST", "/v1/batch", &[], &format!("{{\"items\": {body:?}")).unwrap();
        let _ = cluster.ask(region, "GET", &format!("/profile/{path}?{query}"), &[("cookie", header)], "").unwrap();
    }
    let held = cluster.ask("eu-west", "GET", &target, &[], "").unwrap();
    assert_eq!(held.status, 200, "{}", held.body);
    let told = cluster.run(&["subject", "report", subject]);
    assert!(told.status.success(), "{}", text(&told));
    for region in REGIONS {
        let metrics = cluster.admin(region, "GET", "/metrics", "").unwrap();
        assert_eq!(metrics.status, 200, "{}", metrics.body);
        let log = std::fs::read_to_string(cluster.state(region).join("daemon.log")).unwrap();
        assert!(metrics.body.contains("repomind_") && !log.is_empty(), "{region} told nothing");
        for canary in canaries {
            assert!(!metrics.body.contains(canary), "a metric of {region} holds {canary}");
            let line = log.lines().find(|line| line.contains(canary));
            assert!(line.is_none(), "the log of {region} holds {canary}: {line:?}");
        }
    }
}
