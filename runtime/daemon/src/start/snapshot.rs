//! What an operator may ask of a running region in Scheme: a module, written
//! from what is known at this moment, that is loaded beside the policies.
//!
//! | form | gives |
//! |---|---|
//! | `(regions)` | one list a region: its id, then state, round trip in ms, primary, gateway |
//! | `(lag)`, `(lag 'eu-west)`, `(lag 'us-east 'eu-west)` | lag and backlog towards each peer, or one; from this region |
//! | `(generation)` | number and hash of the policies in force |
//! | `(route "203.0.113.9")` | country, ranking and the region chosen for a client at that address |
//! | `(facts)` | hash of the facts that policies are told now, and the regions in them |
//! | `(decisions 10)` | the last decisions that policies gave, a sentence each, with their numbers for `explain decision` |
//! | `(orders)` | what operators have ordered about the traffic of regions, a sentence each |
//! | `(conflicts 10)` | what lost last against concurrent writes, a sentence each |
//! | `(policy-errors)` | why the files on disk are not in force |
//! | `(policy-waiting)` | what waits for `policy confirm`, and what it would change; #false if nothing does |
//!
//! The table of countries lives in this process and not in the child that
//! evaluates, so `route` knows the addresses that stand as texts in the input.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use model::routing::ClientClass;
use net::Region;

use super::running::RunningRegion;

/// The module's path: beside the policies, where no file of a tree can be.
pub const FILE: &str = policy::FACTS_MODULE;
/// The path of the module that an operator had loaded.
pub const LOADED: &str = "snapshot/loaded.scm";
/// What changes something.
const OPERATIONS: [&str; 4] = ["drain!", "evacuate!", "restore!", "pin!"];
/// The most addresses that one input may ask about.
const ADDRESSES: usize = 1000;

/// The most entries of the conflict log that are shown.
const CONFLICTS: usize = 100;

/// The module for `input`.
pub fn module(region: &RunningRegion, input: &str) -> String {
    let mut text = format!(
        "(provide regions lag generation route policy-errors policy-waiting facts decisions orders conflicts {})\n",
        OPERATIONS.join(" ")
    );
    text += "(require \"repomind/regions.scm\")\n";
    text += &regions(region);
    text += &lag(region);
    let _ = writeln!(
        text,
        "(define (generation) (list (cons 'number {}) (cons 'hash {:?})))",
        region.generations.number(),
        region.generations.hash()
    );
    let errors: Vec<String> =
        region.generations.findings().iter().map(|finding| quoted(&finding.to_string())).collect();
    let _ = writeln!(text, "(define (policy-errors) (list {}))", errors.join(" "));
    let waiting = region.generations.waiting().map_or_else(
        || "#false".to_owned(),
        |waiting| {
            let lines = crate::policy::account(&waiting).iter().map(|line| quoted(line)).collect::<Vec<_>>();
            format!("(list {})", lines.join(" "))
        },
    );
    let _ = writeln!(text, "(define (policy-waiting) {waiting})");
    let _ = writeln!(
        text,
        "(define (facts) (list (cons 'hash {:?}) (cons 'regions (all-regions))))",
        region.facts().hash()
    );
    let decided = region.recorder.recent();
    let said: Vec<String> = decided
        .iter()
        .rev()
        .map(|entry| quoted(&format!("{}: {} of {}: {}", entry.id, entry.kind.name(), entry.about, entry.gave)))
        .collect();
    let _ = writeln!(text, "(define (decisions n) (take (list {}) (min n {})))", said.join(" "), said.len());
    let ordered: Vec<String> = crate::orders::lines(&region.orders.holding()).iter().map(|line| quoted(line)).collect();
    let _ = writeln!(text, "(define (orders) (list {}))", ordered.join(" "));
    text += &conflicts(region);
    text += &routes(region, input);
    text += &operations();
    text
}

/// Operations inside other forms: they are asked about one by one, so that nothing is done by a form that only looked
/// like a question.
fn operations() -> String {
    let defined = OPERATIONS.map(|name| {
        format!("(define ({name} . _) (error \"type ({name} …) by itself: it is asked about before it is done\"))\n")
    });
    defined.concat()
}

/// The newest entries of the conflict log.
fn conflicts(region: &RunningRegion) -> String {
    let found = region.data.losses(None, None, CONFLICTS, false).unwrap_or_else(|error| {
        tracing::error!(%error, "the conflict log could not be read");
        data::ShownLosses::default()
    });
    let said = found.losses.iter().map(|shown| {
        let loss = &shown.loss;
        let what = if loss.is_delete() { "a delete".to_owned() } else { format!("{} bytes", loss.bytes) };
        quoted(&format!(
            "{}: {what} of {} lost to {} by {} ({})",
            loss.address,
            loss.lost.version.dot,
            loss.to.dot,
            loss.by,
            loss.cause.name()
        ))
    });
    let said: Vec<String> = said.collect();
    format!("(define (conflicts n) (take (list {}) (min n {})))\n", said.join(" "), said.len())
}

