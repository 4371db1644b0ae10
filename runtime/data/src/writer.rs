//! The one thread that changes the store: it merges and logs in groups that share an fsync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use model::record::{Address, Content, Entry, LanePriority, Payload, Record, Row, Shipment, Sibling};
use model::residency::PermittedRegions;
use model::version::{Actor, CausalContext, Dot, LogPosition, PositionVector, Version};
use model::{Hlc, Millis, NodeId, RegionId, UnixMillis};
use replication::HlcClock;
use store::{Commit, Store};
use tokio::sync::{mpsc, oneshot, watch};

use crate::acks::Acks;
use crate::plane::wall_clock;
use crate::types::{DataError, ETag, LabelClaims, Write};

/// The most changes in one group: bounds how long the first of them waits.
const GROUP: usize = 256;

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
    /// Shipments that the receiving gate has passed, as they are to be stored.
    Receive(Vec<Shipment>, oneshot::Sender<Result<PositionVector, DataError>>),
}

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) me: RegionId,
    pub(crate) store: Store,
    pub(crate) acks: Arc<Acks>,
    pub(crate) commits: watch::Sender<u64>,
    clock: HlcClock,
    stamped: Instant,
    counter: u64,
}

/// Where the outcome of a write goes.
type WriteAnswer = oneshot::Sender<Result<Durable, DataError>>;

/// A group under way: rows as they will be, and whom to answer.
struct Group {
    rows: BTreeMap<Address, Row>,
    log: Vec<Shipment>,
    vector: PositionVector,
    written: Vec<(WriteAnswer, Durable, UnixMillis)>,
    received: Vec<oneshot::Sender<Result<PositionVector, DataError>>>,
}

impl Writer {
    pub(crate) fn new(
        me: RegionId,
        store: Store,
        acks: Arc<Acks>,
        commits: watch::Sender<u64>,
    ) -> Result<Self, DataError> {
        let last = store.meta("hlc")?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let counter = store.vector().offset(&me, store.incarnation());
        let clock = HlcClock::resume(Hlc::from_bits(last).min(Hlc::new(wall_clock(), u16::MAX)));
        Ok(Self { me, store, acks, commits, clock, stamped: Instant::now(), counter })
    }

