//! What this region learns from rows that a peer gives it, instead of from entries of logs.
//!
//! A peer that has given all its rows speaks for its own logs: this region is then as far in them as the peer was
//! when it began. For a log that its origin has lost it takes all the others together: what none of them holds is
//! lost, and the log may be passed over. Until a region has caught up with what a peer said, an entry that the peer
//! had taken over and that was not among its rows is known to be superseded, by whatever way it arrives.

use std::collections::{BTreeMap, BTreeSet};

use model::eviction::PlanStamp;
use model::record::{Address, Entry, Row, Sibling};
use model::snapshot::{Given, SnapshotPart};
use model::version::{Dot, Incarnation, PositionVector};
use model::{RegionId, RuleId, codec};
use replication::Statement;
use store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::arriving::merge_into;
use crate::faults::Fault;
use crate::group::{Change, Group};
use crate::plane::DataPlane;
use crate::plans::Plans;
use crate::shipping::erased_rule;
use crate::types::{DataError, Received};
use crate::vault::Fate;
use crate::writer::Writer;

/// Before the names of the facts that say how far peers were whose rows were all heard.
const HEARD: &str = "heard/";
/// Before the names of the facts that say the same of peers that have not finished.
const HEARING: &str = "hearing/";
/// The fact that says how far the givers of rows were where this region was not.
const AHEAD: &str = "ahead";
/// The fact that lists the logs of which this region has refused entries.
const PARTIAL: &str = "log/partial";
/// Rows of this region that are compared in one group, at most.
const SPAN: usize = 256;
/// Bytes of them.
const SPAN_BYTES: usize = 1024 * 1024;

/// Logs, by the life in which they were written.
pub(crate) type Logs = BTreeSet<(RegionId, Incarnation)>;

/// What may be here, by key, and what may not, and by which rule.
pub(crate) type Gated = (BTreeMap<Address, Vec<Given>>, Vec<(Address, Given, RuleId)>);

/// A span of keys of a part, as far as the receiving gate has decided.
pub(crate) struct Span {
    pub(crate) from: RegionId,
    /// By which plan the gate has decided.
    pub(crate) by: PlanStamp,
    pub(crate) began: PositionVector,
    pub(crate) vector: PositionVector,
    pub(crate) partial: Logs,
    pub(crate) after: Option<Address>,
    pub(crate) upto: Option<Address>,
    /// What may be here.
    pub(crate) rows: BTreeMap<Address, Vec<Given>>,
    /// What may not, and by which rule.
    pub(crate) refused: Vec<(Address, Given, RuleId)>,
}

/// How far a peer was, and which logs it does not hold whole.
struct Heard {
    vector: PositionVector,
    partial: Logs,
    /// The last key that was heard; all of them where there is none.
    upto: Option<Address>,
}

/// What peers have said with their rows.
#[derive(Default)]
pub(crate) struct Hearsay {
    /// By peer; what was not heard to its end does not outlive a restart.
    heard: BTreeMap<RegionId, Heard>,
    /// Those that gave all their rows in this life.
    all: BTreeMap<RegionId, PositionVector>,
    /// Up to which key each has come that began at this vector, in this life.
    progress: BTreeMap<RegionId, (PositionVector, Address)>,
    /// Those that began and have not finished, and the life in which each began.
    unfinished: BTreeMap<RegionId, Option<Incarnation>>,
    /// How far they were when they read rows that this region took, where its logs do not reach: it may hold writes from
    /// there, and its vector does not say so.
    ahead: PositionVector,
}

fn named(name: &str, before: &str) -> Result<RegionId, StoreError> {
    let peer = name.strip_prefix(before).and_then(|peer| RegionId::new(peer).ok());
    peer.ok_or_else(|| StoreError::Key { place: "what peers said".into() })
}

fn vector_of(name: &str, bytes: &[u8]) -> Result<PositionVector, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })
}

