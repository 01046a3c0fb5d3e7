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
    raw::Raw,
    server::TestServer,
};

/// A connection of the client at `address`.
async fn client(server: &TestServer, address: [u8; 4]) -> Http2 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(address), 0).into()).unwrap();
    Http2::on(socket.connect(server.addresses[0]).await.unwrap(), 1 << 16).await
}

/// Four connections with 32 requests each: all but 33 of them are begun five milliseconds after the one before.
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
    assert!(longest >= Duration::from_millis(5 * (128 - 33)), "{longest:?}");
    assert!(of_other.into_iter().max().unwrap() < longest, "another client waits for itself alone");
}

/// The preface and settings of a client of HTTP/2, none of which differs.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A `GET /` on a stream, and at once its end (RFC 9113, sections 6.2 and 6.4).
fn taken_back(stream: u32) -> Vec<u8> {
    let head = b"\x82\x86\x84\x41\x06broker";
    let id = stream.to_be_bytes();
    [&[0, 0, head.len() as u8, 1, 5], &id[..], head, &[0, 0, 4, 3, 0], &id, &[0, 0, 0, 8]].concat()
}

/// Whoever takes requests back before their turn loses its connection, and leaves the others of its network their turns.
#[tokio::test]
async fn requests_that_are_taken_back_cost_others_no_turn() {
    let server = TestServer::with("[limits]\nexempt = []").await;
    let mut other = client(&server, [127, 0, 0, 2]).await;
    let mut sent = 0;
    while sent < 4_000 {
        let mut attacker = Raw::open_from([127, 0, 0, 2].into(), &server.address).await;
        attacker.send_bytes(BEGIN).await;
        for stream in (1..).step_by(2) {
            if attacker.try_send_bytes(&taken_back(stream)).await.is_err() {
                break;
            }
            sent += 1;
        }
    }
    assert_eq!(other.get("/health").await.status(), 200);
}
