//! `WS /signal`: registrations, negotiations, and the holes in them.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::row::{Judged, Row};
use crate::support::{frames::offer, raw::ask, server::TestServer, socket::Socket};

/// What one frame on a new socket is answered with.
async fn answer_to(frame: Value) -> Value {
    let mut socket = TestServer::start().await.connect().await;
    socket.send(frame).await;
    socket.receive().await
}

/// The reference's name for a socket to which nothing comes.
async fn silence(socket: &mut Socket) -> &'static str {
    socket.nothing().await;
    "silence"
}

/// `frame` with the id that the test chose struck out, as the rows have it.
fn struck(mut frame: Value, field: &str, id: &str) -> Value {
    assert_eq!(frame[field], id);
    frame[field] = "*".into();
    frame
}

fn close((code, reason): (u16, String)) -> Value {
    json!({ "close": code, "reason": reason })
}

pub async fn ws_register(row: Row) -> Judged {
    let server = TestServer::start().await;
    let origin = server.origin("pod").await;
    let listed = server.health().await["origins"] == json!(["pod"]);
    drop(origin);
    server.until_health("that the origin left", |health| health["origins"] == json!([])).await;
    row.matches(json!({ "listed": listed, "gone": true }))
}

pub async fn ws_registered_frame(row: Row) -> Judged {
    row.matches(answer_to(json!({ "t": "register", "podId": "frame-1" })).await)
}

pub async fn ws_register_twice(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    origin.send(json!({ "t": "register", "podId": "pod" })).await;
    row.matches(origin.receive().await)
}

pub async fn ws_register_replace(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut incumbent = server.origin("pod").await;
    let mut newcomer = server.connect().await;
    newcomer.send(json!({ "t": "register", "podId": "pod" })).await;
    // It answers the broker's ping as it reads.
    incumbent.send_text("{").await;
    let incumbent = incumbent.receive().await;
    row.mends(
        json!({
            "newcomer": newcomer.receive().await,
            "close": close(newcomer.closed().await),
            "incumbent": incumbent,
        }),
        json!({
            "newcomer": { "t": "error", "message": "pod id is held" },
            "close": { "close": 4003, "reason": "pod id is held" },
            "incumbent": { "t": "error", "message": "invalid json" },
        }),
    )
}

pub async fn ws_register_nopod(row: Row) -> Judged {
    let here = answer_to(json!({ "t": "register" })).await;
    row.mends(here, json!({ "t": "error", "message": "podId required" }))
}

pub async fn ws_register_pod_number(row: Row) -> Judged {
    let here = answer_to(json!({ "t": "register", "podId": 7 })).await;
    row.mends(here, json!({ "t": "error", "message": "podId must be text" }))
}

pub async fn ws_offer_offline(row: Row) -> Judged {
    row.matches(answer_to(offer("nobody", "s1", "SDP")).await)
}

pub async fn ws_offer_nopod(row: Row) -> Judged {
    row.matches(answer_to(json!({ "t": "offer", "sessionId": "s1", "sdp": "SDP" })).await)
}

pub async fn ws_offer_nosdp(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.connect().await;
    visitor.send(json!({ "t": "offer", "podId": "pod", "sessionId": "s" })).await;
    let here = json!({ "visitor": visitor.receive().await, "origin": silence(&mut origin).await });
    let error = json!({ "t": "error", "sessionId": "s", "message": "sdp required" });
    row.mends(here, json!({ "visitor": error, "origin": "silence" }))
}

pub async fn ws_full(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.connect().await;
    let candidate = row.there["toOrigin"]["candidate"].clone();
    let mut here = json!({});

    visitor.send(offer("pod", "s", row.there["offer"]["sdp"].as_str().unwrap())).await;
    here["offer"] = struck(origin.receive().await, "sessionId", "s");
    origin.send(json!({ "t": "answer", "sessionId": "s", "sdp": "ANSWER" })).await;
    here["answer"] = struck(visitor.receive().await, "sessionId", "s");

    let from_visitor = json!({ "t": "candidate", "podId": "pod", "sessionId": "s", "candidate": candidate });
    visitor.send(from_visitor).await;
    here["toOrigin"] = struck(origin.receive().await, "sessionId", "s");
    visitor.send(json!({ "t": "candidate", "sessionId": "s", "candidate": candidate })).await;
    here["toOriginNoPod"] = origin.receive().await["t"].clone();
    origin.send(json!({ "t": "candidate", "sessionId": "s", "candidate": candidate })).await;
    here["toVisitor"] = struck(visitor.receive().await, "sessionId", "s");

    origin.send(json!({ "t": "error", "sessionId": "s", "message": "boom" })).await;
    here["errToVisitor"] = struck(visitor.receive().await, "sessionId", "s");
    visitor.send(json!({ "t": "error", "sessionId": "s", "message": "bang" })).await;
    here["errToOrigin"] = struck(origin.receive().await, "sessionId", "s");

    visitor.send(offer("pod", "s", "RENEGOTIATE")).await;
    here["secondOffer"] = origin.receive().await["sdp"].clone();
    drop(origin);
    here["originGone"] = visitor.receive().await;

    let expected =
        row.there_but("/originGone", json!({ "t": "error", "sessionId": "s", "message": "origin offline" }));
    row.mends(here, expected)
}

