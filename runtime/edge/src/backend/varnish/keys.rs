//! Keys as VCL: what is hashed, and what has to be made ready for it.
//!
//! Hashing is most of the work for an answer that is found, so that it takes no header that it can do without: the
//! target is brought into its canonical form inside the call. Where tests observe, the key is written out besides, as
//! the reference has it.

use std::fmt::Write as _;

use model::edge::{CacheRule, KeyPart};

use super::super::TAKEN_FOR_OTHERS;
use super::{any_of, covered, keeps, quoted};
use crate::form::{Form, Rule};

const HOST: &str = "regsub(req.http.Host.lower(), \":[0-9]+$\", \"\")";
const PATH: &str = "regsub(req.url, \"\\?.*$\", \"\")";
const QUERY: &str = "regsub(req.url, \"^[^?]*\\??\", \"\")";
/// Spaces part the parts of a key.
const ESCAPED: &str = "regsuball(regsuball(VALUE, \"%\", \"%25\"), \" \", \"%20\")";

/// Statements that hash the key of each rule, with its revision.
pub fn hash(form: &Form) -> String {
    let mut out = String::new();
    let mut word = "if";
    for Rule { rule, revision } in form.rules.iter().filter(|rule| keeps(&rule.rule)) {
        let _ = write!(out, "  {word} (req.http.rm-rule == \"{}\") {{\n    hash_data(\"{revision}\");\n", rule.name);
        hash_key(&mut out, rule);
        out.push_str("  }\n");
        word = "elsif";
    }
    out
}

fn hash_key(out: &mut String, rule: &CacheRule) {
    let mut at = 0;
    while let Some(part) = rule.key.get(at) {
        at += 1;
        let query = rule.key.get(at).and_then(excepted);
        if let (KeyPart::Path, Some(except)) = (part, query) {
            // Both at once, from the target as it came.
            at += 1;
            hash_target(out, except);
        } else if *part == KeyPart::Host {
            let _ = writeln!(out, "    hash_data({HOST});");
        } else {
            let _ = writeln!(out, "    hash_data(\" {}=\" + {});", label(part), expression(part, rule, at - 1));
        }
    }
    for vary in &rule.vary {
        let _ = writeln!(out, "    hash_data(\" vary:{0}=\" + req.http.{0});", vary.header);
    }
}

/// Statements that reduce a request to the key of its rule.
pub fn by_key(form: &Form) -> String {
    let rules = || form.rules.iter().map(|rule| &rule.rule).filter(|rule| keeps(rule));
    let in_some_key = |name: &&str| rules().any(|rule| covered(rule).iter().any(|covered| covered == name));
    let (some, none): (Vec<&str>, Vec<&str>) = TAKEN_FOR_OTHERS.iter().copied().partition(in_some_key);
    let mut out: String = none.iter().map(|name| taken_for_others(name, "  ")).collect();
    for (at, rule) in rules().enumerate() {
        let word = if at == 0 { "if" } else { "elsif" };
        let query = rule.key.iter().find_map(|part| match part {
            KeyPart::QueryOnly(_) => Some("req.http.rm-query".to_owned()),
            part => excepted(part).map(sorted),
        });
        let target = query.map_or(PATH.to_owned(), |query| format!("regsub({PATH} + \"?\" + {query}, \"\\?$\", \"\")"));
        let host = match rule.key.contains(&KeyPart::Host) {
            true => format!("set req.http.Host = {HOST};"),
            false => "set req.http.rm-hostless = \"1\";".to_owned(),
        };
        let covered = covered(rule);
        let free = some.iter().filter(|name| !covered.iter().any(|covered| covered == *name));
        let free: String = free.map(|name| taken_for_others(name, "    ")).collect();
        let _ = write!(
            out,
            "  {word} (req.http.rm-rule == \"{}\") {{\n    set req.url = {target};\n    {host}\n{free}  }}\n",
            rule.name
        );
    }
    out
}

