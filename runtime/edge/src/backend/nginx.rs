//! The form as an nginx configuration, reduced.
//!
//! nginx without modules has no tags to purge by, no windows of staleness, and does not sort queries; what a form asks
//! of these is left out only where [`reductions`] is agreed to. What protects (guards, limits, residency, bypasses) is
//! never left out: such a form is refused by [`super::Backend::complaints`].

use std::fmt::Write as _;

use model::RegionId;
use model::edge::{CacheRule, KeyPart, LimitKey, RateLimit, RequestMatch};

use crate::form::Form;

/// What of a rule nginx does without, by key and in words.
pub fn reductions(form: &Form, rule: &CacheRule) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if !rule.tags.is_empty() {
        found.push(("tags", "it purges by no tag".to_owned()));
    }
    if rule.stale_while_revalidate_seconds + rule.stale_if_error_seconds > 0 {
        found.push(("stale-while-revalidate", "it keeps stale answers without a window of time".to_owned()));
    }
    if !rule.content_types.is_empty() {
        found.push(("content-type", "it gives no times by content type".to_owned()));
    }
    let twin = |other: &&crate::form::Rule| !other.rule.refines() && other.rule.when == rule.when;
    if !rule.statuses.is_empty() && !form.rules.iter().any(|other| twin(&other)) {
        found
            .push(("status", "it gives times by status only where another rule is about the same requests".to_owned()));
    }
    if rule.key.iter().any(|part| matches!(part, KeyPart::QueryExcept(_))) {
        found.push(("key", "it leaves no parameter out of a query".to_owned()));
    }
    found
}

/// Whether a rule only says that requests with some header or cookie are not cached. nginx then caches none that has
/// it, whatever its path: less than is permitted, and never more.
pub fn is_personal_bypass(rule: &CacheRule) -> bool {
    rule.bypass && !(rule.when.headers.is_empty() && rule.when.cookies.is_empty())
}

/// A limit as nginx writes it: so many a second or a minute.
pub fn rate(limit: &RateLimit) -> Option<String> {
    let per_minute = u64::from(limit.rate) * 60;
    match limit.per_seconds {
        1 => Some(format!("{}r/s", limit.rate)),
        per if per_minute % u64::from(per) == 0 => Some(format!("{}r/m", per_minute / u64::from(per))),
        _ => None,
    }
}

/// For whom a configuration is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The region that the machine stands in.
    pub region: RegionId,
    /// What `listen` says: a port, or an address and a port.
    pub listen: String,
    /// Where answers are kept.
    pub cache: String,
}

/// The configuration: a file for `conf.d`, inside `http`. The form must have no complaint but reducible ones.
pub fn configuration(form: &Form, options: &Options) -> String {
    let Options { region, listen, cache } = options;
    let mut out = format!(
        "# Made by `repomind-run edge build --reduced` from edge-cache.scm, for nginx in {region}. Edit that file and not \
         this one.\n# Revision {}. Belongs inside http {{ }}.\n",
        form.revision
    );
    let left_out = form.rules.iter().flat_map(|rule| {
        reductions(form, &rule.rule)
            .into_iter()
            .map(move |(key, what)| format!("#   {}: `{key}`: {what}\n", rule.rule.name))
    });
    let left_out: String = left_out.collect();
    if !left_out.is_empty() {
        let _ = write!(out, "#\n# Left out, because nginx cannot do it:\n{left_out}");
    }
    let _ = write!(
        out,
        "\nproxy_cache_path {cache} levels=1:2 keys_zone=repomind:16m max_size=1g inactive=1d use_temp_path=off;\n\n"
    );
    upstreams(&mut out, form);
    maps(&mut out, form);
    zones(&mut out, form);
    server(&mut out, form, listen);
    out
}

/// One upstream an order of regions: the first is asked, the others in turn where it fails.
fn upstreams(out: &mut String, form: &Form) {
    let last = form.routes.last().expect("a last route");
    let default = std::iter::once(("default".to_owned(), &form.ranking.default));
    let others = form.ranking.orders.iter().enumerate().map(|(at, order)| (format!("order_{at}"), order));
    for (name, order) in default.chain(others) {
        let _ = writeln!(out, "upstream repomind_{name} {{");
        for (at, region) in order.iter().enumerate() {
            let url = form.origins.get(region).map_or("", |url| url.trim_start_matches("http://"));
            let backup = if at == 0 { "" } else { " backup" };
            let _ = writeln!(
                out,
                "  server {url} max_fails={} fail_timeout={}s{backup};  # {region}",
                last.break_after, last.break_seconds
            );
        }
        out.push_str("  keepalive 32;\n}\n\n");
    }
}

