//! Large values: visible where their chunks are, given to nobody who may not have them, and gone with their records.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use data::vault::KeyPlace;
use data::{ChunkSource, DataError, DataPlane, Opening, Write};
use model::object::{CHUNK_BYTES, ChunkAnswer, ChunkId, ChunkQuestion};
use model::record::DataClass;
use model::replication::{Quota, ReplicationPlan};
use model::{ByteCount, Country, RegionId};
use store::Store;
use store::objects::FileObjects;

use crate::harness::*;

/// Asks the other regions of a test, as `me`; nobody where the line is cut.
#[derive(Clone, Default)]
struct Lines {
    planes: Arc<Mutex<BTreeMap<RegionId, DataPlane>>>,
    cut: Arc<AtomicBool>,
}

struct Line(RegionId, Lines);

impl ChunkSource for Line {
    fn ask(
        &self,
        region: &RegionId,
        question: ChunkQuestion,
    ) -> Pin<Box<dyn Future<Output = Result<ChunkAnswer, String>> + Send>> {
        let plane = self.1.planes.lock().unwrap().get(region).cloned();
        let (me, cut) = (self.0.clone(), self.1.cut.load(Ordering::SeqCst));
        Box::pin(async move {
            let plane = plane.filter(|_| !cut).ok_or("the line is cut")?;
            plane.give_chunk(&me, &question).map_err(|error| error.to_string())
        })
    }
}

/// Three regions with keys and object stores, and the lines between them.
fn three() -> ([Site; 3], Lines) {
    three_with(|_| {})
}

fn three_with(change: fn(&mut data::plans::Plans)) -> ([Site; 3], Lines) {
    let (lines, among) = (Lines::default(), [EU, US, AP]);
    let sites = among.map(|id| {
        let dir = tempfile::tempdir().unwrap();
        let peers = among.iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
        let mut plans = plans(&among);
        change(&mut plans);
        let mut opening =
            Opening::new(region(id), peers, Arc::new(ArcSwap::from_pointee(plans)), Arc::new(NoResolver), [7; 32]);
        opening.keys = Some(KeyPlace::in_files(&dir.path().join("keys"), wall_clock()).unwrap());
        opening.objects = Some(Arc::new(FileObjects::open(&dir.path().join("objects")).unwrap()));
        let data = DataPlane::start(Store::open(&dir.path().join("data"), wall_clock()).unwrap(), opening).unwrap();
        data.fetch_chunks_by(Arc::new(Line(region(id), lines.clone())));
        lines.planes.lock().unwrap().insert(region(id), data.clone());
        Site { id, data, dir }
    });
    (sites, lines)
}

/// Bytes that do not repeat, different for each seed.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut all = Vec::with_capacity(length + 8);
    while all.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all.truncate(length);
    all
}

async fn put(data: &DataPlane, write: Write, value: &[u8]) -> Result<data::Written, DataError> {
    let mut upload = data.begin_object(Write { value: None, ..write }, Some(value.len() as u64)).await?;
    for piece in value.chunks(300_000) {
        upload.push(Bytes::copy_from_slice(piece)).await?;
    }
    upload.finish().await
}

async fn get(data: &DataPlane, key: &str) -> Result<Option<Vec<u8>>, DataError> {
    let Some(view) = data.read(&address(key)).await? else { return Ok(None) };
    let object = data.open_object(&address(key), &view)?.expect("a large value");
    let mut all = Vec::new();
    while (all.len() as u64) < object.length() {
        all.extend_from_slice(&object.from(all.len() as u64).await?);
    }
    Ok(Some(all))
}

fn chunk_files(dir: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => walk(&entry.path(), found),
                false => found.push(entry.path()),
            }
        }
    }
    let mut found = Vec::new();
    walk(&dir.join("objects/chunks"), &mut found);
    found.sort();
    found
}

fn of_country(write: Write, country: &str) -> Write {
    let mut write = write;
    write.labels.jurisdictions = Some([Country::new(country).unwrap()].into());
    write
}

fn about(subject: &str, write: Write) -> Write {
    let mut write = of_country(write, "DE");
    write.labels.subject = Some(subject.parse().unwrap());
    write
}

