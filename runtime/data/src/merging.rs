//! What a write of this region's own clients comes to among the rows: the writer's part of it.

use std::collections::BTreeSet;

use model::record::{Address, Content, Entry, LanePriority, Record, Row, Shipment, Sibling};
use model::residency::{PermittedRegions, ScopeId};
use model::version::{Actor, CausalContext, Dot, LogPosition, Version};
use model::{Hlc, Millis, NodeId, RegionId, UnixMillis};

use crate::expiring::row_expiry;
use crate::faults::Fault;
use crate::group::{Durable, Group, NewContent, Permitted};
use crate::types::{DataError, ETag, LabelClaims, NotAll, Write};
use crate::vault::{Fate, VaultError};
use crate::writer::Writer;

/// No clock runs while the process is down; a wall clock that stands this much further at the first write
/// afterwards is believed, and one beyond it counts as a jump.
const LONGEST_STOP: Millis = Millis::from_secs(24 * 3600);
/// Writes of a key that may lie beside each other before one is refused that replaces none of them.
pub(crate) const SIBLINGS: usize = 64;

impl Writer {
    /// All of these writes, or none: the group holds them alone so far and is thrown away where one is refused.
    pub(crate) fn write_all(&mut self, group: &mut Group, all: Vec<Permitted>) -> Result<Vec<Durable>, NotAll> {
        let mut durable = Vec::with_capacity(all.len());
        for (at, permitted) in all.into_iter().enumerate() {
            let written = self.write(group, permitted);
            durable.push(written.map_err(|error| NotAll { at: Some(at), error })?);
        }
        Ok(durable)
    }

    pub(crate) fn write(&mut self, group: &mut Group, permitted: Permitted) -> Result<Durable, DataError> {
        let Permitted { write, content, regions, by, until } = permitted;
        if self.plans.load().stamp() != by {
            return Err(DataError::Overtaken { retry_after: crate::plane::RETRY_AFTER });
        }
        let over = self.over_wound(group, &write.address)?;
        let row = self.row(group, &write.address)?;
        let grave = match &row {
            Some(_) => None,
            None => self.graves_of(group, &write.address)?,
        };
        let lost = self.lost(group, &write.address);
        let mut context = self.context_of(group, &write, row.as_ref(), &regions)?;
        if let Some(lost) = &lost {
            context.join(&self.seen(group, lost));
        }
        match (&row, &grave) {
            (Some(row), _) => context.join(&self.tombstones(group, row, &context)),
            (None, Some(grave)) => context.join(&self.seen(group, grave)),
            (None, None) => {}
        }
        if let Some(over) = &over {
            context.join(over);
        }
        if !self.faults.makes(Fault::IgnoreCondition) {
            check_preconditions(&write, row.as_ref().filter(|row| !self.is_over(&write.address, row, until)))?;
        }
        let beside =
            row.iter().flat_map(|row| &row.siblings).filter(|other| !context.covers(&other.version.dot)).count();
        if beside >= SIBLINGS {
            return Err(DataError::TooManySiblings { most: SIBLINGS });
        }
        if !write.labels.authority.relabel {
            self.not_loosened(row.as_ref(), &content, &regions)?;
        }
        // Other regions may still have among their rows what is buried here.
        let evicted = self.evicted(group, row.iter().chain(&grave), &context, &regions);
        let above = row
            .iter()
            .chain(&grave)
            .chain(&lost)
            .flat_map(|row| &row.siblings)
            .map(|sibling| sibling.version.hlc)
            .max();
        let (now, reading) = (self.time.wall(), self.time.monotonic());
        let elapsed = self.stamped.replace(reading).map_or(LONGEST_STOP, |before| reading - before);
        let above = above.unwrap_or(Hlc::ZERO);
        let hlc = match until {
            // That a time is over is no word of anybody. Whatever was written over the same record elsewhere wins over
            // that: it is stamped later than the record, and this is not. Nor later than what lies beside the record.
            None if !self.faults.makes(Fault::ExpireLikeAWrite) => {
                let siblings = row.iter().flat_map(|row| &row.siblings);
                let live = siblings.filter(|sibling| sibling.content.record().is_some());
                live.map(|sibling| sibling.version.hlc).max().unwrap_or(above)
            }
            _ => self.clock.stamp(now, elapsed, above),
        };
        let incarnation = self.store.incarnation();
        let offset = group.vector.offset(&self.me, incarnation) + 1;
        let actor = Actor { region: self.me.clone(), node: NodeId(0), incarnation };
        let version = Version { dot: Dot { actor, counter: offset }, hlc, context };
        let content = match content {
            // Destroyed since it was encrypted.
            NewContent::Live(record) if self.fate_of(&record) != Fate::Here => return Err(VaultError::Erased.into()),
            NewContent::Live(record) => Content::Live(record),
            NewContent::Tombstone { labels } => Content::Tombstone { labels },
        };
        let sibling = Sibling { version, scope: regions.scope(), content };
        let merged = replication::merge(row.clone(), sibling.clone());
        self.within_quota(group, &write.address, row.as_ref(), &merged)?;
        self.note_moved(group, &write.address, &sibling.version, &evicted)?;
        let position = LogPosition { origin: self.me.clone(), incarnation, offset };
        group.vector.advance(&position);
        self.learn(group, regions.scope(), regions.regions());
        group.log.push(Shipment::Entry(Box::new(Entry {
            position: position.clone(),
            address: write.address.clone(),
            sibling,
            permitted: regions.regions().clone(),
            evicted,
            priority: LanePriority::default(),
            committed_at: now,
        })));
        self.close_grave(group, &write.address, row.as_ref(), &merged)?;
        self.note_losses(group, &write.address, row.as_ref(), &merged)?;
        if over.is_some() {
            self.heal(group, &write.address);
        }
        let durable = Durable { position, etag: ETag::of(&merged), context: merged.context() };
        group.rows.insert(write.address, Some(merged));
        Ok(durable)
    }

