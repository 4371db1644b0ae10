//! Which region should serve a client, and which regions are well.
//!
//! Probe results and client addresses come in; the facts that policies rank
//! regions by, the table of their answers, and the masked list for one request
//! come out. Nothing here opens a socket or reads a clock: callers pass `now`.
//!
//! Start with [`HealthTracker`] for health, [`facts`] for what policies are
//! told, [`Judge`] for what their verdicts may do, [`plan_from`] for what they
//! answer, [`choose`] for one request over HTTP, [`dns`] for one over DNS, [`moves`] for what another table would change.

mod country;
mod decisions;
pub mod dns;
mod facts;
mod geography;
mod health;
mod hold;
mod judgement;
mod mmdb;
mod moves;
mod orders;
mod shares;
mod table;
mod traffic;
mod witness;

pub use country::{CountryTable, Matched, TableError};
pub use decisions::DecisionLog;
pub use facts::{classes, facts};
pub use geography::{centre, continent, countries};
pub use health::{HealthTracker, Limits, WINDOW};
pub use hold::HoldLimits;
pub use judgement::{Due, Judge, JudgeLimits, Native};
pub use moves::{dns_differences, moves};
pub use orders::{loads, pinned, without};
pub use shares::lean;
pub use table::{choose, plan_from};
pub use traffic::{HALF_LIFE, TrafficCounts, add_traffic};
