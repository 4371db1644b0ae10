//! Decides when a region is unwell.
//!
//! Probe results come in; a [`RegionState`] comes out. One lost probe means
//! nothing, because our links lose packets daily; a run of losses does, and so
//! does a long silence. An answer that comes too late ends such a run: the region is
//! slow, not gone. Where another region says that it is answered the run must be
//! longer, because our own path is then the likelier cause. Recovery takes longer
//! than failure, so that traffic does not swing back and forth: a run of good
//! answers, word that the region has taken over what it missed, and, for one that
//! was lost while it served, some seconds in which it is not lost again: five at
//! first, twice as many each time that it is lost within five minutes of its
//! return, sixty at most. For so long it is degraded: it serves where no other does.
//! Whether it limps meanwhile is for the policy, as ever.
//!
//! ```text
//!             good answer                 run of good answers, caught up
//!  Joining ---------------> CatchingUp --------------------------------+-> Ready
//!     |                      |     ^              where it was lost    |   |  ^ |  4 losses
//!     |  9 losses, silence   v     | good answer  while it served: Degraded |  | v  in a row
//!     +-------------------> Down --+                  |                |  Suspect
//!                            ^                        v                |   |
//!                            +------------------------+----------------+---+
//!                                      9 losses (14 where another region vouches), or silence
//!
//!  Ready, Suspect <--- steady again --- Degraded      (laid over this by `judgement`:
//!                 --- judged unwell -->                policy's wish, within bounds)
//! ```
//!
//! This module opens no socket and reads no clock: callers pass `now`.
//! Start with [`HealthTracker::handle_probe`].

use std::collections::{BTreeMap, BTreeSet};

use model::routing::{Observation, RegionState};
use model::{Micros, Millis, Mono, RegionId};

use crate::hold::{Hold, HoldLimits};

/// How many of the last probes an [`Observation`] counts; the bits of its record.
pub const WINDOW: u32 = 128;
/// The weight of a new round trip is 1 in this many (RFC 6298, section 2.3).
const SMOOTHING: u64 = 8;
/// A steady round trip moves only when the smoothed one is further off than this...
const STEADY_FLOOR: Micros = Micros(2_000);
/// ...and further off than one part in so many.
const STEADY_PART: u64 = 10;

/// A probe is lost after one and a half of its usual round trips and this much, ...
const SLACK: Micros = Micros::from_millis(100);
/// ... at least after this much, ...
const LEAST_PATIENCE: Micros = Micros::from_millis(250);
/// ... and after this much at most, or where no round trip is known yet.
const MOST_PATIENCE: Micros = Micros::from_millis(1000);

/// When to judge. The defaults are those that operators are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many losses in a row make a region suspect.
    pub suspect_after: u32,
    /// So many losses in a row take it down.
    pub down_after: u32,
    /// So many do where another region vouches for it.
    pub down_after_vouched: u32,
    /// A region vouches whose own run of losses there is this short, ...
    pub vouching_run: u32,
    /// ... for so long after it said so.
    pub vouching_for: Millis,
    /// So long without any answer takes it down at the next loss.
    pub silence: Millis,
    /// So many good answers in a row, once it is caught up, bring it back.
    pub up_after: u32,
    /// How long a region that was lost while it served must not be lost again.
    pub hold: HoldLimits,
    /// When the tracker itself has heard of no probe for so long, this process was asleep: the time is not held
    /// against anyone. Must be longer than a probe may take.
    pub own_pause: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            suspect_after: 4,
            down_after: 9,
            down_after_vouched: 14,
            vouching_run: 2,
            vouching_for: Millis(250),
            silence: Millis(1500),
            up_after: 10,
            hold: HoldLimits::default(),
            own_pause: Millis(1500),
        }
    }
}

#[derive(Clone, Debug)]
struct Peer {
    state: RegionState,
    losses_in_a_row: u32,
    good_in_a_row: u32,
    caught_up: bool,
    /// When it answered first after it was down.
    steady_since: Option<Mono>,
    hold: Hold,
    /// The last answer, or the first probe where there was none; moved on by our own pauses.
    heard: Option<Mono>,
    smoothed: Option<Micros>,
    steady: Option<Micros>,
    /// The last probes, newest in the lowest bit; a set bit is a loss.
    window: u128,
    probes: u32,
}

