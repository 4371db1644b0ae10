//! Regions under a plan that the tests share, and what carries shipments between them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use data::clock::Clock;
use data::plans::Plans;
use data::vault::KeyPlace;
use data::{DataError, DataPlane, LabelClaims, Opening, Received, Resolver, Retention, Write};
use model::question::Resolution;
use model::record::{Address, Basis, DataClass, Purpose, Row, Shipment, Sibling};
use model::residency::{CaseRuling, Law, RegionPolicy, ResidencyCase, ResidencyPlan, Verdict};
use model::version::PositionVector;
use model::{ByteCount, Country, Key, Millis, Mono, Namespace, RegionId, RuleId, UnixMillis};
use store::Store;
use tempfile::TempDir;

pub const EU: &str = "eu-west";
pub const US: &str = "us-east";
pub const AP: &str = "ap-southeast";

pub struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &str,
        _: &Address,
        _: &[Sibling],
    ) -> Pin<Box<dyn Future<Output = Option<Resolution>> + Send + 'static>> {
        Box::pin(std::future::ready(None))
    }
}

pub fn region(id: &str) -> RegionId {
    RegionId::new(id).unwrap()
}

fn verdict(allowed: bool) -> Verdict {
    let rule = |name: &str| RuleId::new(name).unwrap();
    if !allowed {
        return Verdict::Deny { rule: rule("stays-home") };
    }
    Verdict::Allow {
        rule: rule("may-be-here"),
        obligations: BTreeSet::new(),
        valid_from: UnixMillis(0),
        valid_until: UnixMillis::MAX,
    }
}

/// Where the tests' plan lets a record be: public and operational data anywhere, source code in `eu-west` and
/// `ap-southeast`, personal data at home, which is `eu-west` unless it is American.
pub fn may_hold(class: DataClass, law: Law, id: &str) -> bool {
    match class {
        DataClass::SourceCode => id != US,
        DataClass::Personal if law == Law::of(Country::new("US").unwrap()) => id == US,
        DataClass::Personal => id == EU,
        _ => true,
    }
}

pub fn plans(among: &[&str]) -> Plans {
    let mut cases = BTreeMap::new();
    let classes = [DataClass::Public, DataClass::Operational, DataClass::SourceCode, DataClass::Personal];
    for (class, law) in classes.into_iter().flat_map(|class| Law::all().into_iter().map(move |law| (class, law))) {
        let mut ruling = CaseRuling::default();
        for from in among {
            ruling.hold.insert(region(from), verdict(may_hold(class, law, from)));
            for to in among.iter().filter(|to| *to != from) {
                ruling.transfer.insert((region(from), region(to)), verdict(true));
            }
        }
        let case = ResidencyCase { class, law, basis: Basis::Unstated, purpose: Purpose::Service };
        cases.insert(case, Arc::new(ruling));
    }
    let policy = |id: &str| RegionPolicy {
        region: region(id),
        jurisdiction: Country::new("IE").unwrap(),
        accepts: DataClass::ALL.iter().copied().collect(),
        requires: BTreeSet::new(),
    };
    let regions = among.iter().map(|id| (region(id), policy(id))).collect();
    Plans { generation: 1, residency: ResidencyPlan::new(cases, regions), ..Plans::deny_all() }
}

/// Opens `id` in `dir` as one of `among`.
pub fn open_among(id: &str, among: &[&str], dir: &Path) -> DataPlane {
    open_with(id, among, dir, plans(among))
}

pub fn open_with(id: &str, among: &[&str], dir: &Path, plans: Plans) -> DataPlane {
    open_at(wall_clock(), id, among, dir, plans)
}

/// Opens it `later` than now, by the clock from which incarnations are taken.
pub fn open_later(later: Millis, id: &str, among: &[&str], dir: &Path) -> DataPlane {
    open_at(wall_clock() + later, id, among, dir, plans(among))
}

pub fn wall_clock() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(since.as_millis() as u64)
}

/// Opens it, or says why it cannot be opened.
pub fn try_open(id: &str, among: &[&str], dir: &Path) -> Result<DataPlane, DataError> {
    let peers = among.iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
    let plans = Arc::new(ArcSwap::from_pointee(plans(among)));
    DataPlane::start(
        Store::open(dir, wall_clock())?,
        Opening::new(region(id), peers, plans, Arc::new(NoResolver), [7; 32]),
    )
}

fn open_at(now: UnixMillis, id: &str, among: &[&str], dir: &Path, plans: Plans) -> DataPlane {
    let peers = among.iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
    let plans = Arc::new(ArcSwap::from_pointee(plans));
    let store = Store::open(dir, now).unwrap();
    DataPlane::start(store, Opening::new(region(id), peers, plans, Arc::new(NoResolver), [7; 32])).unwrap()
}

