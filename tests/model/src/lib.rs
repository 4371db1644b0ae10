//! The rules of the primary's term and lease, explored exhaustively for three regions.
//!
//! The model has what `runtime/control` and the consensus under it promise each other and nothing else: votes ordered by
//! (term, region), followers that vote for nobody else for [`PROMISE`] after they heard from a leader, a leader that
//! answers for the primary while a majority answered what it sent less than [`LEASE`] ago, hand-overs, crashes that
//! forget everything but the vote, regions that are paused. Messages are delivered in any order, late, or never.
//!
//! Time advances in steps, for everybody at once, and without end: a state holds how much is left of every promise and
//! lease, and not when it began. The ratio of promise and lease is what matters, not their length.
//! What is checked in every state: at most one region may answer, and never for an older fence than one that could
//! answer before. [`Fault`] breaks one rule each, and the checker must notice.

use std::collections::BTreeSet;

use stateright::{Model, Property};

/// Regions.
pub const REGIONS: usize = 3;
/// For how many steps a follower votes for nobody else.
pub const PROMISE: u8 = 3;
/// For how many steps after the sending a leader may answer.
pub const LEASE: u8 = 2;

/// A term and whose it is; the order is that of the fence.
pub type Vote = (u8, usize);

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The lease lasts longer than the promise.
    LeaseWithoutMargin,
    /// A region that was restarted votes at once, whatever it promised before.
    RestartForgets,
    /// The leader's clock stands still while it is paused.
    ClockStopsInSleep,
    /// A leader that hands its place over goes on answering.
    HandOverKeepsLease,
}

/// How much may happen.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The highest term.
    pub terms: u8,
    /// Messages under way at once.
    pub messages: usize,
    /// Crashes, pauses and hand-overs.
    pub mishaps: [u8; 3],
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Primary {
    /// What is broken, if anything.
    pub fault: Option<Fault>,
    /// How much may happen.
    pub bounds: Bounds,
}

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// It votes.
    Follower,
    /// It asked for votes, and has these.
    Candidate([bool; REGIONS]),
    /// It leads. For each region, how much of the lease is left by the newest message that it answered.
    Leader([u8; REGIONS]),
}

/// One region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region {
    /// On disk.
    pub vote: Vote,
    /// What it is.
    pub role: Role,
    /// For how long it votes for nobody else.
    pub promised: u8,
    /// Whether it handed its place over in this term.
    pub gave_up: bool,
    /// Whether it is paused.
    pub paused: bool,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// Asks for a vote; on a leader's behalf, promises do not count.
    Ask {
        /// The voter.
        to: usize,
        /// For which term, and whom.
        vote: Vote,
        /// Whether the leader handed its place over.
        handed: bool,
    },
    /// Gives it.
    Give {
        /// The voter.
        from: usize,
        /// To what it votes.
        vote: Vote,
    },
    /// What a leader sends.
    Append {
        /// The follower.
        to: usize,
        /// Whose message it is.
        vote: Vote,
        /// How much is left of the lease that an answer gives.
        left: u8,
    },
    /// That it was taken.
    Answer {
        /// The follower.
        from: usize,
        /// The leader.
        to: usize,
        /// What was taken.
        vote: Vote,
        /// How much is left of the lease that it gives.
        left: u8,
    },
    /// Asks a region to take the place of the leader.
    Take {
        /// The heir.
        to: usize,
        /// The leader's term.
        vote: Vote,
    },
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The regions.
    pub regions: [Region; REGIONS],
    /// What is under way.
    pub messages: BTreeSet<Message>,
    /// Crashes, pauses and hand-overs that are left.
    pub left: [u8; 3],
    /// The newest fence under which a region could answer so far.
    pub answered: Vote,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passes.
    Tick,
    /// A region asks for votes.
    Elect(usize),
    /// A leader lets the others hear from it.
    Beat(usize),
    /// A leader hands its place over.
    HandOver(usize, usize),
    /// A region crashes and comes back.
    Crash(usize),
    /// A region is paused.
    Pause(usize),
    /// It wakes.
    Wake(usize),
    /// A message arrives.
    Deliver(Message),
    /// A message is lost.
    Lose(Message),
}

