//! The servers and the peer client over real sockets on loopback.

#[path = "sockets/dns.rs"]
mod dns;
#[path = "sockets/dnssec.rs"]
mod dnssec;
#[path = "sockets/front.rs"]
mod front;
#[path = "sockets/upstream.rs"]
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use compliance::ledger::{CosignRequest, WitnessError};
use data::plans::Plans;
use data::{DataPlane, Resolver};
use futures_util::future::BoxFuture;
use http::Uri;
use model::bundle::SignedBundle;
use model::control::{ControlNode, ControlReport};
use model::edge::{CacheRule, EdgePlan, KeyPart, RequestMatch};
use model::names::Feature;
use model::question::Resolution;
use model::radius::{BlastRadius, Comparison, Confirmation, Published, Waiting};
use model::record::{Address, DataClass, Labels, Sibling};
use model::region::{Addresses, Capacity, Coordinates, Region, Regions};
use model::replication::{AckLevel, ConflictResolution, LagAction, LagBands, ReplicationPlan, Strategy};
use model::residency::{CaseRuling, RegionPolicy, ResidencyPlan, Verdict};
use model::routing::{ClientClass, DnsPlan, Observation, Ranking, RegionState, RoutingPlan};
use model::status::RegionStatus;
use model::{Country, Millis, RegionId, RuleId, UnixMillis};
use net::{
    CosignAnswer, CosignRefusal, GatewayConfig, Identity, PeerClient, PeerError, PolicyInForce, TokenVerifier, Wan, pki,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Nobody;

impl Resolver for Nobody {
    fn resolve(
        &self,
        _: &str,
        _: &Address,
        _: &[Sibling],
    ) -> Pin<Box<dyn Future<Output = Option<Resolution>> + Send + 'static>> {
        Box::pin(std::future::ready(None))
    }
}

struct Fixture {
    me: RegionId,
    regions: Arc<Regions>,
    data: DataPlane,
    plans: Arc<Plans>,
    apis: BTreeMap<RegionId, Uri>,
    wan: Wan,
    traffic: routing::TrafficCounts,
}

