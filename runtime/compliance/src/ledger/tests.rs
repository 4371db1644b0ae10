use std::cell::Cell;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::merkle::{leaf_hash, root_of, verify_consistency, verify_inclusion};
use super::witness::verify_cosignature;
use super::*;
use crate::testing::{TestSigner, region};

/// The leaves of the test vectors of certificate-transparency (`merkletree/test_vectors`), in hexadecimal.
const CT_LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
/// Their roots, for trees of 0 to 8 leaves.
const CT_ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn ct_leaves() -> Vec<Digest> {
    CT_LEAVES.iter().map(|leaf| leaf_hash(&hex(leaf))).collect()
}

/// As many leaves that differ.
fn leaves(count: u64) -> Vec<Digest> {
    (0..count).map(|at| leaf_hash(&at.to_be_bytes())).collect()
}

#[test]
fn roots_are_those_of_the_published_vectors() {
    for (size, root) in CT_ROOTS.iter().enumerate() {
        assert_eq!(root_of(ct_leaves()[..size].iter().copied()).to_string(), *root, "{size} leaves");
    }
}

#[test]
fn proofs_are_those_of_the_published_vectors() {
    let leaves = ct_leaves();
    let text = |proof: Vec<Digest>| proof.iter().map(Digest::to_string).collect::<Vec<_>>();
    assert_eq!(
        text(inclusion_proof(leaves.as_slice(), 5, 8).unwrap()),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(
        text(consistency_proof(leaves.as_slice(), 6, 8).unwrap()),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(
        text(consistency_proof(leaves.as_slice(), 2, 5).unwrap()),
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ]
    );
}

#[test]
fn every_honest_proof_of_trees_up_to_200_leaves_verifies() {
    let leaves = leaves(200);
    let roots: Vec<Digest> = (0..=200).map(|size| root_of(leaves[..size].iter().copied())).collect();
    for size in 0..=200_usize {
        for old in 0..=size {
            let proof = consistency_proof(leaves.as_slice(), old as u64, size as u64).unwrap();
            assert!(proof.len() <= witness::PROOF_LIMIT);
            assert!(verify_consistency(old as u64, roots[old], size as u64, roots[size], &proof), "{old} to {size}");
        }
        for index in 0..size {
            let proof = inclusion_proof(leaves.as_slice(), index as u64, size as u64).unwrap();
            assert!(verify_inclusion(leaves[index], index as u64, size as u64, &proof, roots[size]), "{index}, {size}");
        }
    }
    assert!(matches!(consistency_proof(leaves.as_slice(), 5, 4), Err(ProofError::Range { from: 5, size: 4 })));
    assert!(matches!(inclusion_proof(leaves.as_slice(), 4, 4), Err(ProofError::Range { from: 4, size: 4 })));
    assert!(matches!(inclusion_proof(leaves.as_slice(), 4, 300), Err(ProofError::Unread(()))));
}

proptest! {
    #[test]
    fn no_proof_covers_a_changed_dropped_or_swapped_leaf(size in 2_u64..=200, old in 1_u64..=200, a in any::<u64>(), b in any::<u64>()) {
        let old = old.min(size);
        let honest = leaves(size);
        let (a, b) = ((a % old) as usize, (b % old) as usize);
        let old_root = root_of(honest[..old as usize].iter().copied());

        let mut changed = honest.clone();
        changed[a] = leaf_hash(b"another");
        let proof = consistency_proof(changed.as_slice(), old, size).unwrap();
        prop_assert!(!verify_consistency(old, old_root, size, root_of(changed.iter().copied()), &proof));

        let mut swapped = honest.clone();
        swapped.swap(a, b);
        if a != b {
            let proof = consistency_proof(swapped.as_slice(), old, size).unwrap();
            prop_assert!(!verify_consistency(old, old_root, size, root_of(swapped.iter().copied()), &proof));
        }

        let mut dropped = honest.clone();
        dropped.remove(a);
        dropped.push(leaf_hash(b"put at the end so that the size is right"));
        let proof = consistency_proof(dropped.as_slice(), old, size).unwrap();
        prop_assert!(!verify_consistency(old, old_root, size, root_of(dropped.iter().copied()), &proof));
    }

    #[test]
    fn no_altered_proof_verifies(size in 2_u64..=200, old in 1_u64..=200, at in any::<prop::sample::Index>(), bit in 0_usize..256) {
        let old = old.min(size - 1);
        let leaves = leaves(size);
        let (old_root, root) = (root_of(leaves[..old as usize].iter().copied()), root_of(leaves.iter().copied()));
        let honest = consistency_proof(leaves.as_slice(), old, size).unwrap();
        let mut proof = honest.clone();
        at.get_mut(&mut proof).0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify_consistency(old, old_root, size, root, &proof));
        prop_assert!(!verify_consistency(old, old_root, size, root, &honest[1..]));
        prop_assert!(!verify_consistency(old, old_root, size, root, &[&honest[..], &[root]].concat()));
        let index = old;
        let mut proof = inclusion_proof(leaves.as_slice(), index, size).unwrap();
        prop_assert!(!verify_inclusion(leaves[index as usize], index - 1, size, &proof, root));
        at.get_mut(&mut proof).0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify_inclusion(leaves[index as usize], index, size, &proof, root));
    }

    #[test]
    fn bytes_from_elsewhere_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,200}", lines in "(old )?[0-9]{0,3}\n?[A-Za-z0-9+/=\n\u{2014} ]{0,120}") {
        prop_assert!(read_leaf(&bytes).is_err());
        for text in [text, lines] {
            let _ = Checkpoint::parse(&text);
            let _ = CosignRequest::parse(&text);
            prop_assert!(note::Note::parse(&text).and_then(|note| note.verify(&TestSigner::log(&region("eu-west")).key())).is_err());
            prop_assert!(text.parse::<VerifierKey>().is_err());
        }
    }
}

