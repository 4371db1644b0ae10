//! What goes wrong, and how it ends.

use std::sync::atomic::Ordering;

use store::Store;
use store::memory::Disk;

use crate::network::Weather;

/// The least time between the losses of two disks: what levels of acknowledgement promise is about losing fewer disks
/// than there are copies.
const BETWEEN_LOSSES: u64 = 5_000;
use crate::world::{Event, World};

/// How a fault ends.
#[derive(Clone, Debug)]
pub enum Undo {
    /// The process starts again.
    Start(usize),
    /// The process goes on.
    Resume(usize),
    /// The clock is right again.
    Clock(usize),
    /// There is room on the disk again; the process is restarted.
    Room(usize),
    /// The disk is replaced by an empty one.
    Replace(usize),
    /// A link is an ordinary one again.
    Link(usize, usize),
}

impl World {
    /// Makes something go wrong, and sees to the next time.
    pub(crate) fn make_mischief(&mut self) -> Result<(), String> {
        if self.healing {
            return Ok(());
        }
        let pause = self.random.between(300, 2_500);
        self.after(pause, Event::Mischief);
        self.stats.faults += 1;
        let victim = self.random.below(self.sites.len() as u64) as usize;
        let other = (victim + 1 + self.random.below(self.sites.len() as u64 - 1) as usize) % self.sites.len();
        let up = self.sites[victim].data.is_some();
        let rotten = self.sites.iter().any(|site| site.rotten);
        let more = self.losses <= self.options.more_losses;
        let may_lose = more && !rotten && self.now >= self.last_loss + BETWEEN_LOSSES;
        match self.random.below(20) {
            0..3 if up => self.kill(victim, false),
            3..6 if up => self.kill(victim, true),
            6 | 7 if up => {
                self.note(|| format!("{victim} is paused"));
                self.sites[victim].paused = true;
                let span = self.random.between(200, 4_000);
                self.after(span, Event::Undo(Undo::Resume(victim)));
            }
            8 => self.worsen(victim, other, |weather, _| weather.cut = true),
            9 => {
                self.worsen(victim, other, |weather, _| weather.cut = true);
                self.worsen(other, victim, |weather, _| weather.cut = true);
            }
            10 => {
                let until = self.now + self.random.between(500, 5_000);
                self.worsen(victim, other, |weather, _| weather.held_until = until);
            }
            11 => self.worsen(victim, other, |weather, random| {
                weather.loss = random.between(3, 20);
                weather.double = random.between(2, 6);
                weather.jitter = random.between(50, 900);
            }),
            // Away for longer than the log is kept.
            12 => {
                for peer in (0..self.sites.len()).filter(|peer| *peer != victim) {
                    self.weather[victim][peer].cut = true;
                    self.weather[peer][victim].cut = true;
                }
                self.note(|| format!("{victim} is alone"));
                let span = self.random.between(7_000, 14_000);
                for peer in (0..self.sites.len()).filter(|peer| *peer != victim) {
                    self.after(span, Event::Undo(Undo::Link(victim, peer)));
                    self.after(span, Event::Undo(Undo::Link(peer, victim)));
                }
            }
            13 => {
                let hours = self.random.between(0, 4) as i64 - 2;
                let skew = hours * 3_600_000 + self.random.between(0, 3_000) as i64;
                self.note(|| format!("the clock of {victim} is wrong by {skew} ms"));
                self.sites[victim].skew.store(skew, Ordering::Relaxed);
                let span = self.random.between(500, 8_000);
                self.after(span, Event::Undo(Undo::Clock(victim)));
            }
            14 if up => {
                let batches = self.random.below(4) as usize;
                self.note(|| format!("the disk of {victim} has room for {batches} commits"));
                self.sites[victim].disk.set_room(Some(batches));
                self.sites[victim].full = true;
                let span = self.random.between(500, 3_000);
                self.after(span, Event::Undo(Undo::Room(victim)));
            }
            15..20 if self.options.rot && may_lose => self.rot(victim)?,
            15..20 if self.options.rot => {}
            15 if may_lose => {
                let choice = self.random.number();
                if self.sites[victim].disk.flip_bit_of_a_row(choice) {
                    self.note(|| format!("a bit on the disk of {victim} is flipped"));
                    self.sites[victim].rotten = true;
                    let span = self.random.between(200, 2_000);
                    self.after(span, Event::Undo(Undo::Replace(victim)));
                }
            }
            16 => {
                self.note(|| format!("a backup of {victim}"));
                if !self.sites[victim].rotten {
                    self.sites[victim].backup = Some(self.sites[victim].disk.copy());
                }
            }
            17 if may_lose => {
                if let Some(backup) = self.sites[victim].backup.clone() {
                    self.note(|| format!("{victim} goes back to its backup"));
                    self.replace(victim, backup.copy())?;
                }
            }
            18 if may_lose => {
                self.note(|| format!("{victim} loses its disk"));
                self.replace(victim, Disk::new())?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Flips a bit of a row. What no other region has by then may be lost, as with a disk: the log here may have it, and
    /// may be cut before anybody comes upon the damage.
    fn rot(&mut self, victim: usize) -> Result<(), String> {
        let choice = self.random.number();
        let store = Store::open_in_memory(&self.sites[victim].disk.copy(), model::UnixMillis(0));
        let before = store.map_err(|error| error.to_string())?;
        if !self.sites[victim].disk.flip_bit_of_a_row(choice) {
            return Ok(());
        }
        let store = Store::open_in_memory(&self.sites[victim].disk.copy(), model::UnixMillis(0));
        let (damaged, _) =
            store.and_then(|store| store.damaged_rows(None, usize::MAX)).map_err(|error| error.to_string())?;
        self.last_loss = self.now;
        self.losses += 1;
        self.sites[victim].rotten = true;
        let mut vectors = Vec::new();
        for site in &self.sites {
            let store = Store::open_in_memory(&site.disk.copy(), model::UnixMillis(0));
            vectors.push(store.map_err(|error| error.to_string())?.vector());
        }
        for address in damaged {
            self.note(|| format!("the row of {address} rots in {victim}"));
            let row = before.row(&address).ok().flatten();
            for sibling in row.into_iter().flat_map(|row| row.siblings) {
                let Some(number) = self.history.of_dot(&sibling.version.dot) else { continue };
                let made = &mut self.history.made[number];
                let held = |other: usize| made.kind.may_be_in(other) && vectors[other].covers_dot(&made.dot);
                let elsewhere = (0..vectors.len()).any(|other| other != victim && held(other));
                made.disks_lost += usize::from(made.kind.may_be_in(victim));
                if elsewhere || made.excused {
                    continue;
                }
                made.excused = true;
                self.stats.lost_with_disks += 1;
                if let Some(copies) = made.acknowledged.filter(|copies| *copies > made.disks_lost) {
                    return Err(format!(
                        "{:?} was said to have {copies} copies, and one damaged row was all",
                        made.value
                    ));
                }
            }
        }
        Ok(())
    }

    fn kill(&mut self, victim: usize, power: bool) {
        self.note(|| format!("{victim} {}", if power { "loses power" } else { "is killed" }));
        self.stop(victim);
        let disk = &self.sites[victim].disk;
        if power {
            disk.cut_power()
        } else {
            disk.kill()
        }
        let span = self.random.between(1_100, 6_000);
        self.after(span, Event::Undo(Undo::Start(victim)));
    }

    fn worsen(&mut self, from: usize, to: usize, how: impl FnOnce(&mut Weather, &mut crate::random::Random)) {
        how(&mut self.weather[from][to], &mut self.random);
        self.note(|| format!("the link from {from} to {to} is bad"));
        let span = self.random.between(500, 6_000);
        self.after(span, Event::Undo(Undo::Link(from, to)));
    }

    /// Puts another disk in the place of a region's. What only the old one had may be lost from now on.
    fn replace(&mut self, victim: usize, disk: Disk) -> Result<(), String> {
        self.stop(victim);
        self.last_loss = self.now;
        self.losses += 1;
        self.sites[victim].disk.kill();
        self.sites[victim].disk = disk;
        self.sites[victim].rotten = false;
        self.sites[victim].full = false;
        self.sites[victim].replaced = true;
        let now = model::UnixMillis(0);
        let mut vectors = Vec::new();
        for site in &self.sites {
            let store = Store::open_in_memory(&site.disk.copy(), now).map_err(|error| error.to_string())?;
            vectors.push(store.vector());
        }
        for made in self.history.made.iter_mut().filter(|made| !made.excused) {
            made.disks_lost += usize::from(made.kind.may_be_in(victim));
            let held = |number: usize| made.kind.may_be_in(number) && vectors[number].covers_dot(&made.dot);
            if (0..vectors.len()).any(held) {
                continue;
            }
            made.excused = true;
            self.stats.lost_with_disks += 1;
            if let Some(copies) = made.acknowledged.filter(|copies| *copies > made.disks_lost) {
                let lost = made.disks_lost;
                return Err(format!(
                    "{:?} was said to have {copies} copies, and {lost} lost disks took all",
                    made.value
                ));
            }
        }
        let span = self.random.between(1_100, 4_000);
        self.after(span, Event::Undo(Undo::Start(victim)));
        Ok(())
    }

    pub(crate) fn undo(&mut self, undo: Undo) -> Result<(), String> {
        match undo {
            Undo::Start(victim) if self.sites[victim].full => {
                // It does not start without room.
                self.after(500, Event::Undo(Undo::Start(victim)));
            }
            Undo::Start(victim) if self.sites[victim].data.is_none() => self.start(victim)?,
            Undo::Start(_) => {}
            Undo::Resume(victim) => self.sites[victim].paused = false,
            Undo::Clock(victim) => self.sites[victim].skew.store(0, Ordering::Relaxed),
            Undo::Room(victim) => {
                if self.sites[victim].full {
                    self.sites[victim].disk.set_room(None);
                    self.sites[victim].full = false;
                    if self.sites[victim].data.is_some() {
                        self.kill(victim, false);
                    }
                }
            }
            Undo::Replace(victim) => {
                if self.sites[victim].rotten {
                    self.note(|| format!("the rotten disk of {victim} is replaced"));
                    self.replace(victim, Disk::new())?;
                }
            }
            Undo::Link(from, to) => self.weather[from][to] = Weather::fair(&mut self.random),
        }
        Ok(())
    }

    /// Ends every fault.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.healing = true;
        self.note(|| "everything heals".into());
        for number in 0..self.sites.len() {
            for peer in (0..self.sites.len()).filter(|peer| *peer != number) {
                self.undo(Undo::Link(number, peer))?;
            }
            let rot = self.options.rot;
            for undo in [Undo::Resume(number), Undo::Clock(number), Undo::Room(number), Undo::Replace(number)]
                .into_iter()
                .filter(|undo| !rot || !matches!(undo, Undo::Replace(_)))
            {
                self.undo(undo)?;
            }
            // Not within the second in which it may have been opened last.
            self.after(1_500, Event::Undo(Undo::Start(number)));
        }
        Ok(())
    }
}
