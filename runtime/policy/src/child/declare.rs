//! What policy files declare while they load, and how their own tests went.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use model::edge::EdgePlan;
use model::names::{DnsName, Namespace};
use model::question::{PolicyTest, TestFailure, TestRun};
use model::radius::ChangeBounds;
use model::record::{Basis, DataClass, Purpose};
use model::replication::{AckLevel, ConflictResolution, LabelName, LabelRules, Quota, ReplicationPlan, Strategy};
use model::residency::RegionPolicy;
use model::routing::Zone;
use model::{ByteCount, Country, Micros, Millis, RegionId};
use steel::RootedSteelVal;
use steel::rvals::SteelVal;

use super::invariants;
use super::natives::Natives;
use super::property::Property;
use super::values::{Alist, Scheme, count, fault, list, name, region_id, rule, shown, within};
use super::{edge, zones};

/// The most that one tree may declare of each kind.
const MOST: usize = 1000;
/// How many tests are listed.
const MOST_TESTS: usize = 2000;

/// Everything declared so far.
#[derive(Default)]
pub struct Ledger {
    /// Where to tell which form of a file comes next.
    pub marks: Option<Arc<std::fs::File>>,
    /// The file that is being loaded.
    pub file: String,
    /// The regions of the facts in force, as objects.
    pub regions: Vec<SteelVal>,
    /// The test module being run, or empty.
    module: String,
    /// When the check before this one was over, or the test module began.
    since: Option<Instant>,
    /// How many tests held.
    pub passed: u32,
    /// How many did not.
    pub failed: u32,
    /// The tests, at most [`MOST_TESTS`].
    pub tests: Vec<TestRun>,
    /// What must never happen.
    pub invariants: Vec<invariants::Declared>,
    /// The property that is being tried.
    pub property: Option<Property>,
    /// Conflict resolvers by name; rooted, so that the collector leaves what they close over.
    pub resolvers: BTreeMap<String, (String, RootedSteelVal)>,
    /// What is declared for the edge, in order.
    pub edge: EdgePlan,
    /// The file that declared the last route.
    pub edge_file: String,
    /// What each region takes in, and the file that says so.
    pub region_policies: BTreeMap<RegionId, (String, RegionPolicy)>,
    /// Zones by apex, and the file that declares each.
    pub zones: BTreeMap<DnsName, (String, Zone)>,
    strategies: BTreeMap<Option<Namespace>, (String, Partial)>,
    /// The bounds of a change.
    pub bounds: ChangeBounds,
}

/// A strategy as declared, before the defaults are filled in.
#[derive(Clone, Default)]
struct Partial {
    lag_target: Option<Millis>,
    conflict_resolution: Option<ConflictResolution>,
    priority_regions: Option<Vec<RegionId>>,
    ack: Option<AckLevel>,
    default_class: Option<DataClass>,
    jurisdictions: Option<BTreeSet<Country>>,
    purpose: Option<Purpose>,
    basis: Option<Basis>,
    required: Option<BTreeSet<LabelName>>,
    retention: Option<BTreeMap<DataClass, Millis>>,
    quota: Option<Quota>,
}

/// Something declared that does not fit the rest: file, the form it stands in, what is wrong, what to do.
pub struct Misfit {
    pub file: String,
    pub form: &'static str,
    pub message: String,
    pub help: String,
}

