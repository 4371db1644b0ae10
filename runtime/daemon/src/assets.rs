//! `assets publish`: puts static files into every region's object store, under names that have their hash in them.
//!
//! What is compressed is compressed now, and not while somebody waits. Files are written to all regions first and the
//! list of them last, so that a page that names a new file finds it in whatever region is asked, and so that a run that
//! fails leaves nothing but files that nobody names. Old files stay: pages that name them are still open somewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use model::RegionId;
use model::region::Region;
use serde::Serialize;

use crate::args::Place;
use crate::deploy::BadConfiguration;

/// The largest file that is published.
const LARGEST: u64 = 512 << 20;
/// The most files of one run.
const MOST: usize = 50_000;
/// What is smaller than this is not compressed: the headers alone are as long.
const SMALLEST_COMPRESSED: usize = 256;
/// Bytes of the hash in a name.
const HASH: usize = 10;
/// Ends of names whose content is worth compressing.
const TEXTS: [&str; 16] = [
    "css",
    "js",
    "mjs",
    "html",
    "htm",
    "txt",
    "md",
    "csv",
    "xml",
    "json",
    "map",
    "webmanifest",
    "wasm",
    "svg",
    "ttf",
    "otf",
];

/// What to do with static files.
#[derive(Clone, Debug, Subcommand)]
pub enum Assets {
    /// Put the files of a folder into every region's object store, under /assets/ with their hash in the name.
    Publish(PublishArgs),
}

/// Flags of `assets publish`.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// The folder.
    pub dir: PathBuf,
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Print the list of what was published as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The list of what was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Manifest {
    version: u32,
    /// By the path in the folder that was published.
    files: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    /// The path to ask for.
    path: String,
    /// Bytes, uncompressed.
    size: usize,
    /// Bytes by coding, where there is a compressed form.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    compressed: BTreeMap<&'static str, usize>,
}

/// Where a region's objects lie: the folder that its file names, else one beside the data of a local deployment.
pub fn local_store(state: &Path, region: &Region) -> PathBuf {
    folder_of(&region.storage).unwrap_or_else(|| state.join(region.id.as_str()).join("objects"))
}

/// The folder of a `file://` URL.
pub fn folder_of(storage: &str) -> Option<PathBuf> {
    storage.strip_prefix("file://").map(PathBuf::from)
}

/// Runs one of the commands.
///
/// # Errors
/// Where a file or a store cannot be used. Nothing names what was written by then.
pub fn run(command: Assets) -> anyhow::Result<ExitCode> {
    match command {
        Assets::Publish(args) => publish(&args),
    }
}

fn publish(args: &PublishArgs) -> anyhow::Result<ExitCode> {
    let stores = stores(&args.place)?;
    let mut names = Vec::new();
    walk(&args.dir, "", &mut names)?;
    names.sort();
    if names.is_empty() {
        bail!("{} holds no files", args.dir.display());
    }
    let mut manifest = Manifest { version: 1, files: BTreeMap::new() };
    for name in names {
        let entry = one(&args.dir, &name, &stores)?;
        manifest.files.insert(name, entry);
    }
    let mut text = serde_json::to_string_pretty(&manifest)?;
    text.push('\n');
    for store in stores.values() {
        put(&store.join("assets/manifest.json"), text.as_bytes(), true)?;
    }
    if args.json {
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    for (name, entry) in &manifest.files {
        let smallest =
            entry.compressed.values().min().map_or_else(String::new, |least| format!(", {least} compressed"));
        println!("{name}: {} ({} bytes{smallest})", entry.path, entry.size);
    }
    let regions: Vec<&str> = stores.keys().map(RegionId::as_str).collect();
    println!("{} files published in {}", manifest.files.len(), regions.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// The stores of all regions, each of which can be written to.
fn stores(place: &Place) -> anyhow::Result<BTreeMap<RegionId, PathBuf>> {
    let regions = config::load(&place.tree).map_err(BadConfiguration)?;
    let state = std::path::absolute(&place.state)?;
    let local = crate::deploy::processes::Deployment::recorded(&state);
    let mut stores = BTreeMap::new();
    for region in regions.by_id.values() {
        if folder_of(&region.storage).is_none() && !local {
            bail!(
                "the object store of {} is {}: files are published to `file://` stores, and to those of a deployment on \
                 this machine, of which {} records none",
                region.id,
                region.storage,
                state.display()
            );
        }
        let store = local_store(&state, region);
        std::fs::create_dir_all(store.join("assets"))
            .with_context(|| format!("the object store of {} cannot be written: {}", region.id, store.display()))?;
        stores.insert(region.id.clone(), store);
    }
    Ok(stores)
}

/// Finds the files below a folder, by path with `/`.
fn walk(dir: &Path, below: &str, names: &mut Vec<String>) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(dir.join(below)).with_context(|| format!("cannot read {}", dir.join(below).display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.~@+".contains(&c);
        let shown = entry.path().display().to_string();
        let Some(name) = name.to_str().filter(|name| name.bytes().all(plain) && name.len() <= 160) else {
            bail!("{shown} cannot be asked for: use letters, digits and - _ . ~ @ + in names, at most 160");
        };
        if name.starts_with('.') {
            bail!("{shown}: names that begin with a dot are not served; take it out of the folder");
        }
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            bail!("{shown} is a link; publish what it leads to");
        } else if kind.is_dir() {
            walk(dir, &path, names)?;
        } else {
            names.push(path);
        }
        if names.len() > MOST {
            bail!("{} holds more than {MOST} files", dir.display());
        }
    }
    Ok(())
}

/// Writes one file and its compressed forms into every store.
fn one(dir: &Path, name: &str, stores: &BTreeMap<RegionId, PathBuf>) -> anyhow::Result<Entry> {
    let path = dir.join(name);
    let about = std::fs::metadata(&path)?;
    if about.len() > LARGEST {
        bail!("{} has {} bytes; at most {LARGEST} are published", path.display(), about.len());
    }
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let hashed = hashed(name, &bytes);
    let forms = compressed(name, &bytes)?;
    for store in stores.values() {
        put(&store.join("assets").join(&hashed), &bytes, false)?;
        for (coding, form) in &forms {
            put(&store.join(format!("assets.{coding}")).join(&hashed), form, false)?;
        }
    }
    let compressed = forms.iter().map(|(coding, form)| (*coding, form.len())).collect();
    Ok(Entry { path: format!("/assets/{hashed}"), size: bytes.len(), compressed })
}

/// `css/app.css` with the hash of its content: `css/app.0123456789abcdef0123.css`.
fn hashed(name: &str, bytes: &[u8]) -> String {
    let hash: String = blake3::hash(bytes).as_bytes()[..HASH].iter().map(|byte| format!("{byte:02x}")).collect();
    let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, file)| (folder, file));
    let file = match file.rsplit_once('.') {
        Some((stem, end)) => format!("{stem}.{hash}.{end}"),
        None => format!("{file}.{hash}"),
    };
    if folder.is_empty() { file } else { format!("{folder}/{file}") }
}

