//! The daemon: reads everything, then binds, then runs until it is told to stop.
//!
//! Order matters. Configuration, certificates and keys are read before any port
//! is bound, so that a mistake costs nothing. Policies are loaded last and may
//! be replaced at any time; until the first generation is in force the region
//! denies every record and reports that it is not ready.

pub mod comparing;
pub mod control;
pub mod edges;
pub mod evicting;
pub mod explaining;
pub mod gate;
mod gauges;
pub mod generations;
pub mod geoip;
mod history;
pub mod judging;
pub mod mending;
pub mod notary;
mod objects;
mod orders;
pub mod petitions;
pub mod probes;
pub mod proofs;
pub mod repl;
pub mod retention;
pub mod running;
mod snapshot;
pub mod traffic;
pub mod watch;
mod zone_keys;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::control::RaftLog;
use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use data::plans::Plans;
use data::vault::KeyPlace;
use data::{DataPlane, Opening, Resolver, Retention};
use futures_util::future::BoxFuture;
use http::Uri;
use model::question::{Answer, Question, Resolution};
use model::record::{Address, Sibling};
use model::region::Regions;
use model::{ByteCount, Finding, Millis, RegionId};
use net::pki::PolicyKeys;
use net::{DnsAnswers, DnsConfig, DnsSockets, GatewayConfig, PeerClient, TokenVerifier, Wan};
use policy::{HostLimits, PolicyHost};
use store::Store;
use store::objects::FileObjects;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{ApiOf, LogForm, StartArgs, WanProfile};
use crate::decisions::recorder::{Loaded, Note, Recorder};
use crate::decisions::{self, Kind};
use control::Control;
use generations::Generations;
use notary::{Notary, NotaryKeys};
use running::RunningRegion;

/// How long open requests and shipments may take once the daemon was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// For how long logs keep what every region has, for clients that watch and come back.
const WATCHED: Millis = Millis::from_secs(600);
/// Bad usage or configuration, as `sysexits.h` has it.
const BAD_CONFIGURATION: u8 = 64;

/// Asks the generation in force to settle conflicts. It is filled in once the generations exist.
#[derive(Default)]
struct PolicyResolver(arc_swap::ArcSwapOption<RunningRegion>);

impl Resolver for PolicyResolver {
    fn resolve(
        &self,
        resolver: &str,
        address: &Address,
        siblings: &[Sibling],
    ) -> BoxFuture<'static, Option<Resolution>> {
        let asked = self.0.load().as_ref().and_then(|region| {
            let (child, by) = region.generations.asked()?;
            Some((child, by, region.recorder.clone()))
        });
        let question =
            Question::Resolve { resolver: resolver.into(), address: address.clone(), siblings: siblings.to_vec() };
        Box::pin(async move {
            let (child, by, recorder) = asked?;
            match child.ask(question.clone()).await {
                Ok(Answer::Resolved(resolution)) => {
                    recorder.note(Kind::Conflict, || settled(by, question, &resolution));
                    Some(resolution)
                }
                Ok(Answer::Refused(findings)) => {
                    tracing::warn!(finding = %findings.first().map(ToString::to_string).unwrap_or_default(), "a resolver gave no settlement");
                    None
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "a resolver gave no settlement");
                    None
                }
            }
        })
    }
}

/// The note of a conflict that was settled.
fn settled(by: Arc<Loaded>, question: Question, resolution: &Resolution) -> Note {
    let (withheld, about) = match &question {
        Question::Resolve { address, siblings, .. } => {
            (decisions::barred(siblings), decisions::words::conflict(address.namespace.as_str(), siblings))
        }
        _ => (None, String::new()),
    };
    let why = "a key was written in several regions at the same time".to_owned();
    Note { by, why, about, question, answer: Answer::Resolved(resolution.clone()), gave: None, withheld }
}