/// The ledger, whoever had it last.
pub fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Defines the declaring and testing natives.
pub fn define(module: &mut Natives, ledger: &Arc<Mutex<Ledger>>) {
    let kept = ledger.clone();
    module.define("conflict-resolver", 1..=1, move |given| {
        let called = name(&given[0])?;
        let ledger = lock(&kept);
        let found = ledger.resolvers.get(called).map(|(_, function)| function.value().clone());
        found.ok_or_else(|| fault(format!("no conflict resolver is called `{called}`; define it first")))
    });
    let mut on = |called, arity, run: fn(&mut Ledger, &[SteelVal]) -> Scheme<()>| {
        let ledger = ledger.clone();
        module.define(called, arity, move |given| run(&mut lock(&ledger), given).map(|()| SteelVal::Void));
    };
    on("define-replication-strategy", 1..=2, strategy);
    on("define-conflict-resolver", 2..=2, resolver);
    for (called, run) in [
        ("define-cache-rule", edge::cache_rule as fn(&mut Ledger, &[SteelVal]) -> Scheme<()>),
        ("define-rate-limit", edge::rate_limit),
        ("define-edge-auth", edge::edge_auth),
        ("define-edge-route", edge::edge_route),
    ] {
        on(called, 2..=2, run);
    }
    on("define-edge-backends", 1..=3, edge::edge_backends);
    on("define-region-policy", 2..=2, region_policy);
    on("define-zone", 2..=2, zones::define);
    on("begin-tests", 1..=1, |ledger, given| {
        name(&given[0])?.clone_into(&mut ledger.module);
        ledger.since = Some(Instant::now());
        Ok(())
    });
    on("end-tests", 0..=0, |ledger, _| {
        ledger.module.clear();
        Ok(())
    });
    on("check-equal?", 3..=3, |ledger, given| {
        ledger.check(&given[0], given[1] == given[2], || shown(&given[2]), || shown(&given[1]))
    });
    on("check-true", 2..=2, |ledger, given| {
        let holds = !matches!(given[1], SteelVal::BoolV(false));
        ledger.check(&given[0], holds, || "anything but #false".to_owned(), || shown(&given[1]))
    });
}

fn strategy(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    const KEYS: &[&str] = &[
        "mode",
        "lag-target",
        "conflict-resolution",
        "priority-regions",
        "ack",
        "default-class",
        "default-jurisdiction",
        "default-purpose",
        "default-basis",
        "requires",
        "keep-days",
        "quota",
        "change-bounds",
    ];
    let namespace = match given {
        [called, _] => Some(Namespace::new(name(called)?).map_err(|error| fault(error.to_string()))?),
        _ => None,
    };
    let keys = Alist::read(&given[given.len() - 1], KEYS)?;
    keys.one("mode", |value| match name(value)? {
        "eventual" | "eventual-consistency" => Ok(()),
        other => Err(fault(format!("there is no mode `{other}`; use eventual-consistency"))),
    })?;
    let partial = Partial {
        lag_target: keys.one("lag-target", count)?.map(Millis),
        conflict_resolution: keys.one("conflict-resolution", |value| {
            Ok(match name(value)? {
                "last-write-wins" => ConflictResolution::LastWriteWins,
                "priority-regions" => ConflictResolution::PriorityRegions,
                "keep-siblings" => ConflictResolution::KeepSiblings,
                resolver => ConflictResolution::Custom(resolver.to_owned()),
            })
        })?,
        priority_regions: keys.many("priority-regions", region_id)?,
        // `(ack . (regions . 2))` and `(ack regions 2)` alike.
        ack: match keys.one("ack", ack) {
            Ok(level) => level,
            Err(error) => match keys.many("ack", |value| Ok(value.clone())).ok().flatten().as_deref() {
                Some([word, k]) => Some(regions_ack(word, k)?),
                _ => return Err(error),
            },
        },
        default_class: keys.one("default-class", word)?,
        jurisdictions: keys
            .many("default-jurisdiction", |value| Country::new(name(value)?).map_err(|error| fault(error.to_string())))?
            .map(|all| all.into_iter().collect()),
        purpose: keys.one("default-purpose", word)?,
        basis: keys.one("default-basis", word)?,
        required: keys.many("requires", label_name)?.map(|all| all.into_iter().collect()),
        retention: match keys.entries("keep-days", |value| Ok(value.clone()))? {
            Some(classes) => Some(keep_days(&list(classes)).map_err(|error| within("keep-days", &error))?),
            None => None,
        },
        quota: match keys.entries("quota", |value| Ok(value.clone()))? {
            Some(_) if namespace.is_none() => {
                return Err(fault("`quota` bounds one namespace; move it into the strategy of that namespace"));
            }
            Some(bounds) => Some(quota(&list(bounds)).map_err(|error| within("quota", &error))?),
            None => None,
        },
    };
    if let Some(entries) = keys.entries("change-bounds", |value| Ok(value.clone()))? {
        if let Some(namespace) = &namespace {
            return Err(fault(format!(
                "`change-bounds` holds for every save; move it from `{namespace}` to the default"
            )));
        }
        ledger.bounds = change_bounds(&list(entries)).map_err(|error| within("change-bounds", &error))?;
    }
    if ledger.strategies.contains_key(&namespace) || ledger.strategies.len() == MOST {
        return Err(fault(match namespace {
            Some(namespace) => format!("the strategy of `{namespace}` is already defined; remove one of the two"),
            None => "the default strategy is already defined; name the namespace that differs: (define-replication-strategy 'NAME …)".to_owned(),
        }));
    }
    ledger.strategies.insert(namespace, (ledger.file.clone(), partial));
    Ok(())
}

