//! Takes away what a report wrote into a deployment that somebody else runs.
//!
//! Every key of a run begins with [`super::run_id`]. Keys are looked for in all
//! regions, not remembered: what was written and never acknowledged, or was
//! interrupted, is found too. A key is deleted where it is seen, once, and again
//! only if it is still there long after.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use super::Stage;
use crate::client::Client;

/// How long it may take in all.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// A deletion is on its way to the other regions for so long before it is repeated.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Keys in one page, and writes in one batch: what the data API takes.
const PAGE: usize = 256;

/// What was taken away.
#[derive(Debug, Default)]
pub struct Cleared {
    deleted: BTreeMap<(&'static str, String), Instant>,
    /// Why something may be left.
    left: Option<String>,
}

impl Cleared {
    /// In a sentence.
    pub fn note(&self) -> String {
        let deleted = format!("{} records that this run had written were deleted", self.deleted.len());
        match &self.left {
            None => deleted,
            Some(why) => {
                let run = super::run_id();
                format!("{deleted}, and some may be left, in keys that begin with {run}: {why}")
            }
        }
    }
}

#[derive(Deserialize)]
struct Page {
    records: Vec<Listed>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    key: String,
}

/// Deletes every key of this run in `namespaces`, in every region, until two looks in a row find none.
pub async fn clear(stage: &Stage, namespaces: &'static [&'static str]) -> Cleared {
    let mut cleared = Cleared::default();
    let began = Instant::now();
    let mut clean = 0;
    while clean < 2 {
        match look(stage, namespaces, &mut cleared.deleted).await {
            Ok(true) => (clean, cleared.left) = (clean + 1, None),
            Ok(false) => (clean, cleared.left) = (0, Some("some regions still show them".into())),
            Err(error) => (clean, cleared.left) = (0, Some(format!("{error:#}"))),
        }
        if began.elapsed() > PATIENCE {
            return cleared;
        }
        tokio::time::sleep(LOOK).await;
    }
    cleared
}

/// Whether no region shows a key of this run. Those shown are deleted.
async fn look(
    stage: &Stage,
    namespaces: &'static [&'static str],
    deleted: &mut BTreeMap<(&'static str, String), Instant>,
) -> anyhow::Result<bool> {
    let mut clean = true;
    for addresses in stage.deployment.regions.values() {
        for &namespace in namespaces {
            let shown = keys(&stage.client, addresses.gateway, namespace).await?;
            clean &= shown.is_empty();
            let due = |key: &String| {
                deleted.get(&(namespace, key.clone())).is_none_or(|at: &Instant| at.elapsed() > ON_ITS_WAY)
            };
            let due: Vec<String> = shown.into_iter().filter(due).collect();
            for some in due.chunks(PAGE) {
                delete(&stage.client, addresses.gateway, namespace, some).await?;
                deleted.extend(some.iter().map(|key| ((namespace, key.clone()), Instant::now())));
            }
        }
    }
    Ok(clean)
}

async fn keys(client: &Client, gateway: SocketAddr, namespace: &str) -> anyhow::Result<Vec<String>> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let after = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("/v1/data/{namespace}?prefix={}-&limit={PAGE}{after}", super::run_id());
        let reply = client.send(Method::GET, gateway, &path, &[], Bytes::new(), DEADLINE).await?;
        ensure!(reply.status.is_success(), "{gateway}{path} answered {}", reply.status.as_u16());
        let page: Page = serde_json::from_slice(&reply.body)?;
        all.extend(page.records.into_iter().map(|listed| listed.key));
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(all),
        }
    }
}

async fn delete(client: &Client, gateway: SocketAddr, namespace: &str, keys: &[String]) -> anyhow::Result<()> {
    let items: Vec<_> =
        keys.iter().map(|key| serde_json::json!({ "namespace": namespace, "key": key, "op": "delete" })).collect();
    let body = Bytes::from(serde_json::json!({ "items": items }).to_string());
    let headers = [("content-type", "application/json")];
    let reply = client.send(Method::POST, gateway, "/v1/batch", &headers, body, DEADLINE).await?;
    ensure!(reply.status.is_success(), "{gateway}/v1/batch answered {}", reply.status.as_u16());
    let answer: serde_json::Value = serde_json::from_slice(&reply.body)?;
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    match results.iter().find(|result| result["status"].as_u64().is_none_or(|status| status >= 300)) {
        Some(refused) => bail!("{gateway} refused a deletion in {namespace}: {refused}"),
        None => Ok(()),
    }
}
