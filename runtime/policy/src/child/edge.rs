//! `define-cache-rule`, `define-rate-limit`, `define-edge-auth`, `define-edge-route` and `define-edge-backends`: what a
//! policy file declares for the edge.
//!
//! Texts end up in programs (VCL, nginx, JSON), so that what may stand in them is narrow here, where the operator can
//! still be shown the line.

use model::edge::{
    Algorithm, Backend, CacheRule, EdgeAuth, EdgeRoute, KeyPart, LimitKey, LimitScope, Named, Proof, RateLimit,
    RequestMatch, UsedBackend, Vary,
};
use model::record::DataClass;
use steel::rvals::SteelVal;

use super::declare::{Ledger, Misfit, known_regions};
use super::values::{Alist, Scheme, count, fault, items, name, region_id, rule, shown};

/// The most rules, limits, guards and routes of one tree.
const MOST: usize = 200;
/// The most parts of one list: paths, tags, headers, key parts.
const MOST_PARTS: usize = 32;
/// The longest text, in bytes.
const LONGEST: usize = 256;
/// The longest time, in seconds: a year, as RFC 2616 had it.
const LONGEST_TIME: u32 = 31_536_000;
/// The most requests of a rate, and the longest window in seconds.
const MOST_RATE: u32 = 1_000_000;
const LONGEST_WINDOW: u32 = 86_400;

const MATCH_KEYS: [&str; 5] = ["path", "path-ends", "method", "header", "cookie"];

/// The keys of a form: those of matching, and its own.
fn keys(value: &SteelVal, own: &[&str]) -> Scheme<Alist> {
    let known: Vec<&str> = MATCH_KEYS.iter().chain(own).copied().collect();
    Alist::read(value, &known)
}

/// A name that is not taken yet.
fn fresh<'a>(
    what: &str,
    given: &SteelVal,
    taken: impl ExactSizeIterator<Item = &'a model::RuleId>,
) -> Scheme<model::RuleId> {
    let called = rule(given)?;
    // It becomes a part of tags and of comments in programs.
    if !called.as_str().chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(fault(format!("`{called}`: use letters, digits, and - _ . in the name of a {what}")));
    }
    if taken.len() >= MOST {
        return Err(fault(format!("at most {MOST} of a kind can be defined")));
    }
    let mut taken = taken;
    if taken.any(|other| *other == called) {
        return Err(fault(format!("the {what} `{called}` is already defined; choose another name")));
    }
    Ok(called)
}

/// `(define-cache-rule 'name '((path . "/assets/") …))`.
pub fn cache_rule(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    let called = fresh("cache rule", &given[0], ledger.edge.rules.iter().map(|rule| &rule.name))?;
    let keys = keys(
        &given[1],
        &[
            "status",
            "content-type",
            "bypass",
            "edge-ttl",
            "browser-ttl",
            "stale-while-revalidate",
            "stale-if-error",
            "key",
            "vary",
            "tags",
            "class",
        ],
    )?;
    let time = |key| keys.one(key, |value| bounded(value, 0, LONGEST_TIME, "seconds")).map(Option::unwrap_or_default);
    let class =
        keys.one("class", |value| name(value)?.parse::<DataClass>().map_err(|error| fault(error.to_string())))?;
    let rule = CacheRule {
        name: called,
        when: matching(&keys)?,
        statuses: keys
            .some("status", |value| Ok(bounded(value, 200, 499, "are the statuses that can be stored")? as u16))?
            .unwrap_or_default(),
        content_types: keys
            .some("content-type", |value| text(value, &|c| lower(c) || "/+.*-".contains(c)))?
            .unwrap_or_default(),
        bypass: keys.one("bypass", truth)?.unwrap_or(false),
        edge_ttl_seconds: time("edge-ttl")?,
        browser_ttl_seconds: time("browser-ttl")?,
        stale_while_revalidate_seconds: time("stale-while-revalidate")?,
        stale_if_error_seconds: time("stale-if-error")?,
        key: keys.entries("key", key_part)?.unwrap_or_else(|| vec![KeyPart::Host, KeyPart::Path, KeyPart::Query]),
        vary: keys.entries("vary", vary)?.unwrap_or_default(),
        tags: keys
            .some("tags", |value| text(value, &|c| c.is_ascii_graphic() && !"\",\\".contains(c)))?
            .unwrap_or_default(),
        class: class.unwrap_or(DataClass::Public),
    };
    few("key", rule.key.len())?;
    few("vary", rule.vary.len())?;
    let query = |part: &&KeyPart| matches!(part, KeyPart::Query | KeyPart::QueryOnly(_) | KeyPart::QueryExcept(_));
    if rule.key.iter().filter(query).count() > 1 {
        return Err(fault("`key` speaks of the query twice; name all parameters in one (query …) or (query-except …)"));
    }
    if rule.when.paths.is_empty() && rule.when.suffixes.is_empty() {
        return Err(fault("`path` must begin with /; it matches every path that begins so"));
    }
    if rule.refines() && (rule.bypass || keys.has("key") || keys.has("vary")) {
        return Err(fault(
            "`key`, `vary` and `bypass` are needed before the answer is known, `status` and `content-type` are known \
             with it; give them in a rule for the same requests without `status` and `content-type`",
        ));
    }
    if rule.edge_ttl_seconds == 0 && rule.stale_while_revalidate_seconds + rule.stale_if_error_seconds > 0 {
        return Err(fault(
            "`stale-while-revalidate` and `stale-if-error` need an `edge-ttl`; what is never stored is never stale",
        ));
    }
    if !rule.bypass && rule.when.methods.iter().any(|method| method != "GET" && method != "HEAD") {
        return Err(fault("`method`: only answers to GET and HEAD are stored; say (bypass . #t) for the others"));
    }
    ledger.edge.rules.push(rule);
    Ok(())
}

