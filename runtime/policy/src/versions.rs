//! Versions of the contract between policy files and the runtime, and the way from one to another.
//!
//! A file states the version that it is written for: `(define policy-api 1)`. That is looked at before anything in it
//! runs, because a file for another version would first fail on a name that is not there, and say nothing of use.
//! Whoever changes the contract adds a [`Version`] here, with what an author has to do.

use std::collections::BTreeMap;

use model::Finding;

/// A version of the contract.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Its number.
    pub number: isize,
    /// What an author does to a file for the version before it, a sentence each; nothing for the first.
    pub steps: &'static [&'static str],
}

/// All versions that ever were, the oldest first; the last is the one that this runtime offers.
pub const VERSIONS: &[Version] = &[Version { number: 1, steps: &[] }];

/// How a file states its version, up to the number.
const STATED: &str = "(define policy-api ";

/// Files that state another version, all of them, with the way to this one.
pub fn check(files: &BTreeMap<String, String>) -> Vec<Finding> {
    check_against(files, VERSIONS)
}

fn check_against(files: &BTreeMap<String, String>, versions: &[Version]) -> Vec<Finding> {
    let ours = versions.last().map_or(0, |version| version.number);
    let mut findings = Vec::new();
    for (file, text) in files {
        let stated = text.lines().enumerate().find_map(|(at, line)| Some((at, line.strip_prefix(STATED)?)));
        let Some((at, rest)) = stated else { continue };
        let word = rest.split([')', ' ', ';']).next().unwrap_or_default();
        let found = word.parse::<isize>();
        if found == Ok(ours) {
            continue;
        }
        let place = (at as u32 + 1, STATED.len() as u32 + 1);
        let message = match &found {
            Ok(found) => format!("this file is written for policy API {found}; this runtime offers {ours}"),
            Err(_) => format!("{word:?} is no version of the policy API; this runtime offers {ours}"),
        };
        let help = way(found.ok(), versions);
        findings.push(Finding::error(file.as_str(), text, place, message, help).spanning(word.chars().count() as u32));
    }
    findings
}

/// How a file for this version becomes one for the runtime's own.
pub fn help(found: Option<isize>) -> String {
    way(found, VERSIONS)
}

fn way(found: Option<isize>, versions: &[Version]) -> String {
    let ours = versions.last().map_or(0, |version| version.number);
    match found {
        Some(found) if found > ours => format!(
            "the file comes from a newer release: run that release, in every region; or write the file for {ours}, which \
             `repomind-run api` lists in full: state (define policy-api {ours}), save, and what {ours} does not have is \
             named with its line. Until then the last good generation stays in force"
        ),
        Some(found) if versions.iter().any(|version| version.number == found) => {
            let steps = versions.iter().filter(|version| version.number > found).flat_map(|version| version.steps);
            let steps: Vec<&str> = steps.copied().collect();
            format!("to bring it to {ours}: {}; then state (define policy-api {ours})", steps.join("; "))
        }
        _ => format!("versions are whole numbers from 1; state (define policy-api {ours})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[Version] = &[
        Version { number: 1, steps: &[] },
        Version { number: 2, steps: &["rename `a` to `b`"] },
        Version { number: 3, steps: &["give `c` a second argument", "remove `d`"] },
    ];

    fn one(stated: &str, versions: &[Version]) -> Option<Finding> {
        let text = format!(";;; a file\n;; (define policy-api 9)\n(define policy-api {stated})\n(f)\n");
        check_against(&BTreeMap::from([("a.scm".to_owned(), text)]), versions).pop()
    }

    #[test]
    fn a_file_for_an_older_version_is_told_every_step_on_the_way() {
        assert!(one("3", THREE).is_none());
        let oldest = one("1", THREE).unwrap();
        assert_eq!((oldest.line, oldest.column), (3, 20));
        assert_eq!(
            oldest.help,
            "to bring it to 3: rename `a` to `b`; give `c` a second argument; remove `d`; then state (define policy-api 3)"
        );
        assert!(one("2", THREE).unwrap().help.starts_with("to bring it to 3: give `c`"));
    }

    #[test]
    fn a_file_for_a_version_that_is_not_known_yet_is_told_so_and_so_is_nonsense() {
        let newer = one("4", THREE).unwrap();
        assert_eq!(newer.message, "this file is written for policy API 4; this runtime offers 3");
        assert!(newer.help.starts_with("the file comes from a newer release"), "{}", newer.help);
        assert!(one("0", THREE).unwrap().help.contains("from 1"));
        assert!(one("two", THREE).unwrap().message.starts_with("\"two\" is no version"));
    }

    #[test]
    fn versions_are_counted_without_a_gap_and_every_step_up_is_described() {
        for (at, version) in VERSIONS.iter().enumerate() {
            assert_eq!(version.number, at as isize + 1);
            assert_eq!(version.steps.is_empty(), at == 0, "nobody could bring a file to version {}", version.number);
        }
    }
}
