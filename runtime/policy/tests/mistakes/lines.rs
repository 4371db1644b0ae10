//! An error in line N of a file is reported at line N.

use model::Finding;

use crate::{CONFLICT, LAG, MAP, findings, support};

/// The tree with `form` in `file`, after so many lines that its place would show any shift; and its line there.
fn placed(file: &str, form: &str) -> (Vec<Finding>, usize) {
    let padding = "\n; a line that moves the rest down".repeat(37);
    let tree = support::tree_with(file, &format!("{padding}\n{form}"));
    let line = tree.0[file].lines().position(|line| form.lines().next() == Some(line)).expect("the form") + 1;
    (findings(tree), line)
}

fn only(findings: Vec<Finding>) -> Finding {
    match <[Finding; 1]>::try_from(findings) {
        Ok([finding]) => finding,
        Err(findings) => panic!("one finding was expected: {findings:?}"),
    }
}

#[test]
fn an_unclosed_bracket_is_reported_on_its_line() {
    let (found, line) = placed(MAP, "(define (open x)");
    let finding = only(found);
    assert_eq!((finding.line as usize, finding.column), (line, 1), "{finding}");
}

#[test]
fn a_free_identifier_is_reported_on_its_line() {
    let (found, line) = placed(MAP, "(define (f x)\n  (list x\n    (no-such-thing x)))");
    let finding = only(found);
    assert_eq!((finding.line as usize, finding.column), (line + 2, 6), "{finding}");
    assert_eq!(finding.source_line.trim(), "(no-such-thing x)))");
}

#[test]
fn a_runtime_error_at_the_top_is_reported_on_its_line() {
    let (found, line) = placed(MAP, "(define ten\n  (+ 1\n     (car '())))");
    let finding = only(found);
    assert!((line..=line + 2).contains(&(finding.line as usize)), "{finding} for {line}");
}

#[test]
fn a_bad_declaration_is_reported_on_its_line() {
    let (found, line) = placed(CONFLICT, "(define-conflict-resolver 'keep-siblings union-of-lines)");
    let finding = only(found);
    assert_eq!(finding.line as usize, line, "{finding}");
}

#[test]
fn a_failed_test_is_reported_on_the_line_of_its_sentence() {
    let (found, line) = placed(LAG, "(test-module \"more\"\n  (check-equal? \"one is two\"\n     1 2))");
    let finding = only(found);
    assert_eq!((finding.line as usize, finding.column), (line + 1, 17), "{finding}");
}

#[test]
fn a_runtime_error_in_a_function_called_later_is_reported_on_its_line() {
    let tree = support::tree_replacing(
        LAG,
        &[(
            "  (define lag (link-lag link))",
            "  (define lag\n    (+ (link-lag link)\n       (if (> (link-lag link) 400000) (car '()) 0)))",
        )],
    );
    let line = tree.0[LAG].lines().position(|line| line.contains("(car '())")).expect("the error") + 1;
    let finding = only(findings(tree));
    assert_eq!(finding.line as usize, line, "{finding}");
}

#[test]
fn the_test_that_a_broken_law_comes_with_fails_until_the_resolver_is_corrected() {
    let resolver = "(define-conflict-resolver 'first (lambda (key siblings) (car siblings)))";
    let finding = only(findings(support::tree_with(CONFLICT, resolver)));
    let test = finding.help.split_once('\n').expect("a test").1;
    let failing = only(findings(support::tree_with(CONFLICT, &format!("{resolver}\n(test-module \"laws\"\n{test})"))));
    assert!(failing.message.starts_with("a test failed: first decides alike"), "{failing}");
    let corrected = "(define-conflict-resolver 'first (lambda (key siblings) (latest-sibling siblings)))";
    crate::warned(support::tree_with(CONFLICT, &format!("{corrected}\n(test-module \"laws\"\n{test})")));
}
