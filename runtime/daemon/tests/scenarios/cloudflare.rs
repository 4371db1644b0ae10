//! The edge at Cloudflare, by the built command against a server that stands in for the API.

mod fake;
mod golden;
mod journeys;
mod refusals;
mod rules;
mod tls;
mod worker;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use fake::{ACCOUNT, Fake, TOKEN, ZONE};

/// The secrets of the worker. They may stand in uploads alone.
const OPERATOR: &str = "operator-secret-of-the-tests-4711";
const WORKER: &str = "edge-of-the-tests";

/// A worker that is small, and has what an upload must export.
const CODE: &str = "import policy from \"./policy.js\";\nexport class Bucket {}\nexport class Shared {}\n\
                    export default { fetch: () => new Response(policy.revision) };\n";

const SETTINGS: &str = "\
version: 1
cloudflare:
  account: 0123456789abcdef0123456789abcdef
  zone: fedcba9876543210fedcba9876543210
  worker: edge-of-the-tests
  routes: [www.example.org/*]
  origins:
    us-east: https://gateway-us-east.example.org
    eu-west: https://gateway-eu-west.example.org
    ap-southeast: https://gateway-ap-southeast.example.org:8443
  secrets:
    OPERATOR_TOKEN: {env: TEST_OPERATOR}
  load_balancer: {hostname: www.example.org, steering: country}
  canary: {percent: 10, probes: 3, seconds: 60, paths: [/, /assets/a.css]}
";

/// A tree, a state directory and the API.
struct Site {
    fake: Fake,
    tree: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let tree = super::edge::tree(&super::edge::policy());
        let site = Self { fake: Fake::start(), tree, state: tempfile::tempdir().expect("a directory") };
        site.settings(SETTINGS);
        std::fs::write(site.tree.path().join("worker.js"), CODE).expect("a file");
        site
    }

    /// The same, deployed; the calls for that are forgotten.
    fn deployed() -> Self {
        let site = Self::new();
        let deployed = site.run(&["deploy"]);
        assert!(deployed.status.success(), "{}", said(&deployed));
        site.fake.forget_writes();
        site
    }

    fn settings(&self, text: &str) {
        std::fs::write(self.tree.path().join("edge-deployment/cloudflare.yml"), text).expect("a file");
    }

    /// Changes the edge policy, which must have `from` in it.
    fn edit(&self, from: &str, to: &str) {
        let path = self.tree.path().join("edge-deployment/edge-cache.scm");
        let text = std::fs::read_to_string(&path).expect("the policy");
        assert!(text.contains(from), "{from} is not in the policy");
        std::fs::write(path, text.replace(from, to)).expect("a file");
    }

    fn command(&self, words: &[&str]) -> Command {
        self.command_to(&self.fake.base(), words)
    }

    /// A command whose API is there.
    fn command_to(&self, base: &str, words: &[&str]) -> Command {
        let (verbs, flags) =
            words.split_at(words.iter().position(|word| word.starts_with("--")).unwrap_or(words.len()));
        let mut command = Command::new(super::cluster::BINARY);
        command.args(verbs);
        if verbs != ["edge", "purge"] {
            command.args(["--target", "cloudflare"]);
        }
        command.arg("--tree").arg(self.tree.path()).arg("--state").arg(self.state.path());
        command.arg("--worker").arg(self.tree.path().join("worker.js"));
        command.args(["--api-base-url", base, "--probe-url", &format!("http://{}", self.fake.address)]);
        command.args(flags).env("CLOUDFLARE_API_TOKEN", TOKEN).env("TEST_OPERATOR", OPERATOR);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the binary runs")
    }

    /// A command that succeeds and prints JSON.
    fn json(&self, words: &[&str], code: i32) -> Value {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
    }

    fn start(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("the binary runs")
    }

    fn journal(&self) -> PathBuf {
        let folders = std::fs::read_dir(self.state.path().join("cloudflare")).expect("journals");
        folders.flatten().next().expect("a journal").path().join("journal.jsonl")
    }

    /// What is there, without identifiers and the order in which things were made.
    fn world(&self) -> Value {
        let state = self.fake.state();
        let mut text = serde_json::json!({
            "things": state.things, "ruleset": state.ruleset, "serves": state.serves(WORKER).iter().map(|(_, share)| share).collect::<Vec<_>>(),
            "scripts": state.scripts.iter().map(|(name, script)| (name, &script.tags, &script.migration)).collect::<Vec<_>>(),
        })
        .to_string();
        for (at, id) in ids_in(&text).into_iter().enumerate() {
            text = text.replace(&id, &format!("id-{at}"));
        }
        serde_json::from_str(&text).expect("JSON")
    }
}

/// The identifiers that the fake gave, in the order in which they stand.
fn ids_in(text: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for word in text.split('"').filter(|word| word.len() == 32 && word.starts_with("0000000000000000")) {
        if !ids.iter().any(|id| id == word) {
            ids.push(word.to_owned());
        }
    }
    ids
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// No secret stands in what a command printed, nor in any file below the state directory.
fn nothing_secret(site: &Site, outputs: &[&Output]) {
    for secret in [TOKEN, OPERATOR] {
        for output in outputs {
            assert!(!said(output).contains(secret), "printed: {}", said(output));
        }
        for file in super::files_below(site.state.path()) {
            let bytes = std::fs::read(&file).expect("a file");
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", file.display());
        }
    }
}

fn path_in_repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

/// The account and the zone of the settings are those of the fake.
#[test]
fn the_settings_of_these_tests_name_the_stand_in() {
    assert!(SETTINGS.contains(ACCOUNT) && SETTINGS.contains(ZONE));
    let example =
        std::fs::read_to_string(path_in_repository("edge-deployment/cloudflare.example.yml")).expect("the example");
    let read = config::cloudflare::load_from(&example);
    assert!(read.is_ok(), "{read:?}");
}