/// What a region would ask to get the first chunk of a key.
fn question(data: &DataPlane, key: &str) -> ChunkQuestion {
    let sibling = row(data, key).unwrap().siblings.remove(0);
    let chunk = sibling.content.record().unwrap().payload.object().unwrap().chunks[0];
    ChunkQuestion { address: address(key), dot: sibling.version.dot, chunk }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_is_shown_in_another_region_only_once_its_chunks_are_on_disk_there() {
    let ([eu, us, _ap], lines) = three();
    let value = bytes(1, 2 * CHUNK_BYTES + 77);
    put(&eu.data, write("film", "", DataClass::Public), &value).await.unwrap();
    assert_eq!(get(&eu.data, "film").await.unwrap().as_deref(), Some(&value[..]));
    lines.cut.store(true, Ordering::SeqCst);
    let batch = eu.data.outgoing(&region(US), &us.data.vector(), 1 << 20).unwrap();
    let answer = us.data.receive(&region(EU), batch.clone()).await.unwrap();
    assert!(!answer.vector.covers(batch[0].position()), "a region acknowledged a value whose chunks it lacks");
    assert!(us.data.read(&address("film")).await.unwrap().is_none(), "shown without its chunks");
    // A later write waits behind it and is not lost.
    eu.data.write(write("after", "small", DataClass::Public)).await.unwrap();
    lines.cut.store(false, Ordering::SeqCst);
    carry(&eu, &us).await;
    assert_eq!(get(&us.data, "film").await.unwrap().as_deref(), Some(&value[..]));
    assert_eq!(chunk_files(us.dir.path()).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_given_to_no_region_that_may_not_hold_its_record_even_if_it_knows_its_hash() {
    let ([eu, us, ap], _lines) = three();
    let personal = write("scan", "", DataClass::Personal);
    put(&eu.data, of_country(personal, "DE"), &bytes(2, CHUNK_BYTES + 5)).await.unwrap();
    put(&eu.data, write("code", "", DataClass::SourceCode), &bytes(3, CHUNK_BYTES)).await.unwrap();
    put(&eu.data, write("film", "", DataClass::Public), &bytes(4, CHUNK_BYTES)).await.unwrap();
    let (scan, code, film) = (question(&eu.data, "scan"), question(&eu.data, "code"), question(&eu.data, "film"));
    let ask = |to: &str, question: &ChunkQuestion| eu.data.give_chunk(&region(to), question).unwrap();
    for to in [US, AP] {
        assert_eq!(ask(to, &scan), ChunkAnswer::Absent, "{to} was given a chunk of a German's");
        // By the write of a record that it may have.
        let borrowed = ChunkQuestion { chunk: scan.chunk, ..film.clone() };
        assert_eq!(ask(to, &borrowed), ChunkAnswer::Absent, "{to} was given a chunk by the name of another record");
        assert!(matches!(ask(to, &film), ChunkAnswer::Here(_)));
    }
    assert_eq!(ask(US, &code), ChunkAnswer::Absent);
    assert!(matches!(ask(AP, &code), ChunkAnswer::Here(_)));
    for to in [&us, &ap] {
        carry(&eu, to).await;
    }
    // Nor does it come with the log, or with rows.
    assert_eq!((chunk_files(us.dir.path()).len(), chunk_files(ap.dir.path()).len()), (1, 2));
    assert_eq!(us.data.read(&address("scan")).await.unwrap(), None);
    // What was deleted says nothing to whom it was never shipped.
    eu.data.write(of_country(delete("scan", DataClass::Personal), "DE")).await.unwrap();
    assert_eq!(ask(US, &scan), ChunkAnswer::Absent);
    eu.data.write(delete("film", DataClass::Public)).await.unwrap();
    assert_eq!(ask(US, &film), ChunkAnswer::Replaced);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_values_of_two_people_share_nothing_and_nothing_of_them_is_on_a_disk() {
    let ([eu, ..], _lines) = three();
    let value = "the very same diagnosis, ".repeat(CHUNK_BYTES / 25 + 1);
    for (key, subject) in [("one", "s-1"), ("two", "s-2"), ("again", "s-1")] {
        put(&eu.data, about(subject, write(key, "", DataClass::Personal)), value.as_bytes()).await.unwrap();
    }
    let files = chunk_files(eu.dir.path());
    assert_eq!(files.len(), 6, "chunks of equal values were shared: {files:?}");
    for file in &files {
        let stored = std::fs::read(file).unwrap();
        assert!(!stored.windows(16).any(|window| window == b"same diagnosis, "), "{}", file.display());
    }
    assert_eq!(get(&eu.data, "two").await.unwrap().as_deref(), Some(value.as_bytes()));
    // Of what is about nobody, equal values are stored once.
    for key in ["film", "copy"] {
        put(&eu.data, write(key, "", DataClass::Public), &bytes(5, CHUNK_BYTES + 1)).await.unwrap();
    }
    assert_eq!(chunk_files(eu.dir.path()).len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_is_never_given_and_comes_again_from_another_region() {
    let ([eu, us, _ap], lines) = three();
    let value = bytes(6, CHUNK_BYTES + 9);
    put(&eu.data, write("film", "", DataClass::Public), &value).await.unwrap();
    carry(&eu, &us).await;
    let damage = || {
        for file in chunk_files(eu.dir.path()) {
            let mut stored = std::fs::read(&file).unwrap();
            stored[3] ^= 0x10;
            std::fs::write(&file, stored).unwrap();
        }
    };
    damage();
    lines.cut.store(true, Ordering::SeqCst);
    let read = get(&eu.data, "film").await;
    assert!(matches!(read, Err(DataError::Damaged { .. })), "{read:?}");
    lines.cut.store(false, Ordering::SeqCst);
    assert_eq!(get(&eu.data, "film").await.unwrap().as_deref(), Some(&value[..]));
    assert_eq!(std::fs::read_dir(eu.dir.path().join("objects/quarantine")).unwrap().count(), 2);
    // Without a reader the sweep finds it.
    damage();
    assert_eq!(eu.data.sweep_objects(Duration::ZERO).await.unwrap().mended, 2);
    lines.cut.store(true, Ordering::SeqCst);
    assert_eq!(get(&eu.data, "film").await.unwrap().as_deref(), Some(&value[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_no_record_names_go_and_those_of_a_write_under_way_and_of_a_reader_stay() {
    let ([eu, ..], _lines) = three();
    let aged = |dir: &Path| {
        for file in chunk_files(dir) {
            let file = std::fs::File::options().write(true).open(file).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        }
    };
    let (first, second) = (bytes(7, CHUNK_BYTES + 3), bytes(8, CHUNK_BYTES));
    put(&eu.data, write("film", "", DataClass::Public), &first).await.unwrap();
    put(&eu.data, about("s-1", write("scan", "", DataClass::Personal)), &first).await.unwrap();
    let view = eu.data.read(&address("film")).await.unwrap().unwrap();
    let reader = eu.data.open_object(&address("film"), &view).unwrap().unwrap();
    let mut upload = eu.data.begin_object(write("half", "", DataClass::Public), None).await.unwrap();
    upload.push(Bytes::from(bytes(9, CHUNK_BYTES + 1))).await.unwrap();
    put(&eu.data, write("film", "", DataClass::Public), &second).await.unwrap();
    aged(eu.dir.path());
    // Two of the reader's, one of the upload's, two of the scan's, one of the film's.
    assert_eq!(eu.data.sweep_objects(Duration::ZERO).await.unwrap().gone, 0);
    assert_eq!(reader.from(0).await.unwrap(), first[..CHUNK_BYTES]);
    drop(reader);
    let swept = eu.data.sweep_objects(Duration::ZERO).await.unwrap();
    assert_eq!((swept.gone, swept.named), (2, 3));
    // An equal value is written between the sweep's look and its hand: written anew, it stays.
    upload.finish().await.unwrap();
    put(&eu.data, write("back", "", DataClass::Public), &first).await.unwrap();
    assert_eq!(eu.data.sweep_objects(Duration::ZERO).await.unwrap().gone, 0);
    assert_eq!(get(&eu.data, "half").await.unwrap().unwrap().len(), CHUNK_BYTES + 1);
    assert_eq!(get(&eu.data, "back").await.unwrap().as_deref(), Some(&first[..]));
    // What is young stays, whoever names it.
    eu.data.write(delete("back", DataClass::Public)).await.unwrap();
    assert_eq!(eu.data.sweep_objects(Duration::ZERO).await.unwrap().gone, 0);
    aged(eu.dir.path());
    assert_eq!(eu.data.sweep_objects(Duration::ZERO).await.unwrap().gone, 2);
    assert_eq!(get(&eu.data, "scan").await.unwrap().as_deref(), Some(&first[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_or_is_refused_leaves_no_encrypted_chunk() {
    let ([eu, us, _ap], _lines) = three();
    let mut upload = eu.data.begin_object(about("s-1", write("scan", "", DataClass::Personal)), None).await.unwrap();
    upload.push(Bytes::from(bytes(10, 2 * CHUNK_BYTES))).await.unwrap();
    assert_eq!(chunk_files(eu.dir.path()).len(), 2);
    drop(upload);
    for _ in 0..1000 {
        if chunk_files(eu.dir.path()).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(chunk_files(eu.dir.path()).is_empty(), "half a scan stays on the disk");
    // Refused before a byte of it was taken.
    let refused = us.data.begin_object(about("s-1", write("scan", "", DataClass::Personal)), None).await;
    assert!(matches!(refused, Err(DataError::Barred(_))));
    // Called public, and it is not.
    let text = format!("{}please write to ada@example.com", "a line of text\n".repeat(CHUNK_BYTES / 15));
    let refused = put(&eu.data, write("text", "", DataClass::Public), text.as_bytes()).await;
    assert!(matches!(refused, Err(DataError::Contradicted { place: "body", .. })), "{refused:?}");
    assert!(eu.data.read(&address("text")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_bounds_one_value_and_counts_all_of_them() {
    fn bounded(plans: &mut data::plans::Plans) {
        let notes = address("x").namespace;
        let mut strategy = plans.replication.strategy(&notes).clone();
        strategy.quota = Quota {
            bytes: Some(ByteCount(3 * CHUNK_BYTES as u64)),
            records: None,
            object_bytes: Some(ByteCount(2 * CHUNK_BYTES as u64)),
        };
        let mut namespaces = plans.replication.namespaces.clone();
        namespaces.insert(notes, strategy);
        plans.replication = ReplicationPlan { namespaces, ..plans.replication.clone() };
    }
    let ([eu, ..], _lines) = three_with(bounded);
    let two = bytes(11, 2 * CHUNK_BYTES);
    let larger = [two.as_slice(), b"x"].concat();
    let said = put(&eu.data, write("film", "", DataClass::Public), &larger).await;
    assert!(matches!(said, Err(DataError::TooLarge { most }) if most == 2 * CHUNK_BYTES as u64), "{said:?}");
    // Also where nobody said how long it would be.
    let mut upload = eu.data.begin_object(write("film", "", DataClass::Public), None).await.unwrap();
    upload.push(Bytes::from(two.clone())).await.unwrap();
    assert!(matches!(upload.push(Bytes::from_static(b"x")).await, Err(DataError::TooLarge { .. })));
    drop(upload);
    put(&eu.data, write("film", "", DataClass::Public), &two).await.unwrap();
    let said = put(&eu.data, write("more", "", DataClass::Public), &two).await;
    assert!(matches!(said, Err(DataError::OverQuota { what: "bytes", .. })), "{said:?}");
    put(&eu.data, write("less", "", DataClass::Public), &two[..CHUNK_BYTES]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_given_bring_their_chunks_and_a_replaced_value_stalls_nothing() {
    let ([eu, us, _ap], _lines) = three();
    let value = bytes(12, CHUNK_BYTES + 1);
    put(&eu.data, write("film", "", DataClass::Public), &value).await.unwrap();
    put(&eu.data, write("gone", "", DataClass::Public), &bytes(13, CHUNK_BYTES)).await.unwrap();
    eu.data.write(write("gone", "small now", DataClass::Public)).await.unwrap();
    for file in chunk_files(eu.dir.path()) {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    }
    assert_eq!(eu.data.sweep_objects(Duration::ZERO).await.unwrap().gone, 1);
    carry(&eu, &us).await;
    assert_eq!(value_of_small(&us.data, "gone").await.as_deref(), Some("small now"));
    assert_eq!(get(&us.data, "film").await.unwrap().as_deref(), Some(&value[..]));
    // Without its disk, and given rows.
    let (here, there) = (region(EU), region(US));
    for file in chunk_files(us.dir.path()) {
        std::fs::remove_file(file).unwrap();
    }
    let mut giving = eu.data.begin_giving(&there);
    loop {
        let part = eu.data.part(&giving, 1 << 20).unwrap();
        let answer = us.data.take_part(&here, part.clone()).await.unwrap();
        if eu.data.part_taken(&mut giving, &part, &answer) {
            break;
        }
    }
    assert_eq!(chunk_files(us.dir.path()).len(), 2);
    assert_eq!(get(&us.data, "film").await.unwrap().as_deref(), Some(&value[..]));
}

async fn value_of_small(data: &DataPlane, key: &str) -> Option<String> {
    value(data, key).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_writes_only_what_is_new_and_comes_back_as_it_was() {
    let ([eu, ..], _lines) = three();
    for number in 0..300 {
        let value = format!("{number} ").repeat(1000);
        eu.data.write(write(&format!("key-{number}"), &value, DataClass::Public)).await.unwrap();
    }
    let film = bytes(14, CHUNK_BYTES + 1);
    put(&eu.data, about("s-1", write("scan", "", DataClass::Personal)), &film).await.unwrap();
    let first = eu.data.back_up().await.unwrap();
    assert_eq!((first.rows, first.new_pieces), (301, first.pieces));
    eu.data.write(write("key-7", "another", DataClass::Public)).await.unwrap();
    eu.data.write(delete("key-8", DataClass::Public)).await.unwrap();
    let second = eu.data.back_up().await.unwrap();
    assert!(second.new_bytes * 2 < second.bytes, "{second:?} is no increment of {first:?}");

    let store = eu.data.object_store().unwrap();
    let ids = data::backup::list(&*store).unwrap();
    assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), [first.id.clone(), second.id.clone()]);
    let scratch = tempfile::tempdir().unwrap();
    let whole = data::backup::verify(&*store, &ids[0], &region(EU), scratch.path()).unwrap();
    assert_eq!((whole.rows, whole.chunks), (301, 2));
    // Every row and every fact as they were, byte by byte.
    let again = tempfile::tempdir().unwrap();
    let list = data::backup::read(&*store, &ids[1]).unwrap();
    data::backup::put_back(&*store, &list, &region(EU), again.path(), None).unwrap();
    let put_back = Store::open(again.path(), wall_clock()).unwrap();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    put_back
        .each_row(&mut |key, row| {
            theirs.push((key.to_vec(), row.to_vec()));
            Ok(())
        })
        .unwrap();
    eu.data
        .each_row(&mut |key, row| {
            ours.push((key.to_vec(), row.to_vec()));
            true
        })
        .unwrap();
    assert!(theirs == ours, "rows came back otherwise");
    assert!(put_back.vector().includes(&eu.data.vector()) || put_back.vector() == list.vector);
    assert!(put_back.incarnation() > eu.data.life(), "a store that was put back goes on in the life of before");

    // What may lie in eu-west may not lie in us-east.
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = data::backup::put_back(&*store, &list, &region(US), elsewhere.path(), None);
    assert!(matches!(refused, Err(data::backup::BackupError::AnotherRegion { .. })));
    // A flipped bit anywhere is found.
    for folder in ["lists", "parts", "chunks"] {
        let file = deepest(&eu.dir.path().join("objects/backups").join(folder));
        let good = std::fs::read(&file).unwrap();
        let mut bad = good.clone();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        std::fs::write(&file, bad).unwrap();
        let found = ids.iter().any(|id| {
            let scratch = tempfile::tempdir().unwrap();
            data::backup::verify(&*store, id, &region(EU), scratch.path()).is_err()
        });
        assert!(found, "a damaged file of backups/{folder} was not found");
        std::fs::write(&file, good).unwrap();
    }
}

/// Some file below a folder.
fn deepest(folder: &Path) -> PathBuf {
    let first = std::fs::read_dir(folder).unwrap().flatten().next().unwrap().path();
    if first.is_dir() { deepest(&first) } else { first }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_have_the_names_of_their_bytes() {
    let ([eu, ..], _lines) = three();
    put(&eu.data, write("film", "", DataClass::Public), &bytes(15, CHUNK_BYTES)).await.unwrap();
    let file = chunk_files(eu.dir.path()).remove(0);
    let name: ChunkId = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(ChunkId::of(&std::fs::read(file).unwrap()), name);
}
