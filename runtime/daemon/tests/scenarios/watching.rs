//! What changes is told to those who watch; what is written together is there together; what is over is not shown.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster, until};
use crate::{REGIONS, SOON};

/// An event as it came.
#[derive(Clone, Debug)]
struct Event {
    kind: String,
    id: Option<String>,
    data: Value,
}

/// A stream of events that is being read.
struct Watch {
    reader: BufReader<TcpStream>,
    /// The id of the last event that had one.
    last: Option<String>,
}

impl Watch {
    fn begin(cluster: &Cluster, region: &str, path: &str, after: Option<&str>) -> Self {
        let token = std::fs::read_to_string(cluster.state("pki/token")).unwrap();
        let address = SocketAddr::new(cluster.address(region).into(), 8080);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let after = after.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let token = token.trim();
        // HTTP/1.0 has no chunks, so that what comes is the events themselves.
        let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{after}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("text/event-stream"), "{head}");
        Self { reader, last: None }
    }

    /// The next event; none where the stream has ended.
    fn next(&mut self) -> Option<Event> {
        let (mut kind, mut id, mut data) = (String::new(), None, String::new());
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).expect("an event in time") == 0 {
                return None;
            }
            match line.trim_end().split_once(':').map(|(name, value)| (name, value.trim_start())) {
                Some(("event", value)) => kind = value.to_owned(),
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data += value,
                None if !data.is_empty() => {
                    self.last = id.clone().or(self.last.take());
                    return Some(Event { kind, id, data: serde_json::from_str(&data).expect("JSON") });
                }
                None if id.is_some() => self.last = id.take(),
                _ => {}
            }
        }
    }

    /// The next event of a kind, for this key.
    fn seen(&mut self, kind: &str, key: &str) -> Event {
        let begun = Instant::now();
        loop {
            let event = self.next().unwrap_or_else(|| panic!("the stream ended before {kind} of {key}"));
            if event.kind == kind && event.data["key"] == key {
                return event;
            }
            assert!(begun.elapsed() < SOON * 3, "no {kind} of {key}, and instead {event:?}");
        }
    }
}

fn put(cluster: &Cluster, region: &str, path: &str, headers: &[(&str, &str)], value: &str) -> Answer {
    let written = cluster.ask(region, "PUT", &format!("/v1/data/{path}"), headers, value).unwrap();
    assert_eq!(written.status, 204, "{}", written.body);
    written
}

#[test]
fn who_watches_sees_every_change_once_and_goes_on_in_another_region_where_it_was() {
    let cluster = Cluster::deployed();
    let mut watch = Watch::begin(&cluster, "eu-west", "/v1/watch/notes?prefix=w/&values=yes", None);
    let ready = watch.next().unwrap();
    assert_eq!((ready.kind.as_str(), &ready.data["resumed"]), ("ready", &json!(false)));
    assert!(ready.id.is_some(), "nothing to resume from");
    put(&cluster, "us-east", "notes/other", &[], "not watched");
    let written = put(&cluster, "us-east", "notes/w/1", &[], "one");
    let event = watch.seen("put", "w/1");
    assert_eq!((&event.data["etag"], &event.data["value_base64"]), (&json!(written.headers["etag"]), &json!("b25l")));
    // What the event hands out is enough to read the same in a third region.
    let context = event.data["context"].as_str().unwrap();
    let read = cluster.ask("ap-southeast", "GET", "/v1/data/notes/w/1", &[("repomind-context", context)], "").unwrap();
    assert_eq!((read.status, read.body.as_str()), (200, "one"));
    let gone = cluster.ask("eu-west", "DELETE", "/v1/data/notes/w/1", &[], "").unwrap();
    assert_eq!(gone.status, 204, "{}", gone.body);
    watch.seen("delete", "w/1");
    let at = watch.last.clone().unwrap();
    drop(watch);

    // Meanwhile something happens, and its region is killed before the client is back.
    let acked = [("repomind-ack", "regions:3")];
    put(&cluster, "eu-west", "notes/w/2", &acked, "two");
    cluster.kill("eu-west");
    let mut watch = Watch::begin(&cluster, "us-east", "/v1/watch/notes?prefix=w/", Some(&at));
    assert_eq!(watch.next().unwrap().data["resumed"], json!(true));
    let event = watch.next().unwrap();
    assert_eq!((event.kind.as_str(), &event.data["key"]), ("put", &json!("w/2")), "something was told again");
    assert!(event.data.get("value_base64").is_none());
    // A region that stops says so.
    let destroyed = cluster.run(&["destroy"]);
    assert!(destroyed.status.success());
    let end = std::iter::from_fn(|| watch.next()).last().expect("a last event");
    assert_eq!((end.kind.as_str(), &end.data["reason"]), ("end", &json!("closing")));
}

