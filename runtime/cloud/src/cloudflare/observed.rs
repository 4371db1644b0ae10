//! What is there, out of the API's answers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::desired::{Desired, Kind, route_host};
use super::marks::Marks;

/// The answers that were read, each the `result` of a call, lists joined over all their pages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// `GET /zones/{zone}`.
    pub zone: Value,
    /// `GET /accounts/{account}/workers/scripts`.
    pub scripts: Vec<Value>,
    /// `GET …/scripts/{script}/versions`, the `items`; empty where there is no such script.
    pub versions: Vec<Value>,
    /// `GET …/scripts/{script}/deployments`, the `deployments`, latest first.
    pub deployments: Vec<Value>,
    /// `GET /zones/{zone}/workers/routes`.
    pub routes: Vec<Value>,
    /// `GET /accounts/{account}/storage/kv/namespaces`; empty where none is wanted or known.
    pub namespaces: Vec<Value>,
    /// `GET /accounts/{account}/load_balancers/monitors`; the same.
    pub monitors: Vec<Value>,
    /// `GET /accounts/{account}/load_balancers/pools`; the same.
    pub pools: Vec<Value>,
    /// `GET /zones/{zone}/load_balancers`; the same.
    pub balancers: Vec<Value>,
    /// `GET /zones/{zone}/rulesets/phases/http_request_cache_settings/entrypoint`; null where there is none.
    pub ruleset: Value,
}

/// What is there, sorted into ours and others'.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The zone's name.
    pub zone_name: String,
    /// The zone's plan: `free`, `pro`, `business` or `enterprise`; empty where it is not said.
    pub zone_plan: String,
    /// Whether the zone serves.
    pub zone_active: bool,
    /// What is ours, apart from the worker.
    pub live: Vec<Live>,
    /// What others have where we want something.
    pub clashes: Vec<Clash>,
    /// Patterns of routes that lead to our worker and were not made by us.
    pub strays: Vec<String>,
    /// The ruleset of the cache settings, if there is one.
    pub ruleset: Option<String>,
    /// How many rules, routes and pools there are that are not ours.
    pub foreign: Foreign,
    /// The worker, if there is one that is ours.
    pub worker: Option<LiveWorker>,
}

/// How much there is that is not ours: it counts against the same limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Rules of the cache settings.
    pub cache_rules: usize,
    /// Routes of the zone.
    pub routes: usize,
    /// Pools of the account.
    pub pools: usize,
}

/// Something of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// What kind.
    pub kind: Kind,
    /// What tells it from others of its kind.
    pub key: String,
    /// The provider's identifier.
    pub id: String,
    /// All its fields.
    pub body: Value,
}

impl Live {
    /// `pool/us-east`.
    pub fn address(&self) -> String {
        format!("{}/{}", self.kind, self.key)
    }
}

/// Something of others where we want something of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The address that is taken.
    pub address: String,
    /// By what.
    pub by: String,
}

/// The worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveWorker {
    /// The migration that was released last.
    pub migration: Option<String>,
    /// Its versions and their tags, latest first.
    pub versions: Vec<Version>,
    /// The deployment that serves, with what share each version has.
    pub deployment: Option<Deployment>,
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The provider's identifier.
    pub id: String,
    /// Our tag, where it has one.
    pub tag: Option<String>,
}

/// What serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// The provider's identifier.
    pub id: String,
    /// Versions with their share in percent, in the provider's order.
    pub shares: Vec<(String, f64)>,
    /// Who made it, as far as the provider says.
    pub author: String,
}

impl Deployment {
    /// The share of a version, in percent.
    pub fn share(&self, version: &str) -> f64 {
        self.shares.iter().filter(|(id, _)| id == version).map(|(_, share)| share).sum()
    }

