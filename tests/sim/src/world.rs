//! The regions, the clock, and the order in which things happen.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use data::clock::Clock;
use data::{DataPlane, Opening, Retention};
use model::version::{Incarnation, PositionVector};
use model::{ByteCount, Millis, Mono, RegionId, UnixMillis};
use store::Store;
use store::memory::Disk;

use crate::clients::{Client, Pending};
use crate::history::History;
use crate::mischief::Undo;
use crate::network::{InFlight, Link, Message, PATIENCE, Parcel, State, WINDOW, Weather};
use crate::plans::{REGIONS, Resolvers, plans, plans_with_a_quota, region};
use crate::random::Random;
use crate::{Options, Stats};

/// When a run begins: some time in 2026.
pub(crate) const EPOCH: u64 = 1_770_000_000_000;
/// How long clients and faults go on.
const CHAOS: u64 = 30_000;
/// How long regions may take to agree once everything has healed.
const HEALING: u64 = 90_000;
/// How long a log is kept for those who are away.
const KEPT: u64 = 6_000;
/// How often a region is tended.
const TENDED: u64 = 2_000;
/// Lines of what happened that are kept, and how many where one key is followed from the beginning.
const TRACE: usize = 400;
const TRACE_OF_A_KEY: usize = 100_000;

/// A clock that runs with the simulation and may be wrong about the time of day.
pub struct SimClock {
    now: Arc<AtomicU64>,
    skew: Arc<AtomicI64>,
}

impl Clock for SimClock {
    fn wall(&self) -> UnixMillis {
        let right = EPOCH + self.now.load(Ordering::Relaxed);
        UnixMillis(right.saturating_add_signed(self.skew.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Mono {
        Mono(self.now.load(Ordering::Relaxed))
    }
}

/// One region.
pub struct Site {
    /// Its id.
    pub id: RegionId,
    /// Its disk.
    pub disk: Disk,
    /// A copy of its disk from some time ago.
    pub backup: Option<Disk>,
    /// What runs there, if something does.
    pub data: Option<DataPlane>,
    /// Counts processes.
    pub process: u64,
    /// The process is stopped, and keeps its connections.
    pub paused: bool,
    /// The disk is full.
    pub full: bool,
    /// A bit was flipped, and nobody has noticed yet.
    pub rotten: bool,
    /// Its disk has been replaced, by an empty one or by a backup.
    pub replaced: bool,
    /// By how much its wall clock is wrong.
    pub skew: Arc<AtomicI64>,
    /// The life in which it was last.
    pub life: Incarnation,
}

/// What happens at some time.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Client(usize),
    Pump(usize, usize),
    Probe(usize, usize),
    Arrive(Box<Parcel>),
    Tend(usize),
    Mischief,
    Undo(Undo),
}

/// Everything.
pub struct World {
    /// Milliseconds since the beginning.
    pub now: u64,
    /// What the run came to so far.
    pub stats: Stats,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) sites: Vec<Site>,
    pub(crate) weather: Vec<Vec<Weather>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) history: History,
    pub(crate) values: u64,
    /// How many disks were lost.
    pub(crate) losses: u64,
    /// When a disk was lost last.
    pub(crate) last_loss: u64,
    /// Faults are over.
    pub(crate) healing: bool,
    links: Vec<Vec<Link>>,
    clock: Arc<AtomicU64>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: std::collections::BTreeMap<u64, Event>,
    scheduled: u64,
    happened: VecDeque<String>,
    watched: std::collections::BTreeMap<usize, String>,
}

