//! Three regions under random writes, deletes, restarts and deliveries.
//!
//! What must be alive in the end is told by a model that shares no code with
//! the merge rules: a write is superseded if, and only if, some later write
//! was seen to remove it from the row of the region that took that write.

use std::collections::{BTreeMap, BTreeSet};

use data::{DataError, Write};
use model::record::{DataClass, Labels, Shipment, Sibling};
use model::residency::Law;
use model::version::{CausalContext, Dot, LogPosition, PositionVector};
use model::{Country, UnixMillis};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::Index;
use store::Store;

use crate::harness::{AP, EU, Site, US, carry, delete, may_hold, open_among, region, row, wall_clock, write};

const KEYS: [&str; 2] = ["a", "b"];
/// Shipments of one delivery, at most.
const DELIVERED: usize = 6;

/// Who a record is about.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Public,
    German,
    American,
    Code,
}

#[derive(Clone, Debug)]
enum Step {
    /// Writes, or deletes where no value is to be written, with the context of an earlier answer if one is named.
    Write { site: usize, key: usize, kind: Kind, value: bool, context: Option<Index> },
    /// Deletes with the labels of what is there.
    DeleteAsItIs { site: usize, key: usize },
    /// Delivers part of what one region has for another: from a vector that the sender may have known long ago,
    /// in a rotated order, perhaps twice, and perhaps only what it passes on for others.
    Deliver { from: usize, to: usize, since: Option<Index>, rotate: Index, twice: bool, relay: bool },
    /// Stops and starts a region.
    Restart { site: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind =
        prop_oneof![3 => Just(Kind::Public), 2 => Just(Kind::German), 2 => Just(Kind::American), 3 => Just(Kind::Code)];
    let context = prop::option::weighted(0.4, any::<Index>());
    let write = (0..3_usize, 0..KEYS.len(), kind, prop::bool::weighted(0.8), context)
        .prop_map(|(site, key, kind, value, context)| Step::Write { site, key, kind, value, context });
    let since = prop::option::weighted(0.3, any::<Index>());
    let deliver = (0..3_usize, 1..3_usize, since, any::<Index>(), any::<bool>(), any::<bool>()).prop_map(
        |(from, further, since, rotate, twice, relay)| Step::Deliver {
            from,
            to: (from + further) % 3,
            since,
            rotate,
            twice,
            relay,
        },
    );
    let as_it_is = (0..3_usize, 0..KEYS.len()).prop_map(|(site, key)| Step::DeleteAsItIs { site, key });
    let restart = (0..3_usize).prop_map(|site| Step::Restart { site });
    prop::collection::vec(prop_oneof![8 => write, 1 => as_it_is, 8 => deliver, 1 => restart], 1..60)
}

/// A write that was acknowledged.
#[derive(Debug)]
struct Acked {
    key: usize,
    value: Option<String>,
    /// Where its labels let it be.
    home: BTreeSet<&'static str>,
}

struct World {
    sites: Vec<Site>,
    acked: BTreeMap<Dot, Acked>,
    superseded: BTreeSet<Dot>,
    /// What answers gave to clients, by key.
    contexts: Vec<(usize, CausalContext)>,
    /// Vectors that regions had at some time.
    vectors: Vec<PositionVector>,
    values: usize,
}

fn home(labels: &Labels) -> BTreeSet<&'static str> {
    let class = *labels.classes.first().unwrap();
    let law = labels.jurisdictions.first().map_or(Law::None, |&country| Law::of(country));
    [EU, US, AP].into_iter().filter(|id| may_hold(class, law, id)).collect()
}

fn labelled(mut write: Write, kind: Kind) -> Write {
    let (class, country) = match kind {
        Kind::Public => (DataClass::Public, None),
        Kind::German => (DataClass::Personal, Some("DE")),
        Kind::American => (DataClass::Personal, Some("US")),
        Kind::Code => (DataClass::SourceCode, None),
    };
    write.labels.classes = Some(BTreeSet::from([class]));
    write.labels.jurisdictions = country.map(|country| BTreeSet::from([Country::new(country).unwrap()]));
    write
}

impl World {
    fn new() -> Self {
        Self {
            sites: Site::three().into(),
            acked: BTreeMap::new(),
            superseded: BTreeSet::new(),
            contexts: Vec::new(),
            vectors: vec![PositionVector::new()],
            values: 0,
        }
    }

