//! Tries each conflict resolver against the laws that convergence rests on.
//!
//! Regions receive the same concurrent writes in different orders, and some of
//! them twice. A resolver that decides by the order or by the number of copies
//! makes regions disagree for good, and nobody notices at once. So each is asked
//! at load about generated sets of siblings: in other orders, and with a sibling
//! given twice, it must decide the same. What breaks a law is made smaller for as
//! long as it still does, and shown as a test that the author can paste.
//!
//! The sets follow from the resolver's name alone: every region, and every load,
//! tries the same.

use model::Finding;
use model::question::Resolution;
use steel::rvals::SteelVal;

use super::cage;
use super::declare::{Misfit, lock};
use super::faults;
use super::interpreter::Interpreter;
use super::questions::{misshapen_settlement, settlement};
use super::values::{SiblingObject, list, text, wrap};

/// The most calls to all resolvers of a tree; each gets an equal share of the sets.
const MOST_CALLS: usize = 4000;
/// The most sets that one resolver is tried on, and the fewest, however many resolvers there are.
const SETS: (usize, usize) = (2, 24);
/// About how many calls one set costs: as it stands, once more, five other orders, one with a copy.
const CALLS_A_SET: usize = 8;
/// The most calls to make one counterexample smaller.
const MOST_SHRINKS: usize = 200;
/// The key that resolvers are tried with.
const KEY: &str = "key";

const REGIONS: &[&str] = &["ap-southeast", "eu-west", "us-east"];
const VALUES: &[&str] = &["", "a\n", "b\n", "b\na\n", "a\nb\nc\n", "9", "10", "{}", "{\"n\":1}", "ä\n"];

/// What a resolver made of one list.
type Outcome = Option<Resolution>;

