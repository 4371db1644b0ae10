//! Puts the runtime's questions to the loaded policies, and takes nothing for
//! an answer that has not the shape agreed on.

use std::collections::{BTreeMap, BTreeSet};

use model::explain::RouteTrace;
use model::names::DnsName;
use model::question::{CaseAnswer, Declarations, Resolution, Rulings};
use model::record::{Address, Basis, Content, DataClass, Purpose, Sibling};
use model::replication::{LagAction, LagBands};
use model::residency::{Law, ResidencyCase, Verdict};
use model::routing::{ClientClass, ClientFacts, Facts, Observation, Ranking, RegionFacts, Routes};
use model::{Finding, Millis, RegionId, UnixMillis};
use steel::rvals::SteelVal;

use super::cage;
use super::declare::{Misfit, known_regions, lock};
use super::faults;
use super::interpreter::Interpreter;
use super::memo::Memo;
use super::values::{
    ClientObject, LinkObject, RecordObject, Scheme, SiblingObject, bare, duties, fault, items, list, name, object,
    region_ids, rule, shown, text, wrap,
};

/// The lag up to which `lag-action` is sampled; beyond it, its last answer holds.
const LONGEST_LAG: u64 = 600_000;
/// The longest text that a resolver may merge, in bytes.
const LONGEST_MERGE: usize = 1 << 20;

pub(super) type Answered<T> = Result<T, Vec<Finding>>;

impl Interpreter {
    /// Collects what was declared, and asks each function once to see the shape of its answers.
    pub(super) fn declarations(&mut self, facts: &Facts) -> Answered<Declarations> {
        let mut findings = Vec::new();
        let regions = self.region_ids();
        let (replication, region_policies, zones, edge, edge_misfits, resolvers, bounds, tests_passed, tests) = {
            let ledger = lock(&self.ledger);
            (
                ledger.replication(&regions),
                ledger.region_policies(&regions),
                ledger.zones(&regions),
                ledger.edge.clone(),
                ledger.edge_misfits(&regions),
                ledger.resolvers.keys().cloned().collect(),
                ledger.bounds,
                ledger.passed,
                ledger.held(),
            )
        };
        let place =
            |misfits: Vec<_>| misfits.into_iter().map(|misfit| faults::misfit(&self.files, misfit)).collect::<Vec<_>>();
        let replication = replication.map_err(|misfits| findings.extend(place(misfits))).ok();
        let region_policies = region_policies.map_err(|misfits| findings.extend(place(misfits))).ok();
        let _ = zones.map_err(|misfits| findings.extend(place(misfits)));
        let invariants = self.invariants(facts).map_err(|misfits| findings.extend(place(misfits))).ok();
        findings.extend(place(edge_misfits));
        let lag = self.lag_bands().map_err(|finding| findings.push(finding)).ok();
        findings.extend(self.try_samples(facts));
        if self.examining {
            findings.extend(self.try_resolvers());
        }
        match (replication, region_policies, lag, invariants) {
            (Some(replication), Some(region_policies), Some(lag), Some(invariants)) if findings.is_empty() => {
                let warnings = std::mem::take(&mut self.warnings);
                Ok(Declarations {
                    replication,
                    lag,
                    region_policies,
                    edge,
                    resolvers,
                    bounds,
                    invariants,
                    tests_passed,
                    tests,
                    warnings,
                })
            }
            _ => Err(findings),
        }
    }

    /// Asks every function that is asked later about a few samples.
    fn try_samples(&mut self, facts: &Facts) -> Vec<Finding> {
        let mut findings = Vec::new();
        let nobody = nobody();
        let clients: Vec<ClientFacts> = std::iter::once(nobody).chain(facts.clients.iter().take(2).cloned()).collect();
        let sample = self.sample_name();
        for client in &clients {
            match self.rank(client) {
                Ok(ranking) => {
                    findings.extend(self.dns_answer(&sample, client, &ranking).err());
                }
                Err(finding) => findings.push(finding),
            }
        }
        for losses in [0, 10] {
            let seen = Observation { probes: 10, losses, losses_in_a_row: losses };
            findings.extend(self.unwell(&[seen, seen]).err().into_iter().flatten());
        }
        let regions: Vec<RegionFacts> = self.regions.iter().map(|region| (*region.0).clone()).collect();
        findings.extend(self.failover_plan(regions).err().into_iter().flatten());
        for (class, law) in [(DataClass::Public, Law::None), (DataClass::Personal, Law::Eea)] {
            let case = ResidencyCase { class, law, basis: Basis::Contract, purpose: Purpose::Service };
            findings.extend(self.rule_on(&[case]).err().into_iter().flatten());
        }
        findings
    }

