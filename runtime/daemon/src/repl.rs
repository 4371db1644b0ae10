//! `repomind-run repl`: asks a running region, by the socket in its state directory.
//!
//! Forms run in a scratch child on a snapshot of the region's facts: nothing
//! typed here can stop or slow it. A form may span lines; it is sent when its
//! brackets close. What was defined stays defined for the session, and ctrl-C
//! gives up an evaluation that takes too long.

mod definitions;
mod operations;
mod typing;

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use definitions::Definitions;
use operations::OPERATIONS;
use policy::reference::{self, Entry};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use typing::{COMMANDS, FACTS, Typing};

use crate::args::{FINDING, ReplArgs};
use crate::start::repl::{Ask, Reply};

/// A scratch child loads all policies first; a busy machine takes a while.
const PATIENCE: Duration = Duration::from_secs(30);

struct Session {
    socket: PathBuf,
    stream: UnixStream,
    /// What was defined at earlier prompts. Each input is evaluated in a child of its own, which is told of them.
    defined: Definitions,
    /// A file of definitions that later forms may use.
    loaded: Option<String>,
}

impl Session {
    fn open(socket: &Path) -> anyhow::Result<Self> {
        Ok(Self { socket: socket.to_owned(), stream: connect(socket)?, defined: Definitions::default(), loaded: None })
    }

    fn ask(&mut self, source: &str) -> anyhow::Result<Reply> {
        let ask = Ask { earlier: self.defined.forms(), source: source.to_owned(), loaded: self.loaded.clone() };
        let mut line = serde_json::to_vec(&ask)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        let Some(answer) = answer(&self.stream)? else {
            // The region gives an evaluation up when whoever asked hangs up.
            self.stream = connect(&self.socket)?;
            return Ok(Reply::Errors(vec!["cancelled".to_owned()]));
        };
        let reply: Reply = serde_json::from_str(&answer).context("the region closed the session")?;
        if matches!(reply, Reply::Value(_)) && !self.defined.add(source) {
            eprintln!("more is defined than is kept for later prompts: the oldest is forgotten");
        }
        Ok(reply)
    }
}

fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("no region listens on {}; is it deployed?", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The next line from the region; nothing when ctrl-C came first. A script is simply ended by it.
fn answer(stream: &UnixStream) -> anyhow::Result<Option<String>> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut read = move || {
        let mut answer = String::new();
        lines.read_line(&mut answer).context("the region gave no answer").map(|_| answer)
    };
    if !std::io::stdin().is_terminal() {
        return read().map(Some);
    }
    let reading = tokio::task::spawn_blocking(read);
    tokio::runtime::Handle::current().block_on(async {
        tokio::select! {
            answer = reading => answer?.map(Some),
            _ = tokio::signal::ctrl_c() => {
                stream.shutdown(std::net::Shutdown::Both)?;
                Ok(None)
            }
        }
    })
}

/// Evaluates `--eval` forms and stops, or reads forms until end of input.
///
/// # Errors
/// Where the region cannot be reached or stops answering.
pub fn run(args: &ReplArgs) -> anyhow::Result<ExitCode> {
    let socket = args.place.state.join(args.region.as_str()).join("repl.sock");
    let mut session = Session::open(&socket)?;
    if let Some(source) = &args.eval {
        if operations::name(source).is_some() {
            return operate(source, args);
        }
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
                // At once: a session that is killed leaves what was typed.
                let _ = editor.append_history(&history);
                match form.trim().strip_prefix(',') {
                    Some(command) if command.trim() == "quit" => break,
                    Some(command) => obey(command.trim(), &entries, &mut session)?,
                    None if operations::name(&form).is_some() => drop(operate(&form, args)?),
                    None => drop(print(session.ask(&form)?)),
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Carries out a form that changes something.
fn operate(form: &str, args: &ReplArgs) -> anyhow::Result<ExitCode> {
    match operations::read(form) {
        Ok(operation) => operations::carry_out(operation, &args.place),
        Err(usage) => {
            eprintln!("{usage}");
            Ok(ExitCode::from(FINDING))
        }
    }
}

/// Carries out a command of the REPL itself.
fn obey(command: &str, entries: &[Entry], session: &mut Session) -> anyhow::Result<()> {
    match command.split_once(char::is_whitespace).map_or((command, ""), |(word, rest)| (word, rest.trim())) {
        ("doc", name) if OPERATIONS.iter().any(|(form, _)| operations::name(form) == Some(name)) => {
            let about = OPERATIONS.iter().filter(|(form, _)| operations::name(form) == Some(name));
            about.for_each(|(form, says)| println!("{form}\n  {says}\n  asks before it acts"));
        }
        ("doc", name) if FACTS.iter().any(|(fact, ..)| *fact == name) => {
            let about = FACTS.iter().filter(|(fact, ..)| *fact == name);
            about.for_each(|(_, form, says)| println!("{form}\n  {says}"));
        }
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
            println!("what the region says of itself:");
            FACTS.iter().for_each(|(_, form, says)| println!("  {form:<24} {says}"));
            println!("what changes something, and asks before:");
            OPERATIONS.iter().for_each(|(form, says)| println!("  {form:<38} {says}"));
            println!("and every policy function; names complete with tab, a form goes on until its brackets close");
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
