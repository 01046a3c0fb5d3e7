//! Peers that are gone without a word, and peers that are merely quiet.

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{frames::error, server::TestServer};

const PING: [u8; 2] = [0x89, 0x00];

/// The test's client answers pings while it reads; the origin never reads.
#[tokio::test]
async fn a_peer_that_leaves_two_pings_without_an_answer_is_gone() {
    let server = TestServer::with("[signal]\nping_interval = \"200ms\"").await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    visitor.expect(error("s", "origin offline")).await;
    let mut wire = Vec::new();
    origin.stream.get_mut().read_to_end(&mut wire).await.unwrap();
    assert_eq!(wire, [PING, PING].concat());
}

#[tokio::test]
async fn a_peer_that_answers_pings_stays() {
    let server = TestServer::with("[signal]\nping_interval = \"200ms\"").await;
    let mut origin = server.origin("pod").await;
    for _ in 0..3 {
        let ping = origin.stream.next().await.unwrap().unwrap();
        assert!(matches!(ping, Message::Ping(_)), "{ping:?}");
    }
    origin.nothing().await;
    server.visitor(&mut origin, "pod", "s").await;
}

/// Pings keep a socket alive, but are no first frame.
#[tokio::test]
async fn a_socket_that_only_pings_is_silent() {
    let server = TestServer::with("[signal.bounds]\nfirst_frame_timeout = \"300ms\"").await;
    let mut socket = server.connect().await;
    socket.send_message(Message::Ping("hello".into())).await;
    assert_eq!(socket.closed().await, (1008, "no frame arrived in time".into()));
}
