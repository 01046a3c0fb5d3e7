//! An upgrade that was let in at the very moment of a stop.

use std::sync::OnceLock;

use gemmapod_signal::{
    MemoryRegistry, ServerHandle, SignalServer,
    salvo::{Response, Router, handler, http::StatusCode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{bytes, server::TestServer};

static BROKER: OnceLock<ServerHandle> = OnceLock::new();

/// Switches protocols, and stops the broker before the answer leaves.
#[handler]
async fn switch(response: &mut Response) {
    BROKER.get().unwrap().shutdown();
    response.status_code(StatusCode::SWITCHING_PROTOCOLS);
    response.add_header("connection", "upgrade", true).unwrap();
    response.add_header("upgrade", "websocket", true).unwrap();
}

#[tokio::test]
async fn is_answered_as_one() {
    let routes = Router::with_path("switch").get(switch);
    let builder = SignalServer::builder().registry(MemoryRegistry::new(1 << 20)).routes(routes);
    let server = TestServer::from(builder.config(crate::support::server::config(""))).await;
    BROKER.set(server.handle.clone()).ok().unwrap();
    let mut stream = bytes::connect(&server.address).await.unwrap();
    stream
        .write_all(b"GET /switch HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n") && !head.contains("close"), "{head}");
}
