//! [`ControlLog`] by `openraft`, with the settings that were measured over links between continents.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::codec;
use model::control::{ControlNode, ControlReport, ControlRole, Fence};
use model::{Millis, Mono, RegionId};
use openraft::alias::SnapshotOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::VoteRequest;
use openraft::{Config, RaftMetrics, ReadPolicy, ServerState, SnapshotPolicy};
use store::Store;
use tokio::sync::watch;

use crate::disk::Disk;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::rules::{Change, Members};
use crate::state::{Command, ControlState, Outcome, Seat};
use crate::types::Types;
use crate::wire::{Call, Network, Request, reply};
use crate::{ControlLog, NotPrimary, Transport, Unagreed, View};

/// How long a command may take to be agreed on: several round trips around the world, and an election in between.
const AGREE: Duration = Duration::from_secs(5);
/// How long a round to the majority may take where the lease has run out.
const CONFIRM: Duration = Duration::from_millis(1200);
/// The log is cut after so many entries. It is short on purpose: a new leader looks for where each follower's log meets its
/// own, and over a short log that is one round trip, which is part of every failover. The state is small, so whoever is
/// further behind is sent all of it.
const SNAPSHOT_EVERY: u64 = 4;
/// So many entries of a snapshot stay, for those that are a little behind.
const KEPT: u64 = 2;
/// Entries sent at once: more than a log has that was cut. Each may hold a whole policy tree.
const AT_ONCE: u64 = 8;

type Raft = openraft::Raft<Types, Machine>;

/// The log of one region. Share it in an [`Arc`].
pub struct RaftLog {
    me: RegionId,
    node: u64,
    may_lead: bool,
    raft: Raft,
    lease: Arc<Mutex<Lease>>,
    transport: Arc<dyn Transport>,
    states: watch::Receiver<Arc<ControlState>>,
    changes: watch::Receiver<u64>,
    opened: Mono,
}

/// The settings. The comments in `crate` say what follows from them.
fn settings() -> Config {
    Config {
        cluster_name: "repomind".into(),
        heartbeat_interval: crate::HEARTBEAT,
        election_timeout_min: crate::ELECTION_LEAST,
        election_timeout_max: crate::ELECTION_MOST,
        enable_pre_vote: Some(true),
        // A leader that can send and not receive falls silent for this long, so that another one is found.
        quorum_loss_probe_interval: Some(2 * crate::ELECTION_MOST),
        // Not before a promise that this process does not remember has run out: see `RaftLog::remembers`.
        enable_elect: false,
        // A leader that was restarted asks for votes as everybody does.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEPT,
        max_payload_entries: AT_ONCE,
        install_snapshot_timeout: 5_000,
        ..Config::default()
    }
}

