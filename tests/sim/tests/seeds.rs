//! Five hundred seeds with every test run; `make sim` runs more.

use std::sync::atomic::{AtomicU64, Ordering};

use sim::{Options, run};

const SEEDS: u64 = 500;

#[test]
fn nothing_is_lost_and_regions_agree_under_every_fault() {
    all_pass(SEEDS, &Options::default());
}

#[test]
fn what_a_resolver_makes_is_the_same_in_every_region_under_every_fault() {
    all_pass(SEEDS / 2, &Options { resolvers: true, ..Options::default() });
}

#[test]
fn rows_that_rot_are_mended_and_bring_nothing_back() {
    all_pass(SEEDS / 2, &rot());
}

#[test]
fn what_is_over_is_not_shown_and_conditions_and_quotas_hold_under_every_fault() {
    all_pass(SEEDS / 2, &Options { limits: true, ..Options::default() });
}

fn all_pass(seeds: u64, options: &Options) {
    let next = AtomicU64::new(1);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds {
                return;
            }
            run(seed, options.clone()).unwrap_or_else(|failure| panic!("{failure}"));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

fn passes(seeds: &[u64]) {
    passes_with(&Options::default(), seeds);
}

fn passes_with(options: &Options, seeds: &[u64]) {
    for &seed in seeds {
        run(seed, options.clone()).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// Rows rot, and disks are lost or set back besides.
fn rot() -> Options {
    Options { rot: true, more_losses: 3, ..Options::default() }
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
fn a_delete_that_was_replaced_elsewhere_does_not_come_back_beside_a_later_write() {
    passes(&[1305, 2940, 3088, 9553]);
}

#[test]
fn a_region_with_an_empty_disk_is_not_left_with_what_moved_away() {
    passes(&[2790, 3831]);
}

#[test]
fn that_a_record_moved_away_is_told_by_whoever_knows_it() {
    passes(&[1732, 10297]);
}

#[test]
fn what_a_lost_write_had_replaced_is_not_shown_again() {
    passes(&[1546]);
}

#[test]
fn a_tombstone_does_not_wait_for_what_a_region_had_before_it_lost_its_disk() {
    passes(&[2278]);
}

#[test]
fn a_wound_is_healed_when_the_disk_says_so() {
    passes_with(&rot(), &[1634, 2218, 2288, 2637, 2788, 2839]);
}

#[test]
fn regions_that_have_lost_the_same_row_do_not_wait_for_each_other() {
    passes_with(&rot(), &[641, 3019]);
}

#[test]
fn a_delete_that_all_have_forgotten_hides_nothing_that_is_written_later() {
    passes_with(&rot(), &[2210]);
}

#[test]
fn a_row_that_is_in_no_log_any_more_is_given_to_every_region() {
    passes_with(&Options { more_losses: 1, ..Options::default() }, &[1312]);
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
