//! From what a generation declares to the form.

use std::collections::{BTreeMap, BTreeSet};

use model::edge::{CacheRule, EdgePlan, EdgeRoute, RequestMatch};
use model::record::{DataClass, Labels};
use model::residency::{EEA, Law, ResidencyPlan, Verdict};
use model::routing::RoutingPlan;
use model::{Country, Finding, RegionId, RuleId, UnixMillis};

use crate::backend::complaints as complaints_of;
use crate::form::{Form, Holding, Rankings, Residency, Rule, VERSION, digest};

/// What [`compile`] joins.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What the generation declares for the edge.
    pub plan: &'a EdgePlan,
    /// Which regions serve a country.
    pub routing: &'a RoutingPlan,
    /// What may lie where.
    pub residency: &'a ResidencyPlan,
    /// The base URL of each region's gateway.
    pub origins: &'a BTreeMap<RegionId, String>,
    /// Now: a ruling that is not in force yet, or no more, permits nothing.
    pub now: UnixMillis,
}

/// Something that a form asks for and that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The form: `define-cache-rule`.
    pub form: &'static str,
    /// The name that it declares; empty where no declaration is at fault.
    pub name: String,
    /// The key at fault, where there is one.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Whether a reduced configuration may leave it out: it then serves correctly, and does less.
    pub reducible: bool,
}

impl Complaint {
    /// The complaint at its place in the files of the tree: at the key of its form if it stands there, else at the
    /// name, else at the file that has such forms.
    pub fn place(&self, files: &BTreeMap<String, String>) -> Finding {
        let declared = [format!("({} '{}", self.form, self.name), format!("({} \"{}", self.form, self.name)];
        let found = files.iter().find_map(|(file, text)| {
            declared.iter().find_map(|form| whole_name(text, form)).map(|at| (file, text, at))
        });
        let Some((file, text, at)) = found else {
            let file = files.iter().find(|(_, text)| text.contains(self.form)).map_or("", |(file, _)| file);
            return Finding::error(file, "", (0, 0), &self.message, &self.help);
        };
        let end = text[at + 1..].find("\n(").map_or(text.len(), |next| at + 1 + next);
        let inside = (!self.key.is_empty()).then(|| text[at..end].find(&format!("({} ", self.key))).flatten();
        let (offset, width) = match inside {
            Some(key) => (at + key + 1, self.key.len()),
            None => (at + self.form.len() + 3, self.name.chars().count()),
        };
        let line = text[..offset].matches('\n').count() + 1;
        let column = text[..offset].rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Finding::error(file, text, (line as u32, column as u32), &self.message, &self.help).spanning(width as u32)
    }
}

/// Where `form` stands with nothing of a longer name behind it.
fn whole_name(text: &str, form: &str) -> Option<usize> {
    text.match_indices(form)
        .map(|(at, _)| at)
        .find(|at| text[at + form.len()..].chars().next().is_none_or(|c| c.is_whitespace() || "\")".contains(c)))
}

/// What every answer gets: no sniffing of types, no framing by others, HTTPS from now on, no addresses to others.
const ANSWER_HEADERS: [(&str, &str); 4] = [
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
];

/// Compiles the declarations to a form.
///
/// # Errors
/// Everything that asks for what cannot be, whichever the backend.
pub fn compile(inputs: Inputs<'_>) -> Result<Form, Vec<Complaint>> {
    let residency = residency(&inputs);
    let complaints = complaints(&inputs, &residency);
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let form = Form {
        version: VERSION,
        revision: String::new(),
        rules: rules(inputs.plan, &residency),
        limits: inputs.plan.limits.clone(),
        auth: inputs.plan.auth.clone(),
        routes: inputs.plan.routes.iter().cloned().chain([last_route()]).collect(),
        ranking: rankings(inputs.routing, inputs.origins),
        origins: inputs.origins.clone(),
        residency,
        answer_headers: ANSWER_HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    };
    Ok(form.sealed())
}

/// As [`compile`], and whether every kind of edge that the generation says is in use can do what is asked for.
///
/// # Errors
/// Everything that cannot be, or that a kind of edge in use cannot do.
pub fn compile_for_use(inputs: Inputs<'_>) -> Result<Form, Vec<Complaint>> {
    let form = compile(inputs)?;
    let complaints: Vec<Complaint> = inputs
        .plan
        .backends
        .iter()
        .flat_map(|used| {
            let all = complaints_of(used.backend, &form).into_iter();
            all.filter(|complaint| !(complaint.reducible && used.reduced))
        })
        .collect();
    if complaints.is_empty() { Ok(form) } else { Err(complaints) }
}

/// The route of requests that no declared one is about.
fn last_route() -> EdgeRoute {
    EdgeRoute {
        name: RuleId::new("by-plan").expect("a fixed name"),
        when: RequestMatch::default(),
        regions: Vec::new(),
        attempts: 2,
        break_after: 5,
        break_seconds: 10,
        timeout_ms: 10_000,
    }
}

