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
    out.push_str(
        "# Paths that mean another one to somebody behind nginx.\nmap $request_uri $repomind_devious {\n  default \"\";\n  \
         \"~*^[^?]*(?:%(?:2[ef]|5c|00|3[0-9]|[46][1-9a-f]|[57][0-9a])|\\\\\\\\|//|/\\.\\.?(?:[/?]|$))\" 1;\n}\n\n\
         # The path as it is handed on, and not as nginx reads it.\nmap $request_uri $repomind_path {\n  \
         \"~^(?<repomind_before>[^?]*)\" $repomind_before;\n}\n\n",
    );
    parts(out, form);
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
        headers.chain(rule.when.cookies.iter().map(|named| cookie(&named.name)))
    });
    // What has a body could have another answer by it.
    let always = ["authorization", "range", "content_length", "transfer_encoding"];
    let own: String = own.chain(always.map(|name| format!("$http_{name}"))).collect();
    let _ = write!(
        out,
        "# What is for one user, or a part.\nmap \"{own}\" $repomind_own {{\n  \"\" \"\";\n  default 1;\n}}\n\n"
    );
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| keeps(rule)) {
        reduced(out, rule);
        statuses(out, form, rule);
    }
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
                quoted(value)
            );
        }
        out.push_str("}\n\n");
    }
}

/// Maps for what the keys of rules are made of: nginx has variables of its own only for cookies and parameters with names
/// of letters, digits and `_`, and takes those of parameters in any case.
fn parts(out: &mut String, form: &Form) {
    let mut done: Vec<String> = Vec::new();
    let mut add = |source: &str, variable: String, before: &str, found: String| {
        if !done.contains(&variable) {
            let group = format!("$repomind_found_{}", done.len());
            let found = found.replace("@FOUND@", &format!("?<{}>", &group[1..]));
            let _ = write!(
                out,
                "map {source} {variable} {{\n  default \"\";\n  \"~(?:^|{before}){found}\" {group};\n}}\n\n"
            );
            done.push(variable);
        }
    };
    for rule in form.rules.iter().map(|rule| &rule.rule) {
        for name in rule.when.cookies.iter().map(|named| &named.name).chain(cookies(rule)) {
            add("$http_cookie", cookie(name), ";\\s*", format!("{}=(@FOUND@[^;]*)", quoted(name)));
        }
        for name in parameters(rule).into_iter().flatten() {
            add("$args", parameter(name), "&", format!("(@FOUND@{}(?:=[^&]*)?)(?:&|$)", quoted(name)));
        }
    }
}

/// The cookies in a rule's key.
fn cookies(rule: &CacheRule) -> impl Iterator<Item = &String> {
    rule.key.iter().filter_map(|part| match part {
        KeyPart::Cookie(name) => Some(name),
        _ => None,
    })
}

/// The parameters in a rule's key; none where all are in it.
fn parameters(rule: &CacheRule) -> Option<&[String]> {
    let query = rule.key.iter().find_map(|part| match part {
        KeyPart::QueryOnly(names) => Some(Some(names.as_slice())),
        KeyPart::Query | KeyPart::QueryExcept(_) => Some(None),
        _ => None,
    });
    query.unwrap_or(Some(&[]))
}

/// What a request for a shared answer is reduced to: what is in the key of its rule and nothing else, so that nobody
/// chooses what others get. Those that are not shared are handed on as they are.
fn reduced(out: &mut String, rule: &CacheRule) {
    let name = variable(rule.name.as_str());
    let mut map = |what: &str, shared: &str, own: &str| {
        let _ = write!(out, "map $repomind_own $repomind_{what}_{name} {{\n  \"\" {shared};\n  default {own};\n}}\n\n");
    };
    let pairs: Vec<String> = cookies(rule).map(|name| format!("{name}={}", cookie(name))).collect();
    map("cookies", &format!("\"{}\"", pairs.join("; ")), "$http_cookie");
    match parameters(rule) {
        None => map("target", "$request_uri", "$request_uri"),
        Some([]) => map("target", "$repomind_path", "$request_uri"),
        Some(names) => {
            let all: Vec<String> = names.iter().map(|name| parameter(name)).collect();
            map("target", &format!("\"$repomind_path?{}\"", all.join("&")), "$request_uri");
        }
    }
    map("host", if rule.key.contains(&KeyPart::Host) { "$host" } else { "$proxy_host" }, "$host");
}