fn majority(count: usize) -> bool {
    count * 2 > REGIONS
}

impl Primary {
    fn lease(&self) -> u8 {
        if self.fault == Some(Fault::LeaseWithoutMargin) { PROMISE + 2 } else { LEASE }
    }

    /// Whether a region may answer for the primary.
    pub fn answers(&self, state: &State, at: usize) -> bool {
        let region = &state.regions[at];
        let Role::Leader(acks) = region.role else {
            return false;
        };
        if region.paused || (region.gave_up && self.fault != Some(Fault::HandOverKeepsLease)) {
            return false;
        }
        majority(1 + (0..REGIONS).filter(|other| *other != at && acks[*other] > 0).count())
    }

    /// Whether time stands still for what a region sent.
    fn sleeps(&self, region: &Region) -> bool {
        region.paused && self.fault == Some(Fault::ClockStopsInSleep)
    }

    fn ask_for_votes(state: &mut State, at: usize, handed: bool) {
        let region = &mut state.regions[at];
        region.vote = (region.vote.0 + 1, at);
        region.gave_up = false;
        let mut given = [false; REGIONS];
        given[at] = true;
        region.role = Role::Candidate(given);
        let vote = region.vote;
        let asks = (0..REGIONS).filter(|to| *to != at).map(|to| Message::Ask { to, vote, handed });
        state.messages.extend(asks);
    }

    fn deliver(&self, state: &mut State, message: Message) {
        match message {
            Message::Ask { to, vote, handed } => {
                let leads = self.answers(state, to);
                let region = &mut state.regions[to];
                if vote > region.vote && (handed || (region.promised == 0 && !leads)) {
                    (region.vote, region.role, region.gave_up) = (vote, Role::Follower, false);
                    state.messages.insert(Message::Give { from: to, vote });
                }
            }
            Message::Give { from, vote } => {
                let region = &mut state.regions[vote.1];
                if region.vote != vote {
                    return;
                }
                if let Role::Candidate(given) = &mut region.role {
                    given[from] = true;
                    if majority(given.iter().filter(|given| **given).count()) {
                        region.role = Role::Leader([0; REGIONS]);
                    }
                }
            }
            Message::Append { to, vote, left } => {
                let region = &mut state.regions[to];
                if vote < region.vote || vote.1 == to {
                    return;
                }
                if vote > region.vote || !matches!(region.role, Role::Follower) {
                    (region.role, region.gave_up) = (Role::Follower, false);
                }
                region.vote = vote;
                region.promised = PROMISE;
                if left > 0 {
                    state.messages.insert(Message::Answer { from: to, to: vote.1, vote, left });
                }
            }
            Message::Answer { from, to, vote, left } => {
                let region = &mut state.regions[to];
                if region.vote != vote {
                    return;
                }
                if let Role::Leader(acks) = &mut region.role {
                    acks[from] = acks[from].max(left);
                }
            }
            Message::Take { to, vote } => {
                if state.regions[to].vote == vote && state.regions[to].vote.0 < self.bounds.terms {
                    Self::ask_for_votes(state, to, true);
                }
            }
        }
    }
}

