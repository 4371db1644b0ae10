//! Properties: tests that hold for many generated cases.
//!
//! A generator in Scheme is any expression that calls `choose`. What it chooses
//! is noted as a list of small numbers; the same list makes the same case again,
//! and a list that is shorter or smaller makes a simpler one (MacIver and
//! Donaldson, "Test-Case Reduction via Test-Case Generation", 2020). So a
//! counterexample is made simpler without the generators knowing of it.
//!
//! The cases follow from the sentence of the test alone: every region, and every
//! load, tries the same ones. `scm/repomind/testing.scm` has the loop; it asks
//! for the next case until there is none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use steel::rvals::SteelVal;

use super::cage;
use super::declare::{Ledger, lock};
use super::laws::Chance;
use super::natives::Natives;
use super::samples::form;
use super::values::{Scheme, count, fault, items, name, shown};

/// How many cases are tried.
const CASES: u32 = 100;
/// How many simpler ones are tried once a case has failed.
const SHRINKS: u32 = 400;
/// The most choices that one case may take.
const CHOICES: usize = 2000;
/// The most characters that a counterexample is shown with.
const LONGEST: usize = 4000;

/// A property that is being tried.
pub struct Property {
    sentence: String,
    chance: Chance,
    phase: Phase,
    /// Choices to repeat; what is beyond them is 0 while shrinking.
    replay: Vec<u64>,
    /// Choices taken in this case.
    taken: Vec<u64>,
    /// What this case is about.
    values: String,
}

enum Phase {
    Random { tried: u32 },
    Shrinking { best: Counterexample, queue: VecDeque<Vec<u64>>, left: u32 },
}

/// A case that does not hold.
#[derive(Clone, Default)]
struct Counterexample {
    choices: Vec<u64>,
    values: String,
    found: String,
}

/// Defines the natives behind `check-property`.
pub fn define(module: &mut Natives, ledger: &Arc<Mutex<Ledger>>) {
    let mut on = |called, arity, run: fn(&mut Ledger, &[SteelVal]) -> Scheme<SteelVal>| {
        let ledger = ledger.clone();
        module.define(called, arity, move |given| run(&mut lock(&ledger), given));
    };
    on("begin-property", 1..=1, |ledger, given| {
        if ledger.property.is_some() {
            return Err(fault("a property cannot stand inside another"));
        }
        let sentence = name(&given[0])?.to_owned();
        let chance = Chance::of(&sentence);
        let phase = Phase::Random { tried: 0 };
        let (replay, taken, values) = Default::default();
        ledger.property = Some(Property { sentence, chance, phase, replay, taken, values });
        Ok(SteelVal::Void)
    });
    on("next-case", 0..=0, |ledger, _| {
        if cage::interrupted() {
            return Err(fault("interrupted"));
        }
        Ok(SteelVal::BoolV(ledger.property()?.next_case()))
    });
    on("choose", 1..=1, |ledger, given| {
        let below = count(&given[0])?;
        Ok(SteelVal::IntV(ledger.property()?.choose(below)? as isize))
    });
    on("case-values", 1..=1, |ledger, given| {
        let values = items(&given[0])?;
        let values = values.iter().map(|entry| match items(entry).unwrap_or_default().as_slice() {
            [called, value] => format!("{} = {}", shown(called), form(value)),
            _ => shown(entry),
        });
        ledger.property()?.values = values.collect::<Vec<_>>().join(", ");
        Ok(SteelVal::Void)
    });
    on("case-result", 1..=1, |ledger, given| {
        if matches!(given[0], SteelVal::BoolV(false)) {
            ledger.property()?.failed("false".to_owned());
        }
        Ok(SteelVal::Void)
    });
    on("case-raised", 1..=1, |ledger, given| {
        ledger
            .property()?
            .failed(format!("an error ({})", name(&given[0]).map_or_else(|_| shown(&given[0]), str::to_owned)));
        Ok(SteelVal::Void)
    });
    on("end-property", 0..=0, |ledger, _| {
        let Some(property) = ledger.property.take() else { return Err(outside()) };
        let sentence = SteelVal::StringV(property.sentence.as_str().into());
        let counterexample = property.counterexample();
        let holds = counterexample.is_none();
        let found = || counterexample.clone().unwrap_or_default();
        let found = || found().chars().take(LONGEST).collect();
        ledger.check(&sentence, holds, || format!("true for each of {CASES} cases"), found)?;
        Ok(SteelVal::Void)
    });
}

fn outside() -> steel::SteelErr {
    fault("this chooses among the cases of a property; use it inside check-property")
}