/// Takes away a header that services take for another host, scheme, path or method.
fn taken_for_others(name: &str, indent: &str) -> String {
    match name {
        "x-forwarded-proto" => format!("{indent}set req.http.x-forwarded-proto = \"https\";\n"),
        name => format!("{indent}unset req.http.{name};\n"),
    }
}

/// The parameters that a sorted query is without.
fn excepted(part: &KeyPart) -> Option<&[String]> {
    match part {
        KeyPart::Query => Some(&[]),
        KeyPart::QueryExcept(names) => Some(names),
        _ => None,
    }
}

/// Hashes path and sorted query. Where no `&` stands before the first `?`, and no `?` after it, one expression takes
/// out parameters from the target itself; another target, which hardly anybody sends, is taken apart first.
fn hash_target(out: &mut String, except: &[String]) {
    let taken = match except {
        [] => String::new(),
        names => format!("(?:(?:{})(?:=[^&]*)?)?", any_of(names)),
    };
    let _ = write!(
        out,
        "    if (req.url ~ \"^[^?&]*\\?[^?]*$\") {{\n      hash_data(std.querysort(regsub(regsuball(req.url, \
         \"(?<=[?&]){taken}(?:&|$)\", \"\"), \"[?&]+$\", \"\")));\n    }} elsif (req.url ~ \"\\?\") {{\n      \
         hash_data(regsub({PATH} + \"?\" + {}, \"\\?$\", \"\"));\n    }} else {{\n      hash_data(req.url);\n    }}\n",
        sorted(except)
    );
}

/// The query without these parameters, sorted.
fn sorted(except: &[String]) -> String {
    let given = match except {
        [] => QUERY.to_owned(),
        names => format!("regsuball(\"&\" + {QUERY}, \"&(?:{})(?:=[^&]*)?(?=&|$)\", \"\")", any_of(names)),
    };
    let tidy = format!("regsuball(regsuball({given}, \"&+\", \"&\"), \"^&|&$\", \"\")");
    format!("regsub(std.querysort(\"/?\" + {tidy}), \"^/\\??\", \"\")")
}

/// The name of a part in a key.
fn label(part: &KeyPart) -> String {
    match part {
        KeyPart::Host => "host".to_owned(),
        KeyPart::Path => "path".to_owned(),
        KeyPart::Query | KeyPart::QueryOnly(_) | KeyPart::QueryExcept(_) => "query".to_owned(),
        KeyPart::Header(name) => format!("header:{name}"),
        KeyPart::Cookie(name) => format!("cookie:{name}"),
        KeyPart::Country => "country".to_owned(),
    }
}

/// The value of the part at this place of a rule's key.
fn expression(part: &KeyPart, rule: &CacheRule, at: usize) -> String {
    match part {
        KeyPart::Host => HOST.to_owned(),
        KeyPart::Path => PATH.to_owned(),
        KeyPart::Query => sorted(&[]),
        KeyPart::QueryExcept(names) => sorted(names),
        KeyPart::QueryOnly(_) => "req.http.rm-query".to_owned(),
        KeyPart::Header(name) => ESCAPED.replace("VALUE", &format!("req.http.{name}")),
        KeyPart::Cookie(_) => ESCAPED.replace("VALUE", &cookie_header(rule, at)),
        KeyPart::Country => "req.http.rm-country".to_owned(),
    }
}

/// The header that holds the cookie of the part at this place.
fn cookie_header(rule: &CacheRule, at: usize) -> String {
    let before = rule.key.iter().take(at).filter(|part| matches!(part, KeyPart::Cookie(_))).count();
    format!("req.http.rm-cookie-{before}")
}

