use model::RegionId;

use super::super::Kind;
use super::*;

fn entry(about: &str) -> Entry {
    Entry {
        id: 0,
        at: UnixMillis(1_000),
        region: RegionId::new("eu-west").unwrap(),
        generation: 1,
        tree: Digest::of(b"tree"),
        loaded_with: Digest::of(b"facts"),
        kind: Kind::Health,
        why: "probes were lost".into(),
        about: about.into(),
        gave: "steady".into(),
        facts: None,
        question: Some(Digest::of(about.as_bytes())),
        answer: None,
        withheld: None,
        skipped: 0,
    }
}

fn refers(about: &str) -> Vec<(Digest, Vec<u8>)> {
    [b"tree".to_vec(), about.as_bytes().to_vec()].into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect()
}

fn write(folder: &Path, limits: Limits, abouts: std::ops::Range<u32>) {
    let mut writer = Writer::open(folder, limits, 10).unwrap().0;
    for about in abouts {
        let about = about.to_string();
        writer.write(entry(&about), refers(&about)).unwrap();
    }
    writer.flush().unwrap();
}

#[test]
fn a_torn_end_costs_the_last_decision_and_none_before_or_after_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), LIMITS, 0..5);
    let file = files(folder.path()).pop().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    // Wherever it is torn.
    for cut in 1..bytes.len() {
        std::fs::write(&file, &bytes[..bytes.len() - cut]).unwrap();
        let before = Log::read(folder.path()).map_or(0, |log| log.entries.len());
        write(folder.path(), LIMITS, 7..8);
        let log = Log::read(folder.path()).unwrap();
        assert_eq!(log.entries.len(), before + 1, "cut by {cut}");
        assert_eq!(log.damage, Vec::<String>::new(), "cut by {cut}");
        let ids: Vec<u64> = log.entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, (1..=before as u64 + 1).collect::<Vec<_>>(), "cut by {cut}");
        assert!(log.entries.iter().all(|entry| log.bytes.contains_key(entry.question.as_ref().unwrap())), "{cut}");
    }
}

#[test]
fn a_damaged_piece_is_passed_over_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), LIMITS, 0..5);
    let file = files(folder.path()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let log = Log::read(&file).unwrap();
    assert!(log.entries.len() + log.bytes.len() >= 8 && log.damage.len() == 1, "{log:?}");
}

#[test]
fn the_log_stays_within_its_size_and_every_file_can_be_read_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { file: 4_000, all: 16_000, ..LIMITS };
    write(folder.path(), limits, 0..500);
    write(folder.path(), limits, 500..1_000);
    let all = files(folder.path());
    let size: u64 = all.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(size <= limits.all && all.len() > 2, "{size} bytes in {} files", all.len());
    for file in &all {
        let log = Log::read(file).unwrap();
        assert!(log.damage.is_empty() && log.entries.iter().all(|entry| log.bytes.contains_key(&entry.tree)));
    }
    let last = Log::read(folder.path()).unwrap().entries.pop().unwrap();
    assert_eq!((last.id, last.about.as_str()), (1_000, "999"));
    let (writer, recent) = Writer::open(folder.path(), limits, 10).unwrap();
    assert_eq!(recent.iter().map(|entry| entry.id).collect::<Vec<_>>(), (991..=1_000).collect::<Vec<_>>());
    let left: u64 = files(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(writer.size(), left);
}

#[test]
fn what_is_old_goes() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { file: 1, age: Duration::ZERO, ..LIMITS };
    write(folder.path(), limits, 0..5);
    assert!(files(folder.path()).len() <= 2, "{:?}", files(folder.path()));
}

#[test]
fn where_there_is_no_log_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Log::read(folder.path()).unwrap_err().to_string().contains("holds no decision log"));
    let file = folder.path().join("x.log");
    std::fs::write(&file, b"a text that is no log at all").unwrap();
    let said = Log::read(&file).unwrap_err().to_string();
    assert!(said.contains("x.log: this is no decision log"), "{said}");
    for odd in ["/dev/zero", "/dev/null"] {
        let said = format!("{:#}", Log::read(Path::new(odd)).unwrap_err());
        assert!(said.contains(odd) && said.contains("something else"), "{said}");
    }
    File::create(&file).unwrap().set_len(LARGEST + 1).unwrap();
    let said = format!("{:#}", Log::read(&file).unwrap_err());
    assert!(said.contains("x.log") && said.contains("at most 256 MiB"), "{said}");
}

#[test]
fn however_a_log_was_made_reading_it_ends_and_says_where_it_is_wrong() {
    let piece = |envelope: &[u8]| [&(envelope.len() as u32).to_le_bytes()[..], envelope].concat();
    let good = piece(&codec::encode(&Piece::Entry(Box::new(entry("probes")))));
    let sealed = |body: &[u8]| {
        let bytes = [&[0x50, 1], body].concat();
        [&bytes[..], &crc32fast::hash(&bytes).to_le_bytes()].concat()
    };
    // The name of a region is a text like any other to whoever forges one.
    let forged = codec::encode(&Piece::Entry(Box::new(entry("probes"))));
    let at = forged.windows(7).position(|part| part == b"eu-west").unwrap();
    let mut body = forged[2..forged.len() - 4].to_vec();
    body[at - 2..at + 5].copy_from_slice(b"\x1b[2Jeu;");
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("a region that cannot be", piece(&sealed(&body)), "cannot be decoded"),
        ("a length without bytes", piece(&sealed(&[0, 0xff, 0xff, 0xff, 0xff, 0x0f])), "cannot be decoded"),
        ("no kind of piece", piece(&sealed(&[7])), "cannot be decoded"),
        ("another format", piece(&[0x50, 9, 0, 0, 0, 0]), "checksum"),
        ("bytes of another name", piece(&codec::encode(&Piece::Bytes(Digest::of(b"a"), b"b".to_vec()))), "not those"),
        ("a length beyond the end", u32::MAX.to_le_bytes().to_vec(), "breaks off"),
    ];
    for (what, bad, says) in cases {
        let mut log = Log::default();
        log.take("a.log", &[&good[..], &bad].concat());
        assert_eq!(log.entries.len(), 1, "{what}: what stands before it was lost");
        let [said] = log.damage.as_slice() else { panic!("{what}: {:?}", log.damage) };
        let place = if says == "breaks off" { "after" } else { "byte" };
        assert!(said.starts_with("a.log") && said.contains(says), "{what}: {said}");
        assert!(said.contains(&format!("{place} {}", good.len())), "{what}: {said}");
        assert!(!said.contains('\u{1b}'), "{what}: a terminal would obey {said:?}");
    }
    let mut log = Log::default();
    log.take("a.log", &piece(&sealed(&[7])).repeat(100_000));
    assert_eq!((log.damage.len(), log.more_damage), (20, 99_980));
}
