use proptest::prelude::*;

use super::*;

fn ledger_of<'e>(evidence: &'e mut [RegionEvidence], id: &str) -> &'e mut LedgerEvidence {
    of(evidence, id).ledger.as_mut().unwrap()
}

/// `eu-west` with another history of the same rows, signed with its own (stolen) key.
fn forked(deployment: &Deployment) -> Region {
    let honest = &deployment.0["eu-west"];
    let mut forked = Region::new("eu-west");
    forked.append(LedgerEvent::Evicted { count: 1 });
    let rows: Vec<(&[u8], Option<Vec<u8>>)> =
        honest.rows.iter().map(|(key, row)| (key.as_slice(), Some(row.clone()))).collect();
    forked.commit(&rows);
    while forked.leaves.len() < honest.leaves.len() {
        forked.append(LedgerEvent::Evicted { count: 1 });
    }
    forked.note = Some(forked.sign());
    forked.witnessed = honest.witnessed.clone();
    forked
}

proptest! {
    #[test]
    fn no_leaf_is_changed_dropped_swapped_or_inserted_unseen(a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), bit in 0_usize..8, how in 0..5) {
        let mut evidence = Deployment::honest().evidence();
        let leaves = &mut ledger_of(&mut evidence, "eu-west").leaves;
        let (a, b) = (a.index(leaves.len()), b.index(leaves.len()));
        match how {
            0 => { let at = b % leaves[a].len(); leaves[a][at] ^= 1 << bit; }
            1 => leaves.truncate(a),
            2 if a != b => leaves.swap(a, b),
            3 => { leaves.remove(a); }
            _ => { let again = leaves[b].clone(); leaves.insert(a, again); }
        }
        let report = audit_of(evidence);
        prop_assert!(report.findings.iter().any(|found| found.check == Check::Aud01 && found.region.as_str() == "eu-west"));
    }
}

#[test]
fn a_truncated_ledger_with_an_old_checkpoint_is_found_by_its_witnesses() {
    let old = Deployment::honest();
    let mut deployment = old.clone();
    deployment.at("eu-west").commit(&[(b"notes\0d", Some(stored(DataClass::Public, "fifth")))]);
    deployment.cosign();
    // The whole region is put back to its state of before, with its checkpoint of before and both cosignatures.
    let mut evidence = deployment.evidence();
    *of(&mut evidence, "eu-west") = old.evidence().remove(1).evidence.unwrap();
    let report = audit_of(evidence);
    assert_red(&report, "eu-west", &[Check::Aud01]);
    assert_eq!(report.findings.len(), 2, "both witnesses remember: {:#?}", found(&report));
    assert!(report.findings[0].rule.contains("leaves were taken back (by the head that ap-southeast remembers)"));
}

#[test]
fn a_split_view_signed_with_a_stolen_key_is_found() {
    let mut deployment = Deployment::honest();
    *deployment.at("eu-west") = forked(&deployment);
    // Neither witness has cosigned the other history.
    let report = deployment.audit();
    assert_red(&report, "eu-west", &[Check::Aud01, Check::Aud02]);
    assert!(report.findings.iter().any(|found| found.rule.contains("changed or forked (by the head that us-east")));
}

#[test]
fn the_auditors_own_memory_finds_a_fork_when_every_region_lies() {
    let honest = Deployment::honest();
    let remembered = BTreeMap::from([(region("eu-west"), honest.0["eu-west"].note.clone().unwrap())]);
    assert_eq!(audit_with(honest.evidence(), remembered.clone()).outcome, Outcome::Pass);
    let mut lying = honest.clone();
    *lying.at("eu-west") = forked(&honest);
    for id in REGIONS {
        lying.at(id).witnessed.clear();
        lying.at(id).witness = Region::new(id).witness;
    }
    lying.cosign();
    assert_eq!(lying.audit().outcome, Outcome::Pass, "without memory nothing can be seen");
    let report = audit_with(lying.evidence(), remembered);
    assert_red(&report, "eu-west", &[Check::Aud01]);
    assert!(report.findings[0].rule.contains("the auditor remembers"));
}

#[test]
fn a_checkpoint_signed_by_another_key_is_found() {
    let mut evidence = Deployment::honest().evidence();
    let note = ledger_of(&mut evidence, "eu-west").checkpoint.as_mut().unwrap();
    *note = note.replacen("\n8\n", "\n7\n", 1);
    let report = audit_of(evidence);
    assert_red(&report, "eu-west", &[Check::Aud01]);
    assert_eq!(report.findings[0].rule, "its checkpoint is not signed with the key of its ledger");

    // A witness that shows a note which the region never signed accuses itself, not the region.
    let mut evidence = Deployment::honest().evidence();
    let note = of(&mut evidence, "us-east").witnessed.get_mut(&region("eu-west")).unwrap();
    *note = note.replacen("\n8\n", "\n99\n", 1);
    let report = audit_of(evidence);
    assert_red(&report, "us-east", &[Check::Aud01]);
}

