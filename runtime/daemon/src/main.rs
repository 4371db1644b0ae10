//! `repomind-run`: runs a service in several regions.
//!
//! This binary is the top floor: it reads the command line, wires the rooms
//! below into one daemon, and holds the operator's commands. Start with
//! [`start`] for the daemon and [`cli`] for everything a person types.

#![allow(unreachable_pub)]

#[macro_use]
mod output;

mod api;
mod args;
mod aside;
mod assets;
mod backup;
mod check;
mod cli;
mod client;
mod cloudflare;
mod decisions;
mod deploy;
mod destroy;
mod edge;
mod embedded;
mod explain;
mod https;
mod keys;
mod orders;
mod pki;
mod policy;
mod policy_tests;
mod prove;
mod repl;
mod report;
mod sample_service;
mod simulate;
mod start;
mod starter;
mod status;
mod subject;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("policy-host") {
        // Before any thread exists: the child puts itself into its cage.
        ::policy::child_main(&arguments.collect::<Vec<_>>());
    }
    output::exit_code(cli::main())
}