impl Peer {
    const NEW: Self = Self {
        state: RegionState::Joining,
        losses_in_a_row: 0,
        good_in_a_row: 0,
        caught_up: false,
        steady_since: None,
        hold: Hold::NONE,
        heard: None,
        smoothed: None,
        steady: None,
        window: 0,
        probes: 0,
    };

    fn record(&mut self, lost: bool) {
        self.window = (self.window << 1) | u128::from(lost);
        self.probes = (self.probes + 1).min(WINDOW);
    }

    fn answered(&mut self, round_trip: Micros, now: Mono, limits: &Limits) {
        if matches!(self.state, RegionState::Joining | RegionState::Down) {
            // It was not there: that is known and over, and must not look like a region that limps.
            (self.window, self.probes) = (0, 0);
        }
        self.record(false);
        self.heard = Some(now);
        self.losses_in_a_row = 0;
        self.good_in_a_row = self.good_in_a_row.saturating_add(1);
        self.measure(round_trip);
        self.steady_since.get_or_insert(now);
        self.state = match self.state {
            RegionState::Ready | RegionState::Suspect => RegionState::Ready,
            RegionState::Degraded => RegionState::Degraded,
            _ => RegionState::CatchingUp,
        };
        self.come_up(limits);
    }

    fn lost(&mut self, vouched: bool, now: Mono, limits: &Limits) {
        self.record(true);
        self.losses_in_a_row = self.losses_in_a_row.saturating_add(1);
        self.good_in_a_row = 0;
        let silent = now - *self.heard.get_or_insert(now) >= limits.silence;
        let enough = if vouched { limits.down_after_vouched } else { limits.down_after };
        if silent || self.losses_in_a_row >= enough {
            if self.state.serves() {
                self.hold.begin(&limits.hold, now);
            }
            (self.state, self.steady_since) = (RegionState::Down, None);
            // What it misses from here on has to be taken over first.
            self.caught_up = false;
        } else if self.state == RegionState::Ready && self.losses_in_a_row >= limits.suspect_after {
            self.state = RegionState::Suspect;
        }
    }

    fn come_up(&mut self, limits: &Limits) {
        let back = match self.state {
            RegionState::CatchingUp => self.caught_up && self.good_in_a_row >= limits.up_after,
            state => state == RegionState::Degraded,
        };
        if let Some(now) = self.heard.filter(|_| back) {
            self.state = RegionState::Degraded;
            if self.hold.is_over(self.steady_since, now) {
                self.state = RegionState::Ready;
                self.hold.end(now);
            }
        }
    }

    fn measure(&mut self, sample: Micros) {
        let smoothed = match self.smoothed {
            None => sample,
            Some(before) => Micros((before.0.saturating_mul(SMOOTHING - 1).saturating_add(sample.0)) / SMOOTHING),
        };
        self.smoothed = Some(smoothed);
        let moved =
            self.steady.is_none_or(|steady| smoothed.0.abs_diff(steady.0) > STEADY_FLOOR.0.max(steady.0 / STEADY_PART));
        if moved {
            // To the next whole millisecond, so that equal links compare as equal.
            self.steady = Some(Micros(smoothed.0.saturating_add(500) / 1000 * 1000));
        }
    }
}

/// The health of other regions, as this one sees it.
#[derive(Clone, Debug)]
pub struct HealthTracker {
    limits: Limits,
    peers: BTreeMap<RegionId, Peer>,
    /// When an observer (the first) last said that a peer (the second) answers it. At most one a pair.
    vouched: BTreeMap<(RegionId, RegionId), Mono>,
    last_event: Option<Mono>,
}

impl HealthTracker {
    /// A tracker of `peers`, all of them joining, with the default limits.
    pub fn new(peers: BTreeSet<RegionId>) -> Self {
        Self::with_limits(peers, Limits::default())
    }

    /// A tracker with limits of its own, for tests and drills.
    pub fn with_limits(peers: BTreeSet<RegionId>, limits: Limits) -> Self {
        Self {
            limits,
            peers: peers.into_iter().map(|id| (id, Peer::NEW)).collect(),
            vouched: BTreeMap::new(),
            last_event: None,
        }
    }

    /// Takes in the outcome of one probe: its round trip, or `None` for a loss. Regions that are not tracked are
    /// passed over.
    pub fn handle_probe(&mut self, region: &RegionId, round_trip: Option<Micros>, now: Mono) {
        self.forgive_own_pause(now);
        let Some(peer) = self.peers.get_mut(region) else { return };
        match round_trip {
            Some(round_trip) => peer.answered(round_trip, now, &self.limits),
            None => {
                let recent = |said: &Mono| now - *said <= self.limits.vouching_for;
                let vouched = self.vouched.iter().any(|((_, of), said)| of == region && recent(said));
                peer.lost(vouched, now, &self.limits);
            }
        }
    }

