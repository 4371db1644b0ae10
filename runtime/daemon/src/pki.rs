//! `repomind-run pki`: keys and certificates for regions on machines of their own.
//!
//! On one machine `deploy` makes all of this by itself. For several, make the
//! directory once, somewhere safe, hand each machine its bundle, and keep
//! `ca.key` and `token.key` where no region runs.

mod zone_keys;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use model::RegionId;
use model::signing::Operator;

use crate::args::FINDING;
use crate::deploy::BadConfiguration;

/// A certificate that ends sooner than this is a finding of `pki status`.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Flags that every step has.
#[derive(Clone, Debug, Args)]
pub struct KeyDir {
    /// Where the keys are.
    #[arg(long, default_value = ".repomind/pki")]
    dir: PathBuf,
}

/// The steps.
#[derive(Clone, Debug, Subcommand)]
pub enum Pki {
    /// Make the authority, a certificate for each region of a tree, the signing keys and a development token.
    Init {
        /// Where the keys go.
        #[command(flatten)]
        keys: KeyDir,
        /// The tree with region-config/.
        #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
        tree: PathBuf,
    },
    /// Make a certificate for one more region.
    Issue {
        /// The region.
        region: RegionId,
        /// How long it is valid.
        #[arg(long, default_value_t = net::pki::NODE_DAYS)]
        days: u32,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
    },
    /// Replace a region's key and certificate; the old ones are kept beside them until the next time.
    Rotate {
        /// The region.
        region: RegionId,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
    },
    /// Print a bearer token.
    Token {
        /// Whom it is for; shown in no log.
        #[arg(long)]
        subject: String,
        /// What it permits: data:read, data:write, admin, subjects, relabel (loosen the labels of a record);
        /// class:CLASS and jurisdiction:COUNTRY bound what it may write. Separated by spaces.
        #[arg(long, default_value = "data:read")]
        scopes: String,
        /// Hours until it ends.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
        hours: u64,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
    },
    /// Copy what the machine of one region needs into a directory to carry there.
    Bundle {
        /// The region.
        region: RegionId,
        /// Where the copies go; it must not exist or be empty.
        #[arg(long)]
        to: PathBuf,
        /// The tree with region-config/: it says which regions there are, and who signs policies.
        #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
        tree: PathBuf,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
    },
    /// Make an operator's key, and print the line that region files name it by. Keep it off every machine of a region.
    OperatorKey {
        /// The operator's name, as `policy history` will show it.
        name: String,
        /// The file of the private key; it must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make and roll the keys that sign DNS zones.
    #[command(subcommand)]
    DnsKey(zone_keys::DnsKey),
    /// Show until when each certificate is valid; 1 when one ends within 30 days.
    Status {
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one step.
pub fn run(step: Pki) -> anyhow::Result<ExitCode> {
    match step {
        Pki::Init { keys, tree } => {
            let regions = config::load(&tree).map_err(BadConfiguration)?;
            net::pki::ensure(&keys.dir, regions.by_id.keys())?;
            println!("keys of {} regions are in {}", regions.by_id.len(), keys.dir.display());
        }
        Pki::Issue { region, days, keys } => {
            net::pki::issue_node(&keys.dir, &region, days)?;
            println!("made {}", keys.dir.join(format!("{region}.pem")).display());
        }
        Pki::Rotate { region, keys } => {
            net::pki::rotate_node(&keys.dir, &region)?;
            println!("{region} has a new key and certificate; restart it there to take them up");
        }
        Pki::Token { subject, scopes, hours, keys } => {
            println!("{}", net::pki::issue_token(&keys.dir, &subject, &scopes, Duration::from_secs(hours * 3600))?);
        }
        Pki::Bundle { region, to, tree, keys } => {
            let regions = config::load(&tree).map_err(BadConfiguration)?;
            if !regions.by_id.contains_key(&region) {
                bail!("no region is called {region} in {}", tree.display());
            }
            let production = !regions.operators.is_empty();
            bundle(&net::pki::bundle_for(&keys.dir, &region, production)?, &to)?;
            println!("copy {} to STATE/pki on the machine of {region}, owned by its user", to.display());
        }
        Pki::OperatorKey { name, out } => {
            // Before a key is made that has no use.
            Operator::new(&name, [0; 32])?;
            println!("{}", Operator::new(&name, net::pki::make_operator_key(&out)?)?);
        }
        Pki::DnsKey(step) => return zone_keys::run(step),
        Pki::Status { keys, json } => return status(&keys.dir, json),
    }
    Ok(ExitCode::SUCCESS)
}

fn bundle(files: &[PathBuf], to: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if to.exists() && std::fs::read_dir(to).with_context(|| format!("cannot read {}", to.display()))?.next().is_some() {
        bail!("{} is not empty; name a directory that is, or that does not exist yet", to.display());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(to)
        .with_context(|| format!("cannot make {}", to.display()))?;
    for file in files {
        let name = file.file_name().context("a key file has a name")?;
        // Modes travel with the copy: private files stay 0600.
        std::fs::copy(file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

fn status(dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    if !dir.is_dir() {
        bail!(
            "there is no {}; make keys with `repomind-run pki init`, or name their directory with --dir",
            dir.display()
        );
    }
    let all: Vec<(String, u64)> = net::pki::expiries(dir)?
        .into_iter()
        .map(|expiry| {
            let left = expiry.not_after.duration_since(now).unwrap_or_default();
            (expiry.path.display().to_string(), left.as_secs())
        })
        .collect();
    if all.is_empty() {
        bail!("{} holds no certificate; make them with `repomind-run pki init`", dir.display());
    }
    if json {
        let rows: Vec<_> =
            all.iter().map(|(file, left)| serde_json::json!({ "file": file, "seconds_left": left })).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        for (file, left) in &all {
            println!("{:5} days  {file}", left / 86_400);
        }
    }
    let ends_soon = all.iter().any(|(_, left)| *left < SOON.as_secs());
    Ok(if ends_soon { ExitCode::from(FINDING) } else { ExitCode::SUCCESS })
}
