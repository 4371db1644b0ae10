//! The one thread that changes the store: it merges and logs in groups that share an fsync.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use compliance::ledger::LedgerEvent;
use model::record::{Address, Content, Entry, LanePriority, Payload, Record, Row, Shipment, Sibling};
use model::residency::{PermittedRegions, ScopeId};
use model::version::{Actor, CausalContext, Dot, LogPosition, PositionVector, Version};
use model::{Hlc, Millis, NodeId, RegionId, RuleId, UnixMillis};
use replication::HlcClock;
use store::{Commit, Store, StoredRow};
use tokio::sync::{mpsc, oneshot, watch};

use crate::acks::Acks;
use crate::ledger::{Book, Refusals};
use crate::plane::wall_clock;
use crate::scopes::{NewScopes, Scopes};
use crate::types::{DataError, ETag, LabelClaims, Received, Write};

/// The most changes in one group: bounds how long the first of them waits.
const GROUP: usize = 256;

/// No clock runs while the process is down; a wall clock that stands this much further at the first write
/// afterwards is believed, and one beyond it counts as a jump.
const LONGEST_STOP: Millis = Millis::from_secs(24 * 3600);
/// The fact that says where the clock of stamps stands.
const CLOCK: &str = "hlc";

/// A write that the residency plan has passed.
pub(crate) struct Permitted {
    pub(crate) write: Write,
    pub(crate) content: NewContent,
    pub(crate) regions: PermittedRegions,
}

/// What a write leaves, decided before it is queued.
pub(crate) enum NewContent {
    Live { payload: Payload, content_type: String, labels: model::record::Labels, generation: u64 },
    Tombstone { labels: model::record::Labels },
}

/// What the writer tells a caller once a write is on disk.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) position: LogPosition,
    pub(crate) etag: ETag,
    pub(crate) context: CausalContext,
}

/// One change in the queue.
pub(crate) enum Change {
    Write(Box<Permitted>, WriteAnswer),
    /// What a peer shipped and the receiving gate has seen.
    Receive(RegionId, Vec<Arrival>, ReceiveAnswer),
    /// Facts to be kept.
    Keep(Vec<(String, Vec<u8>)>, DoneAnswer),
    /// Something that only the ledger tells of.
    Event(LedgerEvent, DoneAnswer),
}

/// A shipment once the receiving gate has decided.
pub(crate) enum Arrival {
    /// To be stored as it came.
    Take(Shipment),
    /// A record that may not be here, by this rule.
    Refuse(Box<Entry>, RuleId),
}

impl Arrival {
    fn position(&self) -> &LogPosition {
        match self {
            Self::Take(shipment) => shipment.position(),
            Self::Refuse(entry, _) => &entry.position,
        }
    }
}

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) me: RegionId,
    pub(crate) store: Store,
    pub(crate) acks: Arc<Acks>,
    pub(crate) scopes: Arc<Scopes>,
    pub(crate) commits: watch::Sender<u64>,
    book: Book,
    clock: HlcClock,
    /// When the clock was last read; never, at first.
    stamped: Option<Instant>,
}

/// Where the outcome of a write goes.
type WriteAnswer = oneshot::Sender<Result<Durable, DataError>>;
/// Who waits until something is on disk.
type DoneAnswer = oneshot::Sender<Result<(), DataError>>;
/// Where the outcome of a batch goes.
type ReceiveAnswer = oneshot::Sender<Result<Received, DataError>>;

/// What is to be said of a batch, apart from how far the logs reach.
#[derive(Default)]
struct Taken {
    refused: Vec<LogPosition>,
    /// A refusal that found no room in the answer.
    untold: Option<LogPosition>,
}

impl Taken {
    fn answer(self, mut vector: PositionVector) -> Received {
        if let Some(LogPosition { origin, incarnation, offset }) = &self.untold {
            vector.limit(origin, *incarnation, offset - 1);
        }
        Received { vector, refused: self.refused }
    }
}

/// A group under way: rows as they will be, what the ledger will tell of, and whom to answer.
struct Group {
    rows: BTreeMap<Address, Row>,
    log: Vec<Shipment>,
    vector: PositionVector,
    scopes: NewScopes,
    facts: Vec<(String, Vec<u8>)>,
    events: Vec<LedgerEvent>,
    refusals: Refusals,
    /// Rows that lost a value because the record has left this region.
    left: u32,
    answers: Answers,
}

/// Whom to answer once a group is on disk.
#[derive(Default)]
struct Answers {
    written: Vec<(WriteAnswer, Durable)>,
    received: Vec<(ReceiveAnswer, Taken)>,
    done: Vec<DoneAnswer>,
}

