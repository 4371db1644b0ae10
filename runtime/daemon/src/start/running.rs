//! One region while it runs: what the servers, the prober and the watcher share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ::control::NotPrimary;
use arc_swap::ArcSwap;
use compliance::ledger::CosignRequest;
use data::DataPlane;
use data::plans::Plans;
use futures_util::future::BoxFuture;
use http::Uri;
use model::bundle::{GenerationInfo, PolicyTree, Proposal, SignedBundle};
use model::control::ControlReport;
use model::explain::{About, Explanation};
use model::judgement::Decision;
use model::names::Subject;
use model::orders::{OrderAnswer, OrderRequest, Orders};
use model::petition::Petition;
use model::radius::{BlastRadius, Comparison, Confirmation, Published, Waiting};
use model::region::Regions;
use model::replication::LagAction;
use model::routing::{ClientClass, Facts, Observation, RegionState};
use model::sealing::OrderId;
use model::signing::NextGeneration;
use model::status::{AgreementStatus, EdgeOrder, RegionStatus};
use model::{Country, Finding, Mono, RegionId, UnixMillis};
use net::{CosignRefusal, DemandRefused, DnsAnswers, PolicyInForce, Rehearsal, Wan, Wanted};
use routing::{HealthTracker, TrafficCounts};

use super::control::Control;
use super::gate::Moment;
use super::generations::{Generations, Proposed, RefusedGeneration};
use super::judging::Judging;
use super::notary::Notary;
use super::traffic::Traffic;
use crate::decisions::recorder::Recorder;
use crate::decisions::{Told, disk};

/// The shared state of a running region. Every field is either fixed at start or swapped whole.
pub struct RunningRegion {
    /// Which region this process is.
    pub me: RegionId,
    /// All regions of the tree.
    pub regions: Arc<Regions>,
    /// Its data.
    pub data: DataPlane,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// Its policies.
    pub generations: Generations,
    /// Writes down what they decide.
    pub recorder: Arc<Recorder>,
    /// Where.
    pub decisions_dir: PathBuf,
    /// What operators ordered about the traffic of regions.
    pub orders: super::orders::Standing,
    /// Signs its ledger and cosigns those of others.
    pub notary: Notary,
    /// What is demanded for people.
    pub petitions: super::petitions::Petitions,
    /// What leaves because policies changed.
    pub evicting: super::evicting::Evicting,
    /// The log that the regions agree on.
    pub control: Arc<Control>,
    /// Woken when the watcher of files has reason to look: another generation is in force, or another region leads.
    pub adopted: tokio::sync::Notify,
    /// The plans that requests are answered from.
    pub plans: Arc<ArcSwap<Plans>>,
    /// The answers over DNS, which follow from the plans and the health.
    pub dns: Arc<DnsAnswers>,
    /// How it sees every region, itself included.
    pub states: ArcSwap<BTreeMap<RegionId, RegionState>>,
    /// Probe results. Locked for a few microseconds a probe, and for as long as a new table of answers takes when a state changes.
    pub health: Mutex<HealthTracker>,
    /// What may follow from policy's verdicts about other regions. Locked after `health` where both are.
    pub judging: Judging,
    /// Whether the service behind this gateway answered its last check.
    pub api_ok: AtomicBool,
    /// Base URL of each region's service.
    pub apis: BTreeMap<RegionId, Uri>,
    /// Emulated delays of peer links, where the local target asks for them.
    pub wan: Wan,
    /// How much traffic each client class brought lately.
    pub traffic: Arc<Traffic>,
    /// Countries by address.
    pub countries: Arc<super::geoip::Countries>,
    /// Client classes that the routing table has a row for.
    pub classes: Vec<ClientClass>,
    /// The region's object store, where it is a folder.
    pub objects: Option<PathBuf>,
    /// Where the secrets of guards lie, a file each.
    pub secrets: PathBuf,
    /// What edges were told.
    pub told: super::edges::Told,
    /// How far this region agrees with each peer, by the last comparison.
    pub agreement: Mutex<BTreeMap<RegionId, AgreementStatus>>,
    /// When this process started: the zero of its monotonic clock.
    pub started: Instant,
}

