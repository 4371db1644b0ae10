use super::*;

const DAY: u64 = 86_400;
const NOW: u64 = 1_767_225_600;

fn zone() -> DnsName {
    DnsName::new("repomind.io").unwrap()
}

#[test]
fn a_key_that_was_written_is_never_read_as_another() {
    let dir = tempfile::tempdir().unwrap();
    let made = create(dir.path(), &zone(), NOW, 3600).unwrap();
    let read = load(dir.path()).unwrap();
    assert_eq!(read, [made]);
    let signature = read[0].signer.sign(b"what a zone says").unwrap();
    let point = [&[4][..], &read[0].public].concat();
    let verifier = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point);
    verifier.verify(b"what a zone says", &signature).unwrap();
    let private = private_files(dir.path()).unwrap().remove(0);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&private).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "others may read the key");

    let text = fs::read_to_string(&private).unwrap();
    for (from, to, says) in [
        ("Algorithm: 13", "Algorithm: 8", "only algorithm 13"),
        ("PrivateKey: ", "PrivateKey: !", "not in Base64"),
        ("Activate: 2026", "Activate: 26", "Activate is no time"),
    ] {
        fs::write(&private, text.replace(from, to)).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(".private"), "{error}");
    }
    fs::write(&private, &text).unwrap();
    let other = tempfile::tempdir().unwrap();
    create(other.path(), &zone(), NOW, 0).unwrap();
    let theirs = private_files(other.path()).unwrap().remove(0);
    fs::copy(theirs.with_extension("key"), private.with_extension("key")).unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().contains("not the private half"));
}

#[test]
fn a_roll_never_goes_on_before_caches_have_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(roll(dir, &zone(), NOW, DAY).unwrap_err().to_string().contains("no key"));
    let old = create(dir, &zone(), NOW, 3600).unwrap();
    assert!(create(dir, &zone(), NOW, 0).unwrap_err().to_string().contains("roll"));
    assert!(retire(dir, &zone(), old.tag(), NOW, DAY).unwrap_err().to_string().contains("no other key"));

    let start = NOW + 100 * DAY;
    let new = roll(dir, &zone(), start, 2 * DAY).unwrap();
    assert!(roll(dir, &zone(), start, DAY).unwrap_err().to_string().contains("being rolled"));
    let synced = |now: u64| {
        let keys = load(dir).unwrap();
        keys.iter().filter(|key| key.times.synced(now)).map(ZoneKey::tag).collect::<Vec<_>>()
    };
    let signing = |now: u64| {
        let keys = load(dir).unwrap();
        keys.iter().filter(|key| key.times.signs(now)).map(ZoneKey::tag).collect::<Vec<_>>()
    };
    assert_eq!(signing(start), [old.tag(), new.tag()], "both sign from the start");
    assert_eq!((synced(start), synced(start + 2 * DAY)), (vec![old.tag()], vec![new.tag()]));
    let early = retire(dir, &zone(), old.tag(), start + DAY, DAY).unwrap_err().to_string();
    assert!(early.contains("wait 24 h more"), "{early}");
    let end = retire(dir, &zone(), old.tag(), start + 3 * DAY, 2 * DAY).unwrap();
    assert_eq!(end, start + 5 * DAY);
    assert_eq!((signing(end - 1), signing(end)), (vec![old.tag(), new.tag()], vec![new.tag()]));
    assert!(retire(dir, &zone(), new.tag(), end, DAY).unwrap_err().to_string().contains("no other key"));
    roll(dir, &zone(), end, DAY).expect("the next roll begins once the last is over");
}

#[test]
fn times_are_never_read_as_others_than_were_written() {
    assert_eq!(stamp_text(NOW), "20260101000000");
    assert_eq!(stamp_text(951_827_696), "20000229123456");
    for seconds in (0..4_000_000_000).step_by(7_654_321) {
        assert_eq!(stamp_of(&stamp_text(seconds)), Some(seconds));
    }
    for bad in ["", "2026", "20260230000000", "20261301000000", "20260101240000", "19691231235959", "2026010100000x"] {
        assert_eq!(stamp_of(bad), None, "{bad}");
    }
    // BIND adds the date in words.
    assert_eq!(stamp_of("20260101000000 (Thu Jan  1 00:00:00 2026)"), Some(NOW));
}
