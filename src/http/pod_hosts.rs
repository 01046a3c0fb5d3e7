//! The hosts of pods, with `pods.isolation = "subdomain"`.

use std::sync::Arc;

use salvo::{FlowCtrl, Request, Response, handler, http::Method};

use super::{
    download,
    error::HttpError,
    isolation::{label, pod_domain},
};
use crate::{app::App, net::client::Client, pods::slug_of_label};

/// Serves pods on hosts of their own, and nothing else there.
pub struct PodHosts(pub Arc<App>);

#[handler]
impl PodHosts {
    async fn handle(
        &self,
        request: &mut Request,
        response: &mut Response,
        flow: &mut FlowCtrl,
    ) -> Result<(), HttpError> {
        let Self(app) = self;
        let config = app.live.load_full();
        let Some(domain) = pod_domain(&config.pods) else { return Ok(()) };
        let Some(label) = label(&Client::of(request, &config.trusted_proxies), &domain) else {
            return Ok(());
        };
        flow.skip_rest();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let slug = slug_of_label(&label).filter(|_| is_read && request.uri().path() == "/");
        download::serve(app, slug.ok_or(HttpError::NotFound)?, request, response).await
    }
}