impl Hearsay {
    pub(crate) fn open(store: &Store) -> Result<Self, StoreError> {
        let (mut heard, mut unfinished) = (BTreeMap::new(), BTreeMap::new());
        for (name, bytes) in store.facts(HEARD)?.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let vector = vector_of(&name, &bytes)?;
            heard.insert(named(&name, HEARD)?, Heard { vector, partial: Logs::new(), upto: None });
        }
        for (name, bytes) in store.facts(HEARING)?.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let peer = named(&name, HEARING)?;
            let life = vector_of(&name, &bytes)?.newest(&peer);
            unfinished.insert(peer, life);
        }
        let ahead = match store.meta(AHEAD)?.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => vector_of(AHEAD, &bytes)?,
            None => PositionVector::new(),
        };
        Ok(Self { heard, unfinished, ahead, ..Self::default() })
    }

    /// Whether something that peers have said has not been caught up with.
    pub(crate) fn is_open(&self) -> bool {
        !(self.heard.is_empty() && self.unfinished.is_empty())
    }

    /// Whether a peer that would hold the write, other than `but`, has said that it is superseded.
    fn is_gone(&self, address: &Address, dot: &Dot, regions: &BTreeSet<RegionId>, but: Option<&RegionId>) -> bool {
        self.heard.iter().filter(|(peer, _)| Some(*peer) != but).any(|(peer, heard)| {
            heard.vector.covers_dot(dot)
                && regions.contains(peer)
                && !heard.partial.contains(&(dot.actor.region.clone(), dot.actor.incarnation))
                && heard.upto.as_ref().is_none_or(|upto| address <= upto)
        })
    }
}

/// Reads which logs are partial; a store of before this was noted is searched once.
pub(crate) fn partial_logs(store: &Store) -> Result<Logs, StoreError> {
    if let Some(bytes) = store.meta(PARTIAL)? {
        return codec::decode(&bytes)
            .map_err(|reason| StoreError::Corrupt { place: format!("fact {PARTIAL}"), reason });
    }
    let mut partial = Logs::new();
    for (origin, incarnation, end) in store.vector().iter() {
        let mut after = store.floors().offset(origin, incarnation);
        while after < end {
            let entries = store.shipments(origin, incarnation, after, SPAN_BYTES)?;
            let Some(last) = entries.last() else { break };
            after = last.position().offset;
            if entries.iter().any(|entry| matches!(entry, model::record::Shipment::Refused { .. })) {
                partial.insert((origin.clone(), incarnation));
                break;
            }
        }
    }
    Ok(partial)
}

/// The list of partial logs as a fact.
pub(crate) fn partial_fact(partial: &Logs) -> (String, Vec<u8>) {
    (PARTIAL.to_owned(), codec::encode(partial))
}

impl DataPlane {
    /// Takes a part of the rows of `from`, which speaks in the life that its vector names. Gives how far this region
    /// is, durably.
    ///
    /// # Errors
    /// [`DataError::BadPart`] where it is not what a region would give, and those of the disk.
    pub async fn take_part(&self, from: &RegionId, part: SnapshotPart) -> Result<Received, DataError> {
        let plans = self.shared.plans.load_full();
        if plans.generation == 0 {
            return Err(DataError::Unready { retry_after: crate::plane::RETRY_AFTER });
        }
        self.not_of_an_ended_life(from, part.vector.newest(from))?;
        check(&part).map_err(|reason| DataError::BadPart { from: from.clone(), reason })?;
        let (mut rows, refused) = self.gate_rows(&plans, from, part.rows)?;
        let _chunks = self.chunks_of_given(from, &rows).await?;
        let (mut after, upto) = (part.after, part.upto);
        let mut refused = Some(refused);
        loop {
            let own = self.shared.store.rows_between(after.as_ref(), upto.as_ref(), SPAN, SPAN_BYTES);
            let (own, more) = self.suspecting(own.map_err(DataError::from))?;
            let end = if more { own.last().map(|(address, _)| address.clone()) } else { upto.clone() };
            let rest = match &end {
                Some(end) => {
                    let mut rest = rows.split_off(end);
                    if let Some(given) = rest.remove(end) {
                        rows.insert(end.clone(), given);
                    }
                    rest
                }
                None => BTreeMap::new(),
            };
            let span = Span {
                from: from.clone(),
                by: plans.stamp(),
                began: part.began.clone(),
                vector: part.vector.clone(),
                partial: part.partial.clone(),
                after: after.clone(),
                upto: end.clone(),
                rows: std::mem::replace(&mut rows, rest),
                refused: refused.take().unwrap_or_default(),
            };
            let (answer, durable) = oneshot::channel();
            self.wait_in_line(Change::Hear(Box::new(span), answer)).await?;
            durable.await.map_err(|_| DataError::Closed)??;
            if !more {
                break;
            }
            after = end;
        }
        if upto.is_none() {
            let (answer, durable) = oneshot::channel();
            let all = (from.clone(), part.began, part.partial);
            self.wait_in_line(Change::HeardAll(Box::new(all), answer)).await?;
            durable.await.map_err(|_| DataError::Closed)??;
        }
        Ok(Received { vector: self.vector(), refused: Vec::new() })
    }

