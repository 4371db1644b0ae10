//! Stops what `deploy` recorded, and nothing else.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::args::DestroyArgs;
use crate::deploy::processes::{self, Deployment, Started};
use crate::deploy::state::{self, Lock, MARKS};

/// `repomind-run destroy`.
pub async fn run(args: DestroyArgs) -> anyhow::Result<ExitCode> {
    let state = &args.place.state;
    let left = crate::cloudflare::left_behind(state);
    if args.purge && !left.is_empty() {
        bail!(
            "{} holds the journal of what is deployed at Cloudflare ({}); `destroy --target cloudflare` first, or leave \
             `--purge` out",
            state.display(),
            left.join(", ")
        );
    }
    // Nothing is made where nothing is: there is nothing to destroy either.
    let _lock = state::is_ours(state).then(|| Lock::take(state, "destroy")).transpose()?;
    let recorded = Deployment::read(state)?.map(|deployment| deployment.started).unwrap_or_default();
    let (running, ended): (Vec<Started>, Vec<Started>) = recorded.into_iter().partition(Started::runs);
    for process in &ended {
        println!("{} {:?}: process {} had ended already", process.region, process.role, process.pid);
    }
    let killed = processes::stop(&running, Duration::from_secs(args.timeout)).await;
    if let Some(left) = running.iter().find(|process| process.runs()) {
        bail!("process {} ({}) does not end, not even when killed", left.pid, left.command.join(" "));
    }
    match (running.len(), killed) {
        (0, _) => println!("nothing was running"),
        (count, 0) => println!("{count} processes stopped"),
        (count, killed) => println!("{count} processes stopped, {killed} of them killed after {} s", args.timeout),
    }
    if args.purge {
        if !state::is_ours(state) {
            // An empty directory is taken too: it can hold nothing of anybody's.
            if state.exists() && std::fs::remove_dir(state).is_err() {
                bail!(
                    "{} does not look like a state directory: neither {} is in it",
                    state.display(),
                    MARKS.join(" nor ")
                );
            }
        } else {
            std::fs::remove_dir_all(state).with_context(|| format!("cannot delete {}", state.display()))?;
            println!("{} deleted", state.display());
        }
    } else {
        Deployment::forget(state)?;
    }
    Ok(ExitCode::SUCCESS)
}
