//! Flags of the subcommands, and what their exit codes mean. Nothing here does work.

mod deployment;
mod policies;
mod reports;

pub use self::deployment::*;
pub use self::policies::*;
pub use self::reports::*;

/// A finding or a failed check.
pub const FINDING: u8 = 1;
/// The command could not be run.
pub const NOT_RUN: u8 = 2;
/// Bad usage or configuration, `EX_USAGE` of sysexits.h.
pub const USAGE: u8 = 64;
