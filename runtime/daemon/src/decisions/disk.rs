//! The log on disk: files of pieces, each a length and an envelope of `model::codec`.
//!
//! ```text
//!   decisions/0000000001.log   named by the first decision in it
//!   bytes 0..4   length of the envelope, little-endian
//!   then         the envelope of a piece
//! ```
//!
//! A process that is killed leaves at most a torn piece at the end of the newest file; whoever opens the log cuts it off,
//! readers stop there. A damaged piece in between is passed over and counted. Nothing is synced for each decision: after
//! a power cut the last seconds may be missing, and no decision waits for a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use model::{UnixMillis, codec};

use super::{Digest, Entry, Piece, words};

/// How much is kept, and in what pieces.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file is closed once it has this many bytes, ...
    pub file: u64,
    /// ... or is this old.
    pub file_age: Duration,
    /// All files together; the oldest goes first.
    pub all: u64,
    /// A file whose newest decision is older than this goes, too.
    pub age: Duration,
    /// Longer pieces are not kept.
    pub piece: usize,
}

/// 64 MiB in files of 4 MiB or a day, for 30 days at most.
pub const LIMITS: Limits = Limits {
    file: 4 << 20,
    file_age: Duration::from_secs(24 * 3600),
    all: 64 << 20,
    age: Duration::from_secs(30 * 24 * 3600),
    piece: 2 << 20,
};

/// The largest log that is read, all of its files together: four times what a region keeps.
const LARGEST: u64 = 256 << 20;
/// Places of damage are told up to this many; all are counted.
const MOST_DAMAGE: usize = 20;

/// What was read of a log.
#[derive(Debug, Default)]
pub struct Log {
    /// The decisions, oldest first.
    pub entries: Vec<Entry>,
    /// What they refer to.
    pub bytes: BTreeMap<Digest, Vec<u8>>,
    /// What could not be read, a sentence each; the first few.
    pub damage: Vec<String>,
    /// How many more places could not be read.
    pub more_damage: u64,
}

impl Log {
    /// Reads pieces; gives how many bytes are whole pieces.
    pub fn take(&mut self, from: &str, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(envelope) = next(&bytes[at..]) {
            match codec::decode(envelope) {
                Ok(Piece::Bytes(name, bytes)) if Digest::of(&bytes) == name => {
                    self.bytes.insert(name, bytes);
                }
                Ok(Piece::Bytes(name, _)) => self.damaged(|| {
                    format!(
                        "{from}, byte {at}: the bytes are not those that {} names",
                        words::printable(&name.to_string())
                    )
                }),
                Ok(Piece::Entry(entry)) => self.entries.push(*entry),
                Err(error) => self.damaged(|| format!("{from}, byte {at}: {}", words::printable(&error.to_string()))),
            }
            at += 4 + envelope.len();
        }
        if at == 0 && !bytes.is_empty() {
            self.damaged(|| format!("{from}: this is no decision log, or its first bytes are damaged"));
        } else if at < bytes.len() {
            self.damaged(|| format!("{from}: it breaks off after {at} of {} bytes", bytes.len()));
        }
        at
    }

    fn damaged(&mut self, what: impl FnOnce() -> String) {
        match self.damage.len() < MOST_DAMAGE {
            true => self.damage.push(what()),
            false => self.more_damage += 1,
        }
    }

    /// Reads a file of a log, or all files of a directory: one that holds the log, or a region's state directory.
    ///
    /// # Errors
    /// Where there is no log, or it cannot be read.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let files = if path.is_dir() { files(path) } else { vec![path.to_owned()] };
        let files = if files.is_empty() { self::files(&path.join(FOLDER)) } else { files };
        if files.is_empty() {
            bail!("{} holds no decision log: no file of it ends in .log", path.display());
        }
        let (mut log, mut room) = (Self::default(), LARGEST);
        for file in files {
            let bytes = whole_file(&file, room).with_context(|| format!("cannot read {}", file.display()))?;
            room -= bytes.len() as u64;
            log.take(&file.display().to_string(), &bytes);
        }
        if log.entries.is_empty() && !log.damage.is_empty() {
            bail!("no decision could be read: {}", log.damage[0]);
        }
        Ok(log)
    }
}

/// A regular file of at most `room` bytes.
fn whole_file(path: &Path, room: u64) -> anyhow::Result<Vec<u8>> {
    // A named pipe would wait for its writer, and a device need not end.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        bail!("a decision log is a regular file; this is something else");
    }
    let mut bytes = Vec::new();
    file.take(room + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > room {
        bail!("a decision log has at most {} MiB, all of its files together", LARGEST >> 20);
    }
    Ok(bytes)
}

/// A decision of the log in `folder` by its number, or the last one, and the file that it stands in.
///
/// # Errors
/// A sentence: nothing was decided yet, or that decision is not kept.
pub fn find(folder: &Path, id: Option<u64>) -> Result<(Entry, Log), String> {
    let mut first = None;
    for path in files(folder).into_iter().rev() {
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut log = Log::default();
        log.take("", &bytes[..whole(&bytes)]);
        let found = match id {
            Some(id) => log.entries.iter().find(|entry| entry.id == id),
            None => log.entries.last(),
        };
        if let Some(entry) = found {
            return Ok((entry.clone(), log));
        }
        first = log.entries.first().map(|entry| entry.id).or(first);
    }
    Err(match (id, first) {
        (Some(id), Some(first)) => format!("decision {id} is not kept; the oldest one is {first}"),
        _ => "no decision is kept yet".to_owned(),
    })
}

