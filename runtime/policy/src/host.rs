//! The parent's side: starts children, keeps one ready, loads trees.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::bundle::PolicyTree;
use model::question::{Answer, Declarations, Question};
use model::routing::Facts;
use model::{ByteCount, Finding, Millis};

use crate::child::TYPED;
use crate::generation::{Generation, SETTLING, declared_otherwise};
use crate::process::Process;
use crate::zygote::{Expected, Nursery, Setup};

/// Children that stand ready: a save is loaded into two.
const SPARES: usize = 2;

/// What a child may use.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits {
    /// Processor time to load a tree and run its tests. By the clock it may take six times as long.
    pub load: Millis,
    /// Processor time to answer one question. By the clock it may take six times as long.
    pub question: Millis,
    /// Address space of one child. Beyond it the child aborts.
    pub memory: ByteCount,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self { load: Millis(3000), question: Millis(500), memory: ByteCount(512 << 20) }
    }
}

/// Why a question has no answer. Another child, loaded already or anew, takes the next one.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No child could be started.
    #[error("a policy host cannot be started from {executable}: {source}")]
    Start {
        /// What was to be run.
        executable: PathBuf,
        /// Why it could not.
        source: std::io::Error,
    },
    /// The socket to the child cannot be used.
    #[error("the socket to a policy host cannot be used: {0}")]
    Socket(std::io::Error),
    /// No answer came in time; the child was killed. Names the file, and the place where the interpreter could tell.
    #[error("{0}")]
    Deadline(Box<Finding>),
    /// The child ended by itself. Names the file that it was working on.
    #[error("{0}")]
    Died(Box<Finding>),
    /// The child said something unexpected: a bug, or a child of another version.
    #[error("the policy host broke the protocol: {0}")]
    Protocol(String),
    /// A tree that once loaded does not load any more.
    #[error("the policies no longer load: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Reload(Vec<Finding>),
    /// Too many questions wait already.
    #[error("{0} questions already wait for the policies")]
    Busy(usize),
    /// The host was shut down.
    #[error("the policy host was shut down")]
    ShutDown,
}

impl HostError {
    /// The error as a finding, placed as well as is known; without a file where the host itself is at fault.
    pub fn finding(&self) -> Finding {
        match self {
            Self::Deadline(finding) | Self::Died(finding) => Finding::clone(finding),
            other => Finding::error("", "", (0, 0), other.to_string(), ""),
        }
    }
}

/// Starts and supervises the children that run policies. Clones share one host.
#[derive(Clone)]
pub struct PolicyHost {
    inner: Arc<Inner>,
}

struct Inner {
    limits: HostLimits,
    /// Where children come from. Nothing after the shutdown.
    nursery: Mutex<Option<Nursery>>,
    /// Children that were asked for beforehand, so that a save does not wait for any; the oldest first.
    spares: Mutex<VecDeque<Expected>>,
}