fn maps(out: &mut String, form: &Form) {
    out.push_str("# The country is believed from the load balancer only: strip this header in front of it.\n");
    out.push_str("map $http_repomind_country $repomind_upstream {\n  default repomind_default;\n");
    for (country, at) in &form.ranking.countries {
        let _ = writeln!(out, "  {country} repomind_order_{at};");
    }
    out.push_str("}\n\n");
    // Kept only where no class is stated, or one that is about nobody and may lie anywhere.
    let anywhere: Vec<&str> =
        model::record::DataClass::ALL
            .iter()
            .filter(|class| {
                form.residency.laws.keys().map(String::as_str).chain(["none", "other"]).all(|law| {
                    crate::evaluate::answer::holds(form, &crate::evaluate::Place::worldwide(), **class, law, 0)
                })
            })
            .map(|class| class.as_str())
            .collect();
    let own = form.rules.iter().map(|rule| &rule.rule).filter(|rule| is_personal_bypass(rule)).flat_map(|rule| {
        let headers = rule.when.headers.iter().map(|named| format!("$http_{}", variable(&named.name)));
        headers.chain(rule.when.cookies.iter().map(|named| format!("$cookie_{}", named.name)))
    });
    let own: String = own.chain(["$http_authorization".to_owned(), "$http_range".to_owned()]).collect();
    let _ = write!(
        out,
        "# What is for one user, or a part.\nmap \"{own}\" $repomind_own {{\n  \"\" \"\";\n  default 1;\n}}\n\n\
         # Answers that are shared must not see whose request fetched them.\n\
         map $repomind_own $repomind_cookies {{\n  \"\" \"\";\n  default $http_cookie;\n}}\n\n"
    );
    out.push_str("map $upstream_http_repomind_class $repomind_regulated {\n  default 1;\n  \"\" \"\";\n");
    for class in anywhere {
        let _ = writeln!(out, "  {class} \"\";");
    }
    out.push_str("}\n\n");
    let mut done: Vec<&model::edge::Vary> = Vec::new();
    for vary in form.rules.iter().flat_map(|rule| &rule.rule.vary) {
        if done.contains(&vary) {
            continue;
        }
        done.push(vary);
        let variable = variable(&vary.header);
        let _ = writeln!(
            out,
            "map $http_{variable} $repomind_{}_{variable} {{\n  default {};",
            done.len(),
            vary.values.first().map_or("\"\"", String::as_str)
        );
        for value in &vary.values {
            let _ = writeln!(
                out,
                "  \"~*(?:^|,)\\s*{}(?:-[^,;]*)?\\s*(?:;(?!\\s*q=\\s*0(?:\\.0*)?\\s*(?:[;,]|$))[^,]*)?(?:,|$)\" {value};",
                value.replace('.', "\\.")
            );
        }
        out.push_str("}\n\n");
    }
}

fn variable(header: &str) -> String {
    header.replace(['-', '.'], "_")
}

fn zones(out: &mut String, form: &Form) {
    for limit in &form.limits {
        let key = match &limit.key {
            LimitKey::Client => "$binary_remote_addr".to_owned(),
            LimitKey::Country => "$http_repomind_country".to_owned(),
            LimitKey::Everyone => "$server_name".to_owned(),
            LimitKey::Header(name) => format!("$http_{}", variable(name)),
        };
        let name = variable(limit.name.as_str());
        // nginx counts no request whose key is empty: what is not limited has none.
        let _ = writeln!(
            out,
            "map \"{}\" $repomind_limited_{name} {{\n  default \"\";\n  \"~{}\" {key};\n}}",
            SUBJECT,
            condition(&limit.when)
        );
        let _ = writeln!(
            out,
            "limit_req_zone $repomind_limited_{name} zone=repomind_{name}:4m rate={};\n",
            rate(limit).expect("a complaint is raised for other rates")
        );
    }
}

/// What conditions are matched against: method and path.
const SUBJECT: &str = "$request_method $uri";

/// A regular expression over method and path. Header and cookie conditions are refused before.
fn condition(when: &RequestMatch) -> String {
    let quote = |text: &String| text.replace('.', "\\.").replace('+', "\\+");
    let any = |texts: &[String]| texts.iter().map(quote).collect::<Vec<_>>().join("|");
    let method = if when.methods.is_empty() { "[A-Z]+".to_owned() } else { format!("(?:{})", when.methods.join("|")) };
    let path = if when.paths.is_empty() { String::new() } else { format!("(?:{})", any(&when.paths)) };
    let end = if when.suffixes.is_empty() { String::new() } else { format!(".*(?:{})$", any(&when.suffixes)) };
    format!("^{method} {path}{end}")
}

