//! A link between two regions that both live, seen by the detector alone: probes, losses, jitter and pauses in
//! virtual time. Every time that the detector calls the other region down, it is wrong.
//!
//! The same seed gives the same run. Two kinds of links are known. On one of *datagrams* each probe is lost by
//! itself. On one of a *stream* a loss holds up whatever was sent behind it until it is repeated, first after a
//! retransmission timeout and then after twice that, as the emulated links of the daemon have it: probes travel on one
//! connection. TCP repairs most losses sooner than that, so the truth about a real path lies between the two.

use std::collections::{BTreeSet, VecDeque};

use model::routing::RegionState;
use model::{Micros, Mono, RegionId};
use routing::HealthTracker;

/// Between two probes (`EVERY` of the daemon's `probes.rs`).
const EVERY: u64 = 100_000;
/// The least that a retransmission takes longer than a round trip (Linux: `TCP_RTO_MIN`).
const RETRANSMISSION: u64 = 200_000;

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

/// The simulated link and the detector at its end.
pub struct Link {
    weather: Weather,
    random: Random,
    peer: RegionId,
    tracker: HealthTracker,
    now: u64,
    /// When the last bytes of each direction arrived, for streams.
    arrived: [u64; 2],
    /// The current pause begins and ends then.
    pause: (u64, u64),
    /// What comes of probes, by time.
    outcomes: VecDeque<(u64, Option<u64>)>,
    dead: bool,
    downs: u64,
    called_down: u64,
}

impl Link {
    pub fn new(weather: Weather, seed: u64) -> Self {
        let peer = RegionId::new("eu-west").expect("a name");
        let tracker = HealthTracker::new(BTreeSet::from([peer.clone()]));
        let random = Random(seed);
        let mut link = Self {
            weather,
            random,
            peer,
            tracker,
            now: 0,
            arrived: [0; 2],
            pause: (0, 0),
            outcomes: VecDeque::new(),
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
        while self.tracker.state(&self.peer) != RegionState::Down {
            self.step();
        }
        self.dead = false;
        self.arrived = [0; 2];
        self.called_down - died
    }

    /// Waits until the region is taken for well.
    pub fn settle(&mut self) {
        while self.tracker.state(&self.peer) != RegionState::Ready {
            self.step();
        }
    }

    fn step(&mut self) {
        self.send();
        self.now += EVERY;
        while let Some((due, outcome)) = self.outcomes.front().copied().filter(|(due, _)| *due <= self.now) {
            self.outcomes.pop_front();
            let was = self.tracker.state(&self.peer);
            self.tracker.handle_probe(&self.peer, outcome.map(Micros), Mono(due / 1000));
            let is = self.tracker.state(&self.peer);
            if was != RegionState::Down && is == RegionState::Down {
                (self.downs, self.called_down) = (self.downs + 1, due);
            }
            if is == RegionState::CatchingUp {
                self.tracker.caught_up(&self.peer, true);
            }
        }
    }

    fn send(&mut self) {
        let patience = self.tracker.patience(&self.peer).0;
        let answer = self.answer().filter(|trip| *trip <= patience);
        let due = self.now + answer.unwrap_or(patience);
        let at = self.outcomes.iter().rposition(|(other, _)| *other <= due).map_or(0, |at| at + 1);
        self.outcomes.insert(at, (due, answer));
    }

    /// How long the answer to a probe that is sent now takes; nothing where there will be none.
    fn answer(&mut self) -> Option<u64> {
        if self.dead {
            return None;
        }
        let there = self.way(0, self.now)?;
        let ready = self.answered(there);
        Some(self.way(1, ready)? - self.now)
    }

    /// When what is sent at `sent` arrives.
    fn way(&mut self, direction: usize, sent: u64) -> Option<u64> {
        let Weather { kind, loss, round_trip, jitter, .. } = self.weather;
        let half = round_trip as f64 / 2.0;
        let mut due = sent + (half * (1.0 + jitter * (2.0 * self.random.share() - 1.0))) as u64;
        if kind == Kind::Datagrams {
            return (self.random.share() >= loss).then_some(due);
        }
        let mut timeout = round_trip + RETRANSMISSION;
        due = due.max(self.arrived[direction]);
        while self.random.share() < loss {
            due += timeout;
            timeout *= 2;
        }
        self.arrived[direction] = due;
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
