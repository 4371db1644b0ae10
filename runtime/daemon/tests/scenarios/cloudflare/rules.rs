//! What the API does with a call, and what it refuses, by its documentation: fields that must be there, fields that it
//! does not know, names, references to what is not there, and what a version's upload may not bring.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::fake::{ACCOUNT, Answer, Request, State, Version, ZONE, failed};

const ZONE_NAME: &str = "example.org";

type Outcome = Result<Answer, Answer>;

fn good(result: Value) -> Answer {
    let body = json!({"success": true, "errors": [], "messages": [], "result": result});
    Answer { status: 200, headers: Vec::new(), body }
}

fn refuse<T>(code: i64, message: impl Into<String>) -> Result<T, Answer> {
    Err(failed(400, code, &message.into()))
}

fn absent<T>(what: &str) -> Result<T, Answer> {
    Err(failed(404, 10007, &format!("{what} not found")))
}

pub fn answer(request: &Request, path: &str, state: &mut State) -> Outcome {
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let method = request.method.as_str();
    match words.as_slice() {
        ["zones", zone, ..] if *zone != ZONE => absent("zone"),
        ["accounts", account, ..] if *account != ACCOUNT => absent("account"),
        ["zones", _] if method == "GET" => Ok(good(json!({
            "id": ZONE, "name": ZONE_NAME, "status": "active", "plan": {"legacy_id": state.plan},
        }))),
        ["zones", _, "purge_cache"] => purge(request, state),
        ["zones", _, "rulesets", rest @ ..] => rulesets(request, rest, state),
        ["zones", _, "workers", "routes", rest @ ..] => things(request, "routes", rest, state),
        ["zones", _, "load_balancers", rest @ ..] => things(request, "balancers", rest, state),
        ["accounts", _, "load_balancers", "monitors", rest @ ..] => things(request, "monitors", rest, state),
        ["accounts", _, "load_balancers", "pools", rest @ ..] => things(request, "pools", rest, state),
        ["accounts", _, "storage", "kv", "namespaces", rest @ ..] => things(request, "kv", rest, state),
        ["accounts", _, "workers", "scripts", rest @ ..] => scripts(request, rest, state),
        _ => absent("endpoint"),
    }
}

/// A body as a person reads it in a golden file.
pub fn readable(request: &Request) -> Value {
    match form(request) {
        Some(parts) => Value::Object(
            parts
                .into_iter()
                .map(|(name, (media, text))| {
                    let text = if media == "application/json" {
                        serde_json::from_str(&text).unwrap_or_default()
                    } else {
                        json!(text)
                    };
                    (name, json!({"type": media, "content": text}))
                })
                .collect(),
        ),
        None => serde_json::from_slice(&request.body).unwrap_or_default(),
    }
}

/// The parts of a form by name, with media type and text.
fn form(request: &Request) -> Option<BTreeMap<String, (String, String)>> {
    let boundary = request.headers.get("content-type")?.strip_prefix("multipart/form-data; boundary=")?;
    let text = String::from_utf8(request.body.clone()).ok()?;
    let text = text.strip_suffix(&format!("\r\n--{boundary}--\r\n"))?;
    let mut parts = BTreeMap::new();
    for part in format!("\r\n{text}").split(&format!("\r\n--{boundary}\r\n")).skip(1) {
        let (head, body) = part.split_once("\r\n\r\n")?;
        let name = head.split("name=\"").nth(1)?.split('"').next()?.to_owned();
        let media = head.lines().find_map(|line| line.strip_prefix("Content-Type: "))?.to_owned();
        parts.insert(name, (media, body.to_owned()));
    }
    Some(parts)
}

fn json_body(request: &Request) -> Result<Value, Answer> {
    if request.headers.get("content-type").map(String::as_str) != Some("application/json") {
        return refuse(6003, "Invalid request headers: Content-Type");
    }
    serde_json::from_slice(&request.body).or_else(|_| refuse(6007, "Malformed JSON in request body"))
}

/// Refuses fields that are not known, and the lack of those that must be there.
fn fields(body: &Value, must: &[&str], may: &[&str]) -> Result<(), Answer> {
    let Some(object) = body.as_object() else { return refuse(10001, "an object is expected") };
    if let Some(missing) = must.iter().find(|name| !object.contains_key(**name)) {
        return refuse(10001, format!("missing field {missing}"));
    }
    match object.keys().find(|name| !must.contains(&name.as_str()) && !may.contains(&name.as_str())) {
        Some(unknown) => refuse(10001, format!("unknown field {unknown}")),
        None => Ok(()),
    }
}

