//! The form as VCL 4.1 for Varnish 7 with varnish-modules.
//!
//! What is constant stands in `varnish/*.vcl` and reads as VCL; what follows from the form is generated here and put
//! in its places. Headers that begin with `rm-` are ours: they carry what was decided from one step to the next and
//! leave Varnish in neither direction. The program needs `-p max_retries=8 -p http_gzip_support=off -p http_range_support=off`.

mod keys;

use std::fmt::Write as _;

use model::edge::{CacheRule, KeyPart, LimitKey, Named, RequestMatch};
use model::record::DataClass;
use model::{RegionId, RuleId};

use crate::evaluate::{Place, left_to_origin};
use crate::form::{Form, Rule};

const MAIN: &str = include_str!("varnish/main.vcl");

/// For whom a program is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The region that the machine stands in.
    pub region: RegionId,
    /// Addresses, as VCL writes them in an ACL, of those who may purge and who are believed about countries.
    pub operators: Vec<String>,
    /// Whether answers say how they came about, for tests.
    pub observe: bool,
}

/// The program. The form must have no complaint for Varnish.
pub fn program(form: &Form, options: &Options) -> String {
    let place = Place::in_memory(options.region.clone());
    // What a region is asked by may depend on cookies, which are gone by the time that one is asked.
    let onward = "  call rm_about;\n  call rm_routes;\n";
    let (early, late) = match needs_cookies(form) {
        true => (format!("  call rm_country;\n{onward}"), String::new()),
        false => (String::new(), onward.to_owned()),
    };
    let observed = |text: &str| if options.observe { text.to_owned() } else { String::new() };
    let parts = [
        ("@REVISION@", form.revision.clone()),
        ("@REGION@", options.region.to_string()),
        ("@BACKENDS@", backends(form)),
        ("@OPERATORS@", options.operators.iter().map(|one| format!("  {one};\n")).collect()),
        ("@COLLECT@", collect(form)),
        ("@LIMITS@", limits(form)),
        ("@GUARDS@", guards(form)),
        ("@EARLY@", early),
        ("@LATE@", late),
        ("@ABOUT@", about(form)),
        ("@RULES@", rules(form)),
        ("@PREPARE@", keys::prepare(form, options.observe)),
        ("@HASH@", keys::hash(form)),
        ("@BY_KEY@", keys::by_key(form)),
        ("@CLEAN@", keys::clean(form)),
        ("@PASSED@", observed("  unset req.http.rm-key;\n")),
        ("@ROUTES@", routes(form)),
        ("@COUNTRIES@", countries(form)),
        ("@NEXT@", next_region(form)),
        ("@SICK@", sick(form)),
        ("@PIPE@", pipe(form)),
        ("@SEARCH@", "  if (!bereq.http.rm-region) { call rm_next; }\n".repeat(form.origins.len().min(8))),
        ("@DECIDE@", decide(form)),
        ("@REVISIONS@", revisions(form)),
        ("@COVER@", cover(form)),
        ("@RESIDENCY@", residency(form, &place)),
        ("@ANSWER_HEADERS@", answer_headers(form, "beresp")),
        ("@SYNTH_HEADERS@", answer_headers(form, "resp")),
        ("@OBSERVE@", observed(OBSERVE)),
    ];
    parts
        .iter()
        .fold(MAIN.to_owned(), |text, (mark, part)| text.replace(&format!("{mark}\n"), part).replace(mark, part))
}

const OBSERVE: &str = r#"  # For tests: how the answer came about.
  set resp.http.repomind-test-came = req.http.rm-came;
  if (!req.http.rm-came) {
    set resp.http.repomind-test-came = "hit";
  }
  set resp.http.repomind-test-rule = req.http.rm-rule;
  set resp.http.repomind-test-key = req.http.rm-key;
  if (resp.http.rm-times) {
    set resp.http.repomind-test-ttl = regsub(resp.http.rm-times, " .*$", "");
    set resp.http.repomind-test-kept = regsub(resp.http.rm-times, "^.* ", "");
    set resp.http.repomind-test-tags = regsub(resp.http.xkey, " revision:.*$", "");
  }
  set resp.http.repomind-test-region = resp.http.repomind-edge-region;
