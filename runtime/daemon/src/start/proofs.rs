//! Proves what policy files say must never happen, before they come into force.
//!
//! The child checks the space of an invariant in steps, so that its other
//! questions come through in between and a stuck one is noticed. What was proved is remembered
//! by the hash of all that it follows from: a save proves anew only what it touches. That is kept on
//! disk beside the generations, for the build that proved it; a file that is damaged or of another
//! build is passed over, and everything is proved anew.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use model::codec::{self, Format};
use model::question::{Answer, Invariant, Question};
use model::routing::Facts;
use model::{Finding, Millis};
use policy::Generation;
use serde::{Deserialize, Serialize};

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
    /// Where that is kept, and the build that proves; nowhere by default.
    kept: Option<(PathBuf, String)>,
    under_way: ArcSwapOption<String>,
}

/// What was proved, on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    build: String,
    known: BTreeSet<String>,
}

impl Format for Kept {
    const KIND: u8 = 0x51;
    const VERSION: u8 = 1;
    const NAME: &'static str = "list of proofs";
}

/// Names this build: another one may have another library, or judge otherwise.
pub fn build() -> String {
    let about = std::env::current_exe().and_then(std::fs::metadata);
    let stamp = about.map(|about| (about.len(), about.modified().ok()));
    let library = blake3::hash(&codec::plain(&crate::embedded::library()).unwrap_or_default());
    format!("{} {library} {stamp:?}", env!("CARGO_PKG_VERSION"))
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
    /// What `build` proved before a restart, as it is kept in `file`.
    pub fn open(file: PathBuf, build: String) -> Self {
        let known = match std::fs::read(&file) {
            Err(_) => BTreeSet::new(),
            Ok(bytes) => match codec::decode::<Kept>(&bytes) {
                Ok(kept) if kept.build == build => kept.known,
                Ok(_) => BTreeSet::new(),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "what was proved is proved anew");
                    BTreeSet::new()
                }
            },
        };
        Self { known: Mutex::new(known), kept: Some((file, build)), under_way: ArcSwapOption::empty() }
    }

    fn knows(&self, what: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(what)
    }

    fn learn(&self, what: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(what.to_owned());
    }

    /// Writes down what is known, beside and by renaming. A disk that takes nothing costs time after a restart, no more.
    fn keep(&self) {
        let Some((file, build)) = &self.kept else { return };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = codec::encode(&Kept { build: build.clone(), known });
        let draft = file.with_extension("draft");
        let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = folder.and_then(|()| std::fs::write(&draft, bytes)).and_then(|()| std::fs::rename(&draft, file));
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "what was proved could not be kept for a restart");
        }
    }

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
        let (until, mut findings, mut fresh) = (Instant::now() + LIMIT, Vec::new(), false);
        for (number, invariant) in invariants.iter().enumerate() {
            if self.knows(&invariant.depends_on) {
                metrics::counter!("repomind_proofs_total", "how" => "known").increment(1);
                continue;
            }
            let told = |checked: u64| {
                let said = format!("{}: {checked} of {} cases", invariant.sentence, invariant.cases);
                self.under_way.store(Some(std::sync::Arc::new(said)));
            };
            match prove_one(child, (number, invariant), facts, until, told).await? {
                Outcome::Proved => {
                    metrics::counter!("repomind_proofs_total", "how" => "proved").increment(1);
                    self.learn(&invariant.depends_on);
                    fresh = true;
                }
                Outcome::Refuted(finding) => findings.push(finding),
                Outcome::Unfinished(checked) => findings.push(unfinished(invariant, checked)),
            }
        }
        if fresh {
            self.keep();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proved_is_known_after_a_restart_to_the_same_build_and_to_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy/proofs");
        let open = |build: &str| Proofs::open(file.clone(), build.to_owned());
        let proofs = open("one");
        assert!(!proofs.knows("a"));
        proofs.learn("a");
        proofs.keep();
        assert!(open("one").knows("a") && !open("one").knows("b"));
        assert!(!open("another").knows("a"), "another build may judge otherwise");
        let mut bytes = std::fs::read(&file).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            assert!(!open("one").knows("a"), "a damaged byte {at} was believed");
            bytes[at] ^= 1;
        }
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(!open("one").knows("a"));
    }
}
