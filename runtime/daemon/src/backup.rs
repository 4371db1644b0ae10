//! `repomind-run backup`: backups of the regions, each in the object store of its own region and in no other.
//!
//! Making one is asked of the running region. Listing and verifying read the store alone. Putting one back is done while
//! the region does not run; at its next start it begins a new incarnation, and the other regions give it what it lacks.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use data::backup::{BackupContent, BackupState};
use model::RegionId;
use model::backup::{BackupId, BackupList};
use model::region::{Region, Regions};
use serde_json::{Value, json};
use store::objects::{FileObjects, ObjectStore};

use crate::args::{EachRegion, FINDING, Place};
use crate::client::Client;
use crate::deploy::BadConfiguration;

/// How long a region may take to make one.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Backup {
    /// Make a backup of a running region: all of its records as of one moment. What earlier ones have is not written again.
    Create(EachRegion),
    /// The backups in the regions' object stores, oldest first.
    List(EachRegion),
    /// Put a backup back in a folder that is thrown away, and compare what comes of it; 1 where it is not whole.
    Verify {
        #[command(flatten)]
        each: EachRegion,
        /// The backup; the newest unless named.
        #[arg(long)]
        backup: Option<BackupId>,
    },
    /// Put a backup back in the place of the data of a region that does not run. That data is moved aside.
    Restore {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// The region.
        #[arg(long)]
        region: RegionId,
        /// The backup; the newest unless named.
        #[arg(long, conflicts_with = "at")]
        backup: Option<BackupId>,
        /// The newest backup that was made no later, in ms since 1970, as stamps begin.
        #[arg(long, value_name = "MILLISECONDS")]
        at: Option<u64>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// Where a region did not answer, or a store cannot be used.
pub async fn run(command: Backup) -> anyhow::Result<ExitCode> {
    match command {
        Backup::Create(each) => create(&each).await,
        Backup::List(each) => list(&each),
        Backup::Verify { each, backup } => verify(&each, backup.as_ref()),
        Backup::Restore { place, region, backup, at, json } => restore(&place, &region, (backup, at), json),
    }
}

async fn create(EachRegion { place, region, json }: &EachRegion) -> anyhow::Result<ExitCode> {
    let (deployment, client) = (crate::status::at(place)?, Client::new(&place.state)?);
    let mut all = serde_json::Map::new();
    for (id, addresses) in deployment.chosen(region.as_ref())? {
        let begun = client.post::<BackupState>(addresses.admin, "/backups", &(), Duration::from_secs(10)).await;
        let begun = begun.with_context(|| format!("{id} was not backed up"))?;
        let Ok(mut state) = begun else { bail!("{id} was not backed up") };
        let (number, waited) = (state.begun, std::time::Instant::now());
        while state.running && state.begun == number {
            if waited.elapsed() > PATIENCE {
                bail!("{id} is still being backed up after {} hours", PATIENCE.as_secs() / 3600);
            }
            tokio::time::sleep(LOOK).await;
            state = client.get_admin(addresses.admin, "/backups").await.with_context(|| format!("{id} was asked"))?;
        }
        let Some(made) = state.made else {
            bail!("{id} was not backed up: {}", state.failed.as_deref().unwrap_or("it does not say why"));
        };
        if !*json {
            println!(
                "{id}: {}, {} rows, {} bytes in {} pieces, of which {} bytes in {} are new",
                made.id, made.rows, made.bytes, made.pieces, made.new_bytes, made.new_pieces
            );
        }
        all.insert(id.to_string(), serde_json::to_value(made)?);
    }
    if *json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder of a region's object store, to be read.
fn store_of(place: &Place, region: &Region) -> FileObjects {
    FileObjects::read_only(&crate::assets::local_store(&place.state, region))
}

fn chosen<'r>(regions: &'r Regions, only: Option<&RegionId>) -> anyhow::Result<Vec<&'r Region>> {
    let all: Vec<&Region> =
        regions.by_id.values().filter(|region| only.is_none_or(|only| *only == region.id)).collect();
    match only {
        Some(only) if all.is_empty() => bail!("no region is called {only}"),
        _ => Ok(all),
    }
}