pub async fn ws_candidate_before_offer(row: Row) -> Judged {
    row.matches(answer_to(json!({ "t": "candidate", "sessionId": "q", "candidate": {} })).await)
}

pub async fn ws_answer_by_visitor(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "w1").await;
    visitor.send(json!({ "t": "answer", "sessionId": "w1", "sdp": "SDP" })).await;
    row.matches(visitor.receive().await)
}

pub async fn ws_answer_unknown(row: Row) -> Judged {
    let mut origin = TestServer::start().await.origin("pod").await;
    origin.send(json!({ "t": "answer", "sessionId": "unknown", "sdp": "SDP" })).await;
    row.matches(silence(&mut origin).await)
}

pub async fn ws_offer_by_origin(row: Row) -> Judged {
    let mut origin = TestServer::start().await.origin("pod").await;
    origin.send(offer("pod", "x", "SDP")).await;
    row.matches(origin.receive().await)
}

/// Broken JSON, JSON that is no object, and `null`; then a registration.
pub async fn ws_invalid_json(row: Row) -> Judged {
    let mut socket = TestServer::start().await.connect().await;
    let mut here = json!({});
    socket.send_text("{nope").await;
    here["a"] = socket.receive().await;
    socket.send_text("5").await;
    here["b"] = silence(&mut socket).await.into();
    socket.send_text("null").await;
    here["c"] = socket.receive().await;
    socket.send(json!({ "t": "register", "podId": "pod" })).await;
    here["alive"] = socket.receive().await["t"].clone();
    let mut expected = row.there_but("/c", row.there["a"].clone());
    expected["alive"] = "registered".into();
    row.mends(here, expected)
}

pub async fn ws_unknown_t(row: Row) -> Judged {
    let mut socket = TestServer::start().await.connect().await;
    socket.send(json!({ "t": "hello", "sessionId": "s" })).await;
    row.matches(silence(&mut socket).await)
}

pub async fn ws_binary(row: Row) -> Judged {
    let mut socket = TestServer::start().await.connect().await;
    let frame = json!({ "t": "register", "podId": "bin" }).to_string();
    socket.stream.send(Message::binary(frame)).await.unwrap();
    row.matches(socket.receive().await)
}

/// The reference hangs up where this broker says 404; to a WebSocket client either is a failed handshake.
async fn refused_upgrade(row: Row, path: &str) -> Judged {
    let server = TestServer::start().await;
    match Socket::try_connect(&server.address, path).await {
        Err(Error::Http(answer)) if answer.status() == 404 => row.matches("socket hang up"),
        Err(error) => panic!("{error}"),
        Ok(_) => row.matches("open"),
    }
}

pub async fn ws_query(row: Row) -> Judged {
    refused_upgrade(row, "/signal?x=1").await
}

pub async fn ws_wrong_path(row: Row) -> Judged {
    refused_upgrade(row, "/other").await
}

/// Compression is offered; the row tells which extension was taken.
pub async fn ws_deflate(row: Row) -> Judged {
    let server = TestServer::start().await;
    let upgrade = "GET /signal HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n\
        Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n\n";
    let answer = ask(&server.address, upgrade).await;
    assert_eq!(answer.status, 101);
    row.matches(answer.header("sec-websocket-extensions").unwrap_or("none"))
}

pub async fn ws_ping(row: Row) -> Judged {
    let mut socket = TestServer::start().await.connect().await;
    socket.stream.send(Message::Ping("still there?".into())).await.unwrap();
    match socket.stream.next().await.unwrap().unwrap() {
        Message::Pong(payload) if payload == "still there?" => row.matches("pong"),
        other => panic!("{other:?}"),
    }
}

pub async fn ws_offer_1mb(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.connect().await;
    visitor.send(offer("pod", "s", &"x".repeat(1 << 20))).await;
    let here = close(visitor.closed().await);
    origin.nothing().await;
    row.mends(here, json!({ "close": 1009, "reason": "frame too big" }))
}

pub async fn hole_cross_pod_answer(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut thief = server.origin("other").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    thief.send(json!({ "t": "answer", "sessionId": "s", "sdp": "FORGED" })).await;
    thief.nothing().await;
    row.mends(silence(&mut visitor).await, "silence")
}

pub async fn hole_session_overwrite(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut first = server.visitor(&mut origin, "pod", "s").await;
    let mut second = server.connect().await;
    second.send(offer("pod", "s", "SECOND")).await;
    let refusal = second.receive().await["message"].clone();
    origin.send(json!({ "t": "answer", "sessionId": "s", "sdp": "FOR-V" })).await;
    assert_eq!(first.receive().await["sdp"], "FOR-V");
    second.nothing().await;
    row.mends(refusal, "session id is taken")
}

pub async fn hole_visitor_close_frees_other(row: Row) -> Judged {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut first = server.visitor(&mut origin, "pod", "s").await;
    let mut second = server.connect().await;
    second.send(offer("pod", "s", "SECOND")).await;
    assert_eq!(second.receive().await["message"], "session id is taken");
    second.stream.close(None).await.unwrap();
    while second.stream.next().await.is_some() {}
    origin.send(json!({ "t": "answer", "sessionId": "s", "sdp": "FOR-V" })).await;
    row.mends(first.receive().await["sdp"].clone(), "FOR-V")
}
