//! `repomind-run policy replay`: recorded decisions and queries under other policies.
//!
//! Exit code 0 when everything comes out the same, 1 when something differs, 2 when it could not be asked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use model::RegionId;
use model::bundle::{POLICY_FILES, PolicyTree};
use model::routing::Facts;
use policy::PolicyHost;

use super::Primary;
use crate::args::{FINDING, NOT_RUN, Place};
use crate::aside;
use crate::client::Client;
use crate::decisions::disk::Log;
use crate::decisions::replay::queries::{Queries, Traffic};
use crate::decisions::replay::{Replay, Under, replay};
use crate::decisions::{Entry, Kind, words};
use crate::deploy::BadConfiguration;
use crate::start::gate;

/// Flags of `policy replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// What to ask instead: a tree with policies, or one policy file, which takes the place of the recorded one of its
    /// name. Without it, recorded decisions are asked again under their own files, and must come out the same.
    #[arg(value_name = "FILE-OR-DIR")]
    pub files: Option<PathBuf>,
    /// Ask a generation that the primary keeps.
    #[arg(long, conflicts_with = "files")]
    pub generation: Option<u64>,
    /// The recorded log: a file of it, a directory, or the name of a running region. The primary's where queries are
    /// replayed and it is not stated.
    #[arg(long, value_name = "LOG", required_unless_present = "queries")]
    pub log: Option<String>,
    /// Replay queries instead: lines of a client's address and a name, as DNS and HTTP servers log them.
    #[arg(long, value_name = "FILE")]
    pub queries: Option<PathBuf>,
    /// With --queries: the generation that they are compared with; the last one of the log unless stated.
    #[arg(long, value_name = "GENERATION", requires = "queries")]
    pub from: Option<u64>,
    /// With --queries: countries by this MMDB file, in place of the bundled table.
    #[arg(long, value_name = "FILE", requires = "queries", env = "REPOMIND_GEOIP")]
    pub geoip: Option<PathBuf>,
    /// Only this kind of decision, such as `residency` or `route`.
    #[arg(long, value_name = "KIND", conflicts_with = "queries")]
    pub kind: Option<String>,
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs `policy replay`.
pub async fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    if let Some(kind) = &args.kind
        && !Kind::ALL.iter().any(|one| one.name() == kind)
    {
        let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        bail!("there are no decisions of kind {kind}; there are {}", all.join(", "));
    }
    let log = log(&args).await?;
    let host = aside::host(aside::LOAD, aside::QUESTION)?;
    let code = match &args.queries {
        Some(file) => queries(&args, file, &log, &host).await,
        None => decisions(&args, &log, &host).await,
    };
    host.shutdown();
    code
}

/// The log that is meant.
async fn log(args: &ReplayArgs) -> anyhow::Result<Log> {
    let Some(named) = &args.log else {
        let deployment = crate::status::at(&args.place)?;
        return of_region(&args.place, &deployment.primary).await;
    };
    let path = Path::new(named);
    if path.exists() {
        return Log::read(path);
    }
    match RegionId::new(named) {
        Ok(region) => of_region(&args.place, &region).await,
        Err(_) => bail!("there is no file or directory {named}"),
    }
}

async fn of_region(place: &Place, region: &RegionId) -> anyhow::Result<Log> {
    let deployment = crate::status::at(place)?;
    let admin = deployment.admins().get(region).copied();
    let admin = admin.with_context(|| format!("there is no file, directory or region called {region}"))?;
    let bytes = Client::new(&place.state)?.decision_log(admin).await?;
    let mut log = Log::default();
    log.take(region.as_str(), &bytes);
    if log.entries.is_empty() {
        bail!("{region} has no decision in its log");
    }
    Ok(log)
}

/// By which files it is to be asked again.
async fn under(args: &ReplayArgs) -> anyhow::Result<Under> {
    match (&args.files, args.generation) {
        (Some(dir), _) if dir.is_dir() => {
            Ok(Under::Files(crate::start::watch::read_tree(dir).map_err(BadConfiguration)?))
        }
        (Some(file), _) => {
            let named = policy_file(file)?;
            let text = crate::start::watch::read_file(file);
            let text = text.map_err(|reason| anyhow::anyhow!("cannot read {}: {reason}", file.display()))?;
            Ok(Under::OneFile(named, text))
        }
        (None, Some(generation)) => Ok(Under::Files(Primary::of(&args.place).await?.tree(generation).await?)),
        (None, None) => Ok(Under::Recorded),
    }
}

/// The policy file that a path names: by folder and name, or by its name alone.
fn policy_file(path: &Path) -> anyhow::Result<String> {
    let whole = POLICY_FILES.iter().find(|file| path.ends_with(file));
    let named = || POLICY_FILES.iter().find(|file| Path::new(file).file_name() == path.file_name());
    let found = whole.or_else(named);
    found.map(ToString::to_string).with_context(|| {
        format!("{} has the name of none of the policy files: {}", path.display(), POLICY_FILES.join(", "))
    })
}

