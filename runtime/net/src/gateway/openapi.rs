//! `/openapi.json`: the API in OpenAPI 3.1, made from the table of routes, the limits and the vocabularies in force.
//!
//! The scenario `api::` has it checked against running regions by Schemathesis.

use http::{HeaderValue, Response};
use model::record::{Basis, DataClass, Purpose};
use serde_json::{Map, Value, json};

use super::Gateway;
use super::routes::{ROUTES, Route};
use crate::limits;
use crate::serve::{Body, json_response};

impl Gateway {
    pub(super) fn openapi(&self) -> Response<Body> {
        let mut response = json_response(&document());
        response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// The whole document.
fn document() -> Value {
    let mut paths = Map::new();
    for Route { path, methods, .. } in ROUTES {
        let mut operations = Map::new();
        for method in methods.split(", ") {
            let operation = operation(path, method).unwrap_or_else(|| json!({ "responses": {} }));
            operations.insert(method.to_ascii_lowercase(), operation);
        }
        let variables: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
            .collect();
        if !variables.is_empty() {
            operations.insert("parameters".into(), variables.into());
        }
        paths.insert((*path).to_owned(), operations.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "RepoMind data API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Records in namespaces, in every region that may hold them. Errors are RFC 9457 problem details.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "parameters": parameters(),
            "schemas": schemas(),
        },
    })
}

fn words<T: std::fmt::Display>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

/// What stands in paths and headers, by name.
fn parameters() -> Value {
    let path = |name: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "schema": schema });
    let header = |name: &str, about: &str, schema: Value| json!({ "name": name, "in": "header", "description": about, "schema": schema });
    let list =
        |items: Value| json!({ "type": "array", "items": items, "minItems": 1, "maxItems": 16, "uniqueItems": true });
    json!({
        "namespace": path("namespace", json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$" })),
        "key": path("key", json!({
            "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        })),
        "subject": path("subject", json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$" })),
        "name": path("name", json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$" })),
        "class": header("Repomind-Class", "What kinds of data it holds.", list(json!({ "enum": words(DataClass::ALL) }))),
        "purpose": header("Repomind-Purpose", "What it is used for.", json!({ "enum": words(Purpose::ALL) })),
        "basis": header("Repomind-Basis", "Why the law allows that.", json!({ "enum": words(Basis::ALL) })),
        "jurisdiction": header(
            "Repomind-Jurisdiction", "The countries whose law applies, by ISO 3166-1.",
            list(json!({ "type": "string", "pattern": "^[A-Z]{2}$" })),
        ),
        "person": header(
            "Repomind-Subject", "The person that it is about, as a pseudonym.",
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$" }),
        ),
        "retain-until": header(
            "Repomind-Retain-Until", "When it must be gone, in ms since 1970-01-01 UTC.",
            json!({ "type": "integer", "minimum": 0, "maximum": super::claims::LATEST }),
        ),
        "ttl": header(
            "Repomind-Ttl", "In how many seconds it must be gone.",
            json!({ "type": "integer", "minimum": 1, "maximum": super::claims::LONGEST_TTL }),
        ),
        "ack": header(
            "Repomind-Ack", "On how many disks, in distinct regions, it has to be before it is acknowledged.",
            json!({ "type": "string", "pattern": "^(local|majority|regions:[1-9])$" }),
        ),
        "context": header(
            "Repomind-Context", "What the client has seen, exactly as an answer gave it.",
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": super::CONTEXT_BYTES }),
        ),
        "if-match": header(
            "If-Match", "Only where there is a record with one of these tags.",
            json!({ "type": "string", "pattern": "^(\\*|\"[!#-~]*\"( *, *\"[!#-~]*\")*)$" }),
        ),
        "range": header(
            "Range", "A part of the value (RFC 9110, 14.2).",
            json!({ "type": "string", "pattern": "^bytes=([0-9]{1,15}-[0-9]{0,15}|-[0-9]{1,15})$" }),
        ),
        "if-none-match": header("If-None-Match", "Only where there is no record.", json!({ "enum": ["*"] })),
        "siblings": header("Repomind-Siblings", "Every concurrent write, where there are several.", json!({ "enum": ["all"] })),
    })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let count = json!({ "type": "integer", "minimum": 0 });
    json!({
        "problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": { "type": text, "title": text, "status": { "type": "integer" }, "detail": text },
        },
        "page": {
            "type": "object",
            "required": ["namespace", "records", "cursor"],
            "properties": {
                "namespace": text,
                "cursor": { "type": ["string", "null"] },
                "records": { "type": "array", "maxItems": limits::LIST_ITEMS, "items": {
                    "type": "object",
                    "required": ["key", "etag", "content_type", "bytes", "classes", "siblings"],
                    "properties": {
                        "key": text, "etag": text, "content_type": text, "bytes": count,
                        "classes": { "type": "array", "items": { "enum": words(DataClass::ALL) } }, "siblings": count,
                    },
                } },
            },
        },
        "batch": {
            "type": "object",
            "required": ["items"],
            "additionalProperties": false,
            "properties": {
                "items": { "type": "array", "maxItems": limits::BATCH_ITEMS, "items": {
                    "type": "object",
                    "required": ["namespace", "key", "op"],
                    "additionalProperties": false,
                    "properties": {
                        "namespace": text, "key": text, "op": { "enum": ["put", "delete"] },
                        "value": { "type": ["string", "null"], "description": "Or value_base64." },
                        "value_base64": { "type": ["string", "null"] },
                        "content_type": { "type": ["string", "null"] },
                        "headers": {
                            "type": "object", "additionalProperties": text,
                            "description": "The headers of a write of one record.",
                        },
                    },
                } },
                "atomic": {
                    "type": ["object", "null"],
                    "required": ["namespace", "prefix"],
                    "additionalProperties": false,
                    "properties": { "namespace": text, "prefix": text },
                    "description": "All items lie in this range of keys, and are made in one commit of the region or not at all.",
                },
            },
        },
        "outcomes": {
            "type": "object",
            "required": ["results"],
            "properties": { "results": { "type": "array", "maxItems": limits::BATCH_ITEMS, "items": {
                "type": "object", "required": ["status"], "properties": { "status": { "type": "integer" } },
            } } },
        },
        "any": { "type": "object" },
    })
}

/// What an operation answers where all is well, and by which problems it may be refused.
fn answers(good: &[(&str, Value)], problems: &[&str]) -> Value {
    let mut all: Map<String, Value> =
        good.iter().map(|(status, answer)| ((*status).to_owned(), answer.clone())).collect();
    for status in ["400", "401", "403", "422", "429", "431", "503", "504"].iter().chain(problems) {
        let schema = json!({ "$ref": "#/components/schemas/problem" });
        let problem =
            json!({ "description": "refused", "content": { "application/problem+json": { "schema": schema } } });
        all.insert((*status).to_owned(), problem);
    }
    all.into()
}

fn json_of(schema: &str) -> Value {
    let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
    json!({ "description": "good", "content": { "application/json": { "schema": schema } } })
}

fn refs(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })).collect()
}

/// One operation; nothing where it was forgotten, which a test finds.
fn operation(path: &str, method: &str) -> Option<Value> {
    const WRITE: &[&str] = &[
        "class",
        "purpose",
        "basis",
        "jurisdiction",
        "person",
        "retain-until",
        "ttl",
        "ack",
        "context",
        "if-match",
        "if-none-match",
    ];
    const REFUSED: &[&str] = &["409", "410", "412", "423", "451", "507"];
    let bytes = json!({ "schema": { "type": "string", "contentMediaType": "application/octet-stream" } });
    let etag = json!({ "ETag": { "schema": { "type": "string" } } });
    let written = json!({ "description": "written", "headers": etag });
    let described = |name: &str, about: &str, parameters: Vec<Value>, responses: Value| json!({ "operationId": name, "summary": about, "parameters": parameters, "responses": responses });
    let query = |name: &str, schema: Value| json!({ "name": name, "in": "query", "schema": schema });
    let found = match (path, method) {
        ("/openapi.json", "GET" | "HEAD") => {
            let good = if method == "GET" { json_of("any") } else { json!({ "description": "good" }) };
            let mut found =
                described(&format!("{method}-openapi"), "This document.", Vec::new(), answers(&[("200", good)], &[]));
            found["security"] = json!([]);
            found
        }
        ("/v1/data/{namespace}", "GET") => {
            let asked = vec![
                query("prefix", json!({ "type": "string" })),
                query("limit", json!({ "type": "integer", "minimum": 1, "maximum": limits::LIST_ITEMS })),
                query("cursor", json!({ "type": "string" })),
            ];
            described("list", "A page of a namespace.", asked, answers(&[("200", json_of("page"))], &[]))
        }
        ("/v1/data/{namespace}/{key}", "GET" | "HEAD") => {
            let mut asked = refs(&["context", "siblings"]);
            asked.push(json!({ "name": "If-None-Match", "in": "header", "schema": { "type": "string" } }));
            if method == "GET" {
                asked.extend(refs(&["range"]));
            }
            let mut good = json!({ "description": "the record", "headers": etag });
            if method == "GET" {
                good["content"] = json!({ "*/*": bytes });
            }
            let mut several = json!({ "description": "several concurrent writes" });
            if method == "GET" {
                several["content"] = json!({ "multipart/mixed": {} });
            }
            let same = json!({ "description": "the client has it already" });
            let mut part = good.clone();
            part["description"] = json!("the part of the record that was asked for");
            let mut good = vec![("200", good), ("300", several), ("304", same)];
            let mut refused = vec!["404", "410", "451"];
            let (name, about) = if method == "GET" { ("read", "A record.") } else { ("look", "Its head.") };
            if method == "GET" {
                good.push(("206", part));
                refused.push("416");
            }
            described(name, about, asked, answers(&good, &refused))
        }
        ("/v1/data/{namespace}/{key}", "PUT") => {
            let refused = [REFUSED, &["404", "408", "413"]].concat();
            let mut found = described("write", "Writes a record.", refs(WRITE), answers(&[("204", written)], &refused));
            found["requestBody"] = json!({ "content": { "application/octet-stream": bytes } });
            found
        }
        ("/v1/data/{namespace}/{key}", "DELETE") => {
            described("delete", "Deletes a record.", refs(WRITE), answers(&[("204", written)], REFUSED))
        }
        ("/v1/batch", "POST") => {
            let refused = [REFUSED, &["408", "413"]].concat();
            let about = "Several writes, each for itself or all together.";
            let mut found = described("batch", about, Vec::new(), answers(&[("200", json_of("outcomes"))], &refused));
            let schema = json!({ "schema": { "$ref": "#/components/schemas/batch" } });
            found["requestBody"] = json!({ "required": true, "content": { "application/json": schema } });
            found
        }
        ("/v1/watch/{namespace}", "GET") => {
            let asked = vec![
                query("prefix", json!({ "type": "string" })),
                query("values", json!({ "enum": ["yes", "no"] })),
                json!({ "name": "Last-Event-ID", "in": "header", "schema": { "type": "string" } }),
            ];
            let events =
                json!({ "description": "events until one says `end`", "content": { "text/event-stream": {} } });
            described("watch", "What changes, as server-sent events.", asked, answers(&[("200", events)], &[]))
        }
        ("/v1/subjects/{subject}", "GET") => {
            described("report", "What is held about a person.", Vec::new(), answers(&[("200", json_of("any"))], &[]))
        }
        ("/v1/subjects/{subject}/erase", "POST") => {
            let about = "Orders the erasure in every region.";
            described("erase", about, Vec::new(), answers(&[("200", json_of("any"))], &["409"]))
        }
        ("/v1/subjects/{subject}/export", "POST") => {
            described("export", "Orders an export.", Vec::new(), answers(&[("200", json_of("any"))], &[]))
        }
        ("/v1/subjects/{subject}/export", "GET") => {
            let mut order = query("order", json!({ "type": "string", "pattern": "^[0-9a-f]{32}$" }));
            order["required"] = json!(true);
            let about = "What this region has, by an order.";
            described("give", about, vec![order], answers(&[("200", json_of("any"))], &["404", "409"]))
        }
        ("/v1/subjects/{subject}/holds/{name}", "PUT" | "DELETE") => {
            let (name, about) =
                if method == "PUT" { ("hold", "Begins a legal hold.") } else { ("release", "Ends a legal hold.") };
            described(name, about, Vec::new(), answers(&[("200", json_of("any"))], &["404", "409"]))
        }
        _ => return None,
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_with_every_method_and_refers_to_what_there_is() {
        let document = document();
        for Route { path, methods, .. } in ROUTES {
            for method in methods.split(", ") {
                assert!(operation(path, method).is_some(), "{method} {path} is not described");
            }
        }
        fn refer(value: &Value, all: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    for (name, member) in members {
                        match (name.as_str(), member) {
                            ("$ref", Value::String(to)) => all.push(to.clone()),
                            _ => refer(member, all),
                        }
                    }
                }
                Value::Array(members) => members.iter().for_each(|member| refer(member, all)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        refer(&document, &mut all);
        assert!(all.len() > 50);
        for to in all {
            assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} leads nowhere");
        }
    }
}
