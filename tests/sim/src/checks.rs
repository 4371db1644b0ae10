//! What must hold once everything has healed.

use std::collections::BTreeMap;

use model::UnixMillis;
use model::record::{Address, Content, Row};
use model::version::Dot;
use store::Store;

use crate::plans::REGIONS;
use crate::world::World;

impl World {
    fn rows(&self, number: usize) -> Result<BTreeMap<Address, Row>, String> {
        let data = self.sites[number].data.as_ref().ok_or("a region is down")?;
        let (mut rows, mut wrong) = (BTreeMap::new(), None);
        data.each_row(&mut |key, envelope| {
            match (Store::address_of(key), model::codec::decode::<Row>(envelope)) {
                (Some(address), Ok(row)) => drop(rows.insert(address, row)),
                (_, read) => wrong = Some(format!("a row of {number} cannot be read: {:?}", read.err())),
            }
            wrong.is_none()
        })
        .map_err(|error| error.to_string())?;
        wrong.map_or(Ok(rows), Err)
    }

    /// Nothing acknowledged is lost, nothing comes back, nothing is where it may not be, and all regions agree.
    pub(crate) async fn check_agreement(&mut self) -> Result<(), String> {
        let mut all = Vec::new();
        for number in 0..self.sites.len() {
            let rows = self.rows(number)?;
            self.check_rows(number, &rows)?;
            self.check_residency(number)?;
            all.push(rows);
        }
        self.check_nothing_lost(&all)?;
        self.check_conflicts(&all)?;
        self.check_digests()?;
        self.check_what_is_shown(&all).await
    }

