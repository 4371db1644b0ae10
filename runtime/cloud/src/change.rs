//! Differences between what is wanted and what is there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Stands in for an identifier that the provider will give, in front of the address of what gets it.
pub const REFERENCE: &str = "ref:";
/// What a reference is shown as before there is anything that it could be.
const UNKNOWN: &str = "(known after it is made)";

/// A field that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Its path, `origins[0].address`; empty for the whole.
    pub field: String,
    /// What it is.
    pub from: Value,
    /// What it should be.
    pub to: Value,
}

/// What happens to one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Create,
    /// These fields become others.
    Update(Vec<Difference>),
    /// It is taken away.
    Delete,
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What: `pool/us-east`.
    pub address: String,
    /// How.
    pub action: Action,
}

impl Change {
    /// For a person: `+`, `~` or `-`, the address, and a line for each field.
    pub fn lines(&self) -> Vec<String> {
        let (sign, fields) = match &self.action {
            Action::Create => ('+', &[][..]),
            Action::Update(fields) => ('~', fields.as_slice()),
            Action::Delete => ('-', &[][..]),
        };
        let field = |field: &Difference| format!("      {}: {} -> {}", field.field, field.from, field.to);
        [format!("  {sign} {}", self.address)].into_iter().chain(fields.iter().map(field)).collect()
    }
}

/// The fields of `found` that are not as in `wanted`. What `wanted` does not name is not ours to judge; lists must be
/// equal in length and order.
pub fn differences(wanted: &Value, found: &Value) -> Vec<Difference> {
    let mut all = Vec::new();
    compare("", wanted, found, &mut all);
    all
}

fn compare(field: &str, wanted: &Value, found: &Value, all: &mut Vec<Difference>) {
    let mut differs = || all.push(Difference { field: field.to_owned(), from: found.clone(), to: wanted.clone() });
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            for (name, wanted) in wanted {
                let inner = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                compare(&inner, wanted, found.get(name).unwrap_or(&Value::Null), all);
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (at, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                compare(&format!("{field}[{at}]"), wanted, found, all);
            }
        }
        (Value::Number(wanted), Value::Number(found)) if wanted.as_f64() == found.as_f64() => {}
        _ if wanted == found => {}
        _ => differs(),
    }
}

/// `body` with references replaced by the identifiers of what they name; those that have none yet by `UNKNOWN`.
pub fn resolve(body: &Value, ids: &BTreeMap<String, String>) -> Value {
    replace(body, &|address| ids.get(address).cloned().unwrap_or_else(|| UNKNOWN.to_owned()))
}

/// As [`resolve`], but nothing may be unknown.
///
/// # Errors
/// The address that has no identifier.
pub fn resolved(body: &Value, ids: &BTreeMap<String, String>) -> Result<Value, String> {
    match references(body).into_iter().find(|address| !ids.contains_key(address)) {
        Some(missing) => Err(missing),
        None => Ok(resolve(body, ids)),
    }
}

fn replace(body: &Value, with: &impl Fn(&str) -> String) -> Value {
    match body {
        Value::String(text) => match text.strip_prefix(REFERENCE) {
            Some(address) => Value::String(with(address)),
            None => body.clone(),
        },
        Value::Array(items) => Value::Array(items.iter().map(|item| replace(item, with)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), replace(value, with))).collect())
        }
        _ => body.clone(),
    }
}

/// The addresses that a body refers to.
fn references(body: &Value) -> Vec<String> {
    match body {
        Value::String(text) => text.strip_prefix(REFERENCE).map(str::to_owned).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(fields) => fields.values().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_nobody_asked_for_are_left_alone_and_lists_are_compared_in_order() {
        let wanted = json!({"name": "a", "origins": [{"address": "x"}, {"address": "y"}], "weight": 1});
        let found =
            json!({"name": "a", "origins": [{"address": "x", "more": 1}, {"address": "z"}], "weight": 1.0, "id": "7"});
        let all = differences(&wanted, &found);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!((all[0].field.as_str(), &all[0].from, &all[0].to), ("origins[1].address", &json!("z"), &json!("y")));
        assert_eq!(differences(&json!([1, 2]), &json!([2, 1])).len(), 2);
        assert_eq!(differences(&json!([1]), &json!([1, 2])).len(), 1);
        assert_eq!(differences(&json!({"gone": true}), &json!({})).len(), 1);
    }

    #[test]
    fn a_reference_to_what_is_not_there_is_never_sent() {
        let body = json!({"pools": ["ref:pool/us-east"], "name": "reference"});
        assert_eq!(resolved(&body, &BTreeMap::new()), Err("pool/us-east".to_owned()));
        let ids = BTreeMap::from([("pool/us-east".to_owned(), "17".to_owned())]);
        assert_eq!(resolved(&body, &ids).unwrap(), json!({"pools": ["17"], "name": "reference"}));
    }
}
