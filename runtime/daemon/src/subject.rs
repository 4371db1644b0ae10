//! `repomind-run subject`: erasure, access and legal holds, over all regions.
//!
//! An order goes to one region and reaches the others by itself. An erasure ends in a certificate: the order, the signed
//! acknowledgement of every region, and for each the proof that the leaf which tells of it is in its ledger, under a
//! checkpoint that other regions have cosigned. What is missing is said, and makes the exit code 1.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use compliance::audit::tree;
use compliance::ledger::merkle::leaf_hash;
use compliance::ledger::{Checkpoint, LedgerEvent, inclusion_proof, note::Note, read_leaf};
use http::Method;
use model::RegionId;
use model::names::Subject;
use model::region::Addresses;
use serde_json::{Value, json};

use crate::args::{FINDING, Place};
use crate::client::{Client, reason};
use crate::deploy::processes::Deployment;

/// How long one region may take to answer: an erasure reads all its rows.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long the other regions may take to cosign a leaf.
const COSIGNED: Duration = Duration::from_secs(20);

/// What every step takes.
#[derive(Clone, Debug, Args)]
pub struct About {
    /// The pseudonym, as in `Repomind-Subject`.
    pub subject: Subject,
    /// Where.
    #[command(flatten)]
    pub place: Place,
}

/// The steps.
#[derive(Clone, Debug, Subcommand)]
pub enum SubjectStep {
    /// Destroy the person's keys and delete every record about the person, in every region.
    Erase {
        /// Who.
        #[command(flatten)]
        about: About,
        /// Seconds to wait for every region; what is missing then goes on by itself.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
        within: u64,
        /// Write the certificate to this file.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Collect every record about the person from every region, in JSON.
    Export {
        /// Who.
        #[command(flatten)]
        about: About,
        /// Write it to this file.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Begin a legal hold: nothing about the person is deleted, written over or erased until it ends.
    Hold {
        /// Who.
        #[command(flatten)]
        about: About,
        /// What the hold is called.
        #[arg(long)]
        name: String,
        /// End it instead.
        #[arg(long)]
        release: bool,
    },
    /// Say what every region has about the person, which holds stand, and how far orders are.
    Report {
        /// Who.
        #[command(flatten)]
        about: About,
    },
}

/// Runs a step.
///
/// # Errors
/// Where nothing could be asked.
pub async fn run(step: SubjectStep) -> anyhow::Result<ExitCode> {
    match step {
        SubjectStep::Erase { about, within, output } => erase(&about, Duration::from_secs(within), output).await,
        SubjectStep::Export { about, output } => export(&about, output).await,
        SubjectStep::Hold { about, name, release } => hold(&about, &name, release).await,
        SubjectStep::Report { about } => report(&about).await,
    }
}

/// A deployment and who is asked about.
struct Desk {
    client: Client,
    deployment: Deployment,
    subject: Subject,
}

impl Desk {
    fn open(about: &About) -> anyhow::Result<Self> {
        let (deployment, client) = (crate::status::at(&about.place)?, Client::new(&about.place.state)?);
        Ok(Self { client, deployment, subject: about.subject.clone() })
    }

    async fn ask(&self, at: &Addresses, method: Method, rest: &str) -> anyhow::Result<Value> {
        let path = format!("/v1/subjects/{}{rest}", self.subject);
        let reply = self.client.send(method, at.gateway, &path, &[], Bytes::new(), PATIENCE).await?;
        ensure!(reply.status.is_success(), "{}", reason(&reply));
        serde_json::from_slice(&reply.body).context("the answer is no JSON")
    }

    /// Asks the primary or, where that does not answer, any other region.
    async fn order(&self, method: Method, rest: &str) -> anyhow::Result<Value> {
        let primary = self.deployment.regions.get_key_value(&self.deployment.primary);
        let others = self.deployment.regions.iter().filter(|(id, _)| **id != self.deployment.primary);
        let mut last = None;
        for (id, at) in primary.into_iter().chain(others) {
            if self.client.ready(at.admin).await.is_err() {
                last.get_or_insert_with(|| format!("{id} does not serve"));
                continue;
            }
            return self.ask(at, method, rest).await;
        }
        bail!("no region takes the order: {}", last.unwrap_or_default())
    }
}

fn print(value: &Value, output: Option<&PathBuf>) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    match output {
        Some(path) => std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display())),
        None => {
            println!("{text}");
            Ok(())
        }
    }
}

fn order_of(progress: &Value) -> anyhow::Result<String> {
    progress["order"].as_str().map(str::to_owned).context("the answer names no order")
}

