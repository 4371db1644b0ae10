//! The one thread that changes the store: it merges and logs in groups that share an fsync.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use compliance::ledger::LedgerEvent;
use model::record::{Address, Record, Row, Sibling};
use model::{Hlc, Mono, RegionId};
use replication::HlcClock;
use store::{Commit, Store, StoreError};
use tokio::sync::{broadcast, mpsc, watch};

use crate::acks::Acks;
use crate::clock::Clock;
#[cfg(feature = "faults")]
use crate::faults::Fault;
use crate::faults::Faults;
use crate::graves::{Burials, Standing};
use crate::group::{Change, Group, stored_rows};
use crate::hearing::{Hearsay, Logs};
use crate::ledger::Book;
use crate::lost::Lost;
use crate::mending::Wounds;
use crate::plans::Plans;
use crate::quota::Usage;
use crate::scopes::Scopes;
use crate::types::{DataError, NotAll};
use crate::vault::{Fate, Vault};

/// The most changes in one group: bounds how long the first of them waits.
const GROUP: usize = 256;

/// The fact that says where the clock of stamps stands.
const CLOCK: &str = "hlc";

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) me: RegionId,
    /// Why the store took a commit no more.
    pub(crate) failed: Arc<OnceLock<String>>,
    pub(crate) store: Store,
    pub(crate) acks: Arc<Acks>,
    pub(crate) scopes: Arc<Scopes>,
    pub(crate) commits: watch::Sender<u64>,
    pub(crate) hearsay: Hearsay,
    pub(crate) partial: Arc<RwLock<Logs>>,
    pub(crate) wounds: Arc<RwLock<Wounds>>,
    pub(crate) faults: Faults,
    pub(crate) burials: Arc<ArcSwap<Burials>>,
    /// Writes that were made and are not here.
    pub(crate) lost: Lost,
    /// Tombstones that this round could not bury.
    pub(crate) standing: Standing,
    /// Whether this region is behind what peers have said with their rows.
    pub(crate) learning: Arc<AtomicBool>,
    vault: Option<Arc<Vault>>,
    pub(crate) plans: Arc<ArcSwap<Plans>>,
    /// Counts values that came in outside any log.
    pub(crate) came_home: Arc<AtomicU64>,
    /// When the first record will be over.
    soonest: Arc<AtomicU64>,
    pub(crate) time: Arc<dyn Clock>,
    /// What the values of the conflict log are hashed with.
    pub(crate) loss_key: [u8; 32],
    /// Keys whose resolver is to be asked.
    pub(crate) conflicts: mpsc::Sender<Address>,
    /// Tells those who watch of rows that have changed without an entry of a log.
    pub(crate) unlogged: broadcast::Sender<Arc<[Address]>>,
    /// What is held of namespaces with a quota.
    pub(crate) usage: Usage,
    book: Book,
    pub(crate) clock: HlcClock,
    /// When the clock was last read; never, at first.
    pub(crate) stamped: Option<Mono>,
}

/// What a writer shares with those who read.
pub(crate) struct Parts {
    pub(crate) me: RegionId,
    pub(crate) store: Store,
    pub(crate) acks: Arc<Acks>,
    pub(crate) scopes: Arc<Scopes>,
    pub(crate) commits: watch::Sender<u64>,
    pub(crate) partial: Arc<RwLock<Logs>>,
    pub(crate) wounds: Arc<RwLock<Wounds>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) faults: Faults,
    pub(crate) burials: Arc<ArcSwap<Burials>>,
    pub(crate) learning: Arc<AtomicBool>,
    pub(crate) failed: Arc<OnceLock<String>>,
    pub(crate) vault: Option<Arc<Vault>>,
    pub(crate) plans: Arc<ArcSwap<Plans>>,
    pub(crate) came_home: Arc<AtomicU64>,
    pub(crate) loss_key: [u8; 32],
    pub(crate) conflicts: mpsc::Sender<Address>,
    pub(crate) soonest: Arc<AtomicU64>,
    pub(crate) unlogged: broadcast::Sender<Arc<[Address]>>,
}

