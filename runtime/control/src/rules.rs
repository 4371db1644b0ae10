//! When regions make a common log, who votes in it, who asks for an election, and when the
//! preferred primary gets its place back.
//!
//! No clock and no sockets here: what regions report comes in with `now`, and what to do comes out.

use std::collections::{BTreeMap, BTreeSet};

use model::control::{ControlNode, ControlReport};
use model::{Millis, Mono, RegionId};

/// How long the preferred primary waits for the rest, once a majority is there to make the log with.
pub const WAIT_FOR_ALL: Millis = Millis(1500);
/// How long one candidate has before the next one in line asks for votes, too.
pub const TURN: Millis = Millis(400);
/// How soon one that got no votes asks again: a vote takes two round trips of up to 220 ms.
pub const AGAIN: Millis = Millis(600);
/// How long the preferred primary serves without interruption before it gets its place back.
pub const STEADY: Millis = Millis(5000);

/// What the regions report, this one included. Those that do not answer are left out.
pub type Reports = BTreeMap<RegionId, ControlReport>;

/// Says with whom the preferred primary makes the log.
///
/// Only it does, and only where a majority of the configured regions answer, all of them without a log: two sets of
/// members that could each agree on something would share a region, and that region would have a log by then.
#[derive(Debug, Default)]
pub struct Founding {
    majority_since: Option<Mono>,
}

impl Founding {
    /// The members of a log that is to be made now.
    pub fn members(
        &mut self,
        regions: &BTreeSet<RegionId>,
        reports: &Reports,
        now: Mono,
    ) -> Option<BTreeMap<ControlNode, RegionId>> {
        let fresh: BTreeMap<_, _> = reports
            .iter()
            .filter(|(region, report)| report.fresh && regions.contains(*region))
            .map(|(region, report)| (report.node, region.clone()))
            .collect();
        if reports.values().any(|report| !report.fresh) || fresh.len() * 2 <= regions.len() {
            self.majority_since = None;
            return None;
        }
        let since = *self.majority_since.get_or_insert(now);
        (fresh.len() == regions.len() || now - since >= WAIT_FOR_ALL).then_some(fresh)
    }
}

/// Says when this region asks for an election, because the detector lost the leader.
#[derive(Debug, Default)]
pub struct Calling {
    lost_since: Option<Mono>,
    last: Option<Mono>,
}

impl Calling {
    /// Whether to ask now. `line` is this region's place among those that could lead, from 0.
    pub fn due(&mut self, leader_lost: bool, line: usize, now: Mono) -> bool {
        if !leader_lost {
            *self = Self::default();
            return false;
        }
        let since = *self.lost_since.get_or_insert(now);
        let turn = since + Millis(TURN.0.saturating_mul(line as u64));
        let due = now >= turn && self.last.is_none_or(|last| now - last >= AGAIN);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// This region's place in the line of those that could lead: the preferred primary first, then `advised`, then by name.
pub fn line(
    me: &RegionId,
    could_lead: &BTreeSet<RegionId>,
    preferred: &RegionId,
    advised: Option<&RegionId>,
) -> Option<usize> {
    let mut all: Vec<&RegionId> = could_lead.iter().collect();
    all.sort_by_key(|region| (*region != preferred, Some(*region) != advised, *region));
    all.into_iter().position(|region| region == me)
}

/// Says when the leader hands its place to the region that is to have it.
#[derive(Debug, Default)]
pub struct Return {
    steady_since: Option<Mono>,
    /// When it was tried, and with whom.
    tried: Option<(Mono, RegionId)>,
}

impl Return {
    /// Whether to hand over now to `fit`: a region that serves, votes and has all of the log. One that is merely
    /// preferred has to be so for [`STEADY`] first, one that an operator ordered need not. Should it fail, it is tried
    /// again after as long.
    pub fn due(&mut self, fit: Option<&RegionId>, ordered: bool, now: Mono) -> bool {
        let Some(fit) = fit else {
            self.steady_since = None;
            return false;
        };
        let since = *self.steady_since.get_or_insert(now);
        let fresh = self.tried.as_ref().is_none_or(|(at, whom)| whom != fit || now - *at >= STEADY);
        let due = fresh && (ordered || now - since >= STEADY);
        if due {
            self.tried = Some((now, fit.clone()));
        }
        due
    }
}

/// Who takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// With a vote.
    pub voters: BTreeMap<ControlNode, RegionId>,
    /// Without one yet.
    pub learners: BTreeMap<ControlNode, RegionId>,
    /// Whether one set of voters is about to take the place of another.
    pub changing: bool,
}

/// A step of a change of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Takes a node in without a vote, so that it gets the log.
    Learn(ControlNode, RegionId),
    /// Makes these the voters, and forgets everybody else.
    Voters(BTreeSet<ControlNode>),
}

