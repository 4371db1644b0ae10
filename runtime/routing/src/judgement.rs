//! What a policy's verdict about a region may do.
//!
//! The native rule ([`crate::HealthTracker`]) notices regions that are dead. Regions that limp are for the policy:
//! `region-verdict` is asked with what all observers but the region itself saw, and `failover-plan` may drain a
//! region. Both are wishes. What is carried out stays within bounds that no policy can lift:
//!
//! * at most one region is out by judgement at a time, and never the last one that serves;
//! * when most regions seem unwell, the detector is distrusted and nobody is out by judgement;
//! * one judged change per 5 s; and a return only after a while of steadiness, longer each time it flaps;
//! * a verdict that is not renewed for 10 s is forgotten, and the native rule alone decides.
//!
//! A region that is natively down is simply dead: none of this concerns it.
//!
//! This module opens no socket and reads no clock: callers pass `now`. Start with [`Judge::told`] and [`Judge::due`].

use std::collections::{BTreeMap, BTreeSet};

use model::judgement::{Bound, FailoverPlan, Outcome, Vote};
use model::routing::{Observation, RegionState};
use model::{Millis, Mono, RegionId};

use crate::hold::{Hold, HoldLimits};
use crate::witness::Matrix;

/// When to ask and what to allow. The defaults are those that operators are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JudgeLimits {
    /// A region is asked about at most this often.
    pub ask_every: Millis,
    /// An observer that was not heard for longer has no vote.
    pub unheard: Millis,
    /// At most one judged change in this time.
    pub pace: Millis,
    /// A verdict that is not renewed for longer is forgotten.
    pub kept: Millis,
    /// How long a region must be steady before it serves again.
    pub hold: HoldLimits,
}

impl Default for JudgeLimits {
    fn default() -> Self {
        Self {
            ask_every: Millis(200),
            unheard: Millis(1000),
            pace: Millis::from_secs(5),
            kept: Millis::from_secs(10),
            hold: HoldLimits::default(),
        }
    }
}

/// What the native rule says at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Native {
    /// The state of every region, the judging one included.
    pub states: BTreeMap<RegionId, RegionState>,
    /// The regions that have answered as often in a row as one must that comes back.
    pub recovered: BTreeSet<RegionId>,
}

/// A region that the policy should be asked about now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The region.
    pub region: RegionId,
    /// What its observers saw, and whose vote counts.
    pub votes: Vec<Vote>,
    /// Whether more than half of the possible observers have a vote that counts. Otherwise there is nothing to ask.
    pub enough: bool,
}

impl Due {
    /// The observations that count.
    pub fn observations(&self) -> Vec<Observation> {
        self.votes.iter().filter(|vote| vote.lost.is_none()).map(|vote| vote.seen).collect()
    }
}

/// Why a region is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Verdict,
    Plan,
}

#[derive(Clone, Debug, Default)]
struct Case {
    /// Something was lost since it was asked about last.
    changed: bool,
    asked: Option<Mono>,
    /// Whether the last verdict was unwell, and when it came.
    verdict: Option<(bool, Mono)>,
    steady_since: Option<Mono>,
    hold: Hold,
    drain: bool,
    out: Option<Cause>,
}

impl Case {
    fn unwell(&self) -> bool {
        matches!(self.verdict, Some((true, _)))
    }

    fn wish(&self) -> Option<Cause> {
        match (self.unwell(), self.drain) {
            (true, _) => Some(Cause::Verdict),
            (false, true) => Some(Cause::Plan),
            (false, false) => None,
        }
    }

    fn forget_old(&mut self, kept: Millis, now: Mono) {
        if self.verdict.is_some_and(|(_, heard)| now - heard > kept) {
            self.verdict = None;
            self.steady_since = None;
        }
    }
}

/// Keeps what observers saw, and decides what a verdict may do. One entry a region; nothing else grows.
#[derive(Clone, Debug)]
pub struct Judge {
    me: RegionId,
    limits: JudgeLimits,
    matrix: Matrix,
    cases: BTreeMap<RegionId, Case>,
    last_change: Option<Mono>,
    plan_missed: Option<Mono>,
}

impl Judge {
    /// A judge in region `me` of a deployment of `regions`, itself included.
    pub fn new(me: RegionId, regions: BTreeSet<RegionId>, limits: JudgeLimits) -> Self {
        let cases = regions.iter().map(|id| (id.clone(), Case::default())).collect();
        Self { me, limits, matrix: Matrix::new(regions), cases, last_change: None, plan_missed: None }
    }

    /// Takes in all that `observer`, another region or this one, sees of the others. A region of which it lost more
    /// than before is due.
    pub fn told(&mut self, observer: &RegionId, seen: &BTreeMap<RegionId, Observation>, now: Mono) {
        for worse in self.matrix.hear(observer, seen, now) {
            if let Some(case) = self.cases.get_mut(&worse) {
                case.changed = true;
            }
        }
    }

    /// Another generation is in force: every region is due.
    pub fn new_generation(&mut self) {
        self.cases.values_mut().for_each(|case| case.changed = true);
    }