/// `(define-rate-limit 'name '((path . "/v1/") (key . client) (rate . 100) (per . 60)))`.
pub fn rate_limit(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    let called = fresh("rate limit", &given[0], ledger.edge.limits.iter().map(|limit| &limit.name))?;
    let keys = keys(&given[1], &["key", "rate", "per", "burst", "scope"])?;
    let amount = |key| keys.one(key, |value| bounded(value, 1, MOST_RATE, "requests"));
    let rate = amount("rate")?.ok_or_else(|| fault("`rate` is missing: so many requests"))?;
    let shared = match keys.some("key", |value| Ok(value.clone()))?.as_deref() {
        None => LimitKey::Client,
        Some([one]) => limit_key(one)?,
        Some([word, rest]) => limit_key(&super::values::list([word.clone(), rest.clone()]))?,
        Some(_) => return Err(fault("`key`: use client, country, everyone or (header \"x-name\")")),
    };
    let limit = RateLimit {
        name: called,
        when: matching(&keys)?,
        key: shared,
        rate,
        per_seconds: keys
            .one("per", |value| bounded(value, 1, LONGEST_WINDOW, "seconds"))?
            .ok_or_else(|| fault("`per` is missing: in so many seconds"))?,
        burst: amount("burst")?.unwrap_or(rate),
        scope: keys
            .one("scope", |value| match name(value)? {
                "coarse" => Ok(LimitScope::Coarse),
                "exact" => Ok(LimitScope::Exact),
                other => Err(fault(format!("there is no scope `{other}`; use coarse or exact"))),
            })?
            .unwrap_or(LimitScope::Coarse),
    };
    ledger.edge.limits.push(limit);
    Ok(())
}

fn limit_key(value: &SteelVal) -> Scheme<LimitKey> {
    if let SteelVal::ListV(_) = value {
        return match items(value)?.as_slice() {
            [word, header] if name(word)? == "header" => Ok(LimitKey::Header(header_name(header)?)),
            _ => Err(fault(format!("use client, country, everyone or (header \"x-name\"), found {}", shown(value)))),
        };
    }
    match name(value)? {
        "client" => Ok(LimitKey::Client),
        "country" => Ok(LimitKey::Country),
        "everyone" => Ok(LimitKey::Everyone),
        other => Err(fault(format!(
            "there is no `{other}` to count by; use client, country, everyone or (header \"x-name\")"
        ))),
    }
}

