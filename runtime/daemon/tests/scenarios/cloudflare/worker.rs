//! The worker as it was uploaded really runs: its modules and bindings, in workerd.

use std::process::Command;

use serde_json::Value;

use super::{Site, WORKER, path_in_repository, said};

const FOLDER: &str = "edge-deployment/cloudflare-workers";

#[test]
fn what_was_uploaded_runs_in_workerd_and_answers_by_its_policy() {
    let folder = path_in_repository(FOLDER);
    let there = |file: &str| folder.join(file).exists();
    if !there("node_modules/miniflare") || Command::new("node").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "node or the worker's packages are missing: `make worker`");
        println!("node or the worker's packages are missing, so the uploaded worker is not run: `make worker`");
        return;
    }
    let built = Command::new("node").arg("build.mjs").current_dir(&folder).output().expect("node runs");
    assert!(built.status.success(), "{}", said(&built));
    let site = Site::new();
    std::fs::copy(folder.join("dist/worker.js"), site.tree.path().join("worker.js")).expect("the bundle");
    let deployed = site.run(&["deploy"]);
    assert!(deployed.status.success(), "{}", said(&deployed));

    let version = site.fake.state().scripts[WORKER].versions.last().expect("a version").clone();
    let out = tempfile::tempdir().expect("a directory");
    for (name, text) in &version.modules {
        std::fs::write(out.path().join(name), text).expect("a module");
    }
    std::fs::write(out.path().join("metadata.json"), version.metadata.to_string()).expect("the metadata");
    let ran =
        Command::new("node").arg("test/uploaded.mjs").arg(out.path()).current_dir(&folder).output().expect("node runs");
    assert!(ran.status.success(), "{}", said(&ran));
    let answers: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{}", said(&ran)));
    assert_eq!(answers["revision"]["revision"], version.policy()["revision"], "{answers}");
    assert_eq!(answers["stranger"], 401, "{answers}");
    // A client in Germany is sent to eu-west, by the origin that the settings name; the second answer is kept.
    assert_eq!(answers["first"]["asked"], "https://gateway-eu-west.example.org/assets/a.css", "{answers}");
    assert!(answers["first"]["cache"].as_str().expect("a header").contains("fwd=uri-miss; stored"), "{answers}");
    assert!(answers["second"]["cache"].as_str().expect("a header").contains("hit"), "{answers}");
    assert_eq!(answers["data"]["cache"], "repomind; fwd=bypass; detail=rule", "{answers}");
}
