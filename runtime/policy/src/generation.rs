//! One loaded tree, the child that answers for it, and one that stands by.
//!
//! ```text
//!   loaded ──ask──▶ asking ──answer──▶ loaded
//!                     └──deadline, death──▶ lost ──next ask──▶ the standby takes its place
//!
//!   standby: none ──in the background, after a pause──▶ loading ──▶ loaded
//! ```
//!
//! The child is *out* of the state while it is asked: when the asker is
//! cancelled, the child goes with it, and no answer is ever taken for that of another question.
//!
//! A child answers as the one before it did: nothing that a question brings (the
//! facts of [`Question::Route`]) outlives the question in a child.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::bundle::PolicyTree;
use model::question::{Answer, Question};
use model::routing::Facts;
use model::{ByteCount, Finding};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::host::{HostError, PolicyHost};
use crate::process::Process;

/// How many questions may wait for one child.
const MOST_WAITING: usize = 1024;
/// How long the first standby of a new generation waits, so that its load takes no processor from the regions that
/// are taking the generation over. Shorter than any question that is given up, so that it is loaded when it is needed.
pub(crate) const SETTLING: Duration = Duration::from_millis(200);
/// The pause after the second loss in a row; it doubles with each further one. The first costs no pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Interpreters grow with every call; a child with more resident memory than this gives way to the
/// standby, between questions and not before the standby is loaded.
const RECYCLE: ByteCount = ByteCount(160 << 20);

/// A tree that was loaded, ready to be asked. Clones share the children; dropping the last kills them.
#[derive(Clone)]
pub struct Generation {
    inner: Arc<Inner>,
}

struct Inner {
    host: PolicyHost,
    tree: PolicyTree,
    facts: Facts,
    /// What the tree declared, as bytes.
    declared: Vec<u8>,
    waiting: AtomicUsize,
    /// Ends the first standby's wait.
    hurry: Arc<Notify>,
    state: Mutex<State>,
}

struct State {
    /// None while it is asked, and after it was lost.
    process: Option<Process>,
    standby: Standby,
    /// Children lost in a row, without an answer in between.
    deaths: u32,
    /// Standbys in a row that did not load.
    failures: u32,
}

enum Standby {
    None,
    Loading(Loading),
    Loaded(Process),
}

/// A load in the background; dropping it ends the load and its child.
struct Loading(JoinHandle<Result<Process, Vec<Finding>>>);

impl Drop for Loading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Loading {
    async fn finish(mut self) -> Result<Process, Vec<Finding>> {
        match (&mut self.0).await {
            Ok(loaded) => loaded,
            Err(error) => Err(vec![HostError::Protocol(format!("loading was cut short: {error}")).finding()]),
        }
    }
}