/// A word of a fixed vocabulary.
fn word<T: std::str::FromStr<Err = model::record::UnknownWord>>(value: &SteelVal) -> Scheme<T> {
    name(value)?.parse().map_err(|error: model::record::UnknownWord| fault(error.to_string()))
}

fn label_name(value: &SteelVal) -> Scheme<LabelName> {
    let called = name(value)?;
    let known = LabelName::ALL.iter().find(|(name, _)| *name == called);
    known.map(|(_, label)| *label).ok_or_else(|| {
        let all: Vec<&str> = LabelName::ALL.iter().map(|(name, _)| *name).collect();
        fault(format!("there is no label `{called}`; the labels are {}", all.join(", ")))
    })
}

/// `((personal . 400) (health . 90))`: days for which records of a class are kept.
fn keep_days(value: &SteelVal) -> Scheme<BTreeMap<DataClass, Millis>> {
    let classes: Vec<&str> = DataClass::ALL.iter().map(|class| class.as_str()).collect();
    let keys = Alist::read(value, &classes)?;
    let mut kept = BTreeMap::new();
    for class in DataClass::ALL {
        if let Some(days) = keys.one(class.as_str(), count)? {
            if !(1..=36_500).contains(&days) {
                return Err(fault(format!("`{class}` is kept for {days} days; give 1 to 36500")));
            }
            kept.insert(*class, Millis::from_secs(days * 24 * 3600));
        }
    }
    Ok(kept)
}

/// `((bytes . 1000000000) (records . 100000) (object-bytes . 50000000))`, one of them at least.
fn quota(value: &SteelVal) -> Scheme<Quota> {
    let keys = Alist::read(value, &["bytes", "records", "object-bytes"])?;
    let quota = Quota {
        bytes: keys.one("bytes", count)?.map(ByteCount),
        records: keys.one("records", count)?,
        object_bytes: keys.one("object-bytes", count)?.map(ByteCount),
    };
    if quota.is_none() {
        return Err(fault("give bytes, records, object-bytes, or several: ((bytes . 1000000000) (records . 100000))"));
    }
    Ok(quota)
}

/// `((traffic . 30) (more-permissive . 0))`; what is left out keeps its default.
fn change_bounds(value: &SteelVal) -> Scheme<ChangeBounds> {
    let keys = Alist::read(value, &["traffic", "more-permissive"])?;
    let default = ChangeBounds::default();
    let traffic = match keys.one("traffic", count)? {
        None => default.traffic,
        Some(percent @ 0..=100) => percent as u8,
        Some(other) => return Err(fault(format!("`traffic` is {other}; give a share in per cent, 0 to 100"))),
    };
    let verdicts = keys.one("more-permissive", count)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    Ok(ChangeBounds { traffic, more_permissive: verdicts.unwrap_or(default.more_permissive) })
}

fn ack(value: &SteelVal) -> Scheme<AckLevel> {
    match value {
        SteelVal::Pair(pair) => regions_ack(&pair.car(), &pair.cdr()),
        SteelVal::ListV(parts) if parts.len() == 2 => regions_ack(&parts[0], &parts[1]),
        other => AckLevel::parse(name(other)?)
            .ok_or_else(|| fault(format!("{} is no level; use local, majority or (regions . 2)", shown(other)))),
    }
}

fn regions_ack(word: &SteelVal, k: &SteelVal) -> Scheme<AckLevel> {
    match (name(word)?, u8::try_from(count(k)?)) {
        ("regions", Ok(k @ 1..)) => Ok(AckLevel::Regions(k)),
        _ => Err(fault("use local, majority or (regions . 2)")),
    }
}

