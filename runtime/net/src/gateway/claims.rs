//! What a write says about itself in `Repomind-…` headers, read once.

use std::collections::BTreeSet;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data::{ContextKey, ETag, LabelClaims, Match};
use http::HeaderMap;
use model::Country;
use model::replication::AckLevel;
use model::version::CausalContext;
use model::{Millis, UnixMillis};

use super::CONTEXT_BYTES;
use crate::problem::Problem;

/// Headers of ours that a request may carry. A name that is none of them is a mistake, and a write that it was
/// to label would be stored as something else.
const KNOWN: &[&str] = &[
    "repomind-ack",
    "repomind-basis",
    "repomind-class",
    "repomind-context",
    "repomind-jurisdiction",
    "repomind-purpose",
    "repomind-retain-until",
    "repomind-subject",
    "repomind-ttl",
];

/// Refuses headers that begin like ours and are not.
pub(super) fn only_known(headers: &HeaderMap) -> Result<(), Problem> {
    let stranger = headers
        .keys()
        .map(http::HeaderName::as_str)
        .find(|name| name.starts_with("repomind-") && !KNOWN.contains(name));
    match stranger {
        None => Ok(()),
        Some(name) => {
            Err(Problem::field(name, format!("there is no such header; those of a write are {}", KNOWN.join(", "))))
        }
    }
}

fn readable<'a>(value: &'a http::HeaderValue, name: &'static str) -> Result<&'a str, Problem> {
    value.to_str().map(str::trim).map_err(|_| Problem::field(name, "only printable ASCII may stand here"))
}

/// The text of a header, where it was sent; it may be sent once.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| readable(value, name)).transpose()?;
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Problem::field(name, "this header stands more than once")),
    }
}

fn one<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    let Some(text) = text(headers, name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: T::Err| Problem::field(name, error.to_string()))
}

/// A list, in one header or in several: proxies split and join them (RFC 9110, 5.3).
fn several<T: FromStr + Ord>(headers: &HeaderMap, name: &'static str) -> Result<Option<BTreeSet<T>>, Problem>
where
    T::Err: std::fmt::Display,
{
    let mut found: Option<BTreeSet<T>> = None;
    for value in headers.get_all(name) {
        let all = found.get_or_insert_default();
        for word in readable(value, name)?.split(',') {
            all.insert(word.trim().parse().map_err(|error: T::Err| Problem::field(name, error.to_string()))?);
        }
    }
    Ok(found)
}

/// Codes that no country has: data about their people would fall under the rule for "any other country".
fn countries(headers: &HeaderMap) -> Result<Option<BTreeSet<Country>>, Problem> {
    let name = "repomind-jurisdiction";
    let claimed = several::<Country>(headers, name)?;
    match claimed.iter().flatten().find(|country| routing::continent(**country).is_none()) {
        None => Ok(claimed),
        Some(stranger) => {
            let detail = match stranger.as_str() {
                "EU" => "EU is no country; name the member states whose law applies, such as DE,FR".to_owned(),
                _ => format!("{stranger} is not assigned to a country by ISO 3166-1"),
            };
            Err(Problem::field(name, detail))
        }
    }
}

/// The labels that a request claims; a time to live counts from `now`.
pub(super) fn labels(headers: &HeaderMap, now: UnixMillis) -> Result<LabelClaims, Problem> {
    Ok(LabelClaims {
        subject: one(headers, "repomind-subject")?,
        jurisdictions: countries(headers)?,
        classes: several(headers, "repomind-class")?,
        purpose: one(headers, "repomind-purpose")?,
        basis: one(headers, "repomind-basis")?,
        retain_until: retain_until(headers, now)?,
        ..LabelClaims::default()
    })
}

/// The longest time to live, in seconds: a hundred years.
pub(super) const LONGEST_TTL: u64 = 100 * 366 * 24 * 3600;

/// The latest time by which a record must be gone, in milliseconds: the end of the year 9999.
pub(super) const LATEST: u64 = 253_402_300_799_999;

/// When the record must be gone: stated as that, or as a time to live.
fn retain_until(headers: &HeaderMap, now: UnixMillis) -> Result<Option<UnixMillis>, Problem> {
    let (name, ttl) = ("repomind-retain-until", "repomind-ttl");
    match (text(headers, name)?, text(headers, ttl)?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::field(ttl, "state a time to live or Repomind-Retain-Until, not both")),
        (Some(until), None) => match until.parse() {
            Ok(millis @ 0..=LATEST) => Ok(Some(UnixMillis(millis))),
            _ => Err(Problem::field(name, "state it in milliseconds since 1970-01-01 UTC, up to the year 9999")),
        },
        (None, Some(seconds)) => match seconds.parse() {
            Ok(seconds @ 1..=LONGEST_TTL) => Ok(Some(now + Millis::from_secs(seconds))),
            _ => Err(Problem::field(ttl, format!("state it in whole seconds, from 1 to {LONGEST_TTL}"))),
        },
    }
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

/// The state that the stored record must be in.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Match>, Problem> {
    let Some(text) = text(headers, "if-match")? else { return Ok(None) };
    if text == "*" {
        return Ok(Some(Match::Any));
    }
    let mut tags = Vec::new();
    for tag in text.split(',').map(str::trim) {
        let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        let inner = inner
            .filter(|inner| !inner.contains('"'))
            .ok_or_else(|| Problem::field("if-match", "send entity tags exactly as answers gave them, or *"))?;
        // A tag that this program never made is no mistake of form: it matches nothing.
        tags.extend(inner.parse::<ETag>());
    }
    Ok(Some(Match::OneOf(tags)))
}

