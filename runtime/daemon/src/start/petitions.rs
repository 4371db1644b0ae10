//! What is demanded for people: taken in here, carried to every region, carried out, acknowledged.
//!
//! Every second each peer is asked for the orders and acknowledgements that this region lacks; so an order reaches a
//! region by whatever way there is, and as soon as there is one. What a region has not carried out by its own disk it
//! carries out, and signs that it has. Until a peer has answered once, a region opens no value.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::{DataError, DataPlane};
use model::RegionId;
use model::names::Subject;
use model::petition::{DEADLINE, Demand, Done, Order, Petition, Signed, to_bytes};
use model::sealing::{OrderId, Owner};
use net::{DemandRefused, PeerClient, Wanted};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// How often peers are asked.
const EVERY: Duration = Duration::from_secs(1);
/// Orders that are kept, erasures among them for ever: 300 MB. More are refused.
const MOST: usize = 1_000_000;

/// The petitions that this region knows.
pub struct Petitions {
    known: Mutex<BTreeMap<OrderId, Petition>>,
    /// Held by whoever carries orders out.
    turn: tokio::sync::Mutex<()>,
}

fn failed(error: impl std::fmt::Display) -> DemandRefused {
    DemandRefused::Failed(error.to_string())
}

impl Petitions {
    /// Those that are kept in `data`.
    pub fn open(data: &DataPlane) -> Result<Self, DataError> {
        let kept = data.petitions()?;
        let known = kept.into_iter().filter_map(|petition| Some((petition.order.read::<Order>()?.id, petition)));
        Ok(Self { known: Mutex::new(known.collect()), turn: tokio::sync::Mutex::default() })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<OrderId, Petition>> {
        self.known.lock().expect("nothing panics while it holds the lock")
    }

    fn summary(&self) -> BTreeMap<OrderId, u32> {
        self.known().iter().map(|(id, petition)| (*id, petition.done.len() as u32)).collect()
    }

    /// Those that a peer lacks which has so many acknowledgements of each.
    pub fn lacking(&self, theirs: &BTreeMap<OrderId, u32>) -> Vec<Petition> {
        let known = self.known();
        let lacks = |(id, petition): &(&OrderId, &Petition)| {
            theirs.get(*id).is_none_or(|done| (*done as usize) < petition.done.len())
        };
        known.iter().filter(lacks).map(|(_, petition)| petition.clone()).collect()
    }

    /// Takes in what a peer or this region says, and gives what is new, to be kept.
    fn join(&self, petitions: Vec<(OrderId, Petition)>) -> Vec<(OrderId, Petition)> {
        let mut known = self.known();
        let mut changed = Vec::new();
        for (id, petition) in petitions {
            let new = match known.get_mut(&id) {
                Some(ours) => ours.join(petition),
                None => known.insert(id, petition).is_none(),
            };
            if new {
                changed.push((id, known[&id].clone()));
            }
        }
        changed
    }

    fn of(&self, owner: Owner) -> Vec<(Order, Petition)> {
        let known = self.known();
        let all = known.values().filter_map(|petition| Some((petition.order.read::<Order>()?, petition.clone())));
        let mut found: Vec<_> = all.filter(|(order, _)| order.owner == owner).collect();
        found.sort_by_key(|(order, _)| (order.at, order.id));
        found
    }
}

impl RunningRegion {
    /// A petition of a peer as far as its signatures hold; nothing where that of the order does not.
    fn verified(&self, petition: Petition) -> Option<(OrderId, Petition)> {
        let order: Order = petition.order.read()?;
        if !self.notary.verifies(&order.by, Signed::ORDER, &petition.order) {
            return None;
        }
        let holds = |region: &RegionId, signed: &Signed| {
            let done = signed.read::<Done>();
            done.is_some_and(|done| done.region == *region && done.order == order.id)
                && self.notary.verifies(region, Signed::DONE, signed)
        };
        let done = petition.done.into_iter().filter(|(region, signed)| holds(region, signed)).collect();
        Some((order.id, Petition { order: petition.order, done }))
    }

    async fn take(&self, petitions: Vec<(OrderId, Petition)>) -> Result<(), DataError> {
        let changed = self.petitions.join(petitions);
        if changed.is_empty() { Ok(()) } else { self.data.keep_petitions(&changed).await }
    }

