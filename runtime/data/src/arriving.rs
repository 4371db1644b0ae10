//! Entries of logs that arrive: what becomes of them, and of the rows that they concern.

use model::RegionId;
use model::record::{Address, Entry, Row, Shipment, Sibling};
use model::version::LogPosition;

use crate::faults::Fault;
use crate::group::{Arrival, Arrivals, Group, Taken};
use crate::plans::Plans;
use crate::shipping::erased_rule;
use crate::types::{DataError, Received};
use crate::writer::Writer;

impl Writer {
    /// Takes over what arrived up to the first gap; what was taken over before is passed over.
    pub(crate) fn receive(
        &mut self,
        group: &mut Group,
        from: &RegionId,
        Arrivals { by, all }: Arrivals,
    ) -> Result<Taken, DataError> {
        let mut taken = Taken::default();
        // What another plan has let in is decided on by the one in force.
        let plans = Some(self.plans.load_full()).filter(|plans| plans.stamp() != by);
        for arrival in all {
            let arrival = self.judged_again(arrival, plans.as_deref());
            let position = arrival.position().clone();
            let known = group.vector.covers(&position);
            if !known && !group.vector.is_next(&position) {
                break;
            }
            // What is refused now may have been taken earlier, and the other way round: the log knows. It does not
            // where the position came with rows; then what is not let in now is taken for no copy.
            let now = matches!(arrival, Arrival::Refuse(..));
            let refused = position.origin == *from
                && if known { self.was_refused(group, &position)?.unwrap_or(now) } else { now };
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

    /// What arrived, unless its key was destroyed since the gate looked, or other plans are in force.
    fn judged_again(&self, arrival: Arrival, plans: Option<&Plans>) -> Arrival {
        let Arrival::Take(Shipment::Entry(entry)) = arrival else { return arrival };
        let now = self.time.wall();
        let barred = plans.zip(entry.sibling.content.labels()).and_then(|(plans, labels)| {
            plans.residency.permit_arrival(labels, &entry.position.origin, &self.me, now).err()
        });
        match barred.or_else(|| self.is_erased(&entry.sibling).then(erased_rule)) {
            Some(rule) => Arrival::Refuse(entry, rule),
            None => Arrival::Take(Shipment::Entry(entry)),
        }
    }

    /// Whether an entry that was taken over was refused; nothing where the log here does not have it.
    fn was_refused(&self, group: &Group, position: &LogPosition) -> Result<Option<bool>, DataError> {
        let stored = self.store.shipment(position)?;
        let shipment = stored.as_ref().or_else(|| group.log.iter().find(|shipment| shipment.position() == position));
        Ok(shipment.map(|shipment| matches!(shipment, Shipment::Refused { .. })))
    }

    /// What is to be logged for an arrival that is the next of its log.
    fn settle_arrival(&mut self, group: &mut Group, arrival: Arrival) -> Result<Shipment, DataError> {
        match arrival {
            Arrival::Take(Shipment::Entry(entry)) => self.take(group, entry),
            Arrival::Take(other) => Ok(other),
            Arrival::Refuse(entry, rule) => {
                self.supersede(group, &entry.address, &entry.sibling, &entry.permitted)?;
                group.refusals.add(&rule, 1);
                self.is_partial(group, &entry.position);
                Ok(Shipment::Refused { position: entry.position, committed_at: entry.committed_at, rule })
            }
        }
    }

    /// Notes that this region does not hold all entries of a log that it has taken over.
    pub(crate) fn is_partial(&self, group: &mut Group, position: &LogPosition) {
        let mut partial = self.partial.write().expect("nothing panics while it holds the lock");
        if partial.insert((position.origin.clone(), position.incarnation)) {
            group.facts.push(crate::hearing::partial_fact(&partial));
        }
    }

    /// Merges an entry, and gives what is to be logged. A marker is taken only where the key is known,
    /// or may still be on its way: another region's log may bring what the marker supersedes later.
    fn take(&mut self, group: &mut Group, entry: Box<Entry>) -> Result<Shipment, DataError> {
        let row = self.row(group, &entry.address)?;
        let (version, address) = (&entry.sibling.version, &entry.address);
        if entry.sibling.is_marker()
            && row.is_none()
            && !self.is_wounded(group, address)
            && group.vector.has_passed(&version.context)
        {
            self.quieten(group, address, &|_, dead| version.supersedes(&dead.version))?;
            return Ok(Shipment::Skip { position: entry.position, committed_at: entry.committed_at });
        }
        if self.is_gone(group, &entry)? {
            self.quieten(group, address, &|_, dead| version.supersedes(&dead.version))?;
            if let Some(row) = row {
                let left = replication::without_superseded(&row, &entry.sibling.version);
                self.note_losses(group, &entry.address, Some(&row), &left)?;
                group.rows.insert(entry.address, (!left.siblings.is_empty()).then_some(left));
            }
            return Ok(Shipment::Skip { position: entry.position, committed_at: entry.committed_at });
        }
        let before = row;
        let row = match entry.sibling.is_marker() {
            true => before.clone(),
            false => self.row_or_grave(group, &entry.address)?,
        };
        self.learn(group, entry.sibling.scope, &entry.permitted);
        self.note_arrival(group, &entry.address, row.as_ref(), (&entry.sibling, &entry.evicted))?;
        if self.faults.makes(Fault::LastArrivalWins) {
            group.rows.insert(entry.address.clone(), Some(Row { siblings: vec![entry.sibling.clone()] }));
            return Ok(Shipment::Entry(entry));
        }
        let merged = merge_into(group, &entry.address, row.clone(), entry.sibling.clone());
        self.close_grave(group, &entry.address, before.as_ref(), &merged)?;
        self.note_losses(group, &entry.address, row.as_ref(), &merged)?;
        self.heal_without_copy(group, &entry.address);
        if self.faults.makes(Fault::FoldAsArrived) {
            let (arrived, mut siblings): (Vec<Sibling>, Vec<Sibling>) =
                merged.siblings.into_iter().partition(|sibling| sibling.version.dot == entry.sibling.version.dot);
            siblings.extend(arrived);
            group.rows.insert(entry.address.clone(), Some(Row { siblings }));
        }
        Ok(Shipment::Entry(entry))
    }
}

/// Merges what arrived, and counts the row where a marker took a value out of it.
pub(crate) fn merge_into(group: &mut Group, address: &Address, row: Option<Row>, arrived: Sibling) -> Row {
    let values = |row: &Row| row.siblings.iter().filter(|sibling| sibling.content.record().is_some()).count();
    let (marker, before) = (arrived.is_marker(), row.as_ref().map_or(0, values));
    let merged = replication::merge(row, arrived);
    group.left += u32::from(marker && values(&merged) < before);
    group.rows.insert(address.clone(), Some(merged.clone()));
    merged
}
