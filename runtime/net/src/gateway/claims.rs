//! What a write says about itself in `Repomind-…` headers, read once.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data::{ContextKey, ETag, LabelClaims};
use http::HeaderMap;
use model::Country;
use model::UnixMillis;
use model::replication::AckLevel;
use model::version::CausalContext;

use super::CONTEXT_BYTES;
use crate::problem::Problem;

/// The text of a header, where it was sent.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(Problem::field(name, "only printable ASCII may stand here")),
        },
    }
}

fn one<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    let Some(text) = text(headers, name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: T::Err| Problem::field(name, error.to_string()))
}

fn several<T: FromStr + Ord>(headers: &HeaderMap, name: &'static str) -> Result<Option<BTreeSet<T>>, Problem>
where
    T::Err: std::fmt::Display,
{
    let Some(text) = text(headers, name)? else { return Ok(None) };
    text.split(',')
        .map(|word| word.trim().parse().map_err(|error: T::Err| Problem::field(name, error.to_string())))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// The labels that a request claims.
pub(super) fn labels(headers: &HeaderMap) -> Result<LabelClaims, Problem> {
    Ok(LabelClaims {
        subject: one(headers, "repomind-subject")?,
        jurisdictions: several::<Country>(headers, "repomind-jurisdiction")?,
        classes: several(headers, "repomind-class")?,
        purpose: one(headers, "repomind-purpose")?,
        basis: one(headers, "repomind-basis")?,
        retain_until: retain_until(headers)?,
        ..LabelClaims::default()
    })
}

fn retain_until(headers: &HeaderMap) -> Result<Option<UnixMillis>, Problem> {
    let name = "repomind-retain-until";
    let Some(text) = text(headers, name)? else { return Ok(None) };
    text.parse()
        .map(|millis| Some(UnixMillis(millis)))
        .map_err(|_| Problem::field(name, "state it in milliseconds since 1970-01-01 UTC"))
}

/// The acknowledgement that a request asks for.
pub(super) fn ack(headers: &HeaderMap) -> Result<Option<AckLevel>, Problem> {
    let name = "repomind-ack";
    let Some(text) = text(headers, name)? else { return Ok(None) };
    AckLevel::parse(text)
        .map(Some)
        .ok_or_else(|| Problem::field(name, "use local, regions:K with K from 1 to 255, or majority"))
}

/// The causal context that a client hands back: postcard and its authenticator, in base64url.
pub(super) fn context(headers: &HeaderMap, key: &ContextKey) -> Result<Option<CausalContext>, Problem> {
    let name = "repomind-context";
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let wrong = || Problem::field(name, "send it back exactly as an answer gave it, or leave it out");
    if text.len() > CONTEXT_BYTES {
        return Err(wrong());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let (context, tag) = bytes.split_last_chunk::<{ ContextKey::TAG }>().ok_or_else(wrong)?;
    if !key.verifies(context, tag) {
        let detail = "no region of this deployment has made this context; send one back exactly as an answer \
                      gave it, or leave it out";
        return Err(Problem::field(name, detail));
    }
    match postcard::take_from_bytes(context) {
        Ok((context, [])) => Ok(Some(context)),
        _ => Err(wrong()),
    }
}

/// A causal context as a header.
pub(super) fn context_text(context: &CausalContext, key: &ContextKey) -> String {
    let mut bytes = postcard::to_stdvec(context).unwrap_or_default();
    let tag = key.tag(&bytes);
    bytes.extend_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The entity tag that the stored record must have.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<ETag>, Problem> {
    let Some(text) = text(headers, "if-match")? else { return Ok(None) };
    etag(text).map(Some)
}

/// Reads one strong entity tag, in its quotes.
pub(super) fn etag(text: &str) -> Result<ETag, Problem> {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner
        .and_then(|inner| inner.parse().ok())
        .ok_or_else(|| Problem::field("if-match", "send one entity tag exactly as an answer gave it"))
}

/// Whether the record must not exist.
pub(super) fn must_be_new(headers: &HeaderMap) -> Result<bool, Problem> {
    match text(headers, "if-none-match")? {
        None => Ok(false),
        Some("*") => Ok(true),
        Some(_) => Err(Problem::field("if-none-match", "a write takes only *")),
    }
}

/// How long a read may wait for the writes that its context names.
pub(super) const CATCH_UP_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use model::names::NodeId;
    use model::version::{Actor, Dot, Incarnation};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_label_that_cannot_be_read_is_refused_by_name_and_never_ignored() {
        for (name, value) in [
            ("repomind-class", "secret"),
            ("repomind-jurisdiction", "DE,Germany"),
            ("repomind-basis", "because"),
            ("repomind-subject", "a b"),
            ("repomind-retain-until", "tomorrow"),
        ] {
            let problem = labels(&headers(&[(name, value)])).err().unwrap();
            assert_eq!(problem.json()["status"], 422);
            assert_eq!(problem.json()["field"], name);
        }
        let read = labels(&headers(&[("repomind-jurisdiction", "DE, us"), ("repomind-class", "personal")])).unwrap();
        assert_eq!(read.jurisdictions.unwrap().len(), 2);
    }

    #[test]
    fn a_context_that_no_region_has_made_is_refused_and_one_from_another_region_is_taken() {
        let region = model::RegionId::new("us-east").unwrap();
        let mut seen = CausalContext::new();
        seen.observe(&Dot { actor: Actor { region, node: NodeId(0), incarnation: Incarnation(3) }, counter: 9 });
        let key = ContextKey::derive(&[7; 32]);
        let sent = context_text(&seen, &key);
        let elsewhere = ContextKey::derive(&[7; 32]);
        let read = |text: &str| context(&headers(&[("repomind-context", text)]), &elsewhere);
        assert_eq!(read(&sent).unwrap(), Some(seen.clone()));

        // What an answer did not give names the header: bare, made up, of another deployment, too long.
        let bare = URL_SAFE_NO_PAD.encode(postcard::to_stdvec(&seen).unwrap());
        let forged = format!("{}{bare}", "A".repeat(24));
        let stranger = context_text(&seen, &ContextKey::derive(&[8; 32]));
        for text in ["###", "", &bare, &forged, &stranger, &"A".repeat(CONTEXT_BYTES + 1)] {
            let problem = read(text).err().unwrap_or_else(|| panic!("{text:?} was taken"));
            assert_eq!(problem.json()["status"], 422);
            assert_eq!(problem.json()["field"], "repomind-context");
        }
    }
}
