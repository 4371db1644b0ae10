//! Remembers a policy's answers by what it looked at.
//!
//! A policy is a pure function, so two cases that agree in every field that was
//! read have the same answer. The residency space has thousands of cases and a
//! policy that tells a dozen of them apart; it is asked a dozen times.

use std::collections::HashMap;

use model::record::{Basis, DataClass, Purpose};
use model::residency::{Law, ResidencyCase};

/// The bit of each field of a case.
pub const CLASS: u8 = 1;
/// See [`CLASS`].
pub const LAW: u8 = 2;
/// See [`CLASS`].
pub const BASIS: u8 = 4;
/// See [`CLASS`].
pub const PURPOSE: u8 = 8;

/// A case, reduced to the fields that were read.
type Seen = (u8, Option<DataClass>, Option<Law>, Option<Basis>, Option<Purpose>);

fn seen(case: &ResidencyCase, read: u8) -> Seen {
    (
        read,
        (read & CLASS != 0).then_some(case.class),
        (read & LAW != 0).then_some(case.law),
        (read & BASIS != 0).then_some(case.basis),
        (read & PURPOSE != 0).then_some(case.purpose),
    )
}

/// Answers by what was read to give them.
pub struct Memo<T> {
    /// The combinations of fields read so far, at most sixteen.
    reads: Vec<u8>,
    answers: HashMap<Seen, T>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { reads: Vec::new(), answers: HashMap::new() }
    }
}

impl<T: Clone> Memo<T> {
    /// The answer to a case that cannot be told from this one.
    pub fn recall(&self, case: &ResidencyCase) -> Option<T> {
        self.reads.iter().find_map(|&read| self.answers.get(&seen(case, read)).cloned())
    }

    /// Keeps the answer that was given after the fields of `read` were read.
    pub fn keep(&mut self, case: &ResidencyCase, read: u8, answer: T) {
        if !self.reads.contains(&read) {
            self.reads.push(read);
        }
        self.answers.insert(seen(case, read), answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_reused_only_where_all_that_was_read_is_equal() {
        let case = |class, law| ResidencyCase { class, law, basis: Basis::Consent, purpose: Purpose::Service };
        let mut memo = Memo::default();
        memo.keep(&case(DataClass::Public, Law::Eea), CLASS, "anywhere");
        memo.keep(&case(DataClass::Health, Law::Eea), CLASS | LAW, "at home");
        assert_eq!(memo.recall(&case(DataClass::Public, Law::Other)), Some("anywhere"));
        assert_eq!(memo.recall(&case(DataClass::Health, Law::Other)), None);
        assert_eq!(memo.recall(&case(DataClass::Health, Law::Eea)), Some("at home"));
    }
}
