//! What makes typing Scheme bearable: completion, brackets that are shown and counted, colours.

use std::borrow::Cow;

use rustyline::completion::{Completer, extract_word};
use rustyline::highlight::{CmdKind, Highlighter, MatchingBracketHighlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::operations::OPERATIONS;

/// Words that are no functions and worth completing all the same.
const WORDS: &[&str] = &["filter", "length", "member", "assoc"];
/// Words that are no functions at all, and stand out.
const FORMS: &[&str] = &[
    "and", "begin", "case", "cond", "define", "else", "if", "lambda", "let", "let*", "letrec", "or", "provide",
    "quote", "require", "set!", "struct", "unless", "when",
];
/// What a region says of itself, how it is asked, and what comes; see `start/snapshot.rs`.
pub const FACTS: &[(&str, &str, &str)] = &[
    ("regions", "(regions)", "each region: state, round trip in ms, whether it is the primary, gateway"),
    ("lag", "(lag) (lag 'eu-west)", "lag in ms and backlog towards each peer, or one"),
    ("generation", "(generation)", "number and hash of the policies in force"),
    ("route", "(route \"203.0.113.9\")", "where a client at that address goes, and the ranking"),
    ("facts", "(facts)", "hash of what policies are told now, and the regions in it"),
    ("decisions", "(decisions 10)", "the last decisions that policies gave; `explain decision N` tells all of one"),
    ("conflicts", "(conflicts 10)", "what lost last against concurrent writes"),
    ("orders", "(orders)", "what operators have ordered about the traffic of regions"),
    ("policy-errors", "(policy-errors)", "why the files on disk are not in force"),
    ("policy-waiting", "(policy-waiting)", "the change that waits for a word, and what it would change"),
];
/// Commands of the REPL itself.
pub const COMMANDS: &[(&str, &str)] = &[
    (",help", "this list"),
    (",doc NAME", "what the reference says of a name"),
    (",load FILE", "make the definitions of a file known to this session; again to read it anew"),
    (",quit", "end, as ctrl-D does"),
];

/// Knows the names that may be typed.
pub struct Typing {
    names: Vec<String>,
    brackets: MatchingBracketHighlighter,
    colour: bool,
}

impl Typing {
    /// Completes `names`, besides words, facts and commands.
    pub fn new(names: impl Iterator<Item = String>, colour: bool) -> Self {
        let commands = COMMANDS.iter().filter_map(|(form, _)| form.split(' ').next());
        let facts = FACTS.iter().map(|(name, ..)| *name);
        let operations = OPERATIONS.iter().filter_map(|(form, _)| super::operations::name(form));
        let all = WORDS.iter().chain(FORMS).copied().chain(facts).chain(operations).chain(commands);
        let mut names: Vec<String> = names.chain(all.map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        Self { names, brackets: MatchingBracketHighlighter::new(), colour }
    }

    fn starting_with(&self, word: &str) -> Vec<String> {
        self.names.iter().filter(|name| name.starts_with(word)).cloned().collect()
    }
}

fn breaks(c: char) -> bool {
    c.is_whitespace() || "()[]'\"`".contains(c)
}

impl Completer for Typing {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let (start, word) = extract_word(line, pos, None, breaks);
        Ok((start, if word.is_empty() { Vec::new() } else { self.starting_with(word) }))
    }
}

impl Hinter for Typing {
    type Hint = String;
}

impl Highlighter for Typing {
    fn highlight<'l>(&self, line: &'l str, pos: usize) -> Cow<'l, str> {
        if !self.colour {
            return Cow::Borrowed(line);
        }
        match self.brackets.highlight(line, pos) {
            // Where the cursor is at no bracket, texts, comments, symbols and the words of the language stand out.
            Cow::Borrowed(line) => Cow::Owned(coloured(line)),
            shown => shown,
        }
    }

    fn highlight_char(&self, line: &str, pos: usize, kind: CmdKind) -> bool {
        self.colour && (self.brackets.highlight_char(line, pos, kind) || coloured(line) != line)
    }
}

impl Validator for Typing {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        Ok(match open_brackets(input) {
            _ if input.trim_start().starts_with(',') => ValidationResult::Valid(None),
            depth if depth > 0 => ValidationResult::Incomplete,
            _ if ends_in_text(input) => ValidationResult::Incomplete,
            depth if depth < 0 => ValidationResult::Invalid(Some("  a bracket too many".to_owned())),
            _ => ValidationResult::Valid(None),
        })
    }
}

impl Helper for Typing {}

/// What part of a source a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Text,
    Comment,
}