impl Model for Primary {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        let region = Region { vote: (0, 0), role: Role::Follower, promised: 0, gave_up: false, paused: false };
        let left = self.bounds.mishaps;
        vec![State { regions: [region; REGIONS], messages: BTreeSet::new(), left, answered: (0, 0) }]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        events.push(Event::Tick);
        // The regions are alike: call the one that asks first the first.
        let begun = state.regions.iter().any(|region| region.vote != (0, 0));
        for (at, region) in state.regions.iter().enumerate() {
            if region.paused {
                events.push(Event::Wake(at));
                continue;
            }
            let leads = matches!(region.role, Role::Leader(_));
            if !leads && region.vote.0 < self.bounds.terms && region.promised == 0 && (begun || at == 0) {
                events.push(Event::Elect(at));
            }
            if leads && !region.gave_up {
                events.push(Event::Beat(at));
                if state.left[2] > 0 {
                    events.extend((0..REGIONS).filter(|to| *to != at).map(|to| Event::HandOver(at, to)));
                }
            }
            if state.left[0] > 0 && region.vote != (0, 0) {
                events.push(Event::Crash(at));
            }
            // Only who leads has anything to lose by sleeping; a follower that sleeps is one whose messages are late.
            if state.left[1] > 0 && leads {
                events.push(Event::Pause(at));
            }
        }
        for message in &state.messages {
            let to = match *message {
                Message::Ask { to, .. } | Message::Append { to, .. } | Message::Take { to, .. } => to,
                Message::Answer { to, .. } => to,
                Message::Give { vote, .. } => vote.1,
            };
            if !state.regions[to].paused {
                events.push(Event::Deliver(*message));
            }
            // One that stays under way is as good as lost: losing it makes room, and nothing else.
            if state.messages.len() == self.bounds.messages {
                events.push(Event::Lose(*message));
            }
        }
    }

    fn next_state(&self, before: &State, event: Event) -> Option<State> {
        let mut state = before.clone();
        match event {
            Event::Tick => {
                let still = before.regions.map(|region| self.sleeps(&region));
                for (at, region) in state.regions.iter_mut().enumerate() {
                    region.promised = region.promised.saturating_sub(1);
                    if let Role::Leader(acks) = &mut region.role
                        && !still[at]
                    {
                        acks.iter_mut().for_each(|left| *left = left.saturating_sub(1));
                    }
                }
                let older = |message: &Message| match *message {
                    Message::Append { to, vote, left } if !still[vote.1] => {
                        Some(Message::Append { to, vote, left: left.saturating_sub(1) })
                    }
                    // An answer that gives no lease any more says nothing.
                    Message::Answer { from, to, vote, left } if !still[to] => {
                        (left > 1).then(|| Message::Answer { from, to, vote, left: left - 1 })
                    }
                    other => Some(other),
                };
                state.messages = before.messages.iter().filter_map(older).collect();
            }
            Event::Elect(at) => Self::ask_for_votes(&mut state, at, false),
            Event::Beat(at) => {
                let (vote, left) = (state.regions[at].vote, self.lease());
                let all = (0..REGIONS).filter(|to| *to != at);
                state.messages.extend(all.map(|to| Message::Append { to, vote, left }));
            }
            Event::HandOver(at, to) => {
                state.left[2] -= 1;
                state.regions[at].gave_up = true;
                state.messages.insert(Message::Take { to, vote: state.regions[at].vote });
            }
            Event::Crash(at) => {
                state.left[0] -= 1;
                let region = &mut state.regions[at];
                let forgets = self.fault == Some(Fault::RestartForgets);
                region.promised = if forgets { 0 } else { PROMISE };
                (region.role, region.gave_up) = (Role::Follower, false);
            }
            Event::Pause(at) => {
                state.left[1] -= 1;
                state.regions[at].paused = true;
            }
            Event::Wake(at) => state.regions[at].paused = false,
            Event::Lose(message) => drop(state.messages.remove(&message)),
            Event::Deliver(message) => {
                state.messages.remove(&message);
                self.deliver(&mut state, message);
            }
        }
        if state == *before {
            return None;
        }
        let newest = (0..REGIONS).filter(|at| self.answers(&state, *at)).map(|at| state.regions[at].vote).max();
        // An older fence than before stays visible in the state: the property looks at it.
        state.answered = state.answered.max(newest.unwrap_or_default());
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one region answers for the primary", |model: &Self, state: &State| {
                (0..REGIONS).filter(|at| model.answers(state, *at)).count() <= 1
            }),
            Property::always("nobody answers for an older fence", |model: &Self, state: &State| {
                (0..REGIONS).all(|at| !model.answers(state, at) || state.regions[at].vote >= state.answered)
            }),
            // Without these the two above would hold in a model where nothing happens.
            Property::sometimes("a region answers", |model: &Self, state: &State| {
                (0..REGIONS).any(|at| model.answers(state, at))
            }),
            Property::sometimes("another region answers after the first", |model: &Self, state: &State| {
                state.answered.0 > 1 && (0..REGIONS).any(|at| model.answers(state, at))
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.messages.len() <= self.bounds.messages
    }
}
