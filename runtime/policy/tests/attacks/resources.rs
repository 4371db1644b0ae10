//! Policies that loop, grow, recurse or flood.

use model::Finding;
use model::question::{Answer, Question, Resolution};

use crate::arena::{Child, FILE, Outcome, ask, load, load_tree, on_host};
use crate::support;

fn assert_names_the_file(finding: &Finding) {
    assert_eq!(finding.file, FILE, "{finding}");
    assert!(!finding.message.is_empty() && !finding.help.is_empty(), "{finding:?}");
}

/// The text that a finding underlines.
fn underlined(finding: &Finding) -> String {
    finding.source_line.chars().skip(finding.column as usize - 1).take(finding.width as usize).collect()
}

/// Forms the last of which brings its child down: file and line of that one are named.
fn assert_dies_in_the_last_form(forms: &str) {
    let above = support::tree().0[FILE].lines().count();
    let finding = load(Child::Scanned, forms).finding();
    assert_names_the_file(&finding);
    assert!(finding.message.contains("died") || finding.message.contains("no answer within"), "{finding}");
    assert_eq!(finding.line as usize, above + forms.lines().count(), "{finding:?}");
    assert!(finding.column > 0, "{finding:?}");
}

fn assert_dies_when_asked(forms: &str, form: &str) {
    let outcome = ask(Child::Scanned, forms, form);
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
    assert_names_the_file(&outcome.finding());
}

#[test]
fn an_endless_loop_is_ended_and_its_line_named() {
    // The interpreter knows no place for some of its instructions; where it is caught at one, the form is named.
    let finding = load(Child::Scanned, "(define (spin)\n  (spin))\n(spin)").finding();
    assert_names_the_file(&finding);
    assert!(finding.message.contains("no answer within"), "{finding}");
    assert!(finding.line > 50, "{finding:?}");
    assert!(underlined(&finding).contains("spin") || finding.source_line == "(spin)", "{finding:?}");
}

#[test]
fn an_endless_loop_in_a_question_is_ended_and_its_line_named() {
    // Where the interpreter knows no place, the form that defines the resolver is named.
    let outcome = ask(Child::Scanned, "(define (spin n)\n  (spin (+ n 1)))", "(spin 0)");
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
    let finding = outcome.finding();
    assert_names_the_file(&finding);
    assert!(finding.line > 50, "{finding:?}");
}