async fn decisions(args: &ReplayArgs, log: &Log, host: &PolicyHost) -> anyhow::Result<ExitCode> {
    let under = under(args).await?;
    let wanted = |entry: &Entry| args.kind.as_ref().is_none_or(|kind| entry.kind.name() == kind);
    let outcome = replay(host, log, &under, wanted).await;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        account(&outcome).iter().for_each(|line| println!("{line}"));
        outcome.refused.iter().for_each(|finding| eprintln!("{}\n", finding.render(false)));
    }
    Ok(match &outcome {
        Replay { differ: 1.., .. } => ExitCode::from(FINDING),
        Replay { same: 0, .. } => ExitCode::from(NOT_RUN),
        Replay { refused, .. } if !refused.is_empty() => ExitCode::from(NOT_RUN),
        _ => ExitCode::SUCCESS,
    })
}

fn account(outcome: &Replay) -> Vec<String> {
    let Replay { decisions, same, differ, not_asked, changed, more, damage, more_damage, .. } = outcome;
    let mut lines = vec![format!("{decisions} decisions: {same} come out the same, {differ} otherwise")];
    lines.extend(not_asked.iter().map(|(why, count)| format!("  {count} were not asked again: {why}")));
    for one in changed {
        let many = if one.decisions == 1 {
            format!("decision {}", one.example)
        } else {
            format!("{} decisions, such as {}", one.decisions, one.example)
        };
        lines.push(format!("  {}: {}: {} → {} ({many})", one.kind.name(), one.what, one.from, one.to));
    }
    if *more > 0 {
        lines.push(format!("  and {more} more differences"));
    }
    lines.extend(damage.iter().map(|damage| format!("  passed over: {damage}")));
    if *more_damage > 0 {
        lines.push(format!("  passed over: {more_damage} more pieces"));
    }
    lines.iter().map(|line| words::printable(line)).collect()
}

async fn queries(args: &ReplayArgs, file: &Path, log: &Log, host: &PolicyHost) -> anyhow::Result<ExitCode> {
    let last = log.entries.iter().rev().find(|entry| entry.kind == Kind::Route && entry.facts.is_some());
    let last = last.context("the log holds no routing table: its facts are what queries are routed by")?;
    let (facts, recorded) = (log.get::<Facts>(last.facts.as_ref()), log.get::<PolicyTree>(Some(&last.tree)));
    let (Some(facts), Some(recorded)) = (facts, recorded) else {
        bail!("facts or files of decision {} cannot be read: another build of the runtime wrote them", last.id);
    };
    let before = match args.from {
        Some(generation) => Primary::of(&args.place).await?.tree(generation).await?,
        None => recorded,
    };
    let under = under(args).await?;
    if matches!(under, Under::Recorded) {
        bail!("say what to compare with: FILE-OR-DIR, or --generation N");
    }
    let after = under.files(&before);
    let countries = crate::start::geoip::Countries::open(args.geoip.as_deref());
    let countries = countries.map_err(|error| anyhow::anyhow!("--geoip: {error}"))?;
    let read = Queries::read(file, &countries.table.load())?;
    if read.queries == 0 {
        let first = read.not_understood.1.first().map(|first| format!("; {}", words::printable(first)));
        let first = first.unwrap_or_default();
        bail!("{} holds no line of an address and a name{first}", file.display());
    }
    let mut tables = Vec::new();
    for tree in [before, after] {
        let (child, _) = host.load(tree, facts.clone()).await.map_err(BadConfiguration)?;
        tables.push(gate::route(&child, &facts).await?);
    }
    let traffic = read.compare(&tables[0], &tables[1]);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&traffic)?);
    } else {
        traffic_lines(&traffic).iter().for_each(|line| println!("{line}"));
    }
    let same = traffic.moved == 0 && traffic.answered_otherwise == 0;
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

fn traffic_lines(traffic: &Traffic) -> Vec<String> {
    let Traffic { queries, moved, answered_otherwise, not_routed, moves, not_understood, first_not_understood } =
        traffic;
    let percent = *moved as f64 * 100.0 / (*queries).max(1) as f64;
    let mut lines = vec![format!(
        "{queries} queries, by the facts of the last routing table: {moved} ({percent:.1} %) would go to another region first"
    )];
    for one in moves {
        lines.push(format!("  {} → {}: {} queries: {}", one.from, one.to, one.queries, one.clients.join(", ")));
    }
    if *answered_otherwise > 0 {
        lines.push(format!(
            "  {answered_otherwise} keep their first region, and get other ones behind it or other times"
        ));
    }
    if *not_routed > 0 {
        lines.push(format!("  {not_routed} are for names that are not routed by region on both sides"));
    }
    if *not_understood > 0 {
        lines.push(format!("  {not_understood} lines are not understood: {}", first_not_understood.join("; ")));
    }
    lines.iter().map(|line| words::printable(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_for_the_policy_file_of_its_name() {
        let named = |path: &str| policy_file(Path::new(path)).ok();
        assert_eq!(named("/x/compliance/data-residency.scm").as_deref(), Some("compliance/data-residency.scm"));
        assert_eq!(named("/tmp/failover.scm").as_deref(), Some("traffic-routing/failover.scm"));
        assert_eq!(named("/tmp/other.scm"), None);
    }
}