async fn erase(about: &About, within: Duration, output: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(about)?;
    let (began, mut progress) = (Instant::now(), desk.order(Method::POST, "/erase").await?);
    let order = order_of(&progress)?;
    while progress["state"] != "complete" && began.elapsed() < within {
        tokio::time::sleep(LOOK).await;
        let report = desk.order(Method::GET, "").await?;
        let orders = report["orders"].as_array().into_iter().flatten();
        progress = orders.into_iter().find(|known| known["order"] == order.as_str()).cloned().unwrap_or(progress);
    }
    if progress["state"] != "complete" {
        eprintln!("pending: {} has not been acknowledged by {}; it goes on by itself", order, progress["missing"]);
        print(&progress, None)?;
        return Ok(ExitCode::from(FINDING));
    }
    let certificate = certificate(&desk, &order, progress).await?;
    if let Some(path) = &output {
        println!("erased in every region; the certificate is in {}", path.display());
    }
    print(&certificate, output.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

/// What shows that the order was carried out in every region, each proof verified by other code than made it.
async fn certificate(desk: &Desk, order: &str, progress: Value) -> anyhow::Result<Value> {
    let mut proofs = BTreeMap::new();
    for (region, at) in &desk.deployment.regions {
        let began = Instant::now();
        let proof = loop {
            let dump = desk.client.evidence(at.admin, false).await?;
            match proof(region, order, &dump)? {
                Some(proof) => break proof,
                None => ensure!(began.elapsed() < COSIGNED, "no checkpoint of {region} covers its acknowledgement yet"),
            }
            tokio::time::sleep(LOOK).await;
        };
        proofs.insert(region.to_string(), proof);
    }
    Ok(json!({ "certificate": "repomind-erasure/1", "progress": progress, "ledgers": proofs }))
}

/// The proof out of one region's leaves; nothing where no checkpoint covers the leaf yet.
fn proof(region: &RegionId, order: &str, dump: &net::evidence::Dump) -> anyhow::Result<Option<Value>> {
    let tells = |bytes: &Vec<u8>| match read_leaf(bytes).map(|leaf| leaf.event) {
        Ok(LedgerEvent::Petition { order: id, word, .. }) => id.to_string() == order && word == "erase",
        _ => false,
    };
    let Some(index) = dump.leaves.iter().position(tells) else { return Ok(None) };
    let Some(text) = &dump.checkpoint else { return Ok(None) };
    let checkpoint = Checkpoint::parse(Note::parse(text)?.text())?;
    let size = usize::try_from(checkpoint.size)?;
    if index >= size || size > dump.leaves.len() {
        return Ok(None);
    }
    let hashes: Vec<_> = dump.leaves[..size].iter().map(|leaf| leaf_hash(leaf)).collect();
    let proof = inclusion_proof(hashes.as_slice(), index as u64, checkpoint.size)
        .map_err(|error| anyhow::anyhow!("{region}: {error}"))?;
    let path: Vec<tree::Hash> = proof.iter().map(|hash| hash.0).collect();
    let root = tree::root_from(tree::leaf(&dump.leaves[index]), index as u64, checkpoint.size, &path);
    ensure!(root == Some(checkpoint.root.0), "the ledger of {region} does not prove its acknowledgement");
    Ok(Some(json!({
        "leaf": index, "bytes": tree::hex(&dump.leaves[index]),
        "proof": path.iter().map(|hash| tree::hex(hash)).collect::<Vec<_>>(), "checkpoint": text,
    })))
}

async fn export(about: &About, output: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(about)?;
    let order = order_of(&desk.order(Method::POST, "/export").await?)?;
    let (mut regions, mut missing) = (BTreeMap::new(), BTreeMap::new());
    for (id, at) in &desk.deployment.regions {
        let began = Instant::now();
        let given = loop {
            match desk.ask(at, Method::GET, &format!("/export?order={order}")).await {
                // The order has to reach it first.
                Err(_) if began.elapsed() < Duration::from_secs(5) => tokio::time::sleep(LOOK).await,
                given => break given,
            }
        };
        match given {
            Ok(given) if given["not_opened"].as_array().is_some_and(Vec::is_empty) => {
                regions.insert(id.to_string(), given);
            }
            Ok(given) => {
                missing.insert(id.to_string(), json!("some values could not be opened"));
                regions.insert(id.to_string(), given);
            }
            Err(error) => {
                missing.insert(id.to_string(), json!(format!("{error:#}")));
            }
        }
    }
    let complete = missing.is_empty();
    let export = json!({
        "export": "repomind-export/1", "subject": desk.subject.as_str(), "order": order, "complete": complete,
        "missing": missing, "regions": regions,
    });
    print(&export, output.as_ref())?;
    if let Some(path) = &output {
        println!("{}; the export is in {}", if complete { "complete" } else { "incomplete" }, path.display());
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

async fn hold(about: &About, name: &str, release: bool) -> anyhow::Result<ExitCode> {
    let method = if release { Method::DELETE } else { Method::PUT };
    print(&Desk::open(about)?.order(method, &format!("/holds/{name}")).await?, None)?;
    Ok(ExitCode::SUCCESS)
}

async fn report(about: &About) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(about)?;
    let (mut regions, mut all) = (BTreeMap::new(), true);
    for (id, at) in &desk.deployment.regions {
        let said = desk.ask(at, Method::GET, "").await;
        all &= said.is_ok();
        regions.insert(id.to_string(), said.unwrap_or_else(|error| json!({ "unreached": format!("{error:#}") })));
    }
    print(&json!({ "subject": desk.subject.as_str(), "complete": all, "regions": regions }), None)?;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}
