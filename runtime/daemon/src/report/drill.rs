//! Does something bad to one region under load and measures what users and operators would see.
//!
//! ```text
//!   safe? ── load ── fault ──────────── outage ──────────── fault ends ── recovery ── what was acknowledged is read
//!                      │ every region is looked at: states, who is the primary, DNS answers
//! ```
//!
//! A region is called down once the last surviving region calls it so. Its clients are rerouted once the last request
//! failed that one of them sent to a surviving gateway; requests at its own gateway are counted apart. Afterwards every
//! write that two regions acknowledged must be readable in every region, and no two regions may ever have been the
//! primary at a time.
//!
//! Emulated links carry what regions say to each other. What gateways send to the services of other regions goes past
//! them: a region that is cut off from the others still answers those.

mod dns;
pub mod fault;
mod measured;
mod picture;
mod watch;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use model::control::ControlRole;
use model::routing::RegionState;
use model::{Namespace, RegionId};

use self::fault::{Fault, Lasting};
use self::measured::Measured;
use self::watch::{Question, Watch};
use super::traffic::{self, Worker, Writing};
use super::{Check, Stage};
use crate::args::{DrillArgs, FailoverArgs, LatencyArgs, PartitionArgs};
use crate::simulate::planner::Planner;

/// How long the region may take to come back and catch up.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long it may take until it serves as before: one that was lost again and again proves itself for a minute.
const IN_SERVICE: Duration = Duration::from_secs(120);
/// How long it may take until the region that the configuration prefers is the primary again.
const HANDED_BACK: Duration = Duration::from_secs(30);
/// The pause between requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// A region that lags behind by more is not ready for a drill.
const LAG_MS: u64 = 5000;
/// Public addresses in many countries (universities and name servers). Which region each is sent to is asked, not assumed.
const CLIENTS: &[&str] = &[
    "8.8.8.8",
    "18.0.0.1",
    "134.226.0.1",
    "141.20.0.1",
    "129.67.0.1",
    "129.199.0.1",
    "137.132.0.1",
    "133.11.0.1",
    "150.203.0.1",
    "14.139.0.1",
    "143.107.0.1",
    "146.141.0.1",
];

/// `repomind-run drill failover`.
pub async fn failover(args: FailoverArgs) -> anyhow::Result<ExitCode> {
    let mut faults: Vec<Fault> = Vec::new();
    for fault in args.fault.iter().flat_map(|name| name.faults()) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    run(faults, args.drill).await
}

/// `repomind-run drill partition`.
pub async fn partition(args: PartitionArgs) -> anyhow::Result<ExitCode> {
    run(vec![args.way.fault()], args.drill).await
}

/// `repomind-run drill latency`.
pub async fn latency(args: LatencyArgs) -> anyhow::Result<ExitCode> {
    run(vec![Fault::Slow(args.add)], args.drill).await
}

/// Runs each fault `--times` times, and judges the worst.
async fn run(faults: Vec<Fault>, args: DrillArgs) -> anyhow::Result<ExitCode> {
    let stage = Stage::enter(&args.place, &["drill"]).await?;
    let (json, within, out) = (args.json, args.within * 1000, args.out.clone());
    let mut notes = Vec::new();
    let ran = stage.run(&mut notes, async move |stage| every(stage, &faults, &args).await).await?;
    let measured = match ran {
        Ran::Drills(measured) => measured,
        Ran::Planned(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            return Ok(ExitCode::SUCCESS);
        }
    };
    let several = measured.iter().any(|one| one.fault != measured[0].fault);
    let mut checks: Vec<Check> = Vec::new();
    for (at, one) in measured.iter().enumerate() {
        // Of several runs of one fault, the worst is judged.
        if measured[..at].iter().all(|other| other.fault != one.fault) {
            let same: Vec<&Measured> = measured.iter().filter(|other| other.fault == one.fault).collect();
            let of_it = measured::checks(&same, within, RECOVERY);
            let what = |check: Check| match several {
                true => Check { what: format!("{}: {}", one.fault, check.what), ..check },
                false => check,
            };
            checks.extend(of_it.into_iter().map(what));
            if same.len() > 1 {
                notes.push(measured::spread(&same));
            }
        }
    }
    let mut told: Vec<String> = measured.iter().flat_map(|one| one.notes(several)).collect();
    if let Some(out) = out {
        told.push(pictures(&out, &measured)?);
    }
    told.append(&mut notes);
    super::conclude(json, &measured, &checks, &told)
}

/// What came of it.
enum Ran {
    Drills(Vec<Measured>),
    /// With `--dry-run`: what would be done.
    Planned(Vec<String>),
}

