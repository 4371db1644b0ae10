//! Links in virtual time: the other end is in memory, so an hour costs nothing
//! and every duration is exact to the millisecond of the timer.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;

fn peer() -> RegionId {
    RegionId::new("eu-west").unwrap()
}

fn change() -> WanChange {
    WanChange::to(peer())
}

const SECOND: Duration = Duration::from_secs(1);

/// A connection to `peer` in memory: what this side and what the peer holds.
fn connection(wan: &Wan) -> (DuplexStream, DuplexStream) {
    let (out, back) = wan.directions(&peer()).unwrap();
    let (near, inner) = tokio::io::duplex(64 * 1024);
    let (far, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(link::carry(inner, tokio::io::split(far), out, back));
    (near, theirs)
}

/// How long five bytes take from one end to the other.
async fn passage(from: &mut DuplexStream, to: &mut DuplexStream) -> Duration {
    let begun = Instant::now();
    from.write_all(b"hello").await.unwrap();
    let mut there = [0; 5];
    to.read_exact(&mut there).await.unwrap();
    assert_eq!(&there, b"hello");
    begun.elapsed()
}

/// Timers fire on whole milliseconds, up to one late.
fn assert_took(took: Duration, milliseconds: u64) {
    let expected = Duration::from_millis(milliseconds);
    assert!(took >= expected && took <= expected + Duration::from_millis(2), "{took:?}, not {expected:?}");
}

/// Whether nothing arrives within a minute, which passes at once.
async fn silent(end: &mut DuplexStream) -> bool {
    tokio::time::timeout(Duration::from_secs(60), end.read_u8()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_paid_each_way_and_can_be_changed_on_an_open_connection() {
    let wan = Wan::emulated();
    wan.set(&WanChange { delay_ms: Some(30.0), ..change() }).unwrap();
    let (mut near, mut far) = connection(&wan);
    assert_took(passage(&mut near, &mut far).await, 30);
    assert_took(passage(&mut far, &mut near).await, 30);
    wan.set(&WanChange { delay_ms: Some(0.0), ..change() }).unwrap();
    assert_took(passage(&mut near, &mut far).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_link_cut_in_one_direction_still_delivers_in_the_other() {
    let wan = Wan::emulated();
    let (mut near, mut far) = connection(&wan);
    wan.set(&WanChange { cut: Some(Cut::Out), ..change() }).unwrap();
    near.write_all(b"a").await.unwrap();
    assert!(silent(&mut far).await);
    assert_took(passage(&mut far, &mut near).await, 0);
    wan.set(&WanChange { cut: Some(Cut::In), ..change() }).unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'a');
    far.write_all(b"b").await.unwrap();
    assert!(silent(&mut near).await);
    wan.set(&WanChange { cut: Some(Cut::Both), ..change() }).unwrap();
    near.write_all(b"c").await.unwrap();
    assert!(silent(&mut near).await && silent(&mut far).await);
    wan.set(&WanChange { cut: Some(Cut::None), ..change() }).unwrap();
    assert_eq!((near.read_u8().await.unwrap(), far.read_u8().await.unwrap()), (b'b', b'c'));
}

#[tokio::test(start_paused = true)]
async fn a_lost_piece_arrives_a_retransmission_later_and_those_behind_it_wait() {
    let wan = Wan::emulated();
    wan.set(&WanChange { delay_ms: Some(50.0), loss: Some(1.0), ..change() }).unwrap();
    let (mut near, mut far) = connection(&wan);
    let begun = Instant::now();
    near.write_all(b"a").await.unwrap();
    // The first try is due, and lost, at 50 ms; the timeout is 2 x 50 + 200 ms.
    tokio::time::sleep(Duration::from_millis(100)).await;
    wan.set(&WanChange { loss: Some(0.0), ..change() }).unwrap();
    near.write_all(b"b").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'a');
    assert_took(begun.elapsed(), 350);
    assert_eq!(far.read_u8().await.unwrap(), b'b');
    assert_took(begun.elapsed(), 350);
}

#[tokio::test(start_paused = true)]
async fn each_further_loss_of_a_piece_doubles_its_wait_and_the_last_breaks_the_connection() {
    let wan = Wan::emulated();
    wan.set(&WanChange { loss: Some(1.0), ..change() }).unwrap();
    let (mut near, mut far) = connection(&wan);
    let begun = Instant::now();
    near.write_all(b"a").await.unwrap();
    // 200 + 400 + 800 ms after three losses.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    wan.set(&WanChange { loss: Some(0.0), ..change() }).unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'a');
    assert_took(begun.elapsed(), 1400);

    wan.set(&WanChange { loss: Some(1.0), ..change() }).unwrap();
    let begun = Instant::now();
    near.write_all(b"b").await.unwrap();
    assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0, "nothing arrives, and the connection ends");
    // 200 ms, doubled nine times (102.4 s) and then 120 s for each of the other five timeouts.
    assert_took(begun.elapsed(), 204_600 + 5 * 120_000);
    assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
}

/// When each of many pieces arrives after it was sent, over a link that wavers and loses.
async fn passages(seed: u64) -> Vec<Duration> {
    let wan = Wan::emulated().with_seed(seed);
    assert_eq!(wan.seed(), Some(seed));
    wan.set(&WanChange { delay_ms: Some(40.0), jitter_ms: Some(10.0), loss: Some(0.1), ..change() }).unwrap();
    let (mut near, mut far) = connection(&wan);
    let mut all = Vec::new();
    for _ in 0..500 {
        all.push(passage(&mut near, &mut far).await);
        tokio::time::sleep(SECOND).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_loses_and_wavers_alike_in_every_run() {
    let first = passages(7).await;
    assert_eq!(first, passages(7).await);
    assert_ne!(first, passages(8).await);
    let (straight, lost): (Vec<_>, Vec<_>) = first.into_iter().partition(|took| *took <= Duration::from_millis(52));
    assert!(straight.iter().all(|took| *took >= Duration::from_millis(30)));
    assert!(straight.iter().any(|took| *took < Duration::from_millis(35)), "jitter shortens");
    assert!(straight.iter().any(|took| *took > Duration::from_millis(45)), "jitter lengthens");
    // A timeout of 2 x 40 + 200 ms on top of 40 ± 10.
    assert!(lost.iter().all(|took| *took >= Duration::from_millis(310)), "{lost:?}");
    assert!((30..=80).contains(&lost.len()), "{} of 500 were lost at a share of 0.1", lost.len());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_takes_a_round_trip_and_a_lost_one_is_repeated_after_a_second() {
    let wan = Wan::emulated();
    wan.set(&WanChange { delay_ms: Some(70.0), ..change() }).unwrap();
    let dialled = |wan: Wan| async move {
        let (mut out, mut back) = wan.directions(&peer()).unwrap();
        let begun = Instant::now();
        link::handshake(&mut out, &mut back).await.map(|()| begun.elapsed())
    };
    assert_took(dialled(wan.clone()).await.unwrap(), 140);

    wan.set(&WanChange { loss: Some(1.0), ..change() }).unwrap();
    let dialling = tokio::spawn(dialled(wan.clone()));
    tokio::time::sleep(SECOND / 2).await;
    wan.set(&WanChange { loss: Some(0.0), ..change() }).unwrap();
    assert_took(dialling.await.unwrap().unwrap(), 1140);

    wan.set(&WanChange { loss: Some(1.0), ..change() }).unwrap();
    assert_eq!(dialled(wan.clone()).await.unwrap_err().kind(), io::ErrorKind::TimedOut);

    for cut in [Cut::Out, Cut::In, Cut::Both] {
        wan.set(&WanChange { loss: Some(0.0), cut: Some(cut), ..change() }).unwrap();
        let dialling = tokio::spawn(dialled(wan.clone()));
        tokio::time::sleep(SECOND * 10).await;
        assert!(!dialling.is_finished(), "{cut:?}");
        wan.set(&WanChange { cut: Some(Cut::None), ..change() }).unwrap();
        assert_took(dialling.await.unwrap().unwrap(), 10_140);
    }
}

/// Over a real socket, so in real time: what is sent comes back, and not before the link is restored.
#[tokio::test]
async fn a_dialled_connection_stalls_while_its_link_is_cut() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await
    });
    let wan = Wan::emulated();
    let mut link = wan.dial(&peer(), address).await.unwrap();
    wan.set(&WanChange { cut: Some(Cut::Both), ..change() }).unwrap();
    link.write_all(b"hello").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(80), link.read_u8()).await.is_err());
    wan.set(&WanChange { cut: Some(Cut::None), ..change() }).unwrap();
    let mut back = [0; 5];
    link.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[test]
fn whatever_is_made_up_about_a_link_is_shown_and_nothing_else() {
    let wan = Wan::emulated();
    assert_eq!(wan.status(), Emulated::default());
    wan.set(&WanChange { cut: Some(Cut::In), loss: Some(0.02), ..change() }).unwrap();
    let shown = serde_json::to_value(wan.status()).unwrap();
    let expected = serde_json::json!({
        "emulated_delay_ms": {}, "emulated_loss": {"eu-west": 0.02}, "emulated_cut": {"eu-west": "in"},
    });
    assert_eq!(shown, expected);
    wan.set(&WanChange {
        delay_ms: Some(5.0),
        jitter_ms: Some(1.0),
        loss: Some(0.0),
        cut: Some(Cut::None),
        ..change()
    })
    .unwrap();
    let shown = serde_json::to_value(wan.status()).unwrap();
    let expected = serde_json::json!({
        "emulated_delay_ms": {"eu-west": 5.0}, "emulated_delay_from": {"eu-west": "operator"},
        "emulated_jitter_ms": {"eu-west": 1.0},
    });
    assert_eq!(shown, expected);
    assert_eq!(serde_json::from_value::<Emulated>(shown).unwrap(), wan.status());
}

#[test]
fn a_delay_that_an_operator_set_is_not_called_measured() {
    let files = [("us-east", "us-east-1", true), ("eu-west", "eu-west-1", false)].map(|(id, name, primary)| {
        let services = "services: {api: https://x.example, storage: s3://x}";
        let capacity = "capacity: {min_instances: 1, max_instances: 1}";
        let text = format!("region:\n  name: {name}\n  primary: {primary}\n  {services}\n  {capacity}\n");
        (format!("region-config/{id}.yml"), text)
    });
    let regions = config::load_from(&files.into()).unwrap();
    let wan = Wan::realistic(&RegionId::new("us-east").unwrap(), &regions);
    assert_eq!(wan.delays_ms(), BTreeMap::from([(peer(), 35.0)]));
    assert_eq!(wan.origins(), BTreeMap::from([(peer(), DelayOrigin::Measured)]));
    wan.set(&WanChange { delay_ms: Some(1.0), ..change() }).unwrap();
    assert_eq!(wan.origins(), BTreeMap::from([(peer(), DelayOrigin::Operator)]));
}

#[test]
fn without_emulation_a_link_cannot_be_cut_and_a_bad_value_changes_nothing() {
    assert_eq!(Wan::none().set(&WanChange { cut: Some(Cut::Both), ..change() }), Err(WanError::Off));
    let wan = Wan::emulated();
    let bad = WanChange { delay_ms: Some(5.0), loss: Some(f64::NAN), ..change() };
    assert_eq!(wan.set(&bad), Err(WanError::Loss));
    assert_eq!(wan.shapes(), BTreeMap::new());
}