/// A set of siblings, and another list of the same: indices into the set, some perhaps twice.
#[derive(Clone)]
struct Case {
    set: Vec<SiblingObject>,
    order: Vec<usize>,
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.
pub struct Chance(u64);

impl Chance {
    /// Seeded by a name.
    pub fn of(name: &str) -> Self {
        // FNV-1a.
        Self(
            name.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn set(&mut self) -> Vec<SiblingObject> {
        let count = 2 + self.below(4);
        (0..count).map(|at| self.sibling(at)).collect()
    }

    fn sibling(&mut self, at: usize) -> SiblingObject {
        let deleted = self.below(5) == 0;
        let value = if deleted { "" } else { VALUES[self.below(VALUES.len())] };
        SiblingObject {
            region: REGIONS[self.below(REGIONS.len())].to_owned(),
            // Few times, so that some are equal.
            time: 1000 * (1 + self.below(4) as u64),
            value: value.into(),
            deleted,
            index: at as u32,
        }
    }

    /// Other lists of the same siblings: backwards, rotated, shuffled, with a copy.
    fn orders(&mut self, count: usize) -> Vec<Vec<usize>> {
        let straight: Vec<usize> = (0..count).collect();
        // As it stands once more: a resolver that goes by the order of a hash's keys fails already here.
        let mut orders = vec![straight.clone(), straight.iter().rev().copied().collect::<Vec<_>>()];
        orders.push((1..count).chain([0]).collect());
        for _ in 0..3 {
            let mut order = straight.clone();
            for at in (1..count).rev() {
                order.swap(at, self.below(at + 1));
            }
            orders.push(order);
        }
        let mut copied = straight;
        copied.insert(self.below(count + 1), self.below(count));
        orders.push(copied);
        orders
    }
}

impl Interpreter {
    /// What is wrong with the resolvers: answers of no shape, errors on everything, laws broken.
    pub(super) fn try_resolvers(&mut self) -> Vec<Finding> {
        let resolvers: Vec<(String, String, SteelVal)> = lock(&self.ledger)
            .resolvers
            .iter()
            .map(|(name, (file, function))| (name.clone(), file.clone(), function.value().clone()))
            .collect();
        let share = MOST_CALLS / CALLS_A_SET / resolvers.len().max(1);
        let sets = share.clamp(SETS.0, SETS.1);
        resolvers
            .into_iter()
            .filter_map(|(name, file, function)| {
                self.at(&file);
                self.try_resolver(&name, &file, &function, sets).err()
            })
            .collect()
    }

    fn try_resolver(&mut self, name: &str, file: &str, function: &SteelVal, sets: usize) -> Result<(), Finding> {
        let mut chance = Chance::of(name);
        let (mut failure, mut answered) = (None, false);
        for _ in 0..sets {
            let set = chance.set();
            let straight: Vec<usize> = (0..set.len()).collect();
            let first = self.settle(name, file, function, &set, &straight, &mut failure)?;
            answered |= first.is_some();
            for order in chance.orders(set.len()) {
                let other = self.settle(name, file, function, &set, &order, &mut failure)?;
                if first != other {
                    let case = Case { set: set.clone(), order };
                    return Err(self.broken_law(name, file, function, case));
                }
            }
        }
        // What fails on some values only leaves their siblings as they are. What fails on all is a mistake.
        match failure {
            Some(failure) if !answered => Err(failure),
            _ => Ok(()),
        }
    }

    /// The sets that a resolver is tried on, as they stand, and what it makes of each.
    pub fn samples(&mut self, resolver: &str) -> Result<Vec<(String, Outcome)>, Vec<Finding>> {
        let found =
            lock(&self.ledger).resolvers.get(resolver).map(|(file, function)| (file.clone(), function.value().clone()));
        let Some((file, function)) = found else {
            let message = format!("no conflict resolver is called `{resolver}`");
            return Err(vec![Finding::error("", "", (0, 0), message, "define it with define-conflict-resolver")]);
        };
        self.at(&file);
        let mut chance = Chance::of(resolver);
        let sets = (0..SETS.1).map(|_| chance.set());
        let settled = sets.collect::<Vec<_>>().into_iter().map(|set| {
            let straight: Vec<usize> = (0..set.len()).collect();
            let outcome = self.settle(resolver, &file, &function, &set, &straight, &mut None)?;
            Ok((set.iter().map(sample).collect::<Vec<_>>().join(" "), outcome))
        });
        settled.collect::<Result<Vec<_>, Finding>>().map_err(|finding| vec![finding])
    }

    /// What the resolver makes of a list; nothing where it fails, which `failure` then says.
    fn settle(
        &mut self,
        name: &str,
        file: &str,
        function: &SteelVal,
        set: &[SiblingObject],
        order: &[usize],
        failure: &mut Option<Finding>,
    ) -> Result<Outcome, Finding> {
        let siblings = list(order.iter().map(|&at| wrap(set[at].clone())));
        let answer = match self.apply(function.clone(), vec![text(KEY), siblings]) {
            Ok(answer) => answer,
            Err(error) if cage::interrupted() => return Err(self.fault(file, &error)),
            Err(error) => {
                failure.get_or_insert_with(|| self.fault(file, &error));
                return Ok(None);
            }
        };
        settlement(&answer, set.len(), true)
            .map(Some)
            .map_err(|error| faults::misfit(&self.files, misshapen_settlement(name, file, &answer, &error)))
    }

    fn broken_law(&mut self, name: &str, file: &str, function: &SteelVal, mut case: Case) -> Finding {
        let mut calls = 0;
        let mut outcomes = (None, None);
        while let Some((smaller, found)) = smaller(&case).into_iter().find_map(|smaller| {
            calls += 1;
            let found = (calls <= MOST_SHRINKS).then(|| self.outcomes(name, file, function, &smaller)).flatten()?;
            (found.0 != found.1).then_some((smaller, found))
        }) {
            (case, outcomes) = (smaller, found);
        }
        if outcomes == (None, None) {
            outcomes = self.outcomes(name, file, function, &case).unwrap_or_default();
        }
        let again = case.order.iter().copied().eq(0..case.set.len());
        let message = match case.order.len() > case.set.len() {
            _ if again => format!("the resolver `{name}` decides otherwise when it is asked again"),
            true => format!("the resolver `{name}` decides otherwise when a write arrives twice"),
            false => format!("the resolver `{name}` decides by the order in which writes arrive"),
        };
        let remedy = match again {
            true => "do not go by the order of a hash's keys or values",
            false => "go by time, region and value, as `later?` does",
        };
        let help = format!(
            "regions would disagree for good; {remedy}. This test shows it:\n{}",
            case.as_test(name, &outcomes)
        );
        faults::misfit(&self.files, Misfit { file: file.to_owned(), form: "define-conflict-resolver", message, help })
    }

    fn outcomes(&mut self, name: &str, file: &str, function: &SteelVal, case: &Case) -> Option<(Outcome, Outcome)> {
        let straight: Vec<usize> = (0..case.set.len()).collect();
        let first = self.settle(name, file, function, &case.set, &straight, &mut None).ok()?;
        let other = self.settle(name, file, function, &case.set, &case.order, &mut None).ok()?;
        Some((first, other))
    }
}

/// Cases a step smaller: one sibling fewer, or one that is simpler.
fn smaller(case: &Case) -> Vec<Case> {
    let mut smaller = Vec::new();
    for out in (0..case.set.len()).filter(|_| case.set.len() > 1) {
        let set = case.set.iter().enumerate().filter(|(at, _)| *at != out).map(|(_, sibling)| sibling.clone());
        let set = set.enumerate().map(|(at, sibling)| SiblingObject { index: at as u32, ..sibling }).collect();
        let order = case.order.iter().filter(|&&at| at != out).map(|&at| at - usize::from(at > out)).collect();
        smaller.push(Case { set, order });
    }
    for at in 0..case.set.len() {
        let old = &case.set[at];
        let mut with = |new: SiblingObject| {
            let mut case = case.clone();
            case.set[at] = new;
            smaller.push(case);
        };
        if old.deleted {
            with(SiblingObject { deleted: false, ..old.clone() });
        }
        let simpler = VALUES.iter().take_while(|value| **value != &*old.value);
        simpler.for_each(|value| with(SiblingObject { value: (*value).into(), ..old.clone() }));
        if old.time > 1000 {
            with(SiblingObject { time: old.time - 1000, ..old.clone() });
        }
        let simpler = REGIONS.iter().take_while(|region| **region != old.region);
        simpler.for_each(|region| with(SiblingObject { region: (*region).to_owned(), ..old.clone() }));
    }
    smaller
}

impl Case {
    /// The case as a test that fails until the resolver is corrected.
    fn as_test(&self, name: &str, outcomes: &(Outcome, Outcome)) -> String {
        let winners = matches!(outcomes, (Some(Resolution::Winner(_)), Some(Resolution::Winner(_))));
        let call = |order: &mut dyn Iterator<Item = usize>| {
            let siblings: Vec<String> = order.map(|at| sample(&self.set[at])).collect();
            let call = format!("((conflict-resolver '{name}) \"{KEY}\"\n    (list {}))", siblings.join("\n          "));
            if winners { format!("(sibling-index {call})") } else { call }
        };
        let straight = call(&mut (0..self.set.len()));
        let other = call(&mut self.order.iter().copied());
        format!("(check-equal? \"{name} decides alike in every region\"\n  {straight}\n  {other})")
    }
}

/// A sibling as the form that makes it.
pub fn sample(sibling: &SiblingObject) -> String {
    let SiblingObject { region, time, value, deleted, index } = sibling;
    let deleted = if *deleted { " #:deleted #t" } else { "" };
    format!("(sample-sibling #:region '{region} #:time {time} #:value {value:?}{deleted} #:index {index})")
}