"#;

/// Whether routes, or rules that refine others, look at cookies.
fn needs_cookies(form: &Form) -> bool {
    let refining = form.rules.iter().map(|rule| &rule.rule).filter(|rule| rule.refines());
    let mut whens = refining.map(|rule| &rule.when).chain(form.routes.iter().map(|route| &route.when));
    whens.any(|when| !when.cookies.is_empty())
}

/// A text inside a regular expression of PCRE.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_=:,&%".contains(c);
    text.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect()
}

fn any_of(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join("|")
}

/// A region's name as VCL names things.
pub fn symbol(region: &RegionId) -> String {
    format!("region_{}", region.as_str().replace('-', "_"))
}

fn backends(form: &Form) -> String {
    let mut out = String::new();
    for (region, url) in &form.origins {
        let authority = url.trim_start_matches("http://").split('/').next().unwrap_or("");
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host.trim_matches(['[', ']']), port),
            _ => (authority.trim_matches(['[', ']']), "80"),
        };
        let _ = write!(
            out,
            "backend {} {{\n  .host = \"{host}\";\n  .port = \"{port}\";\n  .connect_timeout = 2s;\n}}\n\n",
            symbol(region)
        );
    }
    out
}

/// The condition of a match, or none for one that always holds. Every target that comes this far begins with `/`.
fn condition(when: &RequestMatch, usual_methods: bool) -> Option<String> {
    let mut all = Vec::new();
    if when.methods.is_empty() && usual_methods {
        all.push("(req.method == \"GET\" || req.method == \"HEAD\")".to_owned());
    } else if !when.methods.is_empty() {
        let each: Vec<String> = when.methods.iter().map(|method| format!("req.method == \"{method}\"")).collect();
        all.push(if each.len() == 1 { each.concat() } else { format!("({})", each.join(" || ")) });
    }
    all.extend(begins(&when.paths));
    if !when.suffixes.is_empty() {
        all.push(format!("req.url ~ \"^[^?]*(?:{})(?:\\?|$)\"", any_of(&when.suffixes)));
    }
    for Named { name, value } in &when.headers {
        all.push(match value {
            Some(value) => format!("req.http.{name} == \"{value}\""),
            None => format!("req.http.{name}"),
        });
    }
    for Named { name, value } in &when.cookies {
        let value = value.as_ref().map_or(String::new(), |value| format!("{}\\s*(?:;|$)", quoted(value)));
        all.push(format!("req.http.Cookie && req.http.Cookie ~ \"(?:^|;)\\s*{}={value}\"", quoted(name)));
    }
    (!all.is_empty()).then(|| all.join(" && "))
}

/// That the path begins with one of these: none where it does in any case. Prefixes have no question mark, so that
/// query parameters are never taken for a path.
fn begins(paths: &[String]) -> Option<String> {
    let some = !paths.is_empty() && !paths.iter().any(|path| path == "/");
    some.then(|| format!("req.url ~ \"^(?:{})\"", any_of(paths)))
}

