//! What a new socket sends, and what it becomes.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use crate::support::{
    frames::{answer, candidate, error, offer, offered, refusal, register, registered},
    raw::{Raw, UPGRADE},
    server::TestServer,
    socket::Socket,
};

#[tokio::test]
async fn register_with_a_pod_id() {
    let server = TestServer::start().await;
    let mut socket = server.connect().await;
    socket.send(register("pod")).await;
    socket.expect(registered("pod")).await;
    assert_eq!(server.health().await["origins"], json!(["pod"]));
}

#[tokio::test]
async fn register_with_a_pod_id_that_another_origin_holds() {
    let server = TestServer::with("[signal]\ntakeover_timeout = \"100ms\"").await;
    // It reads nothing from here on, and so answers no ping.
    let mut incumbent = server.origin("pod").await;
    let mut visitor = server.visitor(&mut incumbent, "pod", "s").await;

    let mut newcomer = server.origin("pod").await;

    assert_eq!(incumbent.closed().await, (4001, "replaced by new origin".into()));
    visitor.expect(error("s", "origin offline")).await;
    visitor.send(offer("pod", "s", "AGAIN")).await;
    newcomer.expect(offered("s", "AGAIN")).await;
    let health = server.health().await;
    assert_eq!((&health["origins"], &health["sessions"]), (&json!(["pod"]), &json!(1)));
}

#[tokio::test]
async fn register_without_a_fit_pod_id() {
    let server = TestServer::start().await;
    let [long, wide] = ["x".repeat(129), "ä".repeat(65)].map(|pod_id| format!("\"{pod_id}\""));
    for (pod_id, problem) in [
        (None, "podId required"),
        (Some("null"), "podId required"),
        (Some("\"\""), "podId required"),
        (Some("7"), "podId must be text"),
        (Some("[\"pod\"]"), "podId must be text"),
        (Some("{}"), "podId must be text"),
        (Some("\"\\ud800\""), "podId must be text"),
        (Some(&long), "podId is longer than 128 bytes"),
        (Some(&wide), "podId is longer than 128 bytes"),
    ] {
        let mut socket = server.connect().await;
        let field = pod_id.map(|value| format!(",\"podId\":{value}")).unwrap_or_default();
        socket.send_text(&format!("{{\"t\":\"register\"{field}}}")).await;
        socket.expect(refusal(problem)).await;
        assert_eq!(socket.closed().await, (1008, "registration refused".into()), "{pod_id:?}");
    }
    assert_eq!(server.health().await["origins"], json!([]));
}

/// It is a visitor from then on, whatever came of the offer.
#[tokio::test]
async fn offer_makes_it_a_visitor() {
    let server = TestServer::start().await;
    for (offer, problem) in [
        (offer("nobody", "s", "SDP"), error("s", "origin offline")),
        (json!({ "t": "offer", "sessionId": "s", "sdp": "SDP" }), error("s", "podId required")),
        (json!({ "t": "offer", "podId": "pod", "sessionId": "s" }), error("s", "sdp required")),
        (json!({ "t": "offer", "podId": "pod", "sdp": "SDP" }), refusal("sessionId required")),
        (
            json!({ "t": "offer", "podId": 7, "sessionId": "s", "sdp": "SDP" }),
            error("s", "podId must be text"),
        ),
    ] {
        let mut socket = server.connect().await;
        socket.send(offer).await;
        socket.expect(problem).await;
        socket.send(register("pod")).await;
        socket.expect(refusal("already initialized")).await;
        socket.nothing().await;
    }
}

/// Sends what only an origin or a visitor may; the socket stays new.
async fn stays_new(frame: Value, told: Option<Value>) {
    let server = TestServer::start().await;
    let mut socket = server.connect().await;
    socket.send(frame).await;
    if let Some(told) = told {
        socket.expect(told).await;
    }
    socket.nothing().await;
    socket.register("pod").await;
}

#[tokio::test]
async fn answer_is_refused() {
    stays_new(answer("s", "SDP"), Some(error("s", "wrong role"))).await;
}

#[tokio::test]
async fn candidate_is_refused() {
    stays_new(candidate("s", "C"), Some(error("s", "uninitialized socket"))).await;
}

#[tokio::test]
async fn error_is_dropped() {
    stays_new(error("s", "boom"), None).await;
}

#[tokio::test]
async fn nothing_in_time() {
    let server = TestServer::with("[signal.bounds]\nfirst_frame_timeout = \"300ms\"").await;
    let mut speaks = server.connect().await;
    speaks.nothing().await;
    let mut silent = server.connect().await;
    assert_eq!(silent.closed().await, (1008, "no frame arrived in time".into()));
    // Its own time ran out before that of the other.
    speaks.nothing().await;
}

/// Clients fail where none of the subprotocols that they offer is accepted.
#[tokio::test]
async fn offers_subprotocols() {
    let server = TestServer::start().await;
    let mut request = format!("ws://{}/signal", server.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "x, y".parse().unwrap());
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let (stream, answer) = client_async(request, tcp).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "x");
    Socket { stream }.register("pod").await;
}

/// What is no token is no name of a subprotocol (RFC 6455, section 4.1).
#[tokio::test]
async fn offers_what_is_no_subprotocol() {
    let server = TestServer::start().await;
    for (offered, accepted) in [
        ("x, y", Some("x")),
        ("", None),
        (" ,\t, y", Some("y")),
        ("v1.json+x_y~2", Some("v1.json+x_y~2")),
        ("a b, a/b, \"a\", a=b, (a), a;b, a@b, a:b, [a], \u{e9}, y", Some("y")),
        ("a b", None),
        ("\u{e9}", None),
    ] {
        let field = format!("\nSec-WebSocket-Protocol: {offered}\n\n");
        let mut raw = Raw::open(&server.address).await;
        raw.send(&UPGRADE.replace("\n\n", &field)).await;
        let answer = raw.head().await;
        assert_eq!(answer.status, 101, "{offered}");
        assert_eq!(answer.header("sec-websocket-protocol"), accepted, "{offered}");
    }
}
