use std::path::Path;

use model::bundle::{POLICY_FILES, PolicyTree};
use model::region::Coordinates;
use model::routing::{AnswerShape, ClientClass, ClientFacts, Facts, RegionFacts, RegionState, Routes};
use model::{Country, Finding};

use super::*;
use crate::child::interpreter::Interpreter;

const FILE: &str = "traffic-routing/geo-dns.scm";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn dns_name(text: &str) -> DnsName {
    DnsName::new(text).unwrap()
}

/// Two clients of two continents that get different rankings, and one that gets that of the first.
fn facts() -> Facts {
    let place = |latitude, longitude| Coordinates { latitude, longitude };
    let country = |code| Country::new(code).unwrap();
    let region = |id: &str, code, coordinates| RegionFacts {
        id: RegionId::new(id).unwrap(),
        country: country(code),
        jurisdiction: country(code),
        coordinates,
        features: ["full-api", "websockets"].map(|name| name.parse().unwrap()).into(),
        primary: id == "us-east",
        max_instances: 50,
        state: RegionState::Ready,
        round_trips: BTreeMap::new(),
    };
    let client = |code, continent: &str, coordinates| ClientFacts {
        class: ClientClass { country: Some(country(code)) },
        continent: Some(continent.to_owned()),
        coordinates: Some(coordinates),
    };
    Facts {
        regions: vec![
            region("ap-southeast", "SG", place(1.3, 103.8)),
            region("eu-west", "IE", place(53.3, -6.3)),
            region("us-east", "US", place(38.9, -77.4)),
        ],
        clients: vec![
            client("DE", "EU", place(51.0, 9.0)),
            client("FR", "EU", place(46.0, 2.0)),
            client("US", "NA", place(38.0, -97.0)),
        ],
    }
}

/// The tree of the repository with this text for the zone and the answers.
fn load(text: &str) -> Result<Interpreter, Vec<Finding>> {
    let library = std::fs::read_dir(root().join("scm/repomind")).unwrap().flatten().map(|entry| {
        let name = format!("repomind/{}", entry.file_name().into_string().unwrap());
        (name, std::fs::read_to_string(entry.path()).unwrap())
    });
    let mut interpreter = Interpreter::new(true);
    interpreter.set_library(library.collect());
    let mut tree = PolicyTree::default();
    for file in POLICY_FILES {
        tree.0.insert((*file).to_owned(), std::fs::read_to_string(root().join(file)).unwrap());
    }
    tree.0.insert(FILE.to_owned(), text.to_owned());
    interpreter.load(tree, &facts(), true)?;
    Ok(interpreter)
}

fn policy(zone: &str, answer: &str) -> String {
    format!(
        "(require \"repomind/regions.scm\")\n(require \"repomind/dns.scm\")\n(provide policy-api dns-answer)\n\
         (define policy-api 1)\n{zone}\n(define (dns-answer name client ranked) {answer})\n"
    )
}

const ZONE: &str = r#"(define-zone "repomind.io" '((names . ("@" "api" "www.repomind.io"))
  (ns . (("ns1" . eu-west) "ns2" "ns.example.net")) (ttl . 600)
  (soa . ((contact . "dns@repomind.io") (negative-ttl . 30)))
  (txt . (("@" "v=spf1 -all"))) (caa . (("@" "issue" "ca.example.net" "critical")))
  (a . (("mail" . "192.0.2.25"))) (cname . (("docs" . "www")))))"#;

#[test]
fn a_zone_is_read_as_it_was_written_with_whole_names() {
    let mut interpreter = load(&policy(ZONE, "'((count . 2) (ttl-min . 20) (ttl-max . 300))")).unwrap();
    let Routes { dns, rankings } = interpreter.route(&facts()).unwrap();
    assert_eq!(rankings.len(), 4);
    let zone = &dns.zones["repomind.io"];
    let routed: Vec<_> = zone.routed.iter().map(DnsName::as_str).collect();
    assert_eq!(routed, ["api.repomind.io", "repomind.io", "www.repomind.io"]);
    assert_eq!((zone.ttl, zone.times.negative, zone.contact.as_str()), (600, 30, "dns.repomind.io"));
    let servers: Vec<_> =
        zone.ns.iter().map(|server| (server.name.as_str(), server.region.as_ref().map(RegionId::as_str))).collect();
    assert_eq!(servers, [("ns1.repomind.io", Some("eu-west")), ("ns2.repomind.io", None), ("ns.example.net", None)]);
    let has = |name: &str, data: RecordData| {
        let record = StaticRecord { name: dns_name(name), data };
        assert!(zone.records.contains(&record), "{record:?} is missing");
    };
    has("repomind.io", RecordData::Txt("v=spf1 -all".into()));
    has("repomind.io", RecordData::Caa { critical: true, tag: "issue".into(), value: "ca.example.net".into() });
    has("mail.repomind.io", RecordData::A([192, 0, 2, 25].into()));
    has("docs.repomind.io", RecordData::Cname(dns_name("www.repomind.io")));
    let shape = AnswerShape::new(2, 20, 300);
    assert!(dns.shapes.values().all(|shapes| shapes.default == shape && shapes.by_class.is_empty()));
}