    /// Runs until every sender is gone.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Change>) {
        let mut changes = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut changes, GROUP) > 0 {
            self.group(&mut changes);
        }
        if let Err(error) = self.store.close() {
            tracing::error!(%error, "the store could not be marked as cleanly closed");
        }
    }

    fn group(&mut self, changes: &mut Vec<Change>) {
        let mut group = Group {
            rows: BTreeMap::new(),
            log: Vec::new(),
            vector: self.store.vector(),
            written: Vec::new(),
            received: Vec::new(),
        };
        let mut last = Hlc::ZERO;
        for change in changes.drain(..) {
            match change {
                Change::Write(permitted, answer) => match self.write(&mut group, *permitted) {
                    Ok((durable, at, hlc)) => {
                        last = last.max(hlc);
                        group.written.push((answer, durable, at));
                    }
                    Err(error) => drop(answer.send(Err(error))),
                },
                Change::Receive(shipments, answer) => match self.receive(&mut group, shipments) {
                    Ok(()) => group.received.push(answer),
                    Err(error) => drop(answer.send(Err(error))),
                },
            }
        }
        self.settle(group, last);
    }

    fn settle(&mut self, group: Group, last: Hlc) {
        let Group { rows, log, vector, written, received } = group;
        if !log.is_empty() {
            let meta =
                if last > Hlc::ZERO { vec![("hlc".to_owned(), last.bits().to_le_bytes().to_vec())] } else { vec![] };
            let began = Instant::now();
            let commit = Commit { rows: rows.into_iter().collect(), log, meta };
            if let Err(error) = self.store.commit(commit) {
                tracing::error!(%error, "a group of writes could not be made durable; none of it is acknowledged");
                // Counters of the failed group are not used again within this incarnation.
                written.into_iter().for_each(|(answer, ..)| drop(answer.send(Err(DataError::Closed))));
                received.into_iter().for_each(|answer| drop(answer.send(Err(DataError::Closed))));
                return;
            }
            metrics::histogram!("repomind_commit_seconds").record(began.elapsed().as_secs_f64());
        }
        for (_, durable, at) in &written {
            self.acks.committed(durable.position.clone(), *at);
        }
        metrics::counter!("repomind_writes_total").increment(written.len() as u64);
        self.commits.send_modify(|count| *count += 1);
        written.into_iter().for_each(|(answer, durable, _)| drop(answer.send(Ok(durable))));
        received.into_iter().for_each(|answer| drop(answer.send(Ok(vector.clone()))));
    }

    fn row(&self, group: &Group, address: &Address) -> Result<Option<Row>, DataError> {
        match group.rows.get(address) {
            Some(row) => Ok(Some(row.clone())),
            None => Ok(self.store.row(address)?),
        }
    }

    fn write(&mut self, group: &mut Group, permitted: Permitted) -> Result<(Durable, UnixMillis, Hlc), DataError> {
        let Permitted { write, content, regions } = permitted;
        let row = self.row(group, &write.address)?;
        check_preconditions(&write, row.as_ref())?;
        let seen = row.as_ref().map(Row::context).unwrap_or_default();
        let context = match write.context {
            None => seen,
            Some(context) => context,
        };
        let above = row.iter().flat_map(|row| &row.siblings).map(|sibling| sibling.version.hlc).max();
        let now = wall_clock();
        let elapsed = Millis(u64::try_from(self.stamped.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.stamped = Instant::now();
        let hlc = self.clock.stamp(now, elapsed, above.unwrap_or(Hlc::ZERO));
        self.counter += 1;
        let incarnation = self.store.incarnation();
        let actor = Actor { region: self.me.clone(), node: NodeId(0), incarnation };
        let version = Version { dot: Dot { actor, counter: self.counter }, hlc, context };
        let content = match content {
            NewContent::Live { payload, content_type, labels, generation } => {
                Content::Live(Record { payload, content_type, labels, generation })
            }
            NewContent::Tombstone { labels } => Content::Tombstone { labels },
        };
        let sibling = Sibling { version, scope: regions.scope(), content };
        let offset = group.vector.offset(&self.me, incarnation) + 1;
        let position = LogPosition { origin: self.me.clone(), incarnation, offset };
        group.vector.advance(&position);
        group.log.push(Shipment::Entry(Box::new(Entry {
            position: position.clone(),
            address: write.address.clone(),
            sibling: sibling.clone(),
            permitted: regions.regions().clone(),
            priority: LanePriority::default(),
            committed_at: now,
        })));
        let merged = replication::merge(row, sibling);
        let durable = Durable { position, etag: ETag::of(&merged), context: merged.context() };
        group.rows.insert(write.address, merged);
        Ok((durable, now, hlc))
    }

    /// Takes over shipments up to the first gap; what was taken over before is passed over.
    fn receive(&mut self, group: &mut Group, shipments: Vec<Shipment>) -> Result<(), DataError> {
        for shipment in shipments {
            let position = shipment.position();
            if group.vector.covers(position) {
                continue;
            }
            if !group.vector.is_next(position) {
                break;
            }
            if let Shipment::Entry(entry) = &shipment {
                let row = self.row(group, &entry.address)?;
                group.rows.insert(entry.address.clone(), replication::merge(row, entry.sibling.clone()));
            }
            group.vector.advance(position);
            group.log.push(shipment);
        }
        Ok(())
    }
}

fn check_preconditions(write: &Write, row: Option<&Row>) -> Result<(), DataError> {
    let live = row.is_some_and(|row| row.siblings.iter().any(|sibling| sibling.content.record().is_some()));
    if write.if_none_match && live {
        return Err(DataError::PreconditionFailed);
    }
    match &write.if_match {
        Some(tag) if !live || row.map(ETag::of).as_ref() != Some(tag) => Err(DataError::PreconditionFailed),
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
    let kept = row.and_then(|row| row.siblings.get(replication::last_write(&row.siblings))?.content.labels().cloned());
    match kept {
        Some(labels) if claims.is_empty() => labels,
        _ => claims.labels(class, now),
    }
}