    /// What of given rows may be here, and what may not.
    pub(crate) fn gate_rows(
        &self,
        plans: &Plans,
        from: &RegionId,
        given: Vec<(Address, Vec<Given>)>,
    ) -> Result<Gated, DataError> {
        let (me, now) = (&self.shared.me, self.shared.clock.wall());
        let (mut rows, mut refused) = (BTreeMap::<Address, Vec<Given>>::new(), Vec::new());
        for (address, given) in given {
            for given in given {
                let origin = &given.sibling.version.dot.actor.region;
                let Some(labels) = given.sibling.content.labels() else {
                    rows.entry(address.clone()).or_default().push(given);
                    continue;
                };
                let fate = match (&self.shared.vault, given.sibling.content.record()) {
                    (Some(vault), Some(record)) if given.permitted.contains(me) => vault.fate_of(record),
                    _ => Fate::Here,
                };
                match plans.residency.permit_arrival(labels, origin, me, now) {
                    Ok(()) if fate == Fate::Gone => refused.push((address.clone(), given, erased_rule())),
                    Ok(()) if fate == Fate::Unknown => {
                        let reason = "it has a value whose key has not come";
                        return Err(DataError::BadPart { from: from.clone(), reason });
                    }
                    Ok(_) if given.permitted.contains(me) => rows.entry(address.clone()).or_default().push(given),
                    Ok(_) => {}
                    Err(rule) => refused.push((address.clone(), given, rule)),
                }
            }
        }
        Ok((rows, refused))
    }
}

fn check(part: &SnapshotPart) -> Result<(), &'static str> {
    let sorted = part.rows.windows(2).all(|two| two[0].0 < two[1].0);
    let first = part.rows.first().map(|(address, _)| address);
    let last = part.rows.last().map(|(address, _)| address);
    let begins = first.is_none_or(|first| part.after.as_ref().is_none_or(|after| first > after));
    let ends = last.is_none_or(|last| part.upto.as_ref().is_none_or(|upto| last <= upto));
    if sorted && begins && ends { Ok(()) } else { Err("its keys are not those of its span") }
}

impl Writer {
    /// Compares a span of rows with what a peer has said of it.
    pub(crate) fn hear(&mut self, group: &mut Group, mut span: Span) -> Result<(), DataError> {
        if self.plans.load().stamp() != span.by {
            return Err(DataError::Overtaken { retry_after: crate::plane::RETRY_AFTER });
        }
        self.refuse_erased(&mut span);
        // A giver may have been connected to another process without a word, one with another disk even.
        let follows = match (&span.after, self.hearsay.progress.get(&span.from)) {
            (None, _) => true,
            (Some(after), Some((began, upto))) => *began == span.began && after <= upto,
            (Some(_), None) => false,
        };
        if !follows {
            let reason = "it does not follow what was given before";
            return Err(DataError::BadPart { from: span.from, reason });
        }
        let (own, _) = self.store.rows_between(span.after.as_ref(), span.upto.as_ref(), usize::MAX, usize::MAX)?;
        let mut addresses: BTreeSet<Address> = own.into_iter().map(|(address, _)| address).collect();
        let inside = |address: &&Address| {
            span.after.as_ref().is_none_or(|after| *address > after)
                && span.upto.as_ref().is_none_or(|upto| *address <= upto)
        };
        addresses.extend(group.rows.keys().filter(inside).cloned());
        addresses.extend(span.rows.keys().cloned());
        addresses.extend(self.buried_between(group, span.after.as_ref(), span.upto.as_ref())?);
        self.is_ahead(group, &span.vector);
        for address in addresses {
            self.hear_of(group, &span, address)?;
        }
        for (address, given, rule) in span.refused {
            self.supersede(group, &address, &given.sibling, &given.permitted)?;
            group.refusals.add(&rule, 1);
        }
        if let Some(upto) = &span.upto {
            self.hearsay.progress.insert(span.from.clone(), (span.began.clone(), upto.clone()));
        }
        let life = span.began.newest(&span.from);
        if self.hearsay.unfinished.get(&span.from) != Some(&life) {
            self.spread_unfinished(group);
            group.facts.push((format!("{HEARING}{}", span.from), codec::encode(&span.began)));
            self.hearsay.unfinished.insert(span.from.clone(), life);
        }
        // From the first part on: what arrives by the log meanwhile may be long superseded.
        let complete = self.hearsay.heard.get(&span.from).is_some_and(|heard| heard.upto.is_none());
        if let (false, Some(upto)) = (complete, span.upto) {
            let heard = Heard { vector: span.began, partial: span.partial, upto: Some(upto) };
            self.hearsay.heard.insert(span.from, heard);
        }
        Ok(())
    }

