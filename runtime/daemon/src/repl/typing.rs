//! What makes typing Scheme bearable: completion, brackets that are shown and counted, colours.

use std::borrow::Cow;

use rustyline::completion::{Completer, extract_word};
use rustyline::highlight::{CmdKind, Highlighter, MatchingBracketHighlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

/// Words that are no functions and worth completing all the same.
const WORDS: &[&str] =
    &["define", "lambda", "let", "let*", "if", "cond", "else", "filter", "length", "member", "assoc"];
/// What a region says of itself; see `start/snapshot.rs`.
const FACTS: &[&str] =
    &["regions", "lag", "generation", "route", "policy-errors", "policy-waiting", "facts", "decisions"];
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
        let mut names: Vec<String> =
            names.chain(WORDS.iter().chain(FACTS).copied().chain(commands).map(str::to_owned)).collect();
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
            // Where the cursor is at no bracket, texts and comments stand out.
            Cow::Borrowed(line) => Cow::Owned(coloured(line)),
            shown => shown,
        }
    }

    fn highlight_char(&self, line: &str, pos: usize, kind: CmdKind) -> bool {
        self.colour && (self.brackets.highlight_char(line, pos, kind) || line.contains(['"', ';']))
    }
}

impl Validator for Typing {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        Ok(match open_brackets(input) {
            _ if input.trim_start().starts_with(',') => ValidationResult::Valid(None),
            depth if depth > 0 => ValidationResult::Incomplete,
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

fn coloured(line: &str) -> String {
    let (mut out, mut last) = (String::new(), Part::Code);
    for (c, part, _) in parts(line) {
        if part != last {
            out.push_str(match part {
                Part::Code => "\u{1b}[0m",
                Part::Text => "\u{1b}[32m",
                Part::Comment => "\u{1b}[2m",
            });
            last = part;
        }
        out.push(c);
    }
    if last != Part::Code {
        out.push_str("\u{1b}[0m");
    }
    out
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
    }
}
