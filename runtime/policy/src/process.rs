//! One child process: asked with a deadline, killed and reaped.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use model::question::{Answer, Question};
use model::{ByteCount, Finding, Millis};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::child::cage::PATIENCE;
use crate::child::{LOOP, too_late};
use crate::host::HostError;
use crate::wire::{self, Order, Report};

/// How long a child may take to shut its cage. It takes 0.01 s alone on a processor.
const SHUT: Duration = Duration::from_secs(15);
/// A dying child closes its socket a moment before its status is there: how often that is looked for,
/// a millisecond apart, before it is killed.
const LOOKS: u32 = 20;
/// How much of a child's last words is kept, in bytes.
const LAST_WORDS: u64 = 2048;

/// A child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    /// Always there until it died or is dropped.
    child: Option<Child>,
    socket: Socket,
    /// The file that the child was last heard to work on.
    at: String,
    /// The form of that file, line and column, where the child tells of forms.
    form: Option<(u32, u32)>,
}

/// A process that became ours when it was born: ours to kill and to reap, and not yet reaped,
/// so that its id means no other.
#[derive(Debug)]
struct Child {
    id: Pid,
    errors: OwnedFd,
}

impl Child {
    /// Its status, where it has ended; it must not be used afterwards.
    fn try_wait(&self, options: WaitOptions) -> std::io::Result<Option<ExitStatus>> {
        let waited = rustix::io::retry_on_intr(|| waitpid(Some(self.id), options))?;
        Ok(waited.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
    }

    /// Whether it still runs; one that does not remains to be reaped.
    fn runs(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.id), options), Ok(None))
    }

    fn kill(&self) -> std::io::Result<()> {
        Ok(kill_process(self.id, Signal::KILL)?)
    }
}

#[derive(Debug)]
enum Socket {
    /// Not yet registered with a runtime: children are also started outside of one.
    Plain(StdStream),
    Registered(UnixStream),
    Gone,
}

impl Process {
    /// The child that was just born.
    ///
    /// # Errors
    /// The socket cannot be used; then the child ends by itself.
    pub fn born(id: u32, socket: StdStream, errors: OwnedFd) -> std::io::Result<Self> {
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| std::io::Error::other("a child without an id"))?;
        let mut process =
            Self { child: Some(Child { id, errors }), socket: Socket::Gone, at: String::new(), form: None };
        socket.set_nonblocking(true)?;
        process.socket = Socket::Plain(socket);
        Ok(process)
    }

    /// Waits until the child stands in its cage.
    pub async fn ready(&mut self) -> Result<(), HostError> {
        let deadline = Instant::now() + SHUT;
        match self.receive(deadline, SHUT).await? {
            Report::Ready(missing) => {
                for part in missing {
                    tracing::warn!(missing = %part, "a policy host runs without a part of its cage");
                }
                Ok(())
            }
            other => Err(HostError::Protocol(format!("expected a child to be ready, heard {other:?}"))),
        }
    }

    /// Puts a question, which may take `limit` of processor time and [`PATIENCE`] times as long by the clock.
    ///
    /// # Errors
    /// After one, the child is good for nothing more: drop it.
    pub async fn ask(&mut self, question: Question, limit: Millis) -> Result<Answer, HostError> {
        let patience = Millis(limit.0.saturating_mul(PATIENCE)).duration();
        let deadline = Instant::now() + patience;
        self.at.clear();
        self.send(&Order { question, limit }, deadline, patience).await?;
        loop {
            match self.receive(deadline, patience).await? {
                Report::At(file) => (self.at, self.form) = (file, None),
                Report::AtForm(line, column) => self.form = Some((line, column)),
                Report::Answer(answer) => return Ok(answer),
                Report::Late(finding) => return Err(HostError::Deadline(Box::new(finding))),
                other => return Err(HostError::Protocol(format!("expected an answer, heard {other:?}"))),
            }
        }
    }

    /// Whether the child still runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_ref().is_some_and(Child::runs)
    }

    /// The form that the child was last heard to come to: file, line and column.
    pub fn form(&self) -> Option<(&str, (u32, u32))> {
        Some((&self.at, self.form?))
    }

    /// The memory that it has resident, where the system tells.
    pub fn resident(&self) -> Option<ByteCount> {
        let id = self.child.as_ref()?.id;
        let text = std::fs::read_to_string(format!("/proc/{}/statm", id.as_raw_nonzero())).ok()?;
        let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
        Some(ByteCount(pages * rustix::param::page_size() as u64))
    }

    /// The process id, for tests and logs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.id.as_raw_nonzero().get().unsigned_abs())
    }

    fn socket(&mut self) -> Result<&mut UnixStream, HostError> {
        self.socket = match std::mem::replace(&mut self.socket, Socket::Gone) {
            Socket::Plain(plain) => Socket::Registered(UnixStream::from_std(plain).map_err(HostError::Socket)?),
            other => other,
        };
        match &mut self.socket {
            Socket::Registered(stream) => Ok(stream),
            _ => Err(HostError::Protocol("the socket is gone".to_owned())),
        }
    }

    async fn send(&mut self, order: &Order, deadline: Instant, limit: Duration) -> Result<(), HostError> {
        let bytes = wire::frame(order).map_err(|error| HostError::Protocol(error.to_string()))?;
        let written = timeout_at(deadline, self.socket()?.write_all(&bytes)).await;
        self.heard(written, limit).await
    }

    async fn receive<T: DeserializeOwned>(&mut self, deadline: Instant, limit: Duration) -> Result<T, HostError> {
        let mut head = [0; 4];
        let read = timeout_at(deadline, self.socket()?.read_exact(&mut head)).await;
        self.heard(read, limit).await?;
        let length = wire::length(head).map_err(|error| HostError::Protocol(error.to_string()))?;
        let mut body = vec![0; length];
        let read = timeout_at(deadline, self.socket()?.read_exact(&mut body)).await;
        self.heard(read, limit).await?;
        wire::value(&body).map_err(|error| HostError::Protocol(error.to_string()))
    }

    async fn heard<T>(
        &mut self,
        outcome: Result<std::io::Result<T>, tokio::time::error::Elapsed>,
        limit: Duration,
    ) -> Result<T, HostError> {
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(self.died().await),
            Err(_) => {
                let message = too_late(Millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)));
                Err(HostError::Deadline(Box::new(Finding::error(self.at.as_str(), "", (0, 0), message, LOOP))))
            }
        }
    }

    /// Why the child's end of the socket is closed.
    async fn died(&mut self) -> HostError {
        let (message, help) = match self.child.take() {
            None => ("it was gone".to_owned(), ""),
            Some(child) => match ended(&child).await {
                Ok(status) => (describe(status, last_words(child).trim()), remedy(status)),
                Err(error) => (format!("its end is not known: {error}"), ""),
            },
        };
        let message = format!("the policy host died: {message}");
        HostError::Died(Box::new(Finding::error(self.at.as_str(), "", (0, 0), message, help)))
    }
}

