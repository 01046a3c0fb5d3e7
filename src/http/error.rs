//! What a request is refused with: a status and one sentence, as `{"error": "…"}`.

use std::time::Duration;

use salvo::{
    Depot, FlowCtrl, Request, Response, Writer, async_trait, handler,
    http::{
        HeaderValue, StatusCode, header,
        headers::{ContentRange, HeaderMapExt},
    },
};
use serde::Serialize;

use super::json::render_json;
use crate::{
    net::limits::Exceeded,
    owner::{signature::ACCEPT_SIGNATURE, uploads::NotTaken},
    pods::{InvalidPod, QuotaExceeded, RegistryError},
};

/// A refused request.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{1}")]
    Refused(StatusCode, String),
    /// It would take a signature of an owner key (RFC 9421).
    #[error("{0}")]
    NotSigned(String),
    /// It would take an upload token (RFC 6750).
    #[error("{0}")]
    NoToken(String),
    /// The body is encoded (RFC 9110, section 8.4).
    #[error(
        "the body has a Content-Encoding, which this broker does not decode: send the pod as it is, without Content-Encoding"
    )]
    Encoded,
    /// The same later may work.
    #[error("{message}")]
    Busy { message: &'static str, retry_after: Duration },
    /// The client asked too often. Answered with what the limit is and when to come back.
    #[error("{}", .0.sentence)]
    TooMany(Exceeded),
    /// No byte of the range that was asked for is within the pod, which has this length.
    #[error("the range is outside of the pod's {0} bytes")]
    OutOfRange(u64),
    /// There is nothing under this path. Answered as the reference does, in plain text.
    #[error("404 Not Found")]
    NotFound,
    #[error(transparent)]
    InvalidPod(#[from] InvalidPod),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl HttpError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self::Refused(status, message.into())
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused(status, _) => *status,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotSigned(_) | Self::NoToken(_) => StatusCode::UNAUTHORIZED,
            Self::OutOfRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidPod(InvalidPod::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::InvalidPod(_) => StatusCode::BAD_REQUEST,
            Self::Registry(RegistryError::Quota(
                QuotaExceeded::OwnerPods(_) | QuotaExceeded::OwnerBytes(_),
            )) => StatusCode::FORBIDDEN,
            Self::Registry(RegistryError::Full(_) | RegistryError::Quota(_)) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::Registry(RegistryError::Unsupported(_)) => StatusCode::NOT_IMPLEMENTED,
            Self::Registry(RegistryError::Failed(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the client is told. The cause of a failure of our own is for the log.
    fn sentence(&self) -> String {
        match self {
            Self::Registry(RegistryError::Full(_)) => "this broker has no room left for the pod".into(),
            Self::Registry(RegistryError::Failed(_)) => "this broker could not reach its registry".into(),
            other => other.to_string(),
        }
    }
}

impl From<NotTaken> for HttpError {
    fn from(refused: NotTaken) -> Self {
        match &refused {
            NotTaken::Closed | NotTaken::OtherOwner(_) => {
                Self::new(StatusCode::FORBIDDEN, refused.to_string())
            }
            NotTaken::Unsigned => Self::NotSigned(refused.to_string()),
            NotTaken::NoToken | NotTaken::WrongToken => Self::NoToken(refused.to_string()),
            NotTaken::Unusable(cause) => {
                tracing::error!("no upload is taken: {cause}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, refused.to_string())
            }
        }
    }
}

#[async_trait]
impl Writer for HttpError {
    async fn write(self, _: &mut Request, _: &mut Depot, response: &mut Response) {
        if let Self::NotFound = self {
            return render_not_found(response);
        }
        if let Self::Registry(error @ (RegistryError::Failed(_) | RegistryError::Full(_))) = &self {
            tracing::error!(%error, "the registry could not serve a request");
        }
        let headers = response.headers_mut();
        match &self {
            Self::NotSigned(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
                headers.insert("accept-signature", HeaderValue::from_static(ACCEPT_SIGNATURE));
            }
            Self::NoToken(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Encoded => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            Self::OutOfRange(length) => headers.typed_insert(ContentRange::unsatisfied_bytes(*length)),
            _ => {}
        }
        if let Self::Busy { retry_after, .. } = &self {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
        }
        if let Self::TooMany(exceeded) = &self {
            explain(exceeded, response);
        }
        response.status_code(self.status());
        render_json(response, &ErrorBody { error: &self.sentence() });
    }
}

impl From<Exceeded> for HttpError {
    fn from(exceeded: Exceeded) -> Self {
        Self::TooMany(exceeded)
    }
}

/// `Retry-After`, and the fields of draft-ietf-httpapi-ratelimit-headers.
fn explain(exceeded: &Exceeded, response: &mut Response) {
    // Rounded up: who comes back then is let through.
    let seconds = |time: Duration| time.as_millis().div_ceil(1000).max(1);
    let Exceeded { name, quota, unit, window, wait, .. } = exceeded;
    let wait = seconds(*wait);
    let mut policy = format!("\"{name}\";q={quota}");
    if !window.is_zero() {
        policy += &format!(";w={}", seconds(*window));
    }
    if let Some(unit) = unit {
        policy += &format!(";qu=\"{unit}\"");
    }
    let value = |text: String| HeaderValue::try_from(text).expect("names and numbers fit a header");
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, value(wait.to_string()));
    headers.insert("ratelimit-policy", value(policy));
    headers.insert("ratelimit", value(format!("\"{name}\";r=0;t={wait}")));
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

/// Answers as the reference does: 404, whatever the method.
pub struct NotFound;

#[handler]
impl NotFound {
    async fn handle(&self, response: &mut Response) {
        render_not_found(response);
    }
}

fn render_not_found(response: &mut Response) {
    const BODY: &str = "404 Not Found";
    response.status_code(StatusCode::NOT_FOUND);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::CONTENT_LENGTH, BODY.len().into());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.body(BODY);
}

/// Gives an error status without a body its sentence.
pub struct FallbackErrors;

#[handler]
impl FallbackErrors {
    async fn handle(&self, response: &mut Response, flow: &mut FlowCtrl) -> Result<(), HttpError> {
        flow.skip_rest();
        match response.status_code {
            None | Some(StatusCode::NOT_FOUND) => Err(HttpError::NotFound),
            Some(status) => Err(HttpError::new(status, status.canonical_reason().unwrap_or("error"))),
        }
    }
}