impl Ledger {
    fn property(&mut self) -> Scheme<&mut Property> {
        self.property.as_mut().ok_or_else(outside)
    }
}

impl Property {
    /// Prepares the next case, if there is one.
    fn next_case(&mut self) -> bool {
        self.taken.clear();
        self.values.clear();
        match &mut self.phase {
            Phase::Random { tried } => {
                *tried += 1;
                *tried <= CASES
            }
            Phase::Shrinking { queue, left, .. } => match queue.pop_front().filter(|_| *left > 0) {
                Some(choices) => {
                    *left -= 1;
                    self.replay = choices;
                    true
                }
                None => false,
            },
        }
    }

    fn choose(&mut self, below: u64) -> Scheme<u64> {
        if below == 0 {
            return Err(fault("there is nothing to choose from"));
        }
        if self.taken.len() == CHOICES {
            return Err(fault(format!("a case may take {CHOICES} choices; generate less")));
        }
        let chosen = match &self.phase {
            Phase::Random { .. } => self.chance.below(usize::try_from(below).unwrap_or(usize::MAX)) as u64,
            Phase::Shrinking { .. } => self.replay.get(self.taken.len()).copied().unwrap_or(0).min(below - 1),
        };
        self.taken.push(chosen);
        Ok(chosen)
    }

    fn failed(&mut self, found: String) {
        let case = Counterexample { choices: self.taken.clone(), values: self.values.clone(), found };
        let left = match &self.phase {
            Phase::Random { .. } => SHRINKS,
            Phase::Shrinking { best, left, .. } if simpler(&case.choices, &best.choices) => *left,
            Phase::Shrinking { .. } => return,
        };
        self.phase = Phase::Shrinking { queue: simpler_than(&case.choices), best: case, left };
    }

    /// The simplest case found that does not hold.
    fn counterexample(&self) -> Option<String> {
        match &self.phase {
            Phase::Random { .. } => None,
            Phase::Shrinking { best: Counterexample { values, found, .. }, .. } if values.is_empty() => {
                Some(found.clone())
            }
            Phase::Shrinking { best, .. } => Some(format!("{} where {}", best.found, best.values)),
        }
    }
}

fn simpler(choices: &[u64], than: &[u64]) -> bool {
    (choices.len(), choices) < (than.len(), than)
}

/// Lists of choices that are simpler: shorter first, then smaller in one place.
fn simpler_than(choices: &[u64]) -> VecDeque<Vec<u64>> {
    let mut all = VecDeque::new();
    let length = choices.len();
    let mut cut = length;
    while cut > 0 {
        all.push_back(choices[..length - cut].to_vec());
        cut /= 2;
    }
    for at in 0..length {
        let mut without = choices.to_vec();
        without.remove(at);
        all.push_back(without);
    }
    for (at, &choice) in choices.iter().enumerate() {
        // 0 first, then ever closer: a bound is found in as many steps as it has bits, squared.
        let mut off = choice;
        while off > 0 {
            let mut with = choices.to_vec();
            with[at] = choice - off;
            all.push_back(with);
            off /= 2;
        }
    }
    all.retain(|other| simpler(other, choices));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a property of one list of numbers below 100.
    fn run(holds: impl Fn(&[u64]) -> bool) -> Option<String> {
        let mut property = Property {
            sentence: "a test".to_owned(),
            chance: Chance::of("a test"),
            phase: Phase::Random { tried: 0 },
            replay: Vec::new(),
            taken: Vec::new(),
            values: String::new(),
        };
        let mut cases = 0;
        while property.next_case() {
            cases += 1;
            let length = property.choose(8).unwrap();
            let list: Vec<u64> = (0..length).map(|_| property.choose(100).unwrap()).collect();
            property.values = format!("list = {list:?}");
            if !holds(&list) {
                property.failed("false".to_owned());
            }
        }
        assert!(cases <= CASES + SHRINKS + 1, "{cases} cases");
        property.counterexample()
    }

    #[test]
    fn a_counterexample_is_made_as_simple_as_it_gets() {
        assert_eq!(run(|list| list.len() < 8), None);
        assert_eq!(run(|list| list.iter().all(|item| *item < 40)).as_deref(), Some("false where list = [40]"));
        assert_eq!(run(|list| list.len() < 3).as_deref(), Some("false where list = [0, 0, 0]"));
    }

    #[test]
    fn the_same_sentence_tries_the_same_cases_everywhere() {
        let seen = || {
            let all = std::cell::RefCell::new(Vec::new());
            run(|list| {
                all.borrow_mut().push(list.to_vec());
                true
            });
            all.into_inner()
        };
        assert_eq!(seen(), seen());
    }
}
