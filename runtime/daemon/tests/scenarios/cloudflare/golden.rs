//! Exactly what is sent: the payloads of a first deployment and of a change, held against files.

use serde_json::{Value, json};

use super::{Site, WORKER, ids_in, path_in_repository, said};

/// What was written, with what differs from tree to tree put out of the way: identifiers, hashes, and the policy, which is
/// compared with what `edge build` makes.
fn sent(site: &Site) -> String {
    let state = site.fake.state();
    let mut calls = Vec::new();
    for seen in &state.writes {
        let mut body = seen.body.clone();
        if let Some(policy) = body.get_mut("policy.js") {
            policy["content"] = json!("(the policy)");
        }
        calls.push(json!({"call": format!("{} {}", seen.method, seen.path), "status": seen.status, "body": body}));
    }
    let latest = state.scripts.get(WORKER).and_then(|script| script.versions.last().cloned());
    let mut text = serde_json::to_string_pretty(&calls).expect("JSON") + "\n";
    if let Some(version) = latest {
        let revision = version.policy()["revision"].as_str().expect("a revision").to_owned();
        text = text.replace(&revision, "(revision)");
        for tag in tags_in(&text) {
            text = text.replace(&tag, "(tag)");
        }
        for (at, version) in state.scripts[WORKER].versions.iter().enumerate() {
            text = text.replace(&version.id, &format!("(version {})", at + 1));
        }
    }
    for (at, id) in ids_in(&text).into_iter().enumerate() {
        text = text.replace(&id, &format!("(id {at})"));
    }
    text
}

fn tags_in(text: &str) -> Vec<String> {
    text.split('"').filter(|word| word.starts_with("rm-") && word.len() == 19).map(str::to_owned).collect()
}

/// Compares with a file; `UPDATE_GOLDEN=1` writes it.
fn hold(name: &str, text: &str) {
    let path = path_in_repository(&format!("runtime/daemon/tests/scenarios/cloudflare/golden/{name}.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{} differs from what is sent (UPDATE_GOLDEN=1 writes it):\n{text}", path.display());
}

#[test]
fn what_is_sent_is_what_was_agreed_on() {
    let site = Site::new();
    site.settings(&super::SETTINGS.replace("steering: country", "steering: failover"));
    let deployed = site.run(&["deploy"]);
    assert!(deployed.status.success(), "{}", said(&deployed));
    hold("first-deployment", &sent(&site));

    // The policy travels as a module of the version, and is what `edge build` makes of the same origins.
    let policy = site.fake.state().scripts[WORKER].versions.last().expect("a version").policy();
    assert_eq!(policy["origins"]["eu-west"], "https://gateway-eu-west.example.org");
    let out = tempfile::tempdir().expect("a directory");
    let mut build = std::process::Command::new(crate::cluster::BINARY);
    build
        .args(["edge", "build", "--backend", "cloudflare", "--tree"])
        .arg(site.tree.path())
        .arg("--out")
        .arg(out.path());
    for (region, url) in policy["origins"].as_object().expect("origins") {
        build.arg("--origin").arg(format!("{region}={}", url.as_str().expect("a URL")));
    }
    let built = build.output().expect("the binary runs");
    assert!(built.status.success(), "{}", said(&built));
    let file = std::fs::read_to_string(out.path().join("cloudflare-workers/policy.json")).expect("the policy");
    assert_eq!(policy, serde_json::from_str::<Value>(&file).expect("JSON"));

    site.fake.forget_writes();
    site.edit("(rate . 600)", "(rate . 300)");
    let changed = site.run(&["deploy"]);
    assert!(changed.status.success(), "{}", said(&changed));
    hold("a-change", &sent(&site));
}
