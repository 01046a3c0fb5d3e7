//! `Strict-Transport-Security` (RFC 6797): once a browser got through with a certificate that the world trusts, it
//! takes nothing less for a year.

use std::sync::Arc;

use salvo::{
    Request, Response, handler,
    http::{HeaderValue, header, uri::Scheme},
};

use crate::app::App;

const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the header to answers over TLS, for the names whose certificate is public.
pub struct Hsts(pub Arc<App>);

#[handler]
impl Hsts {
    async fn handle(&self, request: &mut Request, response: &mut Response) {
        let Self(app) = self;
        if *request.scheme() == Scheme::HTTPS
            && app.live.load().tls.hsts
            && request
                .uri()
                .host()
                .is_some_and(|host| app.certificates.is_public(host.strip_suffix('.').unwrap_or(host)))
        {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, ONE_YEAR);
        }
    }
}
