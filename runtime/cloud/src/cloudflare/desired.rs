//! What a tree wants at Cloudflare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::cloudflare::{Cloudflare, LoadBalancer, Steering};
use edge::Form;
use model::RegionId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bundle::{Upload, upload};
use super::marks::Marks;

/// A kind of thing, in the order in which they are made. What stands further down may refer to what stands above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A namespace of Workers KV.
    Kv,
    /// A health check.
    Monitor,
    /// The gateways of a region, for a load balancer.
    Pool,
    /// A rule of the zone's cache settings.
    CacheRule,
    /// A load balancer.
    LoadBalancer,
    /// A route to the worker.
    Route,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 6] = [Self::Kv, Self::Monitor, Self::Pool, Self::CacheRule, Self::LoadBalancer, Self::Route];

    /// The first part of an address.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Monitor => "monitor",
            Self::Pool => "pool",
            Self::CacheRule => "cache-rule",
            Self::LoadBalancer => "load-balancer",
            Self::Route => "route",
        }
    }

    /// The kind of an address, and its key.
    pub fn of(address: &str) -> Option<(Self, &str)> {
        let (word, key) = address.split_once('/')?;
        Some((Self::ALL.into_iter().find(|kind| kind.word() == word)?, key))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Something that is to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What kind.
    pub kind: Kind,
    /// What tells it from others of its kind.
    pub key: String,
    /// Its fields; `ref:pool/us-east` stands for the identifier of another resource.
    pub body: Value,
}

impl Resource {
    /// `pool/us-east`.
    pub fn address(&self) -> String {
        format!("{}/{}", self.kind, self.key)
    }
}

/// All that a tree wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The marks of the deployment.
    pub marks: Marks,
    /// Account, zone and names.
    pub settings: Cloudflare,
    /// The worker.
    pub upload: Upload,
    /// The revision of its policy.
    pub revision: String,
    /// What stands around it, in the order in which it is made.
    pub resources: Vec<Resource>,
    /// For each cache rule, what must be the same for its answers to stay good, and its times.
    pub rules: BTreeMap<String, RuleWitness>,
}

/// What of a cache rule decides whether answers stored under it may be given under another version of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleWitness {
    /// Never stored.
    pub bypass: bool,
    /// Edge, browser, stale-while-revalidate and stale-if-error times, in seconds.
    pub times: [u32; 4],
    /// A hash of all else that decides, residency included.
    pub rest: String,
}

impl RuleWitness {
    /// Whether `later` forbids something that this rule allowed.
    pub fn tightens_to(&self, later: Option<&Self>) -> bool {
        let Some(later) = later else { return !self.bypass };
        let shorter = self.times.iter().zip(&later.times).any(|(before, after)| after < before);
        !self.bypass && (later.bypass || shorter || self.rest != later.rest)
    }
}

impl Desired {
    /// What is wanted where everything is to go: nothing, under the marks of these settings.
    pub fn nothing(settings: &Cloudflare) -> Self {
        let metadata = json!({"bindings": []});
        Self {
            marks: Marks::of(settings),
            settings: settings.clone(),
            upload: Upload { metadata, modules: Vec::new(), secrets: BTreeMap::new(), tag: String::new() },
            revision: String::new(),
            resources: Vec::new(),
            rules: BTreeMap::new(),
        }
    }
}

/// What a form and its settings want; `code` is the worker's bundle. `form` has the origins of the settings already.
pub fn desired(form: &Form, settings: &Cloudflare, code: &str) -> Desired {
    let marks = Marks::of(settings);
    let mut resources: Vec<Resource> = settings
        .kv
        .iter()
        .map(|name| Resource { kind: Kind::Kv, key: name.clone(), body: json!({"title": marks.name(name)}) })
        .collect();
    if let Some(balancer) = &settings.load_balancer {
        resources.extend(balancing(form, balancer, &marks));
    }
    resources.push(no_second_cache(form, settings, &marks));
    resources.extend(settings.routes.iter().map(|pattern| Resource {
        kind: Kind::Route,
        key: pattern.clone(),
        body: json!({"pattern": pattern, "script": settings.worker}),
    }));
    resources.sort_by_key(|resource| resource.kind);
    Desired {
        upload: upload(form, settings, &marks, code),
        revision: form.revision.clone(),
        resources,
        rules: form.rules.iter().map(|rule| (rule.rule.name.to_string(), witness(form, rule))).collect(),
        settings: settings.clone(),
        marks,
    }
}