/// The compressed forms that are smaller by a tenth at least; all of them or none, so that clients are told apart only
/// where it is for something.
fn compressed(name: &str, bytes: &[u8]) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let text = name.rsplit_once('.').is_some_and(|(_, end)| TEXTS.contains(&end.to_ascii_lowercase().as_str()));
    if !text || bytes.len() < SMALLEST_COMPRESSED {
        return Ok(Vec::new());
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes)?;
    let mut br = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams { quality: 11, size_hint: bytes.len(), ..Default::default() };
    let mut rest = bytes;
    brotli::BrotliCompress(&mut rest, &mut br, &parameters)?;
    let forms = vec![("br", br), ("gzip", gzip.finish()?), ("zstd", zstd::bulk::compress(bytes, 19)?)];
    let smaller = forms.iter().all(|(_, form)| form.len() <= bytes.len() / 10 * 9);
    Ok(if smaller { forms } else { Vec::new() })
}

/// Writes a file in one step, so that a reader sees all of it or nothing, and it is there after a power cut. One whose
/// name has its hash is left alone where it is there.
fn put(path: &Path, bytes: &[u8], replace: bool) -> anyhow::Result<()> {
    if !replace && std::fs::metadata(path).is_ok_and(|about| about.len() == bytes.len() as u64) {
        return Ok(());
    }
    let folder = path.parent().context("a file lies in a folder")?;
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut beside = tempfile::NamedTempFile::new_in(folder)?;
        beside.write_all(bytes)?;
        // Whoever runs the region must be able to read it; it is for everybody.
        beside.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        beside.as_file().sync_all()?;
        beside.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_content_has_another_name_and_the_same_one_the_same() {
        assert_eq!(hashed("css/app.css", b"a"), hashed("css/app.css", b"a"));
        assert_ne!(hashed("css/app.css", b"a"), hashed("css/app.css", b"b"));
        let name = hashed("css/app.min.css", b"a");
        assert!(
            name.starts_with("css/app.min.") && name.ends_with(".css") && name.len() == "css/app.min..css".len() + 20
        );
        assert_eq!(hashed("LICENSE", b"a").len(), "LICENSE.".len() + 20);
    }

    #[test]
    fn what_gains_nothing_is_not_compressed() {
        let text = "body { color: red; }\n".repeat(100);
        let forms = compressed("a.css", text.as_bytes()).unwrap();
        assert_eq!(forms.iter().map(|(coding, _)| *coding).collect::<Vec<_>>(), ["br", "gzip", "zstd"]);
        assert!(forms.iter().all(|(_, form)| form.len() < text.len() / 2));
        assert!(compressed("a.png", text.as_bytes()).unwrap().is_empty());
        assert!(compressed("a.css", b"short").unwrap().is_empty());
        let noise: Vec<u8> =
            (0..4000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
        assert!(compressed("a.json", &noise).unwrap().is_empty());
    }
}
