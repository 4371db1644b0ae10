//! Reads what every region stores, signs and says, and has it judged.
//!
//! The judging is [`compliance::audit`]; here the evidence is gathered, the
//! rulings to judge by are compiled from the signed policies, and the report is
//! printed. Where there is neither a deployment nor data of one, one is started
//! for the audit with a made-up data set, and every form of the report says so; a
//! deployment that runs is only read, and one that does not run is not passed over.

mod gather;
mod remembered;
mod sample;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use compliance::audit::{ActivityName, Check, Inputs, Report, audit, render};
use model::RegionId;
use serde::Serialize;

use super::Stage;
use super::bench::{Figure, figure};
use crate::args::{AuditArgs, FINDING, NOT_RUN, Place, ReportForm, VerifyLedgerArgs, WanProfile};
use crate::client::Client;
use crate::deploy::processes::{Deployment, Role};

/// `repomind-run audit`.
///
/// # Errors
/// Where the audit could not be run at all.
pub async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let declared = args.processing.as_deref().map(declared).transpose()?;
    let declared = declared.as_deref();
    let report = match running(&args.place).await? {
        _ if args.synthetic => of_our_own(&args.place, declared).await?,
        Some(deployment) => {
            let client = Client::new(&args.place.state)?;
            judged(&client, &deployment, &args.place.state, declared).await?
        }
        None if holds_data(&args.place.state) => bail!(
            "{} holds the data of a deployment that does not run; start it with `repomind-run deploy` and audit again, or \
             audit a deployment of its own with made-up data: `repomind-run audit --synthetic`",
            args.place.state.display()
        ),
        None => of_our_own(&args.place, declared).await?,
    };
    let form = if args.json { ReportForm::Json } else { args.format };
    let mut text = match form {
        ReportForm::Text => render::text(&report),
        ReportForm::Json => render::json(&report),
        ReportForm::Sarif => render::sarif(&report),
        ReportForm::Junit => render::junit(&report),
        ReportForm::Html => render::html(&report),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    match &args.output {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!(
                "{}; the report is in {}",
                render::text(&report).lines().next().unwrap_or_default(),
                path.display()
            );
        }
        None => print!("{text}"),
    }
    Ok(ExitCode::from(report.outcome.exit_code()))
}

/// The record of processing activities in `path`.
fn declared(path: &Path) -> anyhow::Result<Vec<ActivityName>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no record of processing activities (see `audit --help`)", path.display()))
}

/// The deployment that runs, wholly or in part: what `deploy` recorded, else what answers at the tree's addresses and
/// takes the token of this state directory.
async fn running(place: &Place) -> anyhow::Result<Option<Deployment>> {
    if let Some(deployment) = Deployment::read(&place.state)? {
        let any = deployment.regions.keys().any(|region| deployment.running(Role::Daemon, region).is_some());
        return Ok(any.then_some(deployment));
    }
    if !place.state.join("pki").join("token").exists() {
        return Ok(None);
    }
    let (deployment, client) = (crate::status::look(place)?.0, Client::new(&place.state)?);
    for addresses in deployment.regions.values() {
        if client.ledger(addresses.admin).await.is_ok() {
            return Ok(Some(deployment));
        }
    }
    Ok(None)
}

/// Whether some region has stored something under the state directory, or `deploy` has a record of what ran.
fn holds_data(state: &Path) -> bool {
    let regions = std::fs::read_dir(state).into_iter().flatten().flatten();
    Deployment::recorded(state) || regions.into_iter().any(|region| region.path().join("data").is_dir())
}

async fn of_our_own(place: &Place, declared: Option<&[ActivityName]>) -> anyhow::Result<Report> {
    let declared = declared.map(<[_]>::to_vec);
    eprintln!("no running deployment: starting one of its own, with a made-up data set");
    let stage = Stage::own(&place.tree, WanProfile::Realistic).await?;
    stage
        .run(&mut Vec::new(), async move |stage| {
            let sample::Stored { stored, refused } = sample::write(stage).await?;
            eprintln!("{stored} made-up records stored, {refused} refused everywhere by the policies");
            sample::settled(stage).await?;
            let report = judged(&stage.client, &stage.deployment, &stage.place.state, declared.as_deref()).await?;
            Ok(Report { synthetic: true, ..report })
        })
        .await
}

/// Gathers, judges, and remembers what was verified.
async fn judged(
    client: &Client,
    deployment: &Deployment,
    state: &Path,
    declared: Option<&[ActivityName]>,
) -> anyhow::Result<Report> {
    let gathered = gather::gather(client, deployment, state, true).await?;
    let (plan, keeps, revision) = gathered.plan(&deployment.tree).await?;
    let inputs: Inputs<'_> = gathered.inputs(&plan, Some(keeps), revision, declared);
    let report = audit(&inputs);
    remembered::keep(state, &remembered::shown(&inputs), &report)?;
    Ok(report)
}