    /// Ranks the regions for nobody in particular, then for each client of the facts, and shapes the DNS answers.
    /// The facts hold for this question only: the next one sees those loaded, in this child as in a fresh one.
    pub fn route(&mut self, facts: &Facts) -> Answered<Routes> {
        let loaded = self.exchange_facts(facts);
        let routes = self.routes(facts);
        self.restore_facts(loaded);
        routes
    }

    /// As [`Self::route`] for one client, with what each function gave and where it is defined.
    pub fn trace(&mut self, client: &ClientFacts, name: Option<&DnsName>, facts: &Facts) -> Answered<RouteTrace> {
        let loaded = self.exchange_facts(facts);
        let traced = self.trace_one(client, name);
        self.restore_facts(loaded);
        traced.map_err(|finding| vec![finding])
    }

    fn trace_one(&mut self, client: &ClientFacts, name: Option<&DnsName>) -> Result<RouteTrace, Finding> {
        let candidates = self.candidates(client)?;
        let ranking = self.rank(client)?;
        let shape =
            name.map(|name| self.dns_answer(name.as_str(), client, &ranking)).transpose()?.map(|(shape, _)| shape);
        let line =
            |function: &str| faults::in_function(&self.files, self.file_of(function), function, String::new(), "").line;
        Ok(RouteTrace {
            candidates,
            candidates_line: line("region-candidates"),
            ranked: ranking.regions,
            ranked_line: line("rank-regions"),
            shape,
            shape_line: line("dns-answer"),
        })
    }

    /// What `region-candidates` gives for a client.
    fn candidates(&mut self, client: &ClientFacts) -> Result<Vec<RegionId>, Finding> {
        let regions = self.region_values();
        let seen = wrap(ClientObject::new(client.clone()));
        let candidates = self.call("region-candidates", vec![seen, list(regions)])?;
        self.known_ids("region-candidates", &candidates)
    }

    fn routes(&mut self, facts: &Facts) -> Answered<Routes> {
        let clients: Vec<ClientFacts> = std::iter::once(nobody()).chain(facts.clients.iter().cloned()).collect();
        // One finding is enough here: the same mistake would come 250 times.
        let rankings: Result<Vec<Ranking>, Finding> = clients.iter().map(|client| self.rank(client)).collect();
        let rankings = rankings.map_err(|finding| vec![finding])?;
        let dns = self.dns_plan(&clients, &rankings)?;
        Ok(Routes { rankings, dns })
    }

    fn rank(&mut self, client: &ClientFacts) -> Result<Ranking, Finding> {
        let regions = self.region_values();
        let seen = wrap(ClientObject::new(client.clone()));
        let candidates = self.call("region-candidates", vec![seen.clone(), list(regions.iter().cloned())])?;
        let candidates = self.known_ids("region-candidates", &candidates)?;
        let chosen = candidates.iter().filter_map(|id| {
            self.regions.iter().position(|region| region.0.id == *id).and_then(|at| regions.get(at).cloned())
        });
        let chosen = list(chosen.collect::<Vec<_>>());
        let ranked = self.call("rank-regions", vec![seen, chosen])?;
        Ok(Ranking { regions: self.known_ids("rank-regions", &ranked)? })
    }

