//! The command line: every subcommand, its flags and what its exit code means.
//!
//! 0 is good, 1 a finding or a failed check, 2 "could not be run", 64 bad
//! usage or configuration. Nothing here does work: each subcommand is one
//! function elsewhere. `policy-host` is not in the tree: `main` enters it before
//! any thread or parser exists, because the child puts itself in a cage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::names::DnsName;
use model::record::{Basis, DataClass, Purpose};
use model::{Country, RegionId};

use crate::deploy::{BadConfiguration, BadPolicies};

/// A finding or a failed check.
pub const FINDING: u8 = 1;
/// The command could not be run.
pub const NOT_RUN: u8 = 2;
/// Bad usage or configuration, `EX_USAGE` of sysexits.h.
pub const USAGE: u8 = 64;

/// RepoMind's multi-region runtime.
#[derive(Debug, Parser)]
#[command(name = "repomind-run", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one region in the foreground.
    Start(StartArgs),
    /// Start every region of a tree on this machine, and wait until all serve.
    Deploy(DeployArgs),
    /// Stop what `deploy` started.
    Destroy(DestroyArgs),
    /// Show every region: health, round trips, lag, policy generation.
    Status(StatusArgs),
    /// Check regions and policies of a tree, their own tests included, without starting anything.
    Check(CheckArgs),
    /// Run the tests that the policy files carry, without starting anything.
    Test(TestArgs),
    /// Check what the policy files say must never happen, for every case that there is.
    Prove(ProveArgs),
    /// Show what policies are asked, and what they may call.
    Api(ApiArgs),
    /// Ask a running region Scheme questions about its facts.
    Repl(ReplFlags),
    /// Write a starter tree: regions, policies and a Makefile.
    New(NewArgs),
    /// A small HTTP service to stand behind a gateway.
    SampleService(SampleServiceArgs),
    /// The generations of the policies: list, compare, publish, bring back.
    #[command(subcommand)]
    Policy(crate::policy::Policy),
    /// Keys and certificates for regions on machines of their own.
    #[command(subcommand)]
    Pki(crate::pki::Pki),
    /// What is declared for the edge, as programs for each kind of edge.
    #[command(subcommand)]
    Edge(crate::edge::Edge),
    /// Say why something is as it is.
    #[command(subcommand)]
    Explain(Explain),
    /// Break something on purpose and measure what follows.
    #[command(subcommand)]
    Drill(Drill),
    /// Show that the regions hold what they should.
    #[command(subcommand)]
    Verify(Verify),
    /// Read what each region stores, signs and follows, and judge it; 2 when too little could be read.
    Audit(AuditArgs),
    /// The log of what each region committed, which the others cosign.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Send a steady rate of requests and measure latency from the intended start of each.
    LoadTest(LoadArgs),
    /// Measure throughput, latency, lag and saves on three regions of its own, beside floors from the same run.
    Bench(BenchArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Explain {
    /// Who saw what of whom, whose vote counted, what the policy said, and which bound held it back.
    Failover(ExplainFailoverArgs),
    /// What the edge does with a request: limits, guard, rule, key, times, tags, regions.
    Edge(crate::edge::ExplainArgs),
    /// Where a client is sent: what each policy file gave, and why each other region was not chosen.
    Route(ExplainRouteArgs),
    /// Where a record may be: by which rule on which line, and why not elsewhere.
    Residency(ExplainResidencyArgs),
}

#[derive(Debug, Subcommand)]
enum Drill {
    /// Kill one region under load; measure detection, rerouting, recovery and loss.
    Failover(FailoverArgs),
}

#[derive(Debug, Subcommand)]
enum Verify {
    /// Write in all regions, with conflicts and a cut link; show that they come to agree.
    Replication(ReplicationArgs),
}

#[derive(Debug, Subcommand)]
enum Ledger {
    /// Compute the roots of the ledgers anew and compare them with every checkpoint that is known of them.
    Verify(VerifyLedgerArgs),
}

/// Which delays are added between regions on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WanProfile {
    /// Round trips as measured between the real places.
    Realistic,
    /// None, but links can be cut, slowed and made lossy while they run.
    Lan,
    /// None; nothing can be set later.
    None,
}

impl WanProfile {
    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Realistic => "realistic",
            Self::Lan => "lan",
            Self::None => "none",
        }
    }
}

/// `REGION=URL`: the service behind one region's gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiOf {
    /// The region.
    pub region: RegionId,
    /// The base URL, without a final slash.
    pub url: http::Uri,
}

