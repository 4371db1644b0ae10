//! `repomind-run api`: what policies are asked and what they may call.

use std::process::ExitCode;

use policy::reference::{self, Entry};

use crate::args::{ApiArgs, FINDING};

/// Prints the reference, or what it says of one name.
///
/// # Errors
/// None today; the signature is that of every subcommand.
pub fn run(args: &ApiArgs) -> anyhow::Result<ExitCode> {
    let library = crate::embedded::library();
    if args.markdown {
        print!("{}", reference::markdown(&library));
        return Ok(ExitCode::SUCCESS);
    }
    let entries = reference::entries(&library);
    match &args.name {
        Some(name) => {
            let found = about(&entries, name);
            print!("{}", found.as_deref().unwrap_or(""));
            if found.is_none() {
                eprintln!("{}", unknown(&entries, name));
                return Ok(ExitCode::from(FINDING));
            }
        }
        None => {
            for (file, functions) in reference::ASKED {
                functions
                    .iter()
                    .for_each(|asked| println!("{file}: ({} {}): {}", asked.name, asked.arguments, asked.returns));
            }
            entries.iter().for_each(|entry| println!("{}: {}", entry.module, entry.form));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the reference says of a name, if anything.
pub fn about(entries: &[Entry], name: &str) -> Option<String> {
    let asked = reference::ASKED.iter().flat_map(|(file, functions)| functions.iter().map(move |asked| (file, asked)));
    let asked = asked.filter(|(_, asked)| asked.name == name).map(|(file, asked)| {
        format!(
            "({} {})\n  asked by the runtime; returns {}\n  in {file}\n",
            asked.name, asked.arguments, asked.returns
        )
    });
    let called = reference::find(entries, name).into_iter().map(reference::render);
    let all: Vec<String> = asked.chain(called).collect();
    (!all.is_empty()).then(|| all.join("\n"))
}

/// What to say of a name that the reference does not have.
pub fn unknown(entries: &[Entry], name: &str) -> String {
    let near: Vec<&str> =
        entries.iter().map(|entry| entry.name.as_str()).filter(|other| other.contains(name)).take(8).collect();
    match near.is_empty() {
        true => format!("nothing is called {name}; `repomind-run api` lists all names"),
        false => format!("nothing is called {name}; there are {}", near.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_reference_is_that_of_the_library() {
        let printed = include_str!("../../../docs/policy-reference.md");
        let now = reference::markdown(&crate::embedded::library());
        let stale = printed.lines().zip(now.lines()).find(|(printed, now)| printed != now);
        assert!(
            printed == now,
            "docs/policy-reference.md is stale (first difference: {stale:?}); print it anew: \
             repomind-run api --markdown > docs/policy-reference.md"
        );
    }

    #[test]
    fn what_is_asked_and_what_may_be_called_are_both_found() {
        let entries = reference::entries(&crate::embedded::library());
        assert!(about(&entries, "region-verdict").unwrap().contains("'steady or 'unwell"));
        assert!(about(&entries, "region-rtt").unwrap().contains("⇒ 70.0"));
        assert_eq!(about(&entries, "region-speed"), None);
        assert!(unknown(&entries, "sibling").contains("sibling-time"));
    }
}
