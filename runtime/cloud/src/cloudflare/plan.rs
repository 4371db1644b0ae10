//! The steps from what is there to what is wanted.
//!
//! A new version serves a share of the requests first, and everybody once it was asked and answered well. Where nobody
//! is led to the worker yet, it serves at once, and is asked as soon as the routes are there. Things are made before what
//! refers to them, and taken away after it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use crate::change::{Action, Change, Difference, differences, resolve};
use crate::journal::{Kept, State, Unfinished};

use super::bundle::MIGRATIONS;
use super::desired::{Desired, Kind, Resource, RuleWitness};
use super::observed::{Live, Observed};

/// The address of the worker in a journal.
pub const WORKER: &str = "worker";

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Makes something.
    Create(Resource),
    /// Gives something its fields.
    Update {
        /// As it should be.
        resource: Resource,
        /// The provider's identifier.
        id: String,
    },
    /// Takes something away.
    Delete {
        /// What kind.
        kind: Kind,
        /// Its key.
        key: String,
        /// The provider's identifier.
        id: String,
    },
    /// Makes the ruleset of the cache settings, with its first rules, where the zone has none.
    Ruleset(Vec<Resource>),
    /// Releases durable object classes with the whole script, at once.
    Migrate {
        /// The migration released last.
        from: Option<String>,
    },
    /// Uploads a version that serves nobody yet.
    Upload,
    /// Gives the version a share of the requests, in percent.
    Deploy {
        /// The share; 100 is everybody.
        percent: u32,
    },
    /// Asks the version, and goes back to what served before where it does not answer well.
    Probe,
    /// Takes out of the caches what rules no longer allow.
    Purge {
        /// The tags.
        tags: Vec<String>,
    },
    /// Takes the worker away, with what its durable objects hold.
    DeleteWorker,
}

impl Step {
    /// The step by name, as the journal and reports have it.
    pub fn name(&self) -> String {
        match self {
            Self::Create(resource) => format!("create {}", resource.address()),
            Self::Update { resource, .. } => format!("update {}", resource.address()),
            Self::Delete { kind, key, .. } => format!("delete {kind}/{key}"),
            Self::Ruleset(_) => "create the ruleset of the cache settings".to_owned(),
            Self::Migrate { from } => {
                format!("release durable objects {} -> {}", from.as_deref().unwrap_or("none"), last_migration())
            }
            Self::Upload => "upload a version".to_owned(),
            Self::Deploy { percent } => format!("deploy the version to {percent} %"),
            Self::Probe => "probe the version".to_owned(),
            Self::Purge { tags } => format!("purge {}", tags.join(", ")),
            Self::DeleteWorker => "delete the worker".to_owned(),
        }
    }
}

/// The migration that this runtime's worker needs.
pub fn last_migration() -> &'static str {
    MIGRATIONS[MIGRATIONS.len() - 1].0
}

/// Something that others changed since we left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// What.
    pub address: String,
    /// How.
    pub how: Drifted,
}

/// How something differs from how we left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drifted {
    /// It was taken away.
    Gone,
    /// These fields were changed: from what we left to what is there.
    Changed(Vec<Difference>),
    /// It carries our mark, and the journal does not know it.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// For a person.
    pub changes: Vec<Change>,
    /// For the executor, in order.
    pub steps: Vec<Step>,
    /// What others changed.
    pub drift: Vec<Drift>,
    /// What is worth knowing and changes nothing.
    pub notes: Vec<String>,
    /// The identifiers of what is there, by address.
    pub ids: BTreeMap<String, String>,
}