    /// What was erased since the gate looked is not let in.
    pub(crate) fn refuse_erased(&self, span: &mut Span) {
        for (address, given) in &mut span.rows {
            let (erased, rest): (Vec<Given>, _) =
                std::mem::take(given).into_iter().partition(|given| self.is_erased(&given.sibling));
            *given = rest;
            span.refused.extend(erased.into_iter().map(|given| (address.clone(), given, erased_rule())));
        }
    }

    /// Compares one key with what a peer has said of it.
    pub(crate) fn hear_of(&mut self, group: &mut Group, span: &Span, address: Address) -> Result<(), DataError> {
        let given = span.rows.get(&address).map_or(&[][..], Vec::as_slice);
        for given in given {
            self.learn(group, given.sibling.scope, &given.permitted);
        }
        self.quieten(group, &address, &|group, dead| {
            let named = given.iter().any(|given| given.sibling.version.dot == dead.version.dot);
            !named && span.vector.covers_dot(&dead.version.dot) && self.would_hold(group, span, dead)
        })?;
        let ours = match given.is_empty() {
            true => self.row(group, &address)?,
            false => self.row_or_grave(group, &address)?,
        };
        let given = self.part_lost(group, &address, given, ours.as_ref())?;
        // Of such a key this region knows nothing any more, whatever it has taken over.
        let wounded = self.is_wounded(group, &address);
        let nothing = PositionVector::new();
        // What another peer has said to be superseded stays so, whoever has not heard of it yet.
        let held = |dot: &Dot| {
            let here = |row: &Row| row.siblings.iter().any(|sibling| sibling.version.dot == *dot);
            ours.as_ref().is_some_and(here)
        };
        let gone = |given: &&Given| {
            let dot = &given.sibling.version.dot;
            // What a marker concerns may still be on its way.
            let passed = || group.vector.has_passed(&given.sibling.version.context);
            let unknown = given.sibling.is_marker() && ours.is_none() && !wounded && passed();
            // A marker may have been passed over before, when nothing was here that it concerns.
            let but = given.sibling.is_marker().then_some(&span.from);
            let gone = || match wounded {
                true => !given.sibling.is_marker() && self.is_said_gone(&address, given, &span.from),
                false => self.hearsay.is_gone(&address, dot, &given.permitted, but),
            };
            unknown || !held(dot) && gone()
        };
        let siblings: Vec<Sibling> =
            given.iter().filter(|given| !gone(given)).map(|given| given.sibling.clone()).collect();
        let would_hold = |sibling: &Sibling| self.would_hold(group, span, sibling);
        let statement = Statement { siblings: &siblings, vector: &span.vector, would_hold: &would_hold };
        let row = replication::reconcile(ours.as_ref(), if wounded { &nothing } else { &group.vector }, &statement);
        let row = self.without_replaced_by_lost(&address, row);
        if ours.as_ref() != Some(&row) && !(ours.is_none() && row.siblings.is_empty()) {
            if let (Some(ours), true) = (&ours, row.siblings.is_empty()) {
                self.lay(group, &address, ours)?;
            }
            for arrived in row.siblings.iter().filter(|sibling| !held(&sibling.version.dot)) {
                self.note_arrival(group, &address, ours.as_ref(), (arrived, &BTreeSet::new()))?;
            }
            let before = self.row(group, &address)?;
            self.close_grave(group, &address, before.as_ref(), &row)?;
            self.note_losses(group, &address, ours.as_ref(), &row)?;
            if !row.siblings.is_empty() {
                self.heal_without_copy(group, &address);
            }
            group.rows.insert(address, (!row.siblings.is_empty()).then_some(row));
        }
        Ok(())
    }

