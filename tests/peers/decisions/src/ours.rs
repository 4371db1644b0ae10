//! Our side: the default policies, loaded into a child, and the plans made of its answers.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use model::question::{Answer, Declarations, Question};
use model::record::Labels;
use model::residency::{Law, RegionPolicy, ResidencyPlan};
use model::routing::{Facts, RegionState, RoutingPlan};
use model::{Country, RegionId, UnixMillis};
use policy::{Generation, HostLimits, PolicyHost};

use crate::{Exam, Verdict, native, support};

const NOW: UnixMillis = UnixMillis(1);

/// Loaded policies and their plans.
pub struct Ours {
    child: Generation,
    declarations: Declarations,
    residency: ResidencyPlan,
    routing: RoutingPlan,
    native: Option<(ResidencyPlan, RoutingPlan)>,
    states: BTreeMap<RegionId, RegionState>,
    /// A record for each case, made beforehand as a request brings it.
    labels: BTreeMap<(model::record::DataClass, Law), Labels>,
}

impl Ours {
    /// Loads the default policies. The order of regions is that of the mapping alone: round trips count as equal.
    pub async fn load(facts: &Facts) -> Self {
        let executable = std::env::current_exe().expect("this file");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let host = PolicyHost::start(&executable, support::library_in(&root), HostLimits::default()).expect("a host");
        let mut tree = support::tree_in(&root);
        let text = tree.0.get_mut("traffic-routing/latency-routing.scm").expect("the file");
        let (from, to) = ("(define near-equal 1.10)", "(define near-equal 1000)");
        assert!(text.contains(from), "the default policies no longer have {from}");
        *text = text.replace(from, to);
        // Its own tests would refuse it.
        text.truncate(text.find("(test-module").expect("tests"));
        let (child, declarations) = host.load(tree, facts.clone()).await.expect("a good tree");
        let cases = compliance::cases();
        let Answer::Residency(rulings) = ask(&child, Question::Residency { cases: cases.clone() }).await else {
            panic!("no rulings")
        };
        let residency = compliance::plan_from(cases, rulings, declarations.region_policies.clone());
        let Answer::Routes(routes) = ask(&child, Question::Route { facts: facts.clone() }).await else {
            panic!("no rankings")
        };
        let routing = routing::plan_from(facts, *routes).expect("a table");
        let states = facts.regions.iter().map(|region| (region.id.clone(), RegionState::Ready)).collect();
        Self { child, declarations, residency, routing, native: None, states, labels: BTreeMap::new() }.with_labels()
    }

    fn with_labels(mut self) -> Self {
        for case in self.residency.cases().keys() {
            let mut labels = Labels::of_class(case.class, UnixMillis(0));
            labels.jurisdictions.extend(country(case.law));
            self.labels.insert((case.class, case.law), labels);
        }
        self
    }

    /// Puts plans beside ours that Rust alone makes; whether all of them are equal.
    pub fn with_native(&mut self, exam: &Exam) -> bool {
        let native = (native::residency(&exam.facts, self.policies()), native::routing(exam, &self.routing));
        let same = native == (self.residency.clone(), self.routing.clone());
        self.native = Some(native);
        same
    }

    fn plans(&self, native: bool) -> (&ResidencyPlan, &RoutingPlan) {
        match &self.native {
            Some((residency, routing)) if native => (residency, routing),
            _ => (&self.residency, &self.routing),
        }
    }

    /// What the regions take in.
    pub fn policies(&self) -> BTreeMap<RegionId, RegionPolicy> {
        self.declarations.region_policies.clone()
    }

    fn labels(&self, exam: &Exam, at: usize) -> &Labels {
        let case = exam.questions[at].case;
        &self.labels[&(case.class, case.law)]
    }

    /// The verdict on a question, by the plan.
    pub fn verdict(&self, exam: &Exam, at: usize) -> Verdict {
        match self.residency.permit_in(self.labels(exam, at), &exam.questions[at].region, NOW) {
            Ok(()) => Verdict { allowed: true, denied_by: Vec::new() },
            Err(barred) => Verdict { allowed: false, denied_by: vec![barred.rule.to_string()] },
        }
    }

    /// As [`Self::verdict`], to be timed.
    pub fn decide(&self, exam: &Exam, at: usize, native: bool) {
        let (residency, _) = self.plans(native);
        let _ = black_box(residency.permit_in(self.labels(exam, at), &exam.questions[at].region, NOW));
    }

    /// The regions for a client, by the plan.
    pub fn ranking(&self, exam: &Exam, at: usize) -> Vec<String> {
        let ranking = self.routing.ranking(exam.facts.clients[at].class);
        ranking.regions.iter().map(ToString::to_string).collect()
    }

    /// The first region for a client that serves, to be timed.
    pub fn rank(&self, exam: &Exam, at: usize, native: bool) {
        let (_, routing) = self.plans(native);
        let mut ranked = routing.ranking(exam.facts.clients[at].class).regions.iter();
        black_box(ranked.find(|id| self.states.get(*id).is_some_and(|state| state.serves())));
    }

    /// Nanoseconds a verdict and a ranking by the clock, where a child is asked for all of them in one question.
    pub async fn through_scheme(&self, exam: &Exam) -> (f64, f64) {
        let cases: std::collections::BTreeSet<_> = exam.questions.iter().map(|question| question.case).collect();
        let began = Instant::now();
        ask(&self.child, Question::Residency { cases: cases.into_iter().collect() }).await;
        let residency = began.elapsed().as_nanos() as f64 / exam.questions.len() as f64;
        let began = Instant::now();
        ask(&self.child, Question::Route { facts: exam.facts.clone() }).await;
        (residency, began.elapsed().as_nanos() as f64 / exam.facts.clients.len() as f64)
    }
}

async fn ask(child: &Generation, question: Question) -> Answer {
    child.ask(question).await.expect("an answer")
}

/// A country under this law.
fn country(law: Law) -> Option<Country> {
    let code = match law {
        Law::None => return None,
        Law::Eea => "DE",
        Law::Of(country) => return Some(country),
        Law::Other => "KE",
    };
    Some(Country::new(code).expect("a country"))
}
