//! What is put to a policy host, and what it answers: plain data both ways.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bundle::PolicyTree;
use crate::diagnostic::Finding;
use crate::edge::EdgePlan;
use crate::explain::RouteTrace;
use crate::judgement::FailoverPlan;
use crate::names::{DnsName, RegionId};
use crate::radius::ChangeBounds;
use crate::record::{Address, Sibling};
use crate::replication::{LagBands, ReplicationPlan};
use crate::residency::{RegionPolicy, ResidencyCase, Verdict};
use crate::routing::{ClientFacts, Facts, Observation, RegionFacts, Routes};
use crate::units::{Micros, Millis};

/// What is asked of a loaded generation. Every question is answered within a wall-clock limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// Load a whole tree and check its contract. Asked once, first.
    Load {
        /// The files.
        tree: PolicyTree,
        /// The facts in force, for the tests that use none of their own.
        facts: Facts,
        /// Whether its own tests and the laws of its resolvers are checked, too: whoever proposes it does so, once.
        examine: bool,
    },
    /// Load a tree that brought its child down, telling of each form of the file at fault before it is compiled, and of
    /// every form before it runs. What is answered does not matter: asked to learn which form it was.
    Locate {
        /// The files.
        tree: PolicyTree,
        /// The file at fault.
        file: String,
        /// The facts in force.
        facts: Facts,
    },
    /// Rank the regions for every client class of `facts`, plus the class of no country, and shape the DNS answers
    /// that follow from it.
    Route {
        /// The facts to rank by, for this question only: others see those loaded.
        facts: Facts,
    },
    /// Rule on each case: which regions may hold it, and between which it may travel.
    Residency {
        /// The cases.
        cases: Vec<ResidencyCase>,
    },
    /// Judge a region from what its observers saw.
    Health {
        /// One an observer whose vote counts; the region itself is no observer.
        observations: Vec<Observation>,
    },
    /// Say who should leave, how traffic moves, and who is promoted, now that other regions serve than before.
    Failover {
        /// Every region as it is now.
        regions: Vec<RegionFacts>,
    },
    /// Settle concurrent writes of one key by the named resolver.
    Resolve {
        /// The resolver.
        resolver: String,
        /// The key.
        address: Address,
        /// The complete sibling set, in dot order.
        siblings: Vec<Sibling>,
    },
    /// Settle several conflicts by one resolver: cheaper by the dozen. All share the limit of one question.
    ResolveMany {
        /// The resolver.
        resolver: String,
        /// Keys and their complete sibling sets, in dot order.
        conflicts: Vec<(Address, Vec<Sibling>)>,
    },
    /// Settle the conflicts that resolvers are tried on at load, by the named resolver: for comparing two generations.
    Samples {
        /// The resolver.
        resolver: String,
    },
    /// Rank the regions for one client, step by step, and shape the DNS answer for a name.
    Trace {
        /// The client.
        client: ClientFacts,
        /// The name, if one was asked for.
        name: Option<DnsName>,
        /// The facts to rank by, for this question only.
        facts: Facts,
    },
    /// Check an invariant for every case of its space, from a place on.
    Prove {
        /// Which one, as [`Declarations::invariants`] lists them.
        invariant: u32,
        /// Where to go on: 0, then what the last answer said.
        from: u64,
        /// About how long to go on; then the answer says where to go on.
        budget: Millis,
        /// The facts; health and round trips in them are passed over.
        facts: Facts,
    },
    /// Load a tree for the sake of its tests, in a child that dies afterwards.
    Test {
        /// The files.
        tree: PolicyTree,
        /// The facts in force, for the tests that use none of their own.
        facts: Facts,
    },
    /// Evaluate forms from the REPL in a scratch child that dies afterwards.
    Eval {
        /// Definitions that were typed before, a form each.
        earlier: Vec<String>,
        /// Scheme source.
        source: String,
    },
    /// Judge a region once for each of these, as if two observers had seen it alike: for comparing two generations.
    Verdicts {
        /// What both saw.
        seen: Vec<Observation>,
    },
}

