//! Shows that regions which write at the same time, and lose sight of each
//! other, come to hold the same.
//!
//! Each region writes keys of its own and the same contended keys as all
//! others. Then the link between two regions is cut in both directions, writing
//! goes on, and the link is restored. From then on the digests of every scope
//! must become equal within a bound, and every region must give the same answer
//! for each contended key.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use model::{Namespace, RegionId};
use serde::Serialize;

use super::traffic::{self, Worker, Writing};
use super::{Check, Stage, percentile};
use crate::args::ReplicationArgs;

/// Keys of each namespace that every region writes.
const CONTENDED: u64 = 20;
/// Where they are: the default tree settles conflicts differently in each.
const NAMESPACES: &[&str] = &["verify", "answers", "settings", "drafts"];
/// The pause between writes of one writer.
const PAUSE: Duration = Duration::from_millis(10);
/// The pause between looks at the lag.
const LOOK: Duration = Duration::from_millis(100);

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Measured {
    writes: usize,
    refused: usize,
    cut: Vec<String>,
    converged_ms: Option<u64>,
    differing_scopes: Vec<String>,
    scopes: usize,
    rows: u64,
    by_scope: BTreeMap<String, ScopeProof>,
    contended_keys: u64,
    contended_keys_that_differ: Vec<String>,
    conflicts_by_strategy: BTreeMap<String, u64>,
    lag_ms: BTreeMap<String, Lag>,
    largest_lag_while_cut_ms: Option<u64>,
    failures: Vec<String>,
}

/// One scope in all regions, as read last.
#[derive(Debug, Default, Serialize)]
struct ScopeProof {
    /// The digest of each region that may hold it; none where it holds nothing of it.
    digests: BTreeMap<RegionId, Option<String>>,
    /// When the regions themselves last found it equal, each pair of them, in ms since 1970: the oldest of these.
    last_equal_at: Option<u64>,
}

/// Lag of one link while nothing was cut, in milliseconds.
#[derive(Debug, Serialize)]
struct Lag {
    samples: usize,
    p50: u64,
    p99: u64,
    max: u64,
}

/// `repomind-run verify replication`.
pub async fn run(args: ReplicationArgs) -> anyhow::Result<ExitCode> {
    let stage = Stage::enter(&args.place, NAMESPACES).await?;
    let (json, within, target) = (args.json, args.within * 1000, args.lag_target);
    let mut cleared = Vec::new();
    let measured = stage.run(&mut cleared, async move |stage| verify(stage, &args).await).await?;
    let worst = measured.lag_ms.values().map(|lag| lag.p99).max();
    let checks = [
        Check {
            what: "writes that were accepted".into(),
            holds: measured.writes > 0,
            bound: "some".into(),
            found: measured.writes.to_string(),
        },
        Check::none("writes that were refused", measured.refused),
        Check::at_most_ms("after healing, the digests of every scope are equal", measured.converged_ms, within),
        Check {
            what: "keys on which regions wrote at once and that a strategy had to settle".into(),
            holds: !measured.conflicts_by_strategy.is_empty(),
            bound: "some".into(),
            found: measured.conflicts_by_strategy.values().sum::<u64>().to_string(),
        },
        Check::none("contended keys on which regions differ", measured.contended_keys_that_differ.len()),
        Check::at_most_ms("99th percentile of lag on the slowest link, nothing cut", worst, target),
    ];
    let mut notes: Vec<String> = vec![format!(
        "{} rows in {} scopes compared; cut: {}",
        measured.rows,
        measured.scopes,
        measured.cut.join(" - ")
    )];
    let settled = measured.conflicts_by_strategy.iter().map(|(by, keys)| format!("{by} {keys}"));
    notes.push(format!("conflicts settled: {}", settled.collect::<Vec<_>>().join(", ")));
    for (scope, proof) in &measured.by_scope {
        let short = |digest: &Option<String>| -> String {
            digest.as_ref().map_or_else(|| "nothing".to_owned(), |digest| digest.chars().take(16).collect())
        };
        let each: Vec<String> =
            proof.digests.iter().map(|(region, digest)| format!("{region} {}", short(digest))).collect();
        let last = proof.last_equal_at.map_or_else(
            || "the regions have not compared it at rest yet".to_owned(),
            |at| {
                format!("by the regions' own comparison last equal at {}", crate::explain::time(model::UnixMillis(at)))
            },
        );
        notes.push(format!("scope {}: {}; {last}", scope.chars().take(12).collect::<String>(), each.join(", ")));
    }
    for (link, lag) in &measured.lag_ms {
        notes.push(format!(
            "lag {link}: p50 {} ms, p99 {} ms, max {} ms ({} samples)",
            lag.p50, lag.p99, lag.max, lag.samples
        ));
    }
    notes.extend(measured.failures.iter().cloned());
    notes.extend(measured.contended_keys_that_differ.iter().take(5).cloned());
    notes.extend(cleared);
    super::conclude(json, &measured, &checks, &notes)
}

