//! Reads `edge-deployment/cloudflare.yml`: into which account and zone the edge is deployed, under which names.
//!
//! Secrets are named here and never written here: each is an environment variable or a file, read when something is
//! uploaded. What Cloudflare would refuse of the form of a value is refused here, at its line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{Finding, RegionId};

use crate::yaml::{Entry, Located, Place, Source, Table};

/// The file, below the tree's root.
pub const FILE: &str = "edge-deployment/cloudflare.yml";

const FILE_KEYS: &[&str] = &["version", "cloudflare"];
const KEYS: &[&str] = &[
    "account",
    "zone",
    "worker",
    "routes",
    "origins",
    "compatibility_date",
    "secrets",
    "kv",
    "load_balancer",
    "canary",
];
const SECRET_KEYS: &[&str] = &["env", "file", "revision"];
const BALANCER_KEYS: &[&str] = &["hostname", "steering", "health"];
const HEALTH_KEYS: &[&str] = &["path", "interval", "timeout", "retries", "codes"];
const CANARY_KEYS: &[&str] = &["percent", "probes", "seconds", "paths", "url"];

/// A label of a host name, which a worker's name becomes on workers.dev (RFC 1035, 2.3.4).
const LONGEST_WORKER: usize = 63;
/// Routes, secrets and namespaces that one file may name; the zone's own limits are checked against the zone.
const MOST: usize = 100;

/// Where the edge is deployed at Cloudflare, checked as far as the file alone tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloudflare {
    /// The account: 32 hexadecimal digits.
    pub account: String,
    /// The zone: 32 hexadecimal digits.
    pub zone: String,
    /// The worker's name.
    pub worker: String,
    /// Route patterns, such as `www.example.org/*`; at least one.
    pub routes: Vec<String>,
    /// Under which URL the world reaches each region's gateway; no final slash.
    pub origins: BTreeMap<RegionId, String>,
    /// The runtime's behaviour that the worker was written for, as `2026-04-01`.
    pub compatibility_date: String,
    /// Where each secret is found, by the name that it has in the worker.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Namespaces of Workers KV, by the name that each has in the worker.
    pub kv: Vec<String>,
    /// The load balancer, where there is to be one.
    pub load_balancer: Option<LoadBalancer>,
    /// How a new version is tried.
    pub canary: Canary,
}

/// Where a secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource {
    /// The place.
    pub from: SecretPlace,
    /// Counted up when the secret is replaced, because its value is kept nowhere to compare with.
    pub revision: u32,
}

/// An environment variable or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// An environment variable of the command.
    Env(String),
    /// A file; spaces and line ends around its text do not belong to the secret.
    File(PathBuf),
}

/// A load balancer over the regions' gateways, with one pool a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The host name that it answers for.
    pub hostname: String,
    /// How it chooses a pool.
    pub steering: Steering,
    /// How it finds out whether a region is well.
    pub health: Health,
}

/// How a pool is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The first that is well, in the order of the routing plan for clients of no known country.
    Failover,
    /// By the client's country, in the orders of the routing plan. Only zones on the Enterprise plan have it.
    Country,
}

/// A health check of every pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path asked for.
    pub path: String,
    /// Seconds between two checks, 10 to 3600.
    pub interval: u32,
    /// Seconds until an answer counts as none, 1 to 10.
    pub timeout: u32,
    /// How often it asks again at once, 0 to 5.
    pub retries: u32,
    /// The statuses that are well, such as `2xx`.
    pub codes: String,
}

/// How a new version is tried before everybody gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// How much of the traffic it gets meanwhile, 0 to 99.
    pub percent: u32,
    /// How many good answers in a row are wanted, each path asked in turn.
    pub probes: u32,
    /// Seconds within which they must come.
    pub seconds: u32,
    /// The paths asked for; any answer but a server's error is good.
    pub paths: Vec<String>,
    /// Where the worker is reached; the first route's host unless given.
    pub url: Option<String>,
}

/// Reads the file of a tree.
///
/// # Errors
/// Every mistake in it; one finding where there is no such file.
pub fn load(tree: &Path) -> Result<Cloudflare, Vec<Finding>> {
    match crate::read(&tree.join(FILE)) {
        Ok(text) => load_from(&text),
        Err(why) => {
            let help = "copy edge-deployment/cloudflare.example.yml to it and fill in account, zone and routes";
            Err(vec![crate::nowhere(FILE, why, help)])
        }
    }
}

