//! `edge run`: keeps edges on this machine by what a region says, as long as it runs.
//!
//! One task follows the admin address of a region: the nearest first, and the next one while that does not answer or is
//! behind what is in force here. Each edge has a task of its own that takes the newest order, skips those between, and
//! leaves its edge by the one before where the new one is not taken. What the edges are at stands in a file of the
//! state directory, for `status`. The edges are child processes that end with this one, however it ends.

mod child;
mod follow;
mod varnishd;
mod workerd;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use model::RegionId;
use model::status::{EdgeOrder, EdgeStatus, EdgesStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Place;
use crate::client::Client;

pub use child::{ChildArgs, become_child};
use varnishd::Varnish;
use workerd::Worker;

/// The first wait before an edge that failed is tried again; then twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long edges may take to end when they are told to.
const DRAIN: Duration = Duration::from_secs(8);
/// The file, below `edge/` of the state directory, that says what the edges are at.
const STATUS: &str = "status.json";

/// Flags of `edge run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The region that these edges stand in: it is followed first, and Varnish keeps what may lie there. The primary
    /// unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Where the worker listens, on miniflare.
    #[arg(long, value_name = "ADDRESS")]
    pub worker: Option<SocketAddr>,
    /// Where Varnish listens.
    #[arg(long, value_name = "ADDRESS")]
    pub varnish: Option<SocketAddr>,
    /// The worker's own files; edge-deployment/cloudflare-workers of the tree unless named.
    #[arg(long, value_name = "DIR", env = "REPOMIND_WORKER_DIR")]
    pub worker_dir: Option<PathBuf>,
}

/// The folder of the edges in a state directory.
pub fn folder(state: &Path) -> PathBuf {
    state.join("edge")
}

/// What `edge run` last said of itself.
pub fn status(state: &Path) -> Option<EdgesStatus> {
    serde_json::from_slice(&std::fs::read(folder(state).join(STATUS)).ok()?).ok()
}

/// Forgets what an earlier `edge run` said.
pub fn forget(state: &Path) {
    // What is not there need not be forgotten, and what cannot be removed is overwritten.
    let _ = std::fs::remove_file(folder(state).join(STATUS));
}

/// Runs until it is told to stop.
///
/// # Errors
/// Where an edge cannot be run on this machine at all.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    crate::start::log(crate::args::LogForm::Pretty);
    crate::deploy::state::private_files();
    let state = std::path::absolute(&args.place.state)?;
    let folder = folder(&state);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (deployment, _) = crate::status::look(&args.place)?;
    let near = args.region.clone().unwrap_or_else(|| deployment.primary.clone());
    if !deployment.regions.contains_key(&near) {
        bail!("no region is called {near}");
    }
    let mut edges: Vec<Edge> = Vec::new();
    if let Some(address) = args.worker {
        let dir = args.worker_dir.clone();
        let dir = dir.unwrap_or_else(|| args.place.tree.join("edge-deployment/cloudflare-workers"));
        edges.push(Edge::Worker(Worker::new(address, &dir, &folder)?));
    }
    if let Some(address) = args.varnish {
        edges.push(Edge::Varnish(Varnish::new(address, near.clone(), &folder)?));
    }
    if edges.is_empty() {
        bail!("name at least one edge: --worker ADDRESS, --varnish ADDRESS");
    }
    let report = Report::new(folder.join(STATUS), edges.iter().map(Edge::status).collect());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (give, orders) = watch::channel(None);
    let client = Client::new(&state)?;
    tasks.spawn(follow::follow(client, (near, deployment.admins()), give, report.clone(), stop.clone()));
    for (at, edge) in edges.into_iter().enumerate() {
        tasks.spawn(keep(edge, at, orders.clone(), report.clone(), stop.clone()));
    }
    crate::deploy::signalled().await;
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!(after = ?DRAIN, "edges that have not ended are killed");
    }
    Ok(ExitCode::SUCCESS)
}

/// A kind of edge that runs here.
enum Edge {
    Worker(Worker),
    Varnish(Varnish),
}