fn list(EachRegion { place, region: only, json }: &EachRegion) -> anyhow::Result<ExitCode> {
    let regions = config::load(&place.tree).map_err(BadConfiguration)?;
    let mut all = serde_json::Map::new();
    for region in chosen(&regions, only.as_ref())? {
        let store = store_of(place, region);
        let mut backups = Vec::new();
        for id in data::backup::list(&store)? {
            let shown = match data::backup::read(&store, &id) {
                Ok(list) => told(&id, &list),
                Err(error) => json!({ "id": id.to_string(), "error": error.to_string() }),
            };
            if !*json {
                match shown.get("error") {
                    Some(error) => println!("{}: {id}, not readable: {error}", region.id),
                    None => println!("{}: {id}, {} rows, {} chunks", region.id, shown["rows"], shown["chunks"]),
                }
            }
            backups.push(shown);
        }
        all.insert(region.id.to_string(), backups.into());
    }
    if *json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn told(id: &BackupId, list: &BackupList) -> Value {
    let rows: u64 = list.spaces.get("rows").into_iter().flatten().map(|part| part.pairs).sum();
    json!({
        "id": id.to_string(), "region": list.region, "made_at": list.made_at, "stamp": list.stamp.to_string(),
        "generation": list.generation, "rows": rows, "chunks": list.chunks.len(),
    })
}

fn verify(EachRegion { place, region: only, json }: &EachRegion, id: Option<&BackupId>) -> anyhow::Result<ExitCode> {
    let regions = config::load(&place.tree).map_err(BadConfiguration)?;
    let (mut all, mut good) = (serde_json::Map::new(), true);
    for region in chosen(&regions, only.as_ref())? {
        let store = store_of(place, region);
        let newest = data::backup::list(&store)?.pop();
        let Some(id) = id.cloned().or(newest) else {
            good = false;
            if !*json {
                println!("{}: there is no backup", region.id);
            }
            all.insert(region.id.to_string(), json!({ "error": "there is no backup" }));
            continue;
        };
        let scratch = tempfile::tempdir().context("a folder to put it back in")?;
        let found = match data::backup::verify(&store, &id, &region.id, scratch.path()) {
            Ok(BackupContent { rows, chunks, bytes }) => {
                if !*json {
                    println!("{}: {id} is whole: {rows} rows, {chunks} chunks, {bytes} bytes", region.id);
                }
                json!({ "id": id.to_string(), "rows": rows, "chunks": chunks, "bytes": bytes })
            }
            Err(error) => {
                good = false;
                if !*json {
                    println!("{}: {id}: {error}", region.id);
                }
                json!({ "id": id.to_string(), "error": error.to_string() })
            }
        };
        all.insert(region.id.to_string(), found);
    }
    if *json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

fn restore(
    place: &Place,
    id: &RegionId,
    (backup, at): (Option<BackupId>, Option<u64>),
    json: bool,
) -> anyhow::Result<ExitCode> {
    let regions = config::load(&place.tree).map_err(BadConfiguration)?;
    let region = regions.by_id.get(id).with_context(|| format!("no region is called {id}"))?;
    let folder = place.state.join(&region.data_dir);
    let data = folder.join("data");
    if let Some(pid) = crate::deploy::state::holder(&data.join("lock")) {
        bail!("{id} runs as process {pid}: end it first, for its data is replaced");
    }
    let objects = crate::assets::local_store(&place.state, region);
    let store = FileObjects::read_only(&objects);
    let chosen = match backup {
        Some(backup) => backup,
        None => newest(&store, at)?.with_context(|| match at {
            Some(at) => format!("no backup of {id} in {} was made by {at}", objects.display()),
            None => format!("there is no backup of {id} in {}", objects.display()),
        })?,
    };
    let list = data::backup::read(&store, &chosen)?;
    let (fresh, aside) = (folder.join("data.restoring"), aside(&folder)?);
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).with_context(|| format!("{} is in the way", fresh.display()))?;
    }
    std::fs::create_dir_all(&fresh).with_context(|| format!("{} cannot be made", fresh.display()))?;
    let writable = FileObjects::open(&objects)?;
    let chunks: &dyn ObjectStore = &writable;
    let content = data::backup::put_back(&store, &list, id, &fresh, Some(chunks))?;
    // Only now, when all of it is there.
    if data.exists() {
        std::fs::rename(&data, &aside).with_context(|| format!("{} cannot be moved aside", data.display()))?;
    }
    std::fs::rename(&fresh, &data).with_context(|| format!("{} cannot be put in place", fresh.display()))?;
    std::fs::File::open(&folder)?.sync_all()?;
    let BackupContent { rows, chunks, bytes } = content;
    if json {
        let told = json!({ "region": id, "id": chosen.to_string(), "rows": rows, "chunks": chunks, "bytes": bytes });
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        println!("{id}: {chosen} was put back: {rows} rows, {chunks} chunks, {bytes} bytes");
        println!(
            "start {id}: it begins a new incarnation, and the other regions give it what was written and deleted since"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest backup, of those made no later than `at` where that is given.
fn newest(store: &dyn ObjectStore, at: Option<u64>) -> anyhow::Result<Option<BackupId>> {
    let mut ids = data::backup::list(store)?;
    while let Some(id) = ids.pop() {
        match at {
            Some(at) if data::backup::read(store, &id)?.made_at.0 > at => {}
            _ => return Ok(Some(id)),
        }
    }
    Ok(None)
}

/// Where the data of before goes: a folder that is not there yet.
fn aside(folder: &Path) -> anyhow::Result<PathBuf> {
    for number in 1..10_000 {
        let aside = folder.join(format!("data.before-restore-{number}"));
        if !aside.exists() {
            return Ok(aside);
        }
    }
    bail!(
        "{} holds the data of thousands of restores: look through it, and delete what is not needed",
        folder.display()
    )
}
