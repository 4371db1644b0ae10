//! Flags of what checks, asks and explains policies.

use std::path::PathBuf;

use clap::Args;
use model::names::DnsName;
use model::record::{Address, Basis, DataClass, Purpose};
use model::{Country, Key, Namespace, RegionId};

use super::deployment::Place;

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
pub struct ReplFlags {
    #[command(flatten)]
    pub place: Place,
    /// The region to ask; the primary unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Evaluate this and stop.
    #[arg(long, value_name = "FORM")]
    pub eval: Option<String>,
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

/// Flags of `explain decision`.
#[derive(Clone, Debug, Args)]
pub struct ExplainDecisionArgs {
    /// The number of the decision, as `(decisions 10)` in the REPL and `policy replay` show it.
    #[arg(required_unless_present = "last")]
    pub id: Option<u64>,
    /// The last one.
    #[arg(long, conflicts_with = "id")]
    pub last: bool,
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The region that decided; the primary unless named.
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

/// Flags of `explain conflict`.
#[derive(Clone, Debug, Args)]
pub struct ExplainConflictArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The record.
    #[arg(value_name = "NAMESPACE/KEY", value_parser = record)]
    pub record: Address,
    /// This region alone; all of them unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Show the values that lost, as far as each region may show them.
    #[arg(long)]
    pub values: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn record(text: &str) -> Result<Address, String> {
    let (namespace, key) = text.split_once('/').ok_or("name a record as NAMESPACE/KEY, such as notes/hello")?;
    let namespace = Namespace::new(namespace).map_err(|error| error.to_string())?;
    Ok(Address { namespace, key: Key::new(key).map_err(|error| error.to_string())? })
}
