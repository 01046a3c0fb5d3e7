//! What is no proper frame, whoever sends it.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    frames::{answer, error, refusal},
    server::TestServer,
    socket::Socket,
};

/// A server, and on it a new socket, an origin and a visitor of that origin.
async fn one_of_each() -> (TestServer, [Socket; 3]) {
    let server = TestServer::start().await;
    let new = server.connect().await;
    let mut origin = server.origin("pod").await;
    let visitor = server.visitor(&mut origin, "pod", "s").await;
    (server, [new, origin, visitor])
}

/// The origin and the visitor are still what they were.
async fn all_is_well([mut new, mut origin, mut visitor]: [Socket; 3]) {
    origin.send(answer("s", "ANSWER")).await;
    visitor.expect(answer("s", "ANSWER")).await;
    new.register("new").await;
}

#[tokio::test]
async fn bytes_that_are_not_json_or_null() {
    let (_server, mut sockets) = one_of_each().await;
    for socket in &mut sockets {
        for text in
            ["", "{", "nope", "null", " null ", "{}{}", "{\"t\":\"register\",}", "{\"t\":\"offer\"\u{1}}"]
        {
            socket.send_text(text).await;
            socket.expect(refusal("invalid json")).await;
        }
        for bytes in [&b"\xff\xfe"[..], b"{\"t\":\"register\",\"podId\":\"\xff\"}"] {
            socket.send_message(Message::binary(bytes)).await;
            socket.expect(refusal("invalid json")).await;
        }
    }
    all_is_well(sockets).await;
}

#[tokio::test]
async fn frames_of_an_unknown_kind_and_json_that_is_no_object() {
    let (_server, mut sockets) = one_of_each().await;
    for socket in &mut sockets {
        for text in [
            "{}",
            "[]",
            "5",
            "true",
            "\"register\"",
            "{\"t\":7}",
            "{\"t\":null}",
            "{\"t\":\"hello\",\"sessionId\":\"s\"}",
            "{\"t\":\"registered\",\"podId\":\"x\"}",
            "{\"t\":\"REGISTER\",\"podId\":\"x\"}",
        ] {
            socket.send_text(text).await;
            socket.nothing().await;
        }
    }
    all_is_well(sockets).await;
}

#[tokio::test]
async fn frames_without_what_their_kind_carries() {
    let (_server, [new, mut origin, mut visitor]) = one_of_each().await;
    let without = |frame: &Value, field: &str| {
        let mut frame = frame.clone();
        frame.as_object_mut().unwrap().remove(field);
        frame
    };
    let offer = json!({ "t": "offer", "podId": "pod", "sessionId": "s", "sdp": "SDP" });
    let candidate = json!({ "t": "candidate", "sessionId": "s", "candidate": {} });
    for (sender, frames) in [
        (&mut visitor, [(offer, "sdp"), (candidate.clone(), "candidate")]),
        (&mut origin, [(answer("s", "SDP"), "sdp"), (candidate, "candidate")]),
    ] {
        for (frame, field) in frames {
            sender.send(without(&frame, field)).await;
            sender.expect(error("s", &format!("{field} required"))).await;
            sender.send(without(&frame, "sessionId")).await;
            sender.expect(refusal("sessionId required")).await;
            for no_text in [json!(7), json!(true), json!(["s"]), json!({ "s": 1 })] {
                let mut frame = frame.clone();
                frame["sessionId"] = no_text;
                sender.send(frame).await;
                sender.expect(refusal("sessionId must be text")).await;
            }
        }
    }
    // Nobody is told of an error that says nothing.
    for sender in [&mut visitor, &mut origin] {
        sender.send(json!({ "t": "error", "sessionId": "s" })).await;
        sender.nothing().await;
    }
    all_is_well([new, origin, visitor]).await;
}

#[tokio::test]
async fn binary_frames_are_taken_as_text_is() {
    let (_server, [new, mut origin, mut visitor]) = one_of_each().await;
    origin.send_message(Message::binary(answer("s", "BINARY").to_string())).await;
    visitor.expect(answer("s", "BINARY")).await;
    all_is_well([new, origin, visitor]).await;
}

#[tokio::test]
async fn payloads_that_nest_too_deeply() {
    let (_server, [new, mut origin, mut visitor]) = one_of_each().await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let frame = |candidate: &str| format!(r#"{{"t":"candidate","sessionId":"s","candidate":{candidate}}}"#);
    visitor.send_text(&frame(&nested(32))).await;
    assert_eq!(origin.receive_text().await, frame(&nested(32)));
    for depth in [33, 1_000, 50_000] {
        visitor.send_text(&frame(&nested(depth))).await;
        visitor.expect(refusal("nested too deeply")).await;
    }
    origin.nothing().await;
    all_is_well([new, origin, visitor]).await;
}
