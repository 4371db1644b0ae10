//! Records whose time is over: found, and deleted by a delete like any other.
//!
//! A record goes when its own `Repomind-Retain-Until` has passed, or the days for which its namespace keeps its class, whichever
//! comes first. One that a hold keeps stays. The region that wrote it deletes it; the others of its scope do
//! so one after the other where it has not, because that region may be gone.
//!
//! The delete is stamped like what it deletes, not with the time: a write that another region made meanwhile wins over it,
//! as it would have won over the record, also where it is stamped just after the record because a clock is slow. From the moment on at which a record is over it is shown nowhere, whether
//! or not a region has deleted it, and a write finds no record in its place.
//!
//! **Time** here runs by the monotonic clock and follows the wall clock forward: a wall clock that is set back lets nothing
//! stay longer, and one that is more than [`JUMP`] ahead is not believed before it has been so for [`DOUBT`], because a
//! delete cannot be taken back. How far time is outlives a restart.
//!
//! The earliest expiry that is known is kept beside the writer, so that rows are read only when one is due.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use compliance::ledger::LedgerEvent;
use model::record::{Address, Row};
use model::replication::{AckLevel, LabelRules, ReplicationPlan};
use model::{Millis, Mono, RegionId, RuleId, UnixMillis};
use store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::faults::Fault;
use crate::group::Change;
use crate::plane::DataPlane;
use crate::types::{DataError, ETag, LabelClaims, Write};
use crate::writing::Reason;

/// A wall clock this much ahead of where it should be is doubted.
pub const JUMP: Millis = Millis::from_secs(3600);
/// For so long.
pub const DOUBT: Millis = Millis::from_secs(3600);
/// The fact that says how far time is.
const CLOCK: &str = "retention-clock";
/// Rows that are looked at in one go.
const ROWS: usize = 1024;
/// Bytes of them.
const ROWS_BYTES: usize = 1 << 20;
/// For how long each region of a scope waits for the one before it to delete.
const TURN: Millis = Millis::from_secs(600);

/// The time by which records expire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetentionClock {
    at: UnixMillis,
    read: Mono,
    /// Since when the wall clock is ahead.
    doubted: Option<Mono>,
}

impl RetentionClock {
    /// Goes on where it was kept, if it was.
    pub(crate) fn open(store: &Store, wall: UnixMillis, now: Mono) -> Result<Self, StoreError> {
        let kept = store.meta(CLOCK)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        Ok(Self { at: kept.map_or(wall, UnixMillis), read: now, doubted: None })
    }

    fn follow(&mut self, wall: UnixMillis, now: Mono) -> UnixMillis {
        let expected = self.at + (now - self.read);
        self.read = now;
        self.at = if wall <= expected {
            self.doubted = None;
            expected
        } else if wall <= expected + JUMP {
            self.doubted = None;
            wall
        } else {
            let since = *self.doubted.get_or_insert_with(|| {
                tracing::warn!(
                    hours = (wall - expected).0 / 3_600_000,
                    "the clock is ahead of where it should be: for an hour nothing expires by it"
                );
                now
            });
            if now - since >= DOUBT { wall } else { expected }
        };
        self.at
    }
}

/// A record whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Its key.
    pub address: Address,
    /// By which rule: `retain-until` or `retention-of-CLASS`.
    pub rule: RuleId,
    etag: ETag,
}

/// What was found in a span of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overdue {
    /// The last key; none where the last row was seen.
    pub next: Option<Address>,
    /// What this region is to delete now.
    pub expired: Vec<Expired>,
    /// How many are over and held, or another region's turn.
    pub waiting: u64,
    /// When the next one will be over.
    pub soonest: Option<UnixMillis>,
}

impl DataPlane {
    /// The time by which records expire.
    pub fn retention_now(&self) -> UnixMillis {
        let (wall, now) = (self.shared.clock.wall(), self.shared.clock.monotonic());
        self.shared.retention.lock().expect("nothing panics while it holds the lock").follow(wall, now)
    }

