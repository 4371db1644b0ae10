//! The world as a service meets it: where people who use the internet live, how
//! long a packet takes from there to a region, and what follows for a set of
//! regions.
//!
//! Rankings come in, as policies gave them; distributions of round trips, load
//! by region, the region to add next and the smallest set that is near enough
//! to everybody come out, and two drawings. Nothing here asks a policy, opens a
//! file or reads a clock; chance comes from a seed. Every figure is a model's:
//! `data/README.md` says where the data comes from, `docs/simulate.md` how far
//! to trust what is made of it.
//!
//! Start with [`PathModel`] for round trips, [`Crowd`] for clients, [`Reach`]
//! for the search over sets, [`judge_pairs`] for region to region, [`draw`] for
//! the pictures.

mod access;
mod crowd;
mod data;
pub mod draw;
mod pairs;
mod path;
mod random;
mod reach;
mod spread;

pub use access::Access;
pub use crowd::{Crowd, Outcome, Setting};
pub use data::{Place, ROUND_TRIPS, Settlement, place, places, settlements, users};
pub use pairs::{Pair, PairVerdict, is_measured, judge_pairs, light_ms};
pub use path::{FitError, PathModel};
pub use reach::Reach;
pub use spread::{Spread, Summary};
