//! The journal on disk: `STATE/cloudflare/DEPLOYMENT/journal.jsonl`, every line synced before anything follows it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use cloud::journal::{Event, Line, State, VERSION, replay};
use model::UnixMillis;

use super::secrets::Secrets;

/// The file's name.
const FILE: &str = "journal.jsonl";
/// A journal longer than this is written anew, as one line, before a run.
const LONGEST: u64 = 1 << 20;

/// A journal that is written to.
pub struct Journal {
    path: PathBuf,
    file: File,
    run: String,
    state: State,
    secrets: Secrets,
}

/// Where the journals of a state directory lie.
pub fn folder(state: &Path) -> PathBuf {
    state.join("cloudflare")
}

/// What the journal in `folder` comes to; nothing where there is none.
///
/// # Errors
/// It cannot be read.
pub fn read(folder: &Path) -> anyhow::Result<State> {
    let path = folder.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => replay(&text).with_context(|| damaged(&path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn damaged(path: &Path) -> String {
    format!(
        "{} is damaged; put it aside and run again: what is ours is known by its marks, only what others changed is not",
        path.display()
    )
}

impl Journal {
    /// Opens the journal in `folder`, which the caller has locked, and cuts a torn last line off.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(folder: &Path, secrets: &Secrets) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let failed = || format!("cannot write {}", path.display());
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).with_context(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| damaged(&path))?;
        let state = replay(&text).with_context(|| damaged(&path))?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).with_context(failed)?;
        file.seek(SeekFrom::End(0)).with_context(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
        let run = format!("{:x}-{:x}", now().0, std::process::id());
        let mut journal = Self { path, file, run, state, secrets: secrets.clone() };
        if whole as u64 > LONGEST && journal.state.unfinished.is_none() {
            journal.compact().with_context(|| format!("cannot write {} anew", journal.path.display()))?;
        }
        Ok(journal)
    }

    /// What it comes to.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Writes a line, on disk when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, event: Event) -> anyhow::Result<()> {
        let line = Line { v: VERSION, at: now(), run: self.run.clone(), event };
        let text = self.secrets.hide(&line.to_text());
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.state.take(line);
        Ok(())
    }

    fn compact(&mut self) -> std::io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(self.state.compacted(now(), &self.run).to_text().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        self.file = file;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn now() -> UnixMillis {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
