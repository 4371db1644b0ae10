//! A mistake in a file, placed and explained.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, but something is doubtful.
    Warning,
}

/// One thing wrong in one file, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it refuses the file.
    pub severity: Severity,
    /// The file, relative to the tree's root, with forward slashes.
    pub file: String,
    /// From 1; 0 where only the file is known.
    pub line: u32,
    /// In characters, from 1; 0 where only the line is known.
    pub column: u32,
    /// How many characters it spans, at least 1.
    pub width: u32,
    /// The text of that line, so that it can be shown without the file.
    pub source_line: String,
    /// What is wrong: lower case, no final stop.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Finding {
    /// An error in `file` at `line` and `column` (from 1; 0 unknown) of `source`.
    pub fn error(
        file: impl Into<String>,
        source: &str,
        (line, column): (u32, u32),
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let source_line = match line {
            0 => String::new(),
            line => source.lines().nth(line as usize - 1).unwrap_or("").chars().take(400).collect(),
        };
        Self {
            severity: Severity::Error,
            file: file.into(),
            line,
            column,
            width: 1,
            source_line,
            message: message.into(),
            help: help.into(),
        }
    }

    /// The same finding, underlining `width` characters.
    #[must_use]
    pub fn spanning(mut self, width: u32) -> Self {
        self.width = width.max(1);
        self
    }

    /// The same finding as a warning: it refuses nothing.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Draws the finding as rustc does: message, place, line, caret, help. Colours only if asked.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let group = if self.file.is_empty() {
            // About the program itself.
            Group::with_title(title)
        } else if self.line == 0 || self.source_line.is_empty() {
            let place = Level::NOTE.message(format!("in {self:.0}"));
            title.elements([place])
        } else {
            let start = self.byte_at(self.column.max(1) - 1);
            let end = self.byte_at(self.column.max(1) - 1 + self.width).max(start);
            title.element(
                Snippet::source(self.source_line.as_str())
                    .line_start(self.line as usize)
                    .path(self.file.as_str())
                    .annotation(AnnotationKind::Primary.span(start..end)),
            )
        };
        let group: Group<'_> =
            if self.help.is_empty() { group } else { group.element(Level::HELP.message(self.help.as_str())) };
        renderer.render(&[group])
    }

    fn byte_at(&self, characters: u32) -> usize {
        let mut indices = self.source_line.char_indices().map(|(at, _)| at);
        indices.nth(characters as usize).unwrap_or(self.source_line.len())
    }
}

impl fmt::Display for Finding {
    /// `file:line:column: message; help`. With precision 0, the place alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        if f.precision() == Some(0) {
            return Ok(());
        }
        write!(f, ": {}", self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_without_a_file_names_none() {
        let drawn = Finding::error("", "", (0, 0), "the policy host was shut down", "start it again").render(false);
        assert!(drawn.contains("help: start it again") && !drawn.contains("note: in"), "{drawn}");
        let drawn = Finding::error("a.scm", "", (0, 0), "this file has no tests", "").render(false);
        assert!(drawn.contains("note: in a.scm"), "{drawn}");
    }

    #[test]
    fn a_finding_shows_the_line_the_caret_and_the_remedy() {
        let source = "region:\n  nmae: us-east-1\n";
        let finding =
            Finding::error("region-config/us-east.yml", source, (2, 3), "unknown key `nmae`", "did you mean `name`?")
                .spanning(4);
        let drawn = finding.render(false);
        assert!(drawn.contains("region-config/us-east.yml:2:3"), "{drawn}");
        assert!(drawn.contains("^^^^"), "{drawn}");
        assert!(drawn.contains("help: did you mean `name`?"), "{drawn}");
        assert_eq!(finding.to_string(), "region-config/us-east.yml:2:3: unknown key `nmae`; did you mean `name`?");
    }
}
