//! The data of one region, as its gateway and its peers use it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use model::question::Resolution;
use model::record::Address;
use model::replication::LagAction;
use model::sealing::{OrderId, Owner};
use model::status::LinkStatus;
use model::version::{Incarnation, PositionVector};
use model::{Millis, RegionId};
use store::{Store, StoreError};
use tokio::sync::{broadcast, mpsc, watch};

use crate::acks::Acks;
use crate::clock::{Clock, SystemClock};
use crate::context::ContextKey;
use crate::expiring::RetentionClock;
use crate::faults::Faults;
use crate::graves::Burials;
use crate::group::Change;
use crate::hearing::Logs;
use crate::ledger::{Book, Desk};
use crate::mending::Wounds;
use crate::objects::Objects;
use crate::plans::Plans;
use crate::scopes::Scopes;
use crate::tending::{Retention, Tending};
use crate::types::{DataError, Resolver};
use crate::vault::{KeyPlace, Vault, VaultError};
use crate::writer::Writer;

/// Changes that may wait for the writer; more are refused with "try again".
const QUEUE: usize = 1024;
/// What a refused writer is told to wait.
pub(crate) const RETRY_AFTER: Millis = Millis::from_secs(1);
/// Settlements of resolvers that are remembered.
pub(crate) const SETTLED: usize = 4096;
/// Resolvers asked and not yet heard; with more, readers are shown the last write at once.
pub(crate) const ASKED: usize = 256;
/// Keys with a conflict whose resolver was not asked yet; with more, it is asked when they are read.
const CONFLICTS: usize = 1024;
/// Groups of rows that changed without a log and that a watcher may be behind with.
const UNLOGGED: usize = 64;
/// Derivation context of the key by which values of the conflict log are hashed.
const LOST_VALUES: &str = "repomind.io 2026 values of the conflict log v1";
/// How long a reader waits for a resolver before it is shown the last write.
pub(crate) const RESOLVER_WAIT: Duration = Duration::from_millis(50);

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) me: RegionId,
    /// Why the store takes no writes any more.
    failed: Arc<OnceLock<String>>,
    pub(crate) store: Store,
    pub(crate) plans: Arc<ArcSwap<Plans>>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) commits: watch::Sender<u64>,
    /// Emptied on close: the writer ends when the last sender is gone.
    queue: Mutex<Option<Line>>,
    pub(crate) writer: Mutex<Option<JoinHandle<()>>>,
    /// What resolvers decided, by generation, key and state of the key.
    pub(crate) settled: Mutex<HashMap<(u64, Address, String), Resolution>>,
    /// What resolvers are being asked, by the same.
    pub(crate) asked: Mutex<HashSet<(u64, Address, String)>>,
    /// Which regions each scope consists of.
    pub(crate) scopes: Arc<Scopes>,
    pub(crate) digest_key: [u8; 32],
    /// The durable end of the ledger.
    pub(crate) desk: Arc<Desk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keep: Retention,
    /// Logs of which this region has refused entries.
    pub(crate) partial: Arc<RwLock<Logs>>,
    /// Keys of which this region has forgotten what it held.
    pub(crate) wounds: Arc<RwLock<Wounds>>,
    pub(crate) tending: tokio::sync::Mutex<Tending>,
    pub(crate) burials: Arc<ArcSwap<Burials>>,
    learning: Arc<AtomicBool>,
    pub(crate) faults: Faults,
    pub(crate) vault: Option<Arc<Vault>>,
    /// Its large values; none where it has no place for them.
    pub(crate) objects: Option<Arc<Objects>>,
    /// The backup that is being made, and what became of the last one.
    pub(crate) backing_up: Mutex<crate::backup::BackupState>,
    /// The holds that stand, by whom they keep.
    pub(crate) held: RwLock<BTreeMap<Owner, BTreeMap<OrderId, String>>>,
    /// By which time records expire.
    pub(crate) retention: Mutex<RetentionClock>,
    /// When the first record will be over, as far as is known.
    pub(crate) soonest: Arc<AtomicU64>,
    /// How many values came in outside any log.
    pub(crate) came_home: Arc<AtomicU64>,
    /// Whether no value is opened for the time being.
    pub(crate) fenced: AtomicBool,
    context_key: ContextKey,
    /// Keys whose resolver is to be asked, until somebody takes that on.
    pub(crate) conflicts: Mutex<Option<mpsc::Receiver<Address>>>,
    /// The generation by which the conflict log was last judged.
    pub(crate) losses_judged: AtomicU64,
    /// Somebody has come upon damage and cannot say in which row.
    pub(crate) suspicion: tokio::sync::Notify,
    /// Rows that have changed without an entry of a log.
    pub(crate) unlogged: broadcast::Sender<Arc<[Address]>>,
}

