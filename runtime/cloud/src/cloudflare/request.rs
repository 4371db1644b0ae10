//! The calls of the API, v4 (<https://developers.cloudflare.com/api/>).

use config::cloudflare::Cloudflare;
use serde_json::{Value, json};

use super::desired::Kind;

/// The phase of a zone's rulesets that we have a rule in.
const PHASE: &str = "http_request_cache_settings";

/// A call, below the base URL.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// From the first slash on.
    pub path: String,
    /// The JSON body, where there is one.
    pub body: Option<Value>,
    /// It names what it expects to find, and so cannot be made twice.
    pub conditional: bool,
}

impl Call {
    fn new(method: &'static str, path: String) -> Self {
        Self { method, path, body: None, conditional: false }
    }

    fn with(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// Whether sending it twice does the same as sending it once.
    pub fn is_idempotent(&self) -> bool {
        self.method != "POST" && !self.conditional
    }
}

/// The calls of one account, zone and worker.
#[derive(Clone, Debug)]
pub struct Calls {
    account: String,
    zone: String,
    script: String,
}

impl Calls {
    /// Of these settings.
    pub fn of(settings: &Cloudflare) -> Self {
        let script = format!("/accounts/{}/workers/scripts/{}", settings.account, settings.worker);
        Self { account: format!("/accounts/{}", settings.account), zone: format!("/zones/{}", settings.zone), script }
    }

    /// The zone.
    pub fn zone(&self) -> Call {
        Call::new("GET", self.zone.clone())
    }

    /// The account's workers.
    pub fn scripts(&self) -> Call {
        Call::new("GET", format!("{}/workers/scripts", self.account))
    }

    /// The worker's versions.
    pub fn versions(&self) -> Call {
        Call::new("GET", format!("{}/versions", self.script))
    }

    /// The worker's deployments.
    pub fn deployments(&self) -> Call {
        Call::new("GET", format!("{}/deployments", self.script))
    }

    /// The things of a kind.
    pub fn list(&self, kind: Kind) -> Call {
        match kind {
            Kind::CacheRule => Call::new("GET", format!("{}/rulesets/phases/{PHASE}/entrypoint", self.zone)),
            _ => Call::new("GET", self.folder(kind, None)),
        }
    }

    /// Uploads the whole script, from one migration to the next; multipart.
    pub fn put_script(&self) -> Call {
        Call { conditional: true, ..Call::new("PUT", self.script.clone()) }
    }

    /// Uploads a version; multipart.
    pub fn post_version(&self) -> Call {
        Call::new("POST", format!("{}/versions", self.script))
    }

    /// Takes the worker away, with its durable objects.
    pub fn delete_script(&self) -> Call {
        Call::new("DELETE", format!("{}?force=true", self.script))
    }

    /// Gives versions their shares, in percent.
    pub fn deploy(&self, shares: &[(String, u32)], message: &str) -> Call {
        let version = |(id, percent): &(String, u32)| json!({"version_id": id, "percentage": percent});
        let message: String = message.chars().take(100).collect();
        Call::new("POST", format!("{}/deployments", self.script)).with(json!({
            "strategy": "percentage",
            "versions": shares.iter().map(version).collect::<Vec<_>>(),
            "annotations": {"workers/message": message},
        }))
    }

    /// Makes something of `kind`; a cache rule in this ruleset.
    pub fn create(&self, kind: Kind, body: Value, ruleset: Option<&str>) -> Call {
        Call::new("POST", self.folder(kind, ruleset)).with(body)
    }

    /// Gives something its fields. Those that others gave it stay, where the API can do that.
    pub fn update(&self, kind: Kind, id: &str, body: Value, ruleset: Option<&str>) -> Call {
        let method = if matches!(kind, Kind::Route | Kind::Kv) { "PUT" } else { "PATCH" };
        Call::new(method, format!("{}/{id}", self.folder(kind, ruleset))).with(body)
    }

    /// Takes something away.
    pub fn delete(&self, kind: Kind, id: &str, ruleset: Option<&str>) -> Call {
        Call::new("DELETE", format!("{}/{id}", self.folder(kind, ruleset)))
    }

    /// Makes the ruleset of the cache settings with these rules. It fails where there is one by now, so that nobody's
    /// rules are written over.
    pub fn create_ruleset(&self, rules: Vec<Value>) -> Call {
        Call::new("POST", format!("{}/rulesets", self.zone))
            .with(json!({"name": "Cache settings", "kind": "zone", "phase": PHASE, "rules": rules}))
    }

    /// Takes what has one of these tags out of the zone's caches.
    pub fn purge(&self, tags: &[String]) -> Call {
        Call::new("POST", format!("{}/purge_cache", self.zone)).with(json!({"tags": tags}))
    }

    fn folder(&self, kind: Kind, ruleset: Option<&str>) -> String {
        let (account, zone) = (&self.account, &self.zone);
        match kind {
            Kind::Kv => format!("{account}/storage/kv/namespaces"),
            Kind::Monitor => format!("{account}/load_balancers/monitors"),
            Kind::Pool => format!("{account}/load_balancers/pools"),
            Kind::LoadBalancer => format!("{zone}/load_balancers"),
            Kind::Route => format!("{zone}/workers/routes"),
            Kind::CacheRule => format!("{zone}/rulesets/{}/rules", ruleset.unwrap_or_default()),
        }
    }
}