fn purge(request: &Request, state: &mut State) -> Outcome {
    let body = json_body(request)?;
    fields(&body, &["tags"], &[])?;
    let tags = body["tags"].as_array().map_or(0, Vec::len);
    if !(1..=30).contains(&tags) {
        return refuse(1016, "tags: 1 to 30 of them");
    }
    state.purged.0.push(body);
    Ok(good(json!({"id": ZONE})))
}

fn things(request: &Request, kind: &'static str, rest: &[&str], state: &mut State) -> Outcome {
    let at = match rest {
        [] => None,
        [id] => match state.list(kind).iter().position(|one| one["id"] == *id) {
            Some(at) => Some(at),
            None => return absent(kind),
        },
        _ => return absent("endpoint"),
    };
    match (request.method.as_str(), at) {
        ("GET", None) => Ok(paged(request, state.list(kind).clone())),
        ("POST", None) => {
            let mut body = json_body(request)?;
            check(kind, &body, None, state)?;
            body["id"] = json!(state.id());
            body["created_on"] = json!("2026-01-01T00:00:00Z");
            state.list(kind).push(body.clone());
            Ok(good(body))
        }
        ("PUT" | "PATCH", Some(at)) => {
            let body = json_body(request)?;
            let mut whole = state.list(kind)[at].clone();
            if request.method == "PUT" {
                whole = json!({"id": whole["id"]});
            }
            for (name, value) in body.as_object().into_iter().flatten() {
                whole[name] = value.clone();
            }
            let mut without = whole.clone();
            for name in ["id", "created_on", "notification_email"] {
                without.as_object_mut().expect("an object").remove(name);
            }
            check(kind, &without, Some(at), state)?;
            state.list(kind)[at] = whole.clone();
            Ok(good(whole))
        }
        ("DELETE", Some(at)) => {
            let id = state.list(kind)[at]["id"].clone();
            in_use(kind, &id, state)?;
            state.list(kind).remove(at);
            Ok(good(json!({"id": id})))
        }
        _ => Err(failed(405, 10405, "method not allowed")),
    }
}

fn paged(request: &Request, all: Vec<Value>) -> Answer {
    let number = |name: &str, standard: usize| {
        let found = request.query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        found.and_then(|text| text.parse().ok()).unwrap_or(standard)
    };
    // Small pages, so that one who reads only the first is found out.
    let (page, size) = (number("page", 1).max(1), number("per_page", 20).min(5));
    let pages = all.len().div_ceil(size).max(1);
    let count = all.len();
    let mut answer = good(json!(all.into_iter().skip((page - 1) * size).take(size).collect::<Vec<_>>()));
    answer.body["result_info"] = json!({"page": page, "per_page": size, "total_pages": pages, "total_count": count});
    answer
}

fn in_use(kind: &str, id: &Value, state: &mut State) -> Result<(), Answer> {
    let used = match kind {
        "monitors" => state.list("pools").iter().any(|pool| pool["monitor"] == *id),
        "pools" => state.list("balancers").iter().any(|balancer| {
            balancer["fallback_pool"] == *id || balancer["default_pools"].as_array().is_some_and(|all| all.contains(id))
        }),
        _ => false,
    };
    if used { Err(failed(412, 1005, "Precondition failed: it is referenced")) } else { Ok(()) }
}