async fn every(stage: &mut Stage, faults: &[Fault], args: &DrillArgs) -> anyhow::Result<Ran> {
    let victim = args.region.clone().unwrap_or_else(|| stage.deployment.primary.clone());
    if !stage.deployment.regions.contains_key(&victim) {
        bail!("no region is called {victim}");
    }
    if stage.deployment.regions.len() < 3 {
        bail!("a drill needs three regions: with two, no write can reach two regions while one is out");
    }
    // A `deploy` meanwhile would start what is killed here.
    let _lock = match stage.is_borrowed() {
        true => Some(crate::deploy::state::Lock::take(&stage.place.state, "drill")?),
        false => None,
    };
    let question = question(stage, &victim).await;
    if args.dry_run {
        return Ok(Ran::Planned(planned(stage, faults, &victim, args).await?));
    }
    let (mut measured, rounds) = (Vec::new(), args.times);
    let led = leads(stage, &victim).await;
    for round in 0..rounds {
        for fault in faults {
            let reasons = unsafe_now(stage, &victim, args.force).await;
            if !reasons.is_empty() {
                bail!("it is not safe to take {victim} out now:\n  {}", reasons.join("\n  "));
            }
            if led && !measured.is_empty() {
                leads_again(stage, &victim).await;
            }
            let number = if rounds > 1 { format!(" ({} of {rounds})", round + 1) } else { String::new() };
            eprintln!("{}{number}", fault.sentence(&victim));
            let keys = format!("{}-{}", super::run_id(), measured.len());
            measured.push(drill(stage, (*fault, &victim), question.as_ref(), &keys, args).await?);
        }
    }
    Ok(Ran::Drills(measured))
}

/// What a drill would do, and whether it may.
async fn planned(stage: &Stage, faults: &[Fault], victim: &RegionId, args: &DrillArgs) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for fault in faults {
        Lasting::prepare(stage, *fault, victim).await?;
        lines.push(format!("{fault}: for {} s, {}", args.outage, fault.sentence(victim)));
    }
    let reasons = unsafe_now(stage, victim, args.force).await;
    match reasons.is_empty() {
        true => lines.push("it may be done now; nothing was".into()),
        false => lines.push(format!("it would be refused now: {}", reasons.join("; "))),
    }
    Ok(lines)
}

/// Whether a region says that it may answer for the primary.
async fn leads(stage: &Stage, region: &RegionId) -> bool {
    let status = stage.client.status(stage.deployment.regions[region].admin).await;
    status.is_ok_and(|status| status.control.role == ControlRole::Primary)
}

/// Waits until a region that led before is the primary again, so that each fault is done to the primary. It is given its
/// place back only where the configuration prefers it; the report says of each drill whether it led.
async fn leads_again(stage: &Stage, region: &RegionId) {
    let until = Instant::now() + HANDED_BACK;
    while !leads(stage, region).await && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Why no region is to be taken out at present; empty where one may.
async fn unsafe_now(stage: &Stage, victim: &RegionId, force: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    // A region proves itself for some seconds after it was away.
    if let Err(error) = crate::deploy::serving(&stage.place.state, &stage.deployment, IN_SERVICE).await {
        return vec![format!("{error:#}")];
    }
    for (region, addresses) in &stage.deployment.regions {
        let status = match stage.client.status(addresses.admin).await {
            Ok(status) => status,
            Err(error) => {
                reasons.push(format!("{region} does not answer: {error:#}"));
                continue;
            }
        };
        let others = status.sees.iter().filter(|(_, state)| **state != RegionState::Ready);
        reasons.extend(others.map(|(other, state)| format!("{region} calls {other} {}", state.name())));
        let late = status.replication.iter().filter(|link| link.lag_ms > LAG_MS);
        reasons.extend(late.map(|link| format!("{} lags {} ms behind {region}", link.peer, link.lag_ms)));
        if status.damage.is_some() {
            reasons.push(format!("rows of {region} are damaged, and other regions are needed to mend them"));
        }
        if let Some(limits) = &status.control.limits {
            reasons.push(format!("{region}: {limits}"));
        }
    }
    match crate::orders::foreseen(&stage.place, victim).await {
        Ok(plan) => {
            reasons.extend(plan.never);
            reasons.extend(plan.unless_forced.into_iter().filter(|_| !force).map(|why| format!("{why} (--force)")));
        }
        Err(error) => reasons.push(format!("the primary cannot say what the others would carry: {error:#}")),
    }
    reasons
}

/// One fault, from the load before it until what was acknowledged has been read. Keys begin with `keys`.
async fn drill(
    stage: &mut Stage,
    (fault, victim): (Fault, &RegionId),
    question: Option<&Question>,
    keys: &str,
    args: &DrillArgs,
) -> anyhow::Result<Measured> {
    let survivors: Vec<RegionId> = stage.deployment.regions.keys().filter(|id| *id != victim).cloned().collect();
    let lasting = Lasting::prepare(stage, fault, victim).await?;
    stage.links = lasting.before().clone();
    let writers = writers(stage, keys)?;
    let (readers, at_its_own) = readers(stage, victim, &survivors).await;
    let watch = Watch::begin(stage, victim, question);
    tokio::time::sleep(Duration::from_secs(args.before)).await;

    let led = leads(stage, victim).await;
    let began = Instant::now();
    lasting.begin(stage).await?;
    lasting.last(stage, Duration::from_secs(args.outage)).await?;
    let ended = Instant::now();
    lasting.end(stage).await?;
    eprintln!("{victim} may come back");
    let (recovered, in_service) = recovery(stage, ended).await;
    stage.links.clear();

    let seen = watch.finish();
    let mut measured = Measured::of(fault, victim, led, (began, ended), &survivors, &seen);
    (measured.recovered_ms, measured.in_service_ms) = (recovered, in_service);
    measured.read_results(readers, at_its_own).await?;
    let acknowledged = measured.written(writers, victim).await?;
    measured.missing(stage, acknowledged).await?;
    if measured.requests == 0 {
        measured
            .failures
            .push(format!("rerouting was not measured: no client is sent to {victim} by the others' gateways"));
    }
    Ok(measured)
}

fn writers(stage: &Stage, keys: &str) -> anyhow::Result<Vec<Worker>> {
    let what = Writing {
        namespace: Namespace::new("drill")?,
        prefix: String::new(),
        keys: u64::MAX,
        ack: "regions:2",
        every: PAUSE,
    };
    let one = |(id, addresses): (&RegionId, &model::region::Addresses)| {
        let what = Writing { prefix: format!("{keys}-{id}-"), ..what.clone() };
        traffic::writer(stage.client.clone(), id.clone(), addresses.gateway, what)
    };
    Ok(stage.deployment.regions.iter().map(one).collect())
}

/// A client that the gateway of `region` sends to `victim`.
async fn client_of(stage: &Stage, region: &RegionId, victim: &RegionId) -> Option<&'static str> {
    let gateway = stage.deployment.regions[region].gateway;
    for from in CLIENTS {
        if traffic::answered_by(&stage.client, gateway, from).await.is_ok_and(|by| by == victim.as_str()) {
            return Some(from);
        }
    }
    None
}

