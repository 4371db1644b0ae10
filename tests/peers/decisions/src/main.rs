//! The same judgements by three engines, graded first and timed after: may a region hold a record, and in which order
//! do regions serve a client. Ours twice, from the plan as requests are answered and through Scheme as plans are made.
//!
//! `make bench-decisions`. Exit code 1 where an answer differs, or another engine is ahead of our plan.

mod cedar;
mod native;
mod ours;
mod rego;
#[path = "../../../../runtime/policy/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use model::RegionId;
use model::record::{Basis, DataClass, Purpose};
use model::residency::{Law, RegionPolicy, ResidencyCase};
use model::routing::Facts;
use rustix::time::{ClockId, clock_gettime};

/// Regions and client classes.
const SIZE: (usize, usize) = (5, 250);
/// How often an engine is asked all of it for one timing.
const REPEATS: usize = 20;
const PLAN: [&str; 2] = ["residency: ours, from the plan", "ranking: ours, from the plan"];
const NATIVE: [&str; 2] = ["residency: ours, plan by Rust alone", "ranking: ours, plan by Rust alone"];
const REGORUS: [&str; 2] = ["residency: regorus, register machine", "ranking: regorus, register machine"];
const CEDAR: &str = "residency: cedar-policy";
/// Each engine is timed so often, in turn; the median counts.
const ROUNDS: usize = 21;

/// May this region hold that record?
pub struct Question {
    /// The record: its class and law. No default rule looks at basis or purpose.
    pub case: ResidencyCase,
    /// The region.
    pub region: RegionId,
}

/// What is asked, and about what.
pub struct Exam {
    /// Regions and clients.
    pub facts: Facts,
    /// What regions take in, as the default policies declare it.
    pub policies: BTreeMap<RegionId, RegionPolicy>,
    /// Every class and law in every region.
    pub questions: Vec<Question>,
}

impl Exam {
    fn new(facts: Facts, policies: BTreeMap<RegionId, RegionPolicy>) -> Self {
        let cases = DataClass::ALL.iter().flat_map(|&class| {
            let case = move |law| ResidencyCase { class, law, basis: Basis::Unstated, purpose: Purpose::Service };
            Law::all().into_iter().map(case)
        });
        let regions = || facts.regions.iter().map(|region| region.id.clone());
        let questions = cases.flat_map(|case| regions().map(move |region| Question { case, region })).collect();
        Self { facts, policies, questions }
    }
}

/// Whether the record may be held, and the rules that say no: any of them will do.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Yes or no.
    pub allowed: bool,
    /// The rules that deny it.
    pub denied_by: Vec<String>,
}

impl Verdict {
    /// Whether the verdicts agree: where only the first rule that denies is told, the other has it too.
    fn agrees(&self, other: &Self) -> bool {
        self.allowed == other.allowed
            && (self.allowed || self.denied_by.iter().any(|rule| other.denied_by.contains(rule)))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "policy-host") {
        policy::child_main(&arguments[1..]);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let facts = support::facts_of(SIZE.0, SIZE.1);
    let mut ours = runtime.block_on(ours::Ours::load(&facts));
    let exam = Exam::new(facts, ours.policies());
    let same = ours.with_native(&exam);
    println!("plans by Scheme and by Rust alone: {}", if same { "equal" } else { "NOT equal" });
    let (mut rego, cedar) = (rego::Rego::new(&exam), cedar::Cedar::new(&exam));

    let verdicts: Vec<Verdict> = (0..exam.questions.len()).map(|at| ours.verdict(&exam, at)).collect();
    let rankings: Vec<Vec<String>> = (0..exam.facts.clients.len()).map(|at| ours.ranking(&exam, at)).collect();
    let wrong = |name: &str, other: &mut dyn FnMut(usize) -> Verdict| {
        let differs = |&at: &usize| !verdicts[at].agrees(&other(at));
        let wrong: Vec<usize> = (0..verdicts.len()).filter(differs).collect();
        println!("{name}: {} of {} verdicts as ours, rule included", verdicts.len() - wrong.len(), verdicts.len());
        for &at in wrong.iter().take(5) {
            let Question { case, region } = &exam.questions[at];
            println!("  {case:?} in {region}: ours {:?}, theirs {:?}", verdicts[at], other(at));
        }
        wrong.len()
    };
    let allowed = verdicts.iter().filter(|verdict| verdict.allowed).count();
    println!("{} residency questions ({allowed} allowed), {} clients", verdicts.len(), rankings.len());
    let mut differing = usize::from(!same);
    differing += wrong("regorus", &mut |at| rego.verdict(at)) + wrong("cedar-policy", &mut |at| cedar.verdict(at));
    let otherwise = (0..rankings.len()).filter(|&at| rego.ranking(at) != rankings[at]).count();
    println!("regorus: {} of {} rankings as ours (Cedar ranks nothing)", rankings.len() - otherwise, rankings.len());
    differing += otherwise;

    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut timed = |name, count: usize, run: &mut dyn FnMut(usize)| {
            let began = processor();
            (0..REPEATS).for_each(|_| (0..count).for_each(&mut *run));
            let took = (processor() - began).as_nanos() as f64 / (count * REPEATS) as f64;
            times.entry(name).or_default().push(took);
        };
        let (questions, clients) = (exam.questions.len(), exam.facts.clients.len());
        timed(PLAN[0], questions, &mut |at| ours.decide(&exam, at, false));
        timed(NATIVE[0], questions, &mut |at| ours.decide(&exam, at, true));
        timed(REGORUS[0], questions, &mut |at| rego.decide(at));
        timed(CEDAR, questions, &mut |at| cedar.decide(at));
        timed(PLAN[1], clients, &mut |at| ours.rank(&exam, at, false));
        timed(NATIVE[1], clients, &mut |at| ours.rank(&exam, at, true));
        timed(REGORUS[1], clients, &mut |at| rego.rank(at));
        let (residency, ranking) = runtime.block_on(ours.through_scheme(&exam));
        times.entry("residency: ours, through Scheme, all at once").or_default().push(residency);
        times.entry("ranking: ours, through Scheme, all at once").or_default().push(ranking);
    }
    let median = |name: &str| {
        let mut all = times[name].clone();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    for name in times.keys() {
        let plan = median(PLAN[usize::from(name.starts_with("ranking"))]);
        println!("{name:<48} {:>10.0} ns {:>9.2} ×", median(name), median(name) / plan);
    }
    for (plan, native) in PLAN.into_iter().zip(NATIVE) {
        let mut ratios: Vec<f64> = times[plan].iter().zip(&times[native]).map(|(plan, native)| plan / native).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, half, most) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
        println!("{plan}, over the same made by Rust alone: {half:.3} ({least:.3} to {most:.3} in {ROUNDS} rounds)");
    }
    let behind = [(REGORUS[0], PLAN[0]), (CEDAR, PLAN[0]), (REGORUS[1], PLAN[1])];
    let behind = behind.iter().filter(|(theirs, ours)| median(theirs) <= median(ours)).count();
    if differing + behind > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

/// The processor time of this thread.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
