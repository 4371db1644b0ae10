//! What somebody tries who wants data where it may not be, or wants it gone.

use crate::cluster::{Cluster, everywhere, text, until};
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
fn a_policy_that_answers_yes_to_everything_bars_everything_and_destroys_nothing() {
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

    // Without it, or cut in half, nothing changes.
    std::fs::remove_file(&file).unwrap();
    let refused = |what: &str| {
        until(what, SOON, || {
            let status = cluster.status("us-east")?;
            (!status["policy_errors"].as_array()?.is_empty() && status["generation"] == 1).then_some(())
        });
    };
    refused("the deleted file refused");
    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    refused("the truncated file refused");
    assert_eq!(status(&cluster, "eu-west", "profiles/p1"), Some(200));

    let yes = "(provide policy-api residency transfer)\n(define policy-api 1)\n\
               (define (residency record) 'yes)\n(define (transfer record from to) 'yes)\n";
    std::fs::write(&file, yes).unwrap();
    everywhere(&cluster, 2);
    for region in REGIONS {
        let refused = cluster.ask(region, "PUT", "/v1/data/notes/n2", &[], "x").unwrap();
        assert_eq!(refused.status, 451, "`yes` was taken for a verdict in {region}: {}", refused.body);
        until("all rows held against it", SOON * 2, || {
            let eviction = cluster.status(region)?["eviction"].clone();
            (eviction["generation"] == 2 && eviction["done"] == true && eviction["evicted"] == 0).then_some(())
        });
        assert_eq!(status(&cluster, region, "notes/n1"), Some(451), "{region}");
    }
    // Nothing has a place, so everything stays where it is.
    assert!(cluster.status("eu-west").unwrap()["eviction"]["stuck"].as_u64() >= Some(2));
    let back = cluster.run(&["policy", "rollback", "1", "--reason", "that was no verdict", "--confirm"]);
    assert!(back.status.success(), "{}", text(&back));
    for region in REGIONS {
        until("the note again", SOON * 2, || (status(&cluster, region, "notes/n1")? == 200).then_some(()));
    }
    assert_eq!(cluster.ask("eu-west", "GET", "/v1/data/profiles/p1", &[], "").unwrap().body, "canary");
}
