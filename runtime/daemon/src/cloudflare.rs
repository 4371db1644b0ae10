//! The edge at Cloudflare: `plan`, `deploy` and `destroy --target cloudflare`, and `edge purge`.
//!
//! What is wanted and how to get there is worked out in `cloud`; here are the socket, the clock, the journal's file and the
//! words. A plan reads and never writes. Start with [`deploy`].

mod api;
mod apply;
mod journal;
mod observe;
mod probe;
mod purge;
mod say;
mod secrets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use cloud::cloudflare::desired::{desired, route_host};
use cloud::cloudflare::plan::{adopted, forgotten};
use cloud::cloudflare::request::Calls;
use cloud::cloudflare::{Desired, Observed, Plan, demolition, limits, plan as planned};
use cloud::journal::{Event, State};
use config::cloudflare::Cloudflare;
use http::Uri;
use model::{Finding, RegionId};

use crate::args::{ApiOf, CloudflareArgs, FINDING, NOT_RUN, Place, USAGE};
use crate::deploy::BadConfiguration;
use crate::deploy::state::{Lock, private_files};
use api::Api;
use apply::{Run, StepError};
use journal::Journal;
use secrets::Secrets;

/// The worker's bundle, below the tree's root.
const BUNDLE: &str = "edge-deployment/cloudflare-workers/dist/worker.js";

/// All that a command needs before it looks.
struct Ready {
    api: Api,
    calls: Calls,
    desired: Desired,
    secrets: Secrets,
    folder: PathBuf,
    notes: Vec<String>,
}

/// To take everything away, neither policies nor a bundle are needed.
fn ready_to_destroy(place: &Place, args: &CloudflareArgs) -> anyhow::Result<Ready> {
    let settings = config::cloudflare::load(&place.tree).map_err(BadConfiguration)?;
    with(place, args, Desired::nothing(&settings))
}

async fn ready(place: &Place, args: &CloudflareArgs) -> anyhow::Result<Ready> {
    let settings = config::cloudflare::load(&place.tree).map_err(BadConfiguration)?;
    let code = code(&place.tree, args.worker.as_deref())?;
    let origins = settings.origins.iter().map(origin_of).collect::<anyhow::Result<Vec<_>>>()?;
    let known = config::load(&place.tree).map_err(BadConfiguration)?;
    let origins: Vec<ApiOf> = origins.into_iter().filter(|one| known.by_id.contains_key(&one.region)).collect();
    let compiled = crate::edge::compile(&place.tree, &origins).await?;
    let complaints = edge::complaints(edge::Backend::Cloudflare, &compiled.form);
    if !complaints.is_empty() {
        let placed = complaints.iter().map(|complaint| complaint.place(&compiled.files));
        return Err(BadConfiguration(placed.collect()).into());
    }
    let desired = desired(&compiled.form, &settings, &code);
    refuse(limits::of_wish(&compiled.form, &desired))?;
    let notes = limits::notes(&desired);
    Ok(Ready { notes, ..with(place, args, desired)? })
}

fn with(place: &Place, args: &CloudflareArgs, desired: Desired) -> anyhow::Result<Ready> {
    let secrets = Secrets::token_from(args.token_file.as_deref())?;
    let api = Api::new(&args.api_base_url, &secrets)?;
    let folder = journal::folder(&place.state).join(desired.marks.id());
    Ok(Ready { api, calls: Calls::of(&desired.settings), desired, secrets, folder, notes: Vec::new() })
}

fn origin_of((region, url): (&RegionId, &String)) -> anyhow::Result<ApiOf> {
    let url = url.parse().with_context(|| format!("the origin of {region}"))?;
    Ok(ApiOf { region: region.clone(), url })
}

fn code(tree: &Path, named: Option<&Path>) -> anyhow::Result<String> {
    let path = named.map_or_else(|| tree.join(BUNDLE), Path::to_owned);
    match std::fs::read_to_string(&path) {
        Ok(code) if code.trim().is_empty() => bail!("{} is empty", path.display()),
        Ok(code) => Ok(code),
        Err(error) => Err(error)
            .with_context(|| format!("the worker's bundle {} cannot be read; `make worker` builds it", path.display())),
    }
}

fn refuse(all: Vec<limits::Refusal>) -> anyhow::Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let finding = |one: limits::Refusal| Finding::error(config::cloudflare::FILE, "", (0, 0), one.message, one.help);
    Err(BadConfiguration(all.into_iter().map(finding).collect()).into())
}

