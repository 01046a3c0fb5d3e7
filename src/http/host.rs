//! Refuses a request whose `Host` is missing or is no host, whatever it asks for (RFC 9112, section 3.2): the name ends
//! up in URLs, in redirects and in the audience of signatures.

use std::sync::Arc;

use salvo::{
    Request, handler,
    http::{HeaderMap, StatusCode, Version, header, uri::Authority},
};

use super::error::HttpError;
use crate::{app::App, host};

/// Lets requests through that name one valid host.
pub struct ValidHost(pub Arc<App>);

#[handler]
impl ValidHost {
    async fn handle(&self, request: &mut Request) -> Result<(), HttpError> {
        let authority = request.uri().authority();
        let checked = check(request.version(), authority, request.headers());
        if checked.is_err() && !request.headers().contains_key(header::EXPECT) {
            self.0.body_drain.drain(self.0.network(request), request.take_body(), ());
        }
        checked.map_err(|problem| HttpError::new(StatusCode::BAD_REQUEST, problem))
    }
}

/// Checks the authority of the request's target and its `Host`. With HTTP/1, the authority is that of a whole URL in the
/// request line, or else a copy of `Host`; with HTTP/2, it is `:authority`.
fn check(version: Version, authority: Option<&Authority>, headers: &HeaderMap) -> Result<(), &'static str> {
    const INVALID: &str = "the request names no valid host: expected a host name or address in Host, perhaps with a port, such as pods.example.org:8443";
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err("the request has several Host fields: expected one");
    }
    if authority.is_some_and(|authority| !host::is_host_and_port(authority.as_str())) {
        return Err(INVALID);
    }
    match field {
        Some(field) => {
            let field = field.to_str().ok().filter(|field| host::is_host_and_port(field)).ok_or(INVALID)?;
            let differs = authority.is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(field));
            if version >= Version::HTTP_2 && differs {
                // RFC 9113, section 8.3.1.
                return Err(
                    "the request names two hosts: expected the same in :authority and Host, or no Host",
                );
            }
            Ok(())
        }
        None if version < Version::HTTP_11 || (version >= Version::HTTP_2 && authority.is_some()) => Ok(()),
        None => Err("the request has no Host: expected the host that it is for"),
    }
}