#[test]
fn an_answer_that_looks_at_the_client_is_not_given_to_another_one() {
    let answer =
        r#"(list (cons 'count (if (equal? (client-country client) "FR") 3 1)) '(ttl-min . 20) '(ttl-max . 60))"#;
    let mut interpreter = load(&policy(ZONE, answer)).unwrap();
    let dns = interpreter.route(&facts()).unwrap().dns;
    let shapes = &dns.shapes["api.repomind.io"];
    let class = |code| ClientClass { country: Some(Country::new(code).unwrap()) };
    // France and Germany have the same ranking.
    assert_eq!((shapes.shape(class("FR")).count, shapes.shape(class("DE")).count, shapes.default.count), (3, 1, 1));
}

#[test]
fn a_zone_that_cannot_be_is_refused_with_its_place() {
    let mut elsewhere = Vec::new();
    for (from, to, says, at) in [
        ("(\"ns1\" . eu-west)", "(\"ns1\" . mars)", "there is no region `mars`", 6),
        ("\"api\"", "\"api\" \"api\"", "a name stands twice", 5),
        ("(ttl . 600)", "(tll . 600)", "unknown key `tll`", 6),
        ("\"192.0.2.25\"", "\"192.0.2.256\"", "no content of such a record", 9),
        ("(\"docs\" . \"www\")", "(\"www\" . \"docs\")", "an alias and something else", 5),
        ("(\"ns1\" . eu-west) \"ns2\" \"ns.example.net\"", "", "names no server", 5),
        ("\"ns2\"", "(\"ns2\" \"ns3\")", "write the servers as", 6),
        ("\"repomind.io\"", "\"repo mind\"", "cannot stand in a DNS name", 5),
    ] {
        assert!(ZONE.contains(from), "{from}");
        let text = policy(&ZONE.replacen(from, to, 1), "'((count . 2) (ttl-min . 20) (ttl-max . 300))");
        let findings = load(&text).err().unwrap_or_else(|| panic!("{to} was taken"));
        let found = findings.iter().find(|finding| finding.to_string().contains(says));
        let found = found.unwrap_or_else(|| panic!("{to}: {findings:?}"));
        if (found.file.as_str(), found.line) != (FILE, at) {
            elsewhere.push(format!("{found}, not on line {at}"));
        }
    }
    assert!(elsewhere.is_empty(), "{}", elsewhere.join("\n"));
}

#[test]
fn a_share_is_never_read_as_another() {
    let answer = "(list '(count . 1) '(ttl-min . 20) '(ttl-max . 60) (cons 'shares (list (cons (car ranked) 90))))";
    let mut interpreter = load(&policy(ZONE, answer)).unwrap();
    let Routes { dns, rankings } = interpreter.route(&facts()).unwrap();
    let shares = &dns.shapes["api.repomind.io"].default.shares;
    let given: Vec<_> = shares.iter().map(|share| (&share.region, share.weight)).collect();
    assert_eq!(given, [(&rankings[0].regions[0], 90)]);
}

#[test]
fn an_answer_out_of_bounds_is_refused_with_its_place() {
    for answer in [
        "'((count . 0) (ttl-min . 20) (ttl-max . 300))",
        "'((count . 2) (ttl-min . 301) (ttl-max . 300))",
        "'((count . 2) (ttl-min . 20) (ttl-max . 100000))",
        "'((count . 2) (ttl-min . 20))",
        "'((count . 2) (ttl-min . 20) (ttl-max . 300) (shares . ((mars . 1))))",
        "'((count . 2) (ttl-min . 20) (ttl-max . 300) (shares . ((eu-west . 0))))",
        "'((count . 2) (ttl-min . 20) (ttl-max . 300) (shares . ((eu-west . 1) (eu-west . 2))))",
        "'((count . 2) (ttl-min . 20) (ttl-max . 300) (shares . ((eu-west . 70000))))",
        "7",
    ] {
        let findings = load(&policy(ZONE, answer)).err().unwrap_or_else(|| panic!("{answer} was taken"));
        assert!(findings.iter().any(|finding| finding.line > 0 && finding.message.contains("`dns-answer` returned")));
    }
}
