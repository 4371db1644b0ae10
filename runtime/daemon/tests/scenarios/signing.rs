//! Who can make policy: operators with their keys, and no region, whatever was stolen there.

use std::path::PathBuf;
use std::process::Output;

use model::bundle::{Because, Bundle, PolicyTree, TreeHash};
use model::{RegionId, UnixMillis};
use net::pki::{SigningKey, bundle_bytes};
use serde_json::{Value, json};

use crate::cluster::{BINARY, Cluster, everywhere, generation, text, until};
use crate::{REGIONS, SOON};

/// A deployment whose operators work elsewhere.
struct Production {
    cluster: Cluster,
    /// Where the operators' keys are; no region reads it.
    desk: tempfile::TempDir,
}

impl Production {
    /// Three regions of which none serves yet: nobody has signed anything.
    fn unsigned(operators: &[&str]) -> Self {
        let this = Self { cluster: Cluster::tree(), desk: tempfile::tempdir().unwrap() };
        this.name(operators);
        let deployed = this.cluster.run(&["deploy", "--wan", "lan"]);
        assert_eq!(deployed.status.code(), Some(1), "{}", text(&deployed));
        assert!(text(&deployed).contains("once an operator has signed"), "{}", text(&deployed));
        this
    }

    fn key(&self, operator: &str) -> PathBuf {
        self.desk.path().join(operator)
    }

    /// The line of an operator in region files, whose key is made where there is none yet.
    fn line(&self, operator: &str) -> String {
        let (key, line) = (self.key(operator), self.key(&format!("{operator}.line")));
        if !key.exists() {
            let words = ["pki", "operator-key", operator, "--out", key.to_str().unwrap()];
            let made = std::process::Command::new(BINARY).args(words).output().unwrap();
            assert!(made.status.success(), "{}", text(&made));
            std::fs::write(&line, made.stdout).unwrap();
        }
        std::fs::read_to_string(line).unwrap().trim().to_owned()
    }

    /// Writes operators into the region files; daemons that run have read them before.
    fn name(&self, operators: &[&str]) {
        let lines: Vec<String> = operators.iter().map(|operator| self.line(operator)).collect();
        for region in REGIONS {
            let file = self.cluster.file(&format!("region-config/{region}.yml"));
            let source = std::fs::read_to_string(&file).unwrap();
            let without = source.split("  policies:").next().unwrap().to_owned();
            let policies = match lines.as_slice() {
                [] => String::new(),
                lines => format!("  policies:\n    operators: [{}]\n", lines.join(", ")),
            };
            std::fs::write(file, without + &policies).unwrap();
        }
    }

    /// Ends regions and starts them again, with the region files as they are now.
    fn restart(&self, regions: &[&str]) {
        regions.iter().for_each(|region| self.cluster.kill(region));
        let again = self.cluster.run(&["deploy", "--wan", "lan"]);
        assert!(again.status.success(), "{}\n{}", text(&again), self.cluster.logs());
    }

    fn signed(&self, operator: &str, words: &[&str]) -> Output {
        let key = self.key(operator);
        self.cluster.run(&[words, &["--key", key.to_str().unwrap()]].concat())
    }

    fn publish(&self, operator: &str) -> Output {
        let tree = self.cluster.file("");
        self.signed(operator, &["policy", "publish", tree.to_str().unwrap(), "--reason", "read and signed"])
    }

    /// What is said when something is refused.
    fn refused(&self, output: &Output) -> String {
        assert!(!output.status.success(), "it was taken: {}", text(output));
        text(output)
    }

    fn save(&self, comment: &str) {
        let file = self.cluster.file("traffic-routing/failover.scm");
        let source = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{source}\n;; {comment}\n")).unwrap();
    }

    fn waiting(&self) -> String {
        until("the saved files as a candidate", SOON, || {
            let waiting = self.cluster.status("us-east")?["policy_waiting"].clone();
            (waiting["unsigned"] == true).then(|| waiting["hash"].as_str().map(str::to_owned))?
        })
    }

    fn signed_by(&self, region: &str) -> Value {
        self.cluster.status(region).expect("a region that answers")["policy_signed_by"].clone()
    }
}

#[test]
fn in_development_the_region_that_proposes_signs() {
    let cluster = Cluster::deployed();
    for region in REGIONS {
        assert_eq!(cluster.status(region).unwrap()["policy_signed_by"], json!({"region": "us-east"}));
    }
    let shown = text(&cluster.run(&["status"]));
    assert!(shown.contains("generation 1 is signed by region us-east (development)"), "{shown}");
    let history = text(&cluster.run(&["policy", "history"]));
    assert!(history.contains("region us-east (development)"), "{history}");
    assert!(!cluster.state("pki/bundle.key").exists(), "a key that is the same everywhere");
}

