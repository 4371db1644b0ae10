//! Notices that an operator saved a policy file, and proposes the tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::Finding;
use model::bundle::{Because, POLICY_FILES, PolicyTree};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::generations::{Proposed, RefusedGeneration};
use super::running::RunningRegion;

/// Editors save in several steps (write, rename, chmod); the tree is read once they are quiet this long.
const QUIET: Duration = Duration::from_millis(40);
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

fn read_file(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > LARGEST_FILE {
        return Err(format!("a policy file has at most {LARGEST_FILE} bytes; this one has {length}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Proposes the tree now and after every save, until `stop`.
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
    loop {
        let read = read_tree(&root);
        let again = match propose(&region, &read).await {
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
            () = another(&root, &read) => {}
            event = saves.recv() => if event.is_none() { return Ok(()) },
        }
        while tokio::time::timeout(QUIET, saves.recv()).await.is_ok_and(|event| event.is_some()) {}
    }
}

/// Whether the files were judged, good or bad.
enum Judged {
    Yes,
    No,
}

/// Returns once the files are others than those that were `read`.
async fn another(root: &Path, read: &Result<PolicyTree, Vec<Finding>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if read_tree(root) != *read {
            return;
        }
    }
}

async fn propose(region: &RunningRegion, read: &Result<PolicyTree, Vec<Finding>>) -> Judged {
    let tree = match read {
        Ok(tree) => tree.clone(),
        Err(findings) => {
            region.generations.report(findings);
            return Judged::Yes;
        }
    };
    if let Some(finding) = region.generations.superseded(&tree) {
        region.generations.note(finding);
        return Judged::Yes;
    }
    let because = Because::saved(&region.me);
    match region.generations.propose(tree, because, &region.moment()).await {
        Ok(Proposed::Unchanged) => Judged::Yes,
        Ok(Proposed::InForce(generation)) => {
            tracing::info!(generation, "the edited policy files are in force here");
            region.new_generation.notify_waiters();
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
