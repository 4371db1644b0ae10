//! Forms of the REPL that change something: `(drain! 'us-east)`. They go to the primary as the commands of the same
//! name do, with the operator's token, and are asked about first, always.

use std::process::ExitCode;

use model::orders::Wish;
use model::{Country, Millis, RegionId};

use crate::args::Place;
use crate::orders::{self, OrderFlags, WordFlags};

/// Their forms, and what they do.
pub const OPERATIONS: &[(&str, &str)] = &[
    ("(drain! 'REGION \"why\")", "send nobody new to a region; it serves what arrives, and replicates"),
    ("(evacuate! 'REGION \"why\")", "have the other regions serve everybody, so that it can be switched off"),
    ("(restore! 'REGION \"why\")", "end what was ordered about a region"),
    ("(failover! 'REGION \"why\")", "give the place of the primary to a region"),
    ("(pin! 'REGION '(DE FR) \"2h\" \"why\")", "send clients of these countries there first, for a time; '() is all"),
];

/// An operation that was typed.
#[derive(Debug, PartialEq)]
pub struct Operation {
    wish: Wish,
    region: RegionId,
    lasts: Option<Millis>,
    why: Option<String>,
}

/// The name of the operation that a form is, if it is one.
pub fn name(form: &str) -> Option<&'static str> {
    let head = form.trim().strip_prefix('(')?.trim_start();
    let word = head.split(|c: char| c.is_whitespace() || c == ')').next()?;
    OPERATIONS.iter().filter_map(|(form, _)| form.get(1..)?.split(' ').next()).find(|name| *name == word)
}

/// Reads a form that [`name`] knows.
///
/// # Errors
/// How it is to be written.
pub fn read(form: &str) -> Result<Operation, String> {
    let name = name(form).unwrap_or_default();
    let usage = || {
        let form = OPERATIONS.iter().find(|(form, _)| form.contains(name)).map_or("", |(form, _)| form);
        format!("write {form}; the reason may be left out")
    };
    let inner = form.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(usage)?;
    let words = words(inner.trim());
    let (symbol, text) = (
        |word: &str| word.strip_prefix('\'').map(str::to_owned),
        |word: &str| word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map(str::to_owned),
    );
    let region = words.get(1).and_then(|word| symbol(word)).and_then(|id| RegionId::new(&id).ok()).ok_or_else(usage)?;
    let (wish, lasts, rest) = match name {
        "drain!" => (Wish::Drain, None, words.get(2..)),
        "evacuate!" => (Wish::Evacuate, None, words.get(2..)),
        "restore!" => (Wish::Restore, None, words.get(2..)),
        "failover!" => (Wish::Lead, None, words.get(2..)),
        _ => {
            let list = words.get(2).and_then(|list| list.strip_prefix("'(")?.strip_suffix(')')).ok_or_else(usage)?;
            let countries = list.split_whitespace().map(str::parse::<Country>).collect::<Result<_, _>>();
            let countries = countries.map_err(|error| format!("{error}; {}", usage()))?;
            let lasts = words.get(3).and_then(|word| text(word)).ok_or_else(usage)?;
            (Wish::Pin(countries), Some(orders::time(&lasts)?), words.get(4..))
        }
    };
    let why = match rest.unwrap_or_default() {
        [] => None,
        [why] => Some(text(why).ok_or_else(usage)?),
        _ => return Err(usage()),
    };
    Ok(Operation { wish, region, lasts, why })
}

/// The words of a form: texts and lists in one piece.
fn words(source: &str) -> Vec<String> {
    let (mut words, mut word, mut depth, mut in_text) = (Vec::new(), String::new(), 0_u32, false);
    for c in source.chars() {
        match c {
            '"' => in_text = !in_text,
            '(' | '[' if !in_text => depth += 1,
            ')' | ']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c.is_whitespace() && depth == 0 && !in_text {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        } else {
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Shows what would follow, asks, and has it done.
///
/// # Errors
/// Where no region can be asked.
pub fn carry_out(operation: Operation, place: &Place) -> anyhow::Result<ExitCode> {
    let Operation { wish, region, lasts, why } = operation;
    let word = WordFlags {
        reason: why.unwrap_or_else(|| "typed in the REPL".to_owned()),
        dry_run: false,
        force: false,
        yes: false,
        place: place.clone(),
        json: false,
    };
    let flags = OrderFlags { region, word };
    tokio::runtime::Handle::current().block_on(orders::give(wish, flags, lasts, orders::Asking::Always))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> RegionId {
        RegionId::new(name).unwrap()
    }

    #[test]
    fn an_operation_is_read_from_its_form_and_nothing_else_is() {
        let drain = Operation { wish: Wish::Drain, region: id("us-east"), lasts: None, why: None };
        assert_eq!(read("(drain! 'us-east)"), Ok(drain));
        let pin = read(" (pin! 'eu-west '(DE FR) \"2h\" \"a fair, (really)\") ").unwrap();
        assert_eq!((pin.lasts, pin.why.as_deref()), (Some(Millis(7_200_000)), Some("a fair, (really)")));
        assert_eq!(pin.wish, Wish::Pin(["DE", "FR"].map(|code| Country::new(code).unwrap()).into()));
        assert_eq!(name("(map drain! '(us-east))"), None);
        assert_eq!(name("(regions)"), None);
        for wrong in [
            "(drain!)",
            "(drain! us-east)",
            "(drain! 'us-east why)",
            "(pin! 'eu-west '(DE))",
            "(drain! 'a \"b\" \"c\")",
        ] {
            assert!(read(wrong).is_err_and(|says| says.starts_with("write (")), "{wrong}");
        }
        assert!(read("(pin! 'eu-west '(DE) \"soon\")").is_err_and(|says| says.contains("such as")));
    }
}
