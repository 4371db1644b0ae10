//! The reference of everything that policies may call, and of what they are asked.
//!
//! There is one source for each half. What policies are *asked* stands in
//! [`ASKED`], which the loader checks files against. What they may *call* stands
//! in the modules of the Scheme library: each name that a module provides has a
//! `;;@doc` block with what it gives, units included, and examples with their values.
//! `docs/policy-reference.md`, `repomind-run api` and `,doc` in the REPL are
//! printed from both; the tests evaluate every example and fail when a name
//! has no block or the printed file is stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::versions::VERSIONS;

/// The policy API that this runtime offers: what a file's `policy-api` must be.
pub const API: isize = VERSIONS[VERSIONS.len() - 1].number;

/// A function that a policy file hands on, and the runtime asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its name.
    pub name: &'static str,
    /// What it is given, separated by blanks.
    pub arguments: &'static str,
    /// What it returns.
    pub returns: &'static str,
}

const fn asked(name: &'static str, arguments: &'static str, returns: &'static str) -> Asked {
    Asked { name, arguments, returns }
}

/// The ten files, and what each is asked. Those that are asked nothing declare something while they load.
pub const ASKED: &[(&str, &[Asked])] = &[
    (
        "region-config/region-mapping.scm",
        &[asked(
            "region-candidates",
            "client regions",
            "ids of the regions that may serve the client class, best first",
        )],
    ),
    ("data-replication/eventual-consistency.scm", &[]),
    ("data-replication/conflict-resolution.scm", &[]),
    (
        "data-replication/replication-lag.scm",
        &[asked("lag-action", "link", "'ok, 'alert, 'throttle or 'unready; more lag never calls for less")],
    ),
    (
        "traffic-routing/geo-dns.scm",
        &[asked(
            "dns-answer",
            "name client ranked",
            "((count . regions) (ttl-min . seconds) (ttl-max . seconds) (shares . ((id . weight) …)), shares optional) for a routed name and the ranked ids",
        )],
    ),
    (
        "traffic-routing/latency-routing.scm",
        &[asked("rank-regions", "client candidates", "ids of the candidates, best first")],
    ),
    (
        "traffic-routing/failover.scm",
        &[
            asked("region-verdict", "observations", "'steady or 'unwell"),
            asked("failover-plan", "regions", "((drain . ids) (shift . per cent, 1 to 100) (promote . id or #f))"),
        ],
    ),
    ("edge-deployment/edge-cache.scm", &[]),
    (
        "compliance/data-residency.scm",
        &[
            asked("residency", "record", "(allow-in ids 'rule duties) or (deny 'rule)"),
            asked("transfer", "record from to", "(allow 'rule duties) or (deny 'rule)"),
        ],
    ),
    ("compliance/region-policies.scm", &[]),
];

/// An example of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What is called.
    pub source: String,
    /// What it gives, as the REPL prints it; nothing where it gives nothing.
    pub value: Option<String>,
}

/// One name of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The module that provides it.
    pub module: String,
    /// Its name.
    pub name: String,
    /// How it is called.
    pub form: String,
    /// What it does and gives.
    pub text: String,
    /// At least one.
    pub examples: Vec<Example>,
}

/// Everything that the library provides and documents, module by module, in the order of the text.
pub fn entries(library: &BTreeMap<String, String>) -> Vec<Entry> {
    library.iter().flat_map(|(module, text)| of_module(module, text)).collect()
}

/// The entries of a name; the same may stand in several modules.
pub fn find<'a>(entries: &'a [Entry], name: &str) -> Vec<&'a Entry> {
    entries.iter().filter(|entry| entry.name == name).collect()
}

/// The names that modules provide without a block, or with one that has no example.
pub fn undocumented(library: &BTreeMap<String, String>) -> Vec<String> {
    let whole: BTreeSet<(String, String)> = entries(library)
        .into_iter()
        .filter(|entry| !entry.examples.is_empty() && !entry.text.is_empty())
        .map(|entry| (entry.module, entry.name))
        .collect();
    let provided =
        library.iter().flat_map(|(module, text)| provided(text).into_iter().map(|name| (module.clone(), name)));
    provided.filter(|name| !whole.contains(name)).map(|(module, name)| format!("{module}: {name}")).collect()
}

fn provided(text: &str) -> Vec<String> {
    let Some((_, rest)) = text.split_once("\n(provide ") else { return Vec::new() };
    rest.split(')').next().unwrap_or("").split_whitespace().map(str::to_owned).collect()
}