impl PolicyHost {
    /// A host whose children are `executable policy-host …`; that must call
    /// [`crate::child_main`]. `library` holds the modules that policies may
    /// require, `repomind/regions.scm` to its text.
    ///
    /// # Errors
    /// [`HostError::Start`] when the first child cannot be started.
    pub fn start(executable: &Path, library: BTreeMap<String, String>, limits: HostLimits) -> Result<Self, HostError> {
        // Children run in `/`, so that a relative path would lead elsewhere.
        let executable = std::path::absolute(executable)
            .map_err(|source| HostError::Start { executable: executable.to_owned(), source })?;
        let setup = Setup { executable: executable.clone(), library, memory: limits.memory };
        let nursery = Nursery::start(setup).map_err(|source| HostError::Start { executable, source })?;
        let spares = Mutex::new((0..SPARES).map(|_| nursery.ask()).collect());
        let inner = Inner { limits, spares, nursery: Mutex::new(Some(nursery)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Kills the spare child and starts no more. Generations keep theirs until they are dropped.
    pub fn shutdown(&self) {
        lock(&self.inner.nursery).take();
        lock(&self.inner.spares).clear();
    }

    /// Loads `tree` into a fresh child: scan, compile, the files' own tests, the
    /// contract. `facts` are those that the policies see until others are asked with.
    ///
    /// # Errors
    /// All findings at once. One that names no file is about the host itself.
    pub async fn load(&self, tree: PolicyTree, facts: Facts) -> Result<(Generation, Declarations), Vec<Finding>> {
        let (process, declarations) = self.load_process(&tree, &facts, true).await?;
        let declared = declared(&declarations);
        Ok((Generation::new(self.clone(), tree, facts, declared, process), declarations))
    }

    /// As [`Self::load`], for a tree that has passed its tests and the law checks before.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub async fn load_again(&self, tree: PolicyTree, facts: Facts) -> Result<(Generation, Declarations), Vec<Finding>> {
        let (process, declarations) = self.load_process(&tree, &facts, false).await?;
        let declared = declared(&declarations);
        Ok((Generation::new(self.clone(), tree, facts, declared, process), declarations))
    }

    /// As [`Self::load`], into two children at once, which know nothing of each other: one answers, the other stands
    /// by, and [`Generation::answers_alike`] can compare them. The tests and the law checks are the first one's alone, and
    /// nobody's unless the tree is to be examined.
    ///
    /// # Errors
    /// As for [`Self::load`], or that the tree declared one thing in the one child and another in the other.
    pub async fn load_twice(
        &self,
        tree: PolicyTree,
        facts: Facts,
        examine: bool,
    ) -> Result<(Generation, Declarations), Vec<Finding>> {
        let (one, other) =
            tokio::join!(self.load_process(&tree, &facts, examine), self.load_process(&tree, &facts, false));
        // What the first found is more: both looked at the same files.
        let ((process, declarations), (second, declared_there)) = (one?, other?);
        let declared = declared(&declarations);
        if crate::host::declared(&declared_there) != declared {
            return Err(vec![declared_otherwise()]);
        }
        Ok((Generation::pair(self.clone(), tree, facts, declared, (process, second)), declarations))
    }

    /// Evaluates `source` beside `tree` in a child that dies afterwards: what it
    /// prints, then its last value. An empty tree is not loaded: then only the library is there.
    /// `earlier` are definitions that it may use.
    ///
    /// # Errors
    /// What is wrong with the tree or the source.
    pub async fn scratch_eval(
        &self,
        tree: PolicyTree,
        facts: Facts,
        (earlier, source): (Vec<String>, String),
    ) -> Result<String, Vec<Finding>> {
        let mut process = if tree.0.is_empty() {
            let _next = NextSpare(self);
            self.take().await.map_err(|error| vec![error.finding()])?
        } else {
            self.load_process(&tree, &facts, false).await?.0
        };
        match process.ask(Question::Eval { earlier, source: source.clone() }, self.inner.limits.load).await {
            Ok(Answer::Value(value)) => Ok(value),
            Ok(Answer::Refused(findings)) => Err(findings),
            Ok(_) => Err(vec![unasked().finding()]),
            Err(error) => Err(vec![in_typed(error.finding(), &source)]),
        }
    }

    /// Puts one question to a fresh child, which dies afterwards.
    ///
    /// # Errors
    /// No answer came within `limit`, or the child died of the question.
    pub async fn ask_once(&self, question: Question, limit: Millis) -> Result<Answer, HostError> {
        let _next = NextSpare(self);
        self.take().await?.ask(question, limit).await
    }

    /// Loads a tree into a child of its own; where it is to be examined, with its tests and the law checks.
    pub(crate) async fn load_process(
        &self,
        tree: &PolicyTree,
        facts: &Facts,
        examine: bool,
    ) -> Result<(Process, Declarations), Vec<Finding>> {
        let _next = NextSpare(self);
        let mut process = self.take().await.map_err(|error| vec![error.finding()])?;
        let question = Question::Load { tree: tree.clone(), facts: facts.clone(), examine };
        match process.ask(question, self.inner.limits.load).await {
            Ok(Answer::Loaded(declarations)) => Ok((process, *declarations)),
            Ok(Answer::Refused(findings)) => Err(findings),
            Ok(_) => Err(vec![unasked().finding()]),
            Err(error) => Err(vec![self.located(error.finding(), tree, facts).await]),
        }
    }

    /// The finding about a tree that brought its child down, with its place. The interpreter often knows none: then a
    /// second child is told to say which form it comes to, and meets the same end.
    async fn located(&self, finding: Finding, tree: &PolicyTree, facts: &Facts) -> Finding {
        let Some(text) = tree.0.get(&finding.file).filter(|_| finding.line == 0) else { return finding };
        let Ok(mut process) = self.take().await else { return finding };
        let file = finding.file.clone();
        let question = Question::Locate { tree: tree.clone(), file, facts: facts.clone() };
        let _ = process.ask(question, self.inner.limits.load).await;
        match process.form() {
            Some((file, at)) if file == finding.file => Finding::error(file, text, at, finding.message, finding.help),
            _ => finding,
        }
    }

    /// How long a question may take.
    pub(crate) fn limits(&self) -> HostLimits {
        self.inner.limits
    }

    /// A child that is ready: the spare if it lives, else a new one.
    async fn take(&self) -> Result<Process, HostError> {
        let spare = lock(&self.inner.spares).pop_front();
        if let Some(expected) = spare
            && let Ok(Ok(mut process)) = expected.await
            && process.ready().await.is_ok()
        {
            return Ok(process);
        }
        let expected = lock(&self.inner.nursery).as_ref().map(Nursery::ask).ok_or(HostError::ShutDown)?;
        let mut process = expected.await.unwrap_or(Err(HostError::ShutDown))?;
        process.ready().await?;
        Ok(process)
    }

    /// Asks for the next spares.
    fn refill(&self) {
        let nursery = lock(&self.inner.nursery);
        if let Some(nursery) = nursery.as_ref() {
            let mut spares = lock(&self.inner.spares);
            while spares.len() < SPARES {
                spares.push_back(nursery.ask());
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the next spares some time after a load is over, also when it was cut short: a child in the making takes no
/// time from what follows the load, here or in another region on the same machine.
struct NextSpare<'a>(&'a PolicyHost);

impl Drop for NextSpare<'_> {
    fn drop(&mut self) {
        let host = self.0.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(SETTLING).await;
                host.refill();
            })),
            Err(_) => host.refill(),
        }
    }
}

/// What a tree declares, as bytes to compare: not how its tests went, which not every load runs.
pub(crate) fn declared(declarations: &Declarations) -> Vec<u8> {
    let compared = Declarations { tests_passed: 0, tests: Default::default(), ..declarations.clone() };
    postcard::to_stdvec(&compared).unwrap_or_default()
}

/// The finding about typed forms that brought their child down, with its place where there is but one form.
fn in_typed(finding: Finding, source: &str) -> Finding {
    let forms = crate::scan::scan(TYPED, source, |_| true, &[]).forms;
    match forms.as_slice() {
        [only] if finding.file == TYPED && finding.line == 0 => {
            let width = source[only.bytes.clone()].lines().next().map_or(1, |line| line.chars().count());
            let placed = Finding::error(TYPED, source, only.place, finding.message, finding.help);
            placed.spanning(u32::try_from(width).unwrap_or(1))
        }
        _ => finding,
    }
}

fn unasked() -> HostError {
    HostError::Protocol("another answer than asked for".to_owned())
}