/// A module of definitions that hands on all of them.
pub fn loaded(text: &str) -> String {
    let heads =
        text.lines().filter_map(|line| line.strip_prefix("(define (").or_else(|| line.strip_prefix("(define ")));
    let names = heads.filter_map(|rest| rest.split([' ', ')', '\t']).next()).filter(|name| !name.is_empty());
    let names: BTreeSet<&str> = names.collect();
    let provide = names.into_iter().collect::<Vec<_>>().join(" ");
    // On the first line, so that the others keep their numbers but for one.
    if provide.is_empty() { text.to_owned() } else { format!("(provide {provide})\n{text}") }
}

fn regions(region: &RunningRegion) -> String {
    let status = region.status();
    let rows = region.regions.by_id.values().map(|one| {
        let state = if one.id == region.me { region.own_state() } else { region.states()[&one.id] };
        let trip = status.rtt_ms.get(&one.id).map_or_else(|| "#false".to_owned(), |ms| format!("{ms:.3}"));
        format!(
            "({} (state . {}) (rtt-ms . {trip}) (primary . {}) (gateway . \"{}\"))",
            one.id,
            state.name(),
            if Some(&one.id) == status.primary.as_ref() { "#true" } else { "#false" },
            one.addresses.gateway
        )
    });
    format!("(define (regions) '({}))\n", rows.collect::<Vec<_>>().join("\n  "))
}

fn lag(region: &RunningRegion) -> String {
    let links = region.data.links();
    let rows: Vec<String> = links
        .iter()
        .map(|link| format!("({} (lag-ms . {}) (backlog . {}))", link.peer, link.lag_ms, link.backlog))
        .collect();
    format!(
        "(define links '({}))\n\
         (define (lag . regions)\n\
           (cond [(null? regions) links]\n\
                 [(null? (cdr regions)) (lag-to (car regions))]\n\
                 [(equal? (car regions) '{me}) (lag-to (cadr regions))]\n\
                 [else (error \"this is {me}: start the REPL with --region to ask\" (car regions))]))\n\
         (define (lag-to peer)\n\
           (cond [(assoc peer links) (cdr (assoc peer links))]\n\
                 [else (error \"this region replicates to\" (map car links) \"and not to\" peer)]))\n",
        rows.join(" "),
        me = region.me
    )
}

fn routes(region: &RunningRegion, input: &str) -> String {
    let (plans, states) = (region.plans.load(), region.states());
    let rows: Vec<String> = addresses(input)
        .into_iter()
        .map(|(written, address)| {
            let class = ClientClass { country: region.countries.table.load().country(address) };
            let ranked = &plans.routing.ranking(class).regions;
            let up = routing::choose(&plans.routing, class, &states, &BTreeSet::new(), &region.regions, None);
            let names = |ids: &[model::RegionId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            format!(
                "({} (country . {}) (ranked . ({})) (chosen . {}))",
                quoted(&written),
                class.country.map_or_else(|| "#false".to_owned(), |country| format!("\"{country}\"")),
                names(ranked),
                up.first().map_or_else(|| "#false".to_owned(), ToString::to_string),
            )
        })
        .collect();
    format!(
        "(define places '({}))\n\
         (define (route address)\n\
           (cond [(assoc address places) (cdr (assoc address places))]\n\
                 [else (error \"no IP address that is written out in the input:\" address)]))\n",
        rows.join("\n  ")
    )
}

/// The texts in `input` that are IP addresses, each once.
fn addresses(input: &str) -> Vec<(String, IpAddr)> {
    let texts = input.split('"').skip(1).step_by(2);
    let found: BTreeSet<String> =
        texts.filter(|text| text.parse::<IpAddr>().is_ok()).take(ADDRESSES).map(str::to_owned).collect();
    found.into_iter().filter_map(|text| text.parse().ok().map(|address| (text, address))).collect()
}

/// A Scheme text.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => vec![' '],
            c => vec![c],
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_texts_of_an_input_and_nowhere_else() {
        let found = addresses("(map route '(\"203.0.113.9\" \"2001:db8::1\" \"x\")) ; 198.51.100.1");
        let found: Vec<_> = found.into_iter().map(|(text, _)| text).collect();
        assert_eq!(found, ["2001:db8::1", "203.0.113.9"]);
    }

    #[test]
    fn what_was_loaded_hands_on_everything_that_it_defines() {
        let text = loaded("(define near 3)\n(define (far? x)\n  (define inner 1)\n  (> x near))\n");
        assert!(text.starts_with("(provide far? near)\n(define near 3)"), "{text}");
    }

    #[test]
    fn no_text_ends_a_scheme_string_early() {
        assert_eq!(quoted("a \"b\" \\ c\n"), "\"a \\\"b\\\" \\\\ c \"");
    }
}