#[test]
fn who_watches_is_told_nothing_that_a_read_would_not_show() {
    let cluster = Cluster::deployed();
    let mut there = Watch::begin(&cluster, "us-east", "/v1/watch/profiles?values=yes", None);
    let mut home = Watch::begin(&cluster, "eu-west", "/v1/watch/profiles?values=yes", None);
    let german = [("repomind-class", "personal"), ("repomind-jurisdiction", "DE"), ("repomind-basis", "contract")];
    put(&cluster, "eu-west", "profiles/moving", &[("repomind-class", "public")], "anybody's");
    there.seen("put", "moving");
    put(&cluster, "eu-west", "profiles/hidden", &german, "canary-77");
    put(&cluster, "eu-west", "profiles/moving", &german, "canary-78");
    put(&cluster, "eu-west", "profiles/after", &[("repomind-class", "public")], "anybody's");
    // Encrypted where it lies, and opened for who may read it.
    assert_eq!(home.seen("put", "hidden").data["value_base64"], json!("Y2FuYXJ5LTc3"));
    let mut seen = Vec::new();
    loop {
        let event = there.next().unwrap();
        assert!(!event.data.to_string().contains("Y2FuYXJ5"), "{event:?}");
        seen.push((event.kind.clone(), event.data["key"].as_str().unwrap_or_default().to_owned()));
        if event.data["key"] == "after" {
            break;
        }
    }
    assert!(seen.iter().all(|(_, key)| key != "hidden"), "{seen:?}");
    assert!(seen.contains(&("moved".into(), "moving".into())), "{seen:?}");
    let refused = cluster.ask("us-east", "GET", "/v1/watch/profiles", &[("last-event-id", "made-up")], "").unwrap();
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((refused.status, &problem["field"]), (422, &json!("last-event-id")));
}

#[test]
fn a_client_that_does_not_read_is_sent_away_with_a_reason_and_holds_nobody_up() {
    let cluster = Cluster::deployed();
    let mut slow = Watch::begin(&cluster, "us-east", "/v1/watch/notes?values=yes", None);
    let value = "v".repeat(60_000);
    let ended = || {
        let metrics = cluster.admin("us-east", "GET", "/metrics", "").ok()?.body;
        metrics.contains("repomind_watches_ended_total{reason=\"too-slow\"} 1").then_some(())
    };
    // More than sockets and queue hold: 16 events and some MiB.
    let mut number = 0;
    until("the client sent away", Duration::from_secs(120), || {
        put(&cluster, "us-east", &format!("notes/slow-{number}"), &[], &value);
        number += 1;
        ended()
    });
    let last = std::iter::from_fn(|| slow.next()).last().expect("events");
    assert_eq!((last.kind.as_str(), &last.data["reason"]), ("end", &json!("too-slow")));
    // It goes on where it was: the first thing that it hears of is what it did not hear of.
    let mut again = Watch::begin(&cluster, "us-east", "/v1/watch/notes", slow.last.as_deref());
    let last = format!("slow-{}", number - 1);
    again.seen("put", &last);
}

#[test]
fn an_atomic_batch_is_there_as_a_whole_or_not_at_all_also_after_kills() {
    let cluster = Cluster::deployed();
    let item = |key: String| json!({ "namespace": "notes", "key": key, "op": "put", "value": "x" });
    let batch = |items: Vec<Value>| {
        json!({ "atomic": { "namespace": "notes", "prefix": "cart/" }, "items": items }).to_string()
    };
    let post = |region: &str, body: &str| cluster.ask(region, "POST", "/v1/batch", &[], body);
    let outside = post("eu-west", &batch(vec![item("cart/1".into()), item("other/1".into())])).unwrap();
    let problem: Value = serde_json::from_str(&outside.body).unwrap();
    assert_eq!((outside.status, &problem["item"]), (422, &json!(1)), "{}", outside.body);
    let mut new = item("cart/1".into());
    new["headers"] = json!({ "if-match": "*" });
    let refused = post("eu-west", &batch(vec![item("cart/2".into()), new])).unwrap();
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((refused.status, &problem["item"]), (412, &json!(1)), "{}", refused.body);
    assert_eq!(cluster.ask("eu-west", "GET", "/v1/data/notes/cart/2", &[], "").unwrap().status, 404);

    // Killed while batches are written, which nobody waits for.
    let mut acked = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut acked = Vec::new();
            for round in 0..10_000 {
                let items = (0..20).map(|number| item(format!("cart/{round:05}/{number:02}"))).collect();
                match post("eu-west", &batch(items)) {
                    Ok(answer) if answer.status == 200 => acked.push(round),
                    _ => return (acked, round),
                }
            }
            panic!("the region was never killed");
        });
        until("some batches", SOON, || {
            (cluster.ask("eu-west", "GET", "/v1/data/notes/cart/00003/19", &[], "").ok()?.status == 200).then_some(())
        });
        cluster.kill("eu-west");
        let (all, broken) = writer.join().unwrap();
        acked = all;
        acked.push(broken);
    });
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", crate::cluster::text(&again));
    let broken = acked.pop().unwrap();
    assert!(acked.len() >= 4);
    let count = |region: &str, round: usize| {
        let path = format!("/v1/data/notes?prefix=cart/{round:05}/&limit=100");
        let page: Value = serde_json::from_str(&cluster.ask(region, "GET", &path, &[], "").ok()?.body).ok()?;
        Some(page["records"].as_array()?.len())
    };
    until("the region serving again", SOON, || count("eu-west", 0));
    let half = count("eu-west", broken).unwrap();
    assert!([0, 20].contains(&half), "{half} of 20 writes of a batch survived the kill");
    for region in REGIONS {
        for round in &acked {
            until(&format!("batch {round} in {region}"), SOON, || (count(region, *round)? == 20).then_some(()));
        }
    }
}

