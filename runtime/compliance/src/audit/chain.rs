//! The ledger as a chain: AUD-01 (changed, truncated or forked) and AUD-02 (too
//! few witnesses).
//!
//! The root is computed anew from the stored leaves and compared with every
//! head that the region has ever been known to sign: its checkpoint, the one
//! that the auditor kept from last time, and those that the other regions
//! cosigned. A region that shows the auditor another history than it showed its
//! witnesses is caught by the latter.

use model::RegionId;

use super::checks::Check;
use super::evidence::{Evidence, Inputs, LedgerEvidence, RegionKeys, UNWITNESSED_GRACE, WITNESS_QUORUM};
use super::leaf::{self, Checkpoint, Signature};
use super::report::Tally;
use super::tree::{self, Hash};

const FORKED: &str =
    "keep both notes as evidence, take the region out of service, and compare its disk with its last backup";
const DAMAGED: &str = "restore the ledger from a copy that its checkpoint covers, and find out what changed the disk";

/// What is asked of a region's ledger.
struct Chain<'i> {
    region: &'i RegionId,
    name: String,
    keys: &'i RegionKeys,
    ledger: &'i LedgerEvidence,
    hashes: Vec<Hash>,
}

pub(super) fn judge(tally: &mut Tally, inputs: &Inputs, region: &RegionId, evidence: &Evidence) {
    let Some(ledger) = &evidence.ledger else {
        tally.not_run(Check::Aud01, region, "it gave no ledger");
        tally.not_run(Check::Aud02, region, "it gave no ledger");
        return;
    };
    let Some(keys) = inputs.keys.get(region) else {
        tally.not_run(Check::Aud01, region, "no key of its ledger is known");
        tally.not_run(Check::Aud02, region, "no key of its ledger is known");
        return;
    };
    let hashes = ledger.leaves.iter().map(|bytes| tree::leaf(bytes)).collect();
    let chain = Chain { region, name: format!("repomind/{region}"), keys, ledger, hashes };
    tally.summary(region).leaves = ledger.leaves.len() as u64;
    tally.examined(Check::Aud01, ledger.leaves.len());
    chain.leaves(tally);
    chain.earlier_heads(tally, inputs);
    match &ledger.checkpoint {
        Some(note) => chain.own_head(tally, inputs, note),
        None => {
            tally.not_run(Check::Aud01, region, "it has no checkpoint to compare its leaves with");
            chain.unwitnessed_tail(tally, inputs, 0);
            tally.not_run(Check::Aud02, region, "it has no checkpoint");
        }
    }
}

