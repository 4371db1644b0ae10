//! The command line: every subcommand, its flags and what its exit code means.
//!
//! 0 is good, 1 a finding or a failed check, 2 "could not be run", 64 bad
//! usage or configuration. Nothing here does work: each subcommand is one
//! function elsewhere, and its flags are in `args`, or beside it. `policy-host` is not
//! in the tree: `main` enters it before any thread or parser exists, because the
//! child puts itself in a cage.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::args::*;
use crate::deploy::{BadConfiguration, BadPolicies, Wishes};

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
    /// Say what `deploy` would do, and do nothing. For cloudflare: 0 where that is nothing, 1 where it is something.
    Plan(PlanArgs),
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
    /// Send nobody new to a region: it serves what arrives all the same, and goes on replicating.
    Drain(crate::orders::OutArgs),
    /// Have the other regions serve everybody, and wait until they have a region's data: then it can be switched off.
    Evacuate(crate::orders::OutArgs),
    /// End what was ordered about a region.
    Restore(crate::orders::RestoreArgs),
    /// Send clients to a region first, for a time.
    Pin(crate::orders::PinArgs),
    /// Give the place of the primary to a region.
    Failover(crate::orders::FailoverArgs),
    /// Show what is ordered about regions, and the last orders: who, when, why.
    Orders(crate::orders::OrdersArgs),
    /// A small HTTP service to stand behind a gateway.
    SampleService(SampleServiceArgs),
    /// The generations of the policies: list, compare, publish, bring back.
    #[command(subcommand)]
    Policy(crate::policy::Policy),
    /// Keys and certificates for regions on machines of their own.
    #[command(subcommand)]
    Pki(crate::pki::Pki),
    /// The keys by which each region keeps what it encrypts: list, rotate.
    #[command(subcommand)]
    Keys(crate::keys::Keys),
    /// Backups of each region, in its own object store: make, list, verify, put back.
    #[command(subcommand)]
    Backup(crate::backup::Backup),
    /// Static files under /assets/: publish them in every region.
    #[command(subcommand)]
    Assets(crate::assets::Assets),
    /// What is declared for the edge, as programs for each kind of edge.
    #[command(subcommand)]
    Edge(crate::edge::Edge),
    /// What a person may demand: erasure, access, a legal hold, over all regions.
    #[command(subcommand)]
    Subject(crate::subject::SubjectStep),
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
    /// What the policies mean for the whole world: round trips, load, lost regions, regions to add. Starts nothing.
    Simulate(SimulateArgs),
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
    /// One decision of the log: what policies were asked and why, what they answered, by which files and facts.
    Decision(ExplainDecisionArgs),
    /// What the edge does with a request: limits, guard, rule, key, times, tags, regions.
    Edge(crate::edge::ExplainArgs),
    /// Where a client is sent: what each policy file gave, and why each other region was not chosen.
    Route(ExplainRouteArgs),
    /// What lost against concurrent writes of a record, to what and why, in every region.
    Conflict(ExplainConflictArgs),
    /// Where a record may be: by which rule on which line, and why not elsewhere.
    Residency(ExplainResidencyArgs),
}

#[derive(Debug, Subcommand)]
enum Drill {
    /// Kill, cut off, slow down, flap and pause a region under load; measure detection, rerouting, recovery and loss.
    Failover(FailoverArgs),
    /// Cut a region off from the others, one way or both, under load.
    Partition(PartitionArgs),
    /// Make a region slow to reach for the others, under load.
    Latency(LatencyArgs),
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
        Command::Deploy(args) => deploy(args).await,
        Command::Plan(args) => plan(args).await,
        Command::Destroy(DestroyArgs { target: Target::Cloudflare, place, cloudflare, purge, json, .. }) => {
            crate::cloudflare::destroy(&place, &cloudflare, purge, json).await
        }
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
        Command::Drain(args) => crate::orders::drain(args).await,
        Command::Evacuate(args) => crate::orders::evacuate(args).await,
        Command::Restore(args) => crate::orders::restore(args).await,
        Command::Pin(args) => crate::orders::pin(args).await,
        Command::Failover(args) => crate::orders::failover(args).await,
        Command::Orders(args) => crate::orders::list(args).await,
        Command::SampleService(args) => crate::sample_service::run(args).await,
        Command::Backup(command) => crate::backup::run(command).await,
        Command::Assets(command) => crate::assets::run(command),
        Command::Edge(command) => crate::edge::run(command).await,
        Command::Explain(Explain::Failover(args)) => crate::explain::failover(args).await,
        Command::Explain(Explain::Decision(args)) => crate::explain::decision(args).await,
        Command::Explain(Explain::Edge(args)) => crate::edge::explain(args).await,
        Command::Explain(Explain::Route(args)) => crate::explain::route(args).await,
        Command::Explain(Explain::Conflict(args)) => crate::explain::conflict::run(args).await,
        Command::Explain(Explain::Residency(args)) => crate::explain::residency(args).await,
        Command::Drill(Drill::Failover(args)) => crate::report::drill::failover(args).await,
        Command::Drill(Drill::Partition(args)) => crate::report::drill::partition(args).await,
        Command::Drill(Drill::Latency(args)) => crate::report::drill::latency(args).await,
        Command::Verify(Verify::Replication(args)) => crate::report::replication::run(args).await,
        Command::Audit(args) => crate::report::audit::run(args).await,
        Command::Ledger(Ledger::Verify(args)) => crate::report::audit::verify_ledger(args).await,
        Command::LoadTest(args) => crate::report::load::run(args).await,
        Command::Policy(command) => crate::policy::run(command).await,
        Command::Pki(step) => crate::pki::run(step),
        Command::Subject(step) => crate::subject::run(step).await,
        Command::Keys(command) => crate::keys::run(command).await,
        Command::Simulate(args) => crate::simulate::run(args).await,
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

async fn deploy(args: DeployArgs) -> anyhow::Result<ExitCode> {
    match args.target {
        Target::Local => crate::deploy::run(args).await,
        Target::Cloudflare if args.dry_run => crate::cloudflare::plan(&args.place, &args.cloudflare, args.json).await,
        Target::Cloudflare => crate::cloudflare::deploy(&args.place, &args.cloudflare, args.json).await,
    }
}

async fn plan(args: PlanArgs) -> anyhow::Result<ExitCode> {
    match args.target {
        Target::Local => crate::deploy::dry_run(&args.place, &Wishes::regions(WanProfile::Realistic, None)),
        Target::Cloudflare => crate::cloudflare::plan(&args.place, &args.cloudflare, args.json).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
