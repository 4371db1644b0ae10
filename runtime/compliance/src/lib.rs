//! Where data may be, a ledger of what was done with it, and an audit that
//! believes neither.
//!
//! - [`cases`], [`plan_from`] and [`rulings_of`]: the questions put to the residency policies and
//!   the plan made from their answers. What was not answered is denied.
//! - [`flips`]: which verdicts change if one plan takes the place of another.
//! - [`ledger`]: one append-only Merkle log a region, cosigned by the others.
//! - [`facts`]: what is taken for the law, with its sources and the days by which somebody has to look again.
//! - [`audit`]: reads stored bytes, ledgers and signatures with code of its own
//!   and says what is wrong, and what it did not check.

pub mod audit;
pub mod facts;
mod flips;
pub mod ledger;
mod plan;
#[cfg(test)]
mod testing;

pub use flips::flips;
pub use plan::{cases, plan_from, rulings_of};
