//! Why the signature of a request is refused.

use super::time::Utc;

/// Bytes of `Signature-Input` and of `Signature`, each.
pub(super) const MAX_FIELD: usize = 4096;
/// Components that a signature may cover.
pub(super) const MAX_COMPONENTS: usize = 32;

/// Why a signed request is refused: sentences for the owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The request is not signed.
    #[error("expected a request signed with the owner key: Signature-Input and Signature of RFC 9421")]
    Missing,
    /// A field is not as the RFC has it.
    #[error("Signature-Input or Signature is malformed: expected the structured fields of RFC 9421")]
    Malformed,
    /// A field is over the limit.
    #[error("Signature-Input or Signature is longer than {MAX_FIELD} bytes")]
    TooLong,
    /// There are several signatures, or one without its input.
    #[error("expected exactly one signature, under one label in Signature-Input and Signature")]
    NotOne,
    /// Too many components.
    #[error("the signature covers more than {MAX_COMPONENTS} components")]
    TooMany,
    /// A component that is not known, or has parameters.
    #[error("the signature covers {0:?}, which is not known here; components have no parameters")]
    UnknownComponent(String),
    /// A component that stands twice.
    #[error("the signature covers {0:?} twice")]
    Twice(String),
    /// A field that the request does not have.
    #[error("the signature covers {0:?}, which is not in the request")]
    NoSuchField(String),
    /// A component that must be covered and is not.
    #[error("the signature does not cover {0}")]
    NotCovered(&'static str),
    /// A parameter that is missing or of the wrong kind.
    #[error("the signature's parameter {0} is missing or not as expected: {1}")]
    Parameter(&'static str, &'static str),
    /// Signed too long ago.
    #[error(
        "the signature has expired: this broker's clock shows {0}; sign again, or set the clock that is wrong"
    )]
    Expired(Utc),
    /// The signature does not fit.
    #[error("the signature does not fit the request and its keyid")]
    BadSignature,
}
