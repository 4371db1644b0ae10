//! What the consensus is asked to keep.

use crate::state::{Command, Outcome, Seat};

openraft::declare_raft_types!(
    /// What the log is made of.
    pub Types:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Seat,
);
