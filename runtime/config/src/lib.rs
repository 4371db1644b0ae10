//! Reads the region files, `region-config/*.yml`, and [`cloudflare`], which says where the edge is deployed.
//!
//! Every file describes one region; its stem is the region's id. All mistakes
//! of all files are reported in one go, each at its line and column with a
//! remedy, and one mistake anywhere refuses the whole tree: there is no half
//! configuration. Files below `region-config/available/` are read only where they are asked for, by [`load_with`].
//!
//! This crate opens no socket and asks no clock; only [`load`] touches files.
//! Start with [`load_from`].

mod check;
mod cloud;
pub mod cloudflare;
mod file;
mod one_address;
mod url;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;

use model::Finding;
use model::region::Regions;

use crate::yaml::Source;

pub use one_address::{BLOCK, FIRST_PORT, NoRoom, on_one_address};

/// The folder of the region files, below the tree's root.
pub const FOLDER: &str = "region-config";

/// The folder of files that lie ready, below [`FOLDER`].
const AVAILABLE: &str = "available";

/// A region file is a page; more than this is some other file.
const LARGEST_FILE: u64 = 256 * 1024;

/// Reads `tree/region-config/*.yml` and checks the files together.
///
/// # Errors
/// Every mistake of every file, in the order of files and lines.
pub fn load(tree: &Path) -> Result<Regions, Vec<Finding>> {
    let mut files = BTreeMap::new();
    let mut findings = Vec::new();
    match names(&tree.join(FOLDER)) {
        Ok(names) => {
            for name in names {
                let file = format!("{FOLDER}/{name}");
                match read(&tree.join(FOLDER).join(&name)) {
                    Ok(text) => drop(files.insert(file, text)),
                    Err(why) => findings.push(nowhere(&file, why, "see that it is a readable file of UTF-8 text")),
                }
            }
        }
        Err(error) => {
            let help = format!("run in the tree that holds {FOLDER}/, or name it with `--tree`");
            return Err(vec![nowhere(FOLDER, format!("the folder cannot be read: {error}"), help)]);
        }
    }
    let unread = findings.iter().map(|finding| finding.file.clone()).collect::<Vec<_>>();
    check_all(&files, &unread, findings)
}

/// The ids of the regions that lie ready in `tree/region-config/available/` and are not in use, sorted.
pub fn available(tree: &Path) -> Vec<String> {
    let used = names(&tree.join(FOLDER)).unwrap_or_default();
    let ready = names(&tree.join(FOLDER).join(AVAILABLE)).unwrap_or_default();
    let free = ready.into_iter().filter(|name| name.ends_with(".yml") && !used.contains(name));
    free.filter_map(|name| name.strip_suffix(".yml").map(str::to_owned)).collect()
}

/// As [`load`], with some of the regions that lie ready as if their files had been copied up.
///
/// # Errors
/// Every mistake of every file; what is wrong with one that lies ready names it where it lies.
pub fn load_with(tree: &Path, more: &[String]) -> Result<Regions, Vec<Finding>> {
    if more.is_empty() {
        return load(tree);
    }
    let mut files = BTreeMap::new();
    let mut findings = Vec::new();
    let used = names(&tree.join(FOLDER)).unwrap_or_default();
    let used = used.into_iter().map(|name| (format!("{FOLDER}/{name}"), tree.join(FOLDER).join(name)));
    let lies = |id: &String| format!("{FOLDER}/{AVAILABLE}/{id}.yml");
    let ready = more.iter().map(|id| (format!("{FOLDER}/{id}.yml"), tree.join(lies(id))));
    for (file, path) in used.chain(ready) {
        match read(&path) {
            Ok(text) => drop(files.insert(file, text)),
            Err(why) => findings.push(nowhere(&file, why, "see that it is a readable file of UTF-8 text")),
        }
    }
    let unread = findings.iter().map(|finding| finding.file.clone()).collect::<Vec<_>>();
    check_all(&files, &unread, findings).map_err(|mut findings| {
        for finding in &mut findings {
            let id = more.iter().find(|id| finding.file == format!("{FOLDER}/{id}.yml"));
            finding.file = id.map_or_else(|| finding.file.clone(), lies);
        }
        findings
    })
}

/// Checks region files given as path to text. Only `.yml` files that lie
/// directly in `region-config/` (or have no folder at all) are looked at.
///
/// # Errors
/// Every mistake of every file, in the order of files and lines.
pub fn load_from(files: &BTreeMap<String, String>) -> Result<Regions, Vec<Finding>> {
    check_all(files, &[], Vec::new())
}

fn check_all(
    files: &BTreeMap<String, String>,
    unread: &[String],
    mut findings: Vec<Finding>,
) -> Result<Regions, Vec<Finding>> {
    let sources: Vec<Source<'_>> =
        files.iter().filter(|(file, _)| is_region_file(file)).map(|(file, text)| Source::new(file, text)).collect();
    for file in files.keys().filter(|file| in_folder(file).is_some_and(|name| name.ends_with(".yaml"))) {
        findings.push(nowhere(file, "the file is not read: region files end in `.yml`", "rename it to end in `.yml`"));
    }
    let drafts: Vec<_> = sources.iter().map(file::read).collect();
    let regions = check::together(&sources, drafts, unread, &mut findings);
    findings.extend(sources.into_iter().flat_map(Source::into_findings));
    findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    match regions {
        Some(regions) if findings.is_empty() => Ok(regions),
        _ => Err(findings),
    }
}

/// The file's name, if it lies directly in the folder.
fn in_folder(file: &str) -> Option<&str> {
    match file.rsplit_once('/') {
        Some((folder, name)) => (folder == FOLDER).then_some(name),
        None => Some(file),
    }
}

fn is_region_file(file: &str) -> bool {
    in_folder(file).is_some_and(|name| name.ends_with(".yml"))
}

/// The names of the YAML files in `folder`, sorted.
fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A dot in front marks the scratch files of editors.
        let yaml = name.ends_with(".yml") || name.ends_with(".yaml");
        if yaml && !name.starts_with('.') && !entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("the file cannot be read: {error}"))?.len();
    if size > LARGEST_FILE {
        return Err(format!("the file has {size} bytes; a region file has at most {LARGEST_FILE}"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("the file cannot be read: {error}"))
}

/// A finding about a file as a whole.
fn nowhere(file: &str, message: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::error(file, "", (0, 0), message, help)
}