/// `(define-edge-auth 'name '((path . "/v1/") (issuers …) (audiences …) (algorithms …) (jwks . "https://…")))`.
pub fn edge_auth(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    let called = fresh("guard", &given[0], ledger.edge.auth.iter().map(|auth| &auth.name))?;
    let keys = keys(&given[1], &["except", "issuers", "audiences", "algorithms", "jwks", "signed-urls", "where"])?;
    let plain = |value: &SteelVal| text(value, &|c| c.is_ascii_graphic() && !"\"\\".contains(c));
    let signed = keys.entries("signed-urls", |value| Ok(value.clone()))?.map(super::values::list);
    let proof = match signed {
        Some(signed) => {
            if ["issuers", "audiences", "algorithms", "jwks"].iter().any(|key| keys.has(key)) {
                return Err(fault("`signed-urls` and tokens are two guards; define one for each"));
            }
            let keys = Alist::read(&signed, &["secret", "signature", "expires"])?;
            let word = |key| keys.one(key, |value| text(value, &token));
            Proof::SignedUrl {
                secret: word("secret")?.ok_or_else(|| fault("`secret` is missing: the name of the secret"))?,
                signature: word("signature")?.unwrap_or_else(|| "sig".to_owned()),
                expires: word("expires")?.unwrap_or_else(|| "exp".to_owned()),
            }
        }
        None => {
            let list = |key: &'static str| {
                let found = keys.some(key, plain)?.unwrap_or_default();
                if found.is_empty() {
                    Err(fault(format!("`{key}` is missing; a guard needs issuers, audiences and jwks, or signed-urls")))
                } else {
                    Ok(found)
                }
            };
            Proof::Token {
                issuers: list("issuers")?,
                audiences: list("audiences")?,
                algorithms: keys
                    .some("algorithms", algorithm)?
                    .filter(|all| !all.is_empty())
                    .unwrap_or_else(|| vec![Algorithm::ES256]),
                jwks: keys.one("jwks", jwks)?.ok_or_else(|| fault("`jwks` is missing: where the keys are"))?,
            }
        }
    };
    let auth = EdgeAuth {
        name: called,
        when: matching(&keys)?,
        except: keys.some("except", path)?.unwrap_or_default(),
        proof,
        origin_may_verify: keys
            .one("where", |value| match name(value)? {
                "edge" => Ok(false),
                "edge-or-origin" => Ok(true),
                other => Err(fault(format!("there is no `{other}`; use edge or edge-or-origin"))),
            })?
            .unwrap_or(false),
    };
    if auth.origin_may_verify && matches!(auth.proof, Proof::SignedUrl { .. }) {
        return Err(fault("`where`: no origin verifies signed URLs; use edge"));
    }
    ledger.edge.auth.push(auth);
    Ok(())
}

/// `(define-edge-route 'name '((path . "/") (attempts . 2)))`.
pub fn edge_route(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    let called = fresh("route", &given[0], ledger.edge.routes.iter().map(|route| &route.name))?;
    let keys = keys(&given[1], &["regions", "attempts", "break-after", "break-for", "timeout"])?;
    let whole = |key, least, most, unit| keys.one(key, |value| bounded(value, least, most, unit));
    let route = EdgeRoute {
        name: called,
        when: matching(&keys)?,
        regions: keys.some("regions", region_id)?.unwrap_or_default(),
        attempts: whole("attempts", 1, 8, "regions")?.unwrap_or(2) as u8,
        break_after: whole("break-after", 1, 100, "failures")?.unwrap_or(5),
        break_seconds: whole("break-for", 1, 3600, "seconds")?.unwrap_or(10),
        timeout_ms: whole("timeout", 10, 120_000, "ms")?.unwrap_or(10_000),
    };
    if (1..route.regions.len()).any(|at| route.regions[..at].contains(&route.regions[at])) {
        return Err(fault("`regions`: a region stands twice"));
    }
    ledger.edge_file.clone_from(&ledger.file);
    ledger.edge.routes.push(route);
    Ok(())
}

