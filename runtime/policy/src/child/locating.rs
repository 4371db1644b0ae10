//! Finds the form that brings a child down.
//!
//! The interpreter is told nothing of forms, and a child that is killed can say no more. So the parent has the same
//! tree loaded into another child, which reports each form before it comes to it and meets the same end.
//!
//! Macros and constants are worked out while a file is compiled, before any of its forms runs. So the file at fault
//! is compiled form by form beforehand, and nothing of that is run. The cost is that of a load that failed: a good one
//! never comes here.

use std::time::Duration;

use super::cage::processor_time;
use super::declare::lock;
use super::interpreter::Interpreter;
use crate::scan::{self, Form, begins_with};
use crate::wire::Report;

/// The function that tells which form comes next, and the module that hands it on, which only marked texts can require.
const MARK: &str = "form-begins!";
const MARKS: &str = "repomind/marks.scm";

/// What a form may need to be compiled: forms that begin so.
const CONTEXT: [&str; 2] = ["require", "define-syntax"];

/// Processor time for the forms that do not bring the child down: less than a load may take, so that the one that does
/// is still reported when time is up.
const PATIENCE: Duration = Duration::from_secs(1);

/// A text whose forms tell of each other.
pub(super) fn marked(text: &str, forms: &[Form]) -> String {
    format!("(require {MARKS:?}) {}", scan::marked(text, forms, MARK))
}

impl Interpreter {
    /// Has the parent told of every form of a tree before it runs, and of those of one file before they are compiled.
    pub fn locate_in(&mut self, file: String) {
        lock(&self.ledger).marks.clone_from(&self.socket);
        let text = format!("(require-builtin repomind/host)\n(provide {MARK})\n");
        self.modules.add([(MARKS.to_owned(), text)]);
        self.at_fault = Some(file);
    }

    /// Compiles each form of a file and runs none. First each by itself, with the modules and macros before it: so the
    /// time of one is not taken for another's. Then each with all that stands before it. A file for which that takes too
    /// long altogether gets no form named, rather than a wrong one.
    pub(super) fn compile_form_by_form(&mut self, file: &str) {
        let (text, began) = (self.files[file].clone(), processor_time());
        let forms: Vec<_> = self.forms[file].iter().map(|form| (form.place, form.bytes.clone())).collect();
        for alone in [true, false] {
            let mut before = String::new();
            for (number, ((line, column), bytes)) in forms.iter().enumerate() {
                if processor_time().saturating_sub(began) > PATIENCE {
                    break;
                }
                let (own, module) = (&text[bytes.clone()], format!("form-{number}-{alone}.scm"));
                self.report(&Report::AtForm(*line, *column));
                self.modules.add([(module.clone(), format!("{before}{own}\n"))]);
                // What is wrong with it is found when the file is loaded.
                let program = format!("(require (prefix-in form{number}-{alone}. {module:?}))");
                let _ = self.engine.emit_raw_program_no_path(program);
                // What is handed on is not all there yet.
                let kept = if alone { begins_with(own, &CONTEXT) } else { !begins_with(own, &["provide"]) };
                if kept {
                    before.push_str(own);
                    before.push('\n');
                }
            }
        }
        // What runs now tells of itself.
        self.at.clear();
        self.at(file);
    }
}
