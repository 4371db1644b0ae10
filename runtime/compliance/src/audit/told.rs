//! What regions tell in logs and metrics and to caches, and whether they refuse what cannot be decided: LOG-01, CAC-01,
//! POL-05.

use std::collections::HashSet;

use model::RegionId;

use super::checks::Check;
use super::detect::{Detector, detect};
use super::evidence::{Evidence, Inputs};
use super::report::Tally;

/// Names that are searched for have at least so many characters, and a digit among them: else words of a log would be
/// taken for them.
const LEAST: usize = 6;

/// Names of what is about people, as far as they can be told from other words: pseudonyms, and keys of records.
#[derive(Default)]
pub(super) struct Names(HashSet<[u8; 8]>);

fn hash(name: &[u8]) -> [u8; 8] {
    blake3::hash(name).as_bytes()[..8].try_into().expect("a hash has 32 bytes")
}

impl Names {
    /// Takes note of a name.
    pub(super) fn note(&mut self, name: &[u8]) {
        if name.len() >= LEAST && name.iter().any(u8::is_ascii_digit) && name.iter().all(|byte| belongs(*byte)) {
            self.0.insert(hash(name));
        }
    }

    fn stand_in(&self, text: &[u8]) -> usize {
        let words = text.split(|byte| !belongs(*byte)).filter(|word| word.len() >= LEAST);
        words.filter(|word| self.0.contains(&hash(word))).count()
    }
}

/// Whether a byte may be part of a name that is searched for.
fn belongs(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-@~".contains(&byte)
}

/// LOG-01, CAC-01 and POL-05, of all regions that were reached.
pub(super) fn judge(tally: &mut Tally, inputs: &Inputs<'_>, names: &Names) {
    for region in &inputs.regions {
        let Ok(evidence) = &region.evidence else { continue };
        logs(tally, &region.region, evidence, names);
        probes(tally, &region.region, evidence);
        answers(tally, &region.region, evidence);
    }
}

fn logs(tally: &mut Tally, region: &RegionId, evidence: &Evidence, names: &Names) {
    if evidence.told.is_empty() {
        return tally.not_run(Check::Log01, region, "neither its log nor its metrics were seen");
    }
    for (what, text) in &evidence.told {
        tally.examined(Check::Log01, text.iter().filter(|byte| **byte == b'\n').count());
        let remedy = "take the line out of the program, and the log out of every place that it was copied to";
        let count = names.stand_in(text);
        if count > 0 {
            let rule = format!("its {what} names {count} times a person or a record about one");
            tally.find(Check::Log01, region, text, rule, remedy);
        }
        // Telephone and identity numbers are too like what logs count with.
        let found = detect(text).into_iter();
        for found in found.filter(|found| matches!(found, Detector::Email | Detector::Iban | Detector::PaymentCard)) {
            let rule = format!("its {what} holds what looks like {}", found.name());
            tally.find(Check::Log01, region, text, rule, remedy);
        }
    }
}

/// Whether a value of `Cache-Control` (RFC 9111), or of one of the headers for shared caches alone (RFC 9213), keeps
/// shared caches from storing the answer.
fn closes(value: &str) -> bool {
    let mut words = value.split(',').map(str::trim);
    words.any(|word| word.eq_ignore_ascii_case("private") || word.eq_ignore_ascii_case("no-store"))
}

fn answers(tally: &mut Tally, region: &RegionId, evidence: &Evidence) {
    let Some(answers) = &evidence.answers else {
        return tally.not_run(Check::Cac01, region, "its gateway was not asked");
    };
    for headers in answers {
        tally.examined(Check::Cac01, 1);
        let of = |name: &str| headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str());
        let remedy = "find out what stands before the gateway and changes its headers; purge the caches behind it";
        let mut find = |rule: String| tally.find(Check::Cac01, region, rule.clone().as_bytes(), rule, remedy);
        match of("cache-control") {
            Some(value) if closes(value) => {}
            Some(value) => find(format!("an answer about a person came with cache-control: {value}")),
            None => find("an answer about a person came without cache-control".to_owned()),
        }
        for name in ["cdn-cache-control", "surrogate-control"] {
            if let Some(value) = of(name).filter(|value| !closes(value)) {
                find(format!("an answer about a person came with {name}: {value}"));
            }
        }
    }
}

fn probes(tally: &mut Tally, region: &RegionId, evidence: &Evidence) {
    if evidence.probes.is_empty() {
        return tally.not_run(Check::Pol05, region, "its gateway was not asked");
    }
    for (asked, status) in &evidence.probes {
        tally.examined(Check::Pol05, 1);
        if (200..400).contains(status) {
            let rule = format!("a write {asked} was answered with {status}");
            let remedy = "take the region out of service, and find out what stands before its gateway";
            tally.find(Check::Pol05, region, asked.as_bytes(), rule, remedy);
        }
    }
}