/// Reads the file's text.
///
/// # Errors
/// Every mistake in it.
pub fn load_from(text: &str) -> Result<Cloudflare, Vec<Finding>> {
    let source = Source::about(FILE, text, "cloudflare");
    let read = read(&source);
    let findings = source.into_findings();
    match read {
        Some(read) if findings.is_empty() => Ok(read),
        _ => Err(findings),
    }
}

fn read(source: &Source<'_>) -> Option<Cloudflare> {
    let document = source.document()?;
    let Some(file) = Table::new(source, "", Place::TOP, &document, FILE_KEYS) else {
        source.refuse(source.place(&document), "the file is a mapping", "begin it with `cloudflare:`");
        return None;
    };
    if let Some(version) = file.get("version").and_then(|entry| entry.whole(0, u32::MAX))
        && version.value != 1
    {
        let message = format!("the file is written for version {}; this runtime reads version 1", version.value);
        source.refuse(version.at, message, "write `version: 1`, or run the runtime that it was written for");
        return None;
    }
    let all = file.need("cloudflare", "write `cloudflare:` and indent its keys below it")?.table(KEYS)?;
    let account = identifier(&all, "account", "the account's overview in the dashboard shows it");
    let zone = identifier(&all, "zone", "the zone's overview in the dashboard shows it");
    let worker = match all.get("worker") {
        Some(entry) => worker_of(&entry),
        None => Some("repomind-edge".to_owned()),
    };
    let routes = all.need("routes", "write which URLs lead to the worker, such as `routes: [www.example.org/*]`");
    let routes = routes.and_then(|entry| routes_of(&entry));
    let origins = all.need("origins", "write where each region's gateway is reached, such as `us-east: https://…`");
    let origins = origins.and_then(|entry| origins_of(&entry));
    let date = all.get("compatibility_date").map_or_else(|| Some("2026-04-01".to_owned()), |entry| date_of(&entry));
    let secrets = all.get("secrets").map_or_else(|| Some(BTreeMap::new()), |entry| secrets_of(&entry));
    let kv = all.get("kv").map_or_else(|| Some(Vec::new()), |entry| kv_of(&entry));
    let balancer = match all.get("load_balancer") {
        Some(entry) => balancer_of(&entry).map(Some),
        None => Some(None),
    };
    let canary = match all.get("canary") {
        Some(entry) => entry.table(CANARY_KEYS).and_then(|table| canary_of(&table)),
        None => Some(standard_canary()),
    };
    Some(Cloudflare {
        account: account?,
        zone: zone?,
        worker: worker?,
        routes: routes?,
        origins: origins?,
        compatibility_date: date?,
        secrets: secrets?,
        kv: kv?,
        load_balancer: balancer?,
        canary: canary?,
    })
}

/// Refuses a value that is not as it must be, and gives its text otherwise.
fn checked(
    entry: &Entry<'_>,
    text: Located<String>,
    good: impl Fn(&str) -> bool,
    what: &str,
    help: &str,
) -> Option<String> {
    if good(&text.value) {
        return Some(text.value);
    }
    entry.source.refuse(text.at, format!("{:?} is no {what}", text.value), help);
    None
}

fn identifier(all: &Table<'_>, key: &str, where_from: &str) -> Option<String> {
    let help = format!("write its 32 hexadecimal digits; {where_from}");
    let entry = all.need(key, &help)?;
    let text = entry.text("023e105f4ecef8ad9ca31a8372d0c353")?;
    let good = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    checked(&entry, text, good, &format!("identifier of an {key}").replace("an zone", "a zone"), &help)
}

fn worker_of(entry: &Entry<'_>) -> Option<String> {
    let good = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        plain && !text.is_empty() && text.len() <= LONGEST_WORKER && !text.starts_with('-') && !text.ends_with('-')
    };
    let help = "use 1 to 63 lowercase letters, digits and hyphens, such as repomind-edge";
    checked(entry, entry.text("repomind-edge")?, good, "name of a worker", help)
}

