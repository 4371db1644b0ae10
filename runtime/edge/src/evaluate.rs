//! The reference: what an edge must answer, as a pure function of the form, the request, and what is known by then.
//!
//! In order: a path that means another one is refused; every rate limit that matches counts, and the first that is
//! used up answers 429; the first guard that matches answers 401 or 403; then the cache rule says whether the answer
//! is looked up, under which key, and the route says which regions are asked. When an answer comes, [`answer::keep`]
//! says whether it is stored, for how long and under which tags. [`edge::Edge`] puts the steps together, with a
//! cache, buckets and breakers in memory.

pub mod answer;
pub mod edge;
pub mod limit;
pub mod text;
pub mod token;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use model::edge::{CacheRule, EdgeAuth, EdgeRoute, KeyPart, LimitKey, Proof, RateLimit, Request};
use model::{Country, RegionId, RuleId};

use crate::form::{Form, Rule};

/// A request as it reaches the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The method, in capitals.
    pub method: String,
    /// The host asked for, as sent.
    pub host: String,
    /// Path and query, as sent.
    pub target: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The client's country, where it is known.
    pub country: Option<Country>,
    /// The client's address.
    pub client: String,
}

impl Asked {
    /// The query without its question mark; empty where there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The host in lower case and without port.
    pub fn host_name(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
            _ => host,
        }
    }
}

impl Request for Asked {
    fn method(&self) -> &str {
        &self.method
    }
    fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }
    fn header(&self, name: &str) -> Option<String> {
        if name == "host" {
            return Some(self.host.clone());
        }
        let lines: Vec<&str> =
            self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
        (!lines.is_empty()).then(|| lines.join(between(name)))
    }
}

/// What stands between the lines of a header. HTTP/2 has each cookie in a line of its own (RFC 9113, section 8.2.3).
pub fn between(name: &str) -> &'static str {
    if name == "cookie" { "; " } else { ", " }
}

/// Where an edge stands, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The region whose law governs it; none for a network that keeps answers in every country.
    pub region: Option<RegionId>,
    /// The duties that it fulfils for what it keeps.
    pub duties: BTreeSet<RuleId>,
}

impl Place {
    /// A worldwide network, such as Cloudflare's.
    pub fn worldwide() -> Self {
        Self::default()
    }

    /// A cache in memory on machines of this region: nothing of it is ever at rest.
    pub fn in_memory(region: RegionId) -> Self {
        let duty = RuleId::new("encrypt-at-rest").expect("a fixed name");
        Self { region: Some(region), duties: BTreeSet::from([duty]) }
    }
}

/// Why a request is not looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// No rule is about it.
    NoRule,
    /// Its rule says so, or keeps nothing.
    Rule,
    /// Its method changes something, or is not GET or HEAD.
    Method,
    /// It shows who asks, so that its answer is for one user.
    Authorization,
    /// It asks for a part.
    Range,
    /// It wants another protocol.
    Upgrade,
    /// A guard left the verification to the origin.
    OriginVerifies,
}

impl Bypass {
    /// The word in `Cache-Status` and in explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRule => "no-rule",
            Self::Rule => "rule",
            Self::Method => "method",
            Self::Authorization => "authorization",
            Self::Range => "range",
            Self::Upgrade => "upgrade",
            Self::OriginVerifies => "origin-verifies",
        }
    }
}

/// Whether and under which key an answer is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is not.
    Bypass(Bypass),
    /// Under this key.
    Key(String),
}

/// What the form says about a request, before anything is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'f> {
    /// The limits that count it, and the key of its bucket in each.
    pub limits: Vec<(&'f RateLimit, String)>,
    /// The guard.
    pub guard: Option<&'f EdgeAuth>,
    /// The cache rule that gives key and bypass.
    pub rule: Option<&'f Rule>,
    /// Whether it is looked up.
    pub lookup: Lookup,
    /// The route.
    pub route: &'f EdgeRoute,
    /// The regions to ask, best first, without those that are down; all of them where all are.
    pub regions: Vec<RegionId>,
}

/// The longest target, in bytes; what is longer is refused with 414.
pub const LONGEST_TARGET: usize = 8192;

/// Whether the path may mean another one to somebody behind the edge: dots that climb, characters whose meaning depends
/// on who decodes them, and letters and digits that are encoded, as nobody does who means well (RFC 3986, section 2.3).
/// Such a request is refused with 400, because a rule for the one would keep the other.
pub fn is_devious(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%00", "\\"].iter().any(|bad| lower.contains(bad));
    let octet = |digits: &str| u8::from_str_radix(digits.get(..2)?, 16).ok();
    let disguised = lower.split('%').skip(1).filter_map(octet).any(|octet| octet.is_ascii_alphanumeric());
    encoded || disguised || lower.contains("//") || lower.split('/').any(|part| part == "." || part == "..")
}