/// `(define-edge-backends 'cloudflare 'varnish 'nginx-reduced)`.
pub fn edge_backends(ledger: &mut Ledger, given: &[SteelVal]) -> Scheme<()> {
    if !ledger.edge.backends.is_empty() {
        return Err(fault("the kinds of edge in use are already defined; name all of them in one place"));
    }
    let mut used: Vec<UsedBackend> = Vec::new();
    for value in given {
        let word = name(value)?;
        let (backend, reduced) = match word.strip_suffix("-reduced") {
            Some(bare) => (bare, true),
            None => (word, false),
        };
        let backend = Backend::ALL.into_iter().find(|known| known.name() == backend);
        // Only nginx does less than it is asked for, and still serves correctly.
        let backend = backend.filter(|known| !reduced || *known == Backend::Nginx).ok_or_else(|| {
            fault(format!("there is no kind of edge `{word}`; use cloudflare, varnish, nginx or nginx-reduced"))
        })?;
        if used.iter().any(|other| other.backend == backend) {
            return Err(fault(format!("`{backend}` stands twice; keep one of the two")));
        }
        used.push(UsedBackend { backend, reduced });
    }
    ledger.edge.backends = used;
    Ok(())
}

impl Ledger {
    /// What routes name and does not exist.
    pub fn edge_misfits(&self, regions: &std::collections::BTreeSet<model::RegionId>) -> Vec<Misfit> {
        let strangers = self.edge.routes.iter().flat_map(|route| &route.regions).filter(|id| !regions.contains(*id));
        let misfit = |id: &model::RegionId| Misfit {
            file: self.edge_file.clone(),
            form: "define-edge-route",
            message: format!("there is no region `{id}`"),
            help: known_regions(regions),
        };
        strangers.map(misfit).collect()
    }
}

fn matching(keys: &Alist) -> Scheme<RequestMatch> {
    let plain = |c: char| c.is_ascii_graphic() && !"\"\\?#".contains(c);
    let found = RequestMatch {
        paths: keys.some("path", path)?.unwrap_or_default(),
        suffixes: keys.some("path-ends", |value| text(value, &plain))?.unwrap_or_default(),
        methods: keys.some("method", |value| text(&value.clone(), &|c| c.is_ascii_uppercase()))?.unwrap_or_default(),
        headers: keys.entries("header", |value| named(value, &header_name))?.unwrap_or_default(),
        cookies: keys.entries("cookie", |value| named(value, &|name| text(name, &token)))?.unwrap_or_default(),
    };
    few("header", found.headers.len())?;
    few("cookie", found.cookies.len())?;
    Ok(found)
}

/// `"x-preview"` or `("x-tier" . "gold")`.
fn named(value: &SteelVal, read: &dyn Fn(&SteelVal) -> Scheme<String>) -> Scheme<Named> {
    let content = |value: &SteelVal| text(value, &|c| (c.is_ascii_graphic() || c == ' ') && !"\"\\;,".contains(c));
    match value {
        SteelVal::Pair(pair) => Ok(Named { name: read(&pair.car())?, value: Some(content(&pair.cdr())?) }),
        SteelVal::ListV(_) => match items(value)?.as_slice() {
            [called, wanted] => Ok(Named { name: read(called)?, value: Some(content(wanted)?) }),
            _ => Err(fault(format!("expected a name or (name . value), found {}", shown(value)))),
        },
        bare => Ok(Named { name: read(bare)?, value: None }),
    }
}

fn key_part(value: &SteelVal) -> Scheme<KeyPart> {
    if !matches!(value, SteelVal::ListV(_)) {
        return match name(value)? {
            "host" => Ok(KeyPart::Host),
            "path" => Ok(KeyPart::Path),
            "query" => Ok(KeyPart::Query),
            "country" => Ok(KeyPart::Country),
            other => Err(fault(format!(
                "`{other}` is no part of a key; use host, path, query, country, (query \"a\"), (query-except \"a\"), \
                 (header \"x-name\") or (cookie \"name\")"
            ))),
        };
    }
    let parts = items(value)?;
    let (word, rest) = parts.split_first().ok_or_else(|| fault("an empty part of a key"))?;
    let parameters = || rest.iter().map(|value| text(value, &token)).collect::<Scheme<Vec<_>>>();
    few("key", rest.len())?;
    match (name(word)?, rest) {
        ("query", [_, ..]) => Ok(KeyPart::QueryOnly(parameters()?)),
        ("query-except", [_, ..]) => Ok(KeyPart::QueryExcept(parameters()?)),
        ("header", [header]) => {
            let header = header_name(header)?;
            match header.as_str() {
                "authorization" | "proxy-authorization" => Err(fault(format!(
                    "`{header}` makes a key for each user; answers to those who show it are not stored"
                ))),
                "cookie" => Err(fault("name the cookie: (cookie \"name\")")),
                "accept-encoding" => Err(fault(ENCODING)),
                _ => Ok(KeyPart::Header(header)),
            }
        }
        ("cookie", [cookie]) => Ok(KeyPart::Cookie(text(cookie, &token)?)),
        _ => Err(fault(format!("expected a part of a key, found {}", shown(value)))),
    }
}