    /// Whether something may be over: takes note that it is looked for, so that what is written meanwhile counts anew.
    pub fn begin_expiring(&self) -> bool {
        let now = self.retention_now();
        if self.shared.soonest.load(Ordering::Acquire) > now.0 {
            return false;
        }
        self.shared.soonest.store(u64::MAX, Ordering::Release);
        true
    }

    /// The look has ended: the next one is due when this is, or what was written meanwhile.
    pub fn look_again_at(&self, soonest: UnixMillis) {
        self.shared.soonest.fetch_min(soonest.0, Ordering::AcqRel);
    }

    /// Looks through the rows after a key. Reads from disk.
    ///
    /// # Errors
    /// Those of the disk, and damaged rows.
    pub fn expired_after(&self, after: Option<&Address>) -> Result<Overdue, DataError> {
        let (plans, now, me) = (self.shared.plans.load_full(), self.retention_now(), &self.shared.me);
        let rows = self.shared.store.rows_between(after, None, ROWS, ROWS_BYTES);
        let (rows, more) = self.suspecting(rows.map_err(DataError::from))?;
        let mut overdue =
            Overdue { next: rows.last().filter(|_| more).map(|(address, _)| address.clone()), ..Overdue::default() };
        for (address, row) in rows {
            let rules = &plans.replication.strategy(&address.namespace).labels;
            let live = || row.siblings.iter().filter_map(|sibling| Some((sibling, sibling.content.record()?)));
            let Some((at, rule)) = row_expiry(rules, &row) else { continue };
            let soonest = |overdue: &mut Overdue, at: UnixMillis| {
                overdue.soonest = Some(overdue.soonest.map_or(at, |soonest| soonest.min(at)));
            };
            if at > now {
                soonest(&mut overdue, at);
                continue;
            }
            if live().any(|(_, record)| self.is_held(&record.labels)) {
                overdue.waiting += 1;
                soonest(&mut overdue, now + TURN);
                continue;
            }
            let turn = live().map(|(sibling, _)| self.turn(me, sibling)).min().unwrap_or(0);
            let due = at + Millis(TURN.0.saturating_mul(turn));
            if due > now {
                overdue.waiting += 1;
                soonest(&mut overdue, due);
                continue;
            }
            overdue.expired.push(Expired { address, rule, etag: ETag::of(&row) });
        }
        Ok(overdue)
    }

    /// Whether a row is over and nobody holds it: then it is shown to nobody, also where it has not been deleted yet.
    pub(crate) fn is_over(&self, rules: &LabelRules, row: &Row) -> bool {
        let mut live = row.siblings.iter().filter_map(|sibling| sibling.content.record());
        !self.shared.faults.makes(Fault::ShowExpired)
            && row_expiry(rules, row).is_some_and(|(at, _)| at <= self.retention_now())
            && !live.any(|record| self.is_held(&record.labels))
    }

    /// After how many others it is this region's turn to delete a write.
    fn turn(&self, me: &RegionId, sibling: &model::record::Sibling) -> u64 {
        let origin = &sibling.version.dot.actor.region;
        if origin == me {
            return 0;
        }
        let scope = self.shared.scopes.regions(sibling.scope).unwrap_or_default();
        1 + scope.iter().filter(|region| *region != origin).position(|region| region == me).unwrap_or(0) as u64
    }

