//! Writes decisions down, on a thread of its own.
//!
//! Whoever decides hands a note over and goes on: the queue is bounded, and what does not fit is counted and told by the
//! next decision of its kind (`skipped`). Conflicts and verdicts can come by the thousand, so each kind has a rate.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::RegionId;
use model::bundle::PolicyTree;
use model::question::{Answer, Question};
use model::routing::Facts;

use super::disk::{LIMITS, Writer};
use super::{Digest, Entry, Kind, bare, now, words};

/// Notes that wait for the writer.
const QUEUE: usize = 1024;
/// Decisions of one kind that are written at once, ...
const BURST: f64 = 50.0;
/// ... and each second beyond.
const RATE: f64 = 10.0;
/// The last decisions, in memory.
const RECENT: usize = 100;
/// How long the writer leaves a disk alone that took nothing.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last notes.
const LAST_NOTES: Duration = Duration::from_secs(2);

/// A generation as it was loaded: what its answers follow from, besides the question.
pub struct Loaded {
    /// Its number.
    pub generation: u64,
    /// Its files.
    pub tree: PolicyTree,
    /// The facts that it was loaded with.
    pub facts: Facts,
    kept: OnceLock<[(Digest, Vec<u8>); 2]>,
}

impl Loaded {
    /// A generation that was loaded from these files with these facts.
    pub const fn new(generation: u64, tree: PolicyTree, facts: Facts) -> Self {
        Self { generation, tree, facts, kept: OnceLock::new() }
    }

    /// Files and facts, as they are kept.
    fn kept(&self) -> &[(Digest, Vec<u8>); 2] {
        self.kept.get_or_init(|| [named(&self.tree), named(&self.facts)])
    }
}

fn named(value: &impl serde::Serialize) -> (Digest, Vec<u8>) {
    // Plain data always encodes.
    let bytes = model::codec::plain(value).unwrap_or_default();
    (Digest::of(&bytes), bytes)
}

/// What was decided.
pub struct Note {
    /// Who answered.
    pub by: Arc<Loaded>,
    /// Why it was asked.
    pub why: String,
    /// What was asked, in words.
    pub about: String,
    /// The question.
    pub question: Question,
    /// What came.
    pub answer: Answer,
    /// What came of it, where that is more than the answer says.
    pub gave: Option<String>,
    /// Why question and answer must not be kept, if so.
    pub withheld: Option<String>,
}

enum Message {
    Note(Kind, Box<Note>, u64),
    Stop,
}

/// Hands decisions to the writer. Never waits.
pub struct Recorder {
    notes: SyncSender<Message>,
    paces: Mutex<[Pace; Kind::ALL.len()]>,
    recent: Arc<Mutex<VecDeque<Entry>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Declarations,
        Self::Residency,
        Self::Route,
        Self::Health,
        Self::Failover,
        Self::Conflict,
        Self::Explanation,
    ];
}

/// How many decisions of a kind may be written now, and how many were not since the last one that was.
#[derive(Clone, Copy)]
struct Pace {
    room: f64,
    at: Instant,
    skipped: u64,
}

impl Pace {
    /// Whether there is room for one more; then, how many were skipped before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        self.room = (self.room + now.duration_since(self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        if self.room < 1.0 {
            self.skipped += 1;
            return None;
        }
        self.room -= 1.0;
        Some(std::mem::take(&mut self.skipped))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Opens the log of `region` in `folder` and begins to write.
    ///
    /// # Errors
    /// Where the folder cannot be used, or no thread be started.
    pub fn start(region: RegionId, folder: &Path) -> std::io::Result<Self> {
        let (writer, last) = Writer::open(folder, LIMITS, RECENT)?;
        metrics::gauge!("repomind_decision_log_bytes").set(writer.size() as f64);
        let (notes, received) = sync_channel(QUEUE);
        let recent = Arc::new(Mutex::new(VecDeque::from(last)));
        let shown = recent.clone();
        let thread = std::thread::Builder::new().name("decisions".to_owned());
        let writer = thread.spawn(move || write_all(&region, writer, &received, &shown))?;
        let fresh = Pace { room: BURST, at: Instant::now(), skipped: 0 };
        Ok(Self { notes, paces: Mutex::new([fresh; 7]), recent, writer: Mutex::new(Some(writer)) })
    }

    /// Hands a decision over, which is only made where there is room for one of its kind. What there is no room for is
    /// counted, and nothing waits for it.
    pub fn note(&self, kind: Kind, make: impl FnOnce() -> Note) {
        let at = Kind::ALL.iter().position(|other| *other == kind).unwrap_or(0);
        let Some(skipped) = lock(&self.paces)[at].take(Instant::now()) else {
            metrics::counter!("repomind_decisions_not_kept_total", "why" => "rate").increment(1);
            return;
        };
        if self.notes.try_send(Message::Note(kind, Box::new(make()), skipped)).is_err() {
            metrics::counter!("repomind_decisions_not_kept_total", "why" => "queue").increment(1);
            lock(&self.paces)[at].skipped += skipped + 1;
        }
    }

    /// The last decisions, oldest first; 100 at most.
    pub fn recent(&self) -> Vec<Entry> {
        lock(&self.recent).iter().cloned().collect()
    }

    /// Writes what was handed over so far, and stops.
    pub fn close(&self) {
        let Some(writer) = lock(&self.writer).take() else { return };
        let until = Instant::now() + LAST_NOTES;
        let _ = self.notes.try_send(Message::Stop);
        while !writer.is_finished() && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn write_all(region: &RegionId, mut writer: Writer, notes: &Receiver<Message>, recent: &Mutex<VecDeque<Entry>>) {
    let mut failed: Option<Instant> = None;
    loop {
        let message = match notes.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => Message::Stop,
            Err(TryRecvError::Empty) => {
                // Nothing more waits: what was written is handed to the system.
                failed = done(writer.flush(), failed);
                metrics::gauge!("repomind_decision_log_bytes").set(writer.size() as f64);
                match notes.recv_timeout(AGAIN) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => Message::Stop,
                }
            }
        };
        let Message::Note(kind, note, skipped) = message else {
            let _ = writer.flush();
            return;
        };
        if failed.is_some_and(|at| at.elapsed() < AGAIN) {
            metrics::counter!("repomind_decisions_not_kept_total", "why" => "disk").increment(1);
            continue;
        }
        let (entry, refers_to) = entry(region, kind, *note, skipped);
        match writer.write(entry, refers_to) {
            Ok(entry) => {
                failed = done(Ok(()), failed);
                metrics::counter!("repomind_decisions_total", "kind" => kind.name()).increment(1);
                let mut recent = lock(recent);
                if recent.len() >= RECENT {
                    recent.pop_front();
                }
                recent.push_back(entry);
            }
            Err(error) => {
                metrics::counter!("repomind_decisions_not_kept_total", "why" => "disk").increment(1);
                failed = done(Err(error), failed);
            }
        }
    }
}