impl FromStr for ApiOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (region, url) =
            text.split_once('=').ok_or("write it as REGION=URL, such as us-east=http://127.0.1.1:8081")?;
        let region = RegionId::new(region).map_err(|error| error.to_string())?;
        let url: http::Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        match url.scheme_str() {
            Some("http" | "https") if url.authority().is_some() => Ok(Self { region, url }),
            _ => Err(format!("{url} needs http:// or https:// and a host")),
        }
    }
}

/// Flags of `start`.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// The region to run: the stem of its file in region-config/.
    #[arg(long)]
    pub region: RegionId,
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".")]
    pub tree: PathBuf,
    /// Where keys, data and the last good policies are kept.
    #[arg(long, default_value = ".repomind")]
    pub state: PathBuf,
    /// Overrides `services.api` of a region; may be repeated.
    #[arg(long, value_name = "REGION=URL")]
    pub api: Vec<ApiOf>,
    /// Delay added to links between regions.
    #[arg(long, value_enum, default_value = "none")]
    pub wan: WanProfile,
    /// Put all regions on 127.0.0.1, each in its block of ports, beginning at this one.
    #[arg(long, value_name = "PORT")]
    pub first_port: Option<u16>,
    /// How the log is written.
    #[arg(long, value_enum, default_value = "pretty")]
    pub log: LogForm,
    /// How long the replication log is kept for regions that are away. One that was away for longer is given this
    /// region's rows instead when it is back.
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 3600, env = "REPOMIND_KEEP_LOG_SECONDS")]
    pub keep_log_seconds: u64,
    /// The same, by size.
    #[arg(long, value_name = "MIB", default_value_t = 1024, env = "REPOMIND_KEEP_LOG_MIB")]
    pub keep_log_mib: u64,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// For a person.
    Pretty,
    /// A JSON object a line.
    Json,
}

/// Where a deployment is, for every command that looks at one.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// Where keys, data and records of what runs are kept.
    #[arg(long, default_value = ".repomind", env = "REPOMIND_STATE")]
    pub state: PathBuf,
}

/// Where `deploy` puts the regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Processes on this machine.
    Local,
}

/// Flags of `deploy`.
#[derive(Clone, Debug, Args)]
pub struct DeployArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Where the regions run.
    #[arg(long, value_enum, default_value = "local")]
    pub target: Target,
    /// Delay added to links between regions.
    #[arg(long, value_enum, default_value = "realistic")]
    pub wan: WanProfile,
    /// Put all regions on 127.0.0.1, each in its block of ports, beginning at this one. Done without being asked,
    /// from port 8080, where the system has no other loopback address.
    #[arg(long, value_name = "PORT")]
    pub first_port: Option<u16>,
    /// Say what would be started, and start nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Seconds until all regions must serve.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// Flags of `destroy`.
#[derive(Clone, Debug, Args)]
pub struct DestroyArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Also delete the state directory: data, keys, logs.
    #[arg(long)]
    pub purge: bool,
    /// Seconds for a process to end by itself before it is killed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
}

/// Flags of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `test`.
#[derive(Clone, Debug, Args)]
pub struct TestArgs {
    /// Show only tests that have this word in their file, module or sentence. All run in any case.
    pub only: Option<String>,
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// Write all results to this file as JUnit XML too.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `api`.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// Only this name, with words and examples.
    pub name: Option<String>,
    /// The whole reference as Markdown: docs/policy-reference.md is printed so.
    #[arg(long, conflicts_with = "name")]
    pub markdown: bool,
}

