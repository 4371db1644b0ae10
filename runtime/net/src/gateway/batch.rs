//! `POST /v1/batch`: several writes in one request, each with its own outcome.
//!
//! The request is a JSON object with `items`; each item has `namespace`, `key`, `op` (`put`
//! or `delete`) and may have `value` (text), `value_base64`, `content_type` and
//! `headers`, the same headers that a single write takes.
//!
//! The writes are independent: some may succeed while others fail. Where the request has `atomic`, a range of keys
//! (`{"namespace": "carts", "prefix": "42/"}`), all items lie in it, and all are made in one commit of this region or none
//! is. Other regions take them over one after the other, in their order; conflicts are settled key by key.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use data::{Authority, ContextKey, Write, Written};
use futures_util::StreamExt;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use model::record::Address;
use model::{Key, Namespace, UnixMillis};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{acknowledged, quoted, write_of};
use super::{Gateway, claims, problem_of};
use crate::limits;
use crate::problem::Problem;
use crate::serve::{Body, collect, json_response};
use crate::token::Scope;

/// Items that are written at the same time; they share group commits.
const AT_ONCE: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    items: Vec<Item>,
    atomic: Option<Range>,
}

/// The keys of an atomic batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    namespace: String,
    prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    namespace: String,
    key: String,
    op: Operation,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Put,
    Delete,
}

impl Gateway {
    pub(super) async fn batch(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let authority = self.verifier.check(request.headers(), Scope::DataWrite)?.authority();
        let body = collect(request.into_body(), limits::BODY_BYTES).await?;
        let batch: Batch = serde_json::from_slice(&body).map_err(|error| Problem::field("body", error.to_string()))?;
        if batch.items.len() > limits::BATCH_ITEMS {
            let detail = format!("a batch has at most {} items", limits::BATCH_ITEMS);
            return Err(Problem::field("items", detail).with("limit", limits::BATCH_ITEMS));
        }
        if let Some(range) = batch.atomic {
            return self.together(range, batch.items, authority).await;
        }
        let results: Vec<Value> = stream::iter(batch.items)
            .map(|item| async {
                match self.item(item, authority.clone()).await {
                    Ok(result) => result,
                    Err(problem) => problem.json(),
                }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        Ok(json_response(&json!({ "results": results })))
    }

    async fn item(&self, item: Item, authority: Authority) -> Result<Value, Problem> {
        let write = self.write_of_item(item, authority)?;
        Ok(self.made(&self.written(write).await?))
    }

    fn write_of_item(&self, item: Item, authority: Authority) -> Result<Write, Problem> {
        let mut write = item.into_write((self.context_key(), self.region.data().retention_now()))?;
        write.labels.authority = authority;
        Ok(write)
    }

    fn made(&self, written: &Written) -> Value {
        json!({
            "status": 204,
            "etag": quoted(&written.etag),
            "context": claims::context_text(&written.context, self.context_key()),
            "copies": written.copies,
        })
    }

    /// All items in one commit, or a problem that names the one that was refused.
    async fn together(&self, range: Range, items: Vec<Item>, authority: Authority) -> Result<Response<Body>, Problem> {
        let mut keys = BTreeSet::new();
        let mut writes = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let refused = |detail: &str| Problem::field("items", detail).with("item", at);
            if item.namespace != range.namespace || !item.key.starts_with(&range.prefix) {
                return Err(refused("a key of an atomic batch lies outside its range"));
            }
            if !keys.insert(item.key.clone()) {
                return Err(refused("an atomic batch writes a key once"));
            }
            writes.push(self.write_of_item(item, authority.clone()).map_err(|problem| problem.with("item", at))?);
        }
        let written = self.region.data().write_all(writes).await.map_err(|none| {
            let problem = problem_of(&none.error);
            none.at.map_or(problem.clone(), |at| problem.with("item", at))
        })?;
        let results = written.into_iter().map(|written| match acknowledged(written) {
            Ok(written) => self.made(&written),
            Err(problem) => problem.json(),
        });
        Ok(json_response(&json!({ "results": results.collect::<Vec<_>>() })))
    }
}

impl Item {
    fn into_write(self, with: (&ContextKey, UnixMillis)) -> Result<Write, Problem> {
        let namespace =
            Namespace::new(&self.namespace).map_err(|error| Problem::field("namespace", error.to_string()))?;
        let record = Key::new(&self.key).map_err(|error| Problem::field("key", error.to_string()))?;
        let value = self.bytes()?;
        let mut headers = HeaderMap::new();
        if let Some(kind) = &self.content_type {
            let value = kind.parse().map_err(|_| Problem::field("content_type", "not a media type"))?;
            headers.insert(http::header::CONTENT_TYPE, value);
        }
        for (name, value) in &self.headers {
            let wrong = || Problem::field("headers", format!("{name:?} is not a header that a write takes"));
            let name: HeaderName = name.parse().map_err(|_| wrong())?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        write_of(Address { namespace, key: record }, &headers, value, with)
    }

    fn bytes(&self) -> Result<Option<Bytes>, Problem> {
        match (self.op, &self.value, &self.value_base64) {
            (Operation::Put, Some(text), None) => Ok(Some(Bytes::from(text.clone()))),
            (Operation::Put, None, Some(text)) => {
                let bytes = STANDARD.decode(text).map_err(|error| Problem::field("value_base64", error.to_string()))?;
                Ok(Some(bytes.into()))
            }
            (Operation::Put, ..) => Err(Problem::field("value", "a put has either value or value_base64")),
            (Operation::Delete, None, None) => Ok(None),
            (Operation::Delete, ..) => Err(Problem::field("value", "a delete has no value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Result<Write, Problem> {
        serde_json::from_str::<Item>(text).unwrap().into_write((&ContextKey::derive(&[7; 32]), UnixMillis(0)))
    }

    #[test]
    fn an_item_without_a_value_is_a_mistake_and_never_a_delete() {
        let refused = item(r#"{"namespace":"a","key":"k","op":"put"}"#).err().unwrap();
        assert_eq!(refused.json()["field"], "value");
        assert!(item(r#"{"namespace":"a","key":"k","op":"delete"}"#).unwrap().value.is_none());
        let put = item(r#"{"namespace":"a","key":"k","op":"put","value_base64":"aGk="}"#).unwrap();
        assert_eq!(put.value.as_deref(), Some(&b"hi"[..]));
    }
}
