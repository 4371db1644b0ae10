//! The form as VCL 4.1 for Varnish 7 with varnish-modules.
//!
//! What is constant stands in `varnish/*.vcl` and reads as VCL; what follows from the form is generated here and put
//! in its places. Headers that begin with `rm-` are ours: they carry what was decided from one step to the next and
//! leave Varnish in neither direction. The program needs `-p max_retries=8 -p http_gzip_support=off -p http_range_support=off`.

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
    let parts = [
        ("@REVISION@", form.revision.clone()),
        ("@REGION@", options.region.to_string()),
        ("@BACKENDS@", backends(form)),
        ("@OPERATORS@", options.operators.iter().map(|one| format!("  {one};\n")).collect()),
        ("@COLLECT@", collect(form)),
        ("@LIMITS@", limits(form)),
        ("@GUARDS@", guards(form)),
        ("@RULES@", rules(form)),
        ("@ROUTES@", routes(form)),
        ("@COUNTRIES@", countries(form)),
        ("@NEXT@", next_region(form)),
        ("@PIPE@", pipe(form)),
        ("@SEARCH@", "  if (!bereq.http.rm-region) { call rm_next; }\n".repeat(form.origins.len().min(8))),
        ("@DECIDE@", decide(form)),
        ("@COVER@", cover(form)),
        ("@RESIDENCY@", residency(form, &place)),
        ("@ANSWER_HEADERS@", answer_headers(form)),
        ("@OBSERVE@", if options.observe { OBSERVE.to_owned() } else { String::new() }),
    ];
    parts
        .iter()
        .fold(MAIN.to_owned(), |text, (mark, part)| text.replace(&format!("{mark}\n"), part).replace(mark, part))
}

const OBSERVE: &str = r#"  # For tests: how the answer came about.
  set resp.http.repomind-test-came = req.http.rm-came;
  set resp.http.repomind-test-rule = req.http.rm-rule;
  set resp.http.repomind-test-key = req.http.rm-key;
  set resp.http.repomind-test-ttl = resp.http.rm-ttl;
  set resp.http.repomind-test-kept = resp.http.rm-kept;
  set resp.http.repomind-test-tags = resp.http.xkey;
  set resp.http.repomind-test-region = resp.http.rm-region;
"#;

/// A text inside a regular expression of PCRE.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_=:,&%".contains(c);
    text.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect()
}

fn any_of(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join("|")
}

/// A region's name as VCL names things.
fn symbol(region: &RegionId) -> String {
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

/// The condition of a match, or none for one that always holds.
fn condition(when: &RequestMatch, usual_methods: bool) -> Option<String> {
    let mut all = Vec::new();
    if !when.paths.is_empty() {
        all.push(format!("req.http.rm-path ~ \"^(?:{})\"", any_of(&when.paths)));
    }
    if !when.suffixes.is_empty() {
        all.push(format!("req.http.rm-path ~ \"(?:{})$\"", any_of(&when.suffixes)));
    }
    match (when.methods.is_empty(), usual_methods) {
        (false, _) => all.push(format!("req.method ~ \"^(?:{})$\"", any_of(&when.methods))),
        (true, true) => all.push("req.method ~ \"^(?:GET|HEAD)$\"".to_owned()),
        (true, false) => {}
    }
    for Named { name, value } in &when.headers {
        all.push(match value {
            Some(value) => format!("req.http.{name} == \"{value}\""),
            None => format!("req.http.{name}"),
        });
    }
    for Named { name, value } in &when.cookies {
        let value = value.as_ref().map_or(String::new(), |value| format!("{}\\s*(?:;|$)", quoted(value)));
        all.push(format!("req.http.Cookie ~ \"(?:^|;)\\s*{}={value}\"", quoted(name)));
    }
    (!all.is_empty()).then(|| all.join(" && "))
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
    names.iter().map(|name| format!("  std.collect(req.http.{name}, \", \");\n")).collect()
}

fn limits(form: &Form) -> String {
    let mut out = String::new();
    for limit in &form.limits {
        let key = match &limit.key {
            LimitKey::Client => "client.ip".to_owned(),
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
            all.push(format!("req.http.rm-path !~ \"^(?:{})\"", any_of(&auth.except)));
        }
        let test = if all.is_empty() { "true".to_owned() } else { all.join(" && ") };
        let word = if at == 0 { "if" } else { "elsif" };
        assert!(left_to_origin(auth), "a complaint is raised for guards that Varnish cannot keep");
        let _ = write!(
            out,
            "  {word} ({test}) {{\n    # {}: the origin verifies; here it must only be shown, and nothing of it is kept.\n    \
             if (req.http.Authorization !~ \"(?i)^bearer [a-z0-9_-]+\\.[a-z0-9_-]+\\.[a-z0-9_-]+$\") {{\n      \
             return (synth(401, \"Unauthorized\"));\n    }}\n    set req.http.rm-pass = \"origin-verifies\";\n  }}\n",
            auth.name
        );
    }
    out
}

fn rules(form: &Form) -> String {
    let mut out = String::new();
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| rule.refines()) {
        let test = condition(&rule.when, true).unwrap_or_else(|| "true".to_owned());
        let name = &rule.name;
        let _ = write!(out, "  if ({test}) {{\n    set req.http.rm-about = req.http.rm-about + \"{name},\";\n  }}\n");
    }
    let mut word = "if";
    for Rule { rule, revision } in form.rules.iter().filter(|rule| !rule.rule.refines()) {
        let test = condition(&rule.when, true).unwrap_or_else(|| "true".to_owned());
        let name = &rule.name;
        let _ = write!(out, "  {word} ({test}) {{\n    set req.http.rm-rule = \"{name}\";\n");
        if rule.bypass || rule.edge_ttl_seconds == 0 {
            out.push_str("    call rm_bypass;\n");
        } else {
            let _ = write!(out, "    set req.http.rm-revision = \"{revision}\";\n{}", key(rule));
        }
        out.push_str("  }\n");
        word = "elsif";
    }
    if word == "elsif" {
        out.push_str("  else {\n    call rm_bypass;\n  }\n");
    } else {
        out.push_str("  call rm_bypass;\n");
    }
    out
}

