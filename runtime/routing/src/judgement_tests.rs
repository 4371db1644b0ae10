use model::judgement::VoteLost;
use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["ap-southeast", "eu-west", "us-east"];
const CALM: Observation = Observation { probes: 64, losses: 1, losses_in_a_row: 0 };
const BAD: Observation = Observation { probes: 64, losses: 30, losses_in_a_row: 2 };

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn plan(drain: &[&str]) -> FailoverPlan {
    FailoverPlan { drain: drain.iter().map(|name| id(name)).collect(), shift: 25, promote: None }
}

/// A judge in us-east, every region of which is ready and well.
struct Court {
    judge: Judge,
    native: Native,
    now: Mono,
}

impl Court {
    fn new() -> Self {
        let regions: BTreeSet<_> = NAMES.iter().map(|name| id(name)).collect();
        let states = regions.iter().map(|id| (id.clone(), RegionState::Ready)).collect();
        let native = Native { states, recovered: regions.clone() };
        Self { judge: Judge::new(id("us-east"), regions, JudgeLimits::default()), native, now: Mono(100_000) }
    }
    fn pass(&mut self, millis: u64) {
        self.now = self.now + Millis(millis);
    }
    fn told(&mut self, observer: &str, seen: &[(&str, Observation)]) {
        let seen = seen.iter().map(|(name, observation)| (id(name), *observation)).collect();
        self.judge.told(&id(observer), &seen, self.now);
    }
    fn due(&mut self) -> Vec<Due> {
        self.judge.due(&self.native, self.now)
    }
    fn judged(&mut self, region: &str, unwell: bool) -> Outcome {
        self.judge.judged(&id(region), unwell, &self.native, self.now)
    }
    fn tick(&mut self) -> Vec<(RegionId, Outcome)> {
        self.judge.tick(&self.native, self.now)
    }
    fn planned(&mut self, drain: &[&str]) -> Vec<(RegionId, Outcome)> {
        let asked = self.judge.states_before_drains(&self.native);
        self.judge.planned(&plan(drain), &asked, &self.native, self.now)
    }
    fn native(&mut self, region: &str, state: RegionState) {
        self.native.states.insert(id(region), state);
    }
    fn state(&self, region: &str) -> RegionState {
        self.judge.states(&self.native)[&id(region)]
    }
}

#[test]
fn a_region_judged_unwell_serves_nobody_new_and_returns_only_after_a_while_of_steadiness() {
    let mut court = Court::new();
    assert_eq!(court.judged("eu-west", true), Outcome::Out);
    assert_eq!(court.state("eu-west"), RegionState::Degraded);
    court.pass(200);
    assert_eq!(court.judged("eu-west", true), Outcome::StaysOut);
    court.pass(200);
    assert_eq!(court.judged("eu-west", false), Outcome::Held(Bound::Recovery));
    court.pass(4_900);
    assert_eq!(court.judged("eu-west", false), Outcome::Held(Bound::Recovery));
    court.pass(100);
    court.native.recovered.remove(&id("eu-west"));
    assert_eq!(court.judged("eu-west", false), Outcome::Held(Bound::Recovery), "the native rule was not asked");
    court.native.recovered.insert(id("eu-west"));
    assert_eq!(court.judged("eu-west", false), Outcome::Back);
    assert_eq!(court.state("eu-west"), RegionState::Ready);
}

#[test]
fn a_second_region_is_never_taken_out_and_the_slot_is_free_after_the_first_returned() {
    let mut court = Court::new();
    assert_eq!(court.planned(&["ap-southeast"]), [(id("ap-southeast"), Outcome::Out)]);
    court.pass(60_000);
    assert_eq!(court.judged("eu-west", true), Outcome::Held(Bound::OneAtATime));
    assert_eq!(court.planned(&[]), [(id("ap-southeast"), Outcome::Back)]);
    assert_eq!(court.judged("eu-west", true), Outcome::Held(Bound::Pace));
    court.pass(5_000);
    assert_eq!(court.judged("eu-west", true), Outcome::Out);
}

#[test]
fn the_last_region_that_serves_is_never_taken_out_and_one_that_became_the_last_comes_back_at_once() {
    let mut court = Court::new();
    court.native("us-east", RegionState::Down);
    court.native("ap-southeast", RegionState::Down);
    assert_eq!(court.judged("eu-west", true), Outcome::Held(Bound::LastServing));

    let mut court = Court::new();
    assert_eq!(court.planned(&["eu-west"]), [(id("eu-west"), Outcome::Out)]);
    court.native("us-east", RegionState::Down);
    court.native("ap-southeast", RegionState::Down);
    assert_eq!(court.state("eu-west"), RegionState::Ready, "nobody serves until the next tick");
    assert_eq!(court.tick(), [(id("eu-west"), Outcome::Released(Bound::LastServing))]);
}

