//! What operators order about regions: says what would follow, has the regions agree on it, obeys.
//!
//! The primary takes orders, because it hands them to the common log. Every region carries out what the log says as soon
//! as it learns of it, and keeps it in a file of its own, so that a restart without a quorum changes nothing. That an
//! order was carried out stands in the ledger of each region: its revision and the hash of its words.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use control::state::{Command, Outcome};
use model::codec;
use model::orders::{
    LONGEST, LONGEST_WORDS, Load, Order, OrderAnswer, OrderPlan, OrderRequest, Orders, Pin, Wish, Word,
};
use model::record::Labels;
use model::residency::{Law, ResidencyPlan};
use model::routing::{ClientClass, RegionState, RoutingPlan};
use model::{Country, Finding, RegionId, UnixMillis};
use tokio_util::sync::CancellationToken;

use super::gate::Moment;
use super::probes;
use super::running::RunningRegion;

/// How often it is looked whether an order has ended.
const LOOK: Duration = Duration::from_millis(200);
/// No region is to carry more than this share of what it can.
const FULLEST: f64 = 0.8;
/// How often an order is checked anew because another one came between.
const AGAIN: usize = 3;

/// The orders that this region knows of.
pub struct Standing {
    file: PathBuf,
    /// All that were agreed on.
    agreed: ArcSwap<Orders>,
    /// Those that hold at this moment.
    holding: ArcSwap<Orders>,
}

impl Standing {
    /// What this region knew before a restart.
    pub fn open(file: PathBuf, now: UnixMillis) -> Self {
        let read = || {
            codec::decode::<Orders>(&std::fs::read(&file).ok()?).map_err(|error| {
            tracing::error!(file = %file.display(), %error, "orders from before the restart cannot be read; the log has them");
        }).ok()
        };
        let agreed = read().unwrap_or_default();
        let holding = ArcSwap::from_pointee(agreed.holding(now));
        Self { file, agreed: ArcSwap::from_pointee(agreed), holding }
    }

    /// All orders that were agreed on and not lifted, those that have ended included.
    pub fn agreed(&self) -> Arc<Orders> {
        self.agreed.load_full()
    }

    /// Those that hold.
    pub fn holding(&self) -> Arc<Orders> {
        self.holding.load_full()
    }

    /// Whether an order has a region evacuated.
    pub fn evacuated(&self, region: &RegionId) -> bool {
        self.holding.load().out.get(region).is_some_and(|out| out.evacuated)
    }

    fn keep(&self, orders: &Orders) -> std::io::Result<()> {
        let draft = self.file.with_extension("draft");
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(&codec::encode(orders))?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.file)
    }
}

