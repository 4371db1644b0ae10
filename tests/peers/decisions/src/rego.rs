//! The rules in Rego, compiled for the register machine of `regorus`.

use std::hint::black_box;

use model::residency::Law;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::RegoVM;
use regorus::{Engine, Value};
use serde_json::{Map, json};

use crate::{Exam, Verdict};

/// Two machines, one for each rule, and every input made beforehand.
pub struct Rego {
    residency: RegoVM,
    ranking: RegoVM,
    questions: Vec<Value>,
    clients: Vec<Value>,
}

impl Rego {
    /// Compiles the rules, with the regions as data.
    pub fn new(exam: &Exam) -> Self {
        let mut regions = Map::new();
        for region in &exam.facts.regions {
            let accepts: Vec<String> =
                exam.policies[&region.id].accepts.iter().map(|class| class.as_str().to_owned()).collect();
            let features: Vec<&str> = region.features.iter().map(|feature| feature.as_str()).collect();
            let about = json!({
                "law": Law::of(region.jurisdiction).name(), "accepts": accepts, "features": features,
                "primary": region.primary, "instances": region.max_instances, "continent": continent(region.country.as_str()),
            });
            regions.insert(region.id.to_string(), about);
        }
        let data = value(&json!({ "regions": regions }));
        let questions = exam.questions.iter().map(|question| {
            let (class, law) = (question.case.class.as_str(), question.case.law.name());
            value(&json!({ "class": class, "law": law, "region": question.region.as_str() }))
        });
        let clients = exam.facts.clients.iter().map(|client| {
            let place = client.coordinates.expect("every client of the exam has a place");
            let away = |region: &model::routing::RegionFacts| region.coordinates.kilometres_to(place).round() as u64;
            let distances: Map<String, _> =
                exam.facts.regions.iter().map(|region| (region.id.to_string(), away(region).into())).collect();
            value(&json!({ "continent": client.continent, "distances": distances }))
        });
        Self {
            residency: machine("data.repomind.residency", &data),
            ranking: machine("data.repomind.ranking", &data),
            questions: questions.collect(),
            clients: clients.collect(),
        }
    }

    fn ask(machine: &mut RegoVM, input: &Value) -> Value {
        machine.set_input(input.clone());
        machine.execute_entry_point_by_index(0).expect("an answer")
    }

    /// The verdict on a question.
    pub fn verdict(&mut self, at: usize) -> Verdict {
        let answer = Self::ask(&mut self.residency, &self.questions[at]);
        let said = answer.as_string().expect("a word").to_string();
        let allowed = said == "allow";
        Verdict { allowed, denied_by: if allowed { Vec::new() } else { vec![said] } }
    }

    /// As [`Self::verdict`], to be timed.
    pub fn decide(&mut self, at: usize) {
        black_box(Self::ask(&mut self.residency, &self.questions[at]));
    }

    /// The regions for a client.
    pub fn ranking(&mut self, at: usize) -> Vec<String> {
        let answer = Self::ask(&mut self.ranking, &self.clients[at]);
        let ids: Vec<String> = serde_json::from_str(&answer.to_json_str().expect("JSON")).expect("names");
        ids
    }

    /// As [`Self::ranking`], to be timed.
    pub fn rank(&mut self, at: usize) {
        black_box(Self::ask(&mut self.ranking, &self.clients[at]));
    }
}

fn machine(rule: &str, data: &Value) -> RegoVM {
    let mut engine = Engine::new();
    engine.add_policy("decisions.rego".into(), include_str!("../rules/decisions.rego").into()).expect("good rules");
    engine.add_data(data.clone()).expect("good data");
    let compiled = engine.compile_with_entrypoint(&rule.into()).expect("a rule");
    let program = Compiler::compile_from_policy(&compiled, &[rule]).expect("a program");
    let mut machine = RegoVM::new();
    machine.load_program(program);
    machine.set_data(data.clone()).expect("good data");
    machine
}

fn value(json: &serde_json::Value) -> Value {
    Value::from_json_str(&json.to_string()).expect("JSON")
}

/// Of the countries where the regions of the exam stand.
pub fn continent(country: &str) -> &'static str {
    match country {
        "SG" | "JP" => "AS",
        "IE" | "DE" => "EU",
        "US" => "NA",
        other => panic!("no continent of {other}"),
    }
}