impl net::Region for Fixture {
    fn id(&self) -> &RegionId {
        &self.me
    }
    fn regions(&self) -> Arc<Regions> {
        self.regions.clone()
    }
    fn data(&self) -> &DataPlane {
        &self.data
    }
    fn plans(&self) -> Arc<Plans> {
        self.plans.clone()
    }
    fn states(&self) -> BTreeMap<RegionId, RegionState> {
        self.regions.by_id.keys().map(|id| (id.clone(), RegionState::Ready)).collect()
    }
    fn status(&self) -> RegionStatus {
        RegionStatus {
            id: self.me.clone(),
            name: "test".into(),
            state: RegionState::Ready,
            gateway: anywhere(),
            admin: anywhere(),
            dns: anywhere(),
            generation: 7,
            policy_hash: String::new(),
            policy_signed_by: None,
            not_ready: None,
            policy_errors: Vec::new(),
            policy_proving: None,
            policy_waiting: None,
            primary: Some(self.me.clone()),
            control: model::control::ControlStatus {
                node: ControlNode(9),
                role: model::control::ControlRole::Outside,
                term: 0,
                voters: Default::default(),
                learners: Default::default(),
                limits: None,
                tightened_alone: false,
            },
            sees: BTreeMap::new(),
            rtt_ms: BTreeMap::new(),
            replication: Vec::new(),
            plan: None,
            eviction: model::eviction::EvictionStatus::default(),
            damage: None,
            agreement: BTreeMap::new(),
            countries: model::status::CountrySource::default(),
            orders: model::orders::Orders::default(),
            emulated: self.wan.status(),
        }
    }
    fn country(&self, _: IpAddr) -> Option<Country> {
        None
    }
    fn api_of(&self, region: &RegionId) -> Option<Uri> {
        self.apis.get(region).cloned()
    }
    fn control_report(&self) -> ControlReport {
        ControlReport { node: ControlNode(9), fresh: true, may_lead: true }
    }
    fn control(&self, from: RegionId, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let answer = match request.as_slice() {
            b"who asks?" => Ok(from.as_str().into()),
            _ => Err("the disk here is that of another voter".into()),
        };
        Box::pin(std::future::ready(answer))
    }
    fn policy_history(&self) -> Vec<model::bundle::GenerationInfo> {
        Vec::new()
    }
    fn policy_tree(&self, generation: u64) -> Result<model::bundle::PolicyTree, String> {
        Err(format!("generation {generation} is not kept here"))
    }
    fn policy_bundle(&self, generation: u64) -> Result<model::bundle::SignedBundle, String> {
        Err(format!("generation {generation} is not kept here"))
    }
    fn next_generation(&self) -> model::signing::NextGeneration {
        let (proposer, operators) = (self.me.clone(), Vec::new());
        model::signing::NextGeneration { generation: 8, parent: None, proposer, operators }
    }
    fn publish(
        self: Arc<Self>,
        _: model::bundle::Proposal,
    ) -> BoxFuture<'static, Result<Published, Vec<model::Finding>>> {
        Box::pin(async { Ok(Published::Generation(8)) })
    }
    fn waiting(&self) -> Option<Waiting> {
        None
    }
    fn confirm(self: Arc<Self>, _: Confirmation) -> BoxFuture<'static, Result<u64, Vec<model::Finding>>> {
        Box::pin(async { Ok(8) })
    }
    fn compare(self: Arc<Self>, _: Comparison) -> BoxFuture<'static, Result<BlastRadius, Vec<model::Finding>>> {
        Box::pin(async { Err(Vec::new()) })
    }
    fn explain(
        self: Arc<Self>,
        _: model::explain::About,
    ) -> BoxFuture<'static, Result<model::explain::Explanation, Vec<model::Finding>>> {
        Box::pin(async { Err(Vec::new()) })
    }
    fn traffic(&self) -> &routing::TrafficCounts {
        &self.traffic
    }
    fn recent_traffic(&self) -> BTreeMap<ClientClass, f64> {
        self.traffic.recent(model::Mono(0))
    }
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
    fn bundle(&self) -> Option<SignedBundle> {
        None
    }
    fn cosign(
        self: Arc<Self>,
        from: RegionId,
        request: CosignRequest,
    ) -> BoxFuture<'static, Result<String, CosignRefusal>> {
        let origin = format!("repomind/{from}");
        Box::pin(std::future::ready(match request.old_size {
            7 => Ok(format!("\u{2014} {origin} line\n")),
            9 => Err(WitnessError::Forked { origin, seen: 9, offered: 12 }.into()),
            offered => Err(WitnessError::OldSize { origin, ours: 7, offered }.into()),
        }))
    }
    fn policy(&self) -> Option<PolicyInForce> {
        None
    }
    fn own_state(&self) -> RegionState {
        RegionState::Ready
    }
    fn observations(&self) -> BTreeMap<RegionId, Observation> {
        BTreeMap::from([(id("us-east"), Observation { probes: 64, losses: 3, losses_in_a_row: 1 })])
    }
    fn decisions(&self) -> Vec<model::judgement::Decision> {
        Vec::new()
    }
    fn wan(&self) -> &Wan {
        &self.wan
    }
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn region(name: &str) -> Region {
    let country = Country::new("IE").unwrap();
    Region {
        id: id(name),
        name: name.into(),
        primary: name == "us-east",
        api: String::new(),
        storage: String::new(),
        capacity: Capacity { min_instances: 1, max_instances: 1, per_instance_rps: 100 },
        features: BTreeSet::from([Feature::new("websockets").unwrap()]),
        coordinates: Coordinates { latitude: 0.0, longitude: 0.0 },
        country,
        jurisdiction: country,
        addresses: Addresses {
            gateway: anywhere(),
            admin: anywhere(),
            peer: anywhere(),
            dns: anywhere(),
            public: vec![anywhere().ip()],
        },
        data_dir: "data".into(),
        peers: BTreeSet::new(),
    }
}