    /// The regions to ask about now; they count as asked. A region that does not answer, and this one, are
    /// never asked about; the others after a loss, and as long as they are judged unwell or out.
    pub fn due(&mut self, native: &Native, now: Mono) -> Vec<Due> {
        let (limits, me) = (self.limits, self.me.clone());
        self.cases.values_mut().for_each(|case| case.forget_old(limits.kept, now));
        let alive = |id: &RegionId| {
            let answers = |state: &RegionState| {
                state.serves() || matches!(state, RegionState::CatchingUp | RegionState::Degraded)
            };
            native.states.get(id).is_some_and(answers)
        };
        let asked = self.cases.iter_mut().filter(|(id, case)| {
            let matters = case.changed || case.unwell() || case.out == Some(Cause::Verdict);
            let rested = case.asked.is_none_or(|asked| now - asked >= limits.ask_every);
            matters && rested && **id != me && alive(id)
        });
        let asked: Vec<RegionId> = asked
            .map(|(id, case)| {
                (case.changed, case.asked) = (false, Some(now));
                id.clone()
            })
            .collect();
        let observers = self.cases.len().saturating_sub(1);
        asked
            .into_iter()
            .map(|region| {
                let votes = self.votes(&region, native, now);
                let counted = votes.iter().filter(|vote| vote.lost.is_none()).count();
                Due { region, votes, enough: counted * 2 > observers }
            })
            .collect()
    }

    /// What each observer saw of a region, and whose vote counts.
    pub fn votes(&self, region: &RegionId, native: &Native, now: Mono) -> Vec<Vote> {
        let dead = native.states.iter().filter(|(_, state)| matches!(state, RegionState::Down | RegionState::Joining));
        let dead = dead.map(|(id, _)| id.clone()).collect();
        self.matrix.votes(region, &dead, self.limits.unheard, now)
    }

    /// Takes in a verdict: whether the region is unwell.
    pub fn judged(&mut self, region: &RegionId, unwell: bool, native: &Native, now: Mono) -> Outcome {
        let Some(case) = self.cases.get_mut(region) else { return Outcome::StaysIn };
        case.verdict = Some((unwell, now));
        case.steady_since = if unwell { None } else { case.steady_since.or(Some(now)) };
        self.settle(region, native, now)
    }

    /// Takes in that no verdict could be had: too few votes, or the policy gave none.
    pub fn unjudged(&mut self, region: &RegionId, why: Bound, native: &Native, now: Mono) -> Outcome {
        match self.settle(region, native, now) {
            Outcome::StaysIn | Outcome::StaysOut => Outcome::Held(why),
            other => other,
        }
    }

    /// Takes in a plan that was made from `asked`, the states that it was asked with. Only its drains of regions that
    /// served there are wishes: what did not serve is out already. Gives what came of each drain that is new or ended.
    pub fn planned(
        &mut self,
        plan: &FailoverPlan,
        asked: &BTreeMap<RegionId, RegionState>,
        native: &Native,
        now: Mono,
    ) -> Vec<(RegionId, Outcome)> {
        self.plan_missed = None;
        let mut changed = Vec::new();
        for (id, case) in &mut self.cases {
            let drain = plan.drain.contains(id) && asked.get(id).is_some_and(|state| state.serves());
            if case.drain != drain {
                case.drain = drain;
                changed.push(id.clone());
            }
        }
        changed.into_iter().map(|id| (id.clone(), self.settle(&id, native, now))).collect()
    }

    /// Takes in that a plan could not be had. Drains are lifted once that has lasted for [`JudgeLimits::kept`].
    pub fn unplanned(&mut self, now: Mono) {
        let since = *self.plan_missed.get_or_insert(now);
        if now - since > self.limits.kept {
            self.cases.values_mut().for_each(|case| case.drain = false);
        }
    }

    /// Carries out what waited for its time, and lifts what may not last. Gives the regions whose state changed.
    pub fn tick(&mut self, native: &Native, now: Mono) -> Vec<(RegionId, Outcome)> {
        let limits = self.limits;
        let waiting = self.cases.iter_mut().filter_map(|(id, case)| {
            case.forget_old(limits.kept, now);
            (case.out.is_some() || case.drain).then(|| id.clone())
        });
        let waiting: Vec<RegionId> = waiting.collect();
        let settled = waiting.into_iter().map(|id| (id.clone(), self.settle(&id, native, now)));
        settled.filter(|(_, outcome)| matches!(outcome, Outcome::Out | Outcome::Back | Outcome::Released(_))).collect()
    }

    /// Whether a plan drains this region.
    pub fn drained(&self, region: &RegionId) -> bool {
        self.cases.get(region).is_some_and(|case| case.drain)
    }

    /// The states that requests are routed by: the native ones, with the region that is out by judgement as degraded.
    /// Whatever was decided before, a region is never degraded while no other one serves.
    pub fn states(&self, native: &Native) -> BTreeMap<RegionId, RegionState> {
        self.overlay(native, |_| true)
    }