    async fn order(&self, owner: Owner, demand: Demand) -> Result<OrderId, DemandRefused> {
        if self.petitions.known().len() >= MOST {
            return Err(failed("there are too many orders"));
        }
        let id = OrderId(data::vault::random_name().map_err(failed)?);
        let order = Order { id, owner, demand, by: self.me.clone(), at: self.wall_clock() };
        let order = self.notary.signed(Signed::ORDER, to_bytes(&order));
        self.take(vec![(id, Petition { order, done: BTreeMap::new() })]).await.map_err(failed)?;
        Ok(id)
    }

    async fn acknowledge(&self, order: &Order, done: data::CarriedOut) -> Result<(), DataError> {
        let (region, at) = (self.me.clone(), self.wall_clock());
        let done = Done { order: order.id, region, at, keys: done.keys, records: done.records };
        let signed = self.notary.signed(Signed::DONE, to_bytes(&done));
        let ours = self.petitions.known().get(&order.id).cloned();
        let Some(mut petition) = ours else { return Ok(()) };
        petition.done.insert(self.me.clone(), signed);
        self.take(vec![(order.id, petition)]).await
    }

    /// Carries out what this region has not carried out: holds first, so that no erasure comes before one.
    async fn carry_out_all(&self) {
        let _turn = self.petitions.turn.lock().await;
        let orders: Vec<Order> =
            self.petitions.known().values().filter_map(|petition| petition.order.read::<Order>()).collect();
        let mut open: Vec<Order> = orders
            .into_iter()
            .filter(|order| !matches!(order.demand, Demand::Export))
            .filter(|order| !self.data.has_carried_out(order.id).unwrap_or(true))
            .collect();
        let rank = |demand: &Demand| match demand {
            Demand::Hold { .. } => 0,
            Demand::Release { .. } => 1,
            Demand::Erase | Demand::Export => 2,
        };
        open.sort_by_key(|order| (rank(&order.demand), order.at, order.id));
        for order in open {
            let word = order.demand.name();
            match self.data.carry_out(&order).await {
                Ok(done) => {
                    tracing::info!(order = %order.id, word, records = done.records.len(), "an order was carried out");
                    if let Err(error) = self.acknowledge(&order, done).await {
                        tracing::error!(%error, order = %order.id, "an acknowledgement could not be kept");
                    }
                }
                Err(DataError::Held) => tracing::debug!(order = %order.id, word, "an order waits for a hold to end"),
                Err(error) => tracing::warn!(%error, order = %order.id, word, "an order is tried again"),
            }
        }
    }

    /// How far an order is.
    fn progress(&self, order: &Order, petition: &Petition) -> Value {
        let done: BTreeMap<&RegionId, Value> = petition
            .done
            .iter()
            .filter_map(|(region, signed)| {
                let done: Done = signed.read()?;
                Some((region, json!({ "at": done.at, "keys": done.keys, "records": done.records.len() })))
            })
            .collect();
        let missing: Vec<&RegionId> = self.regions.by_id.keys().filter(|id| !petition.done.contains_key(*id)).collect();
        let state = if missing.is_empty() { "complete" } else { "pending" };
        json!({
            "order": order.id.to_string(), "demand": order.demand.name(), "by": order.by, "at": order.at,
            "due": order.at + DEADLINE, "state": state, "done": done, "missing": missing,
        })
    }

    fn progress_of(&self, id: OrderId) -> Result<Value, DemandRefused> {
        let petition = self.petitions.known().get(&id).cloned().ok_or(DemandRefused::Unknown("order"))?;
        let order: Order = petition.order.read().ok_or(DemandRefused::Unknown("order"))?;
        Ok(self.progress(&order, &petition))
    }