    /// `100 % of 17`, as a person reads it.
    pub fn words(&self) -> String {
        let one = |(id, share): &(String, f64)| format!("{share} % of {id}");
        self.shares.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

impl Observed {
    /// Sorts what was read; `made` are the addresses that the journal says we made.
    pub fn of(listing: &Listing, desired: &Desired, made: &BTreeSet<String>) -> Self {
        let (marks, settings) = (&desired.marks, &desired.settings);
        let mut seen = Self {
            zone_name: text(&listing.zone, "name").to_owned(),
            zone_plan: listing.zone.pointer("/plan/legacy_id").and_then(Value::as_str).unwrap_or_default().to_owned(),
            zone_active: text(&listing.zone, "status") == "active",
            ruleset: listing.ruleset.get("id").and_then(Value::as_str).map(str::to_owned),
            ..Self::default()
        };
        for namespace in &listing.namespaces {
            seen.keep(Kind::Kv, marks.key(text(namespace, "title")), namespace);
        }
        for monitor in &listing.monitors {
            seen.keep(Kind::Monitor, marks.describes(text(monitor, "description")).then_some("gateways"), monitor);
        }
        for pool in &listing.pools {
            if !seen.keep(Kind::Pool, marks.key(text(pool, "name")), pool) {
                seen.foreign.pools += 1;
            }
        }
        for balancer in &listing.balancers {
            let name = text(balancer, "name");
            if !seen.keep(Kind::LoadBalancer, marks.describes(text(balancer, "description")).then_some(name), balancer)
                && settings.load_balancer.as_ref().is_some_and(|wanted| wanted.hostname == name)
            {
                let by = format!("a load balancer that is not ours ({:?})", text(balancer, "description"));
                seen.clashes.push(Clash { address: format!("load-balancer/{name}"), by });
            }
        }
        for rule in listing.ruleset.get("rules").and_then(Value::as_array).into_iter().flatten() {
            if !seen.keep(Kind::CacheRule, marks.rule_key(text(rule, "ref")).as_deref(), rule) {
                seen.foreign.cache_rules += 1;
            }
        }
        for route in &listing.routes {
            seen.sort_route(route, desired, made);
        }
        seen.worker = seen.worker_of(listing, marks, &settings.worker);
        seen
    }

    fn keep(&mut self, kind: Kind, key: Option<&str>, body: &Value) -> bool {
        let Some(key) = key else { return false };
        let id = text(body, "id").to_owned();
        self.live.push(Live { kind, key: key.to_owned(), id, body: body.clone() });
        true
    }

    /// A route has no field for a mark: it is ours where it leads to our worker and is wanted or was made by us.
    fn sort_route(&mut self, route: &Value, desired: &Desired, made: &BTreeSet<String>) {
        let (pattern, script) = (text(route, "pattern"), text(route, "script"));
        let wanted = desired.settings.routes.iter().any(|wanted| wanted == pattern);
        let address = format!("route/{pattern}");
        if script == desired.settings.worker && (wanted || made.contains(&address)) {
            self.keep(Kind::Route, Some(pattern), route);
            return;
        }
        self.foreign.routes += 1;
        if script == desired.settings.worker {
            self.strays.push(pattern.to_owned());
        } else if wanted {
            let by = match script {
                "" => "a route that leads to no worker".to_owned(),
                other => format!("a route that leads to the worker {other}"),
            };
            self.clashes.push(Clash { address, by });
        }
    }

    fn worker_of(&mut self, listing: &Listing, marks: &Marks, name: &str) -> Option<LiveWorker> {
        let script = listing.scripts.iter().find(|script| text(script, "id") == name)?;
        let tags = script.get("tags").and_then(Value::as_array).into_iter().flatten();
        if !tags.filter_map(Value::as_str).any(|tag| tag == marks.script_tag()) {
            let by = "a worker that is not of this deployment: it has no such tag".to_owned();
            self.clashes.push(Clash { address: format!("worker/{name}"), by });
            return None;
        }
        let version = |version: &Value| {
            let tag = version.get("annotations").and_then(|all| all.get("workers/tag")).and_then(Value::as_str);
            Version { id: text(version, "id").to_owned(), tag: tag.map(str::to_owned) }
        };
        let deployment = listing.deployments.first().map(|latest| Deployment {
            id: text(latest, "id").to_owned(),
            shares: latest
                .get("versions")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|share| {
                    let percent = share.get("percentage").and_then(Value::as_f64).unwrap_or_default();
                    (text(share, "version_id").to_owned(), percent)
                })
                .collect(),
            author: match text(latest, "author_email") {
                "" => text(latest, "source").to_owned(),
                email => email.to_owned(),
            },
        });
        Some(LiveWorker {
            migration: script.get("migration_tag").and_then(Value::as_str).map(str::to_owned),
            versions: listing.versions.iter().map(version).collect(),
            deployment,
        })
    }

    /// What is live at an address.
    pub fn at(&self, kind: Kind, key: &str) -> Option<&Live> {
        self.live.iter().find(|live| live.kind == kind && live.key == key)
    }

    /// Whether a host belongs to the zone.
    pub fn in_zone(&self, host: &str) -> bool {
        let host = host.trim_start_matches('*').trim_start_matches('.');
        host == self.zone_name || host.strip_suffix(self.zone_name.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }

    /// Whether a route's pattern belongs to the zone.
    pub fn route_in_zone(&self, pattern: &str) -> bool {
        self.in_zone(route_host(pattern))
    }
}
