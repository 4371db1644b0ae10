//! What was written, what was promised, and what follows from what.

use std::collections::{BTreeMap, BTreeSet};

use model::record::Address;
use model::version::Dot;
use model::{Hlc, UnixMillis};

use crate::plans::{Kind, REGIONS};

/// A write that reached a region's log.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its name.
    pub dot: Dot,
    /// Its stamp.
    pub hlc: Hlc,
    /// What it wrote to.
    pub address: Address,
    /// The value; none for a delete.
    pub value: Option<String>,
    /// Where it may be.
    pub kind: Kind,
    /// Where it was written.
    pub region: usize,
    /// How many disks that may have had it were lost since.
    pub disks_lost: usize,
    /// Whether a client was told that it is stored, and in how many regions.
    pub acknowledged: Option<usize>,
    /// The writes that it replaced, and those that they replaced, and so on.
    pub past: BTreeSet<usize>,
    /// The only disk that had it is gone: it may be lost.
    pub excused: bool,
    /// When its time is over.
    pub until: Option<UnixMillis>,
    /// It is the delete of something whose time was over.
    pub expiry: bool,
}

impl Made {
    /// Where it stands in the order of last-write-wins.
    pub fn order(&self) -> (Hlc, &Dot) {
        (self.hlc, &self.dot)
    }
}

/// All writes of a run.
#[derive(Debug, Default)]
pub struct History {
    /// In the order in which they were made.
    pub made: Vec<Made>,
    by_dot: BTreeMap<Dot, usize>,
    by_value: BTreeMap<String, usize>,
}

impl History {
    /// Adds a write that replaced `gone`. Its number, or what is wrong.
    ///
    /// # Errors
    /// A dot that was used before.
    pub fn add(&mut self, mut write: Made, gone: &[Dot]) -> Result<usize, String> {
        for dot in gone {
            let Some(&before) = self.by_dot.get(dot) else { return Err(format!("{dot} was replaced and never made")) };
            write.past.insert(before);
            write.past.extend(&self.made[before].past);
        }
        let number = self.made.len();
        if let Some(&before) = self.by_dot.get(&write.dot) {
            let (one, other) = (&self.made[before], &write);
            return Err(format!("{} names two writes: {:?} and {:?}", write.dot, one.value, other.value));
        }
        self.by_dot.insert(write.dot.clone(), number);
        if let Some(value) = &write.value {
            self.by_value.insert(value.clone(), number);
        }
        self.made.push(write);
        Ok(number)
    }

    /// The write with this name.
    pub fn of_dot(&self, dot: &Dot) -> Option<usize> {
        self.by_dot.get(dot).copied()
    }

    /// The write of this value; each is written once.
    pub fn of_value(&self, value: &str) -> Option<usize> {
        self.by_value.get(value).copied()
    }

    /// Whether some write replaced this one, in whatever region.
    pub fn replaced(&self, number: usize) -> bool {
        self.made.iter().any(|other| other.past.contains(&number))
    }

    /// Whether a region may rightly show less than this write and what replaced it: where it, or something that replaced
    /// it, may not be there, or was lost with a disk.
    pub fn may_be_hidden(&self, number: usize, region: usize) -> bool {
        let hidden = |made: &Made| made.excused || !made.kind.may_be_in(region);
        hidden(&self.made[number]) || self.made.iter().any(|other| other.past.contains(&number) && hidden(other))
    }

    /// Whether a write that cannot have been lost replaced this one. Where `region` has had its disk replaced, only
    /// writes count that it may hold itself, since it may have lost the marker of others; and not those over a record
    /// that no other region may hold, since only the lost disk knew that it was replaced.
    pub fn surely_replaced(&self, number: usize, region: usize, replaced_disk: bool) -> bool {
        let alone = (0..REGIONS.len()).filter(|region| self.made[number].kind.may_be_in(*region)).count() == 1;
        if replaced_disk && alone {
            return false;
        }
        let sure = self.sure();
        self.made.iter().zip(sure).any(|(other, sure)| {
            sure && other.past.contains(&number) && (!replaced_disk || other.kind.may_be_in(region))
        })
    }

    /// Which writes have an effect that cannot have been lost: they are where they were not lost, or what replaced
    /// them is.
    fn sure(&self) -> Vec<bool> {
        let mut sure = vec![false; self.made.len()];
        for number in (0..self.made.len()).rev() {
            let later =
                || self.made.iter().enumerate().skip(number + 1).filter(|(_, made)| made.past.contains(&number));
            let replaced = later().next().is_some();
            sure[number] = !self.made[number].excused && (!replaced || later().any(|(other, _)| sure[other]));
        }
        sure
    }
}
