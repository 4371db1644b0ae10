//! What a drill does to one region, and how it is undone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use model::RegionId;
use model::status::Cut;
use net::wan::LinkShape;
use rustix::process::Signal;
use serde::Serialize;

use super::super::Stage;
use crate::deploy::processes::{self, Role, Started};

/// One thing that goes wrong with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// All its processes are killed with SIGKILL, and started again.
    Kill,
    /// Nothing passes between it and the other regions.
    BlackHole,
    /// It hears nobody; the others hear it.
    Deaf,
    /// Nobody hears it; it hears the others.
    Mute,
    /// Everything between it and the others takes so many milliseconds longer, each way.
    Slow(u32),
    /// It is cut off and back, again and again.
    Flapping,
    /// Its daemon stands still (SIGSTOP), and goes on where it was.
    Pause,
}

/// A flapping region is cut off for so long, then back for as long.
const FLAP: Duration = Duration::from_millis(1500);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill"),
            Self::BlackHole => f.write_str("black-hole"),
            Self::Deaf => f.write_str("deaf"),
            Self::Mute => f.write_str("mute"),
            Self::Slow(ms) => write!(f, "slow by {ms} ms"),
            Self::Flapping => f.write_str("flapping"),
            Self::Pause => f.write_str("pause"),
        }
    }
}

impl Fault {
    /// In words, with the region.
    pub fn sentence(self, region: &RegionId) -> String {
        match self {
            Self::Kill => format!("{region} is killed"),
            Self::BlackHole => format!("nothing passes between {region} and the others"),
            Self::Deaf => format!("{region} hears nobody, and the others hear it"),
            Self::Mute => format!("nobody hears {region}, and it hears the others"),
            Self::Slow(ms) => format!("all that {region} sends or is sent takes {ms} ms longer"),
            Self::Flapping => format!("{region} is cut off and back every {} ms", FLAP.as_millis()),
            Self::Pause => format!("the daemon of {region} stands still"),
        }
    }

    /// Whether the others have to do without the region while it lasts.
    pub const fn takes_out(self) -> bool {
        !matches!(self, Self::Slow(_) | Self::Flapping)
    }

    /// Whether links have to be emulated for it.
    pub const fn needs_links(self) -> bool {
        !matches!(self, Self::Kill | Self::Pause)
    }
}

/// The links between one region and the others, as they were before: by the region that dials, then by the peer.
pub type Links = BTreeMap<RegionId, BTreeMap<RegionId, LinkShape>>;

/// A fault that lasts until it is ended.
pub struct Lasting {
    fault: Fault,
    victim: RegionId,
    before: Links,
    doomed: Vec<Started>,
}

impl Lasting {
    /// Finds out what the fault is done to. Nothing is done yet.
    ///
    /// # Errors
    /// Where it cannot be done here.
    pub async fn prepare(stage: &Stage, fault: Fault, victim: &RegionId) -> anyhow::Result<Self> {
        let mut before = Links::new();
        if fault.needs_links() {
            for (region, addresses) in &stage.deployment.regions {
                let shapes = stage.client.links(addresses.admin).await?;
                if shapes.is_empty() {
                    bail!(
                        "{region} emulates no links, so none can be cut or made slower: deploy with `--wan realistic` or \
                         `--wan lan`, or ask for `--fault kill,pause`"
                    );
                }
                before.insert(region.clone(), shapes);
            }
        }
        let ours = stage.deployment.started.iter().filter(|process| process.region == *victim);
        let doomed: Vec<Started> = match fault {
            Fault::Kill => ours.cloned().collect(),
            Fault::Pause => ours.filter(|process| process.role == Role::Daemon).cloned().collect(),
            _ => Vec::new(),
        };
        if matches!(fault, Fault::Kill | Fault::Pause) && doomed.is_empty() {
            bail!("no recorded process of {victim} runs");
        }
        Ok(Self { fault, victim: victim.clone(), before, doomed })
    }

