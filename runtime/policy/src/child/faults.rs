//! Places what went wrong in the operators' files.

use std::collections::BTreeMap;

use model::Finding;
use steel::SteelErr;
use steel::parser::span::Span;
use steel::rerrs::ErrorKind;
use steel::steel_vm::engine::Engine;

use super::declare::{Failure, Misfit};
use super::values::bare;

/// The finding for an error that came up in `file`, placed as well as the interpreter knows.
///
/// The error's own span is tried first, then the calls that led there, innermost
/// first; one that lies in the library or in nothing is passed over, because the
/// operator cannot edit those.
pub fn finding(engine: &Engine, files: &BTreeMap<String, String>, file: &str, error: &SteelErr) -> Finding {
    let trace = error.stack_trace().as_ref().map_or(&[][..], |trace| trace.trace());
    let calls = trace.iter().rev().filter_map(|call| *call.span());
    let placed = error.span().into_iter().chain(calls).find_map(|span| place(engine, files, span));
    let message = error.to_string();
    let message = lower_first(bare(&message));
    let help = help(error.kind(), &message);
    match placed {
        Some(Place { file, at, width }) => {
            let text = files.get(&file).map_or("", String::as_str);
            Finding::error(file, text, at, message, help).spanning(width)
        }
        None => Finding::error(file, "", (0, 0), message, help),
    }
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

fn help(kind: ErrorKind, message: &str) -> &'static str {
    match kind {
        ErrorKind::FreeIdentifier => "define it, or require the module that provides it; mind the spelling",
        ErrorKind::ArityMismatch => "give as many arguments as the function takes",
        ErrorKind::Parse | ErrorKind::BadSyntax | ErrorKind::UnexpectedToken => {
            "look for a bracket or quote that is missing or too many"
        }
        ErrorKind::TypeMismatch => "look at what kind of value each part gives",
        ErrorKind::Generic if message.contains("free identifier") => {
            "define it, or require the module that provides it"
        }
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

/// The finding for a declaration that does not fit the rest.
pub fn misfit(files: &BTreeMap<String, String>, misfit: Misfit) -> Finding {
    let Misfit { file, form, message, help } = misfit;
    let text = files.get(&file).map_or("", String::as_str);
    // The name in the message, where the file has it, is the better place; else the form.
    let named = message.split('`').nth(1).and_then(|name| Some((text.find(name)?, name)));
    let (offset, width) = match named {
        Some((offset, name)) => (Some(offset), name.chars().count()),
        None => (text.find(form), form.len()),
    };
    let at = offset.and_then(|offset| position(text, offset)).unwrap_or((0, 0));
    Finding::error(file, text, at, message, help).spanning(width as u32)
}

/// The finding for a test of a file's own that failed.
pub fn failed_test(files: &BTreeMap<String, String>, failure: &Failure) -> Finding {
    let Failure { file, sentence, expected, actual } = failure;
    let text = files.get(file).map_or("", String::as_str);
    let quoted = format!("\"{sentence}\"");
    let at = text.find(&quoted).and_then(|offset| position(text, offset)).unwrap_or((0, 0));
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