fn check(kind: &str, body: &Value, at: Option<usize>, state: &mut State) -> Result<(), Answer> {
    let twice = |list: &[Value], field: &str| {
        list.iter().enumerate().any(|(other, one)| Some(other) != at && one[field] == body[field])
    };
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    match kind {
        "routes" => {
            fields(body, &["pattern"], &["script"])?;
            let pattern = text("pattern");
            let host = pattern.split('/').next().unwrap_or_default();
            if !host.ends_with(ZONE_NAME)
                || pattern.contains('?')
                || pattern.trim_end_matches('*').trim_start_matches('*').contains('*')
            {
                return refuse(10022, "workers.api.error.invalid_route_pattern");
            }
            if twice(state.list("routes"), "pattern") {
                return Err(failed(409, 10020, "workers.api.error.duplicate_route"));
            }
            if !text("script").is_empty() && !state.scripts.contains_key(&text("script")) {
                return refuse(10019, "workers.api.error.invalid_route_script_missing");
            }
        }
        "kv" => {
            fields(body, &["title"], &[])?;
            if twice(state.list("kv"), "title") {
                return refuse(10014, "a namespace with this account ID and title already exists");
            }
        }
        "monitors" => {
            let may = [
                "description",
                "method",
                "path",
                "interval",
                "timeout",
                "retries",
                "follow_redirects",
                "allow_insecure",
            ];
            fields(body, &["type", "expected_codes"], &may)?;
            let within =
                |field: &str, low: u64, high: u64| body[field].as_u64().is_some_and(|n| (low..=high).contains(&n));
            let least = if state.plan == "enterprise" { 10 } else { 15 };
            if !within("interval", least, 3600) || !within("timeout", 1, 10) || !within("retries", 0, 5) {
                return refuse(1002, "interval, timeout or retries out of bounds");
            }
        }
        "pools" => {
            fields(body, &["name", "origins"], &["description", "enabled", "minimum_origins", "monitor"])?;
            if !text("name").chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
                || twice(state.list("pools"), "name")
            {
                return refuse(1002, "pool name is invalid or taken");
            }
            if !body["monitor"].is_null() && !state.list("monitors").iter().any(|one| one["id"] == body["monitor"]) {
                return refuse(1002, "monitor does not exist");
            }
            for origin in body["origins"].as_array().into_iter().flatten() {
                fields(origin, &["name", "address"], &["enabled", "weight", "header", "port"])?;
            }
        }
        _ => {
            let may = ["description", "proxied", "steering_policy", "country_pools", "session_affinity"];
            fields(body, &["name", "default_pools", "fallback_pool"], &may)?;
            let pools: BTreeSet<String> =
                state.list("pools").iter().filter_map(|pool| pool["id"].as_str().map(str::to_owned)).collect();
            let by_country = body["country_pools"].as_object().into_iter().flat_map(|all| all.values());
            let lists = [&body["default_pools"]].into_iter().chain(by_country);
            let named: Vec<&Value> = lists.flat_map(|list| list.as_array().into_iter().flatten()).collect();
            if named.iter().any(|id| !id.as_str().is_some_and(|id| pools.contains(id)))
                || twice(state.list("balancers"), "name")
            {
                return refuse(1002, "a pool does not exist, or the name is taken");
            }
            if body.get("country_pools").is_some() && state.plan != "enterprise" {
                return refuse(1003, "country_pools needs an entitlement");
            }
        }
    }
    Ok(())
}

fn rulesets(request: &Request, rest: &[&str], state: &mut State) -> Outcome {
    match (request.method.as_str(), rest) {
        ("GET", ["phases", "http_request_cache_settings", "entrypoint"]) => match &state.ruleset {
            Some(ruleset) => Ok(good(ruleset.clone())),
            None => Err(failed(404, 10003, "could not find entrypoint ruleset in the phase")),
        },
        ("POST", []) => {
            let body = json_body(request)?;
            fields(&body, &["name", "kind", "phase", "rules"], &["description"])?;
            if state.ruleset.is_some() {
                return refuse(
                    20217,
                    "'zone' is not a valid value for kind because exceeded maximum number of zone rulesets in the phase",
                );
            }
            let rules = body["rules"].as_array().cloned().unwrap_or_default();
            let rules = rules.into_iter().map(|rule| rule_with_id(rule, state)).collect::<Result<Vec<_>, _>>()?;
            let ruleset =
                json!({"id": state.id(), "kind": "zone", "phase": body["phase"], "version": "1", "rules": rules});
            state.ruleset = Some(ruleset.clone());
            Ok(good(ruleset))
        }
        (method, [id, "rules", rest @ ..]) => {
            if state.ruleset.as_ref().is_none_or(|ruleset| ruleset["id"] != *id) {
                return absent("ruleset");
            }
            let mut rules =
                state.ruleset.as_ref().expect("it is there")["rules"].as_array().cloned().unwrap_or_default();
            match (method, rest) {
                ("POST", []) => rules.push(rule_with_id(json_body(request)?, state)?),
                ("PATCH", [rule]) => {
                    let Some(at) = rules.iter().position(|one| one["id"] == *rule) else { return absent("rule") };
                    let mut body = rule_with_id(json_body(request)?, state)?;
                    body["id"] = rules[at]["id"].clone();
                    rules[at] = body;
                }
                ("DELETE", [rule]) => {
                    let Some(at) = rules.iter().position(|one| one["id"] == *rule) else { return absent("rule") };
                    rules.remove(at);
                }
                _ => return Err(failed(405, 10405, "method not allowed")),
            }
            let ruleset = state.ruleset.as_mut().expect("it is there");
            ruleset["rules"] = json!(rules);
            Ok(good(ruleset.clone()))
        }
        _ => absent("endpoint"),
    }
}

