//! WebSockets on streams of HTTP/2.

use http::StatusCode;
use serde_json::Value;
use tokio::net::TcpSocket;

use super::{Scene, TRANSPORTS, until};
use crate::support::{
    frames,
    http2::{Http2, body},
    raw::{Raw, UPGRADE},
};

async fn refused(client: &mut Http2) -> String {
    let (answer, _send) = client.connect().await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let error: Value = serde_json::from_slice(&body(answer).await.unwrap()).unwrap();
    error["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_counts_as_a_connection_of_its_client() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "[http]\nmax_connections_per_address = 4").await;
        let mut client = scene.http2(1 << 16).await;
        let mut first = client.socket().await;
        let mut second = client.socket().await;
        let third = client.socket().await;
        let sentence = refused(&mut client).await;
        assert!(sentence.starts_with("too many connections of your address are open"), "{sentence}");
        first.register("first").await;
        second.register("second").await;
        drop(third);
        // It makes room, for a connection too.
        let again = async {
            loop {
                let (answer, send) = client.connect().await;
                if answer.status() == StatusCode::OK {
                    return (answer, send);
                }
            }
        };
        tokio::time::timeout(crate::support::SOON, again).await.expect("there should be room again");
    }
}

#[tokio::test]
async fn each_counts_among_all_connections() {
    let scene = Scene::with(super::Transport::Plain, "[http]\nmax_connections = 4").await;
    let mut client = scene.http2(1 << 16).await;
    let socket = client.socket().await;
    assert!(refused(&mut client).await.starts_with("too many connections of your address are open"));
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other = other.connect(scene.server.addresses[0]).await.unwrap();
    let mut other = Http2::on(other, 1 << 16).await;
    let mut third = Raw::open_from([127, 0, 0, 3].into(), &scene.server.address).await;
    third.send("GET /health HTTP/1.1\nHost: broker\n\n").await;
    assert_eq!(third.answer().await.status, 200);
    let (answer, _send) = other.connect().await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(socket);
    let mut next = Raw::open_from([127, 0, 0, 4].into(), &scene.server.address).await;
    next.send(UPGRADE).await;
    assert_eq!(next.status().await, StatusCode::SWITCHING_PROTOCOLS);
}

/// What a client may send before it is read is little, however many sockets it has on a connection.
#[tokio::test]
async fn what_is_not_read_is_little() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "").await;
        let mut client = scene.http2(1 << 16).await;
        let mut streams = Vec::new();
        for _ in 0..8 {
            let (answer, mut send) = client.connect().await;
            assert_eq!(answer.status(), 200);
            send.reserve_capacity(8 << 20);
            streams.push((answer, send));
        }
        let windows = || streams.iter().map(|(_, send)| send.capacity()).collect::<Vec<_>>();
        until("the windows are open", || windows().iter().sum::<usize>() >= 64 << 10).await;
        let windows = windows();
        assert!(windows.iter().sum::<usize>() <= 96 << 10, "{transport:?}: {windows:?}");
        assert!(windows.iter().all(|window| *window < 64 << 10), "{transport:?}: {windows:?}");
    }
}

/// As much as a socket is sent over HTTP/2, it all comes.
#[tokio::test]
async fn large_frames_pass() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "").await;
        let mut client = scene.http2(1 << 16).await;
        let (mut origin, mut visitor) = (client.socket().await, client.socket().await);
        origin.register("pod").await;
        let sdp = "x".repeat(250_000);
        visitor.send(frames::offer("pod", "s", &sdp)).await;
        origin.expect(frames::offered("s", &sdp)).await;
        origin.send(frames::answer("s", &sdp)).await;
        visitor.expect(frames::answer("s", &sdp)).await;
    }
}