impl RunningRegion {
    /// Wall-clock time of this machine.
    pub fn wall_clock(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Time since this process started.
    pub fn now(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The other regions.
    pub fn peers(&self) -> BTreeSet<RegionId> {
        self.regions.by_id.keys().filter(|id| **id != self.me).cloned().collect()
    }

    /// The facts that policies rank by, as they are now.
    pub fn facts(&self) -> Facts {
        let health = self.health.lock().expect("no probe panics while it holds the lock");
        let mut facts = routing::facts(&self.regions, &self.me, &health, &self.classes);
        let states = self.states.load();
        for region in &mut facts.regions {
            if let Some(state) = states.get(&region.id).filter(|state| state.serves_in_need()) {
                region.state = *state;
            }
        }
        facts
    }

    /// What a change of policies is examined by, as it is now.
    pub fn moment(&self) -> Moment {
        let states = BTreeMap::clone(&self.states.load());
        Moment { facts: self.facts(), now: self.wall_clock(), states, traffic: self.traffic.everywhere(self.now()) }
    }

    /// Whether this region orders generations at this moment; what an operator wants is done there. Without a quorum
    /// nobody does, and this region is [`Standing::Alone`].
    async fn standing(&self, what: &str) -> Result<Standing, Vec<Finding>> {
        let refused = |message: String, help: String| Err(vec![Finding::error("", "", (0, 0), message, help)]);
        match self.control.settled(&self.states).await {
            Ok(()) => Ok(Standing::Primary),
            Err(NotPrimary::Elsewhere { primary, .. }) => {
                refused(format!("{primary} orders generations; this is {}", self.me), format!("{what} to the primary"))
            }
            Err(NotPrimary::Nobody | NotPrimary::LeaseLost) => Ok(Standing::Alone),
            Err(error @ (NotPrimary::Unfounded | NotPrimary::Failed(_))) => {
                refused(error.to_string(), "see `repomind-run status`".to_owned())
            }
        }
    }

    /// This region's own health, by its own account.
    pub fn own_state(&self) -> RegionState {
        if self.plans.load().generation == 0 {
            RegionState::Joining
        } else if self.data.failed().is_some() {
            RegionState::Down
        } else if self.data.is_learning() {
            RegionState::CatchingUp
        } else if self.api_ok.load(Ordering::Relaxed) {
            RegionState::Ready
        } else {
            RegionState::Down
        }
    }
}

impl RunningRegion {
    /// This region's health with what was ordered about it.
    fn shown_state(&self) -> RegionState {
        let mut states = BTreeMap::from([(self.me.clone(), self.own_state())]);
        self.orders.holding().lay_over(&mut states);
        states.remove(&self.me).unwrap_or(RegionState::Joining)
    }
}

/// What a region may order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Everything.
    Primary,
    /// Only what makes residency stricter, and for itself: there is no quorum.
    Alone,
}

/// A refusal as findings, for those who asked over HTTP.
fn findings(refused: RefusedGeneration) -> Vec<Finding> {
    match refused {
        RefusedGeneration::Findings(findings) => findings,
        error => vec![Finding::error("", "", (0, 0), error.to_string(), "")],
    }
}

impl net::Region for RunningRegion {
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
        self.plans.load_full()
    }

    fn states(&self) -> BTreeMap<RegionId, RegionState> {
        let mut states = BTreeMap::clone(&self.states.load());
        // Whoever comes here all the same is served here.
        if states.get(&self.me) == Some(&RegionState::Draining) {
            states.insert(self.me.clone(), self.own_state());
        }
        states
    }

