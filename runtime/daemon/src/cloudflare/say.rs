//! Plans and outcomes, for a person and for a script.

use cloud::change::{Action, Change, Difference};
use cloud::cloudflare::plan::{Drift, Drifted, Step};
use cloud::cloudflare::{Desired, Observed, Plan};
use cloud::journal::{State, Unfinished};
use serde_json::{Value, json};

use super::apply::{Outcome, StepError};
use super::secrets::Secrets;

/// What a plan says.
pub struct Report {
    deployment: String,
    place: Value,
    revision: String,
    version: String,
    changes: Vec<Change>,
    steps: Vec<String>,
    drift: Vec<Drift>,
    notes: Vec<String>,
    unfinished: Option<Unfinished>,
}

impl Report {
    /// Of a plan.
    pub fn new(desired: &Desired, observed: &Observed, left: &State, plan: &Plan) -> Self {
        let settings = &desired.settings;
        Self {
            deployment: desired.marks.id().to_owned(),
            place: json!({
                "account": settings.account, "zone": settings.zone, "zone_name": observed.zone_name,
                "zone_plan": observed.zone_plan, "worker": settings.worker,
            }),
            revision: desired.revision.clone(),
            version: desired.upload.tag.clone(),
            changes: plan.changes.clone(),
            steps: plan.steps.iter().map(Step::name).collect(),
            drift: plan.drift.clone(),
            notes: plan.notes.clone(),
            unfinished: left.unfinished.clone(),
        }
    }

    fn to_json(&self) -> Value {
        let change = |change: &Change| match &change.action {
            Action::Create => json!({"address": change.address, "action": "create"}),
            Action::Update(fields) => json!({"address": change.address, "action": "update", "fields": fields}),
            Action::Delete => json!({"address": change.address, "action": "delete"}),
        };
        let drift = |drift: &Drift| match &drift.how {
            Drifted::Gone => json!({"address": drift.address, "how": "gone"}),
            Drifted::Changed(fields) => json!({"address": drift.address, "how": "changed", "fields": fields}),
            Drifted::Unknown => json!({"address": drift.address, "how": "unknown"}),
        };
        json!({
            "target": "cloudflare",
            "deployment": self.deployment,
            "place": self.place,
            "revision": self.revision,
            "version": self.version,
            "changes": self.changes.iter().map(change).collect::<Vec<_>>(),
            "steps": self.steps,
            "drift": self.drift.iter().map(drift).collect::<Vec<_>>(),
            "notes": self.notes,
            "unfinished": self.unfinished,
        })
    }

    /// Prints it; `outcome` is joined to the JSON.
    pub fn print(&self, as_json: bool, outcome: Option<Value>) {
        if as_json {
            let mut report = self.to_json();
            if let Some(outcome) = outcome {
                report["outcome"] = outcome;
            }
            println!("{}", serde_json::to_string_pretty(&report).expect("plain data"));
            return;
        }
        let word = |key: &str| self.place[key].as_str().unwrap_or_default().to_owned();
        let (zone, plan, worker) = (word("zone_name"), word("zone_plan"), word("worker"));
        let policy = match self.revision.as_str() {
            "" => String::new(),
            revision => format!(": policy {revision}, version {}", self.version),
        };
        println!("zone {zone} ({plan}), worker {worker}, deployment {}{policy}", self.deployment);
        if let Some(unfinished) = &self.unfinished {
            say_unfinished(unfinished);
        }
        if !self.drift.is_empty() {
            println!("changed by others since the last run:");
            self.drift.iter().flat_map(drift_lines).for_each(|line| println!("{line}"));
        }
        self.changes.iter().flat_map(Change::lines).for_each(|line| println!("{line}"));
        self.notes.iter().for_each(|note| println!("note: {note}"));
        if self.changes.is_empty() && self.steps.is_empty() {
            println!("nothing to do: everything is as the tree wants it");
            return;
        }
        let count = |wanted: fn(&Action) -> bool| self.changes.iter().filter(|change| wanted(&change.action)).count();
        println!(
            "{} to make, {} to change, {} to take away",
            count(|action| *action == Action::Create),
            count(|action| matches!(action, Action::Update(_))),
            count(|action| *action == Action::Delete)
        );
    }

    /// Prints what a run came to.
    pub fn print_outcome(&self, outcome: &Outcome, as_json: bool, secrets: &Secrets) {
        let failed = outcome.failed.as_ref().map(|(step, error)| {
            json!({"step": step, "error": secrets.hide(&error.to_string()), "rolled_back": matches!(error, StepError::Probe(_))})
        });
        let warnings: Vec<String> = outcome.warnings.iter().map(|warning| secrets.hide(warning)).collect();
        if as_json {
            self.print(
                true,
                Some(json!({
                    "done": outcome.done, "failed": failed, "not_done": outcome.left, "warnings": warnings,
                })),
            );
            return;
        }
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        let Some((step, error)) = &outcome.failed else {
            println!("{} steps done", outcome.done.len());
            return;
        };
        eprintln!("error: {step}: {}", secrets.hide(&error.to_string()));
        let list = |steps: &[String]| if steps.is_empty() { "nothing".to_owned() } else { steps.join("; ") };
        eprintln!("done: {}", list(&outcome.done));
        eprintln!("not done: {}", list(&outcome.left));
        eprintln!("run the command again to go on from here");
    }
}

fn say_unfinished(unfinished: &Unfinished) {
    println!(
        "the last run did not come to its end; it had done: {}",
        match unfinished.done.as_slice() {
            [] => "nothing".to_owned(),
            done => done.join("; "),
        }
    );
    if let Some(step) = &unfinished.in_doubt {
        println!("  in doubt, and looked for now: {step}");
    }
    if let Some(error) = &unfinished.error {
        println!("  it ended with: {error}");
    }
}

fn drift_lines(drift: &Drift) -> Vec<String> {
    let field = |field: &Difference| format!("  {}: {}: {} -> {}", drift.address, field.field, field.from, field.to);
    match &drift.how {
        Drifted::Gone => vec![format!("  {}: taken away", drift.address)],
        Drifted::Unknown => vec![format!("  {}: has our mark and is not in the journal", drift.address)],
        Drifted::Changed(fields) => fields.iter().map(field).collect(),
    }
}
