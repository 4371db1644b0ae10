//! Explores the model: without a fault nothing is found, and each fault is.

use model_check::{Bounds, Fault, Primary};
use stateright::{Checker, Model};

const SAFE: [&str; 2] = ["at most one region answers for the primary", "nobody answers for an older fence"];

fn bounds(messages: usize, mishaps: [u8; 3]) -> Bounds {
    Bounds { terms: 2, messages, mishaps }
}

#[test]
fn no_order_of_events_makes_two_primaries() {
    let bounds = bounds(2, [1, 1, 1]);
    let checker = Primary { fault: None, bounds }.checker().threads(2).spawn_bfs().join();
    println!("{} states, depth {}, all of them within {bounds:?}", checker.unique_state_count(), checker.max_depth());
    for name in SAFE {
        assert!(checker.discovery(name).is_none(), "{name}: {:?}", checker.discovery(name));
    }
    for name in ["a region answers", "another region answers after the first"] {
        assert!(checker.discovery(name).is_some(), "{name}: never, so the model is too small to show anything");
    }
}

fn finds(fault: Fault, bounds: Bounds) {
    let checker = Primary { fault: Some(fault), bounds }.checker().threads(2).spawn_bfs().join();
    let found = SAFE.iter().find_map(|name| checker.discovery(name));
    let found = found.unwrap_or_else(|| panic!("{fault:?} was not noticed in {} states", checker.unique_state_count()));
    println!("{fault:?}: {:?}", found.into_actions());
}

#[test]
fn a_lease_longer_than_the_promise_is_noticed() {
    finds(Fault::LeaseWithoutMargin, bounds(2, [0, 0, 0]));
}

#[test]
fn a_restart_that_forgets_its_promise_is_noticed() {
    finds(Fault::RestartForgets, bounds(2, [1, 0, 0]));
}

#[test]
fn a_clock_that_stops_in_sleep_is_noticed() {
    finds(Fault::ClockStopsInSleep, bounds(2, [0, 1, 0]));
}

#[test]
fn a_leader_that_answers_after_handing_over_is_noticed() {
    finds(Fault::HandOverKeepsLease, bounds(2, [0, 0, 1]));
}