/// The next step towards one voter for each configured region.
///
/// One region at a time, and a newcomer votes only once it has the log: so every step keeps a majority that has all
/// that was agreed. A region that comes back under another number takes the place of the number that it had: its disk
/// was lost, and with it what it had promised.
pub fn change(
    members: &Members,
    caught_up: &BTreeSet<ControlNode>,
    regions: &BTreeSet<RegionId>,
    reports: &Reports,
) -> Option<Change> {
    if members.changing {
        return None;
    }
    let voters: BTreeSet<ControlNode> = members.voters.keys().copied().collect();
    for region in regions {
        let Some(report) = reports.get(region) else { continue };
        if members.voters.contains_key(&report.node) {
            continue;
        }
        if !members.learners.contains_key(&report.node) {
            return Some(Change::Learn(report.node, region.clone()));
        }
        if caught_up.contains(&report.node) {
            let mut next = voters.clone();
            next.retain(|node| members.voters[node] != *region);
            next.insert(report.node);
            return Some(Change::Voters(next));
        }
    }
    let gone = members.voters.iter().find(|(_, region)| !regions.contains(*region));
    if let Some((gone, _)) = gone.filter(|_| voters.len() > 1) {
        return Some(Change::Voters(voters.into_iter().filter(|node| node != gone).collect()));
    }
    None
}