impl Writer {
    pub(crate) fn new(parts: Parts, book: Book) -> Result<Self, DataError> {
        let Parts { me, store, acks, scopes, commits, partial, clock: time, faults, .. } = parts;
        let Parts {
            burials,
            learning,
            failed,
            vault,
            plans,
            came_home,
            soonest,
            loss_key,
            conflicts,
            wounds,
            unlogged,
            ..
        } = parts;
        let last = store.meta(CLOCK)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        // Also where that lies ahead of the wall clock: the quarantine bounds by how much it can.
        let clock = HlcClock::resume(Hlc::from_bits(last));
        let hearsay = Hearsay::open(&store)?;
        let lost = crate::lost::read_lost(&store)?;
        let usage = crate::quota::read_usage(&store)?;
        learning.store(hearsay.is_open(), Ordering::Release);
        Ok(Self {
            me,
            failed,
            store,
            acks,
            scopes,
            commits,
            hearsay,
            partial,
            wounds,
            faults,
            burials,
            lost,
            standing: Standing::new(),
            learning,
            vault,
            plans,
            came_home,
            soonest,
            time,
            loss_key,
            conflicts,
            unlogged,
            usage,
            book,
            clock,
            stamped: None,
        })
    }

    /// Runs until every sender is gone.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Change>) {
        let mut changes = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut changes, GROUP) > 0 {
            self.group(&mut changes);
        }
        self.finish();
    }

    /// Puts down what no commit has said yet.
    pub(crate) fn finish(&mut self) {
        let mut page = self.book.page();
        page.refusals(self.book.take_refusals());
        let commit = Commit { meta: self.acks.facts(), leaves: page.leaves, ..Commit::default() };
        if let Err(error) = self.store.commit(commit) {
            tracing::warn!(%error, "how far the peers are was not kept; it is learned again from them");
        }
    }

    pub(crate) fn group(&mut self, changes: &mut Vec<Change>) {
        let mut group = Group::begin(self.store.vector());
        for change in changes.drain(..) {
            match change {
                Change::WriteAll(all, answer) => {
                    // In a group of their own, which can be thrown away.
                    let next = Group::begin(self.store.vector());
                    self.settle(std::mem::replace(&mut group, next));
                    group.vector = self.store.vector();
                    match self.write_all(&mut group, all) {
                        Ok(durable) => group.answers.written_all.push((answer, durable)),
                        Err(refused) => {
                            group = Group::begin(self.store.vector());
                            drop(answer.send(Err(refused)));
                        }
                    }
                }
                other => self.apply(&mut group, other),
            }
            if !group.adopted.is_empty() {
                // A log goes on behind what was adopted, and a commit appends before it adopts.
                let next = Group::begin(self.store.vector());
                self.settle(std::mem::replace(&mut group, next));
                group.vector = self.store.vector();
            }
        }
        self.settle(group);
    }

    fn apply(&mut self, group: &mut Group, change: Change) {
        match change {
            Change::Write(permitted, answer) => match self.write(group, *permitted) {
                Ok(durable) => group.answers.written.push((answer, durable)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::WriteAll(_, answer) => {
                // Only in a group of their own.
                drop(answer.send(Err(NotAll { at: None, error: DataError::Closed })));
            }
            Change::Receive(from, arrivals, answer) => match self.receive(group, &from, arrivals) {
                Ok(taken) => group.answers.received.push((answer, taken)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Keep(facts, answer) => {
                group.facts.extend(facts);
                group.answers.done.push(answer);
            }
            Change::Event(event, answer) => {
                group.events.push(event);
                group.answers.done.push(answer);
            }
            Change::Hear(span, answer) => match self.hear(group, *span) {
                Ok(()) => group.answers.done.push(answer),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::HeardAll(all, answer) => {
                self.heard_all(group, *all);
                group.answers.done.push(answer);
            }
            Change::Bury(addresses, stable, answer) => match self.bury(group, addresses, &stable) {
                Ok(count) => group.answers.counted.push((answer, count)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Buried(stable, answer) => {
                self.has_buried(group, &stable);
                group.answers.done.push(answer);
            }
            Change::Quiet(everywhere, answer) => {
                self.is_quiet(group, &everywhere);
                group.answers.done.push(answer);
            }
            Change::Evict(address, which, answer) => match self.evict(group, &address, &which) {
                Ok(()) => group.answers.done.push(answer),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Vouch(question, answer) => match self.vouch(group, &question) {
                Ok(holdings) => group.answers.vouched.push((answer, holdings)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::EvictBarred(by, which, answer) => match self.evict_barred(group, by, &which) {
                Ok(count) => group.answers.counted.push((answer, count)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::ComeHome(rows, answer) => match self.come_home(group, rows) {
                Ok(count) => group.answers.counted.push((answer, count)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Wound(address, answer) => match self.wound(group, address) {
                Ok(()) => group.answers.done.push(answer),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Check(keys, answer) => match self.check(group, keys) {
                Ok(astray) => group.answers.counted.push((answer, astray)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Mend(stated, answer) => match self.mend(group, *stated) {
                Ok(()) => group.answers.done.push(answer),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::DropAside(answer) => match self.drop_aside(group) {
                Ok(()) => group.answers.done.push(answer),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Settled(settlement, answer) => match self.settled(group, *settlement) {
                Ok(()) => group.answers.done.push(answer),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::DropLosses(keys, answer) => {
                group.losses.extend(keys.into_iter().map(|key| (key, None)));
                group.answers.done.push(answer);
            }
            Change::Forget(facts, answer) => match self.forget(group, facts) {
                Ok(()) => group.answers.done.push(answer),
                Err(error) => drop(answer.send(Err(error))),
            },
            Change::Tend(answer) => {
                self.adopt_lost(group);
                self.spread_unfinished(group);
                self.spread_ahead(group);
                self.forget_hearsay(group);
                self.forget_lost(group);
                self.forget_usage(group);
                group.answers.done.push(answer);
            }
        }
    }

    fn settle(&mut self, group: Group) {
        let Group {
            rows,
            log,
            mut vector,
            adopted,
            unlisted,
            forgotten,
            scopes,
            facts,
            events,
            refusals,
            left,
            losses,
            wounds,
            aside,
            burials,
            answers,
            ..
        } = group;
        let peers = self.acks.facts();
        let keys = self.vault.as_ref().map_or_else(Vec::new, |vault| vault.unkept());
        let nothing = keys.is_empty() && rows.is_empty() && log.is_empty() && facts.is_empty() && events.is_empty();
        let nothing = nothing && losses.is_empty();
        if !(nothing && adopted.is_empty() && unlisted.is_empty() && forgotten.is_empty() && peers.is_empty()) {
            let mut meta: Vec<_> = Scopes::facts(&scopes).chain(facts).chain(peers).chain(keys).collect();
            if !(answers.written.is_empty() && answers.written_all.is_empty()) {
                meta.push((CLOCK.to_owned(), self.clock.last().bits().to_le_bytes().to_vec()));
            }
            let own = log.iter().filter(|shipment| shipment.position().origin == self.me);
            let own: Vec<_> = own.map(|shipment| (shipment.position().clone(), shipment.committed_at())).collect();
            let began = Instant::now();
            let plans = self.plans.load();
            for (address, row) in rows.iter().filter_map(|(address, row)| Some((address, row.as_ref()?))) {
                crate::expiring::note_expiry(&self.soonest, &plans.replication, address, row);
            }
            let (unlogged, usage) = (self.unlogged(&rows, &log), self.usage_with(&rows));
            meta.extend(Self::usage_facts(&usage));
            let (stored, removed) = stored_rows(rows);
            let mut page = self.book.page();
            events.into_iter().for_each(|event| page.event(event));
            page.refusals(self.book.take_refusals());
            page.refusals(refusals);
            if left > 0 {
                page.event(LedgerEvent::Evicted { count: left });
            }
            if !(log.is_empty() && stored.is_empty() && removed.is_empty()) {
                page.committed(self.book.hasher(), &stored, &removed);
            }
            vector.join(&adopted);
            let leaves = std::mem::take(&mut page.leaves);
            let losses = crate::losses::stored_changes(losses);
            let commit = Commit { rows: stored, removed, unlisted, log, adopted, leaves, meta, forgotten, losses };
            self.hurt(&wounds);
            if let Err(error) = self.commit(commit) {
                tracing::error!(%error, "a group of writes could not be made durable; none of it is acknowledged");
                // The engine takes no commit after one that failed; the next start begins a new incarnation,
                // so the counters of the failed group are never used again.
                let reason = self.failed.get_or_init(|| error.to_string());
                return answers.refuse(reason);
            }
            if let Some(vault) = &self.vault {
                vault.kept();
            }
            self.book.turn(page);
            self.used(usage);
            if !unlogged.is_empty() {
                // Where nobody watches any more, nobody misses it.
                let _ = self.unlogged.send(unlogged.into());
            }
            self.scopes.learned(scopes);
            self.wounded(wounds, aside);
            burials.into_iter().for_each(|burials| self.burials.store(Arc::new(burials)));
            own.iter().for_each(|(position, at)| self.acks.committed(position, *at));
            metrics::histogram!("repomind_commit_seconds").record(began.elapsed().as_secs_f64());
        }
        let together: usize = answers.written_all.iter().map(|(_, all)| all.len()).sum();
        metrics::counter!("repomind_writes_total").increment((answers.written.len() + together) as u64);
        self.learning.store(self.hearsay.is_open(), Ordering::Release);
        self.commits.send_modify(|count| *count += 1);
        answers.give(&vector);
        if let Some(vault) = &self.vault {
            vault.stock();
        }
    }

    /// What names a row in the ledger.
    pub(crate) fn record_of(&self, key: &[u8]) -> compliance::ledger::Digest {
        self.book.hasher().record(key)
    }

    /// What became of the key of a record; [`Fate::Here`] where it has none.
    pub(crate) fn fate_of(&self, record: &Record) -> Fate {
        self.vault.as_ref().map_or(Fate::Here, |vault| vault.fate_of(record))
    }

    pub(crate) fn vault(&self) -> Option<&Vault> {
        self.vault.as_deref()
    }

    /// Whether it was encrypted with a key that is gone.
    pub(crate) fn is_erased(&self, sibling: &Sibling) -> bool {
        sibling.content.record().is_some_and(|record| self.fate_of(record) == Fate::Gone)
    }

    #[cfg(feature = "faults")]
    fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        match self.faults.makes(Fault::AckBeforeSync) {
            true => self.store.commit_without_sync(commit),
            false => self.store.commit(commit),
        }
    }

    #[cfg(not(feature = "faults"))]
    fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.store.commit(commit)
    }

    /// A fact as this group leaves it.
    pub(crate) fn fact(&self, group: &Group, name: &str) -> Result<Option<Vec<u8>>, DataError> {
        match group.fact(name) {
            Some(fact) => Ok(fact.map(<[u8]>::to_vec)),
            None => Ok(self.store.meta(name)?),
        }
    }

    /// Forgets facts that have not changed since it was decided that nobody needs them.
    fn forget(&self, group: &mut Group, facts: Vec<(String, Vec<u8>)>) -> Result<(), DataError> {
        for (name, bytes) in facts {
            if self.fact(group, &name)?.as_ref() == Some(&bytes) {
                group.forget_fact(name);
            }
        }
        Ok(())
    }

    pub(crate) fn row(&self, group: &Group, address: &Address) -> Result<Option<Row>, DataError> {
        match group.rows.get(address) {
            Some(row) => Ok(row.clone()),
            None => Ok(self.store.row(address)?),
        }
    }
}
