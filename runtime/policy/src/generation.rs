//! One loaded tree, and the child that holds it.
//!
//! ```text
//!   loaded ──ask──▶ asking ──answer──▶ loaded
//!                     └──deadline, death──▶ lost ──next ask, after a pause──▶ loading ──▶ loaded
//! ```
//!
//! The child is *out* of the state while it is asked: when the asker is
//! cancelled, the child goes with it, and no answer is ever taken for that of another question.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::ByteCount;
use model::bundle::PolicyTree;
use model::question::{Answer, Question};
use model::routing::Facts;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::host::{HostError, PolicyHost};
use crate::process::Process;

/// How many questions may wait for one child.
const MOST_WAITING: usize = 1024;
/// The pause after the second death in a row; it doubles with each further one. The first costs no pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Interpreters grow with every call; beyond this much resident memory a child is replaced between questions.
const RECYCLE: ByteCount = ByteCount(160 << 20);

/// A tree that was loaded, ready to be asked. Clones share the child; dropping the last kills it.
#[derive(Clone)]
pub struct Generation {
    inner: Arc<Inner>,
}

struct Inner {
    host: PolicyHost,
    tree: PolicyTree,
    facts: Facts,
    waiting: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    /// None while it is asked, and after it was lost.
    process: Option<Process>,
    /// Deaths in a row.
    deaths: u32,
    /// When it may be loaded again.
    not_before: Instant,
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
    pub(crate) fn new(host: PolicyHost, tree: PolicyTree, facts: Facts, process: Process) -> Self {
        let state = State { process: Some(process), deaths: 0, not_before: Instant::now() };
        let inner = Inner { host, tree, facts, waiting: AtomicUsize::new(0), state: Mutex::new(state) };
        Self { inner: Arc::new(inner) }
    }

    /// Puts a question. Questions are answered one after the other. A child that
    /// was lost is loaded anew first, after a pause that grows with each death in a row.
    ///
    /// An answer of the wrong shape is [`Answer::Refused`], with the place.
    ///
    /// # Errors
    /// No answer came within the limit, or the child died of the question.
    pub async fn ask(&self, question: Question) -> Result<Answer, HostError> {
        let _waiting = Waiting::join(&self.inner.waiting)?;
        let mut state = self.inner.state.lock().await;
        let mut process = match state.process.take() {
            Some(process) => process,
            None => self.load_again(&mut state).await?,
        };
        match process.ask(question, self.inner.host.limits().question, &mut |_| ()).await {
            Ok(answer) => {
                state.deaths = 0;
                if process.resident().is_none_or(|resident| resident < RECYCLE) {
                    state.process = Some(process);
                }
                Ok(answer)
            }
            Err(error) => {
                state.died();
                tracing::warn!(%error, child = process.id(), deaths = state.deaths, "a policy host was lost");
                Err(error)
            }
        }
    }

    async fn load_again(&self, state: &mut State) -> Result<Process, HostError> {
        tokio::time::sleep_until(state.not_before).await;
        let loaded = self.inner.host.load_process(&self.inner.tree, &self.inner.facts).await;
        self.inner.host.refill();
        match loaded {
            Ok((process, _)) => Ok(process),
            Err(findings) => {
                state.died();
                Err(HostError::Reload(findings))
            }
        }
    }
}

impl State {
    fn died(&mut self) {
        self.deaths = self.deaths.saturating_add(1);
        let pause = match self.deaths {
            0 | 1 => Duration::ZERO,
            more => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(10)).min(LONGEST_PAUSE),
        };
        self.not_before = Instant::now() + pause;
    }
}
