//! Whether an answer is stored, for how long, and under which tags; and how fresh what was stored still is.

use model::edge::Request;
use model::record::DataClass;
use model::{Country, RuleId};

use super::{Asked, Place, Plan, text};
use crate::form::{Form, Rule};

/// The most tags of one answer; what an origin names beyond is left out.
pub const MOST_TAGS: usize = 64;

/// The head of an origin's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header, its lines joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> =
            self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }
}

/// Why an answer is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// No rule is about an answer of this status and type.
    NoRule,
    /// It sets a cookie: it is for one user.
    SetCookie,
    /// The origin forbids it, or gives it no time.
    Origin,
    /// It varies by a header that the key does not cover.
    Vary,
    /// The data in it may not lie where this edge keeps it.
    Residency,
}

impl NotKept {
    /// The word in explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRule => "no-rule",
            Self::SetCookie => "set-cookie",
            Self::Origin => "origin",
            Self::Vary => "vary",
            Self::Residency => "residency",
        }
    }
}

/// What is stored with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The rule that gave times and tags.
    pub rule: RuleId,
    /// The revision of the rule that gave the key.
    pub revision: String,
    /// Fresh for so long, in seconds.
    pub ttl: u32,
    /// Given for so long after that while a fresh one is fetched.
    pub stale_while_revalidate: u32,
    /// Given for so long after that where no region answers.
    pub stale_if_error: u32,
    /// What it can be purged by.
    pub tags: Vec<String>,
}

/// Whether and how an answer to `asked` is stored at `place`.
///
/// # Errors
/// Why it is not.
pub fn keep(
    form: &Form,
    place: &Place,
    plan: &Plan<'_>,
    asked: &Asked,
    head: &Head,
    now: u64,
) -> Result<Kept, NotKept> {
    let key_rule = plan.rule.ok_or(NotKept::NoRule)?;
    let content_type = head.header("content-type").unwrap_or_default();
    let rule = deciding(form, asked, head.status, &content_type).ok_or(NotKept::NoRule)?;
    if head.header("set-cookie").is_some() {
        return Err(NotKept::SetCookie);
    }
    let ttl = lifetime(head, rule.rule.edge_ttl_seconds).ok_or(NotKept::Origin)?;
    if !varies_by_key(key_rule, head) {
        return Err(NotKept::Vary);
    }
    if !may_lie(form, place, rule.rule.class, head, now) {
        return Err(NotKept::Residency);
    }
    let strict = ["must-revalidate", "proxy-revalidate"];
    let strict = strict.iter().any(|word| {
        ["cdn-cache-control", "cache-control"]
            .iter()
            .any(|name| head.header(name).is_some_and(|value| text::directive(&value, word).is_some()))
    });
    let stale = |seconds: u32| if strict { 0 } else { seconds };
    let mut tags = vec![format!("rule:{}", rule.rule.name)];
    tags.extend(rule.rule.tags.iter().cloned());
    tags.extend(head.header("cache-tag").iter().flat_map(|list| list.split(',')).map(|tag| tag.trim().to_owned()));
    tags.retain(|tag| !tag.is_empty() && !tag.contains(char::is_whitespace));
    tags.truncate(MOST_TAGS);
    tags.push(format!("url:{}{}", asked.host_name(), asked.path()));
    Ok(Kept {
        rule: rule.rule.name.clone(),
        revision: key_rule.revision.clone(),
        ttl,
        stale_while_revalidate: stale(rule.rule.stale_while_revalidate_seconds),
        stale_if_error: stale(rule.rule.stale_if_error_seconds),
        tags,
    })
}

/// The rule that gives times and tags: the first about the request, the status and the type.
pub fn deciding<'f>(form: &'f Form, asked: &Asked, status: u16, content_type: &str) -> Option<&'f Rule> {
    form.rules.iter().find(|rule| rule.rule.matches(asked) && rule.rule.answers(status, content_type))
}

/// For how long an answer is fresh, in seconds: what the rule says, or less where the origin says less.
///
/// `CDN-Cache-Control` counts before `Cache-Control` (RFC 9213, section 2.2), in it `s-maxage` before `max-age`
/// (RFC 9111, section 5.2.2.10); what the answer spent in caches before, `Age`, is taken off.
fn lifetime(head: &Head, most: u32) -> Option<u32> {
    let stated = head.header("cdn-cache-control");
    let ours = stated.is_some();
    let control = stated.or_else(|| head.header("cache-control")).unwrap_or_default();
    let says = |word| text::directive(&control, word);
    if ["no-store", "private", "no-cache"].iter().any(|word| says(word).is_some()) {
        return None;
    }
    let shared = if ours { None } else { says("s-maxage") };
    // What says no number may be meant to say that it is old already (RFC 9111, section 4.2.1).
    let given = match shared.or_else(|| says("max-age")) {
        Some(given) => given?,
        None => u64::from(most),
    };
    let age = head.header("age").and_then(|age| text::directive(&format!("age={age}"), "age").flatten()).unwrap_or(0);
    let left = given.min(u64::from(most)).saturating_sub(age);
    u32::try_from(left).ok().filter(|&left| left > 0)
}