    /// A list of regions that exist, none twice, at least one.
    fn known_ids(&self, function: &str, answer: &SteelVal) -> Result<Vec<RegionId>, Finding> {
        let known = self.region_ids();
        let ids = region_ids(answer).and_then(|ids| {
            if let Some(stranger) = ids.iter().find(|id| !known.contains(*id)) {
                return Err(fault(format!("there is no region `{stranger}`")));
            }
            let once: BTreeSet<_> = ids.iter().collect();
            if once.len() != ids.len() {
                return Err(fault("a region is named twice"));
            }
            if ids.is_empty() && !known.is_empty() { Err(fault("no region is named")) } else { Ok(ids) }
        });
        ids.map_err(|error| {
            self.misshapen(
                function,
                answer,
                &error,
                &format!("return a list of region ids, best first; {}", known_regions(&known)),
            )
        })
    }

    pub(super) fn misshapen(&self, function: &str, answer: &SteelVal, error: &steel::SteelErr, help: &str) -> Finding {
        let message = format!("`{function}` returned {}: {}", shown(answer), bare(&error.to_string()));
        faults::in_function(&self.files, self.file_of(function), function, message, help)
    }

    /// Rules on each case, asking once for all that cannot be told apart.
    pub fn rule_on(&mut self, cases: &[ResidencyCase]) -> Answered<Rulings> {
        let mut known: Memo<u32> = Memo::default();
        let mut rulings = Rulings::default();
        for case in cases {
            let at = match known.recall(case) {
                Some(at) => at,
                None => {
                    let record = RecordObject::new(*case);
                    let ruling = self.rule_on_one(&record).map_err(|finding| vec![finding])?;
                    let at = rulings.distinct.iter().position(|other| *other == ruling).unwrap_or_else(|| {
                        rulings.distinct.push(ruling);
                        rulings.distinct.len() - 1
                    });
                    let at = u32::try_from(at).unwrap_or(u32::MAX);
                    known.keep(case, record.noted(), at);
                    at
                }
            };
            rulings.of_case.push(at);
        }
        Ok(rulings)
    }

    /// The ruling on one case; the record notes which of its fields it depended on.
    fn rule_on_one(&mut self, record: &RecordObject) -> Result<CaseAnswer, Finding> {
        let answer = self.call("residency", vec![wrap(record.clone())])?;
        let hold = self.holding(&answer)?;
        let allowed: Vec<usize> = (0..self.regions.len())
            .filter(|&at| matches!(hold.get(&self.regions[at].0.id), Some(Verdict::Allow { .. })))
            .collect();
        let values = self.region_values();
        let mut transfer = BTreeMap::new();
        for (&from, &to) in allowed.iter().flat_map(|from| allowed.iter().map(move |to| (from, to))) {
            if from == to {
                continue;
            }
            let answer = self.call("transfer", vec![wrap(record.clone()), values[from].clone(), values[to].clone()])?;
            let verdict = travel_verdict(&answer).map_err(|error| {
                self.misshapen("transfer", &answer, &error, "return (allow 'rule duties) or (deny 'rule)")
            })?;
            transfer.insert((self.regions[from].0.id.clone(), self.regions[to].0.id.clone()), verdict);
        }
        Ok(CaseAnswer { hold, transfer })
    }

    /// A verdict for every region; those that `allow-in` leaves out are denied by the same rule.
    fn holding(&self, answer: &SteelVal) -> Result<BTreeMap<RegionId, Verdict>, Finding> {
        let known = self.region_ids();
        let read = || -> Scheme<BTreeMap<RegionId, Verdict>> {
            let parts = items(answer)?;
            let (allowed, rule_name, obligations) = match (parts.first().map(name).transpose()?, parts.as_slice()) {
                (Some("allow-in"), [_, ids, called, with]) => (region_ids(ids)?, rule(called)?, duties(with)?),
                (Some("deny"), [_, called]) => (Vec::new(), rule(called)?, BTreeSet::new()),
                _ => return Err(fault("this is no ruling")),
            };
            if let Some(stranger) = allowed.iter().find(|id| !known.contains(*id)) {
                return Err(fault(format!("there is no region `{stranger}`")));
            }
            let verdict = |id: &RegionId| match allowed.contains(id) {
                true => allow(rule_name.clone(), obligations.clone()),
                false => Verdict::Deny { rule: rule_name.clone() },
            };
            Ok(known.iter().map(|id| (id.clone(), verdict(id))).collect())
        };
        let help = "return (allow-in ids 'rule duties) or (deny 'rule)";
        read().map_err(|error| self.misshapen("residency", answer, &error, help))
    }