/// Each character with the part that it belongs to. A character literal such as `#\(` opens nothing.
fn parts(source: &str) -> impl Iterator<Item = (char, Part, bool)> {
    let (mut part, mut escaped) = (Part::Code, false);
    source.chars().map(move |c| {
        let literal = std::mem::take(&mut escaped);
        let shown = match (part, c) {
            (Part::Code, '"') if !literal => {
                part = Part::Text;
                Part::Text
            }
            (Part::Code, ';') if !literal => {
                part = Part::Comment;
                Part::Comment
            }
            (Part::Text, '"') if !literal => {
                part = Part::Code;
                Part::Text
            }
            (Part::Comment, '\n') => {
                part = Part::Code;
                Part::Comment
            }
            (part, '\\') if !literal && part != Part::Comment => {
                escaped = true;
                part
            }
            (part, _) => part,
        };
        (c, shown, literal)
    })
}

/// How many brackets are still open, outside texts and comments.
pub fn open_brackets(source: &str) -> i32 {
    let code = parts(source).filter(|(_, part, literal)| *part == Part::Code && !literal);
    code.map(|(c, ..)| match c {
        '(' | '[' => 1,
        ')' | ']' => -1,
        _ => 0,
    })
    .sum()
}

/// Whether a text is still open.
fn ends_in_text(source: &str) -> bool {
    let quotes = parts(source).filter(|(c, part, literal)| *c == '"' && *part == Part::Text && !literal);
    quotes.count() % 2 == 1
}

/// Colours a line: texts green, comments dim, words of the language bold, quoted symbols cyan.
fn coloured(line: &str) -> String {
    let (mut out, mut word, mut last) = (String::new(), String::new(), Part::Code);
    for (c, part, literal) in parts(line) {
        if part != Part::Code || (!literal && (c.is_whitespace() || "()[]".contains(c))) {
            flush(&mut out, &mut word);
        }
        if part != last {
            out.push_str(match part {
                Part::Code => "\u{1b}[0m",
                Part::Text => "\u{1b}[32m",
                Part::Comment => "\u{1b}[2m",
            });
            last = part;
        }
        match part {
            Part::Code if literal || !(c.is_whitespace() || "()[]".contains(c)) => word.push(c),
            _ => out.push(c),
        }
    }
    flush(&mut out, &mut word);
    if last != Part::Code {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// Writes a word of code with its colour.
fn flush(out: &mut String, word: &mut String) {
    let code = match word.as_str() {
        form if FORMS.contains(&form) => "\u{1b}[1m",
        symbol if symbol.len() > 1 && symbol.starts_with('\'') => "\u{1b}[36m",
        _ => "",
    };
    out.push_str(code);
    out.push_str(word);
    if !code.is_empty() {
        out.push_str("\u{1b}[0m");
    }
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_whole_when_its_brackets_close_outside_texts_and_comments() {
        assert_eq!(open_brackets("(define (f x)\n"), 1);
        assert_eq!(open_brackets("(f \")\" ; )\n)"), 0);
        assert_eq!(open_brackets("(f \"\\\")\" #\\( )"), 0);
        assert_eq!(open_brackets("(f))"), -1);
        assert!(ends_in_text("\"a") && !ends_in_text("\"a\" #\\\"") && !ends_in_text("; \"a"));
    }

    #[test]
    fn names_are_completed_from_where_the_word_begins() {
        let typing = Typing::new(["region-rtt", "region-id"].into_iter().map(str::to_owned), false);
        let history = rustyline::history::DefaultHistory::new();
        let complete = |line: &str| typing.complete(line, line.len(), &Context::new(&history)).unwrap();
        assert_eq!(complete("(map region-r"), (5, vec!["region-rtt".to_owned()]));
        assert_eq!(complete("(region-"), (1, vec!["region-id".to_owned(), "region-rtt".to_owned()]));
        assert_eq!(complete(",d"), (0, vec![",doc".to_owned()]));
        assert_eq!(complete("(").1, Vec::<String>::new());
    }

    #[test]
    fn a_text_is_coloured_to_its_end_and_no_further() {
        assert_eq!(coloured("(f \"a\" b)"), "(f \u{1b}[32m\"a\"\u{1b}[0m b)");
        assert_eq!(coloured("1 ; x"), "1 \u{1b}[2m; x\u{1b}[0m");
        assert_eq!(coloured("(if 'a ifs)"), "(\u{1b}[1mif\u{1b}[0m \u{1b}[36m'a\u{1b}[0m ifs)");
    }
}
