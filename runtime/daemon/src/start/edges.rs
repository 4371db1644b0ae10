//! What a generation means for the edge: its form, and what of it a kind of edge in use cannot do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use data::plans::Plans;
use edge::{Form, Inputs};
use model::bundle::PolicyTree;
use model::radius::Difference;
use model::region::{Region, Regions};
use model::routing::RegionState;
use model::status::EdgeOrder;
use model::{Finding, RegionId, UnixMillis};

use super::generations::RefusedGeneration;

/// The base URL of each region's gateway, where it speaks plain HTTP.
pub fn origins(regions: &Regions) -> BTreeMap<RegionId, String> {
    origins_by("http", regions)
}

fn origins_by(scheme: &str, regions: &Regions) -> BTreeMap<RegionId, String> {
    let url = |region: &Region| format!("{scheme}://{}", region.addresses.gateway);
    regions.by_id.values().map(|region| (region.id.clone(), url(region))).collect()
}

/// Compiles the edge of `plans`, for every kind of edge that is in use.
///
/// # Errors
/// A finding for each form that asks for what cannot be, at its place in the files.
pub fn form(
    plans: &Plans,
    tree: &PolicyTree,
    origins: &BTreeMap<RegionId, String>,
    now: UnixMillis,
) -> Result<Form, Vec<Finding>> {
    edge::compile_for_use(inputs(plans, origins, now))
        .map_err(|complaints| complaints.iter().map(|complaint| complaint.place(&tree.0)).collect())
}

/// The same, as the gate asks for it.
///
/// # Errors
/// [`RefusedGeneration::Findings`].
pub fn examined(plans: &Plans, tree: &PolicyTree, regions: &Regions, now: UnixMillis) -> Result<(), RefusedGeneration> {
    form(plans, tree, &origins(regions), now).map(drop).map_err(RefusedGeneration::Findings)
}

/// What the plans in force and the routing table of this moment say, whatever a kind of edge can do of it.
pub fn inputs<'a>(plans: &'a Plans, origins: &'a BTreeMap<RegionId, String>, now: UnixMillis) -> Inputs<'a> {
    Inputs { plan: &plans.edge, routing: &plans.routing, residency: &plans.residency, origins, now }
}

/// The cache rules that stand as they stood, and whose stored answers are given up all the same: what may lie where, or
/// a rule that refines them, is another one.
pub fn given_up(before: &Plans, after: &Plans, regions: &Regions, now: UnixMillis) -> Vec<Difference> {
    let origins = origins(regions);
    let compiled = |plans| edge::compile(inputs(plans, &origins, now));
    let (Ok(was), Ok(is)) = (compiled(before), compiled(after)) else { return Vec::new() };
    let same = was.rules.iter().filter_map(|old| Some((old, is.rules.iter().find(|new| new.rule == old.rule)?)));
    let kept = |rule: &edge::form::Rule| !rule.rule.bypass && rule.rule.edge_ttl_seconds > 0;
    same.filter(|(old, new)| old.revision != new.revision && kept(new))
        .map(|(old, _)| Difference {
            what: format!("what the edges keep by the cache rule `{}`", old.rule.name),
            was: Some("given".to_owned()),
            becomes: Some("given up and fetched anew".to_owned()),
        })
        .collect()
}

/// A form is compiled anew after so long even where nothing changed: rulings begin and end.
const COMPILED_ANEW_MS: u64 = 30_000;

/// Within a generation only the order of the regions changes, with every round of measured latency where they are about
/// as near; an edge would compile programs without end. A region that is down is told at once all the same.
const RANKED_ANEW_MS: u64 = 10_000;

/// What edges were last told, and what that followed from.
pub struct Told {
    /// How they reach gateways. All regions are started alike, so that one's certificate stands for all.
    scheme: &'static str,
    last: Mutex<Option<Last>>,
}

struct Last {
    plans: Arc<Plans>,
    compiled: UnixMillis,
    order: Arc<EdgeOrder>,
}

impl Told {
    /// Nothing yet, in a region whose gateway speaks HTTPS or does not.
    pub const fn new(secure: bool) -> Self {
        Self { scheme: if secure { "https" } else { "http" }, last: Mutex::new(None) }
    }

    /// What an edge has to know, by these plans and this view of the regions.
    ///
    /// # Errors
    /// Why the plans have no form.
    pub fn now(
        &self,
        (me, regions): (&RegionId, &Regions),
        plans: Arc<Plans>,
        states: &BTreeMap<RegionId, RegionState>,
        now: UnixMillis,
    ) -> Result<Arc<EdgeOrder>, String> {
        if plans.generation == 0 {
            return Err("no policy generation is in force yet".to_owned());
        }
        let down = down(regions, states);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let same = last.as_ref().filter(|last| {
            let stays_for = if Arc::ptr_eq(&last.plans, &plans) {
                COMPILED_ANEW_MS
            } else if last.order.generation == plans.generation {
                RANKED_ANEW_MS
            } else {
                0
            };
            now.0.saturating_sub(last.compiled.0) < stays_for
        });
        let order = match same {
            Some(last) if last.order.down == down => return Ok(last.order.clone()),
            Some(Last { order, .. }) => EdgeOrder { down, ..EdgeOrder::clone(order) },
            None => {
                let form =
                    edge::compile(inputs(&plans, &origins_by(self.scheme, regions), now)).map_err(|complaints| {
                        complaints.first().map_or_else(String::new, |complaint| complaint.message.clone())
                    })?;
                let (generation, tag) = (plans.generation, form.revision.clone());
                EdgeOrder { region: me.clone(), generation, tag, form: form.to_json(), down }
            }
        };
        let (compiled, plans) = same.map_or((now, plans), |last| (last.compiled, last.plans.clone()));
        let revision = order.tag.split('-').next().unwrap_or_default();
        let names: Vec<&str> = order.down.iter().map(RegionId::as_str).collect();
        let tag = format!("{revision}-{}-{}", order.generation, names.join("."));
        let order = Arc::new(EdgeOrder { tag, ..order });
        *last = Some(Last { plans, compiled, order: order.clone() });
        Ok(order)
    }
}

/// The regions that requests are not sent to, unless none would be left.
fn down(regions: &Regions, states: &BTreeMap<RegionId, RegionState>) -> Vec<RegionId> {
    let serves = |region: &&RegionId| states.get(*region).is_some_and(|state| state.serves());
    let down: Vec<RegionId> = regions.by_id.keys().filter(|region| !serves(region)).cloned().collect();
    if down.len() == regions.by_id.len() { Vec::new() } else { down }
}
