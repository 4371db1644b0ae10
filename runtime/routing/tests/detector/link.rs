//! A link between two regions that both live, seen by the detector alone: probes, losses, jitter and pauses in
//! virtual time. Every time that the detector calls the other region down, it is wrong.
//!
//! A third region sees the same region over a link of its own, and says so with its answers to our probes.
//!
//! The same seed gives the same run. Two kinds of links are known. On one of *datagrams* each probe is lost by
//! itself. On one of a *stream* a loss holds up whatever was sent behind it until it is repeated, first after a
//! retransmission timeout and then after twice that, as the emulated links of the daemon have it: probes travel on
//! [`LANES`] connections in turn. TCP repairs most losses sooner than that, so the truth about a real path lies between the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::routing::{Observation, RegionState};
use model::{Micros, Mono, RegionId};
use routing::HealthTracker;

/// Between two probes (`EVERY` of the daemon's `probes.rs`).
const EVERY: u64 = 50_000;
/// Connections that carry probes in turn (`PROBE_LANES` of `net`).
const LANES: usize = 3;
/// The least that a retransmission takes longer than a round trip (Linux: `TCP_RTO_MIN`).
const RETRANSMISSION: u64 = 200_000;
/// The round trip between the third region and the one that is watched, ...
const WITNESS_TRIP: u64 = 181_000;
/// ... and how long its word takes to us.
const WITNESS_WORD: u64 = 106_000;

/// How losses show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each probe by itself.
    Datagrams,
    /// As stalls of everything behind.
    Stream,
}

/// What a link does. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub kind: Kind,
    /// The share of packets lost, in each direction.
    pub loss: f64,
    pub round_trip: u64,
    /// The share of each way's delay by which it varies, to either side.
    pub jitter: f64,
    /// For how long the other region answers nothing, ...
    pub pause: u64,
    /// ... and how often, on average.
    pub pause_every: u64,
}

impl Weather {
    /// A link across the Atlantic, with pauses of 500 ms as often as that on average.
    pub const fn atlantic(kind: Kind, loss: f64, pause_every: u64) -> Self {
        Self { kind, loss, round_trip: 70_000, jitter: 0.2, pause: 500_000, pause_every }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    /// From 0, and below 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What the prober learns of one probe.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Answer(u64),
    Loss,
    Late,
    Word(u32),
}

/// One observer of the region: the probes that it has under way, and what it makes of them.
struct Sight {
    tracker: HealthTracker,
    round_trip: u64,
    /// When the last bytes of each direction arrived, for each stream.
    arrived: [[u64; 2]; LANES],
    /// How many probes were sent.
    sent: usize,
    /// What comes of probes, by time.
    outcomes: VecDeque<(u64, Seen)>,
}

impl Sight {
    fn new(peer: &RegionId, round_trip: u64) -> Self {
        Self {
            tracker: HealthTracker::new(BTreeSet::from([peer.clone(), witness()])),
            round_trip,
            arrived: [[0; 2]; LANES],
            sent: 0,
            outcomes: VecDeque::new(),
        }
    }

    fn learn(&mut self, due: u64, seen: Seen) {
        let at = self.outcomes.iter().rposition(|(other, _)| *other <= due).map_or(0, |at| at + 1);
        self.outcomes.insert(at, (due, seen));
    }

    /// Takes in what has come until `now`. Gives when the region was called down, if it was.
    fn catch_up(&mut self, peer: &RegionId, now: u64) -> Option<u64> {
        let mut down = None;
        while let Some((due, outcome)) = self.outcomes.front().copied().filter(|(due, _)| *due <= now) {
            self.outcomes.pop_front();
            let was = self.tracker.state(peer);
            let at = Mono(due / 1000);
            match outcome {
                Seen::Answer(trip) => self.tracker.handle_probe(peer, Some(Micros(trip)), at),
                Seen::Loss => self.tracker.handle_probe(peer, None, at),
                Seen::Late => self.tracker.handle_late(peer, at),
                Seen::Word(losses) => {
                    let seen = Observation { probes: 64, losses, losses_in_a_row: losses };
                    self.tracker.handle_word(&witness(), &BTreeMap::from([(peer.clone(), seen)]), at);
                }
            }
            let is = self.tracker.state(peer);
            if was != RegionState::Down && is == RegionState::Down {
                down = Some(due);
            }
            if is == RegionState::CatchingUp {
                self.tracker.caught_up(peer, true);
            }
        }
        down
    }
}

fn witness() -> RegionId {
    RegionId::new("ap-southeast").expect("a name")
}

/// The simulated link, the detector at its end, and the third region, which sees the same region over a link of its own.
pub struct Link {
    weather: Weather,
    random: Random,
    peer: RegionId,
    ours: Sight,
    theirs: Sight,
    now: u64,
    /// The current pause begins and ends then.
    pause: (u64, u64),
    dead: bool,
    downs: u64,
    called_down: u64,
}

impl Link {
    pub fn new(weather: Weather, seed: u64) -> Self {
        let peer = RegionId::new("eu-west").expect("a name");
        let mut link = Self {
            weather,
            random: Random(seed),
            ours: Sight::new(&peer, weather.round_trip),
            theirs: Sight::new(&peer, WITNESS_TRIP),
            peer,
            now: 0,
            pause: (0, 0),
            dead: false,
            downs: 0,
            called_down: 0,
        };
        link.next_pause(0);
        link
    }

