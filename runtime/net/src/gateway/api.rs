//! `/v1/data`: one record, or a page of a namespace.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data::{Authority, ContextKey, View, Write, Written};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use model::record::{Address, Labels};
use model::{Key, Namespace, UnixMillis};
use serde_json::json;

use super::{Gateway, claims, parameters, percent_decode, problem_of, set, siblings};
use crate::limits;
use crate::problem::Problem;
use crate::serve::{Body, empty, json_response};
use crate::token::Scope;

impl Gateway {
    /// Answers a request below `/v1/data`.
    pub(super) async fn data(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let scope = match *request.method() {
            Method::GET | Method::HEAD => Scope::DataRead,
            _ => Scope::DataWrite,
        };
        let grant = self.verifier.check(request.headers(), scope)?;
        let rest = request.uri().path().strip_prefix("/v1/data").unwrap_or_default();
        let rest = rest.strip_prefix('/').unwrap_or_default();
        let (namespace, key) = match rest.split_once('/') {
            Some((namespace, key)) => (namespace, Some(key)),
            None => (rest, None),
        };
        let namespace = Namespace::new(namespace).map_err(|error| Problem::field("namespace", error.to_string()))?;
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            return self.list(&namespace, request.uri().query()).await;
        };
        let key = percent_decode(key).ok_or_else(|| Problem::field("key", "the escapes are not valid"))?;
        let key = Key::new(key).map_err(|error| Problem::field("key", error.to_string()))?;
        let address = Address { namespace, key };
        if request.uri().query().is_some() {
            return Err(Problem::field(
                "query",
                "a record has no parameters; escape ? as %3F where it belongs to the key",
            ));
        }
        match *request.method() {
            Method::GET | Method::HEAD => self.get(&address, request.method(), request.headers()).await,
            Method::PUT => self.put(address, request, grant.authority()).await,
            _ => {
                let mut write = self.write_of(address, request.headers(), None)?;
                write.labels.authority = grant.authority();
                self.write(write).await
            }
        }
    }

    pub(super) fn write_of(
        &self,
        address: Address,
        headers: &HeaderMap,
        value: Option<bytes::Bytes>,
    ) -> Result<Write, Problem> {
        write_of(address, headers, value, (self.context_key(), self.region.data().retention_now()))
    }

    /// What contexts are authenticated with.
    pub(super) fn context_key(&self) -> &ContextKey {
        self.region.data().context_key()
    }

    async fn put(
        &self,
        address: Address,
        request: Request<Incoming>,
        authority: Authority,
    ) -> Result<Response<Body>, Problem> {
        let (head, body) = request.into_parts();
        let mut write = self.write_of(address, &head.headers, None)?;
        write.labels.authority = authority;
        Ok(self.tell(&self.write_body(write, &head.headers, body).await?))
    }

    async fn write(&self, write: Write) -> Result<Response<Body>, Problem> {
        Ok(self.tell(&self.written(write).await?))
    }

    /// What a writer is told.
    fn tell(&self, written: &Written) -> Response<Body> {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        set(headers, "etag", &quoted(&written.etag), true);
        set(headers, "repomind-context", &claims::context_text(&written.context, self.context_key()), true);
        headers.insert("repomind-copies", HeaderValue::from(written.copies));
        response
    }

    /// Writes, and tells apart what is acknowledged from what is merely stored here.
    pub(super) async fn written(&self, write: Write) -> Result<Written, Problem> {
        acknowledged(self.region.data().write(write).await.map_err(|error| problem_of(&error))?)
    }

    async fn get(&self, address: &Address, method: &Method, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        if siblings::wanted(headers)?
            && let Some(all) = self.siblings(address, headers).await?
        {
            return Ok(all);
        }
        let after = claims::context(headers, self.context_key())?;
        let view = self.region.data().read_after(address, after.as_ref()).await.map_err(|error| problem_of(&error))?;
        let Some(view) = view else { return Err(Problem::not_found("there is no such record")) };
        let tag = quoted(&view.etag);
        let mut response = Response::new(empty());
        let fresh = claims::text(headers, "if-none-match")?
            .is_some_and(|tags| tags == "*" || tags.split(',').any(|one| one.trim() == tag));
        let out = response.headers_mut();
        set(out, "etag", &tag, true);
        set(out, "repomind-context", &claims::context_text(&view.context, self.context_key()), true);
        set(out, "cache-control", "private, no-cache", true);
        set(out, "x-content-type-options", "nosniff", true);
        let kind = match view.record.content_type.as_str() {
            "" => "application/octet-stream",
            kind => kind,
        };
        set(out, "content-type", kind, true);
        show_labels(out, &view);
        match fresh {
            true => *response.status_mut() = StatusCode::NOT_MODIFIED,
            false => self.give_value(address, &view, (method, headers), &mut response).await?,
        }
        Ok(response)
    }

    async fn list(&self, namespace: &Namespace, query: Option<&str>) -> Result<Response<Body>, Problem> {
        let (mut prefix, mut limit, mut after) = (String::new(), limits::LIST_ITEMS_DEFAULT, None);
        let all = parameters(query)?;
        let names: std::collections::BTreeSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        if names.len() < all.len() {
            return Err(Problem::field("query", "a parameter stands more than once"));
        }
        for (name, value) in all.clone() {
            match name.as_str() {
                "prefix" => prefix = value,
                "limit" => limit = page_size(&value)?,
                // As the first page has it, for whoever fills in a template.
                "cursor" if value.is_empty() => after = None,
                "cursor" => after = Some(cursor_key(&value)?),
                _ => return Err(Problem::field("query", "the parameters are prefix, limit and cursor")),
            }
        }
        let (data, space) = (self.region.data().clone(), namespace.clone());
        // Reads from disk: not on the threads that serve sockets.
        let page = tokio::task::spawn_blocking(move || data.list(&space, &prefix, after.as_ref(), limit))
            .await
            .map_err(|_| Problem::unavailable("storage", "the list could not be read"))?
            .map_err(|error| problem_of(&error))?;
        let cursor = (page.len() == limit).then(|| page.last().map(|(key, _)| URL_SAFE_NO_PAD.encode(key.as_str())));
        let records: Vec<_> = page
            .iter()
            .map(|(key, view)| {
                json!({
                    "key": key.as_str(),
                    "etag": quoted(&view.etag),
                    "content_type": view.record.content_type,
                    "bytes": view.record.payload.value_len(),
                    "classes": view.record.labels.classes.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
                    "siblings": view.siblings,
                })
            })
            .collect();
        Ok(json_response(&json!({ "namespace": namespace.as_str(), "records": records, "cursor": cursor.flatten() })))
    }
}

