//! Places what went wrong in the operators' files.

use std::collections::BTreeMap;

use model::Finding;
use model::question::{TestFailure, TestRun};
use steel::SteelErr;
use steel::parser::span::Span;
use steel::rerrs::ErrorKind;
use steel::steel_vm::engine::Engine;

use super::cage;
use super::declare::Misfit;
use super::values::bare;
use crate::outline::nearest;

/// The finding for an error that came up in `file`, placed as well as the interpreter knows.
///
/// The error's own span is tried first, then the calls that led there, innermost
/// first; one that lies in the library or in nothing is passed over, because the
/// operator cannot edit those.
pub fn finding(
    engine: &Engine,
    files: &BTreeMap<String, String>,
    names: &Names,
    file: &str,
    error: &SteelErr,
) -> Finding {
    let trace = error.stack_trace().as_ref().map_or(&[][..], |trace| trace.trace());
    let calls = trace.iter().rev().filter_map(|call| *call.span());
    let placed = error.span().into_iter().chain(calls).find_map(|span| place(engine, files, span));
    let message = error.to_string();
    let message = lower_first(bare(&message));
    let (message, help) = match message.as_str() {
        // What a full pipe says.
        "unable to write string to port" => (
            format!("more than {} KiB were printed", cage::PRINTED >> 10),
            "print less; `displayln` is for the REPL".to_owned(),
        ),
        _ => explain(engine, names, error.kind(), message),
    };
    let placed = offender(files, file, error.kind(), &message).or(placed);
    match placed {
        Some(Place { file, at, width }) => {
            let text = files.get(&file).map_or("", String::as_str);
            Finding::error(file, text, at, message, help).spanning(width)
        }
        None => Finding::error(file, "", (0, 0), message, help),
    }
}

/// The names that a policy may mean: each, and the module of the library that hands it on, if one does.
pub type Names = BTreeMap<String, Option<String>>;

/// The message and what to do about it.
fn explain(engine: &Engine, names: &Names, kind: ErrorKind, message: String) -> (String, String) {
    if kind == ErrorKind::FreeIdentifier
        && let Some(name) = message.rsplit(": ").next()
    {
        let name = name.trim().trim_start_matches("#%prim.");
        let help = meant(engine, names, name);
        return (format!("`{name}` is not defined"), help);
    }
    // Errors of ours carry their remedy.
    match (help(kind), message.split_once("; ")) {
        ("", Some((message, help))) if !help.starts_with("this one has") => (message.to_owned(), help.to_owned()),
        (help, _) => (message, help.to_owned()),
    }
}

/// What may have been meant by a name that nothing defines.
fn meant(engine: &Engine, names: &Names, name: &str) -> String {
    if let Some(Some(module)) = names.get(name) {
        return format!("add (require \"{module}\")");
    }
    if name == "policy-api" {
        return "add (define policy-api 1)".to_owned();
    }
    let built_in: Vec<String> = engine.globals().iter().map(ToString::to_string).collect();
    // Names that the interpreter made for itself have signs in them that ours have not.
    let built_in = built_in.iter().map(String::as_str).filter(|name| !name.contains(['#', '%', '_']));
    match nearest(name, names.keys().map(String::as_str).chain(built_in)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "define it, or require the module that provides it".to_owned(),
    }
}

/// Where the thing that an error of ours complains of stands in the file, if it stands there once: a declaration
/// is often made far from the values that it declares.
fn offender(files: &BTreeMap<String, String>, file: &str, kind: ErrorKind, message: &str) -> Option<Place> {
    let text = files.get(file).filter(|_| kind == ErrorKind::Generic)?;
    let found = message.split_once(", found ").map(|(_, found)| found);
    let quoted = message.split('"').nth(1);
    let named = message.split('`').skip(1).step_by(2).collect::<Vec<_>>().into_iter().rev();
    let (offset, thing) =
        found.into_iter().chain(quoted).chain(named).find_map(|thing| Some((once(text, thing)?, thing)))?;
    Some(Place { file: file.to_owned(), at: position(text, offset)?, width: thing.chars().count() as u32 })
}

/// Where `thing` stands in the text, apart from comments, if it stands there once and alone.
fn once(text: &str, thing: &str) -> Option<usize> {
    let apart = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || "()[]{}\"'`,;".contains(c));
    let mut places = text.match_indices(thing).map(|(at, _)| at).filter(|&at| {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        apart(text[..at].chars().next_back())
            && apart(text[at + thing.len()..].chars().next())
            && !text[line..at].trim_start().starts_with(';')
    });
    let first = places.next().filter(|_| !thing.is_empty())?;
    places.next().is_none().then_some(first)
}

struct Place {
    file: String,
    at: (u32, u32),
    width: u32,
}

fn place(engine: &Engine, files: &BTreeMap<String, String>, span: Span) -> Option<Place> {
    let source = span.source_id?;
    let path = engine.get_path_for_source_id(&source)?;
    let file = path.to_str()?.trim_start_matches('/');
    let text = files.get(file)?;
    // The interpreter puts a prelude before the text of a module: what it calls a place is that much too far.
    let prelude = engine.get_source(&source)?.len().checked_sub(text.len())?;
    let start = (span.start as usize).checked_sub(prelude)?;
    let end = (span.end as usize).checked_sub(prelude)?;
    let at = position(text, start)?;
    let width = text.get(start..end).map_or(1, |spanned| spanned.lines().next().unwrap_or("").chars().count());
    Some(Place { file: file.to_owned(), at, width: u32::try_from(width).ok()?.max(1) })
}

