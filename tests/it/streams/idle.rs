//! Connections on which nothing is open, and those whose client is gone.

use std::time::Duration;

use h2::Reason;
use http::{Method, StatusCode, request::Builder};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use super::{Scene, TRANSPORTS, Transport, heads::spend_heads};
use crate::support::{frames, http2::Http2, pod::Pod, raw::Raw};

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
    let scene = Scene::with(Transport::Plain, settings).await;
    let stream = TcpStream::connect(&scene.server.address).await.unwrap();
    // Its task is not run: it reads nothing any more.
    let (_sender, _connection) = h2::client::handshake(stream).await.unwrap();
    let mut next = Raw::open_from([127, 0, 0, 2].into(), &scene.server.address).await;
    next.send("GET /health HTTP/1.1\nHost: broker\n\n").await;
    assert_eq!(next.answer().await.status, 200);
}

/// What is left of an answer in the buffers of TLS is not forgotten there.
#[tokio::test]
async fn the_tail_of_an_answer_that_is_not_taken_frees_its_place() {
    let settings = "[http]\nidle_timeout = \"600ms\"\nhead_timeout = \"600ms\"\n\
        max_connections_per_address = 1\n[http.bounds]\nwrite_timeout = \"300ms\"";
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, settings).await;
        for size in [80_000, 100_000, 120_000, 140_000] {
            let slug = scene.store(&Pod::named("pod").padded(size).html()).await;
            let small = TcpSocket::new_v4().unwrap();
            small.set_recv_buffer_size(4096).unwrap();
            let mut stalled = scene.http1_on(small).await;
            stalled.send(&format!("GET /{slug} HTTP/1.1\nHost: broker\n\n")).await;
            let next = async {
                while !scene.serves().await {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            let freed = tokio::time::timeout(crate::support::SOON, next).await;
            freed
                .unwrap_or_else(|_| panic!("{transport:?}, {size} bytes: its place should have become free"));
            drop(stalled);
        }
    }
}

/// A late first request takes nothing of the time that the next ones have.
#[tokio::test]
async fn each_head_has_its_time() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "[http]\nhead_timeout = \"2s\"").await;
        let mut client = scene.http1().await;
        for _ in 0..3 {
            // Less than the time-out, and more than half of it; nothing can be waited for.
            sleep(Duration::from_millis(1200)).await;
            client.send("GET /health HTTP/1.1\nHost: broker\n\n").await;
            assert_eq!(client.answer().await.status, 200, "{transport:?}");
        }
    }
}

/// The stream of a socket that has ended has the time of an answer to end too.
#[tokio::test]
async fn a_socket_whose_end_is_not_taken_leaves_an_idle_connection() {
    let settings = "[http]\nidle_timeout = \"300ms\"\n[http.bounds]\nwrite_timeout = \"300ms\"\n\
        [signal.bounds]\nfirst_frame_timeout = \"200ms\"";
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, settings).await;
        // Without a window, the socket's close frame does not come.
        let mut client = scene.http2(0).await;
        let sockets = [client.connect().await, client.connect().await];
        assert_eq!(sockets[0].0.status(), 200);
        client.closed().await;
        drop(sockets);
    }
}

const ONE_READ: &str = "[limits]\nexempt = []\nreads_per_address = \"1/day burst 1\"";

fn health() -> Builder {
    crate::support::http2::request(Method::GET, "/health")
}

/// Sends `request` on 32 streams at a time, until `most` were refused or the connection takes no further one. Returns how
/// many were refused, each with `status`.
async fn ask_on(client: &Http2, request: impl Fn() -> Builder, status: StatusCode, most: usize) -> usize {
    let mut refused = 0;
    let asking = async {
        while refused < most
            && let Ok(mut sender) = client.sender.clone().ready().await
        {
            let mut answers = Vec::new();
            while answers.len() < 32
                && let Ok((answer, _)) = sender.send_request(request().body(()).unwrap(), true)
            {
                answers.push(answer);
                match sender.ready().await {
                    Ok(ready) => sender = ready,
                    Err(_) => break,
                }
            }
            for answer in answers {
                let Ok(answer) = answer.await else { continue };
                assert_eq!(answer.status(), status);
                refused += 1;
            }
        }
    };
    tokio::time::timeout(crate::support::SOON * 2, asking).await.expect("the broker should have had enough");
    refused
}

/// Who goes on asking over HTTP/2 is refused for a while, and then altogether.
#[tokio::test]
async fn too_many_refusals_end_a_connection() {
    let scene = Scene::with(Transport::Plain, ONE_READ).await;
    let mut client = scene.http2(1 << 16).await;
    assert_eq!(client.get("/health").await.status(), 200);
    let refused = ask_on(&client, health, StatusCode::TOO_MANY_REQUESTS, usize::MAX).await;
    assert!(refused > 128, "{refused} were refused");
    client.closed().await;
}

/// So is who has no place for a request, which is before any rate is counted.
#[tokio::test]
async fn too_many_requests_without_a_place_end_a_connection() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "[http]\nmax_connections_per_address = 2").await;
        let mut reader = scene.http2(0).await;
        let mut not_taken = Vec::new();
        for _ in 0..32 {
            not_taken.push(reader.get("/health").await);
        }
        let client = scene.http2(1 << 16).await;
        let refused = ask_on(&client, health, StatusCode::SERVICE_UNAVAILABLE, usize::MAX).await;
        assert!(refused > 128, "{transport:?}: {refused} were refused");
        client.closed().await;
    }
}

/// So is who sends heads for which there is no memory.
#[tokio::test]
async fn too_many_heads_without_memory_end_a_connection() {
    let scene = Scene::with(Transport::Plain, "[http]\nhead_timeout = \"1h\"").await;
    let client = scene.http2(1 << 16).await;
    let large = || (0..100).fold(health(), |request, n| request.header(format!("x-{n}"), "y"));
    let _unfinished = spend_heads(&scene).await;
    let refused = ask_on(&client, large, StatusCode::SERVICE_UNAVAILABLE, usize::MAX).await;
    assert!(refused > 128, "{refused} were refused");
    client.closed().await;
}

/// The connection of a trusted proxy is that of many clients, whoever of them is refused.
#[tokio::test]
async fn the_connection_of_a_trusted_proxy_outlives_refusals() {
    let settings = format!("trusted_proxies = [\"127.0.0.1\"]\n{ONE_READ}");
    let scene = Scene::with(Transport::Plain, &settings).await;
    let mut client = scene.http2(1 << 16).await;
    assert_eq!(client.get("/health").await.status(), 200, "the proxy's own");
    let forwarded = || health().header("x-forwarded-for", "192.0.2.1");
    let mut sender = client.sender.clone();
    let (answer, _) = sender.send_request(forwarded().body(()).unwrap(), true).unwrap();
    assert_eq!(crate::support::http2::head(answer).await.status(), 200);
    let refused = ask_on(&client, forwarded, StatusCode::TOO_MANY_REQUESTS, 600).await;
    assert!(refused >= 600, "the connection was closed");
    assert_eq!(client.get("/health").await.status(), 429, "the proxy's own");
}
