//! The conflict log: what lost against a concurrent write, noted in the commit by which it lost.
//!
//! A row keeps concurrent writes beside each other until a later one replaces them. Of those, the strategy of the
//! namespace shows one. Each other one is noted, with what it lost to, as long as it lies beside it; the entry changes
//! where it comes to lose to a later one, and goes where it is shown after all. Where all siblings are shown, they are
//! noted when a write replaces them. So regions that have seen a conflict have the same entries about it, but for when
//! they noted it and by which generation; one that got the replacing write first has seen none.
//!
//! A value is kept as it lay in the row: encrypted, where it was. The entries of a key lose their values where the
//! record leaves this region, and entries about a person go with an erasure ([`DataPlane::carry_out`]). What is shown
//! is judged by the policies in force. A damaged entry is passed over and counted, and stops nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use model::codec;
use model::conflict::{Loss, LossCause, Winner};
use model::question::Resolution;
use model::record::{Address, Payload, Record, Row, Sibling};
use model::replication::ConflictResolution;
use model::sealing::{DataKeyId, Owner};
use model::{Millis, UnixMillis};
use replication::Fold;
use store::{LossChange, LossCount, StoredLoss, loss_key};
use tokio::sync::oneshot;

use crate::group::{Change, Group};
use crate::plane::DataPlane;
use crate::types::{DataError, ETag};
use crate::writer::Writer;

/// How long an entry is kept where no bound of size takes it first: 90 days.
pub const LOSSES_KEPT: Millis = Millis::from_secs(90 * 24 * 3600);
/// The most entries that are looked at by one call, and that are shown at once.
pub const LOSSES_SHOWN: usize = 1000;

/// An entry's change by its key; none where it goes.
pub(crate) type Losses = BTreeMap<Vec<u8>, Option<Loss>>;

/// What became of a conflict that a resolver was asked about.
pub(crate) struct Settlement {
    pub(crate) address: Address,
    /// The state of the key that it is about.
    pub(crate) etag: ETag,
    pub(crate) generation: u64,
    pub(crate) resolution: Resolution,
}

/// Entries of the conflict log, as an operator may see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownLosses {
    /// With the number of each, by which earlier ones are asked for.
    pub losses: Vec<ShownLoss>,
    /// How many there were that are damaged.
    pub damaged: u64,
    /// Whether there may be earlier ones.
    pub more: bool,
}

/// An entry of the conflict log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownLoss {
    /// The greater, the later it was noted.
    pub number: u64,
    /// The entry, without its value.
    pub loss: Loss,
    /// The value, opened, or why it is not shown.
    pub value: Result<Record, String>,
}

fn name_of(sibling: &Sibling) -> String {
    sibling.version.dot.to_string()
}

fn read(stored: &StoredLoss) -> Option<Loss> {
    codec::decode(&stored.envelope)
        .inspect_err(|error| {
            metrics::counter!("repomind_conflict_entries_damaged_total").increment(1);
            tracing::warn!(number = stored.number, %error, "an entry of the conflict log is damaged, and passed over");
        })
        .ok()
}

/// The changes as they are stored.
pub(crate) fn stored_changes(losses: Losses) -> Vec<LossChange> {
    let envelope = |loss: Loss| codec::encode(&loss);
    losses.into_iter().map(|(key, loss)| LossChange { key, envelope: loss.map(envelope) }).collect()
}

