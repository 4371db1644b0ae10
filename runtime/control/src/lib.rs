//! What the regions agree on: the policy generation in force, operators' orders, and who takes part.
//!
//! The agreement is a log that a majority of the regions has on disk (Raft, by `openraft`). The region of its leader is
//! the primary; the fence is its term and its number. Nobody else in the house sees `openraft`: they use [`ControlLog`].
//! What follows from reports and time is decided without either, in [`rules`] and [`lease`]; what an entry does, in
//! [`state`].
//!
//! Data and routing never ask this room anything: a region without a majority goes on by the last policies.
//!
//! Begin with [`ControlLog`], and [`RaftLog::open`] for the one there is.

mod disk;
pub mod lease;
mod machine;
mod raft;
pub mod rules;
pub mod state;
mod types;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use model::control::{ControlNode, ControlReport, ControlRole, Fence};
use model::{Mono, RegionId};
use tokio::sync::watch;

use rules::Members;
use state::{Command, ControlState, Outcome};

pub use raft::RaftLog;

/// The shortest and the longest time without a word from the leader after which a follower asks for votes, in ms. What
/// was measured over links of 35 to 105 ms one way: elections without a fault at shorter ones, slower ones at longer.
pub const ELECTION_LEAST: u64 = 400;
/// The longest; for as long a follower that heard from a leader votes for nobody else.
pub const ELECTION_MOST: u64 = 600;
/// How often the leader lets followers hear from it, in ms. It is also how long the answer may take.
pub const HEARTBEAT: u64 = 250;

/// Why this region may not answer for the primary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPrimary {
    /// Another region leads.
    #[error("{primary} is the primary; this is {me}")]
    Elsewhere {
        /// The primary, as far as is known here.
        primary: RegionId,
        /// This region.
        me: RegionId,
    },
    /// Nobody is known to lead.
    #[error("no region is the primary at this moment: a majority of the voting regions has to agree on one")]
    Nobody,
    /// It leads as far as it knows, and has not heard from a majority for too long.
    #[error("this region led until it lost touch with the majority of the voting regions, and may no longer answer")]
    LeaseLost,
    /// There is no log yet.
    #[error("the regions have not met yet: a majority of them has to be up once to agree on a primary")]
    Unfounded,
    /// The log cannot be written or read.
    #[error("the common log failed here: {0}")]
    Failed(String),
}

/// Why a command was not agreed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unagreed {
    /// This region may not propose. Nothing was written.
    #[error(transparent)]
    NotPrimary(#[from] NotPrimary),
    /// It was handed in, and leadership or the connection to the majority was lost before the answer. It may come into
    /// force yet.
    #[error("whether the regions agreed is not known: {0}; look at what is in force before you try again")]
    Unknown(String),
}

/// What is known of the log at this moment.
#[derive(Clone, Debug)]
pub struct View {
    /// What this region is.
    pub role: ControlRole,
    /// The newest term known.
    pub term: u64,
    /// The leader, as far as is known here. It may be gone.
    pub leader: Option<ControlNode>,
    /// Who takes part.
    pub members: Members,
    /// Those that have all of the log; known to the leader alone.
    pub caught_up: BTreeSet<ControlNode>,
}

impl View {
    /// The region of the leader, as far as is known here.
    pub fn leader_region(&self) -> Option<&RegionId> {
        let leader = self.leader?;
        self.members.voters.get(&leader).or_else(|| self.members.learners.get(&leader))
    }
}

/// The log that the regions agree on, as the rest of the house sees it.
pub trait ControlLog: Send + Sync + 'static {
    /// This region as it is reported to peers.
    fn report(&self) -> ControlReport;
    /// What is known at this moment.
    fn view(&self) -> View;
    /// The state that was agreed on, and every change of it.
    fn states(&self) -> watch::Receiver<Arc<ControlState>>;
    /// Woken by every change of roles.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Whether this region may answer for the primary at this moment, and under which fence. Answers at once.
    ///
    /// # Errors
    /// [`NotPrimary`].
    fn check(&self) -> Result<Fence, NotPrimary>;
    /// The same, after a round to the majority where the lease has run out meanwhile.
    fn confirm(&self) -> BoxFuture<'_, Result<Fence, NotPrimary>>;
    /// Has the regions agree on a command. What comes back is on the disks of a majority.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Outcome, Unagreed>>;
    /// Makes the log, with these members.
    fn found(&self, members: BTreeMap<ControlNode, RegionId>) -> BoxFuture<'_, Result<(), String>>;
    /// Takes one step of a change of members.
    fn change(&self, step: rules::Change) -> BoxFuture<'_, Result<(), String>>;
    /// Lets the followers hear from this region at once, where its lease holds: over long links that prolongs it in
    /// time. A leader that has lost its lease does not call: it falls silent, so that another one is found.
    fn beat(&self) -> BoxFuture<'_, ()>;
    /// Asks the others for votes, after asking whether they would give them.
    fn call_election(&self) -> BoxFuture<'_, ()>;
    /// Hands leadership to another voter. From now on this region does not answer for the primary.
    fn hand_over(&self, to: ControlNode) -> BoxFuture<'_, Result<(), String>>;
    /// Answers what another region's log asks.
    fn answer(&self, from: RegionId, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>>;
    /// Stops taking part.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Carries what regions' logs say to each other, and tells the time.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request to a region and gives its answer, or why there is none.
    fn ask(&self, to: &RegionId, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>>;
    /// Now, by a clock that goes on while the machine is suspended and is never set.
    fn now(&self) -> Mono;
}