/// Joins the lines of headers that the form looks at.
fn collect(form: &Form) -> String {
    let mut names: Vec<&str> = Vec::new();
    let rules = form.rules.iter().map(|rule| &rule.rule);
    let whens = rules.clone().map(|rule| &rule.when);
    let whens = whens.chain(form.limits.iter().map(|l| &l.when)).chain(form.auth.iter().map(|a| &a.when));
    for when in whens.chain(form.routes.iter().map(|r| &r.when)) {
        names.extend(when.headers.iter().map(|named| named.name.as_str()));
    }
    for rule in rules {
        names.extend(rule.vary.iter().map(|vary| vary.header.as_str()));
        names.extend(rule.key.iter().filter_map(|part| match part {
            KeyPart::Header(name) => Some(name.as_str()),
            _ => None,
        }));
    }
    names.extend(form.limits.iter().filter_map(|limit| match &limit.key {
        LimitKey::Header(name) => Some(name.as_str()),
        _ => None,
    }));
    names.sort_unstable();
    names.dedup();
    let cookies = rules_cookies(form).then(|| "  std.collect(req.http.Cookie, \"; \");\n".to_owned());
    let headers = names.iter().map(|name| format!("  std.collect(req.http.{name}, \", \");\n"));
    cookies.into_iter().chain(headers).collect()
}

/// Whether anything looks at cookies.
fn rules_cookies(form: &Form) -> bool {
    let rules = form.rules.iter().map(|rule| &rule.rule);
    let in_keys = rules.clone().any(|rule| rule.key.iter().any(|part| matches!(part, KeyPart::Cookie(_))));
    let whens = rules.map(|rule| &rule.when).chain(form.limits.iter().map(|limit| &limit.when));
    let mut whens = whens.chain(form.auth.iter().map(|auth| &auth.when)).chain(form.routes.iter().map(|r| &r.when));
    in_keys || whens.any(|when| !when.cookies.is_empty())
}

/// A client: an IPv4 address, or the /64 of an IPv6 one. Zeros are left out where the address has most of them (RFC 5952),
/// so that one /64 is written in several ways, which are brought to one.
const CLIENT: &str = concat!(
    r#"regsub(regsub(regsub(regsub(client.ip, "^((?:[0-9a-f]+:){3}[0-9a-f]+):.*$", "\1"), "#,
    r#""^(.*:):(?:[0-9a-f]+:){0,3}[0-9a-f]*$", "\1"), "^(.*::.*?)(?::[0-9a-f]+){4}$", "\1"), "(?::0){2,}(?=:|$)", ":")"#
);

fn limits(form: &Form) -> String {
    let mut out = String::new();
    if form.limits.iter().any(|limit| limit.key == LimitKey::Country) {
        out.push_str("  call rm_country;\n");
    }
    for limit in &form.limits {
        let key = match &limit.key {
            LimitKey::Client => CLIENT.to_owned(),
            LimitKey::Country => "req.http.rm-country".to_owned(),
            LimitKey::Everyone => "\"everyone\"".to_owned(),
            LimitKey::Header(name) => format!("req.http.{name}"),
        };
        // A bucket of `burst` that fills at rate / per: Varnish has it as so many in so long.
        let period = f64::from(limit.burst) * f64::from(limit.per_seconds) / f64::from(limit.rate);
        let wait = limit.per_seconds.div_ceil(limit.rate);
        let denied = format!("vsthrottle.is_denied(\"{}:\" + {key}, {}, {period:.3}s)", limit.name, limit.burst);
        let test = condition(&limit.when, false).map_or(denied.clone(), |when| format!("{when} && {denied}"));
        let _ = write!(
            out,
            "  if ({test}) {{\n    set req.http.rm-limit = \"{name}\";\n    set req.http.rm-policy = {{\"\"{name}\";q={burst};w={window}\"}};\n    \
             set req.http.rm-wait = \"{wait}\";\n    return (synth(429, \"Too Many Requests\"));\n  }}\n",
            name = limit.name,
            burst = limit.burst,
            window = period.ceil(),
        );
    }
    out
}

