//! What a command prints, where nobody may be reading any more.
//!
//! The `println!` and `eprintln!` of the standard library panic when a pipe was
//! closed (`repomind-run … | head`), and a panic skips the cleaning up. Here the
//! same names, for the whole crate, note that nobody reads and go on: whatever
//! started processes sees it through [`closed`] and takes them away, and
//! [`exit_code`] then says how the command ended.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::{LazyLock, OnceLock};

use tokio_util::sync::CancellationToken;

/// Exit code of a command whose reader went away: 128 + SIGPIPE, as a shell shows it.
const NOBODY_READS: u8 = 141;

/// Why what was printed did not arrive: the first error.
static LOST: OnceLock<(ErrorKind, String)> = OnceLock::new();
/// Cancelled with the first error.
static CLOSED: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// As in the standard library, but a closed pipe ends the command instead of breaking it off.
macro_rules! println {
    () => { $crate::output::out(format_args!("\n")) };
    ($($words:tt)*) => { $crate::output::out(format_args!("{}\n", format_args!($($words)*))) };
}
/// As in the standard library, but a closed pipe ends the command instead of breaking it off.
macro_rules! print {
    ($($words:tt)*) => { $crate::output::out(format_args!($($words)*)) };
}
/// As in the standard library, but a closed pipe ends the command instead of breaking it off.
macro_rules! eprintln {
    () => { $crate::output::err(format_args!("\n")) };
    ($($words:tt)*) => { $crate::output::err(format_args!("{}\n", format_args!($($words)*))) };
}

/// Prints to standard output.
pub fn out(text: Arguments<'_>) {
    // At once: what waits in a buffer until the end would be lost unnoticed.
    let mut stdout = std::io::stdout().lock();
    note(stdout.write_fmt(text).and_then(|()| stdout.flush()));
}

/// Prints to standard error.
pub fn err(text: Arguments<'_>) {
    note(std::io::stderr().lock().write_fmt(text));
}

fn note(result: std::io::Result<()>) {
    if let Err(error) = result {
        let _ = LOST.set((error.kind(), error.to_string()));
        CLOSED.cancel();
    }
}

/// Ends once something that was printed could not be delivered.
pub async fn closed() {
    CLOSED.cancelled().await;
}

/// The exit code of a command that came to `code`, or that of one which could not say so.
pub fn exit_code(code: ExitCode) -> ExitCode {
    match LOST.get() {
        None => code,
        Some((ErrorKind::BrokenPipe, _)) => ExitCode::from(NOBODY_READS),
        Some((_, why)) => {
            err(format_args!("error: what this command prints could not be written: {why}\n"));
            ExitCode::from(crate::args::NOT_RUN)
        }
    }
}
