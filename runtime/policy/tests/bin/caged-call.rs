//! Shuts a part of the cage around itself, then makes one system call:
//! `caged-call calls|files|limits CALL`. Exit code 0: the call succeeded; 1: it
//! was refused. The kernel may end the process before either.
//! `caged-call without landlock|seccomp` prints what a system without it is said to lack.
#![allow(unsafe_code)]

use std::ffi::CString;

use policy::testing::cage;
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, call] = arguments.as_slice() else { std::process::exit(64) };
    if part == "without" {
        deny(call);
        policy::cage_report().iter().for_each(|missing| println!("{missing}"));
        std::process::exit(0);
    }
    let run = prepare(call);
    let shut = match part.as_str() {
        "calls" => cage::shut_calls().map_err(|error| error.to_string()),
        "files" => cage::shut_files().map(|_| ()).map_err(|error| error.to_string()),
        "limits" => match cage::shut_limits(512 << 20).as_slice() {
            [] => Ok(()),
            missing => Err(missing.join(", ")),
        },
        _ => std::process::exit(64),
    };
    if let Err(error) = shut {
        eprintln!("the cage cannot be shut: {error}");
        std::process::exit(65);
    }
    std::process::exit(if run() { 0 } else { 1 });
}

/// Makes this system one that lacks a part of the cage, as far as this process can tell.
fn deny(part: &str) {
    let number = |number: libc::c_int| {
        let first = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number as u64);
        SeccompRule::new(vec![first.expect("a condition")]).expect("a rule")
    };
    let (rules, errno) = match part {
        "landlock" => ((libc::SYS_landlock_create_ruleset, Vec::new()), libc::ENOSYS),
        "seccomp" => ((libc::SYS_prctl, vec![number(libc::PR_GET_SECCOMP)]), libc::EINVAL),
        _ => std::process::exit(64),
    };
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let filter = SeccompFilter::new([rules].into(), SeccompAction::Allow, refused, arch).expect("a filter");
    let program = seccompiler::BpfProgram::try_from(filter).expect("a program");
    seccompiler::apply_filter(&program).expect("a filter in force");
}

/// Whether a call gave no error.
fn well(result: i64) -> bool {
    result >= 0
}

/// The call, with everything that it needs made ready while that is still allowed.
fn prepare(call: &str) -> Box<dyn FnOnce() -> bool> {
    let path = |text: &str| CString::new(text).expect("a path");
    let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get();
    let syscall = |number: libc::c_long, a: i64, b: i64, c: i64, d: i64| {
        // SAFETY: each use below passes what that call takes, by value or as a pointer that outlives the call.
        well(unsafe { libc::syscall(number, a, b, c, d) })
    };
    let at = i64::from(libc::AT_FDCWD);
    match call {
        "read-a-file" | "write-a-file" | "create-a-file" => {
            let (name, flags) = match call {
                "read-a-file" => ("/etc/passwd", libc::O_RDONLY),
                "write-a-file" => ("/dev/null", libc::O_WRONLY),
                _ => ("/tmp/repomind-caged-call", libc::O_WRONLY | libc::O_CREAT),
            };
            let name = path(name);
            Box::new(move || syscall(libc::SYS_openat, at, name.as_ptr() as i64, i64::from(flags), 0o600))
        }
        "make-a-folder" => {
            let name = path("/tmp/repomind-caged-call.d");
            Box::new(move || syscall(libc::SYS_mkdirat, at, name.as_ptr() as i64, 0o700, 0))
        }
        "remove-a-file" => {
            let name = path("/tmp/repomind-caged-call-gone");
            Box::new(move || syscall(libc::SYS_unlinkat, at, name.as_ptr() as i64, 0, 0))
        }
        "internet-socket" => {
            Box::new(move || syscall(libc::SYS_socket, libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0))
        }
        "local-socket" => {
            Box::new(move || syscall(libc::SYS_socket, libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, 0))
        }
        "run-a-program" => {
            let name = path("/bin/true");
            Box::new(move || syscall(libc::SYS_execve, name.as_ptr() as i64, 0, 0, 0))
        }
        "fork" => Box::new(move || syscall(libc::SYS_clone, libc::SIGCHLD.into(), 0, 0, 0)),
        "start-a-thread" => Box::new(|| std::thread::Builder::new().spawn(|| ()).is_ok()),
        "kill-the-parent" => Box::new(move || syscall(libc::SYS_kill, parent.into(), 0, 0, 0)),
        "signal-the-parent's-thread" => Box::new(move || syscall(libc::SYS_tgkill, parent.into(), parent.into(), 0, 0)),
        "signal-itself" => {
            let own = std::process::id();
            Box::new(move || syscall(libc::SYS_tgkill, own.into(), own.into(), 0, 0))
        }
        "trace-the-parent" => {
            Box::new(move || syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE as i64, parent.into(), 0, 0))
        }
        "read-the-parent's-memory" => Box::new(move || syscall(libc::SYS_process_vm_readv, parent.into(), 0, 0, 0)),
        "raise-a-limit" => Box::new(move || syscall(libc::SYS_prlimit64, 0, 0, 0, 0)),
        "open-twenty" => {
            let all: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/null")).collect();
            drop(all);
            Box::new(|| (0..20).map(|_| std::fs::File::open("/dev/null")).collect::<Vec<_>>().iter().all(Result::is_ok))
        }
        "take-a-gigabyte" => Box::new(|| {
            // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    1 << 30,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            at != libc::MAP_FAILED
        }),
        _ => std::process::exit(64),
    }
}
