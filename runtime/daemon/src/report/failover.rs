//! Kills one region under load and measures what users and operators would see.
//!
//! Both processes of the region are killed with SIGKILL: no goodbye, and no
//! chance to hand anything over. Detection is when the last surviving region
//! calls it down; rerouting is when the last request failed that a client of
//! that region sent to a surviving gateway. After the restart, every write that
//! was acknowledged by two regions must be readable in every region.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use model::routing::RegionState;
use model::{Namespace, RegionId};
use rustix::process::Signal;
use serde::Serialize;

use super::traffic::{self, Event, Worker, Writing};
use super::{Check, Stage};
use crate::args::FailoverArgs;
use crate::client::Client;
use crate::deploy::processes::{self, Started};

/// What the specification asks for.
const SPECIFIED: Duration = Duration::from_secs(30);
/// How long the region may take to come back and catch up.
const RECOVERY: Duration = Duration::from_secs(60);
/// The pause between requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
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

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Measured {
    killed: String,
    detected_ms: Option<u64>,
    rerouted_ms: Option<u64>,
    slowest_request_ms: Option<u64>,
    requests: usize,
    requests_after_kill: usize,
    failed_requests: usize,
    writes_acknowledged: usize,
    writes_not_acknowledged: usize,
    recovered_ms: Option<u64>,
    acknowledged_writes_lost: usize,
    lost: Vec<String>,
    failures: Vec<String>,
}

/// `repomind-run drill failover`.
pub async fn run(args: FailoverArgs) -> anyhow::Result<ExitCode> {
    let stage = Stage::enter(&args.place, &["drill"]).await?;
    let json = args.json;
    let within = args.within * 1000;
    let mut cleared = Vec::new();
    let (measured, notes) = stage.run(&mut cleared, async move |stage| drill(stage, &args).await).await?;
    let specified = SPECIFIED.as_millis() as u64;
    let gone = &measured.killed;
    let mut checks = vec![
        Check::at_most_ms(format!("every surviving region calls {gone} down"), measured.detected_ms, within),
        Check::at_most_ms("within the specification's time", measured.detected_ms, specified),
    ];
    if measured.requests > 0 {
        checks.push(Check::at_most_ms("its clients are served elsewhere", measured.rerouted_ms, within));
        checks.push(Check::at_most_ms("within the specification's time", measured.rerouted_ms, specified));
        checks.push(Check::none("requests of its clients that failed at surviving gateways", measured.failed_requests));
    }
    checks.push(Check::at_most_ms("it comes back and catches up", measured.recovered_ms, RECOVERY.as_millis() as u64));
    checks.push(Check {
        what: "writes acknowledged by two regions, before and during the outage".into(),
        holds: measured.writes_acknowledged > 0,
        bound: "some".into(),
        found: measured.writes_acknowledged.to_string(),
    });
    checks
        .push(Check::none("acknowledged writes that some region cannot give back", measured.acknowledged_writes_lost));
    let mut notes = notes;
    notes.push(format!(
        "{} requests and {} acknowledged writes; slowest request after the kill {} ms; {} writes in surviving regions not acknowledged",
        measured.requests,
        measured.writes_acknowledged,
        measured.slowest_request_ms.map_or_else(|| "-".into(), |ms| ms.to_string()),
        measured.writes_not_acknowledged
    ));
    notes.extend(measured.failures.iter().take(10).chain(measured.lost.iter().take(10)).cloned());
    notes.extend(cleared);
    super::conclude(json, &measured, &checks, &notes)
}

