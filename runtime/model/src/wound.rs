//! What a region remembers of a row whose bytes were damaged on its disk.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::RegionId;
use crate::version::PositionVector;

/// A key of which this region has forgotten what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wound {
    /// How far this region had taken over each log when it noticed.
    pub vector: PositionVector,
    /// The regions that were as far, and have said what they hold.
    pub heard: BTreeSet<RegionId>,
    /// All of them have, and none holds anything.
    pub without_copy: bool,
}
