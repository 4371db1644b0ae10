//! Records that have an end, a namespace with a quota, writes that are made on a condition; and what must hold of them.
//!
//! Whether a time is over is asked of the region's own clock for that: one that was opened with a wrong clock has no
//! other. What does not depend on any clock is that a delete because a time was over is no word of anybody, and wins over
//! nothing that was written after what it deletes.

use data::{DataPlane, ETag};
use model::UnixMillis;
use model::record::{Address, Content, Row};
use store::Store;

use crate::history::Made;
use crate::plans::{NAMESPACES, QUOTA, REGIONS};
use crate::random::Random;
use crate::world::{EPOCH, World};

/// The terms of a write.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// When the record is over.
    pub until: Option<UnixMillis>,
    /// Only if this is the key's state.
    pub is: Option<ETag>,
    /// Only if there is no record.
    pub absent: bool,
}

impl Terms {
    /// The terms of a write that is asked for at `now`, by a client that has seen this state last.
    pub(crate) fn draw(random: &mut Random, now: u64, deletes: bool, seen: Option<&ETag>) -> Self {
        let mut terms = Self::default();
        if !deletes && random.one_in(3) {
            terms.until = Some(UnixMillis(EPOCH + now + random.between(500, 8_000)));
        }
        if random.one_in(4) {
            match seen.filter(|_| random.one_in(2)) {
                Some(tag) => terms.is = Some(tag.clone()),
                None => terms.absent = !deletes,
            }
        }
        terms
    }
}

fn is_live(row: &Row) -> bool {
    row.siblings.iter().any(|sibling| sibling.content.record().is_some())
}

impl World {
    /// What the task of a daemon does about records whose time is over.
    pub(crate) async fn expire(&mut self, number: usize, data: &DataPlane) -> Result<(), String> {
        if data.begin_expiring() {
            let overdue = match data.expired_after(None) {
                Ok(overdue) => overdue,
                Err(error) => {
                    data.look_again_at(UnixMillis(0));
                    return self.failed(number, &error.to_string());
                }
            };
            overdue.soonest.into_iter().for_each(|soonest| data.look_again_at(soonest));
            for expired in overdue.expired {
                let address = expired.address.clone();
                let before = data.row(&address).ok().flatten();
                match data.expire(vec![expired]).await {
                    Ok(count) => self.stats.expired += count,
                    Err(error) => self.failed(number, &error.to_string())?,
                }
                data.look_again_at(UnixMillis(0));
                let after = data.row(&address).ok().flatten();
                let made = self.find_made((number, &address, &None, None), before.as_ref(), after.as_ref())?;
                if let Some(made) = made {
                    self.note(|| format!("the time of {address} is over in {number}"));
                    self.history.made[made].expiry = true;
                }
            }
        }
        let mut rows = Vec::new();
        data.each_row(&mut |key, envelope| {
            rows.extend(Store::address_of(key).zip(model::codec::decode::<Row>(envelope).ok()));
            true
        })
        .map_err(|error| error.to_string())?;
        for (address, row) in rows {
            self.check_expiry_yields(REGIONS[number], &address, &row)?;
        }
        match data.keep_retention_clock().await {
            Ok(()) => Ok(()),
            Err(error) => self.failed(number, &error.to_string()),
        }
    }

    /// Whether the time of a write is over by the clock of a region.
    pub(crate) fn is_over_in(&self, region: usize, made: &Made) -> bool {
        let now = self.sites[region].data.as_ref().map(DataPlane::retention_now);
        made.until.is_some_and(|until| now.is_some_and(|now| until <= now))
    }

    /// Whether the time of all that is alive in a row is over by the clock of a region.
    pub(crate) fn is_row_over(&self, region: usize, row: &Row) -> bool {
        let mut live = row.siblings.iter().filter(|sibling| sibling.content.record().is_some());
        live.all(|sibling| {
            let made = self.history.of_dot(&sibling.version.dot).map(|number| &self.history.made[number]);
            made.is_some_and(|made| self.is_over_in(region, made))
        })
    }

