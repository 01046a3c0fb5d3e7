//! Peers that are gone without a word, and peers that are merely quiet.

use std::iter;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    frames::{error, refusal, register, registered},
    server::TestServer,
    socket::Socket,
};

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
    let server = TestServer::with("[signal]\nfirst_frame_timeout = \"300ms\"").await;
    let mut socket = server.connect().await;
    socket.send_message(Message::Ping("hello".into())).await;
    assert_eq!(socket.closed().await, (1008, "no frame arrived in time".into()));
}

/// While one more pod id is registered, which takes a second, no more than 16 frames are read: the pong comes behind them.
#[tokio::test]
async fn a_holder_that_is_read_no_further_is_not_silent() {
    let server = TestServer::with(
        "trusted_proxies = [\"127.0.0.1\"]\n[limits]\nregistrations_per_address = \"1/s\"\n\
         [signal]\npods_per_socket = 2\ntakeover_timeout = \"100ms\"",
    )
    .await;
    let mut holder = Socket::forwarded(&server.address, "192.0.2.1").await;
    holder.register("first").await;
    // In one piece, so that all of it was read before anybody asks for the holder.
    for frame in iter::once(register("second").to_string()).chain(iter::repeat_n("{}".into(), 16)) {
        holder.stream.feed(Message::text(frame)).await.unwrap();
    }
    holder.stream.flush().await.unwrap();
    let mut newcomer = server.connect().await;
    newcomer.send(register("first")).await;
    tokio::join!(holder.expect(registered("second")), newcomer.expect(refusal("pod id is held")));
    holder.nothing().await;
}
