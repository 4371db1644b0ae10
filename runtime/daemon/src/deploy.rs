//! Starts every region of a tree on this machine, and waits until all of them
//! serve and see each other.
//!
//! Running it twice changes nothing: a process that runs is left alone, one
//! that has died is started again. A run that fails, or that is interrupted,
//! stops everything that it started itself. Nothing is started before every
//! port was found free, so that the commonest mistake costs nothing.

mod edges;
pub mod identity;
pub mod processes;
mod progress;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use model::region::{Region, Regions};
use model::routing::RegionState;
use model::{Finding, RegionId};

use crate::args::{DeployArgs, FINDING, LocalEdge, Place, WanProfile};
use crate::client::Client;
use processes::{Deployment, Role, Started};
use progress::Progress;

/// The port of the sample service beside each gateway.
const SERVICE_PORT: u16 = 8081;
/// How long a process may take to end by itself when a deployment is undone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The tree's files were refused; every finding is shown.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|finding| finding.render(false)).collect::<Vec<_>>().join("\n\n"))]
pub struct BadConfiguration(pub Vec<Finding>);

/// The tree's policies were refused: what `check` calls a finding.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadPolicies(String);

/// How a deployment is to be.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Delay between regions.
    pub wan: WanProfile,
    /// All regions on one address, from this port on.
    pub first_port: Option<u16>,
    /// The edges before them.
    pub edges: BTreeSet<LocalEdge>,
}

impl Wishes {
    /// Regions alone.
    pub const fn regions(wan: WanProfile, first_port: Option<u16>) -> Self {
        Self { wan, first_port, edges: BTreeSet::new() }
    }
}

/// What a deployment did.
pub struct Outcome {
    /// The deployment as it is now.
    pub deployment: Deployment,
    /// The processes that this run started.
    pub fresh: Vec<Started>,
}

/// `repomind-run deploy`.
pub async fn run(args: DeployArgs) -> anyhow::Result<ExitCode> {
    let wishes = Wishes { wan: args.wan, first_port: args.first_port, edges: args.with_edge.iter().copied().collect() };
    if args.dry_run {
        return dry_run(&args.place, &wishes);
    }
    let began = Instant::now();
    state::private_files();
    let outcome = deploy(&args.place, &wishes, Duration::from_secs(args.timeout)).await?;
    let client = Client::new(&args.place.state)?;
    let mut status = crate::status::gather(&client, &outcome.deployment.admins(), &outcome.deployment.primary).await;
    status.edges = crate::status::edges(&args.place.state, &outcome.deployment);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", crate::status::table(&status));
    crate::status::notes(&status).iter().for_each(|note| println!("{note}"));
    match outcome.fresh.len() {
        0 => println!("everything was running already: nothing was changed"),
        count => println!("{count} processes started in {:.1} s", began.elapsed().as_secs_f64()),
    }
    if status.regions.iter().any(|region| region.generation == 0) {
        return Ok(ExitCode::from(FINDING));
    }
    try_this(&args.place, &outcome.deployment);
    Ok(ExitCode::SUCCESS)
}

/// Starts what does not run, waits until all regions serve; undoes its own work when that fails.
pub async fn deploy(place: &Place, wishes: &Wishes, timeout: Duration) -> anyhow::Result<Outcome> {
    let (regions, first_port) = regions(&place.tree, wishes.first_port)?;
    let wishes = Wishes { first_port, ..wishes.clone() };
    let lock = state::Lock::take(&place.state, "deploy")?;
    let place = Place { tree: absolute(&place.tree)?, state: absolute(&place.state)? };
    let outcome = locked(&place, &regions, &wishes, timeout).await;
    if outcome.is_err() {
        lock.undo();
    }
    outcome
}