    fn siblings(&self, site: usize, key: usize) -> Vec<Sibling> {
        row(&self.sites[site].data, KEYS[key]).map_or_else(Vec::new, |row| row.siblings)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write { site, key, kind, value, context } => {
                self.values += 1;
                let text = value.then(|| format!("value-{};", self.values));
                let write = match &text {
                    Some(text) => write(KEYS[key], text, DataClass::Public),
                    None => delete(KEYS[key], DataClass::Public),
                };
                let context = context.and_then(|context| self.known_context(site, key, context));
                self.write(site, key, Write { context, ..labelled(write, kind) }, text).await;
            }
            Step::DeleteAsItIs { site, key } => {
                let mut write = delete(KEYS[key], DataClass::Public);
                write.labels = Default::default();
                self.write(site, key, write, None).await;
            }
            step @ Step::Deliver { .. } => self.deliver(&step).await,
            Step::Restart { site } => {
                self.sites[site].data.close().await;
                let Site { id, data, dir } = self.sites.remove(site);
                drop(data);
                let data = open_among(id, &[EU, US, AP], dir.path());
                self.sites.insert(site, Site { id, data, dir });
            }
        }
    }

    /// An earlier answer for this key, if the region has all of it: others wait, and are tested on their own.
    fn known_context(&self, site: usize, key: usize, context: Index) -> Option<CausalContext> {
        let mut of_key: Vec<_> =
            self.contexts.iter().filter(|(of, _)| *of == key).map(|(_, context)| context).collect();
        // A client that has seen nothing, and says so.
        let nothing = CausalContext::new();
        of_key.push(&nothing);
        let context = of_key[context.index(of_key.len())];
        self.sites[site].data.vector().has_passed(context).then(|| context.clone())
    }

    async fn write(&mut self, site: usize, key: usize, write: Write, value: Option<String>) {
        let before = self.siblings(site, key);
        match self.sites[site].data.write(write).await {
            Ok(written) => {
                let after = self.siblings(site, key);
                let new =
                    after.iter().find(|sibling| !before.contains(sibling)).expect("an acknowledged write is here");
                let gone = before.iter().filter(|sibling| !after.contains(sibling));
                self.superseded.extend(gone.map(|sibling| {
                    assert!(!sibling.is_marker(), "{}: what lives elsewhere was overwritten", self.sites[site].id);
                    sibling.version.dot.clone()
                }));
                let acked = Acked { key, value, home: home(new.content.labels().unwrap()) };
                assert!(acked.home.contains(self.sites[site].id));
                assert!(self.acked.insert(new.version.dot.clone(), acked).is_none(), "a dot was used twice");
                self.contexts.push((key, written.context));
            }
            Err(DataError::Barred(_) | DataError::Elsewhere { .. } | DataError::PreconditionFailed) => {
                assert_eq!(self.siblings(site, key), before, "a refused write left something behind");
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn deliver(&mut self, step: &Step) {
        let &Step::Deliver { from, to, since, rotate, twice, relay } = step else { return };
        let (from, to) = (&self.sites[from], &self.sites[to]);
        let present = to.data.vector();
        let mut has = match since {
            Some(since) => self.vectors[since.index(self.vectors.len())].clone(),
            None => present.clone(),
        };
        // The receiver announces the life that it is in whatever else it says.
        has.begin(&region(to.id), present.newest(&region(to.id)).unwrap());
        if relay {
            let own = from.data.vector();
            for (origin, incarnation, offset) in own.iter().filter(|(origin, ..)| origin.as_str() == from.id) {
                has.advance(&LogPosition { origin: origin.clone(), incarnation, offset });
            }
        }
        let mut batch = from.data.outgoing(&region(to.id), &has, 2_000).unwrap();
        batch.truncate(DELIVERED);
        if !batch.is_empty() {
            let by = rotate.index(batch.len());
            batch.rotate_left(by);
        }
        if twice {
            batch.extend(batch.clone());
        }
        to.data.receive(&region(from.id), batch).await.unwrap();
        self.vectors.push(to.data.vector());
    }

    async fn heal(&self) {
        for _ in 0..3 {
            for from in &self.sites {
                for to in self.sites.iter().filter(|to| to.id != from.id) {
                    carry(from, to).await;
                }
            }
        }
        let all = self.sites.iter().fold(PositionVector::new(), |mut all, site| {
            all.join(&site.data.vector());
            all
        });
        for site in &self.sites {
            assert!(site.data.vector().includes(&all), "{} was not given everything", site.id);
            assert!(site.data.links().iter().all(|link| link.backlog == 0 && link.lag_ms == 0), "{}", site.id);
        }
    }

    /// Every region holds, of every key, exactly the writes that it may hold and that nobody has superseded.
    fn check_rows(&self) {
        for (at, site) in self.sites.iter().enumerate() {
            for (key, name) in KEYS.iter().enumerate() {
                let siblings = self.siblings(at, key);
                let here: BTreeMap<&Dot, Option<String>> = siblings
                    .iter()
                    .filter(|sibling| !sibling.is_marker())
                    .map(|sibling| {
                        let bytes = sibling.content.record().map(|record| record.payload.bytes().to_vec());
                        (&sibling.version.dot, bytes.map(|bytes| String::from_utf8(bytes).unwrap()))
                    })
                    .collect();
                let alive = self.acked.iter().filter(|(dot, acked)| {
                    acked.key == key && acked.home.contains(site.id) && !self.superseded.contains(*dot)
                });
                let alive: BTreeMap<&Dot, Option<String>> =
                    alive.map(|(dot, acked)| (dot, acked.value.clone())).collect();
                assert_eq!(here, alive, "{} of key {name}", site.id);
                for marker in siblings.iter().filter(|sibling| sibling.is_marker()) {
                    assert!(!self.acked[&marker.version.dot].home.contains(site.id), "{} evicted its own", site.id);
                }
            }
        }
    }

    fn check_digests(&self) {
        for one in &self.sites {
            let ours = one.data.digests().unwrap();
            for other in self.sites.iter().filter(|other| other.id != one.id) {
                let theirs = other.data.digests().unwrap();
                for (scope, summary) in ours.iter().filter(|(_, scope)| scope.regions.contains(&region(other.id))) {
                    assert_eq!(theirs.get(scope), Some(summary), "{} and {} differ in {scope}", one.id, other.id);
                }
            }
        }
    }

    /// Reads everything that is on disk, rows and logs, past the region's own code.
    async fn check_disks(self) {
        for Site { id, data, dir } in self.sites {
            data.close().await;
            drop(data);
            let store = Store::open(dir.path(), wall_clock()).unwrap();
            let mut bytes = Vec::new();
            store
                .each_row(&mut |key, row| {
                    bytes.extend_from_slice(key);
                    bytes.extend_from_slice(row);
                    Ok(())
                })
                .unwrap();
            for (origin, incarnation, _) in store.vector().iter() {
                let log: Vec<Shipment> = store.shipments(origin, incarnation, 0, usize::MAX).unwrap();
                bytes.extend(model::codec::encode(&log));
            }
            let text = String::from_utf8_lossy(&bytes);
            for acked in self.acked.values().filter(|acked| !acked.home.contains(id)) {
                let Some(value) = &acked.value else { continue };
                assert!(!text.contains(value.as_str()), "{id} has stored {value:?}");
            }
        }
    }
}

async fn live_through(steps: Vec<Step>) {
    let mut world = World::new();
    for step in steps {
        world.step(step).await;
    }
    world.heal().await;
    world.check_rows();
    world.check_digests();
    world.check_disks().await;
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_is_kept_where_it_may_not_be(steps in steps()) {
        block_on(live_through(steps));
    }
}

/// `REPOMIND_CASES`, or as many as a developer waits for: each opens three stores.
fn cases() -> u32 {
    std::env::var("REPOMIND_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

#[test]
fn a_row_that_differs_from_the_model_is_noticed() {
    let outcome = std::panic::catch_unwind(|| {
        block_on(async {
            let mut world = World::new();
            let text = write("a", "value-1;", DataClass::Public);
            world.write(0, 0, text, Some("value-1;".into())).await;
            world.heal().await;
            // As if it had been superseded by nobody and yet were gone.
            let dot = world.acked.keys().next().unwrap().clone();
            world.superseded.insert(dot);
            world.check_rows();
        });
    });
    assert!(outcome.is_err(), "the check cannot fail");
    assert!(home(&Labels::of_class(DataClass::Personal, UnixMillis(0))).contains(EU));
}
