//! `repomind-run edge`: what is declared for the edge, compiled to programs; and `explain edge`.

mod explain;
pub mod live;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ::edge::backend::{nginx, varnish};
use ::edge::{Backend, Form, Inputs};
use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use model::{Finding, RegionId};

pub use explain::{ExplainArgs, explain};

use crate::args::{ApiOf, FINDING, USAGE};
use crate::deploy::BadConfiguration;

/// Who may purge a Varnish that is built without `--operator`: this machine.
const OPERATORS: [&str; 2] = ["\"127.0.0.0\"/8", "\"::1\""];

/// What to do with the edge policy.
#[derive(Clone, Debug, Subcommand)]
pub enum Edge {
    /// Write the policy module of the worker, the VCL of Varnish and the configuration of nginx.
    Build(BuildArgs),
    /// Keep edges on this machine by what a region says: the worker on miniflare, Varnish. Runs in the foreground.
    Run(live::RunArgs),
    /// Become another program that ends with the process that started it.
    #[command(hide = true)]
    Child(live::ChildArgs),
    /// Print the JSON Schema of the policy module.
    Schema,
    /// Take answers out of the caches at Cloudflare, by tag, URL or rule.
    Purge(Box<crate::cloudflare::PurgeArgs>),
}

/// Flags of `edge build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// Where the files are written; edge-deployment/ of the tree unless named.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// For this kind of edge only; may be repeated.
    #[arg(long, value_parser = kinds())]
    pub backend: Vec<Backend>,
    /// The region that Varnish and nginx stand in; the primary unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Overrides the address of a region's gateway; may be repeated.
    #[arg(long, value_name = "REGION=URL")]
    pub origin: Vec<ApiOf>,
    /// Who may purge Varnish, as in an ACL of VCL ("192.0.2.0"/24); may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub operator: Vec<String>,
    /// Leave out what nginx cannot do and can do without; the file says what.
    #[arg(long)]
    pub reduced: bool,
    /// Let answers say how they came about, for tests.
    #[arg(long, hide = true)]
    pub observe: bool,
    /// Write nothing; 1 where a file on disk differs.
    #[arg(long)]
    pub check: bool,
}

/// Reads a kind of edge on the command line.
fn kinds() -> impl TypedValueParser<Value = Backend> {
    let kind = |word: String| Backend::ALL.into_iter().find(|kind| kind.name() == word).expect("one of the words");
    PossibleValuesParser::new(Backend::ALL.map(Backend::name)).map(kind)
}

/// Runs one of the commands.
///
/// # Errors
/// Where a file cannot be written or the policy host cannot be started.
pub async fn run(command: Edge) -> anyhow::Result<ExitCode> {
    match command {
        Edge::Build(args) => build(args).await,
        Edge::Purge(args) => crate::cloudflare::purge(*args).await,
        Edge::Schema => {
            print!("{}", Form::schema());
            Ok(ExitCode::SUCCESS)
        }
        Edge::Run(args) => live::run(args).await,
        Edge::Child(args) => live::become_child(&args),
    }
}

/// A tree's edge policy, compiled, and the files that it came from.
pub struct Compiled {
    /// The form.
    pub form: Form,
    /// The primary.
    pub primary: RegionId,
    /// The policy files.
    pub files: BTreeMap<String, String>,
    /// How long compiling took, Scheme not counted.
    pub took: std::time::Duration,
}

/// Loads a tree's policies and compiles what they declare for the edge.
///
/// # Errors
/// [`BadConfiguration`] with everything wrong; or the host could not be started.
pub async fn compile(tree: &Path, origins: &[ApiOf]) -> anyhow::Result<Compiled> {
    let regions = config::load(tree).map_err(BadConfiguration)?;
    let policies = crate::start::watch::read_tree(tree).map_err(BadConfiguration)?;
    let files = policies.0.clone();
    let host = crate::aside::host(crate::aside::LOAD, crate::aside::QUESTION)?;
    let facts = crate::aside::facts(&regions);
    let (child, declarations) = host.load(policies, facts.clone()).await.map_err(BadConfiguration)?;
    let residency = crate::start::gate::residency(&child, &declarations, &regions).await;
    let routing = crate::start::gate::route(&child, &facts).await;
    host.shutdown();
    let (residency, routing) = (unrefused(residency)?, unrefused(routing)?);
    let mut addresses = crate::start::edges::origins(&regions);
    for origin in origins.iter().filter(|origin| regions.by_id.contains_key(&origin.region)) {
        addresses.insert(origin.region.clone(), origin.url.to_string().trim_end_matches('/').to_owned());
    }
    let now = crate::aside::now();
    let begun = Instant::now();
    let inputs =
        Inputs { plan: &declarations.edge, routing: &routing, residency: &residency, origins: &addresses, now };
    let form = ::edge::compile(inputs).map_err(|all| BadConfiguration(placed(&all, &files)))?;
    Ok(Compiled { form, primary: regions.primary.clone(), files, took: begun.elapsed() })
}