impl RaftLog {
    /// Opens the log in `store`, and takes part from now on. `may_lead` says whether this region could be the primary.
    ///
    /// # Errors
    /// Where the log cannot be read, or is damaged.
    pub async fn open(
        me: RegionId,
        store: &Store,
        transport: Arc<dyn Transport>,
        may_lead: bool,
    ) -> io::Result<Arc<Self>> {
        let disk = Disk::new(store.control());
        let mut hash = DefaultHasher::new();
        me.as_str().hash(&mut hash);
        // The incarnation differs for every disk that a region ever had, the region for those made in the same second.
        let fresh = (u64::from(store.incarnation().0) << 32) | (hash.finish() & 0xffff_ffff);
        let node = disk.node(fresh)?;
        let (machine, states) = Machine::open(disk.space().clone())?;
        let lease = Arc::new(Mutex::new(Lease::default()));
        let network = Network { transport: transport.clone(), lease: lease.clone() };
        let config = Arc::new(settings().validate().map_err(io::Error::other)?);
        let raft = Raft::new(node, config, network, disk, machine).await.map_err(io::Error::other)?;
        let opened = transport.now();
        let elects = raft.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(crate::ELECTION_MOST)).await;
            elects.runtime_config().elect(true);
        });
        let (changed, changes) = watch::channel(0);
        let mut metrics = raft.metrics();
        tokio::spawn(async move {
            let mut seen = None;
            while metrics.changed().await.is_ok() {
                let now = {
                    let all = metrics.borrow_watched();
                    (all.state, all.current_leader, all.current_term)
                };
                if seen.replace(now) != Some(now) {
                    changed.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(Arc::new(Self { me, node, may_lead, raft, lease, transport, states, changes, opened }))
    }

    /// Whether everything that this region promised a leader is known to this process. What it had promised before it
    /// was restarted, to vote for nobody else for a while, is on no disk; it has run out by then. A region without a log
    /// never promised anything.
    fn remembers(&self) -> bool {
        let fresh = self.raft.metrics().borrow_watched().last_log_index.is_none();
        fresh || self.transport.now() - self.opened >= Millis(crate::ELECTION_MOST)
    }

    fn metrics(&self) -> RaftMetrics<Types> {
        self.raft.metrics().borrow_watched().clone()
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_by(&self, metrics: &RaftMetrics<Types>) -> Result<Fence, NotPrimary> {
        if let Err(fatal) = &metrics.running_state {
            return Err(NotPrimary::Failed(fatal.to_string()));
        }
        if metrics.state != ServerState::Leader {
            return Err(self.elsewhere(metrics));
        }
        let fence = Fence { term: metrics.vote.leader_id.term, node: ControlNode(self.node) };
        // Until its own first entry is applied, a leader does not know all that was agreed on before it.
        let applied = self.states.borrow().fence == Some(fence);
        let joint = metrics.membership_config.membership().get_joint_config();
        let voters: Vec<BTreeSet<ControlNode>> =
            joint.iter().map(|set| set.iter().copied().map(ControlNode).collect()).collect();
        if applied && self.lease().holds(fence, &voters, self.transport.now()) {
            Ok(fence)
        } else {
            Err(NotPrimary::LeaseLost)
        }
    }

    fn elsewhere(&self, metrics: &RaftMetrics<Types>) -> NotPrimary {
        if metrics.last_log_index.is_none() {
            return NotPrimary::Unfounded;
        }
        let leader = metrics.current_leader.filter(|leader| *leader != self.node);
        let seat = leader.and_then(|leader| metrics.membership_config.membership().get_node(&leader));
        match seat.and_then(Seat::region) {
            Some(primary) => NotPrimary::Elsewhere { primary, me: self.me.clone() },
            None => NotPrimary::Nobody,
        }
    }

    fn failed(&self, error: RaftError<Types, ClientWriteError<Types>>) -> Unagreed {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => self.elsewhere(&self.metrics()).into(),
            other => Unagreed::Unknown(other.to_string()),
        }
    }
}

fn caught_up(metrics: &RaftMetrics<Types>) -> BTreeSet<ControlNode> {
    let last = metrics.last_log_index;
    let all = metrics.replication.iter().flatten();
    all.filter(|(_, matched)| matched.as_ref().map(|id| id.index) == last && last.is_some())
        .map(|(node, _)| ControlNode(*node))
        .collect()
}

fn members(metrics: &RaftMetrics<Types>) -> Members {
    let membership = metrics.membership_config.membership();
    let voting: BTreeSet<u64> = membership.voter_ids().collect();
    let mut all = Members { changing: membership.get_joint_config().len() > 1, ..Members::default() };
    for (node, seat) in membership.nodes() {
        let Some(region) = seat.region() else { continue };
        let side = if voting.contains(node) { &mut all.voters } else { &mut all.learners };
        side.insert(ControlNode(*node), region);
    }
    all
}

impl ControlLog for RaftLog {
    fn report(&self) -> ControlReport {
        let fresh = self.raft.metrics().borrow_watched().last_log_index.is_none();
        ControlReport { node: ControlNode(self.node), fresh, may_lead: self.may_lead }
    }

    fn view(&self) -> View {
        let metrics = self.metrics();
        let role = match (&metrics.running_state, metrics.state) {
            (Err(_), _) | (_, ServerState::Shutdown) => ControlRole::Failed,
            (_, ServerState::Leader) if self.check_by(&metrics).is_ok() => ControlRole::Primary,
            (_, ServerState::Leader) => ControlRole::LeaderWithoutLease,
            (_, ServerState::Candidate) => ControlRole::Candidate,
            (_, ServerState::Follower) => ControlRole::Follower,
            (_, ServerState::Learner) if metrics.last_log_index.is_none() => ControlRole::Outside,
            (_, ServerState::Learner) => ControlRole::Learner,
        };
        View {
            role,
            term: metrics.current_term,
            leader: metrics.current_leader.map(ControlNode),
            members: members(&metrics),
            caught_up: caught_up(&metrics),
        }
    }

    fn states(&self) -> watch::Receiver<Arc<ControlState>> {
        self.states.clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    fn check(&self) -> Result<Fence, NotPrimary> {
        self.check_by(&self.metrics())
    }

    fn confirm(&self) -> BoxFuture<'_, Result<Fence, NotPrimary>> {
        Box::pin(async move {
            match self.check() {
                Err(NotPrimary::LeaseLost) => {}
                answer => return answer,
            }
            let round = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
            let _ = tokio::time::timeout(CONFIRM, round).await;
            self.check()
        })
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Outcome, Unagreed>> {
        Box::pin(async move {
            self.confirm().await?;
            let written = tokio::time::timeout(AGREE, self.raft.client_write(command)).await;
            let answer = match written {
                Ok(Ok(written)) => written.data,
                Ok(Err(error)) => return Err(self.failed(error)),
                Err(_) => return Err(Unagreed::Unknown(format!("no majority within {} s", AGREE.as_secs()))),
            };
            // The others learn now that it was agreed on, and not with the next heartbeat.
            let _ = self.raft.trigger().heartbeat().await;
            Ok(answer)
        })
    }

    fn found(&self, members: BTreeMap<ControlNode, RegionId>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let seats: BTreeMap<u64, Seat> = members.iter().map(|(node, region)| (node.0, Seat::of(region))).collect();
            self.raft.initialize(seats).await.map_err(|error| error.to_string())
        })
    }

    fn change(&self, step: Change) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let done = match step {
                Change::Learn(node, region) => self.raft.add_learner(node.0, Seat::of(&region), false).await,
                Change::Voters(nodes) => {
                    let nodes: BTreeSet<u64> = nodes.into_iter().map(|node| node.0).collect();
                    self.raft.change_membership(nodes, false).await
                }
            };
            done.map(drop).map_err(|error| error.to_string())
        })
    }

    fn beat(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.check().is_ok() {
                let _ = self.raft.trigger().heartbeat().await;
            }
        })
    }

    fn call_election(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.remembers() {
                let _ = self.raft.trigger().elect(true).await;
            }
        })
    }

    fn hand_over(&self, to: ControlNode) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let fence = self.check().map_err(|error| error.to_string())?;
            // First: the heir may lead from the moment that it is asked to.
            self.lease().give_up(fence);
            self.raft.trigger().transfer_leader(to.0).await.map_err(|error| error.to_string())
        })
    }

    fn answer(&self, from: RegionId, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let (raft, node, remembers) = (self.raft.clone(), self.node, self.remembers());
        Box::pin(async move {
            let Request { to, call } = codec::decode(&request).map_err(|error| error.to_string())?;
            if to != node {
                let reason = format!("{from} asks for voter {to:x}; the disk here is that of voter {node:x}");
                return Err(reason);
            }
            let text = |error: &dyn std::fmt::Display| error.to_string();
            match call {
                // A leader that hands its place over answers for nothing any more.
                Call::Vote(VoteRequest { leadership_transfer: false, .. }) | Call::PreVote(_) if !remembers => {
                    Err("this region was started a moment ago, and may have promised its vote before".to_owned())
                }
                Call::Append(request) => reply(&raft.append_entries(request).await.map_err(|error| text(&error))?),
                Call::Vote(request) => reply(&raft.vote(request).await.map_err(|error| text(&error))?),
                Call::PreVote(request) => reply(&raft.pre_vote(request).await.map_err(|error| text(&error))?),
                Call::Snapshot { vote, meta, state } => {
                    let snapshot = SnapshotOf::<Types, Vec<u8>> { meta, snapshot: state };
                    let taken = raft.install_full_snapshot(vote, snapshot).await;
                    reply(&taken.map_err(|error| text(&error))?)
                }
                Call::Transfer(request) => {
                    reply(&raft.handle_transfer_leader(request).await.map_err(|error| text(&error))?)
                }
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.raft.shutdown().await;
        })
    }
}
