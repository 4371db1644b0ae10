//! The child's side: one engine, one tree, one question at a time.

mod answers;
pub mod cage;
mod declare;
mod edge;
mod faults;
mod health;
mod interpreter;
mod invariants;
mod laws;
mod locating;
mod memo;
mod natives;
mod property;
mod questions;
mod samples;
mod values;
mod zones;
mod zygote;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::process::exit;

use model::question::{Answer, Question};
use model::{Finding, Millis};

use crate::wire::{self, Order, Report};
use interpreter::Interpreter;
pub(crate) use interpreter::TYPED;
pub use laws::Chance;
use zygote::Belongings;

/// Runs the process that children are forked from until its parent closes the
/// socket. `args` are those after `policy-host`: the bound on memory, in bytes.
///
/// Call it before the process has any other thread.
pub fn child_main(args: &[String]) -> ! {
    run(args, true)
}

/// As [`child_main`], for sources that were not scanned.
pub fn child_main_unscanned(args: &[String]) -> ! {
    run(args, false)
}

fn run(args: &[String], scanning: bool) -> ! {
    let memory = args.first().and_then(|text| text.parse().ok()).unwrap_or(512 << 20);
    // Errors here have no reader but the parent, which sees the exit.
    exit(match zygote::serve(memory, scanning) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("policy host: {error}");
            70
        }
    })
}

/// Answers questions from the cage until the parent closes the socket. `missing` are the parts
/// of the cage that the zygote could not shut.
fn serve(mut interpreter: Interpreter, belongings: Belongings, mut missing: Vec<String>) -> std::io::Result<()> {
    let Belongings { mut socket, errors } = belongings;
    cage::replace(2, &errors)?;
    drop(errors);
    let mut printed = cage::take_standard_output()?;
    interpreter.tell(socket.try_clone()?);
    missing.extend(cage::shut_after_fork(|| interpreter.collect_garbage()));
    wire::write(&mut socket, &Report::Ready(missing))?;
    while let Some(Order { question, limit }) = wire::read(&mut socket)? {
        cage::limit_time(limit);
        let answered = answer(&mut interpreter, question, &mut printed);
        cage::lift_limits();
        let report = match answered {
            Err(findings) if cage::interrupted() => late(findings, limit),
            other => Report::Answer(other.unwrap_or_else(Answer::Refused)),
        };
        interpreter.resume();
        let bytes = wire::frame(&report).or_else(|error| wire::frame(&Report::Answer(too_much(&error))))?;
        socket.write_all(&bytes)?;
    }
    Ok(())
}

fn answer(interpreter: &mut Interpreter, question: Question, printed: &mut File) -> Result<Answer, Vec<Finding>> {
    interpreter.begin();
    let answered = match question {
        Question::Locate { tree, file, facts } => {
            interpreter.locate_in(file);
            interpreter.load(tree, &facts, true).map(|declarations| Answer::Loaded(Box::new(declarations)))
        }
        Question::Load { tree, facts, examine } => {
            interpreter.load(tree, &facts, examine).map(|declarations| Answer::Loaded(Box::new(declarations)))
        }
        Question::Route { facts } => interpreter.route(&facts).map(|routes| Answer::Routes(Box::new(routes))),
        Question::Residency { cases } => interpreter.rule_on(&cases).map(Answer::Residency),
        Question::Health { observations } => interpreter.unwell(&observations).map(Answer::Unwell),
        Question::Failover { regions } => interpreter.failover_plan(regions).map(Answer::Failover),
        Question::Resolve { resolver, address, siblings } => {
            interpreter.resolve(&resolver, &address, &siblings).map(Answer::Resolved)
        }
        Question::ResolveMany { resolver, conflicts } => {
            interpreter.resolve_many(&resolver, &conflicts).map(Answer::ResolvedMany)
        }
        Question::Samples { resolver } => interpreter.samples(&resolver).map(Answer::Samples),
        Question::Trace { client, name, facts } => {
            interpreter.trace(&client, name.as_ref(), &facts).map(|trace| Answer::Trace(Box::new(trace)))
        }
        Question::Prove { invariant, from, budget, facts } => {
            interpreter.prove(invariant, from, budget, &facts).map(|step| Answer::Proof(Box::new(step)))
        }
        Question::Test { tree, facts } => Ok(Answer::Tested(Box::new(interpreter.test(tree, &facts)))),
        Question::Verdicts { seen } => {
            let verdicts = seen.iter().map(|seen| interpreter.unwell(&[*seen; 2]));
            verdicts.collect::<Result<_, _>>().map(Answer::Verdicts)
        }
        Question::Eval { earlier, source } => {
            cage::drain(printed);
            interpreter.evaluate(&earlier, &source, || drop(cage::drain(printed))).map(|value| {
                let output = cage::drain(printed);
                Answer::Value(if value.is_empty() { output } else { format!("{output}{value}") })
            })
        }
    };
    cage::drain(printed);
    answered
}

/// What to say of a question that was interrupted: where, if the interpreter told.
fn late(findings: Vec<Finding>, limit: Millis) -> Report {
    let first = findings.into_iter().next().unwrap_or_else(|| Finding::error("", "", (0, 0), "", ""));
    let message =
        if cage::by_the_clock() { too_late(Millis(limit.0.saturating_mul(cage::PATIENCE))) } else { too_slow(limit) };
    Report::Late(Finding { message, help: LOOP.to_owned(), ..first })
}

/// What is said of policies that do not come to an end.
pub(crate) fn too_slow(limit: Millis) -> String {
    format!("there was no answer within {limit} of processor time")
}

/// What is said where the clock ran out.
pub(crate) fn too_late(limit: Millis) -> String {
    format!("there was no answer within {limit}")
}

/// The usual reasons for it.
pub(crate) const LOOP: &str = "look for a loop without an end, or for a test that tries too much";

fn too_much(error: &std::io::Error) -> Answer {
    let finding = Finding::error("", "", (0, 0), format!("the answer is too large: {error}"), "answer with less");
    Answer::Refused(vec![finding])
}

/// The modules that policies may require, by name.
pub(crate) type Library = BTreeMap<String, String>;