impl Writer {
    /// Notes what lost by the change of a row.
    pub(crate) fn note_losses(
        &self,
        group: &mut Group,
        address: &Address,
        before: Option<&Row>,
        after: &Row,
    ) -> Result<(), DataError> {
        let count = |row: &Row| row.siblings.len();
        if after.siblings.iter().any(Sibling::is_marker) {
            let held =
                |marker: &Sibling| before.is_some_and(|row| row.siblings.iter().any(|s| s.version == marker.version));
            if !after.siblings.iter().filter(|sibling| sibling.is_marker()).all(held) {
                self.strip_losses(group, address)?;
            }
        }
        if before.map_or(0, count) < 2 && count(after) < 2 || self.faults.makes(crate::faults::Fault::ForgetLosers) {
            return Ok(());
        }
        let plans = self.plans.load();
        let strategy = plans.replication.strategy(&address.namespace);
        let by = strategy.conflict_resolution.name().to_owned();
        let (winner, cause) = match replication::fold(after, strategy) {
            Fold::Winner(at) => (Some(at), LossCause::Strategy),
            Fold::Ask { meanwhile, .. } => (Some(meanwhile), LossCause::Pending),
            Fold::Siblings => (None, LossCause::Strategy),
        };
        let note = |to: &Sibling, cause| Note {
            to: Winner::of(to),
            by: by.clone(),
            cause,
            generation: plans.generation,
            policy: plans.policy,
            at: self.time.wall(),
        };
        if let Some(winner) = winner.and_then(|at| after.siblings.get(at)) {
            for sibling in &after.siblings {
                match sibling.version.dot == winner.version.dot {
                    true => drop(group.losses.insert(loss_key(address, &name_of(sibling)), None)),
                    false if is_loss(sibling, winner) => self.note(group, address, sibling, note(winner, cause))?,
                    false => {}
                }
            }
            if cause == LossCause::Pending {
                // Whoever reads it asks as well; so one that finds no room is not lost.
                let _ = self.conflicts.try_send(address.clone());
            }
        }
        if strategy.conflict_resolution == ConflictResolution::KeepSiblings {
            let held = |row: &Row, sibling: &Sibling| row.siblings.iter().any(|s| s.version.dot == sibling.version.dot);
            let gone: Vec<&Sibling> =
                before.into_iter().flat_map(|row| &row.siblings).filter(|sibling| !held(after, sibling)).collect();
            for to in after.siblings.iter().filter(|new| !new.is_marker() && !before.is_some_and(|row| held(row, new)))
            {
                let replaced: Vec<&&Sibling> =
                    gone.iter().filter(|old| to.version.supersedes(&old.version) && is_loss(old, to)).collect();
                if replaced.len() > 1 {
                    for sibling in replaced {
                        self.note(group, address, sibling, note(to, LossCause::Settled))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes that a sibling lost, unless that is noted already.
    fn note(&self, group: &mut Group, address: &Address, sibling: &Sibling, note: Note) -> Result<(), DataError> {
        // What was erased is not kept anywhere.
        if self.is_erased(sibling) {
            return Ok(());
        }
        let key = loss_key(address, &name_of(sibling));
        let before = match group.losses.get(&key) {
            Some(change) => change.clone(),
            None => self.store.loss(&key)?.and_then(|bytes| codec::decode::<Loss>(&bytes).ok()),
        };
        if before
            .as_ref()
            .is_some_and(|before| before.to == note.to && before.cause == note.cause && before.by == note.by)
        {
            return Ok(());
        }
        let Note { to, by, cause, generation, policy, at } = note;
        let loss = match before {
            Some(before) => Loss { to, by, cause, generation, policy, ..before },
            None => {
                metrics::counter!("repomind_conflicts_total", "by" => by.clone()).increment(1);
                let payload = sibling.content.record().map(|record| &record.payload);
                let object = payload.and_then(Payload::object).map(model::object::Manifest::digest);
                let stored = payload.map_or(&[][..], |payload| payload.bytes());
                let stored = object.as_ref().map_or(stored, |digest| digest.as_slice());
                let mut loss = Loss {
                    address: address.clone(),
                    lost: sibling.clone(),
                    kept: payload.is_some(),
                    bytes: payload.map_or(0, Payload::value_len),
                    digest: *blake3::keyed_hash(&self.loss_key, stored).as_bytes(),
                    to,
                    by,
                    cause,
                    generation,
                    policy,
                    at,
                };
                if object.is_some() || stored.len() > Loss::VALUE {
                    loss.strip();
                }
                loss
            }
        };
        group.losses.insert(key, Some(loss));
        Ok(())
    }

    /// A record leaves this region: the values of its key in the log go, too.
    pub(crate) fn strip_losses(&self, group: &mut Group, address: &Address) -> Result<(), DataError> {
        for stored in self.store.losses_of(address)? {
            let loss = match group.losses.get(&stored.key) {
                Some(change) => change.clone(),
                None => read(&stored),
            };
            // A damaged one has no value that anybody could read.
            if let Some(mut loss) = loss.filter(|loss| loss.kept) {
                loss.strip();
                group.losses.insert(stored.key, Some(loss));
            }
        }
        for loss in group.losses.values_mut().flatten().filter(|loss| loss.address == *address && loss.kept) {
            loss.strip();
        }
        Ok(())
    }

    /// A resolver has answered, about the state in which the row is, or was.
    pub(crate) fn settled(&self, group: &mut Group, settlement: Settlement) -> Result<(), DataError> {
        let Settlement { address, etag, generation, resolution } = settlement;
        let Some(row) = self.row(group, &address)?.filter(|row| ETag::of(row) == etag) else { return Ok(()) };
        let plans = self.plans.load();
        let by = plans.replication.strategy(&address.namespace).conflict_resolution.name().to_owned();
        if plans.generation != generation {
            return Ok(());
        }
        let (to, cause) = match resolution {
            Resolution::Winner(at) => (row.siblings.get(at as usize), LossCause::Resolver),
            Resolution::Merged(_) => (row.siblings.get(replication::last_write(&row.siblings)), LossCause::Merged),
            Resolution::Keep => (None, LossCause::Resolver),
        };
        for sibling in &row.siblings {
            let wins = to.is_none_or(|to| to.version.dot == sibling.version.dot && cause == LossCause::Resolver);
            match to.filter(|_| !wins) {
                None => drop(group.losses.insert(loss_key(&address, &name_of(sibling)), None)),
                Some(to) if is_loss(sibling, to) => {
                    let (to, policy, at) = (Winner::of(to), plans.policy, self.time.wall());
                    let note = Note { to, by: by.clone(), cause, generation, policy, at };
                    self.note(group, &address, sibling, note)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// What a new entry says besides what lost.
struct Note {
    to: Winner,
    by: String,
    cause: LossCause,
    generation: u64,
    policy: Option<model::bundle::TreeHash>,
    at: UnixMillis,
}

/// Whether something is lost by that: of two deletes, nothing is, and a record that lives elsewhere is not known here.
fn is_loss(sibling: &Sibling, to: &Sibling) -> bool {
    !sibling.is_marker() && (sibling.content.record().is_some() || to.content.record().is_some())
}

impl DataPlane {
    /// How large the conflict log is.
    pub fn loss_count(&self) -> LossCount {
        self.shared.store.loss_count()
    }

    /// Entries of the conflict log: those of a key, the oldest first, or the newest of all before `before`, the newest
    /// first; at most [`LOSSES_SHOWN`]. With their values, where `values` says so.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn losses(
        &self,
        of: Option<&Address>,
        before: Option<u64>,
        limit: usize,
        values: bool,
    ) -> Result<ShownLosses, DataError> {
        let limit = limit.min(LOSSES_SHOWN);
        let stored = match of {
            Some(address) => self.shared.store.losses_of(address)?,
            None => self.shared.store.losses_before(before, limit)?,
        };
        let more = of.is_none() && stored.len() == limit;
        let mut shown = ShownLosses { more, ..ShownLosses::default() };
        for stored in stored {
            let Some(mut loss) = read(&stored) else {
                shown.damaged += 1;
                continue;
            };
            let value = if values { self.lost_value(&loss) } else { Err("it was not asked for".to_owned()) };
            let kept = loss.kept;
            loss.strip();
            loss.kept = kept;
            shown.losses.push(ShownLoss { number: stored.number, loss, value });
        }
        Ok(shown)
    }

    fn lost_value(&self, loss: &Loss) -> Result<Record, String> {
        let record = loss.lost.content.record().ok_or("it was a delete")?;
        if !loss.kept {
            return Err(format!("it is not kept: it had {} bytes, or the record has left this region", loss.bytes));
        }
        let now = self.shared.clock.wall();
        if record.labels.retain_until.is_some_and(|until| until <= now) {
            return Err("the time for which it may be kept is over".to_owned());
        }
        let plans = self.shared.plans.load();
        let lawful = plans.residency.permit_in(&record.labels, &self.shared.me, now);
        lawful.map_err(|barred| barred.to_string())?;
        self.opened(&loss.address, record).map_err(|error| error.to_string())
    }

    /// Has resolvers asked about conflicts as they arise, so that the log says what they decided and readers need not
    /// wait. Ends when the region does.
    pub async fn keep_resolving(&self) {
        let Some(mut conflicts) = self.shared.conflicts.lock().expect("nothing panics while it holds the lock").take()
        else {
            return;
        };
        while let Some(address) = conflicts.recv().await {
            // The answer is kept; an error is told to whoever reads the record.
            let _ = self.read(&address).await;
        }
    }

    /// Takes what the log has of a person out of it: entries about the person, and those that nobody can open any more.
    pub(crate) async fn erase_losses(&self, owner: Owner) -> Result<(), DataError> {
        let mut before = None;
        loop {
            let stored = self.shared.store.losses_before(before, LOSSES_SHOWN)?;
            let Some(last) = stored.last() else { return Ok(()) };
            before = Some(last.number);
            let gone = |stored: &StoredLoss| match codec::decode::<Loss>(&stored.envelope) {
                Ok(loss) => self.concerns(&loss.lost, owner) || !self.is_there_at_all(&loss.lost),
                // Whom it is about cannot be told.
                Err(_) => true,
            };
            self.drop_losses(stored.into_iter().filter(gone).map(|stored| stored.key).collect()).await?;
        }
    }

    async fn drop_losses(&self, keys: Vec<Vec<u8>>) -> Result<(), DataError> {
        if keys.is_empty() {
            return Ok(());
        }
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::DropLosses(keys, answer)).await?;
        done.await.map_err(|_| DataError::Closed)?
    }

    fn is_there_at_all(&self, sibling: &Sibling) -> bool {
        let fate = |record: &Record| self.shared.vault.as_ref().map(|vault| vault.fate_of(record));
        sibling.content.record().is_none_or(|record| fate(record) != Some(crate::vault::Fate::Gone))
    }

    /// Lost values about a person that are still kept here.
    pub(crate) fn lost_of(&self, owner: Owner) -> Result<Vec<Loss>, DataError> {
        let (mut before, mut found) = (None, Vec::new());
        loop {
            let stored = self.shared.store.losses_before(before, LOSSES_SHOWN)?;
            let Some(last) = stored.last() else { return Ok(found) };
            before = Some(last.number);
            let losses = stored.iter().filter_map(read);
            found.extend(losses.filter(|loss| loss.kept && self.concerns(&loss.lost, owner)));
        }
    }

    /// The keys of lost values that are kept here and may be here by the policies in force.
    pub(crate) fn keys_of_losses(&self) -> Result<HashSet<DataKeyId>, DataError> {
        let (plans, now) = (self.shared.plans.load_full(), self.shared.clock.wall());
        let (mut before, mut keys) = (None, HashSet::new());
        loop {
            let stored = self.shared.store.losses_before(before, LOSSES_SHOWN)?;
            let Some(last) = stored.last() else { return Ok(keys) };
            before = Some(last.number);
            for loss in stored.iter().filter_map(read).filter(|loss| loss.kept) {
                let Some(record) = loss.lost.content.record() else { continue };
                let Some(id) = record.payload.data_key() else { continue };
                if plans.residency.permit_in(&record.labels, &self.shared.me, now).is_ok() {
                    keys.insert(id);
                }
            }
        }
    }

    /// Drops entries about what may not be here by the policies in force, once for each plan.
    async fn drop_barred_losses(&self) -> Result<(), DataError> {
        let plans = self.shared.plans.load_full();
        let seen = self.shared.losses_judged.swap(plans.generation, Ordering::AcqRel);
        if seen == plans.generation {
            return Ok(());
        }
        let (now, mut before) = (self.shared.clock.wall(), None);
        loop {
            let stored = self.shared.store.losses_before(before, LOSSES_SHOWN)?;
            let Some(last) = stored.last() else { return Ok(()) };
            before = Some(last.number);
            let barred = |stored: &StoredLoss| {
                let loss = codec::decode::<Loss>(&stored.envelope).ok();
                let labels = loss.as_ref().and_then(|loss| loss.lost.content.labels());
                labels.is_some_and(|labels| plans.residency.permit_in(labels, &self.shared.me, now).is_err())
            };
            self.drop_losses(stored.into_iter().filter(barred).map(|stored| stored.key).collect()).await?;
        }
    }

    /// Drops entries that are older than [`LOSSES_KEPT`], and those of what may not be here any more.
    pub(crate) async fn forget_losses(&self) -> Result<(), DataError> {
        self.drop_barred_losses().await?;
        let until = UnixMillis(self.shared.clock.wall().0.saturating_sub(LOSSES_KEPT.0));
        let old = |stored: &StoredLoss| codec::decode::<Loss>(&stored.envelope).is_ok_and(|loss| loss.at < until);
        let first = self.shared.store.first_losses(LOSSES_SHOWN)?;
        self.drop_losses(first.into_iter().filter(old).map(|stored| stored.key).collect()).await
    }
}