/// Counts a question as waiting for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Result<Self, HostError> {
        let before = count.fetch_add(1, Ordering::AcqRel);
        let waiting = Self(count);
        if before >= MOST_WAITING { Err(HostError::Busy(before)) } else { Ok(waiting) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Generation {
    pub(crate) fn new(host: PolicyHost, tree: PolicyTree, facts: Facts, declared: Vec<u8>, process: Process) -> Self {
        let generation = Self::of(host, tree, facts, declared, State::of(process, Standby::None));
        if let Ok(mut state) = generation.inner.state.try_lock() {
            generation.inner.prepare_after(&mut state, SETTLING);
        }
        generation
    }

    /// A generation whose standby is loaded already.
    pub(crate) fn pair(
        host: PolicyHost,
        tree: PolicyTree,
        facts: Facts,
        declared: Vec<u8>,
        (process, standby): (Process, Process),
    ) -> Self {
        Self::of(host, tree, facts, declared, State::of(process, Standby::Loaded(standby)))
    }

    fn of(host: PolicyHost, tree: PolicyTree, facts: Facts, declared: Vec<u8>, state: State) -> Self {
        let (waiting, hurry, state) = (AtomicUsize::new(0), Arc::default(), Mutex::new(state));
        Self { inner: Arc::new(Inner { host, tree, facts, declared, waiting, hurry, state }) }
    }

    /// Puts a question. Questions are answered one after the other. For a child
    /// that was lost the standby answers; where that is not yet loaded, this waits for it.
    ///
    /// An answer of the wrong shape is [`Answer::Refused`], with the place.
    ///
    /// # Errors
    /// No answer came within the limit, or the child died of the question.
    pub async fn ask(&self, question: Question) -> Result<Answer, HostError> {
        let inner = &*self.inner;
        let _waiting = Waiting::join(&inner.waiting)?;
        let mut state = inner.state.lock().await;
        let mut process = match state.process.take() {
            Some(process) => process,
            None => inner.stand_in(&mut state).await?,
        };
        let answer = process.ask(question, inner.host.limits().question).await;
        match &answer {
            Ok(_) => {
                state.deaths = 0;
                state.process = Some(process);
                inner.recycle(&mut state).await;
            }
            Err(error) => {
                state.deaths = state.deaths.saturating_add(1);
                tracing::warn!(%error, child = process.id(), deaths = state.deaths, "a policy host was lost");
            }
        }
        inner.prepare(&mut state);
        answer
    }

    /// What the tree declared, and these answers, as bytes to compare with those of another region's children.
    pub fn transcript(&self, answers: &[Answer]) -> Vec<u8> {
        let mut bytes = self.inner.declared.clone();
        for answer in answers {
            bytes.extend(postcard::to_stdvec(answer).unwrap_or_default());
        }
        bytes
    }

    /// Puts the questions to two children that know nothing of each other, and
    /// compares the answers byte by byte: for whoever proposes a generation,
    /// because regions whose children answer differently would never agree. Waits
    /// for the standby, which is the second child and is loaded in any case. Gives the answers.
    ///
    /// # Errors
    /// The first difference, or what kept a child from answering.
    pub async fn answers_alike(&self, questions: &[Question]) -> Result<Vec<Answer>, Vec<Finding>> {
        let inner = &*self.inner;
        let mut state = inner.state.lock().await;
        inner.hurry.notify_one();
        inner.settle(&mut state).await;
        inner.prepare(&mut state);
        let mut second = inner.wait(&mut state).await?;
        let mut first = match state.process.take() {
            Some(process) => process,
            None => inner.stand_in(&mut state).await.map_err(|error| vec![error.finding()])?,
        };
        let limit = inner.host.limits().question;
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            let asked = tokio::join!(first.ask(question.clone(), limit), second.ask(question.clone(), limit));
            let (one, other) = match asked {
                (Ok(one), Ok(other)) => (one, other),
                (Err(error), _) | (_, Err(error)) => return Err(vec![error.finding()]),
            };
            if postcard::to_stdvec(&one).ok() != postcard::to_stdvec(&other).ok() {
                return Err(vec![difference(question)]);
            }
            answers.push(one);
        }
        state.process = Some(first);
        state.standby = Standby::Loaded(second);
        Ok(answers)
    }
}

/// The finding for a question that two children answered differently.
fn difference(question: &Question) -> Finding {
    let (file, what) = match question {
        Question::Route { .. } => ("region-config/region-mapping.scm", "the rankings (here or in latency-routing.scm)"),
        Question::Residency { .. } => ("compliance/data-residency.scm", "the rulings"),
        Question::Health { .. } | Question::Verdicts { .. } => ("traffic-routing/failover.scm", "the verdict"),
        Question::Failover { .. } => ("traffic-routing/failover.scm", "the plan"),
        Question::Resolve { .. } | Question::ResolveMany { .. } | Question::Samples { .. } => {
            ("data-replication/conflict-resolution.scm", "the settlements")
        }
        Question::Trace { .. } => ("", "the trace"),
        Question::Prove { .. } => ("", "the proof"),
        Question::Load { .. } | Question::Locate { .. } | Question::Test { .. } | Question::Eval { .. } => {
            ("", "the answer")
        }
    };
    let message = format!("{what} came out otherwise in a second process, on the same facts");
    let help = "do not go by the order of a hash's keys or values: sort them first";
    Finding::error(file, "", (0, 0), message, help)
}

