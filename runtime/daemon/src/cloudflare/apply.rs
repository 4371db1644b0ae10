//! Takes the steps of a plan, one after another, each in the journal before and after it.
//!
//! A step that may have been taken although nobody heard of it is looked for before it is taken again. The first step
//! that fails ends the run; what was done and what was not is said.

use std::collections::BTreeMap;

use cloud::change::resolved;
use cloud::cloudflare::bundle::Purpose;
use cloud::cloudflare::observed::Deployment;
use cloud::cloudflare::plan::{WORKER, fresh_routes, worker_kept};
use cloud::cloudflare::request::{Call, Calls};
use cloud::cloudflare::{Desired, Kind, Observed, Plan, Resource, Step, limits};
use cloud::journal::{Event, Kept, State};
use serde_json::Value;

use super::api::{Api, ApiError};
use super::journal::Journal;
use super::probe::{Probe, Verdict};
use super::secrets::Secrets;
use super::{observe, purge};

/// How often something is made and looked for in turn before it is given up.
const TRIES: u32 = 4;

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The API refused or failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The version did not answer well, and what was done about it.
    #[error("{0}")]
    Probe(String),
    /// It cannot be taken as things are.
    #[error("{0}")]
    Stopped(String),
    /// The journal cannot be written: nothing is done of which no word would be left.
    #[error("{0:#}")]
    Journal(anyhow::Error),
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The steps that were taken.
    pub done: Vec<String>,
    /// The step that failed, and why.
    pub failed: Option<(String, StepError)>,
    /// The steps that were not taken.
    pub left: Vec<String>,
    /// What did not stop the run, and should be looked at.
    pub warnings: Vec<String>,
}

/// Everything that steps need.
pub struct Run<'a> {
    api: &'a Api,
    calls: Calls,
    desired: &'a Desired,
    secrets: &'a Secrets,
    journal: &'a mut Journal,
    probe_url: String,
    quiet: bool,
    ids: BTreeMap<String, String>,
    ruleset: Option<String>,
    version: Option<String>,
    deployment: Option<Deployment>,
    /// What served before, if anything did.
    before: Option<String>,
    fresh_routes: Vec<(String, String)>,
    /// What the journal said before, while something of it is still to be purged.
    unpurged: Option<State>,
    warnings: Vec<String>,
}

/// What a step leaves.
#[derive(Default)]
struct Left {
    kept: Vec<Kept>,
    dropped: Vec<String>,
}

impl Left {
    fn keeps(kept: Vec<Kept>) -> Self {
        Self { kept, dropped: Vec::new() }
    }

    fn drops(address: String) -> Self {
        Self { kept: Vec::new(), dropped: vec![address] }
    }
}

