//! The links: what the shipping task of a daemon does, over a network that delays, loses, doubles, reorders, cuts and
//! holds.
//!
//! A message that is lost breaks the connection some time later, as TCP does; whatever was under way on it may still
//! arrive.

use std::collections::{BTreeMap, VecDeque};

use data::{Giving, Received};
use model::record::Shipment;
use model::snapshot::SnapshotPart;
use model::version::{Incarnation, PositionVector};

use crate::random::Random;

/// Batches under way on one connection.
pub const WINDOW: usize = 4;
/// How long a connection stays without an answer, in milliseconds.
pub const PATIENCE: u64 = 2_500;

/// What is sent.
#[derive(Clone, Debug)]
pub enum Message {
    /// How far are you?
    Hello,
    /// So far.
    Report(PositionVector),
    /// Entries, from a sender in this life.
    Ship(u64, Incarnation, Vec<Shipment>),
    /// Rows.
    Part(u64, Box<SnapshotPart>),
    /// The answer to a batch.
    Shipped(u64, Received),
    /// The answer to rows.
    PartTaken(u64, Received),
    /// Not taken.
    Refused,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The sending region of the link that it belongs to.
    pub from: usize,
    /// The receiving region of that link.
    pub to: usize,
    /// Whether it goes back from `to` to `from`.
    pub back: bool,
    /// The connection.
    pub connection: u64,
    /// The process that it goes to: a connection ends with it.
    pub process: u64,
    /// What is in it.
    pub message: Message,
}

/// How a directed pair of regions is connected.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The least delay, in milliseconds.
    pub delay: u64,
    /// By how much it varies.
    pub jitter: u64,
    /// One of so many is lost; 0 for none.
    pub loss: u64,
    /// One of so many arrives twice; 0 for none.
    pub double: u64,
    /// Nothing arrives.
    pub cut: bool,
    /// What is sent arrives no sooner than this.
    pub held_until: u64,
}

impl Weather {
    /// An ordinary link.
    pub fn fair(random: &mut Random) -> Self {
        let delay = random.between(5, 110);
        Self { delay, jitter: random.between(1, 40), loss: 0, double: 20, cut: false, held_until: 0 }
    }

    /// When a parcel that is sent now arrives, and whether it does so again.
    pub fn arrivals(&self, now: u64, random: &mut Random) -> Vec<u64> {
        if self.cut || (self.loss > 0 && random.one_in(self.loss)) {
            return Vec::new();
        }
        let mut one =
            || (now + self.delay + random.below(self.jitter)).max(self.held_until + random.below(self.jitter));
        let first = one();
        let again = one();
        if self.double > 0 && random.one_in(self.double) { vec![first, again] } else { vec![first] }
    }
}

/// A batch under way: how far the peer must be once it has taken it.
#[derive(Debug)]
pub struct InFlight {
    /// Its number on the connection.
    pub number: u64,
    /// See above.
    pub expected: PositionVector,
}

/// The state of a link.
#[derive(Debug, Default)]
pub enum State {
    /// Nothing was asked yet.
    #[default]
    Idle,
    /// Asked how far the peer is.
    Asked,
    /// Shipping.
    Shipping {
        /// What was sent.
        sent: PositionVector,
        /// What the peer has.
        has: PositionVector,
        /// Batches without an answer.
        window: VecDeque<InFlight>,
        /// Answers that came before it was their turn.
        answers: BTreeMap<u64, Received>,
        /// An answer fell short.
        short: bool,
    },
    /// A part of the rows is under way, with its number on the connection.
    Giving(u64, Box<SnapshotPart>),
}

/// One direction between two regions.
#[derive(Debug, Default)]
pub struct Link {
    /// The number of the connection.
    pub connection: u64,
    /// Where it stands.
    pub state: State,
    /// When something was last heard or asked.
    pub heard: u64,
    /// Rows that are being given, and to which life of the peer.
    pub giving: Option<(Incarnation, Giving)>,
    /// The life of the peer on this connection.
    pub life: Incarnation,
    /// Numbers batches.
    pub batches: u64,
}

impl Link {
    /// The connection has ended.
    pub fn reset(&mut self, now: u64) {
        self.connection += 1;
        self.state = State::Idle;
        self.heard = now;
    }
}
