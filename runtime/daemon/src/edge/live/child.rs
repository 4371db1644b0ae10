//! Processes that end with the one that started them, however that ends.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use rustix::process::Signal;
use tokio::process::{Child, Command};

/// Flags of `edge child`, which node starts in place of workerd.
#[derive(Clone, Debug, Args)]
pub struct ChildArgs {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Becomes another program, which is killed when the process that started this one ends.
///
/// # Errors
/// Where the program cannot be run.
pub fn become_child(args: &ChildArgs) -> anyhow::Result<ExitCode> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let error = std::process::Command::new(&args.program).args(&args.arguments).exec();
    Err(error).with_context(|| format!("{} cannot be run", args.program.display()))
}

/// Starts a program that is killed when this process ends, or when what is given back is dropped.
///
/// # Errors
/// A sentence.
#[allow(unsafe_code)]
pub fn start(command: &mut Command) -> Result<Child, String> {
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs between fork and exec and makes two system calls, prctl(2) and getppid(2), which are
    // async-signal-safe; it allocates nothing and touches no state of the parent.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have ended before the line above.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.kill_on_drop(true).spawn().map_err(|error| format!("{program} cannot be started: {error}"))
}

/// Asks a process to end, and kills it where it takes longer than `patience`.
pub async fn end(child: &mut Child, patience: std::time::Duration) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // One that has ended already is not asked: its number is held until it is waited for.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(patience, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
