//! The edge at Cloudflare: a worker with its policy, the routes that lead to it, what it binds, and what stands around it.
//!
//! [`desired`] says what a tree wants, [`observed`] reads what is there, [`plan()`] gives the steps between them, and
//! [`request`] the calls that each step is. [`limits`] refuses before anything is sent what Cloudflare would refuse.
//!
//! Whatever we make carries the mark of its deployment ([`marks`]). What carries no mark of ours is never changed and
//! never taken away, and where it is in the way the plan says so instead.

pub mod bundle;
pub mod desired;
pub mod limits;
pub mod marks;
pub mod observed;
pub mod plan;
pub mod request;

pub use bundle::{Module, Upload};
pub use desired::{Desired, Kind, Resource};
pub use marks::Marks;
pub use observed::{Listing, Observed};
pub use plan::{Plan, Step, demolition, plan};