fn resolver(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    let called = name(&given[0])?;
    if matches!(called, "last-write-wins" | "priority-regions" | "keep-siblings") {
        return Err(fault(format!("`{called}` is built in; choose another name")));
    }
    if !is_function(&given[1]) {
        return Err(fault(format!(
            "a resolver must be a function, found {}; give (lambda (key siblings) …) or the name of one, unquoted",
            shown(&given[1])
        )));
    }
    if let Some(takes) = takes_other_than(&given[1], 2) {
        return Err(fault(format!(
            "`{called}` takes {takes}; a resolver is called with two: (lambda (key siblings) …)"
        )));
    }
    if ledger.resolvers.contains_key(called) || ledger.resolvers.len() == MOST {
        return Err(fault(format!("the resolver `{called}` is already defined; choose another name")));
    }
    ledger.resolvers.insert(called.to_owned(), (ledger.file.clone(), given[1].as_rooted()));
    Ok(())
}

/// Whether the value can be called.
pub fn is_function(value: &SteelVal) -> bool {
    matches!(
        value,
        SteelVal::Closure(_)
            | SteelVal::FuncV(_)
            | SteelVal::BoxedFunction(_)
            | SteelVal::MutFunc(_)
            | SteelVal::BuiltIn(_)
            | SteelVal::ContinuationFunction(_)
    )
}

/// How many arguments a function takes, where it would not take `count`. Functions that
/// are not written in Scheme are believed.
pub fn takes_other_than(value: &SteelVal, count: usize) -> Option<String> {
    let SteelVal::Closure(closure) = value else { return None };
    let plural = |count: usize| if count == 1 { "1 argument".to_owned() } else { format!("{count} arguments") };
    match (closure.arity(), closure.is_multi_arity()) {
        (most, false) => (most != count).then(|| plural(most)),
        // The last one takes what is left over.
        (more, true) => (more.saturating_sub(1) > count).then(|| format!("at least {}", plural(more - 1))),
    }
}

fn region_policy(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    let region = region_id(&given[0])?;
    let keys = Alist::read(&given[1], &["jurisdiction", "accepts", "requires"])?;
    let jurisdiction =
        keys.one("jurisdiction", |value| Country::new(name(value)?).map_err(|error| fault(error.to_string())))?;
    let class = |value: &SteelVal| name(value)?.parse::<DataClass>().map_err(|error| fault(error.to_string()));
    let policy = RegionPolicy {
        region: region.clone(),
        jurisdiction: jurisdiction.ok_or_else(|| fault("`jurisdiction` is missing"))?,
        accepts: keys.many("accepts", class)?.ok_or_else(|| fault("`accepts` is missing"))?.into_iter().collect(),
        requires: keys.many("requires", rule)?.unwrap_or_default().into_iter().collect::<BTreeSet<_>>(),
    };
    if ledger.region_policies.contains_key(&region) || ledger.region_policies.len() == MOST {
        return Err(fault(format!("the policy of `{region}` is already defined; remove one of the two")));
    }
    ledger.region_policies.insert(region, (ledger.file.clone(), policy));
    Ok(())
}

impl Ledger {
    /// The tests that held.
    pub fn held(&self) -> Vec<PolicyTest> {
        let held = self.tests.iter().filter(|test| test.failure.is_none());
        held.map(|TestRun { file, module, sentence, .. }| PolicyTest {
            file: file.clone(),
            module: module.clone(),
            sentence: sentence.clone(),
        })
        .collect()
    }

    /// Notes what came of a test.
    pub fn check(
        &mut self,
        sentence: &SteelVal,
        holds: bool,
        expected: impl Fn() -> String,
        actual: impl Fn() -> String,
    ) -> Scheme<()> {
        let sentence = name(sentence)?.to_owned();
        let micros = self.since.map_or(Micros::ZERO, |since| Micros::from_duration(since.elapsed()));
        *(if holds { &mut self.passed } else { &mut self.failed }) += 1;
        if self.tests.len() < MOST_TESTS {
            let (file, module) = (self.file.clone(), self.module.clone());
            let failure = (!holds).then(|| TestFailure { expected: expected(), actual: actual() });
            self.tests.push(TestRun { file, module, sentence, line: 0, took: micros, failure });
        }
        self.since = Some(Instant::now());
        Ok(())
    }