/// Statements that make the key of a rule, and reduce what reaches the origin to what is in it.
fn key(rule: &CacheRule) -> String {
    const ESCAPED: &str = "regsuball(regsuball(VALUE, \"%\", \"%25\"), \" \", \"%20\")";
    let mut out = String::from("    set req.http.rm-key = \"\";\n");
    let mut part = |name: &str, value: &str| {
        let _ = writeln!(out, "    set req.http.rm-key = req.http.rm-key + \" {name}=\" + {value};");
    };
    let mut query = String::new();
    let mut cookies = Vec::new();
    for piece in &rule.key {
        match piece {
            KeyPart::Host => part("host", "req.http.rm-host"),
            KeyPart::Path => part("path", "req.http.rm-path"),
            KeyPart::Country => part("country", "req.http.rm-country"),
            KeyPart::Query | KeyPart::QueryExcept(_) | KeyPart::QueryOnly(_) => {
                query = query_statements(piece);
                part("query", "req.http.rm-query");
            }
            KeyPart::Header(name) => {
                part(&format!("header:{name}"), &ESCAPED.replace("VALUE", &format!("req.http.{name}")))
            }
            KeyPart::Cookie(name) => {
                let header = format!("req.http.rm-cookie-{}", cookies.len());
                part(&format!("cookie:{name}"), &ESCAPED.replace("VALUE", &header));
                cookies.push((header, name));
            }
        }
    }
    let mut before = query;
    for (header, name) in &cookies {
        let name = quoted(name);
        let _ = write!(
            before,
            "    set {header} = \"\";\n    if (req.http.Cookie ~ \"(?:^|;)\\s*{name}=\") {{\n      set {header} = \
             regsub(req.http.Cookie, \"^(?:[^;]*;)*?\\s*{name}=([^;]*?)\\s*(?:;.*)?$\", \"\\1\");\n    }}\n"
        );
    }
    for vary in &rule.vary {
        before.push_str(&normalise(&vary.header, &vary.values));
        let _ =
            writeln!(out, "    set req.http.rm-key = req.http.rm-key + \" vary:{0}=\" + req.http.{0};", vary.header);
    }
    before.push_str(&out);
    before.push_str("    set req.http.rm-key = regsub(req.http.rm-key, \"^ \", \"\");\n");
    if cookies.is_empty() {
        before.push_str("    set req.http.rm-cookies = \"\";\n");
    } else {
        let pairs = cookies.iter().map(|(header, name)| format!("\"{name}=\" + {header}")).collect::<Vec<_>>();
        let _ = writeln!(before, "    set req.http.rm-cookies = {};", pairs.join(" + \"; \" + "));
    }
    before
}

fn query_statements(part: &KeyPart) -> String {
    let sorted = "    set req.http.rm-query = regsub(std.querysort(\"/?\" + req.http.rm-query), \"^/\\??\", \"\");\n";
    match part {
        KeyPart::QueryExcept(names) => format!(
            "    set req.http.rm-query = regsuball(\"&\" + req.http.rm-query, \"&(?:{})(?:=[^&]*)?(?=&|$)\", \"\");\n    \
             set req.http.rm-query = regsuball(regsuball(req.http.rm-query, \"&+\", \"&\"), \"^&|&$\", \"\");\n{sorted}",
            any_of(names)
        ),
        KeyPart::QueryOnly(names) => {
            let mut out = String::from("    set req.http.rm-found = \"\";\n");
            for name in names {
                let regex = quoted(name);
                let _ = write!(
                    out,
                    "    if (req.http.rm-query ~ \"(?:^|&){regex}(?:=|&|$)\") {{\n      set req.http.rm-found = \
                     req.http.rm-found + \"&{name}=\" + regsub(req.http.rm-query, \
                     \"^(?:[^&]*&)*?{regex}(?:=([^&]*))?(?:&.*)?$\", \"\\1\");\n    }}\n"
                );
            }
            out + "    set req.http.rm-query = regsub(req.http.rm-found, \"^&\", \"\");\n"
        }
        _ => format!(
            "    set req.http.rm-query = regsuball(regsuball(req.http.rm-query, \"&+\", \"&\"), \"^&|&$\", \"\");\n{sorted}"
        ),
    }
}

/// Reduces a header to the first of the values that it accepts.
fn normalise(header: &str, values: &[String]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let word = if at == 0 { "if" } else { "elsif" };
        let value_in = quoted(value);
        let _ = write!(
            out,
            "    {word} (req.http.{header} ~ \"(?i)(?:^|,)\\s*{value_in}(?:-[^,;]*)?\\s*(?:;(?!\\s*q=\\s*0(?:\\.0*)?\\s*(?:[;,]|$))[^,]*)?(?:,|$)\") {{\n      \
             set req.http.{header} = \"{value}\";\n    }}\n"
        );
    }
    let first = values.first().map_or("", String::as_str);
    out + &format!("    else {{\n      set req.http.{header} = \"{first}\";\n    }}\n")
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

fn answer_headers(form: &Form) -> String {
    let one = |(name, value): &(String, String)| {
        format!("  if (!resp.http.{name}) {{\n    set resp.http.{name} = \"{value}\";\n  }}\n")
    };
    form.answer_headers.iter().map(one).collect()
}