fn guards(form: &Form) -> String {
    let mut out = String::new();
    for (at, auth) in form.auth.iter().enumerate() {
        let mut all: Vec<String> = condition(&auth.when, false).into_iter().collect();
        if !auth.except.is_empty() {
            all.push(format!("req.url !~ \"^(?:{})\"", any_of(&auth.except)));
        }
        let test = if all.is_empty() { "true".to_owned() } else { all.join(" && ") };
        let word = if at == 0 { "if" } else { "elsif" };
        assert!(left_to_origin(auth), "a complaint is raised for guards that Varnish cannot keep");
        let _ = write!(
            out,
            "  {word} ({test}) {{\n    # {}: the origin verifies; here it must only be shown, and nothing of it is kept.\n    \
             if (req.http.Authorization !~ \"(?i)^bearer [a-z0-9_-]+\\.[a-z0-9_-]+\\.[a-z0-9_-]+$\") {{\n      \
             return (synth(401, \"Unauthorized\"));\n    }}\n    call rm_rules;\n  }}\n",
            auth.name
        );
    }
    out
}

/// Notes which rules that wait for the answer are about the request.
fn about(form: &Form) -> String {
    let mut out = String::new();
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| rule.refines()) {
        let test = condition(&rule.when, true).unwrap_or_else(|| "true".to_owned());
        let _ = write!(
            out,
            "  if ({test}) {{\n    set req.http.rm-about = req.http.rm-about + \"{},\";\n  }}\n",
            rule.name
        );
    }
    out
}

/// The first rule that is about the request; none of them bypasses the cache, too.
fn rules(form: &Form) -> String {
    let mut out = String::new();
    let mut word = "if";
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| !rule.refines()) {
        let test = condition(&rule.when, true).unwrap_or_else(|| "true".to_owned());
        let bypass = if keeps(rule) { "" } else { "    call rm_bypass;\n" };
        let _ = write!(out, "  {word} ({test}) {{\n    set req.http.rm-rule = \"{}\";\n{bypass}  }}\n", rule.name);
        word = "elsif";
    }
    let none = "unset req.http.rm-rule;\n    call rm_bypass;";
    match word {
        "if" => out + &format!("  if (true) {{\n    {none}\n  }}\n"),
        _ => out + &format!("  else {{\n    {none}\n  }}\n"),
    }
}

/// Whether answers are looked up and kept by it.
fn keeps(rule: &CacheRule) -> bool {
    !rule.refines() && !rule.bypass && rule.edge_ttl_seconds > 0
}

/// The revision of the rule that gave the key.
fn revisions(form: &Form) -> String {
    let one = |Rule { rule, revision }: &Rule| {
        format!("  if (var.get(\"rule\") == \"{}\") {{\n    var.set(\"revision\", \"{revision}\");\n  }}\n", rule.name)
    };
    form.rules.iter().filter(|rule| keeps(&rule.rule)).map(one).collect()
}

fn routes(form: &Form) -> String {
    let mut out = String::new();
    for (at, route) in form.routes.iter().enumerate() {
        let test = condition(&route.when, false).unwrap_or_else(|| "true".to_owned());
        let word = if at == 0 { "if" } else { "elsif" };
        let regions = if route.regions.is_empty() {
            "    call rm_by_country;\n".to_owned()
        } else {
            format!("    set req.http.rm-left = \"{}\";\n", names(&route.regions))
        };
        let _ = write!(
            out,
            "  {word} ({test}) {{\n    set req.http.rm-attempts = \"{}\";\n    set req.http.rm-timeout = \"{}ms\";\n    \
             set req.http.rm-break = \"{} {}s\";\n{regions}  }}\n",
            route.attempts, route.timeout_ms, route.break_after, route.break_seconds
        );
    }
    out
}

fn names(regions: &[RegionId]) -> String {
    regions.iter().map(RegionId::as_str).collect::<Vec<_>>().join(" ")
}