/// Runs one region until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the region from starting or from stopping cleanly; bad
/// configuration is printed and gives exit code 64 instead.
pub async fn run(args: StartArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    crate::deploy::state::private_files();
    log(args.log);
    let regions = match config::load(&args.tree) {
        Ok(regions) => regions,
        Err(findings) => return Ok(refuse(&findings)),
    };
    let regions = Arc::new(match args.first_port {
        Some(port) => config::on_one_address(&regions, port)?,
        None => regions,
    });
    let Some(me) = regions.by_id.get(&args.region).cloned() else {
        let known = regions.by_id.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        eprintln!(
            "error: no region is called {}; {} has {known}",
            args.region,
            args.tree.join("region-config").display()
        );
        return Ok(ExitCode::from(BAD_CONFIGURATION));
    };
    let secrets = net::pki::load(&args.state.join("pki"), &me.id)
        .with_context(|| format!("certificates of {} in {}", me.id, args.state.join("pki").display()))?;
    net::pki::no_operator_key(&args.state.join("pki"), &regions.operators)?;
    let apis = service_addresses(&regions, &args.api)?;
    let metrics = net::install_metrics()?;
    gauges::describe();

    let gateway = gateway_config(&args)?;
    let listeners = Listeners::bind(&me).await?;
    let host = PolicyHost::start(
        &std::env::current_exe()?,
        crate::embedded::library(),
        HostLimits { load: Millis(3000), question: Millis(500), memory: ByteCount(512 << 20) },
    )?;
    for missing in policy::cage_report() {
        tracing::warn!(%missing, "the policy host's cage is incomplete on this system");
    }
    let plans = Arc::new(ArcSwap::from_pointee(Plans::deny_all()));
    let resolver = Arc::new(PolicyResolver::default());
    // Relative ones lie in the state directory, absolute ones where they say.
    let data_dir = args.state.join(&me.data_dir).join("data");
    crate::deploy::state::make(&args.state)?;
    std::fs::create_dir_all(&data_dir).with_context(|| format!("data directory {}", data_dir.display()))?;
    let mut opening =
        Opening::new(me.id.clone(), me.peers.clone(), plans.clone(), resolver.clone(), secrets.digest_key);
    opening.keep = Retention {
        age: Millis::from_secs(args.keep_log_seconds),
        bytes: ByteCount(args.keep_log_mib.saturating_mul(1 << 20)),
        watched: WATCHED,
    };
    // Beside the data and not in it: a backup of the data has no keys.
    let key_dir = args.state.join(&me.data_dir).join("keys");
    opening.keys = Some(KeyPlace::in_files(&key_dir, opening.clock.wall())?);
    let objects = objects::place(&args, &me);
    let kept = FileObjects::open(&objects)
        .with_context(|| format!("the object store of {} in {}", me.id, objects.display()))?;
    opening.objects = Some(Arc::new(kept));
    let failed = |error: data::DataError| cannot_open(error, &me.id, &data_dir);
    let store = Store::open(&data_dir, opening.clock.wall()).map_err(|error| failed(error.into()))?;
    let data = DataPlane::start(store.clone(), opening).map_err(failed)?;
    let wan = match args.wan {
        WanProfile::Realistic => Wan::realistic(&me.id, &regions),
        WanProfile::Lan => Wan::emulated(),
        WanProfile::None => Wan::none(),
    };
    let policy_keys = PolicyKeys::new(&regions.operators, secrets.policy_verifiers);
    let may_lead = policy_keys.production() || secrets.policy_signer.is_some();
    let control = open_control(&me, &regions, (&store, &data_dir), (&secrets.identity, &wan), may_lead).await?;
    let decided = args.state.join(me.id.as_str()).join(decisions::disk::FOLDER);
    let recorder = Recorder::start(me.id.clone(), &decided);
    let recorder = Arc::new(recorder.with_context(|| format!("the decision log in {}", decided.display()))?);
    let dns = Arc::new(DnsAnswers::new(regions.clone()));
    zone_keys::take(&dns, &args.state.join("pki"))?;
    let cookies = routing::dns::CookieKey::derived_from(&secrets.digest_key);
    let proved = args.state.join(me.id.as_str()).join("policy/proofs");
    let proofs = proofs::Proofs::open(proved, proofs::build());
    let generations = Generations::new(
        me.id.clone(),
        regions.clone(),
        host.clone(),
        (secrets.policy_signer, policy_keys),
        (history(&args.state, &me.id), proofs),
        (plans.clone(), dns.clone()),
        (data.clone(), control.clone(), recorder.clone()),
    );
    let keys = NotaryKeys {
        ledger: secrets.ledger_signer,
        witness: secrets.witness_signer,
        ledgers: secrets.ledger_verifiers,
        witnesses: secrets.witness_verifiers,
    };
    let notary = Notary::open(&me.id, keys, &data)?;
    let petitions = petitions::Petitions::open(&data)?;
    // Others may have erased somebody since this disk was last in use, or since the copy that it was put back from.
    data.fence(!me.peers.is_empty());
    let countries =
        geoip::Countries::open(args.geoip.as_deref()).map_err(|error| anyhow::anyhow!("--geoip: {error}"))?;
    let countries = Arc::new(countries);
    let traffic = Arc::new(traffic::Traffic::default());
    let dns_config =
        DnsConfig { traffic: traffic.here.clone(), ..DnsConfig::new(me.id.clone(), cookies, countries.table.clone()) };
    let region = Arc::new(RunningRegion {
        classes: routing::classes(),
        health: Mutex::new(routing::HealthTracker::new(me.peers.clone())),
        judging: judging::Judging::new(&me.id, &regions),
        wan,
        control,
        me: me.id.clone(),
        dns,
        adopted: tokio::sync::Notify::new(),
        states: ArcSwap::from_pointee(BTreeMap::new()),
        api_ok: AtomicBool::new(false),
        regions,
        data,
        data_dir,
        generations,
        recorder,
        decisions_dir: decided,
        orders: orders::Standing::open(args.state.join(me.id.as_str()).join("orders"), decisions::now()),
        notary,
        petitions,
        evicting: evicting::Evicting::default(),
        plans,
        apis,
        traffic,
        countries,
        objects: crate::assets::folder_of(args.storage.as_deref().unwrap_or(&me.storage)),
        secrets: args.state.join("secrets"),
        told: edges::Told::new(gateway.certificate.is_some()),
        started,
        agreement: Mutex::default(),
    });
    resolver.0.store(Some(region.clone()));
    region.generations.pin(region.orders.holding().pins.clone());
    region.generations.resume(region.facts()).await;

    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let verifier = TokenVerifier::new(secrets.token_key)?;
    if let Some(certificate) = &gateway.certificate {
        tasks.spawn(certificate.clone().follow(stop.clone()));
    }
    listeners.serve(&region, (verifier, metrics), (gateway, dns_config), &secrets.identity, (&tasks, &stop));
    start_tasks(&region, &secrets.identity, &args, (&tasks, &stop))?;
    tracing::info!(region = %region.me, gateway = %me.addresses.gateway, admin = %me.addresses.admin, dns = %me.addresses.dns, "the region is up");

    wait_for_signal().await?;
    tracing::info!("told to stop: finishing open work");
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!(after = ?DRAIN, "open work is cut off");
    }
    region.data.close().await;
    resolver.0.store(None);
    region.recorder.close();
    host.shutdown();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// How the gateway meets its clients.
