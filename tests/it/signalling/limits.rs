//! The limits of one socket, and of all sockets.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::support::{
    SOON,
    frames::{candidate, error, offer, offered, refusal},
    raw::{UPGRADE, ask},
    server::TestServer,
    socket::Socket,
};

/// A frame of an unknown kind, `length` bytes long.
fn frame_of(length: usize) -> String {
    let frame = json!({ "t": "padding", "x": "" }).to_string();
    frame.replace("\"\"", &format!("\"{}\"", "x".repeat(length - frame.len())))
}

#[tokio::test]
async fn a_frame_is_too_big() {
    let server = TestServer::with("[signal]\nmax_frame = \"1 KiB\"").await;
    let mut socket = server.connect().await;
    socket.send_text(&frame_of(1024)).await;
    socket.nothing().await;
    socket.send_text(&frame_of(1025)).await;
    assert_eq!(socket.closed().await, (1009, "frame too big".into()));
}

#[tokio::test]
async fn the_fragments_of_a_message_are_too_big_together() {
    let server = TestServer::with("[signal]\nmax_frame = \"1 KiB\"").await;
    let mut socket = server.connect().await;
    let text = frame_of(1025);
    let (one, two) = text.split_at(600);
    socket
        .send_message(Message::Frame(Frame::message(one.to_owned(), OpCode::Data(Data::Text), false)))
        .await;
    socket
        .send_message(Message::Frame(Frame::message(two.to_owned(), OpCode::Data(Data::Continue), true)))
        .await;
    assert_eq!(socket.closed().await, (1009, "frame too big".into()));
}

/// A client that is still sending learns the code: its connection is not reset under it.
#[tokio::test]
async fn a_frame_is_too_big_and_still_being_sent() {
    const LENGTH: u64 = 16 << 20;
    let server = TestServer::start().await;
    let (mut read, mut write) = server.connect().await.stream.into_inner().into_split();
    let head = [&[0x81, 0x80 | 127][..], &LENGTH.to_be_bytes(), b"mask"].concat();
    write.write_all(&head).await.unwrap();
    let mut close = [0; 4];
    timeout(SOON, read.read_exact(&mut close)).await.unwrap().unwrap();
    assert_eq!((close[0], &close[2..]), (0x88, &1009_u16.to_be_bytes()[..]));
    for _ in 0..LENGTH >> 16 {
        write.write_all(&[0; 1 << 16]).await.expect("the broker should take no notice of the rest");
    }
}

#[tokio::test]
async fn text_is_not_utf8() {
    let mut socket = TestServer::start().await.connect().await;
    let text = Frame::message(&b"\"\xff\""[..], OpCode::Data(Data::Text), true);
    socket.send_message(Message::Frame(text)).await;
    assert_eq!(socket.closed().await, (1007, "text is not UTF-8".into()));
}

#[tokio::test]
async fn bytes_are_not_websocket() {
    let server = TestServer::start().await;
    for (what, bytes) in [
        ("a frame without a mask", &b"\x81\x02{}"[..]),
        ("a reserved kind of frame", b"\x83\x80mask"),
        ("a reserved bit", b"\xc1\x80mask"),
        ("a rest without a beginning", b"\x80\x80mask"),
        ("a ping in fragments", b"\x09\x80mask"),
    ] {
        let mut socket = server.connect().await;
        socket.stream.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(socket.closed().await, (1002, "protocol error".into()), "{what}");
    }
}

#[tokio::test]
async fn a_session_id_is_too_long() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", &"s".repeat(128)).await;
    let too_long = "s".repeat(129);
    for frame in [offer("pod", &too_long, "SDP"), candidate(&too_long, "C")] {
        visitor.send(frame).await;
        visitor.expect(refusal("sessionId is longer than 128 bytes")).await;
    }
    origin.nothing().await;
}

#[tokio::test]
async fn a_pod_id_is_too_long_in_an_offer() {
    let server = TestServer::start().await;
    let mut visitor = server.connect().await;
    visitor.send(offer(&"p".repeat(129), "s", "SDP")).await;
    visitor.expect(error("s", "podId is longer than 128 bytes")).await;
    visitor.send(offer(&"p".repeat(128), "s", "SDP")).await;
    visitor.expect(error("s", "origin offline")).await;
}