/// What has to be ready before a key is hashed, rule by rule; cookies go, but for those in the key.
pub fn prepare(form: &Form, observe: bool) -> String {
    let mut out = String::from("  unset req.http.rm-cookies;\n");
    for rule in form.rules.iter().map(|rule| &rule.rule).filter(|rule| keeps(rule)) {
        let mut statements = statements(rule);
        if observe {
            statements.push_str(&written(rule));
        }
        if !statements.is_empty() {
            let _ = write!(out, "  if (req.http.rm-rule == \"{}\") {{\n{statements}  }}\n", rule.name);
        }
    }
    if out.contains("set req.http.rm-cookies =") {
        out + "  set req.http.Cookie = req.http.rm-cookies;\n  if (req.http.Cookie == \"\") {\n    unset req.http.Cookie;\n  }\n"
    } else {
        out.replace("  unset req.http.rm-cookies;\n", "") + "  unset req.http.Cookie;\n"
    }
}

fn statements(rule: &CacheRule) -> String {
    let mut out = String::new();
    let mut pairs = Vec::new();
    for (at, part) in rule.key.iter().enumerate() {
        match part {
            KeyPart::Country => out.push_str("    call rm_country;\n"),
            KeyPart::QueryOnly(names) => out.push_str(&query_only(names)),
            KeyPart::Cookie(name) => {
                let header = cookie_header(rule, at);
                let named = quoted(name);
                let _ = write!(
                    out,
                    "    set {header} = \"\";\n    if (req.http.Cookie ~ \"(?:^|;)\\s*{named}=\") {{\n      set {header} = \
                     regsub(req.http.Cookie, \"^(?:[^;]*;)*?\\s*{named}=([^;]*?)\\s*(?:;.*)?$\", \"\\1\");\n    }}\n"
                );
                pairs.push(format!("\"{name}=\" + {header}"));
            }
            _ => {}
        }
    }
    if !pairs.is_empty() {
        let _ = writeln!(out, "    set req.http.rm-cookies = {};", pairs.join(" + \"; \" + "));
    }
    for vary in &rule.vary {
        out.push_str(&normalise(&vary.header, &vary.values));
    }
    out
}

/// The first parameter of each name, in the order of the names.
fn query_only(names: &[String]) -> String {
    let mut out = String::from("    set req.http.rm-query = \"\";\n");
    for name in names {
        let named = quoted(name);
        let _ = write!(
            out,
            "    if ({QUERY} ~ \"(?:^|&){named}(?:=|&|$)\") {{\n      set req.http.rm-query = req.http.rm-query + \
             \"&{name}=\" + regsub({QUERY}, \"^(?:[^&]*&)*?{named}(?:=([^&]*))?(?:&.*)?$\", \"\\1\");\n    }}\n"
        );
    }
    out + "    set req.http.rm-query = regsub(req.http.rm-query, \"^&\", \"\");\n"
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

/// The key written out, for tests.
fn written(rule: &CacheRule) -> String {
    let parts = rule.key.iter().enumerate().map(|(at, part)| {
        let value = match part {
            KeyPart::Host => ESCAPED.replace("VALUE", HOST),
            part => expression(part, rule, at),
        };
        format!("\"{}=\" + {value}", label(part))
    });
    let varied = rule.vary.iter().map(|vary| format!("\"vary:{0}=\" + req.http.{0}", vary.header));
    let all: Vec<String> = parts.chain(varied).collect();
    format!("    set req.http.rm-key = {};\n", all.join(" + \" \" + "))
}

/// Takes what was made ready away from what the regions see.
pub fn clean(form: &Form) -> String {
    let cookies = |rule: &Rule| rule.rule.key.iter().filter(|part| matches!(part, KeyPart::Cookie(_))).count();
    let most = form.rules.iter().map(cookies).max().unwrap_or(0);
    let headers = (0..most).map(|at| format!("rm-cookie-{at}"));
    let headers = headers.chain(["rm-cookies", "rm-query"].map(str::to_owned));
    headers.map(|header| format!("  unset bereq.http.{header};\n")).collect()
}
