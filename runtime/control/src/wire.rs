//! What regions' logs say to each other, in envelopes, and the caller's side of it.
//!
//! Every request names the number that it is for: a region that lost its disk has another
//! one, and answers nothing that was meant for the one before.
//!
//! A vote is not sent twice: the connections under this are streams that send again by
//! themselves, and a copy on the same stream would wait behind what was lost.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::RegionId;
use model::codec::{self, Format};
use model::control::{ControlNode, Fence};
use openraft::alias::{SnapshotMetaOf, SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Transport;
use crate::lease::Lease;
use crate::state::Seat;
use crate::types::Types;

/// How long an empty append may take: the heartbeat's own limit.
const HEARTBEAT: Duration = Duration::from_millis(crate::HEARTBEAT);
/// How long entries may take to be on another disk.
const APPEND: Duration = Duration::from_millis(1200);
/// How long a snapshot may take.
const SNAPSHOT: Duration = Duration::from_secs(5);

/// A request.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    /// For whom.
    pub(crate) to: u64,
    /// What.
    pub(crate) call: Call,
}

/// What is asked.
#[derive(Serialize, Deserialize)]
pub(crate) enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot { vote: VoteOf<Types>, meta: SnapshotMetaOf<Types>, state: Vec<u8> },
    Transfer(TransferLeaderRequest<Types>),
}

impl Format for Request {
    const KIND: u8 = 0x36;
    const VERSION: u8 = 1;
    const NAME: &'static str = "request of the common log";
}

/// An answer: what the call gives, or why it gives nothing.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply(pub(crate) Vec<u8>);

impl Format for Reply {
    const KIND: u8 = 0x37;
    const VERSION: u8 = 1;
    const NAME: &'static str = "answer of the common log";
}

/// The body of an answer. Plain data: it always encodes.
pub(crate) fn reply(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let body = model::codec::plain(value).map_err(|error| error.to_string())?;
    Ok(codec::encode(&Reply(body)))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let Reply(body) = codec::decode(bytes).map_err(|error| error.to_string())?;
    model::codec::from_plain(&body).map_err(|error| error.to_string())
}

/// Makes the ways to other voters.
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) lease: Arc<Mutex<Lease>>,
}

/// The way to one voter.
pub(crate) struct Way {
    to: u64,
    region: Option<RegionId>,
    transport: Arc<dyn Transport>,
    lease: Arc<Mutex<Lease>>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, to: u64, seat: &Seat) -> Way {
        Way { to, region: seat.region(), transport: self.transport.clone(), lease: self.lease.clone() }
    }
}

fn unreachable(reason: impl ToString) -> Unreachable<Types> {
    Unreachable::from_string(reason)
}

impl Way {
    async fn ask<T: DeserializeOwned>(&self, call: Call, limit: Duration) -> Result<T, Unreachable<Types>> {
        let region = self.region.as_ref().ok_or_else(|| unreachable("a voter whose region has no name"))?;
        let request = codec::encode(&Request { to: self.to, call });
        match tokio::time::timeout(limit, self.transport.ask(region, request)).await {
            Ok(Ok(bytes)) => read(&bytes).map_err(unreachable),
            Ok(Err(reason)) => Err(unreachable(reason)),
            Err(_) => Err(unreachable(format!("no answer within {} ms", limit.as_millis()))),
        }
    }
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let leader = request.vote.leader_id;
        let fence = Fence { term: leader.term, node: ControlNode(leader.node_id) };
        let limit = if request.entries.is_empty() { HEARTBEAT } else { APPEND };
        let sent = self.transport.now();
        let answer = self.ask(Call::Append(request), limit).await?;
        if matches!(answer, AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_)) {
            let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
            lease.answered(ControlNode(self.to), fence, sent);
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.ask(Call::Vote(request), option.hard_ttl()).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.ask(Call::PreVote(request), option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Vec<u8>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let call = Call::Snapshot { vote, meta: snapshot.meta, state: snapshot.snapshot };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = self.ask(call, SNAPSHOT) => Ok(answer?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        Ok(self.ask(Call::Transfer(request), option.hard_ttl()).await?)
    }

    fn backoff(&self) -> Option<Backoff> {
        // A region that comes back is heard of by the probes; the log needs not wait longer than this for it.
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(300))))
    }
}
