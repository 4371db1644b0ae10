//! What waits for the writer, what one group of it comes to, and whom to answer once it is on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use compliance::ledger::LedgerEvent;
use model::eviction::{Holding, HoldingQuestion, PlanStamp};
use model::record::{Address, Entry, Record, Row, Shipment};
use model::residency::PermittedRegions;
use model::snapshot::Given;
use model::version::{CausalContext, Dot, LogPosition, PositionVector};
use model::wound::Wound;
use model::{RegionId, RuleId, UnixMillis};
use store::StoredRow;
use tokio::sync::oneshot;

use crate::graves::Burials;
use crate::hearing::{Logs, Span};
use crate::ledger::Refusals;
use crate::losses::{Losses, Settlement};
use crate::quota::Usage;
use crate::scopes::NewScopes;
use crate::types::{DataError, ETag, NotAll, Received, Write};

/// A write that the residency plan has passed.
pub(crate) struct Permitted {
    pub(crate) write: Write,
    pub(crate) content: NewContent,
    pub(crate) regions: PermittedRegions,
    /// By which plan.
    pub(crate) by: PlanStamp,
    /// The time by which records are over that it may find; none for the delete of one that is.
    pub(crate) until: Option<UnixMillis>,
}

/// What a write leaves, decided before it is queued.
pub(crate) enum NewContent {
    Live(Record),
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
    /// Several, of which all are made or none.
    WriteAll(Vec<Permitted>, WriteAllAnswer),
    /// What a peer shipped and the receiving gate has seen.
    Receive(RegionId, Arrivals, ReceiveAnswer),
    /// Facts to be kept.
    Keep(Vec<(String, Vec<u8>)>, DoneAnswer),
    /// Something that only the ledger tells of.
    Event(LedgerEvent, DoneAnswer),
    /// Rows that a peer gave.
    Hear(Box<Span>, DoneAnswer),
    /// A peer has given all its rows: how far it was when it began, and the logs that it does not hold whole.
    HeardAll(Box<(RegionId, PositionVector, Logs)>, DoneAnswer),
    /// Tombstones of which every region has everything in the vector.
    Bury(Vec<Address>, Arc<PositionVector>, oneshot::Sender<Result<u64, DataError>>),
    /// Everything up to here that could be buried has been.
    Buried(Arc<PositionVector>, DoneAnswer),
    /// Every region has buried everything up to here.
    Quiet(PositionVector, DoneAnswer),
    /// Writes whose values go from here, though nothing has replaced them.
    Evict(Address, Vec<Dot>, DoneAnswer),
    /// Asks what is here of some writes.
    Vouch(Box<HoldingQuestion>, HoldingAnswers),
    /// Values that go from here because this plan does not let them stay.
    EvictBarred(PlanStamp, Vec<(Address, Dot)>, oneshot::Sender<Result<u64, DataError>>),
    /// Values that come in outside any log.
    ComeHome(Vec<(Address, Given)>, oneshot::Sender<Result<u64, DataError>>),
    /// A row that may be damaged.
    Wound(Address, DoneAnswer),
    /// Rows that may not be as they were committed.
    Check(Vec<Address>, oneshot::Sender<Result<u64, DataError>>),
    /// What a peer states of keys, and of which.
    Mend(Box<(Span, std::collections::BTreeSet<Address>)>, DoneAnswer),
    /// Damaged bytes that lie aside go.
    DropAside(DoneAnswer),
    /// A resolver has answered.
    Settled(Box<Settlement>, DoneAnswer),
    /// Entries of the conflict log that go.
    DropLosses(Vec<Vec<u8>>, DoneAnswer),
    /// Facts that nobody needs any more as long as they are as they were when this was decided.
    Forget(Vec<(String, Vec<u8>)>, DoneAnswer),
    /// Time has passed.
    Tend(DoneAnswer),
}

/// What a peer shipped, and by which plan the gate has decided on it.
pub(crate) struct Arrivals {
    pub(crate) by: PlanStamp,
    pub(crate) all: Vec<Arrival>,
}

/// A shipment once the receiving gate has decided.
pub(crate) enum Arrival {
    /// To be stored as it came.
    Take(Shipment),
    /// A record that may not be here, by this rule.
    Refuse(Box<Entry>, RuleId),
}

impl Arrival {
    pub(crate) fn position(&self) -> &LogPosition {
        match self {
            Self::Take(shipment) => shipment.position(),
            Self::Refuse(entry, _) => &entry.position,
        }
    }
}

/// Where the outcome of a write goes.
pub(crate) type WriteAnswer = oneshot::Sender<Result<Durable, DataError>>;
/// Where the outcome of several writes goes that are made together.
pub(crate) type WriteAllAnswer = oneshot::Sender<Result<Vec<Durable>, NotAll>>;
/// Who waits until something is on disk.
pub(crate) type DoneAnswer = oneshot::Sender<Result<(), DataError>>;
/// Where it goes what is here of some writes.
pub(crate) type HoldingAnswers = oneshot::Sender<Result<Vec<Holding>, DataError>>;
/// Where the outcome of a batch goes.
pub(crate) type ReceiveAnswer = oneshot::Sender<Result<Received, DataError>>;

/// What is to be said of a batch, apart from how far the logs reach.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) refused: Vec<LogPosition>,
    /// A refusal that found no room in the answer.
    pub(crate) untold: Option<LogPosition>,
}

impl Taken {
    pub(crate) fn answer(self, mut vector: PositionVector) -> Received {
        if let Some(LogPosition { origin, incarnation, offset }) = &self.untold {
            vector.limit(origin, *incarnation, offset - 1);
        }
        Received { vector, refused: self.refused }
    }
}

