//! One engine with one tree of policies in it.
//!
//! Files are loaded as modules, each under a prefix of its own, so that two
//! files cannot see each other's names by accident and each error knows its
//! file. An engine is never loaded twice: a new tree gets a new process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use model::bundle::{POLICY_FILES, PolicyTree};
use model::question::Declarations;
use model::routing::Facts;
use model::{Finding, RegionId};
use steel::compiler::modules::SourceModuleResolver;
use steel::rvals::SteelVal;
use steel::steel_vm::engine::Engine;
use steel::{RootedSteelVal, SteelErr};

use super::declare::{Ledger, is_function, lock};
use super::values::{RegionObject, shown, wrap};
use super::{Library, faults, natives};
use crate::scan;

/// What files export that the runtime asks: name and how many arguments.
const EXPORTS: &[(&str, &[&str])] = &[
    ("region-config/region-mapping.scm", &["region-candidates"]),
    ("data-replication/eventual-consistency.scm", &[]),
    ("data-replication/conflict-resolution.scm", &[]),
    ("data-replication/replication-lag.scm", &["lag-action"]),
    ("traffic-routing/geo-dns.scm", &["dns-answer"]),
    ("traffic-routing/latency-routing.scm", &["rank-regions"]),
    ("traffic-routing/failover.scm", &["region-verdict", "failover-plan"]),
    ("edge-deployment/edge-cache.scm", &[]),
    ("compliance/data-residency.scm", &["residency", "transfer"]),
    ("compliance/region-policies.scm", &[]),
];

/// The policy API that this runtime offers.
const API: isize = 1;

/// The name under which REPL input is shown in findings.
const TYPED: &str = "input";

/// The texts that `require` can find.
#[derive(Clone, Default)]
struct Modules(Arc<RwLock<BTreeMap<String, String>>>);

impl SourceModuleResolver for Modules {
    fn resolve(&self, key: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
    fn exists(&self, key: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }
}

/// The engine, and what was loaded into it.
pub struct Interpreter {
    pub(super) engine: Engine,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    modules: Modules,
    library: BTreeSet<String>,
    /// The tree's files.
    pub(super) files: BTreeMap<String, String>,
    /// Exported functions and the file that each comes from.
    functions: BTreeMap<&'static str, (&'static str, RootedSteelVal)>,
    /// The regions of the facts in force.
    pub(super) regions: Vec<RegionObject>,
}

