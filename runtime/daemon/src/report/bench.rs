//! Measures what a deployment on this machine does, in one run.
//!
//! Every figure is taken from running daemons through their sockets, and beside
//! it a floor from the same run where there is one: the disk without a database,
//! the service without a gateway. Client and three regions share the machine, so
//! ratios mean more than figures.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use comfy_table::{Cell, Table, presets};
use http::Method;
use model::Namespace;
use model::bundle::{Because, PolicyTree, Proposal};
use model::radius::Published;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Stage, percentile};
use crate::args::{BenchArgs, WanProfile};
use crate::client::Client;

/// Requests under way at the same time where throughput is measured.
pub(super) const CLIENTS: usize = 64;
/// The size of a value.
const VALUE: usize = 1024;
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// The rate at which lag is measured, in puts a second over all regions.
const LAG_RATE: u64 = 1000;
/// How often a policy file is saved.
const SAVES: usize = 30;
/// How often a generation is brought back.
const ROLLBACKS: usize = 10;

/// Values of [`VALUE`] bytes that do not compress, alone or beside each other.
#[derive(Clone)]
pub(super) struct Values(Bytes);

impl Values {
    /// How many bytes further on the next value begins.
    const STRIDE: usize = 1031;
    const BYTES: usize = 16 << 20;

    pub(super) fn new() -> Self {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let words = (1..=Self::BYTES as u64 / 8).flat_map(|count| {
            let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_le_bytes()
        });
        Self(words.collect())
    }

    pub(super) fn get(&self, number: u64) -> Bytes {
        let begin = (number as usize).wrapping_mul(Self::STRIDE) % (Self::BYTES - VALUE);
        self.0.slice(begin..begin + VALUE)
    }
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub struct Figure {
    what: String,
    value: String,
    floor: String,
}

/// A figure, with what it is to be seen beside.
pub fn figure(what: impl Into<String>, value: String, floor: impl Into<String>) -> Figure {
    Figure { what: what.into(), value, floor: floor.into() }
}

/// `repomind-run bench`.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let span = Duration::from_secs(args.seconds);
    let mut figures = vec![disk_floor(&std::env::temp_dir(), span)?];
    let mut puts = f64::NAN;
    // A tree of its own: one of the figures comes from saving policy files.
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    copy_tree(&args.place.tree, &tree)?;
    for (wan, measured) in [(WanProfile::Lan, true), (WanProfile::Realistic, false)] {
        eprintln!("measuring with links: {}", wan.as_str());
        let stage = Stage::own(&tree, wan).await?;
        let tree = tree.clone();
        let (more, rate) = stage
            .run(&mut Vec::new(), async move |stage| {
                let (mut figures, mut rate) = (Vec::new(), None);
                if measured {
                    figures.extend(gateway(stage, span).await?);
                    let (figure, puts) = durable(stage, span).await?;
                    figures.push(figure);
                    rate = Some(puts);
                    figures.push(converged(stage, span).await?);
                    figures.push(lag(stage, span).await?);
                    figures.extend(super::bench_redis::figures(stage, span).await?);
                    figures.push(super::audit::timed(stage).await?);
                }
                figures.push(saves(stage, &tree, wan).await?);
                figures.push(rollbacks(stage, wan).await?);
                Ok((figures, rate))
            })
            .await?;
        figures.extend(more);
        puts = rate.unwrap_or(puts);
    }
    figures.extend(crate::report::bench_policy::figures(&args.place.tree, puts).await?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["figure", "found", "beside"]);
        for Figure { what, value, floor } in &figures {
            table.add_row([Cell::new(what), Cell::new(value), Cell::new(floor)]);
        }
        println!("{table}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies regions and policies; everything else of a repository stays where it is.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let regions = from.join("region-config");
    let files = model::bundle::POLICY_FILES.iter().map(|file| from.join(file));
    let yaml = std::fs::read_dir(&regions).with_context(|| format!("cannot read {}", regions.display()))?;
    let yaml = yaml.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "yml"));
    for path in files.chain(yaml) {
        let target = to.join(path.strip_prefix(from)?);
        std::fs::create_dir_all(target.parent().context("a file in a folder")?)?;
        std::fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    Ok(())
}