#[test]
fn a_checkpoint_with_one_witness_or_a_forged_one_is_found() {
    let mut deployment = Deployment::honest();
    let note = deployment.0["eu-west"].note.clone().unwrap();
    let line = note.lines().find(|line| line.contains("us-east/witness")).unwrap().to_owned() + "\n";
    deployment.at("eu-west").note = Some(note.replace(&line, ""));
    let report = deployment.audit();
    assert_red(&report, "eu-west", &[Check::Aud02]);
    assert_eq!(report.findings[0].rule, "unwitnessed: 1 of 2 other regions have cosigned");

    // The cosignature of another checkpoint, and one's own key in the place of a witness.
    let other = deployment.0["us-east"].note.clone().unwrap();
    let line_of = |note: &str, name: &str| note.lines().find(|line| line.contains(name)).unwrap().to_owned() + "\n";
    let forged = note.replace(&line, "") + &line_of(&other, "ap-southeast/witness").replace("ap-southeast", "us-east");
    deployment.at("eu-west").note = Some(forged);
    assert_red(&deployment.audit(), "eu-west", &[Check::Aud02]);
    let signature = |line: &str| line.rsplit_once(' ').unwrap().1.len();
    assert!(signature(&line) > 100, "a cosignature has its time before it");
    let swapped = note.replace(&line, "") + &line_of(&other, "ap-southeast/witness");
    deployment.at("eu-west").note = Some(swapped);
    assert_red(&deployment.audit(), "eu-west", &[Check::Aud02]);
}

#[test]
fn leaves_that_wait_too_long_for_a_checkpoint_are_found() {
    let mut deployment = Deployment::honest();
    deployment.at("eu-west").append(LedgerEvent::Evicted { count: 1 });
    assert_eq!(deployment.audit().outcome, Outcome::Pass, "a checkpoint may be a little behind");
    let old = UnixMillis(NOW.0 - UNWITNESSED_GRACE.0 - 1);
    let eu = deployment.at("eu-west");
    let record = eu.ledger.append(old, 7, LedgerEvent::Evicted { count: 1 });
    eu.leaves.push(record.bytes);
    let report = deployment.audit();
    assert_red(&report, "eu-west", &[Check::Aud02]);
    assert!(report.findings[0].rule.starts_with("2 leaves are under no checkpoint"));
}

#[test]
fn a_leaf_that_is_no_leaf_of_this_ledger_is_found_before_a_checkpoint_covers_it() {
    let honest = Deployment::honest();
    let misplaced = honest.0["eu-west"].leaves[0].clone();
    let mut other = honest.clone();
    other.at("us-east").append(LedgerEvent::Evicted { count: 1 });
    let foreign = other.0["us-east"].leaves.last().unwrap().clone();
    assert_eq!(other.0["us-east"].leaves.len(), honest.0["eu-west"].leaves.len(), "it stands at the right index");
    for (leaf, rule) in [
        (misplaced, "leaf 8: it says that it is leaf 0"),
        (foreign, "leaf 7: it belongs to another region"),
        (b"no leaf".to_vec(), "leaf 8: its checksum does not match"),
    ] {
        let mut evidence = honest.evidence();
        let ledger = ledger_of(&mut evidence, "eu-west");
        let at = rule[5..6].parse().unwrap();
        ledger.leaves.truncate(at);
        ledger.leaves.push(leaf);
        let report = audit_of(evidence);
        assert!(found(&report).contains(&(Check::Aud01, "eu-west", rule)), "{:#?}", found(&report));
    }
}

#[test]
fn a_witness_that_shows_no_head_is_named_in_the_report() {
    let mut evidence = Deployment::honest().evidence();
    of(&mut evidence, "us-east").witnessed.clear();
    let report = audit_of(evidence);
    let run = report.checks.iter().find(|run| run.check == Check::Aud01).unwrap();
    assert_eq!(
        run.limits,
        ["ap-southeast: no head of it was shown by us-east", "eu-west: no head of it was shown by us-east"]
    );
}