    fn check_rows(&self, number: usize, rows: &BTreeMap<Address, Row>) -> Result<(), String> {
        let region = REGIONS[number];
        for (address, row) in rows {
            self.check_expiry_yields(region, address, row)?;
            for sibling in &row.siblings {
                let dot = &sibling.version.dot;
                let Some(made) = self.history.of_dot(dot) else {
                    return Err(format!("{region} holds {dot}, which nobody wrote"));
                };
                let write = &self.history.made[made];
                let value =
                    sibling.content.record().map(|record| String::from_utf8_lossy(record.payload.bytes()).into_owned());
                match sibling.content {
                    Content::Evicted { .. } if !write.kind.may_be_in(number) => continue,
                    Content::Evicted { .. } => return Err(format!("{region} has sent away {dot}, which may be there")),
                    _ if write.address != *address || write.value != value => {
                        return Err(format!(
                            "{region} holds {value:?} as {dot} of {address}; it was {:?}",
                            write.value
                        ));
                    }
                    _ if !write.kind.may_be_in(number) => {
                        return Err(format!("{region} holds {value:?}, which may not be there"));
                    }
                    // A tombstone that is there again hides nothing that was not hidden by it before.
                    _ if value.is_some() && self.history.surely_replaced(made, number, self.sites[number].replaced) => {
                        return Err(format!(
                            "{region} holds {value:?} of {address} ({dot}), which was replaced or deleted"
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn check_residency(&self, number: usize) -> Result<(), String> {
        let barred: Vec<&str> = self
            .history
            .made
            .iter()
            .filter(|made| !made.kind.may_be_in(number))
            .filter_map(|made| made.value.as_deref())
            .collect();
        let mut found = None;
        self.sites[number].disk.each_value(&mut |bytes| {
            let has = |value: &&&str| bytes.windows(value.len()).any(|window| window == value.as_bytes());
            if found.is_none() && bytes.windows(6).any(|window| window == b"value-") {
                found = barred.iter().find(has).map(|value| (*value).to_owned());
            }
        });
        found.map_or(Ok(()), |value| {
            Err(format!("the disk of {} has {value:?}, which may not be there", REGIONS[number]))
        })
    }

    /// Lost means: acknowledged, absent, and not replaced.
    fn check_nothing_lost(&self, all: &[BTreeMap<Address, Row>]) -> Result<(), String> {
        for (number, made) in self.history.made.iter().enumerate() {
            // An unknown outcome that reached the log stays there as well.
            if made.excused || self.history.replaced(number) {
                continue;
            }
            for (region, rows) in all.iter().enumerate().filter(|(region, _)| made.kind.may_be_in(*region)) {
                let row = rows.get(&made.address);
                let here = row.is_some_and(|row| row.siblings.iter().any(|sibling| sibling.version.dot == made.dot));
                // A tombstone goes when nobody needs it any more. That somebody did shows in what it replaced, which
                // would be there again, and in what it competes with, which the regions would not agree on.
                let buried = made.value.is_none();
                if !here && !buried {
                    let what = made.value.as_deref().unwrap_or("a delete");
                    let told = if made.acknowledged.is_some() { "was acknowledged" } else { "is on a disk" };
                    return Err(format!(
                        "{what} of {} ({}) {told}, and {} has lost it",
                        made.address, made.dot, REGIONS[region]
                    ));
                }
            }
        }
        Ok(())
    }

    /// What lies beside another write and is not shown is in the conflict log, with what it lost to; and nothing is in
    /// there that nobody wrote.
    fn check_conflicts(&self, all: &[BTreeMap<Address, Row>]) -> Result<(), String> {
        for (number, rows) in all.iter().enumerate() {
            let (region, data) = (REGIONS[number], self.sites[number].data.as_ref().ok_or("a region is down")?);
            let mut noted = BTreeMap::new();
            let log = data.losses(None, None, data::LOSSES_SHOWN, true).map_err(|error| error.to_string())?;
            for shown in log.losses {
                let dot = shown.loss.lost.version.dot.clone();
                let made = self.history.of_dot(&dot).map(|made| &self.history.made[made]);
                let Some(made) = made else { return Err(format!("{region} says that {dot} lost, which nobody wrote")) };
                let value = shown.value.ok().map(|lost| String::from_utf8_lossy(lost.payload.bytes()).into_owned());
                if made.address != shown.loss.address || value.is_some() && value != made.value {
                    return Err(format!("{region} says that {dot} of {} was {value:?}", shown.loss.address));
                }
                noted.insert(dot, shown.loss.to.dot);
            }
            let strategies = crate::plans::plans().replication;
            for (address, row) in rows.iter().filter(|(_, row)| row.siblings.len() > 1) {
                let replication::Fold::Winner(at) = replication::fold(row, strategies.strategy(&address.namespace))
                else {
                    continue;
                };
                let winner = &row.siblings[at];
                for sibling in row.siblings.iter().filter(|sibling| !sibling.is_marker()) {
                    let dot = &sibling.version.dot;
                    let lost = *dot != winner.version.dot
                        && (sibling.content.record().is_some() || winner.content.record().is_some());
                    let told = noted.get(dot);
                    if lost && told != Some(&winner.version.dot) || !lost && told == Some(&winner.version.dot) {
                        let to = told.map(ToString::to_string);
                        let against = &winner.version.dot;
                        return Err(format!("in {region}, {dot} of {address} against {against}: the log has {to:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_digests(&self) -> Result<(), String> {
        let mut digests = Vec::new();
        for site in &self.sites {
            let data = site.data.as_ref().ok_or("a region is down")?;
            digests.push((site.id.clone(), data.digests().map_err(|error| error.to_string())?));
        }
        for (one, ours) in &digests {
            for (other, theirs) in digests.iter().filter(|(other, _)| other != one) {
                for (scope, summary) in ours.iter().filter(|(_, summary)| summary.regions.contains(other)) {
                    if theirs.get(scope) != Some(summary) {
                        let regions = &summary.regions;
                        let different = self.difference(one, other)?;
                        return Err(format!("{one} and {other} have different digests of {regions:?}: {different}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The first key of which two regions hold different writes.
    fn difference(&self, one: &model::RegionId, other: &model::RegionId) -> Result<String, String> {
        let number = |id: &model::RegionId| REGIONS.iter().position(|region| *region == id.as_str()).unwrap_or(0);
        let (ours, theirs) = (self.rows(number(one))?, self.rows(number(other))?);
        let dots = |row: Option<&Row>| {
            let siblings = row.map_or(&[][..], |row| &row.siblings);
            let public = |dot: &Dot| {
                let made = self.history.of_dot(dot).map(|made| self.history.made[made].kind);
                made.is_none_or(|kind| kind.may_be_in(number(one)) && kind.may_be_in(number(other)))
            };
            let live = siblings.iter().filter(|sibling| !sibling.is_marker() && public(&sibling.version.dot));
            live.map(|sibling| sibling.version.dot.to_string()).collect::<Vec<_>>()
        };
        let keys = ours.keys().chain(theirs.keys());
        let mut different = keys.filter(|key| dots(ours.get(*key)) != dots(theirs.get(*key)));
        Ok(different.next().map_or_else(String::new, |key| {
            format!("{key} is {:?} and {:?}", dots(ours.get(key)), dots(theirs.get(key)))
        }))
    }

    /// Regions that hold the same of a key show the same.
    async fn check_what_is_shown(&self, all: &[BTreeMap<Address, Row>]) -> Result<(), String> {
        let dots = |row: &Row| row.siblings.iter().map(|sibling| sibling.version.dot.clone()).collect::<Vec<Dot>>();
        for (address, row) in &all[0] {
            for (other, rows) in all.iter().enumerate().skip(1) {
                if rows.get(address).map(dots) != Some(dots(row))
                    || [Some(row), rows.get(address)]
                        .into_iter()
                        .flatten()
                        .any(|row| row.siblings.iter().any(|sibling| sibling.is_marker()))
                    // By a clock that was set back when a region was opened, it is not over yet.
                    || self.is_row_over(0, row) != self.is_row_over(other, row)
                {
                    continue;
                }
                let mut shown = Vec::new();
                for number in [0, other] {
                    let data = self.sites[number].data.as_ref().ok_or("a region is down")?;
                    let view = data.read(address).await.map_err(|error| error.to_string())?;
                    shown.push(view.map(|view| view.record.payload));
                }
                if shown[0] != shown[1] {
                    return Err(format!(
                        "{} and {} hold the same of {address}, and show {shown:?}",
                        REGIONS[0], REGIONS[other]
                    ));
                }
            }
        }
        Ok(())
    }

    /// Once all is at rest, nothing is kept that nobody needs.
    pub(crate) fn check_forgetting(&self) -> Result<(), String> {
        for (number, site) in self.sites.iter().enumerate() {
            let region = REGIONS[number];
            let store = Store::open_in_memory(&site.disk.copy(), UnixMillis(0)).map_err(|error| error.to_string())?;
            let kept = store.vector().beyond(&store.floors());
            if let Some((origin, life, end)) = kept.iter().next() {
                let floor = store.floors().offset(origin, life);
                return Err(format!("{region} keeps {floor} to {end} of {origin}/{} though all have it", life.0));
            }
            for (address, row) in self.rows(number)? {
                // What was given as rows by a region that lost its disk before it finished is behind no vector.
                let passed = row.siblings.iter().all(|sibling| store.vector().covers_dot(&sibling.version.dot));
                if row.is_dead() && passed {
                    let siblings: Vec<_> = row.siblings.iter().map(|sibling| sibling.version.dot.to_string()).collect();
                    let listed = store.dead_rows(None, usize::MAX).is_ok_and(|rows| rows.contains(&address));
                    return Err(format!(
                        "{region} keeps the tombstone {siblings:?} of {address} though all have it (listed: {listed})"
                    ));
                }
            }
        }
        Ok(())
    }
}