/// What the disk gives with nothing above it: groups of 64 values appended and made durable.
fn disk_floor(folder: &Path, span: Duration) -> anyhow::Result<Figure> {
    let mut file = tempfile::tempfile_in(folder)?;
    let group = vec![b'x'; VALUE * 64];
    let (began, mut groups) = (Instant::now(), 0_u32);
    while began.elapsed() < span {
        file.write_all(&group)?;
        file.sync_data()?;
        groups += 1;
    }
    let each = began.elapsed().as_secs_f64() / f64::from(groups);
    Ok(figure(
        "floor: appending 64 × 1 KiB and fdatasync",
        format!("{:.0} values/s, {:.2} ms a group", 64.0 / each, each * 1000.0),
        "",
    ))
}

/// Latencies in microseconds and the rate of good answers while [`CLIENTS`] ask as fast as they are answered.
pub(super) struct Rush {
    pub(super) rate: f64,
    pub(super) sorted: Vec<u64>,
}

impl Rush {
    fn show(&self) -> String {
        let ms = |share| percentile(&self.sorted, share).map_or(f64::NAN, |us| us as f64 / 1000.0);
        format!("{:.0}/s, p50 {:.1} ms, p99 {:.1} ms", self.rate, ms(0.5), ms(0.99))
    }
}

/// Runs `ask` from [`CLIENTS`] tasks for `span`. `ask` is given a number that is never given twice.
pub(super) async fn rush<F>(span: Duration, ask: impl Fn(u64) -> F + Clone + Send + 'static) -> anyhow::Result<Rush>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let number = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let (ask, number) = (ask.clone(), number.clone());
        tasks.spawn(async move {
            let mut samples = Vec::new();
            while began.elapsed() < span {
                let sent = Instant::now();
                ask(number.fetch_add(1, Ordering::Relaxed)).await?;
                samples.push(sent.elapsed().as_micros() as u64);
            }
            anyhow::Ok(samples)
        });
    }
    let mut sorted = Vec::new();
    while let Some(samples) = tasks.join_next().await {
        sorted.extend(samples??);
    }
    let rate = sorted.len() as f64 / began.elapsed().as_secs_f64();
    sorted.sort_unstable();
    Ok(Rush { rate, sorted })
}

async fn gateway(stage: &Stage, span: Duration) -> anyhow::Result<Vec<Figure>> {
    let gateway = stage.deployment.regions[&stage.deployment.primary].gateway;
    let service = crate::deploy::service_of(&stage.deployment, &stage.deployment.primary)
        .context("no sample service was recorded")?;
    let ask = |client: &Client, at: SocketAddr| {
        let client = client.clone();
        move |_| {
            let client = client.clone();
            async move {
                // An address in the United States, so that the near service answers.
                let from = [("x-forwarded-for", "18.0.0.1")];
                let reply = client.send(Method::GET, at, "/bench", &from, Bytes::new(), DEADLINE).await?;
                ensure!(reply.status.is_success(), "answered {}", reply.status);
                Ok(())
            }
        }
    };
    let direct = rush(span, ask(&stage.client, service)).await?;
    let through = rush(span, ask(&stage.client, gateway)).await?;
    let beside = format!("the service itself: {} ({:.2} of it)", direct.show(), through.rate / direct.rate);
    Ok(vec![figure("gateway: requests to the near service", through.show(), beside)])
}

type Put = futures_util::future::BoxFuture<'static, anyhow::Result<()>>;

fn put(client: &Client, gateway: SocketAddr, prefix: String) -> impl Fn(u64) -> Put + Clone + Send + use<> {
    put_acked(client, gateway, prefix, "local")
}

pub(super) fn put_acked(
    client: &Client,
    gateway: SocketAddr,
    prefix: String,
    ack: &'static str,
) -> impl Fn(u64) -> Put + Clone + Send + use<> {
    let (client, values) = (client.clone(), Values::new());
    move |number| {
        let (client, value, key) = (client.clone(), values.get(number), format!("{prefix}-{number}"));
        Box::pin(async move {
            let namespace = Namespace::new("bench")?;
            let reply = client.put(gateway, &namespace, &key, value, ack, DEADLINE).await?;
            ensure!(reply.status.is_success(), "answered {}: {}", reply.status, reply.excerpt());
            Ok(())
        })
    }
}