fn witness(form: &Form, rule: &edge::form::Rule) -> RuleWitness {
    let mut plain = rule.rule.clone();
    let times = [
        plain.edge_ttl_seconds,
        plain.browser_ttl_seconds,
        plain.stale_while_revalidate_seconds,
        plain.stale_if_error_seconds,
    ];
    plain.edge_ttl_seconds = 0;
    plain.browser_ttl_seconds = 0;
    plain.stale_while_revalidate_seconds = 0;
    plain.stale_if_error_seconds = 0;
    let text = serde_json::to_vec(&(&plain, &form.residency)).expect("plain data");
    let hash = blake3::derive_key("repomind cloudflare rule v1", &text);
    let rest = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    RuleWitness { bypass: rule.rule.bypass, times, rest }
}

/// The zone's own cache must not keep what the worker decides about: it knows neither residency nor our purges. So it
/// is passed over for the site and for the regions' gateways.
fn no_second_cache(form: &Form, settings: &Cloudflare, marks: &Marks) -> Resource {
    let key = "no-second-cache";
    let gateways = form.origins.values().map(|url| host_of(url).to_owned());
    let exact: BTreeSet<String> = settings
        .routes
        .iter()
        .map(|pattern| route_host(pattern).to_owned())
        .filter(|host| !host.contains('*'))
        .chain(gateways)
        .collect();
    let mut parts = vec![format!(
        "http.host in {{{}}}",
        exact.iter().map(|host| format!("\"{host}\"")).collect::<Vec<_>>().join(" ")
    )];
    for host in settings
        .routes
        .iter()
        .map(|pattern| route_host(pattern))
        .filter(|host| host.contains('*'))
        .collect::<BTreeSet<_>>()
    {
        parts.push(format!("ends_with(http.host, \"{}\")", host.trim_start_matches('*')));
    }
    let expression = match parts.as_slice() {
        [one] => format!("({one})"),
        many => many.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(" or "),
    };
    let body = json!({
        "ref": marks.rule_reference(key),
        "description": marks.description("the worker decides what is cached"),
        "expression": expression,
        "action": "set_cache_settings",
        "action_parameters": {"cache": false},
        "enabled": true,
    });
    Resource { kind: Kind::CacheRule, key: key.to_owned(), body }
}

fn balancing(form: &Form, balancer: &LoadBalancer, marks: &Marks) -> Vec<Resource> {
    let health = &balancer.health;
    let https = form.origins.values().all(|url| url.starts_with("https://"));
    let monitor = Resource {
        kind: Kind::Monitor,
        key: "gateways".to_owned(),
        body: json!({
            "description": marks.description("gateways"),
            "type": if https { "https" } else { "http" },
            "method": "GET",
            "path": health.path,
            "interval": health.interval,
            "timeout": health.timeout,
            "retries": health.retries,
            "expected_codes": health.codes,
            "follow_redirects": false,
            "allow_insecure": false,
        }),
    };
    let pool = |(region, url): (&RegionId, &String)| {
        let host = host_of(url);
        let mut origin =
            json!({"name": region, "address": host, "enabled": true, "weight": 1, "header": {"Host": [host]}});
        if let Some(port) = port_of(url) {
            origin["port"] = json!(port);
        }
        Resource {
            kind: Kind::Pool,
            key: region.to_string(),
            body: json!({
                "name": marks.name(region.as_str()),
                "description": marks.description("the gateway of a region"),
                "enabled": true,
                "minimum_origins": 1,
                "monitor": "ref:monitor/gateways",
                "origins": [origin],
            }),
        }
    };
    let pools = |order: &[RegionId]| order.iter().map(|region| format!("ref:pool/{region}")).collect::<Vec<_>>();
    let mut body = json!({
        "name": balancer.hostname,
        "description": marks.description("the regions' gateways"),
        "proxied": true,
        "default_pools": pools(&form.ranking.default),
        "fallback_pool": pools(&form.ranking.default).first(),
        "steering_policy": "off",
        "session_affinity": "none",
    });
    if balancer.steering == Steering::Country {
        let countries = form.ranking.countries.iter();
        let orders: BTreeMap<String, Vec<String>> = countries
            .map(|(country, at)| (country.to_string(), pools(&form.ranking.orders[usize::from(*at)])))
            .collect();
        body["steering_policy"] = json!("geo");
        body["country_pools"] = json!(orders);
    }
    let balancer = Resource { kind: Kind::LoadBalancer, key: balancer.hostname.clone(), body };
    [monitor].into_iter().chain(form.origins.iter().map(pool)).chain([balancer]).collect()
}

/// The host of a base URL, without port.
pub fn host_of(url: &str) -> &str {
    let authority = authority(url);
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn port_of(url: &str) -> Option<u16> {
    authority(url).rsplit(']').next()?.rsplit_once(':')?.1.parse().ok()
}

fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The host of a route's pattern, with its star.
pub fn route_host(pattern: &str) -> &str {
    authority(pattern)
}
