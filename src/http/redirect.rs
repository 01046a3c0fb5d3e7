//! What a redirect listener serves: the redirect to https, and the answers to ACME's http-01.

use std::sync::Arc;

use salvo::{
    Request, Response, Router, Service, handler,
    http::{HeaderValue, StatusCode, header, uri::Authority},
};

use super::{
    access,
    challenge::challenge_route,
    error::{self, HttpError},
    host, limit,
};
use crate::{app::App, config::PublicUrl, net::client::Client};

/// All routes of a redirect listener.
pub(crate) fn service(app: &Arc<App>, https_port: u16) -> Service {
    let router = Router::new()
        .push(challenge_route(app))
        .push(Router::with_path("{**path}").goal(ToHttps { app: app.clone(), https_port }));
    Service::new(router)
        .hoop(access::AccessLog(app.clone()))
        .hoop(limit::LimitReads(app.clone()))
        .hoop(host::ValidHost(app.clone()))
        .catcher(salvo::catcher::Catcher::new(error::FallbackErrors))
}

struct ToHttps {
    app: Arc<App>,
    https_port: u16,
}

#[handler]
impl ToHttps {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let config = self.app.live.load_full();
        let client = Client::of(request, &config.trusted_proxies);
        let missing = || {
            HttpError::new(
                StatusCode::BAD_REQUEST,
                "expected a Host header: the redirect to https depends on it",
            )
        };
        let host = client.host.as_ref().map(Authority::host).ok_or_else(missing)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        // `OPTIONS *` asks for no path.
        let path = if path.starts_with('/') { path } else { "/" };
        // Where the world reaches https on another port than the listener's, the public URL says on which.
        let port = config.public_url.as_ref().and_then(PublicUrl::https_port).unwrap_or(self.https_port);
        let location = match port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        let location = HeaderValue::try_from(location).map_err(|_| missing())?;
        // 308 keeps the method: an upload that comes here is an upload there.
        response.status_code(StatusCode::PERMANENT_REDIRECT);
        response.headers_mut().insert(header::LOCATION, location);
        response.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
        Ok(())
    }
}
