//! The data of one region, as its gateway and its peers use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use model::question::Resolution;
use model::record::{Address, Entry, Payload, Row, Shipment};
use model::replication::LagAction;
use model::status::LinkStatus;
use model::version::PositionVector;
use model::{Key, Millis, Namespace, RegionId, UnixMillis};
use replication::{Fold, ScopeDigests};
use store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::acks::Acks;
use crate::plans::Plans;
use crate::types::{DataError, ETag, Resolver, ScopeSummary, View, Write, Written};
use crate::writer::{Change, Durable, NewContent, Permitted, Writer, labels_of_delete};

/// Changes that may wait for the writer; more are refused with "try again".
const QUEUE: usize = 1024;
/// How long a write waits for copies in other regions before their number is reported as unknown.
const COPIES_WAIT: Duration = Duration::from_secs(5);
/// What a refused writer is told to wait.
const RETRY_AFTER: Millis = Millis::from_secs(1);
/// Settlements of resolvers that are remembered.
const SETTLED: usize = 4096;

/// Wall-clock time of this machine.
pub(crate) fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

struct Shared {
    me: RegionId,
    store: Store,
    plans: Arc<ArcSwap<Plans>>,
    resolver: Arc<dyn Resolver>,
    acks: Arc<Acks>,
    commits: watch::Sender<u64>,
    /// Emptied on close: the writer ends when the last sender is gone.
    queue: Mutex<Option<mpsc::Sender<Change>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// What resolvers decided, by generation, key and state of the key.
    settled: Mutex<HashMap<(u64, Address, String), Resolution>>,
    digest_key: [u8; 32],
}

/// A handle on one region's data; clones share it.
#[derive(Clone)]
pub struct DataPlane {
    shared: Arc<Shared>,
}

