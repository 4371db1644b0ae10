//! `repomind-run repl`: asks a running region, by the socket in its state directory.
//!
//! Forms run in a scratch child on a snapshot of the region's facts: nothing
//! typed here can stop or slow it. A form may span lines; it is sent when its
//! brackets close.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use rustyline::error::ReadlineError;

use crate::cli::{FINDING, ReplArgs};
use crate::start::repl::{Ask, Reply};

/// A scratch child loads all policies first; a busy machine takes a while.
const PATIENCE: Duration = Duration::from_secs(30);

struct Session {
    lines: BufReader<UnixStream>,
}

impl Session {
    fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("no region listens on {}; is it deployed?", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    fn ask(&mut self, source: &str) -> anyhow::Result<Reply> {
        let mut line = serde_json::to_vec(&Ask { source: source.to_owned() })?;
        line.push(b'\n');
        self.lines.get_mut().write_all(&line)?;
        let mut answer = String::new();
        self.lines.read_line(&mut answer).context("the region gave no answer")?;
        serde_json::from_str(&answer).context("the region closed the session")
    }
}

/// Evaluates `--eval` forms and stops, or reads forms until end of input.
///
/// # Errors
/// Where the region cannot be reached or stops answering.
pub fn run(args: &ReplArgs) -> anyhow::Result<ExitCode> {
    let socket = args.place.state.join(args.region.as_str()).join("repl.sock");
    let mut session = Session::open(&socket)?;
    if let Some(source) = &args.eval {
        return Ok(if print(session.ask(source)?) { ExitCode::SUCCESS } else { ExitCode::from(FINDING) });
    }
    if std::io::stdin().is_terminal() {
        println!("region {}. Try (all-regions). End with ctrl-D.", args.region);
    }
    let history = args.place.state.join("repl-history");
    let mut editor = rustyline::DefaultEditor::new()?;
    let _ = editor.load_history(&history);
    let mut form = String::new();
    loop {
        let prompt = if form.is_empty() { format!("{}> ", args.region) } else { "… ".to_owned() };
        match editor.readline(&prompt) {
            Ok(line) => {
                form.push_str(&line);
                form.push('\n');
                if open_brackets(&form) > 0 {
                    continue;
                }
                let source = std::mem::take(&mut form);
                if !source.trim().is_empty() {
                    let _ = editor.add_history_entry(source.trim());
                    print(session.ask(&source)?);
                }
            }
            Err(ReadlineError::Interrupted) => form.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let _ = editor.save_history(&history);
    Ok(ExitCode::SUCCESS)
}

fn print(reply: Reply) -> bool {
    match reply {
        Reply::Value(value) => {
            println!("{value}");
            true
        }
        Reply::Errors(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            false
        }
    }
}

/// How many brackets are still open, outside strings and comments.
fn open_brackets(source: &str) -> i32 {
    let (mut depth, mut in_string, mut in_comment, mut escaped) = (0, false, false, false);
    for c in source.chars() {
        match c {
            _ if escaped => escaped = false,
            '\n' => in_comment = false,
            _ if in_comment => {}
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            ';' => in_comment = true,
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::open_brackets;

    #[test]
    fn a_form_is_whole_when_its_brackets_close_outside_strings_and_comments() {
        assert_eq!(open_brackets("(define (f x)\n"), 1);
        assert_eq!(open_brackets("(f \")\" ; )\n)"), 0);
        assert_eq!(open_brackets("(f #\\( )"), 0);
    }
}