    /// Lets so much time pass; gives how often the region was called down.
    pub fn run(&mut self, micros: u64) -> u64 {
        let (end, before) = (self.now + micros, self.downs);
        while self.now < end {
            self.step();
        }
        self.downs - before
    }

    /// The region dies somewhere between the last probe and the next, and answers that are under way still arrive.
    /// Gives the microseconds until it is called down. It lives again afterwards.
    pub fn crash(&mut self) -> u64 {
        let died = self.now - (self.random.share() * EVERY as f64) as u64;
        self.dead = true;
        while self.ours.tracker.state(&self.peer) != RegionState::Down {
            self.step();
        }
        self.dead = false;
        self.ours.arrived = [[0; 2]; LANES];
        self.theirs.arrived = [[0; 2]; LANES];
        self.called_down - died
    }

    /// Waits until the region is taken for well.
    pub fn settle(&mut self) {
        while self.ours.tracker.state(&self.peer) != RegionState::Ready
            || self.theirs.tracker.state(&self.peer) != RegionState::Ready
        {
            self.step();
        }
    }

    fn step(&mut self) {
        self.send(false);
        self.send(true);
        self.tell();
        self.now += EVERY;
        self.theirs.catch_up(&self.peer, self.now);
        if let Some(at) = self.ours.catch_up(&self.peer, self.now) {
            (self.downs, self.called_down) = (self.downs + 1, at);
        }
    }

    /// What the third region sees travels with its answers to our probes.
    fn tell(&mut self) {
        if self.random.share() >= self.weather.loss {
            let seen = self.theirs.tracker.observation(&self.peer).map_or(0, |seen| seen.losses_in_a_row);
            self.ours.learn(self.now + WITNESS_WORD, Seen::Word(seen));
        }
    }

    fn send(&mut self, witness: bool) {
        let now = self.now;
        let answer = self.answer(witness);
        let sight = if witness { &mut self.theirs } else { &mut self.ours };
        let patience = sight.tracker.patience(&self.peer).0;
        match answer {
            Some(trip) if trip <= patience => sight.learn(now + trip, Seen::Answer(trip)),
            answer => {
                sight.learn(now + patience, Seen::Loss);
                if let Some(trip) = answer {
                    sight.learn(now + trip, Seen::Late);
                }
            }
        }
    }

    /// How long the answer to a probe that is sent now takes; nothing where there will be none.
    fn answer(&mut self, witness: bool) -> Option<u64> {
        if self.dead {
            return None;
        }
        let there = self.way(witness, 0, self.now)?;
        let ready = self.answered(there);
        let back = self.way(witness, 1, ready)?;
        let sight = if witness { &mut self.theirs } else { &mut self.ours };
        sight.sent += 1;
        Some(back - self.now)
    }

    /// When what is sent at `sent` arrives.
    fn way(&mut self, witness: bool, direction: usize, sent: u64) -> Option<u64> {
        let Weather { kind, loss, jitter, .. } = self.weather;
        let sight = if witness { &mut self.theirs } else { &mut self.ours };
        let half = sight.round_trip as f64 / 2.0;
        let mut due = sent + (half * (1.0 + jitter * (2.0 * self.random.share() - 1.0))) as u64;
        if kind == Kind::Datagrams {
            return (self.random.share() >= loss).then_some(due);
        }
        let mut timeout = sight.round_trip + RETRANSMISSION;
        let arrived = &mut sight.arrived[sight.sent % LANES][direction];
        due = due.max(*arrived);
        while self.random.share() < loss {
            due += timeout;
            timeout *= 2;
        }
        *arrived = due;
        Some(due)
    }

    /// When a probe that arrives then is answered.
    fn answered(&mut self, arrived: u64) -> u64 {
        while arrived >= self.pause.1 {
            let end = self.pause.1;
            self.next_pause(end);
        }
        if arrived >= self.pause.0 { self.pause.1 } else { arrived }
    }

    fn next_pause(&mut self, after: u64) {
        // Exponential gaps: pauses come whenever they like.
        let gap = -(1.0 - self.random.share()).ln() * self.weather.pause_every as f64;
        let begin = after + gap as u64 + 1;
        self.pause = (begin, begin + self.weather.pause);
    }
}