    /// Begins it.
    pub async fn begin(&self, stage: &Stage) -> anyhow::Result<()> {
        match self.fault {
            Fault::Kill => self.signal(Signal::KILL),
            Fault::Pause => self.signal(Signal::STOP),
            Fault::BlackHole | Fault::Flapping => return self.cut(stage, Cut::Both, Cut::Both).await,
            Fault::Deaf => return self.cut(stage, Cut::In, Cut::Out).await,
            Fault::Mute => return self.cut(stage, Cut::Out, Cut::In).await,
            Fault::Slow(more) => {
                for (region, peer, shape) in self.links() {
                    let delay = (shape.delay_ms + f64::from(more)).min(net::wan::LONGEST_MS);
                    set(stage, region, peer, &serde_json::json!({ "peer": peer, "delay_ms": delay })).await?;
                }
            }
        }
        Ok(())
    }

    /// Lets it last for `outage`.
    pub async fn last(&self, stage: &Stage, outage: Duration) -> anyhow::Result<()> {
        if self.fault != Fault::Flapping {
            tokio::time::sleep(outage).await;
            return Ok(());
        }
        let until = tokio::time::Instant::now() + outage;
        loop {
            tokio::time::sleep(FLAP).await;
            self.cut(stage, Cut::None, Cut::None).await?;
            if tokio::time::Instant::now() >= until {
                return Ok(());
            }
            tokio::time::sleep(FLAP).await;
            self.cut(stage, Cut::Both, Cut::Both).await?;
        }
    }

    /// Ends it: from here on the region may come back.
    pub async fn end(self, stage: &mut Stage) -> anyhow::Result<()> {
        match self.fault {
            Fault::Kill => {
                if !processes::gone(&self.doomed, Duration::from_secs(5)).await {
                    bail!("{} does not end, although it was killed", self.victim);
                }
                for process in self.doomed {
                    let again = Started::spawn(process.role, &process.region, process.command, &process.log)?;
                    stage.deployment.record(again);
                    stage.deployment.write(&stage.place.state)?;
                }
            }
            Fault::Pause => self.signal(Signal::CONT),
            _ => restore(stage, &self.before).await?,
        }
        Ok(())
    }

    /// What the links were before; empty where none is touched.
    pub const fn before(&self) -> &Links {
        &self.before
    }

    fn signal(&self, signal: Signal) {
        for process in &self.doomed {
            process.signal(signal);
        }
    }

    /// The links that the victim dials, and those that lead to it.
    fn links(&self) -> impl Iterator<Item = (&RegionId, &RegionId, &LinkShape)> {
        self.before
            .iter()
            .flat_map(|(region, peers)| peers.iter().map(move |(peer, shape)| (region, peer, shape)))
            .filter(|(region, peer, _)| (**region == self.victim || **peer == self.victim) && region != peer)
    }

    /// Cuts the links that the victim dials one way, and those that lead to it another.
    async fn cut(&self, stage: &Stage, its: Cut, others: Cut) -> anyhow::Result<()> {
        for (region, peer, _) in self.links() {
            let cut = if *region == self.victim { its } else { others };
            set(stage, region, peer, &serde_json::json!({ "peer": peer, "cut": cut })).await?;
        }
        Ok(())
    }
}

/// Makes all links what they were.
///
/// # Errors
/// Where a region does not take one back, after the others were tried.
pub async fn restore(stage: &Stage, before: &Links) -> anyhow::Result<()> {
    let mut failed = None;
    for (region, peers) in before {
        for (peer, shape) in peers {
            let LinkShape { delay_ms, jitter_ms, loss, cut } = shape;
            let body = serde_json::json!({
                "peer": peer, "delay_ms": delay_ms, "jitter_ms": jitter_ms, "loss": loss, "cut": cut,
            });
            if let Err(error) = set(stage, region, peer, &body).await {
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn set(stage: &Stage, region: &RegionId, peer: &RegionId, body: &serde_json::Value) -> anyhow::Result<()> {
    let admin = stage.deployment.regions.get(region).context("a region without addresses")?.admin;
    stage.client.set_link(admin, body).await.with_context(|| format!("the link from {region} to {peer}"))
}