fn placed(complaints: &[::edge::Complaint], files: &BTreeMap<String, String>) -> Vec<Finding> {
    complaints.iter().map(|complaint| complaint.place(files)).collect()
}

fn unrefused<T>(answer: Result<T, crate::start::generations::RefusedGeneration>) -> anyhow::Result<T> {
    use crate::start::generations::RefusedGeneration::{Findings, Host};
    match answer {
        Ok(answer) => Ok(answer),
        Err(Findings(findings)) => Err(BadConfiguration(findings).into()),
        Err(Host(error)) => bail!("the policies gave no plan: {error}"),
        Err(other) => bail!("{other:?}"),
    }
}

async fn build(args: BuildArgs) -> anyhow::Result<ExitCode> {
    let compiled = compile(&args.tree, &args.origin).await?;
    let region = args.region.clone().unwrap_or_else(|| compiled.primary.clone());
    if !compiled.form.origins.contains_key(&region) {
        eprintln!("error: no region is called {region}");
        return Ok(ExitCode::from(USAGE));
    }
    let wanted: Vec<Backend> = match args.backend.as_slice() {
        [] => Backend::ALL.to_vec(),
        some => some.to_vec(),
    };
    let complaints: Vec<::edge::Complaint> = wanted
        .iter()
        .flat_map(|backend| ::edge::complaints(*backend, &compiled.form))
        .filter(|complaint| !(complaint.reducible && args.reduced))
        .collect();
    if !complaints.is_empty() {
        for finding in placed(&complaints, &compiled.files) {
            eprintln!("{}\n", finding.render(false));
        }
        eprintln!("nothing was written: {} finding(s)", complaints.len());
        return Ok(ExitCode::from(FINDING));
    }
    let out = args.out.clone().unwrap_or_else(|| args.tree.join("edge-deployment"));
    let mut stale = 0;
    for (file, text) in wanted.iter().map(|backend| program(*backend, &compiled.form, &region, &args)) {
        let path = out.join(file);
        if args.check {
            if std::fs::read_to_string(&path).unwrap_or_default() != text {
                eprintln!(
                    "{} differs from what the policies give; `repomind-run edge build` writes it",
                    path.display()
                );
                stale += 1;
            }
            continue;
        }
        let folder = path.parent().context("a file lies in a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("{} could not be made", folder.display()))?;
        replace(&path, &text).with_context(|| format!("{} could not be written", path.display()))?;
        println!("{}", path.display());
    }
    if stale > 0 {
        return Ok(ExitCode::from(FINDING));
    }
    println!("revision {}, compiled in {:.1} ms", compiled.form.revision, compiled.took.as_secs_f64() * 1000.0);
    Ok(ExitCode::SUCCESS)
}

/// A backend's file, below `edge-deployment/`, and what belongs into it.
fn program(backend: Backend, form: &Form, region: &RegionId, args: &BuildArgs) -> (&'static str, String) {
    match backend {
        Backend::Cloudflare => ("cloudflare-workers/policy.json", form.to_json()),
        Backend::Varnish => {
            let operators = match args.operator.as_slice() {
                [] => OPERATORS.map(str::to_owned).to_vec(),
                some => some.to_vec(),
            };
            let options = varnish::Options { region: region.clone(), operators, observe: args.observe };
            ("cdn-config/varnish.vcl", varnish::program(form, &options))
        }
        Backend::Nginx => {
            let (listen, cache) = ("80".to_owned(), "/var/cache/nginx/repomind".to_owned());
            let options = nginx::Options { region: region.clone(), listen, cache };
            ("cdn-config/nginx.conf", nginx::configuration(form, &options))
        }
    }
}

/// Writes a file in one step: a reader sees the old one or the new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let beside = path.with_extension(format!("{}-{stamp}.new", std::process::id()));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}
