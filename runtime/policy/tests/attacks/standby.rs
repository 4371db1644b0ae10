//! Losing a child costs the question that killed it and no other; two children answer alike.

use model::question::{Answer, Question, Resolution};
use model::routing::RegionState;
use policy::{HostError, HostLimits, PolicyHost};

use crate::arena::{FILE, descendants, on_host};
use crate::support;

fn resolve(key: &str) -> Question {
    Question::Resolve {
        resolver: "trap".to_owned(),
        address: support::address(key),
        siblings: vec![support::sibling("us-east", 1, "a"), support::sibling("eu-west", 2, "b")],
    }
}

const TRAP: &str = "(define-conflict-resolver 'trap (lambda (key siblings)
  (if (equal? key \"now\") (make-vector 1000000000000 0) (latest-sibling siblings))))";

#[test]
fn a_child_that_dies_again_and_again_is_replaced_each_time() {
    on_host(|host| async move {
        let (generation, _) = host.load(support::tree_with(FILE, TRAP), support::facts()).await.expect("a good tree");
        for _ in 0..4 {
            let lost = generation.ask(resolve("now")).await.expect_err("the child dies");
            assert!(matches!(&lost, HostError::Died(finding) if finding.file == FILE), "{lost}");
            let answer = generation.ask(resolve("later")).await.expect("another child answers");
            assert_eq!(answer, Answer::Resolved(Resolution::Winner(1)));
        }
    });
}

#[test]
fn an_asker_that_gives_up_leaves_no_answer_for_the_next() {
    on_host(|host| async move {
        let (generation, _) = host.load(support::tree_with(FILE, TRAP), support::facts()).await.expect("a good tree");
        {
            let asked = generation.ask(Question::Route { facts: support::facts() });
            let mut asked = std::pin::pin!(asked);
            // Polled once, so that the question is on its way, then dropped.
            tokio::select! {
                biased;
                answer = &mut asked => panic!("too quick to be given up: {answer:?}"),
                () = std::future::ready(()) => {}
            }
        }
        let answer = generation.ask(resolve("later")).await.expect("an answer");
        assert_eq!(answer, Answer::Resolved(Resolution::Winner(1)));
    });
}

#[test]
fn the_facts_of_one_question_do_not_leak_into_the_next() {
    on_host(|host| async move {
        let (generation, _) = host.load(support::tree(), support::facts()).await.expect("a good tree");
        let cases = support::cases();
        let ask = || generation.ask(Question::Residency { cases: cases.clone() });
        let before = ask().await.expect("rulings");
        let mut fewer = support::facts();
        fewer.regions.truncate(1);
        fewer.regions[0].state = RegionState::Down;
        generation.ask(Question::Route { facts: fewer }).await.expect("rankings");
        assert_eq!(ask().await.expect("rulings"), before);
    });
}

#[test]
fn two_fresh_children_answer_alike_on_everything_that_is_asked() {
    on_host(|host| async move {
        let (generation, _) = host.load(support::tree(), support::facts()).await.expect("a good tree");
        let conflict =
            (support::address("k"), vec![support::sibling("us-east", 1, "a\n"), support::sibling("eu-west", 2, "b\n")]);
        let questions = [
            Question::Route { facts: support::facts_of(5, 60) },
            Question::Residency { cases: support::cases() },
            Question::ResolveMany { resolver: "union-of-lines".to_owned(), conflicts: vec![conflict; 3] },
        ];
        generation.answers_alike(&questions).await.expect("the same answers");
        generation.ask(questions[0].clone()).await.expect("both children serve on");
    });
}

#[test]
fn two_generations_whose_resolvers_differ_are_told_apart_by_what_they_settle() {
    on_host(|host| async move {
        let question = || Question::Samples { resolver: "prefer-longest".to_owned() };
        let mut settled = Vec::new();
        let file = "data-replication/conflict-resolution.scm";
        let mut shortest = support::tree_replacing(file, &[("(> (size a) (size b))", "(< (size a) (size b))")]);
        // Its own tests would refuse it.
        let text = shortest.0.get_mut(file).expect("the file");
        text.truncate(text.find("(test-module").expect("tests"));
        for tree in [support::tree(), support::tree(), shortest] {
            let (generation, _) = host.load(tree, support::facts()).await.expect("a good tree");
            match generation.ask(question()).await.expect("settlements") {
                Answer::Samples(samples) => settled.push(samples),
                other => panic!("asked for settlements, got {other:?}"),
            }
        }
        assert!(settled[0].len() > 10 && settled[0] == settled[1], "the same resolver settles otherwise");
        let sets = |at: usize| settled[at].iter().map(|(set, _)| set.clone()).collect::<Vec<_>>();
        assert_eq!(sets(0), sets(2), "two resolvers of a name were tried on other conflicts");
        assert_ne!(settled[0], settled[2]);
    });
}

#[test]
fn a_policy_that_goes_by_the_order_of_a_hash_is_found_out() {
    let by_hash = "(if (> (length regions) 4)
      (hash-keys->list (foldl (lambda (id all) (hash-insert all id #t)) (hash) (region-ids regions)))
      (region-ids (sort-on (how-far-from-ideal client) regions)))";
    let tree = support::tree_replacing(
        "region-config/region-mapping.scm",
        &[("(region-ids (sort-on (how-far-from-ideal client) regions))", by_hash)],
    );
    on_host(|host| async move {
        let (generation, _) = host.load(tree, support::facts()).await.expect("nothing shows with three regions");
        let question = Question::Route { facts: support::facts_of(5, 60) };
        let findings = generation.answers_alike(&[question]).await.expect_err("two orders");
        assert_eq!(findings[0].file, "region-config/region-mapping.scm");
        assert!(findings[0].help.contains("sort"), "{findings:?}");
    });
}

#[test]
fn a_zygote_that_is_killed_costs_no_load() {
    on_host(|_| async {
        let before = descendants();
        let executable = std::path::Path::new(env!("CARGO_BIN_EXE_policy-child"));
        let host = PolicyHost::start(executable, support::library(), HostLimits::default()).expect("a host");
        // The zygote is there before the host is, and the spare after it.
        let born = |id: &u32| !before.contains_key(id);
        let zygote = descendants().into_keys().find(born).expect("a zygote");
        host.scratch_eval(Default::default(), support::facts(), (Vec::new(), "1".to_owned()))
            .await
            .expect("the first spare");
        let zygote = rustix::process::Pid::from_raw(zygote.cast_signed()).expect("an id");
        rustix::process::kill_process(zygote, rustix::process::Signal::KILL).expect("it lives");
        for _ in 0..2 {
            let (generation, _) =
                host.load(support::tree(), support::facts()).await.expect("a child of the next zygote");
            generation.ask(Question::Route { facts: support::facts() }).await.expect("an answer");
        }
    });
}

#[test]
fn a_text_of_many_lines_is_merged_as_one_of_few() {
    let texts = ["a", "b"].map(|name| (0..30_000).map(|line| format!("{name}{line}\n")).collect::<String>());
    on_host(|host| async move {
        let (generation, _) = host.load(support::tree(), support::facts()).await.expect("a good tree");
        let siblings = vec![support::sibling("us-east", 1, &texts[0]), support::sibling("eu-west", 2, &texts[1])];
        let question =
            Question::Resolve { resolver: "union-of-lines".to_owned(), address: support::address("k"), siblings };
        let answer = generation.ask(question).await.expect("an answer");
        let Answer::Resolved(Resolution::Merged(merged)) = answer else { panic!("{answer:?}") };
        assert_eq!(merged.len(), texts[0].len() + texts[1].len());
    });
}
