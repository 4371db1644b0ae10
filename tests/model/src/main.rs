//! Explores the model within other bounds than the tests do:
//! `model-check TERMS MESSAGES CRASHES PAUSES HAND-OVERS [FAULT]`.

use std::time::Instant;

use model_check::{Bounds, Fault, Primary};
use stateright::{Checker, Model};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u8>().ok()).expect("five numbers");
    let fault = words.get(5).map(|word| {
        let all =
            [Fault::LeaseWithoutMargin, Fault::RestartForgets, Fault::ClockStopsInSleep, Fault::HandOverKeepsLease];
        all.into_iter().find(|fault| format!("{fault:?}") == *word).expect("the name of a fault")
    });
    let bounds =
        Bounds { terms: number(0), messages: usize::from(number(1)), mishaps: [number(2), number(3), number(4)] };
    let begun = Instant::now();
    let checker = Primary { fault, bounds }.checker().threads(2).spawn_bfs().join();
    let found: Vec<_> = checker.discoveries().into_keys().collect();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{states} states, depth {depth}, {:.1} s; {bounds:?} {fault:?}: {found:?}", begun.elapsed().as_secs_f64());
}
