//! Where data may be: the questions put to the residency policies and the plan
//! made from their answers.
//!
//! What was not answered is denied. Start with [`cases`] and [`plan_from`].

pub mod audit;
mod plan;

pub use plan::{cases, plan_from};