async fn locked(place: &Place, regions: &Regions, wishes: &Wishes, timeout: Duration) -> anyhow::Result<Outcome> {
    let mut deployment = Deployment::new(place.tree.clone(), regions);
    if let Some(earlier) = Deployment::read(&place.state)? {
        let (still, ended): (Vec<Started>, Vec<Started>) = earlier.started.iter().cloned().partition(Started::runs);
        // One that was killed a moment ago still holds its ports.
        processes::gone(&ended, PATIENCE).await;
        if !still.is_empty() {
            same(&earlier, &deployment, &place.state)?;
        }
        deployment.started = still;
        edges::same(&deployment, regions, &wishes.edges, &place.state)?;
    }
    let wanted: Vec<(Role, &Region, Vec<String>)> = plan(place, regions, wishes.wan, wishes.first_port)?
        .into_iter()
        .chain(edges::plan(place, regions, &wishes.edges)?)
        .filter(|(role, region, _)| deployment.running(*role, &region.id).is_none())
        .collect();
    if !wanted.is_empty() {
        policies_good(place, regions).await?;
    }
    ports_free(regions, &wanted)?;
    if identity::ensure(&place.state, regions)? {
        eprintln!(
            "made a certificate authority, certificates and a development token in {}",
            place.state.join("pki").display()
        );
    }
    start(place, deployment, wanted, timeout).await
}

/// Refuses to add to a deployment that runs something else, and says what is different.
fn same(earlier: &Deployment, wanted: &Deployment, state: &Path) -> anyhow::Result<()> {
    let first_port = |deployment: &Deployment| {
        let daemon = deployment.started.iter().find(|process| process.role == Role::Daemon)?;
        let at = daemon.command.iter().position(|word| word == "--first-port")?;
        daemon.command.get(at + 1).cloned()
    };
    let names = |deployment: &Deployment| deployment.regions.keys().cloned().collect::<BTreeSet<_>>();
    let difference = if earlier.tree != wanted.tree {
        format!("of another tree, {}", earlier.tree.display())
    } else if names(earlier) != names(wanted) {
        let all: Vec<String> = names(earlier).iter().map(ToString::to_string).collect();
        format!("of other regions: {}", all.join(", "))
    } else if earlier.regions == wanted.regions {
        return Ok(());
    } else if let Some(port) = first_port(earlier) {
        format!("at other ports: it was started with `--first-port {port}`")
    } else {
        let moved = earlier.regions.iter().filter(|(id, at)| wanted.regions.get(*id) != Some(*at));
        let moved: Vec<String> =
            moved.map(|(id, at)| format!("{id} runs at {}, not {}", at.gateway, wanted.regions[id].gateway)).collect();
        format!("at other addresses: {}", moved.join(", "))
    };
    bail!(
        "{} holds a running deployment {difference}; deploy it as it was started, or run `repomind-run destroy` first",
        state.display()
    )
}

/// Checks the policies as `check` does, before anything starts. Where a generation is kept from before, regions come up
/// with it whatever the files say, so that bad files are then no more than worth a word.
async fn policies_good(place: &Place, regions: &Regions) -> anyhow::Result<()> {
    let findings = crate::check::policies(&place.tree, regions).await?.err().unwrap_or_default();
    if findings.is_empty() {
        return Ok(());
    }
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let all: Vec<String> = findings.iter().map(|finding| finding.render(colour)).collect();
    let (all, count) = (all.join("\n\n"), findings.len());
    let kept = |region: &RegionId| crate::start::history(&place.state, region).newest().is_some();
    if !regions.by_id.keys().any(kept) {
        return Err(BadPolicies(format!("{all}\n\n{count} finding(s) in the policies: nothing was started")).into());
    }
    eprintln!("{all}\n\n{count} finding(s) in the policies: the last good generation stays in force");
    Ok(())
}