impl Inner {
    /// The child that takes the place of one that was lost.
    async fn stand_in(&self, state: &mut State) -> Result<Process, HostError> {
        self.hurry.notify_one();
        self.settle(state).await;
        if let Standby::Loaded(process) = std::mem::replace(&mut state.standby, Standby::None) {
            return Ok(process);
        }
        // None was loading either where the last asker was cancelled, or loading failed.
        self.prepare(state);
        match self.wait(state).await {
            Ok(process) => Ok(process),
            Err(findings) => Err(HostError::Reload(findings)),
        }
    }

    /// Takes notice of a standby that finished loading, or that has died since.
    async fn settle(&self, state: &mut State) {
        match &mut state.standby {
            Standby::Loading(loading) if loading.0.is_finished() => match self.wait(state).await {
                Ok(process) => state.standby = Standby::Loaded(process),
                Err(findings) => tracing::warn!(
                    finding = findings.first().map(ToString::to_string),
                    failures = state.failures,
                    "no policy host could be loaded to stand by"
                ),
            },
            Standby::Loaded(process) => {
                let runs = process.runs();
                state.standby = match std::mem::replace(&mut state.standby, Standby::None) {
                    standby if runs => standby,
                    _ => Standby::None,
                };
            }
            _ => {}
        }
    }

    /// The standby, once it is loaded. Afterwards there is none.
    async fn wait(&self, state: &mut State) -> Result<Process, Vec<Finding>> {
        let loaded = match std::mem::replace(&mut state.standby, Standby::None) {
            Standby::Loading(loading) => loading.finish().await,
            Standby::Loaded(process) => Ok(process),
            Standby::None => Err(vec![HostError::ShutDown.finding()]),
        };
        state.failures = if loaded.is_ok() { 0 } else { state.failures.saturating_add(1) };
        loaded
    }

    /// Lets the standby take over from a child that has grown too large.
    async fn recycle(&self, state: &mut State) {
        self.settle(state).await;
        let grown = state.process.as_ref().and_then(Process::resident).is_some_and(|resident| resident >= RECYCLE);
        if grown && matches!(state.standby, Standby::Loaded(_)) {
            state.process = match std::mem::replace(&mut state.standby, Standby::None) {
                Standby::Loaded(process) => Some(process),
                _ => None,
            };
        }
    }

    /// Sees to it that a standby is loaded or being loaded.
    fn prepare(&self, state: &mut State) {
        self.prepare_after(state, Duration::ZERO);
    }

    /// As [`Self::prepare`], but not at once unless somebody hurries.
    fn prepare_after(&self, state: &mut State, settling: Duration) {
        if !matches!(state.standby, Standby::None) {
            return;
        }
        let not_before = Instant::now() + pause(state.deaths.max(state.failures));
        let hurry = self.hurry.clone();
        let (host, tree, facts) = (self.host.clone(), self.tree.clone(), self.facts.clone());
        let declared = self.declared.clone();
        state.standby = Standby::Loading(Loading(tokio::spawn(async move {
            let _ = tokio::time::timeout(settling, hurry.notified()).await;
            tokio::time::sleep_until(not_before).await;
            let (process, declarations) = host.load_process(&tree, &facts, false).await?;
            // A second child that was told something else would answer something else.
            match crate::host::declared(&declarations) == declared {
                true => Ok(process),
                false => Err(vec![declared_otherwise()]),
            }
        })));
    }
}

impl State {
    fn of(process: Process, standby: Standby) -> Self {
        Self { process: Some(process), standby, deaths: 0, failures: 0 }
    }
}

pub(crate) fn declared_otherwise() -> Finding {
    let message = "the tree declared something else when it was loaded a second time, on the same facts";
    let help =
        "do not go by the order of a hash's keys or values: sort them first; declare nothing within a test-module";
    Finding::error("", "", (0, 0), message, help)
}

/// How long to wait before the next load, after so many losses in a row.
fn pause(losses: u32) -> Duration {
    match losses {
        0 | 1 => Duration::ZERO,
        more => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(10)).min(LONGEST_PAUSE),
    }
}
