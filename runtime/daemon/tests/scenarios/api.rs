//! The API does what its own description says, asked by Schemathesis.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cluster::Cluster;

/// Where `make schemathesis` installs it; none where it is missing, which is a failure in CI.
fn checker() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/schemathesis/bin/schemathesis");
    if place.exists() {
        return Some(place);
    }
    assert!(std::env::var_os("CI").is_none(), "Schemathesis is missing: `make schemathesis` installs it");
    eprintln!("left out: Schemathesis is missing; `make schemathesis` installs it");
    None
}

#[test]
fn every_answer_is_one_that_the_description_knows_and_every_mistake_is_refused() {
    let Some(checker) = checker() else { return };
    let cluster = Cluster::deployed();
    let description = cluster.ask("eu-west", "GET", "/openapi.json", &[], "").unwrap();
    assert_eq!(description.status, 200, "{}", description.body);
    let description: Value = serde_json::from_str(&description.body).expect("JSON");
    assert_eq!(description["openapi"], "3.1.0");

    let token = std::fs::read_to_string(cluster.state("pki/token")).unwrap();
    let report = cluster.file("../report.json");
    let output = Command::new(checker)
        .current_dir(cluster.file(".."))
        .arg("run")
        .arg(format!("http://{}:8080/openapi.json", cluster.address("eu-west")))
        .args(["--header", &format!("Authorization: Bearer {}", token.trim())])
        // Without an end, and so for the scenarios that watch.
        .args(["--exclude-path", "/v1/watch/{namespace}"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"])
        // Whether a well-formed write is taken depends on more than its form: on residency, and on what is in the value.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
        .args(["--continue-on-failure", "--generation-database", "none", "--request-timeout", "30", "--no-color"])
        .args(["--report-json-path", report.to_str().unwrap()])
        .output()
        .expect("Schemathesis runs");
    let said = crate::cluster::text(&output);
    assert!(output.status.success(), "{said}");
    // It has asked, and not only looked.
    let described = description["paths"].as_object().unwrap().len();
    assert!(described >= 9 && said.contains("generated"), "{said}");
}