/// The way to the writer.
#[derive(Clone)]
enum Line {
    /// A thread of its own.
    Thread(mpsc::Sender<Change>),
    /// None: whoever brings a change does the work, so that a simulator knows when it is done.
    Inline(Arc<Mutex<Writer>>),
}

/// What a region is opened with, apart from its disk.
pub struct Opening {
    /// The region.
    pub region: RegionId,
    /// The other regions of the deployment.
    pub peers: BTreeSet<RegionId>,
    /// The plans in force.
    pub plans: Arc<ArcSwap<Plans>>,
    /// Settles conflicts.
    pub resolver: Arc<dyn Resolver>,
    /// A secret that all regions share: digests, contexts.
    pub digest_key: [u8; 32],
    /// How much of the logs is kept for peers that are away.
    pub keep: Retention,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Without a thread of its own: a call returns when its work is done.
    pub inline: bool,
    /// Where its keys are; without any, nothing is encrypted.
    pub keys: Option<KeyPlace>,
    /// Where its large values are; without such a place it takes none.
    pub objects: Option<Arc<dyn store::objects::ObjectStore>>,
    /// A mistake to be made.
    #[cfg(feature = "faults")]
    pub fault: Option<crate::faults::Fault>,
}

impl Opening {
    /// A region as a daemon opens it.
    pub fn new(
        region: RegionId,
        peers: BTreeSet<RegionId>,
        plans: Arc<ArcSwap<Plans>>,
        resolver: Arc<dyn Resolver>,
        digest_key: [u8; 32],
    ) -> Self {
        Self {
            region,
            peers,
            plans,
            resolver,
            digest_key,
            keep: Retention::default(),
            clock: Arc::new(SystemClock::new()),
            inline: false,
            keys: None,
            objects: None,
            #[cfg(feature = "faults")]
            fault: None,
        }
    }
}

/// A handle on one region's data; clones share it.
#[derive(Clone)]
pub struct DataPlane {
    pub(crate) shared: Arc<Shared>,
}

impl DataPlane {
    /// Opens the data in `dir` and starts its writer, in a new incarnation.
    ///
    /// # Errors
    /// [`DataError::Store`] where the directory cannot be used, [`DataError::Ledger`] where the ledger in it is not
    /// the one that this region has signed.
    pub fn open(
        region: RegionId,
        peers: BTreeSet<RegionId>,
        dir: &Path,
        plans: Arc<ArcSwap<Plans>>,
        resolver: Arc<dyn Resolver>,
        digest_key: [u8; 32],
    ) -> Result<Self, DataError> {
        let opening = Opening::new(region, peers, plans, resolver, digest_key);
        let store = Store::open(dir, opening.clock.wall())?;
        Self::start(store, opening)
    }