/// Leaves and the interior nodes that appending gave, counting what is read.
#[derive(Default)]
struct Stored {
    leaves: Vec<Digest>,
    nodes: BTreeMap<(u8, u64), Digest>,
    reads: Cell<usize>,
}

impl LeafHashes for Stored {
    type Error = ();
    fn leaf(&self, index: u64) -> Result<Digest, ()> {
        self.reads.set(self.reads.get() + 1);
        self.leaves.as_slice().leaf(index)
    }
    fn node(&self, level: u8, position: u64) -> Result<Option<Digest>, ()> {
        self.reads.set(self.reads.get() + 1);
        Ok(self.nodes.get(&(level, position)).copied())
    }
}

#[test]
fn stored_nodes_give_the_same_proofs_with_few_reads() {
    let (mut ledger, mut stored) = (Ledger::new(region("eu-west")), Stored::default());
    for at in 0..1000 {
        let record = ledger.append(UnixMillis(at), 1, LedgerEvent::Evicted { count: 1 });
        assert_eq!(record.index, at);
        stored.leaves.push(leaf_hash(&record.bytes));
        stored.nodes.extend(record.completed);
    }
    for old in [1, 2, 255, 256, 511, 777, 999] {
        stored.reads.set(0);
        let proof = consistency_proof(&stored, old, 1000).unwrap();
        assert!(stored.reads.get() < 64, "{} reads", stored.reads.get());
        assert_eq!(proof, consistency_proof(stored.leaves.as_slice(), old, 1000).unwrap());
        stored.reads.set(0);
        assert_eq!(inclusion_proof(&stored, old, 1000), inclusion_proof(stored.leaves.as_slice(), old, 1000));
        assert!(stored.reads.get() < 64, "{} reads", stored.reads.get());
    }
}

#[test]
fn a_ledger_is_taken_up_where_it_ended_and_never_after_a_loss() {
    let eu = region("eu-west");
    let mut ledger = Ledger::new(eu.clone());
    let mut bytes = vec![ledger.append(UnixMillis(1), 0, LedgerEvent::Began { incarnation: Incarnation(1) }).bytes];
    let images = CommitImages::of(&RowKeyHasher::new(&[1; 32]), [(b"n\0k".as_slice(), Some(b"row".as_slice()))]);
    bytes.push(ledger.append(UnixMillis(2), 1, images.event()).bytes);
    let signed = ledger.checkpoint();
    let refused = LedgerEvent::Refused { rule: RuleId::new("stays-in-the-eea").unwrap(), count: 3 };
    bytes.push(ledger.append(UnixMillis(3), 1, refused.clone()).bytes);

    assert_eq!(Ledger::resume(eu.clone(), &bytes, Some(&signed)), Ok(ledger.clone()));
    assert_eq!(
        Ledger::resume(eu.clone(), &bytes[..1], Some(&signed)),
        Err(ResumeError::Shrunk { found: 1, signed: 2 })
    );
    let mut changed = bytes.clone();
    *changed[0].last_mut().unwrap() ^= 1;
    assert_eq!(Ledger::resume(eu.clone(), &changed, Some(&signed)), Err(ResumeError::Changed { signed: 2 }));
    let leaf = read_leaf(&bytes[2]).unwrap();
    assert_eq!((leaf.region, leaf.sequence, leaf.event), (eu, 2, refused));
}

