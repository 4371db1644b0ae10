//! Records that change their labels, and what stays behind where they were.

use data::{DataError, Write};
use model::RegionId;
use model::record::{Content, DataClass, Shipment};
use model::version::{CausalContext, PositionVector};

use crate::harness::{
    AP, EU, Site, US, address, carry, delete, open_among, open_with, plans, region, row, rows_contain, ship, value,
    write,
};

/// The regions that the error names, where it says that the record lives elsewhere.
fn lives_in<T: std::fmt::Debug>(outcome: Result<T, DataError>) -> Vec<String> {
    match outcome {
        Err(DataError::Elsewhere { regions, .. }) => regions.iter().map(RegionId::to_string).collect(),
        other => panic!("not said to live elsewhere: {other:?}"),
    }
}

async fn everywhere(sites: &[Site; 3]) {
    for _ in 0..2 {
        for from in sites {
            for to in sites.iter().filter(|to| to.id != from.id) {
                carry(from, to).await;
            }
        }
    }
}

#[tokio::test]
async fn a_record_that_became_personal_is_no_longer_read_abroad() {
    let sites = Site::three();
    let [eu, us, ap] = &sites;
    eu.data.write(write("profile", "for-everyone", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    assert_eq!(value(&us.data, "profile").await.as_deref(), Some("for-everyone"));

    eu.data.write(write("profile", "canary", DataClass::Personal)).await.unwrap();
    everywhere(&sites).await;
    assert_eq!(value(&eu.data, "profile").await.as_deref(), Some("canary"));
    for away in [us, ap] {
        assert_eq!(lives_in(away.data.read(&address("profile")).await), [EU]);
        assert!(away.data.list(&address("profile").namespace, "", None, 10).unwrap().is_empty());
        assert!(!rows_contain(&away.data, "for-everyone") && !rows_contain(&away.data, "canary"));
        let row = row(&away.data, "profile").unwrap();
        assert!(row.siblings.iter().all(|sibling| matches!(sibling.content, Content::Evicted { .. })), "{row:?}");
        // Nothing is stored over it either: not a value, not a delete.
        assert_eq!(lives_in(away.data.write(write("profile", "mine", DataClass::Public)).await), [EU]);
        assert_eq!(lives_in(away.data.write(delete("profile", DataClass::Public)).await), [EU]);
        assert!(!rows_contain(&away.data, "mine"));
    }
    assert_eq!(us.data.digests().unwrap(), ap.data.digests().unwrap());

    // Back among everyone, by a write where it lives.
    eu.data.write(write("profile", "public-again", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    for site in &sites {
        assert_eq!(value(&site.data, "profile").await.as_deref(), Some("public-again"), "{}", site.id);
        assert_eq!(site.data.digests().unwrap(), eu.data.digests().unwrap());
    }
}

#[tokio::test]
async fn a_region_that_never_had_the_key_does_not_learn_its_name() {
    let sites = Site::three();
    let [eu, us, ap] = &sites;
    eu.data.write(write("jane-doe", "1", DataClass::SourceCode)).await.unwrap();
    everywhere(&sites).await;
    eu.data.write(write("jane-doe", "2", DataClass::Personal)).await.unwrap();
    everywhere(&sites).await;
    assert_eq!(lives_in(ap.data.read(&address("jane-doe")).await), [EU]);
    assert_eq!(value(&us.data, "jane-doe").await, None);
    assert!(!rows_contain(&us.data, "jane-doe"));
    for sender in [eu, ap] {
        let sent = sender.data.outgoing(&region(US), &PositionVector::new(), 100_000).unwrap();
        assert!(sent.iter().all(|shipment| matches!(shipment, Shipment::Skip { .. })), "{sent:?}");
    }

    // A marker that is sent all the same finds no key that it could belong to.
    let marker = eu.data.outgoing(&region(AP), &PositionVector::new(), 100_000).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let lone = open_among(US, &[EU, US, AP], fresh.path());
    let skip = |shipment: &Shipment| Shipment::Skip {
        position: shipment.position().clone(),
        committed_at: shipment.committed_at(),
    };
    assert!(matches!(&marker[1], Shipment::Entry(entry) if entry.sibling.is_marker()), "{marker:?}");
    lone.receive(&region(EU), vec![skip(&marker[0]), marker[1].clone()]).await.unwrap();
    assert_eq!(lone.vector().offset(&region(EU), marker[1].position().incarnation), 2);
    assert!(!rows_contain(&lone, "jane-doe"));
}

#[tokio::test]
async fn a_delete_with_stricter_labels_takes_the_old_value_with_it_everywhere() {
    let sites = Site::three();
    let [eu, us, ap] = &sites;
    eu.data.write(write("k", "for-everyone", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    eu.data.write(delete("k", DataClass::Personal)).await.unwrap();
    everywhere(&sites).await;
    assert_eq!(value(&eu.data, "k").await, None);
    for away in [us, ap] {
        assert_eq!(lives_in(away.data.read(&address("k")).await), [EU]);
        assert!(!rows_contain(&away.data, "for-everyone"));
    }
}

#[tokio::test]
async fn a_write_made_abroad_at_the_same_time_is_neither_lost_nor_taken_for_the_moved_one() {
    let sites = Site::three();
    let [eu, us, _] = &sites;
    eu.data.write(write("k", "old", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    eu.data.write(write("k", "canary", DataClass::Personal)).await.unwrap();
    us.data.write(write("k", "from-us", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    // The write of us-east is the later one: it is shown, beside a marker there and beside the record in eu-west.
    assert_eq!(value(&us.data, "k").await.as_deref(), Some("from-us"));
    assert_eq!(row(&us.data, "k").unwrap().siblings.len(), 2);
    assert_eq!(eu.data.read(&address("k")).await.unwrap().unwrap().siblings, 2);

    // Another write in us-east replaces what is there, and not what it cannot see, whatever its context says.
    let seen = us.data.read(&address("k")).await.unwrap().unwrap().context;
    let again = Write { context: Some(seen), ..write("k", "from-us-again", DataClass::Public) };
    us.data.write(again).await.unwrap();
    everywhere(&sites).await;
    let values: Vec<bool> = ["canary", "from-us-again"].map(|value| rows_contain(&eu.data, value)).into();
    assert_eq!(values, [true, true]);

    // Whoever sees both settles it.
    eu.data.write(write("k", "settled", DataClass::Personal)).await.unwrap();
    everywhere(&sites).await;
    assert_eq!(lives_in(us.data.read(&address("k")).await), [EU]);
    assert!(!rows_contain(&us.data, "from-us"));
}

#[tokio::test]
async fn a_marker_that_overtakes_what_it_supersedes_still_evicts_it() {
    let sites = Site::three();
    let [eu, us, ap] = &sites;
    eu.data.write(write("k", "for-everyone", DataClass::Public)).await.unwrap();
    carry(eu, ap).await;
    ap.data.write(write("k", "code", DataClass::SourceCode)).await.unwrap();
    // us-east hears of the move first, over the log of ap-southeast alone.
    let first = ap.data.outgoing(&region(US), &us.data.vector(), 100_000).unwrap();
    assert!(first.iter().all(|shipment| shipment.position().origin == region(AP)));
    us.data.receive(&region(AP), first).await.unwrap();
    everywhere(&sites).await;
    assert_eq!(lives_in(us.data.read(&address("k")).await), [AP, EU]);
    assert!(!rows_contain(&us.data, "for-everyone"));
}

#[tokio::test]
async fn a_relayed_log_gives_each_region_what_its_origin_would_have_given() {
    let sites = Site::three();
    let [eu, us, ap] = &sites;
    eu.data.write(write("k", "for-everyone", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    eu.data.write(write("k", "code", DataClass::SourceCode)).await.unwrap();
    carry(eu, ap).await;
    // ap-southeast holds the record and passes on a marker.
    carry(ap, us).await;
    assert_eq!(lives_in(us.data.read(&address("k")).await), [AP, EU]);
    assert!(!rows_contain(&us.data, "code") && !rows_contain(&us.data, "for-everyone"));

    // us-east holds markers and skips only: it gives them to nobody who is owed the record.
    let empty = tempfile::tempdir().unwrap();
    let other = Site { id: AP, data: open_among(AP, &[EU, US, AP], empty.path()), dir: empty };
    carry(us, &other).await;
    assert_eq!(value(&other.data, "k").await.as_deref(), Some("for-everyone"));
    let incarnation = row(&eu.data, "k").unwrap().siblings[0].version.dot.actor.incarnation;
    assert_eq!(other.data.vector().offset(&region(EU), incarnation), 1, "a marker was taken for the record");
    carry(eu, &other).await;
    assert_eq!(value(&other.data, "k").await.as_deref(), Some("code"));
}

#[tokio::test]
async fn a_scope_is_remembered_over_a_restart_whatever_the_plan_says_then() {
    let sites = Site::three();
    let [eu, us, ap] = &sites;
    eu.data.write(write("k", "for-everyone", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    eu.data.close().await;
    let copy = tempfile::tempdir().unwrap();
    crate::two_regions::copy_files(eu.dir.path(), copy.path());
    // The plan now knows of eu-west alone; the record of before was written when there were three.
    let again = open_with(EU, &[EU, US, AP], copy.path(), plans(&[EU]));
    again.write(write("k", "canary", DataClass::Personal)).await.unwrap();
    for away in [us, ap] {
        ship((&again, EU), (&away.data, away.id)).await;
        assert_eq!(lives_in(away.data.read(&address("k")).await), [EU]);
    }
}

#[tokio::test]
async fn a_record_refused_on_arrival_does_not_leave_the_older_one_to_be_read() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let eu = open_among(EU, &[EU, US], dirs[0].path());
    let us = open_among(US, &[EU, US], dirs[1].path());
    eu.write(write("k", "older", DataClass::Public)).await.unwrap();
    ship((&eu, EU), (&us, US)).await;
    us.close().await;
    drop(us);
    // From now on us-east may hold nothing, and eu-west has not heard of it.
    let us = open_with(US, &[EU, US], dirs[1].path(), plans(&[EU]));
    eu.write(write("k", "newer", DataClass::Public)).await.unwrap();
    eu.write(write("jane-doe", "newer", DataClass::Public)).await.unwrap();
    ship((&eu, EU), (&us, US)).await;
    assert_eq!(lives_in(us.read(&address("k")).await), [EU]);
    assert!(["older", "newer", "jane-doe"].iter().all(|text| !rows_contain(&us, text)));
}

#[tokio::test]
async fn a_write_that_has_not_seen_a_hidden_one_of_its_log_does_not_let_others_overwrite_it_unseen() {
    let sites = Site::three();
    let [eu, us, _] = &sites;
    eu.data.write(write("k", "canary", DataClass::Personal)).await.unwrap();
    // Everyone may see this one, and whoever does takes all earlier writes of the same log for seen.
    let unseeing = Write { context: Some(CausalContext::new()), ..write("k", "beside", DataClass::Public) };
    let refused = eu.data.write(unseeing).await;
    assert!(matches!(refused, Err(DataError::PreconditionFailed)), "{refused:?}");
    everywhere(&sites).await;
    us.data.write(write("k", "from-us", DataClass::Public)).await.unwrap();
    everywhere(&sites).await;
    assert!(rows_contain(&eu.data, "canary") && rows_contain(&eu.data, "from-us"));
}

#[tokio::test]
async fn a_write_does_not_claim_to_have_seen_what_its_region_has_not() {
    let sites = Site::three();
    let [eu, us, ap] = &sites;
    // Of the same key, once where us-east cannot see it and once on its way there.
    let code = eu.data.write(write("code", "canary", DataClass::SourceCode)).await.unwrap();
    let late = ap.data.write(write("late", "canary", DataClass::Public)).await.unwrap();
    carry(eu, us).await;
    let with = |key, context| Write { context: Some(context), ..write(key, "from-us", DataClass::Public) };
    us.data.write(with("code", code.context)).await.unwrap();
    let behind = us.data.write(with("late", late.context.clone())).await;
    assert!(matches!(behind, Err(DataError::Behind { .. })), "{behind:?}");
    assert!(row(&us.data, "late").is_none());
    carry(ap, us).await;
    us.data.write(with("late", late.context)).await.unwrap();
    everywhere(&sites).await;
    let siblings = |key| row(&eu.data, key).unwrap().siblings.len();
    assert_eq!((siblings("code"), siblings("late")), (2, 1));
}

#[tokio::test]
async fn a_record_that_a_stricter_policy_bars_is_not_shown_while_it_waits_to_be_moved() {
    let dir = tempfile::tempdir().unwrap();
    let us = open_among(US, &[US, EU], dir.path());
    us.write(write("k", "kept where it may be no more", DataClass::Public)).await.unwrap();
    us.close().await;
    drop(us);

    let us =
        open_with(US, &[US, EU], dir.path(), data::plans::Plans { generation: 2, ..data::plans::Plans::deny_all() });
    let barred = us.read(&address("k")).await;
    assert!(matches!(barred, Err(DataError::Barred(_))), "{barred:?}");
    assert_eq!(us.list(&address("k").namespace, "", None, 10).unwrap().len(), 0);
    assert!(us.row(&address("k")).unwrap().is_some(), "the audit must still find it");
}
