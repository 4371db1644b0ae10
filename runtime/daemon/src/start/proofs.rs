//! Proves what policy files say must never happen, before they come into force.
//!
//! The child checks the space of an invariant in steps, so that its other
//! questions come through in between and a stuck one is noticed. What was proved is remembered
//! by the hash of all that it follows from: a save proves anew only what it touches.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use model::question::{Answer, Invariant, Question};
use model::routing::Facts;
use model::{Finding, Millis};
use policy::Generation;

use super::gate;
use super::generations::RefusedGeneration;

/// About how long one step takes.
const STEP: Millis = Millis(150);
/// How long the proofs of one save may take together.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How many proofs are remembered.
const REMEMBERED: usize = 2000;

/// What was proved here, and what is being proved.
#[derive(Default)]
pub struct Proofs {
    known: Mutex<BTreeSet<String>>,
    under_way: ArcSwapOption<String>,
}

/// What came of one proof.
pub enum Outcome {
    /// It holds for every case.
    Proved,
    /// It does not hold: with facts that show it.
    Refuted(Finding),
    /// Time ran out after so many cases.
    Unfinished(u64),
}

impl Proofs {
    /// What is being proved, and how far that is.
    pub fn under_way(&self) -> Option<String> {
        self.under_way.load().as_ref().map(|said| String::clone(said))
    }

    /// Proves all that is not known already.
    ///
    /// # Errors
    /// What does not hold, or could not be proved in time: a finding each.
    pub async fn prove(
        &self,
        child: &Generation,
        invariants: &[Invariant],
        facts: &Facts,
    ) -> Result<(), RefusedGeneration> {
        let _done = Done(self);
        let (until, mut findings) = (Instant::now() + LIMIT, Vec::new());
        for (number, invariant) in invariants.iter().enumerate() {
            if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&invariant.depends_on) {
                continue;
            }
            let told = |checked: u64| {
                let said = format!("{}: {checked} of {} cases", invariant.sentence, invariant.cases);
                self.under_way.store(Some(std::sync::Arc::new(said)));
            };
            match prove_one(child, (number, invariant), facts, until, told).await? {
                Outcome::Proved => {
                    let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                    if known.len() >= REMEMBERED {
                        known.clear();
                    }
                    known.insert(invariant.depends_on.clone());
                }
                Outcome::Refuted(finding) => findings.push(finding),
                Outcome::Unfinished(checked) => findings.push(unfinished(invariant, checked)),
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(RefusedGeneration::Findings(findings)) }
    }
}

/// Takes the words of what is under way back, also when the proof was cut short.
struct Done<'a>(&'a Proofs);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.under_way.store(None);
    }
}

/// The finding for a proof that time ran out for.
pub fn unfinished(invariant: &Invariant, checked: u64) -> Finding {
    let Invariant { file, line, sentence, space, cases, .. } = invariant;
    let message = format!("not proved in time: {sentence}: {checked} of {cases} cases ({space})");
    let help = "class a dimension more coarsely, split the sentence, or make the policy quicker; \
                `repomind-run prove --seconds N` takes as long as you like";
    Finding::error(file.as_str(), "", (*line, 0), message, help)
}

/// Proves one invariant, and tells how many cases were checked so far.
///
/// # Errors
/// Where the host gave no usable answer.
pub async fn prove_one(
    child: &Generation,
    (number, invariant): (usize, &Invariant),
    facts: &Facts,
    until: Instant,
    told: impl Fn(u64),
) -> Result<Outcome, RefusedGeneration> {
    let (mut from, mut checked) = (0, 0_u64);
    told(0);
    loop {
        let question = Question::Prove { invariant: number as u32, from, budget: STEP, facts: facts.clone() };
        let step = match gate::ask(child, question).await? {
            Answer::Proof(step) => *step,
            other => return Err(gate::unexpected("a proof", other)),
        };
        checked = checked.saturating_add(step.checked).min(invariant.cases);
        told(checked);
        match (step.counterexample, step.next) {
            (Some(finding), _) => return Ok(Outcome::Refuted(finding)),
            (None, None) => return Ok(Outcome::Proved),
            (None, Some(_)) if Instant::now() >= until => return Ok(Outcome::Unfinished(checked)),
            (None, Some(next)) => from = next,
        }
    }
}
