use proptest::prelude::*;

use super::*;
use crate::audit::raw;

/// An honest deployment in which `id` has committed one more row.
fn with(id: &str, key: &[u8], row: &Row) -> Report {
    with_bytes(id, key, codec::encode(row))
}

fn with_bytes(id: &str, key: &[u8], row: Vec<u8>) -> Report {
    let mut deployment = Deployment::honest();
    deployment.at(id).commit(&[(key, Some(row))]);
    deployment.cosign();
    deployment.audit()
}

fn plain(value: &str) -> Payload {
    Payload::Plain(value.as_bytes().to_vec().into())
}

fn sealed() -> Payload {
    Payload::Sealed { key_ref: "k1".into(), nonce: [7; 12], ciphertext: vec![0; 300].into() }
}

/// An honest deployment in which `id` has committed one more row with a value in plain text.
fn with_plain(id: &str, key: &[u8]) -> Report {
    with(id, key, &row_of(DataClass::Personal, plain("x")))
}

#[test]
fn both_readers_read_the_same_labels() {
    let bytes = codec::encode(&row_of(DataClass::Personal, plain("a value")));
    let siblings = raw::row(&bytes).unwrap();
    let expected = raw::Labels {
        jurisdictions: vec!["DE".into()],
        classes: vec!["personal"],
        purpose: "service",
        basis: "unstated",
        subject: None,
        collected_at: THEN.0,
        retain_until: Some(1_900_000_000_000),
        holds: vec!["case-7".into()],
    };
    let seen: Vec<_> = siblings.into_iter().map(|s| (s.labels, s.generation, s.value)).collect();
    let live = (Some(expected.clone()), Some(12), raw::Value::Plain(b"a value".as_slice()));
    assert_eq!(seen, [live, (Some(expected), None, raw::Value::Gone)]);
    let bytes = codec::encode(&row_of(DataClass::Personal, sealed()));
    let raw::Value::Sealed(sealed) = raw::row(&bytes).unwrap()[0].value else { panic!("not seen as encrypted") };
    assert_eq!((sealed.key, sealed.nonce, sealed.ciphertext.len()), ("k1", [7; 12], 300));
}

#[test]
fn personal_data_planted_abroad_is_found() {
    let report = with_plain("us-east", b"people\0ada");
    assert_red(&report, "us-east", &[Check::Res01, Check::Key02]);
    // The record and the delete that keeps its labels.
    let seen: Vec<_> = report.findings.iter().map(|found| (found.rule.as_str(), found.generation)).collect();
    assert_eq!(seen[..2], [("stays-in-the-eea", Some(12)), ("stays-in-the-eea", None)]);
    let record = RowKeyHasher::new(&SECRET).record(b"people\0ada").to_string();
    assert_eq!(report.findings[0].record.as_deref(), Some(&record[..16]));
    assert!(!render::json(&report).contains("ada"), "a finding shows a key");
}

#[test]
fn a_missing_or_unknown_label_is_found() {
    let mut row = row_of(DataClass::Public, plain("x"));
    if let Content::Tombstone { labels } = &mut row.siblings[1].content {
        labels.classes.clear();
    }
    let report = with("eu-west", b"notes\0x", &row);
    assert_red(&report, "eu-west", &[Check::Lbl01]);
    assert_eq!(report.findings[0].rule, "no class");

    // The writer never stores an alias or lower case; bytes on the disk may have them all the same.
    for alias in ["UK", "EL", "de", "\u{7}\u{7}", "somebody's name"] {
        let mut bytes = codec::encode(&row_of(DataClass::Public, plain("x")));
        let at = bytes.windows(3).position(|three| three == b"\x02DE").unwrap();
        bytes.splice(at..at + 3, [&[alias.len() as u8], alias.as_bytes()].concat());
        let end = bytes.len() - 4;
        let checksum = raw::crc32(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        let report = with_bytes("eu-west", b"notes\0x", bytes);
        assert_red(&report, "eu-west", &[Check::Lbl01]);
        assert!(!report.findings[0].rule.contains("somebody"), "a finding shows what a label holds");
    }
}

#[test]
fn personal_data_in_public_values_and_key_names_is_found() {
    for (key, value, rule) in [
        (b"notes\0x".as_slice(), "mail ada@example.com", "its value looks like an e-mail address"),
        (b"notes\0ada@example.com", "x", "its key looks like an e-mail address"),
        (b"notes\0x", "DE89 3704 0044 0532 0130 00", "its value looks like an IBAN"),
        (b"notes\0cards/4111111111111111", "x", "its key looks like a payment card number"),
        (b"notes\0x", "+49 30 901820", "its value looks like a telephone number"),
    ] {
        let report = with("eu-west", key, &row_of(DataClass::Public, plain(value)));
        assert_red(&report, "eu-west", &[Check::Lbl02]);
        assert!(report.findings[0].rule.starts_with(rule), "{:#?}", found(&report));
        assert!(!render::json(&report).contains("ada@"), "a finding shows what was found");
    }
    // The same is no contradiction where the labels say so.
    let key = b"people\0ada@example.com";
    let report = with_bytes("eu-west", key, keys::sealed(key, DataClass::Personal, "ada@example.com"));
    assert_eq!(found(&report), []);
    // Encryption hides nothing from an auditor who has the keys.
    let report = with_bytes("eu-west", b"notes\0x", keys::sealed(b"notes\0x", DataClass::Public, "ada@example.com"));
    assert_red(&report, "eu-west", &[Check::Lbl02]);
    // What cannot be searched is said.
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "eu-west").keys.as_mut().unwrap().files = None;
    let report = audit_of(evidence);
    let run = report.checks.iter().find(|run| run.check == Check::Lbl02).unwrap();
    assert_eq!(run.limits, ["eu-west: 1 encrypted values could not be searched"]);
}