/// A clock that a test moves; all regions read the same.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(wall_clock().0)))
    }

    pub fn pass(&self, time: Millis) {
        self.0.fetch_add(time.0, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Mono {
        Mono(self.0.load(Ordering::SeqCst))
    }
}

/// `eu-west`, `us-east` and `ap-southeast`, empty, by this clock.
pub fn three_by(clock: &TestClock) -> [Site; 3] {
    let among = [EU, US, AP];
    among.map(|id| {
        let dir = tempfile::tempdir().unwrap();
        let peers = among.iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
        let plans = Arc::new(ArcSwap::from_pointee(plans(&among)));
        let mut opening = Opening::new(region(id), peers, plans, Arc::new(NoResolver), [7; 32]);
        opening.clock = Arc::new(clock.clone());
        Site { id, data: DataPlane::start(Store::open(dir.path(), clock.wall()).unwrap(), opening).unwrap(), dir }
    })
}

/// Opens it on a disk in memory.
pub fn open_in_memory(id: &str, among: &[&str], disk: &store::memory::Disk) -> DataPlane {
    let peers = among.iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
    let plans = Arc::new(ArcSwap::from_pointee(plans(among)));
    let store = Store::open_in_memory(disk, wall_clock()).unwrap();
    DataPlane::start(store, Opening::new(region(id), peers, plans, Arc::new(NoResolver), [7; 32])).unwrap()
}

/// Opens it as one that keeps of its log only what peers lack that are there.
pub fn open_forgetful(later: Millis, id: &str, among: &[&str], dir: &Path) -> DataPlane {
    let peers = among.iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
    let plans = Arc::new(ArcSwap::from_pointee(plans(among)));
    let mut opening = Opening::new(region(id), peers, plans, Arc::new(NoResolver), [7; 32]);
    opening.keep = Retention { age: Millis(0), bytes: ByteCount::MAX, watched: Millis(0) };
    DataPlane::start(Store::open(dir, wall_clock() + later).unwrap(), opening).unwrap()
}

/// Opens it with keys beside its data, by the tests' plan changed so.
pub fn open_sealed(id: &str, dir: &Path, change: impl FnOnce(&mut Plans), resolver: Arc<dyn Resolver>) -> DataPlane {
    let among = [EU, US, AP];
    let peers = among.iter().filter(|peer| **peer != id).map(|peer| region(peer)).collect();
    let mut plans = plans(&among);
    change(&mut plans);
    let mut opening = Opening::new(region(id), peers, Arc::new(ArcSwap::from_pointee(plans)), resolver, [7; 32]);
    opening.keys = Some(KeyPlace::in_files(&dir.join("keys"), wall_clock()).unwrap());
    DataPlane::start(Store::open(&dir.join("data"), wall_clock()).unwrap(), opening).unwrap()
}

/// A region with its disk.
pub struct Site {
    pub id: &'static str,
    pub data: DataPlane,
    pub dir: TempDir,
}

impl Site {
    /// The same, with keys.
    pub fn three_sealed() -> [Site; 3] {
        [EU, US, AP].map(|id| {
            let dir = tempfile::tempdir().unwrap();
            Site { id, data: open_sealed(id, dir.path(), |_| {}, Arc::new(NoResolver)), dir }
        })
    }

    /// Closed, and opened again on the same disk.
    pub async fn reopened(self) -> Site {
        self.data.close().await;
        let Site { id, data, dir } = self;
        drop(data);
        Site { id, data: open_sealed(id, dir.path(), |_| {}, Arc::new(NoResolver)), dir }
    }

    /// `eu-west`, `us-east` and `ap-southeast`, empty.
    pub fn three() -> [Site; 3] {
        [EU, US, AP].map(|id| {
            let dir = tempfile::tempdir().unwrap();
            Site { id, data: open_among(id, &[EU, US, AP], dir.path()), dir }
        })
    }
}

pub fn address(key: &str) -> Address {
    Address { namespace: Namespace::new("notes").unwrap(), key: Key::new(key).unwrap() }
}

pub fn write(key: &str, value: &str, class: DataClass) -> Write {
    Write {
        address: address(key),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        content_type: "text/plain".into(),
        labels: LabelClaims { classes: Some(BTreeSet::from([class])), ..LabelClaims::default() },
        if_match: None,
        if_none_match: false,
        context: None,
        ack: None,
    }
}

pub fn delete(key: &str, class: DataClass) -> Write {
    Write { value: None, ..write(key, "", class) }
}

/// Ships everything that `to` lacks and `from` can give, each batch twice: the second time must change nothing.
pub async fn ship(from: (&DataPlane, &str), to: (&DataPlane, &str)) {
    loop {
        let batch = from.0.outgoing(&region(to.1), &to.0.vector(), 300).unwrap();
        if batch.is_empty() {
            return from.0.acked(&region(to.1), &to.0.vector());
        }
        give_keys(from.0, to, &batch);
        let first = to.0.receive(&region(from.1), batch.clone()).await.unwrap();
        assert_eq!(to.0.receive(&region(from.1), batch).await.unwrap(), first);
    }
}

/// Gives the keys of a batch ahead of it, where the receiver has a vault.
pub fn give_keys(from: &DataPlane, to: (&DataPlane, &str), batch: &[Shipment]) {
    let entries = batch.iter().filter_map(|shipment| match shipment {
        Shipment::Entry(entry) => Some((&entry.address, &entry.sibling)),
        _ => None,
    });
    let key = to.0.vault().map(|vault| vault.public_key());
    for parcel in from.keys_for(&region(to.1), key, entries, &mut Default::default()).unwrap() {
        to.0.take_keys(&parcel).unwrap();
    }
}

pub async fn carry(from: &Site, to: &Site) {
    ship((&from.data, from.id), (&to.data, to.id)).await;
}

pub async fn value(data: &DataPlane, key: &str) -> Option<String> {
    let view = data.read(&address(key)).await.unwrap()?;
    Some(String::from_utf8_lossy(view.record.payload.bytes()).into_owned())
}

/// Does what a link does from its first connection on, rows included, until there is nothing left to ship; then both
/// have heard how far the other is, as by probes. Says whether rows were given.
pub async fn link(from: &Site, to: &Site) -> bool {
    let (here, there) = (region(from.id), region(to.id));
    let mut sent = from.data.resume(&there, &to.data.vector());
    let mut rows = false;
    loop {
        if from.data.must_give_rows(&there, &sent).unwrap() {
            rows = true;
            let mut giving = from.data.begin_giving(&there);
            loop {
                // Small parts, so that there are several.
                let part = from.data.part(&giving, 400).unwrap();
                let rows = part.rows.iter().flat_map(|(at, given)| given.iter().map(move |given| (at, &given.sibling)));
                let key = to.data.vault().map(|vault| vault.public_key());
                for parcel in from.data.keys_for(&there, key, rows, &mut Default::default()).unwrap() {
                    to.data.take_keys(&parcel).unwrap();
                }
                let answer = to.data.take_part(&here, part.clone()).await.unwrap();
                if from.data.part_taken(&mut giving, &part, &answer) {
                    break;
                }
            }
            sent = from.data.resume(&there, &to.data.vector());
        }
        let batch = from.data.outgoing(&there, &sent, 300).unwrap();
        if batch.is_empty() {
            break;
        }
        batch.iter().for_each(|shipment| sent.advance(shipment.position()));
        give_keys(&from.data, (&to.data, to.id), &batch);
        let answer = to.data.receive_in_life(&here, Some(from.data.life()), batch).await.unwrap();
        from.data.shipped(&there, &sent, &answer);
    }
    from.data.heard(&there, &to.data.vector(), &to.data.burials());
    to.data.heard(&here, &from.data.vector(), &from.data.burials());
    rows
}

/// Links all regions in all directions, often enough for everything to arrive and to be heard of.
pub async fn link_all(sites: &[&Site]) {
    for _ in 0..3 {
        for from in sites {
            for to in sites.iter().filter(|to| to.id != from.id) {
                link(from, to).await;
            }
        }
    }
}

/// The stored row of a key.
pub fn row(data: &DataPlane, key: &str) -> Option<Row> {
    let mut found = None;
    data.each_row(&mut |stored, bytes| {
        if stored.ends_with(format!("\0{key}").as_bytes()) {
            found = Some(model::codec::decode::<Row>(bytes).unwrap());
        }
        found.is_none()
    })
    .unwrap();
    found
}

/// Whether `needle` is anywhere among the stored rows.
pub fn rows_contain(data: &DataPlane, needle: &str) -> bool {
    let mut found = false;
    data.each_row(&mut |key, row| {
        found |= [key, row].iter().any(|part| part.windows(needle.len()).any(|window| window == needle.as_bytes()));
        !found
    })
    .unwrap();
    found
}

/// Ships one batch as a link does, and gives the answer.
pub async fn deliver(from: (&DataPlane, &str), to: (&DataPlane, &str), sent: &mut PositionVector) -> Received {
    let batch = from.0.outgoing(&region(to.1), sent, 100_000).unwrap();
    batch.iter().for_each(|shipment| sent.advance(shipment.position()));
    let answer = to.0.receive(&region(from.1), batch).await.unwrap();
    from.0.shipped(&region(to.1), sent, &answer);
    answer
}

/// Returns once this region has committed something after `from` commits.
pub async fn committed(data: &DataPlane, from: u64) {
    data.commits().wait_for(|count| *count > from).await.unwrap();
}
