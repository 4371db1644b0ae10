//! Asks the policy about regions that limp, and carries out what the bounds allow.
//!
//! Every [`EVERY`] the regions that are due are asked about, with what all observers but the region itself saw; and
//! `failover-plan` is asked when other regions serve than before, or another generation is in force. Nothing waits
//! for this: probes and requests go on by the states that are known. What may follow from an answer is decided by
//! [`routing::Judge`]; what it decided, and why, is kept for `explain failover`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use model::judgement::{Bound, Decision, FailoverPlan, Outcome, Said, Vote};
use model::question::{Answer, Question};
use model::region::Regions;
use model::routing::{Observation, RegionState};
use model::{Millis, Mono, RegionId};
use routing::{DecisionLog, Due, Judge, JudgeLimits, Native};
use tokio_util::sync::CancellationToken;

use super::probes;
use super::running::RunningRegion;
use crate::decisions::Kind;
use crate::decisions::recorder::{Loaded, Note};

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_millis(50);
/// How soon a plan that could not be had is asked for again.
const PLAN_AGAIN: Millis = Millis(1000);

type States = BTreeMap<RegionId, RegionState>;

/// What a region decides about the others. Each part is locked for microseconds. Whoever needs the health of regions
/// too locks that first: no function here asks for it while it holds the judge.
pub struct Judging {
    judge: Mutex<Judge>,
    log: Mutex<DecisionLog>,
    plan: ArcSwapOption<FailoverPlan>,
}

impl Judging {
    /// Nothing is judged yet.
    pub fn new(me: &RegionId, regions: &Regions) -> Self {
        let all = regions.by_id.keys().cloned().collect();
        let judge = Judge::new(me.clone(), all, JudgeLimits::default());
        Self { judge: Mutex::new(judge), log: Mutex::default(), plan: ArcSwapOption::empty() }
    }

    /// Takes in what this region sees, and what a peer told.
    pub fn told(
        &self,
        me: &RegionId,
        sees: &BTreeMap<RegionId, Observation>,
        heard: Option<(&RegionId, &BTreeMap<RegionId, Observation>)>,
        now: Mono,
    ) {
        let mut judge = self.judge();
        judge.told(me, sees, now);
        if let Some((peer, sees)) = heard {
            judge.told(peer, sees, now);
        }
    }

    /// The states that requests are routed by.
    pub fn states(&self, native: &Native) -> States {
        self.judge().states(native)
    }

    /// What `failover-plan` last said.
    pub fn plan(&self) -> Option<FailoverPlan> {
        self.plan.load().as_ref().map(|plan| FailoverPlan::clone(plan))
    }

    /// The last decisions, oldest first.
    pub fn decisions(&self) -> Vec<Decision> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `failover-plan` was last asked about, and when it failed.
#[derive(Default)]
struct Planned {
    asked: Option<(u64, BTreeSet<RegionId>)>,
    failed: Option<Mono>,
}

/// Judges until `stop`.
pub async fn keep_judging(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut planned, mut generation) = (Planned::default(), 0);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let round = async {
            let current = region.generations.number();
            if std::mem::replace(&mut generation, current) != current {
                region.judging.judge().new_generation();
            }
            if current > 0 {
                ask_verdicts(&region).await;
                ask_plan(&region, &mut planned).await;
            }
        };
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
        carry_out(&region);
        probes::publish(&region);
    }
}

async fn ask_verdicts(region: &RunningRegion) {
    let native = probes::native(region);
    let due = region.judging.judge().due(&native, region.now());
    for due in due {
        let (verdict, asked) = if due.enough { ask_verdict(region, &due).await } else { (Err(None), None) };
        let generation = asked.as_ref().map_or_else(|| region.generations.number(), |asked| asked.by.generation);
        let native = probes::native(region);
        let mut judge = region.judging.judge();
        let (said, outcome) = match verdict {
            Ok(unwell) => {
                let outcome = judge.judged(&due.region, unwell, &native, region.now());
                (if unwell { Said::Unwell } else { Said::Steady }, outcome)
            }
            Err(why) => {
                let bound = if due.enough { Bound::Stale } else { Bound::TooFewVotes };
                let why = why.unwrap_or_else(|| "too few observers have a vote that counts".into());
                (Said::Nothing(why), judge.unjudged(&due.region, bound, &native, region.now()))
            }
        };
        drop(judge);
        let why = format!("probes of {} were lost, or a verdict about it was due again", due.region);
        let decision = record(region, &native, generation, (due.region, due.votes), said, outcome);
        if let Some(asked) = asked {
            note(region, Kind::Health, asked, (why, Some(crate::explain::words(&decision))));
        }
    }
}

/// What a policy was asked, and what it answered.
struct Asked {
    by: Arc<Loaded>,
    about: String,
    question: Question,
    answer: Answer,
}

fn note(region: &RunningRegion, kind: Kind, asked: Asked, (why, gave): (String, Option<String>)) {
    let Asked { by, about, question, answer } = asked;
    region.recorder.note(kind, || Note { by, why, about, question, answer, gave, withheld: None });
}

async fn ask_verdict(region: &RunningRegion, due: &Due) -> (Result<bool, Option<String>>, Option<Asked>) {
    let about = format!("{}, as {} observers see it", due.region, due.observations().len());
    match ask(region, Question::Health { observations: due.observations() }, about).await {
        Ok(asked) => match &asked.answer {
            Answer::Unwell(unwell) => (Ok(*unwell), Some(asked)),
            other => (Err(Some(refusal(other))), Some(asked)),
        },
        Err(why) => (Err(Some(why)), None),
    }
}

