//! The residency rules in Cedar.

use std::collections::HashSet;
use std::hint::black_box;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Response, RestrictedExpression,
};
use model::record::DataClass;
use model::residency::Law;
use serde_json::json;

use crate::{Exam, Verdict};

/// Classes that are about nobody.
const FREE: [&str; 4] = ["public", "operational", "source-code", "credentials"];

/// Policies, entities, and every request made beforehand.
pub struct Cedar {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
    requests: Vec<Request>,
}

impl Cedar {
    /// Parses the rules; classes and regions are entities.
    pub fn new(exam: &Exam) -> Self {
        let policies: PolicySet = include_str!("../rules/residency.cedar").parse().expect("good rules");
        let mut entities = vec![json!({ "uid": of("Classes", "about-people"), "attrs": {}, "parents": [] })];
        for class in DataClass::ALL {
            let personal = !FREE.contains(&class.as_str());
            let parents = if personal { vec![of("Classes", "about-people")] } else { Vec::new() };
            entities.push(json!({ "uid": of("Class", class.as_str()), "attrs": {}, "parents": parents }));
        }
        for region in &exam.facts.regions {
            let accepts = exam.policies[&region.id].accepts.iter();
            let accepts: Vec<_> = accepts.map(|class| json!({ "__entity": of("Class", class.as_str()) })).collect();
            let attrs = json!({ "law": Law::of(region.jurisdiction).name(), "accepts": accepts });
            entities.push(json!({ "uid": of("Region", region.id.as_str()), "attrs": attrs, "parents": [] }));
        }
        let entities = Entities::from_json_value(json!(entities), None).expect("good entities");
        let requests = exam.questions.iter().map(|question| {
            let law = RestrictedExpression::new_string(question.case.law.name().to_owned());
            let context = Context::from_pairs([("law".to_owned(), law)]).expect("one pair");
            let (class, region) = (uid("Class", question.case.class.as_str()), uid("Region", question.region.as_str()));
            Request::new(class, uid("Action", "hold"), region, context, None).expect("a request")
        });
        let requests = requests.collect();
        Self { authorizer: Authorizer::new(), policies, entities, requests }
    }

    fn ask(&self, at: usize) -> Response {
        self.authorizer.is_authorized(&self.requests[at], &self.policies, &self.entities)
    }

    /// The verdict on a question.
    pub fn verdict(&self, at: usize) -> Verdict {
        let response = self.ask(at);
        assert_eq!(response.diagnostics().errors().count(), 0, "{response:?}");
        let allowed = response.decision() == Decision::Allow;
        let rules = response.diagnostics().reason().filter_map(|id| self.policies.annotation(id, "rule"));
        let rules: HashSet<String> = rules.map(str::to_owned).collect();
        Verdict { allowed, denied_by: if allowed { Vec::new() } else { rules.into_iter().collect() } }
    }

    /// As [`Self::verdict`], to be timed.
    pub fn decide(&self, at: usize) {
        black_box(self.ask(at));
    }
}

fn of(kind: &str, id: &str) -> serde_json::Value {
    json!({ "type": kind, "id": id })
}

fn uid(kind: &str, id: &str) -> EntityUid {
    format!("{kind}::\"{id}\"").parse().expect("a name")
}