fn of_module(module: &str, text: &str) -> Vec<Entry> {
    let public = provided(text);
    let mut entries = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("\n;;@doc") {
        rest = after;
        let (stated, mut body) = after.split_once('\n').unwrap_or((after, ""));
        let (mut words, mut examples) = (Vec::new(), Vec::<Example>::new());
        while let Some((line, below)) = body.split_once('\n')
            && let Some(line) = line.strip_prefix(";;")
        {
            body = below;
            let line = line.strip_prefix(' ').unwrap_or(line);
            match (line.strip_prefix("> "), line.strip_prefix("= "), examples.last_mut()) {
                (Some(source), ..) => examples.push(Example { source: source.to_owned(), value: None }),
                (None, Some(value), Some(example)) => example.value = Some(value.to_owned()),
                _ => words.push(line.trim().to_owned()),
            }
        }
        let stated = stated.trim();
        let form = if stated.is_empty() { defined(body, &words) } else { stated.to_owned() };
        let name: String =
            form.trim_start_matches('(').chars().take_while(|c| !c.is_whitespace() && *c != ')').collect();
        if public.contains(&name) {
            entries.push(Entry { module: module.to_owned(), name, form, text: words.join(" "), examples });
        }
    }
    entries
}

/// How a definition is called: its head, on one line. A macro is called as the first form in its words says.
fn defined(body: &str, words: &[String]) -> String {
    if let Some(rest) = body.strip_prefix("(define-syntax ") {
        let name = rest.split_whitespace().next().unwrap_or("");
        let text = words.join(" ");
        return match text.find(&format!("({name} ")).map(|at| balanced(&text[at..])) {
            Some(form) => form.to_owned(),
            None => format!("({name} …)"),
        };
    }
    let head = body.strip_prefix("(define ").map_or("", balanced);
    head.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text up to where its first bracket closes.
fn balanced(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at + c.len_utf8()];
        }
    }
    text
}

/// An entry for a terminal.
pub fn render(entry: &Entry) -> String {
    let Entry { module, form, text, examples, .. } = entry;
    let mut out = format!("{form}\n  {text}\n  (require \"{module}\")\n");
    for Example { source, value } in examples {
        let value = value.as_ref().map_or_else(String::new, |value| format!("  ⇒ {value}"));
        let _ = writeln!(out, "  {source}{value}");
    }
    out
}

/// The whole reference as Markdown.
pub fn markdown(library: &BTreeMap<String, String>) -> String {
    let mut out = format!(
        "# Policy reference\n\nPolicy API {API}. Printed by `repomind-run api --markdown`; edit the modules in \
         `scm/repomind/` and print it anew. Every example is run as a test.\n\n## What the runtime asks\n\n\
         | file | function | returns |\n|---|---|---|\n"
    );
    for (file, functions) in ASKED {
        if functions.is_empty() {
            let _ = writeln!(out, "| `{file}` | none: it declares | |");
        }
        for Asked { name, arguments, returns } in *functions {
            let _ = writeln!(out, "| `{file}` | `({name} {arguments})` | {returns} |");
        }
    }
    let entries = entries(library);
    for (module, text) in library {
        let title = text.lines().next().unwrap_or("").trim_start_matches(';').trim();
        let title = title.split_once("---").map_or(title, |(_, says)| says.trim());
        let _ = writeln!(out, "\n## `(require \"{module}\")`\n\n{}", capital(title));
        for Entry { form, text, examples, .. } in entries.iter().filter(|entry| entry.module == *module) {
            let _ = writeln!(out, "\n### `{form}`\n\n{text}\n\n```scheme");
            for Example { source, value } in examples {
                let value = value.as_ref().map_or_else(String::new, |value| format!("  ; ⇒ {value}"));
                let _ = writeln!(out, "{source}{value}");
            }
            out.push_str("```\n");
        }
    }
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_form_words_and_examples_and_private_names_stay_out() {
        let text = "\n(provide f g)\n\n;;@doc (g x)\n;; Gives x.\n;; > (g 1)\n;; = 1\n\n;;@doc\n;; Adds,\n;; in ms.\n\
                    ;; > (f 1)\n(define (f a\n           #:b [b 2])\n  a)\n\n;;@doc\n;; Inner.\n(define (h) 1)\n";
        let library = BTreeMap::from([("m.scm".to_owned(), text.to_owned())]);
        let entries = entries(&library);
        assert_eq!(entries.iter().map(|entry| entry.form.as_str()).collect::<Vec<_>>(), ["(g x)", "(f a #:b [b 2])"]);
        assert_eq!((entries[1].text.as_str(), entries[1].examples[0].value.clone()), ("Adds, in ms.", None));
        assert_eq!(entries[0].examples[0].value.as_deref(), Some("1"));
        assert!(undocumented(&library).is_empty());
        let bare = BTreeMap::from([("m.scm".to_owned(), "\n(provide f)\n(define (f) 1)\n".to_owned())]);
        assert_eq!(undocumented(&bare), ["m.scm: f"]);
    }
}
