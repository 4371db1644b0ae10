//! What is demanded for a person: erasure, access, a legal hold; and what each region has done about it.
//!
//! A petition is an order and the acknowledgements that it has so far. Every region keeps all petitions and gives them
//! to the others; merging two states of one is taking all that either has. The person is named by a keyed hash alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::sealing::{OrderId, Owner};
use crate::units::{Millis, UnixMillis};

/// An order must be acknowledged by every region within so long; a month, which GDPR Art. 12(3) gives.
pub const DEADLINE: Millis = Millis::from_secs(30 * 24 * 3600);
/// The longest name of a hold.
pub const HOLD_NAME: usize = 64;

/// What is demanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Demand {
    /// Everything about the person goes.
    Erase,
    /// Nothing about the person goes.
    Hold {
        /// By this name.
        name: String,
    },
    /// A hold ends.
    Release {
        /// The order by which it began.
        hold: OrderId,
    },
    /// The person is given what there is.
    Export,
}

impl Demand {
    /// The word in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Erase => "erase",
            Self::Hold { .. } => "hold",
            Self::Release { .. } => "release",
            Self::Export => "export",
        }
    }
}

/// A demand, as one region took it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its name.
    pub id: OrderId,
    /// Whom it is about.
    pub owner: Owner,
    /// What is demanded.
    pub demand: Demand,
    /// The region that took it in.
    pub by: RegionId,
    /// When, by its clock.
    pub at: UnixMillis,
}

/// What a region has done about an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The order.
    pub order: OrderId,
    /// The region.
    pub region: RegionId,
    /// When, by its clock.
    pub at: UnixMillis,
    /// Data keys destroyed.
    pub keys: u64,
    /// The records that it concerned there, as the beginning of the keyed hash of each.
    pub records: Vec<[u8; 8]>,
}

/// Bytes and the signature over them by the ledger key of the region that made them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// An [`Order`] or a [`Done`] in postcard.
    pub bytes: Vec<u8>,
    /// Ed25519 over [`Signed::message`].
    pub signature: Vec<u8>,
}

impl Signed {
    /// What is signed: a line that says what it is, and the bytes.
    pub fn message(what: &str, bytes: &[u8]) -> Vec<u8> {
        [format!("repomind {what} 1\n").as_bytes(), bytes].concat()
    }

    /// What signatures over orders begin with.
    pub const ORDER: &'static str = "order about a person";
    /// What signatures over acknowledgements begin with.
    pub const DONE: &'static str = "order carried out";

    /// What the bytes hold; nothing where they hold something else.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        postcard::take_from_bytes(&self.bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
    }
}

/// The bytes that [`Signed`] holds of an order or an acknowledgement.
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data always encodes into memory")
}

/// An order with the acknowledgements that are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Petition {
    /// The order.
    pub order: Signed,
    /// By region.
    pub done: BTreeMap<RegionId, Signed>,
}

impl Petition {
    /// Takes what another state of the same petition has besides. Says whether that was anything.
    pub fn join(&mut self, other: Petition) -> bool {
        let before = self.done.len();
        for (region, done) in other.done {
            self.done.entry(region).or_insert(done);
        }
        self.done.len() > before
    }
}