    /// What is shown is not over, unless something lies beside it that is not.
    pub(crate) fn check_not_over(&self, region: usize, address: &Address, shown: usize) -> Result<(), String> {
        let made = &self.history.made[shown];
        if !self.is_over_in(region, made) {
            return Ok(());
        }
        let row = self.sites[region].data.as_ref().and_then(|data| data.row(address).ok().flatten());
        match row.is_some_and(|row| self.is_row_over(region, &row)) {
            true => Err(format!("{} shows {:?} of {address}, whose time is over", REGIONS[region], made.value)),
            false => Ok(()),
        }
    }

    /// A write that was made has met its condition, and has not gone beyond a quota.
    pub(crate) fn check_terms(
        &self,
        region: usize,
        address: &Address,
        terms: &Terms,
        (before, after): (Option<&Row>, Option<&Row>),
    ) -> Result<(), String> {
        let there = before.filter(|row| is_live(row) && !self.is_row_over(region, row));
        if terms.absent && there.is_some() {
            return Err(format!("a write to {address} on condition that there is none was made over one"));
        }
        if let Some(tag) = terms.is.as_ref().filter(|tag| there.map(ETag::of).as_ref() != Some(*tag)) {
            return Err(format!("a write to {address} on condition that it is {tag} was made over something else"));
        }
        let grows = self.options.limits && !before.is_some_and(is_live) && after.is_some_and(is_live);
        let (count, _) = self.records(region, address)?;
        match grows && count > QUOTA {
            true => Err(format!("{} has taken record {count} of a namespace that may have {QUOTA}", REGIONS[region])),
            false => Ok(()),
        }
    }

    /// A write that was refused because of a quota would have gone beyond it.
    pub(crate) fn check_refusal(&self, region: usize, address: &Address) -> Result<(), String> {
        let (count, damaged) = self.records(region, address)?;
        match count + damaged < QUOTA {
            true => Err(format!("{} has {count} records of {QUOTA}, and takes no more", REGIONS[region])),
            false => Ok(()),
        }
    }

    /// How many records of the namespace of a key a region holds, and how many rows of it cannot be read; none where it
    /// has no quota.
    fn records(&self, region: usize, address: &Address) -> Result<(u64, u64), String> {
        let Some(data) = self.sites[region].data.as_ref().filter(|_| address.namespace.as_str() == NAMESPACES[1])
        else {
            return Ok((0, 0));
        };
        let (mut count, mut damaged) = (0, 0);
        data.each_row(&mut |key, envelope| {
            let inside = Store::address_of(key).is_some_and(|other| other.namespace == address.namespace);
            match model::codec::decode::<Row>(envelope) {
                Ok(row) => count += u64::from(inside && is_live(&row)),
                Err(_) => damaged += u64::from(inside),
            }
            true
        })
        .map_err(|error| error.to_string())?;
        Ok((count, damaged))
    }

    /// A delete because a time was over does not win over what was written after what it deletes.
    pub(crate) fn check_expiry_yields(&self, region: &str, address: &Address, row: &Row) -> Result<(), String> {
        if address.namespace.as_str() != NAMESPACES[0] {
            return Ok(());
        }
        let Some(winner) = row.siblings.get(replication::last_write(&row.siblings)) else { return Ok(()) };
        let made = self.history.of_dot(&winner.version.dot).map(|number| &self.history.made[number]);
        let Some(made) = made.filter(|made| made.expiry && matches!(winner.content, Content::Tombstone { .. })) else {
            return Ok(());
        };
        let deleted = made.past.iter().map(|number| self.history.made[*number].hlc).max();
        let later = row.siblings.iter().find(|sibling| {
            sibling.content.record().is_some() && deleted.is_some_and(|deleted| sibling.version.hlc > deleted)
        });
        match later {
            Some(later) => Err(format!(
                "in {region}, that the time of {address} is over ({} at {}) wins over the later write {} at {}",
                winner.version.dot, winner.version.hlc, later.version.dot, later.version.hlc
            )),
            None => Ok(()),
        }
    }
}