#[test]
fn when_most_regions_seem_unwell_nobody_is_out_by_judgement() {
    let mut court = Court::new();
    assert_eq!(court.judged("eu-west", true), Outcome::Out);
    assert_eq!(court.judged("ap-southeast", true), Outcome::Held(Bound::Panic));
    assert_eq!(court.tick(), [(id("eu-west"), Outcome::Released(Bound::Panic))]);
    assert!(NAMES.iter().all(|name| court.state(name) == RegionState::Ready));

    let mut court = Court::new();
    court.native("ap-southeast", RegionState::Down);
    assert_eq!(court.judged("eu-west", true), Outcome::Held(Bound::Panic));
}

#[test]
fn a_flapping_region_waits_twice_as_long_each_time_and_a_minute_at_most() {
    let mut court = Court::new();
    for expected in [5, 10, 20, 40, 60, 60] {
        court.pass(5_000);
        assert_eq!(court.judged("eu-west", true), Outcome::Out);
        let out = court.now;
        court.pass(200);
        while court.judged("eu-west", false) != Outcome::Back {
            court.pass(200);
        }
        assert_eq!((court.now - out).0 / 1000, expected);
    }
}

#[test]
fn a_policy_that_gives_no_verdict_any_more_leaves_the_native_rule_alone_after_ten_seconds() {
    let mut court = Court::new();
    assert_eq!(court.judged("eu-west", true), Outcome::Out);
    court.pass(10_000);
    let unjudged =
        |court: &mut Court| court.judge.unjudged(&id("eu-west"), Bound::TooFewVotes, &court.native, court.now);
    assert_eq!(unjudged(&mut court), Outcome::Held(Bound::TooFewVotes));
    assert_eq!(court.state("eu-west"), RegionState::Degraded);
    court.pass(1);
    assert_eq!(court.tick(), [(id("eu-west"), Outcome::Released(Bound::Stale))]);
}

#[test]
fn a_plan_that_drains_what_does_not_serve_anyway_never_keeps_a_region_from_coming_back() {
    let mut court = Court::new();
    assert_eq!(court.judged("eu-west", true), Outcome::Out);
    // The default plan drains whatever does not serve; it must not take its own cause for a new one.
    assert_eq!(court.planned(&["eu-west"]), []);
    assert_eq!(court.judged("eu-west", false), Outcome::Held(Bound::Recovery));
    court.pass(5_000);
    assert_eq!(court.judged("eu-west", false), Outcome::Back);
    court.native("ap-southeast", RegionState::Down);
    assert_eq!(court.planned(&["ap-southeast"]), []);
    court.native("ap-southeast", RegionState::Ready);
    assert_eq!(court.tick(), []);
    assert_eq!(court.state("ap-southeast"), RegionState::Ready);
}

#[test]
fn drains_end_when_no_plan_can_be_had_for_ten_seconds() {
    let mut court = Court::new();
    assert_eq!(court.planned(&["eu-west"]), [(id("eu-west"), Outcome::Out)]);
    court.judge.unplanned(court.now);
    court.pass(10_001);
    assert_eq!(court.tick(), []);
    court.judge.unplanned(court.now);
    assert_eq!(court.tick(), [(id("eu-west"), Outcome::Back)]);
}

#[test]
fn a_region_is_asked_about_after_a_loss_and_at_most_every_200_ms() {
    let mut court = Court::new();
    court.told("us-east", &[("eu-west", CALM), ("ap-southeast", CALM)]);
    court.told("ap-southeast", &[("eu-west", CALM), ("us-east", CALM)]);
    let first = court.due();
    assert_eq!(first.iter().map(|due| due.region.as_str()).collect::<Vec<_>>(), ["ap-southeast", "eu-west"]);
    assert!(first.iter().all(|due| due.region != id("us-east")), "a region judges itself");
    court.pass(200);
    assert_eq!(court.due(), [], "nothing was lost since");
    court.told("ap-southeast", &[("eu-west", BAD), ("us-east", CALM)]);
    let due = court.due();
    assert!(due.len() == 1 && due[0].enough && due[0].observations() == [BAD, CALM], "{due:?}");
    court.pass(199);
    court.told("us-east", &[("eu-west", BAD), ("ap-southeast", CALM)]);
    assert_eq!(court.due(), []);
    court.pass(1);
    assert_eq!(court.due().len(), 1);
    court.native("eu-west", RegionState::Down);
    court.pass(200);
    court.judged("eu-west", true);
    assert_eq!(court.due(), [], "a dead region is asked about");
}