async fn verify(stage: &mut Stage, args: &ReplicationArgs) -> anyhow::Result<Measured> {
    let regions: Vec<RegionId> = stage.deployment.regions.keys().cloned().collect();
    let [.., a, b] = regions.as_slice() else { bail!("replication needs two regions") };
    let mut measured = Measured {
        cut: vec![a.to_string(), b.to_string()],
        contended_keys: CONTENDED * NAMESPACES.len() as u64,
        ..Measured::default()
    };
    let contended = format!("{}-all-", super::run_id());
    let phase = Duration::from_secs(args.seconds);

    let looking = Looking::begin(stage);
    let workers = workers(stage, &contended)?;
    tokio::time::sleep(phase).await;
    let calm = looking.finish().await?;

    let looking = Looking::begin(stage);
    set_cut(stage, a, b, true)
        .await
        .context("cannot cut the link; was the deployment started with `--wan realistic`?")?;
    tokio::time::sleep(phase).await;
    set_cut(stage, a, b, false).await?;
    let healed = Instant::now();
    for worker in workers {
        let region = worker.region.clone();
        for event in worker.finish().await? {
            if event.good {
                measured.writes += 1;
            } else {
                measured.refused += 1;
                if measured.failures.len() < 5 {
                    measured.failures.push(format!("write in {region}: {}", event.why));
                }
            }
        }
    }
    measured.converged_ms = converge(stage, healed, Duration::from_secs(args.within), &mut measured).await;
    measured.largest_lag_while_cut_ms = looking.finish().await?.into_values().flatten().max();
    for (link, mut samples) in calm {
        samples.sort_unstable();
        if let (Some(p50), Some(p99), Some(max)) =
            (percentile(&samples, 0.5), percentile(&samples, 0.99), percentile(&samples, 1.0))
        {
            measured.lag_ms.insert(link, Lag { samples: samples.len(), p50, p99, max });
        }
    }
    compare_keys(stage, &contended, &mut measured).await?;
    measured.by_scope = proofs(stage).await?;
    Ok(measured)
}

fn workers(stage: &Stage, contended: &str) -> anyhow::Result<Vec<Worker>> {
    let mut workers = Vec::new();
    for (id, addresses) in &stage.deployment.regions {
        let alone = Writing {
            namespace: Namespace::new("verify")?,
            prefix: format!("{}-{id}-", super::run_id()),
            keys: u64::MAX,
            ack: "local",
            every: PAUSE,
        };
        let mut all = vec![alone.clone()];
        for namespace in NAMESPACES {
            let namespace = Namespace::new(namespace)?;
            all.push(Writing { namespace, prefix: contended.to_owned(), keys: CONTENDED, ..alone.clone() });
        }
        for what in all {
            workers.push(traffic::writer(stage.client.clone(), id.clone(), addresses.gateway, what));
        }
    }
    Ok(workers)
}

async fn set_cut(stage: &Stage, a: &RegionId, b: &RegionId, cut: bool) -> anyhow::Result<()> {
    let regions = &stage.deployment.regions;
    let there = stage.client.cut(regions[a].admin, b, cut).await;
    let back = stage.client.cut(regions[b].admin, a, cut).await;
    there.and(back)
}

