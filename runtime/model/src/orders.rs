//! What operators order about regions: who takes nobody new, whose clients go where, and who is the primary.
//!
//! ```text
//!   serving ──drain──▶ draining: nobody is sent there; what arrives all the same is served; data goes on
//!      ▲   └─evacuate─▶ evacuated: what arrives is handed to other regions, too, and it is not the primary
//!      └──── restore, or the end of the time that was stated
//! ```
//!
//! Orders stand in the log that the regions agree on; each region also keeps them on its own disk. An order that ends by
//! itself ends by the clock of each region.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{Country, RegionId};
use crate::radius::Moves;
use crate::routing::{ClientClass, RegionState};
use crate::units::{Millis, UnixMillis};

/// The most pins at a time.
pub const MOST_PINS: usize = 32;
/// The last orders are kept up to this many.
pub const MOST_PAST: usize = 50;
/// The longest reason or name of a person, in characters.
pub const LONGEST_WORDS: usize = 200;
/// The longest time that an order may state: what is to last is for the policies.
pub const LONGEST: Millis = Millis::from_secs(30 * 24 * 3600);

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// The region takes nobody new.
    Drain,
    /// It serves nobody, as long as another one does.
    Evacuate,
    /// What was ordered about the region ends, its pins included.
    Restore,
    /// These clients are served there first; all clients where none is named.
    Pin(BTreeSet<Country>),
    /// The region is the primary, whatever the configuration prefers.
    Lead,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => f.write_str("drain"),
            Self::Evacuate => f.write_str("evacuate"),
            Self::Restore => f.write_str("restore"),
            Self::Pin(clients) if clients.is_empty() => f.write_str("pin all clients to"),
            Self::Pin(clients) => {
                let clients: Vec<&str> = clients.iter().map(Country::as_str).collect();
                write!(f, "pin clients in {} to", clients.join(" "))
            }
            Self::Lead => f.write_str("give the place of the primary to"),
        }
    }
}

/// Who ordered something, why, when, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When, by the clock of the primary.
    pub at: UnixMillis,
    /// Until when; without an end where there is none.
    pub until: Option<UnixMillis>,
}

impl Word {
    /// Whether it still counts.
    pub fn holds(&self, now: UnixMillis) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// An order that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub wish: Wish,
    /// About which region.
    pub region: RegionId,
    /// Whose word it is.
    pub word: Word,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, by {} ({})", self.wish, self.region, self.word.by, self.word.why)
    }
}

/// A region that is out by an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Out {
    /// Whether it hands on what arrives, too.
    pub evacuated: bool,
    /// Whose word it is.
    pub word: Word,
}

impl Out {
    /// The state that this makes of a region that could serve.
    pub const fn state(&self) -> RegionState {
        if self.evacuated { RegionState::Evacuated } else { RegionState::Draining }
    }
}

/// Clients that are sent to a region first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Where to.
    pub region: RegionId,
    /// Clients in these countries; all where none is named.
    pub clients: BTreeSet<Country>,
    /// Whose word it is.
    pub word: Word,
}

impl Pin {
    /// Whether it is about this class.
    pub fn covers(&self, class: ClientClass) -> bool {
        self.clients.is_empty() || class.country.is_some_and(|country| self.clients.contains(&country))
    }
}

/// The region that is to be the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Which.
    pub region: RegionId,
    /// Whose word it is.
    pub word: Word,
}

/// All orders that were agreed on and not lifted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Counts the orders ever given.
    pub revision: u64,
    /// The regions that are out.
    pub out: BTreeMap<RegionId, Out>,
    /// The pins, the oldest first; a later one goes before an earlier one.
    pub pins: Vec<Pin>,
    /// The last orders, the oldest first.
    pub past: Vec<Order>,
    /// Who is to be the primary, where it is not the one that the configuration prefers.
    pub lead: Option<Lead>,
}

impl Orders {
    /// Carries an order out. Of two that were given at once, the later one must have seen the earlier one: `seen` is the
    /// revision that it was checked against. Says whether it was taken.
    pub fn take(&mut self, seen: u64, order: Order) -> bool {
        if seen != self.revision {
            return false;
        }
        let Order { wish, region, word } = order.clone();
        match wish {
            Wish::Drain => drop(self.out.insert(region, Out { evacuated: false, word })),
            Wish::Evacuate => drop(self.out.insert(region, Out { evacuated: true, word })),
            Wish::Restore => {
                self.out.remove(&region);
                self.pins.retain(|pin| pin.region != region);
                self.lead.take_if(|lead| lead.region == region);
            }
            Wish::Pin(clients) => {
                // What has ended by the time of this order makes room.
                self.pins.retain(|pin| pin.word.holds(order.word.at) && pin.clients != clients);
                if self.pins.len() >= MOST_PINS {
                    self.pins.remove(0);
                }
                self.pins.push(Pin { region, clients, word });
            }
            Wish::Lead => self.lead = Some(Lead { region, word }),
        }
        self.revision += 1;
        self.past.push(order);
        let more = self.past.len().saturating_sub(MOST_PAST);
        self.past.drain(..more);
        true
    }

