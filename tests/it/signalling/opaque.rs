//! `sdp`, `candidate` and the fields of errors reach the other side as the bytes that were sent.

use crate::support::{server::TestServer, socket::Socket};

/// Values that change when they are read and written again.
const VALUES: &[&str] = &[
    r#""v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n""#,
    r#""\u00fc\/\u002f""#,
    r#""ü 😀 \ud83d\ude00""#,
    r#""\ud800""#,
    r#""\udc00\ud800 lone""#,
    r#"{ "candidate" :"c" ,	"sdpMid":"0", "sdpMLineIndex": 0 }"#,
    r#"{"twice":1,"twice":2,"":null}"#,
    "[ 1,2 , 3 ]",
    "123456789012345678901234567890.10",
    "1.0e+02",
    "1e999",
    "-0",
    "true",
    "false",
    r#""""#,
    r#""null""#,
];

/// Sends `value` in a frame of the kind `t` both ways where that kind goes both ways.
async fn passes(origin: &mut Socket, visitor: &mut Socket, value: &str) {
    let frame = |t: &str, field: &str| format!(r#"{{"t":"{t}","sessionId":"s","{field}":{value}}}"#);
    visitor.send_text(&frame("offer", "sdp")).await;
    assert_eq!(origin.receive_text().await, frame("offer", "sdp"));
    origin.send_text(&frame("answer", "sdp")).await;
    assert_eq!(visitor.receive_text().await, frame("answer", "sdp"));
    for (t, field) in [("candidate", "candidate"), ("error", "message")] {
        visitor.send_text(&frame(t, field)).await;
        assert_eq!(origin.receive_text().await, frame(t, field));
        origin.send_text(&frame(t, field)).await;
        assert_eq!(visitor.receive_text().await, frame(t, field));
    }
}

#[tokio::test]
async fn values_pass_byte_for_byte() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for value in VALUES {
        passes(&mut origin, &mut visitor, value).await;
    }
}

#[tokio::test]
async fn a_large_sdp_passes_byte_for_byte() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    passes(&mut origin, &mut visitor, &format!("\"{}\"", "a=ü\\r\\n".repeat(30_000))).await;
}

/// The end of candidates, as browsers tell it.
#[tokio::test]
async fn empty_candidates_pass_both_ways() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for candidate in ["null", "\"\"", "{\"candidate\":\"\"}"] {
        let frame = format!("{{\"t\":\"candidate\",\"sessionId\":\"s\",\"candidate\":{candidate}}}");
        visitor.send_text(&frame).await;
        assert_eq!(origin.receive_text().await, frame);
        origin.send_text(&frame).await;
        assert_eq!(visitor.receive_text().await, frame);
    }
}

/// Space around it, other fields, another order and a field that stands twice make no difference to the value.
#[tokio::test]
async fn only_the_frame_is_made_anew() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    let sent = "\n{ \"sdp\":\t\"first\", \"extra\": {\"sdp\":\"no\"}, \"sessionId\" : \"\\u0073\",\n\
        \"t\":\"off\\u0065r\", \"s\\u0064p\" : \"l\\u0061st\" , \"candidate\": 1 } ";
    visitor.send_text(sent).await;
    assert_eq!(origin.receive_text().await, r#"{"t":"offer","sessionId":"s","sdp":"l\u0061st"}"#);
}

/// `code` is what clients look at.
#[tokio::test]
async fn errors_pass_with_all_their_fields() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for fields in [r#""message":"boom","code":7"#, r#""code":"x","detail":{"a":[1.0]}"#] {
        let frame = format!(r#"{{"t":"error","sessionId":"s",{fields}}}"#);
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let ends = [&mut origin, &mut visitor];
            ends[sender].send_text(&frame).await;
            assert_eq!(ends[receiver].receive_text().await, frame);
        }
    }
}

/// Ids are told apart by what they mean, and come back as JSON writes them.
#[tokio::test]
async fn ids_are_texts() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pöd \"\\\n").await;
    let mut visitor = server.connect().await;
    visitor
        .send_text(r#"{"t":"offer","podId":"p\u00f6d \u0022\u005c\u000a","sessionId":"\u00fc\"","sdp":1}"#)
        .await;
    assert_eq!(origin.receive_text().await, "{\"t\":\"offer\",\"sessionId\":\"ü\\\"\",\"sdp\":1}");
    origin.send_text(r#"{"t":"answer","sessionId":"ü\u0022","sdp":2}"#).await;
    assert_eq!(visitor.receive_text().await, "{\"t\":\"answer\",\"sessionId\":\"ü\\\"\",\"sdp\":2}");
}