fn gateway_config(args: &StartArgs) -> anyhow::Result<GatewayConfig> {
    let certificate = args.tls_cert.clone().zip(args.tls_key.clone());
    let certificate = certificate.map(|(chain, key)| net::Certificate::open(chain, key)).transpose()?;
    Ok(GatewayConfig {
        certificate: certificate.map(Arc::new),
        proxies: args.trust_proxy.clone(),
        proxy_protocol: args.proxy_protocol,
        access_log: args.access_log,
    })
}

/// Opens this region's side of the log that the regions agree on.
async fn open_control(
    me: &model::region::Region,
    regions: &Regions,
    (store, dir): (&Store, &Path),
    (identity, wan): (&net::Identity, &Wan),
    may_lead: bool,
) -> anyhow::Result<Arc<Control>> {
    let mut clients = Vec::new();
    for other in regions.by_id.values().filter(|other| other.id != me.id) {
        let client = PeerClient::new(other.id.clone(), other.addresses.peer, identity, wan.clone())?;
        clients.push(Arc::new(client));
    }
    let peers = Arc::new(control::Peers::new(clients.iter().cloned()));
    let log = RaftLog::open(me.id.clone(), store, peers, may_lead).await;
    let log = log.with_context(|| {
        format!(
            "the common log of {} in {} cannot be opened; if it is damaged, move that directory elsewhere, keep it, and \
             start the region again: it takes over from the other regions what they hold",
            me.id,
            dir.display()
        )
    })?;
    Ok(Arc::new(Control::new(me.id.clone(), log, clients)))
}

/// The generations that a region keeps.
pub fn history(state: &Path, region: &RegionId) -> history::History {
    history::History::new(state.join(region.as_str()).join("policy"))
}

/// The journals of the engine: the writes that are in no other file yet.
fn journals(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let all: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|end| end == "jnl"))
        .map(|p| p.display().to_string())
        .collect();
    all.join(" or ")
}