    fn status(&self) -> RegionStatus {
        let region = &self.regions.by_id[&self.me];
        let states = self.states.load();
        let health = self.health.lock().expect("no probe panics while it holds the lock");
        let peers = self.peers();
        let view = self.control.log.view();
        let primary = self.control.primary(&view, &states);
        RegionStatus {
            id: self.me.clone(),
            name: region.name.clone(),
            state: self.shown_state(),
            gateway: region.addresses.gateway,
            admin: region.addresses.admin,
            dns: region.addresses.dns,
            generation: self.generations.number(),
            policy_hash: self.generations.hash(),
            policy_signed_by: self.generations.signed_by(),
            policy_proving: self.generations.proving(),
            policy_waiting: self.generations.waiting(),
            not_ready: net::Region::ready(self).err(),
            policy_errors: self.generations.findings().iter().map(ToString::to_string).collect(),
            control: self.control.status(self, &view, primary.as_ref()),
            primary,
            sees: states.iter().filter(|(id, _)| **id != self.me).map(|(id, state)| (id.clone(), *state)).collect(),
            rtt_ms: peers
                .iter()
                .filter_map(|peer| Some((peer.clone(), health.round_trip(peer)?.as_millis_f64())))
                .collect(),
            replication: self.data.links(),
            plan: self.judging.plan(),
            eviction: model::eviction::EvictionStatus { came_back: self.data.came_home(), ..self.evicting.status() },
            damage: damage(self.data.damage()),
            agreement: self.agreement.lock().expect("nothing panics while it holds the lock").clone(),
            countries: self.countries.source(),
            orders: Orders { past: Vec::new(), ..Orders::clone(&self.orders.holding()) },
            emulated: self.wan.status(),
        }
    }

    fn country(&self, address: IpAddr) -> Option<Country> {
        self.countries.table.load().country(address)
    }

    fn api_of(&self, region: &RegionId) -> Option<Uri> {
        self.apis.get(region).cloned()
    }

    fn control_report(&self) -> ControlReport {
        self.control.log.report()
    }

    fn control(&self, from: RegionId, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        self.control.log.answer(from, request)
    }

    fn policy_history(&self) -> Vec<GenerationInfo> {
        self.generations.history()
    }

    fn policy_tree(&self, generation: u64) -> Result<PolicyTree, String> {
        self.generations.tree(generation)
    }

    fn policy_bundle(&self, generation: u64) -> Result<SignedBundle, String> {
        self.generations.bundle_of(generation)
    }