/// Also gives the puts a second.
async fn durable(stage: &Stage, span: Duration) -> anyhow::Result<(Figure, f64)> {
    let gateway = stage.deployment.regions[&stage.deployment.primary].gateway;
    let rush = rush(span, put(&stage.client, gateway, "one".into())).await?;
    drained(stage).await?;
    Ok((figure("durable puts of 1 KiB, one region, while it ships them to two", rush.show(), ""), rush.rate))
}

/// Milliseconds until no region has anything that another lacks.
pub(super) async fn drained(stage: &Stage) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let mut waiting = 0;
        for admin in stage.deployment.admins().values() {
            waiting += stage.client.status(*admin).await?.replication.iter().map(|link| link.backlog).sum::<u64>();
        }
        if waiting == 0 {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "{waiting} entries still wait after a minute");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn converged(stage: &Stage, span: Duration) -> anyhow::Result<Figure> {
    let gateways: Vec<SocketAddr> = stage.deployment.regions.values().map(|region| region.gateway).collect();
    let puts: Vec<_> =
        gateways.iter().map(|gateway| put(&stage.client, *gateway, format!("all-{}", gateway.ip()))).collect();
    let began = Instant::now();
    let rush = rush(span, move |number| puts[number as usize % puts.len()](number)).await?;
    let rest = drained(stage).await?;
    let rate = rush.sorted.len() as f64 / began.elapsed().as_secs_f64();
    let value = format!("{rate:.0}/s ({:.0} ms to drain after the last)", rest.as_secs_f64() * 1000.0);
    Ok(figure("converged puts of 1 KiB, written in all three, durable in all three", value, ""))
}

