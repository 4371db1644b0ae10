//! The state directory: private to its owner, and changed by one command at a time.
//!
//! What a command holds is a lock of the system on the file `lock`, which ends
//! with its process however that ends. The file says whose it is, so that
//! another command can name it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What marks a directory as one of ours, so that nothing is deleted or changed in another.
pub const MARKS: &[&str] = &["deploy.json", "pki", "cloudflare", FILE];
/// The lock's file.
const FILE: &str = "lock";

/// Makes the files of this process, and of those that it starts, private to their owner.
pub fn private_files() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Whether a directory is one of ours.
pub fn is_ours(state: &Path) -> bool {
    MARKS.iter().any(|mark| state.join(mark).exists())
}

/// Makes the directory, readable by its owner alone, or takes the access of others away. Says whether it was made.
pub fn make(state: &Path) -> anyhow::Result<bool> {
    let made = !state.exists();
    let failed = || format!("cannot make {}", state.display());
    DirBuilder::new().recursive(true).mode(0o700).create(state).with_context(failed)?;
    let found = std::fs::metadata(state).with_context(failed)?;
    let mode = found.permissions().mode();
    // Who does not own it cannot change that, and may have been given it on purpose.
    let owned = found.uid() == rustix::process::geteuid().as_raw();
    if owned && mode & 0o077 != 0 && is_ours(state) {
        std::fs::set_permissions(state, Permissions::from_mode(mode & 0o700))
            .with_context(|| format!("cannot take the access of others to {} away", state.display()))?;
    }
    Ok(made)
}

/// Held by the one command that changes what runs for a state directory.
#[derive(Debug)]
pub struct Lock {
    state: PathBuf,
    made: bool,
    _file: File,
}

impl Lock {
    /// Takes the lock, making the directory if need be.
    ///
    /// # Errors
    /// Another command holds it, or the directory cannot be used.
    pub fn take(state: &Path, command: &str) -> anyhow::Result<Self> {
        let made = make(state)?;
        let path = state.join(FILE);
        let failed = || format!("cannot lock {}", path.display());
        loop {
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
            let mut file = options.open(&path).with_context(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    let holder = if holder.is_empty() { "another command" } else { holder.trim() };
                    bail!("{holder} is at work on {}; wait until it has ended, or end it", state.display());
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
            }
            // Whoever held it before may have deleted the directory with the file: then this lock holds nothing.
            let same = std::fs::metadata(&path).is_ok_and(|there| {
                file.metadata().is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
            });
            if same {
                file.set_len(0).with_context(failed)?;
                file.write_all(format!("`{command}` (process {})\n", std::process::id()).as_bytes())
                    .with_context(failed)?;
                return Ok(Self { state: state.to_owned(), made, _file: file });
            }
            make(state)?;
        }
    }

    /// Removes the directory again if this command made it and left nothing in it.
    pub fn undo(self) {
        if self.made {
            let others =
                std::fs::read_dir(&self.state).into_iter().flatten().flatten().filter(|e| e.file_name() != FILE);
            if others.count() == 0 {
                // What cannot be removed is harmless, and `destroy --purge` takes it.
                let _ = std::fs::remove_file(self.state.join(FILE));
                let _ = std::fs::remove_dir(&self.state);
            }
        }
    }
}

/// The process that holds a lock on the file, where the system tells: `/proc/locks`, see proc_locks(5).
pub fn holder(path: &Path) -> Option<u32> {
    let inode = std::fs::metadata(path).ok()?.ino();
    held_by(&std::fs::read_to_string("/proc/locks").ok()?, inode)
}

fn held_by(locks: &str, inode: u64) -> Option<u32> {
    let wanted = format!(":{inode}");
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // `1: FLOCK  ADVISORY  WRITE 4711 08:02:1234 0 EOF`; one that waits has `->` in second place.
        let [_, "FLOCK", _, _, pid, file, ..] = words.as_slice() else { return None };
        file.ends_with(&wanted).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_commands_never_change_one_deployment_at_once_and_a_failed_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = Lock::take(&state, "deploy").unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = Lock::take(&state, "destroy").unwrap_err().to_string();
        assert!(refused.contains(&format!("`deploy` (process {})", std::process::id())), "{refused}");
        first.undo();
        assert!(!state.exists());

        std::fs::create_dir(&state).unwrap();
        Lock::take(&state, "deploy").unwrap().undo();
        assert!(is_ours(&state), "a directory that was there before is not removed, and purge knows it");
    }

    #[test]
    fn a_directory_that_others_could_read_is_closed_to_them_if_it_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        make(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o755);
        std::fs::create_dir(folder.path().join("pki")).unwrap();
        make(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn the_holder_of_a_lock_is_read_from_the_line_of_that_very_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 10 08:02:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 11 08:02:177 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 08:02:77 0 EOF\n3: FLOCK  ADVISORY  WRITE 12 08:02:77 0 EOF\n";
        assert_eq!(held_by(locks, 77), Some(12));
        assert_eq!(held_by(locks, 7), None);
    }
}