    fn rehearse(self: Arc<Self>, from: RegionId, rehearsal: Rehearsal) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let primary = self.control.primary(&self.control.log.view(), &self.states.load());
            if primary.as_ref() != Some(&from) {
                return Err(format!("{from} does not order generations, as far as {} knows", self.me));
            }
            self.generations.rehearse(rehearsal, self.facts()).await.map_err(|error| error.to_string())?;
            tokio::spawn(async move { self.generations.forget_rehearsal().await });
            Ok(())
        })
    }

    fn next_generation(&self) -> NextGeneration {
        self.generations.next()
    }

    fn publish(self: Arc<Self>, proposal: Proposal) -> BoxFuture<'static, Result<Published, Vec<Finding>>> {
        Box::pin(async move {
            let proposed = match self.standing("publish").await? {
                Standing::Primary => self.generations.publish(proposal, &self.moment()).await,
                Standing::Alone => self.generations.publish_alone(proposal, &self.moment()).await,
            };
            match proposed.map_err(findings)? {
                Proposed::Unchanged => Ok(Published::Generation(self.generations.number())),
                Proposed::InForce(number) => Ok(Published::Generation(number)),
                Proposed::Waiting(waiting) => Ok(Published::Waiting(waiting)),
            }
        })
    }

    fn order(self: Arc<Self>, request: OrderRequest) -> BoxFuture<'static, Result<OrderAnswer, Vec<Finding>>> {
        Box::pin(async move {
            if self.standing("give the order").await? == Standing::Alone {
                let message = "no region is the primary: an order needs a majority of the voting regions";
                let help = "bring regions back first; until then each goes on as it is";
                return Err(vec![Finding::error("", "", (0, 0), message, help)]);
            }
            super::orders::order(&self, request).await
        })
    }

    fn orders(&self) -> Orders {
        Orders::clone(&self.orders.agreed())
    }

    fn waiting(&self) -> Option<Waiting> {
        self.generations.waiting()
    }

    fn confirm(self: Arc<Self>, word: Confirmation) -> BoxFuture<'static, Result<u64, Vec<Finding>>> {
        Box::pin(async move {
            if self.standing("give the word").await? == Standing::Alone {
                return Err(findings(RefusedGeneration::Loosens(vec!["what waits goes beyond that".to_owned()])));
            }
            self.generations.confirm(word, &self.moment()).await.map_err(findings)
        })
    }

    fn compare(self: Arc<Self>, trees: Comparison) -> BoxFuture<'static, Result<BlastRadius, Vec<Finding>>> {
        Box::pin(async move { self.generations.compare(trees, &self.moment()).await.map_err(findings) })
    }

    fn explain(self: Arc<Self>, about: About) -> BoxFuture<'static, Result<Explanation, Vec<Finding>>> {
        Box::pin(async move { super::explaining::explain(&self, about).await })
    }

    fn traffic(&self) -> &TrafficCounts {
        &self.traffic.here
    }

    fn recent_traffic(&self) -> BTreeMap<ClientClass, f64> {
        self.traffic.here.recent(self.now())
    }

    fn cosign(
        self: Arc<Self>,
        from: RegionId,
        request: CosignRequest,
    ) -> BoxFuture<'static, Result<String, CosignRefusal>> {
        Box::pin(async move { self.notary.cosign(&self.data, &from, &request, self.wall_clock()).await })
    }

    fn petitions(&self, known: &BTreeMap<OrderId, u32>) -> Vec<Petition> {
        self.petitions.lacking(known)
    }

    fn demand(
        self: Arc<Self>,
        subject: Subject,
        wanted: Wanted,
    ) -> BoxFuture<'static, Result<serde_json::Value, DemandRefused>> {
        Box::pin(async move { self.demanded(subject, wanted).await })
    }

    fn policy(&self) -> Option<PolicyInForce> {
        self.generations.in_force()
    }

    fn ready(&self) -> Result<(), String> {
        if self.generations.number() == 0 {
            return Err(match self.control.log.check() {
                Err(error @ (NotPrimary::Unfounded | NotPrimary::Failed(_))) => {
                    format!("waiting for a policy generation: {error}")
                }
                _ => "waiting for a policy generation".to_owned(),
            });
        }
        if let Some(reason) = self.data.failed() {
            let place = self.data_dir.display();
            let free =
                rustix::fs::statvfs(&self.data_dir).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >> 20);
            let free = free.map_or_else(|_| String::new(), |mebibytes| format!(", where {mebibytes} MiB are free"));
            return Err(format!(
                "the store in {place}{free}, takes no writes any more ({reason}): make room if the disk is full, then \
                 restart this region"
            ));
        }
        if self.data.is_learning() {
            return Err("other regions are still giving this one its records".into());
        }
        if self.data.lag_action() == LagAction::Unready {
            return Err("replication lag has passed the bound that replication-lag.scm calls unready".into());
        }
        Ok(())
    }

    fn bundle(&self) -> Option<SignedBundle> {
        self.generations.signed().map(|signed| SignedBundle::clone(&signed))
    }

    fn own_state(&self) -> RegionState {
        self.own_state()
    }

    fn observations(&self) -> BTreeMap<RegionId, Observation> {
        self.health.lock().expect("no probe panics while it holds the lock").observations()
    }

    fn decisions(&self) -> Vec<Decision> {
        self.judging.decisions()
    }

    fn assets(&self) -> Option<PathBuf> {
        // Until something is published, the service may answer for itself.
        self.objects.clone().filter(|store| store.join("assets/manifest.json").exists())
    }

    fn secret(&self, name: &str) -> Option<Vec<u8>> {
        // Names have no slashes; policies that name another are refused.
        let text = std::fs::read(self.secrets.join(name)).ok()?;
        Some(text.trim_ascii().to_vec()).filter(|secret| !secret.is_empty())
    }

    fn edge(&self) -> Result<Arc<EdgeOrder>, String> {
        let states = self.states.load();
        self.told.now((&self.me, &self.regions), self.plans.load_full(), &states, self.wall_clock())
    }

    fn decision(&self, id: Option<u64>) -> Result<serde_json::Value, String> {
        let (entry, log) = disk::find(&self.decisions_dir, id)?;
        serde_json::to_value(Told::of(entry, &log)).map_err(|error| error.to_string())
    }

    fn decision_log(&self) -> std::io::Result<Vec<u8>> {
        disk::all(&self.decisions_dir)
    }

    fn wan(&self) -> &Wan {
        &self.wan
    }
}

/// Damage as it is shown; nothing where there is none.
fn damage(damage: data::Damage) -> Option<model::status::DamageStatus> {
    let data::Damage { waiting, without_copy, aside } = damage;
    (damage != data::Damage::default()).then_some(model::status::DamageStatus { waiting, without_copy, aside })
}
