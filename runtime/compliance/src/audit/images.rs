//! AUD-03: every stored row is in the ledger.
//!
//! A commit's leaf holds one root over the images of the rows that it wrote. The
//! region supplies the images; their root is computed anew and must be the
//! leaf's, or they count for nothing. Then every stored row must be the image
//! that the latest commit of that record left.
//!
//! What this proves: no row was planted, changed, put back to an older state or
//! removed on the disk without a leaf in the ledger, and AUD-01 and AUD-02 prove
//! that no leaf was added, changed or taken back under what the other regions
//! have cosigned.
//!
//! What it does not prove: that a commit was right to write what it wrote (that
//! is for RES-01 and the labels); that rows are whole where the region itself,
//! with its signing key, wrote leaves for what it planted; anything about
//! leaves that no checkpoint covers yet, which whoever can write the disk can
//! write too (they are counted among the limits); or a list that is missing
//! (counted too): a region may drop a list only once every row in it was
//! written again.

use std::collections::BTreeMap;

use model::RegionId;

use super::checks::Check;
use super::evidence::{Evidence, Inputs, LedgerEvidence};
use super::leaf::{self, Event};
use super::report::Tally;
use super::tree::{self, Hash};

/// The content of an image whose row was removed.
const REMOVED: Hash = [0; 32];
const PLANTED: &str = "compare the record with the other regions; find out which path wrote it past the ledger";

/// The last image of each record, and whether another image of it was committed before.
#[derive(Default)]
struct Committed {
    /// By record: contents in the order of their commits, with the leaf.
    images: BTreeMap<Hash, Vec<(Hash, u64)>>,
    missing: u64,
}

pub(super) fn judge(tally: &mut Tally, inputs: &Inputs, region: &RegionId, evidence: &Evidence) {
    let Some(ledger) = &evidence.ledger else {
        tally.not_run(Check::Aud03, region, "it gave no ledger");
        return;
    };
    let mut committed = committed(tally, region, ledger);
    tally.examined(Check::Aud03, evidence.rows.len());
    let covered = inputs.keys.get(region).and_then(|keys| signed_size(region, &keys.ledger, ledger)).unwrap_or(0);
    let mut unsigned = 0_u64;
    for row in &evidence.rows {
        let (record, content) = (tally.record(&row.key), tree::sha256(&row.envelope));
        let images = committed.images.remove(&record).unwrap_or_default();
        let last = images.last();
        let rule = if last.is_some_and(|(last, _)| *last == content) {
            unsigned += u64::from(last.is_some_and(|(_, leaf)| *leaf >= covered));
            continue;
        } else if let Some((_, leaf)) = images.iter().rev().find(|(image, _)| *image == content) {
            format!("the row is in the state of leaf {leaf}; a later commit left another")
        } else {
            "no leaf of the ledger covers the row".to_owned()
        };
        tally.find_record(Check::Aud03, region, Some(&record), &row.envelope, None, rule, PLANTED);
    }
    for (record, images) in committed.images {
        if let Some((content, leaf)) = images.last().filter(|(content, _)| *content != REMOVED) {
            let rule = format!("the row that leaf {leaf} committed is not stored, and no leaf removed it");
            let remedy = "restore the record from another region, and find out what removed it past the ledger";
            tally.find_record(Check::Aud03, region, Some(&record), content, None, rule, remedy);
        }
    }
    if committed.missing > 0 {
        let text = format!("{region}: {} commits came without their images; nothing rests on them", committed.missing);
        tally.limit(Check::Aud03, text);
    }
    if unsigned > 0 {
        tally.limit(Check::Aud03, format!("{region}: {unsigned} rows rest on leaves that no signed checkpoint covers"));
    }
}

/// The size of the checkpoint, where the region has signed it.
fn signed_size(region: &RegionId, key: &Hash, ledger: &LedgerEvidence) -> Option<u64> {
    let name = format!("repomind/{region}");
    let head = leaf::checkpoint(ledger.checkpoint.as_deref()?, &name).ok()?;
    (head.signed(&name, key) == leaf::Signature::Good).then_some(head.size)
}

/// The images whose root is in a leaf.
fn committed(tally: &mut Tally, region: &RegionId, ledger: &LedgerEvidence) -> Committed {
    let mut committed = Committed::default();
    let mut lists = ledger.images.clone();
    for (index, bytes) in ledger.leaves.iter().enumerate() {
        let index = index as u64;
        let Ok(leaf::Leaf { event: Event::Committed { entries, root }, .. }) = leaf::leaf(bytes) else { continue };
        let Some(list) = lists.remove(&index) else {
            committed.missing += 1;
            continue;
        };
        let images = match leaf::images(&list) {
            Ok(images) if images.len() as u64 != entries => Err(format!("has {} images of {entries}", images.len())),
            Ok(images) if !images.windows(2).all(|two| two[0].0 < two[1].0) => Err("is out of order".to_owned()),
            Ok(images) if image_root(&images) != root => Err("has another root than its leaf".to_owned()),
            Ok(images) => Ok(images),
            Err(reason) => Err(format!("cannot be read: {reason}")),
        };
        match images {
            Ok(images) => images.into_iter().for_each(|(record, content)| {
                committed.images.entry(record).or_default().push((content, index));
            }),
            Err(wrong) => {
                let rule = format!("the list of images of leaf {index} {wrong}");
                let remedy = "restore the list from a backup; until then the rows of that commit are not covered";
                tally.find(Check::Aud03, region, &list, rule, remedy);
            }
        }
    }
    for (index, list) in lists {
        let rule = format!("images are given for leaf {index}, which is no commit");
        let remedy = "find out who wrote the list; it covers no row";
        tally.find(Check::Aud03, region, &list, rule, remedy);
    }
    committed
}

/// The root over images: each the leaf hash of record and content.
fn image_root(images: &[(Hash, Hash)]) -> Hash {
    let hashes: Vec<Hash> = images.iter().map(|(record, content)| tree::leaf(&[*record, *content].concat())).collect();
    tree::root(&hashes)
}