impl Answers {
    fn refuse(self) {
        self.written.into_iter().for_each(|(answer, ..)| drop(answer.send(Err(DataError::Closed))));
        self.received.into_iter().for_each(|(answer, _)| drop(answer.send(Err(DataError::Closed))));
        self.done.into_iter().for_each(|answer| drop(answer.send(Err(DataError::Closed))));
    }

    fn give(self, vector: &PositionVector) {
        self.written.into_iter().for_each(|(answer, durable)| drop(answer.send(Ok(durable))));
        self.received.into_iter().for_each(|(answer, taken)| drop(answer.send(Ok(taken.answer(vector.clone())))));
        self.done.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
    }
}

impl Writer {
    pub(crate) fn new(
        me: RegionId,
        store: Store,
        acks: Arc<Acks>,
        scopes: Arc<Scopes>,
        commits: watch::Sender<u64>,
        book: Book,
    ) -> Result<Self, DataError> {
        let last = store.meta(CLOCK)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        // Also where that lies ahead of the wall clock: the quarantine bounds by how much it can.
        let clock = HlcClock::resume(Hlc::from_bits(last));
        Ok(Self { me, store, acks, scopes, commits, book, clock, stamped: None })
    }

    /// Runs until every sender is gone.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Change>) {
        let mut changes = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut changes, GROUP) > 0 {
            self.group(&mut changes);
        }
        let mut page = self.book.page();
        page.refusals(self.book.take_refusals());
        let commit = Commit { meta: self.acks.facts(), leaves: page.leaves, ..Commit::default() };
        if let Err(error) = self.store.commit(commit) {
            tracing::warn!(%error, "how far the peers are was not kept; it is learned again from them");
        }
    }

    fn group(&mut self, changes: &mut Vec<Change>) {
        let mut group = Group {
            rows: BTreeMap::new(),
            log: Vec::new(),
            vector: self.store.vector(),
            scopes: NewScopes::new(),
            facts: Vec::new(),
            events: Vec::new(),
            refusals: Refusals::default(),
            left: 0,
            answers: Answers::default(),
        };
        for change in changes.drain(..) {
            match change {
                Change::Write(permitted, answer) => match self.write(&mut group, *permitted) {
                    Ok(durable) => group.answers.written.push((answer, durable)),
                    Err(error) => drop(answer.send(Err(error))),
                },
                Change::Receive(from, arrivals, answer) => match self.receive(&mut group, &from, arrivals) {
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
            }
        }
        self.settle(group);
    }

    fn settle(&mut self, group: Group) {
        let Group { rows, log, vector, scopes, facts, events, refusals, left, answers } = group;
        if !(log.is_empty() && facts.is_empty() && events.is_empty()) {
            let mut meta: Vec<_> = Scopes::facts(&scopes).chain(facts).chain(self.acks.facts()).collect();
            if !answers.written.is_empty() {
                meta.push((CLOCK.to_owned(), self.clock.last().bits().to_le_bytes().to_vec()));
            }
            let own = log.iter().filter(|shipment| shipment.position().origin == self.me);
            let own: Vec<_> = own.map(|shipment| (shipment.position().clone(), shipment.committed_at())).collect();
            let began = Instant::now();
            let rows: Vec<StoredRow> = rows.iter().map(|(address, row)| StoredRow::of(address, row)).collect();
            let mut page = self.book.page();
            events.into_iter().for_each(|event| page.event(event));
            page.refusals(self.book.take_refusals());
            page.refusals(refusals);
            if left > 0 {
                page.event(LedgerEvent::Evicted { count: left });
            }
            if !log.is_empty() {
                page.committed(self.book.hasher(), &rows);
            }
            let commit = Commit { rows, log, leaves: std::mem::take(&mut page.leaves), meta };
            if let Err(error) = self.store.commit(commit) {
                tracing::error!(%error, "a group of writes could not be made durable; none of it is acknowledged");
                // The engine takes no commit after one that failed; the next start begins a new incarnation,
                // so the counters of the failed group are never used again.
                return answers.refuse();
            }
            self.book.turn(page);
            self.scopes.learned(scopes);
            own.iter().for_each(|(position, at)| self.acks.committed(position, *at));
            metrics::histogram!("repomind_commit_seconds").record(began.elapsed().as_secs_f64());
        }
        metrics::counter!("repomind_writes_total").increment(answers.written.len() as u64);
        self.commits.send_modify(|count| *count += 1);
        answers.give(&vector);
    }

    fn row(&self, group: &Group, address: &Address) -> Result<Option<Row>, DataError> {
        match group.rows.get(address) {
            Some(row) => Ok(Some(row.clone())),
            None => Ok(self.store.row(address)?),
        }
    }

    fn write(&mut self, group: &mut Group, permitted: Permitted) -> Result<Durable, DataError> {
        let Permitted { write, content, regions } = permitted;
        let row = self.row(group, &write.address)?;
        let context = self.context_of(group, &write, row.as_ref(), &regions)?;
        check_preconditions(&write, row.as_ref())?;
        let evicted = self.evicted(group, row.as_ref(), &context, &regions);
        let above = row.iter().flat_map(|row| &row.siblings).map(|sibling| sibling.version.hlc).max();
        let now = wall_clock();
        let elapsed = match self.stamped.replace(Instant::now()) {
            Some(before) => Millis(u64::try_from(before.elapsed().as_millis()).unwrap_or(u64::MAX)),
            None => LONGEST_STOP,
        };
        let hlc = self.clock.stamp(now, elapsed, above.unwrap_or(Hlc::ZERO));
        let incarnation = self.store.incarnation();
        let offset = group.vector.offset(&self.me, incarnation) + 1;
        let actor = Actor { region: self.me.clone(), node: NodeId(0), incarnation };
        let version = Version { dot: Dot { actor, counter: offset }, hlc, context };
        let content = match content {
            NewContent::Live { payload, content_type, labels, generation } => {
                Content::Live(Record { payload, content_type, labels, generation })
            }
            NewContent::Tombstone { labels } => Content::Tombstone { labels },
        };
        let sibling = Sibling { version, scope: regions.scope(), content };
        let position = LogPosition { origin: self.me.clone(), incarnation, offset };
        group.vector.advance(&position);
        self.learn(group, sibling.scope, regions.regions());
        group.log.push(Shipment::Entry(Box::new(Entry {
            position: position.clone(),
            address: write.address.clone(),
            sibling: sibling.clone(),
            permitted: regions.regions().clone(),
            evicted,
            priority: LanePriority::default(),
            committed_at: now,
        })));
        let merged = replication::merge(row, sibling);
        let durable = Durable { position, etag: ETag::of(&merged), context: merged.context() };
        group.rows.insert(write.address, merged);
        Ok(durable)
    }

    /// What the write replaces: what its client has seen of what is here. What lives elsewhere cannot be
    /// replaced from here.
    fn context_of(
        &self,
        group: &Group,
        write: &Write,
        row: Option<&Row>,
        regions: &PermittedRegions,
    ) -> Result<CausalContext, DataError> {
        let Some(row) = row else { return Ok(CausalContext::new()) };
        let Some(here) = replication::replaceable(row) else {
            let markers = row.siblings.iter().filter(|sibling| sibling.is_marker());
            let regions = markers.flat_map(|marker| self.regions_of(group, marker.scope)).collect();
            return Err(DataError::elsewhere(&self.me, regions));
        };
        let context = match &write.context {
            None => here,
            Some(seen) => seen.meet(&here),
        };
        // Whoever sees this write will take all earlier ones of this log for seen. So a write that stays
        // beside an earlier one may not go where that one is hidden.
        let hidden = row.siblings.iter().any(|sibling| {
            let Actor { region, incarnation, .. } = &sibling.version.dot.actor;
            let ours = *region == self.me && *incarnation == self.store.incarnation();
            let stays = !context.covers(&sibling.version.dot);
            ours && stays && !regions.regions().is_subset(&self.regions_of(group, sibling.scope))
        });
        if hidden { Err(DataError::PreconditionFailed) } else { Ok(context) }
    }

    /// The regions that hold something which a write with `context` supersedes and may not hold the write.
    fn evicted(
        &self,
        group: &Group,
        row: Option<&Row>,
        context: &CausalContext,
        regions: &PermittedRegions,
    ) -> BTreeSet<RegionId> {
        let superseded =
            row.iter().flat_map(|row| &row.siblings).filter(|sibling| context.covers(&sibling.version.dot));
        superseded
            .flat_map(|sibling| self.regions_of(group, sibling.scope))
            .filter(|region| !regions.contains(region))
            .collect()
    }

    fn regions_of(&self, group: &Group, scope: ScopeId) -> BTreeSet<RegionId> {
        group.scopes.get(&scope).cloned().or_else(|| self.scopes.regions(scope)).unwrap_or_default()
    }

    /// Notes the regions of a scope that is seen for the first time.
    fn learn(&self, group: &mut Group, scope: ScopeId, regions: &BTreeSet<RegionId>) {
        if !self.scopes.knows(scope) {
            group.scopes.entry(scope).or_insert_with(|| regions.clone());
        }
    }

    /// Takes over what arrived up to the first gap; what was taken over before is passed over.
    fn receive(&mut self, group: &mut Group, from: &RegionId, arrivals: Vec<Arrival>) -> Result<Taken, DataError> {
        let mut taken = Taken::default();
        for arrival in arrivals {
            let position = arrival.position().clone();
            let known = group.vector.covers(&position);
            if !known && !group.vector.is_next(&position) {
                break;
            }
            // What is refused now may have been taken earlier, and the other way round: the log knows.
            let refused = match &arrival {
                _ if known => position.origin == *from && self.was_refused(group, &position)?,
                Arrival::Refuse(..) => position.origin == *from,
                Arrival::Take(_) => false,
            };
            if refused && taken.refused.len() >= Received::MOST_REFUSED {
                taken.untold = Some(position);
                break;
            }
            if !known {
                let shipment = self.settle_arrival(group, arrival)?;
                group.vector.advance(&position);
                group.log.push(shipment);
            }
            if refused {
                taken.refused.push(position);
            }
        }
        Ok(taken)
    }

    fn was_refused(&self, group: &Group, position: &LogPosition) -> Result<bool, DataError> {
        let stored = self.store.shipment(position)?;
        let shipment = stored.as_ref().or_else(|| group.log.iter().find(|shipment| shipment.position() == position));
        Ok(matches!(shipment, Some(Shipment::Refused { .. })))
    }

    /// What is to be logged for an arrival that is the next of its log.
    fn settle_arrival(&mut self, group: &mut Group, arrival: Arrival) -> Result<Shipment, DataError> {
        match arrival {
            Arrival::Take(Shipment::Entry(entry)) => self.take(group, entry),
            Arrival::Take(other) => Ok(other),
            Arrival::Refuse(entry, rule) => {
                self.supersede(group, &entry)?;
                group.refusals.add(&rule, 1);
                Ok(Shipment::Refused { position: entry.position, committed_at: entry.committed_at, rule })
            }
        }
    }

    /// The value of a refused record stays out, and its key too where it is not known;
    /// that it supersedes what is here holds all the same.
    fn supersede(&mut self, group: &mut Group, refused: &Entry) -> Result<(), DataError> {
        if let Some(row) = self.row(group, &refused.address)? {
            self.learn(group, refused.sibling.scope, &refused.permitted);
            merge_into(group, &refused.address, Some(row), refused.sibling.marker());
        }
        Ok(())
    }

    /// Merges an entry, and gives what is to be logged. A marker is taken only where the key is known,
    /// or may still be on its way: another region's log may bring what the marker supersedes later.
    fn take(&mut self, group: &mut Group, entry: Box<Entry>) -> Result<Shipment, DataError> {
        let row = self.row(group, &entry.address)?;
        if entry.sibling.is_marker() && row.is_none() && group.vector.has_passed(&entry.sibling.version.context) {
            return Ok(Shipment::Skip { position: entry.position, committed_at: entry.committed_at });
        }
        self.learn(group, entry.sibling.scope, &entry.permitted);
        merge_into(group, &entry.address, row, entry.sibling.clone());
        Ok(Shipment::Entry(entry))
    }
}

