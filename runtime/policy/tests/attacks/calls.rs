//! The cage, part by part, against system calls that no Scheme could make.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

#[test]
fn a_system_that_lacks_a_part_of_the_cage_is_told_of_by_name() {
    for (part, says) in
        [("landlock", "Landlock (files are refused by seccomp alone)"), ("seccomp", "seccomp (policies can")]
    {
        let _turn = crate::arena::turn();
        let output =
            Command::new(env!("CARGO_BIN_EXE_caged-call")).args(["without", part]).output().expect("a process");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && said.starts_with(says) && said.lines().count() == 1, "{part}: {said}");
    }
}

/// The status of a process that shuts `part` of the cage around itself and makes `call`.
fn caged(part: &str, call: &str) -> ExitStatus {
    let _turn = crate::arena::turn();
    let output = Command::new(env!("CARGO_BIN_EXE_caged-call")).args([part, call]).output().expect("a process");
    assert_ne!(output.status.code(), Some(64), "no such call: {call}");
    assert_ne!(output.status.code(), Some(65), "{}", String::from_utf8_lossy(&output.stderr));
    output.status
}

#[test]
fn no_file_socket_process_thread_or_signal_gets_past_the_call_filter() {
    for call in [
        "read-a-file",
        "write-a-file",
        "create-a-file",
        "make-a-folder",
        "remove-a-file",
        "internet-socket",
        "local-socket",
        "run-a-program",
        "fork",
        "start-a-thread",
        "kill-the-parent",
        "signal-the-parent's-thread",
        "trace-the-parent",
        "read-the-parent's-memory",
        "raise-a-limit",
    ] {
        assert_eq!(caged("calls", call).signal(), Some(libc::SIGSYS), "{call}");
    }
}

#[test]
fn abort_still_works_within_the_call_filter() {
    assert_eq!(caged("calls", "signal-itself").code(), Some(0));
}

#[test]
fn landlock_alone_refuses_every_file() {
    if policy::cage_report().iter().any(|part| part.starts_with("Landlock")) {
        panic!("this system has no Landlock; these tests need it: {:?}", policy::cage_report());
    }
    for call in ["read-a-file", "write-a-file", "create-a-file", "make-a-folder"] {
        assert_eq!(caged("files", call).code(), Some(1), "{call}");
    }
}

#[test]
fn the_limits_alone_refuse_a_gigabyte_and_a_twentieth_descriptor() {
    for call in ["take-a-gigabyte", "open-twenty"] {
        assert_eq!(caged("limits", call).code(), Some(1), "{call}");
    }
}
