//! The cage: what the child process gives up before it sees a policy.
//!
//! | what | how |
//! |---|---|
//! | memory | `RLIMIT_AS`: an allocation beyond it aborts the child |
//! | time | `ITIMER_PROF` interrupts the interpreter after so much processor time, so that it can say where it was, and kills it when it does not heed that; the parent kills what takes [`PATIENCE`] times as long by the clock |
//! | files | Landlock without a rule; `RLIMIT_FSIZE` 0, `RLIMIT_CORE` 0, `RLIMIT_NOFILE` 16 |
//! | everything else | seccomp: a list of the calls that an interpreter needs, all others kill |
//!
//! The zygote shuts what is inherited, each child the rest. An engine starts
//! threads at its first garbage collection: one is forced in the child, on one
//! processor so that there are two marker threads and not one a processor, and then
//! `clone` is denied for good.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus};
use model::Millis;
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

/// What the child may have open: three standard streams, the socket, the pipe, and slack.
const DESCRIPTORS: u64 = 16;
/// How many times its limit of processor time a question may take by the clock. A machine with too much to do
/// slows every child down: that is no loop, and must cost no child.
pub const PATIENCE: u64 = 6;
/// How much of what a policy prints is kept, in bytes: what a pipe holds.
pub const PRINTED: usize = 64 << 10;

/// What this system lacks of the cage; empty where it is whole.
pub fn cage_report() -> Vec<String> {
    let mut missing = Vec::new();
    // SAFETY: asks for the ABI version (flag 1) with a null attribute of size 0, as landlock_create_ruleset(2) has it.
    let landlock = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, 1u32) };
    if landlock < 1 {
        missing.push("Landlock (files are refused by seccomp alone)".to_owned());
    }
    // SAFETY: PR_GET_SECCOMP takes no arguments and reads the mode of this thread.
    if unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } < 0 {
        missing.push("seccomp (policies can make any system call that limits and Landlock leave them)".to_owned());
    }
    missing
}

/// One arena: many arenas would reserve more address space than `RLIMIT_AS` leaves.
pub fn steady_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: called first thing in main, before other threads could allocate.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// The socket to the parent, moved away from standard input, where a policy could read it.
pub fn take_standard_input() -> io::Result<File> {
    // Not a `UnixStream`: in a child its reads would be recvfrom(2), which the cage denies.
    let socket = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    replace(0, &File::open("/dev/null")?)?;
    Ok(socket)
}

/// Turns standard output into a pipe that this process reads back.
pub fn take_standard_output() -> io::Result<File> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK)?;
    replace(1, &write)?;
    Ok(File::from(read))
}

