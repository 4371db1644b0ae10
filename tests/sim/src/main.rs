//! `cargo run --release -p sim -- --seeds 500`: runs seeds on all processors, and prints the first that fails.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use sim::{Failure, Options, Stats, run};

/// Runs the replication of three regions under faults, in virtual time.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replays this seed alone, with everything that happened.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: shows every state of this key, such as notes/key-1.
    #[arg(long, value_name = "NAMESPACE/KEY", value_parser = address)]
    key: Option<model::record::Address>,
    /// How many disks may be lost, or go back to a backup, in a run besides one.
    #[arg(long, default_value_t = 0)]
    more_losses: u64,
    /// Clients also write to a namespace whose conflicts a resolver settles.
    #[arg(long)]
    resolvers: bool,
    /// Rows rot on the disk, and are mended, in place of disks that are lost.
    #[arg(long)]
    rot: bool,
    /// Records have an end, a namespace has a quota, and some writes are made only on a condition.
    #[arg(long)]
    limits: bool,
    /// Goes on after a seed that fails, and names all that do.
    #[arg(long)]
    keep_going: bool,
    /// Stops beginning new seeds after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
}

fn address(text: &str) -> Result<model::record::Address, String> {
    let (namespace, key) = text.split_once('/').ok_or("write it as NAMESPACE/KEY")?;
    let namespace = model::Namespace::new(namespace).map_err(|error| error.to_string())?;
    Ok(model::record::Address { namespace, key: model::Key::new(key).map_err(|error| error.to_string())? })
}

fn options(arguments: &Arguments) -> Options {
    Options {
        more_losses: arguments.more_losses,
        resolvers: arguments.resolvers,
        rot: arguments.rot,
        limits: arguments.limits,
        ..Options::default()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let options = options(&arguments);
        return match run(seed, Options { trace: true, key: arguments.key, ..options }) {
            Ok(stats) => {
                println!("seed {seed} passes: {stats:?}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{failure}");
                ExitCode::FAILURE
            }
        };
    }
    match run_all(&arguments) {
        Ok((_, missed, ..)) if missed > 0 => {
            println!("{missed} seeds fail");
            ExitCode::FAILURE
        }
        Ok((count, _, stats, took)) => {
            let Stats { acknowledged, read, faults, lost_with_disks, expired, buried, rows_given, agreed_after } =
                stats;
            println!(
                "{count} seeds pass in {:.0} s: {acknowledged} writes acknowledged, {read} reads, {faults} faults, {lost_with_disks} writes \
                 gone with the only disk that had them, {expired} records expired, {buried} tombstones buried, rows given {rows_given} times, agreement at most {agreed_after} ms after healing",
                took.as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// How many seeds passed and how many failed, what they came to, and how long that took.
fn run_all(arguments: &Arguments) -> Result<(u64, u64, Stats, Duration), Failure> {
    let options = options(arguments);
    let (next, done, missed) = (AtomicU64::new(arguments.from), AtomicU64::new(0), AtomicU64::new(0));
    let end = arguments.from.saturating_add(arguments.seeds);
    let (sum, failed) = (Mutex::new(Stats::default()), Mutex::new(None::<Failure>));
    let began = Instant::now();
    let within = arguments.within.map(Duration::from_secs);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().expect("no panic").is_none() && within.is_none_or(|within| began.elapsed() < within)
                {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match run(seed, options.clone()) {
                        Ok(stats) => sum.lock().expect("no panic").add(&stats),
                        Err(failure) if arguments.keep_going => {
                            println!("seed {} failed at {} ms: {}", failure.seed, failure.at, failure.what);
                            missed.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        Err(failure) => {
                            // The lowest seed is the one to look at.
                            let mut failed = failed.lock().expect("no panic");
                            if failed.as_ref().is_none_or(|other| seed < other.seed) {
                                *failed = Some(failure);
                            }
                            return;
                        }
                    }
                    let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if count % 1000 == 0 {
                        println!("{count} seeds after {:.0} s", began.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("no panic") {
        Some(failure) => Err(run(failure.seed, Options { trace: true, ..options.clone() }).err().unwrap_or(failure)),
        None => Ok((done.into_inner(), missed.into_inner(), sum.into_inner().expect("no panic"), began.elapsed())),
    }
}
