//! Reads Scheme source without running it, and says what may not stand there.
//!
//! Found here, with line and column: files too long or nested too deep (both
//! bring the reader down), brackets that do not match, names that reach outside
//! the cage or make a policy depend on more than its facts, and modules that do
//! not exist. This is a courtesy, not the fence: macros can hide a name from
//! it. The fence is the cage.

use model::Finding;

use crate::outline::{Outline, nearest};

/// The longest file, in bytes.
pub const LONGEST_FILE: usize = 256 << 10;
/// The deepest nesting of brackets.
pub const DEEPEST: usize = 200;
/// How many findings a file gets before the rest is left unsaid.
const MOST_FINDINGS: usize = 20;

const OUTSIDE: &str = "policies have no files, processes, threads or environment";
const IMPURE: &str = "policies are pure: the same facts must give the same answer, so they have no clock and no chance";
const INNER: &str = "policies use the interpreter's documented surface only; require a module of the library instead";

/// Names that may not stand in a policy, and why.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        INNER,
        &[
            "require-builtin",
            "eval",
            "eval!",
            "eval-string",
            "eval-file!",
            "load",
            "load-expanded",
            "expand!",
            "read!",
            "run!",
            "set-test-mode!",
            "breakpoint!",
            "inspect",
            "memory-address",
            "current-function-span",
            "emit-expanded-file",
            "deserialize-value",
            "serialize-value",
            "begin-for-syntax",
            "defmacro",
        ],
    ),
    (
        OUTSIDE,
        &[
            "spawn-native-thread",
            "spawn-thread!",
            "thread-join!",
            "thread-suspend",
            "thread-resume",
            "thread-interrupt",
            "make-channels",
            "channels/new",
            "channel/send",
            "channel/recv",
            "lock-acquire!",
            "lock-release!",
            "make-tls",
            "block-on",
            "local-executor/block-on",
            "command",
            "spawn-process",
            "wait->stdout",
            "set-piped-stdout!",
            "with-env-var",
            "with-current-dir",
            "env-var",
            "maybe-get-env-var",
            "set-env-var!",
            "open-input-file",
            "open-output-file",
            "call-with-input-file",
            "call-with-output-file",
            "with-output-to-file",
            "delete-file!",
            "create-directory!",
            "delete-directory!",
            "rename-file-or-directory!",
            "copy-directory-recursively!",
            "read-dir",
            "read-dir-iter",
            "current-directory",
            "change-current-directory!",
            "path-exists?",
            "is-file?",
            "is-dir?",
            "canonicalize-path",
            "file-metadata",
            "glob",
            "stdin",
            "read-line-from-port",
            "tcp-connect",
            "tcp-listen",
            "download-file!",
        ],
    ),
    (
        IMPURE,
        &[
            "current-milliseconds",
            "current-second",
            "current-inexact-milliseconds",
            "instant/now",
            "system-time/now",
            "local-time/now!",
            "naive-current-date-local",
            "time/sleep-ms",
            "thread-rng!",
            "rng->gen-usize",
            "rng->gen-range",
            "random",
        ],
    ),
];

/// What a file requires, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Scan {
    /// The modules that it requires, in order.
    pub requires: Vec<String>,
    /// What may not stand there.
    pub findings: Vec<Finding>,
    /// What it defines and mentions.
    pub outline: Outline,
    /// The forms that stand in no other.
    pub forms: Vec<Form>,
}

/// A form that stands in no other.
#[derive(Debug)]
pub struct Form {
    /// Line and column where it begins.
    pub place: (u32, u32),
    /// The bytes of the file that it takes up.
    pub bytes: std::ops::Range<usize>,
}

/// Whether a form begins with a bracket, one of these words and a blank.
pub fn begins_with(form: &str, heads: &[&str]) -> bool {
    let Some(form) = form.strip_prefix('(') else { return false };
    let follows = |head: &&str| form.strip_prefix(*head).is_some_and(|rest| rest.starts_with(char::is_whitespace));
    heads.iter().any(follows)
}