/// Puts a descriptor in the place of a standard stream.
pub fn replace(stream: i32, by: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: `by` is open, and the standard streams are owned by nobody in this process.
    match unsafe { libc::dup2(by.as_raw_fd(), stream) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What was printed since the last call, at most [`PRINTED`] bytes.
pub fn drain(printed: &mut File) -> String {
    // A full pipe refuses the rest: printing has a limit too.
    let _ = io::stdout().flush();
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while text.len() < PRINTED {
        match printed.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(read) => text.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Shuts what a zygote does without too, and all its children inherit; says what of it is missing.
pub fn shut_before_fork(memory: u64) -> Vec<String> {
    let mut missing = shut_limits(memory);
    match shut_files() {
        Ok(RulesetStatus::NotEnforced) => missing.push("Landlock".to_owned()),
        Ok(_) => {}
        Err(error) => missing.push(format!("Landlock ({error})")),
    }
    missing
}

/// Shuts the rest of the cage in a child, for good, and says what of it is missing. `collect` must make
/// the engine start every thread that it will ever have.
pub fn shut_after_fork(collect: impl FnOnce()) -> Option<String> {
    on_one_processor(collect);
    shut_calls().err().map(|error| format!("seccomp ({error})"))
}

/// The limits on memory, files and descriptors; gives those that cannot be set.
pub fn shut_limits(memory: u64) -> Vec<String> {
    let mut missing = Vec::new();
    let limits = [(Resource::As, memory), (Resource::Core, 0), (Resource::Fsize, 0), (Resource::Nofile, DESCRIPTORS)];
    for (resource, limit) in limits {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        if let Err(error) = setrlimit(resource, limit) {
            missing.push(format!("the limit on {resource:?} ({error})"));
        }
    }
    missing
}

/// No file by name, no address by number.
pub fn shut_files() -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V4;
    let rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.handle_access(AccessNet::from_all(abi))?;
    Ok(rules.create()?.restrict_self()?.ruleset)
}

fn on_one_processor(run: impl FnOnce()) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let before = sched_getaffinity(None).ok();
    let first = before.as_ref().and_then(|set| (0..CpuSet::MAX_CPU).find(|&at| set.is_set(at)));
    if let Some(first) = first {
        let mut one = CpuSet::new();
        one.set(first);
        // Failing that, there are more marker threads, which does no harm.
        let _ = sched_setaffinity(None, &one);
    }
    run();
    if let Some(before) = before {
        let _ = sched_setaffinity(None, &before);
    }
}

/// What an interpreter needs, found by tracing one through all questions.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_sched_yield,
    libc::SYS_getcwd,
    libc::SYS_setitimer,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    // At the end of a process that has an alternative stack for signals.
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
];

/// Looked up by the module loader; told "no" where others are killed.
const NO_LINK: &[i64] = &[
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];
const NO_FILE: &[i64] = &[libc::SYS_statx];

/// No system call but those that an interpreter needs.
pub fn shut_calls() -> Result<(), seccompiler::Error> {
    // abort(3) signals a thread of its own process; no other process may be signalled.
    let own = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    let own = SeccompRule::new(vec![own])?;
    let filter = |calls: &mut dyn Iterator<Item = i64>, otherwise, matched| {
        let mut rules: BTreeMap<i64, Vec<_>> = calls.map(|call| (call, Vec::new())).collect();
        if let Some(signal) = rules.get_mut(&libc::SYS_tgkill) {
            signal.push(own.clone());
        }
        let arch = std::env::consts::ARCH.try_into()?;
        let filter = SeccompFilter::new(rules, otherwise, matched, arch)?;
        seccompiler::BpfProgram::try_from(filter)
    };
    let errno = |code: i32| SeccompAction::Errno(code.unsigned_abs());
    // The filters that refuse go first: the last one forbids to add more.
    let programs = [
        filter(&mut NO_LINK.iter().copied(), SeccompAction::Allow, errno(libc::EINVAL))?,
        filter(&mut NO_FILE.iter().copied(), SeccompAction::Allow, errno(libc::EPERM))?,
        filter(
            &mut ALLOWED.iter().chain(NO_LINK).chain(NO_FILE).copied().chain([libc::SYS_tgkill]),
            SeccompAction::KillProcess,
            SeccompAction::Allow,
        )?,
    ];
    programs.iter().try_for_each(|program| apply_filter_all_threads(program))
}

/// The processor time of this process. Not by way of `rustix`, which asks for more than the cage allows.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the one value that is passed; the clock exists on every system that has this call.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What interrupts the interpreter. Called by a signal handler: it may do nothing but store to atomics.
static INTERRUPT: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();
/// The signal that had it called during this question; 0 where none did.
static INTERRUPTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_alarm(signal: libc::c_int) {
    INTERRUPTED.store(signal, Ordering::Release);
    if let Some(interrupt) = INTERRUPT.get() {
        interrupt();
    }
}

/// Has `interrupt` called when a question takes too long. It may do nothing but store to atomics.
pub fn on_interrupt(interrupt: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    let _ = INTERRUPT.set(Box::new(interrupt));
    // The second SIGPROF of a question finds the default action: it kills.
    handle(libc::SIGPROF, libc::SA_RESTART | libc::SA_RESETHAND)?;
    handle(libc::SIGALRM, libc::SA_RESTART)
}

fn handle(signal: libc::c_int, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask, the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_alarm as *const () as libc::sighandler_t;
    action.sa_flags = flags;
    // SAFETY: `action` is valid for reads, no old action is asked for, and the handler does nothing but
    // load and store atomics, which is safe in a signal handler.
    match unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the question was interrupted.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Acquire) != 0
}

/// Whether it was interrupted by the clock, and not for the processor time that it took.
pub fn by_the_clock() -> bool {
    INTERRUPTED.load(Ordering::Acquire) == libc::SIGALRM
}

/// Bounds a question: an interrupt at seven eighths of its limit of processor time, so that the answer
/// "it was here" still arrives, and the end of this process at the limit; an interrupt, too, at seven
/// eighths of the time after which the parent gives up.
pub fn limit_time(limit: Millis) {
    INTERRUPTED.store(0, Ordering::Release);
    let early = |limit: u64| Millis((limit - limit / 8).max(1));
    set_timer(libc::ITIMER_PROF, early(limit.0), Millis((limit.0 / 8).max(1)));
    set_timer(libc::ITIMER_REAL, early(limit.0.saturating_mul(PATIENCE)), Millis::ZERO);
}

/// Lifts the bounds of a question.
pub fn lift_limits() {
    set_timer(libc::ITIMER_REAL, Millis::ZERO, Millis::ZERO);
    set_timer(libc::ITIMER_PROF, Millis::ZERO, Millis::ZERO);
}

fn set_timer(which: libc::c_int, after: Millis, again: Millis) {
    let value = |after: Millis| libc::timeval {
        tv_sec: libc::time_t::try_from(after.0 / 1000).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::try_from(after.0 % 1000 * 1000).unwrap_or(0),
    };
    let timer = libc::itimerval { it_interval: value(again), it_value: value(after) };
    // SAFETY: `timer` is valid for reads, and no old value is asked for.
    unsafe {
        libc::setitimer(which, &timer, std::ptr::null_mut());
    }
}