/// Starts `wanted` and waits until all regions serve; stops what it started when that fails.
async fn start(
    place: &Place,
    mut deployment: Deployment,
    wanted: Vec<(Role, &Region, Vec<String>)>,
    timeout: Duration,
) -> anyhow::Result<Outcome> {
    let mut fresh = Vec::new();
    let work = async {
        for (role, region, command) in wanted {
            let log = match role {
                Role::Service => place.state.join(region.id.as_str()).join("sample-service.log"),
                Role::Daemon => place.state.join(region.id.as_str()).join("daemon.log"),
                Role::Edge => {
                    crate::edge::live::forget(&place.state);
                    crate::edge::live::folder(&place.state).join("edge.log")
                }
            };
            let process = Started::spawn(role, &region.id, command, &log)?;
            fresh.push(process.clone());
            deployment.record(process);
            deployment.write(&place.state)?;
        }
        serving(&place.state, &deployment, timeout).await
    };
    let result = tokio::select! {
        result = work => result,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = result {
        if !fresh.is_empty() {
            eprintln!("stopping the {} processes that this run started", fresh.len());
            processes::stop(&fresh, PATIENCE).await;
            deployment.started.retain(|process| !fresh.contains(process));
            if deployment.started.is_empty() {
                Deployment::forget(&place.state)?
            } else {
                deployment.write(&place.state)?
            }
        }
        return Err(error);
    }
    Ok(Outcome { deployment, fresh })
}

/// Waits until each region answers `/readyz` with 200 and every region sees all others ready, or until nothing but an
/// operator's signature is lacking.
pub async fn serving(state: &Path, deployment: &Deployment, timeout: Duration) -> anyhow::Result<()> {
    let client = Client::new(state)?;
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::new(deployment.regions.keys());
    let mut waiting: BTreeSet<&RegionId> = deployment.regions.keys().collect();
    loop {
        let mut why = BTreeMap::new();
        for (region, addresses) in &deployment.regions {
            if let Some(dead) = deployment.started.iter().find(|process| process.region == *region && !process.runs()) {
                bail!("{region} ended while starting; {} says:\n{}", dead.log.display(), dead.last_words(15));
            }
            match not_serving(&client, addresses.admin, deployment).await {
                Some(Waits { refused: Some(errors), .. }) => {
                    progress.finish();
                    return Err(BadPolicies(format!("{region} refuses the policies of its tree:\n  {errors}")).into());
                }
                Some(Waits { unsigned: true, .. }) => {
                    progress.finish();
                    eprintln!(
                        "the regions run, and serve once an operator has signed the policies: repomind-run policy publish \
                         DIR --key FILE --reason WHY"
                    );
                    return Ok(());
                }
                Some(Waits { reason, .. }) => {
                    progress.step(region, &reason);
                    waiting.insert(region);
                    why.insert(region, reason);
                }
                None if waiting.remove(region) => progress.done(region),
                None => {}
            }
        }
        let before_them = edges::wait_for(state, deployment);
        if why.is_empty() && before_them.is_none() {
            progress.finish();
            return Ok(());
        }
        if Instant::now() >= deadline {
            let regions = why.iter().map(|(region, reason)| format!("{region}: {reason}"));
            let why: Vec<String> = regions.chain(before_them).collect();
            bail!(
                "not everything serves after {} s; {}; logs are in {}",
                timeout.as_secs(),
                why.join("; "),
                state.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Why a region is waited for.
struct Waits {
    reason: String,
    /// The files on disk were judged and refused, and none are in force: waiting changes nothing.
    refused: Option<String>,
    /// They are good, none are in force, and an operator has to sign them: waiting changes nothing either.
    unsigned: bool,
}

async fn not_serving(client: &Client, admin: SocketAddr, deployment: &Deployment) -> Option<Waits> {
    let because = |reason: String| Some(Waits { reason, refused: None, unsigned: false });
    let unready = client.ready(admin).await.err();
    let status = match (client.status(admin).await, unready) {
        (Ok(status), None) => status,
        (Ok(status), Some(reason)) => {
            // Those that name no policy file are about a machine with too much to do; they are tried again.
            let of_files = |error: &&String| error.split(':').next().is_some_and(|file| file.ends_with(".scm"));
            let refused: Vec<&str> = status.policy_errors.iter().filter(of_files).map(String::as_str).collect();
            return Some(Waits {
                reason: status.policy_errors.first().map_or(reason.clone(), |error| format!("{reason} ({error})")),
                refused: (status.generation == 0 && !refused.is_empty()).then(|| refused.join("\n  ")),
                unsigned: status.generation == 0 && status.policy_waiting.is_some_and(|waiting| waiting.unsigned),
            });
        }
        (Err(_), Some(reason)) => return because(reason),
        (Err(error), None) => return because(format!("{error:#}")),
    };
    let others = deployment.regions.keys().filter(|id| **id != status.id);
    let unseen: Vec<String> = others
        .map(|id| (id, status.sees.get(id).copied().unwrap_or(RegionState::Joining)))
        .filter(|(_, state)| *state != RegionState::Ready && !state.is_ordered())
        .map(|(id, state)| format!("{id} ({})", state.name()))
        .collect();
    if unseen.is_empty() { None } else { because(format!("waits for {}", unseen.join(", "))) }
}

/// Every process that a deployment consists of, services first.
fn plan<'a>(
    place: &Place,
    regions: &'a Regions,
    wan: WanProfile,
    first_port: Option<u16>,
) -> anyhow::Result<Vec<(Role, &'a Region, Vec<String>)>> {
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let executable = text(&executable)?;
    let services = services(regions);
    let apis: Vec<String> =
        services.iter().flat_map(|(id, at)| ["--api".to_owned(), format!("{id}=http://{at}")]).collect();
    let mut all = Vec::new();
    for (id, at) in &services {
        let words = [&executable, "sample-service", "--listen", &at.to_string(), "--region", id.as_str()];
        all.push((Role::Service, &regions.by_id[*id], words.map(str::to_owned).to_vec()));
    }
    for region in regions.by_id.values() {
        let (tree, state) = (text(&place.tree)?, text(&place.state)?);
        let words = [
            &executable,
            "start",
            "--region",
            region.id.as_str(),
            "--tree",
            &tree,
            "--state",
            &state,
            "--wan",
            wan.as_str(),
        ];
        let mut command = words.map(str::to_owned).to_vec();
        if let Some(port) = first_port {
            command.extend(["--first-port".to_owned(), port.to_string()]);
        }
        let objects = text(&crate::assets::local_store(&place.state, region))?;
        command.extend(["--storage".to_owned(), format!("file://{objects}")]);
        command.extend(apis.iter().cloned());
        all.push((Role::Daemon, region, command));
    }
    Ok(all)
}

/// The regions of a tree at the addresses where they will listen. Where the system has none of their loopback
/// addresses but 127.0.0.1 (macOS), or where a first port was asked for, all move there, each to its block of ports.
fn regions(tree: &Path, first_port: Option<u16>) -> anyhow::Result<(Regions, Option<u16>)> {
    let regions = config::load(tree).map_err(BadConfiguration)?;
    let absent = |region: &Region| {
        let host = region.addresses.gateway.ip();
        let refused = TcpListener::bind((host, 0)).map_err(|error| error.kind());
        host.is_loopback() && refused.is_err_and(|kind| kind == std::io::ErrorKind::AddrNotAvailable)
    };
    let first_port = first_port.or_else(|| regions.by_id.values().any(absent).then_some(config::FIRST_PORT));
    match first_port {
        Some(port) => Ok((config::on_one_address(&regions, port)?, Some(port))),
        None => Ok((regions, None)),
    }
}

/// Where each region's sample service listens: beside its gateway.
fn services(regions: &Regions) -> BTreeMap<&RegionId, SocketAddr> {
    let hosts: BTreeSet<_> = regions.by_id.values().map(|region| region.addresses.gateway.ip()).collect();
    let alone = hosts.len() == regions.by_id.len();
    let service = |region: &Region| {
        let gateway = region.addresses.gateway;
        // The next port is left free in the block of a region that shares its address.
        SocketAddr::new(gateway.ip(), if alone { SERVICE_PORT } else { gateway.port().saturating_add(1) })
    };
    regions.by_id.values().map(|region| (&region.id, service(region))).collect()
}

/// Where the sample service of a region listens, as it was started.
pub fn service_of(deployment: &Deployment, region: &RegionId) -> Option<SocketAddr> {
    let service = deployment.running(Role::Service, region)?;
    let at = service.command.iter().position(|word| word == "--listen")?;
    service.command.get(at + 1)?.parse().ok()
}

fn ports_free(regions: &Regions, wanted: &[(Role, &Region, Vec<String>)]) -> anyhow::Result<()> {
    let services = services(regions);
    let mut taken = Vec::new();
    for (role, region, command) in wanted {
        let addresses = &region.addresses;
        let ports: Vec<(&str, SocketAddr)> = match role {
            Role::Service => vec![("sample service", services[&region.id])],
            Role::Edge => edges::places(region)
                .into_iter()
                .filter(|(_, flag, _)| command.iter().any(|word| word == flag))
                .map(|(_, _, at)| ("edge", at))
                .collect(),
            Role::Daemon => {
                vec![
                    ("gateway", addresses.gateway),
                    ("admin", addresses.admin),
                    ("peer", addresses.peer),
                    ("dns", addresses.dns),
                ]
            }
        };
        for (what, at) in ports {
            let udp = if what == "dns" { UdpSocket::bind(at).map(drop) } else { Ok(()) };
            if let Err(error) = TcpListener::bind(at).map(drop).and(udp) {
                taken.push(format!("  {at}, the {what} of {}: {error}", region.id));
            }
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    bail!(
        "cannot listen everywhere:\n{}\nstop what listens there (`ss -ltnp`), or set `addresses` in that region's file in region-config/",
        taken.join("\n")
    )
}

/// Says what would be started, and starts nothing.
///
/// # Errors
/// The regions are bad, or the record of what runs cannot be read.
pub fn dry_run(place: &Place, wishes: &Wishes) -> anyhow::Result<ExitCode> {
    let (regions, first_port) = regions(&place.tree, wishes.first_port)?;
    let place = Place { tree: absolute(&place.tree)?, state: absolute(&place.state)? };
    let earlier = Deployment::read(&place.state)?;
    let wanted = plan(&place, &regions, wishes.wan, first_port)?;
    for (role, region, command) in wanted.into_iter().chain(edges::plan(&place, &regions, &wishes.edges)?) {
        let runs = earlier.as_ref().is_some_and(|deployment| deployment.running(role, &region.id).is_some());
        println!("{} {}", if runs { "runs already:" } else { "would start: " }, command.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

fn try_this(place: &Place, deployment: &Deployment) {
    let Some(addresses) = deployment.regions.get(&deployment.primary) else { return };
    let token = place.state.join("pki").join("token");
    println!("\nTry:");
    println!(
        "  curl -X PUT -H \"Authorization: Bearer $(cat {})\" -H 'Repomind-Class: public' -d hello http://{}/v1/data/notes/greeting",
        token.display(),
        addresses.gateway
    );
    println!("  {} status --tree {} --state {}", program(), place.tree.display(), place.state.display());
    println!(
        "  edit {}, save, and look at the generation",
        place.tree.join("traffic-routing/latency-routing.scm").display()
    );
}

fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "repomind-run".into())
}

/// Ends when nobody waits for the command any more: on Ctrl-C, SIGTERM, a closed terminal or a closed pipe.
pub async fn interrupted() {
    tokio::select! {
        () = signalled() => {}
        () = crate::output::closed() => {}
    }
}

/// Ends on Ctrl-C, SIGTERM or SIGHUP.
pub async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path)
        .with_context(|| format!("cannot find {}", path.display()))
        .map(|path| path.components().collect())
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not valid UTF-8", path.display()))
}
