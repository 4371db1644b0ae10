//! One engine with one tree of policies in it.
//!
//! Files are loaded as modules, each under a prefix of its own, so that two
//! files cannot see each other's names by accident and each error knows its
//! file. An engine is never loaded twice: a new tree gets a new process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use model::bundle::{POLICY_FILES, PolicyTree};
use model::question::{Declarations, TestReport, Unreached};
use model::routing::Facts;
use model::{Finding, RegionId};
use steel::compiler::modules::SourceModuleResolver;
use steel::rvals::SteelVal;
use steel::steel_vm::ThreadStateController;
use steel::steel_vm::engine::Engine;
use steel::{RootedSteelVal, SteelErr};

use super::declare::{Ledger, is_function, lock, takes_other_than};
use super::values::{RegionObject, Scheme, answered, shown, wrap};
use super::{Library, cage, faults, locating, natives};
use crate::reference::{self, ASKED, Asked};
use crate::scan;
use crate::versions;
use crate::wire::{self, Report};

/// The policy API that this runtime offers.
const API: isize = reference::API;

/// How many failed tests are told when a tree is refused.
const MOST_FAILURES: usize = 50;

/// The form that holds a file's own tests.
const TESTS: &str = "test-module";

/// The name under which REPL input is shown in findings.
pub(crate) const TYPED: &str = "input";

/// Functions that call others with so many arguments. A function that is called by the
/// engine itself has no place in the interpreter's account of an error; one called by these has.
const CALLERS: &[&str] = &[
    "(lambda (f) (list (f)))",
    "(lambda (f a) (list (f a)))",
    "(lambda (f a b) (list (f a b)))",
    "(lambda (f a b c) (list (f a b c)))",
];

/// The texts that `require` can find.
#[derive(Clone, Default)]
pub(super) struct Modules(Arc<RwLock<BTreeMap<String, String>>>);

impl Modules {
    /// Adds texts, in place of those of the same names.
    pub(super) fn add(&self, texts: impl IntoIterator<Item = (String, String)>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(texts);
    }
}

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
    pub(super) modules: Modules,
    library: BTreeSet<String>,
    /// The tree's files.
    pub(super) files: BTreeMap<String, String>,
    /// Their outermost forms.
    pub(super) forms: BTreeMap<String, Vec<scan::Form>>,
    /// What each of them requires.
    pub(super) requires: BTreeMap<String, Vec<String>>,
    /// Exported functions and the file that each comes from.
    functions: BTreeMap<&'static str, (&'static str, RootedSteelVal)>,
    /// The regions of the facts in force.
    pub(super) regions: Vec<RegionObject>,
    callers: Vec<RootedSteelVal>,
    interrupts: ThreadStateController,
    /// To the parent, which is told of every file that work begins on.
    pub(super) socket: Option<Arc<File>>,
    /// The file that brought another child down, where the parent is told of each form.
    pub(super) at_fault: Option<String>,
    /// The file told of last.
    pub(super) at: String,
    scanning: bool,
    /// Whether the files' own tests and the laws of resolvers are checked.
    pub(super) examining: bool,
    /// Whether failed tests are told apart from other findings.
    testing: bool,
    /// The definitions that no test reaches.
    unreached: Vec<Unreached>,
    /// What is doubtful about the files.
    pub(super) warnings: Vec<Finding>,
    /// Every name that a policy may mean: those of the library and the files.
    names: faults::Names,
}

impl Interpreter {
    /// Builds the engine, which takes about a quarter of a second.
    /// Without `scanning`, only what each file requires is looked at before it runs.
    pub fn new(scanning: bool) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let modules = Modules::default();
        let mut engine = Engine::new_sandboxed();
        engine.register_module(natives::module(&ledger));
        engine.register_source_module_resolver(modules.clone());
        let callers = CALLERS.iter().map(|source| {
            let value = engine.run(*source).ok().and_then(|values| values.into_iter().last());
            value.expect("a function of ours").as_rooted()
        });
        let callers = callers.collect();
        Self {
            interrupts: engine.get_thread_state_controller(),
            engine,
            ledger,
            modules,
            library: BTreeSet::new(),
            files: BTreeMap::new(),
            forms: BTreeMap::new(),
            requires: BTreeMap::new(),
            functions: BTreeMap::new(),
            regions: Vec::new(),
            callers,
            socket: None,
            at_fault: None,
            at: String::new(),
            scanning,
            examining: true,
            testing: false,
            unreached: Vec::new(),
            warnings: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// What interrupts a running program. It only stores to atomics.
    pub fn interrupter(&self) -> impl Fn() + Send + Sync + 'static {
        let interrupts = self.interrupts.clone();
        move || interrupts.interrupt()
    }