fn routes_of(entry: &Entry<'_>) -> Option<Vec<String>> {
    let texts = entry.texts("www.example.org/*")?;
    if texts.is_empty() || texts.len() > MOST {
        entry.source.refuse(entry.at(), format!("`routes` has {} of them", texts.len()), "name 1 to 100 patterns");
        return None;
    }
    let mut routes: Vec<String> = Vec::new();
    for text in texts {
        if let Err(why) = route(&text.value) {
            let help = "write host and path, such as www.example.org/*; a star may begin the host and end the path";
            entry.source.refuse(text.at, format!("{:?} is no pattern of a route: {why}", text.value), help);
        } else if routes.contains(&text.value) {
            entry.source.refuse(text.at, format!("{:?} stands twice", text.value), "keep one of the two");
        } else {
            routes.push(text.value);
        }
    }
    (!routes.is_empty()).then_some(routes)
}

/// The rules of <https://developers.cloudflare.com/workers/configuration/routing/routes/#validity>.
fn route(pattern: &str) -> Result<(), String> {
    let rest = pattern.strip_prefix("https://").or_else(|| pattern.strip_prefix("http://")).unwrap_or(pattern);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if pattern.contains(['?', '#']) {
        return Err("it has a query".to_owned());
    }
    if host.strip_prefix('*').unwrap_or(host).contains('*') {
        return Err("a star stands within the host".to_owned());
    }
    if path.strip_suffix('*').unwrap_or(path).contains('*') {
        return Err("a star stands within the path".to_owned());
    }
    let name = host.strip_prefix("*.").or_else(|| host.strip_prefix('*')).unwrap_or(host);
    if !is_host(name) {
        return Err(format!("{host:?} is no host name"));
    }
    if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a space stands within the path".to_owned());
    }
    Ok(())
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}

fn origins_of(entry: &Entry<'_>) -> Option<BTreeMap<RegionId, String>> {
    let mut origins = BTreeMap::new();
    let mut sound = true;
    for (name, value) in entry.named("us-east: https://gateway.us-east.example.org")? {
        let region = RegionId::new(&name.value);
        let Some(text) = value.text("https://gateway.us-east.example.org") else {
            sound = false;
            continue;
        };
        match (region, crate::url::api(&text.value)) {
            (Ok(region), Ok(url)) => drop(origins.insert(region, url)),
            (Err(error), _) => {
                entry.source.refuse(name.at, error.to_string(), "write the stem of the region's file");
                sound = false;
            }
            (_, Err(why)) => {
                let help = "write where the world reaches this region's gateway, such as https://eu.example.org";
                entry.source.refuse(text.at, format!("this is no usable URL: {why}"), help);
                sound = false;
            }
        }
    }
    sound.then_some(origins)
}

fn date_of(entry: &Entry<'_>) -> Option<String> {
    let good = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
        let [year, month, day] = parts.as_slice() else { return false };
        let within = |part: &str, most: u8| part.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n));
        digits(year, 4) && digits(month, 2) && digits(day, 2) && within(month, 12) && within(day, 31)
    };
    checked(entry, entry.text("2026-04-01")?, good, "date", "write it as \"2026-04-01\"")
}

/// A name in the worker: an identifier of JavaScript, in plain letters.
fn is_binding(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 64
}

const BINDING_HELP: &str = "use up to 64 letters, digits and underscores, such as OPERATOR_TOKEN";

fn secrets_of(entry: &Entry<'_>) -> Option<BTreeMap<String, SecretSource>> {
    let mut secrets = BTreeMap::new();
    let mut sound = true;
    for (name, value) in entry.named("OPERATOR_TOKEN: {env: OPERATOR_TOKEN}")? {
        if !is_binding(&name.value) {
            entry.source.refuse(name.at, format!("{:?} is no name of a binding", name.value), BINDING_HELP);
            sound = false;
            continue;
        }
        match value.table(SECRET_KEYS).and_then(|table| secret_of(&table)) {
            Some(secret) => drop(secrets.insert(name.value, secret)),
            None => sound = false,
        }
    }
    sound.then_some(secrets)
}

fn secret_of(table: &Table<'_>) -> Option<SecretSource> {
    let help = "write `env: NAME` or `file: PATH`; the secret itself does not belong here";
    let from = match (table.get("env"), table.get("file")) {
        (Some(entry), None) => {
            let good = |text: &str| !text.is_empty() && !text.contains(['=', '\0']);
            SecretPlace::Env(checked(&entry, entry.text("NAME")?, good, "environment variable", help)?)
        }
        (None, Some(entry)) => SecretPlace::File(PathBuf::from(entry.text("/run/secrets/name")?.value)),
        (Some(_), Some(second)) => {
            table.source.refuse(second.at(), "a secret comes from one place", help);
            return None;
        }
        (None, None) => {
            table.source.refuse(table.at, "it is not said where the secret is", help);
            return None;
        }
    };
    let revision = table.get("revision").map_or(Some(1), |entry| Some(entry.whole(1, u32::MAX)?.value));
    Some(SecretSource { from, revision: revision? })
}

