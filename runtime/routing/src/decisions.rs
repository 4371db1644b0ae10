//! The last decisions, for `explain failover`.

use std::collections::VecDeque;

use model::judgement::Decision;

/// How many are kept.
const KEPT: usize = 100;

/// The last 100 decisions, oldest first. What is decided again and again in the same way is one entry.
#[derive(Clone, Debug, Default)]
pub struct DecisionLog(VecDeque<Decision>);

impl DecisionLog {
    /// Takes in a decision. Says whether it differs from the last one about its region.
    pub fn push(&mut self, decision: Decision) -> bool {
        let last = self.0.iter_mut().rev().find(|kept| kept.region == decision.region);
        if let Some(last) = last.filter(|last| last.repeats(&decision)) {
            last.until = decision.at;
            last.times += 1;
            last.native = decision.native;
            last.votes = decision.votes;
            return false;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(decision);
        true
    }

    /// All that are kept, oldest first.
    pub fn all(&self) -> Vec<Decision> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use model::judgement::{Outcome, Said};
    use model::routing::RegionState;
    use model::{RegionId, UnixMillis};

    use super::*;

    fn decision(at: u64, generation: u64) -> Decision {
        Decision {
            at: UnixMillis(at),
            until: UnixMillis(at),
            times: 1,
            region: RegionId::new("eu-west").unwrap(),
            native: RegionState::Ready,
            generation,
            votes: Vec::new(),
            said: Said::Steady,
            outcome: Outcome::StaysIn,
        }
    }

    #[test]
    fn a_region_judged_for_a_year_fills_no_memory_and_what_came_before_stays_readable() {
        let mut log = DecisionLog::default();
        assert!(log.push(decision(1, 1)));
        for at in 2..10_000 {
            assert!(!log.push(decision(at, 1)), "the same decision is news");
        }
        let all = log.all();
        assert_eq!((all.len(), all[0].times, all[0].at, all[0].until), (1, 9_999, UnixMillis(1), UnixMillis(9_999)));
        for generation in 2..1_000 {
            assert!(log.push(decision(20_000, generation)));
        }
        assert_eq!(log.all().len(), KEPT);
        assert_eq!(log.all().last().map(|last| last.generation), Some(999));
    }
}
