//! The reference says what is true: every name has its block, and every example gives what it says.

use model::bundle::PolicyTree;
use policy::reference::{self, Example};

use crate::{HOST, RUNTIME, support};

#[test]
fn every_name_that_a_module_provides_has_words_and_an_example() {
    let library = support::library();
    assert_eq!(reference::undocumented(&library), Vec::<String>::new());
    assert!(reference::entries(&library).len() > 90);
}

#[test]
fn every_example_of_the_reference_gives_what_it_says() {
    let evaluate = |source: String| {
        RUNTIME
            .block_on(HOST.scratch_eval(PolicyTree::default(), support::facts(), (Vec::new(), source)))
            .map_err(|findings| findings.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>().join("; "))
    };
    assert!(
        evaluate("(check-equal? \"sums\" (+ 1 1) 3)".to_owned()).is_err(),
        "a test that fails passes for an example"
    );
    let mut wrong = Vec::new();
    for entry in reference::entries(&support::library()) {
        for Example { source, value } in &entry.examples {
            let given = evaluate(source.clone());
            if given != Ok(value.clone().unwrap_or_default()) {
                wrong.push(format!("{}: {source} gives {given:?}", entry.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