#[test]
fn a_row_planted_changed_or_put_back_past_the_ledger_is_found() {
    let plant = |change: fn(&mut Region)| {
        let mut deployment = Deployment::honest();
        change(deployment.at("eu-west"));
        let report = deployment.audit();
        assert_red(&report, "eu-west", &[Check::Aud03]);
        report.findings[0].rule.clone()
    };
    let planted = plant(|eu| drop(eu.rows.insert(b"notes\0z".to_vec(), stored(DataClass::Public, "planted"))));
    assert_eq!(planted, "no leaf of the ledger covers the row");
    let changed = plant(|eu| drop(eu.rows.insert(b"notes\0b".to_vec(), stored(DataClass::Public, "changed"))));
    assert_eq!(changed, "no leaf of the ledger covers the row");
    let put_back = plant(|eu| drop(eu.rows.insert(b"notes\0a".to_vec(), stored(DataClass::Public, "first"))));
    assert_eq!(put_back, "the row is in the state of leaf 2; a later commit left another");
    let moved = plant(|eu| drop(eu.rows.insert(b"notes\0z".to_vec(), stored(DataClass::Public, "second"))));
    assert_eq!(moved, "no leaf of the ledger covers the row", "the image of another record covers nothing");
    let removed = plant(|eu| drop(eu.rows.remove(b"notes\0b".as_slice())));
    assert_eq!(removed, "the row that leaf 2 committed is not stored, and no leaf removed it");
    let revived = plant(|eu| drop(eu.rows.insert(b"notes\0c".to_vec(), stored(DataClass::Public, "fourth"))));
    assert_eq!(revived, "the row is in the state of leaf 5; a later commit left another");
}

#[test]
fn images_that_are_not_those_of_the_leaf_cover_nothing() {
    let hasher = RowKeyHasher::new(&SECRET);
    let planted = stored(DataClass::Public, "planted");
    let mut deployment = Deployment::honest();
    let eu = deployment.at("eu-west");
    eu.rows.insert(b"notes\0z".to_vec(), planted.clone());
    let mut images: CommitImages = codec::decode(&eu.images[&2]).unwrap();
    images.0.extend(CommitImages::of(&hasher, [(b"notes\0z".as_slice(), Some(planted.as_slice()))]).0);
    images.0.sort_by_key(|image| image.record);
    eu.images.insert(2, codec::encode(&images));
    let report = deployment.audit();
    assert_red(&report, "eu-west", &[Check::Aud03]);
    let rules: BTreeSet<&str> = report.findings.iter().map(|found| found.rule.as_str()).collect();
    assert!(rules.contains("the list of images of leaf 2 has 3 images of 2"), "{rules:?}");
    assert!(rules.contains("no leaf of the ledger covers the row"), "{rules:?}");

    // As many images as the leaf says, one of them another.
    let mut deployment = Deployment::honest();
    let eu = deployment.at("eu-west");
    eu.rows.insert(b"notes\0b".to_vec(), planted.clone());
    let rows = [(b"notes\0a".as_slice(), Some(b"".as_slice())), (b"notes\0b", Some(planted.as_slice()))];
    eu.images.insert(2, codec::encode(&CommitImages::of(&hasher, rows)));
    let report = deployment.audit();
    assert_red(&report, "eu-west", &[Check::Aud03]);
    let rules: BTreeSet<&str> = report.findings.iter().map(|found| found.rule.as_str()).collect();
    assert!(rules.contains("the list of images of leaf 2 has another root than its leaf"), "{rules:?}");
    assert!(rules.contains("no leaf of the ledger covers the row"), "{rules:?}");

    let mut deployment = Deployment::honest();
    let list = deployment.0["eu-west"].images[&2].clone();
    deployment.at("eu-west").images.insert(0, list);
    let report = deployment.audit();
    assert_red(&report, "eu-west", &[Check::Aud03]);
    assert_eq!(report.findings[0].rule, "images are given for leaf 0, which is no commit");
}

#[test]
fn a_list_whose_rows_were_all_written_again_may_be_dropped_and_no_other() {
    let mut deployment = Deployment::honest();
    deployment.at("eu-west").images.remove(&5).unwrap();
    let report = deployment.audit();
    assert_eq!(found(&report), [], "leaf 5 wrote one row, which leaf 6 removed");
    let run = report.checks.iter().find(|run| run.check == Check::Aud03).unwrap();
    assert_eq!(run.limits, ["eu-west: 1 commits came without their images; nothing rests on them"]);
    deployment.at("eu-west").images.remove(&2).unwrap();
    assert_red(&deployment.audit(), "eu-west", &[Check::Aud03]);
}