const ENCODING: &str = "`accept-encoding` is looked after by the edge itself; leave it out";

/// `("accept-language" "en" "de")`.
fn vary(value: &SteelVal) -> Scheme<Vary> {
    let parts = items(value)?;
    let (header, values) = parts.split_first().ok_or_else(|| fault("an empty entry"))?;
    let header = header_name(header)?;
    if header == "accept-encoding" {
        return Err(fault(ENCODING));
    }
    if matches!(header.as_str(), "cookie" | "authorization") {
        return Err(fault(format!("answers that vary by `{header}` belong to one user; bypass them")));
    }
    let values = values.iter().map(|value| text(value, &|c| lower(c) || "-/+.".contains(c)));
    let values = values.collect::<Scheme<Vec<_>>>()?;
    few("vary", values.len())?;
    if values.is_empty() {
        return Err(fault(format!("`{header}`: name the values to be told apart, preferred ones first")));
    }
    Ok(Vary { header, values })
}

fn algorithm(value: &SteelVal) -> Scheme<Algorithm> {
    match name(value)? {
        "ES256" => Ok(Algorithm::ES256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        "RS256" => Ok(Algorithm::RS256),
        other => Err(fault(format!("tokens signed with `{other}` are not taken; use ES256, EdDSA or RS256"))),
    }
}

fn jwks(value: &SteelVal) -> Scheme<String> {
    let url = text(value, &|c| c.is_ascii_graphic() && !"\"\\".contains(c))?;
    let near = ["http://127.", "http://localhost", "http://[::1]"].iter().any(|start| url.starts_with(start));
    if near || url.starts_with("https://") {
        Ok(url)
    } else {
        Err(fault(format!("keys are fetched over https://, found {url}")))
    }
}

fn path(value: &SteelVal) -> Scheme<String> {
    let path = text(value, &|c| c.is_ascii_graphic() && !"\"\\?#".contains(c))?;
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(fault("it must begin with /; it matches every path that begins so"))
    }
}

fn header_name(value: &SteelVal) -> Scheme<String> {
    Ok(text(value, &token)?.to_ascii_lowercase())
}

/// A character of a token, RFC 9110 section 5.6.2, as far as names use it.
fn token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn text(value: &SteelVal, allowed: &dyn Fn(char) -> bool) -> Scheme<String> {
    let text = name(value)?;
    if text.is_empty() || text.len() > LONGEST {
        return Err(fault(format!("a text here has 1 to {LONGEST} characters; this one has {}", text.len())));
    }
    match text.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(fault(format!("{c:?} cannot stand here, found {}", shown(value)))),
        None => Ok(text.to_owned()),
    }
}

fn truth(value: &SteelVal) -> Scheme<bool> {
    match value {
        SteelVal::BoolV(truth) => Ok(*truth),
        other => Err(fault(format!("expected #t or #f, found {}", shown(other)))),
    }
}

fn bounded(value: &SteelVal, least: u32, most: u32, unit: &str) -> Scheme<u32> {
    let whole = count(value)?;
    let found = u32::try_from(whole).ok().filter(|whole| (least..=most).contains(whole));
    found.ok_or_else(|| fault(format!("{} to {} {unit}, found {whole}", least, most).replace(" ,", ",")))
}

fn few(key: &str, found: usize) -> Scheme<()> {
    if found <= MOST_PARTS {
        Ok(())
    } else {
        Err(fault(format!("`{key}` has {found} parts; at most {MOST_PARTS} are taken")))
    }
}