/// Looks, and says what is to be done.
async fn look(ready: &Ready, left: &State) -> anyhow::Result<(Observed, Plan)> {
    let observed = observe::observe(&ready.api, &ready.calls, &ready.desired, left).await?;
    refuse(limits::of_zone(&ready.desired, &observed))?;
    let mut plan = planned(&ready.desired, &observed, left);
    plan.notes.extend(ready.notes.clone());
    Ok((observed, plan))
}

/// Where the worker is reached.
fn probe_url(settings: &Cloudflare, named: Option<&Uri>) -> anyhow::Result<String> {
    let url = match (named, &settings.canary.url) {
        (Some(url), _) => url.to_string(),
        (None, Some(url)) => url.clone(),
        (None, None) => {
            let hosts = settings.routes.iter().map(|pattern| route_host(pattern));
            let host = hosts.into_iter().find(|host| !host.contains('*')).with_context(|| {
                format!(
                    "no route has a host without a star: write `canary: {{url: …}}` in {}",
                    config::cloudflare::FILE
                )
            })?;
            format!("https://{host}")
        }
    };
    crate::https::check(&url.parse().with_context(|| format!("{url} is no URL"))?)?;
    Ok(url.trim_end_matches('/').to_owned())
}

/// `repomind-run plan --target cloudflare`: 0 where there is nothing to do, 1 where there is.
///
/// # Errors
/// The tree is bad, or the API does not answer.
pub async fn plan(place: &Place, args: &CloudflareArgs, json: bool) -> anyhow::Result<ExitCode> {
    let ready = ready(place, args).await?;
    let left = journal::read(&ready.folder)?;
    let (observed, plan) = look(&ready, &left).await?;
    let report = say::Report::new(&ready.desired, &observed, &left, &plan);
    report.print(json, None);
    Ok(if plan.steps.is_empty() && plan.drift.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

/// `repomind-run deploy --target cloudflare`.
///
/// # Errors
/// The tree is bad, or the API does not answer before anything was begun.
pub async fn deploy(place: &Place, args: &CloudflareArgs, json: bool) -> anyhow::Result<ExitCode> {
    private_files();
    let mut ready = ready(place, args).await?;
    let url = probe_url(&ready.desired.settings, args.probe_url.as_ref())?;
    let settings = ready.desired.settings.clone();
    ready.secrets.read(&settings, &place.tree)?;
    let _lock = Lock::take(&ready.folder, "deploy --target cloudflare")?;
    let mut journal = Journal::open(&ready.folder, &ready.secrets)?;
    let left = journal.state().clone();
    let (observed, plan) = look(&ready, &left).await?;
    let late = observed
        .worker
        .as_ref()
        .is_some_and(|worker| worker.migration.as_deref() != Some(cloud::cloudflare::plan::last_migration()));
    if late && !args.migrate {
        let message =
            "this worker brings a durable object class: it is released at once, and there is no way back past it";
        refuse(vec![limits::Refusal { message: message.to_owned(), help: "say so with --migrate".to_owned() }])?;
    }
    carry_out(&ready, &mut journal, (&left, &observed, &plan), url, json).await
}

/// Says what a plan is, brings the journal up to what is there, and takes the steps; `url` is asked whether a new version
/// is well.
async fn carry_out(
    ready: &Ready,
    journal: &mut Journal,
    (left, observed, plan): (&State, &Observed, &Plan),
    url: String,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let report = say::Report::new(&ready.desired, observed, left, plan);
    if !json {
        report.print(false, None);
    }
    settle(journal, &ready.desired, observed, plan.steps.is_empty())?;
    if plan.steps.is_empty() {
        if json {
            report.print(true, None);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let calls = ready.calls.clone();
    let outcome =
        Run::new(&ready.api, calls, &ready.desired, &ready.secrets, journal, observed, url, json).take(plan).await;
    Ok(finish(&report, &outcome, json, &ready.secrets))
}

/// Brings the journal up to what is there: what a run did and could no longer write down, and what is gone for good. Where
/// nothing is to be done, nothing is unfinished either.
fn settle(journal: &mut Journal, desired: &Desired, observed: &Observed, done: bool) -> anyhow::Result<()> {
    let kept = adopted(desired, observed, journal.state());
    let dropped = forgotten(desired, observed, journal.state());
    if !kept.is_empty() || !dropped.is_empty() {
        journal.write(Event::Done { step: "look".to_owned(), kept, dropped })?;
    }
    if done && journal.state().unfinished.is_some() {
        journal.write(Event::Ended)?;
    }
    Ok(())
}

fn finish(report: &say::Report, outcome: &apply::Outcome, json: bool, secrets: &Secrets) -> ExitCode {
    report.print_outcome(outcome, json, secrets);
    match &outcome.failed {
        None => ExitCode::SUCCESS,
        Some((_, StepError::Probe(_))) => ExitCode::from(FINDING),
        Some(_) => ExitCode::from(NOT_RUN),
    }
}

/// `repomind-run destroy --target cloudflare`; `data` takes namespaces away, too.
///
/// # Errors
/// The tree is bad, or the API does not answer before anything was begun.
pub async fn destroy(place: &Place, args: &CloudflareArgs, data: bool, json: bool) -> anyhow::Result<ExitCode> {
    private_files();
    let ready = ready_to_destroy(place, args)?;
    let _lock = Lock::take(&ready.folder, "destroy --target cloudflare")?;
    let mut journal = Journal::open(&ready.folder, &ready.secrets)?;
    let left = journal.state().clone();
    let observed = observe::observe(&ready.api, &ready.calls, &ready.desired, &left).await?;
    let plan = match demolition(&ready.desired, &observed, &left, data) {
        Ok(plan) => plan,
        Err(strays) => {
            eprintln!("error: routes that others made lead to our worker: {}", strays.join(", "));
            eprintln!("take them away first, or lead them elsewhere; nothing was done");
            return Ok(ExitCode::from(USAGE));
        }
    };
    carry_out(&ready, &mut journal, (&left, &observed, &plan), String::new(), json).await
}

/// What of the deployments that a state directory has journals of is still there, as far as the journals say.
pub fn left_behind(state: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(journal::folder(state)).into_iter().flatten().flatten();
    let left = folders.filter(|entry| match journal::read(&entry.path()) {
        Ok(state) => !state.kept.is_empty() || state.unfinished.is_some(),
        Err(_) => true,
    });
    left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Flags of `edge purge`.
#[derive(Clone, Debug, Args)]
pub struct PurgeArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Answers with this tag; may be repeated.
    #[arg(long)]
    pub tag: Vec<String>,
    /// Answers of this URL, every variant; may be repeated.
    #[arg(long)]
    pub url: Vec<Uri>,
    /// Answers that were stored under this rule; may be repeated.
    #[arg(long)]
    pub rule: Vec<String>,
    /// Leave them as stale ones.
    #[arg(long)]
    pub soft: bool,
    /// How Cloudflare is reached.
    #[command(flatten)]
    pub cloudflare: CloudflareArgs,
}

/// `repomind-run edge purge`: 1 where a cache could not be purged.
///
/// # Errors
/// The tree is bad, or a tag or URL is none.
pub async fn purge(args: PurgeArgs) -> anyhow::Result<ExitCode> {
    let settings = config::cloudflare::load(&args.place.tree).map_err(BadConfiguration)?;
    let mut tags = args.tag.clone();
    tags.extend(args.rule.iter().map(|rule| format!("rule:{rule}")));
    for url in &args.url {
        let host = url.host().with_context(|| format!("{url} has no host"))?;
        tags.push(format!("url:{host}{}", url.path()));
    }
    if tags.is_empty() {
        eprintln!("error: name what to purge: --tag, --url or --rule");
        return Ok(ExitCode::from(USAGE));
    }
    if let Some(bad) =
        tags.iter().find(|tag| tag.len() > 1024 || !tag.bytes().all(|b| b.is_ascii_graphic() && b != b','))
    {
        eprintln!("error: {bad:?} is no tag: up to 1024 printable characters without spaces and commas");
        return Ok(ExitCode::from(USAGE));
    }
    let mut secrets = Secrets::token_from(args.cloudflare.token_file.as_deref())?;
    secrets.read(&settings, &args.place.tree)?;
    let api = Api::new(&args.cloudflare.api_base_url, &secrets)?;
    let url = probe_url(&settings, args.cloudflare.probe_url.as_ref())?;
    let purged = purge::purge(&api, &Calls::of(&settings), &secrets, &url, &tags, args.soft).await;
    for warning in &purged.warnings {
        eprintln!("warning: {}", secrets.hide(warning));
    }
    if purged.known {
        println!("purged {}", tags.join(", "));
    }
    Ok(if purged.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}