/// The status of a child that closed its socket, so it is ending or has ended.
async fn ended(child: &Child) -> std::io::Result<ExitStatus> {
    for _ in 0..LOOKS {
        if let Some(status) = child.try_wait(WaitOptions::NOHANG)? {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill()?;
    child.try_wait(WaitOptions::empty())?.ok_or_else(|| std::io::Error::other("its status is not known"))
}

/// What a child that has ended wrote to its standard error.
fn last_words(child: Child) -> String {
    let mut words = String::new();
    // Its writing end is closed, so this cannot block.
    let _ = std::fs::File::from(child.errors).take(LAST_WORDS).read_to_string(&mut words);
    words
}

fn remedy(status: ExitStatus) -> &'static str {
    match status.signal() {
        Some(libc::SIGSYS) => "policies compute and nothing else: no files, processes, sockets or threads",
        Some(libc::SIGPROF) => LOOP,
        _ => "look for recursion without an end, or for something that grows without bound",
    }
}

fn describe(status: ExitStatus, words: &str) -> String {
    let how = match status.signal() {
        Some(libc::SIGABRT) => "the interpreter gave up, as it does when memory runs out".to_owned(),
        Some(libc::SIGKILL) => "it was killed".to_owned(),
        Some(libc::SIGPROF) => "it used up its processor time".to_owned(),
        Some(libc::SIGSYS) => "it made a system call that the cage denies".to_owned(),
        Some(libc::SIGSEGV) => "it ran out of stack".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None => format!("exit code {}", status.code().unwrap_or(-1)),
    };
    match words.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("{how} ({})", line.trim()),
        None => how,
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        let _ = child.kill();
        // A process of hundreds of megabytes takes some milliseconds to go; do not keep a runtime thread for it.
        let reaper = std::thread::Builder::new().name("policy-reaper".to_owned());
        let _ = reaper.spawn(move || {
            let _ = child.try_wait(WaitOptions::empty());
        });
    }
}
