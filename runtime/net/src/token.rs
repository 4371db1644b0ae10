//! Bearer tokens: who may read, write and operate.
//!
//! A token is a JWT signed with EdDSA or ES256, for the audience `repomind`,
//! with an expiry and a scope. Verified tokens are remembered by their hash, so
//! that a busy client costs one signature check and not one a request. Nothing
//! here ever logs a token or a subject.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use data::Authority;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use model::Country;
use model::record::DataClass;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::pki::{self, PkiError};

/// The audience that every token must name.
pub const AUDIENCE: &str = "repomind";

/// The scope of the development token.
pub const ALL_SCOPES: &str = "data:read data:write admin subjects relabel";

/// Before a class of data that a token may write: with such words, it may write no other.
const CLASS: &str = "class:";
/// The same for countries whose law it may claim.
const JURISDICTION: &str = "jurisdiction:";
/// The word by which a token may loosen labels.
const RELABEL: &str = "relabel";

/// Whether a word may stand in the scope of a token that is made here.
pub(crate) fn is_known(word: &str) -> bool {
    let class = word.strip_prefix(CLASS).is_some_and(|class| class.parse::<DataClass>().is_ok());
    let country = word.strip_prefix(JURISDICTION).is_some_and(|country| Country::new(country).is_ok());
    class || country || ALL_SCOPES.split(' ').any(|known| known == word)
}

/// Clocks of issuer and verifier may differ by this much.
const LEEWAY_SECONDS: u64 = 30;

/// What a token may permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read records.
    DataRead,
    /// Write and delete records.
    DataWrite,
    /// Operate the region.
    Admin,
    /// Erase, export and hold what is about a person.
    Subjects,
}

impl Scope {
    /// The word in the token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DataRead => "data:read",
            Self::DataWrite => "data:write",
            Self::Admin => "admin",
            Self::Subjects => "subjects",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    scope: String,
    exp: u64,
    iat: u64,
}

/// Only what a decision needs is read from a foreign token; the library checks `aud` and `exp`.
#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    scope: String,
    exp: u64,
}

/// What a verified token permits.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    scopes: Vec<String>,
    expires: u64,
}

impl Grant {
    /// What its bearer may claim of records. A word that cannot be read permits nothing.
    pub fn authority(&self) -> Authority {
        let words = |before: &'static str| self.scopes.iter().filter_map(move |word| word.strip_prefix(before));
        let some = |before| words(before).next().is_some();
        Authority {
            classes: some(CLASS).then(|| words(CLASS).filter_map(|word| word.parse().ok()).collect()),
            jurisdictions: some(JURISDICTION)
                .then(|| words(JURISDICTION).filter_map(|word| Country::new(word).ok()).collect()),
            relabel: self.scopes.iter().any(|word| word == RELABEL),
        }
    }

    /// For how long it is still valid.
    pub(crate) fn remains(&self) -> Duration {
        Duration::from_secs((self.expires + LEEWAY_SECONDS).saturating_sub(unix_seconds()))
    }

