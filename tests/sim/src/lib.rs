//! A deployment of three regions in one thread, in virtual time, under every fault that we could think of.
//!
//! The data planes are the real ones: stores, merge rules, residency, acknowledgements, rows for regions that were
//! away, forgetting. What is not real is what surrounds them: the clock ([`world`]), the network ([`network`]), the
//! disk (`store::memory`), and when processes live and die ([`mischief`]). One seed decides everything, so that a
//! run can be repeated.
//!
//! Clients write, delete and read with sessions that move from region to region ([`clients`]). What they were
//! promised is remembered ([`history`]) and checked all the time; when everything has healed, the regions must come
//! to agree, within bounded time, on exactly what was promised ([`checks`]).
//!
//! What is assumed: a disk that says that it has synced has; no two openings of a region within one second; a clock
//! that was set back is not set back across an opening on an empty disk. A write whose only durable copy was on a disk
//! that was lost, or gone back to a backup from before it, may be lost: it is not where its acknowledgement named more
//! copies.
//!
//! Start with [`run`].

pub mod checks;
pub mod clients;
pub mod history;
pub mod limits;
pub mod mischief;
pub mod network;
pub mod plans;
pub mod random;
pub mod world;

use std::fmt;

/// What a run is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keeps what happened, to be shown if it fails.
    pub trace: bool,
    /// Keeps every state that this key has in any region, too.
    pub key: Option<model::record::Address>,
    /// How many disks may be lost, or go back to a backup, besides one.
    pub more_losses: u64,
    /// Clients also write to a namespace whose conflicts a resolver settles.
    pub resolvers: bool,
    /// Rows rot on the disk, and are mended, in place of disks that are lost.
    pub rot: bool,
    /// Records have an end, a namespace has a quota, and some writes are made only on a condition.
    pub limits: bool,
    /// The mistake that the regions make.
    pub mistake: Option<data::Fault>,
}

impl Options {
    /// The words of the command line that give these options again.
    pub fn flags(&self) -> String {
        let more = (self.more_losses > 0).then(|| format!(" --more-losses {}", self.more_losses));
        let resolvers = self.resolvers.then(|| " --resolvers".to_owned());
        let rot = self.rot.then(|| " --rot".to_owned());
        let limits = self.limits.then(|| " --limits".to_owned());
        more.into_iter().chain(resolvers).chain(rot).chain(limits).collect()
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub read: u64,
    /// Faults that were made.
    pub faults: u64,
    /// Writes that were lost with the only disk that had them.
    pub lost_with_disks: u64,
    /// Records that were deleted because their time was over.
    pub expired: u64,
    /// Tombstones that were buried.
    pub buried: u64,
    /// How often one region gave another its rows.
    pub rows_given: u64,
    /// Virtual milliseconds from healing to agreement.
    pub agreed_after: u64,
}

impl Stats {
    /// Adds those of another run; the time to agreement is the longest.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.faults += other.faults;
        self.lost_with_disks += other.lost_with_disks;
        self.expired += other.expired;
        self.buried += other.buried;
        self.rows_given += other.rows_given;
        self.agreed_after = self.agreed_after.max(other.agreed_after);
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// The options of the run, as on the command line.
    pub flags: String,
    /// When, in virtual milliseconds.
    pub at: u64,
    /// What.
    pub what: String,
    /// What happened before, where it was kept.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "seed {} failed at {} ms: {}", self.seed, self.at, self.what)?;
        write!(f, "replay: cargo run --release -p sim -- --seed {}{}", self.seed, self.flags)
    }
}

impl std::error::Error for Failure {}

/// Runs one seed to its end.
///
/// # Errors
/// [`Failure`] at the first promise that was not kept.
///
/// # Panics
/// Where the runtime cannot be made, and where the data plane panics.
pub fn run(seed: u64, options: Options) -> Result<Stats, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets can always be made");
    runtime.block_on(async {
        let flags = options.flags();
        let mut world = world::World::new(seed, options);
        let outcome = world.play().await;
        outcome.map(|()| world.stats).map_err(|what| Failure { seed, flags, at: world.now, what, trace: world.trace() })
    })
}