async fn drill(stage: &mut Stage, args: &FailoverArgs) -> anyhow::Result<(Measured, Vec<String>)> {
    let victim = args.region.clone().unwrap_or_else(|| stage.deployment.primary.clone());
    if !stage.deployment.regions.contains_key(&victim) {
        bail!("no region is called {victim}");
    }
    let survivors: Vec<RegionId> = stage.deployment.regions.keys().filter(|id| **id != victim).cloned().collect();
    if survivors.len() < 2 {
        bail!("the drill needs three regions: with two, no write can reach two regions while one is dead");
    }
    // A `deploy` meanwhile would start what is killed here.
    let _lock = match stage.is_borrowed() {
        true => Some(crate::deploy::state::Lock::take(&stage.place.state, "drill failover")?),
        false => None,
    };
    let mut measured = Measured { killed: victim.to_string(), ..Measured::default() };
    let mut notes = Vec::new();
    let writers = writers(stage)?;
    let readers = readers(stage, &victim, &survivors).await;
    if readers.is_empty() {
        notes.push(format!("rerouting was not measured: no client is sent to {victim} by the surviving gateways"));
    }
    tokio::time::sleep(Duration::from_secs(args.before)).await;

    let doomed: Vec<Started> =
        stage.deployment.started.iter().filter(|process| process.region == victim).cloned().collect();
    if doomed.is_empty() {
        bail!("no recorded process of {victim} runs");
    }
    let killed = Instant::now();
    for process in &doomed {
        process.signal(Signal::KILL);
    }
    eprintln!("killed {victim}");
    let outage = async {
        let (detected, ()) = tokio::join!(
            detection(stage, &victim, &survivors, killed),
            tokio::time::sleep(Duration::from_secs(args.outage))
        );
        detected
    };
    measured.detected_ms = outage.await;

    if !processes::gone(&doomed, Duration::from_secs(5)).await {
        bail!("{victim} does not end, although it was killed");
    }
    eprintln!("starting {victim} again");
    let restarted = Instant::now();
    for process in doomed {
        let again = Started::spawn(process.role, &process.region, process.command, &process.log)?;
        stage.deployment.record(again);
        stage.deployment.write(&stage.place.state)?;
    }
    measured.recovered_ms = recovery(stage, restarted).await?;
    read_results(&mut measured, readers, killed).await?;
    let acknowledged = written(&mut measured, writers, &victim).await?;
    missing(stage, acknowledged, &mut measured).await?;
    Ok((measured, notes))
}

fn writers(stage: &Stage) -> anyhow::Result<Vec<Worker>> {
    let what = Writing {
        namespace: Namespace::new("drill")?,
        prefix: String::new(),
        keys: u64::MAX,
        ack: "regions:2",
        every: PAUSE,
    };
    let run = super::run_id();
    let one = |(id, addresses): (&RegionId, &model::region::Addresses)| {
        let what = Writing { prefix: format!("{run}-{id}-"), ..what.clone() };
        traffic::writer(stage.client.clone(), id.clone(), addresses.gateway, what)
    };
    Ok(stage.deployment.regions.iter().map(one).collect())
}

/// A reader at each surviving gateway, for clients that are sent to `victim` while it lives.
async fn readers(stage: &Stage, victim: &RegionId, survivors: &[RegionId]) -> Vec<Worker> {
    let mut readers = Vec::new();
    for region in survivors {
        let gateway = stage.deployment.regions[region].gateway;
        for from in CLIENTS {
            if traffic::answered_by(&stage.client, gateway, from).await.is_ok_and(|by| by == victim.as_str()) {
                readers.push(traffic::reader(stage.client.clone(), region.clone(), gateway, (*from).to_owned(), PAUSE));
                break;
            }
        }
    }
    readers
}

