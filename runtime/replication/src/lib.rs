//! The rules of active-active data, without a clock, a socket or a disk.
//!
//! [`merge`] decides which writes of a key are still alive, [`reconcile`] what is
//! left of two regions' states of it, [`fold`] which writes a reader sees, [`HlcClock`] stamps new writes, [`ScopeDigests`] shows
//! whether two regions hold the same. Callers pass `now`; equal inputs give
//! equal outputs everywhere, which is what makes regions converge.

mod clock;
mod digest;
mod merge;
mod reconcile;

pub use clock::{HlcClock, MAX_JUMP};
pub use digest::{ScopeDigest, ScopeDigests};
pub use merge::{Fold, fold, last_write, merge, replaceable, without_superseded};
pub use reconcile::{Statement, reconcile, seen};