/// Merges what arrived, and counts the row where a marker took a value out of it.
fn merge_into(group: &mut Group, address: &Address, row: Option<Row>, arrived: Sibling) {
    let values = |row: &Row| row.siblings.iter().filter(|sibling| sibling.content.record().is_some()).count();
    let (marker, before) = (arrived.is_marker(), row.as_ref().map_or(0, values));
    let merged = replication::merge(row, arrived);
    group.left += u32::from(marker && values(&merged) < before);
    group.rows.insert(address.clone(), merged);
}

fn check_preconditions(write: &Write, row: Option<&Row>) -> Result<(), DataError> {
    let live = row.is_some_and(|row| row.siblings.iter().any(|sibling| sibling.content.record().is_some()));
    if write.if_none_match && live {
        return Err(DataError::PreconditionFailed);
    }
    match &write.if_match {
        Some(state) if !state.is_met(live, row) => Err(DataError::PreconditionFailed),
        _ => Ok(()),
    }
}

/// The labels of a delete: those stated, or those of what is deleted, or the namespace's.
pub(crate) fn labels_of_delete(
    claims: &LabelClaims,
    row: Option<&Row>,
    class: model::record::DataClass,
    now: UnixMillis,
) -> model::record::Labels {
    let labelled = row.iter().flat_map(|row| &row.siblings).filter(|sibling| !sibling.is_marker());
    let last = labelled.max_by(|left, right| left.version.lww_order().cmp(&right.version.lww_order()));
    let kept = last.and_then(|sibling| sibling.content.labels().cloned());
    match kept {
        Some(labels) if claims.is_empty() => labels,
        _ => claims.labels(class, now),
    }
}
