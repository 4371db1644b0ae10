//! Flags of what measures, breaks and judges a deployment.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use model::RegionId;

use super::deployment::Place;

/// Flags of `drill failover`.
#[derive(Clone, Debug, Args)]
pub struct FailoverArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The region to kill; the primary unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Seconds of load before the kill.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub before: u64,
    /// Seconds of load between the kill and the restart.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub outage: u64,
    /// Seconds within which detection and rerouting are to be done.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub within: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
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