/// Where in `source`, which was typed and is no file, an error came from: the innermost call that stands there, else the
/// text that the message names, else its beginning. With the width of what stands there, in characters.
pub fn in_typed(engine: &Engine, source: &str, error: &SteelErr, message: &str) -> Option<((u32, u32), u32)> {
    let trace = error.stack_trace().as_ref().map_or(&[][..], |trace| trace.trace());
    let calls = trace.iter().rev().filter_map(|call| *call.span());
    let here = |span: &Span| {
        let id = span.source_id?;
        let typed = engine.get_path_for_source_id(&id).is_none() && **engine.get_source(&id)? == *source;
        typed.then_some((span.start as usize, span.end as usize))
    };
    let called = error.span().into_iter().chain(calls).find_map(|span| here(&span));
    let named = || {
        let text = message.rsplit(": ").next()?.trim_matches(['"', ' ']);
        let at = source.find(text).filter(|_| !text.is_empty())?;
        Some((at, at + text.len()))
    };
    let (start, end) = called.or_else(named).unwrap_or((0, source.trim_end().len()));
    let line = source.get(start..end)?.lines().next().unwrap_or("");
    Some((position(source, start)?, u32::try_from(line.chars().count()).ok()?.max(1)))
}

/// Line and column, from 1, of a byte offset.
pub fn position(text: &str, offset: usize) -> Option<(u32, u32)> {
    let before = text.get(..offset)?;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Some((u32::try_from(line).ok()?, u32::try_from(column).ok()?))
}

fn lower_first(message: &str) -> String {
    let mut chars = message.trim().trim_end_matches('.').chars();
    match chars.next() {
        // A name in capitals stays as it is.
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        Some(first) => std::iter::once(first).chain(chars).collect(),
        None => "the interpreter gave no reason".to_owned(),
    }
}

fn help(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ArityMismatch => "give as many arguments as the function takes",
        ErrorKind::Parse | ErrorKind::BadSyntax | ErrorKind::UnexpectedToken => {
            "look for a bracket or quote that is missing or too many"
        }
        ErrorKind::TypeMismatch => "look at what kind of value each part gives",
        _ => "",
    }
}

/// The finding for something wrong with what `function` of `file` is or gives.
pub fn in_function(
    files: &BTreeMap<String, String>,
    file: &str,
    function: &str,
    message: String,
    help: &str,
) -> Finding {
    let text = files.get(file).map_or("", String::as_str);
    let heads = [format!("(define ({function} "), format!("(define ({function})"), format!("(define {function} ")];
    let at = heads
        .iter()
        .find_map(|head| text.find(head.as_str()))
        .and_then(|offset| position(text, offset + "(define ".len()));
    let at = at.map(|(line, column)| {
        let bracket =
            text.lines().nth(line as usize - 1).and_then(|text| text.chars().nth(column as usize - 1)) == Some('(');
        (line, column + u32::from(bracket))
    });
    Finding::error(file, text, at.unwrap_or((0, 0)), message, help).spanning(function.chars().count() as u32)
}

/// The finding for something wrong with a file as a whole; placed at `form` where it has one.
pub fn in_file(files: &BTreeMap<String, String>, file: &str, form: &str, message: String, help: String) -> Finding {
    let text = files.get(file).map_or("", String::as_str);
    let at = text.find(form).and_then(|offset| position(text, offset));
    Finding::error(file, text, at.unwrap_or((0, 0)), message, help).spanning(form.chars().count() as u32)
}

/// The finding for a declaration that does not fit the rest.
pub fn misfit(files: &BTreeMap<String, String>, misfit: Misfit) -> Finding {
    let Misfit { file, form, message, help } = misfit;
    let text = files.get(&file).map_or("", String::as_str);
    // The name in the message, in the form or else anywhere, is the better place; failing that, the form.
    let named = message.split('`').nth(1).and_then(|name| {
        let declared = format!("({form} '{name}");
        let at = text.find(&declared).map(|at| at + declared.len() - name.len());
        Some((at.or_else(|| text.find(name))?, name))
    });
    let (offset, width) = match named {
        Some((offset, name)) => (Some(offset), name.chars().count()),
        None => (text.find(form), form.len()),
    };
    let at = offset.and_then(|offset| position(text, offset)).unwrap_or((0, 0));
    Finding::error(file, text, at, message, help).spanning(width as u32)
}

/// Where a test stands in its file.
pub fn test_place(files: &BTreeMap<String, String>, file: &str, sentence: &str) -> (u32, u32) {
    let text = files.get(file).map_or("", String::as_str);
    text.find(&format!("\"{sentence}\"")).and_then(|offset| position(text, offset)).unwrap_or((0, 0))
}

/// The finding for a test of a file's own that failed.
pub fn failed_test(files: &BTreeMap<String, String>, test: &TestRun, failure: &TestFailure) -> Finding {
    let (TestRun { file, sentence, .. }, TestFailure { expected, actual }) = (test, failure);
    let text = files.get(file).map_or("", String::as_str);
    let quoted = format!("\"{sentence}\"");
    let at = test_place(files, file, sentence);
    let message = format!("a test failed: {sentence}: expected {expected}, found {actual}");
    Finding::error(file, text, at, message, "correct the policy, or the test if the policy is meant so")
        .spanning(quoted.chars().count() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_characters_and_not_bytes() {
        assert_eq!(position("ä—x\n  y", 0), Some((1, 1)));
        assert_eq!(position("ä—x\n  y", "ä—".len()), Some((1, 3)));
        assert_eq!(position("ä—x\n  y", "ä—x\n  ".len()), Some((2, 3)));
        assert_eq!(position("ä", 1), None);
    }
}
