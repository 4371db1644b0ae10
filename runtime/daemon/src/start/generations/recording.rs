//! Hands what generations answer to the log of decisions.

use std::sync::Arc;

use model::question::{Answer, Question};

use super::Generations;
use crate::decisions::Kind;
use crate::decisions::recorder::{Loaded, Note};

/// Why a generation is asked for all of its plans.
pub(super) const CAME: &str = "the generation came into force";
/// The same, where it had been in force before.
pub(super) const RESTARTED: &str = "the region was started again";
/// Why it is asked for its routing table again.
pub(super) const CHANGED: &str = "measurements or health had changed";

impl Generations {
    /// Writes down what a generation was asked when it came into force.
    pub(super) fn write_all_down(&self, by: &Arc<Loaded>, asked: [(Question, Answer); 3], why: &str) {
        for (kind, asked) in [Kind::Declarations, Kind::Residency, Kind::Route].into_iter().zip(asked) {
            self.write_down(by, kind, asked, why);
        }
    }

    /// Writes down one decision.
    pub(super) fn write_down(&self, by: &Arc<Loaded>, kind: Kind, asked: (Question, Answer), why: &str) {
        let about = match kind {
            Kind::Declarations => "what the policy files declare",
            Kind::Residency => "where records may be, for every case",
            _ => "who is served where, for every client class and name",
        };
        let (by, why, about, (question, answer)) = (by.clone(), why.to_owned(), about.to_owned(), asked);
        self.recorder.note(kind, || Note { by, why, about, question, answer, gave: None, withheld: None });
    }
}
