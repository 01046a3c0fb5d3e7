//! Signed requests: HTTP Message Signatures (RFC 9421) with Ed25519 by an owner key.
//!
//! What is asked of a signature beyond the RFC:
//!
//! | | |
//! | --- | --- |
//! | signatures | one |
//! | covered | `@method`; `@target-uri`, or `@authority` and `@path` (and `@query` if there is one); `content-digest` where there is a body |
//! | `keyid` | the owner key, 64 hex digits |
//! | `alg` | `ed25519`, or left out |
//! | `created` | at most five minutes ago, and after the broker's start |
//! | `expires` | if it is there: later than now |
//! | `nonce` | 1 to 64 characters, each taken once for a key |

use std::{convert::Infallible, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use salvo::http::{HeaderName, HeaderValue};
use sfv::{
    BareItem, Dictionary, InnerList, Item, Key, KeyRef, ListEntry, Parameters, Parser,
    visitor::{DictionaryVisitor, EntryVisitor, Ignored},
};

use super::{
    components::{Parts, names, signature_base},
    digest::{CONTENT_DIGEST, content_digest},
    fields::{Combined, combined},
    key::OwnerSecret,
    signature_error::{MAX_COMPONENTS, MAX_FIELD, SignatureError},
    time::{Utc, seconds},
};
use crate::pods::OwnerKey;

/// The field that says what is signed.
pub const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// The field with the signature.
pub const SIGNATURE: HeaderName = HeaderName::from_static("signature");
/// What a refused client is told to sign (RFC 9421, section 5.1).
pub const ACCEPT_SIGNATURE: &str =
    r#"sig1=("@method" "@target-uri" "content-digest");created;nonce;keyid;alg="ed25519""#;

/// Seconds after `created` in which a signature is good.
pub const WINDOW: u64 = 300;
/// Characters in a nonce.
const MAX_NONCE: usize = 64;

/// What a signature proves. Whether its nonce was seen before is for [`super::replay`] to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRequest {
    /// The key that signed it.
    pub key: OwnerKey,
    /// When it was signed, in seconds since 1970.
    pub created: u64,
    /// From when on it is refused, in seconds since 1970.
    pub expires: u64,
    /// The name of this request among those of the key.
    pub nonce: String,
}

/// Verifies the one signature of a request, which must cover a digest of the body if `has_body`.
///
/// # Errors
///
/// See [`SignatureError`].
pub fn verify(parts: &Parts<'_>, has_body: bool, now: SystemTime) -> Result<VerifiedRequest, SignatureError> {
    let (covered, signature) = the_one(parts)?;
    if covered.items.len() > MAX_COMPONENTS {
        return Err(SignatureError::TooMany);
    }
    require(&names(&covered)?, parts, has_body)?;
    let verified = parameters(&covered.params)?;
    let key = VerifyingKey::from_bytes(&verified.key.0).map_err(|_| SignatureError::BadSignature)?;
    let signature = Signature::from_slice(&signature).map_err(|_| SignatureError::BadSignature)?;
    let base = signature_base(&covered, parts)?;
    key.verify_strict(base.as_bytes(), &signature).map_err(|_| SignatureError::BadSignature)?;
    let now = seconds(now);
    if verified.expires <= now {
        return Err(SignatureError::Expired(Utc(now)));
    }
    Ok(verified)
}

/// Counts the entries of a dictionary. In the dictionary itself, the last of those with one key stands for all.
struct Entries(usize);

impl<'de> DictionaryVisitor<'de> for Entries {
    type Out = usize;
    type Error = Infallible;

    fn entry(&mut self, _: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.0 += 1;
        Ok(Ignored)
    }

    fn finish(self) -> Result<usize, Infallible> {
        Ok(self.0)
    }
}

/// The signature and what it covers.
fn the_one(parts: &Parts<'_>) -> Result<(InnerList, Vec<u8>), SignatureError> {
    let field = |name: HeaderName| match combined(parts.headers, &name) {
        Combined::Value(value) if value.len() > MAX_FIELD => Err(SignatureError::TooLong),
        Combined::Value(value) => match Parser::new(&value).parse_dictionary_with_visitor(Entries(0)) {
            Ok(1) => Parser::new(&value).parse().map_err(|_| SignatureError::Malformed),
            Ok(_) => Err(SignatureError::NotOne),
            Err(_) => Err(SignatureError::Malformed),
        },
        Combined::Missing => Err(SignatureError::Missing),
        Combined::Unfit => Err(SignatureError::Malformed),
    };
    let mut input: Dictionary = field(SIGNATURE_INPUT)?;
    let mut signature: Dictionary = field(SIGNATURE)?;
    match (input.pop(), signature.pop()) {
        (Some((label, _)), Some((other, _))) if label != other => Err(SignatureError::NotOne),
        (Some((_, ListEntry::InnerList(covered))), Some((_, ListEntry::Item(item)))) => {
            match item.bare_item {
                BareItem::ByteSequence(signature) => Ok((covered, signature)),
                _ => Err(SignatureError::Malformed),
            }
        }
        _ => Err(SignatureError::Malformed),
    }
}