fn plans() -> Plans {
    let default = Strategy {
        lag_target: Millis(5000),
        conflict_resolution: ConflictResolution::LastWriteWins,
        priority_regions: Vec::new(),
        ack: AckLevel::LOCAL,
        default_class: DataClass::Public,
        labels: model::replication::LabelRules::default(),
        quota: Default::default(),
    };
    let rule = CacheRule {
        name: RuleId::new("assets").unwrap(),
        when: RequestMatch { paths: vec!["/assets/".into()], ..RequestMatch::default() },
        statuses: Vec::new(),
        content_types: Vec::new(),
        bypass: false,
        edge_ttl_seconds: 60,
        browser_ttl_seconds: 10,
        stale_while_revalidate_seconds: 0,
        stale_if_error_seconds: 0,
        key: vec![KeyPart::Path],
        vary: Vec::new(),
        tags: Vec::new(),
        class: DataClass::Public,
    };
    let ranking = Ranking { regions: vec![id("us-east"), id("eu-west")] };
    Plans {
        generation: 7,
        policy: None,
        replication: ReplicationPlan { default, namespaces: BTreeMap::new() },
        lag: LagBands(vec![(Millis(0), LagAction::Ok)]),
        residency: ResidencyPlan::default(),
        routing: RoutingPlan { default: ranking, by_class: BTreeMap::new(), dns: DnsPlan::default() },
        edge: EdgePlan { rules: vec![rule], ..EdgePlan::default() },
    }
}

/// The daemon's side of `me`, with its data under `dir`.
fn fixture(dir: &std::path::Path, me: &str, apis: BTreeMap<RegionId, Uri>) -> Arc<Fixture> {
    fixture_with(dir, me, apis, plans())
}

fn fixture_with(dir: &std::path::Path, me: &str, apis: BTreeMap<RegionId, Uri>, plans: Plans) -> Arc<Fixture> {
    let names = ["us-east", "eu-west"];
    let regions = Arc::new(Regions {
        by_id: names.iter().map(|name| (id(name), region(name))).collect(),
        primary: id("us-east"),
        operators: Vec::new(),
    });
    let peers = names.iter().map(|name| id(name)).filter(|name| *name != id(me)).collect();
    let shared = Arc::new(ArcSwap::from_pointee(plans.clone()));
    let data = DataPlane::open(id(me), peers, &dir.join(me), shared, Arc::new(Nobody), [1; 32]).unwrap();
    let traffic = routing::TrafficCounts::default();
    Arc::new(Fixture { me: id(me), regions, data, plans: Arc::new(plans), apis, wan: Wan::emulated(), traffic })
}

fn keys() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    pki::ensure(dir.path(), [&id("us-east"), &id("eu-west")]).unwrap();
    dir
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// One HTTP/1.1 exchange on its own connection: the whole answer, in lower case.
async fn ask(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.to_lowercase()
}

/// Asks again and again until it is so; a test that waits for a minute has failed.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never seen: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A service that gives the same answer to every request.
async fn service(answer: &'static str) -> Uri {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                // What is left of an upgraded connection is sent back.
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    format!("http://{address}").parse().unwrap()
}

