//! What the regions agree on: the policy generation in force, and what operators ordered.
//!
//! Every region applies the same commands in the same order to the same state, so nothing
//! here may depend on anything else. A command is checked when it is applied, not when it is
//! handed in: of two that were handed in at once, the second one sees the first.

use model::RegionId;
use model::bundle::{SignedBundle, TreeHash};
use model::codec::{self, CodecError, Format};
use model::control::Fence;
use model::orders::{Order, Orders};
use serde::{Deserialize, Serialize};

/// What can be ordered. New kinds go to the end: stored logs name them by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The next policy generation.
    Generation(Proposed),
    /// An operator's order about the traffic of a region.
    Order {
        /// The revision of the orders that it was checked against.
        seen: u64,
        /// The order.
        order: Order,
    },
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Generation(next) => write!(f, "generation {} ({})", next.number, next.hash),
            Self::Order { order, .. } => order.fmt(f),
        }
    }
}

/// A generation that is handed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// Its number.
    pub number: u64,
    /// The files that it grew from.
    pub parent: Option<TreeHash>,
    /// Its files.
    pub hash: TreeHash,
    /// All of it, signed. Receivers check the signature and that it says the same.
    pub bundle: SignedBundle,
}

/// A generation that was agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Under which fence.
    pub fence: Fence,
    /// What.
    pub generation: Proposed,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is in force.
    Done,
    /// It grew from other files than those that are in force.
    Stale {
        /// The generation in force.
        number: u64,
        /// Its files.
        hash: TreeHash,
    },
    /// An entry that orders nothing.
    Nothing,
    /// Other orders were given since those that it was checked against.
    OrdersChanged {
        /// Their revision.
        revision: u64,
    },
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Stale { number, hash } => write!(f, "stale: generation {number} ({hash}) is in force"),
            Self::Nothing => f.write_str("nothing"),
            Self::OrdersChanged { revision } => write!(f, "other orders were given meanwhile: revision {revision}"),
        }
    }
}

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlState {
    /// The generation in force; none before the first.
    pub generation: Option<Decided>,
    /// Under which fence the last entry was written.
    pub fence: Option<Fence>,
    /// What operators ordered.
    pub orders: Orders,
}

impl Format for ControlState {
    const KIND: u8 = 0x30;
    const VERSION: u8 = 2;
    const NAME: &'static str = "state of the common log";
}

/// The state as format 1 had it: without orders.
#[derive(Serialize, Deserialize)]
struct WithoutOrders {
    generation: Option<Decided>,
    fence: Option<Fence>,
}

impl Format for WithoutOrders {
    const KIND: u8 = 0x30;
    const VERSION: u8 = 1;
    const NAME: &'static str = "state of the common log";
}

impl ControlState {
    /// Reads a state of this format or an earlier one.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.get(1) == Some(&WithoutOrders::VERSION) {
            let WithoutOrders { generation, fence } = codec::decode(bytes)?;
            return Ok(Self { generation, fence, orders: Orders::default() });
        }
        codec::decode(bytes)
    }
}

impl ControlState {
    /// Applies a command that was written under `fence`.
    pub fn apply(&mut self, fence: Fence, command: Option<Command>) -> Outcome {
        self.fence = Some(fence);
        match command {
            None => Outcome::Nothing,
            Some(Command::Generation(next)) => self.next_generation(fence, next),
            Some(Command::Order { seen, order }) => match self.orders.take(seen, order) {
                true => Outcome::Done,
                false => Outcome::OrdersChanged { revision: self.orders.revision },
            },
        }
    }

    fn next_generation(&mut self, fence: Fence, next: Proposed) -> Outcome {
        if let Some(Decided { generation: now, .. }) = &self.generation {
            let again = now.hash == next.hash && now.number == next.number;
            if !again && (next.number != now.number + 1 || next.parent != Some(now.hash)) {
                return Outcome::Stale { number: now.number, hash: now.hash };
            }
            if again {
                return Outcome::Done;
            }
        }
        self.generation = Some(Decided { fence, generation: next });
        Outcome::Done
    }
}