/// A write once it has reached what was asked for; else what is told of it.
pub(super) fn acknowledged(written: Written) -> Result<Written, Problem> {
    if written.reached {
        return Ok(written);
    }
    let detail = if written.refused_by.is_empty() {
        "the write is durable here and still on its way: the level that was asked for was not \
         confirmed in time; write again with If-Match, or read it back later"
    } else {
        "the write is durable here, and the level that was asked for was not confirmed, because \
         regions refused their copy; their logs name the rule"
    };
    let refused_by: Vec<&str> = written.refused_by.iter().map(|region| region.as_str()).collect();
    Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "ack-unknown", detail)
        .with("copies", written.copies)
        .with("refused_by", refused_by)
        .with("etag", quoted(&written.etag)))
}

fn page_size(text: &str) -> Result<usize, Problem> {
    match text.parse() {
        Ok(limit) if (1..=limits::LIST_ITEMS).contains(&limit) => Ok(limit),
        _ => Err(Problem::field("limit", format!("use a number from 1 to {}", limits::LIST_ITEMS))),
    }
}

fn cursor_key(text: &str) -> Result<Key, Problem> {
    let wrong = || Problem::field("cursor", "send it back exactly as an answer gave it");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    Key::new(String::from_utf8(bytes).map_err(|_| wrong())?).map_err(|_| wrong())
}

/// A write of `value` with everything that the headers say about it; a time to live counts from `now`.
pub(super) fn write_of(
    address: Address,
    headers: &HeaderMap,
    value: Option<bytes::Bytes>,
    (key, now): (&ContextKey, UnixMillis),
) -> Result<Write, Problem> {
    claims::only_known(headers)?;
    let content_type = claims::text(headers, "content-type")?.unwrap_or_default();
    if content_type.len() > 255 {
        return Err(Problem::field("content-type", "a media type has at most 255 characters"));
    }
    Ok(Write {
        address,
        value,
        content_type: content_type.to_owned(),
        labels: claims::labels(headers, now)?,
        if_match: claims::if_match(headers)?,
        if_none_match: claims::must_be_new(headers)?,
        context: claims::context(headers, key)?,
        ack: claims::ack(headers)?,
    })
}

/// An entity tag in its quotes.
pub(super) fn quoted(etag: &data::ETag) -> String {
    format!("\"{etag}\"")
}

/// Labels as headers.
pub(super) fn labels_of(labels: &Labels) -> Vec<(&'static str, String)> {
    let classes: Vec<&str> = labels.classes.iter().map(|class| class.as_str()).collect();
    let mut headers = vec![
        ("repomind-class", classes.join(",")),
        ("repomind-purpose", labels.purpose.as_str().to_owned()),
        ("repomind-basis", labels.basis.as_str().to_owned()),
    ];
    let countries: Vec<&str> = labels.jurisdictions.iter().map(|country| country.as_str()).collect();
    if !countries.is_empty() {
        headers.push(("repomind-jurisdiction", countries.join(",")));
    }
    headers.extend(labels.subject.as_ref().map(|subject| ("repomind-subject", subject.as_str().to_owned())));
    headers.extend(labels.retain_until.map(|until| ("repomind-retain-until", until.0.to_string())));
    headers
}

fn show_labels(headers: &mut HeaderMap, view: &View) {
    for (name, value) in labels_of(&view.record.labels) {
        set(headers, name, &value, true);
    }
    headers.insert("repomind-siblings", HeaderValue::from(view.siblings));
    set(headers, "repomind-resolved-by", &view.resolved_by, true);
}