/// Why a region's data cannot be opened, and what to do.
fn cannot_open(error: data::DataError, region: &RegionId, dir: &Path) -> anyhow::Error {
    use crate::deploy::{processes, state};
    let dir_shown = dir.display();
    // The engine locks this file while it has the directory open.
    if let Some(pid) = state::holder(&dir.join("lock")) {
        let command = i32::try_from(pid).ok().and_then(processes::command_line).unwrap_or_default().join(" ");
        return anyhow::anyhow!(
            "{dir_shown} is in use by process {pid} ({command}): {region} runs already; end that process first, or \
             start this region with another --state"
        );
    }
    match error {
        data::DataError::Store(error) => {
            let error = error.to_string();
            let file = if error.contains("Journal") { journals(dir) } else { format!("a file in {dir_shown}") };
            anyhow::anyhow!(
                "the data of {region} cannot be opened: {error}; {file} is damaged or cannot be read. Look at the disk \
                 (`journalctl -k`) and at who owns it. If it is damaged for good: move {dir_shown} elsewhere, keep it, \
                 and start the region again; it takes over from the other regions what they hold, and the audit reports \
                 from then on that its ledger was lost. What was acknowledged with `local` and had not reached another \
                 region is in the directory that was moved, and nowhere else"
            )
        }
        other => anyhow::Error::new(other).context(format!("the data of {region} in {dir_shown}")),
    }
}

/// Begins to log to standard error. `REPOMIND_LOG` says what, as in `info,net=debug`.
pub fn log(form: LogForm) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("REPOMIND_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,fjall=warn,lsm_tree=warn,openraft=error"));
    // A region outlives whoever reads its log: a line that cannot be written is not complained of on the same stream.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let begun = match form {
        LogForm::Pretty => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogForm::Json => lines.json().try_init(),
    };
    if let Err(error) = begun {
        eprintln!("warning: nothing is logged: {error}");
    }
}

fn refuse(findings: &[Finding]) -> ExitCode {
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    for finding in findings {
        eprintln!("{}\n", finding.render(colour));
    }
    eprintln!("nothing was started: {} error(s) in the configuration", findings.len());
    ExitCode::from(BAD_CONFIGURATION)
}

/// The sockets of a region, bound and not yet served.
struct Listeners {
    gateway: TcpListener,
    admin: TcpListener,
    peer: TcpListener,
    dns: DnsSockets,
}

impl Listeners {
    async fn bind(region: &model::region::Region) -> anyhow::Result<Self> {
        let bind = async |what: &str, address: std::net::SocketAddr| {
            TcpListener::bind(address)
                .await
                .with_context(|| format!("the {what} address {address} of {} cannot be bound", region.id))
        };
        Ok(Self {
            gateway: bind("gateway", region.addresses.gateway).await?,
            admin: bind("admin", region.addresses.admin).await?,
            peer: bind("peer", region.addresses.peer).await?,
            dns: net::bind_dns(region.addresses.dns).await.with_context(|| {
                format!("the dns address {} of {} cannot be bound", region.addresses.dns, region.id)
            })?,
        })
    }

    fn serve(
        self,
        region: &Arc<RunningRegion>,
        (verifier, metrics): (TokenVerifier, net::MetricsHandle),
        (gateway, dns): (GatewayConfig, DnsConfig),
        identity: &net::Identity,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) {
        let served: Arc<dyn net::Region> = region.clone();
        tasks.spawn(net::serve_gateway(self.gateway, served.clone(), verifier.clone(), gateway, stop.clone()));
        tasks.spawn(net::serve_admin(self.admin, served.clone(), verifier, metrics, stop.clone()));
        tasks.spawn(net::serve_dns(self.dns, region.dns.clone(), dns, stop.clone()));
        tasks.spawn(net::serve_peer(self.peer, identity.clone(), served, stop.clone()));
    }
}

