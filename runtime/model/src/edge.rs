//! What the edge does, as `edge-cache.scm` declares it: what may be cached and for how long, who is let in, at what
//! rate, and which region is asked.
//!
//! These are declarations. `edge` compiles them, with the routing and residency plans, to the form that every backend
//! is made from. Matching stands here because the gateway names the rule of an answer, too.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{RegionId, RuleId};
use crate::record::DataClass;

/// Which requests something is about. Every part that is given must hold; an empty list holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestMatch {
    /// The path begins with one of these.
    pub paths: Vec<String>,
    /// The path ends in one of these.
    pub suffixes: Vec<String>,
    /// The method is one of these, in capitals.
    pub methods: Vec<String>,
    /// Each of these headers is there, names in lower case.
    pub headers: Vec<Named>,
    /// Each of these cookies is there.
    pub cookies: Vec<Named>,
}

/// A header or cookie that must be there, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its whole value; any where there is none.
    pub value: Option<String>,
}

/// One cache rule. The first that matches a request decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheRule {
    /// Its name.
    #[schemars(with = "String")]
    pub name: RuleId,
    /// The requests that it is about. Without methods: GET and HEAD.
    pub when: RequestMatch,
    /// The statuses that it is about; empty for those that are cached unless said otherwise (200, 301, 308). A rule
    /// with statuses or content types gives times and tags only: key and `Vary` must be known before the answer.
    pub statuses: Vec<u16>,
    /// The answer's media type begins with one of these, in lower case; empty for any.
    pub content_types: Vec<String>,
    /// Never looked up and never stored.
    pub bypass: bool,
    /// How long the edge may keep an answer, in seconds; 0 is "never".
    pub edge_ttl_seconds: u32,
    /// How long a browser may, in seconds.
    pub browser_ttl_seconds: u32,
    /// How long after that an answer is still given while a fresh one is fetched, in seconds.
    pub stale_while_revalidate_seconds: u32,
    /// How long after that an answer is still given where no region answers, in seconds.
    pub stale_if_error_seconds: u32,
    /// What tells two answers apart, in order.
    pub key: Vec<KeyPart>,
    /// Headers that answers vary by, and the values that are told apart.
    pub vary: Vec<Vary>,
    /// What the answers can be purged by, besides the URL and `rule:NAME`.
    pub tags: Vec<String>,
    /// The class of data in answers that do not state one.
    #[serde(with = "by_name")]
    #[schemars(with = "String")]
    pub class: DataClass,
}

/// Classes of data by the names that headers and policies have for them.
pub mod by_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::record::DataClass;

    /// Writes the name.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(class: &DataClass, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(class.as_str())
    }

    /// Reads the name.
    ///
    /// # Errors
    /// Names of no class, and those of the format.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DataClass, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A part of a cache key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyPart {
    /// The host asked for, in lower case, without port.
    Host,
    /// The path.
    Path,
    /// All query parameters, sorted bytewise.
    Query,
    /// These query parameters, in this order.
    QueryOnly(Vec<String>),
    /// All query parameters but these, sorted bytewise.
    QueryExcept(Vec<String>),
    /// A request header, name in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// The client's country.
    Country,
}

/// A request header that is reduced to a few values before it reaches key and origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vary {
    /// The header, in lower case.
    pub header: String,
    /// The values told apart, preferred ones first; a request that accepts none of them gets the first.
    pub values: Vec<String>,
}

/// Who shares a rate limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// Those with one client address.
    Client,
    /// Those in one country.
    Country,
    /// Everyone.
    Everyone,
    /// Those with one value of a header, name in lower case.
    Header(String),
}

/// How exactly a rate limit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// In each edge location by itself: cheap, and as many times the rate as there are locations.
    Coarse,
    /// One count for all locations, to the request.
    Exact,
}

/// How often something may be asked for: a bucket of `burst` that fills at `rate` per `per_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RateLimit {
    /// Its name.
    #[schemars(with = "String")]
    pub name: RuleId,
    /// The requests that count.
    pub when: RequestMatch,
    /// Who shares it.
    pub key: LimitKey,
    /// So many requests, at least 1.
    pub rate: u32,
    /// In so many seconds, at least 1.
    pub per_seconds: u32,
    /// So many at once, at least 1.
    pub burst: u32,
    /// How exactly.
    pub scope: LimitScope,
}

/// A signature algorithm of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// ECDSA on P-256.
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSA, PKCS#1 v1.5, SHA-256.
    RS256,
}

/// Who is let in before anything is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeAuth {
    /// Its name.
    #[schemars(with = "String")]
    pub name: RuleId,
    /// The requests that it guards.
    pub when: RequestMatch,
    /// Paths that begin so are open all the same.
    pub except: Vec<String>,
    /// What is asked for.
    pub proof: Proof,
    /// Whether an edge that cannot verify may leave it to the origin: it then asks for the proof, caches nothing of
    /// what is guarded, and passes everything on.
    pub origin_may_verify: bool,
}

/// What a client has to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A bearer token (RFC 6750) that is a JWT.
    Token {
        /// Issuers believed.
        issuers: Vec<String>,
        /// It must be meant for one of these.
        audiences: Vec<String>,
        /// How it may be signed.
        algorithms: Vec<Algorithm>,
        /// Where the issuers' keys are.
        jwks: String,
    },
    /// A signature in the URL: HMAC-SHA256 in hexadecimal over path, `?` and the expiry's parameter.
    SignedUrl {
        /// The secret's name, never the secret.
        secret: String,
        /// The query parameter with the signature.
        signature: String,
        /// The query parameter with the end of its validity, in unix seconds.
        expires: String,
    },
}