/// From an acknowledged write in one region until a read in another gives it, while [`LAG_RATE`] puts a second run.
async fn lag(stage: &Stage, span: Duration) -> anyhow::Result<Figure> {
    let stop = Arc::new(AtomicBool::new(false));
    let gateways: Vec<SocketAddr> = stage.deployment.regions.values().map(|region| region.gateway).collect();
    let load = {
        let (stop, client, gateways) = (stop.clone(), stage.client.clone(), gateways.clone());
        tokio::spawn(async move {
            let puts: Vec<_> =
                gateways.iter().map(|gateway| put(&client, *gateway, format!("lag-{}", gateway.ip()))).collect();
            let (began, mut number, mut tasks) = (Instant::now(), 0_u64, JoinSet::new());
            while !stop.load(Ordering::Relaxed) {
                let due = began + Duration::from_micros(number * 1_000_000 / LAG_RATE);
                tokio::time::sleep_until(due.into()).await;
                tasks.spawn(puts[number as usize % puts.len()](number));
                number += 1;
                while let Some(done) = tasks.try_join_next() {
                    done??;
                }
            }
            tasks.shutdown().await;
            anyhow::Ok(number as f64 / began.elapsed().as_secs_f64())
        })
    };
    let namespace = Namespace::new("bench")?;
    let (began, mut samples, mut number) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < span {
        let (here, there) = (gateways[number % gateways.len()], gateways[(number + 1) % gateways.len()]);
        let (key, value) = (format!("mark-{number}"), Bytes::from(format!("{number}")));
        let reply = stage.client.put(here, &namespace, &key, value.clone(), "local", DEADLINE).await?;
        ensure!(reply.status.is_success(), "answered {}", reply.status);
        let acknowledged = Instant::now();
        loop {
            let read = stage.client.get(there, &namespace, &key, DEADLINE).await?;
            if read.status.is_success() && read.body == value {
                break;
            }
            ensure!(acknowledged.elapsed() < DEADLINE, "a write did not cross in {} s", DEADLINE.as_secs());
        }
        samples.push(acknowledged.elapsed().as_micros() as u64);
        number += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let rate = load.await??;
    samples.sort_unstable();
    let ms = |share| percentile(&samples, share).map_or(f64::NAN, |us| us as f64 / 1000.0);
    let value = format!("p50 {:.1} ms, p99 {:.1} ms ({} samples)", ms(0.5), ms(0.99), samples.len());
    Ok(figure(format!("acknowledged in one region to read in another, at {rate:.0} puts/s"), value, ""))
}

/// From a save until every region has the new generation in force.
async fn saves(stage: &Stage, tree: &Path, wan: WanProfile) -> anyhow::Result<Figure> {
    let file = tree.join("traffic-routing/failover.scm");
    let good = std::fs::read_to_string(&file)?;
    let mut samples = Vec::new();
    for number in 0..SAVES {
        let before = stage.client.status(stage.deployment.admins()[&stage.deployment.primary]).await?.generation;
        let text = format!("{good}\n;; Save number {number}.\n");
        let saved = Instant::now();
        std::fs::write(&file, text)?;
        everywhere_after(stage, before, saved).await?;
        samples.push(saved.elapsed().as_millis() as u64);
    }
    let before = stage.client.status(stage.deployment.admins()[&stage.deployment.primary]).await?.generation;
    std::fs::write(&file, good)?;
    everywhere_after(stage, before, Instant::now()).await?;
    let name = format!("save of a policy file to effect in all regions, links: {}", wan.as_str());
    Ok(figure(name, spread(samples, "saves"), gate_time(stage).await?))
}

/// From asking for an earlier generation until every region has it in force again, as the next one.
async fn rollbacks(stage: &Stage, wan: WanProfile) -> anyhow::Result<Figure> {
    let admin = stage.deployment.admins()[&stage.deployment.primary];
    let mut samples = Vec::new();
    for number in 0..ROLLBACKS {
        let before = stage.client.status(admin).await?;
        let asked = Instant::now();
        let earlier = before.generation - 1;
        let tree: PolicyTree = stage.client.get_admin(admin, &format!("/policy/tree?generation={earlier}")).await?;
        let because = Because { author: "bench".to_owned(), reason: format!("rollback number {number}") };
        let parent = before.policy_hash;
        let proposal = Proposal { parent, because, tree, confirmed: true, endorsement: None };
        let taken = stage.client.post::<Published>(admin, "/policy/publish", &proposal, DEADLINE).await?;
        ensure!(matches!(taken, Ok(Published::Generation(_))), "a rollback was not taken: {taken:?}");
        everywhere_after(stage, before.generation, asked).await?;
        samples.push(asked.elapsed().as_millis() as u64);
    }
    let name = format!("rollback of a generation to effect in all regions, links: {}", wan.as_str());
    Ok(figure(name, spread(samples, "rollbacks"), ""))
}

/// Returns once every region has a later generation in force than `before`.
async fn everywhere_after(stage: &Stage, before: u64, began: Instant) -> anyhow::Result<()> {
    for admin in stage.deployment.admins().values() {
        while stage.client.status(*admin).await?.generation <= before {
            ensure!(began.elapsed() < DEADLINE, "a change did not take effect in {} s", DEADLINE.as_secs());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

fn spread(mut samples: Vec<u64>, what: &str) -> String {
    samples.sort_unstable();
    let at = |share| percentile(&samples, share).unwrap_or(0);
    format!("p50 {} ms, p99 {} ms, max {} ms ({} {what})", at(0.5), at(0.99), at(1.0), samples.len())
}

/// How long each step of the primary's gate took on average, as its metrics have it.
async fn gate_time(stage: &Stage) -> anyhow::Result<String> {
    let admins = stage.deployment.admins();
    let (primary, other) = (&stage.deployment.primary, admins.keys().find(|id| **id != stage.deployment.primary));
    let here = steps(stage, admins[primary], &["compiled", "proved", "compared", "agreed"]).await?;
    let there = match other {
        Some(other) => steps(stage, admins[other], &["rehearsed", "compiled"]).await?,
        None => String::new(),
    };
    Ok(format!("of which on average: {here}; in another region meanwhile: {there}"))
}

async fn steps(stage: &Stage, admin: SocketAddr, names: &[&str]) -> anyhow::Result<String> {
    let reply = stage.client.send(Method::GET, admin, "/metrics", &[], Bytes::new(), DEADLINE).await?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let find = |ending: &str, step: &str| {
        let begins = format!("repomind_policy_gate_seconds_{ending}{{step=\"{step}\"");
        text.lines().find(|line| line.starts_with(&begins))?.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let mean = |step: &str| {
        let count = find("count", step)?;
        Some(format!("{step} {:.0} ms ({count} times)", 1000.0 * find("sum", step)? / count))
    };
    Ok(names.iter().filter_map(|step| mean(step)).collect::<Vec<_>>().join(", "))
}