    /// Lets programs run again after an interrupt.
    pub fn resume(&self) {
        self.interrupts.resume();
    }

    /// Has the file that is being worked on told to `socket`, for the parent to blame should nothing more come.
    pub fn tell(&mut self, socket: File) {
        self.socket = Some(Arc::new(socket));
    }

    /// Begins a question.
    pub fn begin(&mut self) {
        self.at.clear();
    }

    /// Tells the parent which file work begins on.
    pub(super) fn at(&mut self, file: &str) {
        if self.at != file {
            file.clone_into(&mut self.at);
            self.report(&Report::At(file.to_owned()));
        }
    }

    /// Tells the parent. One that is gone is noticed when the answer is written.
    pub(super) fn report(&self, what: &Report) {
        if let Some(socket) = &self.socket {
            let _ = wire::write(&mut &**socket, what);
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
        for (module, text) in &library {
            let scan = scan::scan(module, text, |_| true, &[]);
            self.names.extend(scan.outline.provided().map(|name| (name.to_owned(), Some(module.clone()))));
        }
        self.modules.add(library);
    }

    /// Reads the whole library, so that no tree waits for it; whether all of it could be read.
    pub fn read_library(&mut self) -> bool {
        let modules: Vec<String> = self.library.iter().cloned().collect();
        // Under a prefix, or a file that forgot to require a module would find its names all the same.
        let read = |module| format!("(require (prefix-in library. {module:?}))");
        modules.iter().all(|module| self.engine.compile_and_run_raw_program(read(module)).is_ok())
    }

    /// Loads a tree: scan, compile, exports, declarations, sample questions. Where it is to be examined, its own tests run
    /// and its resolvers are held against the laws, too; both change nothing of what is loaded.
    ///
    /// # Errors
    /// Everything found, so that one save shows all mistakes.
    pub fn load(&mut self, tree: PolicyTree, facts: &Facts, examine: bool) -> Result<Declarations, Vec<Finding>> {
        self.files = tree.0;
        self.examining = examine;
        self.set_facts(facts);
        let others = versions::check(&self.files);
        if !others.is_empty() {
            return Err(others);
        }
        let order = self.scan()?;
        self.modules.add(self.texts());
        let mut findings = Vec::new();
        let mut failed: BTreeSet<&String> = BTreeSet::new();
        for (number, file) in order.iter().enumerate() {
            // What requires a file that failed fails with it, and says nothing of use.
            if self.requires.get(file).is_some_and(|needs| needs.iter().any(|need| failed.contains(need))) {
                failed.insert(file);
                continue;
            }
            self.at(file);
            if self.at_fault.as_ref() == Some(file) {
                self.compile_form_by_form(file);
            }
            lock(&self.ledger).file.clone_from(file);
            let program = format!("(require (prefix-in p{number}. {file:?}))");
            if let Err(error) = self.engine.compile_and_run_raw_program(program) {
                findings.push(self.fault(file, &error));
                failed.insert(file);
            }
            if cage::interrupted() {
                return Err(findings.split_off(findings.len().saturating_sub(1)));
            }
        }
        let failures = lock(&self.ledger).tests.clone();
        let failures = failures.iter().filter_map(|test| Some((test, test.failure.as_ref()?)));
        if !self.testing {
            let failed = failures.map(|(test, failure)| faults::failed_test(&self.files, test, failure));
            findings.extend(failed.take(MOST_FAILURES));
        }
        if findings.is_empty() {
            findings.extend(self.take_exports(&order));
        }
        if !findings.is_empty() {
            return Err(distinct(findings));
        }
        self.declarations(facts).map_err(distinct)
    }

    /// Loads a tree for the sake of its tests: what each came to, and everything else that is wrong.
    pub fn test(&mut self, tree: PolicyTree, facts: &Facts) -> TestReport {
        self.testing = true;
        let findings = self.load(tree, facts, true).err().unwrap_or_default();
        let mut tests = std::mem::take(&mut lock(&self.ledger).tests);
        for test in &mut tests {
            test.line = faults::test_place(&self.files, &test.file, &test.sentence).0;
        }
        let (unreached, warnings) = (std::mem::take(&mut self.unreached), std::mem::take(&mut self.warnings));
        TestReport { tests, findings, warnings, unreached }
    }

    /// What the engine reads for each file.
    fn texts(&self) -> BTreeMap<String, String> {
        let text = |(file, text): (&String, &String)| {
            let forms = &self.forms[file];
            let text = match &self.at_fault {
                Some(_) => locating::marked(text, forms),
                None if self.examining => text.clone(),
                None => scan::without(text, forms, TESTS),
            };
            (file.clone(), text)
        };
        self.files.iter().map(text).collect()
    }

    /// Scans all files; gives the order in which each comes after those that it requires.
    fn scan(&mut self) -> Result<Vec<String>, Vec<Finding>> {
        let names: Vec<&str> = self.library.iter().map(String::as_str).collect();
        let mut findings = Vec::new();
        let mut requires = BTreeMap::new();
        let (mut warnings, mut names_of, mut unreached) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (file, text) in &self.files {
            let known =
                |module: &str| self.library.contains(module) || (module != file && self.files.contains_key(module));
            let scan = scan::scan(file, text, known, &names);
            warnings.extend(scan.outline.untested(file, text));
            unreached.extend(scan.outline.unreached(file));
            names_of.extend(scan.outline.defined().map(str::to_owned));
            // Said here already, because files that require this one would fail with less to say.
            if scan.findings.is_empty() {
                let wanted = ASKED.iter().filter(|(other, _)| other == file).flat_map(|(_, names)| *names);
                let missing = wanted.filter(|asked| !scan.outline.provided().any(|provided| provided == asked.name));
                let missing = missing.map(|asked| not_provided(&self.files, file, asked.name, asked.arguments));
                findings.extend(missing);
            }
            if self.scanning {
                findings.extend(scan.findings);
            }
            requires.insert(file.clone(), scan.requires);
            self.forms.insert(file.clone(), scan.forms);
        }
        for file in POLICY_FILES.iter().filter(|file| !self.files.contains_key(**file)) {
            let help = "restore it, or begin from the defaults that `repomind-run new DIR` writes";
            findings.push(Finding::error(*file, "", (0, 0), "this policy file is missing", help));
        }
        (self.warnings, self.unreached) = (warnings, unreached);
        for name in names_of {
            self.names.entry(name).or_insert(None);
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
                return Err(vec![self.circle(&requires, &order)]);
            };
            order.push((*file).to_owned());
        }
        self.requires = requires;
        Ok(order)
    }

