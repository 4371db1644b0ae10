//! Writers and readers that run beside a report and keep a list of all that happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use model::{Namespace, RegionId};

use crate::client::Client;

/// A writer may be refused this long before the attempt counts as failed.
pub const DEADLINE: Duration = Duration::from_secs(8);
/// The most events that one writer or reader keeps.
const EVENTS: usize = 1_000_000;

/// One request.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was sent.
    pub sent: Instant,
    /// When its end was known.
    pub ended: Instant,
    /// Whether it was answered well.
    pub good: bool,
    /// The key written, or the region that answered a read.
    pub detail: String,
    /// Why it was not good.
    pub why: String,
}

/// Runs until told to stop.
pub struct Worker {
    /// Its region.
    pub region: RegionId,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Event>>,
}

impl Worker {
    /// Ends it and gives all that happened.
    pub async fn finish(mut self) -> anyhow::Result<Vec<Event>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok((&mut self.task).await?)
    }

    fn spawn<F>(region: RegionId, every: Duration, one: impl Fn(u64) -> F + Send + 'static) -> Self
    where
        F: Future<Output = (bool, String, String)> + Send,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let task = tokio::spawn(async move {
            let mut events = Vec::new();
            let mut number = 0;
            while !asked.load(Ordering::Relaxed) && events.len() < EVENTS {
                let sent = Instant::now();
                let (good, detail, why) = one(number).await;
                events.push(Event { sent, ended: Instant::now(), good, detail, why });
                number += 1;
                tokio::time::sleep(every).await;
            }
            events
        });
        Self { region, stop, task }
    }
}

impl Drop for Worker {
    /// Nothing goes on writing or asking once a report was broken off.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a writer does.
#[derive(Clone)]
pub struct Writing {
    /// Where it writes.
    pub namespace: Namespace,
    /// What its keys begin with; the number of the write follows.
    pub prefix: String,
    /// The number of keys before it begins again from the first; `u64::MAX` for a fresh key each time.
    pub keys: u64,
    /// The `Repomind-Ack` header.
    pub ack: &'static str,
    /// The pause between writes.
    pub every: Duration,
}

/// Writes through one gateway. The value of each write is [`value`] of region and number.
pub fn writer(client: Client, region: RegionId, gateway: SocketAddr, what: Writing) -> Worker {
    let name = region.clone();
    Worker::spawn(region, what.every, move |number| {
        let (client, what, name) = (client.clone(), what.clone(), name.clone());
        async move {
            let key = format!("{}{}", what.prefix, number % what.keys);
            let body = Bytes::from(value(&name, number));
            match client.put(gateway, &what.namespace, &key, body, what.ack, DEADLINE).await {
                // A write that is durable here and did not reach enough regions in time is answered with 504.
                Ok(reply) if reply.status.is_success() => (true, key, String::new()),
                Ok(reply) => (false, key, format!("{} {}", reply.status, reply.excerpt())),
                Err(error) => (false, key, format!("{error:#}")),
            }
        }
    })
}

/// What a writer writes: unique in a run, so that a reader can tell who wrote it.
pub fn value(region: &RegionId, number: u64) -> String {
    format!("{region}:{number}")
}

/// Asks the service behind a gateway as a client at `from` and notes which region answered.
pub fn reader(client: Client, region: RegionId, gateway: SocketAddr, from: String, every: Duration) -> Worker {
    Worker::spawn(region, every, move |_| {
        let (client, from) = (client.clone(), from.clone());
        async move {
            match answered_by(&client, gateway, &from).await {
                Ok(region) => (true, region, String::new()),
                Err(error) => (false, String::new(), format!("{error:#}")),
            }
        }
    })
}

/// Which region's service answers a client at `from`.
pub async fn answered_by(client: &Client, gateway: SocketAddr, from: &str) -> anyhow::Result<String> {
    let headers = [("x-forwarded-for", from)];
    let reply = client.send(Method::GET, gateway, "/where-am-i", &headers, Bytes::new(), DEADLINE).await?;
    anyhow::ensure!(reply.status.is_success(), "answered {}: {}", reply.status, reply.excerpt());
    let answer: serde_json::Value = serde_json::from_slice(&reply.body)?;
    let region = answer.get("region").and_then(serde_json::Value::as_str);
    Ok(region.ok_or_else(|| anyhow::anyhow!("the service did not name its region"))?.to_owned())
}
