//! The vocabulary that every other room speaks.
//!
//! Names, units, versions, records, labels, plans and their evaluators, the
//! questions that are put to policies and the answers that come back. All of
//! it is plain data: nothing here opens a socket, reads a clock or knows what
//! Scheme is. This crate depends on none of ours, and everything depends on it.
//!
//! Start with [`record`] for what is stored, [`residency`] for where it may
//! be, [`routing`] for where a request goes, [`question`] for what a policy is
//! asked.

pub mod backup;
pub mod bundle;
pub mod codec;
pub mod conflict;
pub mod control;
pub mod diagnostic;
pub mod edge;
pub mod eviction;
pub mod explain;
pub mod hlc;
pub mod judgement;
pub mod names;
pub mod object;
pub mod orders;
pub mod petition;
pub mod question;
pub mod radius;
pub mod record;
pub mod region;
pub mod replication;
pub mod residency;
pub mod routing;
pub mod sealing;
pub mod signing;
pub mod snapshot;
pub mod status;
pub mod tree;
pub mod units;
pub mod version;
pub mod wound;

pub use diagnostic::Finding;
pub use hlc::Hlc;
pub use names::{Country, Key, Namespace, NodeId, RegionId, RuleId};
pub use units::{ByteCount, Micros, Millis, Mono, UnixMillis};
