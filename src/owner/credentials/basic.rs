//! `Authorization: Basic` (RFC 7617) in the request for a socket.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, header};

use crate::pods::Digest;

/// Base64 with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A credential as a request presents it. The secret itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The user name.
    pub name: String,
    /// The SHA-256 of the password.
    pub secret_hash: Digest,
}

/// The header is no Basic credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Authorization header is malformed: expected one, with the base64 of NAME:SECRET after Basic, as clients make \
     it of wss://NAME:SECRET@host/signal"
)]
pub struct Malformed;

impl Presented {
    /// Reads the credential in `headers`. Returns `None` if there is none; other schemes than `Basic` are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if there are several, or one that is not `NAME:SECRET` in base64.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, Malformed> {
        let mut basic = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
            let value = value.as_bytes().trim_ascii();
            let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
            value[..end].eq_ignore_ascii_case(b"basic").then(|| value[end..].trim_ascii())
        });
        let Some(encoded) = basic.next() else { return Ok(None) };
        if basic.next().is_some() {
            return Err(Malformed);
        }
        let decoded = BASE64.decode(encoded).map_err(|_| Malformed)?;
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
        let (name, secret) = (&decoded[..colon], &decoded[colon + 1..]);
        let name = std::str::from_utf8(name).map_err(|_| Malformed)?.to_owned();
        Ok(Some(Self { name, secret_hash: Digest::of(secret) }))
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&[u8]]) -> Result<Option<(String, Digest)>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        Presented::read(&headers).map(|found| found.map(|found| (found.name, found.secret_hash)))
    }

    #[test]
    fn a_name_ends_at_the_first_colon() {
        let of = |secret: &[u8]| Ok(Some(("home".to_owned(), Digest::of(secret))));
        for (value, secret) in [
            (&b"Basic aG9tZTpzZWNyZXQ="[..], &b"secret"[..]),
            (b"basic aG9tZTpzZWNyZXQ", b"secret"),
            (b"BASIC   aG9tZTpzZWNyZXQ= ", b"secret"),
            (b"Basic aG9tZTphOmI=", b"a:b"),
            (b"Basic aG9tZTo=", b""),
        ] {
            assert_eq!(read(&[value]), of(secret), "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn what_is_no_name_and_secret_is_malformed() {
        // No base64, no colon, a name that is no UTF-8, nothing at all, two.
        for value in [&b"Basic !!!!"[..], b"Basic aG9tZQ==", b"Basic /zpzZWNyZXQ=", b"Basic", b"Basic "] {
            assert_eq!(read(&[value]), Err(Malformed), "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(read(&[b"Basic aG9tZTo=", b"Basic aG9tZTo="]), Err(Malformed));
    }

    #[test]
    fn other_schemes_are_ignored() {
        for value in [&b"Bearer aG9tZTpzZWNyZXQ="[..], b"", b"Basics aG9tZTo=", b"Digest username=\"home\""] {
            assert_eq!(read(&[value]), Ok(None), "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(read(&[]), Ok(None));
        assert!(read(&[b"Bearer x", b"Basic aG9tZTo="]).unwrap().is_some());
    }

    proptest! {
        /// For every name without a colon and every secret.
        #[test]
        fn what_is_encoded_is_read_back(name in "[^:]{0,40}", secret: Vec<u8>) {
            let pair = [name.as_bytes(), b":", &secret].concat();
            let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
            prop_assert_eq!(read(&[value.as_bytes()]), Ok(Some((name, Digest::of(&secret)))));
        }
    }
}
