//! Files, frames and answers that nobody would write, made from a seed.
//!
//! Each test tries a bounded number of cases, the same in every run. `REPOMIND_FUZZ_SECONDS=N` goes on for so long
//! instead, from the seed in `REPOMIND_FUZZ_SEED` (`make fuzz`). What goes wrong is shown with the seed of its case, which
//! can be given there; what once went wrong is a test with a name of its own, in another file here.

use std::time::{Duration, Instant};

use model::bundle::PolicyTree;
use model::question::{Answer, Question, Resolution};
use model::{Finding, Millis};
use policy::testing::{self, Chance, Order, Report};
use policy::{HostError, PolicyHost};

use crate::arena::{FILE, on_host};
use crate::support;

/// Sources of cases, one after the other: `so_many` of them, or for as long as was asked for.
fn cases(so_many: u32) -> impl Iterator<Item = (String, Chance)> {
    let read = |name: &str| std::env::var(name).ok();
    let seconds = read("REPOMIND_FUZZ_SECONDS").map(|text| text.parse().expect("a number of seconds"));
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let base = read("REPOMIND_FUZZ_SEED").unwrap_or_else(|| "constant".to_owned());
    let wanted = move |number: u32| until.map_or(number < so_many, |until| Instant::now() < until);
    (0..).take_while(move |number| wanted(*number)).map(move |number| {
        // A seed that was shown is a case by itself.
        let seed = if base.contains('/') { base.clone() } else { format!("{base}/{number}") };
        (seed.clone(), Chance::of(&seed))
    })
}

/// Pieces that turn one program into another.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "`",
    ",",
    ",@",
    "#",
    "#|",
    "|#",
    "#;",
    "#\\",
    "|",
    ";",
    "\\",
    "\n",
    "\0",
    "\u{202e}",
    "\u{1f30d}",
    "e\u{301}",
    "(define",
    "(lambda",
    "(let loop ()",
    "(loop)",
    "(require \"repomind/prelude.scm\")",
    "(provide",
    "(test-module \"x\"",
    "(define-syntax",
    "(syntax-rules ()",
    "...",
    "(quote",
    "#t",
    "#f",
    "'()",
    "0",
    "-1",
    "9223372036854775807",
    "1/3",
    "1e309",
    "+nan.0",
    "-inf.0",
    "(hash)",
    "(vector)",
    "(error \"x\")",
    "(error 'x)",
    "(call/cc (lambda (k) k))",
    "(set! policy-api 2)",
    "(define policy-api 1)",
    "(apply",
    "(map",
    "(values)",
    "(begin)",
];

/// A file of the tree after some changes.
fn mutated(text: &str, chance: &mut Chance) -> String {
    let mut all: Vec<char> = text.chars().collect();
    for _ in 0..1 + chance.below(6) {
        let at = chance.below(all.len() + 1);
        let length = chance.below(40).min(all.len() - at);
        match chance.below(6) {
            0 => drop(all.drain(at..at + length)),
            1 => {
                let copy = all[at..at + length].to_vec();
                let to = chance.below(all.len() + 1);
                all.splice(to..to, copy);
            }
            2 => all.truncate(at.max(1)),
            3 if !all.is_empty() => {
                let (from, to) = (chance.below(all.len()), chance.below(all.len()));
                all.swap(from, to);
            }
            _ => drop(all.splice(at..at, PIECES[chance.below(PIECES.len())].chars())),
        }
    }
    all.into_iter().collect()
}

/// One file of the tree, changed.
fn mutant(tree: &PolicyTree, chance: &mut Chance) -> (String, String) {
    let (file, text) = tree.0.iter().nth(chance.below(tree.0.len())).expect("a file");
    (file.clone(), mutated(text, chance))
}