impl Interpreter {
    /// Builds the engine. Takes about a quarter of a second.
    pub fn new() -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let modules = Modules::default();
        let mut engine = Engine::new_sandboxed();
        engine.register_module(natives::module(&ledger));
        engine.register_source_module_resolver(modules.clone());
        Self {
            engine,
            ledger,
            modules,
            library: BTreeSet::new(),
            files: BTreeMap::new(),
            functions: BTreeMap::new(),
            regions: Vec::new(),
        }
    }

    /// Makes the engine start the threads of its collector.
    pub fn collect_garbage(&mut self) {
        // A failure shows at the first collection in earnest, as the death of this child.
        let _ = self.engine.run("(#%gc-collect)");
    }

    /// Sets the modules that policies may require.
    pub fn set_library(&mut self, library: Library) {
        self.library = library.keys().cloned().collect();
        self.modules.0.write().unwrap_or_else(PoisonError::into_inner).extend(library);
    }

    /// Loads a tree: scan, compile, tests, exports, declarations, sample questions.
    ///
    /// # Errors
    /// Everything found, so that one save shows all mistakes.
    pub fn load(
        &mut self,
        tree: PolicyTree,
        facts: &Facts,
        at: &mut dyn FnMut(&str),
    ) -> Result<Declarations, Vec<Finding>> {
        self.files = tree.0;
        self.set_facts(facts);
        let order = self.scan()?;
        self.modules.0.write().unwrap_or_else(PoisonError::into_inner).extend(self.files.clone());
        let mut findings = Vec::new();
        for (number, file) in order.iter().enumerate() {
            at(file);
            lock(&self.ledger).file.clone_from(file);
            let program = format!("(require (prefix-in p{number}. {file:?}))");
            if let Err(error) = self.engine.compile_and_run_raw_program(program) {
                findings.push(self.fault(file, &error));
            }
        }
        for failure in &lock(&self.ledger).failed {
            findings.push(faults::failed_test(&self.files, failure));
        }
        if findings.is_empty() {
            findings.extend(self.take_exports(&order));
        }
        if !findings.is_empty() {
            return Err(distinct(findings));
        }
        self.declarations(facts, at).map_err(distinct)
    }

    /// Scans all files; gives the order in which each comes after those that it requires.
    fn scan(&self) -> Result<Vec<String>, Vec<Finding>> {
        let names = self.library.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let mut findings = Vec::new();
        let mut requires = BTreeMap::new();
        for (file, text) in &self.files {
            let known =
                |module: &str| self.library.contains(module) || (module != file && self.files.contains_key(module));
            let scan = scan::scan(file, text, known, &names);
            findings.extend(scan.findings);
            requires.insert(file.as_str(), scan.requires);
        }
        for file in POLICY_FILES.iter().filter(|file| !self.files.contains_key(**file)) {
            let help = "restore it; `repomind-run init` writes a tree with all ten";
            findings.push(Finding::error(*file, "", (0, 0), "this policy file is missing", help));
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        let mut order: Vec<String> = Vec::new();
        while order.len() < self.files.len() {
            let ready = requires.iter().find(|(file, needs)| {
                let met = |need: &String| !self.files.contains_key(need) || order.contains(need);
                !order.iter().any(|done| done == *file) && needs.iter().all(met)
            });
            let Some((file, _)) = ready else {
                let circle = self.files.keys().find(|file| !order.contains(file)).map_or("", String::as_str);
                let finding =
                    Finding::error(circle, "", (0, 0), "this file requires itself in a circle", "break the circle");
                return Err(vec![finding]);
            };
            order.push((*file).to_owned());
        }
        Ok(order)
    }

    fn take_exports(&mut self, order: &[String]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for &(file, names) in EXPORTS {
            let Some(number) = order.iter().position(|other| other == file) else { continue };
            let wrong = |message: String, help: &str| {
                Finding::error(file, self.files.get(file).map_or("", String::as_str), (0, 0), message, help)
            };
            match self.engine.extract_value(&format!("p{number}.policy-api")) {
                Ok(SteelVal::IntV(API)) => {}
                Ok(other) => findings.push(wrong(
                    format!("this file is written for policy API {}; this runtime offers {API}", shown(&other)),
                    "see docs/policies.md for what changed, then edit `policy-api`",
                )),
                Err(_) => findings.push(wrong(
                    "this file does not say which policy API it is written for".to_owned(),
                    "add (define policy-api 1) and name it in (provide …)",
                )),
            }
            for &name in names {
                match self.engine.extract_value(&format!("p{number}.{name}")) {
                    Ok(value) if is_function(&value) => {
                        self.functions.insert(name, (file, value.as_rooted()));
                    }
                    Ok(value) => findings.push(faults::in_function(
                        &self.files,
                        file,
                        name,
                        format!("`{name}` must be a function; it is {}", shown(&value)),
                        "define it as (define (name …) …)",
                    )),
                    Err(_) => findings.push(wrong(
                        format!("this file does not provide `{name}`"),
                        "define it and name it in (provide …)",
                    )),
                }
            }
        }
        findings
    }

    /// Replaces the facts that policies see.
    pub(super) fn set_facts(&mut self, facts: &Facts) {
        self.regions = facts.regions.iter().map(|region| RegionObject(Arc::new(region.clone()))).collect();
        lock(&self.ledger).regions = self.regions.iter().cloned().map(wrap).collect();
    }

    /// The ids of the regions in force.
    pub(super) fn region_ids(&self) -> BTreeSet<RegionId> {
        self.regions.iter().map(|region| region.0.id.clone()).collect()
    }

    /// The regions in force, as the values that `all-regions` gives.
    pub(super) fn region_values(&self) -> Vec<SteelVal> {
        lock(&self.ledger).regions.clone()
    }

    /// The file that exports `function`.
    pub(super) fn file_of(&self, function: &str) -> &'static str {
        self.functions.get(function).map_or("", |(file, _)| file)
    }

    /// Calls an exported function.
    pub(super) fn call(&mut self, function: &str, arguments: Vec<SteelVal>) -> Result<SteelVal, Finding> {
        let Some((file, value)) = self.functions.get(function) else {
            return Err(Finding::error("", "", (0, 0), format!("no policy is loaded to answer `{function}`"), ""));
        };
        let (file, value) = (*file, value.value().clone());
        let answer = self.engine.call_function_with_args(value, arguments);
        answer.map_err(|error| match self.fault(file, &error) {
            // Errors without a place have at least a function.
            unplaced if unplaced.line == 0 => {
                let message = format!("`{function}` failed: {}", unplaced.message);
                faults::in_function(&self.files, file, function, message, &unplaced.help)
            }
            placed => placed,
        })
    }

    /// The finding for an error in `file`.
    pub(super) fn fault(&self, file: &str, error: &SteelErr) -> Finding {
        faults::finding(&self.engine, &self.files, file, error)
    }

    /// Evaluates forms typed by an operator: the value of the last, as Scheme writes it.
    ///
    /// # Errors
    /// What is wrong with the forms.
    pub fn evaluate(&mut self, source: &str) -> Result<String, Vec<Finding>> {
        let names = self.library.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let known = |module: &str| self.library.contains(module) || self.files.contains_key(module);
        let scan = scan::scan(TYPED, source, known, &names);
        if !scan.findings.is_empty() {
            return Err(scan.findings);
        }
        for module in self.library.iter().chain(self.files.keys()).cloned().collect::<Vec<_>>() {
            // One that does not load was found when the tree was loaded.
            let _ = self.engine.compile_and_run_raw_program(format!("(require {module:?})"));
        }
        match self.engine.compile_and_run_raw_program(source.to_owned()) {
            Ok(values) => {
                Ok(values.last().filter(|value| !matches!(value, SteelVal::Void)).map_or_else(String::new, shown))
            }
            Err(error) => {
                let typed = BTreeMap::from([(TYPED.to_owned(), source.to_owned())]);
                let mut finding = faults::finding(&self.engine, &self.files, TYPED, &error);
                if let (0, Some(span)) = (finding.line, error.span())
                    && let Some(at) = faults::position(&typed[TYPED], span.start as usize)
                {
                    finding = Finding::error(TYPED, source, at, finding.message, finding.help)
                        .spanning(span.end.saturating_sub(span.start));
                }
                Err(vec![finding])
            }
        }
    }
}

/// The findings without those that say the same of the same place: a file that
/// fails makes those that require it fail with its error.
fn distinct(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        if !kept.contains(&finding) {
            kept.push(finding);
        }
    }
    kept
}
