//! Writes of this region's own clients: gated, labelled, encrypted, queued, and waited for until enough regions have them.

use std::collections::BTreeSet;
use std::time::Duration;

use model::record::{Address, Labels, Payload, Record};
use model::replication::{LabelName, LagAction, Strategy};
use model::residency::PermittedRegions;
use model::version::CausalContext;
use model::{RegionId, UnixMillis};
use store::StoreError;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::group::{Change, Durable, NewContent, Permitted};
use crate::merging::labels_of_delete;
use crate::objects::{Cut, is_about_nobody};
use crate::plane::{DataPlane, RETRY_AFTER, Shared};
use crate::plans::Plans;
use crate::screening::screen;
use crate::types::{DataError, NotAll, Write, Written};

/// The duty to encrypt what is stored, as policies name it.
pub(crate) const ENCRYPT_AT_REST: &str = "encrypt-at-rest";
/// How long a write waits for copies in other regions before their number is reported as unknown.
const COPIES_WAIT: Duration = Duration::from_secs(5);
/// How often a write is decided on anew because policies changed meanwhile.
const OVERTAKEN: usize = 3;
/// How long a write waits for what its context names before it is refused.
const CAUSES_WAIT: Duration = Duration::from_secs(2);

/// Who wants a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Somebody.
    Asked,
    /// Nobody: what it deletes has come to its end.
    Over,
}

/// A write that may be queued, and for what is waited then.
struct Ready {
    permitted: Permitted,
    scope: BTreeSet<RegionId>,
    copies: usize,
}

impl DataPlane {
    /// Stores a record or a delete, durably here, and waits for the copies that it asks for.
    ///
    /// # Errors
    /// [`DataError::Barred`] where this region may not hold it, and the others of [`DataError`];
    /// nothing is stored then.
    pub async fn write(&self, write: Write) -> Result<Written, DataError> {
        self.write_because(write, None, Reason::Asked).await
    }

    /// With an object, that is the value.
    pub(crate) async fn write_because(
        &self,
        write: Write,
        object: Option<&Cut>,
        reason: Reason,
    ) -> Result<Written, DataError> {
        let address = write.address.clone();
        for _ in 0..OVERTAKEN {
            match self.write_once(write.clone(), object, reason).await {
                Err(DataError::Overtaken { .. }) => {}
                Err(DataError::Store(error @ StoreError::Corrupt { .. })) => {
                    return Err(self.found_damaged(&address, &error).await?);
                }
                outcome => return outcome,
            }
        }
        self.write_once(write, object, reason).await
    }

    async fn write_once(&self, write: Write, object: Option<&Cut>, reason: Reason) -> Result<Written, DataError> {
        let plans = self.shared.plans.load_full();
        let Ready { permitted, scope, copies } = self.ready(write, object, reason, &plans).await?;
        let (answer, durable) = oneshot::channel();
        self.enqueue(Change::Write(Box::new(permitted), answer)).await?;
        let durable = durable.await.map_err(|_| DataError::Closed)??;
        Ok(self.copies(durable, &scope, copies, Instant::now() + COPIES_WAIT).await)
    }

    /// Stores all of these, in one commit of this region, or none of them. In its log they follow each other in their
    /// order, and that is how other regions take them over: not at once.
    ///
    /// # Errors
    /// [`NotAll`], which names the write that was refused; nothing is stored then.
    pub async fn write_all(&self, writes: Vec<Write>) -> Result<Vec<Written>, NotAll> {
        for _ in 0..OVERTAKEN {
            match self.write_all_once(writes.clone()).await {
                Err(NotAll { error: DataError::Overtaken { .. }, .. }) => {}
                Err(NotAll { at: Some(at), error: DataError::Store(error @ StoreError::Corrupt { .. }) }) => {
                    let found = self.found_damaged(&writes[at].address, &error).await;
                    return Err(NotAll { at: Some(at), error: found.unwrap_or_else(|error| error) });
                }
                outcome => return outcome,
            }
        }
        self.write_all_once(writes).await
    }