impl<'a> Run<'a> {
    /// A run from what was observed.
    #[expect(clippy::too_many_arguments, reason = "a run joins that many things, in one place")]
    pub fn new(
        api: &'a Api,
        calls: Calls,
        desired: &'a Desired,
        secrets: &'a Secrets,
        journal: &'a mut Journal,
        observed: &Observed,
        probe_url: String,
        quiet: bool,
    ) -> Self {
        let fresh_routes = fresh_routes(observed, journal.state());
        let worker = observed.worker.clone().unwrap_or_default();
        let tagged = worker.versions.iter().find(|version| version.tag.as_ref() == Some(&desired.upload.tag));
        let version = tagged.map(|version| version.id.clone());
        let shares = worker.deployment.iter().flat_map(|deployment| deployment.shares.clone());
        let others = shares.filter(|(id, share)| Some(id) != version.as_ref() && *share > 0.0);
        let before = others.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id);
        Self {
            api,
            calls,
            desired,
            secrets,
            journal,
            probe_url,
            quiet,
            ids: BTreeMap::new(),
            ruleset: observed.ruleset.clone(),
            version,
            deployment: worker.deployment,
            before,
            fresh_routes,
            unpurged: None,
            warnings: Vec::new(),
        }
    }

    /// Takes the steps of the plan.
    pub async fn take(mut self, plan: &Plan) -> Outcome {
        self.ids = plan.ids.clone();
        let purges = plan.steps.iter().any(|step| matches!(step, Step::Purge { .. }));
        self.unpurged = purges.then(|| self.journal.state().clone());
        let names: Vec<String> = plan.steps.iter().map(Step::name).collect();
        let mut outcome = Outcome::default();
        let begun = self.journal.write(Event::Begun { steps: names.clone() });
        for (at, step) in plan.steps.iter().enumerate() {
            let name = names[at].clone();
            let taken = match &begun {
                Err(error) => Err(StepError::Stopped(format!("{error:#}"))),
                Ok(()) => self.step(step, &name).await,
            };
            if let Err(error) = taken {
                let _ = self.journal.write(Event::Failed { step: name.clone(), error: error.to_string() });
                // A version that was not well and is out of the way again leaves nothing half done.
                if matches!(error, StepError::Probe(_)) {
                    let _ = self.journal.write(Event::Ended);
                }
                outcome.failed = Some((name, error));
                outcome.left = names[at + 1..].to_vec();
                outcome.warnings = self.warnings;
                return outcome;
            }
            outcome.done.push(name);
        }
        if let Err(error) = self.journal.write(Event::Ended) {
            self.warnings.push(format!("all steps were taken, and the journal does not say so: {error:#}"));
        }
        outcome.warnings = self.warnings;
        outcome
    }

    async fn step(&mut self, step: &Step, name: &str) -> Result<(), StepError> {
        self.journal.write(Event::Started { step: name.to_owned() }).map_err(StepError::Journal)?;
        if !self.quiet {
            println!("{name} …");
        }
        let Left { kept, dropped } = self.one(step).await?;
        for kept in &kept {
            self.ids.insert(kept.address.clone(), kept.id.clone());
        }
        let done = Event::Done { step: name.to_owned(), kept, dropped };
        self.journal.write(done).map_err(StepError::Journal)
    }

    async fn one(&mut self, step: &Step) -> Result<Left, StepError> {
        match step {
            Step::Create(resource) => self.create(resource).await,
            Step::Update { resource, id } => {
                let body = self.resolved(&resource.body)?;
                self.api.call(&self.calls.update(resource.kind, id, body.clone(), self.ruleset.as_deref())).await?;
                Ok(Left::keeps(vec![Kept { address: resource.address(), id: id.clone(), body }]))
            }
            Step::Delete { kind, key, id } => {
                self.absent_after(&self.calls.delete(*kind, id, self.ruleset.as_deref())).await?;
                Ok(Left::drops(format!("{kind}/{key}")))
            }
            Step::Ruleset(rules) => self.first_rules(rules).await,
            Step::Migrate { from } => self.migrate(from.clone()).await,
            Step::Upload => self.upload().await,
            Step::Deploy { percent } => self.deploy(*percent).await,
            Step::Probe => self.probe().await,
            Step::Purge { tags } => {
                let url = &self.probe_url;
                let purged = purge::purge(self.api, &self.calls, self.secrets, url, tags, false).await;
                self.warnings.extend(purged.warnings);
                self.unpurged = None;
                let version = self.version.as_ref().map(|version| worker_kept(self.desired, version, None));
                Ok(Left::keeps(version.into_iter().collect()))
            }
            Step::DeleteWorker => {
                self.absent_after(&self.calls.delete_script()).await?;
                Ok(Left::drops(WORKER.to_owned()))
            }
        }
    }

    fn resolved(&self, body: &Value) -> Result<Value, StepError> {
        resolved(body, &self.ids).map_err(|missing| StepError::Stopped(format!("{missing} has no identifier yet")))
    }

    /// What is gone already is gone.
    async fn absent_after(&self, call: &Call) -> Result<(), StepError> {
        match self.api.call(call).await {
            Err(error) if !error.is_absent() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn create(&mut self, resource: &Resource) -> Result<Left, StepError> {
        let body = self.resolved(&resource.body)?;
        let call = self.calls.create(resource.kind, body.clone(), self.ruleset.as_deref());
        let id = self.once(&call, resource).await?;
        if resource.kind == Kind::Route {
            self.fresh_routes.push((resource.key.clone(), id.clone()));
        }
        Ok(Left::keeps(vec![Kept { address: resource.address(), id, body }]))
    }

    /// Makes something exactly once: where nobody knows whether it was made, it is looked for.
    async fn once(&self, call: &Call, resource: &Resource) -> Result<String, StepError> {
        let mut unclear = None;
        for _ in 0..TRIES {
            match self.api.call(call).await {
                Ok(result) => {
                    let made = match resource.kind {
                        Kind::CacheRule => rule_of(&result, &resource.body),
                        _ => result["id"].as_str().map(str::to_owned),
                    };
                    if let Some(id) = made {
                        return Ok(id);
                    }
                }
                Err(error @ ApiError::Unclear { .. }) => unclear = Some(after(error).await),
                Err(error) => return Err(error.into()),
            }
            let there = observe::of_kind(self.api, &self.calls, self.desired, resource.kind).await?;
            if let Some(live) = there.at(resource.kind, &resource.key) {
                return Ok(live.id.clone());
            }
        }
        Err(unclear.map_or_else(|| StepError::Stopped("it was made and cannot be found".to_owned()), StepError::Api))
    }

    async fn first_rules(&mut self, rules: &[Resource]) -> Result<Left, StepError> {
        let bodies: Vec<Value> = rules.iter().map(|rule| rule.body.clone()).collect();
        let mut unclear = None;
        for _ in 0..TRIES {
            let result = match self.api.call(&self.calls.create_ruleset(bodies.clone())).await {
                Err(error @ ApiError::Unclear { .. }) => {
                    unclear = Some(after(error).await);
                    self.api.call(&self.calls.list(Kind::CacheRule)).await.unwrap_or_default()
                }
                other => other?,
            };
            let ids: Option<Vec<String>> = bodies.iter().map(|body| rule_of(&result, body)).collect();
            if let (Some(ruleset), Some(ids)) = (result["id"].as_str(), ids) {
                self.ruleset = Some(ruleset.to_owned());
                let kept = rules.iter().zip(ids).map(|(rule, id)| Kept {
                    address: rule.address(),
                    id,
                    body: rule.body.clone(),
                });
                return Ok(Left::keeps(kept.collect()));
            }
        }
        Err(unclear
            .map_or_else(|| StepError::Stopped("the ruleset was made and cannot be found".to_owned()), StepError::Api))
    }

    async fn migrate(&mut self, from: Option<String>) -> Result<Left, StepError> {
        let script_tag = self.desired.marks.script_tag();
        let purpose = Purpose::Migration { from: from.clone(), script_tag };
        let (media_type, body) = self.form(&purpose)?;
        let mut unclear = None;
        for _ in 0..TRIES {
            match self.api.upload(&self.calls.put_script(), media_type.clone(), body.clone()).await {
                Ok(_) => {}
                Err(error @ ApiError::Unclear { .. }) => unclear = Some(after(error).await),
                // Sent again after an answer that got lost, it names a tag that is no longer the last one.
                Err(error) if unclear.is_none() => return Err(error.into()),
                Err(_) => {}
            }
            let there = observe::worker(self.api, &self.calls, self.desired).await?;
            if let Some(worker) = there.worker.filter(|worker| worker.migration.is_some() && worker.migration != from) {
                if self.before.is_none() && from.is_some() {
                    self.before =
                        worker.deployment.as_ref().and_then(|all| all.shares.first()).map(|(id, _)| id.clone());
                }
                self.deployment = worker.deployment;
                return Ok(Left::default());
            }
        }
        Err(unclear.map_or_else(
            || StepError::Stopped("the script was uploaded and shows no migration".to_owned()),
            StepError::Api,
        ))
    }

    fn form(&self, purpose: &Purpose) -> Result<(String, Vec<u8>), StepError> {
        let upload = &self.desired.upload;
        let metadata = upload.metadata(purpose, self.resolved(&upload.metadata)?, self.secrets.values());
        Ok(upload.multipart(&metadata))
    }

    async fn upload(&mut self) -> Result<Left, StepError> {
        let message = format!("edge policy {}", self.desired.revision);
        let (media_type, body) = self.form(&Purpose::Version { message })?;
        let mut unclear = None;
        for _ in 0..TRIES {
            match self.api.upload(&self.calls.post_version(), media_type.clone(), body.clone()).await {
                Ok(result) => self.version = result["id"].as_str().map(str::to_owned),
                Err(error @ ApiError::Unclear { .. }) => {
                    unclear = Some(after(error).await);
                    let there = observe::worker(self.api, &self.calls, self.desired).await?;
                    let versions = there.worker.unwrap_or_default().versions;
                    let ours =
                        versions.into_iter().find(|version| version.tag.as_ref() == Some(&self.desired.upload.tag));
                    self.version = ours.map(|version| version.id);
                }
                Err(error) => return Err(error.into()),
            }
            if self.version.is_some() {
                return Ok(Left::default());
            }
        }
        Err(unclear.map_or_else(|| StepError::Stopped("the version has no identifier".to_owned()), StepError::Api))
    }

    async fn deploy(&mut self, percent: u32) -> Result<Left, StepError> {
        let version =
            self.version.clone().ok_or_else(|| StepError::Stopped("there is no version to deploy".to_owned()))?;
        let shares = match (&self.before, percent) {
            (Some(before), 0..=99) => vec![(before.clone(), 100 - percent), (version.clone(), percent)],
            _ => vec![(version.clone(), 100)],
        };
        self.share(&shares, &format!("edge policy {}", self.desired.revision)).await?;
        Ok(if percent == 100 {
            Left::keeps(vec![worker_kept(self.desired, &version, self.unpurged.as_ref())])
        } else {
            Left::default()
        })
    }

    /// Gives versions their shares, unless somebody else deployed since we looked.
    async fn share(&mut self, shares: &[(String, u32)], message: &str) -> Result<(), StepError> {
        let same = |now: &Deployment| {
            now.shares.len() == shares.len() && shares.iter().all(|(id, share)| now.share(id) == f64::from(*share))
        };
        let mut unclear = None;
        for _ in 0..TRIES {
            let now = observe::worker(self.api, &self.calls, self.desired).await?.worker.unwrap_or_default().deployment;
            if let Some(now) = now.as_ref().filter(|now| same(now)) {
                self.deployment = Some(now.clone());
                return Ok(());
            }
            let id = |deployment: &Option<Deployment>| deployment.as_ref().map(|deployment| deployment.id.clone());
            if id(&now) != id(&self.deployment) {
                let what = now.map_or_else(
                    || "nothing serves now".to_owned(),
                    |now| format!("{} by {}", now.words(), now.author),
                );
                return Err(StepError::Stopped(format!("somebody else deployed meanwhile: {what}")));
            }
            match self.api.call(&self.calls.deploy(shares, message)).await {
                Ok(result) => {
                    let shares = shares.iter().map(|(id, share)| (id.clone(), f64::from(*share))).collect();
                    let id = result["id"].as_str().unwrap_or_default().to_owned();
                    self.deployment = Some(Deployment { id, shares, author: "us".to_owned() });
                    return Ok(());
                }
                Err(error @ ApiError::Unclear { .. }) => unclear = Some(after(error).await),
                Err(error) => return Err(error.into()),
            }
        }
        Err(unclear.map_or_else(|| StepError::Stopped("the deployment does not come about".to_owned()), StepError::Api))
    }

    async fn probe(&mut self) -> Result<Left, StepError> {
        let version =
            self.version.clone().ok_or_else(|| StepError::Stopped("there is no version to ask".to_owned()))?;
        let probe = Probe {
            https: self.api.https(),
            url: &self.probe_url,
            worker: &self.desired.settings.worker,
            version: &version,
            revision: &self.desired.revision,
            canary: &self.desired.settings.canary,
            secrets: self.secrets,
        };
        match probe.run().await {
            Verdict::Well(_) => Ok(Left::default()),
            Verdict::Unwell(why) => Err(self.roll_back(&version, &why).await),
        }
    }

    /// Back to what served before; where nothing did, the routes of this run go again.
    async fn roll_back(&mut self, version: &str, why: &str) -> StepError {
        let found = format!("version {version} is not well at {}: {why}", self.probe_url);
        if let Some(before) = self.before.clone() {
            let message = format!("back from version {version}");
            return match self.share(&[(before.clone(), 100)], &message).await {
                Ok(()) => {
                    self.note("roll back", Vec::new());
                    StepError::Probe(format!("{found}\nrolled back: version {before} serves everybody again"))
                }
                Err(error) => StepError::Stopped(format!("{found}\nAND IT COULD NOT BE ROLLED BACK: {error}")),
            };
        }
        let mut said = Vec::new();
        for (pattern, id) in std::mem::take(&mut self.fresh_routes) {
            let call = self.calls.delete(Kind::Route, &id, None);
            match self.absent_after(&call).await {
                Ok(()) => {
                    self.note("roll back", vec![format!("route/{pattern}")]);
                    said.push(format!("rolled back: the route {pattern} is taken away again"));
                }
                Err(error) => said.push(format!("THE ROUTE {pattern} COULD NOT BE TAKEN AWAY AGAIN: {error}")),
            }
        }
        if said.is_empty() {
            said.push("nothing served before that one could go back to".to_owned());
        }
        StepError::Probe(format!("{found}\n{}", said.join("\n")))
    }

    fn note(&mut self, step: &str, dropped: Vec<String>) {
        if let Err(error) = self.journal.write(Event::Done { step: step.to_owned(), kept: Vec::new(), dropped }) {
            self.warnings.push(format!("the journal does not say that we rolled back: {error:#}"));
        }
    }
}

/// The error, once as much time has passed as the API asked for.
async fn after(error: ApiError) -> ApiError {
    if let ApiError::Unclear { wait, .. } = &error {
        tokio::time::sleep(*wait).await;
    }
    error
}

/// The identifier of the rule with this body's reference, in a ruleset.
fn rule_of(ruleset: &Value, body: &Value) -> Option<String> {
    let rules = ruleset["rules"].as_array()?;
    let found = rules.iter().find(|rule| rule["ref"] == body["ref"])?;
    Some(found["id"].as_str()?.to_owned())
}

/// The tags of a purge in parts that the API takes.
pub fn parts(tags: &[String]) -> impl Iterator<Item = &[String]> {
    tags.chunks(limits::TAGS_A_PURGE)
}
