//! Five hundred seeds with every test run; `make sim` runs more.

use std::sync::atomic::{AtomicU64, Ordering};

use sim::{KNOWN, Options, run};

const SEEDS: u64 = 500;

#[test]
fn nothing_is_lost_and_regions_agree_under_every_fault() {
    let next = AtomicU64::new(1);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > SEEDS {
                return;
            }
            if !KNOWN.contains(&seed) {
                run(seed, Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

fn passes(seeds: &[u64]) {
    for &seed in seeds {
        run(seed, Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn a_delete_that_one_region_has_forgotten_does_not_come_back_in_another() {
    passes(&[1129]);
}

#[test]
fn a_delete_beside_a_write_is_known_to_regions_that_may_not_hold_the_write() {
    passes(&[673]);
}

#[test]
fn a_record_that_moved_away_is_not_shown_by_a_region_that_was_given_rows() {
    passes(&[260, 1139, 3770]);
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let trace = |seed| {
        let outcome = run(seed, Options { trace: true, ..Options::default() });
        outcome.map(|stats| format!("{stats:?}")).unwrap_or_else(|failure| failure.to_string())
    };
    assert_eq!(trace(7), trace(7));
    assert_eq!(trace(260), trace(260));
}
