//! `repomind-run repl`: asks a running region, by the socket in its state directory.
//!
//! Forms run in a scratch child on a snapshot of the region's facts: nothing
//! typed here can stop or slow it. A form may span lines; it is sent when its
//! brackets close.

mod typing;

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use policy::reference::{self, Entry};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use typing::{COMMANDS, Typing};

use crate::cli::{FINDING, ReplArgs};
use crate::start::repl::{Ask, Reply};

/// A scratch child loads all policies first; a busy machine takes a while.
const PATIENCE: Duration = Duration::from_secs(30);

struct Session {
    lines: BufReader<UnixStream>,
    /// Definitions that later forms may use.
    loaded: Option<String>,
}

impl Session {
    fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("no region listens on {}; is it deployed?", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { lines: BufReader::new(stream), loaded: None })
    }

    fn ask(&mut self, source: &str) -> anyhow::Result<Reply> {
        let mut line = serde_json::to_vec(&Ask { source: source.to_owned(), loaded: self.loaded.clone() })?;
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
        println!("region {}. Try (regions), or ,help. End with ctrl-D.", args.region);
    }
    converse(args, session)
}

/// Reads forms and commands until end of input.
fn converse(args: &ReplArgs, mut session: Session) -> anyhow::Result<ExitCode> {
    let history = args.place.state.join("repl-history");
    let entries = reference::entries(&crate::embedded::library());
    let asked = reference::ASKED.iter().flat_map(|(_, functions)| functions.iter().map(|asked| asked.name.to_owned()));
    let names = entries.iter().map(|entry| entry.name.clone()).chain(asked);
    let mut editor = rustyline::Editor::<Typing, DefaultHistory>::new()?;
    editor.set_helper(Some(Typing::new(names, std::io::stdout().is_terminal())));
    let _ = editor.load_history(&history);
    loop {
        match editor.readline(&format!("{}> ", args.region)) {
            Ok(form) if form.trim().is_empty() => {}
            Ok(form) => {
                let _ = editor.add_history_entry(form.trim());
                match form.trim().strip_prefix(',') {
                    Some(command) if command.trim() == "quit" => break,
                    Some(command) => obey(command.trim(), &entries, &mut session)?,
                    None => drop(print(session.ask(&form)?)),
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let _ = editor.save_history(&history);
    Ok(ExitCode::SUCCESS)
}

/// Carries out a command of the REPL itself.
fn obey(command: &str, entries: &[Entry], session: &mut Session) -> anyhow::Result<()> {
    match command.split_once(char::is_whitespace).map_or((command, ""), |(word, rest)| (word, rest.trim())) {
        ("doc", name) if !name.is_empty() => match crate::api::about(entries, name) {
            Some(text) => print!("{text}"),
            None => println!("{}", crate::api::unknown(entries, name)),
        },
        ("load", file) if !file.is_empty() => match std::fs::read_to_string(file) {
            Ok(text) => {
                let before = session.loaded.replace(text);
                // A file that does not load would make every later form fail.
                if !print(session.ask(&format!("\"{file} is loaded\""))?) {
                    session.loaded = before;
                }
            }
            Err(error) => println!("{file}: {error}"),
        },
        _ => {
            COMMANDS.iter().for_each(|(form, says)| println!("  {form:<12} {says}"));
            println!("  (regions) (lag) (route \"203.0.113.9\") (generation) (facts) (decisions 10) (policy-waiting)");
            println!("  and every policy function; names complete with tab, a form goes on until its brackets close");
        }
    }
    Ok(())
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