    /// Settles many conflicts by one resolver, each for itself; none of them where the question was interrupted.
    pub fn resolve_many(
        &mut self,
        resolver: &str,
        conflicts: &[(Address, Vec<Sibling>)],
    ) -> Answered<Vec<Answered<Resolution>>> {
        let mut settled = Vec::new();
        for (address, siblings) in conflicts {
            match self.resolve(resolver, address, siblings) {
                Err(findings) if cage::interrupted() => return Err(findings),
                other => settled.push(other),
            }
        }
        Ok(settled)
    }

    /// Settles concurrent writes by a resolver that was defined.
    pub fn resolve(&mut self, resolver: &str, address: &Address, siblings: &[Sibling]) -> Answered<Resolution> {
        let found =
            lock(&self.ledger).resolvers.get(resolver).map(|(file, function)| (file.clone(), function.value().clone()));
        let Some((file, function)) = found else {
            let message = format!("no conflict resolver is called `{resolver}`");
            return Err(vec![Finding::error("", "", (0, 0), message, "define it with define-conflict-resolver")]);
        };
        let objects = siblings.iter().enumerate().map(|(at, sibling)| wrap(sibling_object(at, sibling)));
        let arguments = vec![text(address.key.as_str()), list(objects)];
        self.at(&file);
        let answer = self.apply(function, arguments);
        let answer = answer.map_err(|error| match self.fault(&file, &error) {
            // The interpreter does not always tell where it was; the resolver's definition is a place to look.
            unplaced if unplaced.line == 0 => {
                let message = format!("the resolver `{resolver}` failed: {}", unplaced.message);
                let (file, form) = (file.clone(), "define-conflict-resolver");
                vec![faults::misfit(&self.files, Misfit { file, form, message, help: unplaced.help })]
            }
            placed => vec![placed],
        })?;
        let all_text = siblings
            .iter()
            .filter_map(|sibling| sibling.content.record())
            .all(|record| std::str::from_utf8(record.payload.bytes()).is_ok());
        settlement(&answer, siblings.len(), all_text)
            .map_err(|error| vec![faults::misfit(&self.files, misshapen_settlement(resolver, &file, &answer, &error))])
    }

    /// Samples `lag-action` from no lag upward and finds where its answer changes, to the millisecond.
    fn lag_bands(&mut self) -> Result<LagBands, Finding> {
        let steps = (0..10_000).step_by(100).chain((10_000..=LONGEST_LAG).step_by(1000));
        let mut bands: Vec<(Millis, LagAction)> = Vec::new();
        let mut before = 0;
        for lag in steps {
            let action = self.lag_action(lag)?;
            match bands.last().map(|&(_, last)| last) {
                None => bands.push((Millis(0), action)),
                Some(last) if action == last => {}
                Some(last) if action < last => {
                    let message = format!(
                        "`lag-action` gives {} at {lag} ms of lag and {} at {before} ms",
                        word(action),
                        word(last)
                    );
                    let help = "a larger lag must never call for less: 'ok, 'alert, 'throttle, 'unready";
                    return Err(faults::in_function(
                        &self.files,
                        self.file_of("lag-action"),
                        "lag-action",
                        message,
                        help,
                    ));
                }
                Some(last) => self.bisect(&mut bands, (before, last), (lag, action))?,
            }
            before = lag;
        }
        Ok(LagBands(bands))
    }

