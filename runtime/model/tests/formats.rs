//! Everything that reaches a disk or a wire, as the first version of its format wrote it: read alike for ever.
//!
//! Samples lie in `tests/formats`, in hexadecimal. They are never written anew: stored bytes look like this. A format
//! that changes gets a new version and a sample of its own beside the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use model::backup::{BackupList, Part};
use model::bundle::{PolicyTree, SignedBundle};
use model::codec::{self, Format};
use model::conflict::{Loss, LossCause, Winner};
use model::eviction::{Homecoming, ImpactQuestion};
use model::object::{ChunkId, Manifest, SealedKey};
use model::petition::{Petition, Signed};
use model::question::Rulings;
use model::record::{
    Address, Content, DataClass, Entry, Labels, LanePriority, Payload, Record, Row, ScopeRegions, Shipment, Sibling,
};
use model::residency::ScopeId;
use model::sealing::{DataKeyId, GivenKey, KeyFacts, KeyParcel, OrderId, Owner};
use model::snapshot::{Given, Moved, SnapshotPart, Statement};
use model::version::{Actor, CausalContext, Dot, Incarnation, LogPosition, PositionVector, Version};
use model::wound::Wound;
use model::{Hlc, NodeId, RegionId, RuleId, UnixMillis};

fn region(id: &str) -> RegionId {
    RegionId::new(id).unwrap()
}

fn regions(ids: &[&str]) -> BTreeSet<RegionId> {
    ids.iter().map(|id| region(id)).collect()
}

fn dot(counter: u64) -> Dot {
    let actor = Actor { region: region("eu-west"), node: NodeId(0), incarnation: Incarnation(1_770_000_000) };
    Dot { actor, counter }
}

fn seen(counter: u64) -> CausalContext {
    let mut seen = CausalContext::new();
    seen.observe(&dot(counter));
    seen
}

fn address() -> Address {
    Address { namespace: "notes".parse().unwrap(), key: "a/b".parse().unwrap() }
}

fn scope() -> ScopeId {
    codec::from_plain(&[9; 16]).unwrap()
}

fn labels() -> Labels {
    let mut labels = Labels::of_class(DataClass::Personal, UnixMillis(1_767_225_600_000));
    labels.jurisdictions.insert("DE".parse().unwrap());
    labels.subject = Some("s-1".parse().unwrap());
    labels.retain_until = Some(UnixMillis(1_900_000_000_000));
    labels.holds.insert("case-7".into());
    labels
}

fn sibling() -> Sibling {
    let payload = Payload::Sealed { key_ref: "00ff".repeat(8), nonce: [7; 12], ciphertext: vec![1, 2, 3].into() };
    let record = Record { payload, content_type: "text/plain".into(), labels: labels(), generation: 4 };
    let version = Version { dot: dot(7), hlc: Hlc::new(UnixMillis(1_767_225_600_000), 3), context: seen(6) };
    Sibling { version, scope: scope(), content: Content::Live(record) }
}

/// A value of two chunks.
fn object_record(sealed: bool) -> Record {
    let sealed =
        sealed.then(|| SealedKey { key_ref: "00ff".repeat(8), nonce: [7; 12], ciphertext: vec![1, 2, 3].into() });
    let chunks = vec![ChunkId([5; 32]), ChunkId([6; 32])];
    let payload = Payload::Object(Manifest { length: 5_000_000, chunks, sealed });
    Record { payload, content_type: "video/mp4".into(), labels: labels(), generation: 4 }
}

fn backup() -> BackupList {
    let part = |byte| Part { hash: [byte; 32], pairs: 3, bytes: 700_000 };
    BackupList {
        region: region("eu-west"),
        made_at: UnixMillis(1_767_225_600_000),
        stamp: Hlc::new(UnixMillis(1_767_225_600_000), 3),
        vector: vector(),
        generation: 4,
        spaces: BTreeMap::from([("rows".into(), vec![part(1), part(2)]), ("log".into(), Vec::new())]),
        chunks: BTreeMap::from([(ChunkId([5; 32]), true), (ChunkId([6; 32]), false)]),
    }
}

fn position(offset: u64) -> LogPosition {
    LogPosition { origin: region("eu-west"), incarnation: Incarnation(1_770_000_000), offset }
}

fn entry() -> Entry {
    Entry {
        position: position(7),
        address: address(),
        sibling: sibling(),
        permitted: regions(&["eu-west", "us-east"]),
        evicted: regions(&["ap-southeast"]),
        priority: LanePriority(2),
        committed_at: UnixMillis(1_767_225_600_001),
    }
}

fn vector() -> PositionVector {
    let mut vector = PositionVector::new();
    vector.advance(&position(300));
    vector.begin(&region("us-east"), Incarnation(3));
    vector
}

fn given() -> Given {
    Given { sibling: sibling().marker(), permitted: regions(&["eu-west"]) }
}

fn facts() -> KeyFacts {
    KeyFacts { owner: Owner([5; 16]), regions: regions(&["eu-west"]), after: BTreeSet::from([OrderId([6; 16])]) }
}

