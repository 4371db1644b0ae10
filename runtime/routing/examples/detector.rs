//! How often the native rule calls a region down that lives, and how soon one that died.
//!
//! `cargo run --release -p routing --example detector -- [DAYS] [SEED] [PERCENT]` prints the rates a day and link at 2, 5
//! and 10% loss each way, or up to PERCENT alone, 20% jitter, 70 ms round trip, without pauses and with pauses of 500 ms now and then.

use std::time::Instant;

#[path = "../tests/detector/link.rs"]
mod link;

use link::{Kind, Link, Weather};

const MINUTE: u64 = 60_000_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const NEVER: u64 = u64::MAX / 1000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let days = arguments.next().unwrap_or(20).max(1);
    let seed = arguments.next().unwrap_or(1);
    let most = arguments.next().unwrap_or(100) as f64 / 100.0;
    println!("{days} simulated days a row, seed {seed}");
    println!("link       loss  pauses    false downs     a day  noticed p50 / p99 / max (ms)   x real time");
    for kind in [Kind::Datagrams, Kind::Stream] {
        for loss in [0.02, 0.05, 0.10].into_iter().filter(|loss| *loss <= most) {
            for (pauses, every) in [("never", NEVER), ("hourly", HOUR), ("minutely", MINUTE)] {
                row(Weather::atlantic(kind, loss, every), pauses, days, seed);
            }
        }
    }
}

fn row(weather: Weather, pauses: &str, days: u64, seed: u64) {
    let began = Instant::now();
    let mut link = Link::new(weather, seed);
    link.settle();
    let downs = link.run(days * DAY);
    let speed = days as f64 * 86_400.0 / began.elapsed().as_secs_f64();
    let mut noticed: Vec<u64> = (0..1000)
        .map(|_| {
            link.settle();
            link.run(20_000_000);
            link.settle();
            link.crash() / 1000
        })
        .collect();
    noticed.sort_unstable();
    let at = |share: f64| noticed[((noticed.len() - 1) as f64 * share) as usize];
    println!(
        "{:9} {:4.0}%  {pauses:8}  {downs:11} {:9.3}  {:5} / {} / {}{:>25.0}",
        format!("{:?}", weather.kind).to_lowercase(),
        weather.loss * 100.0,
        downs as f64 / days as f64,
        at(0.5),
        at(0.99),
        at(1.0),
        speed
    );
}