/// Whether everything that the answer varies by is in the key.
fn varies_by_key(rule: &Rule, head: &Head) -> bool {
    use model::edge::KeyPart;
    let covered = |name: &str| {
        name == "accept-encoding"
            || rule.rule.vary.iter().any(|vary| vary.header == name)
            || rule.rule.key.iter().any(|part| matches!(part, KeyPart::Header(header) if header == name))
    };
    text::words(&head.header("vary").unwrap_or_default()).iter().all(|name| covered(name))
}

/// Whether the data in an answer may lie at `place`: by the classes and countries that it states, else by the class of
/// its rule. Words that nobody knows are a no.
pub fn may_lie(form: &Form, place: &Place, class: DataClass, head: &Head, now: u64) -> bool {
    let classes: Option<Vec<DataClass>> = match head.header("repomind-class") {
        None => Some(vec![class]),
        Some(stated) => text::words(&stated).iter().map(|word| word.parse().ok()).collect(),
    };
    let Some(classes) = classes.filter(|classes| !classes.is_empty()) else { return false };
    let countries: Option<Vec<Country>> = text::words(&head.header("repomind-jurisdiction").unwrap_or_default())
        .iter()
        .map(|word| Country::new(word).ok())
        .collect();
    let Some(countries) = countries else { return false };
    let mut laws: Vec<String> = countries.iter().map(|country| law_of(form, *country)).collect();
    if laws.is_empty() {
        laws.push("none".to_owned());
    }
    classes.iter().all(|&class| laws.iter().all(|law| holds(form, place, class, law, now)))
}

fn law_of(form: &Form, country: Country) -> String {
    let law = form.residency.laws.iter().find(|(_, countries)| countries.contains(&country));
    law.map_or_else(|| "other".to_owned(), |(name, _)| name.clone())
}

/// Whether one class under one law may lie at the place.
pub fn holds(form: &Form, place: &Place, class: DataClass, law: &str, now: u64) -> bool {
    let mut holdings = form.residency.holdings.iter();
    let Some(holding) = holdings.find(|holding| holding.class == class && holding.laws.iter().any(|l| l == law)) else {
        return false;
    };
    let in_time = holding.until.is_none_or(|until| now < until);
    let here = place.region.as_ref().and_then(|region| form.residency.region_duties.get(region));
    let fulfilled = holding.duties.iter().chain(here.into_iter().flatten()).all(|duty| place.duties.contains(duty));
    let permitted = match &place.region {
        Some(region) => holding.regions.contains(region),
        // Everywhere at once: only what is about nobody, and is held in every region.
        None => !class.is_personal() && form.origins.keys().all(|region| holding.regions.contains(region)),
    };
    in_time && fulfilled && permitted
}

/// How fresh a stored answer is, `age` seconds after it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is given as it is.
    Fresh,
    /// It is given, and a fresh one is fetched meanwhile.
    Revalidate,
    /// A fresh one is fetched first; where no region answers, it is given after all.
    IfError,
    /// It is gone.
    Gone,
}

impl Kept {
    /// How fresh it is after so many milliseconds.
    pub fn freshness(&self, age_ms: u64) -> Freshness {
        let past = |seconds: u32| age_ms < (u64::from(self.ttl) + u64::from(seconds)) * 1000;
        if past(0) {
            Freshness::Fresh
        } else if past(self.stale_while_revalidate) {
            Freshness::Revalidate
        } else if past(self.stale_if_error) {
            Freshness::IfError
        } else {
            Freshness::Gone
        }
    }
}

/// What the browser is told, where the origin says nothing about caching.
pub fn browser_control(form: &Form, asked: &Asked, head: &Head) -> Option<String> {
    if head.header("cache-control").is_some() {
        return None;
    }
    let content_type = head.header("content-type").unwrap_or_default();
    let rule = deciding(form, asked, head.status, &content_type)?;
    let private = asked.header("authorization").is_some() || head.header("set-cookie").is_some();
    Some(match (rule.rule.browser_ttl_seconds, private) {
        (0, _) => "no-cache".to_owned(),
        (seconds, true) => format!("private, max-age={seconds}"),
        (seconds, false) => format!("max-age={seconds}"),
    })
}