    async fn write_all_once(&self, writes: Vec<Write>) -> Result<Vec<Written>, NotAll> {
        let plans = self.shared.plans.load_full();
        let (mut all, mut waits) = (Vec::with_capacity(writes.len()), Vec::with_capacity(writes.len()));
        for (at, write) in writes.into_iter().enumerate() {
            let ready = self.ready(write, None, Reason::Asked, &plans).await;
            let Ready { permitted, scope, copies } = ready.map_err(|error| NotAll { at: Some(at), error })?;
            all.push(permitted);
            waits.push((scope, copies));
        }
        let none = |error| NotAll { at: None, error };
        let (answer, durable) = oneshot::channel();
        self.enqueue(Change::WriteAll(all, answer)).await.map_err(none)?;
        let durable = durable.await.map_err(|_| none(DataError::Closed))??;
        let deadline = Instant::now() + COPIES_WAIT;
        let mut written = Vec::with_capacity(durable.len());
        for (durable, (scope, copies)) in durable.into_iter().zip(&waits) {
            written.push(self.copies(durable, scope, *copies, deadline).await);
        }
        Ok(written)
    }

    /// Decides on a write by these plans.
    async fn ready(
        &self,
        write: Write,
        object: Option<&Cut>,
        reason: Reason,
        plans: &Plans,
    ) -> Result<Ready, DataError> {
        let Shared { me, .. } = &*self.shared;
        let now = self.shared.clock.wall();
        self.takes_writes(&write.address, plans, now)?;
        let strategy = plans.replication.strategy(&write.address.namespace).clone();
        let content = match (&write.value, object) {
            (_, Some(cut)) => NewContent::Live(Record {
                payload: Payload::Object(cut.manifest.clone()),
                content_type: write.content_type.clone(),
                labels: self.labelled(&write, &[], &strategy, now)?,
                generation: plans.generation,
            }),
            (Some(value), None) => NewContent::Live(Record {
                payload: Payload::Plain(value.clone()),
                content_type: write.content_type.clone(),
                labels: self.labelled(&write, value, &strategy, now)?,
                generation: plans.generation,
            }),
            (None, None) => {
                let row = self.shared.store.row(&write.address)?;
                let labels = labels_of_delete(&write.labels, row.as_ref(), &strategy, now);
                NewContent::Tombstone { labels }
            }
        };
        let labels = match &content {
            NewContent::Live(Record { labels, .. }) | NewContent::Tombstone { labels } => labels,
        };
        write.labels.authority.permits(labels)?;
        let regions = plans.residency.permit(labels, me, now).inspect_err(|barred| {
            self.shared.desk.refused(&barred.rule);
        })?;
        let in_scope = regions.regions().len();
        let copies = write.ack.unwrap_or(strategy.ack).copies(in_scope);
        if copies > in_scope {
            return Err(DataError::TooManyCopies { asked: copies, in_scope });
        }
        if let Some(context) = &write.context {
            self.has_caught_up(&write.address, context).await?;
        }
        let content = self.sealed(&write.address, content, object, &regions)?;
        let scope = regions.regions().clone();
        let until = (reason == Reason::Asked).then(|| self.retention_now());
        Ok(Ready { permitted: Permitted { write, content, regions, by: plans.stamp(), until }, scope, copies })
    }

    /// The labels of a value, if they are complete, still to come, and nothing in the value or its key contradicts them.
    fn labelled(&self, write: &Write, value: &[u8], strategy: &Strategy, now: UnixMillis) -> Result<Labels, DataError> {
        if let Some(label) = write.labels.lacks(&strategy.labels.required) {
            let reason = format!("every write to `{}` has to state it", write.address.namespace);
            return Err(DataError::BadLabel { field: label.header(), reason });
        }
        let labels = write.labels.labels(strategy, now);
        if labels.retain_until.is_some_and(|until| until <= now) {
            let reason = "it is over already: such a record would be deleted at once".to_owned();
            return Err(DataError::BadLabel { field: LabelName::RetainUntil.header(), reason });
        }
        // The classes that the audit searches too (LBL-02).
        if is_about_nobody(&labels.classes) {
            for (place, bytes) in [("key", write.address.key.as_str().as_bytes()), ("body", value)] {
                if let Some(found) = screen(bytes) {
                    metrics::counter!("repomind_labels_contradicted_total", "place" => place).increment(1);
                    let classes: Vec<&str> = labels.classes.iter().map(|class| class.as_str()).collect();
                    return Err(DataError::Contradicted { place, found: found.name(), classes: classes.join(", ") });
                }
            }
        }
        Ok(labels)
    }

