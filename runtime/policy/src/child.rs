//! The child's side: one engine, one tree, one question at a time.

mod answers;
pub(crate) mod cage;
mod declare;
mod faults;
mod health;
mod interpreter;
mod memo;
mod natives;
mod questions;
mod samples;
mod values;
mod zones;

use std::collections::BTreeMap;
use std::fs::File;
use std::process::exit;

use model::Finding;
use model::question::{Answer, Question};

use crate::wire::{self, Order, Report};
use interpreter::Interpreter;

/// Runs the child until its parent closes the socket. `args` are those after
/// `policy-host`: the bound on memory, in bytes.
///
/// Call it before the process has any other thread.
pub fn child_main(args: &[String]) -> ! {
    let memory = args.first().and_then(|text| text.parse().ok()).unwrap_or(512 << 20);
    // Errors here have no reader but the parent, which sees the exit.
    exit(match serve(memory) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("policy host: {error}");
            70
        }
    })
}

fn serve(memory: u64) -> std::io::Result<()> {
    cage::steady_memory();
    let (mut socket, mut printed) = cage::take_descriptors()?;
    let mut interpreter = Interpreter::new();
    let missing = cage::shut(memory, || interpreter.collect_garbage());
    wire::write(&mut socket, &Report::Ready(missing))?;
    let Some(Order::Library(library)) = wire::read(&mut socket)? else { return Ok(()) };
    interpreter.set_library(library);
    while let Some(order) = wire::read(&mut socket)? {
        let Order::Ask { question, processor } = order else {
            return Err(std::io::Error::other("the library was sent twice"));
        };
        cage::limit_processor(processor);
        let answer = answer(&mut interpreter, question, &mut socket, &mut printed);
        cage::limit_processor(model::Millis::ZERO);
        let report = Report::Answer(answer);
        let bytes = wire::frame(&report).or_else(|error| wire::frame(&Report::Answer(too_much(&error))))?;
        std::io::Write::write_all(&mut socket, &bytes)?;
    }
    Ok(())
}

fn answer(interpreter: &mut Interpreter, question: Question, socket: &mut File, printed: &mut File) -> Answer {
    let answered = match question {
        Question::Load { tree, facts } => interpreter
            .load(tree, &facts, &mut |file| {
                // A parent that is gone is noticed when the answer is written.
                let _ = wire::write(socket, &Report::At(file.to_owned()));
            })
            .map(|declarations| Answer::Loaded(Box::new(declarations))),
        Question::Route { facts } => interpreter.route(&facts).map(|routes| Answer::Routes(Box::new(routes))),
        Question::Residency { cases } => interpreter.rule_on(&cases).map(Answer::Residency),
        Question::Health { observations } => interpreter.unwell(&observations).map(Answer::Unwell),
        Question::Failover { regions } => interpreter.failover_plan(regions).map(Answer::Failover),
        Question::Resolve { resolver, address, siblings } => {
            interpreter.resolve(&resolver, &address, &siblings).map(Answer::Resolved)
        }
        Question::Eval { source } => {
            cage::drain(printed);
            interpreter.evaluate(&source).map(|value| {
                let output = cage::drain(printed);
                Answer::Value(if value.is_empty() { output } else { format!("{output}{value}") })
            })
        }
    };
    cage::drain(printed);
    answered.unwrap_or_else(Answer::Refused)
}

fn too_much(error: &std::io::Error) -> Answer {
    let finding = Finding::error("", "", (0, 0), format!("the answer is too large: {error}"), "answer with less");
    Answer::Refused(vec![finding])
}

/// The modules that policies may require, by name.
type Library = BTreeMap<String, String>;
