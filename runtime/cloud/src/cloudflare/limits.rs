//! What Cloudflare would refuse, refused before anything is sent.
//!
//! Sources, below <https://developers.cloudflare.com/>: `workers/platform/limits`, `workers/configuration/routing/routes`,
//! `load-balancing/reference/limitations`, `cache/how-to/cache-rules`, `cache/how-to/purge-cache/purge-by-tags`.

use std::io::Write;
use std::net::IpAddr;

use edge::Form;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::bundle::secrets_wanted;
use super::desired::{Desired, Kind, host_of, route_host};
use super::observed::Observed;

/// The size of a worker, compressed by gzip, on a paid plan; 3 MiB on the free one.
const WORKER_GZIP: usize = 10 << 20;
const WORKER_GZIP_FREE: usize = 3 << 20;
/// The same, as it is.
const WORKER_PLAIN: usize = 64 << 20;
/// Variables and secrets of a worker.
const BINDINGS: usize = 128;
/// A secret's value, in bytes.
pub const SECRET: usize = 5 << 10;
/// Routes of a zone.
const ROUTES: usize = 1000;
/// The tags of an answer in their header, in bytes; and one tag where it is purged.
const TAGS: usize = 16 << 10;
const TAG: usize = 1024;
/// Tags in one purge.
pub const TAGS_A_PURGE: usize = 30;
/// Pools of an account and load balancing intervals in seconds, on plans other than Enterprise.
const POOLS: usize = 20;
const INTERVAL: u32 = 15;

/// Something that would be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

fn refusal(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), help: help.into() }
}

/// How many rules of the cache settings a zone may have, by plan; none where the plan is not known.
fn cache_rules(plan: &str) -> Option<usize> {
    Some(match plan {
        "free" => 10,
        "pro" => 25,
        "business" => 50,
        "enterprise" => 300,
        _ => return None,
    })
}

/// What of the wish alone would be refused.
pub fn of_wish(form: &Form, desired: &Desired) -> Vec<Refusal> {
    let mut all = Vec::new();
    let settings = &desired.settings;
    let file = config::cloudflare::FILE;
    for (region, url) in &form.origins {
        if let Some(why) = unreachable(url) {
            let help = format!("say under `origins` of {file} where the world reaches the gateway of {region}");
            all.push(refusal(format!("Cloudflare cannot ask {region} at {url}: {why}"), help));
        }
        if settings.routes.iter().any(|pattern| route_host(pattern) == host_of(url)) {
            let message = format!("the gateway of {region} and a route have the same host, {}", host_of(url));
            all.push(refusal(message, "give the gateway a host name of its own"));
        }
    }
    for region in settings.origins.keys().filter(|region| !form.origins.contains_key(*region)) {
        let help = "name regions that have a file in region-config/";
        all.push(refusal(format!("`origins` of {file} names {region}, and no region is called so"), help));
    }
    for name in secrets_wanted(form).into_iter().filter(|name| !desired.upload.secrets.contains_key(name)) {
        let help = format!("say under `secrets` of {file} where it is found: `{name}: {{env: {name}}}`");
        all.push(refusal(format!("the worker needs the secret {name}"), help));
    }
    let names: Vec<&str> = bindings(desired).chain(desired.upload.secrets.keys().map(String::as_str)).collect();
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        all.push(refusal(
            format!("two bindings of the worker are called {}", twice.1),
            "give one of them another name",
        ));
    }
    if names.len() > BINDINGS {
        all.push(refusal(
            format!("the worker has {} bindings, and {BINDINGS} are the most", names.len()),
            "have fewer",
        ));
    }
    all.extend(sizes(desired));
    for rule in &form.rules {
        let tags = &rule.rule.tags;
        for tag in tags.iter().filter(|tag| tag.len() > TAG || !tag.bytes().all(|b| b.is_ascii_graphic() && b != b','))
        {
            let help = "use up to 1024 printable characters without spaces and commas";
            all.push(refusal(format!("`{}` has the tag {tag:?}, which cannot be purged", rule.rule.name), help));
        }
        if tags.iter().map(|tag| tag.len() + 1).sum::<usize>() > TAGS {
            all.push(refusal(format!("the tags of `{}` are more than 16 KiB", rule.rule.name), "have fewer"));
        }
    }
    all
}

fn bindings(desired: &Desired) -> impl Iterator<Item = &str> {
    let all = desired.upload.metadata["bindings"].as_array().into_iter().flatten();
    all.filter_map(|binding| binding["name"].as_str())
}