    /// Those that hold now.
    #[must_use]
    pub fn holding(&self, now: UnixMillis) -> Self {
        let mut holding = self.clone();
        holding.out.retain(|_, out| out.word.holds(now));
        holding.pins.retain(|pin| pin.word.holds(now));
        holding.lead.take_if(|lead| !lead.word.holds(now));
        holding
    }

    /// Lays the orders over what was seen: a region that could serve is draining or evacuated.
    pub fn lay_over(&self, states: &mut BTreeMap<RegionId, RegionState>) {
        for (region, out) in &self.out {
            if let Some(state) =
                states.get_mut(region).filter(|state| state.serves() || **state == RegionState::Degraded)
            {
                *state = out.state();
            }
        }
    }
}

impl crate::codec::Format for Orders {
    const KIND: u8 = 0x38;
    const VERSION: u8 = 1;
    const NAME: &'static str = "operators' orders";
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// What.
    pub wish: Wish,
    /// About which region.
    pub region: RegionId,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// For how long.
    pub lasts: Option<Millis>,
    /// Only to say what would follow.
    pub dry_run: bool,
    /// Also against the capacity of the other regions, and where records have no other home.
    pub force: bool,
}

/// What follows from an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderPlan {
    /// The order, in words.
    pub order: String,
    /// Clients that move.
    pub moves: Moves,
    /// What each region that serves would have to carry.
    pub loads: Vec<Load>,
    /// Why it is not done, also with `--force`.
    pub never: Vec<String>,
    /// Why it is not done without `--force`.
    pub unless_forced: Vec<String>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// What a region would have to carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The region.
    pub region: RegionId,
    /// Requests and answers a second that come to it now, by what was seen lately.
    pub now: f64,
    /// That would come.
    pub then: f64,
    /// That it can take: `max_instances` of `per_instance_rps`.
    pub most: f64,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderAnswer {
    /// What follows from it.
    pub plan: OrderPlan,
    /// The revision of the orders that it made; nothing where it was only asked about.
    pub revision: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RegionId {
        RegionId::new(name).unwrap()
    }

    fn order(wish: Wish, region: &str, until: Option<u64>) -> Order {
        let word = Word { by: "ops".into(), why: "a test".into(), at: UnixMillis(100), until: until.map(UnixMillis) };
        Order { wish, region: id(region), word }
    }

    #[test]
    fn of_two_orders_that_were_checked_against_the_same_state_only_one_is_taken() {
        let mut orders = Orders::default();
        assert!(orders.take(0, order(Wish::Drain, "us-east", None)));
        assert!(!orders.take(0, order(Wish::Drain, "eu-west", None)), "both could be the last ones that serve");
        assert!(orders.take(1, order(Wish::Evacuate, "us-east", None)));
        assert_eq!((orders.out.len(), orders.out[&id("us-east")].evacuated), (1, true));
        assert!(orders.take(2, order(Wish::Restore, "us-east", None)));
        assert!(orders.out.is_empty() && orders.past.len() == 3);
    }

    #[test]
    fn an_order_with_an_end_holds_until_then_and_a_region_that_is_down_stays_down() {
        let mut orders = Orders::default();
        orders.take(0, order(Wish::Drain, "us-east", Some(200)));
        orders.take(1, order(Wish::Pin(BTreeSet::new()), "eu-west", Some(150)));
        assert_eq!(orders.holding(UnixMillis(150)).pins, Vec::new());
        assert!(orders.holding(UnixMillis(199)).out.contains_key(&id("us-east")));
        assert!(orders.holding(UnixMillis(200)).out.is_empty());
        let mut states = BTreeMap::from([(id("us-east"), RegionState::Ready), (id("eu-west"), RegionState::Ready)]);
        orders.lay_over(&mut states);
        assert_eq!((states[&id("us-east")], states[&id("eu-west")]), (RegionState::Draining, RegionState::Ready));
        states.insert(id("us-east"), RegionState::Down);
        orders.lay_over(&mut states);
        assert_eq!(states[&id("us-east")], RegionState::Down);
    }

    #[test]
    fn one_region_is_to_be_the_primary_until_the_time_ends_or_it_is_restored() {
        let mut orders = Orders::default();
        orders.take(0, order(Wish::Lead, "us-east", None));
        orders.take(1, order(Wish::Lead, "eu-west", Some(200)));
        let leads = |orders: &Orders, now| orders.holding(UnixMillis(now)).lead.map(|lead| lead.region);
        assert_eq!((leads(&orders, 199), leads(&orders, 200)), (Some(id("eu-west")), None));
        orders.take(2, order(Wish::Restore, "us-east", None));
        assert_eq!(leads(&orders, 199), Some(id("eu-west")), "another region was restored");
        orders.take(3, order(Wish::Restore, "eu-west", None));
        assert_eq!(leads(&orders, 199), None);
    }

    #[test]
    fn no_number_of_orders_fills_the_log() {
        let mut orders = Orders::default();
        for at in 0..500_u64 {
            let code = format!("{}{}", char::from(b'A' + (at % 26) as u8), char::from(b'A' + (at / 26) as u8));
            let clients = BTreeSet::from([Country::new(&code).unwrap()]);
            assert!(orders.take(at, order(Wish::Pin(clients), "eu-west", Some(10_000))));
        }
        assert_eq!((orders.pins.len(), orders.past.len(), orders.revision), (MOST_PINS, MOST_PAST, 500));
    }
}
