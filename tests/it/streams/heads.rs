//! Heads of HTTP/2 that do not come to their end, and connections on which no head comes.

use std::time::Duration;

use tokio::time::{interval, timeout};

use super::{Scene, TRANSPORTS};
use crate::support::{
    SOON,
    http2_frames::{CONTINUATION, END_HEADERS, HEADERS, PING, PREFACE, SETTINGS, field, frame, next_frame},
    raw::Raw,
};

/// Asks for a WebSocket.
fn connect(stream: u32) -> Vec<u8> {
    let fields = [
        vec![0x87],
        field(Ok(2), "CONNECT"),
        field(Ok(4), "/signal"),
        field(Ok(1), "pods.example"),
        field(Err(":protocol"), "websocket"),
        field(Err("sec-websocket-version"), "13"),
    ];
    frame(HEADERS, END_HEADERS, stream, &fields.concat())
}

/// Reads frames until one of `kind` comes.
async fn until_frame(raw: &mut Raw, kind: u8) {
    assert!(comes(raw, kind).await, "the broker closed the connection");
}

/// Reads frames until one of `kind` comes, or the end of the connection. Returns whether one came.
async fn comes(raw: &mut Raw, kind: u8) -> bool {
    let reading = async {
        while let Some(frame) = next_frame(raw).await {
            if frame.kind == kind {
                return true;
            }
        }
        false
    };
    timeout(SOON, reading).await.expect("a frame should have come")
}

/// Sends `more` every 20 ms, if it is anything, until the broker closes the connection.
async fn closed(raw: &mut Raw, more: &[u8]) -> bool {
    let mut ticks = interval(Duration::from_millis(20));
    let mut buffer = [0; 4096];
    let closed = async {
        loop {
            tokio::select! {
                biased;
                read = raw.read(&mut buffer) => if read.is_err() || read.is_ok_and(|length| length == 0) { return },
                _ = ticks.tick(), if !more.is_empty() => if raw.try_send_bytes(more).await.is_err() { return },
            }
        }
    };
    timeout(SOON, closed).await.is_ok()
}

/// The beginnings of a head that has no end, and what comes after each.
fn unfinished() -> [(&'static str, Vec<u8>, &'static [u8]); 4] {
    let block = field(Err("x"), "y");
    [
        ("an end that does not come", frame(HEADERS, 0, 3, &block), b""),
        (
            "a frame that does not come whole",
            frame(HEADERS, END_HEADERS, 3, &[0; 16_000])[..20].to_vec(),
            b"",
        ),
        ("a frame byte by byte", frame(HEADERS, END_HEADERS, 3, &[0; 16_000])[..20].to_vec(), b"y"),
        (
            "a continuation byte by byte",
            [frame(HEADERS, 0, 3, &block), frame(CONTINUATION, 0, 3, &[0; 16_000])[..20].to_vec()].concat(),
            b"y",
        ),
    ]
}

/// Begins heads, large ones first, until one more that is not ordinary finds no memory. Returns the connections that they
/// are on.
pub async fn spend_heads(scene: &Scene) -> Vec<Raw> {
    let mut connections = Vec::new();
    for fields in [200, 50, 17] {
        let fields = field(Err("x"), "y").repeat(fields);
        let begun = [PREFACE, &frame(PING, 0, 0, &[0; 8]), &frame(HEADERS, 0, 1, &fields)].concat();
        loop {
            let mut raw = scene.http1().await;
            raw.send_bytes(&begun).await;
            if !comes(&mut raw, PING).await {
                break;
            }
            connections.push(raw);
        }
    }
    connections
}

/// Whether the broker waits for the client or the client for a socket: a head has `head_timeout` from its beginning.
#[tokio::test]
async fn a_head_that_does_not_end_ends_its_connection() {
    let settings =
        "[http]\nhead_timeout = \"300ms\"\nidle_timeout = \"1h\"\n[signal]\nping_interval = \"1h\"";
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, settings).await;
        for (what, begin, more) in unfinished() {
            for has_socket in [false, true] {
                let mut raw = scene.http1().await;
                raw.send_bytes(PREFACE).await;
                if has_socket {
                    raw.send_bytes(&connect(1)).await;
                    until_frame(&mut raw, HEADERS).await;
                }
                raw.send_bytes(&begin).await;
                assert!(closed(&mut raw, more).await, "{transport:?}, {what}, with a socket: {has_socket}");
            }
        }
    }
}

/// Where no head comes there is no stream, whatever else the client says.
#[tokio::test]
async fn a_connection_without_a_request_is_idle() {
    let settings =
        "[http]\nhead_timeout = \"1h\"\nidle_timeout = \"300ms\"\n[signal]\nping_interval = \"1h\"";
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, settings).await;
        let [whole, part] = [PREFACE, &PREFACE[..24]];
        let cases = [
            ("the preface without settings", part, vec![]),
            ("nothing after the settings", whole, vec![]),
            ("PINGs", whole, frame(PING, 0, 0, &[0; 8])),
            ("settings", whole, frame(SETTINGS, 0, 0, &[])),
            ("the header of a frame that does not come", &[whole, &[0, 0, 8]].concat(), vec![]),
        ];
        let all = cases.iter().map(async |(what, begin, more)| {
            let mut raw = scene.http1().await;
            raw.send_bytes(begin).await;
            assert!(closed(&mut raw, more).await, "{transport:?}, {what}");
        });
        futures_util::future::join_all(all).await;
    }
}

/// A proxy sends heads whole, and its connection is that of many.
#[tokio::test]
async fn a_late_head_of_a_trusted_proxy_ends_nothing() {
    let settings = "trusted_proxies = [\"127.0.0.1\"]\n[http]\nhead_timeout = \"100ms\"";
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, settings).await;
        let mut raw = scene.http1().await;
        raw.send_bytes(&[PREFACE, &connect(1)].concat()).await;
        until_frame(&mut raw, HEADERS).await;
        let head = connect(3);
        let (begin, end) = head.split_at(20);
        raw.send_bytes(begin).await;
        // Longer than the time-out; nothing can be waited for.
        tokio::time::sleep(Duration::from_millis(400)).await;
        raw.send_bytes(end).await;
        until_frame(&mut raw, HEADERS).await;
    }
}