    /// The replication plan, every default filled in.
    ///
    /// # Errors
    /// What does not fit: a resolver that nobody defined, a region that does not exist.
    pub fn replication(&self, regions: &BTreeSet<RegionId>) -> Result<ReplicationPlan, Vec<Misfit>> {
        let built_in = Strategy {
            lag_target: Millis(1000),
            conflict_resolution: ConflictResolution::LastWriteWins,
            priority_regions: Vec::new(),
            ack: AckLevel::LOCAL,
            // What nobody labelled is taken as the stricter kind.
            default_class: DataClass::Personal,
            labels: LabelRules::default(),
            quota: Default::default(),
        };
        let default = match self.strategies.get(&None) {
            Some((_, partial)) => partial.over(&built_in),
            None => built_in,
        };
        let mut misfits = Vec::new();
        for (file, partial) in self.strategies.values() {
            misfits.extend(self.misfits(file, partial, regions));
        }
        let namespaces = self
            .strategies
            .iter()
            .filter_map(|(namespace, (_, partial))| Some((namespace.clone()?, partial.over(&default))))
            .collect();
        if misfits.is_empty() { Ok(ReplicationPlan { default, namespaces }) } else { Err(misfits) }
    }

    fn misfits(&self, file: &str, partial: &Partial, regions: &BTreeSet<RegionId>) -> Vec<Misfit> {
        let misfit = |message: String, help: String| Misfit {
            file: file.to_owned(),
            form: "define-replication-strategy",
            message,
            help,
        };
        let mut misfits = Vec::new();
        if let Some(ConflictResolution::Custom(called)) = &partial.conflict_resolution
            && !self.resolvers.contains_key(called)
        {
            let known = self.resolvers.keys().map(String::as_str);
            let all =
                ["last-write-wins", "priority-regions", "keep-siblings"].into_iter().chain(known).collect::<Vec<_>>();
            misfits.push(misfit(
                format!("no conflict resolver is called `{called}`"),
                format!("use one of {}", all.join(", ")),
            ));
        }
        for region in partial.priority_regions.iter().flatten().filter(|region| !regions.contains(*region)) {
            misfits.push(misfit(format!("there is no region `{region}`"), known_regions(regions)));
        }
        misfits
    }

    /// The region policies.
    ///
    /// # Errors
    /// Policies of regions that do not exist.
    pub fn region_policies(
        &self,
        regions: &BTreeSet<RegionId>,
    ) -> Result<BTreeMap<RegionId, RegionPolicy>, Vec<Misfit>> {
        let strangers = self.region_policies.iter().filter(|(region, _)| !regions.contains(*region));
        let misfits: Vec<Misfit> = strangers
            .map(|(region, (file, _))| Misfit {
                file: file.clone(),
                form: "define-region-policy",
                message: format!("there is no region `{region}`"),
                help: known_regions(regions),
            })
            .collect();
        if !misfits.is_empty() {
            return Err(misfits);
        }
        Ok(self.region_policies.iter().map(|(region, (_, policy))| (region.clone(), policy.clone())).collect())
    }
}

/// The regions that there are, for a help line.
pub fn known_regions(regions: &BTreeSet<RegionId>) -> String {
    format!("the regions are {}", regions.iter().map(RegionId::as_str).collect::<Vec<_>>().join(", "))
}

impl Partial {
    fn over(&self, default: &Strategy) -> Strategy {
        Strategy {
            lag_target: self.lag_target.unwrap_or(default.lag_target),
            conflict_resolution: self
                .conflict_resolution
                .clone()
                .unwrap_or_else(|| default.conflict_resolution.clone()),
            priority_regions: self.priority_regions.clone().unwrap_or_else(|| default.priority_regions.clone()),
            ack: self.ack.unwrap_or(default.ack),
            default_class: self.default_class.unwrap_or(default.default_class),
            labels: LabelRules {
                jurisdictions: self.jurisdictions.clone().unwrap_or_else(|| default.labels.jurisdictions.clone()),
                purpose: self.purpose.or(default.labels.purpose),
                basis: self.basis.or(default.labels.basis),
                required: self.required.clone().unwrap_or_else(|| default.labels.required.clone()),
                retention: self.retention.clone().unwrap_or_else(|| default.labels.retention.clone()),
            },
            quota: self.quota.unwrap_or_default(),
        }
    }
}
