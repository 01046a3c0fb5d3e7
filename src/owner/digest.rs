//! `Content-Digest` (RFC 9530): ties a signature to a body that is read after it.

use base64::{Engine, prelude::BASE64_STANDARD};
use salvo::http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use sha2::{Digest as _, Sha256, Sha512};

use super::fields::{Combined, combined};

/// The field's name.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Why a digest is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The field is missing.
    #[error("expected a Content-Digest of the body, such as sha-256=:…:")]
    Missing,
    /// The field is no dictionary of byte sequences.
    #[error("the Content-Digest is malformed: expected sha-256=:BASE64: or sha-512=:BASE64:")]
    Malformed,
    /// None of its algorithms is known.
    #[error("the Content-Digest has no known algorithm; expected sha-256 or sha-512")]
    Unknown,
    /// It is of another body.
    #[error("the Content-Digest does not fit the body")]
    Mismatch,
}

/// The digests that a request announces. There is one at least.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

impl Announced {
    /// Reads the digests in `headers`; algorithms that are not known are passed over.
    ///
    /// # Errors
    ///
    /// There is none that could be checked.
    pub fn read(headers: &HeaderMap) -> Result<Self, DigestError> {
        let field = match combined(headers, &CONTENT_DIGEST) {
            Combined::Value(field) => field,
            Combined::Missing => return Err(DigestError::Missing),
            Combined::Unfit => return Err(DigestError::Malformed),
        };
        let digests = Parser::new(&field).parse::<Dictionary>().map_err(|_| DigestError::Malformed)?;
        let mut announced = Self::default();
        for (algorithm, digest) in digests {
            let ListEntry::Item(item) = digest else { return Err(DigestError::Malformed) };
            let BareItem::ByteSequence(bytes) = item.bare_item else { return Err(DigestError::Malformed) };
            match algorithm.as_str() {
                "sha-256" => announced.sha256 = Some(bytes),
                "sha-512" => announced.sha512 = Some(bytes),
                _ => {}
            }
        }
        match announced {
            Self { sha256: None, sha512: None } => Err(DigestError::Unknown),
            announced => Ok(announced),
        }
    }

    /// Checks that each of them is of `body`.
    ///
    /// # Errors
    ///
    /// One is not.
    pub fn check(&self, body: &[u8]) -> Result<(), DigestError> {
        let fits = |announced: &Option<Vec<u8>>, digest: &dyn Fn() -> Vec<u8>| match announced {
            Some(announced) => *announced == digest(),
            None => true,
        };
        let sha256 = || Sha256::digest(body).to_vec();
        let sha512 = || Sha512::digest(body).to_vec();
        if fits(&self.sha256, &sha256) && fits(&self.sha512, &sha512) {
            Ok(())
        } else {
            Err(DigestError::Mismatch)
        }
    }
}

/// The field for `body`, with SHA-256.
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(body)))
}

#[cfg(test)]
mod tests {
    use salvo::http::HeaderValue;

    use super::*;

    fn read(field: &str) -> Result<Announced, DigestError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_DIGEST, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        Announced::read(&headers)
    }

    /// The examples of RFC 9530, appendix B.
    const BODY: &[u8] = b"{\"hello\": \"world\"}\n";
    const SHA256: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    const SHA512: &str =
        "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:";

    #[test]
    fn digests_of_the_rfc_fit_their_body_and_no_other() {
        assert_eq!(content_digest(BODY), SHA256);
        for field in [SHA256, SHA512, &format!("{SHA256}, {SHA512}"), &format!("md5=:AAAA:, {SHA512}")] {
            let announced = read(field).unwrap();
            assert_eq!(announced.check(BODY), Ok(()), "{field}");
            assert_eq!(announced.check(b"{\"hello\": \"world\"}"), Err(DigestError::Mismatch), "{field}");
        }
        let one_wrong = format!("{SHA256}, sha-512=:AAAA:");
        assert_eq!(read(&one_wrong).unwrap().check(BODY), Err(DigestError::Mismatch));
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        assert_eq!(Announced::read(&HeaderMap::new()).unwrap_err(), DigestError::Missing);
        assert_eq!(read("").unwrap_err(), DigestError::Unknown);
        assert_eq!(read("md5=:AAAA:").unwrap_err(), DigestError::Unknown);
        for field in
            ["sha-256", "sha-256=AAAA", "sha-256=(:AAAA:)", "sha-256=:AAAA", "SHA-256=:AAAA:", "\u{fc}"]
        {
            assert_eq!(read(field).unwrap_err(), DigestError::Malformed, "{field}");
        }
    }
}