impl Chain<'_> {
    /// Every leaf is readable, of this region, and where it says that it is.
    fn leaves(&self, tally: &mut Tally) {
        for (index, bytes) in self.ledger.leaves.iter().enumerate() {
            let wrong = match leaf::leaf(bytes) {
                Err(reason) => Some(reason),
                Ok(leaf) if leaf.region != self.region.as_str() => Some("it belongs to another region".to_owned()),
                Ok(leaf) if leaf.sequence != index as u64 => Some(format!("it says that it is leaf {}", leaf.sequence)),
                Ok(_) => None,
            };
            if let Some(wrong) = wrong {
                tally.find(Check::Aud01, self.region, bytes, format!("leaf {index}: {wrong}"), DAMAGED);
            }
        }
    }

    /// What is wrong with the leaves, if a checkpoint with this signed head is right.
    fn contradiction(&self, head: &Checkpoint) -> Option<String> {
        let stored = self.hashes.len();
        match usize::try_from(head.size).ok().and_then(|size| self.hashes.get(..size)) {
            None => Some(format!("it has {stored} leaves, but signed {}: leaves were taken back", head.size)),
            Some(leaves) if tree::root(leaves) != head.root => Some(format!(
                "its first {} leaves are not those that it signed: they were changed or forked",
                head.size
            )),
            Some(_) => None,
        }
    }

    /// Heads that the auditor and other regions remember.
    fn earlier_heads(&self, tally: &mut Tally, inputs: &Inputs) {
        let kept = inputs.remembered.get(self.region).map(|note| ("the auditor".to_owned(), None, note));
        let others = inputs.regions.iter().filter(|other| other.region != *self.region);
        let (mut cosigned, mut silent) = (Vec::new(), Vec::new());
        for other in others {
            match other.evidence.as_ref().ok().and_then(|evidence| evidence.witnessed.get(self.region)) {
                Some(note) => cosigned.push((other.region.to_string(), Some(&other.region), note)),
                None => silent.push(other.region.to_string()),
            }
        }
        if !silent.is_empty() {
            let text = format!("{}: no head of it was shown by {}", self.region, silent.join(", "));
            tally.limit(Check::Aud01, text);
        }
        for (who, witness, note) in kept.into_iter().chain(cosigned) {
            let head = leaf::checkpoint(note, &self.name);
            match head.map(|head| (head.signed(&self.name, &self.keys.ledger), head)) {
                Ok((Signature::Good, head)) => {
                    if let Some(wrong) = self.contradiction(&head) {
                        let rule = format!("{wrong} (by the head that {who} remembers)");
                        tally.find(Check::Aud01, self.region, note.as_bytes(), rule, FORKED);
                    }
                }
                // A note that the region did not sign accuses whoever shows it, not the region.
                Ok(_) | Err(_) => {
                    let rule = format!("the head of {} that {who} remembers is not signed by it", self.region);
                    let remedy = "find out who wrote this note; what the witness says cannot be relied on";
                    tally.find(Check::Aud01, witness.unwrap_or(self.region), note.as_bytes(), rule, remedy);
                }
            }
        }
    }

    /// The checkpoint that the region shows.
    fn own_head(&self, tally: &mut Tally, inputs: &Inputs, note: &str) {
        let head = match leaf::checkpoint(note, &self.name) {
            Ok(head) => head,
            Err(reason) => {
                tally.find(Check::Aud01, self.region, note.as_bytes(), reason, DAMAGED);
                tally.not_run(Check::Aud02, self.region, "its checkpoint cannot be read");
                return;
            }
        };
        if head.signed(&self.name, &self.keys.ledger) != Signature::Good {
            let rule = "its checkpoint is not signed with the key of its ledger";
            tally.find(Check::Aud01, self.region, note.as_bytes(), rule, FORKED);
            tally.not_run(Check::Aud02, self.region, "its checkpoint is not signed");
            return;
        }
        if let Some(wrong) = self.contradiction(&head) {
            tally.find(Check::Aud01, self.region, note.as_bytes(), wrong, DAMAGED);
        }
        tally.summary(self.region).checkpoint = Some(head.size);
        self.witnesses(tally, inputs, note, &head);
        self.unwitnessed_tail(tally, inputs, usize::try_from(head.size).unwrap_or(usize::MAX));
    }

    /// AUD-02: enough other regions have cosigned.
    fn witnesses(&self, tally: &mut Tally, inputs: &Inputs, note: &str, head: &Checkpoint) {
        tally.examined(Check::Aud02, 1);
        let mut witnesses = Vec::new();
        for (other, keys) in inputs.keys.iter().filter(|(other, _)| *other != self.region) {
            match head.cosigned(&format!("repomind/{other}/witness"), &keys.witness) {
                Signature::Good => witnesses.push(other.clone()),
                Signature::Absent => {}
                Signature::Bad => {
                    let rule = format!("the cosignature in the name of {other} does not verify");
                    tally.find(Check::Aud02, self.region, note.as_bytes(), rule, FORKED);
                }
            }
        }
        if witnesses.len() < WITNESS_QUORUM {
            let rule = format!("unwitnessed: {} of {WITNESS_QUORUM} other regions have cosigned", witnesses.len());
            let remedy = "see that the other regions reach this one, and why they do not cosign";
            tally.find(Check::Aud02, self.region, note.as_bytes(), rule, remedy);
        }
        tally.summary(self.region).witnesses = witnesses;
    }

    /// AUD-02: leaves past the checkpoint must not wait for one too long.
    fn unwitnessed_tail(&self, tally: &mut Tally, inputs: &Inputs, covered: usize) {
        let Some(tail) = self.ledger.leaves.get(covered..).filter(|tail| !tail.is_empty()) else { return };
        let oldest = tail.iter().filter_map(|bytes| leaf::leaf(bytes).ok()).map(|leaf| leaf.at).min();
        let waited = inputs.now.0.saturating_sub(oldest.unwrap_or(0));
        if waited > UNWITNESSED_GRACE.0 {
            let rule = format!("{} leaves are under no checkpoint, the oldest for {waited} ms", tail.len());
            let remedy = "see why the region signs no checkpoint";
            tally.find(Check::Aud02, self.region, &tail[0], rule, remedy);
        } else {
            let text = format!("{}: the last {} leaves are not under a checkpoint yet", self.region, tail.len());
            tally.limit(Check::Aud01, text);
        }
    }
}
