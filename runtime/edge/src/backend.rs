//! What each kind of edge can do, and the programs made for it.

pub mod nginx;
pub mod varnish;

use std::fmt;

pub use model::edge::Backend;
use model::edge::{LimitScope, Proof, RateLimit};
use model::record::DataClass;

use crate::compile::Complaint;
use crate::form::Form;

/// Headers that services take for another host, scheme, path or method than the request has. Nobody may choose what
/// others get by them, so that answers that are shared are fetched without those that are not in the key. The worker
/// has the same list (`TAKEN_FOR_OTHERS` in `worker.ts`).
pub const TAKEN_FOR_OTHERS: [&str; 17] = [
    "forwarded",
    "front-end-https",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-host",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-url-scheme",
];

/// What of the form a kind of edge cannot do. Those that are not reducible forbid its use.
pub fn complaints(backend: Backend, form: &Form) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut add = |form: &'static str, name: &dyn fmt::Display, key, what: &str, help: &str, reducible| {
        let message = format!("`{name}` asks for what {backend} cannot do: {what}");
        found.push(Complaint { form, name: name.to_string(), key, message, help: help.to_owned(), reducible });
    };
    for (region, url) in
        form.origins.iter().filter(|(_, url)| backend != Backend::Cloudflare && !url.starts_with("http://"))
    {
        let help =
            "give it an http:// address beside the cache, such as that of a local TLS proxy: --origin REGION=URL";
        add("define-edge-route", region, "regions", &format!("it reaches {url} over http:// only"), help, false);
    }
    for limit in &form.limits {
        if let Some((key, what, help)) = limit_trouble(backend, limit) {
            add("define-rate-limit", &limit.name, key, what, help, false);
        }
    }
    for auth in &form.auth {
        let help = "guard it with (where . edge-or-origin), so that the origin verifies, or build for cloudflare";
        match auth.proof {
            _ if backend == Backend::Cloudflare => {}
            Proof::Token { .. } if auth.origin_may_verify => {}
            Proof::Token { .. } => {
                add("define-edge-auth", &auth.name, "where", "it verifies no signatures", help, false)
            }
            Proof::SignedUrl { .. } => {
                let what = "it verifies no signatures";
                add("define-edge-auth", &auth.name, "signed-urls", what, "serve these paths through cloudflare", false);
            }
        }
    }
    let rules = form.rules.iter().filter(|rule| !nginx::is_personal_bypass(&rule.rule));
    let rules = rules.map(|rule| ("define-cache-rule", &rule.rule.name, &rule.rule.when));
    let limits = form.limits.iter().map(|limit| ("define-rate-limit", &limit.name, &limit.when));
    for (what, name, when) in rules.chain(limits).filter(|_| backend == Backend::Nginx) {
        if !when.headers.is_empty() || !when.cookies.is_empty() {
            let why = "it chooses by method and path alone";
            add(what, name, "header", why, "match by path, or build for another backend", false);
        }
    }
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| !rule.bypass && rule.edge_ttl_seconds > 0) {
        if backend == Backend::Cloudflare && (rule.class.is_personal() || rule.class == DataClass::Credentials) {
            let what =
                format!("its caches are in every country, and data of class `{}` is bound to regions", rule.class);
            let help = "bypass the cache for it, or serve it through varnish in a region that may hold it";
            add("define-cache-rule", &rule.name, "class", &what, help, false);
        }
        if backend == Backend::Nginx {
            for (key, what) in nginx::reductions(form, rule) {
                add("define-cache-rule", &rule.name, key, &what, "build with --reduced to do without", true);
            }
        }
    }
    found
}

fn limit_trouble(backend: Backend, limit: &RateLimit) -> Option<(&'static str, &'static str, &'static str)> {
    match (backend, limit.scope) {
        (Backend::Cloudflare, LimitScope::Coarse) if !matches!(limit.per_seconds, 10 | 60) => {
            Some(("per", "coarse limits count in windows of 10 or 60 seconds", "use (per . 60), or (scope . exact)"))
        }
        (Backend::Cloudflare, LimitScope::Coarse) if limit.burst != limit.rate => {
            Some(("burst", "coarse limits have no burst of their own", "leave `burst` out, or use (scope . exact)"))
        }
        (Backend::Varnish | Backend::Nginx, LimitScope::Exact) => {
            Some(("scope", "each instance counts by itself", "use (scope . coarse), or serve it through cloudflare"))
        }
        (Backend::Nginx, _) if nginx::rate(limit).is_none() => {
            Some(("per", "rates are whole requests a second or a minute", "use (per . 1) or (per . 60)"))
        }
        _ => None,
    }
}
