//! Flags of what measures, breaks and judges a deployment.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use model::RegionId;

use super::deployment::Place;
use crate::report::drill::fault::Fault;

/// Flags that all drills have.
#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The region that it is done to; the primary of the tree unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Seconds of load before the fault.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub before: u64,
    /// Seconds that the fault lasts, under load.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub outage: u64,
    /// Seconds within which the others have to call the region down, serve its clients and have a primary.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub within: u64,
    /// How often; the longest times are judged.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub times: u32,
    /// Also where the others would be fuller than 80 %, or records have no other home.
    #[arg(long)]
    pub force: bool,
    /// Say what would be done, and whether it may be now.
    #[arg(long)]
    pub dry_run: bool,
    /// Draw what happened, and write report.json, in this directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `drill failover`.
#[derive(Clone, Debug, Args)]
pub struct FailoverArgs {
    /// What happens to the region, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub fault: Vec<FaultName>,
    #[command(flatten)]
    pub drill: DrillArgs,
}

/// What `drill failover` can do to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultName {
    /// Every one of these, one after another.
    All,
    /// Its processes are killed.
    Kill,
    /// Nothing passes between it and the others.
    BlackHole,
    /// It hears nobody, and the others hear it.
    Asymmetric,
    /// What it sends and is sent takes 300 ms longer.
    Slow,
    /// It is cut off and back, again and again.
    Flapping,
    /// Its daemon stands still.
    Pause,
}

impl FaultName {
    /// What it stands for.
    pub fn faults(self) -> Vec<Fault> {
        let one = match self {
            Self::All => {
                let all = Self::value_variants().iter().filter(|name| **name != Self::All);
                return all.flat_map(|name| name.faults()).collect();
            }
            Self::Kill => Fault::Kill,
            Self::BlackHole => Fault::BlackHole,
            Self::Asymmetric => Fault::Deaf,
            Self::Slow => Fault::Slow(300),
            Self::Flapping => Fault::Flapping,
            Self::Pause => Fault::Pause,
        };
        vec![one]
    }
}

/// Flags of `drill partition`.
#[derive(Clone, Debug, Args)]
pub struct PartitionArgs {
    /// Which way nothing passes between the region and the others.
    #[arg(long, value_enum, default_value = "both")]
    pub way: Way,
    #[command(flatten)]
    pub drill: DrillArgs,
}

/// Which way a partition cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Nothing passes.
    Both,
    /// The region hears nobody.
    In,
    /// Nobody hears the region.
    Out,
}

impl Way {
    /// The fault that it is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Both => Fault::BlackHole,
            Self::In => Fault::Deaf,
            Self::Out => Fault::Mute,
        }
    }
}

/// Flags of `drill latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyArgs {
    /// Milliseconds that everything between the region and the others takes longer, each way.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub add: u32,
    #[command(flatten)]
    pub drill: DrillArgs,
}

/// Flags of `verify replication`.
#[derive(Clone, Debug, Args)]
pub struct ReplicationArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Seconds of writing before, and again during, the cut.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Seconds after healing within which all digests must be equal.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub within: u64,
    /// Milliseconds that the 99th percentile of lag must stay below while no link is cut.
    #[arg(long, default_value_t = 5000)]
    pub lag_target: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `audit`.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Audit a deployment of its own with made-up data, although there is data of another one that does not run. Done
    /// without being asked where there is neither a deployment nor data of one.
    #[arg(long)]
    pub synthetic: bool,
    /// The record of processing activities that is to hold: a JSON list of objects with `namespace`, `class`,
    /// `jurisdiction`, `purpose`, `basis` and `region`, such as the `processing` of an earlier report.
    #[arg(long, value_name = "FILE")]
    pub processing: Option<PathBuf>,
    /// How the report is written.
    #[arg(long, value_enum, default_value = "text")]
    pub format: ReportForm,
    /// Write it to this file, and print the verdict alone.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// How an audit's report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For a person.
    Text,
    /// JSON with sorted keys: equal reports are equal bytes.
    Json,
    /// SARIF 2.1.0, for code scanners.
    Sarif,
    /// JUnit XML, for test reports.
    Junit,
    /// A page on its own.
    Html,
}

/// Flags of `ledger verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyLedgerArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// This region's ledger alone.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `load-test`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Requests a second, over all regions.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `simulate`.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// Regions of region-config/available/ that are imagined too, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "REGION")]
    pub with: Vec<String>,
    /// How many clients are drawn.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=20_000_000))]
    pub clients: u32,
    /// What chance is drawn from: equal seeds give equal reports.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Requests a second that all the world sends at its busiest, for load against capacity.
    #[arg(long, default_value_t = 10_000)]
    pub rate: u32,
    /// The share of clients on mobile networks, 0 to 1.
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    pub mobile: f64,
    /// The region whose measurements the policies are told; the primary unless named.
    #[arg(long, value_name = "REGION")]
    pub seen_from: Option<RegionId>,
    /// Leave out what takes longest: which region to add, and the smallest set of regions.
    #[arg(long)]
    pub no_search: bool,
    /// End with 1 unless 95 of 100 clients of the whole world wait less than so many milliseconds.
    #[arg(long, value_name = "MS")]
    pub require_p95: Option<f64>,
    /// Draw map.svg and cdf.svg, and write report.json, in this directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share lies between 0 and 1".to_owned()) }
}

/// Flags of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Seconds for each figure that is a rate.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
