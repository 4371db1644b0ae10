use super::*;

fn region(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

struct Drill {
    tracker: HealthTracker,
    peer: RegionId,
    now: u64,
}

impl Drill {
    /// A region that is ready.
    fn ready() -> Self {
        let peer = region("eu-west");
        let mut drill =
            Self { tracker: HealthTracker::new(BTreeSet::from([peer.clone(), region("ap-southeast")])), peer, now: 0 };
        drill.tracker.caught_up(&drill.peer, true);
        (0..10).for_each(|_| drill.answer(70));
        assert_eq!(drill.state(), RegionState::Ready);
        drill
    }
    fn probe(&mut self, after: u64, round_trip: Option<Micros>) {
        self.now += after;
        self.tracker.handle_probe(&self.peer, round_trip, Mono(self.now));
    }
    fn answer(&mut self, millis: u64) {
        self.probe(50, Some(Micros::from_millis(millis)));
    }
    fn lose(&mut self, losses: u32) {
        (0..losses).for_each(|_| self.probe(50, None));
    }
    fn late(&mut self) {
        self.tracker.handle_late(&self.peer, Mono(self.now));
    }
    fn hear(&mut self, observer: &str, losses_in_a_row: u32) {
        let seen = Observation { probes: 128, losses: losses_in_a_row, losses_in_a_row };
        self.tracker.handle_word(&region(observer), &BTreeMap::from([(self.peer.clone(), seen)]), Mono(self.now));
    }
    fn state(&self) -> RegionState {
        self.tracker.state(&self.peer)
    }
}

#[test]
fn eight_losses_never_take_a_region_down_and_the_ninth_does() {
    let mut drill = Drill::ready();
    drill.lose(3);
    assert_eq!(drill.state(), RegionState::Ready);
    drill.lose(1);
    assert_eq!(drill.state(), RegionState::Suspect);
    drill.lose(4);
    assert!(drill.state().serves());
    drill.lose(1);
    assert_eq!(drill.state(), RegionState::Down);
    let seen = drill.tracker.observation(&drill.peer).unwrap();
    assert_eq!(seen, Observation { probes: 19, losses: 9, losses_in_a_row: 9 });
}

#[test]
fn a_slow_answer_shows_that_a_region_lives_and_brings_back_none_that_is_down() {
    let mut drill = Drill::ready();
    drill.lose(8);
    drill.late();
    drill.lose(8);
    assert_eq!(drill.state(), RegionState::Suspect);
    assert_eq!(drill.tracker.observation(&drill.peer).unwrap().losses, 16, "what was late still counts as lost");
    drill.lose(1);
    assert_eq!(drill.state(), RegionState::Down);
    (0..20).for_each(|_| drill.late());
    assert_eq!(drill.state(), RegionState::Down);
}

#[test]
fn a_region_that_another_one_reaches_goes_down_later_and_goes_down() {
    let mut drill = Drill::ready();
    for losses in 1..=13 {
        drill.hear("ap-southeast", 2);
        drill.lose(1);
        assert!(drill.state().serves(), "down after {losses} losses");
    }
    drill.hear("ap-southeast", 2);
    drill.lose(1);
    assert_eq!(drill.state(), RegionState::Down);
}

#[test]
fn a_word_that_is_old_bad_or_from_a_stranger_holds_nothing_up() {
    let mut drill = Drill::ready();
    drill.hear("ap-southeast", 0);
    drill.lose(9);
    assert_eq!(drill.state(), RegionState::Down, "it was said 450 ms ago");
    let mut drill = Drill::ready();
    drill.lose(8);
    drill.hear("ap-southeast", 0);
    drill.hear("ap-southeast", 3);
    drill.lose(1);
    assert_eq!(drill.state(), RegionState::Down, "it loses probes, too");
    let mut drill = Drill::ready();
    drill.lose(8);
    drill.hear("sa-east", 0);
    drill.hear("eu-west", 0);
    drill.lose(1);
    assert_eq!(drill.state(), RegionState::Down, "no region of this deployment, and the region itself");
}

#[test]
fn a_region_that_was_away_does_not_come_back_as_one_that_limps() {
    let mut drill = Drill::ready();
    drill.lose(40);
    assert_eq!(drill.state(), RegionState::Down);
    drill.answer(70);
    let seen = drill.tracker.observation(&drill.peer).unwrap();
    assert_eq!(seen, Observation { probes: 1, losses: 0, losses_in_a_row: 0 });
    // What it loses from now on counts again.
    drill.lose(1);
    assert_eq!(drill.tracker.observation(&drill.peer).unwrap().losses, 1);
}

#[test]
fn a_black_hole_is_noticed_by_its_silence_although_its_probes_are_slow_to_fail() {
    let mut drill = Drill::ready();
    drill.probe(1000, None);
    assert_eq!(drill.state(), RegionState::Ready);
    drill.probe(1000, None);
    assert_eq!(drill.state(), RegionState::Down);
}

#[test]
fn our_own_pause_is_held_against_nobody() {
    let mut drill = Drill::ready();
    drill.probe(30_000, None);
    assert_eq!(drill.state(), RegionState::Ready);
    drill.lose(3);
    assert_eq!(drill.state(), RegionState::Suspect);
}

#[test]
fn no_traffic_returns_to_a_region_before_ten_good_answers_in_a_row() {
    let mut drill = Drill::ready();
    drill.lose(9);
    (0..9).for_each(|_| drill.answer(70));
    drill.tracker.caught_up(&drill.peer.clone(), true);
    drill.lose(1);
    (0..9).for_each(|_| drill.answer(70));
    assert_eq!(drill.state(), RegionState::CatchingUp);
    drill.answer(70);
    assert_eq!(drill.state(), RegionState::Degraded, "and then only where no other region serves, for a while");
}

#[test]
fn no_traffic_returns_to_a_region_that_is_still_behind() {
    let mut drill = Drill::ready();
    drill.lose(9);
    (0..101).for_each(|_| drill.answer(70));
    assert_eq!(drill.state(), RegionState::CatchingUp, "what it knew before it went down does not count");
    drill.tracker.caught_up(&drill.peer.clone(), true);
    assert_eq!(drill.state(), RegionState::Ready);
    drill.tracker.caught_up(&drill.peer.clone(), false);
    assert_eq!(drill.state(), RegionState::Ready, "a busy moment takes nobody out");
}

#[test]
fn a_region_that_was_never_there_goes_from_joining_to_down() {
    let peer = region("ap-southeast");
    let mut tracker = HealthTracker::new(BTreeSet::from([peer.clone()]));
    assert_eq!(tracker.state(&peer), RegionState::Joining);
    (1..=9).for_each(|at| tracker.handle_probe(&peer, None, Mono(at)));
    assert_eq!(tracker.state(&peer), RegionState::Down);
}

#[test]
fn jitter_never_moves_the_steady_round_trip_and_a_new_path_does() {
    let mut drill = Drill::ready();
    let mut noise = 1_u64;
    for _ in 0..10_000 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        drill.answer(65 + (noise >> 33) % 11);
        assert_eq!(drill.tracker.steady_round_trip(&drill.peer), Some(Micros::from_millis(70)));
    }
    (0..60).for_each(|_| drill.answer(120));
    let steady = drill.tracker.steady_round_trip(&drill.peer).unwrap();
    assert!((110..=120).contains(&(steady.0 / 1000)), "{steady}");
}