/// Which answers no rule is about: nginx would keep them where the origin lets it.
fn statuses(out: &mut String, form: &Form, rule: &CacheRule) {
    let more = refining(form, rule).flat_map(|other| other.statuses.clone());
    let all: Vec<String> = CacheRule::USUAL_STATUSES.into_iter().chain(more).map(|status| status.to_string()).collect();
    let _ = write!(
        out,
        "map $upstream_status $repomind_unruled_{} {{\n  default 1;\n  \"~(?:^|[,:] )(?:{})$\" \"\";\n}}\n\n",
        variable(rule.name.as_str()),
        all.join("|")
    );
}

/// Rules by status that are about the same requests.
fn refining<'f>(form: &'f Form, rule: &'f CacheRule) -> impl Iterator<Item = &'f CacheRule> {
    let all = form.rules.iter().map(|rule| &rule.rule);
    all.filter(|other| other.refines() && other.content_types.is_empty() && other.when == rule.when)
}

/// Whether a rule has a location of its own in which answers are kept.
fn keeps(rule: &CacheRule) -> bool {
    !rule.refines() && !is_personal_bypass(rule) && !rule.bypass && rule.edge_ttl_seconds > 0
}

fn cookie(name: &str) -> String {
    format!("$repomind_cookie_{}", symbol(name))
}

fn parameter(name: &str) -> String {
    format!("$repomind_arg_{}", symbol(name))
}

/// A name as a part of a variable's: another for every name.
fn symbol(name: &str) -> String {
    name.replace('_', "__").replace('-', "_d").replace('.', "_p")
}

/// A text inside a regular expression.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_=:,&%".contains(c);
    text.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect()
}

fn variable(header: &str) -> String {
    header.replace(['-', '.'], "_")
}

fn zones(out: &mut String, form: &Form) {
    if form.limits.iter().any(|limit| limit.key == LimitKey::Client) {
        out.push_str(CLIENT);
    }
    for limit in &form.limits {
        let key = match &limit.key {
            LimitKey::Client => "$repomind_client".to_owned(),
            LimitKey::Country => "\"in $http_repomind_country\"".to_owned(),
            LimitKey::Everyone => "everyone".to_owned(),
            LimitKey::Header(name) => format!("\"is $http_{}\"", variable(name)),
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

/// A client: an IPv4 address, or the /64 of an IPv6 one, as the program for Varnish has it.
const CLIENT: &str = r#"map $remote_addr $repomind_net {
  default $remote_addr;
  "~^(?<repomind_whole>(?:[0-9a-f]+:){3}[0-9a-f]+):" $repomind_whole;
  "~^(?<repomind_short>.*:):(?:[0-9a-f]+:){0,3}[0-9a-f]*$" $repomind_short;
  "~^(?<repomind_long>.*::.*?)(?::[0-9a-f]+){4}$" $repomind_long;
}
map $repomind_net $repomind_client {
  default $repomind_net;
  "~^(?<repomind_front>[^:].*?)(?::0){2,}(?<repomind_back>:.*)?$" "$repomind_front:$repomind_back";
}
"#;

/// What conditions are matched against: method and path.
const SUBJECT: &str = "$request_method $uri";

/// A regular expression over method and path. Header and cookie conditions are refused before.
fn condition(when: &RequestMatch) -> String {
    let any = |texts: &[String]| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join("|");
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
        "  add_header Cache-Status \"repomind; detail=$upstream_cache_status\" always;\n  if ($repomind_devious) {{\n    \
         return 400;\n  }}\n  proxy_http_version 1.1;\n{}  proxy_hide_header CDN-Cache-Control;\n  proxy_hide_header Cache-Tag;\n  \
         proxy_next_upstream error timeout http_502 http_503 http_504;\n  proxy_next_upstream_tries {};\n  \
         proxy_read_timeout {}ms;\n\n",
        onward("  ", "$host"),
        last.attempts,
        last.timeout_ms
    );
    // Locations by regular expression are tried in order, as rules are.
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| !rule.refines()) {
        if !is_personal_bypass(rule) {
            location(out, form, rule);
        }
    }
    out.push_str("  location / {\n    proxy_pass http://$repomind_upstream;\n  }\n}\n");
}