#[test]
fn an_endless_loop_among_many_conflicts_is_an_error_and_no_settlement() {
    let resolver = "(define-conflict-resolver 'some (lambda (key siblings)
  (if (equal? key \"now\") (let loop () (loop)) (latest-sibling siblings))))";
    on_host(|host| async move {
        let tree = support::tree_with(FILE, resolver);
        let (generation, _) = host.load(tree, support::facts()).await.expect("a good tree");
        let siblings = vec![support::sibling("us-east", 1, "a"), support::sibling("eu-west", 2, "b")];
        let conflicts = ["a", "now", "b"].map(|key| (support::address(key), siblings.clone())).to_vec();
        let question = Question::ResolveMany { resolver: "some".to_owned(), conflicts };
        let lost = generation.ask(question).await.expect_err("no answer").finding();
        assert_names_the_file(&lost);
    });
}

#[test]
fn a_loop_that_swallows_its_interruption_is_killed() {
    let finding =
        load(Child::Scanned, "(define (spin) (with-handler (lambda (e) (spin)) (let loop () (loop))) (spin))\n(spin)")
            .finding();
    assert_names_the_file(&finding);
}

#[test]
fn a_list_that_grows_without_end_costs_its_child_only() {
    assert_dies_in_the_last_form("(let loop ([all '()]) (loop (cons 1 all)))");
    assert_dies_when_asked("", "(let loop ([all '()]) (loop (cons 1 all)))");
}

#[test]
fn a_number_of_a_hundred_million_digits_is_never_computed() {
    // The compiler computes them, before any form of the file runs.
    assert_dies_in_the_last_form("(expt 7 100000000)");
    assert_dies_in_the_last_form("(define far 40)\n(expt 10 (expt 10 10))");
    assert_dies_in_the_last_form("(define far 100000000)\n(define near 7)\n(expt near far)");
    assert_dies_when_asked("", "(expt 7 (* 50000000 (string-length key)))");
}

#[test]
fn a_macro_that_doubles_itself_is_stopped_and_its_use_named() {
    // It is expanded before any form of the file runs.
    let bomb = "(define-syntax bomb (syntax-rules () [(_ a) (begin (bomb (a a)) (bomb (a a)))]))";
    assert_dies_in_the_last_form(&format!("{bomb}\n(bomb 1)"));
    assert_dies_in_the_last_form(&format!(
        "{bomb}\n(define harmless 1)\n(define (deep inside) (let ([a 1]) (bomb a)))"
    ));
}

#[test]
fn in_a_long_file_no_harmless_form_is_named_for_another() {
    let harmless: String =
        (0..1500).map(|number| format!("(define (harmless-{number} a) (list a {number}))\n")).collect();
    let above = support::tree().0[FILE].lines().count();
    let finding = load(Child::Scanned, &format!("{harmless}(let loop () (loop))")).finding();
    assert_names_the_file(&finding);
    assert!(finding.message.contains("no answer within"), "{finding}");
    assert!([0, above + 1501].contains(&(finding.line as usize)), "{finding:?}");
    let finding = load(Child::Scanned, &format!("{harmless}(expt 7 100000000)")).finding();
    assert_names_the_file(&finding);
    assert!([0, above + 1501].contains(&(finding.line as usize)), "{finding:?}");
}

#[test]
fn recursion_without_an_end_costs_its_child_only() {
    assert_dies_in_the_last_form("(define (deep n) (+ 1 (deep (+ n 1))))\n(deep 0)");
    assert_dies_when_asked("(define (deep n) (+ 1 (deep (+ n 1))))", "(deep 0)");
}

#[test]
fn recursion_through_a_transducer_costs_its_child_only() {
    let deep = "(define (deep x) (transduce (list x) (mapping deep) (into-list)))";
    assert_dies_in_the_last_form(&format!("{deep}\n(deep 1)"));
    assert_dies_when_asked(deep, "(deep 1)");
}

#[test]
fn a_source_nested_twenty_thousand_deep_is_refused_where_it_becomes_too_deep() {
    let deep = format!("{}1{}", "(list ".repeat(20_000), ")".repeat(20_000));
    let finding = load(Child::Scanned, &deep).finding();
    assert_names_the_file(&finding);
    assert!(finding.message.contains("nested deeper than"), "{finding}");
    assert!(finding.line > 0 && finding.column > 1000, "{finding:?}");
}

#[test]
fn a_source_nested_twenty_thousand_deep_costs_only_the_child_that_reads_it() {
    let deep = format!("{}1{}", "(list ".repeat(20_000), ")".repeat(20_000));
    assert_names_the_file(&load(Child::Unscanned, &deep).finding());
}

#[test]
fn hashing_what_is_nested_too_deep_costs_its_child_only() {
    let nest = "(define (nest n x) (if (= n 0) x (nest (- n 1) (list x))))";
    assert_dies_in_the_last_form(&format!("{nest}\n(hash-insert (hash) (nest 3000000 '()) 1)"));
    assert_dies_when_asked(nest, "(hash-insert (hash) (nest 3000000 '()) 1)");
}

#[test]
fn an_answer_nested_too_deep_is_not_followed_down() {
    let nest = "(define (nest n x) (if (= n 0) x (nest (- n 1) (list x))))";
    let outcome = ask(Child::Scanned, nest, "(nest 100000 '())");
    assert_names_the_file(&outcome.finding());
}

#[test]
fn a_vector_a_text_or_a_range_beyond_all_memory_costs_its_child_only() {
    for form in ["(make-vector 1000000000000 0)", "(make-string 1000000000000 #\\a)", "(range 0 1000000000)"] {
        assert_dies_in_the_last_form(form);
        assert_dies_when_asked("", form);
    }
}

#[test]
fn a_text_that_doubles_without_end_costs_its_child_only() {
    assert_dies_in_the_last_form("(let loop ([text \"double\"]) (loop (string-append text text)))");
    assert_dies_when_asked("", "(let loop ([text \"double\"]) (loop (string-append text text)))");
}

#[test]
fn a_flood_of_output_neither_blocks_nor_fills_anything() {
    let flood = "(let loop () (begin (display \"a line that says nothing at all\\n\") (loop)))";
    let finding = load(Child::Scanned, flood).finding();
    assert_names_the_file(&finding);
    assert!(finding.message.contains("printed"), "{finding}");
    let bounded = "(let loop ([n 1000]) (if (= n 0) 'keep (begin (display \"a line of many\\n\") (loop (- n 1)))))";
    let Outcome::Answered(answer) = ask(Child::Scanned, "", bounded) else { panic!("printing a little is no error") };
    assert_eq!(answer, Answer::Resolved(Resolution::Keep));
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let finding = load(Child::Scanned, &";".repeat(300 << 10)).finding();
    assert_names_the_file(&finding);
    assert!(finding.message.contains("bytes"), "{finding}");
}

#[test]
fn a_tree_too_large_for_a_frame_never_reaches_a_child() {
    let mut tree = support::tree();
    for number in 0..80 {
        tree.0.insert(format!("compliance/more-{number}.scm"), ";".repeat(250 << 10));
    }
    let finding = load_tree(Child::Scanned, tree).finding();
    assert!(finding.message.contains("a frame of"), "{finding}");
}