/// How long an audit of what a deployment stores takes.
///
/// # Errors
/// Where it could not be gathered.
pub async fn timed(stage: &Stage) -> anyhow::Result<Figure> {
    let began = Instant::now();
    let gathered = gather::gather(&stage.client, &stage.deployment, &stage.place.state, true).await?;
    let (plan, keeps, revision) = gathered.plan(&stage.deployment.tree).await?;
    let inputs = gathered.inputs(&plan, Some(keeps), revision, None);
    let (gathering, began) = (began.elapsed(), Instant::now());
    let report = audit(&inputs);
    let judging = began.elapsed().as_secs_f64();
    let records: u64 = report.regions.iter().map(|region| region.records).sum();
    let value = format!(
        "{records} records: gathered in {:.1} s, judged in {judging:.1} s ({:.0} records/s)",
        gathering.as_secs_f64(),
        records as f64 / judging
    );
    Ok(figure("audit of what was stored meanwhile", value, ""))
}

/// What `ledger verify` says of one region.
#[derive(Debug, Serialize)]
struct LedgerReport {
    region: RegionId,
    verified: bool,
    leaves: u64,
    checkpoint: Option<u64>,
    witnesses: Vec<RegionId>,
    findings: Vec<String>,
    not_checked: Vec<String>,
}

impl LedgerReport {
    fn of(report: &Report, region: &RegionId) -> Option<Self> {
        let summary = report.regions.iter().find(|summary| summary.region == *region)?;
        let ours = |check: Check| matches!(check, Check::Aud01 | Check::Aud02);
        let found = report.findings.iter().filter(|found| ours(found.check) && found.region == *region);
        let findings: Vec<String> =
            found.map(|found| format!("{}: {}; {}", found.check, found.rule, found.remedy)).collect();
        let runs = report.checks.iter().filter(|run| ours(run.check));
        let missed = runs.flat_map(|run| run.not_run.iter().map(move |missed| (run.check, missed)));
        let missed = missed.filter(|(_, missed)| missed.region == *region);
        let mut not_checked: Vec<String> =
            missed.map(|(check, missed)| format!("{check}: {}", missed.reason)).collect();
        not_checked.extend(summary.unreached.clone());
        Some(Self {
            region: region.clone(),
            verified: findings.is_empty() && not_checked.is_empty(),
            leaves: summary.leaves,
            checkpoint: summary.checkpoint,
            witnesses: summary.witnesses.clone(),
            findings,
            not_checked,
        })
    }

    fn print(&self) {
        let word = match (self.findings.is_empty(), self.not_checked.is_empty()) {
            (false, _) => "VIOLATIONS",
            (true, false) => "INCOMPLETE",
            (true, true) => "verified",
        };
        let checkpoint = self.checkpoint.map_or("no checkpoint".to_owned(), |size| format!("checkpoint at {size}"));
        let witnesses: Vec<String> = self.witnesses.iter().map(ToString::to_string).collect();
        let witnesses = if witnesses.is_empty() { "nobody".to_owned() } else { witnesses.join(", ") };
        println!("{}: {word}, {} leaves, {checkpoint}, cosigned by {witnesses}", self.region, self.leaves);
        self.findings.iter().for_each(|finding| println!("  {finding}"));
        self.not_checked.iter().for_each(|missed| println!("  not checked: {missed}"));
    }
}

/// `repomind-run ledger verify`.
///
/// # Errors
/// Where nothing could be asked.
pub async fn verify_ledger(args: VerifyLedgerArgs) -> anyhow::Result<ExitCode> {
    let deployment = crate::status::at(&args.place)?;
    let client = Client::new(&args.place.state)?;
    let admins = deployment.regions.iter().map(|(region, addresses)| (region, addresses.admin));
    let strangers = crate::status::strangers(&client, admins).await;
    if !strangers.is_empty() {
        bail!("{}", crate::status::other_deployment(&strangers, &args.place));
    }
    // No rows are judged, so it does not matter by which rulings.
    let gathered = gather::gather(&client, &deployment, &args.place.state, false).await?;
    let plan = model::residency::ResidencyPlan::default();
    let inputs = gathered.inputs(&plan, None, compliance::audit::Revision { generation: 0, tree: "-".into() }, None);
    let report = audit(&inputs);
    remembered::keep(&args.place.state, &remembered::shown(&inputs), &report)?;
    let wanted: Vec<&RegionId> = match &args.region {
        Some(region) => vec![region],
        None => deployment.regions.keys().collect(),
    };
    let ledgers: Vec<LedgerReport> = wanted
        .into_iter()
        .map(|region| LedgerReport::of(&report, region).with_context(|| format!("no region is called {region}")))
        .collect::<Result<_, _>>()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&ledgers)?);
    } else {
        ledgers.iter().for_each(LedgerReport::print);
    }
    Ok(if ledgers.iter().any(|ledger| !ledger.findings.is_empty()) {
        ExitCode::from(FINDING)
    } else if ledgers.iter().any(|ledger| !ledger.verified) {
        ExitCode::from(NOT_RUN)
    } else {
        ExitCode::SUCCESS
    })
}
