//! Signed zones as validating resolvers see them: every answer is put to BIND's `delv`, which trusts the zone's key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use data::plans::Plans;
use model::Country;
use model::names::DnsName;
use model::region::Regions;
use model::routing::{
    AnswerShape, ClientClass, DnsPlan, NameServer, NameShapes, Ranking, RecordData, RegionState, RoutingPlan, SoaTimes,
    StaticRecord, Zone,
};
use net::{DnsAnswers, DnsConfig};
use routing::CountryTable;
use routing::dns::{CookieKey, ZoneKey};
use tokio_util::sync::CancellationToken;

use super::{id, region};

const DAY: u64 = 86_400;

fn name(text: &str) -> DnsName {
    DnsName::new(text).unwrap()
}

/// us-east has addresses of both families, eu-west of one.
fn regions() -> Arc<Regions> {
    let region = |name: &str, public: &[&str]| {
        let mut region = region(name);
        region.addresses.public = public.iter().map(|address| address.parse().unwrap()).collect();
        (region.id.clone(), region)
    };
    let by_id = BTreeMap::from([region("us-east", &["192.0.2.1", "2001:db8::1"]), region("eu-west", &["192.0.2.2"])]);
    Arc::new(Regions { by_id, primary: id("us-east"), operators: Vec::new() })
}

fn zone(apex: &str, routed: &[&str], records: Vec<(&str, RecordData)>) -> (DnsName, Zone) {
    let zone = Zone {
        apex: name(apex),
        contact: name("hostmaster.repomind.io"),
        times: SoaTimes::default(),
        ttl: 3600,
        ns: vec![NameServer { name: name(&format!("ns1.{apex}")), region: None }],
        routed: routed.iter().map(|routed| name(routed)).collect(),
        records: records.into_iter().map(|(at, data)| StaticRecord { name: name(at), data }).collect(),
    };
    (zone.apex.clone(), zone)
}

/// Germans get the region without IPv6. `eu.repomind.io` is a zone of its own, `other.repomind.io` one without keys.
fn plans() -> Arc<Plans> {
    let address = RecordData::A([192, 0, 2, 9].into());
    let caa = RecordData::Caa { critical: false, tag: "issue".into(), value: "ca.example".into() };
    let zones = BTreeMap::from([
        zone(
            "repomind.io",
            &["repomind.io", "api.repomind.io"],
            vec![
                ("repomind.io", RecordData::Txt("v=spf1 -all".into())),
                ("repomind.io", RecordData::Txt("a second one".into())),
                ("repomind.io", caa),
                ("docs.repomind.io", RecordData::Cname(name("api.repomind.io"))),
                ("gone.repomind.io", RecordData::Cname(name("nothing.repomind.io"))),
                ("over.repomind.io", RecordData::Cname(name("api.eu.repomind.io"))),
                ("deep.in.empty.repomind.io", address.clone()),
                ("large.repomind.io", RecordData::Txt("x".repeat(1000))),
            ],
        ),
        zone("eu.repomind.io", &["api.eu.repomind.io"], Vec::new()),
        zone("other.repomind.io", &[], vec![("a.other.repomind.io", address)]),
    ]);
    let shape = NameShapes { default: AnswerShape::new(2, 1, 2), by_class: BTreeMap::new() };
    let shapes = zones.values().flat_map(|zone| zone.routed.iter().map(|name| (name.clone(), shape.clone())));
    let german = ClientClass { country: Country::new("DE").ok() };
    let routing = RoutingPlan {
        default: Ranking { regions: vec![id("us-east")] },
        by_class: BTreeMap::from([(german, Ranking { regions: vec![id("eu-west")] })]),
        dns: DnsPlan { shapes: shapes.collect(), zones },
    };
    Arc::new(Plans { generation: 1, routing, ..Plans::deny_all() })
}