    /// Takes in what another region sees of the regions tracked here. Observers that are not tracked are passed over.
    pub fn handle_word(&mut self, observer: &RegionId, sees: &BTreeMap<RegionId, Observation>, now: Mono) {
        if !self.peers.contains_key(observer) {
            return;
        }
        for (of, seen) in sees.iter().filter(|(of, _)| *of != observer && self.peers.contains_key(*of)) {
            let pair = (observer.clone(), of.clone());
            if seen.losses_in_a_row <= self.limits.vouching_run {
                self.vouched.insert(pair, now);
            } else {
                self.vouched.remove(&pair);
            }
        }
    }

    /// Takes in that the answer to a probe came after it had counted as lost. The region lives and is slow: the run of
    /// losses ends, and the loss stays counted in its [`Observation`].
    pub fn handle_late(&mut self, region: &RegionId, now: Mono) {
        self.forgive_own_pause(now);
        if let Some(peer) = self.peers.get_mut(region).filter(|peer| peer.state != RegionState::Down) {
            peer.losses_in_a_row = 0;
            peer.heard = Some(now);
        }
    }

    /// Takes in whether a region has taken over what it missed. Only a region that is coming back is held up by it.
    pub fn caught_up(&mut self, region: &RegionId, caught_up: bool) {
        if let Some(peer) = self.peers.get_mut(region) {
            peer.caught_up = caught_up;
            peer.come_up(&self.limits);
        }
    }

    /// The state of a region; joining where it is not tracked.
    pub fn state(&self, region: &RegionId) -> RegionState {
        self.peers.get(region).map_or(RegionState::Joining, |peer| peer.state)
    }

    /// The state of every region tracked.
    pub fn states(&self) -> BTreeMap<RegionId, RegionState> {
        self.peers.iter().map(|(id, peer)| (id.clone(), peer.state)).collect()
    }

    /// The smoothed round trip, for status and metrics.
    pub fn round_trip(&self, region: &RegionId) -> Option<Micros> {
        self.peers.get(region)?.smoothed
    }

    /// How long the answer to a probe may take before it counts as lost: one and a half of the usual round trips and
    /// 100 ms, from 250 ms to 1 s; 1 s where no round trip is known yet.
    pub fn patience(&self, region: &RegionId) -> Micros {
        self.round_trip(region).map_or(MOST_PATIENCE, |trip| {
            Micros((trip.0.saturating_mul(3) / 2).saturating_add(SLACK.0)).clamp(LEAST_PATIENCE, MOST_PATIENCE)
        })
    }

    /// The round trip in steps of whole milliseconds, which stays until the smoothed one has left it by more than
    /// 2 ms and a tenth: for facts, so that jitter never makes a new routing plan.
    pub fn steady_round_trip(&self, region: &RegionId) -> Option<Micros> {
        self.peers.get(region)?.steady
    }

    /// The last 128 probes of a region, for `region-verdict`.
    pub fn observation(&self, region: &RegionId) -> Option<Observation> {
        let peer = self.peers.get(region)?;
        Some(Observation {
            probes: peer.probes,
            losses: peer.window.count_ones(),
            losses_in_a_row: peer.losses_in_a_row,
        })
    }

    /// What was seen of every region that was probed, as peers are told it.
    pub fn observations(&self) -> BTreeMap<RegionId, Observation> {
        let probed = self.peers.iter().filter(|(_, peer)| peer.probes > 0);
        probed.filter_map(|(id, _)| Some((id.clone(), self.observation(id)?))).collect()
    }

    /// The regions that have answered as often in a row as a region must that comes back from being down.
    pub fn recovered(&self) -> BTreeSet<RegionId> {
        let good = self.peers.iter().filter(|(_, peer)| peer.good_in_a_row >= self.limits.up_after);
        good.map(|(id, _)| id.clone()).collect()
    }

    fn forgive_own_pause(&mut self, now: Mono) {
        if let Some(last) = self.last_event {
            let gap = now - last;
            if gap > self.limits.own_pause {
                for peer in self.peers.values_mut() {
                    peer.heard = peer.heard.map(|heard| heard + gap);
                }
            }
        }
        self.last_event = Some(self.last_event.map_or(now, |last| last.max(now)));
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