/// All whole pieces of the log in `folder`, oldest first.
///
/// # Errors
/// Those of the disk. A file that was removed meanwhile is passed over.
pub fn all(folder: &Path) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for path in files(folder) {
        match std::fs::read(path) {
            Ok(bytes) => all.extend_from_slice(&bytes[..whole(&bytes)]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The folder of the log in a region's state directory.
pub const FOLDER: &str = "decisions";

/// The next whole envelope.
fn next(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*head) as usize;
    // No piece is shorter than its envelope: what is there is no length.
    if length < 6 { None } else { rest.get(..length) }
}

/// How many of these bytes are whole pieces.
pub fn whole(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(envelope) = next(&bytes[at..]) {
        at += 4 + envelope.len();
    }
    at
}

/// The files of a log, oldest first.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let ours = entries.filter(|path| path.extension().is_some_and(|end| end == "log") && number(path).is_some());
    let mut all: Vec<PathBuf> = ours.collect();
    all.sort();
    all
}

/// Appends to a log.
pub struct Writer {
    folder: PathBuf,
    limits: Limits,
    open: Option<Open>,
    next: u64,
    /// Bytes of the files that are closed.
    closed: u64,
}

/// The file that is written.
struct Open {
    out: BufWriter<File>,
    written: u64,
    begun: UnixMillis,
    has: BTreeSet<Digest>,
}

impl Writer {
    /// Opens the log in `folder`, cuts a torn end off, removes what is too old, and gives the last decisions.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(folder: &Path, limits: Limits, recent: usize) -> io::Result<(Self, Vec<Entry>)> {
        std::fs::create_dir_all(folder)?;
        let mut writer = Self { folder: folder.to_owned(), limits, open: None, next: 1, closed: 0 };
        writer.prune()?;
        let mut last = Vec::new();
        for (back, path) in files(folder).into_iter().rev().enumerate() {
            let (mut log, bytes) = (Log::default(), std::fs::read(&path)?);
            let whole = log.take("", &bytes);
            if let Some(entry) = log.entries.last() {
                writer.next = writer.next.max(entry.id.saturating_add(1));
            }
            if back == 0 && (whole as u64) < limits.file {
                let file = File::options().write(true).open(&path)?;
                file.set_len(whole as u64)?;
                let begun = log.entries.first().map_or(UnixMillis(0), |entry| entry.at);
                writer.continue_in(file, whole as u64, begun, log.bytes.into_keys().collect())?;
            }
            log.entries.append(&mut last);
            last = log.entries;
            if last.len() >= recent {
                break;
            }
        }
        writer.closed = writer.sizes().saturating_sub(writer.open.as_ref().map_or(0, |open| open.written));
        last.drain(..last.len().saturating_sub(recent));
        Ok((writer, last))
    }

    fn continue_in(
        &mut self,
        mut file: File,
        written: u64,
        begun: UnixMillis,
        has: BTreeSet<Digest>,
    ) -> io::Result<()> {
        io::Seek::seek(&mut file, io::SeekFrom::Start(written))?;
        self.open = Some(Open { out: BufWriter::with_capacity(64 << 10, file), written, begun, has });
        Ok(())
    }

    fn sizes(&self) -> u64 {
        files(&self.folder).iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum()
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.closed + self.open.as_ref().map_or(0, |open| open.written)
    }

    /// Writes a decision and what it refers to, unless that stands in the file already. Gives the decision its number.
    ///
    /// # Errors
    /// Those of the disk. The file is given up then, and the next decision begins another.
    pub fn write(&mut self, mut entry: Entry, refers_to: Vec<(Digest, Vec<u8>)>) -> io::Result<Entry> {
        entry.id = self.next;
        let written = self.append(&entry, refers_to);
        if written.is_err() {
            self.close();
        } else {
            self.next = self.next.saturating_add(1);
        }
        written.map(|()| entry)
    }

    fn append(&mut self, entry: &Entry, refers_to: Vec<(Digest, Vec<u8>)>) -> io::Result<()> {
        let age = self.limits.file_age.as_millis() as u64;
        let done = |open: &Open| open.written >= self.limits.file || entry.at.0.saturating_sub(open.begun.0) > age;
        if self.open.as_ref().is_some_and(done) {
            self.flush()?;
            self.close();
            self.prune()?;
        }
        if self.open.is_none() {
            let path = self.folder.join(format!("{:010}.log", self.next));
            let file = File::options().write(true).create(true).truncate(true).open(path)?;
            self.continue_in(file, 0, entry.at, BTreeSet::new())?;
        }
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        for (name, bytes) in refers_to {
            if open.has.insert(name.clone()) {
                open.put(&Piece::Bytes(name, bytes))?;
            }
        }
        open.put(&Piece::Entry(Box::new(entry.clone())))
    }

    /// Hands what was written to the system: it survives the end of this process from then on.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn flush(&mut self) -> io::Result<()> {
        self.open.as_mut().map_or(Ok(()), |open| open.out.flush())
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed += open.written;
            // What could not be written is cut off as a torn end.
            let (file, _) = open.out.into_parts();
            let _ = file.sync_all();
        }
    }

    /// Removes the oldest files beyond the limits; the newest stays.
    fn prune(&mut self) -> io::Result<()> {
        let files = files(&self.folder);
        let mut all = self.sizes();
        for path in files.iter().take(files.len().saturating_sub(1)) {
            let about = path.metadata()?;
            let age =
                about.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
            // Room for the file that is begun next.
            if all + self.limits.file <= self.limits.all && age <= self.limits.age {
                break;
            }
            std::fs::remove_file(path)?;
            all = all.saturating_sub(about.len());
        }
        self.closed = all;
        Ok(())
    }
}

impl Open {
    fn put(&mut self, piece: &Piece) -> io::Result<()> {
        let envelope = codec::encode(piece);
        let length = u32::try_from(envelope.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&envelope)?;
        self.written += 4 + envelope.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