/// What the form says about a request.
pub fn plan<'f>(form: &'f Form, asked: &Asked, down: &BTreeSet<RegionId>) -> Plan<'f> {
    let guard = form.auth.iter().find(|auth| guards(auth, asked));
    let rule = form.rules.iter().find(|rule| !rule.rule.refines() && rule.rule.matches(asked));
    let route = form.routes.iter().find(|route| route.when.holds(asked)).expect("the last route matches everything");
    let order = if route.regions.is_empty() { form.order(asked.country) } else { &route.regions };
    let up: Vec<RegionId> = order.iter().filter(|region| !down.contains(*region)).cloned().collect();
    let limits = form.limits.iter().filter(|limit| limit.when.holds(asked));
    Plan {
        limits: limits.map(|limit| (limit, limit_key(limit, asked))).collect(),
        guard,
        rule,
        lookup: lookup(rule.map(|rule| &rule.rule), asked),
        route,
        regions: if up.is_empty() { order.to_vec() } else { up },
    }
}

/// Whether the guard is about this request.
pub fn guards(auth: &EdgeAuth, asked: &Asked) -> bool {
    auth.when.holds(asked) && !auth.except.iter().any(|open| asked.path().starts_with(open.as_str()))
}

/// The name of a request's bucket.
pub fn limit_key(limit: &RateLimit, asked: &Asked) -> String {
    match &limit.key {
        LimitKey::Client => whole(&asked.client),
        LimitKey::Country => asked.country.map_or_else(|| "XX".to_owned(), |country| country.to_string()),
        LimitKey::Everyone => "everyone".to_owned(),
        LimitKey::Header(name) => asked.header(name).unwrap_or_default(),
    }
}

/// Who counts as one client: an IPv4 address, or all of a /64 of IPv6, which is what one subscriber has.
fn whole(client: &str) -> String {
    match client.parse::<Ipv6Addr>().map(|address| address.to_bits() >> 64 << 64) {
        Ok(network) => Ipv6Addr::from_bits(network).to_string(),
        Err(_) => client.to_owned(),
    }
}

fn lookup(rule: Option<&CacheRule>, asked: &Asked) -> Lookup {
    let has = |name| asked.header(name).is_some();
    let why = match rule {
        _ if !matches!(asked.method.as_str(), "GET" | "HEAD") => Bypass::Method,
        _ if has("upgrade") => Bypass::Upgrade,
        None => Bypass::NoRule,
        Some(rule) if rule.bypass || rule.edge_ttl_seconds == 0 => Bypass::Rule,
        Some(_) if has("authorization") => Bypass::Authorization,
        Some(_) if has("range") => Bypass::Range,
        Some(rule) => return Lookup::Key(key(rule, asked)),
    };
    Lookup::Bypass(why)
}

/// The cache key: its parts by name, with one space between them. Spaces in values are escaped, so that two requests
/// have one key only where all parts are equal.
pub fn key(rule: &CacheRule, asked: &Asked) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in &rule.key {
        parts.push(match part {
            KeyPart::Host => format!("host={}", text::escaped(&asked.host_name())),
            KeyPart::Path => format!("path={}", asked.path()),
            KeyPart::Query => format!("query={}", text::sorted(asked.query(), &[])),
            KeyPart::QueryExcept(names) => format!("query={}", text::sorted(asked.query(), names)),
            KeyPart::QueryOnly(names) => format!("query={}", text::only(asked.query(), names)),
            KeyPart::Header(name) => {
                format!("header:{name}={}", text::escaped(&asked.header(name).unwrap_or_default()))
            }
            KeyPart::Cookie(name) => {
                format!("cookie:{name}={}", text::escaped(&asked.cookie(name).unwrap_or_default()))
            }
            KeyPart::Country => format!("country={}", asked.country.map_or("XX".to_owned(), |c| c.to_string())),
        });
    }
    for vary in &rule.vary {
        let value = asked.header(&vary.header).unwrap_or_default();
        parts.push(format!("vary:{}={}", vary.header, text::normalised(&value, &vary.values)));
    }
    parts.join(" ")
}

/// Whether a guard is of the kind that an edge without cryptography leaves to the origin.
pub fn left_to_origin(auth: &EdgeAuth) -> bool {
    auth.origin_may_verify && matches!(auth.proof, Proof::Token { .. })
}