    /// Starts a region on a store that was opened for it.
    ///
    /// # Errors
    /// Those of [`DataPlane::open`].
    pub fn start(store: Store, opening: Opening) -> Result<Self, DataError> {
        let Opening { region, peers, plans, resolver, digest_key, keep, clock, inline, keys, objects, .. } = opening;
        #[cfg(feature = "faults")]
        let faults = Faults { made: opening.fault };
        #[cfg(not(feature = "faults"))]
        let faults = Faults::default();
        let acks = Arc::new(Acks::open(region.clone(), peers, store.clone())?);
        let commits = watch::Sender::new(0);
        let scopes = Arc::new(Scopes::open(&store)?);
        let partial = Arc::new(RwLock::new(crate::hearing::partial_logs(&store)?));
        let wounds = Arc::new(RwLock::new(crate::mending::read_wounds(&store)?));
        let burials = Arc::new(ArcSwap::from_pointee(crate::graves::read_burials(&store)?));
        let learning = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(OnceLock::new());
        let vault = match keys {
            Some(place) => Some(Arc::new(Vault::open(&region, &place, &digest_key, &store)?)),
            None => None,
        };
        let held = crate::petitions::read_holds(&store)?;
        let (came_home, soonest): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let retention = Mutex::new(RetentionClock::open(&store, clock.wall(), clock.monotonic())?);
        let (book, desk) = Book::open(&region, &store, &digest_key, plans.clone(), clock.clone())?;
        let (conflict, conflicts) = mpsc::channel(CONFLICTS);
        let (unlogged, _) = broadcast::channel(UNLOGGED);
        let parts = crate::writer::Parts {
            me: region.clone(),
            store: store.clone(),
            acks: acks.clone(),
            scopes: scopes.clone(),
            commits: commits.clone(),
            partial: partial.clone(),
            wounds: wounds.clone(),
            clock: clock.clone(),
            faults,
            burials: burials.clone(),
            learning: learning.clone(),
            failed: failed.clone(),
            vault: vault.clone(),
            plans: plans.clone(),
            came_home: came_home.clone(),
            loss_key: blake3::derive_key(LOST_VALUES, &digest_key),
            conflicts: conflict,
            soonest: soonest.clone(),
            unlogged: unlogged.clone(),
        };
        let writer = Writer::new(parts, book)?;
        let (queue, thread) = match inline {
            true => (Line::Inline(Arc::new(Mutex::new(writer))), None),
            false => {
                let (queue, changes) = mpsc::channel(QUEUE);
                let thread = std::thread::Builder::new()
                    .name("writer".into())
                    .spawn(move || writer.run(changes))
                    .map_err(|error| StoreError::Visitor(error.to_string()))?;
                (Line::Thread(queue), Some(thread))
            }
        };
        let shared = Shared {
            me: region,
            failed,
            store,
            plans,
            resolver,
            acks,
            commits,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(thread),
            settled: Mutex::default(),
            asked: Mutex::default(),
            scopes,
            digest_key,
            desk,
            clock,
            keep,
            partial,
            wounds,
            tending: tokio::sync::Mutex::default(),
            burials,
            learning,
            faults,
            vault,
            objects: objects.map(Objects::new),
            backing_up: Mutex::default(),
            held: RwLock::new(held),
            retention,
            soonest,
            came_home,
            fenced: AtomicBool::new(false),
            context_key: ContextKey::derive(&digest_key),
            conflicts: Mutex::new(Some(conflicts)),
            losses_judged: AtomicU64::new(0),
            suspicion: tokio::sync::Notify::new(),
            unlogged,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn line(&self) -> Result<Line, DataError> {
        self.shared.queue.lock().expect("nothing panics while it holds the lock").clone().ok_or(DataError::Closed)
    }

    pub(crate) async fn enqueue(&self, change: Change) -> Result<(), DataError> {
        match self.line()? {
            Line::Thread(queue) => queue.try_send(change).map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => DataError::Throttled { retry_after: RETRY_AFTER },
                mpsc::error::TrySendError::Closed(_) => DataError::Closed,
            }),
            Line::Inline(writer) => {
                writer.lock().expect("a writer that panicked ends the simulation").group(&mut vec![change]);
                Ok(())
            }
        }
    }