async fn gateway(apis: BTreeMap<RegionId, Uri>) -> (SocketAddr, tempfile::TempDir, CancellationToken) {
    let dir = keys();
    let (listener, address) = bind().await;
    let verifier = TokenVerifier::load(dir.path()).unwrap();
    let shutdown = CancellationToken::new();
    let served = fixture(dir.path(), "us-east", apis);
    tokio::spawn(net::serve_gateway(listener, served, verifier, GatewayConfig::default(), shutdown.clone()));
    (address, dir, shutdown)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_the_next_region_when_the_best_one_does_not_answer() {
    let (gone, dead) = bind().await;
    drop(gone);
    let alive = service("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let dead: Uri = format!("http://{dead}").parse().unwrap();
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), dead), (id("eu-west"), alive)])).await;
    let answer = ask(address, "GET /assets/logo HTTP/1.1", "").await;
    assert!(answer.starts_with("http/1.1 200") && answer.ends_with("hi"), "{answer}");
    assert!(answer.contains("repomind-region: eu-west"), "{answer}");
    assert!(answer.contains("\r\ncache-control: max-age=10") && answer.contains("cdn-cache-control: max-age=60"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_have_had_effects_is_never_sent_twice() {
    let unwell = service("HTTP/1.1 503 Unwell\r\ncontent-length: 0\r\n\r\n").await;
    let alive = service("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), unwell), (id("eu-west"), alive)])).await;
    let posted = ask(address, "POST /ask HTTP/1.1", "x").await;
    assert!(posted.starts_with("http/1.1 503") && posted.contains("repomind-region: us-east"), "{posted}");
    let put = ask(address, "PUT /ask HTTP/1.1", "x").await;
    assert!(put.starts_with("http/1.1 200") && put.contains("repomind-region: eu-west"), "{put}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_passed_through_once_the_service_agrees() {
    let agreeing =
        service("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n").await;
    let (address, _dir, _) = gateway(BTreeMap::from([(id("us-east"), agreeing)])).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_not_read_without_a_token_and_large_bodies_are_refused() {
    let (address, dir, _) = gateway(BTreeMap::new()).await;
    let refused = ask(address, "GET /v1/data/answers/k HTTP/1.1", "").await;
    assert!(refused.starts_with("http/1.1 401") && refused.contains("application/problem+json"), "{refused}");
    let reader = pki::issue_token(dir.path(), "reader", "data:read", Duration::from_secs(60)).unwrap();
    let bearer = format!("authorization: Bearer {reader}");
    let written = ask(address, &format!("PUT /v1/data/answers/k HTTP/1.1\r\n{bearer}"), "x").await;
    assert!(written.starts_with("http/1.1 403") && written.contains("data:write"), "{written}");
    let missing = ask(address, &format!("GET /v1/data/answers/k HTTP/1.1\r\n{bearer}"), "").await;
    assert!(missing.starts_with("http/1.1 404") && missing.contains("repomind-generation: 7"), "{missing}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /ask HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000000\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_need_a_token_for_records_and_links_and_none_for_health() {
    let dir = keys();
    let (listener, address) = bind().await;
    let served = fixture(dir.path(), "us-east", BTreeMap::new());
    let verifier = TokenVerifier::load(dir.path()).unwrap();
    let metrics = net::install_metrics().unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(net::serve_admin(listener, served.clone(), verifier, metrics, shutdown.clone()));
    for open in ["/healthz", "/readyz", "/metrics", "/status"] {
        let answer = ask(address, &format!("GET {open} HTTP/1.1"), "").await;
        assert!(answer.starts_with("http/1.1 200"), "{open}: {answer}");
    }
    for closed in [
        "GET /decisions",
        "GET /rows",
        "GET /digests",
        "GET /ledger",
        "GET /evidence",
        "GET /policy/history",
        "PUT /wan",
    ] {
        let answer = ask(address, &format!("{closed} HTTP/1.1"), "{}").await;
        assert!(answer.starts_with("http/1.1 401"), "{closed}: {answer}");
    }
    let token = std::fs::read_to_string(dir.path().join("token")).unwrap();
    let bearer = format!("authorization: Bearer {token}");
    let change = r#"{"peer":"eu-west","delay_ms":35}"#;
    let answer = ask(address, &format!("PUT /wan HTTP/1.1\r\n{bearer}"), change).await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert_eq!(served.wan.delays_ms()[&id("eu-west")], 35.0);
    let change = r#"{"peer":"eu-west","loss":0.02,"cut":"out"}"#;
    let answer = ask(address, &format!("PUT /wan HTTP/1.1\r\n{bearer}"), change).await;
    assert!(
        answer.ends_with(r#"{"peer":"eu-west","delay_ms":35.0,"jitter_ms":0.0,"loss":0.02,"cut":"out"}"#),
        "{answer}"
    );
    let status = ask(address, "GET /status HTTP/1.1", "").await;
    assert!(status.contains(r#""emulated_loss":{"eu-west":0.02}"#), "{status}");
    assert!(status.contains(r#""emulated_cut":{"eu-west":"out"}"#), "{status}");
    for (member, field) in [(r#""loss":1.5"#, "loss"), (r#""cut":"up""#, "cut"), (r#""delay":1"#, "delay")] {
        let change = format!(r#"{{"peer":"eu-west",{member}}}"#);
        let answer = ask(address, &format!("PUT /wan HTTP/1.1\r\n{bearer}"), &change).await;
        assert!(answer.starts_with("http/1.1 422"), "{answer}");
        assert!(answer.contains(&format!(r#""field":"{field}""#)), "{answer}");
    }
    let rows = ask(address, &format!("GET /rows HTTP/1.1\r\n{bearer}"), "").await;
    assert!(rows.starts_with("http/1.1 200"), "{rows}");
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(6), server).await.expect("the server drains").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_pays_the_emulated_distance_and_a_stranger_gets_no_answer() {
    let (dir, strangers) = (keys(), keys());
    let (listener, address) = bind().await;
    let served = fixture(dir.path(), "eu-west", BTreeMap::new());
    let shutdown = CancellationToken::new();
    let ours = Identity::load(dir.path(), &id("eu-west")).unwrap();
    tokio::spawn(net::serve_peer(listener, ours, served, shutdown.clone()));
    let identity = Identity::load(dir.path(), &id("us-east")).unwrap();
    let wan = Wan::emulated();
    let client = PeerClient::new(id("eu-west"), address, &identity, wan.clone()).unwrap();
    let report = client.probe().await.unwrap().0;
    assert_eq!(report.generation, 7);
    assert_eq!(report.sees[&id("us-east")].losses, 3, "a peer's own observations did not arrive");
    let change = net::wan::WanChange { delay_ms: Some(40.0), ..net::wan::WanChange::to(id("eu-west")) };
    wan.set(&change).unwrap();
    let begun = Instant::now();
    client.probe().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(80), "{:?}", begun.elapsed());
    assert_eq!(client.fetch_bundle().await.unwrap(), None);
    assert_eq!(report.control.node, ControlNode(9));
    assert_eq!(client.control(b"who asks?".to_vec()).await.unwrap(), "us-east");
    let refused = client.control(b"voter 7?".to_vec()).await.unwrap_err();
    assert!(matches!(refused, PeerError::Refused { status: 409, .. }), "{refused}");

    let mut forged = Identity::load(strangers.path(), &id("us-east")).unwrap();
    forged.ca = identity.ca.clone();
    let stranger = PeerClient::new(id("eu-west"), address, &forged, Wan::none()).unwrap();
    assert!(stranger.probe().await.is_err());
    // A region must not pass for the one that it speaks with.
    let same = Identity::load(dir.path(), &id("eu-west")).unwrap();
    assert!(PeerClient::new(id("eu-west"), address, &same, Wan::none()).unwrap().probe().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_with_a_rotated_certificate_still_speaks_with_those_that_run_with_the_old_one() {
    let dir = keys();
    let identity = |region: &str| Identity::load(dir.path(), &id(region)).unwrap();
    let old = [identity("us-east"), identity("eu-west")];
    for region in ["us-east", "eu-west"] {
        pki::rotate_node(dir.path(), &id(region)).unwrap();
    }
    let new = [identity("us-east"), identity("eu-west")];
    assert_ne!(old[1].key, new[1].key);
    let served = fixture(dir.path(), "eu-west", BTreeMap::new());
    for [east, west] in [[&old[0], &new[1]], [&new[0], &old[1]], [&new[0], &new[1]]] {
        let (listener, address) = bind().await;
        let shutdown = CancellationToken::new();
        tokio::spawn(net::serve_peer(listener, west.clone(), served.clone(), shutdown.clone()));
        let client = PeerClient::new(id("eu-west"), address, east, Wan::none()).unwrap();
        assert_eq!(client.probe().await.unwrap().0.generation, 7);
        shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_proof_is_answered_with_the_size_and_a_fork_with_a_refusal() {
    let dir = keys();
    let identity = |name: &str| Identity::load(dir.path(), &id(name)).unwrap();
    let (listener, address) = bind().await;
    let served = fixture(dir.path(), "us-east", BTreeMap::new());
    tokio::spawn(net::serve_peer(listener, identity("us-east"), served, CancellationToken::new()));
    let client = PeerClient::new(id("us-east"), address, &identity("eu-west"), Wan::none()).unwrap();
    let request = |old_size| CosignRequest { old_size, proof: Vec::new(), note: "note\n\n\u{2014} a b\n".into() };
    assert_eq!(client.cosign(&request(3)).await, Ok(CosignAnswer::From(7)));
    // The ledger is that of the region in the certificate.
    let line = "\u{2014} repomind/eu-west line\n".to_owned();
    assert_eq!(client.cosign(&request(7)).await, Ok(CosignAnswer::Line(line)));
    let forked = client.cosign(&request(9)).await;
    assert!(
        matches!(&forked, Err(PeerError::Refused { status: 422, detail, .. }) if detail.contains("forked")),
        "{forked:?}"
    );
}

/// The plans, with public records allowed in these regions.
fn plans_for(regions: &[&str]) -> Plans {
    let allow = Verdict::Allow {
        rule: RuleId::new("may-be-here").unwrap(),
        obligations: BTreeSet::new(),
        valid_from: UnixMillis(0),
        valid_until: UnixMillis::MAX,
    };
    let labels = Labels::of_class(DataClass::Public, UnixMillis(0));
    let ruling = Arc::new(CaseRuling {
        hold: regions.iter().map(|region| (id(region), allow.clone())).collect(),
        transfer: BTreeMap::from([((id("eu-west"), id("us-east")), allow)]),
    });
    let cases = ResidencyPlan::cases_of(&labels).into_iter().map(|case| (case, ruling.clone())).collect();
    let policy = |region: &&str| RegionPolicy {
        region: id(region),
        jurisdiction: Country::new("IE").unwrap(),
        accepts: labels.classes.clone(),
        requires: BTreeSet::new(),
    };
    let policies = regions.iter().map(|region| (id(region), policy(region))).collect();
    Plans { residency: ResidencyPlan::new(cases, policies), ..plans() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_refuses_its_copy_over_the_wire_is_named_and_not_counted() {
    let dir = keys();
    let shutdown = CancellationToken::new();
    // us-east has a plan by which the record may be in eu-west alone; eu-west has not heard of it.
    let us = fixture_with(dir.path(), "us-east", BTreeMap::new(), plans_for(&["eu-west"]));
    let (listener, peer) = bind().await;
    let theirs = Identity::load(dir.path(), &id("us-east")).unwrap();
    tokio::spawn(net::serve_peer(listener, theirs, us.clone(), shutdown.clone()));
    let eu = fixture_with(dir.path(), "eu-west", BTreeMap::new(), plans_for(&["eu-west", "us-east"]));
    let ours = Identity::load(dir.path(), &id("eu-west")).unwrap();
    let client = Arc::new(PeerClient::new(id("us-east"), peer, &ours, Wan::none()).unwrap());
    tokio::spawn(net::run_link(eu.data.clone(), client, shutdown.clone()));
    let (listener, address) = bind().await;
    let verifier = TokenVerifier::load(dir.path()).unwrap();
    tokio::spawn(net::serve_gateway(listener, eu.clone(), verifier, GatewayConfig::default(), shutdown.clone()));

    let token = pki::issue_token(dir.path(), "writer", "data:write", Duration::from_secs(3600)).unwrap();
    let head = format!("PUT /v1/data/answers/k HTTP/1.1\r\nauthorization: Bearer {token}\r\nrepomind-ack: regions");
    let unknown = ask(address, &format!("{head}:2"), "canary").await;
    assert!(unknown.starts_with("http/1.1 504"), "{unknown}");
    assert!(unknown.contains(r#""copies":1"#) && unknown.contains(r#""refused_by":["us-east"]"#), "{unknown}");
    let too_many = ask(address, &format!("{head}:3"), "x").await;
    assert!(too_many.starts_with("http/1.1 422") && too_many.contains(r#""in_scope":2"#), "{too_many}");
    let mut rows = 0;
    us.data
        .each_row(&mut |_, _| {
            rows += 1;
            true
        })
        .unwrap();
    assert_eq!(rows, 0);
    shutdown.cancel();
}