    /// Whether the peer that gives a span would have this write, had nothing superseded it.
    fn would_hold(&self, group: &Group, span: &Span, sibling: &Sibling) -> bool {
        let actor = &sibling.version.dot.actor;
        self.regions_of(group, sibling.scope).contains(&span.from)
            && !span.partial.contains(&(actor.region.clone(), actor.incarnation))
            && !self.faults.makes(Fault::KeepWhatIsGone)
    }

    /// A peer has given all its rows as of `began`: how far this region is by that.
    pub(crate) fn heard_all(&mut self, group: &mut Group, (from, began, partial): (RegionId, PositionVector, Logs)) {
        group.facts.push((format!("{HEARD}{from}"), codec::encode(&began)));
        group.facts.push((format!("{HEARING}{from}"), Vec::new()));
        self.hearsay.unfinished.remove(&from);
        self.hearsay.progress.remove(&from);
        let heard = Heard { vector: began.clone(), partial, upto: None };
        self.hearsay.heard.insert(from.clone(), heard);
        self.hearsay.all.insert(from.clone(), began.clone());
        if self.faults.makes(Fault::AdoptEverything) {
            group.adopted.join(&began);
        }
        for (origin, incarnation, offset) in began.iter().filter(|(origin, ..)| **origin == from) {
            group.adopted.advance(&position(origin, incarnation, offset));
        }
        self.adopt_lost(group);
    }

    /// A peer that began to give rows and has lost its disk before it finished may have left some here that no other
    /// region has, and of which no log tells: they are given to all.
    pub(crate) fn spread_unfinished(&mut self, group: &mut Group) {
        let reached = self.acks.reached();
        let ended = |(peer, life): (&RegionId, &Option<Incarnation>)| {
            let now = reached.get(peer).and_then(|vector| vector.newest(peer));
            (now > *life).then(|| peer.clone())
        };
        let ended: Vec<RegionId> = self.hearsay.unfinished.iter().filter_map(ended).collect();
        for peer in ended {
            self.acks.owe_rows_to_all();
            self.hearsay.unfinished.remove(&peer);
            self.hearsay.heard.retain(|from, heard| *from != peer || heard.upto.is_none());
            group.facts.push((format!("{HEARING}{peer}"), Vec::new()));
        }
    }

    /// Rows of a region that was this far are taken over.
    pub(crate) fn is_ahead(&mut self, group: &mut Group, vector: &PositionVector) {
        let mut ahead = self.hearsay.ahead.beyond(&group.vector);
        ahead.join(&vector.beyond(&group.vector));
        self.keep_ahead(group, ahead);
    }

    fn keep_ahead(&mut self, group: &mut Group, ahead: PositionVector) {
        if self.hearsay.ahead != ahead {
            let fact = if ahead.is_empty() { Vec::new() } else { codec::encode(&ahead) };
            group.facts.push((AHEAD.to_owned(), fact));
            self.hearsay.ahead = ahead;
        }
    }