#[test]
fn an_observer_that_is_silent_or_loses_most_regions_has_no_vote() {
    let mut court = Court::new();
    court.told("ap-southeast", &[("eu-west", BAD), ("us-east", BAD)]);
    court.told("us-east", &[("eu-west", BAD), ("ap-southeast", CALM)]);
    let due = court.due();
    let eu = due.iter().find(|due| due.region == id("eu-west")).unwrap();
    let lost: Vec<_> = eu.votes.iter().map(|vote| vote.lost).collect();
    assert_eq!((lost, eu.enough), (vec![Some(VoteLost::SelfDoubt), None], false));

    court.told("ap-southeast", &[("eu-west", BAD), ("us-east", CALM)]);
    court.pass(1_001);
    court.told("us-east", &[("eu-west", BAD), ("ap-southeast", CALM)]);
    let votes = court.judge.votes(&id("eu-west"), &court.native, court.now);
    assert_eq!(votes.iter().map(|vote| vote.lost).collect::<Vec<_>>(), [Some(VoteLost::Unheard), None]);
    // A region that everybody lost says nothing about the link of the one who lost it.
    court.told("us-east", &[("eu-west", BAD), ("ap-southeast", BAD)]);
    court.native("ap-southeast", RegionState::Down);
    let votes = court.judge.votes(&id("eu-west"), &court.native, court.now);
    assert_eq!(votes.last().map(|vote| vote.lost), Some(None));
}

#[test]
fn a_stranger_has_no_vote_and_takes_no_memory() {
    let mut court = Court::new();
    court.told("sa-east", &[("eu-west", BAD)]);
    court.told("ap-southeast", &[("sa-east", BAD), ("ap-southeast", BAD)]);
    assert_eq!(court.due(), []);
    assert_eq!(court.judge.votes(&id("eu-west"), &court.native, court.now), []);
    assert_eq!(court.judge.votes(&id("sa-east"), &court.native, court.now), []);
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Native(usize, RegionState),
    Judged(usize, bool),
    Planned(Vec<usize>),
    Unjudged(usize),
    Unplanned,
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    let region = 0..NAMES.len();
    let state = prop::sample::select(
        RegionState::ALL.into_iter().filter(|state| *state != RegionState::Degraded).collect::<Vec<_>>(),
    );
    prop_oneof![
        (0_u64..8_000).prop_map(Event::Pass),
        (region.clone(), state).prop_map(|(region, state)| Event::Native(region, state)),
        (region.clone(), any::<bool>()).prop_map(|(region, unwell)| Event::Judged(region, unwell)),
        prop::collection::vec(region.clone(), 0..3).prop_map(Event::Planned),
        region.prop_map(Event::Unjudged),
        Just(Event::Unplanned),
        Just(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_policy_ever_takes_out_two_regions_or_the_last_or_two_within_five_seconds(
        events in prop::collection::vec(event(), 1..80)
    ) {
        let mut court = Court::new();
        let mut changed: Option<Mono> = None;
        for event in events {
            let outcomes: Vec<Outcome> = match event {
                Event::Pass(millis) => { court.pass(millis); vec![] }
                Event::Native(at, state) => { court.native(NAMES[at], state); vec![] }
                Event::Judged(at, unwell) => vec![court.judged(NAMES[at], unwell)],
                Event::Planned(at) => {
                    let drain: Vec<&str> = at.into_iter().map(|at| NAMES[at]).collect();
                    court.planned(&drain).into_iter().map(|(_, outcome)| outcome).collect()
                }
                Event::Unjudged(at) => {
                    vec![court.judge.unjudged(&id(NAMES[at]), Bound::Stale, &court.native, court.now)]
                }
                Event::Unplanned => { court.judge.unplanned(court.now); vec![] }
                Event::Tick => court.tick().into_iter().map(|(_, outcome)| outcome).collect(),
            };
            for outcome in outcomes {
                if matches!(outcome, Outcome::Out | Outcome::Back) {
                    prop_assert!(changed.is_none_or(|last| court.now - last >= Millis(5_000)), "{outcome:?} too soon");
                }
                if matches!(outcome, Outcome::Out | Outcome::Back | Outcome::Released(_)) {
                    changed = Some(court.now);
                }
            }
            prop_assert!(court.judge.cases.values().filter(|case| case.out.is_some()).count() <= 1);
            let states = court.judge.states(&court.native);
            let serves = |states: &BTreeMap<RegionId, RegionState>| states.values().any(|state| state.serves());
            prop_assert!(serves(&states) || !serves(&court.native.states), "nobody serves: {states:?}");
            for (region, state) in &states {
                let native = court.native.states[region];
                prop_assert!(*state == native || (*state == RegionState::Degraded && native.serves()));
            }
            court.tick();
            let down = court.native.states.values().filter(|state| !state.serves()).count();
            let out = court.judge.cases.values().any(|case| case.out.is_some());
            prop_assert!(down * 2 <= NAMES.len() || !out, "out although most regions are down");
        }
    }
}
