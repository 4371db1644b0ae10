//! `GET /conflicts`: what lost against concurrent writes in this region, for operators.
//!
//! | parameter | |
//! |---|---|
//! | `namespace`, `key` | one record: its entries, the oldest first, and the writes that lie beside each other now |
//! | `before` | without a record: the newest entries, before the one with this number |
//! | `limit` | as many at most |
//! | `values=yes` | of one record: with the values that lost, as far as the policies in force let them be shown here |

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data::{DataError, DataPlane, LOSSES_SHOWN, ShownLoss};
use http::Response;
use model::record::{Address, Content, Record};
use model::version::Version;
use model::{Key, Namespace, RegionId};
use serde_json::{Value, json};

use crate::gateway::{parameters, problem_of};
use crate::problem::Problem;
use crate::serve::{Body, json_response};

/// Entries that are shown where no limit is stated.
const LIMIT: usize = 100;

/// What is asked.
struct Question {
    of: Option<Address>,
    before: Option<u64>,
    limit: usize,
    values: bool,
}

fn question(query: Option<&str>) -> Result<Question, Problem> {
    let mut said: BTreeMap<String, String> = parameters(query)?.into_iter().collect();
    let namespace = said.remove("namespace");
    let of = match (namespace, said.remove("key")) {
        (Some(namespace), Some(key)) => Some(Address {
            namespace: Namespace::new(namespace).map_err(|error| Problem::field("namespace", error.to_string()))?,
            key: Key::new(key).map_err(|error| Problem::field("key", error.to_string()))?,
        }),
        (None, None) => None,
        _ => return Err(Problem::field("key", "name a record by namespace and key, or leave both out")),
    };
    let mut number = |name: &'static str, most: usize| match said.remove(name) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) if number <= most as u64 => Ok(Some(number)),
            _ => Err(Problem::field(name, format!("use a number up to {most}"))),
        },
    };
    let before = number("before", usize::MAX)?;
    let limit = number("limit", LOSSES_SHOWN)?.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(LIMIT));
    let values = match said.remove("values").as_deref() {
        None | Some("no") => false,
        Some("yes") if of.is_some() => true,
        Some("yes") => return Err(Problem::field("values", "values are shown of one record: name it")),
        Some(_) => return Err(Problem::field("values", "use yes or no")),
    };
    match said.into_keys().next() {
        None => Ok(Question { of, before, limit, values }),
        Some(stranger) => {
            let detail = format!("{stranger} is none of namespace, key, before, limit and values");
            Err(Problem::field("query", detail))
        }
    }
}

/// Answers the request.
pub(crate) async fn list(region: RegionId, data: DataPlane, query: Option<&str>) -> Result<Response<Body>, Problem> {
    let Question { of, before, limit, values } = question(query)?;
    if let (Some(_), true) = (&of, values) {
        tracing::info!("an operator looks at values of the conflict log");
    }
    let now = match &of {
        Some(address) => now(&data, address).await?,
        None => Value::Null,
    };
    let reader = data.clone();
    let found = tokio::task::spawn_blocking(move || reader.losses(of.as_ref(), before, limit, values))
        .await
        .map_err(|_| Problem::unavailable("storage", "the conflict log could not be read"))?
        .map_err(|error| problem_of(&error))?;
    let count = data.loss_count();
    let mut answer = json!({
        "region": region,
        "entries": count.entries,
        "bytes": count.bytes,
        "crowded_out": count.crowded_out,
        "damaged": found.damaged,
        "before": found.losses.last().filter(|_| found.more).map(|last| last.number),
        "conflicts": found.losses.iter().map(|loss| shown(loss, values)).collect::<Vec<_>>(),
    });
    if !now.is_null() {
        answer["now"] = now;
    }
    Ok(json_response(&answer))
}

/// What lies under the key at this moment.
async fn now(data: &DataPlane, address: &Address) -> Result<Value, Problem> {
    let row = data.row(address).map_err(|error| problem_of(&error))?;
    let strategy = data.strategy(&address.namespace);
    let siblings = row.iter().flat_map(|row| &row.siblings).map(|sibling| {
        let state = match &sibling.content {
            Content::Live(_) => "value",
            Content::Tombstone { .. } => "delete",
            Content::Evicted { .. } => "elsewhere",
        };
        let bytes = sibling.content.record().map(|record| record.payload.value_len());
        json!({ "version": version(&sibling.version), "state": state, "bytes": bytes })
    });
    let siblings: Vec<Value> = siblings.collect();
    let mut now = json!({ "siblings": siblings, "strategy": strategy });
    match data.read(address).await {
        Ok(view) => now["resolved_by"] = json!(view.map(|view| view.resolved_by)),
        Err(error @ (DataError::Barred(_) | DataError::Elsewhere { .. } | DataError::Vault(_))) => {
            now["not_shown"] = json!(error.to_string());
        }
        Err(error) => return Err(problem_of(&error)),
    }
    Ok(now)
}

fn version(version: &Version) -> Value {
    json!({ "write": version.dot.to_string(), "region": version.dot.actor.region, "stamp": version.hlc.to_string() })
}

fn shown(ShownLoss { number, loss, value }: &ShownLoss, values: bool) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let labels = loss.lost.content.labels();
    let mut entry = json!({
        "number": number,
        "namespace": loss.address.namespace.as_str(),
        "key": loss.address.key.as_str(),
        "lost": version(&loss.lost.version),
        "delete": loss.is_delete(),
        "bytes": loss.bytes,
        "digest": hex(&loss.digest),
        "classes": labels.map(|labels| labels.classes.iter().map(|class| class.as_str()).collect::<Vec<_>>()),
        "kept": loss.kept,
        "to": { "write": loss.to.dot.to_string(), "region": loss.to.dot.actor.region, "stamp": loss.to.hlc.to_string() },
        "by": loss.by,
        "cause": loss.cause.name(),
        "generation": loss.generation,
        "policy": loss.policy.map(|policy| policy.to_string()),
        "at": loss.at.0,
    });
    match value {
        Ok(record) => entry["value"] = value_of(record),
        Err(reason) if values => entry["not_shown"] = json!(reason),
        Err(_) => {}
    }
    entry
}

fn value_of(record: &Record) -> Value {
    if let Some(object) = record.payload.object() {
        return json!({ "content_type": record.content_type, "object_bytes": object.length });
    }
    let bytes = record.payload.bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "content_type": record.content_type, "text": text }),
        Err(_) => json!({ "content_type": record.content_type, "base64": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_about_conflicts_that_is_not_understood_is_refused_by_name() {
        for (query, field) in [
            ("namespace=notes", "key"),
            ("key=a", "key"),
            ("limit=-1", "limit"),
            ("limit=1001", "limit"),
            ("values=yes", "values"),
            ("namespace=notes&key=a&values=1", "values"),
            ("since=3", "query"),
        ] {
            let problem = question(Some(query)).err().unwrap_or_else(|| panic!("{query} was taken"));
            assert_eq!(problem.json()["field"], field, "{query}");
        }
        let asked = question(Some("namespace=notes&key=a%2Fb&values=yes")).unwrap();
        assert_eq!((asked.of.unwrap().to_string().as_str(), asked.values, asked.limit), ("notes/a/b", true, LIMIT));
    }
}