    /// What came as rows and is in no log: its origin has lost the log since, and no other region has taken it over. Only
    /// this region knows what of it is among its rows, so they are given to all.
    pub(crate) fn spread_ahead(&mut self, group: &mut Group) {
        let reached = self.acks.reached();
        let (mut ahead, mut spread) = (PositionVector::new(), false);
        for (origin, incarnation, end) in self.hearsay.ahead.beyond(&group.vector).iter() {
            let own = *origin == self.me && incarnation < self.store.incarnation();
            let later = |vector: &PositionVector| vector.newest(origin).is_some_and(|life| life > incarnation);
            let has = |vector: &PositionVector| vector.offset(origin, incarnation) >= end;
            let lost = own || *origin != self.me && reached.get(origin).is_none_or(later);
            match lost && !reached.values().any(has) {
                true => spread = true,
                false => ahead.advance(&position(origin, incarnation, end)),
            }
        }
        self.keep_ahead(group, ahead);
        if spread {
            self.acks.owe_rows_to_all();
        }
    }

    /// Passes over what all other regions together do not hold, in logs that their origins have lost.
    pub(crate) fn adopt_lost(&self, group: &mut Group) {
        let mut furthest = PositionVector::new();
        self.hearsay.all.values().for_each(|began| furthest.join(began));
        let reached = self.acks.reached();
        for (origin, incarnation, end) in furthest.beyond(&group.vector).iter() {
            let here = group.vector.offset(origin, incarnation);
            let own = *origin == self.me && incarnation < self.store.incarnation();
            let member = own || reached.contains_key(origin);
            // Whoever knows of the later life takes nothing more from the earlier one.
            let knows =
                |vector: &PositionVector| !member || vector.newest(origin).is_some_and(|life| life > incarnation);
            let lost = own
                || *origin != self.me
                    && reached.get(origin).is_none_or(|v| knows(v) && v.offset(origin, incarnation) < end);
            let spoke = |(peer, vector): (&RegionId, &PositionVector)| match self.hearsay.all.get(peer) {
                Some(began) => knows(began),
                None => vector.offset(origin, incarnation) <= here && knows(vector),
            };
            if lost && reached.iter().all(spoke) {
                tracing::warn!(%origin, life = incarnation.0, from = here, upto = end,
                    "its origin has lost this log; what no other region holds of it is lost");
                group.adopted.advance(&position(origin, incarnation, end));
            }
        }
    }

    /// The value of a refused record stays out, and its key too where it is not known;
    /// that it supersedes what is here holds all the same.
    pub(crate) fn supersede(
        &mut self,
        group: &mut Group,
        address: &Address,
        refused: &Sibling,
        permitted: &BTreeSet<RegionId>,
    ) -> Result<(), DataError> {
        if let Some(row) = self.row(group, address)? {
            self.learn(group, refused.scope, permitted);
            let merged = merge_into(group, address, Some(row.clone()), refused.marker());
            self.close_grave(group, address, Some(&row), &merged)?;
            self.note_losses(group, address, Some(&row), &merged)?;
        }
        self.quieten(group, address, &|_, dead| refused.version.supersedes(&dead.version))
    }

    /// Whether an entry that arrives is known to be superseded.
    pub(crate) fn is_gone(&self, group: &Group, entry: &Entry) -> Result<bool, DataError> {
        if self.is_replaced_by_lost(&entry.address, &entry.sibling.version) {
            return Ok(true);
        }
        // That a wounded key does not have it says nothing.
        if self.hearsay.heard.is_empty() || self.is_wounded(group, &entry.address) {
            return Ok(false);
        }
        let dot = &entry.sibling.version.dot;
        let here = self.row(group, &entry.address)?;
        let held = here.is_some_and(|row| row.siblings.iter().any(|sibling| sibling.version.dot == *dot));
        Ok(!held && self.hearsay.is_gone(&entry.address, dot, &entry.permitted, None))
    }

    /// Forgets what peers said as far as this region has caught up with it.
    pub(crate) fn forget_hearsay(&mut self, group: &mut Group) {
        let vector = &group.vector;
        let done =
            self.hearsay.heard.iter().filter(|(_, heard)| heard.upto.is_none() && vector.includes(&heard.vector));
        let done: Vec<RegionId> = done.map(|(peer, _)| peer.clone()).collect();
        for peer in done {
            group.facts.push((format!("{HEARD}{peer}"), Vec::new()));
            self.hearsay.heard.remove(&peer);
        }
    }
}

fn position(origin: &RegionId, incarnation: Incarnation, offset: u64) -> model::version::LogPosition {
    model::version::LogPosition { origin: origin.clone(), incarnation, offset }
}
