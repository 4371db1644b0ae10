//! Keys and encrypted values of the sample deployment, and what is wrong with those that are broken.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::record::Address;
use model::sealing::{DataKeyId, bound};
use model::{Key, Namespace};

use super::*;

/// A data key whose values may be in `eu-west` alone.
pub(super) const HOME: [u8; 16] = [3; 16];

fn key_of(name: [u8; 16]) -> [u8; 32] {
    *blake3::hash(&name).as_bytes()
}

fn encrypt(key: [u8; 32], nonce: [u8; 12], bound: &[u8], plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let mut bytes = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut bytes).unwrap();
    bytes
}

/// A stored row with a value that [`HOME`] opens.
pub(super) fn sealed(row_key: &[u8], class: DataClass, value: &str) -> Vec<u8> {
    codec::encode(&sealed_row(row_key, class, value))
}

pub(super) fn sealed_row(row_key: &[u8], class: DataClass, value: &str) -> Row {
    let mut row = row_of(class, Payload::Plain(value.as_bytes().to_vec().into()));
    let text = std::str::from_utf8(row_key).unwrap();
    let (namespace, key) = text.split_once('\0').unwrap();
    let address = Address { namespace: Namespace::new(namespace).unwrap(), key: Key::new(key).unwrap() };
    if let Content::Live(record) = &mut row.siblings[0].content {
        let ciphertext = encrypt(key_of(HOME), [4; 12], &bound(&address, record), value.as_bytes());
        let key_ref = DataKeyId(HOME).to_string();
        record.payload = Payload::Sealed { key_ref, nonce: [4; 12], ciphertext: ciphertext.into() };
    }
    row
}

pub(super) fn region_key(id: &str) -> [u8; 8] {
    blake3::hash(id.as_bytes()).as_bytes()[..8].try_into().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys of a region, its files among them.
pub(super) fn evidence(id: &str, names: &[[u8; 16]]) -> KeyEvidence {
    let (by, wrapping) = (region_key(id), *blake3::hash(id.as_bytes()).as_bytes());
    let ring = format!("repomind region keys 1\n{} {} {} {}\n", hex(&by), THEN.0, hex(&wrapping), hex(&[0; 32]));
    let mut slots = vec![0; 128];
    for name in names {
        let bound = format!("repomind data key 1\n{id}\n{}", hex(name));
        let wrapped = encrypt(wrapping, [5; 12], bound.as_bytes(), &key_of(*name));
        let mut slot = [&[1], name.as_slice(), &by, &[5; 12], &wrapped].concat();
        slot.resize(128, 0);
        slots.extend(slot);
    }
    KeyEvidence {
        held: names.iter().map(|name| HeldKey { name: *name, by, ..HeldKey::default() }).collect(),
        region_keys: vec![(by, THEN)],
        files: Some((ring.into_bytes(), slots)),
    }
}

/// An honest deployment whose keys at `id` were changed.
fn with(id: &str, change: impl FnOnce(&mut KeyEvidence)) -> Report {
    let mut evidence = Deployment::honest().evidence();
    change(of(&mut evidence, id).keys.as_mut().unwrap());
    audit_of(evidence)
}

#[test]
fn a_key_of_home_that_is_usable_abroad_is_found() {
    let report = with("us-east", |keys| *keys = self::evidence("us-east", &[HOME]));
    assert_red(&report, "us-east", &[Check::Key01]);
    assert!(report.findings[0].rule.starts_with("it has the data key 03"), "{:#?}", found(&report));

    // Its wrapped form, copied, and the region key that unwraps it.
    let report = with("us-east", |keys| {
        keys.held.push(HeldKey { name: [8; 16], by: region_key("eu-west"), ..HeldKey::default() });
    });
    assert_red(&report, "us-east", &[Check::Key01]);
    let report = with("us-east", |keys| keys.region_keys.insert(0, (region_key("eu-west"), THEN)));
    let red: Vec<_> = found(&report).into_iter().map(|(check, region, _)| (check, region)).collect();
    assert_eq!(red, [(Check::Key01, "eu-west"), (Check::Key01, "us-east")]);
}

#[test]
fn a_value_about_a_person_in_plain_text_is_found() {
    let mut deployment = Deployment::honest();
    deployment.at("eu-west").commit(&[(b"people\0q", Some(stored(DataClass::Personal, "x")))]);
    deployment.cosign();
    assert_red(&deployment.audit(), "eu-west", &[Check::Key02]);
}

#[test]
fn a_region_key_that_was_not_replaced_in_a_year_is_found_and_so_is_one_that_should_be_gone() {
    let old = UnixMillis(NOW.0 - 366 * 24 * 3600 * 1000);
    let report = with("eu-west", |keys| keys.region_keys[0].1 = old);
    assert_red(&report, "eu-west", &[Check::Key03]);
    assert_eq!(report.findings[0].severity, Severity::Medium);
    let (old, newer) = (UnixMillis(NOW.0 - 9 * 24 * 3600 * 1000), UnixMillis(NOW.0 - 2 * 24 * 3600 * 1000));
    let report = with("eu-west", |keys| {
        keys.region_keys[0].1 = newer;
        keys.region_keys.insert(0, ([1; 8], old));
    });
    assert_red(&report, "eu-west", &[Check::Key03]);
    assert_red(&with("eu-west", |keys| keys.region_keys.clear()), "eu-west", &[Check::Key01, Check::Key03]);
}

#[test]
fn a_relabelled_or_moved_ciphertext_is_found() {
    let broken = |place: &'static [u8], change: fn(&mut Record)| {
        let mut row = sealed_row(b"people\0q", DataClass::Personal, "x");
        if let Content::Live(record) = &mut row.siblings[0].content {
            change(record);
        }
        let mut deployment = Deployment::honest();
        deployment.at("eu-west").commit(&[(place, Some(codec::encode(&row)))]);
        deployment.cosign();
        deployment.audit()
    };
    assert_eq!(found(&broken(b"people\0q", |_| {})), []);
    let changes: [fn(&mut Record); 4] = [
        |record| record.labels.classes = BTreeSet::from([DataClass::Public]),
        |record| record.labels.retain_until = None,
        |record| record.generation = 13,
        |record| {
            if let Payload::Sealed { ciphertext, .. } = &mut record.payload {
                *ciphertext = vec![0; ciphertext.len()].into();
            }
        },
    ];
    for change in changes {
        let report = broken(b"people\0q", change);
        assert!(found(&report).iter().any(|(check, region, _)| (*check, *region) == (Check::Lbl03, "eu-west")));
    }
    assert_red(&broken(b"people\0other", |_| {}), "eu-west", &[Check::Lbl03]);
    let lost = broken(b"people\0q", |record| {
        if let Payload::Sealed { key_ref, .. } = &mut record.payload {
            *key_ref = DataKeyId([77; 16]).to_string();
        }
    });
    assert_red(&lost, "eu-west", &[Check::Lbl03]);
    assert_eq!(lost.findings[0].rule, "its key is not in the region: it cannot be opened");
}