/// Which regions are asked for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeRoute {
    /// Its name.
    #[schemars(with = "String")]
    pub name: RuleId,
    /// The requests that it is about.
    pub when: RequestMatch,
    /// The regions, in this order; empty for the order of the routing plan, by country.
    #[schemars(with = "Vec<String>")]
    pub regions: Vec<RegionId>,
    /// How many regions an idempotent request may be sent to, at least 1.
    pub attempts: u8,
    /// So many failures in a row, and a region is passed over.
    pub break_after: u32,
    /// For so long, in seconds.
    pub break_seconds: u32,
    /// How long an answer's head may take, in milliseconds.
    pub timeout_ms: u32,
}

/// A kind of edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A Cloudflare Worker.
    Cloudflare,
    /// Varnish 7 with varnish-modules, in memory on machines of one region.
    Varnish,
    /// nginx, reduced.
    Nginx,
}

impl Backend {
    /// Every backend.
    pub const ALL: [Self; 3] = [Self::Cloudflare, Self::Varnish, Self::Nginx];

    /// The word on the command line and in policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cloudflare => "cloudflare",
            Self::Varnish => "varnish",
            Self::Nginx => "nginx",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A kind of edge that is in use, so that what it cannot do refuses a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsedBackend {
    /// The kind.
    pub backend: Backend,
    /// Whether it may do without what it cannot do and can be done without.
    pub reduced: bool,
}

impl UsedBackend {
    /// The word in policies.
    pub fn name(self) -> String {
        format!("{}{}", self.backend, if self.reduced { "-reduced" } else { "" })
    }
}

/// Everything that a generation declares for the edge, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgePlan {
    /// `define-cache-rule`.
    pub rules: Vec<CacheRule>,
    /// `define-rate-limit`. All that match count.
    pub limits: Vec<RateLimit>,
    /// `define-edge-auth`. The first that matches decides.
    pub auth: Vec<EdgeAuth>,
    /// `define-edge-route`. The first that matches decides.
    pub routes: Vec<EdgeRoute>,
    /// `define-edge-backends`: the kinds of edge in use.
    pub backends: Vec<UsedBackend>,
}

/// A request as matching sees it.
pub trait Request {
    /// In capitals.
    fn method(&self) -> &str;
    /// Without query.
    fn path(&self) -> &str;
    /// The value of a header, its lines joined with `, `; the name in lower case.
    fn header(&self, name: &str) -> Option<String>;
    /// The value of a cookie.
    fn cookie(&self, name: &str) -> Option<String> {
        let line = self.header("cookie")?;
        line.split(';').find_map(|pair| {
            let (found, value) = pair.trim().split_once('=')?;
            (found == name).then(|| value.to_owned())
        })
    }
}

impl RequestMatch {
    /// Whether the request is one of these.
    pub fn holds(&self, request: &impl Request) -> bool {
        let path = request.path();
        let is = |wanted: &Named, found: Option<String>| {
            found.is_some_and(|found| wanted.value.as_ref().is_none_or(|value| *value == found))
        };
        (self.paths.is_empty() || self.paths.iter().any(|prefix| path.starts_with(prefix.as_str())))
            && (self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| path.ends_with(suffix.as_str())))
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == request.method()))
            && self.headers.iter().all(|wanted| is(wanted, request.header(&wanted.name)))
            && self.cookies.iter().all(|wanted| is(wanted, request.cookie(&wanted.name)))
    }
}

impl CacheRule {
    /// The statuses of a rule that names none.
    pub const USUAL_STATUSES: [u16; 3] = [200, 301, 308];

    /// Whether it waits for the answer before it knows that it is meant.
    pub fn refines(&self) -> bool {
        !self.statuses.is_empty() || !self.content_types.is_empty()
    }

    /// Whether the rule is about this request.
    pub fn matches(&self, request: &impl Request) -> bool {
        let usual = self.when.methods.is_empty() && !matches!(request.method(), "GET" | "HEAD");
        !usual && self.when.holds(request)
    }

    /// Whether the rule is about an answer of this status and media type.
    pub fn answers(&self, status: u16, content_type: &str) -> bool {
        let statuses: &[u16] = if self.statuses.is_empty() { &Self::USUAL_STATUSES } else { &self.statuses };
        let media_type = content_type.to_ascii_lowercase();
        statuses.contains(&status)
            && (self.content_types.is_empty()
                || self.content_types.iter().any(|prefix| media_type.starts_with(prefix.as_str())))
    }
}

impl EdgePlan {
    /// The rule that gives key and bypass: the first about this request that needs no answer.
    pub fn rule_of(&self, request: &impl Request) -> Option<&CacheRule> {
        self.rules.iter().find(|rule| !rule.refines() && rule.matches(request))
    }

    /// The rule that gives times and tags, now that the answer is known.
    pub fn rule_for(&self, request: &impl Request, status: u16, content_type: &str) -> Option<&CacheRule> {
        self.rules.iter().find(|rule| rule.matches(request) && rule.answers(status, content_type))
    }
}
