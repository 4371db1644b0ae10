//! The key directory, as operators leave it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use model::bundle::{Because, Bundle, PolicyTree, SignedBundle};
use model::signing::{Operator, SignedBy};
use model::{RegionId, UnixMillis};
use tempfile::TempDir;

use super::files::{beside, stage};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn made() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), [&id("us-east"), &id("eu-west")]).unwrap();
    dir
}

fn text(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).unwrap()
}

/// Every file with its content.
fn everything(dir: &Path) -> BTreeSet<(String, String)> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())).collect()
}

/// What is said when something that must fail does.
fn refusal<T>(result: Result<T, PkiError>) -> String {
    result.err().expect("it is refused").to_string()
}

#[test]
fn private_files_are_readable_by_their_owner_alone_after_a_rotation_too() {
    let dir = made();
    rotate_node(dir.path(), &id("us-east")).unwrap();
    let mut private = 0;
    for (name, content) in everything(dir.path()) {
        let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode() & 0o777;
        if content.contains("PRIVATE KEY") || name == "token" || name == "digest.key" {
            assert_eq!(mode, 0o600, "{name}");
            private += 1;
        }
    }
    // ca, token, two each of nodes, ledgers, witnesses and policies, one rotated out, the digest key and the token.
    assert_eq!(private, 13);
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn nothing_that_exists_is_replaced() {
    let dir = made();
    let before = everything(dir.path());
    ensure(dir.path(), [&id("us-east"), &id("eu-west")]).unwrap();
    assert_eq!(before, everything(dir.path()));
    let said = refusal(create_authority(dir.path()));
    assert!(said.contains("ca.pem exists and is not replaced; every certificate hangs on it"), "{said}");
    let said = refusal(issue_node(dir.path(), &id("us-east"), 30));
    assert!(said.contains("us-east.pem exists and is not replaced; rotate it"), "{said}");
    // A lost public half comes from the private one, so that what was signed stays valid.
    let public = text(&dir, "us-east-ledger.pub");
    fs::remove_file(dir.path().join("us-east-ledger.pub")).unwrap();
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let said = refusal(ensure(dir.path(), [&id("us-east")]));
    assert!(said.contains("ca.key exists and is not replaced"), "{said}");
    fs::write(dir.path().join("ca.pem"), &before.iter().find(|(name, _)| name == "ca.pem").unwrap().1).unwrap();
    ensure(dir.path(), [&id("us-east")]).unwrap();
    assert_eq!(public, text(&dir, "us-east-ledger.pub"));
}

#[test]
fn a_rotation_makes_a_new_key_and_keeps_the_old_one_until_the_next() {
    let dir = made();
    let pair =
        |ending: &str| (text(&dir, &format!("us-east.key{ending}")), text(&dir, &format!("us-east.pem{ending}")));
    let first = pair("");
    rotate_node(dir.path(), &id("us-east")).unwrap();
    let second = pair("");
    assert!(first.0 != second.0 && first.1 != second.1);
    assert_eq!(pair(".old"), first);
    rotate_node(dir.path(), &id("us-east")).unwrap();
    assert_eq!(pair(".old"), second);
    load(dir.path(), &id("us-east")).unwrap();
    let said = refusal(rotate_node(dir.path(), &id("ap-south")));
    assert!(said.contains("there is no") && said.contains("ap-south.key"), "{said}");
}

#[test]
fn a_rotation_that_crashed_between_its_two_files_is_noticed_and_finished() {
    let dir = made();
    let at = |name: &str| dir.path().join(name);
    let old = text(&dir, "us-east.pem");
    rotate_node(dir.path(), &id("us-east")).unwrap();
    let new = text(&dir, "us-east.pem");
    // As a crash leaves it: the new key is in its place, the new certificate is not.
    stage(&at("us-east.pem"), &new, 0o644).unwrap();
    fs::write(at("us-east.pem"), &old).unwrap();
    let said = refusal(load(dir.path(), &id("us-east")));
    assert!(said.contains("us-east.key does not hold") && said.contains("rotate them there again"), "{said}");
    ensure(dir.path(), [&id("us-east")]).unwrap();
    assert_eq!(text(&dir, "us-east.pem"), new);
    load(dir.path(), &id("us-east")).unwrap();
    // The authority is made in the same two steps.
    let authority = text(&dir, "ca.pem");
    stage(&at("ca.pem"), &authority, 0o644).unwrap();
    fs::remove_file(at("ca.pem")).unwrap();
    ensure(dir.path(), [&id("us-east")]).unwrap();
    assert_eq!(text(&dir, "ca.pem"), authority);
    // Before the first rename: what was staged goes, what was in force stays.
    stage(&at("us-east.pem"), &text(&dir, "eu-west.pem"), 0o644).unwrap();
    stage(&at("us-east.key"), &text(&dir, "eu-west.key"), 0o600).unwrap();
    ensure(dir.path(), [&id("us-east")]).unwrap();
    assert_eq!(text(&dir, "us-east.pem"), new);
    assert!(!beside(&at("us-east.key"), ".new").exists() && !beside(&at("us-east.pem"), ".new").exists());
}

#[test]
fn a_machine_gets_what_it_needs_and_no_key_that_signs_for_others() {
    let dir = made();
    let bundle = |region: &str| bundle_for(dir.path(), &id(region), false).unwrap();
    let names = |files: &[PathBuf]| -> Vec<String> {
        files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let west = bundle("eu-west");
    let expected = [
        "ca.pem",
        "digest.key",
        "eu-west-ledger.key",
        "eu-west-ledger.pub",
        "eu-west-policy.key",
        "eu-west-policy.pub",
        "eu-west-witness.key",
        "eu-west-witness.pub",
        "eu-west.key",
        "eu-west.pem",
        "token.pub",
        "us-east-ledger.pub",
        "us-east-policy.pub",
        "us-east-witness.pub",
    ];
    assert_eq!(names(&west), expected);
    let east = names(&bundle("us-east"));
    for never in
        ["ca.key", "token.key", "eu-west.key", "eu-west-ledger.key", "eu-west-witness.key", "eu-west-policy.key"]
    {
        assert!(!east.contains(&never.to_owned()), "{never}");
    }
    // And they are enough to run.
    let machine = tempfile::tempdir().unwrap();
    for file in &west {
        fs::copy(file, machine.path().join(file.file_name().unwrap())).unwrap();
    }
    let secrets = load(machine.path(), &id("eu-west")).unwrap();
    assert!(secrets.policy_signer.is_some(), "a region that cannot sign policies cannot become the primary");
    fs::remove_file(machine.path().join("eu-west-policy.key")).unwrap();
    assert!(load(machine.path(), &id("eu-west")).unwrap().policy_signer.is_none());
    let produced = names(&bundle_for(dir.path(), &id("eu-west"), true).unwrap());
    assert!(!produced.contains(&"eu-west-policy.key".to_owned()), "where operators sign, a region needs no such key");
    assert_eq!((secrets.ledger_verifiers.len(), secrets.witness_verifiers.len()), (2, 2));
    let said = refusal(issue_node(machine.path(), &id("ap-south"), 30));
    assert!(said.contains("there is no") && said.contains("ca.key; it stays where the authority was made"), "{said}");
    let said = refusal(issue_token(machine.path(), "x", "admin", DAY));
    assert!(said.contains("token.key; it stays where the authority was made"), "{said}");
    let said = refusal(bundle_for(dir.path(), &id("ap-south"), false));
    assert!(said.contains("there is no") && said.contains("ap-south"), "{said}");
}

#[test]
fn the_certificate_that_expires_first_is_listed_first() {
    let dir = tempfile::tempdir().unwrap();
    create_authority(dir.path()).unwrap();
    issue_node(dir.path(), &id("us-east"), 90).unwrap();
    issue_node(dir.path(), &id("eu-west"), 30).unwrap();
    let listed = expiries(dir.path()).unwrap();
    let expected = [("eu-west.pem", 30), ("us-east.pem", 90), ("ca.pem", AUTHORITY_DAYS)];
    assert_eq!(listed.len(), expected.len());
    for (expiry, (name, days)) in listed.iter().zip(expected) {
        assert_eq!(expiry.path, dir.path().join(name));
        // Certificates were made before now, in whole seconds.
        let left = expiry.not_after.duration_since(SystemTime::now()).unwrap();
        assert!(left <= DAY * days && left > DAY * (days - 1), "{name}: {left:?}");
    }
    rotate_node(dir.path(), &id("eu-west")).unwrap();
    assert_eq!(expiries(dir.path()).unwrap()[0].path, dir.path().join("us-east.pem"));
    fs::write(dir.path().join("us-east.pem"), "torn").unwrap();
    let said = refusal(expiries(dir.path()));
    assert!(said.contains("us-east.pem does not hold a usable certificate"), "{said}");
}

#[test]
fn a_certificate_never_outlives_its_authority_and_a_token_never_lives_for_ever() {
    let dir = made();
    for days in [0, AUTHORITY_DAYS, u32::MAX] {
        let said = refusal(issue_node(dir.path(), &id("ap-south"), days));
        assert!(said.contains("ask for 1 to 3649"), "{days}: {said}");
    }
    issue_node(dir.path(), &id("ap-south"), AUTHORITY_DAYS - 1).unwrap();
    let token = |subject, scopes, ttl| issue_token(dir.path(), subject, scopes, ttl);
    assert!(token("x", "admin", TOKEN_LONGEST).is_ok());
    let refused = |result| matches!(result, Err(PkiError::Refused { .. }));
    assert!(refused(token("x", "admin", TOKEN_LONGEST + Duration::from_secs(1))));
    assert!(refused(token("x", "admin", Duration::ZERO)));
    assert!(refused(token(" ", "admin", DAY)) && refused(token("x", "", DAY)));
    assert!(refused(token("x", "admin bogus", DAY)) && refused(token("x", "Admin", DAY)));
    assert!(token("x", "data:read  admin", DAY).is_ok());
}

#[test]
fn a_region_cannot_take_the_name_of_another_key() {
    let dir = made();
    for name in ["ca", "token", "digest", "us-east-ledger", "us-east-witness", "us-east-policy"] {
        let said = refusal(ensure(dir.path(), [&id(name)]));
        assert!(said.contains(name) && said.contains("give the region another name"), "{said}");
        assert!(issue_node(dir.path(), &id(name), 30).is_err() && rotate_node(dir.path(), &id(name)).is_err());
        assert!(load(dir.path(), &id(name)).is_err() && bundle_for(dir.path(), &id(name), false).is_err());
    }
}

#[test]
fn what_was_changed_after_it_was_signed_is_refused_and_so_is_another_regions_ledger() {
    let dir = made();
    let secrets = load(dir.path(), &id("us-east")).unwrap();
    let signature = secrets.ledger_signer.sign(b"head");
    let verifies = |region: &str| secrets.ledger_verifiers[&id(region)].verify(b"head", &signature);
    assert!(verifies("us-east") && !verifies("eu-west"));
    let cosigned = secrets.witness_signer.sign(b"head");
    assert!(secrets.witness_verifiers[&id("us-east")].verify(b"head", &cosigned));
    assert!(!secrets.ledger_verifiers[&id("us-east")].verify(b"head", &cosigned), "one key for two purposes");
    let public = PublicKeys::load(dir.path()).unwrap();
    assert_eq!((&public.ledger, &public.witness), (&secrets.ledger_verifiers, &secrets.witness_verifiers));
    assert_eq!(public.digest_key, secrets.digest_key);
    assert_ne!(secrets.digest_key, [0; 32]);

    fs::copy(dir.path().join("eu-west-ledger.pub"), dir.path().join("us-east-ledger.pub")).unwrap();
    let said = refusal(load(dir.path(), &id("us-east")));
    assert!(said.contains("it does not belong to us-east-ledger.key"), "{said}");
    fs::remove_file(dir.path().join("us-east-ledger.pub")).unwrap();
    let said = refusal(load(dir.path(), &id("us-east")));
    assert!(said.contains("there is no") && said.contains("us-east-ledger.pub"), "{said}");
}

/// A bundle that `proposer` is said to have proposed, signed by `key`.
fn signed(proposer: &str, key: &SigningKey) -> SignedBundle {
    let bundle = bundle_bytes(&Bundle {
        generation: 1,
        parent: None,
        proposer: id(proposer),
        proposed_at: UnixMillis(1),
        because: Because { author: "a test".into(), reason: "to see".into() },
        tree: PolicyTree::default(),
    });
    SignedBundle { signature: key.sign(&bundle), bundle }
}

#[test]
fn in_development_a_region_signs_what_it_proposes_and_nothing_else() {
    let dir = made();
    let secrets = load(dir.path(), &id("us-east")).unwrap();
    let (key, keys) = (secrets.policy_signer.unwrap(), PolicyKeys::new(&[], secrets.policy_verifiers));
    let refused = |signed: &SignedBundle| keys.verify(signed).unwrap_err();
    let own = signed("us-east", &key);
    assert_eq!(keys.verify(&own).unwrap().1, SignedBy::Region(id("us-east")));
    assert!(refused(&signed("eu-west", &key)).contains("region us-east, and eu-west proposed it"));
    assert!(refused(&signed("us-east", &secrets.ledger_signer)).contains("not that of a region"));
    for at in [0, own.bundle.len() / 2, own.bundle.len() - 1] {
        let mut changed = own.clone();
        changed.bundle[at] ^= 1;
        assert!(refused(&changed).contains("not that of a region of this deployment: it was changed"));
    }
    for signature in [vec![], vec![0; 64], vec![0xff; 64], own.signature[..63].to_vec()] {
        assert!(keys.verify(&SignedBundle { signature, ..own.clone() }).is_err());
    }
}

#[test]
fn in_production_operators_sign_and_the_keys_of_regions_make_no_policy() {
    let dir = made();
    let secrets = load(dir.path(), &id("us-east")).unwrap();
    let region = secrets.policy_signer.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let operator = |name: &str| Operator::new(name, make_operator_key(&path(name)).unwrap()).unwrap();
    let (alice, bob) = (operator("alice"), operator("bob"));
    let key = |name: &str| load_operator_key(&path(name)).unwrap();
    let keys = |operators: &[Operator]| PolicyKeys::new(operators, secrets.policy_verifiers.clone());

    let both = keys(&[alice.clone(), bob.clone()]);
    for name in ["alice", "bob"] {
        assert_eq!(both.verify(&signed("eu-west", &key(name))).unwrap().1, SignedBy::Operator(name.into()));
    }
    let own = signed("us-east", &region);
    let said = both.verify(&own).unwrap_err();
    assert!(said.contains("the key of region us-east, and only operators sign policies here (alice, bob)"), "{said}");
    assert_eq!(both.verify_known(&own).unwrap().1, SignedBy::Region(id("us-east")), "what was in force may stay");
    // Rotated: the new key signs, the old one does not any more.
    let said = keys(&[bob]).verify(&signed("us-east", &key("alice"))).unwrap_err();
    assert!(said.contains("not that of an operator (bob)"), "{said}");

    let said = refusal(make_operator_key(&path("alice")).map(drop));
    assert!(said.contains("alice exists and is not replaced"), "{said}");
    fs::set_permissions(path("alice"), fs::Permissions::from_mode(0o640)).unwrap();
    let said = refusal(load_operator_key(&path("alice")).map(drop));
    assert!(said.contains("others may read it (mode 640)"), "{said}");
    no_operator_key(dir.path(), std::slice::from_ref(&alice)).unwrap();
    fs::copy(path("alice"), dir.path().join("spare.pem")).unwrap();
    let said = refusal(no_operator_key(dir.path(), &[alice]));
    assert!(said.contains("spare.pem") && said.contains("the operator alice, which no region may have"), "{said}");
}