#[test]
fn in_production_a_save_is_a_candidate_until_an_operator_signs_it() {
    let there = Production::unsigned(&["alice", "bob"]);
    let (cluster, tree) = (&there.cluster, there.cluster.file(""));
    there.waiting();
    let said = there.refused(&cluster.run(&["policy", "publish", tree.to_str().unwrap(), "--reason", "without a key"]));
    assert!(said.contains("only operators sign policies here (alice, bob): name your key with --key"), "{said}");
    assert!(REGIONS.iter().all(|region| generation(cluster, region) == Some(0)), "in force without a signature");

    let published = there.publish("alice");
    assert!(published.status.success(), "{}\n{}", text(&published), cluster.logs());
    everywhere(cluster, 1);
    assert!(REGIONS.iter().all(|region| there.signed_by(region) == json!({"operator": "alice"})));

    there.save("Saved beside a region.");
    let hash = there.waiting();
    let shown = text(&cluster.run(&["status"]));
    assert!(shown.contains("no operator has signed it") && shown.contains(&format!("{hash} --key FILE")), "{shown}");
    let said = there.refused(&cluster.run(&["policy", "confirm", &hash]));
    assert!(said.contains("only operators sign"), "{said}");
    // An operator signs what is on the own desk, and not what a region says is waiting.
    let desk = there.desk.path().join("tree");
    crate::cluster::copy_tree(&desk, str::to_owned);
    let other = ["policy", "confirm", &hash, "--tree", desk.to_str().unwrap()];
    let said = there.refused(&there.signed("bob", &other));
    assert!(said.contains("sign only what you have read"), "{said}");
    let confirmed = there.signed("bob", &["policy", "confirm", &hash]);
    assert!(confirmed.status.success(), "{}", text(&confirmed));
    everywhere(cluster, 2);
    assert_eq!(there.signed_by("eu-west"), json!({"operator": "bob"}));

    let back = ["policy", "rollback", "1", "--reason", "a mistake"];
    let said = there.refused(&cluster.run(&back));
    assert!(said.contains("only operators sign"), "{said}");
    let back = there.signed("alice", &back);
    assert!(back.status.success(), "{}", text(&back));
    everywhere(cluster, 3);
    let history = text(&cluster.run(&["policy", "history"]));
    assert!(history.contains("operator alice") && history.contains("operator bob"), "{history}");
}

#[test]
fn operators_come_and_go_without_a_moment_without_policies() {
    let there = Production { cluster: Cluster::deployed(), desk: tempfile::tempdir().unwrap() };
    let cluster = &there.cluster;
    let all = |by: Value| assert!(REGIONS.iter().all(|region| there.signed_by(region) == by), "{by}");
    // From development to production: what a region had signed stays until an operator signs the same files.
    there.name(&["alice"]);
    there.restart(&["us-east"]);
    there.restart(&["eu-west", "ap-southeast"]);
    all(json!({"region": "us-east"}));
    assert!(there.publish("alice").status.success());
    everywhere(cluster, 2);
    all(json!({"operator": "alice"}));
    // A second key comes, and signs what is in force; then the first goes.
    there.name(&["alice", "bob"]);
    there.restart(&REGIONS);
    let again = there.publish("alice");
    assert!(again.status.success() && generation(cluster, "us-east") == Some(2), "{}", text(&again));
    assert!(there.publish("bob").status.success());
    everywhere(cluster, 3);
    there.name(&["bob"]);
    there.restart(&REGIONS);
    all(json!({"operator": "bob"}));
    there.save("By somebody who left.");
    there.waiting();
    let said = there.refused(&there.publish("alice"));
    assert!(said.contains("its signature is not that of an operator (bob)"), "{said}");
    let history = text(&cluster.run(&["policy", "history"]));
    assert!(history.contains("a key that is not known here"), "{history}");
    let said = there.refused(&there.signed("bob", &["policy", "rollback", "2", "--reason", "to see"]));
    assert!(said.contains("has signed generation 2"), "{said}");
    assert!(there.publish("bob").status.success());
    everywhere(cluster, 4);
}

