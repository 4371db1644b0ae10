//! Generations kept on disk, so that any of them can be shown, compared and brought back.
//!
//! One file a generation, the signed bundle in its envelope. What is read is
//! verified again by the caller: a file that was tampered with is no generation.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use model::bundle::SignedBundle;
use model::codec;

/// How many generations are kept; older ones are removed.
pub const KEPT: usize = 100;

/// A folder of bundles.
pub struct History {
    folder: PathBuf,
}

impl History {
    /// The history in `folder`, which is made when the first bundle is kept.
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("{generation:010}.bundle"))
    }

    /// Keeps a generation, durably, and removes the oldest beyond [`KEPT`].
    ///
    /// # Errors
    /// Those of the disk; the generation is in force all the same.
    pub fn keep(&self, generation: u64, signed: &SignedBundle) -> std::io::Result<()> {
        // One that was taken up after a restart is there already.
        if self.load(generation).is_ok_and(|kept| kept == *signed) {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        write(&self.file(generation), &codec::encode(signed))?;
        let all = self.generations();
        for old in all.iter().take(all.len().saturating_sub(KEPT)) {
            std::fs::remove_file(self.file(*old))?;
        }
        Ok(())
    }

    /// The generations kept, oldest first.
    pub fn generations(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut all: Vec<u64> =
            entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".bundle")?.parse().ok()).collect();
        all.sort_unstable();
        all
    }

    /// The newest generation kept.
    pub fn newest(&self) -> Option<u64> {
        self.generations().pop()
    }

    /// When a generation was kept, by the clock of this machine.
    pub fn kept_at(&self, generation: u64) -> Option<SystemTime> {
        std::fs::metadata(self.file(generation)).and_then(|about| about.modified()).ok()
    }

    /// One generation.
    ///
    /// # Errors
    /// A sentence: it is not kept, or its file is damaged.
    pub fn load(&self, generation: u64) -> Result<SignedBundle, String> {
        let file = self.file(generation);
        let bytes = std::fs::read(&file)
            .map_err(|error| format!("generation {generation} is not kept here ({}: {error})", file.display()))?;
        codec::decode(&bytes).map_err(|error| format!("{}: {error}", file.display()))
    }
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_generations_are_kept_and_a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::new(folder.path().join("history"));
        assert_eq!(history.newest(), None);
        let signed = |n: u8| SignedBundle { bundle: vec![n], signature: vec![n] };
        for number in 1..=KEPT as u64 + 5 {
            history.keep(number, &signed(number as u8)).unwrap();
        }
        assert_eq!(history.generations().len(), KEPT);
        assert_eq!(history.generations()[0], 6);
        assert_eq!(history.load(50).unwrap(), signed(50));
        assert!(history.load(3).unwrap_err().contains("not kept"));
        std::fs::write(history.file(50), b"no bundle").unwrap();
        assert!(history.load(50).is_err());
    }
}