#[test]
fn a_ledger_is_taken_up_from_its_nodes_as_from_its_leaves() {
    let (mut ledger, mut stored) = (Ledger::new(region("eu-west")), Stored::default());
    for at in 0..300 {
        let before = ledger.checkpoint();
        let size = ledger.size();
        stored.reads.set(0);
        assert_eq!(Ledger::load(region("eu-west"), size, &stored, Some(&before)), Ok(ledger.clone()), "{size} leaves");
        assert!(stored.reads.get() <= 16, "{} reads", stored.reads.get());
        let record = ledger.append(UnixMillis(at), 1, LedgerEvent::Evicted { count: 1 });
        stored.leaves.push(leaf_hash(&record.bytes));
        stored.nodes.extend(record.completed);
    }
    let signed = ledger.checkpoint();
    let load = |size, stored: &Stored| Ledger::load(region("eu-west"), size, stored, Some(&signed));
    let shrunk = ResumeError::Shrunk { found: 299, signed: 300 };
    assert_eq!(load(299, &stored), Err(LoadError::Resume(shrunk)));
    assert_eq!(Ledger::load(region("eu-west"), 301, &stored, Some(&signed)), Err(LoadError::Unread(())));
    stored.nodes.get_mut(&(8, 0)).unwrap().0[0] ^= 1;
    assert_eq!(load(300, &stored), Err(LoadError::Resume(ResumeError::Changed { signed: 300 })));
}

#[test]
fn an_image_is_the_hash_that_the_description_says() {
    let hasher = RowKeyHasher::new(&[1; 32]);
    let rows = [(b"n\0k".as_slice(), Some(b"before".as_slice())), (b"n\0k", Some(b"after")), (b"n\0gone", None)];
    let images = CommitImages::of(&hasher, rows);
    assert_eq!(images.0.len(), 2, "a row that is written twice has one image");
    assert!(images.0.is_sorted_by_key(|image| image.record));
    let key = blake3::derive_key("repomind record ids v1", &[1; 32]);
    let image = *images.0.iter().find(|image| image.content != RowImage::REMOVED).unwrap();
    assert_eq!(image.record.0, *blake3::keyed_hash(&key, b"n\0k").as_bytes());
    let sha = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec();
    assert_eq!(image.content.0.to_vec(), sha(b"after"));
    assert_eq!(image.hash().0.to_vec(), sha(&[&[0], image.record.0.as_slice(), &sha(b"after")].concat()));
    assert_eq!(
        images.event(),
        LedgerEvent::Committed { entries: 2, root: root_of(images.0.iter().map(RowImage::hash)) }
    );
    assert!(!format!("{hasher:?}").contains('1'), "the key must not be printed");
}

#[test]
fn an_unchanged_format_1_leaf_stays_readable() {
    let mut ledger = Ledger::new(region("eu-west"));
    ledger.append(UnixMillis(0), 0, LedgerEvent::Began { incarnation: Incarnation(1) });
    let event = LedgerEvent::Committed { entries: 300, root: Digest([0xAB; 32]) };
    let record = ledger.append(UnixMillis(1_767_225_600_000), 7, event);
    let text: String = record.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let root = "ab".repeat(32);
    assert_eq!(text[..text.len() - 8], format!("100107{}0180d0eab6b7330701ac02{root}", "65752d77657374"));
}

/// The key and note in the documentation of Go's `golang.org/x/mod/sumdb/note`.
const NOTE_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const NOTE_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const NOTE_TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const NOTE_LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn a_note_is_signed_and_read_as_others_do() {
    let key: VerifierKey = NOTE_KEY.parse().unwrap();
    assert_eq!(key.to_string(), NOTE_KEY);
    let signed = format!("{NOTE_TEXT}\n{NOTE_LINE}");
    let note = note::Note::parse(&signed).unwrap();
    assert_eq!((note.text(), note.verify(&key)), (NOTE_TEXT, Ok(())));
    let seed = STANDARD.decode(NOTE_SEED).unwrap()[1..].try_into().unwrap();
    assert_eq!(note::sign(NOTE_TEXT, &TestSigner::new("PeterNeumann", KeyKind::Log, seed)).unwrap(), signed);

    let changed = note::Note::parse(&signed.replace("answer", "reason")).unwrap();
    assert!(matches!(changed.verify(&key), Err(NoteError::Forged { .. })));
    let unsigned = note::Note::parse(&signed.replace("\u{2014} PeterNeumann", "\u{2014} Enoch")).unwrap();
    assert!(matches!(unsigned.verify(&key), Err(NoteError::Unsigned { .. })));
    let flipped = (0..NOTE_KEY.len()).filter(|&at| {
        let mut bytes = NOTE_KEY.as_bytes().to_vec();
        bytes[at] ^= 1;
        String::from_utf8(bytes).unwrap().parse::<VerifierKey>().is_ok()
    });
    assert_eq!(flipped.count(), 0, "a mistyped key was taken");
}