/// Whether the record must not exist.
pub(super) fn must_be_new(headers: &HeaderMap) -> Result<bool, Problem> {
    match text(headers, "if-none-match")? {
        None => Ok(false),
        Some("*") => Ok(true),
        Some(_) => Err(Problem::field("if-none-match", "a write takes only *")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::names::NodeId;
    use model::version::{Actor, Dot, Incarnation};

    const NOW: UnixMillis = UnixMillis(1_000);

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
            ("repomind-retain-until", "253402300800000"),
            ("repomind-ttl", "0"),
            ("repomind-ttl", "1.5"),
            ("repomind-ttl", "99999999999"),
        ] {
            let problem = labels(&headers(&[(name, value)]), NOW).err().unwrap();
            assert_eq!(problem.json()["status"], 422);
            assert_eq!(problem.json()["field"], name);
        }
        let said =
            headers(&[("repomind-jurisdiction", "DE, us"), ("repomind-class", "personal"), ("repomind-ttl", "60")]);
        let read = labels(&said, NOW).unwrap();
        assert_eq!((read.jurisdictions.unwrap().len(), read.retain_until), (2, Some(UnixMillis(61_000))));
        let both = headers(&[("repomind-ttl", "60"), ("repomind-retain-until", "61000")]);
        assert_eq!(labels(&both, NOW).err().unwrap().json()["field"], "repomind-ttl");
    }

    #[test]
    fn a_label_in_a_second_header_of_the_same_name_counts_as_one_in_the_first() {
        let mut twice = headers(&[("repomind-class", "public"), ("repomind-jurisdiction", "US")]);
        twice.append("repomind-class", "personal".parse().unwrap());
        twice.append("repomind-jurisdiction", "DE, FR".parse().unwrap());
        let read = labels(&twice, NOW).unwrap();
        assert_eq!(read.classes.unwrap().len(), 2);
        assert_eq!(read.jurisdictions.unwrap().len(), 3);

        // Where there can be one only, two are refused.
        twice.append("repomind-basis", "consent".parse().unwrap());
        twice.append("repomind-basis", "contract".parse().unwrap());
        assert_eq!(labels(&twice, NOW).err().unwrap().json()["field"], "repomind-basis");
    }

    #[test]
    fn a_jurisdiction_that_is_no_country_is_never_taken_for_any_other_country() {
        for code in ["EU", "XX", "DE,ZZ", "D"] {
            let problem = labels(&headers(&[("repomind-jurisdiction", code)]), NOW).expect_err(code);
            assert_eq!(problem.json()["field"], "repomind-jurisdiction");
        }
        assert!(labels(&headers(&[("repomind-jurisdiction", "uk,el")]), NOW).is_ok());
    }

    #[test]
    fn a_misspelt_label_is_refused_and_never_passed_over() {
        assert!(only_known(&headers(&[("repomind-class", "public"), ("accept", "*/*")])).is_ok());
        let problem = only_known(&headers(&[("repomind-clas", "personal")])).err().unwrap();
        assert_eq!(problem.json()["field"], "repomind-clas");
    }

    #[test]
    fn a_precondition_takes_any_record_one_of_several_tags_or_none_at_all() {
        let tag = "0123456789abcdef0123";
        let read = |text: &str| if_match(&headers(&[("if-match", text)]));
        assert_eq!(read("*").unwrap(), Some(Match::Any));
        let both = Match::OneOf(vec![tag.parse().unwrap(), "ffffffffffffffffffff".parse().unwrap()]);
        assert_eq!(read(&format!("\"{tag}\", \"ffffffffffffffffffff\"")).unwrap(), Some(both));
        assert_eq!(read("\"of another server\"").unwrap(), Some(Match::OneOf(Vec::new())));
        for wrong in [tag, "W/\"x\"", "\"", ""] {
            assert_eq!(read(wrong).expect_err(wrong).json()["status"], 422);
        }
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