struct Serving {
    answers: Arc<DnsAnswers>,
    address: SocketAddr,
    folder: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A server with a key for each of two zones, made with the clock at `created`.
async fn serving(created: u64) -> Serving {
    let answers = Arc::new(DnsAnswers::new(regions()));
    let folder = tempfile::tempdir().unwrap();
    for zone in ["repomind.io", "eu.repomind.io"] {
        net::pki::dns::create(folder.path(), &name(zone), created, 0).unwrap();
    }
    answers.plans_changed(plans());
    let well = ["us-east", "eu-west"].map(|region| (id(region), RegionState::Ready));
    answers.states_changed(Arc::new(well.into()));
    answers.keys_changed(net::pki::dns::load(folder.path()).unwrap());
    let countries = Arc::new(ArcSwap::from_pointee(CountryTable::bundled()));
    let config = DnsConfig::new(id("us-east"), CookieKey::derived_from(&[3; 32]), countries);
    let sockets = net::bind_dns(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = sockets.address().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(net::serve_dns(sockets, answers.clone(), config, stop.clone()));
    Serving { answers, address, folder, stop }
}

impl Serving {
    fn keys(&self) -> Vec<ZoneKey> {
        net::pki::dns::load(self.folder.path()).unwrap()
    }

    /// Runs a tool of BIND against the server; none where it is not installed, which CI does not accept.
    async fn run(&self, tool: &str, words: &[&str]) -> Option<String> {
        let (tool, port) = (tool.to_owned(), self.address.port().to_string());
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let run = move || Command::new(tool).args(["@127.0.0.1", "-p", &port]).args(words).output();
        match tokio::task::spawn_blocking(run).await.unwrap() {
            Ok(output) => {
                Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
            }
            Err(error) => {
                assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "a tool is missing: {error}");
                None
            }
        }
    }

    /// What `delv` says of a name when it trusts this key of repomind.io.
    async fn validated(&self, key: &ZoneKey, words: &[&str]) -> Option<String> {
        let anchor = self.folder.path().join(format!("anchor-{}", key.tag()));
        let text = base64::engine::general_purpose::STANDARD.encode(key.public);
        std::fs::write(&anchor, format!("trust-anchors {{ repomind.io. static-key 257 3 13 \"{text}\"; }};\n"))
            .unwrap();
        let anchor = anchor.display().to_string();
        let all = [&["-a", &anchor, "+root=repomind.io", "+multiline"], words].concat();
        self.run("delv", &all).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_signed_zone_is_ever_taken_for_a_forgery() {
    let serving = serving(seconds()).await;
    let key = serving.keys().into_iter().find(|key| key.zone == name("repomind.io")).unwrap();
    let there = "; fully validated";
    let absent = "; negative response, fully validated";
    // An alias that is there, and what it leads to that is not.
    let both = "fully validated";
    for (words, says) in [
        (&["api.repomind.io", "A"][..], there),
        (&["api.repomind.io", "AAAA"], there),
        (&["repomind.io", "SOA"], there),
        (&["repomind.io", "NS"], there),
        (&["repomind.io", "TXT"], there),
        (&["repomind.io", "CAA"], there),
        (&["repomind.io", "A"], there),
        (&["repomind.io", "DNSKEY"], there),
        (&["repomind.io", "CDS"], there),
        (&["repomind.io", "CDNSKEY"], there),
        (&["repomind.io", "NSEC"], there),
        (&["ns1.repomind.io", "A"], there),
        (&["docs.repomind.io", "A"], there),
        (&["docs.repomind.io", "CNAME"], there),
        (&["large.repomind.io", "TXT"], there),
        (&["deep.in.empty.repomind.io", "A"], there),
        // A name with others below it alone, one between, and types that are not there.
        (&["empty.repomind.io", "A"], absent),
        (&["in.empty.repomind.io", "TXT"], absent),
        (&["api.repomind.io", "TXT"], absent),
        (&["docs.repomind.io", "TXT"], both),
        (&["repomind.io", "MX"], absent),
        // Names that are not, before, between and behind those that are.
        (&["0.repomind.io", "A"], absent),
        (&["m.repomind.io", "A"], absent),
        (&["zzzz.repomind.io", "A"], absent),
        (&["a.b.c.repomind.io", "A"], absent),
        (&["x.in.empty.repomind.io", "A"], absent),
        (&["below.api.repomind.io", "A"], absent),
        (&["gone.repomind.io", "A"], both),
        // A zone below with keys, and one without.
        (&["eu.repomind.io", "DS"], there),
        (&["api.eu.repomind.io", "A"], there),
        (&["over.repomind.io", "A"], there),
        (&["nothing.eu.repomind.io", "A"], absent),
        (&["other.repomind.io", "DS"], absent),
        (&["a.other.repomind.io", "A"], "; unsigned answer"),
    ] {
        let Some(said) = serving.validated(&key, words).await else { return };
        assert!(said.contains(says), "{words:?}: {says:?} was expected:\n{said}");
        assert!(!said.contains("no valid RRSIG") && !said.contains("resolution failed: broken"), "{words:?}:\n{said}");
    }
    // Another key is not trusted: the tool does look.
    let stranger = tempfile::tempdir().unwrap();
    let other = net::pki::dns::create(stranger.path(), &name("repomind.io"), 0, 0).unwrap();
    let said = serving.validated(&other, &["api.repomind.io", "A"]).await.unwrap();
    assert!(!said.contains("fully validated"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_do_not_ask_for_signatures_get_none_and_those_who_do_get_all() {
    let serving = serving(seconds()).await;
    let Some(plain) = serving.run("dig", &["api.repomind.io", "A"]).await else { return };
    assert!(!plain.contains("RRSIG") && plain.contains("192.0.2.1"), "{plain}");
    let signed = serving.run("dig", &["api.repomind.io", "A", "+dnssec", "+cd"]).await.unwrap();
    assert!(signed.contains("flags: qr aa rd cd;") && signed.contains("flags: do;"), "{signed}");
    assert!(signed.contains("RRSIG\tA 13 3 2 "), "{signed}");
    // A German gets no IPv6 address here: the proof must not say that there are some.
    let german = ["api.repomind.io", "AAAA", "+dnssec", "+subnet=141.20.1.0/24"];
    let said = serving.run("dig", &german).await.unwrap();
    assert!(said.contains("NSEC\tdocs.repomind.io. A RRSIG NSEC"), "{said}");
    let absent = serving.run("dig", &["m.repomind.io", "A", "+dnssec"]).await.unwrap();
    assert_eq!(absent.matches("IN\tNSEC\t").count(), 2, "the name and the wildcard: {absent}");
    // What does not fit into a datagram with its signature is cut, and whole over TCP.
    let cut = serving.run("dig", &["large.repomind.io", "TXT", "+dnssec", "+bufsize=1100", "+ignore"]).await.unwrap();
    assert!(cut.contains("flags: qr aa tc rd") && cut.contains("ANSWER: 0"), "{cut}");
    let whole = serving.run("dig", &["large.repomind.io", "TXT", "+dnssec", "+tcp"]).await.unwrap();
    assert!(whole.contains("RRSIG\tTXT") && !whole.contains(" tc "), "{whole}");
    let any = serving.run("dig", &["repomind.io", "ANY", "+dnssec", "+notcp"]).await.unwrap();
    assert!(any.contains("ANSWER: 2,") && any.contains("RRSIG\tNSEC"), "{any}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_never_leaves_a_resolver_without_a_key_that_it_trusts() {
    // The clocks of resolvers are real ones, so the past is where this roll begins.
    let now = seconds();
    let begun = now - 10 * DAY;
    let serving = serving(begun - 100 * DAY).await;
    let of_zone =
        |keys: Vec<ZoneKey>| keys.into_iter().filter(|key| key.zone == name("repomind.io")).collect::<Vec<_>>();
    let old = of_zone(serving.keys()).remove(0);
    let api = ["api.repomind.io", "A"];
    let trusts = async |key: &ZoneKey| Some(serving.validated(key, &api).await?.contains("; fully validated"));
    let Some(true) = trusts(&old).await else { return };

    let new = net::pki::dns::roll(serving.folder.path(), &name("repomind.io"), begun, 2 * DAY).unwrap();
    serving.answers.keys_changed(serving.keys());
    assert_eq!((trusts(&old).await, trusts(&new).await), (Some(true), Some(true)), "both keys are trusted meanwhile");
    let synced = serving.run("dig", &["repomind.io", "CDS", "+short"]).await.unwrap();
    assert!(synced.starts_with(&format!("{} 13 2 ", new.tag())) && synced.lines().count() == 1, "{synced}");

    net::pki::dns::retire(serving.folder.path(), &name("repomind.io"), old.tag(), begun + 3 * DAY, 2 * DAY).unwrap();
    serving.answers.keys_changed(serving.keys());
    assert_eq!((trusts(&old).await, trusts(&new).await), (Some(false), Some(true)), "the old key is over");
}