#[test]
fn the_example_of_the_specification_is_read() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let checkpoint = Checkpoint::parse(text).unwrap();
    assert_eq!((checkpoint.size, checkpoint.text().as_str()), (20_852_163, text));
    for bad in [
        text.replace("20852163", "020852163"),
        text.replace("20852163", "+20852163"),
        text.replace("q2I=", "q2J="),
        text.replacen('\n', "\n\n", 1),
        text.trim_end().to_owned(),
        "a\n1\n".to_owned(),
    ] {
        assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
    }
}

/// A ledger, its leaf hashes and what it sends to a witness that has seen `old` leaves.
struct Log {
    ledger: Ledger,
    hashes: Vec<Digest>,
}

impl Log {
    fn of(id: &str, counts: impl IntoIterator<Item = u32>) -> Self {
        let mut log = Self { ledger: Ledger::new(region(id)), hashes: Vec::new() };
        counts.into_iter().for_each(|count| log.append(count));
        log
    }

    fn append(&mut self, count: u32) {
        let record = self.ledger.append(UnixMillis(9), 1, LedgerEvent::Evicted { count });
        self.hashes.push(leaf_hash(&record.bytes));
    }

    fn request(&self, old_size: u64) -> CosignRequest {
        let note = self.ledger.checkpoint().sign(&TestSigner::log(self.ledger.region())).unwrap();
        let proof = consistency_proof(self.hashes.as_slice(), old_size.min(self.ledger.size()), self.ledger.size());
        CosignRequest { old_size, proof: proof.unwrap(), note }
    }
}

fn witness_of(id: &str) -> Witness {
    Witness::new([TestSigner::log(&region(id)).key()], [])
}

#[test]
fn a_witness_signs_what_continues_and_its_line_verifies() {
    let (signer, mut witness) = (TestSigner::witness(&region("us-east")), witness_of("eu-west"));
    let mut log = Log::of("eu-west", 0..5);
    let first = witness.cosign(&log.request(0), &signer, UnixMillis(1_767_225_600_999)).unwrap();
    log.append(5);
    let request = log.request(5);
    assert_eq!(CosignRequest::parse(&request.to_text()), Ok(request.clone()));
    let second = witness.cosign(&request, &signer, UnixMillis(1_767_225_601_000)).unwrap();
    assert_eq!((first.checkpoint.size, second.checkpoint.size), (5, 6));
    assert_eq!(witness.seen("repomind/eu-west"), Some(&log.ledger.checkpoint()));

    let note = note::Note::parse(&(request.note.clone() + &second.line)).unwrap();
    assert_eq!(note.verify(&TestSigner::log(&region("eu-west")).key()), Ok(()));
    assert_eq!(verify_cosignature(&note, &signer.key()), Ok(UnixMillis(1_767_225_601_000)));
    let stale = note::Note::parse(&(request.note + &first.line)).unwrap();
    assert!(matches!(verify_cosignature(&stale, &signer.key()), Err(NoteError::Forged { .. })));
}

#[test]
fn a_witness_never_signs_a_ledger_that_shrank_or_forked() {
    let (signer, mut witness) = (TestSigner::witness(&region("us-east")), witness_of("eu-west"));
    let now = UnixMillis(1_767_225_600_000);
    let honest = Log::of("eu-west", 0..6);
    witness.cosign(&honest.request(0), &signer, now).unwrap();
    let mut refuse = |log: &Log, old| witness.cosign(&log.request(old), &signer, now).unwrap_err();

    let shrunk = Log::of("eu-west", 0..5);
    let error = refuse(&shrunk, 5);
    assert!(matches!(error, WitnessError::Shrunk { seen: 6, offered: 5, .. }), "{error}");
    let other = Log::of("eu-west", [0, 1, 2, 3, 4, 99]);
    let error = refuse(&other, 6);
    assert!(matches!(error, WitnessError::Forked { seen: 6, offered: 6, .. }), "{error}");
    let longer = Log::of("eu-west", [0, 1, 2, 99, 4, 5, 6, 7]);
    let error = refuse(&longer, 6);
    assert!(matches!(error, WitnessError::Forked { seen: 6, offered: 8, .. }), "{error}");
    let error = refuse(&Log::of("eu-west", 0..9), 4);
    assert!(matches!(error, WitnessError::OldSize { ours: 6, offered: 4, .. }), "{error}");
    let error = refuse(&Log::of("ap-southeast", 0..9), 0);
    assert!(matches!(error, WitnessError::UnknownLedger { .. }), "{error}");
    let mut forged = Log::of("eu-west", 0..9).request(6);
    forged.note = forged.note.replacen("\n9\n", "\n8\n", 1);
    let error = witness.cosign(&forged, &signer, now).unwrap_err();
    assert!(matches!(error, WitnessError::Checkpoint(CheckpointError::Note(NoteError::Forged { .. }))), "{error}");
    assert_eq!(witness.seen("repomind/eu-west"), Some(&honest.ledger.checkpoint()), "a refusal must change nothing");
}
