//! A line in the log for each request, for operators who ask for it (`log.level = "info,access=debug"`).

use std::sync::Arc;

use salvo::{Depot, FlowCtrl, Request, Response, handler, http::StatusCode};
use tracing::{Level, enabled};

use crate::{app::App, net::client::Client};

/// Logs requests with the address of their client, at level debug: no line of level info or above names a visitor.
pub struct AccessLog(pub Arc<App>);

#[handler]
impl AccessLog {
    async fn handle(
        &self,
        request: &mut Request,
        depot: &mut Depot,
        response: &mut Response,
        flow: &mut FlowCtrl,
    ) {
        if !enabled!(target: "access", Level::DEBUG) {
            flow.call_next(request, depot, response).await;
            return;
        }
        let client = Client::of(request, &self.0.live.load().trusted_proxies);
        flow.call_next(request, depot, response).await;
        let address = client.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        // Without the query: it may hold what is nobody's business.
        tracing::debug!(
            target: "access",
            method = %request.method(),
            path = request.uri().path(),
            status = response.status_code.unwrap_or(StatusCode::NOT_FOUND).as_u16(),
            client = address,
            "request"
        );
    }
}