fn countries(form: &Form) -> String {
    let mut out = String::new();
    for (at, order) in form.ranking.orders.iter().enumerate() {
        let codes = form.ranking.countries.iter().filter(|(_, found)| usize::from(**found) == at);
        let codes = codes.map(|(country, _)| country.as_str()).collect::<Vec<_>>().join("|");
        let _ = write!(
            out,
            "  if (req.http.rm-country ~ \"^(?:{codes})$\") {{\n    set req.http.rm-left = \"{}\";\n    return;\n  }}\n",
            names(order)
        );
    }
    out + &format!("  set req.http.rm-left = \"{}\";\n", names(&form.ranking.default))
}

/// Takes the first region that is left; passes it over where it failed too often of late.
fn next_region(form: &Form) -> String {
    let mut out = String::new();
    for (at, region) in form.origins.keys().enumerate() {
        let word = if at == 0 { "if" } else { "elsif" };
        let _ = write!(
            out,
            "  {word} (bereq.http.rm-left ~ \"^{region}(?: |$)\") {{\n    set bereq.backend = {};\n  }}\n",
            symbol(region)
        );
    }
    out
}

/// Whether the first region that is left is one that operators, or whoever follows the regions, marked as sick.
fn sick(form: &Form) -> String {
    let one =
        |region: &RegionId| format!("(bereq.http.rm-left ~ \"^{region}(?: |$)\" && !std.healthy({}))", symbol(region));
    form.origins.keys().map(one).collect::<Vec<_>>().join("\n        || ")
}

/// The first region, for connections that change their protocol.
fn pipe(form: &Form) -> String {
    let mut out = String::new();
    for (at, region) in form.origins.keys().enumerate() {
        let word = if at == 0 { "if" } else { "elsif" };
        let _ = write!(
            out,
            "    {word} (req.http.rm-left ~ \"^{region}(?: |$)\") {{\n      set req.backend_hint = {};\n    }}\n",
            symbol(region)
        );
    }
    out
}

/// The condition under which a rule decides about an answer.
fn deciding(rule: &CacheRule) -> String {
    let statuses: Vec<u16> =
        if rule.statuses.is_empty() { CacheRule::USUAL_STATUSES.to_vec() } else { rule.statuses.clone() };
    let statuses = statuses.iter().map(|status| format!("beresp.status == {status}")).collect::<Vec<_>>().join(" || ");
    let about = if rule.refines() {
        format!("var.get(\"about\") ~ \",{},\"", quoted(rule.name.as_str()))
    } else {
        format!("var.get(\"rule\") == \"{}\"", rule.name)
    };
    let types = if rule.content_types.is_empty() {
        String::new()
    } else {
        format!(" && beresp.http.Content-Type ~ \"(?i)^(?:{})\"", any_of(&rule.content_types))
    };
    format!("{about} && ({statuses}){types}")
}

fn decide(form: &Form) -> String {
    let mut out = String::new();
    for (at, rule) in form.rules.iter().map(|rule| &rule.rule).enumerate() {
        let word = if at == 0 { "if" } else { "elsif" };
        let stale = [rule.stale_while_revalidate_seconds, rule.stale_if_error_seconds];
        let _ = write!(
            out,
            "  {word} ({test}) {{\n    var.set(\"deciding\", \"{name}\");\n    var.set(\"ttl\", \"{ttl}s\");\n    \
             var.set(\"swr\", \"{swr}s\");\n    var.set(\"sie\", \"{sie}s\");\n    var.set(\"class\", \"{class}\");\n    \
             var.set(\"tags\", \"{tags}\");\n    var.set(\"browser\", \"{browser}\");\n  }}\n",
            test = deciding(rule),
            name = rule.name,
            ttl = rule.edge_ttl_seconds,
            swr = stale[0],
            sie = stale[1],
            class = rule.class,
            tags = std::iter::once(format!("rule:{}", rule.name))
                .chain(rule.tags.iter().cloned())
                .collect::<Vec<_>>()
                .join(" "),
            browser = rule.browser_ttl_seconds,
        );
    }
    out
}

