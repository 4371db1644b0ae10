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
use model::Namespace;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Check, Stage, percentile};
use crate::cli::LoadArgs;

/// Requests under way at the same time; more wait, and their waiting counts.
const UNDER_WAY: usize = 512;
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
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
    let stage = Stage::enter(&args.place).await?;
    let json = args.json;
    let measured = stage.run(async move |stage| load(stage, &args).await).await?;
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
    let mut notes = vec![show("writes (ack local)", &measured.write), show("reads", &measured.read)];
    notes.extend(measured.errors.iter().map(|(what, count)| format!("{count} × {what}")));
    super::conclude(json, &measured, &checks, &notes)
}

async fn load(stage: &mut Stage, args: &LoadArgs) -> anyhow::Result<Measured> {
    let gateways: Vec<_> = stage.deployment.regions.values().map(|addresses| addresses.gateway).collect();
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
    let (mut writes, mut reads, mut errors) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut take = |(write, result): (bool, Result<u64, String>)| match result {
        Ok(ms) if write => writes.push(ms),
        Ok(ms) => reads.push(ms),
        Err(why) => *errors.entry(why).or_insert(0) += 1,
    };
    let began = Instant::now();
    for number in 0..total {
        let due = began + Duration::from_secs_f64(number as f64 / f64::from(args.rate));
        tokio::time::sleep_until(due.into()).await;
        let permit = room.clone().acquire_owned().await?;
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
            (write, result)
        });
        while let Some(done) = tasks.try_join_next() {
            take(done?);
        }
    }
    while let Some(done) = tasks.join_next().await {
        take(done?);
    }
    let took = began.elapsed().as_secs_f64();
    let good = writes.len() + reads.len();
    Ok(Measured {
        asked_rate: args.rate,
        // The last request is due one interval before the end.
        reached_rate: good as f64 / took.max(args.seconds as f64),
        requests: total as usize,
        errors,
        write: Latency::of(writes),
        read: Latency::of(reads),
    })
}
