//! What an owner may do about a broker that cannot be reached.

use std::{error::Error, io};

use http::StatusCode;
use tokio_rustls::rustls::{CertificateError, Error as TlsError, InvalidMessage};

/// Returns the failure of TLS that caused `error`.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let wrapped =
        || error.downcast_ref::<io::Error>()?.get_ref().map(|inner| inner as &(dyn Error + 'static));
    error.downcast_ref().or_else(|| tls_error(wrapped().or_else(|| error.source())?))
}

/// Returns what may mend a request that got no answer.
pub fn of_failure(error: &(dyn Error + 'static)) -> &'static str {
    match tls_error(error) {
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; if the broker has a certificate authority of its own, name its certificate with --ca FILE"
        }
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "; if this port has no TLS, use http:// in place of https://"
        }
        _ => "",
    }
}

/// Returns what may mend a request with an answer that is not one of a broker.
pub fn of_redirect(broker: &str, status: StatusCode) -> &'static str {
    if status.is_redirection() && broker.starts_with("http:") {
        "; use https:// in place of http://"
    } else {
        ""
    }
}