#[test]
fn no_source_makes_the_scan_panic_or_point_outside_the_file() {
    let tree = support::tree();
    for (seed, mut chance) in cases(3000) {
        let (file, text) = mutant(&tree, &mut chance);
        let (findings, [without, marked]) = testing::scan(&file, &text);
        let lines = text.split('\n').count();
        for finding in &findings {
            assert!((1..=lines).contains(&(finding.line as usize)), "{seed}: {finding:?}");
            assert!(!finding.message.is_empty() && !finding.help.is_empty(), "{seed}: {finding:?}");
        }
        // Places in what engines read are places in the file.
        for changed in [&without, &marked] {
            assert_eq!(changed.split('\n').count(), lines, "{seed}: lines have moved");
        }
        assert_eq!(without.chars().count(), text.chars().count(), "{seed}: columns have moved");
    }
}

#[test]
fn no_frame_makes_its_reader_panic_or_reserve_what_it_only_announces() {
    let question = Question::Load { tree: support::tree(), facts: support::facts(), examine: true };
    let order = testing::frame(&Order { question, limit: Millis(1) }).expect("a frame");
    let findings = vec![Finding::error("a.scm", "(a)", (1, 1), "wrong", "right"); 3];
    let settled = vec![Ok(Resolution::Merged(b"ab".to_vec())), Err(findings.clone()), Ok(Resolution::Winner(1))];
    let reports = [
        Report::Ready(vec!["Landlock".to_owned()]),
        Report::Answer(Answer::Refused(findings)),
        Report::Answer(Answer::ResolvedMany(settled)),
        Report::Answer(Answer::Value("1".to_owned())),
    ];
    let reports: Vec<Vec<u8>> = reports.iter().map(|report| testing::frame(report).expect("a frame")).collect();
    for (seed, mut chance) in cases(20_000) {
        let whole = if chance.below(4) == 0 { &order } else { &reports[chance.below(reports.len())] };
        let mut body = whole[4..].to_vec();
        for _ in 0..1 + chance.below(4) {
            let at = chance.below(body.len().max(1)).min(body.len().saturating_sub(1));
            match chance.below(4) {
                // Lengths are variable integers: runs of high bits announce the largest.
                0 if !body.is_empty() => body[at] = 0xff,
                1 if !body.is_empty() => body[at] = chance.below(256) as u8,
                2 => body.truncate(at),
                _ => drop(body.splice(at..at, [0xff; 9])),
            }
        }
        // Either side: what was not written by the other is an error, and no more than that.
        let read = (testing::value::<Report>(&body).is_ok(), testing::value::<Order>(&body).is_ok());
        assert!(read != (true, true) || body.len() < 64, "{seed}: {} bytes are a report and an order", body.len());
    }
}

#[test]
fn a_tree_that_nobody_wrote_is_taken_or_refused_with_the_file() {
    on_host(|host| async move {
        let tree = support::tree();
        let mut loaded = 0;
        for (seed, mut chance) in cases(2000) {
            let (file, text) = mutant(&tree, &mut chance);
            // The scan has its own test, and is far quicker.
            if !testing::scan(&file, &text).0.is_empty() {
                continue;
            }
            loaded += 1;
            if std::env::var("REPOMIND_FUZZ_SECONDS").is_err() && loaded > 60 {
                break;
            }
            let mut changed = tree.clone();
            changed.0.insert(file.clone(), text);
            if let Err(findings) = host.load(changed, support::facts()).await {
                assert!(!findings.is_empty(), "{seed}: refused without a word");
                for finding in &findings {
                    assert!(tree.0.contains_key(&finding.file), "{seed}: {finding:?}");
                    assert!(!finding.message.contains("panic"), "{seed}: {finding:?}");
                    assert!(!finding.message.is_empty(), "{seed}: {finding:?}");
                }
            }
        }
        assert!(loaded > 30, "only {loaded} trees came past the scan: change fewer characters");
    });
}

