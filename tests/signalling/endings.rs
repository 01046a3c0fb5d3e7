//! How sessions and sockets end, and who is told what.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{
    frames::{answer, candidate, error, offer, refusal},
    raw::{Raw, UPGRADE},
    server::TestServer,
    socket::Socket,
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

/// Sends `frame` over and over until the broker says something to it.
async fn flood(socket: &mut Socket, frame: Value) -> Value {
    for _ in 0..400 {
        socket.send(frame.clone()).await;
        socket.send_text("{").await;
        let told = socket.receive().await;
        if told != refusal("invalid json") {
            return told;
        }
    }
    panic!("the broker took any amount of frames for a peer that does not read");
}

const SMALL_QUEUE: &str = "[signal]\nmax_frame = \"48 KiB\"\nmax_queue = \"64 KiB\"";
const TOO_SLOW: (u16, &str) = (1013, "too many unread frames");

#[tokio::test]
async fn an_origin_does_not_read_what_it_is_sent() {
    let server = TestServer::with(SMALL_QUEUE).await;
    let mut origin = Socket::narrow(&server.address).await;
    origin.register("pod").await;
    let mut bystander = server.visitor(&mut origin, "pod", "b").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;

    let told = flood(&mut visitor, offer("pod", "s", &"x".repeat(32 << 10))).await;
    assert_eq!(told, error("s", "peer does not read"));
    // The answer to the last probe and the end of the session come in any order.
    let rest = [visitor.receive().await, visitor.receive().await];
    assert!(
        rest.contains(&error("s", "origin offline")) && rest.contains(&refusal("invalid json")),
        "{rest:?}"
    );
    bystander.expect(error("b", "origin offline")).await;
    let (code, reason) = origin.closed().await;
    assert_eq!((code, &*reason), TOO_SLOW);
}

#[tokio::test]
async fn a_visitor_does_not_read_what_it_is_sent() {
    let server = TestServer::with(SMALL_QUEUE).await;
    let mut origin = server.origin("pod").await;
    let mut visitor = Socket::narrow(&server.address).await;
    visitor.send(offer("pod", "s", "SDP")).await;
    assert_eq!(origin.receive().await["t"], "offer");

    let told = flood(&mut origin, answer("s", &"x".repeat(32 << 10))).await;
    assert_eq!(told, error("s", "peer does not read"));
    origin.expect(refusal("invalid json")).await;
    let (code, reason) = visitor.closed().await;
    assert_eq!((code, &*reason), TOO_SLOW);
    server.until_health("no session", |health| health["sessions"] == 0).await;
    origin.nothing().await;
}

#[tokio::test]
async fn the_broker_stops() {
    let server = TestServer::start().await;
    let mut half_sent = Raw::open(&server.address).await;
    let (first_line, rest) = UPGRADE.split_once('\n').unwrap();
    half_sent.send(&format!("{first_line}\n")).await;
    let mut origin = server.origin("pod").await;
    let visitor = server.visitor(&mut origin, "pod", "s").await;
    let new = server.connect().await;

    server.handle.shutdown();
    for mut socket in [origin, visitor, new] {
        assert_eq!(socket.closed().await, (1012, "service restart".into()));
    }
    // Nobody gets in any more: neither whom the broker was listening to, nor a newcomer.
    half_sent.send(rest).await;
    if let Some(answer) = half_sent.try_answer().await {
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json(), json!({ "error": "this broker is stopping" }));
    }
    let address = server.address.clone();
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}
