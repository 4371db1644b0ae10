//! The rules of active-active data, without a clock, a socket or a disk.
//!
//! [`merge`] decides which writes of a key are still alive, [`fold`] which of
//! them a reader sees, [`HlcClock`] stamps new writes, [`ScopeDigests`] shows
//! whether two regions hold the same. Callers pass `now`; equal inputs give
//! equal outputs everywhere, which is what makes regions converge.

mod clock;
mod digest;
mod merge;

pub use clock::{HlcClock, MAX_JUMP};
pub use digest::{ScopeDigest, ScopeDigests};
pub use merge::{Fold, fold, last_write, merge, replaceable};
