//! The process that children are forked from.
//!
//! It builds an engine, reads the Scheme library into it, and waits. For each
//! request it forks a child, which shuts its cage and takes questions; so a child
//! is ready in some ten milliseconds where an engine takes a quarter of a second.
//!
//! ```text
//!   parent ──exec──▶ zygote ──fork──▶ midwife ──fork──▶ child
//!                      │                 └ ends at once, so that the child becomes the parent's
//!                      └ reaps the midwife, then tells the parent who was born
//! ```
//!
//! It never sees a policy, and never collects garbage: the first collection of a
//! process starts threads, and a process that forks must have one thread only.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::interpreter::Interpreter;
use super::{Library, cage};
use crate::wire::{self, Report};

/// How often at most the state of the hash order is moved on in a new child.
const SHUFFLES: u16 = u16::MAX;

/// What a child is given to live with.
pub struct Belongings {
    /// Its questions come in here and its answers go out.
    pub socket: File,
    /// Its last words go here.
    pub errors: OwnedFd,
}

/// Serves requests for children until the parent closes its end.
pub fn serve(memory: u64, scanning: bool) -> io::Result<()> {
    cage::steady_memory();
    let mut control = cage::take_standard_input()?;
    let Some(library) = wire::read::<Library>(&mut control)? else { return Ok(()) };
    let interpreter = warm(library, scanning);
    cage::on_interrupt(interpreter.interrupter())?;
    // Opened before the cage forbids it; read again before every fork.
    let mut own = File::open("/proc/self/stat").ok();
    let missing = cage::shut_before_fork(memory);
    let control = UnixStream::from(OwnedFd::from(control));
    while let Some(belongings) = receive(&control)? {
        alone(own.as_mut())?;
        if let Some(belongings) = bear(belongings)? {
            drop((control, own));
            shuffle_hashes();
            return super::serve(interpreter, belongings, missing);
        }
        interpreter.resume();
    }
    Ok(())
}

/// An engine that has read the library. A library that does not load is left to the
/// trees that require it: they say where it is wrong.
fn warm(library: Library, scanning: bool) -> Interpreter {
    let mut interpreter = Interpreter::new(scanning);
    interpreter.set_library(library.clone());
    if !interpreter.read_library() {
        interpreter = Interpreter::new(scanning);
        interpreter.set_library(library);
    }
    interpreter
}

/// The next request: a byte, with the child's socket and its standard error. Nothing at the end.
fn receive(control: &UnixStream) -> io::Result<Option<Belongings>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [io::IoSliceMut::new(&mut byte)];
    let message = retry_on_intr(|| recvmsg(control, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut given = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    match (given.next(), given.next()) {
        (Some(socket), Some(errors)) => Ok(Some(Belongings { socket: File::from(socket), errors })),
        _ => Err(io::Error::other("a child was asked for without a socket and a pipe")),
    }
}

/// Whether this process has one thread, as it must before it forks.
fn alone(own: Option<&mut File>) -> io::Result<()> {
    use std::io::Seek;
    let Some(own) = own else { return Ok(()) };
    own.rewind()?;
    let mut text = String::new();
    own.read_to_string(&mut text)?;
    // pid (name, which may hold anything) state … the twentieth is the number of threads.
    let threads = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(17));
    match threads {
        Some("1") | None => Ok(()),
        Some(more) => Err(io::Error::other(format!("a zygote with {more} threads cannot fork"))),
    }
}

/// Forks a child. In the child: what it lives with. In the zygote: nothing, once the parent has been told.
fn bear(belongings: Belongings) -> io::Result<Option<Belongings>> {
    let (mut ours, theirs) = UnixStream::pair()?;
    // SAFETY: this process has one thread (`alone`), so that the copy is whole.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(ours);
            midwife(theirs);
            Ok(Some(belongings))
        }
        midwife => {
            drop(theirs);
            let mut id = [0; 4];
            let said = ours.read_exact(&mut id);
            // SAFETY: waits for a child of this process; no status is asked for.
            while unsafe { libc::waitpid(midwife, std::ptr::null_mut(), 0) } < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
            said.map_err(|_| io::Error::other("the second fork failed"))?;
            // A parent that is gone is noticed at the next request.
            let _ = wire::write(&mut &belongings.socket, &Report::Born(u32::from_le_bytes(id)));
            // Its end tells the child that the parent knows of it.
            drop(ours);
            Ok(None)
        }
    }
}

/// Forks once more and returns in the child only, when its birth is known.
fn midwife(mut zygote: UnixStream) {
    // SAFETY: as in `bear`.
    match unsafe { libc::fork() } {
        0 => {
            let _ = zygote.read(&mut [0]);
        }
        child => {
            if child > 0 {
                let _ = zygote.write_all(&child.to_le_bytes());
            }
            // SAFETY: ends this process without running what the zygote registered for its own end.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Gives this process an order of its own for the keys of hashes. Forked children
/// would share the zygote's, and a policy that goes by that order would answer
/// alike in all of them and otherwise in another region.
fn shuffle_hashes() {
    let mut random = [0; 2];
    // Failing that, children of one zygote share an order; those of other regions still differ.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    for _ in 0..u16::from_le_bytes(random) % SHUFFLES {
        // The standard library derives each state from the one before it.
        std::hint::black_box(std::hash::RandomState::new());
    }
}
