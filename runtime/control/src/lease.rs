//! Whether a leader may still answer for the primary.
//!
//! A follower that took something from a leader votes for nobody else for
//! [`crate::ELECTION_MOST`] afterwards. So a leader that knows when it *sent* what a quorum
//! has answered knows a time before which nobody else can lead: that is the lease. It ends
//! [`LEASE`] after the sending, which leaves a sixth of the followers' patience for clocks
//! that run at different speeds.
//!
//! Times come from a clock that goes on while the machine is suspended: a leader that was
//! frozen and wakes finds its lease gone. This module reads no clock: callers pass `now`.

use std::collections::{BTreeMap, BTreeSet};

use model::control::{ControlNode, Fence};
use model::{Millis, Mono};

/// How long after what a quorum answered was sent the lease lasts.
pub const LEASE: Millis = Millis(500);

/// What followers have answered to this leader.
#[derive(Debug, Default)]
pub struct Lease {
    /// When the newest message was sent that each follower took, and under which fence.
    answered: BTreeMap<ControlNode, (Fence, Mono)>,
    /// The fence under which leadership was handed on: followers vote for the heir at once.
    given_up: Option<Fence>,
}

impl Lease {
    /// A follower took what was sent at `sent` under `fence`.
    pub fn answered(&mut self, follower: ControlNode, fence: Fence, sent: Mono) {
        let entry = self.answered.entry(follower).or_insert((fence, sent));
        *entry = (*entry).max((fence, sent));
    }

    /// Leadership under `fence` is being handed on. It does not come back under this fence.
    pub fn give_up(&mut self, fence: Fence) {
        self.given_up = self.given_up.max(Some(fence));
    }

    /// Whether `fence.node` may answer for the primary at `now`, in a membership of one set of voters, or of two while
    /// it changes: each needs its majority.
    pub fn holds(&self, fence: Fence, voters: &[BTreeSet<ControlNode>], now: Mono) -> bool {
        let fresh = |node: &ControlNode| {
            *node == fence.node
                || self.answered.get(node).is_some_and(|(under, sent)| *under == fence && now - *sent < LEASE)
        };
        let majority = |set: &BTreeSet<ControlNode>| set.iter().filter(|node| fresh(node)).count() * 2 > set.len();
        self.given_up < Some(fence) && !voters.is_empty() && voters.iter().all(majority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(term: u64) -> Fence {
        Fence { term, node: ControlNode(1) }
    }

    fn set(nodes: &[u64]) -> BTreeSet<ControlNode> {
        nodes.iter().map(|node| ControlNode(*node)).collect()
    }

    #[test]
    fn a_leader_whose_quorum_is_silent_for_the_lease_may_not_answer() {
        let (mut lease, three) = (Lease::default(), [set(&[1, 2, 3])]);
        assert!(!lease.holds(fence(1), &three, Mono(0)), "nobody has answered yet");
        lease.answered(ControlNode(2), fence(1), Mono(1000));
        assert!(lease.holds(fence(1), &three, Mono(1499)));
        assert!(!lease.holds(fence(1), &three, Mono(1500)));
        // An answer that was overtaken does not shorten it; one after a long sleep does not revive it.
        lease.answered(ControlNode(2), fence(1), Mono(900));
        assert!(lease.holds(fence(1), &three, Mono(1499)));
        assert!(!lease.holds(fence(1), &three, Mono(60_000)));
    }

    #[test]
    fn answers_to_another_term_and_a_leadership_that_was_handed_on_do_not_count() {
        let (mut lease, three) = (Lease::default(), [set(&[1, 2, 3])]);
        lease.answered(ControlNode(2), fence(1), Mono(0));
        assert!(!lease.holds(fence(2), &three, Mono(1)));
        lease.answered(ControlNode(2), fence(2), Mono(0));
        assert!(lease.holds(fence(2), &three, Mono(1)));
        lease.give_up(fence(2));
        lease.answered(ControlNode(2), fence(2), Mono(2));
        assert!(!lease.holds(fence(2), &three, Mono(3)));
        lease.answered(ControlNode(3), fence(3), Mono(4));
        assert!(lease.holds(fence(3), &three, Mono(5)));
    }

    #[test]
    fn both_memberships_must_answer_while_one_takes_the_place_of_the_other() {
        let (mut lease, joint) = (Lease::default(), [set(&[1, 2, 3]), set(&[1, 4, 5])]);
        lease.answered(ControlNode(2), fence(1), Mono(0));
        assert!(!lease.holds(fence(1), &joint, Mono(1)));
        lease.answered(ControlNode(5), fence(1), Mono(0));
        assert!(lease.holds(fence(1), &joint, Mono(1)));
        assert!(lease.holds(fence(1), &[set(&[1])], Mono(9_999)), "one region alone is its own quorum");
    }
}