fn unreachable(url: &str) -> Option<&'static str> {
    let host = host_of(url);
    if host.parse::<IpAddr>().is_ok() {
        return Some("a worker asks hosts by name, never by address");
    }
    if !host.contains('.') || host.ends_with(".local") || host.ends_with(".internal") {
        return Some("the name is not known to the world");
    }
    None
}

fn sizes(desired: &Desired) -> Vec<Refusal> {
    let plain: usize = desired.upload.modules.iter().map(|module| module.text.len()).sum();
    if plain > WORKER_PLAIN {
        return vec![refusal(
            format!("the worker has {plain} bytes, and 64 MiB are the most"),
            "make policy or bundle smaller",
        )];
    }
    let gzip = if plain <= WORKER_GZIP { plain } else { gzipped(desired) };
    if gzip > WORKER_GZIP {
        return vec![refusal(
            format!("the worker has {gzip} bytes compressed, and 10 MiB are the most"),
            "make policy or bundle smaller",
        )];
    }
    Vec::new()
}

/// The size of the worker's modules, compressed.
pub fn gzipped(desired: &Desired) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for module in &desired.upload.modules {
        encoder.write_all(module.text.as_bytes()).expect("memory takes it");
    }
    encoder.finish().expect("memory takes it").len()
}

/// What would be refused where the zone is as it is.
pub fn of_zone(desired: &Desired, observed: &Observed) -> Vec<Refusal> {
    let mut all = Vec::new();
    let settings = &desired.settings;
    let zone = &observed.zone_name;
    for pattern in settings.routes.iter().filter(|pattern| !observed.route_in_zone(pattern)) {
        let help = format!("name hosts of {zone}, or the zone that has this one");
        all.push(refusal(format!("the route {pattern} is not in the zone {zone}"), help));
    }
    let routes = observed.foreign.routes + settings.routes.len();
    if routes > ROUTES {
        let message = format!("the zone would have {routes} routes, and {ROUTES} are the most");
        all.push(refusal(message, "take away routes that nobody needs"));
    }
    let ours = desired.resources.iter().filter(|resource| resource.kind == Kind::CacheRule).count();
    let rules = observed.foreign.cache_rules + ours;
    if let Some(most) = cache_rules(&observed.zone_plan).filter(|most| rules > *most) {
        let message =
            format!("the zone would have {rules} cache rules, and the plan {} has {most}", observed.zone_plan);
        all.push(refusal(message, "take away rules that nobody needs, or take a larger plan"));
    }
    if let Some(balancer) = &settings.load_balancer {
        let enterprise = observed.zone_plan == "enterprise";
        if !observed.in_zone(&balancer.hostname) {
            let message = format!("the load balancer's host {} is not in the zone {zone}", balancer.hostname);
            all.push(refusal(message, "name a host of the zone"));
        }
        if balancer.steering == config::cloudflare::Steering::Country && !enterprise {
            let message =
                format!("steering by country needs the plan enterprise, and the zone has {}", observed.zone_plan);
            all.push(refusal(message, "write `steering: failover`"));
        }
        if balancer.health.interval < INTERVAL && !enterprise {
            let message = format!("a health check every {} s needs the plan enterprise", balancer.health.interval);
            all.push(refusal(message, format!("write `interval: {INTERVAL}` or more")));
        }
        let pools = observed.foreign.pools + desired.resources.iter().filter(|one| one.kind == Kind::Pool).count();
        if pools > POOLS && !enterprise {
            let message = format!("the account would have {pools} pools, and {POOLS} are the most");
            all.push(refusal(message, "take away pools that nobody needs"));
        }
    }
    all.extend(observed.clashes.iter().map(|clash| {
        refusal(
            format!("{} is taken: {}", clash.address, clash.by),
            "what is not ours is never changed: take it away by hand, or choose another name",
        )
    }));
    if let Some(tag) = observed.worker.as_ref().and_then(|worker| worker.migration.as_deref())
        && !super::bundle::MIGRATIONS.iter().any(|(known, _)| *known == tag)
    {
        let message = format!("the worker has the durable object migration {tag}, which this runtime does not know");
        all.push(refusal(message, "deploy with the runtime that released it, or a later one"));
    }
    all
}

/// What is taken on a paid plan only.
pub fn notes(desired: &Desired) -> Vec<String> {
    let gzip = gzipped(desired);
    let large = gzip > WORKER_GZIP_FREE;
    large
        .then(|| format!("the worker has {gzip} bytes compressed: it needs a paid plan of Workers"))
        .into_iter()
        .collect()
}
