//! One child process: started, asked with a deadline, killed and reaped.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use model::question::{Answer, Question};
use model::{ByteCount, Finding, Millis};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::child::{LOOP, too_slow};
use crate::host::HostError;
use crate::wire::{self, Order, Report};

/// How long a child may take to build its engine. It takes 0.25 s alone on a processor.
const START: Duration = Duration::from_secs(15);
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
}

#[derive(Debug)]
enum Socket {
    /// Not yet registered with a runtime: children are also started outside of one.
    Plain(StdStream),
    Registered(UnixStream),
    Gone,
}

impl Process {
    /// Starts a child of `executable`. It builds its engine at once.
    pub fn start(executable: &Path, memory: ByteCount) -> std::io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(executable)
            .arg("policy-host")
            .arg(memory.0.to_string())
            .env_clear()
            // Never a directory, so that the interpreter finds no modules on disk.
            .env("STEEL_HOME", "/dev/null")
            .current_dir("/")
            // An interrupt typed at the terminal is for the daemon to handle.
            .process_group(0)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child: Some(child), socket: Socket::Plain(ours), at: String::new() })
    }

    /// Waits until the child stands in its cage, and gives it the library.
    pub async fn ready(&mut self, library: &BTreeMap<String, String>) -> Result<(), HostError> {
        let deadline = Instant::now() + START;
        match self.receive(deadline, START).await? {
            Report::Ready(missing) => {
                for part in missing {
                    tracing::warn!(missing = %part, "a policy host runs without a part of its cage");
                }
            }
            other => return Err(HostError::Protocol(format!("expected a child to be ready, heard {other:?}"))),
        }
        self.send(&Order::Library(library.clone()), deadline, START).await
    }

    /// Puts a question.
    ///
    /// # Errors
    /// After one, the child is good for nothing more: drop it.
    pub async fn ask(&mut self, question: Question, limit: Millis) -> Result<Answer, HostError> {
        let limit_duration = limit.duration();
        let deadline = Instant::now() + limit_duration;
        self.at.clear();
        self.send(&Order::Ask { question, limit }, deadline, limit_duration).await?;
        loop {
            match self.receive(deadline, limit_duration).await? {
                Report::At(file) => self.at = file,
                Report::Answer(answer) => return Ok(answer),
                Report::Late(finding) => return Err(HostError::Deadline(Box::new(finding))),
                Report::Ready(_) => return Err(HostError::Protocol("a child was ready twice".to_owned())),
            }
        }
    }

    /// Whether the child still runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The memory that it has resident, where the system tells.
    pub fn resident(&self) -> Option<ByteCount> {
        let id = self.child.as_ref()?.id();
        let text = std::fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
        let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
        Some(ByteCount(pages * rustix::param::page_size() as u64))
    }

    /// The process id, for tests and logs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
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
                let message = too_slow(Millis(limit.as_millis() as u64));
                Err(HostError::Deadline(Box::new(Finding::error(self.at.as_str(), "", (0, 0), message, LOOP))))
            }
        }
    }

    /// Why the child's end of the socket is closed.
    async fn died(&mut self) -> HostError {
        let (message, help) = match self.child.take() {
            None => ("it was gone".to_owned(), ""),
            Some(mut child) => match ended(&mut child).await {
                Ok(status) => (describe(status, last_words(&mut child).trim()), remedy(status)),
                Err(error) => (format!("its end is not known: {error}"), ""),
            },
        };
        let message = format!("the policy host died: {message}");
        HostError::Died(Box::new(Finding::error(self.at.as_str(), "", (0, 0), message, help)))
    }
}

/// The status of a child that closed its socket, so it is ending or has ended.
async fn ended(child: &mut Child) -> std::io::Result<ExitStatus> {
    for _ in 0..LOOKS {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill()?;
    child.wait()
}

/// What a child that has ended wrote to its standard error.
fn last_words(child: &mut Child) -> String {
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Its writing end is closed, so this cannot block.
        let _ = stderr.take(LAST_WORDS).read_to_string(&mut words);
    }
    words
}

fn remedy(status: ExitStatus) -> &'static str {
    match status.signal() {
        Some(libc::SIGSYS) => "policies compute and nothing else: no files, processes, sockets or threads",
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
        let Some(mut child) = self.child.take() else { return };
        if child.kill().is_err() {
            return;
        }
        // A process of hundreds of megabytes takes some milliseconds to go; do not keep a runtime thread for it.
        let reaper = std::thread::Builder::new().name("policy-reaper".to_owned());
        let _ = reaper.spawn(move || {
            let _ = child.wait();
        });
    }
}