/// Milliseconds from the kill until the last surviving region calls the victim down.
async fn detection(stage: &Stage, victim: &RegionId, survivors: &[RegionId], killed: Instant) -> Option<u64> {
    let mut watchers = Vec::new();
    for region in survivors {
        let (client, victim, admin) = (stage.client.clone(), victim.clone(), stage.deployment.regions[region].admin);
        watchers.push(tokio::spawn(async move {
            while killed.elapsed() < SPECIFIED {
                let seen = client.status(admin).await.ok().and_then(|status| status.sees.get(&victim).copied());
                if seen == Some(RegionState::Down) {
                    return Some(killed.elapsed().as_millis() as u64);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None
        }));
    }
    let mut slowest = Some(0);
    for watcher in watchers {
        let one = watcher.await.ok().flatten();
        slowest = slowest.zip(one).map(|(a, b)| a.max(b));
    }
    slowest
}

/// Milliseconds from the restart until every region is ready and sees all others so. A region
/// calls another ready only once that one has caught up.
async fn recovery(stage: &Stage, restarted: Instant) -> anyhow::Result<Option<u64>> {
    if let Err(error) = crate::deploy::serving(&stage.place.state, &stage.deployment, RECOVERY).await {
        eprintln!("{error:#}");
        return Ok(None);
    }
    Ok(Some(restarted.elapsed().as_millis() as u64))
}

async fn read_results(measured: &mut Measured, readers: Vec<Worker>, killed: Instant) -> anyhow::Result<()> {
    let mut rerouted = None;
    for reader in readers {
        let gateway = reader.region.clone();
        let events = reader.finish().await?;
        measured.requests += events.len();
        let after: Vec<&Event> = events.iter().filter(|event| event.ended >= killed).collect();
        measured.requests_after_kill += after.len();
        let failed: Vec<&&Event> = after.iter().filter(|event| !event.good).collect();
        measured.failed_requests += failed.len();
        measured.failures.extend(failed.iter().take(3).map(|event| format!("{gateway}: {}", event.why)));
        measured.slowest_request_ms = measured
            .slowest_request_ms
            .max(after.iter().map(|event| (event.ended - event.sent).as_millis() as u64).max());
        // Served elsewhere from the first good answer after the last bad one.
        let bad_until = failed.iter().map(|event| event.ended).max().unwrap_or(killed);
        let elsewhere =
            after.iter().find(|event| event.good && event.ended >= bad_until && event.detail != measured.killed);
        let elsewhere = elsewhere.map(|event| event.ended.duration_since(killed).as_millis() as u64);
        let Some(elsewhere) = elsewhere else {
            measured.failures.push(format!("{gateway}: no request was served elsewhere"));
            measured.rerouted_ms = None;
            return Ok(());
        };
        rerouted = rerouted.max(Some(elsewhere));
    }
    measured.rerouted_ms = rerouted;
    Ok(())
}

/// The acknowledged writes: key to value.
async fn written(
    measured: &mut Measured,
    writers: Vec<Worker>,
    victim: &RegionId,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        let region = writer.region.clone();
        let events = writer.finish().await?;
        let mut shown = 0;
        for (number, event) in events.into_iter().enumerate() {
            if event.good {
                acknowledged.insert(event.detail, traffic::value(&region, number as u64));
            } else if region != *victim {
                measured.writes_not_acknowledged += 1;
                if shown < 3 {
                    shown += 1;
                    measured.failures.push(format!("write in {region}: {}", event.why));
                }
            }
        }
    }
    measured.writes_acknowledged = acknowledged.len();
    Ok(acknowledged)
}

/// Reads every acknowledged write in every region. A region has a few seconds to receive the last ones.
async fn missing(stage: &Stage, acknowledged: BTreeMap<String, String>, measured: &mut Measured) -> anyhow::Result<()> {
    let namespace = Namespace::new("drill")?;
    let mut readers = Vec::new();
    for (region, addresses) in &stage.deployment.regions {
        let (client, gateway) = (stage.client.clone(), addresses.gateway);
        let (namespace, wanted, region) = (namespace.clone(), acknowledged.clone(), region.clone());
        readers.push(tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut lost = Vec::new();
            for (key, value) in wanted {
                while !holds(&client, gateway, &namespace, &key, &value).await {
                    if Instant::now() >= deadline {
                        lost.push(format!("{key} in {region}"));
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            lost
        }));
    }
    for reader in readers {
        let lost = reader.await.context("a reader ended")?;
        measured.acknowledged_writes_lost += lost.len();
        measured.lost.extend(lost.into_iter().take(20));
    }
    Ok(())
}

async fn holds(client: &Client, gateway: std::net::SocketAddr, namespace: &Namespace, key: &str, value: &str) -> bool {
    let reply = client.get(gateway, namespace, key, Duration::from_secs(5)).await;
    reply.is_ok_and(|reply| reply.status.is_success() && reply.body == value.as_bytes())
}