#[tokio::test]
async fn a_session_has_too_many_candidates() {
    let server = TestServer::with("[signal.bounds]\ncandidates_per_session = 2").await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for _ in 0..2 {
        visitor.send(candidate("s", "C")).await;
        origin.expect(candidate("s", "C")).await;
        origin.send(candidate("s", "C")).await;
        visitor.expect(candidate("s", "C")).await;
    }
    for sender in [&mut visitor, &mut origin] {
        sender.send(candidate("s", "C")).await;
        sender.expect(error("s", "too many candidates")).await;
    }
    // A new offer begins a new count.
    visitor.send(offer("pod", "s", "AGAIN")).await;
    origin.expect(offered("s", "AGAIN")).await;
    visitor.send(candidate("s", "C")).await;
    origin.expect(candidate("s", "C")).await;
    origin.send(candidate("s", "C")).await;
    visitor.expect(candidate("s", "C")).await;
}

/// Twenty frames a second with a burst of forty: the last ten of fifty take half a second.
#[tokio::test]
async fn frames_come_too_fast() {
    let server = TestServer::with("[signal]\nframes_per_second = 20").await;
    let mut socket = server.connect().await;
    let start = Instant::now();
    for _ in 0..50 {
        socket.send(offer("nobody", "s", "SDP")).await;
    }
    for _ in 0..50 {
        socket.expect(error("s", "origin offline")).await;
    }
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(450), "{taken:?}");
}

/// Five sockets of one address have a rate of twenty together, of whatever they send, beside the 32 frames of each that
/// wait for nobody: the last ten of 210 take half a second. Those of another address have theirs.
#[tokio::test]
async fn frames_of_one_address_come_too_fast() {
    let server = TestServer::with(
        "trusted_proxies = [\"127.0.0.1\"]\n[signal]\nframes_per_second = 20\n[signal.bounds]\nsockets_at_full_rate = 1\n[limits]\nexempt = []",
    )
    .await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(Socket::forwarded(&server.address, "192.0.2.1").await);
    }
    let start = Instant::now();
    for n in 0..42 {
        for socket in &mut sockets {
            let frame = if n % 2 == 0 {
                offer("nobody", "s", "SDP")
            } else {
                json!({ "t": "offer", "sessionId": "s" })
            };
            socket.send(frame).await;
        }
    }
    let mut other = Socket::forwarded(&server.address, "192.0.2.2").await;
    for _ in 0..40 {
        other.send(offer("nobody", "s", "SDP")).await;
    }
    for _ in 0..40 {
        other.receive().await;
    }
    for socket in &mut sockets {
        for _ in 0..42 {
            socket.receive().await;
        }
    }
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(450), "{taken:?}");
}

/// Forty sockets of one /64 send all that they can. Another socket there has 32 frames that wait for nobody, and one in
/// another /64 of the same /48 a rate of its own.
#[tokio::test]
async fn a_flood_of_frames_does_not_hold_up_a_quiet_socket() {
    let server = TestServer::with(
        "trusted_proxies = [\"127.0.0.1\"]\n[signal]\nframes_per_second = 20\n[signal.bounds]\nsockets_at_full_rate = 1\n\
         [limits]\nexempt = []\noffers_per_address = \"off\"",
    )
    .await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.push(Socket::forwarded(&server.address, "2001:db8:1:1::1").await);
    }
    for socket in &mut flood {
        for _ in 0..100 {
            socket.send(offer("nobody", "s", "SDP")).await;
        }
    }
    for socket in &mut flood {
        socket.receive().await;
    }
    for (address, frames) in [("2001:db8:1:1::2", 32), ("2001:db8:1:2::1", 70)] {
        let mut quiet = Socket::forwarded(&server.address, address).await;
        let answered = async {
            for _ in 0..frames {
                quiet.send(offer("nobody", "s", "SDP")).await;
            }
            for _ in 0..frames {
                quiet.receive().await;
            }
        };
        timeout(SOON, answered).await.expect("its frames should not wait for those of the flood");
    }
}

#[tokio::test]
async fn there_are_too_many_sockets() {
    let server = TestServer::with("[signal]\nmax_sockets = 1").await;
    let mut first = server.connect().await;
    let refused = ask(&server.address, UPGRADE).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(refused.json(), json!({ "error": "this broker has no room for another socket" }));
    first.nothing().await;
    drop(first);
    let room_again = async { while ask(&server.address, UPGRADE).await.status != 101 {} };
    timeout(SOON, room_again).await.expect("a socket that ended should make room");
}