fn key() -> GivenKey {
    GivenKey { id: DataKeyId([2; 16]), facts: facts(), wrapped: Some(vec![3; 48]) }
}

fn petition() -> Petition {
    let signed = |byte: u8| Signed { bytes: vec![byte; 3], signature: vec![byte + 1; 4] };
    Petition { order: signed(1), done: BTreeMap::from([(region("us-east"), signed(9))]) }
}

/// The kinds that have samples, and what the samples would be that are missing.
#[derive(Default)]
struct Seen {
    kinds: BTreeSet<u8>,
    missing: Vec<String>,
}

/// Compares one value with its sample, and notes its kind.
fn same<T: Format + PartialEq + Debug>(seen: &mut Seen, name: &str, value: &T) {
    seen.kinds.insert(T::KIND);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format!("{name}-v{}.hex", T::VERSION));
    let bytes = codec::encode(value);
    let today: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let Ok(text) = std::fs::read_to_string(&path) else {
        return seen.missing.push(format!("{}: {today}", path.display()));
    };
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let stored: Vec<u8> =
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    assert_eq!(codec::decode::<T>(&stored).as_ref(), Ok(value), "{name} is read otherwise than it was written");
    assert_eq!(bytes, stored, "{name} is written otherwise than before, under the same version");
    for at in 0..stored.len() * 8 {
        let mut bad = stored.clone();
        bad[at / 8] ^= 1 << (at % 8);
        assert!(codec::decode::<T>(&bad).is_err(), "{name}: bit {at} was flipped unnoticed");
    }
}

#[test]
fn every_stored_kind_is_read_as_its_first_version_wrote_it() {
    let mut found = Seen::default();
    let all = &mut found;
    let tombstone = Sibling { content: Content::Tombstone { labels: labels() }, ..sibling() };
    same(all, "siblings", &Row { siblings: vec![sibling(), tombstone, sibling().marker()] });
    let object =
        |sealed| Row { siblings: vec![Sibling { content: Content::Live(object_record(sealed)), ..sibling() }] };
    same(all, "object", &object(false));
    same(all, "sealed-object", &object(true));
    same(all, "entry", &entry());
    let (committed_at, rule) = (UnixMillis(9), RuleId::new("stays-home").unwrap());
    let batch = vec![
        Shipment::Entry(Box::new(entry())),
        Shipment::Skip { position: position(8), committed_at },
        Shipment::Refused { position: position(9), committed_at, rule },
    ];
    same(all, "batch", &batch);
    same(all, "bundle", &SignedBundle { bundle: vec![1, 2, 3], signature: vec![4; 64] });
    same(all, "scope", &ScopeRegions { scope: scope(), regions: regions(&["eu-west", "us-east"]) });
    same(all, "vector", &vector());
    let part = SnapshotPart {
        began: vector(),
        vector: vector(),
        partial: BTreeSet::from([(region("us-east"), Incarnation(3))]),
        after: Some(address()),
        upto: None,
        rows: vec![(address(), vec![given()])],
    };
    same(all, "part", &part);
    same(all, "logs", &BTreeSet::from([(region("us-east"), Incarnation(3)), (region("eu-west"), Incarnation(4))]));
    same(all, "moved", &Moved { replaced: seen(9), regions: regions(&["us-east"]) });
    let loss = Loss {
        address: address(),
        lost: sibling(),
        kept: true,
        bytes: 3,
        digest: [8; 32],
        to: Winner { dot: dot(9), hlc: Hlc::new(UnixMillis(1_767_225_600_009), 0) },
        by: "last-write-wins".into(),
        cause: LossCause::Strategy,
        generation: 4,
        policy: Some(PolicyTree::default().hash()),
        at: UnixMillis(1_767_225_600_010),
    };
    same(all, "loss", &loss);
    same(all, "wound", &Wound { vector: vector(), heard: regions(&["us-east"]), without_copy: true });
    let partial = BTreeSet::from([(region("us-east"), Incarnation(3))]);
    same(all, "statement", &Statement { vector: vector(), partial, rows: vec![(address(), vec![given()])] });
    same(all, "key-facts", &facts());
    same(all, "key-parcel", &KeyParcel { region_key: [1; 8], ephemeral: [4; 32], keys: vec![key()] });
    let parcel = KeyParcel { region_key: [1; 8], ephemeral: [4; 32], keys: vec![key()] };
    same(all, "homecoming", &Homecoming { keys: vec![parcel], rows: vec![(address(), given())] });
    let rulings = Rulings { distinct: Vec::new(), of_case: vec![7, 300] };
    same(all, "impact-question", &ImpactQuestion { rulings, regions: Vec::new(), within_ms: 500 });
    same(all, "backup", &backup());
    same(all, "petition", &petition());
    same(all, "petitions", &vec![petition(), petition()]);
    assert!(found.missing.is_empty(), "samples are missing:\n{}", found.missing.join("\n"));
    assert_eq!(found.kinds, codec::KINDS.iter().copied().collect(), "a kind has no sample");
}