/// Milliseconds from `healed` until all regions agree on every scope that they share.
async fn converge(stage: &Stage, healed: Instant, within: Duration, measured: &mut Measured) -> Option<u64> {
    loop {
        match differing_scopes(stage).await {
            Ok((differing, scopes, rows)) => {
                (measured.scopes, measured.rows) = (scopes, rows);
                measured.differing_scopes = differing;
                if measured.differing_scopes.is_empty() && scopes > 0 {
                    return Some(healed.elapsed().as_millis() as u64);
                }
            }
            Err(error) => measured.differing_scopes = vec![format!("{error:#}")],
        }
        if healed.elapsed() >= within {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every scope with its digest in each region, and when the regions last found it equal.
async fn proofs(stage: &Stage) -> anyhow::Result<BTreeMap<String, ScopeProof>> {
    let mut proofs = BTreeMap::<String, ScopeProof>::new();
    let mut equal = BTreeMap::<String, Vec<Option<u64>>>::new();
    for (region, addresses) in &stage.deployment.regions {
        let status = stage.client.status(addresses.admin).await?;
        for (scope, held) in stage.client.digests(addresses.admin).await? {
            for member in &held.regions {
                proofs.entry(scope.clone()).or_default().digests.entry(member.clone()).or_default();
                if member != region {
                    let known = status.agreement.get(member);
                    let at = known.and_then(|known| known.equal_at.get(&scope)).map(|at| at.0);
                    equal.entry(scope.clone()).or_default().push(at);
                }
            }
            let digest = held.digest.as_str().map(str::to_owned);
            proofs.entry(scope).or_default().digests.insert(region.clone(), digest);
        }
    }
    for (scope, times) in equal {
        // All pairs, or none.
        let all: Option<Vec<u64>> = times.into_iter().collect();
        proofs.entry(scope).or_default().last_equal_at = all.and_then(|all| all.into_iter().min());
    }
    Ok(proofs)
}

/// Scopes on which two of their regions differ, the number of scopes, and the rows of the fullest copy of each.
async fn differing_scopes(stage: &Stage) -> anyhow::Result<(Vec<String>, usize, u64)> {
    let mut by_scope: BTreeMap<String, BTreeMap<RegionId, (u64, serde_json::Value)>> = BTreeMap::new();
    let mut members: BTreeMap<String, BTreeSet<RegionId>> = BTreeMap::new();
    for (region, addresses) in &stage.deployment.regions {
        for (scope, digest) in stage.client.digests(addresses.admin).await? {
            members.entry(scope.clone()).or_default().extend(digest.regions);
            by_scope.entry(scope).or_default().insert(region.clone(), (digest.rows, digest.digest));
        }
    }
    let mut differing = Vec::new();
    let mut total = 0;
    for (scope, held) in &by_scope {
        total += held.values().map(|(rows, _)| *rows).max().unwrap_or(0);
        let copies: Vec<_> = members[scope].iter().map(|region| held.get(region)).collect();
        if copies.iter().any(|copy| *copy != copies[0]) {
            let each = members[scope].iter().map(|region| match held.get(region) {
                Some((rows, _)) => format!("{region} {rows} rows"),
                None => format!("{region} nothing"),
            });
            differing.push(format!("{scope}: {}", each.collect::<Vec<_>>().join(", ")));
        }
    }
    Ok((differing, by_scope.len(), total))
}

/// Reads every contended key in every region: all must give the same value, settled by the same strategy.
async fn compare_keys(stage: &Stage, contended: &str, measured: &mut Measured) -> anyhow::Result<()> {
    for (namespace, number) in NAMESPACES.iter().flat_map(|namespace| (0..CONTENDED).map(move |at| (namespace, at))) {
        let namespace = Namespace::new(namespace)?;
        let key = format!("{contended}{number}");
        let mut answers = BTreeMap::new();
        let mut strategy = String::new();
        for (region, addresses) in &stage.deployment.regions {
            let reply = settled(stage, addresses.gateway, &namespace, &key).await?;
            if reply.header("repomind-siblings").parse::<u64>().is_ok_and(|siblings| siblings > 1) {
                strategy = reply.header("repomind-resolved-by").to_owned();
            }
            answers.insert(region, (reply.status, reply.header("repomind-resolved-by").to_owned(), reply.excerpt()));
        }
        let all: BTreeSet<_> = answers.values().collect();
        if all.len() != 1 || answers.values().any(|(status, ..)| !status.is_success()) {
            let each = answers.iter().map(|(region, (status, by, body))| format!("{region} {status} {by} {body}"));
            let each = each.collect::<Vec<_>>().join(", ");
            measured.contended_keys_that_differ.push(format!("{namespace}/{key}: {each}"));
        }
        if !strategy.is_empty() {
            *measured.conflicts_by_strategy.entry(strategy).or_default() += 1;
        }
    }
    Ok(())
}

/// A read that waits, for at most two seconds, until a resolver that was asked has answered.
async fn settled(
    stage: &Stage,
    gateway: std::net::SocketAddr,
    namespace: &Namespace,
    key: &str,
) -> anyhow::Result<crate::client::Reply> {
    let began = Instant::now();
    loop {
        let reply = stage.client.get(gateway, namespace, key, Duration::from_secs(5)).await?;
        let pending = reply.header("repomind-resolved-by").starts_with("pending:");
        if !pending || began.elapsed() > Duration::from_secs(2) {
            return Ok(reply);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Looks at the lag of every link until told to stop.
struct Looking {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<BTreeMap<String, Vec<u64>>>,
}

impl Looking {
    fn begin(stage: &Stage) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, client, admins) = (stop.clone(), stage.client.clone(), stage.deployment.admins());
        let task = tokio::spawn(async move {
            let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            while !asked.load(Ordering::Relaxed) {
                for (region, admin) in &admins {
                    let Ok(status) = client.status(*admin).await else { continue };
                    for link in status.replication {
                        seen.entry(format!("{region} to {}", link.peer)).or_default().push(link.lag_ms);
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
            seen
        });
        Self { stop, task }
    }

    async fn finish(self) -> anyhow::Result<BTreeMap<String, Vec<u64>>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("looking at the lag ended")
    }
}