#[test]
fn a_record_with_a_time_to_live_is_shown_until_then_in_every_region_and_deleted() {
    let cluster = Cluster::deployed();
    put(&cluster, "us-east", "notes/short", &[("repomind-ttl", "6"), ("repomind-ack", "regions:3")], "short");
    put(&cluster, "us-east", "notes/long", &[("repomind-ttl", "3600")], "long");
    let read = cluster.ask("eu-west", "GET", "/v1/data/notes/short", &[], "").unwrap();
    assert_eq!((read.status, read.body.as_str()), (200, "short"));
    assert!(read.headers["repomind-retain-until"].parse::<u64>().is_ok());
    for region in REGIONS {
        until(&format!("it gone in {region}"), SOON, || {
            (cluster.ask(region, "GET", "/v1/data/notes/short", &[], "").ok()?.status == 404).then_some(())
        });
    }
    until("the deletion", SOON, || {
        let metrics = cluster.admin("us-east", "GET", "/metrics", "").ok()?.body;
        metrics.contains("repomind_expired_total{rule=\"retain-until\"} 1").then_some(())
    });
    assert_eq!(cluster.ask("us-east", "GET", "/v1/data/notes/long", &[], "").unwrap().body, "long");
    let both = [("repomind-ttl", "6"), ("repomind-retain-until", "99999999999999")];
    assert_eq!(cluster.ask("us-east", "PUT", "/v1/data/notes/x", &both, "x").unwrap().status, 422);
}

#[test]
fn a_saved_quota_bounds_what_each_region_takes_and_a_deletion_makes_room() {
    let cluster = Cluster::deployed();
    let file = cluster.file("data-replication/eventual-consistency.scm");
    let source = std::fs::read_to_string(&file).unwrap();
    let bounded = source.replace(
        "(define-replication-strategy 'notes '((default-class . operational)))",
        "(define-replication-strategy 'notes '((default-class . operational) (quota . ((records . 2) (bytes . 1000)))))",
    );
    assert_ne!(bounded, source);
    std::fs::write(&file, bounded).unwrap();
    until("the quota in force everywhere", SOON * 6, || {
        REGIONS
            .iter()
            .all(|region| crate::cluster::generation(&cluster, region).is_some_and(|now| now >= 2))
            .then_some(())
    });
    let ask = |region: &str, method: &str, key: &str, value: &str| {
        cluster.ask(region, method, &format!("/v1/data/notes/{key}"), &[], value).unwrap()
    };
    put(&cluster, "eu-west", "notes/a", &[("repomind-ack", "regions:3")], "a");
    put(&cluster, "eu-west", "notes/b", &[("repomind-ack", "regions:3")], "b");
    for region in REGIONS {
        let refused = ask(region, "PUT", "c", "c");
        let problem: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!(refused.status, 507, "{region}: {}", refused.body);
        assert_eq!((&problem["what"], &problem["used"], &problem["limit"]), (&json!("records"), &json!(2), &json!(2)));
    }
    let refused = ask("eu-west", "PUT", "a", &"a".repeat(1000));
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert_eq!(ask("eu-west", "DELETE", "a", "").status, 204);
    assert_eq!(ask("eu-west", "PUT", "c", "c").status, 204);
}