fn start_tasks(
    region: &Arc<RunningRegion>,
    identity: &net::Identity,
    args: &StartArgs,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> anyhow::Result<()> {
    let (mut witnesses, mut homes, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    for peer in region.peers() {
        let address = region.regions.by_id[&peer].addresses.peer;
        let connect = || PeerClient::new(peer.clone(), address, identity, region.wan.clone());
        witnesses.push(connect()?);
        homes.push(connect()?);
        chunks.push(connect()?);
        tasks.spawn(petitions::hear(region.clone(), connect()?, stop.clone()));
        let every = Duration::from_secs(args.compare_seconds);
        tasks.spawn(comparing::keep(region.clone(), connect()?, every, stop.clone()));
        tasks.spawn(mending::ask(region.clone(), connect()?, stop.clone()));
        let client = Arc::new(connect()?);
        tasks.spawn(traffic::keep(region.clone(), peer.clone(), client.clone(), stop.clone()));
        tasks.spawn(probes::probe_peer(region.clone(), peer.clone(), client, stop.clone()));
        tasks.spawn(net::run_link(region.data.clone(), Arc::new(connect()?), stop.clone()));
    }
    region.data.fetch_chunks_by(Arc::new(net::PeerChunks::new(chunks)));
    let every = Duration::from_secs(args.sweep_objects_seconds);
    tasks.spawn(objects::keep(region.data.clone(), every, stop.clone()));
    tasks.spawn(notary::keep_checkpoints(region.clone(), witnesses, stop.clone()));
    tasks.spawn(mending::scrub(region.clone(), stop.clone()));
    tasks.spawn(petitions::keep(region.clone(), stop.clone()));
    tasks.spawn(evicting::keep(region.clone(), homes, stop.clone()));
    tasks.spawn(retention::keep(region.clone(), stop.clone()));
    tasks.spawn(probes::probe_service(region.clone(), stop.clone()));
    tasks.spawn(probes::keep_routing(region.clone(), stop.clone()));
    tasks.spawn(judging::keep_judging(region.clone(), stop.clone()));
    tasks.spawn(region.countries.clone().follow(stop.clone()));
    let (resolving, stopped) = (region.data.clone(), stop.clone());
    tasks.spawn(async move {
        let _ = stopped.run_until_cancelled(resolving.keep_resolving()).await;
    });
    tasks.spawn(zone_keys::follow(region.dns.clone(), args.state.join("pki"), stop.clone()));
    tasks.spawn(gauges::keep(region.clone(), stop.clone()));
    for client in &region.control.clients {
        tasks.spawn(control::keep_connected(client.clone(), stop.clone()));
    }
    tasks.spawn(control::keep_leader(region.clone(), stop.clone()));
    tasks.spawn(control::keep_members(region.clone(), stop.clone()));
    tasks.spawn(control::follow(region.clone(), stop.clone()));
    tasks.spawn(orders::follow(region.clone(), stop.clone()));
    tasks.spawn(tend(region.data.clone(), Duration::from_secs(args.keep_log_seconds) / 4, stop.clone()));
    let (watched, root, watching) = (region.clone(), args.tree.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = watch::watch(watched, root, watching).await {
            tracing::error!(%error, "edited policy files are no longer noticed; restart this region");
        }
    });
    let socket = args.state.join(region.me.as_str()).join("repl.sock");
    let (asked, stop) = (region.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = repl::serve(asked, &socket, stop).await {
            tracing::error!(%error, socket = %socket.display(), "the REPL socket cannot be served");
        }
    });
    Ok(())
}

/// Has the region forget what nobody needs any more, every [`data::TEND_EVERY`], or more often where logs are kept
/// for less than some such spans.
async fn tend(data: DataPlane, most: Duration, stop: CancellationToken) {
    let every = data::TEND_EVERY.min(most).max(Duration::from_secs(1));
    let runtime = tokio::runtime::Handle::current();
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        let (data, runtime) = (data.clone(), runtime.clone());
        // Reads from disk: not on the threads that serve sockets.
        match tokio::task::spawn_blocking(move || runtime.block_on(data.tend())).await {
            Ok(Err(data::DataError::Closed)) => return,
            Ok(Err(error)) => tracing::error!(%error, "old entries and tombstones could not be cleared away"),
            Ok(Ok(_)) | Err(_) => {}
        }
    }
}

fn service_addresses(regions: &Regions, stated: &[ApiOf]) -> anyhow::Result<BTreeMap<RegionId, Uri>> {
    let mut apis = BTreeMap::new();
    for region in regions.by_id.values() {
        let uri = region.api.parse().with_context(|| format!("services.api of {}", region.id))?;
        apis.insert(region.id.clone(), uri);
    }
    for ApiOf { region, url } in stated {
        if !regions.by_id.contains_key(region) {
            bail!("--api {region}={url}: no region is called {region}");
        }
        apis.insert(region.clone(), url.clone());
    }
    Ok(apis)
}

async fn wait_for_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
