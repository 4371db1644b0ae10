//! What a person reads when a policy file is wrong: one golden file a mistake.
//!
//! Review changed messages with `cargo insta review`, or set `INSTA_UPDATE=always`
//! and read the difference.

#[path = "../support/mod.rs"]
mod support;

mod lines;
mod reference;

use std::sync::LazyLock;

use model::bundle::PolicyTree;
use model::{ByteCount, Finding, Millis};
use policy::{HostLimits, PolicyHost};
use support::{tree, tree_replacing, tree_with};

const MAP: &str = "region-config/region-mapping.scm";
const LATENCY: &str = "traffic-routing/latency-routing.scm";
const DNS: &str = "traffic-routing/geo-dns.scm";
const FAILOVER: &str = "traffic-routing/failover.scm";
const STRATEGY: &str = "data-replication/eventual-consistency.scm";
const CONFLICT: &str = "data-replication/conflict-resolution.scm";
const LAG: &str = "data-replication/replication-lag.scm";
const EDGE: &str = "edge-deployment/edge-cache.scm";
const RESIDENCY: &str = "compliance/data-residency.scm";
const REGIONS: &str = "compliance/region-policies.scm";

static HOST: LazyLock<PolicyHost> = LazyLock::new(|| {
    let limits = HostLimits { load: Millis(20_000), question: Millis(20_000), memory: ByteCount(512 << 20) };
    PolicyHost::start(env!("CARGO_BIN_EXE_policy-child").as_ref(), support::library(), limits).expect("a host")
});
static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));

/// The findings of a tree that must be refused.
fn findings(tree: PolicyTree) -> Vec<Finding> {
    match RUNTIME.block_on(HOST.load(tree, support::facts())) {
        Ok(_) => panic!("the tree was taken"),
        Err(findings) => findings,
    }
}

/// The findings as they are drawn.
fn refused(tree: PolicyTree) -> String {
    support::drawn(&findings(tree))
}

/// The findings after `from` became `to` in `file`.
fn after(file: &str, from: &str, to: &str) -> String {
    refused(tree_replacing(file, &[(from, to)]))
}

/// The findings with `forms` at the end of `file`.
fn with(file: &str, forms: &str) -> String {
    refused(tree_with(file, forms))
}

/// The findings where `name` of `file` is a function of these arguments and body.
fn answering(file: &str, head: &str, body: &str) -> String {
    let mut tree = tree();
    let text = tree.0.get_mut(file).expect("a policy file");
    let start = text.find(&format!("(define ({head}")).expect("the function is defined");
    // The tests of the file would fail first; what is looked at here is the runtime's own look.
    let tests = text.find("(test-module").expect("tests");
    text.truncate(tests);
    let end = text[start..].find("\n\n").map_or(text.len(), |length| start + length);
    text.replace_range(start..end, body);
    refused(tree)
}

/// The warnings of a tree that is taken.
fn warned(tree: PolicyTree) -> String {
    let (_, declarations) = RUNTIME.block_on(HOST.load(tree, support::facts())).expect("a good tree");
    support::drawn(&declarations.warnings)
}

