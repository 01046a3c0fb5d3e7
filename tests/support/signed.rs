//! Uploads that the owner of the pod signed.

use std::time::{Duration, SystemTime};

use gemmapod_signal::{
    Builder, Clock,
    owner::{client::nonce, components::Parts, key::OwnerSecret, signature},
};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{pod::Pod, server::TestServer};

/// How long a broker must be up before it takes signed requests, and some more.
const UP: Duration = Duration::from_secs(20);

/// A broker that takes signed requests as soon as it is up.
pub async fn server(builder: Builder) -> TestServer {
    let clock = Clock::default();
    let server = TestServer::from(builder.clock(clock.clone())).await;
    clock.pass(UP);
    server
}

/// The signature of the owner of `pod` over its upload to a broker without `public_url`.
pub fn signature(server: &TestServer, pod: &Pod, html: &str) -> HeaderMap {
    let secret = OwnerSecret::from_bytes(&pod.key.to_bytes());
    let (headers, origin) = (HeaderMap::new(), server.url(""));
    let parts = Parts { method: &Method::POST, origin: &origin, path_and_query: "/pods", headers: &headers };
    let now = SystemTime::now() + UP;
    let fields: Vec<(HeaderName, HeaderValue)> =
        signature::sign(&secret, &parts, Some(html.as_bytes()), &nonce(), now);
    fields.into_iter().collect()
}