/// Where a voter sits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The name of its region.
    pub region: String,
}

impl Seat {
    /// The seat of a region.
    pub fn of(region: &RegionId) -> Self {
        Self { region: region.to_string() }
    }

    /// Its region, where the name is one.
    pub fn region(&self) -> Option<RegionId> {
        RegionId::new(&self.region).ok()
    }
}

#[cfg(test)]
mod tests {
    use model::UnixMillis;
    use model::bundle::PolicyTree;
    use model::control::ControlNode;
    use model::orders::{Wish, Word};

    use super::*;

    fn hash(text: &str) -> TreeHash {
        PolicyTree([("a.scm".to_owned(), text.to_owned())].into()).hash()
    }

    fn next(number: u64, parent: Option<&str>, files: &str) -> Option<Command> {
        let bundle = SignedBundle { bundle: files.into(), signature: vec![] };
        Some(Command::Generation(Proposed { number, parent: parent.map(hash), hash: hash(files), bundle }))
    }

    #[test]
    fn of_two_generations_that_grew_from_the_same_files_only_one_comes_into_force() {
        let mut state = ControlState::default();
        let fence = |term| Fence { term, node: ControlNode(7) };
        // The first may have any number: a deployment from before the common log brings its own.
        assert_eq!(state.apply(fence(1), next(7, Some("before"), "a")), Outcome::Done);
        assert_eq!(state.apply(fence(1), next(8, Some("a"), "b")), Outcome::Done);
        let stale = Outcome::Stale { number: 8, hash: hash("b") };
        assert_eq!(state.apply(fence(2), next(8, Some("a"), "c")), stale);
        assert_eq!(state.apply(fence(2), next(9, Some("a"), "c")), stale);
        assert_eq!(state.apply(fence(2), next(10, Some("b"), "c")), stale);
        // Handed in again because the answer was lost.
        assert_eq!(state.apply(fence(2), next(8, Some("a"), "b")), Outcome::Done);
        assert_eq!(state.generation.as_ref().unwrap().fence, fence(1));
        assert_eq!(state.fence, Some(fence(2)));
        assert_eq!(state.apply(fence(3), None), Outcome::Nothing);
        assert_eq!(state.fence, Some(fence(3)));
    }

    #[test]
    fn what_is_stored_is_read_back_and_damage_is_noticed() {
        let mut state = ControlState::default();
        state.apply(Fence { term: 1, node: ControlNode(7) }, next(1, None, "a"));
        let mut bytes = model::codec::encode(&state);
        assert_eq!(ControlState::read(&bytes).unwrap(), state);
        bytes[9] ^= 1;
        assert!(ControlState::read(&bytes).is_err());
    }

    #[test]
    fn a_state_from_before_there_were_orders_is_read() {
        let mut state = ControlState::default();
        state.apply(Fence { term: 1, node: ControlNode(7) }, next(1, None, "a"));
        let old = WithoutOrders { generation: state.generation.clone(), fence: state.fence };
        assert_eq!(ControlState::read(&codec::encode(&old)).unwrap(), state);
    }

    #[test]
    fn an_order_that_was_checked_against_other_orders_is_not_carried_out() {
        let mut state = ControlState::default();
        let fence = Fence { term: 1, node: ControlNode(7) };
        let order = |seen, name: &str| {
            let word = Word { by: "ops".into(), why: "a test".into(), at: UnixMillis(1), until: None };
            let order = Order { wish: Wish::Drain, region: RegionId::new(name).unwrap(), word };
            Some(Command::Order { seen, order })
        };
        assert_eq!(state.apply(fence, order(0, "us-east")), Outcome::Done);
        assert_eq!(state.apply(fence, order(0, "eu-west")), Outcome::OrdersChanged { revision: 1 });
        assert_eq!(state.orders.out.len(), 1);
    }
}