/// The text with blanks in the place of each form that begins with `(head` and a blank, so that everything else stays
/// where it was.
pub fn without(text: &str, forms: &[Form], head: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut done = 0;
    for Form { bytes, .. } in forms.iter().filter(|form| begins_with(&text[form.bytes.clone()], &[head])) {
        kept.push_str(&text[done..bytes.start]);
        kept.extend(text[bytes.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        done = bytes.end;
    }
    kept.push_str(&text[done..]);
    kept
}

/// The text with a mark after each form that says where the next one begins: `(mark line column)`.
pub fn marked(text: &str, forms: &[Form], mark: &str) -> String {
    let mut marked = String::with_capacity(text.len() + forms.len() * 32);
    let mut done = 0;
    for (form, next) in forms.iter().zip(forms.iter().skip(1)) {
        let (end, (line, column)) = (form.bytes.end, next.place);
        marked.push_str(&text[done..end]);
        marked.push_str(&format!(" ({mark} {line} {column})"));
        done = end;
    }
    marked.push_str(&text[done..]);
    marked
}

/// Scans `text`, which is `file`. `known` says which modules exist; `modules` names them for the help.
pub fn scan(file: &str, text: &str, known: impl Fn(&str) -> bool, modules: &[&str]) -> Scan {
    if text.len() > LONGEST_FILE {
        let message = format!("this file has {} bytes; a policy file has at most {LONGEST_FILE}", text.len());
        let finding = Finding::error(file, text, (0, 0), message, "split it, or move tables into the region files");
        return Scan { findings: vec![finding], ..Scan::default() };
    }
    let mut scanner = Scanner {
        file,
        text,
        chars: text.chars().peekable(),
        at: (1, 1),
        read: 0,
        open: Vec::new(),
        out: Scan::default(),
    };
    scanner.run(&known, modules);
    let twice = scanner.out.outline.twice(file, text);
    scanner.out.findings.extend(twice);
    scanner.out
}

/// An open bracket.
struct Open {
    place: (u32, u32),
    /// Where it stands, in bytes.
    start: usize,
    closes_with: char,
    /// Whether nothing but the bracket has been read.
    empty: bool,
    /// Whether strings within name modules.
    requires: bool,
}

struct Scanner<'a> {
    file: &'a str,
    text: &'a str,
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    at: (u32, u32),
    /// Bytes read.
    read: usize,
    open: Vec<Open>,
    out: Scan,
}

impl Scanner<'_> {
    fn run(&mut self, known: &dyn Fn(&str) -> bool, modules: &[&str]) {
        loop {
            let place = self.at;
            let Some(c) = self.next() else { break };
            match c {
                ';' => self.skip_line(),
                '"' => self.string(place, known, modules),
                '(' | '[' | '{' => {
                    if !self.enter(place, c) {
                        return;
                    }
                }
                ')' | ']' | '}' => self.leave(place, c),
                '\'' | '`' | ',' | '@' => {}
                '#' if self.chars.peek() == Some(&'|') => self.block_comment(place),
                '#' if self.chars.peek() == Some(&';') => {
                    self.next();
                }
                '#' if self.chars.peek() == Some(&'\\') => self.character(),
                '|' => {
                    let name = self.until_bar();
                    self.name(place, &name);
                }
                c if c.is_whitespace() => {}
                c => {
                    let name = self.atom(c);
                    self.name(place, &name);
                }
            }
            if self.out.findings.len() >= MOST_FINDINGS {
                return;
            }
        }
        if let Some(open) = self.open.pop() {
            let help = format!("add `{}`", open.closes_with);
            self.finding(open.place, 1, "this bracket is never closed", &help);
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.read += c.len_utf8();
        self.at = if c == '\n' { (self.at.0 + 1, 1) } else { (self.at.0, self.at.1 + 1) };
        Some(c)
    }

    fn finding(&mut self, place: (u32, u32), width: usize, message: impl Into<String>, help: &str) {
        let finding = Finding::error(self.file, self.text, place, message, help).spanning(width as u32);
        self.out.findings.push(finding);
    }

    fn skip_line(&mut self) {
        while self.chars.peek().is_some_and(|&c| c != '\n') {
            self.next();
        }
    }

    fn block_comment(&mut self, place: (u32, u32)) {
        self.next();
        let mut depth = 1;
        while depth > 0 {
            match (self.next(), self.chars.peek()) {
                (Some('|'), Some('#')) => depth -= 1,
                (Some('#'), Some('|')) => depth += 1,
                (Some(_), _) => continue,
                (None, _) => return self.finding(place, 2, "this comment is never closed", "add `|#`"),
            }
            self.next();
        }
    }

    fn string(&mut self, place: (u32, u32), known: &dyn Fn(&str) -> bool, modules: &[&str]) {
        let mut value = String::new();
        loop {
            match self.next() {
                Some('"') => break,
                Some('\\') => value.extend(self.next()),
                Some(c) => value.push(c),
                None => return self.unclosed_text(place),
            }
        }
        self.fill();
        if self.open.iter().any(|open| open.requires) {
            if known(&value) {
                self.out.requires.push(value);
            } else {
                let width = value.chars().count() + 2;
                let help = match nearest(&value, modules.iter().copied()) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("the modules are {}", modules.join(", ")),
                };
                self.finding(place, width, format!("there is no module \"{value}\""), &help);
            }
        }
    }

    /// A text without an end swallows the rest of the file, and what is found open then is the
    /// last quote. The one that lacks its partner is more likely on the first line with an odd number of them.
    fn unclosed_text(&mut self, place: (u32, u32)) {
        let quote = |line: &str| {
            let mut quotes = Vec::new();
            let mut before = ' ';
            for (at, c) in line.chars().enumerate() {
                match c {
                    ';' if quotes.len() % 2 == 0 => break,
                    '"' if before != '\\' => quotes.push(at as u32 + 1),
                    _ => {}
                }
                before = c;
            }
            (quotes.len() % 2 == 1).then(|| quotes.last().copied()).flatten()
        };
        let odd = (1..).zip(self.text.lines()).find_map(|(line, text)| Some((line, quote(text)?)));
        self.finding(odd.unwrap_or(place), 1, "this text is never closed", "add `\"`");
        // What is still open is so because of it.
        self.open.clear();
    }

    fn character(&mut self) {
        self.next();
        self.next();
        while self.chars.peek().is_some_and(|c| c.is_alphanumeric()) {
            self.next();
        }
        self.fill();
    }

    fn enter(&mut self, place: (u32, u32), c: char) -> bool {
        self.fill();
        if self.open.len() == DEEPEST {
            let message = format!("brackets are nested deeper than {DEEPEST}");
            self.finding(place, 1, message, "give the inner parts names of their own");
            return false;
        }
        let closes_with = match c {
            '(' => ')',
            '[' => ']',
            _ => '}',
        };
        if self.open.is_empty() {
            self.out.outline.begin();
        }
        let start = self.read - c.len_utf8();
        self.open.push(Open { place, start, closes_with, empty: true, requires: false });
        true
    }

    fn leave(&mut self, place: (u32, u32), c: char) {
        match self.open.pop() {
            Some(open) if open.closes_with == c => {
                if self.open.is_empty() {
                    self.out.forms.push(Form { place: open.place, bytes: open.start..self.read });
                }
            }
            Some(open) => {
                let (line, column) = open.place;
                let message =
                    format!("`{c}` closes the bracket opened at {line}:{column}, which wants `{}`", open.closes_with);
                self.finding(place, 1, message, "let each bracket close with its own kind");
            }
            None => {
                self.finding(place, 1, format!("`{c}` closes nothing"), "remove it, or add the bracket that it closes")
            }
        }
    }

    fn until_bar(&mut self) -> String {
        std::iter::from_fn(|| self.next().filter(|&c| c != '|')).collect()
    }

    fn atom(&mut self, first: char) -> String {
        let mut name = String::from(first);
        while let Some(&c) = self.chars.peek() {
            if c.is_whitespace() || "()[]{}\";'`,|".contains(c) {
                break;
            }
            name.push(c);
            self.next();
        }
        name
    }

    /// The innermost bracket has something in it now.
    fn fill(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.empty = false;
        }
    }

    fn name(&mut self, place: (u32, u32), name: &str) {
        self.out.outline.name(name, place, self.open.len());
        let width = name.chars().count();
        let heads_list = self.open.last().is_some_and(|open| open.empty);
        if name == "require" {
            if heads_list {
                self.open.last_mut().expect("a list is open").requires = true;
            } else {
                self.finding(place, width, "`require` can only begin a form", "write (require \"repomind/…\")");
            }
        } else if let Some(why) = forbidden(name) {
            self.finding(place, width, format!("`{name}` may not stand in a policy"), why);
        }
        self.fill();
    }
}