    /// Encrypts a value that is about a person, or whose policy demands it.
    fn sealed(
        &self,
        address: &Address,
        content: NewContent,
        object: Option<&Cut>,
        regions: &PermittedRegions,
    ) -> Result<NewContent, DataError> {
        let (Some(vault), NewContent::Live(record)) = (&self.shared.vault, &content) else { return Ok(content) };
        let must = self.must_encrypt(&record.labels, regions);
        if let Some(cut) = object {
            let unsearched = !cut.screened && is_about_nobody(&record.labels.classes);
            return match &cut.key {
                _ if unsearched => Err(DataError::Overtaken { retry_after: RETRY_AFTER }),
                Some(key) => Ok(NewContent::Live(vault.seal_object(address, record.clone(), key, regions)?)),
                None if must => Err(DataError::Overtaken { retry_after: RETRY_AFTER }),
                None => Ok(content),
            };
        }
        if must { Ok(NewContent::Live(vault.seal(address, record.clone(), regions)?)) } else { Ok(content) }
    }

    /// Whether a value must be encrypted; never where there are no keys.
    fn must_encrypt(&self, labels: &Labels, regions: &PermittedRegions) -> bool {
        let demanded = || regions.obligations().iter().any(|duty| duty.as_str() == ENCRYPT_AT_REST);
        self.shared.vault.is_some() && (labels.is_personal() || demanded())
    }

    /// Refuses what no write could do at the moment.
    fn takes_writes(&self, address: &Address, plans: &Plans, now: UnixMillis) -> Result<(), DataError> {
        match self.shared.acks.action(&plans.lag, now) {
            LagAction::Throttle => return Err(DataError::Throttled { retry_after: RETRY_AFTER }),
            LagAction::Unready => return Err(DataError::Unready { retry_after: RETRY_AFTER }),
            LagAction::Ok | LagAction::Alert => {}
        }
        self.may_be_written_over(address)?;
        self.not_held(address)
    }

    /// What can be decided about a write before its value has come: its labels, and whether it will be encrypted.
    pub(crate) fn passed(&self, write: &Write, plans: &Plans) -> Result<(Labels, bool), DataError> {
        let now = self.shared.clock.wall();
        self.takes_writes(&write.address, plans, now)?;
        let strategy = plans.replication.strategy(&write.address.namespace);
        let labels = self.labelled(write, &[], strategy, now)?;
        write.labels.authority.permits(&labels)?;
        let regions = plans.residency.permit(&labels, &self.shared.me, now).inspect_err(|barred| {
            self.shared.desk.refused(&barred.rule);
        })?;
        let encrypted = self.must_encrypt(&labels, &regions);
        Ok((labels, encrypted))
    }

    /// Waits until everything that `context` names has come by here, or was superseded here.
    ///
    /// A write that claimed to have seen more than its region could not say which regions hold what
    /// it supersedes.
    pub(crate) async fn has_caught_up(&self, address: &Address, context: &CausalContext) -> Result<(), DataError> {
        let store = &self.shared.store;
        let deadline = Instant::now() + CAUSES_WAIT;
        let mut commits = self.commits();
        loop {
            commits.borrow_and_update();
            if store.vector().has_passed(context)
                || store.row(address)?.is_some_and(|row| row.context().includes(context))
            {
                return Ok(());
            }
            if !matches!(timeout_at(deadline, commits.changed()).await, Ok(Ok(()))) {
                return Err(DataError::Behind { retry_after: RETRY_AFTER });
            }
        }
    }

    async fn copies(&self, durable: Durable, scope: &BTreeSet<RegionId>, asked: usize, deadline: Instant) -> Written {
        let acks = &self.shared.acks;
        let mut changes = acks.changes();
        let waited = timeout_at(deadline, async {
            loop {
                let copies = acks.copies(&durable.position, scope);
                let settled = copies.made >= asked || copies.possible < asked;
                if settled || changes.changed().await.is_err() {
                    return copies;
                }
            }
        });
        let copies = waited.await.unwrap_or_else(|_| acks.copies(&durable.position, scope));
        let Durable { etag, context, .. } = durable;
        Written { etag, context, copies: copies.made, reached: copies.made >= asked, refused_by: copies.refused_by }
    }
}