/// The plan from `observed` to `desired`; `left` is what the journal says that we left.
pub fn plan(desired: &Desired, observed: &Observed, left: &State) -> Plan {
    let ids = ids(observed);
    let mut plan = Plan { ids: ids.clone(), drift: drift(observed, left), ..Plan::default() };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut first_rules = Vec::new();
    for resource in &desired.resources {
        let Some((change, step)) = resource_step(resource, observed, &ids) else { continue };
        plan.changes.push(change);
        match (step, resource.kind) {
            (Step::Create(resource), Kind::CacheRule) if observed.ruleset.is_none() => first_rules.push(resource),
            (step, Kind::Route | Kind::LoadBalancer) => after.push(step),
            (step, _) => before.push(step),
        }
    }
    if !first_rules.is_empty() {
        before.push(Step::Ruleset(first_rules));
    }
    let wanted: BTreeSet<String> = desired.resources.iter().map(Resource::address).collect();
    let mut gone: Vec<&Live> = observed.live.iter().filter(|live| !wanted.contains(&live.address())).collect();
    gone.sort_by_key(|live| std::cmp::Reverse(live.kind));
    let kept_data = gone.iter().filter(|live| live.kind == Kind::Kv);
    plan.notes.extend(kept_data.map(|live| {
        format!("{} is no longer wanted and stays, because it may hold data: `destroy --target cloudflare --purge`, or the dashboard, takes it", live.address())
    }));
    gone.retain(|live| live.kind != Kind::Kv);
    plan.changes.extend(gone.iter().map(|live| Change { address: live.address(), action: Action::Delete }));

    let leads = observed.live.iter().any(|live| live.kind == Kind::Route) || !observed.strays.is_empty();
    let routes_new = after.iter().any(|step| matches!(step, Step::Create(Resource { kind: Kind::Route, .. })));
    let worker = worker_steps(desired, observed, leads, &mut plan);
    let replaced = !worker.is_empty();
    let purge = purge(desired, left).filter(|_| leads);
    plan.steps = before;
    plan.steps.extend(worker);
    plan.steps.extend(after);
    if ((routes_new || replaced) && !leads) || (!replaced && owes_probe(left)) {
        plan.steps.push(Step::Probe);
    }
    plan.steps.extend(purge);
    let delete = |live: &&Live| Step::Delete { kind: live.kind, key: live.key.clone(), id: live.id.clone() };
    plan.steps.extend(gone.iter().map(delete));
    plan.notes.extend(
        observed.strays.iter().map(|pattern| {
            format!("the route {pattern} leads to our worker and was not made by us: it is left as it is")
        }),
    );
    if !observed.zone_active {
        plan.notes.push(format!("the zone {} is not active: nobody is served by it yet", observed.zone_name));
    }
    plan
}

/// Whether a run ended between leading people to a version and asking whether it is well.
fn owes_probe(left: &State) -> bool {
    let probe = Step::Probe.name();
    let owes = |run: &Unfinished| run.planned.contains(&probe) && !run.done.contains(&probe);
    left.unfinished.as_ref().is_some_and(owes)
}

/// The routes that a run which did not come to its end was to make: where the version is not well, they go again.
pub fn fresh_routes(observed: &Observed, left: &State) -> Vec<(String, String)> {
    let Some(run) = &left.unfinished else { return Vec::new() };
    let routes = observed.live.iter().filter(|live| live.kind == Kind::Route);
    let fresh = routes.filter(|live| run.planned.contains(&format!("create {}", live.address())));
    fresh.map(|live| (live.key.clone(), live.id.clone())).collect()
}

/// What is as it should be and stands in no journal, or otherwise there: because a run ended between doing and writing,
/// because the journal was lost, or because others did what we were about to do.
pub fn adopted(desired: &Desired, observed: &Observed, left: &State) -> Vec<Kept> {
    let ids = ids(observed);
    let mut all = Vec::new();
    for resource in &desired.resources {
        let Some(live) = observed.at(resource.kind, &resource.key) else { continue };
        let body = resolve(&resource.body, &ids);
        let kept = Kept { address: resource.address(), id: live.id.clone(), body };
        if differences(&kept.body, &live.body).is_empty() && left.kept.get(&kept.address) != Some(&kept) {
            all.push(kept);
        }
    }
    let serving = observed.worker.as_ref().and_then(|worker| {
        let version = worker.versions.iter().find(|version| version.tag.as_ref() == Some(&desired.upload.tag))?;
        (worker.deployment.as_ref()?.share(&version.id) >= 100.0).then_some(&version.id)
    });
    if let Some(version) = serving {
        let kept = worker_kept(desired, version, purge(desired, left).is_some().then_some(left));
        all.extend((left.kept.get(WORKER) != Some(&kept)).then_some(kept));
    }
    all
}