/// What is left of `Vary` when the headers in the key of the request's rule are taken out.
fn cover(form: &Form) -> String {
    let mut out = String::new();
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| !rule.refines()) {
        let covered = covered(rule);
        if covered.is_empty() {
            continue;
        }
        let _ = write!(
            out,
            "  if (var.get(\"rule\") == \"{}\") {{\n    var.set(\"vary\", regsuball(var.get(\"vary\"), \
             \"(?i)(?:^|,)\\s*(?:{})\\s*(?=,|$)\", \"\"));\n  }}\n",
            rule.name,
            any_of(&covered)
        );
    }
    out
}

fn covered(rule: &CacheRule) -> Vec<String> {
    let headers = rule.key.iter().filter_map(|part| match part {
        KeyPart::Header(name) => Some(name.clone()),
        _ => None,
    });
    rule.vary.iter().map(|vary| vary.header.clone()).chain(headers).collect()
}

/// Takes each class that may lie here under the laws stated out of `classes`; what is left may not.
fn residency(form: &Form, place: &Place) -> String {
    let mut out = String::new();
    let region = place.region.as_ref().expect("Varnish stands in a region");
    // Rulings of one class that end together count as one: a list of countries may lie under several.
    let mut groups: Vec<(DataClass, Option<u64>, Vec<String>)> = Vec::new();
    for holding in &form.residency.holdings {
        let here = form.residency.region_duties.get(region).into_iter().flatten();
        let fulfilled = holding.duties.iter().chain(here).all(|duty: &RuleId| place.duties.contains(duty));
        if !holding.regions.contains(region) || !fulfilled {
            continue;
        }
        match groups.iter_mut().find(|group| (group.0, group.1) == (holding.class, holding.until)) {
            Some(group) => group.2.extend(holding.laws.iter().cloned()),
            None => groups.push((holding.class, holding.until, holding.laws.clone())),
        }
    }
    for (class, until, under) in groups {
        let mut tests = vec![format!("var.get(\"classes\") ~ \",{class},\"")];
        if !all_laws(form, &under) {
            tests.push(format!("var.get(\"countries\") ~ \"^(?:{})$\"", laws(form, &under)));
        }
        if let Some(until) = until {
            tests.push(format!("now < std.time(real={}.0)", until / 1000));
        }
        let _ = write!(
            out,
            "  if ({}) {{\n    var.set(\"classes\", regsuball(var.get(\"classes\"), \",{class}(?=,)\", \"\"));\n  }}\n",
            tests.join(" && "),
        );
    }
    out
}

fn all_laws(form: &Form, laws: &[String]) -> bool {
    let has = |law: &str| laws.iter().any(|other| other == law);
    has("none") && has("other") && form.residency.laws.keys().all(|law| has(law))
}

/// An expression for a list of countries (`,DE,FR`, or nothing) that are all under these laws.
fn laws(form: &Form, laws: &[String]) -> String {
    let has = |law: &str| laws.iter().any(|other| other == law);
    let countries = form.residency.laws.iter().filter(|(law, _)| has(law)).flat_map(|(_, countries)| countries);
    let mut each: Vec<String> = countries.map(|country| format!(",{country}")).collect();
    if has("other") {
        let named = form.residency.laws.values().flatten().map(|c| c.as_str()).collect::<Vec<_>>().join("|");
        each.push(format!(",(?!(?:{named})(?:,|$))[A-Z][A-Z]"));
    }
    let repeated = if each.is_empty() { String::new() } else { format!("(?:{})", each.join("|")) };
    match (each.is_empty(), has("none")) {
        (true, _) => String::new(),
        (false, true) => format!("{repeated}*"),
        (false, false) => format!("{repeated}+"),
    }
}

fn answer_headers(form: &Form, of: &str) -> String {
    let one = |(name, value): &(String, String)| {
        format!("  if (!{of}.http.{name}) {{\n    set {of}.http.{name} = \"{value}\";\n  }}\n")
    };
    form.answer_headers.iter().map(one).collect()
}