/// A reader at each surviving gateway, for clients that are sent to `victim` while it lives, and one at its own.
async fn readers(stage: &Stage, victim: &RegionId, survivors: &[RegionId]) -> (Vec<Worker>, Option<Worker>) {
    let reader = |region: &RegionId, from: &str| {
        let gateway = stage.deployment.regions[region].gateway;
        traffic::reader(stage.client.clone(), region.clone(), gateway, from.to_owned(), PAUSE)
    };
    let mut readers = Vec::new();
    for region in survivors {
        if let Some(from) = client_of(stage, region, victim).await {
            readers.push(reader(region, from));
        }
    }
    let own = client_of(stage, victim, victim).await.map(|from| reader(victim, from));
    (readers, own)
}

/// A name that the policies route, and a client that is sent to `victim`; none where there is no such name or client.
async fn question(stage: &Stage, victim: &RegionId) -> Option<Question> {
    let client: IpAddr = client_of(stage, victim, victim).await?.parse().ok()?;
    let regions = config::load(&stage.deployment.tree).ok()?;
    let planner = Planner::load(&stage.deployment.tree, &regions, None).await.ok()?.ok()?;
    let table = planner.table(regions).await;
    planner.shutdown();
    let names = table.ok()?.dns();
    // The one that most addresses are given for: an answer of one address may be another region's from the beginning.
    let (name, ..) = names.into_iter().max_by_key(|(_, count, _)| *count)?;
    Some(Question { name, client })
}

/// Milliseconds from the end of the fault until every region is ready and has caught up in the eyes of all others, and until
/// all serve as before: a region that was lost serves in need alone for a while, longer each time.
async fn recovery(stage: &Stage, ended: Instant) -> (Option<u64>, Option<u64>) {
    let mut recovered = None;
    while recovered.is_none() && ended.elapsed() < RECOVERY {
        if caught_up(stage).await {
            recovered = Some(ended.elapsed().as_millis() as u64);
        }
        tokio::time::sleep(PAUSE).await;
    }
    if let Err(error) = crate::deploy::serving(&stage.place.state, &stage.deployment, IN_SERVICE).await {
        eprintln!("{error:#}");
        return (recovered, None);
    }
    (recovered, Some(ended.elapsed().as_millis() as u64))
}

/// Whether every region is ready, and sees all others ready or as one that has yet to prove itself.
async fn caught_up(stage: &Stage) -> bool {
    for addresses in stage.deployment.regions.values() {
        let Ok(status) = stage.client.status(addresses.admin).await else { return false };
        let here = |state: &RegionState| state.serves() || *state == RegionState::Degraded;
        if status.state != RegionState::Ready || !status.sees.values().all(here) {
            return false;
        }
    }
    true
}

/// Draws what happened, a file a run, and says where.
fn pictures(out: &std::path::Path, measured: &[Measured]) -> anyhow::Result<String> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for (number, one) in measured.iter().enumerate() {
        let name = format!("{:02}-{}.svg", number + 1, one.fault.to_string().replace(' ', "-"));
        let path = out.join(name);
        std::fs::write(&path, picture::timeline(one)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = out.join("report.json");
    let text = serde_json::to_string_pretty(measured)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(format!("pictures of what happened, and report.json, are in {}", out.display()))
}
