//! Sends a steady rate of reads and writes and measures from the intended start.
//!
//! Requests are due at fixed times, whether or not earlier ones have been
//! answered, and each latency counts from when its request was due. A server
//! that stalls therefore shows all the waiting that it caused.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{Namespace, RegionId};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Check, Stage, percentile};
use crate::args::LoadArgs;

/// Requests under way at the same time; more wait, and their waiting counts.
const UNDER_WAY: usize = 512;
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// A request sent this long after it was due was held up.
const LATE: Duration = Duration::from_millis(10);
/// Keys that are written and read.
const KEYS: u64 = 1000;
/// The share of the asked rate that must be reached.
const REACHED: f64 = 0.95;

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Measured {
    asked_rate: u32,
    reached_rate: f64,
    requests: usize,
    errors: BTreeMap<String, usize>,
    by_region: BTreeMap<RegionId, ByRegion>,
    /// Requests that were sent later than 10 ms after they were due, because [`UNDER_WAY`] others were not answered or the machine was busy.
    sent_late: usize,
}

/// One region's share.
#[derive(Debug, Default, Serialize)]
struct ByRegion {
    good_per_second: f64,
    write: Latency,
    read: Latency,
}

/// Milliseconds from the intended start to the whole answer, good answers only.
#[derive(Debug, Default, Serialize)]
struct Latency {
    count: usize,
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    max: Option<u64>,
}

impl Latency {
    fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let at = |share| percentile(&samples, share);
        Self { count: samples.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// `repomind-run load-test`.
pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let stage = Stage::enter(&args.place, &["load"]).await?;
    let json = args.json;
    let mut cleared = Vec::new();
    let measured = stage.run(&mut cleared, async move |stage| load(stage, &args).await).await?;
    let errors: usize = measured.errors.values().sum();
    let wanted = f64::from(measured.asked_rate) * REACHED;
    let checks = [
        Check {
            what: "good answers a second".into(),
            holds: measured.reached_rate >= wanted,
            bound: format!("at least {wanted:.0}"),
            found: format!("{:.1}", measured.reached_rate),
        },
        Check::none("errors", errors),
    ];
    let show = |what: &str, l: &Latency| {
        let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        format!("{what}: {} good, ms p50 {} p90 {} p99 {} max {}", l.count, ms(l.p50), ms(l.p90), ms(l.p99), ms(l.max))
    };
    let mut notes = Vec::new();
    for (region, one) in &measured.by_region {
        notes.push(format!("{region}: {:.1} good answers a second", one.good_per_second));
        notes.push(show("  writes (ack local)", &one.write));
        notes.push(show("  reads", &one.read));
    }
    notes.push(match measured.sent_late {
        0 => "not saturated: every request was sent when it was due".to_owned(),
        late if late * 100 < measured.requests => {
            format!("not saturated: {late} of {} requests were sent more than 10 ms late", measured.requests)
        }
        late => format!("saturated: {late} of {} requests were sent more than 10 ms late", measured.requests),
    });
    notes.extend(measured.errors.iter().map(|(what, count)| format!("{count} × {what}")));
    notes.extend(cleared);
    super::conclude(json, &measured, &checks, &notes)
}

async fn load(stage: &mut Stage, args: &LoadArgs) -> anyhow::Result<Measured> {
    let gateways: Vec<_> = stage.deployment.regions.values().map(|addresses| addresses.gateway).collect();
    let regions: Vec<RegionId> = stage.deployment.regions.keys().cloned().collect();
    let namespace = Namespace::new("load")?;
    let run = super::run_id();
    // Reads come from keys that exist: the first write of each is not part of the measurement.
    let room = Arc::new(Semaphore::new(64));
    let mut filling = JoinSet::new();
    for (at, gateway) in gateways.iter().enumerate() {
        for number in 0..KEYS / 10 {
            let permit = room.clone().acquire_owned().await?;
            let (client, gateway, namespace, key) =
                (stage.client.clone(), *gateway, namespace.clone(), format!("{run}-{at}-{number}"));
            filling.spawn(async move {
                let _permit = permit;
                client.put(gateway, &namespace, &key, Bytes::from_static(b"first"), "local", DEADLINE).await.map(drop)
            });
        }
    }
    while let Some(filled) = filling.join_next().await {
        filled??;
    }

    let total = u64::from(args.rate) * args.seconds;
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks = JoinSet::new();
    let mut samples = vec![(Vec::new(), Vec::new()); gateways.len()];
    let (mut errors, mut sent_late) = (BTreeMap::new(), 0);
    let mut take = |(at, write, result): (usize, bool, Result<u64, String>)| match result {
        Ok(ms) if write => samples[at].0.push(ms),
        Ok(ms) => samples[at].1.push(ms),
        Err(why) => *errors.entry(format!("{}: {why}", regions[at])).or_insert(0) += 1,
    };
    let began = Instant::now();
    for number in 0..total {
        let due = began + Duration::from_secs_f64(number as f64 / f64::from(args.rate));
        tokio::time::sleep_until(due.into()).await;
        let permit = room.clone().acquire_owned().await?;
        sent_late += usize::from(due.elapsed() > LATE);
        let at = (number % gateways.len() as u64) as usize;
        let write = (number / gateways.len() as u64).is_multiple_of(2);
        let key = format!("{run}-{at}-{}", number % (KEYS / 10));
        let (client, gateway, namespace) = (stage.client.clone(), gateways[at], namespace.clone());
        tasks.spawn(async move {
            let _permit = permit;
            let reply = if write {
                client.put(gateway, &namespace, &key, Bytes::from(vec![b'x'; 256]), "local", DEADLINE).await
            } else {
                client.get(gateway, &namespace, &key, DEADLINE).await
            };
            let result = match reply {
                Ok(reply) if reply.status.is_success() => Ok(due.elapsed().as_millis() as u64),
                Ok(reply) => Err(format!("answered {}", reply.status)),
                Err(error) => Err(error.root_cause().to_string()),
            };
            (at, write, result)
        });
        while let Some(done) = tasks.try_join_next() {
            take(done?);
        }
    }
    while let Some(done) = tasks.join_next().await {
        take(done?);
    }
    // The last request is due one interval before the end.
    let took = began.elapsed().as_secs_f64().max(args.seconds as f64);
    let good: usize = samples.iter().map(|(writes, reads)| writes.len() + reads.len()).sum();
    let by_region = regions.into_iter().zip(samples).map(|(region, (writes, reads))| {
        let good_per_second = (writes.len() + reads.len()) as f64 / took;
        (region, ByRegion { good_per_second, write: Latency::of(writes), read: Latency::of(reads) })
    });
    Ok(Measured {
        asked_rate: args.rate,
        reached_rate: good as f64 / took,
        requests: total as usize,
        errors,
        by_region: by_region.collect(),
        sent_late,
    })
}
