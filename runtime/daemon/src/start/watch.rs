//! Notices that an operator saved a policy file, and proposes the tree.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::NotPrimary;
use model::bundle::{Because, POLICY_FILES, PolicyTree};
use model::{Finding, UnixMillis};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::generations::{Proposed, RefusedGeneration};
use super::running::RunningRegion;

/// Editors save in several steps (write, rename, chmod); the tree is read once they are quiet this long.
const QUIET: Duration = Duration::from_millis(20);
/// How often the files are read for a change that no event told of: a symbolic link leads out of the tree, a network
/// file system tells of nothing.
const LOOK: Duration = Duration::from_secs(1);
/// A tree that could not be judged, because a child failed or the machine had too much to do, is proposed again after
/// this long, then twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait before the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// No policy tree is anywhere near this large; what is, is not a policy tree.
const LARGEST_FILE: u64 = 256 * 1024;

/// Reads all policy files of a tree: the ten, and any other `.scm` beside them.
///
/// # Errors
/// One finding for each file that is missing, too large or not text.
pub fn read_tree(root: &Path) -> Result<PolicyTree, Vec<Finding>> {
    let (mut tree, mut findings) = (PolicyTree::default(), Vec::new());
    for folder in folders() {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".scm") && !name.starts_with('.')) else {
                continue;
            };
            let path = format!("{folder}/{name}");
            match read_file(&entry.path()) {
                Ok(text) => {
                    tree.0.insert(path, text);
                }
                Err(reason) => {
                    findings.push(Finding::error(path, "", (0, 0), reason, "restore the file from version control"))
                }
            }
        }
    }
    for &needed in POLICY_FILES {
        if !tree.0.contains_key(needed) && !findings.iter().any(|finding| finding.file == needed) {
            let help = "restore it, or begin from the defaults that `repomind-run new DIR` writes";
            findings.push(Finding::error(needed, "", (0, 0), "this policy file is missing", help));
        }
    }
    if findings.is_empty() { Ok(tree) } else { Err(findings) }
}

fn folders() -> Vec<&'static str> {
    let mut folders: Vec<_> = POLICY_FILES.iter().filter_map(|path| path.split('/').next()).collect();
    folders.dedup();
    folders
}

/// Reads one policy file.
///
/// # Errors
/// A reason: it cannot be read, is no regular file, too large, or not text.
pub fn read_file(path: &Path) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    // A named pipe would wait for its writer, and a device need not end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(said)?;
    let about = file.metadata().map_err(said)?;
    if !about.is_file() {
        return Err("a policy file is a regular file; this is something else".to_owned());
    }
    if about.len() > LARGEST_FILE {
        return Err(format!("a policy file has at most {LARGEST_FILE} bytes; this one has {}", about.len()));
    }
    let mut text = String::new();
    // One that grows meanwhile is read anew.
    file.take(LARGEST_FILE).read_to_string(&mut text).map_err(said)?;
    Ok(text)
}

/// As [`read_tree`], off the threads that serve: a disk may take its time.
async fn read(root: &Path) -> Result<PolicyTree, Vec<Finding>> {
    let root = root.to_owned();
    let read = tokio::task::spawn_blocking(move || read_tree(&root)).await;
    read.unwrap_or_else(|error| Err(vec![Finding::error("", "", (0, 0), error.to_string(), "")]))
}

/// What is known of the files of a region's tree.
struct Files {
    read: Result<PolicyTree, Vec<Finding>>,
    /// When they were seen to change, since this process started; no event tells what was done before.
    edited: Option<UnixMillis>,
}

/// Watches the tree, and proposes it after every save where this region is the primary, until `stop`.
///
/// Every region watches its own. One that becomes the primary proposes what was edited there since the generation in
/// force, such as a file saved while there was no primary. A copy that merely differs is nobody's edit.
pub async fn watch(region: Arc<RunningRegion>, root: PathBuf, stop: CancellationToken) -> anyhow::Result<()> {
    // One waiting event is enough: the whole tree is read each time.
    let (saved, mut saves) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if !matches!(event, Ok(notify::Event { kind: notify::EventKind::Access(_), .. })) {
            let _ = saved.try_send(());
        }
    })?;
    for folder in folders() {
        watcher.watch(&root.join(folder), RecursiveMode::NonRecursive)?;
    }
    let mut wait = FIRST_WAIT;
    let mut files = Files { read: read(&root).await, edited: None };
    loop {
        let again = match propose(&region, &files).await {
            Judged::Yes => {
                wait = FIRST_WAIT;
                Duration::MAX
            }
            Judged::No => {
                let again = wait;
                wait = wait.saturating_mul(2).min(LONGEST_WAIT);
                again
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = region.adopted.notified() => {}
            () = tokio::time::sleep(again) => {}
            () = another(&root, &files.read) => {}
            event = saves.recv() => if event.is_none() { return Ok(()) },
        }
        while tokio::time::timeout(QUIET, saves.recv()).await.is_ok_and(|event| event.is_some()) {}
        let read = read(&root).await;
        if read != files.read {
            files = Files { read, edited: Some(region.wall_clock()) };
        }
    }
}

/// Whether the files were judged, good or bad.
enum Judged {
    Yes,
    No,
}

/// Returns once the files are others than those that were `read`.
async fn another(root: &Path, known: &Result<PolicyTree, Vec<Finding>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if read(root).await != *known {
            return;
        }
    }
}

async fn propose(region: &RunningRegion, files: &Files) -> Judged {
    match region.control.log.confirm().await {
        Ok(_) => {}
        // It is looked at again as soon as that changes; what is reported about the files is the primary's to say.
        Err(NotPrimary::LeaseLost) => return Judged::No,
        Err(_) => {
            region.generations.nothing_to_report();
            return Judged::Yes;
        }
    }
    let tree = match &files.read {
        Ok(tree) => tree.clone(),
        Err(findings) => {
            region.generations.report(findings);
            return Judged::Yes;
        }
    };
    if let Some(finding) = untouched(region, files, &tree) {
        region.generations.note(finding);
        return Judged::Yes;
    }
    let because = Because::saved(&region.me);
    match region.generations.propose(tree, because, &region.moment()).await {
        Ok(Proposed::Unchanged) => Judged::Yes,
        Ok(Proposed::InForce(generation)) => {
            tracing::info!(generation, "the edited policy files are in force here");
            Judged::Yes
        }
        // What waits was reported where that was found, and so are findings.
        Ok(Proposed::Waiting(_)) | Err(RefusedGeneration::Findings(_)) => Judged::Yes,
        Err(error) => {
            let help = "nothing needs to be done: the files are tried again by themselves";
            region.generations.report(&[Finding::error("", "", (0, 0), error.to_string(), help)]);
            Judged::No
        }
    }
}

/// Says so where the files are other ones than those in force, and nobody has edited them since.
fn untouched(region: &RunningRegion, files: &Files, tree: &PolicyTree) -> Option<Finding> {
    let in_force = region.generations.in_force()?;
    if tree.hash() == in_force.tree || files.edited.is_some_and(|edited| edited > in_force.since) {
        return None;
    }
    let superseded = region.generations.superseded(tree);
    // The preferred primary is where operators save; what was saved there while it was not running counts.
    if superseded.is_some() || region.me == region.regions.primary {
        return superseded;
    }
    let message = format!("the files on disk are not those of generation {}, which is in force", in_force.generation);
    let help = "edit and save them, or publish them, to put them in force; or copy those in force here";
    Some(Finding::error("", "", (0, 0), message, help).warning())
}