/// Asks for a plan where other regions serve than when it was asked last.
async fn ask_plan(region: &RunningRegion, planned: &mut Planned) {
    let native = probes::native(region);
    let states = region.judging.judge().states_before_drains(&native);
    let serving = states.iter().filter(|(_, state)| state.serves()).map(|(id, _)| id.clone()).collect();
    let asked = (region.generations.number(), serving);
    let waits = planned.failed.is_some_and(|failed| region.now() - failed < PLAN_AGAIN);
    if planned.asked.as_ref() == Some(&asked) || waits {
        return;
    }
    let mut regions = region.facts().regions;
    for facts in &mut regions {
        facts.state = states.get(&facts.id).copied().unwrap_or(facts.state);
    }
    let serve = asked.1.iter().map(RegionId::as_str).collect::<Vec<_>>().join(" ");
    let answered = ask(region, Question::Failover { regions }, format!("the regions that serve: {serve}")).await;
    let plan = match &answered {
        Ok(Asked { answer: Answer::Failover(plan), by, .. }) => Ok((plan.clone(), by.generation)),
        Ok(other) => Err(refusal(&other.answer)),
        Err(why) => Err(why.clone()),
    };
    if let Ok(answered) = answered {
        let why = "other regions serve than before, or another generation is in force".to_owned();
        note(region, Kind::Failover, answered, (why, None));
    }
    match plan {
        Ok((plan, generation)) => {
            *planned = Planned { asked: Some(asked), failed: None };
            take_plan(region, plan, &states, generation);
        }
        Err(why) => {
            tracing::warn!(%why, "failover-plan gave no plan");
            planned.failed = Some(region.now());
            region.judging.judge().unplanned(region.now());
        }
    }
}

fn take_plan(region: &RunningRegion, plan: FailoverPlan, asked: &States, generation: u64) {
    if region.judging.plan.load().as_deref() != Some(&plan) {
        let names = |ids: &[RegionId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let promote = plan.promote.as_ref().map_or("nobody", RegionId::as_str);
        tracing::info!(
            drain = names(&plan.drain),
            shift = plan.shift,
            promote,
            generation,
            "failover-plan: who is promoted asks for votes first, once the primary is lost"
        );
    }
    let native = probes::native(region);
    let changed = region.judging.judge().planned(&plan, asked, &native, region.now());
    region.judging.plan.store(Some(Arc::new(plan)));
    for (id, outcome) in changed {
        let said = drain(region, &id);
        record(region, &native, generation, (id, Vec::new()), said, outcome);
    }
}

/// Carries out what waited, and lifts what may not last.
fn carry_out(region: &RunningRegion) {
    let (native, now) = (probes::native(region), region.now());
    let changed = region.judging.judge().tick(&native, now);
    for (id, outcome) in changed {
        let (said, votes) = {
            let judge = region.judging.judge();
            (drain_of(&judge, &id), judge.votes(&id, &native, now))
        };
        record(region, &native, region.generations.number(), (id, votes), said, outcome);
    }
}

fn drain(region: &RunningRegion, id: &RegionId) -> Said {
    drain_of(&region.judging.judge(), id)
}

fn drain_of(judge: &Judge, id: &RegionId) -> Said {
    if judge.drained(id) { Said::Drain } else { Said::NoDrain }
}

async fn ask(region: &RunningRegion, question: Question, about: String) -> Result<Asked, String> {
    let (child, by) = region.generations.asked().ok_or("no generation is in force")?;
    let answer = child.ask(question.clone()).await.map_err(|error| error.to_string())?;
    Ok(Asked { by, about, question, answer })
}

fn refusal(answer: &Answer) -> String {
    match answer {
        Answer::Refused(findings) => findings.first().map(ToString::to_string).unwrap_or_default(),
        _ => "the policy host gave another answer than asked for".into(),
    }
}

/// Counts a decision, keeps it, says it where it is news, and gives it.
fn record(
    region: &RunningRegion,
    native: &Native,
    generation: u64,
    (id, votes): (RegionId, Vec<Vote>),
    said: Said,
    outcome: Outcome,
) -> Decision {
    let name = id.to_string();
    match outcome {
        Outcome::Held(bound) => {
            metrics::counter!("repomind_judgement_held_total", "region" => name, "bound" => bound.name()).increment(1);
        }
        Outcome::Out | Outcome::Back | Outcome::Released(_) => {
            let to = if outcome == Outcome::Out { "out" } else { "back" };
            metrics::counter!("repomind_judgement_changes_total", "region" => name, "to" => to).increment(1);
        }
        Outcome::StaysIn | Outcome::StaysOut | Outcome::OutNatively => {}
    }
    let now = region.wall_clock();
    let state = native.states.get(&id).copied().unwrap_or(RegionState::Joining);
    let decision =
        Decision { at: now, until: now, times: 1, region: id, native: state, generation, votes, said, outcome };
    let words = crate::explain::words(&decision);
    let news = region.judging.log.lock().unwrap_or_else(PoisonError::into_inner).push(decision.clone());
    match outcome {
        // Nothing was asked, and at every start it is so for a moment; `explain failover` and the counter have it.
        Outcome::Held(Bound::TooFewVotes) => tracing::debug!(generation, "{words}"),
        Outcome::StaysIn | Outcome::StaysOut | Outcome::OutNatively => {}
        _ if news => tracing::info!(generation, "{words}"),
        _ => {}
    }
    decision
}
