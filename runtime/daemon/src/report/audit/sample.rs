//! A made-up data set for an audit of a deployment of our own: several classes and jurisdictions, pseudonyms that stand
//! for nobody. It never goes into a deployment that somebody runs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use model::RegionId;
use serde::Deserialize;

use crate::report::Stage;

const RECORDS: &str = include_str!("sample.json");
/// Where they go.
const NAMESPACE: &str = "audit-sample";
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long replication and the witnesses may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
struct SampleRecord {
    key: String,
    class: String,
    jurisdiction: Option<String>,
    basis: Option<String>,
    purpose: Option<String>,
    subject: Option<String>,
    value: String,
}

impl SampleRecord {
    fn headers(&self) -> Vec<(&str, &str)> {
        let stated = [
            ("repomind-class", Some(&self.class)),
            ("repomind-jurisdiction", self.jurisdiction.as_ref()),
            ("repomind-basis", self.basis.as_ref()),
            ("repomind-purpose", self.purpose.as_ref()),
            ("repomind-subject", self.subject.as_ref()),
        ];
        let stated = stated.into_iter().filter_map(|(name, value)| Some((name, value?.as_str())));
        stated.chain([("content-type", "text/plain")]).collect()
    }
}

/// How many records were stored and how many the policies let be nowhere.
#[derive(Debug)]
pub struct Stored {
    /// Stored, each in a region that may hold it.
    pub stored: usize,
    /// Refused everywhere.
    pub refused: usize,
}

/// Writes every record, at the primary or where the refusal says that it may be.
pub async fn write(stage: &Stage) -> anyhow::Result<Stored> {
    let records: Vec<SampleRecord> = serde_json::from_str(RECORDS).context("the bundled data set")?;
    let primary = stage.deployment.regions[&stage.deployment.primary].gateway;
    let mut count = Stored { stored: 0, refused: 0 };
    for record in records {
        match put(stage, primary, &record).await? {
            None => count.stored += 1,
            Some(lawful) => match lawful.iter().find_map(|region| stage.deployment.regions.get(region)) {
                None => count.refused += 1,
                Some(there) => {
                    let refused = put(stage, there.gateway, &record).await?;
                    ensure!(refused.is_none(), "{} was refused where it was said to be lawful", record.key);
                    count.stored += 1;
                }
            },
        }
    }
    ensure!(count.stored > 0, "the policies of this tree let none of the sample records be anywhere");
    Ok(count)
}

/// Nothing when it was stored, else where it may be.
async fn put(stage: &Stage, gateway: SocketAddr, record: &SampleRecord) -> anyhow::Result<Option<Vec<RegionId>>> {
    let path = format!("/v1/data/{NAMESPACE}/{}", record.key.replace('/', "%2F"));
    let body = Bytes::from(record.value.clone());
    let reply = stage.client.send(Method::PUT, gateway, &path, &record.headers(), body, DEADLINE).await?;
    match reply.status {
        status if status.is_success() => Ok(None),
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            let problem: serde_json::Value = serde_json::from_slice(&reply.body)?;
            let lawful = problem["lawful_regions"].as_array().into_iter().flatten();
            let lawful = lawful.filter_map(|region| region.as_str());
            Ok(Some(lawful.map(RegionId::new).collect::<Result<_, _>>()?))
        }
        status => bail!("{} answered {status}: {}", record.key, reply.excerpt()),
    }
}

/// Waits until every region has what it should, and every leaf is under a checkpoint that the others have cosigned.
pub async fn settled(stage: &Stage) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let Some(waiting) = unsettled(stage).await? else { return Ok(()) };
        ensure!(began.elapsed() < PATIENCE, "{waiting} after {} s", PATIENCE.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}

async fn unsettled(stage: &Stage) -> anyhow::Result<Option<String>> {
    for (region, admin) in &stage.deployment.admins() {
        let backlog: u64 = stage.client.status(*admin).await?.replication.iter().map(|link| link.backlog).sum();
        if backlog > 0 {
            return Ok(Some(format!("{region} still owes its peers {backlog} entries")));
        }
    }
    for (region, admin) in &stage.deployment.admins() {
        let head = stage.client.ledger(*admin).await?;
        let size = head.witnessed.as_deref().and_then(super::gather::size_of).unwrap_or(0);
        if size < head.leaves {
            return Ok(Some(format!("{region} has {} leaves, of which others have cosigned {size}", head.leaves)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sample_record_names_anybody() {
        let records: Vec<SampleRecord> = serde_json::from_str(RECORDS).unwrap();
        let classes: std::collections::BTreeSet<_> = records.iter().map(|record| record.class.as_str()).collect();
        assert!(classes.len() >= 8, "{classes:?}");
        for record in &records {
            let class: model::record::DataClass = record.class.parse().unwrap();
            assert_eq!(record.subject.is_some(), class.is_personal(), "{}", record.key);
            assert!(record.subject.iter().all(|subject| subject.starts_with("s-")), "{}", record.key);
            assert!(!record.value.contains(['@', '+']), "{}", record.key);
        }
    }
}
