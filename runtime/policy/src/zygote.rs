//! The parent's side of the zygote: starts it, asks it for children, replaces it when it is lost.
//!
//! A thread of its own does so, because a request is answered only when the zygote's
//! engine stands, and because a child that nobody waits for any more must still be
//! reaped: whoever gives up waiting drops the answer, and with it the child.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use model::ByteCount;
use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::sync::oneshot;

use crate::child::Library;
use crate::host::HostError;
use crate::process::Process;
use crate::wire::{self, Report};

/// How long a zygote may take to build its engine and bear its first child. It takes 0.3 s alone on a processor.
const START: Duration = Duration::from_secs(15);
/// Zygotes started for one child before the request fails.
const TRIES: u32 = 2;
/// How much of a zygote's last words is kept, in bytes.
const LAST_WORDS: u64 = 2048;

/// What a zygote is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What is run; it must call [`crate::child_main`].
    pub executable: PathBuf,
    /// The modules that policies may require.
    pub library: Library,
    /// The address space of each child.
    pub memory: ByteCount,
}

/// A child that was asked for.
pub type Expected = oneshot::Receiver<Result<Process, HostError>>;

/// Gives children of one zygote, and of the next where that one is lost. Dropping it ends the zygote.
pub struct Nursery {
    requests: Sender<oneshot::Sender<Result<Process, HostError>>>,
}

impl Nursery {
    /// Starts the first zygote.
    ///
    /// # Errors
    /// The executable cannot be run.
    pub fn start(setup: Setup) -> std::io::Result<Self> {
        // Children end up with the nearest process that says so; it must reap them.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let first = Zygote::start(&setup)?;
        let (requests, asked) = channel();
        let thread = std::thread::Builder::new().name("policy-nursery".to_owned());
        thread.spawn(move || keep(&setup, first, &asked))?;
        Ok(Self { requests })
    }

    /// Asks for a child. One that is not wanted any more when it comes is ended.
    pub fn ask(&self) -> Expected {
        let (answer, expected) = oneshot::channel();
        // A thread that is gone drops the request, which says enough.
        let _ = self.requests.send(answer);
        expected
    }
}

/// Bears a child for each request, until nobody can ask any more.
fn keep(setup: &Setup, first: Zygote, asked: &Receiver<oneshot::Sender<Result<Process, HostError>>>) {
    let mut zygote = Some(first);
    for answer in asked {
        let mut born = Err(HostError::ShutDown);
        for _ in 0..TRIES {
            // Nobody waits: leave the zygote as it is.
            if answer.is_closed() {
                break;
            }
            born = bear(setup, &mut zygote);
            match &born {
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "the process that policy hosts are forked from is replaced");
                    zygote = None;
                }
            }
        }
        let _ = answer.send(born);
    }
}

/// A child of the zygote at hand, or of a new one.
fn bear(setup: &Setup, zygote: &mut Option<Zygote>) -> Result<Process, HostError> {
    let zygote = match zygote {
        Some(zygote) => zygote,
        None => {
            let started = Zygote::start(setup)
                .map_err(|source| HostError::Start { executable: setup.executable.clone(), source })?;
            zygote.insert(started)
        }
    };
    zygote.bear().map_err(|error| HostError::Protocol(format!("no child was born: {error}{}", zygote.last_words())))
}

struct Zygote {
    child: Child,
    control: UnixStream,
}

impl Zygote {
    /// Starts a zygote. It builds its engine at once.
    fn start(setup: &Setup) -> std::io::Result<Self> {
        let (mut control, theirs) = UnixStream::pair()?;
        let child = command(&setup.executable, setup.memory)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        control.set_write_timeout(Some(START))?;
        let zygote = Self { child, control: control.try_clone()? };
        // A zygote that ended already says so at the first request.
        let _ = wire::write(&mut control, &setup.library);
        Ok(zygote)
    }

    /// Has a child forked, and waits until it is.
    fn bear(&mut self) -> std::io::Result<Process> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let (errors, speaks) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let given = [theirs.as_fd(), speaks.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&given)), "the space is that of two descriptors");
        let byte = [std::io::IoSlice::new(&[1])];
        retry_on_intr(|| sendmsg(&self.control, &byte, &mut ancillary, SendFlags::NOSIGNAL))?;
        // With our copies closed, the end of the zygote closes the socket.
        drop((theirs, speaks));
        ours.set_read_timeout(Some(START))?;
        match wire::read(&mut ours)? {
            Some(Report::Born(id)) => {
                ours.set_read_timeout(None)?;
                Process::born(id, ours, errors)
            }
            Some(other) => Err(std::io::Error::other(format!("expected a birth, heard {other:?}"))),
            None => Err(std::io::Error::other("the zygote ended")),
        }
    }

    /// What a zygote that failed wrote to its standard error. Ends it.
    fn last_words(&mut self) -> String {
        let mut words = String::new();
        let _ = self.child.kill();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(LAST_WORDS).read_to_string(&mut words);
        }
        words
            .lines()
            .find(|line| !line.trim().is_empty())
            .map_or_else(String::new, |line| format!(" ({})", line.trim()))
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(executable: &Path, memory: ByteCount) -> Command {
    let mut command = Command::new(executable);
    command
        .arg("policy-host")
        .arg(memory.0.to_string())
        .env_clear()
        // Never a directory, so that the interpreter finds no modules on disk.
        .env("STEEL_HOME", "/dev/null")
        .current_dir("/")
        // An interrupt typed at the terminal is for the daemon to handle.
        .process_group(0);
    command
}