    /// Adds the bands that begin between two lags whose actions differ.
    fn bisect(
        &mut self,
        bands: &mut Vec<(Millis, LagAction)>,
        (mut low, mut last): (u64, LagAction),
        (end, action): (u64, LagAction),
    ) -> Result<(), Finding> {
        // Each round finds the next change; there are four actions, so at most three rounds.
        while last < action {
            let (mut high, mut reached) = (end, action);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                match self.lag_action(middle)? {
                    same if same <= last => low = middle,
                    other => (high, reached) = (middle, other),
                }
            }
            bands.push((Millis(high), reached));
            (low, last) = (high, reached);
        }
        Ok(())
    }

    fn lag_action(&mut self, lag: u64) -> Result<LagAction, Finding> {
        let answer = self.call("lag-action", vec![wrap(LinkObject(Millis(lag)))])?;
        let action = name(&answer).and_then(|word| match word {
            "ok" => Ok(LagAction::Ok),
            "alert" => Ok(LagAction::Alert),
            "throttle" => Ok(LagAction::Throttle),
            "unready" => Ok(LagAction::Unready),
            _ => Err(fault("this is no action")),
        });
        action
            .map_err(|error| self.misshapen("lag-action", &answer, &error, "return 'ok, 'alert, 'throttle or 'unready"))
    }
}

fn word(action: LagAction) -> String {
    format!("'{}", action.name())
}

fn nobody() -> ClientFacts {
    ClientFacts { class: ClientClass { country: None }, continent: None, coordinates: None }
}

fn allow(rule: model::RuleId, obligations: BTreeSet<model::RuleId>) -> Verdict {
    Verdict::Allow { rule, obligations, valid_from: UnixMillis(0), valid_until: UnixMillis::MAX }
}

fn travel_verdict(answer: &SteelVal) -> Scheme<Verdict> {
    let parts = items(answer)?;
    match (parts.first().map(name).transpose()?, parts.as_slice()) {
        (Some("allow"), [_, called, with]) => Ok(allow(rule(called)?, duties(with)?)),
        (Some("deny"), [_, called]) => Ok(Verdict::Deny { rule: rule(called)? }),
        _ => Err(fault("this is no ruling")),
    }
}

fn sibling_object(at: usize, sibling: &Sibling) -> SiblingObject {
    let value = sibling
        .content
        .record()
        .map_or_else(String::new, |record| String::from_utf8_lossy(record.payload.bytes()).into_owned());
    SiblingObject {
        region: sibling.version.dot.actor.region.as_str().to_owned(),
        time: sibling.version.hlc.wall().0,
        value: value.into(),
        deleted: matches!(sibling.content, Content::Tombstone { .. }),
        index: u32::try_from(at).unwrap_or(u32::MAX),
    }
}

/// Reads a resolver's answer on so many siblings; `all_text` says whether every value can be part of a merged text.
pub(super) fn settlement(answer: &SteelVal, siblings: usize, all_text: bool) -> Scheme<Resolution> {
    if let Ok(winner) = object::<SiblingObject>(answer) {
        return match siblings > winner.index as usize {
            true => Ok(Resolution::Winner(winner.index)),
            false => Err(fault("this sibling is none of those asked about")),
        };
    }
    if let SteelVal::SymbolV(word) = answer
        && word.as_str() == "keep"
    {
        return Ok(Resolution::Keep);
    }
    let parts = items(answer)?;
    match (parts.first().map(name).transpose()?, parts.as_slice()) {
        (Some("merged"), [_, SteelVal::StringV(merged)]) if merged.len() <= LONGEST_MERGE => match all_text {
            true => Ok(Resolution::Merged(merged.as_bytes().to_vec())),
            false => Err(fault("values that are not UTF-8 cannot be merged as text")),
        },
        _ => Err(fault("this is no settlement")),
    }
}

/// The misfit of an answer that [`settlement`] does not take.
pub(super) fn misshapen_settlement(resolver: &str, file: &str, answer: &SteelVal, error: &steel::SteelErr) -> Misfit {
    let reason = error.to_string();
    Misfit {
        file: file.to_owned(),
        form: "define-conflict-resolver",
        message: format!("the resolver `{resolver}` returned {}: {}", shown(answer), bare(&reason)),
        help: "return one of the siblings, 'keep, or (merged \"text\")".to_owned(),
    }
}