/// What the journal knows and is neither there nor wanted any more.
pub fn forgotten(desired: &Desired, observed: &Observed, left: &State) -> Vec<String> {
    let wanted = |address: &String| desired.resources.iter().any(|resource| resource.address() == *address);
    let there = |address: &String| match address.as_str() {
        WORKER => observed.worker.is_some(),
        _ => observed.live.iter().any(|live| live.address() == *address),
    };
    left.kept.keys().filter(|address| !there(address) && !wanted(address)).cloned().collect()
}

fn ids(observed: &Observed) -> BTreeMap<String, String> {
    observed.live.iter().map(|live| (live.address(), live.id.clone())).collect()
}

fn resource_step(resource: &Resource, observed: &Observed, ids: &BTreeMap<String, String>) -> Option<(Change, Step)> {
    let address = resource.address();
    let Some(live) = observed.at(resource.kind, &resource.key) else {
        return Some((Change { address, action: Action::Create }, Step::Create(resource.clone())));
    };
    let fields = differences(&resolve(&resource.body, ids), &live.body);
    if fields.is_empty() {
        return None;
    }
    let step = Step::Update { resource: resource.clone(), id: live.id.clone() };
    Some((Change { address, action: Action::Update(fields) }, step))
}

/// The steps until the wanted version serves everybody; none where it does.
fn worker_steps(desired: &Desired, observed: &Observed, leads: bool, plan: &mut Plan) -> Vec<Step> {
    let name = &desired.settings.worker;
    let address = format!("worker/{name}");
    let tag = &desired.upload.tag;
    let Some(worker) = &observed.worker else {
        plan.changes.push(Change { address, action: Action::Create });
        return vec![Step::Migrate { from: None }, Step::Upload, Step::Deploy { percent: 100 }];
    };
    let version = worker.versions.iter().find(|version| version.tag.as_ref() == Some(tag));
    let share = match (version, &worker.deployment) {
        (Some(version), Some(deployment)) => deployment.share(&version.id),
        _ => 0.0,
    };
    let migrates = worker.migration.as_deref() != Some(last_migration());
    if share >= 100.0 && !migrates {
        return Vec::new();
    }
    let tag_of = |id: &str| {
        let found = worker.versions.iter().find(|version| version.id == id);
        found.and_then(|version| version.tag.clone()).unwrap_or_else(|| format!("{id} (no tag of ours)"))
    };
    let serves = worker.deployment.as_ref().map_or(Value::Null, |deployment| {
        json!(deployment.shares.iter().map(|(id, share)| format!("{share} % {}", tag_of(id))).collect::<Vec<_>>())
    });
    let mut fields = vec![Difference { field: "serves".to_owned(), from: serves, to: json!([format!("100 % {tag}")]) }];
    let mut steps = Vec::new();
    if migrates {
        let from = worker.migration.clone();
        fields.push(Difference { field: "migration".to_owned(), from: json!(from), to: json!(last_migration()) });
        steps.push(Step::Migrate { from });
    }
    plan.changes.push(Change { address, action: Action::Update(fields) });
    if version.is_none() {
        steps.push(Step::Upload);
    }
    let percent = desired.settings.canary.percent;
    // A deployment of one version alone has no other that could serve the rest.
    let others = worker.deployment.as_ref().is_some_and(|deployment| {
        deployment.shares.iter().any(|(id, _)| version.is_none_or(|version| version.id != *id))
    });
    if leads && others {
        if version.is_none() || share != f64::from(percent) {
            steps.push(Step::Deploy { percent });
        }
        steps.push(Step::Probe);
    }
    steps.push(Step::Deploy { percent: 100 });
    steps
}

fn purge(desired: &Desired, left: &State) -> Option<Step> {
    let before = left.kept.get(WORKER)?.body.get("rules")?;
    let before: BTreeMap<String, RuleWitness> = serde_json::from_value(before.clone()).ok()?;
    let tightened = before.iter().filter(|(name, rule)| rule.tightens_to(desired.rules.get(*name)));
    let tags: Vec<String> = tightened.map(|(name, _)| format!("rule:{name}")).collect();
    (!tags.is_empty()).then_some(Step::Purge { tags })
}

