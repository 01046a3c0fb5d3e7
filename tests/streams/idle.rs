//! Connections on which nothing is open, and those whose client is gone.

use std::time::Duration;

use h2::Reason;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    Scene, TRANSPORTS,
    support::{frames, raw::Raw},
};

/// An upgrade relaxes its own stream: once it is reset the connection is as idle as any other, whatever PINGs it
/// answers.
#[tokio::test]
async fn an_upgrade_that_is_over_leaves_an_idle_connection() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "[http]\nidle_timeout = \"300ms\"").await;
        let mut client = scene.http2(1 << 16).await;
        let (answer, mut send) = client.connect().await;
        assert_eq!(answer.status(), 200);
        send.send_reset(Reason::CANCEL);
        drop((answer, send));
        client.closed().await;
    }
}

/// One that was reset before it was answered.
#[tokio::test]
async fn an_upgrade_that_is_reset_at_once_leaves_an_idle_connection() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "[http]\nidle_timeout = \"300ms\"").await;
        let mut client = scene.http2(1 << 16).await;
        let (answer, mut send) =
            client.sender.send_request(crate::support::http2::extended_connect(), false).unwrap();
        send.send_reset(Reason::CANCEL);
        drop((answer, send));
        client.closed().await;
    }
}

#[tokio::test]
async fn a_connection_with_an_idle_socket_stays() {
    for transport in TRANSPORTS {
        let settings = "[http]\nidle_timeout = \"200ms\"\n[signal]\nping_interval = \"1s\"";
        let scene = Scene::with(transport, settings).await;
        let mut client = scene.http2(1 << 16).await;
        let mut socket = client.socket().await;
        socket.register("pod").await;
        // Longer than the time-out; nothing can be waited for.
        sleep(Duration::from_millis(700)).await;
        socket.nothing().await;
        socket.send(frames::register("pod")).await;
        drop(socket);
        client.closed().await;
    }
}

/// A client that answers no PING has gone, whatever it left open.
#[tokio::test]
async fn a_client_that_is_gone_is_noticed() {
    let settings = "[http]\nmax_connections = 1\n[signal]\nping_interval = \"200ms\"";
    let scene = Scene::with(crate::Transport::Plain, settings).await;
    let stream = TcpStream::connect(&scene.server.address).await.unwrap();
    // Its task is not run: it reads nothing any more.
    let (_sender, _connection) = h2::client::handshake(stream).await.unwrap();
    let mut next = Raw::open(&scene.server.address).await;
    next.send("GET /health HTTP/1.1\nHost: broker\n\n").await;
    assert_eq!(next.answer().await.status, 200);
}