fn forbidden(name: &str) -> Option<&'static str> {
    let inner = name.starts_with("#%") || (name.starts_with('%') && name.len() > 1);
    if inner || name.starts_with("Engine::") {
        return Some(INNER);
    }
    if name.starts_with("thread/") || name.starts_with("thread::") {
        return Some(OUTSIDE);
    }
    FORBIDDEN.iter().find(|(_, names)| names.contains(&name)).map(|(why, _)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let scan = scan("f.scm", text, |module| module == "repomind/regions.scm", &["repomind/regions.scm"]);
        scan.findings.iter().map(|finding| format!("{}:{} {}", finding.line, finding.column, finding.message)).collect()
    }

    #[test]
    fn a_name_that_reaches_outside_is_found_where_it_stands() {
        assert_eq!(places("(define x 1)\n(command \"id\" '())\n"), ["2:2 `command` may not stand in a policy"]);
        assert_eq!(places("(map eval '())"), ["1:6 `eval` may not stand in a policy"]);
        assert_eq!(places("(#%gc-collect)"), ["1:2 `#%gc-collect` may not stand in a policy"]);
        assert_eq!(places("(|eval| 1)"), ["1:2 `eval` may not stand in a policy"]);
        assert_eq!(places("(%module-get% a 'b)"), ["1:2 `%module-get%` may not stand in a policy"]);
    }

    #[test]
    fn comments_texts_and_characters_hold_no_names() {
        let text = "; eval\n#| (command #| nested |# |# \"load \\\" eval\" '(#\\( #\\) #\\a) (lambda (x) [x])";
        assert!(places(text).is_empty(), "{:?}", places(text));
    }

    #[test]
    fn only_known_modules_can_be_required() {
        let text = "(require (only-in \"repomind/regions.scm\" region-id))\n(require \"/etc/passwd\")";
        let scan = scan("f.scm", text, |module| module == "repomind/regions.scm", &["repomind/regions.scm"]);
        assert_eq!(scan.requires, ["repomind/regions.scm"]);
        assert_eq!(scan.findings.len(), 1);
        assert_eq!((scan.findings[0].line, scan.findings[0].column), (2, 10));
    }

    #[test]
    fn brackets_must_match_and_stay_shallow() {
        assert_eq!(places("(define (f x)\n  (g x)"), ["1:1 this bracket is never closed"]);
        assert_eq!(places("(a]"), ["1:3 `]` closes the bracket opened at 1:1, which wants `)`"]);
        assert_eq!(places(")"), ["1:1 `)` closes nothing"]);
        let deep = format!("{}{}", "(".repeat(201), ")".repeat(201));
        assert_eq!(places(&deep), ["1:201 brackets are nested deeper than 200"]);
        assert!(places(&format!("{}{}", "(".repeat(200), ")".repeat(200))).is_empty());
    }
}