    /// Takes in what is demanded for a person.
    pub async fn demanded(&self, subject: Subject, wanted: Wanted) -> Result<Value, DemandRefused> {
        let owner = self.data.owner_of(&subject);
        let standing = self.petitions.of(owner);
        match wanted {
            Wanted::Report => {
                let held = self.data.held_about(&subject).await.map_err(failed)?;
                let orders: Vec<Value> = standing.iter().map(|(order, known)| self.progress(order, known)).collect();
                Ok(json!({
                    "subject": subject.as_str(), "region": self.me, "records": held.records.len() + held.lost.len() + held.closed.len(),
                    "holds": self.data.holds_on(owner), "orders": orders,
                }))
            }
            Wanted::Erase => {
                let holds = self.data.holds_on(owner);
                if !holds.is_empty() {
                    return Err(DemandRefused::Held(holds));
                }
                let open = standing.iter().find(|(order, known)| {
                    order.demand == Demand::Erase && known.done.len() < self.regions.by_id.len()
                });
                let id = match open {
                    Some((order, _)) => order.id,
                    None => self.order(owner, Demand::Erase).await?,
                };
                self.carry_out_all().await;
                self.progress_of(id)
            }
            Wanted::Export => self.order(owner, Demand::Export).await.and_then(|id| self.progress_of(id)),
            Wanted::Give(id) => self.give(&subject, id, &standing).await,
            Wanted::Hold(name) => {
                let id = self.order(owner, Demand::Hold { name }).await?;
                self.carry_out_all().await;
                self.progress_of(id)
            }
            Wanted::Release(name) => {
                let released =
                    |hold: OrderId| standing.iter().any(|(order, _)| order.demand == Demand::Release { hold });
                let hold = standing
                    .iter()
                    .find(|(order, _)| order.demand == Demand::Hold { name: name.clone() } && !released(order.id));
                let hold = hold.ok_or(DemandRefused::Unknown("hold of this name"))?.0.id;
                let id = self.order(owner, Demand::Release { hold }).await?;
                self.carry_out_all().await;
                self.progress_of(id)
            }
        }
    }

    async fn give(
        &self,
        subject: &Subject,
        id: OrderId,
        standing: &[(Order, Petition)],
    ) -> Result<Value, DemandRefused> {
        let order = standing.iter().map(|(order, _)| order).find(|order| order.id == id);
        let order = order
            .filter(|order| order.demand == Demand::Export)
            .ok_or(DemandRefused::Unknown("such order here yet"))?;
        let held = self.data.held_about(subject).await.map_err(failed)?;
        if held.closed.is_empty() {
            let done = self.data.carry_out(order).await.map_err(failed)?;
            self.acknowledge(order, done).await.map_err(failed)?;
        }
        let closed: Vec<Value> = held
            .closed
            .iter()
            .map(|(address, reason)| json!({ "namespace": address.namespace.as_str(), "key": address.key.as_str(), "reason": reason }))
            .collect();
        let shown_all = |all: &[(model::record::Address, model::record::Record)]| -> Vec<Value> {
            all.iter().map(|(address, record)| shown(address, record)).collect()
        };
        let (records, lost) = (shown_all(&held.records), shown_all(&held.lost));
        let others: Vec<&RegionId> = self.regions.by_id.keys().filter(|region| **region != self.me).collect();
        Ok(json!({
            "subject": subject.as_str(), "region": self.me, "order": id.to_string(), "records": records,
            "lost_to_concurrent_writes": lost, "not_opened": closed, "ask_also": others,
        }))
    }
}

fn shown(address: &model::record::Address, record: &model::record::Record) -> Value {
    use base64::Engine as _;
    let (labels, bytes) = (&record.labels, record.payload.bytes());
    let value = match (std::str::from_utf8(bytes), record.payload.object()) {
        // Fetched by its key: it may be larger than this whole answer.
        (_, Some(object)) => json!({ "object_bytes": object.length }),
        (Ok(text), None) => json!({ "text": text }),
        (Err(_), None) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    };
    json!({
        "namespace": address.namespace.as_str(), "key": address.key.as_str(), "content_type": record.content_type,
        "value": value, "classes": labels.classes, "jurisdictions": labels.jurisdictions, "purpose": labels.purpose,
        "basis": labels.basis, "collected_at": labels.collected_at, "retain_until": labels.retain_until,
    })
}

/// Takes over the petitions of a peer, until `stop`. A peer that is silent holds up no other.
pub async fn hear(region: Arc<RunningRegion>, peer: PeerClient, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let known = region.petitions.summary();
        let answer = match stop.run_until_cancelled(peer.petitions(&known)).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => continue,
            None => return,
        };
        let good: Vec<_> = answer.into_iter().filter_map(|petition| region.verified(petition)).collect();
        let new = !good.is_empty();
        if let Err(error) = region.take(good).await {
            tracing::error!(%error, peer = %peer.peer(), "the petitions of a peer could not be kept");
            continue;
        }
        if new {
            region.carry_out_all().await;
        }
        region.data.fence(false);
    }
}

/// Carries out what waits, until `stop`: what failed before, or waited for a hold to end.
pub async fn keep(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if stop.run_until_cancelled(region.carry_out_all()).await.is_none() {
            return;
        }
    }
}
