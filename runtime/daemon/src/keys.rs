//! `repomind-run keys`: the region keys of a running deployment. No key is ever shown.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use model::RegionId;
use net::{KeyHead, Rotated};

use crate::args::{EachRegion, Place};
use crate::client::Client;

/// Every data key is wrapped anew meanwhile.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Keys {
    /// The names of every region's key, and when it was made.
    List {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a new region key, wrap every data key with it, and destroy the one before.
    Rotate(EachRegion),
}

/// Runs a subcommand.
///
/// # Errors
/// Where a region did not answer.
pub async fn run(command: Keys) -> anyhow::Result<ExitCode> {
    match command {
        Keys::List { place, json } => list(&place, json).await,
        Keys::Rotate(EachRegion { place, region, json }) => rotate(&place, region.as_ref(), json).await,
    }
}

async fn list(place: &Place, json: bool) -> anyhow::Result<ExitCode> {
    let (deployment, client) = (crate::status::at(place)?, Client::new(&place.state)?);
    let mut all = serde_json::Map::new();
    for (region, addresses) in &deployment.regions {
        let keys: Vec<KeyHead> = client.get_admin(addresses.admin, "/keys").await?;
        for key in keys.iter().filter(|_| !json) {
            println!("{region}: {}, made {} ms after 1970", key.id, key.made_at);
        }
        all.insert(region.to_string(), serde_json::to_value(keys)?);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(ExitCode::SUCCESS)
}

async fn rotate(place: &Place, region: Option<&RegionId>, json: bool) -> anyhow::Result<ExitCode> {
    let (deployment, client) = (crate::status::at(place)?, Client::new(&place.state)?);
    let mut all = serde_json::Map::new();
    for (id, addresses) in deployment.chosen(region)? {
        let rotated = client.post::<Rotated>(addresses.admin, "/keys/rotate", &(), PATIENCE).await;
        let rotated = rotated.with_context(|| format!("the key of {id} was not rotated"))?;
        let Ok(rotated) = rotated else { bail!("the key of {id} was not rotated") };
        if !json {
            println!("{id}: region key {}, {} data keys wrapped with it", rotated.region_key.id, rotated.data_keys);
        }
        all.insert(id.to_string(), serde_json::to_value(rotated)?);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(ExitCode::SUCCESS)
}