impl World {
    /// Three empty regions.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::of(seed);
        let count = REGIONS.len();
        let weather = (0..count).map(|_| (0..count).map(|_| Weather::fair(&mut random)).collect()).collect();
        let site = |number: usize| Site {
            id: region(number),
            disk: Disk::new(),
            backup: None,
            data: None,
            process: 0,
            paused: false,
            full: false,
            rotten: false,
            replaced: false,
            skew: Arc::default(),
            life: Incarnation::default(),
        };
        Self {
            now: 0,
            stats: Stats::default(),
            options,
            random,
            sites: (0..count).map(site).collect(),
            weather,
            clients: (0..4).map(|client| Client::at(client % count)).collect(),
            pending: Vec::new(),
            history: History::default(),
            values: 0,
            losses: 0,
            last_loss: 0,
            healing: false,
            links: (0..count).map(|_| (0..count).map(|_| Link::default()).collect()).collect(),
            clock: Arc::default(),
            queue: BinaryHeap::new(),
            events: Default::default(),
            scheduled: 0,
            happened: VecDeque::new(),
            watched: Default::default(),
        }
    }

    /// The last lines of what happened.
    pub fn trace(&self) -> Vec<String> {
        self.happened.iter().cloned().collect()
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace {
            if self.happened.len() == if self.options.key.is_some() { TRACE_OF_A_KEY } else { TRACE } {
                self.happened.pop_front();
            }
            self.happened.push_back(format!("{:>6} {}", self.now, line()));
        }
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert(self.scheduled, event);
        self.queue.push(Reverse((time, self.scheduled)));
    }

    /// Starts a region's process on its disk.
    pub(crate) fn start(&mut self, number: usize) -> Result<(), String> {
        let (mistake, now) = (self.options.mistake, UnixMillis(EPOCH + self.now));
        let site = &mut self.sites[number];
        let store = Self::store(site, mistake, now).map_err(|error| error.to_string())?;
        site.life = store.incarnation();
        let peers: BTreeSet<RegionId> = (0..REGIONS.len()).filter(|peer| *peer != number).map(region).collect();
        let plans = if self.options.limits { plans_with_a_quota() } else { plans() };
        let plans = Arc::new(ArcSwap::from_pointee(plans));
        let mut opening = Opening::new(site.id.clone(), peers, plans, Arc::new(Resolvers), [7; 32]);
        opening.keep = Retention { age: Millis(KEPT), bytes: ByteCount(1 << 20), watched: Millis(0) };
        opening.clock = Arc::new(SimClock { now: self.clock.clone(), skew: site.skew.clone() });
        opening.inline = true;
        #[cfg(feature = "faults")]
        {
            // Where all regions fold alike, they agree whatever they do.
            let alone = [data::Fault::FoldDifferently, data::Fault::OtherResolver];
            let makes = mistake.is_none_or(|mistake| !alone.contains(&mistake)) || number == 1;
            opening.fault = mistake.filter(|_| makes);
        }
        site.data = Some(DataPlane::start(store, opening).map_err(|error| error.to_string())?);
        site.process += 1;
        self.note(|| format!("{number} starts"));
        Ok(())
    }

    #[cfg(feature = "faults")]
    fn store(site: &Site, mistake: Option<data::Fault>, now: UnixMillis) -> Result<Store, store::StoreError> {
        match mistake {
            Some(data::Fault::ReuseCounter) if site.process > 0 => Store::open_in_memory_as(&site.disk, site.life),
            _ => Store::open_in_memory(&site.disk, now),
        }
    }

    #[cfg(not(feature = "faults"))]
    fn store(site: &Site, _: Option<data::Fault>, now: UnixMillis) -> Result<Store, store::StoreError> {
        Store::open_in_memory(&site.disk, now)
    }

    /// A region's process is gone; its links with it.
    pub(crate) fn stop(&mut self, number: usize) {
        self.sites[number].data = None;
        self.sites[number].paused = false;
        self.sites[number].process += 1;
        for peer in 0..self.sites.len() {
            self.links[number][peer] = Link { connection: self.links[number][peer].connection + 1, ..Link::default() };
        }
    }

    /// Plays the run.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub async fn play(&mut self) -> Result<(), String> {
        for number in 0..self.sites.len() {
            self.start(number)?;
            self.after(1_000 + 100 * number as u64, Event::Tend(number));
            for peer in (0..self.sites.len()).filter(|peer| *peer != number) {
                self.after(10, Event::Pump(number, peer));
                self.after(50, Event::Probe(number, peer));
            }
        }
        for client in 0..self.clients.len() {
            self.after(200, Event::Client(client));
        }
        self.after(1_500, Event::Mischief);
        while self.now < CHAOS {
            self.step().await?;
        }
        self.heal()?;
        let (began, mut next) = (self.now, self.now + 1_000);
        loop {
            self.step().await?;
            if self.now >= next {
                next = self.now + 1_000;
                if self.settled() {
                    self.stats.agreed_after = self.now - began;
                    break;
                }
                if self.now > began + HEALING {
                    return Err(format!("the regions did not come to rest: {}", self.unsettled()));
                }
            }
        }
        self.check_agreement().await?;
        let rest = self.now + 8 * TENDED;
        while self.now < rest {
            self.step().await?;
        }
        self.check_agreement().await?;
        self.check_forgetting()
    }

    async fn step(&mut self) -> Result<(), String> {
        let Some(Reverse((time, number))) = self.queue.pop() else { return Err("nothing happens any more".into()) };
        let event = self.events.remove(&number).expect("every event is queued once");
        if time > self.now {
            tokio::time::advance(Duration::from_millis(time - self.now)).await;
            self.now = time;
            self.clock.store(time, Ordering::Relaxed);
        }
        match event {
            Event::Client(client) => {
                if !self.healing {
                    if !self.clients[client].busy {
                        self.ask(client);
                    }
                    let pause = self.random.between(20, 400);
                    self.after(pause, Event::Client(client));
                }
            }
            Event::Pump(from, to) => {
                self.pump(from, to);
                let pause = self.random.between(20, 80);
                self.after(pause, Event::Pump(from, to));
            }
            Event::Probe(from, to) => {
                self.probe(from, to);
                self.after(300, Event::Probe(from, to));
            }
            Event::Arrive(parcel) => self.arrive(*parcel).await?,
            Event::Tend(number) => {
                self.tend(number).await?;
                self.after(TENDED, Event::Tend(number));
            }
            Event::Mischief => self.make_mischief()?,
            Event::Undo(undo) => self.undo(undo)?,
        }
        let outcome = self.poll();
        self.look_at_key();
        outcome
    }

    /// Notes what a key that is watched has become.
    fn look_at_key(&mut self) {
        let Some(address) = self.options.key.clone() else { return };
        for number in 0..self.sites.len() {
            let Some(data) = self.sites[number].data.clone() else { continue };
            let row = data.row(&address).ok().flatten();
            let states = row.iter().flat_map(|row| &row.siblings).map(|sibling| {
                let state = if sibling.is_marker() {
                    "moved "
                } else if sibling.content.record().is_none() {
                    "deleted "
                } else {
                    ""
                };
                let context = sibling
                    .version
                    .context
                    .iter()
                    .map(|(actor, seen)| format!("{}.{}.{seen}", actor.region, actor.incarnation.0));
                format!("{state}{} after [{}]", sibling.version.dot, context.collect::<Vec<_>>().join(" "))
            });
            let now = format!("{number} holds {}", states.collect::<Vec<_>>().join(", "));
            if self.watched.insert(number, now.clone()).as_ref() != Some(&now) {
                self.note(|| now);
            }
        }
    }

    fn up(&self, number: usize) -> Option<DataPlane> {
        let site = &self.sites[number];
        site.data.clone().filter(|_| !site.paused)
    }

    async fn tend(&mut self, number: usize) -> Result<(), String> {
        let Some(data) = self.up(number) else { return Ok(()) };
        match data.tend().await {
            Ok(tended) => self.stats.buried += tended.buried,
            Err(error) => self.failed(number, &error.to_string())?,
        }
        if self.options.limits {
            self.expire(number, &data).await?;
        }
        if self.options.rot {
            self.mend(number, &data).await?;
        }
        Ok(())
    }

    /// What the tasks of a daemon do about damaged rows.
    async fn mend(&mut self, number: usize, data: &DataPlane) -> Result<(), String> {
        if let Err(error) = data.scrub(None).await {
            return self.failed(number, &error.to_string());
        }
        for peer in (0..self.sites.len()).filter(|peer| *peer != number) {
            let keys = data.to_be_asked(&self.sites[peer].id);
            let cut = self.weather[number][peer].cut || self.weather[peer][number].cut;
            let Some(there) = self.up(peer).filter(|_| !cut && !keys.is_empty()) else { continue };
            let stated = match there.state(&self.sites[number].id, &keys) {
                Ok(stated) => stated,
                Err(error) => {
                    self.failed(peer, &error.to_string())?;
                    continue;
                }
            };
            self.note(|| format!("{number} asks {peer} about {} damaged keys", keys.len()));
            match data.mend(&self.sites[peer].id, stated).await {
                Ok(()) | Err(data::DataError::EndedLife { .. }) => {}
                Err(error) => self.failed(number, &error.to_string())?,
            }
        }
        let damage = data.damage();
        if damage.waiting == 0 && self.sites[number].rotten {
            self.note(|| format!("{number} is whole again: {damage:?}"));
            self.sites[number].rotten = false;
        }
        Ok(())
    }

    /// Whether a write is a delete that is among no region's rows any more.
    pub(crate) fn is_forgotten(&self, number: usize) -> bool {
        let made = &self.history.made[number];
        let holds = |site: &Site| {
            let row =
                Store::open_in_memory(&site.disk.copy(), UnixMillis(0)).and_then(|store| store.row(&made.address));
            // What cannot be read may be it.
            row.map_or(true, |row| {
                row.is_some_and(|row| row.siblings.iter().any(|s| s.version.dot == made.dot && !s.is_marker()))
            })
        };
        made.value.is_none() && !self.sites.iter().any(holds)
    }

    /// An error that a region may have only where its disk is at fault.
    pub(crate) fn failed(&mut self, number: usize, error: &str) -> Result<(), String> {
        self.note(|| format!("{number} fails: {error}"));
        let site = &self.sites[number];
        if site.full || site.rotten { Ok(()) } else { Err(format!("{number} fails with a good disk: {error}")) }
    }

    /// One region hears how far another is, as by a probe.
    fn probe(&mut self, from: usize, to: usize) {
        let weather = self.weather[from][to];
        let back = self.weather[to][from];
        let (Some(here), Some(there)) = (self.up(from), self.up(to)) else { return };
        if !weather.cut && !back.cut && weather.held_until <= self.now && back.held_until <= self.now {
            here.heard(&self.sites[to].id, &there.vector(), &there.burials());
        }
    }

    fn send(&mut self, (from, to): (usize, usize), back: bool, connection: u64, message: Message) {
        let weather = if back { self.weather[to][from] } else { self.weather[from][to] };
        let process = self.sites[if back { from } else { to }].process;
        for time in weather.arrivals(self.now, &mut self.random) {
            let parcel = Parcel { from, to, back, connection, process, message: message.clone() };
            self.at(time, Event::Arrive(Box::new(parcel)));
        }
    }

    /// What the shipping task of a daemon does next.
    fn pump(&mut self, from: usize, to: usize) {
        let Some(data) = self.up(from) else { return };
        let there = self.sites[to].id.clone();
        let link = &mut self.links[from][to];
        if !matches!(link.state, State::Idle) && self.now > link.heard + PATIENCE {
            let waits = match &link.state {
                State::Shipping { window, .. } => !window.is_empty(),
                _ => true,
            };
            if waits {
                link.reset(self.now);
            }
        }
        let connection = link.connection;
        let mut out = Vec::new();
        match &mut link.state {
            State::Idle => {
                link.state = State::Asked;
                link.heard = self.now;
                out.push(Message::Hello);
            }
            State::Asked | State::Giving(..) => {}
            State::Shipping { sent, has, window, short, .. } => {
                if window.is_empty() && *short {
                    *sent = data.resume(&there, has);
                    *short = false;
                }
                if window.is_empty() && data.must_give_rows(&there, sent).unwrap_or(false) {
                    let begun = link.giving.take().filter(|(life, _)| *life == link.life).map(|(_, giving)| giving);
                    if begun.is_none() {
                        self.stats.rows_given += 1;
                    }
                    let giving = begun.unwrap_or_else(|| data.begin_giving(&there));
                    if let Ok(part) = data.part(&giving, 600) {
                        link.batches += 1;
                        link.state = State::Giving(link.batches, Box::new(part.clone()));
                        link.heard = self.now;
                        out.push(Message::Part(link.batches, Box::new(part)));
                    }
                    link.giving = Some((link.life, giving));
                } else {
                    while !*short && window.len() < WINDOW {
                        let Ok(batch) = data.outgoing(&there, sent, 500) else { break };
                        if batch.is_empty() {
                            break;
                        }
                        if window.is_empty() {
                            link.heard = self.now;
                        }
                        batch.iter().for_each(|shipment| sent.advance(shipment.position()));
                        link.batches += 1;
                        window.push_back(InFlight { number: link.batches, expected: sent.clone() });
                        out.push(Message::Ship(link.batches, data.life(), batch));
                    }
                }
            }
        }
        for message in out {
            self.send((from, to), false, connection, message);
        }
    }

    async fn arrive(&mut self, parcel: Parcel) -> Result<(), String> {
        let Parcel { from, to, back, connection, .. } = parcel;
        let receiver = if back { from } else { to };
        if self.sites[receiver].process != parcel.process {
            return Ok(());
        }
        if self.sites[receiver].data.is_some() && self.sites[receiver].paused {
            // Its sockets keep it for the process.
            self.after(100, Event::Arrive(Box::new(parcel)));
            return Ok(());
        }
        let Some(data) = self.up(receiver) else { return Ok(()) };
        if back {
            if self.links[from][to].connection == connection {
                self.answered((from, to), &data, parcel.message);
            }
            return Ok(());
        }
        let here = self.sites[from].id.clone();
        let answer = match parcel.message {
            Message::Hello => Message::Report(data.vector()),
            Message::Ship(number, life, batch) => match data.receive_in_life(&here, Some(life), batch).await {
                Ok(received) => Message::Shipped(number, received),
                Err(data::DataError::EndedLife { .. }) => Message::Refused,
                Err(error) => {
                    self.failed(to, &error.to_string())?;
                    Message::Refused
                }
            },
            Message::Part(number, part) => {
                let key = |address: &Option<model::record::Address>| address.as_ref().map(ToString::to_string);
                self.note(|| {
                    format!(
                        "{to} is given {} rows of {from}, {:?} to {:?}",
                        part.rows.len(),
                        key(&part.after),
                        key(&part.upto)
                    )
                });
                match data.take_part(&here, *part).await {
                    Ok(received) => Message::PartTaken(number, received),
                    Err(data::DataError::EndedLife { .. } | data::DataError::BadPart { .. }) => Message::Refused,
                    Err(error) => {
                        self.failed(to, &error.to_string())?;
                        Message::Refused
                    }
                }
            }
            _ => return Ok(()),
        };
        self.send((from, to), true, connection, answer);
        Ok(())
    }

    fn answered(&mut self, (from, to): (usize, usize), data: &DataPlane, message: Message) {
        let there = self.sites[to].id.clone();
        let now = self.now;
        let link = &mut self.links[from][to];
        let shipping = |sent: PositionVector, has: PositionVector| State::Shipping {
            sent,
            has,
            window: VecDeque::new(),
            answers: Default::default(),
            short: false,
        };
        // A process that has begun meanwhile is not the one that said how far it is.
        if let Message::Shipped(_, received) | Message::PartTaken(_, received) = &message
            && received.vector.newest(&there).unwrap_or_default() != link.life
        {
            return link.reset(now);
        }
        match (message, &mut link.state) {
            (Message::Report(vector), State::Asked) => {
                link.heard = now;
                link.life = vector.newest(&there).unwrap_or_default();
                let sent = data.resume(&there, &vector);
                link.state = shipping(sent, vector);
            }
            (Message::Shipped(number, received), State::Shipping { has, window, answers, short, .. }) => {
                answers.insert(number, received);
                while let Some(answer) = window.front().and_then(|first| answers.remove(&first.number)) {
                    link.heard = now;
                    let first = window.pop_front().expect("it was there");
                    *short |= !answer.vector.includes(&first.expected);
                    has.join(&answer.vector);
                    data.shipped(&there, &first.expected, &answer);
                }
            }
            (Message::PartTaken(number, received), State::Giving(asked, part)) if number == *asked => {
                link.heard = now;
                let part = std::mem::replace(part, Box::new(empty_part()));
                if let Some((_, giving)) = &mut link.giving
                    && part.after == giving_after(giving)
                {
                    let done = data.part_taken(giving, &part, &received);
                    if done {
                        link.giving = None;
                    }
                }
                let sent = data.resume(&there, &received.vector);
                link.state = shipping(sent, received.vector);
            }
            (Message::Refused, state) => {
                if matches!(state, State::Giving(..)) {
                    link.giving = None;
                }
                link.reset(now);
            }
            _ => {}
        }
    }

    /// Whether nothing is left to be done.
    fn settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    fn unsettled(&self) -> String {
        let vectors: Vec<_> = self.sites.iter().map(|site| site.data.as_ref().map(DataPlane::vector)).collect();
        let mut all = PositionVector::new();
        vectors.iter().flatten().for_each(|vector| all.join(vector));
        for (number, vector) in vectors.iter().enumerate() {
            let Some(vector) = vector else { return format!("{number} is down") };
            if let Some((origin, life, end)) = all.beyond(vector).iter().next() {
                return format!("{number} has {} of {end} of {origin}/{}", vector.offset(origin, life), life.0);
            }
        }
        for (number, site) in self.sites.iter().enumerate() {
            let waits = site.data.as_ref().is_some_and(|data| data.damage().waiting > 0);
            if waits || self.options.rot && site.rotten {
                return format!("{number} has damaged rows");
            }
        }
        for (from, links) in self.links.iter().enumerate() {
            for (to, link) in links.iter().enumerate().filter(|(to, _)| *to != from) {
                let data = self.sites[from].data.as_ref().expect("all are up");
                match &link.state {
                    State::Shipping { window, sent, .. } if window.is_empty() => {
                        if data.must_give_rows(&self.sites[to].id, sent).unwrap_or(true) {
                            return format!("{from} has to give rows to {to}");
                        }
                    }
                    _ => return format!("the link from {from} to {to} is not at rest"),
                }
            }
        }
        if self.pending.is_empty() { String::new() } else { "clients wait".into() }
    }
}

fn empty_part() -> model::snapshot::SnapshotPart {
    model::snapshot::SnapshotPart {
        began: PositionVector::new(),
        vector: PositionVector::new(),
        partial: BTreeSet::new(),
        after: None,
        upto: None,
        rows: Vec::new(),
    }
}

fn giving_after(giving: &data::Giving) -> Option<model::record::Address> {
    giving.after().cloned()
}
