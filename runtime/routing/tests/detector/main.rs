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

/// Five losses in a row, of probes that are lost with 1 - 0.98², come 0.081 times a day at ten a second.
#[test]
fn losses_by_themselves_take_down_a_living_region_no_more_often_than_arithmetic_has_it() {
    let mut link = Link::new(Weather::atlantic(Kind::Datagrams, 0.02, NEVER), SEED);
    link.settle();
    let downs = link.run(10 * 24 * HOUR);
    println!("seed {SEED}: {downs} false downs in 10 simulated days at 2% loss each way, 20% jitter, no pauses");
    assert!(downs <= 4, "{downs}; replay with seed {SEED}");
}

#[test]
fn a_crash_is_noticed_within_a_second_in_bad_weather_too() {
    for kind in [Kind::Datagrams, Kind::Stream] {
        let mut link = Link::new(Weather::atlantic(kind, 0.02, HOUR), SEED);
        for _ in 0..500 {
            link.settle();
            link.run(60_000_000);
            link.settle();
            let micros = link.crash();
            assert!(micros <= 1_000_000, "{kind:?}: noticed after {} ms; replay with seed {SEED}", micros / 1000);
        }
    }
}
