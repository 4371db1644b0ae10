//! Writes that are made together or not at all.

use data::{DataError, Write};
use model::record::DataClass;

use crate::harness::*;

fn several(values: &[(&str, &str)]) -> Vec<Write> {
    values.iter().map(|(key, value)| write(key, value, DataClass::Public)).collect()
}

#[tokio::test]
async fn where_one_is_refused_nothing_of_the_others_is_stored_logged_or_counted() {
    let [eu, us, _] = Site::three();
    eu.data.write(write("cart/2", "old", DataClass::Public)).await.unwrap();
    let before = eu.data.vector();
    let mut all = several(&[("cart/1", "a"), ("cart/2", "b"), ("cart/3", "c")]);
    all[1].if_none_match = true;
    let refused = eu.data.write_all(all).await.unwrap_err();
    assert!(matches!(refused, data::NotAll { at: Some(1), error: DataError::PreconditionFailed }), "{refused:?}");
    // Barred where it is decided on before it is queued, too.
    let mut all = several(&[("cart/1", "a"), ("cart/4", "d")]);
    all[1] = write("cart/4", "source", DataClass::SourceCode);
    let refused = us.data.write_all(all).await.unwrap_err();
    assert!(matches!(refused, data::NotAll { at: Some(1), error: DataError::Barred(_) }), "{refused:?}");
    assert_eq!(eu.data.vector(), before);
    for key in ["cart/1", "cart/3", "cart/4"] {
        assert_eq!((row(&eu.data, key), row(&us.data, key)), (None, None), "{key}");
    }
    assert_eq!(value(&eu.data, "cart/2").await.as_deref(), Some("old"));
    // The next write has the place in the log that the refused ones did not take.
    eu.data.write(write("cart/1", "alone", DataClass::Public)).await.unwrap();
    carry(&eu, &us).await;
    assert_eq!(value(&us.data, "cart/1").await.as_deref(), Some("alone"));
}

#[tokio::test]
async fn all_of_them_are_here_at_once_and_reach_another_region_in_their_order() {
    let [eu, us, _] = Site::three();
    let keys: Vec<String> = (0..20).map(|number| format!("cart/{number:02}")).collect();
    let all: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "x")).collect();
    // In a group with others, before and behind.
    let (one, written, two) = tokio::join!(
        eu.data.write(write("before", "x", DataClass::Public)),
        eu.data.write_all(several(&all)),
        eu.data.write(write("behind", "x", DataClass::Public))
    );
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(written.unwrap().len(), 20);
    let stored = |data: &data::DataPlane| keys.iter().filter(|key| row(data, key).is_some()).count();
    assert_eq!(stored(&eu.data), 20);
    // Batches that are too small for all of them: what is there is always a beginning, never a selection.
    loop {
        let batch = eu.data.outgoing(&region(US), &us.data.vector(), 300).unwrap();
        if batch.is_empty() {
            break;
        }
        us.data.receive(&region(EU), batch).await.unwrap();
        let there = stored(&us.data);
        assert!(keys[..there].iter().all(|key| row(&us.data, key).is_some()), "{there} keys, and not the first ones");
    }
    assert_eq!(stored(&us.data), 20);
}
