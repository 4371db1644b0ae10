//! Whether a request shows what its guard asks for.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use model::edge::{Algorithm, EdgeAuth, Proof, Request};

use super::{Asked, text};

/// Clocks of issuer and edge may differ by this much, in seconds.
pub const LEEWAY: u64 = 30;
/// The longest token that is looked at, in bytes.
pub const LONGEST_TOKEN: usize = 8192;

/// What guards verify with.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The keys of issuers, by the URL that a guard names.
    pub jwks: BTreeMap<String, JwkSet>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Vec<u8>>,
}

/// Why a request is refused by a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It shows nothing, or not in the form asked for.
    Missing,
    /// What it shows is not valid: signature, issuer, audience or algorithm.
    Invalid,
    /// It was valid once.
    Expired,
}

impl Denied {
    /// The word in explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
        }
    }
}

/// The status of a refusal: 401 for tokens, 403 for URLs, which no other credential can mend.
pub const fn status(auth: &EdgeAuth) -> u16 {
    match auth.proof {
        Proof::Token { .. } => 401,
        Proof::SignedUrl { .. } => 403,
    }
}

/// Verifies what `asked` shows against its guard, at `now` in unix seconds.
///
/// # Errors
/// Why it is refused.
pub fn verify(auth: &EdgeAuth, asked: &Asked, keys: &Keys, now: u64) -> Result<(), Denied> {
    match &auth.proof {
        Proof::Token { issuers, audiences, algorithms, jwks } => {
            let token = bearer(asked).ok_or(Denied::Missing)?;
            let header = jsonwebtoken::decode_header(token).map_err(|_| Denied::Invalid)?;
            if !algorithms.iter().any(|&algorithm| of_library(algorithm) == header.alg) {
                return Err(Denied::Invalid);
            }
            // RFC 7515, section 4.1.11: who does not understand what must be understood refuses. Nothing is understood.
            if header.crit.is_some() {
                return Err(Denied::Invalid);
            }
            let set = keys.jwks.get(jwks).ok_or(Denied::Invalid)?;
            let key = match &header.kid {
                Some(kid) => set.find(kid),
                None => set.keys.first().filter(|_| set.keys.len() == 1),
            };
            let key = DecodingKey::from_jwk(key.ok_or(Denied::Invalid)?).map_err(|_| Denied::Invalid)?;
            let mut validation = Validation::new(header.alg);
            validation.set_issuer(issuers);
            validation.set_audience(audiences);
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            // Against the clock of the caller instead.
            (validation.validate_exp, validation.validate_nbf) = (false, false);
            let token = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|_| Denied::Invalid)?;
            let Claims { exp, nbf } = token.claims;
            match () {
                () if exp.saturating_add(LEEWAY) <= now => Err(Denied::Expired),
                () if nbf.is_some_and(|nbf| nbf > now + LEEWAY) => Err(Denied::Invalid),
                () => Ok(()),
            }
        }
        Proof::SignedUrl { secret, signature, expires } => {
            let parameter = |name: &String| {
                let found = text::only(asked.query(), std::slice::from_ref(name));
                found.split_once('=').map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty())
            };
            let (given, until) = parameter(signature).zip(parameter(expires)).ok_or(Denied::Missing)?;
            let key = hmac::Key::new(hmac::HMAC_SHA256, keys.secrets.get(secret).ok_or(Denied::Invalid)?);
            let signed = format!("{}?{expires}={until}", asked.path());
            let given = unhex(&given).ok_or(Denied::Invalid)?;
            hmac::verify(&key, signed.as_bytes(), &given).map_err(|_| Denied::Invalid)?;
            let until: u64 = until.parse().map_err(|_| Denied::Invalid)?;
            if now < until { Ok(()) } else { Err(Denied::Expired) }
        }
    }
}

/// Only what a decision needs is read; the library checks issuer and audience.
#[derive(serde::Deserialize)]
struct Claims {
    exp: u64,
    nbf: Option<u64>,
}

/// The bearer token of a request, if it shows one in the form of a JWT.
pub fn bearer(asked: &Asked) -> Option<&str> {
    let line = asked.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.as_str())?;
    let (scheme, token) = line.split_once(' ')?;
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    let formed = token.len() <= LONGEST_TOKEN && token.split('.').count() == 3 && token.split('.').all(part);
    (scheme.eq_ignore_ascii_case("bearer") && formed).then_some(token)
}

/// The signature for a URL: what `verify` takes.
pub fn sign_url(secret: &[u8], path: &str, expires: &str, until: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{path}?{expires}={until}").as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0 && text.len() <= 128)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

const fn of_library(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
    }
}
