//! The detector alone, in bad weather, at tens of thousands of times real time.

mod link;

use link::{Kind, Link, Weather};

const HOUR: u64 = 3_600_000_000;
/// Longer than any run here.
const NEVER: u64 = 1_000_000 * HOUR;
const SEED: u64 = 20_260_714;

#[test]
fn a_region_that_lives_is_not_called_down_in_six_hours_of_losses_jitter_and_pauses() {
    let mut link = Link::new(Weather::atlantic(Kind::Datagrams, 0.02, HOUR), SEED);
    link.settle();
    let downs = link.run(6 * HOUR);
    println!("seed {SEED}: {downs} false downs in 6 simulated hours at 2% loss each way, 20% jitter, pauses of 500 ms");
    assert_eq!(downs, 0, "replay with seed {SEED}");
}

#[test]
fn losses_by_themselves_never_take_down_a_living_region_in_two_days() {
    for kind in [Kind::Datagrams, Kind::Stream] {
        let mut link = Link::new(Weather::atlantic(kind, 0.02, NEVER), SEED);
        link.settle();
        let downs = link.run(2 * 24 * HOUR);
        println!("seed {SEED}: {downs} false downs in 2 simulated days at 2% loss each way, {kind:?}, no pauses");
        assert_eq!(downs, 0, "{kind:?}; replay with seed {SEED}");
    }
}

#[test]
fn a_crash_is_noticed_within_a_second_in_bad_weather_too() {
    // On streams an answer that is under way may come late, too, and be taken for a sign of life.
    for (kind, most) in [(Kind::Datagrams, 1_000_000), (Kind::Stream, 1_500_000)] {
        let mut link = Link::new(Weather::atlantic(kind, 0.02, HOUR), SEED);
        for _ in 0..500 {
            link.settle();
            link.run(60_000_000);
            link.settle();
            let micros = link.crash();
            assert!(micros <= most, "{kind:?}: noticed after {} ms; replay with seed {SEED}", micros / 1000);
        }
    }
}