/// Each rule with the hash of what decides about its answers: itself, the rules that refine it, and what may lie where.
fn rules(plan: &EdgePlan, residency: &Residency) -> Vec<Rule> {
    let refining: Vec<&CacheRule> = plan.rules.iter().filter(|rule| rule.refines()).collect();
    let seal = |rule: &CacheRule| digest("repomind edge rule v1", &(rule, &refining, residency), 8);
    plan.rules.iter().map(|rule| Rule { rule: rule.clone(), revision: seal(rule) }).collect()
}

fn rankings(routing: &RoutingPlan, origins: &BTreeMap<RegionId, String>) -> Rankings {
    let known = |regions: &[RegionId]| -> Vec<RegionId> {
        regions.iter().filter(|region| origins.contains_key(*region)).cloned().collect()
    };
    let default = known(&routing.default.regions);
    let mut orders: Vec<Vec<RegionId>> = Vec::new();
    let mut countries = BTreeMap::new();
    for (class, ranking) in &routing.by_class {
        let order = known(&ranking.regions);
        let Some(country) = class.country.filter(|_| order != default) else { continue };
        let at = orders.iter().position(|other| *other == order).unwrap_or_else(|| {
            orders.push(order);
            orders.len() - 1
        });
        countries.insert(country, at as u16);
    }
    Rankings { default, orders, countries }
}

/// Where each class may lie under each law, by the residency plan and nothing else.
fn residency(inputs: &Inputs<'_>) -> Residency {
    let country = |code: &&str| Country::new(code).expect("a known code");
    let mut laws = BTreeMap::from([("eea".to_owned(), EEA.iter().map(country).collect::<Vec<_>>())]);
    for law in Law::all() {
        if let Law::Of(country) = law {
            laws.insert(country.to_string(), vec![country]);
        }
    }
    let mut holdings: Vec<Holding> = Vec::new();
    for &class in DataClass::ALL {
        for law in Law::all() {
            let Some(found) = holding(inputs, class, law) else { continue };
            let same = holdings.iter_mut().find(|other| {
                other.class == class
                    && (&other.regions, &other.duties, other.until) == (&found.regions, &found.duties, found.until)
            });
            match same {
                Some(other) => other.laws.extend(found.laws),
                None => holdings.push(found),
            }
        }
    }
    let policies = inputs.residency.region_policies().iter().filter(|(region, _)| inputs.origins.contains_key(*region));
    let region_duties = policies.filter(|(_, policy)| !policy.requires.is_empty());
    let region_duties =
        region_duties.map(|(region, policy)| (region.clone(), policy.requires.iter().cloned().collect())).collect();
    Residency { laws, holdings, region_duties }
}

/// Where the plan permits records of this class and law, with no basis stated: what a cache may rely on.
fn holding(inputs: &Inputs<'_>, class: DataClass, law: Law) -> Option<Holding> {
    let mut labels = Labels::of_class(class, inputs.now);
    labels.jurisdictions = match law {
        Law::None => BTreeSet::new(),
        Law::Eea => BTreeSet::from([Country::new(EEA[0]).expect("a known code")]),
        Law::Of(country) => BTreeSet::from([country]),
        // A country that no law is named for.
        Law::Other => BTreeSet::from([Country::new("ZZ").expect("two letters")]),
    };
    let permitted = |region: &&RegionId| inputs.residency.permit(&labels, region, inputs.now).is_ok();
    let regions: Vec<RegionId> = inputs.origins.keys().filter(permitted).cloned().collect();
    let (mut duties, mut until) = (BTreeSet::new(), None);
    for case in ResidencyPlan::cases_of(&labels) {
        let ruling = inputs.residency.cases().get(&case);
        for verdict in ruling.iter().flat_map(|ruling| regions.iter().filter_map(|region| ruling.hold.get(region))) {
            let Verdict::Allow { obligations, valid_until, .. } = verdict else { continue };
            duties.extend(obligations.iter().cloned());
            if *valid_until != UnixMillis::MAX {
                until = Some(until.map_or(valid_until.0, |until: u64| until.min(valid_until.0)));
            }
        }
    }
    let (laws, duties) = (vec![law.name().to_owned()], duties.into_iter().collect());
    (!regions.is_empty()).then_some(Holding { class, laws, regions, duties, until })
}

fn complaints(inputs: &Inputs<'_>, residency: &Residency) -> Vec<Complaint> {
    let mut all = Vec::new();
    for route in &inputs.plan.routes {
        for region in route.regions.iter().filter(|region| !inputs.origins.contains_key(*region)) {
            all.push(Complaint {
                form: "define-edge-route",
                name: route.name.to_string(),
                key: "regions",
                message: format!("there is no region `{region}` to send requests to"),
                help: "name a region that has a file in region-config/".to_owned(),
                reducible: false,
            });
        }
    }
    for rule in inputs.plan.rules.iter().filter(|rule| !rule.bypass && rule.edge_ttl_seconds > 0) {
        if !residency.holdings.iter().any(|holding| holding.class == rule.class) {
            all.push(Complaint {
                form: "define-cache-rule",
                name: rule.name.to_string(),
                key: "class",
                message: format!("data of class `{}` may be kept in no region, and so at no edge", rule.class),
                help: "bypass the cache for it; compliance/data-residency.scm decides this".to_owned(),
                reducible: false,
            });
        }
    }
    all
}