impl DataPlane {
    /// Opens the data in `dir` and starts its writer.
    ///
    /// # Errors
    /// [`DataError::Store`] where the directory cannot be used.
    pub fn open(
        region: RegionId,
        peers: BTreeSet<RegionId>,
        dir: &Path,
        plans: Arc<ArcSwap<Plans>>,
        resolver: Arc<dyn Resolver>,
        digest_key: [u8; 32],
    ) -> Result<Self, DataError> {
        let store = Store::open(dir)?;
        let acks = Arc::new(Acks::new(peers));
        let commits = watch::Sender::new(0);
        let writer = Writer::new(region.clone(), store.clone(), acks.clone(), commits.clone())?;
        let (queue, changes) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || writer.run(changes))
            .map_err(|error| StoreError::Visitor(error.to_string()))?;
        let shared = Shared {
            me: region,
            store,
            plans,
            resolver,
            acks,
            commits,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(thread)),
            settled: Mutex::default(),
            digest_key,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    async fn enqueue(&self, change: Change) -> Result<(), DataError> {
        let queue = self.shared.queue.lock().expect("nothing panics while it holds the lock").clone();
        queue.ok_or(DataError::Closed)?.try_send(change).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => DataError::Throttled { retry_after: RETRY_AFTER },
            mpsc::error::TrySendError::Closed(_) => DataError::Closed,
        })
    }

    /// Stores a record or a delete, durably here, and waits for the copies that it asks for.
    ///
    /// # Errors
    /// [`DataError::Barred`] where this region may not hold it, and the others of [`DataError`];
    /// nothing is stored then.
    pub async fn write(&self, write: Write) -> Result<Written, DataError> {
        let Shared { me, plans, acks, .. } = &*self.shared;
        let plans = plans.load_full();
        let now = wall_clock();
        match acks.action(&plans.lag, now) {
            LagAction::Throttle => return Err(DataError::Throttled { retry_after: RETRY_AFTER }),
            LagAction::Unready => return Err(DataError::Unready { retry_after: RETRY_AFTER }),
            LagAction::Ok | LagAction::Alert => {}
        }
        let strategy = plans.replication.strategy(&write.address.namespace).clone();
        let content = match &write.value {
            Some(value) => NewContent::Live {
                payload: Payload::Plain(value.clone()),
                content_type: write.content_type.clone(),
                labels: write.labels.labels(strategy.default_class, now),
                generation: plans.generation,
            },
            None => {
                let row = self.shared.store.row(&write.address)?;
                let labels = labels_of_delete(&write.labels, row.as_ref(), strategy.default_class, now);
                NewContent::Tombstone { labels }
            }
        };
        let labels = match &content {
            NewContent::Live { labels, .. } | NewContent::Tombstone { labels } => labels,
        };
        let regions = plans.residency.permit(labels, me, now)?;
        let in_scope = regions.regions().len();
        let asked = write.ack.unwrap_or(strategy.ack).copies(in_scope);
        if asked > in_scope {
            return Err(DataError::TooManyCopies { asked, in_scope });
        }
        let scope = regions.regions().clone();
        let (answer, durable) = oneshot::channel();
        self.enqueue(Change::Write(Box::new(Permitted { write, content, regions }), answer)).await?;
        let durable = durable.await.map_err(|_| DataError::Closed)??;
        Ok(self.copies(durable, &scope, asked).await)
    }

    async fn copies(&self, durable: Durable, scope: &BTreeSet<RegionId>, asked: usize) -> Written {
        let acks = &self.shared.acks;
        let mut changes = acks.changes();
        let waited = tokio::time::timeout(COPIES_WAIT, async {
            while acks.copies(&durable.position, scope) < asked && changes.changed().await.is_ok() {}
        });
        let _ = if asked > 1 { waited.await } else { Ok(()) };
        let copies = acks.copies(&durable.position, scope);
        Written { etag: durable.etag, context: durable.context, copies, reached: copies >= asked }
    }

    /// What a reader is shown of a key; `None` where there is no live record.
    ///
    /// # Errors
    /// [`DataError::Store`] where its bytes are damaged.
    pub async fn read(&self, address: &Address) -> Result<Option<View>, DataError> {
        let Some(row) = self.shared.store.row(address)? else { return Ok(None) };
        let plans = self.shared.plans.load();
        let fold = replication::fold(&row, plans.replication.strategy(&address.namespace));
        if let Fold::Ask { resolver, .. } = &fold
            && self.settlement(plans.generation, address, &row).is_none()
            && let Some(resolution) = self.shared.resolver.resolve(resolver, address, &row.siblings).await
        {
            let mut settled = self.shared.settled.lock().expect("nothing panics while it holds the lock");
            if settled.len() >= SETTLED {
                settled.clear();
            }
            settled.insert((plans.generation, address.clone(), ETag::of(&row).to_string()), resolution);
        }
        Ok(self.view(address, &row, &fold, plans.generation))
    }

    fn settlement(&self, generation: u64, address: &Address, row: &Row) -> Option<Resolution> {
        let key = (generation, address.clone(), ETag::of(row).to_string());
        self.shared.settled.lock().expect("nothing panics while it holds the lock").get(&key).cloned()
    }

    fn view(&self, address: &Address, row: &Row, fold: &Fold, generation: u64) -> Option<View> {
        let last = replication::last_write(&row.siblings);
        match fold {
            Fold::Winner(at) => View::of(row, *at, if row.siblings.len() > 1 { "strategy" } else { "none" }),
            Fold::Siblings => View::of(row, last, "siblings"),
            Fold::Ask { resolver, meanwhile } => match self.settlement(generation, address, row) {
                Some(Resolution::Winner(at)) => View::of(row, at as usize, resolver),
                Some(Resolution::Keep) => View::of(row, *meanwhile, "siblings"),
                Some(Resolution::Merged(value)) => {
                    let mut view = View::of(row, *meanwhile, resolver)?;
                    view.record.payload = Payload::Plain(value.into());
                    Some(view)
                }
                None => View::of(row, *meanwhile, &format!("pending:{resolver}")),
            },
        }
    }

    /// Live records of a namespace in key order. Resolvers are not asked: what they settled before is shown.
    ///
    /// # Errors
    /// [`DataError::Store`] where bytes are damaged.
    pub fn list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, View)>, DataError> {
        let plans = self.shared.plans.load();
        let strategy = plans.replication.strategy(namespace);
        let (mut found, mut after) = (Vec::new(), after.cloned());
        while found.len() < limit {
            let wanted = limit - found.len();
            let rows = self.shared.store.scan(namespace, prefix, after.as_ref(), wanted)?;
            let last_page = rows.len() < wanted;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, row) in rows {
                let address = Address { namespace: namespace.clone(), key };
                let view = self.view(&address, &row, &replication::fold(&row, strategy), plans.generation);
                found.extend(view.map(|view| (address.key, view)));
            }
            if last_page {
                break;
            }
        }
        Ok(found)
    }

    /// Takes over what `from` shipped, up to the first gap, and says how far this region now is, durably.
    ///
    /// A record that this region may not hold is not stored: its position becomes a skip.
    ///
    /// # Errors
    /// Those of the disk; nothing of the batch is taken over then.
    pub async fn receive(&self, from: &RegionId, batch: Vec<Shipment>) -> Result<PositionVector, DataError> {
        let plans = self.shared.plans.load_full();
        if plans.generation == 0 {
            // Without a policy everything would be refused for ever; the sender tries again.
            return Ok(self.vector());
        }
        let now = wall_clock();
        let batch = batch.into_iter().map(|shipment| self.gate(from, &plans, shipment, now)).collect();
        let (answer, durable) = oneshot::channel();
        self.enqueue(Change::Receive(batch, answer)).await?;
        durable.await.map_err(|_| DataError::Closed)?
    }

    fn gate(&self, from: &RegionId, plans: &Plans, shipment: Shipment, now: UnixMillis) -> Shipment {
        let Shipment::Entry(entry) = shipment else { return shipment };
        let me = &self.shared.me;
        let barred = match entry.sibling.content.labels() {
            Some(labels) => match plans.residency.permit_transfer(labels, &entry.position.origin, me, now) {
                Ok(()) => None,
                Err(barred) => Some(barred.rule.to_string()),
            },
            None => Some("no-labels".to_owned()),
        };
        match barred {
            None => Shipment::Entry(entry),
            Some(rule) => {
                tracing::warn!(%from, position = %entry.position, %rule, "a record was refused on arrival");
                metrics::counter!("repomind_shipments_refused_total", "rule" => rule).increment(1);
                Shipment::Skip { position: entry.position, committed_at: entry.committed_at }
            }
        }
    }

    /// What `peer` lacks after `has`: our own log first, then what we hold of other origins' logs.
    ///
    /// # Errors
    /// [`DataError::Store`] where the log is damaged.
    pub fn outgoing(
        &self,
        peer: &RegionId,
        has: &PositionVector,
        max_bytes: usize,
    ) -> Result<Vec<Shipment>, DataError> {
        let Shared { me, store, .. } = &*self.shared;
        let ours = store.vector();
        let mut behind: Vec<_> = ours
            .iter()
            .filter(|(origin, incarnation, offset)| *origin != peer && has.offset(origin, *incarnation) < *offset)
            .collect();
        behind.sort_by_key(|(origin, incarnation, _)| (*origin != me, *incarnation));
        let Some((origin, incarnation, _)) = behind.first() else { return Ok(Vec::new()) };
        let after = has.offset(origin, *incarnation);
        let found = store.shipments(origin, *incarnation, after, max_bytes)?;
        // A skip that we stored for another's entry says nothing about what the peer may hold: only the
        // origin can say that, so relaying stops before it.
        let known = found.into_iter().take_while(|shipment| *origin == me || matches!(shipment, Shipment::Entry(_)));
        Ok(known.map(|shipment| outbound(peer, shipment)).collect())
    }

    /// Wakes whenever something was committed here.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// `peer` has durably taken over everything in `vector`.
    pub fn acked(&self, peer: &RegionId, vector: &PositionVector) {
        self.shared.acks.acked(peer, vector);
    }

    /// Lag and backlog towards each peer.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.shared.acks.links(wall_clock())
    }

    /// Own entries since this start that `peer` has not durably taken over.
    pub fn backlog(&self, peer: &RegionId) -> u64 {
        self.links().into_iter().find(|link| link.peer == *peer).map_or(0, |link| link.backlog)
    }

    /// How far every log reaches on this disk.
    pub fn vector(&self) -> PositionVector {
        self.shared.store.vector()
    }

    /// What the lag asks for, by `replication-lag.scm`.
    pub fn lag_action(&self) -> LagAction {
        self.shared.acks.action(&self.shared.plans.load().lag, wall_clock())
    }

    /// Visits every stored row, key and envelope as they lie on disk, until `visit` says `false`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn each_row(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let outcome = self.shared.store.each_row(&mut |key, row| {
            if visit(key, row) { Ok(()) } else { Err(StoreError::Visitor(String::new())) }
        });
        match outcome {
            Err(StoreError::Visitor(_)) => Ok(()),
            other => other,
        }
    }

    /// A digest of each scope, by its name in hexadecimal.
    ///
    /// # Errors
    /// Those of the disk, and damaged rows.
    pub fn digests(&self) -> Result<BTreeMap<String, ScopeSummary>, DataError> {
        let (plans, now) = (self.shared.plans.load(), wall_clock());
        let mut digests = ScopeDigests::new(self.shared.digest_key);
        let mut regions: BTreeMap<_, BTreeSet<RegionId>> = BTreeMap::new();
        self.shared.store.each_row(&mut |key, bytes| {
            let address = Store::address_of(key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
            let row: Row = model::codec::decode(bytes)
                .map_err(|reason| StoreError::Corrupt { place: format!("row {address}"), reason })?;
            for sibling in &row.siblings {
                if let Some(labels) = sibling.content.labels()
                    && let Ok(permitted) = plans.residency.permit(labels, &sibling.version.dot.actor.region, now)
                {
                    regions.entry(sibling.scope).or_default().extend(permitted.regions().iter().cloned());
                }
            }
            digests.add(&address, &row);
            Ok(())
        })?;
        let summary = |(scope, digest): (model::residency::ScopeId, replication::ScopeDigest)| {
            let regions = regions.remove(&scope).unwrap_or_default();
            (scope.to_string(), ScopeSummary { regions, rows: digest.siblings, digest: digest.digest })
        };
        Ok(digests.finish().into_iter().map(summary).collect())
    }

    /// Takes no more writes, finishes those that were taken, and marks the store as cleanly closed.
    pub async fn close(&self) {
        self.shared.queue.lock().expect("nothing panics while it holds the lock").take();
        let writer = self.shared.writer.lock().expect("nothing panics while it holds the lock").take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

/// The shipment as `peer` may see it: an entry outside its scope becomes a skip.
fn outbound(peer: &RegionId, shipment: Shipment) -> Shipment {
    match shipment {
        Shipment::Entry(entry) if !entry.permitted.contains(peer) => {
            let Entry { position, committed_at, .. } = *entry;
            Shipment::Skip { position, committed_at }
        }
        other => other,
    }
}