fn rule_with_id(mut rule: Value, state: &mut State) -> Result<Value, Answer> {
    fields(&rule, &["action", "expression"], &["ref", "description", "action_parameters", "enabled"])?;
    if rule["action"] != "set_cache_settings" {
        return refuse(20016, "the action is not one of this phase");
    }
    fields(&rule["action_parameters"], &["cache"], &["edge_ttl", "browser_ttl"])?;
    rule["id"] = json!(state.id());
    Ok(rule)
}

fn scripts(request: &Request, rest: &[&str], state: &mut State) -> Outcome {
    match (request.method.as_str(), rest) {
        ("GET", []) => Ok(good(json!(
            state
                .scripts
                .iter()
                .map(|(name, script)| json!({
                    "id": name, "tags": script.tags, "migration_tag": script.migration,
                }))
                .collect::<Vec<_>>()
        ))),
        ("PUT", [name]) => put_script(request, name, state),
        ("DELETE", [name]) => {
            if state.scripts.remove(*name).is_none() {
                return absent("script");
            }
            Ok(good(Value::Null))
        }
        (method, [name, rest @ ..]) => {
            if !state.scripts.contains_key(*name) {
                return absent("script");
            }
            match (method, rest) {
                ("GET", ["versions"]) => {
                    let script = &state.scripts[*name];
                    let one = |(at, version): (usize, &Version)| {
                        json!({
                            "id": version.id, "number": at + 1, "annotations": version.metadata.get("annotations"),
                        })
                    };
                    let all: Vec<Value> = script.versions.iter().enumerate().map(one).rev().collect();
                    let mut answer = paged(request, all);
                    answer.body["result"] = json!({"items": answer.body["result"]});
                    Ok(answer)
                }
                ("POST", ["versions"]) => post_version(request, name, state),
                ("GET", ["deployments"]) => Ok(good(json!({"deployments": state.scripts[*name].deployments}))),
                ("POST", ["deployments"]) => deploy(request, name, state),
                _ => absent("endpoint"),
            }
        }
        _ => absent("endpoint"),
    }
}

