//! Requests on streams of one network take turns, on however many connections; those of others do not wait for them.

use std::{
    iter::repeat_n,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use http::Method;
use tokio::net::TcpSocket;

use crate::support::{
    http2::{Http2, request},
    server::TestServer,
};

/// A connection of the client at `address`.
async fn client(server: &TestServer, address: [u8; 4]) -> Http2 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(address), 0).into()).unwrap();
    Http2::on(socket.connect(server.addresses[0]).await.unwrap(), 1 << 16).await
}

/// Four connections with 32 requests each: all but 32 of them are begun five milliseconds after the one before.
#[tokio::test]
async fn many_requests_at_once_are_begun_one_after_the_other() {
    let server = TestServer::with("[limits]\nexempt = []").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&server, [127, 0, 0, 2]).await);
    }
    let other = client(&server, [127, 0, 0, 3]).await;
    let begun = Instant::now();
    let ask = async |mut sender: SendRequest<Bytes>| {
        let (answer, _) =
            sender.send_request(request(Method::GET, "/health").body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        begun.elapsed()
    };
    let ask_32 = |client: &Http2| join_all(repeat_n(client.sender.clone(), 32).map(ask));
    let (times, of_other) = tokio::join!(join_all(clients.iter().map(ask_32)), ask_32(&other));
    let longest = times.into_iter().flatten().max().unwrap();
    assert!(longest >= Duration::from_millis(5 * (128 - 32)), "{longest:?}");
    assert!(of_other.into_iter().max().unwrap() < longest, "another client waits for itself alone");
}
