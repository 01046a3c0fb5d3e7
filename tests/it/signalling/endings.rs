//! How sessions and sockets end, and who is told what.

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{
    frames::{answer, candidate, error},
    raw::{Raw, UPGRADE},
    server::TestServer,
};

#[tokio::test]
async fn the_visitor_s_socket_ends() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let visitor = server.visitor(&mut origin, "pod", "s").await;
    drop(visitor);
    server.until_health("no session", |health| health["sessions"] == 0).await;
    origin.nothing().await;
    origin.send(answer("s", "LATE")).await;
    origin.nothing().await;
}

#[tokio::test]
async fn the_origin_s_socket_ends() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut bystander_origin = server.origin("other").await;
    let mut one = server.visitor(&mut origin, "pod", "s1").await;
    let mut two = server.visitor(&mut origin, "pod", "s2").await;
    let mut bystander = server.visitor(&mut bystander_origin, "other", "s3").await;
    drop(origin);
    one.expect(error("s1", "origin offline")).await;
    two.expect(error("s2", "origin offline")).await;
    bystander.nothing().await;
    one.send(candidate("s1", "C")).await;
    one.expect(error("s1", "origin offline")).await;
    let health = server.health().await;
    assert_eq!((&health["origins"], &health["sessions"]), (&json!(["other"]), &json!(1)));
}

/// Closes with a close frame; its answer is the same code.
#[tokio::test]
async fn a_peer_that_closes_is_answered() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let close = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1000.into(), reason: "".into() };
    origin.stream.close(Some(close)).await.unwrap();
    assert_eq!(origin.closed().await.0, 1000);
    server.until_health("no origin", |health| health["origins"] == json!([])).await;
}

#[tokio::test]
async fn the_broker_stops() {
    let server = TestServer::start().await;
    let mut half_sent = Raw::open(&server.address).await;
    let (first_line, rest) = UPGRADE.split_once('\n').unwrap();
    half_sent.send(&format!("{first_line}\n")).await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    origin.send(answer("s", "SDP")).await;
    visitor.expect(answer("s", "SDP")).await;
    let new = server.connect().await;

    server.handle.shutdown();
    for mut socket in [origin, visitor, new] {
        assert_eq!(socket.closed().await, (1012, "service restart".into()));
    }
    // Nobody gets in any more: whom the broker was listening to is cut off, or told to come back.
    half_sent.send(rest).await;
    if let Some(upgraded) = half_sent.try_answer().await {
        assert_eq!(upgraded.status, 101);
    }
    let address = server.address.clone();
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}