/// An expression that gives any value that a policy can give.
fn value(chance: &mut Chance, depth: usize) -> String {
    const ATOMS: &[&str] = &[
        "0",
        "1",
        "-1",
        "9223372036854775807",
        "(expt 10 400)",
        "(/ 1 3)",
        "0.5",
        "(/ 0.0 0.0)",
        "(/ 1.0 0.0)",
        "#t",
        "#f",
        "\"\"",
        "\"text\"",
        "\"\\x202e;\"",
        "'keep",
        "'us-east",
        "'winner",
        "'nowhere",
        "(void)",
        "#\\a",
        "key",
        "siblings",
        "(car siblings)",
        "(latest-sibling siblings)",
        "(lambda (x) x)",
        "car",
        "'()",
        "(hash)",
        "(vector 1 2)",
        "(error \"no\")",
        "(error 'wrong 5)",
        "(car (filter (lambda (x) #f) siblings))",
        "(/ (length siblings) 0)",
        "(vector-ref (vector) 3)",
        "(make-string 3 #\\x)",
        "(list->string (list #\\a))",
        "(string->symbol \"a b\")",
        "(call/cc (lambda (k) k))",
        "(mapping car)",
    ];
    if depth == 0 || chance.below(3) == 0 {
        return ATOMS[chance.below(ATOMS.len())].to_owned();
    }
    let one = value(chance, depth - 1);
    let other = value(chance, depth - 1);
    match chance.below(7) {
        0 => format!("(list {one} {other})"),
        1 => format!("(cons {one} {other})"),
        2 => format!("(hash {one} {other})"),
        3 => format!("(vector {one} {other})"),
        4 => format!("(list 'merged {one})"),
        5 => format!("(let ([x {one}]) (list x x {other}))"),
        _ => format!("(if {one} {other} {one})"),
    }
}

/// Asks sixty-four resolvers for values of no use; each answers well while it is only tried. Whether they came to be asked.
async fn ask_for_values(host: &PolicyHost, seed: &str, chance: &mut Chance) -> bool {
    let values: Vec<String> = (0..64).map(|_| value(chance, 4)).collect();
    let resolvers = values.iter().enumerate().map(|(number, value)| {
        format!(
            "(define-conflict-resolver 'fuzz-{number} (lambda (key siblings) (if (equal? key \"now\") {value} (latest-sibling siblings))))"
        )
    });
    let forms = resolvers.collect::<Vec<_>>().join("\n");
    let loaded = host.load(support::tree_with(FILE, &forms), support::facts()).await;
    let generation = match loaded {
        Ok((generation, _)) => generation,
        // The compiler computes what is constant, and says what is wrong with it.
        Err(findings) => {
            assert!(findings.iter().all(|finding| finding.file == FILE), "{seed}: {}", support::drawn(&findings));
            return false;
        }
    };
    let siblings = vec![support::sibling("us-east", 1, "a"), support::sibling("eu-west", 2, "b")];
    for (number, value) in values.iter().enumerate() {
        let question = Question::Resolve {
            resolver: format!("fuzz-{number}"),
            address: support::address("now"),
            siblings: siblings.clone(),
        };
        match generation.ask(question).await {
            Ok(Answer::Resolved(Resolution::Winner(at))) => assert!(at < 2, "{seed}: {value} won as number {at}"),
            Ok(Answer::Resolved(_)) => {}
            Ok(Answer::Refused(findings)) => {
                assert!(!findings.is_empty(), "{seed}: {value} was refused without a word");
                assert!(findings.iter().all(|finding| finding.file == FILE), "{seed}: {value}: {findings:?}");
            }
            Ok(other) => panic!("{seed}: {value} gave {other:?}"),
            Err(HostError::Died(finding) | HostError::Deadline(finding)) => {
                panic!("{seed}: {value} cost a child: {finding:?}")
            }
            Err(error) => panic!("{seed}: {value}: {error}"),
        }
    }
    true
}

#[test]
fn no_value_that_a_policy_gives_costs_more_than_its_answer() {
    on_host(|host| async move {
        let (mut tried, mut asked) = (0, 0);
        for (seed, mut chance) in cases(12) {
            tried += 1;
            asked += u32::from(ask_for_values(&host, &seed, &mut chance).await);
        }
        assert!(2 * asked >= tried, "only {asked} of {tried} trees could be asked anything");
    });
}