fn put_script(request: &Request, name: &str, state: &mut State) -> Outcome {
    let (metadata, modules) = uploaded(request, &["migrations", "tags"])?;
    if state.echo {
        return refuse(10021, format!("invalid metadata: {metadata}"));
    }
    let migrations = &metadata["migrations"];
    let script = state.scripts.get(name);
    let released = script.and_then(|script| script.migration.clone());
    if metadata.get("migrations").is_some() {
        fields(migrations, &["new_tag", "steps"], &["old_tag"])?;
        if migrations["old_tag"].as_str().map(str::to_owned) != released {
            return Err(failed(412, 10079, "migration tag precondition failed"));
        }
    }
    let classes = migrations["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|step| step["new_sqlite_classes"].as_array().cloned().unwrap_or_default());
    let code: String = modules.values().cloned().collect();
    for class in classes {
        let class = class.as_str().unwrap_or_default().to_owned();
        if !code.contains(&class) {
            return refuse(10070, format!("new-class migration for class '{class}' that is not exported"));
        }
    }
    if released.is_none() && metadata.get("migrations").is_none() {
        return refuse(10061, "a durable object binding to a class that has no namespace");
    }
    let version = Version { id: uuid(state), metadata: metadata.clone(), modules };
    let deployment = json!({
        "id": uuid(state), "source": "api", "strategy": "percentage", "author_email": "ours@example.org",
        "versions": [{"version_id": version.id, "percentage": 100}],
    });
    let script = state.scripts.entry(name.to_owned()).or_default();
    script.migration = migrations["new_tag"].as_str().map(str::to_owned).or(released);
    script.tags =
        metadata["tags"].as_array().into_iter().flatten().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
    script.versions.push(version);
    script.deployments.push_front(deployment);
    Ok(good(json!({"id": name, "startup_time_ms": 10})))
}

fn post_version(request: &Request, name: &str, state: &mut State) -> Outcome {
    let (metadata, modules) = uploaded(request, &["annotations"])?;
    let annotation = |name: &str| metadata["annotations"][name].as_str().unwrap_or_default().len();
    if annotation("workers/tag") > 25 || annotation("workers/message") > 100 {
        return refuse(10021, "validation failures: annotation is too long");
    }
    let version = Version { id: uuid(state), metadata, modules };
    let id = version.id.clone();
    let stranger = state.stranger_after_upload.then(|| uuid(state));
    let script = state.scripts.get_mut(name).expect("it is there");
    script.versions.push(version);
    if let Some(deployment) = stranger {
        let first = json!([{"version_id": script.versions[0].id, "percentage": 100}]);
        script.deployments.push_front(json!({"id": deployment, "author_email": "eve@example.org", "versions": first}));
    }
    Ok(good(json!({"id": id, "number": script.versions.len(), "resources": {}})))
}

fn deploy(request: &Request, name: &str, state: &mut State) -> Outcome {
    let body = json_body(request)?;
    fields(&body, &["strategy", "versions"], &["annotations"])?;
    let shares = body["versions"].as_array().cloned().unwrap_or_default();
    let sum: f64 = shares.iter().filter_map(|share| share["percentage"].as_f64()).sum();
    if !(1..=2).contains(&shares.len()) || sum != 100.0 || body["strategy"] != "percentage" {
        return refuse(10076, "one or two versions, and 100 percent together");
    }
    let script = &state.scripts[name];
    if shares.iter().any(|share| !script.versions.iter().any(|version| share["version_id"] == version.id)) {
        return refuse(10077, "a version that is not there");
    }
    let deployment = json!({
        "id": uuid(state), "source": "api", "strategy": "percentage", "author_email": "ours@example.org", "versions": shares,
    });
    state.scripts.get_mut(name).expect("it is there").deployments.push_front(deployment.clone());
    Ok(good(deployment))
}

fn uuid(state: &mut State) -> String {
    let id = state.id();
    format!("{}-{}-4000-8000-{}", &id[12..20], &id[16..20], &id[20..])
}

/// The metadata and modules of an upload, checked.
fn uploaded(request: &Request, more: &[&str]) -> Result<(Value, BTreeMap<String, String>), Answer> {
    let Some(mut parts) = form(request) else { return refuse(10058, "multipart/form-data is expected") };
    let Some((media, metadata)) = parts.remove("metadata") else { return refuse(10021, "metadata is missing") };
    let metadata: Value = serde_json::from_str(&metadata).unwrap_or_default();
    if media != "application/json" {
        return refuse(10021, "metadata is no JSON");
    }
    fields(&metadata, &["main_module"], &[&["bindings", "compatibility_date"], more].concat())?;
    let main = metadata["main_module"].as_str().unwrap_or_default();
    if !parts.contains_key(main) {
        return refuse(10021, "the main module is missing");
    }
    if parts.values().any(|(media, _)| media != "application/javascript+module") {
        return refuse(10021, "a module's type is not known");
    }
    let mut names = BTreeSet::new();
    for binding in metadata["bindings"].as_array().into_iter().flatten() {
        let must: &[&str] = match binding["type"].as_str().unwrap_or_default() {
            "durable_object_namespace" => &["type", "name", "class_name"],
            "ratelimit" => &["type", "name", "namespace_id", "simple"],
            "kv_namespace" => &["type", "name", "namespace_id"],
            "secret_text" => &["type", "name", "text"],
            "version_metadata" => &["type", "name"],
            other => return refuse(10021, format!("binding of type {other:?}")),
        };
        fields(binding, must, &[])?;
        let name = binding["name"].as_str().unwrap_or_default();
        if !names.insert(name.to_owned()) {
            return refuse(10021, format!("binding {name} twice"));
        }
        if binding["type"] == "ratelimit"
            && ![10, 60].contains(&binding["simple"]["period"].as_u64().unwrap_or_default())
        {
            return refuse(10021, "a rate limit's period is 10 or 60");
        }
    }
    Ok((metadata, parts.into_iter().map(|(name, (_, text))| (name, text)).collect()))
}