/// Sees that the signature says what is asked for, where, and with what.
fn require(names: &[&str], parts: &Parts<'_>, has_body: bool) -> Result<(), SignatureError> {
    let covers = |name: &str| names.contains(&name);
    if !covers("@method") {
        return Err(SignatureError::NotCovered("@method"));
    }
    if !covers("@target-uri") {
        if !covers("@authority") || !covers("@path") {
            return Err(SignatureError::NotCovered("@target-uri (or @authority and @path)"));
        }
        if parts.path_and_query.contains('?') && !covers("@query") {
            return Err(SignatureError::NotCovered("@query"));
        }
    }
    if has_body && !covers("content-digest") {
        return Err(SignatureError::NotCovered("content-digest"));
    }
    Ok(())
}

fn parameters(params: &Parameters) -> Result<VerifiedRequest, SignatureError> {
    let get = |name: &str| params.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value);
    let text = |name: &str| get(name).and_then(BareItem::as_string).map(|text| text.as_str());
    let time = |name: &str| {
        let time = get(name).and_then(BareItem::as_integer);
        time.and_then(|time| u64::try_from(i64::from(time)).ok())
    };
    if get("alg").is_some() && text("alg") != Some("ed25519") {
        return Err(SignatureError::Parameter("alg", "expected \"ed25519\""));
    }
    let key = text("keyid").and_then(|keyid| keyid.parse().ok());
    let key = key.ok_or(SignatureError::Parameter("keyid", "expected the owner key, 64 hex digits"))?;
    const TIME: &str = "expected seconds since 1970";
    let created = time("created").ok_or(SignatureError::Parameter("created", TIME))?;
    let expires = match get("expires") {
        Some(_) => time("expires").ok_or(SignatureError::Parameter("expires", TIME))?,
        None => u64::MAX,
    };
    let nonce = text("nonce").filter(|nonce| (1..=MAX_NONCE).contains(&nonce.len()));
    let nonce = nonce.ok_or(SignatureError::Parameter("nonce", "expected 1 to 64 characters"))?;
    Ok(VerifiedRequest { key, created, expires: expires.min(created + WINDOW), nonce: nonce.into() })
}

/// Signs a request with an owner key: the fields that it needs beside its own.
///
/// # Panics
///
/// If the nonce is not printable ASCII.
pub fn sign(
    secret: &OwnerSecret,
    parts: &Parts<'_>,
    body: Option<&[u8]>,
    nonce: &str,
    now: SystemTime,
) -> Vec<(HeaderName, HeaderValue)> {
    let header = |value: String| HeaderValue::try_from(value).expect("structured fields are ASCII");
    let string = |text: &str| sfv::String::try_from(text.to_owned()).expect("the text is ASCII");
    let mut fields = Vec::new();
    let mut headers = parts.headers.clone();
    let mut covered = vec!["@method", "@target-uri"];
    if let Some(body) = body {
        let digest = header(content_digest(body));
        headers.insert(CONTENT_DIGEST, digest.clone());
        fields.push((CONTENT_DIGEST, digest));
        covered.push("content-digest");
    }
    let created = i64::try_from(seconds(now)).expect("the time is below the year 292 billion");
    let created = sfv::Integer::try_from(created).expect("the time has fewer than 16 digits");
    let key = |name: &str| Key::try_from(name.to_owned()).expect("the name is a key");
    let params = [
        (key("created"), BareItem::Integer(created)),
        (key("nonce"), BareItem::String(string(nonce))),
        (key("keyid"), BareItem::String(string(&secret.owner_key().to_string()))),
        (key("alg"), BareItem::String(string("ed25519"))),
    ];
    let items = covered.iter().map(|name| Item::new(string(name))).collect();
    let covered = InnerList::with_params(items, params.into_iter().collect());
    let base = signature_base(&covered, &Parts { headers: &headers, ..*parts });
    let base = base.expect("what is covered is there");
    let signature = BASE64_STANDARD.encode(secret.sign(base.as_bytes()));
    let (_, input) = base.rsplit_once("\"@signature-params\": ").expect("the parameters are signed too");
    fields.push((SIGNATURE_INPUT, header(format!("sig1={input}"))));
    fields.push((SIGNATURE, header(format!("sig1=:{signature}:"))));
    fields
}

#[cfg(test)]
mod tests;