#[test]
fn a_region_that_was_lost_serves_in_need_alone_until_it_has_been_steady_and_longer_each_time_it_flaps() {
    let mut drill = Drill::ready();
    let mut holds = Vec::new();
    for _ in 0..6 {
        drill.lose(9);
        assert_eq!(drill.state(), RegionState::Down);
        let lost = drill.now;
        drill.tracker.caught_up(&drill.peer, true);
        (0..10).for_each(|_| drill.answer(70));
        assert_eq!(drill.state(), RegionState::Degraded);
        while drill.state() != RegionState::Ready {
            // Whether it limps is for the policy, and lengthens nothing.
            drill.lose(5);
            drill.answer(70);
            assert!(drill.now - lost < 70_000);
        }
        holds.push((drill.now - lost) / 1000);
    }
    assert_eq!(holds, [5, 10, 20, 40, 60, 60]);
    drill.now += 300_000;
    drill.answer(70);
    drill.lose(9);
    drill.tracker.caught_up(&drill.peer, true);
    (0..105).for_each(|_| drill.answer(70));
    assert_eq!(drill.state(), RegionState::Ready, "a long while of service is forgiven");
}

#[test]
fn a_region_that_is_cut_off_and_back_in_turns_is_taken_out_once_and_brought_back_once() {
    let mut drill = Drill::ready();
    let (mut served, mut changes) = (true, 0);
    let mut look = |drill: &Drill| {
        if drill.state().serves() != served {
            (served, changes) = (!served, changes + 1);
        }
        changes
    };
    // Ten minutes of a second and a half each way.
    for _ in 0..200 {
        for _ in 0..30 {
            drill.lose(1);
            look(&drill);
        }
        drill.tracker.caught_up(&drill.peer, true);
        for _ in 0..30 {
            drill.answer(70);
            look(&drill);
        }
    }
    for _ in 0..200 {
        drill.answer(70);
        look(&drill);
    }
    assert_eq!(look(&drill), 2);
}