fn server(out: &mut String, form: &Form, listen: &str) {
    let last = form.routes.last().expect("a last route");
    let _ = write!(out, "server {{\n  listen {listen};\n  server_name _;\n  limit_req_status 429;\n");
    for limit in &form.limits {
        let burst = limit.burst.saturating_sub(1);
        let burst = if burst == 0 { String::new() } else { format!(" burst={burst} nodelay") };
        let _ = writeln!(out, "  limit_req zone=repomind_{}{burst};", variable(limit.name.as_str()));
    }
    for (name, value) in &form.answer_headers {
        let _ = writeln!(out, "  add_header {name} \"{value}\" always;");
    }
    let _ = write!(
        out,
        "  add_header Cache-Status \"repomind; detail=$upstream_cache_status\" always;\n  proxy_http_version 1.1;\n  \
         proxy_set_header Connection \"\";\n  proxy_set_header Host $host;\n  proxy_set_header X-Forwarded-For $remote_addr;\n  \
         proxy_set_header repomind-country \"\";\n  proxy_hide_header CDN-Cache-Control;\n  proxy_hide_header Cache-Tag;\n  \
         proxy_next_upstream error timeout http_502 http_503 http_504;\n  proxy_next_upstream_tries {};\n  \
         proxy_read_timeout {}ms;\n\n",
        last.attempts, last.timeout_ms
    );
    // Locations by regular expression are tried in order, as rules are.
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| !rule.refines()) {
        if !is_personal_bypass(rule) {
            location(out, form, rule);
        }
    }
    out.push_str("  location / {\n    proxy_pass http://$repomind_upstream;\n  }\n}\n");
}

fn location(out: &mut String, form: &Form, rule: &CacheRule) {
    let quote = |text: &String| text.replace('.', "\\.").replace('+', "\\+");
    let any = |texts: &[String]| texts.iter().map(quote).collect::<Vec<_>>().join("|");
    let path = if rule.when.paths.is_empty() { String::new() } else { format!("(?:{})", any(&rule.when.paths)) };
    let end =
        if rule.when.suffixes.is_empty() { String::new() } else { format!(".*(?:{})$", any(&rule.when.suffixes)) };
    let _ =
        writeln!(out, "  # {}\n  location ~ \"^{path}{end}\" {{\n    proxy_pass http://$repomind_upstream;", rule.name);
    if rule.bypass || rule.edge_ttl_seconds == 0 {
        out.push_str("  }\n\n");
        return;
    }
    let mut key = String::new();
    for part in &rule.key {
        match part {
            KeyPart::Host => key.push_str(" $host"),
            KeyPart::Path => key.push_str(" $uri"),
            KeyPart::Query | KeyPart::QueryExcept(_) => key.push_str(" $args"),
            KeyPart::QueryOnly(names) => names.iter().for_each(|name| key.push_str(&format!(" {name}=$arg_{name}"))),
            KeyPart::Header(name) => key.push_str(&format!(" $http_{}", variable(name))),
            KeyPart::Cookie(name) => key.push_str(&format!(" $cookie_{name}")),
            KeyPart::Country => key.push_str(" $http_repomind_country"),
        }
    }
    let varies: Vec<&model::edge::Vary> =
        form.rules.iter().flat_map(|rule| &rule.rule.vary).fold(Vec::new(), |mut all, vary| {
            if !all.contains(&vary) {
                all.push(vary);
            }
            all
        });
    for vary in &rule.vary {
        let at = varies.iter().position(|other| *other == vary).expect("listed") + 1;
        let variable = format!("$repomind_{at}_{}", variable(&vary.header));
        key.push_str(&format!(" {variable}"));
        let _ = writeln!(out, "    proxy_set_header {} {variable};", vary.header);
    }
    let _ = write!(
        out,
        "    proxy_cache repomind;\n    proxy_cache_key \"{}\";\n    proxy_cache_methods GET HEAD;\n    \
         proxy_cache_bypass $repomind_own;\n    \
         proxy_no_cache $repomind_own $upstream_http_set_cookie $repomind_regulated;\n    \
         proxy_set_header Cookie $repomind_cookies;\n    proxy_cache_lock on;\n    proxy_cache_revalidate on;\n    \
         proxy_cache_valid 200 301 308 {}s;\n",
        key.trim_start(),
        rule.edge_ttl_seconds
    );
    for refining in
        form.rules.iter().map(|rule| &rule.rule).filter(|other| other.refines() && other.content_types.is_empty())
    {
        if refining.when == rule.when {
            let statuses = refining.statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "    proxy_cache_valid {statuses} {}s;", refining.edge_ttl_seconds);
        }
    }
    if rule.stale_while_revalidate_seconds > 0 {
        out.push_str("    proxy_cache_background_update on;\n");
    }
    match (rule.stale_while_revalidate_seconds > 0, rule.stale_if_error_seconds > 0) {
        (false, false) => {}
        (updating, errors) => {
            let mut words = Vec::new();
            if updating {
                words.push("updating");
            }
            if errors {
                words.extend(["error", "timeout", "http_500", "http_502", "http_503", "http_504"]);
            }
            let _ = writeln!(out, "    proxy_cache_use_stale {};", words.join(" "));
        }
    }
    out.push_str("  }\n\n");
}