/// What the journal keeps of a worker that serves everybody. Until what its rules no longer allow is purged, the rules of
/// before stay: those of `unpurged`.
pub fn worker_kept(desired: &Desired, version: &str, unpurged: Option<&State>) -> Kept {
    let before = unpurged.and_then(|left| left.kept.get(WORKER)?.body.get("rules").cloned());
    let rules = before.unwrap_or_else(|| json!(desired.rules));
    let body = json!({"tag": desired.upload.tag, "revision": desired.revision, "rules": rules});
    Kept { address: WORKER.to_owned(), id: version.to_owned(), body }
}

fn drift(observed: &Observed, left: &State) -> Vec<Drift> {
    let mut all = Vec::new();
    for kept in left.kept.values().filter(|kept| kept.address != WORKER) {
        let found = observed.live.iter().find(|live| live.address() == kept.address);
        let how = match found {
            None => Some(Drifted::Gone),
            Some(live) => {
                let from_ours = differences(&kept.body, &live.body);
                // A person asks what became of it: from what we left to what is there.
                let turned = from_ours.into_iter().map(|d| Difference { field: d.field, from: d.to, to: d.from });
                Some(turned.collect::<Vec<_>>()).filter(|fields| !fields.is_empty()).map(Drifted::Changed)
            }
        };
        all.extend(how.map(|how| Drift { address: kept.address.clone(), how }));
    }
    if let Some(kept) = left.kept.get(WORKER) {
        all.extend(worker_drift(observed, kept, left.unfinished.is_some()));
    }
    // Without a journal nothing is known of anything; that says nothing about others. After a run that did not end,
    // it may have been that run.
    if !left.kept.is_empty() && left.unfinished.is_none() {
        let unknown = observed.live.iter().filter(|live| !left.kept.contains_key(&live.address()));
        all.extend(unknown.map(|live| Drift { address: live.address(), how: Drifted::Unknown }));
    }
    all
}

fn worker_drift(observed: &Observed, kept: &Kept, unfinished: bool) -> Option<Drift> {
    let address = WORKER.to_owned();
    let Some(worker) = &observed.worker else { return Some(Drift { address, how: Drifted::Gone }) };
    let deployment = worker.deployment.as_ref()?;
    if unfinished || deployment.share(&kept.id) >= 100.0 {
        return None;
    }
    let to = json!(format!("{} (deployment {} by {})", deployment.words(), deployment.id, deployment.author));
    let from = json!(format!("100 % of {}", kept.id));
    Some(Drift { address, how: Drifted::Changed(vec![Difference { field: "serves".to_owned(), from, to }]) })
}

/// The steps that take everything of ours away, and nothing else. Namespaces may hold data, and go only where `data` says so.
///
/// # Errors
/// Routes that others made lead to the worker: they would lead nowhere.
pub fn demolition(desired: &Desired, observed: &Observed, left: &State, data: bool) -> Result<Plan, Vec<String>> {
    if observed.worker.is_some() && !observed.strays.is_empty() {
        return Err(observed.strays.clone());
    }
    let mut plan = Plan { ids: ids(observed), drift: drift(observed, left), ..Plan::default() };
    let mut live: Vec<&Live> = observed.live.iter().collect();
    live.sort_by_key(|live| std::cmp::Reverse(live.kind));
    for one in live {
        if one.kind == Kind::Kv && !data {
            plan.notes.push(format!("{} stays, because it may hold data: `--purge` takes it", one.address()));
            continue;
        }
        plan.changes.push(Change { address: one.address(), action: Action::Delete });
        plan.steps.push(Step::Delete { kind: one.kind, key: one.key.clone(), id: one.id.clone() });
    }
    if observed.worker.is_some() {
        let address = format!("worker/{}", desired.settings.worker);
        plan.changes.push(Change { address, action: Action::Delete });
        // Routes are gone by then, and namespaces are not yet: the worker binds them.
        let at = plan.steps.iter().position(|step| !matches!(step, Step::Delete { kind: Kind::Route, .. }));
        plan.steps.insert(at.unwrap_or(plan.steps.len()), Step::DeleteWorker);
    }
    Ok(plan)
}