    /// Whether it permits `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|word| word == scope.name())
    }
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Authorization: Bearer` header.
    #[error("a bearer token is required")]
    Missing,
    /// Malformed, of another signer, or for another audience.
    #[error("the bearer token is not valid here")]
    Invalid,
    /// Past its expiry.
    #[error("the bearer token has expired")]
    Expired,
    /// Valid, without the scope that is needed.
    #[error("the bearer token lacks the scope {}", .0.name())]
    Scope(Scope),
}

/// Verifies tokens against one public key. Cheap to clone.
#[derive(Clone)]
pub struct TokenVerifier {
    shared: Arc<Shared>,
}

struct Shared {
    key: DecodingKey,
    validation: Validation,
    known: Mutex<HashMap<[u8; 32], Arc<Grant>>>,
}

impl TokenVerifier {
    /// A verifier for a public key in PEM: Ed25519, or an elliptic curve key for ES256.
    ///
    /// # Errors
    /// The library's words when the key is neither.
    pub fn new(public_pem: impl AsRef<[u8]>) -> Result<Self, jsonwebtoken::errors::Error> {
        let public_pem = public_pem.as_ref();
        let (key, algorithm) = match DecodingKey::from_ed_pem(public_pem) {
            Ok(key) => (key, Algorithm::EdDSA),
            Err(_) => (DecodingKey::from_ec_pem(public_pem)?, Algorithm::ES256),
        };
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        Ok(Self { shared: Arc::new(Shared { key, validation, known: Mutex::default() }) })
    }

    /// Reads `token.pub` from `dir`.
    ///
    /// # Errors
    /// [`PkiError`], naming the file.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("token.pub");
        let pem = pki::read(&path)?;
        Self::new(pem.as_bytes()).map_err(|error| pki::content(&path, "public key", error))
    }

    /// Checks the `Authorization` header for a token that permits `scope`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, headers: &http::HeaderMap, scope: Scope) -> Result<Arc<Grant>, Refusal> {
        let header = headers.get(http::header::AUTHORIZATION).ok_or(Refusal::Missing)?;
        let text = header.to_str().map_err(|_| Refusal::Invalid)?;
        let token = match text.split_once(' ') {
            Some((kind, token)) if kind.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Refusal::Missing),
        };
        let grant = self.verify(token)?;
        if grant.allows(scope) { Ok(grant) } else { Err(Refusal::Scope(scope)) }
    }

    /// Verifies a token: signature, audience and expiry.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] or [`Refusal::Expired`].
    pub fn verify(&self, token: &str) -> Result<Arc<Grant>, Refusal> {
        if token.len() > limits::TOKEN_BYTES {
            return Err(Refusal::Invalid);
        }
        let now = unix_seconds();
        let mut name = [0; 32];
        name.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        if let Some(grant) = self.known().get(&name).cloned() {
            return if now < grant.expires + LEEWAY_SECONDS { Ok(grant) } else { Err(Refusal::Expired) };
        }
        let read: Read = jsonwebtoken::decode(token, &self.shared.key, &self.shared.validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => Refusal::Expired,
                _ => Refusal::Invalid,
            })?
            .claims;
        let scopes = read.scope.split_ascii_whitespace().map(str::to_owned).collect();
        let grant = Arc::new(Grant { scopes, expires: read.exp });
        let mut known = self.known();
        if known.len() >= limits::TOKENS_REMEMBERED {
            known.retain(|_, grant| now < grant.expires);
        }
        if known.len() >= limits::TOKENS_REMEMBERED {
            known.clear();
        }
        known.insert(name, grant.clone());
        Ok(grant)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Grant>>> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A token for `subject`, signed with an Ed25519 key in PKCS#8 PEM.
pub(crate) fn sign(
    key_pem: &[u8],
    subject: &str,
    scopes: &str,
    lifetime: Duration,
) -> Result<String, jsonwebtoken::errors::Error> {
    let now = unix_seconds();
    let claims = Claims {
        aud: AUDIENCE.into(),
        sub: subject.into(),
        scope: scopes.into(),
        exp: now + lifetime.as_secs(),
        iat: now,
    };
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &EncodingKey::from_ed_pem(key_pem)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (tempfile::TempDir, TokenVerifier) {
        let dir = tempfile::tempdir().unwrap();
        pki::ensure(dir.path(), []).unwrap();
        let verifier = TokenVerifier::load(dir.path()).unwrap();
        (dir, verifier)
    }

    fn headers(token: &str) -> http::HeaderMap {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        headers
    }

    #[test]
    fn a_token_without_the_scope_is_refused_and_one_with_it_is_let_in_twice() {
        let (dir, verifier) = keys();
        let token = pki::issue_token(dir.path(), "reader", "data:read", Duration::from_secs(60)).unwrap();
        assert!(verifier.check(&headers(&token), Scope::DataRead).is_ok());
        assert!(verifier.check(&headers(&token), Scope::DataRead).is_ok());
        assert_eq!(verifier.check(&headers(&token), Scope::Admin), Err(Refusal::Scope(Scope::Admin)));
        assert_eq!(verifier.check(&http::HeaderMap::new(), Scope::Admin), Err(Refusal::Missing));
    }

    #[test]
    fn a_token_says_which_labels_its_bearer_may_claim_and_without_a_word_it_may_not_loosen_them() {
        let (dir, verifier) = keys();
        let scopes = "data:write class:public class:personal jurisdiction:el";
        let token = pki::issue_token(dir.path(), "writer", scopes, Duration::from_secs(60)).unwrap();
        let may = verifier.verify(&token).unwrap().authority();
        assert_eq!(may.classes, Some([DataClass::Public, DataClass::Personal].into()));
        assert_eq!((may.jurisdictions, may.relabel), (Some([Country::new("GR").unwrap()].into()), false));
        let token = pki::issue_token(dir.path(), "all", ALL_SCOPES, Duration::from_secs(60)).unwrap();
        assert_eq!(verifier.verify(&token).unwrap().authority(), Authority::default());
        for wrong in ["class:secret", "jurisdiction:Germany", "class:"] {
            assert!(pki::issue_token(dir.path(), "x", wrong, Duration::from_secs(60)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_of_another_signer_or_audience_or_past_its_expiry_is_refused() {
        let (dir, verifier) = keys();
        let (other, _) = keys();
        let foreign = pki::issue_token(other.path(), "reader", "data:read", Duration::from_secs(60)).unwrap();
        assert_eq!(verifier.verify(&foreign), Err(Refusal::Invalid));
        let key = EncodingKey::from_ed_pem(&std::fs::read(dir.path().join("token.key")).unwrap()).unwrap();
        let sign = |aud: &str, exp: u64| {
            let claims = Claims { aud: aud.into(), sub: "x".into(), scope: ALL_SCOPES.into(), exp, iat: 0 };
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap()
        };
        let later = unix_seconds() + 1000;
        assert_eq!(verifier.verify(&sign("elsewhere", later)), Err(Refusal::Invalid));
        assert_eq!(verifier.verify(&sign(AUDIENCE, 1000)), Err(Refusal::Expired));
        assert!(verifier.verify(&sign(AUDIENCE, later)).is_ok());
    }
}
