//! A stopping broker asks for no further requests on a connection.

use std::sync::Arc;

use salvo::{
    Depot, FlowCtrl, Request, Response, handler,
    http::{HeaderValue, StatusCode, Version, header},
};

use crate::app::App;

/// Adds `Connection: close` to what is answered from when the broker begins to stop, so that connections end between
/// two requests and not in one.
pub struct CloseOnShutdown(pub Arc<App>);

#[handler]
impl CloseOnShutdown {
    async fn handle(
        &self,
        request: &mut Request,
        depot: &mut Depot,
        response: &mut Response,
        flow: &mut FlowCtrl,
    ) {
        flow.call_next(request, depot, response).await;
        // An upgrade that was let in just before the stop is an upgrade still.
        let upgraded = response.status_code == Some(StatusCode::SWITCHING_PROTOCOLS);
        if self.0.stop.is_cancelled() && request.version() <= Version::HTTP_11 && !upgraded {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}