    /// Deletes records whose time is over, unless they changed since, and notes in the ledger how many by which rule. Gives
    /// how many that were.
    ///
    /// # Errors
    /// Those of disk and store.
    pub async fn expire(&self, expired: Vec<Expired>) -> Result<u64, DataError> {
        let mut gone = BTreeMap::<RuleId, u32>::new();
        for Expired { address, rule, etag } in expired {
            let row = self.shared.store.row(&address)?;
            let labels = row.iter().flat_map(|row| &row.siblings).find_map(|sibling| sibling.content.record());
            let Some(labels) = labels.map(|record| &record.labels) else { continue };
            let claims = LabelClaims {
                jurisdictions: Some(labels.jurisdictions.clone()),
                classes: Some(labels.classes.clone()),
                purpose: Some(labels.purpose),
                basis: Some(labels.basis),
                collected_at: Some(labels.collected_at),
                ..LabelClaims::default()
            };
            let delete = Write {
                address,
                value: None,
                content_type: String::new(),
                labels: claims,
                if_match: Some(etag.into()),
                if_none_match: false,
                context: None,
                ack: Some(AckLevel::LOCAL),
            };
            match self.write_because(delete, None, Reason::Over).await {
                Ok(_) => *gone.entry(rule).or_default() += 1,
                // Changed since, held since, or barred here: it is looked at again.
                Err(
                    DataError::PreconditionFailed
                    | DataError::Held
                    | DataError::Barred(_)
                    | DataError::Elsewhere { .. },
                ) => {}
                Err(error @ (DataError::Throttled { .. } | DataError::Unready { .. })) => {
                    tracing::debug!(%error, "records whose time is over are deleted later");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let count = gone.values().map(|count| u64::from(*count)).sum();
        for (rule, count) in gone {
            metrics::counter!("repomind_expired_total", "rule" => rule.to_string()).increment(u64::from(count));
            let (answer, durable) = oneshot::channel();
            self.wait_in_line(Change::Event(LedgerEvent::Expired { rule, count }, answer)).await?;
            durable.await.map_err(|_| DataError::Closed)??;
        }
        Ok(count)
    }

    /// Keeps how far time is.
    ///
    /// # Errors
    /// [`DataError::Closed`].
    pub async fn keep_retention_clock(&self) -> Result<(), DataError> {
        let now = self.retention_now();
        self.keep_facts(vec![(CLOCK.to_owned(), now.0.to_le_bytes().to_vec())]).await
    }
}

/// When all that is alive in a row is over, and by which rule; nothing where nothing is alive, or something has no end:
/// what stands beside something that is to stay has to wait for it.
pub(crate) fn row_expiry(rules: &LabelRules, row: &Row) -> Option<(UnixMillis, RuleId)> {
    let live = row.siblings.iter().filter_map(|sibling| sibling.content.record());
    let expiries: Option<Vec<_>> = live.map(|record| rules.expiry(&record.labels)).collect();
    expiries?.into_iter().max()
}

/// Takes note of when what is in a row will be over.
pub(crate) fn note_expiry(soonest: &AtomicU64, plan: &ReplicationPlan, address: &Address, row: &Row) {
    let rules = &plan.strategy(&address.namespace).labels;
    let records = row.siblings.iter().filter_map(|sibling| sibling.content.record());
    if let Some((at, _)) = records.filter_map(|record| rules.expiry(&record.labels)).min() {
        soonest.fetch_min(at.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_keeps_nothing_and_one_that_leaps_ahead_deletes_nothing_at_once() {
        let hours = |count: u64| count * 3_600_000;
        let mut clock = RetentionClock { at: UnixMillis(hours(1000)), read: Mono(0), doubted: None };
        let mut at = |wall: u64, mono: u64| clock.follow(UnixMillis(wall), Mono(mono)).0;
        assert_eq!(at(hours(1000) + 5, 4), hours(1000) + 5);
        assert_eq!(at(hours(10), 1004), hours(1000) + 1005, "it went back with the wall clock");
        assert_eq!(at(hours(5000), 2004), hours(1000) + 2005, "it leapt with the wall clock");
        assert_eq!(at(hours(5000) + 1000, 3004), hours(1000) + 3005);
        assert_eq!(at(hours(5001), 2004 + hours(1)), hours(5001), "it is doubted for ever");
    }
}