/// What the loaded files declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declarations {
    /// `define-replication-strategy` and the namespaces that differ.
    pub replication: ReplicationPlan,
    /// `lag-action`, from no lag upward.
    pub lag: LagBands,
    /// `define-region-policy`, by region.
    pub region_policies: BTreeMap<RegionId, RegionPolicy>,
    /// The cache rules.
    pub edge: EdgePlan,
    /// The names of the resolvers defined.
    pub resolvers: Vec<String>,
    /// What a save may change without a second look while this tree is in force.
    pub bounds: ChangeBounds,
    /// `define-invariant`: what must hold for every case, and is proved before the tree comes into force.
    pub invariants: Vec<Invariant>,
    /// How many tests of the files' own held. One that does not refuses the tree.
    pub tests_passed: u32,
    /// Those tests, in order; the first few thousand.
    pub tests: Vec<PolicyTest>,
    /// What is doubtful, and refuses nothing: a file without tests, a function that no test reaches.
    pub warnings: Vec<Finding>,
}

/// A test of a policy file that held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTest {
    /// The file.
    pub file: String,
    /// The name of its test module; empty outside of one.
    pub module: String,
    /// What it says.
    pub sentence: String,
}

/// A sentence that must hold for every case of a finite space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where that is not known.
    pub line: u32,
    /// What it says.
    pub sentence: String,
    /// Its dimensions with their sizes, as in `client 251 × outage 8`.
    pub space: String,
    /// How many cases that is.
    pub cases: u64,
    /// Names all that the outcome follows from: equal names have equal outcomes.
    pub depends_on: String,
}

/// How far a proof came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofStep {
    /// Cases checked in this step.
    pub checked: u64,
    /// Where to go on; nothing at the end.
    pub next: Option<u64>,
    /// A case for which the sentence does not hold, as forms to paste.
    pub counterexample: Option<Finding>,
}

/// What came of all tests of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// The tests in the order in which they ran; the first few thousand.
    pub tests: Vec<TestRun>,
    /// Why the tree would be refused apart from its tests. Files that did not compile ran no test.
    pub findings: Vec<Finding>,
    /// What is doubtful, and refuses nothing.
    pub warnings: Vec<Finding>,
    /// The definitions that no test of their file reaches, directly or through others.
    pub unreached: Vec<Unreached>,
}

/// One test, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRun {
    /// The file.
    pub file: String,
    /// The name of its test module; empty outside of one.
    pub module: String,
    /// What it says.
    pub sentence: String,
    /// The line that it stands on, from 1; 0 where that is not known.
    pub line: u32,
    /// The time since the check before it, or since its module began.
    pub took: Micros,
    /// Why it did not hold, if so.
    pub failure: Option<TestFailure>,
}

/// Why a test did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestFailure {
    /// What should have come.
    pub expected: String,
    /// What came.
    pub actual: String,
}

/// A definition that no test reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreached {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What is defined there.
    pub name: String,
}

/// What a resolver decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// The sibling at this index wins.
    Winner(u32),
    /// Nobody wins: the siblings stay.
    Keep,
    /// A new value, made from all of them.
    Merged(Vec<u8>),
}

/// The rulings on one case: one a region, one a pair of regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseAnswer {
    /// Which regions may hold it; what is absent is denied.
    pub hold: BTreeMap<RegionId, Verdict>,
    /// Between which it may travel, among those that may hold it.
    pub transfer: BTreeMap<(RegionId, RegionId), Verdict>,
}

/// The rulings on many cases. Policies tell few of them apart, so each distinct ruling stands once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rulings {
    /// The distinct rulings.
    pub distinct: Vec<CaseAnswer>,
    /// For each case asked about, in order, which of them applies. An index past the end is no ruling: denied.
    pub of_case: Vec<u32>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The tree is good.
    Loaded(Box<Declarations>),
    /// The rankings, and what is answered over DNS.
    Routes(Box<Routes>),
    /// The rulings.
    Residency(Rulings),
    /// Whether the region should be taken as unwell.
    Unwell(bool),
    /// What should follow from the regions that serve.
    Failover(FailoverPlan),
    /// The settlement.
    Resolved(Resolution),
    /// One settlement a conflict, in their order, or what is wrong with it.
    ResolvedMany(Vec<Result<Resolution, Vec<Finding>>>),
    /// The conflicts tried, as Scheme writes them, and what was made of each; nothing where the resolver failed.
    Samples(Vec<(String, Option<Resolution>)>),
    /// What each policy gave on the way to a route.
    Trace(Box<RouteTrace>),
    /// How far the proof came.
    Proof(Box<ProofStep>),
    /// What came of the tests.
    Tested(Box<TestReport>),
    /// What was printed, then the value of the last form as Scheme writes it.
    Value(String),
    /// The files, or the answer, are not acceptable. All findings at once.
    Refused(Vec<Finding>),
    /// Whether the region should be taken as unwell, for each of what was seen, in order.
    Verdicts(Vec<bool>),
}