fn kv_of(entry: &Entry<'_>) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for text in entry.texts("FLAGS")? {
        if names.contains(&text.value) || !is_binding(&text.value) {
            entry.source.refuse(text.at, format!("{:?} cannot name a namespace", text.value), BINDING_HELP);
        } else {
            names.push(text.value);
        }
    }
    Some(names)
}

fn balancer_of(entry: &Entry<'_>) -> Option<LoadBalancer> {
    let table = entry.table(BALANCER_KEYS)?;
    let help = "write the host name that it answers for, such as www.example.org";
    let name = table.need("hostname", help)?;
    let hostname = checked(&name, name.text("www.example.org")?, is_host, "host name", help);
    let steering = match table.get("steering") {
        None => Some(Steering::Failover),
        Some(entry) => match entry.text("failover")?.value.as_str() {
            "failover" => Some(Steering::Failover),
            "country" => Some(Steering::Country),
            other => {
                let message = format!("{other:?} is no way to choose a region");
                entry.source.refuse(entry.at(), message, "write `failover` or `country`");
                None
            }
        },
    };
    let health = match table.get("health") {
        Some(entry) => health_of(&entry.table(HEALTH_KEYS)?),
        None => {
            Some(Health { path: "/healthz".to_owned(), interval: 60, timeout: 5, retries: 2, codes: "2xx".to_owned() })
        }
    };
    Some(LoadBalancer { hostname: hostname?, steering: steering?, health: health? })
}

fn health_of(table: &Table<'_>) -> Option<Health> {
    let number = |key: &str, low, high, standard| match table.get(key) {
        Some(entry) => entry.whole(low, high).map(|found| found.value),
        None => Some(standard),
    };
    let path =
        table.get("path").map_or_else(|| Some("/healthz".to_owned()), |entry| path_of(&entry, entry.text("/healthz")?));
    let codes = match table.get("codes") {
        None => Some("2xx".to_owned()),
        Some(entry) => {
            let good = |text: &str| {
                text.len() == 3
                    && text.as_bytes()[0].is_ascii_digit()
                    && text.bytes().skip(1).all(|b| b.is_ascii_digit() || b == b'x')
            };
            checked(&entry, entry.text("2xx")?, good, "range of statuses", "write such as 2xx or 200")
        }
    };
    Some(Health {
        path: path?,
        interval: number("interval", 10, 3600, 60)?,
        timeout: number("timeout", 1, 10, 5)?,
        retries: number("retries", 0, 5, 2)?,
        codes: codes?,
    })
}

fn path_of(entry: &Entry<'_>, text: Located<String>) -> Option<String> {
    let good = |text: &str| text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
    checked(entry, text, good, "path", "write it from the first slash on, such as /healthz")
}

fn standard_canary() -> Canary {
    Canary { percent: 10, probes: 20, seconds: 120, paths: vec!["/".to_owned()], url: None }
}

fn canary_of(table: &Table<'_>) -> Option<Canary> {
    let standard = standard_canary();
    let number = |key: &str, low, high, standard| match table.get(key) {
        Some(entry) => entry.whole(low, high).map(|found| found.value),
        None => Some(standard),
    };
    let paths = match table.get("paths") {
        None => Some(standard.paths),
        Some(entry) => {
            let texts = entry.texts("/")?;
            texts.into_iter().take(MOST).map(|text| path_of(&entry, text)).collect()
        }
    };
    let url = match table.get("url") {
        None => Some(None),
        Some(entry) => {
            let text = entry.text("https://www.example.org")?;
            match crate::url::api(&text.value) {
                Ok(url) => Some(Some(url)),
                Err(why) => {
                    entry.source.refuse(
                        text.at,
                        format!("this is no usable URL: {why}"),
                        "write where the worker is reached",
                    );
                    None
                }
            }
        }
    };
    Some(Canary {
        percent: number("percent", 0, 99, standard.percent)?,
        probes: number("probes", 1, 1000, standard.probes)?,
        seconds: number("seconds", 1, 3600, standard.seconds)?,
        paths: paths?,
        url: url?,
    })
}