/// What works without a quorum, for an operator.
pub fn without_quorum(voters: &BTreeSet<RegionId>, answering: &BTreeSet<RegionId>) -> String {
    let missing: Vec<_> = voters.difference(answering).map(ToString::to_string).collect();
    let needed = voters.len() / 2 + 1;
    format!(
        "no primary: {} of {} voting regions answer, {needed} are needed (missing: {}). Reads, writes, replication and \
         routing go on by the last policies. What waits: policies that loosen anything, and operators' orders; \
         policies that only tighten are taken by `policy publish` and hold in the region that takes them",
        voters.len() - missing.len(),
        voters.len(),
        if missing.is_empty() { "none, an election is under way".to_owned() } else { missing.join(", ") },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(name: &str) -> RegionId {
        RegionId::new(name).unwrap()
    }

    fn names(all: &[&str]) -> BTreeSet<RegionId> {
        all.iter().map(|name| region(name)).collect()
    }

    fn reports(all: &[(&str, u64, bool)]) -> Reports {
        let report = |node, fresh| ControlReport { node: ControlNode(node), fresh, may_lead: true };
        all.iter().map(|(name, node, fresh)| (region(name), report(*node, *fresh))).collect()
    }

    #[test]
    fn no_log_is_made_by_a_minority_or_beside_one_that_exists() {
        let (mut founding, three) = (Founding::default(), names(&["a", "b", "c"]));
        assert_eq!(founding.members(&three, &reports(&[("a", 1, true)]), Mono(0)), None);
        assert_eq!(founding.members(&three, &reports(&[("a", 1, true), ("b", 2, false)]), Mono(10_000)), None);
        let two = reports(&[("a", 1, true), ("b", 2, true)]);
        assert_eq!(founding.members(&three, &two, Mono(20_000)), None, "the third one may be about to answer");
        assert_eq!(founding.members(&three, &two, Mono(21_500)).map(|members| members.len()), Some(2));
        let all = reports(&[("a", 1, true), ("b", 2, true), ("c", 3, true)]);
        assert_eq!(Founding::default().members(&three, &all, Mono(0)).map(|members| members.len()), Some(3));
        // A region that is not configured here has no say.
        assert_eq!(founding.members(&three, &reports(&[("a", 1, true), ("x", 2, true)]), Mono(40_000)), None);
    }

    #[test]
    fn the_first_in_line_asks_at_once_the_others_only_if_nobody_won() {
        let (mut first, mut second) = (Calling::default(), Calling::default());
        assert!(!first.due(false, 0, Mono(0)));
        assert!(first.due(true, 0, Mono(100)) && !second.due(true, 1, Mono(100)));
        assert!(!first.due(true, 0, Mono(150)), "votes take a while");
        assert!(second.due(true, 1, Mono(500)));
        assert!(first.due(true, 0, Mono(700)));
        assert!(!second.due(false, 1, Mono(710)) && !second.due(true, 1, Mono(720)), "a leader was found in between");
        let all = names(&["ap", "eu", "us"]);
        let place =
            |me: &str, advised: Option<&str>| line(&region(me), &all, &region("us"), advised.map(region).as_ref());
        assert_eq!((place("us", None), place("ap", None), place("eu", None)), (Some(0), Some(1), Some(2)));
        assert_eq!((place("eu", Some("eu")), place("ap", Some("eu"))), (Some(1), Some(2)));
        assert_eq!(place("mars", None), None);
    }

    #[test]
    fn the_preferred_primary_gets_its_place_back_once_it_is_steady() {
        let (mut back, b, c) = (Return::default(), region("b"), region("c"));
        let mut due = |fit: Option<&RegionId>, ordered, at| back.due(fit, ordered, Mono(at));
        assert!(!due(Some(&b), false, 0) && !due(Some(&b), false, 4_999));
        assert!(!due(None, false, 5_000) && !due(Some(&b), false, 6_000));
        assert!(due(Some(&b), false, 11_000) && !due(Some(&b), false, 12_000) && due(Some(&b), false, 16_000));
        // An operator's word waits for nothing, and is not said more often than the other either.
        assert!(due(Some(&c), true, 16_500) && !due(Some(&c), true, 21_000) && due(Some(&c), true, 21_500));
        assert!(!due(None, true, 30_000) && due(Some(&c), true, 30_001));
    }

    #[test]
    fn a_region_with_a_new_disk_takes_the_place_of_its_old_number_after_it_has_the_log() {
        let regions = names(&["a", "b", "c"]);
        let voters = |all: &[(u64, &str)]| all.iter().map(|(node, name)| (ControlNode(*node), region(name))).collect();
        let mut members = Members { voters: voters(&[(1, "a"), (2, "b"), (3, "c")]), ..Members::default() };
        let now = reports(&[("a", 1, false), ("b", 9, true), ("c", 3, false)]);
        let step = |members: &Members, up: &[u64]| {
            change(members, &up.iter().map(|node| ControlNode(*node)).collect(), &regions, &now)
        };
        assert_eq!(step(&members, &[]), Some(Change::Learn(ControlNode(9), region("b"))));
        members.learners = voters(&[(9, "b")]);
        assert_eq!(step(&members, &[]), None);
        let next: BTreeSet<_> = [1, 3, 9].map(ControlNode).into();
        assert_eq!(step(&members, &[9]), Some(Change::Voters(next)));
        members.changing = true;
        assert_eq!(step(&members, &[9]), None);
    }

    #[test]
    fn a_region_that_is_no_longer_configured_loses_its_vote_also_while_it_is_down() {
        let members = Members {
            voters: [(1, "a"), (2, "b"), (3, "c")].map(|(node, name)| (ControlNode(node), region(name))).into(),
            ..Members::default()
        };
        let now = reports(&[("a", 1, false), ("b", 2, false)]);
        let step = change(&members, &BTreeSet::new(), &names(&["a", "b"]), &now);
        assert_eq!(step, Some(Change::Voters([1, 2].map(ControlNode).into())));
        assert_eq!(
            change(&members, &BTreeSet::new(), &names(&["a", "b", "c"]), &now),
            None,
            "a region that is down stays"
        );
    }

    proptest! {
        /// Any two successive sets of voters share a majority of each with the other: one node comes or goes at a time.
        #[test]
        fn no_step_changes_more_than_one_region(
            configured in proptest::collection::btree_set(0_u8..6, 1..5),
            voting in proptest::collection::btree_map(0_u64..12, 0_u8..6, 1..6),
            seen in proptest::collection::btree_map(0_u8..6, (0_u64..12, any::<bool>()), 0..6),
        ) {
            let name = |at: u8| region(&format!("r{at}"));
            let members = Members {
                voters: voting.iter().map(|(node, at)| (ControlNode(*node), name(*at))).collect(),
                learners: seen.keys().map(|at| (ControlNode(u64::from(*at) + 100), name(*at))).collect(),
                changing: false,
            };
            let now: Reports = seen
                .iter()
                .map(|(at, (node, up))| {
                    let node = if *up { ControlNode(u64::from(*at) + 100) } else { ControlNode(*node) };
                    (name(*at), ControlReport { node, fresh: false, may_lead: true })
                })
                .collect();
            let caught_up: BTreeSet<_> = members.learners.keys().copied().collect();
            let configured = configured.into_iter().map(name).collect();
            if let Some(Change::Voters(next)) = change(&members, &caught_up, &configured, &now) {
                let before: BTreeSet<_> = members.voters.keys().copied().collect();
                let regions = |set: &BTreeSet<ControlNode>| -> BTreeSet<RegionId> {
                    let of = |node| members.voters.get(node).or_else(|| members.learners.get(node));
                    set.iter().filter_map(of).cloned().collect()
                };
                let changed: BTreeSet<_> = before.symmetric_difference(&next).copied().collect();
                prop_assert_eq!(regions(&changed).len(), 1);
                prop_assert!(!next.is_empty());
            }
        }
    }
}