    /// The same, but for drains: what a plan is asked with, so that it never sees its own effect.
    pub fn states_before_drains(&self, native: &Native) -> BTreeMap<RegionId, RegionState> {
        self.overlay(native, |cause| cause == Cause::Verdict)
    }

    fn overlay(&self, native: &Native, counts: impl Fn(Cause) -> bool) -> BTreeMap<RegionId, RegionState> {
        let mut states = native.states.clone();
        for (id, _) in self.cases.iter().filter(|(_, case)| case.out.is_some_and(&counts)) {
            let elsewhere = states.iter().any(|(other, state)| other != id && state.serves());
            if let Some(state) = states.get_mut(id).filter(|state| state.serves() && elsewhere) {
                *state = RegionState::Degraded;
            }
        }
        states
    }

    fn settle(&mut self, region: &RegionId, native: &Native, now: Mono) -> Outcome {
        let Some(case) = self.cases.get(region) else { return Outcome::StaysIn };
        let (out, wish) = (case.out, case.wish());
        match (out, wish) {
            (None, None) => Outcome::StaysIn,
            (None, Some(_)) if !serves(native, region) => Outcome::OutNatively,
            (None, Some(cause)) => match self.bound(region, native, now) {
                Some(bound) => Outcome::Held(bound),
                None => self.take_out(region, cause, now),
            },
            (Some(_), _) => match (self.must_serve(region, native), wish) {
                (Some(bound), _) => self.bring_back(region, now, Outcome::Released(bound)),
                (None, Some(Cause::Verdict)) => {
                    self.with(region, |case| case.out = Some(Cause::Verdict));
                    Outcome::StaysOut
                }
                (None, Some(Cause::Plan)) => {
                    if self.recovered(region, native, now) {
                        self.with(region, |case| case.out = Some(Cause::Plan));
                    }
                    Outcome::StaysOut
                }
                (None, None) => self.may_return(region, native, now),
            },
        }
    }

    /// What keeps a region in that a policy wants out.
    fn bound(&self, region: &RegionId, native: &Native, now: Mono) -> Option<Bound> {
        if let Some(bound) = self.must_serve(region, native) {
            return Some(bound);
        }
        if self.cases.values().any(|case| case.out.is_some()) {
            return Some(Bound::OneAtATime);
        }
        self.too_soon(now).then_some(Bound::Pace)
    }

    /// Why a region may not be out at all.
    fn must_serve(&self, region: &RegionId, native: &Native) -> Option<Bound> {
        let states = native.states.iter();
        let serving = |id: &RegionId| serves(native, id) && self.cases.get(id).is_none_or(|case| case.out.is_none());
        if !states.clone().any(|(id, _)| id != region && serving(id)) {
            return Some(Bound::LastServing);
        }
        let unwell =
            states.filter(|(id, state)| !state.serves() || self.cases.get(*id).is_some_and(|case| case.unwell()));
        (unwell.count() * 2 > native.states.len()).then_some(Bound::Panic)
    }

    fn too_soon(&self, now: Mono) -> bool {
        self.last_change.is_some_and(|last| now - last < self.limits.pace)
    }

    fn may_return(&mut self, region: &RegionId, native: &Native, now: Mono) -> Outcome {
        let forgotten = |case: &Case| case.out == Some(Cause::Verdict) && case.verdict.is_none();
        match self.cases.get(region) {
            Some(case) if forgotten(case) => self.bring_back(region, now, Outcome::Released(Bound::Stale)),
            _ if !self.recovered(region, native, now) => Outcome::Held(Bound::Recovery),
            _ if self.too_soon(now) => Outcome::Held(Bound::Pace),
            _ => self.bring_back(region, now, Outcome::Back),
        }
    }

    /// Whether nothing of a verdict is left to wait for: steady for long enough, and well by the native rule too.
    fn recovered(&self, region: &RegionId, native: &Native, now: Mono) -> bool {
        self.cases.get(region).is_none_or(|case| {
            let steady = case.hold.is_over(case.steady_since, now);
            let well = native.recovered.contains(region) && serves(native, region);
            case.out != Some(Cause::Verdict) || (steady && well)
        })
    }

    fn take_out(&mut self, region: &RegionId, cause: Cause, now: Mono) -> Outcome {
        let limits = self.limits;
        self.last_change = Some(now);
        self.with(region, |case| {
            case.hold.begin(&limits.hold, now);
            case.out = Some(cause);
        });
        Outcome::Out
    }

    fn bring_back(&mut self, region: &RegionId, now: Mono, outcome: Outcome) -> Outcome {
        self.last_change = Some(now);
        self.with(region, |case| {
            case.out = None;
            case.hold.end(now);
        });
        outcome
    }

    fn with(&mut self, region: &RegionId, change: impl FnOnce(&mut Case)) {
        if let Some(case) = self.cases.get_mut(region) {
            change(case);
        }
    }
}

fn serves(native: &Native, region: &RegionId) -> bool {
    native.states.get(region).is_some_and(|state| state.serves())
}

#[cfg(test)]
#[path = "judgement_tests.rs"]
mod tests;