/// Flags of `prove`.
#[derive(Clone, Debug, Args)]
pub struct ProveArgs {
    /// Only the invariants that have this word in their file or sentence.
    pub only: Option<String>,
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// Seconds for each.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `repl`.
#[derive(Clone, Debug, Args)]
struct ReplFlags {
    #[command(flatten)]
    place: Place,
    /// The region to ask; the primary unless named.
    #[arg(long)]
    region: Option<RegionId>,
    /// Evaluate this and stop.
    #[arg(long, value_name = "FORM")]
    eval: Option<String>,
}

/// What `repl` is to do.
#[derive(Clone, Debug)]
pub struct ReplArgs {
    /// Where the deployment is.
    pub place: Place,
    /// The region to ask.
    pub region: RegionId,
    /// Evaluate this and stop.
    pub eval: Option<String>,
}

/// Flags of `new`.
#[derive(Clone, Debug, Args)]
pub struct NewArgs {
    /// The directory to make; it must not exist or be empty.
    pub dir: PathBuf,
}

/// Flags of `sample-service`.
#[derive(Clone, Debug, Args)]
pub struct SampleServiceArgs {
    /// Where to listen.
    #[arg(long)]
    pub listen: std::net::SocketAddr,
    /// The region that it says it is in.
    #[arg(long)]
    pub region: RegionId,
}

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

/// Flags of `explain failover`.
#[derive(Clone, Debug, Args)]
pub struct ExplainFailoverArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The region whose decisions are shown; the primary unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `explain route`.
#[derive(Clone, Debug, Args)]
pub struct ExplainRouteArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    pub client: std::net::IpAddr,
    /// The name that it asks for over DNS.
    #[arg(long)]
    pub name: Option<DnsName>,
    /// The region that is asked; the primary unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `explain residency`.
#[derive(Clone, Debug, Args)]
pub struct ExplainResidencyArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The class of data; several are separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub class: Vec<DataClass>,
    /// The countries whose law applies, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "COUNTRY")]
    pub jurisdiction: Vec<Country>,
    /// The legal basis.
    #[arg(long, default_value = "unstated")]
    pub basis: Basis,
    /// The purpose.
    #[arg(long, default_value = "service")]
    pub purpose: Purpose,
    /// The region that takes the record in: then also where copies go.
    #[arg(long, value_name = "REGION")]
    pub r#in: Option<RegionId>,
    /// The region that is asked; the primary unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
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

/// Reads the command line and runs what it asks for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the asynchronous runtime could not start: {error}");
            return ExitCode::from(NOT_RUN);
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            if let Some(bad) = error.downcast_ref::<BadConfiguration>() {
                eprintln!("{bad}");
                return ExitCode::from(USAGE);
            }
            if let Some(bad) = error.downcast_ref::<BadPolicies>() {
                eprintln!("{bad}");
                return ExitCode::from(FINDING);
            }
            eprintln!("error: {error:#}");
            ExitCode::from(NOT_RUN)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Start(args) => crate::start::run(args).await,
        Command::Deploy(args) => crate::deploy::run(args).await,
        Command::Destroy(args) => crate::destroy::run(args).await,
        Command::Status(args) => crate::status::run(args).await,
        Command::Check(args) => crate::check::run(&args).await,
        Command::Api(args) => crate::api::run(&args),
        Command::Prove(args) => crate::prove::run(&args).await,
        Command::Test(args) => crate::policy_tests::run(&args).await,
        Command::Repl(ReplFlags { place, region, eval }) => {
            let region = match region {
                Some(region) => region,
                None => crate::status::at(&place)?.primary,
            };
            // Line editing blocks, and so does its socket: it is given a thread where that is allowed.
            tokio::task::block_in_place(|| crate::repl::run(&ReplArgs { place, region, eval }))
        }
        Command::New(args) => crate::starter::run(&args),
        Command::SampleService(args) => crate::sample_service::run(args).await,
        Command::Edge(command) => crate::edge::run(command).await,
        Command::Explain(Explain::Failover(args)) => crate::explain::failover(args).await,
        Command::Explain(Explain::Edge(args)) => crate::edge::explain(args).await,
        Command::Explain(Explain::Route(args)) => crate::explain::route(args).await,
        Command::Explain(Explain::Residency(args)) => crate::explain::residency(args).await,
        Command::Drill(Drill::Failover(args)) => crate::report::failover::run(args).await,
        Command::Verify(Verify::Replication(args)) => crate::report::replication::run(args).await,
        Command::Audit(args) => crate::report::audit::run(args).await,
        Command::Ledger(Ledger::Verify(args)) => crate::report::audit::verify_ledger(args).await,
        Command::LoadTest(args) => crate::report::load::run(args).await,
        Command::Policy(command) => crate::policy::run(command).await,
        Command::Pki(step) => crate::pki::run(step),
        Command::Bench(args) => crate::report::bench::run(args).await,
        Command::Completions { shell } => {
            // The generator panics where it cannot write; memory always takes it.
            let mut script = Vec::new();
            let mut tree = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut tree, "repomind-run", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn an_api_override_without_a_scheme_is_refused() {
        assert!("us-east=http://127.0.1.1:8081".parse::<ApiOf>().is_ok());
        assert!("us-east=127.0.1.1:8081".parse::<ApiOf>().is_err());
        assert!("http://127.0.1.1:8081".parse::<ApiOf>().is_err());
    }
}