macro_rules! golden {
    ($($name:ident: $shown:expr;)*) => {
        $(#[test] fn $name() { insta::assert_snapshot!($shown); })*
    };
}

golden! {
    an_invariant_of_too_many_cases: with(RESIDENCY, "(define-invariant \"nobody is lost\" (for-all (record client world from to) #t))");
    an_invariant_of_an_unknown_dimension: with(RESIDENCY, "(define-invariant \"nobody is lost\" (for-all (client weather) #t))");
    an_invariant_of_nothing: with(RESIDENCY, "(define-invariant \"nobody is lost\" (for-all () #t))");
    an_invariant_defined_twice: with(RESIDENCY, "(define-invariant \"nobody is lost\" (for-all (region) #t))\n(define-invariant \"nobody is lost\" (for-all (state) #t))");
    a_property_that_does_not_hold: with(LAG, "(test-module \"more\" (check-property \"an hour is too much\" ([link (any-link)] [n (any-number 0 9)]) (< (+ n (link-lag link)) 250000)))");
    a_property_that_ends_in_an_error: with(LAG, "(test-module \"more\" (check-property \"every link has a head\" ([links (any-list 3 any-link)]) (< 0 (link-lag (car links)))))");
    a_case_outside_of_a_property: with(LAG, "(define some (any-number 1 6))");
    bounds_of_a_change_beyond_all_traffic: after(STRATEGY, "(traffic . 30)", "(traffic . 130)");
    bounds_of_a_change_misspelt: after(STRATEGY, "(more-permissive . 0)", "(permissive . 0)");
    bounds_of_a_change_for_one_namespace: after(STRATEGY, "(lag-target . 2000)", "(change-bounds . ((traffic . 100)))");
    // Brackets, texts and comments.
    a_bracket_that_is_never_closed: after(MAP, "(region-ids (sort-on (how-far-from-ideal client) regions)))", "(region-ids (sort-on (how-far-from-ideal client) regions))");
    a_bracket_too_many: after(MAP, "(region-ids (sort-on (how-far-from-ideal client) regions)))", "(region-ids (sort-on (how-far-from-ideal client) regions))))");
    a_bracket_of_the_wrong_kind: after(LAG, "[else 'unready]))", "[else 'unready)))");
    a_text_that_is_never_closed: after(EDGE, "(rule \"/assets/\" ", "(rule \"/assets/ ");
    a_comment_that_is_never_closed: with(EDGE, "#| not ready yet");

    // Names.
    a_misspelt_function: after(MAP, "(region-ids (sort-on", "(regoin-ids (sort-on");
    a_misspelt_name_at_the_top: after(LAG, "(define unready-from (* 60 target))", "(define unready-from (* 60 tagret))");
    a_name_like_no_other: after(MAP, "(region-ids (sort-on", "(cheese (sort-on");
    a_name_defined_twice: with(LAG, "(define target 6000)");
    a_function_that_is_not_provided: after(MAP, "(provide policy-api region-candidates)", "(provide policy-api)");
    a_function_that_is_provided_and_not_defined: after(FAILOVER, "(provide policy-api region-verdict failover-plan)", "(provide policy-api region-verdict failover-plan failover-order)");
    a_function_that_was_renamed: refused(tree_replacing(LAG, &[("(define (lag-action link)", "(define (action-for link)"), ("(lag-action (sample-link", "(action-for (sample-link")]));
    a_module_that_was_forgotten: after(MAP, "(require \"repomind/prelude.scm\")\n", "");
    a_misspelt_module: after(MAP, "repomind/prelude.scm", "repomind/prelud.scm");
    a_module_like_no_other: after(MAP, "repomind/prelude.scm", "srfi/srfi-1");
    a_forbidden_name: with(LAG, "(define started (current-milliseconds))");
    a_forbidden_program: with(EDGE, "(command \"curl\" '(\"https://example.org\"))");

    // Arity.
    an_asked_function_of_too_few_arguments: answering(MAP, "region-candidates client regions)", "(define (region-candidates client) '(us-east))");
    an_asked_function_of_too_many_arguments: answering(LAG, "lag-action link)", "(define (lag-action link now) 'ok)");
    a_resolver_of_one_argument: with(CONFLICT, "(define-conflict-resolver 'first (lambda (siblings) (car siblings)))");
    a_call_with_too_few_arguments: after(MAP, "(sort-on (how-far-from-ideal client) regions)", "(sort-on regions)");
    a_call_of_a_host_function_with_too_many_arguments: after(LAG, "(link-lag link)", "(link-lag link 'ms)");
    a_value_where_a_function_belongs: answering(MAP, "region-candidates client regions)", "(define region-candidates '(us-east eu-west))");

    // Answers of the wrong shape.
    candidates_that_are_no_list: answering(MAP, "region-candidates client regions)", "(define (region-candidates client regions) 'us-east)");
    a_candidate_that_does_not_exist: answering(MAP, "region-candidates client regions)", "(define (region-candidates client regions) '(us-east us-weast))");
    a_candidate_named_twice: answering(MAP, "region-candidates client regions)", "(define (region-candidates client regions) '(us-east eu-west us-east))");
    no_candidate: answering(MAP, "region-candidates client regions)", "(define (region-candidates client regions) '())");
    ranks_that_are_numbers: answering(LATENCY, "rank-regions client candidates)", "(define (rank-regions client candidates) (list 1 2 3))");
    a_dns_answer_without_a_time: answering(DNS, "dns-answer name client ranked)", "(define (dns-answer name client ranked) '((count . 2) (ttl-min . 30)))");
    a_dns_answer_with_a_time_as_text: answering(DNS, "dns-answer name client ranked)", "(define (dns-answer name client ranked) '((count . 2) (ttl-min . \"30s\") (ttl-max . 60)))");
    a_dns_answer_whose_bounds_are_swapped: answering(DNS, "dns-answer name client ranked)", "(define (dns-answer name client ranked) '((count . 2) (ttl-min . 60) (ttl-max . 30)))");
    a_dns_answer_with_an_unknown_key: answering(DNS, "dns-answer name client ranked)", "(define (dns-answer name client ranked) '((addresses . 2) (ttl-min . 30) (ttl-max . 60)))");
    a_verdict_that_is_a_truth_value: answering(FAILOVER, "region-verdict observations)", "(define (region-verdict observations) #t)");
    a_failover_plan_that_is_a_symbol: answering(FAILOVER, "failover-plan regions)", "(define (failover-plan regions) 'promote)");
    an_unknown_lag_action: answering(LAG, "lag-action link)", "(define (lag-action link) (if (< (link-lag link) 5000) 'ok 'panic))");
    a_lag_action_that_falls_back: answering(LAG, "lag-action link)", "(define (lag-action link) (if (< 5000 (link-lag link) 20000) 'alert 'ok))");
    a_residency_that_is_a_truth_value: answering(RESIDENCY, "residency record)", "(define (residency record) #t)");
    a_residency_in_a_region_that_does_not_exist: answering(RESIDENCY, "residency record)", "(define (residency record) (allow-in '(eu-wset) 'rule '()))");
    a_transfer_that_names_no_rule: answering(RESIDENCY, "transfer record from to)", "(define (transfer record from to) '(allow))");
    an_answer_that_fails_inside: answering(LAG, "lag-action link)", "(define (lag-action link)\n  (if (> (+ (link-lag link) \"5000\") 0)\n      'alert\n      'ok))");

    // Declarations.
    an_unknown_key_of_a_strategy: after(STRATEGY, "(lag-target . 5000)", "(lag-tagret . 5000)");
    an_unknown_resolver: after(STRATEGY, "(conflict-resolution . union-of-lines)", "(conflict-resolution . union-of-line)");
    an_unknown_region_in_a_strategy: after(STRATEGY, "(us-east eu-west))\n    ;; A save", "(us-east eu-wets))\n    ;; A save");
    an_unknown_class: after(STRATEGY, "(default-class . personal)", "(default-class . private)");
    an_unknown_mode: after(STRATEGY, "(mode . eventual-consistency)", "(mode . strong)");
    an_unknown_acknowledgement: after(STRATEGY, "(ack . (regions . 2))", "(ack . everywhere)");
    a_negative_time: after(STRATEGY, "(lag-target . 2000)", "(lag-target . -2000)");
    a_time_as_text: after(STRATEGY, "(lag-target . 2000)", "(lag-target . \"2s\")");
    a_strategy_defined_twice: with(STRATEGY, "(define-replication-strategy 'drafts '((lag-target . 1)))");
    a_resolver_defined_twice: with(CONFLICT, "(define-conflict-resolver 'prefer-longest union-of-lines)");
    a_resolver_named_as_one_that_is_built_in: with(CONFLICT, "(define-conflict-resolver 'keep-siblings union-of-lines)");
    a_resolver_that_is_no_function: with(CONFLICT, "(define-conflict-resolver 'newest 'latest-sibling)");
    a_path_that_does_not_begin_with_a_slash: after(EDGE, "(rule \"/assets/\"", "(rule \"assets/\"");
    a_negative_time_to_cache: after(EDGE, "(rule \"/\" (minutes 1) 0", "(rule \"/\" (minutes -1) 0");
    a_cache_rule_defined_twice: with(EDGE, "(define-cache-rule 'data-never other)");
    an_unknown_key_of_a_cache_rule: after(EDGE, "(edge-ttl . 10)", "(edge-tll . 10)");
    a_part_that_no_cache_key_has: after(EDGE, "(host path (query-except", "(host url (query-except");
    a_cache_key_that_would_need_the_answer: after(EDGE, "(status . (404 410)) (edge-ttl . 10)", "(status . (404 410)) (edge-ttl . 10) (key . (path))");
    a_cache_rule_that_keeps_server_errors: after(EDGE, "(status . (404 410))", "(status . (404 503))");
    a_cache_rule_that_keeps_what_was_posted: after(EDGE, "(status . (404 410))", "(method . (GET POST))");
    a_rate_without_a_window: after(EDGE, "(rate . 600) (per . 60)", "(rate . 600)");
    a_scope_that_no_limit_has: after(EDGE, "(per . 60)", "(per . 60) (scope . global)");
    a_guard_that_believes_every_issuer: after(EDGE, "(issuers . (\"https://id.repomind.io\"))", "");
    a_guard_that_takes_unsigned_tokens: after(EDGE, "(algorithms . (ES256 EdDSA))", "(algorithms . (none))");
    a_kind_of_edge_that_there_is_not: after(EDGE, "'nginx-reduced", "'varnish-reduced");
    kinds_of_edge_declared_twice: with(EDGE, "(define-edge-backends 'nginx)");
    a_route_to_a_region_that_does_not_exist: after(EDGE, "(attempts . 2)", "(attempts . 2) (regions . (eu-wets))");
    a_country_that_is_none: after(REGIONS, "(list 'us-east \"US\"", "(list 'us-east \"USA\"");
    an_unknown_class_that_a_region_accepts: after(REGIONS, "'(personal financial", "'(personal finanical");
    a_policy_of_a_region_that_does_not_exist: with(REGIONS, "(define-region-policy 'moon-base '((jurisdiction . \"US\") (accepts . (public))))");
    a_law_that_does_not_exist: with(RESIDENCY, "(define lunar (sample-record #:law 'moon))");

    // Laws of resolvers.
    a_resolver_that_takes_the_first: with(CONFLICT, "(define-conflict-resolver 'first (lambda (key siblings) (car siblings)))");
    a_resolver_that_leaves_ties_to_the_order: with(CONFLICT, "(define-conflict-resolver 'newest (lambda (key siblings)\n  (best-by (lambda (a b) (> (sibling-time a) (sibling-time b))) siblings)))");
    a_resolver_that_joins_in_order: with(CONFLICT, "(define-conflict-resolver 'all (lambda (key siblings)\n  (merged (apply string-append (map sibling-value siblings)))))");
    a_resolver_that_counts_copies: with(CONFLICT, "(define-conflict-resolver 'count (lambda (key siblings)\n  (merged (number->string (length siblings)))))");
    a_resolver_that_goes_by_the_order_of_a_hash: { let keys = (0..40).map(|at| format!("{at} {at}")).collect::<Vec<_>>().join(" "); let resolver = format!("(define-conflict-resolver 'hashed (lambda (key siblings)\n  (merged (apply string-append (map number->string (hash-keys->list (hash {keys})))))))"); with(CONFLICT, &resolver) };
    a_resolver_that_answers_with_text: with(CONFLICT, "(define-conflict-resolver 'text (lambda (key siblings) \"the text\"))");
    a_resolver_that_always_fails: with(CONFLICT, "(define-conflict-resolver 'fails (lambda (key siblings)\n  (merged (string-append (sibling-value (car siblings)) 1))))");

    // Tests.
    a_test_that_does_not_hold: after(LAG, "(at 60000) 'alert)", "(at 60000) 'ok)");
    a_test_that_fails_inside: with(LAG, "(test-module \"more\"\n  (check-equal? \"the first of none\" (car '()) 1))");

    // Files.
    a_file_that_is_missing: { let mut tree = tree(); tree.0.remove(DNS); refused(tree) };
    a_file_of_no_stated_api: after(DNS, "(define policy-api 1)\n", "");
    a_file_of_another_api: after(DNS, "(define policy-api 1)", "(define policy-api 2)");
    a_file_of_a_newer_api_that_calls_what_is_not_there: after(DNS, "(define policy-api 1)", "(define policy-api 7)\n(define later (what-only-seven-has 1))");
    an_api_that_is_no_number: after(DNS, "(define policy-api 1)", "(define policy-api \"one\")");
    an_api_that_is_not_provided: after(EDGE, "(provide policy-api)", "(provide)");
    files_that_require_each_other: refused({ let mut tree = tree_with(MAP, "(require \"traffic-routing/latency-routing.scm\")"); let other = tree_with(LATENCY, "(require \"region-config/region-mapping.scm\")"); tree.0.insert(LATENCY.to_owned(), other.0[LATENCY].clone()); tree });
    a_file_that_is_too_large: with(MAP, &";".repeat(300 << 10));
    brackets_nested_too_deep: with(MAP, &format!("\n{}{}", "(".repeat(250), ")".repeat(250)));
    several_mistakes_at_once: { let mut tree = tree_with(MAP, "(define x (no-such-thing))"); let lag = tree_replacing(LAG, &[("(at 60000) 'alert)", "(at 60000) 'ok)")]); tree.0.insert(LAG.to_owned(), lag.0[LAG].clone()); refused(tree) };

    // Warnings.
    a_file_without_tests_is_taken_with_a_warning: warned({ let mut tree = tree(); let text = tree.0.get_mut(EDGE).expect("a file"); let at = text.find("(test-module").expect("tests"); text.truncate(at); tree });
    a_function_that_no_test_reaches_is_pointed_out: warned(tree_replacing(FAILOVER, &[("(provide policy-api region-verdict failover-plan)", "(provide policy-api region-verdict failover-plan spare)"), ("(define calm ", "(define (spare) 1)\n(define calm ")]));
    the_tree_as_it_stands_gives_no_warning: warned(tree());
}

#[test]
fn every_test_that_held_is_listed_with_its_file_and_module() {
    let (_, declarations) = RUNTIME.block_on(HOST.load(tree(), support::facts())).expect("a good tree");
    assert_eq!(declarations.tests.len(), declarations.tests_passed as usize);
    let lag = declarations.tests.iter().find(|test| test.file == LAG).expect("a test of each file");
    assert_eq!((lag.module.as_str(), lag.sentence.as_str()), ("replication-lag", "below the target nobody is woken"));
    for file in model::bundle::POLICY_FILES {
        assert!(declarations.tests.iter().any(|test| test.file == *file && !test.module.is_empty()), "{file}");
    }
}