/// Takes away what services take for another host, scheme, path or method, but for what is in the key.
fn taken_for_others(rule: &CacheRule) -> String {
    let in_key = |name: &str| {
        rule.key.contains(&KeyPart::Header(name.to_owned())) || rule.vary.iter().any(|vary| vary.header == name)
    };
    let free = super::TAKEN_FOR_OTHERS.iter().filter(|name| !in_key(name));
    free.map(|name| match *name {
        "x-forwarded-proto" => "    proxy_set_header x-forwarded-proto https;\n".to_owned(),
        name => format!("    proxy_set_header {name} \"\";\n"),
    })
    .collect()
}

/// The headers of every request to a region. A location that sets one header takes over none of those around it, so
/// that it has to set all.
fn onward(indent: &str, host: &str) -> String {
    let set = |name, value| format!("{indent}proxy_set_header {name} {value};\n");
    set("Connection", "\"\"")
        + &set("Host", host)
        + &set("X-Forwarded-For", "$remote_addr")
        + &set("repomind-country", "\"\"")
}

fn location(out: &mut String, form: &Form, rule: &CacheRule) {
    let any = |texts: &[String]| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join("|");
    let path = if rule.when.paths.is_empty() { String::new() } else { format!("(?:{})", any(&rule.when.paths)) };
    let end =
        if rule.when.suffixes.is_empty() { String::new() } else { format!(".*(?:{})$", any(&rule.when.suffixes)) };
    let name = variable(rule.name.as_str());
    let target = if keeps(rule) { format!("$repomind_target_{name}") } else { String::new() };
    let _ = writeln!(
        out,
        "  # {}\n  location ~ \"^{path}{end}\" {{\n    proxy_pass http://$repomind_upstream{target};",
        rule.name
    );
    if !keeps(rule) {
        out.push_str("  }\n\n");
        return;
    }
    let mut key = String::new();
    for part in &rule.key {
        match part {
            KeyPart::Host => key.push_str(" $host"),
            KeyPart::Path => key.push_str(" $repomind_path"),
            KeyPart::Query | KeyPart::QueryExcept(_) => key.push_str(" $args"),
            KeyPart::QueryOnly(names) => {
                names.iter().for_each(|name| key.push_str(&format!(" {name}={}", parameter(name))))
            }
            KeyPart::Header(name) => key.push_str(&format!(" $http_{}", variable(name))),
            KeyPart::Cookie(name) => key.push_str(&format!(" {}", cookie(name))),
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
         proxy_no_cache $repomind_own $upstream_http_set_cookie $repomind_regulated $repomind_unruled_{name};\n    \
         proxy_set_header Cookie $repomind_cookies_{name};\n{}{}    proxy_cache_lock on;\n    proxy_cache_revalidate on;\n    \
         proxy_cache_valid 200 301 308 {}s;\n",
        key.trim_start(),
        onward("    ", &format!("$repomind_host_{name}")),
        taken_for_others(rule),
        rule.edge_ttl_seconds
    );
    for refining in refining(form, rule) {
        let statuses = refining.statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "    proxy_cache_valid {statuses} {}s;", refining.edge_ttl_seconds);
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
