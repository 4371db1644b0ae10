//! Every mistake that the data plane can make on purpose is caught. What catches it is said, so that a checker that
//! goes blind is noticed.

use data::Fault;
use sim::{Options, run};

/// Seeds that are tried until the mistake shows.
const SEEDS: u64 = 200;

fn caught(mistake: Fault) -> String {
    for seed in 1..=SEEDS {
        let (resolvers, rot) = (mistake == Fault::OtherResolver, mistake == Fault::MendFromAny);
        let limits = [Fault::ShowExpired, Fault::ExpireLikeAWrite, Fault::IgnoreCondition, Fault::IgnoreQuota]
            .contains(&mistake);
        let options = Options { mistake: Some(mistake), resolvers, rot, limits, ..Options::default() };
        if let Err(failure) = run(seed, options) {
            println!("{mistake:?}: seed {seed}: {}", failure.what);
            return failure.what;
        }
    }
    panic!("{mistake:?} was not caught within {SEEDS} seeds");
}

#[test]
fn every_mistake_is_caught() {
    for mistake in Fault::ALL {
        caught(mistake);
    }
}

#[test]
fn the_residency_checks_see_a_scope_that_is_ignored() {
    let what = caught(Fault::IgnoreScope);
    assert!(what.contains("may not be"), "{what}");
}

#[test]
fn the_checks_see_a_record_that_is_shown_when_its_time_is_over() {
    let what = caught(Fault::ShowExpired);
    assert!(what.contains("whose time is over"), "{what}");
}

#[test]
fn the_checks_see_an_expiry_that_wins_over_a_later_write() {
    let what = caught(Fault::ExpireLikeAWrite);
    assert!(what.contains("wins over the later write"), "{what}");
}

#[test]
fn the_checks_see_a_condition_that_is_ignored_and_a_quota_that_bounds_nothing() {
    let what = caught(Fault::IgnoreCondition);
    assert!(what.contains("on condition"), "{what}");
    let what = caught(Fault::IgnoreQuota);
    assert!(what.contains("has taken record"), "{what}");
}

#[test]
fn the_session_checks_see_a_context_that_is_ignored() {
    let what = caught(Fault::IgnoreContext);
    assert!(what.contains("client"), "{what}");
}

#[test]
fn the_checks_see_a_repair_that_brings_back_what_was_replaced_or_deleted() {
    caught(Fault::MendFromAny);
}

#[test]
fn the_checks_of_what_is_shown_see_another_resolver() {
    let what = caught(Fault::OtherResolver);
    assert!(what.contains("hold the same of"), "{what}");
}

#[test]
fn the_checks_of_the_conflict_log_see_a_loser_that_nobody_noted() {
    let what = caught(Fault::ForgetLosers);
    assert!(what.contains("the log has"), "{what}");
}