/// A group under way: rows as they will be, what the ledger will tell of, and whom to answer.
pub(crate) struct Group {
    /// None where a row goes.
    pub(crate) rows: BTreeMap<Address, Option<Row>>,
    pub(crate) log: Vec<Shipment>,
    pub(crate) vector: PositionVector,
    /// Logs that are taken over without their entries.
    pub(crate) adopted: PositionVector,
    pub(crate) unlisted: Vec<Vec<u8>>,
    /// Names of facts that go.
    pub(crate) forgotten: Vec<String>,
    pub(crate) scopes: NewScopes,
    pub(crate) facts: Vec<(String, Vec<u8>)>,
    pub(crate) events: Vec<LedgerEvent>,
    pub(crate) refusals: Refusals,
    /// Rows that lost a value because the record has left this region.
    pub(crate) left: u32,
    /// What changes in the conflict log.
    pub(crate) losses: Losses,
    /// What is held, with the writes of this group, of namespaces with a quota.
    pub(crate) used: Usage,
    /// Wounds as this group leaves them; none where one is healed. Nobody is told before they are on disk.
    pub(crate) wounds: BTreeMap<Address, Option<Wound>>,
    /// How many damaged rows lie aside, where the group changes that.
    pub(crate) aside: Option<usize>,
    /// How far this region is with its tombstones, where the group changes that.
    pub(crate) burials: Option<Burials>,
    pub(crate) answers: Answers,
}

impl Group {
    /// An empty one, on top of logs that reach this far.
    pub(crate) fn begin(vector: PositionVector) -> Self {
        Self {
            rows: BTreeMap::new(),
            log: Vec::new(),
            vector,
            adopted: PositionVector::new(),
            unlisted: Vec::new(),
            forgotten: Vec::new(),
            scopes: NewScopes::new(),
            facts: Vec::new(),
            events: Vec::new(),
            refusals: Refusals::default(),
            left: 0,
            losses: Losses::new(),
            used: Usage::new(),
            wounds: BTreeMap::new(),
            aside: None,
            burials: None,
            answers: Answers::default(),
        }
    }

    /// A fact as this group leaves it; nothing where the group does not touch it, and `Some(None)` where it goes.
    pub(crate) fn fact(&self, name: &str) -> Option<Option<&[u8]>> {
        let kept = self.facts.iter().rev().find(|(fact, _)| fact == name).map(|(_, bytes)| Some(bytes.as_slice()));
        kept.or_else(|| self.forgotten.iter().any(|fact| fact == name).then_some(None))
    }

    /// Keeps a fact, whatever the group did to it before.
    pub(crate) fn keep_fact(&mut self, name: String, bytes: Vec<u8>) {
        self.forgotten.retain(|fact| *fact != name);
        self.facts.push((name, bytes));
    }

    /// Forgets a fact, whatever the group did to it before.
    pub(crate) fn forget_fact(&mut self, name: String) {
        self.facts.retain(|(fact, _)| *fact != name);
        self.forgotten.push(name);
    }
}

/// Whom to answer once a group is on disk.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) written: Vec<(WriteAnswer, Durable)>,
    pub(crate) written_all: Vec<(WriteAllAnswer, Vec<Durable>)>,
    pub(crate) received: Vec<(ReceiveAnswer, Taken)>,
    pub(crate) done: Vec<DoneAnswer>,
    /// Who waits for a count.
    pub(crate) counted: Vec<(oneshot::Sender<Result<u64, DataError>>, u64)>,
    pub(crate) vouched: Vec<(HoldingAnswers, Vec<Holding>)>,
}

impl Answers {
    pub(crate) fn refuse(self, reason: &str) {
        let failed = || DataError::Failed { reason: reason.to_owned() };
        self.written.into_iter().for_each(|(answer, ..)| drop(answer.send(Err(failed()))));
        let none = || NotAll { at: None, error: failed() };
        self.written_all.into_iter().for_each(|(answer, _)| drop(answer.send(Err(none()))));
        self.received.into_iter().for_each(|(answer, _)| drop(answer.send(Err(failed()))));
        self.done.into_iter().for_each(|answer| drop(answer.send(Err(failed()))));
        self.counted.into_iter().for_each(|(answer, _)| drop(answer.send(Err(failed()))));
        self.vouched.into_iter().for_each(|(answer, _)| drop(answer.send(Err(failed()))));
    }

    pub(crate) fn give(self, vector: &PositionVector) {
        self.written.into_iter().for_each(|(answer, durable)| drop(answer.send(Ok(durable))));
        self.written_all.into_iter().for_each(|(answer, durable)| drop(answer.send(Ok(durable))));
        self.received.into_iter().for_each(|(answer, taken)| drop(answer.send(Ok(taken.answer(vector.clone())))));
        self.done.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
        self.counted.into_iter().for_each(|(answer, count)| drop(answer.send(Ok(count))));
        self.vouched.into_iter().for_each(|(answer, holdings)| drop(answer.send(Ok(holdings))));
    }
}

/// The rows that stay, as they will lie on disk, and the stored keys of those that go.
pub(crate) fn stored_rows(rows: BTreeMap<Address, Option<Row>>) -> (Vec<StoredRow>, Vec<Vec<u8>>) {
    let (mut stored, mut removed) = (Vec::new(), Vec::new());
    for (address, row) in rows {
        match row {
            Some(row) => stored.push(StoredRow::of(&address, &row)),
            None => removed.push(store::row_key(&address)),
        }
    }
    (stored, removed)
}