    /// The finding for files that wait for each other, given those that wait for none.
    fn circle(&self, requires: &BTreeMap<String, Vec<String>>, order: &[String]) -> Finding {
        let waits = |file: &String| {
            requires
                .get(file)
                .into_iter()
                .flatten()
                .find(|need| self.files.contains_key(*need) && !order.contains(need))
        };
        let mut path: Vec<&String> = self.files.keys().filter(|file| !order.contains(file)).take(1).collect();
        while let Some(next) = path.last().and_then(|last| waits(last)) {
            if let Some(start) = path.iter().position(|file| *file == next) {
                path.drain(..start);
                break;
            }
            path.push(next);
        }
        let first = path.first().map_or("", |file| file.as_str());
        let names: Vec<&str> = path.iter().map(|file| file.as_str()).chain([first]).collect();
        let form = names.get(1).map_or(String::new(), |next| format!("\"{next}\""));
        let message = format!("files require each other in a circle: {}", names.join(" → "));
        let help = "move what both need into a third file, or repeat it";
        faults::in_file(&self.files, first, &form, message, help.to_owned())
    }

    fn take_exports(&mut self, order: &[String]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for &(file, names) in ASKED {
            let Some(number) = order.iter().position(|other| other == file) else { continue };
            let wrong = |form: &str, message: String, help: &str| {
                faults::in_file(&self.files, file, form, message, help.to_owned())
            };
            match self.engine.extract_value(&format!("p{number}.policy-api")) {
                Ok(SteelVal::IntV(API)) => {}
                Ok(other) => findings.push(wrong(
                    "(define policy-api",
                    format!("this file is written for policy API {}; this runtime offers {API}", shown(&other)),
                    &versions::help(match other {
                        SteelVal::IntV(found) => Some(found),
                        _ => None,
                    }),
                )),
                Err(_) => findings.push(wrong(
                    "(provide",
                    "this file does not say which policy API it is written for".to_owned(),
                    "add (define policy-api 1) and name it in (provide …)",
                )),
            }
            for &Asked { name, arguments, .. } in names {
                match self.engine.extract_value(&format!("p{number}.{name}")) {
                    Ok(value) if takes_other_than(&value, arguments.split(' ').count()).is_some() => {
                        let takes = takes_other_than(&value, arguments.split(' ').count()).unwrap_or_default();
                        let count = arguments.split(' ').count();
                        let message = format!("`{name}` takes {takes}; the runtime gives it {count}: {arguments}");
                        let help = format!("define it as (define ({name} {arguments}) …)");
                        findings.push(faults::in_function(&self.files, file, name, message, &help));
                    }
                    Ok(value) if is_function(&value) => {
                        self.functions.insert(name, (file, value.as_rooted()));
                    }
                    Ok(value) => findings.push(faults::in_function(
                        &self.files,
                        file,
                        name,
                        format!("`{name}` must be a function; it is {}", shown(&value)),
                        &format!("define it as (define ({name} {arguments}) …)"),
                    )),
                    Err(_) => findings.push(not_provided(&self.files, file, name, arguments)),
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

    /// Replaces the facts that policies see; gives the regions before.
    pub(super) fn exchange_facts(&mut self, facts: &Facts) -> Vec<RegionObject> {
        let before = self.regions.clone();
        self.set_facts(facts);
        before
    }

    /// Restores what [`Self::exchange_facts`] gave.
    pub(super) fn restore_facts(&mut self, regions: Vec<RegionObject>) {
        lock(&self.ledger).regions = regions.iter().cloned().map(wrap).collect();
        self.regions = regions;
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
        self.at(file);
        let answer = self.apply(value, arguments);
        answer.map_err(|error| match self.fault(file, &error) {
            // Errors without a place have at least a function.
            unplaced if unplaced.line == 0 => {
                let message = format!("`{function}` failed: {}", unplaced.message);
                faults::in_function(&self.files, file, function, message, &unplaced.help)
            }
            placed => placed,
        })
    }

    /// Calls any function, of at most three arguments.
    pub(super) fn apply(&mut self, function: SteelVal, mut arguments: Vec<SteelVal>) -> Scheme<SteelVal> {
        let caller = self.callers[arguments.len()].value().clone();
        arguments.insert(0, function);
        match self.engine.call_function_with_args(caller, arguments)? {
            SteelVal::ListV(answer) => Ok(answer.car().unwrap_or(SteelVal::Void)),
            other => Ok(other),
        }
    }

    /// The finding for an error in `file`.
    pub(super) fn fault(&self, file: &str, error: &SteelErr) -> Finding {
        faults::finding(&self.engine, &self.files, &self.names, file, error)
    }

    /// Evaluates forms typed by an operator: the value of the last, as Scheme writes it. Definitions that were typed
    /// `earlier` are there again; what they print is not shown again.
    ///
    /// # Errors
    /// What is wrong with the forms.
    pub fn evaluate(
        &mut self,
        earlier: &[String],
        source: &str,
        drop_printed: impl FnOnce(),
    ) -> Result<String, Vec<Finding>> {
        let names: Vec<&str> = self.library.iter().map(String::as_str).collect();
        let known = |module: &str| self.library.contains(module) || self.files.contains_key(module);
        let scan = scan::scan(TYPED, source, known, &names);
        if self.scanning && !scan.findings.is_empty() {
            return Err(scan.findings);
        }
        for module in self.library.iter().chain(self.files.keys()).cloned().collect::<Vec<_>>() {
            // One that does not load was found when the tree was loaded.
            let _ = self.engine.compile_and_run_raw_program(format!("(require {module:?})"));
        }
        for definition in earlier {
            // It was good when it was typed; where the policies have changed since, its use says what is wrong.
            let _ = self.engine.compile_and_run_raw_program(definition.clone());
        }
        drop_printed();
        self.at(TYPED);
        match self.engine.compile_and_run_raw_program(source.to_owned()) {
            Ok(_) if lock(&self.ledger).failed > 0 => {
                let typed = BTreeMap::from([(lock(&self.ledger).file.clone(), source.to_owned())]);
                let tests = std::mem::take(&mut lock(&self.ledger).tests);
                let failures = tests.iter().filter_map(|test| Some((test, test.failure.as_ref()?)));
                Err(failures.map(|(test, failure)| faults::failed_test(&typed, test, failure)).collect())
            }
            Ok(values) => {
                Ok(values.last().filter(|value| !matches!(value, SteelVal::Void)).map_or_else(String::new, answered))
            }
            Err(error) => Err(vec![self.typed_fault(source, &error)]),
        }
    }

    /// The finding for an error in what an operator typed, or in what that called.
    fn typed_fault(&self, source: &str, error: &SteelErr) -> Finding {
        // The module of facts was written by the runtime: what goes wrong in it came from what was typed.
        let mut files = self.files.clone();
        files.remove(crate::FACTS_MODULE);
        let finding = faults::finding(&self.engine, &files, &self.names, TYPED, error);
        if finding.line > 0 {
            return finding;
        }
        match faults::in_typed(&self.engine, source, error, &finding.message) {
            Some((at, width)) => Finding::error(TYPED, source, at, finding.message, finding.help).spanning(width),
            None => finding,
        }
    }
}

/// The finding for a function that is asked and not handed on.
fn not_provided(files: &BTreeMap<String, String>, file: &str, name: &str, arguments: &str) -> Finding {
    let message = format!("this file does not provide `{name}`");
    let help = format!("define it as (define ({name} {arguments}) …) and name it in (provide …)");
    faults::in_file(files, file, "(provide", message, help)
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
