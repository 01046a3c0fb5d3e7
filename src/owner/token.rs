//! `ownerToken`: the proof, in a `register` frame, that an origin acts for the owner of a pod id.
//!
//! A JWT (RFC 7519) signed with EdDSA (RFC 8037) by the owner key. The header's `kid` is that key, as 64 hex digits.
//!
//! | claim | |
//! | --- | --- |
//! | `sub` | the pod id |
//! | `aud` | the broker's public URL, such as `https://pods.example.org` |
//! | `iat` | when it was made, in seconds since 1970 |
//! | `exp` | when it ends; at most an hour after `iat` |
//! | `nbf` | if it is there: when it begins |
//! | `jti` | if it is there: the token is taken once only |

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use super::{
    key::OwnerSecret,
    provider,
    time::{Utc, seconds},
};
use crate::pods::OwnerKey;

/// How long a token may be valid.
pub const MAX_LIFETIME: Duration = Duration::from_hours(1);
/// How far the clock of the one who made a token may be off.
pub const LEEWAY: Duration = Duration::from_secs(90);
/// Bytes of a token. Real ones have about 400.
const MAX_LENGTH: usize = 4096;
/// Bytes of `jti`.
const MAX_JTI: usize = 64;

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// The key that signed it.
    pub key: OwnerKey,
    /// When it was made.
    pub issued: SystemTime,
    /// When it ends.
    pub expires: SystemTime,
    /// The name of a token that is taken once only.
    pub once: Option<String>,
}

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// The pod id.
    pub pod_id: &'a str,
    /// The public URL of the broker that it is for.
    pub audience: &'a str,
    /// How long it is valid, at most [`MAX_LIFETIME`].
    pub lifetime: Duration,
    /// A name for a token that is to be taken once only.
    pub once: Option<String>,
}

/// Why a token is refused: sentences for the owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is over the limit.
    #[error("the owner token is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It is no JWT.
    #[error("the owner token is not a JWT: expected three parts of base64url with dots between them")]
    Malformed,
    /// `alg` is `none`.
    #[error("the owner token is not signed (alg \"none\"); expected alg \"EdDSA\"")]
    NotSigned,
    /// `alg` is something else, or missing.
    #[error("the owner token has another algorithm than alg \"EdDSA\"")]
    WrongAlgorithm,
    /// `kid` is missing or no key.
    #[error("the owner token names no key: expected the owner key in kid, as 64 hex digits")]
    NoKey,
    /// The signature was not made by the key.
    #[error("the owner token's signature does not fit the key in its kid")]
    BadSignature,
    /// A claim is missing or of the wrong kind.
    #[error("the owner token lacks a claim: expected sub, aud, iat and exp, times in whole seconds")]
    Claims,
    /// It is for another broker.
    #[error("the owner token is for another broker: expected aud {0:?}")]
    OtherBroker(String),
    /// It is for another pod.
    #[error("the owner token is for another pod: expected the podId in sub")]
    OtherPod,
    /// Its time is over.
    #[error(
        "the owner token has expired: this broker's clock shows {0}; make a new one, or set the clock that is wrong"
    )]
    Expired(Utc),
    /// Its time has not come.
    #[error("the owner token is not good yet: this broker's clock shows {0}; set the clock that is wrong")]
    NotYet(Utc),
    /// It is valid for too long.
    #[error("the owner token is valid for more than an hour; make one with a shorter lifetime")]
    TooLongLived,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    #[serde(skip_deserializing)]
    aud: String,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    alg: String,
    kid: Option<String>,
}

/// Makes a token.
///
/// # Errors
///
/// The life that was asked for is too long, or the pod id or the name make the token too long.
pub fn issue(
    secret: &OwnerSecret,
    request: &TokenRequest<'_>,
    now: SystemTime,
) -> Result<String, TokenError> {
    if request.lifetime > MAX_LIFETIME {
        return Err(TokenError::TooLongLived);
    }
    provider::install();
    let iat = seconds(now);
    let claims = Claims {
        sub: request.pod_id.into(),
        aud: request.audience.trim_end_matches('/').into(),
        iat,
        nbf: None,
        exp: iat + request.lifetime.as_secs(),
        jti: request.once.clone(),
    };
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(secret.owner_key().to_string());
    let token = jsonwebtoken::encode(&header, &claims, &secret.encoding_key());
    let token = token.map_err(|_| TokenError::Malformed)?;
    if token.len() > MAX_LENGTH { Err(TokenError::TooLong) } else { Ok(token) }
}

/// Verifies that `token` was made for `pod_id` at this broker, whose URLs are `audience`, and is good at `now`. Whether a
/// token that is good once was seen before is the caller's to ask.
///
/// # Errors
///
/// See [`TokenError`].
pub fn verify(
    token: &str,
    pod_id: &str,
    audience: &[String],
    now: SystemTime,
) -> Result<VerifiedToken, TokenError> {
    if token.len() > MAX_LENGTH {
        return Err(TokenError::TooLong);
    }
    let key = signer_of(token)?;
    let claims = claims_of(token, &key, pod_id, audience)?;
    let now = seconds(now);
    let leeway = LEEWAY.as_secs();
    if claims.exp.saturating_add(leeway) <= now {
        return Err(TokenError::Expired(Utc(now)));
    }
    if claims.iat.max(claims.nbf.unwrap_or_default()) > now + leeway {
        return Err(TokenError::NotYet(Utc(now)));
    }
    if claims.exp.saturating_sub(claims.iat) > MAX_LIFETIME.as_secs() {
        return Err(TokenError::TooLongLived);
    }
    if claims.jti.as_ref().is_some_and(|jti| jti.len() > MAX_JTI) {
        return Err(TokenError::TooLong);
    }
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(VerifiedToken { key, issued: at(claims.iat), expires: at(claims.exp), once: claims.jti })
}

/// The key that the token names.
fn signer_of(token: &str) -> Result<OwnerKey, TokenError> {
    let mut parts = token.split('.');
    let (Some(head), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let head = BASE64_URL_SAFE_NO_PAD.decode(head).map_err(|_| TokenError::Malformed)?;
    let head: Head = serde_json::from_slice(&head).map_err(|_| TokenError::Malformed)?;
    match head.alg.as_str() {
        "EdDSA" => {}
        alg if alg.eq_ignore_ascii_case("none") => return Err(TokenError::NotSigned),
        _ => return Err(TokenError::WrongAlgorithm),
    }
    let key: OwnerKey = head.kid.and_then(|kid| kid.parse().ok()).ok_or(TokenError::NoKey)?;
    // Anybody can sign for a key of small order.
    match VerifyingKey::from_bytes(&key.0) {
        Ok(point) if !point.is_weak() => Ok(key),
        _ => Err(TokenError::NoKey),
    }
}

fn claims_of(token: &str, key: &OwnerKey, pod_id: &str, audience: &[String]) -> Result<Claims, TokenError> {
    provider::install();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_required_spec_claims(&["sub", "aud", "exp"]);
    validation.aud = Some(audience.iter().flat_map(|url| [url.clone(), format!("{url}/")]).collect());
    validation.sub = Some(pod_id.into());
    // Times are looked at by the caller, against its own clock.
    validation.validate_exp = false;
    let decoded = jsonwebtoken::decode(token, &DecodingKey::from_ed_der(&key.0), &validation);
    decoded.map(|token| token.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::InvalidAudience => TokenError::OtherBroker(audience.first().cloned().unwrap_or_default()),
        ErrorKind::InvalidSubject => TokenError::OtherPod,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
            TokenError::Claims
        }
        _ => TokenError::Malformed,
    })
}

#[cfg(test)]
mod tests;