/// A proposal of what is in force with one comment more, signed by `key` for generation `number`.
fn forged(cluster: &Cluster, key: &SigningKey, number: u64) -> String {
    let status = cluster.status("us-east").unwrap();
    let in_force = status["generation"].as_u64().unwrap();
    let get = |path: &str| cluster.admin("us-east", "GET", path, "").unwrap().body;
    let mut tree: PolicyTree = serde_json::from_str(&get(&format!("/policy/tree?generation={in_force}"))).unwrap();
    let next: Value = serde_json::from_str(&get("/policy/next")).unwrap();
    let parent: Option<TreeHash> = serde_json::from_value(next["parent"].clone()).unwrap();
    tree.0.get_mut("traffic-routing/failover.scm").unwrap().push_str("\n;; Forged.\n");
    let because = Because { author: "a thief".into(), reason: "profit".into() };
    let proposer = RegionId::new("us-east").unwrap();
    let (proposed_at, because, tree) = (UnixMillis(1), because, tree);
    let bundle = Bundle { generation: number, parent, proposer, proposed_at, because, tree };
    let signature = key.sign(&bundle_bytes(&bundle));
    json!({
        "parent": status["policy_hash"], "because": bundle.because, "tree": bundle.tree, "confirmed": true,
        "endorsement": {"generation": number, "proposer": "us-east", "signed_at": 1, "signature": signature},
    })
    .to_string()
}

#[test]
fn neither_a_stolen_token_nor_any_key_of_a_region_makes_policy() {
    let there = Production::unsigned(&["alice"]);
    let cluster = &there.cluster;
    assert!(there.publish("alice").status.success());
    everywhere(cluster, 1);
    let key = |name: &str| SigningKey::load(&cluster.state(&format!("pki/{name}.key"))).unwrap();
    there.line("mallory");
    let mallory = SigningKey::load(&there.key("mallory")).unwrap();
    let refused = |proposal: &str, why: &str| {
        let answer = cluster.admin("us-east", "POST", "/policy/publish", proposal).unwrap();
        assert_eq!(answer.status, 409, "{}", answer.body);
        assert!(answer.body.contains(why), "{}", answer.body);
    };
    refused(&forged(cluster, &key("us-east-policy"), 2), "with the key of region us-east, and only operators sign");
    refused(&forged(cluster, &key("us-east-ledger"), 2), "its signature is not that of an operator (alice)");
    refused(&forged(cluster, &mallory, 2), "its signature is not that of an operator (alice)");
    // What was signed for one place in the order is good for no other.
    let alice = SigningKey::load(&there.key("alice")).unwrap();
    refused(&forged(cluster, &alice, 1), "is in force by now");
    refused(&forged(cluster, &alice, 7), "is in force by now");
    let mut changed: Value = serde_json::from_str(&forged(cluster, &alice, 2)).unwrap();
    changed["tree"]["traffic-routing/failover.scm"] = ";; Changed after it was signed.".into();
    refused(&changed.to_string(), "its signature is not that of an operator (alice)");
    assert!(REGIONS.iter().all(|region| generation(cluster, region) == Some(1)), "a forgery came into force");
    // And with the key on a machine of a region, that region does not start.
    cluster.kill("eu-west");
    std::fs::copy(there.key("alice"), cluster.state("pki/backup")).unwrap();
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(
        text(&again).contains("the private key of the operator alice, which no region may have"),
        "{}",
        text(&again)
    );
}

#[test]
fn a_primary_that_was_stolen_makes_no_policy_for_the_others() {
    let there = Production::unsigned(&["alice"]);
    let cluster = &there.cluster;
    assert!(there.publish("alice").status.success());
    everywhere(cluster, 1);
    // Whoever holds the machine has named an operator of their own in its files.
    there.name(&["alice", "mallory"]);
    there.restart(&["us-east"]);
    until("the stolen region as the primary", SOON, || {
        (cluster.status("us-east")?["control"]["role"] == "primary").then_some(())
    });
    there.save("By a thief.");
    let published = there.publish("mallory");
    assert!(published.status.success(), "{}", text(&published));
    for region in ["eu-west", "ap-southeast"] {
        let errors = until("the others refuse what the thief proposed", SOON, || {
            let errors = cluster.status(region)?["policy_errors"].to_string();
            errors.contains("generation 2 is not taken").then_some(errors)
        });
        assert!(errors.contains("its signature is not that of an operator (alice)"), "{errors}");
        assert_eq!(generation(cluster, region), Some(1));
    }
    // The machine is back in its owner's hands, and so is the order of generations.
    there.name(&["alice"]);
    there.restart(&["us-east"]);
    assert_eq!(generation(cluster, "us-east"), Some(1), "what the thief had put in force there stayed");
    let published = there.publish("alice");
    assert!(published.status.success(), "{}\n{}", text(&published), cluster.logs());
    everywhere(cluster, 3);
}
