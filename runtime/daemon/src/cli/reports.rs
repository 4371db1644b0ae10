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