/// Says once that the disk takes nothing, and once that it does again.
fn done(result: std::io::Result<()>, failed: Option<Instant>) -> Option<Instant> {
    match result {
        Ok(()) => {
            if failed.is_some() {
                tracing::info!("decisions are written down again");
            }
            None
        }
        Err(error) => {
            if failed.is_none() {
                tracing::error!(%error, "decisions are not written down: look at the disk; policies go on all the same");
            }
            Some(Instant::now())
        }
    }
}

/// The decision as it is kept, and what it refers to.
fn entry(region: &RegionId, kind: Kind, note: Note, skipped: u64) -> (Entry, Vec<(Digest, Vec<u8>)>) {
    let Note { by, why, about, question, answer, gave, mut withheld } = note;
    let [tree, loaded_with] = by.kept();
    let gave = gave.unwrap_or_else(|| words::summary(&answer));
    let (question, facts) = bare(question);
    let parts = [facts.as_ref().map(named), Some(named(&question)), Some(named(&answer))];
    let largest = parts.iter().flatten().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
    if withheld.is_none() && largest > LIMITS.piece {
        withheld = Some(format!("question or answer has {largest} bytes; at most {} are kept", LIMITS.piece));
    }
    let mut refers_to = vec![tree.clone(), loaded_with.clone()];
    let [facts, question, answer] = if withheld.is_some() { [None, None, None] } else { parts };
    let mut name = |part: Option<(Digest, Vec<u8>)>| {
        let name = part.as_ref().map(|(name, _)| name.clone());
        refers_to.extend(part);
        name
    };
    let entry = Entry {
        id: 0,
        at: now(),
        region: region.clone(),
        generation: by.generation,
        tree: tree.0.clone(),
        loaded_with: loaded_with.0.clone(),
        kind,
        why,
        about,
        gave,
        facts: name(facts),
        question: name(question),
        answer: name(answer),
        withheld,
        skipped,
    };
    (entry, refers_to)
}

#[cfg(test)]
mod tests {
    use model::question::Resolution;
    use model::routing::Observation;

    use super::super::disk::Log;
    use super::*;

    fn note(losses: u32) -> Note {
        let seen = Observation { probes: 10, losses, losses_in_a_row: losses };
        Note {
            by: Arc::new(Loaded::new(3, PolicyTree::default(), Facts::default())),
            why: "probes were lost".into(),
            about: "eu-west".into(),
            question: Question::Health { observations: vec![seen] },
            answer: Answer::Unwell(losses > 5),
            gave: None,
            withheld: None,
        }
    }

    #[test]
    fn what_was_decided_can_be_read_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(RegionId::new("us-east").unwrap(), folder.path()).unwrap();
        recorder.note(Kind::Health, || note(9));
        recorder.note(Kind::Health, || Note { withheld: Some("it is about somebody".into()), ..note(1) });
        recorder.close();
        let log = Log::read(folder.path()).unwrap();
        let [first, second] = log.entries.as_slice() else { panic!("{:?}", log.entries) };
        assert_eq!((first.id, first.generation, first.gave.as_str()), (1, 3, "unwell"));
        let question: Question = model::codec::from_plain(&log.bytes[first.question.as_ref().unwrap()]).unwrap();
        assert_eq!(question, note(9).question);
        let answer: Answer = model::codec::from_plain(&log.bytes[first.answer.as_ref().unwrap()]).unwrap();
        assert_eq!(answer, Answer::Unwell(true));
        assert!(log.bytes.contains_key(&first.tree) && log.bytes.contains_key(&first.loaded_with));
        assert_eq!((second.question.clone(), second.answer.clone()), (None, None));
        assert_eq!(recorder.recent().len(), 2);
        let again = Recorder::start(RegionId::new("us-east").unwrap(), folder.path()).unwrap();
        assert_eq!(again.recent(), recorder.recent());
    }

    #[test]
    fn a_storm_of_one_kind_is_counted_and_leaves_room_for_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(RegionId::new("us-east").unwrap(), folder.path()).unwrap();
        for _ in 0..10_000 {
            let answer = Answer::Resolved(Resolution::Keep);
            recorder.note(Kind::Conflict, || Note { answer, ..note(1) });
        }
        recorder.note(Kind::Health, || note(9));
        recorder.close();
        let entries = Log::read(folder.path()).unwrap().entries;
        assert!(entries.len() < 1_000, "{} of 10,000 were written", entries.len());
        assert_eq!(entries.last().map(|entry| entry.kind), Some(Kind::Health));
        assert!(lock(&recorder.paces)[5].skipped > 8_000);
    }
}