    /// [`DataPlane::enqueue`] for what must not get lost because many wait.
    pub(crate) async fn wait_in_line(&self, change: Change) -> Result<(), DataError> {
        match self.line()? {
            Line::Thread(queue) => queue.send(change).await.map_err(|_| DataError::Closed),
            Line::Inline(_) => self.enqueue(change).await,
        }
    }

    /// Makes a new region key, wraps every data key with it, destroys the one before, and gives how many data keys that
    /// was. Reads and writes the disk.
    ///
    /// # Errors
    /// [`DataError::Vault`]; the next rotation goes on where this one stopped.
    pub fn rotate_keys(&self) -> Result<u64, DataError> {
        let vault = self.shared.vault.as_ref().ok_or(VaultError::NoVault)?;
        Ok(vault.rotate(self.shared.clock.wall())?)
    }

    /// The keys of this region, where it has any.
    pub fn vault(&self) -> Option<&Vault> {
        self.shared.vault.as_deref()
    }

    /// Lag and backlog towards each peer.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.shared.acks.links(self.shared.clock.wall())
    }

    /// Own entries, of this life and earlier ones, that `peer` has not durably taken over.
    pub fn backlog(&self, peer: &RegionId) -> u64 {
        self.links().into_iter().find(|link| link.peer == *peer).map_or(0, |link| link.backlog)
    }

    /// What contexts that clients carry are authenticated with, the same in every region of the deployment.
    pub fn context_key(&self) -> &ContextKey {
        &self.shared.context_key
    }

    /// In which life of its log this region is.
    pub fn life(&self) -> Incarnation {
        self.shared.store.incarnation()
    }

    /// How far every log reaches on this disk. The log that is being written is among them from the
    /// start, so that peers can tell it from the lives before.
    pub fn vector(&self) -> PositionVector {
        let mut vector = self.shared.store.vector();
        vector.begin(&self.shared.me, self.shared.store.incarnation());
        // Also which lives of its peers it knows: it takes nothing more from those before.
        for (peer, reached) in self.shared.acks.reached() {
            if let Some(life) = reached.newest(&peer) {
                vector.begin(&peer, life);
            }
        }
        vector
    }

    /// Why nothing can be written here until the data is opened again, such as a disk that was full.
    pub fn failed(&self) -> Option<&str> {
        self.shared.failed.get().map(String::as_str)
    }

    /// Whether this region is being given rows, or behind what it was told with them: it may know of a key that what it
    /// held was superseded, and not yet by what. It should get no traffic then.
    pub fn is_learning(&self) -> bool {
        self.shared.learning.load(Ordering::Acquire)
    }

    /// How far this region is with its tombstones.
    pub fn burials(&self) -> Burials {
        Burials::clone(&self.shared.burials.load())
    }

    /// A peer says how far it is: [`DataPlane::vector`] and [`DataPlane::burials`] there.
    pub fn heard(&self, peer: &RegionId, vector: &PositionVector, burials: &Burials) {
        self.shared.acks.acked(peer, vector);
        self.shared.acks.has_buried(peer, vector, burials);
    }

    /// What the lag asks for, by `replication-lag.scm`.
    pub fn lag_action(&self) -> LagAction {
        self.shared.acks.action(&self.shared.plans.load().lag, self.shared.clock.wall())
    }

    /// Takes no more writes, finishes those that were taken, and closes the store.
    pub async fn close(&self) {
        let line = self.shared.queue.lock().expect("nothing panics while it holds the lock").take();
        if let Some(Line::Inline(writer)) = &line {
            writer.lock().expect("a writer that panicked ends the simulation").finish();
        }
        drop(line);
        let writer = self.shared.writer.lock().expect("nothing panics while it holds the lock").take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        if let Some(vault) = &self.shared.vault {
            vault.close();
        }
    }
}