impl Edge {
    fn status(&self) -> EdgeStatus {
        let (backend, address) = match self {
            Self::Worker(worker) => ("cloudflare", worker.address),
            Self::Varnish(varnish) => ("varnish", varnish.address),
        };
        EdgeStatus {
            backend: backend.to_owned(),
            address,
            up: false,
            revision: String::new(),
            generation: 0,
            down: Vec::new(),
            tag: String::new(),
            error: None,
        }
    }

    /// Takes an order, or stays by the one before and says why.
    async fn take(&mut self, order: &EdgeOrder, form: &::edge::Form) -> Result<(), String> {
        match self {
            Self::Worker(worker) => worker.take(order, form).await,
            Self::Varnish(varnish) => varnish.take(order, form).await,
        }
    }

    /// Whether it serves by some order.
    const fn is_up(&self) -> bool {
        match self {
            Self::Worker(worker) => worker.is_up(),
            Self::Varnish(varnish) => varnish.is_up(),
        }
    }

    /// Returns when its process has ended; never where there is none.
    async fn ended(&mut self) {
        match self {
            Self::Worker(worker) => worker.ended().await,
            Self::Varnish(varnish) => varnish.ended().await,
        }
    }

    async fn stop(&mut self) {
        match self {
            Self::Worker(worker) => worker.stop().await,
            Self::Varnish(varnish) => varnish.stop().await,
        }
    }
}

/// Keeps one edge by the newest order.
async fn keep(
    mut edge: Edge,
    at: usize,
    mut orders: watch::Receiver<Option<Arc<EdgeOrder>>>,
    report: Arc<Report>,
    stop: CancellationToken,
) {
    let backend = edge.status().backend;
    let mut wait = FIRST_WAIT;
    let mut again = Duration::MAX;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = orders.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(again) => {}
            () = edge.ended() => {
                tracing::error!(%backend, "the edge ended by itself; it is started again");
                report.edge(at, |status| (status.up, status.error) = (false, Some("it ended by itself".to_owned())));
            }
        }
        let Some(order) = orders.borrow_and_update().clone() else { continue };
        let taken = match serde_json::from_str::<::edge::Form>(&order.form) {
            Ok(form) => tokio::select! {
                taken = edge.take(&order, &form) => taken.map(|()| form.revision),
                () = stop.cancelled() => break,
            },
            Err(error) => Err(format!("{} sends a form that this program cannot read: {error}", order.region)),
        };
        let up = edge.is_up();
        match taken {
            Ok(revision) => {
                tracing::info!(%backend, %revision, generation = order.generation, down = ?order.down, "the edge follows");
                (wait, again) = (FIRST_WAIT, Duration::MAX);
                report.edge(at, |status| {
                    (status.up, status.error) = (up, None);
                    (status.revision, status.generation) = (revision, order.generation);
                    status.down.clone_from(&order.down);
                    status.tag.clone_from(&order.tag);
                });
            }
            Err(error) => {
                tracing::error!(%backend, generation = order.generation, %error, "the edge stays as it was");
                (again, wait) = (wait, wait.saturating_mul(2).min(LONGEST_WAIT));
                report.edge(at, |status| (status.up, status.error) = (up, Some(error)));
            }
        }
    }
    edge.stop().await;
}

/// The status file, and what stands in it.
struct Report {
    path: PathBuf,
    status: Mutex<EdgesStatus>,
}

impl Report {
    fn new(path: PathBuf, edges: Vec<EdgeStatus>) -> Arc<Self> {
        let report = Self { path, status: Mutex::new(EdgesStatus { follows: None, told: String::new(), edges }) };
        report.change(|_| {});
        Arc::new(report)
    }

    fn edge(&self, at: usize, change: impl FnOnce(&mut EdgeStatus)) {
        self.change(|status| change(&mut status.edges[at]));
    }

    fn change(&self, change: impl FnOnce(&mut EdgesStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status);
        let text = serde_json::to_string_pretty(&*status).expect("a status is plain data");
        if let Err(error) = super::replace(&self.path, &text) {
            tracing::error!(path = %self.path.display(), %error, "what the edges are at cannot be written down");
        }
    }
}