#[test]
fn a_record_that_outlives_its_time_is_found_unless_a_hold_keeps_it() {
    let row = |until: u64, hold: bool| {
        let mut row = row_of(DataClass::Public, plain("x"));
        for sibling in &mut row.siblings {
            if let Content::Live(record) = &mut sibling.content {
                record.labels.retain_until = Some(model::UnixMillis(until));
                record.labels.holds.clear();
                record.labels.holds.extend(hold.then(|| "case-7".to_owned()));
            }
        }
        row
    };
    let hours = |count: u64| NOW.0 - count * 3_600_000;
    let report = with("eu-west", b"notes\0n", &row(hours(3), false));
    assert_red(&report, "eu-west", &[Check::Ret01]);
    assert!(report.findings[0].rule.contains("3 hours ago"), "{}", report.findings[0].rule);
    for (until, hold) in [(hours(3), true), (hours(1), false)] {
        assert_eq!(with("eu-west", b"notes\0n", &row(until, hold)).outcome, Outcome::Pass, "{until} {hold}");
    }
}

#[test]
fn damaged_bytes_are_found() {
    let mut row = stored(DataClass::Public, "x");
    row[20] ^= 1;
    let report = with_bytes("eu-west", b"notes\0x", row);
    assert_red(&report, "eu-west", &[Check::Lbl03]);
}

/// An envelope with a right checksum around whatever this is.
fn sealed_envelope(head: [u8; 2], body: &[u8]) -> Vec<u8> {
    let mut bytes = [&head, body].concat();
    let checksum = raw::crc32(&bytes).to_le_bytes();
    bytes.extend_from_slice(&checksum);
    bytes
}

proptest! {
    #[test]
    fn no_bytes_on_a_disk_make_the_audit_panic(
        key in prop::collection::vec(any::<u8>(), 0..20),
        body in prop::collection::vec(any::<u8>(), 0..200),
        note in "(repomind/eu-west\n[0-9]{1,20}\n[A-Za-z0-9+/=]{0,50}\n\n)?(\u{2014} [a-z/-]{0,30} [A-Za-z0-9+/=]{0,20}\n)*\\PC{0,40}",
    ) {
        let mut evidence = Deployment::honest().evidence();
        let eu = of(&mut evidence, "eu-west");
        eu.rows.push(RawRow { key: key.clone(), envelope: body.clone() });
        eu.rows.push(RawRow { key, envelope: sealed_envelope([1, 1], &body) });
        eu.attested = Some(note.clone());
        eu.witnessed.insert(region("us-east"), note.clone());
        let ledger = eu.ledger.as_mut().unwrap();
        ledger.leaves.push(body.clone());
        ledger.leaves.push(sealed_envelope([0x10, 1], &body));
        ledger.images.insert(2, body.clone());
        ledger.images.insert(3, sealed_envelope([0x11, 1], &body));
        ledger.checkpoint = Some(note.clone());
        let report = audit_with(evidence, BTreeMap::from([(region("eu-west"), note)]));
        prop_assert_eq!(report.outcome, Outcome::Violations);
        render::text(&report);
        render::html(&report);
        render::junit(&report);
        render::sarif(&report);
    }

    #[test]
    fn a_cut_row_is_never_read_as_a_whole_one(length in 0_usize..1000) {
        let bytes = stored(DataClass::Personal, "value");
        let length = length % bytes.len();
        prop_assert!(raw::row(&bytes[..length]).is_err());
        prop_assert!(raw::row(&sealed_envelope([1, 1], &bytes[2..length.max(2)])).is_err() || length >= bytes.len() - 4);
    }
}

#[test]
fn what_lost_in_a_conflict_is_found_where_it_may_not_lie() {
    let with = |entry: RawRow, id: &str| {
        let mut evidence = Deployment::honest().evidence();
        of(&mut evidence, id).losses.push(entry);
        audit_of(evidence)
    };
    // Personal data, abroad and in plain text.
    let report = with(lost(b"people\0ada", DataClass::Personal, plain("x"), true), "us-east");
    assert_red(&report, "us-east", &[Check::Res07]);
    let rules: Vec<&str> = report.findings.iter().map(|finding| finding.rule.as_str()).collect();
    assert_eq!(rules, ["a value that lost lies in plain text, and has to be encrypted", "stays-in-the-eea"]);
    assert!(!render::json(&report).contains("ada"), "a finding shows a key");
    // At home, in plain text.
    let report = with(lost(b"people\0ada", DataClass::Personal, plain("x"), true), "eu-west");
    assert_red(&report, "eu-west", &[Check::Res07]);
    // Labels alone, whose value is not kept, may not lie abroad either; at home they may.
    let report = with(lost(b"people\0ada", DataClass::Personal, plain(""), false), "us-east");
    assert_red(&report, "us-east", &[Check::Res07]);
    let report = with(lost(b"people\0ada", DataClass::Personal, plain(""), false), "eu-west");
    assert_eq!(found(&report), []);
    // Damaged.
    let mut entry = lost(b"notes\0a", DataClass::Public, plain("x"), true);
    entry.envelope[30] ^= 4;
    assert_red(&with(entry, "ap-southeast"), "ap-southeast", &[Check::Res07]);
}
