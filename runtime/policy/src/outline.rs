//! What a file defines, and what each part of it mentions: enough to find names
//! defined twice, files without tests, and definitions that no test reaches.

use std::collections::{BTreeMap, BTreeSet};

use model::Finding;
use model::question::Unreached;

/// A form that stands in no other.
#[derive(Debug, Default)]
pub struct Form {
    /// Its first name, such as `define`.
    head: String,
    /// What it defines, and where that name stands.
    defines: Option<(String, (u32, u32))>,
    /// Every name in it.
    mentions: BTreeSet<String>,
}

/// The forms of a file, in order.
#[derive(Debug, Default)]
pub struct Outline(Vec<Form>);

impl Outline {
    /// A form begins.
    pub fn begin(&mut self) {
        self.0.push(Form::default());
    }

    /// A name stands in the form begun last, within so many brackets.
    pub fn name(&mut self, name: &str, place: (u32, u32), depth: usize) {
        let Some(form) = self.0.last_mut() else { return };
        if form.head.is_empty() {
            name.clone_into(&mut form.head);
        } else if form.defines.is_none() && depth <= 2 && form.head.starts_with("define") && is_definition(&form.head) {
            form.defines = Some((name.to_owned(), place));
        } else {
            form.mentions.insert(name.to_owned());
        }
    }

    /// The names that are defined more than once.
    pub fn twice(&self, file: &str, text: &str) -> Vec<Finding> {
        let mut seen = BTreeMap::new();
        let mut findings = Vec::new();
        for (name, place) in self.0.iter().filter_map(|form| form.defines.as_ref()) {
            if let Some(line) = seen.insert(name, place.0) {
                let message = format!("`{name}` is defined already, on line {line}");
                let finding = Finding::error(file, text, *place, message, "rename one of the two, or remove it");
                findings.push(finding.spanning(name.chars().count() as u32));
            }
        }
        findings
    }

    /// Warnings: no tests at all, or functions handed on that no test reaches, directly or through others.
    pub fn untested(&self, file: &str, text: &str) -> Vec<Finding> {
        if !self.0.iter().any(|form| form.head == "test-module") {
            let help = "add (test-module \"NAME\" (check-equal? \"a sentence\" found expected)) at its end";
            return vec![Finding::error(file, "", (0, 0), "this file has no tests of its own", help).warning()];
        }
        let (definitions, reached) = (self.definitions(), self.reached());
        self.provided()
            .filter(|name| *name != "policy-api" && !reached.contains(name))
            .filter_map(|name| Some((name, definitions.get(name)?.defines.as_ref()?.1)))
            .map(|(name, place)| {
                let message = format!("no test of this file reaches `{name}`");
                let finding = Finding::error(file, text, place, message, "add a check of what it gives");
                finding.spanning(name.chars().count() as u32).warning()
            })
            .collect()
    }

    /// The definitions that no test of the file reaches, directly or through others.
    pub fn unreached(&self, file: &str) -> Vec<Unreached> {
        let reached = self.reached();
        let definitions = self.0.iter().filter_map(|form| form.defines.as_ref());
        definitions
            .filter(|(name, _)| *name != "policy-api" && !reached.contains(name.as_str()))
            .map(|(name, (line, _))| Unreached { file: file.to_owned(), line: *line, name: name.clone() })
            .collect()
    }

    /// Every name that the tests mention, and those that the definitions behind them mention.
    fn reached(&self) -> BTreeSet<&str> {
        let definitions = self.definitions();
        let tests = self.0.iter().filter(|form| matches!(form.head.as_str(), "test-module" | "define-invariant"));
        let mut open: Vec<&str> = tests.flat_map(|form| form.mentions.iter().map(String::as_str)).collect();
        let mut reached = BTreeSet::new();
        while let Some(name) = open.pop() {
            if reached.insert(name)
                && let Some(form) = definitions.get(name)
            {
                open.extend(form.mentions.iter().map(String::as_str));
            }
        }
        reached
    }

    fn definitions(&self) -> BTreeMap<&str, &Form> {
        self.0.iter().filter_map(|form| Some((form.defines.as_ref()?.0.as_str(), form))).collect()
    }

    /// The names that the file defines.
    pub fn defined(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|form| Some(form.defines.as_ref()?.0.as_str()))
    }

    /// The names that the file hands on.
    pub fn provided(&self) -> impl Iterator<Item = &str> {
        let forms = self.0.iter().filter(|form| form.head == "provide");
        forms.flat_map(|form| form.mentions.iter().map(String::as_str))
    }
}

fn is_definition(head: &str) -> bool {
    matches!(head, "define" | "define-syntax" | "define/contract")
}

/// The one of `known` that is most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    let best = known.map(|other| (distance(name, other, most), other)).min()?;
    (best.0 <= most && best.0 > 0).then_some(best.1)
}

/// How many letters must be added, removed, changed or swapped with their neighbour (Damerau 1964, optimal string
/// alignment); anything more than `most` where the lengths tell already.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_finds_its_word_and_another_word_does_not() {
        let known = ["region-id", "region-ids", "region-law", "map"];
        assert_eq!(nearest("regoin-id", known.into_iter()), Some("region-id"));
        assert_eq!(nearest("region-lwa", known.into_iter()), Some("region-law"));
        assert_eq!(nearest("cheese", known.into_iter()), None);
        assert_eq!(nearest("map", known.into_iter()), None);
    }
}