/// Obeys what the log says, and the end of what was ordered for a time, until `stop`.
pub async fn follow(region: Arc<RunningRegion>, stop: CancellationToken) {
    let mut states = region.control.log.states();
    loop {
        let agreed = states.borrow_and_update().orders.clone();
        if agreed.revision > region.orders.agreed().revision {
            learn(&region, agreed).await;
        }
        obey(&region);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

/// Takes in orders that are new here.
async fn learn(region: &RunningRegion, agreed: Orders) {
    let before = region.orders.agreed().revision;
    let fresh = agreed.revision.saturating_sub(before) as usize;
    let first = agreed.past.len().saturating_sub(fresh);
    region.orders.agreed.store(Arc::new(agreed.clone()));
    // Before anything that takes time.
    obey(region);
    for (back, order) in agreed.past[first..].iter().rev().enumerate().rev() {
        let revision = agreed.revision - back as u64;
        tracing::info!(revision, "an operator's order: {order}");
        metrics::counter!("repomind_orders_total").increment(1);
        if let Err(error) = region.data.ordered(revision, order).await {
            tracing::error!(revision, %error, "the ledger does not tell of the order");
        }
    }
    if let Err(error) = region.orders.keep(&agreed) {
        tracing::error!(%error, "the orders could not be kept for a restart without the other regions");
    }
}

/// Makes what holds at this moment seen: in health, routing and answers over DNS.
fn obey(region: &RunningRegion) {
    let orders = &region.orders;
    let holding = orders.agreed.load().holding(region.wall_clock());
    let before = orders.holding.load_full();
    if *before == holding {
        return;
    }
    for (id, out) in before.out.iter().filter(|(id, _)| !holding.out.contains_key(*id)) {
        tracing::info!(region = %id, ordered = out.state().name(), "an order about a region has ended");
    }
    let pins = holding.pins.clone();
    let repinned = before.pins != pins;
    metrics::gauge!("repomind_orders_holding").set((holding.out.len() + pins.len()) as f64);
    orders.holding.store(Arc::new(holding));
    if repinned {
        region.generations.pin(pins);
    }
    probes::publish(region);
}

/// Carries an order out, or says what would follow from it.
///
/// # Errors
/// What was asked for cannot be ordered at all, or the regions did not agree on it.
pub async fn order(region: &RunningRegion, request: OrderRequest) -> Result<OrderAnswer, Vec<Finding>> {
    let refused = |message: String, help: &str| vec![Finding::error("", "", (0, 0), message, help)];
    check(region, &request).map_err(|message| refused(message, ""))?;
    for _ in 0..AGAIN {
        let standing = region.orders.agreed();
        let plan = plan(region, &request, &standing.holding(region.wall_clock()));
        let barred = !plan.never.is_empty() || (!request.force && !plan.unless_forced.is_empty());
        if request.dry_run || barred {
            return Ok(OrderAnswer { plan, revision: None });
        }
        let OrderRequest { wish, region: about, by, why, lasts, .. } = request.clone();
        let at = region.wall_clock();
        let until = lasts.map(|lasts| UnixMillis(at.0.saturating_add(lasts.0)));
        let order = Order { wish, region: about, word: Word { by, why, at, until } };
        let seen = standing.revision;
        match region.control.log.propose(Command::Order { seen, order }).await {
            Ok(Outcome::OrdersChanged { .. }) => {
                // What came between is known here in a moment.
                tokio::time::sleep(LOOK).await;
            }
            Ok(_) => return Ok(OrderAnswer { plan, revision: Some(seen + 1) }),
            Err(error) => return Err(refused(error.to_string(), "see `repomind-run status`, then order again")),
        }
    }
    Err(refused(
        "other orders were given at the same time".to_owned(),
        "look at `repomind-run orders`, then order again",
    ))
}

/// What makes no sense as an order.
fn check(region: &RunningRegion, request: &OrderRequest) -> Result<(), String> {
    let OrderRequest { wish, region: about, by, why, lasts, .. } = request;
    if !region.regions.by_id.contains_key(about) {
        let known = region.regions.by_id.keys().map(RegionId::as_str).collect::<Vec<_>>().join(", ");
        return Err(format!("no region is called {about}; there are {known}"));
    }
    if [by, why].iter().any(|words| words.trim().is_empty() || words.chars().count() > LONGEST_WORDS) {
        return Err(format!("state who orders it and why, in at most {LONGEST_WORDS} characters each"));
    }
    match (wish, lasts) {
        (_, Some(lasts)) if lasts.0 == 0 || *lasts > LONGEST => {
            Err("an order lasts for 1 ms to 30 days; what is to last longer is for the policies".to_owned())
        }
        (Wish::Pin(_), None) => {
            Err("a pin needs an end: state for how long; what is to last is for the policies".to_owned())
        }
        (Wish::Restore, Some(_)) => Err("a restoration has no end".to_owned()),
        (Wish::Pin(clients), _) => match clients.iter().find(|country| routing::continent(**country).is_none()) {
            Some(unknown) => Err(format!("{unknown} is the code of no country")),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What would follow from an order.
fn plan(region: &RunningRegion, request: &OrderRequest, holding: &Orders) -> OrderPlan {
    let (about, moment) = (&request.region, region.moment());
    let bare = region.generations.bare_routing();
    let before = routing::pinned(&bare, &holding.pins);
    let mut plan = OrderPlan {
        order: format!("{} {about}", request.wish),
        moves: routing::moves(&before, &before, &region.regions, &moment.states, &moment.traffic),
        loads: Vec::new(),
        never: Vec::new(),
        unless_forced: Vec::new(),
        notes: Vec::new(),
    };
    let (before, after, mut states) = match &request.wish {
        Wish::Drain | Wish::Evacuate => {
            leaves(region, request, &moment, &mut plan);
            (before.clone(), routing::without(&before, about), moment.states.clone())
        }
        Wish::Restore => {
            let (was_out, pins) =
                (holding.out.contains_key(about), holding.pins.iter().any(|pin| pin.region == *about));
            let led = holding.lead.as_ref().is_some_and(|lead| lead.region == *about);
            if led && region.regions.primary != *about {
                let preferred = &region.regions.primary;
                plan.notes.push(format!("{preferred} is the primary again once it is ready and steady"));
            }
            if !was_out && !pins && !led {
                plan.never.push(format!("nothing is ordered about {about}"));
            }
            let left: Vec<Pin> = holding.pins.iter().filter(|pin| pin.region != *about).cloned().collect();
            let mut states = moment.states.clone();
            if was_out && states.get(about).is_some_and(|state| state.serves_in_need()) {
                states.insert(about.clone(), RegionState::Ready);
            } else if was_out {
                let state = states.get(about).map_or("not heard of", |state| state.name());
                plan.notes.push(format!("{about} is {state}: it gets traffic once it serves"));
            }
            let old = if was_out { routing::without(&before, about) } else { before };
            (old, routing::pinned(&bare, &left), states)
        }
        Wish::Lead => {
            leads(region, about, &moment, &mut plan);
            (before.clone(), before, moment.states.clone())
        }
        Wish::Pin(clients) => {
            pins(request, clients, (&bare, holding, &moment), &mut plan);
            let word = Word { by: String::new(), why: String::new(), at: moment.now, until: None };
            let mut all: Vec<Pin> = holding.pins.iter().filter(|pin| pin.clients != *clients).cloned().collect();
            all.push(Pin { region: about.clone(), clients: clients.clone(), word });
            (before, routing::pinned(&bare, &all), moment.states.clone())
        }
    };
    holding.lay_over(&mut states);
    if matches!(request.wish, Wish::Restore) && states.get(about).is_some_and(|state| state.serves_in_need()) {
        states.insert(about.clone(), RegionState::Ready);
    }
    plan.moves = routing::moves(&before, &after, &region.regions, &states, &moment.traffic);
    carries(region, (&before, &after), (&moment, &states), &mut plan);
    plan
}

/// What keeps a region from being the primary, and what it means.
fn leads(region: &RunningRegion, about: &RegionId, moment: &Moment, plan: &mut OrderPlan) {
    let view = region.control.log.view();
    match region.control.primary(&view, &moment.states) {
        Some(primary) if primary == *about => plan.notes.push(format!("{about} is the primary already: it stays so")),
        Some(primary) => {
            plan.never.extend(region.control.cannot_lead(about, &moment.states));
            plan.notes.push(format!("{primary} hands its place over; data and routing go on meanwhile"));
        }
        None => plan.never.extend(region.control.cannot_lead(about, &moment.states)),
    }
}

/// What keeps a region from leaving.
fn leaves(region: &RunningRegion, request: &OrderRequest, moment: &Moment, plan: &mut OrderPlan) {
    let about = &request.region;
    let serving: BTreeSet<&RegionId> =
        moment.states.iter().filter(|(_, state)| state.serves()).map(|(id, _)| id).collect();
    let others: BTreeSet<&RegionId> = serving.iter().copied().filter(|id| *id != about).collect();
    if others.is_empty() {
        plan.never.push(format!("no other region serves: {about} is the last one"));
        return;
    }
    let homeless = homeless(&region.plans.load().residency, about, &others, moment.now);
    if !homeless.is_empty() {
        let what = format!("of the regions that serve, only {about} may hold {}", homeless.join("; "));
        match request.wish {
            Wish::Evacuate => plan.never.push(what),
            _ => plan.unless_forced.push(format!(
                "{what}. With --force such records are kept and served there all the same, for clients that are sent \
                 there by name; nobody is sent elsewhere with them"
            )),
        }
    }
    let view = region.control.log.view();
    let leads = region.control.primary(&view, &moment.states).as_ref() == Some(about);
    if leads && matches!(request.wish, Wish::Evacuate) {
        plan.notes.push(format!("{about} is the primary: it hands that place over"));
    }
}

/// The records for which `about` is the last home among the regions that serve: laws, and the classes under them.
fn homeless(plan: &ResidencyPlan, about: &RegionId, others: &BTreeSet<&RegionId>, now: UnixMillis) -> Vec<String> {
    let mut found: BTreeMap<Law, BTreeSet<String>> = BTreeMap::new();
    for case in plan.cases().keys() {
        let class = case.class.to_string();
        if found.get(&case.law).is_some_and(|classes| classes.contains(&class)) {
            continue;
        }
        let mut labels = Labels::of_class(case.class, now);
        (labels.basis, labels.purpose) = (case.basis, case.purpose);
        labels.jurisdictions.extend(country_of(case.law));
        let may = |id: &RegionId| plan.permit_in(&labels, id, now).is_ok();
        if may(about) && !others.iter().any(|other| may(other)) {
            found.entry(case.law).or_default().insert(class);
        }
    }
    // Many laws are alike.
    let mut alike: BTreeMap<BTreeSet<String>, Vec<String>> = BTreeMap::new();
    for (law, classes) in found {
        alike.entry(classes).or_default().push(law.to_string());
    }
    let words = |classes: BTreeSet<String>| classes.into_iter().collect::<Vec<_>>().join(", ");
    alike.into_iter().map(|(classes, laws)| format!("{} data under law {}", words(classes), laws.join(" "))).collect()
}

/// A country whose law it is; none for no law.
fn country_of(law: Law) -> Option<Country> {
    match law {
        Law::None => None,
        Law::Of(country) => Some(country),
        law => routing::countries().find(|country| Law::of(*country) == law),
    }
}

/// What keeps clients from being pinned.
fn pins(
    request: &OrderRequest,
    clients: &BTreeSet<Country>,
    (bare, holding, moment): (&RoutingPlan, &Orders, &Moment),
    plan: &mut OrderPlan,
) {
    let about = &request.region;
    if holding.out.contains_key(about) {
        plan.never.push(format!("{about} is {}: restore it first", holding.out[about].state().name()));
    }
    let classes: Vec<ClientClass> = match clients.is_empty() {
        true => routing::classes(),
        false => clients.iter().map(|country| ClientClass { country: Some(*country) }).collect(),
    };
    let left_out: Vec<String> = classes
        .iter()
        .filter(|class| !bare.ranking(**class).regions.contains(about))
        .filter_map(|class| Some(class.country?.to_string()))
        .collect();
    if left_out.len() == classes.len() {
        plan.never.push(format!("the policies send none of these clients to {about}, also in need"));
    } else if !left_out.is_empty() {
        plan.notes.push(format!("not for clients in {}: the policies leave {about} out for them", left_out.join(" ")));
    }
    if !moment.states.get(about).is_some_and(|state| state.serves()) {
        let state = moment.states.get(about).map_or("not heard of", |state| state.name());
        plan.notes.push(format!("{about} is {state}: clients go elsewhere until it serves"));
    }
}

/// What each region would have to carry, and whether it can.
fn carries(
    region: &RunningRegion,
    (before, after): (&RoutingPlan, &RoutingPlan),
    (moment, states): (&Moment, &BTreeMap<RegionId, RegionState>),
    plan: &mut OrderPlan,
) {
    let now = routing::loads(before, &region.regions, &moment.states, &moment.traffic);
    let then = routing::loads(after, &region.regions, states, &moment.traffic);
    for (id, one) in &region.regions.by_id {
        let most = f64::from(one.capacity.max_instances) * f64::from(one.capacity.per_instance_rps);
        let (now, then) = (now.get(id).copied().unwrap_or(0.0), then.get(id).copied().unwrap_or(0.0));
        if then > now && then > most * FULLEST {
            plan.unless_forced.push(format!(
                "{id} would have to carry {then:.0} of {most:.0} requests a second; the bound is {:.0} %",
                FULLEST * 100.0
            ));
        }
        plan.loads.push(Load { region: id.clone(), now, then, most });
    }
    if moment.traffic.is_empty() {
        plan.notes.push("no traffic was seen lately: the check of capacity has nothing to go by".to_owned());
    }
}
