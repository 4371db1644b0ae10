//! One region's data: where the residency plan, the store and the merge rules meet.
//!
//! A write is gated by [`model::residency::ResidencyPlan::permit`], merged and
//! logged by one writer thread in groups that share an fsync, and only then
//! acknowledged. Every commit adds leaves to the region's ledger
//! ([`compliance::ledger`]), in the same batch. What a peer ships is gated again here from its own labels.
//! Values that are about people, and all whose policy demands it, are encrypted before they are queued ([`vault`]).
//! There is no socket in this crate: `net` carries shipments from
//! [`DataPlane::outgoing`] of one region to [`DataPlane::receive`] of another.

pub mod plans;

mod acks;
mod arriving;
pub mod backup;
pub mod clock;
mod comparing;
mod context;
mod evicting;
mod expiring;
mod faults;
mod giving;
mod graves;
mod group;
mod hearing;
mod ledger;
mod losses;
mod lost;
mod mending;
mod merging;
mod moved;
mod objects;
mod petitions;
mod plane;
mod quota;
mod reading;
mod scopes;
mod screening;
mod shipping;
mod tending;
mod types;
pub mod vault;
mod watching;
mod writer;
mod writing;

pub use comparing::{Account, PAGE, Page};
pub use context::ContextKey;
pub use evicting::{Looked, Placed};
pub use expiring::{DOUBT, Expired, JUMP, Overdue};
pub use faults::Fault;
pub use giving::Giving;
pub use graves::Burials;
pub use ledger::{CheckpointNotes, EvidencePart, LedgerError};
pub use losses::{LOSSES_KEPT, LOSSES_SHOWN, ShownLoss, ShownLosses};
pub use mending::{Damage, SCRUB_BYTES, STATED};
pub use objects::{ChunkSource, OBJECT_DEFAULT, ObjectReader, SWEEP_GRACE, Swept, UPLOADS, Upload};
pub use petitions::{CarriedOut, Held};
pub use plane::{DataPlane, Opening};
pub use tending::{Retention, TEND_EVERY, Tended};
pub use types::{
    Authority, DataError, ETag, LabelClaims, Match, NotAll, Received, Resolver, ScopeSummary, Siblings, View, Write,
    Written,
};
pub use watching::{Changes, Watching};