    /// Refuses labels by which a record could be where those that it has do not let it be.
    fn not_loosened(
        &self,
        row: Option<&Row>,
        content: &NewContent,
        regions: &PermittedRegions,
    ) -> Result<(), DataError> {
        let (NewContent::Live(Record { labels, .. }) | NewContent::Tombstone { labels }) = content;
        let (plans, now) = (self.plans.load(), self.time.wall());
        let replaced = row.into_iter().flat_map(|row| &row.siblings).filter_map(|sibling| sibling.content.record());
        for before in replaced.map(|record| &record.labels).filter(|before| *before != labels) {
            let barred = |region: &&RegionId| plans.residency.permit_in(before, region, now).is_err();
            if let Some(region) = regions.regions().iter().find(barred) {
                return Err(DataError::Loosened { region: region.clone() });
            }
        }
        Ok(())
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
        let all_hold = |sibling: &Sibling| self.all_hold(group, sibling);
        let Some(here) = replication::replaceable(row, &self.acks.stable(), &all_hold) else {
            let markers = row.siblings.iter().filter(|sibling| sibling.is_marker());
            let regions = markers.flat_map(|marker| self.regions_of(group, marker.lives_in())).collect();
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
    fn evicted<'r>(
        &self,
        group: &Group,
        rows: impl Iterator<Item = &'r Row>,
        context: &CausalContext,
        regions: &PermittedRegions,
    ) -> BTreeSet<RegionId> {
        let superseded = rows.flat_map(|row| &row.siblings).filter(|sibling| context.covers(&sibling.version.dot));
        superseded
            .flat_map(|sibling| self.regions_of(group, sibling.scope))
            .filter(|region| !regions.contains(region))
            .collect()
    }

    pub(crate) fn regions_of(&self, group: &Group, scope: ScopeId) -> BTreeSet<RegionId> {
        group.scopes.get(&scope).cloned().or_else(|| self.scopes.regions(scope)).unwrap_or_default()
    }

    /// Notes the regions of a scope that is seen for the first time.
    pub(crate) fn learn(&self, group: &mut Group, scope: ScopeId, regions: &BTreeSet<RegionId>) {
        if !self.scopes.knows(scope) {
            group.scopes.entry(scope).or_insert_with(|| regions.clone());
        }
    }
    /// Whether all that is alive in a row has come to its end at `now`.
    fn is_over(&self, address: &Address, row: &Row, now: Option<UnixMillis>) -> bool {
        let plans = self.plans.load();
        let rules = &plans.replication.strategy(&address.namespace).labels;
        now.is_some_and(|now| row_expiry(rules, row).is_some_and(|(at, _)| at <= now))
    }
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
    strategy: &model::replication::Strategy,
    now: UnixMillis,
) -> model::record::Labels {
    let labelled = row.iter().flat_map(|row| &row.siblings).filter(|sibling| !sibling.is_marker());
    let last = labelled.max_by(|left, right| left.version.lww_order().cmp(&right.version.lww_order()));
    let kept = last.and_then(|sibling| sibling.content.labels().cloned());
    match kept {
        // A delete is about nobody: whom the record was about is not kept longer than the record.
        Some(labels) if claims.is_empty() => model::record::Labels { subject: None, ..labels },
        _ => claims.labels(strategy, now),
    }
}
